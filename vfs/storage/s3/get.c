/*
 * get.c - reads objects and looks at them.
 *
 * A range is asked for by the Range header, and nothing is handed on before the answer was compared with it: a store that ignores the
 * header, or sends more than was asked for, is served by skipping.
 *
 * HEAD answers have no body, so an error of one does not say what it is about: a 404 may be the object's or the bucket's. The
 * same is asked with a GET of one byte then.
 *
 * Layer: storage. Thread-safety: as storage.h.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "vfs/base/clock.h"
#include "vfs/base/str.h"
#include "vfs/storage/s3/internal.h"
#include "vfs/storage/s3/xml.h"

/* Without a length asked for, the time limit is taken from the length the answer announces. */
#define UNKNOWN_TOTAL_NS    (14 * 24 * 3600 * LJ_NS_PER_S)
#define SLOWEST_BYTES_PER_S 16384
#define SLOW_START_NS       (300 * LJ_NS_PER_S)

/* ---- the answer to a range ---- */

/* "bytes 100-199/1000"; *ret_total is UINT64_MAX for '*'. */
static bool parse_content_range(const char *text, uint64_t *ret_first, uint64_t *ret_last,
                                uint64_t *ret_total)
{
    char first[24];
    char last[24];
    char total[24];
    int end = 0;
    if (sscanf(text, "bytes %20[0-9]-%20[0-9]/%20[0-9*]%n", first, last, total, &end) != 3 ||
        text[end] != 0)
        return false;
    if (strcmp(total, "*") == 0)
        *ret_total = UINT64_MAX;
    else if (!lj_str_u64(total, ret_total))
        return false;
    return lj_str_u64(first, ret_first) && lj_str_u64(last, ret_last) && *ret_first <= *ret_last &&
           *ret_last < *ret_total;
}

typedef struct {
    const lj_http_response *response;
    lj_sink *inner;
    uint64_t offset;
    int64_t length; /* -1: to the end */
    bool begun;
    uint64_t skip;     /* of an answer that starts before `offset` */
    uint64_t left;     /* bytes that are still asked for */
    uint64_t expected; /* of the answer; UINT64_MAX: unknown */
    uint64_t total;    /* of the object; UINT64_MAX: unknown */
    uint64_t got;      /* handed on */
    bool full;         /* all was there; the rest of the answer is not wanted */
    int64_t begin_ns;
} range_sink;

static lj_code bad_answer(lj_error *err, const char *what)
{
    lj_error_set(err, LJ_UNAVAILABLE, "the answer to GET %s", what);
    (void)lj_error_hint(err, LJ_S3_HINT_BETWEEN);
    return lj_error_retryable(err, true);
}

static bool has_header(const lj_http_response *response, const char *name)
{
    char value[LJ_S3_ETAG_MAX];
    return lj_http_header(response, name, value, sizeof(value));
}

/* Compares the answer with what was asked for, before its first byte. */
static lj_code begin_range(range_sink *r, lj_error *err)
{
    char text[96];
    uint64_t first = 0;
    uint64_t last = 0;
    r->begun = true;
    r->left = r->length < 0 ? UINT64_MAX : (uint64_t)r->length;
    r->total = UINT64_MAX;
    r->expected = UINT64_MAX;
    /* the content of anything else would be judged, and a replica given up for it */
    if (!has_header(r->response, "etag") && !has_header(r->response, "last-modified"))
        return bad_answer(err, "has neither ETag nor Last-Modified, so it is not from an S3 store");
    if (r->response->status != 206) {
        r->skip = r->offset;
        return LJ_OK;
    }
    if (!lj_http_header(r->response, "content-range", text, sizeof(text)) ||
        !parse_content_range(text, &first, &last, &r->total))
        return bad_answer(err, "does not say which range it is");
    if (first > r->offset)
        return bad_answer(err, "begins behind what was asked for");
    r->skip = r->offset - first;
    r->expected = last - first + 1;
    return LJ_OK;
}

/* Nothing is slower than 16 KiB a second for long. */
static lj_code check_pace(const range_sink *r, lj_error *err)
{
    int64_t allowed_ns =
        SLOW_START_NS + (int64_t)(r->response->sunk / SLOWEST_BYTES_PER_S) * LJ_NS_PER_S;
    if (r->length >= 0 || lj_clock_mono_ns() - r->begin_ns <= allowed_ns)
        return LJ_OK;
    lj_error_set(err, LJ_TIMEOUT, "the object comes in at less than 16 KiB a second");
    return lj_error_retryable(err, true);
}

static lj_code range_write(void *ctx, const void *data, size_t len, lj_error *err)
{
    range_sink *r = ctx;
    const uint8_t *bytes = data;
    if (!r->begun)
        LJ_TRY(begin_range(r, err));
    LJ_TRY(check_pace(r, err));
    size_t skipped = (size_t)LJ_MIN(r->skip, (uint64_t)len);
    r->skip -= skipped;
    bytes += skipped;
    len -= skipped;
    size_t taken = (size_t)LJ_MIN(r->left, (uint64_t)len);
    if (taken > 0)
        LJ_TRY(r->inner->write(r->inner->ctx, bytes, taken, err));
    r->got += taken;
    r->left -= taken;
    if (taken < len) {
        r->full = true;
        return lj_error_set(err, LJ_CANCELLED, "the rest of the answer was not asked for");
    }
    return LJ_OK;
}

/* After a complete answer: was it all that was asked for? */
static lj_code end_range(range_sink *r, lj_error *err)
{
    if (!r->begun)
        LJ_TRY(begin_range(r, err));
    if (r->expected != UINT64_MAX && r->response->sunk != r->expected)
        return bad_answer(err, "ended before all its bytes had come");
    bool to_end = r->total == UINT64_MAX || r->offset + r->got >= r->total;
    if (r->response->status == 206 && !to_end && r->left != 0)
        return bad_answer(err, "is shorter than what was asked for");
    return LJ_OK;
}

/* ---- get ---- */

static const char *format_range(uint64_t offset, int64_t length, char *out, size_t size)
{
    if (offset == 0 && length < 0)
        return NULL;
    if (length < 0)
        (void)snprintf(out, size, "bytes=%" PRIu64 "-", offset);
    else
        (void)snprintf(out, size, "bytes=%" PRIu64 "-%" PRIu64, offset,
                       offset + (uint64_t)length - 1);
    return out;
}

static lj_code get_range(lj_s3 *s3, const char *key, uint64_t offset, int64_t length, lj_sink *sink,
                         lj_http_response *response, lj_error *err)
{
    char range[64];
    range_sink state = {.response = response,
                        .inner = sink,
                        .offset = offset,
                        .length = length,
                        .begin_ns = lj_clock_mono_ns()};
    lj_sink guarded = {.ctx = &state, .write = range_write};
    lj_s3_request request = {.method = "GET",
                             .key = key,
                             .customer_key = true,
                             .sink = &guarded,
                             .expected_bytes = length,
                             .total_timeout_ns = length < 0 ? UNKNOWN_TOTAL_NS : 0};
    lj_s3_add_header(&request, "range", format_range(offset, length, range, sizeof(range)));
    lj_code code = lj_s3_call(s3, &request, response, NULL, err);
    if (state.full) {
        lj_error_clear(err);
        return LJ_OK;
    }
    if (code != LJ_OK && response->status == 416) { /* the object ends before the range */
        lj_error_clear(err);
        return LJ_OK;
    }
    return code == LJ_OK ? end_range(&state, err) : code;
}

lj_code lj_s3_get(void *self, const char *key, uint64_t offset, int64_t length, lj_sink *sink,
                  lj_error *err)
{
    lj_s3 *s3 = self;
    if (length == 0) { /* no range says so; whether the object is there counts all the same */
        lj_storage_entry entry;
        return lj_s3_head(s3, key, &entry, err);
    }
    LJ_CLEANUP(lj_http_response_free) lj_http_response response = LJ_HTTP_RESPONSE_INIT;
    return get_range(s3, key, offset, length, sink, &response, err);
}

/* ---- head ---- */

static bool read_time(const lj_http_response *response, int64_t *ret_ns)
{
    char text[64];
    return lj_http_header(response, "last-modified", text, sizeof(text)) &&
           lj_http_date(text, ret_ns);
}

static lj_code no_answer(lj_error *err)
{
    lj_error_set(err, LJ_UNAVAILABLE, "the store does not say how large the object is, or how old");
    return lj_error_retryable(err, true);
}

/* What HEAD did not tell: a GET of one byte has a body when it fails, and the size when it does not. */
static lj_code ask_with_get(lj_s3 *s3, const char *key, lj_storage_entry *entry, lj_error *err)
{
    LJ_CLEANUP(lj_http_response_free) lj_http_response response = LJ_HTTP_RESPONSE_INIT;
    lj_sink sink = lj_sink_nowhere();
    char text[96];
    uint64_t first = 0;
    uint64_t last = 0;
    LJ_TRY(get_range(s3, key, 0, 1, &sink, &response, err));
    if (!read_time(&response, &entry->created_ns) && entry->created_ns == 0)
        return no_answer(err);
    if (lj_http_header(&response, "content-range", text, sizeof(text)) &&
        (lj_str_starts(text, "bytes */")
             ? lj_str_u64(text + strlen("bytes */"), &entry->size_bytes)
             : parse_content_range(text, &first, &last, &entry->size_bytes)) &&
        entry->size_bytes != UINT64_MAX)
        return LJ_OK;
    if (lj_http_header(&response, "content-length", text, sizeof(text)) && response.status == 200 &&
        lj_str_u64(text, &entry->size_bytes))
        return LJ_OK;
    return no_answer(err);
}

/*
 * LJ_OK with any status that a GET may say more about. A store that is busy or broken is not asked again: it may have said
 * when it wants the next request.
 */
static lj_code head_request(lj_s3 *s3, const char *key, lj_http_response *response, lj_error *err)
{
    lj_s3_request request = {.method = "HEAD", .key = key, .customer_key = true};
    lj_error why = LJ_ERROR_INIT;
    lj_code code = lj_s3_call(s3, &request, response, NULL, &why);
    int status = why.http_status;
    bool unclear = status != 0 && status != 429 && (status < 500 || status == 501);
    if (code == LJ_OK || unclear)
        return LJ_OK;
    if (err != NULL)
        *err = why;
    return code;
}

static bool head_tells(const lj_http_response *response, lj_storage_entry *entry)
{
    char text[32];
    return response->status == 200 && read_time(response, &entry->created_ns) &&
           lj_http_header(response, "content-length", text, sizeof(text)) &&
           lj_str_u64(text, &entry->size_bytes);
}

lj_code lj_s3_head(void *self, const char *key, lj_storage_entry *ret_entry, lj_error *err)
{
    lj_s3 *s3 = self;
    LJ_CLEANUP(lj_http_response_free) lj_http_response response = LJ_HTTP_RESPONSE_INIT;
    lj_storage_entry entry = {.key = key};
    LJ_TRY(head_request(s3, key, &response, err));
    if (!head_tells(&response, &entry))
        LJ_TRY(ask_with_get(s3, key, &entry, err));
    *ret_entry = entry;
    return LJ_OK;
}

lj_code lj_s3_exists(lj_s3 *s3, const char *key, bool *ret_exists, uint64_t *ret_size,
                     lj_error *err)
{
    LJ_CLEANUP(lj_http_response_free) lj_http_response response = LJ_HTTP_RESPONSE_INIT;
    lj_storage_entry entry = {.key = key};
    LJ_TRY(head_request(s3, key, &response, err));
    *ret_exists = true;
    if (head_tells(&response, &entry)) {
        *ret_size = entry.size_bytes;
        return LJ_OK;
    }
    if (response.status == 404) { /* a put follows, which tells when it is the bucket's */
        *ret_exists = false;
        return LJ_OK;
    }
    lj_error why = LJ_ERROR_INIT;
    lj_code code = ask_with_get(s3, key, &entry, &why);
    if (code == LJ_NOTFOUND)
        *ret_exists = false;
    else if (code == LJ_OK)
        *ret_size = entry.size_bytes;
    else if (err != NULL)
        *err = why;
    return code == LJ_NOTFOUND ? LJ_OK : code;
}
