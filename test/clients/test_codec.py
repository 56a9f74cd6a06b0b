#!/usr/bin/python3
"""test_codec.py - an encryption above the VFS, as SQLCipher or SEE have it: ciphertext pages replicate as they are.

The host is a Python whose SQLite encrypts in its pager (othersqlite.py): this VFS sees pages without a header that could be
read, and WAL frames whose checksums are over ciphertext. The replica must hold the very bytes of the database file.
"""

import os
import shutil
import signal
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from ljtest import cli, harness, othersqlite, pages  # noqa: E402
from ljtest.harness import check, check_equal, test  # noqa: E402
from ljtest.replica import Replica  # noqa: E402

LIB = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib")
NEEDS = ("shim", "load_extension")

PRELUDE = """
import sys, os, random
from ljtest import chain, shim
from ljtest.workload import Workload
path, base, page_size = sys.argv[1], sys.argv[2], int(sys.argv[3])
rng = random.Random(int(sys.argv[4]))

def connect(**options):
    return shim.connect(path, base, pragmas=("page_size=%d" % page_size,), **options)

def open_bare(**options):
    con = connect(**options)
    assert con.execute("PRAGMA journal_mode=WAL").fetchone()[0] == "wal"
    return con

def open_wal(**options):
    con = open_bare(**options)
    chain.exists(con) or chain.create(con)
    return con

def write(con, count):
    for _ in range(count): n = chain.commit_one(con, rng)
    return n
"""


def encrypted(code, *arguments, expect=0):
    """Runs code in a Python whose SQLite encrypts; the last line it printed."""
    env = dict(os.environ, PYTHONPATH=LIB, **othersqlite.environment(codec=True))
    done = subprocess.run([sys.executable, "-c", PRELUDE + code, *map(str, arguments)], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, env=env, timeout=400, universal_newlines=True)
    check(done.returncode == expect, lambda: "status %d: %s" % (done.returncode, done.stderr[-600:]))
    return (done.stdout.splitlines() or [""])[-1]


class Place:
    def __init__(self, case, page_size, name="d"):
        self.case = case
        self.page_size = page_size
        self.path = os.path.join(case.folder(name, "data"), "shard_0.db")
        self.base = case.path(name, "replica")
        self.root = os.path.join(self.base, "shard_0")
        self.replica = Replica(self.root)

    def run(self, code, expect=0):
        return encrypted(code, self.path, self.base, self.page_size, self.case.seed, expect=expect)

    def restored(self, label):
        """By the reference and by our command: the same bytes; returns the last link that its owner reads."""
        self.replica.check(page_size=self.page_size, leftovers_ok=True)
        out, ours = self.case.path("out.db"), self.case.path("ours.db")
        self.replica.restore(out)
        with open(out, "rb") as file:
            check(not file.read(16).startswith(b"SQLite"), "the replica is not encrypted")
        if harness.cli_path():
            for tail in ("", "-wal", "-shm"):
                if os.path.exists(ours + tail):
                    os.unlink(ours + tail)
            cli.ours().restore(self.root, ours)
            check_equal(pages.read(ours) == pages.read(out), True, label + ": our command against the reference")
        copy = self.case.path("look.db")
        shutil.copyfile(out, copy)
        return int(encrypted("con = shim.plain(path, pragmas=('page_size=%d' % page_size,))\n"
                             "assert con.execute('PRAGMA integrity_check').fetchone()[0] == 'ok'\n"
                             "print(chain.verify(con))\n", copy, "-", self.page_size, 1))

    def check_closed(self, label, n):
        check_equal(self.restored(label), int(n), label + ": last link")
        check_equal(pages.read(self.case.path("out.db")) == pages.read(self.path), True, label + ": bytes of the file")


@test(*NEEDS, timeout=240)
def ciphertext_is_replicated_and_restored(case):
    for page_size in (4096, 8192):
        with case.part("page size %d" % page_size):
            place = Place(case, page_size, "p%d" % page_size)
            n = place.run("con = open_wal()\nn = write(con, 20)\nshim.sync(con)\nn = write(con, 5)\ncon.close()\nprint(n)\n")
            place.check_closed("first life", n)
            n = place.run("con = open_wal()\n"
                          "for mode in ('PASSIVE', 'FULL', 'RESTART', 'TRUNCATE'):\n"
                          "    n = write(con, 5)\n"
                          "    con.execute('PRAGMA wal_checkpoint(%s)' % mode).fetchall()\n"
                          "shim.snapshot(con)\n"
                          "n = write(con, 5)\n"
                          "con.close()\nprint(n)\n")
            place.check_closed("second life", n)
            check_equal(place.replica.counts()[0], 1, "generations")


@test(*NEEDS, timeout=120)
def spills_and_savepoints(case):
    """SQLite writes frames of encrypted pages again and without checksums; 3.49 then has the bug that is repaired."""
    place = Place(case, 4096)
    n = place.run("workload = Workload(open_bare, rng.randrange(1000), spill_savepoints=True, vacuum=False, fts=False)\n"
                  "shim.sync(workload.con)\n"
                  "n = workload.run(60)\nworkload.close()\nprint(n)\n")
    place.check_closed("workload", n)
    check_equal(place.replica.counts()[0], 1, "generations")


@test(*NEEDS, timeout=120)
def a_lost_one_comes_back_on_open(case):
    place = Place(case, 4096)
    n = int(place.run("con = open_wal()\nn = write(con, 20)\ncon.close()\nprint(n)\n"))
    for turn in range(2):
        shutil.rmtree(os.path.dirname(place.path))
        os.mkdir(os.path.dirname(place.path))
        found = place.run("con = connect()\nprint(chain.verify(con))\nwrite(con, 3)\ncon.close()\n")
        check_equal(int(found), n, "last link behind the restore")
        n += 3
        place.check_closed("turn %d" % turn, n)
    check_equal(place.replica.counts()[0], 1, "generations")


@test(*NEEDS, timeout=120)
def a_snapshot_of_an_empty_wal(case):
    """Neither the WAL nor a header says how large a page is; a new generation begins all the same."""
    place = Place(case, 8192)
    n = place.run("con = open_wal()\nn = write(con, 20)\ncon.close()\nprint(n)\n")
    shutil.rmtree(os.path.join(os.path.dirname(place.path), ".shard_0.db-litejoin"))
    shutil.rmtree(place.base)
    place.run("con = connect()\nchain.verify(con)\nshim.sync(con)\ncon.close()\n")
    check_equal(place.replica.counts(), (1, 1, 0), "generations, snapshots, segments")
    place.check_closed("snapshot alone", n)
    n = place.run("con = connect()\nn = write(con, 5)\ncon.close()\nprint(n)\n")
    place.check_closed("and its WAL", n)
    check_equal(place.replica.counts()[:2], (1, 1), "generations, snapshots")


@test(*NEEDS, timeout=120)
def killed_and_opened_again(case):
    place = Place(case, 4096)
    n = place.run("con = open_wal(sync_interval='1h')\nshim.sync(con)\nprint(write(con, 20), flush=True)\n"
                  "os.kill(os.getpid(), 9)\n", expect=-signal.SIGKILL)
    check_equal(place.run("con = connect()\nprint(chain.verify(con))\nshim.sync(con)\ncon.close()\n"), n, "last link")
    place.check_closed("next life", n)
    check_equal(place.replica.counts()[:2], (1, 1), "generations, snapshots")


@test(*NEEDS, timeout=120)
def leaving_wal_mode_and_coming_back(case):
    place = Place(case, 4096)
    states = place.run("con = open_wal()\nwrite(con, 5)\nshim.sync(con)\n"
                       "con.execute('PRAGMA journal_mode=DELETE').fetchall()\n"
                       "write(con, 5)\n"
                       "a = shim.status(con)['state']\n"
                       "con.execute('PRAGMA journal_mode=WAL').fetchall()\n"
                       "n = write(con, 5)\nshim.sync(con)\n"
                       "b = shim.status(con)['state']\n"
                       "con.close()\nprint(n, a, b, sep='|')\n").split("|")
    check_equal(states[1:], ["not replicating: journal_mode=delete", "replicating"], "states outside of WAL mode and back")
    place.check_closed("back in WAL", states[0])


@test(*NEEDS, timeout=120)
def auto_wal_leaves_it_alone(case):
    """Only its owner can switch it: nobody else can read its header."""
    place = Place(case, 4096)
    mode = place.run("con = connect(auto_wal='on')\nchain.create(con)\nwrite(con, 3)\n"
                     "print(con.execute('PRAGMA journal_mode').fetchone()[0], chain.verify(con))\ncon.close()\n"
                     "con = connect(auto_wal='on')\nassert chain.verify(con) == 3\ncon.close()\n")
    check_equal(mode, "delete 3", "journal_mode and last link")
    n = place.run("con = connect(auto_wal='on')\ncon.execute('PRAGMA journal_mode=WAL').fetchall()\nn = write(con, 3)\n"
                  "con.close()\nprint(n)\n")
    place.check_closed("switched by its owner", n)


@test(*NEEDS, "litestream", timeout=120)
def litestream_restores_only_the_snapshot(case):
    """v0.3.13 runs the WAL through an SQLite without the key: a replica with WAL is for us to restore. Says the README."""
    place = Place(case, 4096)
    place.run("con = open_wal()\nwrite(con, 20)\nshim.sync(con)\nwrite(con, 5)\ncon.close()\n")
    status, stdout, stderr = [tool for tool in cli.restorers() if tool.name == "litestream"][0].try_restore(
        place.root, case.path("ls.db"))
    check(status != 0 and "not a database" in stdout + stderr, "Litestream: %d %s %s" % (status, stdout, stderr))


if __name__ == "__main__":
    harness.main("codec")
