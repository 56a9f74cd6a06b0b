"""inotify.py - the order in which files of a folder appear and disappear, from the kernel."""

import ctypes
import os
import struct

IN_MOVED_TO = 0x80
IN_CREATE = 0x100
IN_DELETE = 0x200
_IN_NONBLOCK = 0o4000

_libc = ctypes.CDLL(None, use_errno=True)


class Watch:
    """Watches folders (not their subfolders). `events()` gives what happened since, in order: (kind, folder, name)."""

    def __init__(self, *folders):
        self.fd = _libc.inotify_init1(_IN_NONBLOCK)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")
        self.folders = {}
        for folder in folders:
            number = _libc.inotify_add_watch(self.fd, os.fsencode(folder), IN_MOVED_TO | IN_CREATE | IN_DELETE)
            if number < 0:
                raise OSError(ctypes.get_errno(), "inotify_add_watch", folder)
            self.folders[number] = folder

    def events(self):
        found = []
        while True:
            try:
                data = os.read(self.fd, 1 << 16)
            except BlockingIOError:
                return found
            at = 0
            while at < len(data):
                watch, mask, _, size = struct.unpack_from("iIII", data, at)
                name = data[at + 16:at + 16 + size].rstrip(b"\0").decode()
                at += 16 + size
                kind = "deleted" if mask & IN_DELETE else "made"
                found.append((kind, self.folders.get(watch, ""), name))

    def close(self):
        os.close(self.fd)
