#!/usr/bin/python3
# timeout: 900
"""test_busy.py - the application gets the results that stock SQLite would give it, SQLITE_BUSY above all.

busy.c runs random schedules of eight connections without a busy timeout: transactions of every kind, readers that hold their
snapshot, checkpoints of every mode, changes of the journal and the locking mode, VACUUM, connections that close and open.
Each schedule runs with stock SQLite and through the shim, with replicas that work, fail, or take their time, and with
snapshots all the while; the result of every step must be the same.
"""

import itertools
import os
import subprocess

from shard import Shard  # noqa: F401  (finds ljtest)

from ljtest import fasts3, harness, native
from ljtest.harness import LONG, check, check_equal, test

NEEDS = ("shim",)
HERE = os.path.dirname(os.path.abspath(__file__))
OFTEN = "&sync_interval=1ms&snapshot_interval=1ms&retention=1ms&shutdown_timeout=100ms"


def schedules(t, extension, seeds, rows, autocheckpoint, options="", env=None):
    """The lines of one run of busy.c over `seeds`, a (first, count)."""
    program = native.program(os.path.join(HERE, "busy.c"), "-lsqlite3")
    t.folder("data")
    done = subprocess.run([program, extension, t.dir, str(seeds[0]), str(seeds[1]), str(rows), str(autocheckpoint), options],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=dict(os.environ, **(env or {})))
    check(done.returncode == 0, lambda: "busy: status %d, %s" % (done.returncode, done.stderr.decode()[-500:]))
    return done.stdout.decode().splitlines()


def difference(plain, ours):
    """The first line in which they differ, with what went before."""
    for number, (a, b) in enumerate(itertools.zip_longest(plain, ours)):
        if a != b:
            return "%d: stock %r, litejoin %r, after %s" % (number, a, b, plain[max(0, number - 6):number])
    return ""


def same_results(t, seeds, rows, options, env=None, autocheckpoint=12):
    """Runs both; returns how many steps there were, by result code."""
    plain = schedules(t, "-", seeds, rows, autocheckpoint)
    ours = schedules(t, harness.extension_path(), seeds, rows, autocheckpoint, options, env)
    check_equal(difference(plain, ours), "", "difference")
    codes = {}
    for line in plain:
        if ": " in line:
            code = line.rsplit(": ", 1)[1].split("=")[0]
            codes[code] = codes.get(code, 0) + 1
    check(codes.get("5", 0) > 100 and codes.get("0", 0) > 100, "these schedules test nothing: %s" % codes)
    t.note("%d schedules, steps by result code: %s" % (seeds[1], codes))


def seeds(t, few, many):
    count = many if LONG else few
    return t.seed * 100000, count


@test(*NEEDS, timeout=300)
def a_replica_that_works(t):
    same_results(t, seeds(t, 60, 5000), 30, "replica_url=file://%s" % t.path("replica") + OFTEN)


@test(*NEEDS, timeout=300)
def with_a_wal_that_is_held_off(t):
    """
    max_wal_size: the gate refuses writers' restarts, which nobody may notice. Without automatic checkpoints: these come when
    the WAL has so many frames, and it has more where it was not restarted (DESIGN.md, "What the application sees").
    """
    options = "replica_url=file://%s&max_wal_size=64KiB" % t.path("replica") + OFTEN
    same_results(t, seeds(t, 40, 2000), 30, options, autocheckpoint=0)


@test(*NEEDS, timeout=300)
def a_replica_that_fails(t):
    """What cannot be shipped goes to the spool, or not even there."""
    with open(t.path("replica"), "w") as file:
        file.write("in the way")
    for limit in ("4GiB", "100KiB"):
        same_results(t, seeds(t, 25, 1000), 30, "restore_on_boot=false&replica_url=file://%s&max_spool_size=%s" %
                     (t.path("replica"), limit) + OFTEN)


@test(*NEEDS, timeout=300)
def snapshots_that_take_long(t):
    """Too large to be copied into memory, and sent to a store that takes its time: the snapshot's read mark stays."""
    with fasts3.FastS3(delay_ms=40) as store:
        url = store.url("bucket", "busy").replace("&", "%26")
        same_results(t, seeds(t, 8, 200), 12000, "restore_on_boot=false&replica_url=" + url + OFTEN, store.env)
        check(store.stats()["requests"]["create_upload"] >= 3, "no large snapshots: %s" % store.stats())


if __name__ == "__main__":
    harness.main("busy")
