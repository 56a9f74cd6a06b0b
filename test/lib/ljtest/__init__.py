"""ljtest - what the interop, crash and integration tests share.

    harness     runs test functions, each in a process of its own, and prints `ok`, `not ok` and `skip` lines
    shim        opens databases through the loaded extension; status, sync, snapshot
    cli         litejoin-replica, and the real Litestream v0.3.13 (restore, listings, sidecar)
    replica     an independent reader, checker and restorer of the v0.3 layout
    lz4frame    LZ4 frames: the header a v0.3.13 reader needs, compress, decompress
    wal         WAL header, frames and checksum chain in plain Python
    pages       page-by-page comparison, free pages, integrity_check
    chain       a table that proves which committed prefix a database holds
    workload    seeded generator of writes, rollbacks, spills, checkpoints and VACUUMs
    native      builds the C parts (walsum.c, crash/killat.c)
    servers     real object stores on loopback: s3rver, moto, azurite, fake-gcs-server, sshd
    stores      small clients that look into those stores
    faults      proxies that break requests as a test says, and record all
    s3gate      a proxy that checks signatures and digests as S3 does
    fakecloud   the endpoints that hand out credentials: AWS, Google, Azure
    httpd       the HTTP server below them: rules, records, misbehaviour
    ports       TCP ports that no other test gets
    tls         a certificate authority of the tests' own
    broken      replicas that fail: file in the way, read-only or full file system

Only the standard library is used, so that Debian's own /usr/bin/python3 (which can load SQLite extensions) runs everything.
"""
