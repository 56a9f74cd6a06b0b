#!/usr/bin/python3
"""test_google_credentials.py - Google credentials of every kind, against services played on loopback (ljtest.fakecloud).

The store is fake-gcs-server behind a gate that lets in only tokens which the played service has issued and which are not
expired; each service tells what a request to it lacked.
"""
# timeout: 1200

import json
import os
import pathlib
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))

from ljtest import fakecloud, faults, gcsserver, harness, httpd  # noqa: E402
from ljtest.harness import check, check_equal, test  # noqa: E402
from ljtest.storeshell import Shell, content, environment, tool  # noqa: E402

MIB = 1 << 20
PART = 8 * MIB


class Cloud:
    """A store behind a gate for one issuer of tokens."""

    def __init__(self, case, issuer, env, expect_problems=False):
        self.case = case
        self.issuer = issuer
        self.env = env
        self.store = gcsserver.GcsServer("bucket")
        self.gate = None
        self.expect_problems = expect_problems
        self.secrets = []

    def __enter__(self):
        self.store.__enter__()
        self.gate = fakecloud.BearerGate(self.store.endpoint, self.issuer)
        self.gate.__enter__()
        return self

    def __exit__(self, kind, *rest):
        self.gate.__exit__(None, None, None)
        self.store.__exit__(None, None, None)
        if kind is None and not self.expect_problems:
            self.issuer.check()
            check_equal(self.store.problems, [], "what was against the API")

    def shell(self, *settings, **options):
        shell = Shell(self.case, "gcs://bucket/p", self.env, "endpoint=" + self.gate.endpoint, *settings, **options)
        check_equal(shell.opened["code"], "ok", str(shell.opened))
        return shell

    def no_secret_in(self, *texts):
        tokens = list(self.issuer.issued) + self.secrets
        for text in texts:
            for token in tokens:
                check(token not in text, "a secret is shown in: %s" % text[:500])


def works(shell, key="a"):
    data = content(5000)
    check_equal(shell.put(key, data)["code"], "ok", "put")
    answer, got = shell.get(key)
    check_equal((answer["code"], got), ("ok", data), "get")
    check_equal(shell.ok("list", "")["objects"], [[key, 5000]], "list")
    shell.ok("delete", key)


def log_of(shell):
    with open(shell.log, errors="replace") as file:
        return file.read()


@test()
def a_service_account(case):
    with fakecloud.GoogleToken() as google, Cloud(case, google, google.env) as cloud:
        shell = cloud.shell()
        works(shell)
        works(shell, "b")
        check_equal(len(google.issued), 1, "tokens fetched")
        check_equal(cloud.gate.refused, 0, "requests refused")
        with open(google.service_account_file()) as file:
            cloud.secrets.append(json.load(file)["private_key"].split("\n")[3])
        cloud.no_secret_in(log_of(shell))


@test()
def the_setting_beats_the_environment(case):
    with fakecloud.GoogleToken() as google:
        with Cloud(case, google, {"GOOGLE_APPLICATION_CREDENTIALS": "/nonexistent"}) as cloud:
            works(cloud.shell("credentials-path=" + google.service_account_file()))


@test()
def the_file_that_gcloud_leaves(case):
    with fakecloud.GoogleToken() as google:
        for variable, folder in (("CLOUDSDK_CONFIG", case.folder("config")), ("HOME", case.folder("home"))):
            below = folder if variable != "HOME" else case.folder("home", ".config", "gcloud")
            with open(google.authorized_user_file()) as source:
                with open(os.path.join(below, "application_default_credentials.json"), "w") as file:
                    file.write(source.read())
            env = {variable: folder, **({"CLOUDSDK_CONFIG": ""} if variable == "HOME" else {})}
            with Cloud(case, google, env) as cloud:
                works(cloud.shell())


@test()
def an_authorized_user(case):
    with fakecloud.GoogleToken() as google:
        env = {"GOOGLE_APPLICATION_CREDENTIALS": google.authorized_user_file()}
        with Cloud(case, google, env) as cloud:
            cloud.secrets += [google.refresh_token, google.client_secret]
            shell = cloud.shell()
            works(shell)
            cloud.no_secret_in(log_of(shell))


@test()
def an_external_account_with_a_file_that_rotates(case):
    for impersonate in (False, True):
        with fakecloud.GoogleToken(expiry=4) as google:
            env = {"GOOGLE_APPLICATION_CREDENTIALS": google.external_account_file(impersonate=impersonate)}
            with Cloud(case, google, env) as cloud:
                shell = cloud.shell()
                for _ in range(3):
                    works(shell)
                    google.token_file.rotate()
                    time.sleep(4.1)
                kinds = [token.split("-")[0] for token in google.issued]
                exchanges = kinds.count("federated")
                check(3 <= exchanges <= 6, "%d exchanges" % exchanges)  # more than 3 when a token's time was over before all worked
                check_equal(kinds.count("impersonated"), exchanges if impersonate else 0, "impersonations")
                check_equal(cloud.gate.refused, 0, "requests refused")
                cloud.no_secret_in(log_of(shell))


@test()
def an_external_account_with_json(case):
    with fakecloud.GoogleToken() as google:
        env = {"GOOGLE_APPLICATION_CREDENTIALS": google.external_account_file(as_json=True)}
        with Cloud(case, google, env) as cloud:
            works(cloud.shell())


class SubjectServer(httpd.Server):
    """Where an external account gets its token by HTTP."""

    def __init__(self, google):
        super().__init__()
        self.google = google

    def respond(self, request, body, plan):
        if request.headers.get("X-Identity") != "workload":
            return httpd.Response(403, {}, "who are you?")
        return httpd.Response(200, {}, json.dumps({"value": self.google.token_file.value}))


@test()
def an_external_account_with_a_url(case):
    with fakecloud.GoogleToken() as google, SubjectServer(google) as subject:
        with open(google.external_account_file()) as file:
            value = json.load(file)
        value["credential_source"] = {"url": subject.endpoint + "/token?x=1", "headers": {"X-Identity": "workload"},
                                      "format": {"type": "json", "subject_token_field_name": "value"}}
        path = case.path("external.json")
        with open(path, "w") as file:
            json.dump(value, file)
        with Cloud(case, google, {"GOOGLE_APPLICATION_CREDENTIALS": path}) as cloud:
            works(cloud.shell())
            subject.add(faults.status(500))
            google.issued.clear()
            answer = cloud.shell().fails("service unavailable", "list", "")
            check(answer["retryable"] and "external account" in answer["message"], lambda: answer)


@test()
def an_external_account_whose_token_is_missing(case):
    with fakecloud.GoogleToken() as google:
        env = {"GOOGLE_APPLICATION_CREDENTIALS": google.external_account_file()}
        with Cloud(case, google, env) as cloud:
            os.unlink(google.token_file.path)
            shell = cloud.shell()
            answer = shell.fails("permission denied", "list", "")
            check(answer["retryable"] and google.token_file.path in answer["message"], lambda: answer)
            google.token_file.rotate()
            shell.ok("list", "")


@test()
def a_user_who_impersonates_a_service_account(case):
    with fakecloud.GoogleToken() as google:
        with open(google.authorized_user_file()) as file:
            user = json.load(file)
        with open(google.external_account_file(impersonate=True)) as file:
            url = json.load(file)["service_account_impersonation_url"]
        path = case.path("impersonated.json")
        with open(path, "w") as file:
            json.dump({"type": "impersonated_service_account", "service_account_impersonation_url": url,
                       "delegates": ["projects/-/serviceAccounts/between@x"], "source_credentials": user}, file)
        with Cloud(case, google, {"GOOGLE_APPLICATION_CREDENTIALS": path}) as cloud:
            works(cloud.shell())
            (request,) = google.seen("POST", "generateAccessToken")
            body = json.loads(request.body)
            check_equal(body["delegates"], ["projects/-/serviceAccounts/between@x"], "delegates")
            check_equal(body["scope"], ["https://www.googleapis.com/auth/devstorage.read_write"], "scope")


@test()
def the_metadata_server_with_tokens_of_four_seconds(case):
    with fakecloud.GoogleMetadata(expiry=4) as metadata, Cloud(case, metadata, metadata.env) as cloud:
        shell = cloud.shell()
        started = time.monotonic()
        rounds = 0
        while time.monotonic() < started + 10 or rounds <= 10:
            works(shell, "a")
            rounds += 1
        seconds = time.monotonic() - started
        check(3 <= len(metadata.issued) <= 3 + seconds / 2, "%d tokens in %.1f s" % (len(metadata.issued), seconds))
        check_equal(cloud.gate.refused, 0, "requests refused")


@test()
def a_proxy_is_not_used_for_the_metadata_server(case):
    with fakecloud.GoogleMetadata() as metadata, faults.ForwardProxy() as proxy:
        env = {**metadata.env, "http_proxy": proxy.endpoint}
        with Cloud(case, metadata, env) as cloud:
            works(cloud.shell())
            check_equal(proxy.seen(None, "computeMetadata"), [], "requests through the proxy")


@test()
def no_credentials_at_all(case):
    with gcsserver.GcsServer("bucket") as server:
        for host, words in (("127.0.0.1:1", "no metadata server"), ("127.0.0.1:%d" % server.port, "not Google's metadata server")):
            shell = Shell(case, "gcs://bucket/p", {"GCE_METADATA_HOST": host, "CLOUDSDK_CONFIG": "/nonexistent"},
                          "endpoint=" + server.endpoint)
            answer = shell.fails("permission denied", "list", "")
            check(answer["retryable"] and words in answer["message"], lambda: answer)
            for way in ("credentials-path", "GOOGLE_APPLICATION_CREDENTIALS", "gcloud auth", "service account"):
                check(way in answer["hint"], lambda: answer)
        check_equal([request for request in server.seen() if "storage" in request.path], [], "requests to the store")


@test()
def a_machine_without_a_service_account(case):
    with fakecloud.GoogleMetadata() as metadata, Cloud(case, metadata, metadata.env) as cloud:
        flavor = {"Metadata-Flavor": "Google"}
        shell = cloud.shell()
        with metadata.rule(faults.status(404, flavor, b"<html>")):
            answer = shell.fails("permission denied", "list", "")
            check(answer["retryable"] and "service account" in answer["hint"], lambda: answer)
        with metadata.rule(faults.status(503, flavor)):
            check(shell.fails("service unavailable", "list", "")["retryable"], "not retryable")
        shell.ok("list", "")
        # from now on a metadata server that is away is a fault of its own
        metadata.issued.clear()
        metadata.down()
        check(shell.fails("service unavailable", "list", "")["retryable"], "not retryable")
        metadata.up()
        shell.ok("list", "")


@test()
def a_refused_token_is_replaced_once(case):
    with fakecloud.GoogleToken() as google, Cloud(case, google, google.env) as cloud:
        shell = cloud.shell()
        works(shell)
        for fields in (("list", ""), ("put", "a", shell.file(content(3000))), ("get", "a", case.path("got")), ("head", "a"),
                       ("put", "large", shell.file(content(PART + 5))), ("delete", "a")):
            google.issued.clear()  # revoked
            before = cloud.gate.refused
            shell.ok(*fields)
            check_equal(cloud.gate.refused, before + 1, "refusals at %s" % fields[0])
        check_equal(cloud.store.objects["p/large"].data, content(PART + 5), "content")
        # refused again and again: once more, and then told
        with cloud.gate.rule(faults.gcs_error(401, "authError", "Invalid Credentials")) as always:
            answer = shell.fails("permission denied", "list", "")
            check_equal(always.fired, 2, "requests")
            check(answer["retryable"] and answer["http_status"] == 401, lambda: answer)
        shell.ok("list", "")


@test()
def a_token_is_revoked_in_the_middle_of_an_upload(case):
    with fakecloud.GoogleToken() as google, Cloud(case, google, google.env) as cloud:
        shell = cloud.shell()
        data = content(3 * PART + 5)
        parts = []

        def revoke(request):
            parts.append(request)
            if len(parts) in (2, 4):
                google.issued.clear()
            return False

        cloud.gate.add(httpd.Action("revoke"), method="PUT", test=revoke)
        check_equal(shell.put("large", data)["code"], "ok", "put")
        check_equal(cloud.store.objects["p/large"].data, data, "content")
        check_equal((cloud.gate.refused, len(parts)), (2, 6), "refusals, requests of the session")


@test()
def the_credentials_file_is_replaced(case):
    with fakecloud.GoogleToken(expiry=1) as google:
        path = case.path("credentials.json")

        def install(source):
            with open(source) as file, open(path + ".new", "w") as out:
                out.write(file.read())
            os.rename(path + ".new", path)

        with Cloud(case, google, {"GOOGLE_APPLICATION_CREDENTIALS": path}) as cloud:
            shell = cloud.shell()  # before the file is there
            answer = shell.fails("permission denied", "list", "")
            check(answer["retryable"] and path in answer["message"], lambda: answer)
            install(google.service_account_file())
            shell.ok("list", "")
            install(google.authorized_user_file())
            time.sleep(1.1)
            shell.ok("list", "")
            with open(path, "w") as file:
                file.write('{"type":"authorized_user","client_secret":"abcdef-secret"')
            time.sleep(1.1)
            answer = shell.fails("invalid argument or configuration", "list", "")
            check(answer["retryable"] and path in answer["message"], lambda: answer)
            check("abcdef" not in json.dumps(answer) + log_of(shell), "a secret is shown")
            install(google.service_account_file())
            shell.ok("list", "")


@test()
def token_services_that_refuse_or_break(case):
    with fakecloud.GoogleToken() as google, Cloud(case, google, google.env, expect_problems=True) as cloud:
        shell = cloud.shell()
        refusal = b'{"error":"invalid_grant","error_description":"Invalid JWT: Token must be a short-lived token"}'
        rows = ((faults.status(400, {}, refusal), "permission denied", "clock"),
                (faults.status(401, {}, b'{"error":"invalid_client"}'), "permission denied", "key"),
                (faults.status(404, {}, b"<html>"), "permission denied", ""),
                (faults.status(429, {}, b"", retry_after=3), "service unavailable", ""),
                (faults.status(500, {}, b"<html>"), "service unavailable", ""),
                (faults.status(302, {"Location": "http://127.0.0.1:1/"}), "service unavailable", ""),
                (faults.status(200, {}, b"<html>"), "service unavailable", ""),
                (faults.status(200, {}, b'{"access_token":"a\\r\\nX-Evil: 1","expires_in":5}'), "service unavailable", ""),
                (faults.status(200, {}, b'{"access_token":"%s"}' % (b"a" * 300000)), "service unavailable", ""),
                (faults.reset_before(), "service unavailable", ""),
                (faults.truncate(10), "service unavailable", ""))
        for action, code, hint in rows:
            with google.rule(action):
                answer = shell.fails(code, "list", "")
                check(answer["retryable"] and hint in answer["hint"] + answer["message"], lambda: (action.name, answer))
                if "3" in action.name and "429" in action.name:
                    check_equal(answer["retry_after_ms"], 3000, "Retry-After")
        check_equal(cloud.store.seen(), [], "requests to the store")
        shell.ok("list", "")
        cloud.no_secret_in(log_of(shell))


@test()
def a_silent_token_service_does_not_hold_us(case):
    with fakecloud.GoogleToken() as google, Cloud(case, google, google.env) as cloud:
        shell = cloud.shell(timeout_ms=1500)
        with google.rule(faults.black_hole()):
            started = time.monotonic()
            check(shell.fails("timed out", "list", "")["retryable"], "not retryable")
            check(time.monotonic() - started < 20, "it took %.1f s" % (time.monotonic() - started))
        shell.ok("list", "")


@test()
def files_that_are_refused_at_once(case):
    user = {"type": "authorized_user", "client_id": "i", "client_secret": "hidden-1", "refresh_token": "hidden-2"}
    rows = (("{", "invalid argument or configuration", "not JSON"),
            (json.dumps({**user, "type": "gdch_service_account"}), "not supported", "type"),
            (json.dumps({**user, "universe_domain": "example.com"}), "not supported", "universe"),
            (json.dumps({**user, "refresh_token": None}), "invalid argument or configuration", "refresh_token"),
            (json.dumps({**user, "token_uri": "http://example.com/t"}), "invalid argument or configuration", "token_uri"))
    for text, code, words in rows:
        path = case.path("credentials.json")
        with open(path, "w") as file:
            file.write(text)
        done = subprocess.run([tool("store_shell"), "gcs://bucket/p", "credentials-path=" + path], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment({}))
        answer = json.loads(done.stdout)
        check_equal(answer["code"], code, words)
        check(words in answer["message"] and path in answer["message"] and answer["hint"], lambda: answer)
        check("hidden" not in done.stdout.decode(), "a secret is shown")


@test()
def an_emulator_gets_no_credentials(case):
    with fakecloud.GoogleToken() as google, gcsserver.GcsServer("bucket") as server:
        shell = Shell(case, "gcs://bucket/p", {**google.env, **server.env})
        works(shell)
        told = Shell(case, "gcs://bucket/p", server.env, "credentials-path=" + google.service_account_file())
        told.ok("list", "")
        check("credentials-path is not used" in log_of(told), lambda: log_of(told))
        check_equal(len(google.seen()), 0, "requests for a token")
        check_equal([request for request in server.seen() if "Authorization" in request.headers], [], "requests with a token")


if __name__ == "__main__":
    harness.main("google credentials")
