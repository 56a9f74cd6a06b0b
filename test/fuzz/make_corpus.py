#!/usr/bin/python3
"""make_corpus.py - writes the seed inputs of the fuzz targets into test/fuzz/corpus/.

The seeds are committed; run this after changing them here. Inputs that a fuzzer found later are added to the same
folders by hand, under a name that says what they break.
"""

import base64
import pathlib
import struct

CORPUS = pathlib.Path(__file__).resolve().parent / "corpus"
GENERATION = "0123456789abcdef"


def checksum(order, data, total=(0, 0)):
    """SQLite's running WAL checksum over words in the given byte order."""
    first, second = total
    words = struct.unpack(f"{order}{len(data) // 4}I", data)
    for i in range(0, len(words), 2):
        first = (first + words[i] + second) & 0xFFFFFFFF
        second = (second + words[i + 1] + first) & 0xFFFFFFFF
    return first, second


def wal_file(order, page_size, commits):
    """A good WAL file; commits[i] is the database size frame i carries, 0 for none."""
    magic = 0x377F0682 | (order == ">")
    header = struct.pack(">IIIIII", magic, 3007000, page_size, 7, 0x11223344, 0x55667788)
    total = checksum(order, header)
    out = header + struct.pack(">II", *total)
    for number, db_pages in enumerate(commits, 1):
        page = bytes((number + i) & 0xFF for i in range(page_size))
        start = struct.pack(">II", number, db_pages)
        total = checksum(order, start, total)
        total = checksum(order, page, total)
        out += start + header[16:24] + struct.pack(">II", *total) + page
    return out


def recipe(page_shift, frames, order, commits, damage_at, change, fill=b""):
    """The odd-mode input of fuzz_wal.c."""
    return bytes([1, page_shift, frames - 1, order, commits]) + struct.pack(">I", damage_at) + bytes([change]) + fill


def wal_seeds():
    little = wal_file("<", 512, [0, 2])
    big = wal_file(">", 512, [1, 0, 3])
    other_salt = wal_file("<", 512, [1])[:32] + little[32:40] + b"\0" * 8 + little[48:568]
    yield "raw-little-endian", b"\0" + little
    yield "raw-big-endian", b"\0" + big
    yield "raw-page-1024", b"\0" + wal_file("<", 1024, [1])
    yield "raw-header-only", b"\0" + little[:32]
    yield "raw-torn-frame", b"\0" + little[:-100]
    yield "raw-left-over-frame", b"\0" + other_salt
    yield "raw-page-zero", b"\0" + little[:32] + b"\0" * 8 + little[40:]
    yield "damage-header", recipe(0, 2, 0, 1, 9, 1)
    yield "damage-first-page", recipe(0, 3, 1, 5, 32 + 24 + 100, 0x80)
    yield "damage-last-frame", recipe(1, 2, 0, 2, 32 + 1048 + 3, 0xFF, b"some content of a page")
    yield "damage-salt", recipe(0, 1, 1, 1, 32 + 9, 4)
    yield "damage-page-65536", recipe(7, 1, 0, 1, 32 + 24 + 65535, 2)


def name_seeds():
    snapshot = f"generations/{GENERATION}/snapshots/"
    wal = f"generations/{GENERATION}/wal/"
    yield "snapshot", f"{snapshot}00000001.snapshot.lz4"
    yield "snapshot-highest", f"{snapshot}7fffffff.snapshot.lz4"
    yield "snapshot-too-high", f"{snapshot}80000000.snapshot.lz4"
    yield "snapshot-upper-case", f"{snapshot}0000000A.snapshot.lz4"
    yield "wal", f"{wal}00000001_00001038.wal.lz4"
    yield "wal-offset-16-digits", f"{wal}00000001_0000000100001038.wal.lz4"
    yield "wal-offset-17-digits", f"{wal}00000001_00000000100001038.wal.lz4"
    yield "wal-without-offset", f"{wal}00000001.wal.lz4"
    yield "wal-temporary", f"{wal}00000001_00001038.wal.lz4.tmp"
    yield "generation-only", f"generations/{GENERATION}"
    yield "generation-short", "generations/0123456789abcde/wal/00000001_00000000.wal.lz4"
    yield "position", GENERATION
    yield "empty", ""


def time_seeds():
    for text in ["2026-01-02T03:04:05Z", "2026-01-02t03:04:05.123456789+02:00", "1969-12-31 23:59:59.5-00:30",
                 "2024-02-29T00:00:60Z", "2023-02-29T00:00:00Z", "1678-01-01T00:00:00+23:59", "2261-12-31T23:59:60-23:59",
                 "0s", "0", "1h30m", "500ms", "1.5s", "999999.9us", "59.9999999s", "1m59.9999996s", "2501999792983609ns",
                 "9000000000s", ".5h", "1e3s", "-1s", "99999999999999999999h"]:
        yield "".join(c if c.isalnum() else "-" for c in text).strip("-") or "empty", text


def yaml_seeds():
    block = "replication:\n  enabled: yes\n  mode: embedded\n  replica_url: file:///backup/state\n  retention: 24h\n"
    yield "block", block
    yield "flow", "{replication: {enabled: on, 'max_wal_size': !!str 64MiB, \"log_level\": debug}, shards: 4}"
    yield "engine", "a: &a {replication: {x: 1}}\nb: *a\n? [k]\n: {<<: *a}\n" + block + "c: |\n  replication: 1\n"
    yield "documents", "%YAML 1.1\n---\n- 1\n...\n---\n" + block
    yield "block-twice", block + block
    yield "key-twice", block + "  retention: 1h\n"
    yield "unknown-key", "replication: {sync_intervall: 1s, [a]: b, *c : d}"
    yield "values", "replication:\n  enabled:\n  mode: [x]\n  log_file: \"a\\0b\"\n  io_timeout: {}\n"
    yield "nested", "[" * 300 + "]" * 300
    yield "utf-16", ("\ufeff" + block).encode("utf-16-le")
    yield "empty", ""


def litestream_seeds():
    every = ("addr: ':9090'\nexec: true\naccess-key-id: a\nsecret-access-key: b\nlogging: {level: warn, type: json, stderr: true}\n"
             "dbs:\n  - path: ~/a.db\n    meta-path: x\n    monitor-interval: 1s\n    checkpoint-interval: 1m30s\n"
             "    min-checkpoint-page-count: 10\n    max-checkpoint-page-count: 0\n    replicas:\n")
    yield "every-key", every + (
        "      - {name: n, path: /r, retention: 24h, retention-check-interval: 1, sync-interval: -1s, snapshot-interval: ~}\n"
        "      - {type: s3, bucket: b, path: /p, region: r, endpoint: e, force-path-style: yes, skip-verify: off, sse: AES256}\n"
        "      - {type: sftp, host: 'h:22', user: 'u@x', password: p, path: p, strict-host-key: no}\n"
        "      - {type: gcs, bucket: b, age: {identities: [x], recipients: [y, z]}}\n")
    yield "urls", every + ("      - {url: 'sftp://u:p@h/x', user: v}\n      - {url: 'S3://b/x', name: ${NO}}\n"
                           "      - {url: 'file://a/$$b', name: \"\"}\n      - {url: sftp://@, user: v, name: x}\n")
    yield "merged", "x: &x {name: n, path: /r}\ny: &y {<<: *x}\ndbs:\n - {path: a, replicas: [{<<: [*x, *y]}]}\n"
    yield "merged-circle", "x: &x {<<: &y [*x, *x, *x]}\ndbs: [{<<: *x, path: *y}]\n"
    yield "list-twice", ("dbs: [{path: a, replicas: [{path: /r, age: {identities: [a, b, c, d], identities: [e]},"
                         " age: {identities: []}}]}]\n")
    yield "key-twice", "dbs: [{path: b}]\ndbs: [{path: a, path: c, replicas: [], replicas: [{path: /r, path: /s}]}]\n"
    yield "no-lists", "dbs: 7\nlogging: [x]\n"
    yield "empty", ""


def option_seeds():
    for text in ["replica_url=file:///backup", "replica_url=s3://bucket.host:9000/a//?region=x&endpoint=http://h:1",
                 "replica_url=sftp://user@[::1]:22/x@y", "replica_url=s3://id:se/cret@bucket", "replica_url=s3://b?sig=x",
                 "replica_name=a b", "max_wal_size=64 MiB", "max_spool_size=18446744073709551615G", "upload_workers=64",
                 "sync_interval=1h30m", "mode=embedded", "enabled=oFf", "log_levle=info", "=", "base_vfs=unix"]:
        yield "".join(c if c.isalnum() else "-" for c in text).strip("-") or "empty", text


def awsprofile_seeds():
    keys = "aws_access_key_id = AKIA\naws_secret_access_key = a/b+c\n"
    yield "credentials", "[default]\n" + keys + "\n[a]\n" + keys + "aws_session_token=t==\n"
    yield "config", "[profile a]\nregion = eu\nrole_arn = arn:aws:iam::1:role/r\nsource_profile = default\n[default]\nregion=x\n"
    yield "profile-default", "[ profile default ] # x\nregion = y ; z\n[default]\nregion = w\n"
    yield "nested", "[default]\ns3 =\n  region = a\n  x = y\nregion = \"b\"\n"
    yield "continued", "[default]\ncredential_process = a \\\n  b\n\tc # d\n"
    yield "comments", "# a\n; b\n[default] ; c\n  # d\nregion = e #f\nregion: 'g'\n"
    yield "before-a-section", "region = x\n[default]\n"
    yield "no-bracket", "[default\nregion = x\n"
    yield "no-equals", "[default]\nregion\n"
    yield "no-name", "[default]\n= x\n[]\n"
    yield "windows", "\ufeff[default]\r\nregion = x\r\n\r\n".encode()
    yield "binary", b"[default]\nregion = \0\n"
    yield "empty", ""


def awsanswer_seeds():
    good = '"AccessKeyId": "AKIA", "SecretAccessKey": "a/b", "Expiration": "2120-01-01T00:00:00Z"'
    yield "process", '{"Version": 1, %s, "SessionToken": "t"}' % good
    yield "imds", '{"Code": "Success", %s, "Token": "t"}' % good
    yield "imds-refusal", '{"Code": "Failed", "Message": "no\\nluck"}'
    yield "expired", '{"Version": 1, "AccessKeyId": "A", "SecretAccessKey": "s", "Expiration": "2020-01-01T00:00:00Z"}'
    yield "odd-types", '{"Version": "1", "AccessKeyId": 1, "SecretAccessKey": null, "Expiration": {}}'
    yield "sts", ("<r xmlns='u'><x:Credentials xmlns:x='v'><AccessKeyId>A</AccessKeyId><SecretAccessKey>s&amp;</SecretAccessKey>"
                  "<SessionToken>t</SessionToken><Expiration>2120-01-01T00:00:00Z</Expiration></x:Credentials></r>")
    yield "sts-error", "<ErrorResponse><Error><Code>AccessDenied</Code><Message>no</Message></Error></ErrorResponse>"
    yield "sts-doctype", "<!DOCTYPE a [<!ENTITY e 'x'>]><a><Code>&e;</Code></a>"
    yield "sts-deep", "<a>" * 20
    yield "empty", ""


def gcsjson_seeds():
    """The first byte says which parser: 0 page, 1 object, 2 refusal, 3 token, 4 credentials file."""
    item = (b'{"kind":"storage#object","name":"a/wal/00000000_00000000.wal.lz4","size":"4152",'
            b'"timeCreated":"2026-01-02T03:04:05.678Z","generation":"1700000000000001","crc32c":"4waSgw=="}')
    user = b'{"type":"authorized_user","client_id":"i","client_secret":"s","refresh_token":"r"}'
    external = (b'{"type":"external_account","audience":"//iam/x","subject_token_type":"urn:jwt","token_url":"https://sts/t",'
                b'"credential_source":{"url":"http://169.254.169.254/t","headers":{"Metadata":"True"},'
                b'"format":{"type":"json","subject_token_field_name":"tok"}}}')
    yield "page", b'0{"items":[' + item + b"," + item + b'],"nextPageToken":"CgJhYg=="}'
    yield "page-empty", b"0{}"
    yield "page-items-null", b'0{"items":null,"nextPageToken":""}'
    yield "page-item-without-size", b'0{"items":[{"name":"a"}]}'
    yield "object", b"1" + item
    yield "object-number", b'1{"size":7,"timeCreated":"2026-01-02T03:04:05Z"}'
    yield "refusal", b'2{"error":{"code":404,"message":"Not Found","errors":[{"domain":"global","reason":"notFound"}]}}'
    yield "refusal-oauth", b'2{"error":"invalid_grant","error_description":"Bad Request"}'
    yield "refusal-text", "2No such object: é\n".encode()
    yield "token", b'3{"access_token":"ya29.a","expires_in":3599,"token_type":"Bearer"}'
    yield "token-impersonated", b'3{"accessToken":"ya29.b","expireTime":"2026-01-02T03:04:05Z"}'
    yield "file-user", b"4" + user
    yield "file-external", b"4" + external
    yield "file-impersonated", (b'4{"type":"impersonated_service_account","service_account_impersonation_url":"https://i/x",'
                                b'"delegates":["a"],"source_credentials":' + user + b"}")
    yield "file-service-account", (b'4{"type":"service_account","client_email":"a@b","private_key":"-----BEGIN PRIVATE KEY-----'
                                   b'\\nAAAA\\n-----END PRIVATE KEY-----\\n"}')


def absxml_seeds():
    blob = ("<Blob><Name>p/%s</Name><Properties><Creation-Time>Sun, 06 Nov 1994 08:49:37 GMT</Creation-Time>"
            "<Content-Length>42</Content-Length></Properties></Blob>")
    page = ('\ufeff<?xml version="1.0" encoding="utf-8"?><EnumerationResults ContainerName="c"><Blobs>%s</Blobs>'
            "<NextMarker>%s</NextMarker></EnumerationResults>")
    yield "page", page % (blob % "a" + blob % "b &amp; c", "2!76!MDAw")
    yield "page-empty", page % ("", "")
    yield "page-encoded-name", page % ('<Blob><Name Encoded="true">a%2F%EF%BF%BE</Name><Properties><Last-Modified>'
                                       "Sun, 06 Nov 1994 08:49:37 GMT</Last-Modified><Content-Length>0</Content-Length>"
                                       "<ResourceType>file</ResourceType></Properties></Blob>", "")
    yield "page-folder", page % ("<Blob><Name>d</Name><Properties><ResourceType>directory</ResourceType></Properties>"
                                 "</Blob><BlobPrefix><Name>d/</Name></BlobPrefix>", "")
    yield "page-without-size", page % ("<Blob><Name>d</Name><Snapshot/><Properties/></Blob>", "")
    yield "page-doctype", '<!DOCTYPE x [<!ENTITY a "b">]><EnumerationResults>&a;</EnumerationResults>'
    yield "page-nested", "<EnumerationResults>" * 20
    yield "page-utf-16", (page % (blob % "a", "")).encode("utf-16-le")
    yield "error", "<Error><Code>BlobNotFound</Code><Message>Not there.\nRequestId:1</Message><X><Code>y</Code></X></Error>"
    yield "error-html", "<html><head><title>502 Bad Gateway</title></head></html>"
    yield "empty", ""


def s3xml_seeds():
    listing = "<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">%s</ListBucketResult>"
    entry = ("<Contents><Key>%s</Key><LastModified>2026-01-02T03:04:05.678Z</LastModified><ETag>&quot;x&quot;</ETag>"
             "<Size>%s</Size><StorageClass>STANDARD</StorageClass></Contents>")
    yield "v2-page", listing % ("<KeyCount>2</KeyCount><IsTruncated>true</IsTruncated><NextContinuationToken>1ueG+/="
                                "</NextContinuationToken>" + entry % ("p/a", 7) + entry % ("p/b", 0))
    yield "v1-encoded", listing % (entry % ("a%2Fb+c%2B", 1) + "<NextMarker>a%2Fb</NextMarker><IsTruncated>true"
                                   "</IsTruncated><EncodingType>url</EncodingType>")
    yield "bad-encoding", listing % ("<EncodingType>url</EncodingType>" + entry % ("a%00b", 1) + entry % ("a%2", 1))
    yield "absent-fields", listing % "<Contents><Key>a</Key></Contents><Contents><Size>1</Size></Contents><Contents/>"
    yield "size-not-a-number", listing % (entry % ("a", "-1"))
    yield "prefixed-names", "<s:ListBucketResult xmlns:s='u'><s:Contents><s:Key>k</s:Key></s:Contents></s:ListBucketResult>"
    yield "nested", "<ListBucketResult>" + "<a>" * 20 + "</a>" * 20 + "</ListBucketResult>"
    yield "entities", "<!DOCTYPE r [<!ENTITY e 'x'>]><ListBucketResult><Contents><Key>&e;</Key></Contents></ListBucketResult>"
    yield "cut-off", (listing % (entry % ("a", 1)))[:-30]
    yield "latin-1", b"<?xml version='1.0' encoding='ISO-8859-1'?><ListBucketResult><Contents><Key>\xe9</Key></Contents></ListBucketResult>"
    yield "utf-16", ("\ufeff" + listing % (entry % ("a", 1))).encode("utf-16-le")
    yield "deleted", ("<DeleteResult><Deleted><Key>a</Key></Deleted><Error><Key>b</Key><Code>AccessDenied</Code><Message>no"
                      "</Message></Error></DeleteResult>")
    yield "error", "<?xml version=\"1.0\"?>\n<Error><Code>NoSuchBucket</Code><Message>none</Message><Region>eu-west-1</Region></Error>"
    yield "html", "<html><body><p>sign in</body></html>"
    yield "blanks-before", " \n \n<Error><Code>InternalError</Code></Error>"
    yield "empty", ""


def url_seeds():
    for text in ["s3://bucket/a/b", "s3://bucket.host:9000//a/./c/../b%20c/?region=eu%2Dx&x=a+b", "abs://account@container/x",
                 "sftp://u%40x:p%2Fw@host:22/~/d", "sftp://user@[::1]:2222/d", "sftp://[fe80::1%25eth0]/d", "gs://b/../../x",
                 "gs:///x", "s3://b?key=secret", "s3://b?region=a&region=b", "region=a%0d%0ab", "s3://b%2fc/x", "s3://b/%zz",
                 "a/../b/.", "s3://b/x#y", "\u00e4?%00"]:
        yield "".join(c if c.isalnum() and c.isascii() else "-" for c in text).strip("-") or "empty", text


def answer_seeds():
    yield "date", "Sun, 06 Nov 1994 08:49:37 GMT"
    yield "date-leap-day", "Thu, 29 Feb 2024 23:59:59 GMT"
    yield "date-last", "Tue, 31 Dec 2261 23:59:59 GMT"
    yield "date-old-form", "Sunday, 06-Nov-94 08:49:37 GMT"
    yield "headers", 'etag: "a"\nx:\t b c \ncontent-length: 12\nretry-after: 120\n'
    yield "retry-at", "x-y: 1\nretry-after: Tue, 31 Dec 2261 23:59:59 GMT\n"
    yield "retry-huge", "retry-after: 18446744073709551615\n"
    yield "no-value", "etag:\nretry-after:\n:\nx"
    yield "long-value", "etag: " + "e" * 100 + "\nx: 1"
    yield "controls", "SlowDown: \x1b[31mslow\r\n\x7f"
    yield "empty", ""


def lz4_frame(content, label=b""):
    """An LZ4 frame of one stored block without checksums, behind a skippable frame with the label."""
    header = b"\x60\x40\x82" if len(content) <= 65536 else b""
    skip = struct.pack("<II", 0x184D2A50, len(label)) + label if label else b""
    block = struct.pack("<I", 0x80000000 | len(content)) + content if content else b""
    return skip + struct.pack("<I", 0x184D2204) + header + block + struct.pack("<I", 0)


def label(kind, index, offset, size, needs=0):
    return (b"LJOBJ1\0\0" + GENERATION.encode() + struct.pack(">IIQQQII", kind, index, offset, size, needs, 1, 2))


def object_seeds():
    """The first byte is the size of the pieces."""
    yield "plain", b"\x03" + lz4_frame(b"content of an object")
    yield "segment", b"\x05" + lz4_frame(b"0123456789", label(1, 2, 4152, 10))
    yield "snapshot", b"\x09" + lz4_frame(b"0123456789", label(0, 2, 0, 10, 8000))
    yield "label-of-nobody", b"\x02" + lz4_frame(b"x", b"somebody else's")
    yield "label-too-long", b"\x02" + lz4_frame(b"x", b"l" * 80)
    yield "label-twice", b"\x02" + struct.pack("<II", 0x184D2A5F, 3) + b"abc" + lz4_frame(b"x", label(1, 0, 0, 1))
    yield "trailing", b"\x24" + lz4_frame(b"x") + b"tail"
    yield "two-frames", b"\x24" + lz4_frame(b"x") * 2
    yield "cut", b"\x01" + lz4_frame(b"0123456789")[:-2]
    yield "age", b"\x01age-encryption.org/v1\n"
    yield "legacy", b"\x01\x02\x21\x4c\x18"
    yield "empty", b"\x01" + lz4_frame(b"")


def position_seeds():
    lines = ("litejoin-position 1\nat 0123456789abcdef 3 4152\nprevious 8000\nlife 1 2 3 4 4096 0\nbase 5 6 7\n"
             "identity 1 2 3 4\nobject 5\nsnapshot 6 3 0\nowned 00000000000000aa\nowned 0123456789abcdef\n")
    yield "sealed", "1" + lines
    yield "unsealed", "0" + lines + "check 1\n"
    yield "many-owned", "1" + lines + "owned 0123456789abcdee\nowned 0123456789abcdef\n" * 12
    yield "no-generation", "1litejoin-position 1\nobject 5\n"
    yield "negative", "1" + lines.replace("4152", "-1")
    yield "unknown-line", "1" + lines + "colour blue\n"
    yield "empty", "0"


def spool_seeds():
    yield "entry", GENERATION + "-00000001-00000000-00001038.wal"
    yield "entry-decimal", GENERATION + "-1-0-4152.wal"
    yield "temporary", GENERATION + "-00000001-00000000-00001038.wal.tmp"
    yield "backwards", GENERATION + "-00000001-00001038-00000020.wal"
    yield "index-too-high", GENERATION + "-ffffffff-00000000-00001038.wal"
    yield "whole-index", GENERATION + "-00000001-000000000000-000000001038.wal"
    yield "whole-index-and-the-end-before", GENERATION + "-00000001-000000000000-000000001038-000000002050.wal"
    yield "no-end-before", GENERATION + "-00000001-000000000000-000000001038-000000000000.wal"
    yield "rest-of-an-index", GENERATION + "-00000001-000000001038-000000002050.wal"
    yield "end-in-front-of-its-begin", GENERATION + "-00000001-000000002050-000000001038.wal"
    yield "foreign", "notes.txt"


def shared_seeds():
    """The first byte: 1 patches with a good checksum (2: in both slots, 4: the words too), 8 later, 16 over an empty page."""
    def patch(at, content):
        return struct.pack("<HB", at, len(content)) + content

    def fill(at, value):
        return struct.pack("<HBB", at, 255, value)
    chain = 8  # behind the sequence
    yield "good", b"\1"
    yield "flags", b"\3" + patch(chain, b"\7") + patch(chain + 32, b"\2\2\2")
    yield "generation-long", b"\x0b" + patch(chain + 1, b"f" * 40)
    yield "generation-path", b"\x0b" + patch(chain + 1, b"../../../etc\0")
    yield "index-high-late", b"\x0b" + patch(chain + 20, b"\xf0\xff\xff\x7f")
    yield "sequence-highest", b"\3" + patch(0, b"\xff" * 8)
    yield "everything-set", b"\x0f" + fill(0, 255)
    yield "everything-one", b"\x0b" + fill(chain, 1) + patch(chain + 1, b"f" * 16 + b"\0")
    yield "nothing", b"\x0b" + fill(chain, 0)
    yield "layout-of-another", b"\0" + struct.pack("<II", 4000, 2)
    yield "zeros", b"\x10"
    yield "torn", b"\x18" + b"\xa5" * 200


def fold_seeds():
    little = wal_file("<", 512, [0, 2])
    yield "raw-one-index", b"\0" + bytes([0, 0, 0, 255]) + little
    yield "raw-header", b"\0" + bytes([1, 0, 0, 4]) + little[:32]
    yield "raw-gap", b"\0" + bytes([0, 0, 0, 4]) + little[:32] + bytes([0, 40, 0, 9]) + b"x" * 72
    yield "raw-two-indexes", b"\0" + bytes([0, 0, 0, 4]) + little[:32] + bytes([1, 0, 0, 4]) + little[:32]
    yield "good", bytes([1, 2, 4, 5, 3, 9, 17, 40, 0])
    yield "damaged", bytes([1, 2, 3, 4, 7, 200, 3, 33, 1])
    yield "damaged-late", bytes([1, 0, 1, 0, 0, 1, 255, 255, 128])


def plan_seeds():
    """Four bytes of question, then (generation and kind, index, offset, time) each."""
    objects = [(1, 0, 0, 1), (0, 0, 0, 2), (0, 0, 40, 3), (0, 1, 0, 4), (1, 1, 0, 5), (0, 2, 0, 6), (0, 2, 40, 7)]
    second = [(3, 0, 0, 20), (2, 0, 0, 21), (2, 0, 40, 22)]
    whole = b"".join(map(bytes, objects))
    yield "newest", b"\0\0\0\0" + whole
    yield "two-generations", b"\0\0\0\0" + whole + b"".join(map(bytes, second))
    yield "time", b"\1\4\0\0" + whole
    yield "index", b"\2\1\0\0" + whole
    yield "hole", b"\0\0\0\0" + b"".join(map(bytes, objects[:2] + objects[5:]))
    yield "no-snapshot", b"\0\0\0\0" + bytes(objects[1])
    yield "no-begin", b"\0\0\0\1" + b"".join(map(bytes, objects[:1] + objects[2:]))
    yield "empty", b"\0\0\0\0"


def sftp_seeds():
    """The first byte: 0 names, 1 known_hosts, 2 a pin, 3 a private key."""
    def text(content):
        return struct.pack(">I", len(content)) + content
    attrs = struct.pack(">IQIII", 13, 4152, 0o100644, 1, 1700000000)
    extended = struct.pack(">II", 0x80000000, 1) + text(b"name") + text(b"value")
    yield "names", b"\0" + struct.pack(">I", 2) + text(b"a") + text(b"-rw- a") + attrs + text(b"..") + text(b"") + extended
    yield "names-count-too-high", b"\0" + struct.pack(">I", 0xFFFFFFFF) + text(b"a") + text(b"") + attrs
    yield "names-length-too-high", b"\0" + struct.pack(">II", 1, 0xFFFFFFFF) + b"a"
    key = "AAAAC3NzaC1lZDI1NTE5AAAAIDAxMjM0NTY3ODlhYmNkZWYwMTIzNDU2Nzg5YWJjZGVm"
    yield "hosts", f"1example.com,10.0.0.* ssh-ed25519 {key} comment\n# x\n\n[example.com]:2222 ssh-rsa AAAA\n"
    yield "hosts-revoked", f"1@revoked * ssh-ed25519 {key}\n@cert-authority *.com ssh-ed25519 {key}\n"
    yield "hosts-hashed", f"1|1|F1E1KeoE/eEWhi10WpGv4OdiO6Y=|3988QV0VE8wmZL7suNrYQLITLCg= ssh-ed25519 {key}\n"
    yield "hosts-negated", f"1!example.com,*.com ssh-ed25519 {key}\n"
    yield "pin-key", f"2ssh-ed25519 {key} x"
    yield "pin-fingerprint", "2SHA256:uNiVztksCsDhcc0u9e8BrCVXVDuQAnDaGSf4LyDsnGw"
    openssh = (b"openssh-key-v1\0" + text(b"none") + text(b"none") + text(b"") + struct.pack(">I", 1) + text(text(b"ssh-rsa"))
               + text(struct.pack(">II", 1, 1) + text(b"ssh-rsa") + text(b"\1\2") * 6))
    yield "key-openssh", (b"3-----BEGIN OPENSSH PRIVATE KEY-----\n" + base64.b64encode(openssh)
                          + b"\n-----END OPENSSH PRIVATE KEY-----\n")
    yield "key-pem", "3-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n"
    yield "key-empty", "3"


def azure_seeds():
    """The first byte: 0 a token, 1 a connection string, 2 an endpoint, 3 a refusal."""
    yield "token", '0{"access_token":"ey","expires_in":"3599","expires_on":"1700003600","token_type":"Bearer"}'
    yield "token-numbers", '0{"access_token":"ey","expires_in":3599}'
    yield "token-odd", '0{"access_token":"","expires_in":-1e99}'
    yield "connection", ("1DefaultEndpointsProtocol=https;AccountName=a;AccountKey=YWJj;EndpointSuffix=core.windows.net;"
                         "BlobEndpoint=https://a.blob.core.windows.net/")
    yield "connection-sas", "1BlobEndpoint=http://127.0.0.1:10000/devstoreaccount1;SharedAccessSignature=sv=1&sig=x"
    yield "connection-development", "1UseDevelopmentStorage=true;DevelopmentStorageProxyUri=http://h"
    yield "connection-odd", "1;;=;a=b;AccountName"
    yield "endpoint", "2https://account.blob.core.windows.net"
    yield "endpoint-emulator", "2http://127.0.0.1:10000/devstoreaccount1/"
    yield "endpoint-exposed", "2http://account.example.com"
    yield "refusal", '3{"error":"invalid_client","error_description":"AADSTS7000215: no\\r\\nTrace","error_codes":[7000215]}'
    yield "refusal-html", "3<html>"


def main():
    for target, seeds in [("wal", wal_seeds()), ("name", name_seeds()), ("time", time_seeds()),
                          ("yaml", yaml_seeds()), ("litestream", litestream_seeds()), ("option", option_seeds()),
                          ("awsprofile", awsprofile_seeds()), ("awsanswer", awsanswer_seeds()),
                          ("gcsjson", gcsjson_seeds()), ("absxml", absxml_seeds()),
                          ("s3xml", s3xml_seeds()),
                          ("url", url_seeds()), ("answer", answer_seeds()), ("object", object_seeds()),
                          ("position", position_seeds()), ("spool", spool_seeds()), ("fold", fold_seeds()), ("shared", shared_seeds()),
                          ("plan", plan_seeds()), ("sftp", sftp_seeds()), ("azure", azure_seeds())]:
        folder = CORPUS / target
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in seeds:
            (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


main()
