"""s3gate.py - the strictness of S3 that s3rver and moto lack, as a proxy in front of one of them.

    with servers.S3rver() as store, s3gate.Gate(store) as gate:
        run(tool, store.url("b", "p", endpoint=gate.endpoint), env=gate.env)

It checks SigV4 signatures (s3rver accepts every V4 signature, moto any at all) with its own reading of the scheme, the clock, the
region, session tokens and their expiry, the hash and the digests of bodies, and answers as S3 does. Rules of faults.py work on
it as on any proxy; a rule's answer comes before any check.
"""

import base64
import calendar
import hashlib
import hmac
import re
import tempfile
import time
import urllib.parse
import zlib

from . import faults, stores

CLOCK_SECONDS = 15 * 60
IN_MEMORY = 8 << 20
AUTHORIZATION = re.compile(r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8})/([^/]+)/s3/aws4_request, ?"
                           r"SignedHeaders=([a-z0-9;-]+), ?Signature=([0-9a-f]{64})$")


class Refused(Exception):
    def __init__(self, code, message, status=None, more=None):
        super().__init__(message)
        self.code = code
        self.status = status
        self.more = more


class Credentials:
    """What a client may sign with; `expires` is seconds since 1970."""

    def __init__(self, secret_key, token="", expires=None):
        self.secret_key = secret_key
        self.token = token
        self.expires = expires


class _Spooled:
    """A body that was read already, in the form Proxy passes on."""

    def __init__(self, file, length):
        self.file = file
        self.whole = not length
        self.chunked = False
        self.expects = False

    def pieces(self):
        self.file.seek(0)
        while piece := self.file.read(1 << 20):
            yield piece


class Gate(faults.Proxy):
    """
    In front of a servers.S3rver or Moto. `credentials` maps access keys to Credentials, and may be changed at any time; at first
    it has the store's own key. `skew` sets its clock wrong by so many seconds. `md5_needed`: as AWS, no deletion of many
    without Content-MD5 or a checksum. `object_lock`: as such a bucket, no part without them either. `refusals` is the list of the codes it answered with.
    """

    def __init__(self, store, region="us-east-1", **options):
        super().__init__(store.endpoint, **options)
        self.region = region
        self.skew = 0
        self.md5_needed = True
        self.object_lock = False
        self.credentials = {store.access_key: Credentials(store.secret_key)}
        self.env = store.environment()
        self._store_key = store.access_key
        self.refusals = []

    def respond(self, request, body, plan):
        try:
            self._check_signature(request)
            if body.chunked:
                raise Refused("MissingContentLength", "You must provide the Content-Length HTTP header.", 411)
            body = self._checked_body(request, body)
        except Refused as error:
            self.refusals.append(error.code)
            action = faults.s3_error(error.code, error.status, str(error), more=error.more, skew=self.skew)
            return action.answer(request)
        response = super().respond(request, body, plan)
        if self.skew:
            response.headers = response.headers.replaced({"Date": faults.http_date(self.skew)})
        return response

    def _pass_on(self, request, body, plan, upstream, target):
        """In the name of the store's own key, at the true time: the store behind knows no other, and does not check the rest."""
        headers = request.headers
        now = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        request.headers = headers.replaced({
            "Authorization": "AWS4-HMAC-SHA256 Credential=%s/%s/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=%s"
                             % (self._store_key, now[:8], "0" * 64),
            "X-Amz-Date": now, "X-Amz-Security-Token": None})
        try:
            super()._pass_on(request, body, plan, upstream, target)
        finally:
            request.headers = headers

    def _check_signature(self, request):
        given = request.headers.get("Authorization")
        if not given:
            raise Refused("AccessDenied", "Access Denied.")
        match = AUTHORIZATION.match(given)
        if not match:
            raise Refused("AuthorizationHeaderMalformed", "The authorization header is malformed: %s" % given)
        access_key, day, region, names, signature = match.groups()
        known = self.credentials.get(access_key)
        if not known:
            raise Refused("InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records.")
        stamp = request.headers.get("X-Amz-Date") or ""
        self._check_time(stamp, day)
        if region != self.region:
            raise Refused("AuthorizationHeaderMalformed", "The region '%s' is wrong; expecting '%s'" % (region, self.region),
                          more={"Region": self.region})
        payload = request.headers.get("X-Amz-Content-Sha256")
        if not payload:
            raise Refused("InvalidRequest", "Missing required header for this request: x-amz-content-sha256", 400)
        signed = names.split(";")
        if signed != sorted(signed):
            raise Refused("AuthorizationHeaderMalformed", "SignedHeaders is not sorted")
        for name, _ in request.headers.pairs:
            if (name.lower().startswith("x-amz-") or name.lower() in ("host", "content-md5")) and name.lower() not in signed:
                raise Refused("AccessDenied", "There were headers present in the request which were not signed: " + name)
        canonical = self._canonical(request, signed, payload)
        scope = "%s/%s/s3/aws4_request" % (day, region)
        to_sign = "\n".join(("AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()))
        key = ("AWS4" + known.secret_key).encode()
        for part in (day, region, "s3", "aws4_request", to_sign):
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        if key.hex() != signature:
            raise Refused("SignatureDoesNotMatch", "The request signature we calculated does not match the signature you "
                          "provided.", more={"StringToSign": to_sign, "CanonicalRequest": canonical})
        token = request.headers.get("X-Amz-Security-Token") or ""
        if token != known.token:
            raise Refused("InvalidToken", "The provided token is malformed or otherwise invalid.")
        if known.expires is not None and time.time() + self.skew >= known.expires:
            raise Refused("ExpiredToken", "The provided token has expired.")

    def _check_time(self, stamp, day):
        if not re.fullmatch(r"\d{8}T\d{6}Z", stamp) or stamp[:8] != day:
            raise Refused("AccessDenied", "AWS authentication requires a valid Date or x-amz-date header")
        now = time.time() + self.skew
        if abs(now - calendar.timegm(time.strptime(stamp, "%Y%m%dT%H%M%SZ"))) > CLOCK_SECONDS:
            raise Refused("RequestTimeTooSkewed", "The difference between the request time and the current time is too large.",
                          more={"RequestTime": stamp, "MaxAllowedSkewMilliseconds": CLOCK_SECONDS * 1000,
                                "ServerTime": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))})

    @staticmethod
    def _canonical(request, signed, payload):
        """The canonical request, from the request as it came in."""
        query = []
        for pair in request.query.split("&") if request.query else ():
            name, _, value = pair.partition("=")
            query.append((stores.quote(urllib.parse.unquote(name)), stores.quote(urllib.parse.unquote(value))))
        lines = ""
        for name in signed:
            values = request.headers.all(name)
            if not values:
                raise Refused("SignatureDoesNotMatch", "%s is signed, but is not there" % name)
            lines += "%s:%s\n" % (name, ",".join(" ".join(value.split()) for value in values))
        return "\n".join((request.method, stores.quote(request.key, "/"), "&".join("%s=%s" % pair for pair in sorted(query)),
                          lines, ";".join(signed), payload))

    def _checked_body(self, request, body):
        """Reads it, to disk if it is large, and compares it with every digest that came along."""
        want = request.headers.get("X-Amz-Content-Sha256")
        if want != "UNSIGNED-PAYLOAD" and not re.fullmatch("[0-9a-f]{64}", want):
            raise Refused("NotImplemented", "x-amz-content-sha256: " + want, 501)
        sha256, md5, sha1, crc32, length = hashlib.sha256(), hashlib.md5(), hashlib.sha1(), 0, 0
        file = tempfile.SpooledTemporaryFile(IN_MEMORY)
        for piece in body.pieces():
            for digest in (sha256, md5, sha1):
                digest.update(piece)
            crc32 = zlib.crc32(piece, crc32)
            length += len(piece)
            file.write(piece)
        if want not in ("UNSIGNED-PAYLOAD", sha256.hexdigest()):
            raise Refused("XAmzContentSHA256Mismatch", "The provided 'x-amz-content-sha256' header does not match what was "
                          "computed.")
        for name, value in (("Content-MD5", md5.digest()), ("x-amz-checksum-sha256", sha256.digest()),
                            ("x-amz-checksum-sha1", sha1.digest()), ("x-amz-checksum-crc32", crc32.to_bytes(4, "big"))):
            given = request.headers.get(name)
            if given is not None and given != base64.b64encode(value).decode():
                raise Refused("BadDigest", "The %s you specified did not match what we received." % name)
        checked = any(name.lower() == "content-md5" or name.lower().startswith("x-amz-checksum-")
                      for name, _ in request.headers.pairs)
        if request.method == "POST" and "delete" in request.args and self.md5_needed and not checked:
            raise Refused("InvalidRequest", "Missing required header for this request: Content-MD5", 400)
        if request.method == "PUT" and self.object_lock and not checked:
            raise Refused("InvalidRequest", "Content-MD5 OR x-amz-checksum- HTTP header is required for Put %s requests with "
                          "Object Lock parameters" % ("Part" if "partNumber" in request.args else "Object"), 400)
        return _Spooled(file, length)
