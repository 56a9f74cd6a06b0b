#!/usr/bin/python3
"""test_powercut_processes.py - the power goes while several processes use one database and replicate it together.

As test_powercut.py, but each life is of two to four processes (powercut_crowd.py): one uploads, the others stand by and take
over when it is killed, one joins late. Their changes of the disk are in one journal, in one order. What each cut leaves is opened by a
process that finds nobody: what the page of the dead ones says must never be believed where the disk says otherwise.
"""
# timeout: 1800

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from ljtest import harness  # noqa: E402
from ljtest.harness import test  # noqa: E402
from ljtest.powercuts import cuts  # noqa: E402

CROWD = {"script": "powercut_crowd.py", "mean": 3}


@test("shim", "load_extension", timeout=300, long_timeout=14400)
def the_replica_is_elsewhere(t):
    cuts(t, "processes, synchronous FULL", False, synchronous="FULL", **CROWD)
    # nothing is shipped by itself: what checkpoints of any of them destroy goes through the spool, which is never synced
    cuts(t, "processes, spool, synchronous NORMAL", False, synchronous="NORMAL", options={"sync_interval": "1h"}, **CROWD)


@test("shim", "load_extension", timeout=300, long_timeout=14400)
def the_replica_is_on_the_same_disk(t):
    cuts(t, "processes, same disk", True, synchronous="NORMAL", **CROWD)


if __name__ == "__main__":
    harness.main("power cut of processes")
