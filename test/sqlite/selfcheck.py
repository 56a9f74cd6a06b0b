"""selfcheck.py - what the replicas of a run of SQLite's suite are worth: is it all there, can it be restored? Used by suite.py."""

import concurrent.futures
import os
import shutil
import sqlite3
import subprocess

from programs import BUILD, LITEJOIN

TOOL = BUILD / "litejoin-replica"
WAL_MODE = 2
AT_READ_VERSION = 19


def generations(replicas):
    """[(replica folder, generation)] with a snapshot."""
    return sorted({(path.parents[3], path.parents[1].name)
                   for path in replicas.glob("*/*/generations/*/snapshots/*.snapshot.lz4")})


def restore(replica, target, *flags):
    """None, or why it failed."""
    done = subprocess.run([TOOL, "restore", "-o", target, *flags, f"file://{replica}"], capture_output=True, text=True, check=False)
    return None if done.returncode == 0 else (done.stderr.strip().splitlines() or ["no message"])[-1]


def restore_generation(place, scratch):
    replica, generation = place
    target = scratch / f"{replica.parent.name}-{replica.name}-{generation}.db"
    why = restore(replica, target, "-generation", generation)
    target.unlink(missing_ok=True)
    return why and f"{replica.parent.name}/{replica.name} {generation}: {why}"


def left_in_wal_mode(folder):
    """Databases that a job left behind in WAL mode: their newest state has to be in the replica."""
    for path in folder.rglob("*"):
        if not path.is_file() or path.name.endswith(("-wal", "-shm", "-journal")):
            continue
        with open(path, "rb") as file:
            head = file.read(100)
        if len(head) == 100 and head.startswith(b"SQLite format 3\0") and head[AT_READ_VERSION] == WAL_MODE:
            yield path


def content(path):
    """The database file with everything of its WAL in it, from a copy."""
    con = sqlite3.connect(path)
    try:
        con.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    finally:
        con.close()
    return path.read_bytes()


def compare_left(path, replica, scratch):
    """None, or how a database that was left differs from what its replica restores to."""
    name = path.name.removesuffix(".db")
    source = replica / name
    target = scratch / f"restored-{replica.name}-{name}"
    why = restore(source, target)
    if why is None:
        for end in ("", "-wal"):
            if os.path.exists(f"{path}{end}"):
                shutil.copy(f"{path}{end}", scratch / f"left-{replica.name}-{name}{end}")
        try:
            same = content(scratch / f"left-{replica.name}-{name}") == content(target)
        except sqlite3.DatabaseError:
            return None  # a test damaged it on purpose
        why = None if same else "the restored database is another"
    return why and f"{replica.name}/{path.name}: {why}"


def check_replicas(data, scratch, jobs):
    """Restores every generation; prints the verdict."""
    places = generations(data / "replica")
    scratch.mkdir()
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        failures = [why for why in pool.map(lambda place: restore_generation(place, scratch), places) if why]
    if failures:
        print("\n".join(failures[:20]))
        print(f"not ok - every generation of the replicas can be restored: {len(failures)} of {len(places)} cannot")
    elif places:
        print("ok - every generation of the replicas can be restored")
    segments = sum(1 for _ in (data / "replica").rglob("*.wal.lz4"))
    print(f"note - replicas: {len(places)} generations, {segments} segments")
    return len(places)


def check_left(data, scratch):
    """Databases that the jobs left behind, against their replicas; prints the verdict."""
    compared = 0
    failures = []
    for folder in sorted((data / "run" / LITEJOIN).iterdir()):
        for path in left_in_wal_mode(folder):
            if not (data / "replica" / folder.name / path.name.removesuffix(".db") / "generations").is_dir():
                continue  # copied there by a test, never opened
            compared += 1
            if why := compare_left(path, data / "replica" / folder.name, scratch):
                failures.append(why)
    if failures:
        print("\n".join(failures[:20]))
        print(f"not ok - databases that were left are in the replicas: {len(failures)} of {compared} are not")
    elif compared:
        print(f"ok - databases that were left are in the replicas ({compared} compared)")


def fresh(folder):
    folder.mkdir(mode=0o755)
    return folder
