#!/usr/bin/python3
"""
test_secrets.py - secrets stay where they were given.

Marked secrets of every kind, in the environment, in files and in litestream.yml, in runs that work and runs that fail, with log level
debug. Then all that was said, logged and written is searched for them, in several encodings. Secrets in a URL are refused, and the
refusal does not repeat them.
"""
# timeout: 1200

import base64
import json
import os
import sys
import urllib.parse

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from azurekit import sas  # noqa: E402
from faultkit import BUCKET, NEEDS  # noqa: E402
from ljtest import fakecloud, faults, harness, httpd, s3gate, servers  # noqa: E402
from ljtest.harness import check, check_equal, test  # noqa: E402
from secretkit import Watch  # noqa: E402

NEVER = "secrets never go into a URL"
AWS_SECRET = "wJalr/XUtnFEMI+K7MDENG/bPxRfiCYsecretMARK"
AWS_TOKEN = "FwoGZXIvYXdzEsession+MARKtoken/" + "Qm9ndXNUb2tlbg" * 6 + "=="


def write(t, name, text, mode=0o600):
    path = t.path(name)
    with open(path, "w") as file:
        file.write(text)
    os.chmod(path, mode)
    return path


def yaml_of(t, store_url, name="litestream.yml", **settings):
    """A litestream.yml for /nowhere/litejoin.db with these settings of its one replica."""
    lines = ["dbs:", "  - path: /nowhere/litejoin.db", "    replicas:", "      - url: %s" % store_url]
    lines += ["        %s: %s" % (key.replace("_", "-"), json.dumps(value)) for key, value in settings.items()]
    return write(t, name, "\n".join(lines) + "\n")


@test()
def the_search_finds(t):
    """What the other tests rely on."""
    coded = base64.b64encode(b"user:" + AWS_SECRET.encode() + b"!").decode()
    for text in (AWS_SECRET, urllib.parse.quote(AWS_SECRET, safe=""), base64.b64encode(AWS_SECRET.encode()).decode(), coded,
                 base64.b64encode(b"ab" + AWS_SECRET.encode()).decode(), base64.urlsafe_b64encode(AWS_SECRET.encode()).decode(),
                 AWS_SECRET.encode().hex(), AWS_SECRET[5:30]):
        watch = Watch(t)
        watch.secret("the key", AWS_SECRET)
        watch.add("somewhere", "before " + text + " behind")
        try:
            watch.check()
        except harness.Failure as failure:
            check("the key stands in somewhere" in str(failure), str(failure))
        else:
            raise harness.Failure("not found in: " + text)
    watch = Watch(t)
    watch.secret("the key", AWS_SECRET)
    write(t, "file", "AKIAMARKER " + AWS_SECRET[:9])
    watch.add_folder(t.dir)
    watch.check()


@test(*NEEDS, "cli", timeout=120)
def aws_keys(t):
    watch = Watch(t)
    watch.secret("AWS secret key", AWS_SECRET)
    watch.secret("AWS session token", AWS_TOKEN)
    customer = watch.secret("customer key", base64.b64encode(bytes(range(200, 232))).decode())
    proxy_password = watch.secret("proxy password", "pr0xy-pass-MARK")
    env = {"AWS_ACCESS_KEY_ID": "ASIAMARKER", "AWS_SECRET_ACCESS_KEY": AWS_SECRET, "AWS_SESSION_TOKEN": AWS_TOKEN}
    with servers.S3rver() as store, s3gate.Gate(store) as gate:
        store.make_bucket(BUCKET)
        good = {"ASIAMARKER": s3gate.Credentials(AWS_SECRET, AWS_TOKEN)}
        gate.credentials = good
        url = store.url(BUCKET, "a", endpoint=gate.endpoint)
        shard = store.url(BUCKET, "a/shard_0", endpoint=gate.endpoint)
        with t.part("working, from the environment"):
            check(watch.shim(url, env).worked, "the run did not work")
            check_equal(watch.all_commands(shard, env=env).status, 0, "restore by the command line")
            for key, _ in store.objects(BUCKET):
                watch.add("key of an object", key)
                watch.add("an object", store.read(BUCKET, key))
        shared = "[default]\naws_access_key_id = ASIAMARKER\naws_secret_access_key = %s\naws_session_token = %s\n" % (AWS_SECRET, AWS_TOKEN)
        with t.part("working, from a file"):
            file = {"AWS_SHARED_CREDENTIALS_FILE": write(t, "credentials", shared)}
            check(watch.shim(url, file).worked, "the run did not work")
            check_equal(watch.all_commands(shard, env=file).status, 0, "restore by the command line")
        with t.part("working, from litestream.yml"):
            bare = "s3://%s/a/shard_0" % BUCKET
            config = yaml_of(t, bare, endpoint=gate.endpoint, region="us-east-1", access_key_id="ASIAMARKER",
                             secret_access_key=AWS_SECRET, session_token=AWS_TOKEN)
            check_equal(watch.all_commands("/nowhere/litejoin.db", "-config", config).status, 0, "restore")
            expanded = yaml_of(t, bare, "expanded.yml", endpoint=gate.endpoint, region="us-east-1", access_key_id="$KEY_ID",
                               secret_access_key="${SECRET}", session_token="$TOKEN")
            check_equal(watch.all_commands("/nowhere/litejoin.db", "-config", expanded, env={
                "KEY_ID": "ASIAMARKER", "SECRET": AWS_SECRET, "TOKEN": AWS_TOKEN}).status, 0, "restore")
        with t.part("refused by the store"):
            for credentials in ({}, {"ASIAMARKER": s3gate.Credentials("another", AWS_TOKEN)},
                                {"ASIAMARKER": s3gate.Credentials(AWS_SECRET, "another")},
                                {"ASIAMARKER": s3gate.Credentials(AWS_SECRET, AWS_TOKEN, 1)}):
                gate.credentials = credentials
                check(not watch.shim(url, env, restore_on_boot="false", patience="300ms").worked, "the run worked")
                check(watch.cli("snapshots", "-exit-codes", shard, env=env).status != 0, "the command line worked")
            gate.credentials = good
            # a store that repeats what it got
            echo = faults.s3_error("AccessDenied", message="not with " + AWS_TOKEN, more={
                "StringToSign": AWS_SECRET, "CanonicalRequest": "x-amz-security-token:" + AWS_TOKEN})
            with gate.rule(echo):
                watch.shim(url, env, restore_on_boot="false", patience="300ms")
                watch.cli("wal", shard, env=env)
        with t.part("stuck and gone"):
            with gate.rule(faults.black_hole()):
                watch.shim(url, env, restore_on_boot="false", patience="300ms")
            gone = url.replace(gate.endpoint, "http://127.0.0.1:1")
            watch.shim(gone, env, restore_on_boot="false", patience="300ms")
            watch.cli("generations", gone, env=env)
            through = {**env, "http_proxy": "http://user:%s@127.0.0.1:1" % proxy_password}
            host = url.replace("127.0.0.1", "store.invalid")
            watch.shim(host, through, restore_on_boot="false", patience="300ms")
            watch.cli("generations", host, env=through)
        with t.part("malformed"):
            broken = {
                "no equals sign": shared.replace("aws_secret_access_key = ", "aws_secret_access_key "),
                "no section": shared.replace("[default]\n", ""),
                "open section": shared.replace("[default]", "[default"),
                "key as a section": "[default]\naws_access_key_id=ASIAMARKER\n[%s]\n" % AWS_SECRET,
                "control character": shared.replace(AWS_TOKEN, AWS_TOKEN + "\x01"),
                "secret alone": "[default]\naws_secret_access_key=%s\n" % AWS_SECRET,
                "only the values": AWS_SECRET + "\n" + AWS_TOKEN + "\n",
                "other profile": shared.replace("default", "other"),
            }
            for name, text in broken.items():
                file = {"AWS_SHARED_CREDENTIALS_FILE": write(t, "broken", text)}
                watch.shim(url, file, restore_on_boot="false", patience="300ms")
                check(watch.cli("snapshots", "-exit-codes", shard, env=file).status != 0, "it worked with " + name)
            for change in ({"AWS_SECRET_ACCESS_KEY": AWS_SECRET + "\n"}, {"AWS_SESSION_TOKEN": AWS_TOKEN + "\r\nx: y"},
                           {"AWS_ACCESS_KEY_ID": ""}, {"AWS_SECRET_ACCESS_KEY": " %s" % AWS_SECRET}):
                watch.shim(url, {**env, **change}, restore_on_boot="false", patience="300ms")
                watch.cli("snapshots", shard, env={**env, **change})
        with t.part("malformed litestream.yml"):
            bare = "s3://%s/a/shard_0" % BUCKET
            texts = {
                "open quote": 'dbs:\n  - path: /nowhere/litejoin.db\n    replicas:\n      - url: %s\n        secret-access-key: "%s\n',
                "a list": "dbs:\n  - path: /nowhere/litejoin.db\n    replicas:\n      - url: %s\n        secret-access-key: [%s]\n",
                "a tab": "dbs:\n  - path: /nowhere/litejoin.db\n    replicas:\n      - url: %s\n\t\tsecret-access-key: %s\n",
                "a colon": "dbs:\n  - path: /nowhere/litejoin.db\n    replicas:\n      - url: %s\n        secret-access-key: a: %s\n",
                "another key": "dbs:\n  - path: /nowhere/litejoin.db\n    replicas:\n      - url: %s\n        secret-key: %s\n",
                "wrong place": "dbs:\n  - path: /nowhere/litejoin.db\n    replicas:\n      - url: %s\nsecret-access-key:\n  %s: x\n",
            }
            for name, text in texts.items():
                config = write(t, "broken.yml", text % (bare, AWS_SECRET))
                for command in ("databases", "snapshots"):
                    watch.cli(command, "-config", config, *(["/nowhere/litejoin.db"] if command == "snapshots" else []))
            for secret in (customer, customer[:-6], "not base64 " + customer):
                config = yaml_of(t, bare, endpoint="http://store.invalid", region="us-east-1", access_key_id="ASIAMARKER",
                                 secret_access_key=AWS_SECRET, sse_customer_key=secret)
                check(watch.cli("snapshots", "-exit-codes", "-config", config, "/nowhere/litejoin.db").status != 0, "a customer key over plain http")
            for url_in_yaml in ("s3://ASIAMARKER:%s@%s/a" % (AWS_SECRET, BUCKET), "%s@bucket" % AWS_SECRET,
                                "s3://%s/a?secret-access-key=%s" % (BUCKET, AWS_SECRET)):
                config = yaml_of(t, url_in_yaml)
                check(watch.cli("snapshots", "-exit-codes", "-config", config, "/nowhere/litejoin.db").status != 0, "it worked")
                config = write(t, "path.yml", "dbs:\n  - path: /nowhere/litejoin.db\n    replicas:\n      - path: %s\n" % url_in_yaml)
                watch.cli("snapshots", "-config", config, "/nowhere/litejoin.db")
        watch.check()


@test(*NEEDS, "cli", timeout=120)
def azure_keys(t):
    watch = Watch(t)
    with servers.Azurite() as store, faults.Proxy(store.endpoint) as proxy:
        store.make_bucket(BUCKET)
        key = watch.secret("account key", store.key)
        token, _ = sas(store.account, store.key, BUCKET)
        for part in token.split("&"):
            if part.startswith("sig="):
                watch.secret("SAS signature", part[4:])
        url = store.url(BUCKET, "a", endpoint=proxy.endpoint)
        shard = store.url(BUCKET, "a/shard_0", endpoint=proxy.endpoint)
        plain = store._endpoint(proxy.endpoint)
        connection = "DefaultEndpointsProtocol=http;AccountName=%s;AccountKey=%s;BlobEndpoint=%s;" % (store.account, key, plain)
        for name, env in (("account key", {"AZURE_STORAGE_KEY": key}), ("Litestream's variable", {"LITESTREAM_AZURE_ACCOUNT_KEY": key}),
                          ("SAS token", {"AZURE_STORAGE_SAS_TOKEN": "?" + token}),
                          ("connection string", {"AZURE_STORAGE_CONNECTION_STRING": connection})):
            with t.part("working, " + name):
                run = watch.shim(url, env)
                check(run.worked, "the run did not work: " + run.text[-500:])
                check_equal(watch.all_commands(shard, env=env).status, 0, "restore")
            with t.part("refused, " + name):
                for code in ("AuthenticationFailed", "AuthorizationFailure"):
                    with proxy.rule(faults.answer(lambda request: faults.azure_error(code, message="Signature did not match: %s %s" % (
                            request.query, request.headers.get("Authorization"))).answer(request))):
                        watch.shim(url, env, restore_on_boot="false", patience="300ms")
                        check(watch.cli("wal", "-exit-codes", shard, env=env).status != 0, "it worked")
                with proxy.rule(faults.reset_before()):
                    watch.shim(url, env, restore_on_boot="false", patience="300ms")
                    watch.cli("wal", shard, env=env)
        with t.part("litestream.yml"):
            bare = "abs://%s/a/shard_0" % BUCKET
            for settings in ({"account_key": key}, {"sas_token": token}, {"connection_string": connection}):
                config = yaml_of(t, bare, account_name=store.account, endpoint=plain, **settings)
                check_equal(watch.all_commands("/nowhere/litejoin.db", "-config", config).status, 0, "restore with %s" % list(settings))
        with t.part("malformed"):
            for env in ({"AZURE_STORAGE_KEY": key[:-3]}, {"AZURE_STORAGE_KEY": "%" + key}, {"AZURE_STORAGE_KEY": key + "\n" + key},
                        {"AZURE_STORAGE_SAS_TOKEN": token.replace("&", ";")}, {"AZURE_STORAGE_SAS_TOKEN": token + "\r\nx: y"},
                        {"AZURE_STORAGE_SAS_TOKEN": "https://x.blob.core.windows.net/?" + token},
                        {"AZURE_STORAGE_CONNECTION_STRING": connection.replace("AccountKey=", "AccountKey:")},
                        {"AZURE_STORAGE_CONNECTION_STRING": connection.replace(";", ",")},
                        {"AZURE_STORAGE_CONNECTION_STRING": key}):
                watch.shim(url, env, restore_on_boot="false", patience="300ms")
                watch.cli("wal", shard, env=env)
        for object_key, _ in store.objects(BUCKET):
            watch.add("key of an object", object_key)
    with servers.Azurite() as store, fakecloud.AzureAd() as directory:
        with t.part("client secret"):
            store.make_bucket(BUCKET)
            watch.secret("client secret", directory.client_secret)
            url = store.url(BUCKET, "a")
            watch.shim(url, directory.env, restore_on_boot="false", patience="300ms")
            wrong = {**directory.env, "AZURE_CLIENT_SECRET": watch.secret("wrong client secret", "wr0ng~client+secret/MARK")}
            run = watch.shim(url, wrong, restore_on_boot="false", patience="5s")
            check(not run.worked and any("client_secret" in problem for problem in directory.problems), "nobody was asked: " + run.text)
            watch.cli("snapshots", url, env=wrong)
        watch.check(*directory.issued)


def repeats(request):
    """A server that says what it got: the fields of a form, and who asks."""
    got = urllib.parse.parse_qsl(request.body.decode("utf-8", "replace"))
    secret = [value for name, value in got if name not in ("grant_type", "client_id", "scope")]
    text = "not with %s" % " ".join(secret or [request.headers.get("Authorization") or "nothing"])
    body = {"error": "invalid_grant", "error_description": text}
    if "/storage/" in request.path or "/b/" in request.path:
        body = {"error": {"code": 400, "message": text, "errors": [{"reason": "invalid", "message": text}]}}
    return httpd.Response(400, {"Content-Type": "application/json"}, json.dumps(body))


@test(*NEEDS, "cli", timeout=120)
def google_keys(t):
    watch = Watch(t)
    with servers.FakeGcs() as store, fakecloud.GoogleToken() as google, fakecloud.BearerGate(store.endpoint, google) as gate:
        store.make_bucket(BUCKET)
        with open(google.key_file) as file:
            pem = file.read()
        for number, line in enumerate(pem.splitlines()[1:-1]):
            if len(line) >= 24:
                watch.secret("line %d of the private key" % number, line)
        watch.secret("refresh token", google.refresh_token)
        google.client_secret = watch.secret("client secret", "GOCSPX-client/secret+MARK")
        url = "gcs://%s/a?endpoint=%s" % (BUCKET, gate.endpoint)
        shard = "gcs://%s/a/shard_0?endpoint=%s" % (BUCKET, gate.endpoint)
        files = {"service account": google.service_account_file(), "refresh token": google.authorized_user_file()}
        for name, path in files.items():
            env = {"GOOGLE_APPLICATION_CREDENTIALS": path}
            with t.part("working, " + name):
                run = watch.shim(url, env)
                check(run.worked, "the run did not work: " + run.text[-500:])
                check_equal(watch.all_commands(shard, env=env).status, 0, "restore")
            with t.part("litestream.yml, " + name):
                config = yaml_of(t, shard, credentials_path=path)
                check_equal(watch.all_commands("/nowhere/litejoin.db", "-config", config).status, 0, "restore")
            with t.part("refused, " + name):
                with google.rule(faults.answer(repeats)):
                    watch.shim(url, env, restore_on_boot="false", patience="300ms")
                    check(watch.cli("wal", "-exit-codes", shard, env=env).status != 0, "it worked")
                with gate.rule(faults.gcs_error(403, "forbidden")):
                    watch.shim(url, env, restore_on_boot="false", patience="300ms")
                    check(watch.cli("wal", "-exit-codes", shard, env=env).status != 0, "it worked")
                with gate.rule(faults.answer(repeats)):
                    watch.shim(url, env, restore_on_boot="false", patience="300ms")
                    watch.cli("wal", shard, env=env)
            with t.part("malformed, " + name):
                with open(path) as file:
                    text = file.read()
                changed = (text.replace('"private_key"', "private_key"), text.replace('"refresh_token"', "refresh_token"),
                           text.replace(",", "", 3), text[:-3], text.replace("PRIVATE KEY", "KEY"), text.replace("\\n", ""),
                           text.replace('"type"', '"tipe"'), pem, google.refresh_token)
                for content in changed:
                    broken = {"GOOGLE_APPLICATION_CREDENTIALS": write(t, "broken.json", content)}
                    watch.shim(url, broken, restore_on_boot="false", patience="300ms")
                    watch.cli("wal", shard, env=broken)
        for object_key, _ in store.objects(BUCKET):
            watch.add("key of an object", object_key)
        check(len(google.issued) >= 2, "no token was handed out")
        watch.check(*google.issued)


@test(*NEEDS, "cli", timeout=120)
def sftp_passwords(t):
    watch = Watch(t)
    with servers.Sshd() as store:
        store.make_bucket(BUCKET)
        store.passphrase = watch.secret("passphrase", "open-sesame/MARK+phrase")
        encrypted = store.encrypted_key_path
        with open(encrypted) as file:
            for line in file.read().splitlines()[1:-1]:
                if len(line) >= 24:
                    watch.secrets.setdefault("private key " + line[:6], line)
        at = "sftp://%s@%s%s" % (store.user, store.endpoint, store.path(BUCKET, "a"))
        known = {"known_hosts_path": store.known_hosts}
        url = store.url(BUCKET, "a", key_path=encrypted)
        passphrase = {"LITEJOIN_SFTP_KEY_PASSPHRASE": store.passphrase}
        with t.part("key with a passphrase"):
            config = yaml_of(t, at + "/shard_0", key_path=encrypted, key_passphrase=store.passphrase, **known)
            run = watch.shim(url, passphrase)
            check(run.worked, "the run did not work: " + run.text[-500:])
            check_equal(watch.all_commands("/nowhere/litejoin.db", "-config", config).status, 0, "restore")
        with t.part("wrong passphrase"):
            wrong = watch.secret("wrong passphrase", "wr0ng-phrase/MARK")
            config = yaml_of(t, at + "/shard_0", key_path=encrypted, key_passphrase=wrong, **known)
            check(not watch.shim(url, {"LITEJOIN_SFTP_KEY_PASSPHRASE": wrong}, restore_on_boot="false", patience="500ms").worked, "it worked")
            check(watch.cli("snapshots", "-exit-codes", "-config", config, "/nowhere/litejoin.db").status != 0, "it worked")
        with t.part("malformed key"):
            with open(encrypted) as file:
                text = file.read()
            for content in (text.replace("OPENSSH", "OPENSSL"), text[:len(text) // 2], text.replace("\n", " ")):
                broken = write(t, "broken_key", content)
                watch.shim(store.url(BUCKET, "a", key_path=broken), passphrase, restore_on_boot="false", patience="500ms")
        with t.part("password"):
            if not store.password:
                raise harness.Skip("this machine cannot do passwords")
            watch.secret("password", store.password)
            config = yaml_of(t, at + "/shard_0", password=store.password, **known)
            check_equal(watch.all_commands("/nowhere/litejoin.db", "-config", config).status, 0, "restore")
            run = watch.shim(store.url(BUCKET, "a", key_path=None), {"LITEJOIN_SFTP_PASSWORD": store.password})
            check(run.worked, "the run did not work: " + run.text[-500:])
        with t.part("wrong password"):
            wrong = watch.secret("wrong password", "wr0ng-pass/w%rd+MARK")
            config = yaml_of(t, at + "/shard_0", password=wrong, **known)
            check(watch.cli("snapshots", "-exit-codes", "-config", config, "/nowhere/litejoin.db").status != 0, "it worked")
            watch.shim(store.url(BUCKET, "a", key_path=None), {"LITEJOIN_SFTP_PASSWORD": wrong}, restore_on_boot="false", patience="500ms")
            config = write(t, "user.yml", "dbs:\n  - path: /nowhere/litejoin.db\n    replicas:\n      - type: sftp\n        host: %s\n"
                           "        user: 'root:%s'\n        path: /x\n" % (store.endpoint, wrong))
            watch.cli("snapshots", "-config", config, "/nowhere/litejoin.db")
        for object_key, _ in store.objects(BUCKET):
            watch.add("key of an object", object_key)
        watch.check()


MARK = "sEcReT/mArK+0123456789"
CODED = "sEcReT%2FmArK%2B0123456789"
URLS = (
    "s3://AKIAMARKER:%s@bucket/p" % CODED, "s3://AKIAMARKER:%s@bucket/p" % MARK, "s3://:%s@bucket/p" % CODED,
    "s3://bucket/p?secret-access-key=%s" % CODED, "s3://bucket/p?access-key-id=%s" % CODED,
    "s3://bucket/p?region=x&secret_access_key=%s" % CODED, "s3://bucket/p?SecretAccessKey=%s" % CODED,
    "s3://bucket/p?session-token=%s" % CODED, "s3://bucket/p?sse-customer-key=%s" % CODED, "s3://bucket/p?X-Amz-Signature=%s" % CODED,
    "s3://bucket/p?s%%65cret-access-key=%s" % CODED, "s3://bucket/p?secret%%2Daccess%%2Dkey=%s" % CODED,
    "s3://bucket/p?sse-customer-k%%65y=%s" % CODED, "s3://bucket/p?s%%65ssion-tok%%65n=%s" % CODED,
    "sftp://user:%s@host/p" % CODED, "sftp://user:%s@host:22/p" % MARK, "sftp://host/p?password=%s" % CODED,
    "sftp://user@host/p?key-passphrase=%s" % CODED, "sftp://user@host/p?passw%%6Frd=%s" % CODED,
    "abs://account@box/p?account-key=%s" % CODED, "abs://account@box/p?sv=2023-11-03&sr=c&sp=rcwdl&sig=%s" % CODED,
    "abs://account@box/p?sas-token=sv%%3D2023%%26sig%%3D%s" % CODED, "abs://account:%s@box/p" % CODED,
    "abs://box/p?connection-string=AccountKey%%3D%s" % CODED, "abs://account@box/p?s%%69g=%s" % CODED,
    "gcs://bucket/p?private-key=%s" % CODED, "gcs://bucket/p?token=%s" % CODED, "gs://user:%s@bucket/p" % CODED,
)


@test(*NEEDS, "cli", timeout=300)
def secrets_in_urls(t):
    """Refused wherever a URL can stand, with the hint, before anything is made or asked, and not repeated."""
    watch = Watch(t)
    watch.secret("secret of the URL", MARK)
    watch.secret("coded secret of the URL", CODED)

    def refused(what, url, text):
        check(NEVER in text, "%s %s: no hint in: %s" % (what, url, text[-600:]))

    for number, url in enumerate(URLS):
        with t.part(url.replace(MARK, "***").replace(CODED, "***")):
            run = watch.shim(None, replica_url=url)
            check(not run.worked, "the URI parameter was taken")
            refused("URI parameter", url, run.text)
            run = watch.shim(None, {"LITEJOIN_REPLICA_URL": url})
            check(not run.worked, "LITEJOIN_REPLICA_URL was taken")
            refused("LITEJOIN_REPLICA_URL", url, run.text)
            if number % 4 == 0:
                config = write(t, "litejoin.yaml", "replication:\n  enabled: true\n  mode: embedded\n  replica_url: '%s'\n" % url)
                refused("litejoin.yaml", url, watch.shim(None, {"LITEJOIN_CONFIG": config}).text)
            for command in (("snapshots",), ("restore", "-o", t.path("out.db"))):
                run = watch.cli(*command, url)
                check(run.status != 0, "litejoin-replica took it")
                refused("litejoin-replica %s" % command[0], url, run.text)
    with t.part("in the wrong place"):
        url = URLS[0]
        for arguments in ((url,), ("snapshots", "-o", url), ("restore", url, url), ("restore", "-o", url, url), ("wal", "-generation", url),
                          ("snapshots", "-replica", url, url), ("restore", "-config", url, url), ("snapshots", url, "-v"),
                          ("snapshots", "-" + url), ("help", url), ("snapshots", url[1:]), ("restore", "-config=" + url, "x")):
            run = watch.cli(*arguments)
            check(run.status != 0, "litejoin-replica took %s: %s" % (arguments, run.text))
            check(NEVER in run.text or arguments[-1].startswith("3:"), "%s: no hint in: %s" % (arguments, run.text))
        watch.shim(None, replica_name=URLS[0])
        watch.shim(None, {"LITEJOIN_CONFIG": URLS[0]})
        watch.shim(None, {"LITEJOIN_LOG_LEVEL": URLS[0]})
        watch.shim(None, litejoin_mode=URLS[0])
        watch.shim(URLS[0].replace("s3://", "s4://"))
        watch.shim(None, replica_uri=URLS[0])
        watch.shim(None, litejoin_secret_access_key=MARK)
        watch.shim(None, {"LITEJOIN_SECRET_ACCESS_KEY": MARK})
    check_equal([name for name in os.listdir(t.dir) if name.endswith(".db")], [], "files that were made")
    watch.check()


if __name__ == "__main__":
    harness.main("secrets")
