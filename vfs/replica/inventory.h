/*
 * inventory.h - what a replica holds: generations, their snapshots and segments, read from one listing.
 *
 * Layer: replica. Thread-safety: an inventory is immutable after lj_inventory_read and belongs to its maker.
 * Objects that are not of the layout are ignored. The listing may come in any order; the arrays are sorted.
 */
#ifndef LJ_INVENTORY_H
#define LJ_INVENTORY_H

#include "vfs/replica/name.h"
#include "vfs/storage/storage.h"

typedef struct {
    uint32_t index;
    uint64_t size_bytes; /* compressed */
    int64_t created_ns;
} lj_snapshot_info;

typedef struct {
    uint32_t index;
    uint64_t offset;
    uint64_t size_bytes; /* compressed */
    int64_t created_ns;
} lj_segment_info;

typedef struct {
    char generation[LJ_GENERATION_MAX];
    lj_snapshot_info *snapshots; /* ascending index */
    size_t snapshot_count;
    lj_segment_info *segments; /* ascending (index, offset) */
    size_t segment_count;
    int64_t created_ns; /* oldest object */
    int64_t updated_ns; /* newest object */
} lj_generation_info;

typedef struct {
    lj_generation_info *generations; /* ascending updated_ns */
    size_t generation_count;
} lj_inventory;

/* Lists the whole replica (generation == NULL) or one generation. Cost: one LIST. */
LJ_WARN_UNUSED lj_code lj_inventory_read(lj_storage *storage, const char *generation,
                                         lj_inventory **ret_inventory, lj_error *err);
void lj_inventory_free(lj_inventory *inventory);
/* NULL when it is not there. */
const lj_generation_info *lj_inventory_find(const lj_inventory *inventory, const char *generation);

#endif
