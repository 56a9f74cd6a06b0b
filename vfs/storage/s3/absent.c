/*
 * absent.c - puts that must not overwrite, on stores that help with it and on stores that do not.
 *
 * A store that keeps the condition (If-None-Match: *) decides by itself: one request, and exactly one of several writers wins.
 * Amazon does. Others refuse the header, and some take it and overwrite all the same. With conditional=auto the first put
 * to such an unknown store finds out: the key is looked for, the object is put with the condition, and when that succeeds
 * the same bytes are put once more with it: a store that takes the second put does not keep the condition.
 *
 * On those the key is looked for before every put. What is weaker then: two processes that create the same key at the same
 * moment may both believe to have created it. Within one storage a claim on the key keeps a second put waiting until
 * the first is through, so that there exactly one wins. A generation has one writer and a name of its own, so that this needs
 * two processes that share the bookkeeping of one database.
 *
 * Layer: storage. Thread-safety: any thread; `mutex` is held for the list of claims only.
 */
#include <string.h>
#include <time.h>

#include "vfs/base/clock.h"
#include "vfs/base/log.h"
#include "vfs/storage/s3/internal.h"

#define POLL_NS (100 * LJ_NS_PER_MS)

/* ---- claims ---- */

static bool claimed_locked(const lj_s3 *s3, const char *key)
{
    for (const lj_s3_claim *c = s3->claims; c != NULL; c = c->next)
        if (strcmp(c->key, key) == 0)
            return true;
    return false;
}

static lj_code take_claim(lj_s3 *s3, const char *key, lj_s3_claim *claim, lj_error *err)
{
    lj_code code = LJ_OK;
    pthread_mutex_lock(&s3->mutex);
    while (claimed_locked(s3, key) && code == LJ_OK) {
        struct timespec end;
        clock_gettime(CLOCK_REALTIME, &end);
        end.tv_nsec += (long)POLL_NS;
        end.tv_sec += end.tv_nsec / LJ_NS_PER_S;
        end.tv_nsec %= LJ_NS_PER_S;
        (void)pthread_cond_timedwait(&s3->unclaimed, &s3->mutex, &end);
        if (lj_s3_cancelled(s3))
            code = lj_error_set(err, LJ_CANCELLED, "cancelled");
    }
    if (code == LJ_OK) {
        claim->key = key;
        claim->next = s3->claims;
        s3->claims = claim;
    }
    pthread_mutex_unlock(&s3->mutex);
    return code;
}

void lj_s3_absent_end(lj_s3 *s3, lj_s3_claim *claim)
{
    if (claim->key == NULL)
        return;
    pthread_mutex_lock(&s3->mutex);
    for (lj_s3_claim **link = &s3->claims; *link != NULL; link = &(*link)->next) {
        if (*link == claim) {
            *link = claim->next;
            break;
        }
    }
    pthread_cond_broadcast(&s3->unclaimed);
    pthread_mutex_unlock(&s3->mutex);
    claim->key = NULL;
}

/* ---- the condition ---- */

static lj_code look(lj_s3 *s3, const char *key, lj_error *err)
{
    bool exists = false;
    uint64_t size = 0;
    LJ_TRY(lj_s3_exists(s3, key, &exists, &size, err));
    return exists ? lj_error_set(err, LJ_EXISTS, "the object is there already") : LJ_OK;
}

lj_code lj_s3_absent_begin(lj_s3 *s3, const char *key, bool always_look, lj_s3_claim *claim,
                           lj_s3_condition *ret_condition, lj_error *err)
{
    lj_s3_condition condition = (lj_s3_condition)atomic_load(&s3->condition);
    claim->key = NULL;
    if (condition != LJ_S3_CONDITION_KEPT) {
        LJ_TRY(take_claim(s3, key, claim, err));
        condition = (lj_s3_condition)atomic_load(&s3->condition); /* whom we waited for found out */
    }
    lj_code code = LJ_OK;
    if (always_look || condition != LJ_S3_CONDITION_KEPT)
        code = look(s3, key, err);
    /* without the right to list, a missing key is denied: the condition alone decides, where there is one */
    if (code == LJ_DENIED && condition != LJ_S3_CONDITION_NONE)
        code = LJ_OK;
    if (code != LJ_OK) {
        lj_s3_absent_end(s3, claim);
        return code;
    }
    *ret_condition = condition;
    return LJ_OK;
}

static void give_up_condition(lj_s3 *s3, const char *why)
{
    int before = atomic_exchange(&s3->condition, LJ_S3_CONDITION_NONE);
    if (before != LJ_S3_CONDITION_NONE)
        lj_log(LJ_LOG_WARN,
               "s3: the store of bucket %s %s (If-None-Match): keys are looked for before they are "
               "written, so no two processes may write one replica; conditional=off says so ahead",
               s3->target.bucket, why);
}

static bool says_unknown_header(const char *code, const lj_error *err)
{
    if (err->http_status == 501 || strcmp(code, "NotImplemented") == 0)
        return true;
    if (err->http_status != 400)
        return false;
    if (strcmp(code, "NotSupported") == 0 || strcmp(code, "UnsupportedHeader") == 0)
        return true;
    return strcasestr(err->message, "if-none-match") != NULL ||
           strcasestr(err->message, "conditional") != NULL;
}

bool lj_s3_absent_refused(lj_s3 *s3, const char *key, const char *code, lj_error *err)
{
    if (err->code == LJ_EXISTS || !says_unknown_header(code, err))
        return false;
    if (s3->condition_fixed) {
        (void)lj_error_hint(err, "the store does not know If-None-Match: set conditional=off, or "
                                 "auto");
        return false;
    }
    lj_error why = LJ_ERROR_INIT;
    if (look(s3, key, &why) != LJ_OK) {
        *err = why;
        return false;
    }
    give_up_condition(s3, "does not know conditional writes");
    return true;
}

void lj_s3_absent_learn(lj_s3 *s3, int status)
{
    int unknown = LJ_S3_CONDITION_UNKNOWN;
    if (status == 412 || status == 409)
        (void)atomic_compare_exchange_strong(&s3->condition, &unknown, LJ_S3_CONDITION_KEPT);
    else if (status >= 200 && status < 300)
        give_up_condition(s3, "ignores conditional writes");
}
