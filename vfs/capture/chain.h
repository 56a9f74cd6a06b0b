/*
 * chain.h - how the lives of one WAL file follow each other in a generation.
 *
 * A "life" of the WAL begins with a new header (new salts) and ends when the file is restarted, truncated or deleted. In
 * the replica a life is an index. The chain says which index the current life is, whether its end is known to be safe
 * (sealed: everything committed in it is in the replica or in the spool), and, when the WAL is empty, what the database
 * file looked like at that moment. With it, the next open can tell "the next life follows without a gap" from "something
 * happened that we did not see", without asking anybody.
 *
 * Kept in the shared page (shared.h), so that every process of the database goes by the same one.
 *
 * Layer: capture. Thread-safety: none of its own; guarded by lj_db.mutex.
 */
#ifndef LJ_CHAIN_H
#define LJ_CHAIN_H

#include "vfs/replica/name.h"
#include "vfs/wal/wal.h"

/* What tells one state of a database file from another. st_ctime catches what sets mtime back (cp -p, rsync -t, a restored
 * copy). Without st_dev: it changes when a volume is attached again, and a new generation would be the price. */
typedef struct {
    uint64_t inode;
    uint64_t size_bytes;
    int64_t mtime_ns;
    int64_t ctime_ns;
} lj_identity;

static inline bool lj_identity_eq(const lj_identity *a, const lj_identity *b)
{
    return a->inode == b->inode && a->size_bytes == b->size_bytes && a->mtime_ns == b->mtime_ns &&
           a->ctime_ns == b->ctime_ns;
}

/*
 * What tells a state folder from a copy of it: inode and time of birth of its lock file (0 where the file system has none). A
 * copy by files has others; a volume that was copied by blocks has the same.
 */
typedef struct {
    uint64_t inode;
    int64_t born_ns;
} lj_home;

static inline bool lj_home_eq(const lj_home *a, const lj_home *b)
{
    return a->inode == b->inode && a->born_ns == b->born_ns;
}

/* Of the file at `path`; all 0 when it cannot be told. */
lj_home lj_home_of(const char *path);

/* stat(2) of a path (never open: closing a descriptor of a database drops its locks). false = not there. */
bool lj_identity_of(const char *path, lj_identity *ret_identity);

typedef struct {
    bool
        active; /* a generation is being continued; else the frames in the WAL need no protection */
    char generation[LJ_GENERATION_MAX];
    uint32_t index; /* of the current life, or of the next one while has_life is false */
    bool has_life;
    lj_wal_salt salt; /* of the current life */
    bool
        unused; /* the current life holds nothing behind the base: the next life takes over its index */
    uint64_t
        base_frames; /* frames of the current life that the generation's first snapshot contains */
    bool sealed;     /* every committed frame of the current life is safe ... */
    uint64_t sealed_frames; /* ... and this is how many there were */
    uint64_t prev_end;      /* end offset of index - 1 */
    bool emptied;           /* the WAL was restarted, truncated or deleted behind the seal ... */
    lj_identity identity;   /* ... and the database file looked like this then */
    lj_wal_salt
        empty_salt; /* without a life: what the wal-index says the first one will have; 0: nothing */
    bool
        has_next; /* the header of the next life was written, and nothing was committed under it yet */
    lj_wal_salt next_salt;
    bool
        guarded; /* nobody can restart the WAL unseen (readguard.c): whatever life comes is the next */
} lj_chain;

/* The chain's current life is the one with this salt. */
static inline bool lj_chain_has_life(const lj_chain *chain, lj_wal_salt salt)
{
    return chain->has_life && lj_wal_salt_eq(chain->salt, salt);
}

#endif
