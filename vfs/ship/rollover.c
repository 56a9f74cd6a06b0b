/*
 * rollover.c - begins a new index in the middle of a life of the WAL.
 *
 * An index can carry one snapshot that is worth its bytes: restoring replays the index from its offset 0, so a second snapshot
 * of the same index would save nothing, and would take the place of the first. But a life of the WAL can last for days on
 * a database with few writes. So the life goes on under the next index, which begins with the same frames again: its first
 * segment is the whole WAL from offset 0 to at least what was shipped under the old index (that is what `base` makes sure
 * of, as behind the first snapshot of a generation). Whoever restores an older snapshot replays these frames twice and
 * ends where it should: every page they touch is written again in the same order, up to the newest version. The price is
 * one more upload of the WAL (4 MiB with SQLite's default checkpoint) per snapshot.
 *
 * Layer: ship. Runs in the shipping task. Source: replica-format 3 and 9.5 (indexes are consecutive and each a valid WAL).
 */
#include <inttypes.h>
#include <string.h>

#include "vfs/base/log.h"
#include "vfs/capture/session.h"
#include "vfs/ship/internal.h"

/*
 * Everything that was shipped belongs to the current life, and nothing of it is in the spool or on its way there: what is
 * spooled is a range of the old index, and would not bring the begin of the next one.
 */
static bool possible_locked(const lj_shipper *s)
{
    const lj_db *db = s->db;
    return db->established && db->chain.active && db->chain.has_life && !db->chain.unused &&
           db->life.known && db->spool_bytes == 0 && !db->spooling &&
           s->saved.at.index == db->chain.index && s->saved.at.offset > 0 &&
           s->saved.at.offset <=
               LJ_OFFSET_MAX && /* behind it nothing more can follow in this life */
           db->chain.index < LJ_INDEX_MAX;
}

/*
 * Behind the move nobody knows any more what was shipped under the old index: so the database is told of all of it before, also of
 * what could not be written into the position file when it was acknowledged.
 */
static lj_code tell_before(lj_shipper *s, lj_error *err)
{
    lj_db *db = s->db;
    LJ_TRY(lj_ship_save(s, err));
    pthread_mutex_lock(&db->mutex);
    lj_db_refresh_locked(db);
    bool possible = possible_locked(s);
    lj_chain chain = db->chain;
    lj_life life = db->life;
    life.number = db->session_life;
    lj_position known = db->pos;
    pthread_mutex_unlock(&db->mutex);
    if (possible)
        lj_ship_tell(s, &chain, &life, &known);
    return LJ_OK;
}

lj_code lj_rollover(lj_shipper *s, lj_error *err)
{
    lj_db *db = s->db;
    lj_saved_position *saved = &s->saved;
    pthread_mutex_lock(&db->mutex);
    bool wanted = s->rollover_wanted;
    pthread_mutex_unlock(&db->mutex);
    if (!wanted)
        return LJ_OK;
    LJ_TRY(tell_before(s, err));
    lj_db_enter(db);
    /* an index without a snapshot gets this one; whoever asked wants to know no more than whether it may be put */
    bool possible = db->chain.index <= lj_newest_snapshot_locked(s)->index && possible_locked(s);
    if (possible) {
        uint64_t frames = lj_wal_frames_below(saved->page_size, saved->at.offset);
        saved->has_base = true;
        saved->base_salt = saved->salt;
        saved->base_frames = frames;
        db->chain.prev_end = saved->at.offset;
        db->chain.index++;
        db->chain.base_frames = frames;
        db->chain.unused = db->life.frames == frames;
        saved->mark_end = saved->at.offset;
        saved->prev_end = 0; /* the index repeats what is missing before it */
        saved->at.index++;
        saved->at.offset = 0;
        db->pos = saved->at;
        s->unsaved = true;
    }
    lj_db_leave(db);
    /* the snapshot task goes on only now: an object of the next index must find its name in the position file */
    LJ_TRY(lj_ship_save(s, err));
    LJ_TRY(lj_resume_after_rest(s, err)); /* a mark and a snapshot are puts like any (I52) */
    LJ_TRY(lj_end_mark(s, err));
    LJ_TRY(lj_ship_save(s, err));
    pthread_mutex_lock(&db->mutex);
    s->rollover_wanted = false;
    pthread_cond_broadcast(&db->cond);
    pthread_mutex_unlock(&db->mutex);
    if (possible)
        lj_log(LJ_LOG_DEBUG, "%s: index %08" PRIx32 " begins within the same WAL", db->path,
               saved->at.index);
    return LJ_OK;
}
