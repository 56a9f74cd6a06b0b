#!/usr/bin/python3
"""test_snapshots.py - snapshots under load, their interval, retention, and restores to any point in time."""

import os
import select
import shutil
import time

from held import Hold
from inotify import Watch
from peer import Peer
from shard import Plain, Shard, foreign_link, quiet, wait_caught_up

from ljtest import broken, chain, cli, harness, lz4frame, pages, shim
from ljtest.harness import LONG, Failure, check, check_equal, test, wait_for
from ljtest.replica import SEGMENT, SNAPSHOT, Replica
from ljtest.workload import Threads

NEEDS = ("shim", "load_extension")
SLOW = 60  # seconds more that a slow machine gets


def write_for(shard, con, seconds, pause=0.02, until=lambda: True):
    """Commits for so long, and on a slow machine until something has happened; returns the last link."""
    end = time.monotonic() + seconds
    n = 0
    while time.monotonic() < end or (not until() and time.monotonic() < end + SLOW):
        n = shard.write(con, 1)
        time.sleep(pause)
    return n


@test(*NEEDS, timeout=120)
def each_snapshot_alone_is_sound_while_writers_and_checkpoints_run(t):
    """
    A1.1: snapshots are made while several writers commit and every checkpoint mode runs. Each image by itself passes
    integrity_check and is a committed prefix; each one with the WAL behind it gives the final database.
    """
    shard = Shard(t, snapshot_interval="300ms", retention="0")
    con = shard.open()
    con.execute("CREATE TABLE fill(id INTEGER PRIMARY KEY, a)")
    con.executemany("INSERT INTO fill(a) VALUES(randomblob(50000))", [()] * (4000 if LONG else 120))
    con.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    load = Threads(lambda: shard.open(create=False, pragmas=("wal_autocheckpoint=10",)), t.seed, writers=2,
                   reader=False, pause=0.001).start()
    end = time.monotonic() + (60 if LONG else 4)
    while time.monotonic() < end or (shim.status(con)["snapshots"] < 4 and time.monotonic() < end + SLOW):
        con.execute("UPDATE fill SET a = randomblob(50000) WHERE id = ?", (t.random.randint(1, 120),))
        time.sleep(0.02)
    load.stop()
    check(not load.errors, "; ".join(load.errors))
    con.close()
    shard.check_restores("closed")
    generation = shard.replica.newest()
    check(len(generation.snapshots) >= 4, "only %d snapshots" % len(generation.snapshots))
    links = []
    for snapshot in generation.snapshots:
        alone = t.path("alone.db")
        with open(alone, "wb") as file:
            file.write(snapshot.data())
        pages.check_integrity(alone, "%r alone" % snapshot)
        links.append(chain.verify_file(alone, "%r alone" % snapshot))
        shard.replica.restore(t.path("full.db"), generation=generation.name, snapshot=snapshot.index)
        pages.check_same(t.path("full.db"), shard.path, "%r with all WAL behind it" % snapshot)
    check_equal(links, sorted(links), "links in the snapshots, in order")
    t.note("%d snapshots at links %s, %d WAL indexes, %d checkpoints" %
           (len(links), links, len(generation.indexes()), load.checkpoints))
    every_point_in_time(t, shard, generation)


def every_point_in_time(t, shard, generation, most=20):
    """
    At the time of every object (or a sample) the replica restores to a sound committed prefix, never older than the
    one before. A snapshot that holds frames newer than the WAL of its time would fail here.
    """
    times = sorted({o.time_ns for o in generation.segments + generation.snapshots})
    first = min(s.time_ns for s in generation.snapshots)
    times = [at for at in times if at >= first]
    step = max(1, len(times) // most)
    snapshots = {s.time_ns for s in generation.snapshots}
    times = [at for i, at in enumerate(times) if i % step == 0 or at in snapshots]
    last = 0
    for at in times:
        n = shard.restore_now("at " + cli.rfc3339(at), generation=generation.name, until_ns=at)
        check(n >= last, "restored link %d at %s, but %d before" % (n, cli.rfc3339(at), last))
        last = n
    for tool in cli.restorers():
        at = times[len(times) // 2]
        shard.replica.restore(t.path("at.db"), generation=generation.name, until_ns=at)
        if os.path.exists(t.path("tool.db")):
            os.unlink(t.path("tool.db"))
        tool.restore(shard.root, t.path("tool.db"), "-timestamp", cli.rfc3339(at))
        pages.check_same(t.path("tool.db"), t.path("at.db"), "%s at %s" % (tool.name, cli.rfc3339(at)))


@test(*NEEDS)
def snapshots_come_each_interval(t):
    """snapshot_interval=400ms: about one per interval while there are changes, none without, all of them sound."""
    shard = Shard(t, snapshot_interval="400ms")
    con = shard.open(pragmas=("wal_autocheckpoint=20",))
    start = time.monotonic()
    write_for(shard, con, 3.0, until=lambda: shim.status(con)["snapshots"] >= 5)
    wait_caught_up(con)
    made = shard.replica.counts()[1]
    seconds = time.monotonic() - start
    # due after seven eighths of the interval, and the first one at once
    check(5 <= made <= 2 + seconds / 0.35, "%d snapshots in %.1f s with snapshot_interval=400ms" % (made, seconds))
    quiet(shard.replica.files, 1.5, "files of the replica change while nothing else does")  # the last change may still bring one
    made = shard.replica.counts()[1]
    n = shard.write(con, 1)
    wait_for(lambda: shard.replica.counts()[1] > made, "a snapshot after the next change")
    con.close()
    check_equal(shard.check_restores("closed"), n, "last link")


@test(*NEEDS)
def the_snapshot_timer_survives_restarts(t):
    """Lives shorter than the interval: snapshots come at the interval's pace, not per life and not never (A4.6)."""
    shard = Shard(t, snapshot_interval="1200ms")
    start = time.monotonic()
    lives = 0
    while time.monotonic() < start + 5.0 or (shard.replica.counts()[1] < 3 and time.monotonic() < start + SLOW):
        con = shard.open()
        n = write_for(shard, con, 0.3)
        con.close()
        lives += 1
    seconds = time.monotonic() - start
    made = shard.replica.counts()[1]
    check(3 <= made <= 2 + seconds / 1.05, "%d snapshots in %.1f s and %d lives with snapshot_interval=1200ms" %
          (made, seconds, lives))
    check_equal(shard.check_restores("closed"), n, "last link")


@test(*NEEDS)
def no_snapshot_beyond_the_first_without_an_interval(t):
    shard = Shard(t, snapshot_interval="0")
    con = shard.open(pragmas=("wal_autocheckpoint=5",))
    n = write_for(shard, con, 1.5)
    con.close()
    check_equal(shard.check_restores("closed", snapshots=1), n, "last link")


@test(*NEEDS)
def asking_for_snapshots(t):
    """
    litejoin_snapshot makes one at once and waits for it. The layout has one per WAL index: asking again within one WAL
    may find nothing to do, but must not replace the one that is there: earlier points in time stay restorable.
    """
    shard = Shard(t)
    con = shard.open(pragmas=("wal_autocheckpoint=0",))
    marks = []
    for turn in range(4):
        n = shard.write(con, 5)
        shim.sync(con)
        time.sleep(0.01)
        marks.append((time.time_ns(), n))
        time.sleep(0.01)
        before = shim.status(con)["snapshots"]
        if turn % 2:
            con.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            shard.write(con, 1)
        shim.snapshot(con)
        made = shim.status(con)["snapshots"] - before
        check(made == 1 or (made == 0 and turn % 2 == 0), "turn %d made %d snapshots" % (turn, made))
        n = shard.write(con, 1)
        shim.sync(con)
        check_equal(shard.restore_now("turn %d" % turn), n, "last link")
    con.close()
    shard.check_restores("closed")
    for at, n in marks:
        check_equal(shard.restore_now("at " + cli.rfc3339(at), until_ns=at), n, "last link at that time")


class Order:
    """Follows what appears and disappears in a generation's folders, and finds orders that could hurt a restore."""

    def __init__(self, generation):
        self.wal = os.path.join(generation.dir, "wal")
        self.snapshots = os.path.join(generation.dir, "snapshots")
        self.watch = Watch(self.wal, self.snapshots)
        self.present = {}     # index -> offsets that are there
        self.kept = {s.index for s in generation.snapshots}
        self.deleted = 0
        for segment in generation.segments + generation.marks:
            self.present.setdefault(segment.index, set()).add(segment.offset)

    def follow(self):
        problems = []
        for kind, folder, name in self.watch.events():
            pattern = SEGMENT if folder == self.wal else SNAPSHOT
            match = pattern.match(name)
            if not match:
                continue
            numbers = [int(text, 16) for text in match.groups()]
            if folder == self.snapshots:
                (self.kept.add if kind == "made" else self.kept.discard)(numbers[0])
                self.deleted += kind == "deleted"
                if not self.kept:
                    problems.append("the last snapshot was deleted")
                continue
            index, offset = numbers
            offsets = self.present.setdefault(index, set())
            if kind == "made":
                if offsets and offset < max(offsets):
                    problems.append("segment %08x_%08x appeared after %08x" % (index, offset, max(offsets)))
                offsets.add(offset)
                continue
            self.deleted += 1
            if offsets and offset != max(offsets):
                problems.append("segment %08x_%08x deleted before offset %08x" % (index, offset, max(offsets)))
            offsets.discard(offset)
            needing = [s for s in self.kept if s <= index]
            if needing:
                problems.append("segment %08x_%08x deleted while snapshot %08x still needs it" %
                                (index, offset, min(needing)))
        return problems


@test(*NEEDS)
def asking_before_anything_of_the_index_is_shipped(t):
    """The index has its snapshot and no segment yet: what was committed is shipped first, so that the next index can have one."""
    shard = Shard(t, sync_interval="1h")
    con = shard.open(pragmas=("wal_autocheckpoint=0",))
    shim.sync(con)
    for turn in range(3):
        n = shard.write(con, 1)
        before = shim.status(con)["snapshots"]
        shim.snapshot(con)
        check_equal(shim.status(con)["snapshots"], before + 1, "snapshots behind turn %d" % turn)
        check_equal(shard.restore_now("turn %d" % turn), n, "last link")
    con.close()
    check_equal(shard.check_restores("closed"), n, "last link")


@test(*NEEDS, timeout=90)
def retention_deletes_in_order_and_never_too_much(t):
    shard = Shard(t, snapshot_interval="200ms", retention="800ms", sync_interval="20ms")
    con = shard.open(pragmas=("wal_autocheckpoint=8",))
    shard.write(con, 3)
    shim.sync(con)
    shard.write(con, 3)  # the first sync may have been answered by the snapshot alone; now there is a wal folder too
    shim.sync(con)
    order = Order(shard.replica.newest())
    marks = []
    end = time.monotonic() + (40 if LONG else 5)
    most = 0
    while time.monotonic() < end or (order.deleted <= 5 and time.monotonic() < end + SLOW):
        n = shard.write(con, 5)
        if t.random.random() < 0.2:
            shim.sync(con)
            time.sleep(0.002)
            marks.append((time.time_ns(), n))
            time.sleep(0.002)
            check_equal(shard.restore_moving("during retention"), n, "last link")
        most = max(most, shard.replica.counts()[1])
        problems = order.follow()
        check(not problems, "; ".join(problems[:5]))
        time.sleep(0.01)
    now = time.time_ns()
    check(order.deleted > 5, "only %d objects were deleted" % order.deleted)
    check(most <= 12, "%d snapshots at once with retention=800ms and snapshot_interval=200ms" % most)
    recent = 0
    for at, n in [(at, n) for at, n in marks if at > now - 700 * 10 ** 6]:
        try:
            got = shard.restore_now("within retention, " + cli.rfc3339(at), until_ns=at)
        except (FileNotFoundError, Failure):
            if time.time_ns() - at < 800 * 10 ** 6:
                raise
            continue  # its time was over before we had read it
        check_equal(got, n, "last link at that time")
        recent += 1
    n = shard.write(con, 1)
    shim.sync(con)
    time.sleep(1.5)
    quiet(shard.replica.files, 1.5, "files of the replica change while idle past the retention")
    check(shard.replica.counts()[1] >= 1, "idle: the last snapshot was deleted")
    check_equal(shard.restore_now("idle past the retention"), n, "last link")
    con.close()
    check_equal(shard.check_restores("closed"), n, "last link")
    t.note("%d objects deleted, at most %d snapshots at once, %d points within retention" %
           (order.deleted, most, recent))


@test(*NEEDS)
def old_generations_go_when_their_time_is_over(t):
    """Not before a newer one is restorable and the retention is over."""
    shard = Shard(t, snapshot_interval="200ms", retention="1500ms")
    con = shard.open()
    before = shard.write(con, 10)
    con.close()
    old = shard.replica.newest()
    foreign_link(shard.path)
    con = shard.open(create=False)
    n = shard.write(con, 5)
    shim.sync(con)
    check(shard.generation() != old.name, "no new generation after a plain writer")
    try:
        got = shard.restore_now("old generation", generation=old.name)
    except (FileNotFoundError, Failure):
        if time.time_ns() - old.updated_ns() < 1500 * 10 ** 6:
            raise
        got = before  # its time was over before we had read it
    check_equal(got, before, "old generation within the retention")
    end = time.monotonic() + SLOW
    while time.monotonic() < end and len(shard.replica.generations()) > 1:
        n = shard.write(con, 2)
        time.sleep(0.05)
    check_equal([g.name for g in shard.replica.generations()], [shim.status(con)["generation"]], "generations")
    n = chain.last(con)
    con.close()
    check_equal(shard.check_restores("closed"), n, "last link")


@test(*NEEDS)
def a_snapshot_that_cannot_be_written_is_tried_again(t):
    """The folder for snapshots is a file for a while: WAL goes on, the old chain stays, nothing is deleted (A2.5)."""
    shard = Shard(t, snapshot_interval="300ms", retention="600ms")
    con = shard.open(pragmas=("wal_autocheckpoint=10",))
    shard.write(con, 5)
    shim.sync(con)
    folder = os.path.join(shard.replica.newest().dir, "snapshots")
    way = broken.FileInTheWay(folder)
    way.fail()
    survivors = len(os.listdir(way.aside))
    status = {}

    def told():
        status.update(shim.status(con))
        return status["last_error"]

    write_for(shard, con, 1.5, until=told)
    check(told(), "the failing snapshot does not show: %s" % status)
    t.note(status["last_error"])
    check_equal(len(os.listdir(way.aside)), survivors, "snapshots that survived")
    way.heal()
    n = chain.last(con)
    shim.sync(con)
    check_equal(shard.restore_now("after the trouble"), n, "last link")
    wait_for(lambda: shard.write(con, 1) and len(shard.replica.newest().snapshots) >= 2, "another snapshot", SLOW, 0.05)
    wait_caught_up(con)
    n = chain.last(con)
    con.close()
    check_equal(shard.check_restores("closed"), n, "last link")


@test(*NEEDS)
def a_snapshot_during_a_long_read_or_write_transaction(t):
    """Neither an old reader nor a writer in the middle of a spilled transaction makes a snapshot wrong or hang."""
    shard = Shard(t)
    con = shard.open(pragmas=("cache_size=5",))
    shard.write(con, 20)
    reader = shard.open()
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM chain").fetchone()
    n = shard.write(con, 20)
    side = shard.open()
    shim.snapshot(side, "60s")
    con.execute("CREATE TABLE fill(a)")
    con.execute("BEGIN IMMEDIATE")
    con.executemany("INSERT INTO fill VALUES(randomblob(3000))", [()] * 300)
    shim.snapshot(side, "60s")
    shim.sync(side)
    check_equal(shard.restore_now("in the middle of a transaction"), n, "last link")
    alone = t.path("alone.db")
    with open(alone, "wb") as file:
        file.write(shard.replica.newest().snapshots[-1].data())
    pages.check_integrity(alone, "the snapshot alone")
    con.execute("ROLLBACK")
    reader.execute("COMMIT")
    for closing in (reader, side):
        closing.close()
    n = shard.write(con, 3)
    con.close()
    check_equal(shard.check_restores("closed"), n, "last link")


@test(*NEEDS)
def a_first_snapshot_under_exclusive_locking_when_the_wal_is_empty(t):
    """The replica fails until all that was committed has left the WAL again: the database file alone has it then."""
    for mode in ("TRUNCATE", "RESTART"):
        with t.part(mode):
            shard = Shard(t, "exclusive_" + mode)
            con = shim.connect(shard.path, shard.base)
            way = broken.FileInTheWay(shard.base)
            way.fail()
            for pragma in ("locking_mode=EXCLUSIVE", "journal_mode=WAL"):
                con.execute("PRAGMA " + pragma).fetchall()
            chain.create(con)
            n = shard.write(con, 5)
            wait_for(lambda: shim.status(con)["last_error"], "an error of the replica")
            con.execute("PRAGMA wal_checkpoint(%s)" % mode).fetchall()
            if mode == "RESTART":  # a header and frames of the next life, but no commit
                con.execute("PRAGMA cache_size=5").fetchall()
                con.execute("BEGIN")
                con.execute("CREATE TABLE spilled(a)")
                con.executemany("INSERT INTO spilled VALUES(randomblob(900))", [()] * 100)
                con.execute("ROLLBACK")
            way.heal()
            shim.sync(con, "30s")
            check_equal(shard.restore_now("at once"), n, "last link")
            n = shard.write(con, 3)
            con.close()
            check_equal(shard.check_restores("closed"), n, "last link")
            check_equal(shard.replica.counts()[:2], (1, 1), "generations and snapshots")


@test(*NEEDS)
def none_of_what_another_program_has_for_itself(t):
    """Its commits and checkpoints are not seen here: a snapshot would have pages from before and from behind them."""
    shard = Shard(t)
    plain = Plain(t, shard.path)
    plain.run("PRAGMA locking_mode=EXCLUSIVE", "PRAGMA journal_mode=WAL", "PRAGMA wal_autocheckpoint=0",
              "CREATE TABLE a(v)", "CREATE TABLE b(v)", "INSERT INTO a VALUES(0)", "INSERT INTO b VALUES(0)",
              "PRAGMA wal_checkpoint(TRUNCATE)", "UPDATE b SET v = 1")
    way = broken.FileInTheWay(shard.base)
    way.fail()
    con = shim.connect(shard.path, shard.base)
    wait_for(lambda: shim.status(con)["last_error"], "an error of the replica")
    plain.run("BEGIN", "UPDATE a SET v = 2", "UPDATE b SET v = 2", "COMMIT", "PRAGMA wal_checkpoint(PASSIVE)")
    way.heal()

    def restored():
        shard.replica.restore(t.path("now.db"))
        look = shim.plain(t.path("now.db"))
        values = look.execute("SELECT a.v, b.v FROM a, b").fetchone()
        look.close()
        return values

    wait_for(lambda: shim.status(con)["snapshots"] or "exclusively" in shim.status(con)["last_error"],
             lambda: "an attempt at a snapshot: %s" % shim.status(con))
    check(not shim.status(con)["snapshots"], lambda: "a snapshot was taken, of %s" % (restored(),))
    plain.close()
    check_equal(con.execute("SELECT a.v, b.v FROM a, b").fetchone(), (2, 2), "the database")
    shim.sync(con)
    check_equal(restored(), (2, 2), "the replica")
    con.close()


@test(*NEEDS)
def checkpoints_during_the_first_snapshot_cause_no_second_one(t):
    """A database that was there before the shim: while its first snapshot is made, the application restarts the WAL."""
    shard = Shard(t)
    con = shim.plain(shard.path, pragmas=("journal_mode=WAL", "synchronous=OFF"))
    chain.create(con)
    con.execute("CREATE TABLE fill(a)")
    con.executemany("INSERT INTO fill VALUES(randomblob(50000))", [()] * 800)
    con.close()
    con = shard.open()
    for mode in ("TRUNCATE", "RESTART", "PASSIVE", "TRUNCATE") * 5:
        n = shard.write(con, 3)
        con.execute("PRAGMA wal_checkpoint(%s)" % mode).fetchall()
    shim.sync(con, "30s")
    check_equal(shard.restore_now("after the first snapshot"), n, "last link")
    con.close()
    check_equal(shard.check_restores("closed", snapshots=1), n, "last link")


@test(*NEEDS)
def snapshots_are_whole_lz4_frames_of_the_promised_form(t):
    """Also for images of exactly 4 MiB, and much larger than one block."""
    for page_count in (2, 1024, 2600):
        shard = Shard(t, "n%d" % page_count)
        con = shard.open(pragmas=("wal_autocheckpoint=0",))
        con.execute("CREATE TABLE fill(a)")
        while con.execute("PRAGMA page_count").fetchone()[0] < page_count:
            left = page_count - con.execute("PRAGMA page_count").fetchone()[0]
            con.execute("INSERT INTO fill VALUES(randomblob(?))", (max(100, (left - 1) * 4000),))
        con.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        shard.write(con, 1)
        shim.snapshot(con, "60s")
        con.close()
        shard.check_restores("%d pages" % page_count)
        for snapshot in shard.replica.newest().snapshots:
            check_equal(lz4frame.profile_problem(snapshot.frame()), "", "form of %r" % snapshot)


def copy_replica(replica, target):
    """Copies a replica that changes meanwhile: snapshots first, so that the WAL they need is in the later listing."""
    for generation in replica.generations():
        for kind in ("snapshots", "wal"):
            source = os.path.join(generation.dir, kind)
            if os.path.isdir(source):
                shutil.copytree(source, os.path.join(target, "generations", generation.name, kind),
                                copy_function=shutil.copy2, ignore=shutil.ignore_patterns("*.tmp*", ".*"))


@test(*NEEDS, timeout=90)
def restores_while_everything_runs(t):
    """One restores again and again while others write, checkpoint, snapshot and delete (A1.2)."""
    shard = Shard(t, snapshot_interval="500ms", retention="3s", sync_interval="20ms")
    shard.open().close()
    load = Threads(lambda: shard.open(create=False, pragmas=("wal_autocheckpoint=30",)), t.seed, writers=2).start()
    stop = time.monotonic() + (120 if LONG else 5)
    count = again = 0
    last = 0
    try:
        while time.monotonic() < stop or (count < 5 and time.monotonic() < stop + SLOW):
            copy = t.path("copy")
            shutil.rmtree(copy, ignore_errors=True)
            try:
                copy_replica(shard.replica, copy)
                out = t.path("out.db")
                Replica(copy).restore(out)
            except (FileNotFoundError, shutil.Error, Failure):
                again += 1  # a moving target: objects went while it was copied
                continue
            pages.check_integrity(out, "restore %d" % count)
            n = chain.verify_file(out, "restore %d" % count)
            check(n >= last, "restored link %d after %d" % (n, last))
            last = n
            count += 1
    finally:
        load.stop()
    check(not load.errors, "; ".join(load.errors))
    check(count >= 5, "only %d restores (%d times the replica moved)" % (count, again))
    n = shard.check_restores("closed")
    check(n >= load.committed, "link %d of %d" % (n, load.committed))
    t.note("%d restores, %d repeated, last link %d" % (count, again, n))


def answered(peer, *command):
    """What the peer answers while it is held; a hold ends by itself after a minute."""
    peer.ask(*command)
    check(select.select([peer.process.stdout], [], [], 30)[0], "it waits: %s" % (command,))
    return peer.answer()


@test(*NEEDS, timeout=180)
def checkpoints_do_not_wait_while_the_wal_is_verified(t):
    """The begin of a snapshot reads all of the WAL: held in the middle of it, every checkpoint, and a restart, goes through."""
    for mode in ("PASSIVE", "TRUNCATE"):
        shard = Shard(t, folder=mode)
        con = shim.plain(t.path("plain.db"), pragmas=("journal_mode=WAL", "wal_autocheckpoint=0"))
        chain.create(con)
        con.execute("CREATE TABLE fill(a)")
        con.executemany("INSERT INTO fill VALUES(randomblob(100000))", [()] * 40)
        for end in ("", "-wal"):
            shutil.copy(t.path("plain.db") + end, shard.path + end)
        con.close()
        os.unlink(t.path("plain.db"))
        hold = Hold(shard.data, "verify")
        peer = Peer(shard, opened=False, env=hold.environment(), pragmas=["wal_autocheckpoint=0"])
        peer.ask("open")
        peer.answer()
        hold.wait("a snapshot verifies the WAL")
        answered(peer, "write", 3)
        busy, frames, copied = answered(peer, "sql", "PRAGMA wal_checkpoint(%s)" % mode)[0]
        check_equal((busy, copied), (0, frames), mode + ": busy, and frames copied")
        n = answered(peer, "write", 3)
        hold.let_go()
        peer.snapshot()
        peer.sync()
        peer.close()
        peer.end()
        check_equal(shard.check_restores(mode), n, mode + ": last link")


if __name__ == "__main__":
    harness.main("snapshots")
