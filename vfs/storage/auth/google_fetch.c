/*
 * google_fetch.c - see google_internal.h: the requests that bring a token.
 *
 * Layer: storage. Thread-safety: a call is independent of all others. Invariant: bodies and answers are wiped.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "vfs/base/clock.h"
#include "vfs/base/io.h"
#include "vfs/base/str.h"
#include "vfs/storage/auth/crypto.h"
#include "vfs/storage/auth/google_internal.h"
#include "vfs/storage/url.h"

#define FORM_MAX                 ((size_t)1024 * 1024)
#define FORM_ROOM                ((size_t)4096)
#define METADATA_CONNECT_NS      LJ_NS_PER_S
#define METADATA_TOTAL_NS        (10 * LJ_NS_PER_S)
#define TOKEN_TOTAL_NS           (30 * LJ_NS_PER_S)
#define FORM_TYPE                "Content-Type: application/x-www-form-urlencoded"
#define GRANT_JWT                "urn:ietf:params:oauth:grant-type:jwt-bearer"
#define GRANT_EXCHANGE           "urn:ietf:params:oauth:grant-type:token-exchange"
#define ACCESS_TOKEN             "urn:ietf:params:oauth:token-type:access_token"
#define SUBJECT_FILE_IN_MESSAGES 200

/* ---- forms ---- */

static void wipe_buf(lj_buf *buf)
{
    lj_wipe(buf->data, buf->cap);
    lj_buf_free(buf);
}

/* Room for all of it at once: a buffer that grows leaves copies behind. */
static lj_code form_begin(lj_buf *form, size_t secret_bytes, lj_error *err)
{
    return lj_buf_reserve(form, FORM_ROOM + 3 * secret_bytes, err);
}

static lj_code form_add(lj_buf *form, const char *name, const char *value, lj_error *err)
{
    LJ_TRY(lj_buf_printf(form, err, "%s%s=", form->len > 0 ? "&" : "", name));
    return lj_url_encode(form, value, false, err);
}

/* ---- one request ---- */

static lj_code refused(const lj_http_response *response, const char *what, const char *hint,
                       lj_error *err)
{
    char detail[240];
    int status = response->status;
    lj_google_refusal_text(lj_buf_text(&response->body), response->body.len, detail,
                           sizeof(detail));
    lj_code code = lj_http_status_error(response, what, detail, err);
    if (status < 400 || status >= 500 || status == 408 || status == 429)
        return code;
    if (err != NULL)
        err->code = LJ_DENIED;
    (void)lj_error_hint(err, "%s", hint);
    (void)lj_error_retryable(err, true);
    return LJ_DENIED;
}

/* The request failed. An answer that is too large is not the service's, but of something between, and it may go away. */
static lj_code not_asked(lj_code code, const char *what, lj_error *err)
{
    if (code == LJ_CORRUPT)
        (void)lj_error_retryable(err, true);
    (void)lj_error_context(err, "%s", what);
    return code;
}

typedef struct {
    lj_http *http;
    const char *what; /* for messages */
    const char *hint; /* when it is refused */
} service;

static lj_code ask(const service *s, lj_http_request *request, lj_token *ret_token, lj_error *err)
{
    LJ_CLEANUP(lj_http_response_free) lj_http_response response = LJ_HTTP_RESPONSE_INIT;
    int64_t now_ns = lj_clock_wall_ns();
    request->body_max = LJ_GOOGLE_ANSWER_MAX;
    if (request->total_timeout_ns == 0)
        request->total_timeout_ns = TOKEN_TOTAL_NS;
    lj_code code = lj_http_perform(s->http, request, &response, err);
    if (code != LJ_OK)
        return not_asked(code, s->what, err);
    if (response.status / 100 != 2)
        return refused(&response, s->what, s->hint, err);
    return lj_google_answer_parse(lj_buf_text(&response.body), response.body.len, now_ns, ret_token,
                                  err);
}

static lj_code post_form(const service *s, const char *url, const lj_buf *form,
                         const char *authorization, lj_token *ret_token, lj_error *err)
{
    const char *const headers[] = {FORM_TYPE, authorization, NULL};
    lj_http_request request = LJ_HTTP_REQUEST("POST", url);
    request.headers = headers;
    request.body = lj_buf_text(form);
    request.body_len = form->len;
    return ask(s, &request, ret_token, err);
}

static const char *token_url(const lj_google_file *file)
{
    return lj_secret_is_set(&file->token_url) ? lj_secret_text(&file->token_url)
                                              : LJ_GOOGLE_TOKEN_URL;
}

/* ---- the kinds of files ---- */

static lj_code fetch_service_account(lj_http *http, const lj_google_file *file, const char *scope,
                                     lj_token *ret_token, lj_error *err)
{
    const service s = {http, "asking for a token with a service account's key",
                       "the key may be deleted, the account disabled, or this machine's clock "
                       "wrong"};
    LJ_CLEANUP(lj_secret_free) lj_secret jwt = LJ_SECRET_NONE;
    LJ_CLEANUP(wipe_buf) lj_buf form = LJ_BUF_INIT(FORM_MAX);
    LJ_TRY(lj_google_jwt(file, scope, lj_clock_wall_ns(), &jwt, err));
    LJ_TRY(form_begin(&form, jwt.len, err));
    LJ_TRY(form_add(&form, "grant_type", GRANT_JWT, err));
    LJ_TRY(form_add(&form, "assertion", lj_secret_text(&jwt), err));
    return post_form(&s, token_url(file), &form, NULL, ret_token, err);
}

static lj_code fetch_authorized_user(lj_http *http, const lj_google_file *file, lj_token *ret_token,
                                     lj_error *err)
{
    const service s = {http, "asking for a token with a user's credentials",
                       "log in again: gcloud auth application-default login"};
    LJ_CLEANUP(wipe_buf) lj_buf form = LJ_BUF_INIT(FORM_MAX);
    LJ_TRY(form_begin(
        &form, file->client_id.len + file->client_secret.len + file->refresh_token.len, err));
    LJ_TRY(form_add(&form, "grant_type", "refresh_token", err));
    LJ_TRY(form_add(&form, "client_id", lj_secret_text(&file->client_id), err));
    LJ_TRY(form_add(&form, "client_secret", lj_secret_text(&file->client_secret), err));
    LJ_TRY(form_add(&form, "refresh_token", lj_secret_text(&file->refresh_token), err));
    return post_form(&s, token_url(file), &form, NULL, ret_token, err);
}

static lj_code subject_from_file(const lj_google_file *file, lj_secret *ret_subject, lj_error *err)
{
    char *text = NULL;
    size_t len = 0;
    lj_error why = LJ_ERROR_INIT;
    const char *path = lj_secret_text(&file->source_file);
    if (lj_io_read_file(path, LJ_GOOGLE_SUBJECT_MAX, &text, &len, &why) != LJ_OK) {
        lj_error_set(err, LJ_DENIED, "cannot read the external account's token file %.*s: %.200s",
                     SUBJECT_FILE_IN_MESSAGES, path, why.message);
        (void)lj_error_hint(err, "see that what writes the token runs, and that this process may "
                                 "read the file");
        return lj_error_retryable(err, true);
    }
    lj_code code = lj_google_subject_parse(file, text, len, ret_subject, err);
    lj_wipe(text, len);
    free(text);
    return code;
}

static lj_code subject_from_url(lj_http *http, const lj_google_file *file, lj_secret *ret_subject,
                                lj_error *err)
{
    static const char what[] = "asking for the external account's token";
    LJ_CLEANUP(lj_http_response_free) lj_http_response response = LJ_HTTP_RESPONSE_INIT;
    const char *headers[LJ_GOOGLE_HEADERS_MAX + 1] = {NULL};
    for (size_t i = 0; i < LJ_GOOGLE_HEADERS_MAX; i++)
        if (lj_secret_is_set(&file->source_headers[i]))
            headers[i] = lj_secret_text(&file->source_headers[i]);
    lj_http_request request = LJ_HTTP_REQUEST("GET", lj_secret_text(&file->source_url));
    request.headers = headers;
    request.body_max = LJ_GOOGLE_SUBJECT_MAX;
    request.total_timeout_ns = TOKEN_TOTAL_NS;
    request.no_proxy = strncasecmp(request.url, "http://", 7) == 0; /* this machine, or its host */
    lj_code code = lj_http_perform(http, &request, &response, err);
    if (code != LJ_OK)
        return not_asked(code, what, err);
    if (response.status / 100 != 2)
        return refused(&response, what, "look at credential_source in the credentials file", err);
    return lj_google_subject_parse(file, lj_buf_text(&response.body), response.body.len,
                                   ret_subject, err);
}

/* Client authentication, for pools that want it. */
static lj_code basic_header(const lj_google_file *file, char **ret_header, lj_error *err)
{
    if (!lj_secret_is_set(&file->client_id))
        return LJ_OK;
    LJ_CLEANUP(lj_wipe_freep)
    char *pair = lj_str_printf("%s:%s", lj_secret_text(&file->client_id),
                               lj_secret_text(&file->client_secret));
    LJ_CLEANUP(lj_wipe_freep) char *coded = pair != NULL ? lj_base64(pair, strlen(pair)) : NULL;
    *ret_header = coded != NULL ? lj_str_printf("Authorization: Basic %s", coded) : NULL;
    return *ret_header == NULL ? lj_error_nomem(err) : LJ_OK;
}

static lj_code fetch_external_account(lj_http *http, const lj_google_file *file, const char *scope,
                                      lj_token *ret_token, lj_error *err)
{
    const service s = {http, "exchanging the external account's token",
                       "the token may be expired, or the pool's provider does not accept it; see "
                       "workload identity federation"};
    LJ_CLEANUP(lj_secret_free) lj_secret subject = LJ_SECRET_NONE;
    LJ_CLEANUP(wipe_buf) lj_buf form = LJ_BUF_INIT(FORM_MAX);
    LJ_CLEANUP(lj_wipe_freep) char *authorization = NULL;
    if (lj_secret_is_set(&file->source_file))
        LJ_TRY(subject_from_file(file, &subject, err));
    else
        LJ_TRY(subject_from_url(http, file, &subject, err));
    LJ_TRY(basic_header(file, &authorization, err));
    LJ_TRY(form_begin(&form, subject.len + file->audience.len, err));
    LJ_TRY(form_add(&form, "grant_type", GRANT_EXCHANGE, err));
    LJ_TRY(form_add(&form, "requested_token_type", ACCESS_TOKEN, err));
    LJ_TRY(form_add(&form, "audience", lj_secret_text(&file->audience), err));
    LJ_TRY(form_add(&form, "scope", scope, err));
    LJ_TRY(form_add(&form, "subject_token_type", lj_secret_text(&file->subject_token_type), err));
    LJ_TRY(form_add(&form, "subject_token", lj_secret_text(&subject), err));
    if (lj_secret_is_set(&file->workforce_project) && authorization == NULL) {
        char quoted[300];
        lj_str_json(quoted, sizeof(quoted), lj_secret_text(&file->workforce_project));
        LJ_CLEANUP(lj_freep) char *options = lj_str_printf("{\"userProject\":%s}", quoted);
        if (options == NULL)
            return lj_error_nomem(err);
        LJ_TRY(form_add(&form, "options", options, err));
    }
    return post_form(&s, token_url(file), &form, authorization, ret_token, err);
}

static lj_code fetch_base(lj_http *http, const lj_google_file *file, const char *scope,
                          lj_token *ret_token, lj_error *err)
{
    switch (file->kind) {
    case LJ_GOOGLE_AUTHORIZED_USER:
        return fetch_authorized_user(http, file, ret_token, err);
    case LJ_GOOGLE_EXTERNAL_ACCOUNT:
        return fetch_external_account(http, file, scope, ret_token, err);
    case LJ_GOOGLE_SERVICE_ACCOUNT:
    default:
        return fetch_service_account(http, file, scope, ret_token, err);
    }
}

static lj_code impersonate(lj_http *http, const lj_google_file *file, const lj_token *base,
                           lj_token *ret_token, lj_error *err)
{
    const service s = {http, "asking for the impersonated service account's token",
                       "the credentials need the role Service Account Token Creator on that "
                       "account"};
    LJ_CLEANUP(lj_wipe_freep)
    char *authorization =
        lj_str_printf("Authorization: Bearer %s", lj_secret_text(&base->values[LJ_GOOGLE_BEARER]));
    bool delegates = lj_secret_is_set(&file->delegates);
    LJ_CLEANUP(lj_freep)
    char *body =
        lj_str_printf("{\"scope\":[\"" LJ_GOOGLE_SCOPE_STORAGE "\"],\"lifetime\":\"%us\""
                      "%s%s}",
                      (unsigned)file->impersonation_life_s, delegates ? ",\"delegates\":" : "",
                      lj_secret_text(&file->delegates));
    if (authorization == NULL || body == NULL)
        return lj_error_nomem(err);
    const char *const headers[] = {"Content-Type: application/json", authorization, NULL};
    lj_http_request request = LJ_HTTP_REQUEST("POST", lj_secret_text(&file->impersonation_url));
    request.headers = headers;
    request.body = body;
    request.body_len = strlen(body);
    return ask(&s, &request, ret_token, err);
}

lj_code lj_google_fetch(lj_http *http, const lj_google_file *file, lj_token *ret_token,
                        lj_error *err)
{
    if (!lj_secret_is_set(&file->impersonation_url))
        return fetch_base(http, file, LJ_GOOGLE_SCOPE_STORAGE, ret_token, err);
    LJ_CLEANUP(lj_token_free) lj_token base = LJ_TOKEN_INIT;
    LJ_TRY(fetch_base(http, file, LJ_GOOGLE_SCOPE_PLATFORM, &base, err));
    return impersonate(http, file, &base, ret_token, err);
}

/* ---- the metadata server ---- */

lj_code lj_google_fetch_metadata(lj_http *http, const char *host, lj_token *ret_token,
                                 lj_error *err)
{
    static const char *const headers[] = {"Metadata-Flavor: Google", NULL};
    LJ_CLEANUP(lj_http_response_free) lj_http_response response = LJ_HTTP_RESPONSE_INIT;
    LJ_CLEANUP(lj_buf_free) lj_buf url = LJ_BUF_INIT(4096);
    int64_t now_ns = lj_clock_wall_ns();
    char flavor[16] = "";
    LJ_TRY(lj_buf_printf(&url, err,
                         "http://%s/computeMetadata/v1/instance/service-accounts/default/token"
                         "?scopes=",
                         host));
    LJ_TRY(lj_url_encode(&url, LJ_GOOGLE_SCOPE_STORAGE, false, err));
    lj_http_request request = LJ_HTTP_REQUEST("GET", lj_buf_text(&url));
    request.headers = headers;
    request.body_max = LJ_GOOGLE_ANSWER_MAX;
    request.connect_timeout_ns = METADATA_CONNECT_NS;
    request.total_timeout_ns = METADATA_TOTAL_NS;
    request.no_proxy = true;
    LJ_TRY(lj_http_perform(http, &request, &response, err));
    bool google = lj_http_header(&response, "metadata-flavor", flavor, sizeof(flavor)) &&
                  strcmp(flavor, "Google") == 0;
    if (!google) {
        lj_error_set(err, LJ_DENIED, "%.64s is not Google's metadata server", host);
        return lj_error_retryable(err, true);
    }
    if (response.status / 100 != 2)
        return refused(&response, "asking the metadata server for a token",
                       "the machine needs a service account, with access to Cloud Storage", err);
    return lj_google_answer_parse(lj_buf_text(&response.body), response.body.len, now_ns, ret_token,
                                  err);
}
