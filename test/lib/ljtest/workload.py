"""workload.py - seeded writes of every kind SQLite turns into WAL frames in a way of its own.

One Workload drives one database through one connection that writes and one that reads and checkpoints. Every
transaction also extends the hash chain (chain.py), so that any restored state can be told from a state that never was.
"""

import random
import sqlite3
import threading
import time

from . import chain

MODES = ("PASSIVE", "FULL", "RESTART", "TRUNCATE")


def has_fts5():
    con = sqlite3.connect(":memory:")
    try:
        con.execute("CREATE VIRTUAL TABLE probe USING fts5(x)")
        return True
    except sqlite3.OperationalError:
        return False
    finally:
        con.close()


class Workload:
    """
    `connect` opens one more connection to the database. With `spill` the cache is 5 pages, so that frames reach the WAL in
    the middle of transactions. `spill_savepoints` adds ROLLBACK TO and failed statements after such a spill, which SQLite
    before 3.50.2 answers with a broken checksum chain: with it a new generation is the right reaction. `checkpoint_busy_ms` bounds how
    long an explicit checkpoint waits for others (Litestream's long reader keeps RESTART and TRUNCATE from ending).
    """

    def __init__(self, connect, seed, *, page_size=4096, spill=False, spill_savepoints=False, vacuum=True,
                 checkpoints=True, fts=True, checkpoint_busy_ms=10000):
        self.rng = random.Random("workload/%d/%d" % (seed, page_size))
        self.connect = connect
        self.page_size = page_size
        self.con = connect()
        self.side = connect()
        self.reading = False
        self.fts = fts and has_fts5()
        self.spill_savepoints = spill_savepoints
        # A failed statement is rolled back like a savepoint, so after a spill it breaks the chain in the same way.
        self.may_go_on_after_failure = spill_savepoints or not spill
        self.done = {}
        self.checkpoint_busy_ms = checkpoint_busy_ms
        if spill or spill_savepoints:
            self.con.execute("PRAGMA cache_size=5").fetchall()
        self.operations = [
            (self.insert_rows, 10), (self.update_rows, 8), (self.delete_rows, 4), (self.large_blob, 3),
            (self.constraint_failure, 4), (self.rollback_all, 3), (self.schema_change, 2), (self.reader, 3),
            (self.same_page_twice, 4), (self.many_small, 4),
        ]
        if spill_savepoints or not spill:
            self.operations.append((self.savepoints, 4))
        if checkpoints:
            self.operations += [(self.checkpoint, 8), (self.autocheckpoint, 1), (self.journal_limit, 1)]
        if vacuum:
            self.operations += [(self.vacuum, 1), (self.incremental_vacuum, 1)]
        if self.fts:
            self.operations.append((self.documents, 4))
        self._create()

    def _create(self):
        if chain.exists(self.con):
            return
        chain.create(self.con)
        self.con.execute("BEGIN")
        self.con.execute("CREATE TABLE item(id INTEGER PRIMARY KEY, k TEXT UNIQUE, a INTEGER CHECK(a >= 0), b BLOB)")
        self.con.execute("CREATE INDEX item_a ON item(a)")
        self.con.execute("CREATE TABLE side_table(x)")
        if self.fts:
            self.con.execute("CREATE TABLE doc(id INTEGER PRIMARY KEY, body TEXT)")
            self.con.execute("CREATE VIRTUAL TABLE doc_fts USING fts5(body, content='doc', content_rowid='id')")
            self.con.execute("CREATE TRIGGER doc_ai AFTER INSERT ON doc BEGIN "
                             "INSERT INTO doc_fts(rowid, body) VALUES(new.id, new.body); END")
            self.con.execute("CREATE TRIGGER doc_ad AFTER DELETE ON doc BEGIN "
                             "INSERT INTO doc_fts(doc_fts, rowid, body) VALUES('delete', old.id, old.body); END")
        self.con.execute("COMMIT")

    def run(self, steps):
        functions = [f for f, _ in self.operations]
        weights = [w for _, w in self.operations]
        for _ in range(steps):
            operation = self.rng.choices(functions, weights)[0]
            operation()
            self.done[operation.__name__] = self.done.get(operation.__name__, 0) + 1
        return chain.last(self.con)

    def close(self):
        self.end_reader()
        self.side.close()
        self.con.close()

    # -----------------------------------------------------------------------------------------------------------------

    def _commit(self):
        chain.extend(self.con, self.rng)
        self.con.execute("COMMIT")

    def _blob(self, most):
        return self.rng.randbytes(self.rng.randint(0, most))

    def _row(self):
        return ("k%016x" % self.rng.getrandbits(60), self.rng.randint(0, 1000), self._blob(min(self.page_size, 4096)))

    def _insert(self, count):
        self.con.executemany("INSERT INTO item(k, a, b) VALUES(?,?,?)", [self._row() for _ in range(count)])

    def insert_rows(self):
        self.con.execute("BEGIN")
        self._insert(self.rng.randint(1, 25))
        self._commit()

    def update_rows(self):
        self.con.execute("BEGIN")
        self.con.execute("UPDATE item SET a = a + 1, b = randomblob(?) WHERE id % ? = 0",
                         (self.rng.randint(0, 900), self.rng.randint(2, 9)))
        self._commit()

    def delete_rows(self):
        self.con.execute("BEGIN")
        self.con.execute("DELETE FROM item WHERE id % ? = 1", (self.rng.randint(2, 9),))
        self._commit()

    def large_blob(self):
        size = self.rng.randint(4, 40) * min(self.page_size, 16384)
        self.con.execute("BEGIN")
        self.con.execute("INSERT INTO item(k, a, b) VALUES(?, 1, ?)", (self._row()[0], self.rng.randbytes(size)))
        self._commit()
        if self.rng.random() < 0.5:
            self.con.execute("BEGIN")
            self.con.execute("DELETE FROM item WHERE length(b) > ?", (4 * self.page_size,))
            self._commit()

    def many_small(self):
        for _ in range(self.rng.randint(5, 20)):
            chain.commit_one(self.con, self.rng)

    def same_page_twice(self):
        """The same pages in one transaction again and again: with a small cache SQLite overwrites its own frames."""
        self.con.execute("BEGIN")
        for turn in range(3):
            self.con.execute("UPDATE item SET a = ? WHERE id % 3 = 0", (self.rng.randint(0, 999) + turn,))
            self._insert(3)
        self._commit()

    def constraint_failure(self):
        """A statement that fails half way; then the transaction goes on, or is rolled back."""
        self.con.execute("BEGIN")
        self._insert(self.rng.randint(1, 10))
        try:
            self.con.execute("UPDATE item SET a = CASE WHEN id = (SELECT max(id) FROM item) THEN -1 ELSE a + 2 END")
        except sqlite3.IntegrityError:
            pass
        if self.rng.random() < 0.5 and self.may_go_on_after_failure:
            self._commit()
        else:
            self.con.execute("ROLLBACK")

    def rollback_all(self):
        self.con.execute("BEGIN")
        self._insert(self.rng.randint(10, 60))
        self.con.execute("UPDATE item SET b = randomblob(300)")
        chain.extend(self.con, self.rng, "rolled back")
        self.con.execute("ROLLBACK")

    def savepoints(self):
        rng = self.rng
        self.con.execute("BEGIN")
        self._insert(rng.randint(1, 8))
        for depth in range(rng.randint(1, 3)):
            self.con.execute("SAVEPOINT s%d" % depth)
            self._insert(rng.randint(5, 40) if self.spill_savepoints else rng.randint(1, 8))
            self.con.execute("UPDATE item SET a = a + 3 WHERE id % 4 = 0")
            if rng.random() < 0.6:
                self.con.execute("ROLLBACK TO s%d" % depth)
                self._insert(rng.randint(1, 5))
        if rng.random() < 0.8:
            self._commit()
        else:
            self.con.execute("ROLLBACK")

    def schema_change(self):
        if self.reading:
            return
        name = "extra_%d" % self.rng.randint(0, 3)
        self.con.execute("BEGIN IMMEDIATE")  # it reads first, and Litestream may write in between: no waiting helps then
        if self.con.execute("SELECT 1 FROM sqlite_schema WHERE name = ?", (name,)).fetchone():
            self.con.execute("DROP TABLE " + name)
        else:
            self.con.execute("CREATE TABLE %s AS SELECT id, k, a FROM item LIMIT 50" % name)
            self.con.execute("CREATE INDEX %s_k ON %s(k)" % (name, name))
        self._commit()

    def documents(self):
        words = ["w%d" % self.rng.randint(0, 400) for _ in range(60)]
        self.con.execute("BEGIN")
        for _ in range(self.rng.randint(1, 5)):
            self.con.execute("INSERT INTO doc(body) VALUES(?)", (" ".join(self.rng.choices(words, k=40)),))
        if self.rng.random() < 0.3:
            self.con.execute("DELETE FROM doc WHERE id % 3 = 0")
        if self.rng.random() < 0.2:
            self.con.execute("INSERT INTO doc_fts(doc_fts) VALUES('optimize')")
        if self.rng.random() < 0.25:
            self.con.execute("ROLLBACK")
        else:
            self._commit()

    def reader(self):
        """Begins or ends a read transaction on the second connection: a held one keeps the WAL from restarting."""
        if self.reading:
            self.end_reader()
        else:
            self.side.execute("BEGIN")
            self.side.execute("SELECT count(*) FROM item").fetchone()
            self.reading = True

    def end_reader(self):
        if self.reading:
            self.side.execute("COMMIT")
            self.reading = False

    def checkpoint(self, mode=None):
        mode = mode or self.rng.choice(MODES)
        if self.reading and mode != "PASSIVE":
            self.end_reader()
        con = self.side if self.rng.random() < 0.5 and not self.reading else self.con
        con.execute("PRAGMA busy_timeout=%d" % self.checkpoint_busy_ms).fetchall()
        try:
            return con.execute("PRAGMA wal_checkpoint(%s)" % mode).fetchone()
        finally:
            con.execute("PRAGMA busy_timeout=60000").fetchall()

    def autocheckpoint(self):
        self.con.execute("PRAGMA wal_autocheckpoint=%d" % self.rng.choice((0, 5, 40, 1000))).fetchall()

    def journal_limit(self):
        self.con.execute("PRAGMA journal_size_limit=%d" % self.rng.choice((-1, 0, 100000))).fetchall()

    def vacuum(self):
        self.end_reader()
        self.con.execute("VACUUM")

    def incremental_vacuum(self):
        self.con.execute("PRAGMA incremental_vacuum(%d)" % self.rng.randint(1, 20)).fetchall()


class Threads:
    """
    Several connections on one database at once: `writers` threads extend the chain, one checkpoints in every mode, one
    reads. Errors other than "busy" are kept in `errors`; `committed` is the highest acknowledged link.
    """

    def __init__(self, connect, seed, writers=2, checkpointer=True, reader=True, pause=0.0):
        self.connect = connect
        self.seed = seed
        self.errors = []
        self.committed = 0
        self.checkpoints = 0
        self._lock = threading.Lock()  # guards committed, errors, checkpoints
        self._stop = threading.Event()
        self._pause = pause
        self._threads = [threading.Thread(target=self._guard, args=(self._write, i)) for i in range(writers)]
        if checkpointer:
            self._threads.append(threading.Thread(target=self._guard, args=(self._checkpoint, 100)))
        if reader:
            self._threads.append(threading.Thread(target=self._guard, args=(self._read, 200)))

    def start(self):
        for thread in self._threads:
            thread.start()
        return self

    def stop(self):
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _guard(self, body, number):
        con = None
        try:
            con = self.connect()
            body(con, random.Random("%d/%d" % (self.seed, number)), number)
        except Exception as error:
            with self._lock:
                self.errors.append("thread %d: %s: %s" % (number, type(error).__name__, error))
        finally:
            if con is not None:
                con.close()

    def _write(self, con, rng, number):
        while not self._stop.is_set():
            try:
                n = chain.commit_one(con, rng, "t%d" % number)
            except sqlite3.OperationalError as error:
                if "locked" in str(error) or "busy" in str(error):
                    continue
                raise
            with self._lock:
                self.committed = max(self.committed, n)
            if self._pause:
                time.sleep(self._pause)

    def _checkpoint(self, con, rng, _):
        while not self._stop.is_set():
            con.execute("PRAGMA wal_checkpoint(%s)" % rng.choice(MODES)).fetchone()
            with self._lock:
                self.checkpoints += 1
            time.sleep(rng.random() * 0.02)

    def _read(self, con, rng, _):
        while not self._stop.is_set():
            con.execute("BEGIN")
            chain.verify(con, "live reader")
            con.execute("COMMIT")
            time.sleep(rng.random() * 0.05)
