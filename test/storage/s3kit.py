"""s3kit.py - what the tests of the S3 driver share: a store driven command by command, the conformance suite, files."""

import hashlib
import json
import os
import subprocess

from ljtest import harness
from ljtest.harness import Failure, check

# Whatever the machine says about AWS must not count.
NAMES = ("LITESTREAM_ACCESS_KEY_ID", "LITESTREAM_SECRET_ACCESS_KEY", "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY",
         "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR", "CURL_CA_BUNDLE")


def environment(more=None):
    env = {name: value for name, value in os.environ.items() if name not in NAMES and not name.startswith("AWS_")}
    env.update({"AWS_CONFIG_FILE": "/nonexistent", "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
                "AWS_EC2_METADATA_DISABLED": "true"})
    env.update(more or {})
    return env


def built(name):
    path = os.path.join(harness.build_dir(), "test", "storage", name)
    if not harness.build_dir() or not os.access(path, os.X_OK):
        raise harness.Skip("no %s in LJ_BUILD=%s" % (name, harness.build_dir() or "(not set)"))
    return path


class Shell:
    """A store opened in a process of its own (store_shell.c). `opened` is what opening it gave, `heard` all that was said."""

    def __init__(self, t, url, env=None, timeout_ms=None, **settings):
        arguments = ["%s=%s" % (name.replace("_", "-"), value) for name, value in settings.items()]
        more = dict(env or {})
        if timeout_ms:
            more["LJ_SHELL_TIMEOUT_MS"] = str(timeout_ms)
        self.log = t.path("shell%d.log" % len(os.listdir(t.dir)))
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen([built("store_shell"), url, *arguments], stdin=subprocess.PIPE,
                                            stdout=subprocess.PIPE, stderr=log, env=environment(more), text=True)
        self.heard = ""
        self.opened = self.answer()
        t.cleanup(self.close)

    def answer(self):
        line = self.process.stdout.readline()
        self.heard += line
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

    def fails(self, code, *fields, says="", hint=""):
        """The command fails this way; returns the answer."""
        got = self(*fields)
        check(got["code"] == code, "%s: want %r, got %s" % (fields[0], code, got))
        check(says in got["message"], "%s: no %r in %r" % (fields[0], says, got["message"]))
        check(hint in got["hint"], "%s: no %r in the hint %r" % (fields[0], hint, got["hint"]))
        return got

    def logged(self):
        with open(self.log, errors="replace") as log:
            return log.read()

    def close(self):
        if self.process.stdin:
            self.process.stdin.close()
        try:
            self.process.wait(120)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()

    def never_said(self, *secrets):
        """None of the secrets, nor a long part of one, stands in what was printed or logged."""
        text = self.heard + self.logged()
        for secret in secrets:
            for start in range(0, max(1, len(secret) - 12), 4):
                check(secret[start:start + 12] not in text, "a secret was shown in: %s" % text[-600:])


def write(t, name, size, seed=0):
    """A file of content that does not compress."""
    path = t.path(name)
    block = hashlib.sha512(b"%d %d" % (seed, size)).digest()
    with open(path, "wb") as file:
        left = size
        while left > 0:
            chunk = (block * 16384)[:min(left, 1 << 20)]
            file.write(chunk)
            left -= len(chunk)
            block = hashlib.sha512(block).digest()
    return path


def read(path):
    with open(path, "rb") as file:
        return file.read()


def conformance(t, url, env=None, keys=None, size=None, **settings):
    """Runs the conformance suite; each of its tests is a part of this one. Returns what it said."""
    arguments = ["%s=%s" % (name.replace("_", "-"), value) for name, value in settings.items()]
    more = dict(env or {}, CMOCKA_MESSAGE_OUTPUT="TAP")
    if keys:
        more["LJ_CONFORMANCE_KEYS"] = str(keys)
    if size:
        more["LJ_CONFORMANCE_BYTES"] = str(size)
    done = subprocess.run([built("storage_conformance"), url, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, env=environment(more), timeout=380)
    text = done.stdout.decode("utf-8", "replace")
    ran = 0
    for line in text.splitlines():
        words = line.split(" - ", 1)
        if len(words) < 2 or not words[0].startswith(("ok ", "not ok ")):
            continue
        ran += 1
        with t.part(words[1].replace("_", " ")):
            check(words[0].startswith("ok"), "failed: %s" % text[-1500:])
    check(ran >= 14 and (done.returncode == 0 or t.failed), "%d tests, status %d: %s" % (ran, done.returncode, text[-1500:]))
    return text
