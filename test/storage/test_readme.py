#!/usr/bin/python3
"""
test_readme.py - the shell commands of README.md as they stand there.

Each block marked sh is run by bash in the project's root. Only places are changed: /tmp/litejoin, build/, and in
"Object stores" the names of accounts and machines; AWS_ENDPOINT_URL and STORAGE_EMULATOR_HOST lead to servers on loopback. Left
out is what installs packages or builds. And the rights that it says are enough, on servers that check them.
"""
# timeout: 1200

import json
import os
import re
import shutil
import socket
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

import azurekit  # noqa: E402
import s3kit  # noqa: E402
from ljtest import harness, servers  # noqa: E402
from ljtest.harness import check, check_equal, test  # noqa: E402

ROOT = os.path.abspath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
INSTALLS = ("./tools/quickstart", "test/clients/install_node")
STRANGE = re.compile(r"^(AWS|AZURE|GOOGLE|LITESTREAM|LITEJOIN)_|_proxy$|_PROXY$|^(CLOUDSDK_CONFIG|SSH_AUTH_SOCK)$")


def sections():
    """[(heading, text)] of README.md; a heading is the text behind its ##."""
    with open(os.path.join(ROOT, "README.md")) as file:
        parts = re.split(r"^##+ (.*)$", file.read(), flags=re.MULTILINE)
    return list(zip(parts[1::2], parts[2::2]))


def blocks(heading, language="sh"):
    texts = [text for name, text in sections() if name == heading]
    check_equal(len(texts), 1, "sections of README.md called %r" % heading)
    found = re.findall(r"^```%s\n(.*?)^```$" % language, texts[0], flags=re.MULTILINE | re.DOTALL)
    check(found, "no block of %s in %r" % (language, heading))
    return found


def run(t, block, places=(), **more):
    """Runs a block; returns what it printed. Every change that is asked for must find its place."""
    for old, new in [*places, ("/tmp/litejoin", t.dir), ("./build/", harness.build_dir() + "/"),
                     (" build/", " " + harness.build_dir() + "/"), ("=build/", "=" + harness.build_dir() + "/")]:
        block = block.replace(old, new)
    env = {name: value for name, value in os.environ.items() if not STRANGE.search(name)}
    env.update({"HOME": t.folder("home"), "AWS_EC2_METADATA_DISABLED": "true"}, **more)
    done = subprocess.run(["bash", "-eu", "-c", block], cwd=ROOT, env=env, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120)
    text = done.stdout.decode("utf-8", "replace")
    check(done.returncode == 0, "status %d: %s\n%s" % (done.returncode, block, text[-1500:]))
    return text


def on_a_store(t, heading, name, places=(), **more):
    """The blocks of one store, in one shell: rows are written, synced, listed and restored."""
    t.folder("data")
    found = blocks(heading)
    said = run(t, "\n".join(found), places, **more)
    check("rror" not in said and "warn" not in said.lower(), "trouble: " + said)
    check_equal(len(re.findall(r"^[0-9a-f]{16}/[0-9a-f]{8}:\d+$", said, re.MULTILINE)), len(found), "positions in " + said)
    check("replica " in said and "restored " in said, "no listing, or no restore: " + said)
    copy = t.path("from_%s.db" % name)
    done = subprocess.run(["sqlite3", copy, "PRAGMA integrity_check; SELECT count(*) FROM events"], stdout=subprocess.PIPE,
                          universal_newlines=True)
    check_equal(done.stdout.split(), ["ok", "2"], "what was restored from %s" % name)


@test("shim", "cli", "sqlite3", "lz4", "load_extension", timeout=200)
def folders(t):
    """Everything but "Object stores", from the top, in one place."""
    for heading, text in sections():
        if heading == "Object stores" or "\n```sh\n" not in text or heading in STORES:
            continue
        for i, block in enumerate(blocks(heading)):
            if any(name in block for name in INSTALLS):
                continue
            with t.part("%s, block %d" % (heading, i + 1)):
                text = run(t, block)
                if heading == "The sqlite3 shell":
                    check_equal(text.split()[-2:], ["1|hello", "2|world"], "what came back")
                if heading == "Restoring by hand":
                    check_equal(text.replace("0|0|0\n", "").split(), ["ok", "2"], "what was restored by hand")
                if heading == "When something is wrong":
                    check("sync_interval" in text and "not a duration" in text, "no reason: " + text)


@test("shim", "cli", "sqlite3", timeout=120)
def s3(t):
    with servers.Moto() as store:
        store.make_bucket("my-bucket")
        on_a_store(t, "S3 and compatible stores", "s3", AWS_ENDPOINT_URL=store.endpoint)
        check_equal({key.split("/")[1] for key, _ in store.objects("my-bucket", "state/")}, {"on_s3"}, "replicas")


@test("shim", "cli", "sqlite3", timeout=120)
def google(t):
    with servers.FakeGcs() as store:
        store.make_bucket("my-bucket")
        on_a_store(t, "Google Cloud Storage", "gcs", **store.env)


@test("shim", "cli", "sqlite3", timeout=120)
def azure(t):
    with servers.Azurite() as store:
        store.make_bucket("my-container")
        at = re.compile(r"abs://myaccount@(my-container[\w/]*)")
        urls = {found[0] for block in blocks("Azure Blob Storage") for found in at.finditer(block)}
        places = [(url, "'%s?endpoint=%s'" % (url.replace("myaccount", store.account), store.endpoint))
                  for url in sorted(urls, key=len, reverse=True)]
        on_a_store(t, "Azure Blob Storage", "abs", [("BASE64EXAMPLE", store.key), *places])


def sftp_places(store):
    return [("backup@backup.example.com", "%s@%s%s" % (store.user, store.endpoint, store.path("my-folder"))),
            ("ssh-keyscan backup.example.com", "ssh-keyscan -p %d 127.0.0.1" % store.port)]


def with_home(t, store, key=True):
    """What an account has that may log in with its own key."""
    os.makedirs(t.folder("home", ".ssh"), exist_ok=True)
    if key:
        shutil.copy(store.key_path, t.path("home", ".ssh", "id_ed25519"))


@test("shim", "cli", "sqlite3", timeout=120)
def sftp(t):
    with servers.Sshd() as store:
        with_home(t, store)
        on_a_store(t, "SFTP", "sftp", sftp_places(store))


@test("shim", "cli", "sqlite3", timeout=120)
def sftp_with_a_password(t):
    """LITEJOIN_SFTP_PASSWORD is no option of litejoin.yaml, and reaches the store all the same."""
    with servers.Sshd() as store:
        if not store.password:
            raise harness.Skip("this machine cannot do passwords")
        with_home(t, store, key=False)
        on_a_store(t, "SFTP", "sftp", sftp_places(store), LITEJOIN_SFTP_PASSWORD=store.password)


# Makes a bucket and a user with a policy in a moto that asks for both after these four calls; prints the user's keys.
MAKE_USER = """
import boto3, sys
at = dict(endpoint_url=sys.argv[1], region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b")
boto3.client("s3", **at).create_bucket(Bucket="my-bucket")
iam = boto3.client("iam", **at)
iam.create_user(UserName="litejoin")
iam.put_user_policy(UserName="litejoin", PolicyName="replica", PolicyDocument=sys.argv[2])
key = iam.create_access_key(UserName="litejoin")["AccessKey"]
print(key["AccessKeyId"], key["SecretAccessKey"])
"""


class GuardedMoto(servers.Moto):
    """Looks at the actions and resources of policies, not at conditions."""

    def process_env(self):
        return dict(super().process_env(), INITIAL_NO_AUTH_ACTION_COUNT="4")

    def ready(self):
        try:  # a request would be one of the four
            socket.create_connection(("127.0.0.1", self.port), timeout=5).close()
            return True
        except OSError:
            return False

    def make_user(self, policy):
        script = [servers.installed("moto", "bin", "python3"), "-c", MAKE_USER, self.endpoint, json.dumps(policy)]
        done = subprocess.run(script, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True, timeout=300)
        check(done.returncode == 0, "boto3: " + done.stdout[-800:])
        names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
        return dict(zip(names, done.stdout.split()), AWS_ENDPOINT_URL=self.endpoint, AWS_REGION=self.region)


def all_operations(t, shell):
    """What a replica needs of a store."""
    small, large = s3kit.write(t, "small", 1000), s3kit.write(t, "large", 9 << 20)
    shell.good("absent", "g/small", small)
    shell.fails("already exists", "absent", "g/small", small)
    shell.good("absent", "g/large", large)
    shell.good("head", "g/small")
    shell.good("get", "g/large", t.path("out"), 5, 100)
    shell.fails("not found", "get", "g/none", t.path("out"))
    check_equal(len(shell.good("list", "g/")["objects"]), 2, "objects")
    shell.good("delete", "g/large", "g/small", "g/none")


@test(timeout=200)
def the_policy_for_s3(t):
    """It is enough, and each of its actions is needed but the one for uploads that fail."""
    policy = json.loads(blocks("S3 and compatible stores", "json")[0])
    actions = policy["Statement"][0]["Action"]
    check("StringLike" in policy["Statement"][1]["Condition"], "the condition on s3:prefix")
    # moto looks for the right to delete many at the bucket, Amazon at each object
    policy["Statement"][0]["Resource"] = [policy["Statement"][0]["Resource"], policy["Statement"][1]["Resource"]]
    with GuardedMoto() as store:
        all_operations(t, s3kit.Shell(t, "s3://my-bucket/state", store.make_user(policy)))
    for action in actions:
        if action == "s3:AbortMultipartUpload":
            continue
        less = json.loads(json.dumps(policy))
        less["Statement"][0]["Action"] = [name for name in actions if name != action]
        with t.part("without " + action), GuardedMoto() as store:
            try:
                all_operations(t, s3kit.Shell(t, "s3://my-bucket/state", store.make_user(less)))
            except harness.Failure as failure:
                check("denied" in str(failure), "another failure: %s" % failure)
            else:
                raise harness.Failure("it is not needed")


@test(timeout=120)
def the_permissions_of_a_sas_token(t):
    section = dict(sections())["Azure Blob Storage"]
    letters = re.search(r"needs `sp=([a-z]+)`", section).group(1)
    with servers.Azurite() as store:
        store.make_bucket("my-container")
        for some in [letters] + [letters.replace(letter, "") for letter in letters]:
            sas, _ = azurekit.sas(store.account, store.key, "my-container", some)
            shell = azurekit.Shell(t, "abs://my-container/%s?endpoint=%s" % (some, store.endpoint),
                                   {"AZURE_STORAGE_SAS_TOKEN": sas})
            with t.part("sp=" + some):
                try:
                    all_operations(t, shell)
                except harness.Failure as failure:
                    check(some != letters and "denied" in str(failure), str(failure))
                else:
                    check(some == letters, "one letter less would do")


STORES = ("Folder", "S3 and compatible stores", "Google Cloud Storage", "Azure Blob Storage", "SFTP")

if __name__ == "__main__":
    harness.main("readme")
