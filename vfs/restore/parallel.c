/*
 * parallel.c - see parallel.h.
 *
 * Layer: restore. Thread-safety: `mutex` guards every field of lj_parallel below it (rank: leaf; no callback and no I/O
 * under it). `delivering` is the right to call begin/data/end and to move head.
 * Invariants: objects below head were delivered; head <= next; slots of [head, next) are in the ring.
 */
#include "vfs/restore/parallel.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "vfs/base/thread.h"

#define SLOT_BYTES_DEFAULT ((size_t)1024 * 1024)
#define RING_MAX           1024u
#define STACK_BYTES        ((size_t)512 * 1024)
#define WORKERS_MAX        256u

typedef enum { SLOT_BUSY, SLOT_READY, SLOT_FAILED } slot_state;

typedef struct {
    slot_state state;
    uint8_t *data; /* owned, NULL when empty */
    size_t len;
    lj_error *error; /* owned, SLOT_FAILED only */
} slot;

typedef enum { ASIDE_WAITING, ASIDE_RUNNING, ASIDE_DONE } aside_state;

struct lj_parallel {
    const lj_parallel_job *job;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    unsigned waiting; /* threads in pthread_cond_wait */
    slot *ring;
    size_t ring_size;
    size_t slot_bytes;
    size_t head;
    size_t next;
    size_t stop; /* no object at or behind this one is begun: one failed */
    size_t waiting_bytes;
    bool delivering;
    bool over; /* failed: everybody leaves */
    bool after_begun;
    aside_state aside;
    lj_code code; /* of the failure */
    size_t failed;
    lj_error error;
};

/* One object on its way through a worker. */
typedef struct {
    lj_parallel *parallel;
    size_t index;
    uint8_t *data;
    size_t len;
    bool streaming; /* it is this object's turn and its content goes straight through */
} task;

static void wait_change(lj_parallel *p)
{
    p->waiting++;
    pthread_cond_wait(&p->changed, &p->mutex);
    p->waiting--;
}

static void tell_change(lj_parallel *p)
{
    if (p->waiting > 0)
        pthread_cond_broadcast(&p->changed);
}

/* Under the mutex. The first failure that is reported counts. */
static void fail(lj_parallel *p, lj_code code, size_t failed, const lj_error *error)
{
    if (!p->over) {
        p->over = true;
        p->code = code;
        p->failed = failed;
        p->error = *error;
        __atomic_store_n(p->job->abort, true, __ATOMIC_RELAXED);
    }
    tell_change(p);
}

static lj_code cancelled(lj_error *err)
{
    return lj_error_set(err, LJ_CANCELLED, "the restore was cancelled");
}

lj_code lj_parallel_wait_aside(lj_parallel *p, lj_error *err)
{
    pthread_mutex_lock(&p->mutex);
    while (p->aside != ASIDE_DONE && !p->over)
        wait_change(p);
    bool over = p->over;
    pthread_mutex_unlock(&p->mutex);
    return over ? cancelled(err) : LJ_OK;
}

/*
 * Delivers what is ready from head on. Called and left with the mutex held and `delivering` set by the caller; it is
 * given back here, under the same hold of the mutex in which nothing more was found ready.
 */
static void deliver(lj_parallel *p)
{
    const lj_parallel_job *job = p->job;
    while (!p->over && p->head < p->next) {
        slot *s = &p->ring[p->head % p->ring_size];
        if (s->state == SLOT_BUSY)
            break;
        if (s->state == SLOT_FAILED) {
            fail(p, s->error->code, p->head, s->error);
            break;
        }
        uint8_t *data = s->data;
        size_t len = s->len;
        size_t index = p->head;
        s->data = NULL;
        pthread_mutex_unlock(&p->mutex);
        lj_error error = LJ_ERROR_INIT;
        lj_code code = job->begin(job->ctx, index, &error);
        if (code == LJ_OK)
            code = job->data(job->ctx, index, data, len, &error);
        if (code == LJ_OK)
            code = job->end(job->ctx, p, index, &error);
        free(data);
        pthread_mutex_lock(&p->mutex);
        p->waiting_bytes -= len;
        if (code != LJ_OK) {
            fail(p, code, index, &error);
            break;
        }
        p->head++;
        tell_change(p);
    }
    if (!p->over && p->head == job->count && job->after != NULL && !p->after_begun) {
        p->after_begun = true;
        pthread_mutex_unlock(&p->mutex);
        lj_error error = LJ_ERROR_INIT;
        lj_code code = job->after(job->ctx, &error);
        pthread_mutex_lock(&p->mutex);
        if (code != LJ_OK)
            fail(p, code, job->count - 1, &error);
    }
    p->delivering = false;
    tell_change(p);
}

/* Waits until this object is next, then sends what was collected and leaves the task in the right to deliver. */
static lj_code start_streaming(task *t, lj_error *err)
{
    lj_parallel *p = t->parallel;
    pthread_mutex_lock(&p->mutex);
    while (!p->over && (p->head != t->index || p->delivering))
        wait_change(p);
    bool over = p->over;
    if (!over)
        p->delivering = true;
    pthread_mutex_unlock(&p->mutex);
    if (over)
        return cancelled(err);
    t->streaming = true;
    LJ_TRY(p->job->begin(p->job->ctx, t->index, err));
    lj_code code = p->job->data(p->job->ctx, t->index, t->data, t->len, err);
    free(t->data);
    t->data = NULL;
    t->len = 0;
    return code;
}

static lj_code task_write(void *ctx, const void *data, size_t len, lj_error *err)
{
    task *t = ctx;
    if (!t->streaming && t->len + len <= t->parallel->slot_bytes) {
        uint8_t *bigger = realloc(t->data, t->len + len + 1);
        if (bigger == NULL)
            return lj_error_nomem(err);
        memcpy(bigger + t->len, data, len);
        t->data = bigger;
        t->len += len;
        return LJ_OK;
    }
    if (!t->streaming)
        LJ_TRY(start_streaming(t, err));
    return t->parallel->job->data(t->parallel->job->ctx, t->index, data, len, err);
}

/* Under the mutex: the object did not come. */
static void task_failed(lj_parallel *p, const task *t, lj_code code, const lj_error *error)
{
    if (t->streaming) {
        p->delivering = false;
        fail(p, code, t->index, error);
        return;
    }
    slot *s = &p->ring[t->index % p->ring_size];
    s->error = malloc(sizeof(*s->error));
    if (code == LJ_CANCELLED || s->error == NULL) {
        fail(p, code, t->index, error);
        return;
    }
    *s->error = *error;
    s->state = SLOT_FAILED;
    p->stop = LJ_MIN(p->stop, t->index);
}

/* Called and left with the mutex held. */
static void run_task(lj_parallel *p, size_t index)
{
    task t = {.parallel = p, .index = index};
    lj_sink sink = {.ctx = &t, .write = task_write};
    lj_error error = LJ_ERROR_INIT;
    pthread_mutex_unlock(&p->mutex);
    lj_code code = p->job->fetch(p->job->ctx, index, &sink, &error);
    if (code == LJ_OK && t.streaming)
        code = p->job->end(p->job->ctx, p, index, &error);
    pthread_mutex_lock(&p->mutex);
    if (code != LJ_OK) {
        task_failed(p, &t, code, &error);
        free(t.data);
    } else if (t.streaming) {
        p->head++;
        deliver(p);
        return;
    } else {
        p->ring[index % p->ring_size] = (slot){.state = SLOT_READY, .data = t.data, .len = t.len};
        p->waiting_bytes += t.len;
    }
    if (!p->delivering && !p->over) {
        p->delivering = true;
        deliver(p);
    }
}

static void run_aside(lj_parallel *p)
{
    lj_error error = LJ_ERROR_INIT;
    p->aside = ASIDE_RUNNING;
    pthread_mutex_unlock(&p->mutex);
    lj_code code = p->job->aside(p->job->ctx, &error);
    pthread_mutex_lock(&p->mutex);
    if (code != LJ_OK)
        fail(p, code, LJ_PARALLEL_ASIDE, &error);
    else
        p->aside = ASIDE_DONE;
    tell_change(p);
}

static void *worker(void *ctx)
{
    lj_parallel *p = ctx;
    const lj_parallel_job *job = p->job;
    pthread_mutex_lock(&p->mutex);
    while (!p->over) {
        if (p->aside == ASIDE_WAITING) {
            run_aside(p);
            continue;
        }
        if (p->next >= LJ_MIN(job->count, p->stop))
            break;
        bool room = p->next - p->head < p->ring_size &&
                    p->waiting_bytes < (size_t)job->workers * p->slot_bytes;
        if (!room) {
            wait_change(p);
            continue;
        }
        size_t index = p->next++;
        p->ring[index % p->ring_size] = (slot){.state = SLOT_BUSY};
        run_task(p, index);
    }
    pthread_mutex_unlock(&p->mutex);
    return NULL;
}

static void free_ring(lj_parallel *p)
{
    for (size_t i = 0; i < p->ring_size; i++) {
        free(p->ring[i].data);
        free(p->ring[i].error);
    }
    free(p->ring);
}

lj_code lj_parallel_run(const lj_parallel_job *job, size_t *ret_failed, lj_error *err)
{
    lj_parallel p = {
        .job = job,
        .mutex = PTHREAD_MUTEX_INITIALIZER,
        .changed = PTHREAD_COND_INITIALIZER,
        .ring_size = LJ_MAX(LJ_MIN(job->count, (size_t)RING_MAX), (size_t)1),
        .slot_bytes = job->slot_bytes != 0 ? job->slot_bytes : SLOT_BYTES_DEFAULT,
        .stop = SIZE_MAX,
        .aside = job->aside != NULL ? ASIDE_WAITING : ASIDE_DONE,
        .error = LJ_ERROR_INIT,
    };
    p.ring = calloc(p.ring_size, sizeof(*p.ring));
    if (p.ring == NULL)
        return lj_error_nomem(err);
    pthread_t threads[WORKERS_MAX];
    size_t jobs = job->count + (job->aside != NULL ? 1 : 0);
    unsigned wanted = (unsigned)LJ_MIN((size_t)LJ_MIN(job->workers, WORKERS_MAX), jobs);
    unsigned started =
        lj_threads_start(threads, wanted > 0 ? wanted - 1 : 0, STACK_BYTES, worker, &p);
    worker(&p);
    for (unsigned i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
    free_ring(&p);
    pthread_mutex_destroy(&p.mutex);
    pthread_cond_destroy(&p.changed);
    if (!p.over)
        return LJ_OK;
    *ret_failed = p.failed;
    if (err != NULL)
        *err = p.error;
    return p.code;
}
