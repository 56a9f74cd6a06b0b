#!/usr/bin/python3
"""The S3 server of the benchmarks: it answers as S3 does, and is fast enough to measure others by."""

import concurrent.futures
import os
import re
import socket
import sys
import time
import urllib.parse
import xml.etree.ElementTree

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from ljtest import fasts3, harness  # noqa: E402
from ljtest.harness import check, check_equal, wait_for  # noqa: E402

MIB = 1 << 20


def quote(text):
    return urllib.parse.quote(text, safe="/")


def listed(store, query, bucket="b"):
    """(keys, common prefixes, root element) of one page."""
    status, _, body = store.request("GET", "/%s?%s" % (bucket, query))
    check_equal(status, 200, "status of a listing")
    root = xml.etree.ElementTree.fromstring(re.sub(rb' xmlns="[^"]*"', b"", body))
    return [e.text for e in root.findall("Contents/Key")], [e.text for e in root.findall("CommonPrefixes/Prefix")], root


@harness.test()
def objects(case):
    with fasts3.FastS3() as store:
        check_equal(store.request("GET", "/b/none")[0], 404, "an object that is not there")
        status, headers, _ = store.request("PUT", "/b/a%20b/c", b"0123456789")
        check_equal(status, 200, "put")
        etag = headers["ETag"]
        status, headers, body = store.request("GET", "/b/a%20b/c")
        check_equal((status, body, headers["ETag"]), (200, b"0123456789", etag), "get")
        for asked, status, body, where in [("bytes=2-4", 206, b"234", "bytes 2-4/10"), ("bytes=7-", 206, b"789", "bytes 7-9/10"),
                                           ("bytes=-3", 206, b"789", "bytes 7-9/10"), ("bytes=8-99", 206, b"89", "bytes 8-9/10")]:
            got = store.request("GET", "/b/a%20b/c", headers={"Range": asked})
            check_equal((got[0], got[2], got[1]["Content-Range"]), (status, body, where), asked)
        check_equal(store.request("GET", "/b/a%20b/c", headers={"Range": "bytes=10-"})[0], 416, "a range behind the end")
        status, headers, body = store.request("HEAD", "/b/a%20b/c")
        check_equal((status, headers["Content-Length"], body), (200, "10", b""), "head")
        check_equal(store.request("PUT", "/b/a%20b/c", b"new", {"If-None-Match": "*"})[0], 412, "put if absent")
        check_equal(store.request("PUT", "/b/d", b"", {"If-None-Match": "*"})[0], 200, "put if absent of a new one")
        check_equal(store.request("GET", "/b/d")[2], b"", "an empty object")
        check_equal(store.request("DELETE", "/b/d")[0], 204, "delete")
        check_equal(store.request("DELETE", "/b/d")[0], 204, "delete again")
        check_equal(store.request("HEAD", "/b/d")[0], 404, "after the delete")


@harness.test()
def listings(case):
    with fasts3.FastS3() as store:
        keys = sorted(["p/%04d" % i for i in range(1203)] + ["p/x & <y>", "q", "p/sub/1", "p/sub/2"])
        for key in keys:
            store.request("PUT", "/b/" + quote(key), b"x")
        store.request("PUT", "/other/p/z", b"x")
        got, token, pages = [], "", 0
        while True:
            page, _, root = listed(store, "list-type=2&prefix=p/&max-keys=500" + token)
            got += page
            pages += 1
            if root.findtext("IsTruncated") == "false":
                break
            token = "&continuation-token=" + quote(root.findtext("NextContinuationToken"))
        check_equal((got, pages), ([key for key in keys if key.startswith("p/")], 3), "all pages")
        check_equal(listed(store, "list-type=2&prefix=p/&start-after=p/1201")[0], ["p/1202", "p/sub/1", "p/sub/2", "p/x & <y>"],
                    "start-after")
        check_equal(listed(store, "list-type=2&prefix=p/x&encoding-type=url")[0], ["p/x%20%26%20%3Cy%3E"], "encoding-type")
        check_equal(listed(store, "list-type=2&prefix=none")[0], [], "an empty listing")
        check_equal(listed(store, "list-type=2&delimiter=/")[:2], (["q"], ["p/"]), "delimiter")
        check_equal(listed(store, "list-type=2&delimiter=/&prefix=p/&start-after=p/1202")[:2], (["p/x & <y>"], ["p/sub/"]),
                    "delimiter and prefix")
        got, marker = [], ""
        while True:
            page, prefixes, root = listed(store, "delimiter=/&max-keys=1&marker=" + quote(marker))
            got += page + prefixes
            if root.findtext("IsTruncated") == "false":
                break
            marker = root.findtext("NextMarker")
        check_equal(got, ["p/", "q"], "the first version, key by key")


@harness.test()
def multipart(case):
    with fasts3.FastS3(folder=case.dir) as store:
        def create():
            body = store.request("POST", "/b/big?uploads")[2]
            return re.search(rb"<UploadId>(.*)</UploadId>", body).group(1).decode()

        def part(upload, number, body):
            status, headers, _ = store.request("PUT", "/b/big?partNumber=%d&uploadId=%s" % (number, upload), body)
            check_equal(status, 200, "a part")
            return headers["ETag"]

        def complete(upload, parts, headers=None):
            body = "".join("<Part><PartNumber>%d</PartNumber><ETag>%s</ETag></Part>" % item for item in parts)
            status, _, body = store.request("POST", "/b/big?uploadId=" + upload,
                                            "<CompleteMultipartUpload>%s</CompleteMultipartUpload>" % body, headers)
            code = re.search(rb"<Code>(.*)</Code>", body)
            return status, code and code.group(1).decode()

        upload = create()
        bodies = [os.urandom(5 * MIB), os.urandom(5 * MIB + 1), b"end"]
        etags = [(n, part(upload, n, body)) for n, body in enumerate(bodies, 1)]
        check_equal(store.request("HEAD", "/b/big")[0], 404, "before it is complete")
        check_equal(complete(upload, etags[::-1]), (400, "InvalidPartOrder"), "parts in the wrong order")
        check_equal(complete(upload, [(1, '"wrong"')]), (400, "InvalidPart"), "a wrong ETag")
        check_equal(complete(upload, [etags[2], (4, '"x"')]), (400, "InvalidPart"), "a part that is not there")
        check_equal(complete(upload, []), (400, "MalformedXML"), "no parts")
        store.request("PUT", "/b/big", b"here first")
        check_equal(complete(upload, etags, {"If-None-Match": "*"}), (412, "PreconditionFailed"), "complete if absent")
        check_equal(complete(upload, [(n, e.replace('"', "&quot;")) for n, e in etags]), (200, None), "complete")
        check(store.request("GET", "/b/big")[2] == b"".join(bodies), "the object is not its parts")
        got = store.request("GET", "/b/big", headers={"Range": "bytes=%d-%d" % (5 * MIB - 2, 10 * MIB + 2)})[2]
        check(got == b"".join(bodies)[5 * MIB - 2:10 * MIB + 3], "a range over three parts")
        check_equal(complete(upload, etags), (404, "NoSuchUpload"), "complete again")
        upload = create()
        small = [(n, part(upload, n, b"small")) for n in (1, 2)]
        check_equal(complete(upload, small), (400, "EntityTooSmall"), "small parts")
        check_equal(store.stats()["uploads_open"], 1, "open uploads")
        check_equal(store.request("DELETE", "/b/big?uploadId=" + upload)[0], 204, "abort")
        check_equal(store.request("DELETE", "/b/big?uploadId=" + upload)[0], 404, "abort again")
        check_equal(store.stats()["uploads_open"], 0, "open uploads after the abort")


@harness.test()
def delete_objects_and_stats(case):
    with fasts3.FastS3(discard="bulk/") as store:
        for key in ["a", "b&c", "d/e"]:
            store.request("PUT", "/b/" + quote(key), b"123")
        body = "<Delete><Object><Key>a</Key></Object><Object><Key>b&amp;c</Key></Object><Object><Key>no</Key></Object></Delete>"
        status, _, answer = store.request("POST", "/b?delete", body)
        check_equal((status, answer.count(b"<Deleted>")), (200, 3), "DeleteObjects")
        check_equal(listed(store, "list-type=2")[0], ["d/e"], "what is left")
        store.request("PUT", "/b/bulk/1", bytes(3 * MIB))
        check_equal(store.request("HEAD", "/b/bulk/1")[1]["Content-Length"], str(3 * MIB), "size of a discarded object")
        check_equal(store.request("GET", "/b/bulk/1")[0], 403, "a discarded object")
        stats = wait_for(lambda: store.stats()["bytes_in"] > 3 * MIB and store.stats(), "the bytes are counted")
        wanted = {"put": 4, "delete_objects": 1, "list": 1, "head": 1, "get": 1}
        check_equal({kind: n for kind, n in stats["requests"].items() if n}, wanted, "requests")
        check_equal((stats["objects"], stats["object_bytes"]), (2, 3 * MIB + 3), "objects")
        check(stats["bytes_in"] > 3 * MIB, "bytes in")
        wait_for(lambda: store.stats()["connections"]["open"] == 1, "the connections that were closed are gone")


@harness.test()
def failures_and_delays(case):
    with fasts3.FastS3() as store:
        store.control(fail=2, status=429)
        check_equal([store.request("PUT", "/b/x", b"x")[0] for _ in range(3)], [429, 429, 200], "ordered failures")
        store.control(delay_ms=150)
        for left in reversed(range(8)):  # one after another they take 2.4 s each time, on a busy machine now and then
            start = time.monotonic()
            with concurrent.futures.ThreadPoolExecutor(16) as pool:
                got = list(pool.map(lambda i: store.request("PUT", "/b/%d" % i, b"x")[0], range(16)))
            took = time.monotonic() - start
            check_equal(set(got), {200}, "statuses")
            check(took >= 0.15 and (took < 1.2 or left), "16 requests with a delay of 150 ms took %.2f s" % took)
            if took < 1.2:
                break
        check_equal(store.stats()["failures"], 2, "failures")


@harness.test()
def one_connection(case):
    """Requests behind each other in one packet, Expect, and what is refused."""
    with fasts3.FastS3() as store, socket.create_connection(("127.0.0.1", store.port), timeout=60) as s:
        s.sendall(b"PUT /b/x HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcGET /b/x HTTP/1.1\r\n\r\nHEAD /b/x HTTP/1.1\r\n\r\n")
        got = b""
        while got.count(b"HTTP/1.1 200") < 3 or not got.endswith(b"\r\n\r\n"):
            got += s.recv(65536)
        check(b"\r\n\r\nabcHTTP/1.1 200" in got, "the body does not follow its head")
        s.sendall(b"PUT /b/y HTTP/1.1\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
        check_equal(s.recv(65536), b"HTTP/1.1 100 Continue\r\n\r\n", "answer to Expect")
        s.sendall(b"xyz")
        check(s.recv(65536).startswith(b"HTTP/1.1 200"), "put after Expect")
        s.sendall(b"PUT /b/z HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
        check(s.recv(65536).startswith(b"HTTP/1.1 501"), "chunks are taken")
        check_equal(store.stats()["connections"]["accepted"], 2, "connections")


@harness.test()
def speed(case):
    """Far above what anything is measured at; the bound is what a busy machine still does."""
    body = bytes(64 * MIB)
    with fasts3.FastS3(discard="bulk/") as store:
        store.request("PUT", "/b/kept", body)

        def put(i):
            check_equal(store.request("PUT", "/b/bulk/%d" % i, body)[0], 200, "put")

        def get(_):
            check_equal(len(store.request("GET", "/b/kept")[2]), len(body), "get")

        for what in (put, get):
            best = 0
            for i in range(20):
                start = time.monotonic()
                what(i)
                best = max(best, 64 / (time.monotonic() - start))
                if i >= 3 and best > 100:
                    break
            print("# %s %d MiB/s" % (what.__name__, best))
            check(best > 100, "%s %d MiB/s at best" % (what.__name__, best))


if __name__ == "__main__":
    harness.main("fasts3")
