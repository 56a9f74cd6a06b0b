#!/usr/bin/python3
"""test_restore_cli.py - litejoin-replica's restore and listings, beside the real Litestream v0.3.13 and on their own.

Replicas come from `litestream replicate` itself. Whatever v0.3.13 answers, this tool answers too: the same bytes, columns,
rows and exit codes, also under the name "litestream" and with the same litestream.yml. Where v0.3.13 refuses or fails
(a time in a gap, several replicas of which one is down), this tool's own answer is checked.
"""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from ljtest import chain, cli, harness, lz4frame, native, pages, shim  # noqa: E402
from ljtest.harness import check, check_equal, test, wait_for  # noqa: E402
from ljtest.lives import killat  # noqa: E402
from ljtest.replica import Replica, Writer  # noqa: E402

BOTH = ("cli", "litestream")


def write(path, text):
    with open(path, "w") as file:
        file.write(text)
    return path


def ours(*arguments, **options):
    return cli.ours().run(*arguments, **options)


def replicated(t, generations=1, rounds=4):
    """A database that Litestream replicated, with several WAL indexes: (database, replica folder)."""
    database = t.path("app.db")
    root = t.path("replica")
    con = shim.plain(database, pragmas=("journal_mode=wal", "synchronous=off"))
    chain.create(con)
    for number in range(generations):
        if number:  # without its folder Litestream begins a new generation
            subprocess.run(["rm", "-rf", t.path(".app.db-litestream")], check=True)
        with cli.Sidecar(database, root, t.path("sidecar%d.log" % number), min_checkpoint_page_count=15,
                         checkpoint_interval="1s"):
            wait_for(lambda: len(Replica(root).generations()) > number, "generation %d" % number)
            newest = Replica(root).newest().name
            done = 0
            while done < rounds or (len(Replica(root).generation(newest).indexes()) < 2 and done < 200):
                for _ in range(12):
                    chain.commit_one(con, t.random)
                time.sleep(0.15)
                done += 1
    con.close()
    return database, root


def same_restore(t, root, label, *flags):
    """Both tools restore the same bytes."""
    results = []
    for tool in (cli.litestream(), cli.ours()):
        out = t.path("out-%s.db" % tool.name)
        if os.path.exists(out):
            os.unlink(out)
        results.append(tool.restore(root, out, *flags))
    pages.check_same(results[1], results[0], label)
    pages.check_integrity(results[1], label)
    return results[1]


@test(*BOTH, timeout=120)
def restores_what_litestream_restores(t):
    _, root = replicated(t, generations=2)
    replica = Replica(root)
    same_restore(t, root, "newest")
    same_restore(t, root, "flags without a value", "-generation", "", "-timestamp=", "-replica", "", "-config", "")
    generations = replica.generations()
    check_equal(len(generations), 2, "generations")
    for generation in generations:
        same_restore(t, root, "generation " + generation.name, "-generation", generation.name)
        indexes = sorted({s.index for s in generation.segments})
        check(len(indexes) > 1, "only one WAL index")
        for index in indexes:
            same_restore(t, root, "index %x" % index, "-generation", generation.name, "-index", "%x" % index)
        for segment in generation.segments[::5]:
            same_restore(t, root, "time of %s" % segment, "-generation", generation.name, "-timestamp",
                         cli.rfc3339(segment.time_ns))


@test(*BOTH, timeout=90)
def every_time_has_an_answer(t):
    _, root = replicated(t, generations=2, rounds=2)
    first, second = sorted(Replica(root).generations(), key=lambda g: g.created_ns())
    gap = (first.updated_ns() + second.created_ns()) // 2
    for label, moment, generation in (("in the gap", gap, first), ("much later", time.time_ns() + 10**12, second)):
        status, _, _ = cli.litestream().try_restore(root, t.path("theirs.db"), "-timestamp", cli.rfc3339(moment))
        check_equal(status, 1, "v0.3.13 " + label)
        got = cli.ours().restore(root, t.path(label + ".db"), "-timestamp", cli.rfc3339(moment))
        want = cli.ours().restore(root, t.path(label + " want.db"), "-generation", generation.name)
        pages.check_same(got, want, label)
    status, _, stderr = cli.ours().try_restore(root, t.path("x.db"), "-timestamp", cli.rfc3339(first.created_ns() - 1))
    check_equal(status, 1, "before the first snapshot")
    check("no matching backups found" in stderr and "oldest time" in stderr, stderr)


@test(*BOTH, timeout=90)
def listings_are_those_of_litestream(t):
    database, root = replicated(t, generations=2, rounds=2)
    config = write(t.path("litestream.yml"),
                   "dbs:\n  - path: %s\n    replicas:\n      - path: %s\n      - name: second\n        url: file://%s\n"
                   % (database, root, root))
    generation = Replica(root).newest().name
    for command, *flags in (("snapshots",), ("wal",), ("wal", "-generation", generation), ("generations",),
                            ("snapshots", "-replica", "second"), ("wal", "-replica", "", "-generation="),
                            ("wal", "--replica=file"), ("generations", "-replica", "file")):
        for target in (["file://" + root], ["-config", config, database]):
            if "://" in target[0] and any("replica" in f for f in flags):
                continue
            label = " ".join([command] + flags + target)
            outputs = []
            for tool in (cli.litestream(), cli.ours()):
                status, stdout, _ = tool.run(command, *flags, *target)
                check_equal(status, 0, "%s: %s" % (tool.name, label))
                if command == "generations" and "://" in target[0]:  # the lag counts from now
                    stdout = re.sub(r"(?m)^(\S+\s+\S+)\s+\S+\s+", r"\1 LAG ", stdout)
                outputs.append(stdout)
            check_equal(outputs[1], outputs[0], label)
    status, theirs, _ = cli.litestream().run("databases", "-config", config)
    check_equal(ours("databases", "-config", config)[:2], (status, theirs), "databases")


@test(*BOTH, timeout=60)
def usage_errors_are_those_of_litestream(t):
    root = t.folder("empty")
    url = "file://" + root
    write(t.path("bad.yml"), "dbs: [\n")
    good = write(t.path("good.yml"), "dbs:\n  - path: %s\n    replicas:\n      - path: %s\n" % (t.path("a.db"), root))
    write(t.path("exists.db"), "x")
    lines = (
        ["restore"], ["restore", "-bogus", url], ["restore", "-index", "zz", "-o", "x", url], ["restore", url],
        ["restore", "a", "b"], ["restore", "-o"], ["restore", "-timestamp", "yesterday", "-o", t.path("x.db"), url],
        ["restore", "-config", "/nope.yml", "/a.db"], ["restore", "-config", good, url],
        ["restore", "-config", good, "/other.db"], ["restore", "-o", t.path("x.db"), url],
        ["restore", "-if-replica-exists", "-o", t.path("x.db"), url],
        ["restore", "-if-db-not-exists", "-o", t.path("exists.db"), url],
        ["restore", "-config", t.path("bad.yml"), "/a.db"], ["restore", "-parallelism", "many", "-o", "x", url],
        ["restore", "-generation", "0123456789abcdef", "-o", t.path("x.db"), url],
        ["generations", url], ["generations"], ["snapshots", url, "more"], ["wal", "-config", "/nope.yml", "/a.db"],
        ["databases", "-config", "/nope.yml"], ["unknown"], [], ["help"], ["-x"], ["restore", "-h"],
    )
    for arguments in lines:
        their_status, _, their_stderr = cli.litestream().run(*arguments)
        status, _, stderr = ours(*arguments)
        label = " ".join(arguments) or "(nothing)"
        check_equal(status, their_status, label)
        words = re.findall(r'error="(.*)"$', their_stderr.strip().splitlines()[-1] if their_stderr else "")
        if words and "yaml" not in words[0]:
            said = words[0].replace('\\"', '"').replace("\\u00a0", " ").replace("litestream unknown", "unknown")
            check(said in stderr, "%s: %r does not say %r" % (label, stderr, said))
    check(not os.path.exists(t.path("x.db")), "a failed restore left a file")


@test("cli")
def answers_to_the_name_litestream(t):
    os.symlink(harness.cli_path(), t.path("litestream"))
    tool = cli.Tool("renamed", t.path("litestream"))
    status, stdout, _ = tool.run()
    check(status == 1 and "Usage: litestream COMMAND" in stdout, stdout)
    check(tool.run("restore", "-h")[1].count("litestream restore") == 2, "help")
    check_equal(tool.run("version")[1], ours("version")[1], "version")
    check(re.match(r"litejoin-replica \d+\.\d+\.\d+\n$", ours("version")[1]), "version")


def made(t, segments=6, name="replica", page=4096):
    """A replica made by hand from a plain SQLite database: snapshot 0, one segment per transaction."""
    database = t.path(name + "-source.db")
    con = shim.plain(database, pragmas=("journal_mode=wal", "wal_autocheckpoint=0"))
    chain.create(con)
    con.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    writer = Writer(t.path(name))
    start = time.time_ns() - 3600 * 10**9
    writer.snapshot(0, subprocess.run(["cat", database], stdout=subprocess.PIPE).stdout, start)
    ends = [0]
    for _ in range(segments):
        chain.commit_one(con, t.random)
        ends.append(os.path.getsize(database + "-wal"))
    wal = subprocess.run(["cat", database + "-wal"], stdout=subprocess.PIPE).stdout
    for number, (begin, end) in enumerate(zip(ends, ends[1:])):
        writer.segment(0, begin, wal[begin:end], start + (number + 1) * 10**9)
    con.close()
    return t.path(name), database


@test("cli")
def json_and_dry_runs(t):
    root, database = made(t)
    url = "file://" + root
    for command, key in (("generations", "generation"), ("snapshots", "index"), ("wal", "offset")):
        status, stdout, _ = ours(command, "-json", url)
        rows = json.loads(stdout)
        check(status == 0 and rows and key in rows[0], stdout)
        check_equal(json.loads(ours(command, "-json", "file://" + t.path("nothing"))[1]), [], command)
    check_equal(len(json.loads(ours("wal", "-json", url)[1])), 6, "segments")
    config = write(t.path("l.yml"), "dbs:\n  - path: %s\n    replicas:\n      - path: %s\n" % (t.path('a"b.db'), root))
    check_equal(json.loads(ours("databases", "-json", "-config", config)[1]),
                [{"path": t.path('a"b.db'), "replicas": ["file"]}], "databases")
    check("version" in json.loads(ours("version", "-json")[1]), "version")
    out = t.path("out.db")
    status, stdout, _ = ours("restore", "-dry-run", url)
    check(status == 0 and stdout.split()[:4] == ["replica", "generation", "snapshot", "index"], stdout)
    plan = json.loads(ours("restore", "-dry-run", "-json", "-o", out, url)[1])
    check(plan["segments"] == 6 and plan["newest"] is True and not os.path.exists(out), plan)
    result = json.loads(ours("restore", "-json", "-o", out, url)[1])
    check_equal(result["db_size"], os.path.getsize(out), "db_size")
    pages.check_same(out, pages.folded_copy(database, t.folder("fold")), "restored")
    check_equal(os.stat(out).st_mode & 0o777, 0o600, "mode")


@test("cli")
def configuration_files(t):
    root, database = made(t)
    old, _ = made(t, segments=3, name="old")
    target = t.path("data", "app.db")
    block = "dbs:\n  - path: %s\n    replicas:\n" % target

    def run(text, *flags, env=None, arguments=None):
        config = write(t.path("litestream.yml"), text)
        if os.path.exists(target):
            os.unlink(target)
        return ours("restore", "-config", config, *flags, *(arguments or [target]), env=env)

    status, _, stderr = run(block + "      - name: stale\n        path: %s\n      - name: fresh\n        url: file://%s\n" % (old, root))
    check(status == 0, stderr)
    check_equal(chain.verify_file(target), chain.verify_file(cli.ours().restore(root, t.path("want.db"))), "the newest replica")
    status, _, stderr = run(block + "      - name: stale\n        path: %s\n      - url: file://%s\n" % (old, root), "-replica", "stale")
    check(status == 0 and chain.verify_file(target) < chain.verify_file(t.path("want.db")), "-replica: " + stderr)
    status, _, stderr = run(block + "      - name: down\n        path: /proc/version/x\n      - path: %s\n" % root)
    check(status == 0, "one replica is down: " + stderr)
    status, _, stderr = run(block + "      - name: far\n        url: s3://bucket/x\n      - path: %s\n" % root)
    check(status == 0 and "far" in stderr, "a replica without a driver: " + stderr)

    env = {"LJ_TEST_ROOT": root}
    status, _, stderr = run(block + "      - path: $LJ_TEST_ROOT\n", env=env)
    check(status == 0, "$NAME: " + stderr)
    status, _, stderr = run(block + "      - path: ${LJ_TEST_ROOT}\n", "-no-expand-env", env=env)
    check(status == 1 and "no matching backups" in stderr, "-no-expand-env: " + stderr)
    status, _, stderr = run("no-such-key: 1\n" + block + "      - path: %s\n        sync-intervall: 1s\n" % root)
    check(status == 0 and "no-such-key" in stderr and "line 6" in stderr and "sync-intervall" in stderr, stderr)
    full = ("addr: ':9090'\nexec: true\naccess-key-id: a\nsecret-access-key: b\n"
            "logging: {level: warn, type: json, stderr: true}\n"
            "dbs:\n  - path: %s\n    meta-path: ~/x\n    monitor-interval: 1s\n    checkpoint-interval: 1m30s\n"
            "    min-checkpoint-page-count: 10\n    max-checkpoint-page-count: 0\n    replicas:\n"
            "      - {type: file, name: n, path: %s, retention: 24h, retention-check-interval: 1h, sync-interval: 500ms, "
            "snapshot-interval: 1h, validation-interval: 0}\n"
            "      - {type: s3, bucket: b, path: p, region: r, endpoint: e, force-path-style: true, skip-verify: false}\n"
            "      - {type: abs, account-name: a, account-key: k, bucket: b, path: p}\n"
            "      - {type: sftp, host: 'h:22', user: u, password: p, key-path: k, path: p}\n"
            "      - {type: gcs, bucket: b, path: p, age: {identities: [x], recipients: [y]}}\n" % (target, root))
    status, _, stderr = run(full, "-replica", "n")
    check(status == 0 and "ignored" not in stderr, "every key: " + stderr)

    for text, said in (
            (block + "      - {path: /a, url: 'file:///b'}\n", "url & path"),
            (block + "      - type: ftp\n        path: /a\n", 'unknown replica type in config: "ftp"'),
            (block + "      - path: /a\n      - path: /b\n", 'duplicate replica name: "file"'),
            (block + "      - path: 'file:///a'\n", "replica path cannot be a url"),
            (block + "      - path: /a\n        retention: soon\n", "line 5: retention must be a duration"),
            ("dbs: 7\n", "line 1: dbs must be a list"),
            ("dbs:\n  - path: /a\n   bad\n", "not YAML"),
            (block + "      - url: s3://bucket/x\n", "s3")):
        status, _, stderr = run(text)
        check(status == 1 and said in stderr, "%r: %s" % (text, stderr))
        check(not os.path.exists(target), "a database appeared")


@test("cli")
def damage_is_named_and_the_hint_works(t):
    root, _ = made(t)
    out = t.path("out.db")
    generation = Replica(root).newest()
    for number, segment in enumerate(generation.segments):
        for how in ("missing", "cut", "flipped"):
            if how == "missing" and number == len(generation.segments) - 1:
                continue  # then it was never there
            kept = pages.read(segment.path)
            if how == "missing":
                os.unlink(segment.path)
            else:
                with open(segment.path, "wb") as file:
                    file.write(kept[:-9] if how == "cut" else kept[:20] + bytes([kept[20] ^ 4]) + kept[21:])
                os.utime(segment.path, ns=(segment.time_ns, segment.time_ns))
            status, _, stderr = cli.ours().try_restore(root, out)
            check_equal(status, 1, "%s %s" % (segment, how))
            check_equal([n for n in os.listdir(t.dir) if n.startswith("out.db")], [], "left behind")
            flags = re.search(r"-generation \S+ -(?:timestamp|index) \S+", stderr)
            check(flags, "no way out: " + stderr)
            cli.ours().restore(root, out, *flags.group(0).split())
            check_equal(chain.verify_file(out), number, "%s %s: the state before" % (segment, how))
            os.unlink(out)
            with open(segment.path, "wb") as file:
                file.write(kept)
            os.utime(segment.path, ns=(segment.time_ns, segment.time_ns))
    cli.ours().restore(root, out)
    status, _, stderr = cli.ours().try_restore(root, out)
    check(status == 1 and "output path already exists" in stderr, stderr)
    status, _, stderr = cli.ours().try_restore(root, out, "-exit-codes")
    check_equal(status, 16, "-exit-codes")
    write(t.path("fresh.db-wal"), "stale")
    status, _, stderr = cli.ours().try_restore(root, t.path("fresh.db"))
    check(status == 1 and "fresh.db-wal" in stderr and "hint:" in stderr, stderr)


@test("cli")
def output_that_cannot_be_written(t):
    root, _ = made(t, segments=2)
    with open("/dev/full", "w") as full:
        done = subprocess.run([harness.cli_path(), "wal", "file://" + root], stdout=full, stderr=subprocess.PIPE)
    check(done.returncode == 1 and b"No space" in done.stderr, repr(done))
    folder = os.path.join(root, "generations", "aaaaaaaaaaaaaaaa", "wal")
    os.makedirs(folder)
    for number in range(3000):
        write(os.path.join(folder, "00000000_%08x.wal.lz4" % number), "")
    for flag in ([], ["-json"]):
        child = subprocess.Popen([harness.cli_path(), "wal"] + flag + ["file://" + root], stdout=subprocess.PIPE,
                                 stderr=subprocess.PIPE)
        child.stdout.read(10)
        child.stdout.close()
        stderr = child.stderr.read()
        check(child.wait(120) == 0 and stderr == b"", "a reader that went away: %d %r" % (child.returncode, stderr))


def big(t, megabytes):
    """A replica whose snapshot takes a while to write: zeros behind a database header."""
    image = bytearray(megabytes << 20)
    image[:18] = b"SQLite format 3\0\x10\0"
    Writer(t.path("big")).snapshot(0, bytes(image), time.time_ns())
    return t.path("big")


@test("cli", timeout=90)
def progress_on_a_terminal_only(t):
    root = big(t, 300)
    status, stdout, stderr = cli.ours().try_restore(root, t.path("plain.db"))
    check(status == 0 and stdout == "" and "\r" not in stderr and "ETA" not in stderr, stderr)
    master, slave = pty.openpty()
    child = subprocess.Popen([harness.cli_path(), "restore", "-o", t.path("shown.db"), "file://" + root], stderr=slave,
                             stdout=slave, env=dict(os.environ, TERM="xterm"))
    os.close(slave)
    seen = b""
    while True:
        try:
            piece = os.read(master, 4096)
        except OSError:
            break
        if not piece:
            break
        seen += piece
    check_equal(child.wait(300), 0, "exit status")
    check(b"100%" in seen and b"ETA" in seen and b"/s" in seen and b"restored" in seen, repr(seen[-400:]))


@test("cli", timeout=90)
def a_signal_leaves_nothing(t):
    root = big(t, 400)
    for number in (signal.SIGTERM, signal.SIGINT):
        folder = t.folder("out%d" % number)
        out = os.path.join(folder, "a.db")
        for _ in range(20):
            child = subprocess.Popen([harness.cli_path(), "restore", "-o", out, "file://" + root], stderr=subprocess.PIPE)
            wait_for(lambda: os.listdir(folder), "a temporary file", step=0.001)
            child.send_signal(number)
            _, stderr = child.communicate(timeout=300)
            if child.returncode != 0:
                break
            os.unlink(out)  # it was done before the signal came
        check(child.returncode == 1 and b"cancelled" in stderr, "%d %r" % (child.returncode, stderr))
        check_equal(os.listdir(folder), [], "left behind")


@test("cli", timeout=90)
def what_a_killed_one_left_goes_with_the_next(t):
    root = big(t, 4)
    folder = t.folder("out")
    out = os.path.join(folder, "[a]*.db")
    mine = [write(os.path.join(folder, name), "mine")
            for name in ("a.db.tmp-restore-0123456789abcdef", "[a]*.db.tmp-restore-old")]

    def begin(**env):
        """One that dies at its second write, or stays there."""
        return subprocess.Popen([harness.cli_path(), "restore", "-o", out, "file://" + root], stderr=subprocess.PIPE,
                                env=dict(os.environ, LD_PRELOAD=killat(), LJ_KILL_DIR=folder, **env))

    def killed(child):
        child.communicate(timeout=60)
        check_equal(child.returncode, -signal.SIGKILL, "it was killed in the middle")

    writes = "*write *.tmp-restore-*"
    killed(begin(LJ_KILL_MATCH=writes, LJ_KILL_AT="2"))
    check_equal(len(os.listdir(folder)), 3, "left behind")
    first = set(os.listdir(folder))
    child = begin(LJ_SLOW_MATCH=writes, LJ_SLOW_US="600000000")
    wait_for(lambda: set(os.listdir(folder)) - first, "a temporary file")
    check_equal(len(os.listdir(folder)), 3, "the second one has swept what the first one had left")
    status, _, stderr = ours("restore", "-o", out, "file://" + root)
    check_equal(status, 0, stderr)
    check_equal(len(os.listdir(folder)), 4, "what is being written is left alone")
    os.unlink(out)
    child.kill()
    killed(child)
    status, _, stderr = ours("restore", "-o", out, "file://" + root)
    check_equal(status, 0, stderr)
    check_equal({os.path.join(folder, name) for name in os.listdir(folder)}, {*mine, out}, "at the end")


@test("cli")
def a_replica_of_litestream_v05(t):
    """It holds a backup, which cannot be read here: that is no "no backup", also for those who ask for one only if there is one."""
    for number, name in enumerate(("ltx/9/0000000000000001-0000000000000007.ltx", "0009/0000000000000001-0000000000000007.ltx")):
        root = t.folder("v05.%d" % number)
        os.makedirs(os.path.dirname(os.path.join(root, name)))
        write(os.path.join(root, name), "LTX1")
        out = t.path("out%d.db" % number)
        status, _, stderr = ours("restore", "-if-replica-exists", "-exit-codes", "-o", out, "file://" + root)
        check_equal(status, 25, stderr)
        check("Litestream v0.5" in stderr and name in stderr and "hint:" in stderr, stderr)
        check(not os.path.exists(out), "an output")


@test("cli")
def a_file_system_without_links(t):
    """Nor has it a rename that does not overwrite: the name is taken in another way, and never from somebody."""
    root, _ = made(t, segments=2)
    folder = t.folder("out")
    out = os.path.join(folder, "a.db")
    library = native.shared_library(os.path.join(os.path.dirname(os.path.abspath(__file__)), "no_names.c"))
    env = {"LD_PRELOAD": library}
    status, _, stderr = ours("restore", "-o", out, "file://" + root, env=env)
    check_equal(status, 0, stderr)
    check_equal(os.listdir(folder), ["a.db"], "files")
    pages.check_same(out, cli.ours().restore(root, t.path("want.db")), "restored")
    status, _, stderr = ours("restore", "-o", out, "file://" + root, env=env)
    check(status == 1 and "output path already exists" in stderr, stderr)


if __name__ == "__main__":
    harness.main("restore cli")
