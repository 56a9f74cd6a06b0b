/*
 * pending.c - see pending.h.
 */
#include "vfs/capture/pending.h"

#include <errno.h>

#include "vfs/base/clock.h"
#include "vfs/base/log.h"
#include "vfs/capture/database.h"

/* how long a cancelled attempt may take to end; a store that hangs in the kernel is not waited for */
#define CANCEL_GRACE_NS LJ_NS_PER_S

/* ------------------------------------------------------------------ offering and waiting */

uint64_t lj_db_pending_offer(lj_db *db, const lj_wal_end *end)
{
    pthread_mutex_lock(&db->mutex);
    lj_pending *p = &db->pending;
    p->state = LJ_PENDING_OFFERED;
    p->number++;
    p->end = *end;
    lj_error_clear(&p->error);
    uint64_t number = p->number;
    db->flush_waiters++;
    db->want_wake = false;
    pthread_mutex_unlock(&db->mutex);
    db->wake(db, 0);
    return number;
}

/* Why it is not in the replica yet, when no error says so. */
static const char *holdup_locked(const lj_db *db)
{
    if (db->broken)
        return "a new generation has to begin first, and its snapshot is not in the replica yet";
    if (!db->established)
        return "the generation's first snapshot is not in the replica yet";
    if (db->pending.sending)
        return "the store has not answered";
    return "still shipping what was committed before";
}

static bool stored_locked(const lj_pending *p)
{
    return p->state == LJ_PENDING_STORED || p->state == LJ_PENDING_ACKED;
}

/* No attempt reads or sends the transaction from here on; one that is on its way is ended, and may still have succeeded. */
static void stop_attempt_locked(lj_db *db, uint64_t number)
{
    lj_pending *p = &db->pending;
    p->state = LJ_PENDING_STOPPED;
    if (!p->sending || p->sent != number)
        return;
    __atomic_store_n(&p->cancel, true, __ATOMIC_RELAXED);
    struct timespec deadline;
    lj_db_deadline(CANCEL_GRACE_NS, &deadline);
    int rc = 0;
    while (p->sending && p->sent == number && rc == 0)
        rc = pthread_cond_timedwait(&db->cond, &db->mutex, &deadline);
}

static void revoke_locked(lj_db *db, uint64_t number)
{
    lj_pending *p = &db->pending;
    p->state = LJ_PENDING_NONE;
    if (p->sent == number)
        p->sent_revoked = true;
}

/* The first commit that does not wait any more says so. */
static bool degrade_locked(lj_db *db)
{
    bool first = !db->pending.degraded;
    db->pending.degraded = true;
    return first;
}

static void say_degraded(const lj_db *db, const lj_error *err)
{
    lj_log(LJ_LOG_WARN,
           "%s: degraded: commits no longer wait for the replica until it has caught up: %s",
           db->path, err->message);
}

static lj_code wait_locked(lj_db *db, uint64_t failures, int64_t timeout_ns, lj_error *err)
{
    lj_pending *p = &db->pending;
    struct timespec deadline;
    lj_db_deadline(timeout_ns, &deadline);
    int rc = 0;
    for (;;) {
        if (p->state == LJ_PENDING_ACKED || (p->state == LJ_PENDING_STORED && rc == ETIMEDOUT))
            return LJ_OK;
        lj_code code = lj_db_cannot_wait_locked(db, err);
        if (code != LJ_OK)
            return code;
        if (p->error.code != LJ_OK) {
            *err = p->error;
            return err->code;
        }
        if (db->failures != failures || rc == ETIMEDOUT)
            return lj_db_told_why(err, rc == ETIMEDOUT ? LJ_TIMEOUT : LJ_UNAVAILABLE,
                                  "the replica did not take the transaction",
                                  lj_db_shipping_error_locked(db), holdup_locked(db));
        rc = pthread_cond_timedwait(&db->cond, &db->mutex, &deadline);
    }
}

lj_code lj_db_pending_wait(lj_db *db, uint64_t number, int64_t timeout_ns, bool leave,
                           lj_error *err)
{
    bool wake = false;
    bool degraded = false;
    pthread_mutex_lock(&db->mutex);
    lj_pending *p = &db->pending;
    lj_code code = wait_locked(db, db->failures, timeout_ns, err);
    if (code != LJ_OK && stored_locked(p)) {
        code = LJ_OK; /* and then something else failed */
    } else if (code != LJ_OK && code != LJ_CORRUPT && leave) {
        p->state = LJ_PENDING_LEFT;
        degraded = degrade_locked(db);
    } else if (code != LJ_OK) {
        stop_attempt_locked(db, number);
        if (stored_locked(p))
            code = LJ_OK;
        else
            revoke_locked(db, number);
        wake = p->sent_revoked;
    }
    if (code != LJ_OK && code != LJ_CORRUPT)
        p->failed++;
    db->flush_waiters--;
    pthread_mutex_unlock(&db->mutex);
    if (wake)
        db->wake(db, 0);
    if (degraded)
        say_degraded(db, err);
    return code;
}

bool lj_db_pending_is_over(lj_db *db, uint64_t number)
{
    pthread_mutex_lock(&db->mutex);
    bool over = db->pending.number != number || db->pending.state == LJ_PENDING_NONE;
    pthread_mutex_unlock(&db->mutex);
    return over;
}

void lj_db_pending_undo(lj_db *db, uint64_t number)
{
    pthread_mutex_lock(&db->mutex);
    lj_pending *p = &db->pending;
    bool current = p->number == number && p->state != LJ_PENDING_NONE;
    bool ahead = current && stored_locked(p);
    if (current) {
        revoke_locked(db, number);
        p->failed++;
    }
    bool wake = p->sent_revoked;
    pthread_mutex_unlock(&db->mutex);
    if (ahead)
        lj_db_break(db,
                    "the replica is ahead: it has a transaction whose commit failed afterwards");
    if (wake)
        db->wake(db, 0);
}

bool lj_db_degraded(lj_db *db)
{
    pthread_mutex_lock(&db->mutex);
    bool degraded = db->pending.degraded;
    pthread_mutex_unlock(&db->mutex);
    return degraded;
}

void lj_db_wait_failed(lj_db *db, bool degrade, const lj_error *err)
{
    pthread_mutex_lock(&db->mutex);
    db->pending.failed++;
    bool first = degrade && degrade_locked(db);
    pthread_mutex_unlock(&db->mutex);
    if (first)
        say_degraded(db, err);
    else if (!degrade)
        lj_log(LJ_LOG_ERROR, "%s: committed locally, not acknowledged by the replica: %s", db->path,
               err->message);
}

/* ------------------------------------------------------------------ publishing */

void lj_db_pending_published_locked(lj_db *db, const lj_wal_end *end)
{
    lj_pending *p = &db->pending;
    if ((stored_locked(p) || p->state == LJ_PENDING_LEFT) &&
        lj_wal_salt_eq(p->end.salt, end->salt) && end->frames >= p->end.frames)
        p->state = LJ_PENDING_NONE;
}

/* ------------------------------------------------------------------ the shipper's side */

/* What lj_db_publish_seen will make of a first transaction under new salts. */
static lj_code begin_life(lj_chain *chain, lj_life *life, const lj_wal_end *end, lj_error *err)
{
    if (chain->has_life) {
        uint64_t old_frames = life->known ? life->frames : chain->sealed_frames;
        if (!chain->sealed || chain->sealed_frames != old_frames)
            return lj_error_set(err, LJ_CONFLICT,
                                "the WAL was restarted by a process without this VFS");
        if (!chain->unused) {
            chain->prev_end = lj_wal_frame_offset(end->page_size, old_frames + 1);
            chain->index++;
        }
        if (chain->index > LJ_INDEX_MAX)
            return lj_error_set(err, LJ_CONFLICT, "the largest WAL index is used up");
    }
    chain->has_life = true;
    chain->salt = end->salt;
    *life = (lj_life){.known = true, .number = life->number + 1, .salt = end->salt};
    return LJ_OK;
}

lj_code lj_db_pending_view_locked(const lj_db *db, lj_chain *chain, lj_life *life,
                                  uint64_t *ret_number, lj_error *err)
{
    const lj_pending *p = &db->pending;
    *ret_number = 0;
    if (p->state != LJ_PENDING_OFFERED || p->error.code != LJ_OK || !chain->active)
        return LJ_OK;
    if (!life->known || !lj_wal_salt_eq(life->salt, p->end.salt))
        LJ_TRY(begin_life(chain, life, &p->end, err));
    chain->unused = false;
    life->frames = p->end.frames;
    life->page_size = p->end.page_size;
    life->db_pages = p->end.db_pages;
    *ret_number = p->number;
    return LJ_OK;
}

bool lj_db_pending_begin(lj_db *db, uint64_t number)
{
    pthread_mutex_lock(&db->mutex);
    lj_pending *p = &db->pending;
    bool may = p->state == LJ_PENDING_OFFERED && p->number == number && !p->sent_revoked;
    if (may) {
        p->sent_unknown = p->sent_unknown && p->sent == number;
        p->sent = number;
        p->sending = true;
        __atomic_store_n(&p->cancel, false, __ATOMIC_RELAXED);
    }
    pthread_mutex_unlock(&db->mutex);
    return may;
}

bool lj_db_pending_end(lj_db *db, uint64_t number, bool stored, bool unknown)
{
    pthread_mutex_lock(&db->mutex);
    lj_pending *p = &db->pending;
    bool good = !p->sent_revoked;
    p->sending = false;
    if (good && stored && p->number == number &&
        (p->state == LJ_PENDING_OFFERED || p->state == LJ_PENDING_STOPPED))
        p->state = LJ_PENDING_STORED;
    p->sent_unknown = p->sent_unknown || unknown || (stored && !good);
    if ((stored && good) || !p->sent_unknown) {
        p->sent = 0;
        p->sent_unknown = false;
        p->sent_revoked = false;
    }
    pthread_cond_broadcast(&db->cond);
    pthread_mutex_unlock(&db->mutex);
    return good;
}

void lj_db_pending_ack(lj_db *db, uint64_t number)
{
    pthread_mutex_lock(&db->mutex);
    if (db->pending.number == number && db->pending.state == LJ_PENDING_STORED)
        db->pending.state = LJ_PENDING_ACKED;
    pthread_cond_broadcast(&db->cond);
    pthread_mutex_unlock(&db->mutex);
}

void lj_db_pending_refuse(lj_db *db, uint64_t number, const lj_error *err)
{
    pthread_mutex_lock(&db->mutex);
    if (db->pending.number == number && db->pending.state == LJ_PENDING_OFFERED)
        db->pending.error = *err;
    pthread_cond_broadcast(&db->cond);
    pthread_mutex_unlock(&db->mutex);
}

bool lj_db_pending_take_revoked(lj_db *db)
{
    pthread_mutex_lock(&db->mutex);
    lj_pending *p = &db->pending;
    bool revoked = p->sent_revoked && !p->sending;
    if (revoked) {
        p->sent = 0;
        p->sent_unknown = false;
        p->sent_revoked = false;
    }
    pthread_mutex_unlock(&db->mutex);
    return revoked;
}

void lj_db_caught_up(lj_db *db)
{
    pthread_mutex_lock(&db->mutex);
    bool over = db->pending.degraded && db->pending.state == LJ_PENDING_NONE;
    if (over)
        db->pending.degraded = false;
    pthread_mutex_unlock(&db->mutex);
    if (over)
        lj_log(LJ_LOG_INFO, "%s: the replica has caught up: commits wait for it again", db->path);
}
