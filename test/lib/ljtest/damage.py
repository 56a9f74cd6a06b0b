"""damage.py - every way to damage the objects of a replica folder, one at a time, and to undo it.

A Damage changes files of a replica; `undo` puts content and times back. Times are kept while damaged: it is the content
that is wrong, not the listing.
"""

import os
import re
import struct

from . import lz4frame
from .replica import Replica

NAME = re.compile(r"([0-9a-f]{16})/(?:snapshots/([0-9a-f]{8})|wal/([0-9a-f]{8})_([0-9a-f]{8}))\.")


class Damage:
    """`touched`: keys (relative to `generations`) that hold something else now, or nothing."""

    def __init__(self, root, what, changes):
        self.base = os.path.join(root, "generations")
        self.what = what
        self.changes = changes  # key -> (bytes or None, mtime in ns)
        self.saved = {}

    @property
    def touched(self):
        return set(self.changes)

    @property
    def added(self):
        return {key for key, before in self.saved.items() if before is None}

    def __enter__(self):
        for key, (content, time_ns) in self.changes.items():
            path = os.path.join(self.base, key)
            self.saved[key] = None
            if os.path.exists(path):
                with open(path, "rb") as file:
                    self.saved[key] = (file.read(), os.stat(path).st_mtime_ns)
            self._put(path, content, time_ns)
        return self

    def __exit__(self, *_):
        for key, before in self.saved.items():
            self._put(os.path.join(self.base, key), *(before or (None, 0)))

    @staticmethod
    def _put(path, content, time_ns):
        if content is None:
            if os.path.exists(path):
                os.unlink(path)
            return
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(content)
        os.utime(path, ns=(time_ns, time_ns))


def objects(root):
    """Every object as (key, content, mtime), in the order of the listing."""
    found = []
    for generation in Replica(root).generations():
        for thing in sorted(generation.snapshots + generation.segments + generation.marks, key=lambda o: o.path):
            key = os.path.relpath(thing.path, os.path.join(root, "generations"))
            found.append((key, thing.frame(), thing.time_ns))
    return found


def flip_places(content):
    """Offsets whose bits are turned: the label, every field of the frame, blocks, the end mark, the checksum."""
    frame = len(content) - len(lz4frame.split_label(content)[1])
    places = {0, 5, 8, 12, 17, 25, 35, 39, 47, 55, 63, 65, 71} if frame else set()
    places = {p for p in places if p < frame} | {frame + i for i in (0, 3, 4, 5, 6, 7, 9, 10, 11, 20, 60)}
    places |= {len(content) - i for i in (1, 4, 5, 8, 9, 30)} | {(frame + len(content)) // 2}
    return sorted(p for p in places if 0 <= p < len(content))


def single(root, key, content, time_ns):
    """What happens to one object by itself."""
    yield Damage(root, "remove " + key, {key: (None, 0)})
    for size in sorted({0, 1, len(content) // 2, len(content) - 4, len(content) - 1}):
        yield Damage(root, "truncate %s to %d" % (key, size), {key: (content[:size], time_ns)})
    for place in flip_places(content):
        for bit in (0, 7):
            flipped = bytearray(content)
            flipped[place] ^= 1 << bit
            yield Damage(root, "flip bit %d of byte %d in %s" % (bit, place, key), {key: (bytes(flipped), time_ns)})
    for what, tail in (("a byte", b"\0"), ("garbage", b"\x04\x22\x4d\x18 not a frame" * 9), ("itself", content)):
        yield Damage(root, "extend %s with %s" % (key, what), {key: (content + tail, time_ns)})


def parse(key):
    """(generation, index, offset or None for a snapshot)"""
    generation, snapshot, index, offset = NAME.match(key).groups()
    return (generation, int(snapshot, 16), None) if snapshot else (generation, int(index, 16), int(offset, 16))


def name(generation, index, offset):
    if offset is None:
        return "%s/snapshots/%08x.snapshot.lz4" % (generation, index)
    return "%s/wal/%08x_%08x.wal.lz4" % (generation, index, offset)


def duplicates(root, listing):
    """One object under the name of another, or under a new name, where it could be taken for a part of the history."""
    ends = {}
    times = {}
    present = {key: time_ns for key, _, time_ns in listing}
    for key, content, time_ns in listing:
        generation, index, offset = parse(key)
        times.setdefault(generation, []).append((index, offset or 0, time_ns))
        if offset is not None:
            ends[generation, index] = max(ends.get((generation, index), 0), offset + len(lz4frame.decompress(content)))
    for key, content, time_ns in listing:
        generation, index, offset = parse(key)
        targets = set()
        for other in times:
            last = max([i for g, i in ends if g == other], default=0)
            targets.add(name(other, last + 1, None if offset is None else 0))
            if offset is None:
                targets.add(name(other, last, None))
            else:
                targets.add(name(other, last, ends.get((other, last), 0)))
                targets.add(name(other, index, ends.get((other, index), 0)))
                targets.add(name(other, index, offset + 8))
        for target in sorted(targets - {key}):
            other, index, offset = parse(target)
            before = [ns for i, o, ns in times[other] if (i, o) < (index, offset or 0)] or [min(times[other])[2]]
            yield Damage(root, "duplicate %s as %s" % (key, target), {target: (content, present.get(target, max(before)))})


def swaps(root, listing):
    """Two objects of the same kind under each other's name; each keeps its place in time."""
    for i, (key, content, time_ns) in enumerate(listing):
        for other, other_content, other_ns in listing[i + 1:]:
            if ("/wal/" in key) == ("/wal/" in other):
                yield Damage(root, "swap %s and %s" % (key, other),
                             {key: (other_content, time_ns), other: (content, other_ns)})


def frames_cut(root, key, content, time_ns):
    """An LZ4 frame that is whole, around a segment that is not: without its last frame, its last bytes, or its first frame."""
    data = lz4frame.decompress(content)
    label = content[:len(content) - len(lz4frame.split_label(content)[1])]
    page = struct.unpack_from(">I", data, 8)[0] + 24 if data[:2] == b"\x37\x7f" else None
    cuts = {"the last 8 bytes": data[:-8], "all but 8 bytes": data[:8]}
    if page and len(data) > 32 + page:
        cuts["its last frame"] = data[:-page]
        cuts["its first frame"] = data[:32] + data[32 + page:]
    for what, left in cuts.items():
        yield Damage(root, "%s without %s" % (key, what), {key: (label + lz4frame.compress(left), time_ns)})
