/*
 * scheduler.c - see scheduler.h. The queue is a binary heap by due time.
 */
#include "vfs/ship/scheduler.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "vfs/base/clock.h"

#define WORKER_STACK_BYTES (512u * 1024u)

static struct {
    pthread_mutex_t mutex;
    pthread_cond_t work; /* something became due earlier */
    pthread_cond_t done; /* a task ended */
    bool ready;          /* the condition variables exist */
    lj_task **heap;      /* 1-based: heap[1] is due first */
    size_t count, capacity;
    unsigned workers_max, workers, sleeping;
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

static void heap_put(size_t at, lj_task *task)
{
    sched.heap[at] = task;
    task->heap_at = at;
}

static void heap_up(size_t at)
{
    lj_task *task = sched.heap[at];
    for (; at > 1 && sched.heap[at / 2]->due_ns > task->due_ns; at /= 2)
        heap_put(at, sched.heap[at / 2]);
    heap_put(at, task);
}

static void heap_down(size_t at)
{
    lj_task *task = sched.heap[at];
    for (;;) {
        size_t child = at * 2;
        if (child > sched.count)
            break;
        if (child < sched.count && sched.heap[child + 1]->due_ns < sched.heap[child]->due_ns)
            child++;
        if (sched.heap[child]->due_ns >= task->due_ns)
            break;
        heap_put(at, sched.heap[child]);
        at = child;
    }
    heap_put(at, task);
}

static void heap_remove(lj_task *task)
{
    size_t at = task->heap_at;
    lj_task *last = sched.heap[sched.count--];
    task->heap_at = 0;
    if (last == task)
        return;
    heap_put(at, last);
    heap_up(at);
    heap_down(last->heap_at);
}

static bool heap_insert(lj_task *task)
{
    if (sched.count + 2 > sched.capacity) {
        size_t capacity = sched.capacity == 0 ? 16 : sched.capacity * 2;
        lj_task **heap = realloc(sched.heap, capacity * sizeof(*heap));
        if (heap == NULL)
            return false;
        sched.heap = heap;
        sched.capacity = capacity;
    }
    heap_put(++sched.count, task);
    heap_up(sched.count);
    return true;
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
            heap_up(task->heap_at);
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
    if (sched.count == 0)
        return;
    if (sched.sleeping > 0)
        pthread_cond_signal(&sched.work); /* it may sleep until a later time, or for good */
    else if (sched.workers < sched.workers_max)
        start_worker_locked();
}

static void run_locked(lj_task *task)
{
    heap_remove(task);
    hand_over_locked();
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

static void sleep_locked(void)
{
    sched.sleeping++;
    if (sched.count == 0) {
        pthread_cond_wait(&sched.work, &sched.mutex);
    } else {
        int64_t due_ns = sched.heap[1]->due_ns;
        struct timespec at = {.tv_sec = (time_t)(due_ns / LJ_NS_PER_S),
                              .tv_nsec = (long)(due_ns % LJ_NS_PER_S)};
        pthread_cond_timedwait(&sched.work, &sched.mutex, &at);
    }
    sched.sleeping--;
}

static void *worker(void *arg)
{
    (void)arg;
    pthread_mutex_lock(&sched.mutex);
    for (;;) {
        if (sched.count > 0 && sched.heap[1]->due_ns <= lj_clock_mono_ns())
            run_locked(sched.heap[1]);
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

void lj_task_init(lj_task *task, lj_task_fn run, void *owner)
{
    *task = (lj_task){.run = run, .owner = owner};
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
    sched.heap =
        NULL; /* the parent's queue; its tasks belong to databases this process does not replicate */
    sched.count = 0;
    sched.capacity = 0;
    sched.workers = 0;
    sched.sleeping = 0;
}
