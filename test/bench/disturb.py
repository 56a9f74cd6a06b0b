"""disturb.py - what a snapshot of a large database does to the commits that are made meanwhile (bench.py --only snapshot).

Pairs of runs on copies of one database of --large-mb, in turns of order: stock SQLite, and litejoin with one snapshot after the
other going on. Commits come at a fixed rate, so that a stalled one is not hidden by those that it holds up. The store is the
fast S3 server of this folder, which throws the objects away, or a folder on the same disk.
"""

import json
import os
import shutil
import statistics
import subprocess
import tempfile

from ljtest import fasts3, harness

DELAY_MS = 5


def run(args, name, uri, env, *flags):
    command = [args.load, "--uri", uri, "--seconds", str(args.snapshot_seconds), "--rate", str(args.snapshot_rate), *flags]
    done = subprocess.run(command, stdout=subprocess.PIPE, env=dict(os.environ, **env), check=True)
    figures = json.loads(done.stdout)
    figures["name"] = name
    return figures


def pair(args, folder, url, env, number):
    """(plain, litejoin): each on its own copy, which only grows."""
    plain = "file:%s/plain.db?vfs=unix" % folder
    ours = "file:%s/ours.db?vfs=litejoin&shutdown_timeout=1s&replica_url=%s" % (folder, url)
    results = {}
    for name in ("plain", "ours") if number % 2 == 0 else ("ours", "plain"):
        os.sync()
        if name == "plain":
            results[name] = run(args, name, plain, {})
        else:
            results[name] = run(args, name, ours, env, "--ext", harness.extension_path(), "--snapshots")
    return results["plain"], results["ours"]


def make_databases(args, folder):
    base = os.path.join(folder, "plain.db")
    subprocess.run([args.load, "--mode", "fill", "--uri", "file:%s?vfs=unix" % base, "--mb", str(args.large_mb),
                    "--synchronous", "OFF"], check=True)
    shutil.copyfile(base, os.path.join(folder, "ours.db"))


def table(args, folder, url, env, title, print_table):
    rows = []
    pairs = [pair(args, folder, url, env, number) for number in range(args.rounds)]
    for key, name in (("p50_us", "p50"), ("p99_us", "p99"), ("p999_us", "p99.9"), ("max_us", "most")):
        plain = [a[key] for a, _ in pairs]
        ours = [b[key] for _, b in pairs]
        ratios = sorted(b / a for a, b in zip(plain, ours))
        rows.append((name, "%.0f" % statistics.median(plain), "%.0f" % statistics.median(ours),
                     "%.2f" % statistics.median(ratios), "%.2f to %.2f" % (ratios[0], ratios[-1])))
    print("### %s\n" % title)
    print("snapshots that ended in a run: %s\n" % ", ".join(str(b["snapshots"]) for _, b in pairs))
    print_table(("us", "plain", "litejoin", "ratio", "ratios"), rows)


def main(args, print_table):
    if not harness.extension_path():
        print("## During a snapshot\n\nleft out: no extension in LJ_BUILD")
        return
    print("## Commits during a snapshot of %d MB\n" % args.large_mb)
    print("%d commits per second, synchronous=NORMAL; %d interleaved pairs of %g s.\n" %
          (args.snapshot_rate, args.rounds, args.snapshot_seconds))
    folder = tempfile.mkdtemp(prefix="ljbench", dir=args.dir)
    try:
        make_databases(args, folder)
        with fasts3.FastS3(delay_ms=DELAY_MS, discard="ours/", aside=True) as store:
            url = store.url("bucket", "").replace("/?", "?").replace("&", "%26")
            table(args, folder, url, store.env, "to an object store on loopback, %d ms per request" % DELAY_MS, print_table)
        shutil.rmtree(os.path.join(folder, ".ours.db-litejoin"), ignore_errors=True)
        table(args, folder, "file://%s/replica" % folder, {}, "to a folder on the same disk", print_table)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
