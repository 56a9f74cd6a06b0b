"""httpd.py - a threaded HTTP/1.1 server on a free port of 127.0.0.1 that records every request and breaks some of them.

Written on bare sockets, since what it is for is to misbehave exactly. Server is the base of the proxy (faults.py) and of the
credential endpoints (fakecloud.py), which say in respond() what the answer is. Rules decide what becomes of a request:

    rule = server.add(faults.status(503), method="PUT", path=r"/wal/", nth=2)
    server.clear()

A rule sees only the requests that match it: nth (a number or several, from 1), after (skip so many), every (each so many-th),
count (at most so many times). rule.seen and rule.fired count. What several rules do to one request adds up.
"""

import contextlib
import dataclasses
import re
import socket
import ssl
import struct
import threading
import time
import urllib.parse

from . import ports

PIECE = 65536
HEAD_MAX = 256 * 1024
KEPT_BODY = 65536


class Gone(Exception):
    """The connection is over: closed by the other side, by a rule, or by the end of the server."""


class BadMessage(Exception):
    pass


class Headers:
    """Header lines in their order and spelling; looked up without regard to case."""

    def __init__(self, pairs=()):
        self.pairs = [(str(name), str(value)) for name, value in (pairs.items() if hasattr(pairs, "items") else pairs)]

    def get(self, name, default=None):
        name = name.lower()
        for known, value in self.pairs:
            if known.lower() == name:
                return value
        return default

    def all(self, name):
        return [value for known, value in self.pairs if known.lower() == name.lower()]

    def __contains__(self, name):
        return self.get(name) is not None

    def __getitem__(self, name):
        value = self.get(name)
        if value is None:
            raise KeyError(name)
        return value

    def without(self, *names):
        lowered = {name.lower() for name in names}
        return Headers([(name, value) for name, value in self.pairs if name.lower() not in lowered])

    def replaced(self, changes):
        """With these set; a value of None removes."""
        kept = self.without(*changes)
        kept.pairs += [(name, str(value)) for name, value in changes.items() if value is not None]
        return kept

    def __repr__(self):
        return repr(self.pairs)


@dataclasses.dataclass
class Request:
    """One request as it was received, and what became of it."""

    number: int
    connection: int
    method: str
    target: str
    headers: Headers
    when: float = dataclasses.field(default_factory=time.time)  # wall clock
    started: float = dataclasses.field(default_factory=time.monotonic)
    path: str = ""  # as sent, still escaped; HOST:PORT of a CONNECT
    query: str = ""  # as sent, without the "?"
    body_length: int = 0  # received so far
    body: bytes = b""  # the first KEPT_BODY bytes of it
    faults: list = dataclasses.field(default_factory=list)  # names of the rules' actions that fired
    upstream: int = None  # status that the server behind answered
    status: int = None  # status sent; None: no answer was sent
    sent: int = 0  # bytes of the answer's body sent
    ended: float = None  # monotonic

    @property
    def args(self):
        """The query's parameters; the last of a name wins."""
        return dict(urllib.parse.parse_qsl(self.query, keep_blank_values=True))

    @property
    def key(self):
        """The path unescaped."""
        return urllib.parse.unquote(self.path)

    def __repr__(self):
        return "<%d %s %s -> %s%s>" % (self.number, self.method, self.target, self.status,
                                       " (%s)" % ", ".join(self.faults) if self.faults else "")


class Response:
    """An answer. `body` is bytes, or an iterator of bytes whose whole length is `length` (None: not known)."""

    def __init__(self, status=200, headers=(), body=b"", length=None, reason="", close=None):
        self.status = status
        self.headers = headers if isinstance(headers, Headers) else Headers(headers)
        self.reason = reason or REASONS.get(status, "Status")
        if isinstance(body, str):
            body = body.encode()
        self.length = len(body) if isinstance(body, bytes) else length
        self.pieces = iter([body] if body else []) if isinstance(body, bytes) else body
        self._close = close

    def close(self):
        if self._close:
            self._close()


REASONS = {100: "Continue", 200: "OK", 201: "Created", 204: "No Content", 206: "Partial Content", 301: "Moved Permanently",
           304: "Not Modified", 307: "Temporary Redirect", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden",
           404: "Not Found", 405: "Method Not Allowed", 407: "Proxy Authentication Required", 408: "Request Timeout",
           409: "Conflict", 412: "Precondition Failed", 416: "Range Not Satisfiable", 429: "Too Many Requests",
           500: "Internal Server Error", 501: "Not Implemented", 502: "Bad Gateway", 503: "Service Unavailable",
           504: "Gateway Timeout"}


@dataclasses.dataclass
class Action:
    """What a rule does; faults.py has a function for each use. Fields left at their default change nothing."""

    name: str = "nothing"
    # before the request goes on
    delay: float = 0  # seconds
    answer: object = None  # a function that makes a Response; the request then goes nowhere
    read_body: bool = True  # read the body before `answer`, `reset_before` and `hang`
    reset_before: bool = False
    hang: float = None  # never answer; the connection is closed after so many seconds (0: with the server)
    request_headers: dict = None
    corrupt_request: tuple = None  # (offset, bytes, mask)
    cut_request: int = None  # reset after so many bytes of the body, which were passed on
    upload_rate: float = None  # bytes a second at which the body is read
    # after it was answered
    delay_answer: float = 0
    reset_after: bool = False
    response_headers: dict = None
    replace_status: int = None
    corrupt: tuple = None  # (offset, bytes, mask)
    cut: int = None  # bytes of the body that are sent
    cut_how: str = "close"  # "reset", "close", "stall", "lie" (a Content-Length that agrees)
    rate: float = None  # bytes a second


@dataclasses.dataclass
class Rule:
    action: Action
    method: str = None
    path: object = None
    query: object = None
    test: object = None
    nth: tuple = None
    after: int = 0
    every: int = 1
    count: int = None
    seen: int = 0
    fired: int = 0

    def takes(self, request):
        """Whether it fires for this request; counts."""
        if self.method and request.method not in self.method.split("|"):
            return False
        if self.path and not self.path.search(request.key):
            return False
        if self.query and not self.query.search(request.query):
            return False
        if self.test and not self.test(request):
            return False
        self.seen += 1
        if self.nth is not None and self.seen not in self.nth:
            return False
        if self.seen <= self.after or (self.seen - self.after) % self.every:
            return False
        if self.count is not None and self.fired >= self.count:
            return False
        self.fired += 1
        return True


def merged(actions):
    """One action that does what all of these do; where two disagree the first wins."""
    result = Action()
    for action in actions:
        for field in dataclasses.fields(Action):
            value = getattr(action, field.name)
            if field.name in ("delay", "delay_answer"):
                setattr(result, field.name, getattr(result, field.name) + value)
            elif field.name in ("request_headers", "response_headers") and value:
                setattr(result, field.name, {**value, **(getattr(result, field.name) or {})})
            elif getattr(result, field.name) == field.default and field.name not in ("cut_how", "read_body"):
                setattr(result, field.name, value)
        if action.cut is not None and result.cut == action.cut:
            result.cut_how = action.cut_how
        result.read_body = result.read_body and action.read_body
    return result


class Connection:
    """A socket with a read buffer. Every wait is bounded by a timeout; errors of the other side are Gone."""

    def __init__(self, raw, timeout=None):
        self.socket = raw
        self.buffer = b""
        if timeout:
            raw.settimeout(timeout)

    def receive(self, size=PIECE):
        """Up to `size` bytes; b"" at the end."""
        if self.buffer:
            piece, self.buffer = self.buffer[:size], self.buffer[size:]
            return piece
        try:
            return self.socket.recv(size)
        except (OSError, ValueError) as error:
            raise Gone(str(error)) from error

    def send(self, data):
        try:
            self.socket.sendall(data)
        except (OSError, ValueError) as error:
            raise Gone(str(error)) from error

    def line_until(self, mark, limit):
        """The bytes up to and with `mark`; b"" when the connection ended before the first."""
        data = b""
        while True:
            end = data.find(mark)
            if end >= 0:
                self.buffer = data[end + len(mark):] + self.buffer
                return data[:end + len(mark)]
            if len(data) > limit:
                raise BadMessage("no end of line or head within %d bytes" % limit)
            piece = self.receive()
            if not piece:
                if data:
                    raise Gone("ended in the middle of a head")
                return b""
            data += piece

    def head(self):
        """(first line, Headers), or None at the end of the connection."""
        data = self.line_until(b"\r\n\r\n", HEAD_MAX)
        if not data:
            return None
        lines = data.decode("latin-1").split("\r\n")[:-2]
        pairs = []
        for line in lines[1:]:
            name, colon, value = line.partition(":")
            if not colon:
                raise BadMessage("header line without a colon: %r" % line[:100])
            pairs.append((name, value.strip()))
        return lines[0], Headers(pairs)

    def pieces(self, length):
        """Exactly `length` bytes."""
        while length:
            piece = self.receive(min(length, PIECE))
            if not piece:
                raise Gone("ended %d bytes before the end of the body" % length)
            length -= len(piece)
            yield piece

    def chunks(self):
        """A chunked body."""
        while True:
            size = int(self.line_until(b"\r\n", 1024).split(b";")[0].strip() or b"0", 16)
            if not size:
                while self.line_until(b"\r\n", HEAD_MAX) not in (b"\r\n", b""):
                    pass
                return
            yield from self.pieces(size)
            self.line_until(b"\r\n", 16)

    def rest(self):
        while True:
            piece = self.receive()
            if not piece:
                return
            yield piece

    def reset(self):
        """An RST instead of an orderly end."""
        with contextlib.suppress(OSError):
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.socket.shutdown(socket.SHUT_RD)  # wakes a thread that reads, and would keep the socket alive
        self._close_raw()

    def close(self):
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self._close_raw()

    def _close_raw(self):
        with contextlib.suppress(OSError):
            self.socket.close()


def corrupted(pieces, where):
    """The pieces with `count` bytes from `offset` on xored with `mask`."""
    offset, count, mask = where
    at = 0
    for piece in pieces:
        first, last = max(offset - at, 0), min(offset + count - at, len(piece))
        if first < last:
            changed = bytearray(piece)
            for i in range(first, last):
                changed[i] ^= mask
            piece = bytes(changed)
        at += len(piece)
        yield piece


def paced(pieces, rate, sleep):
    """The pieces at `rate` bytes a second."""
    step = max(1, int(rate / 20))
    for piece in pieces:
        for i in range(0, len(piece), step):
            part = piece[i:i + step]
            yield part
            sleep(len(part) / rate)


class Server:
    """Use as a context manager. With `tls` (a tls.Authority) it speaks https, as `names`."""

    scheme = "http"

    def __init__(self, tls=None, names=("127.0.0.1", "localhost"), certificate_days=30, receive_buffer=None):
        """`receive_buffer`: bytes that the kernel takes in before anybody reads: small where a slow reader is to be felt."""
        self.receive_buffer = receive_buffer
        self.context = tls.server_context(names, certificate_days) if tls else None
        if tls:
            self.scheme = "https"
        self.port = 0
        self.requests = []
        self.connections = 0  # accepted so far
        self.on_connect = None  # what becomes of new connections: None, "reset", "hang"
        self._rules = []
        self._lock = threading.Lock()  # guards requests, connections, _rules, _open
        self._open = set()
        self._listener = None
        self._stopping = threading.Event()

    # -- life

    def __enter__(self):
        self.up()
        return self

    def __exit__(self, *_):
        self._stopping.set()
        self.down()

    def up(self):
        """Listens; again on the same port after down()."""
        if self._listener:
            return
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if self.receive_buffer:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.receive_buffer)
        self.port = self.port or ports.reserve()
        listener.bind(("127.0.0.1", self.port))
        listener.listen(256)
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def down(self):
        """Refuses connections from now on and resets those that are open."""
        if self._listener:
            # shutdown() wakes the thread in accept()
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        self.drop()

    def drop(self):
        """Resets all connections that are open."""
        with self._lock:
            left, self._open = self._open, set()
        for connection in left:
            connection.reset()

    @property
    def endpoint(self):
        return "%s://127.0.0.1:%d" % (self.scheme, self.port)

    # -- rules and records

    def add(self, action, method=None, path=None, query=None, test=None, nth=None, after=0, every=1, count=None):
        """A rule: `path` (unescaped) and `query` (as sent) are regular expressions, `test` a function of the Request."""
        if isinstance(nth, int):
            nth = (nth,)
        rule = Rule(action, method, re.compile(path) if path else None, re.compile(query) if query else None, test,
                    tuple(nth) if nth is not None else None, after, every, count)
        with self._lock:
            self._rules.append(rule)
        return rule

    def remove(self, rule):
        with self._lock:
            if rule in self._rules:
                self._rules.remove(rule)

    def clear(self):
        with self._lock:
            self._rules = []

    @contextlib.contextmanager
    def rule(self, action, **match):
        """A rule for the time of a `with` block."""
        added = self.add(action, **match)
        try:
            yield added
        finally:
            self.remove(added)

    def forget(self):
        """Starts the records anew."""
        with self._lock:
            self.requests = []

    def settle(self, seconds=20):
        """Waits until no request is in work: a client may have its answer before the record of it is complete."""
        end = time.monotonic() + seconds
        while any(request.ended is None for request in self.seen()) and time.monotonic() < end:
            time.sleep(0.002)

    def seen(self, method=None, path=None, query=None, status=None, test=None):
        """The recorded requests that match."""
        with self._lock:
            records = list(self.requests)
        return [r for r in records
                if (method is None or r.method in method.split("|"))
                and (path is None or re.search(path, r.key))
                and (query is None or re.search(query, r.query))
                and (status is None or r.status == status)
                and (test is None or test(r))]

    def _plan(self, request):
        with self._lock:
            actions = [rule.action for rule in self._rules if rule.takes(request)]
        request.faults = [action.name for action in actions]
        return merged(actions)

    # -- connections

    def _accept(self, listener):
        while True:
            try:
                raw, _ = listener.accept()
            except OSError:
                return
            with self._lock:
                self.connections += 1
                number = self.connections
            threading.Thread(target=self._connection, args=(raw, number), daemon=True).start()

    def _connection(self, raw, number):
        connection = Connection(raw)
        with self._lock:
            self._open.add(connection)
        try:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.on_connect == "reset":
                connection.reset()
            elif self.on_connect == "hang":
                self._sleep(None)
            else:
                if self.context:
                    connection.socket = self.context.wrap_socket(raw, server_side=True)
                self.serve(connection, number)
        except (Gone, OSError, ssl.SSLError):
            pass
        finally:
            with self._lock:
                self._open.discard(connection)
            connection.close()

    def _sleep(self, seconds):
        """None or 0: until the server ends. Gone when it ends meanwhile."""
        if self._stopping.wait(seconds or None):
            raise Gone("the server ends")

    def serve(self, connection, number):
        """One connection's requests, one after the other."""
        while True:
            try:
                head = connection.head()
                if head is None:
                    return
                method, target, version = head[0].split(" ")
            except (BadMessage, ValueError) as error:
                connection.send(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
                raise Gone(str(error)) from error
            if not self._one(connection, number, method, target, version, head[1]):
                return

    def _one(self, connection, number, method, target, version, headers):
        """One request; False when the connection cannot be used further."""
        with self._lock:
            request = Request(len(self.requests) + 1, number, method, target, headers)
            self.requests.append(request)
        if method == "CONNECT":
            request.path = target
        elif target.startswith("/"):
            request.path, _, request.query = target.partition("?")
        else:
            split = urllib.parse.urlsplit(target)
            request.path, request.query = split.path, split.query
        plan = self._plan(request)
        body = Body(self, connection, request, plan)
        keep = version == "HTTP/1.1" and "close" not in (headers.get("Connection") or "").lower()
        try:
            if plan.delay:
                self._sleep(plan.delay)
            if plan.read_body and (plan.answer or plan.reset_before or plan.hang is not None):
                body.drain()
            if plan.reset_before:
                connection.reset()
                raise Gone("reset by a rule")
            if plan.hang is not None:
                self._sleep(plan.hang)
                raise Gone("hung up by a rule")
            response = plan.answer(request) if plan.answer else self.respond(request, body, plan)
            if response is None:
                return False  # respond() has taken the connection over
            try:
                if plan.delay_answer:
                    self._sleep(plan.delay_answer)
                if plan.reset_after:
                    for _ in response.pieces:
                        pass
                    connection.reset()
                    raise Gone("reset by a rule")
                keep = keep and body.whole
                keep = self._send(connection, request, response, plan, version, keep) and keep
                body.throw_away()
                return keep
            finally:
                response.close()
        finally:
            request.ended = time.monotonic()

    def _send(self, connection, request, response, plan, version, keep):
        """False when the connection has to end for the client to know where the body ends."""
        pieces, length = response.pieces, response.length
        status = plan.replace_status or response.status
        headers = response.headers.without("Connection", "Keep-Alive", "Transfer-Encoding")
        if plan.response_headers:
            headers = headers.replaced({name: value() if callable(value) else value
                                        for name, value in plan.response_headers.items()})
        if plan.corrupt:
            pieces = corrupted(pieces, plan.corrupt)
        if plan.cut is not None:
            pieces = cut_off(pieces, plan.cut)
            if plan.cut_how == "lie" and length is not None:
                length = min(length, plan.cut)
        if plan.rate:
            pieces = paced(pieces, plan.rate, self._sleep)
        bodiless = request.method == "HEAD" or status in (204, 304) or status < 200
        chunked = length is None and not bodiless and version == "HTTP/1.1"
        delimited = chunked or bodiless or length is not None
        if chunked:
            headers.pairs.append(("Transfer-Encoding", "chunked"))
        elif length is not None and not (bodiless and length == 0):
            headers = headers.replaced({"Content-Length": length})
        if not (keep and delimited):
            headers.pairs.append(("Connection", "close"))
        text = "HTTP/1.1 %d %s\r\n" % (status, response.reason)
        text += "".join("%s: %s\r\n" % pair for pair in headers.pairs) + "\r\n"
        request.status = status
        connection.send(text.encode("latin-1"))
        if not bodiless:
            for piece in pieces:
                connection.send(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)
                request.sent += len(piece)
        if plan.cut is not None and plan.cut_how != "lie":
            if plan.cut_how == "stall":
                self._sleep(None)
            if plan.cut_how == "reset":
                time.sleep(0.05)  # an RST throws away what the other side has not read yet
                connection.reset()
            raise Gone("cut by a rule")
        if chunked:
            connection.send(b"0\r\n\r\n")
        return delimited

    def respond(self, request, body, plan):
        """The answer of a subclass. Reads `body` as far as it wants; None when it took over the connection itself."""
        raise NotImplementedError


def cut_off(pieces, limit):
    for piece in pieces:
        if limit <= 0:
            return
        yield piece[:limit]
        limit -= len(piece)


class Body:
    """The body of a request, read from the connection only when it is asked for; `whole` when nothing of it is left."""

    def __init__(self, server, connection, request, plan):
        self.server = server
        self.connection = connection
        self.request = request
        self.plan = plan
        headers = request.headers
        self.chunked = "chunked" in (headers.get("Transfer-Encoding") or "").lower()
        self.length = None if self.chunked else int(headers.get("Content-Length") or 0)
        self.expects = "100-continue" in (headers.get("Expect") or "").lower()
        self.whole = not self.chunked and not self.length

    def let_come(self):
        """Tells a client that waits for it to send the body."""
        if self.expects and not self.whole:
            self.connection.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        self.expects = False

    def pieces(self):
        """As it comes in, after what a rule does to it."""
        self.let_come()
        pieces = self._counted()
        if self.plan.corrupt_request:
            pieces = corrupted(pieces, self.plan.corrupt_request)
        return pieces

    def _counted(self):
        if self.whole:
            return
        source = self.connection.chunks() if self.chunked else self.connection.pieces(self.length)
        if self.plan.upload_rate:
            source = paced(source, self.plan.upload_rate, self.server._sleep)
        request = self.request
        limit = self.plan.cut_request
        for piece in source:
            if limit is not None:
                piece = piece[:limit - request.body_length]
            request.body_length += len(piece)
            if len(request.body) < KEPT_BODY:
                request.body += piece[:KEPT_BODY - len(request.body)]
            yield piece
            if request.body_length == limit:
                self.connection.reset()
                raise Gone("cut by a rule")
        self.whole = True

    def throw_away(self, seconds=2):
        """What is still coming after the answer: closing on it would reset the connection before the answer was read."""
        if not self.whole and not self.expects:
            self.connection.socket.settimeout(seconds)
            self.drain()

    def drain(self):
        for _ in self.pieces():
            pass

    def read(self):
        return b"".join(self.pieces())
