/* name_test.c - object names of the layout, to the byte. */
#include "test/unit/unit.h"

#include "vfs/replica/name.h"

static void names_round_trip(void **state)
{
    (void)state;
    char key[LJ_NAME_MAX];
    lj_name name;
    lj_name_snapshot("0123456789abcdef", 0x1f, key);
    assert_string_equal(key, "generations/0123456789abcdef/snapshots/0000001f.snapshot.lz4");
    lj_name_parse(key, &name);
    assert_int_equal(name.kind, LJ_NAME_SNAPSHOT);
    assert_int_equal(name.position.index, 0x1f);

    lj_position at = {.generation = "0123456789abcdef", .index = 2, .offset = 4152};
    lj_name_wal(&at, key);
    assert_string_equal(key, "generations/0123456789abcdef/wal/00000002_00001038.wal.lz4");
    lj_name_parse(key, &name);
    assert_int_equal(name.kind, LJ_NAME_WAL);
    assert_int_equal(lj_position_compare(&name.position, &at), 0);
    assert_string_equal(name.position.generation, at.generation);
}

static void foreign_names(void **state)
{
    (void)state;
    static const char *const keys[] = {
        "",
        "README",
        "generations",
        "generations/",
        "generations/0123456789ABCDEF/wal/00000000_00000000.wal.lz4",
        "generations/0123456789abcde/wal/00000000_00000000.wal.lz4",
        "generations/0123456789abcdef/wal/00000000.wal.lz4",
        "generations/0123456789abcdef/wal/00000000_0000000.wal.lz4",
        "generations/0123456789abcdef/wal/00000000_00000000.wal.lz4.tmp",
        "generations/0123456789abcdef/wal/80000000_00000000.wal.lz4",
        "generations/0123456789abcdef/snapshots/0000000.snapshot.lz4",
        "generations/0123456789abcdef/snapshots/00000000.snapshot",
        "generations/0123456789abcdef/meta.json",
        "other/generations/0123456789abcdef/wal/00000000_00000000.wal.lz4",
        "generations/0123456789abcdef/wal/00000000_00000000000000000.wal.lz4",
    };
    for (size_t i = 0; i < LJ_ARRAY_LEN(keys); i++) {
        lj_name name;
        lj_name_parse(keys[i], &name);
        assert_int_equal(name.kind, LJ_NAME_FOREIGN);
    }
    lj_name name;
    lj_name_parse("generations/0123456789abcdef/wal/00000000_100000000.wal.lz4", &name);
    assert_int_equal(name.kind, LJ_NAME_WAL);
    assert_int_equal(name.position.offset, UINT64_C(0x100000000));
}

static void names_of_v05(void **state)
{
    (void)state;
    static const char *const ltx[] = {
        "ltx/0/0000000000000001-0000000000000001.ltx",
        "ltx/9/0000000000000001-00000000000000ff.ltx",
        "0000/0000000000000001-0000000000000001.ltx",
        "0009/0000000000000001-00000000000000ff.ltx",
    };
    static const char *const others[] = {
        "",
        "ltx/",
        "ltx//0000000000000001-0000000000000001.ltx",
        "ltx/0/0000000000000001-0000000000000001.ltx.tmp",
        "ltx/0/0000000000000001-0000000000000001",
        "ltx/0/000000000000001-0000000000000001.ltx",
        "000/0000000000000001-0000000000000001.ltx",
        "0000/0000000000000001_0000000000000001.ltx",
        "app/ltx/0/0000000000000001-0000000000000001.ltx",
        "generations/0123456789abcdef/wal/00000000_00000000.wal.lz4",
    };
    for (size_t i = 0; i < LJ_ARRAY_LEN(ltx); i++)
        assert_true(lj_name_is_ltx(ltx[i]));
    for (size_t i = 0; i < LJ_ARRAY_LEN(others); i++)
        assert_false(lj_name_is_ltx(others[i]));
}

static void generations(void **state)
{
    (void)state;
    char a[LJ_GENERATION_MAX];
    char b[LJ_GENERATION_MAX];
    lj_generation_new(a);
    lj_generation_new(b);
    assert_true(lj_generation_ok(a));
    assert_string_not_equal(a, b);
    assert_false(lj_generation_ok("0123456789abcdef0"));
    assert_false(lj_generation_ok("0123456789abcdeF"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_round_trip),
        cmocka_unit_test(foreign_names),
        cmocka_unit_test(names_of_v05),
        cmocka_unit_test(generations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
