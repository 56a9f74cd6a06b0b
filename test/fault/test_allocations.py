#!/usr/bin/python3
"""test_allocations.py - the N-th allocation fails, for N = 1, 2, ... until a run gets by without it.

In our own code the application does not notice, but where an open has to say "out of memory"; nothing is leaked, and when there is
memory again all is well. In SQLite, which we use too, each statement works or says so. The lives are those of test_syscalls.py.
"""
# timeout: 900

import errno
import os
import shutil
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from ljtest import chain, cli, failing, harness, pages, shim  # noqa: E402
from ljtest.harness import LONG, check, test  # noqa: E402
from ljtest.replica import Replica  # noqa: E402

MEMORY = {"malloc": (errno.ENOMEM,)}
ALLOWED = ("ok", "SQLITE_NOMEM", "SQLITE_IOERR_NOMEM", "SQLITE_CANTOPEN", "SQLITE_ERROR")


def lives(phases):
    failing.KINDS.update(MEMORY)
    return failing.sequences(MEMORY, phases)


def check_memory(worker, job, answer):
    for text in answer["open_failures"] + answer["errors"]:
        check("memory" in text.lower() or failing.is_timeout(job, text),
              "an error that does not say what failed: %s" % text)
    leaked = answer["leaked"]
    for turn in range(3):  # what the process keeps for its next life, such as one more thread, is kept once
        if leaked <= 0:
            return
        again = dict(job, folder="%s/again%d" % (job["folder"], turn))
        if os.path.isdir(os.path.join(job["folder"], "made")):
            shutil.copytree(os.path.join(job["folder"], "made"), os.path.join(again["folder"], "base"))
        leaked = worker(again)["leaked"]
    check(leaked <= 0, "%d allocations were not freed" % leaked)


@test("shim", timeout=300, long_timeout=7200)
def allocations_of_ours(t):
    def run_one(worker, job):
        if worker.process is None:  # what a process allocates once, it does in a life without failures
            warm = dict(job, at=failing.MOST * 100, folder=job["folder"] + "/warm")
            worker(warm)
            shutil.rmtree(warm["folder"])
        answer = worker(job)
        failing.check_life(job, answer, True)
        check_memory(worker, job, answer)
        return answer

    failing.run_sequences(t, lives(failing.PHASES), run_one, None if LONG else 120)


@test("shim", timeout=200, long_timeout=3600)
def restore_on_open(t):
    path, base = t.path("made", "app.db"), t.path("base")
    os.makedirs(t.path("made"))
    con = shim.open_wal(path, base, sync_interval="1h")
    chain.create(con)
    links = chain.commit_one(con, t.random)
    shim.sync(con, "60s")
    con.close()

    def run_one(worker, job):
        if worker.process is None:
            warm = dict(job, at=failing.MOST * 100, folder=job["folder"] + "/warm")
            shutil.copytree(base, os.path.join(warm["folder"], "base"))
            worker(warm)
            shutil.rmtree(warm["folder"])
        for name in ("base", "made"):
            shutil.copytree(base, os.path.join(job["folder"], name))
        answer = worker(job)
        check_memory(worker, job, answer)
        for text in answer["boot_errors"]:
            check("memory" in text.lower(), text)
        check(answer["committed"] >= links, "%d of %d links" % (answer["committed"], links))
        failing.check_life(job, answer, True)
        return answer

    failing.run_sequences(t, lives(("boot",)), run_one, None if LONG else 60)


@test("shim", timeout=200, long_timeout=7200)
def allocations_of_sqlite(t):
    """Also where the shim asks SQLite for memory: a statement works or says that there is none, and all heals."""
    def run_one(worker, job):
        answer = worker(dict(job, shim=True, memory=True, folder=job["folder"] + "/shim"))
        for what, outcome, _ in answer["outcomes"]:
            check(outcome in ALLOWED, "%s: %s" % (what, outcome))
        root = os.path.join(job["folder"], "shim", "base", "app")
        Replica(root).check(leftovers_ok=True)
        out = os.path.join(job["folder"], "out.db")
        Replica(root).restore(out)
        pages.check_same(out, os.path.join(job["folder"], "shim", "app.db"), "restored")
        if LONG:  # hundreds of rounds
            cli.check_restorers(root, out, "restored")
        return answer

    jobs = [dict(j) for j in lives(("sqlite",)) if j["count"]]
    failing.run_sequences(t, jobs, run_one, None if LONG else 60)


if __name__ == "__main__":
    harness.main("allocations")
