/*
 * parallel.h - fetches many objects at once and hands their content on in order, one after another.
 *
 * Workers take objects in order and fetch them into memory. Whoever finishes the object that is next in order also
 * delivers it, and every one behind it that is ready, so that there is no extra thread and no hand-over in the usual
 * case. An object larger than a slot waits for its turn and is then streamed. One more job, the `aside` (the snapshot),
 * runs beside them from the beginning.
 *
 * Layer: restore (internal). Thread-safety: lj_parallel_run is called by one thread, which works too; callbacks as noted.
 * Memory: workers x (one slot in flight + one waiting) beside what the fetch callback uses.
 * Invariant: the error reported is that of the first object in order that failed; all before it were delivered.
 */
#ifndef LJ_PARALLEL_H
#define LJ_PARALLEL_H

#include "vfs/base/stream.h"

typedef struct lj_parallel lj_parallel;

#define LJ_PARALLEL_ASIDE SIZE_MAX

typedef struct {
    size_t count;      /* objects */
    unsigned workers;  /* at least 1, this thread included */
    size_t slot_bytes; /* 0: 1 MiB */
    void *ctx;
    bool *abort; /* set when something failed: running callbacks are to give up */
    /* From any thread: */
    lj_code (*aside)(void *ctx, lj_error *err); /* may be NULL */
    lj_code (*fetch)(void *ctx, size_t i, lj_sink *sink, lj_error *err);
    /* One at a time, in order: begin(i), data(i) any number of times, end(i), begin(i + 1), ... */
    lj_code (*begin)(void *ctx, size_t i, lj_error *err);
    lj_code (*data)(void *ctx, size_t i, const void *data, size_t len, lj_error *err);
    lj_code (*end)(void *ctx, lj_parallel *parallel, size_t i, lj_error *err);
    /* Once, behind the last end; the aside may still run. May be NULL. A failure counts as the last object's. */
    lj_code (*after)(void *ctx, lj_error *err);
} lj_parallel_job;

/*
 * Runs until everything is delivered or something failed. *ret_failed is the object the error belongs to, or
 * LJ_PARALLEL_ASIDE. Fewer threads than asked for (none could be made) only make it slower.
 */
LJ_WARN_UNUSED lj_code lj_parallel_run(const lj_parallel_job *job, size_t *ret_failed,
                                       lj_error *err);

/* From `end` only: waits for the aside; LJ_CANCELLED when it failed. */
LJ_WARN_UNUSED lj_code lj_parallel_wait_aside(lj_parallel *parallel, lj_error *err);

#endif
