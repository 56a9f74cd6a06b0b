#!/usr/bin/python3
"""test_kill_points.py - kill -9 at exact points: after each kind of event, and before every call that changes a file.

Where test_kill.py is random, this is exhaustive: a fixed script of commits, checkpoints of every mode, spills, rollbacks,
syncs and a close runs again and again, each time one step further, dies there, and the next open has to put it right.
"""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from ljtest import chain, harness, pages  # noqa: E402
from ljtest.harness import LONG, Failure, check, test  # noqa: E402
from ljtest.lives import Life, killat, next_open  # noqa: E402
from ljtest.replica import Replica  # noqa: E402

# What the process does last before it kills itself: each point once in every locking mode and with and without a spool.
POINTS = (
    "sync", "commit", "sync commit", "sync commit commit sync",
    "sync PASSIVE", "sync TRUNCATE", "sync RESTART", "sync FULL",
    "commit PASSIVE", "commit TRUNCATE", "commit RESTART",
    "sync TRUNCATE commit", "sync RESTART commit", "sync PASSIVE commit",
    "commit TRUNCATE commit", "commit RESTART commit", "commit PASSIVE commit",
    "sync TRUNCATE commit sync", "commit TRUNCATE commit TRUNCATE commit", "sync TRUNCATE TRUNCATE",
    "spill", "sync spill", "sync RESTART spill", "sync RESTART spill rollback", "sync RESTART spill rollback commit",
    "sync spill rollback", "sync spill rollback commit", "commit TRUNCATE spill",
    "snapshot", "commit snapshot commit", "sync TRUNCATE snapshot", "close",
)


@test("shim", "load_extension", timeout=400)
def after_each_kind_of_event(t):
    """Whatever the last event was, the next open goes on in the same generation and loses nothing."""
    for exclusive, limit in ((0, "64MiB"), (0, "0"), (1, "64MiB")):
        with t.part("%s locking, max_wal_size=%s" % ("exclusive" if exclusive else "normal", limit)):
            wrong = []
            for number, point in enumerate(POINTS):
                folder = "e%d_%s_%d" % (exclusive, limit, number)
                t.folder(folder, "data")
                paths = t.path(folder, "data", "shard_0.db"), t.path(folder, "replica")
                Life(paths, exclusive, "commit commit sync close", limit)
                before = Replica(os.path.join(paths[1], "shard_0")).counts()
                life = Life(paths, exclusive, "commit sync " + point, limit)
                try:
                    next_open(t, paths, life.committed, 1, before[1] + point.split().count("snapshot"), life.committed)
                except Failure as failure:
                    wrong.append("%s: %s" % (point, failure))
            check(not wrong, "%d of %d points: %s" % (len(wrong), len(POINTS), "; ".join(wrong)))


STEPS = ("commit sync commit TRUNCATE commit RESTART commit sync PASSIVE commit FULL commit commit TRUNCATE sync "
         "spill rollback commit sync RESTART spill rollback commit RESTART commit close")


@test("shim", "load_extension", timeout=500, long_timeout=3000)
def before_every_call_that_changes_a_file(t):
    """The script dies before its 1st, 2nd, 3rd ... write, sync, truncate, rename or unlink of database, spool or replica."""
    library = killat()
    for exclusive, limit in ((0, "64MiB"), (0, "0"), (1, "64MiB")):
        with t.part("%s locking, max_wal_size=%s" % ("exclusive" if exclusive else "normal", limit)):
            wrong, kills = every_call(t, library, exclusive, limit)
            t.note("%d kills" % kills)
            t.note("\n".join(wrong))
            check(not wrong, "%d of %d kills: %s" % (len(wrong), kills, "; ".join(wrong[:3])))


def every_call(t, library, exclusive, limit):
    """Kills at call 1, 2, ... until the script gets through. (list of what went wrong, number of kills)"""
    wrong = []
    at = kills = 0
    while True:
        # in the short form about every twelfth call, others for each seed
        at += 1 if LONG else t.random.randint(6, 18)
        folder = "k%d_%s_%d" % (exclusive, limit, at)
        t.folder(folder, "data")
        paths = t.path(folder, "data", "shard_0.db"), t.path(folder, "replica")
        log = t.path(folder, "calls")
        Life(paths, exclusive, "commit commit sync close", limit)
        life = Life(paths, exclusive, STEPS, limit, {"LD_PRELOAD": library, "KILL_DIR": t.path(folder),
                                                     "KILL_AT": str(at), "LJ_KILL_LOG": log}, before=2)
        if life.ended:
            return wrong, kills
        kills += 1
        try:
            out = t.path("now.db")
            Replica(os.path.join(paths[1], "shard_0")).restore(out)
            pages.check_integrity(out, "the replica right after the kill")
            n = chain.verify_file(out, "the replica right after the kill")
            check(n >= life.synced, "restored %d, but %d were synced" % (n, life.synced))
            next_open(t, paths, life.committed, 1, 1, life.committed + 1)
        except Failure as failure:
            with open(log) as file:
                call = file.read().splitlines()[-1]
            wrong.append("before call %s, after step %d (%s): %s" %
                         (call.replace(t.path(folder), ""), len(life.finished), " ".join(life.finished[-2:]), failure))


if __name__ == "__main__":
    harness.main("kill points")
