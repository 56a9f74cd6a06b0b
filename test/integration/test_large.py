#!/usr/bin/python3
"""test_large.py - large transactions, long snapshots, and disks without room: what we use stays within stated figures.

What is measured: memory of the process that replicates and of one that restores, the size of the WAL, and what lies in the
state folder. The application's commits must succeed throughout. With LJ_LONG=1 the large transaction has more than 4 GiB.
"""

import json
import os
import re
import resource
import sqlite3
import subprocess

from shard import Plain, Shard, foreign, must_fail, python, timed, wait_caught_up

from ljtest import chain, cli, fasts3, harness, pages, shim
from ljtest.broken import FileInTheWay, Tmpfs
from ljtest.harness import LONG, check, check_equal, test, wait_for

NEEDS = ("shim", "load_extension")
MIB = 1 << 20

LARGE_TRANSACTION = """
import json, sys, time
from ljtest import shim
path, base, mib = sys.argv[1], sys.argv[2], int(sys.argv[3])

def peak_kib(reset=False):
    if reset:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    with open("/proc/self/status") as file:
        return [int(line.split()[1]) for line in file if line.startswith("VmHWM:")][0]

con = shim.open_wal(path, base, page_size=int(sys.argv[4]), pragmas=("cache_size=-2000",))
con.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, body BLOB)")
con.execute("INSERT INTO t SELECT value, randomblob(4000) FROM (WITH RECURSIVE n(value) AS (SELECT 1 UNION ALL "
            "SELECT value + 1 FROM n WHERE value < 1500) SELECT value FROM n)")
shim.sync(con)
shim.snapshot(con)
before = peak_kib(reset=True)
con.execute("BEGIN")
for i in range(mib):
    con.execute("INSERT INTO t(body) VALUES(?)", (bytes([i & 255]) * 1000 + b"x" * (1 << 20),))
con.execute("COMMIT")
wal_shm = 8 * (mib << 20) // int(sys.argv[4]) // 1024
shim.sync(con, "3000s")
shim.snapshot(con, "3000s")
print(json.dumps({"before": before, "peak": peak_kib(), "shm": wal_shm, "status": shim.status(con)}))
con.close()
"""


@test(*NEEDS, "cli", timeout=300, long_timeout=3600)
def one_large_transaction(t):
    """Captured, shipped, snapshotted and restored in the memory that a small one takes, but for a map of its pages."""
    mib, page_size = (4400, 4096) if LONG else (200, 4096)
    shard = Shard(t)
    code, out, errors = python(LARGE_TRANSACTION, timeout=3000, arguments=(shard.path, shard.base, mib, page_size))
    check_equal(code, 0, "status; " + errors[-800:])
    seen = json.loads(out)
    above = seen["peak"] - seen["before"] - seen["shm"]
    map_kib = 33 * (mib << 20) // page_size // 1024
    t.note("a transaction of %d MiB: %.1f MiB of memory above rest, of which the map of a snapshot may take %.1f" %
           (mib, above / 1024, map_kib / 1024))
    check(above < 16 * 1024 + map_kib, "%d KiB of memory above rest" % above)
    check_equal(seen["status"]["state"], "replicating", "state")
    out = t.path("restored.db")
    _, seconds = timed(cli.ours().restore, shard.root, out, timeout=3000)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    t.note("restored in %.1f s with at most %.1f MiB of memory (all children of this test)" % (seconds, peak / 1024))
    pages.check_same(out, shard.path, "restored")
    check_equal(shard.replica.counts()[0], 1, "generations")


@test(*NEEDS, timeout=300)
def a_slow_snapshot_does_not_make_the_wal_grow(t):
    """A snapshot that takes its time in the store: checkpoints go on, the WAL restarts, and the snapshot is of one commit."""
    with fasts3.FastS3(delay_ms=1500) as store:
        store.control(delay_ms=1)
        os.environ.update(store.env)
        shard = Shard(t, base=store.url("bucket", "slow"))
        con = shard.open(sync_interval="200ms", pragmas=("wal_autocheckpoint=500",))
        con.execute("CREATE TABLE bulk(id INTEGER PRIMARY KEY, body BLOB)")
        con.execute("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000) "
                    "INSERT INTO bulk SELECT i, randomblob(3900) FROM n")
        con.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        shim.sync(con, "60s")
        snapshots = shim.status(con)["snapshots"]
        store.control(delay_ms=1500)
        try:
            shim.snapshot(con, "1ms")
        except sqlite3.OperationalError:
            pass  # it goes on without us
        largest = 0
        written = 0
        while shim.status(con)["snapshots"] == snapshots and written < 120:
            con.execute("UPDATE bulk SET body = randomblob(3900) WHERE id % 61 = ?", (written % 61,))
            chain.commit_one(con, t.random)
            written += 1
            largest = max(largest, os.path.getsize(shard.path + "-wal"))
        t.note("%d transactions of 1.3 MB while the snapshot was taken; the WAL had at most %.1f MB" % (written, largest / 1e6))
        check(written > 3, "the snapshot was over too soon: %d transactions" % written)
        check(largest < 10 * MIB, "the WAL grew to %d bytes" % largest)
        store.control(delay_ms=1)
        wait_for(lambda: shim.status(con)["snapshots"] > snapshots, lambda: "snapshot: %s" % shim.status(con), 120)
        shim.sync(con, "60s")
        n = chain.last(con)
        con.close()
        out = t.path("restored.db")
        cli.ours().restore(store.url("bucket", "slow/shard_0"), out, timeout=120)
        pages.check_same(out, shard.path, "restored")
        check_equal(chain.verify_file(out, "restored"), n, "last link")


def snapshot_objects(store, prefix):
    """(key, content) of every snapshot below the prefix."""
    _, _, listing = store.request("GET", "/bucket?list-type=2&prefix=" + prefix)
    keys = [key for key in re.findall("<Key>([^<]*)</Key>", listing.decode()) if "/snapshots/" in key]
    return [(key, store.request("GET", "/bucket/" + key)[2]) for key in keys]


def by_a_checkpoint(shard, con):
    con.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()


def by_a_lock_of_the_whole_file(shard, con):
    """Which is refused, and asked for by a connection that has not mapped the wal-index."""
    two = shim.connect(shard.path, shard.base, busy=0.1, sync_interval="100ms")
    two.execute("PRAGMA locking_mode=EXCLUSIVE").fetchall()
    check("locked" in must_fail(two.execute, "SELECT 1 FROM bulk"), "a lock of the whole file")
    two.close()


@test(*NEEDS, "lz4", timeout=600)
def a_foreign_checkpoint_ends_a_snapshot(t):
    """Another process overwrites pages that a snapshot has yet to read, and nobody saves them: that snapshot must not come to be."""
    for give_back in (by_a_checkpoint, by_a_lock_of_the_whole_file):
        with t.part(give_back.__name__):
            foreign_checkpoint(t, give_back)
    with t.part("by a last close"):
        foreign_checkpoint(t, by_a_checkpoint, last_close=True)


THIRD = "UPDATE bulk SET who = 'third' WHERE id < 500 OR id > 19500"


def foreign_checkpoint(t, give_back, last_close=False):
    with fasts3.FastS3(delay_ms=1) as store:
        os.environ.update(store.env)
        shard = Shard(t, "close" if last_close else give_back.__name__, base=store.url("bucket", "foreign"))
        con = shard.open(sync_interval="100ms", pragmas=("wal_autocheckpoint=0",))
        con.execute("CREATE TABLE bulk(id INTEGER PRIMARY KEY, who TEXT, body BLOB)")
        con.execute("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000) "
                    "INSERT INTO bulk SELECT i, 'first', randomblob(3800) FROM n")
        con.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        shim.sync(con, "60s")
        shard.write(con, 1)
        snapshots = shim.status(con)["snapshots"]
        uploads = store.stats()["requests"]["create_upload"]
        store.control(delay_ms=4000)
        try:
            shim.snapshot(con, "1ms")
        except sqlite3.OperationalError:
            pass  # it goes on without us
        wait_for(lambda: store.stats()["requests"]["create_upload"] > uploads, "the snapshot's upload", 60)
        con.execute("UPDATE bulk SET who = 'second' WHERE id = 7")
        give_back(shard, con)  # the read mark goes
        if last_close:
            plain = Plain(t, shard.path)
            plain.run("SELECT count(*) FROM bulk")
            idle = shim.connect(shard.path, shard.base)
            con.close()
            con = idle  # has no lock, so the other program's close is the last one
            plain.run(THIRD)
            plain.close()
            check(not os.path.exists(shard.path + "-wal"), "the WAL is still there")
        else:
            foreign(shard.path, THIRD, "PRAGMA wal_checkpoint(PASSIVE)")
        check_equal(shim.status(con)["snapshots"], snapshots, "snapshots: this one was over before the other process wrote")
        store.control(delay_ms=1)
        wait_for(lambda: shim.status(con)["snapshots"] > snapshots, lambda: "snapshot: %s" % shim.status(con), 120)
        con.close()
        found = snapshot_objects(store, "foreign/shard_0/")
        check(len(found) >= 2, "snapshots: %s" % [key for key, _ in found])
        for key, packed in found:
            with open(t.path("alone.lz4"), "wb") as file:
                file.write(packed)
            subprocess.run(["lz4", "-dqf", t.path("alone.lz4"), t.path("alone.db")], check=True)
            pages.check_integrity(t.path("alone.db"), key)
            alone = shim.plain(t.path("alone.db"))
            third = 0
            if alone.execute("SELECT count(*) FROM sqlite_master WHERE name = 'bulk'").fetchone()[0]:  # not in the first one
                third = alone.execute("SELECT count(*) FROM bulk WHERE who = 'third'").fetchone()[0]
            alone.close()
            check(third in (0, 999), "%s has %d of 999 rows of one transaction" % (key, third))


def used(folder):
    """Bytes on disk below a folder; what vanishes meanwhile has none."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(root, name)).st_blocks * 512
            except FileNotFoundError:
                pass
    return total


@test(*NEEDS, timeout=180)
def disk_is_used_within_its_limits(t):
    """A replica that is away for long: WAL and spool stay within their limits, and all of it is given back afterwards."""
    wal_limit, spool_limit = 2 * MIB, 6 * MIB
    shard = Shard(t, max_wal_size="2MiB", max_spool_size="6MiB")
    block = FileInTheWay(shard.root)
    con = shard.open(pragmas=("wal_autocheckpoint=100",))
    state = os.path.join(shard.data, ".shard_0.db-litejoin")
    shim.sync(con)
    rest = used(state)
    block.fail()
    largest_wal = largest_state = 0
    gave_up = False
    for turn in range(400):
        n = chain.commit_one(con, t.random, payload_bytes=(50000, 100000))
        largest_wal = max(largest_wal, os.path.getsize(shard.path + "-wal"))
        largest_state = max(largest_state, used(state))
        gave_up = gave_up or "generation" in shim.status(con)["last_error"]
    t.note("WAL at most %.2f MiB, state folder %.2f MiB" % (largest_wal / MIB, largest_state / MIB))
    check(largest_wal <= wal_limit + MIB, "WAL of %d bytes" % largest_wal)
    check(largest_state > spool_limit // 2, "nothing was spooled")
    check(largest_state <= spool_limit + 64 * 1024, "%d bytes in the state folder" % largest_state)
    block.heal()
    wait_caught_up(con, 90)
    wait_for(lambda: used(state) <= rest + 16 * 1024, lambda: "%d bytes are left in the state folder" % used(state))
    check_equal(shard.restore_now("healed"), n, "last link")
    con.close()


@test(*NEEDS, "mount", timeout=120)
def a_state_folder_without_space(t):
    """Only our own folder is full: the application notices nothing; what could not be kept costs a new generation."""
    shard = Shard(t, max_wal_size="0")
    state = os.path.join(shard.data, ".shard_0.db-litejoin")
    os.makedirs(state)
    with Tmpfs(state, "1m") as disk:
        block = FileInTheWay(shard.root)
        con = shard.open(pragmas=("wal_autocheckpoint=20",))
        shard.write(con, 20)
        shim.sync(con)
        first = shard.generation()
        disk.fill()
        shard.write(con, 50)  # works, and is shipped, although the position cannot be written
        block.fail()
        for _ in range(6):
            shard.write(con, 40)
            check_equal(con.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0], 0, "busy of TRUNCATE")
        status = shim.status(con)
        check(status["last_error"], "nothing is said: %s" % status)
        t.note(status["last_error"])
        block.heal()
        disk.free()
        n = shard.write(con, 5)
        wait_caught_up(con, 90)
        check_equal(shard.restore_now("freed"), n, "last link")
        check(shard.generation() != first, "frames went, and their generation went on")
        con.close()
        check_equal(shard.check_restores("closed", one_generation=False), n, "last link")


@test(*NEEDS, timeout=120)
def a_wal_that_is_mostly_empty_is_not_kept(t):
    """The last close leaves a few frames in the spool, not a link to a WAL that once was large."""
    shard = Shard(t, shutdown_timeout="200ms")
    con = shard.open(pragmas=("wal_autocheckpoint=0",))
    con.execute("CREATE TABLE bulk(body BLOB)")
    con.execute("INSERT INTO bulk VALUES(zeroblob(30000000))")
    con.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()
    shim.sync(con)
    block = FileInTheWay(shard.root)
    block.fail()
    n = shard.write(con, 3)
    check(os.path.getsize(shard.path + "-wal") > 25 * MIB, "the WAL became small by itself")
    con.close()
    kept = used(os.path.join(shard.data, ".shard_0.db-litejoin"))
    check(kept < 2 * MIB, "%d bytes are kept for three small transactions" % kept)
    block.heal()
    con = shard.open(create=False)
    wait_caught_up(con, 90)
    check_equal(shard.restore_now("healed"), n, "last link")
    con.close()


if __name__ == "__main__":
    harness.main("large")
