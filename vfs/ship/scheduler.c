/*
 * scheduler.c - see scheduler.h. Two queues, each a binary heap by due time: one of the short tasks, one of the bulk ones, of
 * which only so many may run at a time.
 */
#include "vfs/ship/scheduler.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "vfs/base/clock.h"
#include "vfs/base/thread.h"

#define WORKER_STACK_BYTES (512u * 1024u)

typedef struct {
    lj_task **heap; /* 1-based: heap[1] is due first */
    size_t count, capacity;
} task_queue;

static struct {
    pthread_mutex_t mutex;
    pthread_cond_t work; /* something became due earlier */
    pthread_cond_t done; /* a task ended */
    bool ready;          /* the condition variables exist */
    task_queue small, bulk;
    unsigned workers_max, workers, sleeping, bulk_running;
} sched = {.mutex = PTHREAD_MUTEX_INITIALIZER, .workers_max = 16};

static void prepare_locked(void)
{
    if (sched.ready)
        return;
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&sched.work, &attr);
    pthread_cond_init(&sched.done, &attr);
    pthread_condattr_destroy(&attr);
    sched.ready = true;
}

static task_queue *queue_of(const lj_task *task)
{
    return task->bulk ? &sched.bulk : &sched.small;
}

static void heap_put(task_queue *q, size_t at, lj_task *task)
{
    q->heap[at] = task;
    task->heap_at = at;
}

static void heap_up(task_queue *q, size_t at)
{
    lj_task *task = q->heap[at];
    for (; at > 1 && q->heap[at / 2]->due_ns > task->due_ns; at /= 2)
        heap_put(q, at, q->heap[at / 2]);
    heap_put(q, at, task);
}

static void heap_down(task_queue *q, size_t at)
{
    lj_task *task = q->heap[at];
    for (;;) {
        size_t child = at * 2;
        if (child > q->count)
            break;
        if (child < q->count && q->heap[child + 1]->due_ns < q->heap[child]->due_ns)
            child++;
        if (q->heap[child]->due_ns >= task->due_ns)
            break;
        heap_put(q, at, q->heap[child]);
        at = child;
    }
    heap_put(q, at, task);
}

static void heap_remove(lj_task *task)
{
    task_queue *q = queue_of(task);
    size_t at = task->heap_at;
    lj_task *last = q->heap[q->count--];
    task->heap_at = 0;
    if (last == task)
        return;
    heap_put(q, at, last);
    heap_up(q, at);
    heap_down(q, last->heap_at);
}

static bool heap_insert(lj_task *task)
{
    task_queue *q = queue_of(task);
    if (q->count + 2 > q->capacity) {
        size_t capacity = q->capacity == 0 ? 16 : q->capacity * 2;
        lj_task **heap = realloc(q->heap, capacity * sizeof(*heap));
        if (heap == NULL)
            return false;
        q->heap = heap;
        q->capacity = capacity;
    }
    heap_put(q, ++q->count, task);
    heap_up(q, q->count);
    return true;
}

/* The task that is due first, of those that may run now; NULL = none. */
static lj_task *first_locked(void)
{
    lj_task *small = sched.small.count > 0 ? sched.small.heap[1] : NULL;
    bool room = sched.bulk_running < lj_scheduler_bulk_max(sched.workers_max);
    lj_task *bulk = room && sched.bulk.count > 0 ? sched.bulk.heap[1] : NULL;
    if (small == NULL || bulk == NULL)
        return small != NULL ? small : bulk;
    return bulk->due_ns < small->due_ns ? bulk : small;
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
    if (task->heap_at != 0) {
        if (due_ns < task->due_ns) {
            task->due_ns = due_ns;
            heap_up(queue_of(task), task->heap_at);
        }
        return;
    }
    task->due_ns = due_ns;
    /* without memory for the queue the task waits for its next wake-up */
    (void)heap_insert(task);
}

static void start_worker_locked(void);

/* The worker that leaves the queue may stay away for long: somebody else has to watch what is left in it. */
static void hand_over_locked(void)
{
    if (first_locked() == NULL)
        return;
    if (sched.sleeping > 0)
        pthread_cond_signal(&sched.work); /* it may sleep until a later time, or for good */
    else if (sched.workers < sched.workers_max)
        start_worker_locked();
}

static void run_locked(lj_task *task)
{
    heap_remove(task);
    sched.bulk_running += task->bulk ? 1 : 0;
    hand_over_locked();
    task->running = true;
    task->again = false;
    pthread_mutex_unlock(&sched.mutex);
    int64_t next_ns = task->run(task);
    pthread_mutex_lock(&sched.mutex);
    task->running = false;
    sched.bulk_running -= task->bulk ? 1 : 0;
    if (next_ns != LJ_TASK_IDLE)
        queue_locked(task, next_ns);
    if (task->again)
        queue_locked(task, task->again_ns);
    pthread_cond_broadcast(&sched.done);
}

static void sleep_locked(void)
{
    const lj_task *first = first_locked();
    sched.sleeping++;
    if (first == NULL) {
        pthread_cond_wait(&sched.work, &sched.mutex);
    } else {
        int64_t due_ns = first->due_ns;
        struct timespec at = {.tv_sec = (time_t)(due_ns / LJ_NS_PER_S),
                              .tv_nsec = (long)(due_ns % LJ_NS_PER_S)};
        pthread_cond_timedwait(&sched.work, &sched.mutex, &at);
    }
    sched.sleeping--;
}

static void *worker(void *arg)
{
    (void)arg;
    lj_thread_give_way();
    pthread_mutex_lock(&sched.mutex);
    for (;;) {
        lj_task *first = first_locked();
        if (first != NULL && first->due_ns <= lj_clock_mono_ns())
            run_locked(first);
        else
            sleep_locked();
    }
    return NULL;
}

static void start_worker_locked(void)
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
    if (pthread_create(&thread, &attr, worker, NULL) == 0)
        sched.workers++;
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attr);
}

void lj_task_init(lj_task *task, lj_task_fn run, void *owner, bool bulk)
{
    *task = (lj_task){.run = run, .owner = owner, .bulk = bulk};
}

unsigned lj_scheduler_bulk_max(unsigned workers)
{
    return LJ_MAX(workers * 3 / 4, 1u);
}

void lj_scheduler_set_workers(unsigned workers)
{
    pthread_mutex_lock(&sched.mutex);
    sched.workers_max = LJ_MAX(workers, 1u);
    pthread_mutex_unlock(&sched.mutex);
}

void lj_task_wake(lj_task *task, int64_t due_ns)
{
    pthread_mutex_lock(&sched.mutex);
    prepare_locked();
    queue_locked(task, due_ns);
    if (!task->running) {
        if (sched.sleeping == 0 && sched.workers < sched.workers_max)
            start_worker_locked();
        pthread_cond_signal(&sched.work);
    }
    pthread_mutex_unlock(&sched.mutex);
}

void lj_task_stop(lj_task *task)
{
    pthread_mutex_lock(&sched.mutex);
    prepare_locked();
    task->dead = true;
    if (task->heap_at != 0)
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
    sched.small = (task_queue){.heap = NULL};
    sched.bulk = (task_queue){.heap = NULL};
    sched.bulk_running = 0;
    sched.workers = 0;
    sched.sleeping = 0;
}
