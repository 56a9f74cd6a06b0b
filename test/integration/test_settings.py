#!/usr/bin/python3
"""test_settings.py - every setting of SQLite that changes what is written to the WAL, and every kind of table, as a matrix.

Not random: workload.py is. Here each value is known to be used, and the replica is compared page by page.
"""

import itertools
import os
import shutil
import sqlite3

from shard import Shard, python

from ljtest import chain, harness, pages, shim
from ljtest.harness import LONG, check, check_equal, test
from ljtest.replica import Replica

NEEDS = ("shim", "load_extension")

SCHEMA = """
CREATE TABLE parent(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE child(id INTEGER PRIMARY KEY, parent INTEGER REFERENCES parent(id) ON DELETE CASCADE ON UPDATE CASCADE,
                   a INTEGER, b INTEGER, total INTEGER GENERATED ALWAYS AS (a + b) STORED,
                   twice INTEGER GENERATED ALWAYS AS (a * 2) VIRTUAL);
CREATE INDEX child_total ON child(total, twice);
CREATE TABLE pairs(k TEXT, v BLOB, n INTEGER, PRIMARY KEY(k, n)) WITHOUT ROWID;
CREATE TABLE audit(at INTEGER PRIMARY KEY, what TEXT);
CREATE TRIGGER child_ai AFTER INSERT ON child BEGIN INSERT INTO audit(what) VALUES('i' || new.id); END;
CREATE TRIGGER child_ad AFTER DELETE ON child BEGIN
    INSERT INTO audit(what) VALUES('d' || old.id); DELETE FROM audit WHERE at % 7 = 0; END;
CREATE TABLE doc(id INTEGER PRIMARY KEY, body TEXT);
CREATE VIRTUAL TABLE doc_fts USING fts5(body, content='doc', content_rowid='id');
CREATE TRIGGER doc_ai AFTER INSERT ON doc BEGIN
    INSERT INTO doc_fts(rowid, body) VALUES(new.id, new.body); END;
CREATE TRIGGER doc_ad AFTER DELETE ON doc BEGIN
    INSERT INTO doc_fts(doc_fts, rowid, body) VALUES('delete', old.id, old.body); END;
CREATE VIEW both AS SELECT parent.name, child.total FROM parent JOIN child ON child.parent = parent.id;
"""


def fill(con, rng, turn):
    """One transaction that touches every kind of table, with nested savepoints of which some are rolled back."""
    con.execute(("BEGIN", "BEGIN IMMEDIATE", "BEGIN EXCLUSIVE")[turn % 3])
    for i in range(6):
        con.execute("INSERT INTO parent(name) VALUES(?)", ("p%d_%d" % (turn, i),))
        owner = con.execute("SELECT max(id) FROM parent").fetchone()[0]
        con.executemany("INSERT INTO child(parent, a, b) VALUES(?,?,?)",
                        [(owner, rng.randrange(100), rng.randrange(100)) for _ in range(5)])
    con.executemany("INSERT OR REPLACE INTO pairs VALUES(?,?,?)",
                    [("k%d" % rng.randrange(40), rng.randbytes(rng.randrange(1, 900)), n) for n in range(12)])
    for depth in range(4):
        con.execute("SAVEPOINT s%d" % depth)
        con.execute("INSERT INTO doc(body) VALUES(?)", (" ".join("w%d" % rng.randrange(60) for _ in range(30)),))
    con.execute("ROLLBACK TO s2")
    con.execute("RELEASE s1")
    con.execute("DELETE FROM doc WHERE id % 5 = ?", (turn % 5,))
    con.execute("DELETE FROM parent WHERE id % 4 = ?", (turn % 4,))
    con.execute("UPDATE parent SET id = id + 1000 WHERE id % 7 = ? AND id < 1000", (turn % 7,))
    n = chain.extend(con, rng)
    con.execute("COMMIT")
    return n


def start(shard, pragmas=(), **options):
    con = shard.open(pragmas=("foreign_keys=ON", *pragmas), **options)
    if not con.execute("SELECT 1 FROM sqlite_schema WHERE name='parent'").fetchone():
        con.executescript(SCHEMA)
    return con


def end(t, shard, con, n, label, snapshots=1):
    con.close()
    check_equal(shard.check_restores(label, snapshots=snapshots), n, label + ": last link")
    look = shim.plain(t.path("now.db"))
    check_equal(look.execute("PRAGMA foreign_key_check").fetchall(), [], label + ": foreign keys")
    look.execute("INSERT INTO doc_fts(doc_fts) VALUES('integrity-check')")
    check_equal(look.execute("SELECT count(*) FROM child WHERE total <> a + b OR twice <> a * 2").fetchone()[0], 0,
                label + ": generated columns")
    look.close()


@test(*NEEDS, timeout=240)
def wal_settings(t):
    """wal_autocheckpoint x journal_size_limit, and a cache so small that frames are written before COMMIT."""
    values = list(itertools.product((0, 1, 1000), (-1, 0, 1048576), (5, -2000)))
    if not LONG:
        values = t.random.sample(values, 6)
    for autocheckpoint, limit, cache in values:
        with t.part("wal_autocheckpoint=%d, journal_size_limit=%d, cache_size=%d" % (autocheckpoint, limit, cache)):
            shard = Shard(t, "%d_%d_%d" % (autocheckpoint, limit, cache))
            con = start(shard, ("wal_autocheckpoint=%d" % autocheckpoint, "journal_size_limit=%d" % limit,
                                "cache_size=%d" % cache))
            for turn in range(12):
                n = fill(con, t.random, turn)
                if turn == 6:
                    con.execute("CREATE TABLE large(x)")
                    con.execute("INSERT INTO large VALUES(zeroblob(2000000))")
                    con.execute("DROP TABLE large")
                    con.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()
            size = os.path.getsize(shard.path + "-wal")
            if limit >= 0 and autocheckpoint == 1:
                check(size <= max(limit, 1000000), "the WAL has %d bytes in spite of the limit" % size)
            end(t, shard, con, n, "closed")


@test(*NEEDS)
def loaded_again_and_again(t):
    """As by programs that load it for each connection: nothing is left of that. A log file that was moved away is made anew."""
    code = ("import os, sqlite3, sys\n"
            "extension, path = sys.argv[1:]\n"
            "def load():\n"
            "    con = sqlite3.connect(':memory:')\n"
            "    con.enable_load_extension(True)\n"
            "    con.load_extension(extension)\n"
            "    con.close()\n"
            "def opened(): return len(os.listdir('/proc/self/fd'))\n"
            "load()\n"
            "before = opened()\n"
            "for _ in range(20): load()\n"
            "print(opened() - before)\n"
            "os.rename(path, path + '.1')\n"
            "load()\n"
            "print(os.path.exists(path))\n")
    path = t.path("loaded.log")
    status, out, errors = python(code, {"LITEJOIN_LOG_FILE": path}, arguments=(harness.extension_path(), path))
    check_equal(status, 0, "process: " + errors)
    check_equal(out.split(), ["0", "True"], "descriptors that stay, and whether there is a new log file")


@test(*NEEDS)
def registered_again_it_stays_the_default(t):
    """A later registration replaces the defaults of options; databases that name no VFS go on being replicated."""
    code = ("import ctypes, os, sqlite3, sys\n"
            "from ljtest import harness, shim\n"
            "shim.load()\n"
            "def state(name):\n"
            "    return sqlite3.connect(os.path.join(sys.argv[1], name)).execute('PRAGMA litejoin_status').fetchone()\n"
            "print(state('one.db') is not None)\n"
            "del os.environ['LITEJOIN_DEFAULT_VFS']\n"
            "assert ctypes.CDLL(harness.extension_path()).litejoin_vfs_register(None) == 0\n"
            "print(state('two.db') is not None)\n")
    status, out, errors = python(code, {"LITEJOIN_DEFAULT_VFS": "on"}, arguments=(t.folder("data"),))
    check_equal(status, 0, "process: " + errors)
    check_equal(out.split(), ["True", "True"], "opened through the VFS")


@test(*NEEDS)
def an_sqlite_that_was_set_to_one_thread(t):
    """Threads of ours could not share its VFS with the application: the extension says so instead of loading."""
    code = ("import ctypes, sys\n"
            "lib = ctypes.CDLL('libsqlite3.so.0')\n"
            "con, text = ctypes.c_void_p(), ctypes.c_char_p()\n"
            "if int(sys.argv[2]): assert lib.sqlite3_config(1) == 0\n"
            "assert lib.sqlite3_open(b':memory:', ctypes.byref(con)) == 0\n"
            "assert lib.sqlite3_enable_load_extension(con, 1) == 0\n"
            "print(lib.sqlite3_load_extension(con, sys.argv[1].encode(), None, ctypes.byref(text)), text.value)\n")
    for single, expected in ((0, "0 None"), (1, "SQLITE_CONFIG_SINGLETHREAD")):
        status, out, errors = python(code, arguments=(harness.extension_path(), single))
        check_equal(status, 0, "process: " + errors)
        check(expected in out, out)


@test(*NEEDS, timeout=60)
def asking_whether_the_wal_persists(t):
    """SQLite's last close asks the same before the WAL goes, and then all is shipped first: not when the application asks."""
    code = ("import ctypes, sys\n"
            "from ljtest import shim\n"
            "shim.load()\n"
            "lib = ctypes.CDLL('libsqlite3.so.0')\n"
            "con, persists = ctypes.c_void_p(), ctypes.c_int(-1)\n"
            "def run(*statements):\n"
            "    for sql in statements:\n"
            "        assert lib.sqlite3_exec(con, sql.encode(), None, None, None) == 0, sql\n"
            "uri = shim.uri(sys.argv[1], sys.argv[2], sync_interval='1h')\n"
            "assert lib.sqlite3_open_v2(uri.encode(), ctypes.byref(con), 0x46, None) == 0\n"
            "run('PRAGMA journal_mode=WAL', 'CREATE TABLE t(a)', 'PRAGMA litejoin_sync', 'INSERT INTO t VALUES(1)',\n"
            "    'PRAGMA litejoin_sync', 'INSERT INTO t VALUES(2)')\n"
            "other = shim.connect(sys.argv[1], sys.argv[2])\n"
            "before = shim.status(other)\n"
            "assert lib.sqlite3_file_control(con, b'main', 10, ctypes.byref(persists)) == 0\n"
            "print(persists.value, before['lag_frames'] > 0, shim.status(other)['replica_position'] == before['replica_position'])\n")
    shard = Shard(t)
    status, out, errors = python(code, arguments=(shard.path, shard.base))
    check_equal(status, 0, "process: " + errors)
    check_equal(out.split(), ["0", "True", "True"], "the answer, frames that wait for the next tick, and still do")


@test(*NEEDS)
def a_rollback_under_exclusive_locking(t):
    """Frames whose checksums were to be computed at the commit; when the lock is back, what others commit is seen all the same."""
    for durability in ("local", "remote"):
        with t.part(durability):
            shard = Shard(t, durability)
            con = shard.open(pragmas=("cache_size=5",))
            con.execute("CREATE TABLE bulk(a)")
            con.execute("PRAGMA locking_mode=EXCLUSIVE").fetchall()
            con.execute("BEGIN")
            for _ in range(3):
                con.executemany("INSERT INTO bulk VALUES(randomblob(900))", [()] * 40)
                con.execute("UPDATE bulk SET a = randomblob(900)")
            con.execute("ROLLBACK")
            con.execute("PRAGMA locking_mode=NORMAL").fetchall()
            con.execute("SELECT count(*) FROM bulk").fetchall()
            other = shard.open(create=False, durability=durability)
            n = shard.write(other, 3)
            shim.sync(other)
            check_equal(shard.restore_now("behind the rollback"), n, "last link in the replica")
            crash = t.path(durability, "crash.db")
            for tail in ("", "-wal"):
                shutil.copyfile(shard.path + tail, crash + tail)
            check_equal(chain.verify_file(crash, "after a crash"), n, "last link after a crash")
            other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            n = shard.write(other, 3)
            other.close()
            con.close()
            check_equal(shard.check_restores("closed", snapshots=1), n, "last link")


@test(*NEEDS, timeout=240)
def page_sizes_and_vacuum(t):
    for page_size, auto_vacuum in ((512, "FULL"), (1024, "INCREMENTAL"), (2048, "NONE"), (4096, "FULL"), (8192, "INCREMENTAL"),
                                   (16384, "NONE"), (32768, "FULL"), (65536, "INCREMENTAL")):
        with t.part("page_size=%d, auto_vacuum=%s" % (page_size, auto_vacuum)):
            shard = Shard(t, str(page_size))
            con = start(shard, page_size=page_size, auto_vacuum=auto_vacuum)
            for turn in range(6):
                n = fill(con, t.random, turn)
                con.execute("PRAGMA incremental_vacuum(3)").fetchall()
                if turn == 3:
                    con.execute("VACUUM")
            check_equal(con.execute("PRAGMA page_size").fetchone()[0], page_size, "page_size")
            end(t, shard, con, n, "closed")


@test(*NEEDS, timeout=120)
def settings_changed_while_it_runs(t):
    """synchronous, cache_size, mmap_size, checkpoint_fullfsync, locking_mode, secure_delete in the middle of a life."""
    shard = Shard(t)
    con = start(shard)
    side = shard.open()
    turn = 0
    for pragmas in (("synchronous=OFF",), ("synchronous=EXTRA", "fullfsync=ON"), ("synchronous=FULL", "cache_size=1"),
                    ("mmap_size=67108864",), ("checkpoint_fullfsync=ON", "synchronous=NORMAL"), ("mmap_size=0",),
                    ("secure_delete=ON",), ("cache_spill=OFF", "cache_size=10"), ("read_uncommitted=ON",),
                    ("reverse_unordered_selects=ON", "synchronous=OFF"), ("cell_size_check=ON", "synchronous=FULL")):
        for pragma in pragmas:
            con.execute("PRAGMA " + pragma).fetchall()
        for _ in range(2):
            turn += 1
            n = fill(con, t.random, turn)
        check_equal(chain.verify(side, "second connection"), n, "last link")
        side.execute("PRAGMA wal_checkpoint(%s)" % ("PASSIVE", "FULL", "RESTART", "TRUNCATE")[turn // 2 % 4]).fetchall()
    side.close()
    for mode in ("EXCLUSIVE", "NORMAL", "EXCLUSIVE", "NORMAL"):
        con.execute("PRAGMA locking_mode=" + mode).fetchall()
        turn += 1
        n = fill(con, t.random, turn)
    end(t, shard, con, n, "closed")


@test(*NEEDS, timeout=120)
def mmap_and_checkpoints(t):
    """With mmap_size set SQLite reads the database through the VFS's xFetch while checkpoints and snapshots go on."""
    shard = Shard(t, snapshot_interval="200ms")
    con = start(shard, ("mmap_size=268435456", "wal_autocheckpoint=20"))
    for turn in range(30):
        n = fill(con, t.random, turn)
        if turn % 5 == 0:
            con.execute("VACUUM")
        check_equal(chain.last(con), n, "last link through mmap")
    con.close()
    check_equal(shard.check_restores("closed"), n, "last link")


@test(*NEEDS)
def backups_from_and_into_a_live_database(t):
    """sqlite3_backup reads a replicated database while it is written, and overwrites one; in steps, with commits between."""
    shard = Shard(t)
    con = start(shard)
    for turn in range(4):
        n = fill(con, t.random, turn)
    shim.sync(con)
    out = sqlite3.connect(t.path("backup.db"))
    seen = []
    writer = shard.open()

    def progress(*_):
        if len(seen) < 3:
            seen.append(chain.commit_one(writer, t.random))

    con.backup(out, pages=2, progress=progress, sleep=0)
    out.close()
    check(len(seen) == 3 and chain.verify_file(t.path("backup.db")) >= n, "the backup: %s" % seen)
    source = shim.plain(t.path("source.db"))
    chain.create(source)
    for _ in range(9):
        chain.commit_one(source, t.random, "source")
    writer.close()
    for step in (1, 3, -1):
        source.backup(con, pages=step, sleep=0)
        check_equal(chain.verify(con, "backup in steps of %d" % step), chain.last(source), "last link behind the backup")
        chain.commit_one(source, t.random, "source")
        n = chain.commit_one(con, t.random)
    source.close()
    shim.sync(con)
    check_equal(shard.restore_now("live"), n, "last link")
    con.close()
    check_equal(shard.check_restores("closed", one_generation=False), n, "last link")


@test(*NEEDS)
def read_only_ways_in(t):
    """mode=ro, immutable and nolock beside a live database: they read, have no replica of their own, disturb nothing."""
    shard = Shard(t)
    con = start(shard)
    n = fill(con, t.random, 0)
    con.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    shim.sync(con)
    for query, reads in (("mode=ro", True), ("immutable=1", True), ("nolock=1&mode=ro", False)):
        with t.part(query):
            other = sqlite3.connect(shim.uri(shard.path, shard.base) + "&" + query, uri=True)
            if reads:
                check_equal(chain.verify(other, query), n, "last link")
            check_equal(shim.status(other)["state"], "off", "state")
            other.close()
    n = fill(con, t.random, 1)
    check_equal(os.listdir(shard.base), ["shard_0"], "replicas")
    end(t, shard, con, n, "closed")


@test(*NEEDS)
def vacuum_into_with_a_replica_for_the_whole_process(t):
    """
    With replica_url in the environment the target of VACUUM INTO is opened like any database: it is in rollback mode, so it
    has no replica; the temporary database of VACUUM has none either. ?vfs=unix keeps it out altogether.
    """
    code = ("import sys, random, json\n"
            "from ljtest import chain, shim\n"
            "con = shim.open_wal(sys.argv[1] + '/shard_0.db', None)\n"
            "chain.create(con)\n"
            "for _ in range(20): n = chain.commit_one(con, random.Random(3))\n"
            "con.execute('PRAGMA temp_store=FILE').fetchall()\n"
            "con.execute('VACUUM')\n"
            "con.execute('VACUUM INTO ?', (sys.argv[1] + '/one.db',))\n"
            "con.execute('VACUUM INTO ?', ('file:' + sys.argv[1] + '/two.db?vfs=unix',))\n"
            "con.execute('CREATE TEMP TABLE scratch AS SELECT * FROM chain')\n"
            "con.execute(\"ATTACH '' AS nameless\")\n"
            "con.execute('CREATE TABLE nameless.x AS SELECT * FROM chain')\n"
            "con.close()\n")
    data, base = t.folder("data"), t.path("replica")
    status, _, errors = python(code, env={"LITEJOIN_REPLICA_URL": "file://" + base}, arguments=(data,))
    check_equal((status, errors), (0, ""), "process")
    check_equal(os.listdir(base), ["shard_0"], "replicas")
    for name in ("one.db", "two.db"):
        check_equal(chain.verify_file(os.path.join(data, name)), 20, "last link of " + name)
    Replica(os.path.join(base, "shard_0")).restore(t.path("out.db"))
    pages.check_same(t.path("out.db"), os.path.join(data, "shard_0.db"), "replica against the database")
    check_equal(sorted(f for f in os.listdir(data) if not f.startswith(".")), ["one.db", "shard_0.db", "two.db"], "files")


@test(*NEEDS, timeout=120)
def journal_modes_by_state_and_log(t):
    """Outside of WAL mode: the state names the mode, one line with a hint, nothing shipped; OFF and MEMORY too."""
    for mode in ("DELETE", "TRUNCATE", "PERSIST", "MEMORY", "OFF"):
        with t.part(mode):
            shard = Shard(t, mode)
            con = shard.open()
            shard.write(con, 3)
            shim.sync(con)
            before = shard.replica.files()
            con.execute("PRAGMA journal_mode=DELETE").fetchall()
            con.execute("PRAGMA journal_mode=" + mode).fetchall()
            for _ in range(5):
                n = shard.write(con, 1)
            check_equal(shim.status(con)["state"], "not replicating: journal_mode=delete", "state")
            check_equal(shard.replica.files(), before, "files of the replica")
            with open(os.environ["LITEJOIN_LOG_FILE"]) as file:
                lines = [line for line in file if shard.path in line and "not replicating" in line]
            check(len(lines) == 1 and "PRAGMA journal_mode=WAL" in lines[0], "lines: %s" % lines)
            con.execute("PRAGMA journal_mode=WAL").fetchall()
            n = shard.write(con, 2)
            shim.sync(con)
            check_equal(shard.restore_now("back in WAL"), n, "last link")
            con.close()
            check_equal(shard.check_restores("closed", one_generation=False), n, "last link")
            check_equal(shard.replica.counts()[0], 2, "generations")


@test(*NEEDS)
def an_attached_pair_with_temp_and_a_lost_one(t):
    """A transaction over two replicated databases and a temporary one; one of the two is lost and comes back by ATTACH."""
    one, two = Shard(t, name="shard_0"), Shard(t, name="shard_1")
    con = one.open()
    two.open().close()
    con.execute("ATTACH ? AS two", (shim.uri(two.path, two.base),))
    con.execute("CREATE TABLE main.x(a)")
    con.execute("CREATE TABLE two.x(a)")
    con.execute("CREATE TEMP TABLE side(a)")
    for i in range(20):
        con.execute("BEGIN")
        for name in ("main.x", "two.x", "temp.side"):
            con.execute("INSERT INTO %s VALUES(?)" % name, (i,))
        con.execute("COMMIT" if i % 4 else "ROLLBACK")
    con.execute("DETACH two")
    for tail in ("", "-wal", "-shm"):
        if os.path.exists(two.path + tail):
            os.unlink(two.path + tail)
    con.execute("ATTACH ? AS two", (shim.uri(two.path, two.base),))
    check_equal(con.execute("SELECT a FROM two.x").fetchall(), con.execute("SELECT a FROM main.x").fetchall(), "rows")
    con.execute("INSERT INTO two.x VALUES(99)")
    con.close()
    one.check_restores("one", snapshots=1)
    two.check_restores("two", snapshots=1)
    check_equal(sorted(os.listdir(one.base)), ["shard_0", "shard_1"], "replicas")
    shutil.rmtree(one.data)


if __name__ == "__main__":
    harness.main("settings")
