/* position_test.c - the position file: round trip, and damage at each byte. */
#include "test/unit/capture/kit.h"

#include <unistd.h>

#include "vfs/base/io.h"

static lj_saved_position full_position(void)
{
    lj_saved_position p;
    memset(&p, 0, sizeof(p));
    snprintf(p.at.generation, sizeof(p.at.generation), "%s", "00112233445566ff");
    p.at.index = 0x7ffffffe;
    p.at.offset = UINT64_C(0xfffffff0);
    p.salt = kit_salt(0xdeadbeef);
    p.sum = (lj_wal_cksum){.s1 = UINT32_MAX, .s2 = 1};
    p.page_size = 65536;
    p.big_endian = true;
    p.has_base = true;
    p.base_salt = kit_salt(7);
    p.base_frames = UINT64_C(1) << 40;
    p.prev_end = UINT64_C(1) << 33;
    p.has_identity = true;
    p.identity =
        (lj_identity){.inode = UINT64_MAX, .size_bytes = 8192, .mtime_ns = -5, .ctime_ns = 12};
    p.last_object_ns = INT64_C(1750000000123456789);
    p.snapshot_ns = 17;
    p.snapshot_at = p.at;
    p.snapshot_at.index = 3;
    p.snapshot_at.offset = 4152;
    lj_saved_position_own(&p, "aaaaaaaaaaaaaaaa");
    lj_saved_position_own(&p, "00112233445566ff");
    p.mark_end = UINT64_C(0xffffff01);
    p.home = (lj_home){.inode = UINT64_MAX - 1, .born_ns = -7};
    p.lineage[0].index = 12;
    p.lineage[0].offset = 4152;
    return p;
}

static void round_trip(void **state)
{
    const kit_dir *kit = *state;
    lj_error err = LJ_ERROR_INIT;
    lj_saved_position in = full_position();
    lj_saved_position out;
    memset(&out, 0, sizeof(out));
    assert_ok(lj_saved_position_store(kit->position_path, &in, true, &err), &err);
    assert_ok(lj_saved_position_load(kit->position_path, &out, &err), &err);
    assert_string_equal(out.at.generation, in.at.generation);
    assert_int_equal(lj_position_compare(&out.at, &in.at), 0);
    assert_true(lj_wal_salt_eq(out.salt, in.salt) && lj_wal_cksum_eq(out.sum, in.sum));
    assert_int_equal(out.page_size, in.page_size);
    assert_true(out.big_endian && out.has_base && out.has_identity);
    assert_true(lj_wal_salt_eq(out.base_salt, in.base_salt));
    assert_true(out.base_frames == in.base_frames);
    assert_true(out.prev_end == in.prev_end);
    assert_true(lj_identity_eq(&out.identity, &in.identity));
    assert_true(out.last_object_ns == in.last_object_ns && out.snapshot_ns == in.snapshot_ns);
    assert_string_equal(out.snapshot_at.generation, in.at.generation);
    assert_int_equal(lj_position_compare(&out.snapshot_at, &in.snapshot_at), 0);
    assert_true(out.mark_end == in.mark_end);
    assert_true(lj_home_eq(&out.home, &in.home));
    assert_int_equal(out.lineage_count, 2);
    assert_int_equal(lj_position_compare(&out.lineage[0], &in.lineage[0]), 0);
    assert_string_equal(out.lineage[0].generation, "aaaaaaaaaaaaaaaa");
    assert_string_equal(out.lineage[1].generation, "00112233445566ff");
}

static void absent(void **state)
{
    const kit_dir *kit = *state;
    lj_error err = LJ_ERROR_INIT;
    lj_saved_position out = {.page_size = 77};
    assert_int_equal(lj_saved_position_load(kit->position_path, &out, &err), LJ_NOTFOUND);
    assert_int_equal(out.page_size, 77);
}

static void read_all(const char *path, char **ret_data, size_t *ret_len)
{
    lj_error err = LJ_ERROR_INIT;
    assert_ok(lj_io_read_file(path, 1 << 20, ret_data, ret_len, &err), &err);
}

static void write_all(const char *path, const void *data, size_t len)
{
    lj_error err = LJ_ERROR_INIT;
    assert_ok(lj_io_replace_file(path, data, len, 0600, false, &err), &err);
}

static void truncated_at_each_byte(void **state)
{
    const kit_dir *kit = *state;
    lj_error err = LJ_ERROR_INIT;
    lj_saved_position in = full_position();
    LJ_CLEANUP(lj_freep) char *data = NULL;
    size_t len = 0;
    assert_ok(lj_saved_position_store(kit->position_path, &in, true, &err), &err);
    read_all(kit->position_path, &data, &len);
    for (size_t cut = 0; cut < len; cut++) {
        lj_saved_position out = {.page_size = 77};
        write_all(kit->position_path, data, cut);
        assert_int_equal(lj_saved_position_load(kit->position_path, &out, &err), LJ_CORRUPT);
        assert_int_equal(out.page_size, 77);
    }
}

static void flipped_at_each_byte(void **state)
{
    const kit_dir *kit = *state;
    lj_error err = LJ_ERROR_INIT;
    lj_saved_position in = full_position();
    LJ_CLEANUP(lj_freep) char *data = NULL;
    size_t len = 0;
    assert_ok(lj_saved_position_store(kit->position_path, &in, true, &err), &err);
    read_all(kit->position_path, &data, &len);
    const uint8_t bits[] = {0x01, 0x02, 0x10, 0x80};
    for (size_t at = 0; at < len; at++) {
        for (size_t b = 0; b < sizeof(bits); b++) {
            lj_saved_position out = {.page_size = 77};
            data[at] = (char)(data[at] ^ bits[b]);
            write_all(kit->position_path, data, len);
            if (lj_saved_position_load(kit->position_path, &out, &err) != LJ_CORRUPT)
                fail_msg("byte %zu ^ %02x was not noticed", at, bits[b]);
            assert_int_equal(out.page_size, 77);
            data[at] = (char)(data[at] ^ bits[b]);
        }
    }
}

static void foreign_content(void **state)
{
    const kit_dir *kit = *state;
    lj_error err = LJ_ERROR_INIT;
    lj_saved_position out;
    char large[16384];
    memset(large, 'x', sizeof(large));
    write_all(kit->position_path, large, sizeof(large));
    assert_int_not_equal(lj_saved_position_load(kit->position_path, &out, &err), LJ_OK);
    write_all(kit->position_path, "litejoin-position 1\n", 20);
    assert_int_equal(lj_saved_position_load(kit->position_path, &out, &err), LJ_CORRUPT);
    write_all(kit->position_path, "litejoin-position 1\0check 1\n", 28);
    assert_int_equal(lj_saved_position_load(kit->position_path, &out, &err), LJ_CORRUPT);
}

static void a_failed_store_keeps_the_old_file(void **state)
{
    const kit_dir *kit = *state;
    lj_error err = LJ_ERROR_INIT;
    lj_saved_position in = full_position();
    lj_saved_position out;
    assert_ok(lj_saved_position_store(kit->position_path, &in, true, &err), &err);
    char temp[128];
    snprintf(temp, sizeof(temp), "mkdir '%s.tmp'", kit->position_path);
    assert_int_equal(system(temp), 0); /* the temporary file cannot be made */
    in.at.index = 1;
    assert_int_not_equal(lj_saved_position_store(kit->position_path, &in, true, &err), LJ_OK);
    assert_ok(lj_saved_position_load(kit->position_path, &out, &err), &err);
    assert_int_equal(out.at.index, 0x7ffffffe);
}

static void lineage_is_bounded(void **state)
{
    (void)state;
    lj_saved_position p;
    memset(&p, 0, sizeof(p));
    char name[LJ_GENERATION_MAX];
    for (unsigned i = 0; i < LJ_LINEAGE_MAX + 5; i++) {
        snprintf(name, sizeof(name), "%016x", i);
        lj_saved_position_own(&p, name);
        lj_saved_position_own(&p, name); /* twice is once */
    }
    assert_int_equal(p.lineage_count, LJ_LINEAGE_MAX);
    assert_string_equal(p.lineage[0].generation, "0000000000000005");
    assert_string_equal(p.lineage[LJ_LINEAGE_MAX - 1].generation, "0000000000000014");
}

/* Where a generation ended for us is written when it is left; a disowned one is never owned again by that. */
static void leaving_and_disowning(void **state)
{
    (void)state;
    lj_saved_position p = full_position();
    p.mark_end = 0;
    lj_saved_position next = p;
    lj_saved_position_leave(&next, &p);
    const lj_position *end = lj_saved_position_owned(&next, p.at.generation);
    assert_non_null(end);
    assert_int_equal(lj_position_compare(end, &p.at), 0);
    p.at.offset = 0;
    p.mark_end = 4152; /* index - 1 ends there, and its mark may be there or not */
    lj_saved_position_leave(&next, &p);
    end = lj_saved_position_owned(&next, p.at.generation);
    assert_int_equal(end->index, p.at.index - 1);
    assert_int_equal(end->offset, 4152);
    lj_saved_position_disown(&next, p.at.generation);
    assert_null(lj_saved_position_owned(&next, p.at.generation));
    assert_int_equal(next.lineage_count, 1);
    lj_saved_position_leave(&next, &p);
    lj_saved_position_disown(&next, p.at.generation);
    assert_int_equal(next.lineage_count, 1);
    assert_string_equal(next.lineage[0].generation, "aaaaaaaaaaaaaaaa");
}

#define ONE(fn) cmocka_unit_test_setup_teardown(fn, kit_dir_setup, kit_dir_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ONE(round_trip),
        ONE(absent),
        ONE(truncated_at_each_byte),
        ONE(flipped_at_each_byte),
        ONE(foreign_content),
        ONE(a_failed_store_keeps_the_old_file),
        ONE(lineage_is_bounded),
        ONE(leaving_and_disowning),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
