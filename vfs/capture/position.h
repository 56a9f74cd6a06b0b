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

    /*
     * With at.offset > 0: the life that at.index is, and the running checksum behind the last shipped frame. With a base: the same
     * salt as the base's, and the checksum behind its last frame; another salt: that one is not known.
     */
    lj_wal_salt salt;
    lj_wal_cksum sum;
    uint32_t page_size; /* also of the base; 0 = not known yet */
    bool big_endian;

    /* The generation's snapshot holds this much of the life that was current, and no segment was shipped yet. */
    bool has_base;
    lj_wal_salt base_salt;
    uint64_t base_frames;

    /* With at.offset == 0: end of index at.index - 1, whose end mark has not been put yet (ship/endmark.c); 0 = nothing to put. */
    uint64_t mark_end;

    /* With at.offset == 0 and no base: the database file as it was when at.index was the next one to begin. */
    bool has_identity;
    lj_identity identity;

    int64_t last_object_ns;  /* time given to the newest object; later ones are not older */
    int64_t snapshot_ns;     /* when the newest snapshot of this generation was taken, 0 = never */
    lj_position snapshot_at; /* what it contains */

    /*
     * Generations this database has owned, oldest first: retention may delete only these. Index and offset are where they ended for
     * us: what stands there or behind is another writer's. Of the current generation they say nothing.
     */
    lj_position lineage[LJ_LINEAGE_MAX];
    uint32_t lineage_count;
    lj_home home; /* of the state folder when the lineage was written */
} lj_saved_position;

/* LJ_NOTFOUND: no file. LJ_CORRUPT: there is one that does not verify. */
LJ_WARN_UNUSED lj_code lj_saved_position_load(const char *path, lj_saved_position *ret_position,
                                              lj_error *err);
/*
 * Not `durable`: a kill finds it, a power cut may find an older one or none that verifies. Then the replica is ahead, and a new
 * generation begins.
 */
LJ_WARN_UNUSED lj_code lj_saved_position_store(const char *path, const lj_saved_position *position,
                                               bool durable, lj_error *err);
/* Appends a generation to the lineage unless it is in it; the oldest falls out when it is full. */
void lj_saved_position_own(lj_saved_position *position, const char *generation);
/* Takes a generation out of the lineage: another writer is in it. */
void lj_saved_position_disown(lj_saved_position *position, const char *generation);
/* The current generation is being left: its entry in `lineage_of` (if there is one) says from now on where it ended for us. */
void lj_saved_position_leave(lj_saved_position *lineage_of, const lj_saved_position *left);
/* NULL: not owned. */
const lj_position *lj_saved_position_owned(const lj_saved_position *position,
                                           const char *generation);

#endif
