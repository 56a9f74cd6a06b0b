/*
 * pagemap.h - page number -> number of a frame or slot, for "where is the newest version of this page".
 *
 * Layer: wal (pure). Thread-safety: one owner. Memory: 8 bytes per slot, at most three quarters of the slots used: 11 to 22
 * bytes per page, half as much again while it grows.
 */
#ifndef LJ_PAGEMAP_H
#define LJ_PAGEMAP_H

#include "vfs/base/error.h"

typedef struct {
    uint32_t pgno; /* 0 = free slot */
    uint32_t value;
} lj_pagemap_slot;

typedef struct {
    lj_pagemap_slot *slots;
    size_t capacity; /* 0 or a power of two */
    size_t count;
} lj_pagemap;

#define LJ_PAGEMAP_INIT                                                                            \
    {                                                                                              \
        .slots = NULL, .capacity = 0, .count = 0                                                   \
    }

void lj_pagemap_free(lj_pagemap *map);
/* Sets or replaces. pgno is not 0. Amortised O(1). LJ_UNSUPPORTED for a value of more than 32 bits. */
LJ_WARN_UNUSED lj_code lj_pagemap_set(lj_pagemap *map, uint32_t pgno, uint64_t value,
                                      lj_error *err);
/* false when the page is not in the map. */
bool lj_pagemap_get(const lj_pagemap *map, uint32_t pgno, uint64_t *ret_value);

#endif
