/*
 * retention.c - deletes what no restore within the retention window can need.
 *
 * The window is [now - retention, now]. Its base is the newest snapshot of the current generation that is not younger than
 * the window's begin: with it and the WAL behind it every moment of the window can be restored. Only what is older than
 * the base goes, and only after the base was read back and verified. So the last restorable snapshot is never touched.
 *
 * Now is no later than the newest object: the times are the store's where it sets them, and this machine's clock may be days
 * ahead of that. Behind a new snapshot, which is when this runs, the two are otherwise the same.
 *
 * Order (replica-format 9.6): old snapshots first; then the WAL below the base, index by index from the oldest, within an
 * index the highest offset first and offset 0 last: a reader that lists in between, or a process that dies in between, never
 * sees an index without its begin.
 *
 * Former generations go when their newest object is older than the window and the current generation has a base; from
 * the newest index down, segments before the snapshot of the same index, so that what is left always restores.
 *
 * Only what is ours: the current generation while the listing shows nothing behind our own end in it (since every place has one
 * successor, endmark.c, whoever put the last object is the only one who can go on), and former generations of our lineage
 * in which nobody went on where we left. Another writer's are not ours to judge.
 *
 * Layer: ship. Runs in the snapshot task, after a new snapshot: nothing becomes superfluous without one.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "vfs/base/clock.h"
#include "vfs/base/log.h"
#include "vfs/ship/internal.h"

#define BATCH 256u

/* Collects keys and deletes them in order, a batch at a time. */
typedef struct {
    lj_storage *storage;
    char names[BATCH][LJ_NAME_MAX];
    size_t count;
    uint64_t deleted;
} sweep;

static lj_code sweep_flush(sweep *w, lj_error *err)
{
    const char *keys[BATCH];
    if (w->count == 0)
        return LJ_OK;
    for (size_t i = 0; i < w->count; i++)
        keys[i] = w->names[i];
    LJ_TRY(lj_storage_delete_many(w->storage, keys, w->count, NULL, NULL, err));
    w->deleted += w->count;
    w->count = 0;
    return LJ_OK;
}

static lj_code sweep_segment(sweep *w, const char *generation, const lj_segment_info *segment,
                             lj_error *err)
{
    lj_inventory_segment_key(generation, segment, w->names[w->count++]);
    return w->count == BATCH ? sweep_flush(w, err) : LJ_OK;
}

static lj_code sweep_snapshot(sweep *w, const char *generation, uint32_t index, lj_error *err)
{
    lj_name_snapshot(generation, index, w->names[w->count++]);
    return w->count == BATCH ? sweep_flush(w, err) : LJ_OK;
}

static const lj_snapshot_info *window_base(const lj_generation_info *g, int64_t begin_ns)
{
    const lj_snapshot_info *base = NULL;
    for (size_t i = 0; i < g->snapshot_count; i++) {
        if (g->snapshots[i].created_ns <= begin_ns)
            base = &g->snapshots[i];
    }
    return base;
}

/* Reads a snapshot back to its content checksum. */
static lj_code verify_snapshot(lj_shipper *s, const char *generation, uint32_t index, lj_error *err)
{
    if (s->verified_index == index + 1)
        return LJ_OK;
    char key[LJ_NAME_MAX];
    lj_name_snapshot(generation, index, key);
    lj_sink drop = lj_sink_nowhere();
    if (lj_ship_read(s, key, &drop, err) != LJ_OK)
        return lj_error_context(
            err, "nothing was deleted, the snapshot everything else relies on does not read back");
    s->verified_index = index + 1;
    return LJ_OK;
}

/* The current generation below its base. */
static lj_code trim(sweep *w, const lj_generation_info *g, uint32_t base_index, lj_error *err)
{
    for (size_t i = 0; i < g->snapshot_count && g->snapshots[i].index < base_index; i++)
        LJ_TRY(sweep_snapshot(w, g->generation, g->snapshots[i].index, err));
    for (size_t begin = 0; begin < g->segment_count && g->segments[begin].index < base_index;) {
        size_t end = begin;
        while (end < g->segment_count && g->segments[end].index == g->segments[begin].index)
            end++;
        for (size_t i = end; i > begin; i--)
            LJ_TRY(sweep_segment(w, g->generation, &g->segments[i - 1], err));
        begin = end;
    }
    return sweep_flush(w, err);
}

/* A whole former generation, from its end. */
static lj_code drop_generation(sweep *w, const lj_generation_info *g, lj_error *err)
{
    size_t segments = g->segment_count;
    for (size_t i = g->snapshot_count; i > 0; i--) {
        uint32_t index = g->snapshots[i - 1].index;
        for (; segments > 0 && g->segments[segments - 1].index >= index; segments--)
            LJ_TRY(sweep_segment(w, g->generation, &g->segments[segments - 1], err));
        LJ_TRY(sweep_snapshot(w, g->generation, index, err));
    }
    for (; segments > 0; segments--)
        LJ_TRY(sweep_segment(w, g->generation, &g->segments[segments - 1], err));
    return sweep_flush(w, err);
}

/* Ours, and nobody went on in it behind the place where we left. */
static bool is_owned(const lj_saved_position *owned, const lj_generation_info *g)
{
    const lj_position *end = lj_saved_position_owned(owned, g->generation);
    if (end == NULL)
        return false;
    for (size_t i = 0; i < g->segment_count; i++) {
        lj_position at = {.index = g->segments[i].index, .offset = g->segments[i].offset};
        if (lj_position_compare(&at, end) >= 0)
            return false;
    }
    return g->snapshot_count == 0 || g->snapshots[g->snapshot_count - 1].index <= end->index;
}

static bool superfluous(const lj_inventory *inventory, const lj_generation_info *current,
                        int64_t begin_ns, const lj_saved_position *owned)
{
    const lj_snapshot_info *base = window_base(current, begin_ns);
    if (base == NULL)
        return false;
    if (current->snapshots[0].index < base->index ||
        (current->segment_count > 0 && current->segments[0].index < base->index))
        return true;
    for (size_t i = 0; i < inventory->generation_count; i++) {
        const lj_generation_info *g = &inventory->generations[i];
        if (g != current && g->updated_ns < begin_ns && is_owned(owned, g))
            return true;
    }
    return false;
}

static lj_code sweep_all(sweep *w, const lj_inventory *inventory, const lj_generation_info *current,
                         int64_t begin_ns, const lj_saved_position *owned, lj_error *err)
{
    LJ_TRY(trim(w, current, window_base(current, begin_ns)->index, err));
    for (size_t i = 0; i < inventory->generation_count; i++) {
        const lj_generation_info *g = &inventory->generations[i];
        if (g != current && g->updated_ns < begin_ns && is_owned(owned, g))
            LJ_TRY(drop_generation(w, g, err));
    }
    return LJ_OK;
}

/* What the listing shows must be ours up to its end: else another writer is in the generation, and it is not ours to trim. */
static bool may_delete(lj_shipper *s, const lj_generation_info *current,
                       const lj_saved_position *owned)
{
    lj_error err = LJ_ERROR_INIT;
    if (current == NULL || lj_saved_position_owned(owned, current->generation) == NULL)
        return false;
    if (lj_resume_agree(current, owned, &err) == LJ_OK)
        return true;
    lj_ship_disown(s, current->generation);
    lj_db_break(s->db, "%s", err.message);
    return false;
}

lj_code lj_retention_enforce(lj_shipper *s, lj_error *err)
{
    int64_t now_ns = lj_clock_wall_ns();
    lj_inventory *inventory = NULL;
    LJ_TRY(lj_inventory_read(s->storage, NULL, &inventory, err));
    /* behind the listing: it must show nothing that this does not know of */
    pthread_mutex_lock(&s->db->mutex);
    const lj_saved_position owned = s->db->saved;
    pthread_mutex_unlock(&s->db->mutex);
    const lj_generation_info *current = lj_inventory_find(inventory, owned.at.generation);
    lj_code code = LJ_OK;
    bool may = may_delete(s, current, &owned);
    int64_t begin_ns = may ? LJ_MIN(now_ns, current->updated_ns) - s->db->options.retention_ns : 0;
    if (may && superfluous(inventory, current, begin_ns, &owned)) {
        sweep *w = calloc(1, sizeof(*w));
        code = w == NULL ? lj_error_nomem(err)
                         : verify_snapshot(s, current->generation,
                                           window_base(current, begin_ns)->index, err);
        if (code == LJ_OK) {
            w->storage = s->storage;
            code = sweep_all(w, inventory, current, begin_ns, &owned, err);
            lj_log(LJ_LOG_INFO, "%s: retention deleted %" PRIu64 " objects", s->db->path,
                   w->deleted);
        }
        free(w);
    }
    lj_inventory_free(inventory);
    return code == LJ_OK ? LJ_OK : lj_error_context(err, "retention");
}
