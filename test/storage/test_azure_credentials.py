#!/usr/bin/python3
"""
test_azure_credentials.py - bearer tokens of Microsoft Entra ID, from endpoints played on loopback, used on an Azurite that checks
their claims and their expiry.
"""
# timeout: 1200

import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from azurekit import Shell, conformance, read, write  # noqa: E402
from ljtest import fakecloud, faults, harness, httpd, servers, tls  # noqa: E402
from ljtest.harness import check, check_equal, test  # noqa: E402

BOX = "lj-box"
MIB = 1 << 20
DENIED = "permission denied"
UNAVAILABLE = "service unavailable"
DEAD = "http://127.0.0.1:1"


class Opened:
    """Azurite over TLS with bearer tokens, and a container; with a proxy in front on request."""

    def __init__(self, t, proxied=False):
        self.t = t
        authority = tls.Authority(t.path("ca"))
        self.store = servers.Azurite(tls=authority, oauth=True)
        self.trust = {"SSL_CERT_FILE": authority.ca_file}
        self.enter(self.store)
        self.store.make_bucket(BOX)
        self.endpoint = self.store.endpoint
        if proxied:
            self.proxy = self.enter(faults.Proxy(self.store.endpoint))
            self.endpoint = "%s/%s" % (self.proxy.endpoint, self.store.account)

    def enter(self, server):
        server.__enter__()
        self.t.cleanup(server.__exit__, None, None, None)
        return server

    def url(self, prefix="p"):
        return "abs://%s@%s/%s?endpoint=%s" % (self.store.account, BOX, prefix, self.endpoint)

    def shell(self, env, **options):
        shell = Shell(self.t, self.url(), env={**self.trust, **env}, **options)
        check_equal(shell.opened["code"], "ok", "opening")
        return shell


def tokens_of(server):
    return list(server.issued)


def works_for(shell, t, seconds, step=0.2, between=lambda: None):
    """Puts and reads, one after another, for a while; nothing may fail."""
    small = write(t, "small", 3000)
    end = time.monotonic() + seconds
    rounds = 0
    while time.monotonic() < end:
        between()
        shell.good("put", "k%d" % rounds, small)
        shell.good("get", "k%d" % rounds, t.path("out"))
        check_equal(read(t.path("out")), read(small), "content")
        rounds += 1
        time.sleep(step)
    return rounds


# ---------------------------------------------------------------------------------------------------------------------
# client secret


@test(timeout=200)
def conformance_with_a_client_secret(t):
    at = Opened(t)
    ad = at.enter(fakecloud.AzureAd())
    conformance(t, at.url("x"), env={**at.trust, **ad.env}, keys=300, size=20 * MIB)
    ad.check()
    check_equal(len(ad.requests), 1, "tokens fetched by eight threads")


@test()
def a_wrong_client_secret(t):
    at = Opened(t)
    ad = at.enter(fakecloud.AzureAd())
    shell = at.shell({**ad.env, "AZURE_CLIENT_SECRET": "not-the-secret-of-this-application"})
    for command in (("head", "a"), ("get", "a", t.path("out")), ("list", ""), ("delete", "a"),
                    ("absent", "a", write(t, "small", 10))):
        got = shell.fails(DENIED, *command, says="client secret", hint="AZURE_CLIENT_SECRET is wrong")
        check(got["retryable"], "not retryable: %s" % got)
    shell.never_said("not-the-secret-of-this-application", ad.client_secret)


@test()
def an_authority_that_fails(t):
    at = Opened(t)
    ad = at.enter(fakecloud.AzureAd())
    shell = at.shell(ad.env, timeout_ms=3000)
    for action, code in ((faults.status(429, retry_after=5), UNAVAILABLE), (faults.status(503), UNAVAILABLE),
                         (faults.status(404), DENIED), (faults.status(200, {}, b"<html>log in</html>"), UNAVAILABLE),
                         (faults.status(200, {}, b'{"access_token": "x"}'), UNAVAILABLE),
                         (faults.status(302, {"Location": "http://127.0.0.1:1/"}), UNAVAILABLE),
                         (faults.reset_before(), UNAVAILABLE), (faults.black_hole(), "timed out")):
        ad.clear()
        ad.add(action)
        begin = time.monotonic()
        got = shell.fails(code, "head", "a", says="token from a client secret")
        check(got["retryable"], "%s: not retryable: %s" % (action.name, got))
        check(time.monotonic() - begin < 20, "%s: %.1f s" % (action.name, time.monotonic() - begin))
        check_equal(got["retry_after_ms"], 5000 if got["http_status"] == 429 else 0, action.name)
    ad.clear()
    shell.good("list", "")
    shell.never_said(ad.client_secret, *tokens_of(ad))


# ---------------------------------------------------------------------------------------------------------------------
# workload identity


@test()
def a_workload_identity_with_a_rotating_file(t):
    at = Opened(t)
    ad = at.enter(fakecloud.AzureAd(expiry=2))
    shell = at.shell(ad.env_workload)
    last = [ad.token_file.value]
    works_for(shell, t, 7, between=lambda: last.append(ad.token_file.rotate(overlap=True)))
    ad.check()
    check(3 <= len(ad.requests) <= 8, "%d tokens in 7 s, of 2 s each" % len(ad.requests))
    shell.never_said(*last, *tokens_of(ad))


@test()
def a_token_file_that_comes_later(t):
    at = Opened(t)
    ad = at.enter(fakecloud.AzureAd())
    path = ad.token_file.path
    os.rename(path, path + ".away")
    shell = at.shell(ad.env_workload)
    for command in (("head", "a"), ("delete", "a"), ("list", "")):
        got = shell.fails(DENIED, *command, says="AZURE_FEDERATED_TOKEN_FILE", hint="workload identity")
        check(got["retryable"], "not retryable: %s" % got)
    open(path, "w").close()
    shell.fails("invalid argument or configuration", "head", "a", says="is empty")
    with open(path, "w") as file:
        file.write(ad.token_file.value + "\n")
    shell.fails("not found", "head", "a")
    ad.check()


# ---------------------------------------------------------------------------------------------------------------------
# managed identity


@test()
def a_managed_identity_with_short_tokens(t):
    at = Opened(t)
    imds = at.enter(fakecloud.AzureImds(expiry=2))
    # a proxy for everything else must not be asked for the metadata service
    shell = at.shell({**imds.env, "http_proxy": DEAD, "HTTP_PROXY": DEAD})
    works_for(shell, t, 7)
    imds.check()
    check(3 <= len(imds.requests) <= 8, "%d tokens in 7 s, of 2 s each" % len(imds.requests))
    shell.never_said(*tokens_of(imds))


@test()
def a_user_assigned_identity(t):
    at = Opened(t)
    imds = at.enter(fakecloud.AzureImds(identity="0f0f-client"))
    at.shell({**imds.env, "AZURE_CLIENT_ID": "0f0f-client"}).good("list", "")
    imds.check()
    shell = at.shell({**imds.env, "AZURE_CLIENT_ID": "another"})
    got = shell.fails(DENIED, "head", "a", says="identity_not_found", hint="AZURE_CLIENT_ID")
    check(got["retryable"], "not retryable: %s" % got)


@test()
def an_identity_of_app_service(t):
    at = Opened(t)
    imds = at.enter(fakecloud.AzureImds())
    shell = at.shell({**imds.env_app_service, "AZURE_POD_IDENTITY_AUTHORITY_HOST": DEAD})
    shell.good("list", "")
    imds.check()
    check_equal([request.path for request in imds.requests], [imds.APP_SERVICE], "paths")
    shell.never_said(imds.secret, *tokens_of(imds))


@test()
def a_metadata_service_that_is_dead(t):
    """Refused, silent, dribbling or not there: told within five seconds, with what can be done."""
    at = Opened(t)

    class Silent(httpd.Server):
        def __init__(self):
            super().__init__()
            self.on_connect = "hang"

    silent = at.enter(Silent())
    slow = at.enter(fakecloud.AzureImds())
    slow.add(faults.slow(20))
    for name, host, code in (("refused", DEAD, UNAVAILABLE), ("silent", silent.endpoint, "timed out"),
                             ("dribbling", slow.endpoint, "timed out")):
        with t.part(name):
            shell = at.shell({"AZURE_POD_IDENTITY_AUTHORITY_HOST": host})
            for command in (("head", "a"), ("put", "a", write(t, "small", 10))):
                begin = time.monotonic()
                got = shell.fails(code, *command, says="token from a managed identity", hint="no Azure credentials")
                check(time.monotonic() - begin < 20, "took %.1f s" % (time.monotonic() - begin))
                check(got["retryable"], "not retryable: %s" % got)
    with t.part("being updated"):
        imds = at.enter(fakecloud.AzureImds())
        shell = at.shell(imds.env)
        for status in (404, 410, 429, 500, 503):
            imds.clear()
            imds.add(faults.status(status))
            got = shell.fails(UNAVAILABLE, "head", "a", says="HTTP %d" % status)
            check(got["retryable"], "not retryable: %s" % got)
        imds.clear()
        shell.good("list", "")


# ---------------------------------------------------------------------------------------------------------------------
# what the store says of a token


@test()
def a_token_that_the_store_refuses_is_fetched_anew(t):
    at = Opened(t, proxied=True)
    ad = at.enter(fakecloud.AzureAd())
    shell = at.shell(ad.env)
    small = write(t, "small", 1000)
    shell.good("put", "a", small)
    refusal = faults.azure_error("InvalidAuthenticationInfo", headers={"WWW-Authenticate": "Bearer"})
    old = tokens_of(ad)[0]
    at.proxy.add(refusal, test=lambda request: request.headers.get("Authorization") == "Bearer " + old)
    before = len(at.proxy.requests)
    shell.good("absent", "b", small)
    check_equal(at.store.read(BOX, "p/b"), read(small), "content")
    check_equal((len(ad.requests), len(at.proxy.requests) - before), (2, 2), "tokens, requests")
    at.proxy.clear()
    at.proxy.add(refusal)
    got = shell.fails(DENIED, "head", "b", hint="client secret")
    check(got["retryable"], "not retryable: %s" % got)
    check_equal((len(ad.requests), len(at.proxy.requests) - before), (3, 4), "tokens, requests: once more and no more")
    shell.never_said(*tokens_of(ad))


@test()
def an_identity_without_the_role(t):
    at = Opened(t, proxied=True)
    ad = at.enter(fakecloud.AzureAd())
    at.proxy.add(faults.azure_error("AuthorizationPermissionMismatch", 403))
    shell = at.shell(ad.env)
    shell.fails(DENIED, "list", "", says="AuthorizationPermissionMismatch", hint="Storage Blob Data Contributor")
    check_equal(len(ad.requests), 1, "tokens: it is not the token's fault")


@test()
def tokens_do_not_go_over_plain_http(t):
    ad = fakecloud.AzureAd()
    ad.__enter__()
    t.cleanup(ad.__exit__, None, None, None)
    shell = Shell(t, "abs://acct@%s?endpoint=http://store.example" % BOX, env=ad.env)
    check_equal(shell.opened["code"], "invalid argument or configuration", "code")
    check("https" in shell.opened["hint"], "hint: %s" % shell.opened)
    check_equal(len(ad.requests), 0, "tokens")


if __name__ == "__main__":
    harness.main("azure credentials")
