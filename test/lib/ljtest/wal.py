"""wal.py - SQLite's WAL format, straight from its description, for checking what was shipped."""

import ctypes
import hashlib
import os
import struct
import subprocess
import tempfile

HEADER_BYTES = 32
FRAME_HEADER_BYTES = 24
VERSION = 3007000


class WalError(ValueError):
    """The bytes are not the WAL they should be."""


def _build_walsum():
    """walsum.c as a loaded library, built once into .cache/ at the top; None without a compiler."""
    here = os.path.dirname(os.path.abspath(__file__))
    source = os.path.join(here, "walsum.c")
    cache = os.path.join(here, "..", "..", "..", ".cache", "ljtest")
    try:
        with open(source, "rb") as file:
            name = "walsum-%s.so" % hashlib.sha256(file.read()).hexdigest()[:12]
        library = os.path.join(cache, name)
        if not os.path.exists(library):
            os.makedirs(cache, exist_ok=True)
            handle, fresh = tempfile.mkstemp(dir=cache, suffix=".so")
            os.close(handle)
            subprocess.run([os.environ.get("CC", "cc"), "-O2", "-shared", "-fPIC", "-o", fresh, source], check=True,
                           stderr=subprocess.DEVNULL)
            os.rename(fresh, library)
        loaded = ctypes.CDLL(os.path.abspath(library)).walsum
    except (OSError, subprocess.CalledProcessError):
        return None
    loaded.restype = None
    loaded.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int, ctypes.POINTER(ctypes.c_uint32)]
    return loaded


_walsum = _build_walsum()


def checksum(data, little, s0=0, s1=0):
    """The cumulative checksum over data (a multiple of 8 bytes)."""
    if _walsum:
        sums = (ctypes.c_uint32 * 2)(s0, s1)
        _walsum(data, len(data), int(little), sums)
        return sums[0], sums[1]
    words = struct.unpack("%s%dI" % ("<" if little else ">", len(data) // 4), data)
    for i in range(0, len(words), 2):
        s0 = (s0 + words[i] + s1) & 0xFFFFFFFF
        s1 = (s1 + words[i + 1] + s0) & 0xFFFFFFFF
    return s0, s1


class Header:
    """The 32 bytes at offset 0, checked."""

    def __init__(self, data):
        if len(data) < HEADER_BYTES:
            raise WalError("WAL header has %d bytes" % len(data))
        (magic, version, self.page_size, self.sequence, self.salt1, self.salt2, ck0, ck1) = struct.unpack_from(
            ">8I", data)
        if magic not in (0x377F0682, 0x377F0683):
            raise WalError("WAL magic %08x" % magic)
        if version != VERSION:
            raise WalError("WAL version %d" % version)
        size = self.page_size
        if size < 512 or size > 65536 or size & (size - 1):
            raise WalError("WAL page size %d" % size)
        self.little = magic == 0x377F0682
        self.seed = checksum(bytes(data[:24]), self.little)
        if self.seed != (ck0, ck1):
            raise WalError("WAL header checksum")
        self.frame_bytes = FRAME_HEADER_BYTES + size


class Frame:
    __slots__ = ("number", "page", "commit_pages", "offset", "end")

    def __init__(self, number, page, commit_pages, offset, end):
        self.number = number            # 1-based
        self.page = page                # page number
        self.commit_pages = commit_pages  # database size in pages if the frame ends a transaction, else 0
        self.offset = offset            # of the frame header in the WAL
        self.end = end


def frames(data, strict=True, whole_transactions=True):
    """
    (header, list of Frame) of a WAL image. With strict every byte must belong to a valid frame, and with
    whole_transactions the last one must end a transaction; the list stops at the last valid commit, as SQLite's recovery
    does.
    """
    header = Header(data)
    found = []
    committed = 0
    state = header.seed
    offset = HEADER_BYTES
    view = memoryview(data)
    while offset + header.frame_bytes <= len(data):
        page, commit, salt1, salt2, ck0, ck1 = struct.unpack_from(">6I", data, offset)
        problem = ""
        if (salt1, salt2) != (header.salt1, header.salt2):
            problem = "salts %08x %08x, header has %08x %08x" % (salt1, salt2, header.salt1, header.salt2)
        else:
            end = offset + header.frame_bytes
            following = checksum(bytes(view[offset:offset + 8]), header.little, *state)
            following = checksum(bytes(view[offset + FRAME_HEADER_BYTES:end]), header.little, *following)
            if following != (ck0, ck1):
                problem = "checksum chain broken"
            elif not page:
                problem = "page number 0"
        if problem:
            if strict:
                raise WalError("frame %d at offset %d: %s" % (len(found) + 1, offset, problem))
            break
        state = following
        found.append(Frame(len(found) + 1, page, commit, offset, end))
        if commit:
            committed = len(found)
        offset = end
    if strict:
        if offset != len(data):
            raise WalError("%d bytes behind the last whole frame" % (len(data) - offset))
        if whole_transactions and committed != len(found):
            raise WalError("ends in the middle of a transaction (frame %d of %d is the last commit)"
                           % (committed, len(found)))
    return header, found[:committed]
