#!/usr/bin/python3
"""
test_abs.py - the Azure Blob driver on Azurite: every way of naming the account and of signing, large objects, and what it makes of
refusals, throttling, a wrong clock, and proxies that break answers.
"""
# timeout: 1200

import base64
import email.utils
import hashlib
import json
import os
import re
import sys
import time
import urllib.parse

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import azurekit  # noqa: E402
from azurekit import Shell, conformance, read, sas, write  # noqa: E402
from ljtest import faults, harness, servers, tls  # noqa: E402
from ljtest.harness import check, check_equal, test  # noqa: E402

BOX = "lj-box"
MIB = 1 << 20
INVALID = "invalid argument or configuration"
DENIED = "permission denied"
UNAVAILABLE = "service unavailable"


class Opened:
    """Azurite with a container, and optionally a proxy in front."""

    def __init__(self, t, proxied=False, **options):
        self.t = t
        self.store = servers.Azurite(**options)
        self.store.__enter__()
        t.cleanup(self.store.__exit__)
        self.store.make_bucket(BOX)
        self.proxy = None
        if proxied:
            self.proxy = faults.Proxy(self.store.endpoint)
            self.proxy.__enter__()
            t.cleanup(self.proxy.__exit__, None, None, None)

    @property
    def endpoint(self):
        return "%s/%s" % (self.proxy.endpoint, self.store.account) if self.proxy else self.store.endpoint

    def url(self, prefix="p", box=BOX):
        return "abs://%s@%s/%s?endpoint=%s" % (self.store.account, box, prefix, self.endpoint)

    def shell(self, prefix="p", box=BOX, **options):
        if "sas_token" not in options and "account_key" not in options:
            options["account_key"] = self.store.key
        shell = Shell(self.t, self.url(prefix, box), **options)
        check_equal(shell.opened["code"], "ok", "opening")
        return shell


# ---------------------------------------------------------------------------------------------------------------------
# the contract, in every way of getting in


@test(timeout=200)
def conformance_with_shared_key(t):
    at = Opened(t)
    conformance(t, "abs://%s/some/prefix" % BOX, account_name=at.store.account, account_key=at.store.key,
                endpoint=at.store.endpoint, keys=1200, list_page_size=400)


@test(timeout=200)
def conformance_with_a_sas_token(t):
    at = Opened(t)
    token, _ = sas(at.store.account, at.store.key, BOX)
    conformance(t, at.url(""), env={"AZURE_STORAGE_SAS_TOKEN": "?" + token}, keys=300, size=20 * MIB, list_page_size=50)


@test(timeout=200)
def conformance_with_the_account_in_the_url(t):
    at = Opened(t)
    conformance(t, at.url("x"), env={"LITESTREAM_AZURE_ACCOUNT_KEY": at.store.key}, keys=300, size=20 * MIB)


@test(timeout=200)
def conformance_with_a_connection_string_over_tls(t):
    authority = tls.Authority(t.path("ca"))
    at = Opened(t, tls=authority)
    text = "DefaultEndpointsProtocol=https;AccountName=%s;AccountKey=%s;BlobEndpoint=%s;" % (
        at.store.account, at.store.key, at.store.endpoint)
    conformance(t, "abs://%s/deep/er" % BOX, keys=300, size=20 * MIB,
                env={"AZURE_STORAGE_CONNECTION_STRING": text, "SSL_CERT_FILE": authority.ca_file})


@test(timeout=200, long_only=True)
def conformance_over_tls_without_verification(t):
    at = Opened(t, tls=tls.Authority(t.path("ca")))
    conformance(t, at.url("x"), account_key=at.store.key, skip_verify="true", keys=300, size=20 * MIB)


@test()
def a_certificate_that_is_not_trusted(t):
    at = Opened(t, tls=tls.Authority(t.path("ca")))
    got = at.shell().fails(DENIED, "list", "")
    check("SSL_CERT_FILE" in got["hint"] and got["retryable"], "no help: %s" % got)


@test()
def what_lies_in_the_store(t):
    """Names, content, type and an MD5 that others can check; the creation time is the blob's."""
    at = Opened(t)
    shell = at.shell("a b/c")
    small = write(t, "small", 3 * MIB)
    shell.good("put", "generations/x", small)
    check_equal(at.store.objects(BOX), [("a b/c/generations/x", 3 * MIB)], "objects")
    check_equal(at.store.read(BOX, "a b/c/generations/x"), read(small), "content")
    head = at.store.client().head(BOX, "a b/c/generations/x")
    check_equal(head["Content-Type"], "application/octet-stream", "content type")
    check_equal(head["x-ms-blob-type"], "BlockBlob", "blob type")
    check_equal(head["Content-MD5"], base64.b64encode(hashlib.md5(read(small)).digest()).decode(), "MD5")
    created = email.utils.parsedate_to_datetime(head["x-ms-creation-time"]).timestamp()
    check_equal(shell.good("head", "generations/x")["created_ns"], int(created) * 10**9, "time")
    at.store.put(BOX, "a b/c/empty", b"")
    shell.good("get", "empty", t.path("out"))
    check_equal(read(t.path("out")), b"", "an empty blob")
    check_equal(shell.good("list", "")["objects"], [["empty", 0], ["generations/x", 3 * MIB]], "listing")


# ---------------------------------------------------------------------------------------------------------------------
# large objects


def blocks(proxy):
    return proxy.seen("PUT", query=r"comp=block&")


@test()
def a_large_object_goes_in_blocks(t):
    at = Opened(t, proxied=True)
    at.proxy.add(faults.azure_error("ServerBusy"), method="PUT", query=r"comp=block&", nth=2)
    at.proxy.add(faults.reset_upload(1 * MIB), method="PUT", query=r"comp=block&", nth=3)
    shell = at.shell()
    big = write(t, "big", 21 * MIB + 77)
    shell.good("absent", "big", big)
    check_equal(hashlib.sha256(at.store.read(BOX, "p/big")).hexdigest(), hashlib.sha256(read(big)).hexdigest(), "content")
    head = at.store.client().head(BOX, "p/big")
    check_equal(head["Content-Type"], "application/octet-stream", "content type")
    sent = blocks(at.proxy)
    ids = {urllib.parse.parse_qs(request.query)["blockid"][0] for request in sent}
    check_equal(len(sent), 5, "blocks sent: three, and two of them again")
    check_equal(len(ids), 3, "block ids")
    check_equal({len(base64.b64decode(name)) for name in ids}, {64}, "length of the ids")
    check(all("Content-MD5" in request.headers for request in sent), "a block without its MD5")
    lists = at.proxy.seen("PUT", query=r"comp=blocklist")
    check_equal([request.headers.get("If-None-Match") for request in lists], ["*"], "condition of the block list")


@test()
def a_large_object_that_is_there_is_not_sent(t):
    at = Opened(t, proxied=True)
    shell = at.shell()
    at.store.put(BOX, "p/big", b"first")
    got = shell.fails("already exists", "absent", "big", write(t, "big", 9 * MIB))
    check(not got["retryable"], "retryable: %s" % got)
    check_equal(blocks(at.proxy), [], "blocks sent")
    shell.good("put", "big", t.path("big"))
    check_equal(len(at.store.read(BOX, "p/big")), 9 * MIB, "overwritten without the condition")


@test()
def two_writers_of_one_large_object(t):
    """Their blocks never mix, and one is told that the other was first."""
    at = Opened(t, proxied=True)
    at.proxy.add(faults.delay(300), method="PUT", query=r"comp=block&")
    one, two = at.shell(), at.shell()
    files = [write(t, "one", 17 * MIB, 1), write(t, "two", 17 * MIB, 2)]
    one.send("absent", "big", files[0])
    two.send("absent", "big", files[1])
    codes = [one.answer()["code"], two.answer()["code"]]
    check_equal(sorted(codes), ["already exists", "ok"], "codes")
    check_equal(at.store.read(BOX, "p/big") == read(files[codes.index("ok")]), True, "the winner's content")


@test()
def an_upload_that_breaks_leaves_no_object(t):
    at = Opened(t, proxied=True)
    rule = at.proxy.add(faults.azure_error("InternalError"), method="PUT", query=r"comp=blocklist")
    shell = at.shell()
    big = write(t, "big", 10 * MIB)
    got = shell.fails(UNAVAILABLE, "put", "big", big, says="InternalError")
    check(got["retryable"], "not retryable: %s" % got)
    check_equal(shell.good("list", "")["objects"], [], "listing")
    shell.fails("not found", "head", "big")
    at.proxy.remove(rule)
    shell.good("absent", "big", big)
    check_equal(at.store.objects(BOX), [("p/big", 10 * MIB)], "objects")


@test()
def the_last_request_of_a_large_object_is_asked_again(t):
    """Nothing of it is sent again when the store is busy at the end, or when what it says then gets lost."""
    at = Opened(t, proxied=True)
    shell = at.shell()
    big = write(t, "big", 17 * MIB)
    ends = {"busy": faults.azure_error("ServerBusy"), "not heard": faults.reset_before(), "not answered": faults.reset_after()}
    for command, lost in (("absent", "already exists"), ("put", "ok")):
        for what, fault in ends.items():
            with t.part("%s, %s" % (command, what)):
                key = "%s %s" % (command, what)
                before = len(at.proxy.requests)
                at.proxy.add(fault, method="PUT", query=r"comp=blocklist", count=1)
                got = shell(command, key, big)
                # it was there by then; who asked for it compares
                check_equal(got["code"], lost if what == "not answered" else "ok", "%s" % got)
                check_equal(len([r for r in at.proxy.requests[before:] if "comp=block&" in r.query]), 3, "blocks sent")
                check_equal(at.store.read(BOX, "p/" + key) == read(big), True, "content")


@test()
def a_refusal_behind_an_answer_that_got_lost(t):
    """The object is there: what is said of a later request says nothing of that."""
    at = Opened(t, proxied=True)
    at.proxy.add(faults.reset_after(), method="PUT", query=r"comp=blocklist", count=1)
    at.proxy.add(faults.azure_error("AuthorizationFailure"), method="PUT", query=r"comp=blocklist", after=1)
    shell = at.shell()
    got = shell.fails(UNAVAILABLE, "absent", "big", write(t, "big", 9 * MIB), says="is not known")
    check_equal((got["http_status"], got["retryable"]), (0, True), "%s" % got)
    check_equal(at.store.objects(BOX), [("p/big", 9 * MIB)], "objects")


@test()
def content_damaged_on_its_way_up(t):
    at = Opened(t, proxied=True)
    shell = at.shell()
    at.proxy.add(faults.corrupt_upload(100), method="PUT")
    small = write(t, "small", 5000)
    check(shell("put", "small", small)["code"] != "ok", "a damaged object was taken")
    check(shell("put", "big", write(t, "big", 9 * MIB))["code"] != "ok", "a damaged block was taken")
    at.proxy.clear()
    check_equal(at.store.objects(BOX), [], "objects")
    shell.good("absent", "small", small)


# ---------------------------------------------------------------------------------------------------------------------
# refusals


@test()
def a_missing_container_is_no_empty_replica(t):
    at = Opened(t)
    shell = at.shell(box="nowhere")
    small = write(t, "small", 10)
    for command in (("list", ""), ("head", "a"), ("get", "a", t.path("out")), ("get", "a", t.path("out"), 0, 0),
                    ("put", "a", small), ("absent", "a", small), ("put", "a", write(t, "big", 9 * MIB)),
                    ("absent", "a", t.path("big")), ("delete", "a", "b")):
        with t.part(" ".join(command[:1])):
            got = shell.fails(INVALID, *command, says="ContainerNotFound", hint="create the container")
            check(got["retryable"], "it may be created, but is not retryable: %s" % got)
            check("nowhere" in got["message"], "the container is not named: %s" % got)
    at.store.make_bucket("nowhere")
    shell.good("absent", "a", small)


@test()
def a_404_of_somebody_else_is_no_missing_object(t):
    at = Opened(t, proxied=True)
    shell = at.shell()
    at.proxy.add(faults.status(404, {"Content-Type": "text/html"}, b"<html>no such site</html>"))
    for command in (("head", "a"), ("get", "a", t.path("out")), ("list", ""), ("delete", "a")):
        got = shell.fails(UNAVAILABLE, *command, hint="check the endpoint")
        check(got["retryable"], "not retryable: %s" % got)


@test()
def a_wrong_account_key(t):
    at = Opened(t, proxied=True)
    wrong = base64.b64encode(hashlib.sha512(b"wrong").digest()).decode()
    shell = at.shell(account_key=wrong)
    got = shell.fails(DENIED, "list", "", says="HTTP 403: Auth", hint="account-key")
    check(got["retryable"] and got["http_status"] == 403, "answer: %s" % got)
    check("abs://%s@%s/p" % (at.store.account, BOX) in got["message"], "where: %s" % got)
    check_equal(len(at.proxy.requests), 1, "requests: the clock is right, so there is no second one")
    at.proxy.add(faults.azure_error("AuthenticationFailed"))  # what Azure itself says
    got = shell.fails(DENIED, "list", "", says="AuthenticationFailed", hint="check the account's name and its key (account-key)")
    check_equal(len(at.proxy.requests), 2, "requests")
    shell.never_said(wrong, at.store.key)


@test()
def sas_tokens_that_do_not_do(t):
    at = Opened(t)
    small = write(t, "small", 10)
    for name, options, command, hint in (
            ("over", {"seconds": -60}, ("list", ""), "ended at 20"),
            ("may only read", {"permissions": "r"}, ("put", "a", small), "sp=rcwdl"),
            ("may not list", {"permissions": "rcwd"}, ("list", ""), "sp=rcwdl")):
        with t.part(name):
            token, signature = sas(at.store.account, at.store.key, BOX, **options)
            shell = at.shell(sas_token=token)
            got = shell(*command)
            check(got["code"] == DENIED and got["retryable"], "answer: %s" % got)
            check(hint in got["hint"], "no %r in the hint: %s" % (hint, got))
            shell.never_said(signature)
    with t.part("for another container"):
        token, signature = sas(at.store.account, at.store.key, "other-box")
        shell = at.shell(sas_token=token)
        check_equal(shell("list", "")["code"], DENIED, "code")
        shell.never_said(signature)


@test()
def a_sas_token_is_never_shown(t):
    """Not in any failure of the transport either, whose messages libcurl writes."""
    at = Opened(t, proxied=True)
    token, signature = sas(at.store.account, at.store.key, BOX)
    small = write(t, "small", 10)
    at.shell(sas_token=token).good("put", "a", small)
    shell = at.shell(sas_token=token, timeout_ms=700)
    broken = (faults.reset_before(), faults.black_hole(), faults.status(500, {}, b"?" + token.encode()), faults.truncate(3),
              faults.azure_error("AuthenticationFailed", message="Signature did not match: sig=" + signature),
              faults.azure_error("InternalError", message="while reading " + signature))
    for action in broken:
        at.proxy.clear()
        at.proxy.add(action)
        for command in (("get", "a", t.path("out")), ("put", "b", small), ("list", "")):
            check(shell(*command)["code"] != "ok" or action.cut, "%s: worked" % action.name)
    at.proxy.down()
    shell.fails(UNAVAILABLE, "list", "")
    shell.never_said(signature, at.store.key)


@test()
def throttling_and_its_retry_after(t):
    at = Opened(t, proxied=True)
    shell = at.shell()
    for action, code in ((faults.azure_error("ServerBusy", retry_after=3), UNAVAILABLE),
                         (faults.status(429, retry_after=3), UNAVAILABLE),
                         (faults.azure_error("OperationTimedOut", retry_after=3), "timed out")):
        at.proxy.clear()
        before = len(at.proxy.requests)
        at.proxy.add(action)
        got = shell.fails(code, "list", "")
        check(got["retryable"] and got["retry_after_ms"] == 3000, "answer: %s" % got)
        check_equal(len(at.proxy.requests) - before, 1, "requests: a driver does not retry")


@test()
def a_clock_that_is_wrong(t):
    """The store's time is taken from its refusal; the request goes out once more, and the next ones are right at once."""
    at = Opened(t, proxied=True)
    ahead = 3 * 3600

    def is_off(request):
        sent = email.utils.parsedate_to_datetime(request.headers["x-ms-date"]).timestamp()
        return abs(sent - (time.time() + ahead)) > 900

    at.proxy.add(faults.azure_error("AuthenticationFailed", skew=ahead), test=is_off)
    shell = at.shell()
    small = write(t, "small", 1000)
    shell.good("absent", "a", small)
    check_equal(len(at.proxy.requests), 2, "requests of the first put")
    shell.good("get", "a", t.path("out"))
    shell.good("list", "")
    check_equal(len(at.proxy.requests), 4, "requests of all")
    check_equal(read(t.path("out")), read(small), "content")
    at.proxy.add(faults.azure_error("AuthenticationFailed", skew=-ahead))
    shell.fails(DENIED, "list", "", hint="clock")
    check_equal(len(at.proxy.requests), 6, "requests: once more and no more")


@test()
def deletions_stop_at_the_first_failure(t):
    at = Opened(t, proxied=True)
    shell = at.shell()
    for key in "abcd":
        at.store.put(BOX, "p/" + key, b"x")
    at.proxy.add(faults.azure_error("ServerBusy"), method="DELETE", path=r"/p/b$")
    got = shell.fails(UNAVAILABLE, "delete", "a", "missing", "b", "c", "d")
    check_equal(got["each"], ["ok", "ok", UNAVAILABLE, "cancelled", "cancelled"], "each")
    check_equal([key for key, _ in at.store.objects(BOX)], ["p/b", "p/c", "p/d"], "what is left")
    at.proxy.clear()
    at.proxy.add(faults.azure_error("ContainerNotFound"), method="DELETE")
    shell.fails(INVALID, "delete", "b")
    at.proxy.clear()
    check_equal(shell.good("delete", "b", "c", "d")["each"], ["ok", "ok", "ok"], "each")


@test()
def leases_and_locks_are_told(t):
    at = Opened(t)
    shell = at.shell()
    small = write(t, "small", 10)
    at.store.put(BOX, "p/a", b"x")
    at.store.client().checked("PUT", BOX, "p/a", query=[("comp", "lease")],
                              headers={"x-ms-lease-action": "acquire", "x-ms-lease-duration": "-1"})
    for command in (("put", "a", small), ("delete", "a")):
        got = shell.fails(DENIED, *command, says="LeaseIdMissing", hint="break the lease")
        check(got["retryable"], "not retryable: %s" % got)
    shell.fails("already exists", "absent", "a", small)


# ---------------------------------------------------------------------------------------------------------------------
# answers that are broken


@test()
def ranges_are_checked(t):
    at = Opened(t, proxied=True)
    shell = at.shell()
    content = read(write(t, "small", 50000))
    at.store.put(BOX, "p/a", content)
    out = t.path("out")
    shell.good("get", "a", out, 1000, 100)
    check_equal(read(out), content[1000:1100], "a range")
    for action in (faults.replace_status(200), faults.headers({"Content-Range": "bytes 0-99/50000"}),
                   faults.headers({"Content-Range": None})):
        at.proxy.clear()
        at.proxy.add(action, method="GET")
        got = shell.fails(UNAVAILABLE, "get", "a", out, 1000, 100, says="another part")
        check(got["retryable"], "not retryable: %s" % got)
        check_equal(read(out), b"", "bytes handed on")
    at.proxy.clear()
    at.proxy.add(faults.request_headers({"x-ms-range": None}), method="GET")
    check(shell("get", "a", out, 1000, 100)["code"] != "ok", "a whole object was taken for a range")
    check_equal(read(out), b"", "bytes handed on")
    for page in (b"<html>Please sign in</html>", b""):
        at.proxy.clear()
        at.proxy.add(faults.status(200, {"Content-Type": "text/html"}, page), method="GET")
        got = shell.fails(UNAVAILABLE, "get", "a", out, says="blob store")
        check(got["retryable"], "not retryable: %s" % got)
        check_equal(read(out), b"", "bytes handed on")


@test()
def transfers_that_break_off(t):
    at = Opened(t, proxied=True)
    shell = at.shell(timeout_ms=3000)
    content = read(write(t, "small", 300000))
    at.store.put(BOX, "p/a", content)
    out = t.path("out")
    for action, code in ((faults.truncate(100000), UNAVAILABLE), (faults.reset_body(100000), UNAVAILABLE),
                         (faults.stall(100000), "timed out"), (faults.black_hole(), "timed out"),
                         (faults.reset_before(), UNAVAILABLE)):
        with t.part(action.name):
            at.proxy.clear()
            at.proxy.add(action, method="GET", path=r"/p/a$")
            begin = time.monotonic()
            got = shell.fails(code, "get", "a", out)
            check(got["retryable"], "not retryable: %s" % got)
            check(time.monotonic() - begin < 20, "took %.1f s" % (time.monotonic() - begin))
            check(content.startswith(read(out)), "other bytes than the object's")
    at.proxy.clear()
    shell.good("get", "a", out)
    check_equal(read(out), content, "content")


@test()
def listings_that_break_off(t):
    at = Opened(t, proxied=True)
    for i in range(7):
        at.store.put(BOX, "p/%d" % i, b"x" * i)
    shell = at.shell(list_page_size=3)
    want = [[str(i), i] for i in range(7)]
    check_equal(shell.good("list", "")["objects"], want, "listing")
    check_equal(len(at.proxy.requests), 3, "pages")
    check_equal(shell.good("list", "", "3")["objects"], want[4:], "behind a key")
    second = {"method": "GET", "query": r"marker=."}
    for action, code in ((faults.truncate(200, lie=True), UNAVAILABLE), (faults.truncate(200), UNAVAILABLE),
                         (faults.azure_error("InternalError"), UNAVAILABLE),
                         (faults.status(200, {"Content-Type": "text/html"}, b"<html></html>"), UNAVAILABLE)):
        at.proxy.clear()
        at.proxy.add(action, **second)
        got = shell.fails(code, "list", "")
        check(got["retryable"], "not retryable: %s" % got)
    page = ('<?xml version="1.0"?><EnumerationResults><Blobs/><NextMarker>again</NextMarker></EnumerationResults>')
    at.proxy.clear()
    at.proxy.add(faults.status(200, {"Content-Type": "application/xml"}, page.encode()))
    shell.fails(UNAVAILABLE, "list", "", says="next page")


@test()
def connections_are_kept(t):
    at = Opened(t, proxied=True)
    shell = at.shell()
    small = write(t, "small", 1000)
    for i in range(10):
        shell.good("put", "k%d" % i, small)
        shell.good("head", "k%d" % i)
    check(at.proxy.connections <= 2, "%d connections for 20 requests" % at.proxy.connections)


@test()
def every_request_says_what_it_must(t):
    at = Opened(t, proxied=True)
    shell = at.shell()
    shell.good("put", "a", write(t, "small", 1000))
    shell.good("get", "a", t.path("out"))
    shell.good("list", "")
    shell.good("delete", "a")
    for request in at.proxy.requests:
        check_equal(request.headers.get("x-ms-version"), azurekit.VERSION, "version of %r" % request)
        check(re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", request.headers.get("x-ms-date") or ""),
              "date of %r" % request)
        check((request.headers.get("Authorization") or "").startswith("SharedKey %s:" % at.store.account),
              "authorization of %r" % request)
        check("Transfer-Encoding" not in request.headers, "%r is chunked" % request)
        check(request.method != "PUT" or request.headers.get("Content-Length") == "1000", "length of %r" % request)


if __name__ == "__main__":
    harness.main("abs")
