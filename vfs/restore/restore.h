/*
 * restore.h - from a replica to a database file: plan, fetch, verify, fold, write, rename.
 *
 * The plan is made from one listing. Everything that is read is verified: LZ4 content checksums, WAL header, salts,
 * checksum chain, contiguous offsets (offset + decompressed length = next offset) and consecutive indexes. A hole or a
 * damaged object is an error that names the object and the newest restorable point; never a quiet partial restore.
 * The output appears under its name only when it is complete and fsynced.
 *
 * Two things SQLite's recovery forgives are forgiven here too, with a warning in the log: a trailing part of a
 * transaction at the very end of what is replayed, and the stale tail of a WAL that was restarted in place (frames with
 * older salts). Whole transactions missing at the end of an index that is followed by another one, and objects under
 * another one's name, show only where objects have labels (label.h): in what Litestream wrote they cannot be seen, but for a
 * WAL that is older than the one before it (lives.h).
 *
 * Layer: restore. Thread-safety: independent calls may run at the same time.
 * Memory: bounded by parallelism x about 10 MiB (large objects; a few hundred KiB each for small ones) plus 8 to 22 bytes
 * per distinct page in the WAL, 32 bytes per listed object and 4 bytes per frame of the largest transaction.
 * Disk: the raw WAL goes through an unlinked temporary file beside the output, which is folded away when it passes 1 GiB.
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
    int64_t
        timestamp_ns; /* state at this time; 0 = the newest. Later than the last object = the newest */
    bool has_index;
    uint32_t index; /* with has_index: replay up to and including this WAL index */
    bool has_snapshot;
    uint32_t
        snapshot_index;   /* with has_snapshot: start from this snapshot, not from the best one */
    unsigned parallelism; /* objects fetched at once; 0 = 8 */
    mode_t mode;          /* of the new file; 0 = 0600 */
    bool
        remove_stale_wal; /* remove OUT-wal and OUT-shm left beside (restore on open); else they are an error */
    bool overwrite_empty; /* OUT may exist if it has 0 bytes (restore on open) */
    bool locked;          /* the caller holds OUT's restore lock (restore on open) */
    lj_restore_progress_fn progress;
    void *progress_ctx;
    const bool *cancel; /* may be NULL; polled: true ends the restore with LJ_CANCELLED */
} lj_restore_options;

/* What a restore gave, for messages and for continuing the generation. */
typedef struct {
    lj_position
        position; /* generation, last index replayed, end offset in it (0 if it had no segment) */
    bool has_wal; /* a segment of position.index was replayed */
    bool at_end;  /* the position is the end of the generation: nothing newer was left out, and
                                   nothing behind it was ignored, so that index + 1 may continue the generation */
    uint32_t snapshot_index;
    uint32_t page_size;
    uint64_t db_bytes;
    uint64_t wal_bytes;   /* uncompressed, read */
    uint64_t fetch_bytes; /* compressed size of the snapshot and the segments */
    uint64_t segments;
    int64_t time_ns; /* created_ns of the newest object used */
    /* what stat() said of the file when it was complete and had no name yet; its size is db_bytes */
    uint64_t inode;
    int64_t mtime_ns;
} lj_restore_result;

/* Opaque; a chosen generation, snapshot and segment list. */
typedef struct lj_restore_plan lj_restore_plan;

/*
 * Chooses. Generation: the named one, else the one with the newest object that has a snapshot; with a timestamp the one
 * that has the newest object at or before it, so that every time from the first snapshot on has an answer. Snapshot: the
 * highest index; with `index` the highest at or below it; with a timestamp the newest at or before it. Segments: from the
 * snapshot's index on, up to `index`, or to the first one later than the timestamp.
 *
 * Errors: LJ_NOTFOUND "no matching backups found" (no data at all, unknown generation, time before the first
 * snapshot); LJ_GAP for a hole (named, with the newest restorable point in the hint) and when there is WAL but no
 * snapshot in any generation; LJ_UNSUPPORTED for a replica that Litestream v0.5 wrote; LJ_INVALID for index with timestamp and
 * for a malformed generation.
 * Strays are ignored: segments below the snapshot's index, foreign names. A newer generation that has no snapshot is
 * passed over with a warning in the log.
 */
LJ_WARN_UNUSED lj_code lj_restore_plan_make(lj_storage *storage, const lj_restore_options *options,
                                            lj_restore_plan **ret_plan, lj_error *err);
void lj_restore_plan_free(lj_restore_plan *plan);
/*
 * Generation, snapshot, number of segments, compressed bytes, time: for dry runs and messages. What only reading can tell
 * is 0 (page size, database size, WAL bytes), and position.offset is where the last segment starts.
 */
void lj_restore_plan_describe(const lj_restore_plan *plan, lj_restore_result *ret_result);

/*
 * The file that a restore on open locks (flock, exclusively) while it restores `output`, in the state folder of that database;
 * allocated, NULL when out of memory.
 */
char *lj_restore_lock_path(const char *output);
/*
 * Writes the planned state to `output` (parents are created). Temporary files live beside it, are unlinked or
 * removed on every path; those that a killed restore of the same output has left go first. Transient errors of the storage are retried, going on at the byte already received; when an
 * object vanished meanwhile (retention), or a hole is not in a new listing, a new plan is made with the same options and tried instead.
 * Errors: LJ_EXISTS when output exists, or OUT-wal, OUT-shm or OUT-journal without remove_stale_wal; LJ_CORRUPT and
 * LJ_GAP as above; LJ_CANCELLED; those of the storage and of the file system.
 */
LJ_WARN_UNUSED lj_code lj_restore_run(lj_storage *storage, const lj_restore_plan *plan,
                                      const char *output, const lj_restore_options *options,
                                      lj_restore_result *ret_result, lj_error *err);

#endif
