#!/usr/bin/python3
"""test_kill_ledger.py - kill -9 at random moments of everything at once.

Several processes with several connections each write to one database: FTS5 behind triggers, WITHOUT ROWID, blobs of many
pages, deletes, incremental vacuum, spills, bulk inserts that fail, checkpoints of every mode; snapshots, rollovers and
retention go on every few moments. All are killed at once, or one while the others go on. After each kill the replica restores to
a committed prefix of all tables together (ledger.py) with everything that litejoin_sync acknowledged; at the end it is the
database to the byte. Which process ships, and whether a generation goes on, is not asked here.
"""
# timeout: 900

import os
import random
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from ljtest import harness  # noqa: E402
from ljtest.harness import LONG, check, test  # noqa: E402
from ljtest.victims import Bench  # noqa: E402

ROUNDS = 120 if LONG else 5
BUSY = {"snapshot_interval": "150ms", "retention": "400ms"}


class Crowd:
    """A number of writers on one bench, with different pragmas."""

    def __init__(self, bench, number, processes, **settings):
        self.bench = bench
        self.rng = bench.rng
        self.floor = bench.committed
        self.victims = [bench.start("writer%d" % i, seed="%s/%d/%d" % (bench.t.seed, number, i),
                                    autocheckpoint=self.rng.choice((3, 30, 1000)),
                                    cache_size=self.rng.choice((0, 5)), **settings) for i in range(processes)]

    def wait_until_open(self, label):
        for victim in self.victims:
            check(victim.wait_for_line("R ", 120), "%s: a writer did not open: %s" % (label, open(victim.err).read()))

    def kill_all(self):
        """At once, so that no other's commit comes between what one was heard to say and the next."""
        for one in [victim.kill() for victim in self.victims]:
            self.bench.heard(one, self.floor)

    def kill_one(self):
        victim = self.victims.pop(self.rng.randrange(len(self.victims)))
        self.bench.heard(victim.kill(), self.floor)


def rounds(t, name, processes, **settings):
    with t.part(name):
        bench = Bench(t, name.replace(" ", "_"), ledger=True, options=dict(BUSY), sync=0.1, checkpoint=0.05, **settings)
        bench.seed_database()
        for number in range(ROUNDS):
            label = "%s, kill %d" % (name, number)
            crowd = Crowd(bench, number, processes)
            if bench.rng.random() < 0.8:
                crowd.wait_until_open(label)
                time.sleep(bench.rng.choice((0.05, 0.3, 0.8)) * bench.rng.random())
            else:
                time.sleep(0.3 * bench.rng.random())  # perhaps while they open
            if processes > 1 and bench.rng.random() < 0.5:
                # the others go on without it for a while
                crowd.kill_one()
                time.sleep(0.3 * bench.rng.random())
            crowd.kill_all()
            bench.check_replica(label)
        n = bench.settle(name)
        found = bench.replica.generations()
        t.note("%s: %d kills, %d links, %d synced; %d generations, %d snapshots, indexes %s" %
               (name, bench.kills, n, bench.synced, len(found), sum(len(g.snapshots) for g in found),
                [(g.indexes() or [0])[-1] for g in found]))


@test("shim", "load_extension", timeout=400, long_timeout=7200)
def one_process_with_many_tables(t):
    rounds(t, "one connection", 1)
    rounds(t, "three connections", 1, connections=3, synchronous="FULL")
    rounds(t, "exclusive locking", 1, exclusive=True, cache_size=5)
    rounds(t, "pages of 512 bytes", 1, page_size=512)


@test("shim", "load_extension", timeout=400, long_timeout=7200)
def several_processes(t):
    rounds(t, "two processes", 2)
    rounds(t, "three processes with two connections each", 3, connections=2)


if __name__ == "__main__":
    harness.main("kill ledger")
