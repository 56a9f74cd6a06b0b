/*
 * gate.c - the restart gate of database.h: no committed frame of an active chain is destroyed before it is safe.
 *
 * Layer: capture. Runs in application threads, most often under SQLite's WAL write lock. The common case (everything
 * shipped, or nothing to protect) is a mutex and a few compares.
 */
#include "vfs/capture/gate.h"

#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#include "vfs/base/io.h"
#include "vfs/base/log.h"
#include "vfs/capture/moved.h"
#include "vfs/capture/session.h"
#include "vfs/capture/spool.h"

/* SQLite's own WAL of 1,000 pages */
#define LINK_SURPLUS_BYTES (UINT64_C(8) << 20)

/* Else another process has gone on since this one looked, or the chain begins behind this life: then no frame of it is missing. */
static bool is_the_chains_locked(const lj_db *db)
{
    return db->life.known && lj_chain_has_life(&db->chain, db->life.salt);
}

static bool all_safe_locked(const lj_db *db)
{
    bool shipped = db->safe_life == db->life.number && db->safe_frames >= db->life.frames;
    return !db->chain.active || !is_the_chains_locked(db) || shipped ||
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
    lj_db_enter(db);
    lj_db_extend_life_locked(db);
    uint64_t wal_bytes =
        db->life.known ? lj_wal_frame_offset(db->life.page_size, db->life.frames + 1) : 0;
    uint64_t limit_bytes = db->options.max_wal_size_bytes;
    if (wal_bytes < limit_bytes && (db->freezing || !all_safe_locked(db))) {
        gate = LJ_GATE_VETO;
        hurry = wal_bytes >= limit_bytes / 2 && !db->urgent;
        db->urgent = db->urgent || hurry;
        if (hurry)
            lj_db_call_locked(db);
    }
    lj_db_leave(db);
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
        return lj_ahead_spool(db, entry, fd, err);
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
    if (!db->chain.active || !is_the_chains_locked(db) || db->chain.sealed)
        return;
    db->chain.sealed = true;
    db->chain.sealed_frames = db->life.frames;
}

/* What of the current life is not shipped. */
static lj_spool_entry rest_locked(const lj_db *db)
{
    bool behind =
        db->pos.index < db->chain.index || strcmp(db->pos.generation, db->chain.generation) != 0;
    lj_spool_entry entry = {.end = lj_wal_frame_offset(db->life.page_size, db->life.frames + 1)};
    memcpy(entry.start.generation, db->chain.generation, LJ_GENERATION_MAX);
    entry.start.index = db->chain.index;
    entry.start.offset = behind ? 0 : db->pos.offset;
    entry.prev_end = entry.start.offset == 0 ? db->chain.prev_end : 0;
    return entry;
}

static bool fits_locked(const lj_db *db, const lj_spool_entry *entry)
{
    uint64_t bytes = entry->end - entry->start.offset;
    return db->spool_bytes + bytes <= db->options.max_spool_size_bytes;
}

bool lj_db_rest_locked(const lj_db *db, lj_spool_entry *ret_rest)
{
    *ret_rest = (lj_spool_entry){.end = 0};
    if (!db->life.known || !db->established || all_safe_locked(db))
        return false;
    *ret_rest = rest_locked(db);
    return ret_rest->end > ret_rest->start.offset && !past_layout_locked(db, ret_rest) &&
           fits_locked(db, ret_rest);
}

typedef struct {
    lj_spool_entry entry;
    bool fits;        /* there is room for it */
    bool past_layout; /* it could not be shipped from there */
} unshipped_rest;

/* Seals if that is safe. false: *ret_rest has to be in the spool first. */
static bool seal_if_safe(lj_db *db, bool going, unshipped_rest *ret_rest)
{
    lj_db_enter(db);
    lj_db_extend_life_locked(db);
    if (db->freezing)
        db->disturbed = true;
    db->life.emptied = !going;
    bool safe = all_safe_locked(db);
    if (safe) {
        db->ahead.expected = false;
        seal_locked(db);
    } else {
        db->ahead.expected = true;
        ret_rest->entry = rest_locked(db);
        ret_rest->fits = fits_locked(db, &ret_rest->entry);
        ret_rest->past_layout = past_layout_locked(db, &ret_rest->entry);
        db->spooling = true;
    }
    lj_db_leave(db);
    return safe;
}

/* The entry is in the spool. false: the chain is not what it was when the copy began; the entry is of no use. */
static bool seal_spooled(lj_db *db, const lj_spool_entry *entry)
{
    lj_db_enter(db);
    db->spooling = false;
    bool ours = db->chain.active && db->chain.index == entry->start.index &&
                strcmp(db->chain.generation, entry->start.generation) == 0;
    if (ours) {
        db->spool_bytes += entry->end - entry->start.offset;
        seal_locked(db);
    }
    int64_t due_ns = db->want_wake ? db->not_before_ns : -1;
    db->want_wake = false;
    if (lj_db_follows_locked(db)) {
        lj_db_call_locked(db);
        due_ns = 0;
    }
    lj_db_leave(db);
    if (!ours)
        lj_spool_remove_range(db->spool_dir, entry);
    if (due_ns >= 0)
        db->wake(db, due_ns);
    return ours;
}

static lj_code spool_and_seal(lj_db *db, const unshipped_rest *rest, bool going, bool *ret_sealed,
                              lj_error *err)
{
    const lj_spool_entry *entry = &rest->entry;
    lj_code code;
    if (rest->past_layout) {
        code = lj_error_set(err, LJ_UNSUPPORTED, LJ_PAST_LAYOUT_TEXT);
    } else if (rest->fits) {
        code = spool_rest(db, entry, going, err);
    } else {
        code = lj_error_set(err, LJ_NOSPACE,
                            "%" PRIu64 " unshipped bytes do not fit into max_spool_size",
                            entry->end - entry->start.offset);
        lj_error_hint(err, "find out why the replica is behind, or raise max_spool_size");
    }
    if (code == LJ_OK) {
        *ret_sealed = seal_spooled(db, entry);
        return LJ_OK;
    }
    pthread_mutex_lock(&db->mutex);
    db->spooling = false;
    pthread_mutex_unlock(&db->mutex);
    return code;
}

static void given_up(lj_db *db, const lj_error *err)
{
    lj_log_error(LJ_LOG_ERROR, db->path, err);
    lj_db_break(db, "frames left the WAL before they were shipped: %.120s", err->message);
}

void lj_db_wal_stays(lj_db *db)
{
    lj_error err = LJ_ERROR_INIT;
    if (lj_spool_copy_links(db->spool_dir, db->wal_path, &err) != LJ_OK)
        given_up(db, &err);
}

void lj_db_seal(lj_db *db, bool going)
{
    unshipped_rest rest;
    bool sealed = false;
    lj_db_pending_sealing(db);
    if (!going)
        lj_db_wal_stays(db); /* who was about to delete it may have been killed */
    /* again when the uploader of another process went over to the next index, or to the next generation, during the copy */
    while (!sealed && !seal_if_safe(db, going, &rest)) {
        lj_error err = LJ_ERROR_INIT;
        if (spool_and_seal(db, &rest, going, &sealed, &err) != LJ_OK) {
            given_up(db, &err);
            return;
        }
    }
}

void lj_db_wal_emptied(lj_db *db)
{
    lj_identity identity;
    bool there = lj_db_identity(db, &identity);
    lj_db_enter(db);
    lj_chain *chain = &db->chain;
    bool empty = chain->active && there && (chain->sealed || !chain->has_life);
    /* nobody may write the file while the WAL is empty: a whole life came and went in between, and was checkpointed */
    bool foreign = empty && chain->emptied && !lj_identity_eq(&chain->identity, &identity);
    if (empty && !foreign) {
        chain->emptied = true;
        chain->identity = identity;
    }
    lj_db_leave(db);
    if (foreign)
        lj_db_break(db, "%s", LJ_WRITTEN_WHILE_EMPTY);
}

void lj_db_wal_header(lj_db *db, lj_wal_salt salt)
{
    lj_db_enter(db);
    lj_chain *chain = &db->chain;
    /* without a chain as well: a first snapshot may just be freezing the empty WAL */
    if (!chain->active || chain->sealed || !chain->has_life) {
        chain->has_next = true;
        chain->next_salt = salt;
    }
    lj_db_leave(db);
}

void lj_db_guarded(lj_db *db, bool guarded)
{
    lj_db_enter(db);
    db->chain.guarded = guarded;
    lj_db_leave(db);
}

void lj_db_outside_wal(lj_db *db, bool outside)
{
    pthread_mutex_lock(&db->mutex);
    db->outside_wal = outside;
    pthread_mutex_unlock(&db->mutex);
}
