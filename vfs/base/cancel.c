/*
 * cancel.c - see cancel.h.
 *
 * Layer: base.
 */
#include "vfs/base/cancel.h"

static _Thread_local const bool *current;

const bool *lj_cancel_swap(const bool *flag)
{
    const bool *before = current;
    current = flag;
    return before;
}

static bool is_set(const bool *flag)
{
    return flag != NULL && __atomic_load_n(flag, __ATOMIC_RELAXED);
}

bool lj_cancel_requested(const bool *own)
{
    return is_set(own) || is_set(current);
}
