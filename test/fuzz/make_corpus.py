#!/usr/bin/python3
"""make_corpus.py - writes the seed inputs of the fuzz targets into test/fuzz/corpus/.

The seeds are committed; run this after changing them here. Inputs that a fuzzer found later are added to the same
folders by hand, under a name that says what they break.
"""

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


def option_seeds():
    for text in ["replica_url=file:///backup", "replica_url=s3://bucket.host:9000/a//?region=x&endpoint=http://h:1",
                 "replica_url=sftp://user@[::1]:22/x@y", "replica_url=s3://id:se/cret@bucket", "replica_url=s3://b?sig=x",
                 "replica_name=a b", "max_wal_size=64 MiB", "max_spool_size=18446744073709551615G", "upload_workers=64",
                 "sync_interval=1h30m", "mode=embedded", "enabled=oFf", "log_levle=info", "=", "base_vfs=unix"]:
        yield "".join(c if c.isalnum() else "-" for c in text).strip("-") or "empty", text


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


def main():
    for target, seeds in [("wal", wal_seeds()), ("name", name_seeds()), ("time", time_seeds()),
                          ("yaml", yaml_seeds()), ("option", option_seeds()), ("s3xml", s3xml_seeds()),
                          ("awsprofile", awsprofile_seeds()), ("awsanswer", awsanswer_seeds())]:
        folder = CORPUS / target
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in seeds:
            (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


main()
