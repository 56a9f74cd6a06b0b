"""durablekit.py - a database whose commits wait for an S3 store with scripted faults, and every place a transaction must be in or not.

    with Remote(t) as remote:
        con = remote.open()
        remote.commit(con)                       # a row that must be everywhere from now on
        with remote.refuses():
            remote.fails(con)                    # a row that must be nowhere
        remote.check(con)

`good` are the ids of rows whose COMMIT returned success. check() looks for exactly these in the connection, in another
connection, in a copy as a crash would leave it (opened by plain SQLite), and in the restored replica.
"""

import os
import shutil
import sqlite3
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from ljtest import cli, fasts3, faults, harness, pages, shim, stores  # noqa: E402
from ljtest.harness import check, check_equal  # noqa: E402
from ljtest.replica import Replica  # noqa: E402

BUCKET = "lj"
SEGMENTS = r"/wal/[0-9a-f_]+\.wal\.lz4$"
NAMES = ("AWS_", "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy")


def prepare_environment(store):
    for name in list(os.environ):
        if name.startswith(NAMES):
            del os.environ[name]
    os.environ.update(store.env)


def ids(con):
    return [row[0] for row in con.execute("SELECT id FROM t ORDER BY id")]


def ids_of_file(path):
    con = shim.plain(path)
    try:
        found = ids(con)
        check_equal(con.execute("PRAGMA integrity_check").fetchone()[0], "ok", "integrity of " + path)
        return found
    finally:
        con.close()


def crashed(path, folder):
    """Opens what a kill at this moment would leave, as plain SQLite does; returns the ids in it."""
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    copy = os.path.join(folder, "copy.db")
    shutil.copyfile(path, copy)
    if os.path.exists(path + "-wal"):
        shutil.copyfile(path + "-wal", copy + "-wal")
    return ids_of_file(copy)


def io_error(function, *arguments):
    """Calls; it must raise SQLite's I/O error. Returns its text and the extension's."""
    try:
        function(*arguments)
    except sqlite3.OperationalError as error:
        check("disk I/O error" in str(error), "it is no I/O error: %s" % error)
        return "%s | %s" % (error, shim.last_error())
    raise harness.Failure("the commit succeeded, although it cannot have reached the replica")


class Remote:
    """FOLDER/data/shard_0.db, replicated to a bucket of a store behind a proxy that breaks requests."""

    def __init__(self, t, folder="remote", **options):
        self.t = t
        self.folder = folder
        self.data = t.folder(folder, "data")
        self.path = os.path.join(self.data, "shard_0.db")
        self.options = {"durability": "remote", "remote_timeout": "60s", "io_timeout": "30s", "shutdown_timeout": "3s",
                        **options}
        self.url_options = {"conditional": "on"}  # known: not found out by looking first, which also finds what was stored
        self.good = []
        self.next_id = 1

    def __enter__(self):
        self.store = fasts3.FastS3().__enter__()
        prepare_environment(self.store)
        self.client = stores.S3(self.store.endpoint, "FASTS3", "secret")
        self.proxy = faults.Proxy(self.store.endpoint).__enter__()
        self.base = self.store.url(BUCKET, "r", endpoint=self.proxy.endpoint, **self.url_options)
        return self

    def __exit__(self, *_):
        self.proxy.__exit__(None, None, None)
        self.store.__exit__(None, None, None)

    def open(self, create=True, **more):
        con = shim.open_wal(self.path, self.base, **{**self.options, **more})
        if create:
            con.execute("CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, v BLOB)")
        return con

    def impatient(self, **more):
        """A second connection that does not wait for long. The first one goes on: so no WAL ends in between."""
        return self.open(create=False, remote_timeout="1500ms", **more)

    # -- transactions

    def insert(self, con, size=100):
        """Adds a row in the open transaction or as one of its own; returns its id."""
        number = self.next_id
        self.next_id += 1
        con.execute("INSERT INTO t VALUES(?, randomblob(?))", (number, size))
        return number

    def commit(self, con, count=1):
        for _ in range(count):
            self.good.append(self.insert(con))

    def fails(self, con, function=None):
        """A transaction that must fail and be nowhere; returns the errors' text."""
        return io_error(function or self.insert, con)

    # -- faults

    def refuses(self):
        """The store denies segments at once, without storing them."""
        return self.proxy.rule(faults.s3_error("AccessDenied"), method="PUT", path=SEGMENTS)

    # -- looking

    def segments(self):
        return [key for key, _ in self.client.objects(BUCKET, "r/shard_0/") if "/wal/" in key]

    def mirror(self):
        """What the store holds, as a folder."""
        folder = self.t.path(self.folder, "mirror")
        shutil.rmtree(folder, ignore_errors=True)
        for key, _ in self.client.objects(BUCKET, "r/shard_0/"):
            path = os.path.join(folder, os.path.relpath(key, "r/shard_0"))
            os.makedirs(os.path.dirname(path), exist_ok=True)
            try:
                body = self.client.read(BUCKET, key)
            except stores.StoreError as error:
                if error.status != 404:
                    raise
                continue  # taken back since it was listed
            with open(path, "wb") as file:
                file.write(body)
        return Replica(folder)

    def restored(self, generation=None):
        out = self.t.path(self.folder, "restored.db")
        if os.path.exists(out):
            os.unlink(out)
        self.mirror().restore(out, generation=generation)
        return ids_of_file(out)

    def crashed(self):
        return crashed(self.path, self.t.path(self.folder, "crash"))

    def check(self, con, what, other=True, replica=True):
        """Exactly the good ones, everywhere."""
        check_equal(ids(con), self.good, what + ": in the connection")
        if other:
            second = self.open(create=False)
            check_equal(ids(second), self.good, what + ": in another connection")
            second.close()
        check_equal(self.crashed(), self.good, what + ": after a crash")
        if replica:
            check_equal(self.restored(), self.good, what + ": restored")

    def finish(self, con, generations=1):
        """Closes; every restorer gives the database as it is. Returns the replica."""
        generation = shim.status(con)["generation"]
        con.close()
        replica = self.mirror()
        replica.check()
        check_equal(len(replica.generations()), generations, "generations")
        out = self.t.path(self.folder, "out.db")
        for old in (out, out + ".tool"):
            if os.path.exists(old):
                os.unlink(old)
        replica.restore(out, generation=generation)
        pages.check_same(out, self.path, "the replica against the database")
        check_equal(ids_of_file(out), self.good, "rows in the replica")
        for tool in cli.restorers():
            other = out + "." + tool.name
            if os.path.exists(other):
                os.unlink(other)
            tool.restore(replica.root, other, "-generation", generation)
            pages.check_same(other, out, "restored by %s" % tool.name)
        return replica
