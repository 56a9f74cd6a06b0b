/*
 * pending.h - a transaction that is complete in the WAL and not yet published: its COMMIT waits for the replica
 * (durability=remote).
 *
 * The committing connection holds the WAL write lock, so there is at most one, whichever process it is in. It offers the end
 * of its transaction in the shared page; the uploader sends everything up to there as it sends published frames, verified by
 * the same checksums; then one of four things happens, decided under the page's lock:
 *
 *   acknowledged   COMMIT goes on, SQLite publishes it, lj_db_publish_seen finds it shipped
 *   withdrawn      it failed or the time was up: no attempt reads or sends it any more, the caller makes its commit frame
 *                  invalid. What an attempt without an answer may have left in the store is the shipper's to remove
 *                  (vfs/ship/takeback.c)
 *   left           it failed, but remote_on_failure=degrade: COMMIT goes on, it is shipped when that works again
 *   undone         acknowledged or left, and then SQLite did not publish it (its next write failed): as withdrawn; an
 *                  acknowledged one breaks the chain, because the replica is ahead. Also one whose process was killed:
 *                  the uploader notices, at the latest the next writer does before it writes
 *
 * Layer: capture. Thread-safety: every function takes lj_db.mutex, and the page's lock for a change, itself, unless its name ends
 * in _locked.
 */
#ifndef LJ_PENDING_H
#define LJ_PENDING_H

#include "vfs/capture/chain.h"
#include "vfs/capture/walfile.h"

typedef struct lj_db lj_db;

/* The current life of the WAL as this process knows it. */
typedef struct {
    bool known;
    uint64_t number; /* counted from 1, alike in all processes that share the database */
    lj_wal_salt salt;
    uint64_t frames; /* committed */
    uint32_t page_size;
    uint32_t db_pages;
    bool
        emptied; /* restarted or truncated: all its frames are in the database file, and nothing else is */
} lj_life;

typedef enum {
    LJ_PENDING_NONE,
    LJ_PENDING_OFFERED, /* somebody waits for it */
    LJ_PENDING_STOPPED, /* being withdrawn: no attempt begins, one on its way may still succeed */
    LJ_PENDING_STORED,  /* the store has acknowledged it, it cannot be withdrawn any more ... */
    LJ_PENDING_ACKED,   /* ... and the position file and the status say so */
    LJ_PENDING_LEFT, /* nobody waits any more, it is about to be published all the same; STORED and ACKED if the store
                           has acknowledged it before that */
} lj_pending_state;

/* A part of the shared page. Names no process: who offered it has its number in lj_db.offered. */
typedef struct {
    lj_pending_state state;
    uint64_t number; /* counted from 1 */
    lj_wal_end end;
    bool failing;   /* an attempt that began after it was offered failed, and not in passing */
    lj_error error; /* it cannot be shipped as it is: its frames do not verify */

    /* the newest attempt that contains a pending end and has no good answer yet */
    uint64_t sent;     /* which one, 0 = none */
    bool sending;      /* it is on its way */
    bool sent_unknown; /* an attempt with it ended without an answer */
    bool
        sent_revoked; /* the transaction was withdrawn or undone: for the shipper to take note of */
    bool orphaned;    /* the uploader that sent it has ended: nobody knows the bytes any more */

    bool degraded; /* commits do not wait until the replica has caught up (remote_on_failure) */
} lj_pending;

#define LJ_PENDING_ORPHANED                                                                        \
    "a transaction whose COMMIT failed may be in the replica, and the process that sent it has "   \
    "ended"

/* ---- for the committing connection, which holds the WAL write lock ---- */

/* Offers the transaction that ends at `end` and wakes the shipper, or the uploader of another process. Returns its number. */
uint64_t lj_db_pending_offer(lj_db *db, const lj_wal_end *end);
/*
 * Waits until it is acknowledged. LJ_CORRUPT: its frames do not verify, although SQLite wrote them (before 3.50.2 it does
 * that); it is not pending any more. Otherwise it is withdrawn (with `leave`: left): LJ_TIMEOUT when the time is up, the
 * shipper's error as soon as one does not pass by itself, LJ_UNSUPPORTED when this process does not replicate. An attempt on
 * its way is cancelled first, which takes 0.2 s at most with a store that keeps to it (I23), and is given up after a second. A
 * standby looks at the page every millisecond meanwhile.
 */
LJ_WARN_UNUSED lj_code lj_db_pending_wait(lj_db *db, uint64_t number, int64_t timeout_ns,
                                          bool leave, lj_error *err);
/* Has it been published? (Also true for one that was withdrawn or undone: there is nothing left to do.) */
bool lj_db_pending_is_over(lj_db *db, uint64_t number);
/* It was acknowledged or left, and it is not going to be published. */
void lj_db_pending_undo(lj_db *db, uint64_t number);
/*
 * A transaction that pends although nobody can be waiting was left by a process that has ended. If it was not published it is
 * undone: by whoever gets the write lock, or the lock of the whole file (`look` publishes what there is; false: not now); by
 * whoever ends the life, for a last close takes no write lock; by the uploader when it looks around and the owner's lock is gone.
 */
void lj_db_pending_next_writer(lj_db *db, bool (*look)(void *ctx), void *ctx);
void lj_db_pending_sealing(lj_db *db);
void lj_db_pending_look_after(lj_db *db);
/* Commits do not wait now: an earlier one waited in vain and the replica has not caught up since. */
bool lj_db_degraded(lj_db *db);
/* A wait of durability=ack failed: counts it, and with `degrade` later commits do not wait. Logs. */
void lj_db_wait_failed(lj_db *db, bool degrade, const lj_error *err);

/* ---- for publishing, and for the session ---- */
void lj_db_pending_published_locked(lj_db *db, const lj_wal_end *end);
/* What the page says of it, taken in. */
void lj_db_pending_take_in(lj_db *db, const lj_pending *pending);
/* This process uploads from here on. Caller has entered. true: the chain has to be broken. */
bool lj_db_pending_inherit_locked(lj_db *db);
/* An attempt failed for a reason that does not pass. Caller has entered. */
void lj_db_pending_failing_locked(lj_db *db);

/* ---- for the shipper ---- */

/*
 * Makes the chain and the life of the caller's copies look as they will when the offered transaction is published: it may be
 * the first of a new life. *ret_number = 0 when there is none. LJ_CONFLICT: it cannot continue the chain.
 */
LJ_WARN_UNUSED lj_code lj_db_pending_view_locked(const lj_db *db, lj_chain *chain, lj_life *life,
                                                 uint64_t *ret_number, lj_error *err);
/* The shipping task begins to work: the flag that a COMMIT ends its requests with, not set now. */
const bool *lj_db_pending_cancel(lj_db *db);
/* An attempt that contains it begins. false: it is not offered any more, or an earlier revocation is to be noted first. */
bool lj_db_pending_begin(lj_db *db, uint64_t number);
/*
 * The attempt is over. `stored`: the store has acknowledged an object that contains the transaction; `unknown`: it may have it
 * without having said so. Returns false when the transaction was withdrawn meanwhile: the position must not move.
 */
bool lj_db_pending_end(lj_db *db, uint64_t number, bool stored, bool unknown);
/* What the store has acknowledged is in the position file, or could not be written there: COMMIT goes on. */
void lj_db_pending_ack(lj_db *db, uint64_t number);
/* Its frames do not verify: whoever waits for it is told. */
void lj_db_pending_refuse(lj_db *db, uint64_t number, const lj_error *err);
/* Without a chain: the same, where the generation is a snapshot alone because the WAL does not verify. */
void lj_db_pending_look_at_chain(lj_db *db);
/* True once for each revocation of a transaction that was sent: it is to be looked for. */
bool lj_db_pending_take_revoked(lj_db *db);
/* What was sent of each such transaction has been looked for, and taken back if it was there. */
void lj_db_pending_looked_for(lj_db *db);
/* Everything is in the replica: commits wait again. */
void lj_db_caught_up(lj_db *db);

#endif
