/*
 * view.c - what threads of ours may look at and do while the application's connections come and go.
 *
 * The wal-index is mapped by the handles of the application. A thread of ours reads it through any of them, under view_mutex, which
 * a handle takes before it unmaps. Where no handle has it mapped (it was opened, but never read), one is opened for the look; and where
 * nobody in any process has it any more, the WAL is read from its bytes.
 *
 * Layer: shim. Thread-safety: every function.
 */
#include "vfs/base/clock.h"
#include "vfs/capture/seat.h"
#include "vfs/shim/handle.h"
#include "vfs/shim/walindex.h"

void lj_view_add(lj_file *file, const volatile void *index)
{
    lj_open *open = file->open;
    if (!lj_open_alive(open) || file->is_wal) {
        file->index = index;
        return;
    }
    pthread_mutex_lock(&open->view_mutex);
    if (file->index == NULL) {
        file->next_view = open->views;
        open->views = file;
    }
    file->index = index;
    pthread_mutex_unlock(&open->view_mutex);
}

void lj_view_remove(lj_file *file)
{
    lj_open *open = file->open;
    if (!lj_open_alive(open)) {
        file->index = NULL;
        return;
    }
    pthread_mutex_lock(&open->view_mutex);
    for (lj_file **at = &open->views; *at != NULL; at = &(*at)->next_view) {
        if (*at == file) {
            *at = file->next_view;
            break;
        }
    }
    file->index = NULL;
    pthread_mutex_unlock(&open->view_mutex);
}

void lj_view_locked(lj_file *file, int level)
{
    lj_open *open = file->open;
    int before = file->lock_level;
    file->lock_level = level;
    if (!lj_open_alive(open))
        return;
    if (level > SQLITE_LOCK_NONE && before == SQLITE_LOCK_NONE)
        atomic_fetch_add(&open->sharers, 1);
    if (level == SQLITE_LOCK_NONE && before > SQLITE_LOCK_NONE)
        atomic_fetch_sub(&open->sharers, 1);
    if (level == SQLITE_LOCK_EXCLUSIVE && before < SQLITE_LOCK_EXCLUSIVE)
        atomic_fetch_add(&open->exclusives, 1);
    if (level < SQLITE_LOCK_EXCLUSIVE && before == SQLITE_LOCK_EXCLUSIVE)
        atomic_fetch_sub(&open->exclusives, 1);
}

int lj_view_map(lj_open *open, sqlite3_file *lower, int region, int size, int extend,
                void volatile **ret_map)
{
    pthread_mutex_lock(&open->view_mutex);
    int rc = lower->pMethods->xShmMap(lower, region, size, extend, ret_map);
    pthread_mutex_unlock(&open->view_mutex);
    return rc;
}

bool lj_view_unlocking(lj_file *file)
{
    if (!lj_open_alive(file->open) || file->lock_level == SQLITE_LOCK_NONE)
        return false;
    if (file->lock_level == SQLITE_LOCK_EXCLUSIVE)
        atomic_fetch_sub(&file->open->exclusives, 1);
    file->lock_level = SQLITE_LOCK_NONE;
    return atomic_fetch_sub(&file->open->sharers, 1) == 1;
}

/* ------------------------------------------------------------------ looking */

/* The clocks of files count in steps: of what was written so short a time ago the next write may not show. */
#define SETTLED_NS LJ_NS_PER_S

void lj_view_note(const lj_open *open, lj_view_noted *ret_wal)
{
    ret_wal->there = lj_identity_of(open->db->wal_path, &ret_wal->identity);
}

void lj_view_looked(lj_open *open, const lj_view_noted *wal)
{
    if (!wal->there || lj_clock_wall_ns() - wal->identity.mtime_ns < SETTLED_NS)
        return;
    pthread_mutex_lock(&open->db->mutex);
    open->scanned_wal = wal->identity;
    pthread_mutex_unlock(&open->db->mutex);
}

typedef struct {
    lj_open *open;
    uint64_t commits; /* of this process before it was read */
    lj_wal_end end;
} found;

/* What was found in the bytes is committed: nobody was writing. A transaction that waits for the replica looks the same there. */
static bool still_true(void *ctx, lj_wal_end *ret_end)
{
    const found *f = ctx;
    const lj_db *db = f->open->db;
    bool shorter = db->life.known && lj_wal_salt_eq(db->life.salt, f->end.salt) &&
                   f->end.frames < db->life.frames;
    if (f->end.frames == 0 || shorter || db->commits != f->commits ||
        db->pending.state != LJ_PENDING_NONE || db->not_wal || !db->sharing ||
        lj_seat_company(db->lock_fd) || __atomic_load_n(&f->open->indexes, __ATOMIC_ACQUIRE) > 0 ||
        atomic_load(&f->open->exclusives) > 0)
        return false;
    *ret_end = f->end;
    return true;
}

/* Written since it was read from its bytes. */
static bool has_news(lj_open *open, const lj_view_noted *wal)
{
    pthread_mutex_lock(&open->db->mutex);
    bool news = wal->there && !lj_identity_eq(&wal->identity, &open->scanned_wal);
    pthread_mutex_unlock(&open->db->mutex);
    return news && atomic_load(&open->db->ready);
}

/* Nobody has the wal-index, so it is gone. What those committed who had it last, and were killed, is in the WAL alone. */
static void look_at_bytes(lj_open *open, const lj_view_noted *wal)
{
    found f = {.open = open};
    lj_error err = LJ_ERROR_INIT;
    pthread_mutex_lock(&open->db->mutex);
    f.commits = open->db->commits;
    pthread_mutex_unlock(&open->db->mutex);
    if (lj_walfile_end(open->db->wal_path, &f.end, &err) != LJ_OK)
        return;
    (void)lj_db_publish_seen(open->db, still_true, &f, NULL);
    lj_view_looked(open, wal);
}

static void look(void *ctx)
{
    lj_open *open = ctx;
    lj_view_noted wal;
    bool news = false;
    pthread_mutex_lock(&open->view_mutex);
    if (open->views != NULL) {
        lj_walindex_view view = {.open = open, .region = open->views->index};
        (void)lj_db_publish_seen(open->db, lj_walindex_look, &view, NULL);
    } else if (lj_db_company(open->db)) {
        (void)lj_freeze_look(open);
    } else if (atomic_load(&open->exclusives) == 0) {
        /* who was killed since the last look does not take part any more, and programs without this VFS never do */
        lj_view_note(open, &wal);
        news = has_news(open, &wal) && !lj_freeze_look(open);
    }
    pthread_mutex_unlock(&open->view_mutex);
    if (news)
        look_at_bytes(open, &wal);
}

/* A lock of the whole file cannot work while a connection of ours has one, whatever the snapshot does. */
static void yield(void *ctx, bool exclusive)
{
    lj_open *open = ctx;
    if (!exclusive || atomic_load(&open->sharers) == 0)
        lj_image_yield(&open->guard);
}

static void holds(void *ctx, lj_image_hold hold)
{
    lj_db_image_held(((lj_open *)ctx)->db, hold);
}

void lj_view_connect(lj_open *open)
{
    open->db->shim = (lj_db_shim){.ctx = open, .look = look, .yield = yield};
    open->guard.holds = holds;
    open->guard.ctx = open;
}
