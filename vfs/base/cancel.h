/*
 * cancel.h - the flag that ends what a thread waits for, where it cannot be handed down.
 *
 * A COMMIT that waited in vain ends the request that was made for it, which knows nothing of commits: the thread that makes it
 * sets the current flag (lj_cancel_swap). A credential is shared by many stores, so its fetcher knows no store's cancel flag:
 * whoever asks for it adds that for the time of the fetch (lj_cancel_also). Everything below that waits asks
 * lj_cancel_requested.
 *
 * Layer: base. Thread-safety: both flags are the thread's own; what they point to is read with __atomic_load_n.
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
/* The same for a second flag, which counts beside the current one. */
const bool *lj_cancel_also(const bool *flag);
/* Is `own` (may be NULL) or a flag of the thread true? */
bool lj_cancel_requested(const bool *own);

#endif
