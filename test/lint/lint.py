#!/usr/bin/python3
"""lint.py - the static checks; each is one test.

clang-format, clang-tidy (.clang-tidy), cppcheck, gcc with warnings as errors, shellcheck, the public header alone
in C and C++, the symbols of the built libraries, and the project's own rules (source_rules.py). Wants LJ_BUILD, a configured and
compiled build folder. Suppressions stand at the line they are for, with a reason.
"""

import concurrent.futures
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import tempfile

import source_rules

ROOT = source_rules.ROOT
BUILD = pathlib.Path(os.environ["LJ_BUILD"])
JOBS = int(os.environ.get("LJ_JOBS", "2"))
SHOWN_LINES = 80

ENTRY_POINT = "sqlite3_litejoinvfs_init"
OWN_SYMBOL = re.compile(r"^(lj_|litejoin_|sqlite3_litejoinvfs_init$)")


def run(command, cwd=ROOT):
    """Status and everything the command printed."""
    done = subprocess.run(command, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, errors="replace", check=False)
    return done.returncode, done.stdout


def tracked_files():
    """What is in the repository or about to be."""
    status, out = run(["git", "-c", "safe.directory=*", "ls-files", "--cached", "--others", "--exclude-standard"])
    if status != 0:
        raise SystemExit(f"not ok - files: git ls-files failed: {out}")
    return [path for path in out.splitlines() if (ROOT / path).is_file()]


def compile_commands():
    """The compiled C files of this repository, with the arguments they are compiled with."""
    entries = json.loads((BUILD / "compile_commands.json").read_text(encoding="utf-8"))
    seen = set()
    for entry in entries:
        path = os.path.normpath(os.path.join(entry["directory"], entry["file"]))
        if path.startswith(str(ROOT)) and path not in seen:
            seen.add(path)
            yield os.path.relpath(path, ROOT), shlex.split(entry["command"]), entry["directory"]


def in_parallel(jobs):
    """Runs [(command, folder)]; returns what the failing ones printed."""
    with concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
        results = list(pool.map(lambda job: run(*job), jobs))
    return [line for status, out in results if status != 0 for line in out.splitlines()]


def clang_format(files):
    bad = []
    for path in filter(source_rules.is_c, files):
        status, _ = run(["clang-format", "--dry-run", "--Werror", path])
        if status != 0:
            bad.append(f"{path}: not as clang-format would write it")
    return bad


def clang_tidy(_files):
    # ipa=none: the analyzer does not follow calls. Followed only as far as one file goes, it believes that functions of other
    # files may fail and still say LJ_OK, and every finding it then makes is wrong (and it takes three times as long).
    options = ["--extra-arg=-Wno-unknown-warning-option", "--extra-arg=-Xclang", "--extra-arg=-analyzer-config",
               "--extra-arg=-Xclang", "--extra-arg=ipa=none"]
    # One file per call: version 14 carries analyzer state from file to file and then reports va_lists that are fine.
    jobs = [(["clang-tidy", "-p", str(BUILD), "--quiet", *options, path], ROOT) for path, _, _ in compile_commands()]
    return sorted({line for line in in_parallel(jobs) if " error: " in line})


def cppcheck(_files):
    status, out = run(["cppcheck", f"--project={BUILD}/compile_commands.json", f"-j{JOBS}", "--inline-suppr", "--quiet",
                       "--enable=warning,performance,portability", "--template=gcc", "--error-exitcode=1",
                       "--suppress=*:/usr/include/*"])  # the include paths of libraries show it the system's headers
    return out.splitlines() if status != 0 else []


def built_without_warnings():
    """The build folder was compiled with warnings as errors, and nothing has changed since."""
    options = json.loads((BUILD / "meson-info" / "intro-buildoptions.json").read_text(encoding="utf-8"))
    strict = any(option["name"] == "werror" and option["value"] is True for option in options)
    status, out = run(["ninja", "-C", str(BUILD), "-n"])
    return strict and status == 0 and "no work to do" in out


def gcc_warnings(_files):
    if built_without_warnings():
        return []
    jobs = []
    for _, command, folder in compile_commands():
        arguments = iter(command)
        kept = []
        for argument in arguments:
            if argument in ("-o", "-MF", "-MQ"):
                next(arguments)
            elif argument != "-MD":
                kept.append(argument)
        jobs.append(([*kept, "-Werror", "-o", "/dev/null"], folder))
    return in_parallel(jobs)


def shell_scripts(files):
    for path in files:
        first = source_rules.read(path)[:80].splitlines()[:1]
        if path.endswith(".sh") or (first and re.match(r"#!.*\b(ba)?sh\b", first[0])):
            yield path


def shellcheck(files):
    scripts = list(shell_scripts(files))
    status, out = run(["shellcheck", "--external-sources", "--format=gcc", *scripts])
    return out.splitlines() if status != 0 else []


def public_header(_files):
    """Includes nothing of ours, and is the same in both languages."""
    bad = []
    with tempfile.TemporaryDirectory() as folder:
        for compiler, flags, name in (("clang", ["-std=c11"], "alone.c"), ("clang++", ["-std=c++11"], "alone.cc")):
            source = pathlib.Path(folder, name)
            source.write_text('#include "litejoin_vfs.h"\n#include "litejoin_vfs.h"\n', encoding="utf-8")
            status, out = run([compiler, *flags, "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only",
                               f"-I{ROOT}/include", str(source)])
            if status != 0:
                bad += out.splitlines()
    return bad


def symbols(path, *options):
    status, out = run(["nm", *options, "--format=posix", str(path)])
    if status != 0:
        return None
    return [line.split()[0] for line in out.splitlines() if line and not line.endswith(":")]


def extension_symbols(_files):
    """The extension shows its entry point and litejoin_*, and takes SQLite from its host only by the function table."""
    path = BUILD / "litejoin_vfs.so"
    defined = symbols(path, "-D", "--defined-only")
    wanted = symbols(path, "-D", "--undefined-only")
    if defined is None or wanted is None:
        return [f"{path} is not there"]
    bad = [f"{name}: exported" for name in defined if name != ENTRY_POINT and not name.startswith("litejoin_")]
    if ENTRY_POINT not in defined:
        bad.append(f"{ENTRY_POINT}: not exported")
    return bad + [f"{name}: wanted from a linked SQLite" for name in wanted if name.startswith("sqlite3_")]


def library_symbols(_files):
    """A static library has no hidden symbols: what it defines must not collide with its host's names."""
    path = BUILD / "liblitejoin.a"
    defined = symbols(path, "-g", "--defined-only")
    if defined is None:
        return [f"{path} is not there"]
    return [f"{name}: defined without a prefix of ours" for name in defined if not OWN_SYMBOL.match(name)]


CHECKS = {
    "clang-format": (clang_format, "clang-format"),
    "clang-tidy": (clang_tidy, "clang-tidy"),
    "cppcheck": (cppcheck, "cppcheck"),
    "gcc without warnings": (gcc_warnings, "gcc"),
    "shellcheck": (shellcheck, "shellcheck"),
    "public header alone in C and C++": (public_header, "clang"),
    "symbols of the extension": (extension_symbols, "nm"),
    "symbols of the static library": (library_symbols, "nm"),
}


def report(name, bad):
    if not bad:
        print(f"ok - {name}", flush=True)
        return
    for line in bad[:SHOWN_LINES]:
        print(f"    {line}")
    if len(bad) > SHOWN_LINES:
        print(f"    ... and {len(bad) - SHOWN_LINES} lines more")
    print(f"not ok - {name}: {len(bad)} lines of findings, above", flush=True)


def main():
    files = tracked_files()
    for name, rule in source_rules.RULES.items():
        report(name, rule(files))
    for name, (check, program) in CHECKS.items():
        if shutil.which(program) is None:
            print(f"not ok - {name}: {program} is not installed", flush=True)
        else:
            report(name, check(files))


if __name__ == "__main__":
    main()
