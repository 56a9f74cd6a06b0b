#!/usr/bin/python3
"""test_interop.py - the real Litestream v0.3.13 restores what this project wrote, and the other way round.

Every comparison is three-way and to the byte: litejoin-replica, Litestream, and the independent restorer of ljtest (which
also checks every object on the way), at the end, at several points in time, for every WAL index and every generation.
"""

import os
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from ljtest import chain, cli, harness, lz4frame, pages, shim, wal  # noqa: E402
from ljtest.harness import LONG, Failure, check, check_equal, test  # noqa: E402
from ljtest.replica import Replica, Writer, apply_frames  # noqa: E402
from ljtest.workload import Workload  # noqa: E402

# page size, auto_vacuum, small cache (frames spill before COMMIT), synchronous, steps per leg
SHAPES = (
    (512, "NONE", True, "NORMAL", 60),
    (1024, "FULL", False, "OFF", 60),
    (2048, "INCREMENTAL", True, "NORMAL", 50),
    (4096, "NONE", False, "FULL", 25),
    (8192, "FULL", True, "NORMAL", 40),
    (16384, "INCREMENTAL", False, "EXTRA", 15),
    (32768, "NONE", True, "OFF", 25),
    (65536, "FULL", False, "NORMAL", 20),
)
LEGS = 12 if LONG else 3


def restored_by_all(t, replica, label, want=None, tools=None, sound=True, **point):
    """
    Restores one point (generation=, index=, until_ns=) with every tool and the reference; all must give the same
    bytes, and those of the file `want` if given. Returns the number of the last transaction in it. sound=False: only the
    sameness is checked, for points that Litestream itself does not promise to be sound.
    """
    folder = t.folder("restored")
    reference = os.path.join(folder, "reference.db")
    replica.restore(reference, **point)
    flags = []
    if point.get("generation"):
        flags += ["-generation", point["generation"]]
    if point.get("index") is not None:
        flags += ["-index", "%08x" % point["index"]]
    if point.get("until_ns"):
        flags += ["-timestamp", cli.rfc3339(point["until_ns"])]
    for tool in cli.restorers() if tools is None else tools:
        out = os.path.join(folder, tool.name + ".db")
        if os.path.exists(out):
            os.unlink(out)
        tool.restore(replica.root, out, *flags)
        pages.check_same(out, reference, "%s: %s against the reference" % (label, tool.name))
    if want:
        pages.check_same(reference, want, "%s against the live database" % label)
    if not sound:
        return 0
    pages.check_integrity(reference, label)
    return chain.verify_file(reference, label)


def run_legs(t, workload, steps, after_leg):
    """Runs the workload leg by leg; after_leg(i, n) is called between."""
    for i in range(LEGS):
        n = workload.run(steps)
        after_leg(i, n)
    t.note("operations: " + ", ".join("%s %d" % item for item in sorted(workload.done.items())))


def shim_workload(t, shape, folder, **options):
    page_size, auto_vacuum, spill, synchronous, _ = shape
    t.folder(folder, "data")
    base = t.path(folder, "replica")
    path = t.path(folder, "data", "shard_0.db")

    def connect():
        return shim.open_wal(path, base, page_size=page_size, auto_vacuum=auto_vacuum,
                             pragmas=("synchronous=" + synchronous,), **options)

    return path, Replica(os.path.join(base, "shard_0")), Workload(connect, t.seed, page_size=page_size, spill=spill)


@test("shim", "load_extension", timeout=240)
def what_the_shim_writes_is_restored_by_all(t):
    for shape in SHAPES:
        with t.part("page size %d" % shape[0]):
            one_shape_from_the_shim(t, shape)


def one_shape_from_the_shim(t, shape):
    folder = "p%d" % shape[0]
    path, replica, workload = shim_workload(t, shape, folder)
    marks = []

    def after_leg(i, n):
        if i == 1:
            workload.end_reader()
            shim.snapshot(workload.con)
        position = shim.sync(workload.con)
        check_equal(position.generation, replica.newest().name, "generation of the position")
        status = shim.status(workload.con)
        check_equal((status["replica_index"], status["replica_offset"], status["lag_frames"], status["last_error"]),
                    (position.index, position.offset, 0, ""), "status after a sync")
        folded = pages.folded_copy(path, t.path(folder, "fold"))
        check_equal(restored_by_all(t, replica, "live, leg %d" % i, want=folded, tools=()), n, "last link")
        time.sleep(0.005)
        marks.append((time.time_ns(), n))
        time.sleep(0.005)

    run_legs(t, workload, shape[4], after_leg)
    final = chain.last(workload.con)
    workload.close()
    replica.check(one_generation=True)
    check_equal(restored_by_all(t, replica, "at the end", want=path), final, "last link at the end")
    for at, n in marks[:-1]:
        check_equal(restored_by_all(t, replica, "timestamp %s" % cli.rfc3339(at), until_ns=at), n,
                    "last link at that time")
    generation = replica.newest()
    check(len(generation.snapshots) >= 2, "litejoin_snapshot made no second snapshot")
    indexes = generation.indexes()
    chosen = indexes if LONG else sorted({indexes[0], indexes[len(indexes) // 2], indexes[-1]})
    for index in chosen:
        restored_by_all(t, replica, "index %d" % index, index=index)
    if not harness.missing("litestream"):
        compare_listings(replica, (cli.litestream(),))
    t.note("page size %d: %d links, %d WAL indexes, %d segments, %d snapshots" %
           (shape[0], final, len(indexes), len(generation.segments), len(generation.snapshots)))


@test("shim", "load_extension", timeout=120)
def spilled_savepoint_rollbacks_survive(t):
    """Where SQLite itself breaks its checksum chain (before 3.50.2) a new generation is right; wrong data never is."""
    for page_size in (512, 4096, 16384):
        with t.part("page size %d" % page_size):
            base = t.path("s%d" % page_size, "replica")
            t.folder("s%d" % page_size, "data")
            path = t.path("s%d" % page_size, "data", "shard_0.db")

            def connect():
                return shim.open_wal(path, base, page_size=page_size)

            workload = Workload(connect, t.seed, page_size=page_size, spill_savepoints=True)
            replica = Replica(os.path.join(base, "shard_0"))
            for leg in range(LEGS):
                n = workload.run(40)
                shim.sync(workload.con)
                reference = t.path("leg.db")
                replica.restore(reference)
                pages.check_integrity(reference, "leg %d" % leg)
                check_equal(chain.verify_file(reference, "leg %d" % leg), n, "last link, leg %d" % leg)
            workload.close()
            replica.check()
            check_equal(restored_by_all(t, replica, "at the end", want=path), n, "last link at the end")
            t.note("page size %d: %d generations" % (page_size, len(replica.generations())))


@test("litestream", timeout=300)
def what_litestream_writes_is_restored_by_all(t):
    for shape in SHAPES:
        with t.part("page size %d" % shape[0]):
            one_shape_from_litestream(t, shape)


def snapshot_times(generation):
    return {s.index: s.time_ns for s in generation.snapshots}


def one_shape_from_litestream(t, shape):
    """The application leaves checkpoints to Litestream, as its manual asks."""
    page_size, auto_vacuum, spill, _, steps = shape
    folder = "p%d" % page_size
    t.folder(folder, "data")
    path = t.path(folder, "data", "shard_0.db")
    root = t.path(folder, "replica")
    replica = Replica(root)

    def connect():
        return shim.plain(path, pragmas=("page_size=%d" % page_size, "auto_vacuum=" + auto_vacuum, "journal_mode=WAL",
                                         "synchronous=OFF", "wal_autocheckpoint=0"))

    marks = []
    workload = Workload(connect, t.seed, page_size=page_size, spill=spill, checkpoints=False)
    with cli.Sidecar(path, root, t.path(folder, "log"), snapshot_interval="700ms") as sidecar:
        def after_leg(i, n):
            workload.end_reader()
            out = t.path(folder, "poll.db")

            def arrived():
                # Litestream begins a new generation when it missed a checkpoint; until its snapshot is there is nothing.
                try:
                    replica.restore(out)
                    return chain.verify_file(out) == n
                except Failure:
                    return False

            harness.wait_for(arrived, "Litestream replicated link %d" % n, 120, 0.1)
            time.sleep(0.005)
            newest = replica.newest()
            marks.append((time.time_ns(), n, newest.name, snapshot_times(newest)))
            time.sleep(0.005)

        run_legs(t, workload, steps, after_leg)
        final = chain.last(workload.con)
        sidecar.stop()
        folded = pages.folded_copy(path, t.path(folder, "fold"))
        workload.close()
    check_equal(restored_by_all(t, replica, "at the end", want=folded), final, "last link at the end")
    timestamps = 0
    for at, n, name, snapshots in marks[:-1]:
        # v0.3.13 finds nothing for a time between two generations, and a later snapshot at the same index replaces the
        # earlier one, and with it every point before itself: what is shipped may be in the snapshot alone for a while.
        generation = replica.generation(name)
        left = snapshot_times(generation)
        if generation.updated_ns() < at or any(left.get(index) != time_ns for index, time_ns in snapshots.items()):
            continue
        timestamps += 1
        got = restored_by_all(t, replica, "timestamp %s" % cli.rfc3339(at), until_ns=at, generation=name)
        check_equal(got, n, "last link at that time")
    for generation in replica.generations():
        for index in sorted({o.index for o in generation.segments} | {s.index for s in generation.snapshots}):
            if index >= generation.snapshots[0].index:
                restored_by_all(t, replica, "generation %s, index %d" % (generation.name, index),
                                generation=generation.name, index=index, sound=False)
    newest = replica.newest()
    t.note("page size %d: %d links, %d timestamps, %d generations, newest: %d WAL indexes, %d segments, %d snapshots" %
           (page_size, final, timestamps, len(replica.generations()), len(newest.indexes()), len(newest.segments),
            len(newest.snapshots)))


def compare_listings(replica, tools):
    """`generations`, `snapshots` and `wal` of each tool show exactly the objects that are there."""
    found = replica.generations()
    wanted_snapshots = sorted((g.name, str(s.index), str(s.size)) for g in found for s in g.snapshots)
    wanted_wal = sorted((g.name, str(s.index), str(s.offset), str(s.size)) for g in found for s in g.segments + g.marks)
    for tool in tools:
        columns, rows = tool.table("generations", replica.root)
        check_equal(columns, ["name", "generation", "lag", "start", "end"], tool.name + " generations: columns")
        check_equal(sorted(r["generation"] for r in rows), sorted(g.name for g in found), tool.name + " generations")
        for row in rows:
            generation = replica.generation(row["generation"])
            for key, ns in (("start", generation.created_ns()), ("end", generation.updated_ns())):
                check_equal(row[key], time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(ns // 10 ** 9)),
                            "%s generations: %s" % (tool.name, key))
        columns, rows = tool.table("snapshots", replica.root)
        check_equal(columns, ["replica", "generation", "index", "size", "created"], tool.name + " snapshots: columns")
        check_equal(sorted((r["generation"], r["index"], r["size"]) for r in rows), wanted_snapshots,
                    tool.name + " snapshots")
        columns, rows = tool.table("wal", replica.root)
        check_equal(columns, ["replica", "generation", "index", "offset", "size", "created"],
                    tool.name + " wal: columns")
        check_equal(sorted((r["generation"], r["index"], r["offset"], r["size"]) for r in rows), wanted_wal,
                    tool.name + " wal")


@test("shim", "cli", "load_extension")
def listings_show_what_is_there(t):
    """Two generations (a plain writer came between), several snapshots; both tools print the same tables."""
    path, replica, workload = shim_workload(t, SHAPES[3], "list")
    workload.run(30)
    shim.snapshot(workload.con)
    workload.run(10)
    workload.close()
    con = shim.plain(path)
    chain.commit_one(con, t.random, "plain")
    con.close()
    con = shim.open_wal(path, os.path.dirname(replica.root))
    chain.commit_one(con, t.random)
    shim.sync(con)
    con.close()
    check_equal(len(replica.generations()), 2, "generations")
    tools = cli.restorers()
    compare_listings(replica, tools)
    if len(tools) == 2:
        for command in ("generations", "snapshots", "wal"):
            ours, theirs = (tool.table(command, replica.root)[1] for tool in tools)
            for rows in (ours, theirs):
                for row in rows:
                    row.pop("lag", None)  # counts from now
                rows.sort(key=lambda row: sorted(row.items()))
            check_equal(ours, theirs, "rows of `%s`" % command)


@test("shim", "load_extension", timeout=120)
def every_generation_is_restorable_by_name(t):
    """Each time a plain writer touches the file between two opens, a new generation begins; the old ones stay."""
    base = t.path("replica")
    t.folder("data")
    path = t.path("data", "shard_0.db")
    replica = Replica(os.path.join(base, "shard_0"))
    ends = {}
    for i in range(4):
        con = shim.open_wal(path, base)
        if not chain.exists(con):
            chain.create(con)
        for _ in range(20):
            n = chain.commit_one(con, t.random)
        name = shim.sync(con).generation
        con.close()
        check(name not in ends, "generation %s goes on although a plain writer changed the database" % name)
        ends[name] = n
        con = shim.plain(path)
        chain.commit_one(con, t.random, "plain")
        con.close()
    check_equal(sorted(ends), sorted(g.name for g in replica.generations()), "generations")
    replica.check()
    for name, n in ends.items():
        check_equal(restored_by_all(t, replica, "generation " + name, generation=name), n, "last link of " + name)


@test("shim", "lz4", "sqlite3", "load_extension")
def lz4_and_sqlite3_are_enough_to_restore(t):
    """By hand: lz4 -d of the snapshot, lz4 -d of the segments glued to a -wal, and the sqlite3 shell."""
    path, replica, workload = shim_workload(t, SHAPES[3], "hand")
    workload.run(60)
    workload.checkpoint("TRUNCATE")
    final = workload.run(40)
    workload.close()
    script = r"""
        set -e
        cd "$1"; cd generations/*; out="$2"
        snapshot=$(ls snapshots | head -n 1)
        lz4 -dcq "snapshots/$snapshot" >"$out"
        for index in $(ls wal | cut -d_ -f1 | sort -u); do
            for segment in wal/${index}_*.wal.lz4; do lz4 -dcq "$segment"; done >"$out-wal"
            sqlite3 "$out" 'PRAGMA wal_checkpoint(TRUNCATE)' >/dev/null
        done
    """
    out = t.path("by-hand.db")
    done = subprocess.run(["sh", "-c", script, "sh", replica.root, out], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT)
    check(done.returncode == 0, "by hand: " + done.stdout.decode())
    pages.check_same(out, path, "restored by hand")
    check_equal(chain.verify_file(out), final, "last link")


# ---------------------------------------------------------------------------------------------------------------------
# replicas made by hand: what a reader must take, and what it must refuse


class Made:
    """A database's snapshot and its WALs, made with plain SQLite, to be laid out as a replica in any way."""

    def __init__(self, t, name, page_size=4096, indexes=3):
        folder = t.folder(name)
        path = os.path.join(folder, "made.db")
        con = shim.plain(path, pragmas=("page_size=%d" % page_size, "journal_mode=WAL", "wal_autocheckpoint=0"))
        chain.create(con)
        chain.commit_one(con, t.random)
        con.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        self.snapshot = self._read_file(path)
        self.images = [bytearray(self.snapshot)]
        self.wals = []
        self.cuts = []
        for _ in range(indexes):
            for _ in range(6):
                chain.commit_one(con, t.random)
            data = self._read_file(path + "-wal")
            header, frames = wal.frames(data)
            self.wals.append(data)
            self.cuts.append([0] + [f.end for f in frames if f.commit_pages])
            image = bytearray(self.images[-1])
            apply_frames(image, data, header, frames)
            self.images.append(image)
            con.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        con.close()

    @staticmethod
    def _read_file(path):
        # by a child process: this one has the database open
        return subprocess.run(["cat", path], stdout=subprocess.PIPE, check=True).stdout

    def lay_out(self, root, **options):
        """Snapshot 0 and every WAL in one segment per transaction. Times are a second apart."""
        writer = Writer(root, **options)
        at = time.time_ns() - 3600 * 10 ** 9
        writer.snapshot(0, bytes(self.snapshot), at)
        for index, data in enumerate(self.wals):
            cuts = self.cuts[index]
            for start, end in zip(cuts, cuts[1:]):
                at += 10 ** 9
                writer.segment(index, start, data[start:end], at)
        return writer

    def want(self, t, index=None):
        """A file with the state at the end of WAL `index` (default: the last)."""
        path = t.path("want.db")
        with open(path, "wb") as file:
            file.write(self.images[-1] if index is None else self.images[index + 1])
        return path


@test("cli", timeout=60)
def odd_but_whole_replicas_are_restored(t):
    """Forms that other writers make, strays, and what retention leaves behind."""
    made = Made(t, "made")
    flat = made.cuts[0]

    def names(writer, kind):
        folder = os.path.join(writer.root, "generations", writer.generation, kind)
        return folder, sorted(os.listdir(folder))

    def remove(writer, kind, keep):
        folder, listing = names(writer, kind)
        for name in listing:
            if not keep(name):
                os.unlink(os.path.join(folder, name))

    def one_segment(writer):
        remove(writer, "wal", lambda name: not name.startswith("00000000_"))
        writer.segment(0, 0, made.wals[0], time.time_ns() - 3600 * 10 ** 9)
        return None

    def header_alone(writer):
        remove(writer, "wal", lambda name: name != "00000000_00000000.wal.lz4")
        writer.segment(0, 0, made.wals[0][:32], time.time_ns() - 3600 * 10 ** 9)
        writer.segment(0, 32, made.wals[0][32:flat[1]], time.time_ns() - 3599 * 10 ** 9)
        return None

    def snapshot_alone(writer):
        remove(writer, "wal", lambda name: False)
        return -1

    def last_wal_header_only(writer):
        remove(writer, "wal", lambda name: name < "00000002_")
        writer.segment(2, 0, made.wals[2][:32])
        return 1

    def cut_inside_a_frame(writer):
        remove(writer, "wal", lambda name: not name.startswith("00000001_"))
        at = time.time_ns() - 3600 * 10 ** 9
        writer.segment(1, 0, made.wals[1][:5000], at)
        writer.segment(1, 5000, made.wals[1][5000:], at)
        return None

    def strays_below_the_snapshot(writer):
        remove(writer, "snapshots", lambda name: False)
        writer.snapshot(1, bytes(made.images[1]), time.time_ns() - 1800 * 10 ** 9)
        remove(writer, "wal", lambda name: name != "00000000_00000000.wal.lz4")
        return None

    def foreign_files(writer):
        for name in ("README", "generations/note.txt", "generations/ABCDEF0123456789/x", "generations/zz/wal/q",
                     "generations/%s/meta.json" % writer.generation,
                     "generations/%s/wal/00000000_00000000.wal.lz4.tmp" % writer.generation,
                     "generations/%s/wal/0000000000_00001038.wal.lz4" % writer.generation,
                     "generations/%s/snapshots/0000000A.snapshot.lz4" % writer.generation,
                     "ltx/0/x.ltx", "lock.json"):
            path = os.path.join(writer.root, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w") as file:
                file.write("not mine\n")
        return None

    def older_generation_beside(writer):
        other = Writer(writer.root, "ffffffffffffffff")
        other.snapshot(0, bytes(made.images[1]), time.time_ns() - 9000 * 10 ** 9)
        return None

    def empty_generation_beside(writer):
        Writer(writer.root, "eeeeeeeeeeeeeeee")
        return None

    def snapshot_with_its_wal(writer):
        """As retention and a first snapshot make it: the snapshot already holds a part of the WAL of its index."""
        header, frames = wal.frames(made.wals[0])
        image = bytearray(made.snapshot)
        upto = [i for i, f in enumerate(frames) if f.commit_pages][2] + 1
        apply_frames(image, made.wals[0], header, frames[:upto])
        writer.snapshot(0, bytes(image), time.time_ns() - 3600 * 10 ** 9)
        return None

    cases = (one_segment, header_alone, snapshot_alone, last_wal_header_only, cut_inside_a_frame,
             strays_below_the_snapshot, foreign_files, older_generation_beside, empty_generation_beside,
             snapshot_with_its_wal)
    # v0.3.13 itself cannot read these two (replica-format: A3.2, fixed after v0.3.13)
    only_ours = (strays_below_the_snapshot,)
    for case in cases:
        with t.part(case.__name__.replace("_", " ")):
            root = t.path(case.__name__)
            index = case(made.lay_out(root))
            want = made.want(t, index)
            before = Replica(root).files()
            for tool in cli.restorers():
                if tool.name == "litestream" and case in only_ours:
                    continue
                out = t.path(case.__name__ + "." + tool.name)
                tool.restore(root, out)
                pages.check_same(out, want, tool.name)
            check_equal(Replica(root).files(), before, "files of the replica after the restore")


@test("cli", timeout=60)
def damage_is_refused_and_named(t):
    """
    A hole or a damaged object is an error that names the object; there is no output file, and nothing is lost. (One hole
    cannot be seen in this layout: the last segments of an index missing although a later index is there.)
    """
    made = Made(t, "made")
    middle = "00000001_%08x.wal.lz4" % made.cuts[1][2]

    def segment(writer, name):
        return os.path.join(writer.root, "generations", writer.generation, "wal", name)

    def truncate(path, keep):
        os.truncate(path, int(os.path.getsize(path) * keep))

    def missing_middle_segment(writer):
        os.unlink(segment(writer, middle))
        return middle[:8]

    def missing_first_segment(writer):
        os.unlink(segment(writer, "00000001_00000000.wal.lz4"))
        return "00000001"

    def missing_index(writer):
        folder = os.path.dirname(segment(writer, "x"))
        for name in os.listdir(folder):
            if name.startswith("00000001_"):
                os.unlink(os.path.join(folder, name))
        return "00000001"

    def missing_snapshot(writer):
        os.unlink(os.path.join(writer.root, "generations", writer.generation, "snapshots", "00000000.snapshot.lz4"))
        return ""

    def corrupt_segment(writer):
        lz4frame.harm(segment(writer, middle))
        return middle

    def truncated_segment(writer):
        truncate(segment(writer, middle), 0.6)
        return middle

    def zero_byte_segment(writer):
        truncate(segment(writer, middle), 0)
        return middle

    def corrupt_snapshot(writer):
        lz4frame.harm(os.path.join(writer.root, "generations", writer.generation, "snapshots", "00000000.snapshot.lz4"))
        return "00000000.snapshot.lz4"

    def truncated_snapshot(writer):
        path = os.path.join(writer.root, "generations", writer.generation, "snapshots", "00000000.snapshot.lz4")
        truncate(path, 0.7)
        return "00000000.snapshot.lz4"

    def snapshot_that_is_no_database(writer):
        writer.snapshot(0, b"plain text, not a database\n" * 400)
        return "00000000.snapshot.lz4"

    def age_encrypted_segment(writer):
        with open(segment(writer, middle), "wb") as file:
            file.write(b"age-encryption.org/v1\n-> X25519 abc\n" + bytes(200))
        return middle

    def damaged_frame_inside_a_good_lz4_frame(writer):
        data = bytearray(made.wals[1][made.cuts[1][2]:made.cuts[1][3]])
        data[24 + 100] ^= 1
        writer.segment(1, made.cuts[1][2], bytes(data))
        return middle[:8]

    def segments_of_two_writers(writer):
        other = Made(t, "other")
        writer.segment(1, made.cuts[1][2], other.wals[1][made.cuts[1][2]:made.cuts[1][3]])
        return middle[:8]

    def wal_of_another_page_size(writer):
        other = Made(t, "small pages", page_size=1024, indexes=1)
        folder = os.path.dirname(segment(writer, "x"))
        for name in os.listdir(folder):
            if name >= "00000002_":
                os.unlink(os.path.join(folder, name))
        writer.segment(2, 0, other.wals[0])
        return "00000002"

    cases = (missing_middle_segment, missing_first_segment, missing_index, missing_snapshot, corrupt_segment,
             truncated_segment, zero_byte_segment, corrupt_snapshot, truncated_snapshot,
             snapshot_that_is_no_database, age_encrypted_segment, damaged_frame_inside_a_good_lz4_frame,
             segments_of_two_writers, wal_of_another_page_size)
    for case in cases:
        with t.part(case.__name__.replace("_", " ")):
            root = t.path(case.__name__)
            named = case(made.lay_out(root))
            before = Replica(root).files()
            folder = t.folder(case.__name__ + ".out")
            status, stdout, stderr = cli.ours().try_restore(root, os.path.join(folder, "out.db"))
            text = stdout + stderr
            check_equal(status, 1, "exit status (output: %s)" % text.strip())
            check(named in text, "the error does not name %s: %s" % (named, text.strip()))
            check_equal(os.listdir(folder), [], "files left behind")
            check_equal(Replica(root).files(), before, "files of the replica after the failed restore")
            t.note("%s: %s" % (case.__name__, text.strip()))


@test("cli", timeout=60)
def a_hole_still_lets_older_states_out(t):
    """After a hole every state before it can be had by -index or -timestamp."""
    made = Made(t, "made")
    root = t.path("replica")
    made.lay_out(root)
    os.unlink(os.path.join(root, "generations", "00112233445566aa", "wal", "00000002_%08x.wal.lz4" % made.cuts[2][3]))
    tool = cli.ours()
    check_equal(tool.try_restore(root, t.path("out.db"))[0], 1, "status of a restore across the hole")
    tool.restore(root, t.path("one.db"), "-index", "00000001")
    pages.check_same(t.path("one.db"), made.want(t, 1), "-index 1")
    at = Replica(root).newest()
    before = [s for s in at.segments if s.index == 2][2]
    tool.restore(root, t.path("two.db"), "-timestamp", cli.rfc3339(before.time_ns))
    Replica(root).restore(t.path("reference.db"), until_ns=before.time_ns)
    pages.check_same(t.path("two.db"), t.path("reference.db"), "-timestamp before the hole")


@test("cli", timeout=60)
def flags_do_what_litestream_does(t):
    """Exit status, and whether there is an output file, for every flag; Litestream's own answers are the table."""
    made = Made(t, "made")
    root = t.path("replica")
    made.lay_out(root)
    replica = Replica(root)
    generation = replica.newest()
    present = t.path("present.db")
    with open(present, "w") as file:
        file.write("here")
    inside = cli.rfc3339(generation.segments[4].time_ns)
    early = cli.rfc3339(generation.created_ns() - 10 ** 9)
    none = t.path("nothing")
    # flags, root, output exists already, (exit status, output made) of v0.3.13
    table = (
        ((), root, False, (0, True)),
        (("-if-db-not-exists",), root, True, (0, False)),
        (("-if-db-not-exists",), root, False, (0, True)),
        ((), root, True, (1, False)),
        (("-if-replica-exists",), none, False, (0, False)),
        ((), none, False, (1, False)),
        (("-generation", generation.name), root, False, (0, True)),
        (("-generation", "1234567812345678"), root, False, (1, False)),
        (("-generation", "1234567812345678", "-if-replica-exists"), root, False, (0, False)),
        (("-index", "00000001"), root, False, (0, True)),
        (("-index", "1"), root, False, (0, True)),
        (("-index", "zz"), root, False, (1, False)),
        (("-timestamp", inside), root, False, (0, True)),
        (("-timestamp", early), root, False, (1, False)),
        (("-timestamp", "yesterday"), root, False, (1, False)),
        (("-index", "00000001", "-timestamp", inside), root, False, (1, False)),
        (("-parallelism", "1"), root, False, (0, True)),
        (("-parallelism", "32"), root, False, (0, True)),
        (("-no-such-flag",), root, False, (1, False)),
        (("extra-argument",), root, False, (1, False)),
    )
    for number, (flags, where, exists, want) in enumerate(table):
        label = " ".join(flags).replace(inside, "T").replace(early, "T") or "no flags"
        label += "" if where == root else ", no replica"
        label += ", output exists" if exists else ""
        with t.part(label):
            for tool in cli.restorers():
                out = present if exists else t.path("%d.%s" % (number, tool.name))
                status, stdout, stderr = tool.try_restore(where, out, *flags)
                made_it = os.path.exists(out) and not exists
                check_equal((status, made_it), want, "%s: %s" % (tool.name, (stdout + stderr).strip()[-200:]))
            with open(present) as file:
                check_equal(file.read(), "here", "the file that was there")


@test("cli", "litestream", timeout=60)
def stock_tools_and_ours_agree_on_listings_of_litestream(t):
    t.folder("data")
    path = t.path("data", "x.db")
    root = t.path("replica")
    con = shim.plain(path, pragmas=("journal_mode=WAL",))
    chain.create(con)
    with cli.Sidecar(path, root, t.path("log")):
        harness.wait_for(lambda: Replica(root).generations(), "first snapshot")
        for _ in range(40):
            chain.commit_one(con, t.random)
            time.sleep(0.01)
    con.close()
    compare_listings(Replica(root), cli.restorers())


if __name__ == "__main__":
    harness.main("interop")
