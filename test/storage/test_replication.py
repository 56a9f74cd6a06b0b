#!/usr/bin/python3
"""
test_replication.py - the whole product on each kind of store: embedded replication, restore on open, the command line, and
Litestream v0.3.13 on the other side.

Each server is a real one on loopback (servers.py). What lies in the store is read past our own code and checked like a replica in
a folder.
"""
# timeout: 1200

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from faultkit import BUCKET, mirror  # noqa: E402
from ljtest import chain, cli, fasttime, faults, harness, pages, servers, shim  # noqa: E402
from ljtest.harness import check, check_equal, test, wait_for  # noqa: E402

KINDS = (servers.S3rver, servers.Moto, servers.Azurite, servers.FakeGcs, servers.Sshd)


def write(t, con, count):
    n = 0
    for _ in range(count):
        n = chain.commit_one(con, t.random)
    return n


def open_shard(path, url, **options):
    con = shim.open_wal(path, url, **options)
    if not chain.exists(con):
        chain.create(con)
    return con


def lose(path):
    """The disk is gone: the database and everything beside it."""
    folder = os.path.dirname(path)
    for name in os.listdir(folder):
        full = os.path.join(folder, name)
        subprocess.run(["rm", "-rf", full], check=True)


def each_kind(t, body):
    for kind in KINDS:
        with t.part(kind.__name__):
            with kind() as store:
                store.make_bucket(BUCKET)
                os.environ.update(store.env)
                body(t, kind.__name__, store)


@test("shim", "load_extension", "cli", timeout=300)
def a_lost_disk_comes_back(t):
    """Written through the shim, the disk lost, opened again: the same rows, the same generation; the command line agrees."""
    each_kind(t, lost_disk)


def lost_disk(t, name, store):
    url = store.url(BUCKET, "state")
    path = os.path.join(t.folder(name, "data"), "shard_0.db")
    con = open_shard(path, url)
    n = write(t, con, 20)
    shim.sync(con, "60s")
    con.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    n = write(t, con, 5)
    shim.snapshot(con, "60s")
    n = write(t, con, 5)
    position = shim.sync(con, "60s")
    status = shim.status(con)
    check_equal(status["last_error"], "", "last_error")
    con.close()
    replica = mirror(store, "state/shard_0", t.folder(name, "mirror"))
    replica.check()
    out = t.path(name, "mirrored.db")
    replica.restore(out)
    pages.check_same(out, path, "the store's content against the database")
    for tool in (cli.ours(),):
        tool.restore(with_name(url, "shard_0"), t.path(name, "cli.db"))
        pages.check_same(t.path(name, "cli.db"), path, "restored by the command line")
        for command in ("generations", "snapshots", "wal"):
            check(tool.table(command, with_name(url, "shard_0"))[1], "%s shows something" % command)
    lose(path)
    con = open_shard(path, url)
    check_equal(chain.verify(con, "restored"), n, "links after the disk was lost")
    write(t, con, 3)
    check_equal(shim.sync(con, "60s").generation, position.generation, "generation after the restore")
    con.close()
    mirror(store, "state/shard_0", t.folder(name, "mirror2")).check()


def with_name(url, name):
    """The URL of one database's replica from the base URL."""
    base, _, query = url.partition("?")
    return base.rstrip("/") + "/" + name + ("?" + query if query else "")


@test("shim", "load_extension", "cli", "litestream", timeout=300)
def litestream_restores_what_we_wrote(t):
    each_kind(t, to_litestream)


def to_litestream(t, name, store):
    path = os.path.join(t.folder(name, "data"), "shard_0.db")
    con = open_shard(path, store.url(BUCKET, "ours"))
    for _ in range(3):
        n = write(t, con, 10)
        con.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    con.execute("CREATE TABLE blobs(b)")
    con.execute("INSERT INTO blobs VALUES(randomblob(1200000))")
    shim.sync(con, "60s")
    con.close()
    out = store.litestream_restore(t.path(name, "out.db"), BUCKET, "ours/shard_0")
    check_equal(chain.verify_file(out, "restored by Litestream"), n, "last link")
    pages.check_same(out, path, "Litestream's restore against the database")


@test("shim", "load_extension", "cli", "litestream", timeout=300)
def we_restore_what_litestream_wrote(t):
    each_kind(t, from_litestream)


def from_litestream(t, name, store):
    path = os.path.join(t.folder(name, "data"), "app.db")
    con = shim.plain(path, pragmas=("journal_mode=WAL",))
    chain.create(con)
    config = t.path(name, "litestream.yml")
    with open(config, "w") as file:
        file.write(store.litestream_yaml(path, BUCKET, "theirs"))
    log = t.path(name, "litestream.log")
    with open(log, "wb") as out:
        process = subprocess.Popen([harness.litestream_path(), "replicate", "-config", config], stdin=subprocess.DEVNULL,
                                   stdout=out, stderr=out, env=dict(os.environ, **store.env))
    try:
        poll = t.path(name, "poll.db")
        n = 0
        asked = time.monotonic()

        def arrived():
            nonlocal n, asked
            if time.monotonic() - asked > 5:  # after an error it tries again only when the database changes
                n, asked = write(t, con, 1), time.monotonic()
            if n == 0:
                return store.objects(BUCKET, "theirs/")
            try:
                return chain.verify_file(store.litestream_restore(poll, BUCKET, "theirs")) == n
            except (harness.Failure, sqlite3.DatabaseError):
                return False
            finally:
                for tail in ("", ".tmp", ".tmp-wal", ".tmp-shm"):
                    if os.path.exists(poll + tail):
                        os.unlink(poll + tail)

        wait_for(arrived, lambda: "Litestream's first object: " + open(log).read()[-400:], 120, 0.2)
        n = write(t, con, 30)
        wait_for(arrived, lambda: "what was written, by Litestream: " + open(log).read()[-400:], 120, 0.2)
    finally:
        cli.end_litestream(process)
    # the file that was written for it, used as it is; it does not know host keys, which are looked for as ssh does
    tool = cli.ours()
    out = t.path(name, "out.db")
    home = {}
    if isinstance(store, servers.Sshd):
        home = {"HOME": t.folder(name, "home")}
        shutil.copy(store.known_hosts, os.path.join(t.folder(name, "home", ".ssh"), "known_hosts"))
    status, stdout, stderr = tool.run("restore", "-config", config, "-o", out, path, env=home)
    check_equal(status, 0, "restore by litestream.yml: " + stderr + stdout)
    check_equal(chain.verify_file(out, "restored"), n, "last link")
    con.close()
    lose(path)
    other = t.path(name, "data", "theirs.db")
    con = shim.connect(other, store.url(BUCKET, ""), replica_name="theirs")
    check_equal(chain.verify(con, "restored on open"), n, "last link by restore on open")
    con.close()


@test("shim", "load_extension", timeout=300)
def a_killed_writer_goes_on(t):
    """kill -9 in the middle: the next open continues the generation, and the replica has all that was synced."""
    each_kind(t, killed)


KILLED = """
import os, random, sys
from ljtest import chain, shim
con = shim.open_wal(sys.argv[1], sys.argv[2])
chain.exists(con) or chain.create(con)
rng = random.Random(3)
for i in range(20):
    n = chain.commit_one(con, rng)
print(shim.sync(con, "60s"), n, flush=True)
for i in range(200):
    n = chain.commit_one(con, rng)
    if i == 120:
        os.kill(os.getpid(), 9)
"""


def killed(t, name, store):
    url = store.url(BUCKET, "killed")
    path = os.path.join(t.folder(name, "data"), "shard_0.db")
    done = subprocess.run([sys.executable, "-c", KILLED, path, url], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          env=dict(os.environ, PYTHONPATH=os.path.dirname(os.path.dirname(shim.__file__))), timeout=300)
    check_equal(done.returncode, -signal.SIGKILL, done.stderr.decode())
    position, synced = done.stdout.decode().split()
    con = open_shard(path, url)
    n = chain.verify(con, "next open")
    check(n >= int(synced), "%d links, %s were synced" % (n, synced))
    check_equal(shim.sync(con, "60s").generation, shim.Position(position).generation, "generation")
    con.close()
    replica = mirror(store, "killed/shard_0", t.folder(name, "mirror"))
    replica.check(leftovers_ok=True)
    replica.restore(t.path(name, "out.db"))
    pages.check_same(t.path(name, "out.db"), path, "replica against the database")
    check_equal(replica.counts()[:2], (1, 1), "generations and snapshots")


IDLE_SECONDS = 3600
IDLE_SPEED = 900.0


@test("shim", "load_extension", timeout=180)
def an_idle_hour_is_no_request(t):
    """
    A clock that runs 900 times as fast (fasttime.c): a database that has shipped everything makes no request in an hour, and ships
    again at once afterwards. With a snapshot due every ten minutes, because nothing changes.
    """
    with servers.S3rver() as store, faults.Proxy(store.endpoint) as proxy:
        store.make_bucket(BUCKET)
        path = os.path.join(t.folder("data"), "shard_0.db")
        clock = fasttime.Clock(t.path("speed"))
        url = store.url(BUCKET, "idle", endpoint=proxy.endpoint)
        child = subprocess.Popen([sys.executable, "-c", IDLE, path, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                 env=dict(os.environ, **store.environment(proxy.endpoint), **clock.environment(),
                                          PYTHONPATH=os.path.dirname(os.path.dirname(shim.__file__))))
        t.cleanup(child.kill)
        check_equal(child.stdout.readline().split()[0], b"synced", "the first words")
        before = 0
        while before == 0 or len(proxy.seen()) > before:  # what retention asks behind the snapshot, say
            before = len(proxy.seen())
            time.sleep(1)
        check(before > 0, "requests went through the proxy")
        clock.speed(IDLE_SPEED)
        time.sleep(IDLE_SECONDS / IDLE_SPEED + 0.5)
        clock.speed(1.0)
        check_equal([str(r) for r in proxy.seen()[before:]], [], "requests in an idle hour")
        child.stdin.write(b"go\n")
        child.stdin.flush()
        words = child.stdout.readline().split()
        check_equal(words[0], b"synced", "after the hour")
        check(float(words[1]) >= IDLE_SECONDS, "the child's clock went on for %s s" % words[1].decode())
        check(len(proxy.seen()) > before, "the commit after the hour was shipped")
        check_equal(child.wait(300), 0, "exit status")


IDLE = """
import random, sys, time
from ljtest import chain, shim
con = shim.open_wal(sys.argv[1], sys.argv[2], sync_interval="1s", snapshot_interval="10m")
chain.create(con)
rng = random.Random(1)
for i in range(5):
    chain.commit_one(con, rng)
shim.sync(con, "60s")
shim.snapshot(con, "60s")
shim.sync(con, "60s")
start = time.monotonic()
print("synced 0", flush=True)
sys.stdin.readline()
chain.commit_one(con, rng)
shim.sync(con, "60s")
print("synced", time.monotonic() - start, flush=True)
con.close()
"""


if __name__ == "__main__":
    harness.main("replication")
