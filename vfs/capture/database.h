/*
 * database.h - one object per replicated database and process: what was committed, what is safe, who waits.
 *
 * The shim reports events (published commits, a WAL about to be restarted, emptied, a write beside the WAL), the shipper
 * (vfs/ship) reads what is to be shipped and reports what is safe. The restart gate stands between the two:
 *
 *   I1  A frame of an active chain is destroyed only when it is in the replica or in the spool (lj_db_gate, lj_db_seal).
 *   I2  What the gate takes for safe is in the position file first (the shipper's order: ack, file, lj_db_shipped).
 *   I3  A new life continues the chain only when the life before it was sealed at its last frame (lj_db_publish).
 *   I4  No function here that runs in an application thread waits for the shipper or for a store, except lj_db_wait* and
 *       lj_db_pending_wait (pending.h), which are there for it.
 *
 * What all processes of a database have to agree on is marked "shared" below: these fields are copies of the shared page, to
 * be changed between lj_db_enter and lj_db_leave only (session.h).
 *
 * Layer: capture. Thread-safety: every function takes lj_db.mutex itself unless it says otherwise. Rank: registry (1) >
 * lj_db.mutex (2) > scheduler (3). lj_db.mutex is never held across I/O.
 */
#ifndef LJ_DATABASE_H
#define LJ_DATABASE_H

#include <pthread.h>
#include <stdatomic.h>

#include "vfs/capture/ahead.h"
#include "vfs/capture/bell.h"
#include "vfs/capture/pending.h"
#include "vfs/capture/position.h"
#include "vfs/capture/ring.h"
#include "vfs/capture/shared.h"

typedef struct {
    int64_t sync_interval_ns;
    int64_t snapshot_interval_ns;
    int64_t retention_ns;
    int64_t shutdown_timeout_ns;
    int64_t io_timeout_ns;
    uint64_t max_wal_size_bytes;
    uint64_t max_spool_size_bytes;
    bool fsync_before_ship;
} lj_db_options;

#define LJ_DB_REASON_MAX 192

typedef enum {
    LJ_DB_IDLE,     /* opened; the WAL was not read yet */
    LJ_DB_STARTING, /* deciding between continuing and a new generation, or taking its first snapshot */
    LJ_DB_REPLICATING,
    LJ_DB_STANDBY, /* another process on this machine is the uploader */
    LJ_DB_STOPPED, /* cannot replicate: see reason */
} lj_db_state;

/* Called (under no lock) when there may be work: due at `due_ns` of the monotonic clock, 0 = now. */
typedef void (*lj_db_wake_fn)(lj_db *db, int64_t due_ns);

/* What the capture asks of the shim in threads of ours. Each may be NULL. */
typedef struct {
    void *ctx;
    /* Publishes what the wal-index shows now, through any open handle. */
    void (*look)(void *ctx);
    /* Gives the locks of a snapshot back for another process; `exclusive`: only if nothing else here locks the file. */
    void (*yield)(void *ctx, bool exclusive);
} lj_db_shim;

struct lj_db {
    /* immutable after lj_db_new */
    char *path;
    char *wal_path;
    char *state_dir; /* "<dir>/.<name>-litejoin" */
    char *spool_dir;
    char *position_path;
    char *bell_path;
    char *replica_url; /* of this database, for messages */
    lj_db_options options;
    lj_db_wake_fn wake;
    lj_db_shim shim; /* set by the owner before the first handle */
    void *shipper;   /* vfs/ship's object */
    lj_identity
        opened_identity; /* of the database file before SQLite touched it; valid if has_opened_identity */
    bool has_opened_identity;
    uint64_t inode; /* of the database file; 0 = not known (moved.h) */

    atomic_bool ready; /* the attach is over */
    atomic_llong
        ready_not_before_ns; /* monotonic: it failed, and is not tried again before; 0 = now */
    unsigned ready_failures; /* in a row; under the mutex */
    pthread_mutex_t
        ready_mutex; /* rank 1, held once, during the attach: no connection gets past its first read before */

    pthread_mutex_t mutex;
    pthread_cond_t cond; /* shipped, state or attempts changed */

    /* below: guarded by mutex */
    lj_db_state state;
    char reason[LJ_DB_REASON_MAX]; /* why STOPPED, or what STARTING waits for */
    bool moved;   /* the file under this name is another one (moved.h): STOPPED for good */
    bool not_wal; /* shared. Journal mode is not WAL: mode says which */
    char mode[LJ_REASON_MAX]; /* shared */
    bool attached; /* decided whether to continue (attach.h), or took part in what others decided */
    bool established; /* shared. The generation's first snapshot is in the replica */
    bool freezing;    /* shared. A first snapshot is being frozen: no restart in between */
    bool disturbed;   /* shared. ... and one had to be allowed all the same */
    bool closing;     /* the last handle is going away: long work ends */
    bool outside_wal; /* being written outside of WAL mode: no WAL was opened since */
    bool touched;     /* written outside of WAL mode before the attach */
    bool broken; /* shared. The chain was given up: the shipper has to begin a new generation */
    char broken_reason[LJ_REASON_MAX]; /* shared */
    /* why a generation was given up last, with both positions; "" = none was. Shared */
    char last_break[LJ_BREAK_MAX];
    bool
        snapshots_only; /* the WAL does not verify: until it restarts, generations are snapshots alone */
    lj_life life;
    lj_chain chain;         /* shared */
    lj_shared *shared;      /* NULL until ready */
    int lock_fd;            /* seat.h; -1 until ready */
    atomic_int entering_fd; /* the same while a place is looked for (fork closes it); else -1 */
    bool sharing; /* takes part in the session: the fields marked "shared" follow the page */
    bool entered; /* between enter and leave, with the page's lock */
    uint64_t page_version; /* of the page, when it was read last */
    lj_session page_read;  /* the page as it was then */
    uint64_t session_life; /* shared. Number and salts of the life begun last */
    lj_wal_salt session_salt;
    bool other_url;         /* this process names another replica than the session */
    lj_bell *bell;          /* the uploader's own, or where a standby rings; NULL = none */
    bool bell_gone;         /* nobody listens to it any more */
    bool deaf;              /* no FIFO can be made here: the uploader polls */
    int64_t reach_again_ns; /* a standby that found no uploader: pause until the next try */
    uint32_t calls_heard, yields_heard, exclusive_heard;
    int64_t call_until_ns; /* monotonic: another process waits for a flush, until then */
    lj_position pos;       /* shared. Next byte to ship: a copy of the shipper's */
    lj_saved_position
        saved; /* set by the attach, then by the shipper each time it writes the position file */
    uint64_t shipped_life,
        shipped_frames; /* shared. In the replica; life 0 = nothing of the lives that are numbered */
    uint64_t safe_life, safe_frames; /* shared. In the replica, or in the snapshot being taken */
    lj_ring ring;
    lj_pending pending; /* shared */
    uint64_t offered;   /* number of the one that this process offered, 0 = none */
    uint64_t
        pending_since;   /* runs begun before we knew of it: what those meet says nothing of it */
    bool pending_cancel; /* ends what the shipping task waits for; atomic, as in base/cancel.h */
    bool
        unlooked; /* an object of a transaction whose COMMIT failed may be in the replica, and was not looked for since */
    uint64_t pending_failed; /* commits of this process that waited in vain, since open */
    uint64_t commits;        /* published since open */
    uint64_t spool_bytes;    /* shared */
    bool spooling;           /* frames are being copied to the spool: the index must not change */
    lj_ahead ahead;          /* a copy for the spool, made before it is needed */
    bool want_wake;          /* the shipper sleeps: the next commit wakes it */
    int64_t not_before_ns;   /* monotonic: the next tick is not due before */
    bool urgent;       /* ... unless the WAL is growing towards max_wal_size, or the process ends */
    uint64_t attempts; /* shared. Shipping attempts ended */
    uint64_t
        failures; /* shared. Of those a flush waits for: failed for a reason that does not pass within seconds */
    uint64_t runs;       /* of the shipping task, begun ... */
    uint64_t failed_run; /* ... and the newest that added to failures */
    int64_t shipped_ns;  /* monotonic: the newest acknowledgement */
    uint64_t flush_waiters;
    uint64_t snapshot_requests;              /* shared. Numbered from 1 ... */
    uint64_t snapshot_done, snapshot_failed; /* shared. ... and over, well or badly, up to here */
    lj_error ship_error;                     /* shared. Of shipping; LJ_OK after a good attempt */
    lj_error snapshot_error;                 /* shared. Of the snapshot task, likewise */
    uint64_t segments, snapshots, shipped_bytes; /* by this process */
    int64_t last_snapshot_ns;                    /* shared */
    uint32_t uploader;                           /* shared. Process id, for messages; 0 = none */
};

/* ---- life cycle (called by the registry in the shim) ---- */

LJ_WARN_UNUSED lj_code lj_db_new(const char *path, const char *replica_url,
                                 const lj_db_options *options, lj_db_wake_fn wake, lj_db **ret_db,
                                 lj_error *err);
void lj_db_free(lj_db *db);
/*
 * The database can be looked at for the first time: publishes what is in the WAL (`look` does; NULL = nothing to publish;
 * false = not now, somebody will try again), creates the state folder, maps the shared page, elects the uploader, decides
 * whether the replica is continued (attach.h) or takes part in what other processes decided, wakes the shipper. Some local I/O
 * once per open, for which other connections and processes wait (they could commit or restart the WAL before it is decided);
 * cheap when called again. A failure is kept in state and reason; the application goes on, and a later look tries again (after
 * 0.1 s first and 5 s at most). What was committed or restarted meanwhile counts like what another program did: the attach
 * finds out whether the replica can be continued. (join.c)
 */
typedef bool (*lj_db_first_look_fn)(void *ctx);
void lj_db_ready(lj_db *db, lj_db_first_look_fn look, void *ctx);
/* The same with a look that is only right while no other process writes: does nothing when another one takes part. */
void lj_db_ready_alone(lj_db *db, lj_db_first_look_fn look, void *ctx);

/*
 * It is not to be replicated, for a reason that does not pass by itself: STOPPED, and no look is a first one, until lj_db_admit, from
 * which the next one is. What happens meanwhile counts like what another program did. refuse: before the first handle.
 */
void lj_db_refuse(lj_db *db, const char *reason, const lj_error *why);
void lj_db_admit(lj_db *db);

/* No thread of ours comes to the database by itself any more (its tasks were stopped before). The seat is kept until lj_db_free. */
void lj_db_quiet(lj_db *db);

/* ---- events, in application threads ---- */

/*
 * The committed end of the WAL, as the frame headers show it to somebody who has the database for himself (lj_db_publish_settled).
 * Cost when nothing changed: one mutex and a compare; else about 100 ns and, if the shipper sleeps, one wake-up.
 */
void lj_db_publish(lj_db *db, lj_wal_salt salt, uint64_t frames, uint32_t page_size,
                   uint32_t db_pages);

/* Reads the committed end from memory that others change; false = not now. Called under the mutex: no I/O, no lock. */
typedef bool (*lj_db_look_fn)(void *ctx, lj_wal_end *ret_end);
/*
 * Publishes what `look` sees. Several connections look at one wal-index; because they look under the mutex, one that looked
 * earlier cannot publish later and take a commit back. *ret_end (if not NULL) is what was seen. false = nothing was.
 */
bool lj_db_publish_seen(lj_db *db, lj_db_look_fn look, void *ctx, lj_wal_end *ret_end);
/*
 * The same in the name of somebody who keeps others from restarting the WAL meanwhile, by a lock of the wal-index or of the whole file.
 * Who restarts it with this VFS seals its life before that shows, and notes what the file looks like. So where there is no frame any
 * more and the life was not sealed, or the file is another, some other program has had the WAL, perhaps with frames that nobody here
 * has seen: the chain breaks.
 */
bool lj_db_publish_settled(lj_db *db, lj_db_look_fn look, void *ctx, lj_wal_end *ret_end);
/* The number of the life with these salts; 0 when it is not the current one. */
uint64_t lj_db_life_number(lj_db *db, lj_wal_salt salt);

typedef enum { LJ_GATE_ALLOW, LJ_GATE_VETO } lj_gate;
/*
 * Somebody wants to restart the WAL. `checkpoint`: it is an application's RESTART or TRUNCATE checkpoint (never refused).
 * ALLOW does not mean that it is safe yet: call lj_db_seal once the restart is certain, before it happens. A refusal past
 * half of max_wal_size makes the shipper catch up at once, so that little is left to be spooled at the limit.
 */
lj_gate lj_db_gate(lj_db *db, bool checkpoint);
/*
 * May the life with this salt, which has so many frames, be ended for a reason of ours? Not while a generation begins, nor when
 * somebody else has ended it; else as the gate says (ALLOW can mean that lj_db_seal has something to copy).
 */
bool lj_db_may_restart(lj_db *db, lj_wal_salt salt, uint64_t frames);
/* Ships what there is without waiting for the next tick. */
void lj_db_hurry(lj_db *db);
/*
 * The current life ends now. Unshipped frames go to the spool first; if that fails or the spool is full, the chain is given
 * up (logged, visible, a new generation follows). `going` = the file itself is about to be deleted (a hard link will do).
 * May do I/O in the caller's thread, only when frames are unshipped: a copy of those, without fsync (a spool file that a
 * power cut tore does not verify, and a new generation follows; the database itself was synced by the checkpoint).
 */
void lj_db_seal(lj_db *db, bool going);
/* It was sealed to be deleted, and was not: the spool may have it under another name. */
void lj_db_wal_stays(lj_db *db);
#define LJ_WRITTEN_WHILE_EMPTY "the database file was written while the WAL was empty"
/* The WAL was sealed and is being restarted, truncated or deleted: remembers what the database file looks like. */
void lj_db_wal_emptied(lj_db *db);
/* A WAL header is about to be written: the life it begins, once something is committed in it, follows the sealed one. */
void lj_db_wal_header(lj_db *db, lj_wal_salt salt);
/* The WAL was emptied, and from here on nobody can restart it unseen; or can again. */
void lj_db_guarded(lj_db *db, bool guarded);
/* Gives up the chain: what happened is not in the WAL (rollback-journal mode, replaced file). */
void lj_db_break(lj_db *db, const char *fmt, ...) LJ_PRINTF(2, 3);
/*
 * The file itself is going to be written outside of WAL mode; or a WAL was opened. In between the file may hold half a transaction,
 * and nobody may take it for the state at the end of the last WAL.
 */
void lj_db_outside_wal(lj_db *db, bool outside);
/* The journal mode is not WAL (name it), or is WAL again (NULL). */
void lj_db_journal_mode(lj_db *db, const char *mode);

/*
 * Waits until everything committed at the time of the call is in the replica. LJ_OK, LJ_TIMEOUT, or the shipper's error:
 * with `first_error` at the first attempt that fails, else only when the time is up. Nothing to ship is LJ_OK at once.
 */
LJ_WARN_UNUSED lj_code lj_db_wait(lj_db *db, int64_t timeout_ns, bool first_error, lj_error *err);
/*
 * Waits until what was sent of transactions whose COMMIT failed was looked for, and taken back if it was there: the host may end behind a
 * COMMIT that failed. LJ_OK at once when there is nothing, or another process has to do it.
 */
LJ_WARN_UNUSED lj_code lj_db_wait_taken_back(lj_db *db, int64_t timeout_ns, lj_error *err);
/*
 * Waits until a commit is in the replica (durability=ack): the one that ends with frame `frames` of the life with that number.
 * The shipper takes what is committed meanwhile along in the same object. Results as of lj_db_wait with first_error.
 */
LJ_WARN_UNUSED lj_code lj_db_wait_commit(lj_db *db, uint64_t life, uint64_t frames,
                                         int64_t timeout_ns, lj_error *err);
/*
 * Waits until the replica has reached a position of the generation that is being continued, without hurrying anybody.
 * LJ_CONFLICT: the position is of another generation.
 */
LJ_WARN_UNUSED lj_code lj_db_wait_position(lj_db *db, const lj_position *at, int64_t timeout_ns,
                                           lj_error *err);
/* Asks for a snapshot and waits for it. */
LJ_WARN_UNUSED lj_code lj_db_wait_snapshot(lj_db *db, int64_t timeout_ns, lj_error *err);

/* ---- shared by the files that wait; the caller holds the mutex ---- */

/* A time from now on, for pthread_cond_timedwait. */
void lj_db_deadline(int64_t timeout_ns, struct timespec *ret_deadline);
/* LJ_UNSUPPORTED and why, while this process cannot ship. */
LJ_WARN_UNUSED lj_code lj_db_cannot_wait_locked(const lj_db *db, lj_error *err);
/* What lj_db_wait does, for a given end. */
LJ_WARN_UNUSED lj_code lj_db_wait_for_locked(lj_db *db, uint64_t life, uint64_t frames,
                                             int64_t timeout_ns, bool first_error, lj_error *err);
/* What keeps commits from the replica; LJ_OK: nothing that is known. */
const lj_error *lj_db_shipping_error_locked(const lj_db *db);
/* The error to show: of shipping first, it concerns every commit. LJ_OK: none. */
const lj_error *lj_db_current_error_locked(const lj_db *db);
/* "<what>: <why>" with the hint of why, or "<what>: <otherwise>". Returns the code. */
lj_code lj_db_told_why(lj_error *err, lj_code code, const char *what, const lj_error *why,
                       const char *otherwise);

/* ---- for the shipper ---- */

/* Everything of `life` up to `frames` is in the replica and the position file says so; `next` is where it goes on. */
void lj_db_shipped(lj_db *db, const lj_position *next, uint64_t life, uint64_t frames);
/* Another process uploads, and is to be told of what happens here. Caller holds the mutex. */
static inline bool lj_db_follows_locked(const lj_db *db)
{
    return db->sharing && (db->state == LJ_DB_STANDBY || db->other_url);
}
/*
 * Waits for news. Those of another process are not announced to who waits in this one: looked for now and then, and the uploader
 * is called again, in case it is a new one. ETIMEDOUT: the deadline has come. *turns begins as 0. Caller holds the mutex.
 */
int lj_db_wait_for_news_locked(lj_db *db, const struct timespec *deadline, unsigned *turns);
/* The same, for a COMMIT that keeps the write lock meanwhile: looks more often. */
int lj_db_wait_for_answer_locked(lj_db *db, const struct timespec *deadline, unsigned *turns);
/* Makes the chain follow the current life, whose frames this process knows. Caller has entered. */
void lj_db_extend_life_locked(lj_db *db);
/* A snapshot was asked for and has not been tried since. Caller holds the mutex. */
static inline bool lj_db_snapshot_asked_locked(const lj_db *db)
{
    return db->snapshot_requests > LJ_MAX(db->snapshot_done, db->snapshot_failed);
}
/* One attempt to ship is over. err NULL or code OK: it was good. */
void lj_db_attempt(lj_db *db, const lj_error *err);
/* Likewise of a snapshot or of retention. */
void lj_db_snapshot_attempt(lj_db *db, const lj_error *err);

/* ---- for status ---- */

typedef struct {
    lj_db_state state;
    bool replicating;
    char text[LJ_DB_REASON_MAX + 32]; /* with "not replicating: " in front */
    char generation[LJ_GENERATION_MAX];
    uint32_t local_index, replica_index;
    uint64_t local_offset, replica_offset;
    int64_t lag_ms;
    uint64_t lag_frames;
    uint64_t spool_bytes, segments, snapshots, shipped_bytes;
    int64_t last_snapshot_ns;
    uint32_t uploader;       /* process id, 0 = none known */
    bool degraded;           /* remote_on_failure=degrade: commits do not wait now */
    uint64_t failed_commits; /* waited for the replica in vain, since open */
    char last_error[LJ_ERROR_TEXT_MAX];
    char last_break[LJ_BREAK_MAX];
} lj_db_status;
void lj_db_get_status(lj_db *db, lj_db_status *ret_status);

#endif
