/*
 * read.c - what an object of the replica holds, unpacked, and when it was made.
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

static lj_code count_bytes(void *ctx, const void *data, size_t len, lj_error *err)
{
    (void)data;
    (void)err;
    *(uint64_t *)ctx += len;
    return LJ_OK;
}

lj_code lj_ship_content_bytes(lj_shipper *s, const char *key, uint64_t *ret_bytes, lj_error *err)
{
    *ret_bytes = 0;
    lj_sink count = {.ctx = ret_bytes, .write = count_bytes};
    return lj_ship_read(s, key, &count, err);
}

lj_code lj_ship_adopted_ns(lj_shipper *s, const char *key, int64_t *ns, lj_error *err)
{
    if ((lj_storage_features(s->storage) & LJ_STORAGE_SET_TIME) == 0)
        return LJ_OK; /* the store's clock says when, of every object */
    lj_storage_entry entry;
    LJ_TRY(lj_storage_head(s->storage, key, &entry, err));
    *ns = LJ_MAX(*ns, entry.created_ns);
    lj_ship_note_time(s, *ns);
    return LJ_OK;
}
