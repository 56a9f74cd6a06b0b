#!/usr/bin/python3
"""
test_product_stores.py - embedded replication to Azurite, fake-gcs-server and sshd with a fault in between.

The same as test_product_faults.py asks of S3, in short: refused, reset, lost, stuck, gone at open, damaged, and what each store says
when its container or bucket is not there.
"""
# timeout: 1200

import os
import re
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from faultkit import BUCKET, NEEDS, PATIENCE, broken, fails_saying, must_fail, place  # noqa: E402
from ljtest import chain, faults, harness, servers, shim  # noqa: E402
from ljtest.harness import check, check_equal, test, wait_for  # noqa: E402

PORT = "check that the server runs and that nothing between blocks the port"
STUCK = "the server or the network between is stuck; io_timeout sets the limit"
ASKED = "the server asks for fewer requests; what waits is sent later"
LASTS = "nothing to do unless it lasts; then ask who runs the server"
UPLOADS = {servers.Azurite: {"method": "PUT", "path": "/wal/"}, servers.FakeGcs: {"method": "POST", "path": "/upload/"}}
READS = {servers.Azurite: {"method": "GET", "path": "/(wal|snapshots)/"}, servers.FakeGcs: {"method": "GET", "query": "alt=media"}}
LISTS = {servers.Azurite: {"method": "GET", "query": "comp=list"}, servers.FakeGcs: {"method": "GET", "query": "prefix="}}


def between(store):
    return (faults.Tunnel if isinstance(store, servers.Sshd) else faults.Proxy)(store.endpoint)


def world(t, kind, **options):
    return broken(t, kind, between=between, **options)


def segments_once(at):
    """No segment was stored twice."""
    at.proxy.settle()
    good = [r.target for r in at.proxy.seen() if r.upstream in (200, 201) and not r.faults and "wal" in r.target
            and r.method in ("PUT", "POST")]
    check_equal(len(good), len(set(good)), "segments that were stored twice: %s" % good)


def web_faults(t, kind, errors, unavailable):
    """What Azure and Google have in common; `errors` are (name, action, text, hint) of uploads."""
    with world(t, kind) as make:
        for name, action, text, hint in errors:
            with t.part(name):
                at = make(name.replace(" ", "-"))
                con = at.ready()
                with at.proxy.rule(action):
                    at.write_timed(con)
                    at.wait_error(con, "{url}: {segment}: " + text, hint)
                at.caught_up(con)
                at.finish(con, snapshots=1)
        with t.part("Retry-After"):
            at = make("later")
            con = at.ready()
            at.proxy.forget()
            rule = at.proxy.add(unavailable, count=1)
            at.write(con, 3)
            wait_for(lambda: rule.fired, "a request", PATIENCE)
            shim.sync(con, "%ds" % PATIENCE)
            at.proxy.settle()
            first, second = at.proxy.seen()[:2]
            # from when it came: the record of its end may be late
            check(second.started - first.started > 0.95, "the next request came after %.2f s" % (second.started - first.started))
            at.finish(con, snapshots=1)
        with t.part("lost acknowledgement"):
            at = make("lost")
            con = at.ready()
            for action in (faults.reset_after(), faults.replace_status(500)):
                rule = at.proxy.add(action, count=1, **UPLOADS[kind])
                at.write(con, 3)
                wait_for(lambda: rule.fired, "a segment", PATIENCE)
                at.write_timed(con, 20)
                at.caught_up(con)
            check_equal(len([line for line in at.log() if "was already there with our content" in line]), 2, "segments taken over")
            segments_once(at)
            at.finish(con, snapshots=1)
        with t.part("lost acknowledgement of the first snapshot"):
            at = make("first")
            rule = at.proxy.add(faults.reset_after(), count=1, method=UPLOADS[kind]["method"])
            con = at.open()
            wait_for(lambda: rule.fired, "a snapshot", PATIENCE)
            at.write(con, 3)
            at.caught_up(con)
            at.finish(con, snapshots=1)
        outage(t, make, "{url}: {segment}: {verb} {host}: {refused}", PORT)
        with t.part("a listing that is damaged"):
            at = make("listing")
            at.ready().close()
            for action in (faults.truncate(120, lie=True), faults.status(200, {}, "<html>no</html>"), faults.reset_body(60)):
                with at.proxy.rule(action, **LISTS[kind]):
                    con = at.open(create=False)
                    at.write(con, 2)
                    t.note(wait_for(lambda: shim.status(con)["last_error"], "an error", PATIENCE))
                at.caught_up(con)
                con.close()
            at.finish(snapshots=1)
        with t.part("a restore that is damaged"):
            at = make("restore")
            con = at.ready()
            n = at.write(con, 10, payload_bytes=(3000, 3000))
            at.finish(con)
            for action, fails in ((faults.truncate(300), False), (faults.truncate(300, lie=True), False), (faults.stall(300), False),
                                  (faults.corrupt(20, 5), True), (faults.status(500), False)):
                at.forget()
                rule = at.proxy.add(action, count=1, **READS[kind])
                if fails:
                    said = must_fail(at.open, create=False)
                    t.note(said)
                    check_equal([f for f in os.listdir(at.data) if not f.startswith(".")], [], "files of the failed open")
                con = at.open(create=False)
                check_equal(chain.verify(con, "restored"), n, "last link after " + action.name)
                check(rule.fired, "nothing was broken")
                at.proxy.remove(rule)
                con.close()


def outage(t, make, text, hint):
    """Down under load, down at open with and without the local file."""
    with t.part("down"):
        at = make("down", max_wal_size="256KiB")
        con = at.ready()
        at.proxy.down()
        for _ in range(3):
            at.write_timed(con, 30)
            con.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        at.wait_error(con, text, hint)
        at.proxy.up()
        at.caught_up(con)
        n = at.finish(con, snapshots=1)
        at.proxy.down()
        con = at.open(create=False)
        n = at.write(con, 3)
        wait_for(lambda: shim.status(con)["last_error"], "an error", PATIENCE)
        at.proxy.up()
        at.caught_up(con)
        check_equal(at.finish(con, snapshots=1), n, "last link")
        at.proxy.down()
        at.forget()
        said = must_fail(at.open)
        t.note(said)
        check("restoring before open" in said and hint in said, "the open says: " + said)
        check_equal([f for f in os.listdir(at.data) if not f.startswith(".")], [], "files of the failed open")
        at.proxy.up()
        con = at.open(create=False)
        check_equal(chain.verify(con, "restored"), n, "last link")
        con.close()
    with t.part("stuck"):
        at = make("stuck", shutdown_timeout="2s")
        con = at.ready()
        at.proxy.on_connect = "hang"
        at.proxy.drop()
        at.write_timed(con)
        last = wait_for(lambda: shim.status(con)["last_error"], "an error", PATIENCE)
        t.note(last)
        at.proxy.drop()
        started = time.monotonic()
        con.close()
        check(time.monotonic() - started < 9, "close took %.1f s" % (time.monotonic() - started))
        at.proxy.on_connect = None
        at.proxy.drop()
        con = at.open(create=False)
        at.caught_up(con)
        at.finish(con, snapshots=1)


def nothing_there(t, kind, container, words):
    """The bucket or container is not there, and made later."""
    with place(t, kind, between=between, bucket=False, restore_on_boot="false") as at:
        con = at.open()
        at.write_timed(con, 20)
        last = wait_for(lambda: (lambda s: all(word in s["last_error"] for word in words) and s)(shim.status(con)),
                        lambda: "%s in %s" % (words, shim.status(con)["last_error"]), PATIENCE)
        t.note(last["last_error"])
        check_equal(last["state"], "retrying", "state")
        with t.part("%s and nothing local" % container):
            folder = os.path.join(at.data, "other")
            os.mkdir(folder)
            t.note(fails_saying(words, shim.connect, os.path.join(folder, "shard_1.db"), at.base,
                                **{**at.options, "restore_on_boot": "true"}))
            check_equal([f for f in os.listdir(folder) if not f.startswith(".")], [], "files of the failed open")
        at.store.make_bucket(BUCKET)
        at.caught_up(con)
        at.finish(con, snapshots=1)


@test(*NEEDS, timeout=200)
def azure(t):
    web_faults(t, servers.Azurite, (
        ("ServerBusy", faults.azure_error("ServerBusy"), "PUT: HTTP 503: ServerBusy: no luck today",
         "the store limits the rate of requests; a longer sync interval makes fewer"),
        ("InternalError", faults.azure_error("InternalError"), "PUT: HTTP 500: InternalError: no luck today", LASTS),
        ("429", faults.status(429), "PUT: HTTP 429", ASKED),
        ("AuthenticationFailed", faults.azure_error("AuthenticationFailed"), "PUT: HTTP 403: AuthenticationFailed: no luck today",
         "check the account's name and its key (AZURE_STORAGE_KEY), and this machine's clock"),
        ("reset", faults.reset_before(), "PUT {host}: {reset}", ""),
        ("black hole", faults.black_hole(), "PUT {host}: no answer (nothing moved for 1s)", STUCK),
    ), faults.azure_error("ServerBusy", retry_after=1))


@test(*NEEDS, timeout=60)
def azure_without_the_container(t):
    nothing_there(t, servers.Azurite, "no container", ("ContainerNotFound",))


@test(*NEEDS, timeout=200)
def google(t):
    web_faults(t, servers.FakeGcs, (
        ("503", faults.gcs_error(503), "uploading an object: HTTP 503: no luck today (backendError)", ASKED),
        ("500", faults.gcs_error(500), "uploading an object: HTTP 500: no luck today (backendError)", LASTS),
        ("429", faults.gcs_error(429, "rateLimitExceeded"), "uploading an object: HTTP 429: no luck today (rateLimitExceeded)", ASKED),
        ("reset", faults.reset_before(), "POST {host}: {reset}", ""),
        ("black hole", faults.black_hole(), "POST {host}: no answer (nothing moved for 1s)", STUCK),
    ), faults.gcs_error(503, retry_after=1))


@test(*NEEDS, timeout=60)
def google_without_the_bucket(t):
    nothing_there(t, servers.FakeGcs, "no bucket", ("HTTP 404",))


@test(*NEEDS, timeout=120)
def sftp(t):
    with world(t, servers.Sshd) as make:
        cases = (
            ("reset", faults.reset_before()),
            ("cut while we write", faults.reset_upload(4000)),
            ("cut while we read", faults.reset_body(3000)),
            ("closed early", faults.truncate(1000)),
            ("stuck in the middle", faults.stall(2500)),
        )
        for name, action in cases:
            with t.part(name):
                at = make(name.replace(" ", "-"))
                con = at.ready()
                with at.proxy.rule(action):
                    at.proxy.drop()
                    at.write_timed(con)
                    t.note(wait_for(lambda: shim.status(con)["last_error"], "an error", PATIENCE))
                at.proxy.drop()
                at.caught_up(con)
                at.finish(con, snapshots=1)
        outage(t, make, "{url}: {segment}: cannot connect to 127.0.0.1, port {port}: Connection refused",
               "check host and port in the sftp:// URL, that the SSH server runs, and firewalls")


if __name__ == "__main__":
    harness.main("product stores")
