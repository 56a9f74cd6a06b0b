/*
 * parts.c - see parts.h.
 *
 * Layer: storage. Thread-safety: `upload.mutex` (rank: leaf) guards the fields of an upload below it; nothing is sent or
 * read under it.
 * Invariant: a part's buffer belongs to the reading thread until it is queued, then to the sender that took it.
 */
#include "vfs/storage/parts.h"

#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "vfs/base/clock.h"
#include "vfs/base/io.h"

#define ATTEMPTS         4u
#define FIRST_PAUSE_NS   (200 * LJ_NS_PER_MS)
#define LONGEST_PAUSE_NS (5 * LJ_NS_PER_S)
#define POLL_NS          (50 * LJ_NS_PER_MS)
#define PARTS_PER_SIZE   1000u
#define STACK_BYTES      ((size_t)512 * 1024)

static _Atomic unsigned buffers_in_use;

typedef struct {
    uint32_t number;
    uint8_t *data; /* owned */
    size_t len;
} part;

typedef struct {
    const lj_parts_job *job;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    part waiting; /* read and not taken yet; data NULL: none */
    bool ended;   /* no part comes any more */
    bool failed;
    uint32_t failed_number;
    lj_code code;
    lj_error error;
} upload;

lj_code lj_parts_head(lj_source *source, lj_buf *head, bool *ret_whole, lj_error *err)
{
    size_t step = (size_t)64 * 1024;
    for (;;) {
        size_t n = 0;
        size_t want = LJ_MIN(step, LJ_PARTS_SMALL_MAX + 1 - head->len);
        if (want == 0) {
            *ret_whole = false;
            return LJ_OK;
        }
        LJ_TRY(lj_buf_reserve(head, want, err));
        LJ_TRY(source->read(source->ctx, head->data + head->len, want, &n, err));
        if (n == 0) {
            *ret_whole = true;
            return LJ_OK;
        }
        head->len += n;
        head->data[head->len] = 0;
    }
}

static size_t size_of_part(const lj_parts_job *job, uint32_t number)
{
    return job->equal ? LJ_PARTS_SMALL_MAX
                      : LJ_PARTS_SMALL_MAX * (1 + (size_t)(number - 1) / PARTS_PER_SIZE);
}

/* ---- sending one part ---- */

static bool cancelled(const lj_parts_job *job)
{
    return job->cancel != NULL && __atomic_load_n(job->cancel, __ATOMIC_RELAXED);
}

static bool worth_retrying(const lj_error *err)
{
    return err->retryable &&
           (err->code == LJ_UNAVAILABLE || err->code == LJ_TIMEOUT || err->code == LJ_IO);
}

/* Full jitter, but never less than the server asked for. */
static void pause_before(const lj_parts_job *job, unsigned attempt, int64_t retry_after_ns)
{
    int64_t bound = LJ_MIN(FIRST_PAUSE_NS << attempt, LONGEST_PAUSE_NS);
    uint32_t random = 0;
    lj_io_random(&random, sizeof(random));
    int64_t pause_ns = LJ_MAX((int64_t)((double)bound * random / UINT32_MAX),
                              LJ_MIN(retry_after_ns, 60 * LJ_NS_PER_S));
    int64_t end_ns = lj_clock_mono_ns() + pause_ns;
    for (int64_t left; !cancelled(job) && (left = end_ns - lj_clock_mono_ns()) > 0;)
        lj_clock_sleep_ns(LJ_MIN(left, POLL_NS));
}

static lj_code send_part(const lj_parts_job *job, const part *p, lj_error *err)
{
    for (unsigned attempt = 0;; attempt++) {
        if (cancelled(job))
            return lj_error_set(err, LJ_CANCELLED, "the upload was cancelled");
        lj_code code = job->send(job->ctx, p->number, p->data, p->len, err);
        if (code == LJ_OK || !worth_retrying(err) || attempt + 1 >= ATTEMPTS)
            return code;
        pause_before(job, attempt, err->retry_after_ns);
    }
}

/* ---- senders ---- */

static void note_failure(upload *u, uint32_t number, lj_code code, const lj_error *error)
{
    pthread_mutex_lock(&u->mutex);
    if (!u->failed || number < u->failed_number) {
        u->failed = true;
        u->failed_number = number;
        u->code = code;
        u->error = *error;
    }
    pthread_cond_broadcast(&u->changed);
    pthread_mutex_unlock(&u->mutex);
}

static void *sender(void *ctx)
{
    upload *u = ctx;
    for (;;) {
        pthread_mutex_lock(&u->mutex);
        while (u->waiting.data == NULL && !u->ended && !u->failed)
            pthread_cond_wait(&u->changed, &u->mutex);
        part p = u->waiting;
        u->waiting.data = NULL;
        bool failed = u->failed;
        pthread_cond_broadcast(&u->changed);
        pthread_mutex_unlock(&u->mutex);
        if (p.data == NULL)
            return NULL;
        if (!failed) {
            lj_error error = LJ_ERROR_INIT;
            lj_code code = send_part(u->job, &p, &error);
            if (code != LJ_OK)
                note_failure(u, p.number, code, &error);
        }
        free(p.data);
    }
}

/* With all signals blocked: the threads may live in someone else's process. */
static unsigned start_senders(upload *u, pthread_t *threads, unsigned wanted)
{
    pthread_attr_t attr;
    sigset_t all;
    sigset_t old;
    if (wanted == 0 || pthread_attr_init(&attr) != 0)
        return 0;
    pthread_attr_setstacksize(&attr, STACK_BYTES);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    unsigned started = 0;
    while (started < wanted && pthread_create(&threads[started], &attr, sender, u) == 0)
        started++;
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attr);
    return started;
}

/* Hands the part to a sender; false when the upload has failed (the part stays the caller's). */
static bool hand_over(upload *u, const part *p)
{
    pthread_mutex_lock(&u->mutex);
    while (u->waiting.data != NULL && !u->failed)
        pthread_cond_wait(&u->changed, &u->mutex);
    bool taken = !u->failed;
    if (taken) {
        u->waiting = *p;
        pthread_cond_broadcast(&u->changed);
    }
    pthread_mutex_unlock(&u->mutex);
    return taken;
}

/* ---- reading ---- */

/* Fills one part: first what is left of the head, then the source. len 0: the end. */
static lj_code read_part(const lj_parts_job *job, lj_source *source, const lj_buf *head,
                         size_t *head_used, part *p, lj_error *err)
{
    size_t size = size_of_part(job, p->number);
    p->data = malloc(size);
    if (p->data == NULL)
        return lj_error_nomem(err);
    p->len = LJ_MIN(head->len - *head_used, size);
    if (p->len > 0)
        memcpy(p->data, head->data + *head_used, p->len);
    *head_used += p->len;
    while (p->len < size) {
        size_t n = 0;
        lj_code code = source->read(source->ctx, p->data + p->len, size - p->len, &n, err);
        if (code != LJ_OK) {
            free(p->data);
            return code;
        }
        if (n == 0)
            break;
        p->len += n;
    }
    return LJ_OK;
}

static lj_code read_all(upload *u, lj_source *source, const lj_buf *head, bool alone,
                        uint32_t *ret_count, lj_error *err)
{
    size_t head_used = 0;
    for (uint32_t number = 1;; number++) {
        part p = {.number = number};
        LJ_TRY(read_part(u->job, source, head, &head_used, &p, err));
        if (p.len == 0) {
            free(p.data);
            *ret_count = number - 1;
            return LJ_OK;
        }
        lj_code code = LJ_OK;
        if (number > u->job->parts_max)
            code = lj_error_set(err, LJ_INVALID, "the object needs more than %" PRIu32 " parts",
                                u->job->parts_max);
        else if (alone)
            code = send_part(u->job, &p, err);
        else if (hand_over(u, &p))
            continue;
        free(p.data);
        if (code != LJ_OK)
            return code;
        if (!alone) {
            *ret_count = number;
            return LJ_OK; /* a sender failed, and has told */
        }
    }
}

static unsigned reserve_buffers(void)
{
    unsigned taken = 0;
    for (; taken < LJ_PARTS_SENDERS; taken++) {
        if (atomic_fetch_add(&buffers_in_use, 1) >= LJ_PARTS_BUFFERS) {
            atomic_fetch_sub(&buffers_in_use, 1);
            break;
        }
    }
    return taken;
}

lj_code lj_parts_send(lj_source *source, const lj_buf *head, const lj_parts_job *job,
                      uint32_t *ret_count, lj_error *err)
{
    upload u = {.job = job, .error = LJ_ERROR_INIT};
    lj_error local = LJ_ERROR_INIT;
    lj_error *error = err != NULL ? err : &local;
    pthread_t threads[LJ_PARTS_SENDERS];
    uint32_t count = 0;
    unsigned reserved = reserve_buffers();
    pthread_mutex_init(&u.mutex, NULL);
    pthread_cond_init(&u.changed, NULL);
    unsigned started = start_senders(&u, threads, reserved);
    lj_code code = read_all(&u, source, head, started == 0, &count, error);
    pthread_mutex_lock(&u.mutex);
    u.ended = true;
    pthread_cond_broadcast(&u.changed);
    pthread_mutex_unlock(&u.mutex);
    for (unsigned i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
    atomic_fetch_sub(&buffers_in_use, reserved);
    free(u.waiting.data);
    pthread_cond_destroy(&u.changed);
    pthread_mutex_destroy(&u.mutex);
    if (u.failed) {
        *error = u.error;
        return u.code;
    }
    if (code == LJ_OK)
        *ret_count = count;
    return code;
}
