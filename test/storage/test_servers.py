#!/usr/bin/python3
"""test_servers.py - the object stores that the other storage tests run against start, hold what they are given, and end.

Also that Litestream v0.3.13 works on each with the configuration that its class makes.
"""

import base64
import contextlib
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from ljtest import cli, fakecloud, faults, harness, servers, stores, tls  # noqa: E402
from ljtest.harness import Failure, check, check_equal, test, wait_for  # noqa: E402

ODD_KEY = "p/ü &+%~'(x)=/1"


def holds_what_it_is_given(t, store, page):
    """Put, list over several pages, read and delete."""
    store.make_bucket("bkt")
    check_equal(store.objects("bkt"), [], "objects at first")
    keys = sorted(["p/%d/x" % i for i in range(5)] + ["p-1", "q", ODD_KEY])
    for key in keys:
        store.put("bkt", key, key.encode() * 3)
    want = [(key, len(key.encode()) * 3) for key in keys]
    check_equal(store.objects("bkt"), want, "objects")
    if page:
        check_equal(store.client().objects("bkt", "p", page=2), [o for o in want if o[0].startswith("p")], "page by page")
    check_equal(store.objects("bkt", "p/"), [o for o in want if o[0].startswith("p/")], "objects below a prefix")
    check_equal(store.read("bkt", ODD_KEY), ODD_KEY.encode() * 3, "content")
    store.delete("bkt", "q")
    check(store.exists("bkt", "p-1") and not store.exists("bkt", "q"), "exists() does not know what was deleted")


def litestream_uses_it(t, store, endpoint=None):
    """The real Litestream replicates to it and restores from it, with the configuration the class makes."""
    why = harness.missing("litestream")
    if why:
        raise harness.Skip(why)
    store.make_bucket("litestream")
    for attempt in ("first", "second", "third"):
        try:
            litestream_replicates(t, store, endpoint, "%s/prefix" % attempt)
            return
        except (cli.DidNotEnd, harness.Failure, sqlite3.DatabaseError):
            # its own fault, now and then: see cli.end_litestream. What it wrote may also end in the middle of its last upload
            if attempt == "third":
                raise


def litestream_replicates(t, store, endpoint, prefix):
    path = t.path("db of " + prefix.replace("/", " "))
    db = sqlite3.connect(path)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("CREATE TABLE t(x)")
    settings = store.litestream_replica("litestream", prefix, endpoint)
    with cli.Sidecar(path, settings, t.path("log"), store.environment(endpoint)):
        count = 0

        def arrives():
            nonlocal count
            with db:  # after an error it tries again only when the database changes
                db.execute("INSERT INTO t VALUES(?)", (count,))
            count += 1
            return store.objects("litestream", prefix + "/generations/")

        wait_for(arrives, "anything in the store", step=0.05)
    out = store.litestream_restore(path + ".out", "litestream", prefix, endpoint=endpoint)
    with contextlib.closing(sqlite3.connect(out)) as restored:
        check_equal(restored.execute("SELECT count(*) FROM t").fetchone()[0], count, "rows restored")


def all_of_it(t, store, page=True):
    with t.part("content"):
        holds_what_it_is_given(t, store, page)
    with t.part("Litestream"):
        litestream_uses_it(t, store)


def broken_off(store, key):
    """A put whose connection ends in the middle of the body."""
    with faults.Proxy(store.endpoint) as proxy:
        proxy.add(faults.reset_upload(2000), method="PUT")
        client = stores.S3(proxy.endpoint, store.access_key, store.secret_key, store.region)
        try:
            client.put("bkt", key, bytes(100000))
        except OSError:
            proxy.settle()
            time.sleep(0.3)  # until the server has noticed
        else:
            raise Failure("the put was not broken off")


@test()
def s3rver(t):
    with servers.S3rver() as store:
        all_of_it(t, store)
        with t.part("common prefixes"):
            found = stores.parse_xml(store.client().checked("GET", "bkt", query=[("delimiter", "/"), ("prefix", "p/")])[1])
            prefixes = [item.text for item in found.iter("Prefix")]
            check_equal(sorted(prefixes[1:]), sorted({"p/%d/" % i for i in range(5)} | {ODD_KEY[:-1]}), "prefixes")
        with t.part("a put that breaks off changes nothing"):
            before = store.objects("bkt")
            for key in ("p-1", "never whole"):
                broken_off(store, key)
            check_equal(store.objects("bkt"), before, "objects")
        with t.part("restart keeps what it has"):
            before = store.objects("bkt")
            store.restart()
            check_equal(store.objects("bkt"), before, "objects")


@test()
def moto(t):
    with servers.Moto() as store:
        all_of_it(t, store)
        with t.part("conditions"):
            status, _, _ = store.client().request("PUT", "bkt", "p-1", headers={"If-None-Match": "*"}, body=b"other")
            check_equal(status, 412, "PUT if absent of what is there")
            store.client().put("bkt", "new", b"x", {"If-None-Match": "*"})
        with t.part("multipart uploads show"):
            body = store.client().checked("POST", "bkt", "big", query=[("uploads", "")])[1]
            check_equal(store.uploads("bkt"), [("big", stores.parse_xml(body).findtext("UploadId"))], "uploads")


@test()
def azurite(t):
    with servers.Azurite() as store:
        all_of_it(t, store)
        with t.part("conditions"):
            headers = {"x-ms-blob-type": "BlockBlob", "If-None-Match": "*"}
            status, got, _ = store.client().request("PUT", "bkt", "p-1", headers=headers, body=b"other")
            check_equal((status, got["x-ms-error-code"]), (409, "BlobAlreadyExists"), "PUT if absent of what is there")
        with t.part("a wrong key"):
            stranger = stores.Azure(store.endpoint, store.account, base64.b64encode(b"x" * 64).decode())
            check_equal(stranger.request("GET", "bkt", "p-1")[0], 403, "status")
        with t.part("restart keeps what it has"):
            before = store.objects("bkt")
            store.restart()
            check_equal(store.objects("bkt"), before, "objects")


@test()
def azurite_with_bearer_tokens(t):
    authority = tls.Authority(t.folder("ca"))
    with fakecloud.AzureImds() as imds, servers.Azurite(tls=authority, oauth=True) as store:
        store.make_bucket("bkt")
        store.put("bkt", "key", b"content")
        client = stores.Client(store.endpoint, authority.ca_file)

        def read(token):
            return client.send("GET", client.base + "/bkt/key", "", {"Authorization": "Bearer " + token,
                                                                      "x-ms-version": "2023-11-03"})

        check_equal(read(imds.new_jwt()[0])[2], b"content", "content")
        imds.expiry = -1
        check_equal(read(imds.new_jwt()[0])[0], 403, "status with an expired token")


@test()
def fake_gcs_server(t):
    with servers.FakeGcs() as store:
        all_of_it(t, store)
        with t.part("conditions"):
            if not store.strict:
                raise harness.Skip("this version of fake-gcs-server does not check them")
            try:
                store.client().put("bkt", "p-1", b"other", query=[("ifGenerationMatch", 0)])
            except stores.StoreError as error:
                check_equal(error.status, 412, "upload if absent of what is there")
            else:
                raise Failure("an upload if absent replaced what was there")
            store.client().put("bkt", "new", b"x", query=[("ifGenerationMatch", 0)])


def sftp(store, *options, env=None, port=None, stranger=False):
    """Whether OpenSSH's client gets in and lists the root; stranger=True: it knows another host key."""
    known = store.known_hosts_for(port or store.port, stranger)
    argv = ["sftp", "-F", "none", "-P", str(port or store.port), "-o", "StrictHostKeyChecking=yes",
            "-o", "GlobalKnownHostsFile=none", "-o", "UserKnownHostsFile=" + known, *options]
    full = {key: value for key, value in os.environ.items() if key != "SSH_AUTH_SOCK"}
    done = subprocess.run(argv + ["%s@127.0.0.1" % store.user], input=("ls %s\n" % store.root).encode(), timeout=300,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=dict(full, **(env or {})))
    return done.returncode == 0 and (store.root + "/bkt").encode() in done.stdout


def key_options(path):
    return ["-b", "-", "-o", "IdentitiesOnly=yes", "-i", path]


@test()
def sshd(t):
    with servers.Sshd() as store:
        all_of_it(t, store, page=False)
        with t.part("keys"):
            for path in (store.key_path, store.rsa_key_path, store.ecdsa_key_path):
                check(sftp(store, *key_options(path)), "refuses " + path)
            check(not sftp(store, *key_options(store.stranger_key_path)), "lets a stranger in")
        with t.part("host key"):
            check(not sftp(store, *key_options(store.key_path), stranger=True), "another host key is fine")
            done = subprocess.run(["ssh-keygen", "-lf", store.known_hosts], stdout=subprocess.PIPE, check=True)
            check(store.host_key_sha256.encode() in done.stdout, "host_key_sha256 is not that of known_hosts")
        with t.part("agent"):
            with store.agent() as env:
                check(sftp(store, "-b", "-", env=env), "refuses the agent's key")
        with t.part("password"):
            if not store.password:
                raise harness.Skip("no C compiler, so no password")
            for password, good in ((store.password, True), ("wrong", False)):
                ask = t.path("ask")
                with open(ask, "w") as file:
                    file.write("#!/bin/sh\necho %s\n" % password)
                os.chmod(ask, 0o700)
                env = {"SSH_ASKPASS": ask, "SSH_ASKPASS_REQUIRE": "force"}
                options = ["-o", "PubkeyAuthentication=no", "-o", "NumberOfPasswordPrompts=1"]
                check_equal(sftp(store, *options, env=env), good, "entry with the password " + password)
        with t.part("behind a tunnel"):
            with faults.Tunnel(store.endpoint) as tunnel:
                check(sftp(store, *key_options(store.key_path), port=tunnel.port), "no way through the tunnel")
                tunnel.add(faults.reset_body(1500))
                check(not sftp(store, *key_options(store.key_path), port=tunnel.port), "a cut tunnel goes on")
                tunnel.settle()
                check_equal(tunnel.requests[-1].sent, 1500, "bytes before the cut")
                check_equal(len(tunnel.seen("TCP")), 2, "connections")


@test()
def a_server_ends_with_the_process_that_started_it(t):
    code = ("import sys; sys.path.insert(0, sys.argv[1])\n"
            "from ljtest import servers\n"
            "with servers.Sshd() as store:\n"
            "    print(store.port, store.process.pid, flush=True)\n"
            "    sys.stdin.read()\n")
    child = subprocess.Popen([sys.executable, "-c", code, os.path.dirname(os.path.dirname(servers.__file__))],
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
    port, pid = map(int, child.stdout.readline().split())
    socket.create_connection(("127.0.0.1", port)).close()
    child.send_signal(signal.SIGKILL)
    child.wait()
    wait_for(lambda: not os.path.exists("/proc/%d" % pid) or
             open("/proc/%d/stat" % pid).read().rsplit(")", 1)[1].split()[0] == "Z", "the end of the server")


@test()
def what_is_not_installed_is_skipped(t):
    servers.INSTALLED = t.path("nothing")
    for kind in (servers.S3rver, servers.Moto, servers.Azurite, servers.FakeGcs):
        try:
            with kind():
                raise Failure("%s runs without being installed" % kind.name)
        except harness.Skip as reason:
            check("install_servers" in str(reason), str(reason))


@test()
def litestream_through_the_proxy(t):
    with servers.FakeGcs() as store, faults.Proxy(store.endpoint) as proxy:
        proxy.add(faults.gcs_error(503), method="POST", count=1)
        litestream_uses_it(t, store, proxy.endpoint)
        check(proxy.seen("POST", status=503), "nothing met the rule")
        check(proxy.seen("GET", r"^/litestream/(first|second)/prefix/"), "the restore did not come by")
    with servers.FakeGcs() as store, faults.Proxy(store.endpoint) as proxy:
        store.make_bucket("bkt")
        answer = stores.Gcs(proxy.endpoint).request("POST", "bkt", "key", [("uploadType", "resumable"), ("name", "key")],
                                                    {"Content-Type": "application/json"}, b"{}", upload=True)
        check(answer[1]["Location"].startswith(proxy.endpoint + "/"), "the session is at %s" % answer[1]["Location"])


if __name__ == "__main__":
    harness.main("storage servers")
