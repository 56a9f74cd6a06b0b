/*
 * pending.c - see pending.h.
 */
#include "vfs/capture/pending.h"

#include <errno.h>

#include "vfs/base/clock.h"
#include "vfs/base/log.h"
#include "vfs/capture/seat.h"
#include "vfs/capture/session.h"

/* how long a cancelled attempt may take to end; a store that hangs in the kernel is not waited for */
#define CANCEL_GRACE_NS LJ_NS_PER_S

/* ------------------------------------------------------------------ offering and waiting */

/* Caller has the mutex and has left the page. Whoever ships is not to wait for its next tick. */
static void hurry_locked(lj_db *db)
{
    lj_db_call_locked(db);
    pthread_mutex_unlock(&db->mutex);
    db->wake(db, 0);
    pthread_mutex_lock(&db->mutex);
}

uint64_t lj_db_pending_offer(lj_db *db, const lj_wal_end *end)
{
    lj_error ignored = LJ_ERROR_INIT;
    pthread_mutex_lock(&db->mutex);
    if (db->sharing)
        lj_seat_pends(db->lock_fd, true); /* before anybody can see it */
    lj_db_enter_locked(db);
    lj_pending *p = &db->pending;
    /* who does not replicate is told so at once: it is not to be sent first */
    bool may = lj_db_cannot_wait_locked(db, &ignored) == LJ_OK;
    p->state = may ? LJ_PENDING_OFFERED : LJ_PENDING_NONE;
    p->number++;
    p->end = *end;
    p->failing = false;
    lj_error_clear(&p->error);
    uint64_t number = p->number;
    db->offered = number;
    db->pending_since = db->runs;
    lj_db_leave_locked(db);
    db->flush_waiters++;
    db->want_wake = false;
    hurry_locked(db);
    pthread_mutex_unlock(&db->mutex);
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
    if (lj_db_follows_locked(db))
        return "the process that uploads has not answered";
    return "the store has not answered to what comes before it";
}

/* What the page has is the one of this process with that number. */
static bool is_ours_locked(const lj_db *db, uint64_t number)
{
    return db->offered == number && db->pending.number == number &&
           db->pending.state != LJ_PENDING_NONE;
}

static bool stored_locked(const lj_pending *p)
{
    return p->state == LJ_PENDING_STORED || p->state == LJ_PENDING_ACKED;
}

static bool on_its_way_locked(const lj_pending *p, uint64_t number)
{
    return p->sending && p->sent == number;
}

/*
 * No attempt reads or sends the transaction from here on; one that is on its way is ended, and may still have succeeded. Caller
 * has entered; the page is left meanwhile.
 */
static void stop_attempt_locked(lj_db *db, uint64_t number)
{
    lj_pending *p = &db->pending;
    p->state = LJ_PENDING_STOPPED;
    __atomic_store_n(&db->pending_cancel, true, __ATOMIC_RELAXED);
    if (!on_its_way_locked(p, number))
        return;
    lj_db_leave_locked(db);
    if (lj_db_follows_locked(db))
        hurry_locked(db); /* its bell's thread sees the state, and ends the request */
    struct timespec deadline;
    lj_db_deadline(CANCEL_GRACE_NS, &deadline);
    unsigned turns = 0;
    int rc = 0;
    while (on_its_way_locked(p, number) && rc == 0)
        rc = lj_db_wait_for_answer_locked(db, &deadline, &turns);
    lj_db_enter_locked(db);
}

/* true: an uploader that has ended may have sent it. Nobody can recognise the object, so the chain has to be broken. */
static bool revoke_locked(lj_db *db, uint64_t number)
{
    lj_pending *p = &db->pending;
    bool orphaned = p->orphaned;
    p->state = LJ_PENDING_NONE;
    p->orphaned = false;
    if (p->sent == number && orphaned && !p->sending)
        p->sent = 0; /* there is nothing to take note of */
    else if (p->sent == number)
        p->sent_revoked = true;
    return orphaned;
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

/* The store refused, or the first snapshot failed, since it was offered, and not in passing. */
static bool has_failed_locked(const lj_db *db, uint64_t failures)
{
    return db->established ? db->pending.failing : db->failures != failures;
}

static lj_code wait_locked(lj_db *db, uint64_t number, int64_t timeout_ns, lj_error *err)
{
    lj_pending *p = &db->pending;
    struct timespec deadline;
    lj_db_deadline(timeout_ns, &deadline);
    lj_db_refresh_locked(db);
    uint64_t failures = db->failures;
    unsigned turns = 0;
    int rc = 0;
    for (;;) {
        bool ours = is_ours_locked(db, number);
        bool late = rc == ETIMEDOUT;
        if (ours && (p->state == LJ_PENDING_ACKED || (p->state == LJ_PENDING_STORED && late)))
            return LJ_OK;
        LJ_TRY(lj_db_cannot_wait_locked(db, err));
        if (!ours)
            return lj_error_set(err, LJ_UNAVAILABLE,
                                "what the processes of this database share was begun anew");
        if (p->error.code != LJ_OK) {
            *err = p->error;
            return err->code;
        }
        if (has_failed_locked(db, failures) || late)
            return lj_db_told_why(err, late ? LJ_TIMEOUT : LJ_UNAVAILABLE,
                                  "the replica did not take the transaction",
                                  lj_db_shipping_error_locked(db), holdup_locked(db));
        rc = lj_db_wait_for_answer_locked(db, &deadline, &turns);
    }
}

/* The page has no transaction of this process any more. */
static void forget_locked(lj_db *db)
{
    db->offered = 0;
    if (db->sharing)
        lj_seat_pends(db->lock_fd, false);
}

/* Withdrawn, unless it is stored by now. Caller has entered. *ret_orphaned as of revoke_locked. */
static lj_code withdraw_locked(lj_db *db, uint64_t number, lj_code code, bool *ret_orphaned)
{
    if (is_ours_locked(db, number))
        stop_attempt_locked(db, number);
    bool ours = is_ours_locked(db, number);
    if (ours && stored_locked(&db->pending))
        return LJ_OK;
    *ret_orphaned = ours && revoke_locked(db, number);
    return code;
}

lj_code lj_db_pending_wait(lj_db *db, uint64_t number, int64_t timeout_ns, bool leave,
                           lj_error *err)
{
    bool orphaned = false;
    bool degraded = false;
    pthread_mutex_lock(&db->mutex);
    lj_pending *p = &db->pending;
    lj_code code = wait_locked(db, number, timeout_ns, err);
    if (code != LJ_OK) {
        /* once more, with the page's lock: this decides */
        lj_db_enter_locked(db);
        if (is_ours_locked(db, number) && stored_locked(p)) {
            code = LJ_OK; /* and then something else failed */
        } else if (code != LJ_CORRUPT && leave) {
            if (is_ours_locked(db, number))
                p->state = LJ_PENDING_LEFT;
            degraded = !db->other_url && degrade_locked(db);
        } else {
            code = withdraw_locked(db, number, code, &orphaned);
        }
        lj_db_leave_locked(db);
    }
    if (code == LJ_CORRUPT || (code != LJ_OK && !leave))
        forget_locked(db);
    bool wake = code != LJ_OK && p->sent_revoked;
    if (code != LJ_OK && code != LJ_CORRUPT)
        db->pending_failed++;
    db->flush_waiters--;
    if (wake)
        hurry_locked(db);
    pthread_mutex_unlock(&db->mutex);
    if (orphaned)
        lj_db_break(db, "%s", LJ_PENDING_ORPHANED);
    if (degraded)
        say_degraded(db, err);
    return code;
}

bool lj_db_pending_is_over(lj_db *db, uint64_t number)
{
    pthread_mutex_lock(&db->mutex);
    lj_db_refresh_locked(db);
    bool over = !is_ours_locked(db, number);
    if (over && db->offered == number)
        forget_locked(db);
    pthread_mutex_unlock(&db->mutex);
    return over;
}

void lj_db_pending_undo(lj_db *db, uint64_t number)
{
    lj_db_enter(db);
    lj_pending *p = &db->pending;
    bool current = p->number == number && p->state != LJ_PENDING_NONE;
    bool ahead = current && stored_locked(p);
    bool orphaned = current && revoke_locked(db, number);
    lj_db_leave_locked(db);
    if (db->offered == number) {
        forget_locked(db);
        db->pending_failed += current ? 1 : 0;
    }
    if (p->sent_revoked)
        hurry_locked(db);
    pthread_mutex_unlock(&db->mutex);
    if (ahead)
        lj_db_break(db,
                    "the replica is ahead: it has a transaction whose commit failed afterwards");
    else if (orphaned)
        lj_db_break(db, "%s", LJ_PENDING_ORPHANED);
}

/* ------------------------------------------------------------------ left by a process that has ended */

static bool pends(lj_db *db, uint64_t *ret_number, bool *ret_ours)
{
    pthread_mutex_lock(&db->mutex);
    lj_db_refresh_locked(db);
    *ret_number = db->pending.number;
    *ret_ours = db->offered == db->pending.number;
    bool pends = db->pending.state != LJ_PENDING_NONE;
    pthread_mutex_unlock(&db->mutex);
    return pends;
}

static void undo_left(lj_db *db, uint64_t number)
{
    uint64_t now = 0;
    bool ours = false;
    if (!pends(db, &now, &ours) || now != number)
        return; /* published, or undone by somebody else */
    lj_log(LJ_LOG_WARN, "%s: a process ended while its COMMIT waited for the replica", db->path);
    lj_db_pending_undo(db, number);
}

void lj_db_pending_next_writer(lj_db *db, bool (*look)(void *ctx), void *ctx)
{
    uint64_t number = 0;
    bool ours = false;
    /* what cannot be looked at is going to be recovered, from frames that are still there: it is decided at the next lock */
    if (pends(db, &number, &ours) && look(ctx))
        undo_left(db, number);
}

void lj_db_pending_sealing(lj_db *db)
{
    uint64_t number = 0;
    bool ours = false;
    if (pends(db, &number, &ours) && !ours)
        undo_left(db, number);
}

/* Caller holds the mutex, and the page's lock if the answer is to count. */
static bool is_left_locked(const lj_db *db)
{
    const lj_pending *p = &db->pending;
    return db->sharing && p->state != LJ_PENDING_NONE && db->offered != p->number &&
           !lj_db_follows_locked(db) && !lj_seat_other_pends(db->lock_fd);
}

void lj_db_pending_look_after(lj_db *db)
{
    pthread_mutex_lock(&db->mutex);
    bool left = is_left_locked(db);
    uint64_t number = 0;
    if (left) {
        lj_db_enter_locked(db);
        number = db->pending.number;
        /* who publishes or withdraws it does that in the page before it gives the lock back */
        left = db->entered && is_left_locked(db);
        lj_db_leave_locked(db);
    }
    pthread_mutex_unlock(&db->mutex);
    if (!left)
        return;
    if (db->shim.look != NULL)
        db->shim.look(db->shim.ctx); /* it may have been published before the process ended */
    undo_left(db, number);
}

bool lj_db_degraded(lj_db *db)
{
    pthread_mutex_lock(&db->mutex);
    lj_db_refresh_locked(db);
    bool degraded = db->pending.degraded;
    pthread_mutex_unlock(&db->mutex);
    return degraded;
}

void lj_db_wait_failed(lj_db *db, bool degrade, const lj_error *err)
{
    lj_db_enter(db);
    db->pending_failed++;
    bool first = degrade && degrade_locked(db);
    lj_db_leave(db);
    if (first) {
        say_degraded(db, err);
        db->wake(db,
                 0); /* the replica may have caught up in this moment, and nobody would say so */
    } else if (!degrade)
        lj_log(LJ_LOG_ERROR, "%s: committed locally, not acknowledged by the replica: %s", db->path,
               err->message);
}

/* ------------------------------------------------------------------ the session */

void lj_db_pending_take_in(lj_db *db, const lj_pending *pending)
{
    if (pending->number != db->pending.number)
        db->pending_since = db->runs;
    db->pending = *pending;
    if (pending->sending && (pending->state == LJ_PENDING_STOPPED || pending->sent_revoked))
        __atomic_store_n(&db->pending_cancel, true, __ATOMIC_RELAXED);
}

bool lj_db_pending_inherit_locked(lj_db *db)
{
    lj_pending *p = &db->pending;
    bool revoked = p->sent_revoked;
    p->orphaned =
        p->orphaned || (p->state != LJ_PENDING_NONE && p->sent == p->number && !stored_locked(p));
    p->sending = false;
    if (p->state == LJ_PENDING_STORED) {
        /* the one that ended would have said so behind its position file: the object is found there once it is published */
        p->state = LJ_PENDING_ACKED;
        pthread_cond_broadcast(&db->cond);
    }
    if (revoked) {
        p->sent = 0;
        p->sent_unknown = false;
        p->sent_revoked = false;
    }
    return revoked;
}

void lj_db_pending_failing_locked(lj_db *db)
{
    if (db->pending.state == LJ_PENDING_OFFERED && db->runs > db->pending_since)
        db->pending.failing = true;
}

/* ------------------------------------------------------------------ publishing */

void lj_db_pending_published_locked(lj_db *db, const lj_wal_end *end)
{
    lj_pending *p = &db->pending;
    if ((stored_locked(p) || p->state == LJ_PENDING_LEFT) &&
        lj_wal_salt_eq(p->end.salt, end->salt) && end->frames >= p->end.frames)
        p->state = LJ_PENDING_NONE;
    if (p->state == LJ_PENDING_NONE)
        p->orphaned = false; /* what was sent has become true */
}

/* ------------------------------------------------------------------ the shipper's side */

/* What lj_db_publish_seen will make of a first transaction under new salts. */
static lj_code begin_life(const lj_db *db, lj_chain *chain, lj_life *life, const lj_wal_end *end,
                          lj_error *err)
{
    if (chain->has_life) {
        /* another process may have sealed it at more frames than we have seen */
        uint64_t old_frames =
            life->known ? LJ_MAX(life->frames, chain->sealed_frames) : chain->sealed_frames;
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
    bool numbered = db->session_life > 0 && lj_wal_salt_eq(db->session_salt, end->salt);
    *life = (lj_life){
        .known = true, .number = numbered ? db->session_life : life->number + 1, .salt = end->salt};
    return LJ_OK;
}

lj_code lj_db_pending_view_locked(const lj_db *db, lj_chain *chain, lj_life *life,
                                  uint64_t *ret_number, lj_error *err)
{
    const lj_pending *p = &db->pending;
    *ret_number = 0;
    if (p->state != LJ_PENDING_OFFERED || p->error.code != LJ_OK || !chain->active)
        return LJ_OK;
    bool begun = lj_chain_has_life(chain, p->end.salt);
    if (begun && !life->known) /* by another process, and not seen here yet */
        *life = (lj_life){.known = true, .number = life->number, .salt = p->end.salt};
    if (!life->known || !lj_wal_salt_eq(life->salt, p->end.salt))
        LJ_TRY(begin_life(db, chain, life, &p->end, err));
    else if (life->frames >= p->end.frames)
        return LJ_OK; /* published, or written over: who looks next says so */
    chain->unused = false;
    life->frames = p->end.frames;
    life->page_size = p->end.page_size;
    life->db_pages = p->end.db_pages;
    *ret_number = p->number;
    return LJ_OK;
}

const bool *lj_db_pending_cancel(lj_db *db)
{
    __atomic_store_n(&db->pending_cancel, false, __ATOMIC_RELAXED);
    return &db->pending_cancel;
}

bool lj_db_pending_begin(lj_db *db, uint64_t number)
{
    lj_db_enter(db);
    lj_pending *p = &db->pending;
    bool may = p->state == LJ_PENDING_OFFERED && p->number == number && !p->sent_revoked;
    if (may) {
        p->sent_unknown = p->sent_unknown && p->sent == number;
        p->sent = number;
        p->sending = true;
    }
    lj_db_leave(db);
    return may;
}

bool lj_db_pending_end(lj_db *db, uint64_t number, bool stored, bool unknown)
{
    lj_db_enter(db);
    lj_pending *p = &db->pending;
    bool good = !p->sent_revoked;
    p->sending = false;
    /* also one that was left meanwhile: if it is not published after all, the replica is ahead */
    if (good && stored && p->number == number && p->state != LJ_PENDING_NONE)
        p->state = LJ_PENDING_STORED;
    p->sent_unknown = p->sent_unknown || unknown || (stored && !good);
    p->orphaned = p->orphaned && !(stored && good);
    if ((stored && good) || !p->sent_unknown) {
        p->sent = 0;
        p->sent_unknown = false;
        p->sent_revoked = false;
    }
    pthread_cond_broadcast(&db->cond);
    lj_db_leave(db);
    return good;
}

void lj_db_pending_ack(lj_db *db, uint64_t number)
{
    if (number == 0)
        return;
    lj_db_enter(db);
    if (db->pending.number == number && db->pending.state == LJ_PENDING_STORED)
        db->pending.state = LJ_PENDING_ACKED;
    pthread_cond_broadcast(&db->cond);
    lj_db_leave(db);
}

void lj_db_pending_refuse(lj_db *db, uint64_t number, const lj_error *err)
{
    lj_db_enter(db);
    if (db->pending.number == number && db->pending.state == LJ_PENDING_OFFERED)
        db->pending.error = *err;
    pthread_cond_broadcast(&db->cond);
    lj_db_leave(db);
}

void lj_db_pending_look_at_chain(lj_db *db)
{
    lj_error err = LJ_ERROR_INIT;
    pthread_mutex_lock(&db->mutex);
    const lj_pending *p = &db->pending;
    bool snapshots_alone = !db->chain.active && db->established && !db->broken;
    bool waits = p->state == LJ_PENDING_OFFERED && p->error.code == LJ_OK;
    uint64_t number = p->number;
    pthread_mutex_unlock(&db->mutex);
    if (!snapshots_alone || !waits)
        return;
    lj_error_set(&err, LJ_CORRUPT,
                 "what is before it in the WAL does not verify: a snapshot brings it to the "
                 "replica, once it is visible");
    lj_error_hint(&err, "run PRAGMA wal_checkpoint(TRUNCATE)");
    lj_db_pending_refuse(db, number, &err);
}

bool lj_db_pending_take_revoked(lj_db *db)
{
    pthread_mutex_lock(&db->mutex);
    lj_db_refresh_locked(db);
    lj_pending *p = &db->pending;
    bool revoked = p->sent_revoked && !p->sending;
    if (revoked) {
        lj_db_enter_locked(db);
        revoked = p->sent_revoked && !p->sending;
        if (revoked) {
            p->sent = 0;
            p->sent_unknown = false;
            p->sent_revoked = false;
            db->unlooked = true;
        }
        lj_db_leave_locked(db);
    }
    pthread_mutex_unlock(&db->mutex);
    return revoked;
}

void lj_db_pending_looked_for(lj_db *db)
{
    pthread_mutex_lock(&db->mutex);
    if (db->unlooked) {
        db->unlooked = false;
        pthread_cond_broadcast(&db->cond);
    }
    pthread_mutex_unlock(&db->mutex);
}

void lj_db_caught_up(lj_db *db)
{
    bool over = false;
    pthread_mutex_lock(&db->mutex);
    if (db->pending.degraded) {
        lj_db_enter_locked(db);
        over = db->pending.degraded && db->pending.state == LJ_PENDING_NONE;
        db->pending.degraded = db->pending.degraded && !over;
        lj_db_leave_locked(db);
    }
    pthread_mutex_unlock(&db->mutex);
    if (over)
        lj_log(LJ_LOG_INFO, "%s: the replica has caught up: commits wait for it again", db->path);
}
