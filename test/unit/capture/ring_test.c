/* ring_test.c - dropping, merging when full, and what the time stamps say then. */
#include "test/unit/unit.h"

#include "vfs/capture/ring.h"

static void push(lj_ring *ring, uint64_t life, uint64_t frame, int64_t ns)
{
    lj_commit commit = {.life = life, .frame = frame, .first_ns = ns, .last_ns = ns, .db_pages = 1};
    lj_ring_push(ring, &commit);
}

static void empty_ring(void **state)
{
    (void)state;
    lj_ring ring = {.slots = NULL};
    assert_int_equal(lj_ring_oldest_ns(&ring), 0);
    assert_int_equal(lj_ring_time_of(&ring, 1, 1), 0);
    lj_ring_drop(&ring, 9, 9);
    lj_ring_free(&ring);
}

static void drops_what_is_shipped(void **state)
{
    (void)state;
    lj_ring ring = {.slots = NULL};
    push(&ring, 1, 2, 100);
    push(&ring, 1, 5, 200);
    push(&ring, 2, 1, 300);
    push(&ring, 2, 4, 400);
    assert_int_equal(lj_ring_oldest_ns(&ring), 100);
    assert_int_equal(lj_ring_time_of(&ring, 1, 1), 0);
    assert_int_equal(lj_ring_time_of(&ring, 1, 4), 100);
    assert_int_equal(lj_ring_time_of(&ring, 1, 99), 200);
    assert_int_equal(lj_ring_time_of(&ring, 2, 4), 400);
    lj_ring_drop(&ring, 1, 4); /* inside of the second transaction: it stays */
    assert_int_equal(lj_ring_oldest_ns(&ring), 200);
    lj_ring_drop(&ring, 2, 1);
    assert_int_equal(lj_ring_oldest_ns(&ring), 400);
    lj_ring_drop(&ring, 1, 1000); /* an older life says nothing about this one */
    assert_int_equal(lj_ring_oldest_ns(&ring), 400);
    lj_ring_drop(&ring, 3, 0); /* a newer one covers all of it */
    assert_int_equal(lj_ring_oldest_ns(&ring), 0);
    assert_int_equal(ring.count, 0);
    lj_ring_free(&ring);
}

static void full_ring_merges_the_newest(void **state)
{
    (void)state;
    lj_ring ring = {.slots = NULL};
    for (uint64_t i = 1; i <= LJ_RING_SLOTS + 50; i++)
        push(&ring, 1, i, (int64_t)i * 10);
    assert_int_equal(ring.count, LJ_RING_SLOTS);
    /* every commit counts, the merged ones with the time of the newest */
    assert_int_equal(lj_ring_time_of(&ring, 1, LJ_RING_SLOTS + 50), (LJ_RING_SLOTS + 50) * 10);
    /* before the merged entry is covered, the answer is of the entry below */
    assert_int_equal(lj_ring_time_of(&ring, 1, LJ_RING_SLOTS + 49), (LJ_RING_SLOTS - 1) * 10);
    lj_ring_drop(&ring, 1, LJ_RING_SLOTS + 49);
    assert_int_equal(ring.count, 1);
    /* the age of the merged entry is that of its oldest commit */
    assert_int_equal(lj_ring_oldest_ns(&ring), LJ_RING_SLOTS * 10);
    lj_ring_drop(&ring, 1, LJ_RING_SLOTS + 50);
    assert_int_equal(ring.count, 0);
    lj_ring_free(&ring);
}

static void goes_round(void **state)
{
    (void)state;
    lj_ring ring = {.slots = NULL};
    for (uint64_t i = 1; i <= 5 * LJ_RING_SLOTS; i++) {
        push(&ring, 1, i, (int64_t)i);
        if (i > 3) {
            lj_ring_drop(&ring, 1, i - 3);
            assert_int_equal(ring.count, 3);
            assert_int_equal(lj_ring_oldest_ns(&ring), i - 2);
        }
    }
    lj_ring_free(&ring);
}

/* Ten thousand databases that are seldom written have ten thousand small rings; order and times survive the growing. */
static void grows_with_what_is_in_it(void **state)
{
    (void)state;
    lj_ring ring = {.slots = NULL};
    uint64_t pushed = 0;
    uint64_t dropped = 0;
    for (; pushed < LJ_RING_FIRST_SLOTS; pushed++)
        push(&ring, 1, pushed + 1, (int64_t)pushed + 100);
    assert_int_equal(ring.capacity, LJ_RING_FIRST_SLOTS);
    for (unsigned round = 0; round < 40; round++) {
        dropped += 3; /* so that the ring's begin is somewhere in the middle when it grows */
        lj_ring_drop(&ring, 1, dropped);
        for (unsigned i = 0; i < 5; i++, pushed++)
            push(&ring, 1, pushed + 1, (int64_t)pushed + 100);
        assert_int_equal(ring.count, pushed - dropped);
        assert_int_equal(lj_ring_oldest_ns(&ring), (int64_t)dropped + 100);
        assert_int_equal(lj_ring_time_of(&ring, 1, pushed), (int64_t)pushed + 99);
        assert_int_equal(lj_ring_time_of(&ring, 1, dropped + 2), (int64_t)dropped + 101);
    }
    assert_true(ring.capacity < 2 * ring.count + LJ_RING_FIRST_SLOTS);
    lj_ring_free(&ring);
    assert_int_equal(ring.capacity, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(empty_ring),
        cmocka_unit_test(drops_what_is_shipped),
        cmocka_unit_test(full_ring_merges_the_newest),
        cmocka_unit_test(goes_round),
        cmocka_unit_test(grows_with_what_is_in_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
