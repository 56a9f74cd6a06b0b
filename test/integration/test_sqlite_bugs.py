#!/usr/bin/python3
"""test_sqlite_bugs.py - what SQLite itself gets wrong: frames without checksums (until 3.50.2), and the WAL-reset bug.

The first is provoked for real (spill in a savepoint, write a spilled page again, ROLLBACK TO, COMMIT). On a SQLite that has
the fix the same transactions run and nothing is to be repaired.
"""

import os
import signal
import sqlite3
import subprocess
import threading

from shard import LIB, Shard, must_fail, python

from ljtest import chain, harness, native, othersqlite, pages, shim, wal
from ljtest.harness import LONG, Failure, check, check_equal, test
from ljtest.replica import Replica
from ljtest.workload import Workload

NEEDS = ("shim", "load_extension")
HAS_BUG = sqlite3.sqlite_version_info < (3, 50, 2)
REPAIRED = "they were repaired"
BY_SNAPSHOTS = "replicated by snapshots"


def log_lines(word):
    with open(os.environ["LITEJOIN_LOG_FILE"]) as file:
        return [line for line in file.read().splitlines() if word in line]


def bulk(con, rows=200):
    con.execute("CREATE TABLE bulk(id INTEGER PRIMARY KEY, a, b)")
    con.executemany("INSERT INTO bulk(a, b) VALUES(?, zeroblob(900))", [(i,) for i in range(rows)])


def break_chain(con, rng, writer="w", deep=False):
    """One transaction that SQLite with the bug commits without checksums. Returns its link."""
    con.execute("PRAGMA cache_size=5").fetchall()
    con.execute("BEGIN IMMEDIATE")
    if deep:
        chain.extend(con, rng, writer)
    con.execute("SAVEPOINT a")
    for _ in range(3):
        con.execute("UPDATE bulk SET a = a + 1")
    con.execute("ROLLBACK TO a")
    n = chain.extend(con, rng, writer)
    con.execute("COMMIT")
    return n


def after_a_crash(t, shard):
    """The link that plain SQLite finds when it recovers a copy of the files as they are now."""
    copy = t.path("crash.db")
    for tail in ("", "-wal", "-shm"):
        if os.path.exists(copy + tail):
            os.unlink(copy + tail)
    for tail in ("", "-wal"):
        subprocess.run(["cp", shard.path + tail, copy + tail], check=True)
    con = shim.plain(copy)
    try:
        check_equal(con.execute("PRAGMA integrity_check").fetchone()[0], "ok", "integrity_check after a crash")
        return chain.verify(con, "after a crash")
    finally:
        con.close()


def valid_frames_or_zero(path):
    with open(path, "rb") as file:
        return len(wal.frames(file.read(), strict=False)[1])


def valid_frames(path):
    with open(path, "rb") as file:
        return len(wal.frames(file.read())[1])


def killat():
    try:
        return native.shared_library(os.path.join(LIB, "..", "crash", "killat.c"), "-ldl")
    except (OSError, subprocess.CalledProcessError) as error:
        raise harness.Skip("cannot build killat.c: %s" % error)


@test(*NEEDS)
def this_sqlite_has_the_bug_or_not(t):
    """Without the shim: the recipe does what the other tests rely on."""
    shard = Shard(t)
    con = shim.plain(shard.path, pragmas=("journal_mode=WAL", "wal_autocheckpoint=0"))
    chain.create(con)
    bulk(con)
    con.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    chain.commit_one(con, t.random)
    before = chain.last(con)
    break_chain(con, t.random, deep=True)
    n = chain.commit_one(con, t.random)
    check_equal(after_a_crash(t, shard), before if HAS_BUG else n, "last link after a crash, SQLite " + sqlite3.sqlite_version)
    con.close()


@test(*NEEDS)
def broken_commits_are_repaired(t):
    """A crash loses nothing, the generation goes on, every frame in the WAL verifies."""
    for page_size in (512, 4096, 65536):
        for synchronous in ("OFF", "FULL") if page_size == 4096 else ("NORMAL",):
            with t.part("page size %d, synchronous %s" % (page_size, synchronous)):
                shard = Shard(t, "%d%s" % (page_size, synchronous))
                con = shard.open(page_size=page_size, pragmas=("wal_autocheckpoint=0", "synchronous=" + synchronous))
                bulk(con, 1000 if page_size == 65536 else 200)
                chain.commit_one(con, t.random)
                shim.sync(con)
                for turn in range(20):
                    n = break_chain(con, t.random, deep=turn % 2 == 1)
                    check_equal(after_a_crash(t, shard), n, "last link after a crash, turn %d" % turn)
                    n = shard.write(con, 2)
                    check_equal(after_a_crash(t, shard), n, "last link behind it")
                    # whether frames lack their sums depends on which pages the links happen to touch
                    if turn >= 3 and (not HAS_BUG or any(shard.path in line for line in log_lines(REPAIRED))):
                        break
                size = os.path.getsize(shard.path + "-wal")
                frames = valid_frames(shard.path + "-wal")
                check(32 + frames * (24 + page_size) == size or not HAS_BUG, "%d frames of %d bytes verify" % (frames, size))
                shim.sync(con)
                check_equal(shard.restore_now("live"), n, "last link")
                con.close()
                check_equal(shard.check_restores("closed", snapshots=1), n, "last link")
    check_equal(bool(log_lines(REPAIRED)), HAS_BUG, "lines about a repair")
    check_equal(len([line for line in log_lines(REPAIRED) if " warn " in line]), 4 if HAS_BUG else 0, "one warning per open")
    check_equal(log_lines(BY_SNAPSHOTS), [], "lines about snapshots instead")


@test(*NEEDS)
def the_first_transaction_of_a_wal(t):
    """No frame before it shows that checksums hold; that segments were shipped does. Of a new replica there are none."""
    shard = Shard(t)
    con = shard.open(pragmas=("wal_autocheckpoint=0",))
    bulk(con)
    chain.commit_one(con, t.random)
    shim.sync(con)
    chain.commit_one(con, t.random)
    shim.sync(con)
    for _ in range(3):
        con.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        n = break_chain(con, t.random)
        check_equal(after_a_crash(t, shard), n, "last link after a crash")
        n = shard.write(con, 2)
        check_equal(after_a_crash(t, shard), n, "last link after a crash")
    con.close()
    check_equal(shard.check_restores("closed", snapshots=1), n, "last link")


@test(*NEEDS, timeout=90)
def beside_readers_and_other_writers(t):
    """Others read and write the same database meanwhile, from this process and another one; nobody sees a wrong state."""
    shard = Shard(t)
    con = shard.open(pragmas=("wal_autocheckpoint=50",))
    bulk(con)
    shim.sync(con)
    errors = []
    stop = threading.Event()

    def read():
        own = shard.open(create=False)
        last = 0
        while not stop.is_set():
            own.execute("BEGIN")
            n = chain.verify(own, "reader")
            own.execute("COMMIT")
            if n < last:
                errors.append("link %d after %d" % (n, last))
            last = n
        own.close()

    def write():
        own = shard.open(create=False)
        import random
        rng = random.Random(5)
        while not stop.is_set():
            chain.commit_one(own, rng, "thread")
        own.close()

    def guard(body):
        try:
            body()
        except Exception as error:
            errors.append("%s: %s" % (type(error).__name__, error))

    code = ("import sys, random\n"
            "from ljtest import chain, shim\n"
            "con = shim.plain(sys.argv[1], busy=30)\n"
            "rng = random.Random(6)\n"
            "for _ in range(100): chain.commit_one(con, rng, 'plain')\n"
            "con.close()\n")
    threads = [threading.Thread(target=guard, args=(body,)) for body in (read, write)]
    threads += [threading.Thread(target=guard, args=(lambda: errors.extend(
        [] if python(code, arguments=(shard.path,))[0] == 0 else ["the other process failed"]),))]
    for thread in threads:
        thread.start()
    for turn in range(200 if LONG else 40):
        break_chain(con, t.random, "breaker", deep=turn % 3 == 0)
    stop.set()
    for thread in threads:
        thread.join()
    check(not errors, "; ".join(errors[:3]))
    n = chain.verify(con, "in the end")
    check_equal(after_a_crash(t, shard), n, "last link after a crash")
    shim.sync(con)
    con.close()
    check_equal(shard.check_restores("closed", one_generation=False), n, "last link")
    check_equal(log_lines("could not be repaired"), [], "failed repairs")


@test(*NEEDS, timeout=120)
def looked_at_in_the_middle_of_a_repair(t):
    """
    SQLite shows the commit before it gives the write lock back, and the repair takes its time (each write of the WAL does here). Who
    reads meanwhile must not have it shipped: its frames do not verify yet.
    """
    library = killat()
    code = ("import sys, os, random, threading\n"
            "sys.path.insert(0, sys.argv[3])\n"
            "from ljtest import chain, shim\n"
            "import test_sqlite_bugs as bugs\n"
            "con = shim.open_wal(sys.argv[1], sys.argv[2], sync_interval='1ms', pragmas=('wal_autocheckpoint=0',))\n"
            "stop = threading.Event()\n"
            "def read():\n"
            "    own = shim.connect(sys.argv[1], sys.argv[2], sync_interval='1ms')\n"
            "    while not stop.is_set(): chain.last(own)\n"
            "    own.close()\n"
            "reader = threading.Thread(target=read)\n"
            "reader.start()\n"
            "os.environ['LJ_SLOW_US'] = '1000'\n"
            "for turn in range(4): n = bugs.break_chain(con, random.Random(turn), deep=turn % 2 == 1)\n"
            "os.environ['LJ_SLOW_US'] = '0'\n"
            "stop.set()\n"
            "reader.join()\n"
            "shim.sync(con)\n"
            "con.close()\n"
            "print(n)\n")
    shard = Shard(t)
    con = shard.open()
    bulk(con)
    shard.write(con, 1)
    con.close()
    env = {"LD_PRELOAD": library, "LJ_KILL_DIR": shard.data, "LJ_SLOW_MATCH": "pwrite *-wal"}
    status, out, errors = python(code, env=env, arguments=(shard.path, shard.base, os.path.dirname(__file__)))
    check_equal(status, 0, "process: " + errors)
    check_equal(bool(log_lines(REPAIRED)), HAS_BUG, "lines about a repair")
    check_equal(log_lines(BY_SNAPSHOTS) + log_lines("cannot be continued"), [], "lines about a generation that was given up")
    check_equal(shard.check_restores("closed", snapshots=1), int(out), "last link")


@test(*NEEDS, timeout=120)
def a_connection_with_an_open_reader_goes_on(t):
    """
    The writer's own copy of the wal-index is behind a repair. With a statement still running it may get SQLITE_BUSY_SNAPSHOT for
    its next transaction, as if somebody else had committed; when that statement ends it goes on.
    """
    shard = Shard(t)
    con = shard.open(pragmas=("wal_autocheckpoint=0",))
    bulk(con)
    chain.commit_one(con, t.random)
    shim.sync(con)
    for _ in range(3):
        cursor = con.execute("SELECT id FROM bulk ORDER BY id")
        cursor.fetchone()
        n = break_chain(con, t.random)
        try:
            n = chain.commit_one(con, t.random)
        except sqlite3.OperationalError as error:
            check("locked" in str(error), "error: %s" % error)
            if con.in_transaction:
                con.execute("ROLLBACK")
        cursor.close()
        n = shard.write(con, 1)
        check_equal(after_a_crash(t, shard), n, "last link after a crash")
    con.close()
    check_equal(shard.check_restores("closed", snapshots=1), n, "last link")


@test(*NEEDS, timeout=90)
def exclusive_locking_waits_for_a_checkpoint(t):
    """There the writer keeps its own wal-index: nothing is repaired. The state and the log say what heals it, and it does."""
    for early in (False, True):
        with t.part("before the first access" if early else "behind the first access"):
            shard = Shard(t, str(early))
            con = shard.open()
            bulk(con)
            con.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            shim.sync(con)
            con.close()
            con = shim.connect(shard.path, shard.base)
            if not early:
                chain.last(con)
            for pragma in ("locking_mode=EXCLUSIVE", "wal_autocheckpoint=0"):
                con.execute("PRAGMA " + pragma).fetchall()
            before = chain.commit_one(con, t.random)
            shim.sync(con)
            n = break_chain(con, t.random, deep=True)
            if HAS_BUG:
                check("frame" in must_fail(shim.sync, con, "2s"), "what sync says")
                check("wal_checkpoint(TRUNCATE)" in shim.status(con)["last_error"], "status %s" % shim.status(con))
                check(any("wal_checkpoint(TRUNCATE)" in line for line in log_lines(shard.path)), "the log has no hint")
                check_equal(shard.restore_now("meanwhile"), before, "last link in the replica")
            con.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            shim.sync(con, "30s")
            check_equal(shard.restore_now("behind the checkpoint"), n, "last link")
            n = shard.write(con, 3)
            shim.sync(con, "30s")
            check_equal(shim.status(con)["state"], "replicating", "state behind the checkpoint")
            con.close()
            check_equal(shard.check_restores("closed", one_generation=False), n, "last link")
            check(len(shard.replica.newest().segments) > 0, "the newest generation has no WAL")


@test(*NEEDS, timeout=90)
def without_evidence_it_is_replicated_by_snapshots(t):
    """
    The very first frame of a new replica has no checksum: nothing has shown that they hold at this layer. What is committed
    gets to the replica all the same, at most a second later, and the next WAL is shipped as usual.
    """
    if not HAS_BUG:
        raise harness.Skip("SQLite %s does not have the bug" % sqlite3.sqlite_version)
    shard = Shard(t)
    con = shim.plain(shard.path, pragmas=("journal_mode=WAL",))
    chain.create(con)
    bulk(con)
    con.close()
    con = shard.open(create=False, pragmas=("wal_autocheckpoint=0",))
    n = break_chain(con, t.random, deep=True)
    if valid_frames_or_zero(shard.path + "-wal"):
        raise harness.Skip("SQLite began the transaction with a good frame")
    shim.sync(con)
    check_equal(shard.restore_now("right behind the broken commit"), n, "last link")
    line = log_lines(BY_SNAPSHOTS)
    check(len(line) == 1 and "wal_checkpoint(TRUNCATE)" in line[0] and " error " in line[0], "log: %s" % line)
    check(shim.status(con)["state"].startswith("snapshots only"), "state %s" % shim.status(con)["state"])
    n = shard.write(con, 5)
    shim.sync(con, "30s")
    check_equal(shard.restore_now("later commits"), n, "last link")
    waits = shard.open(create=False, durability="remote", remote_timeout="20s", pragmas=("wal_autocheckpoint=0",))
    n = chain.commit_one(waits, t.random)
    check_equal(shard.restore_now("a COMMIT that waited"), n, "last link")
    waits.close()
    check_equal(con.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0], 0, "busy")
    n = shard.write(con, 3)
    shim.sync(con, "30s")
    check_equal(shim.status(con)["state"], "replicating", "state behind the checkpoint")
    n = shard.write(con, 3)
    con.close()
    check_equal(shard.check_restores("closed", one_generation=False), n, "last link")
    check(len(shard.replica.newest().segments) > 0, "the newest generation has no WAL")


@test(*NEEDS, timeout=240)
def killed_in_the_middle_of_a_repair(t):
    """Before each write of the WAL and each sync: what plain SQLite recovers is a committed prefix."""
    library = killat()
    code = ("import sys, os, random\n"
            "sys.path.insert(0, sys.argv[3])\n"
            "from ljtest import chain, shim\n"
            "import test_sqlite_bugs as bugs\n"
            "con = shim.open_wal(sys.argv[1], sys.argv[2], sync_interval='1h', pragmas=('wal_autocheckpoint=0',))\n"
            "rng = random.Random(3)\n"
            "chain.commit_one(con, rng)\n"
            "bugs.break_chain(con, rng, deep=True)\n"
            "os.environ['LJ_KILL_DIR'] = os.environ.get('KILL_DIR', '')\n"
            "n = bugs.break_chain(con, rng)\n"
            "os.write(1, b'%d\\n' % n)\n"
            "chain.commit_one(con, rng)\n"
            "os.write(1, b'end\\n')\n"
            "os.kill(os.getpid(), 9)\n")
    start = Shard(t, "start")
    con = start.open()
    bulk(con, 60)
    con.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    base = start.write(con, 3)
    shim.sync(con)
    con.close()
    at = kills = 0
    wrong = []
    while True:
        at += 1 if LONG else t.random.randint(5, 13)
        shard = Shard(t, "k%d" % at)
        subprocess.run(["cp", "-r", start.data + "/.", shard.data], check=True)
        subprocess.run(["cp", "-rp", start.base, os.path.dirname(shard.base)], check=True)
        env = {"LD_PRELOAD": library, "KILL_DIR": shard.data, "LJ_KILL_AT": str(at), "LJ_KILL_LOG": t.path("log%d" % at)}
        status, out, errors = python(code, env=env, arguments=(shard.path, shard.base, os.path.dirname(__file__)))
        check_equal(status, -signal.SIGKILL, "process: " + errors)
        said = out.split()
        try:
            found = after_a_crash(t, shard)
            least = base + 4 if said else base + 3
            check(least <= found <= base + 5, "link %d, at least %d" % (found, least))
            con = shard.open(create=False)
            n = chain.verify(con, "next open")
            check_equal(n, found, "last link of the next open")
            n = shard.write(con, 2)
            con.close()
            check_equal(shard.check_restores("closed", one_generation=False, killed=True), n, "last link")
        except Failure as failure:
            wrong.append("call %d: %s" % (at, failure))
        if "end" in said:
            break
        kills += 1
    t.note("%d kills" % kills)
    check(not wrong, "%d of %d: %s" % (len(wrong), kills, "; ".join(wrong[:3])))
    check(kills >= 3, "only %d kills" % kills)


@test(*NEEDS, timeout=120)
def the_whole_workload_in_one_generation(t):
    """Spills, nested savepoints, ROLLBACK TO and failed statements, in every order: one generation all the same."""
    for seed in range(20 if LONG else 3):
        with t.part("seed %d" % seed):
            shard = Shard(t, "s%d" % seed)
            workload = Workload(lambda: shard.open(create=False), t.seed * 100 + seed, spill_savepoints=True)
            shim.sync(workload.con)
            n = workload.run(60)
            shim.sync(workload.con)
            check_equal(shard.restore_now("live"), n, "last link")
            workload.close()
            check_equal(shard.check_restores("closed", snapshots=1), n, "last link")
    t.note("%d repairs were told" % len(log_lines(REPAIRED)))


@test(*NEEDS)
def the_wal_reset_bug_is_told_once(t):
    shard = Shard(t)
    con = shard.open()
    con.close()
    shim.load()
    loader = sqlite3.connect(":memory:")
    loader.enable_load_extension(True)
    loader.load_extension(harness.extension_path())
    loader.close()
    version = sqlite3.sqlite_version_info
    fixed = version >= (3, 51, 3) or (3, 50, 7) <= version < (3, 51, 0) or (3, 44, 6) <= version < (3, 45, 0)
    lines = log_lines("WAL-reset bug")
    check_equal(len(lines), 0 if fixed else 1, "lines")
    check(fixed or (sqlite3.sqlite_version in lines[0] and "upgrade" in lines[0]), "line: %s" % lines)


@test(*NEEDS, timeout=300)
def with_a_newer_sqlite(t):
    othersqlite.rerun(t, __file__, ("this_sqlite_has_the_bug_or_not", "broken_commits_are_repaired", "the_wal_reset_bug"))


if __name__ == "__main__":
    harness.main("sqlite bugs")
