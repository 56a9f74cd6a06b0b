/*
 * freeze.c - a stable view of the database file for snapshots, through a handle opened on the base VFS.
 *
 * The handle belongs to the same SQLite library and VFS as the application's, so the unix VFS knows both and keeps the
 * process's POSIX locks when ours is closed (an open()/close() of our own would drop them).
 *
 * The read mark is taken the way SQLite's own readers take theirs: READ0 when everything is backfilled (no checkpoint can
 * write then), else a slot whose mark is M (a checkpoint stops at M, and nobody can restart the WAL). Under an exclusive lock of
 * this process nobody else can lock; the caller then copies on checkpoint, and M is what was published last. Under one of another
 * process, whose commits and checkpoints are not seen here, nothing is frozen.
 *
 * Layer: shim. Thread-safety: called by the image, under its guard mutex, except for read and size, which only the
 * image's reader calls.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vfs/base/io.h"
#include "vfs/base/str.h"
#include "vfs/capture/moved.h"
#include "vfs/capture/walfile.h"
#include "vfs/shim/handle.h"
#include "vfs/shim/walindex.h"

#define MARK_TRIES 100

static void release(void *ctx)
{
    lj_open *open = ctx;
    sqlite3_file *r = open->reader;
    if (r == NULL)
        return;
    if (open->reader_slot >= 0)
        r->pMethods->xShmLock(r, LJ_LOCK_READ0 + open->reader_slot, 1,
                              SQLITE_SHM_UNLOCK | SQLITE_SHM_SHARED);
    open->reader_slot = -1;
    if (open->reader_shared) {
        r->pMethods->xShmUnmap(r, 0);
        r->pMethods->xUnlock(r, SQLITE_LOCK_NONE);
    }
    open->reader_shared = false;
}

static void close_reader(void *ctx)
{
    lj_open *open = ctx;
    if (open->reader == NULL)
        return;
    release(open);
    if (open->reader->pMethods != NULL)
        open->reader->pMethods->xClose(open->reader);
    free(open->reader);
    open->reader = NULL;
}

static lj_code open_reader(lj_open *open, lj_error *err)
{
    close_reader(open);
    sqlite3_file *r = calloc(1, (size_t)open->base->szOsFile);
    if (r == NULL)
        return lj_error_nomem(err);
    open->reader = r;
    open->reader_slot = -1;
    open->reader_shared = false;
    int out = 0;
    int rc = open->base->xOpen(open->base, open->base_name + 4, r,
                               SQLITE_OPEN_MAIN_DB | SQLITE_OPEN_READWRITE, &out);
    if (rc != SQLITE_OK) {
        lj_error_set(err, LJ_IO, "cannot open the database for a snapshot: SQLite error %d", rc);
        return lj_error_retryable(err, true);
    }
    return LJ_OK;
}

/*
 * Opened by name, and so maybe another file than the application has open: the name still stands for the application's file, and
 * for the one that was opened.
 */
static lj_code check_same_file(lj_open *open, lj_error *err)
{
    int moved = 0;
    sqlite3_file *r = open->reader;
    if (!lj_db_in_place(open->db) ||
        (r->pMethods->xFileControl(r, SQLITE_FCNTL_HAS_MOVED, &moved) == SQLITE_OK && moved != 0))
        return lj_error_set(err, LJ_IO, "the database was moved, replaced or deleted");
    return LJ_OK;
}

static lj_code busy(lj_error *err, const char *why)
{
    lj_error_set(err, LJ_BUSY, "cannot freeze the database: %s", why);
    return lj_error_retryable(err, true);
}

/* A slot with the mark `frames`, setting it where a slot is free; -1 = none now. */
static int find_slot(sqlite3_file *r, volatile void *region, uint32_t frames)
{
    for (int i = 1; i < LJ_WALINDEX_READERS; i++) {
        if (lj_walindex_mark(region, i) == frames)
            return i;
    }
    for (int i = 1; i < LJ_WALINDEX_READERS; i++) {
        if (r->pMethods->xShmLock(r, LJ_LOCK_READ0 + i, 1,
                                  SQLITE_SHM_LOCK | SQLITE_SHM_EXCLUSIVE) != SQLITE_OK)
            continue;
        lj_walindex_set_mark(region, i, frames);
        r->pMethods->xShmLock(r, LJ_LOCK_READ0 + i, 1, SQLITE_SHM_UNLOCK | SQLITE_SHM_EXCLUSIVE);
        return i;
    }
    return -1;
}

/* One try. true = the lock of *ret_slot is held and *ret_index is what it froze. */
static bool try_mark(lj_open *open, volatile void *region, lj_walindex *ret_index, int *ret_slot)
{
    sqlite3_file *r = open->reader;
    lj_walindex now;
    lj_walindex again;
    if (!lj_walindex_read_whole(open, region, &now))
        return false;
    bool backfilled = lj_walindex_backfilled(region) == now.frames;
    int slot = backfilled ? 0 : find_slot(r, region, now.frames);
    if (slot < 0 || r->pMethods->xShmLock(r, LJ_LOCK_READ0 + slot, 1,
                                          SQLITE_SHM_LOCK | SQLITE_SHM_SHARED) != SQLITE_OK)
        return false;
    r->pMethods->xShmBarrier(r);
    bool same = lj_walindex_read(region, &again) &&
                memcmp(now.raw, again.raw, sizeof(now.raw)) == 0 &&
                (backfilled || lj_walindex_mark(region, slot) == now.frames);
    if (!same) {
        r->pMethods->xShmLock(r, LJ_LOCK_READ0 + slot, 1, SQLITE_SHM_UNLOCK | SQLITE_SHM_SHARED);
        return false;
    }
    *ret_index = now;
    *ret_slot = slot;
    return true;
}

/*
 * Nothing of the life is in the WAL any more (SALT of it; NULL: there was none), so all of it is in the database file. Not
 * everybody who empties the WAL tells: where no chain is active there is nothing to seal.
 */
static bool wal_emptied(const lj_open *open, const lj_wal_salt *salt)
{
    lj_error ignored = LJ_ERROR_INIT;
    LJ_CLEANUP(lj_walfile_close) lj_walfile file = LJ_WALFILE_INIT;
    lj_code code = lj_walfile_refresh(&file, open->db->wal_path, &ignored);
    return code == LJ_NOTFOUND ||
           (code == LJ_OK && salt != NULL && !lj_wal_salt_eq(file.header.salt, *salt));
}

/* No lock to be had: a connection of ours holds the file exclusively, so only its own commits and checkpoints count. */
static lj_code freeze_exclusive(lj_open *open, lj_freeze *ret_freeze, lj_error *err)
{
    lj_db *db = open->db;
    pthread_mutex_lock(&db->mutex);
    lj_life life = db->life;
    const lj_pending *p = &db->pending;
    /* the first transaction of a life waits for us: whatever was committed before is in the file */
    bool fresh =
        p->state == LJ_PENDING_OFFERED && (!life.known || !lj_wal_salt_eq(life.salt, p->end.salt));
    if (fresh)
        *ret_freeze = (lj_freeze){.page_size = p->end.page_size, .backfilled = true};
    bool sealed = db->chain.active && db->chain.sealed && db->chain.sealed_frames == life.frames;
    sealed = sealed || life.emptied;
    bool outside_wal = db->outside_wal;
    pthread_mutex_unlock(&db->mutex);
    if (fresh)
        return LJ_OK;
    if (outside_wal)
        return busy(err, "it is being written outside of WAL mode");
    if (wal_emptied(open, life.known ? &life.salt : NULL)) {
        *ret_freeze = (lj_freeze){
            .page_size = life.known ? life.page_size : 0, .backfilled = true, .held = false};
        return LJ_OK;
    }
    if (!life.known)
        return busy(err, "it is locked exclusively and nothing was committed yet");
    *ret_freeze = (lj_freeze){.salt = life.salt,
                              .frames = life.frames,
                              .page_size = life.page_size,
                              .db_pages = life.db_pages,
                              .backfilled = sealed,
                              .held = false};
    return LJ_OK;
}

/*
 * Mapping a wal-index that is not there would create it: beside a program that keeps its own in memory (exclusive mode), or
 * before one that must not make it (readonly_shm). The SHARED lock is held: nobody's last close takes it away meanwhile.
 */
static bool has_index(lj_open *open, uint64_t least_bytes)
{
    if (__atomic_load_n(&open->indexes, __ATOMIC_ACQUIRE) > 0)
        return true;
    LJ_CLEANUP(lj_freep) char *path = lj_str_printf("%s-shm", open->db->path);
    struct stat st;
    return path != NULL && stat(path, &st) == 0 && (uint64_t)st.st_size >= least_bytes;
}

/* Another process has it, or had it when it died. */
static bool index_is_there(lj_open *open)
{
    return has_index(open, 0);
}

/* The same, and there is something to read in it: else opening it would only change its length. */
static bool index_is_made(lj_open *open)
{
    return has_index(open, LJ_WALINDEX_REGION_BYTES);
}

/* A WAL that has to be recovered is left to the application: recovery takes as long as the WAL is large. */
static bool wal_is_empty(const lj_open *open)
{
    struct stat st;
    return stat(open->db->wal_path, &st) != 0 ? errno == ENOENT : st.st_size == 0;
}

/* What a crash outside of WAL mode left: to be rolled back by the application's own first read, and no snapshot before that. */
static bool has_hot_journal(const lj_open *open)
{
    lj_error ignored = LJ_ERROR_INIT;
    LJ_CLEANUP(lj_freep) char *path = lj_str_printf("%s-journal", open->db->path);
    LJ_CLEANUP(lj_closep) int fd = -1;
    uint8_t first = 0;
    size_t n = 0;
    if (path == NULL)
        return true;
    if (lj_io_open(path, O_RDONLY, 0, &fd, &ignored) != LJ_OK)
        return access(path, F_OK) == 0;
    return lj_io_pread(fd, &first, 1, 0, &n, &ignored) != LJ_OK || (n > 0 && first != 0);
}

/*
 * Makes the wal-index of an empty WAL. SQLite's recovery holds WRITE, CKPT and RECOVER exclusively meanwhile, and tells whoever meets
 * it that the database is busy. We hold RECOVER alone, and shared: so a recovery is refused, and as the lock can still be had shared,
 * SQLite takes it that nobody recovers, and tries again. Nobody else ever asks for that lock. Nothing can be committed before there is
 * a header; so as long as there is none, and nobody can make one, the WAL stays empty. Of two processes of ours only the one that
 * uploads takes snapshots.
 */
static void volatile *make_index(lj_open *open)
{
    sqlite3_file *r = open->reader;
    void volatile *region = NULL;
    if (lj_journal_mode_of(r) != LJ_JOURNAL_WAL || has_hot_journal(open) ||
        lj_view_map(open, r, 0, LJ_WALINDEX_REGION_BYTES, 0, &region) != SQLITE_OK ||
        r->pMethods->xShmLock(r, LJ_LOCK_RECOVER, 1, SQLITE_SHM_LOCK | SQLITE_SHM_SHARED) !=
            SQLITE_OK)
        return NULL;
    if (wal_is_empty(open) &&
        lj_view_map(open, r, 0, LJ_WALINDEX_REGION_BYTES, 1, &region) == SQLITE_OK &&
        region != NULL && lj_walindex_blank(region))
        lj_walindex_make(region);
    r->pMethods->xShmLock(r, LJ_LOCK_RECOVER, 1, SQLITE_SHM_UNLOCK | SQLITE_SHM_SHARED);
    return region;
}

/* Maps the wal-index. Where nobody has read the database in WAL mode yet there is none. */
static void volatile *map_index(lj_open *open)
{
    sqlite3_file *r = open->reader;
    void volatile *region = NULL;
    if (index_is_there(open) &&
        lj_view_map(open, r, 0, LJ_WALINDEX_REGION_BYTES, 0, &region) == SQLITE_OK &&
        region != NULL && !lj_walindex_blank(region))
        return region;
    return wal_is_empty(open) ? make_index(open) : NULL;
}

/* The SHARED lock is held. */
static lj_code freeze_shared(lj_open *open, lj_freeze *ret_freeze, lj_error *err)
{
    void volatile *region = map_index(open);
    if (region == NULL)
        return busy(err, "there is no wal-index yet");
    lj_walindex index;
    int slot = -1;
    for (int i = 0; i < MARK_TRIES && slot < 0; i++) {
        if (!try_mark(open, region, &index, &slot))
            slot = -1;
    }
    if (slot < 0)
        return busy(err, "every read mark is taken");
    open->reader_slot = slot;
    lj_walindex_view view = {.open = open, .region = region};
    if (!lj_db_publish_settled(open->db, lj_walindex_look, &view, NULL))
        return busy(err, "the wal-index is being written");
    *ret_freeze = (lj_freeze){.salt = index.salt,
                              .frames = index.frames,
                              .page_size = index.page_size,
                              .db_pages = index.frames == 0 ? 0 : index.db_pages,
                              .cksum = index.cksum,
                              .has_cksum = true,
                              .backfilled = slot == 0,
                              .held = true};
    return LJ_OK;
}

static lj_code freeze(void *ctx, lj_freeze *ret_freeze, lj_error *err)
{
    lj_open *open = ctx;
    LJ_TRY(open_reader(open, err));
    LJ_TRY(check_same_file(open, err));
    sqlite3_file *r = open->reader;
    /* without shared memory there is a WAL only under exclusive locking */
    if (r->pMethods->iVersion < 2 || r->pMethods->xShmMap == NULL)
        return freeze_exclusive(open, ret_freeze, err);
    if (r->pMethods->xLock(r, SQLITE_LOCK_SHARED) != SQLITE_OK)
        return atomic_load(&open->exclusives) > 0
                   ? freeze_exclusive(open, ret_freeze, err)
                   : busy(err, "another process has locked it exclusively");
    open->reader_shared = true;
    lj_code code = freeze_shared(open, ret_freeze, err);
    if (code != LJ_OK)
        release(open); /* at once: nobody could ask for it back (lj_image_convert) */
    return code;
}

/*
 * With a handle of its own: the snapshot's is in use for as long as an upload takes. Without a lock, which would be in the way of
 * somebody's last close, and could not be had during one that waits for us to ship what it committed. So that close may delete what
 * is mapped here: nobody else in this process may map it meanwhile (lj_view_map), or there would be two for one WAL.
 */
bool lj_freeze_look(lj_open *open)
{
    if (!index_is_made(open))
        return false;
    sqlite3_file *r = calloc(1, (size_t)open->base->szOsFile);
    lj_walindex_view view = {.open = open};
    void volatile *region = NULL;
    int out = 0;
    if (r == NULL)
        return false;
    if (open->base->xOpen(open->base, open->base_name + 4, r,
                          SQLITE_OPEN_MAIN_DB | SQLITE_OPEN_READWRITE, &out) == SQLITE_OK &&
        r->pMethods->iVersion >= 2 && r->pMethods->xShmMap != NULL) {
        if (r->pMethods->xShmMap(r, 0, LJ_WALINDEX_REGION_BYTES, 0, &region) == SQLITE_OK &&
            region != NULL) {
            view.region = region;
            (void)lj_db_publish_seen(open->db, lj_walindex_look, &view, NULL);
        }
        r->pMethods->xShmUnmap(r, 0);
    }
    if (r->pMethods != NULL)
        r->pMethods->xClose(r);
    free(r);
    return region != NULL;
}

static lj_code read_db(void *ctx, uint64_t off, void *out, size_t len, lj_error *err)
{
    lj_open *open = ctx;
    sqlite3_file *r = open->reader;
    int rc = r->pMethods->xRead(r, out, (int)len, (sqlite3_int64)off);
    if (rc == SQLITE_OK || rc == SQLITE_IOERR_SHORT_READ)
        return LJ_OK; /* what is missing was zeroed */
    lj_error_set(err, LJ_IO, "cannot read %zu bytes of the database at %llu: SQLite error %d", len,
                 (unsigned long long)off, rc);
    return lj_error_retryable(err, true);
}

static lj_code size_db(void *ctx, uint64_t *ret_bytes, lj_error *err)
{
    lj_open *open = ctx;
    sqlite3_int64 bytes = 0;
    int rc = open->reader->pMethods->xFileSize(open->reader, &bytes);
    if (rc != SQLITE_OK)
        return lj_error_set(err, LJ_IO, "cannot tell the size of the database: SQLite error %d",
                            rc);
    *ret_bytes = (uint64_t)bytes;
    return LJ_OK;
}

/*
 * Through the reader, which holds no lock any more. Where a connection of this process keeps it from one, no other process can have
 * one either. Another process that does, or did and took the wal-index away with its last close, wrote a checkpoint: that is no
 * place where anybody of ours can have been.
 */
static bool place(void *ctx, lj_image_place *ret_place)
{
    lj_open *open = ctx;
    sqlite3_file *r = open->reader;
    uint32_t frames;
    void volatile *region = NULL;
    if (open->reader_shared)
        return false;
    *ret_place = (lj_image_place){.attempted = UINT32_MAX};
    if (r->pMethods->xLock(r, SQLITE_LOCK_SHARED) != SQLITE_OK)
        return atomic_load(&open->exclusives) == 0;
    if (index_is_made(open) &&
        lj_view_map(open, r, 0, LJ_WALINDEX_REGION_BYTES, 0, &region) == SQLITE_OK &&
        region != NULL) {
        ret_place->attempted = lj_walindex_attempted(region);
        lj_walindex_peek(region, &ret_place->salt, &frames);
    }
    r->pMethods->xShmUnmap(r, 0);
    r->pMethods->xUnlock(r, SQLITE_LOCK_NONE);
    return true;
}

lj_dbfile lj_freeze_dbfile(lj_open *open)
{
    return (lj_dbfile){.ctx = open,
                       .freeze = freeze,
                       .release = release,
                       .read = read_db,
                       .size = size_db,
                       .place = place,
                       .close = close_reader,
                       .tick = open->guarded ? lj_readguard_tick : NULL};
}
