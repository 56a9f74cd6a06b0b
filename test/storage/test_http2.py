#!/usr/bin/python3
"""test_http2.py - a store that speaks HTTP/2 only: it is negotiated over TLS, and everything works through it.

The server is a small S3 in Node's http2 module (h2s3.js); no server of the other tests offers HTTP/2.
"""

import os
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from ljtest import chain, harness, pages, shim, tls  # noqa: E402
from ljtest.harness import check, check_equal, test  # noqa: E402
from ljtest.servers import dies_with_us  # noqa: E402
from ljtest.storeshell import Shell, content  # noqa: E402

BUCKET = "b"


class Server:
    def __init__(self, t):
        node = shutil.which("node")
        if not node:
            raise harness.Skip("there is no node")
        authority = tls.Authority(t.folder("tls"))
        script = os.path.join(os.path.dirname(os.path.abspath(tls.__file__)), "h2s3.js")
        self.process = subprocess.Popen(dies_with_us([node, script, *authority.certificate()]), stdout=subprocess.PIPE)
        t.cleanup(self.process.kill)
        self.endpoint = "https://127.0.0.1:%d" % int(self.process.stdout.readline())
        self.env = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "key", "AWS_CA_BUNDLE": authority.ca_file}
        self.url = "s3://%s?endpoint=%s&region=us-east-1&force-path-style=true" % (BUCKET, self.endpoint)


@test()
def objects(t):
    """Puts of all sizes below a part, if-absent, ranges, listings and deletions."""
    server = Server(t)
    shell = Shell(t, server.url, server.env)
    check_equal(shell.opened["code"], "ok", "open: %s" % shell.opened)
    for size in (0, 1, 100000, 5000000):
        shell.put("a/%d" % size, content(size))
        check(shell.get("a/%d" % size)[1] == content(size), "%d bytes came back changed" % size)
    check(shell.get("a/100000", 500, 1000)[1] == content(100000)[500:1500], "a range came back changed")
    check_equal([name for name, _ in sorted(shell.ok("list", "a/")["objects"])], sorted("a/%d" % n for n in (0, 1, 100000, 5000000)),
                "listing")
    shell.ok("delete", "a/0", "a/1", "a/100000", "a/5000000")
    check_equal(shell.ok("list", "a/")["objects"], [], "listing afterwards")


@test("shim", "load_extension")
def replication(t):
    """A database is replicated over it, lost, and restored."""
    server = Server(t)
    os.environ.update(server.env)
    path = os.path.join(t.folder("data"), "shard_0.db")
    con = shim.open_wal(path, server.url)
    chain.create(con)
    for _ in range(20):
        n = chain.commit_one(con, t.random)
    shim.sync(con, "60s")
    con.close()
    shutil.copy(path, t.path("before.db"))
    shutil.rmtree(os.path.dirname(path))
    t.folder("data")
    con = shim.open_wal(path, server.url)
    check_equal(chain.verify(con, "restored"), n, "last link")
    con.close()
    pages.check_same(path, t.path("before.db"), "restored against what was lost")


if __name__ == "__main__":
    harness.main("http2")
