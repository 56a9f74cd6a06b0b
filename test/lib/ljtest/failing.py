"""failing.py - lives of a database in which system calls or allocations fail (test/fault/sysworker.py, failsys.c).

A sequence of jobs is one phase, kind and error; run_sequences runs each for the first call, the second, and so on, until none is
left that could fail, or a sample of them.
"""

import errno
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading

from . import chain, cli, harness, native, pages
from .harness import LONG, Failure, check, check_equal
from .replica import Replica

HERE = os.path.abspath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "fault"))
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


def is_timeout(job, text):
    """The time was up before it was over: no wonder while everything fails, but not when one call did."""
    return not job["count"] and any(part in text for part in ("still shipping", "still being written", "replica is behind"))


def check_text(job, answer, texts):
    """Who is told of a failure hears what failed."""
    if job["error"] in (errno.EINTR, SHORT) or not answer["hits"]:
        return
    for text in texts:
        check(os.strerror(job["error"]) in text or "out of memory" in text or is_timeout(job, text),
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
    if LONG:  # hundreds of rounds
        cli.check_restorers(replica.root, out, "restored at the end")
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
