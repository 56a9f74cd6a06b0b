/*
 * fetch.h - one object from the replica, decompressed and verified, into a sink; transient failures are retried.
 *
 * Layer: restore (internal). Thread-safety: calls may run at the same time on one setup.
 */
#ifndef LJ_FETCH_H
#define LJ_FETCH_H

#include "vfs/codec/lz4.h"
#include "vfs/replica/label.h"
#include "vfs/storage/storage.h"

typedef struct {
    lj_storage *storage;
    const bool *cancel; /* polled; may be NULL */
    const bool *abort;  /* polled too: another part of the restore failed; may be NULL */
    /* told about every piece of compressed bytes that arrived; may be NULL */
    void (*received)(void *ctx, size_t bytes);
    void *ctx;
} lj_fetch;

/* LJ_CANCELLED when one of the flags is set. */
LJ_WARN_UNUSED lj_code lj_fetch_check(const lj_fetch *fetch, lj_error *err);

/*
 * Sends the decompressed object to `sink`. A transfer that breaks is taken up again at the byte it stopped at, a few
 * times without progress, with growing pauses. A large object of a store behind a network (LJ_STORAGE_REMOTE) is fetched
 * in ranges side by side (ranges.h); `size_bytes` is its size in the listing, 0 when it is not known, and there an answer
 * that is shorter counts as broken. Success means that the
 * LZ4 frame was complete and its checksum right (what the sink got before that is only good then), and that its label, if
 * it has one, names this key and the size. *ret_label is that label, or its kind is LJ_NAME_FOREIGN. Errors: LJ_NOTFOUND
 * when the object is gone; LJ_CORRUPT and LJ_UNSUPPORTED for its content; LJ_CANCELLED; those of the storage; the sink's
 * own, unchanged.
 */
LJ_WARN_UNUSED lj_code lj_fetch_object(const lj_fetch *fetch, const char *key, uint64_t size_bytes,
                                       lj_sink *sink, lj_label *ret_label, lj_error *err);

/*
 * Bytes offset..offset+length-1 of the object as they are (length -1: to the end), with the same retries. *ret_received
 * (may be NULL) counts what the sink took, also on failure.
 */
LJ_WARN_UNUSED lj_code lj_fetch_bytes(const lj_fetch *fetch, const char *key, uint64_t offset,
                                      int64_t length, lj_sink *sink, uint64_t *ret_received,
                                      lj_error *err);

#endif
