#!/usr/bin/python3
"""writer.py - a process that writes through the shim and tells what it did, to be killed at any moment.

Argument: a JSON object (see DEFAULTS). One line per event on stdout, written at once, so that what the reader of the
pipe has seen did happen before the kill:

    R n GENERATION   open; the database ends with link n ("-": replication has not started yet)
    B n              about to COMMIT link n
    C n              COMMIT of link n returned
    S n POSITION     litejoin_sync returned, begun after link n was committed
    N                litejoin_sync failed: another process ships
    X                about to close
    Z                closed
"""

import json
import os
import random
import sqlite3
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from ljtest import chain, ledger, shim  # noqa: E402

DEFAULTS = {
    "db": "", "replica": "", "seed": 0,
    "synchronous": "NORMAL",
    "exclusive": False,       # locking_mode=EXCLUSIVE from the first access on: no shared memory at all
    "connections": 1,         # threads, each with a connection of its own
    "autocheckpoint": 1000,
    "journal_size_limit": -1,
    "cache_size": 0,          # 5: big transactions spill
    "payload": [0, 300],      # bytes per link
    "big": 0.0,               # share of transactions with hundreds of rows, half of them rolled back
    "checkpoint": 0.02,       # share of transactions followed by an explicit checkpoint
    "sync": 0.05,             # share of transactions followed by litejoin_sync
    "transactions": 0,        # end by closing after so many; 0 = go on until killed
    "page_size": 4096,
    "ledger": False,          # ledger.py in the place of chain.py: many tables; `big` and `payload` mean nothing
    "checkpointer": False,    # one more thread and connection that checkpoints in every mode, all the time
    "snapshots": 0.0,         # share of transactions followed by litejoin_snapshot
    "ballast_bytes": 0,       # size of the database from the begin
    "options": {},            # of the URI
}


def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


class Writer:
    def __init__(self, settings):
        self.settings = settings
        self.book = ledger if settings["ledger"] else chain
        self.lock = threading.Lock()  # guards last
        self.last = 0

    def connect(self):
        s = self.settings
        pragmas = ["synchronous=" + s["synchronous"], "wal_autocheckpoint=%d" % s["autocheckpoint"],
                   "journal_size_limit=%d" % s["journal_size_limit"]]
        if s["cache_size"]:
            pragmas.append("cache_size=%d" % s["cache_size"])
        con = shim.connect(s["db"], s["replica"], pragmas=["page_size=%d" % s["page_size"]] +
                           (["auto_vacuum=INCREMENTAL"] if s["ledger"] else []) +
                           (["locking_mode=EXCLUSIVE"] if s["exclusive"] else []), **s["options"])
        con.execute("PRAGMA journal_mode=WAL").fetchall()
        for pragma in pragmas:
            con.execute("PRAGMA " + pragma).fetchall()
        return con

    def write(self, con, number):
        s = self.settings
        rng = random.Random("%s/%d" % (s["seed"], number))
        book = ledger.Writer(con, rng, "w%d" % number, rollback_to=ledger.rolls_back_to(s["exclusive"])) if s["ledger"] else None
        count = 0
        while not s["transactions"] or count < s["transactions"]:
            count += 1
            try:
                if book is not None:
                    book.transaction(lambda n: self.commit(con, n))
                else:
                    self.one(con, rng, number)
            except sqlite3.OperationalError as error:
                if "locked" not in str(error):
                    raise
                continue
            if rng.random() < s["checkpoint"]:
                con.execute("PRAGMA wal_checkpoint(%s)" %
                            rng.choice(("PASSIVE", "FULL", "RESTART", "TRUNCATE"))).fetchall()
            if rng.random() < s["sync"]:
                self.sync(con)
            if s["snapshots"] and rng.random() < s["snapshots"]:
                shim.snapshot(con, "5m")
            if rng.random() < 0.01:
                time.sleep(0.03)

    def sync(self, con):
        with self.lock:
            covered = self.last
        try:
            say("S", covered, shim.sync(con))
        except sqlite3.OperationalError as error:
            if "not replicating" not in str(error):
                raise
            say("N")

    def commit(self, con, n):
        say("B", n)
        con.execute("COMMIT")
        say("C", n)
        with self.lock:
            self.last = max(self.last, n)

    def one(self, con, rng, number):
        s = self.settings
        big = rng.random() < s["big"]
        con.execute("BEGIN IMMEDIATE")
        try:
            if big:
                con.executemany("INSERT INTO bulk VALUES(?, ?)",
                                [(rng.randint(0, 9), rng.randbytes(400)) for _ in range(rng.randint(50, 300))])
                con.execute("DELETE FROM bulk WHERE a = ?", (rng.randint(0, 9),))
            n = chain.extend(con, rng, "w%d" % number, tuple(s["payload"]))
            if big and rng.random() < 0.5:
                con.execute("ROLLBACK")
                return
            self.commit(con, n)
        except sqlite3.Error:
            if con.in_transaction:
                con.execute("ROLLBACK")
            raise

    def run(self):
        con = self.connect()
        if not self.book.exists(con):
            self.book.create(con)
            con.execute("CREATE TABLE bulk(a INTEGER, b BLOB)")
            for _ in range(self.settings["ballast_bytes"] // 1000000):
                con.execute("INSERT INTO bulk VALUES(-1, randomblob(1000000))")
        self.last = self.book.verify(con, "database at open")
        say("R", self.last, shim.status(con)["generation"] or "-")
        if self.settings["checkpointer"]:
            threading.Thread(target=self.checkpoints, daemon=True).start()
        threads = [threading.Thread(target=self.thread, args=(i,), daemon=True)
                   for i in range(1, self.settings["connections"])]
        for thread in threads:
            thread.start()
        self.write(con, 0)
        for thread in threads:
            thread.join()
        say("X")
        con.close()
        say("Z")

    def checkpoints(self):
        """Until the process is killed."""
        try:
            con = self.connect()
            rng = random.Random("checkpoints/%s" % self.settings["seed"])
            while True:
                con.execute("PRAGMA wal_checkpoint(%s)" %
                            rng.choice(("PASSIVE", "FULL", "RESTART", "TRUNCATE"))).fetchall()
                time.sleep(rng.random() * 0.01)
        except Exception as error:
            print("checkpoints: %s" % error, file=sys.stderr, flush=True)
            os._exit(3)

    def thread(self, number):
        try:
            con = self.connect()
            self.write(con, number)
            con.close()
        except Exception as error:
            print("thread %d: %s" % (number, error), file=sys.stderr, flush=True)
            os._exit(3)


if __name__ == "__main__":
    merged = dict(DEFAULTS)
    given = json.loads(sys.argv[1])
    unknown = set(given) - set(DEFAULTS)
    if unknown:
        sys.exit("unknown settings: %s" % unknown)
    merged.update(given)
    Writer(merged).run()
