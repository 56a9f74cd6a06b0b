/*
 * retry.c - see retry.h.
 */
#include "vfs/base/retry.h"

#include "vfs/base/cancel.h"
#include "vfs/base/clock.h"
#include "vfs/base/io.h"

#define POLL_NS            (50 * LJ_NS_PER_MS)
#define RETRY_AFTER_MAX_NS (60 * LJ_NS_PER_S)
#define DOUBLINGS_MAX      20u

bool lj_retry_may_pass(const lj_error *err)
{
    return err->retryable &&
           (err->code == LJ_UNAVAILABLE || err->code == LJ_TIMEOUT || err->code == LJ_IO);
}

bool lj_retry_pause(unsigned attempt, int64_t first_ns, int64_t longest_ns, int64_t retry_after_ns,
                    const bool *cancel, const bool *abort)
{
    int64_t bound_ns = LJ_MIN(first_ns << LJ_MIN(attempt, DOUBLINGS_MAX), longest_ns);
    uint32_t random = 0;
    lj_io_random(&random, sizeof(random));
    int64_t pause_ns = LJ_MAX((int64_t)((double)bound_ns * random / UINT32_MAX),
                              LJ_MIN(retry_after_ns, RETRY_AFTER_MAX_NS));
    int64_t end_ns = lj_clock_mono_ns() + pause_ns;
    while (!lj_cancel_requested(cancel) && !lj_flag_is_set(abort)) {
        int64_t left_ns = end_ns - lj_clock_mono_ns();
        if (left_ns <= 0)
            return true;
        lj_clock_sleep_ns(LJ_MIN(left_ns, POLL_NS));
    }
    return false;
}
