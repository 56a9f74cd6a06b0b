/*
 * shipper.c - the two tasks of a database: what is done in which order, when the next tick is due, what happens after a failure.
 *
 * A shipping tick:
 *   1. take over what the snapshot task left (a new generation, a periodic snapshot)
 *   2. a chain that was given up: ask the snapshot task for a new generation, and stop here
 *   3. write the position file if the last write of it failed
 *   4. once per open: compare the replica with the position (resume.c)
 *   5. ship: first what is in the spool, in order, then the WAL up to the last published commit
 *   6. go over to the next index if a snapshot needs one (rollover.c), and ship once more
 *   7. sleep until the next tick is allowed, or for good when everything is shipped
 *
 * Invariant I2 (database.h): an acknowledged object is written into the position file before lj_db_shipped lets the gate
 * rely on it.
 *
 * Layer: ship. Thread-safety: see internal.h.
 */
#include "vfs/ship/shipper.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vfs/base/cancel.h"
#include "vfs/base/clock.h"
#include "vfs/base/io.h"
#include "vfs/base/log.h"
#include "vfs/capture/moved.h"
#include "vfs/capture/session.h"
#include "vfs/capture/spool.h"
#include "vfs/ship/internal.h"

#define BACKOFF_FIRST_NS (100 * LJ_NS_PER_MS)
#define BACKOFF_LAST_NS  (30 * LJ_NS_PER_S)
#define WAITED_FOR_NS    (200 * LJ_NS_PER_MS)
/* one bad header must not stop replication for an hour */
#define RETRY_AFTER_MAX_NS (300 * LJ_NS_PER_S)

int64_t lj_backoff_ns(unsigned failures, const lj_error *err)
{
    if (err != NULL && err->retry_after_ns > 0)
        return LJ_MIN(err->retry_after_ns, RETRY_AFTER_MAX_NS);
    int64_t limit_ns = BACKOFF_FIRST_NS;
    for (unsigned i = 1; i < failures && limit_ns < BACKOFF_LAST_NS; i++)
        limit_ns *= 2;
    limit_ns = LJ_MIN(limit_ns, BACKOFF_LAST_NS);
    uint32_t random = 0;
    lj_io_random(&random, sizeof(random));
    return limit_ns / 4 +
           (int64_t)((double)limit_ns * 0.75 * ((double)random / (double)UINT32_MAX));
}

/* ------------------------------------------------------------------ taking over */

/* Step 1. */
static void take_over(lj_shipper *s)
{
    lj_db *db = s->db;
    lj_db_enter(db);
    if (!s->loaded) {
        s->loaded = true;
        s->saved = db->saved;
        s->newest_object_ns = LJ_MAX(s->newest_object_ns, s->saved.last_object_ns);
        s->snapshot_timer_ns = lj_clock_mono_ns();
        if (db->chain.active && !db->moved) {
            db->established = true;
            db->state = LJ_DB_REPLICATING;
        }
    }
    lj_new_generation fresh = s->fresh;
    s->fresh.pending = false;
    bool noted = s->snapshot_noted;
    int64_t noted_ns = s->noted_ns;
    lj_position noted_at = s->noted_at;
    s->snapshot_noted = false;
    if (noted && strcmp(noted_at.generation, db->saved.at.generation) == 0) {
        db->saved.snapshot_ns =
            noted_ns; /* at once: whoever asks for the next one compares with it */
        db->saved.snapshot_at = noted_at;
    }
    lj_db_leave(db);
    if (fresh.pending) {
        s->begun = fresh;
        s->saved = fresh.saved;
        s->unsaved = true;
        s->resumed = true;
        lj_resume_agreed(s);
    } else if (noted && strcmp(noted_at.generation, s->saved.at.generation) == 0) {
        s->saved.snapshot_ns = noted_ns;
        s->saved.snapshot_at = noted_at;
        s->saved.last_object_ns = LJ_MAX(s->saved.last_object_ns, noted_ns);
        s->unsaved = true;
    }
}

/* Step 3, behind the position file. */
static void establish(lj_shipper *s)
{
    lj_db *db = s->db;
    const lj_new_generation *fresh = &s->begun;
    lj_spool_entry ignored;
    lj_error err = LJ_ERROR_INIT;
    s->begun.pending = false;
    pthread_mutex_lock(&db->mutex);
    bool left = s->want_generation; /* given up already: the next one may have begun, and spool */
    pthread_mutex_unlock(&db->mutex);
    if (left)
        return;
    (void)!lj_spool_first(db->spool_dir, fresh->saved.at.generation, 0, true, &ignored, &err);
    lj_db_enter(db);
    db->established = true;
    db->state = db->moved ? LJ_DB_STOPPED : LJ_DB_REPLICATING;
    s->rollover_wanted = false; /* that was of the generation before */
    lj_db_leave(db);
    lj_db_shipped(db, &fresh->saved.at, fresh->life, fresh->frames);
    lj_log(LJ_LOG_INFO, "%s: replicating to %s, generation %s", db->path, db->replica_url,
           fresh->saved.at.generation);
}

/* Step 2. */
static bool needs_generation(lj_shipper *s)
{
    lj_db *db = s->db;
    char generation[LJ_GENERATION_MAX];
    pthread_mutex_lock(&db->mutex);
    bool given_up = db->broken && !s->want_generation && !db->moved;
    if (given_up) {
        lj_db_enter_locked(db);
        memcpy(generation, db->chain.generation, sizeof(generation));
        s->want_generation = true;
        db->established = false;
        db->state = LJ_DB_STARTING;
        db->spool_bytes = 0;
        lj_db_leave_locked(db);
    }
    /* one that is ready since take_over() looked is taken over first: s->saved is still of the old generation */
    bool want = s->want_generation || s->fresh.pending;
    pthread_mutex_unlock(&db->mutex);
    /* those alone: from here on the snapshot task may begin the next. What else is there goes in establish() */
    if (given_up) {
        lj_spool_drop(db->spool_dir, generation);
        lj_spool_drop(db->spool_dir, s->saved.at.generation);
    }
    return want;
}

/* ------------------------------------------------------------------ shipping */

static lj_code ship_spooled(lj_shipper *s, const lj_spool_entry *entry, lj_error *err)
{
    LJ_CLEANUP(lj_closep) int fd = -1;
    LJ_TRY(lj_spool_open(s->db->spool_dir, entry, &fd, err));
    uint8_t raw[LJ_WAL_HEADER_BYTES];
    size_t n = 0;
    lj_wal_header header;
    LJ_TRY(lj_io_pread(fd, raw, sizeof(raw), 0, &n, err));
    if (n != sizeof(raw))
        return lj_error_set(err, LJ_CORRUPT, "a spooled WAL has no header");
    LJ_TRY(lj_wal_header_parse(raw, &header, err));
    return lj_upload_segment(s, fd, &header, entry->end, 0, err);
}

/* There was nothing to ship in it: killed processes left a wrong sum, unless somebody added to it meanwhile. */
static void count_as_empty(lj_db *db, uint64_t spooled)
{
    lj_db_enter(db);
    if (db->spool_bytes == spooled)
        db->spool_bytes = 0;
    lj_db_leave(db);
}

/* The spool has something for the index we are at: ship it, or drop it when the replica has it. */
static lj_code drain_spool(lj_shipper *s, const lj_chain *chain, const lj_life *life,
                           uint64_t spooled, bool *ret_found, lj_error *err)
{
    lj_db *db = s->db;
    lj_spool_entry entry;
    *ret_found = false;
    lj_code code =
        lj_spool_first(db->spool_dir, chain->generation, s->saved.at.index, false, &entry, err);
    if (code == LJ_NOTFOUND) {
        count_as_empty(db, spooled);
        return LJ_OK;
    }
    if (code != LJ_OK)
        return code; /* what cannot be seen is not gone */
    if (entry.start.index != s->saved.at.index)
        return LJ_OK;
    *ret_found = true;
    if (entry.start.offset > s->saved.at.offset)
        return lj_error_set(err, LJ_CONFLICT,
                            "the spool begins at offset %" PRIu64 ", behind %" PRIu64,
                            entry.start.offset, s->saved.at.offset);
    if (entry.end > s->saved.at.offset) {
        LJ_TRY(ship_spooled(s, &entry, err));
        LJ_TRY(lj_ship_save(s, err));
        uint64_t frames = lj_wal_frames_below(s->saved.page_size, s->saved.at.offset);
        lj_db_shipped(db, &s->saved.at, lj_ship_life_of(chain, life, s->saved.at.index), frames);
        if (s->saved.at.offset < entry.end)
            return LJ_OK;
    }
    int why = lj_spool_remove(db->spool_dir, &entry);
    if (why != 0) /* it would be found first again and again */
        return lj_error_errno(err, why, "cannot remove what is shipped from %s", db->spool_dir);
    uint64_t bytes = entry.end - entry.start.offset;
    lj_db_enter(db);
    db->spool_bytes -= LJ_MIN(db->spool_bytes, bytes);
    lj_db_leave(db);
    return LJ_OK;
}

/* LJ_CONFLICT: something is missing between what was shipped of the index and its end. */
static lj_code check_end(lj_shipper *s, const lj_chain *chain, lj_error *err)
{
    const lj_position *at = &s->saved.at;
    uint64_t end = chain->prev_end;
    lj_code code = LJ_OK;
    if (at->index + 1 < chain->index) {
        /* the next index is over as well, and nothing of it is in the replica: all of it is in the spool */
        code = lj_spool_prev_end(s->db->spool_dir, chain->generation, at->index + 1, &end, err);
        if (code != LJ_OK && code != LJ_NOTFOUND)
            return code;
        end = end != 0 ? end : at->offset; /* one that does not say was written by another build */
    }
    /* an index without a frame does not exist */
    if (at->offset == 0 || code == LJ_NOTFOUND || at->offset != end)
        return lj_error_set(err, LJ_CONFLICT,
                            "frames behind offset %" PRIu64 " of index %" PRIu32 " are gone",
                            at->offset, at->index);
    return LJ_OK;
}

/* The index is complete in the replica: on to the next. */
static lj_code next_index(lj_shipper *s, const lj_chain *chain, lj_error *err)
{
    lj_saved_position *saved = &s->saved;
    LJ_TRY(check_end(s, chain, err));
    saved->mark_end = saved->at.offset; /* put with the index's first object */
    saved->prev_end = saved->at.offset;
    saved->at.index++;
    saved->at.offset = 0;
    saved->has_base = false;
    saved->has_identity = false;
    s->unsaved = true; /* before the index has an object: resume.c compares both */
    return lj_ship_save(s, err);
}

static lj_code ship_live(lj_shipper *s, const lj_chain *chain, const lj_life *life, bool *ret_more,
                         lj_error *err)
{
    lj_db *db = s->db;
    uint64_t to = lj_wal_frame_offset(life->page_size, life->frames + 1);
    *ret_more = false;
    /* seen before another process added to it: an index must begin with all that its snapshot has */
    if (s->saved.at.offset == 0 && s->saved.has_base &&
        lj_wal_salt_eq(s->saved.base_salt, life->salt) && life->frames < s->saved.base_frames)
        return LJ_OK;
    /* the position may be one index ahead: of a life whose first transaction was withdrawn */
    if (!chain->has_life || chain->unused || !life->known || s->saved.at.index > chain->index ||
        to <= s->saved.at.offset)
        return LJ_OK;
    lj_code code = lj_walfile_refresh(&s->wal, db->wal_path, err);
    if (code == LJ_NOTFOUND)
        code = lj_error_set(err, LJ_CORRUPT, "the WAL is gone");
    if (code == LJ_OK && !lj_wal_salt_eq(s->wal.header.salt, chain->salt))
        code = lj_error_set(err, LJ_CORRUPT, "the WAL was restarted");
    pthread_mutex_lock(&db->mutex);
    int64_t commit_ns = lj_ring_time_of(&db->ring, life->number, life->frames);
    pthread_mutex_unlock(&db->mutex);
    if (code == LJ_OK && db->options.fsync_before_ship)
        code = lj_io_fsync(s->wal.fd, err);
    if (code == LJ_OK)
        code = lj_upload_segment(s, s->wal.fd, &s->wal.header, to, commit_ns, err);
    if (code == LJ_OK)
        code = lj_ship_save(s, err);
    if (code != LJ_OK)
        return code;
    *ret_more = s->saved.at.offset < to;
    lj_db_shipped(db, &s->saved.at, life->number,
                  lj_wal_frames_below(s->saved.page_size, s->saved.at.offset));
    return LJ_OK;
}

/* One step of shipping. *ret_more: call again. */
static lj_code ship_step(lj_shipper *s, bool *ret_more, lj_error *err)
{
    lj_db *db = s->db;
    LJ_TRY(lj_takeback_work(s, err));
    pthread_mutex_lock(&db->mutex);
    lj_db_refresh_locked(db);
    lj_chain chain = db->chain;
    lj_life life = db->life;
    /* another process may have restarted the WAL since we looked: the chain knows it before we do */
    life.known = life.known && lj_chain_has_life(&chain, life.salt);
    life.number = db->session_life;
    uint64_t spooled = db->spool_bytes;
    lj_position known = db->pos;
    lj_wal_salt salt = life.salt;
    uint64_t pending = 0;
    lj_code code = lj_db_pending_view_locked(db, &chain, &life, &pending, err);
    pthread_mutex_unlock(&db->mutex);
    *ret_more = false;
    if (!chain.active)
        lj_db_pending_look_at_chain(db);
    if (!chain.active || code != LJ_OK)
        return code;
    lj_ship_tell(s, &chain, &life, &known);
    /* the sum may be too small: a file that a killed process left uncounted was taken off it. What is not in the WAL is looked for */
    if (spooled > 0 || chain.sealed || s->saved.at.index < chain.index) {
        LJ_TRY(drain_spool(s, &chain, &life, spooled, ret_more, err));
        if (*ret_more)
            return LJ_OK;
    }
    if (s->saved.at.index < chain.index) {
        LJ_TRY(next_index(s, &chain, err));
        *ret_more = true;
        return LJ_OK;
    }
    s->pending = pending;
    code = ship_live(s, &chain, &life, ret_more, err);
    s->pending = 0;
    lj_db_pending_ack(db, pending);
    if (pending != 0 && (code == LJ_CORRUPT || code == LJ_BUSY)) {
        /* of the transaction that waits, or of what was published before? the next step looks at that alone */
        if (code == LJ_CORRUPT)
            lj_db_pending_refuse(db, pending, err);
        *ret_more = true;
        return LJ_OK;
    }
    if (code == LJ_CORRUPT) {
        /* was the life ended under our hands (its frames are in the spool then), or is the WAL broken? */
        lj_db_look_around(db);
        pthread_mutex_lock(&db->mutex);
        bool moved = !lj_wal_salt_eq(db->life.salt, salt) || db->spool_bytes != spooled ||
                     db->chain.sealed != chain.sealed || !db->chain.active;
        pthread_mutex_unlock(&db->mutex);
        *ret_more = moved;
        return moved ? LJ_OK : code;
    }
    return code;
}

#define STEPS_MAX 100000u

lj_code lj_ship_all(lj_shipper *s, lj_error *err)
{
    bool more = true;
    for (unsigned steps = 0; more && steps < STEPS_MAX; steps++)
        LJ_TRY(ship_step(s, &more, err));
    return LJ_OK;
}

/* ------------------------------------------------------------------ the shipping task */

static lj_code work(lj_shipper *s, lj_error *err)
{
    take_over(s);
    LJ_TRY(lj_ship_save(s, err));
    if (s->begun.pending)
        establish(s);
    if (needs_generation(s)) {
        pthread_mutex_lock(&s->db->mutex);
        int64_t due_ns = lj_db_flush_wanted_locked(s->db) ? 0 : lj_snapshot_allowed_locked(s);
        pthread_mutex_unlock(&s->db->mutex);
        (void)lj_task_wake(&s->snapshot_task, due_ns); /* and next_tick() does, too */
        return LJ_OK;
    }
    if (!s->resumed) {
        LJ_TRY(lj_resume_open(s, err));
        s->resumed = true;
    }
    /*
     * An index can only end behind a segment, so what there is goes first. And not while that fails: an attempt may be in the replica
     * without our knowing it, at the very place of the end mark.
     */
    LJ_TRY(lj_ship_all(s, err));
    uint32_t index = s->saved.at.index;
    LJ_TRY(lj_rollover(s, err));
    /* else what was committed meanwhile would get a segment of its own in each tick */
    return s->saved.at.index == index ? LJ_OK : lj_ship_all(s, err);
}

static bool unshipped_locked(const lj_shipper *s)
{
    const lj_db *db = s->db;
    if (s->want_generation)
        return false; /* the snapshot task wakes us */
    if (db->broken || s->fresh.pending || s->snapshot_noted || db->spool_bytes > 0)
        return true;
    bool offered = db->pending.state == LJ_PENDING_OFFERED && db->pending.error.code == LJ_OK;
    if (offered || db->pending.sent_revoked)
        return true;
    if (!db->chain.active || !db->life.known || db->pos.index > db->chain.index)
        return false;
    if (db->pos.index < db->chain.index)
        return !db->chain.has_life || db->shipped_life < db->session_life;
    return !db->chain.unused && db->chain.has_life &&
           db->pos.offset < lj_wal_frame_offset(db->life.page_size, db->life.frames + 1);
}

/* Where no thread could be started for the snapshot task, somebody has to try again. */
#define NO_THREAD_TICK_NS LJ_NS_PER_S
/* Where no FIFO can be made, somebody has to look for what other processes commit. */
#define DEAF_TICK_NS (250 * LJ_NS_PER_MS)

/* The interval counts from the begin of a tick, so that no commit waits for it and for two uploads. */
static int64_t next_tick(lj_shipper *s, int64_t start_ns)
{
    lj_db *db = s->db;
    int64_t now_ns = lj_clock_mono_ns();
    lj_walfile_close(&s->wal); /* a database at rest needs no descriptor of ours */
    pthread_mutex_lock(&db->mutex);
    db->not_before_ns = start_ns + db->options.sync_interval_ns;
    db->urgent = false;
    pthread_mutex_unlock(&db->mutex);
    /* other processes ring for what they commit from here on; what they committed before is seen now */
    lj_db_sleeping(db, true);
    lj_db_look_around(db);
    pthread_mutex_lock(&db->mutex);
    bool more = unshipped_locked(s) || db->urgent;
    bool behind = s->want_generation; /* nothing to ship, because the snapshot is missing */
    db->want_wake = !more && !s->want_generation;
    bool hurry = lj_db_flush_wanted_locked(db) || db->urgent;
    int64_t due_ns = more ? (hurry ? now_ns : db->not_before_ns) : LJ_TASK_IDLE;
    if (!more && db->deaf)
        due_ns = now_ns + DEAF_TICK_NS;
    if (s->dbfile.tick != NULL)
        due_ns = lj_task_earlier(due_ns, db->not_before_ns);
    int64_t snapshot_ns = lj_snapshot_due_locked(s);
    pthread_mutex_unlock(&db->mutex);
    if (more)
        lj_db_sleeping(db, false);
    if (snapshot_ns != LJ_TASK_IDLE && !lj_task_wake(&s->snapshot_task, snapshot_ns))
        due_ns = lj_task_earlier(due_ns, now_ns + NO_THREAD_TICK_NS);
    if (more)
        return due_ns;
    if (!behind)
        lj_db_caught_up(db);
    if (s->sync_ns != 0 && lj_clock_mono_ns() >= s->sync_ns)
        lj_ship_sync_position(s);
    due_ns = lj_task_earlier(due_ns, lj_takeback_due(s));
    return lj_task_earlier(due_ns, s->sync_ns != 0 ? s->sync_ns : LJ_TASK_IDLE);
}

/* The snapshot task waits for half a minute, and comes again: for it alone a failing store is not asked more often. */
static bool somebody_waits_locked(const lj_shipper *s)
{
    const lj_db *db = s->db;
    bool nobody = s->snapshot_waits && !lj_db_snapshot_asked_locked(db);
    return db->flush_waiters > (nobody ? 1u : 0u) || lj_clock_mono_ns() < db->call_until_ns;
}

int64_t lj_ship_retry_at_locked(lj_shipper *s, unsigned failures, const lj_error *err)
{
    int64_t now_ns = lj_clock_mono_ns();
    int64_t delay_ns = lj_backoff_ns(failures, err);
    if (err->retry_after_ns > 0)
        s->store_not_before_ns = LJ_MAX(s->store_not_before_ns, now_ns + delay_ns);
    else if (somebody_waits_locked(s))
        delay_ns = LJ_MIN(delay_ns, WAITED_FOR_NS);
    return LJ_MAX(now_ns + delay_ns, s->store_not_before_ns);
}

static int64_t after_failure(lj_shipper *s, const lj_error *err)
{
    s->failures++;
    if (s->failures == 1)
        lj_log_error(LJ_LOG_WARN, s->db->path, err);
    pthread_mutex_lock(&s->db->mutex);
    int64_t again_ns = lj_ship_retry_at_locked(s, s->failures, err);
    s->db->want_wake = false;
    pthread_mutex_unlock(&s->db->mutex);
    return again_ns;
}

static int64_t ship_run(lj_task *task)
{
    lj_shipper *s = task->owner;
    lj_db *db = s->db;
    pthread_mutex_lock(&db->mutex);
    bool follows = lj_db_follows_locked(db);
    pthread_mutex_unlock(&db->mutex);
    if (follows) {
        int64_t due_ns = lj_db_standby(db);
        if (due_ns != LJ_DB_LEADS)
            return due_ns == LJ_DB_ASLEEP ? LJ_TASK_IDLE : due_ns;
    }
    pthread_mutex_lock(&db->mutex);
    lj_db_refresh_locked(db); /* a transaction that was offered before: this run is for it, too */
    db->runs++;
    bool may = db->attached && !db->not_wal && db->state != LJ_DB_STOPPED;
    bool early = !lj_db_flush_wanted_locked(db) && !db->urgent && s->loaded && db->established &&
                 lj_clock_mono_ns() < db->not_before_ns && !s->fresh.pending && s->failures == 0;
    int64_t not_before_ns = db->not_before_ns;
    int64_t store_ns = s->store_not_before_ns;
    bool asked = lj_db_snapshot_asked_locked(db);
    pthread_mutex_unlock(&db->mutex);
    if (!may || !lj_db_in_place(db))
        return LJ_TASK_IDLE;
    if (asked)
        (void)lj_task_wake(&s->snapshot_task, 0);
    if (s->dbfile.tick != NULL)
        s->dbfile.tick(s->dbfile.ctx);
    if (lj_clock_mono_ns() < store_ns)
        return store_ns;
    if (early)
        return not_before_ns;
    lj_error err = LJ_ERROR_INIT;
    int64_t start_ns = lj_clock_mono_ns();
    lj_db_sleeping(db, false); /* what is committed until the end of this tick is seen then */
    lj_db_look_around(db);
    /* a COMMIT that waited in vain ends what hangs (pending.c), so that the next one finds a new connection */
    const bool *given_up = lj_db_pending_cancel(db);
    const bool *outer = lj_cancel_swap(given_up);
    lj_code code = work(s, &err);
    lj_cancel_swap(outer);
    if (code == LJ_CANCELLED && lj_flag_is_set(given_up)) {
        code = lj_error_set(&err, LJ_TIMEOUT,
                            "a request was given up: the COMMIT that waited for it failed");
        (void)lj_error_retryable(&err, true);
    }
    if (code == LJ_CONFLICT || code == LJ_CORRUPT) {
        lj_db_break(db, "%s", err.message);
        return lj_clock_mono_ns();
    }
    bool waiting = needs_generation(s);
    if (!waiting || code != LJ_OK)
        lj_db_attempt(db, code == LJ_OK ? NULL : &err);
    if (code != LJ_OK)
        return after_failure(s, &err);
    if (s->failures > 1)
        lj_log(LJ_LOG_INFO, "%s: shipping works again after %u failures", db->path, s->failures);
    s->failures = 0;
    return next_tick(s, start_ns);
}

/* ------------------------------------------------------------------ life cycle */

lj_code lj_shipper_new(lj_db *db, lj_storage *storage, lj_image_guard *guard,
                       const lj_dbfile *dbfile, lj_shipper **ret_shipper, lj_error *err)
{
    lj_shipper *s = calloc(1, sizeof(*s));
    if (s == NULL)
        return lj_error_nomem(err);
    s->db = db;
    s->storage = storage;
    s->guard = guard;
    s->dbfile = *dbfile;
    s->wal = (lj_walfile)LJ_WALFILE_INIT;
    s->snapshot_timer_ns = lj_clock_mono_ns();
    lj_task_init(&s->ship_task, ship_run, s, false);
    lj_task_init(&s->snapshot_task, lj_snapshot_run, s, true);
    lj_task_init(&s->ahead_task, lj_ahead_task_run, s, false);
    db->shipper = s;
    db->ahead.wake = lj_ahead_task_wake;
    *ret_shipper = s;
    return LJ_OK;
}

void lj_shipper_cancel_snapshot(lj_shipper *shipper)
{
    atomic_store(&shipper->cancel_snapshot, true);
}

void lj_shipper_free(lj_shipper *shipper)
{
    if (shipper == NULL)
        return;
    lj_shipper_cancel_snapshot(shipper);
    lj_task_stop(&shipper->snapshot_task);
    lj_task_stop(&shipper->ship_task);
    lj_task_stop(&shipper->ahead_task);
    lj_ahead_drop(shipper->db);
    lj_ship_sync_position(shipper);
    lj_db_quiet(shipper->db);
    lj_walfile_close(&shipper->wal);
    lj_storage_close(shipper->storage);
    shipper->db->shipper = NULL;
    free(shipper);
}

void lj_shipper_wake(lj_db *db, int64_t due_ns)
{
    lj_shipper *s = db->shipper;
    if (s == NULL || lj_task_wake(&s->ship_task, due_ns))
        return;
    /* nobody is there to run it, and none could be started: the next commit tries again */
    pthread_mutex_lock(&db->mutex);
    db->want_wake = true;
    pthread_mutex_unlock(&db->mutex);
}
