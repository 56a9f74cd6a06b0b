/*
 * litejoin_vfs.h - the litejoin VFS for C hosts: register it, flush, ask how it is doing.
 *
 * The VFS wraps SQLite's default VFS under the name "litejoin". A database opened through it in WAL mode is replicated
 * to `<replica_url>/<file name without .db>/` as it is written, and a database that is gone is restored when
 * it is opened. A replica is a folder (file://) or lies in an object store (s3://, gcs://, abs://, sftp://). Link
 * liblitejoin.a and the libraries that `pkg-config --libs litejoin` names next to your own SQLite (3.40 or later); or load
 * the extension litejoin_vfs.so, which gives the same functions.
 *
 * Secrets have no place here: stores find their credentials in the environment, in the files of their vendors' tools and at
 * the metadata services of the machine. The environment is read when the VFS is registered and when a database is opened:
 * as always with getenv, no other thread may change it then.
 *
 * Threads: every function may be called from any thread; one that takes a connection follows that connection's rules.
 * Nothing is written to stdout or stderr; no signal handler is installed; no callback runs under a lock.
 */
#ifndef LITEJOIN_VFS_H
#define LITEJOIN_VFS_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define LITEJOIN_API __attribute__((visibility("default")))

typedef struct sqlite3 sqlite3;

/* Levels of `log` and of the option log_level. */
#define LITEJOIN_LOG_ERROR 0
#define LITEJOIN_LOG_WARN  1
#define LITEJOIN_LOG_INFO  2
#define LITEJOIN_LOG_DEBUG 3

/*
 * Defaults of the process. Every option is text in the form of the README's option table ("1s", "64MiB", "true"); NULL
 * leaves it as it is. Precedence, highest first: URI parameters of the database name, LITEJOIN_* environment,
 * this struct, config_file. The struct and its strings may go away after the call.
 */
typedef struct litejoin_config {
    uint32_t size;    /* sizeof(litejoin_config): lets the struct grow */
    int make_default; /* not 0: register as the process's default VFS */
    const char
        *config_file; /* a litejoin.yaml; NULL = the file LITEJOIN_CONFIG names, if it is set */
    const char *enabled;
    const char *mode;
    const char *replica_url;
    const char *sync_interval;
    const char *restore_on_boot;
    const char *snapshot_interval;
    const char *retention;
    const char *max_wal_size;
    const char *max_spool_size;
    const char *shutdown_timeout;
    const char *io_timeout;
    const char *upload_workers;
    const char *log_level;
    const char *log_file;
    const char *base_vfs;
    /* Called with each log line, from any thread, under no lock; must not call back into SQLite. */
    void (*log)(void *log_ctx, int level, const char *line);
    void *log_ctx;
    const char *fsync_before_ship;
    const char *auto_wal;
    const char *guard;
    const char *durability;
    const char *remote_timeout;
    const char *remote_on_failure;
} litejoin_config;

/*
 * Registers the VFS "litejoin" (sqlite3_vfs_register). `config` may be NULL. The first call fixes the base VFS; a later
 * one only replaces the defaults for databases opened after it, and makes the VFS the default if it says so. Returns SQLITE_OK, SQLITE_MISUSE for a bad
 * configuration (litejoin_last_error says which key), or SQLITE_ERROR.
 */
LITEJOIN_API int litejoin_vfs_register(const litejoin_config *config);

/* Why the last call or open of this thread failed, with a hint; "" if none did. Valid until the thread's next one. */
LITEJOIN_API const char *litejoin_last_error(void);

#define LITEJOIN_TEXT_MAX 800

typedef struct litejoin_status {
    uint32_t size;   /* in: sizeof(litejoin_status) */
    int replicating; /* 1 when commits are being shipped (also while retrying), else 0 */
    char state
        [64]; /* "replicating", "starting", "retrying", "off", "not replicating: journal_mode=delete", ...; its end is cut off if it is longer */
    char generation[17];    /* 16 hex digits, "" before the first snapshot */
    uint32_t local_index;   /* position of the last local commit: life of the WAL ... */
    uint64_t local_offset;  /* ... and byte offset behind its last frame */
    uint32_t replica_index; /* position the replica has acknowledged */
    uint64_t replica_offset;
    int64_t lag_ms;       /* age of the oldest commit the replica does not have; 0 = none */
    uint64_t lag_frames;  /* frames the replica does not have */
    uint64_t spool_bytes; /* unshipped frames kept in the spool folder */
    uint64_t segments;    /* objects written since open */
    uint64_t snapshots;
    uint64_t shipped_bytes;             /* compressed */
    int64_t last_snapshot_ns;           /* wall time of the newest snapshot, 0 = none known */
    char last_error[LITEJOIN_TEXT_MAX]; /* "" when the last attempt was good */
    char last_break
        [LITEJOIN_TEXT_MAX]; /* why a generation was given up last; "" = not since the open */
    int degraded; /* 1: remote_on_failure=degrade, and commits do not wait until the replica has caught up */
    uint64_t failed_commits; /* commits that waited for the replica in vain, since open */
} litejoin_status;

/*
 * The replication state of one attached database (`schema` NULL = "main"). SQLITE_NOTFOUND when it was not opened
 * through the litejoin VFS. Same content as `PRAGMA litejoin_status`.
 */
LITEJOIN_API int litejoin_get_status(sqlite3 *db, const char *schema, litejoin_status *status);

/*
 * Ships everything committed so far and waits for the replica's acknowledgement, at most timeout_ms (0 = the option
 * shutdown_timeout). SQLITE_OK, SQLITE_NOTFOUND as above, SQLITE_BUSY when the time was up, SQLITE_IOERR when the replica
 * failed (litejoin_last_error). Same as `PRAGMA litejoin_sync`.
 */
LITEJOIN_API int litejoin_sync(sqlite3 *db, const char *schema, int timeout_ms);

/*
 * Waits until the replica has reached `position` ("GENERATION/INDEX:OFFSET", as PRAGMA litejoin_sync and litejoin_status
 * print it), at most timeout_ms (0 = the option remote_timeout), without making it ship earlier. The same results, and
 * SQLITE_MISUSE for what is no position; SQLITE_IOERR for a position of another generation. Same as `PRAGMA litejoin_wait`.
 */
LITEJOIN_API int litejoin_wait(sqlite3 *db, const char *schema, const char *position,
                               int timeout_ms);

/* Takes a snapshot now and waits for it, with the same results. Same as `PRAGMA litejoin_snapshot`. */
LITEJOIN_API int litejoin_snapshot(sqlite3 *db, const char *schema, int timeout_ms);

/* For SQLITE_EXTRA_INIT: registers with the environment's configuration. The argument is not used. */
LITEJOIN_API int litejoin_extra_init(const char *unused);

#ifdef __cplusplus
}
#endif

#endif
