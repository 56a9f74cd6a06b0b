"""fakecloud.py - the places where cloud programs get their credentials from, played on loopback.

    Imds             AWS: instance metadata, IMDSv2        Sts           AWS: AssumeRoleWithWebIdentity, AssumeRole
    EcsCredentials   AWS: container credentials            EksPodIdentity
    GoogleToken      service accounts, refresh tokens, external accounts, impersonation
    GoogleMetadata   GCE metadata server
    AzureAd          client secret, workload identity      AzureImds     managed identity, also of App Service
    BearerGate       a proxy in front of a store that lets through only tokens issued by one of the above

Each is an httpd.Server: rules break it, `requests` and seen() tell what came. `env` is what a program needs to find it, `expiry`
the seconds until what it hands out expires (change it at any time), `issued` what it handed out: for the AWS ones the
s3gate.Credentials that a s3gate.Gate takes (`gate.credentials = imds.issued`), else {token: expiry time}. What a request lacked
is in `problems`, and check() fails if there is any.
"""

import base64
import binascii
import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import time
import urllib.parse
import xml.sax.saxutils

from . import faults, harness, httpd, s3gate
from .httpd import Response

CLOCK_SECONDS = 300
JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN_TYPE = "urn:ietf:params:oauth:token-type:access_token"
JWT_TYPE = "urn:ietf:params:oauth:token-type:jwt"
CLIENT_ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
STORAGE_SCOPES = ("https://www.googleapis.com/auth/cloud-platform", "https://www.googleapis.com/auth/devstorage.read_write",
                  "https://www.googleapis.com/auth/devstorage.full_control")
AZURE_RESOURCE = "https://storage.azure.com"


def rfc3339(seconds):
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def json_response(value, status=200, headers=None):
    return Response(status, {"Content-Type": "application/json", **(headers or {})}, json.dumps(value))


def base64url(data):
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def from_base64url(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


class TokenFile:
    """A file with a token that is replaced from time to time, as an orchestrator does it: by rename."""

    def __init__(self, path):
        self.path = path
        self.value = ""
        self.good = ()
        self.number = 0
        self.rotate()

    def rotate(self, overlap=False):
        """Another token from now on; the old one is not good any more, or with overlap (as real ones) for a while."""
        self.number += 1
        self.value = "file-token-%d-%s" % (self.number, binascii.hexlify(os.urandom(12)).decode())
        with open(self.path + ".new", "w") as file:
            file.write(self.value)
        self.good = (*self.good[-4:], self.value) if overlap else (self.value,)
        os.rename(self.path + ".new", self.path)
        return self.value


class Refusal(Exception):
    """The answer is this response; the text goes to `problems`."""

    def __init__(self, response, problem):
        super().__init__(problem)
        self.response = response


class Endpoint(httpd.Server):
    """What all have in common."""

    def __init__(self, expiry=3600, **options):
        super().__init__(**options)
        self.expiry = expiry
        self.issued = {}
        self.problems = []
        self.dir = ""

    def __enter__(self):
        self.dir = harness.scratch("lj_fakecloud_")
        self.prepare()
        return super().__enter__()

    def __exit__(self, *arguments):
        super().__exit__(*arguments)
        shutil.rmtree(self.dir, ignore_errors=True)

    def prepare(self):
        """Makes what stands in files."""

    @property
    def env(self):
        raise NotImplementedError

    def check(self):
        harness.check(not self.problems, lambda: "%s: %s" % (type(self).__name__, "; ".join(self.problems)))

    def respond(self, request, body, plan):
        data = body.read()
        try:
            response = self.answer(request, data)
        except Refusal as refusal:
            self.problems.append("%s %s: %s" % (request.method, request.target.split("?")[0], refusal))
            response = refusal.response
        response.headers.pairs.append(("Date", faults.http_date()))
        return response

    def answer(self, request, data):
        raise NotImplementedError

    @staticmethod
    def form(request, data):
        """The fields of a form in the body or the query."""
        text = data.decode("utf-8", "replace") or request.query
        return dict(urllib.parse.parse_qsl(text, keep_blank_values=True))

    def new_token(self, kind):
        token = "%s-%d-%s" % (kind, len(self.issued) + 1, binascii.hexlify(os.urandom(16)).decode())
        self.issued[token] = time.time() + self.expiry
        return token


# ---------------------------------------------------------------------------------------------------------------------
# AWS


class AwsEndpoint(Endpoint):
    role = "litejoin-role"
    role_arn = "arn:aws:iam::123456789012:role/litejoin-role"

    def new_credentials(self):
        """(access key, secret key, token, expiry time): a fresh set, which a Gate with `issued` takes until it expires."""
        access_key = "ASIA%016d" % (len(self.issued) + 1)
        # base64 with "/" and "+" in it, as real ones
        secret_key = base64.b64encode(b"\xff\xef" + os.urandom(28)).decode()
        token = base64.b64encode(b"\xff\xef" + os.urandom(94)).decode()
        expires = time.time() + self.expiry
        self.issued[access_key] = s3gate.Credentials(secret_key, token, expires)
        return access_key, secret_key, token, expires

    def credentials_json(self, **more):
        access_key, secret_key, token, expires = self.new_credentials()
        return json_response({**more, "AccessKeyId": access_key, "SecretAccessKey": secret_key, "Token": token,
                              "Expiration": rfc3339(expires)})


class Imds(AwsEndpoint):
    """
    The EC2 metadata service. `v1`: also answers requests without a token. `role` None: the instance has no role.
    `failure`: the Code in a 200 answer, such as AssumeRoleUnauthorizedAccess, instead of credentials.
    """

    TOKEN = "/latest/api/token"
    CREDENTIALS = "/latest/meta-data/iam/security-credentials/"
    region = "us-east-1"

    def __init__(self, v1=False, **options):
        super().__init__(**options)
        self.v1 = v1
        self.failure = None
        self.sessions = {}  # token: expiry time

    @property
    def env(self):
        return {"AWS_EC2_METADATA_SERVICE_ENDPOINT": self.endpoint}

    def answer(self, request, data):
        if request.path == self.TOKEN:
            return self._session(request)
        self._check_session(request)
        if request.method != "GET":
            raise Refusal(Response(405), "method " + request.method)
        if request.path == "/latest/meta-data/placement/region":
            return Response(200, {"Content-Type": "text/plain"}, self.region)
        if self.role and request.path in (self.CREDENTIALS, self.CREDENTIALS.rstrip("/")):
            return Response(200, {"Content-Type": "text/plain"}, self.role)
        if self.role and request.path == self.CREDENTIALS + self.role:
            if self.failure:
                return json_response({"Code": self.failure, "Message": "no luck today", "LastUpdated": rfc3339(time.time())})
            return self.credentials_json(Code="Success", Type="AWS-HMAC", LastUpdated=rfc3339(time.time()))
        return Response(404, {"Content-Type": "text/html"}, "<html>404 - Not Found</html>")

    def _session(self, request):
        if request.method != "PUT":
            raise Refusal(Response(405), "a session token is asked for with PUT")
        if "X-Forwarded-For" in request.headers:
            raise Refusal(Response(403), "came through a proxy (X-Forwarded-For)")
        ttl = request.headers.get("X-aws-ec2-metadata-token-ttl-seconds") or ""
        if not ttl.isdigit() or not 1 <= int(ttl) <= 21600:
            raise Refusal(Response(400), "X-aws-ec2-metadata-token-ttl-seconds: %r" % ttl)
        token = base64.b64encode(os.urandom(40)).decode()
        self.sessions[token] = time.time() + int(ttl)
        return Response(200, {"Content-Type": "text/plain", "X-Aws-Ec2-Metadata-Token-Ttl-Seconds": ttl}, token)

    def _check_session(self, request):
        token = request.headers.get("X-aws-ec2-metadata-token")
        if token is None and self.v1:
            return
        if token is None:
            raise Refusal(Response(401), "no session token")
        if self.sessions.get(token, 0) <= time.time():
            raise Refusal(Response(401), "session token unknown or expired")

    def forget_sessions(self):
        """Session tokens handed out so far are not good any more, as after the instance moved."""
        self.sessions.clear()


class EcsCredentials(AwsEndpoint):
    """
    Container credentials. Who asks has to bring the token of `token_file`, or `token` if that is set; none if not token_needed.
    The relative form has no port: it goes to 169.254.170.2, for which a ForwardProxy can stand in.
    """

    path = "/v2/credentials/8ab0b9d9-7f13-4d8e-a5a0-3f6f3d0f4a1c"

    def __init__(self, token_needed=True, **options):
        super().__init__(**options)
        self.token_needed = token_needed
        self.token = None

    def prepare(self):
        self.token_file = TokenFile(os.path.join(self.dir, "token"))

    @property
    def env(self):
        found = {"AWS_CONTAINER_CREDENTIALS_FULL_URI": self.endpoint + self.path}
        if self.token_needed and self.token:
            found["AWS_CONTAINER_AUTHORIZATION_TOKEN"] = self.token
        elif self.token_needed:
            found["AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"] = self.token_file.path
        return found

    @property
    def env_relative(self):
        found = {key: value for key, value in self.env.items() if not key.endswith("FULL_URI")}
        return {**found, "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": self.path}

    def answer(self, request, data):
        if request.method != "GET" or request.path != self.path:
            raise Refusal(json_response({"code": "NotFound", "message": "no such thing"}, 404), "not the path of credentials")
        if self.token_needed:
            given = request.headers.get("Authorization")
            if given not in ((self.token,) if self.token else self.token_file.good):
                raise Refusal(json_response({"code": "Unauthorized", "message": "wrong token"}, 401),
                              "token %r instead of the current one" % given)
        return self.credentials_json(RoleArn=self.role_arn)


class EksPodIdentity(EcsCredentials):
    """The agent on an EKS node: the same, with a token file, at its own path."""

    path = "/v1/credentials"


class Sts(AwsEndpoint):
    """
    AssumeRoleWithWebIdentity with the current token of `token_file`; AssumeRole if it is signed (which is not checked further).
    `failure` = (status, code) answers with an error, such as (400, "IDPCommunicationError").
    """

    session_name = "litejoin-test"

    def __init__(self, **options):
        super().__init__(**options)
        self.failure = None

    def prepare(self):
        self.token_file = TokenFile(os.path.join(self.dir, "web-identity"))

    @property
    def env(self):
        return {"AWS_WEB_IDENTITY_TOKEN_FILE": self.token_file.path, "AWS_ROLE_ARN": self.role_arn,
                "AWS_ROLE_SESSION_NAME": self.session_name, "AWS_ENDPOINT_URL_STS": self.endpoint}

    @staticmethod
    def _error(status, code, message):
        text = ('<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type><Code>%s</Code>'
                "<Message>%s</Message></Error><RequestId>0a1b2c3d</RequestId></ErrorResponse>") % (
                    code, xml.sax.saxutils.escape(message))
        return Response(status, {"Content-Type": "text/xml"}, text)

    def answer(self, request, data):
        form = self.form(request, data)
        action = form.get("Action")
        if self.failure:
            return self._error(*self.failure, "no luck today")
        if action not in ("AssumeRoleWithWebIdentity", "AssumeRole") or form.get("Version") != "2011-06-15":
            raise Refusal(self._error(400, "InvalidAction", "Could not find operation"), "Action %r, Version %r"
                          % (action, form.get("Version")))
        if form.get("RoleArn") != self.role_arn:
            raise Refusal(self._error(403, "AccessDenied", "not this role"), "RoleArn %r" % form.get("RoleArn"))
        if not form.get("RoleSessionName"):
            raise Refusal(self._error(400, "ValidationError", "roleSessionName"), "no RoleSessionName")
        if action == "AssumeRole":
            if not (request.headers.get("Authorization") or "").startswith("AWS4-HMAC-SHA256 "):
                raise Refusal(self._error(403, "MissingAuthenticationToken", "not signed"), "AssumeRole is not signed")
        elif form.get("WebIdentityToken") not in self.token_file.good:
            raise Refusal(self._error(400, "InvalidIdentityToken", "The token is not the current one"),
                          "WebIdentityToken %r instead of the current one" % form.get("WebIdentityToken"))
        access_key, secret_key, token, expires = self.new_credentials()
        text = ('<%sResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><%sResult><AssumedRoleUser><Arn>%s/%s</Arn>'
                "<AssumedRoleId>AROA:x</AssumedRoleId></AssumedRoleUser><Credentials><AccessKeyId>%s</AccessKeyId>"
                "<SecretAccessKey>%s</SecretAccessKey><SessionToken>%s</SessionToken><Expiration>%s</Expiration></Credentials>"
                "</%sResult><ResponseMetadata><RequestId>0a1b2c3d</RequestId></ResponseMetadata></%sResponse>") % (
                    action, action, self.role_arn.replace(":iam:", ":sts:"), form["RoleSessionName"], access_key, secret_key,
                    token, rfc3339(expires), action, action)
        return Response(200, {"Content-Type": "text/xml"}, text)


# ---------------------------------------------------------------------------------------------------------------------
# Google


class GoogleToken(Endpoint):
    """
    The OAuth2 token endpoint, the STS of external accounts and the IAM of impersonation, in one. The files it makes are what
    GOOGLE_APPLICATION_CREDENTIALS names: service_account_file(), authorized_user_file(), external_account_file().
    """

    email = "litejoin@test-project.iam.gserviceaccount.com"
    client_id = "1234.apps.googleusercontent.com"
    client_secret = "a client secret"
    audience = "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/pool/providers/provider"

    def prepare(self):
        self.key_id = "0123456789abcdef0123456789abcdef01234567"
        self.key_file = os.path.join(self.dir, "key.pem")
        self.public_key_file = os.path.join(self.dir, "public.pem")
        self._openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", self.key_file)
        self._openssl("pkey", "-in", self.key_file, "-pubout", "-out", self.public_key_file)
        self.refresh_token = "1//refresh-" + binascii.hexlify(os.urandom(8)).decode()
        self.token_file = TokenFile(os.path.join(self.dir, "subject-token"))

    @staticmethod
    def _openssl(*arguments):
        return subprocess.run(["openssl", *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL, check=True).stdout

    def _write(self, name, value):
        path = os.path.join(self.dir, name)
        with open(path, "w") as file:
            json.dump(value, file, indent=2)
        return path

    def service_account_file(self):
        with open(self.key_file) as file:
            key = file.read()
        return self._write("service_account.json", {
            "type": "service_account", "project_id": "test-project", "private_key_id": self.key_id, "private_key": key,
            "client_email": self.email, "client_id": "103", "auth_uri": self.endpoint + "/auth",
            "token_uri": self.endpoint + "/token", "universe_domain": "googleapis.com"})

    def authorized_user_file(self):
        return self._write("authorized_user.json", {
            "type": "authorized_user", "client_id": self.client_id, "client_secret": self.client_secret,
            "refresh_token": self.refresh_token, "token_uri": self.endpoint + "/token"})

    def external_account_file(self, impersonate=False, as_json=False):
        """Workload identity federation with a token in a file, as text or as a field of a JSON document."""
        source = {"file": self.token_file.path}
        if as_json:
            source = {"file": self._write("subject.json", {"id_token": self.token_file.value}),
                      "format": {"type": "json", "subject_token_field_name": "id_token"}}
        value = {"type": "external_account", "audience": self.audience, "subject_token_type": JWT_TYPE,
                 "token_url": self.endpoint + "/v1/token", "credential_source": source}
        if impersonate:
            value["service_account_impersonation_url"] = self.endpoint + self._impersonation()
        return self._write("external_account.json", value)

    def _impersonation(self):
        return "/v1/projects/-/serviceAccounts/%s:generateAccessToken" % self.email

    @property
    def env(self):
        return {"GOOGLE_APPLICATION_CREDENTIALS": self.service_account_file()}

    @staticmethod
    def _refuse(error, problem, status=400):
        raise Refusal(json_response({"error": error, "error_description": problem}, status), problem)

    def answer(self, request, data):
        if request.method != "POST":
            self._refuse("invalid_request", "method " + request.method, 405)
        if request.key == self._impersonation():
            return self._impersonate(request, data)
        form = self.form(request, data)
        grant = form.get("grant_type")
        if request.path == "/token" and grant == JWT_BEARER:
            self._check_assertion(form.get("assertion") or "")
        elif request.path == "/token" and grant == "refresh_token":
            wanted = {"client_id": self.client_id, "client_secret": self.client_secret, "refresh_token": self.refresh_token}
            for name, value in wanted.items():
                if form.get(name) != value:
                    self._refuse("invalid_grant", "%s is %r" % (name, form.get(name)))
        elif request.path == "/v1/token" and grant == TOKEN_EXCHANGE:
            self._check_exchange(form)
            return json_response({"access_token": self.new_token("federated"), "issued_token_type": ACCESS_TOKEN_TYPE,
                                  "token_type": "Bearer", "expires_in": int(self.expiry)})
        else:
            self._refuse("unsupported_grant_type", "%s with grant_type %r" % (request.path, grant))
        return json_response({"access_token": self.new_token("ya29"), "expires_in": int(self.expiry), "token_type": "Bearer"})

    def _check_assertion(self, assertion):
        try:
            head, claims, signature = assertion.split(".")
            header, values = json.loads(from_base64url(head)), json.loads(from_base64url(claims))
            raw = from_base64url(signature)
        except ValueError:
            self._refuse("invalid_grant", "the assertion is no JWT: %r" % assertion[:60])
        if "=" in assertion or header.get("alg") != "RS256" or header.get("typ") != "JWT":
            self._refuse("invalid_grant", "head of the JWT: %r" % header)
        if header.get("kid") not in (None, self.key_id):
            self._refuse("invalid_grant", "key id %r" % header["kid"])
        with contextlib.ExitStack() as stack:
            files = [stack.enter_context(tempfile.NamedTemporaryFile(dir=self.dir)) for _ in range(2)]
            for file, content in zip(files, ((head + "." + claims).encode(), raw)):
                file.write(content)
                file.flush()
            try:
                self._openssl("dgst", "-sha256", "-verify", self.public_key_file, "-signature", files[1].name, files[0].name)
            except subprocess.CalledProcessError:
                self._refuse("invalid_grant", "Invalid JWT Signature.")
        if values.get("iss") != self.email:
            self._refuse("invalid_grant", "iss is %r" % values.get("iss"))
        if values.get("aud") != self.endpoint + "/token":
            self._refuse("invalid_grant", "aud is %r" % values.get("aud"))
        if not set(str(values.get("scope")).split()) & set(STORAGE_SCOPES):
            self._refuse("invalid_scope", "scope is %r" % values.get("scope"))
        issued, expires = values.get("iat"), values.get("exp")
        if not isinstance(issued, int) or not isinstance(expires, int) or not 0 < expires - issued <= 3600 or (
                abs(issued - time.time()) > CLOCK_SECONDS):
            self._refuse("invalid_grant", "iat %r, exp %r" % (issued, expires))

    def _check_exchange(self, form):
        wanted = {"audience": self.audience, "subject_token": self.token_file.value, "subject_token_type": JWT_TYPE,
                  "requested_token_type": ACCESS_TOKEN_TYPE}
        for name, value in wanted.items():
            if form.get(name) != value:
                self._refuse("invalid_grant", "%s is %r instead of %r" % (name, form.get(name), value))
        if not form.get("scope"):
            self._refuse("invalid_scope", "no scope")

    def _impersonate(self, request, data):
        token = (request.headers.get("Authorization") or "").removeprefix("Bearer ")
        if self.issued.get(token, 0) <= time.time():
            self._refuse("unauthenticated", "impersonation with the token %r" % token, 401)
        try:
            scopes = json.loads(data or b"{}").get("scope") or ()
        except ValueError:
            self._refuse("invalid_request", "the body of generateAccessToken is no JSON")
        if not set(scopes) & set(STORAGE_SCOPES):
            self._refuse("invalid_scope", "scope is %r" % (scopes,), 403)
        return json_response({"accessToken": self.new_token("impersonated"), "expireTime": rfc3339(time.time() + self.expiry)})


class GoogleMetadata(Endpoint):
    """The metadata server of a GCE machine."""

    TOKEN = "/computeMetadata/v1/instance/service-accounts/default/token"

    @property
    def env(self):
        return {"GCE_METADATA_HOST": "127.0.0.1:%d" % self.port}

    def answer(self, request, data):
        headers = {"Metadata-Flavor": "Google", "Server": "Metadata Server for VM"}
        if request.path == "/":
            return Response(200, {**headers, "Content-Type": "application/text"}, "computeMetadata/\n")
        if request.headers.get("Metadata-Flavor") != "Google":
            raise Refusal(Response(403, headers, "Missing Metadata-Flavor:Google header."), "no Metadata-Flavor: Google")
        if "X-Forwarded-For" in request.headers:
            raise Refusal(Response(403, headers), "came through a proxy (X-Forwarded-For)")
        if request.path == self.TOKEN:
            return json_response({"access_token": self.new_token("gce"), "expires_in": int(self.expiry), "token_type": "Bearer"},
                                 headers=headers)
        if request.path == "/computeMetadata/v1/project/project-id":
            return Response(200, headers, "test-project")
        return Response(404, headers)


# ---------------------------------------------------------------------------------------------------------------------
# Azure


class AzureEndpoint(Endpoint):
    tenant = "11111111-2222-3333-4444-555555555555"
    client_id = "66666666-7777-8888-9999-000000000000"

    def new_jwt(self):
        """A token as Azurite takes it: it looks at the claims, not at the signature."""
        now = int(time.time())
        claims = {"aud": AZURE_RESOURCE, "iss": "https://sts.windows.net/%s/" % self.tenant, "iat": now - 5, "nbf": now - 5,
                  "exp": int(now + self.expiry), "appid": self.client_id, "oid": self.client_id, "sub": self.client_id,
                  "tid": self.tenant, "ver": "1.0", "uti": binascii.hexlify(os.urandom(8)).decode()}
        parts = [base64url(json.dumps(part).encode()) for part in ({"alg": "RS256", "typ": "JWT", "kid": "test"}, claims)]
        token = ".".join([*parts, base64url(os.urandom(256))])
        self.issued[token] = time.time() + self.expiry
        return token, claims


class AzureAd(AzureEndpoint):
    """The token endpoint of a tenant: a client secret (`env`), or a federated token from a file (`env_workload`)."""

    client_secret = "a~client+secret/with=signs&"

    def prepare(self):
        self.token_file = TokenFile(os.path.join(self.dir, "federated-token"))

    @property
    def env(self):
        return {"AZURE_TENANT_ID": self.tenant, "AZURE_CLIENT_ID": self.client_id, "AZURE_CLIENT_SECRET": self.client_secret,
                "AZURE_AUTHORITY_HOST": self.endpoint}

    @property
    def env_workload(self):
        return {"AZURE_TENANT_ID": self.tenant, "AZURE_CLIENT_ID": self.client_id, "AZURE_AUTHORITY_HOST": self.endpoint,
                "AZURE_FEDERATED_TOKEN_FILE": self.token_file.path}

    @staticmethod
    def _refuse(error, number, problem, status=400):
        raise Refusal(json_response({"error": error, "error_description": "AADSTS%d: %s" % (number, problem),
                                     "error_codes": [number]}, status), problem)

    def answer(self, request, data):
        if request.method != "POST" or request.path != "/%s/oauth2/v2.0/token" % self.tenant:
            self._refuse("invalid_request", 90002, "%s %s" % (request.method, request.path), 404)
        form = self.form(request, data)
        if form.get("grant_type") != "client_credentials":
            self._refuse("unsupported_grant_type", 70003, "grant_type is %r" % form.get("grant_type"))
        if form.get("client_id") != self.client_id:
            self._refuse("unauthorized_client", 700016, "client_id is %r" % form.get("client_id"))
        if form.get("scope") != AZURE_RESOURCE + "/.default":
            self._refuse("invalid_scope", 70011, "scope is %r" % form.get("scope"))
        if "client_assertion" in form:
            if form.get("client_assertion_type") != CLIENT_ASSERTION_TYPE:
                self._refuse("invalid_request", 900144, "client_assertion_type is %r" % form.get("client_assertion_type"))
            if form["client_assertion"] not in self.token_file.good:
                self._refuse("invalid_client", 700024, "client_assertion %r instead of the current one"
                             % form["client_assertion"], 401)
        elif form.get("client_secret") != self.client_secret:
            self._refuse("invalid_client", 7000215, "client_secret is %r" % form.get("client_secret"), 401)
        token, _ = self.new_jwt()
        return json_response({"token_type": "Bearer", "expires_in": int(self.expiry), "ext_expires_in": int(self.expiry),
                              "access_token": token})


class AzureImds(AzureEndpoint):
    """Managed identity: of a virtual machine (`env`), and of App Service with its own header (`env_app_service`)."""

    VM = "/metadata/identity/oauth2/token"
    APP_SERVICE = "/msi/token"
    secret = "853b9a84-5bfa-4b22-a3f3-0b9a43d9ad8a"

    def __init__(self, identity=None, **options):
        """`identity`: the client_id of a user-assigned identity that has to be asked for; None: the system's own."""
        super().__init__(**options)
        self.identity = identity

    @property
    def env(self):
        return {"AZURE_POD_IDENTITY_AUTHORITY_HOST": self.endpoint}

    @property
    def env_app_service(self):
        return {"IDENTITY_ENDPOINT": self.endpoint + self.APP_SERVICE, "IDENTITY_HEADER": self.secret}

    @staticmethod
    def _refuse(problem, status=400, error="invalid_request"):
        raise Refusal(json_response({"error": error, "error_description": problem}, status), problem)

    def answer(self, request, data):
        if request.method != "GET" or request.path not in (self.VM, self.APP_SERVICE):
            self._refuse("%s %s" % (request.method, request.path), 404)
        args = request.args
        if request.path == self.VM:
            if (request.headers.get("Metadata") or "").lower() != "true":
                self._refuse("no Metadata: true")
            if "X-Forwarded-For" in request.headers:
                self._refuse("came through a proxy (X-Forwarded-For)")
            if args.get("api-version") != "2018-02-01":
                self._refuse("api-version is %r" % args.get("api-version"))
        else:
            if request.headers.get("X-IDENTITY-HEADER") != self.secret:
                self._refuse("X-IDENTITY-HEADER is %r" % request.headers.get("X-IDENTITY-HEADER"), 401)
            if args.get("api-version") != "2019-08-01":
                self._refuse("api-version is %r" % args.get("api-version"))
        if (args.get("resource") or "").rstrip("/") != AZURE_RESOURCE:
            self._refuse("resource is %r" % args.get("resource"))
        if args.get("client_id") != self.identity:
            self._refuse("client_id is %r" % args.get("client_id"), error="identity_not_found")
        token, claims = self.new_jwt()
        # numbers as text, as the real one has it
        return json_response({"access_token": token, "client_id": self.client_id, "expires_in": str(int(self.expiry)),
                              "expires_on": str(claims["exp"]), "not_before": str(claims["nbf"]), "resource": args["resource"],
                              "token_type": "Bearer"})


# ---------------------------------------------------------------------------------------------------------------------


class BearerGate(faults.Proxy):
    """In front of a store that takes any token (fake-gcs-server): only those that `issuers` handed out, until they expire."""

    def __init__(self, upstream, *issuers, **options):
        super().__init__(upstream, **options)
        self.issuers = issuers
        self.refused = 0

    def respond(self, request, body, plan):
        token = (request.headers.get("Authorization") or "").removeprefix("Bearer ")
        if not any(issuer.issued.get(token, 0) > time.time() for issuer in self.issuers):
            self.refused += 1
            body.drain()
            action = faults.gcs_error(401, "authError", "Invalid Credentials",
                                      headers={"WWW-Authenticate": 'Bearer realm="https://accounts.google.com/"'})
            return action.answer(request)
        return super().respond(request, body, plan)
