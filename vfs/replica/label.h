/*
 * label.h - what an object says of itself: which one it is, how long, and what must be there beside it.
 *
 * The layout tells none of this but by the object's name. So three things cannot be seen in it: an object that got another one's
 * name; whole segments that are missing at the end of an index that another one follows; and segments that a snapshot
 * contains, which are missing behind it, so that replaying the rest would put older pages over newer ones. Every object of ours therefore begins with a skippable LZ4 frame
 * that holds this label. Readers of LZ4 frames pass over it: Litestream, the lz4 command, older versions of this project.
 *
 * Layer: replica (pure). Thread-safety: pure.
 * Format, 64 bytes, integers big-endian: "LJOBJ1\0\0", 16 digits of the generation, kind (0 snapshot, 1 segment), index,
 * offset (8 bytes), size (8), needs (8), salt (two times 4). Whatever does not begin so is somebody else's skippable frame, and no label.
 */
#ifndef LJ_LABEL_H
#define LJ_LABEL_H

#include "vfs/replica/name.h"
#include "vfs/wal/wal.h"

#define LJ_LABEL_BYTES 64u

typedef struct {
    lj_name name;        /* never foreign */
    uint64_t size_bytes; /* of the content */
    /*
     * Of a segment at offset 0: where the index before it ends in the replica. Of a snapshot: how far into the WAL of its own index
     * it reaches, if that WAL has this salt; whoever replays any of it must get there. 0: nothing is said.
     */
    uint64_t needs;
    lj_wal_salt salt;
} lj_label;

void lj_label_write(const lj_label *label, uint8_t out[LJ_LABEL_BYTES]);
/* False when these bytes are no label. */
bool lj_label_read(const uint8_t *data, size_t len, lj_label *ret_label);
/* The object belongs under `key`. */
bool lj_label_fits(const lj_label *label, const char *key);
/* The key it belongs under. */
void lj_label_key(const lj_label *label, char out[LJ_NAME_MAX]);

#endif
