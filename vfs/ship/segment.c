/*
 * segment.c - see segment.h.
 */
#include "vfs/ship/segment.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "vfs/base/io.h"

#define BUFFER_BYTES (128u * 1024u)

static lj_code segment_rewind(void *ctx, lj_error *err)
{
    (void)err;
    lj_segment *s = ctx;
    lj_wal_chain_resume(&s->chain, &s->header, lj_wal_frames_below(s->header.page_size, s->from),
                        s->sum_from);
    s->at = s->from;
    s->len = 0;
    s->pos = 0;
    return LJ_OK;
}

lj_code lj_segment_init(lj_segment *segment, int fd, const lj_wal_header *header, uint64_t from,
                        uint64_t to, lj_wal_cksum sum_from, lj_error *err)
{
    uint32_t frame_bytes = lj_wal_frame_bytes(header->page_size);
    *segment =
        (lj_segment){.fd = fd, .header = *header, .from = from, .to = to, .sum_from = sum_from};
    segment->buffer_size = LJ_MAX((size_t)1, (size_t)(BUFFER_BYTES / frame_bytes)) * frame_bytes;
    segment->buffer = malloc(segment->buffer_size);
    if (segment->buffer == NULL)
        return lj_error_nomem(err);
    return segment_rewind(segment, err);
}

void lj_segment_free(lj_segment *segment)
{
    free(segment->buffer);
    segment->buffer = NULL;
}

/* The 32 bytes in front of the first frame; they must still be the header the frames were written under. */
static lj_code read_header(lj_segment *s, lj_error *err)
{
    size_t n = 0;
    lj_wal_header now;
    LJ_TRY(lj_io_pread(s->fd, s->buffer, LJ_WAL_HEADER_BYTES, 0, &n, err));
    if (n != LJ_WAL_HEADER_BYTES)
        return lj_error_set(err, LJ_CORRUPT, "the WAL has no header");
    LJ_TRY(lj_wal_header_parse(s->buffer, &now, err));
    if (!lj_wal_salt_eq(now.salt, s->header.salt))
        return lj_error_set(err, LJ_CORRUPT, "the WAL was restarted");
    s->len = LJ_WAL_HEADER_BYTES;
    s->at = LJ_WAL_HEADER_BYTES;
    return LJ_OK;
}

static lj_code read_frames(lj_segment *s, lj_error *err)
{
    size_t frame_bytes = lj_wal_frame_bytes(s->header.page_size);
    size_t want = (size_t)LJ_MIN((uint64_t)s->buffer_size, s->to - s->at);
    size_t n = 0;
    LJ_TRY(lj_io_pread(s->fd, s->buffer, want, s->at, &n, err));
    if (n != want)
        return lj_error_set(err, LJ_CORRUPT, "the WAL ends at %" PRIu64 ", before %" PRIu64,
                            s->at + n, s->to);
    for (size_t i = 0; i < want; i += frame_bytes) {
        lj_wal_frame frame;
        lj_wal_verdict verdict = lj_wal_chain_next(&s->chain, s->buffer + i, &frame);
        if (verdict != LJ_WAL_FRAME_OK)
            return lj_error_set(err, LJ_CORRUPT, "frame %" PRIu64 " of the WAL is not valid: %s",
                                s->chain.frames + 1, lj_wal_verdict_text(verdict));
    }
    s->at += want;
    s->len = want;
    if (s->at == s->to && s->chain.committed != s->chain.frames)
        return lj_error_set(err, LJ_CORRUPT,
                            "frame %" PRIu64 " of the WAL does not end a transaction",
                            s->chain.frames);
    return LJ_OK;
}

static lj_code segment_read(void *ctx, void *out, size_t max, size_t *ret_n, lj_error *err)
{
    lj_segment *s = ctx;
    if (s->pos == s->len && s->at < s->to) {
        s->pos = 0;
        s->len = 0;
        if (s->at == 0)
            LJ_TRY(read_header(s, err));
        else
            LJ_TRY(read_frames(s, err));
    }
    size_t n = LJ_MIN(max, s->len - s->pos);
    memcpy(out, s->buffer + s->pos, n);
    s->pos += n;
    *ret_n = n;
    return LJ_OK;
}

lj_source lj_segment_source(lj_segment *segment)
{
    return (lj_source){.ctx = segment,
                       .read = segment_read,
                       .rewind = segment_rewind,
                       .size = (int64_t)(segment->to - segment->from)};
}
