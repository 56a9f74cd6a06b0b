#!/usr/bin/python3
"""test_spool.py - what is copied for the spool before the WAL restarts (capture/ahead.h): used, correct, and gone afterwards."""

import os

from shard import Shard, wait_caught_up

from ljtest import chain, harness, shim
from ljtest.broken import FileInTheWay, Tmpfs
from ljtest.harness import check, check_equal, test, wait_for

NEEDS = ("shim", "load_extension")


# more than two steps of the copy: then it is worth taking, whatever is being done to it at the moment
ENOUGH_BYTES = 600 * 1024


def spool_of(shard, ending):
    """stat by name of the files with that ending."""
    folder = os.path.join(shard.data, ".%s.db-litejoin" % shard.name, "spool")
    found = {}
    for name in os.listdir(folder) if os.path.isdir(folder) else ():
        try:
            if name.endswith(ending):
                found[name] = os.stat(os.path.join(folder, name))
        except FileNotFoundError:
            pass  # gone in between
    return found


def inodes(shard, ending):
    return {stat.st_ino for stat in spool_of(shard, ending).values()}


def write_until_copied(shard, con):
    """Commits until enough is copied; returns the last link and the copy's inode."""
    n = 0
    copies = []

    def copied():
        copies[:] = [stat.st_ino for stat in spool_of(shard, ".tmp").values() if stat.st_size >= ENOUGH_BYTES]
        return copies

    for _ in range(100):
        n = shard.write(con, 20, payload_bytes=(3000, 9000))
        if copied():
            break
    wait_for(copied, "a copy of what is not shipped", 20, 0.01)
    n = shard.write(con, 3)
    check_equal(len(copies), 1, "copies")
    return n, copies[0]


def failing(t, data=None, **options):
    """(shard, what keeps its replica away from now on, a connection that never checkpoints by itself)."""
    shard = Shard(t, data=data, **options)
    block = FileInTheWay(shard.root)
    con = shard.open(pragmas=("wal_autocheckpoint=0",))
    shim.sync(con)
    block.fail()
    return shard, block, con


@test(*NEEDS, timeout=120)
def a_restart_takes_what_was_copied(t):
    """The spool's file is the very file that was made before the restart, with what was committed since."""
    shard, block, con = failing(t)
    for turn in range(4):
        n, inode = write_until_copied(shard, con)
        check_equal(con.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()[0], 0, "busy of RESTART")
        shard.write(con, 1)  # restarts the WAL
        check(inode in inodes(shard, ".wal"), "turn %d: the spool has other files than the one copied before" % turn)
        n = chain.last(con)
    check_equal(spool_of(shard, ".tmp"), {}, "copies that nobody took")
    block.heal()
    wait_caught_up(con, 90)
    check_equal(shard.restore_now("healed"), n, "last link")
    con.close()
    check_equal(shard.check_restores("closed", snapshots=1), n, "last link")
    check_equal(spool_of(shard, ""), {}, "what is left in the spool")


@test(*NEEDS, timeout=120)
def what_is_shipped_in_time_leaves_nothing(t):
    """A copy of frames that get to the replica before the WAL restarts goes by itself."""
    shard, block, con = failing(t)
    n, _ = write_until_copied(shard, con)
    block.heal()
    wait_caught_up(con, 90)
    wait_for(lambda: not spool_of(shard, ""), "an empty spool", 30, 0.05)
    check_equal(shard.restore_now("healed"), n, "last link")
    con.close()
    check_equal(shard.check_restores("closed", snapshots=1), n, "last link")


@test(*NEEDS, timeout=120)
def a_close_leaves_no_copy(t):
    shard, block, con = failing(t, shutdown_timeout="200ms")
    n, _ = write_until_copied(shard, con)
    con.close()
    check_equal(spool_of(shard, ".tmp"), {}, "copies that nobody took")
    block.heal()
    con = shard.open(create=False)
    check_equal(chain.last(con), n, "last link")
    wait_caught_up(con, 90)
    con.close()
    check_equal(shard.check_restores("closed", snapshots=1), n, "last link")


@test(*NEEDS, "mount", timeout=120)
def little_room_is_left_to_the_application(t):
    """On a disk with less than 256 MiB nothing is copied before it has to be."""
    with Tmpfs(t.path("small"), "200m"):
        shard, block, con = failing(t, data=t.path("small"))
        for turn in range(2):
            for _ in range(40):
                n = shard.write(con, 20, payload_bytes=(3000, 9000))
                check_equal([stat.st_size for stat in spool_of(shard, ".tmp").values() if stat.st_size], [], "copies")
            con.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        check_equal(len(spool_of(shard, ".wal")), 2, "files in the spool")
        block.heal()
        wait_caught_up(con, 90)
        con.close()
        check_equal(shard.check_restores("closed", snapshots=1), n, "last link")


@test(*NEEDS, timeout=120)
def flat_out(t):
    """Small WALs one after the other, with more written than is shipped."""
    shard = Shard(t, sync_interval="300ms")
    con = shard.open(pragmas=("synchronous=OFF", "wal_autocheckpoint=300"))
    n = shard.write(con, 1500, payload_bytes=(1000, 5000))
    wait_caught_up(con, 90)
    wait_for(lambda: not spool_of(shard, ""), "an empty spool", 30, 0.05)
    check_equal(shard.restore_now("caught up"), n, "last link")
    con.close()
    check_equal(shard.check_restores("closed"), n, "last link")


if __name__ == "__main__":
    harness.main("spool")
