/*
 * readguard.c - option `guard`: no other process restarts the WAL over frames that are not shipped.
 *
 * A process without this VFS knows no restart gate. But nobody can restart a WAL while any of the read locks 1 to 4 is held. So
 * one is, through a handle on the base VFS (never a descriptor of our own on the database or its -shm). Its mark is "not used":
 * checkpoints do not stop at it, and readers do not share it, so it holds nothing back but restarts.
 *
 *   our own writer or checkpoint restarts   the lock is given up for that moment, if the gate allows it: the caller holds the
 *                                           WAL write lock, so nobody else can come in between
 *   only others write                       they never could restart, and the WAL would grow for ever. So when it is large and
 *                                           everything is checkpointed, it is restarted here, with the locks and in the
 *                                           way of SQLite's own writers (walRestartHdr); what is not shipped is spooled
 *                                           first, as the gate does it for a writer of ours
 *   last close, journal mode, exclusive     whoever gets the EXCLUSIVE lock on the database file has made sure that nobody
 *                                           else is there: the handle is closed
 *
 * Since nothing of an idle process sees another one's commits, the shipping task looks for them once per sync_interval.
 *
 * Locks are only tried, never waited for. A connection of this process that finds WRITE or CKPT taken by us waits for the
 * microseconds that takes; another process can see SQLITE_BUSY then.
 *
 * Layer: shim. Thread-safety: lj_open.guard_mutex (rank 0) guards the handle and its lock.
 */
#include <stdlib.h>

#include "vfs/base/clock.h"
#include "vfs/base/io.h"
#include "vfs/base/log.h"
#include "vfs/shim/handle.h"
#include "vfs/shim/walindex.h"

/* What SQLite lets a WAL grow to by itself. */
#define RESTART_BYTES (UINT64_C(4) << 20)
#define TRIES         100
#define PAUSE_NS      (LJ_NS_PER_MS / 3)

static int try_lock(sqlite3_file *g, int ofst, int n, int kind)
{
    return g->pMethods->xShmLock(g, ofst, n, SQLITE_SHM_LOCK | kind);
}

static void unlock(sqlite3_file *g, int ofst, int n, int kind)
{
    (void)g->pMethods->xShmLock(g, ofst, n, SQLITE_SHM_UNLOCK | kind);
}

/* A free read lock, with the mark that means "not used". Highest first: the low ones are SQLite's favourites. */
static bool hold(lj_open *open)
{
    sqlite3_file *g = open->guard_file;
    for (int i = LJ_WALINDEX_READERS - 1; i > 0; i--) {
        if (try_lock(g, LJ_LOCK_READ0 + i, 1, SQLITE_SHM_EXCLUSIVE) != SQLITE_OK)
            continue;
        lj_walindex_set_mark(open->guard_index, i, LJ_WALINDEX_UNUSED);
        unlock(g, LJ_LOCK_READ0 + i, 1, SQLITE_SHM_EXCLUSIVE);
        if (try_lock(g, LJ_LOCK_READ0 + i, 1, SQLITE_SHM_SHARED) != SQLITE_OK)
            continue;
        /* a reader that took it over in between would hold checkpoints back for as long as we stay */
        if (lj_walindex_mark(open->guard_index, i) == LJ_WALINDEX_UNUSED) {
            open->guard_slot = i;
            return true;
        }
        unlock(g, LJ_LOCK_READ0 + i, 1, SQLITE_SHM_SHARED);
    }
    return false;
}

static void hold_again(lj_open *open)
{
    for (int i = 0; i < TRIES && open->guard_file != NULL && open->guard_slot == 0; i++)
        (void)hold(open);
}

static void let_go(lj_open *open)
{
    if (open->guard_slot > 0)
        unlock(open->guard_file, LJ_LOCK_READ0 + open->guard_slot, 1, SQLITE_SHM_SHARED);
    open->guard_slot = 0;
}

static void close_locked(lj_open *open)
{
    sqlite3_file *g = open->guard_file;
    if (g == NULL)
        return;
    lj_db_guarded(open->db, false);
    let_go(open);
    if (g->pMethods != NULL) {
        if (open->guard_index != NULL)
            g->pMethods->xShmUnmap(g, 0);
        g->pMethods->xClose(g);
    }
    free(g);
    open->guard_file = NULL;
    open->guard_index = NULL;
    atomic_store(&open->guard_held, false);
}

static bool open_locked(lj_open *open)
{
    int out = 0;
    sqlite3_file *g = calloc(1, (size_t)open->base->szOsFile);
    if (g == NULL)
        return false;
    open->guard_file = g;
    void volatile *region = NULL;
    if (open->base->xOpen(open->base, open->base_name + 4, g,
                          SQLITE_OPEN_MAIN_DB | SQLITE_OPEN_READWRITE, &out) == SQLITE_OK &&
        g->pMethods->iVersion >= 2 &&
        g->pMethods->xShmMap(g, 0, LJ_WALINDEX_REGION_BYTES, 0, &region) == SQLITE_OK &&
        region != NULL)
        open->guard_index = region;
    if (open->guard_index == NULL)
        close_locked(open);
    return open->guard_index != NULL;
}

/* Of several processes only the one that ships knows what may go. */
static bool ships(lj_db *db)
{
    pthread_mutex_lock(&db->mutex);
    bool yes = db->state != LJ_DB_STANDBY && db->state != LJ_DB_STOPPED;
    pthread_mutex_unlock(&db->mutex);
    return yes;
}

void lj_readguard_take(lj_open *open)
{
    if (!open->guarded || atomic_load(&open->guard_held) || !ships(open->db))
        return;
    pthread_mutex_lock(&open->guard_mutex);
    if (open->guard_file != NULL || open_locked(open)) {
        hold_again(open);
        atomic_store(&open->guard_held, open->guard_slot > 0);
    }
    pthread_mutex_unlock(&open->guard_mutex);
}

void lj_readguard_settle(lj_open *open)
{
    if (open->guarded && !ships(open->db))
        lj_readguard_close(open);
}

void lj_readguard_close(lj_open *open)
{
    if (!open->guarded)
        return;
    pthread_mutex_lock(&open->guard_mutex);
    close_locked(open);
    pthread_mutex_unlock(&open->guard_mutex);
}

void lj_readguard_step_aside(lj_open *open)
{
    if (!open->guarded)
        return;
    pthread_mutex_lock(&open->guard_mutex);
    let_go(open);
    pthread_mutex_unlock(&open->guard_mutex);
}

void lj_readguard_return(lj_open *open)
{
    if (!open->guarded)
        return;
    pthread_mutex_lock(&open->guard_mutex);
    hold_again(open);
    atomic_store(&open->guard_held, open->guard_slot > 0); /* else the next read tries again */
    pthread_mutex_unlock(&open->guard_mutex);
}

bool lj_readguard_wait(lj_open *open)
{
    if (!open->guarded)
        return false;
    pthread_mutex_lock(&open->guard_mutex);
    pthread_mutex_unlock(&open->guard_mutex);
    return true;
}

/* ------------------------------------------------------------------ restarting for those who cannot */

static bool looked_at(lj_open *open, lj_walindex *ret_index)
{
    lj_walindex_view view = {.open = open, .region = open->guard_index};
    return lj_db_publish_seen(open->db, lj_walindex_look, &view, NULL) &&
           lj_walindex_read(open->guard_index, ret_index);
}

/* Everything is in the database file; what is not in the replica goes to the spool, as when a writer of ours restarts. */
static bool may_restart(lj_open *open, const lj_walindex *index)
{
    return index->frames > 0 && lj_walindex_backfilled(open->guard_index) == index->frames &&
           lj_db_may_restart(open->db, index->salt, index->frames);
}

/* WRITE and CKPT are held: no commit and no checkpoint can come in between. */
static void restart_locked(lj_open *open)
{
    sqlite3_file *g = open->guard_file;
    lj_walindex index;
    if (!looked_at(open, &index) || !may_restart(open, &index))
        return;
    let_go(open);
    if (try_lock(g, LJ_LOCK_READ0 + 1, LJ_WALINDEX_READERS - 1, SQLITE_SHM_EXCLUSIVE) ==
        SQLITE_OK) {
        lj_wal_salt salt = {.salt1 = index.salt.salt1 + 1};
        lj_io_random(&salt.salt2, sizeof(salt.salt2));
        lj_event_wal_emptying(open, false);
        lj_db_wal_header(open->db, salt);
        lj_db_guarded(open->db, true); /* a writer without this VFS may choose salts of its own */
        lj_walindex_restart(open->guard_index, &index, salt);
        g->pMethods->xShmBarrier(g);
        unlock(g, LJ_LOCK_READ0 + 1, LJ_WALINDEX_READERS - 1, SQLITE_SHM_EXCLUSIVE);
        lj_log(LJ_LOG_DEBUG, "%s: the WAL of %u frames was restarted", open->db->path,
               index.frames);
    }
    hold_again(open);
}

static void restart(lj_open *open)
{
    sqlite3_file *g = open->guard_file;
    if (try_lock(g, LJ_LOCK_CKPT, 1, SQLITE_SHM_EXCLUSIVE) != SQLITE_OK)
        return;
    if (try_lock(g, LJ_LOCK_WRITE, 1, SQLITE_SHM_EXCLUSIVE) == SQLITE_OK) {
        restart_locked(open);
        unlock(g, LJ_LOCK_WRITE, 1, SQLITE_SHM_EXCLUSIVE);
    }
    unlock(g, LJ_LOCK_CKPT, 1, SQLITE_SHM_EXCLUSIVE);
}

/* false: there is nothing to restart (any more). */
static bool try_restart(lj_open *open)
{
    lj_walindex index;
    pthread_mutex_lock(&open->guard_mutex);
    bool large = open->guard_slot > 0 && looked_at(open, &index) &&
                 lj_wal_frame_offset(index.page_size, index.frames + 1) >= RESTART_BYTES;
    if (large && may_restart(open, &index))
        restart(open);
    atomic_store(&open->guard_held, open->guard_slot > 0);
    pthread_mutex_unlock(&open->guard_mutex);
    return large;
}

void lj_readguard_tick(void *ctx)
{
    /* somebody who commits without a pause leaves only moments in which all is checkpointed and nobody holds a lock */
    for (int i = 0; i < TRIES && try_restart(ctx); i++)
        lj_clock_sleep_ns(PAUSE_NS);
}
