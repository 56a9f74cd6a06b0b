#!/usr/bin/python3
"""test_lost.py - the database file is gone, and its state folder has what the replica does not.

The store was away while the WAL was restarted: the spool has files of several indexes. Then the file is lost, the store comes back, and
somebody opens the name. What was committed reaches the replica first, as its shipper would have put it there, and the restore takes it.
What does not continue the replica stays out of it, and the log says what is lost and why.
"""

import os
import shutil
import signal
import subprocess
import sys

from shard import LIB, Shard, must_fail, python

from ljtest import chain, fasts3, faults, harness, shim
from ljtest.broken import FileInTheWay
from ljtest.harness import LONG, check, check_equal, test, wait_for
from ljtest.lives import killat

NEEDS = ("shim", "load_extension")

# Links while the store is away, with so many restarts of the WAL in between; then the process ends by kill -9.
OUTAGE = """
import os, random, sys
from ljtest import chain, shim
path, base, restarts, each = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
con = shim.open_wal(path, base, pragmas=("wal_autocheckpoint=0",), sync_interval="10ms")
rng = random.Random(5)
for _ in range(restarts):
    for _ in range(each): n = chain.commit_one(con, rng)
    con.execute("PRAGMA wal_checkpoint(%s)" % rng.choice(("RESTART", "TRUNCATE"))).fetchall()
for _ in range(each): n = chain.commit_one(con, rng)
print(n, flush=True)
os.kill(os.getpid(), 9)
"""

OPENS = """
import sys
from ljtest import chain, shim
con = shim.connect(sys.argv[1], sys.argv[2])
print(chain.verify(con), flush=True)
con.close()
"""


def told(words="is lost, the restored one"):
    with open(os.environ["LITEJOIN_LOG_FILE"], errors="replace") as log:
        return [line for line in log if words in line]


class Lost(Shard):
    """A replicated database whose store goes away, and which is lost then."""

    def __init__(self, t, name="lost", restarts=3, each=4):
        super().__init__(t, name)
        con = self.open(pragmas=("wal_autocheckpoint=0",))
        for _ in range(2):  # two segments
            self.synced = self.write(con, 5)
            shim.sync(con)
        con.close()
        self.block = FileInTheWay(self.root)
        t.cleanup(self.block.heal)
        self.block.fail()
        status, out, errors = python(OUTAGE, arguments=(self.path, self.base, restarts, each))
        check_equal(status, -signal.SIGKILL, "process: " + errors)
        self.n = int(out)                 # the last link that was committed ...
        self.spooled = self.n - each      # ... and the last one in the spool
        check_equal(len(self.spool()), restarts, "files in the spool: %s" % self.spool())

    @property
    def state(self):
        return os.path.join(self.data, ".%s.db-litejoin" % self.name)

    def spool(self):
        """Its files, in order."""
        folder = os.path.join(self.state, "spool")
        names = os.listdir(folder) if os.path.isdir(folder) else []
        return sorted(name for name in names if name.endswith(".wal"))

    def spool_path(self, number):
        return os.path.join(self.state, "spool", self.spool()[number])

    def lose(self, keep_wal=False):
        for end in ("", "-shm") if keep_wal else ("", "-wal", "-shm"):
            if os.path.exists(self.path + end):
                os.unlink(self.path + end)

    def comes_back(self, n, label="restored", snapshots=1):
        """The open gives that link, all restorers do, and what is written then follows it."""
        for turn in range(2):
            con = self.open(create=False)
            check_equal(chain.verify(con, label), n, label + ": last link")
            shim.sync(con)
            check_equal(self.restore_now(label), n, label + ": last link in the replica")
            check_equal(self.spool(), [], label + ": files in the spool")
            n = self.write(con, 2)
            con.close()
            check_equal(self.check_restores(label, snapshots=snapshots, one_generation=snapshots == 1, killed=True), n,
                        label + ": last link")


@test(*NEEDS)
def what_is_in_the_spool_is_restored(t):
    """And what is in the WAL that was left, where it still lies there."""
    for keep_wal in (False, True):
        with t.part("with its WAL" if keep_wal else "without its WAL"):
            lost = Lost(t, "wal%d" % keep_wal)
            lost.lose(keep_wal)
            lost.block.heal()
            lost.comes_back(lost.n if keep_wal else lost.spooled)
    check_equal(told(), [], "said to be lost")


@test(*NEEDS)
def the_wal_alone(t):
    """Killed while the store was away, before anything had to leave the WAL."""
    lost = Lost(t, restarts=0)
    lost.lose(keep_wal=True)
    lost.block.heal()
    lost.comes_back(lost.n)
    check_equal(told(), [], "said to be lost")


@test(*NEEDS)
def a_wal_that_nobody_knows(t):
    """Without the shared page it cannot be told which index it is: the spool alone."""
    lost = Lost(t)
    os.unlink(os.path.join(lost.state, "shared"))
    lost.lose(keep_wal=True)
    lost.block.heal()
    lost.comes_back(lost.spooled)
    check(len(told()) == 1 and "begun by somebody else" in told()[0], told())


@test(*NEEDS)
def the_store_is_still_away(t):
    lost = Lost(t)
    lost.lose()
    files = lost.spool()
    for _ in range(2):
        text = must_fail(lost.open)
        check("restoring before open" in text, text)
        check_equal(lost.spool(), files, "files in the spool")
    lost.block.heal()
    lost.comes_back(lost.spooled)


@test(*NEEDS)
def the_store_goes_away_in_the_middle(t):
    """It lists and reads, and refuses a put: the open fails, says so, and drops nothing."""
    with fasts3.FastS3() as store, faults.Proxy(store.endpoint) as proxy:
        os.environ.update(store.env)
        lost = Shard(t, base=store.url("b", "r", endpoint=proxy.endpoint), sync_interval="10ms", shutdown_timeout="200ms")
        con = lost.open(pragmas=("wal_autocheckpoint=0",))
        for _ in range(2):  # the first commits are in the snapshot
            lost.write(con, 5)
            shim.sync(con)
        spool = os.path.join(lost.data, ".%s.db-litejoin" % lost.name, "spool")
        with proxy.rule(faults.s3_error("AccessDenied"), method="PUT"):
            for _ in range(3):
                n = lost.write(con, 3)
                con.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            con.close()
        files = sorted(os.listdir(spool))
        check_equal(len(files), 3, "files in the spool")
        for end in ("", "-wal", "-shm"):
            if os.path.exists(lost.path + end):
                os.unlink(lost.path + end)
        for more in (0, 1):  # segments that it takes before it refuses
            with proxy.rule(faults.s3_error("AccessDenied"), method="PUT", path=r"_00000000\.wal", after=more):
                text = must_fail(lost.open)
            check("restoring before open" in text and "litejoin" in text and "ccess" in text, text)
            check(not os.path.exists(lost.path), "the open that failed made a file")
            check_equal(sorted(os.listdir(spool)), files[1 + more:], "files in the spool")
        with proxy.rule(faults.s3_error("SlowDown"), method="PUT", count=1):  # a hiccup
            con = lost.open(create=False)
        check_equal(chain.verify(con, "restored"), n, "last link")
        check_equal(os.listdir(spool), [], "files in the spool")
        n = lost.write(con, 2)
        shim.sync(con)
        con.close()
        shutil.rmtree(lost.data)
        os.mkdir(lost.data)
        con = lost.open(create=False)
        check_equal(chain.verify(con, "once more"), n, "last link")
        con.close()
    check_equal(told(), [], "said to be lost")


@test(*NEEDS)
def a_file_that_is_missing(t):
    """A hole: what is in front of it gets there, and nothing behind it."""
    for number in range(3):
        with t.part("file %d of 3" % (number + 1)):
            lost = Lost(t, "hole%d" % number)
            lost.lose()
            os.unlink(lost.spool_path(number))
            lost.block.heal()
            before = len(told())
            lost.comes_back(lost.synced + 4 * number)
            said = told()[before:]
            # that there was a file behind the last one cannot be seen
            check(len(said) == (number < 2) and all("are gone" in line for line in said), said)


@test(*NEEDS)
def a_file_that_is_torn(t):
    """By a power cut, since it was written without a sync."""
    def garbage(path):
        with open(path, "r+b") as file:
            file.seek(-700, os.SEEK_END)
            file.write(t.random.randbytes(512))

    def short(path):
        os.truncate(path, os.path.getsize(path) - 512)

    def nothing(path):
        os.truncate(path, 0)

    for number, tear in enumerate((garbage, short, nothing)):
        with t.part(tear.__name__):
            lost = Lost(t, tear.__name__)
            lost.lose()
            tear(lost.spool_path(number))
            lost.block.heal()
            before = len(told())
            lost.comes_back(lost.synced + 4 * number)
            check_equal(len(told()) - before, 1, "said to be lost")


@test(*NEEDS)
def another_writer_came_first(t):
    """Another machine restored the database meanwhile and went on: nothing of ours gets into its history."""
    for restarts in (False, True):
        with t.part("in the next index" if restarts else "in the same index"):
            lost = Lost(t, "other%d" % restarts)
            lost.lose()
            lost.block.heal()
            other = Shard(t, "elsewhere%d" % restarts, base=lost.base)
            con = other.open(create=False)
            check_equal(chain.verify(con, "elsewhere"), lost.synced, "last link")
            n = other.write(con, 3)
            if restarts:
                con.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
                n = other.write(con, 3)
            con.close()
            files = lost.replica.files()
            before = len(told())
            con = lost.open(create=False)
            check_equal(chain.verify(con, "restored"), n, "last link")
            now = lost.replica.files()
            check_equal({name: now.get(name) for name in files}, files, "objects of the other")
            check_equal(len(told()) - before, 1, "said to be lost")
            con.close()
            lost.comes_back(n)


@test(*NEEDS)
def another_generation_came_first(t):
    """Somebody began anew under the same URL: that is the newest state, and stays it."""
    lost = Lost(t)
    lost.lose()
    lost.block.heal()
    other = Shard(t, "elsewhere", base=lost.base, restore_on_boot="false")
    con = other.open()
    n = other.write(con, 3)
    con.close()
    lost.comes_back(n, snapshots=2)
    check(len(told()) == 1 and "of generation" in told()[0], told())


@test(*NEEDS)
def a_replica_that_was_set_back(t):
    """The bucket was restored from an older copy: an object of ours would be behind a hole, and nothing could be restored."""
    lost = Lost(t, each=3)
    lost.lose()
    lost.block.heal()
    segments = lost.replica.newest().segments
    os.unlink(segments[-1].path)
    n = lost.restore_now("set back")
    check(n < lost.synced, "nothing is missing")
    lost.comes_back(n)
    check(len(told()) == 1 and "has lost the end" in told()[0], told())


@test(*NEEDS)
def several_processes_open_it_at_once(t):
    lost = Lost(t, restarts=6)
    lost.lose()
    lost.block.heal()
    processes = [subprocess.Popen([sys.executable, "-c", OPENS, lost.path, lost.base], stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE, env=dict(os.environ, PYTHONPATH=LIB)) for _ in range(4)]
    for process in processes:
        out, errors = process.communicate(timeout=300)
        check_equal((process.returncode, out.decode(), errors.decode()), (0, "%d\n" % lost.spooled, ""), "opener")
    lost.comes_back(lost.spooled)


@test(*NEEDS)
def killed_while_another_one_waits(t):
    """Who waits for the lock has looked at the replica before; what was shipped meanwhile is restored all the same."""
    lost = Lost(t)
    lost.lose()
    lost.block.heal()
    environment = dict(os.environ, PYTHONPATH=LIB)
    slow = {"LD_PRELOAD": killat(), "LJ_KILL_DIR": os.path.dirname(lost.data), "LJ_KILL_AT": "1",
            "LJ_KILL_MATCH": "*write */shard_0.db.tmp-restore-*", "LJ_SLOW_US": "400000", "LJ_SLOW_MATCH": "unlink */spool/*"}
    command = [sys.executable, "-c", OPENS, lost.path, lost.base]
    first = subprocess.Popen(command, env=dict(environment, **slow))
    wait_for(lambda: len(lost.spool()) < 3, "the first file of the spool is shipped")
    second = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)
    check_equal(first.wait(60), -signal.SIGKILL, "the first one")
    check_equal(second.communicate(timeout=60)[0].decode(), "%d\n" % lost.spooled, "the second one")
    lost.comes_back(lost.spooled)


@test(*NEEDS, timeout=120)
def killed_on_the_way(t):
    """Whatever is done already, the next open goes on; also twice."""
    library = killat()
    steps = ("rename */wal/*.wal.lz4", "rename */.*-litejoin/position", "unlink */spool/*.wal")
    rounds = [(step, behind, at) for step in steps for behind in (False, True) for at in (1, 2, 3)]
    for number, (step, behind, at) in enumerate(rounds if LONG else t.random.sample(rounds, 7)):
        with t.part("%s %s, the %d. time" % ("behind" if behind else "before", step, at)):
            lost = Lost(t, "killed%d" % number)
            lost.lose(keep_wal=at == 2)
            lost.block.heal()
            env = {"LD_PRELOAD": library, "LJ_KILL_DIR": os.path.dirname(lost.data), "LJ_KILL_MATCH": step,
                   "LJ_KILL_AT": str(at)}
            if behind:
                env["LJ_KILL_BEHIND"] = "1"
            for _ in range(2 if at == 1 else 1):
                status, _, errors = python(OPENS, env, arguments=(lost.path, lost.base))
                check_equal(status, -signal.SIGKILL, "process: " + errors)
                check(not os.path.exists(lost.path), "it was restored before everything was shipped")
            lost.comes_back(lost.n if at == 2 else lost.spooled)
    check_equal(told(), [], "said to be lost")


if __name__ == "__main__":
    harness.main("lost")
