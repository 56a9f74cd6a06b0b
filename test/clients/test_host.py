#!/usr/bin/python3
"""test_host.py - C programs that link liblitejoin.a: the scenarios of test_host.c, and the example of the README."""

import os
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from ljtest import chain, harness, shim  # noqa: E402,F401

TOP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")


def program(name):
    path = os.path.join(harness.build_dir(), "test", "clients", name)
    if not harness.build_dir() or not os.access(path, os.X_OK):
        raise harness.Skip("no test/clients/%s in LJ_BUILD=%s" % (name, harness.build_dir() or "(not set)"))
    return path


def run(argv, expect=0, **environment):
    env = {key: value for key, value in os.environ.items() if not key.startswith("LITEJOIN_")}
    env.update(environment)
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=400, env=env,
                          universal_newlines=True)
    harness.check(done.returncode == expect,
                  lambda: "status %d: %s" % (done.returncode, (done.stdout + done.stderr)[-900:].strip()))
    return done.stdout, done.stderr


def scenario(case, name, quiet=True, **environment):
    case.folder("data")
    out, err = run([program("test_host"), name, case.dir], **environment)
    if quiet:
        harness.check_equal((out, err), ("", ""), "output of a library that prints nothing")


def rows(case):
    """The rows of a database that its host has closed, through SQLite's own VFS."""
    con = shim.plain(case.path("data", "shard_0.db"))
    try:
        return con.execute("SELECT count(*) FROM t").fetchone()[0]
    finally:
        con.close()


@harness.test()
def written_rows_come_back_after_the_folder_is_deleted(case):
    scenario(case, "write_rows")
    for _ in range(3):
        shutil.rmtree(case.path("data"))
        scenario(case, "read_rows")
    harness.check_equal(rows(case), 500, "rows")


@harness.test()
def sync_and_status(case):
    scenario(case, "sync_and_status")
    shutil.rmtree(case.path("data"))
    case.folder("data")
    # restore only: the count of write_rows does not fit here
    out, _ = run([program("test_host"), "read_rows", case.dir], expect=1)
    harness.check("502 rows, want 500" in out, "what came back: %s" % out)


@harness.test()
def snapshots(case):
    scenario(case, "snapshots")


@harness.test()
def databases_that_are_not_ours(case):
    scenario(case, "not_ours")


@harness.test()
def a_bad_configuration_is_misuse_and_named(case):
    scenario(case, "bad_config")


@harness.test()
def the_log_callback_gets_the_lines(case):
    scenario(case, "log_callback")


@harness.test()
def the_default_vfs_on_request(case):
    scenario(case, "make_default")
    shutil.rmtree(case.path("data"))
    scenario(case, "read_rows")


@harness.test()
def not_the_default_vfs_otherwise(case):
    scenario(case, "not_the_default")


@harness.test()
def registering_again_replaces_the_defaults(case):
    scenario(case, "registers_again")


@harness.test()
def uri_over_environment_over_struct(case):
    scenario(case, "precedence", LITEJOIN_REPLICA_URL="file://" + case.path("replica"))
    harness.check_equal(os.listdir(case.path("replica")), ["shard_0"], "replicas")
    harness.check_equal(os.listdir(case.path("replica-uri")), ["other"], "replicas of the URI")


@harness.test()
def structs_of_an_older_header(case):
    scenario(case, "short_struct")


@harness.test()
def a_broken_replica_costs_nothing_but_the_status(case):
    scenario(case, "broken_replica")
    shutil.rmtree(case.path("data"))
    case.folder("data")
    out, _ = run([program("test_host"), "read_rows", case.dir], expect=1)
    harness.check("501 rows, want 500" in out, "what came back: %s" % out)


@harness.test(timeout=120)
def threads_with_a_connection_each(case):
    scenario(case, "threads")


@harness.test()
def registration_by_extra_init(case):
    scenario(case, "extra_init", LITEJOIN_REPLICA_URL="file://" + case.path("replica"))
    harness.check_equal(os.listdir(case.path("replica")), ["shard_0"], "replicas")


@harness.test()
def the_example_of_the_readme(case):
    for count in (1, 2, 3):
        case.folder("data")
        out, err = run([program("example_host"), case.path("data", "shard_0.db"), "file://" + case.path("replica")])
        harness.check(out.startswith("visits: %d\n" % count), "output in run %d: %r" % (count, out))
        harness.check("generation " in out and "0 frames behind" in out, "output in run %d: %r" % (count, out))
        ours = [line for line in err.splitlines() if "WAL-reset bug" not in line]  # depends on the host's SQLite
        harness.check_equal(ours, [], "warnings in run %d" % count)
        shutil.rmtree(case.path("data"))
    out, err = run([program("example_host"), case.path("shard_0.db"), "/no/scheme"], expect=1)
    harness.check("replica_url" in err and "/no/scheme" in err, "message: %r" % err)


@harness.test()
def the_example_configurations_are_good(case):
    """litejoin.yaml is accepted as it is, apart from the place; the engine's own keys may stand beside it."""
    with open(os.path.join(TOP, "tools", "examples", "litejoin.yaml")) as file:
        text = file.read()
    harness.check("file:///backup/state" in text, "the example names another place")
    with open(case.path("litejoin.yaml"), "w") as file:
        file.write("shards: 4\n" + text.replace("file:///backup/state", "file://" + case.path("replica")))
    scenario(case, "extra_init", LITEJOIN_CONFIG=case.path("litejoin.yaml"))
    harness.check_equal(os.listdir(case.path("replica")), ["shard_0"], "replicas")


if __name__ == "__main__":
    harness.main("host")
