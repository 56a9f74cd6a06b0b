/*
 * request.c - one request to the store: addressed, signed, sent, and repeated where the store says what was wrong with it.
 *
 * The signature covers every header that is sent on purpose and the SHA-256 of the body, also over TLS. Not signed, because it
 * is libcurl's or a proxy's to change: User-Agent and the like.
 *
 * Layer: storage. Thread-safety: any thread. Nothing secret is left in memory: the lines with a session token or a customer's
 * key are wiped.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vfs/base/cancel.h"
#include "vfs/base/clock.h"
#include "vfs/base/log.h"
#include "vfs/base/str.h"
#include "vfs/storage/auth/crypto.h"
#include "vfs/storage/s3/internal.h"

#define OWN_HEADERS     8u
#define HEADERS_MAX     (LJ_S3_HEADERS_MAX + OWN_HEADERS)
#define SKEW_SUSPECT_NS (300 * LJ_NS_PER_S) /* stores allow 15 minutes */
#define SKEW_STEP_NS    (60 * LJ_NS_PER_S)
#define URL_MAX         ((size_t)16 * 1024)
#define CUSTOMER        "x-amz-server-side-encryption-customer-"

/* What one try was sent with, and which corrections were made. */
typedef struct {
    char region[LJ_S3_REGION_MAX];
    char sha256[LJ_SHA256_HEX];
    int64_t skew_ns;
    lj_token token;
    bool moved;
    bool timed;
    bool renewed;
} attempt;

/* The texts of one try. */
typedef struct {
    lj_buf host;
    lj_buf path;
    lj_buf url;
    lj_buf authorization;
    lj_sigv4_header headers[HEADERS_MAX]; /* sorted */
    size_t count;
    char *lines[HEADERS_MAX + 1]; /* "name: value", ends with NULL */
} letter;

static void letter_free(letter *l)
{
    for (size_t i = 0; i < LJ_ARRAY_LEN(l->lines); i++)
        if (l->lines[i] != NULL)
            lj_wipe_freep(&l->lines[i]);
    lj_buf_free(&l->host);
    lj_buf_free(&l->path);
    lj_buf_free(&l->url);
    lj_buf_free(&l->authorization);
}

static void attempt_free(attempt *a)
{
    lj_token_free(&a->token);
}

bool lj_s3_cancelled(const lj_s3 *s3)
{
    return lj_cancel_requested(s3->cancel);
}

void lj_s3_add_header(lj_s3_request *request, const char *name, const char *value)
{
    if (value != NULL && request->header_count < LJ_S3_HEADERS_MAX)
        request->headers[request->header_count++] = (lj_sigv4_header){name, value};
}

/* ---- writing ---- */

static void insert(letter *l, const char *name, const char *value)
{
    size_t i = l->count++;
    for (; i > 0 && strcmp(l->headers[i - 1].name, name) > 0; i--)
        l->headers[i] = l->headers[i - 1];
    l->headers[i] = (lj_sigv4_header){name, value};
}

static void insert_all(const lj_s3 *s3, const lj_s3_request *request, const attempt *a,
                       const char *date, letter *l)
{
    insert(l, "host", lj_buf_text(&l->host));
    insert(l, "x-amz-content-sha256", a->sha256);
    insert(l, "x-amz-date", date);
    if (lj_secret_is_set(&a->token.values[LJ_AWS_SESSION_TOKEN]))
        insert(l, "x-amz-security-token", lj_secret_text(&a->token.values[LJ_AWS_SESSION_TOKEN]));
    if (s3->target.tigris)
        insert(l, "x-tigris-consistent", "true");
    if (request->customer_key && lj_secret_is_set(&s3->customer_key)) {
        insert(l, CUSTOMER "algorithm", "AES256");
        insert(l, CUSTOMER "key", lj_secret_text(&s3->customer_key));
        insert(l, CUSTOMER "key-md5", s3->customer_key_md5);
    }
    for (size_t i = 0; i < request->header_count; i++)
        insert(l, request->headers[i].name, request->headers[i].value);
}

/* The lines for libcurl, which writes Host itself. No value may begin another line. */
static lj_code write_lines(letter *l, lj_error *err)
{
    size_t n = 0;
    for (size_t i = 0; i < l->count; i++) {
        const lj_sigv4_header *header = &l->headers[i];
        for (const char *c = header->value; *c != 0; c++)
            if ((unsigned char)*c < 0x20 || *c == 0x7f)
                return lj_error_set(err, LJ_INVALID, "the header %s would have a control character",
                                    header->name);
        if (strcmp(header->name, "host") == 0)
            continue;
        l->lines[n] = lj_str_printf("%s: %s", header->name, header->value);
        if (l->lines[n++] == NULL)
            return lj_error_nomem(err);
    }
    l->lines[n] = lj_str_printf("authorization: %s", lj_buf_text(&l->authorization));
    return l->lines[n] == NULL ? lj_error_nomem(err) : LJ_OK;
}

static lj_code write_letter(lj_s3 *s3, const lj_s3_request *request, const attempt *a, letter *l,
                            lj_error *err)
{
    const char *query = request->query != NULL ? request->query : "";
    char date[LJ_SIGV4_DATE_SIZE];
    lj_sigv4_date(lj_clock_wall_ns() + a->skew_ns, date);
    LJ_TRY(lj_s3_target_host(&s3->target, a->region, &l->host, err));
    LJ_TRY(lj_s3_target_path(&s3->target, request->key, &l->path, err));
    LJ_TRY(lj_buf_printf(&l->url, err, "%s://%s%s%s%s", s3->target.tls ? "https" : "http",
                         lj_buf_text(&l->host), lj_buf_text(&l->path), query[0] != 0 ? "?" : "",
                         query));
    insert_all(s3, request, a, date, l);
    lj_sigv4_request to_sign = {.method = request->method,
                                .path = lj_buf_text(&l->path),
                                .query = query,
                                .headers = l->headers,
                                .header_count = l->count,
                                .payload_sha256 = a->sha256,
                                .date = date,
                                .region = a->region,
                                .service = "s3"};
    LJ_TRY(lj_sigv4_authorization(&to_sign, lj_secret_text(&a->token.values[LJ_AWS_KEY_ID]),
                                  lj_secret_text(&a->token.values[LJ_AWS_SECRET_KEY]),
                                  &l->authorization, err));
    return write_lines(l, err);
}

static void copy_region(lj_s3 *s3, char out[LJ_S3_REGION_MAX])
{
    pthread_mutex_lock(&s3->mutex);
    memcpy(out, s3->region, LJ_S3_REGION_MAX);
    pthread_mutex_unlock(&s3->mutex);
}

static lj_code try_once(lj_s3 *s3, const lj_s3_request *request, attempt *a,
                        lj_http_response *response, lj_error *err)
{
    LJ_CLEANUP(letter_free)
    letter l = {.host = LJ_BUF_INIT(URL_MAX),
                .path = LJ_BUF_INIT(URL_MAX),
                .url = LJ_BUF_INIT(4 * URL_MAX),
                .authorization = LJ_BUF_INIT(4096)};
    copy_region(s3, a->region);
    a->skew_ns = atomic_load(&s3->skew_ns);
    lj_token_free(&a->token);
    /* also for the last request: with the credential at hand, a new one is not waited for */
    LJ_TRY(lj_token_get_until(lj_aws_provider_token(s3->aws), s3->cancel, &a->token, err));
    LJ_TRY(write_letter(s3, request, a, &l, err));
    lj_http_request http = {.method = request->method,
                            .url = lj_buf_text(&l.url),
                            .headers = (const char *const *)l.lines,
                            .body = request->body,
                            .body_len = request->body_len,
                            .sink = request->sink,
                            .body_max = request->body_max,
                            .expected_bytes = request->expected_bytes,
                            .total_timeout_ns = request->total_timeout_ns};
    return lj_http_perform(request->last ? s3->last_http : s3->http, &http, response, err);
}

/* ---- correcting ---- */

/* The bucket is in another region than was signed for. */
static bool correct_region(lj_s3 *s3, const lj_http_response *response, const lj_s3_answer *answer,
                           attempt *a)
{
    char region[LJ_S3_REGION_MAX] = "";
    bool told = lj_http_header(response, "x-amz-bucket-region", region, sizeof(region));
    bool misplaced = strcmp(answer->code, "AuthorizationHeaderMalformed") == 0 ||
                     strcmp(answer->code, "PermanentRedirect") == 0 ||
                     strcmp(answer->code, "TemporaryRedirect") == 0;
    if (!told && misplaced)
        memcpy(region, answer->region, sizeof(region));
    if (a->moved || !lj_s3_region_valid(region) || strcmp(region, a->region) == 0)
        return false;
    pthread_mutex_lock(&s3->mutex);
    bool news = strcmp(s3->region, region) != 0;
    memcpy(s3->region, region, sizeof(region));
    pthread_mutex_unlock(&s3->mutex);
    if (news)
        lj_log(LJ_LOG_INFO, "s3: bucket %s is in region %s, not %s; \"region\" saves asking",
               s3->target.bucket, region, a->region);
    a->moved = true;
    return true;
}

static int64_t distance(int64_t a, int64_t b)
{
    return a > b ? a - b : b - a;
}

/* The store's clock is another one: it is the one that counts. */
static bool correct_clock(lj_s3 *s3, const lj_http_response *response, const lj_s3_answer *answer,
                          attempt *a)
{
    char text[64];
    int64_t date_ns = 0;
    bool told = strcmp(answer->code, "RequestTimeTooSkewed") == 0;
    if (a->timed || (!told && response->status != 403) ||
        !lj_http_header(response, "date", text, sizeof(text)) || !lj_http_date(text, &date_ns))
        return false;
    int64_t skew_ns = date_ns - lj_clock_wall_ns();
    int64_t off_ns = distance(skew_ns, a->skew_ns);
    if (off_ns < (told ? SKEW_STEP_NS : SKEW_SUSPECT_NS))
        return false;
    atomic_store(&s3->skew_ns, skew_ns);
    lj_log(LJ_LOG_WARN,
           "s3: the clock of %s is %lld s from ours; requests are dated by it, but set ours (NTP)",
           s3->target.bucket, (long long)(skew_ns / LJ_NS_PER_S));
    a->timed = true;
    return true;
}

static bool same_credential(const lj_token *a, const lj_token *b)
{
    for (size_t i = 0; i < LJ_TOKEN_VALUES; i++)
        if (!lj_secret_eq(&a->values[i], &b->values[i]))
            return false;
    return true;
}

/* The credential is not valid any more: worth another request when its source has another one. */
static bool correct_credential(lj_s3 *s3, const lj_s3_answer *answer, attempt *a)
{
    static const char *const codes[] = {"ExpiredToken",   "ExpiredTokenException",
                                        "RequestExpired", "TokenRefreshRequired",
                                        "InvalidToken",   "InvalidAccessKeyId"};
    bool refused = false;
    for (size_t i = 0; i < LJ_ARRAY_LEN(codes); i++)
        refused = refused || strcmp(answer->code, codes[i]) == 0;
    if (!refused || a->renewed)
        return false;
    a->renewed = true;
    lj_token_source *source = lj_aws_provider_token(s3->aws);
    LJ_CLEANUP(lj_token_free) lj_token fresh = LJ_TOKEN_INIT;
    lj_error why = LJ_ERROR_INIT;
    lj_token_expired(source, &a->token);
    if (lj_token_get_until(source, s3->cancel, &fresh, &why) != LJ_OK) {
        lj_log_error(LJ_LOG_WARN, "s3: the credentials were refused and could not be renewed",
                     &why);
        return false;
    }
    return !same_credential(&fresh, &a->token);
}

static bool correct(lj_s3 *s3, const lj_http_response *response, attempt *a)
{
    lj_s3_answer answer;
    if (response->status < 300)
        return false;
    lj_s3_answer_read(lj_buf_text(&response->body), response->body.len, &answer);
    return correct_region(s3, response, &answer, a) || correct_clock(s3, response, &answer, a) ||
           correct_credential(s3, &answer, a);
}

/* ---- performing ---- */

lj_code lj_s3_perform(lj_s3 *s3, const lj_s3_request *request, lj_http_response *response,
                      lj_error *err)
{
    LJ_CLEANUP(attempt_free) attempt a = {.token = LJ_TOKEN_INIT};
    LJ_TRY(lj_sha256_hex(request->body != NULL ? request->body : "", request->body_len, a.sha256,
                         err));
    do {
        LJ_TRY(try_once(s3, request, &a, response, err));
    } while (correct(s3, response, &a));
    return LJ_OK;
}

lj_code lj_s3_call(lj_s3 *s3, const lj_s3_request *request, lj_http_response *response,
                   char ret_code[LJ_S3_CODE_MAX], lj_error *err)
{
    if (ret_code != NULL)
        ret_code[0] = 0;
    LJ_TRY(lj_s3_perform(s3, request, response, err));
    if (response->status >= 200 && response->status < 300)
        return LJ_OK;
    lj_s3_answer answer;
    lj_s3_answer_read(lj_buf_text(&response->body), response->body.len, &answer);
    if (ret_code != NULL)
        memcpy(ret_code, answer.code, sizeof(answer.code));
    char region[LJ_S3_REGION_MAX];
    char what[300];
    copy_region(s3, region);
    LJ_CLEANUP(lj_buf_free) lj_buf host = LJ_BUF_INIT(1024);
    LJ_TRY(lj_s3_target_host(&s3->target, region, &host, err));
    (void)snprintf(what, sizeof(what), "%s %s", request->method, lj_buf_text(&host));
    return lj_s3_answer_error(response, &answer, what, err);
}
