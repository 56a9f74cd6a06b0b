/*
 * progress.h - counts what a restore has fetched, from many threads, and reports it now and then.
 *
 * Layer: restore (internal). Thread-safety: any thread; the callback runs in one at a time, under no lock.
 */
#ifndef LJ_PROGRESS_H
#define LJ_PROGRESS_H

#include "vfs/restore/restore.h"

typedef enum { LJ_PHASE_SNAPSHOT, LJ_PHASE_WAL, LJ_PHASE_WRITE } lj_phase;

typedef struct {
    lj_restore_progress_fn fn; /* NULL: nothing is reported */
    void *ctx;
    uint64_t objects_total;
    uint64_t bytes_total;
    /* atomics: */
    uint64_t objects_done;
    uint64_t bytes_done;
    int64_t next_ns; /* monotonic time of the next report */
    int phase;
    bool reporting; /* a thread is in the callback */
} lj_progress;

void lj_progress_bytes(lj_progress *progress, size_t bytes);
void lj_progress_object(lj_progress *progress);
void lj_progress_phase(lj_progress *progress, lj_phase phase);
/* The last report; by the thread that started the restore, when no other is left. */
void lj_progress_end(lj_progress *progress);

#endif
