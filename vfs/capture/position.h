/*
 * position.h - the position file: what the replica has acknowledged, kept beside the database.
 *
 * `.NAME-litejoin/position` is written (tmp + fsync + rename) after every acknowledged object and before the restart
 * gate may rely on it. So whatever the gate let go is in the file, also after kill -9 or a power cut.
 *
 * Layer: capture. Thread-safety: one writer, the database's shipper. Format: text, one "key value..." per line, the last
 * line is the checksum of all before; a file that does not verify counts as absent (a snapshot is always a legal answer).
 */
#ifndef LJ_SAVED_POSITION_H
#define LJ_SAVED_POSITION_H

#include "vfs/capture/chain.h"

#define LJ_LINEAGE_MAX 16u

typedef struct {
    lj_position at; /* the next byte to ship; "" generation = none */

    uint64_t
        prev_end; /* where the index before at.index ends; 0 = not known, or it does not matter */

    /* With at.offset > 0: the life that at.index is, and the running checksum behind the last shipped frame. */
    lj_wal_salt salt;
    lj_wal_cksum sum;
    uint32_t page_size; /* also of the base; 0 = not known yet */
    bool big_endian;

    /* The generation's snapshot holds this much of the life that was current, and no segment was shipped yet. */
    bool has_base;
    lj_wal_salt base_salt;
    uint64_t base_frames;

    /* With at.offset == 0 and no base: the database file as it was when at.index was the next one to begin. */
    bool has_identity;
    lj_identity identity;

    int64_t last_object_ns;  /* time given to the newest object; later ones are not older */
    int64_t snapshot_ns;     /* when the newest snapshot of this generation was taken, 0 = never */
    lj_position snapshot_at; /* what it contains */

    /* Generations this database has owned, oldest first, the current one last: retention may delete only these. */
    char lineage[LJ_LINEAGE_MAX][LJ_GENERATION_MAX];
    uint32_t lineage_count;
} lj_saved_position;

/* LJ_NOTFOUND: no file. LJ_CORRUPT: there is one that does not verify. */
LJ_WARN_UNUSED lj_code lj_saved_position_load(const char *path, lj_saved_position *ret_position,
                                              lj_error *err);
LJ_WARN_UNUSED lj_code lj_saved_position_store(const char *path, const lj_saved_position *position,
                                               lj_error *err);
/* Appends a generation to the lineage unless it is the last one; the oldest falls out when it is full. */
void lj_saved_position_own(lj_saved_position *position, const char *generation);

#endif
