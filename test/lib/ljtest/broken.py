"""broken.py - replicas that fail, and heal again: a file where the folder should be, a read-only or full file system."""

import contextlib
import ctypes
import errno
import os
import subprocess


AT_FDCWD = -100
RENAME_EXCHANGE = 2
_libc = ctypes.CDLL(None, use_errno=True)


def exchange(one, two):
    """Two names change what they stand for, in one step: who works below them meanwhile finds no moment without either."""
    if _libc.renameat2(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(two), RENAME_EXCHANGE):
        code = ctypes.get_errno()
        if code not in (errno.EINVAL, errno.ENOSYS):
            raise OSError(code, os.strerror(code), one)
        os.rename(one, one + ".between")  # a file system that cannot
        os.rename(two, one)
        os.rename(one + ".between", two)


class FileInTheWay:
    """Moves a folder aside and puts a file under its name, so that every path below it fails with ENOTDIR."""

    def __init__(self, folder):
        self.folder = folder
        self.aside = folder + ".aside"
        self.broken = False

    def fail(self):
        there = os.path.isdir(self.folder)
        with open(self.aside if there else self.folder, "w") as file:
            file.write("in the way\n")
        if there:
            exchange(self.folder, self.aside)
        self.broken = True

    def heal(self):
        if self.broken:
            there = os.path.isdir(self.aside)
            if there:
                exchange(self.folder, self.aside)
            os.unlink(self.aside if there else self.folder)
            self.broken = False


class Tmpfs:
    """A small file system of its own; needs root. Unmounted at the end of the `with` block."""

    def __init__(self, folder, size):
        self.folder = folder
        self.size = size
        self._filler = os.path.join(folder, "filler")

    def __enter__(self):
        os.makedirs(self.folder, exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=%s" % self.size, "none", self.folder], check=True)
        return self

    def __exit__(self, *_):
        if subprocess.run(["umount", self.folder], stderr=subprocess.DEVNULL).returncode:
            subprocess.run(["umount", "-l", self.folder])

    def fill(self, leave=0):
        """Uses up the space but for `leave` bytes."""
        with contextlib.suppress(OSError), open(self._filler, "ab", buffering=0) as file:
            while file.write(bytes(65536)) == 65536:
                pass
        with open(self._filler, "ab", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
        if leave:
            os.truncate(self._filler, max(0, os.path.getsize(self._filler) - leave))

    def free(self):
        if os.path.exists(self._filler):
            os.unlink(self._filler)

    def read_only(self):
        subprocess.run(["mount", "-o", "remount,ro", self.folder], check=True)

    def read_write(self):
        subprocess.run(["mount", "-o", "remount,rw", self.folder], check=True)
