"""harness.py - runs test functions and prints one line per result.

    ok - NAME
    not ok - NAME: why
    skip - NAME: why

Every test function runs in a process (and session) of its own, so that a crash, a hang or state left behind in the
loaded extension costs exactly one test. A test gets a Case: a folder that is removed afterwards, a seed, and `part`
for results of its own. Lines that start with "# " are diagnostics.

After a failed test the end of the extension's own log follows as "# log:" lines.

Environment: LJ_BUILD (build folder), LITESTREAM_BIN (v0.3.13), LJ_LONG=1 (long forms), LJ_SEED, LJ_KEEP=1 (keep the folders
of failed tests), LJ_TMP (where the folders go). Exit status: 0 when nothing failed and something ran.
"""

import argparse
import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback

LONG = os.environ.get("LJ_LONG", "") not in ("", "0")
PATIENCE = 4  # times a test's timeout, see test()
KEEP = os.environ.get("LJ_KEEP", "") not in ("", "0")
DONE_MARK = "# done"

_tests = []


class Failure(AssertionError):
    """What was expected did not happen; the text says what did."""


class Skip(Exception):
    """The machine cannot run this test; the text says why."""


def check(condition, why):
    """Fails the test with `why` (a string, or a function that makes one) unless `condition` holds."""
    if not condition:
        raise Failure(why() if callable(why) else why)


def check_equal(got, want, what):
    if got != want:
        raise Failure("%s: got %s, want %s" % (what, _short(got), _short(want)))


def _short(value):
    text = repr(value)
    return text if len(text) <= 300 else text[:297] + "..."


def wait_for(condition, what, seconds=60.0, step=0.01):
    """
    Polls until condition() is true and returns its value; fails with `what` when the time is up. `seconds` end what never comes, on
    the slowest machine there is: they decide nothing.
    """
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            detail = what() if callable(what) else what
            raise Failure("not within %gs: %s" % (seconds, detail))
        time.sleep(step)


# ---------------------------------------------------------------------------------------------------------------------
# what the machine offers


def build_dir():
    path = os.environ.get("LJ_BUILD", "")
    return os.path.abspath(path) if path else ""


def extension_path():
    """The loadable extension, or "" when LJ_BUILD does not have it."""
    for name in ("litejoin_vfs.so", os.path.join("vfs", "shim", "litejoin_vfs.so")):
        path = os.path.join(build_dir(), name)
        if build_dir() and os.path.isfile(path):
            return path
    return ""


def cli_path():
    for name in ("litejoin-replica", os.path.join("tools", "litejoin-replica")):
        path = os.path.join(build_dir(), name)
        if build_dir() and os.access(path, os.X_OK) and os.path.isfile(path):
            return path
    return ""


def litestream_path():
    path = os.environ.get("LITESTREAM_BIN", "") or shutil.which("litestream") or ""
    return path if path and os.access(path, os.X_OK) else ""


def _litestream_version():
    path = litestream_path()
    if not path:
        return ""
    try:
        return subprocess.run([path, "version"], stdout=subprocess.PIPE, timeout=120).stdout.decode().strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def can_mount():
    """True when a tmpfs can be mounted here (root, and not in a container that forbids it)."""
    if os.geteuid() != 0:
        return False
    folder = tempfile.mkdtemp(prefix="ljmount")
    try:
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", folder],
                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode:
            return False
        subprocess.run(["umount", folder], check=True)
        return True
    except OSError:
        return False
    finally:
        os.rmdir(folder)


def missing(need):
    """Why `need` is not met, or ""."""
    if need == "shim" and not extension_path():
        return "no litejoin_vfs.so in LJ_BUILD=%s" % (build_dir() or "(not set)")
    if need == "cli" and not cli_path():
        return "no litejoin-replica in LJ_BUILD=%s" % (build_dir() or "(not set)")
    if need == "litestream":
        version = _litestream_version()
        if version != "v0.3.13":
            return "needs Litestream v0.3.13 in LITESTREAM_BIN (found %s)" % (version or "none")
    if need == "mount" and not can_mount():
        return "needs root and permission to mount a tmpfs"
    if need == "lz4" and not shutil.which("lz4"):
        return "needs the lz4 command"
    if need == "sqlite3" and not shutil.which("sqlite3"):
        return "needs the sqlite3 command"
    if need == "load_extension":
        import sqlite3
        if not hasattr(sqlite3.Connection, "enable_load_extension"):
            return "this Python's sqlite3 cannot load extensions (use /usr/bin/python3)"
    return ""


# ---------------------------------------------------------------------------------------------------------------------
# one running test


class Case:
    """What a test function gets. `dir` is its own empty folder, `seed` and `random` decide everything random in it."""

    def __init__(self, name, folder, seed):
        self.name = name
        self.dir = folder
        self.seed = seed
        self.random = random.Random("%s/%d" % (name, seed))
        self.parts = 0
        self.failed = 0
        self._cleanups = []

    def path(self, *names):
        return os.path.join(self.dir, *names)

    def folder(self, *names):
        path = self.path(*names)
        os.makedirs(path, exist_ok=True)
        return path

    def note(self, text):
        for line in str(text).splitlines():
            _say("# " + line)

    def cleanup(self, function, *args):
        """Calls function(*args) when the test ends, last registered first."""
        self._cleanups.append((function, args))

    def run_cleanups(self):
        while self._cleanups:
            function, args = self._cleanups.pop()
            try:
                function(*args)
            except Exception:  # a failed cleanup must not hide the others
                self.note(traceback.format_exc())

    @contextlib.contextmanager
    def part(self, name):
        """A result of its own inside a test; the test goes on after a failed part."""
        self.parts += 1
        full = "%s, %s" % (self.name, name)
        try:
            yield
        except Skip as reason:
            _say("skip - %s: %s" % (full, reason))
        except Exception as error:
            self.failed += 1
            self.note("seed %d" % self.seed)
            _report_error(full, error)
        else:
            _say("ok - " + full)


def _say(line):
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _report_error(name, error):
    why = " ".join(str(error).split()) or type(error).__name__
    if not isinstance(error, Failure):
        why = "%s: %s" % (type(error).__name__, why)
    for line in traceback.format_exc().splitlines():
        _say("# " + line)
    _say("not ok - %s: %s" % (name, why[:600]))


def scratch(prefix):
    """A new folder beside the test's own, for a helper's files: it goes away with the test, however that ends."""
    base = os.environ.get("LJ_SCRATCH") or os.environ.get("LJ_TMP") or None
    if base:
        os.makedirs(base, exist_ok=True)
    return tempfile.mkdtemp(prefix=prefix, dir=base)


def test(*needs, timeout=60, long_timeout=None, long_only=False):
    """
    Decorator: registers a test function. `needs` are words of missing(). Timeouts are in seconds of a machine that does
    nothing else; they end what hangs, and decide nothing: PATIENCE times as long is waited.
    """

    def register(function):
        function.needs = needs
        function.timeout = PATIENCE * ((long_timeout or timeout * 10) if LONG else timeout)
        function.long_only = long_only
        _tests.append(function)
        return function

    return register


def _title(area, function):
    return "%s: %s" % (area, function.__name__.replace("_", " "))


def _run_one(area, function, folder, seed):
    """In the child: runs one function; its lines go to stdout, the last one is DONE_MARK."""
    case = Case(_title(area, function), folder, seed)
    status = 0
    try:
        function(case)
        if not case.parts:
            _say("ok - " + case.name)
    except Skip as reason:
        _say("skip - %s: %s" % (case.name, reason))
    except Exception as error:
        case.note("seed %d" % seed)
        _report_error(case.name, error)
        status = 1
    finally:
        case.run_cleanups()
    _say(DONE_MARK)
    sys.stdout.flush()
    # No interpreter shutdown: a test that failed may leave threads behind that never end.
    os._exit(1 if status or case.failed else 0)


class _Counts:
    def __init__(self):
        self.passed = self.failed = self.skipped = 0

    def line(self, text):
        if text.startswith("ok - "):
            self.passed += 1
        elif text.startswith("not ok - "):
            self.failed += 1
        elif text.startswith("skip - "):
            self.skipped += 1


def _unmount_below(folder):
    with open("/proc/mounts") as mounts:
        points = [line.split()[1] for line in mounts]
    for point in reversed(points):
        point = re.sub(r"\\([0-7]{3})", lambda m: chr(int(m.group(1), 8)), point)
        if point.startswith(folder + "/"):
            subprocess.run(["umount", "-l", point])


def _show_log(path, lines=40):
    """The end of what the extension logged during a failed test, as diagnostics."""
    with open(path, errors="replace") as file:
        tail = file.read().splitlines()[-lines:]
    for line in tail:
        print("# log: " + line)


def _supervise(area, function, seed, counts):
    """In the parent: runs one test in a child and passes its lines on."""
    folder = tempfile.mkdtemp(prefix="lj_", dir=os.environ.get("LJ_TMP") or None)
    started = time.monotonic()
    log = folder + ".log"  # beside the folder: a test may look at all that is in its own
    helpers = folder + ".d"
    child = subprocess.Popen(
        [sys.executable, os.path.abspath(sys.argv[0]), "--one", function.__name__, "--folder", folder,
         "--seed", str(seed)],
        stdout=subprocess.PIPE, start_new_session=True, env=dict(os.environ, LITEJOIN_LOG_FILE=log, LJ_SCRATCH=helpers))
    expired = threading.Event()

    def expire():
        expired.set()
        os.killpg(child.pid, signal.SIGKILL)

    timer = threading.Timer(function.timeout, expire)
    timer.start()
    done = False
    failed_before = counts.failed
    for raw in child.stdout:
        line = raw.decode("utf-8", "replace").rstrip("\n")
        if line == DONE_MARK:
            done = True
            break  # children the test left behind may still hold the pipe
        counts.line(line)
        print(line, flush=True)
    if not done and not expired.is_set():
        child.wait()
    if done:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(10)
    timer.cancel()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    child.stdout.close()
    if not done:
        if expired.is_set():
            why = "still running after %g s" % function.timeout
        elif child.returncode < 0:
            why = "killed by signal %d (%s)" % (-child.returncode, signal.Signals(-child.returncode).name)
        else:
            why = "ended with status %d before it was done" % child.returncode
        line = "not ok - %s: %s" % (_title(area, function), why)
        counts.line(line)
        print("# seed %d" % seed)
        print(line, flush=True)
    _unmount_below(folder)
    if os.path.exists(log):
        if counts.failed > failed_before:
            _show_log(log)
        os.unlink(log)
    shutil.rmtree(helpers, ignore_errors=True)
    if counts.failed > failed_before and KEEP:
        print("# kept %s" % folder, flush=True)
    else:
        shutil.rmtree(folder, ignore_errors=True)
    print("# %.1f s" % (time.monotonic() - started), flush=True)


def main(area):
    """Runs the registered tests of one script; to be its last call."""
    parser = argparse.ArgumentParser()
    parser.add_argument("pattern", nargs="*", help="only tests whose name contains one of these")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--seed", type=int, default=int(os.environ.get("LJ_SEED", "1")))
    parser.add_argument("--repeat", type=int, default=1, help="run so many times, with another seed each time")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    args = parser.parse_args()

    if args.one:
        for function in _tests:
            if function.__name__ == args.one:
                _run_one(area, function, args.folder, args.seed)
        sys.exit("no test " + args.one)

    wanted = [f for f in _tests
              if not args.pattern or any(p.replace(" ", "_") in f.__name__ for p in args.pattern)]
    if args.list:
        for function in wanted:
            print(function.__name__)
        return
    if not wanted:
        sys.exit("no test matches")
    counts = _Counts()
    reasons = {}
    for round_number in range(args.repeat):
        for function in wanted:
            why = "long form only (LJ_LONG=1)" if function.long_only and not LONG else ""
            for need in function.needs:
                if not why:
                    if need not in reasons:
                        reasons[need] = missing(need)
                    why = reasons[need]
            if why:
                counts.skipped += 1
                print("skip - %s: %s" % (_title(area, function), why), flush=True)
                continue
            _supervise(area, function, args.seed + round_number, counts)
    print("# %s: %d passed, %d failed, %d skipped" % (area, counts.passed, counts.failed, counts.skipped))
    if counts.failed:
        sys.exit(1)
    if not counts.passed:
        print("not ok - %s: everything was skipped" % area)
        sys.exit(1)
