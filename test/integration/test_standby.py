#!/usr/bin/python3
"""test_standby.py - durability=remote in every process of a database: one uploads, and the commits of the others wait for it.

As in test_durability.py: a COMMIT that returned success is in the store, one that failed is nowhere.
"""
# timeout: 1200

import os
import threading
import time

from durablekit import SEGMENTS, Remote

from ljtest import faults
from ljtest.harness import LONG, Failure, check, check_equal, test, wait_for
from peer import SIGCONT, Peer, wait_taken_over

NEEDS = ("shim", "load_extension")
PATIENCE = 60


class Pair:
    """A Remote with two processes: the first one uploads. A context manager. What must fail waits for `timeout` only."""

    def __init__(self, t, folder="pair", timeout="1500ms", **options):
        self.remote = Remote(t, folder, remote_timeout="60s", **options)
        self.timeout = timeout

    def __enter__(self):
        self.remote.__enter__()
        self.leader = self.peer()
        self.leader.sql("CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB)")
        self.other = self.peer()
        for peer in (self.leader, self.other):
            self.commit(peer)
        check_equal(self.other.status()["state"], "standby", "state of the second process")
        self.generation = self.leader.status()["generation"]
        return self

    def __exit__(self, *failed):
        for peer in (self.other, self.leader):
            if peer.process.poll() is None:
                peer.signal(SIGCONT)
                peer.kill()
        self.remote.__exit__(*failed)

    def peer(self):
        peer = Peer(self.remote, opened=False)
        peer.open()
        return peer

    def ask(self, peer, hasty=False):
        """The peer begins to commit a row; its id."""
        number = self.remote.next_id
        self.remote.next_id += 1
        statement = "INSERT INTO t VALUES(%d, randomblob(100))" % number
        if hasty:
            peer.ask("hasty", statement, self.timeout)
        else:
            peer.ask("sql", statement)
        return number

    def commit(self, peer):
        number = self.ask(peer)
        peer.answer()
        self.remote.good.append(number)

    def fails(self, peer):
        """A commit that must fail; the error."""
        self.ask(peer, hasty=True)
        return self.answers_error(peer)

    def answers_error(self, peer):
        try:
            peer.answer()
        except Failure as error:
            check("disk I/O error" in str(error), "it is no I/O error: %s" % error)
            return peer.last_error()
        raise Failure("the commit succeeded, although it cannot have reached the replica")

    def check(self, what, peers=None, same=True):
        """Exactly the good ones: in each process, after a crash, in the replica."""
        for peer in peers or (self.leader, self.other):
            check_equal([row[0] for row in peer.sql("SELECT id FROM t ORDER BY id")], self.remote.good, what + ": in a process")
        check_equal(self.remote.crashed(), self.remote.good, what + ": after a crash")
        check_equal(self.restored(peer), self.remote.good, what + ": restored")
        if same:
            check_equal(peer.status()["generation"], self.generation, what + ": generation")

    def restored(self, peer):
        return self.remote.restored(peer.status()["generation"])

    def hold(self, status=503):
        """The next PUT of a segment hangs until the event is set, and is not stored."""
        event = threading.Event()
        rule = self.remote.proxy.add(faults.answer(lambda _: event.wait(PATIENCE) and None or faults.Response(status), "held"),
                                     method="PUT", path=SEGMENTS, count=1)
        return event, rule

    def finish(self, peers, generations=1):
        for peer in peers:
            peer.close()
            peer.end()
        con = self.remote.open(create=False)
        self.remote.finish(con, generations)


@test(*NEEDS, timeout=120)
def both_write(t):
    """In turn and at the same time, with checkpoints and restarts of the WAL by both; each commit is in the replica when it returns."""
    with Pair(t) as pair:
        for turn in range(40 if LONG else 8):
            peer = (pair.other, pair.leader)[turn % 3 == 2]
            if turn % 4 == 1:
                peer.sql("PRAGMA wal_checkpoint(%s)" % t.random.choice(("RESTART", "TRUNCATE")))
            pair.commit(peer)
            check_equal(pair.remote.restored(), pair.remote.good, "restored behind commit %d" % turn)
        for _ in range(5):
            numbers = [pair.ask(peer) for peer in (pair.leader, pair.other)]
            for peer in (pair.leader, pair.other):
                peer.answer()
            pair.remote.good += numbers
        pair.check("both at once")
        start = time.monotonic()
        for _ in range(20):
            pair.commit(pair.other)
        took = time.monotonic() - start
        start = time.monotonic()
        for _ in range(20):
            pair.commit(pair.leader)
        t.note("20 commits: standby %.0f ms, uploader %.0f ms" % (took * 1000, (time.monotonic() - start) * 1000))
        pair.check("in the end")
        pair.finish([pair.leader, pair.other])


@test(*NEEDS, timeout=120)
def a_store_that_fails(t):
    """The standby is told what the uploader met; the row is nowhere, and the next COMMIT works, in both."""
    with Pair(t, timeout="60s") as pair:
        with pair.remote.refuses():
            start = time.monotonic()
            error = pair.fails(pair.other)
            check("AccessDenied" in error and "luck" in error, "the uploader's error: " + error)
            t.note("refused after %.0f ms" % ((time.monotonic() - start) * 1000))
            pair.fails(pair.leader)
            check_equal(pair.other.status()["failed_commits"], 1, "failed_commits of the standby")
        pair.commit(pair.other)
        pair.check("refused")
        for peer in (pair.leader, pair.other):
            peer.end_hasty()
        pair.timeout = "1500ms"
        for name, action in (("black hole", faults.black_hole()), ("answer lost", faults.reset_after()),
                             ("nothing arrives", faults.reset_before())):
            with pair.remote.proxy.rule(action, method="PUT", path=SEGMENTS):
                pair.fails(pair.other)
            pair.remote.proxy.drop()
            wait_for(lambda: pair.remote.restored() == pair.remote.good, name + ": the failed row is out of the replica", PATIENCE, 0.1)
            pair.check(name)
            for peer in (pair.leader, pair.other):
                pair.commit(peer)
            pair.check(name + ", and then")
        pair.finish([pair.leader, pair.other])


@test(*NEEDS, timeout=120)
def the_uploader_is_killed(t):
    """While the standby waits: it takes over and ships its own commit, whether the dead one's request was stored or not."""
    for stored in (False, True):
        with t.part("stored" if stored else "not stored"):
            with Pair(t, "killed%d" % stored) as pair:
                if stored:
                    rule = pair.remote.proxy.add(faults.reset_after(), method="PUT", path=SEGMENTS)
                else:
                    event, rule = pair.hold()
                number = pair.ask(pair.other)
                wait_for(lambda: rule.fired, "a PUT", PATIENCE, 0.005)
                pair.leader.kill()
                if stored:
                    pair.remote.proxy.remove(rule)
                else:
                    event.set()
                pair.other.answer()
                pair.remote.good.append(number)
                pair.check("taken over", [pair.other])
                pair.leader = pair.peer()
                for peer in (pair.leader, pair.other):
                    pair.commit(peer)
                pair.check("and then")
                pair.finish([pair.leader, pair.other])


@test(*NEEDS, timeout=120)
def the_uploader_is_killed_and_the_store_is_away(t):
    """The standby's commit fails; what the dead one may have sent cannot come back."""
    with Pair(t) as pair:
        rule = pair.remote.proxy.add(faults.black_hole(), method="PUT", path=SEGMENTS)
        pair.ask(pair.other, hasty=True)
        wait_for(lambda: rule.fired, "a PUT", PATIENCE, 0.005)
        pair.leader.kill()
        pair.answers_error(pair.other)
        pair.remote.proxy.remove(rule)
        pair.remote.proxy.drop()
        wait_for(lambda: pair.other.status()["state"] == "replicating", lambda: "replicating: %s" % pair.other.status(), PATIENCE)
        pair.check("failed", [pair.other], same=False)
        pair.leader = pair.peer()
        for peer in (pair.leader, pair.other):
            pair.commit(peer)
        pair.check("and then", same=False)


def kill_waiting(pair, stored):
    """The other one is killed while its COMMIT waits; `stored`: when the store has the transaction, and it does not know yet."""
    event, rule = pair.hold()
    number = pair.ask(pair.other)
    wait_for(lambda: rule.fired, "a PUT", PATIENCE, 0.005)
    pair.other.halt()  # it cannot go on when the answer is there
    if stored:
        event.set()
        wait_for(lambda: number in pair.restored(pair.leader), "it is stored", PATIENCE, 0.05)
    pair.other.kill()
    event.set()


@test(*NEEDS, timeout=180)
def the_standby_is_killed(t):
    """While it waits: nothing pends for ever. What was stored by then is in no generation that goes on."""
    for name, stored, closes in (("not stored", False, False), ("stored", True, False), ("stored, and the last one closes", True, True)):
        with t.part(name):
            with Pair(t, "dead%d%d" % (stored, closes)) as pair:
                kill_waiting(pair, stored)
                if closes:
                    pair.leader.close()
                    pair.leader.end()
                    pair.leader = pair.peer()
                pair.commit(pair.leader)
                check_equal(pair.leader.status()["generation"] != pair.generation, stored, "a new generation")
                pair.check("the next commit", [pair.leader], same=False)
                pair.other = pair.peer()
                for peer in (pair.leader, pair.other):
                    pair.commit(peer)
                pair.check("and then", same=False)


@test(*NEEDS, timeout=180)
def the_standby_is_killed_and_the_next_writer_locks_exclusively(t):
    """No write lock is taken then: what the dead one left is undone all the same, before it is written over."""
    for stored in (False, True):
        with t.part("stored" if stored else "not stored"):
            with Pair(t, "alone%d" % stored) as pair:
                kill_waiting(pair, stored)
                pair.leader.sql("PRAGMA locking_mode=EXCLUSIVE")
                pair.commit(pair.leader)
                check_equal(pair.leader.status()["generation"] != pair.generation, stored, "a new generation")
                pair.check("the next commit", [pair.leader], same=False)
                pair.commit(pair.leader)
                pair.check("and then", [pair.leader], same=False)


@test(*NEEDS, timeout=120)
def the_uploader_is_stopped(t):
    """The COMMIT times out and is withdrawn. When the uploader goes on it ships nothing of it, and no generation begins."""
    with Pair(t) as pair:
        for name in ("before", "while it sends"):
            if name == "before":
                pair.leader.halt()
                error = pair.fails(pair.other)
                check("the process that uploads has not answered" in error, error)
            else:
                event, rule = pair.hold()
                pair.ask(pair.other, hasty=True)
                wait_for(lambda: rule.fired, "a PUT", PATIENCE, 0.005)
                pair.leader.halt()
                pair.answers_error(pair.other)
                event.set()
            check_equal(pair.remote.crashed(), pair.remote.good, name + ": after a crash")
            pair.leader.signal(SIGCONT)
            pair.commit(pair.other)
            pair.check(name)
            pair.commit(pair.leader)
            pair.check(name + ", and then")
        pair.finish([pair.leader, pair.other])


@test(*NEEDS, timeout=120)
def degrading(t):
    """remote_on_failure=degrade in a standby: one commit waits in vain, then none does in any process until the uploader has caught up."""
    with Pair(t, timeout="700ms", remote_on_failure="degrade") as pair:
        rule = pair.remote.proxy.add(faults.black_hole(), method="PUT", path=SEGMENTS)
        pair.remote.good.append(pair.ask(pair.other, hasty=True))
        pair.other.answer()
        for peer in (pair.leader, pair.other):
            check(peer.status()["degraded"], "not degraded: %s" % peer.status())
        start = time.monotonic()
        for _ in range(15):
            pair.commit(pair.other)
            pair.commit(pair.leader)
        check(time.monotonic() - start < 50, "commits wait although it is degraded")
        check_equal((pair.other.status()["failed_commits"], pair.leader.status()["failed_commits"]), (1, 0), "failed_commits")
        pair.remote.proxy.remove(rule)
        pair.remote.proxy.drop()
        wait_for(lambda: not pair.other.status()["degraded"], lambda: "caught up: %s" % pair.other.status(), PATIENCE)
        pair.commit(pair.other)
        pair.check("caught up")
        pair.finish([pair.leader, pair.other])


@test(*NEEDS, timeout=180)
def killed_again_and_again(t):
    """Both write while either is killed: whatever was acknowledged is in the replica, and in every process."""
    with Pair(t) as pair:
        peers = [pair.leader, pair.other]
        for turn in range(30 if LONG else 5):
            for _ in range(3):
                pair.commit(t.random.choice(peers))
            asked = pair.ask(peers[1])
            time.sleep(t.random.random() * 0.02)
            victim = peers.pop(t.random.randrange(2))
            victim.kill()
            (rest,) = peers
            if victim is not pair.other:
                rest.answer()
                pair.remote.good.append(asked)
            wait_taken_over([rest], victim.pid)
            found = [row[0] for row in rest.sql("SELECT id FROM t ORDER BY id")]
            if asked in found and asked not in pair.remote.good:
                pair.remote.good.append(asked)  # nobody was told; it may be there
            check_equal(found, pair.remote.good, "turn %d: in the process that is left" % turn)
            pair.commit(rest)
            wait_for(lambda: rest.status()["state"] == "replicating", lambda: "replicating: %s" % rest.status(), PATIENCE)
            check_equal(pair.restored(rest), pair.remote.good, "turn %d: restored" % turn)
            pair.leader, pair.other = rest, pair.peer()
            peers = [pair.leader, pair.other]


if __name__ == "__main__":
    from ljtest import harness

    harness.main("standby")
