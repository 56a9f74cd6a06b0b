/*
 * parts.c - see parts.h.
 *
 * Layer: storage. Thread-safety: `upload.mutex` (rank: leaf) guards the fields of an upload below it; nothing is sent or
 * read under it.
 * Invariants: a part's buffer belongs to the reading thread until it is queued, then to the sender that took it. No more
 * than `buffers` of them exist in an upload, from before the part is read until after it was sent.
 */
#include "vfs/storage/parts.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "vfs/base/aside.h"
#include "vfs/base/cancel.h"
#include "vfs/base/clock.h"
#include "vfs/base/retry.h"
#include "vfs/base/thread.h"
#include "vfs/storage/http/guard.h"

#define FIRST_PAUSE_NS   (200 * LJ_NS_PER_MS)
#define LONGEST_PAUSE_NS (5 * LJ_NS_PER_S)
#define POLL_NS          (50 * LJ_NS_PER_MS)
#define PARTS_PER_SIZE   1000u
#define STACK_BYTES      ((size_t)512 * 1024)

static _Atomic unsigned buffers_in_use;

typedef struct {
    uint32_t number;
    uint8_t *data; /* owned */
    size_t cap;
    size_t len;
} part;

typedef struct {
    const lj_parts_job *job;
    const bool *cancel; /* the flag of the thread that uploads (cancel.h), for the senders */
    bool stands_aside;  /* whether that thread does (aside.h), for the senders, too */
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    unsigned buffers; /* constant: how many parts may be in memory */
    unsigned in_use;
    uint8_t *spare[LJ_PARTS_SENDERS]; /* buffers of parts that were sent, for the next ones */
    size_t spare_cap[LJ_PARTS_SENDERS];
    unsigned spares;
    part waiting; /* read and not taken yet; data NULL: none */
    bool ended;   /* no part comes any more */
    bool
        failed; /* also read without the mutex, atomically; from here on only `code` and `error` of the first failure matter */
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

bool lj_parts_pause(const bool *cancel, unsigned attempt, int64_t retry_after_ns)
{
    return lj_retry_pause(attempt, FIRST_PAUSE_NS, LONGEST_PAUSE_NS, retry_after_ns, cancel, NULL);
}

lj_code lj_parts_unclear(lj_error *err)
{
    if (err == NULL)
        return LJ_UNAVAILABLE;
    if (err->code == LJ_EXISTS || !lj_error_is_refusal(err))
        return err->code;
    err->code = LJ_UNAVAILABLE;
    err->http_status = 0;
    (void)lj_error_context(err, "whether the upload is complete is not known");
    return lj_error_retryable(err, true);
}

static lj_code send_part(upload *u, const part *p, lj_error *err)
{
    const lj_parts_job *job = u->job;
    for (unsigned attempt = 0;; attempt++) {
        if (lj_cancel_requested(job->cancel))
            return lj_error_set(err, LJ_CANCELLED, "the upload was cancelled");
        lj_code code = job->send(job->ctx, p->number, p->data, p->len, err);
        if (code == LJ_OK || !lj_retry_may_pass(err) || attempt + 1 >= LJ_PARTS_ATTEMPTS)
            return code;
        if (!lj_retry_pause(attempt, FIRST_PAUSE_NS, LONGEST_PAUSE_NS, err->retry_after_ns,
                            job->cancel, &u->failed) &&
            !lj_cancel_requested(job->cancel))
            return code; /* another part's error is the one that is told */
    }
}

/* ---- senders ---- */

/* The first failure stops the upload, so the later ones may be its consequences. */
static void note_failure(upload *u, lj_code code, const lj_error *error)
{
    pthread_mutex_lock(&u->mutex);
    if (!u->failed) {
        __atomic_store_n(&u->failed, true, __ATOMIC_RELAXED);
        u->code = code;
        u->error = *error;
    }
    pthread_cond_broadcast(&u->changed);
    pthread_mutex_unlock(&u->mutex);
}

static void *sender(void *ctx)
{
    upload *u = ctx;
    lj_cancel_swap(u->cancel);
    (void)lj_aside_swap(u->stands_aside);
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
            lj_code code = send_part(u, &p, &error);
            if (code != LJ_OK)
                note_failure(u, code, &error);
        }
        pthread_mutex_lock(&u->mutex);
        u->spare[u->spares] = p.data; /* there are no more buffers than senders */
        u->spare_cap[u->spares++] = p.cap;
        u->in_use--;
        pthread_cond_broadcast(&u->changed);
        pthread_mutex_unlock(&u->mutex);
    }
}

/* Waits until one more part may be in memory; false when the upload has failed. */
static bool take_buffer(upload *u)
{
    pthread_mutex_lock(&u->mutex);
    while (u->in_use >= u->buffers && !u->failed)
        pthread_cond_wait(&u->changed, &u->mutex);
    bool taken = !u->failed;
    u->in_use += taken;
    pthread_mutex_unlock(&u->mutex);
    return taken;
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

/* Fresh memory is the kernel's to clear, page by page, so that of a part that was sent is taken where it is large enough. */
static lj_code find_memory(upload *u, part *p, lj_error *err)
{
    size_t size = size_of_part(u->job, p->number);
    p->data = NULL;
    p->cap = 0;
    pthread_mutex_lock(&u->mutex);
    if (u->spares > 0) {
        p->data = u->spare[--u->spares];
        p->cap = u->spare_cap[u->spares];
    }
    pthread_mutex_unlock(&u->mutex);
    if (p->cap >= size)
        return LJ_OK;
    free(p->data);
    p->data = malloc(size);
    p->cap = size;
    return p->data != NULL ? LJ_OK : lj_error_nomem(err);
}

/* What is left of the head goes to the begin of a part. */
static void take_head(lj_buf *head, size_t *head_used, part *p, size_t size)
{
    p->len = LJ_MIN(head->len - *head_used, size);
    if (p->len > 0)
        memcpy(p->data, head->data + *head_used, p->len);
    *head_used += p->len;
    if (*head_used == head->len) {
        lj_buf_free(head);
        *head_used = 0;
    }
}

/* Fills one part: first what is left of the head, then the source. len 0: the end. */
static lj_code read_part(upload *u, lj_source *source, lj_buf *head, size_t *head_used, part *p,
                         lj_error *err)
{
    size_t size = size_of_part(u->job, p->number);
    LJ_TRY(find_memory(u, p, err));
    take_head(head, head_used, p, size);
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

/* One part, from the source to its sender or, without senders, to the store. *ret_more: there may be another. */
static lj_code pass_part(upload *u, lj_source *source, lj_buf *head, size_t *head_used, part *p,
                         bool *ret_more, lj_error *err)
{
    *ret_more = false;
    if (lj_cancel_requested(u->job->cancel))
        return lj_error_set(err, LJ_CANCELLED, "the upload was cancelled");
    if (u->buffers > 0 && !take_buffer(u))
        return LJ_OK; /* a sender failed, and has told */
    LJ_TRY(read_part(u, source, head, head_used, p, err));
    if (p->len == 0) {
        free(p->data);
        return LJ_OK;
    }
    bool fits = p->number <= u->job->parts_max;
    if (fits && u->buffers > 0 && hand_over(u, p)) {
        *ret_more = true;
        return LJ_OK;
    }
    lj_code code = LJ_OK;
    if (!fits)
        code = lj_error_set(err, LJ_INVALID, "the object needs more than %" PRIu32 " parts",
                            u->job->parts_max);
    else if (u->buffers == 0) {
        code = send_part(u, p, err);
        *ret_more = code == LJ_OK;
    }
    free(p->data);
    return code;
}

static lj_code read_all(upload *u, lj_source *source, lj_buf *head, uint32_t *ret_count,
                        lj_error *err)
{
    size_t head_used = 0;
    bool more = true;
    part p = {.number = 0};
    while (more) {
        p.number++;
        LJ_TRY(pass_part(u, source, head, &head_used, &p, &more, err));
    }
    *ret_count = p.number - 1;
    return LJ_OK;
}

/* ---- the process's budget ---- */

static void in_child(void)
{
    atomic_store(&buffers_in_use, 0); /* the parent's uploads are not here */
}

static void init_once(void)
{
    pthread_atfork(NULL, NULL, in_child);
}

static unsigned reserve_buffers(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, init_once);
    unsigned taken = 0;
    for (; taken < LJ_PARTS_SENDERS; taken++) {
        if (atomic_fetch_add(&buffers_in_use, 1) >= LJ_PARTS_BUFFERS) {
            atomic_fetch_sub(&buffers_in_use, 1);
            break;
        }
    }
    return taken;
}

static lj_code send_all(lj_source *source, lj_buf *head, const lj_parts_job *job,
                        uint32_t *ret_count, lj_error *err)
{
    upload u = {.job = job, .error = LJ_ERROR_INIT};
    u.cancel = lj_cancel_swap(NULL);
    lj_cancel_swap(u.cancel);
    u.stands_aside = lj_aside_swap(false);
    (void)lj_aside_swap(u.stands_aside);
    lj_error local = LJ_ERROR_INIT;
    lj_error *error = err != NULL ? err : &local;
    pthread_t threads[LJ_PARTS_SENDERS];
    uint32_t count = 0;
    unsigned reserved = reserve_buffers();
    pthread_mutex_init(&u.mutex, NULL);
    pthread_cond_init(&u.changed, NULL);
    unsigned started = lj_threads_start(threads, reserved, STACK_BYTES, sender, &u);
    u.buffers = started;
    lj_code code = read_all(&u, source, head, &count, error);
    if (code != LJ_OK)
        note_failure(&u, code, error);
    pthread_mutex_lock(&u.mutex);
    u.ended = true;
    pthread_cond_broadcast(&u.changed);
    pthread_mutex_unlock(&u.mutex);
    for (unsigned i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
    atomic_fetch_sub(&buffers_in_use, reserved);
    free(u.waiting.data);
    while (u.spares > 0)
        free(u.spare[--u.spares]);
    pthread_cond_destroy(&u.changed);
    pthread_mutex_destroy(&u.mutex);
    if (u.failed) {
        *error = u.error;
        return u.code;
    }
    *ret_count = count;
    return LJ_OK;
}

/* A thread that ends cleans up what OpenSSL kept for it, so none may end while exit() takes OpenSSL apart. */
lj_code lj_parts_send(lj_source *source, lj_buf *head, const lj_parts_job *job, uint32_t *ret_count,
                      lj_error *err)
{
    if (!lj_guard_enter())
        return lj_error_set(err, LJ_CANCELLED, "the process is ending");
    lj_code code = send_all(source, head, job, ret_count, err);
    lj_guard_leave();
    return code;
}
