"""lz4frame.py - LZ4 frames through the system's liblz4, and what a v0.3.13 reader asks of their header."""

import ctypes
import ctypes.util
import struct


class Lz4Error(ValueError):
    """The bytes are not one whole, intact LZ4 frame."""


def _library():
    for name in ("liblz4.so.1", ctypes.util.find_library("lz4")):
        if name:
            try:
                return ctypes.CDLL(name)
            except OSError:
                continue
    raise OSError("liblz4 is not installed")


_lz4 = _library()
_lz4.LZ4F_createDecompressionContext.restype = ctypes.c_size_t
_lz4.LZ4F_freeDecompressionContext.restype = ctypes.c_size_t
_lz4.LZ4F_freeDecompressionContext.argtypes = [ctypes.c_void_p]
_lz4.LZ4F_decompress.restype = ctypes.c_size_t
_lz4.LZ4F_decompress.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.POINTER(ctypes.c_size_t), ctypes.c_void_p,
                                 ctypes.POINTER(ctypes.c_size_t), ctypes.c_void_p]
_lz4.LZ4F_isError.restype = ctypes.c_uint
_lz4.LZ4F_isError.argtypes = [ctypes.c_size_t]
_lz4.LZ4F_getErrorName.restype = ctypes.c_char_p
_lz4.LZ4F_getErrorName.argtypes = [ctypes.c_size_t]
_lz4.LZ4F_compressFrameBound.restype = ctypes.c_size_t
_lz4.LZ4F_compressFrameBound.argtypes = [ctypes.c_size_t, ctypes.c_void_p]
_lz4.LZ4F_compressFrame.restype = ctypes.c_size_t
_lz4.LZ4F_compressFrame.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_size_t,
                                    ctypes.c_void_p]

_VERSION = 100
_CHUNK = 4 << 20


class _FrameInfo(ctypes.Structure):
    _fields_ = [("block_size_id", ctypes.c_int), ("block_mode", ctypes.c_int), ("content_checksum", ctypes.c_int),
                ("frame_type", ctypes.c_int), ("content_size", ctypes.c_ulonglong), ("dict_id", ctypes.c_uint),
                ("block_checksum", ctypes.c_int)]


class _Preferences(ctypes.Structure):
    _fields_ = [("frame", _FrameInfo), ("level", ctypes.c_int), ("auto_flush", ctypes.c_uint),
                ("favor_dec_speed", ctypes.c_uint), ("reserved", ctypes.c_uint * 3)]


def _check(code):
    if _lz4.LZ4F_isError(code):
        raise Lz4Error(_lz4.LZ4F_getErrorName(code).decode())
    return code


def compress(data):
    """One frame as Litestream writes it: 4 MiB independent blocks, content checksum, nothing else."""
    prefs = _Preferences(frame=_FrameInfo(block_size_id=7, block_mode=1, content_checksum=1))
    bound = _lz4.LZ4F_compressFrameBound(len(data), ctypes.byref(prefs))
    out = ctypes.create_string_buffer(bound)
    size = _check(_lz4.LZ4F_compressFrame(out, bound, data, len(data), ctypes.byref(prefs)))
    return out.raw[:size]


LABEL_MAGIC = b"LJOBJ1\0\0"


def split_label(data):
    """(what the object says of itself or None, the LZ4 frame). A label: (generation, kind, index, offset, size, needs)."""
    if len(data) < 8 or struct.unpack_from("<I", data)[0] & ~15 != 0x184D2A50:
        return None, data
    size = struct.unpack_from("<I", data, 4)[0]
    label = data[8:8 + size]
    if len(label) != 64 or not label.startswith(LABEL_MAGIC):
        return None, data[8 + size:]
    return (label[8:24].decode("latin-1"), *struct.unpack_from(">IIQQQ", label, 24)), data[8 + size:]


def decompress(frame):
    """The content of exactly one frame (behind its label); Lz4Error when it is damaged, truncated or followed by anything."""
    frame = split_label(frame)[1]
    context = ctypes.c_void_p()
    _check(_lz4.LZ4F_createDecompressionContext(ctypes.byref(context), _VERSION))
    try:
        out = ctypes.create_string_buffer(_CHUNK)
        source = ctypes.create_string_buffer(frame, len(frame))
        parts = []
        used = 0
        hint = 1
        while hint:
            out_size = ctypes.c_size_t(_CHUNK)
            in_size = ctypes.c_size_t(len(frame) - used)
            hint = _check(_lz4.LZ4F_decompress(context, out, ctypes.byref(out_size),
                                               ctypes.byref(source, used) if used < len(frame) else source,
                                               ctypes.byref(in_size), None))
            used += in_size.value
            if out_size.value:
                parts.append(ctypes.string_at(out, out_size.value))
            elif not in_size.value and hint:
                raise Lz4Error("frame is truncated after %d bytes" % used)
        if used != len(frame):
            raise Lz4Error("%d bytes behind the end of the frame" % (len(frame) - used))
        return b"".join(parts)
    finally:
        _lz4.LZ4F_freeDecompressionContext(context)


def harm(path):
    """
    Flips bits of one byte in the middle of a file so that its content suffers. Not every byte will do: another distance in a row
    of zeros copies zeros too.
    """
    with open(path, "rb") as file:
        data = bytearray(file.read())
    for at in range(len(data) // 2, len(data)):
        data[at] ^= 0x55
        try:
            decompress(bytes(data))
        except Lz4Error:
            break
        data[at] ^= 0x55
    with open(path, "r+b") as file:
        file.write(data)


def profile_problem(frame):
    """Why a v0.3.13 or v0.5 reader could refuse or misread this frame's form, or "". Both pass over skippable frames in front."""
    frame = split_label(frame)[1]
    if len(frame) < 7 + 8:
        return "only %d bytes" % len(frame)
    magic, flags, block = struct.unpack_from("<IBB", frame)
    if magic != 0x184D2204:
        return "magic %08x" % magic
    if flags >> 6 != 1:
        return "frame version %d" % (flags >> 6)
    if not flags & 0x20:
        return "linked blocks"
    if flags & 0x10:
        return "block checksums (v0.3.13 computes them wrongly)"
    if not flags & 0x04:
        return "no content checksum (a cut at a block boundary would go unnoticed)"
    if flags & 0x01:
        return "dictionary"
    if not 4 <= (block >> 4 & 7) <= 7:
        return "block size id %d" % (block >> 4 & 7)
    return ""
