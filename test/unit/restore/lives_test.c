/* lives_test.c - which WAL may follow which. */
#include "test/unit/unit.h"

#include "vfs/restore/lives.h"

static lj_code next(lj_lives *lives, uint32_t salt1, uint32_t salt2, uint32_t checkpoint,
                    bool *ret_same)
{
    lj_wal_header header = {
        .page_size = 512, .checkpoint = checkpoint, .salt = {.salt1 = salt1, .salt2 = salt2}};
    lj_error err = LJ_ERROR_INIT;
    return lj_lives_next(lives, &header, ret_same, &err);
}

static void in_order(void **state)
{
    (void)state;
    lj_lives lives = {.count = 0};
    bool same = true;
    /* restarts in place, with one that left no trace; a new file; the same life under the next index */
    assert_int_equal(next(&lives, 0xffffffff, 7, 4, &same), LJ_OK);
    assert_false(same);
    assert_int_equal(next(&lives, 0, 8, 5, &same), LJ_OK);
    assert_int_equal(next(&lives, 2, 9, 7, &same), LJ_OK);
    assert_int_equal(next(&lives, 77, 1, 0, &same), LJ_OK);
    assert_false(same);
    assert_int_equal(next(&lives, 77, 1, 0, &same), LJ_OK);
    assert_true(same);
    /* smaller, but not by as much as the checkpoints say: another file */
    assert_int_equal(next(&lives, 70, 5, 0, &same), LJ_OK);
    assert_false(same);
    lj_lives_clear(&lives);
}

static void out_of_order(void **state)
{
    (void)state;
    lj_lives lives = {.count = 0};
    bool same = false;
    assert_int_equal(next(&lives, 10, 1, 3, &same), LJ_OK);
    assert_int_equal(next(&lives, 11, 2, 4, &same), LJ_OK);
    assert_int_equal(next(&lives, 10, 1, 3, &same), LJ_CORRUPT); /* comes back */
    assert_int_equal(next(&lives, 9, 6, 2, &same), LJ_CORRUPT);  /* was never seen, and is older */
    assert_int_equal(next(&lives, 12, 3, 5, &same), LJ_OK);
    lj_lives_clear(&lives);
}

static void many(void **state)
{
    (void)state;
    lj_lives lives = {.count = 0};
    bool same = false;
    for (uint32_t i = 0; i < 5000; i++)
        assert_int_equal(next(&lives, i * 2654435761u, i + 1, 0, &same), LJ_OK);
    for (uint32_t i = 0; i < 4999; i += 97)
        assert_int_equal(next(&lives, i * 2654435761u, i + 1, 0, &same), LJ_CORRUPT);
    lj_lives_clear(&lives);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(in_order),
        cmocka_unit_test(out_of_order),
        cmocka_unit_test(many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
