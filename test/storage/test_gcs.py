#!/usr/bin/python3
"""test_gcs.py - the driver for Google Cloud Storage: the conformance suite, and what goes wrong between it and the store.

On fake-gcs-server, which knows the API but is lax, and on ljtest.gcsserver, which is strict and knows resumable uploads.
"""
# timeout: 1200

import json
import pathlib
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))

from ljtest import faults, gcsserver, harness, httpd, servers, tls  # noqa: E402
from ljtest.harness import check, check_equal, test  # noqa: E402
from ljtest.storeshell import Shell, content, digest, environment, tool  # noqa: E402

MIB = 1 << 20
PART = 8 * MIB


def start(case, server, url="gcs://bucket/pre/fix", **options):
    return Shell(case, url, server.env, **options)


# ---------------------------------------------------------------------------------------------------------------------
# conformance


def conform(case, url, env):
    done = subprocess.run([tool("storage_conformance"), url], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, env=environment({**env, "CMOCKA_MESSAGE_OUTPUT": "TAP"}))
    text = done.stdout.decode("utf-8", "replace")
    passed = sum(line.startswith("ok ") for line in text.splitlines())
    for line in text.splitlines():
        if not line.startswith("ok "):
            case.note(line)
    check(done.returncode == 0 and passed >= 14, "%d tests passed, status %d" % (passed, done.returncode))


@test(timeout=300)
def conformance_on_fake_gcs_server(case):
    with servers.FakeGcs() as store:
        store.make_bucket("conformance-bucket")
        conform(case, "gcs://conformance-bucket/pre/fix", store.env)
        check_equal(store.objects("conformance-bucket"), [], "what is left in the bucket")


@test(timeout=300)
def conformance_on_a_strict_server_in_small_pages(case):
    with gcsserver.GcsServer("bucket") as server:
        conform(case, "gs://bucket/?list-page-size=100", server.env)
        check_equal(server.problems, [], "what was against the API")
        check_equal(server.objects, {}, "what is left in the bucket")
        check_equal(server.sessions, {}, "uploads left under way")
        check(len(server.seen("GET", query="maxResults=100.*pageToken=")) > 24, "no pages were asked for")


@test(timeout=300)
def conformance_by_tls(case):
    authority = tls.Authority(case.path("ca"))
    with servers.FakeGcs(tls=authority) as store:
        store.make_bucket("bucket")
        env = {"STORAGE_EMULATOR_HOST": store.endpoint}
        refused = Shell(case, "gcs://bucket/p", env)
        answer = refused.fails("permission denied", "list", "")
        check("SSL_CERT_FILE" in answer["hint"] and answer["retryable"], lambda: answer)
        trusting = Shell(case, "gcs://bucket/p", {**env, "SSL_CERT_FILE": authority.ca_file})
        check_equal(trusting.ok("list", "")["objects"], [], "the list")
        careless = Shell(case, "gcs://bucket/p?skip-verify=true", env)
        check_equal(careless.put("a", b"x")["code"], "ok", "put with skip-verify")


# ---------------------------------------------------------------------------------------------------------------------
# what is stored


@test()
def an_object_is_stored_as_the_layout_wants_it(case):
    with gcsserver.GcsServer("bucket") as server:
        shell = start(case, server)
        data = content(4321)
        check_equal(shell.put("generations/0123456789abcdef/wal/00000000_00000000.wal.lz4", data)["code"], "ok", "put")
        name = "pre/fix/generations/0123456789abcdef/wal/00000000_00000000.wal.lz4"
        check_equal(list(server.objects), [name], "names")
        check_equal(server.objects[name].data, data, "content")
        check_equal(server.objects[name].content_type, "application/octet-stream", "type")
        (upload,) = server.seen("POST")
        check_equal(upload.args["uploadType"], "multipart", "a small object is one request")
        check("Expect" not in upload.headers and "Content-Length" in upload.headers, lambda: repr(upload.headers))
        check("Accept-Encoding" not in upload.headers, lambda: repr(upload.headers))
        head = shell.ok("head", "generations/0123456789abcdef/wal/00000000_00000000.wal.lz4")
        check(abs(head["created_ns"] / 1e9 - server.objects[name].created) < 0.01, lambda: head)
        check_equal(server.problems, [], "what was against the API")


@test()
def the_requester_pays(case):
    with gcsserver.GcsServer("bucket") as server:
        shell = start(case, server, "gcs://bucket/p?user-project=my-project")
        shell.put("a", b"x")
        shell.put("b", content(PART + 1))
        shell.ok("list", "")
        shell.ok("head", "a")
        shell.get("a")
        shell.ok("delete", "a", "b")
        sent = {request.args.get("userProject") for request in server.seen() if "upload_id" not in request.args}
        check_equal(sent, {"my-project"}, "userProject of the requests")


@test()
def damage_on_the_way_up_is_noticed(case):
    with gcsserver.GcsServer("bucket") as server:
        shell = start(case, server)
        # within the object's bytes: the store refuses, and has nothing
        server.add(faults.corrupt_upload(offset=2000), method="POST", nth=1)
        answer = shell.put("a", content(4000))
        check_equal((answer["code"], answer["retryable"]), ("input/output error", True), "a damaged upload")
        check_equal(server.objects, {}, "objects after a damaged upload")
        check_equal(shell.put("a", content(4000))["code"], "ok", "the next try")
        # what the store says it has is another thing: removed again
        server.wrong_sum = 1
        answer = shell.put("b", content(4000))
        check_equal((answer["code"], answer["retryable"]), ("input/output error", True), "another sum in the answer")
        check_equal(list(server.objects), ["pre/fix/a"], "the damaged object is gone")
        server.wrong_sum = 1
        answer = shell.put("c", content(PART + 5))
        check_equal((answer["code"], answer["retryable"]), ("input/output error", True), "another sum of a large object")
        check_equal(list(server.objects), ["pre/fix/a"], "the damaged large object is gone")
        # one that cannot be removed is no failure that says that there is no object
        server.wrong_sum = 1
        with server.rule(faults.gcs_error(503), method="DELETE"):
            check_equal(shell.put("d", content(4000))["code"], "service unavailable", "a damaged object that stays")


# ---------------------------------------------------------------------------------------------------------------------
# resumable uploads


def put_large(case, server, size, seed=3, expect="ok", shell=None):
    shell = shell or start(case, server)
    data = content(size, seed)
    answer = shell.put("large", data)
    check_equal(answer["code"], expect, str(answer))
    check_equal(server.problems, [], "what was against the API")
    if expect == "ok":
        check_equal(digest(server.objects["pre/fix/large"].data), digest(data), "content")
        check_equal(server.sessions, {}, "uploads left under way")
    return answer


def parts_of(server):
    return [request.headers["Content-Range"] for request in server.seen("PUT")]


@test()
def a_large_object_goes_up_in_parts(case):
    for size, want in ((PART, None), (PART + 1, 2), (2 * PART, 2), (2 * PART + 12345, 3)):
        with gcsserver.GcsServer("bucket") as server:
            put_large(case, server, size)
            if want is None:
                check_equal(len(server.seen("PUT")), 0, "requests of a session for %d bytes" % size)
                continue
            got = parts_of(server)
            check_equal(len(got), want, "parts of %d bytes" % size)
            check_equal(got[0], "bytes 0-%d/*" % (PART - 1), "the first part")
            check(got[-1].endswith("-%d/%d" % (size - 1, size)), lambda: got)


# A request that a kept connection breaks off before its body was handed on may be sent again by libcurl, on a new connection. So
# the rules fire twice where the driver's own resuming is meant, and either the part or the question is what they hit.


def resumed_at(got, question):
    """What was sent behind the last question for the offset."""
    check(question in got, lambda: "the store was not asked: %s" % got)
    return got[len(got) - got[::-1].index(question)]


@test()
def a_part_that_breaks_goes_on_where_the_store_says(case):
    for cut in (1, 3 * MIB, PART - 1):
        with gcsserver.GcsServer("bucket") as server:
            server.add(faults.reset_upload(cut), method="PUT", nth=(2, 3))
            put_large(case, server, 2 * PART + 777)
            kept = PART + cut // gcsserver.UNIT * gcsserver.UNIT
            check_equal(resumed_at(parts_of(server), "bytes */*"), "bytes %d-%d/*" % (kept, 2 * PART - 1),
                        "after a break at %d" % cut)


@test()
def a_part_that_breaks_once(case):
    for cut in (1, 3 * MIB, PART - 1):
        with gcsserver.GcsServer("bucket") as server:
            server.add(faults.reset_upload(cut), method="PUT", nth=2)
            put_large(case, server, 2 * PART + 777)
            check(len(parts_of(server)) in (4, 5), lambda: "repeated at once, or asked and gone on: %s" % parts_of(server))


@test()
def the_last_part_breaks(case):
    with gcsserver.GcsServer("bucket") as server:
        server.add(faults.reset_upload(300 * 1024), method="PUT", nth=(2, 3))
        put_large(case, server, PART + MIB)
        total = PART + MIB
        check_equal(resumed_at(parts_of(server), "bytes */%d" % total),
                    "bytes %d-%d/%d" % (PART + gcsserver.UNIT, total - 1, total), "how it goes on")


@test()
def the_answer_to_a_part_gets_lost(case):
    for nth in (1, 2, 3):
        for times in (1, 2, 3):
            with gcsserver.GcsServer("bucket") as server:
                server.add(faults.reset_after(), method="PUT", nth=tuple(range(nth, nth + times)))
                put_large(case, server, 2 * PART + 5)
                check_equal(server.objects["pre/fix/large"].generation, 1700000000000001, "stored more than once")


@test()
def a_store_that_keeps_less_than_was_sent(case):
    with gcsserver.GcsServer("bucket", keep=5 * MIB) as server:
        put_large(case, server, PART + 4 * MIB)
        check(len(parts_of(server)) > 2, "it was not asked to go on")


@test()
def a_part_is_throttled(case):
    with gcsserver.GcsServer("bucket") as server:
        server.add(faults.gcs_error(503, retry_after=1), method="PUT", nth=2)
        server.add(faults.gcs_error(429, "rateLimitExceeded", retry_after=1), method="PUT", nth=5)
        started = time.monotonic()
        put_large(case, server, 3 * PART + 5)
        check(time.monotonic() - started >= 2, "Retry-After was not waited for")


@test()
def an_upload_that_is_given_up_is_deleted(case):
    with gcsserver.GcsServer("bucket") as server:
        server.add(faults.gcs_error(503), method="PUT", after=1)
        answer = put_large(case, server, 2 * PART, expect="service unavailable")
        check(answer["retryable"], lambda: answer)
        check_equal(len(server.seen("PUT")), 1 + 7, "requests: a part, and another in seven attempts")
        check_equal((len(server.deleted_sessions), server.sessions), (1, {}), "sessions deleted, left")
        check_equal(server.objects, {}, "objects")


@test()
def refusals_that_do_not_pass_end_an_upload_at_once(case):
    with gcsserver.GcsServer("bucket") as server:
        server.add(faults.gcs_error(403, "forbidden"), method="PUT")
        put_large(case, server, 2 * PART, expect="permission denied")
        check_equal(len(server.seen("PUT")), 1, "requests")
        check_equal(server.sessions, {}, "sessions left")


@test()
def a_refusal_behind_an_answer_that_got_lost(case):
    """The object is there: what is said of a later request says nothing of that."""
    with gcsserver.GcsServer("bucket") as server:
        server.add(faults.reset_after(), method="PUT", nth=(2, 3))
        server.add(faults.gcs_error(403, "forbidden"), method="PUT", after=3)
        answer = put_large(case, server, PART + 5, expect="service unavailable")
        check_equal((answer["http_status"], answer["retryable"]), (0, True), str(answer))
        check("is not known" in answer["message"] and "403" in answer["message"], lambda: answer)
        check_equal(list(server.objects), ["pre/fix/large"], "objects")


@test()
def a_session_that_the_store_forgot(case):
    with gcsserver.GcsServer("bucket") as server:
        server.add(faults.answer(lambda request: forget(server), "forgets"), method="PUT", nth=2)
        shell = start(case, server)
        answer = put_large(case, server, 2 * PART, expect="service unavailable", shell=shell)
        check(answer["retryable"] and "forgotten" in answer["message"], lambda: answer)
        check_equal(len(server.seen("PUT")), 2, "requests of the lost session")
        put_large(case, server, 2 * PART, shell=shell)


def forget(server):
    server.sessions.clear()
    return faults.gcs_error(410, "gone").answer(None)


@test()
def a_large_object_is_not_overwritten(case):
    with gcsserver.GcsServer("bucket") as server:
        shell = start(case, server)
        check_equal(shell.put("a", b"first")["code"], "ok", "put")
        answer = shell.put("a", content(PART + 1), verb="absent")
        check_equal(answer["code"], "already exists", str(answer))
        check_equal(len(server.seen("PUT")), 0, "parts of what is there already")
        check_equal(shell.put("b", content(PART + 1), verb="absent")["code"], "ok", "a free name")
        # somebody is there first while it goes up
        server.add(faults.answer(lambda request: overtaken(server, request), "overtaken"), method="PUT", nth=2)
        answer = shell.put("c", content(PART + 1), verb="absent")
        check_equal(answer["code"], "already exists", str(answer))
        check_equal(server.objects["pre/fix/a"].data, b"first", "the first object")
        check_equal(server.objects["pre/fix/c"].data, b"theirs", "the other's object")


def overtaken(server, request):
    server.store("pre/fix/c", b"theirs", False)
    return faults.gcs_error(412, "conditionNotMet").answer(request)


@test()
def wrong_offsets_are_not_believed(case):
    for text in ("bytes=0-%d" % (3 * PART), "bytes=5-9", "bytes=0-x", "nonsense"):
        with gcsserver.GcsServer("bucket") as server:
            server.add(faults.headers({"Range": text}), method="PUT", nth=1)
            shell = start(case, server)
            answer = shell.put("large", content(2 * PART))
            check_equal((answer["code"], answer["retryable"]), ("service unavailable", True), "Range: " + text)
            check_equal((server.objects, server.sessions), ({}, {}), "objects, sessions")


@test()
def a_store_that_ends_an_upload_early(case):
    """As fake-gcs-server does it when it is asked how far an upload is: what it made of it is not left there."""
    with servers.FakeGcs() as store, faults.Proxy(store.endpoint) as proxy:
        store.make_bucket("bucket")
        proxy.add(faults.reset_upload(2 * MIB), method="PUT", nth=2)
        shell = Shell(case, "gcs://bucket/p", store.environment(proxy.endpoint))
        answer = shell.put("large", content(3 * PART))
        if answer["code"] != "ok":
            check(answer["retryable"], lambda: answer)
            check_equal(store.objects("bucket"), [], "objects")
        check_equal(shell.put("large", content(3 * PART, 9))["code"], "ok", "the next try")
        check_equal(digest(store.read("bucket", "p/large")), digest(content(3 * PART, 9)), "content")


def peak_kib(shell):
    with open("/proc/%d/status" % shell.process.pid) as file:
        return int(file.read().split("VmHWM:")[1].split()[0])


@test()
def memory_does_not_grow_with_the_object(case):
    with gcsserver.GcsServer("bucket") as server:
        shell = start(case, server)
        shell.put("small", content(PART + 1))
        before = peak_kib(shell)
        path = case.path("zeros")
        with open(path, "wb") as file:
            file.truncate(12 * PART)
        shell.ok("put", "large", path)
        # a sanitizer keeps what was freed: one buffer more
        check(peak_kib(shell) - before < 20 * 1024, "%d, then %d KiB for an object of 96 MiB" % (before, peak_kib(shell)))


# ---------------------------------------------------------------------------------------------------------------------
# reading


@test()
def ranges(case):
    with gcsserver.GcsServer("bucket") as server:
        shell = start(case, server)
        data = content(100000)
        shell.put("a", data)
        shell.put("empty", b"")
        for offset, length, want in ((0, -1, data), (0, 10, data[:10]), (99990, 100, data[99990:]), (100000, 5, b""),
                                     (200000, -1, b""), (5, 0, b""), (5, -1, data[5:])):
            answer, got = shell.get("a", offset, length)
            check_equal((answer["code"], got), ("ok", want), "%d bytes from %d" % (length, offset))
        for offset, length in ((0, -1), (0, 10), (0, 0), (7, -1)):
            answer, got = shell.get("empty", offset, length)
            check_equal((answer["code"], got), ("ok", b""), "%d bytes from %d of nothing" % (length, offset))


@test()
def a_store_that_ignores_ranges(case):
    with gcsserver.GcsServer("bucket") as server:
        shell = start(case, server)
        data = content(3 * MIB)
        shell.put("a", data)
        # as GCS does for an object that it unpacks: the whole of it, as 200
        server.add(faults.answer(lambda request: httpd.Response(200, {"X-Goog-Generation": "1"}, data), "whole"), method="GET", query="alt=media")
        for offset, length, want in ((MIB, 1000, data[MIB:MIB + 1000]), (MIB, -1, data[MIB:]), (0, 5, data[:5]),
                                     (3 * MIB, 5, b""), (4 * MIB, -1, b"")):
            answer, got = shell.get("a", offset, length)
            check_equal((answer["code"], digest(got)), ("ok", digest(want)), "%d bytes from %d" % (length, offset))


@test()
def wrong_ranges_are_noticed(case):
    with gcsserver.GcsServer("bucket") as server:
        shell = start(case, server)
        shell.put("a", content(100000))
        for value in ("bytes 11-1009/100000", "bytes 10-5/100000", "bytes */100000", "lines 10-1009/100000", None):
            with server.rule(faults.headers({"Content-Range": value}), method="GET"):
                answer, got = shell.get("a", 10, 1000)
                check_equal((answer["code"], answer["retryable"], got), ("service unavailable", True, b""), str(value))


@test()
def broken_downloads_say_so(case):
    with gcsserver.GcsServer("bucket") as server:
        shell = start(case, server)
        data = content(500000)
        shell.put("a", data)
        for action in (faults.truncate(300000), faults.reset_body(300000), faults.truncate(300000, lie=True)):
            with server.rule(action, method="GET"):
                answer, got = shell.get("a", 1000)
                check_equal((answer["code"], answer["retryable"]), ("service unavailable", True), action.name)
                check_equal(got, data[1000:1000 + len(got)], "what came before the break")
        answer, got = shell.get("a")
        check_equal(got, data, "content afterwards")


@test()
def a_silent_store_does_not_hold_us(case):
    with gcsserver.GcsServer("bucket") as server:
        start(case, server).put("a", content(1000))
        shell = start(case, server, timeout_ms=500)
        for action in (faults.black_hole(), faults.stall(100)):
            with server.rule(action):
                started = time.monotonic()
                answer, _ = shell.get("a")
                check_equal((answer["code"], answer["retryable"]), ("timed out", True), action.name)
                check(time.monotonic() - started < 20, "it took %.1f s" % (time.monotonic() - started))


# ---------------------------------------------------------------------------------------------------------------------
# absent things, refusals


def absent_bucket(shell, verbs):
    for fields in verbs:
        answer = shell(*fields)
        check_equal((answer["code"], answer["retryable"]), ("invalid argument or configuration", True),
                    lambda: "%s: %s" % (fields, answer))
        check("does not exist" in answer["message"] and "create it" in answer["hint"], lambda: answer)


@test()
def an_absent_bucket_is_no_empty_replica(case):
    with gcsserver.GcsServer() as server, servers.FakeGcs() as store:
        for shell in (start(case, server), Shell(case, "gcs://bucket/pre/fix", store.env)):
            small, large = shell.file(b"x"), shell.file(content(PART + 1))
            absent_bucket(shell, [("list", ""), ("head", "a"), ("get", "a", case.path("got")), ("get", "a", case.path("got"), 5, 10),
                                  ("put", "a", small), ("absent", "a", small), ("put", "a", large), ("delete", "a")])
        server.buckets.add("bucket")
        shell = start(case, server)
        check_equal(shell.ok("list", "")["objects"], [], "an empty bucket")
        shell.fails("not found", "head", "a")
        shell.ok("delete", "a")


@test()
def a_bucket_that_vanishes(case):
    with gcsserver.GcsServer("bucket") as server:
        shell = start(case, server)
        shell.put("a", b"x")
        server.buckets.clear()
        absent_bucket(shell, [("list", "")])


@test()
def absence_that_cannot_be_shown_is_no_absence(case):
    """The object's 404 is not believed while the bucket cannot be looked at."""
    with gcsserver.GcsServer("bucket") as server:
        shell = start(case, server)
        listing = r"/o$"
        with server.rule(faults.gcs_error(403, "forbidden"), method="GET", path=listing):
            shell.fails("permission denied", "head", "a")
        with server.rule(faults.gcs_error(503), method="GET", path=listing):
            check(shell.fails("service unavailable", "head", "a")["retryable"], "not retryable")
        for page in (b"<html>Welcome</html>", b"{}"):
            with server.rule(faults.status(200, {}, page), method="GET", path=listing):
                check(shell.fails("service unavailable", "head", "a")["retryable"], "not retryable")
        shell.fails("not found", "head", "a")
        before = len(server.seen("GET", path=listing))
        shell.fails("not found", "head", "a")
        shell.fails("not found", "get", "a", case.path("got"))
        check_equal(len(server.seen("GET", path=listing)), before, "it looks again although the bucket has just answered")


@test()
def throttled_requests(case):
    with gcsserver.GcsServer("bucket") as server:
        shell = start(case, server)
        shell.put("a", b"x")
        small = shell.file(b"x")
        commands = [("list", ""), ("head", "a"), ("get", "a", case.path("got")), ("put", "a", small), ("delete", "a")]
        for action, wait in ((faults.gcs_error(429, "rateLimitExceeded", retry_after=7), 7000), (faults.gcs_error(503), 0),
                             (faults.gcs_error(403, "userRateLimitExceeded"), 0), (faults.gcs_error(403, "quotaExceeded"), 0)):
            with server.rule(action):
                for fields in commands:
                    server.forget()
                    answer = shell.fails("service unavailable", *fields)
                    check_equal((answer["retryable"], answer["retry_after_ms"]), (True, wait), str(answer))
                    check_equal(len(server.seen()), 1, "requests: the driver does not try again")
        check_equal(shell.get("a")[1], b"x", "content afterwards")


@test()
def refused_requests(case):
    with gcsserver.GcsServer("bucket") as server:
        shell = start(case, server)
        with server.rule(faults.gcs_error(403, "forbidden", "robot@x does not have storage.objects.list access")):
            answer = shell.fails("permission denied", "list", "")
            check(answer["retryable"] and "objects.list" in answer["message"] and "objectUser" in answer["hint"], lambda: answer)
        with server.rule(faults.gcs_error(400, "userProjectMissing", "Bucket is a requester pays bucket")):
            answer = shell.fails("invalid argument or configuration", "list", "")
            check(not answer["retryable"] and "user-project" in answer["hint"], lambda: answer)


@test()
def deleting_stops_at_the_first_failure(case):
    with gcsserver.GcsServer("bucket") as server:
        shell = start(case, server)
        for key in "abcd":
            shell.put(key, b"x")
        server.add(faults.gcs_error(403, "retentionPolicyNotMet", "held"), method="DELETE", path="/b$")
        answer = shell.fails("permission denied", "delete", "a", "missing", "b", "c", "d")
        check_equal(answer["each"], ["ok", "ok", "permission denied", "cancelled", "cancelled"], "each key")
        check_equal(sorted(server.objects), ["pre/fix/b", "pre/fix/c", "pre/fix/d"], "what is left")
        check_equal([request.key.rsplit("/", 1)[1] for request in server.seen("DELETE")], ["a", "missing", "b"], "requests")


@test()
def answers_that_are_no_answers(case):
    """Whatever comes with a 200: no crash, no object that is not there, and an error that passes."""
    bodies = (b"", b"null", b"[]", b"<html>", b"{", b"{}", b'{"status":"ok"}', b'{"items":[{"name":"pre/fix/a"}]}',
              b'{"items":5}', b'{"nextPageToken":1}',
              b'{"items":[{"name":"pre/fix/a","size":"-5","timeCreated":"2026-01-02T03:04:05Z"}]}', b"[" * 100000)
    with gcsserver.GcsServer("bucket") as server:
        shell = start(case, server)
        for body in bodies:
            with server.rule(faults.status(200, {"Content-Type": "application/json"}, body), method="GET"):
                answer = shell.fails("service unavailable", "list", "")
                check(answer["retryable"], lambda: answer)
                check(shell.fails("service unavailable", "head", "a")["retryable"], "head")
        large = b'{"items":[],"x":"%s"}' % (b"y" * (17 * MIB))
        with server.rule(faults.status(200, {"Content-Type": "application/json"}, large), method="GET"):
            check(shell.fails("service unavailable", "list", "")["retryable"], "a page that is too large")
        page = b'{"items":[],"nextPageToken":"again"}'
        with server.rule(faults.status(200, {"Content-Type": "application/json"}, page), method="GET"):
            answer = shell.fails("service unavailable", "list", "")
            check("does not come to an end" in answer["message"], lambda: answer)
        for page in (b"<html>Please sign in</html>", b""):
            with server.rule(faults.status(200, {"Content-Type": "text/html"}, page), method="GET"):
                for span in ((), (5, 10)):
                    answer, got = shell.get("a", *span)
                    check_equal((answer["code"], answer["retryable"], got), ("service unavailable", True, b""), "content")


@test()
def other_objects_in_the_bucket_are_left_out(case):
    with gcsserver.GcsServer("bucket") as server:
        shell = start(case, server)
        shell.put("a", b"x")
        for name in ("pre/fixed", "pre/fix", "pre/fix/", "pre/fix//b", "pre/fix/dir/", "other", "pre/fix/../x", "pre/fix/c\td"):
            server.store(name, b"y", False)
        check_equal(shell.ok("list", "")["objects"], [["a", 1]], "the list")


@test()
def settings_that_are_wrong(case):
    with gcsserver.GcsServer("bucket") as server:
        for url, words in (("gcs://bucket/p?list-page-size=0", "list-page-size"), ("gcs://bucket/p?no-such=1", "no-such"),
                           ("gcs://Bucket", "bucket"), ("gcs://bucket?endpoint=http://example.com", "http://")):
            done = subprocess.run([tool("store_shell"), url], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                  stderr=subprocess.DEVNULL, env=environment(server.env))
            answer = json.loads(done.stdout)
            check_equal(answer["code"], "invalid argument or configuration", url)
            check(words in answer["message"] + answer["hint"], lambda: answer)
        check_equal(server.seen(), [], "requests")


if __name__ == "__main__":
    harness.main("gcs")
