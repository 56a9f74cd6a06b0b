/*
 * aws_imds.c - credentials of an EC2 instance's role, from the instance metadata service: version 2, which asks for a session
 * token first.
 *
 * Version 1 is used only where the service does not know version 2 (404 or 405 to the PUT) and nobody forbids it
 * (AWS_EC2_METADATA_V1_DISABLED). The SDKs also go back to it when the PUT is not answered; this does not: what swallows
 * the PUT on a real instance is the hop limit in a container, and the hint says so.
 *
 * Layer: storage. Source: Amazon EC2 User Guide, "Use the Instance Metadata Service".
 */
#include "vfs/storage/auth/aws_metadata.h"

#include <string.h>

#include "vfs/base/str.h"

#define TOKEN_PATH     "/latest/api/token"
#define ROLE_PATH      "/latest/meta-data/iam/security-credentials/"
#define TOKEN_TTL      "X-aws-ec2-metadata-token-ttl-seconds: 300"
#define REQUEST_NS     (1500 * LJ_NS_PER_MS)
#define TOKEN_MAX      1024u
#define ROLE_BYTES_MAX 256

typedef struct {
    const lj_aws_source *source;
    lj_aws_metadata metadata;
    lj_http_response response;
    char *token_header; /* NULL: version 1 */
    lj_error *err;
} session;

static lj_code ask(session *s, const char *method, const char *path, const char *name,
                   const char *header)
{
    size_t len = strlen(s->source->url);
    while (len > 0 && s->source->url[len - 1] == '/')
        len--;
    LJ_CLEANUP(lj_freep)
    char *url = lj_str_printf("%.*s%s%s", (int)len, s->source->url, path, name);
    if (url == NULL)
        return lj_error_nomem(s->err);
    const char *const headers[] = {header, NULL};
    return lj_aws_metadata_ask(&s->metadata, method, url, headers, &s->response, s->err);
}

static lj_code refused(session *s, const char *what)
{
    lj_aws_json_refusal(what, &s->response, s->err);
    return lj_error_retryable(s->err, true);
}

static lj_code get_token(session *s)
{
    lj_code code = ask(s, "PUT", TOKEN_PATH, "", TOKEN_TTL);
    if (code == LJ_TIMEOUT)
        lj_error_hint(s->err, "in a container, the instance's metadata option "
                              "http-put-response-hop-limit has to be 2");
    if (code != LJ_OK)
        return code;
    int status = s->response.status;
    if ((status == 404 || status == 405) && !s->source->imds_v1_disabled)
        return LJ_OK;
    if (status != 200) {
        refused(s, "no session token");
        if (status == 403)
            lj_error_hint(s->err, "the instance's metadata service is switched off");
        return s->err->code;
    }
    const char *token = lj_buf_text(&s->response.body);
    size_t len = strlen(token);
    if (len == 0 || len > TOKEN_MAX || strpbrk(token, "\r\n") != NULL) {
        lj_error_set(s->err, LJ_CORRUPT, "the session token is malformed");
        return lj_error_retryable(s->err, true);
    }
    s->token_header = lj_str_printf("X-aws-ec2-metadata-token: %s", token);
    return s->token_header == NULL ? lj_error_nomem(s->err) : LJ_OK;
}

/* The first line of the list; an instance has one role. */
static lj_code get_role(session *s, char role[ROLE_BYTES_MAX])
{
    LJ_TRY(ask(s, "GET", ROLE_PATH, "", s->token_header));
    if (s->response.status == 404) {
        lj_error_set(s->err, LJ_DENIED, "the instance has no role");
        lj_error_hint(s->err, "attach an instance profile with a role that may use the bucket");
        return lj_error_retryable(s->err, true);
    }
    if (s->response.status != 200)
        return refused(s, "no role");
    const char *text = lj_buf_text(&s->response.body);
    size_t len = strcspn(text, "\r\n");
    size_t clean =
        strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+=,.@_-");
    if (len == 0 || len >= ROLE_BYTES_MAX || clean < len) {
        lj_error_set(s->err, LJ_CORRUPT, "the role's name is malformed");
        return lj_error_retryable(s->err, true);
    }
    memcpy(role, text, len);
    role[len] = 0;
    return LJ_OK;
}

static lj_code get_credentials(session *s, const char *role, lj_token *ret_token)
{
    LJ_TRY(ask(s, "GET", ROLE_PATH, role, s->token_header));
    if (s->response.status != 200)
        return refused(s, "no credentials");
    return lj_aws_json_token(s->source->origin, LJ_AWS_JSON_IMDS, lj_buf_text(&s->response.body),
                             s->response.body.len, lj_aws_clock_skew_ns(&s->response), ret_token,
                             s->err);
}

static lj_code run(session *s, lj_token *ret_token)
{
    char role[ROLE_BYTES_MAX];
    LJ_TRY(get_token(s));
    LJ_TRY(get_role(s, role));
    return get_credentials(s, role, ret_token);
}

/* Nothing else was configured: the error is that, more than that no service answers here. */
static lj_code nothing_configured(const char *why, lj_error *err)
{
    lj_error_set(err, LJ_DENIED,
                 "no AWS credentials: none are configured, and this is no EC2 instance with a role "
                 "(%.200s)",
                 why);
    lj_error_hint(err,
                  "give access-key-id and secret-access-key, or AWS_ACCESS_KEY_ID and "
                  "AWS_SECRET_ACCESS_KEY, or a profile in ~/.aws/credentials, or a role to the "
                  "instance, task or pod");
    return lj_error_retryable(err, true);
}

lj_code lj_aws_imds_fetch(const lj_aws_source *source, lj_token *ret_token, lj_error *err)
{
    lj_error error = LJ_ERROR_INIT;
    if (source->imds_disabled) {
        if (source->nothing_configured)
            return nothing_configured("AWS_EC2_METADATA_DISABLED is set", err);
        lj_error_set(err, LJ_DENIED, "AWS_EC2_METADATA_DISABLED forbids to ask for credentials");
        return lj_error_retryable(err, true);
    }
    session s = {.source = source,
                 .metadata = lj_aws_metadata_begin(source, REQUEST_NS),
                 .response = LJ_HTTP_RESPONSE_INIT,
                 .err = &error};
    s.metadata.no_proxy = true;
    lj_code code = run(&s, ret_token);
    lj_http_response_free(&s.response);
    lj_wipe_freep(&s.token_header);
    if (code == LJ_OK)
        return LJ_OK;
    if (code == LJ_CANCELLED || code == LJ_NOMEM || !source->nothing_configured) {
        if (code != LJ_CANCELLED)
            lj_error_context(&error, "EC2 instance metadata");
        if (err != NULL)
            *err = error;
        return code;
    }
    /* an answer means that there is such a service: then what it said is what counts */
    if (error.http_status != 0 || (code != LJ_UNAVAILABLE && code != LJ_TIMEOUT)) {
        if (err != NULL)
            *err = error;
        return lj_error_context(err,
                                "no AWS credentials are configured, and EC2 instance metadata");
    }
    return nothing_configured(error.message, err);
}
