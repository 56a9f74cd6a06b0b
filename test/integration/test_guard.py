#!/usr/bin/python3
"""test_guard.py - option `guard`: a process without the shim writes and checkpoints beside us, and nothing is lost.

The other process is plain SQLite with wal_autocheckpoint=10: it restarts the WAL whenever it can. The replica is slow, so that there
are unshipped frames nearly all the time.
"""

import os
import sqlite3
import subprocess
import sys
import threading
import time

from shard import LIB, Shard, foreign, foreign_link, python

from ljtest import chain, harness, shim
from ljtest.harness import LONG, check, check_equal, test, wait_for

NEEDS = ("shim", "load_extension")

WRITER = """
import random, sys
from ljtest import chain, shim
con = shim.plain(sys.argv[1], pragmas=("synchronous=OFF", "wal_autocheckpoint=%s" % sys.argv[3]))
rng = random.Random(int(sys.argv[2]))
payload = (int(sys.argv[5]), int(sys.argv[5]) * 2)
for _ in range(int(sys.argv[4])):
    chain.commit_one(con, rng, "plain", payload_bytes=payload)
print(chain.last(con), flush=True)
sys.stdin.read()
"""


class Plain:
    """The other process: commits `count` times, then keeps its connection until end()."""

    def __init__(self, t, path, count, checkpoint=10, payload=100):
        self.process = subprocess.Popen(
            [sys.executable, "-c", WRITER, path, str(t.random.randrange(1000)), str(checkpoint), str(count),
             str(payload)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=dict(os.environ, PYTHONPATH=LIB))
        t.cleanup(self.end)
        self.last = 0

    def running(self):
        return self.process.poll() is None and not self.last

    def wait(self):
        line = self.process.stdout.readline()
        check(line.strip(), "the plain writer failed")
        self.last = int(line)
        return self.last

    def end(self):
        if self.process.stdin and not self.process.stdin.closed:
            self.process.stdin.close()
            self.process.wait()
            self.process.stdout.close()


def beside(t, guard, turns, folder):
    """(status, shard, connection) after a plain writer has worked beside us in `turns` rounds."""
    shard = Shard(t, folder, sync_interval="300ms", guard=guard)
    con = shard.open()
    shard.write(con, 3)
    shim.sync(con)
    for _ in range(turns):
        plain = Plain(t, shard.path, 40)
        plain.wait()
        plain.end()
        n = shard.write(con, 1)
        check_equal(n, plain.last + 1, "last link")
    shim.sync(con, "30s")
    return shim.status(con), shard, con


@test(*NEEDS, timeout=120)
def a_plain_writer_cannot_restart_the_wal(t):
    """With the guard one generation, whatever it tries; without it the loss is noticed, and costs a new one."""
    status, shard, con = beside(t, "on", 20 if LONG else 5, "on")
    check_equal(status["last_break"], "", "why a generation was given up")
    n = chain.last(con)
    con.close()
    check_equal(shard.check_restores("with the guard", snapshots=1), n, "last link")

    status, shard, con = beside(t, "off", 20 if LONG else 5, "off")
    # restarted under our eyes, or begun anew behind an empty one
    check("a process without this VFS" in status["last_break"], "last_break without the guard: %r" % status["last_break"])
    n = chain.last(con)
    con.close()
    check_equal(shard.check_restores("without the guard", one_generation=False), n, "last link")


@test(*NEEDS, timeout=180)
def the_wal_does_not_grow_for_ever(t):
    """Only the other process writes. What it commits is shipped without a call of ours, and the WAL stays small."""
    shard = Shard(t, sync_interval="20ms", guard="on")
    con = shard.open()
    n = shard.write(con, 3)
    shim.sync(con)
    plain = Plain(t, shard.path, 6000 if LONG else 1500, payload=12000)
    largest = 0
    waiter = threading.Thread(target=plain.wait)
    waiter.start()
    while waiter.is_alive():
        largest = max(largest, os.stat(shard.path + "-wal").st_size)
        time.sleep(0.005)
    waiter.join()
    n = plain.last
    written = n * 5 * 4096
    t.note("about %d MiB were written, the WAL was at most %.1f MiB" % (written >> 20, largest / 1048576))
    wait_for(lambda: shim.status(con)["lag_frames"] == 0, "everything shipped", 60, 0.05)
    if LONG:  # short, it is a matter of luck: each restart needs a moment in which all is checkpointed and nobody writes
        check(largest < written // 2, "the WAL grew to %d bytes" % largest)
    indexes = shard.replica.newest().indexes()
    check(len(indexes) > 1, "the WAL was never restarted: indexes %s" % indexes)
    check_equal(shard.restore_now("while it is open"), n, "last link in the replica")
    check_equal(shim.status(con)["last_break"], "", "why a generation was given up")
    plain.end()
    n = shard.write(con, 3)
    con.close()
    check_equal(shard.check_restores("closed", snapshots=1), n, "last link")


@test(*NEEDS, timeout=120)
def the_application_sees_no_busy(t):
    """busy_timeout=0, checkpoints of every mode, and a guard that works every millisecond."""
    shard = Shard(t, sync_interval="1ms", guard="on")
    con = shard.open(busy=0, pragmas=("wal_autocheckpoint=0",))
    con.execute("PRAGMA busy_timeout=0")
    end = time.monotonic() + (30 if LONG else 2)
    count = 0
    while time.monotonic() < end or (count % 500 and time.monotonic() < end + 60):
        chain.commit_one(con, t.random, payload_bytes=(20000, 60000))
        count += 1
        if count % 40 == 0:
            con.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        if count % 500 == 0:
            for mode in ("FULL", "RESTART", "TRUNCATE"):
                busy = con.execute("PRAGMA wal_checkpoint(%s)" % mode).fetchone()[0]
                check_equal(busy, 0, "checkpoint %s" % mode)
    n = chain.last(con)
    shim.sync(con)
    check(len(shard.replica.newest().indexes()) > 2, "the WAL was never restarted")
    con.close()
    check_equal(shard.check_restores("closed", snapshots=1), n, "last link")


@test(*NEEDS)
def what_needs_everybody_out_still_works(t):
    """Closing deletes the WAL; leaving WAL mode, exclusive locking, and coming back."""
    shard = Shard(t, guard="on")
    con = shard.open()
    shard.write(con, 5)
    foreign_link(shard.path, 30)
    con.close()
    check_equal([tail for tail in ("-wal", "-shm") if os.path.exists(shard.path + tail)], [], "left by the close")
    con = shard.open(create=False)
    shard.write(con, 5)
    check_equal(con.execute("PRAGMA locking_mode=EXCLUSIVE").fetchone()[0], "exclusive", "locking_mode")
    shard.write(con, 5)
    check_equal(con.execute("PRAGMA locking_mode=NORMAL").fetchone()[0], "normal", "locking_mode")
    n = shard.write(con, 5)
    foreign_link(shard.path, 30)
    n = shard.write(con, 1)
    shim.sync(con)
    check_equal(shim.status(con)["last_break"], "", "why a generation was given up")
    check_equal(shard.restore_now("back in normal mode"), n, "last link in the replica")
    check_equal(con.execute("PRAGMA journal_mode=DELETE").fetchone()[0], "delete", "journal_mode")
    n = shard.write(con, 2)
    check_equal(con.execute("PRAGMA journal_mode=WAL").fetchone()[0], "wal", "journal_mode")
    n = shard.write(con, 2)
    con.close()
    check_equal(shard.check_restores("closed", one_generation=False), n, "last link")


@test(*NEEDS)
def its_wal_index_goes_with_the_last_lock(t):
    """
    Of our two connections one has closed, and one has read nothing yet: the last close of another process deletes the -shm, and we
    must not go on with that one, or there are two for one WAL.
    """
    shard = Shard(t, guard="on")
    con = shard.open()
    shard.write(con, 3)
    shim.sync(con)
    late = shim.connect(shard.path, shard.base, guard="on")
    tries = 0
    while os.path.exists(shard.path + "-shm"):  # a snapshot of ours may have had the file for a moment, and then nobody is the last
        tries += 1
        check(tries < 20, "the other process is never the last")
        plain = Plain(t, shard.path, 2)
        plain.wait()
        con = con or shard.open(create=False)
        chain.last(con)
        con.close()
        con = None
        plain.end()
    with open("/proc/self/maps") as maps:
        check(shard.path + "-shm" not in maps.read(), "a wal-index without a lock is still mapped")
    n = shard.write(late, 3)
    foreign_link(shard.path, 5)
    check_equal(chain.last(late), n + 5, "what another process committed")
    n = shard.write(late, 3)
    late.close()
    check_equal(shard.check_restores("closed", one_generation=False), n, "last link")


@test(*NEEDS)
def killed_right_behind_a_restart(t):
    """The guard restarts the WAL, the other process commits into the new one, we are killed: the generation goes on."""
    shard = Shard(t, sync_interval="20ms", guard="on")
    code = ("import os, sys, time\n"
            "from ljtest import chain, shim\n"
            "con = shim.open_wal(sys.argv[1], sys.argv[2], sync_interval='20ms', guard='on')\n"
            "chain.exists(con) or chain.create(con)\n"
            "print('open', flush=True)\n"
            "sys.stdin.read()\n")
    process = subprocess.Popen([sys.executable, "-c", code, shard.path, shard.base], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, env=dict(os.environ, PYTHONPATH=LIB))
    process.stdout.readline()
    plain = Plain(t, shard.path, 400, payload=12000)
    plain.wait()
    wait_for(lambda: shard.restore_moving("before the restart") == plain.last, "everything shipped", 60, 0.1)
    # from here on restarts are far apart: one that the guard has not heard a commit of ends the generation, if it is killed then
    before = len(shard.replica.newest().indexes())
    more = 0
    while len(shard.replica.newest().indexes()) == before:
        foreign_link(shard.path, 1)
        more += 1
        check(more < 1000, "the WAL is never restarted")
        time.sleep(0.02)
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()
    con = shard.open(create=False, guard="on")
    check_equal(shim.status(con)["last_break"], "", "why a generation was given up")
    n = shard.write(con, 2)
    check_equal(n, plain.last + more + 2, "last link")
    plain.end()
    con.close()
    check_equal(shard.check_restores("closed", snapshots=1, killed=True), n, "last link")


if __name__ == "__main__":
    harness.main("guard")
