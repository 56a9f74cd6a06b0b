#!/usr/bin/python3
"""test_kill.py - kill -9 of a writing process at random moments, again and again on the same database.

After every kill: what the replica holds restores to a committed prefix that contains everything litejoin_sync had
acknowledged, and is sound. At the next open: nothing acknowledged by COMMIT is lost, the same generation goes on, and no
snapshot was made. At the end: the replica equals the database to the byte.
"""

import os
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from ljtest import harness  # noqa: E402
from ljtest.harness import LONG, check, check_equal, test  # noqa: E402
from ljtest.victims import Bench  # noqa: E402

ROUNDS = 80 if LONG else 7


def kill_rounds(t, name, rounds=ROUNDS, **settings):
    """`rounds` lives that end by kill -9, with all checks after each."""
    with t.part(name):
        bench = Bench(t, name.replace(" ", "_"), **settings)
        bench.seed_database()
        for number in range(rounds):
            label = "%s, kill %d" % (name, number)
            victim = bench.start()
            if bench.rng.random() < 0.2:
                time.sleep(bench.rng.random() * 0.25)  # perhaps while it opens
            else:
                check(victim.wait_for_line("R "), label + ": the writer did not open: " + open(victim.err).read())
                time.sleep(bench.rng.choice((0.01, 0.1, 0.35)) * bench.rng.random())
            heard = victim.kill()
            bench.heard(heard)
            if heard.generation not in ("", "-"):
                check_equal(heard.generation, bench.generation, label + ": generation at open")
            bench.check_replica(label)
            bench.check_same_generation(label)
        n = bench.settle(name)
        bench.check_same_generation(name + ", at the end")
        t.note("%s: %d kills, %d links, %d segments in %d WAL indexes" %
               (name, bench.kills, n, bench.replica.counts()[2], len(bench.replica.newest().indexes())))


@test("shim", "load_extension", timeout=120, long_timeout=3000)
def synchronous_modes(t):
    for mode in ("OFF", "NORMAL", "FULL", "EXTRA"):
        kill_rounds(t, "synchronous " + mode, synchronous=mode)


@test("shim", "load_extension", timeout=120, long_timeout=3000)
def exclusive_locking(t):
    kill_rounds(t, "exclusive locking", exclusive=True)
    kill_rounds(t, "exclusive locking and many checkpoints", exclusive=True, autocheckpoint=10, checkpoint=0.2)


@test("shim", "load_extension", timeout=120, long_timeout=3000)
def spooling(t):
    """max_wal_size=0: the gate never refuses a WAL restart, so unshipped frames go through the spool."""
    kill_rounds(t, "spool", autocheckpoint=5, checkpoint=0.1, options={"max_wal_size": "0"})
    kill_rounds(t, "spool and slow shipping", autocheckpoint=3, checkpoint=0.1, sync=0.005,
                options={"max_wal_size": "0", "sync_interval": "1s"})


@test("shim", "load_extension", timeout=120, long_timeout=3000)
def small_autocheckpoint(t):
    kill_rounds(t, "autocheckpoint 2", autocheckpoint=2)
    kill_rounds(t, "autocheckpoint 20 and journal_size_limit 0", autocheckpoint=20, journal_size_limit=0)


@test("shim", "load_extension", timeout=120, long_timeout=3000)
def several_connections(t):
    kill_rounds(t, "three connections", connections=3)
    kill_rounds(t, "three connections, checkpoints and spool", connections=3, autocheckpoint=10, checkpoint=0.1,
                options={"max_wal_size": "0"})


@test("shim", "load_extension", timeout=120, long_timeout=3000)
def big_transactions(t):
    """Frames reach the WAL long before the COMMIT, and stay there when it never comes."""
    kill_rounds(t, "spilling transactions", cache_size=5, big=0.3, autocheckpoint=200)
    kill_rounds(t, "pages of 512 bytes", cache_size=5, big=0.2, page_size=512)
    kill_rounds(t, "pages of 65536 bytes", big=0.1, page_size=65536, autocheckpoint=50)


@test("shim", "load_extension", timeout=120, long_timeout=3000)
def kill_while_closing(t):
    """The last close ships, checkpoints and deletes the WAL: a kill in the middle loses nothing and re-uploads nothing."""
    bench = Bench(t, "closing")
    bench.seed_database()
    for number in range(ROUNDS * 3):
        label = "kill %d" % number
        victim = bench.start(transactions=bench.rng.randint(1, 15), sync=0.0)
        check(victim.wait_for_line("X"), label + ": the writer did not come to its end: " + open(victim.err).read())
        time.sleep(bench.rng.random() * 0.02)
        heard = victim.kill()
        bench.heard(heard)
        if heard.closed:
            bench.synced = bench.committed  # a close that returned has shipped everything
        bench.check_replica(label)
        bench.check_same_generation(label)
    bench.settle("at the end")
    bench.check_same_generation("at the end")


@test("shim", "load_extension", timeout=120, long_timeout=3000)
def kill_during_the_first_life(t):
    """Killed while the database is created and its first snapshot is made: whatever came of it, the next open puts right."""
    for number in range(ROUNDS * 2):
        bench = Bench(t, "first_%d" % number)
        victim = bench.start()
        time.sleep(0.05 + bench.rng.random() * 0.2)
        bench.heard(victim.kill())
        if any(g.snapshots for g in bench.replica.generations()):
            bench.check_replica("first life %d" % number)
        bench.settle("first life %d" % number)


@test("shim", "load_extension", timeout=60, long_timeout=3000)
def lost_disk_after_a_kill(t):
    """Killed, and the disk is gone too: the next open restores what was shipped and goes on from there."""
    bench = Bench(t, "lost")
    bench.seed_database()
    for number in range(ROUNDS):
        label = "loss %d" % number
        victim = bench.start(sync=0.2)
        check(victim.wait_for_line("S "), label + ": no litejoin_sync: " + open(victim.err).read())
        time.sleep(bench.rng.random() * 0.1)
        bench.heard(victim.kill())
        kept = bench.check_replica(label)
        subprocess.run(["rm", "-rf", os.path.dirname(bench.db)], check=True)
        bench.committed = bench.synced = kept
    n = bench.settle("after the losses")
    t.note("%d links, %d generations" % (n, len(bench.replica.generations())))


@test("shim", "load_extension", timeout=60, long_timeout=3000)
def killed_writers_leave_no_litter(t):
    """Half-written objects of dead processes do not pile up in the replica."""
    bench = Bench(t, "litter", payload=[2000, 20000])
    bench.seed_database()
    left = set()
    for number in range(ROUNDS * 4):
        victim = bench.start(sync=0.5, options={"sync_interval": "10ms"})
        check(victim.wait_for_line("S "), "no litejoin_sync: " + open(victim.err).read())
        time.sleep(bench.rng.random() * 0.05)
        bench.heard(victim.kill())
        left |= {path for g in bench.replica.generations() for path in g.foreign}
    bench.settle("after the kills")
    still = [path for path in left if os.path.exists(path)]
    t.note("%d half-written objects seen, %d still there" % (len(left), len(still)))
    check(not still, "%d half-written objects stay in the replica, e.g. %s" % (len(still), still[:1]))


if __name__ == "__main__":
    harness.main("crash")
