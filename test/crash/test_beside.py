#!/usr/bin/python3
"""test_beside.py - random schedules of everybody who may use a database: several connections here, a second process with this VFS that is
killed now and then, and a program without it, which is killed too.

One of them does one thing at a time (a write, a rollback that spills, a checkpoint, a change of the locking mode, an open, a close),
so each schedule can be repeated by its seed. Now and then litejoin_sync is asked here; when it says OK, what the replica restores to is
what this process reads.
"""
# timeout: 600

import json
import os
import random
import sqlite3
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from ljtest import harness, pages, shim  # noqa: E402
from ljtest.harness import LONG, check, check_equal, test  # noqa: E402
from ljtest.replica import Replica  # noqa: E402

LIB = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib")
SCHEDULES = 60 if LONG else 4
STEPS = 120
OURS, THEIRS = ("s0", "s1"), ("p0", "p1")

# Does what stands in each line; opens by the words of its first argument.
PROGRAM = """
import json, sqlite3, sys
from ljtest import shim
path, base, options = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
con = None
for line in sys.stdin:
    try:
        if line == "open\\n":
            con = shim.connect(path, base, **options) if base else sqlite3.connect(path, isolation_level=None, timeout=0.2)
        elif line == "close\\n":
            con = con.close()
        else:
            con.execute(line).fetchall()
        print("ok", flush=True)
    except sqlite3.Error as err:
        print("error: %s" % err, flush=True)
"""


class Program:
    """A process that does one thing at a time and may be killed. Without `base` it does not know this VFS."""

    def __init__(self, path, base="", **options):
        self.arguments = [path, base, json.dumps(options)]
        self.is_open = False
        self.start()

    def start(self):
        self.process = subprocess.Popen([sys.executable, "-c", PROGRAM, *self.arguments], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True, env=dict(os.environ, PYTHONPATH=LIB))

    def do(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline().strip()
        check(answer, "it ended by itself at: " + line)
        self.is_open = line != "close" and (self.is_open or (line == "open" and answer == "ok"))
        return answer

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()
        self.is_open = False


class Schedule:
    def __init__(self, t, number, with_peer):
        self.rng = random.Random("%s/%d/%d" % (t.seed, number, with_peer))
        folder = t.folder("%d-%d" % (number, with_peer))
        self.data = os.path.join(folder, "data")
        os.mkdir(self.data)
        self.path, self.base = os.path.join(self.data, "x.db"), os.path.join(folder, "replica")
        self.out = os.path.join(folder, "out.db")
        self.options = {"sync_interval": self.rng.choice(("1ms", "50ms", "1h")), "busy": 0.2, "shutdown_timeout": "2s"}
        if self.rng.random() < 0.2:
            self.options["guard"] = "on"
        self.with_peer = with_peer
        self.value = 0
        self.checked = 0
        self.log = []
        con = shim.open_wal(self.path, self.base, pragmas=("wal_autocheckpoint=0",), **self.options)
        for table in OURS + THEIRS:
            con.execute("CREATE TABLE %s(v, b)" % table)
        self.connections = {0: con}
        self.plain = Program(self.path)
        self.peer = Program(self.path, self.base, **self.options) if with_peer else None

    def end(self):
        for con in self.connections.values():
            try:
                con.close()
            except sqlite3.Error:
                pass
        for program in (self.plain, self.peer):
            if program:
                program.kill()

    def insert(self, tables, most):
        self.value += 1
        return "INSERT INTO %s VALUES(%d, randomblob(%d))" % (self.rng.choice(tables), self.value, self.rng.choice((10, most)))

    def statement(self, tables):
        """One that anybody may run; with the weights that have found most."""
        kind = self.rng.choices(("insert", "checkpoint", "read", "mode", "delete", "snapshot"), (50, 15, 10, 6, 3, 3))[0]
        if kind == "insert":
            return self.insert(tables, 5000)
        if kind == "checkpoint":
            return "PRAGMA wal_checkpoint(%s)" % self.rng.choice(("PASSIVE", "FULL", "RESTART", "TRUNCATE", "TRUNCATE"))
        if kind == "mode":
            return "PRAGMA locking_mode=%s" % self.rng.choice(("EXCLUSIVE", "NORMAL", "NORMAL"))
        if kind == "delete":
            return "DELETE FROM %s WHERE v %% 3 = 0" % self.rng.choice(tables)
        if kind == "snapshot" and tables is OURS:
            return "PRAGMA litejoin_snapshot='1s'"
        return "SELECT count(*) FROM " + tables[0]

    def step_program(self, program, name, tables):
        if not program.is_open:
            return self.note(name, "open", program.do("open"))
        chance = self.rng.random()
        if chance < 0.05:
            program.kill()
            program.start()
            return self.note(name, "killed")
        if chance < 0.15:
            return self.note(name, "close", program.do("close"))
        if chance < 0.20:
            for line in ("PRAGMA cache_size=2", "BEGIN", "INSERT INTO %s VALUES(1, randomblob(60000))" % tables[1], "ROLLBACK"):
                self.note(name, line, program.do(line))
            return None
        line = self.statement(tables)
        return self.note(name, line, program.do(line))

    def step_here(self):
        if not self.connections or (len(self.connections) < 3 and self.rng.random() < 0.15):
            number = self.value = self.value + 1
            con = self.attempt("open %d" % number, lambda: shim.connect(self.path, self.base, **self.options))
            if con is not None:
                self.connections[number] = con
                self.attempt("autocheckpoint", lambda: con.execute("PRAGMA wal_autocheckpoint=%d" % self.rng.choice((0, 0, 10))))
            return
        number = self.rng.choice(sorted(self.connections))
        con = self.connections[number]
        if self.rng.random() < 0.1:
            self.attempt("close %d" % number, con.close)
            del self.connections[number]
            return
        line = self.statement(OURS)
        self.attempt("%d: %s" % (number, line), lambda: con.execute(line).fetchall())

    def attempt(self, what, action):
        try:
            result = action()
            self.note("here", what)
            return result
        except sqlite3.Error as err:
            self.note("here", what, err)
            return None

    def note(self, *words):
        self.log.append(" ".join(map(str, words)))

    @staticmethod
    def content(con):
        return [con.execute("SELECT count(*), coalesce(sum(v), 0), coalesce(sum(length(b)), 0) FROM " + table).fetchone()
                for table in OURS + THEIRS]

    def compare(self):
        """Nobody else does anything meanwhile. A lock of somebody's may be in the way of reading or of shipping."""
        if not self.connections:
            return
        con = self.connections[self.rng.choice(sorted(self.connections))]
        try:
            here = self.content(con)
            if shim.status(con)["state"].startswith("not replicating"):
                return
            shim.sync(con, "5s")
            if self.content(con) != here:
                return
        except sqlite3.Error as err:
            self.note("here", "sync", err)
            return
        self.note("here", "sync")
        for ending in ("", "-wal", "-shm"):
            if os.path.exists(self.out + ending):
                os.unlink(self.out + ending)
        Replica(os.path.join(self.base, "x")).restore(self.out)
        pages.check_integrity(self.out, "restored")
        restored = shim.plain(self.out)
        check_equal(self.content(restored), here, "rows, sums and sizes in the replica behind a sync that said OK")
        restored.close()
        self.checked += 1

    def run(self):
        for _ in range(STEPS):
            chance = self.rng.random()
            if chance < 0.4:
                self.step_program(self.plain, "plain", THEIRS)
            elif chance < 0.6 and self.peer:
                self.step_program(self.peer, "peer", OURS)
            elif chance < 0.87:
                self.step_here()
            else:
                self.compare()


def schedules(t, with_peer):
    checked = 0
    for number in range(SCHEDULES):
        schedule = Schedule(t, number, with_peer)
        try:
            schedule.run()
        except BaseException:
            t.note("schedule %d, its last steps:" % number)
            for line in schedule.log[-40:]:
                t.note(line)
            raise
        finally:
            schedule.end()
        checked += schedule.checked
    t.note("%d schedules of %d steps, %d states compared" % (SCHEDULES, STEPS, checked))
    check(checked > SCHEDULES, "hardly anything was compared")


@test("shim", "load_extension", timeout=180)
def a_plain_program(t):
    schedules(t, False)


@test("shim", "load_extension", timeout=240)
def a_plain_program_and_another_process(t):
    schedules(t, True)


if __name__ == "__main__":
    harness.main("beside")
