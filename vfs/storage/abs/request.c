/*
 * request.c - one request to the store: its URL, its headers, its credentials, and the one more try that some of them
 * deserve.
 *
 * Layer: storage. Thread-safety: as storage.h.
 * Invariant: the SAS token is in the URL's query only and goes nowhere else; the bytes of a body are in memory, so that the
 * request can be sent again.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vfs/base/clock.h"
#include "vfs/base/log.h"
#include "vfs/base/str.h"
#include "vfs/storage/abs/internal.h"
#include "vfs/storage/auth/crypto.h"
#include "vfs/storage/url.h"

#define URL_MAX ((size_t)32 * 1024)
/* Azure takes 15 minutes; what is closer than this is not why a signature was refused */
#define CLOCK_TOLERANCE_NS (60 * LJ_NS_PER_S)

/* date, version, MD5, If-None-Match, Authorization, and the NULL */
#define COMMON_HEADERS 6u
#define HEADERS_MAX    (LJ_ABS_REQUEST_HEADERS_MAX + COMMON_HEADERS)

/* A request in its final form. */
typedef struct {
    lj_buf url;
    const char *headers[HEADERS_MAX];
    size_t count;
    char date[64];
    char *md5;
    char *authorization; /* with a secret */
    char *path;          /* of the URL */
} message;

static void free_message(message *m)
{
    lj_wipe(m->url.data, m->url.len);
    lj_buf_free(&m->url);
    free(m->md5);
    lj_wipe_freep(&m->authorization);
    free(m->path);
}

static void add_header(message *m, const char *header)
{
    m->headers[m->count++] = header;
    m->headers[m->count] = NULL;
}

/* ---- the URL ---- */

static lj_code make_path(const lj_abs *abs, const lj_abs_request *request, message *m,
                         lj_error *err)
{
    const lj_abs_target *target = &abs->target;
    LJ_CLEANUP(lj_buf_free) lj_buf path = LJ_BUF_INIT(URL_MAX);
    LJ_TRY(lj_buf_printf(&path, err, "%s/", target->endpoint + target->path_at));
    LJ_TRY(lj_url_encode(&path, target->container, false, err));
    if (request->blob != NULL) {
        LJ_TRY(lj_buf_append(&path, "/", 1, err));
        LJ_TRY(lj_url_encode(&path, request->blob, true, err));
    }
    m->path = lj_str_dup(lj_buf_text(&path));
    return m->path == NULL ? lj_error_nomem(err) : LJ_OK;
}

static lj_code make_url(const lj_abs *abs, const lj_abs_request *request, message *m, lj_error *err)
{
    const lj_abs_target *target = &abs->target;
    const lj_secret *sas = lj_azure_provider_kind(target->provider) == LJ_AZURE_SAS
                               ? lj_azure_provider_secret(target->provider)
                               : NULL;
    LJ_TRY(make_path(abs, request, m, err));
    /* all at once, so that no copy of the token stays behind */
    size_t room = target->path_at + strlen(m->path) + (sas != NULL ? sas->len : 0) + 2;
    for (size_t i = 0; i < request->query_count; i++)
        room += 3 * strlen(request->query[i].value) + strlen(request->query[i].name) + 2;
    LJ_TRY(lj_buf_reserve(&m->url, room, err));
    LJ_TRY(lj_buf_append(&m->url, target->endpoint, target->path_at, err));
    LJ_TRY(lj_buf_append(&m->url, m->path, strlen(m->path), err));
    for (size_t i = 0; i < request->query_count; i++) {
        LJ_TRY(lj_buf_printf(&m->url, err, "%c%s=", i == 0 ? '?' : '&', request->query[i].name));
        LJ_TRY(lj_url_encode(&m->url, request->query[i].value, false, err));
    }
    if (sas == NULL)
        return LJ_OK;
    LJ_TRY(lj_buf_append(&m->url, request->query_count == 0 ? "?" : "&", 1, err));
    return lj_buf_append(&m->url, lj_secret_text(sas), sas->len, err);
}

/* ---- the headers ---- */

/* The store compares it with what it got. Where OpenSSL has no MD5 (FIPS), TLS has to do. */
static lj_code add_md5(const lj_abs_request *request, message *m, lj_error *err)
{
    uint8_t digest[LJ_MD5_BYTES];
    if (!request->with_md5 || lj_md5(request->body, request->body_len, digest, NULL) != LJ_OK)
        return LJ_OK;
    LJ_CLEANUP(lj_freep) char *text = lj_base64(digest, sizeof(digest));
    m->md5 = text != NULL ? lj_str_printf("Content-MD5: %s", text) : NULL;
    if (m->md5 == NULL)
        return lj_error_nomem(err);
    add_header(m, m->md5);
    return LJ_OK;
}

static lj_code sign(const lj_abs *abs, const lj_abs_request *request, message *m, lj_error *err)
{
    lj_shared_key_request signing = {
        .method = request->method,
        .account = lj_azure_provider_account(abs->target.provider),
        .path = m->path,
        .query = request->query,
        .query_count = request->query_count,
        .headers = m->headers,
        .content_length = request->body_len,
    };
    LJ_CLEANUP(lj_secret_free) lj_secret value = LJ_SECRET_NONE;
    LJ_TRY(
        lj_shared_key_sign(&signing, lj_azure_provider_secret(abs->target.provider), &value, err));
    m->authorization = lj_str_printf("Authorization: %s", lj_secret_text(&value));
    return m->authorization == NULL ? lj_error_nomem(err) : LJ_OK;
}

static lj_code authorize(const lj_abs *abs, const lj_abs_request *request, message *m,
                         lj_token *token, lj_error *err)
{
    lj_azure_provider *provider = abs->target.provider;
    switch (lj_azure_provider_kind(provider)) {
    case LJ_AZURE_SAS:
        return LJ_OK;
    case LJ_AZURE_KEY:
        LJ_TRY(sign(abs, request, m, err));
        break;
    case LJ_AZURE_BEARER:
        LJ_TRY(lj_token_get_until(lj_azure_provider_token(provider), abs->cancel, token, err));
        m->authorization =
            lj_str_printf("Authorization: Bearer %s", lj_secret_text(&token->values[0]));
        if (m->authorization == NULL)
            return lj_error_nomem(err);
        break;
    }
    add_header(m, m->authorization);
    return LJ_OK;
}

static lj_code make_message(const lj_abs *abs, const lj_abs_request *request, message *m,
                            lj_token *token, lj_error *err)
{
    char date[32];
    lj_http_date_format(lj_clock_wall_ns() + atomic_load(&abs->clock_offset_ns), date);
    (void)snprintf(m->date, sizeof(m->date), "x-ms-date: %s", date);
    LJ_TRY(make_url(abs, request, m, err));
    add_header(m, m->date);
    add_header(m, "x-ms-version: " LJ_ABS_VERSION);
    for (size_t i = 0; i < request->header_count; i++)
        add_header(m, request->headers[i]);
    if (request->if_absent)
        add_header(m, "If-None-Match: *");
    LJ_TRY(add_md5(request, m, err));
    return authorize(abs, request, m, token, err);
}

/* ---- sending ---- */

static lj_code send_once(const lj_abs *abs, const lj_abs_request *request, lj_token *token,
                         lj_http_response *response, lj_error *err)
{
    LJ_CLEANUP(free_message) message m = {.url = LJ_BUF_INIT(URL_MAX)};
    LJ_TRY(make_message(abs, request, &m, token, err));
    lj_http_request http = LJ_HTTP_REQUEST(request->method, lj_buf_text(&m.url));
    http.headers = m.headers;
    http.body = request->body;
    http.body_len = request->body_len;
    http.sink = request->sink;
    http.expected_bytes = request->expected_bytes;
    return lj_http_perform(abs->http, &http, response, err);
}

/* Whether the answer says that this token is not good any more: Azure by 401, its emulator by 403. */
static bool refuses_token(const lj_http_response *response, const char *code)
{
    return response->status == 401 ||
           (response->status == 403 && strcmp(code, "AuthenticationFailed") == 0);
}

/* Whether the request was refused for its date; then the offset of the store's clock is known from now on. */
static bool correct_clock(lj_abs *abs, const lj_http_response *response, const char *code)
{
    char text[64];
    int64_t store_ns = 0;
    if (response->status != 403 || strcmp(code, "AuthenticationFailed") != 0 ||
        !lj_http_header(response, "date", text, sizeof(text)) || !lj_http_date(text, &store_ns))
        return false;
    int64_t offset_ns = store_ns - lj_clock_wall_ns();
    int64_t error_ns = offset_ns - atomic_load(&abs->clock_offset_ns);
    if (error_ns < CLOCK_TOLERANCE_NS && error_ns > -CLOCK_TOLERANCE_NS)
        return false;
    atomic_store(&abs->clock_offset_ns, offset_ns);
    lj_log(LJ_LOG_WARN,
           "%s: this machine's clock is %" PRId64 " s off the store's; requests carry the store's "
           "time",
           abs->target.display_url, -offset_ns / LJ_NS_PER_S);
    return true;
}

static bool deserves_another(lj_abs *abs, const lj_http_response *response, const lj_token *token)
{
    char code[LJ_ABS_CODE_MAX];
    lj_azure_provider *provider = abs->target.provider;
    lj_abs_error_code(response, code);
    switch (lj_azure_provider_kind(provider)) {
    case LJ_AZURE_KEY:
        return correct_clock(abs, response, code);
    case LJ_AZURE_BEARER:
        if (!refuses_token(response, code))
            return false;
        lj_token_expired(lj_azure_provider_token(provider), token);
        return true;
    case LJ_AZURE_SAS:
        break;
    }
    return false;
}

static lj_code check_success(const lj_abs_request *request, const lj_http_response *response,
                             lj_error *err)
{
    if (request->success == 0 || response->status == request->success)
        return LJ_OK;
    lj_error_set(err, LJ_UNAVAILABLE, "%s: HTTP %d, where a blob store answers with %d",
                 request->method, response->status, request->success);
    (void)lj_error_hint(err, "check the endpoint, and whether a proxy stands between");
    return lj_error_retryable(err, true);
}

lj_code lj_abs_perform(lj_abs *abs, const lj_abs_request *request, lj_http_response *response,
                       lj_error *err)
{
    for (bool again = false;; again = true) {
        lj_token token = LJ_TOKEN_INIT;
        lj_code code = send_once(abs, request, &token, response, err);
        bool good = code == LJ_OK && response->status >= 200 && response->status < 300;
        bool retry = code == LJ_OK && !good && !again && deserves_another(abs, response, &token);
        lj_token_free(&token);
        if (code != LJ_OK)
            return code;
        if (good)
            return check_success(request, response, err);
        if (!retry)
            return lj_abs_error(abs, request, response, err);
    }
}
