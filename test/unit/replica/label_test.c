/* label_test.c - what an object says of itself, to the byte. */
#include "test/unit/unit.h"

#include "vfs/replica/label.h"

static lj_label example(void)
{
    lj_label label = {.name = {.kind = LJ_NAME_WAL,
                               .position = {.generation = "0123456789abcdef",
                                            .index = 0x12,
                                            .offset = UINT64_C(0x100001038)}},
                      .size_bytes = 4120,
                      .needs = 8272,
                      .salt = {.salt1 = 0x01020304, .salt2 = 0xfffefdfc}};
    return label;
}

static void written_and_read(void **state)
{
    (void)state;
    static const uint8_t wanted[LJ_LABEL_BYTES] =
        "LJOBJ1\0\0"
        "0123456789abcdef"
        "\0\0\0\1\0\0\0\x12\0\0\0\1\0\0\x10\x38\0\0\0\0\0\0\x10\x18\0\0\0\0\0\0\x20\x50"
        "\1\2\3\4\xff\xfe\xfd\xfc";
    lj_label label = example();
    lj_label back;
    uint8_t bytes[LJ_LABEL_BYTES];
    lj_label_write(&label, bytes);
    assert_memory_equal(bytes, wanted, sizeof(bytes));
    assert_true(lj_label_read(bytes, sizeof(bytes), &back));
    assert_int_equal(back.name.kind, LJ_NAME_WAL);
    assert_string_equal(back.name.position.generation, "0123456789abcdef");
    assert_int_equal(lj_position_compare(&back.name.position, &label.name.position), 0);
    assert_true(back.size_bytes == label.size_bytes && back.needs == label.needs);
    assert_true(lj_wal_salt_eq(back.salt, label.salt));
}

static void fits_its_own_name_only(void **state)
{
    (void)state;
    lj_label label = example();
    char key[LJ_NAME_MAX];
    lj_label_key(&label, key);
    assert_true(lj_label_fits(&label, key));
    static const char *const others[] = {
        "generations/0123456789abcdef/wal/00000012_100001039.wal.lz4",
        "generations/0123456789abcdef/wal/00000013_100001038.wal.lz4",
        "generations/0123456789abcdee/wal/00000012_100001038.wal.lz4",
        "generations/0123456789abcdef/snapshots/00000012.snapshot.lz4",
        "something else",
    };
    for (size_t i = 0; i < LJ_ARRAY_LEN(others); i++)
        assert_false(lj_label_fits(&label, others[i]));
    label.name.kind = LJ_NAME_SNAPSHOT;
    label.name.position.offset = 0;
    lj_label_key(&label, key);
    assert_string_equal(key, others[3]);
    assert_true(lj_label_fits(&label, key));
}

/* A changed byte makes another label, or none; it never makes one that still fits but says less. */
static void damaged(void **state)
{
    (void)state;
    lj_label label = example();
    char key[LJ_NAME_MAX];
    uint8_t bytes[LJ_LABEL_BYTES];
    lj_label back;
    lj_label_key(&label, key);
    for (size_t i = 0; i < sizeof(bytes); i++) {
        lj_label_write(&label, bytes);
        bytes[i] ^= 0x40;
        bool read = lj_label_read(bytes, sizeof(bytes), &back);
        assert_int_equal(read, i >= 8);
        if (read && i < 40)
            assert_false(lj_label_fits(&back, key));
    }
    lj_label_write(&label, bytes);
    assert_false(lj_label_read(bytes, sizeof(bytes) - 1, &back));
    assert_false(lj_label_read(bytes, 0, &back));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(written_and_read),
        cmocka_unit_test(fits_its_own_name_only),
        cmocka_unit_test(damaged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
