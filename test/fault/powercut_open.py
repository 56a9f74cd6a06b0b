#!/usr/bin/python3
"""powercut_open.py - opens the databases that power cuts have left, goes on with them, and checks what comes of it.

Argument: a folder with one folder per cut: data/, replica/ and cut.json (see test_powercut.py: Cut). Runs below powercut.c, which
gives the database file the identity it had. Prints one JSON line per cut: {"cut", "wrong" (or null), what was found}.
"""

import ctypes
import hashlib
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import traceback

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from ljtest import cli, ledger, pages, shim  # noqa: E402
from ljtest.harness import Failure, check, check_equal  # noqa: E402
from ljtest.replica import Replica  # noqa: E402


def remember(path, identity):
    """From now on stat() of the file says what it said before the cut."""
    call = ctypes.CDLL(None).powercut_identity
    call.argtypes = [ctypes.c_char_p, ctypes.c_uint64, ctypes.c_int64, ctypes.c_int64]
    call.restype = None
    call(None, 0, 0, 0)
    if identity is not None:
        call(path.encode(), *identity)


def contents(replica):
    """{generation: {object: hash}}"""
    found = {}
    for generation in replica.generations():
        found[generation.name] = {o.name: hashlib.sha256(o.frame()).hexdigest()
                                  for o in generation.snapshots + generation.segments}
    return found


class Patient:
    """One folder that a cut has left."""

    def __init__(self, folder):
        with open(os.path.join(folder, "cut.json")) as file:
            self.cut = json.load(file)
        self.folder = folder
        self.db = os.path.join(folder, "data", "shard_0.db")
        self.base = os.path.join(folder, "replica")
        self.replica = Replica(os.path.join(self.base, "shard_0"))
        self.found = dict(replica=None, local=None, opened=None, new=False)

    def path(self, name):
        return os.path.join(self.folder, name)

    def check_form(self):
        """Deletions that a cut undid in any order leave holes, but only in what was to go."""
        self.replica.check(leftovers_ok=True, from_newest_snapshot="retention" in self.cut["options"])

    def restored(self, name, what):
        """The replica as the independent reader restores it: (path, last link)."""
        out = self.path(name)
        self.replica.restore(out)
        return out, ledger.verify_file(out, what)

    def look_at_replica(self):
        """Before anybody opens the database: the replica is whole, and has what was acknowledged. Its last link, or None."""
        cut = self.cut
        if not any(g.snapshots for g in self.replica.generations()):
            check_equal(cut["synced"], 0, "nothing to restore, but litejoin_sync had returned for link")
            return None
        self.check_form()
        out, g = self.restored("before.db", "replica after the cut")
        pages.check_integrity(out, "replica after the cut")
        check(cut["synced"] <= g <= cut["begun"], "the replica restores to link %d; %d were synced, %d begun" %
              (g, cut["synced"], cut["begun"]))
        for position in cut["positions"]:
            self.check_contained(shim.Position(position))
        return g

    def check_contained(self, at):
        """What litejoin_sync answered is in the replica: the segment that ends there, or a later one, or a snapshot."""
        ends = [(o.index, o.offset + len(o.data())) for o in self.replica.generation(at.generation).segments
                if o.index >= at.index]
        later = [o for o in self.replica.generation(at.generation).snapshots if o.index >= at.index]
        check(any(end >= (at.index, at.offset) for end in ends) or later or at.offset == 0,
              "position %r is not in the replica" % at)

    def look_at_database(self):
        """What SQLite alone makes of the database: its last link, or None when the file is missing or empty."""
        if not os.path.exists(self.db) or not os.path.getsize(self.db):
            return None
        copy = self.path("alone.db")
        for tail in ("", "-wal", "-journal"):
            if os.path.exists(self.db + tail):
                shutil.copyfile(self.db + tail, copy + tail)
        g = ledger.verify_file(copy, "database after the cut")
        pages.check_integrity(copy, "database after the cut")
        check(g <= self.cut["begun"], "the database ends with link %d of %d begun" % (g, self.cut["begun"]))
        if self.cut["synchronous"] in ("FULL", "EXTRA"):
            check(g >= self.cut["committed"], "synchronous=%s: COMMIT had returned for link %d, the database ends with %d" %
                  (self.cut["synchronous"], self.cut["committed"], g))
        return g

    def go_on(self, local, rng):
        """Opens with the shim, writes, ships, closes; the last link."""
        remember(self.db, self.cut["identity"] if os.path.exists(self.db) else None)
        first = ["locking_mode=EXCLUSIVE"] if self.cut["exclusive"] else []
        con = shim.connect(self.db, self.base, pragmas=["page_size=1024", "auto_vacuum=INCREMENTAL"] + first,
                           **dict(self.cut["options"], sync_interval="5ms", snapshot_interval="0", retention="0"))
        check_equal(con.execute("PRAGMA journal_mode=WAL").fetchone()[0], "wal", "journal_mode")
        opened = ledger.verify(con, "database opened by the shim")
        if local is not None:
            check_equal(opened, local, "last link that the shim opens")
        else:
            check(opened >= self.cut["synced"], "restored on open to link %d of %d synced" %
                  (opened, self.cut["synced"]))
        if not ledger.exists(con):
            ledger.create(con)
        writer = ledger.Writer(con, rng, "after the cut", rollback_to=ledger.rolls_back_to(self.cut["exclusive"]),
                               blob_bytes=(1000, 4000))
        for _ in range(rng.randint(1, 4)):
            writer.transaction()
            if rng.random() < 0.15:
                con.execute("PRAGMA wal_checkpoint(%s)" % rng.choice(("PASSIVE", "RESTART", "TRUNCATE"))).fetchall()
        at = shim.sync(con, "60s")
        self.found["status"] = shim.status(con)["state"]
        con.close()
        self.check_contained(at)
        return opened, at

    def check_generations(self, before, replica_link, opened, at):
        """Whatever of a generation was there is untouched; it was continued only where nothing in it was ahead."""
        after = contents(self.replica)
        for name, objects in before.items():
            for key, digest in objects.items():
                check_equal(after.get(name, {}).get(key), digest, "object %s/%s" % (name, key))
            added = sorted(set(after[name]) - set(objects))
            if added and name != at.generation:
                self.check_left(name, added, replica_link)
        self.found["new"] = at.generation not in before
        if replica_link is not None and replica_link > opened:
            check(self.found["new"], "the replica was ahead (link %d, here %d), and its generation goes on" %
                  (replica_link, opened))

    def check_left(self, name, added, replica_link):
        """A generation went on for a while (what was whole in the spool) before it was left: still a prefix that was."""
        out = self.path("left.db")
        self.replica.restore(out, generation=name)
        g = ledger.verify_file(out, "generation %s, left after %s" % (name, added))
        check((replica_link or 0) <= g <= self.cut["begun"], "generation %s went on to link %d with %s; it had %s, and %d "
              "were begun before the cut" % (name, g, added, replica_link, self.cut["begun"]))

    def check(self):
        cut = self.cut
        rng = random.Random(cut["seed"])
        replica_link = self.look_at_replica()
        if cut["synchronous"] == "OFF":
            # SQLite promises nothing about the database itself
            if replica_link is not None:
                cli.check_restorers(self.replica.root, self.path("before.db"), "after the cut")
            return
        before = contents(self.replica)
        local = self.look_at_database()
        if cut["fsync_before_ship"] and local is not None and replica_link is not None:
            check(replica_link <= local, "fsync_before_ship, but the replica has link %d and the disk %d" %
                  (replica_link, local))
        opened, at = self.go_on(local, rng)
        self.found.update(replica=replica_link, local=local, opened=opened)
        self.check_generations(before, replica_link, opened, at)
        self.check_form()
        out, _ = self.restored("after.db", "replica, at the end")
        pages.check_same(out, self.db, "replica against the database, at the end")
        pages.check_integrity(self.db, "database, at the end")
        self.by_tools(before, at, out)

    def by_tools(self, before, at, newest):
        """The real restorers agree, on the new state and on the generation before it: what the cut left of it, and what the spool had for it."""
        cli.check_restorers(self.replica.root, newest, "at the end")
        if before and at.generation not in before:
            name = sorted(before, key=lambda n: self.replica.generation(n).updated_ns())[-1]
            old = self.path("old.db")
            self.replica.restore(old, generation=name)
            cli.check_restorers(self.replica.root, old, "generation %s from before the cut" % name, "-generation", name)


def main(folder):
    shim.load()
    for name in sorted(os.listdir(folder)):
        patient = Patient(os.path.join(folder, name))
        wrong = None
        try:
            patient.check()
        except (Failure, sqlite3.Error, OSError, subprocess.SubprocessError) as error:
            wrong = "%s: %s" % (type(error).__name__, error)
            patient.found["trace"] = traceback.format_exc()
        print(json.dumps({"cut": name, "wrong": wrong, **patient.found}), flush=True)
        if wrong is None:
            shutil.rmtree(patient.folder)


if __name__ == "__main__":
    main(sys.argv[1])
