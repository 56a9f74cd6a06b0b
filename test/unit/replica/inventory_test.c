/* inventory_test.c - a listing in any order, with foreign names and doubled positions, gives one inventory. */
#include "test/unit/restore/memory_storage.h"

#include "vfs/replica/inventory.h"

#define A "00000000000000aa"
#define B "00000000000000bb"

static void put(memory_replica *m, const char *key, size_t size, int64_t created)
{
    uint8_t zeros[64] = {0};
    memory_put_raw(m, key, zeros, size, created);
}

static void fill(memory_replica *m)
{
    put(m, "README", 1, 9999);
    put(m, "generations/" A "/meta.json", 1, 9999);
    put(m, "generations/" A "/snapshots/00000002.snapshot.lz4", 20, 300);
    put(m, "generations/" A "/snapshots/00000000.snapshot.lz4", 10, 100);
    put(m, "generations/" A "/wal/00000000_00000000.wal.lz4", 1, 101);
    put(m, "generations/" A "/wal/00000002_00001038.wal.lz4", 5, 305);
    put(m, "generations/" A "/wal/00000002_00000000.wal.lz4", 4, 304);
    put(m, "generations/" A "/wal/00000001_00000000.wal.lz4", 3, 203);
    put(m, "generations/" A "/wal/00000001_00000000.wal.lz4.tmp", 3, 9999);
    put(m, "generations/" B "/wal/00000000_00000000.wal.lz4", 7, 250);
    put(m, "generations/" B "/snapshots/00000000.snapshot.lz4", 8, 240);
    put(m, "generations/XYZ/wal/00000000_00000000.wal.lz4", 7, 9999);
}

static void check(const lj_inventory *inventory)
{
    assert_int_equal(inventory->generation_count, 2);
    assert_string_equal(inventory->generations[0].generation, B); /* older end */
    const lj_generation_info *a = &inventory->generations[1];
    assert_ptr_equal(lj_inventory_find(inventory, A), a);
    assert_null(lj_inventory_find(inventory, "0000000000000000"));
    assert_int_equal(a->created_ns, 100);
    assert_int_equal(a->updated_ns, 305);
    assert_int_equal(a->snapshot_count, 2);
    assert_int_equal(a->snapshots[0].index, 0);
    assert_int_equal(a->snapshots[1].index, 2);
    assert_int_equal(a->snapshots[1].size_bytes, 20);
    static const struct {
        uint32_t index;
        uint64_t offset;
    } expected[] = {{0, 0}, {1, 0}, {2, 0}, {2, 4152}};
    assert_int_equal(a->segment_count, LJ_ARRAY_LEN(expected));
    for (size_t i = 0; i < LJ_ARRAY_LEN(expected); i++) {
        assert_int_equal(a->segments[i].index, expected[i].index);
        assert_int_equal(a->segments[i].offset, expected[i].offset);
    }
}

static void any_order(void **state)
{
    (void)state;
    memory_replica m;
    memory_open(&m);
    fill(&m);
    for (unsigned seed = 0; seed < 200; seed++) {
        lj_inventory *inventory = NULL;
        lj_error err = LJ_ERROR_INIT;
        m.shuffle = seed;
        assert_ok(lj_inventory_read(m.storage, NULL, &inventory, &err), &err);
        check(inventory);
        lj_inventory_free(inventory);
    }
    memory_free(&m);
}

/* The name v0.3.13 can see wins, whatever the order and the times. */
static void doubled_positions(void **state)
{
    (void)state;
    memory_replica m;
    memory_open(&m);
    put(&m, "generations/" A "/wal/00000001_0000000000001038.wal.lz4", 9, 500);
    put(&m, "generations/" A "/wal/00000001_000001038.wal.lz4", 8, 400);
    put(&m, "generations/" A "/wal/00000001_00001038.wal.lz4", 7, 300);
    put(&m, "generations/" A "/wal/00000001_100000000.wal.lz4", 6, 200);
    put(&m, "generations/" A "/wal/00000002_000000000000.wal.lz4", 5, 100);
    for (unsigned seed = 0; seed < 50; seed++) {
        lj_inventory *inventory = NULL;
        lj_error err = LJ_ERROR_INIT;
        m.shuffle = seed;
        assert_ok(lj_inventory_read(m.storage, A, &inventory, &err), &err);
        const lj_generation_info *a = lj_inventory_find(inventory, A);
        assert_int_equal(a->segment_count, 3);
        assert_int_equal(a->segments[0].size_bytes, 7);
        char key[LJ_NAME_MAX];
        lj_inventory_segment_key(A, &a->segments[0], key);
        assert_string_equal(key, "generations/" A "/wal/00000001_00001038.wal.lz4");
        lj_inventory_segment_key(A, &a->segments[1], key);
        assert_string_equal(key, "generations/" A "/wal/00000001_100000000.wal.lz4");
        lj_inventory_segment_key(A, &a->segments[2], key);
        assert_string_equal(key, "generations/" A "/wal/00000002_000000000000.wal.lz4");
        lj_inventory_free(inventory);
    }
    memory_free(&m);
}

static void one_generation_and_none(void **state)
{
    (void)state;
    memory_replica m;
    lj_inventory *inventory = NULL;
    lj_error err = LJ_ERROR_INIT;
    memory_open(&m);
    assert_ok(lj_inventory_read(m.storage, NULL, &inventory, &err), &err);
    assert_int_equal(inventory->generation_count, 0);
    lj_inventory_free(inventory);
    fill(&m);
    assert_ok(lj_inventory_read(m.storage, B, &inventory, &err), &err);
    assert_int_equal(inventory->generation_count, 1);
    assert_int_equal(inventory->generations[0].segment_count, 1);
    lj_inventory_free(inventory);
    inventory = NULL;
    assert_int_equal(lj_inventory_read(m.storage, "../../etc", &inventory, &err), LJ_INVALID);
    assert_null(inventory);
    memory_free(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_order),
        cmocka_unit_test(doubled_positions),
        cmocka_unit_test(one_generation_and_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
