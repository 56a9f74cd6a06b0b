/*
 * resume.c - once per open, before the first object: does the replica agree with the position file?
 *
 * The position file says how far the replica was when this machine last heard of it. A rolled-back volume, a second writer
 * or somebody who emptied the bucket make that untrue; each means a new generation. One LIST.
 *
 * Layer: ship. Runs in the shipping task.
 */
#include <inttypes.h>

#include "vfs/capture/session.h"
#include "vfs/replica/inventory.h"
#include "vfs/ship/internal.h"

static lj_code agree(const lj_generation_info *found, const lj_saved_position *saved, lj_error *err)
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
        /* a segment exactly at our position is an acknowledgement we did not hear: upload.c compares it */
        if (lj_position_compare(&theirs, &saved->at) > 0) {
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
    lj_db_enter(s->db);
    s->db->last_snapshot_ns = newest->created_ns;
    lj_db_leave(s->db);
}

lj_code lj_resume_check(lj_shipper *s, lj_error *err)
{
    lj_inventory *inventory = NULL;
    LJ_TRY(lj_inventory_read(s->storage, s->saved.at.generation, &inventory, err));
    const lj_generation_info *found = lj_inventory_find(inventory, s->saved.at.generation);
    lj_code code = agree(found, &s->saved, err);
    if (code == LJ_OK)
        note_newest_snapshot(s, found);
    lj_inventory_free(inventory);
    return code;
}
