"""held.py - a process whose own threads are held at a place while the test looks at what others can do (hold.c)."""

import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))

from ljtest import harness, native  # noqa: E402
from ljtest.harness import wait_for  # noqa: E402


class Hold:
    """At `kind` (see hold.c), on a file in `folder`. The process to be held gets environment()."""

    def __init__(self, folder, kind):
        self.folder, self.kind = folder, kind

    def environment(self):
        try:
            library = native.shared_library(os.path.join(HERE, "hold.c"), "-ldl")
        except (OSError, subprocess.CalledProcessError) as error:
            raise harness.Skip("cannot build hold.c: %s" % error)
        return {"LD_PRELOAD": library, "LJ_HOLD": self.kind, "LJ_HOLD_DIR": self.folder}

    def wait(self, what):
        wait_for(lambda: os.path.exists(os.path.join(self.folder, "held")), what, 60)

    def let_go(self):
        with open(os.path.join(self.folder, "go"), "w", encoding="utf-8"):
            pass
