/*
 * events.c - translates SQLite's calls on the database, WAL and wal-index into what the capture layer needs to know.
 *
 * When is a transaction committed? In normal locking mode: when the WAL write lock is released and the wal-index header
 * shows its last frame. In exclusive mode SQLite takes no wal-index locks (and may have no wal-index): the commit is known at
 * COMMIT_PHASETWO, and its last frame is the last one written with a non-zero database size; frame headers are found by
 * file offset, because a write may be split or repeat an earlier frame.
 *
 * Layer: shim. Runs in application threads; see database.h for what may take how long.
 */
#include <stdlib.h>
#include <string.h>

#include "vfs/base/log.h"
#include "vfs/capture/walfile.h"
#include "vfs/shim/handle.h"
#include "vfs/shim/walindex.h"

#define NOTHING_SEEN UINT32_MAX

/* false: the wal-index, or what it shows, is being written at this moment. */
static bool publish_index(lj_file *file)
{
    lj_wal_end end;
    lj_walindex_view view = {.open = file->open, .region = file->index};
    if (!lj_db_publish_settled(file->open->db, lj_walindex_look, &view, &end))
        return false;
    file->seen_salt = end.salt;
    file->seen_frames = (uint32_t)end.frames;
    return true;
}

static bool index_moved(const lj_file *file)
{
    lj_wal_salt salt;
    uint32_t frames;
    lj_walindex_peek(file->index, &salt, &frames);
    return frames != file->seen_frames || !lj_wal_salt_eq(salt, file->seen_salt);
}

void lj_event_publish(lj_file *file)
{
    if (file->index != NULL && index_moved(file))
        (void)publish_index(file);
}

void lj_event_publish_again(lj_file *file)
{
    if (file->index != NULL)
        (void)publish_index(file);
}

/* What this connection published itself: it holds the write lock, so nobody else's commit can be newer. */
static void note_own(lj_file *file, lj_wal_salt salt, uint64_t frames)
{
    if (file->durability == LJ_DURABILITY_LOCAL)
        return;
    file->own_life = lj_db_life_number(file->open->db, salt);
    file->own_frames = frames;
}

void lj_event_write_unlock(lj_file *file)
{
    if (file->index != NULL && index_moved(file) && publish_index(file))
        note_own(file, file->seen_salt, file->seen_frames);
    lj_durable_published(file);
}

/* What is not seen cannot be decided upon: false while the wal-index is being written. */
static bool first_look(void *ctx)
{
    return publish_index(ctx);
}

/* Nothing is written over before it is known what became of it. */
void lj_event_write_locked(lj_file *file)
{
    if (file->index != NULL)
        lj_db_pending_next_writer(file->open->db, first_look, file);
}

void lj_event_ready(lj_file *file)
{
    /* without a wal-index, what stood in the WAL at open was published then */
    lj_db_ready(file->open->db, file->index != NULL ? first_look : NULL, file);
}

void lj_event_read_lock(lj_file *file)
{
    if (file->index == NULL)
        return;
    lj_readguard_take(
        file->open); /* before it is decided how to go on: what was decided must stay true */
    bool before = atomic_load(&file->open->db->ready);
    lj_db_ready(file->open->db, first_look, file);
    if (!before)
        lj_readguard_settle(file->open);
    lj_event_publish(file);
}

void lj_event_exclusive_commit(lj_file *file)
{
    if (file->lock_level < SQLITE_LOCK_EXCLUSIVE)
        return; /* published when the write lock was released */
    lj_db *db = file->open->db;
    lj_file *wal = file->partner;
    if (wal != NULL)
        lj_repair_forget(wal);
    if (file->index != NULL) {
        lj_event_ready(file);
        if (index_moved(file) && publish_index(file))
            note_own(file, file->seen_salt, file->seen_frames);
    } else if (wal != NULL && wal->commit_frame != 0 && wal->wal_page_size != 0) {
        /* this commit must not look like a part of what stood in the WAL at open */
        lj_event_ready(file);
        lj_db_publish(db, wal->wal_salt, wal->commit_frame, wal->wal_page_size, wal->commit_pages);
        note_own(file, wal->wal_salt, wal->commit_frame);
        wal->commit_frame = 0;
    }
    lj_durable_published(file);
}

/*
 * A transaction that is rolled back under exclusive locking ends without a call. What it left without checksums (repair.c) would
 * keep everybody of this process from looking, for ever.
 */
void lj_event_end_exclusive(lj_file *file)
{
    if (file->lock_level != SQLITE_LOCK_EXCLUSIVE || !lj_open_alive(file->open))
        return;
    if (file->partner != NULL)
        lj_repair_forget(file->partner);
    lj_image_unlocked(&file->open->guard);
}

/* ------------------------------------------------------------------ the WAL file */

/* At the first open: connections that come meanwhile wait in lj_db_ready. */
static bool scan_first(void *ctx)
{
    lj_open *open = ctx;
    lj_error err = LJ_ERROR_INIT;
    lj_wal_end end;
    lj_view_noted wal;
    lj_view_note(open, &wal);
    if (lj_walfile_end(open->db->wal_path, &end, &err) != LJ_OK)
        return false;
    lj_db_publish(open->db, end.salt, end.frames, end.page_size, end.db_pages);
    lj_view_looked(open, &wal);
    return true;
}

void lj_event_first_open(lj_open *open, bool wal_mode)
{
    if (wal_mode)
        lj_db_ready_alone(open->db, scan_first, open);
}

/* Beside other processes the caller looks. */
static bool scan_if_alone(void *ctx)
{
    lj_open *open = ctx;
    pthread_mutex_lock(&open->db->mutex);
    bool alone = !open->db->sharing;
    pthread_mutex_unlock(&open->db->mutex);
    return !alone || scan_first(open);
}

void lj_event_look(lj_file *file)
{
    lj_db *db = file->open->db;
    /* opened beside other processes, and not read since */
    if (!atomic_load(&db->ready) && lj_journal_mode_of(file->lower) == LJ_JOURNAL_WAL)
        lj_db_ready(db, scan_if_alone, file->open);
    db->shim.look(db->shim.ctx);
}

/*
 * The wal-index is in SQLite's own memory: all that is known of the WAL comes from its bytes. Read through the handle that is there,
 * because what cannot be read now is not known until the WAL begins anew.
 */
static void scan_exclusive(lj_file *wal)
{
    lj_db *db = wal->open->db;
    lj_error err = LJ_ERROR_INIT;
    uint8_t raw[LJ_WAL_HEADER_BYTES];
    lj_wal_header header;
    if (!lj_read_lower(wal, raw, sizeof(raw), 0) ||
        lj_wal_header_parse(raw, &header, &err) != LJ_OK) {
        lj_db_publish(db, (lj_wal_salt){0, 0}, 0, 0, 0);
        return;
    }
    wal->wal_salt = header.salt;
    wal->wal_page_size = header.page_size;
    size_t frame_bytes = lj_wal_frame_bytes(header.page_size);
    LJ_CLEANUP(lj_freep) uint8_t *bytes = malloc(frame_bytes);
    if (bytes == NULL) {
        lj_db_break(db, "there was no memory to read the WAL");
        return;
    }
    lj_wal_chain chain;
    lj_wal_frame frame;
    lj_wal_chain_start(&chain, &header);
    while (lj_read_lower(wal, bytes, frame_bytes,
                         lj_wal_frame_offset(header.page_size, chain.frames + 1)) &&
           lj_wal_chain_next(&chain, bytes, &frame) == LJ_WAL_FRAME_OK)
        ;
    lj_db_publish(db, header.salt, chain.committed, header.page_size, chain.db_pages);
}

void lj_event_wal_opened(lj_file *wal)
{
    lj_file *file = wal->partner;
    lj_db_outside_wal(file->open->db, false);
    lj_db_journal_mode(file->open->db, NULL);
    file->recovering = false; /* the lock was for the WAL, in exclusive mode */
    /* of this WAL; one that is recovered without a frame has salts of 0 */
    file->seen_frames = NOTHING_SEEN;
    if (file->lock_level >= SQLITE_LOCK_EXCLUSIVE && file->index == NULL)
        scan_exclusive(wal);
}

static void note_header(lj_file *wal, const uint8_t *data)
{
    lj_error err = LJ_ERROR_INIT;
    lj_wal_header header;
    if (lj_wal_header_parse(data, &header, &err) != LJ_OK)
        return;
    lj_db_wal_header(wal->open->db, header.salt);
    wal->wal_salt = header.salt;
    wal->wal_page_size = header.page_size;
    wal->commit_frame = 0;
    wal->head_have = 0;
}

/* A header with a db size ends a transaction; one that is written again without is of another transaction. */
static void note_frame_header(lj_file *wal, uint64_t frame)
{
    lj_wal_frame head;
    lj_wal_frame_parse(wal->head, &head);
    if (head.db_pages == 0) {
        if (frame == wal->commit_frame)
            wal->commit_frame = 0;
        return;
    }
    if (frame != wal->commit_frame)
        wal->commit_body = 0;
    wal->commit_frame = frame;
    wal->commit_pages = head.db_pages;
    wal->commit_final = lj_wal_salt_eq(head.salt, wal->wal_salt);
}

/* Collects the part of a frame header that this write covers; a complete one with a db size may end a transaction. */
static void note_frame_bytes(lj_file *wal, const uint8_t *data, uint64_t len, uint64_t off)
{
    uint64_t frame_bytes = lj_wal_frame_bytes(wal->wal_page_size);
    uint64_t at = off;
    while (at < off + len) {
        uint64_t frame = (at - LJ_WAL_HEADER_BYTES) / frame_bytes + 1;
        uint64_t inside = (at - LJ_WAL_HEADER_BYTES) % frame_bytes;
        if (inside >= LJ_WAL_FRAME_HEADER_BYTES) {
            uint64_t n = LJ_MIN(frame_bytes - inside, off + len - at);
            if (frame == wal->commit_frame &&
                inside == LJ_WAL_FRAME_HEADER_BYTES + wal->commit_body)
                wal->commit_body += (uint32_t)n;
            at += n;
            continue;
        }
        if (frame != wal->head_frame || inside == 0) {
            wal->head_frame = frame;
            wal->head_have = 0;
        }
        wal->head[inside] = data[at - off];
        wal->head_have |= UINT32_C(1) << inside;
        at++;
        if (wal->head_have == (UINT32_C(1) << LJ_WAL_FRAME_HEADER_BYTES) - 1) {
            wal->head_have = 0;
            note_frame_header(wal, frame);
        }
    }
}

/* With a wal-index another connection may have begun the WAL anew since this one wrote last. */
static void refresh_header(lj_file *wal)
{
    lj_wal_salt salt;
    uint32_t frames;
    uint8_t raw[LJ_WAL_HEADER_BYTES];
    lj_wal_header header;
    lj_error err = LJ_ERROR_INIT;
    const lj_file *file = wal->partner;
    if (file->index == NULL)
        return;
    lj_walindex_peek(file->index, &salt, &frames);
    if (wal->wal_page_size != 0 && lj_wal_salt_eq(salt, wal->index_salt))
        return;
    if (!lj_read_lower(wal, raw, sizeof(raw), 0) ||
        lj_wal_header_parse(raw, &header, &err) != LJ_OK)
        return;
    wal->index_salt = salt;
    wal->wal_salt = header.salt;
    wal->wal_page_size = header.page_size;
}

/*
 * Frame headers matter without a wal-index, which else says what was committed; and to a commit that waits, which must know
 * its last frame before it is committed.
 */
int lj_event_wal_write(lj_file *wal, const void *data, int len, sqlite3_int64 off)
{
    if (off == 0 && len >= (int)LJ_WAL_HEADER_BYTES) {
        note_header(wal, data);
        return SQLITE_OK;
    }
    const lj_file *file = wal->partner;
    if (file == NULL || off < (sqlite3_int64)LJ_WAL_HEADER_BYTES ||
        (file->index != NULL && !lj_durable_tracks(wal)))
        return SQLITE_OK;
    refresh_header(wal);
    if (wal->wal_page_size == 0)
        return SQLITE_OK;
    note_frame_bytes(wal, data, (uint64_t)len, (uint64_t)off);
    bool complete = wal->commit_frame != 0 && wal->commit_final &&
                    wal->commit_body == wal->wal_page_size && lj_durable_tracks(wal);
    return complete ? lj_durable_commit(wal) : SQLITE_OK;
}

/* What is repeated behind a commit frame, to the end of a sector, belongs to it. */
static bool pads(const lj_file *file)
{
    int can = file->lower->pMethods->xDeviceCharacteristics(file->lower);
    return (can & SQLITE_IOCAP_POWERSAFE_OVERWRITE) == 0;
}

void lj_event_wal_writing(lj_file *wal, sqlite3_int64 off)
{
    lj_file *file = wal->partner;
    if (wal->commit_frame == 0 || file == NULL || file->lock_level < SQLITE_LOCK_EXCLUSIVE ||
        off < (sqlite3_int64)lj_wal_frame_offset(wal->wal_page_size, wal->commit_frame + 1) ||
        pads(file))
        return;
    lj_event_exclusive_commit(file);
    wal->commit_frame = 0;
}

void lj_event_wal_failed(lj_file *wal)
{
    wal->commit_frame = 0;
    wal->head_have = 0;
}

void lj_event_wal_emptying(lj_open *open, bool going)
{
    lj_db_seal(open->db, going);
    /* behind the seal: a snapshot that begins later knows from it that all is in the file, where no lock tells (exclusive mode) */
    lj_image_wal_restarts(&open->guard);
    lj_db_wal_emptied(open->db);
}

void lj_event_header_comes(lj_file *wal)
{
    /* with locks, the life before was sealed by whoever restarted the WAL. Without them that is done here */
    if (wal->partner != NULL && wal->partner->lock_level < SQLITE_LOCK_EXCLUSIVE)
        lj_event_publish_again(wal->partner);
    lj_event_wal_emptying(wal->open, false);
}

/* ------------------------------------------------------------------ the database file */

/* In the thread of the connection that is about to write. */
static lj_code read_before_write(void *ctx, uint64_t off, void *out, size_t len, lj_error *err)
{
    sqlite3_file *lower = ((lj_file *)ctx)->lower;
    int rc = lower->pMethods->xRead(lower, out, (int)len, (sqlite3_int64)off);
    if (rc == SQLITE_OK || rc == SQLITE_IOERR_SHORT_READ)
        return LJ_OK; /* what is missing was zeroed */
    return lj_error_set(err, LJ_IO, "cannot read a page before it is overwritten: SQLite error %d",
                        rc);
}

void lj_event_db_overwritten(lj_file *file, uint64_t off, uint64_t len)
{
    lj_image_reader reader = {.ctx = file, .read = read_before_write};
    lj_image_before_write(&file->open->guard, off, len, &reader);
}

static const char sqlite_magic[16] = "SQLite format 3";

/* Bytes 18 and 19 of the header are 2 in WAL mode, 1 otherwise. */
int lj_journal_mode_of(sqlite3_file *lower)
{
    uint8_t head[100];
    sqlite3_int64 size = 0;
    const sqlite3_io_methods *m = lower->pMethods;
    if (m->xFileSize(lower, &size) != SQLITE_OK || size < (sqlite3_int64)sizeof(head) ||
        m->xRead(lower, head, sizeof(head), 0) != SQLITE_OK)
        return LJ_JOURNAL_NONE;
    if (memcmp(head, sqlite_magic, sizeof(sqlite_magic)) != 0)
        return LJ_JOURNAL_UNKNOWN;
    return head[18] == 2 ? LJ_JOURNAL_WAL : LJ_JOURNAL_ROLLBACK;
}

/* Page 1 is being written outside of a checkpoint: what journal mode does that mean? */
static void note_first_page(const lj_file *file, const uint8_t *data)
{
    lj_db *db = file->open->db;
    if (memcmp(data, sqlite_magic, sizeof(sqlite_magic)) == 0) {
        /* about to be switched (autowal.c): not worth a warning */
        if (data[18] != 1 || !file->auto_wal)
            lj_db_journal_mode(db, data[18] == 1 ? "delete" : NULL);
        return;
    }
    /* encrypted: one that had a WAL is leaving it; any other is being created, or on its way into WAL mode */
    pthread_mutex_lock(&db->mutex);
    bool had_wal = db->life.known;
    pthread_mutex_unlock(&db->mutex);
    if (had_wal)
        lj_db_journal_mode(db, "delete");
}

#define LJ_WRITTEN_OUTSIDE "the database was written outside of WAL mode"

void lj_event_db_write(lj_file *file, int len, sqlite3_int64 off)
{
    lj_open *open = file->open;
    /* first, so that a snapshot is either refused because of it or there to have the page saved (I63) */
    if (!file->checkpointing)
        lj_db_outside_wal(open->db, true);
    lj_event_db_overwritten(file, (uint64_t)off, (uint64_t)len);
    if (file->checkpointing)
        return;
    /* rollback-journal mode: creating a database, leaving or entering WAL mode, or staying outside of it */
    lj_db_break(open->db, LJ_WRITTEN_OUTSIDE);
}

/* Again: a snapshot that was frozen between the two does not have it. And only now does it show which mode it is. */
void lj_event_db_written(lj_file *file, const void *data, int len, sqlite3_int64 off)
{
    if (file->checkpointing)
        return;
    lj_db_break(file->open->db, LJ_WRITTEN_OUTSIDE);
    if (off == 0 && len >= 20)
        note_first_page(file, data);
}

/* ------------------------------------------------------------------ wal-index locks */

/* A snapshot of our own only goes on in another way; one of another process is lost when it gives way. */
#define LARGE_BESIDE_OTHERS (UINT64_C(64) << 20)

static bool wal_is_large(lj_db *db)
{
    pthread_mutex_lock(&db->mutex);
    lj_life life = db->life;
    bool follows = lj_db_follows_locked(db);
    pthread_mutex_unlock(&db->mutex);
    uint64_t limit = LJ_MAX(db->options.max_wal_size_bytes, follows ? LARGE_BESIDE_OTHERS : 0);
    return life.known && lj_wal_frame_offset(life.page_size, life.frames + 1) >= limit;
}

static lj_image_place place_of(const volatile void *index)
{
    uint32_t frames;
    lj_image_place place = {.attempted = lj_walindex_attempted(index)};
    lj_walindex_peek(index, &place.salt, &frames);
    return place;
}

/* By a handle that has not mapped the wal-index through any other one that has. */
static bool place_now(const lj_file *file, lj_image_place *ret_place)
{
    lj_open *open = file->open;
    const volatile void *index = file->index;
    if (index == NULL)
        pthread_mutex_lock(&open->view_mutex);
    bool there = index != NULL || open->views != NULL;
    if (there)
        *ret_place = place_of(index != NULL ? index : open->views->index);
    if (index == NULL)
        pthread_mutex_unlock(&open->view_mutex);
    return there;
}

bool lj_event_give_way(lj_file *file)
{
    lj_image_guard *guard = &file->open->guard;
    lj_image_place now;
    if (place_now(file, &now))
        return lj_image_convert(guard, &now);
    /* what another process checkpoints from here on could not be told from what was before: an image with a mark is given up */
    lj_image_yield(guard);
    return false;
}

/* The locks under which the database file is written, or the WAL begun anew. */
static bool moves_the_place(int ofst, int n)
{
    return ofst == LJ_LOCK_CKPT || (ofst == LJ_LOCK_READ0 + 1 && n == LJ_WALINDEX_READERS - 1);
}

void lj_event_locked(lj_file *file, int ofst, int n)
{
    if (!moves_the_place(ofst, n) || file->index == NULL)
        return;
    lj_image_place now = place_of(file->index);
    file->inside |= 1u << ofst;
    lj_image_enter(&file->open->guard, &now, ofst != LJ_LOCK_CKPT);
}

void lj_event_unlocking(lj_file *file, int ofst)
{
    if ((file->inside & (1u << ofst)) == 0 || file->index == NULL)
        return;
    lj_image_place now = place_of(file->index);
    file->inside &= ~(1u << ofst);
    lj_image_leave(&file->open->guard, &now, ofst != LJ_LOCK_CKPT);
}

void lj_event_make_room(lj_file *file, bool exclusive)
{
    if (!lj_event_give_way(file))
        (void)lj_db_ask_yield(file->open->db, exclusive);
}

/* Lock 4..7: somebody restarts the WAL, or makes sure that the next writer will. */
int lj_event_restart_lock(lj_file *file, int flags)
{
    lj_open *open = file->open;
    bool checkpoint = (file->exclusive & (1u << LJ_LOCK_CKPT)) != 0;
    lj_event_publish(file);
    if (lj_db_gate(open->db, checkpoint) == LJ_GATE_VETO)
        return SQLITE_BUSY;
    lj_readguard_step_aside(open);
    int rc = file->lower->pMethods->xShmLock(file->lower, LJ_LOCK_READ0 + 1, 4, flags);
    if (lj_is_busy(rc) && (checkpoint || wal_is_large(open->db))) {
        lj_event_make_room(file, false);
        rc = file->lower->pMethods->xShmLock(file->lower, LJ_LOCK_READ0 + 1, 4, flags);
    }
    if (rc == SQLITE_OK)
        lj_event_wal_emptying(open, false);
    else
        lj_readguard_return(open); /* else behind the unlock: file_shm_lock */
    return rc;
}

/*
 * A checkpoint must not see a snapshot's read mark. A passive one neither, although it says nothing of it: it would stop short,
 * the next reader would read from the WAL where it would not have without us, and then be in the way of a RESTART.
 */
static bool checkpoints(const lj_file *file)
{
    return (file->exclusive & (1u << LJ_LOCK_CKPT)) != 0;
}

int lj_event_retry_lock(lj_file *file, int ofst, int n, int flags, int rc)
{
    bool exclusive = (flags & SQLITE_SHM_EXCLUSIVE) != 0;
    if (!lj_is_busy(rc) || !exclusive)
        return rc;
    if ((ofst == LJ_LOCK_WRITE || ofst == LJ_LOCK_CKPT) && lj_readguard_wait(file->open))
        return file->lower->pMethods->xShmLock(file->lower, ofst, n, flags);
    if (ofst < LJ_LOCK_READ0 || !checkpoints(file))
        return rc;
    lj_event_make_room(file, false);
    /* tried again in any case, as in file_lock */
    return file->lower->pMethods->xShmLock(file->lower, ofst, n, flags);
}
