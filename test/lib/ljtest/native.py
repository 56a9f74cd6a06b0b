"""native.py - builds the small C parts of the tests with the system's compiler, once, into .cache/ at the top."""

import hashlib
import os
import re
import subprocess
import tempfile

_TOP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "..")


def shared_library(sources, *flags):
    """The path of a shared library of C files (one, or several); OSError or CalledProcessError when it cannot be built."""
    return _build(sources, ".so", "-shared", "-fPIC", *flags)


def program(sources, *flags):
    """The path of a program of C files (one, or several); `flags` are what it is linked with."""
    return _build(sources, "", *flags)


def _text(path):
    """A file, and what it includes by a path of its own: what the result depends on."""
    with open(path, "rb") as file:
        text = file.read()
    for name in re.findall(rb'^#include "([^"]+)"', text, re.MULTILINE):
        text += _text(os.path.join(os.path.dirname(path), name.decode()))
    return text


def _build(sources, suffix, *flags):
    """Named by the first of the sources and what is in all of them."""
    sources = [sources] if isinstance(sources, str) else list(sources)
    cache = os.path.abspath(os.path.join(_TOP, ".cache", "ljtest"))
    digest = hashlib.sha256(b"".join(_text(source) for source in sources)).hexdigest()[:12]
    result = os.path.join(cache, "%s-%s%s" % (os.path.splitext(os.path.basename(sources[0]))[0], digest, suffix))
    if not os.path.exists(result):
        os.makedirs(cache, exist_ok=True)
        handle, fresh = tempfile.mkstemp(dir=cache, suffix=suffix)
        os.close(handle)
        subprocess.run([os.environ.get("CC", "cc"), "-O2", "-Wall", "-Wextra", "-o", fresh, *sources, *flags], check=True)
        os.chmod(fresh, 0o755)
        os.rename(fresh, result)
    return result
