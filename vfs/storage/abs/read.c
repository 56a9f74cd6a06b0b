/*
 * read.c - the Azure Blob driver's get and head.
 *
 * Layer: storage. Thread-safety: as storage.h.
 * Invariant: no byte reaches the caller's sink before the answer was checked to begin where it was asked to.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "vfs/base/str.h"
#include "vfs/storage/abs/internal.h"

/* For the total deadline when a whole object is asked for and its size is not known: the stall deadline has to do. */
#define UNKNOWN_BYTES (INT64_C(1) << 40)

/* ---- head ---- */

static bool header_time(const lj_http_response *response, const char *name, int64_t *ret_ns)
{
    char text[64];
    return lj_http_header(response, name, text, sizeof(text)) && lj_http_date(text, ret_ns);
}

static lj_code read_properties(const lj_http_response *response, lj_storage_entry *ret_entry,
                               lj_error *err)
{
    char text[64];
    uint64_t size = 0;
    int64_t created_ns = 0;
    if (lj_http_header(response, "x-ms-resource-type", text, sizeof(text)) &&
        strcmp(text, "directory") == 0)
        return lj_error_set(err, LJ_NOTFOUND, "it is a folder of a hierarchical namespace");
    bool sized =
        lj_http_header(response, "content-length", text, sizeof(text)) && lj_str_u64(text, &size);
    if (!sized || (!header_time(response, "x-ms-creation-time", &created_ns) &&
                   !header_time(response, "last-modified", &created_ns))) {
        lj_error_set(err, LJ_UNAVAILABLE, "the answer does not tell the object's %s",
                     sized ? "time" : "size");
        (void)lj_error_hint(err, "check the endpoint, and whether a proxy stands between");
        return lj_error_retryable(err, true);
    }
    ret_entry->size_bytes = size;
    ret_entry->created_ns = created_ns;
    return LJ_OK;
}

lj_code lj_abs_head(void *self, const char *key, lj_storage_entry *ret_entry, lj_error *err)
{
    lj_abs *abs = self;
    LJ_CLEANUP(lj_freep) char *blob = lj_abs_blob(abs, key);
    if (blob == NULL)
        return lj_error_nomem(err);
    LJ_CLEANUP(lj_http_response_free) lj_http_response response = LJ_HTTP_RESPONSE_INIT;
    lj_abs_request request = {.method = "HEAD", .blob = blob};
    LJ_TRY(lj_abs_perform(abs, &request, &response, err));
    return read_properties(&response, ret_entry, err);
}

/* ---- get ---- */

typedef struct {
    lj_sink *inner;
    const lj_http_response *response;
    bool ranged;
    uint64_t offset;
    int64_t length; /* -1: to the end */
    bool checked;
} range_guard;

static bool has_header(const range_guard *guard, const char *name)
{
    char value[256];
    return lj_http_header(guard->response, name, value, sizeof(value));
}

static lj_code check_range(const range_guard *guard, lj_error *err)
{
    char text[96];
    uint64_t begin = 0;
    /* a page of something between says 200, too, and would be judged as what the replica holds */
    if (!has_header(guard, "x-ms-request-id") && !has_header(guard, "etag") &&
        !has_header(guard, "last-modified")) {
        lj_error_set(err, LJ_UNAVAILABLE, "the answer is not that of a blob store");
        (void)lj_error_hint(err, "check the endpoint, and whether a proxy stands between");
        return lj_error_retryable(err, true);
    }
    if (guard->ranged) {
        bool told = lj_http_header(guard->response, "content-range", text, sizeof(text)) &&
                    strncmp(text, "bytes ", 6) == 0;
        if (told) {
            text[strcspn(text, "-")] = 0;
            told = lj_str_u64(text + 6, &begin) && begin == guard->offset;
        }
        if (told && guard->response->status == 206)
            return LJ_OK;
    } else if (guard->response->status == 200) {
        return LJ_OK;
    }
    lj_error_set(err, LJ_UNAVAILABLE,
                 "the store answered with another part of the object than asked for (HTTP %d)",
                 guard->response->status);
    (void)lj_error_hint(err, "a proxy may stand between that does not know ranges");
    return lj_error_retryable(err, true);
}

/* Behind the last byte of a 206: fewer bytes than asked for may only be those up to the object's end. */
static lj_code check_end(const range_guard *guard, lj_error *err)
{
    char text[96];
    uint64_t total = 0;
    if (!guard->checked)
        LJ_TRY(check_range(guard, err));
    if (!guard->ranged || !lj_http_header(guard->response, "content-range", text, sizeof(text)))
        return LJ_OK;
    const char *slash = strchr(text, '/');
    uint64_t got = guard->response->sunk;
    if ((guard->length >= 0 && got >= (uint64_t)guard->length) || slash == NULL ||
        !lj_str_u64(slash + 1, &total) || guard->offset + got >= total)
        return LJ_OK;
    lj_error_set(err, LJ_UNAVAILABLE,
                 "the store sent %" PRIu64 " bytes, fewer than asked for and there are", got);
    return lj_error_retryable(err, true);
}

static lj_code guarded_write(void *ctx, const void *data, size_t len, lj_error *err)
{
    range_guard *guard = ctx;
    if (!guard->checked)
        LJ_TRY(check_range(guard, err));
    guard->checked = true;
    return guard->inner->write(guard->inner->ctx, data, len, err);
}

lj_code lj_abs_get(void *self, const char *key, uint64_t offset, int64_t length, lj_sink *sink,
                   lj_error *err)
{
    lj_abs *abs = self;
    if (length == 0) { /* there is no such range: only whether the object is there is of interest */
        lj_storage_entry entry = {.key = key};
        return lj_abs_head(self, key, &entry, err);
    }
    LJ_CLEANUP(lj_freep) char *blob = lj_abs_blob(abs, key);
    LJ_CLEANUP(lj_freep)
    char *range = length < 0 ? lj_str_printf("x-ms-range: bytes=%" PRIu64 "-", offset)
                             : lj_str_printf("x-ms-range: bytes=%" PRIu64 "-%" PRIu64, offset,
                                             offset + (uint64_t)length - 1);
    if (blob == NULL || range == NULL)
        return lj_error_nomem(err);
    LJ_CLEANUP(lj_http_response_free) lj_http_response response = LJ_HTTP_RESPONSE_INIT;
    bool ranged = offset > 0 || length > 0;
    range_guard guard = {
        .inner = sink, .response = &response, .ranged = ranged, .offset = offset, .length = length};
    lj_sink guarded = {.ctx = &guard, .write = guarded_write};
    lj_abs_request request = {
        .method = "GET",
        .blob = blob,
        .headers = {range},
        .header_count = ranged ? 1 : 0,
        .sink = &guarded,
        .expected_bytes = length < 0 ? UNKNOWN_BYTES : length,
    };
    lj_error why = LJ_ERROR_INIT;
    lj_code code = lj_abs_perform(abs, &request, &response, &why);
    if (code != LJ_OK && why.http_status == 416)
        return LJ_OK; /* the range begins at or behind the end */
    if (code == LJ_OK)
        code = check_end(&guard, &why);
    if (code != LJ_OK && err != NULL)
        *err = why;
    return code;
}
