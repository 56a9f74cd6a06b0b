"""lives.py - lives of crash/stepper.py that end at a chosen point, and the open that follows."""

import os
import signal
import subprocess
import sys

from . import chain, cli, native, pages, shim
from .harness import Skip, check, check_equal
from .replica import Replica

_CRASH = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "crash")
STEPPER = os.path.join(_CRASH, "stepper.py")


def killat():
    """The library that kills (crash/killat.c)."""
    try:
        return native.shared_library(os.path.join(_CRASH, "killat.c"), "-ldl")
    except (OSError, subprocess.CalledProcessError) as error:
        raise Skip("cannot build killat.c: %s" % error)


class Life:
    """What one run of stepper.py said. `before`: links that were committed and synced before it."""

    def __init__(self, paths, exclusive, steps, limit, env=None, before=0):
        done = subprocess.run([sys.executable, STEPPER, *paths, str(exclusive), steps, limit],
                              env=dict(os.environ, **(env or {})), stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=120)
        check_equal(done.returncode, -signal.SIGKILL, "%s: %s" % (steps, done.stderr.decode()))
        words = [line.split() for line in done.stdout.decode().splitlines()]
        self.committed = max([int(w[1]) for w in words if w[0] == "C"], default=before)
        self.synced = max([int(w[1]) for w in words if w[0] == "S"], default=before)
        self.finished = [w[1] for w in words if w[0] == "done"]
        self.ended = ["end"] in words


def next_open(t, paths, committed, generations, snapshots, most):
    """
    The open after a kill: nothing committed is lost and at most link `most` is there, the generation goes on, no snapshot
    beyond `snapshots` was made, and the replica ends up equal to the database. Fails with what is wrong.
    """
    path, base = paths
    replica = Replica(os.path.join(base, "shard_0"))
    con = shim.open_wal(path, base)
    found = chain.verify(con, "next open")
    shim.sync(con)
    con.close()
    check(committed <= found <= most, "%d links live, %d committed, %d begun" % (found, committed, most))
    out = t.path("out.db")
    replica.restore(out)
    check_equal(chain.verify_file(out, "restored"), found, "last link in the replica")
    pages.check_same(out, path, "replica against the database")
    cli.check_restorers(replica.root, out, "replica")
    replica.check(leftovers_ok=True)
    counts = replica.counts()
    check(counts[0] <= generations and counts[1] <= snapshots,
          "%d generations, %d snapshots" % counts[:2])
