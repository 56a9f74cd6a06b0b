#!/usr/bin/python3
"""test_meetings.py - what two threads of one process do at the same moment: closing, restoring, opening and forking (late.c)."""

import os
import subprocess

from shard import Shard, python

from ljtest import chain, harness, native, shim
from ljtest.harness import check, check_equal, test

NEEDS = ("shim", "load_extension")
HERE = os.path.dirname(os.path.abspath(__file__))


def late(kind, folder):
    """The environment of a process whose threads stay for a while where `kind` says."""
    try:
        library = native.shared_library(os.path.join(HERE, "late.c"), "-ldl", "-lpthread")
    except (OSError, subprocess.CalledProcessError) as error:
        raise harness.Skip("cannot build late.c: %s" % error)
    return {"LD_PRELOAD": library, "LJ_LATE": kind, "LJ_LATE_DIR": folder}


def run(code, env, arguments, what):
    """Runs it; who hangs is ended after a minute."""
    try:
        status, out, errors = python(code, env, 60, arguments)
    except subprocess.TimeoutExpired:
        raise harness.Failure(what + ": it hangs")
    check_equal(status, 0, "%s: exit status (%s)" % (what, errors))
    return out.split()


@test(*NEEDS, timeout=120)
def two_close_at_once(t):
    """
    The last two connections of a process are closed in the same moment: what was committed is in the replica when both are. A plain
    reader keeps the WAL, so nothing is shipped because that would go.
    """
    shard = Shard(t)
    code = ("import os, random, sys, threading\n"
            "from ljtest import chain, shim\n"
            "path, base, first = sys.argv[1:]\n"
            "def size():\n"
            "    return sum(os.path.getsize(os.path.join(folder, name)) for folder, _, names in os.walk(base)\n"
            "               for name in names if name.endswith('.wal.lz4'))\n"
            "def close(con):\n"
            "    together.wait()\n"
            "    con.close()\n"
            "con = shim.open_wal(path, base, sync_interval='1h')\n"
            "if int(first):\n"
            "    chain.create(con)\n"
            "    shim.sync(con)\n"
            "    con.close()\n"
            "    sys.exit(0)\n"
            "con.close()\n"
            "for _ in range(5):\n"
            "    cons = [shim.connect(path, base, sync_interval='1h') for _ in range(2)]\n"
            "    n = [chain.last(con) for con in cons][0]\n"
            "    shim.sync(cons[0])\n"
            "    chain.commit_one(cons[0], random.Random(n), 'a')\n"
            "    before = size()\n"
            "    together = threading.Barrier(2)\n"
            "    threads = [threading.Thread(target=close, args=(con,)) for con in cons]\n"
            "    for thread in threads: thread.start()\n"
            "    for thread in threads: thread.join()\n"
            "    print(int(size() > before))\n")
    run(code, {}, (shard.path, shard.base, 1), "creating")
    reader = shim.plain(shard.path)
    chain.last(reader)
    shipped = run(code, late("unlock", t.folder("late")), (shard.path, shard.base, 0), "closing")
    reader.close()
    check_equal(shipped, ["1"] * 5, "shipped by closing")
    check_equal(shard.check_restores("closed", snapshots=1), 5, "last link")


@test(*NEEDS, timeout=120)
def a_child_forked_during_a_restore_keeps_no_lock(t):
    """It lives on; the database is lost once more, and restored once more."""
    shard = Shard(t)
    con = shard.open()
    n = shard.write(con, 3)
    con.close()
    folder = t.folder("late")
    code = ("import glob, os, sys, threading, time\n"
            "from ljtest import chain, shim\n"
            "path, base, late = sys.argv[1:]\n"
            "def lose():\n"
            "    for name in glob.glob(path + '*'): os.unlink(name)\n"
            "def restore():\n"
            "    con = shim.connect(path, base)\n"
            "    print(chain.last(con), flush=True)\n"
            "    con.close()\n"
            "shim.load()\n"
            "lose()\n"
            "thread = threading.Thread(target=restore)\n"
            "thread.start()\n"
            "while not os.path.exists(late + '/held'): time.sleep(0.001)\n"
            "read, write = os.pipe()\n"
            "child = os.fork()\n"
            "if child == 0:\n"
            "    os.close(write)\n"
            "    os.read(read, 1)\n"
            "    os._exit(0)\n"
            "open(late + '/go', 'w').close()\n"
            "thread.join()\n"
            "lose()\n"
            "restore()\n"
            "os.close(write)\n"
            "os.waitpid(child, 0)\n")
    seen = run(code, late("flock", folder), (shard.path, shard.base, folder), "restoring twice")
    check(os.path.exists(os.path.join(folder, "held")), "no restore was held")
    check_equal(seen, [str(n)] * 2, "last link, restored twice")


@test(*NEEDS, timeout=120)
def a_child_forked_while_a_thread_opens(t):
    """The thread is reading the defaults; the child opens a database of its own all the same."""
    one, two = Shard(t, name="shard_0"), Shard(t, name="shard_1")
    folder = t.folder("late")
    code = ("import os, signal, sys, threading, time\n"
            "from ljtest import shim\n"
            "one, two, base, late = sys.argv[1:]\n"
            "shim.load()\n"
            "thread = threading.Thread(target=lambda: shim.open_wal(one, base).close())\n"
            "thread.start()\n"
            "while not os.path.exists(late + '/held'): time.sleep(0.001)\n"
            "child = os.fork()\n"
            "if child == 0:\n"
            "    signal.alarm(30)\n"
            "    con = shim.open_wal(two, base)\n"
            "    con.execute('CREATE TABLE t(a)')\n"
            "    shim.sync(con)\n"
            "    con.close()\n"
            "    os._exit(0)\n"
            "thread.join()\n"
            "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n")
    ended = run(code, late("lock", folder), (one.path, two.path, one.base, folder), "the child opens")
    check_equal(ended, ["0"], "status of the child")
    check_equal(two.replica.counts()[1], 1, "snapshots of the child's database")


if __name__ == "__main__":
    harness.main("meetings")
