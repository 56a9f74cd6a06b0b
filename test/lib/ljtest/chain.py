"""chain.py - a table that proves which committed prefix a database holds.

Every transaction adds row n to `chain` and changes rows of `ledger`. Row n holds the hash of row n-1, and the sum over
the ledger after the transaction. So a restored database is a committed prefix exactly when its rows are 1..n, every
hash follows from the one before, and the ledger's sum is the one in row n: a lost, torn, doubled or mixed
transaction breaks one of the three.
"""

import hashlib
import sqlite3

from . import harness, shim

LEDGER_ROWS = 64

SCHEMA = """
CREATE TABLE chain(n INTEGER PRIMARY KEY, writer TEXT, prev BLOB, total INTEGER, payload BLOB, h BLOB);
CREATE INDEX chain_writer ON chain(writer, n);
CREATE TABLE ledger(id INTEGER PRIMARY KEY, val INTEGER, pad BLOB);
"""


def create(con):
    con.execute("BEGIN IMMEDIATE")
    for statement in SCHEMA.strip().split(";"):
        if statement.strip():
            con.execute(statement)
    con.executemany("INSERT INTO ledger VALUES(?,0,zeroblob(40))", [(i,) for i in range(LEDGER_ROWS)])
    con.execute("COMMIT")


def exists(con):
    return bool(con.execute("SELECT 1 FROM sqlite_schema WHERE name='chain'").fetchone())


def _hash(n, writer, prev, total, payload):
    text = b"%d|%s|%s|%d|" % (n, writer.encode(), prev, total)
    return hashlib.sha256(text + payload).digest()[:16]


def last(con):
    """The number of the last transaction, 0 for none."""
    return con.execute("SELECT coalesce(max(n), 0) FROM chain").fetchone()[0]


def extend(con, rng, writer="w", payload_bytes=(0, 300)):
    """Adds the next link inside the transaction that is open (begun IMMEDIATE); returns its number."""
    n, prev = con.execute("SELECT n, h FROM chain ORDER BY n DESC LIMIT 1").fetchone() or (0, b"")
    n += 1
    for _ in range(rng.randint(1, 4)):
        con.execute("UPDATE ledger SET val = ?, pad = zeroblob(?) WHERE id = ?",
                    (rng.randint(0, 1 << 30), rng.randint(10, 120), rng.randrange(LEDGER_ROWS)))
    total = con.execute("SELECT sum(val * (id + 1)) FROM ledger").fetchone()[0]
    payload = rng.randbytes(rng.randint(*payload_bytes))
    con.execute("INSERT INTO chain VALUES(?,?,?,?,?,?)",
                (n, writer, prev, total, payload, _hash(n, writer, prev, total, payload)))
    return n


def commit_one(con, rng, writer="w", **options):
    """One whole transaction; returns its number."""
    con.execute("BEGIN IMMEDIATE")
    try:
        n = extend(con, rng, writer, **options)
        con.execute("COMMIT")
        return n
    except sqlite3.Error:
        if con.in_transaction:
            con.execute("ROLLBACK")
        raise


def verify(con, what="database"):
    """Returns n when the database holds exactly transactions 1..n; fails with what is wrong otherwise."""
    prev = b""
    total = 0
    n = 0
    try:
        if not exists(con):
            return 0
        for row in con.execute("SELECT n, writer, prev, total, payload, h FROM chain ORDER BY n"):
            n += 1
            harness.check_equal(row[0], n, what + ": number of the next link")
            harness.check(row[2] == prev, "%s: link %d does not follow link %d" % (what, n, n - 1))
            harness.check(row[5] == _hash(row[0], row[1], row[2], row[3], row[4]),
                          "%s: link %d is damaged" % (what, n))
            prev = row[5]
            total = row[3]
        found = con.execute("SELECT coalesce(sum(val * (id + 1)), 0), count(*) FROM ledger").fetchone()
        harness.check_equal(found, (total, LEDGER_ROWS), "%s: ledger after link %d" % (what, n))
        indexed = con.execute("SELECT count(*) FROM chain INDEXED BY chain_writer WHERE writer >= ''").fetchone()[0]
        harness.check_equal(indexed, n, what + ": index entries of chain")
    except sqlite3.DatabaseError as error:
        raise harness.Failure("%s: cannot be read: %s" % (what, error))
    return n


def verify_file(path, what=None):
    """verify() of a closed file, through SQLite's own VFS."""
    con = shim.plain(path)
    try:
        return verify(con, what or path)
    finally:
        con.close()
