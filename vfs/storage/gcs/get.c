/*
 * get.c - see internal.h: downloads, whole or in part.
 *
 * A store may answer a ranged request with the whole object (GCS does when it unpacks one that somebody stored with
 * Content-Encoding: gzip); what is before and behind the range is then dropped here.
 *
 * Layer: storage. Thread-safety: as storage.h.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vfs/base/str.h"
#include "vfs/storage/gcs/internal.h"

typedef struct {
    const lj_http_response *response;
    lj_sink *inner;
    uint64_t offset; /* what was asked for */
    uint64_t length; /* UINT64_MAX: to the end */
    bool begun;
    bool enough;     /* the rest is not wanted, and the transfer was ended for that */
    uint64_t skip;   /* bytes still to drop */
    uint64_t passed; /* bytes handed on */
    uint64_t total;  /* bytes a 206 announced; UINT64_MAX: not told */
    uint64_t size;   /* of the object, as a 206 says; UINT64_MAX: not told */
} window;

/* "bytes 10-19/100" of a 206. */
static bool read_content_range(const lj_http_response *response, uint64_t *ret_first,
                               uint64_t *ret_last, uint64_t *ret_size)
{
    char text[80];
    if (!lj_http_header(response, "content-range", text, sizeof(text)) ||
        !lj_str_starts(text, "bytes "))
        return false;
    char *first = text + strlen("bytes ");
    char *last = strchr(first, '-');
    char *slash = strchr(first, '/');
    if (last == NULL || slash == NULL || last > slash)
        return false;
    *last++ = 0;
    *slash = 0;
    if (!lj_str_u64(slash + 1, ret_size))
        *ret_size = UINT64_MAX; /* '*' */
    return lj_str_u64(first, ret_first) && lj_str_u64(last, ret_last) && *ret_first <= *ret_last &&
           *ret_last < INT64_MAX;
}

/* A page of something between says 200, too, and would be judged as what the replica holds. */
static bool is_of_a_store(const lj_http_response *response)
{
    static const char *const names[] = {"x-goog-generation", "x-goog-stored-content-encoding",
                                        "etag", "last-modified"};
    char value[256];
    for (size_t i = 0; i < LJ_ARRAY_LEN(names); i++)
        if (lj_http_header(response, names[i], value, sizeof(value)))
            return true;
    return false;
}

static lj_code begin(window *w, lj_error *err)
{
    w->begun = true;
    w->skip = w->offset;
    w->total = UINT64_MAX;
    w->size = UINT64_MAX;
    if (!is_of_a_store(w->response)) {
        lj_error_set(err, LJ_UNAVAILABLE, "the answer is not that of a store");
        (void)lj_error_hint(err, "check whether a proxy stands between");
        return lj_error_retryable(err, true);
    }
    if (w->response->status != 206)
        return LJ_OK;
    uint64_t first = 0;
    uint64_t last = 0;
    if (!read_content_range(w->response, &first, &last, &w->size) || first != w->offset) {
        lj_error_set(err, LJ_CORRUPT,
                     "the store sent another part of the object than was asked for");
        return lj_error_retryable(err, true);
    }
    w->skip = 0;
    w->total = last - first + 1;
    return LJ_OK;
}

static lj_code window_write(void *ctx, const void *data, size_t len, lj_error *err)
{
    window *w = ctx;
    if (!w->begun)
        LJ_TRY(begin(w, err));
    size_t skipped = (size_t)LJ_MIN((uint64_t)len, w->skip);
    w->skip -= skipped;
    size_t n = (size_t)LJ_MIN((uint64_t)(len - skipped), w->length - w->passed);
    if (n > 0) {
        LJ_TRY(w->inner->write(w->inner->ctx, (const char *)data + skipped, n, err));
        w->passed += n;
    }
    if (n + skipped == len)
        return LJ_OK;
    w->enough = true;
    return lj_error_set(err, LJ_CANCELLED, "all that was asked for is there");
}

static lj_code finish(lj_gcs *gcs, const lj_http_response *response, window *w, lj_error *err)
{
    if (response->status == 404)
        return lj_gcs_absent(gcs, response, err);
    if (response->status == 416) {
        lj_gcs_seen(gcs);
        return LJ_OK; /* at or behind the end of an object that is there */
    }
    if (response->status / 100 != 2)
        return lj_gcs_refused(gcs, response, "reading an object", err);
    if (!w->begun)
        LJ_TRY(begin(w, err));
    lj_gcs_seen(gcs);
    if (w->total == UINT64_MAX)
        return LJ_OK;
    bool to_end = w->size == UINT64_MAX || w->offset + w->passed >= w->size;
    if (response->sunk == w->total && (to_end || w->passed == w->length))
        return LJ_OK;
    lj_error_set(err, LJ_UNAVAILABLE,
                 "the store sent %" PRIu64 " of the %" PRIu64 " bytes announced, or fewer than "
                 "asked for and there are",
                 response->sunk, w->total);
    return lj_error_retryable(err, true);
}

static lj_code download(lj_gcs *gcs, const char *url, window *w, lj_http_response *response,
                        lj_error *err)
{
    lj_sink sink = {.ctx = w, .write = window_write};
    char range[80];
    const char *const headers[] = {range, NULL};
    bool to_end = w->length == UINT64_MAX;
    if (to_end)
        (void)snprintf(range, sizeof(range), "Range: bytes=%" PRIu64 "-", w->offset);
    else
        (void)snprintf(range, sizeof(range), "Range: bytes=%" PRIu64 "-%" PRIu64, w->offset,
                       w->offset + w->length - 1);
    lj_http_request request = LJ_HTTP_REQUEST("GET", url);
    request.sink = &sink;
    request.expected_bytes = to_end ? LJ_GCS_OBJECT_BYTES_MAX : (int64_t)w->length;
    if (!to_end || w->offset > 0)
        request.headers = headers;
    lj_error why = LJ_ERROR_INIT;
    lj_code code = lj_gcs_send(gcs, &request, response, &why);
    if (code == LJ_OK || w->enough)
        return w->enough ? LJ_OK : finish(gcs, response, w, err);
    if (err != NULL)
        *err = why;
    return code;
}

lj_code lj_gcs_get(void *self, const char *key, uint64_t offset, int64_t length, lj_sink *sink,
                   lj_error *err)
{
    lj_gcs *gcs = self;
    if (length == 0) {
        /* no range has no bytes, but the object must be there */
        lj_storage_entry entry;
        return lj_gcs_head(self, key, &entry, err);
    }
    LJ_CLEANUP(lj_freep) char *name = NULL;
    LJ_CLEANUP(lj_buf_free) lj_buf url = LJ_GCS_URL_INIT;
    LJ_TRY(lj_gcs_name(gcs, key, &name, err));
    LJ_TRY(lj_gcs_url(gcs, false, name, &url, err));
    LJ_TRY(lj_gcs_param(&url, "alt", "media", err));
    LJ_CLEANUP(lj_http_response_free) lj_http_response response = LJ_HTTP_RESPONSE_INIT;
    window w = {.response = &response,
                .inner = sink,
                .offset = offset,
                .length = length < 0 ? UINT64_MAX : (uint64_t)length};
    return download(gcs, lj_buf_text(&url), &w, &response, err);
}
