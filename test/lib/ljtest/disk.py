"""disk.py - what a power cut may leave of a folder, from the journal that fault/powercut.c wrote.

A Disk plays the journal forward. For each file it knows what is durable (as of the last fsync) and what was done since; for
each folder which changes of names came after its last fsync. state() then draws one of the folders that a cut at
this moment may leave, by a random generator:

    files      each write since the fsync is there, is missing, or is torn at sectors of 512 or pages of 4096 bytes, each part by
               itself; the same for changes of the length; times as of what is there
    names      each create, rename, link and unlink that no fsync of its folder followed is there or missing, in one of two
               ways: a prefix of them in their order (a file system with a journal), or any of them (POSIX promises no more).
               One rename is one step: both names or none
    mappings   a page that was mapped is as it was at any moment, or torn between two of them

The flavour says what is lost: "nothing" (what kill -9 leaves), "everything", or something "random".
"""

import collections
import os
import struct

RECORD = struct.Struct("<IIQQQqqqII")
CREATE, WRITE, LENGTH, SYNC, RENAME, EXCHANGE, LINK, UNLINK, MKDIR, RMDIR, TIMES, MAPPED, MARK = range(1, 14)
FLAVOURS = ("nothing", "everything", "random", "random", "random")

Change = collections.namedtuple("Change", "kind offset data mtime ctime")
Step = collections.namedtuple("Step", "folders names")  # names: ((folder, name), file or None) to be true behind it


class File:
    """A file or folder, by whatever names."""

    def __init__(self, inode, is_folder=False, mtime=0, ctime=0):
        self.inode = inode
        self.is_folder = is_folder
        self.durable = b""
        self.times = (mtime, ctime)
        self.pending = []   # Change
        self.versions = []  # contents of a mapping, oldest first

    def change(self, change):
        self.pending.append(change)

    def sync(self):
        content = bytearray(self.durable)
        for change in self.pending:
            _apply(content, change.kind, change.offset, change.data)
            self.times = (change.mtime, change.ctime)
        self.durable = bytes(content)
        self.pending = []

    def content(self, flavour, random):
        """(bytes, (mtime, ctime)) of one possible state."""
        content = bytearray(self.durable)
        times = self.times
        kept = len(self.pending)
        if flavour == "everything":
            kept = 0
        way = random.choice(("prefix", "any", "torn")) if flavour == "random" else "prefix"
        if flavour == "random" and way == "prefix":
            kept = random.randint(0, kept)
        for change in self.pending[:kept]:
            if way != "prefix" and random.random() < 0.5:
                continue
            if way == "torn" and change.kind == WRITE:
                _apply_torn(content, change, random)
            else:
                _apply(content, change.kind, change.offset, change.data)
            times = (change.mtime, change.ctime)
        if self.versions:
            _apply(content, WRITE, 0, self._version(flavour, random))
        return bytes(content), times

    def _version(self, flavour, random):
        if flavour == "nothing" or (flavour == "random" and random.random() < 0.4):
            return self.versions[-1]
        if flavour == "everything":
            return bytes(len(self.versions[-1]))
        number = max(len(self.versions) - 1 - int(random.expovariate(0.4)), 0) if random.random() < 0.6 \
            else random.randrange(len(self.versions))
        version = bytearray(self.versions[number])
        if number + 1 < len(self.versions) and random.random() < 0.2:
            following = self.versions[number + 1]
            for at in range(0, len(version), 512):
                if random.random() < 0.5:
                    version[at:at + 512] = following[at:at + 512]
        return bytes(version)


def _apply(content, kind, offset, data):
    if kind == WRITE:
        if len(content) < offset:
            content.extend(bytes(offset - len(content)))
        content[offset:offset + len(data)] = data
    elif kind == LENGTH:
        del content[offset:]
        content.extend(bytes(offset - len(content)))


def _apply_torn(content, change, random):
    """Some sectors of one write."""
    size = random.choice((512, 4096))
    at = change.offset
    end = at + len(change.data)
    while at < end:
        following = min(end, (at // size + 1) * size)
        if random.random() < 0.6:
            _apply(content, WRITE, at, change.data[at - change.offset:following - change.offset])
        at = following


class Disk:
    """`root` is the folder that is going to be recorded: with empty folders in it at most. load() reads the journal then."""

    def __init__(self, root):
        self.files = {}     # by inode number, as of now
        self.names = {}     # durable: (folder, name) -> File
        self.now = {}       # as the process saw it
        self.steps = []     # changes of names that are not durable, in order
        self.position = 0
        self.records = []
        self.root = self._adopt(root)

    def load(self, journal):
        with open(journal, "rb") as file:
            self.records = list(_records(file.read()))

    def _adopt(self, path):
        folder = File(os.stat(path).st_ino, is_folder=True)
        self.files[folder.inode] = folder
        for name in os.listdir(path):
            below = os.path.join(path, name)
            if os.path.isdir(below):
                self.names[(folder, name)] = self.now[(folder, name)] = self._adopt(below)
        return folder

    def marks(self):
        """(position, text) of the marks, a position being a number of records before it."""
        return [(number, record[3].decode()) for number, record in enumerate(self.records) if record[0][0] == MARK]

    def forward(self, position):
        """To the moment after so many records."""
        while self.position < position:
            self._play(*self.records[self.position])
            self.position += 1

    def _play(self, head, name, name2, data):
        kind, _, inode, folder, folder2, offset, mtime, ctime, _, _ = head
        if kind == MARK:
            return
        if kind in (CREATE, MKDIR):
            # a number that was in use before is another file
            file = self.files[inode] = File(inode, kind == MKDIR, mtime, ctime)
            self._names((self.files[folder], name), file)
        elif kind in (RENAME, EXCHANGE):
            self._rename(kind, (self.files[folder], name), (self.files[folder2], name2), mtime, ctime)
        elif kind == LINK:
            self._names((self.files[folder], name), self.files[inode])
        elif kind in (UNLINK, RMDIR):
            self._names((self.files[folder], name), None)
        elif inode in self.files:  # else of a file without a name
            self._content(self.files[inode], kind, offset, data, mtime, ctime)

    def _rename(self, kind, source, target, mtime, ctime):
        moved, replaced = self.now[source], self.now.get(target)
        moved.change(Change(TIMES, 0, b"", mtime, ctime))
        other = replaced if kind == EXCHANGE else None
        self._step([(target, moved), (source, other)])

    def _names(self, where, file):
        self._step([(where, file)])

    def _step(self, names):
        self.steps.append(Step({where[0] for where, _ in names}, names))
        _put(self.now, names)

    def _content(self, file, kind, offset, data, mtime, ctime):
        if kind == SYNC and file.is_folder:
            for step in [s for s in self.steps if file in s.folders]:
                _put(self.names, step.names)
            self.steps = [s for s in self.steps if file not in s.folders]
        elif kind == SYNC:
            file.sync()
        elif kind == MAPPED:
            if not file.versions:
                file.versions.append(bytes(len(data)))
            if file.versions[-1] != data:  # each process that has it mapped tells
                file.versions.append(data)
        else:
            file.change(Change(kind, offset, data, mtime, ctime))

    # -----------------------------------------------------------------------------------------------------------------

    def state(self, flavour, random):
        """{path below the root: (bytes or None for a folder, (mtime, ctime), inode)} of one possible state."""
        steps = self.steps
        if flavour == "everything":
            steps = []
        elif flavour == "random" and random.random() < 0.5:
            steps = steps[:random.randint(0, len(steps))]
        elif flavour == "random":
            steps = [step for step in steps if random.random() < 0.5]
        names = dict(self.names)
        for step in steps:
            _put(names, step.names)
        contents = {}
        found = {}
        children = collections.defaultdict(list)
        for (folder, name), file in names.items():
            children[folder].append((name, file))
        for path, file in _walk(children, self.root, ""):
            if file not in contents:
                contents[file] = (None, file.times) if file.is_folder else file.content(flavour, random)
            found[path] = (*contents[file], file.inode)
        return found


def _put(names, changes):
    for where, file in changes:
        if file is None:
            names.pop(where, None)
        else:
            names[where] = file


def _walk(children, folder, prefix):
    for name, file in sorted(children[folder], key=lambda child: child[0]):
        yield prefix + name, file
        if file.is_folder:
            yield from _walk(children, file, prefix + name + "/")


def _records(data):
    at = 0
    while at + RECORD.size <= len(data):
        head = RECORD.unpack_from(data, at)
        at += RECORD.size
        name = data[at:at + head[8]].decode()
        at += head[8]
        name2 = data[at:at + head[9]].decode()
        at += head[9]
        yield head, name, name2, data[at:at + head[1]]
        at += head[1]


def write(state, folder, below=""):
    """Writes the part of a state that is below `below` into an empty folder, with its times."""
    for path, (content, times, _) in state.items():
        if not path.startswith(below):
            continue
        target = os.path.join(folder, path[len(below):])
        if content is None:
            os.makedirs(target, exist_ok=True)
            continue
        with open(target, "wb") as file:
            file.write(content)
        os.utime(target, ns=(times[0], times[0]))
