/*
 * aws_sts.c - roles by AWS STS: AssumeRoleWithWebIdentity with a token out of a file, AssumeRole with other credentials.
 *
 * A request is tried once; whoever wants credentials tries again in his own time. Only an AssumeRole that was refused for a
 * wrong clock is signed anew, with the service's time.
 *
 * Layer: storage. Source: AWS STS API reference, version 2011-06-15.
 */
#include "vfs/storage/auth/aws_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vfs/base/buf.h"
#include "vfs/base/clock.h"
#include "vfs/base/str.h"
#include "vfs/storage/auth/crypto.h"
#include "vfs/storage/auth/sigv4.h"
#include "vfs/storage/url.h"

#define API_VERSION    "2011-06-15"
#define GLOBAL_REGION  "us-east-1"
#define CONTENT_TYPE   "application/x-www-form-urlencoded; charset=utf-8"
#define TOKEN_FILE_MAX ((size_t)32 * 1024)
#define BODY_MAX       ((size_t)128 * 1024)
#define ANSWER_MAX     ((size_t)128 * 1024)
#define SIGN_SKEW_NS   (240 * LJ_NS_PER_S)
#define AUTH_MAX       ((size_t)8 * 1024)

typedef struct {
    const lj_aws_source *source;
    const char *action;
    const lj_token *with; /* NULL: not signed */
    char *url;
    char *host; /* as in the Host header */
    lj_buf body;
    lj_http_response response;
    lj_error *err;
} call;

/* ---- the endpoint ---- */

/* The suffix of a partition's host names. */
static const char *domain_of(const char *region)
{
    static const struct {
        const char *prefix;
        const char *domain;
    } partitions[] = {
        {"cn-", "amazonaws.com.cn"},    {"us-iso-", "c2s.ic.gov"},
        {"us-isob-", "sc2s.sgov.gov"},  {"us-isof-", "csp.hci.ic.gov"},
        {"eu-isoe-", "cloud.adc-e.uk"}, {"eusc-", "amazonaws.eu"},
    };
    for (size_t i = 0; i < LJ_ARRAY_LEN(partitions); i++) {
        if (lj_str_starts(region, partitions[i].prefix))
            return partitions[i].domain;
    }
    return "amazonaws.com"; /* GovCloud too */
}

/* Without a region: the global service, which is the one of us-east-1. */
static const char *signing_region(const lj_aws_source *source)
{
    return source->region != NULL && strcmp(source->region, "aws-global") != 0 ? source->region
                                                                               : GLOBAL_REGION;
}

static lj_code own_endpoint(call *c)
{
    const char *region = c->source->region;
    bool global = region == NULL || strcmp(region, "aws-global") == 0;
    c->host = global ? lj_str_dup("sts.amazonaws.com")
                     : lj_str_printf("sts.%s.%s", region, domain_of(region));
    c->url = c->host != NULL ? lj_str_printf("https://%s/", c->host) : NULL;
    return c->url == NULL ? lj_error_nomem(c->err) : LJ_OK;
}

static lj_code given_endpoint(call *c)
{
    lj_url url;
    lj_code code = lj_url_parse(c->source->sts_endpoint, &url, c->err);
    if (code != LJ_OK)
        return lj_error_context(c->err, "AWS_ENDPOINT_URL_STS");
    bool web = strcmp(url.scheme, "http") == 0 || strcmp(url.scheme, "https") == 0;
    bool plain = url.path[0] == 0 || strcmp(url.path, "/") == 0;
    if (!web || !plain || url.host[0] == 0 || url.user != NULL || url.query != NULL) {
        code =
            lj_error_set(c->err, LJ_INVALID, "AWS_ENDPOINT_URL_STS is not http(s)://host[:port]");
    } else {
        const char *open = strchr(url.host, ':') != NULL ? "[" : "";
        const char *close = open[0] != 0 ? "]" : "";
        c->host = url.port != 0
                      ? lj_str_printf("%s%s%s:%u", open, url.host, close, (unsigned)url.port)
                      : lj_str_printf("%s%s%s", open, url.host, close);
        c->url = c->host != NULL ? lj_str_printf("%s://%s/", url.scheme, c->host) : NULL;
        code = c->url == NULL ? lj_error_nomem(c->err) : LJ_OK;
    }
    lj_url_free(&url);
    return code;
}

/* ---- the request ---- */

static lj_code add(call *c, const char *name, const char *value)
{
    LJ_TRY(lj_buf_printf(&c->body, c->err, "&%s=", name));
    return lj_url_encode(&c->body, value, false, c->err);
}

static lj_code begin(call *c, const lj_aws_role *role)
{
    const lj_aws_source *source = c->source;
    char name[64];
    LJ_TRY(source->sts_endpoint != NULL ? given_endpoint(c) : own_endpoint(c));
    /* neither moves, so that no copy of a secret is left behind */
    LJ_TRY(lj_buf_reserve(&c->body, BODY_MAX, c->err));
    LJ_TRY(lj_buf_reserve(&c->response.body, ANSWER_MAX, c->err));
    LJ_TRY(lj_buf_printf(&c->body, c->err, "Action=%s&Version=" API_VERSION, c->action));
    LJ_TRY(add(c, "RoleArn", role->arn));
    snprintf(name, sizeof(name), "litejoin-vfs-%lld",
             (long long)(lj_clock_wall_ns() / LJ_NS_PER_S));
    LJ_TRY(add(c, "RoleSessionName", role->session_name != NULL ? role->session_name : name));
    if (role->duration_s > 0) {
        snprintf(name, sizeof(name), "%llu", (unsigned long long)role->duration_s);
        LJ_TRY(add(c, "DurationSeconds", name));
    }
    return role->external_id != NULL ? add(c, "ExternalId", role->external_id) : LJ_OK;
}

static void finish(call *c)
{
    free(c->url);
    free(c->host);
    lj_wipe(c->body.data, c->body.len);
    lj_buf_free(&c->body);
    lj_http_response_free(&c->response);
}

/* "Authorization: ..." for this time. */
static lj_code sign(const call *c, const char *date, lj_buf *out)
{
    const lj_secret *values = c->with->values;
    const bool session = lj_secret_is_set(&values[LJ_AWS_SESSION_TOKEN]);
    const lj_sigv4_header headers[] = {
        {"content-type", CONTENT_TYPE},
        {"host", c->host},
        {"x-amz-date", date},
        {"x-amz-security-token", lj_secret_text(&values[LJ_AWS_SESSION_TOKEN])},
    };
    char hash[LJ_SHA256_HEX];
    LJ_TRY(lj_sha256_hex(c->body.data, c->body.len, hash, c->err));
    const lj_sigv4_request request = {.method = "POST",
                                      .path = "/",
                                      .query = "",
                                      .headers = headers,
                                      .header_count = LJ_ARRAY_LEN(headers) - (session ? 0 : 1),
                                      .payload_sha256 = hash,
                                      .date = date,
                                      .region = signing_region(c->source),
                                      .service = "sts"};
    LJ_TRY(lj_buf_printf(out, c->err, "Authorization: "));
    return lj_sigv4_authorization(&request, lj_secret_text(&values[LJ_AWS_KEY_ID]),
                                  lj_secret_text(&values[LJ_AWS_SECRET_KEY]), out, c->err);
}

static lj_code send_once(call *c, int64_t skew_ns)
{
    char date[LJ_SIGV4_DATE_SIZE];
    LJ_CLEANUP(lj_buf_free) lj_buf authorization = LJ_BUF_INIT(AUTH_MAX);
    LJ_CLEANUP(lj_freep) char *host = lj_str_printf("Host: %s", c->host);
    LJ_CLEANUP(lj_wipe_freep) char *token = NULL;
    char date_line[LJ_SIGV4_DATE_SIZE + 16];
    lj_sigv4_date(lj_clock_wall_ns() + skew_ns, date);
    snprintf(date_line, sizeof(date_line), "X-Amz-Date: %s", date);
    const char *headers[6] = {"Content-Type: " CONTENT_TYPE, host};
    if (host == NULL)
        return lj_error_nomem(c->err);
    if (c->with != NULL) {
        LJ_TRY(sign(c, date, &authorization));
        headers[2] = date_line;
        headers[3] = lj_buf_text(&authorization);
        const lj_secret *session = &c->with->values[LJ_AWS_SESSION_TOKEN];
        if (lj_secret_is_set(session)) {
            token = lj_str_printf("X-Amz-Security-Token: %s", lj_secret_text(session));
            if (token == NULL)
                return lj_error_nomem(c->err);
            headers[4] = token;
        }
    }
    const lj_http_request request = {.method = "POST",
                                     .url = c->url,
                                     .headers = headers,
                                     .body = c->body.data,
                                     .body_len = c->body.len,
                                     .body_max = ANSWER_MAX};
    return lj_http_perform(c->source->sts_http, &request, &c->response, c->err);
}

/* ---- the answer ---- */

static void show(char *out, size_t size, const lj_secret *text)
{
    snprintf(out, size, "%s", lj_secret_text(text));
    for (char *c = out; *c != 0; c++)
        *c = *c >= ' ' && *c <= '~' ? *c : '?';
}

static const char *hint_for(const char *code)
{
    static const struct {
        const char *code;
        const char *hint;
    } hints[] = {
        {"ExpiredToken", "the token in the file has expired: whoever writes it has stopped to"},
        {"InvalidIdentityToken",
         "the role's account does not know the token's issuer (its OIDC provider)"},
        {"AccessDenied", "the role's trust policy has to allow it, for this identity"},
        {"RegionDisabled", "STS is switched off for this region; set another in AWS_REGION"},
        {"InvalidClientTokenId", "the keys the role is assumed with are not valid (any more)"},
        {"SignatureDoesNotMatch",
         "the secret key the role is assumed with is wrong, or the clock is"},
    };
    for (size_t i = 0; i < LJ_ARRAY_LEN(hints); i++) {
        if (lj_str_starts(code, hints[i].code))
            return hints[i].hint;
    }
    return NULL;
}

static lj_code refusal(call *c, const lj_aws_sts_answer *answer)
{
    char code[64];
    char message[240];
    char detail[320];
    show(code, sizeof(code), &answer->code);
    show(message, sizeof(message), &answer->message);
    snprintf(detail, sizeof(detail), "%s%s%s", code, code[0] != 0 && message[0] != 0 ? ": " : "",
             message);
    lj_http_status_error(&c->response, c->action, detail, c->err);
    const char *hint = hint_for(code);
    bool busy = lj_str_starts(code, "Throttl") || lj_str_starts(code, "IDPCommunication") ||
                lj_str_starts(code, "RequestLimit");
    int status = c->response.status;
    if (busy)
        c->err->code = LJ_UNAVAILABLE;
    else if (status < 500 && status != 408 && status != 429)
        c->err->code = LJ_DENIED;
    if (hint != NULL)
        lj_error_hint(c->err, "%s", hint);
    /* rights, clocks and tokens come back without a restart */
    return lj_error_retryable(c->err, true);
}

static lj_code take_answer(call *c, lj_token *ret_token)
{
    lj_aws_sts_answer answer = {.key_id = LJ_SECRET_NONE};
    bool good = c->response.status >= 200 && c->response.status < 300;
    lj_code code = lj_aws_sts_read(lj_buf_text(&c->response.body), c->response.body.len, &answer,
                                   good ? c->err : NULL);
    if (!good) {
        code = refusal(c, &answer);
        lj_aws_sts_answer_free(&answer);
        return code;
    }
    int64_t expires_ns = 0;
    if (code == LJ_OK && lj_secret_is_set(&answer.expiration)) {
        code = lj_clock_parse(lj_secret_text(&answer.expiration), &expires_ns, c->err);
        expires_ns -= code == LJ_OK ? lj_aws_clock_skew_ns(&c->response) : 0;
    }
    if (code == LJ_OK)
        code = lj_aws_token_make(
            "the answer", lj_secret_text(&answer.key_id), lj_secret_text(&answer.secret_key),
            lj_secret_text(&answer.session_token), expires_ns, ret_token, c->err);
    lj_aws_sts_answer_free(&answer);
    if (code == LJ_INVALID) {
        c->err->code = LJ_CORRUPT;
        code = lj_error_retryable(c->err, true);
    }
    return code;
}

static lj_code perform(call *c, lj_token *ret_token)
{
    LJ_TRY(send_once(c, 0));
    int64_t skew_ns = lj_aws_clock_skew_ns(&c->response);
    int status = c->response.status;
    if (c->with != NULL && (status == 400 || status == 403) && llabs(skew_ns) > SIGN_SKEW_NS)
        LJ_TRY(send_once(c, skew_ns));
    return take_answer(c, ret_token);
}

static lj_code failed(const call *c, const lj_aws_role *role, lj_code code)
{
    if (code != LJ_CANCELLED && code != LJ_NOMEM)
        lj_error_context(c->err, "AWS credentials of %.100s: role %.150s", c->source->origin,
                         role->arn);
    return code;
}

lj_code lj_aws_sts_web_identity(const lj_aws_source *source, lj_token *ret_token, lj_error *err)
{
    call c = {.source = source,
              .action = "AssumeRoleWithWebIdentity",
              .body = LJ_BUF_INIT(BODY_MAX),
              .response = LJ_HTTP_RESPONSE_INIT,
              .err = err};
    LJ_CLEANUP(lj_secret_free) lj_secret token = LJ_SECRET_NONE;
    lj_code code = begin(&c, &source->web_role);
    if (code == LJ_OK)
        code = lj_aws_read_token_file("the web identity token", source->token_file, TOKEN_FILE_MAX,
                                      &token, err);
    if (code == LJ_OK)
        code = add(&c, "WebIdentityToken", lj_secret_text(&token));
    if (code == LJ_OK)
        code = perform(&c, ret_token);
    finish(&c);
    return code == LJ_OK ? LJ_OK : failed(&c, &source->web_role, code);
}

lj_code lj_aws_sts_assume_role(const lj_aws_source *source, const lj_aws_role *role,
                               const lj_token *with, lj_token *ret_token, lj_error *err)
{
    call c = {.source = source,
              .action = "AssumeRole",
              .with = with,
              .body = LJ_BUF_INIT(BODY_MAX),
              .response = LJ_HTTP_RESPONSE_INIT,
              .err = err};
    lj_code code = begin(&c, role);
    if (code == LJ_OK)
        code = perform(&c, ret_token);
    finish(&c);
    return code == LJ_OK ? LJ_OK : failed(&c, role, code);
}
