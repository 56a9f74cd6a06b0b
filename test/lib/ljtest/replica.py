"""replica.py - an independent reader, checker and restorer of a replica folder in the Litestream v0.3 layout.

It shares no code with the project: what this module restores and accepts is worked out from the format's description,
so that a mistake in the project's own reading cannot hide the same mistake in its writing.
"""

import os
import re
import struct

from . import harness, lz4frame, pages, wal

GENERATION = re.compile(r"^[0-9a-f]{16}$")
SNAPSHOT = re.compile(r"^([0-9a-f]{8})\.snapshot\.lz4$")
SEGMENT = re.compile(r"^([0-9a-f]{8})_([0-9a-f]{8})\.wal\.lz4$")


END_MARK_BYTES = 15  # an LZ4 frame with no byte in it


class Object:
    """A snapshot, a WAL segment or the end mark of an index; `data()` is its decompressed content."""

    def __init__(self, path, generation, index, offset=None):
        self.path = path
        self.generation = generation
        self.index = index
        self.offset = offset  # None for a snapshot
        info = os.stat(path)
        self.size = info.st_size
        self.time_ns = info.st_mtime_ns

    @property
    def name(self):
        return os.path.basename(self.path)

    def frame(self):
        return pages.read(self.path)

    def data(self):
        try:
            return lz4frame.decompress(self.frame())
        except lz4frame.Lz4Error as error:
            raise harness.Failure("%s: %s" % (self.path, error))

    def __repr__(self):
        return "%s/%s" % (self.generation, self.name)


class Generation:
    def __init__(self, root, name):
        self.root = root
        self.name = name
        self.dir = os.path.join(root, "generations", name)
        self.foreign = []
        self.snapshots = []
        self.segments = []
        self.marks = []  # segments without a byte: the index ends there
        self._read("snapshots", SNAPSHOT, self.snapshots)
        self._read("wal", SEGMENT, self.segments)
        self.snapshots.sort(key=lambda o: o.index)
        self.segments.sort(key=lambda o: (o.index, o.offset))
        self.marks = [o for o in self.segments if o.size == END_MARK_BYTES]
        self.segments = [o for o in self.segments if o.size != END_MARK_BYTES]

    def _read(self, kind, pattern, target):
        folder = os.path.join(self.dir, kind)
        if not os.path.isdir(folder):
            return
        for name in os.listdir(folder):
            match = pattern.match(name)
            path = os.path.join(folder, name)
            if not match:
                self.foreign.append(path)
                continue
            numbers = [int(text, 16) for text in match.groups()]
            try:
                target.append(Object(path, self.name, *numbers))
            except FileNotFoundError:
                pass  # deleted by retention since the listing

    def created_ns(self):
        return min(o.time_ns for o in self.snapshots + self.segments + self.marks)

    def updated_ns(self):
        return max(o.time_ns for o in self.snapshots + self.segments + self.marks)

    def mark(self, index):
        """The end mark of WAL `index`, or None."""
        found = [o for o in self.marks if o.index == index]
        harness.check(len(found) < 2, "two ends of one index: %r" % found)
        return found[0] if found else None

    def indexes(self):
        return sorted({o.index for o in self.segments})

    def wal_image(self, index, until_ns=None):
        """All of WAL `index` that is there, glued; fails on a hole."""
        image = b""
        for segment in self.segments:
            if segment.index != index:
                continue
            if until_ns is not None and segment.time_ns > until_ns:
                break
            harness.check_equal(segment.offset, len(image), "%r: offset behind the segments before it" % segment)
            image += segment.data()
        mark = self.mark(index)
        if mark is not None and (until_ns is None or mark.time_ns <= until_ns):
            harness.check_equal(mark.offset, len(image), "%r: the index ends, what is there reaches" % mark)
        return image


class Replica:
    """The folder of one database: ROOT with `generations/` in it."""

    def __init__(self, root):
        self.root = root

    def generations(self):
        folder = os.path.join(self.root, "generations")
        if not os.path.isdir(folder):
            return []
        found = [Generation(self.root, name) for name in os.listdir(folder) if GENERATION.match(name)]
        return sorted((g for g in found if g.snapshots or g.segments), key=lambda g: g.updated_ns())

    def newest(self):
        found = self.generations()
        harness.check(found, "no generation in %s" % self.root)
        return found[-1]

    def generation(self, name):
        return Generation(self.root, name)

    def counts(self):
        """(generations, snapshots, segments): compared before and after to prove that nothing new was made."""
        found = self.generations()
        return (len(found), sum(len(g.snapshots) for g in found), sum(len(g.segments) for g in found))

    def files(self):
        """Every path below the root with size and mtime, to prove that a replica was left alone."""
        listing = {}
        for folder, _, names in os.walk(self.root):
            for name in names:
                path = os.path.join(folder, name)
                try:
                    info = os.lstat(path)
                except FileNotFoundError:
                    continue  # a temporary file that got its name meanwhile
                listing[os.path.relpath(path, self.root)] = (info.st_size, info.st_mtime_ns)
        return listing

    # -----------------------------------------------------------------------------------------------------------------

    def check(self, one_generation=False, leftovers_ok=False, page_size=None, from_newest_snapshot=False):
        """
        Fails on anything a v0.3.13 or v0.5 reader would trip over, in any generation: form of the LZ4 frames, holes, wrong
        offsets, broken checksum chains, segments that end inside a transaction, times that run backwards. `page_size` says
        what no header does: the database is encrypted. With from_newest_snapshot only what is not older than each
        generation's newest snapshot has to be so.
        """
        found = self.generations()
        harness.check(found, "no generation in %s" % self.root)
        if one_generation:
            harness.check_equal(len(found), 1, "number of generations")
        for generation in found:
            if from_newest_snapshot and generation.snapshots:
                newest = generation.snapshots[-1].index
                generation.snapshots = generation.snapshots[-1:]
                generation.segments = [s for s in generation.segments if s.index >= newest]
                generation.marks = [m for m in generation.marks if m.index >= newest]
            self._check_generation(generation, leftovers_ok, page_size)

    def _check_generation(self, generation, leftovers_ok, encrypted):
        harness.check(generation.snapshots, "generation %s has WAL but no snapshot" % generation.name)
        if not leftovers_ok:
            harness.check(not generation.foreign, "foreign files in the replica: %s" % generation.foreign[:5])
        for thing in generation.snapshots + generation.segments + generation.marks:
            problem = lz4frame.profile_problem(thing.frame())
            harness.check(not problem, "%r: %s" % (thing, problem))
        indexes = generation.indexes()
        first = generation.snapshots[0].index
        if indexes:
            harness.check_equal(indexes, list(range(indexes[0], indexes[-1] + 1)), "WAL indexes of %s" % generation.name)
            harness.check(indexes[0] <= first, "%s: snapshot %d but WAL starts at %d"
                          % (generation.name, first, indexes[0]))
            harness.check(indexes[-1] >= generation.snapshots[-1].index - 1,
                          "%s: snapshot %d but WAL ends at %d: v0.3.13 panics"
                          % (generation.name, generation.snapshots[-1].index, indexes[-1]))
        for mark in generation.marks:
            harness.check_equal(mark.data(), b"", "content of %r" % mark)
            harness.check(mark.index in indexes, "%r ends an index that is not there" % mark)
        marked = [m.index for m in generation.marks]
        if marked:  # Litestream makes none; who makes them makes one for each index that another follows
            harness.check_equal([i for i in indexes if min(marked) <= i < indexes[-1] and i not in marked], [],
                                "indexes of %s without an end mark" % generation.name)
        page_size = None
        for snapshot in generation.snapshots:
            image = snapshot.data()
            size = encrypted or pages.page_size_of(image)
            plain = image[:16] == b"SQLite format 3\0"
            harness.check(size and len(image) % size == 0 and plain != bool(encrypted),
                          "%r: %d bytes that are no database" % (snapshot, len(image)))
            harness.check(page_size in (None, size), "%r: page size %d after %s" % (snapshot, size, page_size))
            page_size = size
        for index in indexes:
            image = generation.wal_image(index)
            try:
                header, frames = wal.frames(image)
            except wal.WalError as error:
                raise harness.Failure("%s: WAL %08x: %s" % (generation.name, index, error))
            harness.check_equal(header.page_size, page_size, "page size of WAL %08x" % index)
            ends = {wal.HEADER_BYTES, 0} | {f.end for f in frames if f.commit_pages}
            for segment in generation.segments:
                if segment.index == index:
                    harness.check(segment.offset in ends, "%r starts inside a transaction" % segment)
        times = [(o.time_ns, o) for o in sorted(generation.segments + generation.marks,
                                                key=lambda o: (o.index, o.offset))]
        for (before, a), (after, b) in zip(times, times[1:]):
            harness.check(before <= after, "%r is newer than %r: v0.3.13 stops there in a -timestamp restore" % (a, b))

    # -----------------------------------------------------------------------------------------------------------------

    def restore(self, out, generation=None, index=None, until_ns=None, snapshot=None):
        """
        Writes the database at a point to `out`: all there is, up to WAL `index`, or what is not newer than until_ns.
        `snapshot` names the snapshot index to start from (default: as v0.3.13 chooses). Returns the last index used.
        """
        gen = self.generation(generation) if generation else self._choose(until_ns)
        if snapshot is not None:
            base = [s for s in gen.snapshots if s.index == snapshot]
        elif index is not None:
            base = [s for s in gen.snapshots if s.index <= index]
        else:
            base = sorted((s for s in gen.snapshots if until_ns is None or s.time_ns <= until_ns),
                          key=lambda s: s.time_ns)
        harness.check(base, "%s: no snapshot for index %s, time %s" % (gen.name, index, until_ns))
        base = base[-1]
        image = bytearray(base.data())
        used = base.index
        applied = False
        for number in gen.indexes():
            if number < base.index or (index is not None and number > index):
                continue
            data = gen.wal_image(number, until_ns)
            if not data:
                break
            harness.check(number <= used + 1 if applied else number == base.index,
                          "%s: no WAL %08x" % (gen.name, used + 1 if applied else base.index))
            applied = True
            # Litestream may ship frames of a transaction that has not ended yet; readers ignore them.
            header, frames = wal.frames(data, whole_transactions=False)
            if frames:
                apply_frames(image, data, header, frames)
            used = number
        with open(out, "wb") as file:
            file.write(image)
        return used

    def _choose(self, until_ns):
        found = self.generations()
        if until_ns is not None:
            found = [g for g in found if g.created_ns() <= until_ns]
        harness.check(found, "nothing to restore in %s" % self.root)
        return found[-1]


def apply_frames(image, data, header, frames):
    """What a complete checkpoint of these frames does to the database image (a bytearray)."""
    size = header.page_size
    final = frames[-1].commit_pages
    newest = {f.page: f for f in frames}
    for page, frame in newest.items():
        if page > final:
            continue
        start = (page - 1) * size
        if len(image) < start + size:
            image.extend(bytes(start + size - len(image)))
        image[start:start + size] = data[frame.offset + wal.FRAME_HEADER_BYTES:frame.end]
    if len(image) < final * size:
        image.extend(bytes(final * size - len(image)))
    del image[final * size:]


class Writer:
    """Writes a replica by hand, for tests of readers: any snapshot, segment, order and damage."""

    def __init__(self, root, generation="00112233445566aa"):
        self.root = root
        self.generation = generation
        for kind in ("snapshots", "wal"):
            os.makedirs(os.path.join(self._dir(), kind), exist_ok=True)

    def _dir(self):
        return os.path.join(self.root, "generations", self.generation)

    def snapshot(self, index, image, time_ns=None):
        return self._put(os.path.join("snapshots", "%08x.snapshot.lz4" % index), image, time_ns)

    def segment(self, index, offset, data, time_ns=None):
        return self._put(os.path.join("wal", "%08x_%08x.wal.lz4" % (index, offset)), data, time_ns)

    def _put(self, name, data, time_ns):
        path = os.path.join(self._dir(), name)
        with open(path, "wb") as file:
            file.write(lz4frame.compress(data))
        if time_ns is not None:
            os.utime(path, ns=(time_ns, time_ns))
        return path


def frame_count(data):
    """Frames in a raw WAL image by its size."""
    page_size = struct.unpack_from(">I", data, 8)[0]
    return (len(data) - wal.HEADER_BYTES) // (page_size + wal.FRAME_HEADER_BYTES)
