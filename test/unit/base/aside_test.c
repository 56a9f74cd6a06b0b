/* aside_test.c - who stands aside, for whom, and for how long at most. */
#include "test/unit/unit.h"

#include <pthread.h>

#include "vfs/base/aside.h"
#include "vfs/base/clock.h"

static int64_t pause_ns(void)
{
    int64_t start_ns = lj_clock_mono_ns();
    lj_aside();
    return lj_clock_mono_ns() - start_ns;
}

static void nobody_else_does(void **state)
{
    (void)state;
    lj_aside_begin();
    assert_false(lj_aside_swap(false));
    for (int i = 0; i < 1000; i++)
        lj_aside(); /* would take 50 ms once */
    lj_aside_end();
    assert_false(lj_aside_swap(true));
    for (int i = 0; i < 1000; i++)
        lj_aside(); /* nothing is running */
    assert_true(lj_aside_swap(false));
}

static void *ends_soon(void *ctx)
{
    (void)ctx;
    lj_clock_sleep_ns(5 * LJ_NS_PER_MS);
    lj_aside_end();
    lj_aside_end();
    return NULL;
}

static void until_the_last_one_has_ended(void **state)
{
    (void)state;
    pthread_t thread;
    (void)lj_aside_swap(true);
    lj_clock_sleep_ns(60 * LJ_NS_PER_MS); /* has worked long enough to wait that long */
    lj_aside_begin();
    lj_aside_begin();
    assert_int_equal(pthread_create(&thread, NULL, ends_soon, NULL), 0);
    assert_true(pause_ns() >= 4 * LJ_NS_PER_MS);
    pthread_join(thread, NULL);
    (void)lj_aside_swap(false);
}

/* Checkpoints without a gap: as long as it has worked, and never more than a checkpoint's usual time. */
static void not_for_ever(void **state)
{
    (void)state;
    (void)lj_aside_swap(true);
    lj_aside_begin();
    lj_clock_sleep_ns(60 * LJ_NS_PER_MS);
    assert_true(pause_ns() >= 49 * LJ_NS_PER_MS);
    int64_t begin_ns = lj_clock_mono_ns();
    int64_t paused_ns = 0;
    for (int i = 0; i < 20; i++) {
        lj_clock_sleep_ns(5 * LJ_NS_PER_MS);
        paused_ns += pause_ns();
    }
    int64_t all_ns = lj_clock_mono_ns() - begin_ns;
    assert_true(paused_ns >=
                20 * 4 * LJ_NS_PER_MS); /* each time about as long as it had worked ... */
    assert_true(all_ns - paused_ns >= 20 * 5 * LJ_NS_PER_MS);
    lj_aside_forget(); /* ... and in the child of a fork nothing is running */
    assert_true(lj_aside_swap(false));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nobody_else_does),
        cmocka_unit_test(until_the_last_one_has_ended),
        cmocka_unit_test(not_for_ever),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
