/*
 * walindex.h - the first 136 bytes of SQLite's wal-index (the -shm file), as mapped by xShmMap.
 *
 * Layer: shim. Thread-safety: reads memory that other processes change; a header that is being changed does not verify.
 * Source: "WAL-mode File Format", section 2.1 (WAL-Index Header); numbers are in host byte order, salts as in the WAL file.
 */
#ifndef LJ_WALINDEX_H
#define LJ_WALINDEX_H

#include "vfs/shim/handle.h"

#define LJ_WALINDEX_REGION_BYTES 32768 /* what is mapped at a time; the header is in the first */
#define LJ_WALINDEX_READERS      5

/* The mark of a read lock that is free: no checkpoint stops there, no reader takes it. */
#define LJ_WALINDEX_UNUSED UINT32_MAX

/* Lock numbers of xShmLock. */
#define LJ_LOCK_WRITE   0
#define LJ_LOCK_CKPT    1
#define LJ_LOCK_RECOVER 2
#define LJ_LOCK_READ0   3

typedef struct {
    uint32_t change; /* counts commits */
    uint32_t frames; /* committed frames (mxFrame) */
    uint32_t db_pages;
    uint32_t page_size;
    lj_wal_cksum cksum; /* running checksum behind the last committed frame */
    lj_wal_salt salt;
    uint8_t raw[48]; /* for comparing */
} lj_walindex;

/* false while the header is not valid (not recovered yet, or being written). */
bool lj_walindex_read(const volatile void *region, lj_walindex *ret_index);
/*
 * The same, and false too while a transaction of this process is not repaired yet (repair.c): SQLite shows it in the wal-index
 * before it gives the write lock back, and its frames do not verify until then.
 */
bool lj_walindex_read_whole(const lj_open *open, const volatile void *region,
                            lj_walindex *ret_index);
/* That as a lj_db_look_fn. */
typedef struct {
    const lj_open *open;
    const volatile void *region;
} lj_walindex_view;
bool lj_walindex_look(void *view, lj_wal_end *ret_end);
/* Salts and frame count without verification: a cheap "did anything change?". */
void lj_walindex_peek(const volatile void *region, lj_wal_salt *ret_salt, uint32_t *ret_frames);
/* Frames that a checkpoint has begun to copy into the database file. */
uint32_t lj_walindex_attempted(const volatile void *region);
/*
 * Replaces the running checksum behind the last frame, as SQLite's writer would: caller holds the write lock. `file` is where the
 * region was mapped from.
 */
void lj_walindex_set_sum(sqlite3_file *file, const volatile void *region, lj_wal_cksum sum);
uint32_t lj_walindex_backfilled(const volatile void *region);
uint32_t lj_walindex_mark(const volatile void *region, int reader);
/*
 * What a writer of SQLite does when it restarts the WAL (walRestartHdr): no frames, these salts, nothing backfilled, no marks. The
 * next writer begins the WAL file anew with them. Caller holds WRITE and READ1..4 EXCLUSIVE, and everything is backfilled; `now` is
 * what lj_walindex_read has read under these locks.
 */
void lj_walindex_restart(volatile void *region, const lj_walindex *now, lj_wal_salt salt);
/* Nobody has written a header into it since the first process came: what was once made is never blank again while one is there. */
bool lj_walindex_blank(const volatile void *region);
/*
 * What SQLite's recovery of a WAL without a byte leaves in a blank region. Caller holds RECOVER SHARED, which keeps everybody from a
 * recovery of his own, has found the region blank and the WAL empty under that lock, and is the only one who does this.
 */
void lj_walindex_make(volatile void *region);
/* Caller holds that reader's lock EXCLUSIVE. */
void lj_walindex_set_mark(volatile void *region, int reader, uint32_t frames);

#endif
