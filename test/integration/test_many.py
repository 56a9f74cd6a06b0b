#!/usr/bin/python3
"""test_many.py - many databases in one process: what each costs while it is at rest, and that none waits for the others.

many.c opens them in parallel, writes each, is idle, writes again, closes. The figures are differences to the same program
with stock SQLite. With LJ_LONG=1 there are ten thousand, or as many as the limit of open files allows; and ten thousand that are
opened and closed in turn, which no limit stands against.
"""

import json
import os
import resource
import subprocess

from shard import Shard  # noqa: F401  (finds ljtest)

from ljtest import fasts3, harness, native, pages, shim
from ljtest.harness import LONG, check, check_equal, test
from ljtest.replica import Replica

NEEDS = ("shim",)
HERE = os.path.dirname(os.path.abspath(__file__))
FILES_OF_ITS_OWN = 3  # database, -wal and -shm
FILES_ADDED = 3  # the lock, the bell, and the descriptor that SQLite keeps of a closed connection while another has locks
THREADS_MOST = 1 + 16 + 8 + 1  # the host's, both crews of workers, the one that hears bells


def many(t, extension, count, threads, idle, options="", env=None, first=None):
    """The figures of one run, per phase."""
    program = native.program(os.path.join(HERE, "many.c"), "-lsqlite3", "-pthread")
    t.folder("data")
    done = subprocess.run([program, extension, t.dir, str(count), str(threads), str(idle), options,
                           *([] if first is None else [str(first)])],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=dict(os.environ, **(env or {})))
    check(done.returncode == 0, lambda: "many: status %d, %s" % (done.returncode, done.stderr.decode()[-500:]))
    return json.loads(done.stdout.decode())


def affordable(wanted):
    """As many databases as the hard limit of open files allows."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return wanted if limit == resource.RLIM_INFINITY else min(wanted, (limit - 300) // 6)


def state_folder_bytes(path):
    """What one database's folder takes on disk."""
    total = os.stat(path).st_blocks
    for folder, folders, files in os.walk(path):
        total += sum(os.lstat(os.path.join(folder, name)).st_blocks for name in folders + files)
    return total * 512


def check_sample(t, sample, rows):
    for number in sample:
        name = "d%05d" % number
        replica = Replica(t.path("replica", name))
        replica.check()
        replica.restore(t.path("restored.db"))
        pages.check_same(t.path("restored.db"), t.path("data", name + ".db"), name)
        con = shim.plain(t.path("restored.db"))
        check_equal(con.execute("SELECT count(*) FROM t").fetchone()[0], rows, "rows of " + name)
        con.close()
        os.unlink(t.path("restored.db"))


@test(*NEEDS, timeout=300, long_timeout=3600)
def at_rest_a_database_costs_little(t):
    count = affordable(10000 if LONG else 400)
    idle = 60 if LONG else 4
    plain = many(t, "-", count, 8, 0.1)
    subprocess.run(["rm", "-r", t.path("data")], check=True)
    t.folder("data")
    ours = many(t, harness.extension_path(), count, 8, idle, "replica_url=file://" + t.path("replica"))
    rest, base = ours["idle"], plain["idle"]
    rss = (rest["rss_kib"] - base["rss_kib"]) / count
    files = (rest["files"] - base["files"]) / count
    t.note("%d databases: %.1f KiB, %.2f descriptors each, %d threads, idle CPU %.3f s in %d s" %
           (count, rss, files, rest["threads"], rest["cpu"], idle))
    t.note("open %.1f s (stock %.1f), close %.1f s (stock %.1f); a commit takes %.0f us p50, %.0f us p99 (stock %.0f, %.0f)" %
           (ours["open"]["seconds"], plain["open"]["seconds"], ours["close"]["seconds"], plain["close"]["seconds"],
            ours["p50_us"], ours["p99_us"], plain["p50_us"], plain["p99_us"]))
    check(rss <= 64, "%.1f KiB of memory per database at rest" % rss)
    check(files <= FILES_ADDED + 0.1, "%.2f descriptors per database at rest" % files)
    check(rest["threads"] <= THREADS_MOST, "%d threads" % rest["threads"])
    check(rest["cpu"] < 0.02 * idle + 0.05, "%.2f s of CPU in %d idle seconds" % (rest["cpu"], idle))
    # the log, and what the thread that hears bells sleeps on
    check(ours["close"]["files"] <= plain["close"]["files"] + 3, "open files when all are closed: %s" % ours)
    check(ours["again"]["files"] - base["files"] <= (FILES_ADDED + 0.1) * count + 40, "files while they are written")
    sample = t.random.sample(range(count), 5)
    check_sample(t, sample, 2)
    bytes_each = max(state_folder_bytes(t.path("data", ".d%05d.db-litejoin" % number)) for number in sample)
    t.note("%d bytes of disk in the state folder" % bytes_each)
    check(bytes_each <= 32 * 1024, "%d bytes in the state folder" % bytes_each)


@test(*NEEDS, timeout=300, long_timeout=3600)
def nothing_stays_of_those_that_were_closed(t):
    """Databases that come and go, eight at a time: memory and descriptors stay those of the first few, threads within their limit."""
    count, first = (10000, 500) if LONG else (500, 100)
    ours = many(t, harness.extension_path(), count, 8, 0, "replica_url=file://" + t.path("replica"), first=first)
    before, after = ours["first"], ours["rest"]
    grown = after["rss_kib"] - before["rss_kib"]
    t.note("%d databases in turn in %.0f s: %d KiB of memory after %d, %d more after all" %
           (count, before["seconds"] + after["seconds"], before["rss_kib"], first, grown))
    check(grown < 4096, "%d KiB more memory after %d databases than after %d" % (grown, count, first))
    check(after["files"] <= before["files"] + 3, "%d descriptors, %d before" % (after["files"], before["files"]))
    check(after["threads"] <= THREADS_MOST, "%d threads" % after["threads"])  # workers are started as they are needed
    check_sample(t, t.random.sample(range(count), 5), 1)


@test(*NEEDS, timeout=120)
def opens_do_not_wait_for_one_another(t):
    """Each open of a file that is not there asks the store first. Forty at a time take hardly longer than one."""
    with fasts3.FastS3(delay_ms=500) as store:
        url = store.url("bucket", "many").replace("&", "%26")
        ours = many(t, harness.extension_path(), 80, 40, 0.1, "shutdown_timeout=50ms&replica_url=" + url, store.env)
        t.note("80 opens in 40 threads: %.1f s" % ours["open"]["seconds"])
        check(ours["open"]["seconds"] < 20, "80 opens took %.1f s, one after the other they take 40 s" %
              ours["open"]["seconds"])


if __name__ == "__main__":
    harness.main("many")
