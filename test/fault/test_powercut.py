#!/usr/bin/python3
"""test_powercut.py - the power goes, again and again: what was not synced is lost, torn, or there by luck.

A process lives through commits, checkpoints, snapshots, closes and lost disks below powercut.c, which writes every change down. For
many moments of that life disk.py then draws a folder that a power cut may have left: database, WAL, our own position file,
shared page and spool, and the replica - on another machine, or on the same disk and cut too. In each of them
powercut_open.py opens the database, goes on, ships, and holds the result against what the dead process knew:

    the database is a committed prefix, with everything acknowledged (synchronous=FULL)
    the replica restores to a committed prefix with everything that litejoin_sync acknowledged, by all restorers
    no object is changed; where the replica was ahead a new generation began; none has a tail that never was
"""
# timeout: 3600

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from ljtest import harness  # noqa: E402
from ljtest.harness import test  # noqa: E402
from ljtest.powercuts import cuts  # noqa: E402


@test("shim", "load_extension", timeout=500, long_timeout=14400)
def the_replica_is_elsewhere(t):
    for synchronous in ("FULL", "NORMAL", "OFF"):
        cuts(t, "synchronous " + synchronous, False, synchronous=synchronous)
    cuts(t, "exclusive locking", False, exclusive=True, synchronous="NORMAL")


@test("shim", "load_extension", timeout=500, long_timeout=14400)
def a_restored_database_and_the_wal_of_the_lost_one(t):
    """Whatever comes first on the disk: the restored database never has the old WAL beside it."""
    for number in range(3):
        cuts(t, "restored %d" % number, False, behind_restores=True, steps=16, losses=12)


@test("shim", "load_extension", timeout=500, long_timeout=14400)
def the_replica_is_on_the_same_disk(t):
    for synchronous in ("FULL", "NORMAL"):
        cuts(t, "same disk, synchronous " + synchronous, True, synchronous=synchronous)


@test("shim", "load_extension", timeout=500, long_timeout=14400)
def frames_are_in_the_spool(t):
    """Nothing ships by itself, so what checkpoints destroy goes through the spool, which is never synced."""
    for synchronous in ("FULL", "NORMAL"):
        cuts(t, "spool, synchronous " + synchronous, False, synchronous=synchronous,
             options={"sync_interval": "1h"}, losses=0.1)


@test("shim", "load_extension", timeout=500, long_timeout=14400)
def snapshots_and_retention(t):
    """Objects are deleted on the disk that is cut: whatever of that is undone, the replica stays whole from its newest snapshot on."""
    cuts(t, "retention", True, synchronous="NORMAL", losses=0.2,
         options={"sync_interval": "5ms", "snapshot_interval": "20ms", "retention": "60ms"})


@test("shim", "load_extension", timeout=500, long_timeout=14400)
def the_disk_is_never_behind_with_fsync_before_ship(t):
    cuts(t, "fsync_before_ship", False, synchronous="NORMAL",
         options={"sync_interval": "1ms", "fsync_before_ship": "on"})


if __name__ == "__main__":
    harness.main("power cut")
