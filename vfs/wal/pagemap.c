/*
 * pagemap.c - see pagemap.h. Open addressing with linear probing and multiplicative hashing.
 */
#include "vfs/wal/pagemap.h"

#include <stdlib.h>

#define FIRST_CAPACITY 64u

void lj_pagemap_free(lj_pagemap *map)
{
    free(map->slots);
    *map = (lj_pagemap)LJ_PAGEMAP_INIT;
}

static lj_pagemap_slot *find_slot(lj_pagemap_slot *slots, size_t capacity, uint32_t pgno)
{
    size_t i = (size_t)(pgno * UINT32_C(2654435761)) & (capacity - 1);
    while (slots[i].pgno != 0 && slots[i].pgno != pgno)
        i = (i + 1) & (capacity - 1);
    return &slots[i];
}

static lj_code grow(lj_pagemap *map, lj_error *err)
{
    size_t capacity = map->capacity == 0 ? FIRST_CAPACITY : map->capacity * 2;
    lj_pagemap_slot *slots = calloc(capacity, sizeof(*slots));
    if (slots == NULL)
        return lj_error_nomem(err);
    for (size_t i = 0; i < map->capacity; i++) {
        if (map->slots[i].pgno != 0)
            *find_slot(slots, capacity, map->slots[i].pgno) = map->slots[i];
    }
    free(map->slots);
    map->slots = slots;
    map->capacity = capacity;
    return LJ_OK;
}

lj_code lj_pagemap_set(lj_pagemap *map, uint32_t pgno, uint64_t value, lj_error *err)
{
    if (value > UINT32_MAX)
        return lj_error_set(err, LJ_UNSUPPORTED, "more than %u frames in one WAL", UINT32_MAX);
    if (map->count >= map->capacity / 4 * 3)
        LJ_TRY(grow(map, err));
    lj_pagemap_slot *slot = find_slot(map->slots, map->capacity, pgno);
    if (slot->pgno == 0) {
        slot->pgno = pgno;
        map->count++;
    }
    slot->value = (uint32_t)value;
    return LJ_OK;
}

bool lj_pagemap_get(const lj_pagemap *map, uint32_t pgno, uint64_t *ret_value)
{
    if (map->capacity == 0)
        return false;
    const lj_pagemap_slot *slot = find_slot(map->slots, map->capacity, pgno);
    if (slot->pgno == 0)
        return false;
    *ret_value = slot->value;
    return true;
}
