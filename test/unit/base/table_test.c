/* table_test.c - finding, removing, and several with one hash. */
#include "test/unit/unit.h"

#include "vfs/base/table.h"

typedef struct {
    lj_link link;
    unsigned number;
} item;

static item *find(const lj_table *table, unsigned number)
{
    for (lj_link *at = lj_table_first(table, lj_hash_number(number)); at != NULL;
         at = lj_table_next(at))
        if (((item *)at->owner)->number == number)
            return at->owner;
    return NULL;
}

static void thousands(void **state)
{
    (void)state;
    enum { ITEMS = 5000 };
    static item items[ITEMS];
    static lj_table table;
    for (unsigned i = 0; i < ITEMS; i++) {
        items[i].number = i;
        lj_table_add(&table, &items[i].link, &items[i], lj_hash_number(i));
    }
    for (unsigned i = 0; i < ITEMS; i++)
        assert_ptr_equal(find(&table, i), &items[i]);
    assert_null(find(&table, ITEMS));
    size_t longest = 0;
    for (size_t i = 0; i < LJ_TABLE_CHAINS; i++) {
        size_t length = 0;
        for (const lj_link *at = table.chains[i]; at != NULL; at = at->next)
            length++;
        longest = LJ_MAX(longest, length);
    }
    assert_true(longest < 20); /* five would be even */
    for (unsigned i = 0; i < ITEMS; i += 2) {
        lj_table_remove(&table, &items[i].link);
        assert_null(items[i].link.owner);
        lj_table_remove(&table, &items[i].link); /* it is in none now */
    }
    for (unsigned i = 0; i < ITEMS; i++)
        assert_ptr_equal(find(&table, i), i % 2 == 0 ? NULL : &items[i]);
}

static void one_hash_for_several(void **state)
{
    (void)state;
    static lj_table table;
    item a = {.number = 1};
    item b = {.number = 2};
    item c = {.number = 3};
    lj_table_add(&table, &a.link, &a, 7);
    lj_table_add(&table, &b.link, &b, 7 + LJ_TABLE_CHAINS); /* the same chain, another hash */
    lj_table_add(&table, &c.link, &c, 7);
    lj_link *at = lj_table_first(&table, 7);
    assert_ptr_equal(at->owner, &c);
    at = lj_table_next(at);
    assert_ptr_equal(at->owner, &a);
    assert_null(lj_table_next(at));
    lj_table_remove(&table, &c.link);
    assert_ptr_equal(lj_table_first(&table, 7)->owner, &a);
    assert_ptr_equal(lj_table_first(&table, 7 + LJ_TABLE_CHAINS)->owner, &b);
}

static void texts(void **state)
{
    (void)state;
    assert_true(lj_hash_text("/data/shard_1.db-wal") == lj_hash_text("/data/shard_1.db-wal"));
    assert_true(lj_hash_text("/data/shard_1.db-wal") != lj_hash_text("/data/shard_2.db-wal"));
    assert_true(lj_hash_text("") != lj_hash_text("a"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(thousands),
        cmocka_unit_test(one_hash_for_several),
        cmocka_unit_test(texts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
