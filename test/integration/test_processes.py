#!/usr/bin/python3
"""test_processes.py - several processes on one database: one uploads, another takes over, and every commit gets to the replica."""

import os
import subprocess
import time

from shard import Shard, in_time

from ljtest import chain, harness, native, shim
from ljtest.broken import FileInTheWay
from ljtest.harness import LONG, check, check_equal, test, wait_for
from held import Hold
from peer import SIGCONT, Peer, uploader_of, wait_taken_over

HERE = os.path.dirname(os.path.abspath(__file__))
NEEDS = ("shim", "load_extension")


def finish(shard, peers, label, snapshots=1):
    """Ends all, and compares the replica with the database; returns the last link."""
    for peer in peers:
        peer.close()
        peer.end()
    return shard.check_restores(label, snapshots=snapshots, killed=True)


@test(*NEEDS, timeout=180)
def the_uploader_is_killed_again_and_again(t):
    """Three write, small checkpoints, kill -9 of whoever uploads: taken over at once, one generation, one snapshot, every commit."""
    shard = Shard(t)
    small = ["wal_autocheckpoint=20"]
    peers = [Peer(shard, pragmas=small) for _ in range(3)]
    committed = 0
    times = []
    for peer in peers:
        peer.start(0.02)
    for turn in range(40 if LONG else 6):
        time.sleep(0.2)
        leader, others = uploader_of(peers)
        seen = leader.count()
        leader.kill()
        seconds, _ = wait_taken_over(others, leader.pid)
        times.append(seconds)
        committed += seen
        peers = others + [Peer(shard, pragmas=small)]
        peers[-1].start(0.02)
    for peer in peers:
        count, errors = peer.stop()
        check_equal(errors, [], "errors of a writer")
        committed += count
    last = peers[0].last()
    peers[0].sync()
    check_equal(shard.restore_now("live"), last, "last link in the replica")
    check(last >= committed, "%d links, but %d were committed" % (last, committed))
    check_equal(finish(shard, peers, "in the end"), last, "last link")
    t.note("%d links, %d kills, taken over after %s ms" % (last, len(times), ", ".join("%.0f" % (s * 1000) for s in times)))


@test(*NEEDS, timeout=60)
def an_idle_standby_takes_over(t):
    """Without a commit or a call in any process, whether the uploader is killed or closes; what it left is shipped."""
    shard = Shard(t)
    times = []
    peers = [Peer(shard), Peer(shard)]
    peers[0].sync()
    for turn in range(20 if LONG else 6):
        leader, (other,) = uploader_of(peers)
        kill = turn % 2 == 0
        n = other.write(2)
        position = other.sync()
        if kill:
            leader.halt()  # what is committed now it cannot ship
            n = other.write(3)
            leader.kill()
        else:
            leader.close()
        start = time.monotonic()
        wait_for(lambda: other.status()["uploader"] == other.pid, "the other takes over", 60, 0.001)
        times.append(time.monotonic() - start)
        if not kill:
            leader.end()
        wait_for(lambda: other.status()["lag_frames"] == 0, lambda: "all is shipped: %s" % other.status(), 60)
        check_equal(shard.restore_now("turn %d" % turn), n, "last link in the replica, turn %d" % turn)
        check_equal(other.status()["generation"], position[:16], "generation")
        peers = [other, Peer(shard)]
    finish(shard, peers, "in the end")
    t.note("median of taking over: %.1f ms, longest %.1f ms" % (sorted(times)[len(times) // 2] * 1000, max(times) * 1000))


@test(*NEEDS, timeout=60)
def commits_of_a_standby_are_shipped_at_once(t):
    """Nobody touches the uploader's connection; the first commit after idle has a segment long before the next tick of anything."""
    shard = Shard(t, sync_interval="1s")
    leader, other = Peer(shard), Peer(shard)
    leader.sync()
    taken = []
    for turn in range(4):
        time.sleep(1.3)
        before = shard.replica.counts()[2]
        n = other.write(1)
        start = time.monotonic()
        wait_for(lambda: shard.replica.counts()[2] > before, "a segment", 60, 0.002)
        taken.append(time.monotonic() - start)
        check_equal(shard.restore_now("turn %d" % turn), n, "last link in the replica")
    check_equal(other.status()["state"], "standby", "state")
    t.note("shipped after %s ms" % ", ".join("%.0f" % (s * 1000) for s in taken))
    finish(shard, [other, leader], "in the end")


@test(*NEEDS, timeout=60)
def a_sync_is_for_the_commits_of_all(t):
    """litejoin_sync in a process that has not looked since, or never: what others have committed is in the replica behind it."""
    shard = Shard(t, sync_interval="1h")
    leader, other = Peer(shard), Peer(shard)
    other.sync()
    for turn in range(3):
        n = leader.write(2)
        other.sync()
        check_equal(shard.restore_now("by a standby, %d" % turn), n, "last link in the replica")
        n = other.write(2)
        leader.sync()
        check_equal(shard.restore_now("by the uploader, %d" % turn), n, "last link in the replica")
        n = leader.write(1)
        late = Peer(shard, opened=False)
        late.connect()
        late.sync()
        check_equal(shard.restore_now("by one that has read nothing, %d" % turn), n, "last link in the replica")
        late.close()
        late.end()
    finish(shard, [other, leader], "in the end")


@test(*NEEDS, timeout=60)
def who_opens_beside_another_goes_on_when_that_has_ended(t):
    """Opened and not read while the other one writes, checkpoints and closes: the first read behind that continues."""
    shard = Shard(t)
    leader = Peer(shard)
    leader.write(3)
    late = Peer(shard, opened=False)
    late.connect()
    leader.write(3)
    leader.close()
    leader.end()
    n = late.write(2)
    check_equal(finish(shard, [late], "in the end"), n, "last link")


def started(shard, mebibytes=0):
    """A database with a first snapshot, and an uploader that has opened it and read nothing."""
    con = shard.open()
    if mebibytes:
        con.execute("CREATE TABLE fill(a)")
        con.executemany("INSERT INTO fill VALUES(randomblob(1000000))", [()] * mebibytes)
    shard.write(con, 1)
    shim.sync(con)
    con.close()


def unread(shard, **more):
    leader = Peer(shard, opened=False, **more)
    leader.connect()
    wait_for(lambda: leader.status()["uploader"] == leader.pid, "it uploads", 60)
    return leader


@test(*NEEDS, timeout=120)
def a_standby_that_ends_with_its_commit(t):
    """The commit is shipped, and so are those of others that come later: the uploader is not left asleep."""
    shard = Shard(t)
    leader, other = Peer(shard), Peer(shard)
    for turn in range(12 if LONG else 4):
        brief = Peer(shard)
        leader.sync()
        time.sleep(0.3)  # or it may not be asleep, and the turn says nothing
        n = leader.last() + 1
        brief.ask("write_and_die")
        brief.process.wait()
        if turn % 2:
            n = other.write(1)
        wait_for(lambda: leader.status()["lag_frames"] == 0 and shard.restore_moving("turn %d" % turn) == n,
                 lambda: "all is shipped: %s" % leader.status(), 30, 0.05)
    finish(shard, [other, leader], "in the end")


@test(*NEEDS, timeout=120)
def the_last_commit_of_who_was_there_alone(t):
    """The others are killed behind it, before the uploader looks, whose own connection has read nothing: the wal-index goes with them."""
    shard = Shard(t)
    started(shard)
    leader = unread(shard)
    for turn in range(3):
        brief = Peer(shard)
        n = brief.write(1)
        brief.sync()
        leader.halt()
        n += 1
        brief.ask("write_and_die")
        brief.process.wait()
        leader.signal(SIGCONT)
        leader.sync()
        check_equal(shard.restore_now("turn %d" % turn), n, "last link in the replica")
    finish(shard, [leader, Peer(shard)], "in the end")


@test(*NEEDS, timeout=120)
def commits_are_seen_while_a_snapshot_is_read(t):
    """By an uploader whose own connection has read nothing: what a standby commits meanwhile is shipped at once."""
    shard = Shard(t)
    started(shard, mebibytes=4)
    hold = Hold(shard.data, "snapshot")
    leader = unread(shard, env=hold.environment())
    other, asks = Peer(shard), Peer(shard)
    other.write(1)
    other.sync()  # else there is nothing that the last one lacks
    asks.ask("snapshot", "110s")
    hold.wait("a snapshot is being read")
    for turn in range(3):
        n = other.write(1)
        wait_for(lambda: other.status()["lag_frames"] == 0, lambda: "turn %d is shipped: %s" % (turn, other.status()), 40)
        check_equal(shard.restore_now("turn %d" % turn), n, "last link in the replica")
    hold.let_go()
    asks.answer()
    finish(shard, [asks, other, leader], "in the end", snapshots=None)


@test(*NEEDS, timeout=120)
def a_look_is_in_nobodys_way(t):
    """The uploader has read nothing and looks at what a standby commits, which closes at once: no WAL stays, as without the uploader."""
    shard = Shard(t)
    started(shard)
    leader, brief = unread(shard), Peer(shard, opened=False)
    left = 0
    for _ in range(150 if LONG else 40):
        brief.open()
        n = brief.write(1)
        brief.close()
        left += os.path.exists(shard.path + "-wal")
    check(left <= 2, "%d closes left a WAL" % left)  # whatever else may have had the file for a moment
    wait_for(lambda: leader.status()["lag_frames"] == 0, lambda: "all is shipped: %s" % leader.status(), 60)
    check_equal(shard.restore_now("at rest"), n, "last link in the replica")
    brief.end()
    leader.close()
    leader.end()
    shard.check_restores("in the end", killed=True)


@test(*NEEDS, timeout=60)
def what_a_standby_can_ask_for(t):
    shard = Shard(t, sync_interval="1h")
    leader, other = Peer(shard), Peer(shard)
    leader.sync()
    n = other.write(5)
    position = other.sync()
    check_equal(shard.restore_now("sync"), n, "last link after litejoin_sync of a standby")
    ours, theirs = other.status(), leader.status()
    check_equal((ours["state"], theirs["state"]), ("standby", "replicating"), "states")
    check_equal((ours["uploader"], theirs["uploader"]), (leader.pid, leader.pid), "uploader")
    for key in ("generation", "replica_index", "replica_offset", "local_index", "local_offset", "last_snapshot"):
        check_equal(ours[key], theirs[key], key + " of the standby against the uploader's")
    check_equal("%s/%08x:%d" % (ours["generation"], ours["replica_index"], ours["replica_offset"]), position, "position")
    check_equal((ours["lag_ms"], ours["lag_frames"]), (0, 0), "lag")
    leader.halt()
    other.write(2)
    behind = {}

    def lags():
        behind.update(other.status())
        return behind["lag_frames"] > 0 and behind["lag_ms"] > 0

    wait_for(lags, lambda: "lag while nobody ships: %s" % behind)
    leader.signal(SIGCONT)
    other.snapshot()
    check_equal(shard.replica.counts()[1], 2, "snapshots after litejoin_snapshot of a standby")
    other.snapshot()
    check_equal(shard.replica.counts()[1], 2, "snapshots after another one without a commit")
    n = other.write(7)
    other.close()  # ships what it wrote, although the next tick is far away
    check_equal(shard.restore_now("close"), n, "last link after the standby closed")
    other.end()
    finish(shard, [leader], "in the end", snapshots=2)


@test(*NEEDS, timeout=120)
def checkpoints_of_a_standby_with_a_failing_replica(t):
    """They never see BUSY, frames go to the spool, and nothing is lost when the replica heals. Also when the uploader dies meanwhile."""
    for kill in (False, True):
        with t.part("uploader killed" if kill else "uploader lives"):
            shard = Shard(t, folder="k%d" % kill)
            leader, other = Peer(shard), Peer(shard)
            leader.write(3)
            leader.sync()
            broken = FileInTheWay(shard.base)
            broken.fail()
            for mode in ("RESTART", "TRUNCATE") * 3:
                other.write(3)
                (row,) = other.sql("PRAGMA wal_checkpoint(%s)" % mode)
                check_equal((row[0], row[1] - row[2]), (0, 0), "result of " + mode)
            n = other.write(2)
            status = other.status()
            check(status["spool_bytes"] > 0, "nothing was spooled: %s" % status)
            check_equal(leader.status()["spool_bytes"], status["spool_bytes"], "spool_bytes of the uploader")
            wait_for(lambda: other.status()["last_error"], "the standby shows the uploader's error", 60)
            if kill:
                leader.kill()
                wait_taken_over([other], leader.pid)
            broken.heal()
            other.sync()
            check_equal(shard.restore_now("healed"), n, "last link in the replica")
            wait_for(lambda: other.status()["spool_bytes"] == 0, "an empty spool", 60)
            finish(shard, [other] if kill else [other, leader], "in the end")


@test(*NEEDS, timeout=60)
def the_spool_of_all_processes_has_one_limit(t):
    """Beyond it the generation ends, loudly and for all; the application goes on."""
    shard = Shard(t, max_spool_size="64KiB")
    leader, other = Peer(shard), Peer(shard)
    leader.sync()
    first = shard.generation()
    broken = FileInTheWay(shard.base)
    broken.fail()
    worst = 0
    for turn in range(12):
        peer = (leader, other)[turn % 2]
        peer.write(2)
        (row,) = peer.sql("PRAGMA wal_checkpoint(TRUNCATE)")
        check_equal(row[0], 0, "busy of TRUNCATE")
        spool = os.path.join(shard.data, ".shard_0.db-litejoin", "spool")
        ranges = [name.split(".")[0].split("-")[2:4] for name in os.listdir(spool) if name.endswith(".wal")]
        worst = max(worst, sum(int(end, 16) - int(start, 16) for start, end in ranges))
    n = other.last()
    broken.heal()
    other.sync()
    check(0 < worst <= 64 * 1024, "%d bytes in the spool" % worst)
    check(shard.generation() != first, "the generation went on although frames were lost")
    check_equal(shard.restore_now("healed"), n, "last link in the replica")
    for peer in (leader, other):
        peer.close()
        peer.end()
    shard.check_restores("in the end", one_generation=False)


@test(*NEEDS, timeout=60)
def a_stopped_uploader_keeps_its_role(t):
    """SIGSTOP: nobody takes over, commits and checkpoints of the others go on, and after SIGCONT it ships them all."""
    shard = Shard(t)
    leader, other, third = [Peer(shard, pragmas=["wal_autocheckpoint=10"]) for _ in range(3)]
    leader.sync()
    leader.halt()
    slowest = 0.0
    for turn in range(8):
        for peer in (other, third):
            start = time.monotonic()
            n = peer.write(3)
            slowest = max(slowest, time.monotonic() - start)
        (row,) = other.sql("PRAGMA wal_checkpoint(%s)" % ("RESTART", "TRUNCATE")[turn % 2])
        check_equal(row[0], 0, "busy of a checkpoint")
    check_equal(other.status()["uploader"], leader.pid, "uploader while it is stopped")
    check(other.status()["spool_bytes"] > 0, "nothing was spooled")
    error = must_fail_remote(other, "sync", "300ms")
    check("does not have every commit" in error, "sync while nobody ships: " + error)
    leader.signal(SIGCONT)
    other.sync()
    check_equal(shard.restore_now("continued"), n, "last link in the replica")
    t.note("slowest three commits beside a stopped uploader: %.0f ms" % (slowest * 1000))
    finish(shard, [third, leader, other], "in the end")


def must_fail_remote(peer, name, *arguments):
    try:
        result = getattr(peer, name)(*arguments)
    except harness.Failure as failure:
        return str(failure)
    raise harness.Failure("%s worked (%r), although it cannot" % (name, result))


@test(*NEEDS, timeout=120)
def closing_in_every_order(t):
    """The last one out ships the rest and leaves a database that the next process continues."""
    for order in ((0, 1, 2), (2, 1, 0), (1, 0, 2), (1, 2, 0)):
        with t.part("order %s" % (order,)):
            shard = Shard(t, folder="o%d%d%d" % order, sync_interval="1h")
            peers = [Peer(shard) for _ in range(3)]
            peers[0].sync()
            for number, place in enumerate(order):
                n = peers[place].write(2)
                if number == 1:
                    peers[place].sql("PRAGMA wal_checkpoint(TRUNCATE)")
                    n = peers[order[2]].write(1)
                peers[place].close()
                peers[place].end()
            check_equal(shard.check_restores("closed", snapshots=1), n, "last link")
            again = Peer(shard)
            check_equal(again.last(), n, "last link of the next process")
            again.write(1)
            finish(shard, [again], "the next process")


@test(*NEEDS, timeout=120)
def forked_workers_join_in(t):
    """A child goes quiet with what it inherited, opens the database itself, is a standby, and takes over when its parent dies."""
    shard = Shard(t)
    parent = Peer(shard)
    parent.write(3)
    parent.sync()
    check_equal(parent.fork(4), 0, "status of the child")
    n = parent.write(1)
    check_equal(n, 8, "links")
    parent.sync()
    other = Peer(shard)
    check_equal(other.fork(2), 0, "status of a standby's child")
    check_equal(parent.status()["uploader"], parent.pid, "uploader")
    parent.kill()
    wait_taken_over([other], parent.pid)
    n = other.write(1)
    check_equal(finish(shard, [other], "in the end"), n, "last link")


@test(*NEEDS, timeout=120)
def a_prefork_server_whose_master_ends_first(t):
    """The master opens, forks workers and dies; the workers, each with a connection of its own, are all there is."""
    shard = Shard(t)
    ready, tell = os.pipe()
    go, start = os.pipe()
    master = os.fork()
    if master == 0:
        con = shard.open()
        shard.write(con, 2)
        shim.sync(con)
        for _ in range(3):
            if os.fork() == 0:
                mine = shim.connect(shard.path, shard.base)
                chain.last(mine)
                os.write(tell, b"%d\n" % os.getpid())
                os.read(go, 1)
                for _ in range(10):
                    chain.commit_one(mine, t.random)
                mine.close()
                os.write(tell, b"x")
                os._exit(0)
        os.read(go, 1)
        os.kill(os.getpid(), 9)
    pids = b""
    while pids.count(b"\n") < 3:
        pids += os.read(ready, 100)
    os.write(start, b"m")  # whoever reads it first: the master or a worker; the rest follows
    os.write(start, b"mmm")
    check(os.waitpid(master, 0)[1] != 0, "the master ended by itself")
    done = b""
    while done.count(b"x") < 3:
        done += os.read(ready, 100)
    con = shard.open(create=False)
    shim.sync(con)
    check_equal(chain.last(con), 32, "last link")
    con.close()
    check_equal(shard.check_restores("in the end", snapshots=1, killed=True), 32, "last link")


@test(*NEEDS, timeout=60)
def another_url_is_refused(t):
    """The second process says so, replicates nothing, loses nothing of the first one's, and takes no part in the succession."""
    shard = Shard(t)
    leader = Peer(shard)
    leader.sync()
    wrong = Peer(shard, base=t.path("elsewhere"))
    status = wrong.status()
    check(status["state"].startswith("not replicating: another process replicates it to file://"), "state: %s" % status)
    check("elsewhere" in status["last_error"] and shard.base in status["last_error"], "last_error: %s" % status)
    error = must_fail_remote(wrong, "sync")
    check("another process replicates" in error, "sync: " + error)
    n = wrong.write(5)
    wrong.sql("PRAGMA wal_checkpoint(TRUNCATE)")
    n = wrong.write(5)
    wait_for(lambda: leader.status()["lag_frames"] == 0 and shard.restore_moving("shipped") == n, "its commits are shipped", 60)
    check(not os.path.exists(t.path("elsewhere")), "something was written to the other replica")
    leader.kill()
    n = wrong.write(2)
    check_equal(wrong.status()["state"], status["state"], "state after the uploader died")
    again = Peer(shard)
    wait_for(lambda: again.status()["uploader"] == again.pid, "the next one with the right URL takes over", 60)
    again.sync()
    check_equal(shard.restore_now("again"), n, "last link in the replica")
    finish(shard, [wrong, again], "in the end")
    check(not os.path.exists(t.path("elsewhere")), "something was written to the other replica")


@test(*NEEDS, timeout=60)
def idle_processes_are_not_woken(t):
    shard = Shard(t, snapshot_interval="500ms")
    peers = [Peer(shard) for _ in range(3)]
    peers[1].write(30)
    peers[2].sync()
    time.sleep(2)
    wait_for(lambda: peers[0].status()["lag_frames"] == 0, "all is shipped", 60)

    def at_rest():
        before, files = [peer.wakeups() for peer in peers], shard.replica.files()
        time.sleep(2.0)
        more = [peer.wakeups() - was for peer, was in zip(peers, before)]
        if shard.replica.files() != files:
            return "files of the replica change"
        return "background threads woke %s times in 2 s" % more if max(more) > 3 else ""

    in_time(at_rest)  # on a slow machine the last of the work may still be going on; what polls is never idle
    finish(shard, peers, "in the end", snapshots=None)


@test(*NEEDS, timeout=120)
def a_snapshot_makes_room_for_other_processes(t):
    """While the uploader reads a large snapshot, a RESTART or TRUNCATE checkpoint of a standby works, and the snapshot is made later."""
    shard = Shard(t)
    leader, other = Peer(shard), Peer(shard)
    leader.sql("CREATE TABLE fill(a)")
    leader.sql("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 800) "
               "INSERT INTO fill SELECT randomblob(50000) FROM n")
    leader.sql("PRAGMA wal_checkpoint(TRUNCATE)")
    leader.sync("60s")
    made = 0
    met = 0
    for turn in range(4):
        before = shard.replica.counts()[1]
        leader.write(1)
        leader.ask("snapshot", "60s")
        end = time.monotonic() + 60
        while shard.replica.counts()[1] == before and time.monotonic() < end:
            other.write(1)
            busy = [other.sql("PRAGMA wal_checkpoint(%s)" % mode)[0][0] for mode in ("RESTART", "TRUNCATE")]
            met += 1
            made += busy.count(0)
            check(met < 5 or made > met, "%d of %d checkpoints were busy" % (2 * met - made, 2 * met))
            time.sleep(0.02)
        leader.answer()
    t.note("%d of %d checkpoints done while %d snapshots were made" % (made, 2 * met, 4))
    (row,) = other.sql("PRAGMA wal_checkpoint(TRUNCATE)")
    check_equal(row[0], 0, "busy of TRUNCATE behind the snapshots")
    n = other.write(1)
    check_equal(finish(shard, [other, leader], "in the end", snapshots=None), n, "last link")


@test(*NEEDS, timeout=60)
def leaving_wal_mode_beside_a_quiet_uploader(t):
    """The uploader's connection holds no lock; a standby takes the database out of WAL mode and back."""
    shard = Shard(t)
    leader, other = Peer(shard), Peer(shard)
    leader.write(3)
    leader.sync()
    leader.close()
    wait_for(lambda: other.status()["uploader"] == other.pid, "the other takes over", 60)
    leader.open()
    other.write(2)
    other.sync()
    leader.close()
    (row,) = other.sql("PRAGMA journal_mode=DELETE")
    check_equal(row[0], "delete", "journal_mode")
    other.write(2)
    check_equal(other.status()["state"], "not replicating: journal_mode=delete", "state")
    (row,) = other.sql("PRAGMA journal_mode=WAL")
    check_equal(row[0], "wal", "journal_mode")
    n = other.write(2)
    other.sync()
    check_equal(shard.restore_now("back in WAL mode"), n, "last link in the replica")
    leader.end()
    other.close()
    other.end()
    shard.check_restores("in the end", one_generation=False)


@test(*NEEDS, timeout=60)
def a_full_stop_of_all_processes(t):
    """kill -9 of the uploader and all others at once: the next open goes on in the generation."""
    shard = Shard(t)
    for turn in range(6 if LONG else 3):
        peers = [Peer(shard, pragmas=["wal_autocheckpoint=10"]) for _ in range(3)]
        for peer in peers:
            peer.start(0.05)
        time.sleep(0.4)
        for peer in peers:
            peer.kill()
        con = shard.open(create=False)
        last = chain.verify(con, "next open")
        shim.sync(con)
        con.close()
        check_equal(shard.check_restores("turn %d" % turn, snapshots=1, killed=True), last, "last link")


def die_taking_over(t, shard, library, at):
    """
    One process uploads and is killed with frames in the WAL and in the spool; the next dies before its at-th change of a file; the last
    one takes over from it. True when the second one got through.
    """
    leader, heir, last = Peer(shard), Peer(shard, env={"LD_PRELOAD": library}), Peer(shard)
    leader.write(1)
    leader.sync()
    leader.halt()
    last.write(2)
    (row,) = last.sql("PRAGMA wal_checkpoint(TRUNCATE)")
    check_equal(row[0], 0, "busy of TRUNCATE")
    n = last.write(2)
    heir.arm(shard.t.path(), at)
    last.halt()
    leader.kill()
    died = wait_for(lambda: heir.process.poll() is not None or shard.restore_now("heir %d" % at) == n,
                    "the heir dies or ships all", 30, 0.05) and heir.process.poll() is not None
    last.signal(SIGCONT)
    if died:
        wait_taken_over([last], heir.pid)
    last.sync()
    check_equal(shard.restore_now("step %d" % at), n, "last link after step %d" % at)
    for peer in [last] if died else [last, heir]:
        if peer is heir:
            peer.arm("", 0)
        peer.close()
        peer.end()
    shard.check_restores("closed after step %d" % at, snapshots=1, killed=True)
    return not died


@test(*NEEDS, timeout=240, long_timeout=1200)
def killed_at_the_steps_of_taking_over(t):
    try:
        library = native.shared_library(os.path.join(HERE, "..", "crash", "killat.c"), "-ldl")
    except (OSError, subprocess.CalledProcessError) as error:
        raise harness.Skip("cannot build killat.c: %s" % error)
    shard = Shard(t)
    at = kills = 0
    done = False
    while not done:
        at += 1 if LONG else t.random.randint(2, 6)
        done = die_taking_over(t, shard, library, at)
        kills += not done
    t.note("%d kills, through after %d calls" % (kills, at))
    check(kills > 0, "the heir changed no file")


@test(*NEEDS, timeout=60)
def without_fifos_it_polls(t):
    """A folder in the FIFO's place that cannot be removed: the uploader looks four times a second, and a standby still takes over."""
    shard = Shard(t)
    os.makedirs(os.path.join(shard.data, ".shard_0.db-litejoin", "bell", "x"))
    leader, other = Peer(shard), Peer(shard)
    leader.sync()
    n = other.write(3)
    wait_for(lambda: shard.restore_moving("polled") == n, "commits of the standby are shipped", 60, 0.1)
    leader.kill()
    wait_taken_over([other], leader.pid)
    n = other.write(1)
    other.sync()
    check_equal(finish(shard, [other], "in the end"), n, "last link")


if __name__ == "__main__":
    harness.main("processes")
