/*
 * token.c - see token.h.
 *
 * Layer: storage. Thread-safety: `registry.mutex` (rank: leaf) guards the list, the reference counts and every source's
 * fields; it is never held while a credential is fetched. `fetching` is the right to call fetch. `changed` has the
 * monotonic clock.
 */
#include "vfs/storage/auth/token.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "vfs/base/cancel.h"
#include "vfs/base/clock.h"
#include "vfs/base/log.h"
#include "vfs/base/str.h"

#define MARGIN_MAX_NS  (300 * LJ_NS_PER_S)
#define MARGIN_DIVISOR 4
#define RETRY_NS       (10 * LJ_NS_PER_S)
#define POLL_NS        (50 * LJ_NS_PER_MS)

struct lj_token_source {
    char *key;
    const lj_token_ops *ops;
    void *ctx;
    unsigned references;
    lj_token token;
    bool has_token;
    bool fetching;
    uint64_t failures; /* fetches that failed, and the error of the last of them */
    lj_error failure;
    int64_t refresh_ns;    /* wall time from which on a new one is wanted; 0: never */
    int64_t not_before_ns; /* monotonic: no refresh before, after one that failed */
    struct lj_token_source *next;
};

static struct {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    lj_token_source *sources;
} registry = {.mutex = PTHREAD_MUTEX_INITIALIZER};

/* ---- fork ---- */

static void before_fork(void)
{
    pthread_mutex_lock(&registry.mutex);
}

static void in_parent(void)
{
    pthread_mutex_unlock(&registry.mutex);
}

static void init_changed(void)
{
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&registry.changed, &attr);
    pthread_condattr_destroy(&attr);
}

/*
 * A fetching thread is not there any more. Whoever opens anew gets a source of his own, because the thread may have left
 * the fetcher's object in any state; an inherited source can still be used and closed.
 */
static void in_child(void)
{
    for (lj_token_source *source = registry.sources; source != NULL; source = source->next)
        source->fetching = false;
    registry.sources = NULL;
    init_changed();
    pthread_mutex_unlock(&registry.mutex);
}

static void init_once(void)
{
    init_changed();
    pthread_atfork(before_fork, in_parent, in_child);
}

void lj_token_prepare(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, init_once);
}

/* ---- life cycle ---- */

void lj_token_free(lj_token *token)
{
    for (size_t i = 0; i < LJ_TOKEN_VALUES; i++)
        lj_secret_free(&token->values[i]);
}

static lj_code copy_token(lj_token *to, const lj_token *from, lj_error *err)
{
    lj_token copy = {.expires_ns = from->expires_ns, .serial = from->serial};
    for (size_t i = 0; i < LJ_TOKEN_VALUES; i++) {
        lj_code code = lj_secret_copy(&copy.values[i], &from->values[i], err);
        if (code != LJ_OK) {
            lj_token_free(&copy);
            return code;
        }
    }
    *to = copy;
    return LJ_OK;
}

static lj_token_source *find_locked(const char *key)
{
    lj_token_source *source = registry.sources;
    while (source != NULL && strcmp(source->key, key) != 0)
        source = source->next;
    return source;
}

lj_code lj_token_source_open(const char *key, const lj_token_ops *ops, void *ctx,
                             lj_token_source **ret_source, lj_error *err)
{
    lj_token_prepare();
    lj_token_source *fresh = calloc(1, sizeof(*fresh));
    char *copy = lj_str_dup(key);
    if (fresh == NULL || copy == NULL) {
        free(fresh);
        free(copy);
        ops->free(ctx);
        return lj_error_nomem(err);
    }
    *fresh = (lj_token_source){.key = copy, .ops = ops, .ctx = ctx, .references = 1};
    pthread_mutex_lock(&registry.mutex);
    lj_token_source *source = find_locked(key);
    if (source != NULL) {
        source->references++;
    } else {
        source = fresh;
        source->next = registry.sources;
        registry.sources = source;
    }
    pthread_mutex_unlock(&registry.mutex);
    if (source != fresh) {
        ops->free(ctx);
        free(copy);
        free(fresh);
    }
    *ret_source = source;
    return LJ_OK;
}

void lj_token_source_close(lj_token_source *source)
{
    if (source == NULL)
        return;
    pthread_mutex_lock(&registry.mutex);
    bool last = --source->references == 0;
    for (lj_token_source **link = &registry.sources; last && *link != NULL; link = &(*link)->next) {
        if (*link == source) {
            *link = source->next;
            break;
        }
    }
    pthread_mutex_unlock(&registry.mutex);
    if (!last)
        return;
    source->ops->free(source->ctx);
    lj_token_free(&source->token);
    free(source->key);
    free(source);
}

/* ---- use ---- */

static bool expired(const lj_token_source *source, int64_t now_ns)
{
    return !source->has_token ||
           (source->token.expires_ns != 0 && now_ns >= source->token.expires_ns);
}

static bool wants_refresh(const lj_token_source *source, int64_t now_ns)
{
    return source->has_token && source->refresh_ns != 0 && now_ns >= source->refresh_ns &&
           lj_clock_mono_ns() >= source->not_before_ns;
}

static void keep_locked(lj_token_source *source, const lj_token *fresh)
{
    uint64_t serial = source->token.serial + 1;
    int64_t now_ns = lj_clock_wall_ns();
    lj_token_free(&source->token);
    source->token = *fresh;
    source->token.serial = serial;
    source->has_token = true;
    source->refresh_ns = 0;
    source->not_before_ns = 0;
    if (fresh->expires_ns != 0) {
        int64_t life_ns = LJ_MAX(fresh->expires_ns - now_ns, INT64_C(0));
        source->refresh_ns = fresh->expires_ns - LJ_MIN(life_ns / MARGIN_DIVISOR, MARGIN_MAX_NS);
    }
}

/* Called and left with the mutex held, when nobody fetches. The fetcher's requests end with `cancel`, and with the thread. */
static lj_code fetch_locked(lj_token_source *source, const bool *cancel, lj_error *err)
{
    lj_token fresh = LJ_TOKEN_INIT;
    source->fetching = true;
    pthread_mutex_unlock(&registry.mutex);
    const bool *outer = lj_cancel_also(cancel);
    lj_code code = source->ops->fetch(source->ctx, &fresh, err);
    lj_cancel_also(outer);
    if (code == LJ_NOTFOUND || code == LJ_EXISTS)
        code = err->code =
            LJ_DENIED; /* they would say something about the object that is asked for */
    pthread_mutex_lock(&registry.mutex);
    if (code == LJ_OK) {
        keep_locked(source, &fresh);
    } else {
        lj_token_free(&fresh);
        source->not_before_ns = lj_clock_mono_ns() + RETRY_NS;
        source->failures++;
        source->failure = *err;
    }
    source->fetching = false;
    pthread_cond_broadcast(&registry.changed);
    return code;
}

static void wait_locked(void)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += POLL_NS;
    until.tv_sec += until.tv_nsec / LJ_NS_PER_S;
    until.tv_nsec %= LJ_NS_PER_S;
    pthread_cond_timedwait(&registry.changed, &registry.mutex, &until);
}

/*
 * Waits for the thread that fetches, when there is no other credential. When it fails, that is the failure of all who
 * waited: hundreds of threads must not try a dead service one after another. Only its being cancelled is its own affair.
 */
static lj_code wait_for_fetch(lj_token_source *source, const bool *cancel, lj_error *err)
{
    uint64_t failures = source->failures;
    while (source->fetching && expired(source, lj_clock_wall_ns())) {
        if (lj_cancel_requested(cancel))
            return lj_error_set(err, LJ_CANCELLED, "cancelled while credentials were fetched");
        wait_locked();
        if (source->failures != failures && source->failure.code != LJ_CANCELLED &&
            expired(source, lj_clock_wall_ns())) {
            *err = source->failure;
            return err->code;
        }
    }
    return LJ_OK;
}

lj_code lj_token_get_until(lj_token_source *source, const bool *cancel, lj_token *ret_token,
                           lj_error *err)
{
    lj_error error = LJ_ERROR_INIT;
    bool kept_old = false;
    pthread_mutex_lock(&registry.mutex);
    lj_code code = wait_for_fetch(source, cancel, &error);
    int64_t now_ns = lj_clock_wall_ns();
    if (code == LJ_OK && !source->fetching &&
        (expired(source, now_ns) || wants_refresh(source, now_ns))) {
        code = fetch_locked(source, cancel, &error);
        if (code != LJ_OK && !expired(source, lj_clock_wall_ns())) {
            kept_old = code != LJ_CANCELLED;
            code = LJ_OK;
        }
    }
    if (code == LJ_OK)
        code = copy_token(ret_token, &source->token, &error);
    pthread_mutex_unlock(&registry.mutex);
    if (kept_old)
        lj_log_error(LJ_LOG_WARN, "credentials could not be refreshed, the old ones still serve",
                     &error);
    if (code != LJ_OK && err != NULL)
        *err = error;
    return code;
}

lj_code lj_token_get(lj_token_source *source, lj_token *ret_token, lj_error *err)
{
    return lj_token_get_until(source, NULL, ret_token, err);
}

void lj_token_expired(lj_token_source *source, const lj_token *used)
{
    pthread_mutex_lock(&registry.mutex);
    if (source->has_token && source->token.serial == used->serial) {
        source->has_token = false;
        source->not_before_ns = 0;
    }
    pthread_mutex_unlock(&registry.mutex);
}
