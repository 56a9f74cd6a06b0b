#!/usr/bin/python3
"""test_two_writers.py - two hosts with one replica: cloned volumes, rolling deploys, processes that were away for a while.

Two data folders and one URL. Whatever they do in whatever order, every generation restores to a state that one of
the two has committed, what each has shipped can be restored, and no object is ever changed or deleted by the other.
"""

import email.utils
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from shard import LIB, Shard, python

from ljtest import chain, cli, fasts3, harness, pages, shim, stopping, stores
from ljtest.harness import LONG, check, check_equal, test, wait_for
from ljtest.replica import Replica, Writer

NEEDS = ("shim", "load_extension")


def seen_by_another_host(base):
    """The same replica under another URL: the process takes the two for databases that have nothing to do with each other."""
    if "://" in base:
        return base + "&list-page-size=999"
    os.symlink(base, base + ".b")
    return base + ".b"


class Host:
    """One of the two: a data folder, its connection, and every state it has committed."""

    def __init__(self, t, name, base, data, store=None, **options):
        self.t = t
        self.name = name
        self.shard = Shard(t, base=base, data=data, **options)
        if name == "B":
            self.shard.base = seen_by_another_host(base)
        if store:
            self.shard.replica = StoreReplica(store, self.shard.name, os.path.join(in_memory(t), "mirror"))
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
        shim.sync(self.con, "60s")
        self.shipped = self.last()

    def restart(self):
        """The next commit begins a new WAL."""
        wait_for(lambda: self.con.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0,
                 "checkpoint of " + self.name, 60)

    def snapshot(self):
        shim.snapshot(self.con, "60s")

    def generation(self):
        return shim.status(self.con)["generation"]


class StoreReplica(Replica):
    """A replica in a FastS3: every look at it is one at a copy made then, with the store's times."""

    def __init__(self, store, name, folder):
        shutil.rmtree(folder, ignore_errors=True)
        super().__init__(os.path.join(folder, name))
        server, prefix = store
        self.client = stores.S3(server.endpoint, "", "")
        self.prefix = prefix + "/" + name + "/"

    def pull(self):
        there = {os.path.join(self.root, key[len(self.prefix):]): key
                 for key, _ in self.client.objects("b", self.prefix)}
        for folder, _, names in os.walk(self.root):
            for path in (os.path.join(folder, name) for name in names):
                if path not in there:
                    os.unlink(path)
        for path, key in there.items():
            modified = email.utils.parsedate_to_datetime(self.client.head("b", key)["Last-Modified"]).timestamp()
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                file.write(self.client.read("b", key))
            os.utime(path, (modified, modified))

    def generations(self):
        self.pull()
        return super().generations()

    def files(self):
        self.pull()
        return super().files()


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


def play(t, how, before, order, tools=(), store=None):
    """
    A does `before`; B comes (how: restored from the replica, or a clone of A's folder, at rest or running); then `order`.
    Letters as in OPS. `store`: a FastS3 and a prefix in it, else file://.
    """
    label = "%s %s|%s" % (how, before, order)
    root = os.path.join(in_memory(t), "play")
    shutil.rmtree(root, ignore_errors=True)
    base, data_a, data_b = (os.path.join(root, name) for name in ("replica", "a", "b"))
    os.makedirs(data_a)
    url = store[0].url("b", store[1]) if store else base
    hosts = {name: Host(t, name, url, data, store, sync_interval="1ms", retention="24h")
             for name, data in (("A", data_a), ("B", data_b))}
    replica = hosts["A"].shard.replica
    try:
        hosts["A"].open(create=True)
        shim.sync(hosts["A"].con, "60s")  # or else there may be nothing yet that B could restore
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


@test(*NEEDS, timeout=120, long_timeout=3600)
def the_same_on_s3(t):
    """The store sets the times, and answers over a connection."""
    with fasts3.FastS3() as server:
        os.environ.update(server.env)
        for number, how in enumerate(("restored", "running")):
            for order in orders("arbs", 4 if LONG else 2):
                play(t, how, "ar"[number:], order, (), (server, "p%d%s" % (number, order)))


# ---------------------------------------------------------------------------------------------------------------------
# what readers make of end marks


@test(*NEEDS, "cli", timeout=120)
def end_marks_for_readers(t):
    """Litestream and our own restore at every time and index, the listings, a mark as the very last object, and a hole."""
    shard = Shard(t)
    con = shard.open(pragmas=("wal_autocheckpoint=0",))
    points = {}  # time of an object -> the last link by then
    for _ in range(4):
        for _ in range(2):
            n = shard.write(con, 2)
            shim.sync(con)
            points[shard.replica.newest().updated_ns()] = n
        con.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    con.close()
    generation = shard.replica.newest()
    check_equal([m.index for m in generation.marks], generation.indexes()[:-1], "indexes that have an end mark")
    # as if the writer died between the mark and the next index
    Writer(shard.root, generation.name).segment(generation.indexes()[-1], len(generation.wal_image(generation.indexes()[-1])),
                                                b"", generation.updated_ns() + 1)
    shard.replica.check()
    out = t.path("out.db")

    def restored(tool, *flags):
        if os.path.exists(out):
            os.unlink(out)
        tool.restore(shard.root, out, *flags)
        return chain.verify_file(out, tool.name)

    for tool in cli.restorers():
        check_equal(restored(tool), n, tool.name)
        for parallelism in (1, 3, 32):
            check_equal(restored(tool, "-parallelism", parallelism), n, "%s -parallelism %d" % (tool.name, parallelism))
        for time_ns, link in points.items():
            check_equal(restored(tool, "-timestamp", cli.rfc3339(time_ns)), link, "%s -timestamp" % tool.name)
        for mark in shard.replica.newest().marks:
            before = max(time_ns for time_ns in points if time_ns <= mark.time_ns)
            check_equal(restored(tool, "-timestamp", cli.rfc3339(mark.time_ns)), points[before], "at the time of a mark")
            check_equal(restored(tool, "-index", "%08x" % mark.index), points[before], "-index of " + tool.name)
        rows = tool.table("wal", shard.root)[1]
        check_equal(len(rows), len(generation.segments) + len(generation.marks) + 1, "rows of `wal` by " + tool.name)
    # who restores it goes on behind the last mark
    shutil.rmtree(shard.data)
    con = shard.open(create=False)
    n = shard.write(con, 2)
    con.close()
    check_equal(shard.check_restores("restored and gone on", snapshots=1), n, "last link")
    # the last segment of an index is lost: without the mark nobody could tell
    lost = [s for s in generation.segments if s.index == 1][-1]
    os.unlink(lost.path)
    status, _, errors = cli.ours().try_restore(shard.root, t.path("hole.db"))
    check(status != 0 and "%08x" % lost.index in errors and "from byte %d" % lost.offset in errors,
          "a lost segment in front of an end mark: %d %s" % (status, errors))


# ---------------------------------------------------------------------------------------------------------------------
# hosts that are processes

HOST = """
import json, random, sys
from ljtest import chain, shim
path, base, name, seed = sys.argv[1:5]
options = json.loads(sys.argv[5])
rng = random.Random(int(seed))
con = shim.open_wal(path, base, pragmas=("wal_autocheckpoint=20",), **options)
chain.exists(con) or chain.create(con)
def last():
    row = con.execute("SELECT h FROM chain ORDER BY n DESC LIMIT 1").fetchone()
    return row[0].hex() if row else ""
print(json.dumps({"all": [row[0].hex() for row in con.execute("SELECT h FROM chain")]}), flush=True)
for line in sys.stdin:
    what, _, count = line.strip().partition(" ")
    made = []
    if what == "commit":
        for _ in range(int(count or 1)):
            chain.commit_one(con, rng, name)
            made.append(last())
    elif what == "sync":
        shim.sync(con, "30s")
    elif what == "restart":
        con.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    elif what == "snapshot":
        shim.snapshot(con, "30s")
    elif what == "close":
        con.close()
        print(json.dumps({"closed": True}), flush=True)
        break
    print(json.dumps({"made": made, "status": shim.status(con)}), flush=True)
"""


class Process:
    """A host in a process of its own, which can be stopped and killed; `hashes` and `shipped` as in Host."""

    def __init__(self, t, name, base, data, env=None, **options):
        self.name = name
        self.hashes = set()
        self.shipped = b""
        self.newest = b""
        self.status = {}
        self.shard = Shard(t, base=base, data=data)
        options.setdefault("sync_interval", "10ms")
        self.log = t.path("%s.log" % name)
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOST, self.shard.path, base, name, str(t.random.randrange(1 << 30)),
             json.dumps(options)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=dict(os.environ, PYTHONPATH=LIB, LITEJOIN_LOG_FILE=self.log, **(env or {})))
        t.cleanup(self.end)
        self._take(self._read())

    def _read(self):
        line = self.process.stdout.readline()
        check(line, "host %s is gone: %s" % (self.name, self.process.poll()))
        return json.loads(line)

    def _take(self, answer):
        made = [bytes.fromhex(text) for text in answer.get("all", []) + answer.get("made", []) if text]
        self.hashes.update(made)
        if made:
            self.newest = made[-1]
        self.status = answer.get("status", self.status)
        return answer

    def tell(self, command):
        """Sends a command without waiting for the answer (a stopped process does not give one)."""
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()

    def answer(self):
        return self._take(self._read())

    def do(self, *commands):
        for command in commands:
            self.tell(command)
            self.answer()
            if command == "sync":
                self.shipped = self.newest
        return self.status

    def signal(self, number):
        self.process.send_signal(number)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def end(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()

    def logged(self):
        with open(self.log, errors="replace") as file:
            return file.read()


def expect_met(host, theirs):
    """The host has noticed the other: its log and its status name both positions."""
    text = "%s/[0-9a-f]{8}:[0-9]+, the local database is at %s/[0-9a-f]{8}:[0-9]+" % (theirs, theirs)
    check(re.search(text, host.status["last_break"]), "last_break of %s: %s" % (host.name, host.status["last_break"]))
    check(re.search("cannot be continued: .*it has " + text, host.logged()),
          lambda: "log of %s: %s" % (host.name, host.logged()[-1500:]))


def two_processes(t, store=None, env=None, label=""):
    """A has written; its data folder stays. Returns A and a function that starts B with nothing but the replica."""
    base = store or t.path(label, "replica")
    a = Process(t, "A" + label, base, t.folder(label, "a"), env)
    a.do("commit 5", "sync", "restart", "commit 30", "sync")
    return a, lambda: Process(t, "B" + label, base, t.folder(label, "b"), env)


def check_folder(t, hosts, label, closed=False):
    replica = hosts[0].shard.replica
    check_generations(t, replica, hosts, label, cli.restorers())


@test(*NEEDS, timeout=120)
def a_rolling_deploy(t):
    """The new pod restores while the old one still writes: before, after and between each other's commits."""
    turns = {"the old one writes once more, then the new one": "ab",
             "the new one writes, then the old one": "ba",
             "they alternate": "abababab",
             "the old one restarts its WAL in between": "arba",
             "the new one does": "bsbaab",
             "the old one only ends": ""}
    for label, order in turns.items():
        with t.part(label):
            folder = re.sub("[^a-z]", "_", label)
            a, start_b = two_processes(t, label=folder)
            generation = a.status["generation"]
            b = start_b()
            check_equal(b.newest, a.newest, "what B has restored")
            for op in order:
                host = a if op in "ar" else b
                host.do("restart" if op in "rs" else "commit 2", "sync")
            for host in (a, b):
                host.do("commit 3", "sync")
                check_equal(host.status["state"], "replicating", "state of " + host.name)
            if "b" not in order:  # B was the slower one, or A had nothing more to say
                order += "ab"
            loser = b if order.startswith("a") else a
            expect_met(loser, generation)
            winner = a if loser is b else b
            check_equal(winner.status["generation"], generation, "generation of who was faster")
            check(loser.status["generation"] != generation, "both are in " + generation)
            for host in (a, b):
                host.do("close")
            check_folder(t, (a, b), label)


@test(*NEEDS, timeout=120)
def a_process_that_was_stopped_for_long(t):
    """SIGSTOP, somebody takes over from the replica and works, snapshots and cleans up; then SIGCONT."""
    for label, retention in (("the other works on", "24h"), ("the other has deleted what we would meet", "1s")):
        with t.part(label):
            folder = "stopped" + retention
            base = t.path(folder)
            # how long A trusts what it has heard depends on its retention; the test cannot sleep for as long as a day asks for
            a = Process(t, "A" + retention, base, t.folder(folder + "a"), retention="2s" if retention == "1s" else "24h")
            a.do("commit 5", "sync", "restart", "commit 30", "sync", "commit 2")
            generation = a.status["generation"]
            a.do("sync")
            stopping.stop(a.process.pid)
            a.tell("commit 3")  # it is the first thing that A does when it goes on
            b = Process(t, "B" + retention, base, t.folder(folder + "b"), retention=retention)
            for _ in range(4):
                b.do("commit 10", "sync", "restart", "commit 1", "snapshot")
                if retention == "1s":
                    time.sleep(1.1)
            check_equal(b.status["generation"], generation, "generation that B continued")
            if retention == "1s":
                replica = b.shard.replica
                wait_for(lambda: b.do("commit 1", "snapshot") and replica.generation(generation).indexes()[0] > 1,
                         "retention of B", 120, 0.3)
            before = b.shard.replica.files()
            a.signal(signal.SIGCONT)
            a.answer()
            a.do("sync", "commit 3", "sync")
            if retention == "24h":
                unchanged(before, b.shard.replica.files(), label)
            check(a.status["generation"] != generation, "A goes on in B's generation")
            expect_met(a, generation)
            b.do("commit 3", "sync")
            check_equal(b.status["generation"], generation, "generation of B")
            for host in (a, b):
                host.do("close")
            check_folder(t, (a, b), label)


if __name__ == "__main__":
    harness.main("two_writers")
