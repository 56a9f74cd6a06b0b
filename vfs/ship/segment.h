/*
 * segment.h - a range of committed frames as a source of bytes that verifies every frame it hands out.
 *
 * Layer: ship. Thread-safety: one owner. Memory: one read buffer (128 KiB or one frame, whichever is larger), kept for the
 * object's life and shared by all segments of a database one after another.
 */
#ifndef LJ_SEGMENT_H
#define LJ_SEGMENT_H

#include "vfs/base/stream.h"
#include "vfs/wal/wal.h"

typedef struct {
    int fd; /* borrowed: the -wal or a spool image, WAL offsets = file offsets */
    lj_wal_header header;
    uint64_t from;         /* 0 or a frame boundary */
    uint64_t to;           /* behind the commit frame that ends the segment */
    lj_wal_cksum sum_from; /* running checksum at `from`; of the header when from is 0 or 32 */

    lj_wal_chain chain; /* where reading stands */
    uint64_t at;        /* next byte of the file to be read */
    uint8_t *buffer;
    size_t buffer_size, len, pos;
} lj_segment;

/* Prepares a segment; `buffer` (NULL or a former one) is taken over. lj_segment_free releases it. */
LJ_WARN_UNUSED lj_code lj_segment_init(lj_segment *segment, int fd, const lj_wal_header *header,
                                       uint64_t from, uint64_t to, lj_wal_cksum sum_from,
                                       lj_error *err);
void lj_segment_free(lj_segment *segment);
/*
 * The bytes from..to-1. read fails with LJ_CORRUPT at a frame that does not verify and when the last frame does not end a
 * transaction: nothing that is not a whole number of transactions ever gets into the replica.
 */
lj_source lj_segment_source(lj_segment *segment);

#endif
