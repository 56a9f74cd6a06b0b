/*
 * progress.c - see progress.h.
 *
 * Layer: restore. Thread-safety: atomics only. `reporting` is taken by exchange; whoever does not get it goes on.
 */
#include "vfs/restore/progress.h"

#include "vfs/base/clock.h"

#define INTERVAL_NS (200 * LJ_NS_PER_MS)

static void report(lj_progress *progress)
{
    static const char *const phases[] = {"snapshot", "wal", "write"};
    lj_restore_progress now = {
        .objects_done = __atomic_load_n(&progress->objects_done, __ATOMIC_RELAXED),
        .objects_total = progress->objects_total,
        .bytes_done = __atomic_load_n(&progress->bytes_done, __ATOMIC_RELAXED),
        .bytes_total = progress->bytes_total,
        .phase = phases[__atomic_load_n(&progress->phase, __ATOMIC_RELAXED)],
    };
    progress->fn(progress->ctx, &now);
}

static void maybe_report(lj_progress *progress)
{
    if (progress->fn == NULL)
        return;
    int64_t now = lj_clock_mono_ns();
    if (now < __atomic_load_n(&progress->next_ns, __ATOMIC_RELAXED))
        return;
    if (__atomic_exchange_n(&progress->reporting, true, __ATOMIC_ACQUIRE))
        return;
    __atomic_store_n(&progress->next_ns, now + INTERVAL_NS, __ATOMIC_RELAXED);
    report(progress);
    __atomic_store_n(&progress->reporting, false, __ATOMIC_RELEASE);
}

void lj_progress_bytes(lj_progress *progress, size_t bytes)
{
    __atomic_fetch_add(&progress->bytes_done, bytes, __ATOMIC_RELAXED);
    maybe_report(progress);
}

void lj_progress_object(lj_progress *progress)
{
    __atomic_fetch_add(&progress->objects_done, 1, __ATOMIC_RELAXED);
    maybe_report(progress);
}

void lj_progress_phase(lj_progress *progress, lj_phase phase)
{
    __atomic_store_n(&progress->phase, (int)phase, __ATOMIC_RELAXED);
    maybe_report(progress);
}

void lj_progress_end(lj_progress *progress)
{
    if (progress->fn != NULL)
        report(progress);
}
