/*
 * view.c - what threads of ours may look at and do while the application's connections come and go.
 *
 * The wal-index is mapped by the handles of the application. A thread of ours reads it through any of them, under view_mutex, which
 * a handle takes before it unmaps. Where no handle has it mapped (it was opened, but never read), one is opened for the look.
 *
 * Layer: shim. Thread-safety: every function.
 */
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

static void look(void *ctx)
{
    lj_open *open = ctx;
    pthread_mutex_lock(&open->view_mutex);
    bool seen = open->views != NULL;
    if (seen) {
        lj_walindex_view view = {.open = open, .region = open->views->index};
        (void)lj_db_publish_seen(open->db, lj_walindex_look, &view, NULL);
    } else {
        lj_freeze_look(open);
    }
    pthread_mutex_unlock(&open->view_mutex);
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
