/*
 * join.c - how a process takes its place among those that have the database open: alone, beside an uploader, or after one.
 *
 * Alone (byte 1 of the lock file, exclusively): it decides from the files how to go on (attach.h), is the uploader, and then lets
 * others in. Not alone: the page is right, because somebody has followed the database without a gap, and it joins. Whoever
 * joined and finds the uploader's lock free takes over: the page says what is shipped at least, the position file what is
 * shipped, and both belong to the same unbroken chain. Nothing has to be concluded from looks at files that others are writing.
 *
 * Layer: capture. Thread-safety: the ready mutex for the first part; the rest runs in the ship task.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "vfs/base/clock.h"
#include "vfs/base/io.h"
#include "vfs/base/log.h"
#include "vfs/base/str.h"
#include "vfs/capture/attach.h"
#include "vfs/capture/image.h"
#include "vfs/capture/seat.h"
#include "vfs/capture/session.h"
#include "vfs/capture/spool.h"

#define ENTER_WAIT_NS                                                                              \
    (10 * LJ_NS_PER_S) /* another process decides how to go on: local files only */
#define REACH_FIRST_NS (10 * LJ_NS_PER_MS)
#define REACH_LAST_NS  (250 * LJ_NS_PER_MS)

#define READY_PAUSE_NS     (100 * LJ_NS_PER_MS)
#define READY_PAUSE_MAX_NS (5 * LJ_NS_PER_S)

/* ------------------------------------------------------------------ the first look */

static lj_code open_state(lj_db *db, int *ret_fd, lj_shared **ret_shared, lj_error *err)
{
    LJ_TRY(lj_io_mkdirs(db->state_dir, 0700, err));
    LJ_CLEANUP(lj_freep) char *lock_path = lj_str_printf("%s/lock", db->state_dir);
    LJ_CLEANUP(lj_freep) char *shared_path = lj_str_printf("%s/shared", db->state_dir);
    if (lock_path == NULL || shared_path == NULL)
        return lj_error_nomem(err);
    int fd = -1;
    LJ_TRY(lj_seat_open(lock_path, &fd, err));
    lj_code code = lj_shared_open(shared_path, ret_shared, err);
    if (code != LJ_OK) {
        lj_seat_leave(fd);
        return code;
    }
    *ret_fd = fd;
    return LJ_OK;
}

typedef enum {
    PLACE_ALONE,
    PLACE_JOINED,
    PLACE_NONE,      /* within the time */
    PLACE_FOREIGN,   /* the page is of another build */
    PLACE_OF_OTHERS, /* the session is of another file that had this name */
} place;

/*
 * Which place there is for us. One that is alone is still deciding, or was killed at it: then somebody else has to. With `wait`
 * false: only what is to be had at once.
 */
static place find_place(const lj_db *db, int fd, const lj_shared *shared, bool wait)
{
    lj_session s;
    int64_t deadline_ns = lj_clock_mono_ns() + (wait ? ENTER_WAIT_NS : 0);
    for (;;) {
        if (lj_seat_alone(fd))
            return PLACE_ALONE;
        if (lj_seat_join(fd)) {
            bool live = lj_shared_load(shared, &s) && s.live;
            if (live && (s.inode == db->inode || db->inode == 0))
                return PLACE_JOINED;
            lj_seat_part(fd);
            if (live)
                return PLACE_OF_OTHERS;
            if (lj_shared_foreign(shared))
                return PLACE_FOREIGN;
        }
        if (lj_clock_mono_ns() >= deadline_ns)
            return PLACE_NONE;
        lj_clock_sleep_ns(LJ_NS_PER_MS);
    }
}

static void listen_for_others(lj_db *db)
{
    lj_error err = LJ_ERROR_INIT;
    lj_bell *bell = NULL;
    lj_code code = lj_bell_listen(db->bell_path, lj_db_rung, db, &bell, &err);
    pthread_mutex_lock(&db->mutex);
    db->bell = bell;
    db->deaf = code != LJ_OK;
    pthread_mutex_unlock(&db->mutex);
    if (code != LJ_OK) {
        lj_error_hint(&err, "commits of other processes are looked for four times a second");
        lj_log_error(LJ_LOG_WARN, db->path, &err);
    }
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

/* Says why there is no place now, once; it is tried again. */
static void no_place(lj_db *db, lj_db_state state, const lj_error *err)
{
    pthread_mutex_lock(&db->mutex);
    db->state = db->moved ? LJ_DB_STOPPED : state;
    snprintf(db->reason, sizeof(db->reason), "%.180s", err->message);
    db->ship_error = *err;
    bool first = db->ready_failures == 0;
    try_later_locked(db);
    pthread_cond_broadcast(&db->cond);
    pthread_mutex_unlock(&db->mutex);
    if (first)
        lj_log_error(LJ_LOG_ERROR, db->path, err);
}

void lj_db_refuse(lj_db *db, const char *reason, const lj_error *why)
{
    pthread_mutex_lock(&db->mutex);
    db->state = LJ_DB_STOPPED;
    snprintf(db->reason, sizeof(db->reason), "%s", reason);
    db->ship_error = *why;
    pthread_mutex_unlock(&db->mutex);
    atomic_store(&db->ready, true);
}

void lj_db_admit(lj_db *db)
{
    pthread_mutex_lock(&db->ready_mutex);
    pthread_mutex_lock(&db->mutex);
    bool moved = db->moved; /* for good */
    if (!moved) {
        db->state = LJ_DB_IDLE;
        db->reason[0] = 0;
        lj_error_clear(&db->ship_error);
        atomic_store(&db->ready, false);
    }
    pthread_mutex_unlock(&db->mutex);
    pthread_mutex_unlock(&db->ready_mutex);
    if (!moved)
        lj_log(LJ_LOG_INFO, "%s: replicating from here on: its replica has become free", db->path);
}

static void set_state(lj_db *db, lj_db_state state)
{
    pthread_mutex_lock(&db->mutex);
    db->state = db->moved ? LJ_DB_STOPPED : state;
    lj_error_clear(&db->ship_error);
    db->reason[0] = 0;
    pthread_cond_broadcast(&db->cond);
    pthread_mutex_unlock(&db->mutex);
}

/* What the processes before us said. Before the first look: who waits in vain for our decision says so from here on (explain). */
static void forget_words(lj_shared *shared)
{
    for (int word = 0; word < LJ_WORD_COUNT; word++)
        lj_shared_set(shared, (lj_shared_word)word, 0);
}

/* The page tells nobody any more that a session is live, until we say so. */
static void page_undecided(lj_shared *shared)
{
    lj_session s;
    if (!lj_shared_load(shared, &s))
        return;
    s.live = false;
    lj_shared_store(shared, &s);
}

static void begin_alone(lj_db *db)
{
    lj_saved_position saved;
    page_undecided(db->shared);
    set_state(db, LJ_DB_STARTING);
    lj_spool_sweep(db->spool_dir);
    lj_spool_drop_links(db->spool_dir, db->wal_path);
    lj_attach(db, &saved);
    pthread_mutex_lock(&db->mutex);
    db->uploader = (uint32_t)getpid();
    pthread_mutex_unlock(&db->mutex);
    if (!lj_seat_lead(db->lock_fd)) {
        /* locked by something that does not take part: nobody can say what it did */
        pthread_mutex_lock(&db->mutex);
        db->uploader = 0;
        db->state = LJ_DB_STANDBY;
        db->chain.active = false;
        db->broken = true;
        snprintf(db->broken_reason, sizeof(db->broken_reason), "somebody else held its lock");
        pthread_mutex_unlock(&db->mutex);
    } else {
        listen_for_others(db); /* before anybody can be there to ring */
    }
    pthread_mutex_lock(&db->mutex);
    db->saved = saved;
    db->attached = true;
    pthread_mutex_unlock(&db->mutex);
    lj_db_session_begin(db);
    (void)lj_seat_join(db->lock_fd);
}

static void join_others(lj_db *db)
{
    lj_error err = LJ_ERROR_INIT;
    lj_db_session_join(db);
    pthread_mutex_lock(&db->mutex);
    db->attached = true;
    bool other_url = db->other_url;
    err = db->ship_error;
    uint32_t uploader = db->uploader;
    pthread_cond_broadcast(&db->cond);
    pthread_mutex_unlock(&db->mutex);
    if (other_url)
        lj_log_error(LJ_LOG_ERROR, db->path, &err);
    else
        lj_log(LJ_LOG_INFO, "%s: standby, process %u replicates it", db->path, uploader);
}

/* Why there is no place. */
static void explain(lj_db *db, lj_shared *shared, place got)
{
    lj_error err = LJ_ERROR_INIT;
    if (got == PLACE_FOREIGN) {
        lj_error_set(&err, LJ_UNSUPPORTED, "another version of litejoin_vfs replicates it");
        lj_error_hint(&err, "use one version in all processes of a database");
    } else if (got == PLACE_OF_OTHERS) {
        lj_error_set(&err, LJ_BUSY, "another process still has open what had this name before");
    } else {
        /* it may be stopped. Nothing it decides can count now: we go on beside it */
        lj_shared_set(shared, LJ_WORD_STUCK, 1);
        lj_error_set(&err, LJ_BUSY, "another process has been opening it for long");
    }
    no_place(db, LJ_DB_STOPPED, &err);
}

/* The place was found: its descriptor and page are the database's from here on. */
static void sit_down(lj_db *db, int fd, lj_shared *shared)
{
    pthread_mutex_lock(&db->mutex);
    db->lock_fd = fd;
    db->shared = shared;
    atomic_store(&db->entering_fd, -1);
    pthread_mutex_unlock(&db->mutex);
}

/* false: not now. */
static bool take_place(lj_db *db, lj_db_first_look_fn look, void *ctx, bool only_alone)
{
    lj_error err = LJ_ERROR_INIT;
    int fd = -1;
    lj_shared *shared = NULL;
    if (open_state(db, &fd, &shared, &err) != LJ_OK) {
        no_place(db, LJ_DB_STOPPED, &err);
        return false;
    }
    atomic_store(&db->entering_fd, fd); /* before anything is locked through it */
    place got = find_place(db, fd, shared, !only_alone && db->ready_failures == 0);
    if (got == PLACE_ALONE)
        forget_words(shared);
    bool good = got == PLACE_ALONE ? look == NULL || look(ctx) : got == PLACE_JOINED && !only_alone;
    if (good) {
        sit_down(db, fd, shared);
    } else {
        if (got != PLACE_ALONE && got != PLACE_JOINED && !only_alone)
            explain(db, shared, got);
        atomic_store(&db->entering_fd, -1);
        lj_seat_leave(fd);
        lj_shared_close(shared);
        return false;
    }
    if (got == PLACE_ALONE) {
        begin_alone(db);
    } else {
        join_others(db);
        if (look != NULL)
            (void)look(ctx);
    }
    db->wake(db, 0);
    return true;
}

void lj_db_leave_seat(lj_db *db)
{
    /* not the bell, which others of our threads may use: it goes with lj_db_free */
    pthread_mutex_lock(&db->mutex);
    int fd = db->lock_fd;
    lj_shared *shared = db->shared;
    if (db->sharing && db->bell != NULL && !lj_db_follows_locked(db)) {
        lj_shared_set(db->shared, LJ_WORD_IMAGE, LJ_IMAGE_FREE);
        /* while the seat is still ours, or it would be the next one's: not everybody can copy a folder with a FIFO in it */
        unlink(db->bell_path);
    }
    db->sharing = false;
    db->lock_fd = -1;
    db->shared = NULL;
    pthread_mutex_unlock(&db->mutex);
    lj_seat_leave(fd);
    lj_shared_close(shared);
}

void lj_db_quiet(lj_db *db)
{
    lj_bell_hush(db->bell);
}

static void ready(lj_db *db, lj_db_first_look_fn look, void *ctx, bool only_alone)
{
    if (atomic_load_explicit(&db->ready, memory_order_acquire))
        return;
    int64_t not_before_ns = atomic_load(&db->ready_not_before_ns);
    if (not_before_ns != 0 && lj_clock_mono_ns() < not_before_ns)
        return;
    pthread_mutex_lock(&db->ready_mutex);
    if (!atomic_load_explicit(&db->ready, memory_order_relaxed) &&
        take_place(db, look, ctx, only_alone))
        atomic_store_explicit(&db->ready, true, memory_order_release);
    pthread_mutex_unlock(&db->ready_mutex);
}

void lj_db_ready(lj_db *db, lj_db_first_look_fn look, void *ctx)
{
    ready(db, look, ctx, false);
}

void lj_db_ready_alone(lj_db *db, lj_db_first_look_fn look, void *ctx)
{
    ready(db, look, ctx, true);
}

/* ------------------------------------------------------------------ taking over */

/* Frames of the current life that the position file vouches for. */
static uint64_t saved_frames(const lj_chain *chain, const lj_saved_position *saved)
{
    if (!chain->has_life || saved->at.index != chain->index)
        return 0;
    if (saved->at.offset > 0)
        return lj_wal_salt_eq(saved->salt, chain->salt)
                   ? lj_wal_frames_below(saved->page_size, saved->at.offset)
                   : 0;
    return saved->has_base && lj_wal_salt_eq(saved->base_salt, chain->salt) ? saved->base_frames
                                                                            : 0;
}

/* Killed at a rollover: the page is at the next index already, the file at the end of the one before it. Nothing is between the two. */
static bool at_rollover_locked(const lj_db *db, const lj_position *at)
{
    return db->pos.index == db->chain.index && db->pos.offset == 0 &&
           at->index + 1 == db->pos.index && at->offset != 0 && at->offset == db->chain.prev_end;
}

/* NULL, or why the generation cannot go on. */
static const char *cannot_follow_locked(const lj_db *db, lj_code loaded,
                                        const lj_saved_position *saved)
{
    if (!db->chain.active)
        return db->broken ? db->broken_reason : "the process that began it has ended";
    if (loaded != LJ_OK)
        return "the position file does not verify";
    if (strcmp(saved->at.generation, db->chain.generation) != 0)
        return "the process that began it has ended";
    if (strcmp(saved->at.generation, db->pos.generation) == 0 &&
        lj_position_compare(&saved->at, &db->pos) < 0 && !at_rollover_locked(db, &saved->at))
        return "the position file is older than what was shipped";
    return NULL;
}

static void follow_locked(lj_db *db, const lj_saved_position *saved)
{
    uint64_t frames = saved_frames(&db->chain, saved);
    db->pos = saved->at;
    db->chain.guarded = false; /* by the process that ended */
    if (frames > 0 && db->session_life >= db->safe_life) {
        db->safe_frames =
            db->session_life == db->safe_life ? LJ_MAX(db->safe_frames, frames) : frames;
        db->safe_life = db->session_life;
    }
    if (frames > 0 && db->session_life >= db->shipped_life) {
        db->shipped_frames =
            db->session_life == db->shipped_life ? LJ_MAX(db->shipped_frames, frames) : frames;
        db->shipped_life = db->session_life;
    }
    db->established = true;
}

/* The uploader's lock is ours. */
static void take_over(lj_db *db)
{
    lj_error err = LJ_ERROR_INIT;
    lj_saved_position saved = {.at = {.generation = ""}};
    lj_code loaded = lj_saved_position_load(db->position_path, &saved, &err);
    uint64_t spooled = loaded == LJ_OK ? lj_spool_bytes(db->spool_dir, saved.at.generation) : 0;
    char text[LJ_POSITION_TEXT_MAX];
    char reason[LJ_REASON_MAX] = "";
    lj_position_format(&saved.at, text);

    lj_db_enter(db);
    uint32_t before = db->uploader;
    const char *why = cannot_follow_locked(db, loaded, &saved);
    if (why == NULL) {
        follow_locked(db, &saved);
        /* killed between a file's name and the note of it; counted twice is put right when it is drained */
        if (db->spool_bytes == 0)
            db->spool_bytes = spooled;
    } else {
        snprintf(reason, sizeof(reason), "%s", why);
        db->chain.active = false;
        db->established = false;
        db->broken = true;
        snprintf(db->broken_reason, sizeof(db->broken_reason), "%s", reason);
    }
    bool ahead = lj_db_pending_inherit_locked(db);
    db->freezing = false;
    db->disturbed = false;
    db->uploader = (uint32_t)getpid();
    db->state = LJ_DB_STARTING;
    db->saved = saved;
    db->urgent = true;
    lj_db_leave(db);
    lj_db_image_held(db, 0);
    listen_for_others(db);
    lj_db_look_around(db);
    if (ahead)
        lj_db_break(db, "%s", LJ_PENDING_ORPHANED);
    if (why == NULL)
        lj_log(LJ_LOG_INFO, "%s: taking over from process %u at %s", db->path, before, text);
    else
        lj_log(LJ_LOG_WARN, "%s: taking over from process %u, and a new generation begins: %s",
               db->path, before, reason);
}

/* ------------------------------------------------------------------ standing by */

static void bell_rings(void *ctx, bool gone)
{
    lj_db *db = ctx;
    if (!gone)
        return;
    pthread_mutex_lock(&db->mutex);
    db->bell_gone = true;
    pthread_mutex_unlock(&db->mutex);
    db->wake(db, 0);
}

static void drop_bell(lj_db *db)
{
    pthread_mutex_lock(&db->mutex);
    lj_bell *bell = db->bell;
    db->bell = NULL;
    db->bell_gone = false;
    pthread_mutex_unlock(&db->mutex);
    lj_bell_close(bell);
}

static bool reach(lj_db *db)
{
    lj_error err = LJ_ERROR_INIT;
    lj_bell *bell = NULL;
    if (lj_bell_reach(db->bell_path, bell_rings, db, &bell, &err) != LJ_OK)
        return false;
    pthread_mutex_lock(&db->mutex);
    db->bell = bell;
    db->reach_again_ns = 0;
    pthread_mutex_unlock(&db->mutex);
    return true;
}

/* Nobody leads and nobody listens yet: somebody is just about to. */
static int64_t try_again(lj_db *db)
{
    pthread_mutex_lock(&db->mutex);
    db->reach_again_ns = db->reach_again_ns == 0
                             ? REACH_FIRST_NS
                             : LJ_MIN(db->reach_again_ns * 2, (int64_t)REACH_LAST_NS);
    int64_t due_ns = lj_clock_mono_ns() + db->reach_again_ns;
    pthread_mutex_unlock(&db->mutex);
    return due_ns;
}

int64_t lj_db_standby(lj_db *db)
{
    pthread_mutex_lock(&db->mutex);
    const lj_bell *bell = db->bell;
    bool gone = db->bell_gone;
    bool may_lead = !db->other_url && !db->closing;
    pthread_mutex_unlock(&db->mutex);
    if (bell != NULL && !gone && lj_bell_ring(bell))
        return LJ_DB_ASLEEP;
    drop_bell(db);
    if (may_lead && lj_seat_lead(db->lock_fd)) {
        take_over(db);
        return LJ_DB_LEADS;
    }
    if (!reach(db))
        return try_again(db);
    (void)lj_bell_ring(db->bell);
    return LJ_DB_ASLEEP;
}
