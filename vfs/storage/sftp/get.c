/*
 * get.c - the SFTP driver's get and head: several READs on the way at once, bytes to the sink in order.
 *
 * Layer: storage. Thread-safety: as storage.h.
 */
#include <stdlib.h>
#include <string.h>

#include "vfs/storage/sftp/internal.h"

#define CHUNK_BYTES 65536u
#define SLOTS       32u /* so 2 MiB are on the way */
#define FIRST_SLOTS 2u  /* before the size is known */

/* One READ on the way; they are in a ring in the order of their offsets. */
typedef struct {
    uint32_t id;
    uint64_t offset;
    uint32_t want;
    uint32_t got;
    uint8_t *data; /* what came before its turn; NULL when nothing did */
    bool done;
} read_slot;

typedef struct {
    lj_sftp_session *s;
    lj_sftp_handle handle;
    lj_sink *sink;
    uint64_t next; /* offset of the next READ */
    uint64_t end;  /* offset behind the last byte that is wanted */
    bool size_known;
    read_slot ring[SLOTS];
    size_t first;
    size_t count;
    size_t dropped; /* READs that turned out to be behind the end and are not answered yet */
} reading;

static void reading_free(reading *r)
{
    for (size_t i = 0; i < SLOTS; i++)
        free(r->ring[i].data);
}

static lj_code no_object(const lj_sftp *sftp, lj_sftp_session *s, const char *path, lj_error *err)
{
    LJ_TRY(lj_sftp_check_root(sftp, s, err));
    LJ_TRY(lj_sftp_check_links(s, path, err));
    return lj_error_set(err, LJ_NOTFOUND, "there is no such object");
}

static lj_code ask(reading *r, read_slot *slot, lj_error *err)
{
    lj_fx_writer w = lj_sftp_request(r->s, LJ_FXP_READ, &slot->id);
    lj_fx_string(&w, r->handle.bytes, r->handle.len);
    lj_fx_u64(&w, slot->offset + slot->got);
    lj_fx_u32(&w, slot->want - slot->got);
    return lj_fx_end(&w, err);
}

static lj_code ask_more(reading *r, lj_error *err)
{
    size_t slots = r->size_known ? SLOTS : FIRST_SLOTS;
    uint32_t chunk = LJ_MIN(r->s->max_read, CHUNK_BYTES);
    while (r->count < slots && r->next < r->end) {
        read_slot *slot = &r->ring[(r->first + r->count) % SLOTS];
        uint32_t want = (uint32_t)LJ_MIN(r->end - r->next, (uint64_t)chunk);
        *slot = (read_slot){.offset = r->next, .want = want};
        LJ_TRY(ask(r, slot, err));
        r->next += want;
        r->count++;
    }
    return LJ_OK;
}

static lj_code ended_early(lj_error *err)
{
    lj_error_set(err, LJ_UNAVAILABLE, "the object ended before its size");
    return lj_error_retryable(err, true);
}

/* Takes the data of an answer: to the sink when it is this slot's turn, else it is kept. */
static lj_code take_data(reading *r, read_slot *slot, bool turn, lj_fx_reader *body, lj_error *err)
{
    size_t len = 0;
    const uint8_t *data = lj_fx_read_string(body, &len);
    if (body->bad || len == 0 || len > slot->want - slot->got)
        return lj_sftp_nonsense(r->s, "data of impossible length", err);
    if (turn) {
        LJ_TRY(r->sink->write(r->sink->ctx, data, len, err));
    } else {
        if (slot->data == NULL)
            slot->data = malloc(slot->want);
        if (slot->data == NULL)
            return lj_error_nomem(err);
        memcpy(slot->data + slot->got, data, len);
    }
    slot->got += (uint32_t)len;
    slot->done = slot->got == slot->want;
    return slot->done ? LJ_OK : ask(r, slot, err); /* fewer bytes than asked for: the rest again */
}

/* Hands on what has got its turn. */
static lj_code advance(reading *r, lj_error *err)
{
    while (r->count > 0 && r->ring[r->first].done) {
        r->ring[r->first].done = false;
        free(r->ring[r->first].data);
        r->ring[r->first].data = NULL;
        r->first = (r->first + 1) % SLOTS;
        r->count--;
        read_slot *slot = &r->ring[r->first];
        if (r->count > 0 && slot->data != NULL) {
            LJ_TRY(r->sink->write(r->sink->ctx, slot->data, slot->got, err));
            free(slot->data);
            slot->data = NULL;
        }
    }
    return LJ_OK;
}

static lj_code take_answer(reading *r, lj_sftp_answer *answer, const char *path, lj_error *err)
{
    for (size_t i = 0; i < r->count; i++) {
        read_slot *slot = &r->ring[(r->first + i) % SLOTS];
        if (slot->id != answer->id || slot->done)
            continue;
        if (answer->type != LJ_FXP_DATA) {
            uint32_t status = 0;
            LJ_TRY(lj_sftp_status(r->s, answer, &status, err));
            return status == LJ_FX_EOF || status == LJ_FX_OK
                       ? ended_early(err)
                       : lj_sftp_status_error(status, "cannot read", path, err);
        }
        LJ_TRY(take_data(r, slot, i == 0, &answer->body, err));
        return advance(r, err);
    }
    if (r->dropped >
        0) { /* came before the rest of one in front of it, which was answered in part */
        r->dropped--;
        return LJ_OK;
    }
    return lj_sftp_nonsense(r->s, "data that was not asked for", err);
}

/* The size comes with the first data. *ret_file false: it is no object. */
static lj_code take_size(reading *r, const char *path, uint32_t id, bool *ret_file, lj_error *err)
{
    lj_sftp_answer answer;
    lj_fx_attrs attrs;
    uint32_t status = 0;
    LJ_TRY(lj_sftp_receive_id(r->s, id, &answer, err));
    LJ_TRY(lj_sftp_attrs_of(r->s, &answer, &attrs, &status, err));
    if (status != LJ_FX_OK)
        return lj_sftp_status_error(status, "cannot get the size of", "the object", err);
    if (!lj_sftp_has_kind(&attrs))
        return lj_sftp_no_kind(path, err);
    *ret_file = lj_sftp_is_file(&attrs) && (attrs.flags & LJ_FXA_SIZE) != 0;
    r->end = LJ_MIN(r->end, attrs.size);
    r->size_known = true;
    return LJ_OK;
}

/* Forgets READs that turned out to be behind the end; their answers are thrown away with the operation. */
static void drop_behind_end(reading *r)
{
    while (r->count > 0) {
        read_slot *slot = &r->ring[(r->first + r->count - 1) % SLOTS];
        uint64_t left = r->end > slot->offset ? r->end - slot->offset : 0;
        if (left > 0) {
            slot->want = (uint32_t)LJ_MIN(left, (uint64_t)slot->want);
            return;
        }
        r->count--;
        r->dropped++;
    }
}

static lj_code read_all(const lj_sftp *sftp, reading *r, const char *path, lj_error *err)
{
    uint32_t stat_id = 0;
    bool is_file = false;
    LJ_TRY(lj_sftp_ask_handle(r->s, LJ_FXP_FSTAT, &r->handle, &stat_id, err));
    LJ_TRY(ask_more(r, err));
    LJ_TRY(take_size(r, path, stat_id, &is_file, err));
    if (!is_file) {
        lj_sftp_forget(r->s);
        return no_object(sftp, r->s, path, err);
    }
    drop_behind_end(r);
    for (;;) {
        LJ_TRY(ask_more(r, err));
        if (r->count == 0)
            return LJ_OK;
        lj_sftp_answer answer;
        bool there = false;
        LJ_TRY(lj_sftp_receive(r->s, true, &answer, &there, err));
        LJ_TRY(take_answer(r, &answer, path, err));
    }
}

static lj_code get_by(const lj_sftp *sftp, lj_sftp_session *s, const char *path, reading *r,
                      lj_error *err)
{
    uint32_t id = 0;
    uint32_t status = 0;
    lj_sftp_answer answer;
    LJ_TRY(lj_sftp_ask_open(s, path, LJ_FXF_READ, &id, err));
    LJ_TRY(lj_sftp_receive_id(s, id, &answer, err));
    LJ_TRY(lj_sftp_handle_of(s, &answer, &r->handle, &status, err));
    if (status == LJ_FX_NO_SUCH_FILE)
        return no_object(sftp, s, path, err);
    if (status != LJ_FX_OK)
        return lj_sftp_status_error(status, "cannot open", path, err);
    lj_code code = read_all(sftp, r, path, err);
    /* nobody waits for the answer */
    if (!s->broken && lj_sftp_ask_handle(s, LJ_FXP_CLOSE, &r->handle, &id, NULL) != LJ_OK)
        s->broken = true;
    return code;
}

static lj_code stat_object(const lj_sftp *sftp, lj_sftp_session *s, const char *path,
                           lj_storage_entry *ret_entry, lj_error *err)
{
    lj_fx_attrs attrs;
    uint32_t status = 0;
    LJ_TRY(lj_sftp_do_stat(s, LJ_FXP_STAT, path, &attrs, &status, err));
    if (status == LJ_FX_NO_SUCH_FILE)
        return no_object(sftp, s, path, err);
    if (status != LJ_FX_OK)
        return lj_sftp_status_error(status, "cannot look at", path, err);
    if (!lj_sftp_has_kind(&attrs))
        return lj_sftp_no_kind(path, err);
    if (!lj_sftp_is_file(&attrs))
        return no_object(sftp, s, path, err);
    ret_entry->size_bytes = attrs.size;
    ret_entry->created_ns = (int64_t)attrs.mtime * LJ_NS_PER_S;
    return LJ_OK;
}

/* The path of an object; *ret_path NULL: names of unfinished puts are no objects. */
static lj_code object_path(const lj_sftp *sftp, const char *key, char **ret_path, lj_error *err)
{
    const char *slash = strrchr(key, '/');
    if (lj_sftp_is_temp(slash != NULL ? slash + 1 : key))
        return lj_error_set(err, LJ_NOTFOUND, "there is no such object");
    *ret_path = lj_sftp_path(sftp, key);
    return *ret_path != NULL ? LJ_OK : lj_error_nomem(err);
}

lj_code lj_sftp_get(void *self, const char *key, uint64_t offset, int64_t length, lj_sink *sink,
                    lj_error *err)
{
    lj_sftp *sftp = self;
    LJ_CLEANUP(lj_freep) char *path = NULL;
    LJ_TRY(object_path(sftp, key, &path, err));
    LJ_CLEANUP(lj_freep) reading *r = calloc(1, sizeof(*r));
    if (r == NULL)
        return lj_error_nomem(err);
    lj_sftp_session *s = NULL;
    LJ_TRY(lj_sftp_take(sftp, &s, err));
    r->s = s;
    r->sink = sink;
    r->next = offset;
    r->end = length < 0 ? (uint64_t)INT64_MAX : offset + (uint64_t)length;
    lj_code code = get_by(sftp, s, path, r, err);
    reading_free(r);
    lj_sftp_give(sftp, s);
    return code;
}

lj_code lj_sftp_head(void *self, const char *key, lj_storage_entry *ret_entry, lj_error *err)
{
    lj_sftp *sftp = self;
    LJ_CLEANUP(lj_freep) char *path = NULL;
    LJ_TRY(object_path(sftp, key, &path, err));
    lj_sftp_session *s = NULL;
    LJ_TRY(lj_sftp_take(sftp, &s, err));
    lj_code code = stat_object(sftp, s, path, ret_entry, err);
    lj_sftp_give(sftp, s);
    return code;
}
