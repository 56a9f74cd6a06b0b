#!/usr/bin/python3
"""test_soak.py - writing, checkpointing and restoring at the same time, for as long as one likes.

What went wrong for others only after a while, or only when something was slow: snapshots that a checkpoint tears (A1.1), commits
lost between a copy and a checkpoint (A1.2), a capture that is slower than a checkpoint (A1.12), replicas that rot in a week
(A1.16). Each restored state must be a committed prefix of all tables (ledger.py).

LJ_SOAK_MINUTES is how long each of them runs (default: a few seconds; with --long five minutes). The week is seven days of the
product's clocks in any case.
"""
# timeout: 900

import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from ljtest import fasttime, harness, ledger, pages  # noqa: E402
from ljtest.harness import LONG, check, check_equal, test, wait_for  # noqa: E402
from ljtest.lives import killat  # noqa: E402
from ljtest.victims import Bench, Heard  # noqa: E402

SECONDS = 60 * float(os.environ.get("LJ_SOAK_MINUTES", 5 if LONG else 0)) or 5
LIMIT = SECONDS * 4 + 600


def slow(t, name, pattern, microseconds):
    """The environment in which these calls below the folder of the bench `name` are slow."""
    return {"LD_PRELOAD": killat(), "LJ_KILL_DIR": t.path(name), "LJ_SLOW_MATCH": pattern,
            "LJ_SLOW_US": str(microseconds)}


def alone(t, bench, snapshot):
    """One snapshot by itself: sound, and a committed prefix. Its last link."""
    out = t.path("alone.db")
    with open(out, "wb") as file:
        file.write(snapshot.data())
    pages.check_integrity(out, "%r alone" % snapshot)
    return ledger.verify_file(out, "%r alone" % snapshot)


def running(victim, label):
    check(victim.process.poll() is None, "%s: the writer ended: %s" % (label, open(victim.err).read()[-500:]))


@test("shim", "load_extension", timeout=LIMIT, long_timeout=LIMIT)
def checkpoints_while_snapshots_are_slow(t):
    """Each snapshot takes a second or so to be written; commits and checkpoints of every mode go on meanwhile (A1.1)."""
    ballast = (64 if LONG else 8) * 1000000
    bench = Bench(t, "slow", slow(t, "slow", "write */snapshots/*.tmp", 10000), ledger=True, checkpointer=True,
                  autocheckpoint=10, ballast_bytes=ballast, snapshots=0.05, sync=0.02, options={"retention": "0"})
    bench.seed_database()
    victim = bench.start(options={"sync_interval": "20ms", "retention": "0"})
    check(victim.wait_for_line("R ", 120), "the writer did not open: " + open(victim.err).read())
    end = time.monotonic() + SECONDS
    seen = set()
    links = []
    while time.monotonic() < end or len(seen) < 3:
        running(victim, "%d snapshots" % len(seen))
        for generation in bench.replica.generations():
            for snapshot in generation.snapshots:
                if repr(snapshot) not in seen:
                    seen.add(repr(snapshot))
                    links.append(alone(t, bench, snapshot))
        time.sleep(0.1)
    bench.heard(victim.kill())
    bench.check_replica("after the kill")
    bench.settle("at the end")
    t.note("%d snapshots, at links %s of %d" % (len(seen), links[:20], bench.committed))


@test("shim", "load_extension", timeout=LIMIT, long_timeout=LIMIT)
def restores_beside_a_writer_and_a_checkpointer(t):
    """Whatever the replica holds at any moment is a committed prefix with everything acknowledged by then (A1.2)."""
    bench = Bench(t, "beside", ledger=True, checkpointer=True, autocheckpoint=20, sync=0.05)
    bench.seed_database()
    restores_until_time_is_up(t, bench)


@test("shim", "load_extension", timeout=LIMIT, long_timeout=LIMIT)
def a_capture_that_is_slower_than_checkpoints(t):
    """Each read of the WAL waits; another connection checkpoints and restarts it under the shipper's hands (A1.12)."""
    bench = Bench(t, "lazy", slow(t, "lazy", "pread */shard_0.db-wal", 1500), ledger=True, checkpointer=True,
                  autocheckpoint=5, sync=0.02)
    bench.seed_database()
    restores_until_time_is_up(t, bench)


def restores_until_time_is_up(t, bench):
    victim = bench.start(options={"sync_interval": "10ms"})
    check(victim.wait_for_line("R ", 120), "the writer did not open: " + open(victim.err).read())
    end = time.monotonic() + SECONDS
    restores = last = 0
    out = t.path("now.db")
    while time.monotonic() < end or restores < 3:
        running(victim, "restore %d" % restores)
        acknowledged = max(bench.synced, Heard(victim.text()).synced)
        bench.replica.restore(out)
        pages.check_integrity(out, "restore %d" % restores)
        n = ledger.verify_file(out, "restore %d" % restores)
        check(n >= max(acknowledged, last), "restore %d: link %d; %d acknowledged, %d restored before" %
              (restores, n, acknowledged, last))
        last = n
        restores += 1
        time.sleep(1.0 if LONG else 0.2)
    bench.heard(victim.kill())
    bench.check_replica("after the kill")
    bench.settle("at the end")
    check_equal(len(bench.replica.generations()), 1, "generations")
    t.note("%d restores, up to link %d of %d" % (restores, last, bench.committed))


DAY_SECONDS = 2.0 if not LONG else max(SECONDS / 7, 20)


@test("shim", "load_extension", timeout=LIMIT, long_timeout=LIMIT)
def a_week(t):
    """Seven days with a snapshot each six hours and two days of retention; restored and checked each day (A1.16)."""
    clock = fasttime.Clock(t.path("clock"))
    options = {"snapshot_interval": "6h", "retention": "48h", "sync_interval": "1s", "shutdown_timeout": "1h"}
    bench = Bench(t, "week", clock.environment(), ledger=True, checkpointer=True, autocheckpoint=100, sync=0.0,
                  options=options)
    bench.seed_database()
    victim = bench.start(options=options)
    check(victim.wait_for_line("R ", 120), "the writer did not open: " + open(victim.err).read())
    links = []
    for day in range(7):
        clock.speed(86400 / DAY_SECONDS)
        time.sleep(DAY_SECONDS)
        clock.speed(1.0)
        running(victim, "day %d" % day)
        # something of this day arrives; restored by all tools while everything goes on
        begun = Heard(victim.text()).committed
        links.append(wait_for(lambda: link_of_today(t, bench, day, begun), "the commits of day %d" % day, 120, 0.2))
    clock.speed(86400 / DAY_SECONDS)
    wait_for(lambda: bench.replica.newest().indexes()[0] > 0, "retention", 120, 0.2)
    clock.speed(1.0)
    bench.heard(victim.kill())
    bench.check_replica("at the end of the week")
    bench.settle("at the end of the week")
    newest = bench.replica.newest()
    t.note("links %s; %d snapshots, indexes %d to %d" %
           (links, len(newest.snapshots), newest.indexes()[0], newest.indexes()[-1]))


def link_of_today(t, bench, day, begun):
    """What the replica restores to, once it has what was committed before the restore; retention may be at it meanwhile."""
    out = t.path("today.db")
    try:
        bench.replica.restore(out)
    except FileNotFoundError:
        return 0  # retention took an object between the listing and the reading
    pages.check_integrity(out, "day %d" % day)
    n = ledger.verify_file(out, "day %d" % day)
    return n if n >= begun else 0


if __name__ == "__main__":
    harness.main("soak")
