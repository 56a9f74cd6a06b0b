#!/usr/bin/python3
"""bench.py - what replication costs: commit latency, throughput, memory and CPU, and how long a restore takes.

Every measurement is a pair: plain SQLite and the candidate on the same workload, right after each other, in turns of
order; the table shows the medians of the candidates' values and the median of the pairs' ratios. "plain again" is a
pair of two equal runs: the noise of the machine. Started by `run`, which builds the load generator (load.c).
"""

import argparse
import json
import os
import shutil
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from ljtest import cli, harness, pages  # noqa: E402
from ljtest.replica import Replica  # noqa: E402

import disturb  # noqa: E402
import objects  # noqa: E402


def load(args, *flags):
    """Runs the load generator; returns what it printed."""
    done = subprocess.run([args.load, *map(str, flags)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if done.returncode:
        sys.exit("load generator: " + done.stderr.decode())
    return json.loads(done.stdout) if done.stdout.strip() else {}


def process_figures(pid):
    """(resident KiB at most, CPU seconds) of a running process."""
    with open("/proc/%d/status" % pid) as file:
        peak = [int(line.split()[1]) for line in file if line.startswith("VmHWM")][0]
    with open("/proc/%d/stat" % pid) as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return peak, (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Variant:
    """One way to run the workload. run() returns the load generator's figures, with memory and CPU of any helper added."""

    def __init__(self, args, name):
        self.args = args
        self.name = name

    def run(self, folder, flags):
        uri = "file:%s/shard_0.db?vfs=unix" % folder
        return load(self.args, "--uri", uri, *flags)


class Shim(Variant):
    def run(self, folder, flags):
        uri = "file:%s/shard_0.db?vfs=litejoin&replica_url=file://%s/replica&sync_interval=%s" % (
            folder, folder, self.args.sync_interval)
        return load(self.args, "--ext", harness.extension_path(), "--uri", uri, *flags)


class Sidecar(Variant):
    """Plain SQLite with `litestream replicate` beside it, on its default settings."""

    def start(self, folder):
        log = open(os.path.join(folder, "litestream.log"), "wb")
        process = subprocess.Popen(
            [harness.litestream_path(), "replicate", os.path.join(folder, "shard_0.db"),
             "file://%s/replica/shard_0" % folder], stdout=log, stderr=log)
        log.close()
        return process

    def run(self, folder, flags):
        uri = "file:%s/shard_0.db?vfs=unix" % folder
        load(self.args, "--uri", uri, "--seconds", "0.05")  # Litestream wants a database to begin with
        process = self.start(folder)
        end = time.monotonic() + 10
        while not Replica(folder + "/replica/shard_0").generations() and time.monotonic() < end:
            time.sleep(0.05)
        time.sleep(0.5)
        _, before = process_figures(process.pid)
        figures = super().run(folder, flags)
        peak, after = process_figures(process.pid)
        process.send_signal(signal.SIGTERM)
        process.wait()
        figures["peak_kib"] += peak
        figures["cpu_s"] += after - before
        return figures


def variants(args):
    found = [Variant(args, "plain again")]
    if harness.extension_path():
        found.append(Shim(args, "litejoin"))
    if not harness.missing("litestream"):
        found.append(Sidecar(args, "litestream 0.3.13"))
    return found


def one_run(args, variant, flags):
    folder = tempfile.mkdtemp(prefix="ljbench", dir=args.dir)
    try:
        return variant.run(folder, flags)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def commit_table(args):
    plain = Variant(args, "plain")
    print("## Commits\n")
    print("One-row transactions of about 500 bytes with one index, WAL, autocheckpoint 1000; %d rounds of pairs, %g s per run."
          % (args.rounds, args.seconds))
    print("Latency in us; `x` is the median of the ratios to the plain run of the same pair. Memory is the process (with")
    print("the sidecar's added) at its peak, above plain; CPU is per commit.\n")
    for synchronous in args.synchronous.split(","):
        for rate in (0, args.rate):
            title = "synchronous=%s, %s" % (synchronous, "flat out" if not rate else "%d tx/s" % rate)
            flags = ("--mode", "insert", "--synchronous", synchronous, "--seconds", args.seconds, "--rate", rate)
            print("### " + title + "\n")
            header = ("", "commits/s", "x", "p50", "x", "p99", "x", "p99.9", "max", "MiB above", "CPU us/commit")
            rows = []
            bases = []
            for variant in variants(args):
                pairs = []
                for number in range(args.rounds):
                    order = (plain, variant) if number % 2 == 0 else (variant, plain)
                    results = {id(v): one_run(args, v, flags) for v in order}
                    pairs.append((results[id(plain)], results[id(variant)]))
                bases += [base for base, _ in pairs]
                rows.append(table_row(variant.name, pairs))
            first = table_row("plain", [(base, base) for base in bases])
            if rate and statistics.median(b["per_second"] for b in bases) < rate * 0.98:
                print("(plain SQLite does not reach %d tx/s on this disk)\n" % rate)
            print_table(header, [first] + rows)


def table_row(name, pairs):
    def middle(key):
        return statistics.median(run[key] for _, run in pairs)

    def ratio(key):
        return "%.3f" % statistics.median(run[key] / base[key] for base, run in pairs if base[key])

    above = statistics.median(run["peak_kib"] - base["peak_kib"] for base, run in pairs) / 1024
    cpu = statistics.median(run["cpu_s"] / run["commits"] * 1e6 for _, run in pairs)
    return (name, "%.0f" % middle("per_second"), ratio("per_second"), "%.1f" % middle("p50_us"), ratio("p50_us"),
            "%.1f" % middle("p99_us"), ratio("p99_us"), "%.0f" % middle("p999_us"), "%.0f" % middle("max_us"),
            "%.1f" % above, "%.1f" % cpu)


def print_table(header, rows):
    widths = [max(len(row[i]) for row in [header] + rows) for i in range(len(header))]
    for number, row in enumerate([header] + rows):
        print("| " + " | ".join(cell.ljust(width) if i == 0 else cell.rjust(width)
                                for i, (cell, width) in enumerate(zip(row, widths))) + " |")
        if number == 0:
            print("|" + "|".join("-" * (width + 2) for width in widths) + "|")
    print(flush=True)


# ---------------------------------------------------------------------------------------------------------------------


def make_replica(args, folder):
    """A database of --db-mb and two thirds of that in WAL behind its snapshot; returns the replica's root and its maker."""
    database = os.path.join(folder, "shard_0.db")
    root = os.path.join(folder, "replica", "shard_0")
    plain_uri = "file:%s?vfs=unix" % database
    load(args, "--mode", "fill", "--uri", plain_uri, "--mb", args.db_mb, "--synchronous", "OFF")
    update = ("--mode", "update", "--mb", args.db_mb * 2 / 3, "--synchronous", "OFF")
    if harness.extension_path():
        uri = "file:%s?vfs=litejoin&replica_url=file://%s/replica" % (database, folder)
        load(args, "--ext", harness.extension_path(), "--uri", uri, "--mode", "update", "--mb", 0.01, "--sync-at-end")
        load(args, "--ext", harness.extension_path(), "--uri", uri, *update, "--sync-at-end")
        return root, "litejoin"
    if not harness.missing("litestream"):
        process = Sidecar(args, "").start(folder)
        while not Replica(root).generations():
            time.sleep(0.1)
        time.sleep(3)
        load(args, "--uri", plain_uri, *update)
        time.sleep(3)
        process.send_signal(signal.SIGTERM)
        process.wait()
        return root, "litestream 0.3.13"
    return None, ""


def restore_table(args):
    folder = tempfile.mkdtemp(prefix="ljbench", dir=args.dir)
    try:
        root, maker = make_replica(args, folder)
        if not root:
            print("## Restore\n\nleft out: neither the extension nor Litestream is there to make a replica")
            return
        generation = Replica(root).newest()
        snapshot = generation.snapshots[0]
        wal_bytes = sum(s.size for s in generation.segments)
        print("## Restore\n")
        print("Replica written by %s: snapshot %.0f MB (%.0f MB compressed), %d segments in %d WAL indexes (%.0f MB compressed)."
              % (maker, os.path.getsize(os.path.join(folder, "shard_0.db")) / 1e6, snapshot.size / 1e6,
                 len(generation.segments), len(generation.indexes()), wal_bytes / 1e6))
        print("Seconds, median of %d interleaved rounds; the page cache is warm; lz4 -d of the snapshot alone is the floor.\n"
              % args.rounds)
        candidates = []
        if not harness.missing("cli"):
            candidates.append(("litejoin-replica", lambda out: cli.ours().restore(root, out, timeout=600)))
        if not harness.missing("litestream"):
            candidates.append(("litestream 0.3.13", lambda out: cli.litestream().restore(root, out, timeout=600)))
        if not harness.missing("lz4"):
            candidates.append(("lz4 -d", lambda out: subprocess.run(["lz4", "-dqf", snapshot.path, out], check=True)))
        taken = {name: [] for name, _ in candidates}
        images = {}
        for number in range(args.rounds):
            for name, restore in candidates if number % 2 == 0 else candidates[::-1]:
                out = os.path.join(folder, "out.db")
                os.sync()
                start = time.monotonic()
                restore(out)
                taken[name].append(time.monotonic() - start)
                if number == 0 and name != "lz4 -d":
                    images[name] = out + "." + name.split()[0]
                    os.rename(out, images[name])
                else:
                    os.unlink(out)
        if len(images) == 2:
            first, second = images.values()
            same = pages.differences(pages.read(first), pages.read(second))
            print("(both restores gave %s)\n" % ("the same bytes" if not same else "DIFFERENT bytes: " + same))
        base = statistics.median(taken["litestream 0.3.13"]) if "litestream 0.3.13" in taken else 0
        rows = []
        for name, seconds in taken.items():
            middle = statistics.median(seconds)
            rows.append((name, "%.2f" % middle, "%.2f" % min(seconds), "%.2f" % max(seconds),
                         "%.1fx" % (base / middle) if base else ""))
        print_table(("", "median", "least", "most", "faster than litestream"), rows)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def machine(args):
    kernel = os.uname()
    filesystem = subprocess.run(["stat", "-f", "-c", "%T", args.dir], stdout=subprocess.PIPE).stdout.decode().strip()
    with open("/proc/cpuinfo") as file:
        models = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    print("# Benchmark\n")
    print("%d cores (%s), %s %s, file system %s, SQLite %s, load before: %.2f\n" %
          (os.cpu_count(), models[0] if models else kernel.machine, kernel.sysname, kernel.release, filesystem,
           sqlite3.sqlite_version, os.getloadavg()[0]))
    for what, why in (("litejoin", harness.missing("shim")), ("litejoin-replica", harness.missing("cli")),
                      ("litestream", harness.missing("litestream"))):
        if why:
            print("left out: %s: %s\n" % (what, why))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--load", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--quick", action="store_true", help="one short round, a small database: does it run at all")
    parser.add_argument("--rounds", type=int, default=5, help="pairs per row (default 5)")
    parser.add_argument("--seconds", type=float, default=6, help="length of one run (default 6)")
    parser.add_argument("--db-mb", type=float, default=334, help="database of the restore, with 2/3 of it as WAL (334)")
    parser.add_argument("--rate", type=int, default=1000, help="commits per second of the paced runs (default 1000)")
    parser.add_argument("--synchronous", default="NORMAL,FULL")
    parser.add_argument("--sync-interval", default="1s")
    parser.add_argument("--dir", default=tempfile.gettempdir(), help="where the databases are (a real disk)")
    parser.add_argument("--only", choices=("commits", "restore", "s3", "snapshot"),
                        help="s3: object stores, snapshot: commits while one is taken; only when asked for")
    parser.add_argument("--lag", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--delay-ms", type=int, default=20, help="s3: added to every request (default 20)")
    parser.add_argument("--large-mb", type=int, default=1000, help="s3: the large database (default 1000)")
    parser.add_argument("--large-rounds", type=int, default=5, help="s3: pairs with the large database (default 5)")
    parser.add_argument("--snapshot-rate", type=int, default=500, help="snapshot: commits per second (default 500)")
    parser.add_argument("--snapshot-seconds", type=float, default=20, help="snapshot: length of one run (default 20)")
    parser.add_argument("--databases", type=int, default=500, help="s3: databases in one process (default 500)")
    parser.add_argument("--many-seconds", type=float, default=30, help="s3: how long they are written (default 30)")
    parser.add_argument("--many-rounds", type=int, default=2, help="s3: pairs with them (default 2)")
    args = parser.parse_args()
    if args.quick:
        args.rounds, args.seconds, args.db_mb = 1, 1.0, 24
        args.snapshot_seconds = 4
        args.large_mb, args.large_rounds, args.databases, args.many_seconds, args.many_rounds = 64, 1, 50, 3, 1
    machine(args)
    if args.only == "snapshot":
        disturb.main(args, print_table)
        return
    if args.only == "s3":
        objects.main(args)
        return
    if args.only != "restore":
        commit_table(args)
    if args.only != "commits":
        restore_table(args)


if __name__ == "__main__":
    main()
