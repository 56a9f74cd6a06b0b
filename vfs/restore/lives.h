/*
 * lives.h - may the WAL of this index follow the one before it?
 *
 * An index holds one life of the WAL, or goes on with the life of the index before (rollover). So a life that comes back
 * later, or one that SQLite has begun before the one in front of it, is an object under a wrong name. That is all that can
 * be seen where objects have no label (label.h).
 *
 * Layer: restore (internal). Thread-safety: one thread. Memory: 16 bytes per life.
 * Source: SQLite, walRestartHdr: a restart in place counts the first salt and the checkpoint number up by one, and takes a
 * random second salt; a new file has random salts, but for one that a TRUNCATE checkpoint restarted before its first frame.
 */
#ifndef LJ_LIVES_H
#define LJ_LIVES_H

#include "vfs/wal/wal.h"

typedef struct {
    lj_wal_salt *table; /* open addressing; both salts 0: free */
    size_t size;        /* a power of two */
    size_t count;
    lj_wal_header last;
} lj_lives;

void lj_lives_clear(lj_lives *lives);
/* The next index begins with this header. *ret_same: it is the life of the index before. LJ_CORRUPT: it cannot follow. */
LJ_WARN_UNUSED lj_code lj_lives_next(lj_lives *lives, const lj_wal_header *header, bool *ret_same,
                                     lj_error *err);

#endif
