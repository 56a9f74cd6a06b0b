#!/usr/bin/python3
"""powercut_life.py - a process that does everything to one database below powercut.c's journal, and marks in it what it knows.

Argument: a JSON object: root (with the empty folders data/ and replica/), aside (a file elsewhere), seed, steps, synchronous, exclusive, options,
mean ("how many commits between other things"). Marks, each at its place among the changes:

    B g     about to COMMIT link g
    C g     COMMIT of link g returned
    S g POSITION NAME   litejoin_sync of this process, begun after link g, returned
    O g     opened, at link g
    X       the disk is lost: what was committed and not synced may be gone
"""

import ctypes
import json
import os
import random
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from ljtest import ledger, shim  # noqa: E402


def sync_path(path):
    handle = os.open(path, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)


class Life:
    name = "life"

    def __init__(self, settings):
        self.settings = settings
        self.rng = random.Random("life/%s" % settings["seed"])
        self.mark_text = ctypes.CDLL(None).powercut_mark
        self.data = os.path.join(settings["root"], "data")
        self.db = os.path.join(self.data, "shard_0.db")
        self.con = None

    def mark(self, *words):
        self.mark_text(" ".join(map(str, words)).encode())

    def open(self):
        s = self.settings
        first = ["page_size=1024", "auto_vacuum=INCREMENTAL"] + (["locking_mode=EXCLUSIVE"] if s["exclusive"] else [])
        self.con = shim.connect(self.db, os.path.join(s["root"], "replica"), pragmas=first, busy=120, **s["options"])
        self.con.execute("PRAGMA journal_mode=WAL").fetchall()
        cache_pages = self.rng.choice((5, 2000))
        for pragma in ("synchronous=" + s["synchronous"], "cache_size=%d" % cache_pages,
                       "wal_autocheckpoint=%d" % self.rng.choice((0, 20, 1000)),
                       "journal_size_limit=%d" % self.rng.choice((-1, 0))):
            self.con.execute("PRAGMA " + pragma).fetchall()
        if not ledger.exists(self.con):
            ledger.create(self.con)
        self.last = ledger.last(self.con)
        self.mark("O", self.last)
        self.writer = ledger.Writer(self.con, self.rng, self.name, rollback_to=True, blob_bytes=(2000, 9000))

    def commit(self, g):
        self.mark("B", g)
        self.con.execute("COMMIT")
        self.last = g
        self.mark("C", g)

    def transactions(self):
        for _ in range(self.rng.randint(1, self.settings["mean"])):
            self.writer.transaction(self.commit)

    def checkpoint(self):
        self.con.execute("PRAGMA wal_checkpoint(%s)" %
                         self.rng.choice(("PASSIVE", "FULL", "RESTART", "TRUNCATE"))).fetchall()

    def sync(self):
        g = ledger.last(self.con)
        self.mark("S", g, shim.sync(self.con, "120s"), self.name)

    def snapshot(self):
        shim.snapshot(self.con, "120s")

    def reopen(self):
        self.con.close()
        self.open()

    def lose(self):
        """The disk is replaced: the next open restores."""
        self.sync()
        self.con.close()
        self.mark("X")
        shutil.rmtree(self.data)
        os.mkdir(self.data)
        sync_path(self.settings["root"])  # the new disk is mounted
        self.open()

    def lose_all_but_the_wal(self):
        """Only the database is gone; a WAL with an old state of it lies there still."""
        self.transactions()
        if os.path.exists(self.db + "-wal"):
            subprocess.run(["cp", self.db + "-wal", self.settings["aside"]], check=True)
        self.transactions()
        self.sync()
        self.con.close()
        self.mark("X")
        os.unlink(self.db)
        sync_path(self.data)  # or a cut would find the old WAL beside the database that was not lost, which nobody can survive
        if os.path.exists(self.settings["aside"]):
            with open(self.settings["aside"], "rb") as source, open(self.db + "-wal", "wb") as target:
                target.write(source.read())  # not by sendfile, which powercut.c does not see
            sync_path(self.db + "-wal")
        sync_path(self.data)
        self.open()

    def run(self):
        self.open()
        kinds = {self.transactions: 8, self.checkpoint: 3, self.sync: 2, self.snapshot: 1, self.reopen: 1,
                 self.lose: self.settings["losses"], self.lose_all_but_the_wal: self.settings["losses"]}
        for _ in range(self.settings["steps"]):
            self.rng.choices(list(kinds), list(kinds.values()))[0]()
        self.con.close()
        self.mark("end")


if __name__ == "__main__":
    Life(json.loads(sys.argv[1])).run()
