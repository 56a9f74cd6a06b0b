/*
 * parts.h - a source that becomes one request when it is small, and parts sent side by side when it is not.
 *
 * Stores take a large object in parts (S3 multipart, Azure block list), each with its length and hash ahead. So a part
 * is read into memory, then sent by a thread of this upload while the next is being read. Memory: LJ_PARTS_SMALL_MAX
 * bytes for the head, which go when the first part is read; for a large object LJ_PARTS_SENDERS parts at most, and in all
 * uploads of the process together LJ_PARTS_BUFFERS (an upload that gets none has one part in memory and sends its parts one
 * after another).
 *
 * A part that fails in a way that may pass is sent again a few times over about six seconds (or as long as the server asks),
 * so that a hiccup in hour two does not begin the upload anew; everything above a part is the shipper's to retry.
 *
 * Layer: storage. Thread-safety: a call is independent of all others.
 */
#ifndef LJ_PARTS_H
#define LJ_PARTS_H

#include "vfs/base/buf.h"
#include "vfs/base/stream.h"

#define LJ_PARTS_SMALL_MAX ((size_t)8 * 1024 * 1024) /* up to here: one request */
#define LJ_PARTS_SENDERS   4u
#define LJ_PARTS_BUFFERS   6u
#define LJ_PARTS_ATTEMPTS  7u /* of one part */

/*
 * Reads the source up to LJ_PARTS_SMALL_MAX + 1 bytes into `head` (LJ_BUF_INIT(LJ_PARTS_SMALL_MAX + 1)).
 * *ret_whole: that was all of it.
 */
LJ_WARN_UNUSED lj_code lj_parts_head(lj_source *source, lj_buf *head, bool *ret_whole,
                                     lj_error *err);

typedef struct {
    void *ctx;
    uint32_t parts_max; /* the store's limit: 10,000 or 50,000; more is LJ_INVALID */
    bool
        equal; /* the store refuses parts that differ in size; limits the object to parts_max of them */
    const bool *cancel; /* polled between parts and retries; may be NULL */
    /*
     * Sends part `number` (from 1) of `len` bytes. Called from several threads. Every part but the last has the same size
     * as its neighbours: LJ_PARTS_SMALL_MAX, from part 1,001 on twice that, and so on: 10,000 parts hold 430 GiB. With
     * `equal` all have the first size.
     */
    lj_code (*send)(void *ctx, uint32_t number, const uint8_t *data, size_t len, lj_error *err);
} lj_parts_job;

/*
 * Sends `head` and the rest of `source` in parts; the head is freed on the way. LJ_OK: *ret_count parts are there. Else the error of the part that
 * failed first, of the source, or LJ_CANCELLED; no `send` is running any more, and no part is begun or repeated after a
 * failure.
 */
LJ_WARN_UNUSED lj_code lj_parts_send(lj_source *source, lj_buf *head, const lj_parts_job *job,
                                     uint32_t *ret_count, lj_error *err);

/*
 * For drivers that send their parts in a way of their own: waits before attempt `attempt` + 1 (from 0) of a part: a random time that grows, but never less than the server asked
 * for, up to a minute. false: cancelled meanwhile (`cancel` may be NULL).
 */
bool lj_parts_pause(const bool *cancel, unsigned attempt, int64_t retry_after_ns);
/*
 * For an upload whose last request got no answer, so that it may have been carried out, and that then ended with `err`: a
 * refusal of what was asked later is none of the object's. It becomes LJ_UNAVAILABLE without a status. Returns the code.
 */
lj_code lj_parts_unclear(lj_error *err);

#endif
