/*
 * attach.c - see attach.h.
 */
#include "vfs/capture/attach.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "vfs/base/io.h"
#include "vfs/base/log.h"
#include "vfs/base/str.h"
#include "vfs/capture/seat.h"
#include "vfs/capture/spool.h"
#include "vfs/capture/walfile.h"

typedef struct {
    lj_db *db;
    lj_saved_position saved;
    lj_chain record; /* of the shared page; valid if has_record */
    bool has_record;
    lj_life life;
    bool touched;
    lj_identity now; /* of the database file; valid with an empty WAL */
    lj_chain chain;  /* what comes out */
    uint64_t safe_frames;
    char reason[192]; /* why not */
    lj_error trouble; /* what could not be read; LJ_OK = all could */
} decision;

static bool refuse(decision *d, const char *fmt, ...) LJ_PRINTF(2, 3);
static bool refuse(decision *d, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(d->reason, sizeof(d->reason), fmt, ap);
    va_end(ap);
    return false;
}

/* What cannot be read decides like what is not there: at worst a new generation. But a lost database has nothing to begin one with. */
static lj_code note_trouble(decision *d, lj_code code, const lj_error *err)
{
    if (code != LJ_OK && code != LJ_NOTFOUND && code != LJ_CORRUPT)
        d->trouble = *err;
    return code;
}

/* The last of so many frames is the one that the position file has the checksum of, and so are all before it. */
static bool frames_unchanged(decision *d, uint64_t frames)
{
    lj_error err = LJ_ERROR_INIT;
    LJ_CLEANUP(lj_walfile_close) lj_walfile file = LJ_WALFILE_INIT;
    lj_code code = lj_walfile_refresh(&file, d->db->wal_path, &err);
    if (note_trouble(d, code, &err) != LJ_OK || !lj_wal_salt_eq(file.header.salt, d->life.salt))
        return false;
    if (frames == 0)
        return lj_wal_cksum_eq(file.header.cksum, d->saved.sum);
    lj_wal_frame frame;
    code = lj_walfile_frame(file.fd, d->saved.page_size, frames, &frame, &err);
    if (note_trouble(d, code, &err) != LJ_OK)
        return false;
    return lj_wal_cksum_eq(frame.cksum, d->saved.sum) && lj_wal_salt_eq(frame.salt, d->saved.salt);
}

static bool continue_in_life(decision *d)
{
    const lj_saved_position *saved = &d->saved;
    uint64_t shipped = lj_wal_frames_below(saved->page_size, saved->at.offset);
    if (d->life.frames < shipped)
        return refuse(d,
                      "the replica is ahead: it has %" PRIu64
                      " frames of this WAL, the local file %" PRIu64,
                      shipped, d->life.frames);
    if (saved->page_size != d->life.page_size || !frames_unchanged(d, shipped))
        return refuse(d, "the local WAL is not the one that was shipped up to offset %" PRIu64,
                      saved->at.offset);
    d->chain.index = saved->at.index;
    d->safe_frames = shipped;
    return true;
}

static bool continue_from_base(decision *d)
{
    const lj_saved_position *saved = &d->saved;
    if (d->life.frames < saved->base_frames)
        return refuse(d,
                      "the replica is ahead: its snapshot has %" PRIu64
                      " frames of this WAL, the local file %" PRIu64,
                      saved->base_frames, d->life.frames);
    /* a position file of a build before did not say */
    bool has_sum = lj_wal_salt_eq(saved->salt, saved->base_salt);
    if (has_sum &&
        (saved->page_size != d->life.page_size || !frames_unchanged(d, saved->base_frames)))
        return refuse(d, "the local WAL is not the one that the snapshot has %" PRIu64 " frames of",
                      saved->base_frames);
    d->chain.index = saved->at.index;
    d->chain.base_frames = saved->base_frames;
    d->chain.unused = d->life.frames == saved->base_frames;
    d->safe_frames = saved->base_frames;
    return true;
}

/* Where the index of the position ended, as the spool says of the next one; the position itself when it says nothing. */
static uint64_t end_by_spool(decision *d, const lj_position *at)
{
    uint64_t end = 0;
    lj_error err = LJ_ERROR_INIT;
    lj_code code = lj_spool_prev_end(d->db->spool_dir, at->generation, at->index + 1, &end, &err);
    return note_trouble(d, code, &err) == LJ_OK && end != 0 ? end : at->offset;
}

static bool spool_holds(decision *d, const lj_position *at)
{
    bool holds = false;
    lj_error err = LJ_ERROR_INIT;
    lj_code code = lj_spool_holds(d->db->spool_dir, at, &holds, &err);
    return note_trouble(d, code, &err) == LJ_OK && holds;
}

/* Between the position and the begin of index `next` nothing is missing: the rest is in the spool, or there is no rest. */
static bool spool_reaches(decision *d, uint32_t next, uint64_t end_of_last)
{
    lj_position at = d->saved.at;
    if (at.index > next)
        return refuse(d, "the position file is ahead of the shared page");
    if (at.index < next && !spool_holds(d, &at)) {
        uint64_t end = at.index + 1 == next ? end_of_last : end_by_spool(d, &at);
        if (at.offset != end)
            return refuse(d,
                          "index %" PRIu32 " ended at offset %" PRIu64 ", not at %" PRIu64
                          ", and the rest is gone",
                          at.index, end, at.offset);
    }
    for (at.index++, at.offset = 0; at.index < next; at.index++) {
        if (!spool_holds(d, &at))
            return refuse(d, "frames of index %" PRIu32 " are gone from the spool", at.index);
    }
    return true;
}

static bool continue_in_later_life(decision *d)
{
    const lj_chain *record = &d->record;
    if (record->index != d->saved.at.index)
        return spool_reaches(d, record->index, record->prev_end);
    /* the index had not begun when the position was written, or the snapshot's own life went by unused */
    return d->saved.at.offset == 0 ||
           refuse(d, "the local WAL is not the one that was shipped up to offset %" PRIu64,
                  d->saved.at.offset);
}

/* The index that follows the life of the record, and where the one before it ends; the replica and the spool reach it. */
static bool follow_record(decision *d)
{
    const lj_chain *record = &d->record;
    const lj_saved_position *saved = &d->saved;
    bool used = record->has_life &&
                !record->unused; /* else its index has not begun: the one before it ended last */
    uint64_t end = record->prev_end;
    if (used)
        end = saved->page_size == 0
                  ? 0
                  : lj_wal_frame_offset(saved->page_size, record->sealed_frames + 1);
    uint32_t next = used ? record->index + 1 : record->index;
    if (next == saved->at.index && saved->at.offset != 0)
        return refuse(d, "the position file is ahead of the shared page");
    if (next != saved->at.index && !spool_reaches(d, next, end))
        return false;
    d->chain.index = next;
    d->chain.prev_end = end;
    return true;
}

static bool decide_with_frames(decision *d)
{
    const lj_saved_position *saved = &d->saved;
    const lj_chain *record = &d->record;
    d->chain.has_life = true;
    d->chain.salt = d->life.salt;
    if (saved->at.offset > 0 && lj_wal_salt_eq(saved->salt, d->life.salt))
        return continue_in_life(d);
    if (saved->has_base && lj_wal_salt_eq(saved->base_salt, d->life.salt))
        return continue_from_base(d);
    if (d->has_record && lj_chain_has_life(record, d->life.salt)) {
        if (!continue_in_later_life(d))
            return false;
        d->chain.index = record->index;
        d->chain.prev_end = record->prev_end;
        return true;
    }
    /* killed between the first commit of a life and the note of it */
    if (d->has_record && record->has_next && lj_wal_salt_eq(record->next_salt, d->life.salt) &&
        (record->sealed || !record->has_life))
        return follow_record(d);
    return refuse(d, "the WAL (salts %08" PRIx32 " %08" PRIx32 ") was begun by somebody else",
                  d->life.salt.salt1, d->life.salt.salt2);
}

/* The spool has something for the index of the position, or a later one. */
static bool spool_is_used(const decision *d)
{
    lj_spool_entry entry;
    lj_error ignored = LJ_ERROR_INIT;
    const lj_position *at = &d->saved.at;
    return lj_spool_first(d->db->spool_dir, at->generation, at->index, false, &entry, &ignored) !=
           LJ_NOTFOUND;
}

/* The next life has not begun: the shared page keeps saying so. */
static bool still_empty(decision *d)
{
    d->chain.sealed = true;
    d->chain.emptied = true;
    d->chain.identity = d->now;
    d->chain.has_next = d->has_record && d->record.has_next;
    d->chain.next_salt = d->record.next_salt;
    return true;
}

static bool decide_without_frames(decision *d)
{
    const lj_saved_position *saved = &d->saved;
    const lj_identity *now = &d->now;
    if (!d->db->has_opened_identity)
        return refuse(d, "the database file is new");
    /* of this moment: others may have had the database since it was opened here */
    if (!lj_identity_of(d->db->path, &d->now))
        return refuse(d, "the database file cannot be looked at");
    if (d->db->ready_failures > 0 && !lj_identity_eq(now, &d->db->opened_identity))
        return refuse(d, "the database file changed while its state could not be read");
    if (saved->at.offset == 0 && !saved->has_base && saved->has_identity &&
        lj_identity_eq(&saved->identity, now)) {
        /* no life came and went since: a checkpoint would have written the file */
        if (spool_is_used(d))
            return refuse(d, "the spool has frames of a database that was lost");
        d->chain.index = saved->at.index;
        return still_empty(d);
    }
    if (!d->has_record || !d->record.emptied || !d->record.sealed ||
        !lj_identity_eq(&d->record.identity, now))
        return refuse(d, "the database file changed while nobody replicated it");
    return follow_record(d) && still_empty(d);
}

static bool decide(decision *d)
{
    lj_error err = LJ_ERROR_INIT;
    lj_code code = lj_saved_position_load(d->db->position_path, &d->saved, &err);
    if (code == LJ_NOTFOUND)
        return refuse(d, "nothing was replicated from here before");
    if (note_trouble(d, code, &err) != LJ_OK)
        return refuse(d, "%.150s", err.message);
    if (d->touched)
        return refuse(d, "the database was written outside of WAL mode");
    lj_session before;
    d->has_record = lj_shared_load(d->db->shared, &before) && before.chain.active &&
                    strcmp(before.chain.generation, d->saved.at.generation) == 0;
    if (d->has_record)
        d->record = before.chain;
    d->chain.active = true;
    memcpy(d->chain.generation, d->saved.at.generation, LJ_GENERATION_MAX);
    return d->life.known ? decide_with_frames(d) : decide_without_frames(d);
}

/* A copy of a state folder has not made what the original owns. */
static void settle_lineage(const lj_db *db, lj_saved_position *saved)
{
    LJ_CLEANUP(lj_freep) char *lock = lj_str_printf("%s/lock", db->state_dir);
    lj_home home = lock != NULL ? lj_home_of(lock) : (lj_home){.inode = 0};
    if (saved->home.inode != 0 && !lj_home_eq(&saved->home, &home)) {
        lj_log(LJ_LOG_WARN,
               "%s: %s is a copy: the generations that the original wrote are left to it", db->path,
               db->state_dir);
        saved->lineage_count = 0;
    }
    saved->home = home;
}

/* Where the local database stands, for whoever reads why it was not continued. */
static void describe_local(const lj_life *life, char *out, size_t size)
{
    if (!life->known)
        snprintf(out, size, "the local WAL is empty");
    else
        snprintf(out, size,
                 "the local WAL has salts %08" PRIx32 " %08" PRIx32 " and ends at %" PRIu64,
                 life->salt.salt1, life->salt.salt2,
                 lj_wal_frame_offset(life->page_size, life->frames + 1));
}

void lj_attach(lj_db *db, lj_saved_position *ret_saved)
{
    pthread_mutex_lock(&db->mutex);
    decision d = {.db = db, .life = db->life, .touched = db->touched};
    pthread_mutex_unlock(&db->mutex);
    bool go_on = decide(&d);
    /* killed at a rollover that was not written down: the life goes on under the index before it, and the next one is another life's */
    if (go_on && d.chain.has_life)
        lj_spool_drop_from(db->spool_dir, d.saved.at.generation, d.chain.index + 1);
    uint64_t spooled = go_on ? lj_spool_bytes(db->spool_dir, d.saved.at.generation) : 0;
    char at[LJ_POSITION_TEXT_MAX];
    lj_position_format(&d.saved.at, at);
    char local[80];
    describe_local(&d.life, local, sizeof(local));

    pthread_mutex_lock(&db->mutex);
    /* other connections wait for the attach, but another process may have committed meanwhile */
    if (go_on && db->life.number != d.life.number)
        go_on = refuse(&d, "the WAL began anew while it was being read");
    if (go_on && db->life.frames > d.life.frames)
        d.chain.unused = false;
    if (go_on) {
        db->chain = d.chain;
        db->pos = d.saved.at;
        db->safe_life = db->life.number;
        db->safe_frames = d.safe_frames;
        db->spool_bytes = spooled;
        db->shipped_life =
            db->life.known && d.chain.index == d.saved.at.index ? db->life.number : 0;
        db->shipped_frames = db->shipped_life != 0 ? d.safe_frames : 0;
        db->last_snapshot_ns = d.saved.snapshot_ns;
    } else {
        db->chain = (lj_chain){.active = false};
        db->broken = true;
        snprintf(db->broken_reason, sizeof(db->broken_reason), "%s", d.reason);
        if (d.saved.at.generation[0] != 0)
            snprintf(db->last_break, sizeof(db->last_break),
                     "%s cannot be continued: %.180s (%.79s)", at, d.reason, local);
    }
    db->saved = d.saved;
    pthread_mutex_unlock(&db->mutex);
    settle_lineage(db, &d.saved);
    *ret_saved = d.saved;
    if (go_on)
        lj_log(LJ_LOG_INFO, "%s: continuing at %s", db->path, at);
    else if (d.saved.at.generation[0] != 0)
        lj_log(LJ_LOG_WARN, "%s: a new generation begins, %s cannot be continued: %s (%s)",
               db->path, at, d.reason, local);
    else
        lj_log(LJ_LOG_INFO, "%s: a new generation begins: %s", db->path, d.reason);
}

/* ------------------------------------------------------------------ a database that is gone */

/* *ret_life: not known when nothing is committed in the WAL. */
static lj_code read_life(const char *wal_path, lj_life *ret_life, lj_error *err)
{
    lj_wal_end end;
    LJ_TRY(lj_walfile_end(wal_path, &end, err));
    if (end.frames > 0)
        *ret_life = (lj_life){.known = true,
                              .number = 1,
                              .salt = end.salt,
                              .frames = end.frames,
                              .page_size = end.page_size,
                              .db_pages = end.db_pages};
    return LJ_OK;
}

/* Somebody has a file open that has no name any more, and may be writing its WAL. */
static lj_code has_company(const lj_db *db, bool *ret_company, lj_error *err)
{
    LJ_CLEANUP(lj_freep) char *path = lj_str_printf("%s/lock", db->state_dir);
    LJ_CLEANUP(lj_closep) int fd = -1;
    if (path == NULL)
        return lj_error_nomem(err);
    LJ_TRY(lj_seat_open(path, &fd, err));
    *ret_company = lj_seat_company(fd);
    return LJ_OK;
}

/* Which index the WAL is, as at an open that finds the file. *ret_placed = false: it cannot be told, and d->reason says why. */
static lj_code place_wal(decision *d, bool *ret_placed, lj_error *err)
{
    LJ_CLEANUP(lj_freep) char *path = lj_str_printf("%s/shared", d->db->state_dir);
    bool company = false;
    *ret_placed = false;
    if (path == NULL)
        return lj_error_nomem(err);
    LJ_TRY(has_company(d->db, &company, err));
    if (company) {
        (void)refuse(d, "another process still has the lost database open, and its WAL");
        return LJ_OK;
    }
    LJ_TRY(lj_shared_open(path, &d->db->shared, err));
    *ret_placed = decide(d);
    lj_shared_close(d->db->shared);
    d->db->shared = NULL;
    if (*ret_placed || d->trouble.code == LJ_OK)
        return LJ_OK;
    if (err != NULL)
        *err = d->trouble;
    return d->trouble.code;
}

/* Without a WAL: the life of the last file in the spool is over, and none follows it. false: the replica has that life's end. */
static bool end_with_spool(decision *d, const lj_spool_entry *last)
{
    const lj_position *at = &d->saved.at;
    if (last->start.index < at->index)
        return false;
    d->chain = (lj_chain){.active = true,
                          .index = last->start.index + 1,
                          .prev_end = last->start.index == at->index ? LJ_MAX(last->end, at->offset)
                                                                     : last->end};
    memcpy(d->chain.generation, at->generation, LJ_GENERATION_MAX);
    return true;
}

/* What a WAL that was placed has behind the position. */
static uint64_t wal_rest(const lj_chain *chain, const lj_life *life, const lj_position *at)
{
    uint64_t end = lj_wal_frame_offset(life->page_size, life->frames + 1);
    uint64_t begin = chain->index == at->index ? at->offset : 0;
    return life->known && !chain->unused && end > begin ? end - begin : 0;
}

bool lj_attach_left_over(lj_db *db, const lj_position *at)
{
    pthread_mutex_lock(&db->mutex);
    bool over = at->index >= db->chain.index && wal_rest(&db->chain, &db->life, at) == 0;
    pthread_mutex_unlock(&db->mutex);
    return over;
}

uint64_t lj_attach_left_bytes(lj_db *db, const lj_position *at)
{
    pthread_mutex_lock(&db->mutex);
    uint64_t bytes = wal_rest(&db->chain, &db->life, at);
    pthread_mutex_unlock(&db->mutex);
    return bytes + lj_spool_bytes(db->spool_dir, at->generation);
}

/* The WAL's or the spool's end become the end of the chain. */
static lj_code choose_end(decision *d, lj_left *left, lj_error *err)
{
    const lj_db *db = d->db;
    const char *generation = d->saved.at.generation;
    lj_spool_entry last;
    bool placed = false;
    if (d->life.known)
        LJ_TRY(place_wal(d, &placed, err));
    if (placed) {
        lj_spool_drop_from(db->spool_dir, generation, d->chain.index + 1);
        left->any = wal_rest(&d->chain, &d->life, &d->saved.at) > 0 || spool_is_used(d);
        return LJ_OK;
    }
    if (d->life.known) {
        left->out_bytes = lj_wal_frame_offset(d->life.page_size, d->life.frames + 1);
        snprintf(left->reason, sizeof(left->reason), "%s", d->reason);
        d->life.known = false;
    }
    lj_code code = lj_spool_last(db->spool_dir, generation, &last, err);
    if (code != LJ_OK)
        return code == LJ_NOTFOUND ? LJ_OK : code;
    left->any = end_with_spool(d, &last);
    return LJ_OK;
}

/* A generation that was given up, or never got its snapshot into the replica. */
static void note_others(const lj_db *db, const char *generation, lj_left *left)
{
    uint64_t all = lj_spool_bytes(db->spool_dir, NULL);
    uint64_t own = lj_spool_bytes(db->spool_dir, generation);
    if (all <= own)
        return;
    left->out_bytes += all - own;
    if (left->reason[0] == 0)
        snprintf(left->reason, sizeof(left->reason),
                 "it is of another generation than %s, the newest in the replica", generation);
}

/* The position file, if it is of that generation. false: d->reason says why not. */
static lj_code load_position(decision *d, const char *generation, bool *ret_usable, lj_error *err)
{
    lj_code code = lj_saved_position_load(d->db->position_path, &d->saved, err);
    if (code != LJ_OK && code != LJ_NOTFOUND && code != LJ_CORRUPT)
        return code;
    bool same = code == LJ_OK && strcmp(d->saved.at.generation, generation) == 0;
    if (code != LJ_OK)
        (void)refuse(d, "there is no position file that verifies");
    else if (!same)
        (void)refuse(d, "it is of generation %s, and the newest in the replica is %s",
                     d->saved.at.generation, generation);
    *ret_usable = same;
    return LJ_OK;
}

lj_code lj_attach_left(lj_db *db, const char *generation, lj_left *ret_left, lj_error *err)
{
    lj_left left = {.any = false};
    lj_spool_entry ignored;
    decision d = {.db = db};
    bool usable = false;
    lj_code spool = lj_spool_last(db->spool_dir, NULL, &ignored, err);
    if (spool != LJ_OK && spool != LJ_NOTFOUND)
        return spool;
    LJ_TRY(read_life(db->wal_path, &d.life, err));
    bool something = spool == LJ_OK || d.life.known;
    if (something)
        LJ_TRY(load_position(&d, generation, &usable, err));
    if (usable) {
        LJ_TRY(choose_end(&d, &left, err));
        note_others(db, generation, &left);
    } else if (something) {
        left.out_bytes = lj_spool_bytes(db->spool_dir, NULL);
        if (d.life.known)
            left.out_bytes += lj_wal_frame_offset(d.life.page_size, d.life.frames + 1);
        snprintf(left.reason, sizeof(left.reason), "%s", d.reason);
    }
    *ret_left = left;
    if (!left.any)
        return LJ_OK;
    settle_lineage(db, &d.saved);
    pthread_mutex_lock(&db->mutex);
    db->chain = d.chain;
    db->life = d.life;
    db->session_life = d.life.number;
    db->session_salt = d.life.salt;
    db->pos = d.saved.at;
    db->saved = d.saved;
    db->spool_bytes = lj_spool_bytes(db->spool_dir, generation);
    db->attached = true;
    pthread_mutex_unlock(&db->mutex);
    return LJ_OK;
}

void lj_attach_tell_break_locked(lj_db *db, const char *reason)
{
    if (strstr(reason, db->chain.generation) != NULL) {
        snprintf(db->last_break, sizeof(db->last_break), "%s", reason);
        return;
    }
    char replica[LJ_POSITION_TEXT_MAX];
    char local[LJ_POSITION_TEXT_MAX];
    lj_position at = {.index = db->chain.index};
    memcpy(at.generation, db->chain.generation, sizeof(at.generation));
    if (db->life.known)
        at.offset = lj_wal_frame_offset(db->life.page_size, db->life.frames + 1);
    lj_position_format(&db->pos, replica);
    lj_position_format(&at, local);
    snprintf(db->last_break, sizeof(db->last_break),
             "%s (the replica is at %s, the local database at %s)", reason, replica, local);
}
