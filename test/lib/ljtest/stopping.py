"""stopping.py - stops a process so that it has stopped when the call returns, and looks at the locks of others."""

import fcntl
import os
import signal
import struct

from .harness import wait_for

SIGCONT = signal.SIGCONT


def _stopped(pid):
    for task in os.listdir("/proc/%d/task" % pid):
        try:
            with open("/proc/%d/task/%s/stat" % (pid, task)) as file:
                state = file.read().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            continue  # the thread has ended
        if state not in "Tt":
            return False
    return True


def stop(pid):
    """SIGSTOP. One thread takes a signal: on a busy machine the others run on for a while, and may well take over an uploader's role."""
    os.kill(pid, signal.SIGSTOP)
    wait_for(lambda: _stopped(pid), "all threads of process %d stop" % pid, 30, 0.001)


def byte_is_locked(path, byte):
    """Whether some process has a lock on this byte of the file."""
    query = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0)
    with open(path, "rb+") as file:
        answer = fcntl.fcntl(file.fileno(), fcntl.F_OFD_GETLK, query)
    return struct.unpack("hhqqi4x", answer)[0] != fcntl.F_UNLCK
