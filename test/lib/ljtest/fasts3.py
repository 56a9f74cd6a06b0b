"""fasts3.py - the fast S3 server of the benchmarks (test/bench/s3_server.c), started on a free port of 127.0.0.1.

    with fasts3.FastS3(delay_ms=20, discard="bulk/") as store:
        run(tool, store.url("b", "prefix"), env=store.env)
        store.stats()["requests"]["put"]

No signature is checked and every bucket exists. `stats()` is described in the head of s3_server.c. The program comes from the
build folder (LJ_BUILD); it is built there when it is missing. It ends with its `with` block and with the process that
started it.
"""

import ctypes
import http.client
import json
import os
import signal
import subprocess
import urllib.parse

from . import harness

PROGRAM = os.path.join("test", "bench", "s3_server")
PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


def program():
    """The path of the server; Skip when there is no build folder that has it or can make it."""
    build = harness.build_dir()
    path = os.path.join(build, PROGRAM)
    if build and not os.access(path, os.X_OK):
        subprocess.run(["ninja", "-C", build, PROGRAM], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    if not build or not os.access(path, os.X_OK):
        raise harness.Skip("there is no %s in the build folder (LJ_BUILD)" % PROGRAM)
    return path


def _die_with_parent():
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _step_aside():
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    _die_with_parent()


class FastS3:
    """
    A server process. Objects are in memory, or in files below `folder`; keys that begin with `discard` are thrown away. `aside`:
    it has only the processor time that nobody else wants, as far as that can stand for a store on a machine of its own.
    """

    region = "us-east-1"

    def __init__(self, delay_ms=0, folder=None, discard=None, aside=False):
        self.arguments = ["--delay-ms", str(delay_ms)]
        if folder:
            self.arguments += ["--folder", folder]
        if discard:
            self.arguments += ["--discard", discard]
        self.before_exec = _step_aside if aside else _die_with_parent
        self.process = None
        self.port = 0

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def start(self):
        self.process = subprocess.Popen([program(), *self.arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        preexec_fn=self.before_exec)
        line = self.process.stdout.readline().decode()
        if not line.startswith("listening on "):
            self.stop()
            raise harness.Failure("s3_server did not start: %r" % line)
        self.port = int(line.split()[-1])

    def stop(self):
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()
            self.process = None

    @property
    def endpoint(self):
        return "http://127.0.0.1:%d" % self.port

    @property
    def env(self):
        """What our tool and Litestream need in their environment."""
        return {"AWS_ACCESS_KEY_ID": "FASTS3", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": self.region,
                "AWS_EC2_METADATA_DISABLED": "true"}

    def url(self, bucket, prefix="", **more):
        """What our tool takes as the replica's URL. `more` are query parameters, `_` for `-`."""
        query = {"endpoint": self.endpoint, "region": self.region, "force-path-style": "true"}
        query.update({key.replace("_", "-"): value for key, value in more.items()})
        return "s3://%s/%s?%s" % (bucket, prefix, urllib.parse.urlencode(query, quote_via=urllib.parse.quote, safe="/:"))

    def litestream_replica(self, bucket, prefix):
        """The settings of a replica in litestream.yml, as a dict."""
        return {"type": "s3", "endpoint": self.endpoint, "region": self.region, "force-path-style": "true",
                "bucket": bucket, "path": prefix}

    def request(self, method, target, body=None, headers=None):
        """(status, headers, body) of one request to an encoded path and query."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, target, body=body, headers=headers or {})
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()

    def stats(self):
        """Counters since the start; the request itself is none of the counted ones, but its connection is."""
        return json.loads(self.request("GET", "/_stats")[2])

    def control(self, **settings):
        """delay_ms=N: another delay. fail=N, status=S: the next N requests are answered with S."""
        status, _, body = self.request("POST", "/_control?" + urllib.parse.urlencode(settings))
        harness.check_equal(status, 200, "status of %s" % settings)
        return json.loads(body)
