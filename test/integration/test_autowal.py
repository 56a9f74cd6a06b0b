#!/usr/bin/python3
"""test_autowal.py - auto_wal: a database in rollback mode is switched to WAL by SQLite itself, when nobody holds a lock on it."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time

from shard import LIB, Shard, python, wait_caught_up

from ljtest import chain, harness, native, othersqlite, pages, shim
from ljtest.harness import LONG, check, check_equal, test, wait_for
from ljtest.replica import Replica

NEEDS = ("shim", "load_extension")


def journal_mode(con):
    con.execute("SELECT count(*) FROM sqlite_schema").fetchone()  # SQLite learns of a switch when it next reads
    return con.execute("PRAGMA journal_mode").fetchone()[0]


def restored(t, shard, label):
    out = t.path("restored.db")
    shard.replica.restore(out)
    pages.check_same(out, shard.path, label + ": replica against the database")
    return out


def make_plain(path, count=20, page_size=4096):
    con = shim.plain(path, pragmas=("page_size=%d" % page_size,))
    chain.create(con)
    n = 0
    for i in range(count):
        n = chain.commit_one(con, random.Random(i), "plain")
    con.close()
    return n


@test(*NEEDS)
def a_new_database_is_switched_behind_its_first_transaction(t):
    """So that what can only be chosen before it (page size, auto_vacuum, encoding) is still the application's choice."""
    for page_size, auto_vacuum, encoding in ((4096, 0, "UTF-8"), (8192, 1, "UTF-16le"), (512, 2, "UTF-8")):
        with t.part("page_size=%d, auto_vacuum=%d, encoding=%s" % (page_size, auto_vacuum, encoding)):
            shard = Shard(t, "p%d" % page_size)
            con = shim.connect(shard.path, shard.base, auto_wal="on", pragmas=(
                "page_size=%d" % page_size, "auto_vacuum=%d" % auto_vacuum, "encoding='%s'" % encoding))
            check_equal(con.execute("PRAGMA page_size").fetchone()[0], page_size, "page_size of the empty file")
            chain.create(con)
            check_equal(journal_mode(con), "wal", "journal_mode behind the first transaction")
            for pragma, value in (("page_size", page_size), ("auto_vacuum", auto_vacuum), ("encoding", encoding)):
                check_equal(con.execute("PRAGMA " + pragma).fetchone()[0], value, pragma)
            n = shard.write(con, 20)
            wait_caught_up(con)
            check_equal(shard.restore_now("live"), n, "last link")
            con.close()
            check_equal(shard.check_restores("closed", snapshots=1), n, "last link")


@test(*NEEDS)
def a_session_of_one_transaction_is_in_the_replica(t):
    """Everything was written before the switch, and nothing is read behind it: the close waits for the snapshot."""
    for how in ("close", "exit", "sync"):
        with t.part(how):
            shard = Shard(t, how)
            code = ("import sys, sqlite3\n"
                    "from ljtest import shim\n"
                    "con = shim.connect(sys.argv[1], sys.argv[2], auto_wal='on')\n"
                    "con.executescript('BEGIN; CREATE TABLE t(a); INSERT INTO t VALUES(41); COMMIT')\n"
                    "if sys.argv[3] == 'sync': print(shim.sync(con))\n"
                    "if sys.argv[3] != 'exit': con.close()\n")
            status, _, errors = python(code, arguments=(shard.path, shard.base, how))
            check_equal((status, errors), (0, ""), "process")
            look = shim.plain(restored(t, shard, how))
            check_equal(look.execute("SELECT a FROM t").fetchall(), [(41,)], "rows")
            look.close()
            con = shard.open(create=False)
            con.execute("INSERT INTO t VALUES(42)")
            con.close()
            check_equal(shard.replica.counts()[:2], (1, 1), "generations and snapshots")
            restored(t, shard, "next life")


@test(*NEEDS)
def an_idle_database_is_switched_at_open(t):
    for page_size in (512, 4096, 65536):
        with t.part("page size %d" % page_size):
            shard = Shard(t, "p%d" % page_size)
            n = make_plain(shard.path, page_size=page_size)
            con = shim.connect(shard.path, shard.base, auto_wal="on")
            check_equal(con.execute("PRAGMA journal_mode").fetchone()[0], "wal", "journal_mode of the first question")
            check(shim.status(con)["state"] in ("starting", "replicating"), "state %s" % shim.status(con)["state"])
            check_equal(chain.verify(con, "switched"), n, "last link")
            n = shard.write(con, 5)
            con.close()
            check_equal(shard.check_restores("closed", snapshots=1), n, "last link")


@test(*NEEDS)
def a_hot_journal_is_rolled_back_first(t):
    """A writer died in the middle of a transaction in rollback mode: only SQLite may repair that, and it does."""
    code = ("import sys, os, random\n"
            "from ljtest import chain, shim\n"
            "con = shim.plain(sys.argv[1], pragmas=('cache_size=5',))\n"
            "chain.create(con)\n"
            "con.execute('CREATE TABLE bulk(a)')\n"
            "con.executemany('INSERT INTO bulk VALUES(zeroblob(900))', [()] * 300)\n"
            "for _ in range(10): n = chain.commit_one(con, random.Random(3))\n"
            "con.execute('BEGIN')\n"
            "con.execute('UPDATE bulk SET a = randomblob(900)')\n"
            "chain.extend(con, random.Random(4))\n"
            "print(n, os.path.getsize(sys.argv[1] + '-journal'), flush=True)\n"
            "os.kill(os.getpid(), 9)\n")
    shard = Shard(t)
    status, out, errors = python(code, arguments=(shard.path,))
    check_equal(status, -signal.SIGKILL, "writer: " + errors)
    n, journal = map(int, out.split())
    check(journal > 100000, "no hot journal was left")
    con = shim.connect(shard.path, shard.base, auto_wal="on")
    check_equal(con.execute("PRAGMA journal_mode").fetchone()[0], "wal", "journal_mode")
    check_equal(chain.verify(con, "behind the roll-back"), n, "last link")
    check_equal(con.execute("SELECT count(*) FROM bulk WHERE a = zeroblob(900)").fetchone()[0], 300, "rows as they were")
    check(not os.path.exists(shard.path + "-journal"), "the journal is still there")
    n = shard.write(con, 3)
    con.close()
    check_equal(shard.check_restores("closed", snapshots=1), n, "last link")


@test(*NEEDS)
def a_busy_database_is_switched_when_it_is_idle(t):
    """Nobody waits, nobody is disturbed: with a reader about it stays as it is, and says so."""
    shard = Shard(t)
    n = make_plain(shard.path)
    other = shim.plain(shard.path)
    other.execute("BEGIN")
    check_equal(other.execute("SELECT count(*) FROM chain").fetchone()[0], n, "rows of the other reader")
    con = shim.connect(shard.path, shard.base, auto_wal="on")
    check_equal(shim.status(con)["state"], "not replicating: journal_mode=delete", "state beside a reader")
    check_equal(chain.verify(con, "beside a reader"), n, "last link")
    check_equal(con.execute("PRAGMA journal_mode").fetchone()[0], "delete", "journal_mode beside a reader")
    other.execute("COMMIT")
    wait_for(lambda: journal_mode(con) == "wal", "the switch", 60, 0.1)
    check_equal(other.execute("PRAGMA journal_mode").fetchone()[0], "delete", "what the other connection still believes")
    n = shard.write(con, 3)
    check_equal(chain.verify(other, "the other connection"), n, "last link of the other connection")
    check_equal(other.execute("PRAGMA journal_mode").fetchone()[0], "wal", "journal_mode of the other connection")
    n = chain.commit_one(other, t.random, "plain")
    check_equal(chain.verify(con, "both write"), n, "last link")
    other.close()
    n = shard.write(con, 1)
    con.close()
    check_equal(shard.check_restores("closed", snapshots=1), n, "last link")


@test(*NEEDS)
def what_the_application_chooses_stays(t):
    """A change of the page size goes through DELETE mode: auto_wal must not come in between."""
    shard = Shard(t, auto_wal="on")
    con = shim.connect(shard.path, shard.base, **shard.options)
    chain.create(con)
    shard.write(con, 5)
    check_equal(con.execute("PRAGMA journal_mode=DELETE").fetchone()[0], "delete", "journal_mode")
    con.execute("PRAGMA page_size=1024").fetchall()
    con.execute("VACUUM")
    shard.write(con, 5)
    time.sleep(1.2)
    n = shard.write(con, 5)
    check_equal((journal_mode(con), con.execute("PRAGMA page_size").fetchone()[0]), ("delete", 1024), "mode and page size")
    check(shim.status(con)["state"].startswith("not replicating"), "state %s" % shim.status(con)["state"])
    con.close()
    con = shim.connect(shard.path, shard.base, **shard.options)  # the choice holds until the next open
    check_equal(con.execute("PRAGMA journal_mode").fetchone()[0], "wal", "journal_mode of the next open")
    n = shard.write(con, 5)
    con.close()
    check_equal(shard.check_restores("closed", one_generation=False), n, "last link")


@test(*NEEDS)
def only_what_is_replicated_is_switched(t):
    shard = Shard(t)
    n = make_plain(shard.path)
    for label, replica, options in (("no replica", None, {}), ("read-only", shard.base, {"mode": "ro"}),
                                    ("nolock", shard.base, {"nolock": 1}), ("off", shard.base, {"auto_wal": "off"}),
                                    ("not asked", shard.base, {"auto_wal": None})):
        with t.part(label):
            options = {"auto_wal": "on", **options}
            con = shim.connect(shard.path, replica, **{k: v for k, v in options.items() if v is not None})
            check_equal(chain.verify(con, label), n, "last link")
            check_equal(con.execute("PRAGMA journal_mode").fetchone()[0], "delete", "journal_mode")
            con.close()
            with open(shard.path, "rb") as file:
                check_equal(file.read(100)[18:20], b"\x01\x01", "mode in the file")
    with t.part("a file that is no SQLite database"):
        path = t.path("data", "other.db")
        with open(path, "wb") as file:
            file.write(bytes(range(256)) * 64)
        con = shim.connect(path, shard.base, auto_wal="on")
        try:
            con.execute("SELECT * FROM sqlite_schema").fetchall()
            raise harness.Failure("SQLite read it")
        except sqlite3.DatabaseError as error:
            check("not a database" in str(error), "error: %s" % error)
        con.close()
        with open(path, "rb") as file:
            check_equal(file.read(), bytes(range(256)) * 64, "content")


@test(*NEEDS)
def set_by_environment_and_file(t):
    code = ("import sys\n"
            "from ljtest import shim\n"
            "con = shim.connect(sys.argv[1], None)\n"
            "con.execute('CREATE TABLE t(a)')\n"
            "con.execute('INSERT INTO t VALUES(1)')\n"
            "print(con.execute('PRAGMA journal_mode').fetchone()[0])\n"
            "con.close()\n")
    with open(t.path("litejoin.yaml"), "w") as file:
        file.write("replication:\n  enabled: true\n  mode: embedded\n  auto_wal: on\n  replica_url: file://%s\n" %
                   t.path("yaml"))
    for name, env in (("env", {"LITEJOIN_REPLICA_URL": "file://" + t.path("env"), "LITEJOIN_AUTO_WAL": "on"}),
                      ("yaml", {"LITEJOIN_CONFIG": t.path("litejoin.yaml")})):
        with t.part(name):
            path = os.path.join(t.folder("data-" + name), "x.db")
            status, out, errors = python(code, env=env, arguments=(path,))
            check_equal((status, out, errors), (0, "wal\n", ""), "process")
            Replica(t.path(name, "x")).restore(t.path("out.db"))
            pages.check_same(t.path("out.db"), path, "replica against the database")


# ---------------------------------------------------------------------------------------------------------------------
# dying in the middle

DYING = """
import sys, os
from ljtest import chain, shim
path, base, new = sys.argv[1:4]
shim.load()
os.environ["LJ_KILL_DIR"] = os.environ.get("KILL_DIR", "")
os.environ["LJ_KILL_AT"] = os.environ.get("KILL_AT", "0")
con = shim.connect(path, base, auto_wal="on", sync_interval="1h", shutdown_timeout="0")
if int(new):
    chain.create(con)
con.execute("SELECT count(*) FROM chain").fetchone()
os.write(1, b"end\\n")
os.kill(os.getpid(), 9)
"""


@test(*NEEDS, timeout=240)
def kill_before_every_call_that_changes_a_file(t):
    """Whatever call of the switch the process dies before: plain SQLite finds everything or the state before, whole."""
    try:
        library = native.shared_library(os.path.join(LIB, "..", "crash", "killat.c"), "-ldl")
    except (OSError, subprocess.CalledProcessError) as error:
        raise harness.Skip("cannot build killat.c: %s" % error)
    for new in (0, 1):
        with t.part("a new database" if new else "a database in rollback mode"):
            at = kills = 0
            calls = set()
            while True:
                at += 1 if LONG else t.random.randint(2, 5)
                shard = Shard(t, "k%d_%d" % (new, at))
                n = 0 if new else make_plain(shard.path, 4)
                log = t.path("calls%d_%d" % (new, at))
                env = {"LD_PRELOAD": library, "KILL_DIR": shard.data, "KILL_AT": str(at), "LJ_KILL_LOG": log}
                status, out, errors = python(DYING, env=env, arguments=(shard.path, shard.base, new))
                check_equal(status, -signal.SIGKILL, "process: " + errors)
                with open(log) as file:
                    lines = file.read().splitlines()
                if out == "end\n":
                    break
                kills += 1
                calls.add(lines[-1].split(" ", 1)[1].replace(shard.data, ""))
                look = shim.plain(shard.path) if os.path.exists(shard.path) else None
                there = look is not None and chain.exists(look)
                check(new or there, "before %s: the database is gone" % lines[-1])
                if there:
                    check_equal(chain.verify(look, lines[-1]), n, "before %s: last link" % lines[-1])
                    check_equal(look.execute("PRAGMA integrity_check").fetchone()[0], "ok", "integrity_check")
                if look is not None:
                    look.close()
                con = shim.connect(shard.path, shard.base, auto_wal="on")
                if not chain.exists(con):
                    chain.create(con)
                check_equal(journal_mode(con), "wal", "before %s: journal_mode of the next open" % lines[-1])
                n = shard.write(con, 2)
                con.close()
                check_equal(shard.check_restores("before " + lines[-1], one_generation=False, killed=True), n, "last link")
            t.note("%d kills, %d different calls: %s" % (kills, len(calls), ", ".join(sorted(calls))))
            check(any("fsync" in call or "fdatasync" in call for call in calls) or not LONG,
                  "the switch never synced")


@test(*NEEDS, timeout=300)
def with_a_newer_sqlite(t):
    othersqlite.rerun(t, __file__, ("a_new_database_is_switched_behind_its_first_transaction",
                                    "a_session_of_one_transaction", "a_hot_journal_is_rolled_back_first",
                                    "a_busy_database_is_switched"))


if __name__ == "__main__":
    harness.main("autowal")
