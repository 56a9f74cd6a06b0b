"""cli.py - runs litejoin-replica and the real Litestream v0.3.13."""

import os
import signal
import subprocess
import tempfile
import time

from . import harness, pages


def _run(argv, timeout, env=None):
    full = dict(os.environ)
    full.update(env or {})
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=timeout, env=full)
    return done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")


class Tool:
    """A program with Litestream's command line."""

    def __init__(self, name, program):
        self.name = name
        self.program = program

    def run(self, *arguments, timeout=300, env=None):
        """(exit status, stdout, stderr)"""
        return _run([self.program] + [str(a) for a in arguments], timeout, env)

    def try_restore(self, root, out, *flags, timeout=300):
        url = root if "://" in root else "file://" + root
        return self.run("restore", "-o", out, *flags, url, timeout=timeout)

    def restore(self, root, out, *flags, timeout=300):
        """Restores to `out` and fails unless it worked. The leftovers v0.3.13 leaves beside it are removed."""
        status, stdout, stderr = self.try_restore(root, out, *flags, timeout=timeout)
        harness.check(status == 0, "%s restore %s: status %d: %s"
                      % (self.name, " ".join(map(str, flags)), status, (stderr + stdout).strip()[-400:]))
        harness.check(os.path.exists(out), "%s restore: status 0, but no file" % self.name)
        for tail in (".tmp", ".tmp-wal", ".tmp-shm"):
            if os.path.exists(out + tail):
                os.unlink(out + tail)
        return out

    def table(self, command, root, *flags):
        """The rows of `generations`, `snapshots` or `wal` as dicts by column name."""
        url = root if "://" in root else "file://" + root
        status, stdout, stderr = self.run(command, *flags, url)
        harness.check(status == 0, "%s %s: status %d: %s" % (self.name, command, status, (stderr + stdout)[-400:]))
        lines = [line for line in stdout.splitlines() if line.strip()]
        harness.check(lines, "%s %s printed nothing" % (self.name, command))
        columns = lines[0].split()
        rows = []
        for line in lines[1:]:
            cells = line.split()
            harness.check_equal(len(cells), len(columns), "%s %s: cells of %r" % (self.name, command, line))
            rows.append(dict(zip(columns, cells)))
        return columns, rows


def ours():
    return Tool("litejoin-replica", harness.cli_path())


def litestream():
    return Tool("litestream", harness.litestream_path())


def restorers():
    """Every restorer the machine has: each must give the same bytes."""
    tools = []
    if not harness.missing("cli"):
        tools.append(ours())
    if not harness.missing("litestream"):
        tools.append(litestream())
    return tools


def check_restorers(root, reference, what, *flags):
    """Every restorer the machine has gives the bytes of `reference`, a database that replica.py restored from `root`."""
    for tool in restorers():
        out = "%s.%s" % (reference, tool.name)
        if os.path.exists(out):
            os.unlink(out)
        tool.restore(root, out, *flags)
        pages.check_same(out, reference, "%s: restored by %s" % (what, tool.name))
        os.unlink(out)


def rfc3339(time_ns):
    """A -timestamp argument to the nanosecond."""
    seconds, fraction = divmod(time_ns, 1000000000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + ".%09dZ" % fraction


class DidNotEnd(harness.Failure):
    """Litestream had to be killed."""


def end_litestream(process, seconds=60):
    """
    SIGTERM, and SIGKILL when it does not end in time: now and then v0.3.13 waits for ever in its last sync to an SFTP server.
    Returns whether it ended by itself.
    """
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(seconds)
        return True
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return False


class Sidecar:
    """
    `litestream replicate` on one database, with short intervals. Use as a context manager. `root` is a folder, or the settings of
    a replica elsewhere (litestream_replica() of a class in servers.py), with what it needs in `env`.
    """

    def __init__(self, database, root, log, env=None, **options):
        self.log = log
        self.env = dict(os.environ, **(env or {}))
        settings = {"sync-interval": "50ms", "snapshot-interval": "0s", "retention": "24h"}
        db = {"monitor-interval": "50ms", "checkpoint-interval": "1m", "min-checkpoint-page-count": 200}
        for key, value in options.items():
            key = key.replace("_", "-")
            (settings if key in settings else db)[key] = value
        handle, self.config = tempfile.mkstemp(suffix=".yml", dir=os.path.dirname(log))
        with os.fdopen(handle, "w") as file:
            file.write("dbs:\n  - path: %s\n" % database)
            for key, value in db.items():
                file.write("    %s: %s\n" % (key, value))
            replica = root if isinstance(root, dict) else {"url": "file://" + root}
            file.write("    replicas:\n")
            for number, item in enumerate({**replica, **settings}.items()):
                file.write(("        " if number else "      - ") + "%s: %s\n" % item)
        self.process = None

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def start(self):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [harness.litestream_path(), "replicate", "-config", self.config], stdin=subprocess.DEVNULL, stdout=log,
                stderr=log, env=self.env)

    def stop(self):
        """Ends it; it makes its final sync first."""
        if self.process and not end_litestream(self.process):
            raise DidNotEnd("litestream replicate did not end")
        self.process = None
