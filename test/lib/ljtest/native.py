"""native.py - builds the small C parts of the tests with the system's compiler, once, into .cache/ at the top."""

import hashlib
import os
import subprocess
import tempfile

_TOP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "..")


def shared_library(source, *flags):
    """The path of `source` (a C file) as a shared library; OSError or CalledProcessError when it cannot be built."""
    cache = os.path.abspath(os.path.join(_TOP, ".cache", "ljtest"))
    with open(source, "rb") as file:
        digest = hashlib.sha256(file.read()).hexdigest()[:12]
    library = os.path.join(cache, "%s-%s.so" % (os.path.splitext(os.path.basename(source))[0], digest))
    if not os.path.exists(library):
        os.makedirs(cache, exist_ok=True)
        handle, fresh = tempfile.mkstemp(dir=cache, suffix=".so")
        os.close(handle)
        subprocess.run([os.environ.get("CC", "cc"), "-O2", "-shared", "-fPIC", "-Wall", "-Wextra", "-o", fresh, source,
                        *flags], check=True)
        os.rename(fresh, library)
    return library
