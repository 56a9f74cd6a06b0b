#!/usr/bin/python3
"""
test_s3.py - the S3 driver on moto and s3rver behind a gate that checks signatures as S3 does: the contract, conditional writes and
stores without them, large objects, and what it makes of refusals, redirections, wrong clocks, and proxies that break answers.
"""
# timeout: 1200

import base64
import hashlib
import os
import re
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from ljtest import faults, harness, httpd, s3gate, servers, tls  # noqa: E402
from ljtest.harness import check, check_equal, test, wait_for  # noqa: E402
from s3kit import Shell, conformance, read, write  # noqa: E402

BUCKET = "lj-bucket"
MIB = 1 << 20
INVALID = "invalid argument or configuration"
DENIED = "permission denied"
UNAVAILABLE = "service unavailable"
NOT_FOUND = "not found"
EXISTS = "already exists"


class Virtual(servers.Moto):
    """moto that takes the bucket from the host name."""

    def process_env(self):
        return {}


class OneAtATime(s3gate.Gate):
    """
    For stores that do not cope with requests at the same moment: moto looks and writes in two steps, so that two writers may both
    win, and s3rver lists objects it has half written or deleted; both then answer some requests with a 500.
    """

    def __init__(self, store, **options):
        super().__init__(store, **options)
        self._turn = threading.Lock()

    def respond(self, request, body, plan):
        with self._turn:
            return super().respond(request, body, plan)


class Opened:
    """A store with a bucket and a gate in front."""

    def __init__(self, t, kind=servers.Moto, **options):
        self.t = t
        self.store = kind()
        self.store.__enter__()
        t.cleanup(self.store.__exit__)
        self.store.make_bucket(BUCKET)
        self.gate = OneAtATime(self.store, **options)
        self.gate.__enter__()
        t.cleanup(self.gate.__exit__, None, None, None)
        self.env = {"AWS_ACCESS_KEY_ID": self.store.access_key, "AWS_SECRET_ACCESS_KEY": self.store.secret_key}

    def url(self, prefix="p", bucket=BUCKET):
        return "s3://%s/%s?endpoint=%s" % (bucket, prefix, self.gate.endpoint)

    def shell(self, prefix="p", bucket=BUCKET, env=None, **settings):
        shell = Shell(self.t, self.url(prefix, bucket), env=dict(self.env, **(env or {})), **settings)
        check_equal(shell.opened["code"], "ok", "opening")
        return shell

    def put(self, key, body=b"content"):
        self.store.put(BUCKET, key, body)

    def seen(self, *arguments, **named):
        return self.gate.seen(*arguments, **named)

    def forget(self):
        self.gate.forget()
        self.gate.refusals.clear()


def probed(shell, t):
    """The first put without overwriting, by which the driver finds out what the store does with conditions."""
    shell.good("absent", "first", write(t, "first", 100))


# ---------------------------------------------------------------------------------------------------------------------
# the contract


@test(timeout=400)
def conformance_on_moto(t):
    at = Opened(t)
    conformance(t, at.url("some/prefix"), at.env, list_page_size=700)
    check_equal(at.gate.refusals, [], "refusals")
    check_equal(at.store.uploads(BUCKET), [], "unfinished uploads")


@test(timeout=400)
def conformance_on_s3rver(t):
    at = Opened(t, servers.S3rver)
    said = conformance(t, at.url(""), at.env, keys=600, size=20 * MIB, list_page_size=50)
    check_equal(said.count("ignores conditional writes"), 1, "warnings")
    check_equal(at.gate.refusals, [], "refusals")


@test(timeout=200)
def conformance_on_a_store_told_to_have_no_conditions(t):
    at = Opened(t, servers.S3rver)
    said = conformance(t, at.url("x/y"), at.env, keys=100, size=9 * MIB, conditional="off")
    check("conditional writes" not in said, "a warning about what was said ahead")
    check_equal(at.seen(test=lambda r: "If-None-Match" in r.headers), [], "requests with the condition")


@test(timeout=200)
def conformance_in_virtual_host_style_over_a_proxy(t):
    """As with Amazon: the bucket in the host name, TLS, the proxy from the environment, and the region found by the way."""
    authority = tls.Authority(t.path("ca"))
    hosts = ["%s.s3.%s.amazonaws.com" % (BUCKET, region) for region in ("us-east-1", "eu-west-1")]
    at = Opened(t, Virtual, region="eu-west-1", tls=authority, names=hosts)
    with faults.ForwardProxy({host: "127.0.0.1:%d" % at.gate.port for host in hosts}) as proxy:
        env = dict(at.env, https_proxy=proxy.endpoint, AWS_CA_BUNDLE=authority.ca_file, SSL_CERT_FILE="/nonexistent")
        conformance(t, "s3://%s/p" % BUCKET, env, keys=100, size=20 * MIB)
    check_equal(at.gate.refusals, ["AuthorizationHeaderMalformed"], "refusals")
    check_equal({r.headers["Host"] for r in at.gate.requests[1:]}, {hosts[1]}, "hosts once the region is known")


@test()
def the_host_form_of_litestream(t):
    at = Opened(t)
    shell = Shell(t, "s3://%s.localhost:%d/a/b" % (BUCKET, at.gate.port), env=at.env)
    shell.good("put", "k", write(t, "file", 10))
    check_equal(at.store.objects(BUCKET), [("a/b/k", 10)], "objects")


@test()
def what_lies_in_the_store(t):
    at = Opened(t)
    shell = at.shell("a b/c+d")
    small = write(t, "small", 3 * MIB)
    shell.good("put", "generations/x", small)
    check_equal(at.store.objects(BUCKET), [("a b/c+d/generations/x", 3 * MIB)], "objects")
    check_equal(at.store.read(BUCKET, "a b/c+d/generations/x"), read(small), "content")
    put = at.seen("PUT")
    check_equal(len(put), 1, "puts")
    check_equal(put[0].headers["Content-MD5"], base64.b64encode(hashlib.md5(read(small)).digest()).decode(), "Content-MD5")
    check_equal(put[0].headers["X-Amz-Content-Sha256"], hashlib.sha256(read(small)).hexdigest(), "the payload's hash")
    check_equal(put[0].headers["Content-Length"], str(3 * MIB), "length")
    for name in ("Transfer-Encoding", "Expect", "X-Amz-Server-Side-Encryption", "X-Amz-Storage-Class", "If-None-Match"):
        check(name not in put[0].headers, "%s was sent" % name)
    check("accept-encoding" not in put[0].headers["Authorization"], "Accept-Encoding is signed")
    head = shell.good("head", "generations/x")
    check_equal(head["size"], 3 * MIB, "size")
    check(abs(head["created_ns"] / 1e9 - time.time()) < 60, "created at %d" % head["created_ns"])
    check_equal(shell.good("list", "")["objects"], [["generations/x", 3 * MIB]], "listing")


@test()
def parts_carry_their_md5_when_the_store_asks(t):
    """The payload's hash is enough, but not to a bucket with object lock: it refuses the first parts, and gets all with MD5."""
    at = Opened(t)
    large = write(t, "large", 20 * MIB)
    at.shell().good("put", "k", large)
    parts = [r for r in at.seen("PUT") if "partNumber" in r.args]
    check_equal([("Content-MD5" in r.headers, len(r.headers["X-Amz-Content-Sha256"])) for r in parts], [(False, 64)] * 3, "parts")
    at.forget()
    at.gate.object_lock = True
    shell = at.shell()
    shell.good("put", "k", large)
    parts = [r for r in at.seen("PUT") if "partNumber" in r.args]
    check_equal(sorted(r.args["partNumber"] for r in parts if r.status == 200 and "Content-MD5" in r.headers), ["1", "2", "3"],
                "parts with MD5")
    check(1 <= at.gate.refusals.count("InvalidRequest") <= 3, "refusals: %s" % at.gate.refusals)
    at.forget()
    shell.good("put", "k", large)
    check_equal([r.status for r in at.seen("PUT")], [200] * 3, "the next upload knows")
    check_equal(at.store.read(BUCKET, "p/k"), read(large), "content")


@test()
def an_overwritten_object_is_the_new_one(t):
    at = Opened(t)
    shell = at.shell()
    for size in (100, 9 * MIB, 5):
        shell.good("put", "k", write(t, "file", size))
        shell.good("get", "k", t.path("out"))
        check_equal(read(t.path("out")), read(t.path("file")), "content of %d bytes" % size)


# ---------------------------------------------------------------------------------------------------------------------
# puts that must not overwrite


@test()
def the_store_decides_once_it_is_known_to_do_so(t):
    at = Opened(t)
    shell = at.shell()
    probed(shell, t)
    check_equal([(r.method, r.status) for r in at.seen()], [("HEAD", 404), ("PUT", 200), ("PUT", 412)], "the first put")
    at.forget()
    shell.good("absent", "k", write(t, "a", 1000))
    shell.fails(EXISTS, "absent", "k", write(t, "b", 1000, seed=1))
    # what a status says to be there is looked for
    check_equal([(r.method, r.status) for r in at.seen()], [("PUT", 200), ("PUT", 412), ("HEAD", 200)], "the ones after it")
    check("if-none-match" in at.seen("PUT")[0].headers["Authorization"], "the condition is not signed")
    check_equal(at.store.read(BUCKET, "p/k"), read(t.path("a")), "content")


@test()
def a_store_that_ignores_the_condition(t):
    at = Opened(t, servers.S3rver)
    shell = at.shell()
    at.put("p/there", b"older")
    shell.fails(EXISTS, "absent", "there", write(t, "a", 1000))  # even the very first is not overwritten
    probed(shell, t)
    check("ignores conditional writes" in shell.logged(), "no warning: %s" % shell.logged())
    at.forget()
    shell.fails(EXISTS, "absent", "there", t.path("a"))
    shell.good("absent", "new", t.path("a"))
    check_equal([r.method for r in at.seen()], ["HEAD", "HEAD", "PUT"], "requests")
    check_equal(at.store.read(BUCKET, "p/there"), b"older", "content")


@test()
def a_store_that_refuses_the_condition(t):
    at = Opened(t, servers.S3rver)
    refusals = (
        ("501", faults.s3_error("NotImplemented", 501, "A header you provided implies functionality that is not implemented")),
        ("400", faults.s3_error("InvalidArgument", 400, "If-None-Match is not supported here")))
    for number, (name, refusal) in enumerate(refusals):
        with t.part(name), at.gate.rule(refusal, test=lambda r: "If-None-Match" in r.headers):
            shell = at.shell("p%d" % number)
            at.forget()
            shell.good("absent", "k", write(t, "a", 1000))
            check("does not know conditional writes" in shell.logged(), "no warning: %s" % shell.logged())
            shell.fails(EXISTS, "absent", "k", t.path("a"))
            shell.good("absent", "large", write(t, "large", 9 * MIB))
            shell.fails(EXISTS, "absent", "large", t.path("large"))
            check_equal(len(at.seen(test=lambda r: "If-None-Match" in r.headers)), 1, "requests with the condition")
            check_equal(shell.logged().count("conditional writes"), 1, "warnings")
    with t.part("conditional=on"), at.gate.rule(refusals[0][1], test=lambda r: "If-None-Match" in r.headers):
        at.shell("q", conditional="on").fails("not supported", "absent", "k", t.path("a"), hint="conditional=off")
        check(not at.store.exists(BUCKET, "q/k"), "the object was written")


@test()
def a_large_object_is_not_sent_in_vain(t):
    at = Opened(t)
    shell = at.shell()
    large = write(t, "large", 20 * MIB)
    shell.good("absent", "k", large)
    check_equal(len(at.seen("POST", query="uploadId=", test=lambda r: r.headers.get("If-None-Match") == "*")), 1,
                "completions with the condition")
    at.forget()
    shell.fails(EXISTS, "absent", "k", large)
    check_equal([r.method for r in at.seen()], ["HEAD"], "requests")


@test()
def somebody_else_is_first_during_a_large_upload(t):
    at = Opened(t)
    shell = at.shell()

    def other_writer(request):
        at.put("p/k", b"theirs")
        return False

    at.gate.add(faults.delay(0), method="PUT", query="partNumber=2&", test=other_writer)
    shell.fails(EXISTS, "absent", "k", write(t, "large", 20 * MIB))
    check_equal(at.store.read(BUCKET, "p/k"), b"theirs", "content")
    check_equal(at.store.uploads(BUCKET), [], "unfinished uploads")


@test()
def a_conflict_passes(t):
    at = Opened(t)
    shell = at.shell()
    probed(shell, t)
    at.gate.add(faults.s3_error("ConditionalRequestConflict"), method="PUT", count=1)
    got = shell.fails(UNAVAILABLE, "absent", "k", write(t, "a", 10), says="ConditionalRequestConflict")
    check(got["retryable"], "not retryable: %s" % got)
    shell.good("absent", "k", t.path("a"))


# ---------------------------------------------------------------------------------------------------------------------
# large objects


@test()
def parts_of_a_large_object(t):
    at = Opened(t)
    shell = at.shell()
    large = write(t, "large", 20 * MIB + 12345)
    shell.good("put", "k", large)
    check_equal(at.store.read(BUCKET, "p/k"), read(large), "content")
    parts = at.seen("PUT", query="partNumber=")
    check_equal(sorted(r.body_length for r in parts), [4 * MIB + 12345, 8 * MIB, 8 * MIB], "sizes of the parts")
    check(all(len(r.headers["X-Amz-Content-Sha256"]) == 64 for r in parts), "a part without the hash of its content")
    check_equal(at.store.uploads(BUCKET), [], "unfinished uploads")
    shell.good("get", "k", t.path("out"))
    check_equal(read(t.path("out")), read(large), "content read back")


@test()
def a_part_that_fails_in_passing_is_sent_again(t):
    at = Opened(t)
    shell = at.shell()
    large = write(t, "large", 20 * MIB)
    at.gate.add(faults.s3_error("SlowDown"), method="PUT", query="partNumber=1&", nth=1)
    at.gate.add(faults.reset_upload(100000), method="PUT", query="partNumber=2&", nth=1)
    at.gate.add(faults.s3_error("RequestTimeout"), method="PUT", query="partNumber=3&", nth=1)
    at.gate.add(faults.corrupt_upload(500), method="PUT", query="partNumber=3&", nth=2)
    shell.good("put", "k", large)
    check_equal(at.store.read(BUCKET, "p/k"), read(large), "content")
    # bytes that flipped on their way were refused, and sent again
    check("XAmzContentSHA256Mismatch" in at.gate.refusals, "refusals: %s" % at.gate.refusals)


@test()
def an_upload_that_fails_is_taken_back(t):
    at = Opened(t)
    shell = at.shell()
    large = write(t, "large", 20 * MIB)
    for name, match in (("a part", {"method": "PUT", "query": "partNumber=2&"}),
                        ("the completion", {"method": "POST", "query": "uploadId="})):
        with t.part(name), at.gate.rule(faults.s3_error("AccessDenied"), **match):
            shell.fails(DENIED, "put", "k", large, says="AccessDenied")
            check_equal(at.store.uploads(BUCKET), [], "unfinished uploads")
            check(not at.store.exists(BUCKET, "p/k"), "there is an object")
    with t.part("what cannot be taken back is told"):
        with at.gate.rule(faults.s3_error("AccessDenied"), method="DELETE"), \
                at.gate.rule(faults.s3_error("AccessDenied"), method="PUT", query="partNumber=2&"):
            shell.fails(DENIED, "put", "k", large)
        check("unfinished upload could not be removed" in shell.logged(), "no warning: %s" % shell.logged())


@test()
def a_completion_whose_answer_is_an_error_or_lost(t):
    at = Opened(t)
    shell = at.shell()
    large = write(t, "large", 9 * MIB)
    broken = (("an error in a good answer", faults.s3_error("InternalError", 200)),
              ("503", faults.s3_error("SlowDown")),
              ("reset before", faults.reset_before()),
              ("answer lost", faults.reset_after()))
    for number, (name, fault) in enumerate(broken):
        with t.part(name):
            at.gate.add(fault, method="POST", query="uploadId=", count=1)
            shell.good("put", "k%d" % number, large)
            check_equal(at.store.read(BUCKET, "p/k%d" % number), read(large), "content")
            check_equal(at.store.uploads(BUCKET), [], "unfinished uploads")
            at.gate.clear()
    with t.part("answer lost, must not overwrite"):
        at.gate.add(faults.reset_after(), method="POST", query="uploadId=", count=1)
        # either the store says once more that it is complete, or that the key is there: ours, as the caller's comparison shows
        check(shell("absent", "k", large)["code"] in ("ok", EXISTS), "the answer was lost, and so is the upload")
        check_equal(at.store.read(BUCKET, "p/k"), read(large), "content")
        at.gate.clear()
    with t.part("always an error in a good answer"):
        at.gate.add(faults.s3_error("AccessDenied", 200), method="POST", query="uploadId=")
        shell.fails(DENIED, "put", "never", large, says="AccessDenied")
        check(not at.store.exists(BUCKET, "p/never"), "there is an object")


@test()
def a_refusal_that_is_not_the_stores(t):
    """Something between says 412 to whatever has a condition: that is no object."""
    at = Opened(t)
    shell = at.shell()
    at.gate.add(faults.status(412), method="PUT|POST", test=lambda request: "If-None-Match" in request.headers)
    for name, size in (("small", 1000), ("large", 9 * MIB)):
        with t.part(name):
            got = shell.fails(UNAVAILABLE, "absent", name, write(t, name, size), says="there already, but it is not")
            check(got["retryable"], "not retryable: %s" % got)
            at.put("p/" + name)
            shell.fails(EXISTS, "absent", name, t.path(name))


@test()
def an_upload_that_may_be_complete_is_not_taken_back(t):
    """There are stores where that takes the parts from the object that was made of them."""
    at = Opened(t)
    shell = at.shell()
    large = write(t, "large", 9 * MIB)
    for name, fault in (("no answer", faults.reset_before()), ("a server's error", faults.s3_error("InternalError")),
                        ("an error in a good answer", faults.s3_error("InternalError", 200)),
                        ("a gateway's", faults.status(504)), ("an answer that is none", faults.status(200))):
        with t.part(name), at.gate.rule(fault, method="POST", query="uploadId="):
            before = len(at.store.uploads(BUCKET))
            shell.fails(UNAVAILABLE, "absent", "k", large)
            check_equal(at.gate.seen("DELETE"), [], "taken back")
            check_equal(len(at.store.uploads(BUCKET)), before + 1, "unfinished uploads")
            check("whether an upload is complete is not known" in shell.logged(), "no warning: %s" % shell.logged())
    with t.part("done, and not heard"), at.gate.rule(faults.reset_after(), method="POST", query="uploadId=", count=1):
        check(shell("absent", "done", large)["code"] in ("ok", EXISTS), "the upload is lost")
        check_equal(at.gate.seen("DELETE"), [], "taken back")
    with t.part("done, not heard, and then refused"), \
            at.gate.rule(faults.reset_after(), method="POST", query="uploadId=", count=1), \
            at.gate.rule(faults.s3_error("AccessDenied"), method="POST", query="uploadId=", after=1):
        got = shell.fails(UNAVAILABLE, "absent", "refused", large)
        check_equal((got["http_status"], got["retryable"]), (0, True), "%s" % got)
        check("is not known" in got["message"] and "AccessDenied" in got["message"], "message: %s" % got)
        check_equal(at.gate.seen("DELETE"), [], "taken back")
    with t.part("the store refuses"), at.gate.rule(faults.s3_error("SlowDown"), method="POST", query="uploadId="):
        before = len(at.store.uploads(BUCKET))
        shell.fails(UNAVAILABLE, "absent", "later", large)
        check_equal(len(at.store.uploads(BUCKET)), before, "unfinished uploads")


# ---------------------------------------------------------------------------------------------------------------------
# reading


@test()
def an_interrupted_get_goes_on(t):
    at = Opened(t)
    shell = at.shell()
    source = write(t, "file", 3 * MIB)
    shell.good("put", "k", source)
    broken = (("closed", faults.truncate(MIB)), ("reset", faults.reset_body(MIB)),
              ("lying about its length", faults.truncate(MIB, lie=True)))
    for name, fault in broken:
        for offset in (0, 1000):
            with t.part("%s at %d" % (name, offset)):
                out = t.path("out")
                with at.gate.rule(fault, method="GET", count=1):
                    if name.startswith("lying") and not offset:
                        continue  # without a range nothing tells
                    got = shell.fails(UNAVAILABLE, "get", "k", out, offset, -1)
                check(got["retryable"], "not retryable: %s" % got)
                begun = os.path.getsize(out)
                check(begun <= MIB, "%d bytes came" % begun)
                rest = t.path("rest")
                shell.good("get", "k", rest, offset + begun, -1)
                check_equal(read(out) + read(rest), read(source)[offset:], "content")


@test()
def a_store_that_ignores_ranges(t):
    at = Opened(t)
    shell = at.shell()
    source = write(t, "file", 3 * MIB)
    shell.good("put", "k", source)
    at.gate.add(faults.request_headers({"Range": None}), method="GET")
    out = t.path("out")
    for offset, length in ((0, 10), (MIB, 1000), (3 * MIB - 1, 1), (3 * MIB, 5), (4 * MIB, -1), (2 * MIB, -1)):
        shell.good("get", "k", out, offset, length)
        end = None if length < 0 else offset + length
        check_equal(read(out), read(source)[offset:end], "%d bytes from %d" % (length, offset))


@test()
def answers_that_are_another_range(t):
    at = Opened(t)
    shell = at.shell()
    shell.good("put", "k", write(t, "file", 10000))
    for value in ("bytes 101-199/10000", "bytes 0-1", "bytes x-y/z", "pages 100-199/10000", "bytes 200-100/10000", None):
        with t.part(str(value)), at.gate.rule(faults.headers({"Content-Range": value}), method="GET"):
            got = shell.fails(UNAVAILABLE, "get", "k", t.path("out"), 100, 100)
            check(got["retryable"], "not retryable")
            check_equal(os.path.getsize(t.path("out")), 0, "bytes handed on")


@test()
def stalls_end(t):
    at = Opened(t)
    at.shell().good("put", "k", write(t, "file", 100000))
    shell = at.shell(timeout_ms=700)
    for name, fault, match in (("black hole", faults.black_hole(), {}), ("stall", faults.stall(1000), {"method": "GET"})):
        with t.part(name), at.gate.rule(fault, **match):
            started = time.monotonic()
            got = shell.fails("timed out", "get", "k", t.path("out"))
            check(got["retryable"] and time.monotonic() - started < 20, "%s after %g s" % (got, time.monotonic() - started))
    # on a busy machine 0.7 s of silence come by themselves
    wait_for(lambda: shell("get", "k", t.path("out"))["code"] == "ok", "it works again")


# ---------------------------------------------------------------------------------------------------------------------
# listing


def rewritten(at, change, query=None):
    """The store's own listing, asked for without list-type if `query` says so, with its text changed."""

    def respond(request):
        pairs = [(name, value) for name, value in request.args.items()]
        if query:
            pairs = query(pairs)
        status, headers, body = at.store.client().request("GET", BUCKET, query=pairs)
        return httpd.Response(status, {"Content-Type": "application/xml"}, change(body.decode()).encode())

    return faults.answer(respond)


def old_way(pairs):
    return [(name, value) for name, value in pairs if name not in ("list-type", "start-after", "continuation-token")]


def shuffled(text):
    """The entries of a page in another order, and what stands around them in its place."""
    entries = re.findall(r"<Contents>.*?</Contents>", text, re.DOTALL)
    return re.sub(r"<Contents>.*</Contents>", lambda _: "".join(entries[1::2] + entries[0::2][::-1]), text, flags=re.DOTALL)


@test()
def listings_of_all_kinds(t):
    at = Opened(t)
    names = sorted("k/%02d" % i for i in range(25)) + ["k/a b+c%&<>'\"", "k/\u00e9"]
    for name in names:
        at.put("p/" + name, b"x" * len(name))
    for foreign in ("pp/k/00", "q", "p", "p/", "p//x", "p/k/", "p/../x"):
        try:
            at.put(foreign)
        except Exception:  # moto has no keys of some of these forms
            t.note("cannot put %r" % foreign)
    ways = (("as it is", None, None), ("shuffled", rewritten(at, shuffled), None),
            ("by ListObjects since list-type is ignored", rewritten(at, lambda text: text, old_way), None),
            ("by ListObjects since V2 is refused", faults.s3_error("NotImplemented", 501), "list-type=2"),
            ("without sizes and times", rewritten(at, lambda text: re.sub(
                r"<Size>\d+</Size>|<LastModified>.*?</LastModified>", "", text)), None))
    for name, rule, query in ways:
        for page in (7, 1000):
            with t.part("%s, %d a page" % (name, page)):
                shell = at.shell(list_page_size=page)
                if rule:
                    at.gate.add(rule, method="GET", path="^/%s$" % BUCKET, query=query)
                got = [tuple(entry) for entry in shell.good("list", "k/")["objects"]]
                check_equal(sorted(got), sorted((n, len(n)) for n in names), "entries")
                after = [entry[0] for entry in shell.good("list", "k/", "k/07")["objects"]]
                check_equal(sorted(after), [n for n in sorted(names) if n > "k/07"], "entries behind k/07")
                check_equal(shell.good("list", "nothing/")["objects"], [], "entries of nothing")
                at.gate.clear()


@test()
def listings_that_are_none(t):
    at = Opened(t)
    at.put("p/k")
    shell = at.shell()
    page = "<ListBucketResult><IsTruncated>true</IsTruncated>%s</ListBucketResult>"
    answers = (("html", b"<html><body>sign in</body></html>"), ("empty", b""), ("cut", b"<ListBucketResult><Contents>"),
               ("no next page", (page % "").encode()),
               ("the same next page", (page % "<NextContinuationToken>x</NextContinuationToken>").encode()),
               ("the same next marker", (page % "<NextMarker>x</NextMarker>").encode()),
               ("bad size", b"<ListBucketResult><Contents><Key>p/k</Key><Size>x</Size></Contents></ListBucketResult>"))
    for name, body in answers:
        with t.part(name), at.gate.rule(faults.status(200, body=body), method="GET"):
            got = shell.fails(UNAVAILABLE, "list", "")
            check(got["retryable"], "not retryable: %s" % got)
    for cut in (0, 100):
        with t.part("cut off at %d" % cut), at.gate.rule(faults.truncate(cut), method="GET"):
            check(shell.fails(UNAVAILABLE, "list", "")["retryable"], "not retryable")
    shell.good("list", "")


# ---------------------------------------------------------------------------------------------------------------------
# deleting


@test()
def many_at_once_and_in_order(t):
    """Falling runs of keys: the lowest of each goes in a request behind the others."""
    at = Opened(t)
    shell = at.shell()
    keys = ["1_c", "1_b", "1_a", "2_b", "2_a", "3_a", "4&<b>", "4&<a>"]
    for key in keys:
        at.put("p/" + key)
    got = shell.good("delete", *keys)
    check_equal(got["each"], ["ok"] * len(keys), "results")
    check_equal(at.store.objects(BUCKET), [], "objects left")
    batches = [re.findall(r"<Key>p/(.*?)</Key>", r.body.decode()) if r.method == "POST" else [r.key.split("/p/")[1]]
               for r in at.seen("POST|DELETE")]
    check_equal(batches, [["1_c", "1_b"], ["1_a", "2_b"], ["2_a", "3_a", "4&amp;&lt;b&gt;"], ["4&<a>"]], "requests")
    check(all("Content-MD5" in r.headers for r in at.seen("POST")), "no Content-MD5")


@test()
def the_first_failure_is_the_last_request(t):
    at = Opened(t)
    shell = at.shell()
    keys = ["a", "b", "c2", "c1", "d2", "d1"]
    for key in keys:
        at.put("p/" + key)

    def refuse_b(request):
        body = "<DeleteResult><Deleted><Key>p/a</Key></Deleted><Error><Key>p/b</Key><Code>AccessDenied</Code>" \
               "<Message>Access Denied</Message></Error></DeleteResult>"
        return httpd.Response(200, {"Content-Type": "application/xml"}, body)

    with at.gate.rule(faults.answer(refuse_b), method="POST"):
        got = shell.fails(DENIED, "delete", *keys, says="p: b: DELETE: AccessDenied", hint="s3:DeleteObject")
    check_equal(sorted(got["each"]), sorted(["ok", DENIED, UNAVAILABLE] + ["cancelled"] * 3), "results")
    check_equal(len(at.seen("POST|DELETE")), 1, "requests")
    with t.part("a failed request"), at.gate.rule(faults.s3_error("SlowDown"), method="POST"):
        got = shell.fails(UNAVAILABLE, "delete", *keys, says="SlowDown")
        check_equal(sorted(got["each"]), sorted([UNAVAILABLE] * 3 + ["cancelled"] * 3), "results")
    with t.part("an answer that is none"), at.gate.rule(faults.status(200, body=b"<html/>"), method="POST"):
        shell.fails(UNAVAILABLE, "delete", *keys)


@test()
def stores_without_bulk_deletion(t):
    at = Opened(t)
    refusals = (("501", faults.s3_error("NotImplemented", 501)), ("405", faults.status(405)),
                ("400", faults.s3_error("MalformedXML", 400)))
    for number, (name, refusal) in enumerate(refusals):
        with t.part(name), at.gate.rule(refusal, method="POST", query="delete"):
            keys = ["%d/%s" % (number, key) for key in "abcdef"]
            for key in keys:
                at.put("p/" + key)
            shell = at.shell()
            at.forget()
            check_equal(shell.good("delete", *keys)["each"], ["ok"] * 6, "results")
            check_equal([r.key.rsplit("/", 1)[1] for r in at.seen("DELETE")], list("abcdef"), "order")
            check_equal(len(at.seen("POST")), 1, "tries")
            check_equal(at.store.objects(BUCKET), [], "objects left")
            shell.good("delete", *keys)
            check_equal(len(at.seen("POST")), 1, "tries later")
    with t.part("keys that are no ASCII go one by one"):
        shell = at.shell()
        at.forget()
        shell.good("delete", "\u00e9a", "\u00e9b", "x")
        check_equal([r.method for r in at.seen()], ["DELETE"] * 3, "requests")


# ---------------------------------------------------------------------------------------------------------------------
# refusals


def every_operation(t, shell):
    """(name, fields) of each operation, on an object that is not there."""
    small = write(t, "small", 10)
    large = write(t, "large", 9 * MIB)
    return (("head", ("head", "k")), ("get", ("get", "k", t.path("out"))), ("empty get", ("get", "k", t.path("out"), 0, 0)),
            ("list", ("list", "")), ("put", ("put", "k", small)), ("absent", ("absent", "k", small)),
            ("large", ("put", "k", large)), ("large absent", ("absent", "k", large)), ("delete", ("delete", "k")),
            ("bulk delete", ("delete", "a", "b")))


@test()
def a_missing_bucket_is_never_an_empty_one(t):
    for kind in (servers.Moto, servers.S3rver):
        at = Opened(t, kind)
        shell = at.shell(bucket="no-such-bucket")
        for name, fields in every_operation(t, shell):
            with t.part("%s, %s" % (kind.name, name)):
                got = shell.fails(INVALID, *fields, says="NoSuchBucket", hint="create the bucket")
                check(got["retryable"], "not retryable: %s" % got)


@test()
def a_server_that_is_no_s3_is_never_an_empty_one(t):
    with httpd.Server() as server:
        server.respond = lambda request, body, plan: httpd.Response(404, {"Content-Type": "text/html"}, "<html>none</html>")
        shell = Shell(t, "s3://%s/p?endpoint=%s" % (BUCKET, server.endpoint), access_key_id="x", secret_access_key="y")
        for name, fields in every_operation(t, shell):
            if name != "large absent":
                with t.part("404, " + name):
                    check(shell.fails(INVALID, *fields, hint="endpoint")["retryable"], "not retryable")
        server.respond = lambda request, body, plan: httpd.Response(200, {"Content-Type": "text/html"}, "<html>sign in</html>")
        for name in ("put", "list", "large", "bulk delete", "head"):
            with t.part("200, " + name):
                got = shell(*dict(every_operation(t, shell))[name])
                check(got["code"] == UNAVAILABLE and got["retryable"], "got %s" % got)


@test()
def wrong_credentials(t):
    at = Opened(t)
    cases = (("key", {"AWS_ACCESS_KEY_ID": "AKIAWRONG"}, "InvalidAccessKeyId", "AWS_ACCESS_KEY_ID"),
             ("secret", {"AWS_SECRET_ACCESS_KEY": "wrong-secret-access-key"}, "SignatureDoesNotMatch", "secret access key"),
             ("token", {"AWS_SESSION_TOKEN": "wrong-session-token"}, "InvalidToken", "session token"))
    for name, env, code, hint in cases:
        shell = at.shell(env=env)
        for operation, fields in every_operation(t, shell):
            with t.part("%s, %s" % (name, operation)):
                got = shell.fails(DENIED, *fields, says=code, hint=hint)
                check(got["retryable"], "not retryable: %s" % got)
        shell.never_said("wrong-secret-access-key", "wrong-session-token", at.store.secret_key)


@test()
def denied_without_the_right_to_list(t):
    """403 for a missing key: the hint tells; a put whose condition the store keeps does not need to know."""
    at = Opened(t)
    shell = at.shell()
    at.gate.add(faults.status(403), method="HEAD")
    at.gate.add(faults.s3_error("AccessDenied"), method="GET")
    shell.fails(DENIED, "head", "k", says="AccessDenied", hint="without s3:ListBucket a missing object")
    shell.fails(DENIED, "get", "k", t.path("out"), hint="without s3:ListBucket a missing object")
    shell.good("absent", "k", write(t, "a", 10))
    shell.good("absent", "large", write(t, "large", 9 * MIB))
    shell.fails(EXISTS, "absent", "k", t.path("a"))


@test()
def throttling(t):
    at = Opened(t)
    shell = at.shell()
    at.put("p/k")
    at.gate.add(faults.s3_error("SlowDown", retry_after=7))
    for fields in (("get", "k", t.path("out")), ("list", ""), ("put", "k", write(t, "a", 10)), ("head", "k"), ("delete", "k")):
        with t.part(fields[0]):
            started = len(at.gate.requests)
            # HEAD has no body that says more, and the store is not asked again for it
            got = shell.fails(UNAVAILABLE, *fields, says="HTTP 503" if fields[0] == "head" else "SlowDown", hint="fewer requests")
            check(fields[0] != "head" or len(at.gate.requests) == started + 1, "a busy store was asked again")
            check(got["retryable"] and got["retry_after_ms"] == 7000 and got["http_status"] == 503, "got %s" % got)
            check(len(at.gate.requests) - started <= 2, "it was tried again")


# ---------------------------------------------------------------------------------------------------------------------
# what is corrected once


@test()
def a_clock_that_is_off(t):
    at = Opened(t)
    for skew in (3600, -7200):
        with t.part("%d s" % skew):
            at.gate.skew = skew
            shell = at.shell()
            at.forget()
            shell.good("put", "k", write(t, "a", 10))
            shell.good("list", "")
            shell.good("head", "k")
            check_equal(at.gate.refusals, ["RequestTimeTooSkewed"], "refusals")
            check("set ours" in shell.logged(), "no warning: %s" % shell.logged())
            at.gate.skew = 0  # and it follows when the clock is set
            shell.good("get", "k", t.path("out"))
    with t.part("found by HEAD"):
        at.gate.skew = 3600
        shell = at.shell()
        shell.good("head", "k")
    with t.part("told only by the Date of a 403"):
        at.gate.skew = 0
        shell = at.shell()
        at.gate.add(faults.s3_error("AccessDenied", skew=3600), method="PUT", nth=1)
        at.gate.add(faults.skew(3600), method="PUT", nth=2)
        shell.fails(DENIED, "put", "k", t.path("a"), says="RequestTimeTooSkewed", hint="clock")
    with t.part("not twice for one request"):
        at.gate.clear()
        at.gate.add(faults.s3_error("RequestTimeTooSkewed", skew=3600), method="PUT")
        shell = at.shell()
        at.forget()
        shell.fails(DENIED, "put", "k", t.path("a"), says="RequestTimeTooSkewed", hint="clock")
        check_equal(len(at.seen("PUT")), 2, "tries")


@test()
def another_region(t):
    at = Opened(t, region="eu-central-1")
    for name, fields in (("put", ("put", "k", write(t, "a", 10))), ("get", ("get", "k", t.path("out"))), ("head", ("head", "k")),
                         ("list", ("list", "")), ("delete", ("delete", "x", "y"))):
        with t.part("found by " + name):
            shell = at.shell()
            at.forget()
            shell.good(*fields)
            check_equal(at.gate.refusals[-1], "AuthorizationHeaderMalformed", "the last refusal")
            at.forget()
            shell.good("list", "")
            check_equal(at.gate.refusals, [], "refusals once it is known")
            check("is in region eu-central-1" in shell.logged(), "not told: %s" % shell.logged())
    with t.part("given"):
        at.forget()
        at.shell(region="eu-central-1").good("list", "")
        check_equal(at.gate.refusals, [], "refusals")
    with t.part("by the header of a HEAD"):
        at.forget()
        shell = at.shell()
        at.gate.add(faults.status(301, {"x-amz-bucket-region": "eu-central-1"}), method="HEAD", nth=1)
        shell.good("head", "k")
        check_equal([r.method for r in at.seen()], ["HEAD", "HEAD"], "requests")
    with t.part("not round in circles"):
        at.gate.clear()
        at.gate.add(faults.s3_error("PermanentRedirect", more={"Region": "eu-west-9", "Endpoint": "b.s3.example.com"}))
        at.forget()
        shell = at.shell()
        shell.fails(INVALID, "list", "", says="b.s3.example.com", hint="region")
        check_equal(len(at.seen()), 2, "requests")


@test()
def credentials_that_expire(t):
    at = Opened(t)
    path = t.path("credentials")

    def hand_out(key, secret, token):
        with open(path + ".new", "w") as file:
            file.write("[default]\naws_access_key_id = %s\naws_secret_access_key = %s\naws_session_token = %s\n"
                       % (key, secret, token))
        os.rename(path + ".new", path)

    at.gate.credentials = {"OLD": s3gate.Credentials("old-secret", "old-token"),
                           "NEW": s3gate.Credentials("new-secret", "new-token")}
    hand_out("OLD", "old-secret", "old-token")
    shell = Shell(t, at.url(), env={"AWS_SHARED_CREDENTIALS_FILE": path})
    shell.good("put", "k", write(t, "a", 10))
    for name, fields in (("put", ("put", "k", t.path("a"))), ("head", ("head", "k")), ("list", ("list", ""))):
        with t.part("renewed during a " + name):
            hand_out("OLD", "old-secret", "old-token")
            at.gate.credentials["OLD"].expires = None
            shell = Shell(t, at.url(), env={"AWS_SHARED_CREDENTIALS_FILE": path})
            shell.good("list", "")
            at.gate.credentials["OLD"].expires = time.time() - 1
            hand_out("NEW", "new-secret", "new-token")
            shell.good(*fields)
    with t.part("revoked"):
        hand_out("OLD", "old-secret", "old-token")
        at.gate.credentials["OLD"].expires = None
        shell = Shell(t, at.url(), env={"AWS_SHARED_CREDENTIALS_FILE": path})
        shell.good("list", "")
        del at.gate.credentials["OLD"]
        at.forget()
        shell.fails(DENIED, "list", "", says="InvalidAccessKeyId")  # nothing new: no second request
        check_equal(len(at.seen()), 1, "requests")
        hand_out("NEW", "new-secret", "new-token")
        shell.good("list", "")
    shell.never_said("old-secret", "new-secret", "old-token", "new-token")


# ---------------------------------------------------------------------------------------------------------------------
# settings of objects


@test()
def encryption_and_storage_class(t):
    at = Opened(t)
    small = write(t, "small", 10)
    large = write(t, "large", 9 * MIB)
    cases = (({"sse": "AES256"}, {"x-amz-server-side-encryption": "AES256"}),
             ({"sse": "aws:kms", "sse_kms_key_id": "arn:aws:kms:us-east-1:1:key/2"},
              {"x-amz-server-side-encryption": "aws:kms",
               "x-amz-server-side-encryption-aws-kms-key-id": "arn:aws:kms:us-east-1:1:key/2"}),
             ({"storage_class": "STANDARD_IA"}, {"x-amz-storage-class": "STANDARD_IA"}))
    for settings, headers in cases:
        with t.part(" ".join(settings.values())):
            shell = at.shell(**settings)
            at.forget()
            shell.good("put", "small", small)
            shell.good("put", "large", large)
            created = at.seen("PUT", query="^$") + at.seen("POST", query="uploads")
            check_equal(len(created), 2, "requests that create")
            for request in created:
                check_equal({name: request.headers.get(name) for name in headers}, headers, "headers")
            for request in at.seen("PUT", query="partNumber"):
                check(not any(name in request.headers for name in headers), "a part has them")
            for key in ("p/small", "p/large"):
                kept = at.store.client().head(BUCKET, key)
                check_equal({name: kept.get(name) for name in headers}, headers, "what the store kept of " + key)


@test()
def encryption_with_a_customers_key(t):
    at = Opened(t)
    key = base64.b64encode(hashlib.sha256(b"customer").digest()).decode()
    name = "x-amz-server-side-encryption-customer-"
    wanted = {name + "algorithm": "AES256", name + "key": key,
              name + "key-md5": base64.b64encode(hashlib.md5(base64.b64decode(key)).digest()).decode()}
    shell = at.shell(sse_customer_key=key)
    shell.good("absent", "small", write(t, "small", 10))
    shell.good("put", "large", write(t, "large", 9 * MIB))
    shell.good("head", "small")
    shell.good("get", "large", t.path("out"), 5, 100)
    check_equal(read(t.path("out")), read(t.path("large"))[5:105], "content")
    shell.good("list", "")
    shell.good("delete", "small", "large")
    for request in at.seen():
        about_object = request.method in ("PUT", "GET", "HEAD") and request.path.count("/") > 1
        expected = wanted if about_object or request.query == "uploads=" else dict.fromkeys(wanted)
        check_equal({header: request.headers.get(header) for header in wanted}, expected, repr(request))
    shell.never_said(key)


@test()
def certificates(t):
    authority = tls.Authority(t.path("ca"))
    at = Opened(t, tls=authority)
    at.put("p/k")
    got = at.shell().fails(DENIED, "list", "", hint="AWS_CA_BUNDLE")
    check(got["retryable"], "not retryable: %s" % got)
    for env in ({"AWS_CA_BUNDLE": authority.ca_file, "CURL_CA_BUNDLE": "/nonexistent"}, {"SSL_CERT_FILE": authority.ca_file}):
        at.shell(env=env).good("list", "")
    at.shell(skip_verify="true").good("list", "")


@test()
def endpoints_from_the_environment(t):
    at = Opened(t)
    at.put("p/k")
    good, bad = at.gate.endpoint, "http://127.0.0.1:1"
    for env in ({"AWS_ENDPOINT_URL_S3": good, "AWS_ENDPOINT_URL": bad}, {"AWS_ENDPOINT_URL": good}):
        shell = Shell(t, "s3://%s/p" % BUCKET, env=dict(at.env, **env))
        check_equal(shell.good("list", "")["objects"], [["k", 7]], "listing")
    shell = Shell(t, at.url(), env=dict(at.env, AWS_ENDPOINT_URL_S3=bad))
    shell.good("list", "")


if __name__ == "__main__":
    harness.main("s3")
