/*
 * cancel.h - the flag that ends what a thread waits for, where it cannot be handed down.
 *
 * A credential is shared by many stores, so its fetcher knows no store's cancel flag. Whoever asks for it sets the flag for
 * the time of the fetch, on his own thread; everything below that waits asks lj_cancel_requested.
 *
 * Layer: base. Thread-safety: the current flag is the thread's own; flags are read with __atomic_load_n.
 */
#ifndef LJ_CANCEL_H
#define LJ_CANCEL_H

#include "vfs/base/base.h"

/* Is a flag that other threads set true? NULL: no. */
static inline bool lj_flag_is_set(const bool *flag)
{
    return flag != NULL && __atomic_load_n(flag, __ATOMIC_RELAXED);
}

/* Makes `flag` (NULL: none) the current one of this thread; returns the one before, to be put back. */
const bool *lj_cancel_swap(const bool *flag);
/* Is `own` (may be NULL) or the thread's current flag true? */
bool lj_cancel_requested(const bool *own);

#endif
