#!/usr/bin/python3
"""
test_rivals.py - two databases of one process whose replica is the same: two folders, one file name, one replica_url.

The rule: a replica belongs to the database that is open. The other one works and is not replicated, or, where its file is missing, is not
opened: it would begin with what is there of the first.
"""

import os
import shutil
import threading

from shard import Shard, error_text, must_fail, python

from ljtest import chain, harness, pages, shim
from ljtest.harness import check, check_equal, test

NEEDS = ("shim", "load_extension")
BELONGS = "not replicating: the replica belongs to "


def log_lines(*words):
    with open(os.environ["LITEJOIN_LOG_FILE"]) as file:
        return [line for line in file.read().splitlines() if all(word in line for word in words)]


class Pair:
    """FOLDER/one/app.db and FOLDER/two/app.db, both replicated to FOLDER/replica/app."""

    def __init__(self, t, folder="", **options):
        base = t.path(folder, "replica")
        self.t = t
        self.one = Shard(t, name="app", base=base, data=t.folder(folder, "one"), **options)
        self.two = Shard(t, name="app", base=base, data=t.folder(folder, "two"), **options)

    def make_two(self, count=7):
        """The second one is there, made by somebody else."""
        con = shim.plain(self.two.path, pragmas=("journal_mode=WAL",))
        chain.create(con)
        for _ in range(count):
            n = chain.commit_one(con, self.t.random, "two")
        con.close()
        return n

    def refused_state(self):
        return BELONGS + self.one.path + ", which this process has open too"

    def check_only(self, writer, label):
        """Whatever generation of the replica is restored, it was written by one of the two alone."""
        replica = self.one.replica
        replica.check(leftovers_ok=True)
        for generation in replica.generations():
            out = self.t.path("check.db")
            replica.restore(out, generation=generation.name)
            pages.check_integrity(out, label)
            chain.verify_file(out, label)
            look = shim.plain(out)
            writers = [row[0] for row in look.execute("SELECT DISTINCT writer FROM chain ORDER BY 1")]
            look.close()
            check_equal(writers, [writer], "%s: writers of generation %s" % (label, generation.name))


@test(*NEEDS)
def the_second_one_has_content(t):
    """It works and is not replicated, and says so; it is when it is opened again after the first one was closed."""
    pair = Pair(t)
    one = pair.one.open()
    n = pair.one.write(one, 5)
    m = pair.make_two()
    two = pair.two.open(create=False)
    check_equal(chain.verify(two, "second one"), m, "last link of the second one")
    for _ in range(5):
        m = chain.commit_one(two, t.random, "two")
    two.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    m = chain.commit_one(two, t.random, "two")
    status = shim.status(two)
    check_equal(status["state"], pair.refused_state(), "state of the second one")
    for word in (pair.one.path, pair.one.base, "replica_name", "replica_url"):
        check(word in status["last_error"], "last_error does not have %s: %s" % (word, status["last_error"]))
    check(pair.one.path in must_fail(shim.sync, two, "5s"), "the error of sync")
    check(pair.one.path in must_fail(shim.snapshot, two, "5s"), "the error of snapshot")
    third = pair.two.open(create=False)
    check_equal(shim.status(third)["state"], pair.refused_state(), "state of a second connection")
    lines = log_lines(pair.one.path, pair.two.path, "belongs to")
    check(len(lines) == 1 and "error" in lines[0] and "replica_name" in lines[0], "log: %s" % lines)
    with t.part("a commit that waits"):
        two.execute("PRAGMA litejoin_durability=remote").fetchall()
        check(pair.one.path in must_fail(chain.commit_one, two, t.random, "two"), "the error of COMMIT")
        two.execute("PRAGMA litejoin_durability=local").fetchall()
        check_equal(chain.verify(two, "second one"), m, "last link behind it")
    n = pair.one.write(one, 5)
    shim.sync(one)
    check_equal(shim.status(one)["state"], "replicating", "state of the first one")
    check_equal(pair.one.restore_now("both open"), n, "last link in the replica")
    pair.check_only("w", "both open")
    check(not os.path.exists(os.path.join(pair.two.data, ".app.db-litejoin")), "it has a state folder")
    one.close()
    pair.check_only("w", "the first one closed")
    m = chain.commit_one(two, t.random, "two")
    check_equal(shim.status(two)["state"], pair.refused_state(), "state before it is opened again")
    again = pair.two.open(create=False)
    m = chain.commit_one(two, t.random, "two")
    shim.sync(again)
    check_equal([shim.status(con)["state"] for con in (two, third, again)], ["replicating"] * 3, "states")
    for con in (two, third, again):
        m = chain.commit_one(con, t.random, "two")
        con.close()
    check_equal(pair.two.check_restores("closed", one_generation=False), m, "last link of the second one")
    check_equal(len(log_lines("belongs to", "replica_name")), 1, "lines of the log")


@test(*NEEDS)
def the_second_one_has_no_file(t):
    """A restore would give it what the first one has written: it is not opened, and no file is made."""
    for what in ("missing", "empty"):
        with t.part(what):
            pair = Pair(t, what)
            one = pair.one.open()
            n = pair.one.write(one, 5)
            shim.sync(one)
            if what == "empty":
                open(pair.two.path, "w").close()
            text = must_fail(pair.two.open)
            for word in ("unable to open database file", pair.one.path, pair.two.path, pair.one.root, "replica_name",
                         "replica_url", "vfs=unix"):
                check(word in text, "the error does not have %s: %s" % (word, text))
            check_equal(os.listdir(pair.two.data), ["app.db"] if what == "empty" else [], "files of the second one")
            check_equal(len(log_lines(pair.one.path, pair.two.path, "vfs=unix")), 1, "lines of the log")
            con = shim.open_wal(pair.two.path, pair.two.base, replica_name="elsewhere")
            con.execute("CREATE TABLE own(x)")
            shim.sync(con)
            check_equal(shim.status(con)["state"], "replicating", "with a name of its own")
            con.close()
            shutil.rmtree(pair.two.data)
            os.mkdir(pair.two.data)
            one.close()
            two = pair.two.open(create=False)
            check_equal(chain.verify(two, "opened when the first one was closed"), n, "last link: restored, like at any open")
            two.close()


@test(*NEEDS)
def no_restore_on_boot(t):
    """What is not to be restored is opened, empty, and is not replicated."""
    pair = Pair(t, restore_on_boot="false")
    one = pair.one.open()
    n = pair.one.write(one, 5)
    two = pair.two.open()
    chain.commit_one(two, t.random, "two")
    check_equal(shim.status(two)["state"], pair.refused_state(), "state of the second one")
    two.close()
    one.close()
    check_equal(pair.one.check_restores("closed", snapshots=1), n, "last link")


@test(*NEEDS)
def vacuum_into_the_same_name(t):
    pair = Pair(t)
    os.environ["LITEJOIN_REPLICA_URL"] = "file://" + pair.one.base  # read when the extension is loaded
    shim.load()
    one = shim.connect(pair.one.path, pragmas=("journal_mode=WAL",))
    chain.create(one)
    n = pair.one.write(one, 5)
    text = must_fail(one.execute, "VACUUM INTO '%s'" % pair.two.path)
    check("unable to open database" in text and "vfs=unix" in text, "the error: " + text)
    one.execute("VACUUM INTO 'file:%s?vfs=unix'" % pair.two.path)
    check_equal(chain.verify_file(pair.two.path), n, "last link of the copy")
    n = pair.one.write(one, 5)
    one.close()
    check_equal(pair.one.check_restores("closed", snapshots=1), n, "last link")


@test(*NEEDS)
def one_database_by_several_names(t):
    """Links to the file, and further connections, are no rival; nor is what is not replicated."""
    pair = Pair(t)
    one = pair.one.open()
    pair.one.write(one, 5)
    os.symlink(pair.one.path, pair.two.path)
    two = pair.two.open(create=False)
    shim.sync(two)
    check_equal(shim.status(two)["state"], "replicating", "by a symbolic link")
    two.close()
    os.unlink(pair.two.path)
    one.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    os.link(pair.one.path, pair.two.path)
    two = shim.connect(pair.two.path, pair.two.base)
    check_equal(shim.status(two)["replica"], shim.status(one)["replica"], "by a hard link")
    check_equal(shim.status(two)["state"], "replicating", "by a hard link")
    two.close()
    os.unlink(pair.two.path)
    pair.make_two()
    for name, con in (("plain", shim.plain(pair.two.path)), ("no replica", shim.connect(pair.two.path)),
                      ("read-only", shim.connect(pair.two.path, pair.two.base, mode="ro"))):
        chain.verify(con, name)
        con.close()
    check_equal(log_lines("belongs to"), [], "lines of the log")
    n = pair.one.write(one, 5)
    one.close()
    check_equal(pair.one.check_restores("closed", one_generation=False), n, "last link")


@test(*NEEDS)
def what_is_not_replicated_has_no_replica(t):
    """The first one is read-only, or not to be replicated: the second one has the replica."""
    pair = Pair(t)
    con = pair.one.open()
    con.close()
    m = pair.make_two()
    firsts = [shim.connect(pair.one.path), shim.connect(pair.one.path, pair.one.base, mode="ro"),
              shim.connect(pair.one.path, pair.one.base, enabled="false")]
    check_equal([shim.status(con)["state"] for con in firsts], ["off"] * 3, "states")
    two = pair.two.open(create=False)
    m = chain.commit_one(two, t.random, "two")
    shim.sync(two)
    check_equal(shim.status(two)["state"], "replicating", "state of the second one")
    check_equal(log_lines("belongs to"), [], "lines of the log")
    two.close()
    for con in firsts:
        con.close()
    check_equal(pair.two.check_restores("closed", one_generation=False), m, "last link")


@test(*NEEDS)
def a_file_that_was_replaced(t):
    """It is no rival of itself; and whoever opens a second one then finds the replica taken by the file that has the name."""
    pair = Pair(t)
    one = pair.one.open()
    pair.one.write(one, 5)
    shim.sync(one)
    n = pair.make_two()
    for tail in ("-wal", "-shm"):
        os.unlink(pair.one.path + tail)
    os.rename(pair.two.path, pair.one.path)
    new = pair.one.open(create=False)
    n = chain.commit_one(new, t.random, "two")
    shim.sync(new)
    check_equal(shim.status(one)["state"], "not replicating: the file was moved, replaced or deleted", "the old file")
    check_equal(shim.status(new)["state"], "replicating", "the new file")
    pair.make_two()
    two = pair.two.open(create=False)
    check_equal(shim.status(two)["state"], pair.refused_state(), "a second one")
    for con in (two, one, new):
        con.close()
    check_equal(pair.one.check_restores("closed", one_generation=False), n, "last link")


@test(*NEEDS)
def a_file_that_is_gone(t):
    """Deleted while it is open: its replication has ended, and another one may have the replica."""
    pair = Pair(t)
    one = pair.one.open()
    n = pair.one.write(one, 5)
    shim.sync(one)
    for tail in ("", "-wal", "-shm"):
        os.unlink(pair.one.path + tail)
    two = pair.two.open(create=False)
    check_equal(chain.verify(two, "second one"), n, "last link: restored")
    m = chain.commit_one(two, t.random, "two")
    shim.sync(two)
    check_equal(shim.status(two)["state"], "replicating", "state of the second one")
    pair.one.write(one, 2)
    one.close()
    m = chain.commit_one(two, t.random, "two")
    two.close()
    check_equal(pair.two.check_restores("closed", one_generation=False), m, "last link")


@test(*NEEDS)
def a_child_has_claims_of_its_own(t):
    """What the parent has open is in another process than what the child opens, and its handles in the child are dead."""
    pair = Pair(t)
    m = pair.make_two()
    code = ("import os, random, sys\n"
            "from ljtest import chain, shim\n"
            "path, other, base = sys.argv[1:]\n"
            "con = shim.open_wal(path, base)\n"
            "child = os.fork()\n"
            "if child == 0:\n"
            "    two = shim.open_wal(other, base)\n"
            "    chain.commit_one(two, random.Random(1), 'two')\n"
            "    shim.sync(two)\n"
            "    three = shim.connect(path, base)\n"
            "    print(shim.status(two)['state'], '|', shim.status(three)['state'], flush=True)\n"
            "    two.close()\n"
            "    os._exit(0)\n"
            "os.waitpid(child, 0)\n"
            "print('|', shim.status(con)['state'])\n"
            "con.close()\n")
    status, out, errors = python(code, arguments=(pair.one.path, pair.two.path, pair.one.base))
    check_equal(status, 0, "exit status (%s)" % errors)
    states = [text.strip() for text in out.split("|")]
    check_equal(states[0], "replicating", "the child's")
    check(states[1].startswith("not replicating: the replica belongs to " + pair.two.path), "the child's other one: " + out)
    check(len(states) == 3 and not states[2].startswith(BELONGS), "the parent's: " + out)
    check_equal(m + 1, chain.verify_file(pair.two.path), "last link of the second one")


@test(*NEEDS, timeout=120)
def two_threads_at_once(t):
    """Both are opened in the same moment: exactly one gets the replica."""
    shim.load()

    def meet(shards, **options):
        """[(connection, None) or (None, error text)], in the order of the shards."""
        together = threading.Barrier(len(shards))
        found = [None] * len(shards)

        def go(i):
            together.wait()
            try:
                found[i] = (shim.connect(shards[i].path, shards[i].base, **options), None)
            except Exception as error:  # noqa: BLE001
                found[i] = (None, error_text(error))

        threads = [threading.Thread(target=go, args=(i,)) for i in range(len(shards))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return found

    for turn in range(25):
        pair = Pair(t, "content%d" % turn)
        pair.make_two()
        con = shim.plain(pair.two.path)
        con.execute("VACUUM INTO '%s'" % pair.one.path)
        con.close()
        con = shim.plain(pair.one.path, pragmas=("journal_mode=WAL",))
        con.close()
        found = meet([pair.one, pair.two, pair.one, pair.two])
        check(all(con for con, _ in found), "errors: %r" % found)
        for con, _ in found:
            con.execute("SELECT * FROM chain").fetchall()
        refused = [shim.status(con)["state"].startswith(BELONGS) for con, _ in found]
        check(refused in ([True, False] * 2, [False, True] * 2), "refused: %r" % refused)
        for con, _ in found:
            con.close()
    for turn in range(25):
        pair = Pair(t, "missing%d" % turn)
        found = meet([pair.one, pair.two])
        opened = [con for con, _ in found if con]
        for con, text in found:
            check(con or "is missing or empty" in text, "error: %s" % text)
        check_equal(len(opened), 1, "opened of two")
        opened[0].close()


if __name__ == "__main__":
    harness.main("rivals")
