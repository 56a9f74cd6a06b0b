"""ledger.py - several tables that prove together which committed prefix a database holds, under everything SQLite does.

Each of the tables below is a hash chain with a counter of its own; the front of a chain is deleted as it grows. Table
`link` is the chain over them: link g, one per transaction, holds what each table came to by then (its first and last
number, the hash of its last row, counts and sums of the tables whose rows change). So a database is a committed prefix
exactly when every chain is whole, the links are 1..g without a gap behind the deleted front, and the tables are what the
last link says. A lost, torn, doubled or mixed transaction breaks one of these, and verify() names the first place.

    plain     rows with an index               keyed      WITHOUT ROWID, by text
    blob      many pages each                  doc        FTS5 behind triggers
    item      rows that are changed and deleted at random, CHECK and UNIQUE: each row carries the hash of its blob
"""

import hashlib
import sqlite3

from . import harness, shim

CHAINS = ("plain", "keyed", "blob", "doc")
KEPT = {"plain": 60, "keyed": 40, "blob": 5, "doc": 40}
KEPT_LINKS = 3000
ITEMS = 120
WORDS = tuple("w%d" % i for i in range(90))

SCHEMA = """
CREATE TABLE link(g INTEGER PRIMARY KEY, writer TEXT, prev BLOB, state TEXT, h BLOB);
CREATE TABLE head(name TEXT PRIMARY KEY, first INTEGER, last INTEGER, base BLOB, h BLOB);
CREATE TABLE plain(n INTEGER PRIMARY KEY, g INTEGER, body BLOB, h BLOB);
CREATE INDEX plain_g ON plain(g);
CREATE TABLE keyed(k TEXT PRIMARY KEY, n INTEGER, g INTEGER, body BLOB, h BLOB) WITHOUT ROWID;
CREATE TABLE blob(n INTEGER PRIMARY KEY, g INTEGER, h BLOB, body BLOB);
CREATE TABLE doc(n INTEGER PRIMARY KEY, g INTEGER, body TEXT, h BLOB);
CREATE TABLE item(id INTEGER PRIMARY KEY, k TEXT UNIQUE, a INTEGER CHECK(a >= 0), b BLOB, d BLOB);
CREATE INDEX item_a ON item(a)
"""
FTS_SCHEMA = (
    "CREATE VIRTUAL TABLE doc_fts USING fts5(body, content='doc', content_rowid='n')",
    "CREATE TRIGGER doc_ai AFTER INSERT ON doc BEGIN INSERT INTO doc_fts(rowid, body) VALUES(new.n, new.body); END",
    "CREATE TRIGGER doc_ad AFTER DELETE ON doc BEGIN "
    "INSERT INTO doc_fts(doc_fts, rowid, body) VALUES('delete', old.n, old.body); END",
)
FTS_CHECK = "INSERT INTO doc_fts(doc_fts, rank) VALUES('integrity-check', 1)"


def _short(*parts):
    digest = hashlib.sha256()
    for part in parts:
        digest.update(b"%d:" % len(part) + part if isinstance(part, bytes) else str(part).encode() + b"|")
    return digest.digest()[:12]


# ---------------------------------------------------------------------------------------------------------------------
# writing


def exists(con):
    return bool(con.execute("SELECT 1 FROM sqlite_schema WHERE name = 'link'").fetchone())


def create(con):
    """In a new database; auto_vacuum has to be set before its first page."""
    con.execute("BEGIN IMMEDIATE")
    for statement in SCHEMA.split(";"):
        con.execute(statement)
    for statement in FTS_SCHEMA:
        con.execute(statement)
    con.executemany("INSERT INTO head VALUES(?, 1, 0, x'', x'')", [(name,) for name in CHAINS])
    con.execute("COMMIT")


def last(con):
    return con.execute("SELECT coalesce(max(g), 0) FROM link").fetchone()[0]


def _state(con):
    """What all tables came to, as text. Cheap: the chains by their heads."""
    heads = con.execute("SELECT name, first, last, hex(h) FROM head ORDER BY name").fetchall()
    items = con.execute("SELECT count(*), coalesce(sum(id * (a + 1)), 0), coalesce(sum(length(b)), 0) FROM item").fetchone()
    return " ".join("%s=%s-%s:%s" % head for head in heads) + " item=%d/%d/%d" % items


def rolls_back_to(exclusive):
    """
    Whether a writer whose process dies may roll back to savepoints. The frames that SQLite before 3.50.2 then leaves without
    checksums are repaired by us, but not under exclusive locking: there a crash loses commits, with any VFS.
    """
    return not exclusive or sqlite3.sqlite_version_info >= (3, 50, 2)


class Writer:
    """
    One connection's transactions. `rng` decides all; `spilling` makes some so large that a cache of 5 pages spills.
    `rollback_to`: rolls back to savepoints, too. With a cache that small SQLite before 3.50.2 then leaves frames without
    checksums, and would lose the commit in a recovery; the shim puts them right.
    """

    def __init__(self, con, rng, name="w", spilling=True, rollback_to=False, blob_bytes=(3000, 30000)):
        self.con = con
        self.rng = rng
        self.name = name
        self.spilling = spilling
        self.rollback_to = rollback_to
        self.blob_bytes = blob_bytes

    def transaction(self, commit=None):
        """
        One transaction of a random kind: the number of its link, or 0 when it was one that is rolled back. `commit(g)` has
        to commit it; SQLite's errors come through, with everything rolled back.
        """
        self.con.execute("BEGIN IMMEDIATE")
        try:
            kind = self.rng.random()
            if kind < 0.12:
                self._fails()
                self.con.execute("ROLLBACK")
                return 0
            self._changes(large=self.spilling and kind < 0.25)
            g = self._link()
            (commit or self._commit)(g)
            return g
        except sqlite3.Error:
            if self.con.in_transaction:
                self.con.execute("ROLLBACK")
            raise

    def _commit(self, _):
        self.con.execute("COMMIT")

    def _changes(self, large):
        rng = self.rng
        g = last(self.con) + 1
        if self.rollback_to and rng.random() < 0.3:
            self._taken_back(g, 30 if large else 2)
        for name in CHAINS:
            if name == "blob" and rng.random() < 0.85 and not large:
                continue
            for _ in range(rng.randint(0, 12 if large and name != "blob" else 2)):
                self._append(name, g)
        self._change_items(40 if large else 4)
        if large:
            self._savepoint(g)
        self._delete_fronts()
        if rng.random() < 0.1:
            self.con.execute("INSERT INTO doc_fts(doc_fts) VALUES('optimize')")
        if rng.random() < 0.15:
            self.con.execute("PRAGMA incremental_vacuum(%d)" % rng.randint(1, 40)).fetchall()

    def _append(self, name, g):
        rng = self.rng
        before, h = self.con.execute("SELECT last, h FROM head WHERE name = ?", (name,)).fetchone()
        n = before + 1
        if name == "doc":
            body = " ".join(rng.choices(WORDS, k=rng.randint(3, 40)))
        else:
            body = rng.randbytes(rng.randint(*self.blob_bytes) if name == "blob" else rng.randint(0, 200))
        h = _short(h, name, n, g, body)
        if name == "keyed":
            self.con.execute("INSERT INTO keyed VALUES(?,?,?,?,?)", (_key(n), n, g, body, h))
        else:
            self.con.execute("INSERT INTO %s(n, g, body, h) VALUES(?,?,?,?)" % name, (n, g, body, h))
        self.con.execute("UPDATE head SET last = ?, h = ? WHERE name = ?", (n, h, name))

    def _delete_fronts(self):
        """Now and then all but the newest rows of a chain; the head remembers where it begins."""
        name = self.rng.choice(CHAINS)
        first, end = self.con.execute("SELECT first, last FROM head WHERE name = ?", (name,)).fetchone()
        keep = end - self.rng.randint(1, KEPT[name]) + 1
        if end - first + 1 > KEPT[name] and keep > first:
            base = self.con.execute("SELECT h FROM %s WHERE n = ?" % name, (keep - 1,)).fetchone()[0]
            self.con.execute("DELETE FROM %s WHERE n < ?" % name, (keep,))
            self.con.execute("UPDATE head SET first = ?, base = ? WHERE name = ?", (keep, base, name))
        self.con.execute("DELETE FROM link WHERE g < ?", (last(self.con) - KEPT_LINKS,))

    def _change_items(self, most):
        rng = self.rng
        for _ in range(rng.randint(0, most)):
            key = rng.randint(1, ITEMS)
            if rng.random() < 0.25:
                self.con.execute("DELETE FROM item WHERE id = ?", (key,))
                continue
            a, b = rng.randint(0, 1 << 20), rng.randbytes(rng.randint(0, 600))
            self.con.execute("INSERT INTO item VALUES(?,?,?,?,?) ON CONFLICT(id) DO UPDATE SET a = excluded.a, "
                             "b = excluded.b, d = excluded.d", (key, "k%d" % key, a, b, _short("item", key, a, b)))

    def _savepoint(self, g):
        """One behind a spill, with a small cache."""
        self.con.execute("SAVEPOINT behind")
        self._append("plain", g)
        self._change_items(20)
        if self.rollback_to and self.rng.random() < 0.7:
            self.con.execute("ROLLBACK TO behind")
        self.con.execute("RELEASE behind")

    def _taken_back(self, g, size):
        """A savepoint at the begin of the transaction: what was spilled in it is written over by what follows."""
        self.con.execute("SAVEPOINT first")
        for _ in range(self.rng.randint(1, size)):
            self._append("plain", g)
        self._change_items(size)
        self.con.execute("ROLLBACK TO first")
        self.con.execute("RELEASE first")

    def _fails(self):
        """Much is written, by triggers too; then a bulk statement hits a CHECK. All of it has to go."""
        rng = self.rng
        g = last(self.con) + 1
        count = rng.randint(20, 120) if self.spilling and rng.random() < 0.5 else rng.randint(1, 8)
        for _ in range(count):
            self._append("doc", g)
        try:
            self.con.executemany("INSERT INTO item VALUES(?,?,?,?,x'')",
                                 [(ITEMS + 1 + i, "new%d" % i, 7 if i + 1 < count else -1, bytes(300))
                                  for i in range(count)])
            raise harness.Failure("a CHECK did not fail")
        except sqlite3.IntegrityError:
            pass
        if rng.random() < 0.5:
            self._change_items(10)

    def _link(self):
        g, prev = self.con.execute("SELECT g, h FROM link ORDER BY g DESC LIMIT 1").fetchone() or (0, b"")
        g += 1
        state = _state(self.con)
        self.con.execute("INSERT INTO link VALUES(?,?,?,?,?)",
                         (g, self.name, prev, state, _short(g, self.name, prev, state)))
        return g


def _key(n):
    return "%s-%d" % (hashlib.sha256(b"%d" % n).hexdigest()[:8], n)


# ---------------------------------------------------------------------------------------------------------------------
# proving


def verify(con, what="database"):
    """
    The number of the last link when the database is exactly what transaction 1..g left; fails with the first broken place
    otherwise. 0: the tables are not there.
    """
    own = not con.in_transaction
    try:
        if own:
            con.execute("BEGIN")
        if not exists(con):
            return 0
        g, state = _verify_links(con, what)
        for name in CHAINS:
            _verify_chain(con, what, name, g)
        _verify_items(con, what)
        found = _state(con)
        harness.check(found == state, "%s: after link %d the tables are %s, the link says %s" % (what, g, found, state))
        indexed = con.execute("SELECT count(*) FROM plain INDEXED BY plain_g WHERE g >= 0").fetchone()[0]
        harness.check_equal(indexed, con.execute("SELECT count(*) FROM plain NOT INDEXED").fetchone()[0],
                            what + ": index entries of plain")
        return g
    except sqlite3.DatabaseError as error:
        raise harness.Failure("%s: cannot be read: %s" % (what, error))
    finally:
        if own and con.in_transaction:
            con.execute("COMMIT")


def _verify_links(con, what):
    g, before, state = 0, None, _state(con)
    for number, writer, prev, text, h in con.execute("SELECT g, writer, prev, state, h FROM link ORDER BY g"):
        if before is None:
            harness.check(number == 1 or prev, "%s: link %d begins the chain without a link before it" % (what, number))
        else:
            harness.check(number == g + 1, "%s: link %d comes after link %d" % (what, number, g))
            harness.check(prev == before, "%s: link %d does not follow link %d" % (what, number, g))
        harness.check(h == _short(number, writer, prev, text), "%s: link %d is damaged" % (what, number))
        g, before, state = number, h, text
    return g, state


def _verify_chain(con, what, name, g):
    first, end, h, newest = con.execute("SELECT first, last, base, h FROM head WHERE name = ?", (name,)).fetchone()
    n = first - 1
    # the table itself, not an index: rows are what is proved
    for number, made, body, stated in con.execute("SELECT n, g, body, h FROM %s NOT INDEXED ORDER BY n" % name):
        harness.check(number == n + 1, "%s: %s row %d comes after row %d" % (what, name, number, n))
        n = number
        harness.check(made <= g, "%s: %s row %d is of transaction %d, the last link is %d" % (what, name, n, made, g))
        h = _short(h, name, n, made, body)
        harness.check(h == stated, "%s: %s row %d does not follow row %d, or is damaged" % (what, name, n, n - 1))
    harness.check(n == end and h == newest, "%s: %s ends with row %d, its head says %d" % (what, name, n, end))


def _verify_items(con, what):
    for key, a, b, d in con.execute("SELECT id, a, b, d FROM item"):
        harness.check(d == _short("item", key, a, b), "%s: item %d is damaged" % (what, key))


def verify_file(path, what=None):
    """verify() of a closed file by SQLite's own VFS, and of its full-text index. The file is a copy that may be changed."""
    con = shim.plain(path)
    try:
        g = verify(con, what or path)
        if g:
            con.execute("BEGIN")
            try:
                con.execute(FTS_CHECK)
            except sqlite3.DatabaseError as error:
                raise harness.Failure("%s: full-text index: %s" % (what or path, error))
            finally:
                con.execute("ROLLBACK")
        return g
    finally:
        con.close()
