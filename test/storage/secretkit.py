"""secretkit.py - looks for secrets in all that a run of the product leaves behind.

    watch = Watch(t)
    watch.secret("key", "AbC/d+e")
    done = watch.shim(url, env)                  # embedded: opens, writes, syncs, closes in a process of its own
    done = watch.cli("restore", "-o", out, url)  # the command line
    watch.check()                                # in no text, file or command line, in no encoding

The process of the embedded run prints every error, the status and the command lines of what it started; its log has level debug.
"""

import base64
import json
import os
import subprocess
import sys
import urllib.parse

from ljtest import harness, shim
from ljtest.harness import check

PIECE = 16  # so much of a secret in a row is as bad as all of it

EMBEDDED = r"""
import ctypes, json, os, random, sqlite3, sys
from ljtest import chain, shim

def said(what, value):
    print(what, value, flush=True)

def commands():
    parents = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open("/proc/%s/stat" % entry) as stat, open("/proc/%s/cmdline" % entry) as line:
                    parents.setdefault(int(stat.read().rsplit(")", 1)[1].split()[1]), []).append((int(entry), line.read()))
            except OSError:
                pass
    with open("/proc/self/cmdline") as line:
        found = [line.read()]
    waiting = [os.getpid()]
    while waiting:
        for pid, line in parents.get(waiting.pop(), []):
            found.append(line)
            waiting.append(pid)
    return found

def attempt(what, function):
    try:
        said(what, function())
        return True
    except sqlite3.Error as error:
        said(what + " failed:", error)
        said("last error:", shim.last_error())
        return False

path, options = sys.argv[1], json.loads(sys.stdin.read())
url = options.pop("url", None)
con = None

def opened():
    global con
    con = shim.connect(path, url, **options)
    return con.execute("PRAGMA journal_mode=WAL").fetchone()[0]

if attempt("load", shim.load) and attempt("open", opened):
    chain.exists(con) or chain.create(con)
    for i in range(5):
        chain.commit_one(con, random.Random(i))
    good = attempt("sync", lambda: shim.sync(con, "60s" if options.get("patience") is None else options["patience"]))
    said("status", con.execute("PRAGMA litejoin_status").fetchone()[0])
    attempt("snapshot", lambda: shim.snapshot(con, "1s"))
    said("commands", commands())
    con.close()
    said("worked" if good else "did not work", "")
"""


class Done:
    def __init__(self, status, text, log):
        self.status = status
        self.text = text
        self.log = log
        self.worked = "\nworked" in text or status == 0 and not text.startswith("load")


class Watch:
    def __init__(self, t):
        self.t = t
        self.secrets = {}
        self.found = []  # (where, bytes)
        self.runs = 0

    def secret(self, name, value):
        check(len(value) >= 8, "%s is too short to look for" % name)
        self.secrets[name] = value
        return value

    # -- what to look for

    @staticmethod
    def forms(value):
        """The secret as it is, and what it may look like in a URL, in base64, in hex and in JSON."""
        raw = value.encode()
        forms = {raw, urllib.parse.quote(value, safe="").encode(), urllib.parse.quote(value).encode(),
                 urllib.parse.quote_plus(value).encode(), raw.hex().encode(), raw.hex().upper().encode(),
                 json.dumps(value)[1:-1].encode()}
        for before in range(3):
            # wherever it stands in what was encoded: without the characters that depend on its neighbours
            coded = base64.b64encode(b"\0" * before + raw)
            coded = coded[4 if before else 0:len(coded) - 4]
            if len(coded) >= 8:
                forms |= {coded, coded.replace(b"+", b"-").replace(b"/", b"_")}
        if len(raw) > PIECE + 8:
            forms |= {raw[start:start + PIECE] for start in range(0, len(raw) - PIECE + 1, 4)}
        return forms

    def add(self, where, data):
        self.found.append((where, data if isinstance(data, bytes) else data.encode("utf-8", "surrogateescape")))

    def add_folder(self, folder):
        for where, folders, names in os.walk(folder):
            for name in folders:
                self.add("name of a folder", name)
            for name in names:
                path = os.path.join(where, name)
                self.add("name of a file", name)
                with open(path, "rb") as file:
                    self.add(os.path.relpath(path, self.t.dir), file.read())

    def check(self, *more):
        for name, value in [*self.secrets.items(), *(("more", value) for value in more)]:
            for form in self.forms(value):
                for where, data in self.found:
                    at = data.find(form)
                    check(at < 0, lambda: "%s stands in %s: %r" % (name, where, data[max(0, at - 120):at + len(form) + 20]))

    # -- what is run

    def environment(self, env):
        """Only what is given: nothing of the machine's own credentials."""
        kept = ("PATH", "HOME", "LANG", "LC_ALL", "LJ_BUILD", "TMPDIR", "LD_LIBRARY_PATH", "ASAN_OPTIONS", "UBSAN_OPTIONS", "TSAN_OPTIONS")
        full = {name: os.environ[name] for name in kept if name in os.environ}
        full.update({"AWS_CONFIG_FILE": "/nonexistent", "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
                     "AWS_EC2_METADATA_DISABLED": "true", "HOME": self.t.folder("home"),
                     "PYTHONPATH": os.path.dirname(os.path.dirname(shim.__file__))})
        full.update(env)
        return full

    def shim(self, url, env=None, **options):
        """url None: from the environment. Returns Done."""
        self.runs += 1
        data = self.t.folder("data%d" % self.runs)
        log = self.t.path("log%d" % self.runs)
        options = {"sync_interval": "20ms", "io_timeout": "1s", "shutdown_timeout": "1s", **options}
        if url is not None:
            options["url"] = url
        done = subprocess.run([sys.executable, "-c", EMBEDDED, os.path.join(data, "shard_0.db")], input=json.dumps(options).encode(),
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300,
                              env=self.environment({"LITEJOIN_LOG_FILE": log, "LITEJOIN_LOG_LEVEL": "debug", **(env or {})}))
        logged = b""
        if os.path.exists(log):
            with open(log, "rb") as file:
                logged = file.read()
        check(done.returncode == 0, "the process ended with %d: %r" % (done.returncode, done.stdout[-600:]))
        self.add("what run %d said" % self.runs, done.stdout)
        self.add("the log of run %d" % self.runs, logged)
        self.add_folder(data)
        return Done(done.returncode, done.stdout.decode("utf-8", "replace"), logged.decode("utf-8", "replace"))

    def cli(self, *arguments, env=None):
        self.runs += 1
        done = subprocess.run([harness.cli_path(), *map(str, arguments)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, timeout=300, env=self.environment(env or {}))
        check(done.returncode >= 0, "litejoin-replica was ended by signal %d" % -done.returncode)
        self.add("litejoin-replica %s" % arguments[0], done.stdout)
        return Done(done.returncode, done.stdout.decode("utf-8", "replace"), "")

    def all_commands(self, target, *flags, env=None):
        """Every command of the command line on this target; the last one's Done."""
        self.cli("databases", *flags, env=env)
        for command in ("generations", "snapshots", "wal"):
            self.cli(command, *flags, target, env=env)
        out = self.t.path("out%d.db" % self.runs)
        return self.cli("restore", "-v", "-o", out, *flags, target, env=env)
