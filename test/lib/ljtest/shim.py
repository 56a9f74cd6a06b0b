"""shim.py - databases opened through the loaded extension.

The process that has a database open through SQLite must not open() and close() the database or its -shm file by
itself: that would drop the process's POSIX locks. So nothing here reads files of an open database; compare closed ones.
"""

import ctypes
import json
import re
import sqlite3
import urllib.parse

from . import harness

_loaded = []

POSITION = re.compile(r"^([0-9a-f]{16})/([0-9a-f]{8}):([0-9]+)$")
STATUS_KEYS = ("state", "database", "replica", "generation", "local_index", "local_offset", "replica_index",
               "replica_offset", "lag_ms", "lag_frames", "spool_bytes", "segments", "snapshots", "shipped_bytes",
               "last_snapshot", "uploader", "last_error", "last_break")


def load():
    """Loads the extension into this process's SQLite (once); it registers the VFS `litejoin` for good."""
    if _loaded:
        return
    loader = sqlite3.connect(":memory:")
    loader.enable_load_extension(True)
    loader.load_extension(harness.extension_path())
    loader.close()
    _loaded.append(True)


def uri(path, replica=None, **options):
    """file:PATH?vfs=litejoin&... ; `replica` is the base folder (or a URL), None leaves replica_url out."""
    query = [("vfs", "litejoin")]
    if replica is not None:
        query.append(("replica_url", replica if "://" in replica else "file://" + replica))
        options.setdefault("sync_interval", "50ms")
        options.setdefault("shutdown_timeout", "60s")  # what a close and litejoin_sync wait for a slow machine
    query += [(key, str(value)) for key, value in options.items()]
    return "file:%s?%s" % (urllib.parse.quote(path), urllib.parse.urlencode(query, safe="/:"))


def connect(path, replica=None, *, busy=60.0, pragmas=(), **options):
    """
    Opens through the shim in autocommit mode. cached_statements=0 matters: SQLite runs a VFS's pragmas when the statement
    is prepared, so a cached statement would give the old answer without doing anything.
    """
    load()
    con = sqlite3.connect(uri(path, replica, **options), uri=True, timeout=busy, isolation_level=None,
                          cached_statements=0, check_same_thread=False)
    for pragma in pragmas:
        con.execute("PRAGMA " + pragma).fetchall()
    return con


def open_wal(path, replica, *, page_size=None, auto_vacuum=None, pragmas=(), **options):
    """connect(), and makes the database a WAL database if it is new. synchronous is NORMAL unless a pragma says otherwise."""
    first = []
    if page_size:
        first.append("page_size=%d" % page_size)
    if auto_vacuum:
        first.append("auto_vacuum=%s" % auto_vacuum)
    con = connect(path, replica, pragmas=first, **options)
    harness.check_equal(con.execute("PRAGMA journal_mode=WAL").fetchone()[0], "wal", "journal_mode")
    for pragma in ("synchronous=NORMAL", *pragmas):
        con.execute("PRAGMA " + pragma).fetchall()
    return con


def plain(path, *, busy=60.0, pragmas=()):
    """Opens through SQLite's own VFS: a writer that knows nothing of the shim, or a look into a restored file."""
    con = sqlite3.connect("file:" + urllib.parse.quote(path) + "?vfs=unix", uri=True, timeout=busy,
                          isolation_level=None, cached_statements=0, check_same_thread=False)
    for pragma in pragmas:
        con.execute("PRAGMA " + pragma).fetchall()
    return con


def status(con, schema="main"):
    """PRAGMA litejoin_status as a dict, with every promised key."""
    row = con.execute("PRAGMA %s.litejoin_status" % schema).fetchone()
    harness.check(row and len(row) == 1, "litejoin_status gave %r" % (row,))
    state = json.loads(row[0])
    absent = [key for key in STATUS_KEYS if key not in state]
    harness.check(not absent, "litejoin_status lacks %s: %s" % (absent, row[0]))
    return state


class Position:
    """What PRAGMA litejoin_sync answers: generation, index and byte offset."""

    def __init__(self, text):
        match = POSITION.match(text or "")
        harness.check(match, "not a position: %r" % (text,))
        self.text = text
        self.generation = match.group(1)
        self.index = int(match.group(2), 16)
        self.offset = int(match.group(3))

    def __repr__(self):
        return self.text


def sync(con, timeout="60s", schema="main"):
    """Ships everything and waits (None: as long as shutdown_timeout); sqlite3.Error when the replica cannot be reached in time."""
    value = "" if timeout is None else "='%s'" % timeout
    row = con.execute("PRAGMA %s.litejoin_sync%s" % (schema, value)).fetchone()
    harness.check(row, "litejoin_sync gave no row")
    return Position(row[0])


def snapshot(con, timeout="60s", schema="main"):
    value = "" if timeout is None else "='%s'" % timeout
    return con.execute("PRAGMA %s.litejoin_snapshot%s" % (schema, value)).fetchall()


def last_error():
    """litejoin_last_error() of the loaded extension: why this thread's last open or call failed."""
    library = ctypes.CDLL(harness.extension_path())
    library.litejoin_last_error.restype = ctypes.c_char_p
    return (library.litejoin_last_error() or b"").decode()
