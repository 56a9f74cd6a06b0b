#!/usr/bin/python3
"""test_embedded.py - the embedded product as an application sees it: open, write, checkpoint, close, and it is all there.

Failing replicas and bad input are in test_failing.py, restores and other writers in test_lifecycle.py, snapshots and
retention in test_snapshots.py.
"""

import os
import random
import sqlite3
import subprocess
import sys
import threading
import time

from shard import Shard, in_time, python, timed, wait_caught_up

from ljtest import chain, harness, pages, shim
from ljtest.harness import LONG, check, check_equal, test, wait_for
from ljtest.replica import Replica
from ljtest.workload import MODES, Threads, Workload

NEEDS = ("shim", "load_extension")


@test(*NEEDS)
def reopening_50_times_makes_no_snapshot(t):
    shard = Shard(t)
    for _ in range(50):
        con = shard.open()
        n = shard.write(con, 1)
        con.close()
        check_equal(shard.replica.counts()[:2], (1, 1), "generations and snapshots")
    check_equal(shard.check_restores("after 50 lives", snapshots=1), n, "last link")
    before = shard.replica.files()
    for _ in range(10):
        con = shard.open()
        check_equal(chain.last(con), n, "last link")
        con.close()
    check_equal(shard.replica.files(), before, "files of the replica after opens that wrote nothing")


@test(*NEEDS)
def reopening_in_new_processes_makes_no_snapshot(t):
    shard = Shard(t)
    code = ("import sys, random, os\n"
            "from ljtest import chain, shim\n"
            "con = shim.open_wal(sys.argv[1], sys.argv[2])\n"
            "chain.exists(con) or chain.create(con)\n"
            "for _ in range(3): chain.commit_one(con, random.Random(int(sys.argv[3])))\n"
            "con.close()\n")
    for i in range(12):
        status, _, errors = python(code, arguments=(shard.path, shard.base, i))
        check_equal((status, errors), (0, ""), "life %d" % i)
    check_equal(shard.check_restores("after 12 processes", snapshots=1), 36, "last link")


@test(*NEEDS)
def application_checkpoints_of_every_mode(t):
    """They succeed as they would without the shim, and neither break the chain nor cause a snapshot."""
    shard = Shard(t)
    con = shard.open()
    shim.sync(con)  # the first snapshot is done: while one is frozen a PASSIVE checkpoint may rightly stop short
    for turn in range(5):
        for mode in MODES:
            for count in (0, 1, 12):
                n = shard.write(con, count) or chain.last(con)
                busy, log, done = con.execute("PRAGMA wal_checkpoint(%s)" % mode).fetchone()
                check_equal((busy, log - done), (0, 0), "result of %s after %d commits" % (mode, count))
                if mode == "TRUNCATE":
                    check_equal(os.path.getsize(shard.path + "-wal"), 0, "size of the WAL after TRUNCATE")
        shim.sync(con)
        check_equal(shard.restore_now("turn %d" % turn), n, "last link after turn %d" % turn)
    con.execute("PRAGMA wal_autocheckpoint=5").fetchall()
    n = shard.write(con, 500)
    con.close()
    check_equal(shard.check_restores("at the end", snapshots=1), n, "last link")
    t.note("%d WAL indexes, %d segments" % (len(shard.replica.newest().indexes()), shard.replica.counts()[2]))


@test(*NEEDS, timeout=90)
def two_threads_with_two_connections_each(t):
    shard = Shard(t)
    shard.open().close()
    load = Threads(lambda: shard.open(create=False, pragmas=("wal_autocheckpoint=50",)), t.seed, writers=3).start()
    time.sleep(30 if LONG else 4)
    load.stop()
    check(not load.errors, "; ".join(load.errors))
    n = shard.check_restores("after the threads", snapshots=1)
    check(n >= load.committed, "link %d of %d" % (n, load.committed))
    t.note("%d links, %d explicit checkpoints, %d WAL indexes" %
           (n, load.checkpoints, len(shard.replica.newest().indexes())))


@test(*NEEDS, timeout=120)
def exclusive_locking_before_and_after_the_first_access(t):
    for name, early in (("before", True), ("after", False)):
        for synchronous in ("NORMAL", "FULL"):
            with t.part("%s the WAL is opened, synchronous %s" % (name, synchronous)):
                shard = Shard(t, name + synchronous)
                shard.open().close()
                con = shim.connect(shard.path, shard.base)
                if not early:
                    con.execute("SELECT count(*) FROM chain").fetchone()
                check_equal(con.execute("PRAGMA locking_mode=EXCLUSIVE").fetchone()[0], "exclusive", "locking_mode")
                for pragma in ("synchronous=" + synchronous, "wal_autocheckpoint=20", "cache_size=5"):
                    con.execute("PRAGMA " + pragma).fetchall()
                n = shard.write(con, 100)
                shim.sync(con)
                check_equal(shard.restore_now("live"), n, "last link, live")
                for mode in MODES:
                    con.execute("PRAGMA wal_checkpoint(%s)" % mode).fetchall()
                    n = shard.write(con, 5)
                con.execute("PRAGMA locking_mode=NORMAL").fetchall()
                n = shard.write(con, 30)
                con.close()
                check_equal(shard.check_restores("closed", snapshots=1), n, "last link")


@test(*NEEDS, timeout=120)
def psow_0_padding_and_split_frames(t):
    """Without POWERSAFE_OVERWRITE SQLite repeats commit frames up to a sector boundary and splits one at a sync."""
    for page_size in (512, 1024, 4096, 65536):
        with t.part("page size %d" % page_size):
            shard = Shard(t, "p%d" % page_size, psow=0)

            def connect():
                return shard.open(create=False, page_size=page_size, pragmas=("synchronous=FULL",))

            workload = Workload(connect, t.seed, page_size=page_size, spill=page_size < 65536)
            n = workload.run(25)
            shim.sync(workload.con)
            check_equal(shard.restore_now("live"), n, "last link, live")
            workload.close()
            shard.check_restores("closed", snapshots=1)


@test(*NEEDS, timeout=60)
def constraint_failures_with_full_text_triggers(t):
    """Bulk transactions that fail and roll back, again and again, between good ones (A1.10)."""
    shard = Shard(t)

    def connect():
        return shard.open(create=False, pragmas=("cache_size=20",))

    workload = Workload(connect, t.seed, spill=True)
    con = workload.con
    for turn in range(200 if LONG else 30):
        con.execute("BEGIN")
        try:
            for i in range(150):
                if workload.fts:
                    con.execute("INSERT INTO doc(body) VALUES(?)", ("word%d other%d" % (i, turn),))
                con.execute("INSERT INTO item(k, a, b) VALUES(?, ?, zeroblob(300))",
                            ("c%d_%d" % (turn, i), 10 if i < 149 else -1))
        except sqlite3.IntegrityError:
            pass
        con.execute("ROLLBACK")
        if turn % 3 == 0:
            workload.insert_rows()
            workload.documents() if workload.fts else None
    n = chain.last(con)
    workload.close()
    check_equal(shard.check_restores("closed", snapshots=1), n, "last link")


@test(*NEEDS)
def attached_shards_have_replicas_of_their_own(t):
    one, two = Shard(t, name="shard_0"), Shard(t, name="shard_1")
    two.open().close()
    con = one.open()
    con.execute("ATTACH ? AS other", (shim.uri(two.path, two.base),))
    con.execute("CREATE TABLE pair(x)")
    con.execute("CREATE TABLE other.pair(x)")
    for i in range(60):
        con.execute("BEGIN IMMEDIATE")
        con.execute("INSERT INTO main.pair VALUES(?)", (i,))
        con.execute("INSERT INTO other.pair VALUES(?)", (i,))
        chain.extend(con, t.random)
        con.execute("ROLLBACK" if i % 7 == 3 else "COMMIT")
        if i == 30:
            con.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    shim.sync(con)
    shim.sync(con, schema="other")
    names = [shim.status(con, schema)["database"] for schema in ("main", "other")]
    check_equal([os.path.basename(name) for name in names], ["shard_0.db", "shard_1.db"], "databases of the statuses")
    con.close()
    check_equal(sorted(os.listdir(one.base)), ["shard_0", "shard_1"], "replicas")
    for shard in (one, two):
        shard.check_restores(shard.name, snapshots=1)
    rows = []
    for shard in (one, two):
        shard.replica.restore(t.path("x.db"))
        look = shim.plain(t.path("x.db"))
        rows.append(look.execute("SELECT x FROM pair ORDER BY x").fetchall())
        look.close()
    check_equal(rows[0], rows[1], "rows of the two shards")
    check_equal(len(rows[0]), 60 - len([i for i in range(60) if i % 7 == 3]), "rows")


@test(*NEEDS)
def temporary_and_memory_databases_are_left_alone(t):
    shard = Shard(t)
    con = shard.open(pragmas=("temp_store=FILE", "cache_size=5"))
    con.execute("CREATE TEMP TABLE scratch(a, b)")
    con.executemany("INSERT INTO scratch VALUES(?, zeroblob(2000))", [(i,) for i in range(2000)])
    con.execute("SELECT * FROM scratch ORDER BY b, a LIMIT 1").fetchall()
    con.execute("ATTACH ':memory:' AS mem")
    con.execute("CREATE TABLE mem.x(a)")
    con.execute("INSERT INTO mem.x VALUES(1)")
    con.execute("ATTACH '' AS nameless")
    con.execute("CREATE TABLE nameless.x(a)")
    con.executemany("INSERT INTO nameless.x VALUES(zeroblob(5000))", [()] * 300)
    memory = sqlite3.connect(shim.uri(":memory:", shard.base), uri=True)
    memory.execute("CREATE TABLE m(a)")
    memory.close()
    memory = sqlite3.connect(shim.uri("named", shard.base) + "&mode=memory", uri=True)
    memory.execute("CREATE TABLE m(a)")
    memory.close()
    con.execute("VACUUM INTO ?", (t.path("into.db"),))
    n = shard.write(con, 20)
    con.close()
    check_equal(os.listdir(shard.base), ["shard_0"], "replicas")
    check_equal(shard.check_restores("closed", snapshots=1), n, "last link")
    check(not os.path.exists(t.path(".into.db-litejoin")), "VACUUM INTO's target got a bookkeeping folder")
    pages.check_integrity(t.path("into.db"), "VACUUM INTO")


@test(*NEEDS)
def without_a_replica_url_the_shim_only_passes_through(t):
    for options in ({}, {"litejoin_mode": "sidecar", "replica_url": "file://" + t.path("replica")}):
        path = t.path("plain%d.db" % len(options))
        con = shim.connect(path, None, **options)
        con.execute("PRAGMA journal_mode=WAL").fetchall()
        chain.create(con)
        for _ in range(20):
            chain.commit_one(con, t.random)
        status = shim.status(con)
        check(status["state"] != "replicating" and not status["generation"], "status %s" % status)
        con.close()
        check_equal(chain.verify_file(path), 20, "last link")
    check(not os.path.exists(t.path("replica")), "a replica was made in sidecar mode")
    check_equal([name for name in os.listdir(t.dir) if "litejoin" in name], [], "bookkeeping folders")


@test(*NEEDS, timeout=90)
def idle_costs_nothing(t):
    """No object, no wake-up of any background thread; also with a reader that stays open (A5.6, A11.7)."""

    def wakeups():
        total = 0
        for task in os.listdir("/proc/self/task"):
            if int(task) != threading.get_native_id():
                with open("/proc/self/task/%s/status" % task) as file:
                    total += sum(int(line.split()[1]) for line in file if "ctxt_switches" in line)
        return total

    shard = Shard(t, snapshot_interval="500ms")
    con = shard.open()
    shard.write(con, 50)
    shim.sync(con)
    reader = shard.open()
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM chain").fetchone()
    time.sleep(1.5)
    wait_caught_up(con)
    for label in ("first idle", "idle with a status query"):
        # on a slow machine the last of the work may still be going on; what polls is never idle
        for left in reversed(range(8)):
            time.sleep(0.3)
            before, switches = shard.replica.files(), wakeups()
            time.sleep(2.0)
            more = wakeups() - switches
            if more <= 3 and shard.replica.files() == before:
                break
            check(left, "%s: background threads woke %d times in 2 s, or objects came" % (label, more))
        shim.status(con)
    reader.close()
    con.close()


@test(*NEEDS)
def the_first_commit_after_idle_ships_at_once(t):
    """And then at most one segment per sync_interval."""
    shard = Shard(t, sync_interval="1s")
    con = shard.open()
    shim.sync(con)

    def seconds_to_ship():
        before = shard.replica.counts()[2]
        start = time.monotonic()
        shard.write(con, 1)
        wait_for(lambda: shard.replica.counts()[2] > before, "a segment", 30, 0.01)
        return time.monotonic() - start

    best = 1e9
    for _ in range(10):  # one that comes with the interval never takes less than it; a slow machine does not always take more
        time.sleep(1.2)
        best = min(best, seconds_to_ship())
        if best < 0.5:
            break
    check(best < 0.5, "the first commit after idle took %.2f s to ship" % best)
    start = time.monotonic()
    before = shard.replica.counts()[2]
    made = 0
    while time.monotonic() < start + 3.0 or (made < 2 and time.monotonic() < start + 60):
        shard.write(con, 1)
        time.sleep(0.02)
        made = shard.replica.counts()[2] - before
    seconds = time.monotonic() - start
    check(2 <= made <= seconds + 1, "%d segments in %.1f s with sync_interval=1s" % (made, seconds))
    con.close()


@test(*NEEDS)
def closing_ships_what_is_left(t):
    shard = Shard(t, sync_interval="1h")
    con = shard.open()
    shim.sync(con)
    n = shard.write(con, 200)
    second = shard.open()
    n = shard.write(second, 5)
    second.close()
    con.close()
    check_equal(shard.check_restores("closed", snapshots=1), n, "last link")


@test(*NEEDS, "sqlite3")
def the_shell_ships_before_it_quits(t):
    """`.load`, INSERT, `.quit`: a process that lives 50 ms."""
    replica = t.path("replica")
    for i in range(5):
        lines = [".load " + os.path.splitext(harness.extension_path())[0],
                 ".open '%s'" % shim.uri(t.path("shard_0.db"), replica),
                 "PRAGMA journal_mode=WAL;", "CREATE TABLE IF NOT EXISTS x(a);", "INSERT INTO x VALUES(%d);" % i,
                 ".quit"]
        done = subprocess.run(["sqlite3", "-batch", "-bail"], input="\n".join(lines).encode(), stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, timeout=300)
        check_equal((done.returncode, done.stdout, done.stderr), (0, b"wal\n", b""), "sqlite3 shell")
    out = t.path("out.db")
    restored = Replica(os.path.join(replica, "shard_0"))
    restored.check(one_generation=True)
    restored.restore(out)
    con = shim.plain(out)
    check_equal(con.execute("SELECT a FROM x ORDER BY a").fetchall(), [(i,) for i in range(5)], "restored rows")
    con.close()
    check_equal(restored.counts()[:2], (1, 1), "generations and snapshots")


@test(*NEEDS)
def a_process_that_ends_without_closing_loses_nothing(t):
    """exit() with open connections, and _exit: the next open ships the rest into the same generation."""
    code = ("import sys, random, os, atexit\n"
            "from ljtest import chain, shim\n"
            "con = shim.open_wal(sys.argv[1], sys.argv[2], sync_interval='1h')\n"
            "chain.exists(con) or chain.create(con)\n"
            "shim.sync(con)\n"
            "for _ in range(20): chain.commit_one(con, random.Random(1))\n"
            "os._exit(0) if sys.argv[3] == '_exit' else sys.exit(0)\n")
    shard = Shard(t)
    for i, how in enumerate(("exit", "_exit") * 3):
        status, _, errors = python(code, arguments=(shard.path, shard.base, how))
        check_equal((status, errors), (0, ""), how)
        con = shard.open(create=False)
        check_equal(chain.last(con), 20 * (i + 1), "last link after " + how)
        con.close()
        check_equal(shard.check_restores("after " + how, snapshots=1, killed=True), 20 * (i + 1), "last link in the replica")


@test(*NEEDS)
def a_forked_child_goes_quiet(t):
    """The child neither ships nor flushes nor hangs; the parent goes on as if nothing had happened."""
    shard = Shard(t)
    con = shard.open()
    shard.write(con, 20)
    shim.sync(con)
    for turn in range(3):
        shard.write(con, 5)
        child = os.fork()
        if child == 0:
            try:
                time.sleep(0.2)
                threads = len(os.listdir("/proc/self/task"))
                other = sqlite3.connect(t.path("child%d.db" % turn))
                other.execute("CREATE TABLE x(a)")
                other.close()
                os._exit(threads - 1)
            except BaseException:
                os._exit(99)
        n = shard.write(con, 20)
        shim.sync(con)
        _, status = os.waitpid(child, 0)
        check_equal(os.waitstatus_to_exitcode(status), 0, "status of the child (threads it has, less one)")
    n = shard.write(con, 5)
    con.close()
    check_equal(shard.check_restores("closed", snapshots=1), n, "last link")


@test(*NEEDS)
def a_child_forked_before_the_first_open_replicates(t):
    """Prefork servers load the extension in the master and open databases in the workers."""
    shim.load()
    children = []
    for i in range(2):
        child = os.fork()
        if child == 0:
            try:
                shard = Shard(t, name="shard_%d" % i)
                con = shard.open()
                shard.write(con, 30)
                con.close()
                os._exit(0)
            except BaseException as error:
                print("# child: %s" % error, flush=True)
                os._exit(1)
        children.append(child)
    for child in children:
        check_equal(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), 0, "status of a worker")
    for i in range(2):
        check_equal(Shard(t, name="shard_%d" % i).check_restores("worker %d" % i, snapshots=1), 30, "last link")


@test(*NEEDS, timeout=120)
def two_processes_on_one_database(t):
    """No corruption, all of both is in the replica in the end, and litejoin_sync never claims more than it did."""
    shard = Shard(t)
    shard.open().close()
    code = ("import sys, random, sqlite3\n"
            "from ljtest import chain, shim\n"
            "con = shim.open_wal(sys.argv[1], sys.argv[2], pragmas=('wal_autocheckpoint=20',))\n"
            "rng = random.Random(sys.argv[3])\n"
            "for i in range(300):\n"
            "    chain.commit_one(con, rng, 'p' + sys.argv[3])\n"
            "    if i % 50 == 0: con.execute('PRAGMA wal_checkpoint(TRUNCATE)').fetchall()\n"
            "    if i % 70 == 0:\n"
            "        shim.sync(con, '30s')\n"
            "con.close()\n")
    environment = dict(os.environ, PYTHONPATH=os.path.dirname(os.path.dirname(shim.__file__)))
    for turn in range(6 if LONG else 2):
        processes = [subprocess.Popen([sys.executable, "-c", code, shard.path, shard.base, str(turn * 2 + i)],
                                      stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
                     for i in range(2)]
        for process in processes:
            _, errors = process.communicate(timeout=300)
            check_equal((process.returncode, errors.decode()), (0, ""), "writer process")
        con = shard.open(create=False)
        shim.sync(con)
        con.close()
        n = shard.check_restores("turn %d" % turn, snapshots=1)
        check_equal(n, 600 * (turn + 1), "last link")
    t.note("%d generations, %d snapshots, %d segments" % shard.replica.counts())


@test(*NEEDS)
def locks_of_the_application_are_kept(t):
    """
    While the background works (snapshots, checkpoints, shipping), another process must never get the write lock the
    application holds: an open() and close() of the database in this process would drop it.
    """
    shard = Shard(t, snapshot_interval="100ms")
    con = shard.open()
    side = shard.open()
    for turn in range(6):
        shard.write(side, 10)
        con.execute("BEGIN IMMEDIATE")
        chain.extend(con, t.random)
        shim.snapshot(side)
        code = ("import sys, sqlite3\n"
                "con = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=0)\n"
                "try:\n    con.execute('BEGIN IMMEDIATE'); con.execute('ROLLBACK'); print('got it')\n"
                "except sqlite3.OperationalError as error: print(error)\n"
                "con.close()\n")
        status, out, errors = python(code, arguments=(shard.path,))
        check_equal((status, out.strip()), (0, "database is locked"), "write lock of another process: " + errors)
        check(os.path.exists(shard.path + "-wal"), "the other process deleted the WAL")
        n = chain.last(con)
        con.execute("COMMIT")
    side.close()
    con.close()
    check_equal(shard.check_restores("closed"), n, "last link")


@test(*NEEDS)
def status_tells_what_is_true(t):
    shard = Shard(t)
    con = shard.open()
    shim.sync(con)  # perhaps answered by the first snapshot alone
    shard.write(con, 1)
    position = shim.sync(con)
    status = shim.status(con)
    check_equal(os.path.realpath(status["database"]), os.path.realpath(shard.path), "database")
    check(status["replica"].startswith("file://") and status["replica"].rstrip("/").endswith("/replica/shard_0"),
          "replica %r" % status["replica"])
    check_equal(status["state"], "replicating", "state")
    check_equal(status["generation"], position.generation, "generation")
    newest = shard.replica.newest()
    check_equal(status["snapshots"], 1, "snapshots")
    check_equal(status["segments"], len(newest.segments), "segments")
    check_equal(status["shipped_bytes"], sum(o.size for o in newest.segments + newest.snapshots), "shipped_bytes")
    check_equal((status["lag_ms"], status["lag_frames"], status["spool_bytes"]), (0, 0, 0), "lag")
    check(status["last_snapshot"], "last_snapshot is empty")
    last = newest.segments[-1]
    check_equal((position.index, position.offset), (last.index, last.offset + len(last.data())),
                "position of litejoin_sync against the end of the last segment")
    again = shim.sync(con, "1s")
    check_equal(again.text, position.text, "position of a second sync")
    check_equal(con.execute("PRAGMA litejoin_sync").fetchone()[0], position.text, "answer of the bare pragma")
    for wrong in ("soon", "-1s", "5"):
        try:
            shim.sync(con, wrong)
            raise harness.Failure("litejoin_sync='%s' was taken" % wrong)
        except sqlite3.Error as error:
            check(wrong in str(error), "the error does not name %r: %s" % (wrong, error))
    con.close()


@test(*NEEDS, timeout=90)
def a_huge_transaction_needs_little_memory(t):
    code = ("import sys, resource\n"
            "from ljtest import chain, shim\n"
            "path, base, megabytes = sys.argv[1], sys.argv[2], int(sys.argv[3])\n"
            "con = shim.open_wal(path, base) if base else shim.plain(path, pragmas=('journal_mode=WAL',))\n"
            "con.execute('CREATE TABLE big(a)')\n"
            "con.execute('BEGIN')\n"
            "con.executemany('INSERT INTO big VALUES(randomblob(100000))', [()] * (megabytes * 10))\n"
            "con.execute('COMMIT')\n"
            "if base: shim.sync(con, '60s'); shim.snapshot(con, '60s')\n"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
            "con.close()\n")
    megabytes = 400 if LONG else 60
    used = []
    for name, base in (("plain", ""), ("shim", t.path("replica"))):
        status, out, errors = python(code, arguments=(t.path(name + ".db"), base, megabytes), timeout=600)
        check_equal((status, errors), (0, ""), name)
        used.append(int(out))
    more = (used[1] - used[0]) / 1024
    t.note("resident at most: plain %.1f MiB, shim %.1f MiB" % (used[0] / 1024, used[1] / 1024))
    check(more < 16, "%d MB in one transaction took %.1f MiB more than plain SQLite" % (megabytes, more))
    out = t.path("out.db")
    Replica(t.path("replica", "shim")).restore(out)
    pages.check_same(out, t.path("shim.db"), "replica against the database")


@test(*NEEDS)
def blobs_mmap_and_backup_go_through(t):
    """Incremental blob writes, memory-mapped reads, and the backup API into an open replicated database."""
    shard = Shard(t)
    con = shard.open(pragmas=("mmap_size=268435456",))
    con.execute("CREATE TABLE b(x)")
    con.execute("INSERT INTO b VALUES(zeroblob(300000))")
    for i in range(20):
        with con.blobopen("b", "x", 1) as blob:
            blob.seek(i * 10000)
            blob.write(random.Random(i).randbytes(9000))
        shard.write(con, 2)
    con.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    check_equal(con.execute("SELECT length(x) FROM b").fetchone()[0], 300000, "length through mmap")
    shim.sync(con)
    source = shim.plain(t.path("source.db"))
    chain.create(source)
    for _ in range(33):
        chain.commit_one(source, t.random)
    source.backup(con)
    source.close()
    check_equal(chain.verify(con, "after the backup"), 33, "last link after the backup")
    n = shard.write(con, 3)
    con.close()
    check_equal(shard.check_restores("closed", one_generation=False), n, "last link")


@test(*NEEDS)
def commits_are_not_held_up_by_a_snapshot(t):
    """A writer goes on at its own pace while snapshots of a larger database are made (A5.4)."""
    shard = Shard(t)
    con = shard.open()
    con.execute("CREATE TABLE fill(a)")
    con.executemany("INSERT INTO fill VALUES(randomblob(50000))", [()] * 1200)
    con.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    shim.sync(con, "30s")
    side = shard.open()

    def commits_during_one():
        running = threading.Thread(target=shim.snapshot, args=(side, "60s"))
        slowest = 0.0
        count = 0
        running.start()
        while running.is_alive():
            slowest = max(slowest, timed(chain.commit_one, con, t.random)[1])
            count += 1
        running.join()
        t.note("%d commits during the snapshot, slowest %.1f ms" % (count, slowest * 1000))
        if count <= 3:
            return "only %d commits while the snapshot was made" % count
        return "a commit took %.3f s during a snapshot" % slowest if slowest >= 0.5 else ""

    in_time(commits_during_one)
    n = chain.last(con)
    side.close()
    con.close()
    check_equal(shard.check_restores("closed"), n, "last link")


if __name__ == "__main__":
    harness.main("embedded")
