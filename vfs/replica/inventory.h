/*
 * inventory.h - what a replica holds: generations, their snapshots and segments, read from one listing.
 *
 * Layer: replica. Thread-safety: an inventory is immutable after lj_inventory_read and belongs to its maker.
 * Objects that are not of the layout are ignored. The listing may come in any order; the arrays are sorted. Two names
 * of one position (00001038 and 000001038) count once: the one with fewer digits, which v0.3.13 can see too, wins.
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
    uint8_t offset_digits; /* of the name: 8, or 9..16 where another writer used more */
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

/* More objects than this in one listing are an error: nothing that works writes that many. */
#define LJ_INVENTORY_OBJECTS_MAX (UINT64_C(1) << 26)

/*
 * Lists the whole replica (generation == NULL) or one generation. Cost: one LIST, 32 bytes per object. An absent replica
 * is an empty inventory. Errors: LJ_INVALID for a generation that is not 16 hex digits; those of lj_storage_list.
 */
LJ_WARN_UNUSED lj_code lj_inventory_read(lj_storage *storage, const char *generation,
                                         lj_inventory **ret_inventory, lj_error *err);
/*
 * LJ_UNSUPPORTED when the replica is one of Litestream v0.5: it holds a backup then, although its inventory is empty. Cost: two LISTs,
 * of what nothing else writes. Errors: those of lj_storage_list.
 */
LJ_WARN_UNUSED lj_code lj_inventory_refuse_ltx(lj_storage *storage, lj_error *err);
void lj_inventory_free(lj_inventory *inventory);
/* The object's key, with as many digits as it was listed with. */
void lj_inventory_segment_key(const char *generation, const lj_segment_info *segment,
                              char out[LJ_NAME_MAX]);
/* NULL when it is not there. */
const lj_generation_info *lj_inventory_find(const lj_inventory *inventory, const char *generation);

#endif
