"""faultkit.py - one replicated database, the store it goes to, and what breaks in between.

    with place(t, servers.S3rver) as at:
        con = at.open()
        at.write(con, 10)
        with at.proxy.rule(faults.s3_error("SlowDown"), method="PUT"):
            at.write_timed(con)
            at.wait_error(con, "{url}: {segment}: PUT {host}: HTTP 503: SlowDown: no luck today", faults_hint)
        at.caught_up(con)
        at.finish(con)

finish() closes, and looks at what lies in the store past our own code: one generation, no segment lost, repeated or out of order,
and the restored database is the local one.
"""

import contextlib
import os
import re
import shutil
import sqlite3
import time

from ljtest import chain, faults, harness, pages, servers, shim
from ljtest.harness import check, check_equal, wait_for
from ljtest.replica import Replica

BUCKET = "lj-bucket"
NEEDS = ("shim", "load_extension")
COMMIT_SECONDS = 0.25  # what p99 of commits must stay below, whatever the store does
PATIENCE = 90
TRIES = 6  # of what time decides: who waits for the store does so each time, a busy machine does not
QUICK = {"sync_interval": "50ms", "io_timeout": "1s", "shutdown_timeout": "3s"}
SEGMENT = r"generations/[0-9a-f]{16}/wal/[0-9a-f]{8}_[0-9a-f]{8}\.wal\.lz4"
SNAPSHOT = r"generations/[0-9a-f]{16}/snapshots/[0-9a-f]{8}\.snapshot\.lz4"
NAMES = ("AWS_", "AZURE_", "LITESTREAM_", "GOOGLE_", "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY",
         "all_proxy", "SSL_CERT")


def clean_environment():
    """Whatever the machine says about clouds and proxies must not count."""
    for name in list(os.environ):
        if name.startswith(NAMES):
            del os.environ[name]
    os.environ.update({"AWS_CONFIG_FILE": "/nonexistent", "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
                       "AWS_EC2_METADATA_DISABLED": "true"})


def mirror(store, prefix, folder):
    """Copies what the store holds below `prefix` into a folder, so that everything that looks at replicas can."""
    shutil.rmtree(folder, ignore_errors=True)
    for key, size in store.objects(BUCKET, prefix + "/"):
        path = os.path.join(folder, os.path.relpath(key, prefix))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        body = store.read(BUCKET, key)
        check_equal(len(body), size, "size of " + key)
        with open(path, "wb") as file:
            file.write(body)
    return Replica(folder)


def must_fail(function, *arguments, **named):
    """Calls and returns all an application can learn about the sqlite3 error it must raise."""
    try:
        result = function(*arguments, **named)
    except sqlite3.Error as error:
        return "%s | %s" % (error, shim.last_error())
    raise harness.Failure("%s worked (%r), although it cannot" % (function.__name__, result))


def fails_saying(words, function, *arguments, **named):
    """must_fail() until its text has all the words: the first answer may be that a busy store took longer than io_timeout."""
    said = []

    def says():
        said.append(must_fail(function, *arguments, **named))
        return all(word in said[-1] for word in words)

    wait_for(says, lambda: "%s: no %s in: %s" % (function.__name__, words, said[-1]), PATIENCE, 0.1)
    return said[-1]


def disk_use(folder):
    """Bytes of all files below, by size."""
    total = 0
    for where, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += os.lstat(os.path.join(where, name)).st_size
    return total


class Place:
    """FOLDER/data/shard_0.db, replicated below `prefix` of the bucket through the proxy."""

    def __init__(self, t, store, proxy, prefix="state", url_options=None, **options):
        self.t = t
        self.store = store
        self.proxy = proxy
        self.prefix = prefix
        self.base = store.url(BUCKET, prefix, endpoint=proxy.endpoint, **(url_options or {}))
        self.options = {**QUICK, **options}
        self.data = t.folder(prefix, "data")
        self.path = os.path.join(self.data, "shard_0.db")
        self.words = {"host": re.escape(proxy.endpoint.split("://")[-1].split("/")[0]), "segment": SEGMENT,
                      "snapshot": SNAPSHOT, "generation": "[0-9a-f]{16}", "number": "[0-9]+",
                      "port": str(proxy.port),
                      "verb": "(GET|HEAD|PUT|POST)",
                      "reset": "(Recv failure: Connection reset by peer|the connection was closed without an answer)",
                      "refused": "(Failed to connect to 127.0.0.1 port %d after [0-9]+ ms: Couldn't connect to server|Send failure: "
                                 "Broken pipe): Connection refused" % proxy.port,
                      "url": "(s3|abs|gcs|sftp)://[^ ?]*%s/shard_0" % re.escape(prefix)}

    # -- the database

    def open(self, create=True, **more):
        con = shim.open_wal(self.path, self.base, **{**self.options, **more})
        if create and not chain.exists(con):
            chain.create(con)
        return con

    def ready(self, **more):
        """A connection to a database of which everything is in the store."""
        con = self.open(**more)
        self.write(con, 5)
        shim.sync(con, "%ds" % PATIENCE)
        return con

    def write(self, con, count=10, **options):
        n = 0
        for _ in range(count):
            n = chain.commit_one(con, self.t.random, **options)
        return n

    def write_timed(self, con, count=100):
        """Commits of which the store must not be felt. Returns the last link."""
        n = 0
        for left in reversed(range(TRIES)):
            taken = []
            for _ in range(count):
                started = time.monotonic()
                n = chain.commit_one(con, self.t.random)
                taken.append(time.monotonic() - started)
            taken.sort()
            p99 = taken[int(len(taken) * 0.99) - 1]
            if p99 < COMMIT_SECONDS:
                break
            check(left, "p99 of commits is %.0f ms while the store fails" % (p99 * 1e3))
        return n

    def forget(self):
        """The disk is gone."""
        shutil.rmtree(self.data)
        os.mkdir(self.data)

    # -- what it says

    def pattern(self, text):
        """A text with {host}, {segment} and so on as a regular expression for all of an error."""
        found = re.split(r"\{(\w+)\}", text)
        return "".join(self.words[part] if i % 2 else re.escape(part) for i, part in enumerate(found))

    def wait_error(self, con, text, hint="", state="retrying", seconds=PATIENCE):
        """Waits until last_error is exactly `text` with the hint (None: some hint) and looks at the state; returns the status."""
        whole = self.pattern(text + (" (%s)" % hint if hint else "")) + (r" \(.+\)" if hint is None else "")
        last = {}

        def says():
            last.update(shim.status(con))
            return last["last_error"] and re.fullmatch(whole, last["last_error"])

        wait_for(says, lambda: "last_error %r, but %s: %r" % (whole, last["state"], last["last_error"]), seconds)
        check_equal(last["state"], state, "state with " + last["last_error"])
        return last

    def caught_up(self, con, seconds=PATIENCE):
        """Waits, without asking for it, until the store has everything."""
        last = {}

        def done():
            last.update(shim.status(con))
            # the last file of the spool goes a moment after its frames were acknowledged
            return last["lag_frames"] == 0 and last["spool_bytes"] == 0 and last["generation"] and last["state"] == "replicating"

        wait_for(done, lambda: "everything shipped: %s" % last, seconds, 0.02)
        check_equal(last["last_error"], "", "last_error after catching up")
        return last

    # -- what is in the store

    def objects(self, kind=""):
        return [key for key, _ in self.store.objects(BUCKET, self.prefix + "/shard_0/") if "/%s" % kind in key]

    def finish(self, con=None, generations=(1,), snapshots=None):
        """
        Closes and compares; returns the last link. Of several generations (as many as one of these numbers says) the one counts that
        is shipped to now.
        """
        current = None
        if con:
            current = shim.status(con)["generation"]
            con.close()
        folder = self.t.path(self.prefix, "mirror")
        replica = mirror(self.store, self.prefix + "/shard_0", folder)
        replica.check()
        check(len(replica.generations()) in generations, "%d generations" % len(replica.generations()))
        if snapshots is not None:
            check_equal(replica.counts()[1], snapshots, "snapshots")
        out = self.t.path(self.prefix, "out.db")
        replica.restore(out, generation=current)
        pages.check_same(out, self.path, "the store's content against the database")
        return chain.verify_file(out, "restored from the store")

    def log(self, everything=False):
        """The lines of the extension's log that name this database."""
        with open(os.environ["LITEJOIN_LOG_FILE"], errors="replace") as file:
            return [line for line in file.read().splitlines() if everything or self.path in line]


@contextlib.contextmanager
def broken(t, kind=servers.S3rver, between=None, bucket=True, **options):
    """A function that makes Places on a server of this kind with a proxy (or what `between`(store) makes) in front."""
    clean_environment()
    with kind() as store, (between(store) if between else faults.Proxy(store.endpoint)) as proxy:
        if bucket:
            store.make_bucket(BUCKET)
        os.environ.update(store.environment(proxy.endpoint))
        yield lambda prefix="state", **more: Place(t, store, proxy, prefix, **{**options, **more})


@contextlib.contextmanager
def place(t, kind=servers.S3rver, **options):
    with broken(t, kind, **options) as make:
        yield make()
