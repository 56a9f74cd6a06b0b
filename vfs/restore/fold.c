/*
 * fold.c - see fold.h. Verification of the WAL stream and the page map; writing the pages is fold_apply.c.
 *
 * Layer: restore. Thread-safety: one thread at a time.
 * Invariants: the temporary file holds whole frames only (no WAL headers), frame n at n * frame size, so that a 32-bit
 * frame number finds a page. pending_count frames at its end belong to a transaction that is not complete yet.
 */
#include "vfs/restore/fold_internal.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "vfs/base/io.h"
#include "vfs/base/log.h"

/*
 * A WAL that is restarted in place counts its first salt up by one each time, so the frames it leaves behind carry a
 * slightly smaller one. Anything else is another WAL.
 */
#define STALE_SALT_DISTANCE (UINT32_C(1) << 24)

lj_code lj_fold_new(const lj_fold_setup *setup, lj_fold **ret_fold, lj_error *err)
{
    lj_fold *fold = calloc(1, sizeof(*fold));
    if (fold == NULL)
        return lj_error_nomem(err);
    fold->setup = *setup;
    fold->floor_pages = UINT32_MAX;
    *ret_fold = fold;
    return LJ_OK;
}

void lj_fold_free(lj_fold *fold)
{
    if (fold == NULL)
        return;
    lj_foldmap_clear(&fold->map);
    lj_lives_clear(&fold->lives);
    free(fold->pending);
    free(fold->carry);
    free(fold);
}

/* "0123456789abcdef/00000001 at byte 4152" */
static lj_code at_byte(const lj_fold *fold, uint64_t back, lj_error *err)
{
    return lj_error_context(err, "WAL index %s/%08" PRIx32 " at byte %" PRIu64,
                            fold->setup.generation, fold->index, fold->index_bytes - back);
}

/* The index is complete: its last commit decides the size of the database. */
static lj_code end_index(lj_fold *fold, bool last, uint32_t next_index, lj_error *err)
{
    bool partial = fold->pending_count > 0 || (fold->carry_len > 0 && !fold->stale);
    if (partial && !last) {
        lj_error_set(err, LJ_CORRUPT,
                     "WAL index %s/%08" PRIx32 " ends inside a transaction at byte %" PRIu64
                     " although index %08" PRIx32 " follows: its end is missing",
                     fold->setup.generation, fold->index, fold->index_bytes, next_index);
        return LJ_CORRUPT;
    }
    if (partial) {
        lj_log(LJ_LOG_WARN,
               "WAL index %s/%08" PRIx32 " ends inside a transaction at byte %" PRIu64
               ": the %zu frames behind the last commit are not restored",
               fold->setup.generation, fold->index, fold->index_bytes, fold->pending_count);
        fold->tail_ignored = true;
    }
    fold->frames -= (uint32_t)fold->pending_count;
    fold->pending_count = 0;
    fold->carry_len = 0;
    fold->prev_end = fold->index_bytes;
    if (!fold->first_over) {
        fold->first_over = true;
        fold->first_index = fold->index;
        fold->first_end = fold->index_bytes;
        if (fold->have_header)
            fold->first_salt = fold->chain.header.salt;
    }
    if (!fold->have_header)
        return LJ_OK;
    if (fold->same_life && fold->chain.committed < fold->prev_frames) {
        /* pages of the index before would stand beside older ones */
        lj_error_set(err, LJ_CORRUPT,
                     "WAL index %s/%08" PRIx32 " repeats the one before it, but ends earlier",
                     fold->setup.generation, fold->index);
        return LJ_CORRUPT;
    }
    fold->prev_frames = fold->chain.committed;
    if (fold->chain.committed == 0)
        return LJ_OK;
    /* what the checkpoint of this index cuts off does not come back when a later one grows the file again */
    fold->floor_pages = LJ_MIN(fold->floor_pages, fold->chain.db_pages);
    return lj_foldmap_truncate(&fold->map, fold->chain.db_pages, err);
}

lj_code lj_fold_begin(lj_fold *fold, uint32_t index, uint64_t offset, lj_error *err)
{
    if (!fold->in_index || index != fold->index) {
        if (fold->in_index)
            LJ_TRY(end_index(fold, false, index, err));
        fold->in_index = true;
        fold->index = index;
        fold->index_bytes = 0;
        fold->have_header = false;
        fold->stale = false;
    }
    if (offset == fold->index_bytes)
        return LJ_OK;
    if (offset > fold->index_bytes) {
        lj_error_set(err, LJ_GAP,
                     "missing WAL segment: %s/%08" PRIx32 " has nothing from byte %" PRIu64
                     " to byte %" PRIu64,
                     fold->setup.generation, index, fold->index_bytes, offset);
        return LJ_GAP;
    }
    lj_error_set(err, LJ_CORRUPT,
                 "WAL segment %s/%08" PRIx32 " at offset %" PRIu64
                 " overlaps the one before it, which ends at byte %" PRIu64,
                 fold->setup.generation, index, offset, fold->index_bytes);
    return LJ_CORRUPT;
}

lj_code lj_fold_check_previous(const lj_fold *fold, uint64_t prev_end, lj_error *err)
{
    if (prev_end == 0 || prev_end == fold->prev_end)
        return LJ_OK;
    lj_error_set(err, LJ_GAP,
                 "missing WAL segment: %s/%08" PRIx32 " ends at byte %" PRIu64
                 ", but index %08" PRIx32 " was begun behind byte %" PRIu64,
                 fold->setup.generation, fold->index - 1, fold->prev_end, fold->index, prev_end);
    return LJ_GAP;
}

lj_code lj_fold_check_snapshot(const lj_fold *fold, uint64_t needs, lj_wal_salt salt, lj_error *err)
{
    if (!fold->first_over || !lj_wal_salt_eq(fold->first_salt, salt) || fold->first_end >= needs)
        return LJ_OK;
    lj_error_set(err, LJ_GAP,
                 "missing WAL segment: %s/%08" PRIx32 " ends at byte %" PRIu64
                 ", but its snapshot has it up to byte %" PRIu64,
                 fold->setup.generation, fold->first_index, fold->first_end, needs);
    return LJ_GAP;
}

static lj_code accept_header(lj_fold *fold, const uint8_t *data, lj_error *err)
{
    lj_wal_header header;
    if (lj_wal_header_parse(data, &header, err) != LJ_OK)
        return at_byte(fold, LJ_WAL_HEADER_BYTES, err);
    if (fold->page_size != 0 && fold->page_size != header.page_size) {
        lj_error_set(err, LJ_CORRUPT, "the page size is %" PRIu32 ", before it was %" PRIu32,
                     header.page_size, fold->page_size);
        return at_byte(fold, LJ_WAL_HEADER_BYTES, err);
    }
    lj_code code = lj_lives_next(&fold->lives, &header, &fold->same_life, err);
    if (code != LJ_OK)
        return code == LJ_CORRUPT ? at_byte(fold, LJ_WAL_HEADER_BYTES, err) : code;
    fold->page_size = header.page_size;
    fold->have_header = true;
    lj_wal_chain_start(&fold->chain, &header);
    return LJ_OK;
}

static lj_code push_pending(lj_fold *fold, uint32_t pgno, lj_error *err)
{
    if (fold->frames == UINT32_MAX)
        return lj_error_set(err, LJ_UNSUPPORTED, "more than %u WAL frames in one transaction",
                            UINT32_MAX);
    if (fold->pending_count == fold->pending_cap) {
        size_t cap = fold->pending_cap == 0 ? 256 : fold->pending_cap * 2;
        uint32_t *pending = realloc(fold->pending, cap * sizeof(*pending));
        if (pending == NULL)
            return lj_error_nomem(err);
        fold->pending = pending;
        fold->pending_cap = cap;
    }
    fold->pending[fold->pending_count++] = pgno;
    fold->frames++;
    return LJ_OK;
}

static lj_code commit(lj_fold *fold, lj_error *err)
{
    uint32_t first = fold->frames - (uint32_t)fold->pending_count;
    for (size_t i = 0; i < fold->pending_count; i++)
        LJ_TRY(lj_foldmap_put(&fold->map, fold->pending[i], first + (uint32_t)i, err));
    fold->pending_count = 0;
    fold->db_pages = fold->chain.db_pages;
    return LJ_OK;
}

/*
 * Judges one frame. *ret_keep: it was accepted and belongs into the temporary file. `back` is its distance from the end
 * of what was received, for messages.
 */
static lj_code accept_frame(lj_fold *fold, const uint8_t *frame, uint64_t back, bool *ret_keep,
                            lj_error *err)
{
    lj_wal_frame parsed;
    *ret_keep = false;
    if (fold->stale) {
        lj_wal_frame_parse(frame, &parsed);
        if (!lj_wal_salt_eq(parsed.salt, fold->chain.header.salt))
            return LJ_OK;
        lj_error_set(err, LJ_CORRUPT, "a frame of this WAL stands behind frames of an older one");
        return at_byte(fold, back, err);
    }
    lj_wal_verdict verdict = lj_wal_chain_next(&fold->chain, frame, &parsed);
    if (verdict == LJ_WAL_FRAME_OK) {
        *ret_keep = true;
        LJ_TRY(push_pending(fold, parsed.pgno, err));
        return parsed.db_pages != 0 ? commit(fold, err) : LJ_OK;
    }
    uint32_t distance = fold->chain.header.salt.salt1 - parsed.salt.salt1;
    if (verdict == LJ_WAL_FRAME_SALT && distance != 0 && distance <= STALE_SALT_DISTANCE) {
        lj_log(LJ_LOG_WARN,
               "WAL index %s/%08" PRIx32 " has frames of an older WAL from byte %" PRIu64
               ": taken as its end",
               fold->setup.generation, fold->index, fold->index_bytes - back);
        fold->stale = true;
        return LJ_OK;
    }
    lj_error_set(err, LJ_CORRUPT, "frame %" PRIu64 " is not valid: %s", fold->chain.frames + 1,
                 lj_wal_verdict_text(verdict));
    return at_byte(fold, back, err);
}

/* Appends frames, the last of which have just been counted in fold->frames. */
static lj_code write_frames(lj_fold *fold, const uint8_t *data, uint32_t count, lj_error *err)
{
    if (count == 0)
        return LJ_OK;
    uint64_t frame_bytes = lj_wal_frame_bytes(fold->page_size);
    if (lj_io_pwrite(fold->setup.temp_fd, data, (size_t)(count * frame_bytes),
                     (fold->frames - count) * frame_bytes, err) != LJ_OK)
        return lj_error_context(err, "temporary file for the WAL");
    return LJ_OK;
}

/* Whole frames lying in the input, as many as there are. */
static lj_code take_run(lj_fold *fold, const uint8_t *data, size_t len, size_t *ret_used,
                        lj_error *err)
{
    size_t frame_bytes = lj_wal_frame_bytes(fold->page_size);
    uint32_t kept = 0;
    size_t used = 0;
    for (; len - used >= frame_bytes; used += frame_bytes) {
        bool keep = false;
        LJ_TRY(accept_frame(fold, data + used, len - used, &keep, err));
        kept += keep ? 1 : 0;
    }
    *ret_used = used;
    /* nothing is kept behind a frame that is not: the kept ones are the first of the run */
    return write_frames(fold, data, kept, err);
}

/* Collects a header or frame that came in pieces. */
static lj_code take_piece(lj_fold *fold, const uint8_t *data, size_t len, size_t need,
                          size_t *ret_used, lj_error *err)
{
    if (fold->carry_cap < need) {
        uint8_t *carry = realloc(fold->carry, need);
        if (carry == NULL)
            return lj_error_nomem(err);
        fold->carry = carry;
        fold->carry_cap = need;
    }
    size_t n = LJ_MIN(need - fold->carry_len, len);
    memcpy(fold->carry + fold->carry_len, data, n);
    fold->carry_len += n;
    *ret_used = n;
    if (fold->carry_len < need)
        return LJ_OK;
    fold->carry_len = 0;
    uint64_t behind = len - n; /* of this piece, in what was received */
    if (!fold->have_header) {
        fold->index_bytes -= behind;
        lj_code code = accept_header(fold, fold->carry, err);
        fold->index_bytes += behind;
        return code;
    }
    bool keep = false;
    LJ_TRY(accept_frame(fold, fold->carry, need + behind, &keep, err));
    return write_frames(fold, fold->carry, keep ? 1 : 0, err);
}

lj_code lj_fold_data(lj_fold *fold, const void *data, size_t len, lj_error *err)
{
    const uint8_t *at = data;
    fold->index_bytes += len;
    fold->wal_bytes += len;
    while (len > 0) {
        size_t need = fold->have_header ? lj_wal_frame_bytes(fold->page_size) : LJ_WAL_HEADER_BYTES;
        size_t used = 0;
        if (fold->carry_len > 0 || len < need || !fold->have_header)
            LJ_TRY(take_piece(fold, at, len, need, &used, err));
        else
            LJ_TRY(take_run(fold, at, len, &used, err));
        at += used;
        len -= used;
    }
    return LJ_OK;
}

lj_code lj_fold_finish(lj_fold *fold, lj_error *err)
{
    if (!fold->in_index)
        return LJ_OK;
    fold->in_index = false;
    return end_index(fold, true, 0, err);
}

void lj_fold_get_state(const lj_fold *fold, lj_fold_state *ret_state)
{
    *ret_state = (lj_fold_state){
        .page_size = fold->page_size,
        .index = fold->index,
        .offset = fold->index_bytes,
        .wal_bytes = fold->wal_bytes,
        .db_pages = fold->db_pages,
        .tail_ignored = fold->tail_ignored,
    };
}
