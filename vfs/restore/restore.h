/*
 * restore.h - from a replica to a database file: plan, fetch, verify, fold, write, rename.
 *
 * The plan is made from one listing. Everything that is read is verified: LZ4 content checksums, WAL header, salts,
 * checksum chain, contiguous offsets (offset + decompressed length = next offset) and consecutive indexes. A hole or a
 * damaged object is an error that names the object and the newest restorable point; never a quiet partial restore.
 * The output appears under its name only when it is complete and fsynced.
 *
 * Layer: restore. Thread-safety: independent calls may run at the same time.
 * Memory: bounded by parallelism x about 8 MiB plus 16 bytes per distinct page in the WAL.
 * Source: replica-format sections 3.1, 4, 9.
 */
#ifndef LJ_RESTORE_H
#define LJ_RESTORE_H

#include "vfs/replica/inventory.h"

/* Progress, called from one thread at a time, at most a few times a second and once at the end. */
typedef struct {
    uint64_t objects_done, objects_total;
    uint64_t bytes_done, bytes_total; /* compressed bytes fetched */
    const char *phase;                /* "snapshot", "wal", "write" */
} lj_restore_progress;
typedef void (*lj_restore_progress_fn)(void *ctx, const lj_restore_progress *progress);

typedef struct {
    const char *generation; /* NULL: the newest that matches */
    int64_t timestamp_ns;   /* state at this time; 0 = the newest. Later than the last object = the newest */
    bool has_index;
    uint32_t index;         /* with has_index: replay up to and including this WAL index */
    unsigned parallelism;   /* objects fetched at once; 0 = 8 */
    mode_t mode;            /* of the new file; 0 = 0600 */
    bool remove_stale_wal;  /* remove OUT-wal and OUT-shm left beside (restore on open); else they are an error */
    bool overwrite_empty;   /* OUT may exist if it has 0 bytes (restore on open) */
    lj_restore_progress_fn progress;
    void *progress_ctx;
    const bool *cancel;     /* may be NULL; polled: true ends the restore with LJ_CANCELLED */
} lj_restore_options;

/* What a restore gave, for messages and for continuing the generation. */
typedef struct {
    lj_position position;       /* generation, last index replayed, end offset in it (0 if it had no segment) */
    bool has_wal;               /* a segment of position.index was replayed */
    bool at_end;                /* the position is the end of the generation: nothing newer was left out */
    uint32_t snapshot_index;
    uint32_t page_size;
    uint64_t db_bytes;
    uint64_t wal_bytes;         /* uncompressed, read */
    uint64_t segments;
    int64_t time_ns;            /* created_ns of the newest object used */
} lj_restore_result;

/* Opaque; a chosen generation, snapshot and segment list. */
typedef struct lj_restore_plan lj_restore_plan;

/*
 * Chooses. Errors: LJ_NOTFOUND "no matching backups found" (no data at all, unknown generation, time before the first
 * snapshot); LJ_GAP for a hole (named, with the newest restorable point in the hint); LJ_INVALID for index with timestamp.
 * Strays are ignored: segments below the snapshot's index, foreign names.
 */
LJ_WARN_UNUSED lj_code lj_restore_plan_make(lj_storage *storage, const lj_restore_options *options,
                                            lj_restore_plan **ret_plan, lj_error *err);
void lj_restore_plan_free(lj_restore_plan *plan);
/* Generation, snapshot, number of segments, bytes, time: for dry runs and messages. */
void lj_restore_plan_describe(const lj_restore_plan *plan, lj_restore_result *ret_result);

/*
 * Writes the planned state to `output` (parents are created). Temporary files live beside it, are unlinked or
 * removed on every path. Errors: LJ_EXISTS when output exists; LJ_CORRUPT and LJ_GAP as above.
 */
LJ_WARN_UNUSED lj_code lj_restore_run(lj_storage *storage, const lj_restore_plan *plan,
                                      const char *output, const lj_restore_options *options,
                                      lj_restore_result *ret_result, lj_error *err);

#endif
