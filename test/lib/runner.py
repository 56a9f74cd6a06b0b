#!/usr/bin/python3
"""runner.py - runs the scripts of the chosen stages, counts their tests, and prints the summary of test/run.

    runner.py [--failed WHAT]... STAGE...

Called by test/run, which has installed and built everything and says where in the environment (LJ_BUILD,
LJ_BUILD_ASAN, LJ_BUILD_TSAN, LJ_BUILD_FUZZ, LITESTREAM_BIN, LJ_LONG, LJ_JOBS, LJ_FUZZ_SECONDS). Each --failed is something it could not do.

What a script of a stage prints, one line per test:

    ok - NAME
    not ok - NAME: why
    skip - NAME: why
    note - anything worth showing though nothing failed

The TAP lines of cmocka and of the fuzz replays ("ok 3 - NAME", "1..7") count the same way; a cmocka test that skips prints
"skipped: why" just before. A script that ends with a status other than 0 without a "not ok" line, prints no test at all, prints fewer than it announced, skips
without a reason, or runs out of time has one failure more. Everything it printed is kept in .cache/test-logs.

Two groups of stages, one after the other; within a group the scripts of all stages share the machine, the largest first. Scripts that
talk to servers and wait for what replication does use little of it, so more of them run at once than there are cores.
What computes (unit, sqlite, lint) has the second group.

A Python script may say in a comment line of its head `# run-alone` (nothing else runs beside it: for tests that measure
time) and `# timeout: SECONDS` (default 1200, four times that with --long).
"""

import concurrent.futures
import dataclasses
import json
import os
import pathlib
import platform
import re
import resource
import shutil
import signal
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
LOGS = ROOT / ".cache" / "test-logs"
PYTHON = "/usr/bin/python3"
STAGE_FOLDERS = ("integration", "clients", "storage", "interop", "crash", "fault")
TIMEOUT_SECONDS = 1200
WAITING_AT_ONCE = 2  # scripts per core
UNIT_PATIENCE = 4  # times meson's timeout, which is meant for a machine that does nothing else
FUZZ_SECONDS = int(os.environ.get("LJ_FUZZ_SECONDS", "120"))
SHOWN_LOG_LINES = 40
SHOWN_LOG_LINES_MAX = 200

RESULT_LINE = re.compile(r"^(ok|not ok|skip)(?: \d+)? - (.*)$")
TAP_SKIP_LINE = re.compile(r"^(?:not )?ok \d+ # SKIP ?(.*)$")
SKIP_REASON = "skipped: "
TAP_PLAN_LINE = re.compile(r"^1\.\.(\d+)$")


@dataclasses.dataclass
class Script:
    """One program to run, and how."""

    name: str
    command: list
    env: dict = dataclasses.field(default_factory=dict)
    timeout: float = TIMEOUT_SECONDS
    alone: bool = False
    size: int = 0  # those that take long have to begin early


@dataclasses.dataclass
class Result:
    """What one script, or one stage, came to."""

    passed: list = dataclasses.field(default_factory=list)
    failed: list = dataclasses.field(default_factory=list)
    skipped: list = dataclasses.field(default_factory=list)
    notes: list = dataclasses.field(default_factory=list)
    log: pathlib.Path = None
    seconds: float = 0

    def add(self, other):
        self.passed += other.passed
        self.failed += other.failed
        self.skipped += other.skipped


def environment(extra):
    """The caller's environment without litejoin's own variables, which would change what is tested."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("LITEJOIN_")}
    env.update(extra)
    return env


# ---------------------------------------------------------------------------------------------------------------
# What belongs to each stage


def sanitizer_env():
    return {
        "ASAN_OPTIONS": "detect_leaks=1:strict_string_checks=1:detect_stack_use_after_return=1",
        "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
        "TSAN_OPTIONS": "second_deadlock_stack=1",
    }


def without_address_randomisation():
    """ThreadSanitizer of this age cannot place its shadow memory on kernels that randomise much; [] where not allowed."""
    prefix = ["setarch", platform.machine(), "-R"]
    if shutil.which("setarch") and subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode == 0:
        return prefix
    return []


def meson_scripts(build, label):
    """The tests meson knows in one build folder, each as a script of its own."""
    listing = subprocess.run(["meson", "introspect", "--tests", build], capture_output=True, text=True, check=True)
    prefix = without_address_randomisation() if label == "tsan" else []
    for test in json.loads(listing.stdout):
        env = {**sanitizer_env(), **test["env"], "CMOCKA_MESSAGE_OUTPUT": "TAP"}
        suite = test["suite"][0].split(":")[-1] if test["suite"] else "unit"
        name = test["name"] if suite == "unit" else f"{suite}/{test['name']}"
        yield Script(f"{label} {name}", [*prefix, *test["cmd"]], env, UNIT_PATIENCE * float(test["timeout"]))


def unit_scripts():
    for label, variable in (("plain", "LJ_BUILD"), ("asan", "LJ_BUILD_ASAN"), ("tsan", "LJ_BUILD_TSAN")):
        if variable in os.environ:
            yield from meson_scripts(os.environ[variable], label)


def head_comments(path):
    with open(path, encoding="utf-8") as file:
        return [line.strip() for _, line in zip(range(40), file) if line.startswith("#")]


def folder_scripts(stage):
    """test/<stage>/test_*.py"""
    for path in sorted((ROOT / "test" / stage).glob("test_*.py")):
        script = Script(path.stem.removeprefix("test_"), [PYTHON, str(path)], size=path.stat().st_size)
        for line in head_comments(path):
            if line == "# run-alone":
                script.alone = True
            if match := re.fullmatch(r"# timeout: (\d+)", line):
                script.timeout = float(match[1])
        if "LJ_LONG" in os.environ:
            script.timeout *= 4
        yield script


def sqlite_scripts():
    timeout = 4 * 3600 if "LJ_LONG" in os.environ else 2400
    yield Script("suite", [PYTHON, str(ROOT / "test/sqlite/suite.py")], timeout=timeout, size=2)


def lint_scripts():
    yield Script("lint", [PYTHON, str(ROOT / "test/lint/lint.py")], timeout=1200, size=1)


def fuzz_scripts():
    """libFuzzer on a copy of each corpus; what it finds stays in .cache/fuzz."""
    if "LJ_BUILD_FUZZ" not in os.environ:
        return
    for program in sorted(pathlib.Path(os.environ["LJ_BUILD_FUZZ"], "test", "fuzz").glob("fuzz_*")):
        if not program.is_file():
            continue
        name = program.name.removeprefix("fuzz_")
        command = [str(ROOT / "test/fuzz/run_one"), str(program), str(ROOT / "test/fuzz/corpus" / name),
                   str(ROOT / ".cache/fuzz"), str(FUZZ_SECONDS)]
        yield Script(name, command, sanitizer_env(), FUZZ_SECONDS + 120)


def stage_scripts(stage):
    if stage in STAGE_FOLDERS:
        return list(folder_scripts(stage))
    by_name = {"unit": unit_scripts, "sqlite": sqlite_scripts, "lint": lint_scripts, "fuzz": fuzz_scripts}
    return list(by_name[stage]())


# ---------------------------------------------------------------------------------------------------------------
# Running and counting


def kill_group(process):
    """Ends what the script has left running; it leads a process group of its own."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def run_to_log(script, log):
    """Returns the exit status, or None when the time was up."""
    with open(log, "wb") as out:
        process = subprocess.Popen(script.command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
                                   env=environment(script.env), cwd=ROOT, start_new_session=True)
        try:
            return process.wait(script.timeout)
        except subprocess.TimeoutExpired:
            return None
        finally:
            kill_group(process)
            process.wait()


def read_results(log):
    result = Result(log=log)
    planned = None
    reason = ""
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        if match := TAP_SKIP_LINE.match(line):
            (result.skipped if reason else result.failed).append(f"{match[1]}: {reason or 'skipped without a reason'}")
        elif match := RESULT_LINE.match(line):
            kind, text = match.groups()
            if kind == "skip" and ": " not in text:
                result.failed.append(f"{text}: skipped without a reason")
            else:
                {"ok": result.passed, "not ok": result.failed, "skip": result.skipped}[kind].append(text)
        elif match := TAP_PLAN_LINE.match(line):
            planned = (planned or 0) + int(match[1])
        elif line.startswith(SKIP_REASON):
            reason = line.removeprefix(SKIP_REASON)
            continue
        elif line.startswith("note - "):
            result.notes.append(line.removeprefix("note - "))
        reason = ""
    return result, planned


def run_script(stage, script):
    folder = LOGS / stage
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / (re.sub(r"[^A-Za-z0-9_.-]+", "-", script.name) + ".log")
    start = time.monotonic()
    status = run_to_log(script, log)
    result, planned = read_results(log)
    result.seconds = time.monotonic() - start
    count = len(result.passed) + len(result.failed) + len(result.skipped)
    if status is None:
        result.failed.append(f"not finished after {script.timeout:.0f} s")
    elif status != 0 and not result.failed:
        result.failed.append(f"ended with status {status} without saying which test failed")
    elif planned is not None and count < planned and not result.failed:
        result.failed.append(f"ran {count} of the {planned} tests it announced")
    elif count == 0 and not result.failed:
        result.failed.append("ran no test")
    for kind in (result.passed, result.failed, result.skipped):
        kind[:] = [f"{script.name}: {text}" for text in kind]
    return result


def show_log(log):
    """What the script printed just before each failure; the end of it when there is no such line."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    is_result = [bool(RESULT_LINE.match(line) or TAP_SKIP_LINE.match(line)) for line in lines]
    wanted = set()
    for number, line in enumerate(lines):
        if line.startswith("not ok"):
            begin = number
            while begin > 0 and number - begin < SHOWN_LOG_LINES and not is_result[begin - 1]:
                begin -= 1
            wanted.update(range(begin, number + 1))
    wanted = sorted(wanted)[:SHOWN_LOG_LINES_MAX] or range(max(0, len(lines) - SHOWN_LOG_LINES), len(lines))
    print(f"    from {log.relative_to(ROOT)}:")
    for number in wanted:
        print(f"    | {lines[number]}")


def show(stage, script, result):
    counts = f"{len(result.passed)} passed"
    if result.failed:
        counts += f", {len(result.failed)} FAILED"
    if result.skipped:
        counts += f", {len(result.skipped)} skipped"
    print(f"{stage + ' ' + script.name:<40} {counts} ({result.seconds:.1f} s)")
    for text in result.notes:
        print(f"    {text}")
    for text in result.skipped:
        print(f"    skip - {text}")
    for text in result.failed:
        print(f"    not ok - {text}")
    if result.failed and result.log is not None:
        show_log(result.log)
    sys.stdout.flush()


def scripts_of(stage, total):
    """The scripts of a stage; whatever keeps it from being run is a failure of it."""
    if "LJ_BUILD" not in os.environ and stage != "fuzz":
        total.skipped.append("all: the plain build failed")
        return []
    try:
        scripts = stage_scripts(stage)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        total.failed.append(f"all: the stage could not be run: {error}")
        return []
    if not scripts:
        total.skipped.append("all: this stage has no test script")
    return scripts


def cpu_seconds():
    """Of everything that was started and waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run_group(stages, at_once):
    """{stage: Result}; the scripts of all these stages together."""
    print(f"\n== {' '.join(stages)}", flush=True)
    start = time.monotonic()
    cpu = cpu_seconds()
    totals = {stage: Result() for stage in stages}

    def run(stage, script):
        try:
            return run_script(stage, script)
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            return Result(failed=[f"{script.name}: could not be run: {error}"])

    def note(stage, script, result):
        show(stage, script, result)
        totals[stage].add(result)
        totals[stage].seconds += result.seconds

    scripts = [(stage, script) for stage in stages for script in scripts_of(stage, totals[stage])]
    scripts.sort(key=lambda pair: -pair[1].size)
    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        futures = {pool.submit(run, *pair): pair for pair in scripts if not pair[1].alone}
        for future in concurrent.futures.as_completed(futures):
            note(*futures[future], future.result())
    for pair in scripts:
        if pair[1].alone:
            note(*pair, run(*pair))
    took = time.monotonic() - start
    print(f"({took:.0f} s, {cpu_seconds() - cpu:.0f} s of CPU)", flush=True)
    return totals


def summary(stages, broken, seconds):
    """The seconds of a stage are those of its scripts, most of which run side by side."""
    print(f"\n== summary ({seconds:.0f} s)")
    for stage, total in stages.items():
        print(f"{stage:<12} {len(total.passed):6} passed {len(total.failed):6} failed {len(total.skipped):6} skipped"
              f" {total.seconds:8.1f} s")
    for what in broken:
        print(f"not ok - {what}")
    for stage, total in stages.items():
        for text in total.failed:
            print(f"not ok - {stage}: {text}")
    for stage, total in stages.items():
        for text in total.skipped:
            print(f"skip - {stage}: {text}")
    passed = sum(len(total.passed) for total in stages.values())
    failed = sum(len(total.failed) for total in stages.values()) + len(broken)
    skipped = sum(len(total.skipped) for total in stages.values())
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return failed == 0 and passed > 0


def main():
    broken = []
    arguments = sys.argv[1:]
    while arguments[:1] == ["--failed"]:
        broken.append(arguments[1])
        arguments = arguments[2:]
    jobs = int(os.environ.get("LJ_JOBS", "2"))
    start = time.monotonic()
    waiting = [stage for stage in arguments if stage in STAGE_FOLDERS]
    computing = [stage for stage in arguments if stage not in STAGE_FOLDERS]
    results = {}
    if waiting:
        results.update(run_group(waiting, WAITING_AT_ONCE * jobs))
    if computing:
        results.update(run_group(computing, jobs + 1))
    stages = {stage: results[stage] for stage in arguments}
    good = summary(stages, broken, time.monotonic() - start)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
