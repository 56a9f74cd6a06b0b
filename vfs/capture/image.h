/*
 * image.h - the database as it was at one commit, read while the application goes on writing.
 *
 * Frozen at frame M of the current WAL: a page whose newest version at M is in the WAL is read from there, every other
 * page from the database file. Two things could spoil that, and are kept away:
 *   - a checkpoint that writes a page beyond M into the database file. At first a read mark at M (held through the base VFS)
 *     makes SQLite's checkpointer stop at M by itself. But no checkpoint may end otherwise than it would without us, nor the
 *     WAL grow because of us: so the first one that meets the mark makes the image give it back (lj_image_convert). From then
 *     on, or from the start when no mark can be held (exclusive locking mode), the image copies: lj_image_before_write saves
 *     the old content of a page before it is overwritten (copy on checkpoint), into an unlinked file in the state folder, up
 *     to a limit.
 *     What another process checkpoints then is not saved: it is noticed (lj_image_enter, and before the last page is handed
 *     out), and the image is given up.
 *   - a restart of the WAL. It implies that every frame up to M is in the database file by then, so from that moment
 *     on pages are read from there (or from what was saved).
 *
 * That needs all checkpoints to be ours. While other processes have the database open an image that has to give its mark up is
 * lost, and has to be begun anew. When that happened too often (the snapshot task counts) the image is first copied to an
 * unlinked file, at the speed of the disk instead of the network's; for that time alone it does not give way.
 *
 * A small image (guard.memory_bytes) is copied into memory by lj_image_begin, and every lock is given back at once: on a small
 * database no checkpoint ever meets a snapshot.
 *
 * Layer: capture. Thread-safety: one snapshot at a time per database. lj_image_begin/read/end run in the snapshot's
 * thread; lj_image_before_write, _convert and _wal_restarts in application threads. guard.mutex (rank 0: taken before any
 * other lock) is held while an image begins, and then for a few look-ups or the saving of one page; the database file is read, and a
 * WAL verified, without it. It is contended only while a checkpoint and a snapshot work on the same database, and that is its purpose.
 */
#ifndef LJ_IMAGE_H
#define LJ_IMAGE_H

#include <pthread.h>
#include <stdatomic.h>

#include "vfs/base/stream.h"
#include "vfs/wal/wal.h"

typedef struct {
    lj_wal_salt salt; /* of the WAL; meaningless with frames == 0 */
    uint64_t frames;  /* M */
    uint32_t page_size;
    uint32_t db_pages;  /* at M; 0 = take it from the file's size */
    lj_wal_cksum cksum; /* running checksum behind frame M; valid if has_cksum */
    bool has_cksum;
    bool backfilled; /* everything up to M is in the database file */
    bool broken;     /* set by lj_image_begin: the frames do not verify, see there */
    bool held;       /* a read mark is held; else the image copies from the start */
} lj_freeze;

/* What changes in the wal-index when anybody in any process begins to write into the database file or restarts the WAL. */
typedef struct {
    lj_wal_salt salt;
    uint32_t attempted; /* frames that checkpoints have begun to copy (nBackfillAttempted) */
} lj_image_place;

/* How the image reaches the database file: implemented by the shim over the base VFS. */
typedef struct {
    void *ctx;
    /* Takes the read mark if it can and says what it froze. */
    lj_code (*freeze)(void *ctx, lj_freeze *ret_freeze, lj_error *err);
    /* Gives the read mark and every lock back; reading goes on. At most once for each freeze, under guard.mutex. */
    void (*release)(void *ctx);
    /* Reads len bytes at off; what is behind the end of the file is zero. */
    lj_code (*read)(void *ctx, uint64_t off, void *out, size_t len, lj_error *err);
    lj_code (*size)(void *ctx, uint64_t *ret_bytes, lj_error *err);
    /* The place of this moment, under guard.mutex; false = it cannot be told (NULL: never). */
    bool (*place)(void *ctx, lj_image_place *ret_place);
    /* What was frozen is not needed any more; also called for a freeze that failed, or without one. Then it may freeze again. */
    void (*close)(void *ctx);
    /* Called by the shipping task once per sync_interval, also when nothing was committed here; NULL: nobody asks for it. */
    void (*tick)(void *ctx);
} lj_dbfile;

typedef struct lj_image lj_image;

/* How an image stands in the way of other processes, whose checkpoints cannot copy for it. */
typedef enum {
    LJ_IMAGE_FREE,  /* not at all */
    LJ_IMAGE_HOLDS, /* until they ask: then it is given up (lj_image_yield) */
    LJ_IMAGE_STAYS, /* for the time of a local copy, whoever asks */
} lj_image_hold;

/* One per database: where application threads find the image that is being taken. */
typedef struct {
    pthread_mutex_t mutex;
    atomic_bool copying; /* lj_image_before_write has work */
    atomic_bool active;  /* an image exists */
    atomic_bool
        wanted; /* lj_image_yield was called; heeded at the end of the chunk that is being read */
    lj_image *image;       /* guarded by mutex */
    atomic_int inside;     /* connections of this process that checkpoint or restart the WAL ... */
    atomic_int restarting; /* ... and of those the latter */
    /* set by the owner */
    uint64_t memory_bytes; /* images up to this size are copied into memory by lj_image_begin */
    uint64_t
        saved_bytes; /* the most that saved pages may take on disk: past it the image is given up */
    bool
        copy_first; /* the next image: copied to a file at once, and not given up meanwhile. The snapshot's own */
    /* set by the owner, may be NULL: how an image stands in the way of other processes now */
    void (*holds)(void *ctx, lj_image_hold hold);
    void *ctx;
} lj_image_guard;

#define LJ_IMAGE_GUARD_INIT                                                                        \
    {                                                                                              \
        .mutex = PTHREAD_MUTEX_INITIALIZER                                                         \
    }

/*
 * Freezes. `state_dir` takes the unlinked file of saved pages; `cancel` is polled. LJ_BUSY: not possible at this moment, try
 * again; LJ_CORRUPT: the frames in the WAL do not verify up to M and there is no wal-index to go by.
 *
 * With a wal-index that says M is committed although the frames do not verify (SQLite before 3.50.2 writes such frames:
 * spill, overwrite, ROLLBACK TO, COMMIT), the image is what SQLite's readers see, and freeze.broken is set: such a WAL can
 * be snapshotted but not shipped.
 */
LJ_WARN_UNUSED lj_code lj_image_begin(lj_image_guard *guard, const lj_dbfile *dbfile,
                                      const char *wal_path, const char *state_dir,
                                      const atomic_bool *cancel, lj_image **ret_image,
                                      lj_error *err);
const lj_freeze *lj_image_freeze(const lj_image *image);
uint64_t lj_image_bytes(const lj_image *image);
/* The image as bytes from the first page to the last; can be rewound. Valid until lj_image_end. */
lj_source lj_image_source(lj_image *image);
void lj_image_end(lj_image *image);

/* Reads the database file through the handle of the connection that is going to write; what is missing is zero. */
typedef struct {
    void *ctx;
    lj_code (*read)(void *ctx, uint64_t off, void *out, size_t len, lj_error *err);
} lj_image_reader;

/* Before bytes off..off+len-1 of the database file are overwritten or cut off. Cost without a copying image: one load. */
void lj_image_before_write(lj_image_guard *guard, uint64_t off, uint64_t len,
                           const lj_image_reader *reader);
/*
 * Gives the read mark back and goes on copying. true if a mark was held (the caller's lock may work now). `now`: NULL where
 * there is no wal-index, and so no other process.
 */
bool lj_image_convert(lj_image_guard *guard, const lj_image_place *now);
/*
 * A connection of this process has got, or is about to give back, the lock to checkpoint or (`restart`) to restart the WAL. What
 * changed since the last one gave it back was done by another process. Cost without an image: one or two atomic additions.
 */
void lj_image_enter(lj_image_guard *guard, const lj_image_place *now, bool restart);
void lj_image_leave(lj_image_guard *guard, const lj_image_place *now, bool restart);
/* Another process wants the mark gone: the image is given up. Does not wait; at the latest when the chunk being read is there. */
void lj_image_yield(lj_image_guard *guard);
/*
 * A connection of this process gives its exclusive lock of the database file back. An image that relied on it, having no mark and no
 * place to compare with, is given up: others may write from here on.
 */
void lj_image_unlocked(lj_image_guard *guard);
/* The WAL is about to be restarted, truncated or deleted. */
void lj_image_wal_restarts(lj_image_guard *guard);

#endif
