#!/usr/bin/python3
"""
test_product_faults.py - embedded replication with a scripted fault between it and a real S3 server.

What must hold throughout: commits neither fail nor wait, the status says what is wrong and what to do, everything catches up by
itself when the fault is over, and the store then holds one generation with every segment once and in order.
"""
# timeout: 1200

import os
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from faultkit import BUCKET, NEEDS, PATIENCE, broken, must_fail, place  # noqa: E402
from ljtest import chain, fakecloud, faults, harness, s3gate, servers, shim  # noqa: E402
from ljtest.harness import check, check_equal, test, wait_for  # noqa: E402

SLOWER = "the store asks for fewer requests; what waits is sent later"
ASKED = "the server asks for fewer requests; what waits is sent later"
LASTS = "nothing to do unless it lasts; then ask who runs the server"
AGAIN = "nothing to do unless it lasts; then ask who runs the store"
RIGHTS = ("the credentials need s3:ListBucket on the bucket and s3:GetObject, s3:PutObject, s3:DeleteObject, "
          "s3:AbortMultipartUpload on its objects; "
          "without s3:ListBucket a missing object gets this answer too")
STUCK = "the server or the network between is stuck; io_timeout sets the limit"
PORT = "check that the server runs and that nothing between blocks the port"


@test(*NEEDS, timeout=120)
def answers_that_say_later(t):
    """An error answer to every request, until it has been seen in the status."""
    cases = (
        ("429", faults.status(429), "HTTP 429", ASKED),
        ("SlowDown", faults.s3_error("SlowDown"), "HTTP 503: SlowDown: no luck today", SLOWER),
        ("503 without a body", faults.status(503), "HTTP 503", ASKED),
        ("InternalError", faults.s3_error("InternalError"), "HTTP 500: InternalError: no luck today", AGAIN),
        ("502", faults.status(502, {"Content-Type": "text/html"}, "<html>Bad Gateway</html>"), "HTTP 502", LASTS),
    )
    with broken(t) as make:
        for name, action, text, hint in cases:
            with t.part(name):
                at = make(name.replace(" ", "-"))
                con = at.ready()
                with at.proxy.rule(action, method="PUT"):
                    at.write_timed(con)
                    at.wait_error(con, "{url}: {segment}: PUT {host}: " + text, hint)
                at.caught_up(con)
                at.finish(con, snapshots=1)


@test(*NEEDS, timeout=120)
def retry_after_is_honoured(t):
    """No request before the time that the store asked for is over, also when somebody waits in litejoin_sync."""
    cases = (
        ("503 in seconds", faults.s3_error("SlowDown", retry_after=2), 2.0),
        ("429 in seconds", faults.status(429, retry_after=1), 1.0),
        ("503 as a date", faults.answer(lambda _: faults.Response(503, {"Retry-After": faults.http_date(3)}), "503"), 1.9),
    )
    with broken(t) as make:
        for name, action, least in cases:
            with t.part(name):
                at = make(name.replace(" ", "-"))
                con = at.ready()
                at.proxy.forget()
                rule = at.proxy.add(action, count=1)
                at.write(con, 3)
                wait_for(lambda: rule.fired, "a request", PATIENCE)
                shim.sync(con, "%ds" % PATIENCE)
                at.finish(con)
                check_pause(at.proxy, least)
        with t.part("first snapshot"):
            at = make("first")
            at.proxy.forget()
            rule = at.proxy.add(faults.s3_error("SlowDown", retry_after=1), method="PUT", path="/snapshots/", count=1)
            con = at.open()
            wait_for(lambda: rule.fired, "a snapshot", PATIENCE)
            at.write_timed(con, 20)
            shim.sync(con, "%ds" % PATIENCE)
            at.finish(con, snapshots=1)
            check_pause(at.proxy, 1.0)


@test(*NEEDS, timeout=120)
def a_snapshot_that_is_only_said_to_be_there(t):
    """412 by something in between: no generation begins with a snapshot that nobody has."""
    with place(t) as at:
        rule = at.proxy.add(faults.status(412), method="PUT", path="/snapshots/")
        con = at.open()
        at.write(con, 5)
        at.wait_error(con, "snapshot: {url}: {snapshot}: the answer was that the object is there already, but it is not",
                      "something between answers in the store's place: a proxy")
        at.proxy.remove(rule)
        at.caught_up(con)
        at.finish(con, snapshots=1)


def check_pause(proxy, least):
    """Behind the first request that a rule answered, so many seconds passed without another."""
    proxy.settle()
    seen = proxy.seen()
    refused = [i for i, request in enumerate(seen) if request.faults]
    check_equal(len(refused), 1, "refused requests")
    # from when it came: the record of its end may be late
    later = [request.started - seen[refused[0]].started for request in seen[refused[0] + 1:]]
    check(later and later[0] > least - 0.05, "the next request came %.2f s after one that asked for %g s" % (later[0], least))


@test(*NEEDS, timeout=120)
def connections_that_break(t):
    """Reset at every stage, refused, closed without an answer."""
    nothing = "the connection was closed without an answer"
    cases = (
        ("reset at the head", {"action": faults.reset_before(read_body=False), "method": "PUT"}, nothing),
        ("reset behind the body", {"action": faults.reset_before(), "method": "PUT"}, nothing),
        ("reset in the upload", {"action": faults.reset_upload(20), "method": "PUT"}, nothing),
    )
    with broken(t, between=s3gate.Gate) as make:
        for name, rule, text in cases:
            with t.part(name):
                at = make(name.replace(" ", "-"))
                con = at.ready()
                with at.proxy.rule(**rule):
                    at.write_timed(con)
                    at.wait_error(con, "{url}: {segment}: PUT {host}: " + text)
                at.caught_up(con)
                at.finish(con, snapshots=1)
        with t.part("refused"):
            at = make("refused")
            con = at.ready()
            at.proxy.down()
            at.write_timed(con)
            at.wait_error(con, "{url}: {segment}: HEAD {host}: {refused}", PORT)
            at.proxy.up()
            at.caught_up(con)
            at.finish(con, snapshots=1)
        with t.part("reset on connect"):
            at = make("connect")
            con = at.ready()
            at.proxy.on_connect = "reset"
            at.proxy.drop()
            at.write_timed(con)
            at.wait_error(con, "{url}: {segment}: HEAD {host}: Recv failure: Connection reset by peer")
            at.proxy.on_connect = None
            at.caught_up(con)
            at.finish(con, snapshots=1)


@test(*NEEDS, timeout=120)
def lost_acknowledgements(t):
    """Done, but never heard of: taken over under the same name, and nothing of it sent again under another."""
    for kind in (servers.Moto, servers.S3rver):
        with broken(t, kind) as make, t.part(kind.__name__):
            at = make(kind.name)
            con = at.ready()
            for after in (faults.reset_after(), faults.replace_status(500), faults.delay_answer(3000)):
                at.proxy.forget()
                rule = at.proxy.add(after, method="PUT", path="/wal/", count=1)
                at.write(con, 5)
                wait_for(lambda: rule.fired, "a segment", PATIENCE)
                at.write_timed(con, 30)
                at.caught_up(con)
                lost = [r for r in at.proxy.seen("PUT", "/wal/") if r.faults][0]
                check_equal(lost.upstream, 200, "what the store said of the segment with the lost answer")
            taken = [line for line in at.log() if "was already there with our content" in line]
            check(len(taken) >= 3, "segments taken over: %s" % taken)  # more, if the store once was slow
            at.finish(con, snapshots=1)


@test(*NEEDS, timeout=120)
def a_lost_acknowledgement_of_a_snapshot(t):
    """The generation that was begun without our knowledge is not left behind."""
    with broken(t, servers.Moto) as make:
        for after in (faults.reset_after(), faults.replace_status(503)):
            with t.part("of the first, " + after.name):
                at = make("first-" + after.name.replace(" ", "-"))
                rule = at.proxy.add(after, method="PUT", path="/snapshots/", count=1)
                con = at.open()
                wait_for(lambda: rule.fired, "a snapshot", PATIENCE)
                at.write(con, 5)
                at.caught_up(con)
                wait_for(lambda: len({key.split("/generations/")[1].split("/")[0] for key in at.objects()}) == 1,
                         "the generation that nobody goes on with is gone", PATIENCE)
                at.finish(con, snapshots=1)
        with t.part("of a later one"):
            at = make("later")
            con = at.ready()
            rule = at.proxy.add(faults.reset_after(), method="PUT", path="/snapshots/", count=1)
            at.write(con, 5)
            con.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            at.write(con, 5)
            try:
                shim.snapshot(con, "60s")
            except shim.sqlite3.Error as error:
                t.note(error)
            check_equal(rule.fired, 1, "snapshots with a lost answer")
            shim.snapshot(con, "60s")
            at.caught_up(con)
            at.finish(con, snapshots=2)


@test(*NEEDS, timeout=90)
def a_segment_that_arrives_late(t):
    """A request that was given up reaches the store after the one that replaced it: it must not take anything back."""
    with place(t, url_options={"conditional": "off"}) as at:
        con = at.ready()
        rule = at.proxy.add(faults.delay(3000), method="PUT", path="/wal/", count=1)
        at.write(con, 5)
        wait_for(lambda: rule.fired, "a segment", PATIENCE)
        at.write(con, 20)
        at.caught_up(con)
        late = [r for r in at.proxy.seen("PUT", "/wal/") if r.faults][0]
        wait_for(lambda: late.ended, "the late one to arrive", PATIENCE)
        check_equal(late.upstream, 200, "what the store said to the late one")
        at.write(con, 3)
        at.finish(con, snapshots=1)


@test(*NEEDS, timeout=90)
def a_black_hole(t):
    """No answer, ever: ended by io_timeout; commits go on; the last close ends with shutdown_timeout."""
    with broken(t) as make:
        with t.part("while it runs"):
            at = make("runs")
            con = at.ready()
            with at.proxy.rule(faults.black_hole()):
                at.write_timed(con)
                at.wait_error(con, "{url}: {segment}: HEAD {host}: no answer (nothing moved for 1s)", STUCK)
            at.caught_up(con)
            at.finish(con, snapshots=1)
        with t.part("at the last close"):
            at = make("close", io_timeout="60s", shutdown_timeout="2s")
            con = at.ready()
            with at.proxy.rule(faults.black_hole()):
                at.write(con, 20)
                started = time.monotonic()
                con.close()
                check(time.monotonic() - started < 30, "close took %.1f s" % (time.monotonic() - started))
            con = at.open(create=False)
            at.caught_up(con)
            at.finish(con, snapshots=1)
        with t.part("at the last close, in a large upload"):
            at = make("large", io_timeout="60s", shutdown_timeout="2s")
            con = at.open()
            con.execute("CREATE TABLE large(x)")
            rule = at.proxy.add(faults.black_hole(), method="PUT|POST|DELETE", query="uploadId=")
            con.execute("INSERT INTO large VALUES(randomblob(20000000))")
            wait_for(lambda: rule.fired, "a part", PATIENCE)
            started = time.monotonic()
            con.close()
            check(time.monotonic() - started < 30, "close took %.1f s" % (time.monotonic() - started))
            at.proxy.clear()
            con = at.open(create=False)
            at.caught_up(con)
            at.finish(con, generations=(len({key.split("generations/")[1][:16] for key in at.objects()}),))


if __name__ == "__main__":
    harness.main("product faults")
