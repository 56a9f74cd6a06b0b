/*
 * ring.c - see ring.h.
 */
#include "vfs/capture/ring.h"

#include <stdlib.h>

void lj_ring_free(lj_ring *ring)
{
    free(ring->slots);
    *ring = (lj_ring){.slots = NULL};
}

static lj_commit *slot_at(const lj_ring *ring, uint32_t i)
{
    return &ring->slots[(ring->head + i) % ring->capacity];
}

static bool at_or_below(const lj_commit *commit, uint64_t life, uint64_t frame)
{
    return commit->life < life || (commit->life == life && commit->frame <= frame);
}

/* Room for one more, if it may and can be had. */
static void grow(lj_ring *ring)
{
    uint32_t capacity = ring->capacity == 0 ? LJ_RING_FIRST_SLOTS : ring->capacity * 2;
    lj_commit *slots = malloc(capacity * sizeof(*slots));
    if (slots == NULL)
        return;
    for (uint32_t i = 0; i < ring->count; i++)
        slots[i] = *slot_at(ring, i);
    free(ring->slots);
    ring->slots = slots;
    ring->capacity = capacity;
    ring->head = 0;
}

void lj_ring_push(lj_ring *ring, const lj_commit *commit)
{
    if (ring->count == ring->capacity && ring->capacity < LJ_RING_SLOTS)
        grow(ring);
    if (ring->capacity == 0)
        return;
    if (ring->count == ring->capacity) {
        lj_commit *newest = slot_at(ring, ring->count - 1);
        int64_t first_ns = newest->first_ns;
        *newest = *commit;
        newest->first_ns = first_ns;
        return;
    }
    *slot_at(ring, ring->count) = *commit;
    ring->count++;
}

void lj_ring_drop(lj_ring *ring, uint64_t life, uint64_t frame)
{
    while (ring->count > 0 && at_or_below(slot_at(ring, 0), life, frame)) {
        ring->head = (ring->head + 1) % ring->capacity;
        ring->count--;
    }
}

int64_t lj_ring_oldest_ns(const lj_ring *ring)
{
    return ring->count == 0 ? 0 : slot_at(ring, 0)->first_ns;
}

int64_t lj_ring_time_of(const lj_ring *ring, uint64_t life, uint64_t frame)
{
    int64_t found = 0;
    for (uint32_t i = 0; i < ring->count && at_or_below(slot_at(ring, i), life, frame); i++)
        found = slot_at(ring, i)->last_ns;
    return found;
}
