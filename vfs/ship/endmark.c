/*
 * endmark.c - nobody goes on from index n to n + 1 before `wal/<n>_<end>` says that n has ended.
 *
 * Segments are created if absent, so two writers that use the same key meet. But one that goes on with (n, end) and one that begins
 * (n + 1, 0) use different keys: their two histories would mix in one generation. So whoever leaves index n creates the object
 * that every other writer at this place needs next, with no byte in it. Every place in a generation then has exactly one
 * successor, and who creates it decides: a segment (the index goes on) or an end mark (index + 1 goes on).
 *
 *   our mark is there already    a kill behind the put, or another writer at the same place: the next key decides
 *   a segment is there           another writer went on: LJ_CONFLICT
 *   a mark where we have frames  another writer ended the index: LJ_CONFLICT (upload.c, nothing to compare with)
 *
 * It is never left out, however young our own last segment is: a volume may have been cloned before that segment was put (the
 * clone finds it and adopts it), and a clone of a running machine does not know that time went by.
 *
 * For readers a mark is a segment without bytes: Litestream v0.3.13 and our own restore take it as it is, and a segment that is
 * missing in front of it is a hole that shows.
 *
 * Layer: ship. Runs in the shipping task.
 */
#include <string.h>

#include "vfs/base/log.h"
#include "vfs/codec/lz4.h"
#include "vfs/ship/internal.h"

/* Something is there already. Read twice before a generation is given up for it, as in upload.c. */
static lj_code adopt(lj_shipper *s, const lj_position *at, const char *key, int64_t *created_ns,
                     lj_error *err)
{
    uint64_t bytes = 0;
    lj_code code = LJ_OK;
    for (int i = 0; i < 2; i++) {
        code = lj_ship_content_bytes(s, key, &bytes, err);
        if (code == LJ_OK && bytes == 0) {
            LJ_TRY(lj_ship_adopted_ns(s, key, created_ns, err));
            return lj_resume_check(s, err); /* whose is it? somebody may be far ahead by now */
        }
        if (code != LJ_OK && code != LJ_CORRUPT)
            return code;
    }
    return lj_ship_conflict(s, at, err);
}

static lj_code put(lj_shipper *s, const char *key, int64_t created_ns, lj_error *err)
{
    lj_memory_source nothing;
    lj_source raw = lj_source_memory(&nothing, "", 0);
    lj_source packed;
    lj_lz4_encoder *encoder = NULL;
    LJ_TRY(lj_lz4_encoder_new(&raw, &encoder, &packed, err));
    lj_ship_note_time(s, created_ns);
    lj_storage_put_options options = {.if_absent = true, .created_ns = created_ns};
    lj_code code = lj_storage_put(s->storage, key, &packed, &options, err);
    uint64_t bytes = lj_lz4_encoder_bytes_out(encoder);
    lj_lz4_encoder_free(encoder);
    if (code == LJ_OK) {
        pthread_mutex_lock(&s->db->mutex);
        s->db->shipped_bytes += bytes;
        pthread_mutex_unlock(&s->db->mutex);
    }
    return code;
}

lj_code lj_end_mark(lj_shipper *s, lj_error *err)
{
    lj_saved_position *saved = &s->saved;
    if (saved->mark_end == 0)
        return LJ_OK;
    if (saved->mark_end > LJ_OFFSET_MAX) {
        /* no name of the layout says this place, and so nobody can go on there */
        saved->mark_end = 0;
        s->unsaved = true;
        return LJ_OK;
    }
    lj_position at = saved->at;
    at.index--;
    at.offset = saved->mark_end;
    char key[LJ_NAME_MAX];
    lj_name_wal(&at, key);
    /* the state did not change: so close behind the last segment that no moment is answered otherwise */
    int64_t created_ns = saved->last_object_ns + 1;
    lj_code code = put(s, key, created_ns, err);
    bool removed = false;
    if (code == LJ_EXISTS)
        LJ_TRY(lj_takeback_remove(s, &at, &removed, err));
    if (removed)
        code = put(s, key, created_ns, err);
    if (code == LJ_EXISTS)
        code = adopt(s, &at, key, &created_ns, err);
    if (code != LJ_OK)
        return code;
    saved->mark_end = 0;
    saved->last_object_ns = created_ns;
    s->unsaved = true;
    return LJ_OK;
}
