/*
 * registry.c - which databases this process replicates, and through which handles.
 *
 * One lj_open per (device, inode): a database opened under two names is one. The mutex (rank 1) guards the list, the tables
 * and the handle counts; it is held for a few steps each time, never across I/O (but in at_exit), whatever the number of
 * databases. A database that is being freed stays in the list until its election lock is released: whoever opens it again
 * waits for that.
 *
 * Fork: the child clears the lists (what is in them belongs to the parent and has no worker there), counts the epoch up, so
 * that inherited handles pass everything through, and closes the inherited election locks.
 *
 * Layer: shim.
 */
#include <pthread.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vfs/base/aside.h"
#include "vfs/base/clock.h"
#include "vfs/base/io.h"
#include "vfs/base/log.h"
#include "vfs/base/str.h"
#include "vfs/capture/moved.h"
#include "vfs/shim/handle.h"
#include "vfs/storage/storage.h"

#define SMALL_IMAGE_BYTES (1024u * 1024u) /* read in about a millisecond while frozen */
#define EXIT_DRAIN_NS     (2 * LJ_NS_PER_S)
#define SAME_CLOSE_NS     LJ_NS_PER_S
#define RIVAL_SHOWN       120 /* bytes of a path in a state */

unsigned lj_process_epoch;

static struct {
    pthread_mutex_t mutex;
    pthread_cond_t ended; /* a database object is gone */
    lj_open *opens;
    lj_table by_inode, by_wal_path; /* of opens */
    lj_table files;                 /* database handles, by the pointer of their WAL's name */
} registry = {.mutex = PTHREAD_MUTEX_INITIALIZER, .ended = PTHREAD_COND_INITIALIZER};

/* ------------------------------------------------------------------ fork and exit */

static void before_fork(void)
{
    pthread_mutex_lock(&registry.mutex);
    lj_bell_before_fork();
    lj_vfs_before_fork();
}

static void in_parent(void)
{
    lj_vfs_after_fork(false);
    lj_bell_in_parent();
    pthread_mutex_unlock(&registry.mutex);
}

static void in_child(void)
{
    pthread_mutex_init(&registry.mutex, NULL);
    pthread_cond_init(&registry.ended, NULL);
    lj_process_epoch++;
    lj_vfs_after_fork(true);
    lj_bell_in_child();
    lj_boot_in_child();
    lj_claim_in_child();
    for (lj_open *open = registry.opens; open != NULL; open = open->next) {
        if (open->ending)
            continue; /* half freed; the parent unlocks before it closes (database.c) */
        /* the parent's descriptor keeps the lock; its thread may be looking for a place */
        int entering_fd = atomic_load(&open->db->entering_fd);
        if (open->db->lock_fd >= 0)
            close(open->db->lock_fd);
        if (entering_fd >= 0 && entering_fd != open->db->lock_fd)
            close(entering_fd);
        open->db->lock_fd = -1;
    }
    registry.opens = NULL;
    memset(&registry.by_inode, 0, sizeof(registry.by_inode));
    memset(&registry.by_wal_path, 0, sizeof(registry.by_wal_path));
    memset(&registry.files, 0, sizeof(registry.files));
    lj_scheduler_after_fork();
    lj_aside_forget();
}

/*
 * Is there something that only this process could ship? Without a commit in this session, or a change of the file outside of
 * WAL mode (creating it, switching the journal mode), there is not; a first snapshot can wait for the next.
 */
static bool has_work(lj_db *db)
{
    pthread_mutex_lock(&db->mutex);
    bool spooled = db->spool_bytes > 0 && !lj_db_follows_locked(db);
    bool changed = db->commits > 0 || spooled || (db->touched && !db->established);
    bool work = db->attached && changed && !db->not_wal && db->state != LJ_DB_STOPPED &&
                db->state != LJ_DB_IDLE;
    pthread_mutex_unlock(&db->mutex);
    return work;
}

/* exit() without sqlite3_close: gives the workers a moment to ship what is committed, of all databases side by side. */
static void at_exit(void)
{
    int64_t deadline_ns = lj_clock_mono_ns() + EXIT_DRAIN_NS;
    pthread_mutex_lock(&registry.mutex);
    for (lj_open *open = registry.opens; open != NULL; open = open->next)
        if (lj_open_alive(open) && !open->ending && has_work(open->db))
            lj_db_hurry(open->db);
    for (lj_open *open = registry.opens; open != NULL; open = open->next) {
        lj_error err = LJ_ERROR_INIT;
        int64_t left_ns = deadline_ns - lj_clock_mono_ns();
        if (left_ns > 0 && lj_open_alive(open) && !open->ending && has_work(open->db))
            (void)!lj_db_wait(open->db, LJ_MIN(left_ns, open->db->options.shutdown_timeout_ns),
                              true, &err);
        left_ns = deadline_ns - lj_clock_mono_ns();
        if (left_ns > 0 && lj_open_alive(open) && !open->ending)
            (void)!lj_db_wait_taken_back(
                open->db, LJ_MIN(left_ns, open->db->options.shutdown_timeout_ns), &err);
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

lj_db_options lj_registry_options(const lj_config *config)
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
    lj_readguard_close(open);
    lj_db_free(open->db);
    pthread_mutex_destroy(&open->guard_mutex);
    pthread_mutex_destroy(&open->guard.mutex);
    pthread_mutex_destroy(&open->view_mutex);
    free(open->base_name);
    lj_claim_free(open->claim); /* nothing more is written to the replica */
}

/* Another database has the replica: this one works, and is not replicated (until join). */
static void refuse(const lj_open *open, const lj_claim *claim)
{
    char reason[LJ_DB_REASON_MAX];
    lj_error err = LJ_ERROR_INIT;
    snprintf(reason, sizeof(reason), "the replica belongs to %.*s, which this process has open too",
             RIVAL_SHOWN, claim->rival);
    lj_claim_not_replicated(claim, open->db->replica_url, &err);
    lj_db_refuse(open->db, reason, &err);
}

static lj_code create_open(sqlite3_vfs *base, const char *path, const lj_config *config,
                           const lj_identity *identity, const lj_claim *claim, lj_open **ret_open,
                           lj_error *err)
{
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
    open->guarded = config->guard;
    pthread_mutex_init(&open->guard_mutex, NULL);
    pthread_mutex_init(&open->guard.mutex, NULL);
    pthread_mutex_init(&open->view_mutex, NULL);
    open->guard.memory_bytes = SMALL_IMAGE_BYTES;
    open->guard.saved_bytes = config->max_spool_size_bytes;
    lj_db_options options = lj_registry_options(config);
    lj_storage_options storage_options = {.io_timeout_ns = config->io_timeout_ns,
                                          .cancel = &open->io_cancel};
    lj_storage *storage = NULL;
    lj_dbfile dbfile = lj_freeze_dbfile(open);
    lj_code code = lj_storage_open(claim->url, &storage_options, &storage, err);
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
    if (claim->rival != NULL)
        refuse(open, claim);
    lj_scheduler_set_workers(config->upload_workers);
    *ret_open = open;
    return LJ_OK;
}

static uint64_t inode_hash(const struct stat *st)
{
    return lj_hash_number((uint64_t)st->st_ino ^ lj_hash_number((uint64_t)st->st_dev));
}

static lj_open *find_locked(const struct stat *st)
{
    for (lj_link *link = lj_table_first(&registry.by_inode, inode_hash(st)); link != NULL;
         link = lj_table_next(link)) {
        lj_open *open = link->owner;
        if (open->device == (uint64_t)st->st_dev && open->inode == (uint64_t)st->st_ino)
            return open;
    }
    return NULL;
}

/* The open database with this inode, with a handle taken; NULL = none. */
static lj_open *join_locked(const struct stat *st)
{
    lj_open *open = find_locked(st);
    /* the one that is ending holds the election lock, and its shipper may be in the middle of a segment */
    for (; open != NULL && open->ending; open = find_locked(st))
        pthread_cond_wait(&registry.ended, &registry.mutex);
    if (open != NULL)
        open->handles++;
    return open;
}

/* Two names of one file in the same process. A path alone does not say so: a folder may be mounted twice. */
static void warn_of_hard_links(const lj_open *open, const char *path, const struct stat *st)
{
    if (st->st_nlink < 2)
        return;
    if (strcmp(open->db->path, path) == 0)
        lj_log(LJ_LOG_WARN,
               "%s has %lu names (hard links): every program has to open it by the same one, since "
               "SQLite finds the WAL by the name",
               path, (unsigned long)st->st_nlink);
    else
        lj_log(LJ_LOG_ERROR,
               "%s is the same file as %s, which is open (hard links): each name has a WAL of its "
               "own, and writing through both corrupts the database; its replica is %s",
               path, open->db->path, open->db->replica_url);
}

/* Once: of two that made it at the same moment only one came to be. */
static void tell_refused(const lj_open *open)
{
    pthread_mutex_lock(&open->db->mutex);
    lj_error why = open->db->ship_error;
    pthread_mutex_unlock(&open->db->mutex);
    if (why.code == LJ_CONFLICT)
        lj_log_error(LJ_LOG_ERROR, open->db->path, &why);
}

/*
 * A further connection. Of those to one database the first decides where it goes; if a rival had that replica then, and has been closed
 * since, from here on it is this one's.
 */
static void join(lj_open *open, const char *path, lj_claim **claim)
{
    pthread_mutex_lock(&registry.mutex);
    lj_claim *had = open->claim;
    bool same_url = strcmp(had->url, (*claim)->url) == 0;
    bool admitted = same_url && had->rival != NULL && (*claim)->rival == NULL;
    if (admitted) {
        open->claim = *claim;
        *claim = had;
    }
    pthread_mutex_unlock(&registry.mutex);
    if (admitted)
        lj_db_admit(open->db);
    if (!same_url && strcmp(open->db->path, path) == 0)
        lj_log(LJ_LOG_WARN,
               "%s is open already and goes to %s: the other replica that this connection names "
               "is not written",
               path, open->db->replica_url);
}

static void link_locked(lj_open *open, const struct stat *st)
{
    open->device = (uint64_t)st->st_dev;
    open->inode = (uint64_t)st->st_ino;
    open->db->inode = open->inode;
    open->next = registry.opens;
    if (open->next != NULL)
        open->next->previous = open;
    registry.opens = open;
    lj_table_add(&registry.by_inode, &open->by_inode, open, inode_hash(st));
    lj_table_add(&registry.by_wal_path, &open->by_wal_path, open, lj_hash_text(open->db->wal_path));
}

static void unlink_locked(lj_open *open)
{
    if (open->next != NULL)
        open->next->previous = open->previous;
    if (open->previous != NULL)
        open->previous->next = open->next;
    else
        registry.opens = open->next;
    lj_table_remove(&registry.by_inode, &open->by_inode);
    lj_table_remove(&registry.by_wal_path, &open->by_wal_path);
}

lj_code lj_registry_acquire(sqlite3_vfs *base, const char *path, const lj_config *config,
                            const lj_identity *identity, lj_claim **claim, lj_open **ret_open,
                            bool *ret_first, lj_error *err)
{
    struct stat st;
    if (stat(path, &st) != 0)
        return errno == ENOENT ? lj_error_set(err, LJ_NOTFOUND,
                                              "%s disappeared while it was being opened", path)
                               : lj_error_errno(err, errno, "cannot stat %s", path);
    const bool refused = (*claim)->rival != NULL;
    lj_claim_settle(*claim, &st);
    pthread_mutex_lock(&registry.mutex);
    lj_open *open = join_locked(&st);
    pthread_mutex_unlock(&registry.mutex);
    lj_open *fresh = NULL;
    if (open == NULL) {
        /* made without the mutex, so that many opens at once do not wait for one another; of two for one file one is dropped */
        LJ_TRY(create_open(base, path, config, identity, *claim, &fresh, err));
        pthread_mutex_lock(&registry.mutex);
        open = join_locked(&st);
        if (open == NULL) {
            open = fresh;
            open->handles = 1;
            open->claim = *claim;
            *claim = NULL;
            link_locked(open, &st);
        }
        pthread_mutex_unlock(&registry.mutex);
    }
    *ret_first = open == fresh;
    *ret_open = open;
    if (*ret_first || strcmp(open->db->path, path) != 0)
        warn_of_hard_links(open, path, &st);
    if (!*ret_first)
        join(open, path, claim);
    else if (refused)
        tell_refused(open);
    if (fresh != NULL && open != fresh) {
        free_content(fresh);
        free(fresh);
    }
    return LJ_OK;
}

static lj_open *of_wal_path_locked(const char *wal_path)
{
    for (lj_link *link = lj_table_first(&registry.by_wal_path, lj_hash_text(wal_path));
         link != NULL; link = lj_table_next(link)) {
        lj_open *open = link->owner;
        if (!open->ending && strcmp(open->db->wal_path, wal_path) == 0)
            return open;
    }
    return NULL;
}

void lj_registry_path_opens(const char *path)
{
    LJ_CLEANUP(lj_freep) char *wal_path = lj_str_printf("%s-wal", path);
    if (wal_path == NULL)
        return; /* the next look at the file says the same */
    pthread_mutex_lock(&registry.mutex);
    lj_open *open = of_wal_path_locked(wal_path);
    if (open != NULL)
        open->handles++;
    pthread_mutex_unlock(&registry.mutex);
    if (open == NULL)
        return;
    (void)lj_db_in_place(open->db);
    lj_registry_release(open); /* it may be the last by now */
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
    bool work = has_work(db);
    int64_t left_ns = flush_time_left(open);
    if (work && left_ns > 0 && lj_db_wait(db, left_ns, true, &err) != LJ_OK)
        lj_log_error(LJ_LOG_WARN, db->path, &err);
    left_ns = flush_time_left(open);
    if (left_ns > 0 && lj_db_wait_taken_back(db, left_ns, &err) != LJ_OK)
        lj_log_error(LJ_LOG_WARN, db->path, &err);
}

/* The last handle is gone: frees what hangs on it, while an open of the same file waits. */
static void end_open(lj_open *open)
{
    free_content(open);
    pthread_mutex_lock(&registry.mutex);
    unlink_locked(open);
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
    if (!flush)
        open->handles--; /* at once: of two that close at the same time one flushes */
    pthread_mutex_unlock(&registry.mutex);
    if (!flush)
        return;
    lj_open_flush(open);
    set_closing(open->db, true);
    pthread_mutex_lock(&registry.mutex);
    bool last = --open->handles == 0;
    open->ending = last;
    if (!last) {
        /* another connection came meanwhile; a snapshot task that gave up has to begin again */
        set_closing(open->db, false);
        lj_shipper_wake(open->db, 0);
    }
    pthread_mutex_unlock(&registry.mutex);
    if (last)
        end_open(open);
}

/* ------------------------------------------------------------------ handles */

/* SQLite opens a WAL with the very pointer it gave us: no two open files have the same. */
static uint64_t name_hash(const char *name)
{
    return lj_hash_number((uint64_t)(uintptr_t)name);
}

void lj_registry_add_file(lj_file *file)
{
    pthread_mutex_lock(&registry.mutex);
    lj_table_add(&registry.files, &file->by_wal_name, file, name_hash(file->wal_name));
    pthread_mutex_unlock(&registry.mutex);
}

void lj_registry_remove_file(lj_file *file)
{
    if (file->by_wal_name.owner == NULL)
        return; /* not replicated */
    pthread_mutex_lock(&registry.mutex);
    lj_table_remove(&registry.files, &file->by_wal_name);
    pthread_mutex_unlock(&registry.mutex);
}

static lj_file *file_of_wal_locked(const char *wal_name)
{
    for (lj_link *link = lj_table_first(&registry.files, name_hash(wal_name)); link != NULL;
         link = lj_table_next(link)) {
        lj_file *candidate = link->owner;
        if (candidate->wal_name == wal_name)
            return candidate;
    }
    return NULL;
}

lj_file *lj_registry_file_of_wal(const char *wal_name)
{
    pthread_mutex_lock(&registry.mutex);
    lj_file *file = file_of_wal_locked(wal_name);
    pthread_mutex_unlock(&registry.mutex);
    return file;
}

static bool is_same_file(const char *one, const char *two)
{
    struct stat a;
    struct stat b;
    return stat(one, &a) == 0 && stat(two, &b) == 0 && lj_same_file(&a, &b);
}

lj_open *lj_registry_take_wal(const char *wal_name)
{
    pthread_mutex_lock(&registry.mutex);
    lj_open *open = of_wal_path_locked(wal_name);
    bool by_name = open != NULL;
    if (!by_name) {
        /* SQLite deletes a WAL by the pointer that it opened it with */
        const lj_file *file = file_of_wal_locked(wal_name);
        open = file != NULL && !file->open->ending ? file->open : NULL;
    }
    if (open != NULL)
        open->handles++;
    pthread_mutex_unlock(&registry.mutex);
    if (open == NULL || by_name || is_same_file(wal_name, open->db->wal_path))
        return open;
    lj_registry_release(open); /* a hard link: each name has a WAL of its own */
    return NULL;
}
