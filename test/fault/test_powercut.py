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
# timeout: 900

import json
import os
import random
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from ljtest import disk, harness, native  # noqa: E402
from ljtest.harness import LONG, check, check_equal, test  # noqa: E402

HERE = os.path.dirname(os.path.abspath(__file__))
CUTS = 300 if LONG else 24   # per life
LIVES = 8 if LONG else 1     # per test and setting
TOOLS_EVERY = 6 if LONG else 12  # Litestream takes half a second


def preload(t):
    try:
        return native.shared_library(os.path.join(HERE, "powercut.c"), "-ldl")
    except (OSError, subprocess.CalledProcessError) as error:
        raise harness.Skip("cannot build powercut.c: %s" % error)


def run(t, script, argument, env):
    """The output of a script that has to succeed."""
    err = t.path("stderr")
    with open(err, "wb") as file:
        done = subprocess.run([sys.executable, os.path.join(HERE, script), argument], stdout=subprocess.PIPE, stderr=file,
                              env=dict(os.environ, LD_PRELOAD=preload(t), **env))
    with open(err) as file:
        check_equal(done.returncode, 0, "status of %s: %s" % (script, file.read()[-2000:]))
    return done.stdout.decode()


class Known:
    """What the process knew at each mark: (begun, committed, synced, positions) from that record on."""

    def __init__(self, marks):
        self.moments = []
        self.begun = self.committed = self.synced = 0
        self.position = None
        for number, text in marks:
            words = text.split()
            if words[0] == "B":
                self.begun = max(self.begun, int(words[1]))
            elif words[0] == "C":
                self.committed = int(words[1])
            elif words[0] == "S":
                self.synced, self.position = int(words[1]), words[2]
            elif words[0] == "O":
                self.committed = int(words[1])
            elif words[0] == "X":
                self.committed = 0  # of the local file, until it is back
            self.moments.append((number, dict(begun=self.begun, committed=self.committed, synced=self.synced,
                                              positions=[self.position] if self.position else [])))

    def at(self, position):
        found = dict(begun=0, committed=0, synced=0, positions=[])
        for number, known in self.moments:
            if number < position:
                found = known
        return found


def life(t, name, seed, settings):
    """Records one life: its Disk, before the first record."""
    root = t.folder(name, "life")
    for folder in ("data", "replica"):
        t.folder(name, "life", folder)
    journal_disk = disk.Disk(root)
    journal = t.path(name, "journal")
    run(t, "powercut_life.py", json.dumps(dict(settings, root=root, seed=seed)),
        {"LJ_CUT_ROOT": root, "LJ_CUT_JOURNAL": journal})
    journal_disk.load(journal)
    return journal_disk


def moments(random_, journal_disk, count):
    """Where to cut: anywhere, and just before and behind what is rare and matters (names, lengths, syncs)."""
    rare = [number + random_.randint(0, 1) for number, record in enumerate(journal_disk.records)
            if record[0][0] not in (disk.WRITE, disk.MARK, disk.MAPPED)]
    anywhere = range(1, len(journal_disk.records) + 1)
    return sorted(random_.choice(rare) if random_.random() < 0.7 else random_.choice(anywhere) for _ in range(count))


def make_cut(folder, journal_disk, known, settings, same_disk, rng, tools):
    """One folder for powercut_open.py."""
    flavour = rng.choice(disk.FLAVOURS)
    state = journal_disk.state(flavour, rng)
    intact = state if same_disk else journal_disk.state("nothing", rng)
    for below, source in (("data/", state), ("replica/", intact)):
        os.makedirs(os.path.join(folder, below))
        disk.write(source, os.path.join(folder, below), below)
    entry = state.get("data/shard_0.db")
    cut = dict(known, flavour=flavour, seed=rng.randint(0, 1 << 30), tools=tools, exclusive=settings["exclusive"],
               synchronous=settings["synchronous"], options=settings["options"],
               fsync_before_ship=settings["options"].get("fsync_before_ship") == "on",
               identity=[entry[2], *entry[1]] if entry else None)
    with open(os.path.join(folder, "cut.json"), "w") as file:
        json.dump(cut, file)
    return flavour


def cuts(t, name, same_disk, **settings):
    """Lives with these settings, cut many times each."""
    settings = {"synchronous": "FULL", "exclusive": False, "options": {"sync_interval": "20ms"}, "steps": 50, "mean": 5,
                "losses": 0.4, **settings}
    with t.part(name):
        counts = dict(cuts=0, new=0, ahead=0)
        for number in range(LIVES):
            rng = random.Random("%s/%d/%d" % (name, t.seed, number))
            folder = "%s_%d" % (name.replace(" ", "_"), number)
            journal_disk = life(t, folder, "%d/%d" % (t.seed, number), settings)
            one_life(t, folder, journal_disk, rng, same_disk, settings, counts)
            shutil.rmtree(t.path(folder))
        t.note("%s: %d cuts, %d new generations, the replica was ahead %d times" %
               (name, counts["cuts"], counts["new"], counts["ahead"]))


def one_life(t, name, journal_disk, rng, same_disk, settings, counts):
    known = Known(journal_disk.marks())
    flavours = {}
    for number, position in enumerate(moments(rng, journal_disk, CUTS)):
        journal_disk.forward(position)
        cut = "%04d_at_%d" % (number, position)
        flavours[cut] = make_cut(t.path(name, "cuts", cut), journal_disk, known.at(position), settings, same_disk, rng,
                                 number % TOOLS_EVERY == 0)
    lines = run(t, "powercut_open.py", t.path(name, "cuts"), {"LJ_CUT_FAST": "1"}).splitlines()
    results = [json.loads(line) for line in lines]
    check_equal(len(results), CUTS, "cuts that were tried")
    wrong = [r for r in results if r["wrong"]]
    for result in wrong[:2]:
        t.note(result["trace"])
    check(not wrong, "%d of %d cuts; %s" %
          (len(wrong), CUTS, "; ".join("%s (%s): %s" % (r["cut"], flavours[r["cut"]], r["wrong"]) for r in wrong[:3])))
    counts["cuts"] += len(results)
    counts["new"] += sum(r["new"] for r in results)
    counts["ahead"] += sum((r["replica"] or 0) > (r["opened"] or 0) for r in results)


@test("shim", "load_extension", timeout=240, long_timeout=3000)
def the_replica_is_elsewhere(t):
    for synchronous in ("FULL", "NORMAL", "OFF"):
        cuts(t, "synchronous " + synchronous, False, synchronous=synchronous)
    cuts(t, "exclusive locking", False, exclusive=True, synchronous="NORMAL")


@test("shim", "load_extension", timeout=240, long_timeout=3000)
def the_replica_is_on_the_same_disk(t):
    for synchronous in ("FULL", "NORMAL"):
        cuts(t, "same disk, synchronous " + synchronous, True, synchronous=synchronous)


@test("shim", "load_extension", timeout=240, long_timeout=3000)
def frames_are_in_the_spool(t):
    """Nothing ships by itself, so what checkpoints destroy goes through the spool, which is never synced."""
    for synchronous in ("FULL", "NORMAL"):
        cuts(t, "spool, synchronous " + synchronous, False, synchronous=synchronous,
             options={"sync_interval": "1h"}, losses=0.1)


@test("shim", "load_extension", timeout=240, long_timeout=3000)
def snapshots_and_retention(t):
    """Objects are deleted on the disk that is cut: whatever of that is undone, the replica stays whole from its newest snapshot on."""
    cuts(t, "retention", True, synchronous="NORMAL", losses=0.2,
         options={"sync_interval": "5ms", "snapshot_interval": "20ms", "retention": "60ms"})


@test("shim", "load_extension", timeout=240, long_timeout=3000)
def the_disk_is_never_behind_with_fsync_before_ship(t):
    cuts(t, "fsync_before_ship", False, synchronous="NORMAL",
         options={"sync_interval": "1ms", "fsync_before_ship": "on"})


if __name__ == "__main__":
    harness.main("power cut")
