"""stores.py - small clients for S3, GCS and Azure Blob, to look at what a driver left in a store, and to prepare it.

They share no code with the project: signing, listing and paging are worked out from the services' descriptions. Every
client has make_bucket, objects, read, put, delete and head; StoreError carries the status and the body of a refusal.
"""

import base64
import hashlib
import hmac
import http.client
import json
import ssl
import time
import urllib.parse
import xml.etree.ElementTree

EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()


class StoreError(Exception):
    """An answer other than 2xx."""

    def __init__(self, what, status, headers, body):
        super().__init__("%s: status %d: %s" % (what, status, body[:300].decode("utf-8", "replace")))
        self.status = status
        self.headers = headers
        self.body = body


def _strip_namespaces(root):
    for element in root.iter():
        element.tag = element.tag.rsplit("}", 1)[-1]
    return root


def parse_xml(body):
    return _strip_namespaces(xml.etree.ElementTree.fromstring(body))


def quote(text, safe=""):
    return urllib.parse.quote(text, safe=safe + "-_.~")


class Client:
    """What the three have in common: one connection per request, to an endpoint like http://127.0.0.1:PORT/base."""

    def __init__(self, endpoint, ca_file=None):
        self.endpoint = endpoint
        parts = urllib.parse.urlsplit(endpoint)
        self.secure = parts.scheme == "https"
        self.host = parts.hostname
        self.port = parts.port or (443 if self.secure else 80)
        self.authority = parts.netloc
        self.base = parts.path.rstrip("/")
        self.ca_file = ca_file

    def connect(self, timeout=30):
        if self.secure:
            context = ssl.create_default_context(cafile=self.ca_file)
            return http.client.HTTPSConnection(self.host, self.port, timeout=timeout, context=context)
        return http.client.HTTPConnection(self.host, self.port, timeout=timeout)

    def send(self, method, path, query, headers, body=b""):
        """(status, headers, body) of one request whose path and query are in their final form."""
        connection = self.connect()
        try:
            target = path + ("?" + query if query else "")
            connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
            names = {name.lower() for name in headers}
            if "host" not in names:
                connection.putheader("Host", self.authority)
            for name, value in headers.items():
                connection.putheader(name, value)
            if body or method in ("PUT", "POST"):
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body if body else None)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()

    def request(self, method, bucket, key=None, query=(), headers=None, body=b""):
        """(status, headers, body), signed as the service wants it; whatever the status is."""
        raise NotImplementedError

    def checked(self, method, bucket, key=None, query=(), headers=None, body=b""):
        status, got, data = self.request(method, bucket, key, query, headers, body)
        if not 200 <= status < 300:
            raise StoreError("%s %s/%s" % (method, bucket, key or ""), status, got, data)
        return got, data

    def exists(self, bucket, key):
        try:
            self.read(bucket, key)
            return True
        except StoreError as error:
            if error.status == 404:
                return False
            raise


class S3(Client):
    """Path style, SigV4 with the payload's hash. Empty credentials: unsigned."""

    def __init__(self, endpoint, access_key, secret_key, region="us-east-1", token="", ca_file=None):
        super().__init__(endpoint, ca_file)
        self.access_key = access_key
        self.secret_key = secret_key
        self.region = region
        self.token = token

    def request(self, method, bucket, key=None, query=(), headers=None, body=b""):
        path = self.base + "/" + quote(bucket) + ("/" + quote(key, "/") if key is not None else "")
        pairs = sorted((quote(str(name)), quote(str(value))) for name, value in query)
        text = "&".join("%s=%s" % pair for pair in pairs)
        signed = {"host": self.authority}
        if self.access_key:
            signed["x-amz-date"] = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
            signed["x-amz-content-sha256"] = hashlib.sha256(body).hexdigest()
            if self.token:
                signed["x-amz-security-token"] = self.token
        for name, value in (headers or {}).items():
            signed[name.lower()] = value
        if self.access_key:
            signed["authorization"] = self.signature(method, path, text, signed)
        return self.send(method, path, text, signed, body)

    def signature(self, method, path, query, headers):
        """The Authorization header over all of `headers` (lower-case names)."""
        stamp = headers["x-amz-date"]
        scope = "%s/%s/s3/aws4_request" % (stamp[:8], self.region)
        names = ";".join(sorted(headers))
        lines = "".join("%s:%s\n" % (name, headers[name].strip()) for name in sorted(headers))
        canonical = "\n".join((method, path, query, lines, names, headers["x-amz-content-sha256"]))
        to_sign = "\n".join(("AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()))
        key = ("AWS4" + self.secret_key).encode()
        for part in (stamp[:8], self.region, "s3", "aws4_request"):
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        return "AWS4-HMAC-SHA256 Credential=%s/%s, SignedHeaders=%s, Signature=%s" % (
            self.access_key, scope, names, hmac.new(key, to_sign.encode(), hashlib.sha256).hexdigest())

    def make_bucket(self, bucket):
        self.checked("PUT", bucket)

    def objects(self, bucket, prefix="", page=1000):
        """[(key, size)], sorted by key."""
        found = []
        query = [("list-type", 2), ("prefix", prefix), ("max-keys", page)]
        more = []
        while True:
            root = parse_xml(self.checked("GET", bucket, query=query + more)[1])
            found += [(item.findtext("Key"), int(item.findtext("Size"))) for item in root.iter("Contents")]
            token = root.findtext("NextContinuationToken")
            if root.findtext("IsTruncated") != "true" or not token:
                return sorted(found)
            more = [("continuation-token", token)]

    def read(self, bucket, key):
        return self.checked("GET", bucket, key)[1]

    def put(self, bucket, key, body, headers=None):
        return self.checked("PUT", bucket, key, headers=headers, body=body)[0]

    def delete(self, bucket, key):
        self.checked("DELETE", bucket, key)

    def head(self, bucket, key):
        return self.checked("HEAD", bucket, key)[0]

    def uploads(self, bucket):
        """[(key, upload id)] of multipart uploads neither completed nor aborted."""
        root = parse_xml(self.checked("GET", bucket, query=[("uploads", "")])[1])
        return sorted((item.findtext("Key"), item.findtext("UploadId")) for item in root.iter("Upload"))


class Gcs(Client):
    """The JSON API, without authentication unless a token is given."""

    def __init__(self, endpoint, token="", ca_file=None):
        super().__init__(endpoint, ca_file)
        self.token = token

    def request(self, method, bucket, key=None, query=(), headers=None, body=b"", upload=False):
        path = "/storage/v1/b/" + quote(bucket) + "/o"
        if upload:
            path = "/upload" + path
        if key is not None and not upload:
            path += "/" + quote(key)
        sent = dict(headers or {})
        if self.token:
            sent["Authorization"] = "Bearer " + self.token
        text = "&".join("%s=%s" % (quote(str(name)), quote(str(value))) for name, value in query)
        return self.send(method, self.base + path, text, sent, body)

    def make_bucket(self, bucket):
        body = json.dumps({"name": bucket}).encode()
        status, headers, data = self.send("POST", self.base + "/storage/v1/b", "project=test",
                                          {"Content-Type": "application/json"}, body)
        if status != 200:
            raise StoreError("making bucket " + bucket, status, headers, data)

    def objects(self, bucket, prefix="", page=1000):
        found = []
        token = ""
        while True:
            query = [("prefix", prefix), ("maxResults", page)] + ([("pageToken", token)] if token else [])
            answer = json.loads(self.checked("GET", bucket, query=query)[1])
            found += [(item["name"], int(item["size"])) for item in answer.get("items") or ()]
            token = answer.get("nextPageToken")
            if not token:
                return sorted(found)

    def read(self, bucket, key):
        return self.checked("GET", bucket, key, query=[("alt", "media")])[1]

    def put(self, bucket, key, body, headers=None, query=()):
        full = [("uploadType", "media"), ("name", key), *query]
        sent = {"Content-Type": "application/octet-stream", **(headers or {})}
        status, got, data = self.request("POST", bucket, key, full, sent, body, upload=True)
        if status != 200:
            raise StoreError("POST %s/%s" % (bucket, key), status, got, data)
        return got

    def delete(self, bucket, key):
        self.checked("DELETE", bucket, key)

    def head(self, bucket, key):
        """The object's resource as a dict."""
        return json.loads(self.checked("GET", bucket, key)[1])


class Azure(Client):
    """Blob storage with Shared Key; `endpoint` ends with the account, as the emulator wants it."""

    VERSION = "2023-11-03"

    def __init__(self, endpoint, account, key, ca_file=None):
        super().__init__(endpoint, ca_file)
        self.account = account
        self.key = key

    def request(self, method, bucket, key=None, query=(), headers=None, body=b""):
        path = self.base + "/" + quote(bucket) + ("/" + quote(key, "/") if key is not None else "")
        sent = {"x-ms-date": time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime()), "x-ms-version": self.VERSION,
                **{name.lower(): value for name, value in (headers or {}).items()}}
        sent["authorization"] = self.signature(method, path, query, sent, len(body))
        text = "&".join("%s=%s" % (quote(str(name)), quote(str(value))) for name, value in query)
        return self.send(method, path, text, sent, body)

    def signature(self, method, path, query, headers, length):
        standard = [headers.get(name, "") for name in (
            "content-encoding", "content-language")] + [str(length) if length else ""] + [headers.get(name, "") for name in (
                "content-md5", "content-type", "date", "if-modified-since", "if-match", "if-none-match",
                "if-unmodified-since", "range")]
        own = "".join("%s:%s\n" % (name, headers[name]) for name in sorted(headers) if name.startswith("x-ms-"))
        resource = "/" + self.account + path
        for name, value in sorted((str(name).lower(), str(value)) for name, value in query):
            resource += "\n%s:%s" % (name, value)
        to_sign = "\n".join([method] + standard) + "\n" + own + resource
        digest = hmac.new(base64.b64decode(self.key), to_sign.encode(), hashlib.sha256).digest()
        return "SharedKey %s:%s" % (self.account, base64.b64encode(digest).decode())

    def make_bucket(self, bucket):
        self.checked("PUT", bucket, query=[("restype", "container")])

    def objects(self, bucket, prefix="", page=5000):
        found = []
        marker = ""
        while True:
            query = [("comp", "list"), ("restype", "container"), ("prefix", prefix), ("maxresults", page)]
            root = parse_xml(self.checked("GET", bucket, query=query + ([("marker", marker)] if marker else []))[1])
            found += [(item.findtext("Name"), int(item.findtext("Properties/Content-Length")))
                      for item in root.iter("Blob")]
            marker = root.findtext("NextMarker")
            if not marker:
                return sorted(found)

    def read(self, bucket, key):
        return self.checked("GET", bucket, key)[1]

    def put(self, bucket, key, body, headers=None):
        sent = {"x-ms-blob-type": "BlockBlob", "content-type": "application/octet-stream", **(headers or {})}
        return self.checked("PUT", bucket, key, headers=sent, body=body)[0]

    def delete(self, bucket, key):
        self.checked("DELETE", bucket, key)

    def head(self, bucket, key):
        return self.checked("HEAD", bucket, key)[0]
