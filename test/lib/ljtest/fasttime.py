"""fasttime.py - clocks of a child process that run faster from a moment on (fasttime.c)."""

import mmap
import os
import struct
import time

from . import native

SCHEDULE = struct.Struct("=Qqqd")  # struct schedule of fasttime.c


class Clock:
    """`path` is a file of the test's folder; the child gets environment()."""

    def __init__(self, path):
        self.path = path
        self._changes = 0
        self._since_ns = time.monotonic_ns()
        self._ahead_ns = 0
        self._speed = 1.0
        with open(path, "wb") as file:
            file.write(bytes(SCHEDULE.size))
        with open(path, "r+b") as file:
            self._map = mmap.mmap(file.fileno(), SCHEDULE.size)
        self.speed(1.0)

    def speed(self, factor):
        """So many seconds pass per real second, from now on."""
        now_ns = time.monotonic_ns()
        self._ahead_ns += int((now_ns - self._since_ns) * (self._speed - 1.0))
        self._since_ns, self._speed = now_ns, factor
        self._store(self._changes + 1)
        self._map[8:] = SCHEDULE.pack(0, self._since_ns, self._ahead_ns, self._speed)[8:]
        self._store(self._changes + 1)

    def _store(self, changes):
        self._changes = changes
        self._map[:8] = struct.pack("=Q", changes)

    def environment(self):
        source = os.path.join(os.path.dirname(os.path.abspath(__file__)), "fasttime.c")
        return {"LJ_FASTTIME": self.path, "LD_PRELOAD": native.shared_library(source, "-ldl", "-pthread")}
