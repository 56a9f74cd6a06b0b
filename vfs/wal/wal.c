/*
 * wal.c - see wal.h.
 */
#include "vfs/wal/wal.h"

#include <string.h>

bool lj_wal_page_size_ok(uint32_t page_size)
{
    return page_size >= LJ_WAL_PAGE_MIN && page_size <= LJ_WAL_PAGE_MAX &&
           (page_size & (page_size - 1)) == 0;
}

static inline uint32_t load_native(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof(v));
    return v;
}

lj_wal_cksum lj_wal_checksum(bool big_endian, lj_wal_cksum sum, const void *data, size_t len)
{
    const uint8_t *p = data;
    const uint8_t *end = p + (len & ~(size_t)7);
    uint32_t s1 = sum.s1;
    uint32_t s2 = sum.s2;
    const bool native = big_endian == (__BYTE_ORDER__ == __ORDER_BIG_ENDIAN__);
    if (native) {
        for (; p < end; p += 8) {
            s1 += load_native(p) + s2;
            s2 += load_native(p + 4) + s1;
        }
    } else {
        for (; p < end; p += 8) {
            s1 += __builtin_bswap32(load_native(p)) + s2;
            s2 += __builtin_bswap32(load_native(p + 4)) + s1;
        }
    }
    return (lj_wal_cksum){.s1 = s1, .s2 = s2};
}

lj_code lj_wal_header_parse(const uint8_t data[LJ_WAL_HEADER_BYTES], lj_wal_header *ret_header,
                            lj_error *err)
{
    uint32_t magic = lj_get_be32(data);
    if ((magic & ~1u) != LJ_WAL_MAGIC_LE)
        return lj_error_set(err, LJ_CORRUPT, "not a WAL header: magic 0x%08x", magic);
    uint32_t version = lj_get_be32(data + 4);
    if (version != LJ_WAL_VERSION)
        return lj_error_set(err, LJ_CORRUPT, "WAL format version %u is not %u", version,
                            LJ_WAL_VERSION);
    lj_wal_header header = {
        .big_endian = (magic & 1u) != 0,
        .page_size = lj_get_be32(data + 8),
        .checkpoint = lj_get_be32(data + 12),
        .salt = {.salt1 = lj_get_be32(data + 16), .salt2 = lj_get_be32(data + 20)},
        .cksum = {.s1 = lj_get_be32(data + 24), .s2 = lj_get_be32(data + 28)},
    };
    if (!lj_wal_page_size_ok(header.page_size))
        return lj_error_set(err, LJ_CORRUPT, "WAL header has page size %u", header.page_size);
    lj_wal_cksum sum = lj_wal_checksum(header.big_endian, (lj_wal_cksum){0, 0}, data, 24);
    if (!lj_wal_cksum_eq(sum, header.cksum))
        return lj_error_set(err, LJ_CORRUPT, "WAL header checksum does not match");
    *ret_header = header;
    return LJ_OK;
}

void lj_wal_header_write(lj_wal_header *header, uint8_t out[LJ_WAL_HEADER_BYTES])
{
    lj_put_be32(out, LJ_WAL_MAGIC_LE | (header->big_endian ? 1u : 0u));
    lj_put_be32(out + 4, LJ_WAL_VERSION);
    lj_put_be32(out + 8, header->page_size);
    lj_put_be32(out + 12, header->checkpoint);
    lj_put_be32(out + 16, header->salt.salt1);
    lj_put_be32(out + 20, header->salt.salt2);
    header->cksum = lj_wal_checksum(header->big_endian, (lj_wal_cksum){0, 0}, out, 24);
    lj_put_be32(out + 24, header->cksum.s1);
    lj_put_be32(out + 28, header->cksum.s2);
}

void lj_wal_frame_parse(const uint8_t data[LJ_WAL_FRAME_HEADER_BYTES], lj_wal_frame *ret_frame)
{
    *ret_frame = (lj_wal_frame){
        .pgno = lj_get_be32(data),
        .db_pages = lj_get_be32(data + 4),
        .salt = {.salt1 = lj_get_be32(data + 8), .salt2 = lj_get_be32(data + 12)},
        .cksum = {.s1 = lj_get_be32(data + 16), .s2 = lj_get_be32(data + 20)},
    };
}

void lj_wal_frame_write(const lj_wal_header *header, lj_wal_cksum *sum, uint32_t pgno,
                        uint32_t db_pages, const void *page, uint8_t out[LJ_WAL_FRAME_HEADER_BYTES])
{
    lj_put_be32(out, pgno);
    lj_put_be32(out + 4, db_pages);
    lj_put_be32(out + 8, header->salt.salt1);
    lj_put_be32(out + 12, header->salt.salt2);
    *sum = lj_wal_checksum(header->big_endian, *sum, out, 8);
    *sum = lj_wal_checksum(header->big_endian, *sum, page, header->page_size);
    lj_put_be32(out + 16, sum->s1);
    lj_put_be32(out + 20, sum->s2);
}

void lj_wal_chain_start(lj_wal_chain *chain, const lj_wal_header *header)
{
    lj_wal_chain_resume(chain, header, 0, header->cksum);
}

void lj_wal_chain_resume(lj_wal_chain *chain, const lj_wal_header *header, uint64_t frames,
                         lj_wal_cksum sum)
{
    *chain = (lj_wal_chain){.header = *header,
                            .sum = sum,
                            .frames = frames,
                            .committed = frames,
                            .db_pages = 0,
                            .committed_sum = sum};
}

lj_wal_verdict lj_wal_chain_next(lj_wal_chain *chain, const uint8_t *frame, lj_wal_frame *ret_frame)
{
    lj_wal_frame_parse(frame, ret_frame);
    if (!lj_wal_salt_eq(ret_frame->salt, chain->header.salt))
        return LJ_WAL_FRAME_SALT;
    if (ret_frame->pgno == 0)
        return LJ_WAL_FRAME_PAGE;
    bool big_endian = chain->header.big_endian;
    lj_wal_cksum sum = lj_wal_checksum(big_endian, chain->sum, frame, 8);
    sum = lj_wal_checksum(big_endian, sum, frame + LJ_WAL_FRAME_HEADER_BYTES,
                          chain->header.page_size);
    if (!lj_wal_cksum_eq(sum, ret_frame->cksum))
        return LJ_WAL_FRAME_CHECKSUM;
    chain->sum = sum;
    chain->frames++;
    if (ret_frame->db_pages != 0) {
        chain->committed = chain->frames;
        chain->db_pages = ret_frame->db_pages;
        chain->committed_sum = sum;
    }
    return LJ_WAL_FRAME_OK;
}

const char *lj_wal_verdict_text(lj_wal_verdict verdict)
{
    switch (verdict) {
    case LJ_WAL_FRAME_OK:
        return "valid";
    case LJ_WAL_FRAME_SALT:
        return "its salts are of another WAL";
    case LJ_WAL_FRAME_CHECKSUM:
        return "its checksum does not continue the chain";
    case LJ_WAL_FRAME_PAGE:
        return "it names page 0";
    }
    return "unknown";
}
