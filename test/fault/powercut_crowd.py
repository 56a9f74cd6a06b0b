#!/usr/bin/python3
"""powercut_crowd.py - several processes live on one database below powercut.c: one uploads, others stand by, some are killed.

Argument: a JSON object as of powercut_life.py. All write down what they do in one journal, in the one order in which it happened.
The first process uploads until it is killed; the others take over, one more joins, and perhaps a second one is killed. When
things happen is told by what the processes say, never by time. Marks, beside those of powercut_life.py:

    K NAME      the process was killed
"""

import ctypes
import json
import os
import random
import select
import sqlite3
import subprocess
import sys
import threading

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from powercut_life import Life  # noqa: E402
from ljtest.harness import check, check_equal  # noqa: E402

PATIENCE = 300


class Member(Life):
    """One of the processes. It lives until its stdin is closed, and says a letter for each mark on its stdout."""

    def __init__(self, settings):
        super().__init__(settings)
        self.name = settings["name"]

    def mark(self, *words):
        super().mark(*words)
        os.write(1, words[0].encode())

    def run(self):
        self.open()
        # the first one stays: it uploads until it is killed
        kinds = {self.transactions: 8, self.checkpoint: 2, self.sync: 3, self.snapshot: 0.5,
                 self.reopen: 0 if self.name == "a" else 0.7}
        while not select.select([0], [], [], 0)[0]:
            try:
                self.rng.choices(list(kinds), list(kinds.values()))[0]()
            except sqlite3.OperationalError as error:
                if "locked" not in str(error):
                    raise
        self.con.close()


class Crowd:
    def __init__(self, settings):
        self.settings = settings
        self.rng = random.Random("crowd/%s" % settings["seed"])
        self.heard = {}  # by name: what it said
        self.members = {}
        self.changed = threading.Condition()
        self.library = ctypes.CDLL(None)

    def start(self, name):
        argument = json.dumps(dict(self.settings, name=name, seed="%s/%s" % (self.settings["seed"], name)))
        member = subprocess.Popen([sys.executable, os.path.abspath(__file__), "member", argument],
                                  stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.members[name] = member
        self.heard[name] = ""
        threading.Thread(target=self.listen, args=(name, member), daemon=True).start()
        self.until(lambda: "O" in self.heard[name], name + " to open")

    def listen(self, name, member):
        while True:
            text = os.read(member.stdout.fileno(), 4096).decode()
            with self.changed:
                self.heard[name] += text or "."
                self.changed.notify_all()
            if not text:
                return

    def until(self, condition, what):
        with self.changed:
            check(self.changed.wait_for(lambda: condition() or self.ended(), PATIENCE), "waited in vain for " + what)
            check(condition(), "%s ended while the others waited for %s" % (self.ended(), what))

    def ended(self):
        return [name for name in self.members if self.heard[name].endswith(".")]

    def more(self, letter, count, name):
        """Waits for so many more of a mark from one of them."""
        with self.changed:
            before = self.heard[name].count(letter)
        self.until(lambda: self.heard[name].count(letter) >= before + count, "%d more %s of %s" % (count, letter, name))

    def kill(self, name):
        """Somewhere: as far as the others have got with some commits of theirs."""
        other = self.rng.choice([n for n in self.members if n != name])
        self.more("C", self.rng.randint(1, 6), other)
        member = self.members.pop(name)
        self.library.powercut_kill(member.pid, ("K " + name).encode())
        check_equal(member.wait(), -9, "the end of " + name)

    def run(self):
        self.start("a")
        self.more("C", 3, "a")
        self.start("b")
        if self.rng.random() < 0.7:
            self.start("c")
        self.more("S", 1, "b")  # a has shipped for it
        self.kill("a")
        self.more("S", 2, "b")  # the second one was begun behind the kill: somebody has taken over
        self.start("d")
        self.more("C", 4, "d")
        if self.rng.random() < 0.5:
            self.kill("b")
            self.more("S", 2, "d")
        for member in self.members.values():
            member.stdin.close()
        for name, member in self.members.items():
            check_equal(member.wait(PATIENCE), 0, "the end of " + name)
        self.library.powercut_mark(b"end")


if __name__ == "__main__":
    if sys.argv[1] == "member":
        Member(json.loads(sys.argv[2])).run()
    else:
        Crowd(json.loads(sys.argv[1])).run()
