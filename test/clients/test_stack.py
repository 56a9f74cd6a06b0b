#!/usr/bin/python3
"""test_stack.py - VFS above and below ours, and SQLite shut down and initialized again: the scenarios of test_stack.c."""

import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from ljtest import cli, harness, pages, shim  # noqa: E402
from ljtest.replica import Replica  # noqa: E402

ROWS = [(i, "row %d" % i) for i in range(200)]


def scenario(case, name):
    """Runs it; then the replica must have one sound generation that is, byte by byte, the closed database."""
    path = os.path.join(harness.build_dir(), "test", "clients", "test_stack")
    if not harness.build_dir() or not os.access(path, os.X_OK):
        raise harness.Skip("no test/clients/test_stack in LJ_BUILD=%s" % (harness.build_dir() or "(not set)"))
    database = os.path.join(case.folder("data"), "shard_0.db")
    done = subprocess.run([path, name, case.dir], stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=400,
                          universal_newlines=True)
    harness.check_equal((done.returncode, done.stdout, done.stderr), (0, "", ""), "status and output")
    replica = Replica(case.path("replica", "shard_0"))
    replica.check(one_generation=True)
    replica.restore(case.path("out.db"))
    pages.check_same(case.path("out.db"), database, "replica against the database")
    pages.check_integrity(case.path("out.db"), "replica")
    con = shim.plain(case.path("out.db"))
    harness.check_equal(con.execute("SELECT id, x FROM t ORDER BY id").fetchall(), ROWS, "rows")
    con.close()
    for tool in cli.restorers():
        tool.restore(replica.root, case.path("out." + tool.name))
        pages.check_same(case.path("out." + tool.name), database, tool.name)
    return replica


@harness.test()
def over_unix(case):
    scenario(case, "over_unix")


@harness.test()
def over_unix_excl(case):
    scenario(case, "over_unix_excl")


@harness.test()
def over_unix_dotfile(case):
    scenario(case, "over_unix_dotfile")


@harness.test()
def over_unix_none(case):
    scenario(case, "over_unix_none")


@harness.test()
def over_a_shim_that_is_the_default(case):
    scenario(case, "over_a_shim")


@harness.test()
def under_a_shim_that_becomes_the_default(case):
    scenario(case, "under_a_shim")


@harness.test()
def shut_down_and_initialized_again(case):
    scenario(case, "shut_down_and_back")


@harness.test()
def registered_again_and_again(case):
    scenario(case, "registers_twice")


@harness.test()
def keeps_its_place_in_the_list(case):
    scenario(case, "keeps_its_place")


@harness.test()
def locks_waited_for_in_vain(case):
    """SQLITE_BUSY_TIMEOUT, as of an SQLite built with SQLITE_ENABLE_SETLK_TIMEOUT."""
    scenario(case, "locks_waited_for_in_vain")


if __name__ == "__main__":
    harness.main("stack")
