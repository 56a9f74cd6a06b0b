/* wal_test.c - header, frames and chain, for every page size and both checksum byte orders. */
#include "test/unit/unit.h"

#include "vfs/wal/wal.h"

static const uint32_t page_sizes[] = {512, 1024, 2048, 4096, 8192, 16384, 32768, 65536};

static void fill(uint8_t *page, uint32_t size, unsigned seed)
{
    for (uint32_t i = 0; i < size; i++)
        page[i] = (uint8_t)(seed * 31 + i * 7);
}

static void chain_accepts_what_it_wrote(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    for (size_t p = 0; p < LJ_ARRAY_LEN(page_sizes); p++) {
        for (int big = 0; big < 2; big++) {
            uint32_t size = page_sizes[p];
            lj_wal_header header = {.big_endian = big,
                                    .page_size = size,
                                    .checkpoint = 3,
                                    .salt = {.salt1 = 17, .salt2 = 99}};
            uint8_t raw[LJ_WAL_HEADER_BYTES];
            lj_wal_header_write(&header, raw);
            lj_wal_header back;
            assert_ok(lj_wal_header_parse(raw, &back, &err), &err);
            assert_memory_equal(&back.cksum, &header.cksum, sizeof(back.cksum));
            assert_int_equal(back.big_endian, big);

            size_t frame_bytes = lj_wal_frame_bytes(size);
            uint8_t *frame = malloc(frame_bytes * 3);
            assert_non_null(frame);
            lj_wal_cksum sum = header.cksum;
            for (uint32_t i = 0; i < 3; i++) {
                uint8_t *f = frame + i * frame_bytes;
                fill(f + 24, size, i);
                lj_wal_frame_write(&header, &sum, i + 1, i == 1 ? 2 : 0, f + 24, f);
            }
            lj_wal_chain chain;
            lj_wal_chain_start(&chain, &back);
            lj_wal_frame got;
            for (int i = 0; i < 3; i++)
                assert_int_equal(lj_wal_chain_next(&chain, frame + (size_t)i * frame_bytes, &got),
                                 LJ_WAL_FRAME_OK);
            assert_int_equal(chain.frames, 3);
            assert_int_equal(chain.committed, 2);
            assert_int_equal(chain.db_pages, 2);

            /* resume behind the commit gives the same end */
            lj_wal_chain resumed;
            lj_wal_chain_resume(&resumed, &back, 2, chain.committed_sum);
            assert_int_equal(lj_wal_chain_next(&resumed, frame + 2 * frame_bytes, &got),
                             LJ_WAL_FRAME_OK);
            assert_memory_equal(&resumed.sum, &chain.sum, sizeof(chain.sum));
            assert_int_equal(resumed.committed, 2);

            /* any flipped bit breaks it and leaves the chain alone */
            lj_wal_chain_start(&chain, &back);
            frame[frame_bytes - 1] ^= 1;
            assert_int_equal(lj_wal_chain_next(&chain, frame, &got), LJ_WAL_FRAME_CHECKSUM);
            assert_int_equal(chain.frames, 0);
            frame[8] ^= 1;
            assert_int_equal(lj_wal_chain_next(&chain, frame, &got), LJ_WAL_FRAME_SALT);
            free(frame);
        }
    }
}

static void bad_headers(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    lj_wal_header header = {.page_size = 4096};
    uint8_t good[LJ_WAL_HEADER_BYTES];
    lj_wal_header_write(&header, good);
    for (size_t i = 0; i < LJ_WAL_HEADER_BYTES; i++) {
        uint8_t raw[LJ_WAL_HEADER_BYTES];
        memcpy(raw, good, sizeof(raw));
        raw[i] ^= 0x10;
        lj_wal_header out = {.page_size = 1};
        assert_int_equal(lj_wal_header_parse(raw, &out, &err), LJ_CORRUPT);
        assert_int_equal(out.page_size, 1);
    }
}

static void offsets(void **state)
{
    (void)state;
    assert_int_equal(lj_wal_frame_offset(4096, 1), 32);
    assert_int_equal(lj_wal_frame_offset(4096, 2), 4152);
    assert_int_equal(lj_wal_frames_below(4096, 0), 0);
    assert_int_equal(lj_wal_frames_below(4096, 32), 0);
    assert_int_equal(lj_wal_frames_below(4096, 4151), 0);
    assert_int_equal(lj_wal_frames_below(4096, 4152), 1);
    assert_false(lj_wal_page_size_ok(0));
    assert_false(lj_wal_page_size_ok(1000));
    assert_false(lj_wal_page_size_ok(131072));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chain_accepts_what_it_wrote),
        cmocka_unit_test(bad_headers),
        cmocka_unit_test(offsets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
