#!/usr/bin/python3
"""suite.py - SQLite's own test suite with litejoin as the default VFS, replicating, against plain unix.

Fetches the source of the libsqlite3 this machine has (fetch_source), builds its test programs (build_fixture), and runs
as a user that is not root (some of SQLite's tests fail for root): "veryquick" whole, the slow WAL, fault and crash tests that are not in it,
much of veryquick once more with every database in WAL mode (in_wal.test), and mptester. Each .test file is one test here. It fails when
one of its cases fails, or is missing, and plain unix has it. What may differ, and why, is in skip.txt.

What plain unix does is in expected/VERSION.txt. A version without such a file, a file that does worse than it says, and LJ_LONG, are
run with plain unix too, and that decides. With LJ_LONG also the tests that take minutes each, and newer versions of SQLite from later
Debian releases.

Many cases ask what a checkpoint copied, or how large the files are then. A snapshot that is being taken reads the database like
any other reader, so a checkpoint of that moment copies less, as SQLite documents. Such a case fails now and then, never
always: a file with failures is run again, up to RERUNS times and with nothing beside it, and a case counts as failed when it failed
every time, and not with plain unix. Cases that passed on another run are listed in a note. A test program that dies is a failure at once.

Behind the run: how many databases were opened through litejoin, and selfcheck.py on the replicas.

    suite.py [TEXT]       the tests (only the jobs with this in their name); wants LJ_BUILD
    suite.py --record     writes expected/VERSION.txt from two runs with plain unix
"""

import concurrent.futures
import dataclasses
import fnmatch
import os
import pathlib
import re
import shutil
import sys
import tempfile

import selfcheck
from programs import (CACHE, HERE, IN_WAL, LITEJOIN, LOGS, PLAIN, Job, Outcome, Programs, Unavailable, distinct,
                      fetch_source, opens_of, run_job)

JOBS = int(os.environ.get("LJ_JOBS", "2"))
LONG = "LJ_LONG" in os.environ
RUN_AT_ONCE = JOBS + 2  # some tests sleep most of their time
RERUNS = 3
RAM = pathlib.Path("/dev/shm")
RAM_BYTES_WANTED = 2 << 30
JOB_SECONDS = 7200 if LONG else 1500
NAMES_SHOWN = 12
RESTORED = 100000 if LONG else 400  # of about 5,000 generations
PARTS = 10
LATER_RELEASES = ("trixie", "sid")
OF_LATER_VERSIONS = ("walvfs.test", "pager1.test")

# Longest first, so that the last one to end is a short one. (walthread and walcrash3 take minutes each; walbig
# makes a sparse file of 5 GB, whose first snapshot keeps a close waiting.)
LONG_FILES = ("walthread", "walcrash3", "walslow", "walbig", "pagerfault", "backup_ioerr", "savepoint6")
DEFAULT_FILES = ("walprotocol", "walcrash", "walcrash2", "walfault", "walfault2", "walrofault", "savepointfault", "vacuum3", "backup",
                 "mmapfault", "rollbackfault")
MPTESTS = ("crash01.test", "multiwrite01.test")


def parts_of(kind):
    return [Job(kind, f"{n + 1}/{PARTS}") for n in range(PARTS)]


def in_wal_jobs(files):
    chosen = sorted(name.split()[1] for name in files if name.startswith(IN_WAL + " "))
    return [Job(IN_WAL, f"{n + 1}/{PARTS}", tuple(chosen[n::PARTS])) for n in range(PARTS) if chosen[n::PARTS]]


def jobs_of_suite(in_wal):
    files = (LONG_FILES if LONG else ()) + DEFAULT_FILES
    return [*(Job("file", f"{name}.test") for name in files), *(Job("mptest", script) for script in MPTESTS),
            *parts_of("veryquick"), *in_wal_jobs(in_wal), Job("wal")]


# ---------------------------------------------------------------------------------------------------------------
# What plain unix does


class Expected:
    """expected/VERSION.txt: names of test files, each with how many distinct cases it has; "~" where that varies."""

    def __init__(self, version):
        self.path = HERE / "expected" / f"{version}.txt"
        self.counts = {}
        text = self.path.read_text(encoding="utf-8") if self.path.exists() else ""
        for line in text.splitlines():
            if line.startswith("#") or not line.strip():
                continue
            kind, *words = line.split()
            for word in words:
                name, count = word.rsplit(":", 1)
                self.counts[name if kind == "-" else f"{kind} {name}"] = int(count.removesuffix("~") or 0)

    def __bool__(self):
        return bool(self.counts)

    def agrees(self, name, file, skips):
        """The file does no worse than with plain unix."""
        if name not in self.counts or skips.left(file):
            return False
        return distinct(file["cases"]) >= self.counts[name] or skips.reason(name) is not None

    def write(self, version, first, second):
        """From two runs: what differs between them is written as the smaller, with a "~". Files with failures are left out."""
        kinds = {}
        for name in sorted(set(first) & set(second)):
            counts = [distinct(run[name]["cases"]) for run in (first, second)]
            if first[name]["failed"] or second[name]["failed"] or min(counts) == 0:
                continue
            kind, file = name.split() if " " in name else ("-", name)
            kinds.setdefault(kind, []).append(f"{file}:{min(counts)}{'~' * (counts[0] != counts[1])}")
        self.path.parent.mkdir(exist_ok=True)
        with open(self.path, "w", encoding="utf-8") as out:
            print(f"# SQLite {version}'s own tests with plain unix: test files without a failing case, and how many cases each has", file=out)
            print("# (rounds of injected faults count once; ~ = varies). Written by suite.py --record.", file=out)
            for kind, words in kinds.items():
                line = kind
                for word in words:
                    if len(line) + len(word) > 118:
                        print(line, file=out)
                        line = kind
                    line += " " + word
                print(line, file=out)


class SkipList:
    """
    skip.txt: version, pattern of a test case (or name of a test file that may have fewer cases), reason. `rare`: rows for what
    happens now and then, with what the case says then, and how many of a file may.
    """

    RARE = re.compile(r"\[at most (\d+): (.+?)\] +(.*)")

    def __init__(self, version):
        self.rows = []
        self.rare = []
        self.used = set()
        for line in (HERE / "skip.txt").read_text(encoding="utf-8").splitlines():
            if line.strip() and not line.startswith("#"):
                row_version, pattern, reason = line.split(None, 2)
                if row_version not in ("*", version):
                    continue
                if match := self.RARE.match(reason):
                    self.rare.append((pattern, int(match[1]), match[2], match[3]))
                else:
                    self.rows.append((pattern, reason))

    def row(self, name):
        """(pattern, reason) or None"""
        for pattern, reason in self.rows:
            if fnmatch.fnmatchcase(name, pattern):
                self.used.add(pattern)
                return pattern, reason
        return None

    def reason(self, name):
        found = self.row(name)
        return found[1] if found else None

    def excused(self, file):
        """Failed cases of a test file -> (pattern, reason)."""
        found = {case: row for case in file["failed"] if (row := self.row(case))}
        said = file.get("said", {})
        for pattern, most, message, reason in self.rare:
            cases = [case for case in file["failed"] if fnmatch.fnmatchcase(case, pattern) and said.get(case) == message]
            if len(cases) <= most:
                found.update(dict.fromkeys(cases, (pattern, reason)))
        return found

    def left(self, file):
        """Failed cases without an excuse."""
        excused = self.excused(file)
        return [case for case in file["failed"] if case not in excused]

    def unused(self):
        return [pattern for pattern, _ in self.rows if pattern not in self.used]


# ---------------------------------------------------------------------------------------------------------------
# Running and comparing


@dataclasses.dataclass
class Run:
    """Everything one SQLite version is tested with."""

    programs: Programs
    ours: dict
    data: pathlib.Path
    expected: Expected
    skips: SkipList
    label: str = ""

    def one(self, variant, job, attempt=0):
        programs = self.ours if variant == LITEJOIN else self.programs.with_plain_unix()
        return run_job(variant, job, programs, self.programs.source / "test", self.data, attempt, JOB_SECONDS)

    def all(self, variant, jobs):
        with concurrent.futures.ThreadPoolExecutor(RUN_AT_ONCE) as pool:
            return dict(zip(jobs, pool.map(lambda job: self.one(variant, job), jobs)))


def merged(outcomes):
    """name of a test file -> what it came to, from all jobs; and the job each one belongs to."""
    files = {}
    jobs = {}
    for job, outcome in outcomes.items():
        for name, file in outcome.files.items():
            entry = files.setdefault(name, {"cases": [], "failed": [], "said": {}})
            entry["cases"] = entry["cases"] + file["cases"]
            entry["failed"] = entry["failed"] + file["failed"]
            entry["said"] = {**entry["said"], **file.get("said", {})}
            jobs[name] = job
    return files, jobs


def worse(run, plain, ours):
    """(cases that fail with litejoin alone, cases that are missing), without those that skip.txt excuses."""
    failed = [case for case in run.skips.left(ours) if case not in plain["failed"]]
    missing = [] if distinct(ours["cases"]) >= distinct(plain["cases"]) else sorted(set(plain["cases"]) - set(ours["cases"]))
    return failed, [case for case in missing if run.skips.reason(case) is None]


def judge_again(run, name, job, ours):
    """A file that did worse than expected is run again, alone, and if that does not help, with plain unix: the verdict line."""
    alone = job if job.kind == "mptest" else job.of_file(name.split()[-1])
    nothing = {"cases": [], "failed": []}
    cases = list(dict.fromkeys(ours["cases"]))
    failed = run.skips.left(ours)
    passed_later = set()
    for attempt in range(1, RERUNS + 1):
        again = run.one(LITEJOIN, alone, attempt)
        if again.ended:
            return f"not ok - {run.label}{name}: {again.ended}"
        file = again.files.get(name, nothing)
        left = run.skips.left(file)
        passed_later |= set(failed) - set(left)
        failed = [case for case in failed if case in left]
        cases = max(cases, file["cases"], key=distinct)
        if not failed and distinct(cases) >= run.expected.counts.get(name, sys.maxsize):
            break
    else:
        plain = nothing if job.kind == "mptest" else run.one(PLAIN, alone).files.get(name, nothing)
        failed, missing = worse(run, plain, {"cases": cases, "failed": failed})
        if failed:
            return f"not ok - {run.label}{name}: {len(failed)} fail with litejoin and not with plain unix: {first_of(failed)}"
        if missing and run.skips.reason(name) is None:
            return f"not ok - {run.label}{name}: {len(missing)} cases are missing that plain unix has: {first_of(missing)}"
    if passed_later:
        print(f"note - {name}: {len(passed_later)} cases failed on one run and passed on another: {first_of(sorted(passed_later))}")
    return f"ok - {run.label}{name} ({len(cases)} cases)"


def first_of(names):
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else "")


def compare(run, outcomes, plain_outcomes, whole):
    """Prints the verdict on each .test file; `whole`: of all files that are known."""
    files, jobs = merged(outcomes)
    plain = merged(plain_outcomes)[0] if plain_outcomes else None
    for name, file in files.items():
        excused = [run.skips.row(name), *run.skips.excused(file).values()]
        for row in sorted({row for row in excused if row}):
            print(f"skip - {run.label}{name} {row[0]} ({excused.count(row)}): {row[1]}")
        if plain is not None:
            good = name in plain and worse(run, plain[name], file) == ([], [])
        else:
            good = run.expected.agrees(name, file, run.skips)
        print(f"ok - {run.label}{name} ({len(file['cases'])} cases)" if good else judge_again(run, name, jobs[name], file))
    for job, outcome in outcomes.items():
        if outcome.ended and not (plain_outcomes and plain_outcomes[job].ended):
            print(f"not ok - {run.label}{job.name}: {outcome.ended}")
    known = plain if plain is not None else run.expected.counts if whole else {}
    for name in sorted(name for name in known if name not in files):
        print(f"not ok - {run.label}{name}: not run, though plain unix runs it")


def tell_totals(run, outcomes):
    failed = sum(len(file["failed"]) for outcome in outcomes.values() for file in outcome.files.values())
    databases, wals = (sum(column) for column in zip(*(opens_of(run.data, job.tag) for job in outcomes)))
    if databases and wals:
        print(f"ok - {run.label}litejoin was in use")
    else:
        print(f"not ok - {run.label}litejoin was in use: {databases} databases and {wals} WALs were opened through it")
    print(f"note - SQLite {run.programs.version} with litejoin: {failed} errors out of {sum(o.tests for o in outcomes.values())} tests, "
          f"{databases} databases and {wals} WALs opened")


def check(run, jobs, scratch):
    """One SQLite version, from running to the verdicts."""
    wanted = sys.argv[1] if len(sys.argv) > 1 else ""
    jobs = [job for job in jobs if wanted in job.name]
    plain = run.all(PLAIN, jobs) if LONG or not run.expected else None
    if plain is not None:
        plain = {job: outcome for job, outcome in plain.items() if job.kind != "mptest"}
    outcomes = run.all(LITEJOIN, jobs)
    if plain is not None:
        plain.update({job: Outcome({name: {**file, "failed": []} for name, file in outcome.files.items()}, outcome.tests, "")
                      for job, outcome in outcomes.items() if job.kind == "mptest"})
    compare(run, outcomes, plain, not wanted)
    tell_totals(run, outcomes)
    if selfcheck.check_replicas(run.data, scratch, JOBS, RESTORED) == 0:
        print(f"not ok - {run.label}the databases were replicated: no replica has a snapshot")
    selfcheck.check_left(run.data, scratch)
    for pattern in run.skips.unused() if not wanted else []:
        print(f"note - skip.txt: nothing needs {pattern} any more")


def later_jobs(source):
    names = {path.name for path in (source / "test").glob("wal*.test")} - {f"{name}.test" for name in LONG_FILES}
    return [Job("file", name) for name in sorted(names | set(OF_LATER_VERSIONS))]


def check_later(release, work, data):
    """A newer SQLite: its WAL tests."""
    try:
        source, version = fetch_source(work, release)
        programs = Programs(source, version, work)
        ours = programs.litejoin(mptester=False)
    except Unavailable as why:
        print(f"skip - SQLite of {release}: {why}")
        return
    own = data / version
    own.mkdir(mode=0o755)
    run = Run(programs, ours, own, Expected(version), SkipList(version), f"SQLite {version} ")
    check(run, later_jobs(source), own / "restored")


def record(programs, data):
    """Writes expected/VERSION.txt."""
    expected = Expected(programs.version)
    run = Run(programs, {}, data, expected, SkipList(programs.version))
    jobs = [job for job in jobs_of_suite([]) if job.kind != "mptest"]
    first = run.all(PLAIN, jobs)
    quick = merged({job: outcome for job, outcome in first.items() if job.kind == "veryquick"})[0]
    # one process for each: many end in an error in WAL mode
    alone = run.all(PLAIN, [Job(IN_WAL, name, (name,)) for name in sorted(quick)])
    first.update({job: outcome for job, outcome in alone.items()
                  if not outcome.ended and not any(file["failed"] for file in outcome.files.values())})
    again = dataclasses.replace(run, data=selfcheck.fresh(data / "again"))
    second = again.all(PLAIN, jobs + in_wal_jobs(merged(first)[0]))
    expected.write(programs.version, merged(first)[0], merged(second)[0])


def data_folder(work):
    """Where databases and replicas go: into memory where there is enough, which shortens every snapshot."""
    if not RAM.is_dir() or shutil.disk_usage(RAM).free < RAM_BYTES_WANTED:
        return work
    return pathlib.Path(tempfile.mkdtemp(prefix="litejoin-sqlite-", dir=RAM))


def main():
    LOGS.mkdir(parents=True, exist_ok=True)
    CACHE.mkdir(parents=True, exist_ok=True)
    # Not below the source tree, which the other user may not be allowed to enter.
    work = pathlib.Path(tempfile.mkdtemp(prefix="litejoin-sqlite-"))
    data = data_folder(work)
    try:
        work.chmod(0o755)
        data.chmod(0o755)
        source, version = fetch_source(work)
        programs = Programs(source, version, work)
        if sys.argv[1:] == ["--record"]:
            record(programs, data)
            return
        expected = Expected(version)
        run = Run(programs, programs.litejoin(mptester=True), data, expected, SkipList(version))
        in_wal = expected.counts or Expected("3.40.1").counts
        check(run, jobs_of_suite(in_wal), data / "restored")
        if LONG:
            for release in LATER_RELEASES:
                check_later(release, work, data)
    except Unavailable as why:
        print(f"not ok - the suite could be run: {why}")
        sys.exit(1)
    finally:
        shutil.rmtree(work, ignore_errors=True)
        shutil.rmtree(data, ignore_errors=True)


if __name__ == "__main__":
    main()
