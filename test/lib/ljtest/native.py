"""native.py - builds the small C parts of the tests with the system's compiler, once, into .cache/ at the top."""

import hashlib
import os
import subprocess
import tempfile

_TOP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "..")


def shared_library(source, *flags):
    """The path of `source` (a C file) as a shared library; OSError or CalledProcessError when it cannot be built."""
    return _build(source, ".so", "-shared", "-fPIC", *flags)


def program(source, *flags):
    """The path of `source` (a C file) as a program; `flags` are what it is linked with."""
    return _build(source, "", *flags)


def _build(source, suffix, *flags):
    cache = os.path.abspath(os.path.join(_TOP, ".cache", "ljtest"))
    with open(source, "rb") as file:
        digest = hashlib.sha256(file.read()).hexdigest()[:12]
    result = os.path.join(cache, "%s-%s%s" % (os.path.splitext(os.path.basename(source))[0], digest, suffix))
    if not os.path.exists(result):
        os.makedirs(cache, exist_ok=True)
        handle, fresh = tempfile.mkstemp(dir=cache, suffix=suffix)
        os.close(handle)
        subprocess.run([os.environ.get("CC", "cc"), "-O2", "-Wall", "-Wextra", "-o", fresh, source, *flags], check=True)
        os.chmod(fresh, 0o755)
        os.rename(fresh, result)
    return result
