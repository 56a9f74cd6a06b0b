#!/usr/bin/python3
"""peer.py - a process that has a database open through the shim and does what it is told, one line of JSON per command.

As a program: arguments are the database, the replica and a JSON object of URI options. Each command on stdin is a list [NAME,
ARGUMENT...], each answer on stdout one JSON value: [true, RESULT] or [false, ERROR]. As a module: Peer, the other end of the pipes.
"""

import json
import os
import random
import sqlite3
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from ljtest import chain, shim  # noqa: E402
from ljtest.harness import Failure, check, wait_for  # noqa: E402
from ljtest.stopping import SIGCONT, byte_is_locked, stop  # noqa: E402

PAGE_BYTE = 0  # of the lock file: vfs/capture/seat.c


class Commands:
    """What a peer can do; each method is a command."""

    def __init__(self, path, base, options):
        self.path, self.base, self.options = path, base, options
        self.pragmas = options.pop("pragmas", [])
        self.con = None
        self.impatient = None
        self.rng = random.Random("%d" % os.getpid())
        self.writer = None
        self.stop_writer = threading.Event()
        self.committed = 0
        self.errors = []

    def open(self):
        self.con = shim.connect(self.path, self.base, **self.options)
        self.con.execute("PRAGMA journal_mode=WAL").fetchall()
        for pragma in ["synchronous=NORMAL", *self.pragmas]:
            self.con.execute("PRAGMA " + pragma).fetchall()
        chain.exists(self.con)

    def connect(self):
        """Opened, and nothing read of it."""
        self.con = shim.connect(self.path, self.base, **self.options)

    def create(self):
        if not chain.exists(self.con):
            chain.create(self.con)

    def write(self, count=1):
        n = 0
        for _ in range(count):
            n = chain.commit_one(self.con, self.rng, "p%d" % os.getpid())
        return n

    def write_and_die(self):
        """Ends with the COMMIT: nothing in the background of this process gets to run any more."""
        chain.commit_one(self.con, self.rng, "p%d" % os.getpid())
        os._exit(0)

    def last(self):
        return chain.last(self.con)

    def sql(self, statement):
        return [list(row) for row in self.con.execute(statement).fetchall()]

    def hasty(self, statement, timeout):
        """sql() in a connection of its own that waits so long for the replica; the other one's patience is a slow machine's."""
        if self.impatient is None:
            self.impatient = shim.connect(self.path, self.base, pragmas=["synchronous=NORMAL", *self.pragmas],
                                          **dict(self.options, remote_timeout=timeout))
        return [list(row) for row in self.impatient.execute(statement).fetchall()]

    def sync(self, timeout="60s"):
        return shim.sync(self.con, timeout).text

    def snapshot(self, timeout="60s"):
        shim.snapshot(self.con, timeout)

    def status(self):
        return shim.status(self.con)

    def last_error(self):
        return shim.last_error()

    def start(self, checkpoint=0.0, pause=0.0):
        """Writes in a thread of its own until stop()."""
        self.stop_writer.clear()
        self.writer = threading.Thread(target=self._go_on, args=(checkpoint, pause))
        self.writer.start()

    def _go_on(self, checkpoint, pause):
        con = shim.connect(self.path, self.base, pragmas=["synchronous=NORMAL", *self.pragmas], **self.options)
        try:
            while not self.stop_writer.is_set():
                try:
                    chain.commit_one(con, self.rng, "p%d" % os.getpid())
                    self.committed += 1
                    if self.rng.random() < checkpoint:
                        con.execute("PRAGMA wal_checkpoint(%s)" %
                                    self.rng.choice(("PASSIVE", "FULL", "RESTART", "TRUNCATE"))).fetchall()
                except sqlite3.OperationalError as error:
                    if "locked" not in str(error):
                        raise
                time.sleep(pause)
        except Exception as error:
            self.errors.append(str(error))
        con.close()

    def count(self):
        return self.committed

    def stop(self):
        """(commits, errors) of the thread."""
        self.stop_writer.set()
        self.writer.join()
        return self.committed, self.errors

    def wakeups(self):
        """Voluntary and involuntary switches of all threads but this one."""
        total = 0
        for task in os.listdir("/proc/self/task"):
            if int(task) != threading.get_native_id():
                with open("/proc/self/task/%s/status" % task) as file:
                    total += sum(int(line.split()[1]) for line in file if "ctxt_switches" in line)
        return total

    def timing(self, count):
        """Seconds per commit of one small row: the median of so many."""
        self.con.execute("CREATE TABLE IF NOT EXISTS small(a, b)")
        taken = []
        for i in range(count):
            start = time.perf_counter()
            self.con.execute("INSERT INTO small VALUES(?, zeroblob(100))", (i,))
            taken.append(time.perf_counter() - start)
        return sorted(taken)[count // 2]

    def fork(self, count):
        """A child that writes through a connection of its own, and ends without closing what it inherited. Its exit status."""
        child = os.fork()
        if child:
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        try:
            self.open()
            self.write(count)
            shim.sync(self.con, "30s")
            state = shim.status(self.con)["state"]
            self.con.close()
            os._exit(0 if state == "standby" else 3)
        except BaseException as error:
            print("# child: %r" % error, file=sys.stderr, flush=True)
            os._exit(1)

    def arm(self, folder, at):
        """From here on it dies before the at-th call that changes a file below the folder (crash/killat.c has to be preloaded)."""
        os.environ["LJ_KILL_DIR"] = folder
        os.environ["LJ_KILL_AT"] = str(at)

    def end_hasty(self):
        if self.impatient is not None:
            self.impatient.close()
        self.impatient = None

    def close(self):
        self.end_hasty()
        self.con.close()
        self.con = None


def main():
    shim.load()
    commands = Commands(sys.argv[1], sys.argv[2] or None, json.loads(sys.argv[3]))
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        try:
            answer = [True, getattr(commands, name)(*arguments)]
        except Exception as error:
            answer = [False, "%s: %s" % (type(error).__name__, error)]
        print(json.dumps(answer), flush=True)


class Peer:
    """A peer process of a Shard. A method call is a command: peer.write(3); ask() and answer() are its two halves."""

    def __init__(self, shard, opened=True, base=None, env=None, **options):
        environment = dict(os.environ)
        environment.update(env or {})
        self.process = subprocess.Popen(
            [sys.executable, os.path.abspath(__file__), shard.path, base or shard.base,
             json.dumps(dict(shard.options, **options))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True)
        self.pid = self.process.pid
        self.lock_path = os.path.join(os.path.dirname(shard.path), ".%s-litejoin" % os.path.basename(shard.path), "lock")
        if opened:
            self.open()
            self.create()

    def ask(self, name, *arguments):
        self.process.stdin.write(json.dumps([name, *arguments]) + "\n")
        self.process.stdin.flush()

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise Failure("process %d ended with status %s" % (self.pid, self.process.wait()))
        good, result = json.loads(line)
        if not good:
            raise Failure("process %d: %s" % (self.pid, result))
        return result

    def __getattr__(self, name):
        def call(*arguments):
            self.ask(name, *arguments)
            return self.answer()
        return call

    def signal(self, number):
        self.process.send_signal(number)

    def halt(self):
        """SIGSTOP, at a moment when it does not hold the lock of the shared page: that may cost the generation (vfs/DESIGN.md)."""
        wait_for(self._halted_apart, "process %d stops outside of the shared page" % self.pid, 30, 0.002)

    def _halted_apart(self):
        stop(self.pid)
        if not byte_is_locked(self.lock_path, PAGE_BYTE):
            return True
        self.signal(SIGCONT)
        return False

    def kill(self):
        self.process.kill()
        self.process.wait()

    def end(self):
        """Lets it end by itself, without closing what is open."""
        self.process.stdin.close()
        check(self.process.wait(300) == 0, "process %d ended with status %s" % (self.pid, self.process.returncode))


def uploader_of(peers):
    """(the peer that uploads, the others), as their statuses say."""
    pid = peers[0].status()["uploader"]
    found = [peer for peer in peers if peer.pid == pid]
    check(len(found) == 1, "uploader %d is none of %s" % (pid, [peer.pid for peer in peers]))
    return found[0], [peer for peer in peers if peer is not found[0]]


def wait_taken_over(peers, before, seconds=60):
    """Waits until one of `peers` uploads instead of process `before`. (seconds it took, the new one)"""
    start = time.monotonic()
    state = {}

    def taken():
        state.update(peers[0].status())
        return state["uploader"] in [peer.pid for peer in peers] and state["generation"]

    wait_for(taken, lambda: "somebody takes over from %d: %s" % (before, state), seconds, 0.001)
    return time.monotonic() - start, uploader_of(peers)[0]


if __name__ == "__main__":
    main()
