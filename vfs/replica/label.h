/*
 * label.h - what an object says of itself: whose it is, and where what comes before it ended.
 *
 * The layout tells both by the object's name alone. So an object that got another one's name, and whole segments that are
 * missing at the end of an index, cannot be seen in it. Every object of ours therefore begins with a skippable LZ4 frame
 * that holds this label. Readers of LZ4 frames pass over it: Litestream, the lz4 command, older versions of this project.
 *
 * Layer: replica (pure). Thread-safety: pure.
 * Format, 48 bytes, integers big-endian: "LJOBJ1\0\0", 16 digits of the generation, kind (0 snapshot, 1 segment), index,
 * offset (8 bytes), prev_end (8 bytes). Whatever does not begin so is somebody else's skippable frame, and no label.
 */
#ifndef LJ_LABEL_H
#define LJ_LABEL_H

#include "vfs/replica/name.h"

#define LJ_LABEL_BYTES 48u

typedef struct {
    lj_name name; /* never foreign */
    /* Of a segment at offset 0: where the index before it ends in the replica; 0 when that is not said. */
    uint64_t prev_end;
} lj_label;

void lj_label_write(const lj_label *label, uint8_t out[LJ_LABEL_BYTES]);
/* False when these bytes are no label. */
bool lj_label_read(const uint8_t *data, size_t len, lj_label *ret_label);
/* The object belongs under `key`. */
bool lj_label_fits(const lj_label *label, const char *key);
/* The key it belongs under. */
void lj_label_key(const lj_label *label, char out[LJ_NAME_MAX]);

#endif
