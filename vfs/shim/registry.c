/*
 * registry.c - which databases this process replicates, and through which handles.
 *
 * One lj_open per (device, inode): a database opened under two names is one. The mutex (rank 1) guards the two lists and
 * the handle counts; it is held while a database object is created (local I/O only), never while one is flushed or freed. A
 * database that is being freed stays in the list until its election lock is released: whoever opens it again waits for that.
 *
 * Fork: the child clears the lists (what is in them belongs to the parent and has no worker there), counts the epoch up, so
 * that inherited handles pass everything through, and closes the inherited election locks.
 *
 * Layer: shim.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vfs/base/clock.h"
#include "vfs/base/log.h"
#include "vfs/base/str.h"
#include "vfs/shim/handle.h"
#include "vfs/storage/storage.h"

#define SMALL_IMAGE_BYTES (1024u * 1024u) /* read in about a millisecond while frozen */
#define EXIT_DRAIN_NS     (2 * LJ_NS_PER_S)
#define SAME_CLOSE_NS     LJ_NS_PER_S

unsigned lj_process_epoch;

static struct {
    pthread_mutex_t mutex;
    pthread_cond_t ended; /* a database object is gone */
    lj_open *opens;
    lj_file *files;
} registry = {.mutex = PTHREAD_MUTEX_INITIALIZER, .ended = PTHREAD_COND_INITIALIZER};

/* ------------------------------------------------------------------ fork and exit */

static void before_fork(void)
{
    pthread_mutex_lock(&registry.mutex);
    lj_bell_before_fork();
}

static void in_parent(void)
{
    lj_bell_in_parent();
    pthread_mutex_unlock(&registry.mutex);
}

static void in_child(void)
{
    pthread_mutex_init(&registry.mutex, NULL);
    pthread_cond_init(&registry.ended, NULL);
    lj_process_epoch++;
    lj_bell_in_child();
    for (lj_open *open = registry.opens; open != NULL; open = open->next) {
        if (open->ending)
            continue; /* half freed; the parent unlocks before it closes (database.c) */
        if (open->db->lock_fd >= 0)
            close(open->db->lock_fd); /* the parent's descriptor keeps the lock */
        open->db->lock_fd = -1;
    }
    registry.opens = NULL;
    registry.files = NULL;
    lj_scheduler_after_fork();
}

/*
 * Is there something that only this process could ship? Without a commit in this session there is not; a first snapshot
 * can wait for the next.
 */
static bool has_work(lj_db *db)
{
    pthread_mutex_lock(&db->mutex);
    bool work = db->attached &&
                (db->commits > 0 || (db->spool_bytes > 0 && !lj_db_follows_locked(db))) &&
                !db->not_wal && db->state != LJ_DB_STOPPED && db->state != LJ_DB_IDLE;
    pthread_mutex_unlock(&db->mutex);
    return work;
}

/* exit() without sqlite3_close: gives the workers a moment to ship what is committed. */
static void at_exit(void)
{
    int64_t deadline_ns = lj_clock_mono_ns() + EXIT_DRAIN_NS;
    pthread_mutex_lock(&registry.mutex);
    for (lj_open *open = registry.opens; open != NULL; open = open->next) {
        lj_error err = LJ_ERROR_INIT;
        int64_t left_ns = deadline_ns - lj_clock_mono_ns();
        if (left_ns > 0 && lj_open_alive(open) && !open->ending && has_work(open->db))
            (void)!lj_db_wait(open->db, LJ_MIN(left_ns, open->db->options.shutdown_timeout_ns),
                              true, &err);
    }
    pthread_mutex_unlock(&registry.mutex);
}

static void init_once(void)
{
    lj_storage_prepare(); /* at_exit still needs the network; and storages are opened under our mutex */
    pthread_atfork(before_fork, in_parent, in_child);
    atexit(at_exit);
}

void lj_registry_init(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, init_once);
}

/* ------------------------------------------------------------------ databases */

static lj_db_options db_options(const lj_config *config)
{
    return (lj_db_options){.sync_interval_ns = config->sync_interval_ns,
                           .snapshot_interval_ns = config->snapshot_interval_ns,
                           .retention_ns = config->retention_ns,
                           .shutdown_timeout_ns = config->shutdown_timeout_ns,
                           .io_timeout_ns = config->io_timeout_ns,
                           .max_wal_size_bytes = config->max_wal_size_bytes,
                           .max_spool_size_bytes = config->max_spool_size_bytes,
                           .fsync_before_ship = config->fsync_before_ship};
}

static void free_content(lj_open *open)
{
    /* what could not be shipped in time is shipped by the next open; a store that hangs must not hold up this close */
    __atomic_store_n(&open->io_cancel, true, __ATOMIC_RELAXED);
    lj_shipper_free(open->shipper);
    lj_db_free(open->db);
    pthread_mutex_destroy(&open->guard.mutex);
    pthread_mutex_destroy(&open->view_mutex);
    free(open->base_name);
}

static lj_code create_open(sqlite3_vfs *base, const char *path, const lj_config *config,
                           const lj_identity *identity, lj_open **ret_open, lj_error *err)
{
    LJ_CLEANUP(lj_freep) char *url = NULL;
    LJ_TRY(lj_config_replica_url(config, path, &url, err));
    lj_open *open = calloc(1, sizeof(*open));
    size_t len = strlen(path);
    if (open == NULL || (open->base_name = calloc(1, len + 12)) == NULL) {
        free(open);
        return lj_error_nomem(err);
    }
    memcpy(open->base_name + 4, path, len);
    open->base = base;
    open->epoch = lj_process_epoch;
    open->reader_slot = -1;
    pthread_mutex_init(&open->guard.mutex, NULL);
    pthread_mutex_init(&open->view_mutex, NULL);
    open->guard.memory_bytes = SMALL_IMAGE_BYTES;
    lj_db_options options = db_options(config);
    lj_storage_options storage_options = {.io_timeout_ns = config->io_timeout_ns,
                                          .cancel = &open->io_cancel};
    lj_storage *storage = NULL;
    lj_dbfile dbfile = lj_freeze_dbfile(open);
    lj_code code = lj_storage_open(url, &storage_options, &storage, err);
    if (code != LJ_OK)
        lj_error_context(err, "replica_url");
    if (code == LJ_OK)
        code = lj_db_new(path, lj_storage_url(storage), &options, lj_shipper_wake, &open->db, err);
    if (code == LJ_OK)
        code = lj_shipper_new(open->db, storage, &open->guard, &dbfile, &open->shipper, err);
    if (code == LJ_OK)
        lj_view_connect(open);
    if (code != LJ_OK) {
        if (open->shipper == NULL)
            lj_storage_close(storage);
        free_content(open);
        free(open);
        return code;
    }
    if (identity != NULL) {
        open->db->opened_identity = *identity;
        open->db->has_opened_identity = true;
    }
    lj_scheduler_set_workers(config->upload_workers);
    *ret_open = open;
    return LJ_OK;
}

static lj_open *find_open(const struct stat *st)
{
    lj_open *open = registry.opens;
    while (open != NULL &&
           (open->device != (uint64_t)st->st_dev || open->inode != (uint64_t)st->st_ino))
        open = open->next;
    return open;
}

lj_code lj_registry_acquire(sqlite3_vfs *base, const char *path, const lj_config *config,
                            const lj_identity *identity, lj_open **ret_open, bool *ret_first,
                            lj_error *err)
{
    struct stat st;
    if (stat(path, &st) != 0)
        return lj_error_set(err, LJ_NOTFOUND, "%s disappeared while it was being opened", path);
    pthread_mutex_lock(&registry.mutex);
    lj_open *open = find_open(&st);
    /* the one that is ending holds the election lock, and its shipper may be in the middle of a segment */
    for (; open != NULL && open->ending; open = find_open(&st))
        pthread_cond_wait(&registry.ended, &registry.mutex);
    lj_code code = LJ_OK;
    if (open == NULL) {
        code = create_open(base, path, config, identity, &open, err);
        if (code == LJ_OK) {
            open->device = (uint64_t)st.st_dev;
            open->inode = (uint64_t)st.st_ino;
            open->next = registry.opens;
            registry.opens = open;
        }
    }
    if (code == LJ_OK) {
        *ret_first = open->handles++ == 0;
        *ret_open = open;
    }
    pthread_mutex_unlock(&registry.mutex);
    return code;
}

/*
 * The last close flushes before SQLite deletes the WAL, and again when the handle goes, for whoever had no WAL. What the first
 * could not ship in shutdown_timeout the second does not wait for once more, unless something was committed or time went by.
 */
static int64_t flush_time_left(lj_open *open)
{
    lj_db *db = open->db;
    int64_t now_ns = lj_clock_mono_ns();
    pthread_mutex_lock(&db->mutex);
    bool same = open->flush_commits == db->commits && open->flush_until_ns != 0 &&
                now_ns < open->flush_until_ns + SAME_CLOSE_NS;
    if (!same) {
        open->flush_until_ns = now_ns + db->options.shutdown_timeout_ns;
        open->flush_commits = db->commits;
    }
    int64_t left_ns = open->flush_until_ns - now_ns;
    pthread_mutex_unlock(&db->mutex);
    return left_ns;
}

void lj_open_flush(lj_open *open)
{
    lj_db *db = open->db;
    lj_error err = LJ_ERROR_INIT;
    if (!has_work(db))
        return;
    int64_t left_ns = flush_time_left(open);
    if (left_ns > 0 && lj_db_wait(db, left_ns, true, &err) != LJ_OK)
        lj_log_error(LJ_LOG_WARN, db->path, &err);
}

static void unlink_open(lj_open *open)
{
    for (lj_open **at = &registry.opens; *at != NULL; at = &(*at)->next) {
        if (*at == open) {
            *at = open->next;
            return;
        }
    }
}

/* The last handle is gone: frees what hangs on it, while an open of the same file waits. */
static void end_open(lj_open *open)
{
    free_content(open);
    pthread_mutex_lock(&registry.mutex);
    unlink_open(open);
    pthread_cond_broadcast(&registry.ended);
    pthread_mutex_unlock(&registry.mutex);
    free(open);
}

static void set_closing(lj_db *db, bool closing)
{
    pthread_mutex_lock(&db->mutex);
    db->closing = closing;
    pthread_mutex_unlock(&db->mutex);
}

void lj_registry_release(lj_open *open)
{
    if (!lj_open_alive(open))
        return; /* inherited over a fork: the parent's */
    pthread_mutex_lock(&registry.mutex);
    bool flush = open->handles == 1;
    pthread_mutex_unlock(&registry.mutex);
    if (flush) {
        lj_open_flush(open);
        set_closing(open->db, true);
    }
    pthread_mutex_lock(&registry.mutex);
    bool last = --open->handles == 0;
    open->ending = last;
    if (!last && flush) {
        /* another connection came meanwhile; a snapshot task that gave up has to begin again */
        set_closing(open->db, false);
        lj_shipper_wake(open->db, 0);
    }
    pthread_mutex_unlock(&registry.mutex);
    if (last)
        end_open(open);
}

/* ------------------------------------------------------------------ handles */

void lj_registry_add_file(lj_file *file)
{
    pthread_mutex_lock(&registry.mutex);
    file->next = registry.files;
    registry.files = file;
    pthread_mutex_unlock(&registry.mutex);
}

void lj_registry_remove_file(lj_file *file)
{
    pthread_mutex_lock(&registry.mutex);
    for (lj_file **at = &registry.files; *at != NULL; at = &(*at)->next) {
        if (*at == file) {
            *at = file->next;
            break;
        }
    }
    pthread_mutex_unlock(&registry.mutex);
}

lj_file *lj_registry_file_of_wal(const char *wal_name)
{
    pthread_mutex_lock(&registry.mutex);
    lj_file *file = registry.files;
    while (file != NULL && file->wal_name != wal_name)
        file = file->next;
    pthread_mutex_unlock(&registry.mutex);
    return file;
}

bool lj_registry_with_wal_path(const char *wal_path, void (*fn)(lj_open *open))
{
    pthread_mutex_lock(&registry.mutex);
    lj_open *open = registry.opens;
    while (open != NULL && (open->ending || strcmp(open->db->wal_path, wal_path) != 0))
        open = open->next;
    if (open != NULL)
        open->handles++;
    pthread_mutex_unlock(&registry.mutex);
    if (open == NULL)
        return false;
    fn(open);
    pthread_mutex_lock(&registry.mutex);
    open->handles--; /* the caller's own handle is still open: never the last */
    pthread_mutex_unlock(&registry.mutex);
    return true;
}
