#!/usr/bin/python3
"""test_kill_table.py - kill -9 at every step that DESIGN.md's table "a kill at each step" names.

ROUNDS has the rounds of each row, by the row's own words: a row without a round fails, and so does a round whose process
did not die where it should. After each kill the replica restores to a committed prefix with everything acknowledged, and the next
open loses nothing and begins a new generation only where the table says so.
"""

import dataclasses
import os
import re
import shutil
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from ljtest import chain, cli, harness, pages  # noqa: E402
from ljtest.harness import LONG, Failure, check, check_equal, test  # noqa: E402
from ljtest.lives import Life, killat, next_open  # noqa: E402
from ljtest.replica import Replica  # noqa: E402

HERE = os.path.dirname(os.path.abspath(__file__))
DESIGN = os.path.join(HERE, "..", "..", "vfs", "DESIGN.md")
STATE = "*/.shard_0.db-litejoin"


@dataclasses.dataclass
class Round:
    """
    One kill. `script` runs on a database that was replicated and closed (or is new, or lost, see `begin`), until the call that
    `match` names: before it, or `behind` it; the `at`-th one behind a call that matches `arm` ("-": behind the word arm).
    Without `match` the process dies at the end of its script.
    """

    script: str
    match: str = ""
    behind: bool = False
    at: int = 1
    arm: str = ""
    begin: str = "closed"   # new, lost, left
    generations: int = 1    # at most, after the next open
    limit: str = "0"        # max_wal_size
    exclusive: int = 0


SEGMENT_TEMP = "*/wal/.*.wal.lz4.*.tmp"
SNAPSHOT_TEMP = "*/snapshots/.*.snapshot.lz4.*.tmp"
SPOOLS = "commit commit arm RESTART commit"
SPOOLED = "commit commit RESTART commit TRUNCATE commit RESTART commit"
ROLLS_OVER = "commit sync snapshot commit arm snapshot"
RESTARTS = "commit sync PASSIVE arm commit commit"

ROUNDS = {
    "during a PUT": [
        Round("commit sync", "write " + SEGMENT_TEMP),
        Round("commit sync", "fsync " + SEGMENT_TEMP),
        Round("commit sync", "rename */wal/*.wal.lz4"),
    ],
    "behind the PUT, before the position file": [
        Round("commit sync", "rename */wal/*.wal.lz4", behind=True),
        Round("commit sync", "fsync */wal", behind=True),
        Round("commit sync", "fsync %s/position.tmp" % STATE, behind=True, arm="fsync */wal"),
    ],
    "behind the position file, before `lj_db_shipped`": [
        Round("commit sync", "rename %s/position" % STATE, behind=True, arm="fsync */wal"),
        Round("commit sync", "fsync " + STATE, behind=True, arm="fsync */wal"),
    ],
    "during the copy into the spool": [
        Round(SPOOLS, "pwrite %s/spool/*.tmp" % STATE, arm="-"),
        Round("commit sync commit arm RESTART", "pwrite %s/spool/*.tmp" % STATE, at=2, arm="-"),
        Round(SPOOLS, "rename %s/spool/*.wal" % STATE, arm="-"),
    ],
    "behind the spool file, before the seal or the restart": [
        Round(SPOOLS, "rename %s/spool/*.wal" % STATE, behind=True, arm="-"),
        Round(SPOOLS.replace("RESTART", "TRUNCATE"), "ftruncate */shard_0.db-wal", arm="-"),
        Round(SPOOLS, "rename %s/spool/*.wal" % STATE, behind=True, arm="-", exclusive=1),
    ],
    "behind the restart, before its first commit": [
        Round(RESTARTS, "*write */shard_0.db-wal", behind=True, arm="-", generations=2),
        Round(RESTARTS, "*write */shard_0.db-wal", at=2, behind=True, arm="-", generations=2),
        Round("commit sync RESTART spill", generations=2),
        Round("commit commit RESTART spill rollback", generations=2),
    ],
    "behind the first commit of the new life": [
        Round("commit sync RESTART commit"),
        Round("commit commit RESTART commit"),
        Round("commit commit TRUNCATE commit RESTART commit"),
        Round("commit commit RESTART commit", exclusive=1),
    ],
    "behind the truncation or deletion, before `lj_db_wal_emptied`": [
        Round("commit sync TRUNCATE", "ftruncate */shard_0.db-wal", behind=True, generations=2),
        Round("commit commit TRUNCATE", "ftruncate */shard_0.db-wal", behind=True, generations=2),
        Round("commit close", "unlink */shard_0.db-wal", behind=True, generations=2),
    ],
    "behind it": [
        Round("commit sync TRUNCATE"),
        Round("commit commit TRUNCATE"),
        Round("commit close"),
    ],
    "during the first snapshot of a generation": [
        Round("commit sync", "write " + SNAPSHOT_TEMP, begin="new"),
        Round("commit sync", "rename */snapshots/*.snapshot.lz4", begin="new"),
        Round("commit commit sync", "write " + SNAPSHOT_TEMP, begin="forgotten", generations=2),
    ],
    "behind that snapshot, before the position file": [
        Round("commit sync", "rename */snapshots/*.snapshot.lz4", behind=True, begin="new", generations=2),
        Round("commit sync", "fsync %s/position.tmp" % STATE, begin="new", generations=2),
        Round("commit sync", "rename */snapshots/*.snapshot.lz4", behind=True, begin="forgotten", generations=3),
    ],
    "at a rollover, before or behind the position file": [
        Round(ROLLS_OVER, "fsync %s/position.tmp" % STATE, arm="-"),
        Round(ROLLS_OVER, "rename %s/position" % STATE, arm="-"),
        Round(ROLLS_OVER, "rename %s/position" % STATE, behind=True, arm="-"),
        Round(ROLLS_OVER, "fsync " + STATE, behind=True, arm="-"),
        Round(ROLLS_OVER, "rename */snapshots/*.snapshot.lz4", behind=True, arm="-"),
    ],
    "during a restore on open": [
        Round("commit", "*write */shard_0.db.tmp-restore-*", begin="lost"),
        Round("commit", "fsync */shard_0.db.tmp-restore-*", begin="lost"),
        Round("commit", "rename */shard_0.db", begin="lost"),
    ],
    "behind the restore, before its position file": [
        Round("commit", "rename */shard_0.db", behind=True, begin="lost", generations=2),
        Round("commit", "fsync %s/position.tmp" % STATE, begin="lost", generations=2),
    ],
}
# Two files of the spool, the end marks behind their indexes, and the WAL.
ROUNDS["while the spool of a lost database is shipped before the restore"] = [
    Round("commit", match, behind=behind, at=at, begin="left")
    for match, behind, at in (("write " + SEGMENT_TEMP, False, 1), ("rename */wal/*.wal.lz4", False, 2),
                              ("rename */wal/*.wal.lz4", True, 1), ("rename */wal/*.wal.lz4", True, 2),
                              ("rename %s/position" % STATE, True, 1), ("rename %s/position" % STATE, True, 2),
                              ("unlink %s/spool/*.wal" % STATE, False, 1), ("unlink %s/spool/*.wal" % STATE, True, 2))
]
# Rows that are about something else than kill -9, and which script has their rounds.
ELSEWHERE = {"power cut": "fault/test_powercut.py"}


def rows():
    """The first cells of the table in DESIGN.md."""
    with open(DESIGN, encoding="utf-8") as file:
        text = file.read()
    table = re.search(r"^\| killed \.\.\. \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", text, re.MULTILINE)
    check(table, "DESIGN.md has no table that begins with '| killed ... |'")
    return [line.split("|")[1].strip() for line in table[1].splitlines()]


@test()
def every_row_of_the_design_has_a_round(t):
    named = rows()
    absent = [row for row in named if row not in ROUNDS and row not in ELSEWHERE]
    check(not absent, "no round in test_kill_table.py for: %s" % absent)
    gone = [row for row in [*ROUNDS, *ELSEWHERE] if row not in named]
    check(not gone, "DESIGN.md no longer has the rows %s" % gone)
    for script in ELSEWHERE.values():
        check(os.path.exists(os.path.join(HERE, "..", script)), "there is no %s" % script)


class Scene:
    """One folder with a database in the state that a round begins with."""

    def __init__(self, t, name, a_round):
        self.t = t
        self.round = a_round
        self.data = t.folder(name, "data")
        self.paths = os.path.join(self.data, "shard_0.db"), t.path(name, "replica")
        self.log = t.path(name, "calls")
        self.folder = t.path(name)
        self.replica = Replica(os.path.join(self.paths[1], "shard_0"))
        self.before = 0
        if a_round.begin != "new":
            self.before = Life(self.paths, a_round.exclusive, "commit commit sync close", "0").synced
        self.shipped = self.before  # of that, what was in the replica when it began
        if a_round.begin == "left":
            self.before = Life(self.paths, a_round.exclusive, SPOOLED, "0", before=self.before).committed
            os.unlink(self.paths[0])
        if a_round.begin == "lost":
            shutil.rmtree(self.data)
            os.mkdir(self.data)
        elif a_round.begin == "forgotten":
            shutil.rmtree(os.path.join(self.data, ".shard_0.db-litejoin"))

    def die(self, library):
        r = self.round
        env = {"LJ_KILL_LOG": self.log, "LD_PRELOAD": library, "KILL_DIR": self.folder}
        if r.match:
            env.update(LJ_KILL_MATCH=r.match, KILL_AT=str(r.at))
        if r.behind:
            env["LJ_KILL_BEHIND"] = "1"
        if r.arm:
            env["LJ_KILL_ARM"] = r.arm
        life = Life(self.paths, r.exclusive, r.script, r.limit, env, before=self.before)
        check_equal(life.ended, not r.match, "the script came to its end")
        return life

    def check_replica(self, life):
        """Right after the kill, before anybody opens the database."""
        if not any(g.snapshots for g in self.replica.generations()):
            check_equal(life.synced, 0, "no snapshot, but litejoin_sync had returned for link")
            return
        out = self.t.path("now.db")
        self.replica.restore(out)
        pages.check_integrity(out, "the replica right after the kill")
        n = chain.verify_file(out, "the replica right after the kill")
        synced = self.shipped if self.round.begin == "left" else life.synced
        check(synced <= n <= life.committed + 1, "restored link %d; %d synced, %d committed" %
              (n, synced, life.committed))
        if LONG:  # they are asked behind the next open, too
            cli.check_restorers(self.replica.root, out, "the replica right after the kill")


    def left_of_restores(self):
        return [name for name in os.listdir(self.data) if ".tmp-restore-" in name]


@test("shim", "load_extension", timeout=500)
def killed_at_each_step(t):
    library = killat()
    for row, rounds in ROUNDS.items():
        with t.part(row):
            wrong = []
            for number, a_round in enumerate(rounds):
                try:
                    scene = Scene(t, "%d_%d" % (list(ROUNDS).index(row), number), a_round)
                    life = scene.die(library)
                    scene.check_replica(life)
                    if row == "during a restore on open":
                        check_equal(len(scene.left_of_restores()), 1, "files that the killed restore has left")
                    snapshots = a_round.generations + a_round.script.count("snapshot")
                    # after a loss only what was shipped is there
                    next_open(t, scene.paths, scene.before if a_round.begin == "lost" else life.committed,
                              a_round.generations, snapshots, life.committed + 1)
                    check_equal(scene.left_of_restores(), [], "left of a restore after the next open")
                except Failure as failure:
                    wrong.append("%s: %s" % (a_round, failure))
            check(not wrong, "%d of %d: %s" % (len(wrong), len(rounds), "; ".join(wrong)))


if __name__ == "__main__":
    harness.main("kill table")
