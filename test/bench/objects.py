"""objects.py - the benchmark's part about object stores: `run --only s3`.

Everything runs against s3_server on loopback, which adds --delay-ms (20) to every request and keeps its objects in memory.
The upload and the restore are measured in pairs with curl, right after each other, in turns of order; the many databases in
pairs with the same writes without replication. How a lag is measured is told in the head of lag.c.
"""

import json
import os
import resource
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.parse

from ljtest import cli, fasts3, harness

BUCKET = "bench"


def run(args, store):
    """All tables of this part; `args` are those of bench.py."""
    print("## Object stores\n")
    print("s3_server on loopback, %d ms added to every request, objects in memory, http. It takes CPU from the same cores as what"
          % args.delay_ms)
    print("is measured, and so does curl's.\n")
    lag_table(args, store)
    folder = tempfile.mkdtemp(prefix="ljbench", dir=args.dir)
    try:
        transfer_tables(args, store, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    many_table(args, store)
    print("Requests of an idle hour: none; test/storage/test_replication.py, an_idle_hour_is_no_request.\n")


def query_of(url, **options):
    """URI parameters of a database that goes to `url`."""
    return urllib.parse.urlencode({"vfs": "litejoin", "replica_url": url, **options})


def print_table(header, rows):
    widths = [max(len(row[i]) for row in [header] + rows) for i in range(len(header))]
    for number, row in enumerate([header] + rows):
        print("| " + " | ".join(cell.ljust(width) if i == 0 else cell.rjust(width)
                                for i, (cell, width) in enumerate(zip(row, widths))) + " |")
        if number == 0:
            print("|" + "|".join("-" * (width + 2) for width in widths) + "|")
    print(flush=True)


def spread(values, form="%.2f"):
    """The median, and the least and the most behind it."""
    return (form + " (" + form + " to " + form + ")") % (statistics.median(values), min(values), max(values))


# ---- lag ----


def lag_run(args, store, url, *flags, **options):
    """One run of lag.c; url None: without replication. Adds what the server counted between "ready" and "done"."""
    folder = tempfile.mkdtemp(prefix="ljbench", dir=args.dir)
    command = [args.lag, "--folder", folder, *map(str, flags)]
    if url:
        command += ["--ext", harness.extension_path(), "--query", query_of(url, **options)]
    start = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=dict(os.environ, **store.env))
    try:
        process.stdout.readline()
        ready = time.monotonic() - start
        before = store.stats()
        process.stdout.readline()
        after = store.stats()
        rest = process.stdout.read()
        if process.wait() != 0:
            sys.exit("lag: status %d" % process.returncode)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        shutil.rmtree(folder, ignore_errors=True)
    figures = json.loads(rest)
    figures["ready_s"] = ready
    figures["requests"] = sum(after["requests"].values()) - sum(before["requests"].values())
    figures["connections"] = after["connections"]["open"] - 1  # one is that of the question
    return figures


def lag_table(args, store):
    print("### Lag of one database at %d tx/s, %g s per run\n" % (args.rate, args.seconds))
    print("From the return of COMMIT until litejoin_get_status shows a replica position at or behind it (asked every ms), over")
    print("all commits of a run. %d rounds, the intervals in turns: median (least to most).\n" % args.rounds)
    intervals = ("100ms", "1s")
    runs = {interval: [] for interval in intervals}
    for number in range(args.rounds):
        for interval in intervals if number % 2 == 0 else intervals[::-1]:
            url = store.url(BUCKET, "lag-%s-%d" % (interval, number))
            runs[interval].append(lag_run(args, store, url, "--rate", args.rate, "--seconds", args.seconds,
                                          sync_interval=interval))
    rows = []
    for interval, done in runs.items():
        rows.append(("sync_interval " + interval, *(spread([run[key] for run in done], "%.0f")
                                                    for key in ("lag_p50_ms", "lag_p99_ms", "lag_max_ms")),
                     "%.1f" % statistics.median(run["requests"] / run["seconds"] for run in done)))
    print_table(("", "p50 ms", "p99 ms", "most ms", "requests/s"), rows)


# ---- one large object ----


def make_database(path, mb):
    """A database of random bytes, which LZ4 cannot make smaller."""
    con = sqlite3.connect(path, isolation_level=None)
    con.execute("PRAGMA synchronous=OFF")
    con.execute("CREATE TABLE noise(b)")
    con.execute("BEGIN")
    for _ in range(mb):
        con.execute("INSERT INTO noise VALUES(randomblob(1000000))")
    con.execute("COMMIT")
    con.execute("PRAGMA journal_mode=WAL")
    con.close()


HOST = """
import resource, sqlite3, sys, time
extension, uri = sys.argv[1:]
if extension:
    con = sqlite3.connect(":memory:")
    con.enable_load_extension(True)
    con.load_extension(extension)
start = time.monotonic()
con = sqlite3.connect(uri, uri=True, isolation_level=None)
con.execute("CREATE TABLE IF NOT EXISTS host(x)")
con.execute("INSERT INTO host VALUES(1)")
if extension:
    con.execute("PRAGMA litejoin_sync='600s'").fetchall()
taken = time.monotonic() - start
used = resource.getrusage(resource.RUSAGE_SELF)
peak = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")][0]
print(taken, peak, used.ru_utime + used.ru_stime)
con.close()
"""


def host(store, database, url):
    """(seconds, peak KiB, CPU seconds) of a process that opens the database, commits, and waits until the replica has all."""
    extension = harness.extension_path() if url else ""
    uri = "file:%s?%s" % (database, query_of(url) if url else "vfs=unix")
    done = subprocess.run([sys.executable, "-c", HOST, extension, uri], stdout=subprocess.PIPE, check=True,
                          env=dict(os.environ, **store.env))
    return [float(word) for word in done.stdout.split()]


def forget_replication(database):
    shutil.rmtree(os.path.join(os.path.dirname(database), ".%s-litejoin" % os.path.basename(database)), ignore_errors=True)


def clear(store):
    """Deletes every object: they are in memory."""
    while True:
        text = store.request("GET", "/%s?list-type=2" % BUCKET)[2].decode()
        keys = [part.split("</Key>")[0] for part in text.split("<Key>")[1:]]
        if not keys:
            return
        body = "<Delete><Quiet>true</Quiet>%s</Delete>" % "".join("<Object><Key>%s</Key></Object>" % key for key in keys)
        store.request("POST", "/%s?delete=" % BUCKET, body=body.encode())


def timed(command):
    start = time.monotonic()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    if done.returncode != 0:
        sys.exit("%s: %s" % (" ".join(command), done.stderr.decode("utf-8", "replace")))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.monotonic() - start, (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime)


def in_turns(number, *actions):
    """Runs them, every other time in reverse order; their results in the order they were given."""
    order = list(enumerate(actions))
    results = {i: action() for i, action in (order if number % 2 == 0 else order[::-1])}
    return [results[i] for i in range(len(actions))]


def transfer_tables(args, store, folder):
    if harness.missing("lz4") or not shutil.which("curl"):
        print("### Upload and restore\n\nleft out: they are compared with curl and lz4\n")
        return
    database = os.path.join(folder, "large.db")
    packed = os.path.join(folder, "large.lz4")
    make_database(database, args.large_mb)
    subprocess.run(["lz4", "-qf", "-B6", database, packed], check=True)
    upload_table(args, store, database, packed)
    os.unlink(database)
    restore_table(args, store, folder, packed)


def upload_table(args, store, database, packed):
    size = os.path.getsize(packed)
    target = "%s/%s/curl" % (store.endpoint, BUCKET)

    def ours():
        forget_replication(database)
        return host(store, database, store.url(BUCKET, "large"))

    def curl():
        return timed(["curl", "-sSfT", packed, target])

    pairs = []
    base = host(store, database, None)[1]
    for number in range(args.large_rounds):
        if number > 0:
            clear(store)
        pairs.append(in_turns(number, ours, curl))
    print("### Upload of a snapshot of %.0f MB that LZ4 cannot make smaller\n" % (size / 1e6))
    print("From the first commit of a process until the replica has everything: freeze, read, compress, hash, send. curl -T sends the")
    print("same bytes, ready made, in one request. %d interleaved pairs.\n" % args.large_rounds)
    rows = [("litejoin", spread([size / 1e6 / ours[0] for ours, _ in pairs], "%.0f"),
             spread([c[0] / o[0] for o, c in pairs]), "%.1f" % statistics.median(o[2] for o, _ in pairs),
             "%.1f" % statistics.median((o[1] - base) / 1024 for o, _ in pairs)),
            ("curl -T", spread([size / 1e6 / c[0] for _, c in pairs], "%.0f"), "",
             "%.1f" % statistics.median(c[1] for _, c in pairs), "")]
    print_table(("", "MB/s", "x curl", "CPU s", "MiB above the host"), rows)


def restore_table(args, store, folder, packed):
    out = os.path.join(folder, "out.db")
    url = store.url(BUCKET, "large/large")
    keys = store.request("GET", "/%s?list-type=2&prefix=large/large/generations/" % BUCKET)[2].decode()
    snapshot = [part.split("</Key>")[0] for part in keys.split("<Key>")[1:] if "snapshots" in part][0]
    source = "%s/%s/%s" % (store.endpoint, BUCKET, snapshot)
    os.environ.update(store.env)

    def measured(command):
        os.sync()
        taken = timed(command)
        os.unlink(out)  # last: a virtual machine that gives its memory back would have to fetch it again
        return taken

    def ours():
        return measured([harness.cli_path(), "restore", "-o", out, url])

    def pipe():
        return measured(["sh", "-c", 'curl -sSf "$1" | lz4 -dcq > "$2"', "sh", source, out])

    def safe_pipe():
        return measured(["sh", "-c", 'curl -sSf "$1" | lz4 -dcq > "$2" && sync "$2"', "sh", source, out])

    results = [in_turns(number, ours, pipe, safe_pipe) for number in range(args.large_rounds)]
    print("### Restore of it\n")
    print("litejoin-replica ends with fsync, a shell's pipe does not: the third row is the pipe with one. %d interleaved rounds.\n"
          % args.large_rounds)
    names = ("litejoin-replica restore", "curl | lz4 -d > file", "curl | lz4 -d > file && sync file")
    rows = [(name, spread([r[i][0] for r in results]), "" if i == 0 else spread(
        [r[i][0] / r[0][0] for r in results]), "%.1f" % statistics.median(r[i][1] for r in results))
        for i, name in enumerate(names)]
    print_table(("", "seconds", "we are faster by", "CPU s"), rows)


# ---- many databases ----


def many_table(args, store):
    flags = ("--databases", args.databases, "--rate", 1, "--seconds", args.many_seconds, "--poll-ms", 10)
    pairs = []
    for number in range(args.many_rounds):
        clear(store)
        url = store.url(BUCKET, "many-%d" % number)
        pairs.append(in_turns(number, lambda: lag_run(args, store, None, *flags),
                              lambda url=url: lag_run(args, store, url, *flags, sync_interval="1s")))

    def middle(form, value):
        return form % statistics.median(value(plain, ours) for plain, ours in pairs)

    print("### %d databases in one process, each written once a second for %g s\n" % (args.databases, args.many_seconds))
    print("sync_interval 1s, the default upload_workers. CPU is seconds per second. Memory is at the peak. Lag as above, asked every")
    print("10 ms; the thread that asks is not in the CPU. %d interleaved pairs with the same writes without replication.\n"
          % args.many_rounds)
    rows = [("CPU without replication", middle("%.3f", lambda plain, ours: plain["cpu_s"] / plain["seconds"])),
            ("CPU with it", middle("%.3f", lambda plain, ours: ours["cpu_s"] / ours["seconds"])),
            ("memory above it, MiB", middle("%.1f", lambda plain, ours: (ours["peak_kib"] - plain["peak_kib"]) / 1024)),
            ("threads above it", middle("%.0f", lambda plain, ours: ours["threads"] - plain["threads"])),
            ("connections to the store", middle("%.0f", lambda plain, ours: ours["connections"])),
            ("requests per second", middle("%.0f", lambda plain, ours: ours["requests"] / ours["seconds"])),
            ("lag p50, ms", middle("%.0f", lambda plain, ours: ours["lag_p50_ms"])),
            ("lag p99, ms", middle("%.0f", lambda plain, ours: ours["lag_p99_ms"])),
            ("seconds to open all in a row, and to their first snapshots", middle("%.1f", lambda plain, ours: ours["ready_s"]))]
    print_table(("", "median"), rows)
    clear(store)


def main(args):
    for what in ("shim", "cli"):
        if harness.missing(what):
            print("## Object stores\n\nleft out: %s\n" % harness.missing(what))
            return
    with fasts3.FastS3(delay_ms=args.delay_ms) as store:
        run(args, store)
