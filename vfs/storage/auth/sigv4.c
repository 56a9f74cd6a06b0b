/*
 * sigv4.c - see sigv4.h.
 *
 * Layer: storage.
 */
#include "vfs/storage/auth/sigv4.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "vfs/base/secret.h"
#include "vfs/storage/auth/crypto.h"

#define CANONICAL_MAX ((size_t)256 * 1024)
#define KEY_MAX       ((size_t)1024)
#define DAY_LEN       8

void lj_sigv4_date(int64_t wall_ns, char out[LJ_SIGV4_DATE_SIZE])
{
    time_t seconds = (time_t)(wall_ns / LJ_NS_PER_S);
    struct tm tm;
    gmtime_r(&seconds, &tm);
    (void)strftime(out, LJ_SIGV4_DATE_SIZE, "%Y%m%dT%H%M%SZ", &tm);
}

/* Without blanks at both ends, and with one for several within. */
static lj_code append_value(lj_buf *out, const char *value, lj_error *err)
{
    value += strspn(value, " \t");
    while (*value != 0) {
        size_t word = strcspn(value, " \t");
        LJ_TRY(lj_buf_append(out, value, word, err));
        value += word;
        value += strspn(value, " \t");
        if (*value != 0)
            LJ_TRY(lj_buf_append(out, " ", 1, err));
    }
    return LJ_OK;
}

static lj_code append_text(lj_buf *out, const char *text, lj_error *err)
{
    return lj_buf_append(out, text, strlen(text), err);
}

static lj_code append_signed_names(const lj_sigv4_request *request, lj_buf *out, lj_error *err)
{
    for (size_t i = 0; i < request->header_count; i++) {
        if (i > 0)
            LJ_TRY(append_text(out, ";", err));
        LJ_TRY(append_text(out, request->headers[i].name, err));
    }
    return LJ_OK;
}

lj_code lj_sigv4_canonical(const lj_sigv4_request *request, lj_buf *out, lj_error *err)
{
    size_t size = strlen(request->method) + strlen(request->path) + strlen(request->query) +
                  strlen(request->payload_sha256) + 8;
    for (size_t i = 0; i < request->header_count; i++)
        size += 2 * strlen(request->headers[i].name) + strlen(request->headers[i].value) + 3;
    LJ_TRY(lj_buf_reserve(out, size, err));
    const char *const start[] = {request->method, "\n", request->path, "\n", request->query, "\n"};
    for (size_t i = 0; i < LJ_ARRAY_LEN(start); i++)
        LJ_TRY(append_text(out, start[i], err));
    for (size_t i = 0; i < request->header_count; i++) {
        LJ_TRY(append_text(out, request->headers[i].name, err));
        LJ_TRY(append_text(out, ":", err));
        LJ_TRY(append_value(out, request->headers[i].value, err));
        LJ_TRY(append_text(out, "\n", err));
    }
    LJ_TRY(append_text(out, "\n", err));
    LJ_TRY(append_signed_names(request, out, err));
    LJ_TRY(append_text(out, "\n", err));
    return append_text(out, request->payload_sha256, err);
}

/* The key of the day, the region and the service. */
static lj_code signing_key(const lj_sigv4_request *request, const char *secret_key,
                           uint8_t key[LJ_SHA256_BYTES], lj_error *err)
{
    char first[KEY_MAX];
    int n = snprintf(first, sizeof(first), "AWS4%s", secret_key);
    if (n < 0 || (size_t)n >= sizeof(first)) {
        lj_wipe(first, sizeof(first));
        return lj_error_set(err, LJ_INVALID, "the secret access key is longer than %zu bytes",
                            KEY_MAX - 5);
    }
    lj_code code = lj_hmac_sha256(first, (size_t)n, request->date, DAY_LEN, key, err);
    lj_wipe(first, sizeof(first));
    const char *const steps[] = {request->region, request->service, "aws4_request"};
    for (size_t i = 0; i < LJ_ARRAY_LEN(steps) && code == LJ_OK; i++)
        code = lj_hmac_sha256(key, LJ_SHA256_BYTES, steps[i], strlen(steps[i]), key, err);
    return code;
}

static lj_code sign(const lj_sigv4_request *request, const char *scope, const char *secret_key,
                    char signature[LJ_SHA256_HEX], lj_error *err)
{
    LJ_CLEANUP(lj_buf_free) lj_buf canonical = LJ_BUF_INIT(CANONICAL_MAX);
    LJ_CLEANUP(lj_buf_free) lj_buf to_sign = LJ_BUF_INIT(1024);
    char hash[LJ_SHA256_HEX];
    uint8_t key[LJ_SHA256_BYTES];
    uint8_t mac[LJ_SHA256_BYTES];
    lj_code code = lj_sigv4_canonical(request, &canonical, err);
    if (code == LJ_OK)
        code = lj_sha256_hex(canonical.data, canonical.len, hash, err);
    lj_wipe(canonical.data, canonical.len);
    LJ_TRY(code);
    LJ_TRY(
        lj_buf_printf(&to_sign, err, "AWS4-HMAC-SHA256\n%s\n%s\n%s", request->date, scope, hash));
    code = signing_key(request, secret_key, key, err);
    if (code == LJ_OK)
        code = lj_hmac_sha256(key, sizeof(key), to_sign.data, to_sign.len, mac, err);
    lj_wipe(key, sizeof(key));
    LJ_TRY(code);
    lj_hex(mac, sizeof(mac), signature);
    return LJ_OK;
}

lj_code lj_sigv4_authorization(const lj_sigv4_request *request, const char *key_id,
                               const char *secret_key, lj_buf *out, lj_error *err)
{
    for (const char *c = key_id; *c != 0; c++)
        if (*c <= 0x20 || *c >= 0x7f || *c == ',' || *c == '/')
            return lj_error_set(err, LJ_INVALID,
                                "the access key id has a character that no key id has");
    char scope[256];
    char signature[LJ_SHA256_HEX];
    int n = snprintf(scope, sizeof(scope), "%.8s/%s/%s/aws4_request", request->date,
                     request->region, request->service);
    if (n < 0 || (size_t)n >= sizeof(scope))
        return lj_error_set(err, LJ_INVALID, "the name of the region is too long");
    LJ_TRY(sign(request, scope, secret_key, signature, err));
    LJ_TRY(
        lj_buf_printf(out, err, "AWS4-HMAC-SHA256 Credential=%s/%s,SignedHeaders=", key_id, scope));
    LJ_TRY(append_signed_names(request, out, err));
    return lj_buf_printf(out, err, ",Signature=%s", signature);
}
