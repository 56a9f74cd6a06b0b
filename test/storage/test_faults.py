#!/usr/bin/python3
"""test_faults.py - the proxies and credential endpoints that the other storage tests rely on do what they say.

A driver's test is worth as much as the fault that it believes to have caused; here each is caused against a plain client.
"""

import base64
import contextlib
import email.utils
import hashlib
import http.client
import json
import os
import resource
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from ljtest import fakecloud, faults, harness, httpd, s3gate, servers, stores, tls  # noqa: E402
from ljtest.harness import Failure, check, check_equal, test, wait_for  # noqa: E402

ODD_KEY = "p/ü &+%~'(x)=/1"

class Outcome:
    """What a client saw of one request."""

    def __init__(self, client, method, key, body=b"", headers=None):
        started = time.monotonic()
        self.status, self.headers, self.body, self.error = None, {}, b"", None
        try:
            self.status, self.headers, self.body = client.request(method, "bkt", key, headers=headers, body=body)
        except (OSError, http.client.HTTPException) as error:
            self.error = type(error).__name__
        self.seconds = time.monotonic() - started


BODY = bytes(range(256)) * 400


@test(timeout=90)
def faults_of_the_proxy(t):
    with servers.S3rver() as store, faults.Proxy(store.endpoint) as proxy:
        through = stores.S3(proxy.endpoint, store.access_key, store.secret_key)
        store.make_bucket("bkt")
        store.put("bkt", "key", BODY)

        def meets(action, method="GET", body=b"", key="key"):
            """One request under this rule: (what the client saw, what the proxy recorded)."""
            proxy.forget()
            with proxy.rule(action):
                outcome = Outcome(through, method, key, body)
            proxy.settle()
            return outcome, proxy.requests[0]

        with t.part("nothing"):
            outcome, record = meets(httpd.Action())
            check_equal((outcome.status, outcome.body), (200, BODY), "through the proxy")
            check_equal((record.method, record.path, record.status, record.upstream, record.sent),
                        ("GET", "/bkt/key", 200, 200, len(BODY)), "record")
            check_equal(record.headers["Host"], "127.0.0.1:%d" % proxy.port, "Host")
        with t.part("an answer"):
            outcome, record = meets(faults.s3_error("SlowDown", retry_after=1), "PUT", BODY)
            check_equal((outcome.status, outcome.headers["Retry-After"]), (503, "1"), "answer")
            check_equal(stores.parse_xml(outcome.body).findtext("Code"), "SlowDown", "code")
            check_equal((record.body_length, record.upstream, record.faults), (len(BODY), None, ["SlowDown"]), "record")
            outcome, _ = meets(faults.azure_error("ServerBusy"))
            check_equal((outcome.status, outcome.headers["x-ms-error-code"]), (503, "ServerBusy"), "Azure")
            outcome, _ = meets(faults.gcs_error(429, "rateLimitExceeded"))
            check_equal((outcome.status, json.loads(outcome.body)["error"]["errors"][0]["reason"]), (429, "rateLimitExceeded"),
                        "GCS")
        with t.part("reset before"):
            for read_body in (True, False):
                outcome, record = meets(faults.reset_before(read_body), "PUT", b"other", "reset")
                check_equal((outcome.error, record.status, record.upstream), ("ConnectionResetError", None, None), "PUT")
                check(not store.exists("bkt", "reset"), "the request went on")
        with t.part("reset after"):
            outcome, record = meets(faults.reset_after(), "PUT", b"other", "after")
            check_equal((outcome.error, record.status, record.upstream), ("ConnectionResetError", None, 200), "PUT")
            check_equal(store.read("bkt", "after"), b"other", "what the store has")
        with t.part("reset in the upload"):
            outcome, record = meets(faults.reset_upload(5000), "PUT", BODY, "half")
            check_equal((outcome.error, record.body_length), ("ConnectionResetError", 5000), "PUT")
        with t.part("reset in the answer"):
            outcome, record = meets(faults.reset_body(1000))
            check_equal((outcome.error, record.sent), ("ConnectionResetError", 1000), "GET")
        with t.part("truncation"):
            outcome, record = meets(faults.truncate(1000))
            check_equal((outcome.error, record.sent), ("IncompleteRead", 1000), "GET")
            outcome, record = meets(faults.truncate(1000, lie=True))
            check_equal((outcome.status, outcome.headers["Content-Length"], outcome.body), (200, "1000", BODY[:1000]), "GET")
        with t.part("corruption"):
            outcome, _ = meets(faults.corrupt(70000, 2, 1))
            want = bytearray(BODY)
            want[70000] ^= 1
            want[70001] ^= 1
            check(outcome.body == bytes(want), "the wrong bytes are corrupted")
            meets(faults.corrupt_upload(0), "PUT", b"abc", "bad")
            check_equal(store.read("bkt", "bad"), b"\x9ebc", "what was stored")
        with t.part("times"):
            outcome, _ = meets(faults.delay(150))
            check(0.15 <= outcome.seconds < 10, "delay of %g s" % outcome.seconds)
            outcome, _ = meets(faults.delay_answer(150))
            check(0.15 <= outcome.seconds < 10, "delay of %g s" % outcome.seconds)
            outcome, _ = meets(faults.slow(400000))
            check(0.2 < outcome.seconds < 10 and outcome.body == BODY, "%g s at 400 KB/s" % outcome.seconds)
            outcome, _ = meets(faults.black_hole(0.2))
            check(outcome.status is None and 0.2 <= outcome.seconds < 10, "black hole: %s" % vars(outcome))
        with t.part("headers"):
            outcome, _ = meets(faults.headers({"ETag": None, "X-Test": "1"}))
            check("ETag" not in outcome.headers and outcome.headers["X-Test"] == "1", "%s" % outcome.headers)
            outcome, _ = meets(faults.skew(-4000))
            late = time.time() - email.utils.parsedate_to_datetime(outcome.headers["Date"]).timestamp()
            check(3990 < late < 4010, "Date is %d s old" % late)
            outcome, record = meets(faults.request_headers({"X-Amz-Date": "nonsense"}))
            check_equal((outcome.status, record.upstream), (403, 403), "with another header")
            outcome, record = meets(faults.replace_status(500), "PUT", b"done", "done")
            check_equal((outcome.status, record.upstream, store.read("bkt", "done")), (500, 200, b"done"), "another status")


@test()
def stalls_and_connections(t):
    with servers.S3rver() as store, faults.Proxy(store.endpoint) as proxy:
        through = stores.S3(proxy.endpoint, store.access_key, store.secret_key)
        store.make_bucket("bkt")
        store.put("bkt", "key", BODY)
        host = ("127.0.0.1", proxy.port)
        with t.part("stall"), proxy.rule(faults.stall(1000)):
            with contextlib.closing(http.client.HTTPConnection(*host, timeout=60)) as connection:
                connection.request("GET", "/bkt/key")
                answer = connection.getresponse()
                check_equal(answer.read(1000), BODY[:1000], "begin of the body")
                connection.sock.settimeout(1)
                try:
                    answer.read(1)
                    raise Failure("more came")
                except socket.timeout:
                    pass
        with t.part("drop"), proxy.rule(faults.black_hole()):
            with contextlib.closing(socket.create_connection(host)) as raw:
                raw.sendall(b"GET /bkt/key HTTP/1.1\r\nHost: x\r\n\r\n")
                wait_for(lambda: proxy.seen(test=lambda r: "black hole" in r.faults and r.ended is None), "the request")
                proxy.drop()
                raw.settimeout(60)
                try:
                    check_equal(raw.recv(10), b"", "after the end")
                except ConnectionResetError:
                    pass
        with t.part("connections that break"):
            for what, errors in (("reset", ("ConnectionResetError", "BrokenPipeError")), ("hang", ("TimeoutError", "timeout"))):
                proxy.on_connect = what
                try:
                    with contextlib.closing(socket.create_connection(host, timeout=0.5)) as raw:
                        raw.sendall(b"GET / HTTP/1.1\r\n\r\n")
                        raw.recv(1)
                        raise Failure("an answer")
                except OSError as got:
                    check(type(got).__name__ in errors, "%s: %r" % (what, got))
                finally:
                    proxy.on_connect = None
        with t.part("down and up"):
            proxy.down()
            check_equal(Outcome(through, "GET", "key").error, "ConnectionRefusedError", "while it is down")
            proxy.up()
            check_equal(Outcome(through, "GET", "key").body, BODY, "afterwards")
        with t.part("the store is gone"):
            store.stop()
            check_equal(Outcome(through, "GET", "key").status, 502, "status")
            store.start()
            check_equal(Outcome(through, "GET", "key").body, BODY, "afterwards")


class Echo(httpd.Server):
    """A server that says what it got."""

    def respond(self, request, body, plan):
        if "early" in request.args:
            return httpd.Response(403, {}, b"not you")
        digest, length = hashlib.sha256(), 0
        for piece in body.pieces():
            digest.update(piece)
            length += len(piece)
        answer = json.dumps({"path": request.target, "host": request.headers.get("Host"), "length": length,
                             "sha256": digest.hexdigest(), "chunked": body.chunked, "args": request.args}).encode()
        if "many" in request.args:
            return httpd.Response(200, {}, iter([bytes(1 << 20)] * int(request.args["many"])),
                                  None if "chunked" in request.args else int(request.args["many"]) << 20)
        return httpd.Response(200, {"Content-Type": "application/json"}, answer)


@test()
def occurrences_and_matching(t):
    with Echo() as server:

        def statuses(count, path="/a/wal/1?x=1", method="GET"):
            found = []
            for _ in range(count):
                with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)) as connection:
                    connection.request(method, path)
                    found.append(connection.getresponse().status)
            return found

        for match, want in (({"nth": 2}, [200, 503, 200, 200, 200]), ({"nth": (1, 4)}, [503, 200, 200, 503, 200]),
                            ({"count": 2}, [503, 503, 200, 200, 200]), ({"every": 2}, [200, 503, 200, 503, 200]),
                            ({"after": 3}, [200, 200, 200, 503, 503]), ({"after": 1, "count": 1}, [200, 503, 200, 200, 200])):
            with server.rule(faults.status(503), **match) as rule:
                check_equal(statuses(5), want, "%s" % match)
                check_equal((rule.seen, rule.fired), (5, want.count(503)), "counts of %s" % match)
        with server.rule(faults.status(503), method="PUT|POST", path="/wal/[0-9]+$", query="x=1"):
            check_equal(statuses(1) + statuses(1, method="PUT") + statuses(1, "/a/wal/?x=1", "PUT") +
                        statuses(1, "/a/wal/1", "POST"), [200, 503, 200, 200], "method, path and query")
        check_equal(len(server.seen("PUT", "/wal/", status=503)), 1, "records that match")
        # two rules at once, one of them with a delay
        server.add(faults.delay(100))
        server.add(faults.status(418))
        started = time.monotonic()
        check_equal(statuses(1), [418], "two rules")
        check(time.monotonic() - started >= 0.1, "the delay was lost")
        check_equal(server.requests[-1].faults, ["delay", "status 418"], "names")
        server.clear()
        check_equal(statuses(1), [200], "after clear()")


@test()
def messages_pass_unchanged(t):
    with Echo() as server, faults.Proxy(server.endpoint) as proxy:
        connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=120)
        with t.part("keep-alive, and the Host as sent"):
            for number in range(3):
                connection.request("GET", "//odd//path%2F%20?b=2&a=%31", headers={"Host": "bucket.example:1"})
                got = json.load(connection.getresponse())
                check_equal((got["path"], got["host"]), ("//odd//path%2F%20?b=2&a=%31", "bucket.example:1"), "as it came")
            check_equal(proxy.connections, 1, "connections of the client")
        with t.part("chunked both ways"):
            connection.request("PUT", "/", body=iter([b"abc", b"d" * 70000]), encode_chunked=True,
                               headers={"Transfer-Encoding": "chunked"})
            got = json.load(connection.getresponse())
            check_equal((got["length"], got["chunked"]), (70003, True), "request")
            connection.request("GET", "/?many=2&chunked=1")
            answer = connection.getresponse()
            check_equal((answer.getheader("Transfer-Encoding"), len(answer.read())), ("chunked", 2 << 20), "answer")
            with proxy.rule(faults.truncate(1000)):
                connection.request("GET", "/?many=2&chunked=1")
                try:
                    connection.getresponse().read()
                    raise Failure("a truncated chunked body was whole")
                except http.client.IncompleteRead:
                    connection.close()
        with t.part("HEAD"):
            connection.request("HEAD", "/?many=3")
            answer = connection.getresponse()
            check_equal((answer.getheader("Content-Length"), answer.read()), (str(3 << 20), b""), "answer")
        with t.part("Expect: 100-continue"):
            for path, want in (("/", b"HTTP/1.1 100 Continue"), ("/?early=1", b"HTTP/1.1 403 Forbidden")):
                with contextlib.closing(socket.create_connection(("127.0.0.1", proxy.port), timeout=60)) as raw:
                    raw.sendall(b"PUT %s HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n"
                                b"Expect: 100-continue\r\n\r\n" % path.encode())
                    check_equal(raw.recv(1000).split(b"\r\n")[0], want, "first line for " + path)
                    if b"100" in want:
                        raw.sendall(b"hello")
                        check(b"200 OK" in raw.recv(1000), "no answer after the body")
        with t.part("an answer before the body was read"):
            connection.request("PUT", "/?early=1", body=bytes(3 << 20))
            check_equal(connection.getresponse().status, 403, "status")
        with t.part("large bodies are not held in memory"):
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            with contextlib.closing(http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=300)) as big:
                big.request("GET", "/?many=300")
                answer, total = big.getresponse(), 0
                while piece := answer.read(1 << 20):
                    total += len(piece)
                check_equal(total, 300 << 20, "bytes down")
                big.putrequest("PUT", "/")
                big.putheader("Content-Length", str(300 << 20))
                big.endheaders()
                piece = bytes(1 << 20)
                for _ in range(300):
                    big.send(piece)
                check_equal(json.load(big.getresponse())["length"], 300 << 20, "bytes up")
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
            check(grown < 60 << 10, "memory grew by %d KiB" % grown)


@test()
def slow_uploads_are_felt(t):
    with Echo(receive_buffer=4096) as server:
        server.add(faults.slow_upload(20000))
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=0.5)) as connection:
            try:
                connection.request("PUT", "/", body=bytes(16 << 20))
                raise Failure("16 MB were taken at once")
            except socket.timeout:
                pass


@test()
def tls_and_the_forward_proxy(t):
    authority = tls.Authority(t.folder("ca"))
    with Echo() as plain, faults.Proxy(plain.endpoint, tls=authority, names=("storage.example", "127.0.0.1")) as secure:
        trusting = ssl.create_default_context(cafile=authority.ca_file)
        with t.part("https"):
            with urllib.request.urlopen(secure.endpoint + "/x", context=trusting, timeout=60) as answer:
                check_equal(json.load(answer)["path"], "/x", "path")
            for wrong in ("localhost", "127.0.0.1"):
                context = ssl.create_default_context() if wrong == "127.0.0.1" else trusting
                try:
                    urllib.request.urlopen("https://%s:%d/" % (wrong, secure.port), context=context, timeout=60)
                    raise Failure("a wrong certificate was fine")
                except urllib.error.URLError as error:
                    check("certificate" in str(error).lower(), "%s" % error)
            with faults.Proxy(plain.endpoint, tls=authority, certificate_days=0) as old:
                try:
                    urllib.request.urlopen(old.endpoint, context=trusting, timeout=60)
                    raise Failure("an expired certificate was fine")
                except urllib.error.URLError as error:
                    check("expired" in str(error), "%s" % error)
            with secure.rule(faults.reset_body(10)):
                try:
                    urllib.request.urlopen(secure.endpoint + "/?many=1", context=trusting, timeout=60).read()
                    raise Failure("a reset went unseen")
                except (OSError, http.client.HTTPException):
                    pass
        hosts = {"storage.example": "127.0.0.1:%d" % secure.port, "plain.example": "127.0.0.1:%d" % plain.port}
        with t.part("CONNECT"), faults.ForwardProxy(hosts) as forward:
            connection = http.client.HTTPSConnection("127.0.0.1", forward.port, context=trusting, timeout=60)
            connection.set_tunnel("storage.example", 443)
            connection.request("GET", "/through")
            check_equal(json.load(connection.getresponse())["host"], "storage.example", "Host")
            connection.close()
            check_equal([r.path for r in forward.seen("CONNECT", status=200)], ["storage.example:443"], "record")
            connection = http.client.HTTPConnection("127.0.0.1", forward.port, timeout=60)
            connection.set_tunnel("elsewhere.example", 443)
            try:
                connection.connect()
                raise Failure("a tunnel to elsewhere")
            except OSError as error:
                check("502" in str(error), "%s" % error)
        with t.part("absolute URIs and a login"), faults.ForwardProxy(hosts, login=("us:er", "pw")) as forward:
            for login, want in (("", 407), ("us:er:pw", 200)):
                connection = http.client.HTTPConnection("127.0.0.1", forward.port, timeout=60)
                headers = {"Host": "plain.example"}
                if login:
                    headers["Proxy-Authorization"] = "Basic " + base64.b64encode(login.encode()).decode()
                connection.request("GET", "http://plain.example/a?b=c", headers=headers)
                answer = connection.getresponse()
                check_equal(answer.status, want, "status as %r" % login)
                if want == 200:
                    check_equal(json.load(answer)["path"], "/a?b=c", "target")
                connection.close()


@test()
def the_gate_checks_as_s3_does(t):
    with servers.S3rver() as store, s3gate.Gate(store) as gate:
        client = stores.S3(gate.endpoint, store.access_key, store.secret_key)
        client.make_bucket("bkt")
        client.put("bkt", ODD_KEY, BODY * 100)
        check_equal(client.read("bkt", ODD_KEY), BODY * 100, "content")
        check_equal(client.objects("bkt", "p/", page=1), [(ODD_KEY, len(BODY) * 100)], "objects")

        def code(method="GET", key="key", client=client, **more):
            status, _, body = client.request(method, "bkt", key, **more)
            return stores.parse_xml(body).findtext("Code") if status >= 300 else status

        def stranger(access_key=store.access_key, secret_key=store.secret_key, **more):
            return stores.S3(gate.endpoint, access_key, secret_key, **more)

        check_equal(code(client=stranger(secret_key="wrong")), "SignatureDoesNotMatch", "secret")
        check_equal(code(client=stranger(access_key="wrong")), "InvalidAccessKeyId", "access key")
        check_equal(code(client=stranger(access_key="")), "AccessDenied", "not signed")
        check_equal(code(client=stranger(region="eu-west-3")), "AuthorizationHeaderMalformed", "region")
        check_equal(code("PUT", headers={"x-amz-content-sha256": "0" * 64}, body=b"x"), "XAmzContentSHA256Mismatch", "hash")
        check_equal(code("PUT", headers={"content-md5": "AAAAAAAAAAAAAAAAAAAAAA=="}, body=b"x"), "BadDigest", "MD5")
        check_equal(code("PUT", headers={"x-amz-checksum-crc32": "AAAAAA=="}, body=b"x"), "BadDigest", "CRC")
        check_equal(code("PUT", headers={"x-amz-content-sha256": "UNSIGNED-PAYLOAD"}, body=b"x"), 200, "unsigned payload")
        many = b"<Delete><Object><Key>key</Key></Object></Delete>"
        check_equal(code("POST", None, query=[("delete", "")], body=many), "InvalidRequest", "deletion without digest")
        digest = base64.b64encode(hashlib.md5(many).digest()).decode()
        check_equal(code("POST", None, query=[("delete", "")], body=many, headers={"content-md5": digest}), 200, "with it")
        gate.skew = 3600
        status, headers, body = client.request("GET", "bkt")
        check_equal(stores.parse_xml(body).findtext("Code"), "RequestTimeTooSkewed", "clock")
        ahead = email.utils.parsedate_to_datetime(headers["Date"]).timestamp() - time.time()
        check(3590 < ahead < 3610, "its Date is %d s ahead" % ahead)


# ---------------------------------------------------------------------------------------------------------------------
# credentials


def ask(url, method="GET", headers=None, body=None):
    """(status, body) without any proxy of the environment."""
    split = urllib.parse.urlsplit(url)
    with contextlib.closing(http.client.HTTPConnection(split.netloc, timeout=60)) as connection:
        if isinstance(body, dict):
            body = urllib.parse.urlencode(body)
            headers = {"Content-Type": "application/x-www-form-urlencoded", **(headers or {})}
        connection.request(method, split.path + ("?" + split.query if split.query else ""), body, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read()


def signs_with(gate, found):
    """Whether the gate takes these credentials of AWS."""
    client = stores.S3(gate.endpoint, found["AccessKeyId"], found["SecretAccessKey"], token=found["Token"])
    return client.request("GET", "bkt")[0] == 200


@test()
def aws_instance_metadata(t):
    with servers.S3rver() as store, fakecloud.Imds(expiry=60) as imds, s3gate.Gate(store) as gate:
        store.make_bucket("bkt")
        gate.credentials = imds.issued
        base = imds.env["AWS_EC2_METADATA_SERVICE_ENDPOINT"]
        check_equal(ask(base + imds.CREDENTIALS)[0], 401, "without a session")
        check_equal(ask(base + imds.TOKEN, "PUT")[0], 400, "without a TTL")
        check_equal(len(imds.problems), 2, "problems")
        status, token = ask(base + imds.TOKEN, "PUT", {"X-aws-ec2-metadata-token-ttl-seconds": "60"})
        session = {"X-aws-ec2-metadata-token": token.decode()}
        check_equal(ask(base + imds.CREDENTIALS, headers=session), (200, imds.role.encode()), "role")
        found = json.loads(ask(base + imds.CREDENTIALS + imds.role, headers=session)[1])
        check_equal(found["Code"], "Success", "Code")
        check(signs_with(gate, found), "the credentials do not sign")
        imds.issued[found["AccessKeyId"]].expires = time.time()
        check(not signs_with(gate, found), "expired credentials sign")
        check_equal(gate.refusals, ["ExpiredToken"], "refusals")
        imds.forget_sessions()
        check_equal(ask(base + imds.CREDENTIALS, headers=session)[0], 401, "with an old session")
        imds.v1 = True
        check_equal(ask(base + imds.CREDENTIALS)[0], 200, "version 1")
        imds.failure = "AssumeRoleUnauthorizedAccess"
        check(b"AssumeRoleUnauthorizedAccess" in ask(base + imds.CREDENTIALS + imds.role)[1], "no failure")
        imds.role = None
        check_equal(ask(base + imds.CREDENTIALS)[0], 404, "without a role")


@test()
def aws_containers_and_web_identity(t):
    for kind in (fakecloud.EcsCredentials, fakecloud.EksPodIdentity):
        with kind() as server:
            url = server.env["AWS_CONTAINER_CREDENTIALS_FULL_URI"]
            token = open(server.env["AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"]).read()
            check_equal(ask(url, headers={"Authorization": token})[0], 200, "with the token")
            server.check()
            server.token_file.rotate()
            check_equal(ask(url, headers={"Authorization": token})[0], 401, "with the old token")
            server.token = "fixed"
            check_equal(ask(url, headers={"Authorization": server.env["AWS_CONTAINER_AUTHORIZATION_TOKEN"]})[0], 200, "fixed")
            check_equal(len(server.issued), 2, "handed out")
            try:
                server.check()
            except Failure:
                pass
            else:
                raise Failure("check() saw no problem")
    with fakecloud.Sts() as sts:
        env = sts.env
        form = {"Action": "AssumeRoleWithWebIdentity", "Version": "2011-06-15", "RoleArn": env["AWS_ROLE_ARN"],
                "RoleSessionName": "x", "WebIdentityToken": sts.token_file.value}
        status, body = ask(env["AWS_ENDPOINT_URL_STS"] + "/", "POST", body=form)
        check_equal((status, stores.parse_xml(body).findtext(".//AccessKeyId") in sts.issued), (200, True), "credentials")
        sts.token_file.rotate()
        status, body = ask(env["AWS_ENDPOINT_URL_STS"] + "/", "POST", body=form)
        check_equal((status, stores.parse_xml(body).findtext(".//Code")), (400, "InvalidIdentityToken"), "old token")
        sts.failure = (400, "IDPCommunicationError")
        check_equal(stores.parse_xml(ask(sts.endpoint + "/", "POST", body=form)[1]).findtext(".//Code"),
                    "IDPCommunicationError", "failure")


def jwt(t, key_file, claims, header=None):
    """A JWT signed with the openssl command."""
    text = ".".join(fakecloud.base64url(json.dumps(part).encode()) for part in
                    ({"alg": "RS256", "typ": "JWT", **(header or {})}, claims))
    with open(t.path("to-sign"), "w") as file:
        file.write(text)
    command = ["openssl", "dgst", "-sha256", "-sign", key_file, t.path("to-sign")]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    return text + "." + fakecloud.base64url(done.stdout)


@test()
def google_tokens(t):
    with fakecloud.GoogleToken() as google, servers.FakeGcs() as store, fakecloud.BearerGate(store.endpoint, google) as gate:
        store.make_bucket("bkt")
        with open(google.env["GOOGLE_APPLICATION_CREDENTIALS"]) as file:
            account = json.load(file)
        now = int(time.time())
        claims = {"iss": account["client_email"], "scope": fakecloud.STORAGE_SCOPES[1], "aud": account["token_uri"],
                  "iat": now, "exp": now + 3600}

        def grant(assertion):
            status, body = ask(account["token_uri"], "POST", body={"grant_type": fakecloud.JWT_BEARER, "assertion": assertion})
            return status, json.loads(body)

        status, answer = grant(jwt(t, google.key_file, claims))
        check_equal(status, 200, "service account")
        google.check()
        client = stores.Gcs(gate.endpoint, answer["access_token"])
        check_equal(client.objects("bkt"), [], "objects with the token")
        check_equal(stores.Gcs(gate.endpoint, "other").request("GET", "bkt")[0], 401, "another token")
        for change in ({"aud": "x"}, {"iss": "x"}, {"scope": "x"}, {"exp": now + 7200}, {"iat": now - 1000, "exp": now + 100}):
            check_equal(grant(jwt(t, google.key_file, {**claims, **change}))[0], 400, "claims with %s" % change)
        good = jwt(t, google.key_file, claims)
        check_equal(grant(good[:-8] + "AAAAAAAA")[1]["error"], "invalid_grant", "another signature")
        with open(google.authorized_user_file()) as file:
            user = json.load(file)
        form = {"grant_type": "refresh_token", **{k: user[k] for k in ("client_id", "client_secret", "refresh_token")}}
        check_equal(ask(user["token_uri"], "POST", body=form)[0], 200, "refresh token")
        check_equal(ask(user["token_uri"], "POST", body={**form, "refresh_token": "x"})[0], 400, "another refresh token")
        with open(google.external_account_file(impersonate=True)) as file:
            external = json.load(file)
        form = {"grant_type": fakecloud.TOKEN_EXCHANGE, "audience": external["audience"], "scope": fakecloud.STORAGE_SCOPES[0],
                "subject_token_type": external["subject_token_type"], "requested_token_type": fakecloud.ACCESS_TOKEN_TYPE,
                "subject_token": open(external["credential_source"]["file"]).read()}
        federated = json.loads(ask(external["token_url"], "POST", body=form)[1])["access_token"]
        status, body = ask(external["service_account_impersonation_url"], "POST", {"Authorization": "Bearer " + federated},
                           json.dumps({"scope": [fakecloud.STORAGE_SCOPES[0]]}))
        check_equal((status, json.loads(body)["accessToken"] in google.issued), (200, True), "impersonation")
        google.token_file.rotate()
        check_equal(ask(external["token_url"], "POST", body=form)[0], 400, "an old subject token")
        google.expiry = 0
        token = grant(good)[1]["access_token"]
        check_equal(stores.Gcs(gate.endpoint, token).request("GET", "bkt")[0], 401, "an expired token")
    with fakecloud.GoogleMetadata() as metadata:
        url = "http://%s%s" % (metadata.env["GCE_METADATA_HOST"], metadata.TOKEN)
        check_equal(ask(url)[0], 403, "without the header")
        status, body = ask(url, headers={"Metadata-Flavor": "Google"})
        check_equal((status, json.loads(body)["access_token"] in metadata.issued), (200, True), "metadata server")


@test()
def azure_tokens(t):
    scope = fakecloud.AZURE_RESOURCE + "/.default"
    with fakecloud.AzureAd(expiry=60) as azure:
        url = "%s/%s/oauth2/v2.0/token" % (azure.env["AZURE_AUTHORITY_HOST"], azure.env["AZURE_TENANT_ID"])
        form = {"grant_type": "client_credentials", "client_id": azure.env["AZURE_CLIENT_ID"], "scope": scope}
        status, body = ask(url, "POST", body={**form, "client_secret": azure.env["AZURE_CLIENT_SECRET"]})
        check_equal((status, json.loads(body)["expires_in"]), (200, 60), "client secret")
        status, body = ask(url, "POST", body={**form, "client_secret": "wrong"})
        check_equal((status, json.loads(body)["error"]), (401, "invalid_client"), "another secret")
        form.update(client_assertion_type=fakecloud.CLIENT_ASSERTION_TYPE,
                    client_assertion=open(azure.env_workload["AZURE_FEDERATED_TOKEN_FILE"]).read())
        check_equal(ask(url, "POST", body=form)[0], 200, "federated token")
        azure.token_file.rotate()
        check_equal(ask(url, "POST", body=form)[0], 401, "an old federated token")
    with fakecloud.AzureImds() as imds:
        url = imds.env["AZURE_POD_IDENTITY_AUTHORITY_HOST"] + imds.VM + "?" + urllib.parse.urlencode(
            {"api-version": "2018-02-01", "resource": fakecloud.AZURE_RESOURCE + "/"})
        check_equal(ask(url)[0], 400, "without the header")
        status, body = ask(url, headers={"Metadata": "true"})
        check_equal((status, json.loads(body)["access_token"] in imds.issued), (200, True), "machine")
        imds.identity = "an-identity"
        check_equal(ask(url, headers={"Metadata": "true"})[0], 400, "another identity")
        check_equal(ask(url + "&client_id=an-identity", headers={"Metadata": "true"})[0], 200, "that identity")
        env = imds.env_app_service
        imds.identity = None
        url = env["IDENTITY_ENDPOINT"] + "?api-version=2019-08-01&resource=" + fakecloud.AZURE_RESOURCE
        check_equal(ask(url, headers={"X-IDENTITY-HEADER": env["IDENTITY_HEADER"]})[0], 200, "App Service")


if __name__ == "__main__":
    harness.main("storage faults")
