/*
 * gate.c - the restart gate of database.h: no committed frame of an active chain is destroyed before it is safe.
 *
 * Layer: capture. Runs in application threads, most often under SQLite's WAL write lock. The common case (everything
 * shipped, or nothing to protect) is a mutex and a few compares.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#include "vfs/base/io.h"
#include "vfs/base/log.h"
#include "vfs/capture/database.h"
#include "vfs/capture/moved.h"
#include "vfs/capture/spool.h"

/* SQLite's own WAL of 1,000 pages */
#define LINK_SURPLUS_BYTES (UINT64_C(8) << 20)

static bool all_safe_locked(const lj_db *db)
{
    return !db->chain.active || !db->life.known || db->safe_frames >= db->life.frames ||
           (db->chain.sealed && db->chain.sealed_frames >= db->life.frames);
}

void lj_db_hurry(lj_db *db)
{
    pthread_mutex_lock(&db->mutex);
    db->urgent = true;
    pthread_mutex_unlock(&db->mutex);
    db->wake(db, 0);
}

lj_gate lj_db_gate(lj_db *db, bool checkpoint)
{
    if (checkpoint)
        return LJ_GATE_ALLOW;
    lj_gate gate = LJ_GATE_ALLOW;
    bool hurry = false;
    pthread_mutex_lock(&db->mutex);
    uint64_t wal_bytes =
        db->life.known ? lj_wal_frame_offset(db->life.page_size, db->life.frames + 1) : 0;
    uint64_t limit_bytes = db->options.max_wal_size_bytes;
    if (wal_bytes < limit_bytes && (db->freezing || !all_safe_locked(db))) {
        gate = LJ_GATE_VETO;
        hurry = wal_bytes >= limit_bytes / 2 && !db->urgent;
        db->urgent = db->urgent || hurry;
    }
    pthread_mutex_unlock(&db->mutex);
    if (hurry)
        db->wake(db, 0);
    return gate;
}

bool lj_db_may_restart(lj_db *db, lj_wal_salt salt, uint64_t frames)
{
    pthread_mutex_lock(&db->mutex);
    bool may = db->chain.active && db->established && !db->freezing && db->life.known &&
               lj_wal_salt_eq(db->life.salt, salt) && db->life.frames == frames;
    pthread_mutex_unlock(&db->mutex);
    return may && lj_db_gate(db, false) == LJ_GATE_ALLOW;
}

/* Copies or links what is not shipped of the current life. Runs without the mutex: the caller's WAL lock keeps the
 * life as it is, and a shipper that moves on meanwhile only makes the spooled range larger than needed. */
static lj_code spool_rest(lj_db *db, const lj_spool_entry *entry, bool going, lj_error *err)
{
    LJ_CLEANUP(lj_closep) int fd = -1;
    LJ_TRY(lj_io_open(db->wal_path, O_RDONLY, 0, &fd, err));
    if (!going)
        return lj_spool_copy(db->spool_dir, entry, fd, err);
    /* a link keeps all of the file: only where it is not much more than what is needed, or a copy finds no room */
    struct stat st;
    uint64_t surplus = 0;
    if (fstat(fd, &st) == 0 && (uint64_t)st.st_size > entry->end - entry->start.offset)
        surplus = (uint64_t)st.st_size - (entry->end - entry->start.offset);
    if (surplus > LINK_SURPLUS_BYTES && lj_spool_copy(db->spool_dir, entry, fd, err) == LJ_OK)
        return LJ_OK;
    return lj_spool_link(db->spool_dir, entry, db->wal_path, fd, err);
}

/* Frames that no segment could bring to the replica: see upload.c. */
static bool past_layout_locked(const lj_db *db, const lj_spool_entry *entry)
{
    uint64_t base = db->chain.base_frames > 0
                        ? lj_wal_frame_offset(db->life.page_size, db->chain.base_frames + 1)
                        : 0;
    return LJ_MAX(entry->start.offset, base) > LJ_OFFSET_MAX;
}

static void seal_locked(lj_db *db)
{
    if (!db->chain.active || !db->chain.has_life || db->chain.sealed)
        return;
    db->chain.sealed = true;
    db->chain.sealed_frames = db->life.frames;
    lj_db_chain_store_locked(db);
}

void lj_db_seal(lj_db *db, bool going)
{
    lj_error err = LJ_ERROR_INIT;
    pthread_mutex_lock(&db->mutex);
    if (db->freezing)
        db->disturbed = true;
    db->wal_deleted = db->wal_deleted || going;
    db->life.emptied = !going;
    if (all_safe_locked(db)) {
        seal_locked(db);
        pthread_mutex_unlock(&db->mutex);
        return;
    }
    bool behind =
        db->pos.index < db->chain.index || strcmp(db->pos.generation, db->chain.generation) != 0;
    lj_spool_entry entry = {.end = lj_wal_frame_offset(db->life.page_size, db->life.frames + 1)};
    memcpy(entry.start.generation, db->chain.generation, LJ_GENERATION_MAX);
    entry.start.index = db->chain.index;
    entry.start.offset = behind ? 0 : db->pos.offset;
    uint64_t bytes = entry.end - entry.start.offset;
    bool fits = db->spool_bytes + bytes <= db->options.max_spool_size_bytes;
    bool past_layout = past_layout_locked(db, &entry);
    db->spooling = true;
    pthread_mutex_unlock(&db->mutex);

    lj_code code = LJ_OK;
    if (past_layout) {
        code = lj_error_set(&err, LJ_UNSUPPORTED, LJ_PAST_LAYOUT_TEXT);
    } else if (!fits) {
        code = lj_error_set(&err, LJ_NOSPACE,
                            "%" PRIu64 " unshipped bytes do not fit into max_spool_size", bytes);
        lj_error_hint(&err, "find out why the replica is behind, or raise max_spool_size");
    } else {
        code = spool_rest(db, &entry, going, &err);
    }
    if (code != LJ_OK) {
        pthread_mutex_lock(&db->mutex);
        db->spooling = false;
        pthread_mutex_unlock(&db->mutex);
        lj_log_error(LJ_LOG_ERROR, db->path, &err);
        lj_db_break(db, "frames left the WAL before they were shipped: %.120s", err.message);
        return;
    }
    pthread_mutex_lock(&db->mutex);
    db->spooling = false;
    bool ours = db->chain.active && strcmp(db->chain.generation, entry.start.generation) == 0;
    if (ours)
        db->spool_bytes += bytes;
    if (ours || all_safe_locked(db))
        seal_locked(db);
    int64_t due_ns = db->want_wake ? db->not_before_ns : -1;
    db->want_wake = false;
    pthread_mutex_unlock(&db->mutex);
    if (!ours)
        lj_spool_remove(db->spool_dir, &entry); /* the generation was given up meanwhile */
    if (due_ns >= 0)
        db->wake(db, due_ns);
}

void lj_db_wal_emptied(lj_db *db)
{
    lj_identity identity;
    bool there = lj_db_identity(db, &identity);
    pthread_mutex_lock(&db->mutex);
    if (db->chain.active && there && (db->chain.sealed || !db->chain.has_life)) {
        db->chain.emptied = true;
        db->chain.identity = identity;
        lj_db_chain_store_locked(db);
    }
    pthread_mutex_unlock(&db->mutex);
}

void lj_db_wal_header(lj_db *db, lj_wal_salt salt)
{
    pthread_mutex_lock(&db->mutex);
    if (db->chain.active && (db->chain.sealed || !db->chain.has_life)) {
        db->chain.has_next = true;
        db->chain.next_salt = salt;
        lj_db_chain_store_locked(db);
    }
    pthread_mutex_unlock(&db->mutex);
}
