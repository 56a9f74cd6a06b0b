"""pages.py - compares database files page by page, and asks SQLite whether they are sound.

Only for closed files: see shim.py about POSIX locks.
"""

import os
import shutil
import sqlite3
import struct
import tempfile
import urllib.parse

from . import harness


def page_size_of(data):
    size = struct.unpack_from(">H", data, 16)[0] if len(data) >= 100 else 0
    return 65536 if size == 1 else size


def free_leaves(data):
    """Page numbers of free pages whose content SQLite never reads (leaves of the freelist)."""
    size = page_size_of(data)
    leaves = set()
    if not size:
        return leaves
    trunk = struct.unpack_from(">I", data, 32)[0]
    seen = set()
    while trunk and trunk not in seen and trunk * size <= len(data):
        seen.add(trunk)
        start = (trunk - 1) * size
        following, count = struct.unpack_from(">II", data, start)
        count = min(count, size // 4 - 2)
        leaves.update(struct.unpack_from(">%dI" % count, data, start + 8))
        trunk = following
    return leaves


def read(path):
    with open(path, "rb") as file:
        return file.read()


def differences(got, want, free_pages_may_differ=False):
    """Text that names the first pages that differ between two images, or ""."""
    if got == want:
        return ""
    size = page_size_of(want) or 4096
    parts = []
    if len(got) != len(want):
        parts.append("%d bytes, want %d" % (len(got), len(want)))
    free = free_leaves(want)
    wrong = []
    for number in range(1, min(len(got), len(want)) // size + 1):
        start = (number - 1) * size
        if got[start:start + size] != want[start:start + size]:
            if number in free and free_pages_may_differ:
                continue
            wrong.append(number)
    if wrong:
        shown = ", ".join("%d%s" % (n, " (free)" if n in free else "") for n in wrong[:8])
        parts.append("%d of %d pages differ: %s%s" % (len(wrong), len(want) // size, shown,
                                                      ", ..." if len(wrong) > 8 else ""))
    return "; ".join(parts)


def check_same(got_path, want_path, what, free_pages_may_differ=False):
    """Fails unless both files hold the same bytes."""
    text = differences(read(got_path), read(want_path), free_pages_may_differ)
    if text:
        raise harness.Failure("%s: %s" % (what, text))


def integrity(path):
    """"ok", or what PRAGMA integrity_check and foreign_key_check found. Works on a copy: the file is not touched."""
    folder = tempfile.mkdtemp(prefix="ljcheck", dir=os.path.dirname(os.path.abspath(path)))
    try:
        copy = os.path.join(folder, "copy.db")
        shutil.copyfile(path, copy)
        for tail in ("-wal",):
            if os.path.exists(path + tail):
                shutil.copyfile(path + tail, copy + tail)
        con = sqlite3.connect("file:" + urllib.parse.quote(copy) + "?vfs=unix", uri=True)
        try:
            rows = [row[0] for row in con.execute("PRAGMA integrity_check(20)")]
            return "ok" if rows == ["ok"] else "; ".join(rows)
        except sqlite3.DatabaseError as error:
            return "%s" % error
        finally:
            con.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def check_integrity(path, what):
    found = integrity(path)
    if found != "ok":
        raise harness.Failure("%s: integrity_check: %s" % (what, found[:300]))


def folded_copy(path, folder):
    """
    A copy of a database that nobody writes to at the moment, with its WAL folded in: the path of a single file. The
    files are copied by a child process, so that an open connection of this process keeps its locks.
    """
    import subprocess
    os.makedirs(folder, exist_ok=True)
    copy = os.path.join(folder, "folded.db")
    for tail in ("", "-wal", "-shm"):
        if os.path.exists(copy + tail):
            os.unlink(copy + tail)
    for tail in ("", "-wal"):
        if os.path.exists(path + tail):
            subprocess.run(["cp", path + tail, copy + tail], check=True)
    con = sqlite3.connect("file:" + urllib.parse.quote(copy) + "?vfs=unix", uri=True)
    con.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    con.close()
    return copy
