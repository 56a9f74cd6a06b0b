#!/usr/bin/python3
"""test_two_writers.py - two hosts with one replica: cloned volumes, rolling deploys, processes that were away for a while.

Two data folders and one URL. Whatever they do in whatever order, every generation restores to a state that one of
the two has committed, what each has shipped can be restored, and no object is ever changed or deleted by the other.
"""

import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from shard import LIB, Shard, python

from ljtest import chain, cli, harness, pages, shim
from ljtest.harness import LONG, check, check_equal, test, wait_for
from ljtest.replica import Replica

NEEDS = ("shim", "load_extension")


class Host:
    """One of the two: a data folder, its connection, and every state it has committed."""

    def __init__(self, t, name, base, data, **options):
        self.t = t
        self.name = name
        self.shard = Shard(t, base=base, data=data, **options)
        self.con = None
        self.hashes = set()  # of the last link after each commit, as seen by this host
        self.shipped = b""   # the newest of them that was synced

    def open(self, create=False):
        self.con = self.shard.open(create=create, pragmas=("wal_autocheckpoint=0",))
        self.hashes.update(row[0] for row in self.con.execute("SELECT h FROM chain"))

    def close(self):
        if self.con is not None:
            self.con.close()
        self.con = None

    def last(self):
        row = self.con.execute("SELECT h FROM chain ORDER BY n DESC LIMIT 1").fetchone()
        return row[0] if row else b""

    def commit(self):
        chain.commit_one(self.con, self.t.random, self.name)
        self.hashes.add(self.last())
        shim.sync(self.con, "20s")
        self.shipped = self.last()

    def restart(self):
        """The next commit begins a new WAL."""
        busy = self.con.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        check_equal(busy, 0, "checkpoint of " + self.name)

    def snapshot(self):
        shim.snapshot(self.con, "20s")

    def generation(self):
        return shim.status(self.con)["generation"]


def in_memory(t):
    """A folder of this test that no disk slows down, where the machine has one."""
    if not os.path.isdir("/dev/shm"):
        return t.dir
    if not hasattr(t, "in_memory"):
        t.in_memory = tempfile.mkdtemp(prefix="lj_", dir="/dev/shm")
        t.cleanup(shutil.rmtree, t.in_memory, True)
    return t.in_memory


def clone(source, target):
    """As cp -a does it, in a process of its own: our own open() and close() would drop the locks of an open database."""
    shutil.rmtree(target, ignore_errors=True)
    subprocess.run(["cp", "-a", source, target], check=True)
    for name in os.listdir(target):
        if name.endswith("-shm"):
            os.unlink(os.path.join(target, name))


def links(path, what):
    chain.verify_file(path, what)
    con = shim.plain(path)
    try:
        return [row[0] for row in con.execute("SELECT h FROM chain ORDER BY n")]
    finally:
        con.close()


def check_generations(t, replica, hosts, label, tools=()):
    """Every generation, from each of its snapshots, is a committed state of one host; what both have shipped is there."""
    replica.check(leftovers_ok=True)
    known = set().union(*(host.hashes for host in hosts)) | {b""}
    found = set()
    out = os.path.join(in_memory(t), "check.db")
    for generation in replica.generations():
        for snapshot in generation.snapshots:
            what = "%s: %s from snapshot %d" % (label, generation.name, snapshot.index)
            replica.restore(out, generation=generation.name, snapshot=snapshot.index)
            restored = links(out, what)
            check((restored or [b""])[-1] in known, what + ": a state that nobody has committed")
            found.update(restored)
        for tool in tools:
            other = os.path.join(in_memory(t), "check." + tool.name)
            if os.path.exists(other):
                os.unlink(other)
            tool.restore(replica.root, other, "-generation", generation.name)
            replica.restore(out, generation=generation.name)
            pages.check_same(other, out, "%s: %s of %s against the reference" % (label, tool.name, generation.name))
    for host in hosts:
        check(not host.shipped or host.shipped in found, "%s: what %s has shipped is in no generation"
              % (label, host.name))


def unchanged(before, after, label):
    changed = {name: (was, after.get(name)) for name, was in before.items()
               if after.get(name) != was and not os.path.basename(name).startswith(".")}  # unfinished: no object yet
    check_equal(changed, {}, label + ": objects that were changed or deleted")


# ---------------------------------------------------------------------------------------------------------------------
# every order of events

OPS = {"a": ("A", Host.commit), "r": ("A", Host.restart), "x": ("A", Host.snapshot),
       "b": ("B", Host.commit), "s": ("B", Host.restart), "y": ("B", Host.snapshot)}


def play(t, how, before, order, tools=()):
    """
    A does `before`; B comes (how: restored from the replica, or a clone of A's folder, at rest or running); then `order`.
    Letters as in OPS.
    """
    label = "%s %s|%s" % (how, before, order)
    root = os.path.join(in_memory(t), "play")
    shutil.rmtree(root, ignore_errors=True)
    base, data_a, data_b = (os.path.join(root, name) for name in ("replica", "a", "b"))
    os.makedirs(data_a)
    hosts = {name: Host(t, name, base, data, sync_interval="1ms", retention="24h")
             for name, data in (("A", data_a), ("B", data_b))}
    replica = hosts["A"].shard.replica
    try:
        hosts["A"].open(create=True)
        for op in before:
            OPS[op][1](hosts["A"])
        if how == "at rest":
            hosts["A"].close()
            clone(data_a, data_b)
            hosts["A"].open()
        elif how == "running":
            clone(data_a, data_b)
        else:
            os.makedirs(data_b)
        hosts["B"].open()
        objects = replica.files()
        for op in order:
            name, act = OPS[op]
            act(hosts[name])
            now = replica.files()
            unchanged(objects, now, "%s, %s" % (label, op))
            objects = now
        for host in hosts.values():
            host.commit()
            check_equal(shim.status(host.con)["state"], "replicating", "%s: state of %s" % (label, host.name))
        check(hosts["A"].generation() != hosts["B"].generation(), label + ": both in one generation")
        check_generations(t, replica, hosts.values(), label, tools)
        for host in hosts.values():
            host.close()
        check_generations(t, replica, hosts.values(), label + ", closed")
    finally:
        for host in hosts.values():
            host.close()


def orders(letters, depth):
    for length in range(depth + 1):
        yield from ("".join(order) for order in itertools.product(letters, repeat=length))


@test(*NEEDS, timeout=300, long_timeout=7200)
def every_order_of_commits_and_restarts(t):
    """All orders up to a depth, from each way in which B can come, then some longer ones with snapshots in between."""
    depth = 5 if LONG else 3
    count = 0
    started = time.monotonic()
    for how in ("restored", "at rest", "running"):
        for before in ("a", "ar") if how != "at rest" else ("a",):
            for order in orders("arbs", depth):
                play(t, how, before, order)
                count += 1
    for number in range(600 if LONG else 20):
        how = t.random.choice(("restored", "at rest", "running"))
        before = "".join(t.random.choice("aarx") for _ in range(t.random.randint(1, 4)))
        order = "".join(t.random.choice("aarxbbsy") for _ in range(6))
        play(t, how, before, order, cli.restorers() if LONG or number % 4 == 0 else ())
        count += 1
    t.note("%d orders, %.3f s each" % (count, (time.monotonic() - started) / count))


if __name__ == "__main__":
    harness.main("two_writers")
