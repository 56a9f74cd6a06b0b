/*
 * takeback.c - objects that may hold a transaction whose COMMIT failed.
 *
 * An attempt that was given up may have been stored all the same, or may still arrive. Its transaction was withdrawn
 * (capture/pending.h), so its bytes must not be repeated, and an object with them must not stay:
 *
 *   - what was sent is known by its length and SHA-256, taken while it was sent;
 *   - the key is looked at now and a few times later, until an object of ours is there: from then on the store refuses what
 *     comes late;
 *   - an object that is there and is exactly what was sent is deleted, and looked for again. Any other is left to upload.c;
 *   - what cannot be deleted, a deletion without an answer (it may come late, too, and would take the next object of that
 *     key), and a store that would let a late put overwrite: the chain is broken. In the new generation the transaction is
 *     absent.
 *
 * Layer: ship. Runs in the shipping task.
 */
#include <stdio.h>
#include <string.h>

#include "vfs/base/clock.h"
#include "vfs/base/log.h"
#include "vfs/ship/internal.h"

/* Looked at again behind each of these. A store that answers slower than that refuses or overwrites only (see above). */
static const int64_t look_again_ns[] = {LJ_NS_PER_S / 4, LJ_NS_PER_S, 5 * LJ_NS_PER_S,
                                        20 * LJ_NS_PER_S, 60 * LJ_NS_PER_S};

/* ------------------------------------------------------------------ what is sent */

static lj_code hash_read(void *ctx, void *out, size_t max, size_t *ret_n, lj_error *err)
{
    lj_sent_source *h = ctx;
    size_t n = 0;
    LJ_TRY(h->inner->read(h->inner->ctx, out, max, &n, err));
    if (n > 0)
        LJ_TRY(lj_sha256_add(h->sha, out, n, err));
    else if (max > 0 && !h->object->whole) {
        LJ_TRY(lj_sha256_end(h->sha, h->object->hash, err));
        h->object->whole = true;
    }
    h->object->bytes += n;
    *ret_n = n;
    return LJ_OK;
}

static lj_code hash_rewind(void *ctx, lj_error *err)
{
    lj_sent_source *h = ctx;
    h->object->bytes = 0;
    h->object->whole = false;
    LJ_TRY(lj_sha256_restart(h->sha, err));
    return h->inner->rewind(h->inner->ctx, err);
}

lj_code lj_sent_source_begin(lj_sent_source *h, lj_source *inner, lj_sent_object *object,
                             lj_source *ret_source, lj_error *err)
{
    *h = (lj_sent_source){.inner = inner, .object = object};
    object->bytes = 0;
    object->whole = false;
    LJ_TRY(lj_sha256_new(&h->sha, err));
    *ret_source =
        (lj_source){.ctx = h, .read = hash_read, .rewind = hash_rewind, .size = inner->size};
    return LJ_OK;
}

void lj_sent_source_end(lj_sent_source *h)
{
    lj_sha256_free(h->sha);
    h->sha = NULL;
}

/* ------------------------------------------------------------------ what is there */

typedef struct {
    lj_sha256_state *sha;
    uint64_t bytes;
} digest;

static lj_code digest_write(void *ctx, const void *data, size_t len, lj_error *err)
{
    digest *d = ctx;
    d->bytes += len;
    return lj_sha256_add(d->sha, data, len, err);
}

static lj_code read_digest(lj_shipper *s, const char *key, uint64_t *ret_bytes,
                           uint8_t out[LJ_SHA256_BYTES], lj_error *err)
{
    digest d = {.sha = NULL};
    LJ_TRY(lj_sha256_new(&d.sha, err));
    lj_sink sink = {.ctx = &d, .write = digest_write};
    lj_code code = lj_storage_get(s->storage, key, 0, -1, &sink, err);
    if (code == LJ_OK)
        code = lj_sha256_end(d.sha, out, err);
    lj_sha256_free(d.sha);
    *ret_bytes = d.bytes;
    return code;
}

static bool was_sent(const lj_shipper *s, const lj_position *at, uint64_t bytes,
                     const uint8_t hash[LJ_SHA256_BYTES])
{
    for (unsigned i = 0; i < s->revoked_count; i++) {
        const lj_sent_object *o = &s->revoked[i];
        if (lj_position_eq(&o->at, at) && o->bytes == bytes &&
            memcmp(o->hash, hash, LJ_SHA256_BYTES) == 0)
            return true;
    }
    return false;
}

/* ------------------------------------------------------------------ taking note, taking back */

lj_code lj_takeback_note(lj_shipper *s, lj_error *err)
{
    if (!lj_db_pending_take_revoked(s->db))
        return LJ_OK;
    s->unknown_at.generation[0] = 0; /* must not be repeated (upload.c) */
    if (!s->attempt.whole)
        return LJ_OK; /* what was not read to its end cannot have been stored */
    if (lj_storage_overwrites_late(s->storage))
        return lj_error_set(err, LJ_CONFLICT,
                            "a transaction whose COMMIT failed may still arrive at a store that "
                            "would let it overwrite");
    if (s->revoked_count == LJ_REVOKED_MAX)
        return lj_error_set(err, LJ_CONFLICT,
                            "%u transactions whose COMMIT failed may still arrive at one place",
                            LJ_REVOKED_MAX);
    lj_sent_object *o = &s->revoked[s->revoked_count++];
    *o = s->attempt;
    o->looks = 0;
    o->look_ns = lj_clock_mono_ns();
    return LJ_OK;
}

static lj_code cannot_take_back(lj_error *err)
{
    char why[LJ_ERROR_MESSAGE_MAX];
    snprintf(why, sizeof(why), "%s", err->message);
    lj_error_set(err, LJ_CONFLICT,
                 "a transaction whose COMMIT failed is in the replica and cannot be taken back: "
                 "%.300s",
                 why);
    return lj_error_hint(err, "durability=remote needs the right to delete objects");
}

/* A request that was given up may be carried out late, and would take what stands at the place by then. */
static lj_code may_go_late(lj_error *err)
{
    char why[LJ_ERROR_MESSAGE_MAX];
    snprintf(why, sizeof(why), "%s", err->message);
    return lj_error_set(
        err, LJ_CONFLICT,
        "the deletion of a transaction whose COMMIT failed was not answered, and may "
        "still be carried out: %.300s",
        why);
}

lj_code lj_takeback_remove(lj_shipper *s, const lj_position *at, bool *ret_removed, lj_error *err)
{
    char key[LJ_NAME_MAX];
    uint8_t hash[LJ_SHA256_BYTES];
    uint64_t bytes = 0;
    *ret_removed = false;
    LJ_TRY(lj_takeback_note(s, err)); /* it may have been withdrawn since this step began */
    if (s->revoked_count == 0)
        return LJ_OK;
    lj_name_wal(at, key);
    lj_code code = read_digest(s, key, &bytes, hash, err);
    if (code == LJ_NOTFOUND)
        return LJ_OK;
    if (code != LJ_OK || !was_sent(s, at, bytes, hash))
        return code;
    const char *keys[] = {key};
    code = lj_storage_delete_many(s->storage, keys, 1, NULL, NULL, err);
    if (code != LJ_OK && lj_ship_outcome_unknown(err))
        return may_go_late(err);
    if (code != LJ_OK)
        return code == LJ_DENIED || !err->retryable ? cannot_take_back(err) : code;
    lj_storage_entry entry;
    code = lj_storage_head(s->storage, key, &entry, err);
    if (code == LJ_OK) {
        lj_error_set(err, LJ_UNAVAILABLE, "%s is still there after it was deleted", key);
        return lj_error_retryable(err, true);
    }
    if (code != LJ_NOTFOUND)
        return code;
    lj_error_clear(err);
    *ret_removed = true;
    lj_log(LJ_LOG_WARN, "%s: took back %s: it held a transaction whose COMMIT had failed",
           s->db->path, key);
    return LJ_OK;
}

/* ------------------------------------------------------------------ looking again */

/* The next object goes there: a segment, or the mark that the index has ended (endmark.c). */
static bool is_free(const lj_shipper *s, const lj_position *at)
{
    const lj_saved_position *saved = &s->saved;
    return strcmp(at->generation, saved->at.generation) == 0 &&
           (lj_position_compare(at, &saved->at) == 0 ||
            (saved->mark_end != 0 && at->index + 1 == saved->at.index &&
             at->offset == saved->mark_end));
}

/* Where an object of ours is, or where a generation was given up, nothing is to be done any more. */
static void forget_settled(lj_shipper *s)
{
    unsigned kept = 0;
    for (unsigned i = 0; i < s->revoked_count; i++) {
        if (is_free(s, &s->revoked[i].at))
            s->revoked[kept++] = s->revoked[i];
    }
    s->revoked_count = kept;
}

static bool is_looked_at(const lj_sent_object *o)
{
    return o->looks <= LJ_ARRAY_LEN(look_again_ns);
}

lj_code lj_takeback_work(lj_shipper *s, lj_error *err)
{
    LJ_TRY(lj_takeback_note(s, err));
    forget_settled(s);
    for (unsigned i = 0; i < s->revoked_count; i++) {
        lj_sent_object *o = &s->revoked[i];
        if (!is_looked_at(o) || o->look_ns > lj_clock_mono_ns())
            continue;
        bool removed = false;
        LJ_TRY(lj_takeback_remove(s, &o->at, &removed, err));
        if (o->looks < LJ_ARRAY_LEN(look_again_ns))
            o->look_ns = lj_clock_mono_ns() + look_again_ns[o->looks];
        o->looks++;
    }
    lj_db_pending_looked_for(s->db);
    return LJ_OK;
}

int64_t lj_takeback_due(const lj_shipper *s)
{
    int64_t due_ns = LJ_TASK_IDLE;
    for (unsigned i = 0; i < s->revoked_count; i++) {
        const lj_sent_object *o = &s->revoked[i];
        if (is_looked_at(o) && (due_ns == LJ_TASK_IDLE || o->look_ns < due_ns))
            due_ns = o->look_ns;
    }
    return due_ns;
}
