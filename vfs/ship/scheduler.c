/*
 * scheduler.c - see scheduler.h. Two crews of workers, one for the short tasks and one for the bulk ones, each with a queue by
 * due time: a pairing heap, whose links are in the tasks, so that no wake-up is lost for want of memory.
 */
#include "vfs/ship/scheduler.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "vfs/base/aside.h"
#include "vfs/base/clock.h"
#include "vfs/base/thread.h"

#define WORKER_STACK_BYTES (512u * 1024u)

typedef struct {
    lj_task *first; /* due first; the others are below it */
    unsigned workers, sleeping;
    pthread_cond_t work; /* something became due earlier */
} crew;

static struct {
    pthread_mutex_t mutex;
    pthread_cond_t done; /* a task ended */
    bool ready;          /* the condition variables exist */
    crew small, bulk;
    unsigned workers_max;
} sched = {.mutex = PTHREAD_MUTEX_INITIALIZER, .workers_max = 16};

static void prepare_locked(void)
{
    if (sched.ready)
        return;
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&sched.small.work, &attr);
    pthread_cond_init(&sched.bulk.work, &attr);
    pthread_cond_init(&sched.done, &attr);
    pthread_condattr_destroy(&attr);
    sched.ready = true;
}

static crew *crew_of(const lj_task *task)
{
    return task->bulk ? &sched.bulk : &sched.small;
}

static unsigned most_workers(const crew *c)
{
    return c == &sched.bulk ? lj_scheduler_bulk_max(sched.workers_max) : sched.workers_max;
}

/* Two heaps become one; either may be NULL. */
static lj_task *merge(lj_task *a, lj_task *b)
{
    if (a == NULL || b == NULL)
        return a != NULL ? a : b;
    lj_task *upper = b->due_ns < a->due_ns ? b : a;
    lj_task *lower = upper == a ? b : a;
    lower->before = upper;
    lower->next = upper->child;
    if (upper->child != NULL)
        upper->child->before = lower;
    upper->child = lower;
    upper->next = NULL;
    upper->before = NULL;
    return upper;
}

/* What is left of a heap whose first task goes: in pairs from the left, and these from the right. */
static lj_task *merge_children(lj_task *child)
{
    lj_task *pairs = NULL;
    while (child != NULL) {
        lj_task *a = child;
        lj_task *b = a->next;
        child = b != NULL ? b->next : NULL;
        a->next = NULL;
        if (b != NULL)
            b->next = NULL;
        lj_task *pair = merge(a, b);
        pair->before = NULL;
        pair->next = pairs;
        pairs = pair;
    }
    lj_task *all = NULL;
    while (pairs != NULL) {
        lj_task *pair = pairs;
        pairs = pair->next;
        pair->next = NULL;
        all = merge(all, pair);
    }
    return all;
}

static void heap_remove(lj_task *task)
{
    crew *c = crew_of(task);
    lj_task *below = merge_children(task->child);
    if (task == c->first) {
        c->first = below;
    } else {
        if (task->before->child == task)
            task->before->child = task->next;
        else
            task->before->next = task->next;
        if (task->next != NULL)
            task->next->before = task->before;
        c->first = merge(c->first, below);
    }
    task->child = task->next = task->before = NULL;
    task->queued = false;
}

static void heap_insert(lj_task *task, int64_t due_ns)
{
    crew *c = crew_of(task);
    task->due_ns = due_ns;
    task->queued = true;
    c->first = merge(c->first, task);
}

static void queue_locked(lj_task *task, int64_t due_ns)
{
    if (task->dead)
        return;
    if (task->running) {
        task->again_ns = task->again ? LJ_MIN(task->again_ns, due_ns) : due_ns;
        task->again = true;
        return;
    }
    if (task->queued) {
        if (due_ns >= task->due_ns)
            return;
        heap_remove(task);
    }
    heap_insert(task, due_ns);
}

static void start_worker_locked(crew *c);

/* The worker that leaves the queue may stay away for long: somebody else has to watch what is left in it. */
static void hand_over_locked(crew *c)
{
    if (c->first == NULL)
        return;
    if (c->sleeping > 0)
        pthread_cond_signal(&c->work); /* it may sleep until a later time, or for good */
    else if (c->workers < most_workers(c))
        start_worker_locked(c);
}

static void run_locked(lj_task *task)
{
    heap_remove(task);
    hand_over_locked(crew_of(task));
    task->running = true;
    task->again = false;
    pthread_mutex_unlock(&sched.mutex);
    int64_t next_ns = task->run(task);
    pthread_mutex_lock(&sched.mutex);
    task->running = false;
    if (next_ns != LJ_TASK_IDLE)
        queue_locked(task, next_ns);
    if (task->again)
        queue_locked(task, task->again_ns);
    pthread_cond_broadcast(&sched.done);
}

static void sleep_locked(crew *c)
{
    c->sleeping++;
    if (c->first == NULL) {
        pthread_cond_wait(&c->work, &sched.mutex);
    } else {
        int64_t due_ns = c->first->due_ns;
        struct timespec at = {.tv_sec = (time_t)(due_ns / LJ_NS_PER_S),
                              .tv_nsec = (long)(due_ns % LJ_NS_PER_S)};
        pthread_cond_timedwait(&c->work, &sched.mutex, &at);
    }
    c->sleeping--;
}

static void *worker(void *arg)
{
    crew *c = arg;
    if (c == &sched.bulk) {
        lj_thread_give_way();
        (void)lj_aside_swap(true);
    }
    pthread_mutex_lock(&sched.mutex);
    for (;;) {
        if (c->first != NULL && c->first->due_ns <= lj_clock_mono_ns())
            run_locked(c->first);
        else
            sleep_locked(c);
    }
    return NULL;
}

static void start_worker_locked(crew *c)
{
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, WORKER_STACK_BYTES);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    sigset_t all;
    sigset_t old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    pthread_t thread;
    if (pthread_create(&thread, &attr, worker, c) == 0)
        c->workers++;
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attr);
}

void lj_task_init(lj_task *task, lj_task_fn run, void *owner, bool bulk)
{
    *task = (lj_task){.run = run, .owner = owner, .bulk = bulk};
}

unsigned lj_scheduler_bulk_max(unsigned workers)
{
    return LJ_MAX(workers / 2, 1u);
}

void lj_scheduler_set_workers(unsigned workers)
{
    pthread_mutex_lock(&sched.mutex);
    sched.workers_max = LJ_MAX(workers, 1u);
    pthread_mutex_unlock(&sched.mutex);
}

bool lj_task_wake(lj_task *task, int64_t due_ns)
{
    crew *c = crew_of(task);
    pthread_mutex_lock(&sched.mutex);
    prepare_locked();
    queue_locked(task, due_ns);
    if (!task->running) {
        if (c->sleeping == 0 && c->workers < most_workers(c))
            start_worker_locked(c);
        pthread_cond_signal(&c->work);
    }
    bool watched = c->workers > 0;
    pthread_mutex_unlock(&sched.mutex);
    return watched;
}

void lj_task_stop(lj_task *task)
{
    pthread_mutex_lock(&sched.mutex);
    prepare_locked();
    task->dead = true;
    if (task->queued)
        heap_remove(task);
    while (task->running)
        pthread_cond_wait(&sched.done, &sched.mutex);
    pthread_mutex_unlock(&sched.mutex);
}

void lj_scheduler_after_fork(void)
{
    pthread_mutex_init(&sched.mutex, NULL);
    sched.ready = false;
    /* the parent's queues: their tasks belong to databases this process does not replicate */
    sched.small = (crew){.first = NULL};
    sched.bulk = (crew){.first = NULL};
}
