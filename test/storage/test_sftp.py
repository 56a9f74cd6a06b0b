#!/usr/bin/python3
"""test_sftp.py - the SFTP driver on OpenSSH's own server: logins, host keys, broken connections, servers that can less."""

import contextlib
import hashlib
import json
import os
import re
import signal
import stat
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from ljtest import cli, faults, harness, native, replica, servers  # noqa: E402
from ljtest.harness import Failure, check, check_equal, test, wait_for  # noqa: E402

# Whatever the machine has must not count.
NAMES = ("SSH_AUTH_SOCK", "LITEJOIN_SFTP_PASSWORD", "LITEJOIN_SFTP_KEY_PASSPHRASE")
ALL_EXTENSIONS = "posix-rename,hardlink,fsync,statvfs,limits"


def environment(t, more=None):
    env = {name: value for name, value in os.environ.items() if name not in NAMES}
    env["HOME"] = t.folder("home")
    env.update(more or {})
    return env


def built(name):
    path = os.path.join(harness.build_dir(), "test", "storage", name)
    if not harness.build_dir() or not os.access(path, os.X_OK):
        raise harness.Skip("no %s in LJ_BUILD=%s" % (name, harness.build_dir() or "(not set)"))
    return path


class Shell:
    """A store opened in a process of its own (store_shell.c)."""

    def __init__(self, t, url, env=None, timeout_ms=None, **settings):
        more = dict(env or {})
        if timeout_ms:
            more["LJ_SHELL_TIMEOUT_MS"] = str(timeout_ms)
        self.log = t.path("shell%d.log" % len(os.listdir(t.dir)))
        arguments = ["%s=%s" % (name.replace("_", "-"), value) for name, value in settings.items()]
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen([built("store_shell"), url, *arguments], stdin=subprocess.PIPE,
                                            stdout=subprocess.PIPE, stderr=log, env=environment(t, more), text=True)
        t.cleanup(self.close)
        check_equal(self.answer()["code"], "ok", "opening")

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise Failure("store_shell ended: status %s, %s" % (self.process.wait(120), self.logged()[-800:]))
        return json.loads(line)

    def send(self, *fields):
        self.process.stdin.write("\t".join(str(field) for field in fields) + "\n")
        self.process.stdin.flush()

    def __call__(self, *fields):
        self.send(*fields)
        return self.answer()

    def good(self, *fields):
        got = self(*fields)
        check(got["code"] == "ok", "%s: %s" % (fields[0], got))
        return got

    def fails(self, code, *fields, says="", hint="", retryable=True):
        got = self(*fields)
        check_equal(got["code"], code, "%s: %s" % (fields[0], got.get("message")))
        for text in [says] if isinstance(says, str) else says:
            check(text in got["message"], "%s: no %r in %r" % (fields[0], text, got["message"]))
        for text in [hint] if isinstance(hint, str) else hint:
            check(text in got["hint"], "%s: no %r in the hint %r" % (fields[0], text, got["hint"]))
        check_equal(got["retryable"], retryable, "retryable of %s" % got["message"])
        return got

    def logged(self):
        with open(self.log, errors="replace") as log:
            return log.read()

    def close(self):
        if self.process.stdin:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()
        try:
            status = self.process.wait(120)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise Failure("store_shell does not end")
        check_equal(status, 0, "status of store_shell: %s" % self.logged()[-800:])


def conformance(t, url, env=None, keys=None, large=None, **settings):
    arguments = ["%s=%s" % (name.replace("_", "-"), value) for name, value in settings.items()]
    more = dict(env or {}, CMOCKA_MESSAGE_OUTPUT="TAP")
    if keys:
        more["LJ_CONFORMANCE_KEYS"] = str(keys)
    if large:
        more["LJ_CONFORMANCE_BYTES"] = str(large)
    done = subprocess.run([built("storage_conformance"), url, *arguments], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, env=environment(t, more), timeout=800)
    lines = done.stdout.decode("utf-8", "replace").splitlines()
    ran = 0
    for line in lines:
        got = re.match(r"(not )?ok \d+ - (.*)", line)
        if got:
            ran += 1
            with t.part(got[2].replace("_", " ")):
                check(not got[1], lambda: " ".join(x for x in lines if x.startswith("#"))[-500:])
    check(ran >= 14 and done.returncode == 0, "%d tests ran, status %d: %s" % (ran, done.returncode, lines[-5:]))


def some_file(t, size, name="content"):
    path = t.path(name)
    with open(path, "wb") as file:
        file.write(t.random.randbytes(size))
    return path


def content(path):
    with open(path, "rb") as file:
        return file.read()


def works(t, url, env=None, **settings):
    """A put and a get through a store of its own."""
    shell = Shell(t, url, env, **settings)
    path = some_file(t, 10000)
    shell.good("put", "w/object", path)
    shell.good("get", "w/object", t.path("got"))
    check_equal(content(t.path("got")), content(path), "what came back")
    return shell


def sessions(server):
    """The processes of sshd that serve connections: those below its listening process."""
    return servers.descendants(server.process.pid)


def kill_sessions(server):
    for pid in sessions(server):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def hidden(server, bucket):
    """Files of unfinished puts."""
    return [key for key, _ in server.objects(bucket) if key.endswith(".part")]


# ---------------------------------------------------------------------------------------------------------------------


@test(timeout=200)
def conformance_with_a_key(t):
    with servers.Sshd() as server:
        server.make_bucket("b")
        conformance(t, server.url("b", "prefix"))
        check_equal(server.objects("b"), [], "what is left")
        check_equal(os.listdir(server.path("b")), ["prefix"], "the folders that are left")


@test(timeout=200)
def conformance_with_one_connection(t):
    with servers.Sshd() as server:
        server.make_bucket("b")
        conformance(t, server.url("b"), keys=200, large=1 << 20, max_connections=1)


@test(timeout=200)
def conformance_without_extensions(t):
    """The plain protocol: rename instead of hard links, no fsync, small packets."""
    options = ["ForceCommand internal-sftp -P " + ALL_EXTENSIONS]
    with servers.Sshd(options=options) as server:
        server.make_bucket("b")
        conformance(t, server.url("b"), keys=500, large=8 << 20)


@test(timeout=200)
def conformance_with_new_keys_under_way(t):
    """The server changes the encryption keys every megabyte."""
    with servers.Sshd(options=["RekeyLimit 1M"]) as server:
        server.make_bucket("b")
        conformance(t, server.url("b"), keys=100, large=12 << 20)


@test(timeout=120)
def logins(t):
    with servers.Sshd() as server:
        server.make_bucket("b")
        plain = server.url("b", key_path=None)

        with t.part("ecdsa key"):
            works(t, plain, key_path=server.ecdsa_key_path)
        with t.part("rsa key"):
            works(t, plain, key_path=server.rsa_key_path)
        with t.part("encrypted key"):
            works(t, plain, key_path=server.encrypted_key_path, key_passphrase=server.passphrase)
            works(t, plain, {"LITEJOIN_SFTP_KEY_PASSPHRASE": server.passphrase}, key_path=server.encrypted_key_path)
        with t.part("encrypted rsa key"):
            path = server._user_key("rsa", "user_rsa_pem", "-b", "2048", "-m", "PEM", "-N", server.passphrase)
            works(t, plain, key_path=path, key_passphrase=server.passphrase)
        with t.part("key in the home folder"):
            os.makedirs(t.path("home", ".ssh"))
            for name, path in (("id_ed25519", server.stranger_key_path), ("id_rsa", server.rsa_key_path)):
                os.symlink(path, t.path("home", ".ssh", name))
            works(t, plain)
            works(t, plain, key_path="~/.ssh/id_rsa")
        with t.part("agent"), server.agent(server.stranger_key_path, server.key_path) as env:
            os.rename(t.path("home", ".ssh"), t.path("home", "ssh"))
            works(t, plain, env)
        with t.part("agent with an rsa key"), server.agent(server.rsa_key_path) as env:
            works(t, plain, env)
        with t.part("password"):
            if not server.password:
                raise harness.Skip("this machine cannot do passwords")
            works(t, server.url("b", password=True))
            works(t, plain, password=server.password)
            shell = works(t, plain, {"LITEJOIN_SFTP_PASSWORD": server.password})
            check(server.password not in shell.logged(), "the password is in the log")


@test(timeout=120)
def logins_that_fail(t):
    with servers.Sshd() as server:
        server.make_bucket("b")
        plain = server.url("b", key_path=None)

        def refused(says, env=None, **settings):
            shell = Shell(t, plain, env, **settings)
            got = shell.fails("permission denied", "list", says=says, hint="authorized_keys")
            for secret in ("wrong-secret", server.passphrase):
                check(secret not in got["message"] + got["hint"] + shell.logged(), "a secret is shown")

        with t.part("nothing at all"):
            refused(["it offers publickey", "tried: nothing, as nothing is configured"])
        with t.part("key of a stranger"):
            refused("key %s: refused" % server.stranger_key_path, key_path=server.stranger_key_path)
        with t.part("missing key"):
            refused(["tried: key-path", "No such file"], key_path=t.path("no-key"))
        with t.part("public key instead of a private one"):
            refused("no private key file", key_path=server.key_path + ".pub")
        with t.part("encrypted key without a passphrase"):
            refused("encrypted, and there is no key-passphrase", key_path=server.encrypted_key_path)
        with t.part("wrong passphrase"):
            refused("wrong key-passphrase", key_path=server.encrypted_key_path, key_passphrase="wrong-secret")
        with t.part("encrypted rsa key in the other format"):
            # libssh2 1.10 cannot use it with SHA-2; newer ones can
            path = server._user_key("rsa", "user_rsa_new", "-b", "2048", "-N", server.passphrase)
            shell = Shell(t, plain, key_path=path, key_passphrase=server.passphrase)
            got = shell("list")
            check(got["code"] == "ok" or "ssh-keygen -p -m PEM" in got["message"], "%s" % got)
        with t.part("agent that is gone"):
            refused("agent: cannot connect to the SSH agent", {"SSH_AUTH_SOCK": t.path("no-agent")})
        with t.part("agent without keys"), server.agent() as env:
            subprocess.run(["ssh-add", "-q", "-D"], env=dict(os.environ, **env), check=True)
            refused("agent: it has no keys", env)
        with t.part("wrong password"):
            if not server.password:
                raise harness.Skip("this machine cannot do passwords")
            refused("password: refused", password="wrong-secret")
        with t.part("it works as soon as the key is there"):
            shell = Shell(t, plain, key_path=server.stranger_key_path)
            shell.fails("permission denied", "list")
            with open(server.stranger_key_path + ".pub") as key, open(os.path.join(server.dir, "authorized_keys"),
                                                                      "a") as file:
                file.write(key.read())
            shell.good("list")


@test(timeout=120)
def host_keys(t):
    with servers.Sshd() as server:
        server.make_bucket("b")
        url = server.url("b", known_hosts_path=None)
        known = content(server.known_hosts).decode()
        name = "[127.0.0.1]:%d" % server.port

        def with_known(text, name="known"):
            path = t.path(name)
            with open(path, "w") as file:
                file.write(text)
            return path

        with t.part("unknown"):
            got = Shell(t, url).fails("permission denied", "list",
                                      says=["host key of %s is not known" % name, server.host_key_sha256,
                                            t.path("home", ".ssh", "known_hosts"), "/etc/ssh/ssh_known_hosts"],
                                      hint=["ssh-keyscan -p %d 127.0.0.1 >> " % server.port,
                                            "host-key: " + server.host_key_sha256])
            check("CHANGED" not in got["message"], got["message"])
        with t.part("the way that the error tells"):
            os.makedirs(t.path("home", ".ssh"))
            with open(t.path("home", ".ssh", "known_hosts"), "wb") as file:
                subprocess.run(["ssh-keyscan", "-p", str(server.port), "127.0.0.1"], stdout=file,
                               stderr=subprocess.DEVNULL, check=True)
            works(t, url)
            os.unlink(t.path("home", ".ssh", "known_hosts"))
        with t.part("changed"):
            path = server.known_hosts_for(server.port, stranger=True)
            Shell(t, url, known_hosts_path=path).fails(
                "permission denied", "list",
                says=["host key of %s HAS CHANGED" % name, server.host_key_sha256, "line 1 of " + path],
                hint=["ssh-keygen -R '%s' -f %s" % (name, path), "host-key: " + server.host_key_sha256])
        with t.part("nobody logs in at a stranger"):
            end = os.path.getsize(server.log)
            path = server.known_hosts_for(server.port, stranger=True)
            Shell(t, url, known_hosts_path=path, key_path=server.key_path).fails("permission denied", "list")
            # with "user" in it when a name was sent
            wait_for(lambda: b"closed by" in content(server.log)[end:] or b"isconnect" in content(server.log)[end:],
                     "the end of the connection in the log")
            said = content(server.log)[end:].decode()
            check("user" not in said and "Accepted" not in said, said)
        with t.part("pinned by fingerprint"):
            works(t, url, host_key=server.host_key_sha256)
            works(t, server.url("b", known_hosts_path=None, host_key=server.host_key_sha256))
        with t.part("pinned by key"):
            for line in known.splitlines():
                works(t, url, host_key=line.split(None, 1)[1])
        with t.part("pin beats known_hosts"):
            works(t, url, host_key=server.host_key_sha256,
                  known_hosts_path=server.known_hosts_for(server.port, stranger=True))
        with t.part("wrong pin"):
            Shell(t, url, host_key="SHA256:" + "A" * 43).fails(
                "permission denied", "list", says=["not the one that host-key names", server.host_key_sha256],
                hint=server.host_key_sha256)
        with t.part("not strict"):
            shell = works(t, url, strict_host_key="false", max_connections=1)
            kill_sessions(server)
            wait_for(lambda: not sessions(server), "the end of the sessions")
            shell.good("list")
            check_equal(shell.logged().count("strict-host-key is off"), 1, "warnings")
        with t.part("hashed names"):
            path = with_known(known)
            subprocess.run(["ssh-keygen", "-q", "-H", "-f", path], check=True, stdout=subprocess.DEVNULL,
                           stderr=subprocess.DEVNULL)
            check(name not in content(path).decode(), "the names are not hashed")
            works(t, url, known_hosts_path=path)
        with t.part("only another type is known"):
            ecdsa = [line for line in known.splitlines() if "ecdsa" in line]
            works(t, url, known_hosts_path=with_known(ecdsa[0] + "\n"))
        with t.part("known without the port"):
            works(t, url, known_hosts_path=with_known(known.replace(name, "127.0.0.1")))
        with t.part("revoked"):
            path = with_known(known + "".join("@revoked %s\n" % line for line in known.splitlines()))
            Shell(t, url, known_hosts_path=path).fails("permission denied", "list", says="is revoked by line")
        with t.part("a file that cannot be read"):
            Shell(t, url, known_hosts_path=t.folder("a-folder")).fails("input/output error", "list", says="known hosts")


@test()
def relative_to_the_login_folder(t):
    with servers.Sshd(options=["ForceCommand internal-sftp -d %s" % t.folder("login")]) as server:
        url = server.url("x").replace(server.path("x"), "")
        check("%s?" % server.port in url, "the URL has a path: " + url)
        shell = works(t, url)
        check_equal(os.listdir(t.path("login")), ["w"], "the login folder")
        check_equal([name for name, _ in shell.good("list")["objects"]], ["w/object"], "list")
        shell.good("delete", "w/object")
        check_equal(os.listdir(t.path("login")), [], "after the deletion")
        shell.good("put", "object", some_file(t, 10))
        shell.good("delete", "object")
        check(os.path.isdir(t.path("login")), "the login folder is gone")


@test("cli", timeout=120)
def as_litestream_yml_says(t):
    """A path without a '/' in front begins in the login folder, and a user beside a URL wins, as in v0.3.13."""
    with servers.Sshd(options=["ForceCommand internal-sftp -d %s" % t.folder("login")]) as server:
        image = b"SQLite format 3\0" + bytes(4096 - 16)
        for place in ("backup/app", ""):
            replica.Writer(os.path.join(t.path("login"), place)).snapshot(0, image, time.time_ns())
        at = "127.0.0.1:%d" % server.port
        common = {"key-path": server.key_path, "known-hosts-path": server.known_hosts}
        parts = {"type": "sftp", "host": at, "user": server.user}
        absolute = t.path("login", "backup", "app")
        for label, settings in (("relative", dict(parts, path="backup/app")), ("relative, with a dot", dict(parts, path="./backup/app/")),
                                ("absolute", dict(parts, path=absolute)), ("none", parts),
                                ("a user beside the URL", {"url": "sftp://%s%s" % (at, absolute), "user": server.user}),
                                ("another one", {"url": "sftp://nobody:x@%s%s" % (at, absolute), "user": server.user})):
            lines = ["dbs:", "  - path: /a.db", "    replicas:"]
            items = list(dict(settings, **common).items())
            lines += ["%s%s: %s" % ("        " if i else "      - ", *item) for i, item in enumerate(items)]
            with open(t.path("l.yml"), "w") as file:
                file.write("\n".join(lines) + "\n")
            tools = [cli.ours()] + ([] if harness.missing("litestream") else [cli.litestream()])
            for tool in tools:
                status, stdout, said = tool.run("snapshots", "-config", t.path("l.yml"), "/a.db", env=environment(t))
                check(status == 0 and len(stdout.splitlines()) == 2, "%s: %s: %d %s %s" % (label, tool.name, status, stdout, said))


@test()
def roots(t):
    with servers.Sshd() as server:
        server.make_bucket("b")
        with t.part("missing"):
            shell = Shell(t, server.url("b", "not/there"))
            check_equal(shell.good("list")["objects"], [], "list")
            shell.fails("not found", "head", "k", retryable=False)
            shell.good("delete", "k")
            check_equal(os.listdir(server.path("b")), [], "what was made")
        with t.part("a file"):
            server.put("b", "file", b"x")
            for path in ("file", "file/below/it"):
                shell = Shell(t, server.url("b", path))
                for command in (("list",), ("head", "k"), ("get", "k", t.path("got")), ("delete", "k"),
                                ("put", "k/k", some_file(t, 10))):
                    shell.fails("invalid argument or configuration", *command,
                                says="%s is a file" % server.path("b", "file"), retryable=False)
            check_equal(server.read("b", "file"), b"x", "the file")
        with t.part("modes"):
            works(t, server.url("b", "new/folder"))
            for path, mode in (("new", 0o700), ("new/folder/w", 0o700), ("new/folder/w/object", 0o600)):
                check_equal(stat.S_IMODE(os.stat(server.path("b", path)).st_mode), mode, "mode of " + path)
        with t.part("an object in the place of a folder"):
            shell = Shell(t, server.url("b", "new/folder"))
            shell.fails("invalid argument or configuration", "put", "w/object/below", some_file(t, 10), says="is a file",
                        retryable=False)


@test()
def links_and_foreign_files(t):
    with servers.Sshd() as server:
        for key in ("x/real", "elsewhere/in/it"):
            server.put("b", key, b"0123456789")
        os.symlink(server.path("b", "x/real"), server.path("b", "x/link"))
        os.symlink(server.path("b", "x/gone"), server.path("b", "x/broken"))
        os.symlink(server.path("b", "elsewhere"), server.path("b", "x/folder-link"))
        os.symlink(server.path("b", "x"), server.path("b", "x/loop"))
        os.mkfifo(server.path("b", "x/pipe"))
        os.symlink(server.path("b"), server.path("root-link"))
        shell = Shell(t, server.url("root-link"))
        check_equal(sorted(shell.good("list", "x/")["objects"]), [["x/link", 10], ["x/real", 10]], "list")
        check_equal(shell.good("head", "x/link")["size"], 10, "size of the link's file")
        shell.fails("not found", "head", "x/pipe", retryable=False)
        shell.fails("not found", "get", "x/loop", t.path("got"), retryable=False)
        shell.good("delete", "x/link", "x/folder-link", "x", "elsewhere/in")
        check_equal(server.read("b", "x/real"), b"0123456789", "the link's file")
        check_equal(server.read("b", "elsewhere/in/it"), b"0123456789", "the file behind the folder's link")


@test(timeout=240)
def what_comes_meanwhile_leaves_no_hole(t):
    """Names are added in order while a large folder is listed: the last ones may be missing, and none before one that is there."""
    with servers.Sshd() as server:
        folder = server.path("b", "wal")
        os.makedirs(folder)
        before, after = 2000, 20000

        def come(first, end):
            for number in range(first, end):
                open(os.path.join(folder, "%08x" % number), "xb").close()

        come(0, before)
        shell = Shell(t, server.url("b"))
        comer = threading.Thread(target=come, args=(before, before + after))
        comer.start()
        seen = 0
        while seen < before + after:
            keys = sorted(key for key, _ in shell.good("list", "wal/")["objects"])
            seen = len(keys)
            check_equal(keys[-1], "wal/%08x" % (seen - 1), "the last of %d keys" % seen)
        comer.join()


@test()
def folders_are_listed_in_order(t):
    with servers.Sshd() as server:
        names = ["g%02d/%s/o" % (number, part) for number in range(20) for part in ("snapshots", "wal")]
        for name in t.random.sample(names, len(names)):
            server.put("b", name, b"x")
        check_equal([key for key, _ in Shell(t, server.url("b")).good("list")["objects"]], names, "order")


GENERATION = "generations/0123456789abcdef/"


@test()
def links_of_the_layout(t):
    """Somebody moved a part of the replica elsewhere and left a link: it is no replica without a backup."""
    with servers.Sshd() as server:
        keys = [GENERATION + name for name in ("snapshots/00000000.snapshot.lz4", "wal/00000000_00000000.wal.lz4")]
        for key in keys:
            server.put("b", key, b"0123456789")
        shell = Shell(t, server.url("b"))
        want = [[key, 10] for key in keys]
        moved = [GENERATION + "snapshots", keys[1], GENERATION.rstrip("/"), "generations"]
        for i, name in enumerate(moved):
            path, away = server.path("b", name), server.path("away%d" % i)
            os.rename(path, away)
            os.symlink(away, path)
            with t.part("%s is a link" % name):
                check_equal(sorted(shell.good("list", "generations/")["objects"]), want, "list")
                shell.good("get", keys[0], t.path("got"))
            os.rename(away, away + "-gone")
            with t.part("%s leads nowhere" % name):
                shell.fails("service unavailable", "list", "generations/", says="is a link", hint="mount")
                if name != keys[1]:
                    shell.fails("service unavailable", "head", keys[0], says="is a link", hint="mount")
            os.rename(away + "-gone", away)
        check_equal(sorted(shell.good("list", GENERATION)["objects"]), want, "list of a generation")
        os.symlink(server.path("nowhere"), server.path("root-link"))
        lost = Shell(t, server.url("root-link"))
        lost.fails("service unavailable", "list", "generations/", says="is a link", hint="mount")
        lost.fails("service unavailable", "head", keys[0], says="is a link", hint="mount")
        lost.fails("service unavailable", "absent", keys[0], some_file(t, 10), says="is a link", hint="mount")


@test()
def two_writers(t):
    """Of two processes that put the same name, one wins, and a reader finds its bytes."""
    with servers.Sshd() as server:
        server.make_bucket("b")
        shells = [Shell(t, server.url("b")) for _ in range(2)]
        files = [some_file(t, 300000 + i, "content%d" % i) for i in range(2)]
        wins = [0, 0]
        for i in range(15):
            for shell, path in zip(shells, files):
                shell.send("absent", "w/%d" % i, path)
            codes = [shell.answer()["code"] for shell in shells]
            check_equal(sorted(codes), ["already exists", "ok"], "round %d" % i)
            winner = codes.index("ok")
            wins[winner] += 1
            check(server.read("b", "w/%d" % i) == content(files[winner]), "round %d: other bytes" % i)
        check_equal(hidden(server, "b"), [], "unfinished files")
        t.note("wins: %s" % wins)


@test(timeout=120)
def killed_in_a_put(t):
    """sshd's process dies in the middle: a failure that passes, nothing under the final name, and the next try works."""
    with servers.Sshd() as server, faults.Tunnel(server.endpoint) as tunnel:
        server.make_bucket("b")
        path = some_file(t, 6 << 20)
        shell = Shell(t, server.url("b", endpoint=tunnel.endpoint))
        for command in ("put", "absent"):
            key = "w/" + command
            with tunnel.rule(faults.slow_upload(2 << 20)):
                shell.send(command, key, path)
                wait_for(lambda: [1 for key, size in server.objects("b") if size > 1 << 20], "the upload to be under way")
                kill_sessions(server)
                got = shell.answer()
            check_equal((got["code"], got["retryable"]), ("service unavailable", True), got.get("message"))
            check(not os.path.exists(server.path("b", key)), "half a file under the final name")
            check_equal(shell.good("list")["objects"], [], "list")
            shell.good(command, key, path)
            check(server.read("b", key) == content(path), "other bytes")
            shell.good("delete", key)
            for key in hidden(server, "b"):
                server.delete("b", key)


@test(timeout=120)
def killed_in_a_get(t):
    with servers.Sshd() as server, faults.Tunnel(server.endpoint) as tunnel:
        path = some_file(t, 6 << 20)
        server.put("b", "k", content(path))
        shell = Shell(t, server.url("b", endpoint=tunnel.endpoint))
        got_path = t.path("got")
        with tunnel.rule(faults.slow(2 << 20)):
            shell.send("get", "k", got_path)
            wait_for(lambda: os.path.exists(got_path) and os.path.getsize(got_path) > 1 << 20, "the download")
            kill_sessions(server)
            got = shell.answer()
        check_equal((got["code"], got["retryable"]), ("service unavailable", True), got.get("message"))
        # what came is right, and the rest can be had behind it
        part = content(got_path)
        check(0 < len(part) < 6 << 20 and content(path).startswith(part), "%d bytes" % len(part))
        shell.good("get", "k", t.path("rest"), len(part), -1)
        check(part + content(t.path("rest")) == content(path), "other bytes")


@test()
def killed_while_idle(t):
    """A connection that died while nobody used it costs no failure."""
    with servers.Sshd() as server:
        server.make_bucket("b")
        shell = works(t, server.url("b"))
        for command in (("list",), ("head", "w/object"), ("put", "x", some_file(t, 10)), ("get", "x", t.path("got")),
                        ("delete", "x")):
            kill_sessions(server)
            wait_for(lambda: not sessions(server), "the end of the sessions")
            shell.good(*command)


@test()
def killed_transfer_program(t):
    """Only the SFTP server dies, the SSH connection stays."""
    command = "/usr/lib/openssh/sftp-server"
    if not os.access(command, os.X_OK):
        raise harness.Skip("no %s" % command)
    with servers.Sshd(options=["ForceCommand " + command]) as server:
        server.make_bucket("b")
        shell = works(t, server.url("b"))
        children = []
        for pid in sessions(server):
            with contextlib.suppress(OSError), open("/proc/%d/comm" % pid) as file:
                if file.read().strip() == "sftp-server":
                    children.append(pid)
        check_equal(len(children), 1, "SFTP servers")
        os.kill(children[0], signal.SIGKILL)
        got = shell("list")
        check(got["code"] == "ok" or got["retryable"], "%s" % got)
        shell.good("list")


@test(timeout=120)
def silence(t):
    """A server or a way that goes silent is a timeout, at every stage; afterwards all works again."""
    with servers.Sshd() as server, faults.Tunnel(server.endpoint) as tunnel:
        server.make_bucket("b")
        path = some_file(t, 4 << 20)
        server.put("b", "k", content(path))
        url = server.url("b", endpoint=tunnel.endpoint)
        for what, action in (("at once", faults.black_hole(read_body=False)), ("in the handshake", faults.stall(300)),
                             ("in the login", faults.stall(2200)), ("in the content", faults.stall(1 << 20))):
            with t.part(what):
                shell = Shell(t, url, timeout_ms=700)
                with tunnel.rule(action):
                    started = time.monotonic()
                    shell.fails("timed out", "get", "k", t.path("got"), says="did not answer for 0.7 s")
                    took = time.monotonic() - started
                check(0.6 < took < 30, "%g s" % took)
                tunnel.drop()
                # on a busy machine 0.7 s of silence come by themselves
                wait_for(lambda: shell("get", "k", t.path("got"))["code"] == "ok", "it works again")
                check(content(t.path("got")) == content(path), "other bytes")


@test()
def nobody_there(t):
    with servers.Sshd() as server:
        server.make_bucket("b")
        shell = works(t, server.url("b"))
        server.stop()
        wait_for(lambda: "cannot connect" in shell("list").get("message", ""), "the old connection to be gone")
        shell.fails("service unavailable", "list", says="cannot connect to 127.0.0.1", hint="firewalls")
        server.start()
        shell.good("list")


@test()
def old_unfinished_puts(t):
    """They are never shown; a put or deletion after a list that met them removes those that are older than a day."""
    with servers.Sshd() as server:
        names = {"w/.old.0123456789abcdef.part": 100000, "w/.new.0123456789abcdef.part": 1000,
                 "w/.alone.0123456789abcdef.part": 100000, "w/.other.part": 100000}
        for key, age in names.items():
            server.put("b", key, b"half")
            os.utime(server.path("b", key), (time.time() - age,) * 2)
        os.makedirs(server.path("b", "z"))
        shell = Shell(t, server.url("b"))
        check_equal(shell.good("list")["objects"], [["w/.other.part", 4]], "list")
        for key in names:
            if key != "w/.other.part":
                shell.fails("not found", "head", key, retryable=False)
        shell.fails("invalid argument or configuration", "put", "w/.x.0123456789abcdef.part", some_file(t, 1),
                    says="unfinished uploads", retryable=False)
        check_equal(len(server.objects("b")), 4, "files before the put")
        shell.good("put", "w/x", some_file(t, 10))
        check_equal([key for key, _ in server.objects("b")], ["w/.new.0123456789abcdef.part", "w/.other.part", "w/x"],
                    "files after the put")


@test()
def a_server_that_only_reads(t):
    with servers.Sshd(options=["ForceCommand internal-sftp -R"]) as server:
        server.put("b", "k", b"content")
        shell = Shell(t, server.url("b"))
        shell.good("get", "k", t.path("got"))
        shell.fails("permission denied", "put", "x", some_file(t, 10), says="cannot create")
        shell.fails("permission denied", "put", "new/folder/x", some_file(t, 10), says="cannot create")
        shell.fails("permission denied", "delete", "k", says="cannot delete")
        check_equal(server.objects("b"), [("k", 7)], "files")


@test()
def a_server_that_sets_no_times(t):
    with servers.Sshd(options=["ForceCommand internal-sftp -P fsetstat"]) as server:
        server.make_bucket("b")
        env = {"LJ_CONFORMANCE_KEYS": "14", "LJ_CONFORMANCE_BYTES": "1000"}
        done = subprocess.run([built("storage_conformance"), server.url("b")], env=environment(t, env),
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300)
        failed = re.findall(r"\[  FAILED  \] (\w+)$", done.stdout, re.M)
        # the second one finds what the first one left
        check_equal(set(failed), {"put_sets_the_time", "concurrent_use"}, "what fails")
        check_equal([key for key, _ in server.objects("b")], ["conformance/time/a"], "objects")
        check_equal(done.stdout.count("does not let times of files be set"), 1, "warnings")


@test("mount", timeout=90)
def a_full_disk(t):
    with servers.Sshd() as server:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "none", server.root], check=True)
        t.cleanup(subprocess.run, ["umount", "-l", server.root])
        server.make_bucket("b")
        shell = Shell(t, server.url("b"))
        for command in ("put", "absent"):
            shell.fails("no space left", command, "w/big", some_file(t, 5 << 20), says="the disk of the server is full")
            check_equal(server.objects("b"), [], "what is left")
        shell.good("put", "w/small", some_file(t, 100000))


class Preloaded(servers.Sshd):
    """With other system calls."""

    source = None

    def process_env(self):
        env = dict(super().process_env())
        try:
            library = native.shared_library(os.path.join(os.path.dirname(os.path.abspath(__file__)), self.source))
        except OSError as error:
            raise harness.Skip("cannot compile %s: %s" % (self.source, error))
        env["LD_PRELOAD"] = ":".join(filter(None, [library, env.get("LD_PRELOAD")]))
        return env


class WithoutLinks(Preloaded):
    """On a file system without hard links, as the server sees it."""

    source = "no_links.c"


class WithoutKinds(Preloaded):
    """A server that does not say what is a file and what a folder."""

    source = "no_kinds.c"


@test()
def a_server_that_does_not_say_what_is_a_folder(t):
    """Nothing can be found there: it is no empty replica."""
    with WithoutKinds() as server:
        server.put("b", "generations/x", b"0123456789")
        shell = Shell(t, server.url("b"))
        for command in (("list", ""), ("list", "generations/"), ("head", "generations/x"), ("get", "generations/x", t.path("got"))):
            shell.fails("not supported", *command, says="does not say", retryable=False)


@test(timeout=120)
def a_file_system_without_hard_links(t):
    """The first put finds out and fails, the next one and all others of the process do without."""
    with WithoutLinks() as server:
        server.make_bucket("b")
        shell = Shell(t, server.url("b"))
        path = some_file(t, 1000)
        shell.fails("input/output error", "absent", "w/one", path, says="cannot link")
        check_equal(server.objects("b"), [], "what is left")
        check_equal(shell.good("late")["late"], True, "what comes late may overwrite")
        for i in range(3):
            shell.good("absent", "w/%d" % i, path)
            check_equal(shell("absent", "w/%d" % i, path)["code"], "already exists", "the second time")
            check_equal(server.read("b", "w/%d" % i), content(path), "content")
        check_equal(hidden(server, "b"), [], "unfinished files")
        check_equal(shell.good("late")["late"], True, "what comes late may overwrite")


@test()
def what_comes_late(t):
    """A name that is given by a hard link is never taken from another; of a server that made none yet nobody knows."""
    with servers.Sshd() as server:
        server.make_bucket("b")
        shell = Shell(t, server.url("b"))
        path = some_file(t, 1000)
        check_equal(shell.good("late")["late"], True, "before the first put")
        shell.good("absent", "w/one", path)
        check_equal(shell.good("late")["late"], False, "behind it")
    with servers.Sshd(options=["ForceCommand internal-sftp -P " + ALL_EXTENSIONS]) as server:
        server.make_bucket("b")
        shell = Shell(t, server.url("b"))
        shell.good("absent", "w/one", path)
        check_equal(shell.good("late")["late"], True, "where names are given by a rename")


@test()
def connections_are_kept_and_limited(t):
    with servers.Sshd() as server:
        server.make_bucket("b")
        shell = works(t, server.url("b"))
        at_login = None
        while at_login != sessions(server):  # what sshd needs for the login alone goes a moment later
            at_login = sessions(server)
            time.sleep(0.5)
        for i in range(10):
            shell.good("put", "k%d" % i, some_file(t, 100))
        check_equal(sessions(server), at_login, "processes of sshd")
        shell.close()
        wait_for(lambda: not sessions(server), "the end of the connection")


def probe(t, what, url):
    done = subprocess.run([built("sftp_probe"), what, url], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          env=environment(t), text=True, timeout=300)
    t.note(done.stdout)
    check_equal(done.returncode, 0, "sftp_probe: " + done.stdout)


@test()
def after_a_fork(t):
    """A child that the host program forked makes its own connection, and the parent's goes on working."""
    with servers.Sshd() as server:
        server.make_bucket("b")
        probe(t, "fork", server.url("b"))
        check_equal(sorted(key for key, _ in server.objects("b")), ["child", "parent", "parent-again"], "objects")
        check_equal(content(server.log).count(b"Accepted publickey"), 2, "logins")


@test(timeout=120)
def cancelled_in_a_put(t):
    """Nothing under the final name; the unfinished file goes too where the server is quick enough for the last 0.1 s."""
    with servers.Sshd() as server, faults.Tunnel(server.endpoint) as tunnel:
        server.make_bucket("b")

        def leaves(url):
            probe(t, "cancel", url)
            left = [key for key, _ in server.objects("b")]
            check_equal([key for key in left if not key.endswith(".part")], ["before"], "objects")
            return hidden(server, "b")

        for _ in range(12):  # a busy machine is not always quick enough
            left = leaves(server.url("b"))
            if not left:
                break
            for key in left:
                server.delete("b", key)
        check_equal(left, [], "what is left, every time")
        with t.part("over a slow connection"), tunnel.rule(faults.slow_upload(1 << 20)):
            leaves(server.url("b", endpoint=tunnel.endpoint))


@test()
def a_callback_that_uses_the_store(t):
    with servers.Sshd() as server:
        server.make_bucket("b")
        probe(t, "nested", server.url("b", max_connections=1))


@test()
def large_and_ranged(t):
    with servers.Sshd() as server:
        data = t.random.randbytes(9 << 20)
        server.put("b", "k", data)
        shell = Shell(t, server.url("b"))
        for offset, length in ((0, -1), (1, 1 << 20), ((9 << 20) - 70000, -1), (65535, 65537), (131072, 1), (0, 9 << 20)):
            shell.good("get", "k", t.path("got"), offset, length)
            want = data[offset:] if length < 0 else data[offset:offset + length]
            check(content(t.path("got")) == want, "bytes %d of %d" % (length, offset))
        shell.good("put", "copy", os.path.join(server.root, "b", "k"))
        check_equal(hashlib.sha256(server.read("b", "copy")).digest(), hashlib.sha256(data).digest(), "copy")


if __name__ == "__main__":
    harness.main("sftp")
