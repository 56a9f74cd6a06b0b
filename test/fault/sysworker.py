"""sysworker.py - lives of a database in which system calls fail; driven line by line by test_syscalls.py.

A job is a line of JSON: {"folder", "phase", "kind", "at", "count", "error", ...}; the answer is one line. failsys.c is preloaded.
The calls of exactly one phase of a life fail. What the application is told is recorded, and the life is brought to its end
without failures: everything committed has to be in the replica then.
"""

import contextlib
import ctypes
import json
import os
import random
import shutil
import sqlite3
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from ljtest import chain, shim  # noqa: E402

faults = ctypes.CDLL(os.environ["LD_PRELOAD"])
faults.fs_last.restype = ctypes.c_char_p
faults.fs_arm.argtypes = [ctypes.c_char_p, ctypes.c_long, ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p,
                          ctypes.c_long]
faults.fs_calls.restype = ctypes.c_long
faults.fs_hits.restype = ctypes.c_long

# What is left alone: the interval of shipping, so that only the phases below do.
OPTIONS = {"sync_interval": "1h", "snapshot_interval": "0", "retention": "1ms", "shutdown_timeout": "200ms",
           "max_spool_size": "64MiB"}


class Life:
    """One database from its creation on."""

    def __init__(self, job):
        self.job = job
        self.folder = job["folder"]
        self.path = os.path.join(self.folder, "data", "app.db")
        self.base = os.path.join(self.folder, "base")
        os.makedirs(os.path.dirname(self.path), exist_ok=True)
        self.rng = random.Random(7)
        self.con = None
        self.committed = 0
        self.synced = 0  # of them: acknowledged by a sync
        self.calls = self.hits = 0
        self.last = ""
        self.failures = []  # of the application's own statements
        self.errors = []  # what litejoin_sync and litejoin_snapshot said
        self.open_failures = []  # that are allowed

    @contextlib.contextmanager
    def phase(self, name):
        if name != self.job["phase"]:
            yield
            return
        job = self.job
        state = os.path.join(os.path.dirname(self.path), ".app.db-litejoin")
        # the database itself has to be there for SQLite too; at its restore it is our file
        paths = ":".join((state, self.base, self.path + "-wal", os.path.dirname(self.path) if name == "boot" else self.base))
        caller = job.get("caller", "litejoin_vfs.so").encode()
        faults.fs_arm(job["kind"].encode(), job["at"], job["count"], job["error"], caller, paths.encode(), 0)
        try:
            yield
        finally:
            faults.fs_disarm()
            self.calls = faults.fs_calls()
            self.hits = faults.fs_hits()
            self.last = faults.fs_last().decode("utf-8", "replace")

    def statement(self, what, function):
        try:
            return function()
        except (sqlite3.Error, MemoryError) as error:  # MemoryError: what sqlite3 makes of SQLITE_NOMEM
            self.failures.append("%s: %s; %s" % (what, error or "out of memory", shim.last_error()))
            return None

    def open(self, what="open"):
        def connect():
            con = shim.connect(self.path, self.base, **OPTIONS)
            if con.execute("PRAGMA journal_mode=WAL").fetchone()[0] != "wal":
                raise sqlite3.OperationalError("not in WAL mode")
            con.execute("PRAGMA synchronous=NORMAL").fetchall()
            return con
        self.con = self.statement(what, connect)
        return self.con

    def commit(self, count=1):
        for _ in range(count):
            n = self.statement("commit", lambda: chain.commit_one(self.con, self.rng, payload_bytes=(0, 100)))
            self.committed = n or self.committed

    def checkpoint(self, mode):
        row = self.statement("checkpoint", lambda: self.con.execute("PRAGMA wal_checkpoint(%s)" % mode).fetchone())
        if row and row[0]:
            self.failures.append("checkpoint %s: busy" % mode)

    def ask(self, what, timeout):
        """litejoin_sync or litejoin_snapshot: may fail while calls do."""
        number = self.committed
        try:
            self.con.execute("PRAGMA litejoin_%s='%s'" % (what, timeout)).fetchall()
            if what == "sync":
                self.synced = max(self.synced, number)
            return True
        except (sqlite3.Error, MemoryError) as error:
            self.errors.append("%s: %s; %s" % (what, error or "out of memory", shim.last_error()))
            return False

    def close(self):
        self.statement("close", self.con.close)
        self.con = None


def live(life):
    """The phases up to the one that fails, then the end."""
    job = life.job
    # what fails once is done well within it, or says what failed: a time-out then means that something was lost
    patience = "60s" if job["count"] == 1 else "300ms"
    names = ("open", "create", "snapshot", "ship", "restart", "periodic", "close", "reopen")
    steps = names[:names.index(job["phase"]) + 1]
    with life.phase("open"):
        life.open()
    if life.con is None and job["kind"] == "malloc" or "restoring before open" in "".join(life.failures):
        # whether there is something to restore could not be seen, or a handle not be made: then an open has to fail
        life.open_failures = life.failures
        life.failures = []
        life.open()
    if life.con is None:
        return
    with life.phase("create"):
        life.statement("create", lambda: chain.create(life.con))
        life.commit()
        if job["phase"] == "create":
            life.ask("sync", patience)
    if "snapshot" in steps:
        with life.phase("snapshot"):
            life.ask("sync", patience)
    if "ship" in steps:
        with life.phase("ship"):
            for _ in range(2):
                life.commit()
                life.ask("sync", patience)
    if "restart" in steps:
        with life.phase("restart"):
            for mode in ("RESTART", "TRUNCATE"):
                life.commit(2)
                life.checkpoint(mode)
            life.commit()
            life.ask("sync", patience)
    if "periodic" in steps:
        with life.phase("periodic"):
            for _ in range(2):
                life.commit()
                life.ask("snapshot", patience)
    if "close" in steps:
        with life.phase("close"):
            life.commit()
            life.close()
    if "reopen" in steps:
        with life.phase("reopen"):
            if life.open() is None and job["kind"] != "malloc":
                return
            if life.con is not None:
                    life.ask("sync", patience)
        if life.con is None:
            life.open_failures = life.failures
            life.failures = []
    finish(life)


def copy_replica(life):
    """As it is now, while retention may be at work: a folder that goes in the middle is nothing to copy."""
    target = os.path.join(life.folder, "at-fault")
    for turn in range(20):
        try:
            if os.path.isdir(life.base):
                shutil.copytree(life.base, target, ignore_dangling_symlinks=True, copy_function=copy_if_there)
            return
        except (shutil.Error, FileNotFoundError):
            if turn == 19:
                raise
            shutil.rmtree(target, ignore_errors=True)


def finish(life):
    """Nothing fails any more: it heals by itself."""
    if life.con is None and life.open() is None:
        return
    life.at_fault = life.synced
    copy_replica(life)
    end = time.monotonic() + 120
    while True:
        life.commit()
        if life.ask("sync", "5s"):
            break
        if time.monotonic() > end:
            life.failures.append("it does not heal: " + life.errors[-1])
            break
        time.sleep(0.02)
    life.close()


def copy_if_there(source, target):
    with contextlib.suppress(FileNotFoundError):
        shutil.copy2(source, target)


def boot(life):
    """Restore on open of the replica that is there: fails clearly and leaves nothing, or works."""
    before = {".app.db-litejoin", *os.listdir(os.path.dirname(life.path))}
    with life.phase("boot"):
        life.open()
        if life.con is not None:
            life.statement("read", lambda: life.con.execute("SELECT count(*) FROM chain").fetchone())
    life.boot_errors = life.failures
    life.failures = []
    if life.con is None:
        left = [n for n in os.listdir(os.path.dirname(life.path)) if n not in before]
        if "app.db" in left and os.path.getsize(life.path):
            left.remove("app.db")  # restored whole, as the next open shows, when something behind that failed
        if left and (life.job["kind"] != "unlink" or life.job["count"]):  # what cannot be removed stays
            life.failures.append("left by an open that failed: %s" % left)
        if life.open("open without failures") is None:
            return
    life.booted = life.committed = chain.last(life.con)
    finish(life)


def same_as_plain(job):
    """SQLite's own calls fail: what every statement comes to, through the shim or without it."""
    folder = job["folder"]
    os.makedirs(folder)
    path = os.path.join(folder, "app.db")
    base = os.path.join(folder, "base")
    shim.load()
    name = shim.uri(path, base, **OPTIONS) if job["shim"] else "file:%s?vfs=unix" % path
    outcomes = []
    con = None

    def step(what, function):
        try:
            value = function()
            outcomes.append([what, "ok", repr(value)[:80] if not isinstance(value, sqlite3.Connection) else ""])
            return value
        except MemoryError:
            outcomes.append([what, "SQLITE_NOMEM", ""])
            return None
        except sqlite3.Error as error:
            outcomes.append([what, getattr(error, "sqlite_errorname", None) or str(error), ""])
            return None

    def execute(sql):
        return step(sql[:60], lambda: con.execute(sql).fetchall())

    paths = ":".join((path, path + "-wal", path + "-shm", path + "-journal"))
    faults.fs_arm(job["kind"].encode(), job["at"], job["count"], job["error"], b"libsqlite3", paths.encode(),
                  threading.get_native_id())
    for turn in range(2):
        con = step("open", lambda: sqlite3.connect(name, uri=True, timeout=0.2, isolation_level=None, cached_statements=0))
        if con is None:
            continue
        execute("PRAGMA journal_mode=WAL")
        execute("PRAGMA cache_size=8")
        execute("CREATE TABLE IF NOT EXISTS t(a INTEGER PRIMARY KEY, b)")
        execute("BEGIN IMMEDIATE")
        execute("INSERT INTO t(b) WITH RECURSIVE c(x) AS (VALUES(1) UNION ALL SELECT x+1 FROM c WHERE x < 60) "
                "SELECT zeroblob(900) FROM c")
        execute("COMMIT")
        if con.in_transaction:
            execute("ROLLBACK")
        execute("PRAGMA wal_checkpoint(RESTART)")
        execute("PRAGMA synchronous=FULL")
        execute("UPDATE t SET b = 1 WHERE a % 7 = " + str(turn))
        execute("SELECT count(*), sum(length(b)) FROM t")
        execute("PRAGMA wal_checkpoint(TRUNCATE)")
        execute("DELETE FROM t WHERE a % 5 = 0")
        step("close", con.close)
    calls, hits = faults.fs_calls(), faults.fs_hits()
    faults.fs_disarm()
    answer = {"outcomes": outcomes, "calls": calls, "hits": hits, "last": faults.fs_last().decode()}
    if job["shim"]:
        con = shim.open_wal(path, base, **OPTIONS)
        con.execute("CREATE TABLE IF NOT EXISTS last(x)")
        shim.sync(con, "20s")
        con.close()
    return answer


def main():
    faults.fs_live.restype = ctypes.c_long
    watched = False  # from behind the first life: what a process allocates once is no leak
    for line in sys.stdin:
        job = json.loads(line)
        before = faults.fs_live()
        if job["phase"] == "sqlite":
            answer = same_as_plain(job)
        else:
            life = Life(job)
            life.at_fault = 0
            (boot if job["phase"] == "boot" else live)(life)
            if life.con is not None:
                life.con.close()
            answer = {key: value for key, value in vars(life).items() if key not in ("con", "rng", "job")}
            answer["leaked"] = faults.fs_live() - before
            shim.load()
            faults.fs_watch(b"litejoin_vfs.so") if not watched else None
            watched = True
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
