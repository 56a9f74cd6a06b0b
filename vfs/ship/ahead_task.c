/*
 * ahead_task.c - the task that copies for the spool before the WAL restarts (capture/ahead.h).
 *
 * Layer: ship. Beside the shipping task, because that may be waiting for the store.
 */
#include "vfs/base/clock.h"
#include "vfs/ship/internal.h"

int64_t lj_ahead_task_run(lj_task *task)
{
    const lj_shipper *s = task->owner;
    lj_db *db = s->db;
    if (!lj_ahead_run(db))
        return LJ_TASK_IDLE;
    /* what nobody takes goes behind the tick that ships it */
    return lj_clock_mono_ns() + LJ_MAX(db->options.sync_interval_ns, LJ_NS_PER_S);
}

void lj_ahead_task_wake(lj_db *db)
{
    lj_shipper *s = db->shipper;
    if (s != NULL)
        (void)lj_task_wake(&s->ahead_task, 0);
}
