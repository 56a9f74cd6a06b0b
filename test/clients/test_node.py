#!/usr/bin/python3
"""test_node.py - the extension in Node's better-sqlite3.

better-sqlite3 is built without URI file names and names no VFS, so the extension is loaded once, into a database in
memory, with LITEJOIN_DEFAULT_VFS=1, and configured by the environment. install_node puts the package into .cache/node.
"""

import os
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from ljtest import harness  # noqa: E402

TOP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
CACHE = os.environ.get("LJ_NODE_CACHE") or os.path.join(TOP, ".cache", "node")

PRELUDE = """
const Database = require("better-sqlite3");
new Database(":memory:").loadExtension(process.env.LJ_EXTENSION).close();
"""

WRITE = """
const db = new Database("data/shard_0.db");
db.pragma("journal_mode = WAL");
db.exec("CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, x TEXT)");
const insert = db.prepare("INSERT INTO t(x) VALUES(?)");
db.transaction(() => { for (let i = 0; i < 100; i++) insert.run("row " + i); })();
console.log(db.prepare("SELECT count(*) AS n FROM t").get().n);
"""


def node(case, code, expect=0, prelude=PRELUDE, **environment):
    """Runs code with better-sqlite3 in the case's folder; returns (stdout, stderr)."""
    if not shutil.which("node") or not shutil.which("npm"):
        raise harness.Skip("needs node and npm (Debian: apt-get install nodejs npm)")
    modules = os.path.join(CACHE, "node_modules")
    if not os.path.isdir(os.path.join(modules, "better-sqlite3", "build")):
        raise harness.Skip("better-sqlite3 is not installed; run test/clients/install_node")
    env = {key: value for key, value in os.environ.items() if not key.startswith("LITEJOIN_")}
    env.update(LJ_EXTENSION=harness.extension_path(), NODE_PATH=modules, LITEJOIN_DEFAULT_VFS="1",
               LITEJOIN_SHUTDOWN_TIMEOUT="60s",  # a slow machine's
               LITEJOIN_REPLICA_URL="file://" + case.folder("replica"))
    env.update(environment)
    env = {key: value for key, value in env.items() if value is not None}
    done = subprocess.run(["node", "-e", prelude + code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=300,
                          cwd=case.dir, env=env, universal_newlines=True)
    harness.check(done.returncode == expect,
                  lambda: "status %d: %s" % (done.returncode, (done.stdout + done.stderr)[-700:]))
    harness.check(expect or not done.stderr, lambda: "wrote to stderr: %s" % done.stderr[-300:])
    return done.stdout, done.stderr


def lose(case):
    shutil.rmtree(case.path("data"))
    case.folder("data")


@harness.test("shim")
def rows_come_back_after_the_folder_is_deleted(case):
    case.folder("data")
    for turn in (1, 2, 3):
        out, _ = node(case, WRITE + "db.close();")
        harness.check_equal(out.strip(), str(100 * turn), "rows in process %d" % turn)
        lose(case)
    harness.check_equal(os.listdir(case.path("replica")), ["shard_0"], "replicas")


@harness.test("shim")
def restored_in_the_same_process(case):
    case.folder("data")
    out, _ = node(case, WRITE + """
db.close();
require("fs").rmSync("data", {recursive: true});
require("fs").mkdirSync("data");
const again = new Database("data/shard_0.db");
console.log(again.prepare("SELECT count(*) AS n FROM t").get().n, again.pragma("integrity_check", {simple: true}));
again.close();
""")
    harness.check_equal(out.split(), ["100", "100", "ok"], "output")


@harness.test("shim")
def synced_rows_survive_a_process_that_does_not_close(case):
    case.folder("data")
    node(case, WRITE + 'db.pragma("litejoin_sync"); process.kill(process.pid, "SIGKILL");', expect=-9)
    lose(case)
    out, _ = node(case, WRITE + "db.close();")
    harness.check_equal(out.strip(), "200", "rows")


@harness.test("shim")
def the_pragmas_answer(case):
    case.folder("data")
    out, _ = node(case, WRITE + """
db.pragma("litejoin_sync");
db.pragma("litejoin_snapshot");
const status = JSON.parse(db.pragma("litejoin_status", {simple: true}));
console.log(status.state, status.lag_frames);
db.close();
""")
    harness.check_equal(out.split("\n")[1], "replicating 0", "status")


@harness.test("shim")
def worker_threads_write_too(case):
    case.folder("data")
    out, _ = node(case, """
const { Worker, isMainThread } = require("worker_threads");
""" + WRITE + """
const code = `
const Database = require("better-sqlite3");
const db = new Database("data/shard_0.db", {timeout: 60000});
for (let i = 0; i < 50; i++) db.prepare("INSERT INTO t(x) VALUES('worker')").run();
db.close();`;
let left = 3;
for (let i = 0; i < 3; i++) new Worker(code, {eval: true}).on("exit", status => {
    if (status) process.exit(1);
    if (--left === 0) db.close();
});
""")
    harness.check_equal(out.strip(), "100", "rows before the workers")
    lose(case)
    out, _ = node(case, 'console.log(new Database("data/shard_0.db").prepare("SELECT count(*) AS n FROM t").get().n);')
    harness.check_equal(out.strip(), "250", "rows")


@harness.test("shim")
def without_the_switch_nothing_is_replicated(case):
    case.folder("data")
    node(case, WRITE + "db.close();", LITEJOIN_DEFAULT_VFS=None)
    harness.check_equal(os.listdir(case.path("replica")), [], "replicas")


@harness.test("shim")
def a_bad_setting_fails_loudly(case):
    case.folder("data")
    _, err = node(case, WRITE, expect=1, LITEJOIN_SYNC_INTERVAL="fast")
    harness.check("Error" in err, "no exception: %r" % err)
    harness.check(not os.path.exists(case.path("data", "shard_0.db")), "the database was created nevertheless")


if __name__ == "__main__":
    harness.main("node")
