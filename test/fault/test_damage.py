#!/usr/bin/python3
"""test_damage.py - every object of a replica removed, cut, bit-flipped, extended, duplicated and swapped in turn.

After each damage the replica is restored to many targets. The answer is the very database that was there without the
damage; or an error that names the object or the hole, with nothing left behind; or, where the newest objects are gone without a
trace, an older committed state. Never a database that was not. What the committed states are is worked out by replica.py.
"""

import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from ljtest import chain, cli, damage, harness, lz4frame, pages, shim, wal  # noqa: E402
from ljtest.harness import LONG, Failure, check, check_equal, test, wait_for  # noqa: E402
from ljtest.replica import END_MARK_BYTES, Replica, apply_frames  # noqa: E402

WORKERS = 2
SHARE = 0.5  # of the flips in the short form; all else is always tried
CONTENT_CODES = {"corrupt or truncated data", "a part of the replica is missing", "not supported", "not found"}


def digest(data):
    return hashlib.sha256(data).hexdigest()


def memory_folder(t):
    """The restores' fsyncs are not what is tested."""
    folder = tempfile.mkdtemp(prefix="ljdamage", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else t.dir)
    t.cleanup(shutil.rmtree, folder, True)
    return folder


# ---------------------------------------------------------------------------------------------------------------------
# replicas


def ours(t):
    """Two generations: restarts, a truncation, rollovers with snapshots, several segments per index."""
    database, base = t.path("app.db"), t.path("base")
    for number in range(2):
        shutil.rmtree(t.path(".app.db-litejoin"), ignore_errors=True)  # without it a new generation begins
        con = shim.open_wal(database, base, page_size=512, sync_interval="1ms", snapshot_interval="0")
        if not number:
            chain.create(con)
        for step in ("", "RESTART", "snapshot", "snapshot", "TRUNCATE", "RESTART", "snapshot", ""):
            if step == "snapshot":
                shim.snapshot(con, "60s")
            elif step:
                con.execute("PRAGMA wal_checkpoint(%s)" % step).fetchall()
            for _ in range(2):
                chain.commit_one(con, t.random, payload_bytes=(0, 100))
                shim.sync(con, "60s")
        con.close()
    return os.path.join(base, "app")


def litestreams(t):
    """The same by the real v0.3.13."""
    database, root = t.path("theirs.db"), t.path("theirs")
    con = shim.plain(database, pragmas=("page_size=1024", "journal_mode=wal", "synchronous=off"))
    chain.create(con)
    for number in range(2):
        shutil.rmtree(t.path(".theirs.db-litestream"), ignore_errors=True)
        with cli.Sidecar(database, root, t.path("sidecar.log"), min_checkpoint_page_count=12):
            wait_for(lambda: len(Replica(root).generations()) > number, "generation %d" % number, 60)
            for _ in range(6):
                chain.commit_one(con, t.random, payload_bytes=(0, 100))
                before = Replica(root).counts()
                wait_for(lambda: Replica(root).counts() != before, "a segment", 60)
    con.close()
    return root


def committed_states(root):
    """{generation: {digest: (index, end)}} of every state after a commit, from the oldest snapshot on."""
    found = {}
    for generation in Replica(root).generations():
        base = generation.snapshots[0]
        image = bytearray(base.data())
        states = {digest(image): (base.index, 0)}
        for index in generation.indexes():
            if index < base.index:
                continue
            data = generation.wal_image(index)
            header, frames = wal.frames(data, whole_transactions=False)
            begin = 0
            for i, frame in enumerate(frames):
                if frame.commit_pages:
                    apply_frames(image, data, header, frames[begin:i + 1])
                    states[digest(image)] = (index, frame.end)
                    begin = i + 1
        for snapshot in generation.snapshots:
            check(digest(snapshot.data()) in states, "%r is no committed state" % snapshot)
        found[generation.name] = states
    return found


def targets(root):
    """What is asked for: the newest state, each generation's, indexes, and times between the objects."""
    found = [()]
    generations = Replica(root).generations()
    for generation in generations:
        found.append(("generation=" + generation.name,))
        indexes = generation.indexes()
        for index in sorted({indexes[0], indexes[len(indexes) // 2], indexes[-1]}):
            found.append(("generation=" + generation.name, "index=%08x" % index))
        times = sorted(o.time_ns for o in generation.snapshots + generation.segments)
        found.append(("timestamp=%d" % times[len(times) * 2 // 3],))
        found.append(("timestamp=%d" % times[len(times) // 4],))
    return found


# ---------------------------------------------------------------------------------------------------------------------
# restoring


class Restorer:
    """A copy of the replica to damage, and a process that restores it."""

    def __init__(self, root, folder):
        self.root = os.path.join(folder, "replica")
        self.out = os.path.join(folder, "out")
        os.makedirs(self.out)
        subprocess.run(["cp", "-rp", root, self.root], check=True)
        program = os.path.join(harness.build_dir(), "test", "fault", "restore_shell")
        if not os.access(program, os.X_OK):
            raise harness.Skip("%s is not built" % program)
        self.process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def close(self):
        self.process.stdin.close()
        self.process.wait()

    def restore(self, target):
        """(answer, digest of the database or None); checks that nothing else is left."""
        path = os.path.join(self.out, "db")
        self.process.stdin.write("\t".join(("file://" + self.root, path) + target).encode() + b"\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        check(line, "the restoring process ended with status %s" % self.process.poll())
        answer = json.loads(line)
        left = os.listdir(self.out)
        if answer["code"] != "ok":
            check_equal(left, [], "left behind by a restore that failed")
            return answer, None
        check_equal(left, ["db"], "left by a restore")
        found = digest(pages.read(path))
        os.unlink(path)
        return answer, found


class Expectation:
    """What the replica gives undamaged, and what may come out of it damaged."""

    def __init__(self, root, restorer, labels):
        self.labels = labels
        self.states = committed_states(root)
        self.targets = targets(root)
        self.wanted = {}  # target -> (digest, used keys, the last of them)
        replica = Replica(root)
        for target in self.targets:
            answer, found = restorer.restore(target)
            check_equal(answer["code"], "ok", "%s undamaged: %s" % (target, answer))
            position = shim.Position(answer["position"])
            check(found in self.states[position.generation], "%s: not a committed state" % (target,))
            used = [damage.name(position.generation, answer["snapshot"], None)]
            generation = replica.generation(position.generation)
            end = (position.index, position.offset)
            until_ns = max([int(word[10:]) for word in target if word.startswith("timestamp=")], default=None)
            found_marks = [m for m in generation.marks if (m.index, m.offset) <= end and (not until_ns or m.time_ns <= until_ns)]
            segments = [s for s in generation.segments if (s.index, s.offset) < end] + found_marks
            for s in sorted(segments, key=lambda o: (o.index, o.offset)):
                if s.index >= answer["snapshot"]:
                    used.append(damage.name(s.generation, s.index, s.offset))
            self.wanted[target] = (found, used)

    def all_states(self):
        return set().union(*self.states.values())

    def judge(self, harm, target, answer, found):
        """Fails when the answer is wrong; returns what kind of answer it is."""
        wanted, used = self.wanted[target]
        where = "%s, target %s" % (harm.what, " ".join(target) or "newest")
        alone = not harm.added and len(harm.touched) == 1
        if found == wanted:
            return "same"
        check(not alone or harm.touched & set(used), "%s: not needed, but: %s" % (where, answer))
        if found is None:
            self._judge_error(where, harm, answer)
            return "error"
        check(found in self.all_states(), "%s: a database that never was (%s)" % (where, answer))
        # an end mark in a segment's place says that nothing is there
        gone = {key for key, (content, _) in harm.changes.items() if content is None or len(content) == END_MARK_BYTES}
        cut = not self.labels and " without " in harm.what  # whole as an LZ4 frame: nobody can see that more was there
        silent = (gone or cut) and harm.touched & set(used) <= {used[-1]}
        if gone and not silent:  # the only snapshot of a generation: another one is used, with a warning
            silent = "/snapshots/" in next(iter(gone)) and shim.Position(answer["position"]).generation not in used[0]
        check(silent, "%s: an older state without a word (%s)" % (where, answer))
        return "older"

    @staticmethod
    def _judge_error(where, harm, answer):
        check(answer["code"] in CONTENT_CODES, "%s: %s" % (where, answer))
        text = answer["message"]
        named = False
        for key in harm.touched:
            generation, index, _ = damage.parse(key)
            named |= generation in text and any("%08x" % i in text for i in (index, index + 1))
            named |= text.startswith("no snapshots available: generation " + generation)
        named |= text == "no matching backups found" and any("/snapshots/" in key for key in harm.touched)
        check(named, "%s: the error names none of it: %s" % (where, answer))


def follow_hint(expectation, restorer, where, answer):
    """The flags of a hint give a committed state, or say in turn what is wrong."""
    words = answer["hint"].replace(",", " ").split()
    flags = {"-generation": "generation", "-index": "index", "-snapshot": "snapshot"}
    target = tuple("%s=%s" % (flags[a], b) for a, b in zip(words, words[1:]) if a in flags)
    if not target or "-timestamp" in words:
        return
    again, found = restorer.restore(target)
    check(found is None or found in expectation.all_states(),
          "%s: the hint (%s) leads to a database that never was: %s" % (where, answer["hint"], again))


def try_all(t, root, harms, labels=True, only=lambda harm, target, used: True):
    """Every damage, every target, on WORKERS copies at once. Returns how often which kind of answer came."""
    folder = memory_folder(t)
    restorers = [Restorer(root, os.path.join(folder, str(i))) for i in range(WORKERS)]
    expectation = Expectation(root, restorers[0], labels)
    counts = {}
    failures = []
    lock = threading.Lock()  # guards counts, failures and the iterator
    queue = iter(harms)

    def work(restorer):
        while len(failures) < 5:
            with lock:
                harm = next(queue, None)
            if harm is None:
                return
            harm = damage.Damage(restorer.root, harm.what, harm.changes)
            try:
                with harm:
                    for target in expectation.targets:
                        if not only(harm, target, expectation.wanted[target][1]):
                            continue
                        answer, found = restorer.restore(target)
                        kind = expectation.judge(harm, target, answer, found)
                        if kind == "error" and not target:
                            follow_hint(expectation, restorer, harm.what, answer)
                        with lock:
                            counts[kind] = counts.get(kind, 0) + 1
            except Exception as error:
                with lock:
                    failures.append("%s: %s" % (harm.what, error))

    threads = [threading.Thread(target=work, args=(r,)) for r in restorers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for restorer in restorers:
        restorer.close()
    if failures:
        raise Failure(" | ".join(failures[:5]))
    return counts


def some_flips(t, harms):
    return [h for h in harms if LONG or not h.what.startswith("flip") or t.random.random() < SHARE]


# ---------------------------------------------------------------------------------------------------------------------


@test("shim", timeout=240, long_timeout=1800)
def every_object_of_ours(t):
    root = ours(t)
    listing = damage.objects(root)
    check_equal(len(Replica(root).generations()), 2, "generations")
    labels = {key: lz4frame.split_label(content)[0] for key, content, _ in listing if lz4frame.decompress(content)}
    for key, label in labels.items():
        check(label and label[0] in key, "%s has no label of its own: %s" % (key, label))
    check(any(label[5] for key, label in labels.items() if "/wal/" in key), "no segment says where the index before it ends")
    with t.part("removed, cut, flipped, extended"):
        harms = some_flips(t, [h for item in listing for h in damage.single(root, *item)])
        harms += [h for item in listing for h in damage.frames_cut(root, *item)]
        counts = try_all(t, root, harms)
        t.note(counts)
        check(counts["error"] and counts["same"] and counts["older"], str(counts))
    with t.part("duplicated"):
        t.note(try_all(t, root, damage.duplicates(root, listing)))
    with t.part("swapped"):
        t.note(try_all(t, root, damage.swaps(root, listing)))


def visible(harms, listing):
    """Without those that nobody can see when objects have no labels: an index that lost its end, though another one follows."""
    last = {}
    for key, _, _ in listing:
        generation, index, offset = damage.parse(key)
        if offset is not None:
            last[generation, index] = max(last.get((generation, index), 0), offset)
    for harm in harms:
        generation, index, offset = damage.parse(next(iter(harm.touched)))
        at_end = offset is not None and offset == last[generation, index]
        if not (at_end and harm.what.startswith("remove") or " without " in harm.what):
            yield harm
        elif at_end and (generation, index + 1) not in last and "its first frame" not in harm.what:
            yield harm


def lives_in_disorder(listing):
    """An older WAL as the newest one, and neighbours in the wrong order: what shows without labels."""
    begins = [item for item in listing if damage.parse(item[0])[2] == 0]
    for key, content, _ in begins:
        generation, index, _ = damage.parse(key)
        last = max(damage.parse(k)[1] for k, _, _ in listing if k.startswith(generation))
        newest = max(ns for k, _, ns in listing if k.startswith(generation))
        target = damage.name(generation, last + 1, 0)
        yield damage.Damage("", "duplicate %s as %s" % (key, target), {target: (content, newest + 1)})
        for other, other_content, other_ns in begins:
            if damage.parse(other)[:2] == (generation, index + 1):
                yield damage.Damage("", "swap %s and %s" % (key, other), {
                    key: (other_content, other_ns - 1), other: (content, other_ns)})


@test("cli", "litestream", timeout=240, long_timeout=1800)
def every_object_of_litestream(t):
    root = litestreams(t)
    listing = damage.objects(root)
    check(all(len(g.indexes()) > 1 for g in Replica(root).generations()), "only one index")
    with t.part("removed, cut, flipped, extended"):
        harms = [h for item in listing for h in damage.single(root, *item)]
        harms += [h for item in listing for h in damage.frames_cut(root, *item)]
        counts = try_all(t, root, visible(harms, listing), labels=False)
        t.note(counts)
        check(counts["error"] and counts["same"], str(counts))

    def replayed(harm, target, used):
        source = harm.what.split()[1]
        return "generation=" + source[:16] in target and {source} | harm.touched - harm.added <= set(used)

    with t.part("duplicated and swapped within a generation"):
        counts = try_all(t, root, lives_in_disorder(listing), labels=False, only=replayed)
        t.note(counts)
        check(counts["error"], str(counts))


@test("shim", "cli", timeout=240, long_timeout=1200)
def command_line_and_restore_on_open(t):
    """The same verdicts by the two public ways in, for some damages of each object."""
    root = ours(t)
    base = os.path.dirname(root)
    listing = damage.objects(root)
    restorer = Restorer(root, memory_folder(t))
    expectation = Expectation(root, restorer, True)
    restorer.close()
    database = t.path("opened", "app.db")
    for key, content, time_ns in listing:
        harms = list(damage.single(root, key, content, time_ns))
        for harm in harms if LONG else [harms[0]] + t.random.sample(harms, 2):
            with harm:
                out = t.path("cli.db")
                status, _, stderr = cli.ours().try_restore(root, out)
                found = digest(pages.read(out)) if status == 0 else None
                check((status == 0) == os.path.exists(out), "%s: status %d" % (harm.what, status))
                answer = {"code": "corrupt or truncated data", "message": stderr.strip(), "position": "0" * 16 + "/00000000:0"}
                if found is None:
                    check(not [n for n in os.listdir(t.dir) if n.startswith("cli")], "left behind: %s" % os.listdir(t.dir))
                    harmed = [k for k in harm.touched if "%08x" % damage.parse(k)[1] in stderr]
                    check(harmed or "no snapshots" in stderr or "%08x" % (damage.parse(key)[1] + 1) in stderr,
                          "%s: %s" % (harm.what, stderr))
                else:
                    expectation.judge(harm, (), answer, found)
                    os.unlink(out)
                os.makedirs(os.path.dirname(database))
                try:
                    con = shim.connect(database, base, restore_on_boot="true", shutdown_timeout="0")
                    con.execute("SELECT count(*) FROM chain").fetchone()
                    con.close()
                    check(status == 0, "%s: the open worked, the command line said: %s" % (harm.what, stderr))
                    check_equal(digest(pages.read(database)), found, "%s: restored on open" % harm.what)
                except sqlite3.OperationalError as error:
                    check(status != 0, "%s: the open failed: %s; %s" % (harm.what, error, shim.last_error()))
                    check("restoring before open" in shim.last_error(), shim.last_error())
                    left = [n for n in os.listdir(os.path.dirname(database)) if not n.startswith(".app.db-litejoin")]
                    check_equal(left, [], "%s: left by an open that failed" % harm.what)
                shutil.rmtree(os.path.dirname(database))


if __name__ == "__main__":
    harness.main("damage")
