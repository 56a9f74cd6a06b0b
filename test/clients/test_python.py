#!/usr/bin/python3
"""test_python.py - the extension in Python's own sqlite3 module, used the way the README shows.

Nothing here knows more than a user does: load the extension, open a URI, write, read. A database "in another
process" is one opened by a fresh interpreter.
"""

import os
import shutil
import sqlite3
import subprocess
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from ljtest import harness, shim  # noqa: E402

ROWS = [(i, "row %d" % i) for i in range(200)]
NEEDS = ("load_extension", "shim")
PATIENCE = {"LITEJOIN_SHUTDOWN_TIMEOUT": "60s"}  # a slow machine's

# What a fresh interpreter begins with: `db(name, query)` opens a database through the VFS.
PRELUDE = """
import os, sqlite3, sys
loader = sqlite3.connect(":memory:")
loader.enable_load_extension(True)
loader.load_extension(os.environ["LJ_EXTENSION"])
loader.close()
def db(path, query=""):
    return sqlite3.connect("file:%s?vfs=litejoin%s" % (path, "&" + query if query else ""), uri=True,
                           isolation_level=None)
"""


def load(con):
    con.enable_load_extension(True)
    con.load_extension(harness.extension_path())
    con.enable_load_extension(False)


def load_once():
    os.environ.update(PATIENCE)
    loader = sqlite3.connect(":memory:")
    load(loader)
    loader.close()


def open_db(case, name="shard_0.db", **options):
    """As in the README: file:NAME?vfs=litejoin&replica_url=file://..."""
    query = "".join("&%s=%s" % pair for pair in options.items())
    return sqlite3.connect("file:%s?vfs=litejoin&replica_url=file://%s%s" % (
        os.path.join(case.folder("data"), name), case.folder("replica"), query), uri=True)


def fill(con, rows=ROWS):
    harness.check_equal(con.execute("PRAGMA journal_mode=WAL").fetchone()[0], "wal", "journal_mode")
    con.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, x TEXT)")
    con.executemany("INSERT INTO t VALUES(?,?)", rows)
    con.commit()


def read(con):
    return con.execute("SELECT id, x FROM t ORDER BY id").fetchall()


def python(code, expect=0, cwd=None, **environment):
    """Runs code in a fresh interpreter; returns its stdout. Fails on another exit status, and on any stray output."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("LITEJOIN_")}
    env.update(PATIENCE, LJ_EXTENSION=harness.extension_path(), **environment)
    done = subprocess.run([sys.executable, "-c", PRELUDE + code], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          timeout=300, env=env, cwd=cwd, universal_newlines=True)
    harness.check(done.returncode == expect, lambda: "status %d: %s" % (done.returncode, done.stderr[-500:]))
    harness.check(expect or not done.stderr, lambda: "wrote to stderr: %s" % done.stderr[-300:])
    return done.stdout


@harness.test(*NEEDS)
def written_rows_come_back_after_the_folder_is_deleted(case):
    load_once()
    con = open_db(case)
    fill(con)
    con.execute("PRAGMA litejoin_sync").fetchall()
    con.close()
    shutil.rmtree(case.path("data"))
    con = open_db(case)
    harness.check_equal(read(con), ROWS, "rows after the restore")
    harness.check_equal(con.execute("PRAGMA journal_mode").fetchone()[0], "wal", "journal_mode after the restore")
    con.execute("INSERT INTO t VALUES(1000, 'after')")
    con.commit()
    con.close()
    shutil.rmtree(case.path("data"))
    con = open_db(case)
    harness.check_equal(read(con), ROWS + [(1000, "after")], "rows after the second restore")
    harness.check_equal(con.execute("PRAGMA integrity_check").fetchone()[0], "ok", "integrity_check")
    con.close()


@harness.test(*NEEDS)
def closing_ships_what_is_left(case):
    load_once()
    con = open_db(case, sync_interval="1h")
    fill(con)
    con.execute("INSERT INTO t VALUES(5000, 'last')")
    con.commit()
    con.close()
    shutil.rmtree(case.path("data"))
    con = open_db(case)
    harness.check_equal(read(con), ROWS + [(5000, "last")], "rows")
    con.close()


@harness.test(*NEEDS)
def another_process_restores(case):
    code = """
con = db("data/shard_0.db", "replica_url=file://" + os.getcwd() + "/replica")
print(con.execute("PRAGMA journal_mode=WAL").fetchone()[0])
con.execute("CREATE TABLE IF NOT EXISTS t(x)")
con.execute("INSERT INTO t VALUES(?)", (sys.version_info[0],))
print(con.execute("SELECT count(*) FROM t").fetchone()[0])
con.close()
"""
    case.folder("replica")
    for count in (1, 2, 3):
        case.folder("data")
        harness.check_equal(python(code, cwd=case.dir).split(), ["wal", str(count)], "rows in process %d" % count)
        shutil.rmtree(case.path("data"))


@harness.test(*NEEDS)
def two_connections_see_each_other(case):
    load_once()
    one = open_db(case)
    fill(one)
    two = open_db(case)
    harness.check_equal(read(two), ROWS, "rows of the second connection")
    two.execute("INSERT INTO t VALUES(900, 'from two')")
    two.commit()
    harness.check_equal(read(one)[-1], (900, "from two"), "last row of the first connection")
    first = shim.sync(one)
    one.execute("UPDATE t SET x = 'changed' WHERE id = 0")
    one.commit()
    one.close()  # the database stays open through the second connection
    second = shim.sync(two)
    harness.check_equal(second.generation, first.generation, "generation")
    harness.check((second.index, second.offset) > (first.index, first.offset), "%r is not behind %r" % (second, first))
    two.close()
    shutil.rmtree(case.path("data"))
    con = open_db(case)
    harness.check_equal(read(con), [(0, "changed")] + ROWS[1:] + [(900, "from two")], "rows")
    con.close()


@harness.test(*NEEDS)
def threads_with_a_connection_each(case):
    load_once()
    con = open_db(case)
    fill(con, [])
    con.close()
    errors = []

    def write(number):
        try:
            own = open_db(case)
            own.execute("PRAGMA busy_timeout=60000")
            for i in range(50):
                own.execute("INSERT INTO t VALUES(?,?)", (number * 1000 + i, "thread %d" % number))
                own.commit()
            own.close()
        except Exception as error:  # reported below
            errors.append(repr(error))

    threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    harness.check_equal(errors, [], "errors of the threads")
    shutil.rmtree(case.path("data"))
    con = open_db(case)
    want = [(n * 1000 + i, "thread %d" % n) for n in range(4) for i in range(50)]
    harness.check_equal(read(con), want, "rows")
    con.close()


@harness.test(*NEEDS)
def shards_and_dlq_go_to_folders_of_their_own(case):
    load_once()
    names = ["shard_0.db", "shard_1.db", "shard_2.db", "dlq.db"]
    open_ones = [open_db(case, name) for name in names]
    for name, con in zip(names, open_ones):
        fill(con, [(1, name)])
    for con in open_ones:
        con.close()
    harness.check_equal(sorted(os.listdir(case.path("replica"))), ["dlq", "shard_0", "shard_1", "shard_2"], "replicas")
    shutil.rmtree(case.path("data"))
    for name in names:
        con = open_db(case, name)
        harness.check_equal(read(con), [(1, name)], "rows of " + name)
        con.close()


@harness.test(*NEEDS)
def replica_name_overrides_the_last_part(case):
    load_once()
    con = open_db(case, replica_name="main-state")
    fill(con)
    con.close()
    harness.check_equal(os.listdir(case.path("replica")), ["main-state"], "replicas")


@harness.test(*NEEDS)
def a_bad_option_fails_the_open_and_names_it(case):
    load_once()
    cases = [
        ("replica_ulr=file:///x", ["replica_ulr", "file:///x", "replica_url"]),
        ("litejoin_sync_intervall=1s", ["litejoin_sync_intervall", "sync_interval"]),
        ("sync_interval=fast", ["sync_interval", "fast", "1ms to 24h"]),
        ("sync_interval=48h", ["sync_interval", "48h", "1ms to 24h"]),
        ("replica_url=/no/scheme", ["replica_url", "/no/scheme", "file:///path"]),
        ("litejoin_mode=both", ["litejoin_mode", "both", "sidecar, embedded"]),
        ("upload_workers=0", ["upload_workers", "0", "1 to 64"]),
    ]
    for query, words in cases:
        with case.part(query):
            path = os.path.join(case.folder("data"), "bad.db")
            try:
                sqlite3.connect("file:%s?vfs=litejoin&%s" % (path, query), uri=True).close()
            except sqlite3.OperationalError:
                why = shim.last_error()
                for word in words:
                    harness.check(word in why, "%r is not in %r" % (word, why))
            else:
                raise harness.Failure("the open worked")
            harness.check(not os.path.exists(path), "the file was created nevertheless")


@harness.test(*NEEDS)
def a_secret_in_a_url_is_refused_and_not_repeated(case):
    load_once()
    path = os.path.join(case.folder("data"), "bad.db")
    for url in ("s3://AKIA:hunter2@bucket/x", "s3://bucket/x%3Fsecret_access_key=hunter2"):
        try:
            sqlite3.connect("file:%s?vfs=litejoin&replica_url=%s" % (path, url), uri=True).close()
        except sqlite3.OperationalError:
            why = shim.last_error()
            harness.check("replica_url" in why and "secret" in why, "message: %r" % why)
            harness.check("hunter2" not in why, "the secret is in the message")
        else:
            raise harness.Failure("the open worked with " + url)


@harness.test(*NEEDS)
def sqlite_parameters_keep_their_meaning(case):
    load_once()
    con = open_db(case)
    fill(con)
    con.close()
    reader = open_db(case, mode="ro")
    harness.check_equal(read(reader), ROWS, "rows")
    try:
        reader.execute("INSERT INTO t VALUES(777, 'x')")
    except sqlite3.OperationalError as error:
        harness.check("readonly" in str(error), "error: %s" % error)
    else:
        raise harness.Failure("mode=ro could write")
    reader.close()


WRITE = """
con = db("data/shard_0.db")
con.execute("PRAGMA journal_mode=WAL").fetchall()
con.execute("CREATE TABLE IF NOT EXISTS t(x)")
con.execute("INSERT INTO t VALUES(1)")
print(con.execute("SELECT count(*) FROM t").fetchone()[0])
con.close()
"""


@harness.test(*NEEDS)
def the_environment_configures(case):
    replica = case.folder("replica")
    for count in (1, 2):
        case.folder("data")
        got = python(WRITE, cwd=case.dir, LITEJOIN_REPLICA_URL="file://" + replica, LITEJOIN_SYNC_INTERVAL="100ms")
        harness.check_equal(got.strip(), str(count), "rows")
        shutil.rmtree(case.path("data"))
    harness.check_equal(os.listdir(replica), ["shard_0"], "replicas")


@harness.test(*NEEDS)
def the_litejoin_yaml_configures(case):
    replica = case.folder("replica")
    with open(case.path("litejoin.yaml"), "w") as file:
        file.write("shards: 4\nreplication:\n  enabled: true\n  mode: embedded\n  replica_url: file://%s\n" % replica)
    for count in (1, 2):
        case.folder("data")
        got = python(WRITE, cwd=case.dir, LITEJOIN_CONFIG=case.path("litejoin.yaml"))
        harness.check_equal(got.strip(), str(count), "rows")
        shutil.rmtree(case.path("data"))
    harness.check_equal(os.listdir(replica), ["shard_0"], "replicas")


@harness.test(*NEEDS)
def sidecar_mode_and_disabled_only_pass_through(case):
    replica = case.folder("replica")
    for text in ("enabled: true\n  mode: sidecar", "enabled: false\n  mode: embedded", "mode: embedded"):
        with case.part(text.replace("\n ", ",")):
            with open(case.path("litejoin.yaml"), "w") as file:
                file.write("replication:\n  %s\n  replica_url: file://%s\n" % (text, replica))
            case.folder("data")
            python(WRITE, cwd=case.dir, LITEJOIN_CONFIG=case.path("litejoin.yaml"))
            shutil.rmtree(case.path("data"))
            harness.check_equal(os.listdir(replica), [], "replicas")


@harness.test(*NEEDS)
def a_bad_environment_is_an_error_that_names_it(case):
    case.folder("data")
    code = """
try:
    db("data/shard_0.db")
except sqlite3.OperationalError as error:
    import ctypes
    library = ctypes.CDLL(os.environ["LJ_EXTENSION"])
    library.litejoin_last_error.restype = ctypes.c_char_p
    print(error, library.litejoin_last_error().decode())
"""
    load_or_open = code.replace("try:\n", "try:\n" + "".join(
        "    " + line + "\n" for line in PRELUDE.strip().splitlines()), 1)
    for name, value, words in (("LITEJOIN_REPLICAURL", "file:///x", ["LITEJOIN_REPLICAURL", "file:///x"]),
                               ("LITEJOIN_RETENTION", "long", ["LITEJOIN_RETENTION", "long", "0 to 87600h"]),
                               ("LITEJOIN_CONFIG", "/nonexistent.yaml", ["/nonexistent.yaml"])):
        with case.part(name):
            env = {key: text for key, text in os.environ.items() if not key.startswith("LITEJOIN_")}
            env.update({name: value, "LJ_EXTENSION": harness.extension_path()})
            done = subprocess.run([sys.executable, "-c", load_or_open], stdout=subprocess.PIPE, timeout=300, env=env,
                                  cwd=case.dir, universal_newlines=True)
            for word in words:
                harness.check(word in done.stdout, "%r is not in %r" % (word, done.stdout))


@harness.test(*NEEDS)
def other_journal_modes_pass_through_and_say_so(case):
    load_once()
    con = open_db(case)
    con.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, x TEXT)")
    con.executemany("INSERT INTO t VALUES(?,?)", ROWS)
    con.commit()
    harness.check_equal(con.execute("PRAGMA journal_mode").fetchone()[0], "delete", "journal_mode")
    state = shim.status(con)["state"]
    harness.check("delete" in state, "state %r does not name the journal mode" % state)
    con.close()


@harness.test(*NEEDS)
def loading_twice_is_harmless(case):
    load_once()
    con = open_db(case)
    fill(con)
    load(con)
    again = open_db(case)
    load(again)
    harness.check_equal(read(again), ROWS, "rows")
    con.close()
    again.close()
    load_once()
    shutil.rmtree(case.path("data"))
    con = open_db(case)
    harness.check_equal(read(con), ROWS, "rows after the restore")
    con.close()


@harness.test(*NEEDS)
def other_databases_are_left_alone(case):
    load_once()
    plain = sqlite3.connect(os.path.join(case.folder("data"), "plain.db"))
    fill(plain)
    plain.close()
    memory = sqlite3.connect(":memory:")
    memory.execute("CREATE TABLE t(x)")
    memory.close()
    harness.check_equal(os.listdir(case.path("data")), ["plain.db"], "files beside a database of another VFS")


@harness.test(*NEEDS)
def attached_databases_replicate_too(case):
    load_once()
    con = open_db(case)
    fill(con)
    con.execute("ATTACH 'file:%s?vfs=litejoin&replica_url=file://%s' AS side" % (
        case.path("data", "side.db"), case.path("replica")))
    con.execute("PRAGMA side.journal_mode=WAL").fetchall()
    con.execute("CREATE TABLE side.u(x)")
    con.execute("INSERT INTO side.u VALUES(42)")
    con.commit()
    harness.check(shim.sync(con, schema="side").generation != shim.sync(con).generation, "one generation for both")
    con.close()
    shutil.rmtree(case.path("data"))
    con = open_db(case, "side.db")
    harness.check_equal(con.execute("SELECT x FROM u").fetchall(), [(42,)], "rows of the attached database")
    con.close()


if __name__ == "__main__":
    harness.main("python")
