"""broken.py - replicas that fail, and heal again: a file where the folder should be, a read-only or full file system."""

import contextlib
import errno
import os
import subprocess


class FileInTheWay:
    """Moves a folder aside and puts a file under its name, so that every path below it fails with ENOTDIR."""

    def __init__(self, folder):
        self.folder = folder
        self.aside = folder + ".aside"
        self.broken = False

    def fail(self):
        if os.path.isdir(self.folder):
            os.rename(self.folder, self.aside)
        with open(self.folder, "w") as file:
            file.write("in the way\n")
        self.broken = True

    def heal(self):
        if self.broken:
            os.unlink(self.folder)
            if os.path.isdir(self.aside):
                os.rename(self.aside, self.folder)
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
