/*
 * plan.c - see plan.h and lj_restore_plan_* in restore.h. The choice differs from Litestream v0.3.13 where that one
 * refuses or goes wrong: a timestamp between two generations or behind the last object has an answer, WAL below the snapshot
 * is not looked at, and a generation without a snapshot is passed over.
 *
 * Layer: restore. Thread-safety: pure. Source: replica-format section 4, field-failures A3.
 */
#include "vfs/restore/plan.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vfs/base/clock.h"
#include "vfs/base/log.h"
#include "vfs/base/retry.h"

#define LIST_ATTEMPTS         4u
#define LIST_FIRST_PAUSE_NS   (200 * LJ_NS_PER_MS)
#define LIST_LONGEST_PAUSE_NS (2 * LJ_NS_PER_S)
#define LIST_PATIENCE_NS      (20 * LJ_NS_PER_S) /* an attempt that took longer was the last */

/* First segment at or behind (index, 0). */
static size_t lower_bound(const lj_generation_info *generation, uint32_t index)
{
    size_t low = 0;
    size_t high = generation->segment_count;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (generation->segments[mid].index < index)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

/* The snapshot to start from; NULL when none matches. */
static const lj_snapshot_info *choose_snapshot(const lj_generation_info *generation,
                                               const lj_restore_options *options)
{
    const lj_snapshot_info *best = NULL;
    for (size_t i = 0; i < generation->snapshot_count; i++) {
        const lj_snapshot_info *snapshot = &generation->snapshots[i]; /* ascending index */
        if (options->has_snapshot && snapshot->index != options->snapshot_index)
            continue;
        if (options->has_index && snapshot->index > options->index)
            continue;
        if (options->timestamp_ns != 0) {
            if (snapshot->created_ns > options->timestamp_ns)
                continue;
            if (best != NULL && snapshot->created_ns < best->created_ns)
                continue;
        }
        best = snapshot;
    }
    return best;
}

/* The run of segments behind the snapshot up to the target; holes are not looked for yet. */
static void choose_segments(const lj_generation_info *generation, const lj_restore_options *options,
                            lj_plan_choice *choice)
{
    size_t first = lower_bound(generation, choice->snapshot.index);
    size_t end = first;
    for (; end < generation->segment_count; end++) {
        const lj_segment_info *segment = &generation->segments[end];
        if (options->timestamp_ns != 0 && segment->created_ns > options->timestamp_ns)
            break;
        if (options->has_index && segment->index > options->index)
            break;
    }
    choice->segments = end > first ? &generation->segments[first] : NULL;
    choice->segment_count = end - first;
    uint32_t last = end > first ? generation->segments[end - 1].index : choice->snapshot.index;
    choice->at_end = end == generation->segment_count &&
                     generation->snapshots[generation->snapshot_count - 1].index <= last;
}

/* False when the generation cannot answer at all. */
static bool choose_in(const lj_generation_info *generation, const lj_restore_options *options,
                      lj_plan_choice *ret_choice)
{
    const lj_snapshot_info *snapshot = choose_snapshot(generation, options);
    if (snapshot == NULL)
        return false;
    *ret_choice = (lj_plan_choice){.generation = generation, .snapshot = *snapshot};
    choose_segments(generation, options, ret_choice);
    return true;
}

int64_t lj_plan_time(const lj_plan_choice *choice)
{
    int64_t newest = choice->snapshot.created_ns;
    for (size_t i = 0; i < choice->segment_count; i++)
        newest = LJ_MAX(newest, choice->segments[i].created_ns);
    return newest;
}

/* What a generation has at or before the target, whether it can be restored or not. */
static int64_t newest_object(const lj_generation_info *generation, int64_t timestamp_ns)
{
    if (timestamp_ns == 0)
        return generation->updated_ns;
    int64_t newest = INT64_MIN;
    for (size_t i = 0; i < generation->segment_count; i++)
        if (generation->segments[i].created_ns <= timestamp_ns)
            newest = LJ_MAX(newest, generation->segments[i].created_ns);
    return newest;
}

/* Walks the generations from the newest to the oldest and keeps the one with the newest answer. */
static bool choose_generation(const lj_inventory *inventory, const lj_restore_options *options,
                              lj_plan_choice *ret_choice)
{
    bool found = false;
    int64_t found_time = 0;
    for (size_t i = inventory->generation_count; i > 0; i--) {
        const lj_generation_info *generation = &inventory->generations[i - 1];
        lj_plan_choice choice;
        if (options->generation != NULL && strcmp(options->generation, generation->generation) != 0)
            continue;
        /* an index only has a meaning inside a generation: it does not select one */
        if (generation->snapshot_count == 0 || !choose_in(generation, options, &choice)) {
            if (options->timestamp_ns == 0 && generation->snapshot_count > 0)
                return found;
            continue;
        }
        if (options->timestamp_ns == 0) {
            *ret_choice = choice;
            return true;
        }
        if (!found || lj_plan_time(&choice) > found_time) {
            found = true;
            found_time = lj_plan_time(&choice);
            *ret_choice = choice;
        }
    }
    return found;
}

/* A generation that has newer objects than the choice but no snapshot to build on. */
static const char *find_skipped(const lj_inventory *inventory, const lj_restore_options *options,
                                const lj_plan_choice *choice)
{
    if (options->generation != NULL)
        return NULL;
    int64_t chosen_time =
        options->timestamp_ns == 0 ? choice->generation->updated_ns : lj_plan_time(choice);
    for (size_t i = inventory->generation_count; i > 0; i--) {
        const lj_generation_info *generation = &inventory->generations[i - 1];
        lj_plan_choice ignored;
        if (generation != choice->generation &&
            newest_object(generation, options->timestamp_ns) > chosen_time &&
            (generation->snapshot_count == 0 || !choose_in(generation, options, &ignored)))
            return generation->generation;
    }
    return NULL;
}

/* The first object behind a hole, NULL when there is none; fills the error then. */
static const lj_segment_info *find_hole(const lj_plan_choice *choice, lj_error *err)
{
    const char *generation = choice->generation->generation;
    uint32_t expected = choice->snapshot.index;
    for (size_t i = 0; choice->segments != NULL && i < choice->segment_count; i++) {
        const lj_segment_info *segment = &choice->segments[i];
        bool begins = i == 0 || segment->index != choice->segments[i - 1].index;
        if (!begins)
            continue;
        if (i > 0)
            expected = choice->segments[i - 1].index + 1;
        if (segment->index != expected) {
            lj_error_set(err, LJ_GAP, "missing WAL index: %s/%08" PRIx32, generation, expected);
            return segment;
        }
        if (segment->offset != 0) {
            lj_error_set(err, LJ_GAP,
                         "missing initial wal segment: generation=%s index=%08" PRIx32
                         " offset=%" PRIu64,
                         generation, segment->index, segment->offset);
            return segment;
        }
    }
    return NULL;
}

/* Says why nothing was chosen. */
static lj_code nothing_found(const lj_inventory *inventory, const lj_restore_options *options,
                             lj_error *err)
{
    const lj_generation_info *bare = NULL; /* newest one without a snapshot */
    int64_t oldest_snapshot = INT64_MAX;
    for (size_t i = 0; i < inventory->generation_count; i++) {
        const lj_generation_info *generation = &inventory->generations[i];
        if (options->generation != NULL && strcmp(options->generation, generation->generation) != 0)
            continue;
        if (generation->snapshot_count == 0)
            bare = generation;
        for (size_t j = 0; j < generation->snapshot_count; j++)
            oldest_snapshot = LJ_MIN(oldest_snapshot, generation->snapshots[j].created_ns);
    }
    if (bare != NULL && oldest_snapshot == INT64_MAX) {
        lj_error_set(err, LJ_GAP, "no snapshots available: generation %s has WAL but no snapshot",
                     bare->generation);
        return lj_error_hint(err, "the snapshot was deleted or never written; nothing in this "
                                  "replica can be restored without it");
    }
    lj_error_set(err, LJ_NOTFOUND, "no matching backups found");
    if (oldest_snapshot == INT64_MAX)
        return lj_error_hint(err, options->generation != NULL
                                      ? "the replica has no such generation"
                                      : "the replica holds no snapshot; check its URL");
    char text[LJ_CLOCK_TEXT_MAX];
    lj_clock_format_ns(oldest_snapshot, text);
    if (options->timestamp_ns != 0)
        return lj_error_hint(err, "the oldest time that can be restored is %s", text);
    return lj_error_hint(err, "no snapshot is at or below that index; the snapshots command lists "
                              "what there is");
}

static lj_code check_options(const lj_restore_options *options, lj_error *err)
{
    if (options->has_index && options->timestamp_ns != 0)
        return lj_error_set(err, LJ_INVALID, "cannot specify index & timestamp to restore");
    if (options->generation != NULL && !lj_generation_ok(options->generation)) {
        lj_error_set(err, LJ_INVALID, "\"%s\" is not the name of a generation",
                     options->generation);
        return lj_error_hint(err, "a generation is 16 lowercase hex digits");
    }
    return LJ_OK;
}

lj_code lj_plan_choose(const lj_inventory *inventory, const lj_restore_options *options,
                       lj_plan_choice *ret_choice, lj_error *err)
{
    LJ_TRY(check_options(options, err));
    lj_plan_choice choice = {.generation = NULL};
    if (!choose_generation(inventory, options, &choice))
        return nothing_found(inventory, options, err);
    const lj_segment_info *behind_hole = find_hole(&choice, err);
    if (behind_hole != NULL) {
        if (err != NULL)
            lj_plan_hint_segment(inventory, choice.generation, behind_hole, err);
        return LJ_GAP;
    }
    choice.skipped = find_skipped(inventory, options, &choice);
    *ret_choice = choice;
    return LJ_OK;
}

/* ---- suggestions ---- */

/*
 * Whether `options` give a plan in `generation` that ends before `bad`. The caller's error must not be touched, and a
 * suggestion must not search for suggestions: hence no error.
 */
static bool works_without(const lj_inventory *inventory, const lj_restore_options *options,
                          const lj_segment_info *bad, uint32_t *ret_last_index)
{
    lj_plan_choice choice = {.generation = NULL};
    if (lj_plan_choose(inventory, options, &choice, NULL) != LJ_OK)
        return false;
    *ret_last_index = choice.snapshot.index;
    if (choice.segment_count == 0)
        return true;
    const lj_segment_info *last = &choice.segments[choice.segment_count - 1];
    *ret_last_index = last->index;
    if (bad == NULL)
        return true;
    return last->index < bad->index || (last->index == bad->index && last->offset < bad->offset);
}

/* Suggests a time in `generation`, if it works. */
static bool suggest_time(const lj_inventory *inventory, const char *generation, int64_t time_ns,
                         const lj_segment_info *bad, lj_error *err)
{
    lj_restore_options options = {.generation = generation, .timestamp_ns = time_ns};
    uint32_t last = 0;
    if (time_ns == 0 || !works_without(inventory, &options, bad, &last))
        return false;
    char text[LJ_CLOCK_TEXT_MAX];
    lj_clock_format_ns(time_ns, text);
    lj_error_hint(err,
                  "the newest restorable point before it is %s: ask for it with -generation %s "
                  "-timestamp %s",
                  text, generation, text);
    return true;
}

static bool suggest_index(const lj_inventory *inventory, const char *generation, uint32_t before,
                          const lj_segment_info *bad, lj_error *err)
{
    if (before == 0)
        return false;
    lj_restore_options options = {.generation = generation, .has_index = true, .index = before - 1};
    uint32_t last = 0;
    if (!works_without(inventory, &options, bad, &last))
        return false;
    lj_error_hint(err,
                  "the newest restorable point before it is the end of index %08" PRIx32
                  ": ask for it with -generation %s -index %08" PRIx32,
                  last, generation, last);
    return true;
}

/* The newest other generation that can be restored. */
static void suggest_generation(const lj_inventory *inventory, const lj_generation_info *not_this,
                               lj_error *err)
{
    for (size_t i = inventory->generation_count; i > 0; i--) {
        const lj_generation_info *generation = &inventory->generations[i - 1];
        lj_restore_options options = {.generation = generation->generation};
        uint32_t last = 0;
        if (generation == not_this || !works_without(inventory, &options, NULL, &last))
            continue;
        char text[LJ_CLOCK_TEXT_MAX];
        lj_clock_format_ns(generation->updated_ns, text);
        lj_error_hint(err,
                      "nothing before it is left in this generation; another one ends at %s: ask "
                      "for it with -generation %s",
                      text, generation->generation);
        return;
    }
    lj_error_hint(err, "nothing before it can be restored from this replica");
}

void lj_plan_hint_segment(const lj_inventory *inventory, const lj_generation_info *generation,
                          const lj_segment_info *bad, lj_error *err)
{
    /* the newest time among everything in front of `bad`: a plan for it stops at `bad` if that is later */
    int64_t before = 0;
    for (size_t i = 0; i < generation->snapshot_count; i++)
        if (generation->snapshots[i].index <= bad->index &&
            generation->snapshots[i].created_ns < bad->created_ns)
            before = LJ_MAX(before, generation->snapshots[i].created_ns);
    for (size_t i = 0; i < generation->segment_count; i++) {
        const lj_segment_info *segment = &generation->segments[i];
        if (segment->index > bad->index ||
            (segment->index == bad->index && segment->offset >= bad->offset))
            break;
        if (segment->created_ns < bad->created_ns)
            before = LJ_MAX(before, segment->created_ns);
    }
    const char *name = generation->generation;
    if (bad->offset == 0 && suggest_index(inventory, name, bad->index, bad, err))
        return;
    if (suggest_time(inventory, name, before, bad, err))
        return;
    if (suggest_index(inventory, name, bad->index, bad, err))
        return;
    suggest_generation(inventory, generation, err);
}

void lj_plan_hint_snapshot(const lj_inventory *inventory, const lj_restore_options *options,
                           const lj_generation_info *generation, const lj_snapshot_info *bad,
                           lj_error *err)
{
    for (size_t i = generation->snapshot_count; i > 0; i--) {
        const lj_snapshot_info *older = &generation->snapshots[i - 1];
        if (older->index >= bad->index)
            continue;
        lj_restore_options same = {
            .generation = generation->generation,
            .timestamp_ns = options->timestamp_ns,
            .has_index = options->has_index,
            .index = options->index,
            .has_snapshot = true,
            .snapshot_index = older->index,
        };
        uint32_t last = 0;
        if (!works_without(inventory, &same, NULL, &last))
            continue;
        lj_error_hint(err,
                      "the same state can be reached from an older snapshot: add -generation %s "
                      "-snapshot %08" PRIx32,
                      generation->generation, older->index);
        return;
    }
    if (suggest_index(inventory, generation->generation, bad->index, NULL, err))
        return;
    suggest_generation(inventory, generation, err);
}

/* ---- the public face ---- */

typedef lj_code (*look)(lj_storage *storage, const lj_restore_options *options,
                        lj_restore_plan *plan, lj_error *err);

static lj_code look_for_all(lj_storage *storage, const lj_restore_options *options,
                            lj_restore_plan *plan, lj_error *err)
{
    return lj_inventory_read(storage, options->generation, &plan->inventory, err);
}

static lj_code look_for_others(lj_storage *storage, const lj_restore_options *options,
                               lj_restore_plan *plan, lj_error *err)
{
    (void)options, (void)plan;
    return lj_inventory_refuse_ltx(storage, err);
}

/* The listing that an open or a restore begins with must not fail for a hiccup. */
static lj_code look_patiently(look at, lj_storage *storage, const lj_restore_options *options,
                              lj_restore_plan *plan, lj_error *err)
{
    lj_error local = LJ_ERROR_INIT;
    lj_error *error = err != NULL ? err : &local;
    int64_t end_ns = lj_clock_mono_ns() + LIST_PATIENCE_NS;
    for (unsigned attempt = 0;; attempt++) {
        lj_code code = at(storage, options, plan, error);
        if (code == LJ_OK || !lj_retry_may_pass(error) || attempt + 1 >= LIST_ATTEMPTS ||
            lj_clock_mono_ns() >= end_ns)
            return code;
        lj_log(LJ_LOG_INFO, "listing again after: %s", error->message);
        if (!lj_retry_pause(attempt, LIST_FIRST_PAUSE_NS, LIST_LONGEST_PAUSE_NS,
                            error->retry_after_ns, options->cancel, NULL))
            return lj_error_set(error, LJ_CANCELLED, "the restore was cancelled");
    }
}

static lj_code list_and_choose(lj_storage *storage, const lj_restore_options *options,
                               lj_restore_plan *plan, lj_error *err)
{
    LJ_TRY(look_patiently(look_for_all, storage, options, plan, err));
    return lj_plan_choose(plan->inventory, options, &plan->choice, err);
}

/* What cannot be read is not an empty replica: *err and the code stay LJ_NOTFOUND only if it is one. */
static lj_code check_empty(lj_storage *storage, const lj_restore_options *options,
                           lj_restore_plan *plan, lj_error *err)
{
    lj_error other = LJ_ERROR_INIT;
    if (look_patiently(look_for_others, storage, options, plan, &other) == LJ_OK)
        return LJ_NOTFOUND;
    if (err != NULL)
        *err = other;
    return other.code;
}

lj_code lj_restore_plan_make(lj_storage *storage, const lj_restore_options *options,
                             lj_restore_plan **ret_plan, lj_error *err)
{
    LJ_TRY(check_options(options, err));
    lj_restore_plan *plan = calloc(1, sizeof(*plan));
    if (plan == NULL)
        return lj_error_nomem(err);
    lj_code code = list_and_choose(storage, options, plan, err);
    /*
     * A listing is not of one moment: what was put or deleted meanwhile may look like a hole, or like nothing at all where a generation
     * went after the next one had come.
     */
    if (code == LJ_GAP || code == LJ_NOTFOUND) {
        lj_inventory_free(plan->inventory);
        plan->inventory = NULL;
        code = list_and_choose(storage, options, plan, err);
    }
    if (code == LJ_NOTFOUND && plan->inventory != NULL && plan->inventory->generation_count == 0 &&
        options->generation == NULL)
        code = check_empty(storage, options, plan, err);
    if (code != LJ_OK) {
        lj_restore_plan_free(plan);
        return code;
    }
    if (plan->choice.skipped != NULL)
        lj_log(LJ_LOG_WARN,
               "generation %s has newer WAL but no usable snapshot and cannot be restored: using "
               "generation %s",
               plan->choice.skipped, plan->choice.generation->generation);
    *ret_plan = plan;
    return LJ_OK;
}

void lj_restore_plan_free(lj_restore_plan *plan)
{
    if (plan == NULL)
        return;
    lj_inventory_free(plan->inventory);
    free(plan);
}

void lj_restore_plan_describe(const lj_restore_plan *plan, lj_restore_result *ret_result)
{
    const lj_plan_choice *choice = &plan->choice;
    lj_restore_result result = {
        .has_wal = choice->segment_count > 0,
        .at_end = choice->at_end,
        .snapshot_index = choice->snapshot.index,
        .segments = choice->segment_count,
        .fetch_bytes = choice->snapshot.size_bytes,
        .time_ns = lj_plan_time(choice),
    };
    snprintf(result.position.generation, sizeof(result.position.generation), "%s",
             choice->generation->generation);
    result.position.index = choice->snapshot.index;
    for (size_t i = 0; i < choice->segment_count; i++)
        result.fetch_bytes += choice->segments[i].size_bytes;
    if (choice->segment_count > 0) {
        result.position.index = choice->segments[choice->segment_count - 1].index;
        result.position.offset = choice->segments[choice->segment_count - 1].offset;
    }
    *ret_result = result;
}
