/* pagemap_test.c - many pages, also such that collide, against a plain array. */
#include "test/unit/unit.h"

#include "vfs/wal/pagemap.h"

static void empty_map(void **state)
{
    (void)state;
    lj_pagemap map = LJ_PAGEMAP_INIT;
    uint64_t value = 77;
    assert_false(lj_pagemap_get(&map, 1, &value));
    assert_int_equal(value, 77);
    lj_pagemap_free(&map);
}

static void remembers_the_newest(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    lj_pagemap map = LJ_PAGEMAP_INIT;
    enum { PAGES = 20000 };
    uint64_t *expected = calloc(PAGES + 1, sizeof(*expected));
    uint32_t random = 12345;
    for (int i = 0; i < 60000; i++) {
        random = random * 1664525u + 1013904223u;
        uint32_t pgno = (random >> 8) % PAGES + 1;
        expected[pgno] = (uint64_t)i + 1;
        assert_ok(lj_pagemap_set(&map, pgno, (uint64_t)i + 1, &err), &err);
    }
    size_t known = 0;
    for (uint32_t pgno = 1; pgno <= PAGES; pgno++) {
        uint64_t value = 0;
        known += expected[pgno] != 0;
        assert_int_equal(lj_pagemap_get(&map, pgno, &value), expected[pgno] != 0);
        assert_int_equal(value, expected[pgno]);
    }
    assert_int_equal(map.count, known);
    assert_true(map.count <= map.capacity / 4 * 3);
    assert_true(map.count * 22 >= map.capacity * sizeof(lj_pagemap_slot));
    assert_int_equal(sizeof(lj_pagemap_slot), 8);
    free(expected);
    lj_pagemap_free(&map);
    assert_null(map.slots);
}

/* Page numbers whose hashes meet in one slot of the first table. */
static void colliding_pages(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    lj_pagemap map = LJ_PAGEMAP_INIT;
    for (uint32_t i = 0; i < 30; i++)
        assert_ok(lj_pagemap_set(&map, 7 + i * 64, i, &err), &err);
    for (uint32_t i = 0; i < 30; i++) {
        uint64_t value = UINT64_MAX;
        assert_true(lj_pagemap_get(&map, 7 + i * 64, &value));
        assert_int_equal(value, i);
    }
    uint64_t value = 0;
    assert_false(lj_pagemap_get(&map, 7 + 30 * 64, &value));
    assert_ok(lj_pagemap_set(&map, UINT32_MAX, UINT32_MAX, &err), &err);
    assert_int_equal(lj_pagemap_set(&map, 9, (uint64_t)UINT32_MAX + 1, &err), LJ_UNSUPPORTED);
    assert_true(lj_pagemap_get(&map, UINT32_MAX, &value));
    assert_true(value == UINT32_MAX);
    lj_pagemap_free(&map);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(empty_map),
        cmocka_unit_test(remembers_the_newest),
        cmocka_unit_test(colliding_pages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
