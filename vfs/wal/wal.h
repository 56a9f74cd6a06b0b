/*
 * wal.h - the bytes of an SQLite write-ahead log: header, frames, checksum chain, positions.
 *
 * Layer: wal (pure: bytes in, bytes out; fuzzable). Thread-safety: pure functions over caller's memory.
 * Source: SQLite file format document, section 4 "The Write-Ahead Log" (format version 3007000).
 *
 * A WAL is a 32-byte header and frames of 24 + page_size bytes. All integers are big-endian. A frame is valid
 * when its salts equal the header's and the running checksum (header, then every frame in order: first 8 bytes of
 * the frame header, then the page) equals the one it carries. A frame with a non-zero db size ends a transaction.
 */
#ifndef LJ_WAL_H
#define LJ_WAL_H

#include "vfs/base/error.h"

#define LJ_WAL_HEADER_BYTES       32u
#define LJ_WAL_FRAME_HEADER_BYTES 24u
#define LJ_WAL_MAGIC_LE           0x377f0682u /* checksums over little-endian words; |1 = big-endian words */
#define LJ_WAL_VERSION            3007000u
#define LJ_WAL_PAGE_MIN           512u
#define LJ_WAL_PAGE_MAX           65536u

typedef struct {
    uint32_t salt1;
    uint32_t salt2;
} lj_wal_salt;

static inline bool lj_wal_salt_eq(lj_wal_salt a, lj_wal_salt b)
{
    return a.salt1 == b.salt1 && a.salt2 == b.salt2;
}

/* The running checksum after a header or a frame. */
typedef struct {
    uint32_t s1;
    uint32_t s2;
} lj_wal_cksum;

static inline bool lj_wal_cksum_eq(lj_wal_cksum a, lj_wal_cksum b)
{
    return a.s1 == b.s1 && a.s2 == b.s2;
}

typedef struct {
    bool big_endian;     /* byte order of the words the checksum is computed over */
    uint32_t page_size;  /* bytes, a power of two in 512..65536 */
    uint32_t checkpoint; /* checkpoint sequence number */
    lj_wal_salt salt;
    lj_wal_cksum cksum; /* of the header itself: where the chain starts */
} lj_wal_header;

typedef struct {
    uint32_t pgno; /* page number, from 1 */
    uint32_t
        db_pages; /* size of the database in pages after the commit; 0 unless this frame ends one */
    lj_wal_salt salt;
    lj_wal_cksum cksum; /* running checksum through this frame, as stored */
} lj_wal_frame;

/* Bytes of one frame, header included. */
static inline uint32_t lj_wal_frame_bytes(uint32_t page_size)
{
    return LJ_WAL_FRAME_HEADER_BYTES + page_size;
}

/* File offset of frame `number` (1-based); number = frame count + 1 gives the end of the file. */
static inline uint64_t lj_wal_frame_offset(uint32_t page_size, uint64_t number)
{
    return LJ_WAL_HEADER_BYTES + (number - 1) * lj_wal_frame_bytes(page_size);
}

/* Number of whole frames below file offset `end` (0 for end < 32). */
static inline uint64_t lj_wal_frames_below(uint32_t page_size, uint64_t end)
{
    return end < LJ_WAL_HEADER_BYTES ? 0
                                     : (end - LJ_WAL_HEADER_BYTES) / lj_wal_frame_bytes(page_size);
}

bool lj_wal_page_size_ok(uint32_t page_size);

/* Continues `sum` over len bytes (a multiple of 8) of words in the given byte order. */
lj_wal_cksum lj_wal_checksum(bool big_endian, lj_wal_cksum sum, const void *data, size_t len);

/* Parses and verifies 32 bytes: magic, version, page size, header checksum. LJ_CORRUPT says which one failed. */
LJ_WARN_UNUSED lj_code lj_wal_header_parse(const uint8_t data[LJ_WAL_HEADER_BYTES],
                                           lj_wal_header *ret_header, lj_error *err);
/* Writes a header with a correct checksum (header->cksum is ignored and set). For tests and tools. */
void lj_wal_header_write(lj_wal_header *header, uint8_t out[LJ_WAL_HEADER_BYTES]);

/* Reads the fields of a 24-byte frame header; no verification. */
void lj_wal_frame_parse(const uint8_t data[LJ_WAL_FRAME_HEADER_BYTES], lj_wal_frame *ret_frame);
/* Writes a frame header for `page` that continues the chain *sum, and moves *sum. For tests and tools. */
void lj_wal_frame_write(const lj_wal_header *header, lj_wal_cksum *sum, uint32_t pgno,
                        uint32_t db_pages, const void *page,
                        uint8_t out[LJ_WAL_FRAME_HEADER_BYTES]);

/* Where a walk through the frames of one WAL stands. Start it with lj_wal_chain_start. */
typedef struct {
    lj_wal_header header;
    lj_wal_cksum sum;   /* through the last accepted frame */
    uint64_t frames;    /* frames accepted so far, from the start of the WAL */
    uint64_t committed; /* the last accepted frame that ended a transaction, 0 = none */
    uint32_t db_pages;  /* database size after that transaction */
    lj_wal_cksum committed_sum;
} lj_wal_chain;

void lj_wal_chain_start(lj_wal_chain *chain, const lj_wal_header *header);
/*
 * Continues a walk in the middle: `frames` frames were verified before, the last of them a commit (or frames == 0)
 * and the running checksum behind it is `sum`.
 */
void lj_wal_chain_resume(lj_wal_chain *chain, const lj_wal_header *header, uint64_t frames,
                         lj_wal_cksum sum);

typedef enum {
    LJ_WAL_FRAME_OK,       /* accepted */
    LJ_WAL_FRAME_SALT,     /* left over from an earlier life of the file */
    LJ_WAL_FRAME_CHECKSUM, /* does not continue the chain (torn, rewritten or corrupt) */
    LJ_WAL_FRAME_PAGE,     /* page number 0 */
} lj_wal_verdict;

/*
 * Verifies the next frame (frame header and page, contiguous) and moves the chain when it is good; leaves
 * it alone otherwise. *ret_frame is set in both cases. Cost: one pass over the page.
 */
lj_wal_verdict lj_wal_chain_next(lj_wal_chain *chain, const uint8_t *frame,
                                 lj_wal_frame *ret_frame);
/* A short text for a verdict, for error messages. */
const char *lj_wal_verdict_text(lj_wal_verdict verdict);

#endif
