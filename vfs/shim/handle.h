/*
 * handle.h - the objects of the shim: an open file, and a database that is replicated.
 *
 *   lj_file   one per sqlite3_file of a main database or of a replicated database's WAL. The lower VFS's own file object
 *             lies right behind it in the memory SQLite gave us.
 *   lj_open   one per replicated database and process, found by (device, inode), shared by all its handles.
 *
 * Layer: shim, the only one that knows SQLITE_* codes. Thread-safety: an lj_file belongs to its connection; lj_open's list and
 * the tables of both are guarded by the registry mutex (rank 1, registry.c).
 */
#ifndef LJ_HANDLE_H
#define LJ_HANDLE_H

#include <sqlite3ext.h>

#include "vfs/base/table.h"
#include "vfs/capture/image.h"
#include "vfs/capture/session.h"
#include "vfs/config/config.h"
#include "vfs/shim/claim.h"
#include "vfs/ship/scheduler.h"
#include "vfs/ship/shipper.h"

#ifndef SQLITE_CORE
extern const sqlite3_api_routines *sqlite3_api;
#endif

typedef struct lj_open lj_open;
typedef struct lj_file lj_file;

#define LJ_FILE_MAGIC UINT32_C(0x4c4a4631)

/* Our own file-control op-code: *(lj_file **)arg = the handle. Outside of the range SQLite uses. */
#define LJ_FCNTL_FILE 0x4c4a0001

/* An SQLite that waits for locks in the kernel (SQLITE_ENABLE_SETLK_TIMEOUT) says SQLITE_BUSY_TIMEOUT when it waited in vain. */
static inline bool lj_is_busy(int rc)
{
    return (rc & 0xff) == SQLITE_BUSY;
}

struct lj_file {
    sqlite3_file base; /* must be first */
    uint32_t magic;
    bool is_wal;
    sqlite3_file *lower;  /* behind this struct */
    lj_open *open;        /* NULL: not replicated, everything passes */
    lj_file *partner;     /* WAL -> its database handle; database -> its WAL handle */
    lj_link by_wal_name;  /* registry: database handles */
    const char *wal_name; /* the pointer SQLite will open this database's WAL with */

    /* database handle */
    int lock_level;             /* SQLITE_LOCK_* held on the database file */
    unsigned exclusive;         /* bit per wal-index lock held EXCLUSIVE */
    unsigned inside;            /* ... and of those the image's guard was told of */
    const volatile void *index; /* first region of the wal-index, NULL while not mapped */
    lj_file *next_view;         /* list of handles with an index */
    lj_wal_salt seen_salt;      /* what was published last through this handle */
    uint32_t seen_frames;
    lj_wal_salt begin_salt; /* the committed end when the write lock was taken */
    uint32_t begin_frames;
    bool checkpointing; /* between CKPT_START and CKPT_DONE */
    bool auto_wal;      /* to be switched to WAL when it is idle (autowal.c) */
    bool psow0;         /* opened with psow=0 */

    /* database handle: commits that wait (durable.c) */
    lj_durability durability;
    bool degrade; /* remote_on_failure */
    int64_t remote_timeout_ns;
    uint64_t own_life,
        own_frames;  /* what this connection published in the transaction that ends, 0 = nothing */
    bool waited;     /* that transaction waited before it was published, or was let go */
    bool db_written; /* rollback-journal mode: written since the last FCNTL_SYNC or unlock ... */
    uint8_t db_format; /* ... and byte 18 of page 1 as it was written, 0 = not written */
    bool refusing;     /* ... and COMMIT was refused: what follows is its rollback ... */
    bool recovering;   /* ... or it is the rollback of a hot journal */

    /* WAL handle */
    bool unsummed; /* frame headers without checksums were written in this transaction (repair.c) */
    /* needed in exclusive mode, where there are no locks and maybe no wal-index */
    lj_wal_salt wal_salt;
    uint32_t wal_page_size; /* 0 = no header seen */
    uint64_t commit_frame;  /* last frame written with a db size, 0 = none since the last publish */
    uint32_t commit_pages;
    uint64_t head_frame; /* frame whose header is being assembled in head */
    uint8_t head[24];
    uint32_t head_have;   /* bit per byte of head seen */
    uint32_t commit_body; /* bytes of commit_frame's page seen behind its header */
    bool
        commit_final; /* its header has the salts of the WAL: SQLite writes it without them first, sometimes */
    lj_wal_salt index_salt; /* what the wal-index showed when the WAL's header was read last */
    uint64_t
        pending; /* transaction that waited and is not published yet (capture/pending.h), 0 = none */
    uint64_t pending_frame; /* its commit frame ... */
    uint32_t pending_pages; /* ... and the size of the database that it says */
    bool synced;  /* until the transaction ends: nothing was written behind our own sync */
    bool flushed; /* nothing was written through this handle since SQLite synced it */
};

/* All `len` bytes, through SQLite's own handle below. */
static inline bool lj_read_lower(const lj_file *file, void *out, size_t len, uint64_t off)
{
    sqlite3_file *lower = file->lower;
    return lower->pMethods->xRead(lower, out, (int)len, (sqlite3_int64)off) == SQLITE_OK;
}

struct lj_open {
    lj_open *next, *previous;      /* registry: all of them */
    lj_link by_inode, by_wal_path; /* registry */
    uint64_t device, inode;
    lj_claim *claim; /* its replica; another one under the registry's mutex when a rival has gone */
    unsigned handles;
    bool
        ending; /* the last handle is gone: what is below is being freed, and an open of the same file waits */
    unsigned indexes;       /* handles of this process that have the wal-index mapped; atomic */
    unsigned epoch;         /* of the process: another number after a fork */
    bool io_cancel;         /* ends requests that wait for a store (lj_storage_options); atomic */
    int64_t flush_until_ns; /* monotonic: a close flushes twice, but waits once; under db->mutex */
    uint64_t flush_commits; /* committed when flush_until_ns was set */
    int64_t auto_wal_after_ns; /* monotonic: not tried again before; atomic */
    bool repair_told;          /* the log has the line of repair.c; atomic */
    bool auto_wal_declined;    /* the application chose another journal mode; atomic */
    lj_db *db;
    lj_shipper *shipper;
    lj_image_guard guard;
    atomic_uint sharers;    /* handles with a lock on the database file ... */
    atomic_uint exclusives; /* ... and of those the ones that keep everybody else out */
    /* WAL handles with a transaction that wrote frame headers without checksums, and such transactions that have ended (repair.c) */
    atomic_uint unsummed, repairs;
    pthread_mutex_t
        view_mutex; /* rank 1: guards views; held while a thread of ours looks, so that no index is unmapped, or mapped, meanwhile */
    lj_file *views;
    lj_identity scanned_wal; /* as it was when it was read from its bytes; under db->mutex */
    sqlite3_vfs *base;
    /* the snapshot's own view of the file (freeze.c); used under guard.mutex */
    char *base_name;      /* path framed in NULs, as the unix VFS wants it */
    sqlite3_file *reader; /* NULL between snapshots */
    int reader_slot;      /* read lock held, -1 = none */
    bool reader_shared;   /* SHARED lock held on the database file */
    /* option `guard` (readguard.c) */
    bool guarded;
    atomic_bool guard_held;
    pthread_mutex_t guard_mutex; /* rank 0; guards what is below */
    sqlite3_file *guard_file;    /* NULL: not open */
    volatile void *guard_index;  /* its wal-index */
    int guard_slot;              /* read lock held, 0 = none */
};

/* ---- registry.c ---- */

/* Grows by one in each forked child: what was opened before belongs to the parent. */
extern unsigned lj_process_epoch;
static inline bool lj_open_alive(const lj_open *open)
{
    return open != NULL && open->epoch == lj_process_epoch;
}
void lj_registry_init(void);
/* What a database is made with. */
lj_db_options lj_registry_options(const lj_config *config);
/*
 * The database of that inode, created with its shipper at the first handle (*ret_first). The caller releases it. *claim is what
 * was claimed for the path: taken over if it is needed (NULL then).
 */
LJ_WARN_UNUSED lj_code lj_registry_acquire(sqlite3_vfs *base, const char *path,
                                           const lj_config *config, const lj_identity *identity,
                                           lj_claim **claim, lj_open **ret_open, bool *ret_first,
                                           lj_error *err);
/*
 * Before this path is opened: a database that was open under this name and is not there any more ends its replication, so that
 * nothing of it gets mixed into what follows.
 */
void lj_registry_path_opens(const char *path);
/* The last handle ends shipping and frees it. Flushes first (lj_open_flush). */
void lj_registry_release(lj_open *open);
void lj_registry_add_file(lj_file *file);
void lj_registry_remove_file(lj_file *file);
/* The database handle whose WAL will be opened under this very pointer; NULL = none. */
lj_file *lj_registry_file_of_wal(const char *wal_name);
/*
 * The open database whose WAL has this name, with a handle taken: the caller releases it. Of several (the older ones were moved or
 * replaced) it is the newest. Where a folder is mounted twice the name may be another one than the database was opened by first.
 * NULL = none.
 */
lj_open *lj_registry_take_wal(const char *wal_name);
/* Ships what is left, at most shutdown_timeout and not past the first failure. */
void lj_open_flush(lj_open *open);

/* ---- freeze.c ---- */
lj_dbfile lj_freeze_dbfile(lj_open *open);
/*
 * Publishes what the wal-index shows, through a handle of its own; for when no other has it mapped. Caller holds view_mutex. false:
 * there is none that anybody has mapped.
 */
bool lj_freeze_look(lj_open *open);

/* ---- view.c: the wal-index and the locks of a database, for threads of ours ---- */
void lj_view_add(lj_file *file, const volatile void *index);
/* Before the index is unmapped. */
void lj_view_remove(lj_file *file);
/* The level of a handle's lock on the database file changed. */
void lj_view_locked(lj_file *file, int level);
/* It is about to give its lock back. true: no other handle of this process has one. */
bool lj_view_unlocking(lj_file *file);
/*
 * xShmMap of a file on the base VFS, and not while a thread of ours looks through a handle of its own: that one has no lock on the
 * database, so what it maps may be deleted, and nobody may come to share it.
 */
int lj_view_map(lj_open *open, sqlite3_file *lower, int region, int size, int extend,
                void volatile **ret_map);
/* The WAL file as it is before it is read from its bytes, and that it was read: not again before it changes. */
typedef struct {
    bool there;
    lj_identity identity;
} lj_view_noted;
void lj_view_note(const lj_open *open, lj_view_noted *ret_wal);
void lj_view_looked(lj_open *open, const lj_view_noted *wal);
/* What the capture and the image ask of the shim (database.h, image.h). */
void lj_view_connect(lj_open *open);

/* ---- readguard.c: option `guard`; without it these do nothing ---- */
/* A connection in normal locking mode reads: the guard's lock is taken if it is not held. */
void lj_readguard_take(lj_open *open);
/* It was decided whether this process ships: else another one guards. */
void lj_readguard_settle(lj_open *open);
/* Our own writer or checkpoint wants to restart the WAL, under the WAL write lock: lets go, and takes the lock again. */
void lj_readguard_step_aside(lj_open *open);
void lj_readguard_return(lj_open *open);
/* Nobody else may have the database or its wal-index open now. */
void lj_readguard_close(lj_open *open);
/* Waits until the guard has given back WRITE and CKPT. false: there is no guard. */
bool lj_readguard_wait(lj_open *open);
/* lj_dbfile.tick: publishes what other processes have committed, and restarts a large WAL when all is shipped. */
void lj_readguard_tick(void *ctx);

/* ---- file.c ---- */
/* The io_methods for a file whose lower one has these: not more than those can do. */
const sqlite3_io_methods *lj_file_methods(const sqlite3_io_methods *lower);

/* What the header of the file says. NONE: it has no header yet; UNKNOWN: it is not SQLite's own (encrypted pages). */
enum { LJ_JOURNAL_NONE, LJ_JOURNAL_ROLLBACK, LJ_JOURNAL_WAL, LJ_JOURNAL_UNKNOWN };
int lj_journal_mode_of(sqlite3_file *lower);

/* ---- autowal.c ---- */
/* Before SQLite reads anything of it. true = it was switched. */
bool lj_autowal_at_open(lj_file *file, int journal_mode);
/* The handle holds no lock any more. */
void lj_autowal_unlocked(lj_file *file);
/* FCNTL_PRAGMA: notes whether the application chooses a journal mode itself. */
void lj_autowal_pragma(lj_file *file, char **args);

/* ---- events.c: what SQLite's calls mean for the capture ---- */
void lj_event_read_lock(lj_file *file);
void lj_event_publish(lj_file *file);
/* The WAL is about to go: also when this handle has seen nothing new, since what it saw may have been looked at too early. */
void lj_event_publish_again(lj_file *file);
/* The attach, if no read brought it about: in exclusive mode. */
void lj_event_ready(lj_file *file);
void lj_event_exclusive_commit(lj_file *file);
/* A lock of the database file is about to be lowered from EXCLUSIVE, if that is what is held. */
void lj_event_end_exclusive(lj_file *file);
/* What anybody has committed until now is published: for a wait that is to be for all of it. */
void lj_event_look(lj_file *file);
void lj_event_wal_opened(lj_file *wal);
/* The first handle of a database was opened: finds what a crash left in the WAL, and decides how to go on. */
void lj_event_first_open(lj_open *open, bool wal_mode);
/*
 * Before a write to the WAL. One behind a commit frame is of the next transaction: so the one before is committed, also where under
 * exclusive locking nothing else tells (a COMMIT over several databases that failed in a later one).
 */
void lj_event_wal_writing(lj_file *wal, sqlite3_int64 off);
/* Returns what xWrite returns: a commit may wait for the replica here, in vain. */
int lj_event_wal_write(lj_file *wal, const void *data, int len, sqlite3_int64 off);
/* The WAL write lock was taken; it is about to be released. */
void lj_event_write_locked(lj_file *file);
void lj_event_write_unlock(lj_file *file);
void lj_event_wal_failed(lj_file *wal);
/* These bytes of the database file are about to be overwritten or cut off: a snapshot may need them. */
void lj_event_db_overwritten(lj_file *file, uint64_t off, uint64_t len);
void lj_event_db_write(lj_file *file, int len, sqlite3_int64 off);
void lj_event_db_written(lj_file *file, const void *data, int len, sqlite3_int64 off);
/* A lock was refused: a snapshot, here or in the uploader's process, gives its own back if it has any. */
void lj_event_make_room(lj_file *file, bool exclusive);
int lj_event_restart_lock(lj_file *file, int flags);
/* A snapshot gives its locks back: this connection needs them. true = it had some. */
bool lj_event_give_way(lj_file *file);
/* Wal-index locks taken and about to be given back EXCLUSIVE, by their first number: tells snapshots of checkpoints. */
void lj_event_locked(lj_file *file, int ofst, int n);
void lj_event_unlocking(lj_file *file, int ofst);
int lj_event_retry_lock(lj_file *file, int ofst, int n, int flags, int rc);
void lj_event_wal_emptying(lj_open *open, bool going);
/* A WAL header is about to be written: the last line of the restart gate. */
void lj_event_header_comes(lj_file *wal);

/* ---- repair.c ---- */
/* The write lock was taken. */
void lj_repair_begin(lj_file *file);
/* A write to the WAL of a replicated database. */
void lj_repair_note_write(lj_file *wal, const void *data, int len, sqlite3_int64 off);
/* The write lock is about to be given back, and the WAL is `unsummed`. */
void lj_repair_commit(lj_file *file);
/* The WAL's transaction has ended without a repair. */
void lj_repair_forget(lj_file *wal);

/* ---- durable.c: commits that wait for the replica ---- */
void lj_durable_open(lj_file *file, const lj_config *config);
/* The frames of the WAL are being tracked for this handle. */
bool lj_durable_tracks(const lj_file *wal);
/* Before a write to the WAL: one that was acknowledged and not published is undone when its frames are written over. */
void lj_durable_before_write(lj_file *wal, sqlite3_int64 off);
/* The commit frame of a transaction is complete in the WAL. Returns what xWrite returns. */
int lj_durable_commit(lj_file *wal);
/* Behind publishing: a transaction that waited and is not published is undone. */
void lj_durable_published(lj_file *file);
/* The lock is released: durability=ack waits here. Returns what FCNTL_COMMIT_PHASETWO returns. */
int lj_durable_phase_two(lj_file *file);
/* The WAL handle closes. */
void lj_durable_close(lj_file *wal);
/* Rollback-journal mode: a write to the database file, its sync at COMMIT (what FCNTL_SYNC returns), its unlock. */
void lj_durable_db_write(lj_file *file, const void *data, int len, sqlite3_int64 off);
int lj_durable_db_sync(lj_file *file);
void lj_durable_db_unlock(lj_file *file);
/* It has got the EXCLUSIVE lock; lock_level is still the one before. */
void lj_durable_db_locked(lj_file *file);
/* "local", "remote", "ack". lj_durable_parse is false when `text` is none of them. */
const char *lj_durable_name(lj_durability durability);
bool lj_durable_parse(const char *text, lj_durability *ret_durability);
/* LJ_INVALID with a hint when `text` is no position. */
LJ_WARN_UNUSED lj_code lj_durable_position(const char *text, lj_position *ret_at, lj_error *err);

/* ---- pragma.c ---- */
/* FCNTL_PRAGMA: args as SQLite documents. SQLITE_NOTFOUND for pragmas that are not ours. */
int lj_pragma(lj_file *file, char **args);

/* ---- boot.c ---- */
/* Restores a database that is missing or empty from what it claims. LJ_OK also when there was nothing to restore. */
LJ_WARN_UNUSED lj_code lj_boot_restore(const char *path, const lj_config *config,
                                       const lj_claim *claim, lj_error *err);
/* In a forked child: closes its copies of the locks of restores. */
void lj_boot_in_child(void);

/* ---- vfs.c ---- */
/* Registers, or takes new defaults. */
LJ_WARN_UNUSED lj_code lj_vfs_setup(const lj_config *config, bool asks_for_default, lj_error *err);
void lj_vfs_before_fork(void);
void lj_vfs_after_fork(bool child);

/* ---- last_error.c ---- */
void lj_last_error_set(const lj_error *err);
void lj_last_error_clear(void);
const char *lj_last_error_text(void);

/* ---- log_sink.c ---- */
typedef void (*lj_host_log)(void *ctx, int level, const char *line);
LJ_WARN_UNUSED lj_code lj_log_sink_install(const lj_config *config, lj_host_log host,
                                           void *host_ctx, lj_error *err);

#endif
