/*
 * upload.c - one segment becomes one object, created if-absent.
 *
 * An object that is already there is either ours (the acknowledgement was lost) or somebody else's. Its content decides: when
 * it is a prefix of what we would have written and ends a transaction, it is taken as acknowledged; otherwise another
 * writer is at work, and we leave: a new generation begins, nothing of the other's is touched.
 *
 * Layer: ship. Runs in the shipping task.
 */
#include <inttypes.h>
#include <string.h>

#include "vfs/base/clock.h"
#include "vfs/base/log.h"
#include "vfs/codec/lz4.h"
#include "vfs/replica/label.h"
#include "vfs/ship/internal.h"

/* Compares what comes out of an existing object with our own bytes. */
typedef struct {
    lj_source mine;
    uint64_t bytes;
    bool differs;
    bool unread; /* our own bytes could not be read: says nothing about the object */
} comparison;

static lj_code compare_write(void *ctx, const void *data, size_t len, lj_error *err)
{
    comparison *c = ctx;
    const uint8_t *theirs = data;
    uint8_t mine[4096];
    while (len > 0 && !c->differs) {
        size_t n = 0;
        c->unread = true;
        LJ_TRY(c->mine.read(c->mine.ctx, mine, LJ_MIN(sizeof(mine), len), &n, err));
        c->unread = false;
        if (n == 0 || memcmp(mine, theirs, n) != 0)
            c->differs = true;
        theirs += n;
        len -= n;
        c->bytes += n;
    }
    return LJ_OK;
}

static lj_code conflict(const char *key, lj_error *err)
{
    return lj_error_set(err, LJ_CONFLICT, "another writer has written %s", key);
}

/* Reads the existing object and compares it; LJ_CONFLICT if it is not ours. */
static lj_code compare_existing(lj_shipper *s, const char *key, lj_segment *segment,
                                uint64_t *ret_bytes, lj_error *err)
{
    comparison c = {.mine = lj_segment_source(segment)};
    LJ_TRY(c.mine.rewind(c.mine.ctx, err));
    lj_sink compare = {.ctx = &c, .write = compare_write};
    lj_code code = lj_ship_read(s, key, &compare, err);
    if ((code == LJ_CORRUPT && !c.unread) || (code == LJ_OK && (c.differs || c.bytes == 0)))
        return conflict(key, err);
    if (code == LJ_OK)
        *ret_bytes = c.bytes;
    return code;
}

/*
 * On success the segment's chain stands behind the part that is there. A generation is given up for a difference, so it has to
 * be read twice: what stands between here and the store may damage an answer.
 */
static lj_code adopt_existing(lj_shipper *s, const char *key, lj_segment *segment,
                              uint64_t *ret_bytes, lj_error *err)
{
    lj_code code = compare_existing(s, key, segment, ret_bytes, err);
    return code == LJ_CONFLICT ? compare_existing(s, key, segment, ret_bytes, err) : code;
}

/* Where the chain stands after the first `bytes` of the segment; LJ_CONFLICT if that does not end a transaction. */
static lj_code chain_after(lj_segment *segment, uint64_t bytes, const char *key,
                           lj_wal_chain *ret_chain, lj_error *err)
{
    lj_wal_chain chain;
    uint64_t end = segment->from + bytes;
    uint64_t frames = lj_wal_frames_below(segment->header.page_size, end);
    uint64_t before = lj_wal_frames_below(segment->header.page_size, segment->from);
    /* a header alone is nothing we ever wrote */
    if (frames == before || lj_wal_frame_offset(segment->header.page_size, frames + 1) != end)
        return conflict(key, err);
    lj_wal_chain_resume(&chain, &segment->header, before, segment->sum_from);
    lj_wal_verdict verdict = LJ_WAL_FRAME_OK;
    LJ_TRY(lj_walfile_walk(segment->fd, &chain, frames, NULL, NULL, &verdict, err));
    if (chain.frames != frames || chain.committed != frames)
        return conflict(key, err);
    *ret_chain = chain;
    return LJ_OK;
}

static void put_label(const lj_shipper *s, const lj_segment *segment, lj_lz4_encoder *encoder)
{
    const lj_saved_position *saved = &s->saved;
    lj_label label = {.name = {.kind = LJ_NAME_WAL, .position = saved->at},
                      .size_bytes = segment->to - segment->from,
                      .needs = saved->at.offset == 0 ? saved->prev_end : 0};
    uint8_t bytes[LJ_LABEL_BYTES];
    lj_label_write(&label, bytes);
    lj_lz4_encoder_label(encoder, bytes, sizeof(bytes));
}

/* A put whose transaction may be withdrawn while it is on its way: what it sent is known. */
static lj_code put_pending(lj_shipper *s, const char *key, lj_source *packed,
                           const lj_storage_put_options *options, lj_error *err)
{
    lj_sent_source hash;
    lj_source hashed;
    lj_sent_object now = {.at = s->saved.at, .number = s->pending};
    lj_code code = lj_sent_source_begin(&hash, packed, &now, &hashed, err);
    if (code == LJ_OK)
        code = lj_storage_put(s->storage, key, &hashed, options, err);
    lj_sent_source_end(&hash);
    /* what an earlier one sent may be stored all the same, however early this one ended */
    bool again = s->attempt.number == now.number && lj_position_eq(&s->attempt.at, &now.at);
    if (now.whole || !again)
        s->attempt = now;
    return code;
}

static lj_code put_segment(lj_shipper *s, const char *key, lj_segment *segment, int64_t created_ns,
                           lj_error *err)
{
    lj_source raw = lj_segment_source(segment);
    lj_source packed;
    lj_lz4_encoder *encoder = NULL;
    LJ_TRY(raw.rewind(raw.ctx, err));
    LJ_TRY(lj_lz4_encoder_new(&raw, &encoder, &packed, err));
    put_label(s, segment, encoder);
    lj_ship_note_time(s, created_ns);
    lj_storage_put_options options = {.if_absent = true, .created_ns = created_ns};
    lj_code code = s->pending != 0 ? put_pending(s, key, &packed, &options, err)
                                   : lj_storage_put(s->storage, key, &packed, &options, err);
    if (code == LJ_OK) {
        pthread_mutex_lock(&s->db->mutex);
        s->db->segments++;
        s->db->shipped_bytes += lj_lz4_encoder_bytes_out(encoder);
        pthread_mutex_unlock(&s->db->mutex);
    }
    lj_lz4_encoder_free(encoder);
    return code;
}

static void move_position(lj_shipper *s, const lj_wal_chain *chain, uint64_t to, int64_t created_ns)
{
    lj_saved_position *saved = &s->saved;
    s->last_put = saved->at;
    saved->at.offset = to;
    saved->salt = chain->header.salt;
    saved->sum = chain->sum;
    saved->page_size = chain->header.page_size;
    saved->big_endian = chain->header.big_endian;
    saved->has_base = false;
    saved->has_identity = false;
    saved->last_object_ns = created_ns;
    lj_saved_position_own(saved, saved->at.generation); /* whoever was here before has met us */
    s->unsaved = true;
    lj_resume_agreed(s);
}

bool lj_ship_outcome_unknown(const lj_error *err)
{
    switch (err->code) {
    case LJ_UNAVAILABLE:
    case LJ_TIMEOUT:
    case LJ_CANCELLED:
    case LJ_NOMEM: /* there may have been an answer, and no memory to read it */
    case LJ_EXISTS:
        /* a server error is also what a gateway says that gave up waiting for an answer */
        return !lj_error_is_refusal(err);
    default:
        return false;
    }
}

/*
 * A request that was given up may reach the store after the one that replaced it. Where the store does not keep the
 * condition it then overwrites: so it is repeated with the same bytes, whatever was committed since.
 */
static uint64_t end_of_repeated(const lj_shipper *s, uint64_t to)
{
    const lj_position *at = &s->saved.at;
    bool repeated = s->unknown_at.generation[0] != 0 && lj_position_eq(&s->unknown_at, at);
    return repeated ? LJ_MIN(s->unknown_to, to) : to;
}

#define TAKEBACKS_MAX 4u

/* Puts the segment, or finds what is there instead of it: *chain, *to and *created_ns say how far it goes then, and its time. */
static lj_code put_or_adopt(lj_shipper *s, const char *key, lj_segment *segment,
                            int64_t *created_ns, lj_wal_chain *ret_chain, uint64_t *to,
                            lj_error *err)
{
    for (unsigned i = 0;; i++) {
        lj_code code = put_segment(s, key, segment, *created_ns, err);
        if (code != LJ_EXISTS) {
            *ret_chain = segment->chain;
            return code;
        }
        uint64_t bytes = 0;
        code = adopt_existing(s, key, segment, &bytes, err);
        if (code == LJ_OK)
            code = chain_after(segment, bytes, key, ret_chain, err);
        if (code == LJ_OK)
            code = lj_ship_adopted_ns(s, key, created_ns, err);
        if (code == LJ_OK) {
            *to = segment->from + bytes;
            lj_log(LJ_LOG_INFO, "%s: %s was already there with our content", s->db->path, key);
            return LJ_OK;
        }
        bool removed = false;
        lj_error why = LJ_ERROR_INIT;
        if (code != LJ_CONFLICT)
            return code;
        lj_code taken = lj_takeback_remove(s, &s->saved.at, &removed, &why);
        if (taken != LJ_OK) {
            *err = why;
            return taken;
        }
        if (!removed || i == TAKEBACKS_MAX)
            return lj_ship_conflict(s, &s->saved.at, err);
    }
}

/*
 * The transaction that waits is in the segment: tells it how the attempt ended. *unknown: the same bytes may be repeated. What
 * was not read to its end cannot have been stored, and need not be.
 */
static lj_code settle(lj_shipper *s, uint64_t pending, lj_code code, uint64_t to,
                      uint64_t pending_to, bool *unknown, lj_error *err)
{
    bool stored = code == LJ_OK && to >= pending_to;
    *unknown = *unknown && s->attempt.whole;
    if (lj_db_pending_end(s->db, pending, stored, *unknown))
        return code;
    *unknown = false;
    if (code == LJ_OK && !stored)
        return LJ_OK; /* a part that was published before */
    if (code == LJ_OK) {
        lj_error_set(err, LJ_TIMEOUT,
                     "an upload was given up: the COMMIT that waited for it failed");
        return lj_error_retryable(err, true);
    }
    return code;
}

lj_code lj_upload_segment(lj_shipper *s, int fd, const lj_wal_header *header, uint64_t to,
                          int64_t commit_ns, lj_error *err)
{
    uint64_t from = s->saved.at.offset;
    lj_error local = LJ_ERROR_INIT;
    err = err != NULL ? err : &local;
    /* with a base behind the limit one segment could hold all of the WAL, but the next would need another snapshot again */
    bool behind_base = s->saved.has_base && lj_wal_salt_eq(s->saved.base_salt, header->salt);
    uint64_t base =
        behind_base ? lj_wal_frame_offset(header->page_size, s->saved.base_frames + 1) : 0;
    if (LJ_MAX(from, base) > LJ_OFFSET_MAX)
        return lj_error_set(err, LJ_CONFLICT, LJ_PAST_LAYOUT_TEXT);
    LJ_TRY(lj_resume_after_rest(s, err));
    LJ_TRY(lj_end_mark(s, err));
    LJ_TRY(lj_takeback_note(s, err)); /* and another one may wait since this step began */
    lj_wal_cksum sum = from == 0 ? header->cksum : s->saved.sum;
    char key[LJ_NAME_MAX];
    lj_name_wal(&s->saved.at, key);
    int64_t wanted_ns = commit_ns != 0 ? commit_ns : lj_clock_wall_ns();
    int64_t created_ns = LJ_MAX(wanted_ns, s->saved.last_object_ns + 1);

    lj_segment segment;
    uint64_t wanted_to = to;
    to = end_of_repeated(s, to);
    if (to < wanted_to)
        s->pending = 0; /* not in this one yet */
    LJ_TRY(lj_segment_init(&segment, fd, header, from, to, sum, err));
    uint64_t pending = s->pending;
    if (pending != 0 && !lj_db_pending_begin(s->db, pending)) {
        lj_segment_free(&segment);
        lj_error_set(err, LJ_BUSY, "the transaction was withdrawn");
        return lj_error_retryable(err, true);
    }
    lj_wal_chain chain = segment.chain;
    lj_code code = put_or_adopt(s, key, &segment, &created_ns, &chain, &to, err);
    bool unknown = code != LJ_OK && lj_ship_outcome_unknown(err);
    if (pending != 0)
        code = settle(s, pending, code, to, wanted_to, &unknown, err);
    if (unknown) {
        s->unknown_at = s->saved.at;
        s->unknown_to = to;
    }
    if (code == LJ_OK)
        move_position(s, &chain, to, created_ns);
    lj_segment_free(&segment);
    return code;
}
