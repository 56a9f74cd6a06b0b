/*
 * shared_key.c - see shared_key.h.
 *
 * Layer: storage.
 */
#include "vfs/storage/abs/shared_key.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "vfs/base/str.h"
#include "vfs/storage/auth/crypto.h"

#define STRING_MAX ((size_t)64 * 1024)

/* The value of a header, NULL when it is not there. */
static const char *header_value(const char *const *headers, const char *name)
{
    size_t len = strlen(name);
    for (; *headers != NULL; headers++)
        if (strncasecmp(*headers, name, len) == 0 && (*headers)[len] == ':')
            return *headers + len + 1 + strspn(*headers + len + 1, " \t");
    return NULL;
}

static bool is_own(const char *header)
{
    return strncasecmp(header, "x-ms-", 5) == 0;
}

/* By the name alone: "x-ms-a: 1" comes before "x-ms-a-b: 1". */
static int compare_headers(const void *a, const void *b)
{
    const char *left = *(const char *const *)a;
    const char *right = *(const char *const *)b;
    size_t left_len = strcspn(left, ":");
    size_t right_len = strcspn(right, ":");
    int order = strncasecmp(left, right, LJ_MIN(left_len, right_len));
    return order != 0 ? order : (left_len > right_len) - (left_len < right_len);
}

static int compare_pairs(const void *a, const void *b)
{
    return strcmp(((const lj_abs_pair *)a)->name, ((const lj_abs_pair *)b)->name);
}

static lj_code append_standard(const lj_shared_key_request *request, lj_buf *out, lj_error *err)
{
    static const char *const names[] = {"Content-Encoding",
                                        "Content-Language",
                                        "Content-Length",
                                        "Content-MD5",
                                        "Content-Type",
                                        "Date",
                                        "If-Modified-Since",
                                        "If-Match",
                                        "If-None-Match",
                                        "If-Unmodified-Since",
                                        "Range"};
    LJ_TRY(lj_buf_printf(out, err, "%s\n", request->method));
    for (size_t i = 0; i < LJ_ARRAY_LEN(names); i++) {
        if (strcmp(names[i], "Content-Length") == 0) {
            if (request->content_length > 0) /* since 2015-02-21 nothing stands for zero */
                LJ_TRY(lj_buf_printf(out, err, "%" PRIu64, request->content_length));
            LJ_TRY(lj_buf_append(out, "\n", 1, err));
            continue;
        }
        const char *value = header_value(request->headers, names[i]);
        LJ_TRY(lj_buf_printf(out, err, "%s\n", value != NULL ? value : ""));
    }
    return LJ_OK;
}

static lj_code append_own(const lj_shared_key_request *request, lj_buf *out, lj_error *err)
{
    const char *own[LJ_SHARED_KEY_HEADERS_MAX] = {NULL};
    size_t count = 0;
    for (const char *const *header = request->headers; *header != NULL; header++) {
        if (!is_own(*header))
            continue;
        if (count == LJ_SHARED_KEY_HEADERS_MAX)
            return lj_error_set(err, LJ_INVALID, "more than %u headers to sign",
                                LJ_SHARED_KEY_HEADERS_MAX);
        own[count++] = *header;
    }
    qsort(own, count, sizeof(own[0]), compare_headers);
    for (size_t i = 0; i < count; i++) {
        size_t len = strcspn(own[i], ":");
        size_t start = out->len;
        const char *value = own[i] + len + (own[i][len] == ':');
        LJ_TRY(
            lj_buf_printf(out, err, "%.*s:%s\n", (int)len, own[i], value + strspn(value, " \t")));
        for (size_t k = start; k < start + len; k++)
            if (out->data[k] >= 'A' && out->data[k] <= 'Z')
                out->data[k] = (uint8_t)(out->data[k] - 'A' + 'a');
    }
    return LJ_OK;
}

static lj_code append_resource(const lj_shared_key_request *request, lj_buf *out, lj_error *err)
{
    lj_abs_pair sorted[LJ_SHARED_KEY_QUERY_MAX];
    if (request->query_count > LJ_SHARED_KEY_QUERY_MAX)
        return lj_error_set(err, LJ_INVALID, "more than %u query parameters to sign",
                            LJ_SHARED_KEY_QUERY_MAX);
    if (request->query_count > 0) {
        memcpy(sorted, request->query, request->query_count * sizeof(sorted[0]));
        qsort(sorted, request->query_count, sizeof(sorted[0]), compare_pairs);
    }
    LJ_TRY(lj_buf_printf(out, err, "/%s%s", request->account, request->path));
    for (size_t i = 0; i < request->query_count; i++)
        LJ_TRY(lj_buf_printf(out, err, "\n%s:%s", sorted[i].name, sorted[i].value));
    return LJ_OK;
}

lj_code lj_shared_key_string(const lj_shared_key_request *request, lj_buf *out, lj_error *err)
{
    LJ_TRY(append_standard(request, out, err));
    LJ_TRY(append_own(request, out, err));
    return append_resource(request, out, err);
}

lj_code lj_shared_key_sign(const lj_shared_key_request *request, const lj_secret *key,
                           lj_secret *ret_value, lj_error *err)
{
    LJ_CLEANUP(lj_buf_free) lj_buf text = LJ_BUF_INIT(STRING_MAX);
    LJ_TRY(lj_shared_key_string(request, &text, err));
    uint8_t mac[LJ_SHA256_BYTES];
    LJ_TRY(lj_hmac_sha256(lj_secret_text(key), key->len, text.data, text.len, mac, err));
    LJ_CLEANUP(lj_wipe_freep) char *signature = lj_base64(mac, sizeof(mac));
    lj_wipe(mac, sizeof(mac));
    LJ_CLEANUP(lj_wipe_freep)
    char *value =
        signature != NULL ? lj_str_printf("SharedKey %s:%s", request->account, signature) : NULL;
    if (value == NULL)
        return lj_error_nomem(err);
    return lj_secret_set(ret_value, value, err);
}
