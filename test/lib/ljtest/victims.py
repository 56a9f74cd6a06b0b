"""victims.py - processes that write (crash/writer.py) and are killed, and the database they die on.

Bench checks after each death what the replica holds, and at the end that it is the database to the byte.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time

from . import chain, cli, harness, ledger, pages
from .harness import check, check_equal
from .replica import Replica

WRITER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "crash", "writer.py")
PATIENT = {"shutdown_timeout": "60s"}  # for a sync and a close: as long as a busy machine needs


class Heard:
    """What one writer said before it ended."""

    def __init__(self, text):
        self.open_at = None
        self.generation = ""
        self.begun = self.committed = self.synced = 0
        self.closing = self.closed = False
        for line in text.splitlines(keepends=True):
            if not line.endswith("\n"):
                continue
            words = line.split()
            if words[0] == "R":
                self.open_at, self.generation = int(words[1]), words[2]
            elif words[0] == "B":
                self.begun = max(self.begun, int(words[1]))
            elif words[0] == "C":
                self.committed = max(self.committed, int(words[1]))
            elif words[0] == "S":
                self.synced = max(self.synced, int(words[1]))
            elif words[0] == "X":
                self.closing = True
            elif words[0] == "Z":
                self.closed = True


class Victim:
    """A writer process with its output in a file; `env` is added to its environment."""

    def __init__(self, t, settings, name="writer", env=None):
        self.out = t.path(name + ".out")
        self.err = t.path(name + ".err")
        with open(self.out, "wb") as out, open(self.err, "wb") as err:
            self.process = subprocess.Popen([sys.executable, WRITER, json.dumps(settings)], stdout=out, stderr=err,
                                            env=dict(os.environ, **(env or {})))

    def text(self):
        with open(self.out, "rb") as file:
            return file.read().decode()

    def wait_for_line(self, start, seconds=120):
        """Waits for a line that starts so; False when the process ended without it."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if ("\n" + self.text()).find("\n" + start) >= 0:
                return True
            if self.process.poll() is not None:
                return ("\n" + self.text()).find("\n" + start) >= 0
            time.sleep(0.002)
        return False

    def kill(self):
        """kill -9; fails when the process had ended by itself with an error."""
        self.process.send_signal(signal.SIGKILL)
        status = self.process.wait()
        with open(self.err, "rb") as file:
            errors = file.read().decode("utf-8", "replace").strip()
        check(status in (0, -signal.SIGKILL), "writer ended with status %d: %s" % (status, errors[-500:]))
        return Heard(self.text())

    def finish(self, seconds=200):
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise harness.Failure("writer did not end")
        return self.kill()


class Bench:
    """One database, its replica, and the writers that die on it."""

    def __init__(self, t, name, env=None, **settings):
        self.t = t
        self.env = env
        self.name = name
        self.rng = random.Random("%s/%d" % (name, t.seed))
        base = t.path(name, "replica")
        t.folder(name, "data")
        self.db = t.path(name, "data", "shard_0.db")
        self.replica = Replica(os.path.join(base, "shard_0"))
        options = dict(PATIENT, **settings.get("options", {}))
        self.settings = dict(settings, db=self.db, replica=base, options=options)
        self.book = ledger if settings.get("ledger") else chain
        self.synced = self.committed = self.begun = 0
        self.kills = 0

    def seed_database(self):
        """A first clean life: creates, syncs, closes."""
        heard = Victim(self.t, dict(self.settings, transactions=5, sync=1.0, checkpoint=0.0, connections=1,
                                     seed="first")).finish()
        check(heard.closed, "the first writer did not close")
        self.committed = heard.committed
        self.synced = heard.synced
        self.replica.check(one_generation=True)
        self.generation = self.replica.newest().name
        if "snapshot_interval" not in self.settings.get("options", {}):
            check_equal(self.replica.counts()[1], 1, "snapshots after the first life")

    def start(self, name="writer", **more):
        settings = dict(self.settings, seed="%s/%d" % (self.t.seed, self.kills))
        settings.update(more)
        options = dict(PATIENT, **settings.get("options", {}))
        options.setdefault("sync_interval", self.rng.choice(("10ms", "50ms", "1s")))
        settings["options"] = options
        return Victim(self.t, settings, name, self.env)

    def heard(self, heard, floor=None):
        """
        Books what a writer said, and checks what it found when it opened: `floor`, the last link that was committed when it
        was started, if others wrote beside it.
        """
        self.kills += 1
        floor = self.committed if floor is None else floor
        if heard.open_at is not None:
            check(heard.open_at >= floor,
                  "opened at link %d, but COMMIT had returned for link %d" % (heard.open_at, floor))
        self.committed = max(self.committed, heard.committed, heard.open_at or 0)
        self.synced = max(self.synced, heard.synced)
        self.begun = max(self.begun, self.committed, heard.begun)

    def check_replica(self, label):
        """What is in the replica right now is a committed prefix with everything acknowledged in it, for every restorer."""
        out = self.t.path("now.db")
        self.replica.restore(out)
        pages.check_integrity(out, label)
        n = self.book.verify_file(out, label)
        check(n >= self.synced, "%s: restored link %d, but litejoin_sync had acknowledged %d" % (label, n, self.synced))
        check(n <= self.begun, "%s: restored link %d, but only %d were ever begun" % (label, n, self.begun))
        cli.check_restorers(self.replica.root, out, label)
        return n

    def check_same_generation(self, label):
        counts = self.replica.counts()
        check_equal(counts[:2], (1, 1), "%s: generations and snapshots" % label)

    def settle(self, label):
        """A last clean open, sync and close; then replica and database must be the same bytes."""
        heard = Victim(self.t, dict(self.settings, transactions=3, sync=1.0, connections=1, seed="last")).finish()
        self.heard(heard)
        check(heard.closed, label + ": the last writer did not close")
        n = self.book.verify_file(self.db, label + ": database")
        check(n >= self.committed, "%s: database ends with link %d of %d" % (label, n, self.committed))
        self.begun = n
        self.check_replica(label)
        pages.check_same(self.t.path("now.db"), self.db, label + ": replica against the database")
        self.replica.check(leftovers_ok=True)
        return n
