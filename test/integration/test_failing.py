#!/usr/bin/python3
"""test_failing.py - replicas that fail, disks that fill up, and bad input of every kind.

What must hold throughout: in async mode the application neither fails nor waits because of the replica, the failure
shows in the status with a hint, nothing committed is lost, and everything catches up by itself when the cause is gone.
"""

import json
import os
import shutil
import sqlite3
import subprocess
import time

from shard import Shard, in_time, must_fail, python, timed, wait_caught_up

from ljtest import chain, harness, lz4frame, pages, shim
from ljtest.broken import FileInTheWay, Tmpfs
from ljtest.harness import check, check_equal, test, wait_for
from ljtest.replica import Replica
from ljtest.workload import MODES

NEEDS = ("shim", "load_extension")


class InTheWay:
    """A file where the replica's folder was."""

    readable = False

    def __init__(self, t):
        self.base = t.folder("replica")
        self.block = FileInTheWay(os.path.join(self.base, "shard_0"))

    def fail(self):
        self.block.fail()

    def heal(self):
        self.block.heal()

    def close(self):
        pass


class ReadOnly:
    """A replica on a file system that becomes read-only."""

    readable = True

    def __init__(self, t):
        self.mount = Tmpfs(t.path("mount"), "64m").__enter__()
        self.base = os.path.join(t.path("mount"), "replica")

    def fail(self):
        # refused while a file is open for writing
        wait_for(lambda: not subprocess.run(["mount", "-o", "remount,ro", self.mount.folder],
                                            stderr=subprocess.DEVNULL).returncode, "remounted read-only")

    def heal(self):
        self.mount.read_write()

    def close(self):
        self.mount.__exit__()


class Full:
    """A replica on a file system without space."""

    readable = True

    def __init__(self, t):
        self.mount = Tmpfs(t.path("mount"), "64m").__enter__()
        self.base = os.path.join(t.path("mount"), "replica")

    def fail(self):
        self.mount.fill()

    def heal(self):
        self.mount.free()

    def close(self):
        self.mount.__exit__()


def wait_failing(con, seconds=60):
    """The status must tell of the failure; returns it."""
    last = {}

    def failing():
        last.update(shim.status(con))
        return last["last_error"] and last["lag_frames"] > 0

    wait_for(failing, lambda: "a failing status: %s" % last, seconds)
    check_equal(last["state"], "retrying", "state while the replica fails")
    return last


def latencies(con, rng, count):
    """Seconds of `count` one-row commits, sorted."""
    taken = []
    for _ in range(count):
        taken.append(timed(chain.commit_one, con, rng)[1])
    return sorted(taken)


def replica_fails_and_heals(t, kind, words):
    """The whole story of one kind of failure. `words`: one of them must be in last_error."""
    trouble = kind(t)
    t.cleanup(trouble.close)
    shard = Shard(t, base=trouble.base)
    con = shard.open(pragmas=("wal_autocheckpoint=200",))
    shard.write(con, 20)
    shim.sync(con)
    healthy = latencies(con, t.random, 800)
    shim.sync(con)
    before = shard.restore_now("before the failure")

    trouble.fail()
    beside = shim.plain(t.path("beside.db"), pragmas=("journal_mode=WAL", "synchronous=NORMAL", "wal_autocheckpoint=200"))
    chain.create(beside)

    def commits_go_on():
        failing = latencies(con, t.random, 800)
        t.note("healthy p50 %.0f us p99 %.0f us, failing p50 %.0f us p99 %.0f us max %.1f ms" %
               (healthy[400] * 1e6, healthy[792] * 1e6, failing[400] * 1e6, failing[792] * 1e6, failing[-1] * 1e3))
        now = latencies(beside, t.random, 800)  # what the machine can do at the moment
        p50, p99 = max(healthy[400], now[400]), max(healthy[792], now[792])
        if failing[400] >= p50 * 3 + 0.0005:
            return "p50 of commits went from %g to %g s" % (p50, failing[400])
        if failing[792] >= p99 * 4 + 0.005:
            return "p99 of commits went from %g to %g s" % (p99, failing[792])
        return "a commit took %g s while the replica failed" % failing[-1] if failing[-1] >= 0.5 else ""

    in_time(commits_go_on)
    beside.close()
    status = wait_failing(con)
    t.note("last_error: " + status["last_error"])
    check(any(word in status["last_error"] for word in words), "last_error %r has none of %s" %
          (status["last_error"], words))
    check("shard_0" in status["last_error"], "last_error does not name the object: %r" % status["last_error"])

    def sync_gives_up():
        text, seconds = timed(must_fail, shim.sync, con, "300ms")
        t.note("litejoin_sync: " + text)
        return "litejoin_sync='300ms' took %.1f s" % seconds if seconds >= 3 else ""

    def retrying_costs_little():
        start = time.process_time()
        time.sleep(1.0)
        took = time.process_time() - start
        return "retrying took %.2f s of CPU in 1 s" % took if took >= 0.25 else ""

    in_time(sync_gives_up)
    in_time(retrying_costs_little)
    n = shard.write(con, 10)
    if trouble.readable:
        check(shard.restore_now("while it fails") >= before, "what was there is no longer restorable")

    trouble.heal()
    wait_caught_up(con, 90)
    check_equal(shard.restore_now("after healing"), n, "last link")
    n = shard.write(con, 10)
    con.close()
    check_equal(shard.check_restores("closed", snapshots=1), n, "last link")


@test(*NEEDS, timeout=120)
def a_file_in_the_way_of_the_replica(t):
    replica_fails_and_heals(t, InTheWay, ("ot a directory", "is a file"))


@test(*NEEDS, "mount", timeout=120)
def a_replica_that_becomes_read_only(t):
    replica_fails_and_heals(t, ReadOnly, ("Read-only", "read-only"))


@test(*NEEDS, "mount", timeout=120)
def a_replica_without_space(t):
    replica_fails_and_heals(t, Full, ("No space", "no space", "full"))


@test(*NEEDS, timeout=120)
def wal_destroyed_while_frames_are_unshipped(t):
    """RESTART and TRUNCATE by the application succeed while nothing can be shipped; the frames wait in the spool."""
    for limit in ("0", "1GiB"):
        with t.part("max_wal_size=" + limit):
            folder = "limit" + limit
            shard = Shard(t, folder, max_wal_size=limit)
            block = FileInTheWay(shard.root)
            con = shard.open(pragmas=("wal_autocheckpoint=20",))
            shim.sync(con)
            block.fail()
            for turn in range(3):
                for mode in MODES:
                    n = shard.write(con, 30)
                    row = con.execute("PRAGMA wal_checkpoint(%s)" % mode).fetchone()
                    check_equal(row[0], 0, "busy of %s while nothing can be shipped" % mode)
                    if mode == "TRUNCATE":
                        check_equal(os.path.getsize(shard.path + "-wal"), 0, "size of the WAL after TRUNCATE")
            status = wait_failing(con)
            check(status["spool_bytes"] > 0, "nothing is spooled: %s" % status)
            t.note("spooled %d bytes, lag %d frames" % (status["spool_bytes"], status["lag_frames"]))
            block.heal()
            wait_caught_up(con, 90)
            # the last file of the spool goes a moment after its frames were acknowledged
            wait_for(lambda con=con: shim.status(con)["spool_bytes"] == 0, "an empty spool after catching up", 60, 0.02)
            check_equal(shard.restore_now("after healing"), n, "last link")
            con.close()
            check_equal(shard.check_restores("closed", snapshots=1), n, "last link")


@test(*NEEDS, timeout=120)
def closing_while_the_replica_fails(t):
    """The last close gives up after shutdown_timeout; the next open ships what was left, into the same generation."""
    for exclusive in (False, True):
        with t.part("exclusive locking" if exclusive else "normal locking"):
            shard = Shard(t, "x%d" % exclusive, shutdown_timeout="400ms")
            pragmas = ("locking_mode=EXCLUSIVE",) if exclusive else ()
            shard.open().close()
            block = FileInTheWay(shard.root)
            total = 0
            for turn in range(3):
                con = shard.open(create=False, pragmas=pragmas)
                shim.sync(con, "60s")
                block.fail()
                n = shard.write(con, 40)
                total += timed(con.close)[1]
                if turn == 1:  # an open and close in between, still failing
                    con = shard.open(create=False, pragmas=pragmas)
                    check_equal(chain.last(con), n, "last link")
                    n = shard.write(con, 1)
                    con.close()
                block.heal()
            con = shard.open(create=False, pragmas=pragmas)
            check_equal(chain.last(con), n, "last link")
            wait_caught_up(con, 90)
            check_equal(shard.restore_now("healed"), n, "last link in the replica")
            con.close()
            check_equal(shard.check_restores("closed", snapshots=1), n, "last link")
            # who waits for the replica as long as it fails, or for the default, is far above it
            check(total < 20, "three closes took %.1f s with shutdown_timeout=400ms" % total)
            t.note("three closes took %.2f s" % total)


@test(*NEEDS, timeout=90)
def a_spool_past_its_limit_gives_up_the_chain_not_the_application(t):
    shard = Shard(t, max_wal_size="0", max_spool_size="256KiB")
    block = FileInTheWay(shard.root)
    con = shard.open()
    shim.sync(con)
    first = shard.generation()
    block.fail()
    for turn in range(12):
        n = shard.write(con, 40)
        check_equal(con.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0], 0, "busy of TRUNCATE")
    status = wait_failing(con)
    check(status["spool_bytes"] <= 256 * 1024, "spool holds %d bytes of 256 KiB" % status["spool_bytes"])
    block.heal()
    wait_caught_up(con, 90)
    check(shard.generation() != first, "the generation went on although its chain was given up")
    check_equal(shard.restore_now("healed"), n, "last link")
    check(shard.restore_now("old generation", generation=first) <= n, "the old generation")
    n = shard.write(con, 10)
    con.close()
    check_equal(shard.check_restores("closed", one_generation=False), n, "last link")


@test(*NEEDS, "mount", timeout=60)
def a_full_disk_under_the_database(t):
    """The application sees what plain SQLite would show it, and later everything goes on."""
    with Tmpfs(t.path("disk"), "8m") as disk:
        shard = Shard(t, data=disk.folder)
        con = shard.open(pragmas=("wal_autocheckpoint=50",))
        con.execute("CREATE TABLE fill(a)")
        n = shard.write(con, 20)
        shim.sync(con)
        disk.fill(leave=200000)
        failures = set()
        for _ in range(40):
            try:
                chain.commit_one(con, t.random, payload_bytes=(20000, 20000))
            except sqlite3.OperationalError as error:
                failures.add(str(error))
        check_equal(failures, {"database or disk is full"}, "errors on a full disk")
        n = chain.last(con)
        disk.free()
        wait_caught_up(con, 90)
        check_equal(shard.restore_now("freed"), n, "last link")
        n = shard.write(con, 50)
        con.close()
        check_equal(shard.check_restores("closed", one_generation=False), n, "last link")


@test(*NEEDS, "mount", timeout=60)
def a_full_disk_at_the_first_open(t):
    """There is no room for our own files: the application goes on, as far as SQLite can, and it is replicated when there is."""
    with Tmpfs(t.path("disk"), "8m") as disk:
        shard = Shard(t, data=disk.folder)
        con = shim.plain(shard.path, pragmas=("journal_mode=WAL",))
        chain.create(con)
        con.close()
        disk.fill()
        code = ("import sys\n"
                "from ljtest import shim\n"
                "con = shim.connect(sys.argv[1], sys.argv[2])\n"
                "print(shim.status(con)['state'])\n")
        status, out, errors = python(code, arguments=(shard.path, shard.base))
        check_equal(status, 0, "the process that opens it: " + errors)
        check("not replicating: cannot size" in out, out)
        disk.free()
        con = shard.open()
        n = shard.write(con, 5)
        con.close()
        check_equal(shard.check_restores("closed"), n, "last link")


@test(*NEEDS, "mount", timeout=60)
def a_full_disk_and_a_failing_replica_at_once(t):
    """Nowhere to spool to: commits go on while SQLite itself can make them."""
    with Tmpfs(t.path("disk"), "8m") as disk:
        shard = Shard(t, data=disk.folder, max_wal_size="0")
        block = FileInTheWay(shard.root)
        con = shard.open(pragmas=("wal_autocheckpoint=10",))
        n = shard.write(con, 60)
        shim.sync(con)
        block.fail()
        shard.write(con, 30)
        disk.fill(leave=60000)
        failures = []
        for turn in range(60):
            try:
                n = chain.commit_one(con, t.random)
                if turn % 10 == 9:
                    con.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            except sqlite3.OperationalError as error:
                failures.append("commit %d: %s" % (turn, error))
        check(all("full" in failure for failure in failures), "errors: %s" % failures[:3])
        t.note("%d of 60 commits failed for want of space" % len(failures))
        disk.free()
        block.heal()
        wait_caught_up(con, 90)
        n = shard.write(con, 5)
        con.close()
        check_equal(shard.check_restores("closed", one_generation=False), n, "last link")


# ---------------------------------------------------------------------------------------------------------------------
# at open


@test(*NEEDS)
def a_missing_replica_folder_is_made(t):
    shard = Shard(t, base=t.path("not", "there", "yet"))
    con = shard.open()
    n = shard.write(con, 10)
    con.close()
    check_equal(shard.check_restores("closed", snapshots=1), n, "last link")


@test(*NEEDS)
def an_unreachable_replica_never_turns_into_an_empty_database(t):
    """No local file and no way to see the replica: the open fails and says why. With a local file it goes on."""
    shard = Shard(t)
    con = shard.open()
    n = shard.write(con, 30)
    con.close()
    block = FileInTheWay(shard.root)
    saved = t.path("saved.db")
    shutil.copyfile(shard.path, saved)

    block.fail()
    con = shard.open(create=False)
    check_equal(chain.last(con), n, "last link with an unreachable replica")
    n = shard.write(con, 5)
    wait_failing(con)
    block.heal()
    wait_caught_up(con, 90)
    con.close()
    check_equal(shard.check_restores("closed", snapshots=1), n, "last link")

    shutil.rmtree(shard.data)
    os.mkdir(shard.data)
    block.fail()
    text = must_fail(shard.open)
    check("shard_0" in text and ("ot a directory" in text or "is a file" in text), "error does not say why: " + text)
    check_equal([name for name in os.listdir(shard.data) if name.endswith((".db", "-wal", "-shm"))], [],
                "files made by the failed open")
    t.note(text)
    block.heal()
    con = shard.open()
    check_equal(chain.last(con), n, "last link after the replica came back")
    con.close()


@test(*NEEDS)
def a_replica_of_litestream_v05_never_turns_into_an_empty_database(t):
    shard = Shard(t)
    levels = [os.path.join(shard.root, folder) for folder in ("ltx/0", "0001")]
    for level in levels:
        os.makedirs(level)
        with open(os.path.join(level, "0000000000000001-0000000000000001.ltx"), "w", encoding="utf-8") as file:
            file.write("LTX1")
        text = must_fail(shard.open)
        check("Litestream v0.5" in text, "error does not say why: " + text)
        check_equal([name for name in os.listdir(shard.data) if name[0] != "."], [], "files made by the failed open")
        shutil.rmtree(level)
    con = shard.open()
    n = shard.write(con)
    con.close()
    check_equal(shard.check_restores("closed", snapshots=1), n, "last link")


@test(*NEEDS)
def a_replica_that_was_moved_behind_a_link(t):
    """Its parts lie on another disk: a restore follows the links, and fails while that disk is not mounted."""
    shard = Shard(t)
    con = shard.open()
    shim.sync(con)  # else the first snapshot may have all of it, and there is no folder for the WAL
    n = shard.write(con, 30)
    con.close()
    generations = os.path.join(shard.root, "generations")
    generation, = os.listdir(generations)
    os.mkdir(t.path("disk"))
    for name in ("snapshots", "wal"):
        path = os.path.join(generations, generation, name)
        os.rename(path, t.path("disk", name))
        os.symlink(t.path("disk", name), path)
    shutil.rmtree(shard.data)
    os.mkdir(shard.data)

    os.rename(t.path("disk"), t.path("unmounted"))
    text = must_fail(shard.open)
    check("is a link to something that is not there" in text, "error does not say why: " + text)
    check_equal([name for name in os.listdir(shard.data) if name.endswith((".db", "-wal", "-shm"))], [],
                "files made by the failed open")
    os.rename(t.path("unmounted"), t.path("disk"))

    con = shard.open()
    check_equal(chain.last(con), n, "last link of the restored database")
    n = shard.write(con, 5)
    con.close()
    check_equal(os.listdir(generations), [generation], "generations")
    check_equal(shard.check_restores("gone on", snapshots=1), n, "last link")


def damage_cases():
    """name, function(generation) that damages a replica and returns what the error must name"""

    def last_segment(generation):
        return generation.segments[-1]

    def middle_segment(generation):
        return generation.segments[len(generation.segments) // 2]

    def corrupt(thing):
        lz4frame.harm(thing.path)
        return thing.name

    def cut(thing):
        os.truncate(thing.path, thing.size * 2 // 3)
        return thing.name

    def remove(thing):
        os.unlink(thing.path)
        return "%08x" % thing.index

    return (
        ("corrupt segment", lambda g: corrupt(middle_segment(g))),
        ("truncated segment", lambda g: cut(last_segment(g))),
        ("missing middle segment", lambda g: remove(middle_segment(g))),
        ("corrupt snapshot", lambda g: corrupt(g.snapshots[0])),
        ("truncated snapshot", lambda g: cut(g.snapshots[0])),
    )


@test(*NEEDS, timeout=60)
def a_damaged_replica_is_not_restored_quietly(t):
    """The open fails and names the object; the replica stays as it is; once repaired the same open works."""
    for name, damage in damage_cases():
        with t.part(name):
            shard = Shard(t, name.replace(" ", "_"))
            con = shard.open()
            for _ in range(5):
                n = shard.write(con, 6)
                shim.sync(con)
            con.close()
            shutil.rmtree(shard.data)
            os.mkdir(shard.data)
            shutil.copytree(shard.root, shard.root + ".good", copy_function=shutil.copy2)
            named = damage(shard.replica.newest())
            before = shard.replica.files()
            text = must_fail(shard.open)
            check(named in text, "the error does not name %s: %s" % (named, text))
            t.note(text)
            check_equal([f for f in os.listdir(shard.data) if not f.startswith(".")], [], "files of the failed open")
            for folder, _, names in os.walk(shard.data):
                check(not any("tmp" in f for f in names), "temporary files left in %s: %s" % (folder, names))
            check_equal(shard.replica.files(), before, "files of the replica after the failed open")
            shutil.rmtree(shard.root)
            os.rename(shard.root + ".good", shard.root)
            con = shard.open()
            check_equal(chain.last(con), n, "last link once the replica was repaired")
            con.close()


@test(*NEEDS)
def damage_does_not_disturb_a_database_that_is_there(t):
    """Only a restore reads the old objects; with the database in place commits and shipping go on."""
    shard = Shard(t)
    con = shard.open()
    for _ in range(4):
        shard.write(con, 5)
        shim.sync(con)
    generation = shard.replica.newest()
    os.truncate(generation.segments[1].path, 20)
    n = shard.write(con, 5)
    shim.sync(con)
    con.close()
    con = shard.open()
    check_equal(chain.last(con), n, "last link")
    con.close()


@test(*NEEDS)
def stray_and_foreign_files_are_left_alone(t):
    shard = Shard(t, snapshot_interval="200ms", retention="400ms")
    con = shard.open()
    shard.write(con, 20)
    shim.sync(con)
    generation = shard.generation()
    strays = {
        "README.txt": "x", "generations/note": "x", "generations/nothex/wal/a": "x",
        "generations/%s/meta.json" % generation: "{}", "generations/%s/wal/zzz.lz4" % generation: "x",
        "generations/%s/wal/0000_0000.wal.lz4" % generation: "x",
        "generations/%s/snapshots/00000000.snapshot.lz4.bak" % generation: "x", "ltx/0/a.ltx": "x",
    }
    for name, text in strays.items():
        path = os.path.join(shard.root, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            file.write(text)
    end = time.monotonic() + 1.5
    while time.monotonic() < end:
        n = shard.write(con, 2)
        con.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()
        time.sleep(0.05)
    con.close()
    for name, text in strays.items():
        path = os.path.join(shard.root, name)
        check(os.path.exists(path) and pages.read(path) == text.encode(), "stray %s was touched" % name)
    shutil.rmtree(shard.data)
    con = shard.open()
    check_equal(chain.last(con), n, "last link after a restore among strays")
    con.close()


@test(*NEEDS)
def a_file_that_is_no_database(t):
    """The same error as without the shim, the file untouched, nothing replicated, nothing restored over it."""
    shard = Shard(t)
    con = shard.open()
    n = shard.write(con, 5)
    con.close()
    before = shard.replica.files()
    for content in (b"this is a text file\n" * 300, b"x", bytes(5000)):
        with open(shard.path, "wb") as file:
            file.write(content)
        answers = []
        for con in (shim.plain(shard.path), shim.connect(shard.path, shard.base)):
            try:
                answers.append(con.execute("SELECT count(*) FROM sqlite_schema").fetchall())
            except sqlite3.DatabaseError as error:
                answers.append(str(error))
            con.close()
        check_equal(answers[1], answers[0], "answer for a file that starts with %r" % content[:4])
        check_equal(pages.read(shard.path), content, "content of the file")
        check_equal(shard.replica.files(), before, "files of the replica")
    os.unlink(shard.path)
    con = shard.open()
    check_equal(chain.last(con), n, "last link once the file is gone")
    con.close()


@test(*NEEDS)
def a_database_of_zero_bytes(t):
    new = Shard(t, "new")
    open(new.path, "w").close()
    con = new.open()
    n = new.write(con, 10)
    con.close()
    check_equal(new.check_restores("an empty file became a database", snapshots=1), n, "last link")

    for stale in (False, True):
        shard = Shard(t, "stale%d" % stale)
        con = shard.open()
        n = shard.write(con, 10)
        shim.sync(con)
        if stale:  # a leftover WAL beside an empty file must not be mixed into the restored one
            subprocess.run(["cp", shard.path + "-wal", t.path("old-wal")], check=True)
            n = shard.write(con, 10)
        con.close()
        shutil.rmtree(shard.data)
        os.mkdir(shard.data)
        open(shard.path, "w").close()
        if stale:
            shutil.copyfile(t.path("old-wal"), shard.path + "-wal")
        con = shard.open(create=False)
        check_equal(chain.verify(con, "restored over an empty file"), n, "last link, stale WAL %s" % stale)
        con.close()


# ---------------------------------------------------------------------------------------------------------------------
# configuration

CONFIG_CODE = """
import sys, json, sqlite3, os
from ljtest import shim
uri, db = sys.argv[1:3]
out = {"stage": "load", "error": ""}
try:
    shim.load()
    out["stage"] = "open"
    con = sqlite3.connect(uri, uri=True)
    con.execute("PRAGMA journal_mode=WAL").fetchall()
    con.execute("CREATE TABLE x(a)")
    out["stage"] = "worked"
    con.close()
except sqlite3.Error as error:
    out["error"] = str(error)
    out["last_error"] = shim.last_error()
out["made"] = os.path.exists(db)
print(json.dumps(out))
"""


def try_configuration(t, parameters="", env=None, replica=True):
    """Loads and opens in a fresh process; returns the dict CONFIG_CODE prints."""
    path = t.path("config.db")
    for tail in ("", "-wal", "-shm"):
        if os.path.exists(path + tail):
            os.unlink(path + tail)
    uri = shim.uri(path, t.path("config-replica") if replica else None) + parameters
    status, out, errors = python(CONFIG_CODE, env=env, arguments=(uri, path))
    check_equal((status, errors), (0, ""), "process with %s %s" % (parameters, env))
    return json.loads(out)


@test(*NEEDS, timeout=90)
def bad_configuration_is_refused_by_name(t):
    """Whatever is not understood fails the load or the open, names the key and the value, and makes no file."""
    folder = t.folder("a-folder")

    def yaml(name, text):
        path = t.path(name + ".yaml")
        with open(path, "w") as file:
            file.write(text)
        return {"LITEJOIN_CONFIG": path}

    url = "file://" + t.path("config-replica")
    cases = (
        ("unknown URI parameter replica_*", "&replica_colour=red", None, ("replica_colour",)),
        ("unknown URI parameter litejoin_*", "&litejoin_foo=1", None, ("litejoin_foo",)),
        ("bad duration", "&snapshot_interval=soon", None, ("snapshot_interval", "soon")),
        ("negative duration", "&retention=-1s", None, ("retention", "-1s")),
        ("number without unit", "&io_timeout=5", None, ("io_timeout", "5")),
        ("bad bool", "&restore_on_boot=maybe", None, ("restore_on_boot", "maybe")),
        ("bad size", "&max_wal_size=1parsec", None, ("max_wal_size", "1parsec")),
        ("bad mode", "&litejoin_mode=sideways", None, ("mode", "sideways")),
        ("bad level", "&log_level=loud", None, ("log_level", "loud")),
        ("too many workers", "&upload_workers=100000", None, ("upload_workers", "100000")),
        ("bad environment value", "", {"LITEJOIN_SYNC_INTERVAL": "often"}, ("often",)),
        ("unknown environment variable", "", {"LITEJOIN_NO_SUCH_OPTION": "1"}, ("LITEJOIN_NO_SUCH_OPTION",)),
        ("missing file", "", {"LITEJOIN_CONFIG": t.path("nothing.yaml")}, ("nothing.yaml",)),
        ("folder as file", "", {"LITEJOIN_CONFIG": folder}, ("a-folder",)),
        ("broken YAML", "", yaml("broken", "replication:\n  - [unclosed\n"), ("broken.yaml",)),
        ("unknown key in the block", "", yaml("key", "replication:\n  enabled: true\n  replica_uri: x\n"),
         ("replica_uri",)),
        ("bad value in the block", "", yaml("value", "replication:\n  sync_interval: 3 parsecs\n"),
         ("sync_interval", "3 parsecs")),
        ("nested value in the block", "", yaml("nested", "replication:\n  retention: [1h]\n"), ("retention",)),
        ("block that is a list", "", yaml("list", "replication: [a, b]\n"), ("replication",)),
    )
    for name, parameters, env, words in cases:
        with t.part(name):
            result = try_configuration(t, parameters, env)
            check(result["stage"] != "worked", "it was taken")
            text = result["error"] + " | " + result["last_error"]
            for word in words:
                check(word in text, "the error at %s does not name %s: %s" % (result["stage"], word, text))
            check(not result["made"], "a database file was made")
    for name, replica in (("scheme", "ftp://host/x"), ("no scheme", "/just/a/path"), ("empty", "")):
        with t.part("replica_url with " + name):
            result = try_configuration(t, "&replica_url=" + replica, replica=False)
            check(result["stage"] != "worked", "replica_url=%r was taken" % replica)
            text = result["error"] + " | " + result["last_error"]
            check("replica_url" in text, "the error does not name replica_url: " + text)
    with t.part("unreadable file"):
        if os.geteuid() == 0:
            raise harness.Skip("root can read everything")
        config = yaml("secret", "replication:\n  enabled: true\n")
        os.chmod(config["LITEJOIN_CONFIG"], 0)
        result = try_configuration(t, "", config)
        check("secret.yaml" in result["error"] + result.get("last_error", ""), "error: %s" % result)
    with t.part("what belongs to others is taken"):
        config = yaml("good", "engine:\n  shards: 4\nreplication:\n  enabled: true\n  mode: embedded\n"
                              "  replica_url: %s\n  sync_interval: 50ms\n  retention: 72h\nsinks: [a]\n" % url)
        result = try_configuration(t, "&cache=private&foo=bar", config, replica=False)
        check_equal(result["stage"], "worked", "stage (%s)" % result)
        found = Replica(os.path.join(t.path("config-replica"), "config"))
        check_equal(found.counts()[:2], (1, 1), "generations and snapshots through litejoin.yaml")


@test(*NEEDS)
def precedence_is_uri_then_environment_then_file(t):
    for name in ("file", "env", "uri"):
        t.folder(name)
    config = t.path("litejoin.yaml")
    with open(config, "w") as file:
        file.write("replication:\n  enabled: true\n  mode: embedded\n  replica_url: file://%s\n" % t.path("file"))
    env = {"LITEJOIN_CONFIG": config}
    check_equal(try_configuration(t, "", env, replica=False)["stage"], "worked", "from the file")
    check_equal(os.listdir(t.path("file")), ["config"], "replica from the file")
    env["LITEJOIN_REPLICA_URL"] = "file://" + t.path("env")
    check_equal(try_configuration(t, "", env, replica=False)["stage"], "worked", "from the environment")
    check_equal(os.listdir(t.path("env")), ["config"], "replica from the environment")
    check_equal(try_configuration(t, "&replica_url=file://%s&replica_name=other" % t.path("uri"), env,
                                  replica=False)["stage"], "worked", "from the URI")
    check_equal(os.listdir(t.path("uri")), ["other"], "replica from the URI")


@test(*NEEDS)
def disabled_by_the_environment(t):
    """LITEJOIN_ENABLED=false is stronger than a replica_url anywhere, but not than a URI that says enabled=true."""
    base = t.folder("off")
    env = {"LITEJOIN_ENABLED": "false", "LITEJOIN_REPLICA_URL": "file://" + base}
    in_uri = "&replica_url=file://%s" % base
    check_equal(try_configuration(t, "", env, replica=False)["stage"], "worked", "disabled")
    check_equal(try_configuration(t, in_uri, env, replica=False)["stage"], "worked", "disabled, with a URI")
    check_equal(os.listdir(base), [], "replicas of a process that is switched off")
    check_equal(try_configuration(t, in_uri + "&enabled=true", env, replica=False)["stage"], "worked", "enabled again")
    check_equal(os.listdir(base), ["config"], "replica of the database whose URI wants it")


@test(*NEEDS)
def a_file_without_a_block(t):
    """LITEJOIN_CONFIG names the wrong file, or one whose block is missing: said once, however often the extension is loaded."""
    code = ("import sqlite3\n"
            "from ljtest import harness, shim\n"
            "for _ in range(3):\n"
            "    con = sqlite3.connect(':memory:')\n"
            "    con.enable_load_extension(True)\n"
            "    con.load_extension(harness.extension_path())\n"
            "    con.close()\n")
    for name, text, times in (("missing", "engine:\n  shards: 4\n", 1), ("capital", "Replication:\n  enabled: true\n", 1),
                              ("nothing", "", 1), ("empty", "replication:\n", 0)):
        with t.part(name):
            path, log = t.path(name + ".yaml"), t.path(name + ".log")
            with open(path, "w") as file:
                file.write(text)
            status, out, errors = python(code, env={"LITEJOIN_CONFIG": path, "LITEJOIN_LOG_FILE": log})
            check_equal((status, out, errors), (0, "", ""), "process")
            lines = [line for line in pages.read(log).decode().splitlines() if path in line]
            check_equal(len(lines), times, "lines of the log: %s" % lines)
            check(all("warn" in line and "replication:" in line and "replica_url" in line for line in lines), lines)


@test(*NEEDS)
def errors_go_to_the_log_and_never_to_stdout(t):
    log = t.path("log.txt")
    code = ("import sys\n"
            "from ljtest import broken, chain, harness, shim\n"
            "import random\n"
            "con = shim.open_wal(sys.argv[1], sys.argv[2],\n"
            "                    shutdown_timeout='200ms')\n"
            "chain.create(con)\n"
            "shim.sync(con, '60s')\n"
            "broken.FileInTheWay(sys.argv[2] + '/shard_0').fail()\n"
            "for _ in range(10): chain.commit_one(con, random.Random(1))\n"
            "harness.wait_for(lambda: shim.status(con)['last_error'], 'an error')\n"
            "con.close()\n")
    status, out, errors = python(code, env={"LITEJOIN_LOG_FILE": log, "LITEJOIN_LOG_LEVEL": "debug"},
                                 arguments=(t.path("shard_0.db"), t.folder("replica")))
    check_equal((status, out, errors), (0, "", ""), "process")
    text = pages.read(log).decode()
    check(("irectory" in text or "is a file" in text) and "shard_0" in text, "log file: " + text[-500:])


if __name__ == "__main__":
    harness.main("failing")
