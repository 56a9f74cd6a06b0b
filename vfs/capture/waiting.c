/*
 * waiting.c - waits for what is committed, for one commit (durability=ack), for one position (litejoin_wait); see database.h.
 *
 * Layer: capture.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "vfs/base/clock.h"
#include "vfs/capture/session.h"

#define POLL_NS   (10 * LJ_NS_PER_MS)
#define ANSWER_NS LJ_NS_PER_MS
#define CALL_NS   (200 * LJ_NS_PER_MS)

static int wait_locked(lj_db *db, const struct timespec *deadline, int64_t poll_ns, unsigned *turns)
{
    if (!lj_db_follows_locked(db))
        return pthread_cond_timedwait(&db->cond, &db->mutex, deadline);
    struct timespec soon;
    lj_db_deadline(poll_ns, &soon);
    bool last = soon.tv_sec > deadline->tv_sec ||
                (soon.tv_sec == deadline->tv_sec && soon.tv_nsec >= deadline->tv_nsec);
    int rc = pthread_cond_timedwait(&db->cond, &db->mutex, last ? deadline : &soon);
    lj_db_refresh_locked(db);
    if (++*turns % (unsigned)(CALL_NS / poll_ns) == 0) {
        lj_db_call_locked(db);
        pthread_mutex_unlock(&db->mutex);
        db->wake(db, 0);
        pthread_mutex_lock(&db->mutex);
    }
    return last ? rc : 0;
}

int lj_db_wait_for_news_locked(lj_db *db, const struct timespec *deadline, unsigned *turns)
{
    return wait_locked(db, deadline, POLL_NS, turns);
}

int lj_db_wait_for_answer_locked(lj_db *db, const struct timespec *deadline, unsigned *turns)
{
    return wait_locked(db, deadline, ANSWER_NS, turns);
}

static bool reached_locked(const lj_db *db, uint64_t life, uint64_t frames)
{
    if (db->state == LJ_DB_IDLE)
        return life == 0; /* a database without a WAL */
    if (!db->established || db->broken)
        return false;
    if (life == 0)
        return db->spool_bytes == 0; /* all there can be is what an earlier process spooled */
    return db->shipped_life > life || (db->shipped_life == life && db->shipped_frames >= frames);
}

/* Does not wait for the next tick of who ships. The mutex is released meanwhile. */
static void hurry_locked(lj_db *db)
{
    lj_db_call_locked(db);
    pthread_mutex_unlock(&db->mutex);
    db->wake(db, 0);
    pthread_mutex_lock(&db->mutex);
}

lj_code lj_db_wait_for_locked(lj_db *db, uint64_t life, uint64_t frames, int64_t timeout_ns,
                              bool first_error, lj_error *err)
{
    struct timespec deadline;
    lj_db_deadline(timeout_ns, &deadline);
    lj_db_refresh_locked(db);
    LJ_TRY(lj_db_cannot_wait_locked(db, err));
    uint64_t failures = db->failures;
    lj_code code = LJ_OK;
    unsigned turns = 0;
    int rc = 0;
    db->flush_waiters++;
    if (!reached_locked(db, life, frames)) {
        hurry_locked(db);
        code = lj_db_cannot_wait_locked(db, err); /* the mutex was released: it may be over */
    }
    while (code == LJ_OK && !reached_locked(db, life, frames) && rc == 0 &&
           !(first_error && db->failures != failures)) {
        rc = lj_db_wait_for_news_locked(db, &deadline, &turns);
        code = lj_db_cannot_wait_locked(db, err);
    }
    if (code == LJ_OK && !reached_locked(db, life, frames)) {
        code = rc == ETIMEDOUT ? LJ_TIMEOUT : LJ_UNAVAILABLE;
        lj_db_told_why(err, code, "the replica does not have every commit yet",
                       lj_db_shipping_error_locked(db), "still shipping");
    }
    db->flush_waiters--;
    return code;
}

lj_code lj_db_wait(lj_db *db, int64_t timeout_ns, bool first_error, lj_error *err)
{
    pthread_mutex_lock(&db->mutex);
    uint64_t life = db->life.known ? db->life.number : 0;
    lj_code code = lj_db_wait_for_locked(db, life, db->life.frames, timeout_ns, first_error, err);
    pthread_mutex_unlock(&db->mutex);
    return code;
}

/* With the chain the generation is left, and what is in it is in nobody's way. */
static bool unlooked_locked(const lj_db *db)
{
    return db->chain.active && !lj_db_follows_locked(db) &&
           (db->unlooked || db->pending.sent_revoked);
}

lj_code lj_db_wait_taken_back(lj_db *db, int64_t timeout_ns, lj_error *err)
{
    struct timespec deadline;
    lj_db_deadline(timeout_ns, &deadline);
    lj_code code = LJ_OK;
    unsigned turns = 0;
    int rc = 0;
    pthread_mutex_lock(&db->mutex);
    lj_db_refresh_locked(db);
    uint64_t failures = db->failures;
    db->flush_waiters++;
    if (unlooked_locked(db))
        hurry_locked(db);
    while (unlooked_locked(db) && rc == 0 && db->failures == failures)
        rc = lj_db_wait_for_news_locked(db, &deadline, &turns);
    if (unlooked_locked(db))
        code = lj_db_told_why(err, rc == ETIMEDOUT ? LJ_TIMEOUT : LJ_UNAVAILABLE,
                              "a transaction whose COMMIT failed may be in the replica",
                              lj_db_shipping_error_locked(db), "the store has not answered");
    db->flush_waiters--;
    pthread_mutex_unlock(&db->mutex);
    return code;
}

lj_code lj_db_wait_commit(lj_db *db, uint64_t life, uint64_t frames, int64_t timeout_ns,
                          lj_error *err)
{
    int64_t until_ns = lj_clock_mono_ns() + timeout_ns;
    int64_t left_ns = timeout_ns;
    pthread_mutex_lock(&db->mutex);
    uint64_t since = db->runs;
    lj_code code = LJ_OK;
    do {
        code = lj_db_wait_for_locked(db, life, frames, left_ns, true, err);
        left_ns = until_ns - lj_clock_mono_ns();
        /* an attempt that had begun before says nothing of this commit */
    } while (code == LJ_UNAVAILABLE && db->established && db->failed_run <= since && left_ns > 0);
    pthread_mutex_unlock(&db->mutex);
    return code;
}

static lj_code same_generation_locked(const lj_db *db, const lj_position *at, lj_error *err)
{
    LJ_TRY(lj_db_cannot_wait_locked(db, err));
    if (!db->chain.active || db->chain.generation[0] == 0)
        return LJ_OK; /* not decided yet */
    if (strcmp(db->chain.generation, at->generation) == 0)
        return LJ_OK;
    lj_error_set(err, LJ_CONFLICT, "the position is of generation %s, the replica goes on with %s",
                 at->generation, db->chain.generation);
    return lj_error_hint(err, "what the older generation contains is in the new one's snapshot: "
                              "use PRAGMA litejoin_sync");
}

/*
 * An index that begins in the middle of a life begins with what the replica has of that (the snapshot, or the index before): nothing is
 * shipped under it before something is committed behind that.
 */
static bool in_base_locked(const lj_db *db, const lj_position *at)
{
    const lj_chain *chain = &db->chain;
    return db->life.known && lj_chain_has_life(chain, db->life.salt) && chain->base_frames > 0 &&
           at->index == chain->index &&
           at->offset <= lj_wal_frame_offset(db->life.page_size, chain->base_frames + 1);
}

static bool passed_locked(const lj_db *db, const lj_position *at)
{
    return db->established && !db->broken && strcmp(db->pos.generation, at->generation) == 0 &&
           (lj_position_compare(&db->pos, at) >= 0 || in_base_locked(db, at));
}

lj_code lj_db_wait_position(lj_db *db, const lj_position *at, int64_t timeout_ns, lj_error *err)
{
    struct timespec deadline;
    lj_db_deadline(timeout_ns, &deadline);
    int rc = 0;
    unsigned turns = 0;
    pthread_mutex_lock(&db->mutex);
    lj_db_refresh_locked(db);
    lj_code code = same_generation_locked(db, at, err);
    while (code == LJ_OK && !passed_locked(db, at) && rc == 0) {
        rc = lj_db_wait_for_news_locked(db, &deadline, &turns);
        code = same_generation_locked(db, at, err);
    }
    if (code == LJ_OK && !passed_locked(db, at)) {
        char text[LJ_POSITION_TEXT_MAX];
        lj_position_format(&db->pos, text);
        char what[LJ_POSITION_TEXT_MAX + 24];
        snprintf(what, sizeof(what), "the replica is at %s", text);
        code = lj_db_told_why(err, LJ_TIMEOUT, what, lj_db_shipping_error_locked(db),
                              "nothing asked it to hurry");
    }
    pthread_mutex_unlock(&db->mutex);
    return code;
}

lj_code lj_db_wait_snapshot(lj_db *db, int64_t timeout_ns, lj_error *err)
{
    struct timespec deadline;
    lj_db_deadline(timeout_ns, &deadline);
    lj_db_enter(db);
    lj_code code = lj_db_cannot_wait_locked(db, err);
    uint64_t mine = code == LJ_OK ? ++db->snapshot_requests : 0;
    lj_db_leave(db);
    if (code != LJ_OK)
        return code;
    pthread_mutex_lock(&db->mutex);
    hurry_locked(db);
    unsigned turns = 0;
    int rc = 0;
    code = lj_db_cannot_wait_locked(db, err);
    while (code == LJ_OK && db->snapshot_done < mine && db->snapshot_failed < mine && rc == 0) {
        rc = lj_db_wait_for_news_locked(db, &deadline, &turns);
        code = lj_db_cannot_wait_locked(db, err);
    }
    if (db->snapshot_done >= mine) {
        code = LJ_OK;
    } else if (code == LJ_OK) {
        code = db->snapshot_failed >= mine ? LJ_UNAVAILABLE : LJ_TIMEOUT;
        lj_db_told_why(err, code, "no snapshot", lj_db_current_error_locked(db),
                       "it is still being written");
    }
    pthread_mutex_unlock(&db->mutex);
    return code;
}
