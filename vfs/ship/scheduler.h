/*
 * scheduler.h - a few worker threads for all databases of the process, and when which task is due.
 *
 * A task is embedded in its owner. It runs in one worker at a time; waking it while it runs makes it run again. With
 * nothing due the workers sleep without a timeout: an idle process is never woken by us.
 *
 * A bulk task may take minutes (a snapshot). Such tasks have threads of their own, half as many, which give way to those of the
 * host (lj_thread_give_way): however many databases take their snapshots at once, segments go on, and so do commits.
 *
 * Layer: ship. Thread-safety: every function, from any thread. The mutex (rank 3) is never held while a task runs. Threads
 * start at the first wake-up, with all signals blocked. Nothing is allocated, so no wake-up is lost for want of memory; without a
 * thread it stays in the queue, and the next wake-up tries again to start one. After fork() the child has no workers and no
 * tasks: lj_scheduler_after_fork() starts it afresh.
 */
#ifndef LJ_SCHEDULER_H
#define LJ_SCHEDULER_H

#include "vfs/base/base.h"

#define LJ_TASK_IDLE INT64_C(-1)

typedef struct lj_task lj_task;
/* Does some work; returns the monotonic time it wants to run again, or LJ_TASK_IDLE. */
typedef int64_t (*lj_task_fn)(lj_task *task);

struct lj_task {
    lj_task_fn run;
    void *owner;
    bool bulk;
    /* the scheduler's */
    int64_t due_ns;
    lj_task *child, *next; /* in the queue: those due later, and who has the same task above */
    lj_task *before;       /* who has this one as child or next */
    bool queued;
    bool running;
    bool again;
    int64_t again_ns;
    bool dead;
};

void lj_task_init(lj_task *task, lj_task_fn run, void *owner, bool bulk);
/* How many threads there are for bulk tasks, besides so many for the others: at least one. */
unsigned lj_scheduler_bulk_max(unsigned workers);
/* Threads at most; takes effect for threads not yet started. Default 16. */
void lj_scheduler_set_workers(unsigned workers);
/*
 * Due at `due_ns` or earlier (an earlier time already set stays). 0 = now. false: the task's crew has no thread, and none could be
 * started. The task is in the queue, and nobody looks there before the next wake-up of any task of that crew.
 */
bool lj_task_wake(lj_task *task, int64_t due_ns);
/* Takes the task out of the queue, waits until it does not run, and never runs it again. */
void lj_task_stop(lj_task *task);
/* Of two due times, either of which may be LJ_TASK_IDLE. */
static inline int64_t lj_task_earlier(int64_t a_ns, int64_t b_ns)
{
    return a_ns == LJ_TASK_IDLE || b_ns == LJ_TASK_IDLE ? LJ_MAX(a_ns, b_ns) : LJ_MIN(a_ns, b_ns);
}
/* In the child of a fork. */
void lj_scheduler_after_fork(void);

#endif
