#!/usr/bin/python3
"""
test_walindex.py - the wal-index (-shm) is the application's: replication makes one only of an empty WAL, without being in anybody's
way, and never one that the application keeps in its own memory.
"""

import os
import shutil
import sqlite3
import subprocess
import sys
import time

from held import Hold
from peer import Peer
from shard import Shard, wait_caught_up

from ljtest import chain, harness, shim
from ljtest.harness import check, check_equal, test
from ljtest.lives import killat

NEEDS = ("shim", "load_extension")
HEADERS_BYTES = 136  # both copies of the header, how far it was checkpointed, the read marks

# Another program: opens, and reads at once; SQLite itself waits for nobody (timeout=0).
PLAIN_READER = """
import sqlite3, sys
con = sqlite3.connect("file:" + sys.argv[1] + "?vfs=unix", uri=True, timeout=0, isolation_level=None)
print("opened", flush=True)
try:
    print(con.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0], flush=True)
except sqlite3.Error as error:
    print(error, flush=True)
sys.stdin.read()
"""


def with_an_empty_wal(path):
    """A WAL database as its last close leaves it: no -wal, no -shm."""
    con = shim.plain(path)
    con.execute("PRAGMA journal_mode=WAL").fetchall()
    con.execute("CREATE TABLE t(a)").fetchall()
    con.close()
    check(not os.path.exists(path + "-shm"), "a closed database has a -shm")


def plain_reader(path):
    return subprocess.Popen([sys.executable, "-c", PLAIN_READER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


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


@test(*NEEDS, timeout=120)
def nobody_is_refused_while_one_is_made(t):
    """Held in the middle of it: neither other processes nor this one's own connection get SQLITE_BUSY, without any busy timeout."""
    shard = Shard(t)
    with_an_empty_wal(shard.path)
    hold = Hold(shard.data, "recover")
    peer = Peer(shard, opened=False, env=hold.environment(), busy=0)
    peer.connect()
    hold.wait("a snapshot makes the wal-index")
    readers = [plain_reader(shard.path) for _ in range(5)]
    for reader in readers:
        check_equal(reader.stdout.readline(), "opened\n", "another program")
    peer.ask("sql", "SELECT count(*) FROM sqlite_schema")
    time.sleep(1)  # they have asked by now; who has not proves nothing
    hold.let_go()
    check_equal(peer.answer(), [[1]], "the application's own read")
    for reader in readers:
        check_equal(reader.stdout.readline(), "1\n", "another program's read")
    peer.snapshot()
    for reader in readers:
        reader.communicate()
    peer.close()
    peer.end()
    shard.replica.check(one_generation=True)


@test(*NEEDS)
def what_is_made_is_what_sqlite_makes(t):
    """To the byte, and only the application's first commit makes a -wal of it."""
    shard = Shard(t)
    with_an_empty_wal(shard.path)
    other = t.path("other.db")
    shutil.copy(shard.path, other)
    reader = plain_reader(other)
    check_equal([reader.stdout.readline() for _ in range(2)], ["opened\n", "1\n"], "another program")
    peer = Peer(shard, opened=False)
    peer.connect()
    peer.snapshot()
    check(not os.path.exists(shard.path + "-wal"), "a -wal was made")
    with open(other + "-shm", "rb") as theirs, open(shard.path + "-shm", "rb") as ours:
        check_equal(ours.read(HEADERS_BYTES).hex(), theirs.read(HEADERS_BYTES).hex(), "the wal-index")
        check_equal(os.fstat(ours.fileno()).st_size, os.fstat(theirs.fileno()).st_size, "its size")
    peer.create()
    n = peer.write(5)
    peer.close()
    peer.end()
    reader.communicate()
    check_equal(shard.check_restores("closed"), n, "last link")


@test(*NEEDS)
def one_that_was_left_behind_is_made_anew(t):
    """By a process that was killed: SQLite keeps three bytes of it. The first snapshot does not wait for the application's first read."""
    shard = Shard(t)
    done = subprocess.run([sys.executable, "-c", "import os, sqlite3, sys\n"
                           "con = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
                           "for statement in ('journal_mode=WAL', 'user_version=7', 'wal_checkpoint(TRUNCATE)'):\n"
                           "    con.execute('PRAGMA ' + statement).fetchall()\n"
                           "os._exit(0)\n", shard.path])
    check_equal(done.returncode, 0, "the process before")
    check(os.path.getsize(shard.path + "-shm") > 0 and not os.path.getsize(shard.path + "-wal"), "it left something else")
    con = shim.connect(shard.path, shard.base)
    wait_caught_up(con)
    check_equal(con.execute("PRAGMA user_version").fetchone()[0], 7, "the database")
    con.close()
    shard.check_restores("closed", snapshots=1)


@test(*NEEDS)
def none_is_made_beside_a_hot_journal(t):
    """A switch to WAL that was killed is rolled back by the application's first read: a snapshot before that would be half of it."""
    shard = Shard(t)
    con = shim.plain(shard.path)
    con.execute("CREATE TABLE t(a)").fetchall()
    con.close()
    env = dict(os.environ, LD_PRELOAD=killat(), LJ_KILL_DIR=shard.data, LJ_KILL_MATCH="unlink *-journal", LJ_KILL_AT="1")
    subprocess.run([sys.executable, "-c", "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute('PRAGMA journal_mode=WAL')",
                    shard.path], env=env, check=False)
    check(os.path.exists(shard.path + "-journal"), "the switch was not killed")
    con = shim.connect(shard.path, shard.base)
    asked_for_a_snapshot(con)
    check(not os.path.exists(shard.path + "-shm"), "a -shm was made")
    check_equal(shard.replica.counts()[1] if os.path.exists(shard.root) else 0, 0, "snapshots of a half-switched database")
    check_equal(con.execute("SELECT count(*) FROM t").fetchone()[0], 0, "rows")
    check(not os.path.exists(shard.path + "-journal"), "the read rolls it back")
    con.close()


if __name__ == "__main__":
    harness.main("walindex")
