#!/usr/bin/python3
"""test_moved.py - names and files part while a database is open: renamed, replaced, deleted, made anew, two names for one.

The rule: a replica never holds a mixture of two files. What was open stops being replicated and says so; what is opened
under the name later is a database of its own, in a generation of its own.
"""

import os
import subprocess

from shard import Shard, must_fail

from ljtest import chain, harness, pages, shim
from ljtest.harness import check, check_equal, test, wait_for
from ljtest.replica import Replica

NEEDS = ("shim", "load_extension")
MOVED = "not replicating: the file was moved, replaced or deleted"


def log_lines(word):
    with open(os.environ["LITEJOIN_LOG_FILE"]) as file:
        return [line for line in file.read().splitlines() if word in line]


def other_file(t, path, count=7):
    """A WAL database of somebody else, made aside."""
    con = shim.plain(path, pragmas=("journal_mode=WAL",))
    chain.create(con)
    for _ in range(count):
        n = chain.commit_one(con, t.random, "other")
    con.close()
    return n


def check_all_sound(t, shard):
    """Every generation restores to a committed prefix of one of the histories, never to a mixture."""
    shard.replica.check(leftovers_ok=True)
    ends = {}
    for generation in shard.replica.generations():
        out = t.path("check.db")
        shard.replica.restore(out, generation=generation.name)
        pages.check_integrity(out, generation.name)
        chain.verify_file(out, generation.name)
        look = shim.plain(out)
        writers = [row[0] for row in look.execute("SELECT DISTINCT writer FROM chain ORDER BY 1")]
        look.close()
        ends[generation.name] = (chain.verify_file(out), writers)
    return ends


@test(*NEEDS)
def replaced_by_a_rename(t):
    """mv new.db shard_0.db while it is open, with commits and checkpoints through the old handle before and behind."""
    for when in ("idle", "commits behind it", "checkpoint behind it", "snapshot behind it"):
        with t.part(when):
            shard = Shard(t, when.replace(" ", "_"))
            con = shard.open()
            before = shard.write(con, 20)
            shim.sync(con)
            old = shard.generation()
            n = other_file(t, os.path.join(shard.data, "new.db"))
            os.rename(os.path.join(shard.data, "new.db"), shard.path)
            if when != "idle":
                shard.write(con, 5)
            if when.startswith("checkpoint"):
                con.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
                shard.write(con, 3)
            if when.startswith("snapshot"):
                must_fail(shim.snapshot, con, "5s")
            wait_for(lambda: shim.status(con)["state"] == MOVED, lambda: shim.status(con)["state"])
            check(must_fail(shim.sync, con, "5s"), "sync of a file that has gone")
            shard.write(con, 5)  # the application goes on
            con.close()
            for tail in ("-wal", "-shm"):  # of the file that was replaced: SQLite would apply it to the new one
                if os.path.exists(shard.path + tail):
                    os.unlink(shard.path + tail)
            check_equal(len(log_lines("not replicating any more")), 1 + list(
                ("idle", "commits behind it", "checkpoint behind it", "snapshot behind it")).index(when), "log lines")
            con = shard.open(create=False)
            check_equal(chain.verify(con, "the new file"), n, "last link of the new file")
            chain.commit_one(con, t.random, "other")
            con.close()
            ends = check_all_sound(t, shard)
            check(shard.generation() != old, "the generation went on")
            check_equal(ends[shard.generation()], (n + 1, ["other"]), "the newest generation")
            check(ends[old][0] >= before and ends[old][1] == ["w"], "the old generation: %r" % (ends[old],))
            shard.check_restores("closed", one_generation=False)


@test(*NEEDS)
def opened_anew_while_the_old_one_is_open(t):
    """Both are open at once: each has what it wrote, only the one that has the name is replicated."""
    shard = Shard(t)
    con = shard.open()
    shard.write(con, 20)
    shim.sync(con)
    old = shard.generation()
    n = other_file(t, os.path.join(shard.data, "new.db"))
    for tail in ("-wal", "-shm"):  # a careful operator takes these away too: the handles keep theirs
        os.unlink(shard.path + tail)
    os.rename(os.path.join(shard.data, "new.db"), shard.path)
    two = shard.open(create=False)
    check_equal(shim.status(con)["state"], MOVED, "state of the old handle")
    check_equal(chain.verify(two, "new file"), n, "last link of the new file")
    for _ in range(5):
        n = chain.commit_one(two, t.random, "other")
        m = shard.write(con, 2)
    shim.sync(two)
    check_equal(shard.restore_now("both open"), n, "last link in the replica")
    check_equal(chain.verify(con, "old handle"), m, "last link of the old handle")
    con.close()
    n = chain.commit_one(two, t.random, "other")
    shim.sync(two)
    check_equal(shim.status(two)["state"], "replicating", "state of the new handle")
    two.close()
    check_equal(shard.check_restores("closed", one_generation=False), n, "last link")
    ends = check_all_sound(t, shard)
    check_equal((len(ends), ends[old][1]), (2, ["w"]), "generations, and whose the old one is")


@test(*NEEDS)
def deleted_while_open_and_opened_again(t):
    """The file is gone, so the next open restores it; the handle that still has the deleted one does not get in between."""
    shard = Shard(t)
    con = shard.open()
    n = shard.write(con, 20)
    shim.sync(con)
    for tail in ("", "-wal", "-shm"):
        os.unlink(shard.path + tail)
    lost = shard.write(con, 3)
    two = shard.open(create=False)
    check(chain.verify(two, "restored") in range(n, lost + 1), "last link of the restored file")
    check_equal(shim.status(con)["state"], MOVED, "state of the old handle")
    n = chain.last(two)
    for _ in range(5):
        shard.write(con, 1)
        n = chain.commit_one(two, t.random, "two")
    con.close()
    n = chain.commit_one(two, t.random, "two")
    two.close()
    check_equal(shard.check_restores("closed", one_generation=False), n, "last link")
    check_all_sound(t, shard)


@test(*NEEDS)
def deleted_and_made_anew_without_a_restore(t):
    shard = Shard(t, restore_on_boot="false")
    con = shard.open()
    end = shard.write(con, 20)
    shim.sync(con)
    old = shard.generation()
    for tail in ("", "-wal", "-shm"):
        os.unlink(shard.path + tail)
    two = shard.open()
    n = 0
    for _ in range(8):
        shard.write(con, 1)
        n = chain.commit_one(two, t.random, "two")
    two.close()
    con.close()
    check_equal(shard.check_restores("closed", one_generation=False), n, "last link")
    ends = check_all_sound(t, shard)
    check_equal(ends[shard.generation()], (n, ["two"]), "the new generation")
    check_equal(ends[old], (end, ["w"]), "the old generation")


@test(*NEEDS)
def renamed_while_open(t):
    """Under its new name it is another database, with a replica of its own, once nobody has it open under the old one."""
    for what in ("file", "folder"):
        with t.part(what):
            shard = Shard(t, what)
            con = shard.open()
            n = shard.write(con, 20)
            shim.sync(con)
            if what == "file":
                for tail in ("", "-wal", "-shm"):
                    os.rename(shard.path + tail, os.path.join(shard.data, "other.db" + tail))
                path, name = os.path.join(shard.data, "other.db"), "other"
            else:
                os.rename(shard.data, shard.data + ".new")
                path, name = os.path.join(shard.data + ".new", "shard_0.db"), "shard_0"
            n = shard.write(con, 5)
            wait_for(lambda: shim.status(con)["state"] == MOVED, lambda: shim.status(con)["state"])
            con.close()
            check_equal(shard.restore_now("the old name"), 20, "last link in the replica of the old name")
            con = shim.open_wal(path, shard.base)
            check_equal(chain.verify(con, "new name"), n, "last link under the new name")
            n = shard.write(con, 3)
            con.close()
            out = t.path("new.db")
            Replica(os.path.join(shard.base, name)).restore(out)
            pages.check_same(out, path, "replica of the new name")


@test(*NEEDS)
def hard_links(t):
    """Two names, one file: one after the other each has its own replica; at once there is one, and the log complains."""
    shard = Shard(t)
    con = shard.open()
    n = shard.write(con, 10)
    con.close()
    alias = os.path.join(shard.data, "alias.db")
    os.link(shard.path, alias)
    con = shim.open_wal(alias, shard.base)
    check_equal(len(log_lines("has 2 names (hard links)")), 1, "log lines at the open")
    check_equal(chain.verify(con, "alias"), n, "last link")
    n = shard.write(con, 5)
    con.close()
    out = t.path("alias-out.db")
    Replica(os.path.join(shard.base, "alias")).restore(out)
    pages.check_same(out, alias, "replica of the alias")
    con = shard.open(create=False)  # the other name wrote: what was seen under this one does not go on
    check_equal(chain.verify(con, "first name"), n, "last link")
    con.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    two = shim.connect(alias, shard.base)
    check_equal(len(log_lines("is the same file as")), 1, "log lines with both open")
    check_equal(shim.status(two)["replica"], shim.status(con)["replica"], "replica of both")
    check_equal(chain.verify(two, "second name"), n, "last link by the second name")
    two.close()
    shim.sync(con)
    con.close()
    check_equal(shard.check_restores("closed", one_generation=False), n, "last link")
    check_all_sound(t, shard)


@test(*NEEDS, "mount")
def a_folder_that_is_mounted_twice(t):
    """Two paths, one folder: the WAL is the same too, so this is harmless and one database."""
    shard = Shard(t)
    con = shard.open()
    shard.write(con, 5)
    twin = t.folder("twin")
    subprocess.run(["mount", "--bind", shard.data, twin], check=True)
    t.cleanup(subprocess.run, ["umount", "-l", twin])
    two = shim.connect(os.path.join(twin, "shard_0.db"), shard.base)
    for _ in range(5):
        n = shard.write(two, 3)
        n = shard.write(con, 3)
    check_equal(shim.status(two)["generation"], shim.status(con)["generation"], "generation of both")
    check_equal(log_lines("hard links"), [], "complaints")
    two.close()
    n = shard.write(con, 3)
    con.close()
    check_equal(shard.check_restores("closed", snapshots=1), n, "last link")
    # the other name is the last one that is closed: the WAL goes under it
    con = shard.open()
    two = shim.connect(os.path.join(twin, "shard_0.db"), shard.base)
    shard.write(two, 3)
    con.close()
    shard.write(two, 3)
    two.close()
    con = shard.open()
    n = shard.write(con, 3)
    con.close()
    check_equal(shard.check_restores("closed by the other name", snapshots=1), n, "last link")


if __name__ == "__main__":
    harness.main("moved")
