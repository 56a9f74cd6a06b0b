/*
 * stream.h - the two byte-stream interfaces everything that moves data agrees on.
 *
 * A lj_source is pulled (a segment, a snapshot, a compressor around another source). It can be rewound, so that
 * a failed upload is tried again with the same bytes. A lj_sink is pushed into (a file being restored, a
 * decompressor in front of another sink).
 *
 * Layer: base. Thread-safety: a stream belongs to one thread at a time. The object behind `ctx` is owned by
 * whoever made the stream.
 */
#ifndef LJ_STREAM_H
#define LJ_STREAM_H

#include "vfs/base/error.h"

typedef struct {
    void *ctx;
    /* Reads up to max bytes; *ret_n == 0 only at the end. */
    lj_code (*read)(void *ctx, void *out, size_t max, size_t *ret_n, lj_error *err);
    /* Starts again at the first byte; the bytes are the same as before, or read fails. */
    lj_code (*rewind)(void *ctx, lj_error *err);
    /* Total number of bytes, or -1 when it is only known at the end. */
    int64_t size;
} lj_source;

typedef struct {
    void *ctx;
    /* Takes all of `data` or fails; a failure is final and is returned to whoever drives the transfer. */
    lj_code (*write)(void *ctx, const void *data, size_t len, lj_error *err);
} lj_sink;

/* A source over bytes in memory. `state` is the caller's and must outlive the source. */
typedef struct {
    const uint8_t *data;
    size_t len;
    size_t pos;
} lj_memory_source;
lj_source lj_source_memory(lj_memory_source *state, const void *data, size_t len);

/* A sink that appends to a lj_buf (vfs/base/buf.h); fails when its maximum is reached. */
lj_sink lj_sink_buf(void *buf);

/* A sink that takes everything and keeps nothing. */
lj_sink lj_sink_nowhere(void);

/* Reads the source to its end into the sink through a buffer of 64 KiB. */
LJ_WARN_UNUSED lj_code lj_stream_copy(lj_source *source, lj_sink *sink, uint64_t *ret_bytes,
                                      lj_error *err);

#endif
