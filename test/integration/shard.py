"""shard.py - one database opened through the shim with its replica, as the tests of this folder use it."""

import os
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from ljtest import chain, cli, harness, pages, shim  # noqa: E402
from ljtest.harness import check, check_equal, wait_for  # noqa: E402
from ljtest.replica import Replica  # noqa: E402

LIB = os.path.abspath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))


class Shard:
    """FOLDER/data/NAME.db, replicated to FOLDER/replica/NAME. `options` go into every URI."""

    def __init__(self, t, folder="", name="shard_0", base=None, data=None, **options):
        self.t = t
        self.name = name
        self.base = base or t.path(folder, "replica")
        self.data = data or t.folder(folder, "data")
        self.path = os.path.join(self.data, name + ".db")
        self.root = os.path.join(self.base, name)
        self.replica = Replica(self.root)
        self.options = options

    def open(self, create=True, **more):
        """A connection through the shim; the chain's tables are made if there are none."""
        pragmas = more.pop("pragmas", ())
        page_size = more.pop("page_size", None)
        auto_vacuum = more.pop("auto_vacuum", None)
        options = dict(self.options, **more)
        con = shim.open_wal(self.path, self.base, pragmas=pragmas, page_size=page_size, auto_vacuum=auto_vacuum,
                            **options)
        if create and not chain.exists(con):
            chain.create(con)
        return con

    def write(self, con, count=10, **options):
        n = 0
        for _ in range(count):
            n = chain.commit_one(con, self.t.random, **options)
        return n

    def generation(self):
        return self.replica.newest().name

    def restore_now(self, label, **point):
        """Restores what the replica holds by the reference; returns the last link."""
        out = self.t.path("now.db")
        self.replica.restore(out, **point)
        pages.check_integrity(out, label)
        return chain.verify_file(out, label)

    def restore_moving(self, label, tries=20):
        """
        restore_now() of a replica that changes meanwhile: again when what was listed was deleted, or the listing lacked what
        came before its last entry. A reader would list again too.
        """
        for left in reversed(range(tries)):
            try:
                return self.restore_now(label)
            except (FileNotFoundError, harness.Failure):
                if not left:
                    raise

    def check_restores(self, label, one_generation=True, snapshots=None, killed=False):
        """
        For a closed database: every restorer gives the same bytes as the database file. With one_generation the
        replica must have just one, with `snapshots` so many snapshots. `killed`: a writer was, so that half-written
        objects may lie about (crash/test_kill.py asks that they go). Returns the last link.
        """
        self.replica.check(one_generation=one_generation, leftovers_ok=killed)
        if snapshots is not None:
            check_equal(self.replica.counts()[1], snapshots, label + ": snapshots")
        n = self.restore_now(label)
        out = self.t.path("now.db")
        pages.check_same(out, self.path, label + ": replica against the database")
        for tool in cli.restorers():
            other = self.t.path("now." + tool.name)
            if os.path.exists(other):
                os.unlink(other)
            tool.restore(self.root, other)
            pages.check_same(other, out, "%s: %s against the reference" % (label, tool.name))
        return n


def wait_caught_up(con, seconds=60, schema="main"):
    """Waits, without asking for it, until the replica has everything."""
    last = {}

    def caught_up():
        last.update(shim.status(con, schema))
        return last["lag_frames"] == 0 and last["generation"] and last["state"] == "replicating"

    wait_for(caught_up, lambda: "everything shipped: %s" % last, seconds, 0.02)
    check_equal(last["last_error"], "", "last_error after catching up")
    return last


def python(code, env=None, timeout=300, arguments=()):
    """Runs Python code in a process of its own, with ljtest importable: (exit status, stdout, stderr)."""
    full = dict(os.environ)
    full.update(env or {})
    full["PYTHONPATH"] = LIB
    done = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, env=full, timeout=timeout)
    return done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")


def foreign(path, *statements):
    """Runs SQL in the stock VFS in a process of its own: a writer that does not know the shim."""
    code = ("import sys, sqlite3\n"
            "con = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
            "for statement in sys.argv[2:]: con.execute(statement).fetchall()\n"
            "con.close()\n")
    status, _, errors = python(code, arguments=(path, *statements))
    check(status == 0, "plain writer: " + errors)


def foreign_link(path, count=1, leave_wal=False):
    """Adds links to the chain through the stock VFS, in a process of its own; leave_wal: it dies without closing."""
    code = ("import sys, os, random\n"
            "from ljtest import chain, shim\n"
            "con = shim.plain(sys.argv[1])\n"
            "for _ in range(int(sys.argv[2])): chain.commit_one(con, random.Random(7), 'plain')\n"
            "if int(sys.argv[3]): os._exit(0)\n"
            "con.close()\n")
    status, _, errors = python(code, arguments=(path, count, int(leave_wal)))
    check(status == 0, "plain writer: " + errors)


class Plain:
    """A program without the shim, in a process of its own, that does one statement after the other."""

    CODE = ("import sqlite3, sys\n"
            "con = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
            "for line in sys.stdin:\n"
            "    con.execute(line).fetchall()\n"
            "    print('done', flush=True)\n"
            "con.close()\n")

    def __init__(self, t, path):
        self.process = subprocess.Popen([sys.executable, "-c", self.CODE, path], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)
        t.cleanup(self.process.kill)

    def run(self, *statements):
        for statement in statements:
            self.process.stdin.write(statement + "\n")
            self.process.stdin.flush()
            check_equal(self.process.stdout.readline(), "done\n", "plain: " + statement)

    def close(self):
        self.process.stdin.close()
        check_equal(self.process.wait(), 0, "plain program")


def error_text(error):
    """All that an application can learn about a failed call."""
    return "%s | %s" % (error, shim.last_error())


def must_fail(function, *arguments, **named):
    """Calls and returns the text of the sqlite3 error it must raise."""
    import sqlite3
    try:
        result = function(*arguments, **named)
    except sqlite3.Error as error:
        return error_text(error)
    raise harness.Failure("%s worked (%r), although it cannot" % (getattr(function, "__name__", "call"), result))


def quiet(look, seconds, what, tries=20):
    """Waits until look() gives the same for so long, and returns that: what is at rest stays so, what goes on for ever never is."""
    for left in reversed(range(tries)):
        before = look()
        time.sleep(seconds)
        if look() == before:
            return before
        check(left, what)


def in_time(measure, tries=8):
    """
    measure() returns why it took too long, or nothing: one time out of several must be good. Who waits for somebody else always
    does; on a machine that others use too anything takes long now and then.
    """
    for left in reversed(range(tries)):
        why = measure()
        if not why:
            return
        check(left, why)
        time.sleep(0.5)


def _waited_for_a_cpu():
    """Seconds that this thread could have run and did not, because others did."""
    try:
        with open("/proc/thread-self/schedstat") as file:
            return int(file.read().split()[1]) / 1e9
    except (OSError, IndexError):
        return 0.0  # a kernel without that


def timed(function, *arguments, **named):
    """(result, seconds), without the time this thread stood in line for a CPU: that says nothing about us."""
    start, in_line = time.monotonic(), _waited_for_a_cpu()
    result = function(*arguments, **named)
    return result, time.monotonic() - start - (_waited_for_a_cpu() - in_line)
