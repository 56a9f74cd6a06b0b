/*
 * durable.c - commits that wait for the replica (durability=remote and ack).
 *
 * remote: SQLite's last call of a commit that can still fail it, and before which nobody sees it, is the xWrite that completes
 * the commit frame. There the transaction is offered to the shipper, the WAL is synced while it travels, and the xWrite
 * returns when the store has acknowledged it. On failure the frame's header is overwritten with zeros below us and SQLite is
 * told SQLITE_IOERR_WRITE: it rolls back, and the frames are what a rolled back transaction leaves. Never SQLITE_BUSY: SQLite
 * would repeat the commit with a broken chain.
 *
 * Why not at the commit's xSync, where there is one: whether one follows is not to be seen from here. So the sync is done here
 * in any case, which also keeps an acknowledged commit through a power cut with synchronous=NORMAL, and SQLite's own, if
 * it comes, finds nothing to do.
 *
 * What SQLite writes behind the commit frame (padding, psow=0) are repetitions of it. If that fails, or anything else before
 * the wal-index is updated, the transaction is undone: see lj_db_pending_undo.
 *
 * ack: waits at FCNTL_COMMIT_PHASETWO, when the lock is released; other connections' commits go into the same object, and the
 * WAL is synced meanwhile. That is
 * also where a commit with durability=remote waits whose frames have no valid checksums (SQLite before 3.50.2: spill,
 * overwrite, ROLLBACK TO): it is committed by then, but it is not reported before the replica has it, by a snapshot.
 *
 * Rollback-journal mode: nothing can be waited for, so COMMIT is refused.
 *
 * Layer: shim. Runs in the connection's thread, in remote under the WAL write lock.
 */
#include <string.h>

#include "vfs/base/log.h"
#include "vfs/shim/handle.h"

static const char *const names[] = {
    [LJ_DURABILITY_LOCAL] = "local",
    [LJ_DURABILITY_REMOTE] = "remote",
    [LJ_DURABILITY_ACK] = "ack",
};

const char *lj_durable_name(lj_durability durability)
{
    return names[durability];
}

bool lj_durable_parse(const char *text, lj_durability *ret_durability)
{
    for (size_t i = 0; i < LJ_ARRAY_LEN(names); i++) {
        if (sqlite3_stricmp(text, names[i]) == 0) {
            *ret_durability = (lj_durability)i;
            return true;
        }
    }
    return false;
}

lj_code lj_durable_position(const char *text, lj_position *ret_at, lj_error *err)
{
    if (lj_position_parse(text, ret_at))
        return LJ_OK;
    lj_error_set(err, LJ_INVALID, "'%.60s' is no position", text);
    return lj_error_hint(err, "positions are GENERATION/INDEX:OFFSET, as PRAGMA litejoin_sync and "
                              "litejoin_status print them");
}

void lj_durable_open(lj_file *file, const lj_config *config)
{
    file->durability = config->durability;
    file->degrade = config->remote_on_failure == LJ_ON_FAILURE_DEGRADE;
    file->remote_timeout_ns = config->remote_timeout_ns;
}

bool lj_durable_tracks(const lj_file *wal)
{
    return wal->partner != NULL && wal->partner->durability == LJ_DURABILITY_REMOTE;
}

/* ------------------------------------------------------------------ taking a transaction back */

/* Makes the commit frame invalid, so that no recovery takes the transaction for committed. */
static void neutralise(lj_file *wal, uint64_t frame)
{
    static const uint8_t zeros[LJ_WAL_FRAME_HEADER_BYTES];
    const sqlite3_io_methods *m = wal->lower->pMethods;
    sqlite3_int64 off = (sqlite3_int64)lj_wal_frame_offset(wal->wal_page_size, frame);
    int rc = m->xWrite(wal->lower, zeros, sizeof(zeros), off);
    if (rc != SQLITE_OK)
        rc = m->xTruncate(wal->lower, off);
    if (rc == SQLITE_OK)
        rc = m->xSync(wal->lower, SQLITE_SYNC_NORMAL);
    if (rc != SQLITE_OK)
        lj_log(LJ_LOG_ERROR,
               "%s: a transaction whose COMMIT failed could not be removed from the WAL (SQLite "
               "error %d): if the process dies before the next commit, it may come back",
               wal->open->db->path, rc);
    wal->synced = false;
    lj_event_wal_failed(wal);
}

static void undo(lj_file *wal)
{
    lj_db *db = wal->open->db;
    uint64_t number = wal->pending;
    wal->pending = 0;
    neutralise(wal, wal->pending_frame);
    if (wal->partner != NULL)
        wal->partner->waited = false;
    lj_log(LJ_LOG_ERROR,
           "%s: COMMIT failed behind the wait for the replica; the transaction is taken back",
           db->path);
    lj_db_pending_undo(db, number);
}

/* Of a transaction that waited: not published is not committed. */
static void check_published(lj_file *wal)
{
    if (wal->pending == 0)
        return;
    if (lj_db_pending_is_over(wal->open->db, wal->pending))
        wal->pending = 0;
    else
        undo(wal);
}

void lj_durable_published(lj_file *file)
{
    lj_file *wal = file->partner;
    if (wal == NULL)
        return;
    wal->commit_body = 0;
    wal->commit_final = false;
    wal->synced = false; /* others write now, and this connection may checkpoint that */
    check_published(wal);
}

void lj_durable_before_write(lj_file *wal, sqlite3_int64 off)
{
    wal->synced = false;
    wal->flushed = false;
    if (wal->pending != 0 &&
        off < (sqlite3_int64)lj_wal_frame_offset(wal->wal_page_size, wal->pending_frame + 1))
        check_published(wal);
}

void lj_durable_close(lj_file *wal)
{
    check_published(wal);
}

/* ------------------------------------------------------------------ waiting */

static int fail_commit(lj_file *wal, uint64_t frame, int rc, const lj_error *err)
{
    neutralise(wal, frame);
    lj_error told = *err;
    (void)lj_error_context(&told, "COMMIT failed, durability=remote");
    lj_last_error_set(&told);
    lj_log_error(LJ_LOG_ERROR, wal->open->db->path, &told);
    return rc;
}

/* The WAL could not be synced: the disk's failure, whatever the store says. */
static int fail_sync(lj_file *wal, uint64_t number, uint64_t frame, int rc)
{
    lj_error err = LJ_ERROR_INIT;
    lj_db *db = wal->open->db;
    if (lj_db_pending_wait(db, number, 0, false, &err) == LJ_OK)
        lj_db_pending_undo(db, number);
    lj_error_set(&err, LJ_IO, "the WAL could not be synced: SQLite error %d", rc);
    return fail_commit(wal, frame, rc, &err);
}

/* Has this frame the page, the number and the content, of the one that waited? *ret_rc: what SQLite is told if that cannot be seen. */
static bool repeats_pending(const lj_file *wal, uint64_t frame, int *ret_rc)
{
    enum { NAME_BYTES = 8 }; /* of the header: page number and size of the database */
    uint8_t one[512];
    uint8_t other[512];
    uint64_t at = lj_wal_frame_offset(wal->wal_page_size, wal->pending_frame);
    uint64_t distance = lj_wal_frame_offset(wal->wal_page_size, frame) - at;
    uint64_t end = at + lj_wal_frame_bytes(wal->wal_page_size);
    size_t len = NAME_BYTES;
    *ret_rc = SQLITE_OK;
    while (at < end) {
        if (!lj_read_lower(wal, one, len, at) || !lj_read_lower(wal, other, len, at + distance)) {
            *ret_rc = SQLITE_IOERR_READ;
            return false;
        }
        if (memcmp(one, other, len) != 0)
            return false;
        at += len == NAME_BYTES ? LJ_WAL_FRAME_HEADER_BYTES : len;
        len = LJ_MIN(sizeof(one), (size_t)(end - at));
    }
    return true;
}

/*
 * Under exclusive locking a COMMIT of several databases that fails in a later one ends in the earlier ones without a call. That SQLite
 * goes on behind the transaction says that it published it.
 */
static void was_published(lj_file *wal)
{
    lj_db *db = wal->open->db;
    lj_db_publish(db, wal->wal_salt, wal->pending_frame, wal->wal_page_size, wal->pending_pages);
    (void)lj_db_pending_is_over(db, wal->pending);
    wal->pending = 0;
}

int lj_durable_commit(lj_file *wal)
{
    lj_file *file = wal->partner;
    lj_db *db = file->open->db;
    uint64_t frame = wal->commit_frame;
    int unread = SQLITE_OK;
    wal->commit_body = 0;
    wal->commit_final = false;
    if (wal->pending != 0) {
        /* padding (psow=0) is the commit frame once more */
        if (repeats_pending(wal, frame, &unread) || unread != SQLITE_OK)
            return unread;
        was_published(wal);
    }
    file->waited = false;
    if (file->degrade && lj_db_degraded(db)) {
        file->waited = true;
        return SQLITE_OK;
    }
    lj_event_ready(file);
    lj_wal_end end = {.salt = wal->wal_salt,
                      .frames = frame,
                      .page_size = wal->wal_page_size,
                      .db_pages = wal->commit_pages};
    uint64_t number = lj_db_pending_offer(db, &end);
    int rc = wal->lower->pMethods->xSync(wal->lower, SQLITE_SYNC_NORMAL);
    if (rc != SQLITE_OK)
        return fail_sync(wal, number, frame, rc);
    wal->synced = true;
    lj_error err = LJ_ERROR_INIT;
    lj_code code = lj_db_pending_wait(db, number, file->remote_timeout_ns, file->degrade, &err);
    if (code == LJ_CORRUPT) {
        /* SQLite's own mistake: only a snapshot can bring this to the replica, once it is published (phase two) */
        lj_log_error(LJ_LOG_WARN, db->path, &err);
        return SQLITE_OK;
    }
    if (code != LJ_OK && !file->degrade)
        return fail_commit(wal, frame, SQLITE_IOERR_WRITE, &err);
    wal->pending = number;
    wal->pending_frame = frame;
    wal->pending_pages = wal->commit_pages;
    file->waited = true;
    return SQLITE_OK;
}

/*
 * Behind a power cut the next open goes on with what the disk has. What the replica has acknowledged must be that, whatever
 * `synchronous` says. Syncs while the transaction travels.
 */
static int sync_published(lj_file *file)
{
    lj_file *wal = file->partner;
    if (wal == NULL || wal->flushed)
        return SQLITE_OK; /* by SQLite itself, with synchronous=FULL */
    lj_db_hurry(file->open->db);
    return wal->lower->pMethods->xSync(wal->lower, SQLITE_SYNC_NORMAL);
}

int lj_durable_phase_two(lj_file *file)
{
    uint64_t life = file->own_life;
    bool waited = file->waited;
    lj_db *db = file->open->db;
    file->own_life = 0;
    file->waited = false;
    if (file->durability == LJ_DURABILITY_LOCAL || life == 0 || waited ||
        (file->degrade && lj_db_degraded(db)))
        return SQLITE_OK;
    lj_error err = LJ_ERROR_INIT;
    int rc = sync_published(file);
    if (rc != SQLITE_OK)
        lj_error_set(&err, LJ_IO, "the WAL could not be synced: SQLite error %d", rc);
    else if (lj_db_wait_commit(db, life, file->own_frames, file->remote_timeout_ns, &err) == LJ_OK)
        return SQLITE_OK;
    (void)lj_error_context(&err, "committed locally, not yet acknowledged by the replica");
    lj_last_error_set(&err);
    lj_db_wait_failed(db, file->degrade, &err);
    return file->degrade ? SQLITE_OK : SQLITE_IOERR;
}

/* ------------------------------------------------------------------ rollback-journal mode */

void lj_durable_db_write(lj_file *file, const void *data, int len, sqlite3_int64 off)
{
    if (file->checkpointing)
        return;
    file->db_written = true;
    if (off == 0 && len >= 20)
        file->db_format = ((const uint8_t *)data)[18];
}

static void forget_writes(lj_file *file)
{
    file->db_written = false;
    file->db_format = 0;
    file->refusing = false;
    file->recovering = false;
}

int lj_durable_db_sync(lj_file *file)
{
    bool commit = file->db_written && !file->refusing && !file->recovering &&
                  file->db_format != 2; /* 2: to WAL mode */
    forget_writes(file);
    if (!commit || file->durability == LJ_DURABILITY_LOCAL || file->degrade)
        return SQLITE_OK;
    file->refusing = true;
    lj_error err = LJ_ERROR_INIT;
    lj_error_set(&err, LJ_UNSUPPORTED, "COMMIT refused: durability=%s needs journal_mode=WAL",
                 lj_durable_name(file->durability));
    lj_error_hint(&err, "run PRAGMA journal_mode=WAL first, or PRAGMA litejoin_durability=local");
    lj_last_error_set(&err);
    lj_log_error(LJ_LOG_ERROR, file->open->db->path, &err);
    return SQLITE_IOERR_FSYNC;
}

void lj_durable_db_unlock(lj_file *file)
{
    forget_writes(file);
}

/*
 * A transaction of SQLite's takes RESERVED first. Who goes from SHARED to EXCLUSIVE has found a hot journal; or it leaves WAL mode,
 * with the WAL open.
 */
void lj_durable_db_locked(lj_file *file)
{
    file->recovering = file->lock_level == SQLITE_LOCK_SHARED && file->partner == NULL;
    /* nobody else is in a transaction; and under exclusive locking no write lock follows */
    lj_event_write_locked(file);
}
