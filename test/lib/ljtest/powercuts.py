"""powercuts.py - lives below fault/powercut.c, the power cuts in them, and what comes of each (fault/powercut_open.py).

Used by the scripts fault/test_powercut*.py; those say what lives there are.
"""

import json
import os
import random
import shutil
import subprocess
import sys

from . import disk, harness, native, pages
from .harness import LONG, check, check_equal

_FAULT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "fault")
_SOURCES = [os.path.join(_FAULT, name) for name in ("powercut.c", "powercut_journal.c", "powercut_identity.c")]
CUTS = 300 if LONG else 24   # per life
LIVES = 8 if LONG else 1     # per test and setting


def preload():
    try:
        return native.shared_library(_SOURCES, "-ldl")
    except (OSError, subprocess.CalledProcessError) as error:
        raise harness.Skip("cannot build powercut.c: %s" % error)


def run(t, script, argument, env):
    """The output of a script that has to succeed."""
    err = t.path("stderr")
    with open(err, "wb") as file:
        done = subprocess.run([sys.executable, os.path.join(_FAULT, script), argument], stdout=subprocess.PIPE, stderr=file,
                              env=dict(os.environ, LD_PRELOAD=preload(), **env))
    with open(err) as file:
        check_equal(done.returncode, 0, "status of %s: %s" % (script, file.read()[-2000:]))
    return done.stdout.decode()


class Known:
    """What the processes knew at each mark: (begun, committed, synced, positions) from that record on."""

    def __init__(self, marks):
        self.moments = []
        begun = committed = synced = 0
        positions = {}  # by process, the last one
        for number, text in marks:
            words = text.split()
            if words[0] == "B":
                begun = max(begun, int(words[1]))
            elif words[0] in ("C", "O"):
                # several processes: one that COMMIT has returned to may come to its mark behind the next one
                committed = max(committed, int(words[1]))
            elif words[0] == "S":
                synced = max(synced, int(words[1]))
                positions[words[3]] = words[2]
            elif words[0] == "X":
                committed = 0  # of the local file, until it is back
            self.moments.append((number, dict(begun=begun, committed=committed, synced=synced,
                                              positions=list(positions.values()))))

    def at(self, position):
        found = dict(begun=0, committed=0, synced=0, positions=[])
        for number, known in self.moments:
            if number < position:
                found = known
        return found


def life(t, name, seed, settings, script):
    """Records one life: its Disk, before the first record."""
    root = t.folder(name, "life")
    for folder in ("data", "replica"):
        t.folder(name, "life", folder)
    journal_disk = disk.Disk(root)
    journal = t.path(name, "journal")
    run(t, script, json.dumps(dict(settings, root=root, seed=seed, aside=t.path(name, "aside"))),
        {"LJ_CUT_ROOT": root, "LJ_CUT_JOURNAL": journal})
    journal_disk.load(journal)
    return journal_disk


def moments(random_, journal_disk, count, behind_restores=False):
    """
    Where to cut: anywhere, and just before and behind what is rare and matters (names, lengths, syncs); or only where a
    restored database has just got its name, and an old WAL has lost its own.
    """
    if behind_restores:
        records = journal_disk.records
        named = [number + 1 for number, record in enumerate(records)
                 if record[0][0] == disk.RENAME and record[2] == "shard_0.db" and
                 any(r[0][0] == disk.UNLINK and r[1] == "shard_0.db-wal" for r in records[max(0, number - 4):number])]
        return sorted(random_.choice(named) for _ in range(count)) if named else []
    rare = [number + random_.randint(0, 1) for number, record in enumerate(journal_disk.records)
            if record[0][0] not in (disk.WRITE, disk.MARK, disk.MAPPED)]
    anywhere = range(1, len(journal_disk.records) + 1)
    return sorted(random_.choice(rare) if random_.random() < 0.7 else random_.choice(anywhere) for _ in range(count))


def make_cut(folder, journal_disk, known, settings, same_disk, rng):
    """One folder for powercut_open.py."""
    flavour = rng.choice(disk.FLAVOURS)
    state = journal_disk.state(flavour, rng)
    intact = state if same_disk else journal_disk.state("nothing", rng)
    for below, source in (("data/", state), ("replica/", intact)):
        os.makedirs(os.path.join(folder, below))
        disk.write(source, os.path.join(folder, below), below)
    entry = state.get("data/shard_0.db")
    cut = dict(known, flavour=flavour, seed=rng.randint(0, 1 << 30), exclusive=settings["exclusive"],
               synchronous=settings["synchronous"], options=settings["options"],
               fsync_before_ship=settings["options"].get("fsync_before_ship") == "on",
               identity=[entry[2], *entry[1]] if entry else None)
    with open(os.path.join(folder, "cut.json"), "w") as file:
        json.dump(cut, file)
    return flavour


def check_complete(journal_disk, root):
    """The journal, played to its end, is what lies there: no change of any process was missed, nor written down in another order."""
    journal_disk.forward(len(journal_disk.records))
    found = {}
    for folder, _, names in os.walk(root):
        for name in names:
            path = os.path.join(folder, name)
            if os.path.isfile(path) and not name.endswith("-shm"):
                found[os.path.relpath(path, root)] = pages.read(path)
    played = {path: content for path, (content, _, _) in journal_disk.state("nothing", random).items() if content is not None}
    check_equal(sorted(played), sorted(found), "files at the end of the journal")
    for path, content in found.items():
        # the page is written without a call: what came behind the last one of all is in no record
        if os.path.basename(path) != "shared":
            check(played[path] == content, "%s is not what the journal says" % path)


def cuts(t, name, same_disk, behind_restores=False, script="powercut_life.py", **settings):
    """Lives with these settings, cut many times each."""
    settings = {"synchronous": "FULL", "exclusive": False, "options": {"sync_interval": "20ms"}, "steps": 50, "mean": 5,
                "losses": 0.4, **settings}
    with t.part(name):
        counts = dict(cuts=0, new=0, ahead=0)
        for number in range(LIVES):
            rng = random.Random("%s/%d/%d" % (name, t.seed, number))
            folder = "%s_%d" % (name.replace(" ", "_"), number)
            journal_disk = life(t, folder, "%d/%d" % (t.seed, number), settings, script)
            one_life(t, folder, journal_disk, moments(rng, journal_disk, CUTS, behind_restores), rng, same_disk, settings,
                     counts)
            shutil.rmtree(t.path(folder))
        t.note("%s: %d cuts, %d new generations, the replica was ahead %d times" %
               (name, counts["cuts"], counts["new"], counts["ahead"]))


def one_life(t, name, journal_disk, where, rng, same_disk, settings, counts):
    known = Known(journal_disk.marks())
    flavours = {}
    for number, position in enumerate(where):
        journal_disk.forward(position)
        cut = "%04d_at_%d" % (number, position)
        flavours[cut] = make_cut(t.path(name, "cuts", cut), journal_disk, known.at(position), settings, same_disk, rng)
    check_complete(journal_disk, t.path(name, "life"))
    lines = run(t, "powercut_open.py", t.path(name, "cuts"), {"LJ_CUT_FAST": "1"}).splitlines()
    results = [json.loads(line) for line in lines]
    check_equal(len(results), len(where), "cuts that were tried")
    wrong = [r for r in results if r["wrong"]]
    for result in wrong[:2]:
        t.note(result["trace"])
    check(not wrong, "%d of %d cuts; %s" %
          (len(wrong), len(where), "; ".join("%s (%s): %s" % (r["cut"], flavours[r["cut"]], r["wrong"]) for r in wrong[:3])))
    counts["cuts"] += len(results)
    counts["new"] += sum(r["new"] for r in results)
    counts["ahead"] += sum((r["replica"] or 0) > (r["opened"] or 0) for r in results)
