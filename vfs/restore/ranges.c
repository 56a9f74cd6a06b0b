/*
 * ranges.c - see ranges.h.
 *
 * Layer: restore. Thread-safety: a call's state is on its stack; its workers are those of parallel.h.
 */
#include "vfs/restore/ranges.h"

#include <inttypes.h>

#include "vfs/restore/parallel.h"

typedef struct {
    const lj_fetch *outer;
    lj_fetch fetch; /* the same, with an abort flag of our own */
    const char *key;
    uint64_t size_bytes;
    lj_sink *sink;
    bool abort;
} ranges;

bool lj_ranges_wanted(const lj_storage *storage, uint64_t size_bytes)
{
    return (lj_storage_features(storage) & LJ_STORAGE_REMOTE) != 0 &&
           size_bytes > 2 * LJ_RANGE_BYTES;
}

static lj_code fetch_range(void *ctx, size_t i, lj_sink *sink, lj_error *err)
{
    ranges *r = ctx;
    uint64_t offset = (uint64_t)i * LJ_RANGE_BYTES;
    uint64_t length = LJ_MIN(r->size_bytes - offset, (uint64_t)LJ_RANGE_BYTES);
    uint64_t received = 0;
    LJ_TRY(lj_fetch_check(r->outer, err));
    LJ_TRY(lj_fetch_bytes(&r->fetch, r->key, offset, (int64_t)length, sink, &received, err));
    if (received == length)
        return LJ_OK;
    lj_error_set(err, LJ_UNAVAILABLE,
                 "the object ends at byte %" PRIu64 ", the listing said it has %" PRIu64,
                 offset + received, r->size_bytes);
    return lj_error_retryable(err, true);
}

static lj_code begin_range(void *ctx, size_t i, lj_error *err)
{
    (void)i;
    return lj_fetch_check(((ranges *)ctx)->outer, err);
}

static lj_code range_data(void *ctx, size_t i, const void *data, size_t len, lj_error *err)
{
    (void)i;
    ranges *r = ctx;
    return len > 0 ? r->sink->write(r->sink->ctx, data, len, err) : LJ_OK;
}

static lj_code end_range(void *ctx, lj_parallel *parallel, size_t i, lj_error *err)
{
    (void)ctx, (void)parallel, (void)i, (void)err;
    return LJ_OK;
}

lj_code lj_ranges_get(const lj_fetch *fetch, const char *key, uint64_t size_bytes, lj_sink *sink,
                      lj_error *err)
{
    ranges r = {
        .outer = fetch, .fetch = *fetch, .key = key, .size_bytes = size_bytes, .sink = sink};
    r.fetch.abort = &r.abort;
    lj_parallel_job job = {
        .count = (size_t)((size_bytes + LJ_RANGE_BYTES - 1) / LJ_RANGE_BYTES),
        .workers = LJ_RANGES_WORKERS,
        .slot_bytes = LJ_RANGE_BYTES,
        .ctx = &r,
        .abort = &r.abort,
        .fetch = fetch_range,
        .begin = begin_range,
        .data = range_data,
        .end = end_range,
    };
    size_t failed = 0;
    return lj_parallel_run(&job, &failed, err);
}
