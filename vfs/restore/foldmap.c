/*
 * foldmap.c - see foldmap.h.
 *
 * Layer: restore. Invariant: capacity is 0 or a power of two, and count <= 3/4 capacity, so that a probe always ends.
 */
#include "vfs/restore/foldmap.h"

#include <stdlib.h>

#define FIRST_CAPACITY 1024u

/* Fibonacci hashing: the high bits of the product are well mixed, runs of page numbers spread evenly. */
static size_t home(const lj_foldmap *map, uint32_t pgno)
{
    uint64_t mixed = (uint64_t)pgno * UINT64_C(0x9e3779b97f4a7c15);
    return (size_t)(mixed >> 20) & (map->capacity - 1);
}

static void place(lj_foldmap *map, uint64_t entry)
{
    size_t i = home(map, lj_foldmap_pgno(entry));
    while (map->slots[i] != 0 && lj_foldmap_pgno(map->slots[i]) != lj_foldmap_pgno(entry))
        i = (i + 1) & (map->capacity - 1);
    if (map->slots[i] == 0)
        map->count++;
    map->slots[i] = entry;
}

/* Moves the entries up to page `pages` into a table of another size. */
static lj_code rebuild(lj_foldmap *map, size_t capacity, uint32_t pages, lj_error *err)
{
    uint64_t *slots = calloc(capacity, sizeof(*slots));
    if (slots == NULL)
        return lj_error_nomem(err);
    lj_foldmap fresh = {
        .slots = slots, .capacity = capacity, .max_pgno = LJ_MIN(map->max_pgno, pages)};
    for (size_t i = 0; i < map->capacity; i++)
        if (map->slots[i] != 0 && lj_foldmap_pgno(map->slots[i]) <= pages)
            place(&fresh, map->slots[i]);
    free(map->slots);
    *map = fresh;
    return LJ_OK;
}

lj_code lj_foldmap_put(lj_foldmap *map, uint32_t pgno, uint32_t frame, lj_error *err)
{
    if (map->count >= map->capacity / 4 * 3)
        LJ_TRY(
            rebuild(map, map->capacity == 0 ? FIRST_CAPACITY : map->capacity * 2, UINT32_MAX, err));
    place(map, ((uint64_t)pgno << 32) | frame);
    map->max_pgno = LJ_MAX(map->max_pgno, pgno);
    return LJ_OK;
}

lj_code lj_foldmap_truncate(lj_foldmap *map, uint32_t pages, lj_error *err)
{
    return map->max_pgno <= pages ? LJ_OK : rebuild(map, map->capacity, pages, err);
}

static int ascending(const void *pa, const void *pb)
{
    uint64_t a = *(const uint64_t *)pa;
    uint64_t b = *(const uint64_t *)pb;
    return (a > b) - (a < b);
}

void lj_foldmap_sort(lj_foldmap *map, const uint64_t **ret_entries)
{
    size_t packed = 0;
    for (size_t i = 0; i < map->capacity; i++)
        if (map->slots[i] != 0)
            map->slots[packed++] = map->slots[i];
    if (packed > 0)
        qsort(map->slots, packed, sizeof(*map->slots), ascending);
    *ret_entries = map->slots;
}

void lj_foldmap_clear(lj_foldmap *map)
{
    free(map->slots);
    *map = (lj_foldmap){0};
}
