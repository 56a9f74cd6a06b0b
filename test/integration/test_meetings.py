#!/usr/bin/python3
"""test_meetings.py - what two threads of one process do at the same moment: closing, restoring, opening and forking (late.c)."""

import os
import subprocess
import threading

from held import Hold
from shard import Shard, foreign, python

from ljtest import chain, harness, native, shim
from ljtest.harness import check, check_equal, test

NEEDS = ("shim", "load_extension")
HERE = os.path.dirname(os.path.abspath(__file__))


# forks a child that lives until the file `ended` is there, and is killed
OUTLIVED = ("if os.fork() == 0:\n"
            "    for fd in (0, 1, 2): os.close(fd)\n"
            "    open(ended + '.child', 'w').close()\n"
            "    while not os.path.exists(ended): time.sleep(0.01)\n"
            "    os._exit(0)\n"
            "while not os.path.exists(ended + '.child'): time.sleep(0.001)\n"
            "os.kill(os.getpid(), signal.SIGKILL)\n")


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
def a_child_that_outlives_a_restore_keeps_no_lock(t):
    """The process that restores is killed, and a child that it had forked meanwhile lives on: who comes next restores."""
    shard = Shard(t)
    con = shard.open()
    n = shard.write(con, 3)
    con.close()
    folder, ended = t.folder("late"), t.path("ended")
    code = ("import glob, os, signal, sys, threading, time\n"
            "from ljtest import shim\n"
            "path, base, late, ended = sys.argv[1:]\n"
            "shim.load()\n"
            "for name in glob.glob(path + '*'): os.unlink(name)\n"
            "threading.Thread(target=lambda: shim.connect(path, base), daemon=True).start()\n"
            "while not os.path.exists(late + '/held'): time.sleep(0.001)\n" + OUTLIVED)
    t.cleanup(lambda: open(ended, "w").close())
    status, _, errors = python(code, late("flock", folder), 60, (shard.path, shard.base, folder, ended))
    check_equal(status, -9, "the process that restores: " + errors)
    code = ("import sys\n"
            "from ljtest import chain, shim\n"
            "print(chain.last(shim.connect(*sys.argv[1:])))\n")
    check_equal(run(code, {}, (shard.path, shard.base), "the next one"), [str(n)], "last link")


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


@test(*NEEDS, timeout=120)
def one_enters_wal_mode_while_another_opens(t):
    """What the one that opens has read of the file is over when it says so; and it reads nothing more."""
    shard = Shard(t)
    folder = os.path.dirname(shard.data)
    hold = Hold(folder, "head")
    code = ("import os, random, sys, threading, time\n"
            "from ljtest import chain, shim\n"
            "path, base, folder = sys.argv[1:]\n"
            "con = shim.connect(path, base)\n"
            "chain.create(con)\n"
            "thread = threading.Thread(target=lambda: shim.connect(path, base))\n"
            "thread.start()\n"
            "while not os.path.exists(folder + '/held'): time.sleep(0.001)\n"
            "con.execute('PRAGMA journal_mode=WAL').fetchall()\n"
            "n = chain.commit_one(con, random.Random(1))\n"
            "open(folder + '/go', 'w').close()\n"
            "thread.join()\n"
            "shim.sync(con)\n"
            "con.close()\n"
            "print(n)\n")
    seen = run(code, hold.environment(), (shard.path, shard.base, folder), "the switch")
    check_equal(shard.check_restores("closed", one_generation=False), int(seen[0]), "last link")


@test(*NEEDS, timeout=120)
def a_child_forked_while_the_wal_is_looked_through(t):
    """The parent is killed then, and the child lives on: it keeps no lock of the database, which another process can open."""
    shard = Shard(t)
    code = ("import os, sys\n"
            "from ljtest import chain, shim\n"
            "con = shim.open_wal(*sys.argv[1:], pragmas=['wal_autocheckpoint=0'])\n"
            "chain.create(con)\n"
            "import random\n"
            "for _ in range(40): chain.commit_one(con, random.Random(1), 'a', payload_bytes=(5000, 5000))\n"
            "shim.sync(con)\n"
            "os._exit(0)\n")
    run(code, {}, (shard.path, shard.base), "leaving a WAL")
    folder = os.path.dirname(shard.data)
    hold = Hold(folder, "verify")
    code = ("import os, signal, sys, threading, time\n"
            "from ljtest import shim\n"
            "path, base, folder, ended = sys.argv[1:]\n"
            "shim.load()\n"
            "threading.Thread(target=lambda: shim.connect(path, base), daemon=True).start()\n"
            "while not os.path.exists(folder + '/held'): time.sleep(0.001)\n" + OUTLIVED)
    ended = t.path("ended")
    t.cleanup(lambda: open(ended, "w").close())
    status, _, errors = python(code, hold.environment(), 60, (shard.path, shard.base, folder, ended))
    check_equal(status, -9, "the process that opens: " + errors)
    con = shard.open(create=False)
    n = shard.write(con, 2)
    shim.sync(con)
    check_equal(shim.status(con)["state"], "replicating", "state")
    con.close()
    check_equal(shard.check_restores("closed", snapshots=1, killed=True), n, "last link")


@test(*NEEDS, timeout=240)
def a_restored_database_is_written_before_its_restore_ends(t):
    """
    Behind the change of names, who restores is held; another process opens the file, writes and closes it. The generation that was
    restored has nothing of that, so it is not continued.
    """
    early = "CREATE TABLE early(a)", "INSERT INTO early VALUES(randomblob(40000))"  # pages that the late one has no reason to write
    for name, plain in (("shard_0", False), ("shard_1", True)):
        shard = Shard(t, folder=name, name=name)
        con = shard.open()
        shard.write(con, 3)
        con.close()
        for kept in os.listdir(shard.data):
            if kept.startswith(name):
                os.unlink(os.path.join(shard.data, kept))
        hold = Hold(t.path(name), "named")
        code = ("import random, sys, threading\n"
                "from ljtest import chain, shim\n"
                "path, base = sys.argv[1:]\n"
                "def work():\n"
                "    con = shim.connect(path, base)\n"
                "    print(chain.commit_one(con, random.Random(1), 'late'))\n"
                "    con.close()\n"
                "shim.load()\n"
                "thread = threading.Thread(target=work)\n"
                "thread.start()\n"
                "thread.join()\n")
        seen = []
        late_one = threading.Thread(target=lambda: seen.extend(run(code, hold.environment(), (shard.path, shard.base),
                                                                   "the one that restores")))
        late_one.start()
        hold.wait("a restore that has named its file")
        if plain:
            foreign(shard.path, *early)
        else:
            run("import sys\n"
                "from ljtest import shim\n"
                "con = shim.connect(*sys.argv[1:3])\n"
                "for statement in sys.argv[3:]: con.execute(statement)\n"
                "con.close()\n", {}, (shard.path, shard.base, *early), "the one that is faster")
        hold.let_go()
        late_one.join()
        n = shard.check_restores(name, one_generation=False)
        check_equal([str(n)], seen, "last link")


if __name__ == "__main__":
    harness.main("meetings")
