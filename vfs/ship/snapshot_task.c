/*
 * snapshot_task.c - the snapshot task of a database: when a snapshot is due, what follows a good or a failed one, and when retention
 * has its turn. How a snapshot is made is in snapshot.c.
 *
 * Layer: ship. Thread-safety: see internal.h.
 */
#include "vfs/base/clock.h"
#include "vfs/base/log.h"
#include "vfs/base/table.h"
#include "vfs/capture/session.h"
#include "vfs/ship/internal.h"

/* so many failures of retention in a row are tried again soon, later ones now and then */
#define RETENTION_EAGER      8u
#define RETENTION_PATIENT_NS (600 * LJ_NS_PER_S)
/* where only snapshots help, they take at most a tenth of the time */
#define REST_LEAST_NS LJ_NS_PER_S
#define REST_MOST_NS  (3600 * LJ_NS_PER_S)
#define REST_FACTOR   9
/* the part of the interval over which the snapshots of many databases are spread */
#define JITTER_PART 8

static int64_t mono_of_wall(int64_t wall_ns)
{
    return lj_clock_mono_ns() + LJ_MAX(wall_ns - lj_clock_wall_ns(), INT64_C(0));
}

/* Commits that the newest snapshot does not contain. */
static bool changed_since_snapshot_locked(const lj_shipper *s)
{
    const lj_db *db = s->db;
    const lj_chain *chain = &db->chain;
    const lj_position *snapshot = lj_newest_snapshot_locked(s);
    if (!chain->active || !chain->has_life || chain->unused || !db->life.known)
        return false;
    return chain->index > snapshot->index ||
           lj_wal_frame_offset(db->life.page_size, db->life.frames + 1) > snapshot->offset;
}

/*
 * Databases that were opened together would take their snapshots together for ever. So each has an interval of its own, from
 * seven eighths of what was asked for to all of it, by a hash of its path.
 */
static int64_t interval_ns(const lj_db *db)
{
    uint64_t spread = (uint64_t)db->options.snapshot_interval_ns / JITTER_PART;
    return db->options.snapshot_interval_ns - (int64_t)(lj_hash_text(db->path) % (spread + 1));
}

int64_t lj_snapshot_allowed_locked(const lj_shipper *s)
{
    bool rests = s->rest_life != 0 && s->rest_life == s->db->life.number;
    return rests ? LJ_MAX(s->snapshot_not_before_ns, s->rest_until_ns) : s->snapshot_not_before_ns;
}

/* When the snapshot task has to run: now for a request, later for the interval, never when nothing changed. */
int64_t lj_snapshot_due_locked(const lj_shipper *s)
{
    const lj_db *db = s->db;
    if (s->want_generation || lj_db_snapshot_asked_locked(db))
        return lj_snapshot_allowed_locked(s);
    if (!db->established || db->options.snapshot_interval_ns <= 0 ||
        !changed_since_snapshot_locked(s))
        return LJ_TASK_IDLE;
    int64_t interval = interval_ns(db);
    int64_t last_ns = s->snapshot_noted ? s->noted_ns : db->saved.snapshot_ns;
    /* by the other clock at the latest: this one may have been set back since */
    int64_t due_ns = LJ_MIN(mono_of_wall(last_ns + interval), s->snapshot_timer_ns + interval);
    return LJ_MAX(s->snapshot_not_before_ns, due_ns);
}

/* A request is over; `failed` tells the waiters which way. */
static void settle_requests(lj_shipper *s, uint64_t upto, bool failed)
{
    lj_db *db = s->db;
    lj_db_enter(db);
    if (failed)
        db->snapshot_failed = LJ_MAX(db->snapshot_failed, upto);
    else
        db->snapshot_done = LJ_MAX(db->snapshot_done, upto);
    pthread_cond_broadcast(&db->cond);
    lj_db_leave(db);
}

static lj_code snapshot_now(lj_shipper *s, bool first, lj_error *err)
{
    if (first)
        return lj_snapshot_first(s, err);
    pthread_mutex_lock(&s->db->mutex);
    bool changed = changed_since_snapshot_locked(s);
    pthread_mutex_unlock(&s->db->mutex);
    if (!changed)
        return LJ_OK;
    LJ_TRY(lj_snapshot_periodic(s, err));
    s->retention_due = s->db->options.retention_ns > 0;
    s->retention_not_before_ns = 0;
    return LJ_OK;
}

static void snapshot_succeeded(lj_shipper *s, uint64_t requests, int64_t start_ns)
{
    lj_db *db = s->db;
    lj_db_snapshot_attempt(db, NULL);
    s->snapshot_failures = 0;
    pthread_mutex_lock(&db->mutex);
    s->snapshot_not_before_ns = 0;
    s->rest_life = s->unshippable ? db->life.number : 0;
    int64_t now_ns = lj_clock_mono_ns();
    s->snapshot_timer_ns = now_ns;
    int64_t rest_ns = LJ_MAX((now_ns - start_ns) * REST_FACTOR, REST_LEAST_NS);
    s->rest_until_ns = now_ns + LJ_MIN(rest_ns, REST_MOST_NS);
    pthread_mutex_unlock(&db->mutex);
    settle_requests(s, requests, false);
    lj_shipper_wake(db, 0);
}

/* Who took an image's locks away gets some time to work with them. */
static int64_t pause_after_busy(const lj_shipper *s)
{
    return 20 * LJ_NS_PER_MS << LJ_MIN(s->lost_images * 2, 6u);
}

static int64_t snapshot_failed(lj_shipper *s, uint64_t requests, const lj_error *err)
{
    lj_db *db = s->db;
    s->snapshot_failures++;
    bool quiet = err->code == LJ_BUSY && s->snapshot_failures < 20;
    pthread_mutex_lock(&db->mutex);
    int64_t again_ns = quiet ? lj_clock_mono_ns() + pause_after_busy(s)
                             : lj_ship_retry_at_locked(s, s->snapshot_failures, err);
    s->snapshot_not_before_ns = again_ns;
    pthread_mutex_unlock(&db->mutex);
    if (!quiet) {
        lj_db_snapshot_attempt(db, err);
        if (s->snapshot_failures == 1 || err->code == LJ_BUSY)
            lj_log_error(LJ_LOG_WARN, db->path, err);
        settle_requests(s, requests, true);
    }
    return again_ns;
}

/* Deletes what is superfluous since the last snapshot, if it is time; when to try again, or LJ_TASK_IDLE. */
static int64_t tidy(lj_shipper *s)
{
    lj_db *db = s->db;
    if (!s->retention_due)
        return LJ_TASK_IDLE;
    if (lj_clock_mono_ns() < s->retention_not_before_ns)
        return s->retention_not_before_ns;
    lj_error err = LJ_ERROR_INIT;
    lj_code code = lj_retention_enforce(s, &err);
    if (code == LJ_CANCELLED)
        return LJ_TASK_IDLE;
    if (code == LJ_OK) {
        if (s->retention_failures > 0)
            lj_db_snapshot_attempt(db, NULL);
        s->retention_due = false;
        s->retention_failures = 0;
        s->retention_not_before_ns = 0;
        return LJ_TASK_IDLE;
    }
    lj_db_snapshot_attempt(db, &err);
    if (s->retention_failures++ == 0)
        lj_log_error(LJ_LOG_WARN, db->path, &err);
    pthread_mutex_lock(&db->mutex);
    s->retention_not_before_ns = lj_ship_retry_at_locked(s, s->retention_failures, &err);
    pthread_mutex_unlock(&db->mutex);
    /* nobody waits for it, and each attempt lists the replica */
    if (s->retention_failures > RETENTION_EAGER)
        s->retention_not_before_ns =
            LJ_MAX(s->retention_not_before_ns, lj_clock_mono_ns() + RETENTION_PATIENT_NS);
    return s->retention_not_before_ns;
}

int64_t lj_snapshot_run(lj_task *task)
{
    lj_shipper *s = task->owner;
    lj_db *db = s->db;
    pthread_mutex_lock(&db->mutex);
    lj_db_refresh_locked(db);
    bool first = s->want_generation;
    bool may = db->attached && !lj_db_follows_locked(db) && !db->not_wal && !db->closing &&
               !db->moved && (first || db->established);
    uint64_t requests = db->snapshot_requests;
    bool asked = lj_db_snapshot_asked_locked(db);
    int64_t due_ns = lj_snapshot_due_locked(s);
    int64_t store_ns = s->store_not_before_ns;
    pthread_mutex_unlock(&db->mutex);
    if (!may)
        return LJ_TASK_IDLE;
    if (lj_clock_mono_ns() < store_ns)
        return store_ns;
    /* woken while the last one was being taken: the interval counts from that one */
    if (!first && !asked && (due_ns == LJ_TASK_IDLE || due_ns > lj_clock_mono_ns()))
        return lj_task_earlier(due_ns, lj_task_earlier(tidy(s), lj_snapshot_drop_strays(s)));
    lj_error err = LJ_ERROR_INIT;
    int64_t start_ns = lj_clock_mono_ns();
    lj_code code = snapshot_now(s, first, &err);
    if (code == LJ_CANCELLED)
        return LJ_TASK_IDLE;
    if (code != LJ_OK)
        return snapshot_failed(s, requests, &err);
    snapshot_succeeded(s, requests, start_ns);
    int64_t strays_ns = lj_snapshot_drop_strays(s);
    return lj_task_earlier(tidy(s), strays_ns);
}
