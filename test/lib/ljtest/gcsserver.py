"""gcsserver.py - Google Cloud Storage's JSON API in memory, as strict as the real one where fake-gcs-server is not.

Pages of a listing, startOffset, the sums an upload names, preconditions of resumable uploads, the state of an upload under way
(asked with "bytes */*"), parts that are no multiple of 256 KiB, DELETE of a session. As an httpd.Server it breaks what its rules
say, and cut_request really loses the rest of a part: `keep` bytes of it stay, a multiple of 256 KiB.

    with gcsserver.GcsServer("bucket") as server:
        server.objects["key"]           # Object(data, generation, created)
        server.sessions                 # resumable uploads that are neither complete nor deleted
        server.problems                 # what a client did against the rules
"""

import base64
import dataclasses
import itertools
import json
import os
import threading
import time
import urllib.parse

from . import httpd
from .httpd import Gone, Response

UNIT = 256 * 1024
_TABLE = []
for _i in range(256):
    for _ in range(8):
        _i = (_i >> 1) ^ (0x82F63B78 if _i & 1 else 0)
    _TABLE.append(_i)


def crc32c(data):
    """Base64, as in the API. Slow: the tests keep what they compare small, or compare bytes."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = (crc >> 8) ^ _TABLE[(crc ^ byte) & 0xFF]
    return base64.b64encode((crc ^ 0xFFFFFFFF).to_bytes(4, "big")).decode()


@dataclasses.dataclass
class Object:
    data: bytes
    generation: int
    created: float
    content_type: str = ""
    crc32c: str = ""


@dataclasses.dataclass
class Session:
    name: str
    absent: bool
    data: bytearray = dataclasses.field(default_factory=bytearray)
    requests: int = 0


class Refusal(Exception):
    def __init__(self, status, reason, message):
        super().__init__(message)
        self.status = status
        self.reason = reason


def refuse(status, reason, message):
    raise Refusal(status, reason, message)


class GcsServer(httpd.Server):
    def __init__(self, *buckets, keep=None, **options):
        """`keep`: how many bytes of each part are kept, at most; None: all of it."""
        super().__init__(**options)
        self.buckets = set(buckets)
        self.objects = {}
        self.sessions = {}
        self.deleted_sessions = []
        self.completed = {}
        self.problems = []
        self.keep = keep
        self.wrong_sum = 0  # so many uploads are stored with a byte changed
        self.user_projects = set()
        self._generations = itertools.count(1700000000000001)
        self._lock_state = threading.RLock()

    @property
    def env(self):
        return {"STORAGE_EMULATOR_HOST": "127.0.0.1:%d" % self.port}

    def respond(self, request, body, plan):
        with self._lock_state:
            self.user_projects.add(request.args.get("userProject"))
        try:
            return self.route(request, body)
        except Refusal as refusal:
            body.drain()
            text = {"error": {"code": refusal.status, "message": str(refusal), "errors": [
                {"domain": "global", "reason": refusal.reason, "message": str(refusal)}]}}
            if request.args.get("alt") == "media":
                return Response(refusal.status, {"Content-Type": "text/html; charset=UTF-8"}, str(refusal))
            return Response(refusal.status, {"Content-Type": "application/json; charset=UTF-8"}, json.dumps(text))

    def route(self, request, body):
        upload = request.path.startswith("/upload/")
        parts = request.path.removeprefix("/upload").split("/")  # "", storage, v1, b, BUCKET, o[, NAME]
        if parts[1:4] != ["storage", "v1", "b"] or parts[5:6] != ["o"] or len(parts) > 7 or (upload and len(parts) > 6):
            self.problems.append("path %s" % request.path)
            refuse(404, "notFound", "Not Found")
        bucket = urllib.parse.unquote(parts[4])
        name = urllib.parse.unquote(parts[6]) if len(parts) > 6 else None
        session = request.args.get("upload_id")
        if upload and session:
            return self.session(request, body, session)
        if bucket not in self.buckets and name is None:
            refuse(404, "notFound", "The specified bucket does not exist.")
        if bucket not in self.buckets:
            refuse(404, "notFound", "No such object: %s/%s" % (bucket, name))  # this is how the real one hides it
        if upload:
            return self.upload(request, body)
        if name is None:
            return self.listing(request)
        return self.one(request, name)

    # -- objects

    def describe(self, name, found):
        created = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(found.created)) + ".%03dZ" % (found.created % 1 * 1000)
        return {"kind": "storage#object", "name": name, "size": str(len(found.data)), "timeCreated": created,
                "generation": str(found.generation), **({"crc32c": found.crc32c} if found.crc32c else {})}

    def _json(self, value, fields=None):
        """With `fields`, only those: a client that forgot to ask for one does not get it."""
        if fields:
            wanted = [field.split("(")[0] for field in fields.replace("),", ")|").replace(",", "|").split("|")] if (
                "(" not in fields) else None
            if wanted:
                value = {key: item for key, item in value.items() if key in wanted}
        return Response(200, {"Content-Type": "application/json; charset=UTF-8"}, json.dumps(value))

    def listing(self, request):
        args = request.args
        prefix, start = args.get("prefix", ""), args.get("startOffset", "")
        limit = int(args.get("maxResults", "1000"))
        token = base64.urlsafe_b64decode(args["pageToken"]).decode() if "pageToken" in args else ""
        with self._lock_state:
            names = sorted((name for name in self.objects if name.startswith(prefix) and name >= start and name > token),
                           key=lambda name: name.encode())
            items = [self.describe(name, self.objects[name]) for name in names[:limit]]
        answer = {"kind": "storage#objects"}
        if items:
            answer["items"] = items
        if len(names) > limit:
            answer["nextPageToken"] = base64.urlsafe_b64encode(names[limit - 1].encode()).decode()
        return self._json(answer)

    def one(self, request, name):
        with self._lock_state:
            found = self.objects.get(name)
            if found is None:
                refuse(404, "notFound", "No such object: %s" % name)
            wanted = request.args.get("ifGenerationMatch")
            if wanted is not None and int(wanted) != found.generation:
                refuse(412, "conditionNotMet", "At least one of the pre-conditions you specified did not hold.")
            if request.method == "DELETE":
                del self.objects[name]
                return Response(204)
        if request.args.get("alt") != "media":
            return self._json(self.describe(name, found), request.args.get("fields"))
        return self._media(request, found)

    @staticmethod
    def _media(request, found):
        total = len(found.data)
        headers = {"Content-Type": "application/octet-stream", "X-Goog-Stored-Content-Encoding": "identity"}
        given = request.headers.get("Range")
        if not given:
            return Response(200, headers, found.data)
        first, last = given.removeprefix("bytes=").split("-")
        first, last = int(first), min(int(last), total - 1) if last else total - 1
        if first >= total:
            return Response(416, {"Content-Type": "application/xml", "Content-Range": "bytes */%d" % total}, "<Error/>")
        return Response(206, {**headers, "Content-Range": "bytes %d-%d/%d" % (first, last, total)}, found.data[first:last + 1])

    def store(self, name, data, absent, declared=None, content_type=""):
        with self._lock_state:
            if absent and name in self.objects:
                refuse(412, "conditionNotMet", "At least one of the pre-conditions you specified did not hold.")
            computed = crc32c(data) if declared or len(data) < 1 << 20 else ""
            if declared and declared != computed:
                refuse(400, "invalid", 'Provided CRC32C "%s" doesn\'t match calculated CRC32C "%s".' % (declared, computed))
            if self.wrong_sum:
                self.wrong_sum -= 1
                computed = crc32c(b"\xff" + data[1:10])
            self.objects[name] = Object(bytes(data), next(self._generations), time.time(), content_type, computed)
            return self._json(self.describe(name, self.objects[name]))

    # -- uploads

    def upload(self, request, body):
        args = request.args
        if request.method != "POST" or not args.get("name"):
            refuse(400, "required", "Required")
        absent = args.get("ifGenerationMatch") == "0"
        if args.get("uploadType") == "multipart":
            metadata, content_type, data = self._related(request, body.read())
            if content_type != "application/octet-stream":
                self.problems.append("content type %s" % content_type)
            return self.store(args["name"], data, absent, metadata.get("crc32c"), metadata.get("contentType", ""))
        if args.get("uploadType") != "resumable":
            refuse(400, "invalid", "Unknown uploadType")
        json.loads(body.read())
        with self._lock_state:  # the condition is looked at when all is there
            number = base64.urlsafe_b64encode(os.urandom(24)).decode()
            self.sessions[number] = Session(args["name"], absent)
        location = "%s%s?uploadType=resumable&upload_id=%s" % (self.endpoint, request.path, number)
        return Response(200, {"Location": location, "X-GUploader-UploadID": number}, b"")

    def _related(self, request, data):
        kind = request.headers["Content-Type"]
        if not kind.startswith("multipart/related; boundary="):
            refuse(400, "badContent", "no multipart/related")
        mark = b"--" + kind.split("=", 1)[1].encode()
        pieces = data.split(mark)
        if len(pieces) != 4 or pieces[0] or pieces[3].strip() != b"--":
            refuse(400, "badContent", "%d pieces" % len(pieces))
        (_, first), (head, second) = (piece.split(b"\r\n\r\n", 1) for piece in pieces[1:3])
        return json.loads(first), head.split(b":")[1].strip().decode(), second[:-2]

    def session(self, request, body, number):
        with self._lock_state:
            session = self.sessions.get(number)
            done = self.completed.get(number)
        if done:  # asked once more: the same answer
            body.drain()
            return self._json(done)
        with self._lock_state:
            if session is None:
                refuse(410, "gone", "Gone")
            session.requests += 1
        if request.method == "DELETE":
            with self._lock_state:
                del self.sessions[number]
                self.deleted_sessions.append(number)
            return Response(499, {"Content-Length": "0"}, b"")
        span, total = request.headers["Content-Range"].removeprefix("bytes ").split("/")
        if span != "*":
            self._take(session, body, *(int(part) for part in span.split("-")), total)
        body.drain()
        if total == "*" or len(session.data) < int(total):
            return Response(308, {"Range": "bytes=0-%d" % (len(session.data) - 1)} if session.data else {}, b"")
        if len(session.data) > int(total):
            self.problems.append("%d bytes of %s" % (len(session.data), total))
            refuse(400, "invalid", "too many bytes")
        declared = (request.headers.get("X-Goog-Hash") or "").removeprefix("crc32c=")
        if not declared:
            self.problems.append("no X-Goog-Hash with the last part")
        with self._lock_state:
            answer = self.store(session.name, bytes(session.data), session.absent)
            self.objects[session.name].content_type = "application/octet-stream"
            self.sessions.pop(number, None)
            self.completed[number] = self.describe(session.name, self.objects[session.name])
        return answer

    def _take(self, session, body, first, last, total):
        """One part, as far as it comes and is kept. What is there already is not taken again, a gap is refused."""
        if first > len(session.data):
            self.problems.append("part at %d, not at %d" % (first, len(session.data)))
            refuse(400, "invalid", "Invalid request: wrong offset")
        if total == "*" and (last + 1 - first) % UNIT:
            self.problems.append("part of %d bytes" % (last + 1 - first))
            refuse(400, "badRequest", "not a multiple of 262144")
        received = bytearray()
        broken = False
        try:
            for piece in body.pieces():
                received += piece
        except Gone:
            broken = True
            raise
        finally:
            fresh = received[len(session.data) - first:]
            limit = min(len(fresh), self.keep or len(fresh))
            session.data += fresh[:limit if limit == len(fresh) and not broken else limit // UNIT * UNIT]
