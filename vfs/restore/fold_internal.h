/*
 * fold_internal.h - the state fold.c (verification) and fold_apply.c (writing) share.
 *
 * Layer: restore (internal to fold*.c).
 */
#ifndef LJ_FOLD_INTERNAL_H
#define LJ_FOLD_INTERNAL_H

#include "vfs/restore/fold.h"
#include "vfs/restore/foldmap.h"
#include "vfs/restore/lives.h"

struct lj_fold {
    lj_fold_setup setup;
    /* the index being read */
    bool in_index;
    bool have_header;
    bool stale; /* what follows in this index was left over from an older life of the WAL */
    uint32_t index;
    uint64_t index_bytes; /* received */
    uint64_t prev_end;    /* of the index before */
    bool first_over;      /* the first index is complete: */
    uint32_t first_index;
    uint64_t first_end;
    lj_wal_salt first_salt;
    uint64_t prev_frames; /* committed in the index before */
    bool same_life;       /* and this one goes on with its WAL */
    lj_wal_chain chain;
    uint8_t *carry; /* a header or frame that was cut */
    size_t carry_len;
    size_t carry_cap;
    /* all indexes */
    uint32_t page_size;
    uint32_t frames;   /* in the temporary file */
    uint32_t *pending; /* page numbers of the frames behind the last commit */
    size_t pending_count;
    size_t pending_cap;
    lj_lives lives;
    lj_foldmap map;
    const uint64_t *sorted; /* the map's entries once writing began, else NULL */
    size_t written;         /* of them: already in the database */
    uint32_t db_pages;      /* after the last commit, 0 = none */
    uint32_t floor_pages;   /* the smallest size at the end of an index since the last apply */
    uint64_t wal_bytes;
    bool tail_ignored;
};

#endif
