#!/usr/bin/python3
"""test_aws_credentials.py - AWS credentials from the services and programs that hand them out: fetched, shared, refreshed before
they expire, and errors that say what is wrong and never what is secret.

Driven through test/storage/aws_credentials_main.c; the services are those of fakecloud.py.
"""

import calendar
import contextlib
import hashlib
import hmac
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.parse

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from ljtest import fakecloud, faults, harness  # noqa: E402
from ljtest.harness import check, check_equal, test, wait_for  # noqa: E402

NOTFOUND, DENIED, UNAVAILABLE, TIMEOUT, CANCELLED, CORRUPT, INVALID = 5, 9, 10, 11, 14, 7, 2
AUTHORIZATION = re.compile(r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8})/([^/]+)/sts/aws4_request, ?"
                           r"SignedHeaders=([a-z0-9;-]+), ?Signature=([0-9a-f]{64})$")
# every request that obeys a proxy would fail at this one
DEAD_PROXY = {"http_proxy": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9", "all_proxy": "http://127.0.0.1:9"}


class Asker:
    """The program, running. Lines are collected by finish()."""

    def __init__(self, t, env=None, **arguments):
        program = os.path.join(harness.build_dir(), "test", "storage", "aws_credentials")
        if not os.access(program, os.X_OK):
            raise harness.Skip("no test/storage/aws_credentials in LJ_BUILD")
        clean = {name: value for name, value in os.environ.items()
                 if not name.startswith(("AWS_", "LITESTREAM_")) and not name.lower().endswith("_proxy")}
        os.makedirs(t.path("home", ".aws"), exist_ok=True)
        clean["HOME"] = t.path("home")
        names = ["%s=%s" % (name.replace("_", "-"), value) for name, value in arguments.items()]
        self.process = subprocess.Popen([program, *names], env={**clean, **(env or {})}, stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        t.cleanup(self.process.kill)

    def finish(self, seconds=300):
        out, self.log = self.process.communicate(timeout=seconds)
        check_equal(self.process.returncode, 0, "exit status")
        self.output = out + self.log
        self.lines = [json.loads(line) for line in out.splitlines()]
        return self.lines


def ask(t, env=None, **arguments):
    return Asker(t, env, **arguments).finish()


def one(t, env=None, **arguments):
    """The only line, and the text of all that came out."""
    asker = Asker(t, env, **arguments)
    lines = asker.finish()
    check_equal(len(lines), 1, "lines")
    return lines[0]


def expect_key(line, service):
    check("key" in line, lambda: "no credentials: %s" % line)
    check(line["key"] in service.issued, lambda: "%s was never handed out" % line["key"])


def expect_error(line, code, *texts):
    check_equal(line.get("error"), code, "error code (%s)" % line)
    for text in texts:
        check(text in line["message"] + " | " + line["hint"], lambda: "%r is not in %s" % (text, line))


def no_secret(asker, service, *more):
    secrets = [text for given in service.issued.values() for text in (given.secret_key, given.token)] + list(more)
    for secret in secrets:
        check(secret and secret not in asker.output, "a secret is in the output")


def profile(t, text, name="config"):
    os.makedirs(t.path("home", ".aws"), exist_ok=True)
    with open(t.path("home", ".aws", name), "w") as file:
        file.write(text)


def without_a_gap(lines, service, at_least):
    """Every answer was a credential that is valid, and there were several."""
    for line in lines:
        expect_key(line, service)
        check(line["left"] > 0, lambda: "expired when it came: %s" % line)
    keys = {line["key"] for line in lines}
    check(len(keys) >= at_least, lambda: "only %d different credentials" % len(keys))
    check_equal(len(service.issued), len(keys), "credentials handed out, and used")


# ---------------------------------------------------------------------------------------------------------------------
# EC2


@test()
def imds_gives_the_role_of_the_instance(t):
    with fakecloud.Imds() as imds:
        asker = Asker(t, {**imds.env, **DEAD_PROXY}, rounds=5)
        lines = asker.finish()
        for line in lines:
            expect_key(line, imds)
        check(3500000 < lines[0]["left"] <= 3600000, "life of the credentials")
        check_equal([(r.method, r.path) for r in imds.seen()],
                    [("PUT", imds.TOKEN), ("GET", imds.CREDENTIALS), ("GET", imds.CREDENTIALS + imds.role)], "requests")
        no_secret(asker, imds, *imds.sessions)
        imds.check()


@test()
def imds_many_databases_ask_once(t):
    with fakecloud.Imds() as imds:
        imds.add(faults.delay(200))
        lines = ask(t, imds.env, threads=50, rounds=3)
        check_equal(len(lines), 150, "lines")
        check_equal({line.get("key") for line in lines}, set(imds.issued), "credentials")
        check_equal(len(imds.seen()), 3, "requests")


@test()
def imds_refreshes_without_a_gap(t):
    with fakecloud.Imds(expiry=3) as imds:
        without_a_gap(ask(t, imds.env, rounds=80, interval=100), imds, 3)
        imds.check()


@test()
def imds_new_credentials_after_the_store_refused_the_old(t):
    with fakecloud.Imds() as imds:
        lines = ask(t, imds.env, rounds=4, refuse=1)
        check_equal(len({line["key"] for line in lines}), 4, "different credentials")


@test()
def imds_that_is_not_there(t):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        line = one(t, {"AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://127.0.0.1:%d" % closed.getsockname()[1]})
    expect_error(line, DENIED, "no AWS credentials: none are configured", "AWS_ACCESS_KEY_ID", "~/.aws/credentials", "role")
    check(line["retryable"] and line["took"] < 20000, lambda: str(line))


@test()
def imds_that_does_not_answer(t):
    for part, rule in [("no byte", None), ("no end", faults.stall(after=3))]:
        with t.part(part), fakecloud.Imds() as imds:
            if rule:
                imds.add(rule)
            else:
                imds.on_connect = "hang"
            line = one(t, imds.env)
            expect_error(line, DENIED, "no AWS credentials: none are configured")
            check(line["retryable"] and line["took"] < 20000, lambda: str(line))
    with t.part("many databases"), fakecloud.Imds() as imds:
        imds.on_connect = "hang"
        start = time.monotonic()
        lines = ask(t, imds.env, threads=20)
        check_equal({line["error"] for line in lines}, {DENIED}, "errors")
        check(time.monotonic() - start < 45, "they tried one after another")


@test()
def imds_asked_for_by_a_profile_fails_by_its_own_name(t):
    profile(t, "[default]\nrole_arn = r\ncredential_source = Ec2InstanceMetadata\n")
    with fakecloud.Imds() as imds:
        imds.add(faults.black_hole())
        line = one(t, imds.env)
        expect_error(line, TIMEOUT, "EC2 instance metadata", "http-put-response-hop-limit")


@test()
def imds_hiccups_are_tried_again(t):
    with fakecloud.Imds() as imds:
        imds.add(faults.status(500), path="/token", nth=1)
        imds.add(faults.reset_before(), path="-credentials/$", nth=(1, 2))
        imds.add(faults.status(503), path=imds.role, nth=(1, 2))
        expect_key(one(t, imds.env), imds)
        check_equal(len(imds.seen()), 3 + 5, "requests")


@test()
def imds_version_1(t):
    for code in (404, 405):
        with t.part("used where version 2 is not known, %d" % code), fakecloud.Imds(v1=True) as imds:
            imds.add(faults.status(code), method="PUT")
            expect_key(one(t, imds.env), imds)
    with t.part("forbidden"), fakecloud.Imds(v1=True) as imds:
        imds.add(faults.status(404), method="PUT")
        line = one(t, {**imds.env, "AWS_EC2_METADATA_V1_DISABLED": "true"})
        expect_error(line, DENIED, "HTTP 404")
        check_equal(len(imds.seen("GET")), 0, "requests without a token")
    with t.part("not because of a refusal"), fakecloud.Imds(v1=True) as imds:
        imds.add(faults.status(403), method="PUT")
        expect_error(one(t, imds.env), DENIED, "HTTP 403", "switched off")
        check_equal(len(imds.seen("GET")), 0, "requests without a token")


@test()
def imds_says_no(t):
    with t.part("no role"), fakecloud.Imds() as imds:
        imds.role = None
        line = one(t, imds.env)
        expect_error(line, DENIED, "the instance has no role", "instance profile")
        check(line["retryable"], "not retryable")
    with t.part("a failure in place of credentials"), fakecloud.Imds() as imds:
        imds.failure = "AssumeRoleUnauthorizedAccess"
        expect_error(one(t, imds.env), DENIED, "AssumeRoleUnauthorizedAccess: no luck today")
    with t.part("garbage"), fakecloud.Imds() as imds:
        rule = imds.add(faults.status(200, body=b"<html>"), path=imds.role)
        expect_error(one(t, imds.env), CORRUPT, "not JSON")
        imds.remove(rule)
        imds.add(faults.status(200, body=b"../../evil\n"), path="-credentials/$")
        expect_error(one(t, imds.env), CORRUPT, "the role's name is malformed")
    with t.part("switched off here"), fakecloud.Imds() as imds:
        line = one(t, {**imds.env, "AWS_EC2_METADATA_DISABLED": "true"})
        expect_error(line, DENIED, "none are configured", "AWS_EC2_METADATA_DISABLED")
        check_equal(len(imds.seen()), 0, "requests")


@test()
def imds_in_an_outage_gives_old_credentials_and_they_are_used(t):
    with fakecloud.Imds(expiry=-100) as imds:
        asker = Asker(t, imds.env, rounds=3)
        for line in asker.finish():
            expect_key(line, imds)
        check("expired" in asker.log, "no warning")
        check_equal(len(imds.issued), 1, "credentials fetched")


# ---------------------------------------------------------------------------------------------------------------------
# containers


@test()
def container_credentials(t):
    with t.part("without authorization"), fakecloud.EcsCredentials(token_needed=False) as ecs:
        expect_key(one(t, {**ecs.env, **DEAD_PROXY}), ecs)
        ecs.check()
        check_equal(ecs.seen()[0].headers.get("Authorization"), None, "authorization")
    with t.part("with a token"), fakecloud.EcsCredentials() as ecs:
        ecs.token = "Basic c2VjcmV0"
        asker = Asker(t, ecs.env)
        expect_key(asker.finish()[0], ecs)
        no_secret(asker, ecs, ecs.token)
    with t.part("with a wrong token"), fakecloud.EcsCredentials() as ecs:
        ecs.token = "right"
        asker = Asker(t, {**ecs.env, "AWS_CONTAINER_AUTHORIZATION_TOKEN": "wrongtoken"})
        expect_error(asker.finish()[0], DENIED, "AWS credentials of the container", "HTTP 401: Unauthorized: wrong token")
        no_secret(asker, ecs, "wrongtoken")
    with t.part("at localhost by name"), fakecloud.EcsCredentials(token_needed=False) as ecs:
        url = ecs.env["AWS_CONTAINER_CREDENTIALS_FULL_URI"].replace("127.0.0.1", "localhost")
        expect_key(one(t, {"AWS_CONTAINER_CREDENTIALS_FULL_URI": url}), ecs)
    with t.part("a path that is not there is no missing object"), fakecloud.EcsCredentials(token_needed=False) as ecs:
        expect_error(one(t, {"AWS_CONTAINER_CREDENTIALS_FULL_URI": ecs.endpoint + "/other"}), DENIED, "HTTP 404: NotFound")


@test()
def container_that_does_not_answer(t):
    with t.part("nobody there"), socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        line = one(t, {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1:%d/x" % closed.getsockname()[1]})
        expect_error(line, UNAVAILABLE, "AWS credentials of the container")
        check(line["retryable"] and line["took"] < 20000, lambda: str(line))
    with t.part("no answer"), fakecloud.EksPodIdentity() as eks:
        eks.add(faults.black_hole())
        line = one(t, eks.env)
        expect_error(line, TIMEOUT, "AWS credentials of the container")
        check(line["retryable"] and line["took"] < 20000, lambda: str(line))
    with t.part("a hiccup"), fakecloud.EksPodIdentity() as eks:
        eks.add(faults.status(503), nth=1)
        expect_key(one(t, eks.env), eks)


@test()
def eks_token_file_is_read_at_each_fetch(t):
    with fakecloud.EksPodIdentity(expiry=3) as eks:
        asker = Asker(t, eks.env, rounds=80, interval=100)
        for _ in range(20):
            time.sleep(0.4)
            eks.token_file.rotate(overlap=True)
            if asker.process.poll() is not None:
                break
        without_a_gap(asker.finish(), eks, 3)
        no_secret(asker, eks, eks.token_file.value)
        check(len({r.headers.get("Authorization") for r in eks.seen(status=200)}) >= 3, "the token stayed the same")


# ---------------------------------------------------------------------------------------------------------------------
# STS


@test()
def web_identity(t):
    with fakecloud.Sts() as sts:
        asker = Asker(t, sts.env, rounds=3)
        for line in asker.finish():
            expect_key(line, sts)
        sts.check()
        [request] = sts.seen()
        form = dict(urllib.parse.parse_qsl(request.body.decode()))
        check_equal(form.pop("WebIdentityToken"), sts.token_file.value, "token")
        check_equal(form, {"Action": "AssumeRoleWithWebIdentity", "Version": "2011-06-15", "RoleArn": sts.role_arn,
                           "RoleSessionName": sts.session_name}, "form")
        check_equal((request.method, request.target), ("POST", "/"), "request")
        check_equal(request.headers.get("Authorization"), None, "authorization")
        no_secret(asker, sts, sts.token_file.value)


@test()
def a_fetch_reads_no_environment(t):
    """It runs in a thread of ours, while the host may be changing it: what counts is what was there when the database was opened."""
    with fakecloud.Sts() as sts:
        for line in ask(t, sts.env, rounds=2, refuse=1, later="http_proxy=http://127.0.0.1:9"):
            expect_key(line, sts)
        check_equal(len(sts.seen()), 2, "requests")


@test()
def web_identity_of_a_profile(t):
    with fakecloud.Sts() as sts:
        profile(t, "[profile w]\nrole_arn = %s\nweb_identity_token_file = %s\n" % (sts.role_arn, sts.token_file.path))
        expect_key(one(t, {"AWS_ENDPOINT_URL_STS": sts.endpoint, "AWS_PROFILE": "w"}), sts)
        check(re.search(rb"RoleSessionName=litejoin-vfs-\d+(&|$)", sts.seen()[0].body), "no name of the session")


@test()
def web_identity_token_file_is_read_at_each_fetch(t):
    with fakecloud.Sts(expiry=3) as sts:
        asker = Asker(t, sts.env, rounds=80, interval=100)
        for _ in range(20):
            time.sleep(0.4)
            sts.token_file.rotate(overlap=True)
            if asker.process.poll() is not None:
                break
        without_a_gap(asker.finish(), sts, 3)


@test()
def web_identity_refused(t):
    cases = [((400, "ExpiredTokenException"), DENIED, "whoever writes it has stopped"),
             ((400, "InvalidIdentityToken"), DENIED, "OIDC provider"),
             ((403, "AccessDenied"), DENIED, "trust policy"),
             ((400, "ValidationError"), DENIED, "ValidationError: no luck today"),
             ((404, "NoSuchThing"), DENIED, "HTTP 404"),
             ((400, "IDPCommunicationError"), UNAVAILABLE, "HTTP 400"),
             ((400, "Throttling"), UNAVAILABLE, "HTTP 400"),
             ((503, "ServiceUnavailable"), UNAVAILABLE, "HTTP 503")]
    for failure, code, text in cases:
        with t.part(failure[1]), fakecloud.Sts() as sts:
            sts.failure = failure
            asker = Asker(t, sts.env, rounds=3)  # and it stays visible
            lines = asker.finish()
            check_equal(len(lines), 3, "lines")
            for line in lines:
                expect_error(line, code, text, "role " + sts.role_arn, failure[1] + ": no luck today")
                check(line["retryable"] and line["http"] == failure[0], lambda: str(line))
            no_secret(asker, sts, sts.token_file.value)
            check_equal(len(sts.seen()), 3, "requests")


@test()
def web_identity_answers_that_are_none(t):
    answers = [b"", b"{}", b"<a>", b"<!DOCTYPE a [<!ENTITY e 'x'>]><a>&e;</a>", b"<a>" * 20 + b"</a>" * 20,
               b"<r><AccessKeyId>A</AccessKeyId></r>", b"<r><AccessKeyId>A B</AccessKeyId><SecretAccessKey>s</SecretAccessKey></r>",
               b"<r><SecretAccessKey>" + b"x" * 40000 + b"</SecretAccessKey></r>"]
    for number, answer in enumerate(answers):
        with t.part(str(number)), fakecloud.Sts() as sts:
            sts.add(faults.status(200, body=answer))
            line = one(t, sts.env)
            expect_error(line, CORRUPT, "role " + sts.role_arn)
            check(line["retryable"], "not retryable")


@test()
def a_token_file_that_is_missing_is_no_missing_object(t):
    with fakecloud.Sts() as sts:
        missing = t.path("later")
        asker = Asker(t, {**sts.env, "AWS_WEB_IDENTITY_TOKEN_FILE": missing}, rounds=30, interval=100)
        time.sleep(1)
        os.link(sts.token_file.path, missing)
        lines = asker.finish()
        expect_error(lines[0], DENIED, "the web identity token", "later")
        check(lines[0]["retryable"], "not retryable")
        expect_key(lines[-1], sts)


@test()
def sts_that_does_not_answer(t):
    with t.part("stall timeout"), fakecloud.Sts() as sts:
        sts.add(faults.black_hole())
        line = one(t, sts.env, timeout=1000)
        expect_error(line, TIMEOUT, "role " + sts.role_arn)
        check(line["took"] < 20000, lambda: str(line))
    with t.part("cancelled"), fakecloud.Sts() as sts:
        sts.add(faults.black_hole())
        lines = ask(t, sts.env, threads=4, cancel=500)
        check_equal([line["error"] for line in lines], [CANCELLED] * 4, "errors")
        check(all(line["took"] < 10000 for line in lines), lambda: str(lines))


def sign(key, *texts):
    for text in texts:
        key = hmac.new(key, text.encode(), hashlib.sha256).digest()
    return key


def check_signature(request, credentials, region):
    """The signature of an AssumeRole, by our own reading of SigV4."""
    match = AUTHORIZATION.match(request.headers.get("Authorization") or "")
    check(match, "no signature: %s" % request.headers)
    key_id, day, signed_region, names, signature = match.groups()
    check_equal(signed_region, region, "region")
    check(key_id in credentials, "signed with the key %s" % key_id)
    secret, token = credentials[key_id]
    check_equal(request.headers.get("X-Amz-Security-Token"), token, "session token")
    stamp = request.headers["X-Amz-Date"]
    check(abs(calendar.timegm(time.strptime(stamp, "%Y%m%dT%H%M%SZ")) - request.when) < 60, "time " + stamp)
    for needed in ["host", "x-amz-date", "content-type"] + (["x-amz-security-token"] if token else []):
        check(needed in names.split(";"), needed + " is not signed")
    headers = "".join("%s:%s\n" % (name, " ".join(request.headers[name].split())) for name in names.split(";"))
    canonical = "POST\n/\n\n%s\n%s\n%s" % (headers, names, hashlib.sha256(request.body).hexdigest())
    scope = "%s/%s/sts/aws4_request" % (day, region)
    text = "AWS4-HMAC-SHA256\n%s\n%s\n%s" % (stamp, scope, hashlib.sha256(canonical.encode()).hexdigest())
    want = sign(("AWS4" + secret).encode(), day, region, "sts", "aws4_request", text).hex()
    check_equal(signature, want, "signature")


def issued(service):
    return {key: (given.secret_key, given.token) for key, given in service.issued.items()}


@test()
def assume_role(t):
    with t.part("by keys of another profile"), fakecloud.Sts() as sts:
        profile(t, "[profile r]\nrole_arn = %s\nsource_profile = keys\nexternal_id = 12&3 4\nrole_session_name = me\n"
                   "duration_seconds = 1800\nregion = eu-west-3\n" % sts.role_arn)
        profile(t, "[keys]\naws_access_key_id = AKIAX\naws_secret_access_key = sec/ret+1\n", "credentials")
        asker = Asker(t, {"AWS_ENDPOINT_URL_STS": sts.endpoint, "AWS_PROFILE": "r"})
        expect_key(asker.finish()[0], sts)
        [request] = sts.seen()
        check_signature(request, {"AKIAX": ("sec/ret+1", None)}, "eu-west-3")
        check_equal(dict(urllib.parse.parse_qsl(request.body.decode())),
                    {"Action": "AssumeRole", "Version": "2011-06-15", "RoleArn": sts.role_arn, "RoleSessionName": "me",
                     "DurationSeconds": "1800", "ExternalId": "12&3 4"}, "form")
        no_secret(asker, sts, "sec/ret+1")
    with t.part("twice in a row"), fakecloud.Sts() as sts:
        profile(t, "[default]\nrole_arn = %s\nsource_profile = b\n[profile b]\nrole_arn = %s\nsource_profile = keys\n"
                % (sts.role_arn, sts.role_arn))
        expect_key(one(t, {"AWS_ENDPOINT_URL_STS": sts.endpoint + "/"}), sts)
        first, second = sts.seen()
        check_signature(first, {"AKIAX": ("sec/ret+1", None)}, "us-east-1")
        check_signature(second, issued(sts), "us-east-1")
    with t.part("by the role of the instance"), fakecloud.Sts() as sts, fakecloud.Imds() as imds:
        profile(t, "[default]\nrole_arn = %s\ncredential_source = Ec2InstanceMetadata\n" % sts.role_arn)
        expect_key(one(t, {"AWS_ENDPOINT_URL_STS": sts.endpoint, **imds.env}, region="cn-north-1"), sts)
        check_signature(sts.seen()[0], issued(imds), "cn-north-1")
    with t.part("refused"), fakecloud.Sts() as sts:
        sts.failure = (403, "InvalidClientTokenId")
        line = one(t, {"AWS_ENDPOINT_URL_STS": sts.endpoint, "AWS_PROFILE": "default", "AWS_CONFIG_FILE": t.path("other"),
                       **keys_and_role(t, sts)})
        expect_error(line, DENIED, "InvalidClientTokenId: no luck today", "not valid")


def keys_and_role(t, sts):
    with open(t.path("other"), "w") as file:
        file.write("[default]\nrole_arn = %s\nsource_profile = keys\n" % sts.role_arn)
    return {}


class SkewedSts(fakecloud.Sts):
    """Its clock is `skew` seconds ahead of ours, and it insists on it."""

    skew = 7200
    refused = 0

    def answer(self, request, data):
        stamp = request.headers.get("X-Amz-Date")
        if stamp and abs(calendar.timegm(time.strptime(stamp, "%Y%m%dT%H%M%SZ")) - self.skew - time.time()) > 300:
            self.refused += 1
            return self._error(403, "SignatureDoesNotMatch", "Signature expired")
        return super().answer(request, data)

    def respond(self, request, body, plan):
        self.expiry += self.skew
        try:
            response = super().respond(request, body, plan)
        finally:
            self.expiry -= self.skew
        response.headers = response.headers.replaced({"Date": faults.http_date(self.skew)})
        return response


@test()
def a_clock_that_is_wrong(t):
    for skew in (7200, -7200):
        with t.part("%+d s" % skew), SkewedSts(expiry=600) as sts:
            sts.skew = skew
            profile(t, "[default]\nrole_arn = %s\nsource_profile = keys\n" % sts.role_arn)
            profile(t, "[keys]\naws_access_key_id = AKIAX\naws_secret_access_key = s\n", "credentials")
            line = one(t, {"AWS_ENDPOINT_URL_STS": sts.endpoint})
            expect_key(line, sts)
            check_equal(sts.refused, 1, "requests with the wrong time")
            check(590000 < line["left"] <= 602000, lambda: "life by the service's clock: %s" % line)


@test()
def endpoints_that_are_none(t):
    for endpoint in ("127.0.0.1:1", "ftp://127.0.0.1/", "http://127.0.0.1/path", "http:///", "http://127.0.0.1/?a"):
        with t.part(endpoint), fakecloud.Sts() as sts:
            expect_error(one(t, {**sts.env, "AWS_ENDPOINT_URL_STS": endpoint}), INVALID, "AWS_ENDPOINT_URL_STS")


# ---------------------------------------------------------------------------------------------------------------------
# credential_process


class Tool:
    """A credential_process that prints what `mode` says; `runs` counts how often it was run."""

    def __init__(self, t):
        self.mode_file = t.path("mode")
        self.runs_file = t.path("runs")
        self.secret = "tool-secret-0123456789"
        self.mode("good")
        path = t.path("the tool")
        with open(path, "w") as file:
            file.write("#!/usr/bin/python3\nimport json, sys, time\nmode = open(%r).read()\n" % self.mode_file)
            file.write("open(%r, 'a').write('x')\nprint('noise', file=sys.stderr)\n" % self.runs_file)
            file.write("if mode == 'fail': print(%r); sys.exit(3)\n" % self.secret)
            file.write("now = time.time()\nend = time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(now + 3))\n")
            file.write("print(json.dumps({'Version': 1, 'AccessKeyId': 'TOOL%%.6f' %% now, 'SecretAccessKey': %r, "
                       "'Expiration': end}))\n" % self.secret)
        os.chmod(path, 0o755)
        profile(t, "[default]\ncredential_process = \"%s\" with arguments\n" % path)

    def mode(self, word):
        with open(self.mode_file + ".new", "w") as file:
            file.write(word)
        os.rename(self.mode_file + ".new", self.mode_file)

    @property
    def runs(self):
        with contextlib.suppress(FileNotFoundError):
            return os.path.getsize(self.runs_file)
        return 0


@test()
def credential_process_is_run_again_before_its_credentials_expire(t):
    tool = Tool(t)
    asker = Asker(t, rounds=80, interval=100)
    lines = asker.finish()
    check(all("key" in line and line["left"] > 0 for line in lines), lambda: str([x for x in lines if "key" not in x]))
    keys = {line["key"] for line in lines}
    check(len(keys) >= 3, "not run again")
    check_equal(tool.runs, len(keys), "runs")
    check(tool.secret not in asker.output and "noise" not in asker.output, "its output was shown")


@test()
def credential_process_that_fails_meanwhile(t):
    """The old credentials serve to their end, then the failure is visible, then all is well again."""
    tool = Tool(t)
    asker = Asker(t, rounds=130, interval=100)
    wait_for(lambda: tool.runs >= 1, "a first run")
    time.sleep(0.5)
    tool.mode("fail")
    time.sleep(5)
    tool.mode("good")
    lines = asker.finish()
    good = [index for index, line in enumerate(lines) if "key" in line]
    bad = [index for index, line in enumerate(lines) if "error" in line]
    check(good[0] < bad[0] and bad[-1] < good[-1], lambda: "good %s, bad %s" % (good, bad))
    check_equal(bad, list(range(bad[0], bad[-1] + 1)), "errors in one row")
    for index in bad:
        expect_error(lines[index], DENIED, "credential_process ended with status 3", "by hand")
    check("the old ones still serve" in asker.log, "no warning")
    check(tool.secret not in asker.output, "a secret is in the output")


@test()
def credential_process_can_be_cancelled(t):
    profile(t, "[default]\ncredential_process = sleep 50\n")
    line = one(t, cancel=500)
    expect_error(line, CANCELLED)
    check(line["took"] < 20000, lambda: str(line))


if __name__ == "__main__":
    harness.main("aws credentials")
