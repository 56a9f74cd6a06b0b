/*
 * database.c - see database.h: life cycle, publishing, waiting. The restart gate is gate.c.
 */
#include "vfs/capture/database.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "vfs/base/clock.h"
#include "vfs/base/io.h"
#include "vfs/base/log.h"
#include "vfs/base/str.h"
#include "vfs/capture/attach.h"
#include "vfs/capture/spool.h"

#define READY_PAUSE_NS     (100 * LJ_NS_PER_MS)
#define READY_PAUSE_MAX_NS (5 * LJ_NS_PER_S)

static void free_db(lj_db *db)
{
    lj_ring_free(&db->ring);
    lj_shared_close(db->shared);
    if (db->lock_fd >= 0) {
        flock(db->lock_fd, LOCK_UN); /* a child of fork() may still have the descriptor */
        close(db->lock_fd);
    }
    free(db->path);
    free(db->wal_path);
    free(db->state_dir);
    free(db->spool_dir);
    free(db->position_path);
    free(db->replica_url);
    free(db);
}

lj_code lj_db_new(const char *path, const char *replica_url, const lj_db_options *options,
                  lj_db_wake_fn wake, lj_db **ret_db, lj_error *err)
{
    lj_db *db = calloc(1, sizeof(*db));
    LJ_CLEANUP(lj_freep) char *dir = lj_str_dirname(path);
    if (db == NULL || dir == NULL) {
        free(db);
        return lj_error_nomem(err);
    }
    db->lock_fd = -1;
    db->options = *options;
    db->wake = wake;
    db->path = lj_str_dup(path);
    db->wal_path = lj_str_printf("%s-wal", path);
    db->state_dir = lj_str_printf("%s/.%s-litejoin", dir, lj_str_basename(path));
    if (db->state_dir != NULL) {
        db->spool_dir = lj_str_printf("%s/spool", db->state_dir);
        db->position_path = lj_str_printf("%s/position", db->state_dir);
    }
    db->replica_url = lj_str_dup(replica_url);
    if (db->path == NULL || db->wal_path == NULL || db->spool_dir == NULL ||
        db->position_path == NULL || db->replica_url == NULL) {
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
    pthread_cond_destroy(&db->cond);
    pthread_mutex_destroy(&db->mutex);
    pthread_mutex_destroy(&db->ready_mutex);
    free_db(db);
}

/* State folder, election lock, shared page. */
static lj_code prepare_state(lj_db *db, int *ret_lock_fd, lj_shared **ret_shared, lj_error *err)
{
    LJ_TRY(lj_io_mkdirs(db->state_dir, 0700, err));
    LJ_CLEANUP(lj_freep) char *lock_path = lj_str_printf("%s/lock", db->state_dir);
    LJ_CLEANUP(lj_freep) char *shared_path = lj_str_printf("%s/shared", db->state_dir);
    if (lock_path == NULL || shared_path == NULL)
        return lj_error_nomem(err);
    LJ_CLEANUP(lj_closep) int fd = -1;
    LJ_TRY(lj_io_open(lock_path, O_RDWR | O_CREAT, 0600, &fd, err));
    while (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        if (errno == EWOULDBLOCK)
            return lj_error_set(err, LJ_BUSY, "another process replicates this database");
        if (errno != EINTR)
            return lj_error_errno(err, errno, "cannot lock %s", lock_path);
    }
    LJ_TRY(lj_shared_open(shared_path, ret_shared, err));
    *ret_lock_fd = fd;
    fd = -1;
    return LJ_OK;
}

static void stop_locked(lj_db *db, const lj_error *err)
{
    db->state = err->code == LJ_BUSY ? LJ_DB_STANDBY : LJ_DB_STOPPED;
    snprintf(db->reason, sizeof(db->reason), "%.180s", err->message);
    db->ship_error = *err;
}

/* A failure may pass (no descriptor free, a full disk): every so often another look tries again. */
static void try_later_locked(lj_db *db)
{
    int64_t pause_ns = db->ready_failures < 6 ? READY_PAUSE_NS << db->ready_failures : 0;
    db->ready_failures++;
    if (pause_ns == 0 || pause_ns > READY_PAUSE_MAX_NS)
        pause_ns = READY_PAUSE_MAX_NS;
    atomic_store(&db->ready_not_before_ns, lj_clock_mono_ns() + pause_ns);
}

/* false: try again later. */
static bool attach_once(lj_db *db)
{
    lj_error err = LJ_ERROR_INIT;
    int lock_fd = -1;
    lj_shared *shared = NULL;
    lj_code code = prepare_state(db, &lock_fd, &shared, &err);
    pthread_mutex_lock(&db->mutex);
    if (code == LJ_OK) {
        db->lock_fd = lock_fd;
        db->shared = shared;
        db->state = LJ_DB_STARTING;
    } else {
        stop_locked(db, &err);
        if (code != LJ_BUSY)
            try_later_locked(db);
    }
    bool first = db->ready_failures <= 1;
    pthread_cond_broadcast(&db->cond);
    pthread_mutex_unlock(&db->mutex);
    if (code != LJ_OK) {
        if (first)
            lj_log_error(LJ_LOG_ERROR, db->path, &err);
        return code == LJ_BUSY;
    }
    lj_saved_position saved;
    lj_spool_sweep(db->spool_dir);
    lj_attach(db, &saved);
    pthread_mutex_lock(&db->mutex);
    db->saved = saved;
    db->attached = true;
    pthread_mutex_unlock(&db->mutex);
    db->wake(db, 0);
    return true;
}

void lj_db_ready(lj_db *db, lj_db_first_look_fn look, void *ctx)
{
    if (atomic_load_explicit(&db->ready, memory_order_acquire))
        return;
    int64_t not_before_ns = atomic_load(&db->ready_not_before_ns);
    if (not_before_ns != 0 && lj_clock_mono_ns() < not_before_ns)
        return;
    pthread_mutex_lock(&db->ready_mutex);
    if (!atomic_load_explicit(&db->ready, memory_order_relaxed) && (look == NULL || look(ctx)) &&
        attach_once(db))
        atomic_store_explicit(&db->ready, true, memory_order_release);
    pthread_mutex_unlock(&db->ready_mutex);
}

void lj_db_chain_store_locked(lj_db *db)
{
    if (db->shared != NULL)
        lj_shared_store(db->shared, &db->chain);
}

static void break_locked(lj_db *db, const char *reason)
{
    if (!db->chain.active)
        return;
    lj_attach_tell_break_locked(db, reason);
    db->chain.active = false;
    db->safe_frames = 0;
    db->established = false;
    db->broken = true;
    snprintf(db->broken_reason, sizeof(db->broken_reason), "%s", reason);
    lj_db_chain_store_locked(db);
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
    bool was_active = db->chain.active;
    db->life.emptied = false;
    db->touched = db->touched || !db->attached;
    db->disturbed =
        db->disturbed || db->freezing; /* a generation that is about to begin must not miss it */
    break_locked(db, reason);
    memcpy(told, db->last_break, sizeof(told));
    pthread_mutex_unlock(&db->mutex);
    if (was_active) {
        lj_log(LJ_LOG_WARN, "%s: the generation cannot be continued: %s", db->path, told);
        db->wake(db, 0);
    }
}

/* A life begins: decides whether it continues the chain (I3). Returns false when the chain broke. */
static bool begin_life_locked(lj_db *db, lj_wal_salt salt, uint32_t page_size)
{
    lj_life old = db->life;
    db->life =
        (lj_life){.known = true, .number = old.number + 1, .salt = salt, .page_size = page_size};
    lj_chain *chain = &db->chain;
    bool deleted = db->wal_deleted;
    db->wal_deleted = false;
    if (!chain->active)
        return true;
    if (!lj_attach_follows_locked(db, salt, deleted)) {
        break_locked(db, "another process restarted the WAL more than once since we looked");
        return false;
    }
    if (chain->has_life) {
        uint64_t old_frames = old.known ? old.frames : chain->sealed_frames;
        if (!chain->sealed || chain->sealed_frames != old_frames) {
            break_locked(db, "the WAL was restarted by a process without this VFS");
            return false;
        }
        if (!chain->unused) {
            chain->prev_end = lj_wal_frame_offset(page_size, old_frames + 1);
            chain->index++;
        }
    }
    chain->has_life = true;
    chain->salt = salt;
    chain->unused = false;
    chain->base_frames = 0;
    chain->sealed = false;
    chain->sealed_frames = 0;
    chain->emptied = false;
    chain->has_next = false;
    db->safe_frames = 0;
    lj_db_chain_store_locked(db);
    if (chain->index > LJ_INDEX_MAX) {
        break_locked(db, "the largest WAL index is used up");
        return false;
    }
    return true;
}

/* More frames of the current life. */
static void extend_life_locked(lj_db *db, uint64_t frames)
{
    lj_chain *chain = &db->chain;
    bool changed = false;
    db->life.emptied = false;
    if (chain->active && chain->sealed && frames > chain->sealed_frames) {
        chain->sealed = false; /* the restart did not come about, the writer went on appending */
        chain->emptied = false;
        changed = true;
    }
    if (chain->active && chain->unused && frames > chain->base_frames) {
        chain->unused = false;
        changed = true;
    }
    if (changed)
        lj_db_chain_store_locked(db);
}

/* What has to be done once the mutex is released. */
typedef struct {
    bool broke;
    int64_t due_ns; /* wake the shipper, -1 = no need */
    char reason[sizeof(((lj_db *)NULL)->last_break)];
} aftermath;

static void publish_locked(lj_db *db, const lj_wal_end *end, aftermath *after)
{
    lj_life *life = &db->life;
    bool same_life = life->known && lj_wal_salt_eq(life->salt, end->salt);
    if (end->frames == 0 || (same_life && life->frames == end->frames))
        return;
    if (!same_life && !begin_life_locked(db, end->salt, end->page_size)) {
        after->broke = true;
        after->due_ns = 0;
        memcpy(after->reason, db->last_break, sizeof(after->reason));
    }
    if (!same_life && db->broken)
        after->due_ns = 0; /* what kept the last life from being shipped is over with it */
    extend_life_locked(db, end->frames);
    life->frames = end->frames;
    life->db_pages = end->db_pages;
    db->commits++;
    lj_db_pending_published_locked(db, end);
    if (db->chain.active && db->shipped_life == life->number)
        db->safe_frames = LJ_MAX(db->safe_frames, LJ_MIN(db->shipped_frames, end->frames));
    if (db->established && !db->chain.active && !db->broken) {
        db->broken = true; /* the generation is a snapshot alone: this commit needs the next */
        snprintf(db->broken_reason, sizeof(db->broken_reason), "the WAL does not verify");
    }
    if (db->chain.active && db->safe_frames >= end->frames)
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
}

bool lj_db_publish_seen(lj_db *db, lj_db_look_fn look, void *ctx, lj_wal_end *ret_end)
{
    aftermath after = {.due_ns = -1};
    lj_wal_end end;
    pthread_mutex_lock(&db->mutex);
    bool seen = look(ctx, &end);
    if (seen)
        publish_locked(db, &end, &after);
    pthread_mutex_unlock(&db->mutex);
    if (after.broke)
        lj_log(LJ_LOG_WARN, "%s: the generation cannot be continued: %s", db->path, after.reason);
    if (after.due_ns >= 0)
        db->wake(db, after.due_ns);
    if (seen && ret_end != NULL)
        *ret_end = end;
    return seen;
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
    (void)lj_db_publish_seen(db, look_given, &end, NULL);
}

void lj_db_journal_mode(lj_db *db, const char *mode)
{
    pthread_mutex_lock(&db->mutex);
    bool changed = db->not_wal != (mode != NULL);
    db->not_wal = mode != NULL;
    if (mode != NULL)
        snprintf(db->reason, sizeof(db->reason), "journal_mode=%s", mode);
    else if (changed)
        db->reason[0] = 0;
    pthread_mutex_unlock(&db->mutex);
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
    pthread_mutex_lock(&db->mutex);
    db->pos = *next;
    db->shipped_ns = lj_clock_mono_ns();
    /* who waits for this acknowledgement must not find the error before it in the status */
    lj_error_clear(&db->ship_error);
    if (life > db->shipped_life || (life == db->shipped_life && frames > db->shipped_frames)) {
        db->shipped_life = life;
        db->shipped_frames = frames;
    }
    if (life == db->life.number && db->chain.active)
        db->safe_frames = LJ_MAX(db->safe_frames, frames);
    lj_ring_drop(&db->ring, life, frames);
    pthread_cond_broadcast(&db->cond);
    pthread_mutex_unlock(&db->mutex);
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
    pthread_mutex_lock(&db->mutex);
    note_attempt_locked(db, err, true, &db->ship_error);
    pthread_mutex_unlock(&db->mutex);
}

void lj_db_snapshot_attempt(lj_db *db, const lj_error *err)
{
    pthread_mutex_lock(&db->mutex);
    note_attempt_locked(db, err, !db->established, &db->snapshot_error);
    pthread_mutex_unlock(&db->mutex);
}

/* The error to show: of shipping first, it concerns every commit. LJ_OK: none. */
static const lj_error *current_error_locked(const lj_db *db)
{
    return db->ship_error.code != LJ_OK ? &db->ship_error : &db->snapshot_error;
}

/* What keeps commits from the replica. */
const lj_error *lj_db_shipping_error_locked(const lj_db *db)
{
    return db->established ? &db->ship_error : current_error_locked(db);
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

void lj_db_deadline(int64_t timeout_ns, struct timespec *ret)
{
    int64_t at = lj_clock_mono_ns() + LJ_MIN(timeout_ns, INT64_C(1) << 60);
    ret->tv_sec = (time_t)(at / LJ_NS_PER_S);
    ret->tv_nsec = (long)(at % LJ_NS_PER_S);
}

lj_code lj_db_cannot_wait_locked(const lj_db *db, lj_error *err)
{
    if (db->not_wal || db->state == LJ_DB_STOPPED || db->state == LJ_DB_STANDBY) {
        lj_error_set(err, LJ_UNSUPPORTED, "not replicating: %s", db->reason);
        if (db->not_wal)
            return lj_error_hint(err, "run PRAGMA journal_mode=WAL");
        return err->code;
    }
    return LJ_OK;
}

lj_code lj_db_wait_for_locked(lj_db *db, uint64_t life, uint64_t frames, int64_t timeout_ns,
                              bool first_error, lj_error *err)
{
    struct timespec deadline;
    lj_db_deadline(timeout_ns, &deadline);
    LJ_TRY(lj_db_cannot_wait_locked(db, err));
    uint64_t failures = db->failures;
    lj_code code = LJ_OK;
    db->flush_waiters++;
    bool woken = false;
    int rc = 0;
    while (code == LJ_OK && !reached_locked(db, life, frames) && rc == 0) {
        if (!woken) {
            woken = true;
            pthread_mutex_unlock(&db->mutex);
            db->wake(db, 0);
            pthread_mutex_lock(&db->mutex);
            continue;
        }
        rc = pthread_cond_timedwait(&db->cond, &db->mutex, &deadline);
        code = lj_db_cannot_wait_locked(db, err);
        if (first_error && db->failures != failures)
            break;
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

lj_code lj_db_wait_snapshot(lj_db *db, int64_t timeout_ns, lj_error *err)
{
    struct timespec deadline;
    lj_db_deadline(timeout_ns, &deadline);
    pthread_mutex_lock(&db->mutex);
    lj_code code = lj_db_cannot_wait_locked(db, err);
    if (code != LJ_OK) {
        pthread_mutex_unlock(&db->mutex);
        return code;
    }
    uint64_t mine = ++db->snapshot_requests;
    pthread_mutex_unlock(&db->mutex);
    db->wake(db, 0);
    pthread_mutex_lock(&db->mutex);
    int rc = 0;
    while (db->snapshot_done < mine && db->snapshot_failed < mine && rc == 0)
        rc = pthread_cond_timedwait(&db->cond, &db->mutex, &deadline);
    if (db->snapshot_done < mine) {
        code = db->snapshot_failed >= mine ? LJ_UNAVAILABLE : LJ_TIMEOUT;
        lj_db_told_why(err, code, "no snapshot", current_error_locked(db),
                       "it is still being written");
    }
    pthread_mutex_unlock(&db->mutex);
    return code;
}

/* ------------------------------------------------------------------ status */

static void state_text_locked(const lj_db *db, lj_db_status *s)
{
    const char *text = "replicating";
    if (db->not_wal || db->state == LJ_DB_STOPPED || db->state == LJ_DB_STANDBY) {
        snprintf(s->text, sizeof(s->text), "%s: %.44s",
                 db->state == LJ_DB_STANDBY && !db->not_wal ? "standby" : "not replicating",
                 db->reason);
        return;
    }
    if (db->pending.degraded)
        text = "degraded";
    else if (current_error_locked(db)->code != LJ_OK)
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
    s.state = db->state;
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
    else if (life->known)
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
    s.failed_commits = db->pending.failed;
    if (current_error_locked(db)->code != LJ_OK)
        lj_error_format(current_error_locked(db), s.last_error, sizeof(s.last_error));
    else if (!db->established && db->broken && db->saved.at.generation[0] != 0)
        snprintf(s.last_error, sizeof(s.last_error), "a new generation is due: %s",
                 db->broken_reason);
    pthread_mutex_unlock(&db->mutex);
    *ret_status = s;
}
