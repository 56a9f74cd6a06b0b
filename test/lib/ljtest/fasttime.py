"""fasttime.py - clocks of a child process that run faster from a moment on (fasttime.c)."""

import os
import struct

from . import native


class Clock:
    """`path` is a file of the test's folder; the child gets environment()."""

    def __init__(self, path):
        self.path = path
        self.speed(1.0)

    def speed(self, factor):
        """So many seconds pass per real second, from now on."""
        mode = "r+b" if os.path.exists(self.path) else "wb"
        with open(self.path, mode) as file:
            file.write(struct.pack("=d", factor))

    def environment(self):
        source = os.path.join(os.path.dirname(os.path.abspath(__file__)), "fasttime.c")
        return {"LJ_FASTTIME": self.path, "LD_PRELOAD": native.shared_library(source, "-ldl", "-pthread")}
