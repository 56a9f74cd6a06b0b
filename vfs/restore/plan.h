/*
 * plan.h - the choice of generation, snapshot and segments as a pure function of an inventory.
 *
 * Layer: restore (internal; the public face is restore.h). Thread-safety: pure over an immutable inventory.
 * Invariants of a choice: segments is a run inside generation->segments, starts at (snapshot index, 0) when it is not
 * empty, its indexes are consecutive and each starts at offset 0.
 */
#ifndef LJ_PLAN_H
#define LJ_PLAN_H

#include "vfs/restore/restore.h"

typedef struct {
    const lj_generation_info *generation;
    lj_snapshot_info snapshot;
    const lj_segment_info *segments;
    size_t segment_count;
    bool at_end;         /* nothing of the generation is newer than the last segment chosen */
    const char *skipped; /* a generation with newer objects that has no usable snapshot, or NULL */
} lj_plan_choice;

struct lj_restore_plan {
    lj_inventory *inventory; /* owned; the choice points into it */
    lj_plan_choice choice;
};

/* The errors of lj_restore_plan_make, with hints. Only the fields that choose are looked at in `options`. */
LJ_WARN_UNUSED lj_code lj_plan_choose(const lj_inventory *inventory,
                                      const lj_restore_options *options, lj_plan_choice *ret_choice,
                                      lj_error *err);

/*
 * Writes the hint of *err: the newest point of the generation that can be restored without `bad` and anything behind
 * it, as the flags to ask for it, or that there is none. Every suggestion was tried against the inventory.
 */
void lj_plan_hint_segment(const lj_inventory *inventory, const lj_generation_info *generation,
                          const lj_segment_info *bad, lj_error *err);
/* The same for a snapshot that cannot be used: an older one with the same target, or an older state. */
void lj_plan_hint_snapshot(const lj_inventory *inventory, const lj_restore_options *options,
                           const lj_generation_info *generation, const lj_snapshot_info *bad,
                           lj_error *err);

/* Created time of the newest object of the choice. */
int64_t lj_plan_time(const lj_plan_choice *choice);

#endif
