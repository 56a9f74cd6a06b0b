#!/usr/bin/python3
"""test_durability.py - commits that wait for the replica.

With durability=remote a COMMIT that returned success is in the store, one that failed is nowhere: not in the connection, not
in another one, not after a crash, not in what a restore gives. The connection goes on.
"""
# timeout: 1200

import os
import shutil
import sqlite3
import threading
import time

from durablekit import BUCKET, SEGMENTS, Remote, crashed, ids, ids_of_file, io_error
from shard import Shard, in_time, must_fail, python

from ljtest import faults, harness, shim
from ljtest.failing import preload
from ljtest.harness import LONG, check, check_equal, test, wait_for
from ljtest.replica import Replica

NEEDS = ("shim", "load_extension")
PATIENCE = 60

# ---------------------------------------------------------------------------------------------------------------------
# every way a commit can be written


def plain(remote, con):
    return remote.insert(con)


def spill(remote, con):
    """Frames are written long before COMMIT, and the same pages again."""
    con.execute("PRAGMA cache_size=5").fetchall()
    con.execute("BEGIN")
    number = remote.insert(con)
    con.executemany("INSERT INTO bulk VALUES(?, randomblob(900))", [(number,)] * 40)
    con.execute("COMMIT")
    return number


def rewritten(remote, con):
    """Spilled pages change again: their frames are written over, and all checksums behind them are computed anew."""
    con.execute("PRAGMA cache_size=5").fetchall()
    con.execute("BEGIN")
    number = remote.insert(con)
    con.executemany("INSERT INTO bulk VALUES(?, randomblob(900))", [(number,)] * 40)
    con.execute("UPDATE bulk SET b = randomblob(900) WHERE a = ?", (number,))
    con.execute("UPDATE bulk SET b = randomblob(900) WHERE a = ?", (number,))
    con.execute("COMMIT")
    return number


def savepoint(remote, con):
    con.execute("BEGIN")
    number = remote.insert(con)
    con.execute("SAVEPOINT s")
    con.executemany("INSERT INTO bulk VALUES(?, randomblob(900))", [(number,)] * 10)
    con.execute("ROLLBACK TO s")
    con.execute("INSERT INTO bulk VALUES(?, randomblob(900))", (number,))
    con.execute("COMMIT")
    return number


def restart(remote, con):
    """The commit's first write is a new WAL header."""
    con.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()
    return remote.insert(con)


def truncated(remote, con):
    con.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    return remote.insert(con)


def vacuum(remote, con):
    """Every page in one transaction; it changes no row."""
    con.execute("VACUUM")
    return None


WAYS = (plain, spill, rewritten, savepoint, restart, truncated, vacuum)


def abandon(con):
    if con.in_transaction:
        con.execute("ROLLBACK")


def one_way(remote, con, way, other):
    """Fails once, and then works."""
    what = way.__name__
    with remote.refuses():
        io_error(way, remote, con)
        check(not con.in_transaction, what + ": the transaction is still open behind its failed COMMIT")
        remote.check(con, what + " failed", other=other, replica=False)
    number = way(remote, con)
    if number:
        remote.good.append(number)
    if remote.options.get("psow") == 0:
        check_equal(remote.restored(), remote.good, what + ": restored")  # the padding behind it is not waited for
        shim.sync(con, "60s")
    state = shim.status(con)
    check_equal(state["replica_position"], state["local_position"], what + ": the replica behind the commit")
    remote.check(con, what, other=other, replica=False)


def all_ways(t, synchronous, locking, page_size, **options):
    name = "%s, %s, %d" % (synchronous, locking, page_size)
    with t.part(name + "".join(", %s=%s" % item for item in options.items())):
        with Remote(t, "m%s%s%d%s" % (synchronous, locking, page_size, "".join(options))) as remote:
            remote.options.update(options)
            pragmas = ["synchronous=" + synchronous]
            if locking == "heap":
                # before the first access to the WAL: there is no shared memory at all
                con = shim.connect(remote.path, remote.base, pragmas=["page_size=%d" % page_size, "locking_mode=EXCLUSIVE",
                                                                      "journal_mode=WAL", *pragmas], **remote.options)
                con.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB)")
            else:
                con = remote.open(page_size=page_size, pragmas=pragmas)
            con.execute("CREATE TABLE bulk(a, b)")
            if locking == "exclusive":
                con.execute("PRAGMA locking_mode=EXCLUSIVE").fetchall()
            remote.commit(con, 2)
            # SQLite before 3.50.2 with psow=0 leaves frames without checksums there: see frames_without_checksums
            for way in [way for way in WAYS if not (options and way is savepoint)]:
                one_way(remote, con, way, locking == "normal")
            con.execute("PRAGMA wal_checkpoint").fetchall()
            remote.finish(con)


@test(*NEEDS, timeout=240, long_timeout=1200)
def every_way_to_write_a_commit(t):
    """synchronous, locking mode, page size, and what SQLite does with frames before COMMIT: each fails once and then works."""
    cases = [("OFF", "normal", 4096), ("NORMAL", "normal", 512), ("FULL", "normal", 65536), ("EXTRA", "normal", 4096),
             ("OFF", "heap", 1024), ("FULL", "heap", 4096), ("NORMAL", "exclusive", 4096), ("FULL", "exclusive", 512)]
    if LONG:
        cases = [(s, l, p) for s in ("OFF", "NORMAL", "FULL", "EXTRA") for l in ("normal", "heap", "exclusive")
                 for p in (512, 1024, 4096, 65536)]
    for case in cases:
        all_ways(t, *case)
    for page_size in (512, 4096):
        all_ways(t, "FULL", "normal", page_size, psow=0)


@test(*NEEDS)
def what_never_waits(t):
    """ROLLBACK, spilled frames and transactions that only read, while the store takes nothing."""
    with Remote(t, remote_timeout="60s") as remote:
        con = remote.open(pragmas=["cache_size=5"])
        con.execute("CREATE TABLE bulk(a, b)")
        remote.commit(con)
        before = remote.proxy.add(faults.stall(), method="PUT")
        con.execute("BEGIN")
        con.executemany("INSERT INTO bulk VALUES(1, randomblob(900))", [()] * 60)
        con.execute("SAVEPOINT s")
        con.executemany("INSERT INTO bulk VALUES(1, randomblob(900))", [()] * 60)
        con.execute("ROLLBACK TO s")
        con.execute("ROLLBACK")
        con.execute("BEGIN IMMEDIATE")
        con.execute("COMMIT")
        con.execute("BEGIN")
        check_equal(ids(con), remote.good, "read")
        con.execute("COMMIT")
        check_equal(before.seen, 0, "requests")
        remote.proxy.clear()
        remote.commit(con)
        remote.check(con, "after it")
        remote.finish(con)


@test(*NEEDS)
def nobody_sees_it_before(t):
    """While the PUT hangs, neither this process nor another one nor a crash has the row; other writers wait as for any writer."""
    with Remote(t) as remote:
        con = remote.open()
        remote.commit(con)
        second = remote.open(create=False)
        writer = remote.open(create=False, busy=0.05)
        held = threading.Event()
        rule = remote.proxy.add(faults.answer(lambda _: held.wait(PATIENCE) and None or faults.Response(503), "held"),
                                method="PUT", path=SEGMENTS, count=1)
        done = []
        thread = threading.Thread(target=lambda: done.append(remote.insert(con)))
        thread.start()
        wait_for(lambda: rule.fired, "a PUT", PATIENCE)
        check_equal(ids(second), remote.good, "in another connection")
        code = ("import sys; from durablekit import ids; from ljtest import shim; print(ids(shim.plain(sys.argv[1])))")
        status, out, errors = python("import sys; sys.path.insert(0, %r)\n" % os.path.dirname(os.path.abspath(__file__)) + code,
                                     arguments=(remote.path,))
        check_equal((status, out.strip()), (0, str(remote.good)), "in another process: " + errors)
        try:
            writer.execute("INSERT INTO t VALUES(1000, 0)")
            raise harness.Failure("a second writer came through")
        except sqlite3.OperationalError as error:
            check("locked" in str(error), "the second writer: %s" % error)
        check(not done, "the commit did not wait")
        held.set()  # 503: it is tried again, and that works
        thread.join(PATIENCE)
        check(done, "the commit did not come back")
        remote.good.append(done[0])
        check_equal(ids(second), remote.good, "in another connection, afterwards")
        remote.check(con, "afterwards")
        second.close()
        writer.close()
        remote.finish(con)


# ---------------------------------------------------------------------------------------------------------------------
# failures


def counted(con):
    return shim.status(con)["failed_commits"]


@test(*NEEDS, timeout=180)
def every_kind_of_failure(t):
    """The commit fails in time, the row is nowhere, and the next commit works in the same generation."""
    cases = (
        ("denied", faults.s3_error("AccessDenied"), "20s", "AccessDenied"),
        ("server errors", faults.s3_error("InternalError"), "1500ms", "InternalError"),
        ("reset before it is stored", faults.reset_before(), "1500ms", "the replica did not take the transaction"),
        ("stored, and the answer is lost", faults.reset_after(), "1500ms", "the replica did not take the transaction"),
        ("no answer", faults.black_hole(), "1500ms", "the store has not answered"),
        ("stored, and the answer is late", faults.delay_answer(3000), "1500ms", "the store has not answered"),
    )
    for name, action, timeout, text in cases:
        with t.part(name):
            with Remote(t, name.replace(" ", "-").replace(",", ""), remote_timeout=timeout) as remote:
                patient = remote.open(remote_timeout="60s")
                remote.commit(patient, 3)
                con = remote.open(create=False)
                generation = shim.status(con)["generation"]
                with remote.proxy.rule(action, method="PUT", path=SEGMENTS):
                    started = time.monotonic()
                    error = remote.fails(con)
                    took = time.monotonic() - started
                    check(text in error, error)
                    check(took < 15, "it took %.1f s" % took)
                    remote.check(con, "behind the failure", replica=False)
                    check_equal(counted(con), 1, "failed commits")
                wait_for(lambda: remote.restored() == remote.good, "the failed row is out of the replica", PATIENCE, 0.1)
                remote.commit(patient)
                remote.check(con, "the next commit")
                check_equal(shim.status(con)["generation"], generation, "generation")
                con.close()
                remote.finish(patient)


@test(*NEEDS, timeout=120)
def the_next_commit_in_the_same_connection(t):
    """Behind a lost answer the same key gets other bytes: the object of the failed transaction goes, ours comes."""
    with Remote(t, remote_timeout="1s") as remote:
        con = remote.open()
        for _ in range(3):
            try:
                remote.commit(con)
                break
            except sqlite3.OperationalError:
                continue
        check(remote.good, "the store is too slow for this test")
        generation = shim.status(con)["generation"]
        for _ in range(3):
            # only the conditional PUT of a segment is lost; deleting, reading and looking works
            with remote.proxy.rule(faults.reset_after(), method="PUT", path=SEGMENTS):
                remote.fails(con)
            deadline = time.monotonic() + PATIENCE
            while True:
                try:
                    remote.commit(con)
                    break
                except sqlite3.OperationalError:
                    check(time.monotonic() < deadline, "no commit works any more: " + shim.last_error())
            remote.check(con, "behind it")
        check_equal(shim.status(con)["generation"], generation, "generation")
        remote.finish(con)


@test(*NEEDS, timeout=120)
def a_put_that_arrives_late(t):
    """It was given up, and reaches the store seconds later: behind the next commit (refused) and before it (taken back)."""
    for name, next_first in (("behind the next commit", True), ("before the next commit", False)):
        with t.part(name):
            with Remote(t, "late%d" % next_first, remote_timeout="60s") as remote:
                con = remote.open()
                remote.commit(con, 2)
                hasty = remote.impatient()
                remote.proxy.forget()
                late = threading.Event()
                bodies = []

                def keep(request):
                    bodies.append((request.target, request.headers, request.body))
                    late.wait(PATIENCE)
                    return faults.Response(503)

                rule = remote.proxy.add(faults.answer(keep, "kept"), method="PUT", path=SEGMENTS, count=1)
                remote.fails(hasty)
                check_equal(rule.fired, 1, "the PUT on its way")
                late.set()
                target, _, body = bodies[0]
                if next_first:
                    remote.commit(con)
                status, _, _ = remote.store.request("PUT", target, body, {"If-None-Match": "*"})
                check_equal(status, 412 if next_first else 200, "the late PUT")
                wait_for(lambda: remote.restored() == remote.good, "the failed row is out of the replica", PATIENCE, 0.1)
                if not next_first:
                    wait_for(lambda: any("took back" in line for line in log_lines()), "the log tells", PATIENCE)
                    remote.commit(con)
                remote.check(con, "afterwards")
                hasty.close()
                remote.finish(con)


def log_lines():
    with open(os.environ["LITEJOIN_LOG_FILE"], errors="replace") as file:
        return file.read().splitlines()


@test(*NEEDS, timeout=120)
def what_cannot_be_taken_back(t):
    """No right to delete, or a store that would let a late PUT overwrite: a new generation, in which the row is absent."""
    for name, rules, options, action in (
            ("no right to delete", [("POST", r"delete"), ("DELETE", None)], {}, faults.reset_after()),
            ("no conditional put", [], {"conditional": "off"}, faults.black_hole())):
        with t.part(name):
            remote = Remote(t, name.replace(" ", "-"))
            remote.url_options.update(options)
            with remote:
                con = remote.open()
                remote.commit(con, 2)
                hasty = remote.impatient()
                before = shim.status(con)["generation"]
                for method, query in rules:
                    remote.proxy.add(faults.s3_error("AccessDenied"), method=method, query=query)
                with remote.proxy.rule(action, method="PUT", path=SEGMENTS):
                    remote.fails(hasty)
                wait_for(lambda: shim.status(con)["generation"] not in ("", before) and
                         shim.status(con)["state"] == "replicating", lambda: "a new generation: %s" % shim.status(con), PATIENCE)
                wait_for(lambda: any("cannot be continued" in line and "COMMIT failed" in line for line in log_lines()), "the log tells", PATIENCE)
                check_equal(remote.restored(shim.status(con)["generation"]), remote.good, "rows in the new generation")
                hasty.close()
                remote.commit(con)
                generation = shim.status(con)["generation"]
                check(generation != before, "the old generation goes on")
                check_equal(remote.restored(generation), remote.good, "rows in the new generation")
                con.close()


@test(*NEEDS, timeout=120)
def killed_behind_a_failed_commit(t):
    """The answer was lost, the row's object is in the store, and the host dies: the next open must not go on behind it."""
    code = ("import sys, os; sys.path.insert(0, %r)\n"
            "from durablekit import io_error\n"
            "from ljtest import shim\n"
            "con = shim.connect(sys.argv[1], sys.argv[2], durability='remote', remote_timeout='700ms', io_timeout='30s')\n"
            "print(io_error(con.execute, 'INSERT INTO t VALUES(1000, 0)'), flush=True)\n"
            "os.kill(os.getpid(), 9)\n" % os.path.dirname(os.path.abspath(__file__)))
    with Remote(t) as remote:
        con = remote.open()
        remote.commit(con, 3)
        generation = shim.status(con)["generation"]
        con.close()
        for how, action in (("stored", faults.reset_after()), ("not stored", faults.reset_before())):
            with t.part(how):
                rules = [remote.proxy.add(action, method="PUT", path=SEGMENTS),
                         remote.proxy.add(faults.s3_error("AccessDenied"), method="POST", query="delete"),
                         remote.proxy.add(faults.s3_error("AccessDenied"), method="DELETE"),
                         remote.proxy.add(faults.black_hole(), method="GET", path=SEGMENTS)]
                status, out, errors = python(code, arguments=(remote.path, remote.base))
                check("disk I/O error" in out, "the commit did not fail: %s %s" % (out, errors))
                check_equal(remote.crashed(), remote.good, "after the kill")
                for rule in rules:
                    remote.proxy.remove(rule)
                con = remote.open(create=False)
                check_equal(ids(con), remote.good, "at the next open")
                wait_for(lambda: shim.status(con)["state"] == "replicating", "replicating", PATIENCE)
                remote.commit(con)
                now = shim.status(con)["generation"]
                check_equal(remote.restored(now), remote.good, "restored")
                if how == "not stored":
                    check_equal(now, generation, "generation")
                generation = now
                con.close()


@test(*NEEDS, timeout=120)
def closed_behind_a_failed_commit(t):
    """The answer was lost, the row's object is in the store, and the host closes at once: that is taken back before it is gone."""
    with Remote(t, shutdown_timeout="60s") as remote:
        con = remote.open()
        remote.commit(con, 2)
        generation = shim.status(con)["generation"]
        hasty = remote.impatient()
        con.close()
        slow = remote.proxy.add(faults.delay(500), method="GET", path=SEGMENTS)
        with remote.proxy.rule(faults.reset_after(), method="PUT", path=SEGMENTS):
            remote.fails(hasty)
        hasty.close()
        check_equal(remote.restored(), remote.good, "restored")
        remote.proxy.remove(slow)
        con = remote.open(create=False)
        remote.commit(con)
        check_equal(shim.status(con)["generation"], generation, "generation")
        remote.finish(con)


@test(*NEEDS, timeout=120)
def before_the_replica_is_there(t):
    """No snapshot yet, a chain that is broken, another process that ships: the commit waits, or says which of them it is."""
    with Remote(t, remote_timeout="60s") as remote:
        with t.part("the first commit waits for the first snapshot"):
            con = remote.open()
            remote.commit(con)
            remote.check(con, "the first commit")
        with t.part("no snapshot"):
            con.execute("PRAGMA journal_mode").fetchall()
            con.close()
            os.rename(os.path.join(remote.data, ".shard_0.db-litejoin"), os.path.join(remote.data, "gone"))
            remote.proxy.add(faults.black_hole(), method="PUT", path="/snapshots/")
            con = remote.open(create=False, remote_timeout="700ms")
            error = remote.fails(con)
            check("first snapshot" in error or "snapshot is not in the replica" in error, error)
            remote.check(con, "behind it", replica=False)
            remote.proxy.clear()
            con.close()
            con = remote.open(create=False)
            remote.commit(con)
            check_equal(remote.restored(shim.status(con)["generation"]), remote.good, "restored")
        con.close()


@test(*NEEDS, timeout=120)
def degrading(t):
    """remote_on_failure=degrade: one commit waits in vain, later ones do not wait, until the replica has caught up."""
    with Remote(t, remote_on_failure="degrade") as remote:
        patient = remote.open()
        remote.commit(patient, 2)
        con = remote.impatient()
        rule = remote.proxy.add(faults.black_hole(), method="PUT", path=SEGMENTS)
        remote.commit(con)
        state = shim.status(con)
        check_equal((state["state"], state["degraded"], state["failed_commits"]), ("degraded", True, 1), "status")
        started = time.monotonic()
        remote.commit(con, 30)
        took = time.monotonic() - started
        check_equal(counted(con), 1, "commits that waited")
        check(took < 10, "30 commits took %.1f s" % took)
        check_equal(len([line for line in log_lines() if "degraded" in line]), 1, "log lines")
        remote.proxy.remove(rule)
        remote.proxy.drop()
        wait_for(lambda: shim.status(con)["state"] == "replicating", lambda: "caught up: %s" % shim.status(con), PATIENCE)
        check(not shim.status(con)["degraded"], "still degraded")
        wait_for(lambda: any("commits wait for it again" in line for line in log_lines()), "the log tells", PATIENCE)
        con.close()
        remote.commit(patient)
        state = shim.status(patient)
        check_equal(state["replica_position"], state["local_position"], "it waited")
        remote.check(patient, "afterwards")
        remote.finish(patient)


@test(*NEEDS, timeout=120)
def acknowledged_after_the_lock(t):
    """durability=ack: the commit is visible while it waits, several share an object, and on failure it stays committed."""
    with Remote(t, durability="ack") as remote:
        con = remote.open()
        remote.commit(con, 2)
        state = shim.status(con)
        check_equal(state["replica_position"], state["local_position"], "it waited")
        with t.part("seen while it waits"):
            other = remote.open(create=False)
            held = threading.Event()
            rule = remote.proxy.add(faults.answer(lambda _: held.wait(PATIENCE) and None or faults.Response(503), "held"),
                                    method="PUT", path=SEGMENTS, count=1)
            thread = threading.Thread(target=lambda: remote.commit(con))
            before = len(remote.good)
            thread.start()
            wait_for(lambda: rule.fired, "a PUT", PATIENCE)
            check_equal(len(ids(other)), before + 1, "rows that others see")
            check_equal(len(remote.good), before, "it came back")
            held.set()
            thread.join(PATIENCE)
            check_equal(ids(other), remote.good, "rows")
        with t.part("failure"):
            with remote.refuses():
                error = remote.fails(con)
            check("committed locally, not yet acknowledged" in error, error)
            remote.good.append(remote.next_id - 1)
            check_equal(ids(con), remote.good, "it is committed")
            check_equal(counted(con), 1, "failed commits")
            remote.commit(con)
            remote.check(con, "the next one")
        with t.part("group commit"):
            remote.store.control(delay_ms=30)
            lock = threading.Lock()

            def many():
                mine = remote.open(create=False)
                for _ in range(10):
                    with lock:
                        number = remote.next_id
                        remote.next_id += 1
                    mine.execute("INSERT INTO t VALUES(?, 0)", (number,))
                    with lock:
                        remote.good.append(number)
                mine.close()

            def share():
                remote.proxy.settle()
                before = len(remote.segments())
                threads = [threading.Thread(target=many) for _ in range(8)]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
                remote.good.sort()
                made = len(remote.segments()) - before
                t.note("80 commits of 8 connections in %d objects" % made)
                return "80 commits of 8 connections in %d objects" % made if made > 60 else ""

            in_time(share)
            remote.store.control(delay_ms=0)
        other.close()
        remote.check(con, "afterwards")
        remote.finish(con)


@test(*NEEDS, timeout=120)
def the_journal_mode_must_be_wal(t):
    """A commit that cannot be waited for is refused, and says so; WAL mode can be entered, and not be left."""
    for durability in ("remote", "ack"):
        with t.part(durability):
            with Remote(t, "j" + durability, durability=durability) as remote:
                con = shim.connect(remote.path, remote.base, **remote.options)
                error = io_error(con.execute, "CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
                check("journal_mode=WAL" in error, error)
                check_equal(con.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0], 0, "tables")
                check_equal(con.execute("PRAGMA journal_mode=WAL").fetchone()[0], "wal", "journal mode")
                con.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
                remote.commit(con, 2)
                error = io_error(lambda: con.execute("PRAGMA journal_mode=DELETE").fetchall())
                check("journal_mode=WAL" in error, error)
                con.close()
                con = remote.open(create=False)
                remote.commit(con)
                check_equal(ids(con), remote.good, "rows")
                check_equal(remote.restored(shim.status(con)["generation"]), remote.good, "restored")
                # who wants it all the same says so
                con.execute("PRAGMA litejoin_durability=local").fetchall()
                check_equal(con.execute("PRAGMA journal_mode=DELETE").fetchone()[0], "delete", "journal mode")
                remote.commit(con)
                check_equal(ids(con), remote.good, "rows")
                con.close()


@test(*NEEDS)
def a_hot_journal_is_rolled_back(t):
    """What a crash outside of WAL mode left is put right by the first read: that is no COMMIT."""
    for durability in ("remote", "ack"):
        for locking in ("normal", "exclusive"):
            with t.part(durability + ", " + locking):
                with Remote(t, "h" + durability + locking, durability=durability) as remote:
                    scratch = t.path(durability + locking + ".db")
                    con = shim.plain(scratch, pragmas=("cache_size=5",))
                    con.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
                    con.executemany("INSERT INTO t VALUES(?, randomblob(900))", [(i,) for i in range(1, 101)])
                    con.execute("BEGIN")
                    con.execute("UPDATE t SET id = id + 1000")
                    for tail in ("", "-journal"):
                        shutil.copyfile(scratch + tail, remote.path + tail)
                    con.execute("ROLLBACK")
                    con.close()
                    con = shim.connect(remote.path, remote.base, pragmas=["locking_mode=" + locking], **remote.options)
                    check_equal(ids(con), list(range(1, 101)), "rows")
                    error = io_error(con.execute, "INSERT INTO t VALUES(2000, 0)")
                    check("journal_mode=WAL" in error, error)
                    check_equal(con.execute("PRAGMA integrity_check").fetchone()[0], "ok", "integrity")
                    check_equal(con.execute("PRAGMA journal_mode=WAL").fetchone()[0], "wal", "journal mode")
                    con.execute("INSERT INTO t VALUES(2000, 0)")
                    check_equal(remote.restored(), list(range(1, 101)) + [2000], "restored")
                    con.close()


@test(*NEEDS)
def a_checkpoint_syncs_what_others_wrote(t):
    """The sync of a COMMIT that waited is not that of the checkpoint behind it: another connection has written meanwhile."""
    shard = Shard(t)
    code = ("import ctypes, sys\n"
            "from ljtest import shim\n"
            "path, base = sys.argv[1:]\n"
            "faults = ctypes.CDLL(None)\n"
            "one = shim.open_wal(path, base, durability='remote', remote_timeout='60s', pragmas=['synchronous=NORMAL'])\n"
            "one.execute('CREATE TABLE t(a)')\n"
            "two = shim.connect(path, base, pragmas=['synchronous=NORMAL'])\n"
            "one.execute('INSERT INTO t VALUES(1)')\n"
            "two.execute('INSERT INTO t VALUES(2)')\n"
            "faults.fs_arm(b'fsync', ctypes.c_long(1000000), ctypes.c_long(1), 5, b'libsqlite3', (path + '-wal').encode(),\n"
            "              ctypes.c_long(0))\n"
            "print(one.execute('PRAGMA wal_checkpoint').fetchone())\n"
            "print(faults.fs_calls())\n"
            "two.close()\n"
            "one.close()\n")
    status, out, errors = python(code, {"LD_PRELOAD": preload(t)}, arguments=(shard.path, shard.base))
    check_equal(status, 0, "process: " + errors)
    check_equal(out.splitlines()[-1], "1", "syncs of the WAL by a checkpoint: %s" % out)


@test(*NEEDS)
def what_is_acknowledged_behind_the_lock_is_synced(t):
    """durability=ack: behind a power cut the next open goes on with what the disk has, and that has to be there; once is enough."""
    shard = Shard(t)
    code = ("import ctypes, sqlite3, sys\n"
            "from ljtest import shim\n"
            "path, base = sys.argv[1:]\n"
            "faults = ctypes.CDLL(None)\n"
            "con = shim.open_wal(path, base, durability='ack', remote_timeout='60s')\n"
            "con.execute('CREATE TABLE t(a)')\n"
            "def commit(synchronous, at):\n"
            "    con.execute('PRAGMA synchronous=' + synchronous).fetchall()\n"
            "    con.execute('BEGIN')\n"
            "    con.execute('INSERT INTO t VALUES(1)')\n"
            "    faults.fs_arm(b'fsync', ctypes.c_long(at), ctypes.c_long(1), 5, b'libsqlite3', (path + '-wal').encode(),\n"
            "                  ctypes.c_long(0))\n"
            "    try:\n"
            "        con.execute('COMMIT')\n"
            "        print(synchronous, faults.fs_calls(), flush=True)\n"
            "    except sqlite3.OperationalError:\n"
            "        print(synchronous, 'failed', shim.last_error(), flush=True)\n"
            "    faults.fs_disarm()\n"
            "for synchronous in ('OFF', 'NORMAL', 'FULL', 'EXTRA'):\n"
            "    commit(synchronous, 1000000)\n"
            "commit('NORMAL', 1)\n"
            "con.close()\n")
    status, out, errors = python(code, {"LD_PRELOAD": preload(t)}, arguments=(shard.path, shard.base))
    check_equal(status, 0, "process: " + errors)
    lines = out.splitlines()
    check_equal(lines[:4], ["OFF 1", "NORMAL 1", "FULL 1", "EXTRA 1"], "syncs of the WAL by a COMMIT")
    check("NORMAL failed" in lines[4] and "could not be synced" in lines[4], "a sync that fails: %s" % lines[4])


@test(*NEEDS)
def per_connection(t):
    """PRAGMA litejoin_durability shows and sets it for this connection alone; what is no value is refused."""
    with Remote(t, durability="local") as remote:
        con = remote.open()
        remote.commit(con)
        other = remote.open(create=False, durability="remote")
        check_equal(con.execute("PRAGMA litejoin_durability").fetchone()[0], "local", "shown")
        check_equal(other.execute("PRAGMA litejoin_durability").fetchone()[0], "remote", "shown")
        check_equal(shim.status(other)["durability"], "remote", "in the status")
        shim.sync(con)
        with remote.refuses():
            remote.commit(con)
            remote.fails(other)
            con.execute("PRAGMA litejoin_durability=REMOTE").fetchall()
            remote.fails(con)
            con.execute("PRAGMA litejoin_durability=local").fetchall()
            remote.commit(con)
        check("allowed: local, remote, ack" in must_fail(con.execute, "PRAGMA litejoin_durability=full"), "what is allowed")
        remote.commit(other)
        remote.check(con, "afterwards")
        check("not replicated" in must_fail(shim.connect(t.path("x.db")).execute, "PRAGMA litejoin_durability=remote"), "off")
        other.close()
        remote.finish(con)


@test(*NEEDS)
def waiting_for_a_position(t):
    """PRAGMA litejoin_wait waits for one position and does not hurry anybody."""
    shard = Shard(t, sync_interval="400ms")
    con = shard.open()
    shard.write(con, 3)
    first = shim.sync(con)

    def wait(text):
        return con.execute("PRAGMA litejoin_wait='%s'" % text).fetchone()[0]

    check_equal(wait(first.text), first.text, "a position that is reached")
    shard.write(con, 3)
    target = shim.status(con)["local_position"]
    reached = shim.Position(wait(target + ",30s"))
    check(reached.offset >= shim.Position(target).offset, "%s is not %s" % (reached, target))
    ahead = "%s/%08x:%d" % (first.generation, first.index, reached.offset + 100000)
    check("the replica is at" in must_fail(wait, ahead + ", 50ms"), "a position ahead")
    other = "00000000000000aa/00000000:0"
    check("is of generation 00000000000000aa" in must_fail(wait, other), "another generation")
    shim.snapshot(con)  # the life goes on under another index, and nothing of that is shipped before the next commit
    target = shim.status(con)["local_position"]
    check_equal(wait(target), shim.status(con)["replica_position"], "a position that a snapshot has")
    for bad in ("", "x", first.generation, first.text + "x", first.text + ",soon"):
        must_fail(wait, bad)
    con.close()


@test(*NEEDS)
def two_databases_at_once(t):
    """ATTACH: each database waits for itself; the documented limit is that a failure of the second leaves the first."""
    with Remote(t) as remote:
        con = remote.open()
        remote.commit(con)
        second = os.path.join(remote.data, "shard_1.db")
        aux = shim.open_wal(second, remote.base, **remote.options)
        aux.execute("CREATE TABLE u(id)")
        aux.close()
        con.execute("ATTACH ? AS aux", (shim.uri(second, remote.base, **remote.options),))
        con.execute("BEGIN")
        remote.good.append(remote.insert(con))
        con.execute("INSERT INTO aux.u VALUES(1)")
        con.execute("COMMIT")
        for schema in ("main", "aux"):
            state = shim.status(con, schema)
            check_equal(state["replica_position"], state["local_position"], schema)
        con.execute("DETACH aux")
        remote.check(con, "afterwards")
        remote.finish(con)


@test(*NEEDS, timeout=120)
def the_second_of_two_databases_fails(t):
    """The first one stays committed, and its replica has that, however its connection locks and whatever comes next."""
    for locking in ("normal", "exclusive", "heap"):
        for behind in ("close", "restart"):
            with t.part(locking + ", " + behind):
                shard = Shard(t, locking + behind, name="first")
                with Remote(t, "s" + locking + behind, remote_timeout="30s") as remote:
                    aux = remote.open()
                    aux.close()
                    con = shim.connect(shard.path, shard.base,
                                       pragmas=["locking_mode=EXCLUSIVE"] if locking == "heap" else [])
                    con.execute("PRAGMA journal_mode=WAL").fetchall()
                    con.execute("CREATE TABLE t(id INTEGER PRIMARY KEY)")
                    con.execute("CREATE TABLE other(a)")
                    if locking == "exclusive":
                        con.execute("PRAGMA locking_mode=EXCLUSIVE").fetchall()
                        con.execute("INSERT INTO t VALUES(1)")
                    shim.sync(con)
                    con.execute("ATTACH ? AS aux", (shim.uri(remote.path, remote.base, **remote.options),))
                    with remote.refuses():
                        con.execute("BEGIN")
                        con.execute("INSERT INTO t VALUES(2)")
                        con.execute("INSERT INTO aux.t VALUES(2, 0)")
                        io_error(con.execute, "COMMIT")
                        abandon(con)
                    con.execute("PRAGMA aux.wal_checkpoint").fetchall()
                    con.execute("DETACH aux")
                    if behind == "restart":
                        con.execute("PRAGMA wal_checkpoint").fetchall()
                        con.execute("INSERT INTO other VALUES(1)")
                    con.close()
                    shard.replica.check(one_generation=True)
                    out = t.path("now.db")
                    shard.replica.restore(out)
                    check(2 in ids_of_file(shard.path), "the first database has its transaction")
                    check_equal(ids_of_file(out), ids_of_file(shard.path), "rows in the replica")


@test(*NEEDS)
def the_second_of_two_databases_and_the_next_write_fail(t):
    """A full disk: the first database has its part of the COMMIT, and so has its replica, although the next write to the WAL fails, too."""
    code = ("import ctypes, sqlite3, sys\n"
            "from ljtest import shim\n"
            "path, base, second, pragma = sys.argv[1:]\n"
            "faults = ctypes.CDLL(None)\n"
            "def fails(file, statement):\n"
            "    faults.fs_arm(b'write', ctypes.c_long(1), ctypes.c_long(0), 28, b'libsqlite3', (file + '-wal').encode(),\n"
            "                  ctypes.c_long(0))\n"
            "    try:\n"
            "        con.execute(statement)\n"
            "        print('it did not fail: ' + statement)\n"
            "    except sqlite3.OperationalError:\n"
            "        pass\n"
            "    faults.fs_disarm()\n"
            "    if con.in_transaction:\n"
            "        con.execute('ROLLBACK')\n"
            "con = shim.connect(path, base, pragmas=[pragma] if pragma else [])\n"
            "con.execute('PRAGMA journal_mode=WAL').fetchall()\n"
            "con.execute('CREATE TABLE t(id INTEGER PRIMARY KEY)')\n"
            "con.execute('CREATE TABLE other(a)')\n"
            "shim.sync(con)\n"
            "con.execute('ATTACH ? AS aux', (shim.uri(second, base),))\n"
            "con.execute('PRAGMA aux.journal_mode=WAL').fetchall()\n"
            "con.execute('CREATE TABLE aux.u(id)')\n"
            "con.execute('BEGIN')\n"
            "con.execute('INSERT INTO t VALUES(2)')\n"
            "con.execute('INSERT INTO aux.u VALUES(2)')\n"
            "fails(second, 'COMMIT')\n"
            "fails(path, 'INSERT INTO other VALUES(1)')\n"
            "con.execute('PRAGMA main.wal_checkpoint').fetchall()\n"
            "con.execute('INSERT INTO other VALUES(3)')\n"
            "con.close()\n")
    for name, pragma in (("normal", ""), ("heap", "locking_mode=EXCLUSIVE")):
        with t.part(name):
            shard = Shard(t, name, name="first")
            status, out, errors = python(code, {"LD_PRELOAD": preload(t)},
                                         arguments=(shard.path, shard.base, t.path(name + ".db"), pragma))
            check_equal((status, out), (0, ""), "process: " + errors)
            shard.replica.check(one_generation=True)
            out = t.path(name + ".now.db")
            shard.replica.restore(out)
            check_equal(ids_of_file(shard.path), [2], "the first database has its transaction")
            check_equal(ids_of_file(out), [2], "rows in the replica")


@test(*NEEDS, timeout=120)
def the_commit_behind_one_that_failed_in_the_second(t):
    """The first of two databases goes on: its next COMMIT waits like any other, and fails when the store refuses."""
    for locking, options in (("normal", {}), ("exclusive", {}), ("heap", {}), ("exclusive", {"psow": 0}), ("heap", {"psow": 0})):
        with t.part("%s, %s" % (locking, options)):
            with Remote(t, "n%s%d" % (locking, len(options)), **options) as remote:
                second = os.path.join(remote.data, "shard_1.db")
                aux = shim.open_wal(second, remote.base, **remote.options)
                aux.execute("CREATE TABLE u(id)")
                aux.close()
                con = shim.connect(remote.path, remote.base, **remote.options,
                                   pragmas=["locking_mode=EXCLUSIVE"] if locking == "heap" else [])
                con.execute("PRAGMA journal_mode=WAL").fetchall()
                con.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB)")
                con.execute("PRAGMA synchronous=FULL").fetchall()
                if locking == "exclusive":
                    con.execute("PRAGMA locking_mode=EXCLUSIVE").fetchall()
                remote.commit(con)
                con.execute("ATTACH ? AS aux", (shim.uri(second, remote.base, **remote.options),))
                for durability in ("remote", "ack"):
                    with remote.proxy.rule(faults.s3_error("AccessDenied"), method="PUT", path=r"/shard_1/.*/wal/"):
                        con.execute("BEGIN")
                        remote.good.append(remote.insert(con))
                        con.execute("INSERT INTO aux.u VALUES(1)")
                        io_error(con.execute, "COMMIT")
                        abandon(con)
                    con.execute("PRAGMA litejoin_durability=" + durability).fetchall()
                    with remote.refuses():
                        remote.fails(con)
                    if durability == "ack":
                        remote.good.append(remote.next_id - 1)
                    remote.commit(con)
                    check_equal(ids(con), remote.good, durability + ": rows")
                    check_equal(remote.restored(), remote.good, durability + ": restored")
                    con.execute("PRAGMA litejoin_durability=remote").fetchall()
                con.execute("DETACH aux")
                remote.finish(con)


@test(*NEEDS, timeout=120)
def frames_without_checksums(t):
    """SQLite before 3.50.2 commits frames that cannot be verified: a commit that is reported is in the replica all the same."""
    with Remote(t) as remote:
        con = remote.open(pragmas=["cache_size=5", "wal_autocheckpoint=0"])
        con.execute("CREATE TABLE bulk(a, b)")
        con.executemany("INSERT INTO bulk VALUES(?, randomblob(900))", [(i,) for i in range(40)])
        for _ in range(3):
            con.execute("BEGIN")
            number = remote.insert(con)
            con.execute("SAVEPOINT s")
            con.execute("UPDATE bulk SET b = randomblob(900)")
            con.execute("UPDATE bulk SET b = randomblob(900)")
            con.execute("ROLLBACK TO s")
            con.execute("UPDATE bulk SET b = randomblob(901) WHERE a < 3")
            con.execute("COMMIT")
            remote.good.append(number)
            generation = shim.status(con)["generation"]
            check_equal(remote.restored(generation), remote.good, "restored right behind the commit")
        con.close()


if __name__ == "__main__":
    harness.main("durability")
