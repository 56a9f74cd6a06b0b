#!/usr/bin/python3
"""
test_product_rights.py - embedded replication on an S3 store that says no: credentials, permissions, clocks, buckets, conditions.

The gate (s3gate.py) checks signatures, sessions and the clock as Amazon does. What must hold: commits never notice, the status
says what is wrong and what to do, it goes on by itself when that is put right, and no database is ever quietly begun anew.
"""
# timeout: 1200

import json
import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from faultkit import BUCKET, NEEDS, PATIENCE, broken, fails_saying, place  # noqa: E402
from ljtest import chain, fakecloud, faults, harness, pages, s3gate, servers, shim  # noqa: E402
from ljtest.harness import check, check_equal, test, wait_for  # noqa: E402

RIGHTS = ("the credentials need s3:ListBucket on the bucket and s3:GetObject, s3:PutObject, s3:DeleteObject, "
          "s3:AbortMultipartUpload on its objects; "
          "without s3:ListBucket a missing object gets this answer too")
UNKNOWN_KEY = ("the store does not know this access key: check AWS_ACCESS_KEY_ID or access-key-id, and that it belongs to this "
               "store")
WRONG_SECRET = "check the secret access key; if it is right, something between changes the requests"
NO_BUCKET = "create the bucket, or correct its name in the replica URL"
RENEW = "renew the credentials, or use a source that renews them (a role, SSO)"
DENIED = faults.s3_error("AccessDenied", message="Access Denied")
LISTS = {"method": "GET", "query": "list-type=2|prefix="}
DELETES = {"test": lambda request: request.method == "DELETE" or request.query.startswith("delete")}


@test(*NEEDS, timeout=90)
def credentials_that_expire(t):
    """From the instance's metadata, good for a while: renewed when the store says so, with one request more."""
    with fakecloud.Imds() as imds, place(t, between=s3gate.Gate, url_options={"conditional": "on"}) as at:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_EC2_METADATA_DISABLED"):
            os.environ.pop(name)
        os.environ.update(imds.env)
        at.proxy.credentials = imds.issued
        con = at.ready()
        for turn in range(2):
            issued = len(imds.issued)
            for known in list(imds.issued.values()):
                known.expires = time.time() - 1
            at.proxy.refusals.clear()
            at.write_timed(con, 20)
            shim.sync(con, "%ds" % PATIENCE)
            check_equal(at.proxy.refusals, ["ExpiredToken"], "refusals after the credentials expired")
            check_equal(len(imds.issued), issued + 1, "credentials handed out")
            check_equal(shim.status(con)["last_error"], "", "last_error")
        with t.part("and cannot be renewed"):
            imds.role = None
            for known in list(imds.issued.values()):
                known.expires = time.time() - 1
            at.write_timed(con, 20)
            said = wait_for(lambda: shim.status(con)["last_error"], "an error", PATIENCE)
            check_equal(shim.status(con)["state"], "retrying", "state")
            t.note(said)
            imds.role = "litejoin-role"
            at.caught_up(con)
        at.finish(con, snapshots=1)
        imds.check()


@test(*NEEDS, timeout=90)
def credentials_that_are_revoked(t):
    cases = (
        ("key deleted", "InvalidAccessKeyId", "HTTP 403: InvalidAccessKeyId: The AWS Access Key Id you provided does not exist in "
         "our records.", UNKNOWN_KEY, lambda gate: gate.credentials.clear()),
        ("secret changed", "SignatureDoesNotMatch", "HTTP 403: SignatureDoesNotMatch: The request signature we calculated does not "
         "match the signature you provided.", WRONG_SECRET,
         lambda gate: gate.credentials.update({key: s3gate.Credentials("another") for key in gate.credentials})),
        ("session over", "ExpiredToken", "HTTP 400: ExpiredToken: The provided token has expired.", RENEW,
         lambda gate: gate.credentials.update({key: s3gate.Credentials(known.secret_key, expires=1)
                                               for key, known in gate.credentials.items()})),
    )
    with broken(t, between=s3gate.Gate, url_options={"conditional": "on"}) as make:
        for name, code, text, hint, revoke in cases:
            with t.part(name):
                at = make(name.replace(" ", "-"))
                con = at.ready()
                good = dict(at.proxy.credentials)
                revoke(at.proxy)
                at.write_timed(con)
                at.wait_error(con, "{url}: {segment}: PUT {host}: " + text, hint)
                check(code in at.proxy.refusals, "the gate did not refuse for " + code)
                fails_saying((hint, "does not have every commit yet"), shim.sync, con, "300ms")
                at.proxy.credentials = good
                at.caught_up(con)
                at.finish(con, snapshots=1)
        with t.part("access denied"):
            at = make("denied", shutdown_timeout="60s")
            con = at.ready()
            with at.proxy.rule(DENIED):
                at.write_timed(con)
                at.wait_error(con, "{url}: {segment}: PUT {host}: HTTP 403: AccessDenied: Access Denied", RIGHTS)
                started = time.monotonic()
                con.close()
                check(time.monotonic() - started < 30, "close waited for rights that are not there")
            con = at.open(create=False)
            at.caught_up(con)
            at.finish(con, snapshots=1)
        with t.part("a long answer does not take the hint away"):
            at = make("long")
            con = at.ready()
            long = "User: arn:aws:sts::123456789012:assumed-role/a-role-with-a-long-name/" + "i-0123456789abcdef0 " * 30
            with at.proxy.rule(faults.s3_error("AccessDenied", message=long)):
                at.write(con)
                wait_for(lambda: shim.status(con)["last_error"].endswith(" (%s)" % RIGHTS),
                         lambda: "all of the hint: " + shim.status(con)["last_error"], PATIENCE)
                fails_saying((RIGHTS,), shim.sync, con, "300ms")
            at.caught_up(con)
            at.finish(con, snapshots=1)


@test(*NEEDS, timeout=60)
def clocks_that_differ(t):
    """An hour and a half either way, from the beginning and all of a sudden: a warning, no error, nothing lost."""
    with broken(t, between=s3gate.Gate) as make:
        for skew in (5400, -5400):
            with t.part("%+d s" % skew):
                at = make("skew%d" % skew)
                at.proxy.skew = skew
                con = at.ready()
                at.proxy.skew = 0
                at.write(con, 5)
                shim.sync(con, "%ds" % PATIENCE)
                at.proxy.skew = skew
                at.write(con, 5)
                shim.sync(con, "%ds" % PATIENCE)
                check(at.proxy.refusals, "the gate saw nothing wrong")
                check_equal(set(at.proxy.refusals), {"RequestTimeTooSkewed"}, "refusals")
                check_equal(shim.status(con)["last_error"], "", "last_error")
                check(any("the clock of lj-bucket is " in line for line in at.log(everything=True)), "no warning in the log")
                at.proxy.skew = 0
                at.proxy.refusals.clear()
                at.finish(con, snapshots=1)


@test(*NEEDS, timeout=90)
def a_bucket_that_is_not_there(t):
    """Made later: it goes on. And nothing local: the open fails, and never creates an empty database."""
    text = "HTTP 404: NoSuchBucket: The specified bucket does not exist"
    with place(t, bucket=False, restore_on_boot="false") as at:
        con = at.open()
        at.write_timed(con)
        last = at.wait_error(con, "snapshot: {url}: {snapshot}: PUT {host}: " + text, NO_BUCKET)
        wait_for(lambda: shim.status(con)["generation"] == "", "generation without a bucket", PATIENCE)  # not while it is tried
        fails_saying((NO_BUCKET,), shim.sync, con, "300ms")
        con.close()
        con = at.open(create=False)
        at.write(con, 5)
        at.store.make_bucket(BUCKET)
        at.caught_up(con)
        at.write(con, 5)
        n = at.finish(con, snapshots=1)
        with t.part("and nothing local"):
            at.forget()
            other = at.base.replace("s3://" + BUCKET, "s3://lj-no-such-bucket")
            t.note(fails_saying(("NoSuchBucket", NO_BUCKET), shim.connect, at.path, other,
                                **{**at.options, "restore_on_boot": "true"}))
            check_equal([name for name in os.listdir(at.data) if not name.startswith(".")], [], "files after the failed open")
            con = at.open(restore_on_boot="true")
            check_equal(chain.verify(con, "restored"), n, "last link")
            con.close()


@test(*NEEDS, timeout=90)
def rights_to_write_but_not_to_list(t):
    """A new database is replicated all the same; what needs the listing waits for the right."""
    with place(t, between=s3gate.Gate) as at:
        with t.part("nothing local"):
            with at.proxy.rule(DENIED, **LISTS):
                fails_saying(("restoring before open: s3://%s/state/shard_0: generations/: GET " % BUCKET, "HTTP 403: AccessDenied",
                              RIGHTS), at.open)
                check(not os.path.exists(at.path), "an empty database was made")
        with t.part("a new database, restore_on_boot=false"):
            with at.proxy.rule(DENIED, **LISTS):
                con = at.open(restore_on_boot="false")
                at.write_timed(con, 20)
                at.caught_up(con)
                con.close()
                con = at.open(create=False)
                at.write_timed(con, 20)
                at.wait_error(con, "{url}: generations/{generation}/: GET {host}: HTTP 403: AccessDenied: Access Denied", RIGHTS)
            at.caught_up(con)
            at.finish(con, snapshots=1)


@test(*NEEDS, timeout=90)
def rights_to_write_but_not_to_delete(t):
    """Retention shows its error; segments and snapshots go on, and no more of them than without the error."""
    with place(t, between=s3gate.Gate, snapshot_interval="0s", retention="1s") as at:
        con = at.ready()
        with at.proxy.rule(DENIED, **DELETES) as rule:
            for turn in range(2):
                at.write(con, 5)
                shim.snapshot(con, "%ds" % PATIENCE)
                time.sleep(1.1)
            at.write(con, 5)
            shim.snapshot(con, "%ds" % PATIENCE)
            last = at.wait_error(con, "retention: {url}: {snapshot}: POST {host}: HTTP 403: AccessDenied: Access Denied", RIGHTS)
            fired = rule.fired
            for turn in range(10):
                at.write_timed(con, 10)
                time.sleep(0.1)
            wait_for(lambda: rule.fired > fired, "another attempt of retention", PATIENCE)
            check_equal(shim.status(con)["snapshots"], last["snapshots"], "snapshots while retention fails")
            position = shim.sync(con, "%ds" % PATIENCE)
        before = len(at.objects("snapshots"))
        check(before >= 4, "snapshots that could not be deleted: %d" % before)
        at.write(con, 5)
        shim.snapshot(con, "%ds" % PATIENCE)
        wait_for(lambda: len(at.objects("snapshots")) < before, "deletions once they are allowed", PATIENCE, 0.1)
        wait_for(lambda: not shim.status(con)["last_error"], lambda: shim.status(con)["last_error"], PATIENCE)
        at.write(con, 5)
        check_equal(shim.sync(con, "%ds" % PATIENCE).generation, position.generation, "generation")
        at.finish(con)


@test(*NEEDS, timeout=90)
def stores_without_conditional_writes(t):
    """Refused, ignored, or said to be so: one generation, and a lost acknowledgement is found all the same."""
    refused = faults.s3_error("NotImplemented", 501, "A header you provided implies functionality that is not implemented")
    with broken(t) as make:
        for name, options, action in (("refused", {}, refused), ("ignored", {}, None), ("off", {"conditional": "off"}, None)):
            with t.part(name):
                at = make(name, url_options=options)
                at.proxy.clear()
                if action:
                    at.proxy.add(action, test=lambda request: "If-None-Match" in request.headers)
                con = at.ready()
                rule = at.proxy.add(faults.reset_after(), method="PUT", path="/wal/", count=1)
                at.write(con, 5)
                wait_for(lambda: rule.fired, "a segment", PATIENCE)
                at.write(con, 5)
                at.caught_up(con)
                check(any("was already there with our content" in line for line in at.log()), "the segment was not taken over")
                at.proxy.settle()
                puts = [r.key for r in at.proxy.seen("PUT", "/%s/.*/wal/" % name, test=lambda r: not r.faults)]
                check_equal(len(puts), len(set(puts)), "segments that were put twice: %s" % puts)
                at.finish(con, snapshots=1)
        with t.part("refused although it was said to be kept"):
            at = make("fixed", url_options={"conditional": "on"})
            at.proxy.clear()
            with at.proxy.rule(refused, test=lambda request: "If-None-Match" in request.headers):
                con = at.open()
                at.write_timed(con, 20)
                at.wait_error(con, "snapshot: {url}: {snapshot}: PUT {host}: HTTP 501: NotImplemented: A header you provided implies "
                              "functionality that is not implemented",
                              "the store does not know If-None-Match: set conditional=off, or auto")
            at.caught_up(con)
            at.finish(con, snapshots=1)


if __name__ == "__main__":
    harness.main("product rights")
