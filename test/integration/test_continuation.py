#!/usr/bin/python3
"""test_continuation.py - what goes on in the same generation, and what must begin a new one (README, Continuation).

Goes on: one generation, one snapshot, counted in the replica. Begins a new one: what the replica had stays
restorable, what the database has now is restorable too, and log and status name both positions.
"""

import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile

from shard import Plain, Shard, foreign, foreign_link, python, wait_caught_up

from ljtest import chain, cli, harness, shim, wal
from ljtest.harness import LONG, check, check_equal, test

NEEDS = ("shim", "load_extension")

PLACE = "[0-9a-f]{16}/[0-9a-f]{8}:[0-9]+"

KILLED = """
import os, random, sys
from ljtest import chain, shim
con = shim.open_wal(sys.argv[1], sys.argv[2], pragmas=("wal_autocheckpoint=0",), sync_interval="10ms")
chain.exists(con) or chain.create(con)
con.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
rng = random.Random(int(sys.argv[3]))
for _ in range(20): n = chain.commit_one(con, rng)
shim.sync(con)
print(n, flush=True)
os.kill(os.getpid(), 9)
"""


def killed_life(shard):
    """20 links, all shipped, all still in the WAL, and the process is gone. Returns the last link."""
    status, out, errors = python(KILLED, arguments=(shard.path, shard.base, shard.t.seed))
    check_equal(status, -signal.SIGKILL, "process: " + errors)
    return int(out)


def in_memory(t):
    """Many opens and closes are many fsyncs: in memory where the machine can."""
    if not os.path.isdir("/dev/shm"):
        return t.dir
    folder = tempfile.mkdtemp(prefix="lj_", dir="/dev/shm")
    t.cleanup(shutil.rmtree, folder, True)
    return folder


def log_lines():
    with open(os.environ["LITEJOIN_LOG_FILE"], errors="replace") as file:
        return [line for line in file if "cannot be continued" in line]


# ---------------------------------------------------------------------------------------------------------------------
# the same generation


@test(*NEEDS, timeout=180)
def a_thousand_opens_and_closes(t):
    count = 1000 if LONG else 300
    folder = in_memory(t)
    shard = Shard(t, base=os.path.join(folder, "replica"), data=os.path.join(folder, "data"), sync_interval="1ms")
    os.makedirs(shard.data)
    for _ in range(count):
        con = shard.open()
        n = shard.write(con, 1)
        con.close()
    check_equal(n, count, "last link")
    check_equal(shard.replica.counts()[:2], (1, 1), "generations and snapshots")
    generation = shard.replica.newest()
    # one for each life of the WAL, but for the first, which can be in the snapshot
    check(count - 1 <= len(generation.indexes()) <= count, "%d indexes" % len(generation.indexes()))
    check_equal(len(generation.marks), len(generation.indexes()) - 1, "end marks")
    check_equal(log_lines(), [], "log lines about a generation that was given up")
    check_equal(shard.check_restores("closed", snapshots=1), n, "last link in the replica")


@test(*NEEDS, timeout=120)
def checkpoints_and_vacuum(t):
    """Every mode of checkpoint, with and without frames that wait for the replica, VACUUM, and clean restarts in between."""
    shard = Shard(t)
    for turn in range(3):
        con = shard.open(auto_vacuum="INCREMENTAL", pragmas=("wal_autocheckpoint=%d" % (0 if turn == 1 else 7),))
        for mode in ("PASSIVE", "FULL", "RESTART", "TRUNCATE"):
            shard.write(con, 3)
            if turn != 2:
                shim.sync(con)
            con.execute("PRAGMA wal_checkpoint(%s)" % mode).fetchall()
            shard.write(con, 1)
        con.execute("VACUUM")
        n = shard.write(con, 2)
        con.close()
        check_equal(shard.check_restores("turn %d" % turn, snapshots=1), n, "last link")
    check_equal(log_lines(), [], "log lines about a generation that was given up")


@test(*NEEDS)
def a_restore_followed_by_writes(t):
    """Also when the state folder was lost with the rest, and again and again: no snapshot but the first."""
    shard = Shard(t)
    con = shard.open()
    n = shard.write(con, 10)
    con.close()
    for turn in range(5):
        shutil.rmtree(shard.data)
        con = shard.open(create=False)
        check_equal(chain.last(con), n, "restored")
        if turn % 2:
            con.close()  # a clean restart between the restore and the first commit
            con = shard.open(create=False)
        n = shard.write(con, 1 + turn)
        if turn == 3:
            con.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            n = shard.write(con, 2)
        con.close()
        check_equal(shard.check_restores("turn %d" % turn, snapshots=1), n, "last link")
    check_equal(log_lines(), [], "log lines about a generation that was given up")


@test(*NEEDS)
def a_kill_behind_a_restart(t):
    """Killed when the WAL has a new header and nothing is committed under it yet."""
    code = KILLED.replace("os.kill(", "con.execute('PRAGMA wal_checkpoint(RESTART)').fetchall()\n"
                          "con.execute('PRAGMA cache_size=5').fetchall()\n"
                          "con.execute('BEGIN')\n"
                          "con.execute('CREATE TABLE fill(b)')\n"
                          "con.executemany('INSERT INTO fill VALUES(randomblob(3000))', [()] * 60)\n"
                          "os.kill(")
    shard = Shard(t)
    for turn in range(3):
        status, out, errors = python(code, arguments=(shard.path, shard.base, turn))
        check_equal(status, -signal.SIGKILL, "process: " + errors)
        salts = set()
        with open(shard.path + "-wal", "rb") as file:
            header = file.read(wal.HEADER_BYTES)
            first = file.read(wal.FRAME_HEADER_BYTES)
        salts = (header[16:24], first[8:16])
        check_equal(salts[0], salts[1], "salts of the header and of the first frame, which spilled")
        con = shard.open(create=False)
        check_equal(chain.last(con), int(out), "last link")
        n = shard.write(con, 2)
        con.close()
        check_equal(shard.check_restores("turn %d" % turn, snapshots=1, killed=True), n, "last link")
    check_equal(log_lines(), [], "log lines about a generation that was given up")


# ---------------------------------------------------------------------------------------------------------------------
# a new generation


def begins_anew(t, label, prepare, change):
    """
    prepare(shard) is a life that leaves everything in the replica and returns the last link; change(shard) happens while
    nobody has the database open.
    """
    with t.part(label):
        shard = Shard(t, re.sub("[^a-z]", "_", label))
        before = prepare(shard)
        old = shard.generation()
        told = len(log_lines())
        change(shard)
        con = shard.open(create=False)
        found = chain.verify(con, "at open")
        shim.sync(con)
        status = shim.status(con)
        check(shard.generation() != old and status["generation"] != old, "generation %s went on" % old)
        expect_told(status, log_lines()[told:], old)
        check_equal(shard.restore_now("right after the open"), found, "last link in the replica")
        n = shard.write(con, 3)
        con.close()
        check_equal(shard.check_restores("closed", one_generation=False), n, "last link")
        check_equal(shard.restore_now("old generation", generation=old), before, "last link of the old generation")
        out = t.path("old.db")
        for tool in cli.restorers():
            if os.path.exists(out):
                os.unlink(out)
            tool.restore(shard.root, out, "-generation", old)
            check_equal(chain.verify_file(out, tool.name), before, "old generation, by " + tool.name)


def expect_told(status, lines, old, most=1):
    """A line in the log, and the last one in the status: what the replica has, and where the local database stands."""
    check(1 <= len(lines) <= most, "log lines: %s" % lines)
    texts = lines + [status["last_break"]]
    check(old + "/" in texts[0], "the position in generation %s in %r" % (old, texts[0]))
    for text in texts:
        check(re.search(PLACE, text), "the replica's position in %r" % text)
        check(re.search("local (WAL|database|file)", text), "the local position in %r" % text)


def closed_life(shard):
    con = shard.open()
    shard.write(con, 10)
    con.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    n = shard.write(con, 10)
    con.close()
    return n


def snapshotted_life(shard):
    """20 links that a plain process left in the WAL; all the replica has is a snapshot of them. The process is gone."""
    con = shim.plain(shard.path, pragmas=("journal_mode=WAL",))
    chain.create(con)
    con.close()
    foreign_link(shard.path, 20, leave_wal=True)
    status, out, errors = python("import os, sys\n"
                                 "from ljtest import chain, shim\n"
                                 "con = shim.connect(*sys.argv[1:])\n"
                                 "print(chain.last(con), flush=True)\n"
                                 "shim.sync(con)\n"
                                 "os.kill(os.getpid(), 9)\n", arguments=(shard.path, shard.base))
    check_equal(status, -signal.SIGKILL, "process: " + errors)
    return int(out)


def cut_wal(shard, frames, fill):
    """The last frames never reached the disk: the file is shorter, or has zeros there."""
    path = shard.path + "-wal"
    size = os.path.getsize(path) - frames * (4096 + wal.FRAME_HEADER_BYTES)
    with open(path, "r+b") as file:
        if fill:
            file.seek(size)
            file.write(bytes(frames * (4096 + wal.FRAME_HEADER_BYTES)))
        else:
            file.truncate(size)
    if os.path.exists(shard.path + "-shm"):
        os.unlink(shard.path + "-shm")


@test(*NEEDS, timeout=180)
def a_new_generation(t):
    def cut_and_written_on(shard):
        cut_wal(shard, 9, False)
        status, _, errors = python("import os, random, sys\n"
                                   "from ljtest import chain, shim\n"
                                   "con = shim.plain(sys.argv[1])\n"
                                   "for n in range(8): chain.commit_one(con, random.Random(n), 'later')\n"
                                   "os._exit(0)\n", arguments=(shard.path,))
        check_equal(status, 0, "plain writer: " + errors)

    def lose_wal(shard):
        for tail in ("-wal", "-shm"):
            os.unlink(shard.path + tail)

    def foreign_wal(shard):
        foreign(shard.path, "PRAGMA wal_checkpoint(TRUNCATE)")
        foreign_link(shard.path, 2, leave_wal=True)

    def older_point(shard):
        out = t.path("older.db")
        if os.path.exists(out):
            os.unlink(out)
        shard.replica.restore(out, index=0)
        os.unlink(shard.path)
        os.rename(out, shard.path)

    def same_bytes(shard):
        shutil.copyfile(shard.path, shard.path + ".copy")
        os.rename(shard.path + ".copy", shard.path)

    def page_size(shard):
        foreign(shard.path, "PRAGMA journal_mode=DELETE", "PRAGMA page_size=1024", "VACUUM", "PRAGMA journal_mode=WAL")

    def away_and_back(shard):
        foreign(shard.path, "PRAGMA journal_mode=TRUNCATE", "PRAGMA user_version=7", "PRAGMA journal_mode=WAL")

    begins_anew(t, "power loss, the WAL is shorter", killed_life, lambda shard: cut_wal(shard, 9, False))
    begins_anew(t, "power loss, the end of the WAL is zeros", killed_life, lambda shard: cut_wal(shard, 9, True))
    begins_anew(t, "power loss, and a plain writer went on in what the snapshot has", snapshotted_life, cut_and_written_on)
    begins_anew(t, "lost WAL", killed_life, lose_wal)
    begins_anew(t, "WAL of somebody else", killed_life, foreign_wal)
    begins_anew(t, "an older point was restored over the file", closed_life, older_point)
    begins_anew(t, "replaced by a copy of itself", closed_life, same_bytes)
    begins_anew(t, "page size changed", closed_life, page_size)
    begins_anew(t, "journal mode away and back", closed_life, away_and_back)


@test(*NEEDS, timeout=120)
def a_new_generation_while_it_is_open(t):
    """What happens to a database that we have open, by ourselves or by a process without the shim: noticed at the next chance."""

    def journal_mode(shard, con):
        con.execute("PRAGMA journal_mode=DELETE").fetchall()
        con.execute("PRAGMA user_version=3").fetchall()
        con.execute("PRAGMA journal_mode=WAL").fetchall()

    def own_page_size(shard, con):
        con.execute("PRAGMA journal_mode=DELETE").fetchall()
        con.execute("PRAGMA page_size=1024").fetchall()
        con.execute("VACUUM")
        con.execute("PRAGMA journal_mode=WAL").fetchall()

    def foreign_restart(shard, con):
        foreign_link(shard.path, 3)
        foreign(shard.path, "PRAGMA wal_checkpoint(TRUNCATE)")
        foreign_link(shard.path, 3)

    for label, change in (("journal mode", journal_mode), ("page size", own_page_size),
                          ("restart by a plain process", foreign_restart)):
        with t.part(label):
            shard = Shard(t, label.replace(" ", "_"))
            con = shard.open()
            before = shard.write(con, 10)
            shim.sync(con)
            old = shard.generation()
            told = len(log_lines())
            change(shard, con)
            n = shard.write(con, 3)
            shim.sync(con, "20s")
            status = shim.status(con)
            check(shard.generation() != old, "generation %s went on" % old)
            # a snapshot may come in the middle of the way back to WAL, and is then followed by another
            expect_told(status, log_lines()[told:], old, most=2)
            check_equal(shard.restore_now("after " + label), n, "last link in the replica")
            con.close()
            check_equal(shard.check_restores("closed", one_generation=False), n, "last link")
            got = shard.restore_now("old generation", generation=old)
            check(before <= got < n, "old generation: link %d, before it was %d" % (got, before))


# ---------------------------------------------------------------------------------------------------------------------
# a process without the shim, beside us


@test(*NEEDS, timeout=120)
def a_plain_process_beside_us(t):
    """
    Everything it can do. Its frames that are still there are shipped in the same generation; what is lost to us begins a new
    one at our next read; both are restorable.
    """

    def cannot(shard, what):
        code = ("import sqlite3, sys\n"
                "con = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=0.1)\n"
                "try: print(con.execute(sys.argv[2]).fetchall())\n"
                "except sqlite3.OperationalError as error: print(error)\n")
        status, out, _ = python(code, arguments=(shard.path, what))
        return status, out

    def append(shard):
        foreign_link(shard.path, 4)

    def checkpoint(shard):
        foreign_link(shard.path, 4)
        foreign(shard.path, "PRAGMA wal_checkpoint(PASSIVE)")

    def vacuum(shard):
        foreign(shard.path, "VACUUM")

    def rollback_mode(shard):  # needs everybody out: refused while we are in
        status, out = cannot(shard, "PRAGMA journal_mode=DELETE")
        check("locked" in out or "wal" in out, "journal_mode=DELETE beside us: %d %s" % (status, out))

    def close_last(shard):  # it is not the last: the WAL stays
        foreign_link(shard.path, 1)
        check(os.path.getsize(shard.path + "-wal") > 0, "the WAL was deleted under us")

    def restart(shard):
        foreign_link(shard.path, 2)
        foreign(shard.path, "PRAGMA wal_checkpoint(RESTART)")
        foreign_link(shard.path, 2)

    def truncate(shard):
        foreign_link(shard.path, 2)
        foreign(shard.path, "PRAGMA wal_checkpoint(TRUNCATE)")
        foreign_link(shard.path, 2)

    for label, act, goes_on in (("appends", append, True), ("appends and checkpoints", checkpoint, True),
                                ("vacuums", vacuum, True), ("leaves WAL mode", rollback_mode, True),
                                ("closes", close_last, True), ("restarts the WAL", restart, False),
                                ("truncates the WAL", truncate, False)):
        with t.part(label):
            shard = Shard(t, label.replace(" ", "_"))
            con = shard.open(pragmas=("wal_autocheckpoint=0",))
            before = shard.write(con, 5)
            shim.sync(con)
            old = shard.generation()
            act(shard)
            found = chain.last(con)  # the next chance: a read
            shim.sync(con, "20s")
            check_equal(shard.restore_now("after it " + label), found, "last link in the replica")
            check_equal(shard.generation() == old, goes_on, "the generation goes on")
            check_equal(shim.status(con)["last_break"] == "", goes_on, "last_break is empty")
            n = shard.write(con, 2)
            con.close()
            check_equal(shard.check_restores("closed", one_generation=goes_on), n, "last link")
            check(shard.restore_now("the old generation", generation=old) >= before, "the old generation lost something")


@test(*NEEDS)
def out_of_descriptors_under_exclusive_locking(t):
    """There is one for SQLite's WAL and none for us, just when all that is known of the WAL has to come from its bytes."""
    shard = Shard(t)
    n = killed_life(shard)
    con = shim.connect(shard.path, shard.base)
    con.execute("PRAGMA locking_mode=EXCLUSIVE").fetchall()
    wait_caught_up(con)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.open(os.devnull, os.O_RDONLY)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + 1, limits[1]))
    try:
        check_equal(chain.last(con), n, "last link")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    n = shard.write(con, 3)
    shim.sync(con)
    check_equal(shard.restore_now("while it is open"), n, "last link in the replica")
    con.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()
    n = shard.write(con, 3)
    con.close()
    check_equal(shard.check_restores("closed"), n, "last link")


ELSEWHERE = ("INSERT INTO elsewhere VALUES(randomblob(9000))",)


@test(*NEEDS, timeout=120)
def a_plain_process_empties_the_wal(t):
    """Behind commits that nobody here has seen, on pages that we do not touch; and the first frame of the next life is ours."""

    def two_connections(shard):
        """One that has worked, and one that has never read."""
        con = shard.open(pragmas=("wal_autocheckpoint=0",))
        shard.write(con, 5)
        con.execute("CREATE TABLE elsewhere(x)")
        shim.sync(con)
        return con, shim.connect(shard.path, shard.base)

    def truncates(shard, con, idle):
        idle.close()
        foreign(shard.path, *ELSEWHERE, "PRAGMA wal_checkpoint(TRUNCATE)")
        return con

    def truncates_behind_our_truncation(shard, con, idle):
        con.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        return truncates(shard, con, idle)

    def restarts_and_rolls_back(shard, con, idle):
        idle.close()
        foreign(shard.path, "PRAGMA cache_size=5", *ELSEWHERE, "PRAGMA wal_checkpoint(RESTART)", "BEGIN",
                "INSERT INTO elsewhere VALUES(randomblob(400000))", "ROLLBACK")
        return con

    def closes_last(shard, con, idle):
        plain = Plain(t, shard.path)
        plain.run("SELECT count(*) FROM elsewhere")
        con.close()
        plain.run(*ELSEWHERE)
        plain.close()
        check(not os.path.exists(shard.path + "-wal"), "the WAL is still there")
        return idle

    def closes_last_before_exclusive_locking(shard, con, idle):
        con = closes_last(shard, con, idle)
        con.execute("PRAGMA locking_mode=EXCLUSIVE").fetchall()
        return con

    for act in (truncates, truncates_behind_our_truncation, restarts_and_rolls_back, closes_last, closes_last_before_exclusive_locking):
        with t.part(act.__name__):
            shard = Shard(t, act.__name__)
            con = act(shard, *two_connections(shard))
            old = shard.generation()
            check_equal(con.execute("SELECT count(*) FROM elsewhere").fetchone()[0], 1, "rows of the other program")
            shim.sync(con)
            shard.restore_now("behind a read")
            look = shim.plain(t.path("now.db"))
            check_equal(look.execute("SELECT count(*) FROM elsewhere").fetchone()[0], 1, "rows in the replica behind a read")
            look.close()
            n = shard.write(con, 2)
            shim.sync(con)
            check_equal(shard.restore_now("after it " + act.__name__), n, "last link in the replica")
            con.close()
            check_equal(shard.check_restores("closed", one_generation=False), n, "last link")
            check(shard.generation() != old, "the generation went on")
            check_equal(shard.restore_now("the old generation", generation=old), n - 2, "last link of the old generation")


@test(*NEEDS, timeout=120)
def a_plain_process_before_our_first_life(t):
    """We have opened it with an empty WAL, of a restored file or not, and it commits first: what we cannot see any more shows."""
    for label, restored, truncates in (("appends", False, False), ("truncates", False, True),
                                       ("appends to a restored one", True, False),
                                       ("truncates a restored one", True, True)):
        with t.part(label):
            shard = Shard(t, label.replace(" ", "_"))
            con = shard.open()
            before = shard.write(con, 5)
            con.close()
            old = shard.generation()
            if restored:
                shutil.rmtree(shard.data)
            con = shard.open(create=False, pragmas=("wal_autocheckpoint=0",))
            check_equal(chain.last(con), before, "last link")
            foreign_link(shard.path, 2)
            if truncates:
                foreign(shard.path, "PRAGMA wal_checkpoint(TRUNCATE)")
                foreign_link(shard.path, 2)
            found = chain.last(con)
            shim.sync(con, "20s")
            check_equal(shard.restore_now("after it " + label), found, "last link in the replica")
            check_equal(shard.generation() == old, not truncates, "the generation goes on")
            n = shard.write(con, 2)
            con.close()
            check_equal(shard.check_restores("closed", one_generation=not truncates), n, "last link")
            check_equal(shard.restore_now("the old generation", generation=old) >= before, True, "the old generation")


@test(*NEEDS, timeout=120)
def a_file_that_is_replaced_under_us(t):
    """
    Another database is renamed over ours while we have it open. SQLite goes on with the file that has no name any more, and so do
    we; who opens the new file begins a new generation, and what was replicated stays restorable.
    """
    shard = Shard(t)
    con = shard.open()
    before = shard.write(con, 10)
    shim.sync(con)
    old = shard.generation()
    other = Shard(t, "other", base=t.path("nowhere"))
    con2 = shard_of(other)
    m = other.write(con2, 3)
    con2.close()
    os.rename(other.path, shard.path)
    con.close()
    for tail in ("-wal", "-shm"):
        if os.path.exists(shard.path + tail):
            os.unlink(shard.path + tail)
    con = shard.open(create=False)
    check_equal(chain.last(con), m, "last link of the other file")
    n = shard.write(con, 2)
    shim.sync(con)
    check(shard.generation() != old, "the generation went on with another file")
    con.close()
    check_equal(shard.check_restores("closed", one_generation=False), n, "last link")
    check_equal(shard.restore_now("old generation", generation=old), before, "last link of the old generation")


def shard_of(shard):
    """A plain database with a chain of its own."""
    con = shim.plain(shard.path, pragmas=("journal_mode=WAL",))
    chain.create(con)
    return con


if __name__ == "__main__":
    harness.main("continuation")
