/*
 * salvage.c - see salvage.h.
 *
 * A database object that takes part in nothing, with a chain that ends where spool and WAL end (lj_attach_left), and the shipper's own
 * steps over it. So every rule of shipping holds here too: verified frames, if absent, end marks, labels, the position file behind
 * each object. What differs is the question before the first object. A shipper that finds the replica behind its position begins
 * a generation with a snapshot; here there is nothing to take one of, and an object behind a hole would only make the generation
 * useless. So the replica has to reach the position.
 */
#include "vfs/ship/salvage.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "vfs/base/clock.h"
#include "vfs/base/log.h"
#include "vfs/base/retry.h"
#include "vfs/capture/spool.h"
#include "vfs/ship/internal.h"

/* As a restore does with its listing: an open must not fail for a hiccup. */
#define ATTEMPTS         4u
#define FIRST_PAUSE_NS   (250 * LJ_NS_PER_MS)
#define LONGEST_PAUSE_NS (2 * LJ_NS_PER_S)
#define LONG_AGO_NS      INT64_C(1)

static void wake_nobody(lj_db *db, int64_t due_ns)
{
    (void)db;
    (void)due_ns;
}

/* The newest segment in front of the position. NULL: there is none. */
static const lj_segment_info *segment_before(const lj_generation_info *found, const lj_position *at)
{
    const lj_segment_info *before = NULL;
    for (size_t i = 0; i < found->segment_count; i++) {
        const lj_segment_info *segment = &found->segments[i];
        if (segment->index < at->index ||
            (segment->index == at->index && segment->offset < at->offset))
            before = segment;
    }
    return before;
}

/* LJ_CONFLICT: something is missing between what the replica has and the position. */
static lj_code check_reach(lj_shipper *s, const lj_generation_info *found, lj_error *err)
{
    const lj_saved_position *saved = &s->saved;
    lj_position wanted = saved->at;
    /* a restore begins with this snapshot, whatever is before it */
    if (wanted.offset == 0 && found->snapshots[found->snapshot_count - 1].index == wanted.index)
        return LJ_OK;
    if (wanted.offset == 0) {
        wanted.index--;
        wanted.offset = saved->mark_end != 0 ? saved->mark_end : saved->prev_end;
    }
    const lj_segment_info *before = segment_before(found, &saved->at);
    if (before != NULL && before->index == wanted.index) {
        char key[LJ_NAME_MAX];
        uint64_t bytes = 0;
        lj_inventory_segment_key(saved->at.generation, before, key);
        LJ_TRY(lj_ship_content_bytes(s, key, &bytes, err));
        /* where the index before ended is not always known */
        if (wanted.offset == 0 || before->offset + bytes == wanted.offset)
            return LJ_OK;
    }
    char text[LJ_POSITION_TEXT_MAX];
    lj_position_format(&wanted, text);
    return lj_error_set(err, LJ_CONFLICT, "the replica lacks what was shipped before it, up to %s",
                        text);
}

static lj_code compare(lj_shipper *s, lj_error *err)
{
    lj_inventory *inventory = NULL;
    LJ_TRY(lj_resume_open(s, err));
    LJ_TRY(lj_inventory_read(s->storage, s->saved.at.generation, &inventory, err));
    const lj_generation_info *found = lj_inventory_find(inventory, s->saved.at.generation);
    lj_code code = found == NULL || found->snapshot_count == 0
                       ? lj_error_set(err, LJ_CONFLICT, "the replica no longer has generation %s",
                                      s->saved.at.generation)
                       : check_reach(s, found, err);
    lj_inventory_free(inventory);
    return code;
}

static lj_code try_once(lj_shipper *s, lj_error *err)
{
    LJ_TRY(lj_ship_save(s, err)); /* if that is what failed before */
    if (!s->resumed)
        LJ_TRY(compare(s, err));
    s->resumed = true;
    LJ_TRY(lj_ship_all(s, err));
    if (lj_attach_left_over(s->db, &s->saved.at))
        return LJ_OK;
    /* a file that is shipped and stays is in the way of the next one */
    return lj_error_set(err, LJ_IO, "cannot remove what is shipped from %s", s->db->spool_dir);
}

static lj_code ship(lj_shipper *s, lj_error *err)
{
    for (unsigned failures = 0;;) {
        lj_position before = s->saved.at;
        lj_code code = try_once(s, err);
        if (code == LJ_OK || !lj_retry_may_pass(err))
            return code;
        failures = lj_position_eq(&before, &s->saved.at) ? failures + 1 : 1;
        if (failures == ATTEMPTS)
            return code;
        /* what the store does not list may only be late; but an open cannot wait for as long as a shipper */
        if (failures == ATTEMPTS - 1 && s->missing_since_ns != 0)
            s->missing_since_ns = LONG_AGO_NS;
        lj_log(LJ_LOG_INFO, "%s: trying again after: %s", s->db->path, err->message);
        (void)lj_retry_pause(failures - 1, FIRST_PAUSE_NS, LONGEST_PAUSE_NS, err->retry_after_ns,
                             NULL, NULL);
    }
}

/* What is behind the position, and does not fit. */
static void leave_out(lj_shipper *s, const lj_error *why, lj_left *left)
{
    left->out_bytes += lj_attach_left_bytes(s->db, &s->saved.at);
    snprintf(left->reason, sizeof(left->reason), "%s", why->message);
}

static lj_code salvage(lj_db *db, lj_storage *storage, lj_left *left, lj_error *err)
{
    lj_shipper s = {.db = db, .storage = storage, .saved = db->saved, .loaded = true};
    s.wal = (lj_walfile)LJ_WALFILE_INIT;
    lj_position begin = s.saved.at;
    lj_code code = ship(&s, err);
    lj_walfile_close(&s.wal);
    if (code == LJ_CONFLICT || code == LJ_CORRUPT) {
        leave_out(&s, err, left);
        code = LJ_OK;
    }
    if (code == LJ_OK && db->segments > 0) {
        char from[LJ_POSITION_TEXT_MAX];
        char to[LJ_POSITION_TEXT_MAX];
        lj_position_format(&begin, from);
        lj_position_format(&s.saved.at, to);
        lj_log(LJ_LOG_INFO, "%s: shipped what the lost database had not, from %s to %s", db->path,
               from, to);
    }
    return code;
}

lj_code lj_salvage(lj_storage *storage, const char *path, const lj_db_options *options,
                   const char *generation, lj_salvage_result *ret_result, lj_error *err)
{
    lj_salvage_result result = {.tried = false};
    lj_db *db = NULL;
    LJ_TRY(lj_db_new(path, lj_storage_url(storage), options, wake_nobody, &db, err));
    lj_code code = lj_attach_left(db, generation, &result.left, err);
    if (code == LJ_OK && result.left.any) {
        result.tried = true;
        code = salvage(db, storage, &result.left, err);
    }
    if (code != LJ_OK)
        (void)lj_error_context(err,
                               "shipping what the lost database left in %s (without it: move that "
                               "folder away)",
                               db->state_dir);
    lj_db_free(db);
    if (code == LJ_OK)
        *ret_result = result;
    return code;
}
