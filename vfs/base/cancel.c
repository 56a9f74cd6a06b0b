/*
 * cancel.c - see cancel.h.
 *
 * Layer: base.
 */
#include "vfs/base/cancel.h"

static _Thread_local const bool *current;
static _Thread_local const bool *beside;

const bool *lj_cancel_swap(const bool *flag)
{
    const bool *before = current;
    current = flag;
    return before;
}

const bool *lj_cancel_also(const bool *flag)
{
    const bool *before = beside;
    beside = flag;
    return before;
}

bool lj_cancel_requested(const bool *own)
{
    return lj_flag_is_set(own) || lj_flag_is_set(current) || lj_flag_is_set(beside);
}
