#!/usr/bin/python3
"""test_walindex.py - the wal-index (-shm) is the application's: replication never makes one that it has not got."""

import os
import shutil
import sqlite3

from shard import Shard, wait_caught_up

from ljtest import chain, harness, shim
from ljtest.harness import check, check_equal, test

NEEDS = ("shim", "load_extension")


def with_frames_in_its_wal(t, shard):
    """A database as a killed process leaves it, but without the -shm; returns the last link."""
    con = shim.plain(t.path("other.db"))
    con.execute("PRAGMA journal_mode=WAL").fetchall()
    chain.create(con)
    for _ in range(20):
        n = chain.commit_one(con, t.random)
    for end in ("", "-wal"):
        shutil.copy(t.path("other.db") + end, shard.path + end)
    con.close()
    return n


def asked_for_a_snapshot(con):
    """Several attempts at one are over when this returns; whether it came does not matter here."""
    try:
        con.execute("PRAGMA litejoin_snapshot='2s'").fetchall()
    except sqlite3.OperationalError:
        pass


@test(*NEEDS)
def none_is_made_before_the_application_reads(t):
    """With readonly_shm a read has to fail then, and a program that wants the file exclusively keeps its index in memory."""
    shard = Shard(t)
    n = with_frames_in_its_wal(t, shard)
    con = shim.connect(shard.path, shard.base)
    asked_for_a_snapshot(con)
    check(not os.path.exists(shard.path + "-shm"), "a -shm was made though nobody has read the database")
    check_equal(chain.last(con), n, "last link")
    check(os.path.exists(shard.path + "-shm"), "the read makes a -shm")
    con.close()
    check_equal(shard.check_restores("read and closed"), n, "last link")


@test(*NEEDS)
def none_is_made_beside_an_exclusive_connection(t):
    """locking_mode=EXCLUSIVE before the first read: SQLite's wal-index is in its own memory, also while a snapshot is taken."""
    shard = Shard(t)
    n = with_frames_in_its_wal(t, shard)
    con = shim.connect(shard.path, shard.base)
    con.execute("PRAGMA locking_mode=EXCLUSIVE").fetchall()
    asked_for_a_snapshot(con)
    check_equal(chain.last(con), n, "last link")
    for _ in range(5):
        n = chain.commit_one(con, t.random)
        asked_for_a_snapshot(con)
        check(not os.path.exists(shard.path + "-shm"), "a -shm was made beside an exclusive connection")
    wait_caught_up(con)
    check_equal(shim.status(con)["state"], "replicating", "state")
    con.close()
    check_equal(shard.check_restores("closed"), n, "last link")


if __name__ == "__main__":
    harness.main("walindex")
