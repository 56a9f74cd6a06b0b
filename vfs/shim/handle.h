/*
 * handle.h - the objects of the shim: an open file, and a database that is replicated.
 *
 *   lj_file   one per sqlite3_file of a main database or of a replicated database's WAL. The lower VFS's own file object
 *             lies right behind it in the memory SQLite gave us.
 *   lj_open   one per replicated database and process, found by (device, inode), shared by all its handles.
 *
 * Layer: shim, the only one that knows SQLITE_* codes. Thread-safety: an lj_file belongs to its connection; lj_open's list and
 * the list of files are guarded by the registry mutex (rank 1, registry.c).
 */
#ifndef LJ_HANDLE_H
#define LJ_HANDLE_H

#include <sqlite3ext.h>

#include "vfs/capture/image.h"
#include "vfs/capture/session.h"
#include "vfs/config/config.h"
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

struct lj_file {
    sqlite3_file base; /* must be first */
    uint32_t magic;
    bool is_wal;
    sqlite3_file *lower;  /* behind this struct */
    lj_open *open;        /* NULL: not replicated, everything passes */
    lj_file *partner;     /* WAL -> its database handle; database -> its WAL handle */
    lj_file *next;        /* list of database handles */
    const char *wal_name; /* the pointer SQLite will open this database's WAL with */

    /* database handle */
    int lock_level;             /* SQLITE_LOCK_* held on the database file */
    unsigned exclusive;         /* bit per wal-index lock held EXCLUSIVE */
    const volatile void *index; /* first region of the wal-index, NULL while not mapped */
    lj_file *next_view;         /* list of handles with an index */
    lj_wal_salt seen_salt;      /* what was published last through this handle */
    uint32_t seen_frames;
    bool checkpointing; /* between CKPT_START and CKPT_DONE */

    /* WAL handle, needed in exclusive mode, where there are no locks and maybe no wal-index */
    lj_wal_salt wal_salt;
    uint32_t wal_page_size; /* 0 = no header seen */
    uint64_t commit_frame;  /* last frame written with a db size, 0 = none since the last publish */
    uint32_t commit_pages;
    uint64_t head_frame; /* frame whose header is being assembled in head */
    uint8_t head[24];
    uint32_t head_have; /* bit per byte of head seen */
};

struct lj_open {
    lj_open *next;
    uint64_t device, inode;
    unsigned handles;
    bool
        ending; /* the last handle is gone: what is below is being freed, and an open of the same file waits */
    unsigned epoch;         /* of the process: another number after a fork */
    bool io_cancel;         /* ends requests that wait for a store (lj_storage_options); atomic */
    int64_t flush_until_ns; /* monotonic: a close flushes twice, but waits once; under db->mutex */
    uint64_t flush_commits; /* committed when flush_until_ns was set */
    lj_db *db;
    lj_shipper *shipper;
    lj_image_guard guard;
    atomic_uint sharers; /* handles with a lock on the database file */
    pthread_mutex_t
        view_mutex; /* rank 1: guards views, and keeps the index of each mapped while a thread of ours looks */
    lj_file *views;
    sqlite3_vfs *base;
    /* the snapshot's own view of the file (freeze.c); used under guard.mutex */
    char *base_name;      /* path framed in NULs, as the unix VFS wants it */
    sqlite3_file *reader; /* NULL between snapshots */
    int reader_slot;      /* read lock held, -1 = none */
    bool reader_shared;   /* SHARED lock held on the database file */
};

/* ---- registry.c ---- */

/* Grows by one in each forked child: what was opened before belongs to the parent. */
extern unsigned lj_process_epoch;
static inline bool lj_open_alive(const lj_open *open)
{
    return open != NULL && open->epoch == lj_process_epoch;
}
void lj_registry_init(void);
/* The database of that inode, created with its shipper at the first handle (*ret_first). The caller releases it. */
LJ_WARN_UNUSED lj_code lj_registry_acquire(sqlite3_vfs *base, const char *path,
                                           const lj_config *config, const lj_identity *identity,
                                           lj_open **ret_open, bool *ret_first, lj_error *err);
/* The last handle ends shipping and frees it. Flushes first (lj_open_flush). */
void lj_registry_release(lj_open *open);
void lj_registry_add_file(lj_file *file);
void lj_registry_remove_file(lj_file *file);
/* The database handle whose WAL will be opened under this very pointer; NULL = none. */
lj_file *lj_registry_file_of_wal(const char *wal_name);
/* Calls fn for the open database whose WAL has this path (compared as text), with a handle taken. false = none. */
bool lj_registry_with_wal_path(const char *wal_path, void (*fn)(lj_open *open));
/* Ships what is left, at most shutdown_timeout and not past the first failure. */
void lj_open_flush(lj_open *open);

/* ---- freeze.c ---- */
lj_dbfile lj_freeze_dbfile(lj_open *open);
/* Publishes what the wal-index shows, through a handle of its own; for when no other has it mapped. */
void lj_freeze_look(lj_open *open);

/* ---- view.c: the wal-index and the locks of a database, for threads of ours ---- */
void lj_view_add(lj_file *file, const volatile void *index);
/* Before the index is unmapped. */
void lj_view_remove(lj_file *file);
/* The level of a handle's lock on the database file changed. */
void lj_view_locked(lj_file *file, int level);
/* What the capture and the image ask of the shim (database.h, image.h). */
void lj_view_connect(lj_open *open);

/* ---- file.c ---- */
/* The io_methods for a file whose lower one has this version. */
const sqlite3_io_methods *lj_file_methods(int version);

/* ---- events.c: what SQLite's calls mean for the capture ---- */
void lj_event_read_lock(lj_file *file);
void lj_event_publish(lj_file *file);
void lj_event_exclusive_commit(lj_file *file);
void lj_event_wal_opened(lj_file *wal);
/* The first handle of a database was opened: finds what a crash left in the WAL, and decides how to go on. */
void lj_event_first_open(lj_open *open, bool wal_mode);
void lj_event_wal_write(lj_file *wal, const void *data, int len, sqlite3_int64 off);
void lj_event_wal_failed(lj_file *wal);
void lj_event_db_write(lj_file *file, const void *data, int len, sqlite3_int64 off);
/* A lock was refused: a snapshot, here or in the uploader's process, gives its own back if it has any. */
void lj_event_make_room(lj_open *open, bool exclusive);
int lj_event_restart_lock(lj_file *file, int flags);
int lj_event_retry_lock(lj_file *file, int ofst, int n, int flags, int rc);
void lj_event_wal_emptying(lj_open *open, bool going);

/* ---- pragma.c ---- */
/* FCNTL_PRAGMA: args as SQLite documents. SQLITE_NOTFOUND for pragmas that are not ours. */
int lj_pragma(lj_file *file, char **args);

/* ---- boot.c ---- */
/* Restores a database that is missing or empty. LJ_OK also when there was nothing to restore. */
LJ_WARN_UNUSED lj_code lj_boot_restore(const char *path, const lj_config *config, lj_error *err);

/* ---- vfs.c ---- */
/* Registers, or takes new defaults. */
LJ_WARN_UNUSED lj_code lj_vfs_setup(const lj_config *config, lj_error *err);

/* ---- last_error.c ---- */
void lj_last_error_set(const lj_error *err);
void lj_last_error_clear(void);
const char *lj_last_error_text(void);

/* ---- log_sink.c ---- */
typedef void (*lj_host_log)(void *ctx, int level, const char *line);
LJ_WARN_UNUSED lj_code lj_log_sink_install(const lj_config *config, lj_host_log host,
                                           void *host_ctx, lj_error *err);

#endif
