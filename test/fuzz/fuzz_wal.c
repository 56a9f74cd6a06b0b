/*
 * fuzz_wal.c - the WAL header and frame chain over arbitrary bytes.
 *
 * The first byte chooses. Even: the rest is read as a WAL file. Odd: the rest describes a good WAL (page size, byte
 * order, which frames commit, content) and one byte to damage in it, because random bytes never get past a
 * checksum; the chain must accept everything before the damaged frame and stop there.
 */
#include "test/fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "vfs/wal/wal.h"

#define FRAMES_MAX   6u
#define RECIPE_BYTES 9u

static bool chains_equal(const lj_wal_chain *a, const lj_wal_chain *b)
{
    return lj_wal_cksum_eq(a->sum, b->sum) && a->frames == b->frames &&
           a->committed == b->committed && lj_wal_cksum_eq(a->committed_sum, b->committed_sum);
}

/* Accepts frames until one is refused or the bytes end; the verdict is that of the last frame looked at. */
static lj_wal_verdict walk(lj_wal_chain *chain, const uint8_t *wal, size_t size)
{
    uint32_t page_size = chain->header.page_size;
    lj_wal_verdict verdict = LJ_WAL_FRAME_OK;
    while (lj_wal_frame_offset(page_size, chain->frames + 2) <= size) {
        lj_wal_chain before = *chain;
        lj_wal_frame frame;
        verdict = lj_wal_chain_next(chain, wal + lj_wal_frame_offset(page_size, chain->frames + 1),
                                    &frame);
        FUZZ_CHECK(lj_wal_verdict_text(verdict) != NULL);
        if (verdict != LJ_WAL_FRAME_OK) {
            FUZZ_CHECK(chains_equal(&before, chain));
            break;
        }
        FUZZ_CHECK(chain->frames == before.frames + 1);
        FUZZ_CHECK(chain->committed == (frame.db_pages != 0 ? chain->frames : before.committed));
        FUZZ_CHECK(frame.pgno != 0);
    }
    return verdict;
}

/* A walk resumed behind the last commit ends where the whole walk ended. */
static void check_resume(const lj_wal_chain *whole, const uint8_t *wal, size_t size)
{
    lj_wal_chain resumed;
    lj_wal_chain_resume(&resumed, &whole->header, whole->committed, whole->committed_sum);
    (void)walk(&resumed, wal, size);
    FUZZ_CHECK(chains_equal(whole, &resumed));
}

static void raw_wal(const uint8_t *wal, size_t size)
{
    lj_error err = LJ_ERROR_INIT;
    lj_wal_header header;
    memset(&header, 0, sizeof(header));
    if (size < LJ_WAL_HEADER_BYTES)
        return;
    if (lj_wal_header_parse(wal, &header, &err) != LJ_OK) {
        FUZZ_CHECK(header.page_size == 0 && err.code == LJ_CORRUPT && err.message[0] != 0);
        return;
    }
    uint8_t again[LJ_WAL_HEADER_BYTES];
    lj_wal_header copy = header;
    lj_wal_header_write(&copy, again);
    FUZZ_CHECK(memcmp(wal, again, sizeof(again)) == 0);
    FUZZ_CHECK(lj_wal_page_size_ok(header.page_size));

    lj_wal_chain chain;
    lj_wal_chain_start(&chain, &header);
    (void)walk(&chain, wal, size);
    FUZZ_CHECK(chain.committed <= chain.frames);
    FUZZ_CHECK(chain.frames <= lj_wal_frames_below(header.page_size, size));
    check_resume(&chain, wal, size);
}

/* Where a changed byte is noticed: in the header (0), or in that frame. */
static uint64_t frame_of(uint32_t page_size, size_t offset)
{
    return offset < LJ_WAL_HEADER_BYTES ? 0 : lj_wal_frames_below(page_size, offset) + 1;
}

static void damaged_wal(const uint8_t *recipe, size_t size)
{
    if (size < RECIPE_BYTES)
        return;
    uint32_t page_size = LJ_WAL_PAGE_MIN << (recipe[0] % 8);
    uint32_t frames = recipe[1] % FRAMES_MAX + 1;
    lj_wal_header header = {.big_endian = (recipe[2] & 1) != 0,
                            .page_size = page_size,
                            .checkpoint = recipe[3],
                            .salt = {.salt1 = recipe[4], .salt2 = lj_get_be32(recipe + 4)}};
    size_t total = (size_t)lj_wal_frame_offset(page_size, frames + 1);
    uint8_t *wal = calloc(1, total);
    if (wal == NULL)
        return;
    lj_wal_header_write(&header, wal);
    lj_wal_cksum sum = header.cksum;
    for (uint32_t i = 0; i < frames; i++) {
        uint8_t *frame = wal + lj_wal_frame_offset(page_size, i + 1);
        uint8_t *page = frame + LJ_WAL_FRAME_HEADER_BYTES;
        for (size_t k = 0; k < size && k < page_size; k++)
            page[k] = (uint8_t)(recipe[k] + i);
        lj_wal_frame_write(&header, &sum, i + 1, (recipe[3] >> i & 1) != 0 ? i + 1 : 0, page,
                           frame);
    }

    lj_wal_chain chain;
    lj_wal_chain_start(&chain, &header);
    FUZZ_CHECK(walk(&chain, wal, total) == LJ_WAL_FRAME_OK && chain.frames == frames);
    check_resume(&chain, wal, total);

    size_t damaged_at = lj_get_be32(recipe + 4) % total;
    uint8_t change = recipe[8] != 0 ? recipe[8] : 1;
    wal[damaged_at] ^= change;
    uint64_t damaged_frame = frame_of(page_size, damaged_at);
    lj_wal_header parsed;
    lj_code code = lj_wal_header_parse(wal, &parsed, NULL);
    FUZZ_CHECK((code == LJ_OK) == (damaged_frame != 0));
    if (code == LJ_OK) {
        lj_wal_chain_start(&chain, &parsed);
        FUZZ_CHECK(walk(&chain, wal, total) != LJ_WAL_FRAME_OK);
        FUZZ_CHECK(chain.frames == damaged_frame - 1);
    }
    free(wal);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    if ((data[0] & 1) == 0)
        raw_wal(data + 1, size - 1);
    else
        damaged_wal(data + 1, size - 1);
    return 0;
}
