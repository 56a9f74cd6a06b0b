/*
 * read.c - what an object of the replica holds, unpacked.
 *
 * Layer: ship. Thread-safety: see internal.h.
 */
#include "vfs/codec/lz4.h"
#include "vfs/ship/internal.h"

lj_code lj_ship_read(lj_shipper *s, const char *key, lj_sink *content, lj_error *err)
{
    lj_lz4_decoder *decoder = NULL;
    lj_sink sink;
    LJ_TRY(lj_lz4_decoder_new(content, &decoder, &sink, err));
    lj_code code = lj_storage_get(s->storage, key, 0, -1, &sink, err);
    if (code == LJ_OK)
        code = lj_lz4_decoder_finish(decoder, err);
    lj_lz4_decoder_free(decoder);
    return code;
}
