#!/usr/bin/python3
# timeout: 900
"""test_syscalls.py - the N-th system call fails, for N = 1, 2, ... until a run gets by without it.

Ours: a failure in our own files or in a replica folder never reaches the application (but where restore on open cannot
do its work, and says so), and when it is over everything heals: all that was committed is in the replica, what was
acknowledged was never missing. SQLite's: every statement comes to what it comes to without the shim. See sysworker.py.
"""

import errno
import os
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from ljtest import chain, cli, harness, pages, shim  # noqa: E402
from ljtest.broken import FileInTheWay  # noqa: E402
from ljtest.failing import (KINDS, MOST, PHASES, SHORT, check_life, check_text, preload, run_sequences,  # noqa: E402
                            sequences)
from ljtest.harness import LONG, check, check_equal, test  # noqa: E402
from ljtest.replica import Replica  # noqa: E402

@test("shim", timeout=300, long_timeout=7200)
def calls_of_ours(t):
    def run_one(worker, job):
        answer = worker(job)
        check_life(job, answer, True)
        return answer

    run_sequences(t, sequences(KINDS, PHASES), run_one, None if LONG else 150)


@test("shim", timeout=200, long_timeout=3600)
def restore_on_open(t):
    """It works, or the open fails, says what failed, and leaves nothing; the next open works."""
    path, base = t.path("made", "app.db"), t.path("base")
    os.makedirs(t.path("made"))
    con = shim.open_wal(path, base, sync_interval="1h")
    chain.create(con)
    for step in ("", "TRUNCATE", ""):
        if step:
            con.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        links = chain.commit_one(con, t.random)
        shim.sync(con, "60s")
    con.close()

    def run_one(worker, job):
        shutil.copytree(base, os.path.join(job["folder"], "base"))
        answer = worker(job)
        for text in answer["boot_errors"]:
            check("restoring before open" in text or "cannot stat" in text, text)
        check_text(job, answer, answer["boot_errors"])
        if job["error"] in (errno.EINTR, SHORT) and job["kind"] != "random":
            check_equal(answer["boot_errors"], [], "an interrupted or short %s (%s)" % (job["kind"], answer["last"]))
        check(answer["committed"] >= links, "%d of %d links" % (answer["committed"], links))
        check_life(job, answer, True)
        return answer

    run_sequences(t, sequences(KINDS, ("boot",)), run_one, None if LONG else 70)


LOSES = """
import os, random, sys
from ljtest import chain, shim
from ljtest.broken import FileInTheWay
path, base = sys.argv[1:3]
con = shim.open_wal(path, base, pragmas=("wal_autocheckpoint=0",), sync_interval="10ms")
rng = random.Random(6)
chain.create(con)
for _ in range(2):
    chain.commit_one(con, rng)
    shim.sync(con, "60s")
block = FileInTheWay(os.path.join(base, "app"))
block.fail()
for mode in ("RESTART", "TRUNCATE", ""):
    links = chain.commit_one(con, rng)
    if mode: con.execute("PRAGMA wal_checkpoint(%s)" % mode).fetchall()
print(links, flush=True)
os.kill(os.getpid(), 9)
"""


@test("shim", timeout=200, long_timeout=3600)
def restore_on_open_of_what_was_not_shipped(t):
    """The spool and the WAL of a lost database go to the replica first. Whatever fails, none of it is lost."""
    path, base = t.path("made", "app.db"), t.path("base")
    os.makedirs(t.path("made"))
    lib = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib")
    done = subprocess.run([sys.executable, "-c", LOSES, path, base], env=dict(os.environ, PYTHONPATH=lib),
                          stdout=subprocess.PIPE, timeout=60)
    links = int(done.stdout)
    block = FileInTheWay(os.path.join(base, "app"))
    block.broken = True  # by the process that is dead
    block.heal()

    def run_one(worker, job):
        shutil.copytree(base, os.path.join(job["folder"], "base"))
        shutil.copytree(t.path("made"), os.path.join(job["folder"], "data"),
                        ignore=shutil.ignore_patterns("app.db", "app.db-shm", "bell"))
        answer = worker(job)
        for text in answer["boot_errors"]:
            check("restoring before open" in text or "cannot stat" in text, text)
        check_equal(answer["booted"], links, "links that were restored (%s)" % answer["last"])
        check_life(job, answer, True)
        return answer

    run_sequences(t, sequences(KINDS, ("boot",)), run_one, None if LONG else 70)


@test("shim", "cli", timeout=200, long_timeout=3600)
def restore_by_the_command_line(t):
    """It works, or fails with the reason and leaves nothing."""
    path, base = t.path("app.db"), t.path("base")
    con = shim.open_wal(path, base, sync_interval="1h")
    chain.create(con)
    for step in ("", "TRUNCATE", ""):
        if step:
            con.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        chain.commit_one(con, t.random)
        shim.sync(con, "60s")
    con.close()

    def run_one(_, job):
        report = os.path.join(job["folder"], "report")
        out = os.path.join(job["folder"], "out", "app.db")
        os.makedirs(os.path.dirname(out))
        paths = "%s:%s" % (base, os.path.dirname(out))
        env = dict(os.environ, LD_PRELOAD=preload(t), LJ_FAIL_REPORT=report, LJ_FAIL="%s %d %d %d litejoin-replica %s" % (
            job["kind"], job["at"], job["count"], job["error"], paths))
        done = subprocess.run([harness.cli_path(), "restore", "-o", out, "file://" + base + "/app"], env=env,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60)
        text = done.stderr.decode("utf-8", "replace")
        calls, hits, *last = pages.read(report).decode().split()
        answer = {"calls": int(calls), "hits": int(hits), "last": " ".join(last)}
        left = os.listdir(os.path.dirname(out))
        if done.returncode == 0:
            check_equal(left, ["app.db"], "left by a restore (%s)" % answer["last"])
            pages.check_same(out, path, "restored")
            return answer
        check_equal(done.returncode, 1, "status (%s): %s" % (answer["last"], text))
        check(job["error"] not in (errno.EINTR, SHORT), "an interrupted or short %s: %s" % (answer["last"], text))
        if job["kind"] != "unlink" or job["count"]:  # what cannot be removed stays
            check_equal(left, [], "left by a restore that failed (%s): %s" % (answer["last"], text))
        check_text(job, answer, [text])
        return answer

    run_sequences(t, sequences(KINDS, ("cli",)), run_one, None if LONG else 60)


@test("shim", timeout=200, long_timeout=3600)
def threads_that_cannot_be_started(t):
    """A worker is missing, or all of them are: it goes on with those there are, and heals with the next commit."""
    def run_one(worker, job):
        worker.close()  # the threads stay for the life of a process
        answer = worker(job)
        check_life(job, answer, True)
        return answer

    KINDS["thread"] = (errno.EAGAIN,)
    run_sequences(t, sequences(("thread",), ("open", "create", "snapshot")), run_one, None)


def differing(outcomes, others):
    return [o for o, other in zip(outcomes, others) if o != other][:3]


@test("shim", timeout=200, long_timeout=3600)
def calls_of_sqlite(t):
    """SQLite's own calls fail: each statement comes to the same with the shim and without, and the replica stays right."""
    kinds = ("open", "read", "write", "fsync", "truncate", "mmap", "lock", "unlink")
    KINDS["lock"] = (errno.EIO, errno.EAGAIN)

    def run_one(worker, job):
        plain = worker(dict(job, shim=False, folder=job["folder"] + "/plain"))
        shimmed = worker(dict(job, shim=True, folder=job["folder"] + "/shim"))
        outcomes = [plain["outcomes"]]
        if shimmed["outcomes"] not in outcomes:
            # the shim looks at the header of a database, and locks it for that: it is some calls behind or ahead
            for at in [n for n in range(job["at"] - 6, job["at"] + 7) if n > 0] + [MOST]:
                near = worker(dict(job, shim=False, at=at, folder="%s/near%d" % (job["folder"], at)))
                outcomes.append(near["outcomes"])
        check(shimmed["outcomes"] in outcomes, lambda: "with the shim (%s): %s; without (%s): %s"
              % (shimmed["last"], differing(shimmed["outcomes"], plain["outcomes"]), plain["last"],
                 differing(plain["outcomes"], shimmed["outcomes"])))
        root = os.path.join(job["folder"], "shim", "base", "app")
        Replica(root).check(leftovers_ok=True)
        out = os.path.join(job["folder"], "out.db")
        Replica(root).restore(out)
        pages.check_same(out, os.path.join(job["folder"], "shim", "app.db"), "restored")
        if LONG:  # hundreds of rounds
            cli.check_restorers(root, out, "restored")
        return shimmed

    # Without end: SQLite waits 10 s for each lock, and a wal-index that a snapshot's handle has opened and mapped serves all.
    jobs = [j for j in sequences(kinds, ("sqlite",)) if j["kind"] not in ("lock", "mmap", "open") or j["count"]]
    run_sequences(t, jobs, run_one, None if LONG else 100)


if __name__ == "__main__":
    harness.main("syscalls")
