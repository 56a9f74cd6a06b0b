/*
 * foldmap.h - which frame holds the last version of a page: page number -> number of a frame in the temporary file.
 *
 * Open addressing over one array of 64-bit words (page number above, frame below; 0 = free), at most 3/4 full: 8 to 22
 * bytes per page, allocated by doubling, nothing per entry.
 *
 * Layer: restore (internal). Thread-safety: one owner. Source: none, a plain hash table.
 */
#ifndef LJ_FOLDMAP_H
#define LJ_FOLDMAP_H

#include "vfs/base/error.h"

typedef struct {
    uint64_t *slots; /* NULL while nothing was added */
    size_t capacity; /* a power of two */
    size_t count;
    uint32_t max_pgno; /* highest page number ever added since the last clear */
} lj_foldmap;

static inline uint32_t lj_foldmap_pgno(uint64_t entry)
{
    return (uint32_t)(entry >> 32);
}

static inline uint32_t lj_foldmap_frame(uint64_t entry)
{
    return (uint32_t)entry;
}

/* Page numbers start at 1. A later put replaces an earlier one. */
LJ_WARN_UNUSED lj_code lj_foldmap_put(lj_foldmap *map, uint32_t pgno, uint32_t frame,
                                      lj_error *err);
/* Forgets every page above `pages`. Cost: nothing, or one pass over the table when there are such pages. */
LJ_WARN_UNUSED lj_code lj_foldmap_truncate(lj_foldmap *map, uint32_t pages, lj_error *err);
/*
 * Turns the table into an ascending array of its entries, in place: *ret_entries (owned by the map, valid until
 * lj_foldmap_clear) has map->count of them. Only lj_foldmap_clear may follow.
 */
void lj_foldmap_sort(lj_foldmap *map, const uint64_t **ret_entries);
/* Empties it and frees the memory. */
void lj_foldmap_clear(lj_foldmap *map);

#endif
