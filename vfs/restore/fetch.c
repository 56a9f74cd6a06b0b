/*
 * fetch.c - see fetch.h. This is the restore's only level of retries.
 *
 * Layer: restore. Thread-safety: the state of a call is on its stack.
 */
#include "vfs/restore/fetch.h"

#include <inttypes.h>

#include "vfs/base/cancel.h"
#include "vfs/base/log.h"
#include "vfs/base/retry.h"
#include "vfs/restore/ranges.h"

#define ATTEMPTS_WITHOUT_PROGRESS 6u
#define FIRST_PAUSE_NS            (100 * LJ_NS_PER_MS)
#define LONGEST_PAUSE_NS          (5 * LJ_NS_PER_S)
#define ATTEMPTS_WHEN_GONE        3u

/* Stands between the storage and whoever takes the bytes. */
typedef struct {
    const lj_fetch *fetch;
    lj_sink *sink;
    uint64_t listed; /* size of the whole object, where that is what is fetched; 0: not known */
    uint64_t received;
    bool failed; /* behind us, not the transfer: trying again cannot help */
    lj_error error;
} counter;

lj_code lj_fetch_check(const lj_fetch *fetch, lj_error *err)
{
    if (lj_flag_is_set(fetch->cancel) || lj_flag_is_set(fetch->abort))
        return lj_error_set(err, LJ_CANCELLED, "the restore was cancelled");
    return LJ_OK;
}

static lj_code counter_write(void *ctx, const void *data, size_t len, lj_error *err)
{
    counter *c = ctx;
    lj_code code = lj_fetch_check(c->fetch, &c->error);
    if (code == LJ_OK)
        code = c->sink->write(c->sink->ctx, data, len, &c->error);
    if (code != LJ_OK) {
        c->failed = true;
        if (err != NULL)
            *err = c->error;
        return code;
    }
    c->received += len;
    if (c->fetch->received != NULL)
        c->fetch->received(c->fetch->ctx, len);
    return LJ_OK;
}

/*
 * A listed object that is not there: retention, which a new plan answers (run.c), or a store that needs a moment until
 * all of it has heard of the object.
 */
static bool may_appear(const lj_fetch *fetch, const counter *c, const lj_error *err,
                       unsigned attempt)
{
    return err->code == LJ_NOTFOUND && c->received == 0 && attempt < ATTEMPTS_WHEN_GONE &&
           (lj_storage_features(fetch->storage) & LJ_STORAGE_REMOTE) != 0;
}

/* Something between may end an answer early and say that this was all. Objects do not change, so the listing is right. */
static lj_code check_length(const counter *c, const char *key, lj_error *err)
{
    if (c->received >= c->listed ||
        (lj_storage_features(c->fetch->storage) & LJ_STORAGE_REMOTE) == 0)
        return LJ_OK;
    lj_error_set(err, LJ_UNAVAILABLE,
                 "%s: only %" PRIu64 " of the %" PRIu64 " bytes that were listed came", key,
                 c->received, c->listed);
    return lj_error_retryable(err, true);
}

static lj_code transfer(counter *c, const char *key, uint64_t offset, int64_t length, lj_error *err)
{
    const lj_fetch *fetch = c->fetch;
    lj_sink sink = {.ctx = c, .write = counter_write};
    unsigned attempt = 0;
    for (;;) {
        uint64_t before = c->received;
        int64_t left = length < 0 ? -1 : length - (int64_t)before;
        lj_code code = lj_storage_get(fetch->storage, key, offset + before, left, &sink, err);
        if (code == LJ_OK)
            code = check_length(c, key, err);
        if (code == LJ_OK)
            return LJ_OK;
        if (c->failed) {
            *err = c->error;
            return err->code;
        }
        if (c->received > before)
            attempt = 0;
        if (!may_appear(fetch, c, err, attempt) &&
            (!lj_retry_may_pass(err) || attempt + 1 >= ATTEMPTS_WITHOUT_PROGRESS))
            return code;
        lj_log(LJ_LOG_INFO, "%s: going on at byte %" PRIu64 " after: %s", key, offset + c->received,
               err->message);
        if (!lj_retry_pause(attempt++, FIRST_PAUSE_NS, LONGEST_PAUSE_NS, err->retry_after_ns,
                            fetch->cancel, fetch->abort))
            return lj_fetch_check(fetch, err);
    }
}

lj_code lj_fetch_bytes(const lj_fetch *fetch, const char *key, uint64_t offset, int64_t length,
                       lj_sink *sink, uint64_t *ret_received, lj_error *err)
{
    lj_error local = LJ_ERROR_INIT;
    counter c = {.fetch = fetch, .sink = sink, .error = LJ_ERROR_INIT};
    lj_code code = transfer(&c, key, offset, length, err != NULL ? err : &local);
    if (ret_received != NULL)
        *ret_received = c.received;
    return code;
}

/* What the object says of itself must not speak against its name, nor against what came. */
static lj_code check_label(const lj_lz4_decoder *decoder, const char *key, lj_label *ret_label,
                           lj_error *err)
{
    size_t len = 0;
    const uint8_t *bytes = lj_lz4_decoder_label(decoder, &len);
    lj_label label = {.name.kind = LJ_NAME_FOREIGN}; /* another program wrote it */
    if (lj_label_read(bytes, len, &label)) {
        if (!lj_label_fits(&label, key)) {
            char own[LJ_NAME_MAX];
            lj_label_key(&label, own);
            return lj_error_set(err, LJ_CORRUPT, "%s holds another object, written as %s", key,
                                own);
        }
        if (label.size_bytes != lj_lz4_decoder_bytes_out(decoder))
            return lj_error_set(err, LJ_CORRUPT,
                                "%s has %" PRIu64 " bytes, it was written with %" PRIu64, key,
                                lj_lz4_decoder_bytes_out(decoder), label.size_bytes);
    }
    *ret_label = label;
    return LJ_OK;
}

lj_code lj_fetch_object(const lj_fetch *fetch, const char *key, uint64_t size_bytes, lj_sink *sink,
                        lj_label *ret_label, lj_error *err)
{
    lj_error local = LJ_ERROR_INIT;
    lj_error *error = err != NULL ? err : &local;
    lj_lz4_decoder *decoder = NULL;
    lj_sink compressed;
    LJ_TRY(lj_lz4_decoder_new(sink, &decoder, &compressed, error));
    lj_code code = LJ_OK;
    if (lj_ranges_wanted(fetch->storage, size_bytes)) {
        code = lj_ranges_get(fetch, key, size_bytes, &compressed, error);
    } else {
        counter c = {
            .fetch = fetch, .sink = &compressed, .listed = size_bytes, .error = LJ_ERROR_INIT};
        code = transfer(&c, key, 0, -1, error);
    }
    if (code == LJ_OK)
        code = lj_lz4_decoder_finish(decoder, error);
    if (code == LJ_OK)
        code = check_label(decoder, key, ret_label, error);
    if (code == LJ_OK && lj_lz4_decoder_trailing(decoder))
        lj_log(LJ_LOG_WARN, "%s: bytes behind the LZ4 frame were ignored", key);
    lj_lz4_decoder_free(decoder);
    return code;
}
