#!/usr/bin/python3
"""stepper.py - a process that does what its script says to one database, tells each step, and kills itself at the end.

Arguments: database, replica folder, 1 for exclusive locking, the script (words), max_wal_size. Below killat.c it may die
before. On stdout, at once:

    C n      link n was committed
    S n      litejoin_sync returned
    done STEP, and `end` before it kills itself
"""

import ctypes
import os
import random
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from ljtest import chain, shim  # noqa: E402


def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


class Stepper:
    def __init__(self, path, base, exclusive, limit):
        self.con = shim.connect(path, base, sync_interval="1h", max_wal_size=limit)
        if exclusive:
            self.con.execute("PRAGMA locking_mode=EXCLUSIVE").fetchall()
        self.con.execute("PRAGMA journal_mode=WAL").fetchall()
        self.con.execute("PRAGMA synchronous=NORMAL").fetchall()
        if not chain.exists(self.con):
            chain.create(self.con)
        self.rng = random.Random(4)
        self.n = chain.last(self.con)

    def step(self, step):
        con = self.con
        if step == "commit":
            self.n = chain.commit_one(con, self.rng)
            say("C", self.n)
        elif step == "spill":
            con.execute("PRAGMA cache_size=5").fetchall()
            con.execute("BEGIN")
            con.execute("CREATE TABLE IF NOT EXISTS bulk(a, b)")
            con.executemany("INSERT INTO bulk VALUES(1, randomblob(900))", [()] * 60)
        elif step == "rollback":
            con.execute("ROLLBACK")
        elif step == "sync":
            shim.sync(con, "60s")
            say("S", self.n)
        elif step == "snapshot":
            shim.snapshot(con, "60s")
        elif step == "close":
            con.close()
        elif step == "arm":
            ctypes.CDLL(None).killat_arm()
        else:
            con.execute("PRAGMA wal_checkpoint(%s)" % step).fetchall()
        say("done", step)


def main(path, base, exclusive, steps, limit):
    shim.load()
    os.environ["LJ_KILL_DIR"] = os.environ.get("KILL_DIR", "")
    os.environ["LJ_KILL_AT"] = os.environ.get("KILL_AT", "0")
    stepper = Stepper(path, base, int(exclusive), limit)
    for step in steps.split():
        stepper.step(step)
    say("end")
    os.kill(os.getpid(), 9)


if __name__ == "__main__":
    main(*sys.argv[1:6])
