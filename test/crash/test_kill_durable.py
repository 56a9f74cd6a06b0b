#!/usr/bin/python3
"""test_kill_durable.py - kill -9 of a host whose commits wait for the replica (durability=remote), with a store that fails.

Every attempt at a commit has a name of its own, so that the retry of a failed one is another transaction. Whatever dies and
whenever: every attempt whose COMMIT returned success is in what a restore gives, and none whose COMMIT failed is in the local
database, nor in the replica once the next open has had its say. Right behind the kill a failed one may be in the replica only
if the store's answer to it was lost.
"""
# timeout: 400

import os
import signal
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))
sys.path.insert(0, os.path.join(HERE, "..", "integration"))

from durablekit import BUCKET, SEGMENTS, Remote  # noqa: E402
from ljtest import chain, cli, faults, harness, native, pages, shim  # noqa: E402
from ljtest.harness import LONG, Failure, check, check_equal, test, wait_for  # noqa: E402

NEEDS = ("shim", "load_extension")
PATIENCE = 60

SCRIPT = """
import os, random, sqlite3, sys, threading
from ljtest import chain, shim
path, base, label, count, exclusive, threads, timeout = sys.argv[1:8]
shim.load()
os.environ["LJ_KILL_DIR"] = os.environ.get("KILL_DIR", "")
os.environ["LJ_KILL_AT"] = os.environ.get("KILL_AT", "0")

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

def connect():
    pragmas = ["synchronous=" + random.choice(("OFF", "NORMAL", "FULL")), "wal_autocheckpoint=20", "cache_size=10"]
    if int(exclusive):
        pragmas.insert(0, "locking_mode=EXCLUSIVE")
    con = shim.connect(path, base, durability="remote", remote_timeout=timeout, io_timeout="30s", sync_interval="1h")
    con.execute("PRAGMA journal_mode=WAL").fetchall()
    for pragma in pragmas:
        con.execute("PRAGMA " + pragma).fetchall()
    return con

def write(number):
    con = connect()
    rng = random.Random("%s/%d" % (label, number))
    for i in range(int(count)):
        name = "%s.%d.%d" % (label, number, i)
        try:
            con.execute("BEGIN IMMEDIATE")
            chain.extend(con, rng, name, (0, 3000))
            say("B", name)
            con.execute("COMMIT")
            say("C", name)
        except sqlite3.OperationalError as error:
            if con.in_transaction:
                con.execute("ROLLBACK")
            if "locked" in str(error):
                continue
            if "disk I/O" not in str(error):
                raise
            say("F", name, shim.last_error().replace("\\n", " ")[:300])
        if rng.random() < 0.1:
            con.execute("PRAGMA wal_checkpoint(%s)" % rng.choice(("PASSIVE", "RESTART", "TRUNCATE"))).fetchall()

others = [threading.Thread(target=write, args=(i,), daemon=True) for i in range(1, int(threads))]
for thread in others:
    thread.start()
write(0)
for thread in others:
    thread.join()
say("end")
os.kill(os.getpid(), 9)
"""


class Host:
    """One process that writes until it is killed, and what it said."""

    def __init__(self, remote, label, count=1000, exclusive=0, threads=1, timeout="20s", env=None):
        environment = dict(os.environ, PYTHONPATH=os.path.join(HERE, "..", "lib"))
        environment.update(env or {})
        self.out = remote.t.path("host.out")
        self.err = remote.t.path("host.err")
        with open(self.out, "wb") as out, open(self.err, "wb") as err:
            self.process = subprocess.Popen([sys.executable, "-c", SCRIPT, remote.path, remote.base, label, str(count),
                                             str(exclusive), str(threads), timeout], stdout=out, stderr=err, env=environment)

    def lines(self):
        with open(self.out, "rb") as file:
            return [line.split() for line in file.read().decode().splitlines(keepends=True) if line.endswith("\n")]

    def names(self, what):
        return [line[1] for line in self.lines() if line[0] == what]

    def end(self, kill=True):
        if kill:
            self.process.send_signal(signal.SIGKILL)
        status = self.process.wait(PATIENCE)
        with open(self.err, "rb") as file:
            check_equal(status, -signal.SIGKILL, "the host's end: %s" % file.read().decode("utf-8", "replace")[-500:])
        return ["end"] in self.lines()


class Book:
    """What was promised so far."""

    def __init__(self, remote):
        self.remote = remote
        self.kept = []
        self.failed = set()

    def note(self, host):
        self.kept += host.names("C")
        self.failed |= set(host.names("F"))

    def names_in(self, path, what):
        con = shim.plain(path)
        try:
            chain.verify(con, what)
            return [row[0] for row in con.execute("SELECT writer FROM chain ORDER BY n")] if chain.exists(con) else []
        finally:
            con.close()

    def check_file(self, path, what, failed_ok=False):
        pages.check_integrity(path, what)
        found = self.names_in(path, what)
        lost = [name for name in self.kept if name not in set(found)]
        check(not lost, "%s: acknowledged and not there: %s" % (what, lost[:5]))
        wrong = [name for name in found if name in self.failed]
        check(failed_ok or not wrong, "%s: failed and there: %s" % (what, wrong[:5]))
        return found

    def check_crash(self):
        """What plain SQLite finds."""
        folder = self.remote.t.path("crash")
        self.remote.t.folder("crash")
        copy = os.path.join(folder, "copy.db")
        for end in ("", "-wal", "-shm"):
            if os.path.exists(copy + end):
                os.unlink(copy + end)
        for end in ("", "-wal"):
            if os.path.exists(self.remote.path + end):
                with open(self.remote.path + end, "rb") as old, open(copy + end, "wb") as new:
                    new.write(old.read())
        return self.check_file(copy, "after the kill")

    def check_replica(self, what, failed_ok=False, generation=None):
        replica = self.remote.mirror()
        out = self.remote.t.path("now.db")
        if os.path.exists(out):
            os.unlink(out)
        replica.restore(out, generation=generation)
        found = self.check_file(out, what, failed_ok)
        if generation is not None:
            cli.check_restorers(replica.root, out, what, "-generation", generation)
        return found

    def next_open(self, what):
        """The next host: what COMMIT had acknowledged is there, and the replica ends up equal, without the failed ones."""
        con = self.remote.open(create=False, durability="local")
        names = [row[0] for row in con.execute("SELECT writer FROM chain ORDER BY n")]
        check(set(self.kept) <= set(names), what + ": lost locally: %s" % sorted(set(self.kept) - set(names))[:5])
        check(not self.failed & set(names), what + ": failed and there: %s" % sorted(self.failed & set(names))[:5])
        con.execute("UPDATE ledger SET pad = randomblob(9) WHERE id = 0")
        shim.sync(con, "%ds" % PATIENCE)
        wait_for(lambda: shim.status(con)["state"] == "replicating", "replicating", PATIENCE)
        generation = shim.status(con)["generation"]
        con.close()
        found = self.check_replica(what + ": replica", generation=generation)
        check_equal(found, names, what + ": replica against the database")
        self.kept = found  # what a kill cut off without an answer counts from here on
        return generation


def begin(remote):
    con = remote.open(create=False)
    chain.create(con)
    con.close()
    return Book(remote)


@test(*NEEDS, timeout=200, long_timeout=3000)
def at_random_instants(t):
    """The host dies while the store is slow, refuses, breaks connections, and (second part) loses answers."""
    refusals = ((faults.s3_error("AccessDenied"), 7), (faults.s3_error("InternalError"), 5), (faults.reset_before(), 6),
                (faults.reset_upload(30), 9))
    lost = ((faults.reset_after(), 5), (faults.delay_answer(1500), 6))
    for name, actions, exclusive, threads in (("refusals", refusals, 0, 3), ("refusals, exclusive", refusals, 1, 1),
                                              ("lost answers", refusals + lost, 0, 2)):
        with t.part(name):
            with Remote(t, name.replace(" ", "-").replace(",", "")) as remote:
                book = begin(remote)
                remote.store.control(delay_ms=3)
                for number in range(40 if LONG else 4):
                    rules = [remote.proxy.add(action, method="PUT", path=SEGMENTS, every=every, after=t.random.randint(0, 9))
                             for action, every in actions]
                    host = Host(remote, "r%d" % number, exclusive=exclusive, threads=threads, timeout="400ms")
                    wait_for(lambda: host.names("C"), "a first commit", PATIENCE)
                    time.sleep(t.random.random() * 1.5)
                    host.end()
                    book.note(host)
                    for rule in rules:
                        remote.proxy.remove(rule)
                    remote.proxy.settle()
                    book.check_crash()
                    book.check_replica("right behind the kill", failed_ok=actions is not refusals)
                    book.next_open("next open")
                t.note("%d commits acknowledged, %d failed" % (len(book.kept), len(book.failed)))
                check(book.kept, "no commit worked: this test tests nothing")


@test(*NEEDS, timeout=120, long_timeout=1000)
def the_store_dies_at_every_step(t):
    """Each request of a short life in turn is cut: before it, in its body, behind it, for good from there on."""
    cuts = (faults.reset_before(), faults.reset_upload(40), faults.reset_after())
    with Remote(t) as remote:
        book = begin(remote)
        worked = 0
        for number in range(60 if LONG else 10):
            first = number // len(cuts) * (1 if LONG else 2)
            cut = cuts[number % len(cuts)]
            rule = remote.proxy.add(cut, after=first)  # every request from there on
            host = Host(remote, "s%d" % number, count=6, timeout="300ms")
            host.end(kill=False)
            remote.proxy.remove(rule)
            remote.proxy.settle()
            worked += len(host.names("C"))
            book.note(host)
            book.check_crash()
            book.next_open("step %d, %s" % (first, cut.name))
        t.note("%d commits acknowledged, %d failed" % (worked, len(book.failed)))
        check(worked and book.failed, "%d worked, %d failed: this test tests nothing" % (worked, len(book.failed)))


@test(*NEEDS, timeout=200, long_timeout=3000)
def before_every_call_that_changes_a_file(t):
    """The host dies before its 1st, 2nd, 3rd ... write, sync or rename: also between a failed wait, zeroing and the return."""
    try:
        library = native.shared_library(os.path.join(HERE, "killat.c"), "-ldl")
    except (OSError, subprocess.CalledProcessError) as error:
        raise harness.Skip("cannot build killat.c: %s" % error)
    with Remote(t) as remote:
        book = begin(remote)
        wrong, kills, at = [], 0, 0
        while True:
            at += 1 if LONG else t.random.randint(5, 11)
            remote.proxy.forget()
            rules = [remote.proxy.add(faults.s3_error("AccessDenied"), method="PUT", path=SEGMENTS, nth=(2, 4, 5)),
                     remote.proxy.add(faults.reset_before(), method="PUT", path=SEGMENTS, nth=(7, 8))]
            log = t.path("calls%d" % at)
            host = Host(remote, "k%d" % at, count=7, exclusive=at % 2, timeout="250ms",
                        env={"LD_PRELOAD": library, "KILL_DIR": remote.data, "KILL_AT": str(at), "LJ_KILL_LOG": log})
            through = host.end(kill=False)
            for rule in rules:
                remote.proxy.remove(rule)
            remote.proxy.settle()
            book.note(host)
            kills += not through
            try:
                book.check_crash()
                book.check_replica("right behind the kill")
                book.next_open("next open")
            except Failure as failure:
                wrong.append("before call %d: %s" % (at, failure))
                break
            if through:
                break
        t.note("%d kills, %d commits acknowledged, %d failed" % (kills, len(book.kept), len(book.failed)))
        check(not wrong, "; ".join(wrong))
        check(kills > 3 and book.failed, "%d kills, %d failed: this test tests nothing" % (kills, len(book.failed)))


if __name__ == "__main__":
    harness.main("kill durable")
