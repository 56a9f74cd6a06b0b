/*
 * ring.h - the queue of committed transactions between the connections and the uploader.
 *
 * One entry per transaction, by reference: which life of the WAL, its last frame, the database size and the commit
 * time. The frame bytes stay in the WAL file (and in the page cache) until the uploader reads them; the restart gate keeps
 * them there. So an entry costs 40 bytes whatever the transaction's size, and nothing is copied at commit. A full
 * ring merges the newest entries: no commit is ever refused or delayed, only time stamps get coarser. The ring of a database
 * that is seldom written has a few slots; it grows by doubling.
 *
 * Layer: capture. Thread-safety: none; guarded by lj_db.mutex.
 */
#ifndef LJ_RING_H
#define LJ_RING_H

#include "vfs/base/base.h"

#define LJ_RING_SLOTS       256u /* at most */
#define LJ_RING_FIRST_SLOTS 8u

typedef struct {
    uint64_t life;    /* which life of the WAL file, counted by lj_db since it was opened */
    uint64_t frame;   /* last frame of the transaction in that life */
    int64_t first_ns; /* commit time of the oldest transaction in this entry */
    int64_t last_ns;  /* ... and of the newest; they differ only in a merged entry */
    uint32_t db_pages;
} lj_commit;

typedef struct {
    lj_commit *slots; /* allocated at the first push */
    uint32_t capacity;
    uint32_t head;
    uint32_t count;
} lj_ring;

void lj_ring_free(lj_ring *ring);
/* Adds the newest commit. Without memory for slots it is merged, or, for the first ones, counted by its owner and not timed. */
void lj_ring_push(lj_ring *ring, const lj_commit *commit);
/* Drops every entry at or below (life, frame): it is in the replica. */
void lj_ring_drop(lj_ring *ring, uint64_t life, uint64_t frame);
/* Commit time of the oldest entry, 0 when empty. */
int64_t lj_ring_oldest_ns(const lj_ring *ring);
/* Commit time of the newest transaction at or below (life, frame), 0 when there is none in the ring. */
int64_t lj_ring_time_of(const lj_ring *ring, uint64_t life, uint64_t frame);

#endif
