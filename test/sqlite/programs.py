"""programs.py - SQLite's own test programs: building them, running one job, reading what it printed. Used by suite.py."""

import dataclasses
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CACHE = ROOT / ".cache" / "sqlite"
LOGS = ROOT / ".cache" / "test-logs" / "sqlite"
BUILD = pathlib.Path(os.environ["LJ_BUILD"])

PLAIN = "plain"
LITEJOIN = "litejoin"
MPTESTER = "mptester"
IN_WAL = "in_wal"

TEST_NAME = re.compile(r"^(\S+?)\.\.\.(?: |$)")
FILE_END = re.compile(r"^Time: (\S+\.test) \d+ ms")
TOTALS = re.compile(r"^(?:Summary: )?(\d+) errors out of (\d+) tests")
FAILURES = "!Failures on these tests:"
# An injected fault: the number is counted up until the tested code gets through without meeting it.
FAULT_RUN = re.compile(r"^(.*(?:oom|ioerr|shmerr|cantopen|interrupt|full|malloc|fault).*[.-])\d+(?:\.\d+)?$")


def distinct(cases):
    """Without the rounds of injected faults: how many it takes depends on what else the process does."""
    return len({match[1] for case in cases if (match := FAULT_RUN.match(case))}) + \
        sum(1 for case in cases if not FAULT_RUN.match(case))


class Unavailable(Exception):
    """Something that the tests need cannot be had here; the text says what and why."""


@dataclasses.dataclass(frozen=True)
class Job:
    """
    One process. kind: a permutation of SQLite's own permutations.test ("veryquick", "wal"), "in_wal", "file" or "mptest".
    `part`: "2/8" is the second of eight parts of a permutation; else the files to run.
    """

    kind: str
    part: str = ""
    files: tuple = ()

    @property
    def name(self):
        return self.part if self.kind == "file" else f"{self.kind} {self.part}".strip()

    @property
    def tag(self):
        return re.sub(r"[^A-Za-z0-9_]+", "-", self.name.replace(".test", ""))

    def file_name(self, file):
        """How one of its files is called in results: what is run in another way is another test."""
        return file if self.kind in ("file", "veryquick") else f"{self.kind} {file}"

    def of_file(self, file):
        """The job that runs one file of this one alone."""
        return Job(self.kind, file, (file,))

    def command(self, programs, tests):
        if self.kind == "mptest":
            script = tests.parent / "mptest" / self.part
            return [programs[MPTESTER], "mp.db", script, "--journalmode", "WAL", "--repeat", "3"]
        if self.kind == IN_WAL:
            return [programs["testfixture"], HERE / "in_wal.test", *self.files]
        if self.kind == "file":
            return [programs["testfixture"], tests / self.part]
        return [programs["testfixture"], tests / "permutations.test", self.kind, *self.files]


@dataclasses.dataclass
class Outcome:
    """
    What one run came to. files: name of a .test file -> {"cases": [names], "failed": [names], "said": {failed name: the line behind
    the case's name}}
    """

    files: dict
    tests: int
    ended: str  # "" when it ran to its end, else how it died and where
    seconds: float = 0


def not_root(command):
    """The command as a user that is not root; everything it writes to belongs to that user."""
    return ["runuser", "-u", "nobody", "--", *command] if os.getuid() == 0 else command


def own_folder(path):
    path.mkdir(parents=True)
    if os.getuid() == 0:
        shutil.chown(path, "nobody")
    return path


# ---------------------------------------------------------------------------------------------------------------
# Source and programs


def run_step(what, command, log):
    """Runs a preparing command; raises Unavailable with the end of what it printed."""
    with open(log, "wb") as out:
        status = subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
                                check=False).returncode
    if status != 0:
        lines = log.read_text(errors="replace").splitlines()
        print("\n".join(lines[-30:]))
        raise Unavailable(f"{what} failed with status {status}: {lines[-1] if lines else 'no output'}")


def fetch_source(work, release=""):
    """SQLite's source tree of the machine's own version, or of another Debian release: (folder, version)."""
    log = LOGS / f"fetch{release and '-' + release}.log"
    run_step("fetching SQLite's source", [HERE / "fetch_source", CACHE, release], log)
    tarball = pathlib.Path(log.read_text().splitlines()[-1])
    folder = work / f"source{release}"
    with tarfile.open(tarball) as archive:
        archive.extractall(folder)
    return next(folder.iterdir()), tarball.name.split("_")[1].removesuffix(".orig.tar.xz")


def linked_libraries():
    """The static library and what its pkg-config file says it needs, without the SQLite that testfixture is itself."""
    listing = subprocess.run(["pkg-config", "--libs", "litejoin"], capture_output=True, text=True, check=True,
                             env={**os.environ, "PKG_CONFIG_PATH": str(BUILD / "meson-private")})
    needed = [argument for argument in listing.stdout.split()
              if not argument.startswith("-L") and argument not in ("-llitejoin", "-lsqlite3")]
    return " ".join([str(BUILD / "liblitejoin.a"), *needed])


class Programs:
    """Builds the programs of one SQLite version when they are first asked for. The plain testfixture is kept in the cache."""

    def __init__(self, source, version, work):
        self.source = source
        self.version = version
        self.work = work
        self.mutex = threading.Lock()
        self.plain = None

    def build(self, variant, *more):
        folder = self.work / f"{variant}-{self.version}"
        run_step(f"building {variant}", [HERE / "build_fixture", variant, self.source, folder, *more],
                 LOGS / f"build-{variant}-{self.version}.log")
        return folder

    def litejoin(self, mptester):
        folder = self.build(LITEJOIN, linked_libraries())
        programs = {"testfixture": folder / "testfixture"}
        if mptester:
            programs[MPTESTER] = self.build(MPTESTER, linked_libraries()) / MPTESTER
        return programs

    def with_plain_unix(self):
        with self.mutex:
            if self.plain is None:
                cached = CACHE / f"testfixture-{self.version}"
                if not cached.exists():
                    shutil.copy(self.build(PLAIN) / "testfixture", cached)
                folder = self.work / f"plain-copy-{self.version}"
                folder.mkdir() # not below the source tree, which the other user may not be allowed to enter
                self.plain = {"testfixture": pathlib.Path(shutil.copy(cached, folder))}
            return self.plain


# ---------------------------------------------------------------------------------------------------------------
# Running


def litejoin_env(replica, opens):
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
        "SUITE_OPENS": str(opens),
    }


def parse(output, job):
    """Splits what a program printed into .test files."""
    files = {}
    names = []
    failed = set()
    said = {}
    tests = None

    def file_ended(name):
        file = files.setdefault(job.file_name(name), {"cases": [], "failed": [], "said": {}})
        file["cases"] += names
        file["failed"] += [case for case in names if case in failed]
        file["said"].update((case, said[case]) for case in names if case in failed and case in said)
        names.clear()

    lines = output.splitlines()
    for line in lines:
        if line.startswith(FAILURES):
            failed = set(line.removeprefix(FAILURES).split())
        elif match := TOTALS.match(line):
            tests = int(match[2])
    for line in lines:
        if match := TEST_NAME.match(line):
            names.append(match[1])
        elif match := FILE_END.match(line):
            file_ended(match[1])
        elif names and line.strip():
            said.setdefault(names[-1], line.strip())
    if names:
        file_ended(job.part if job.part.endswith(".test") else "(the last file)")
    unplaced = failed - {case for file in files.values() for case in file["cases"]}
    if unplaced:
        last = files.setdefault(job.file_name(job.part), {"cases": [], "failed": [], "said": {}})
        last["failed"] += sorted(unplaced)
    if job.kind == "mptest" and tests is not None:
        errors = int(next(match[1] for line in lines if (match := TOTALS.match(line))))
        files = {job.name: {"cases": [f"case {n + 1}" for n in range(tests)], "failed": [f"{errors} errors"] * (errors > 0)}}
    return files, tests


def run_job(variant, job, programs, tests, data, attempt, seconds):
    """Runs one job in a folder of its own below `data`."""
    tag = job.tag + (f"-again-{attempt}" if attempt else "")
    folder = own_folder(data / "run" / variant / tag)
    env = {key: value for key, value in os.environ.items() if not key.startswith("LITEJOIN_")}
    env.update({"TMPDIR": str(folder), "HOME": str(folder), "SQLITE_TESTS": str(tests)})
    if not job.files and "/" in job.part:
        env["TCLTEST_PART"] = job.part
    if variant == LITEJOIN:
        env.update(litejoin_env(own_folder(data / "replica" / tag), folder / "opens"))
    log = LOGS / f"{variant}-{tag}.log"
    command = not_root(["timeout", "--kill-after=10", str(seconds), *map(str, job.command(programs, tests))])
    start = time.monotonic()
    with open(log, "wb") as out:
        status = subprocess.run(command, cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=out,
                                stderr=subprocess.STDOUT, check=False).returncode
    files, count = parse(log.read_text(encoding="utf-8", errors="replace"), job)
    ended = ""
    if status == 124:
        ended = f"not finished after {seconds} s"
    elif count is None:
        ended = f"ended with status {status}"
    if ended:
        ended += f" in or after {list(files)[-1] if files else 'its start'}"
    took = time.monotonic() - start
    print(f"    {variant:<8} {job.name:<28} {count or 0:7} tests {took:6.1f} s", flush=True)
    sys.stdout.flush()
    return Outcome(files, count or 0, ended, took)


def opens_of(data, tag):
    """(databases, WALs) that the processes of a job opened through litejoin."""
    path = data / "run" / LITEJOIN / tag / "opens"
    counts = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
    return sum(int(row[0]) for row in counts), sum(int(row[1]) for row in counts)
