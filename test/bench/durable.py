"""durable.py - the benchmark's part about commits that wait for the replica: `run --only durability`.

Everything runs against s3_server on loopback, which adds --delay-ms (20) to every request. The bare PUT has the size of the segments
that the commits make, on one kept connection; both are measured in turns, so that the machine's mood meets both. Of group commits each
connection is a thread.
"""

import http.client
import os
import shutil
import sqlite3
import statistics
import tempfile
import threading
import time

from ljtest import fasts3, harness, shim
from objects import BUCKET, print_table, spread

CONNECTIONS = (1, 8, 32)


def bare_puts(store, seconds, size):
    """Round trips of PUTs of `size` bytes to new keys, in seconds each."""
    connection = http.client.HTTPConnection("127.0.0.1", store.port, timeout=60)
    body = os.urandom(size)
    taken = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        started = time.monotonic()
        connection.request("PUT", "/%s/bare/%d-%d" % (BUCKET, id(taken), len(taken)), body, {"If-None-Match": "*"})
        connection.getresponse().read()
        taken.append(time.monotonic() - started)
    connection.close()
    return taken


def opened(store, folder, name, durability, **options):
    con = shim.open_wal(os.path.join(folder, name + ".db"), store.url(BUCKET, "d", conditional="on"), busy=60,
                        pragmas=("synchronous=FULL",), durability=durability, remote_timeout="60s", **options)
    con.execute("CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, v BLOB)")
    return con


def commits(con, seconds):
    """Latencies of one-row transactions, in seconds each."""
    taken = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        started = time.monotonic()
        con.execute("INSERT INTO t(v) VALUES(randomblob(200))")
        taken.append(time.monotonic() - started)
    return taken


def latency_table(args, store, folder):
    con = opened(store, folder, "latency", "remote")
    commits(con, 0.5)
    state = shim.status(con)
    before = state["shipped_bytes"], state["segments"]
    commits(con, 0.5)
    state = shim.status(con)
    size = (state["shipped_bytes"] - before[0]) // (state["segments"] - before[1])
    bare, waited = [], []
    for turn in range(args.rounds):
        for what in ((bare, waited), (waited, bare))[turn % 2]:
            what.append(statistics.median(bare_puts(store, args.seconds, size) if what is bare else commits(con, args.seconds)) * 1e3)
    con.close()
    extra = [w - b for w, b in zip(waited, bare)]
    goal = [b * 0.1 + 1 for b in bare]
    print_table(("one row, `synchronous=FULL`, p50 in ms", "median (least to most)"),
                [("bare PUT of %d bytes" % size, spread(bare)), ("COMMIT with `durability=remote`", spread(waited)),
                 ("COMMIT above the bare PUT", spread(extra)), ("the goal: 10% + 1 ms", spread(goal))])


def group(args, store, folder, durability, connections):
    """Commits per second of so many connections, and per object."""
    name = "g%s%d" % (durability, connections)
    first = opened(store, folder, name, durability)
    before = shim.status(first)["segments"]
    counts = []
    threads = [threading.Thread(target=lambda: counts.append(one(store, folder, name, durability, args.seconds)))
               for _ in range(connections)]
    started = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rate = sum(counts) / (time.monotonic() - started)
    made = shim.status(first)["segments"] - before
    first.close()
    return "%.0f" % rate, "%.1f" % (sum(counts) / max(made, 1))


def one(store, folder, name, durability, seconds):
    con = opened(store, folder, name, durability)
    try:
        return len(commits(con, seconds))
    except sqlite3.OperationalError as error:
        raise harness.Failure("%s: %s" % (error, shim.last_error()))
    finally:
        con.close()


def main(args):
    if harness.missing("shim"):
        print("## Commits that wait\n\nleft out: %s\n" % harness.missing("shim"))
        return
    with fasts3.FastS3(delay_ms=args.delay_ms) as store:
        os.environ.update(store.env)
        print("## Commits that wait\n\ns3_server on loopback, %d ms added to every request.\n" % args.delay_ms)
        folder = tempfile.mkdtemp(prefix="ljbench", dir=args.dir)
        try:
            latency_table(args, store, folder)
            rows = []
            for durability in ("remote", "ack"):
                for connections in CONNECTIONS:
                    rows.append(("`%s`, %d connections" % (durability, connections),
                                 *group(args, store, folder, durability, connections)))
            print_table(("commits of one row", "per second", "per object"), rows)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
