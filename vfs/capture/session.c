/*
 * session.c - see session.h. Joining, and taking over, is in join.c.
 */
#include "vfs/capture/session.h"

#include <stdio.h>
#include <string.h>

#include "vfs/base/clock.h"
#include "vfs/base/log.h"
#include "vfs/base/table.h"
#include "vfs/capture/seat.h"

#define STUCK   "a process was stopped while it changed the shared page of this database"
#define CALL_NS (500 * LJ_NS_PER_MS) /* a process that waits calls more often than that */

/* ------------------------------------------------------------------ the page and our copies */

static void copy_text(char *to, size_t size, const char *from)
{
    memset(to, 0, size);
    memcpy(to, from, strnlen(from, size - 1));
}

/* What the page should say. `s` was read from it: what is not ours stays. */
static void fill(const lj_db *db, lj_session *s)
{
    s->chain = db->chain;
    s->life = db->session_life;
    s->life_salt = db->session_salt;
    s->pos = db->pos;
    s->shipped_life = db->shipped_life;
    s->shipped_frames = db->shipped_frames;
    s->safe_life = db->safe_life;
    s->safe_frames = db->safe_frames;
    s->spool_bytes = db->spool_bytes;
    s->established = db->established;
    s->freezing = db->freezing;
    s->disturbed = db->disturbed;
    s->broken = db->broken;
    s->not_wal = db->not_wal;
    copy_text(s->broken_reason, sizeof(s->broken_reason), db->broken_reason);
    copy_text(s->last_break, sizeof(s->last_break), db->last_break);
    copy_text(s->mode, sizeof(s->mode), db->mode);
    s->attempts = db->attempts;
    s->failures = db->failures;
    s->snapshot_requests = db->snapshot_requests;
    s->snapshot_done = db->snapshot_done;
    s->snapshot_failed = db->snapshot_failed;
    s->last_snapshot_ns = db->last_snapshot_ns;
    if (db->state != LJ_DB_STANDBY && db->state != LJ_DB_STOPPED) {
        s->last_object_ns = db->saved.last_object_ns;
        s->page_size = db->saved.page_size;
    }
    s->uploader = db->uploader;
    s->pending = db->pending;
    if (db->other_url)
        return; /* our error is not the session's */
    s->ship_error = db->ship_error;
    s->snapshot_error = db->snapshot_error;
}

static void take_in(lj_db *db, const lj_session *s)
{
    db->chain = s->chain;
    db->session_life = s->life;
    db->session_salt = s->life_salt;
    db->pos = s->pos;
    db->shipped_life = s->shipped_life;
    db->shipped_frames = s->shipped_frames;
    db->safe_life = s->safe_life;
    db->safe_frames = s->safe_frames;
    db->spool_bytes = s->spool_bytes;
    db->established = s->established;
    db->freezing = s->freezing;
    db->disturbed = s->disturbed;
    db->broken = s->broken;
    db->not_wal = s->not_wal;
    copy_text(db->broken_reason, sizeof(db->broken_reason), s->broken_reason);
    copy_text(db->last_break, sizeof(db->last_break), s->last_break);
    copy_text(db->mode, sizeof(db->mode), s->mode);
    db->attempts = s->attempts;
    db->failures = s->failures;
    db->snapshot_requests = s->snapshot_requests;
    db->snapshot_done = s->snapshot_done;
    db->snapshot_failed = s->snapshot_failed;
    db->last_snapshot_ns = s->last_snapshot_ns;
    db->uploader = s->uploader;
    lj_db_pending_take_in(db, &s->pending);
    if (!db->other_url) {
        db->ship_error = s->ship_error;
        db->snapshot_error = s->snapshot_error;
    }
    if (db->state == LJ_DB_STANDBY) {
        db->saved.last_object_ns = s->last_object_ns;
        db->saved.page_size = s->page_size;
        /* what the uploader of our own commits is told by lj_db_shipped */
        lj_ring_drop(&db->ring, s->shipped_life, s->shipped_frames);
    }
    /* seen before others numbered it */
    if (db->life.known && db->session_life > 0 && lj_wal_salt_eq(db->life.salt, db->session_salt))
        db->life.number = db->session_life;
}

static void give_up(lj_db *db)
{
    if (db->chain.active)
        copy_text(db->last_break, sizeof(db->last_break), STUCK);
    db->chain.active = false;
    db->established = false;
    db->broken = true;
    copy_text(db->broken_reason, sizeof(db->broken_reason), STUCK);
}

static void read_locked(lj_db *db)
{
    lj_session s;
    memset(&s, 0, sizeof(s));
    if (lj_shared_load(db->shared, &s)) {
        db->page_read = s;
        take_in(db, &s);
    } else {
        memset(&db->page_read, 0, sizeof(db->page_read));
        give_up(db); /* both slots are damaged, or somebody emptied the file */
    }
    db->page_version = lj_shared_version(db->shared);
    if (lj_shared_swap(db->shared, LJ_WORD_STUCK, 0) != 0)
        give_up(db);
}

void lj_db_enter_locked(lj_db *db)
{
    if (!db->sharing)
        return;
    bool stuck = lj_shared_get(db->shared, LJ_WORD_STUCK) != 0;
    db->entered = lj_seat_lock_page(db->lock_fd, stuck ? 0 : LJ_PAGE_WAIT_NS);
    if (db->entered) {
        read_locked(db);
        return;
    }
    lj_shared_set(db->shared, LJ_WORD_STUCK, 1);
    give_up(db);
}

static void store_locked(lj_db *db)
{
    lj_session s;
    memset(&s, 0, sizeof(s));
    s = db->page_read;
    s.live = db->sharing;
    fill(db, &s);
    if (memcmp((const uint8_t *)&s, (const uint8_t *)&db->page_read, sizeof(s)) == 0)
        return; /* padding counts too: one store more at worst */
    lj_shared_store(db->shared, &s);
    db->page_read = s;
    db->page_version = lj_shared_version(db->shared);
}

void lj_db_leave_locked(lj_db *db)
{
    if (db->shared == NULL || (db->sharing ? !db->entered : !db->attached))
        return;
    store_locked(db);
    if (db->entered)
        lj_seat_unlock_page(db->lock_fd);
    db->entered = false;
}

void lj_db_enter(lj_db *db)
{
    pthread_mutex_lock(&db->mutex);
    lj_db_enter_locked(db);
}

void lj_db_leave(lj_db *db)
{
    lj_db_leave_locked(db);
    pthread_mutex_unlock(&db->mutex);
}

bool lj_db_page_moved_locked(const lj_db *db)
{
    return db->sharing && (lj_shared_version(db->shared) != db->page_version ||
                           lj_shared_get(db->shared, LJ_WORD_STUCK) != 0);
}

void lj_db_refresh_locked(lj_db *db)
{
    if (!lj_db_page_moved_locked(db))
        return;
    lj_db_enter_locked(db);
    lj_db_leave_locked(db);
}

static void name_replica(const lj_db *db, lj_session *s)
{
    s->inode = db->inode;
    s->url_hash = lj_hash_text(db->replica_url);
    memcpy(s->url, db->replica_url, strnlen(db->replica_url, sizeof(s->url) - 1));
}

void lj_db_session_begin(lj_db *db)
{
    pthread_mutex_lock(&db->mutex);
    memset(&db->page_read, 0, sizeof(db->page_read));
    name_replica(db, &db->page_read);
    db->session_life = db->life.number;
    db->session_salt = db->life.salt;
    db->sharing = true;
    db->entered = true; /* nobody else takes part */
    store_locked(db);
    db->entered = false;
    pthread_mutex_unlock(&db->mutex);
}

void lj_db_session_join(lj_db *db)
{
    pthread_mutex_lock(&db->mutex);
    db->sharing = true;
    db->state = LJ_DB_STANDBY;
    db->life = (lj_life){.known = false}; /* looked at before we shared: seen again below */
    db->offered = 0;                      /* what waits already is in no page, and fails */
    lj_db_enter_locked(db);
    if (db->entered)
        db->other_url = db->page_read.url_hash != lj_hash_text(db->replica_url);
    lj_db_leave_locked(db);
    if (db->other_url) {
        db->state = LJ_DB_STOPPED;
        snprintf(db->reason, sizeof(db->reason), "another process replicates it to %.140s",
                 db->page_read.url);
        lj_error_set(&db->ship_error, LJ_CONFLICT,
                     "another process replicates this database to %s, this one should to %s",
                     db->page_read.url, db->replica_url);
        lj_error_hint(&db->ship_error, "give all processes of a database the same replica_url");
        lj_error_clear(&db->snapshot_error);
    }
    pthread_mutex_unlock(&db->mutex);
}

bool lj_db_flush_wanted_locked(const lj_db *db)
{
    return db->flush_waiters > 0 || lj_clock_mono_ns() < db->call_until_ns;
}

/* ------------------------------------------------------------------ the uploader */

void lj_db_sleeping(lj_db *db, bool asleep)
{
    pthread_mutex_lock(&db->mutex);
    if (db->sharing)
        lj_shared_set(db->shared, LJ_WORD_SLEEPING, asleep);
    pthread_mutex_unlock(&db->mutex);
}

/* What was counted in a word since we heard it last. */
static bool heard_locked(const lj_db *db, lj_shared_word word, uint32_t *heard)
{
    uint32_t now = lj_shared_get(db->shared, word);
    bool news = now != *heard;
    *heard = now;
    return news;
}

void lj_db_look_around(lj_db *db)
{
    if (db->shim.look != NULL)
        db->shim.look(db->shim.ctx);
    bool broke = false;
    char reason[LJ_BREAK_MAX];
    pthread_mutex_lock(&db->mutex);
    bool was_broken = db->broken;
    lj_db_refresh_locked(db);
    if (db->sharing && heard_locked(db, LJ_WORD_CALLS, &db->calls_heard)) {
        db->urgent = true;
        db->call_until_ns = lj_clock_mono_ns() + CALL_NS;
    }
    broke = db->broken && !was_broken;
    memcpy(reason, db->last_break, sizeof(reason));
    pthread_mutex_unlock(&db->mutex);
    lj_db_pending_look_after(db);
    if (broke)
        lj_log(LJ_LOG_WARN, "%s: the generation cannot be continued: %s", db->path, reason);
}

void lj_db_rung(void *ctx, bool gone)
{
    lj_db *db = ctx;
    (void)gone; /* the listener is ourselves */
    pthread_mutex_lock(&db->mutex);
    bool yield = db->sharing && heard_locked(db, LJ_WORD_YIELDS, &db->yields_heard);
    bool exclusive = db->sharing && heard_locked(db, LJ_WORD_EXCLUSIVE, &db->exclusive_heard);
    pthread_mutex_unlock(&db->mutex);
    if (db->shim.yield != NULL && (yield || exclusive))
        db->shim.yield(db->shim.ctx, !yield);
    /* before the look: who rings from here on is heard, and the task that is woken below looks once more before it sleeps */
    lj_db_sleeping(db, false);
    lj_db_look_around(db);
    pthread_mutex_lock(&db->mutex);
    int64_t due_ns = db->urgent ? 0 : db->not_before_ns;
    db->want_wake = false;
    pthread_mutex_unlock(&db->mutex);
    db->wake(db, due_ns);
}

void lj_db_image_held(lj_db *db, unsigned hold)
{
    pthread_mutex_lock(&db->mutex);
    if (db->sharing)
        lj_shared_set(db->shared, LJ_WORD_IMAGE, hold);
    pthread_mutex_unlock(&db->mutex);
}

bool lj_db_company(lj_db *db)
{
    pthread_mutex_lock(&db->mutex);
    lj_db_refresh_locked(db);
    bool company = db->sharing && lj_seat_company(db->lock_fd);
    pthread_mutex_unlock(&db->mutex);
    return company;
}

/* ------------------------------------------------------------------ a standby */

void lj_db_call_locked(lj_db *db)
{
    if (lj_db_follows_locked(db))
        lj_shared_add(db->shared, LJ_WORD_CALLS);
}

static bool image_held(lj_db *db)
{
    pthread_mutex_lock(&db->mutex);
    bool held = db->sharing && lj_shared_get(db->shared, LJ_WORD_IMAGE) != 0;
    pthread_mutex_unlock(&db->mutex);
    return held;
}

bool lj_db_ask_yield(lj_db *db, bool exclusive)
{
    pthread_mutex_lock(&db->mutex);
    bool ask = lj_db_follows_locked(db) && lj_shared_get(db->shared, LJ_WORD_IMAGE) != 0;
    if (ask)
        lj_shared_add(db->shared, exclusive ? LJ_WORD_EXCLUSIVE : LJ_WORD_YIELDS);
    pthread_mutex_unlock(&db->mutex);
    if (!ask)
        return false;
    db->wake(db, 0);
    int64_t deadline_ns = lj_clock_mono_ns() + LJ_YIELD_WAIT_NS;
    while (image_held(db)) {
        if (lj_clock_mono_ns() >= deadline_ns)
            return false;
        lj_clock_sleep_ns(LJ_NS_PER_MS / 2);
    }
    return true;
}
