/* packet_test.c - SFTP packets as bytes: what is built, and what is read of broken ones. */
#include "test/unit/unit.h"

#include "vfs/storage/sftp/packet.h"

static void requests(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    LJ_CLEANUP(lj_buf_free) lj_buf buf = LJ_BUF_INIT(1000);
    lj_fx_writer w = lj_fx_begin(&buf, LJ_FXP_OPEN, 0x01020304);
    lj_fx_text(&w, "/a");
    lj_fx_u32(&w, LJ_FXF_WRITE | LJ_FXF_CREAT | LJ_FXF_EXCL);
    lj_fx_attrs_write(&w, &(lj_fx_attrs){.flags = LJ_FXA_PERMISSIONS, .permissions = 0600});
    assert_ok(lj_fx_end(&w, &err), &err);
    static const uint8_t open[] = {0,   0, 0, 23, 3,  1, 2, 3, 4, 0, 0, 0, 2,   '/',
                                   'a', 0, 0, 0,  42, 0, 0, 0, 4, 0, 0, 1, 0x80};
    assert_int_equal(buf.len, sizeof(open));
    assert_memory_equal(buf.data, open, sizeof(open));
    /* a second packet stands behind the first */
    w = lj_fx_begin(&buf, LJ_FXP_READ, 7);
    lj_fx_string(&w, "h", 1);
    lj_fx_u64(&w, UINT64_C(0x1122334455667788));
    lj_fx_u32(&w, 32768);
    assert_ok(lj_fx_end(&w, &err), &err);
    static const uint8_t read[] = {0,    0,    0,    22,   5,   0,    0,    0,    7,
                                   0,    0,    0,    1,    'h', 0x11, 0x22, 0x33, 0x44,
                                   0x55, 0x66, 0x77, 0x88, 0,   0,    0x80, 0};
    assert_int_equal(buf.len, sizeof(open) + sizeof(read));
    assert_memory_equal(buf.data + sizeof(open), read, sizeof(read));
}

static void a_request_that_does_not_fit_leaves_nothing(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    LJ_CLEANUP(lj_buf_free) lj_buf buf = LJ_BUF_INIT(20);
    assert_ok(lj_buf_append(&buf, "abc", 3, &err), &err);
    lj_fx_writer w = lj_fx_begin(&buf, LJ_FXP_STAT, 1);
    lj_fx_text(&w, "/a/path/that/is/too/long/for/the/buffer");
    lj_fx_u32(&w, 1);
    assert_int_equal(lj_fx_end(&w, &err), LJ_NOMEM);
    assert_int_equal(buf.len, 3);
}

static void attributes_there_and_back(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    LJ_CLEANUP(lj_buf_free) lj_buf buf = LJ_BUF_INIT(1000);
    const lj_fx_attrs all = {.flags = LJ_FXA_SIZE | LJ_FXA_PERMISSIONS | LJ_FXA_TIMES,
                             .size = UINT64_C(1) << 40,
                             .permissions = 0100644,
                             .atime = 5,
                             .mtime = UINT32_MAX};
    lj_fx_writer w = lj_fx_begin(&buf, LJ_FXP_ATTRS, 9);
    lj_fx_attrs_write(&w, &all);
    assert_ok(lj_fx_end(&w, &err), &err);
    lj_fx_reader reader = lj_fx_reader_new(buf.data, buf.len);
    assert_int_equal(lj_fx_read_u32(&reader), buf.len - 4);
    assert_int_equal(lj_fx_read_u8(&reader), LJ_FXP_ATTRS);
    assert_int_equal(lj_fx_read_u32(&reader), 9);
    lj_fx_attrs got;
    lj_fx_read_attrs(&reader, &got);
    assert_false(reader.bad);
    assert_int_equal(reader.left, 0);
    assert_true(got.flags == all.flags && got.size == all.size &&
                got.permissions == all.permissions && got.atime == all.atime &&
                got.mtime == all.mtime);
}

static void foreign_attributes(void **state)
{
    (void)state;
    /* uid and gid, and one extended pair, are passed over */
    static const uint8_t bytes[] = {0x80, 0, 0, 0x0A, 0, 0, 0, 1, 0, 0, 0,   2, 0, 0, 0, 3,   0, 0,
                                    0,    4, 0, 0,    0, 1, 0, 0, 0, 1, 'n', 0, 0, 0, 1, 'v', 77};
    lj_fx_reader reader = lj_fx_reader_new(bytes, sizeof(bytes));
    lj_fx_attrs got;
    lj_fx_read_attrs(&reader, &got);
    assert_false(reader.bad);
    assert_int_equal(got.mtime, 4);
    assert_int_equal(lj_fx_read_u8(&reader), 77);
    /* cut off anywhere, it is bad, and no value is to be had */
    for (size_t len = 0; len < sizeof(bytes) - 1; len++) {
        reader = lj_fx_reader_new(bytes, len);
        lj_fx_read_attrs(&reader, &got);
        assert_true(reader.bad);
        assert_int_equal(got.flags, 0);
    }
    /* a count of pairs that cannot be there ends at once */
    static const uint8_t endless[] = {0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff};
    reader = lj_fx_reader_new(endless, sizeof(endless));
    lj_fx_read_attrs(&reader, &got);
    assert_true(reader.bad);
}

static void broken_strings(void **state)
{
    (void)state;
    static const uint8_t bytes[] = {0, 0, 0, 2, 'a', 'b', 0xff, 0xff, 0xff, 0xff, 'c'};
    lj_fx_reader reader = lj_fx_reader_new(bytes, sizeof(bytes));
    size_t len = 0;
    const uint8_t *text = lj_fx_read_string(&reader, &len);
    assert_int_equal(len, 2);
    assert_memory_equal(text, "ab", 2);
    text = lj_fx_read_string(&reader, &len);
    assert_true(reader.bad);
    assert_int_equal(len, 0);
    assert_non_null(text);
    /* bad stays bad */
    assert_int_equal(lj_fx_read_u8(&reader), 0);
    assert_int_equal(lj_fx_read_u64(&reader), 0);
    reader = lj_fx_reader_new(bytes, 3);
    assert_int_equal(lj_fx_read_u32(&reader), 0);
    assert_true(reader.bad);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests),
        cmocka_unit_test(a_request_that_does_not_fit_leaves_nothing),
        cmocka_unit_test(attributes_there_and_back),
        cmocka_unit_test(foreign_attributes),
        cmocka_unit_test(broken_strings),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
