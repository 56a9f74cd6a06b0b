"""faults.py - a reverse proxy, a forward proxy and a tunnel that break requests as a test says, and record all of them.

    with servers.S3rver() as store, faults.Proxy(store.endpoint) as proxy:
        proxy.add(faults.s3_error("SlowDown", retry_after=1), method="PUT", path=r"/wal/", count=2)
        run(tool, store.url("b", "prefix", endpoint=proxy.endpoint), env=store.environment(proxy.endpoint))
        proxy.seen("PUT", r"/wal/")          # [Request], with .status, .upstream, .body_length, .faults, ...

Rules and records are those of httpd.py. The functions here make the actions; they can be combined by several rules, and every
action can be changed with dataclasses.replace. `proxy.down()` and `up()` stop and start listening on the same port,
`drop()` resets what is open, `on_connect = "reset"` or `"hang"` breaks connections before their first byte.
"""

import base64
import email.utils
import json
import select
import socket
import ssl
import threading
import time
import urllib.parse
import xml.sax.saxutils

from . import httpd
from .httpd import Action, Gone, Response

UPSTREAM_SECONDS = 120
CONTINUE_SECONDS = 1

S3_STATUS = {
    "AccessDenied": 403, "AuthorizationHeaderMalformed": 400, "BadDigest": 400, "ConditionalRequestConflict": 409,
    "EntityTooLarge": 400, "ExpiredToken": 400, "InternalError": 500, "InvalidAccessKeyId": 403, "InvalidToken": 400,
    "NoSuchBucket": 404, "NoSuchKey": 404, "NoSuchUpload": 404, "OperationAborted": 409, "PermanentRedirect": 301,
    "PreconditionFailed": 412, "RequestTimeTooSkewed": 403, "RequestTimeout": 400, "ServiceUnavailable": 503,
    "SignatureDoesNotMatch": 403, "SlowDown": 503, "TemporaryRedirect": 307, "XAmzContentSHA256Mismatch": 400}
AZURE_STATUS = {
    "AuthenticationFailed": 403, "AuthorizationFailure": 403, "BlobAlreadyExists": 409, "BlobNotFound": 404,
    "ConditionNotMet": 412, "ContainerBeingDeleted": 409, "ContainerNotFound": 404, "InternalError": 500,
    "InvalidAuthenticationInfo": 401, "LeaseIdMissing": 412, "Md5Mismatch": 400, "OperationTimedOut": 500,
    "ServerBusy": 503}


# ---------------------------------------------------------------------------------------------------------------------
# actions: an answer instead of the server's


def http_date(skew=0):
    return email.utils.formatdate(time.time() + skew, usegmt=True)


def answer(function, name="answer", read_body=True):
    """function(request) makes the Response; with read_body=False it is sent before the request's body was read."""
    return Action(name, answer=function, read_body=read_body)


def status(code, headers=None, body=b"", retry_after=None, skew=0, read_body=True, name=None):
    """An answer with this status; `skew` seconds are added to its Date."""
    extra = dict(headers or {})
    if retry_after is not None:
        extra.setdefault("Retry-After", retry_after)
    return answer(lambda request: Response(code, {"Date": http_date(skew), **extra}, body), name or "status %d" % code,
                  read_body)


def s3_error(code, status_code=None, message="no luck today", more=None, **other):
    """S3's XML error; `more` are further elements, such as Region or Endpoint. status_code=200: the error in a good answer."""
    text = '<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>%s</Code><Message>%s</Message>' % (
        code, xml.sax.saxutils.escape(message))
    for name, value in {"RequestId": "4442587FB7D0A2F9", **(more or {})}.items():
        text += "<%s>%s</%s>" % (name, xml.sax.saxutils.escape(str(value)), name)
    headers = {"Content-Type": "application/xml", "x-amz-request-id": "4442587FB7D0A2F9", **(other.pop("headers", None) or {})}
    return status(status_code or S3_STATUS[code], headers, text + "</Error>", name=code, **other)


def azure_error(code, status_code=None, message="no luck today", **other):
    """Azure's error: the code in x-ms-error-code and in XML."""
    text = '<?xml version="1.0" encoding="utf-8"?><Error><Code>%s</Code><Message>%s</Message></Error>' % (
        code, xml.sax.saxutils.escape(message))
    headers = {"Content-Type": "application/xml", "x-ms-error-code": code, "x-ms-request-id": "4442587f-b7d0-a2f9",
               **(other.pop("headers", None) or {})}
    return status(status_code or AZURE_STATUS[code], headers, text, name=code, **other)


def gcs_error(status_code, reason="backendError", message="no luck today", **other):
    """The JSON API's error."""
    body = json.dumps({"error": {"code": status_code, "message": message,
                                 "errors": [{"domain": "global", "reason": reason, "message": message}]}})
    headers = {"Content-Type": "application/json; charset=UTF-8", **(other.pop("headers", None) or {})}
    return status(status_code, headers, body, name=reason, **other)


# ---------------------------------------------------------------------------------------------------------------------
# actions: what happens to the connection, the request and the server's answer


def reset_before(read_body=True):
    """A reset instead of passing the request on; read_body=False: as soon as its head is there."""
    return Action("reset before", reset_before=True, read_body=read_body)


def reset_upload(after):
    """A reset in the middle of the request's body; the first `after` bytes were passed on."""
    return Action("reset upload", cut_request=after)


def reset_after():
    """A reset after the server has done it and before the client hears of it."""
    return Action("reset after", reset_after=True)


def reset_body(after):
    """The answer's head and `after` bytes of its body, then a reset."""
    return Action("reset body", cut=after, cut_how="reset")


def truncate(after, lie=False):
    """Only `after` bytes of the answer's body, then an orderly end; lie=True: with a Content-Length that agrees with it."""
    return Action("truncate", cut=after, cut_how="lie" if lie else "close")


def stall(after=0):
    """The answer's head and `after` bytes of its body, and then nothing."""
    return Action("stall", cut=after, cut_how="stall")


def black_hole(seconds=0, read_body=True):
    """Never an answer; the connection ends after so many seconds (0: with the proxy)."""
    return Action("black hole", hang=seconds, read_body=read_body)


def delay(milliseconds):
    """Waits before the request goes on."""
    return Action("delay", delay=milliseconds / 1000)


def delay_answer(milliseconds):
    """Waits after the server has answered."""
    return Action("delay answer", delay_answer=milliseconds / 1000)


def slow(rate):
    """The answer's body at so many bytes a second."""
    return Action("slow", rate=rate)


def slow_upload(rate):
    """The request's body is read at so many bytes a second (see receive_buffer of httpd.Server)."""
    return Action("slow upload", upload_rate=rate)


def corrupt(offset=0, count=1, mask=0xff):
    """Flips bits in the answer's body."""
    return Action("corrupt", corrupt=(offset, count, mask))


def corrupt_upload(offset=0, count=1, mask=0xff):
    """Flips bits in the request's body."""
    return Action("corrupt upload", corrupt_request=(offset, count, mask))


def headers(changes):
    """Sets headers of the answer; None removes one, a function is called for the value."""
    return Action("headers", response_headers=dict(changes))


def request_headers(changes):
    return Action("request headers", request_headers=dict(changes))


def skew(seconds):
    """The server's clock, as far as the Date of its answers shows it."""
    return Action("skew", response_headers={"Date": lambda: http_date(seconds)})


def replace_status(code):
    """The server did it, but says otherwise."""
    return Action("replace status", replace_status=code)


# ---------------------------------------------------------------------------------------------------------------------


def address(text):
    """("host", port) of "host:port", http://... or https://..."""
    parts = urllib.parse.urlsplit(text if "://" in text else "//" + text)
    return parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)


def connected(host, port, secure=False):
    """A Connection to a server behind; only to this machine."""
    if host != "localhost" and not host.startswith("127."):
        raise Gone("%s is not this machine" % host)
    raw = socket.create_connection((host, port), timeout=UPSTREAM_SECONDS)
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if secure:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        raw = context.wrap_socket(raw)
    return httpd.Connection(raw)


def relay(client, upstream, request, plan, sleep):
    """Bytes both ways until one side ends, with what the plan does to a tunnel: cut, rate, cut_request."""

    def outward():
        try:
            for piece in client.rest():
                if plan.cut_request is not None:
                    piece = piece[:plan.cut_request - request.body_length]
                request.body_length += len(piece)
                upstream.send(piece)
                if request.body_length == plan.cut_request:
                    client.reset()
                    break
            else:
                upstream.socket.shutdown(socket.SHUT_WR)
                return
        except (Gone, OSError):
            pass
        upstream.reset()

    upstream.socket.settimeout(None)
    thread = threading.Thread(target=outward, daemon=True)
    thread.start()
    pieces = upstream.rest()
    if plan.cut is not None:
        pieces = httpd.cut_off(pieces, plan.cut)
    if plan.rate:
        pieces = httpd.paced(pieces, plan.rate, sleep)
    try:
        for piece in pieces:
            client.send(piece)
            request.sent += len(piece)
            if request.sent == plan.cut:
                break
        if request.sent == plan.cut:
            if plan.cut_how == "stall":
                sleep(None)
            if plan.cut_how == "reset":
                client.reset()
    finally:
        client.close()
        upstream.close()
        thread.join(5)


class Proxy(httpd.Server):
    """In front of one server, "http://127.0.0.1:PORT" or https. The Host header goes through as it was sent."""

    def __init__(self, upstream, **options):
        super().__init__(**options)
        self.secure = upstream.startswith("https:")
        self.upstream = address(upstream)
        self._upstream_origin = "%s://%s:%d" % ("https" if self.secure else "http", *self.upstream)

    def where(self, request):
        """(host, port, TLS or not, target) of a request."""
        return (*self.upstream, self.secure, request.target)

    def respond(self, request, body, plan):
        host, port, secure, target = self.where(request)
        try:
            upstream = connected(host, port, secure)
        except (OSError, Gone) as error:
            return Response(502, {"Content-Type": "text/plain"}, "the server behind the proxy: %s" % error)
        try:
            self._pass_on(request, body, plan, upstream, target)
            return self._answer(request, upstream)
        except BaseException:
            upstream.close()
            raise

    def _pass_on(self, request, body, plan, upstream, target):
        """The request; leaves off where the server answers before it has everything."""
        sent = request.headers.without("Connection", "Keep-Alive", "Proxy-Connection", "Proxy-Authorization", "Expect")
        if plan.request_headers:
            sent = sent.replaced(plan.request_headers)
        sent.pairs.append(("Connection", "close"))
        waits = body.expects and not body.whole
        if waits:
            sent.pairs.append(("Expect", "100-continue"))
        lines = ["%s %s HTTP/1.1" % (request.method, target)] + ["%s: %s" % pair for pair in sent.pairs]
        upstream.send(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
        if waits and self._early(upstream, CONTINUE_SECONDS):
            # A final answer is left for _answer(); after a 100 the body is to follow.
            line = upstream.line_until(b"\r\n\r\n", httpd.HEAD_MAX)
            if not line.startswith(b"HTTP/1.1 100"):
                upstream.buffer = line + upstream.buffer
                return
        for piece in body.pieces():
            if self._early(upstream, 0):
                return
            try:
                upstream.send(b"%x\r\n%s\r\n" % (len(piece), piece) if body.chunked else piece)
            except Gone:
                return  # most servers have said why
        if body.chunked:
            upstream.send(b"0\r\n\r\n")

    @staticmethod
    def _early(upstream, seconds):
        """True when the server has begun to answer."""
        return bool(upstream.buffer) or bool(select.select([upstream.socket], [], [], seconds)[0])

    def _answer(self, request, upstream):
        while True:
            head = upstream.head()
            if head is None:
                raise Gone("the server behind the proxy ended the connection")
            _, code, reason = (head[0] + " ").split(" ", 2)
            if int(code) >= 200:
                break
        request.upstream = int(code)
        got = self._relocated(head[1])
        length = None
        if request.method == "HEAD" or request.upstream in (204, 304):
            pieces = iter(())
        elif "chunked" in (got.get("Transfer-Encoding") or "").lower():
            pieces = upstream.chunks()
        elif "Content-Length" in got:
            length = int(got["Content-Length"])
            pieces = upstream.pieces(length)
        else:
            pieces = upstream.rest()
        return Response(request.upstream, got, pieces, length, reason.strip(), upstream.close)

    def _relocated(self, got):
        """A Location on the server behind leads through the proxy: the session of a resumable upload, say."""
        location = got.get("Location") or ""
        if location.startswith(self._upstream_origin):
            return got.replaced({"Location": self.endpoint + location[len(self._upstream_origin):]})
        return got


class ForwardProxy(Proxy):
    """
    What stands in https_proxy and http_proxy: CONNECT, and requests with an absolute URI. `hosts` maps host names, or HOST:PORT,
    to addresses on this machine ("127.0.0.1:PORT"); any other host than this machine gets a 502. `login` = (user, password) are
    asked for (407). A rule's path is matched with HOST:PORT of a CONNECT.
    """

    def __init__(self, hosts=None, login=None, **options):
        super().__init__("http://127.0.0.1:1", **options)
        self.hosts = dict(hosts or {})
        self.login = login

    def _mapped(self, host, port):
        found = self.hosts.get("%s:%d" % (host, port)) or self.hosts.get(host)
        return address(found) if found else (host, port)

    def where(self, request):
        split = urllib.parse.urlsplit(request.target)
        target = (split.path or "/") + ("?" + split.query if split.query else "")
        return (*self._mapped(split.hostname or "", split.port or 80), False, target)

    def respond(self, request, body, plan):
        if self.login:
            want = "Basic " + base64.b64encode(":".join(self.login).encode()).decode()
            if request.headers.get("Proxy-Authorization") != want:
                body.drain()
                return Response(407, {"Proxy-Authenticate": 'Basic realm="test"'})
        if request.method != "CONNECT":
            return super().respond(request, body, plan)
        host, port = address(request.path)
        try:
            upstream = connected(*self._mapped(host, port))
        except (OSError, Gone) as error:
            return Response(502, {"Content-Type": "text/plain"}, str(error))
        request.status = 200
        body.connection.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
        relay(body.connection, upstream, request, plan, self._sleep)
        return None


class Tunnel(httpd.Server):
    """
    In front of a server that does not speak HTTP, such as sshd: "127.0.0.1:PORT". Each connection counts as a request of the
    method TCP; delay, reset_before, black_hole, reset_body, reset_upload, stall and slow apply to it.
    """

    def __init__(self, upstream, **options):
        super().__init__(**options)
        self.upstream = address(upstream)

    @property
    def endpoint(self):
        return "127.0.0.1:%d" % self.port

    def serve(self, connection, number):
        with self._lock:
            request = httpd.Request(len(self.requests) + 1, number, "TCP", "%s:%d" % self.upstream, httpd.Headers())
            self.requests.append(request)
        plan = self._plan(request)
        try:
            if plan.delay:
                self._sleep(plan.delay)
            if plan.reset_before:
                connection.reset()
            elif plan.hang is not None:
                self._sleep(plan.hang)
            else:
                relay(connection, connected(*self.upstream), request, plan, self._sleep)
        finally:
            request.ended = time.monotonic()
