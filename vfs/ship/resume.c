/*
 * resume.c - once per open, before the first object: does the replica agree with the position file?
 *
 * The position file says how far the replica was when this machine last heard of it. A rolled-back volume, a second writer
 * or somebody who emptied the bucket make that untrue; each means a new generation. One LIST.
 *
 * Layer: ship. Runs in the shipping task.
 */
#include <inttypes.h>

#include "vfs/replica/inventory.h"
#include "vfs/ship/internal.h"

/* Nothing stands behind the position locally that an object at it could be. */
static bool nothing_left(lj_db *db, const lj_position *at)
{
    pthread_mutex_lock(&db->mutex);
    const lj_life *life = &db->life;
    const lj_chain *chain = &db->chain;
    bool more = db->spool_bytes > 0 || db->pending.state != LJ_PENDING_NONE;
    if (chain->has_life && life->known && !chain->unused && at->index == chain->index)
        more = more || lj_wal_frame_offset(life->page_size, life->frames + 1) > at->offset;
    pthread_mutex_unlock(&db->mutex);
    return !more;
}

static lj_code agree(lj_db *db, const lj_generation_info *found, const lj_saved_position *saved,
                     lj_error *err)
{
    char ours[LJ_POSITION_TEXT_MAX];
    lj_position_format(&saved->at, ours);
    if (found == NULL || found->snapshot_count == 0)
        return lj_error_set(err, LJ_CONFLICT, "the replica no longer has generation %s",
                            saved->at.generation);
    if (found->segment_count > 0) {
        const lj_segment_info *last = &found->segments[found->segment_count - 1];
        lj_position theirs = saved->at;
        theirs.index = last->index;
        theirs.offset = last->offset;
        /* a segment exactly at our position is an acknowledgement we did not hear: upload.c compares it. With nothing to
         * compare it is a transaction whose COMMIT failed, or one that a power cut took */
        int order = lj_position_compare(&theirs, &saved->at);
        if (order > 0 || (order == 0 && nothing_left(db, &saved->at))) {
            char text[LJ_POSITION_TEXT_MAX];
            lj_position_format(&theirs, text);
            return lj_error_set(err, LJ_CONFLICT,
                                "the replica is ahead: it has %s, the local database is at %s",
                                text, ours);
        }
    }
    if (found->snapshots[found->snapshot_count - 1].index > saved->at.index)
        return lj_error_set(err, LJ_CONFLICT,
                            "the replica is ahead: it has a snapshot of index %" PRIu32
                            ", the local database is at %s",
                            found->snapshots[found->snapshot_count - 1].index, ours);
    return LJ_OK;
}

/* The snapshot timer goes by the replica: a restored database's position file does not know when the snapshot was taken. */
static void note_newest_snapshot(lj_shipper *s, const lj_generation_info *found)
{
    const lj_snapshot_info *newest = &found->snapshots[found->snapshot_count - 1];
    if (s->saved.snapshot_ns == newest->created_ns && s->saved.snapshot_at.index == newest->index)
        return;
    s->saved.snapshot_ns = newest->created_ns;
    s->saved.snapshot_at.index = newest->index;
    s->unsaved = true;
    pthread_mutex_lock(&s->db->mutex);
    s->db->last_snapshot_ns = newest->created_ns;
    pthread_mutex_unlock(&s->db->mutex);
}

lj_code lj_resume_check(lj_shipper *s, lj_error *err)
{
    lj_inventory *inventory = NULL;
    LJ_TRY(lj_inventory_read(s->storage, s->saved.at.generation, &inventory, err));
    const lj_generation_info *found = lj_inventory_find(inventory, s->saved.at.generation);
    lj_code code = agree(s->db, found, &s->saved, err);
    if (code == LJ_OK)
        note_newest_snapshot(s, found);
    lj_inventory_free(inventory);
    return code;
}
