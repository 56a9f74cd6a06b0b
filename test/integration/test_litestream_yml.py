#!/usr/bin/python3
"""test_litestream_yml.py - what a litestream.yml means to litejoin-replica: the same as to Litestream v0.3.13, or it says so."""

import os
import pwd
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from ljtest import cli, harness, shim  # noqa: E402
from ljtest.harness import check, check_equal, test  # noqa: E402
from ljtest.replica import Writer  # noqa: E402


def write(path, text):
    with open(path, "w" if isinstance(text, str) else "wb") as file:
        file.write(text)
    return path


def ours(*arguments, **options):
    return cli.ours().run(*arguments, **options)


def made(t, name="replica"):
    """A replica with one snapshot."""
    database = t.path(name + "-source.db")
    con = shim.plain(database)
    con.execute("CREATE TABLE t(x)")
    con.close()
    with open(database, "rb") as file:
        Writer(t.path(name)).snapshot(0, file.read(), time.time_ns() - 10**9)
    return t.path(name)


@test("cli", "litestream", timeout=60)
def the_same_to_both(t):
    """Blocks that take over others by "<<", keys that are there twice, texts that are empty."""
    root, database = made(t), t.path("a.db")
    for label, text in (
            ("one block", "x: &x {name: merged, type: gcs}\ndbs:\n  - path: DB\n    replicas:\n      - <<: *x\n        type: file\n"
             "        path: ROOT\n"),
            ("behind a key", "x: &x {name: merged}\ndbs:\n  - path: DB\n    replicas:\n      - {name: own, <<: *x, path: ROOT}\n"),
            ("a list of blocks", "x: &x {name: one}\ny: &y {name: two, path: ROOT}\ndbs:\n  - path: DB\n    replicas:\n"
             "      - <<: [*x, *y]\n"),
            ("in the place", "dbs:\n  - path: DB\n    replicas:\n      - <<: {name: inner, path: ROOT}\n"),
            ("one in the other", "x: &x {name: one}\ny: &y {<<: *x, path: ROOT}\ndbs:\n  - path: DB\n    replicas: [<<: *y]\n"),
            ("with replicas", "x: &x {replicas: [{path: ROOT, name: theirs}]}\ndbs:\n  - <<: *x\n    path: DB\n"),
            ("of the file", "x: &x {dbs: [{path: DB, replicas: [{path: ROOT}]}]}\n<<: *x\n"),
            ("a key twice", "dbs:\n  - path: DB\n    replicas:\n      - {name: one, path: ROOT, name: two}\n"),
            ("replicas twice", "dbs:\n  - path: DB\n    replicas: [{path: /none}]\n    replicas: [{path: ROOT, name: two}]\n"),
            ("dbs twice", "dbs: [{path: /x.db}]\ndbs: [{path: DB, replicas: [{path: ROOT}]}]\n"),
            ("null", "x: &x {name: theirs, path: ROOT}\ndbs:\n  - path: DB\n    replicas:\n      - {<<: *x, name: ~}\n"),
            ("two documents", "---\ndbs: [{path: DB, replicas: [{path: ROOT}]}]\n---\ndbs: []\n"),
            ("empty texts", "access-key-id: ''\ndbs:\n  - path: DB\n    meta-path: ''\n    replicas:\n"
             "      - {type: '', name: \"\", url: '${LJ_NOT_SET}', bucket: '', host: '', path: ROOT}\n"),
            ("an empty path", "dbs:\n  - path: DB\n    replicas:\n      - {path: '', bucket: \"\", url: 'file://ROOT'}\n")):
        config = write(t.path("l.yml"), text.replace("DB", database).replace("ROOT", root))
        for command in (["databases", "-config", config], ["snapshots", "-config", config, database]):
            status, want, said = cli.litestream().run(*command)
            check(status == 0 and (command[0] == "databases" or len(want.splitlines()) == 2), label + ": v0.3.13: " + want + said)
            status, got, said = ours(*command)
            check_equal((status, got), (0, want), "%s: %s: %s" % (label, command[0], said))
            check_equal(said.count("there twice"), 1 if "twice" in label else 0, label + ": " + said)
        check_equal('behind "---" is ignored' in said, label == "two documents", label + ": " + said)
    for label, text in (("a number", "dbs: [{path: DB, replicas: [{<<: 7, path: ROOT}]}]\n"),
                        ("a list of numbers", "dbs: [{path: DB, replicas: [{<<: [7], path: ROOT}]}]\n"),
                        ("a circle", "dbs: [{path: DB, replicas: [&a {<<: *a, path: ROOT}]}]\n"),
                        ("a wide circle", "x: &x {<<: &y [*x, *x, *x]}\ndbs: [{<<: *x}]\n")):
        config = write(t.path("l.yml"), text.replace("DB", database).replace("ROOT", root))
        if label != "a wide circle":
            check_equal(cli.litestream().run("databases", "-config", config)[0], 1, "v0.3.13: " + label)
        status, _, said = ours("databases", "-config", config)
        check(status == 1 and "line" in said and "<< must be" in said, "%s: %d %s" % (label, status, said))


def config_of(t, database, *replicas, name="litestream.yml"):
    return write(t.path(name), "dbs:\n  - path: %s\n    replicas:\n%s" % (database, "".join("      - %s\n" % r for r in replicas)))


@test("cli", timeout=60)
def lists_that_are_there_twice(t):
    """The second may be shorter."""
    root, database = made(t), t.path("a.db")
    config = config_of(t, database, "{path: %s, age: {identities: [a, b, c, d], identities: [e]}, age: {identities: []}}" % root)
    status, stdout, said = ours("databases", "-config", config)
    check(status == 0 and database in stdout and said.count("there twice") == 2, "%d %s%s" % (status, stdout, said))


@test("cli", timeout=60)
def a_replica_nobody_could_see(t):
    """Where one replica cannot be opened "there is no backup" is not known, and not said."""
    root, database, empty = made(t), t.path("a.db"), t.folder("empty")
    broken = "{name: broken, type: s3, bucket: b, region: 'no region'}"
    for second in (broken, "{name: broken, type: s3, bucket: b, sse-kms-key-id: k, max-connections: 1}",
                   "{name: broken, type: gcs, bucket: my-bucket, credentials-path: %s}" % t.path("none.json")):
        config = config_of(t, database, "path: " + empty, second)
        for flags in ([], ["-if-replica-exists"]):
            status, _, said = ours("restore", "-config", config, *flags, database)
            check(status == 1 and "broken" in said and "no matching backups" not in said, "%s %s: %d %s" % (second, flags, status, said))
            check(not os.path.exists(database), "a database appeared")
    for command in ("generations", "snapshots", "wal"):
        status, _, said = ours(command, "-config", config_of(t, database, "path: " + root, broken), database)
        check(status == 0 and "broken" in said, "%s: %d %s" % (command, status, said))
        status, _, said = ours(command, "-config", t.path("litestream.yml"), "-exit-codes", database)
        check_equal(status, 12, "%s -exit-codes: %s" % (command, said))
    status, _, said = ours("restore", "-config", t.path("litestream.yml"), database)
    check(status == 0 and "broken" in said and os.path.exists(database), "the other one: " + said)
    os.unlink(database)
    status, _, said = ours("restore", "-config", config_of(t, database, broken), database)
    check(status == 1 and said.count("AWS region") == 1, "the only one is said once: " + said)
    status, _, said = ours("restore", "-config", config_of(t, database, "path: " + empty), "-if-replica-exists", database)
    check(status == 0 and "no matching backups found" in said, "all were seen: " + said)
    status, _, said = ours("restore", "-config", t.path("litestream.yml"), database)
    check(status == 1 and "file://%s: no matching backups found" % empty in said, "where: " + said)


@test("cli", timeout=60)
def files_that_are_none(t):
    root, database = made(t), t.path("a.db")
    text = open(config_of(t, database, "path: " + root)).read()
    read, end = os.pipe()
    os.write(end, text.encode())
    os.close(end)
    done = subprocess.run([harness.cli_path(), "snapshots", "-config", "/dev/fd/%d" % read, database], pass_fds=[read],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    os.close(read)
    check(done.returncode == 0 and done.stdout.count(b"\n") == 2, "a pipe: %r" % done)
    for content in (bytes(4096), text.encode() + b"\0", text.encode("utf-16")):
        status, _, said = ours("databases", "-config", write(t.path("bad.yml"), content))
        check(status == 1 and "bad.yml: byte" in said and "NUL" in said and "hint:" in said, said)
    for config in (t.path("none.yml"), t.path("litestream.yml")):
        status, _, said = ours("snapshots", "-config", config, os.path.relpath(root))
        check(status == 1 and "is named file://" + root in said, "a folder: " + said)
    for path, words in ((t.dir, "directory"), (t.path("none.yml"), "config file not found")):
        status, _, said = ours("databases", "-config", path)
        check(status == 1 and path in said and words in said, said)


@test("cli", timeout=60)
def home_without_home(t):
    made(t)
    env = {name: value for name, value in os.environ.items() if name != "HOME"}
    config = write(t.path("l.yml"), "dbs: [{path: ~/x/a.db}, {path: '~'}]\n")
    home = pwd.getpwuid(os.geteuid()).pw_dir
    for more, want in (({}, home), ({"HOME": ""}, home), ({"HOME": t.dir}, t.dir)):
        done = subprocess.run([harness.cli_path(), "databases", "-config", config], env=dict(env, **more), stdout=subprocess.PIPE,
                              universal_newlines=True)
        check_equal(done.stdout.split()[2:], [os.path.join(want, "x/a.db"), want], str(more))


@test("cli", timeout=60)
def what_is_wrong_with_a_replica(t):
    """In v0.3.13's words where it has some."""
    root, database = made(t), t.path("a.db")
    for replica, words in (
            ("{type: s3, path: p}", ("replica", "bucket required for s3 replica")),
            ("{type: gcs}", ("bucket required for gcs replica",)),
            ("{type: sftp, user: u, path: p}", ("host required for sftp replica",)),
            ("{type: sftp, host: h, path: p}", ("user required for sftp replica",)),
            ("{type: s3, bucket: 's3://b', path: p}", ("the bucket has a character", "stands in \"url\"")),
            ("{type: gcs, bucket: b/sub, path: p}", ("the bucket has a character", "in \"path\"")),
            ("{type: sftp, host: u@h, user: u}", ("the host has a character",))):
        status, _, said = ours("snapshots", "-config", config_of(t, database, replica), database)
        check(status == 1 and all(word in said for word in words), "%s: %d %s" % (replica, status, said))
    # what another type of replica takes
    for replica, keys in (
            ("{bucket: b, region: r, endpoint: e, path: %s, force-path-style: false, skip-verify: true}" % root,
             ["bucket", "region", "endpoint", "force-path-style", "skip-verify"]),
            ("{url: 'file://%s', account-name: a, account-key: MARK, host: h, user: u, password: MARK, key-path: k}" % root,
             ["account-name", "account-key", "host", "user", "password", "key-path"]),
            ("{path: %s, access-key-id: MARK, secret-access-key: MARK}" % root, ["access-key-id", "secret-access-key"])):
        status, stdout, said = ours("snapshots", "-config", config_of(t, database, replica), database)
        check(status == 0 and stdout.count("\n") == 2 and "MARK" not in said, "%s: %d %s" % (replica, status, said))
        check_equal([line.split('"')[1] for line in said.splitlines()], keys, replica)
    text = "access-key-id: a\nsecret-access-key: b\ndbs: [{path: %s, replicas: [{path: %s}]}]\n" % (database, root)
    check_equal(ours("databases", "-config", write(t.path("l.yml"), text))[2], "", "keys for all")
    # a ':' without a space makes the value a part of the key
    for replica in ("{path: %s, secret-access-key:MARK}", "{path: %s, 'password:MARK': x}"):
        status, _, said = ours("databases", "-config", config_of(t, database, replica % root))
        check(status == 0 and "unknown key" in said and "MARK" not in said, said)


@test("cli")
def failures_before_the_flag_is_read(t):
    for arguments in (["frobnicate", "-exit-codes"], ["restore", "-bogus", "-exit-codes"],
                      ["wal", "-config", "-exit-codes", "-x", "--exit-codes"], ["databases", "-bogus", "-exit-codes"],
                      ["restore", "-timestamp", "noon", "-exit-codes", "-o", "x", "file:///x"]):
        check_equal(ours(*arguments)[0], 12, " ".join(arguments))
    status, _, said = ours("replicate", "a.db", "file:///x")
    check(status == 1 and "replicate: unknown command" in said and "litejoin_vfs" in said, said)


if __name__ == "__main__":
    harness.main("litestream.yml")
