#!/usr/bin/python3
"""
test_product_outages.py - stores that are gone for a while, come and go, or answer with damage, and databases that start then.

What must hold: commits go on, disk use has its limits, what was written meanwhile arrives in order and once, and a database that
cannot be restored is not opened.
"""
# timeout: 1200

import os
import re
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from faultkit import BUCKET, NEEDS, PATIENCE, broken, disk_use, must_fail, place  # noqa: E402
from ljtest import chain, faults, harness, s3gate, servers, shim  # noqa: E402
from ljtest.harness import check, check_equal, test, wait_for  # noqa: E402

PORT = "check that the server runs and that nothing between blocks the port"
BETWEEN = 'check "endpoint", and what stands between here and the store'
REFUSED = "{refused}"
KIB = 1024


def write_a_lot(at, con, bound, rounds, size=30000):
    """Commits with restarts of the WAL in between; the data folder must stay below bound(). Returns the last link."""
    most = 0
    n = 0
    for _ in range(rounds):
        n = at.write_timed(con, 20)
        n = at.write(con, 5, payload_bytes=(size, size))
        con.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()
        used, allowed = disk_use(at.data), bound()
        most = max(most, used)
        check(used <= allowed, "%d bytes in the data folder, %d allowed" % (used, allowed))
    at.t.note("at most %d KiB on disk" % (most // KIB))
    return n


@test(*NEEDS, timeout=120)
def a_long_outage_under_load(t):
    """Many lives of the WAL while the store is down: bounded disk use, and then everything in order in one generation."""
    limit_wal, limit_spool = 512 * KIB, 32 * KIB * KIB
    with place(t, max_wal_size="512KiB", max_spool_size="32MiB") as at:
        con = at.ready()
        first = shim.sync(con, "%ds" % PATIENCE).generation
        at.proxy.down()
        # the last transaction may pass the limit, and -shm, the position and so on are small
        n = write_a_lot(at, con, lambda: os.stat(at.path).st_size + limit_wal + limit_spool + 512 * KIB, 15)
        last = at.wait_error(con, "{url}: {segment}: HEAD {host}: " + REFUSED, PORT)
        check(last["spool_bytes"] > 0, "nothing was spooled: %s" % last)
        check(last["lag_frames"] > 0 and last["lag_ms"] > 0, "no lag: %s" % last)
        at.proxy.up()
        at.caught_up(con)
        check_equal(shim.sync(con).generation, first, "generation after the outage")
        check_equal(at.finish(con, snapshots=1), n, "last link")
        spool = [name for _, _, names in os.walk(at.data) for name in names if "spool" in name or name.endswith(".wal")]
        check_equal(spool, [], "files of the spool")


@test(*NEEDS, timeout=120)
def an_outage_longer_than_the_spool(t):
    """The limit holds, commits go on, a new generation follows, and the log says so."""
    with place(t, max_wal_size="256KiB", max_spool_size="512KiB") as at:
        con = at.ready()
        first = shim.sync(con, "%ds" % PATIENCE).generation
        time.sleep(1.1)  # S3 has whole seconds: which generation is the newer one
        at.proxy.down()
        n = write_a_lot(at, con, lambda: os.stat(at.path).st_size + (256 + 512 + 512) * KIB, 10)
        status = shim.status(con)
        check(status["spool_bytes"] <= 512 * KIB, "the spool holds %d bytes" % status["spool_bytes"])
        at.proxy.up()
        at.caught_up(con)
        second = shim.sync(con).generation
        check(second != first, "the generation went on although frames are missing")
        # three, when the first snapshot of the second one was on its way while the spool was full again
        check_equal(at.finish(con, generations=(2, 3)), n, "last link")
        at.forget()
        con = at.open(create=False)
        check_equal(chain.verify(con, "restored"), n, "last link after the disk was lost")
        con.close()
        said = [line for line in at.log() if "unshipped bytes do not fit into max_spool_size" in line]
        check(said and "find out why the replica is behind, or raise max_spool_size" in said[0], "log: %s" % said)
        check(any("the generation cannot be continued: frames left the WAL" in line for line in at.log()), "the log does not say so")
        check(any("replicating to s3://" in line and second in line for line in at.log()), "the log does not name the new one")


@test(*NEEDS, timeout=60)
def down_at_open(t):
    with place(t) as at:
        con = at.ready()
        n = at.write(con, 5)
        at.finish(con)
        at.proxy.down()
        with t.part("with the local file"):
            con = at.open(create=False)
            check_equal(chain.last(con), n, "last link")
            n = at.write_timed(con)
            at.wait_error(con, "{url}: generations/{generation}/: GET {host}: " + REFUSED, PORT)
            at.proxy.up()
            at.caught_up(con)
            check_equal(at.finish(con, snapshots=1), n, "last link in the store")
            at.proxy.down()
        with t.part("with nothing local"):
            at.forget()
            started = time.monotonic()
            said = must_fail(at.open)
            t.note("after %.1f s: %s" % (time.monotonic() - started, said))
            whole = r"unable to open database file \| " + at.pattern(
                "restoring before open: {url}: generations/: GET {host}: " + REFUSED + " (" + PORT + ")")
            check(re.fullmatch(whole, said), "the open says: " + said)
            check_equal([name for name in os.listdir(at.data) if not name.startswith(".")], [], "files after the failed open")
        with t.part("and back again"):
            at.proxy.up()
            con = at.open(create=False)
            check_equal(chain.verify(con, "restored"), n, "last link")
            at.write(con, 3)
            at.finish(con, snapshots=1)


@test(*NEEDS, timeout=60)
def a_first_open_during_an_outage(t):
    """Never replicated before, restore_on_boot off: the database works, and its first generation comes later."""
    with place(t, restore_on_boot="false") as at:
        at.proxy.down()
        con = at.open()
        at.write_timed(con)
        at.wait_error(con, "snapshot: {url}: {snapshot}: HEAD {host}: " + REFUSED, PORT)
        con.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        at.write(con, 5)
        started = time.monotonic()
        con.close()
        check(time.monotonic() - started < 30, "close took %.1f s" % (time.monotonic() - started))
        con = at.open(create=False)
        at.write(con, 5)
        at.proxy.up()
        at.caught_up(con)
        at.finish(con, snapshots=1)


@test(*NEEDS, timeout=120)
def a_store_that_flaps(t):
    """Gone and back every half second for a while, under load: still each segment once, in one generation."""
    with place(t, max_wal_size="256KiB") as at:
        con = at.ready()
        stop = threading.Event()

        def flap():
            while not stop.wait(0.5):
                at.proxy.down()
                if stop.wait(0.5):
                    break
                at.proxy.up()
            at.proxy.up()

        thread = threading.Thread(target=flap)
        thread.start()
        try:
            end = time.monotonic() + (20 if harness.LONG else 10)
            while time.monotonic() < end:
                n = at.write_timed(con, 30)
                con.execute("PRAGMA wal_checkpoint(%s)" % t.random.choice(("PASSIVE", "RESTART", "TRUNCATE"))).fetchall()
                time.sleep(0.05)
        finally:
            stop.set()
            thread.join()
        at.caught_up(con)
        check_equal(at.finish(con, snapshots=1), n, "last link")
        at.proxy.settle()
        check(len([r for r in at.proxy.seen("PUT") if r.status == 200]) > 5, "hardly anything was shipped in between")


# ---------------------------------------------------------------------------------------------------------------------
# answers that are damaged


@test(*NEEDS, timeout=90)
def listings_that_are_damaged(t):
    """At the next open of a database that is there: not taken for an empty replica, and no new generation for it."""
    html = faults.status(200, {"Content-Type": "text/html"}, "<html><body>Please sign in</body></html>")
    xml = ('<?xml version="1.0"?><ListBucketResult><Name>%s</Name><IsTruncated>false</IsTruncated>' % BUCKET)
    cases = (
        ("garbage", faults.answer(lambda _: faults.Response(200, {}, b"\x00\xff garbage \xfe" * 20)), BETWEEN),
        ("a sign-in page", html, BETWEEN),
        ("nothing", faults.status(200), BETWEEN),
        ("cut, with a length that agrees", faults.truncate(150, lie=True), BETWEEN),
        ("cut", faults.truncate(150), ""),
        ("reset", faults.reset_body(150), ""),
        ("flipped bits", faults.corrupt(60, 40, 0x15), BETWEEN),
        ("no end", faults.status(200, {"Content-Type": "application/xml"}, xml), BETWEEN),
        ("another root", faults.status(200, {"Content-Type": "application/xml"}, "<Other></Other>"), BETWEEN),
        ("an error in a good answer", faults.s3_error("InternalError", 200), BETWEEN),
        ("stalled", faults.stall(100), "io_timeout sets the limit"),
    )
    with place(t, shutdown_timeout="300ms") as at:
        at.ready().close()
        position = None
        for name, action, hint in cases:
            with t.part(name):
                rule = at.proxy.add(action, method="GET", query="prefix=")
                con = at.open(create=False)
                try:
                    at.write(con, 5)
                    # a busy store may be late first: that is another error
                    last = wait_for(lambda: (lambda s: s["last_error"] and hint in s["last_error"] and s)(shim.status(con)),
                                    lambda: "%r in %s" % (hint, shim.status(con)["last_error"]), PATIENCE)
                finally:
                    at.proxy.remove(rule)
                t.note(last["last_error"])
                check_equal(last["state"], "retrying", "state")
                check(re.match(at.pattern("{url}: generations/{generation}/: "), last["last_error"]), "it does not say where")
                at.caught_up(con)
                found = shim.sync(con, "%ds" % PATIENCE)
                check_equal(found.generation, (position or found).generation, "generation")
                position = found
                con.close()
        at.finish(snapshots=1)


@test(*NEEDS, timeout=120)
def restores_through_a_damaging_network(t):
    """The same database, or a clear error and none: never a wrong one."""
    passing = (
        ("reset", faults.reset_body(500)),
        ("cut", faults.truncate(500)),
        ("stalled", faults.stall(500)),
        ("503", faults.s3_error("SlowDown")),
        ("500", faults.status(500)),
        ("reset before", faults.reset_before()),
        ("cut, with a length that agrees", faults.truncate(500, lie=True)),
        ("empty", faults.truncate(0, lie=True)),
        ("a sign-in page", faults.status(200, {"Content-Type": "text/html"}, "<html>no</html>" * 30)),
    )
    damaging = (
        ("flipped bits", faults.corrupt(300, 3)),
        ("another object", faults.status(200, {"ETag": '"0"'}, b"another object" * 1000)),
    )
    with place(t) as at:
        con = at.ready()
        for _ in range(3):
            n = at.write(con, 6, payload_bytes=(2000, 2000))
            shim.sync(con, "%ds" % PATIENCE)
        shim.snapshot(con, "%ds" % PATIENCE)
        at.write(con, 4, payload_bytes=(2000, 2000))
        con.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        n = at.write(con, 4, payload_bytes=(2000, 2000))
        at.finish(con)
        for kind in ("snapshots", "wal"):
            for name, action in passing + damaging:
                with t.part("%s, %s" % (kind, name)):
                    at.forget()
                    rule = at.proxy.add(action, method="GET", path="/%s/" % kind, count=2 if kind == "wal" else 1)
                    if (name, action) in damaging:
                        said = must_fail(at.open, restore_on_boot="true", create=False)
                        t.note(said)
                        check("/%s/" % kind in said and "restoring before open" in said, "the open says: " + said)
                        check_equal([f for f in os.listdir(at.data) if not f.startswith(".")], [], "files of the failed open")
                        check(rule.fired, "nothing was damaged")
                        at.proxy.remove(rule)
                    con = at.open(create=False)
                    check_equal(chain.verify(con, "restored"), n, "last link")
                    check(rule.fired, "nothing was broken")
                    at.proxy.remove(rule)
                    con.close()
        at.finish()


if __name__ == "__main__":
    harness.main("product outages")
