#!/usr/bin/python3
"""suite.py - SQLite's own test suite with litejoin as the default VFS, replicating, against plain unix.

Fetches the source of the libsqlite3 this machine has (fetch_source), builds its test program twice (build_fixture), and runs
the same .test files with both, as a user that is not root (some of SQLite's tests fail for root). Each .test file is
one test here; it fails when one of its cases fails with litejoin and not with plain unix. What may differ, and why,
is in skip.txt. With LJ_LONG the whole "veryquick" suite and the slow WAL tests are run too.

Many cases ask what a checkpoint copied, or how large the files are then. A snapshot that is being taken reads the database like
any other reader, so a checkpoint of that moment copies less, as SQLite documents. Such a case fails now and then, never
always: a file with failures is run again, up to RERUNS times and with nothing beside it, and a case counts as failed when it failed
every time. Cases that passed on another run are listed in a note. A test program that dies is a failure at once.

Wants LJ_BUILD. The source, the plain test program and its results are kept in .cache/sqlite by SQLite version.
"""

import concurrent.futures
import dataclasses
import fnmatch
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CACHE = ROOT / ".cache" / "sqlite"
LOGS = ROOT / ".cache" / "test-logs" / "sqlite"
BUILD = pathlib.Path(os.environ["LJ_BUILD"])
JOBS = int(os.environ.get("LJ_JOBS", "2"))
LONG = "LJ_LONG" in os.environ

PLAIN = "plain"
LITEJOIN = "litejoin"
CACHE_FORMAT = 1
RERUNS = 2
RAM = pathlib.Path("/dev/shm")
RAM_BYTES_WANTED = 2 << 30
JOB_SECONDS = 7200 if LONG else 600
NAMES_SHOWN = 12

# Longest first, so that the last one to end is a short one. (walthread and walcrash3 take minutes each; walbig
# makes a sparse file of 5 GB, whose first snapshot keeps a close waiting.)
LONG_JOBS = ["permutations.test veryquick", "walthread.test", "walcrash3.test", "walsetlk.test", "walslow.test",
             "walbig.test"]
DEFAULT_JOBS = ["walprotocol.test", "walvfs.test", "walfault.test", "permutations.test wal", "walcrash.test", "walcrash2.test",
                "wal3.test", "pager1.test", "walcrash4.test", "e_walauto.test", "walfault2.test", "wal.test", "wal2.test",
                "e_walckpt.test", "e_walhook.test", "walrofault.test", "waloverwrite.test", "walcksum.test", "walro.test",
                "walbak.test", "walmode.test", "walnoshm.test", "walpersist.test", "walshared.test",
                "nockpt.test"]

TEST_NAME = re.compile(r"^(\S.*?)\.\.\.")
FILE_END = re.compile(r"^Time: (\S+\.test) \d+ ms")
TOTALS = re.compile(r"^(\d+) errors out of (\d+) tests")
FAILURES = "!Failures on these tests:"


@dataclasses.dataclass
class Outcome:
    """What one run of testfixture came to. files: .test file -> {"tests": number, "failed": [names]}"""

    files: dict
    tests: int
    ended: str  # "" when it ran to its end, else how it died and where

    @staticmethod
    def load(data):
        return Outcome(data["files"], data["tests"], data["ended"])


def not_root(command):
    """The command as a user that is not root; everything it writes to belongs to that user."""
    return ["runuser", "-u", "nobody", "--", *command] if os.getuid() == 0 else command


def tag_of(job):
    return job.replace(".test", "").replace(" ", "-")


def data_folder(work):
    """Where databases and replicas go: into memory where there is enough, which shortens every snapshot."""
    if not RAM.is_dir() or shutil.disk_usage(RAM).free < RAM_BYTES_WANTED:
        return work
    return pathlib.Path(tempfile.mkdtemp(prefix="litejoin-sqlite-", dir=RAM))


def own_folder(path):
    path.mkdir(parents=True)
    if os.getuid() == 0:
        shutil.chown(path, "nobody")
    return path


# ---------------------------------------------------------------------------------------------------------------
# Source and programs


def run_step(what, command, log):
    """Runs a preparing command; on failure ends the stage with one clear line."""
    with open(log, "wb") as out:
        status = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, check=False).returncode
    if status != 0:
        print("\n".join(log.read_text(errors="replace").splitlines()[-30:]))
        print(f"not ok - {what}: failed with status {status}, see above")
        sys.exit(1)


def fetch_source(work):
    log = LOGS / "fetch.log"
    run_step("fetching SQLite's source", [str(HERE / "fetch_source"), str(CACHE)], log)
    tarball = pathlib.Path(log.read_text().splitlines()[-1])
    with tarfile.open(tarball) as archive:
        archive.extractall(work / "source")
    return next((work / "source").iterdir()), tarball.name.split("_")[1].removesuffix(".orig.tar.xz")


def linked_libraries():
    """The static library and what its pkg-config file says it needs, without the SQLite that testfixture is itself."""
    listing = subprocess.run(["pkg-config", "--libs", "litejoin"], capture_output=True, text=True, check=True,
                             env={**os.environ, "PKG_CONFIG_PATH": str(BUILD / "meson-private")})
    needed = [argument for argument in listing.stdout.split()
              if not argument.startswith("-L") and argument not in ("-llitejoin", "-lsqlite3")]
    return " ".join([str(BUILD / "liblitejoin.a"), *needed])


def build_programs(source, version, work):
    """Returns {variant: path of testfixture}; the plain one comes from the cache when it is there."""
    cached = CACHE / f"testfixture-{version}"
    steps = {LITEJOIN: [linked_libraries()]}
    if not cached.exists():
        steps[PLAIN] = []
    with concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
        for future in [pool.submit(run_step, f"building testfixture ({variant})",
                                   [str(HERE / "build_fixture"), variant, str(source), str(work / variant), *more],
                                   LOGS / f"build-{variant}.log") for variant, more in steps.items()]:
            future.result()
    if not cached.exists():
        shutil.copy(work / PLAIN / "testfixture", cached)
    (work / PLAIN).mkdir(exist_ok=True)
    shutil.copy(cached, work / PLAIN / "testfixture")
    return {variant: work / variant / "testfixture" for variant in (PLAIN, LITEJOIN)}


# ---------------------------------------------------------------------------------------------------------------
# Running


def litejoin_env(replica):
    return {
        "LITEJOIN_DEFAULT_VFS": "1",
        "LITEJOIN_REPLICA_URL": f"file://{replica}",
        "LITEJOIN_RESTORE_ON_BOOT": "false",
        # The default, stated: frames that are not shipped yet are spooled and never hold a WAL restart back, so
        # that the tests that count frames see what they would see without us.
        "LITEJOIN_MAX_WAL_SIZE": "0",
        "LITEJOIN_SYNC_INTERVAL": "100ms",
        # wal-23 reads everything that sqlite3_log gets; ours is not what it asks for.
        "LITEJOIN_LOG_LEVEL": "error",
    }


def parse(output, job):
    """Splits what testfixture printed into .test files."""
    files = {}
    names = []
    failed = set()
    tests = None
    for line in output.splitlines():
        if match := TEST_NAME.match(line):
            names.append(match[1])
        elif match := FILE_END.match(line):
            files.setdefault(match[1], []).extend(names)
            names = []
        elif match := TOTALS.match(line):
            tests = int(match[2])
        elif line.startswith(FAILURES):
            failed = set(line.removeprefix(FAILURES).split())
    if names:
        files.setdefault(job if " " not in job else "the end of " + job, []).extend(names)
    by_file = {name: {"tests": len(cases), "failed": sorted(failed & set(cases))} for name, cases in files.items()}
    unplaced = failed - {case for cases in files.values() for case in cases}
    if unplaced:
        by_file[job] = {"tests": by_file.get(job, {"tests": 0})["tests"],
                        "failed": sorted(unplaced | set(by_file.get(job, {"failed": []})["failed"]))}
    return by_file, tests, list(files)[-1] if files else "its start"


def run_job(variant, job, program, source, data, attempt=0):
    """Runs one .test file, or one permutation, in a folder of its own below `data`."""
    tag = tag_of(job) + (f"-again-{attempt}" if attempt else "")
    folder = own_folder(data / "run" / variant / tag)
    env = {key: value for key, value in os.environ.items() if not key.startswith("LITEJOIN_")}
    env.update({"TMPDIR": str(folder), "HOME": str(folder)})
    if variant == LITEJOIN:
        env.update(litejoin_env(own_folder(data / "replica" / tag)))
    script, *arguments = job.split()
    log = LOGS / f"{variant}-{tag}.log"
    command = not_root(["timeout", "--kill-after=10", str(JOB_SECONDS), str(program), str(source / "test" / script), *arguments])
    start = time.monotonic()
    with open(log, "wb") as out:
        status = subprocess.run(command, cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=out,
                                stderr=subprocess.STDOUT, check=False).returncode
    files, tests, last = parse(log.read_text(encoding="utf-8", errors="replace"), job)
    ended = ""
    if status == 124:
        ended = f"not finished after {JOB_SECONDS} s, in or after {last}"
    elif tests is None:
        ended = f"testfixture ended with status {status} in or after {last}"
    print(f"    {variant:<8} {job:<28} {tests or 0:7} tests {time.monotonic() - start:6.1f} s", flush=True)
    return Outcome(files, tests or 0, ended)


def new_failures(plain, ours):
    """[(file, case)] that fail with litejoin and not with plain unix."""
    return {(name, case) for name, file in ours.files.items() for case in file["failed"]
            if case not in plain.files.get(name, {"failed": []})["failed"]}


def run_again(job, outcomes, skips, programs, source, data):
    """Takes from the outcome of a job what does not fail on every run; see the head of this file."""
    plain, ours = outcomes[PLAIN][job], outcomes[LITEJOIN][job]
    left = {(name, case) for name, case in new_failures(plain, ours) if skips.reason(case) is None}
    passed_later = set()
    for attempt in range(1, RERUNS + 1):
        if not left:
            break
        again = run_job(LITEJOIN, job, programs[LITEJOIN], source, data, attempt)
        if again.ended and not plain.ended:
            ours.ended = again.ended
            break
        good = left - new_failures(plain, again)
        passed_later |= good
        left -= good
    for name, case in passed_later:
        ours.files[name]["failed"].remove(case)
    if passed_later:
        cases = sorted(case for _, case in passed_later)
        print(f"note - {job}: {len(cases)} cases failed on one run and passed on another: {first_of(cases)}")


def run_all(jobs, programs, source, version, data):
    """{variant: {job: Outcome}}, both variants side by side; plain results come from the cache where it has them."""
    cache_file = CACHE / f"plain-{version}-{CACHE_FORMAT}.json"
    cached = json.loads(cache_file.read_text()) if cache_file.exists() else {}
    outcomes = {PLAIN: {job: Outcome.load(cached[job]) for job in jobs if job in cached}, LITEJOIN: {}}
    with concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
        futures = {}
        for job in jobs:
            for variant in (LITEJOIN, PLAIN):
                if job not in outcomes[variant]:
                    future = pool.submit(run_job, variant, job, programs[variant], source, data)
                    futures[future] = (variant, job)
        for future, (variant, job) in futures.items():
            outcomes[variant][job] = future.result()
    for job, outcome in outcomes[PLAIN].items():
        cached[job] = dataclasses.asdict(outcome)
    cache_file.write_text(json.dumps(cached))
    return outcomes


# ---------------------------------------------------------------------------------------------------------------
# Comparing


class SkipList:
    """skip.txt: version, test name pattern, reason."""

    def __init__(self, version):
        self.rows = []
        self.used = set()
        for line in (HERE / "skip.txt").read_text(encoding="utf-8").splitlines():
            if line.strip() and not line.startswith("#"):
                row_version, pattern, reason = line.split(None, 2)
                if row_version in ("*", version):
                    self.rows.append((pattern, reason))

    def reason(self, name):
        for pattern, reason in self.rows:
            if fnmatch.fnmatchcase(name, pattern):
                self.used.add(pattern)
                return reason
        return None

    def unused(self):
        return [pattern for pattern, _ in self.rows if pattern not in self.used]


def first_of(names):
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else "")


def compare_file(name, plain, ours, skips):
    """Prints the verdict on one .test file."""
    new = sorted(set(ours["failed"]) - set(plain["failed"]))
    excused = {case: skips.reason(case) for case in new}
    bad = [case for case in new if excused[case] is None]
    for case in new:
        if excused[case] is not None:
            print(f"skip - {name} {case}: {excused[case]}")
    if bad:
        print(f"not ok - {name}: {len(bad)} of {ours['tests']} fail with litejoin and not with plain unix: {first_of(bad)}")
    else:
        print(f"ok - {name} ({ours['tests']} tests)")
    if ours["tests"] < plain["tests"]:
        print(f"note - {name}: {ours['tests']} tests, {plain['tests']} with plain unix")


def compare(jobs, outcomes, skips):
    nothing = {"tests": 0, "failed": []}
    for job in jobs:
        plain, ours = outcomes[PLAIN][job], outcomes[LITEJOIN][job]
        prefix = "" if " " not in job else job.split()[1] + " "
        for name in ours.files:
            compare_file(prefix + name, plain.files.get(name, nothing), ours.files[name], skips)
        missing = [name for name in plain.files if name not in ours.files]
        if ours.ended and not plain.ended:
            print(f"not ok - {job}: {ours.ended}; {len(missing)} files were not run")
        elif missing:
            print(f"not ok - {job}: not run, though plain unix runs them: {', '.join(missing[:NAMES_SHOWN])}")
        elif ours.ended:
            print(f"note - {job}: {ours.ended}; plain unix: {plain.ended}")


def check_in_use(jobs, data):
    """The databases of every job have to show up in its replica, or something else than litejoin was tested."""
    total = 0
    unused = []
    for job in jobs:
        replica = data / "replica" / tag_of(job)
        generations = sum(1 for _ in replica.glob("*/generations/*/snapshots/*.snapshot.lz4"))
        total += generations
        if generations == 0:
            unused.append(job)
    if total == 0:
        print("not ok - litejoin was in use: the replicas hold no snapshot, so it was not")
    else:
        print("ok - litejoin was in use")
    print(f"note - snapshots in the replicas: {total}" + (f"; none from {', '.join(unused)}" if unused else ""))


def main():
    LOGS.mkdir(parents=True, exist_ok=True)
    CACHE.mkdir(parents=True, exist_ok=True)
    jobs = (LONG_JOBS if LONG else []) + DEFAULT_JOBS
    # Not below the source tree, which the other user may not be allowed to enter.
    work = pathlib.Path(tempfile.mkdtemp(prefix="litejoin-sqlite-"))
    data = data_folder(work)
    try:
        work.chmod(0o755)
        data.chmod(0o755)
        source, version = fetch_source(work)
        programs = build_programs(source, version, work)
        outcomes = run_all(jobs, programs, source, version, data)
        skips = SkipList(version)
        for job in jobs:
            run_again(job, outcomes, skips, programs, source, data)
        compare(jobs, outcomes, skips)
        check_in_use(jobs, data)
        for pattern in skips.unused():
            print(f"note - skip.txt: nothing needs {pattern} any more")
        for variant in (PLAIN, LITEJOIN):
            results = outcomes[variant].values()
            failed = sum(len(file["failed"]) for result in results for file in result.files.values())
            print(f"note - SQLite {version}, {variant}: {failed} errors out of {sum(r.tests for r in results)} tests")
    finally:
        shutil.rmtree(work, ignore_errors=True)
        shutil.rmtree(data, ignore_errors=True)


if __name__ == "__main__":
    main()
