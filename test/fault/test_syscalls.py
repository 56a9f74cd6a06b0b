#!/usr/bin/python3
# timeout: 900
"""test_syscalls.py - the N-th system call fails, for N = 1, 2, ... until a run gets by without it.

Ours: a failure in our own files or in a replica folder never reaches the application (but where restore on open cannot
do its work, and says so), and when it is over everything heals: all that was committed is in the replica, what was
acknowledged was never missing. SQLite's: every statement comes to what it comes to without the shim. See sysworker.py.
"""

import errno
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from ljtest import chain, harness, native, pages, shim  # noqa: E402
from ljtest.harness import LONG, Failure, check, check_equal, test  # noqa: E402
from ljtest.replica import Replica  # noqa: E402

HERE = os.path.dirname(os.path.abspath(__file__))
WORKERS = 2
SHORT = 0  # the error that stands for a short count
KINDS = {
    "open": (errno.EMFILE, errno.EIO), "read": (errno.EIO, errno.EINTR, SHORT),
    "write": (errno.ENOSPC, errno.EIO, errno.EINTR, SHORT), "fsync": (errno.EIO,), "rename": (errno.EIO, errno.ENOSPC),
    "link": (errno.EPERM, errno.EIO), "unlink": (errno.EIO,), "mkdir": (errno.ENOSPC,), "stat": (errno.EIO,),
    "mmap": (errno.ENOMEM,), "truncate": (errno.ENOSPC,), "flock": (errno.ENOLCK, errno.EINTR), "opendir": (errno.EMFILE,),
    "readdir": (errno.EIO,), "utime": (errno.EPERM,), "dup": (errno.EMFILE,), "random": (errno.ENOSYS, errno.EINTR),
}
PHASES = ("open", "create", "snapshot", "ship", "restart", "periodic", "close", "reopen")
MOST = 400  # more calls than any phase has


def preload(t):
    try:
        return native.shared_library(os.path.join(HERE, "failsys.c"), "-ldl")
    except (OSError, subprocess.CalledProcessError) as error:
        raise harness.Skip("failsys.c cannot be built: %s" % error)


def memory_folder(t):
    folder = tempfile.mkdtemp(prefix="ljsys", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else t.dir)
    t.cleanup(shutil.rmtree, folder, True)
    return folder


class Worker:
    """A process that runs jobs; started again when it died."""

    def __init__(self, t, library):
        self.t = t
        self.env = dict(os.environ, LD_PRELOAD=library)
        self.process = None

    def __call__(self, job):
        if self.process is None:
            self.process = subprocess.Popen([sys.executable, os.path.join(HERE, "sysworker.py")], env=self.env,
                                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.process.stdin.write(json.dumps(job).encode() + b"\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if line:
            return json.loads(line)
        self.process.stdin.close()
        status = self.process.wait()
        text = self.process.stderr.read().decode("utf-8", "replace")[-1500:]
        self.process = None
        raise Failure("the process ended with status %s: %s" % (status, text))

    def close(self):
        if self.process is not None:
            self.process.stdin.close()
            self.process.wait()
            self.process = None


def sequences(kinds, phases, **more):
    """One sequence of jobs per phase, kind and error, single failures and failures for good."""
    for phase in phases:
        for kind in kinds:
            for error in KINDS[kind]:
                yield {"phase": phase, "kind": kind, "error": error, "count": 1, **more}
                if error not in (errno.EINTR, SHORT):
                    yield {"phase": phase, "kind": kind, "error": error, "count": 0, **more}


def describe(job):
    error = errno.errorcode.get(job["error"], "short")
    return "%s: %s %d of %s %s" % (job["phase"], job["kind"], job["at"], error, "once" if job["count"] else "from then on")


def check_text(job, answer, texts):
    """Who is told of a failure hears what failed."""
    if job["error"] in (errno.EINTR, SHORT) or not answer["hits"]:
        return
    for text in texts:
        check(os.strerror(job["error"]) in text or "still" in text or "replica is behind" in text,
              "the error does not say %r: %s" % (os.strerror(job["error"]), text))


def check_life(job, answer, source):
    """What a life came to. `source`: is the database to compare with in the folder."""
    folder = job["folder"]
    check_equal(answer["failures"], [], "the application was told (%s)" % answer["last"])
    if job["error"] in (errno.EINTR, SHORT) and job["kind"] != "random":
        check_equal(answer["errors"], [], "an interrupted or short %s (%s)" % (job["kind"], answer["last"]))
    check_text(job, answer, answer["errors"])
    replica = Replica(os.path.join(folder, "base", "app"))
    replica.check(leftovers_ok=True)
    out = os.path.join(folder, "out.db")
    replica.restore(out)
    check_equal(chain.verify_file(out), answer["committed"], "links restored at the end")
    database = os.path.join(folder, "data", "app.db")
    if source:
        pages.check_same(out, database, "restored at the end")
    then = Replica(os.path.join(folder, "at-fault", "app"))
    if answer["at_fault"] and then.generations():
        newest = 0
        for generation in then.generations():
            if generation.snapshots:
                then.restore(out, generation=generation.name)
                newest = max(newest, chain.verify_file(out))
        check(newest >= answer["at_fault"], "%d links were acknowledged, %d were in the replica" % (answer["at_fault"], newest))
    elif answer["at_fault"]:
        raise Failure("%d links were acknowledged, the replica was empty" % answer["at_fault"])


def run_sequences(t, jobs, run_one, budget=None):
    """
    Runs each sequence for N = 1, 2, ... until nothing is hit any more, on WORKERS processes. With `budget` each takes a
    random sample of its numbers, so many in all.
    """
    library = preload(t)
    folder = memory_folder(t)
    queue = list(jobs)
    t.random.shuffle(queue)
    totals = {"runs": 0, "hits": 0}
    failures = []
    lock = threading.Lock()  # guards queue, totals and failures
    share = max(1, budget // len(queue)) if budget else MOST

    def one(worker, job, number):
        job = dict(job, at=number, folder=tempfile.mkdtemp(dir=folder))
        try:
            answer = run_one(worker, job)
            with lock:
                totals["runs"] += 1
                totals["hits"] += 1 if answer["hits"] else 0
            return answer
        except Exception as error:
            worker.close()
            with lock:
                failures.append("%s: %s" % (describe(job), error))
            return None
        finally:
            shutil.rmtree(job["folder"], ignore_errors=True)

    def work():
        worker = Worker(t, library)
        try:
            while len(failures) < 8:
                with lock:
                    if not queue:
                        return
                    job = queue.pop()
                    rng = t.random.random()
                if budget is None:
                    for number in range(1, MOST):
                        answer = one(worker, job, number)
                        if answer is None or not answer["hits"]:
                            break
                    continue
                probe = one(worker, job, MOST)  # counts the calls
                for _ in range(share if probe and probe["calls"] else 0):
                    rng = (rng * 9301 + 0.49297) % 1
                    one(worker, job, 1 + int(rng * probe["calls"]))
        finally:
            worker.close()

    threads = [threading.Thread(target=work) for _ in range(WORKERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    t.note("%d runs, in %d of them a call failed" % (totals["runs"], totals["hits"]))
    if failures:
        t.note("\n".join(failures))
        raise Failure(" | ".join(failures[:4]))
    check(totals["hits"], "nothing ever failed")


@test("shim", timeout=300, long_timeout=7200)
def calls_of_ours(t):
    def run_one(worker, job):
        answer = worker(job)
        check_life(job, answer, True)
        return answer

    run_sequences(t, sequences(KINDS, PHASES), run_one, None if LONG else 240)


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
        shim.sync(con)
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

    run_sequences(t, sequences(KINDS, ("boot",)), run_one, None if LONG else 120)


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
        shim.sync(con)
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

    run_sequences(t, sequences(KINDS, ("cli",)), run_one, None if LONG else 120)


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
    unharmed = []

    def run_one(worker, job):
        plain = worker(dict(job, shim=False, folder=job["folder"] + "/plain"))
        shimmed = worker(dict(job, shim=True, folder=job["folder"] + "/shim"))
        outcomes = [plain["outcomes"]]
        if job["kind"] == "read":  # the shim looks at the header of a database once, so it is one call behind or ahead
            if job["at"] > 1:
                before = worker(dict(job, shim=False, at=job["at"] - 1, folder=job["folder"] + "/before"))
                outcomes.append(before["outcomes"])
            if not unharmed:
                unharmed.append(worker(dict(job, shim=False, at=MOST, folder=job["folder"] + "/unharmed"))["outcomes"])
            outcomes += unharmed
        check(shimmed["outcomes"] in outcomes, lambda: "with the shim (%s): %s; without (%s): %s"
              % (shimmed["last"], differing(shimmed["outcomes"], plain["outcomes"]), plain["last"],
                 differing(plain["outcomes"], shimmed["outcomes"])))
        root = os.path.join(job["folder"], "shim", "base", "app")
        Replica(root).check(leftovers_ok=True)
        out = os.path.join(job["folder"], "out.db")
        Replica(root).restore(out)
        pages.check_same(out, os.path.join(job["folder"], "shim", "app.db"), "restored")
        return shimmed

    jobs = [j for j in sequences(kinds, ("sqlite",)) if j["kind"] != "lock" or j["count"]]  # else SQLite waits 10 s each time
    run_sequences(t, jobs, run_one, None if LONG else 160)


if __name__ == "__main__":
    harness.main("syscalls")
