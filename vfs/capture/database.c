/*
 * database.c - see database.h: life cycle, publishing, status. The restart gate is gate.c, waits are in waiting.c, what other processes have to do with it
 * session.c and join.c.
 */
#include "vfs/capture/database.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vfs/base/clock.h"
#include "vfs/base/io.h"
#include "vfs/base/log.h"
#include "vfs/base/str.h"
#include "vfs/capture/attach.h"
#include "vfs/capture/seat.h"
#include "vfs/capture/session.h"

static void free_db(lj_db *db)
{
    lj_ring_free(&db->ring);
    free(db->path);
    free(db->wal_path);
    free(db->state_dir);
    free(db->spool_dir);
    free(db->position_path);
    free(db->bell_path);
    free(db->replica_url);
    free(db);
}

lj_code lj_db_new(const char *path, const char *replica_url, const lj_db_options *options,
                  lj_db_wake_fn wake, lj_db **ret_db, lj_error *err)
{
    lj_db *db = calloc(1, sizeof(*db));
    if (db == NULL)
        return lj_error_nomem(err);
    db->lock_fd = -1;
    atomic_init(&db->entering_fd, -1);
    db->options = *options;
    db->wake = wake;
    db->path = lj_str_dup(path);
    db->wal_path = lj_str_printf("%s-wal", path);
    db->state_dir = lj_str_state_dir(path);
    if (db->state_dir != NULL) {
        db->spool_dir = lj_str_printf("%s/spool", db->state_dir);
        db->position_path = lj_str_printf("%s/position", db->state_dir);
        db->bell_path = lj_str_printf("%s/bell", db->state_dir);
    }
    db->replica_url = lj_str_dup(replica_url);
    if (db->path == NULL || db->wal_path == NULL || db->spool_dir == NULL ||
        db->position_path == NULL || db->bell_path == NULL || db->replica_url == NULL) {
        free_db(db);
        return lj_error_nomem(err);
    }
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&db->mutex, NULL);
    pthread_mutex_init(&db->ready_mutex, NULL);
    pthread_cond_init(&db->cond, &attr);
    pthread_condattr_destroy(&attr);
    *ret_db = db;
    return LJ_OK;
}

void lj_db_free(lj_db *db)
{
    if (db == NULL)
        return;
    /* the bell last: whoever learns from it that we are gone finds the seat free */
    lj_db_leave_seat(db);
    lj_bell_close(db->bell);
    pthread_cond_destroy(&db->cond);
    pthread_mutex_destroy(&db->mutex);
    pthread_mutex_destroy(&db->ready_mutex);
    free_db(db);
}

static void break_locked(lj_db *db, const char *reason)
{
    /* without a chain: established is a generation that is a snapshot alone */
    if (!db->chain.active && !db->established)
        return;
    lj_attach_tell_break_locked(db, reason);
    db->chain.active = false;
    db->safe_frames = 0;
    db->established = false;
    db->broken = true;
    snprintf(db->broken_reason, sizeof(db->broken_reason), "%s", reason);
}

void lj_db_break(lj_db *db, const char *fmt, ...)
{
    char reason[192];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(reason, sizeof(reason), fmt, ap);
    va_end(ap);
    char told[sizeof(db->last_break)];
    pthread_mutex_lock(&db->mutex);
    /* a database in rollback-journal mode is written page by page: nothing new */
    bool known = db->attached && !db->chain.active && !db->established && !db->freezing &&
                 !lj_db_page_moved_locked(db);
    if (known) {
        pthread_mutex_unlock(&db->mutex);
        return;
    }
    lj_db_enter_locked(db);
    bool was_active = db->chain.active || db->established;
    db->touched = db->touched || !db->attached;
    db->disturbed =
        db->disturbed || db->freezing; /* a generation that is about to begin must not miss it */
    break_locked(db, reason);
    lj_db_call_locked(db);
    memcpy(told, db->last_break, sizeof(told));
    lj_db_leave(db);
    if (was_active) {
        lj_log(LJ_LOG_WARN, "%s: the generation cannot be continued: %s", db->path, told);
        db->wake(db, 0);
    }
}

/* A life begins, as far as this process knows; another one may have seen it first and numbered it. */
static void begin_life_locked(lj_db *db, const lj_wal_end *end)
{
    bool numbered = db->session_life > 0 && lj_wal_salt_eq(db->session_salt, end->salt);
    if (!numbered) {
        db->session_life++;
        db->session_salt = end->salt;
    }
    db->life = (lj_life){
        .known = true, .number = db->session_life, .salt = end->salt, .page_size = end->page_size};
}

/* Nobody has checkpointed since the WAL was empty: every frame that came behind it is still there. */
static bool file_is_as_emptied(const lj_db *db)
{
    lj_identity now;
    return !db->chain.emptied ||
           (lj_identity_of(db->path, &now) && lj_identity_eq(&now, &db->chain.identity));
}

/*
 * Does the life with this salt follow the chain's last one, with none in between? If a process with this VFS wrote its header, that
 * was seen to (lj_db_wal_emptied, with the write lock held). Else by the salts: a restart counts the first one up by one, so
 * more than one restart shows; and behind a snapshot of an empty WAL the wal-index said which salts come next. What has salts of
 * its own (the first header of a connection that did not empty the WAL itself) proves nothing: behind an empty WAL it is the first
 * one if the database file was not written since.
 */
static bool salts_follow(const lj_db *db, lj_wal_salt salt)
{
    const lj_chain *chain = &db->chain;
    if (chain->guarded || (chain->has_next && lj_wal_salt_eq(chain->next_salt, salt)))
        return true;
    if (chain->has_life)
        return !chain->sealed || salt.salt1 == chain->salt.salt1 + 1;
    lj_wal_salt none = {0, 0};
    return lj_wal_salt_eq(chain->empty_salt, none) ? file_is_as_emptied(db)
                                                   : lj_wal_salt_eq(chain->empty_salt, salt);
}

/* The current life is not the chain's: decides whether it continues it (I3). Returns false when the chain broke. */
static bool lengthen_chain_locked(lj_db *db, const lj_life *old)
{
    lj_chain *chain = &db->chain;
    if (!salts_follow(db, db->life.salt)) {
        break_locked(db, "a process without this VFS began the WAL anew, maybe more than once");
        return false;
    }
    if (chain->has_life) {
        bool seen = old->known && lj_wal_salt_eq(old->salt, chain->salt);
        uint64_t old_frames =
            seen ? LJ_MAX(old->frames, chain->sealed_frames) : chain->sealed_frames;
        if (!chain->sealed || chain->sealed_frames != old_frames) {
            break_locked(db, "the WAL was restarted by a process without this VFS");
            return false;
        }
        if (!chain->unused) {
            chain->prev_end = lj_wal_frame_offset(db->life.page_size, old_frames + 1);
            chain->index++;
        }
    }
    chain->has_life = true;
    chain->salt = db->life.salt;
    chain->unused = false;
    chain->base_frames = 0;
    chain->sealed = false;
    chain->sealed_frames = 0;
    chain->emptied = false;
    chain->has_next = false;
    chain->guarded = false;
    db->safe_life = db->life.number;
    db->safe_frames = 0;
    if (chain->index > LJ_INDEX_MAX) {
        break_locked(db, "the largest WAL index is used up");
        return false;
    }
    return true;
}

/* What more frames of the current life mean for its chain. */
static bool extends_locked(const lj_db *db, uint64_t frames)
{
    const lj_chain *chain = &db->chain;
    return chain->active && ((chain->sealed && frames > chain->sealed_frames) ||
                             (chain->unused && frames > chain->base_frames));
}

void lj_db_extend_life_locked(lj_db *db)
{
    lj_chain *chain = &db->chain;
    const lj_life *life = &db->life;
    if (!life->known || !chain->active || !lj_chain_has_life(&db->chain, life->salt))
        return;
    if (chain->sealed && life->frames > chain->sealed_frames) {
        chain->sealed = false; /* the restart did not come about, the writer went on appending */
        chain->emptied = false;
    }
    if (chain->unused && life->frames > chain->base_frames)
        chain->unused = false;
}

/* What has to be done once the mutex is released. */
typedef struct {
    bool broke;
    bool copy_ahead; /* wake who copies for the spool */
    int64_t due_ns;  /* wake the shipper, -1 = no need */
    char reason[sizeof(((lj_db *)NULL)->last_break)];
} aftermath;

static void note_break_locked(const lj_db *db, aftermath *after)
{
    after->broke = true;
    after->due_ns = 0;
    memcpy(after->reason, db->last_break, sizeof(after->reason));
}

/* The chain may not know of this end, or may have changed: to be decided with the page's lock. */
static bool concerns_chain_locked(const lj_db *db, const lj_wal_end *end)
{
    const lj_life *life = &db->life;
    bool same_life = life->known && lj_wal_salt_eq(life->salt, end->salt);
    if (end->frames == 0 || (same_life && life->frames == end->frames))
        return false;
    /* shipped before it was committed (pending.h) */
    bool gets_safe = db->shipped_life == life->number && db->shipped_frames > life->frames;
    return !same_life || lj_db_page_moved_locked(db) || extends_locked(db, end->frames) ||
           gets_safe || db->pending.state != LJ_PENDING_NONE ||
           (db->chain.active ? !lj_chain_has_life(&db->chain, end->salt)
                             : db->established && !db->broken);
}

static void publish_locked(lj_db *db, const lj_wal_end *end, aftermath *after)
{
    lj_life *life = &db->life;
    lj_life old = *life;
    bool same_life = life->known && lj_wal_salt_eq(life->salt, end->salt);
    if (end->frames == 0 || (same_life && life->frames == end->frames))
        return;
    if (!same_life)
        begin_life_locked(db, end);
    if (db->chain.active && !lj_chain_has_life(&db->chain, end->salt) &&
        !lengthen_chain_locked(db, &old)) {
        note_break_locked(db, after);
    }
    if (!same_life && db->broken)
        after->due_ns = 0; /* what kept the last life from being shipped is over with it */
    life->frames = end->frames;
    life->db_pages = end->db_pages;
    life->emptied = false;
    lj_db_extend_life_locked(db);
    after->copy_ahead = lj_ahead_published_locked(db, &old);
    db->commits++;
    bool left = db->pending.state != LJ_PENDING_NONE && db->pending.degraded;
    lj_db_pending_published_locked(db, end);
    if (left && db->pending.state == LJ_PENDING_NONE)
        after->due_ns =
            0; /* perhaps it was shipped meanwhile, and the replica has caught up with it */
    if (db->chain.active && db->shipped_life == life->number) {
        uint64_t before = db->safe_life == life->number ? db->safe_frames : 0;
        db->safe_frames = LJ_MAX(before, LJ_MIN(db->shipped_frames, end->frames));
        db->safe_life = life->number;
    }
    if (db->established && !db->chain.active && !db->broken) {
        db->broken = true; /* the generation is a snapshot alone: this commit needs the next */
        snprintf(db->broken_reason, sizeof(db->broken_reason), "the WAL does not verify");
    }
    if (db->chain.active && db->safe_life == life->number && db->safe_frames >= end->frames)
        return; /* it waited for the replica before it was published */
    int64_t now_ns = lj_clock_wall_ns();
    lj_commit commit = {.life = life->number,
                        .frame = end->frames,
                        .first_ns = now_ns,
                        .last_ns = now_ns,
                        .db_pages = end->db_pages};
    lj_ring_push(&db->ring, &commit);
    if (db->want_wake) {
        db->want_wake = false;
        after->due_ns = after->broke ? 0 : db->not_before_ns;
    }
    /*
     * The commit was visible before we look whether the uploader sleeps; it says so before it looks for commits. Rung by this
     * thread, and the word is the uploader's to clear: this process may end behind its commit, and then nobody else would ring.
     */
    if (lj_db_follows_locked(db) && lj_shared_get(db->shared, LJ_WORD_SLEEPING) != 0 &&
        (db->bell == NULL || db->bell_gone || !lj_bell_ring_quietly(db->bell)))
        after->due_ns = 0;
}

/* Without a frame in the WAL: who ended the last life, and may have begun and ended others since? NULL: it was one of ours. */
static const char *emptied_by_others_locked(const lj_db *db, const lj_wal_end *end)
{
    const lj_chain *chain = &db->chain;
    if (end->frames > 0 || !chain->active)
        return NULL;
    if (!chain->has_life || chain->sealed)
        return file_is_as_emptied(db) ? NULL : LJ_WRITTEN_WHILE_EMPTY;
    return lj_wal_salt_eq(end->salt, chain->salt) ? NULL
                                                  : "a process without this VFS emptied the WAL";
}

static void break_if_emptied_locked(lj_db *db, const lj_wal_end *end, aftermath *after)
{
    const char *why = emptied_by_others_locked(db, end);
    if (why == NULL)
        return;
    break_locked(db, why);
    note_break_locked(db, after);
}

static bool publish(lj_db *db, lj_db_look_fn look, void *ctx, bool settled, lj_wal_end *ret_end)
{
    aftermath after = {.due_ns = -1};
    lj_wal_end end;
    pthread_mutex_lock(&db->mutex);
    bool seen = look(ctx, &end);
    bool empty = settled && seen && end.frames == 0 &&
                 (lj_db_page_moved_locked(db) || emptied_by_others_locked(db, &end) != NULL);
    if (seen && (empty || concerns_chain_locked(db, &end))) {
        /* again, with the page's lock: what we saw may be older than what others have noted meanwhile */
        lj_db_enter_locked(db);
        seen = look(ctx, &end);
        if (seen && settled)
            break_if_emptied_locked(db, &end, &after);
        if (seen)
            publish_locked(db, &end, &after);
        lj_db_leave_locked(db);
    } else if (seen) {
        publish_locked(db, &end, &after);
    }
    pthread_mutex_unlock(&db->mutex);
    if (after.broke)
        lj_log(LJ_LOG_WARN, "%s: the generation cannot be continued: %s", db->path, after.reason);
    if (after.due_ns >= 0)
        db->wake(db, after.due_ns);
    if (after.copy_ahead)
        db->ahead.wake(db);
    if (seen && ret_end != NULL)
        *ret_end = end;
    return seen;
}

bool lj_db_publish_seen(lj_db *db, lj_db_look_fn look, void *ctx, lj_wal_end *ret_end)
{
    return publish(db, look, ctx, false, ret_end);
}

bool lj_db_publish_settled(lj_db *db, lj_db_look_fn look, void *ctx, lj_wal_end *ret_end)
{
    return publish(db, look, ctx, true, ret_end);
}

uint64_t lj_db_life_number(lj_db *db, lj_wal_salt salt)
{
    pthread_mutex_lock(&db->mutex);
    uint64_t number = db->life.known && lj_wal_salt_eq(db->life.salt, salt) ? db->life.number : 0;
    pthread_mutex_unlock(&db->mutex);
    return number;
}

static bool look_given(void *ctx, lj_wal_end *ret_end)
{
    *ret_end = *(const lj_wal_end *)ctx;
    return true;
}

void lj_db_publish(lj_db *db, lj_wal_salt salt, uint64_t frames, uint32_t page_size,
                   uint32_t db_pages)
{
    lj_wal_end end = {.salt = salt, .frames = frames, .page_size = page_size, .db_pages = db_pages};
    (void)lj_db_publish_settled(db, look_given, &end, NULL);
}

void lj_db_journal_mode(lj_db *db, const char *mode)
{
    lj_db_enter(db);
    bool changed = db->not_wal != (mode != NULL);
    db->not_wal = mode != NULL;
    memset(db->mode, 0, sizeof(db->mode));
    if (mode != NULL)
        snprintf(db->mode, sizeof(db->mode), "journal_mode=%s", mode);
    if (changed)
        lj_db_call_locked(db);
    lj_db_leave(db);
    if (changed && mode != NULL)
        lj_log(LJ_LOG_WARN,
               "%s: not replicating: journal_mode=%s (run PRAGMA journal_mode=WAL; a snapshot "
               "follows)",
               db->path, mode);
    if (changed && mode == NULL)
        db->wake(db, 0);
}

/* ------------------------------------------------------------------ shipper's side */

void lj_db_shipped(lj_db *db, const lj_position *next, uint64_t life, uint64_t frames)
{
    lj_db_enter(db);
    db->pos = *next;
    db->shipped_ns = lj_clock_mono_ns();
    /* who waits for this acknowledgement must not find the error before it in the status */
    lj_error_clear(&db->ship_error);
    if (life > db->shipped_life || (life == db->shipped_life && frames > db->shipped_frames)) {
        db->shipped_life = life;
        db->shipped_frames = frames;
    }
    if (db->chain.active && life >= db->safe_life) {
        /* what waits to be committed (pending.h) is not safe before it is */
        uint64_t safe = life == db->life.number ? LJ_MIN(frames, db->life.frames) : frames;
        db->safe_frames = life == db->safe_life ? LJ_MAX(db->safe_frames, safe) : safe;
        db->safe_life = life;
    }
    lj_ring_drop(&db->ring, life, frames);
    pthread_cond_broadcast(&db->cond);
    lj_db_leave(db);
}

/* A store that is busy, or a network that hiccups: worth waiting for, also at the last close. */
static bool passes_soon(const lj_error *err)
{
    return err->retryable && (err->code == LJ_UNAVAILABLE || err->code == LJ_TIMEOUT);
}

/* `awaited`: a flush cannot end before this succeeds. */
static void note_attempt_locked(lj_db *db, const lj_error *err, bool awaited, lj_error *noted)
{
    db->attempts++;
    if (err == NULL || err->code == LJ_OK) {
        lj_error_clear(noted);
    } else {
        db->failures += awaited && !passes_soon(err) ? 1 : 0;
        *noted = *err;
    }
    pthread_cond_broadcast(&db->cond);
}

void lj_db_attempt(lj_db *db, const lj_error *err)
{
    lj_db_enter(db);
    uint64_t failures = db->failures;
    note_attempt_locked(db, err, true, &db->ship_error);
    if (db->failures != failures) {
        db->failed_run = db->runs;
        lj_db_pending_failing_locked(db);
    }
    lj_db_leave(db);
}

void lj_db_snapshot_attempt(lj_db *db, const lj_error *err)
{
    lj_db_enter(db);
    note_attempt_locked(db, err, !db->established, &db->snapshot_error);
    lj_db_leave(db);
}

/* The error to show: of shipping first, it concerns every commit. LJ_OK: none. */
const lj_error *lj_db_current_error_locked(const lj_db *db)
{
    return db->ship_error.code != LJ_OK ? &db->ship_error : &db->snapshot_error;
}

/* What keeps commits from the replica. */
const lj_error *lj_db_shipping_error_locked(const lj_db *db)
{
    return db->established ? &db->ship_error : lj_db_current_error_locked(db);
}

/* "<what>: <why>" with the hint of why. */
lj_code lj_db_told_why(lj_error *err, lj_code code, const char *what, const lj_error *why,
                       const char *otherwise)
{
    lj_error_set(err, code, "%s: %s", what, why->code != LJ_OK ? why->message : otherwise);
    if (why->code != LJ_OK)
        lj_error_hint(err, "%s", why->hint);
    return code;
}

/* ------------------------------------------------------------------ waiting */

void lj_db_deadline(int64_t timeout_ns, struct timespec *ret)
{
    int64_t at = lj_clock_mono_ns() + LJ_MIN(timeout_ns, INT64_C(1) << 60);
    ret->tv_sec = (time_t)(at / LJ_NS_PER_S);
    ret->tv_nsec = (long)(at % LJ_NS_PER_S);
}

lj_code lj_db_cannot_wait_locked(const lj_db *db, lj_error *err)
{
    if (db->not_wal) {
        lj_error_set(err, LJ_UNSUPPORTED, "not replicating: %s", db->mode);
        return lj_error_hint(err, "run PRAGMA journal_mode=WAL");
    }
    if (db->state == LJ_DB_STOPPED)
        return lj_error_set(err, LJ_UNSUPPORTED, "not replicating: %s", db->reason);
    return LJ_OK;
}

/* ------------------------------------------------------------------ status */

static void state_text_locked(const lj_db *db, lj_db_status *s)
{
    const char *text = "replicating";
    if (db->not_wal || db->state == LJ_DB_STOPPED) {
        snprintf(s->text, sizeof(s->text), "not replicating: %s",
                 db->not_wal ? db->mode : db->reason);
        return;
    }
    if (db->state == LJ_DB_STANDBY)
        text = "standby";
    else if (db->pending.degraded)
        text = "degraded";
    else if (lj_db_current_error_locked(db)->code != LJ_OK)
        text = "retrying";
    else if (db->snapshots_only)
        text = "snapshots only: run wal_checkpoint(TRUNCATE)";
    else if (db->state == LJ_DB_IDLE)
        text = "idle";
    else if (!db->established)
        text = "starting";
    snprintf(s->text, sizeof(s->text), "%s", text);
    s->replicating = true;
}

void lj_db_get_status(lj_db *db, lj_db_status *ret_status)
{
    lj_db_status s = {.replicating = false};
    pthread_mutex_lock(&db->mutex);
    lj_db_refresh_locked(db);
    s.state = db->state;
    s.uploader = db->uploader;
    state_text_locked(db, &s);
    if (db->established || (db->chain.active && db->attached))
        memcpy(s.generation, db->pos.generation, sizeof(s.generation));
    s.replica_index = db->pos.index;
    s.replica_offset = db->pos.offset;
    s.local_index = db->chain.active ? db->chain.index : 0;
    const lj_life *life = &db->life;
    if (life->known)
        s.local_offset = lj_wal_frame_offset(life->page_size, life->frames + 1);
    bool in_life = life->known && life->number == db->shipped_life;
    if (in_life)
        s.lag_frames = life->frames - LJ_MIN(life->frames, db->shipped_frames);
    else if (life->known && life->number > db->shipped_life)
        s.lag_frames = life->frames;
    /* what is shipped of this life is behind all that was spooled: a file that is still there will go */
    if (!in_life && db->spool_bytes > 0 && db->saved.page_size != 0)
        s.lag_frames += db->spool_bytes / lj_wal_frame_bytes(db->saved.page_size);
    int64_t oldest_ns = lj_ring_oldest_ns(&db->ring);
    if (oldest_ns == 0)
        oldest_ns =
            db->saved
                .last_object_ns; /* commits of an earlier process: younger than the newest object */
    if (oldest_ns != 0 && s.lag_frames > 0)
        s.lag_ms = LJ_MAX((lj_clock_wall_ns() - oldest_ns) / LJ_NS_PER_MS, INT64_C(1));
    s.spool_bytes = db->spool_bytes;
    s.segments = db->segments;
    s.snapshots = db->snapshots;
    s.shipped_bytes = db->shipped_bytes;
    s.last_snapshot_ns = db->last_snapshot_ns;
    memcpy(s.last_break, db->last_break, sizeof(s.last_break));
    s.degraded = db->pending.degraded;
    s.failed_commits = db->pending_failed;
    if (lj_db_current_error_locked(db)->code != LJ_OK)
        lj_error_format(lj_db_current_error_locked(db), s.last_error, sizeof(s.last_error));
    else if (!db->established && db->broken && db->saved.at.generation[0] != 0)
        snprintf(s.last_error, sizeof(s.last_error), "a new generation is due: %s",
                 db->broken_reason);
    pthread_mutex_unlock(&db->mutex);
    *ret_status = s;
}
