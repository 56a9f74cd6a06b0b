#!/usr/bin/python3
"""test_shell.py - the extension in the stock sqlite3 shell: .load, .open, write, quit, and everything is in the replica."""

import os
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from ljtest import harness  # noqa: E402

NEEDS = ("sqlite3", "shim")


def shell(case, *lines, expect=0, **environment):
    """
    Types the lines into `sqlite3`, as a user in a folder that holds the extension; returns (stdout, stderr). With
    expect None any exit status will do: the shell's own depends on which line failed.
    """
    link = case.path("litejoin_vfs.so")
    if not os.path.exists(link):
        os.symlink(harness.extension_path(), link)
    env = {key: value for key, value in os.environ.items() if not key.startswith("LITEJOIN_")}
    env.update({"LITEJOIN_SHUTDOWN_TIMEOUT": "60s"}, **environment)  # a slow machine's
    done = subprocess.run(["sqlite3", "-batch", "-init", "/dev/null"], input="\n".join(lines) + "\n", cwd=case.dir,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=300, env=env, universal_newlines=True)
    noise = "-- Loading resources from /dev/null\n"
    stderr = done.stderr.replace(noise, "")
    if expect is not None:
        harness.check(done.returncode == expect, "sqlite3: status %d: %s" % (done.returncode, stderr[-500:]))
        harness.check(not stderr, "sqlite3 wrote to stderr: %s" % stderr[-500:])
    return done.stdout, stderr


def uri(case, name="shard_0.db", query=""):
    case.folder("data")
    return "'file:data/%s?vfs=litejoin&replica_url=file://%s%s'" % (name, case.folder("replica"), query)


def write(case, *more, name="shard_0.db"):
    return shell(case, ".load ./litejoin_vfs", ".open " + uri(case, name), "PRAGMA journal_mode=WAL;",
                 "CREATE TABLE t(id INTEGER PRIMARY KEY, x);",
                 "INSERT INTO t SELECT value, 'row ' || value FROM generate_series(1, 300);", *more)


def read(case, name="shard_0.db", sql="SELECT count(*), min(x), max(id) FROM t;"):
    return shell(case, ".load ./litejoin_vfs", ".open " + uri(case, name), sql, "PRAGMA integrity_check;")[0].split()


def lose(case):
    shutil.rmtree(case.path("data"))


@harness.test(*NEEDS)
def quitting_leaves_everything_in_the_replica(case):
    out, _ = write(case)
    harness.check_equal(out, "wal\n", "output")
    lose(case)
    harness.check_equal(read(case), ["300|row", "1|300", "ok"], "what came back")


@harness.test(*NEEDS)
def quit_command_ships_too(case):
    write(case, ".quit")
    lose(case)
    harness.check_equal(read(case), ["300|row", "1|300", "ok"], "what came back")


@harness.test(*NEEDS)
def lost_again_and_again(case):
    write(case)
    for turn in range(1, 5):
        lose(case)
        out, _ = shell(case, ".load ./litejoin_vfs", ".open " + uri(case),
                       "INSERT INTO t VALUES(1000 + %d, 'turn');" % turn, "SELECT count(*) FROM t;")
        harness.check_equal(out.strip(), str(300 + turn), "rows in turn %d" % turn)


@harness.test(*NEEDS)
def the_restored_wal_mode_stays(case):
    write(case)
    lose(case)
    out, _ = shell(case, ".load ./litejoin_vfs", ".open " + uri(case), "PRAGMA journal_mode;")
    harness.check_equal(out.strip(), "wal", "journal_mode")


@harness.test(*NEEDS)
def vfsname_shows_the_stack(case):
    out, _ = shell(case, ".load ./litejoin_vfs", ".open " + uri(case), ".vfsname")
    harness.check(out.startswith("litejoin/"), ".vfsname: %r" % out)
    harness.check("unix" in out, ".vfsname does not show the VFS underneath: %r" % out)
    out, _ = shell(case, ".load ./litejoin_vfs", ".vfslist")
    harness.check('vfs.zName      = "litejoin"' in out, ".vfslist: %r" % out)


@harness.test(*NEEDS)
def it_is_not_the_default_vfs(case):
    out, _ = shell(case, ".load ./litejoin_vfs", ".open plain.db", "CREATE TABLE t(x);", ".vfsname",
                   LITEJOIN_REPLICA_URL="file://" + case.folder("replica"))
    harness.check_equal(out.strip(), "unix", ".vfsname of a database that does not name the VFS")
    harness.check_equal(os.listdir(case.path("replica")), [], "replicas")


@harness.test(*NEEDS)
def default_vfs_on_request(case):
    case.folder("data")
    settings = {"LITEJOIN_DEFAULT_VFS": "1", "LITEJOIN_REPLICA_URL": "file://" + case.folder("replica")}
    shell(case, ".load ./litejoin_vfs", ".open data/shard_0.db", "PRAGMA journal_mode=WAL;", "CREATE TABLE t(x);",
          "INSERT INTO t VALUES(7);", **settings)
    lose(case)
    case.folder("data")
    out, _ = shell(case, ".load ./litejoin_vfs", ".open data/shard_0.db", "SELECT x FROM t;", **settings)
    harness.check_equal(out.strip(), "7", "row after the restore")


@harness.test(*NEEDS)
def loading_twice_is_harmless(case):
    out, err = shell(case, ".load ./litejoin_vfs", ".load ./litejoin_vfs", ".open " + uri(case), ".load ./litejoin_vfs",
                     "PRAGMA journal_mode=WAL;", "CREATE TABLE t(x);", "INSERT INTO t VALUES(1);",
                     ".load ./litejoin_vfs", "SELECT x FROM t;")
    harness.check_equal(out.split(), ["wal", "1"], "output")
    lose(case)
    harness.check_equal(read(case, sql="SELECT x FROM t;"), ["1", "ok"], "what came back")


@harness.test(*NEEDS)
def pragmas(case):
    out, _ = write(case, "PRAGMA litejoin_sync;", "PRAGMA litejoin_snapshot;", "PRAGMA litejoin_status;",
                   "PRAGMA litejoin_sync='60s';")
    lines = out.splitlines()
    harness.check_equal(lines[0], "wal", "journal_mode")
    harness.check('"state"' in out and "replicating" in out, "litejoin_status: %r" % out[-800:])


@harness.test(*NEEDS)
def a_wrong_option_is_explained(case):
    for query, words in (("replica_url=/no/scheme", ["replica_url", "/no/scheme", "file:///path"]),
                         ("replica_ulr=file:///x", ["replica_ulr", "replica_url"]),
                         ("replica_url=nosuch:///x", ["nosuch"])):
        with case.part(query):
            # the shell shows what an extension logs only when asked to
            out, err = shell(case, ".log stdout", ".load ./litejoin_vfs",
                             ".open 'file:bad.db?vfs=litejoin&%s'" % query, expect=None)
            harness.check("unable to open" in err, "the shell did not complain: %r" % err)
            for word in words:
                harness.check(word in out, "%r is not in the log: %r" % (word, out))
            harness.check(not os.path.exists(case.path("bad.db")), "the file was created nevertheless")


@harness.test(*NEEDS)
def the_last_error_in_sql(case):
    out, err = shell(case, ".load ./litejoin_vfs", ".open 'file:bad.db?vfs=litejoin&replica_url=/no/scheme'",
                     "SELECT litejoin_last_error();", expect=None)
    for word in ("replica_url", "/no/scheme", "file:///path"):
        harness.check(word in out, "%r is not in %r (stderr %r)" % (word, out, err))


@harness.test(*NEEDS)
def nothing_is_printed(case):
    write(case)
    out, err = shell(case, ".load ./litejoin_vfs", ".open " + uri(case), "INSERT INTO t VALUES(999, 1);",
                     LITEJOIN_LOG_LEVEL="debug")
    harness.check_equal((out, err), ("", ""), "stdout and stderr")


@harness.test(*NEEDS)
def the_log_file_gets_the_lines(case):
    log = case.path("litejoin.log")
    out, _ = shell(case, ".load ./litejoin_vfs", ".open " + uri(case), "PRAGMA journal_mode=WAL;", "CREATE TABLE t(x);",
                   LITEJOIN_LOG_FILE=log, LITEJOIN_LOG_LEVEL="debug")
    harness.check(os.path.exists(log) and os.path.getsize(log) > 0, "the log file is missing or empty")


@harness.test(*NEEDS)
def several_databases_in_one_session(case):
    names = ["shard_0.db", "shard_1.db", "shard_2.db", "dlq.db"]
    lines = [".load ./litejoin_vfs"]
    for name in names:
        lines += [".open " + uri(case, name), "PRAGMA journal_mode=WAL;", "CREATE TABLE t(x);",
                  "INSERT INTO t VALUES('%s');" % name]
    shell(case, *lines)
    lose(case)
    for name in names:
        harness.check_equal(read(case, name, "SELECT x FROM t;"), [name, "ok"], "rows of " + name)
    harness.check_equal(sorted(os.listdir(case.path("replica"))), ["dlq", "shard_0", "shard_1", "shard_2"], "replicas")


@harness.test(*NEEDS)
def backup_command_restores_into_it(case):
    """`.restore` writes every page of a database anew: a generation that breaks, or not, but the rows must be there."""
    write(case)
    shell(case, ".load ./litejoin_vfs", ".open " + uri(case), ".backup copy.db", "DELETE FROM t;")
    shell(case, ".load ./litejoin_vfs", ".open " + uri(case), ".restore copy.db")
    lose(case)
    harness.check_equal(read(case), ["300|row", "1|300", "ok"], "what came back")


if __name__ == "__main__":
    harness.main("shell")
