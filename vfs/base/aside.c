/*
 * aside.c - see aside.h.
 */
#include "vfs/base/aside.h"

#include <stdatomic.h>

#include "vfs/base/clock.h"

#define LOOK_NS (LJ_NS_PER_MS / 4)
#define MOST_NS (50 * LJ_NS_PER_MS) /* of one pause: longer than most checkpoints */

static atomic_int running;
static _Thread_local bool stands_aside;
static _Thread_local int64_t worked_since_ns; /* end of the last pause */

void lj_aside_begin(void)
{
    atomic_fetch_add_explicit(&running, 1, memory_order_relaxed);
}

void lj_aside_end(void)
{
    atomic_fetch_sub_explicit(&running, 1, memory_order_relaxed);
}

void lj_aside_forget(void)
{
    atomic_store(&running, 0);
}

bool lj_aside_swap(bool now_stands_aside)
{
    bool before = stands_aside;
    stands_aside = now_stands_aside;
    return before;
}

void lj_aside(void)
{
    if (!stands_aside || atomic_load_explicit(&running, memory_order_relaxed) <= 0)
        return;
    int64_t start_ns = lj_clock_mono_ns();
    int64_t most_ns = LJ_MIN(start_ns - worked_since_ns, MOST_NS);
    do
        lj_clock_sleep_ns(LOOK_NS);
    while (atomic_load_explicit(&running, memory_order_relaxed) > 0 &&
           lj_clock_mono_ns() - start_ns < most_ns);
    worked_since_ns = lj_clock_mono_ns();
}
