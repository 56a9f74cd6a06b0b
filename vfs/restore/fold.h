/*
 * fold.h - takes the WAL of a generation as a stream, verifies it, and keeps the last committed version of every page.
 *
 * Segments are handed in strictly in the order (index, offset), as pieces of any size. Frames are appended to an unlinked
 * temporary file as they are verified; a page counts only when the transaction it belongs to is complete. lj_fold_apply
 * then writes each page once, in ascending order.
 *
 * Layer: restore (internal). Thread-safety: one thread at a time.
 * Source: SQLite file format section 4 (recovery: the WAL ends at the first frame that is not valid); replica-format 3.1.
 */
#ifndef LJ_FOLD_H
#define LJ_FOLD_H

#include "vfs/replica/name.h"
#include "vfs/wal/wal.h"

typedef struct lj_fold lj_fold;

typedef struct {
    const char *generation; /* for messages; outlives the fold */
    int temp_fd;            /* an empty unlinked file open for reading and writing; the caller's */
    const bool *cancel;     /* may be NULL */
} lj_fold_setup;

LJ_WARN_UNUSED lj_code lj_fold_new(const lj_fold_setup *setup, lj_fold **ret_fold, lj_error *err);
void lj_fold_free(lj_fold *fold);

/*
 * The next segment starts at `offset` of `index`. Errors: LJ_GAP when bytes are missing in front of it, LJ_CORRUPT when it
 * overlaps what came before, or when the previous index ended inside a transaction.
 */
LJ_WARN_UNUSED lj_code lj_fold_begin(lj_fold *fold, uint32_t index, uint64_t offset, lj_error *err);
/*
 * Behind the first segment of an index that is not the first: LJ_GAP when the one before did not end at `prev_end`, as whoever
 * wrote this one says. 0: nobody said.
 */
LJ_WARN_UNUSED lj_code lj_fold_check_previous(const lj_fold *fold, uint64_t prev_end,
                                              lj_error *err);
/*
 * Behind lj_fold_finish: LJ_GAP when a part of the first index was replayed that ends before `needs`, although the snapshot
 * below it already has that much of the WAL with this salt. 0: nothing is known of that.
 */
LJ_WARN_UNUSED lj_code lj_fold_check_snapshot(const lj_fold *fold, uint64_t needs, lj_wal_salt salt,
                                              lj_error *err);
/*
 * Bytes of the segment. Errors: LJ_CORRUPT for an invalid header or frame, and for a WAL that cannot follow the one before
 * (lives.h); those of the temporary file.
 */
LJ_WARN_UNUSED lj_code lj_fold_data(lj_fold *fold, const void *data, size_t len, lj_error *err);
/* No segment follows. A transaction that is not complete is dropped, with a warning. */
LJ_WARN_UNUSED lj_code lj_fold_finish(lj_fold *fold, lj_error *err);

/* True when the temporary file should be folded away now; only asked between segments. */
bool lj_fold_wants_apply(const lj_fold *fold, uint64_t limit_bytes);
/*
 * Brings the database file in `db_fd` (the snapshot, complete) to the last committed state and starts again with an
 * empty map and temporary file. With no committed transaction it changes nothing.
 */
LJ_WARN_UNUSED lj_code lj_fold_apply(lj_fold *fold, int db_fd, lj_error *err);

/*
 * Behind lj_fold_finish, while the snapshot is still being written: begins with what lj_fold_apply does, staying behind
 * *snapshot_bytes (read atomically), until *stop (atomic) is set or everything below the snapshot's end is done. Writes
 * nothing that lj_fold_apply, which must still follow, would not write to the same place.
 */
LJ_WARN_UNUSED lj_code lj_fold_follow(lj_fold *fold, int db_fd, const uint64_t *snapshot_bytes,
                                      const bool *stop, lj_error *err);

/* What was seen so far. */
typedef struct {
    uint32_t page_size; /* 0: no WAL header was seen */
    uint32_t index;     /* of the last segment begun */
    uint64_t offset;    /* end of that index's bytes so far */
    uint64_t wal_bytes; /* in all indexes */
    uint32_t db_pages;  /* after the last committed transaction; 0 = there was none */
    bool tail_ignored;  /* lj_fold_finish dropped the start of a transaction */
} lj_fold_state;
void lj_fold_get_state(const lj_fold *fold, lj_fold_state *ret_state);

#endif
