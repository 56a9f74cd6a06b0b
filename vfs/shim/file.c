/*
 * file.c - sqlite3_io_methods of main databases and of replicated WALs: pass down, and tell events.c.
 *
 * Every method of version 3 is passed to the lower file unchanged. What is added stands in one line each; a file that is not
 * replicated (open == NULL), or that was inherited over a fork, only passes.
 *
 * Layer: shim. Thread-safety: as SQLite's own: a file belongs to its connection.
 */
#include <string.h>

#include "vfs/shim/handle.h"
#include "vfs/shim/walindex.h"

#define SELF(f)    ((lj_file *)(f))
#define LOWER(f)   (SELF(f)->lower)
#define METHODS(f) (LOWER(f)->pMethods)

static bool live(const lj_file *file)
{
    return lj_open_alive(file->open);
}

/* The first region of the wal-index is mapped, or (NULL) no longer. freeze.c asks whether anybody here has it. */
static void set_index(lj_file *file, const volatile void *index)
{
    if (file->open != NULL && (file->index == NULL) != (index == NULL)) {
        if (index != NULL)
            (void)__atomic_fetch_add(&file->open->indexes, 1, __ATOMIC_ACQ_REL);
        else
            (void)__atomic_fetch_sub(&file->open->indexes, 1, __ATOMIC_ACQ_REL);
    }
    if (index != NULL)
        lj_view_add(file, index);
    else
        lj_view_remove(file);
}

static int file_close(sqlite3_file *f)
{
    lj_file *file = SELF(f);
    lj_open *open = file->open;
    set_index(file, NULL); /* SQLite unmaps it before, unless a memory allocation failed */
    if (!file->is_wal)
        lj_registry_remove_file(file);
    else if (live(file)) {
        lj_durable_close(file);
        lj_repair_forget(file);
    }
    if (file->partner != NULL)
        file->partner->partner = NULL;
    int rc = SQLITE_OK;
    if (!file->is_wal)
        lj_event_end_exclusive(file); /* SQLite unlocks before it closes, as a rule */
    if (!file->is_wal && lj_view_unlocking(file))
        lj_readguard_close(open);
    if (open != NULL && !file->is_wal)
        lj_registry_release(
            open); /* flushes while the WAL is still locked in place by this handle */
    if (LOWER(f)->pMethods != NULL)
        rc = METHODS(f)->xClose(LOWER(f));
    file->open = NULL;
    return rc;
}

static int file_read(sqlite3_file *f, void *out, int len, sqlite3_int64 off)
{
    return METHODS(f)->xRead(LOWER(f), out, len, off);
}

static int file_write(sqlite3_file *f, const void *data, int len, sqlite3_int64 off)
{
    lj_file *file = SELF(f);
    if (!live(file))
        return METHODS(f)->xWrite(LOWER(f), data, len, off);
    if (!file->is_wal) {
        lj_event_db_write(file, len, off);
        lj_durable_db_write(file, data, len, off);
        int rc = METHODS(f)->xWrite(LOWER(f), data, len, off);
        lj_event_db_written(file, data, len, off);
        return rc;
    }
    lj_event_wal_writing(file, off);
    lj_durable_before_write(file, off);
    if (off == 0)
        lj_event_header_comes(file);
    int rc = METHODS(f)->xWrite(LOWER(f), data, len, off);
    if (rc == SQLITE_OK) {
        lj_repair_note_write(file, data, len, off);
        return lj_event_wal_write(file, data, len, off);
    }
    lj_event_wal_failed(file);
    return rc;
}

static int file_truncate(sqlite3_file *f, sqlite3_int64 size)
{
    lj_file *file = SELF(f);
    if (!live(file))
        return METHODS(f)->xTruncate(LOWER(f), size);
    if (!file->is_wal) {
        sqlite3_int64 now = 0;
        if (METHODS(f)->xFileSize(LOWER(f), &now) == SQLITE_OK && now > size)
            lj_event_db_overwritten(file, (uint64_t)size, (uint64_t)(now - size));
        return METHODS(f)->xTruncate(LOWER(f), size);
    }
    /* a larger size only cuts frames of former lives off (journal_size_limit) */
    if (size == 0)
        lj_event_wal_emptying(file->open, false);
    int rc = METHODS(f)->xTruncate(LOWER(f), size);
    if (rc == SQLITE_OK && size == 0)
        lj_db_wal_emptied(file->open->db);
    return rc;
}

static int file_sync(sqlite3_file *f, int flags)
{
    if (SELF(f)->is_wal && SELF(f)->synced && flags == SQLITE_SYNC_NORMAL)
        return SQLITE_OK; /* done while the commit waited */
    int rc = METHODS(f)->xSync(LOWER(f), flags);
    if (rc != SQLITE_OK && SELF(f)->is_wal)
        lj_event_wal_failed(SELF(f));
    SELF(f)->flushed = rc == SQLITE_OK;
    return rc;
}

static int file_size(sqlite3_file *f, sqlite3_int64 *ret_size)
{
    return METHODS(f)->xFileSize(LOWER(f), ret_size);
}

static int file_lock(sqlite3_file *f, int level)
{
    lj_file *file = SELF(f);
    int rc = METHODS(f)->xLock(LOWER(f), level);
    /*
     * A snapshot's SHARED lock must not be what keeps somebody from closing or leaving WAL mode. Tried again whether or not
     * there still is a lock to give back: it may just have gone.
     */
    if (lj_is_busy(rc) && level == SQLITE_LOCK_EXCLUSIVE && live(file)) {
        lj_event_make_room(file, true);
        rc = METHODS(f)->xLock(LOWER(f), level);
    }
    if (rc == SQLITE_OK && level == SQLITE_LOCK_EXCLUSIVE && live(file)) {
        lj_durable_db_locked(file);
        lj_readguard_close(file->open);
    }
    if (rc == SQLITE_OK && level > file->lock_level)
        lj_view_locked(file, level);
    return rc;
}

static int file_unlock(sqlite3_file *f, int level)
{
    if (level < SQLITE_LOCK_RESERVED && !SELF(f)->is_wal)
        lj_durable_db_unlock(SELF(f));
    if (level < SQLITE_LOCK_EXCLUSIVE)
        lj_event_end_exclusive(SELF(f));
    if (level == SQLITE_LOCK_NONE && lj_view_unlocking(SELF(f)))
        lj_readguard_close(
            SELF(f)->open); /* a wal-index may be mapped only under a lock of the file */
    int rc = METHODS(f)->xUnlock(LOWER(f), level);
    if (rc == SQLITE_OK && level < SELF(f)->lock_level)
        lj_view_locked(SELF(f), level);
    if (SELF(f)->auto_wal && rc == SQLITE_OK && level == SQLITE_LOCK_NONE)
        lj_autowal_unlocked(SELF(f));
    return rc;
}

static int file_check_reserved(sqlite3_file *f, int *ret_out)
{
    return METHODS(f)->xCheckReservedLock(LOWER(f), ret_out);
}

static int vfs_name(sqlite3_file *f, void *arg)
{
    int rc = METHODS(f)->xFileControl(LOWER(f), SQLITE_FCNTL_VFSNAME, arg);
    if (rc == SQLITE_OK)
        *(char **)arg = sqlite3_mprintf("litejoin/%z", *(char **)arg);
    return rc;
}

static int commit_phase_two(lj_file *file, void *arg)
{
    lj_event_exclusive_commit(file);
    int rc = file->lower->pMethods->xFileControl(file->lower, SQLITE_FCNTL_COMMIT_PHASETWO, arg);
    int waited = lj_durable_phase_two(file);
    return waited != SQLITE_OK ? waited : rc;
}

static int file_control(sqlite3_file *f, int op, void *arg)
{
    lj_file *file = SELF(f);
    if (op == LJ_FCNTL_FILE) {
        *(lj_file **)arg = file;
        return SQLITE_OK;
    }
    if (op == SQLITE_FCNTL_VFSNAME)
        return vfs_name(f, arg);
    if (file->is_wal)
        return METHODS(f)->xFileControl(LOWER(f), op, arg);
    if (op == SQLITE_FCNTL_PRAGMA) {
        int rc = lj_pragma(file, arg);
        if (rc != SQLITE_NOTFOUND)
            return rc;
        if (live(file))
            lj_autowal_pragma(file, arg);
    }
    if (live(file)) {
        switch (op) {
        case SQLITE_FCNTL_PERSIST_WAL:
            /* the query at the end of the last connection's checkpoint: the WAL goes next. An application may ask, too, without the lock */
            if (*(int *)arg < 0 && file->lock_level == SQLITE_LOCK_EXCLUSIVE) {
                lj_event_publish_again(
                    file); /* another process may have committed since this handle read last */
                lj_open_flush(file->open);
            }
            break;
        case SQLITE_FCNTL_COMMIT_PHASETWO:
            return commit_phase_two(file, arg);
        case SQLITE_FCNTL_SYNC: {
            int rc = lj_durable_db_sync(file);
            if (rc != SQLITE_OK)
                return rc;
            break;
        }
        case SQLITE_FCNTL_CKPT_START:
            /* of a COMMIT over several databases that failed in a later one nothing else tells: before its frames can go */
            lj_event_exclusive_commit(file);
            file->checkpointing = true;
            break;
        case SQLITE_FCNTL_CKPT_DONE:
            file->checkpointing = false;
            break;
        default:
            break;
        }
    }
    return METHODS(f)->xFileControl(LOWER(f), op, arg);
}

static int file_sector_size(sqlite3_file *f)
{
    return METHODS(f)->xSectorSize(LOWER(f));
}

static int file_characteristics(sqlite3_file *f)
{
    return METHODS(f)->xDeviceCharacteristics(LOWER(f));
}

static int file_shm_map(sqlite3_file *f, int region, int size, int extend, void volatile **ret_map)
{
    lj_file *file = SELF(f);
    int rc = region == 0 && file->index == NULL && live(file)
                 ? lj_view_map(file->open, LOWER(f), region, size, extend, ret_map)
                 : METHODS(f)->xShmMap(LOWER(f), region, size, extend, ret_map);
    if (rc == SQLITE_OK && region == 0)
        set_index(file, *ret_map);
    return rc;
}

static void note_shm_lock(lj_file *file, int ofst, int n, int flags)
{
    unsigned mask = ((1u << n) - 1u) << ofst;
    if ((flags & SQLITE_SHM_EXCLUSIVE) == 0)
        return;
    if ((flags & SQLITE_SHM_LOCK) != 0)
        file->exclusive |= mask;
    else
        file->exclusive &= ~mask;
}

static int file_shm_lock(sqlite3_file *f, int ofst, int n, int flags)
{
    lj_file *file = SELF(f);
    int rc;
    if (!live(file))
        return METHODS(f)->xShmLock(LOWER(f), ofst, n, flags);
    const bool locking = (flags & SQLITE_SHM_LOCK) != 0;
    const bool exclusive = (flags & SQLITE_SHM_EXCLUSIVE) != 0;
    if (!locking && exclusive && ofst == LJ_LOCK_WRITE) {
        if (file->partner != NULL && file->partner->unsummed)
            lj_repair_commit(file);
        lj_event_write_unlock(file); /* the commit is visible, and nobody else can write yet */
    }
    if (!locking && exclusive)
        lj_event_unlocking(file, ofst);
    if (locking && exclusive && ofst == LJ_LOCK_READ0 + 1 && n == LJ_WALINDEX_READERS - 1)
        rc = lj_event_restart_lock(file, flags);
    else
        rc = METHODS(f)->xShmLock(LOWER(f), ofst, n, flags);
    if (!locking && exclusive && ofst == LJ_LOCK_READ0 + 1 && n == LJ_WALINDEX_READERS - 1)
        lj_readguard_return(file->open);
    if (lj_is_busy(rc) && locking && n == 1)
        rc = lj_event_retry_lock(file, ofst, n, flags, rc);
    if (rc == SQLITE_OK) {
        note_shm_lock(file, ofst, n, flags);
        if (locking && exclusive)
            lj_event_locked(file, ofst, n);
        if (locking && !exclusive && ofst >= LJ_LOCK_READ0)
            lj_event_read_lock(file);
        if (locking && exclusive && ofst == LJ_LOCK_WRITE) {
            lj_event_write_locked(file);
            lj_repair_begin(file);
        }
    }
    return rc;
}

static void file_shm_barrier(sqlite3_file *f)
{
    METHODS(f)->xShmBarrier(LOWER(f));
}

static int file_shm_unmap(sqlite3_file *f, int delete_flag)
{
    set_index(SELF(f), NULL);
    return METHODS(f)->xShmUnmap(LOWER(f), delete_flag);
}

static int file_fetch(sqlite3_file *f, sqlite3_int64 off, int len, void **ret_map)
{
    return METHODS(f)->xFetch(LOWER(f), off, len, ret_map);
}

static int file_unfetch(sqlite3_file *f, sqlite3_int64 off, void *map)
{
    return METHODS(f)->xUnfetch(LOWER(f), off, map);
}

#define COMMON(version)                                                                            \
    .iVersion = (version), .xClose = file_close, .xRead = file_read, .xWrite = file_write,         \
    .xTruncate = file_truncate, .xSync = file_sync, .xFileSize = file_size, .xLock = file_lock,    \
    .xUnlock = file_unlock, .xCheckReservedLock = file_check_reserved,                             \
    .xFileControl = file_control, .xSectorSize = file_sector_size,                                 \
    .xDeviceCharacteristics = file_characteristics

#define WITH_SHM                                                                                   \
    .xShmMap = file_shm_map, .xShmLock = file_shm_lock, .xShmBarrier = file_shm_barrier,           \
    .xShmUnmap = file_shm_unmap

#define WITH_FETCH .xFetch = file_fetch, .xUnfetch = file_unfetch

/* SQLite asks by the pointers what a file can do: unix-none, for one, is of version 3 without shared memory. */
const sqlite3_io_methods *lj_file_methods(const sqlite3_io_methods *lower)
{
    static const sqlite3_io_methods v1 = {COMMON(1)};
    static const sqlite3_io_methods v2 = {COMMON(2), WITH_SHM};
    static const sqlite3_io_methods v3 = {COMMON(3), WITH_SHM, WITH_FETCH};
    static const sqlite3_io_methods v3_no_shm = {COMMON(3), WITH_FETCH};
    bool shm = lower->iVersion >= 2 && lower->xShmMap != NULL;
    bool fetch = lower->iVersion >= 3 && lower->xFetch != NULL;
    if (fetch)
        return shm ? &v3 : &v3_no_shm;
    return shm ? &v2 : &v1;
}
