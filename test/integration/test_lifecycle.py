#!/usr/bin/python3
"""test_lifecycle.py - what happens to a database in its life: lost, rolled back, replaced, written by others, vacuumed.

Each event either goes on in the same generation or begins a new one; never does the replica hold a state that no
commit ever made, and never is the newest data lost from it.
"""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time

from shard import LIB, Shard, foreign, foreign_link, must_fail, python, wait_caught_up

from ljtest import chain, harness, pages, shim
from ljtest.broken import FileInTheWay
from ljtest.harness import LONG, check, check_equal, test, wait_for
from ljtest.workload import Workload

NEEDS = ("shim", "load_extension")


# ---------------------------------------------------------------------------------------------------------------------
# restore on open


@test(*NEEDS)
def a_lost_data_folder_comes_back_on_open(t):
    shard = Shard(t)
    con = shard.open()
    n = shard.write(con, 30)
    con.close()
    for turn in range(4):
        image = pages.read(shard.path)
        shutil.rmtree(shard.data)
        con = shard.open(create=False)
        check_equal(chain.verify(con, "restored on open"), n, "last link")
        con.close()
        if turn == 0:
            check_equal(pages.differences(pages.read(shard.path), image), "", "restored file against the lost one")
        con = shard.open(create=False)
        n = shard.write(con, 10)
        con.close()
        check_equal(shard.check_restores("turn %d" % turn, one_generation=False), n, "last link in the replica")
    check_equal([f for f in os.listdir(shard.data) if "tmp" in f], [], "temporary files beside the database")
    counts = shard.replica.counts()
    t.note("%d generations, %d snapshots, %d segments after 4 losses" % counts)


@test(*NEEDS)
def after_a_restore_new_writes_reach_the_replica(t):
    """Restore, one row, kill -9, lose the disk again: the row is there (A2.2)."""
    shard = Shard(t)
    con = shard.open()
    n = shard.write(con, 30)
    con.close()
    code = ("import sys, os, random\n"
            "from ljtest import chain, shim\n"
            "con = shim.open_wal(sys.argv[1], sys.argv[2])\n"
            "n = chain.commit_one(con, random.Random(3))\n"
            "shim.sync(con)\n"
            "print(n, flush=True)\n"
            "os.kill(os.getpid(), 9)\n")
    for _ in range(3):
        shutil.rmtree(shard.data)
        status, out, errors = python(code, arguments=(shard.path, shard.base))
        check_equal((status, out.strip()), (-signal.SIGKILL, str(n + 1)), "process: " + errors)
        n += 1
        check_equal(shard.restore_now("after the kill"), n, "last link")


@test(*NEEDS)
def several_processes_open_a_lost_database_at_once(t):
    """One restores, the others wait; all see everything."""
    shard = Shard(t)
    con = shard.open()
    con.execute("CREATE TABLE fill(a)")
    con.executemany("INSERT INTO fill VALUES(randomblob(20000))", [()] * 400)
    n = shard.write(con, 30)
    con.close()
    code = ("import sys\n"
            "from ljtest import chain, shim\n"
            "con = shim.connect(sys.argv[1], sys.argv[2])\n"
            "print(chain.verify(con), con.execute('SELECT count(*) FROM fill').fetchone()[0], flush=True)\n"
            "con.close()\n")
    for turn in range(3):
        shutil.rmtree(shard.data)
        processes = [subprocess.Popen([sys.executable, "-c", code, shard.path, shard.base], stdout=subprocess.PIPE,
                                      stderr=subprocess.PIPE, env=dict(os.environ, PYTHONPATH=LIB))
                     for _ in range(4)]
        for process in processes:
            out, errors = process.communicate(timeout=300)
            check_equal((process.returncode, out.decode(), errors.decode()), (0, "%d 400\n" % n, ""), "opener")
    con = shard.open(create=False)
    n = shard.write(con, 3)
    con.close()
    check_equal(shard.check_restores("closed", one_generation=False), n, "last link")


@test(*NEEDS)
def restore_happens_only_when_it_may(t):
    """Not with restore_on_boot=false, not read-only, not over a database that is there; nothing is ever lost by it."""
    shard = Shard(t)
    con = shard.open()
    n = shard.write(con, 20)
    con.close()
    old = shard.generation()

    shutil.rmtree(shard.data)
    os.mkdir(shard.data)
    uri = shim.uri(shard.path, shard.base) + "&mode=ro"
    must_fail(sqlite3.connect, uri, uri=True)
    check_equal([f for f in os.listdir(shard.data) if not f.startswith(".")], [], "files made by a read-only open")

    con = shard.open(create=False, restore_on_boot="false")
    check(not chain.exists(con), "restored although restore_on_boot=false")
    chain.create(con)
    fresh = shard.write(con, 3)
    con.close()
    check(shard.generation() != old, "a new database went on in the old generation")
    check_equal(shard.restore_now("old generation", generation=old), n, "last link of the old generation")
    check_equal(shard.check_restores("new generation", one_generation=False), fresh, "last link of the new one")

    con = shard.open(create=False)
    check_equal(chain.last(con), fresh, "an existing database was replaced by the replica's")
    con.close()


@test(*NEEDS)
def a_leftover_wal_is_not_mixed_into_a_restored_database(t):
    """kill -9 leaves a -wal; then the database file alone is lost."""
    code = ("import sys, os, random\n"
            "from ljtest import chain, shim\n"
            "con = shim.open_wal(sys.argv[1], sys.argv[2], sync_interval='1h')\n"
            "chain.exists(con) or chain.create(con)\n"
            "for _ in range(20): n = chain.commit_one(con, random.Random(3))\n"
            "print(n, shim.sync(con), flush=True)\n"
            "for _ in range(10): chain.commit_one(con, random.Random(3))\n"
            "os.kill(os.getpid(), 9)\n")
    shard = Shard(t)
    for turn in range(3):
        status, out, errors = python(code, arguments=(shard.path, shard.base))
        check_equal(status, -signal.SIGKILL, "process: " + errors)
        synced = int(out.split()[0])
        check(os.path.getsize(shard.path + "-wal") > 0, "no WAL was left behind")
        os.unlink(shard.path)
        con = shard.open(create=False)
        n = chain.verify(con, "restored beside a leftover WAL")
        check(n >= synced, "restored link %d of %d" % (n, synced))
        con.close()
        shard.check_restores("turn %d" % turn, one_generation=False, killed=True)


def remove_database(shard):
    """The file and its WAL, not what is kept beside them."""
    for end in ("", "-wal", "-shm"):
        if os.path.exists(shard.path + end):
            os.unlink(shard.path + end)


@test(*NEEDS)
def a_lost_database_whose_spool_is_left(t):
    """Lives that never reached the replica get there before it is restored, and those that follow come behind them."""
    shard = Shard(t)
    con = shard.open(pragmas=("wal_autocheckpoint=0",), shutdown_timeout="100ms")
    n = shard.write(con, 10)
    shim.sync(con)
    block = FileInTheWay(shard.root)
    t.cleanup(block.heal)
    block.fail()
    for _ in range(4):
        n = shard.write(con, 5)
        con.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    con.close()
    spool = os.path.join(shard.data, ".%s.db-litejoin" % shard.name, "spool")
    check(len(os.listdir(spool)) >= 4, "the spool has %s" % os.listdir(spool))
    remove_database(shard)
    block.heal()
    for turn in range(4):
        con = shard.open(create=False)
        check_equal(chain.verify(con, "restored"), n, "last link")
        shim.sync(con)
        check_equal(shard.restore_now("turn %d, at open" % turn), n, "last link in the replica")
        n = shard.write(con, 2)
        shim.sync(con)
        check_equal(shard.restore_now("turn %d" % turn), n, "last link in the replica")
        con.close()
    check_equal(shard.check_restores("closed", snapshots=1), n, "last link")


@test(*NEEDS)
def a_journal_that_is_left_hides_no_backup(t):
    """Of a change of the mode that was killed (hot), or of journal_mode=PERSIST (no header). SQLite would begin with nothing."""
    shard = Shard(t)
    con = shard.open()
    n = shard.write(con, 10)
    con.close()
    journal = shard.path + "-journal"
    cold = bytes(512)
    hot = bytes.fromhex("d9d505f920a163d7") + cold[8:]
    for empty, content in ((False, cold), (True, cold), (False, hot)):
        remove_database(shard)
        with open(journal, "wb") as file:
            file.write(content)
        if empty:
            open(shard.path, "w").close()
        con = shard.open(create=False)
        check_equal(chain.verify(con, "restored"), n, "last link")
        check(not os.path.exists(journal), "the journal is still there")
        n = shard.write(con, 2)
        con.close()
    check_equal(shard.check_restores("closed", snapshots=1), n, "last link")


# ---------------------------------------------------------------------------------------------------------------------
# writers that do not know the shim, and files that change under it


def new_generation_after(t, label, change, expected=None):
    """
    A clean life, then change(shard) while nobody has the database open, then the next life: it must begin a new
    generation that holds what the file holds, and the old one must still restore what it held.
    """
    with t.part(label):
        shard = Shard(t, label.replace(" ", "_"))
        con = shard.open()
        shard.write(con, 10)
        con.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        before = shard.write(con, 20)
        con.close()
        old = shard.generation()
        change(shard)
        con = shard.open(create=False)
        n = chain.verify(con, "at open")
        shim.sync(con)
        check_equal(shard.restore_now("right after the open"), n, "last link in the replica")
        check(shard.generation() != old, "generation %s went on" % old)
        n = shard.write(con, 5)
        con.close()
        check_equal(shard.check_restores("closed", one_generation=False), n, "last link")
        check_equal(shard.restore_now("old generation", generation=old), before, "last link of the old generation")
        if expected:
            expected(shard)


@test(*NEEDS, timeout=120)
def a_plain_writer_while_the_shim_is_away(t):
    def vacuum(shard):
        foreign(shard.path, "VACUUM")

    def page_size(shard):
        foreign(shard.path, "PRAGMA journal_mode=DELETE", "PRAGMA page_size=8192", "VACUUM", "PRAGMA journal_mode=WAL")

    def rollback_journal(shard):
        foreign(shard.path, "PRAGMA journal_mode=DELETE", "UPDATE ledger SET pad = zeroblob(77)",
                "PRAGMA journal_mode=WAL")

    def same_second_same_size(shard):
        stat = os.stat(shard.path)
        foreign(shard.path, "UPDATE ledger SET pad = zeroblob(40)")
        os.utime(shard.path, ns=(stat.st_atime_ns, stat.st_mtime_ns))

    new_generation_after(t, "one link, closed", lambda shard: foreign_link(shard.path))
    new_generation_after(t, "many links, closed", lambda shard: foreign_link(shard.path, 200))
    new_generation_after(t, "one link, WAL left", lambda shard: foreign_link(shard.path, leave_wal=True))
    new_generation_after(t, "vacuum", vacuum)
    new_generation_after(t, "page size changed", page_size)
    new_generation_after(t, "rollback journal", rollback_journal)
    new_generation_after(t, "mtime set back", same_second_same_size)


@test(*NEEDS)
def a_plain_writer_that_only_reads_changes_nothing(t):
    shard = Shard(t)
    con = shard.open()
    shard.write(con, 20)
    con.close()
    for _ in range(3):
        foreign(shard.path, "SELECT count(*) FROM chain", "PRAGMA integrity_check")
        con = shard.open(create=False)
        n = shard.write(con, 2)
        con.close()
    check_equal(shard.check_restores("closed", snapshots=1), n, "last link")


@test(*NEEDS)
def a_plain_writer_after_a_kill(t):
    """The shim's process dies with a WAL; plain SQLite recovers it, goes on, and may restart it."""
    code = ("import sys, os, random\n"
            "from ljtest import chain, shim\n"
            "con = shim.open_wal(sys.argv[1], sys.argv[2], sync_interval='1h')\n"
            "chain.exists(con) or chain.create(con)\n"
            "shim.sync(con)\n"
            "for _ in range(15): chain.commit_one(con, random.Random(3))\n"
            "os.kill(os.getpid(), 9)\n")
    for label, count, leave in (("closes", 3, False), ("leaves the WAL", 3, True), ("restarts the WAL", 3, True)):
        with t.part("plain writer " + label):
            shard = Shard(t, label.replace(" ", "_"))
            status, _, errors = python(code, arguments=(shard.path, shard.base))
            check_equal(status, -signal.SIGKILL, "process: " + errors)
            if "restarts" in label:
                foreign(shard.path, "PRAGMA wal_checkpoint(RESTART)")
            foreign_link(shard.path, count, leave_wal=leave)
            con = shard.open(create=False)
            check_equal(chain.verify(con, "at open"), 15 + count, "last link")
            shim.sync(con)
            check_equal(shard.restore_now("after the open"), 15 + count, "last link in the replica")
            n = shard.write(con, 5)
            con.close()
            check_equal(shard.check_restores("closed", one_generation=False, killed=True), n, "last link")


@test(*NEEDS)
def a_plain_writer_beside_an_open_shim(t):
    """Another program commits while we have the database open: its commits reach the replica too."""
    shard = Shard(t)
    con = shard.open()
    shard.write(con, 10)
    shim.sync(con)
    for turn in range(6):
        foreign_link(shard.path, 5)
        if turn == 2:
            con.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        if turn == 4:  # frames that nobody has shipped yet may be gone after this
            foreign(shard.path, "PRAGMA wal_checkpoint(TRUNCATE)")
        n = shard.write(con, 1)
        check_equal(n, 10 + 6 * (turn + 1), "last link")
        shim.sync(con)
        check_equal(shard.restore_now("turn %d" % turn), n, "last link in the replica")
    con.close()
    check_equal(shard.check_restores("closed", one_generation=False), n, "last link")


@test(*NEEDS)
def a_file_that_was_rolled_back(t):
    """A copy of yesterday put back (volume snapshot): a new generation, and the newest data stay restorable (A2.3)."""

    def with_copy(name, copy_wal):
        with t.part(name):
            shard = Shard(t, name.replace(" ", "_"))
            con = shard.open()
            old_n = shard.write(con, 20)
            if copy_wal:
                shim.sync(con)
                for tail in ("", "-wal"):
                    subprocess.run(["cp", shard.path + tail, t.path("copy" + tail)], check=True)
                con.close()
            else:
                con.close()
                shutil.copyfile(shard.path, t.path("copy"))
            con = shard.open(create=False)
            new_n = shard.write(con, 30)
            con.close()
            old = shard.generation()
            for tail in ("", "-wal", "-shm"):
                if os.path.exists(shard.path + tail):
                    os.unlink(shard.path + tail)
            for tail in ("", "-wal") if copy_wal else ("",):
                shutil.copyfile(t.path("copy" + tail), shard.path + tail)
            con = shard.open(create=False)
            check_equal(chain.verify(con, "rolled back"), old_n, "last link of the rolled-back file")
            n = shard.write(con, 5)
            shim.sync(con)
            check(shard.generation() != old, "the old generation was extended by a rolled-back file")
            con.close()
            check_equal(shard.check_restores("closed", one_generation=False), n, "last link")
            check_equal(shard.restore_now("the newest data", generation=old), new_n, "last link of the old generation")

    with_copy("closed copy", False)
    with_copy("copy with its WAL", True)


@test(*NEEDS)
def a_file_rolled_back_together_with_its_bookkeeping(t):
    """The whole data folder is a day old (VM snapshot): what the replica already has must not be overwritten."""
    shard = Shard(t)
    con = shard.open()
    old_n = shard.write(con, 20)
    con.close()
    shutil.copytree(shard.data, shard.data + ".copy", copy_function=shutil.copy2)
    con = shard.open(create=False)
    new_n = shard.write(con, 30)
    con.close()
    old = shard.generation()
    before = shard.replica.files()
    shutil.rmtree(shard.data)
    shutil.copytree(shard.data + ".copy", shard.data, copy_function=shutil.copy2)
    con = shard.open(create=False)
    check_equal(chain.last(con), old_n, "last link of the old folder")
    n = shard.write(con, 5)
    shim.sync(con)
    con.close()
    after = shard.replica.files()
    check_equal({name: after.get(name) for name in before}, before, "objects that were there before")
    check(shard.generation() != old, "the old generation went on")
    check_equal(shard.check_restores("closed", one_generation=False), n, "last link")
    check_equal(shard.restore_now("the newest data", generation=old), new_n, "last link of the old generation")


@test(*NEEDS)
def a_database_deleted_and_made_anew(t):
    shard = Shard(t, restore_on_boot="false")
    ends = {}
    for turn in range(3):
        con = shard.open()
        n = shard.write(con, 10 + turn)
        con.close()
        ends[shard.generation()] = n
        check_equal(len(ends), turn + 1, "generations")
        for tail in ("", "-wal", "-shm"):
            if os.path.exists(shard.path + tail):
                os.unlink(shard.path + tail)
    for generation, n in ends.items():
        check_equal(shard.restore_now(generation, generation=generation), n, "last link of " + generation)


# ---------------------------------------------------------------------------------------------------------------------
# journal modes, VACUUM, size


@test(*NEEDS, timeout=90)
def leaving_wal_mode_and_coming_back(t):
    """In rollback-journal mode nothing is captured: the status says so, sync does not lie, and the way back resnapshots."""
    for mode in ("DELETE", "TRUNCATE", "PERSIST"):
        with t.part("journal_mode=" + mode):
            shard = Shard(t, mode)
            con = shard.open()
            shard.write(con, 20)
            shim.sync(con)
            first = shard.generation()
            check_equal(con.execute("PRAGMA journal_mode=" + mode).fetchone()[0], mode.lower(), "journal_mode")
            shard.write(con, 10)
            status = shim.status(con)
            check(status["state"].startswith("not replicating") and "journal" in status["state"],
                  "state in %s mode: %r" % (mode, status["state"]))
            must_fail(shim.sync, con, "300ms")
            check_equal(shard.restore_now("in " + mode), 20, "last link in the replica")
            check_equal(con.execute("PRAGMA journal_mode=WAL").fetchone()[0], "wal", "journal_mode")
            n = shard.write(con, 10)
            wait_caught_up(con)
            check_equal(shard.restore_now("back in WAL"), n, "last link in the replica")
            check(shard.generation() != first, "the generation went on across commits that were not captured")
            con.close()
            check_equal(shard.check_restores("closed", one_generation=False), n, "last link")


@test(*NEEDS)
def a_database_that_is_not_in_wal_mode_when_opened(t):
    shard = Shard(t)
    con = shim.connect(shard.path, shard.base)
    check_equal(con.execute("PRAGMA journal_mode").fetchone()[0], "delete", "journal_mode of a new database")
    chain.create(con)
    shard.write(con, 10)
    status = shim.status(con)
    check(status["state"].startswith("not replicating"), "state %r" % status["state"])
    check_equal(shard.replica.counts(), (0, 0, 0), "objects")
    con.close()
    con = shard.open()
    n = shard.write(con, 10)
    con.close()
    check_equal(shard.check_restores("closed", snapshots=1), n, "last link")


@test(*NEEDS, timeout=120)
def growing_and_shrinking(t):
    """VACUUM, auto_vacuum and incremental_vacuum, in one and in several transactions per segment (A1.5)."""
    rows = 6000 if LONG else 800
    for auto_vacuum in ("NONE", "FULL", "INCREMENTAL"):
        for interval in ("10ms", "1s"):
            with t.part("auto_vacuum=%s, sync_interval=%s" % (auto_vacuum, interval)):
                shard = Shard(t, auto_vacuum + interval, sync_interval=interval)
                con = shard.open(auto_vacuum=auto_vacuum, pragmas=("wal_autocheckpoint=300",))
                con.execute("CREATE TABLE big(id INTEGER PRIMARY KEY, b)")
                for turn in range(3):
                    con.executemany("INSERT INTO big(b) VALUES(randomblob(3000))", [()] * (rows // 10))
                    con.execute("BEGIN")
                    con.executemany("INSERT INTO big(b) VALUES(randomblob(3000))", [()] * rows)
                    con.execute("COMMIT")
                    shard.write(con, 3)
                    con.execute("DELETE FROM big WHERE id % 5 > ?", (turn,))
                    if auto_vacuum == "INCREMENTAL":
                        con.execute("PRAGMA incremental_vacuum(100)").fetchall()
                        con.execute("PRAGMA incremental_vacuum").fetchall()
                    if turn != 1:
                        con.execute("VACUUM")
                    shim.sync(con)
                    out = t.path("now.db")
                    shard.replica.restore(out)
                    check_equal(os.path.getsize(out),
                                con.execute("PRAGMA page_count").fetchone()[0] * 4096, "size of the restored file")
                con.execute("DROP TABLE big")
                con.execute("VACUUM")
                n = shard.write(con, 2)
                con.close()
                check_equal(shard.check_restores("closed", snapshots=1), n, "last link")


@test(*NEEDS)
def beyond_the_lock_byte_page(t):
    """A sparse database around 1 GiB: the page SQLite never uses must not shift the others (A1.7). Long form only."""
    if not LONG:
        raise harness.Skip("long form only (LJ_LONG=1): writes 1 GiB")
    shard = Shard(t)
    con = shard.open(page_size=65536)
    con.execute("CREATE TABLE big(b)")
    for _ in range(22):
        con.execute("BEGIN")
        con.executemany("INSERT INTO big VALUES(zeroblob(10000000))", [()] * 5)
        con.execute("COMMIT")
        con.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        n = shard.write(con, 1)
    shim.snapshot(con, "300s")
    n = shard.write(con, 5)
    con.close()
    check_equal(shard.check_restores("closed"), n, "last link")


@test(*NEEDS)
def names_and_paths(t):
    """Relative paths, symbolic links, spaces, percent signs and dots in names; replica_name."""
    os.chdir(t.folder("work"))
    for number, (path, name) in enumerate((("relative.db", "relative"), ("with space.db", "with space"),
                                           ("per%cent.db", "per%25cent"), ("dotted.name.db", "dotted.name"),
                                           ("noextension", "noextension"), ("other.sqlite3", "other.sqlite3"))):
        with t.part(path):
            base = t.path("replica%d" % number)
            con = shim.open_wal(path, base)
            chain.create(con)
            n = chain.commit_one(con, t.random)
            con.close()
            check_equal(os.listdir(base), [name], "replica of " + path)
            shutil.rmtree(t.folder("work"))
            os.chdir(t.folder("work"))
            con = shim.connect(path, base)
            check_equal(chain.last(con), n, "last link after a restore")
            con.close()
    with t.part("symbolic link"):
        shard = Shard(t, "link")
        con = shard.open()
        shard.write(con, 5)
        os.symlink(shard.path, t.path("alias.db"))
        other = shim.connect(t.path("alias.db"), shard.base, replica_name="shard_0")
        n = shard.write(other, 5)
        other.close()
        n = shard.write(con, 5)
        con.close()
        check_equal(shard.check_restores("closed", snapshots=1), n, "last link")


@test(*NEEDS)
def one_database_and_two_replicas(t):
    """Two connections name two replicas for one database: the first decides, and that is said."""
    def lines(words):
        with open(os.environ["LITEJOIN_LOG_FILE"]) as log:
            return [line for line in log if words in line]

    shard = Shard(t)
    con = shard.open()
    again = shard.open(create=False)
    check_equal(lines("is open already and goes to"), [], "lines of a second connection")
    other = shim.connect(shard.path, shard.base, replica_name="elsewhere")
    said = lines("is open already and goes to")
    check(len(said) == 1 and "replica/shard_0:" in said[0], said)
    n = shard.write(other, 3)
    for each in (con, again, other):
        each.close()
    check_equal(os.listdir(shard.base), ["shard_0"], "replicas")
    check_equal(shard.check_restores("closed", snapshots=1), n, "last link")


@test(*NEEDS, timeout=90)
def everything_at_random(t):
    """The generated workload with restores in between, on one database for many lives."""
    shard = Shard(t, snapshot_interval="400ms")
    n = 0
    for life in range(20 if LONG else 5):
        workload = Workload(lambda: shard.open(create=False, auto_vacuum="INCREMENTAL"), t.seed * 100 + life,
                            spill=life % 2 == 0)
        n = workload.run(40)
        if life % 2:
            shim.sync(workload.con)
            check_equal(shard.restore_now("life %d" % life), n, "last link")
        workload.close()
        check_equal(shard.check_restores("life %d, closed" % life), n, "last link")
    generation = shard.replica.newest()
    for segment in generation.segments[::max(1, len(generation.segments) // 12)]:
        shard.restore_now("timestamp of %r" % segment, until_ns=segment.time_ns)


@test(*NEEDS)
def a_stopped_process_goes_on_where_it_was(t):
    """SIGSTOP for a while, as a frozen container: nothing is lost, no new generation."""
    shard = Shard(t)
    code = ("import sys, random, time\n"
            "from ljtest import chain, shim\n"
            "con = shim.open_wal(sys.argv[1], sys.argv[2])\n"
            "chain.create(con)\n"
            "rng = random.Random(5)\n"
            "end = time.monotonic() + 3\n"
            "while time.monotonic() < end: chain.commit_one(con, rng); time.sleep(0.002)\n"
            "con.close()\n")
    process = subprocess.Popen([sys.executable, "-c", code, shard.path, shard.base],
                               env=dict(os.environ, PYTHONPATH=LIB))
    wait_for(lambda: shard.replica.counts()[2] > 2, "segments")
    for _ in range(3):
        process.send_signal(signal.SIGSTOP)
        time.sleep(0.4)
        process.send_signal(signal.SIGCONT)
        time.sleep(0.2)
    check_equal(process.wait(120), 0, "status of the process")
    check_equal(shard.check_restores("closed", snapshots=1), chain.verify_file(shard.path), "last link")


if __name__ == "__main__":
    harness.main("lifecycle")
