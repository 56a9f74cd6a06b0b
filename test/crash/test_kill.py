#!/usr/bin/python3
"""test_kill.py - kill -9 of a writing process at random moments, again and again on the same database.

After every kill: what the replica holds restores to a committed prefix that contains everything litejoin_sync had
acknowledged, and is sound. At the next open: nothing acknowledged by COMMIT is lost, the same generation goes on, and no
snapshot was made. At the end: the replica equals the database to the byte.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from ljtest import chain, cli, harness, pages, shim  # noqa: E402
from ljtest.harness import LONG, check, check_equal, test  # noqa: E402
from ljtest.replica import Replica  # noqa: E402

WRITER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "writer.py")
ROUNDS = 80 if LONG else 7


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
    """A writer process with its output in a file."""

    def __init__(self, t, settings):
        self.out = t.path("writer.out")
        self.err = t.path("writer.err")
        with open(self.out, "wb") as out, open(self.err, "wb") as err:
            self.process = subprocess.Popen([sys.executable, WRITER, json.dumps(settings)], stdout=out, stderr=err)

    def text(self):
        with open(self.out, "rb") as file:
            return file.read().decode()

    def wait_for_line(self, start, seconds=30):
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

    def finish(self, seconds=60):
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise harness.Failure("writer did not end")
        return self.kill()


class Bench:
    """One database, its replica, and the writers that die on it."""

    def __init__(self, t, name, **settings):
        self.t = t
        self.name = name
        self.rng = random.Random("%s/%d" % (name, t.seed))
        base = t.path(name, "replica")
        t.folder(name, "data")
        self.db = t.path(name, "data", "shard_0.db")
        self.replica = Replica(os.path.join(base, "shard_0"))
        self.settings = dict(settings, db=self.db, replica=base)
        self.synced = self.committed = 0
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
        check_equal(self.replica.counts()[:2], (1, 1), "generations and snapshots after the first life")

    def start(self, **more):
        settings = dict(self.settings, seed="%s/%d" % (self.t.seed, self.kills))
        settings.update(more)
        options = dict(settings.get("options", {}))
        options.setdefault("sync_interval", self.rng.choice(("10ms", "50ms", "1s")))
        settings["options"] = options
        return Victim(self.t, settings)

    def heard(self, heard):
        """Books what a writer said, and checks what it found when it opened."""
        self.kills += 1
        if heard.open_at is not None:
            check(heard.open_at >= self.committed,
                  "opened at link %d, but COMMIT had returned for link %d" % (heard.open_at, self.committed))
        self.committed = max(self.committed, heard.committed, heard.open_at or 0)
        self.synced = max(self.synced, heard.synced)
        self.begun = max(self.committed, heard.begun)

    def check_replica(self, label, tools=False):
        """What is in the replica right now is a committed prefix with everything acknowledged in it."""
        out = self.t.path("now.db")
        self.replica.restore(out)
        pages.check_integrity(out, label)
        n = chain.verify_file(out, label)
        check(n >= self.synced, "%s: restored link %d, but litejoin_sync had acknowledged %d" % (label, n, self.synced))
        check(n <= self.begun, "%s: restored link %d, but only %d were ever begun" % (label, n, self.begun))
        if tools:
            for tool in cli.restorers():
                other = self.t.path("now." + tool.name)
                if os.path.exists(other):
                    os.unlink(other)
                tool.restore(self.replica.root, other)
                pages.check_same(other, out, "%s: %s against the reference" % (label, tool.name))
        return n

    def check_same_generation(self, label):
        counts = self.replica.counts()
        check_equal(counts[:2], (1, 1), "%s: generations and snapshots" % label)

    def settle(self, label):
        """A last clean open, sync and close; then replica and database must be the same bytes."""
        heard = Victim(self.t, dict(self.settings, transactions=3, sync=1.0, connections=1, seed="last")).finish()
        self.heard(heard)
        check(heard.closed, label + ": the last writer did not close")
        n = chain.verify_file(self.db, label + ": database")
        check(n >= self.committed, "%s: database ends with link %d of %d" % (label, n, self.committed))
        self.begun = n
        self.check_replica(label, tools=True)
        pages.check_same(self.t.path("now.db"), self.db, label + ": replica against the database")
        self.replica.check(leftovers_ok=True)
        return n


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
            bench.check_replica(label, tools=number % 3 == 0)
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


AT_A_POINT = """
import sys, os, random, json
from ljtest import chain, shim
path, base, exclusive, steps = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4].split()
con = shim.connect(path, base, sync_interval="1h", max_wal_size=sys.argv[5])
if exclusive:
    con.execute("PRAGMA locking_mode=EXCLUSIVE").fetchall()
con.execute("PRAGMA journal_mode=WAL").fetchall()
con.execute("PRAGMA synchronous=NORMAL").fetchall()
chain.exists(con) or chain.create(con)
rng = random.Random(4)
for step in steps:
    if step == "commit":
        chain.commit_one(con, rng)
    elif step == "spill":
        con.execute("PRAGMA cache_size=5").fetchall()
        con.execute("BEGIN")
        con.execute("CREATE TABLE IF NOT EXISTS bulk(a, b)")
        con.executemany("INSERT INTO bulk VALUES(1, randomblob(900))", [()] * 100)
    elif step == "rollback":
        con.execute("ROLLBACK")
    elif step == "sync":
        shim.sync(con)
    elif step == "snapshot":
        shim.snapshot(con)
    elif step == "close":
        con.close()
    else:
        con.execute("PRAGMA wal_checkpoint(%s)" % step).fetchall()
os.kill(os.getpid(), 9)
"""

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


@test("shim", "load_extension", timeout=120)
def kill_right_after_each_kind_of_event(t):
    """Deterministic: whatever the last event was, the next open goes on in the same generation and loses nothing."""
    environment = dict(os.environ, PYTHONPATH=os.path.dirname(os.path.dirname(shim.__file__)))
    for exclusive, limit in ((0, "64MiB"), (0, "0"), (1, "64MiB")):
        with t.part("%s locking, max_wal_size=%s" % ("exclusive" if exclusive else "normal", limit)):
            wrong = []
            for number, point in enumerate(POINTS):
                folder = "e%d_%s_%d" % (exclusive, limit, number)
                t.folder(folder, "data")
                path, base = t.path(folder, "data", "shard_0.db"), t.path(folder, "replica")
                for steps in ("commit commit sync close", "commit sync " + point):
                    done = subprocess.run([sys.executable, "-c", AT_A_POINT, path, base, str(exclusive), steps, limit],
                                          env=environment, stderr=subprocess.PIPE, timeout=60)
                    check_equal(done.returncode, -signal.SIGKILL, "%s: %s" % (steps, done.stderr.decode()))
                    if steps.startswith("commit commit"):
                        before = Replica(os.path.join(base, "shard_0")).counts()
                want = 3 + point.split().count("commit")
                snapshots = before[1] + point.split().count("snapshot")
                con = shim.open_wal(path, base)
                found = chain.verify(con, point)
                shim.sync(con)
                con.close()
                replica = Replica(os.path.join(base, "shard_0"))
                out = t.path("out.db")
                replica.restore(out)
                restored = chain.verify_file(out, point)
                if pages.differences(pages.read(out), pages.read(path)):
                    wrong.append("%s: replica and database differ" % point)
                elif (found, restored) != (want, want):
                    wrong.append("%s: %d links live, %d restored, want %d" % (point, found, restored, want))
                elif replica.counts()[0] != 1 or replica.counts()[1] > snapshots:
                    wrong.append("%s: %d generations, %d snapshots" % (point, *replica.counts()[:2]))
            check(not wrong, "%d of %d points: %s" % (len(wrong), len(POINTS), "; ".join(wrong)))


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
