"""servers.py - the real object stores that the tests run against, each started on a free port of 127.0.0.1.

    with servers.S3rver() as store:
        store.make_bucket("b")
        run(tool, store.url("b", "prefix"), env=store.env)
        store.objects("b", "prefix/")        # [(key, size)], read without any code of the project

Every class: `endpoint`, `env` (what our tool and Litestream need in their environment), make_bucket, objects, read, put,
delete, url, litestream_yaml, litestream_restore, restart. Where a proxy of faults.py stands in front, its endpoint is given
as `endpoint=proxy.endpoint` to url, environment, litestream_yaml and litestream_restore. A server that is not installed
raises harness.Skip. It ends with its `with` block, with the test's process group, and with the process that started it.

By hand, until Ctrl-C:  PYTHONPATH=test/lib /usr/bin/python3 -m ljtest.servers s3rver|moto|azurite|fakegcs|sshd
"""

import base64
import contextlib
import hashlib
import http.client
import os
import pwd
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse

from . import harness, native, ports, stores

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.abspath(os.path.join(HERE, "..", "..", ".."))
INSTALLED = os.environ.get("LJ_SERVERS", "") or os.path.join(ROOT, ".cache", "servers")
START_SECONDS = 120
LITESTREAM_DB = {"monitor-interval": "50ms", "checkpoint-interval": "1m"}
LITESTREAM_REPLICA = {"sync-interval": "50ms", "retention": "24h"}


def installed(*names):
    """The path of an installed file, or Skip."""
    path = os.path.join(INSTALLED, *names)
    if not os.path.exists(path):
        raise harness.Skip("%s is not installed (test/lib/install_servers --install)" % names[-1])
    return path


def program(name, *folders):
    path = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), *folders]))
    if not path:
        raise harness.Skip("there is no %s" % name)
    return path


def dies_with_us(argv):
    """argv so that the process is killed when ours ends. Only from the main thread: the kernel goes by the thread."""
    setpriv = shutil.which("setpriv")
    if setpriv and threading.current_thread() is threading.main_thread():
        return [setpriv, "--pdeathsig", "KILL", "--", *argv]
    return argv


def descendants(pid):
    """The process ids below `pid`, children first."""
    parents = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError), open("/proc/%s/stat" % entry) as file:
                parents.setdefault(int(file.read().rsplit(")", 1)[1].split()[1]), []).append(int(entry))
    found = []
    waiting = [pid]
    while waiting:
        children = parents.get(waiting.pop(), [])
        found += children
        waiting += children
    return found


def _listens(path):
    """Whether somebody takes connections at a socket's path: its name is there a moment before that."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
            return True
        except OSError:
            return False


def _query(pairs):
    return urllib.parse.urlencode([(key, value) for key, value in pairs.items() if value is not None],
                                  quote_via=urllib.parse.quote, safe="/:")


class Server:
    """One server process. Subclasses say how to start it and how to talk to it."""

    name = ""
    scheme = "http"

    def __init__(self, tls=None):
        """`tls`: a tls.Authority whose certificate the server then shows (https)."""
        self.tls = tls
        if tls:
            self.scheme = "https"
        self.dir = ""
        self.port = 0
        self.process = None

    # -- what a subclass gives

    def command(self):
        """argv; self.port and self.dir are set."""
        raise NotImplementedError

    def process_env(self):
        return {}

    def client(self):
        """The stores.Client that looks at the content."""
        raise NotImplementedError

    def ready(self):
        """True when the server answers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        if self.tls:
            context = ssl.create_default_context(cafile=self.tls.ca_file)
            connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=5, context=context)
        try:
            connection.request("GET", "/")
            connection.getresponse().read()
            return True
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def environment(self, endpoint=None):
        raise NotImplementedError

    def litestream_replica(self, bucket, prefix, endpoint=None):
        """The settings of a replica in litestream.yml, as a dict."""
        raise NotImplementedError

    # -- life

    def __enter__(self):
        self.command_check()
        self.dir = harness.scratch("lj_%s_" % self.name)
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.stop()
        shutil.rmtree(self.dir, ignore_errors=True)

    def command_check(self):
        """Skips before anything is made."""
        self.command()

    @property
    def log(self):
        return os.path.join(self.dir, "server.log")

    def start(self):
        """On a new port the first time, on the same one afterwards."""
        fixed = self.port
        for _ in range(5):
            self.port = fixed or ports.reserve()
            if self._start_once():
                return
            if fixed:
                time.sleep(0.2)
        with open(self.log, errors="replace") as file:
            raise harness.Failure("%s does not start: %s" % (self.name, file.read()[-1500:]))

    def _start_once(self):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(dies_with_us(self.command()), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            cwd=self.dir, env=dict(os.environ, **self.process_env()))
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            if self.process.poll() is not None:
                return False  # most likely somebody took the port
            if self.ready() and self.process.poll() is None:
                return True
            time.sleep(0.03)
        self.stop()
        return False

    def stop(self, how=signal.SIGKILL):
        """Ends the process and what it started; files stay until the `with` block ends."""
        if not self.process:
            return
        below = descendants(self.process.pid)
        self.process.send_signal(how)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for pid in below:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process = None

    def restart(self):
        """s3rver, azurite and sshd keep what they have; moto and fake-gcs-server come back empty (use a proxy's down())."""
        self.stop(signal.SIGTERM)
        self.start()

    # -- use

    @property
    def endpoint(self):
        return "%s://127.0.0.1:%d" % (self.scheme, self.port)

    @property
    def env(self):
        return self.environment()

    def url(self, bucket, prefix="", endpoint=None, **more):
        """What our tool takes as the replica's URL. `more` are query parameters, `_` for `-`."""
        raise NotImplementedError

    def litestream_yaml(self, db, bucket, prefix, endpoint=None, **settings):
        """The text of a litestream.yml with one database and one replica; short intervals unless `settings` say otherwise."""
        replica = {**LITESTREAM_REPLICA, **self.litestream_replica(bucket, prefix, endpoint)}
        options = dict(LITESTREAM_DB)
        for key, value in settings.items():
            key = key.replace("_", "-")
            (options if key in options or key.endswith("page-count") else replica)[key] = value
        lines = ["dbs:", "  - path: " + db]
        lines += ["    %s: %s" % item for item in options.items()] + ["    replicas:"]
        lines += ["%s%s: %s" % ("        " if i else "      - ", *item) for i, item in enumerate(replica.items())]
        return "\n".join(lines) + "\n"

    def litestream(self, arguments, db, bucket, prefix, endpoint=None, timeout=300):
        """Runs Litestream with a configuration for this store: (exit status, stdout + stderr)."""
        with tempfile.NamedTemporaryFile("w", suffix=".yml", dir=self.dir or None) as config:
            config.write(self.litestream_yaml(db, bucket, prefix, endpoint))
            config.flush()
            command = [harness.litestream_path(), arguments[0], "-config", config.name, *arguments[1:], db]
            done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                  env=dict(os.environ, **self.environment(endpoint)), timeout=timeout)
        return done.returncode, done.stdout.decode("utf-8", "replace")

    def litestream_restore(self, out, bucket, prefix, *flags, endpoint=None, timeout=300):
        """Restores the replica to `out` with Litestream v0.3.13 and fails unless it worked."""
        status, text = self.litestream(["restore", "-o", out, *flags], "/nowhere/litejoin.db", bucket, prefix, endpoint,
                                       timeout)
        harness.check(status == 0 and os.path.exists(out), "litestream restore from %s: status %d: %s"
                      % (self.name, status, text.strip()[-500:]))
        return out

    def make_bucket(self, name):
        self.client().make_bucket(name)

    def objects(self, bucket, prefix=""):
        """[(key, size)], sorted."""
        return self.client().objects(bucket, prefix)

    def read(self, bucket, key):
        return self.client().read(bucket, key)

    def put(self, bucket, key, body):
        self.client().put(bucket, key, body)

    def delete(self, bucket, key):
        self.client().delete(bucket, key)

    def exists(self, bucket, key):
        return self.client().exists(bucket, key)


class _S3(Server):
    access_key = "S3RVER"
    secret_key = "S3RVER"
    region = "us-east-1"

    def client(self):
        return stores.S3(self.endpoint, self.access_key, self.secret_key, self.region,
                         ca_file=self.tls.ca_file if self.tls else None)

    def environment(self, endpoint=None):
        return {"AWS_ACCESS_KEY_ID": self.access_key, "AWS_SECRET_ACCESS_KEY": self.secret_key, "AWS_REGION": self.region,
                "AWS_EC2_METADATA_DISABLED": "true"}

    def url(self, bucket, prefix="", endpoint=None, **more):
        query = {"endpoint": endpoint or self.endpoint, "region": self.region, "force-path-style": "true"}
        query.update({key.replace("_", "-"): value for key, value in more.items()})
        return "s3://%s/%s?%s" % (bucket, prefix, _query(query))

    def litestream_url(self, bucket, prefix, endpoint=None):
        """The form of URL from which v0.3.13 learns the endpoint."""
        port = urllib.parse.urlsplit(endpoint or self.endpoint).port
        return "s3://%s.localhost:%d/%s" % (bucket, port, prefix)

    def litestream_replica(self, bucket, prefix, endpoint=None):
        return {"type": "s3", "bucket": bucket, "path": prefix, "region": self.region,
                "endpoint": endpoint or self.endpoint, "force-path-style": "true"}

    def uploads(self, bucket):
        """[(key, upload id)]: multipart uploads that were neither completed nor aborted."""
        return self.client().uploads(bucket)


class S3rver(_S3):
    """S3 on files below `dir`/data. Knows no conditions, and takes any V4 signature: s3gate.Gate in front of it checks."""

    name = "s3rver"

    def command(self):
        script = installed("npm", "node_modules", "s3rver", "bin", "s3rver.js")
        # Its continuation tokens are made with DES, which OpenSSL 3 only has in the legacy provider.
        argv = [program("node"), "--openssl-legacy-provider", "--require", os.path.join(HERE, "s3rver_fixes.js"), script,
                "--directory", os.path.join(self.dir, "data"), "--address", "127.0.0.1", "--port", str(self.port)]
        if self.tls:
            certificate, key = self.tls.certificate()
            argv += ["--cert", certificate, "--key", key]
        if self.dir:
            os.makedirs(os.path.join(self.dir, "data"), exist_ok=True)
        return argv


class Moto(_S3):
    """S3 in memory, with conditional writes (If-None-Match, If-Match) and multipart as AWS has it; any signature will do."""

    name = "moto"
    access_key = "testing"
    secret_key = "testing-secret"

    def command(self):
        argv = [installed("moto", "bin", "moto_server"), "-H", "127.0.0.1", "-p", str(self.port)]
        if self.tls:
            certificate, key = self.tls.certificate()
            argv += ["--ssl-cert", certificate, "--ssl-key", key]
        return argv

    def process_env(self):
        return {"S3_IGNORE_SUBDOMAIN_BUCKETNAME": "true"}


class Azurite(Server):
    """Azure Blob with Shared Key. oauth=True (needs tls) also takes bearer tokens; their signature is not checked."""

    name = "azurite"
    account = "devstoreaccount1"
    key = base64.b64encode(hashlib.sha512(b"the account key of the tests").digest()).decode()

    def __init__(self, tls=None, oauth=False):
        super().__init__(tls)
        self.oauth = oauth

    def command(self):
        script = installed("npm", "node_modules", "azurite", "dist", "src", "blob", "main.js")
        argv = [program("node"), script, "--location", self.dir, "--blobHost", "127.0.0.1", "--blobPort", str(self.port),
                "--disableTelemetry", "--silent"]
        if self.tls:
            certificate, key = self.tls.certificate()
            argv += ["--cert", certificate, "--key", key]
        if self.oauth:
            argv += ["--oauth", "basic"]
        return argv

    def process_env(self):
        return {"AZURITE_ACCOUNTS": "%s:%s" % (self.account, self.key)}

    @property
    def endpoint(self):
        return super().endpoint + "/" + self.account

    def client(self):
        return stores.Azure(self.endpoint, self.account, self.key, self.tls.ca_file if self.tls else None)

    def _endpoint(self, given):
        """A proxy's endpoint has no account in its path."""
        if given and not urllib.parse.urlsplit(given).path.strip("/"):
            return given.rstrip("/") + "/" + self.account
        return given or self.endpoint

    def environment(self, endpoint=None):
        return {"AZURE_STORAGE_ACCOUNT": self.account, "AZURE_STORAGE_KEY": self.key,
                "LITESTREAM_AZURE_ACCOUNT_KEY": self.key}

    def url(self, bucket, prefix="", endpoint=None, **more):
        query = {"endpoint": self._endpoint(endpoint), "account-name": self.account}
        query.update({key.replace("_", "-"): value for key, value in more.items()})
        return "abs://%s/%s?%s" % (bucket, prefix, _query(query))

    def litestream_replica(self, bucket, prefix, endpoint=None):
        return {"type": "abs", "account-name": self.account, "endpoint": self._endpoint(endpoint), "bucket": bucket,
                "path": prefix}


class FakeGcs(Server):
    """
    Google Cloud Storage in memory: JSON API, resumable uploads; any authentication will do. `strict`: it checks
    ifGenerationMatch of every kind of upload, checksums and ranges; False of the version that an old Go compiles.
    """

    name = "fake-gcs-server"

    @property
    def strict(self):
        with open(installed("bin", "fake-gcs-server.version")) as file:
            return tuple(int(part) for part in file.read().strip().split(".")) >= (1, 56)

    def command(self):
        # A host without a port matches any, so that the XML-style downloads also work through a proxy.
        argv = [installed("bin", "fake-gcs-server"), "-backend", "memory", "-host", "127.0.0.1", "-port", str(self.port),
                "-public-host", "127.0.0.1", "-scheme", self.scheme, "-external-url", self.endpoint, "-log-level", "warn"]
        if self.tls:
            certificate, key = self.tls.certificate()
            argv += ["-cert-location", certificate, "-private-key-location", key]
        return argv

    def client(self):
        return stores.Gcs(self.endpoint, ca_file=self.tls.ca_file if self.tls else None)

    def environment(self, endpoint=None):
        given = endpoint or self.endpoint
        return {"STORAGE_EMULATOR_HOST": urllib.parse.urlsplit(given).netloc if given.startswith("http:") else given}

    def url(self, bucket, prefix="", endpoint=None, **more):
        query = _query({key.replace("_", "-"): value for key, value in more.items()})
        return "gcs://%s/%s%s" % (bucket, prefix, "?" + query if query else "")

    def litestream_url(self, bucket, prefix, endpoint=None):
        return self.url(bucket, prefix)

    def litestream_replica(self, bucket, prefix, endpoint=None):
        return {"url": self.url(bucket, prefix)}


class Sshd(Server):
    """
    OpenSSH's own server with a configuration, host keys and user keys made for it, for the current user, SFTP only. A bucket is
    a folder below `root`.

    `key_path` (ed25519), `rsa_key_path`, `ecdsa_key_path`, `encrypted_key_path` with `passphrase`, `stranger_key_path` (not
    let in); `known_hosts`, `host_key_sha256`; `user`, `password` (None where there is no C compiler: no account of the system
    is touched, sshd is told by a preloaded getspnam). `options` are lines for sshd_config, which win over the ones here.
    """

    name = "sshd"
    passphrase = "open sesame"

    def __init__(self, options=()):
        super().__init__()
        self.options = list(options)
        self.user = pwd.getpwuid(os.geteuid()).pw_name
        self.password = None
        self.host_key_sha256 = ""
        self._env = {}

    def _keygen(self, kind, name, *more):
        path = os.path.join(self.dir, name)
        done = subprocess.run([program("ssh-keygen"), "-q", "-t", kind, "-N", "", "-C", "test", *more, "-f", path],
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        harness.check(done.returncode == 0, "ssh-keygen: %r" % done.stdout[-300:])
        return path

    def command_check(self):
        program("sshd", "/usr/sbin", "/usr/local/sbin")
        program("ssh-keygen")

    def start(self):
        if not self.host_key_sha256:
            self._prepare()
        super().start()
        self.known_hosts_for(self.port)

    def _prepare(self):
        self.root = os.path.join(self.dir, "files")
        os.makedirs(self.root, exist_ok=True)
        self._host_key = self._keygen("ed25519", "host_ed25519")
        self._keygen("ecdsa", "host_ecdsa")
        self.key_path = self._user_key("ed25519", "user_ed25519")
        self.stranger_key_path = self._keygen("ed25519", "stranger")  # not authorized
        with open(self._host_key + ".pub") as file:
            blob = base64.b64decode(file.read().split()[1])
        self.host_key_sha256 = "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
        self._env = self._password()
        if os.geteuid() == 0:
            os.makedirs("/run/sshd", mode=0o755, exist_ok=True)  # sshd wants it for its unprivileged half

    def _user_key(self, kind, name, *more):
        """A key of the user, made and authorized when it is first asked for."""
        path = os.path.join(self.dir, name)
        if not os.path.exists(path):
            self._keygen(kind, name, *more)
            with open(path + ".pub") as public, open(os.path.join(self.dir, "authorized_keys"), "a") as file:
                file.write(public.read())
        return path

    @property
    def rsa_key_path(self):
        return self._user_key("rsa", "user_rsa", "-b", "2048")

    @property
    def ecdsa_key_path(self):
        return self._user_key("ecdsa", "user_ecdsa")

    @property
    def encrypted_key_path(self):
        return self._user_key("ed25519", "user_encrypted", "-N", self.passphrase)

    def _password(self):
        """Decides on the password and returns the environment with which sshd knows it."""
        try:
            library = native.shared_library(os.path.join(HERE, "sshd_password.c"))
            password = base64.b32encode(os.urandom(10)).decode().lower()
            crypt = subprocess.run([program("openssl"), "passwd", "-6", "-stdin"], input=password.encode(),
                                   stdout=subprocess.PIPE, check=True)
        except (OSError, subprocess.CalledProcessError):
            return {}
        self.password = password
        return {"LD_PRELOAD": library, "LJ_SSHD_HASH": crypt.stdout.decode().strip()}

    def process_env(self):
        return self._env

    def command(self):
        config = os.path.join(self.dir, "sshd_config")
        lines = self.options + [
            "Port %d" % self.port, "ListenAddress 127.0.0.1",
            *("HostKey %s/host_%s" % (self.dir, kind) for kind in ("ed25519", "ecdsa")),
            "AuthorizedKeysFile %s/authorized_keys" % self.dir, "StrictModes no", "UsePAM no", "PidFile none",
            "PasswordAuthentication %s" % ("yes" if self.password else "no"), "KbdInteractiveAuthentication no",
            "PermitRootLogin yes", "Subsystem sftp internal-sftp", "ForceCommand internal-sftp", "UseDNS no",
            "PrintMotd no", "MaxStartups 200", "LogLevel VERBOSE"]
        with open(config, "w") as file:
            file.write("\n".join(lines) + "\n")
        return [program("sshd", "/usr/sbin", "/usr/local/sbin"), "-D", "-e", "-f", config]

    def ready(self):
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
                connection.settimeout(5)
                return connection.recv(4) == b"SSH-"
        except OSError:
            return False

    @property
    def endpoint(self):
        return "127.0.0.1:%d" % self.port

    @property
    def known_hosts(self):
        return self.known_hosts_for(self.port)

    def known_hosts_for(self, port, stranger=False):
        """A known_hosts file for 127.0.0.1 at `port` (a proxy's, say); stranger=True: with another key than the server's."""
        path = os.path.join(self.dir, "known_hosts%s_%d" % ("_stranger" if stranger else "", port))
        with open(path, "w") as file:
            for key in [self.stranger_key_path] if stranger else [os.path.join(self.dir, "host_" + kind)
                                                                  for kind in ("ed25519", "ecdsa")]:
                with open(key + ".pub") as public:
                    file.write("[127.0.0.1]:%d %s\n" % (port, " ".join(public.read().split()[:2])))
        return path

    def environment(self, endpoint=None):
        return {}

    @contextlib.contextmanager
    def agent(self, *keys):
        """An ssh-agent with these keys (default: key_path); gives its environment."""
        path = os.path.join(self.dir, "agent-%d" % time.monotonic_ns())
        process = subprocess.Popen(dies_with_us([program("ssh-agent"), "-D", "-a", path]), stdin=subprocess.DEVNULL,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            harness.wait_for(lambda: _listens(path), "ssh-agent")
            env = {"SSH_AUTH_SOCK": path}
            for key in keys or (self.key_path,):
                subprocess.run([program("ssh-add"), "-q", key], env=dict(os.environ, **env), check=True,
                               stdin=subprocess.DEVNULL)
            yield env
        finally:
            process.kill()
            process.wait()

    def _at(self, endpoint):
        return endpoint.split("://")[-1] if endpoint else self.endpoint

    def url(self, bucket, prefix="", endpoint=None, password=False, user=None, **more):
        """With the key, or with the password in the URL; `more` can set key_path=None and so on."""
        at = self._at(endpoint)
        query = {"known-hosts-path": self.known_hosts_for(int(at.rsplit(":", 1)[1]))}
        login = user or self.user
        if password:
            harness.check(self.password, "this machine cannot do passwords")
            login += ":" + self.password
        else:
            query["key-path"] = self.key_path
        query.update({key.replace("_", "-"): value for key, value in more.items()})
        query = _query(query)
        return "sftp://%s@%s%s%s" % (login, at, self.path(bucket, prefix), "?" + query if query else "")

    def litestream_replica(self, bucket, prefix, endpoint=None):
        return {"url": "sftp://%s@%s%s" % (self.user, self._at(endpoint), self.path(bucket, prefix)),
                "key-path": self.key_path}

    # -- the content, straight from the disk

    def path(self, bucket, key=""):
        return os.path.join(self.root, bucket, key).rstrip("/")

    def make_bucket(self, name):
        os.makedirs(self.path(name), exist_ok=True)

    def objects(self, bucket, prefix=""):
        top = self.path(bucket)
        found = []
        for folder, _, names in os.walk(top):
            for name in names:
                path = os.path.join(folder, name)
                key = os.path.relpath(path, top)
                if key.startswith(prefix):
                    found.append((key, os.path.getsize(path)))
        return sorted(found)

    def read(self, bucket, key):
        with open(self.path(bucket, key), "rb") as file:
            return file.read()

    def put(self, bucket, key, body):
        path = self.path(bucket, key)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(body)

    def delete(self, bucket, key):
        os.unlink(self.path(bucket, key))

    def exists(self, bucket, key):
        return os.path.exists(self.path(bucket, key))


ALL = {"s3rver": S3rver, "moto": Moto, "azurite": Azurite, "fakegcs": FakeGcs, "sshd": Sshd}


def main():
    if len(sys.argv) != 2 or sys.argv[1] not in ALL:
        sys.exit("usage: python3 -m ljtest.servers " + "|".join(ALL))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        with ALL[sys.argv[1]]() as server:
            server.make_bucket("bucket")
            for key, value in server.env.items():
                print("export %s=%s" % (key, value))
            print("url: %s" % server.url("bucket", "prefix"))
            print("log: %s" % server.log)
            print("Ctrl-C ends it", flush=True)
            signal.pause()
    except harness.Skip as reason:
        sys.exit(str(reason))
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
