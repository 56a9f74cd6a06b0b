"""source_rules.py - rules of this project that no ready-made tool checks, over the text of the tracked files.

Every rule is a function that takes the list of files (paths relative to the root) and returns its findings as
"file:line: what" lines; RULES names them. Comments and string literals do not count as code.
"""

import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[2]

TOP_LEVEL = {"vfs", "include", "test", "tools", "meson.build", "meson_options.txt", "README.md", "LICENSE"}

# From the bottom up; a layer may include itself and what stands before it.
LAYERS = ("base", "wal", "codec", "storage", "replica", "capture", "restore", "ship", "config", "shim")

# Unbounded, or blind to errors; there is a bounded way for each.
BANNED_EVERYWHERE = ("sprintf", "vsprintf", "strcpy", "strcat", "strtok", "atoi", "atol", "atoll", "atof", "gets")
# The extension lives in someone else's process.
BANNED_IN_HOST = ("system", "popen", "fork", "vfork", "exit", "_exit", "_Exit", "quick_exit", "abort", "assert", "raise",
                  "kill", "signal", "sigaction", "setjmp", "sigsetjmp", "longjmp", "siglongjmp")
PRINTS_IN_HOST = ("printf", "vprintf", "puts", "putchar", "perror")

FILE_LINES_MAX = 600

SUPPRESSION = re.compile(r"(cppcheck-suppress\S*|NOLINT\w*(?:\([^)]*\))?|shellcheck disable=\S+)(.*)")
UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX|HACK|TBD)\b")
TOKENS = re.compile(r"""//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'""", re.DOTALL)
INCLUDE = re.compile(r'^\s*#\s*include\s+"vfs/([a-z0-9_]+)/', re.MULTILINE)


def read(path):
    return (ROOT / path).read_text(encoding="utf-8", errors="replace")


def is_c(path):
    return path.endswith((".c", ".h"))


def in_host(path):
    """Compiled into the application's process."""
    return path.startswith("vfs/") and is_c(path)


def code_only(text):
    """Comments and literals blanked out, line breaks kept."""
    return TOKENS.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), text)


def findings(path, text, pattern, describe):
    for match in pattern.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        yield f"{path}:{line}: {describe(match)}"


def calls(files, names):
    pattern = re.compile(r"(?<![\w.>])(" + "|".join(names) + r")\s*\(")
    out = []
    for path in files:
        out += findings(path, code_only(read(path)), pattern, lambda match: f"{match[1]}() is not allowed here")
    return out


def banned_functions(files):
    return calls(filter(is_c, files), BANNED_EVERYWHERE)


def host_process(files):
    return calls(filter(in_host, files), BANNED_IN_HOST)


def host_output(files):
    out = calls(filter(in_host, files), PRINTS_IN_HOST)
    pattern = re.compile(r"\b(stdout|stderr|STDOUT_FILENO|STDERR_FILENO)\b")
    for path in filter(in_host, files):
        out += findings(path, code_only(read(path)), pattern, lambda match: f"{match[1]} belongs to the application")
    return out


def layers(files):
    out = []
    for path in filter(in_host, files):
        layer = path.split("/")[1]
        for match in INCLUDE.finditer(read(path)):
            if layer not in LAYERS or match[1] not in LAYERS:
                out.append(f"{path}: '{layer}' or '{match[1]}' is no layer")
            elif LAYERS.index(match[1]) > LAYERS.index(layer):
                out.append(f"{path}: layer {layer} includes {match[1]}, which stands above it")
    return out


def suppressions(files):
    """A suppressed finding says why behind the suppression: `NOLINTNEXTLINE(check): why`."""
    out = []
    for path in files:
        if path.startswith("test/lint/") or path == ".clang-tidy":
            continue
        for number, line in enumerate(read(path).splitlines(), 1):
            match = SUPPRESSION.search(line)
            if match and len(re.sub(r"[^A-Za-z]", "", match[2])) < 8:
                out.append(f"{path}:{number}: {match[1]} without a reason")
    return out


def unfinished(files):
    out = []
    for path in files:
        if not path.startswith("test/lint/") and path != "LICENSE":
            out += findings(path, read(path), UNFINISHED, lambda match: f"{match[1]} left in")
    return out


def file_heads(files):
    """Every source file begins by saying what it is for."""
    out = []
    for path in files:
        lines = read(path).splitlines()
        first = lines[0] if lines else ""
        if is_c(path):
            good = first.startswith("/*")
        elif path.endswith(".py") or first.startswith("#!"):
            if first.startswith("#!"):
                first = lines[1] if len(lines) > 1 else ""
            good = first.startswith(("#", '"""'))
        else:
            continue
        if not good:
            out.append(f"{path}:1: no comment that says what the file is for")
    return out


def file_lengths(files):
    out = []
    for path in files:
        if is_c(path) and not path.startswith("test/"):
            count = read(path).count("\n")
            if count > FILE_LINES_MAX:
                out.append(f"{path}: {count} lines, the limit is {FILE_LINES_MAX}")
    return out


def top_level(files):
    names = {path.split("/")[0] for path in files}
    return [f"{name}: not one of the names allowed at the top level"
            for name in sorted(names) if name not in TOP_LEVEL and not name.startswith(".")]


RULES = {
    "names at the top level": top_level,
    "banned functions": banned_functions,
    "the library leaves its host process alone": host_process,
    "the library prints nothing": host_output,
    "layers only look down": layers,
    "suppressions say why": suppressions,
    "nothing left unfinished": unfinished,
    "file heads": file_heads,
    "file lengths": file_lengths,
}
