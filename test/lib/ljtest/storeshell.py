"""storeshell.py - an opened store, driven command by command (test/storage/store_shell.c), and contents for it."""

import hashlib
import json
import os
import random
import subprocess

from . import harness
from .harness import check

CLEAN = ("STORAGE_EMULATOR_HOST", "GOOGLE_APPLICATION_CREDENTIALS", "GCE_METADATA_HOST", "http_proxy", "HTTP_PROXY", "https_proxy",
         "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "SSL_CERT_FILE", "CURL_CA_BUNDLE")


def tool(name):
    path = os.path.join(harness.build_dir(), "test", "storage", name)
    if not os.access(path, os.X_OK):
        raise harness.Skip("%s is not built" % name)
    return path


def environment(more):
    kept = {name: value for name, value in os.environ.items() if name not in CLEAN}
    return {**kept, "CLOUDSDK_CONFIG": "/nonexistent", **more}


class Shell:
    """An opened store (store_shell.c)."""

    def __init__(self, case, url, env, *settings, timeout_ms=None):
        self.case = case
        self.log = case.path("shell-%d.log" % random.randrange(1 << 30))
        if timeout_ms:
            env = {**env, "LJ_SHELL_TIMEOUT_MS": str(timeout_ms)}
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen([tool("store_shell"), url, *settings], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                            stderr=log, env=environment(env))
        case.cleanup(self.close)
        self.opened = self._answer()

    def _answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise harness.Failure("the shell ended: %s" % open(self.log, errors="replace").read()[-2000:])
        return json.loads(line)

    def __call__(self, *fields):
        self.process.stdin.write("\t".join(str(field) for field in fields).encode() + b"\n")
        self.process.stdin.flush()
        return self._answer()

    def ok(self, *fields):
        answer = self(*fields)
        check(answer["code"] == "ok", lambda: "%s: %s" % (fields, answer))
        return answer

    def fails(self, code, *fields):
        answer = self(*fields)
        check(answer["code"] == code, lambda: "%s: not %s: %s" % (fields, code, answer))
        return answer

    def close(self):
        if self.process.poll() is None:
            self.process.stdin.close()
            self.process.wait(120)

    def put(self, key, data, verb="put"):
        return self(verb, key, self.file(data))

    def file(self, data):
        path = self.case.path("content-%d" % random.randrange(1 << 30))
        with open(path, "wb") as file:
            file.write(data)
        return path

    def get(self, key, *span):
        """(answer, bytes)"""
        path = self.case.path("got")
        answer = self("get", key, path, *span)
        with open(path, "rb") as file:
            return answer, file.read()


def content(size, seed=1):
    return random.Random(seed).randbytes(size)


def digest(data):
    return hashlib.sha256(data).hexdigest()
