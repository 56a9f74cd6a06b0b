/*
 * ahead.h - copies unshipped frames for the spool while the WAL grows, so that little is left to copy when it restarts.
 *
 * Who restarts a WAL keeps what is not shipped of it in the spool first (gate.c): 2 to 3 ms for each MiB, in a commit. So a
 * thread of ours copies before that, step by step, into a file that has no name in the spool yet: from the begin, if the life
 * before had to be copied, else from the length on at which the restart comes near. Who restarts the WAL takes that file, adds
 * what was committed since, and gives it its name. What nobody took goes when the replica has it.
 *
 * Nobody waits for the copy. Where it is still being made, it is taken as far as it is complete, and the rest of the frames gets
 * a file of its own; what the thread then still writes lies behind the end that the name says. The end is always that of a
 * transaction. While a checkpoint runs the thread stands aside (base/aside.h): the commit in front of that is slow enough.
 *
 * It is a help and no more: where it fails, the disk is nearly full or the WAL has become very long, who restarts it copies.
 * Beside other processes nothing is copied: each would do it, and only one restarts the WAL.
 *
 * The WAL may be restarted under the thread, by whomever. What it has read is of the right life all the same: each frame carries
 * the salts of its own, and they are compared before the frame counts.
 *
 * Layer: capture. Thread-safety: the fields are guarded by lj_db.mutex, and there is no I/O under it. lj_ahead_run runs in one
 * thread at a time.
 */
#ifndef LJ_AHEAD_H
#define LJ_AHEAD_H

#include "vfs/capture/pending.h"
#include "vfs/capture/spool.h"

typedef struct {
    /* has lj_ahead_run called soon, in a thread of ours; NULL: there is none */
    void (*wake)(lj_db *db);
    uint64_t due_end;    /* when the WAL has reached that length */
    uint64_t step_bytes; /* ... and again after so many bytes more */
    bool expected;       /* the life before was restarted with frames that were not shipped */

    bool there; /* the fields below are of a file */
    bool busy;  /* it is being added to */
    bool taken; /* it is not there any more because it went into the spool */
    lj_position start;
    uint64_t end; /* start.offset..end-1 of the WAL are in it, and the header */
    lj_wal_salt salt;
    char name[64]; /* in the spool's folder */
} lj_ahead;

/* db->life has a new end; `before` is what it was. true: db->ahead.wake is to be called, without the mutex. Caller holds it. */
bool lj_ahead_published_locked(lj_db *db, const lj_life *before);
/* Copies what there is, or removes what is of no more use. true: a file is there that nobody took; to be called again some time. */
bool lj_ahead_run(lj_db *db);
/*
 * Puts `rest`, which is of the current life and not shipped, into the spool: by what was copied ahead, if anything, else by a
 * copy. By who holds the WAL, which keeps the life as it is. May become two files (lj_spool_remove_range).
 */
LJ_WARN_UNUSED lj_code lj_ahead_spool(lj_db *db, const lj_spool_entry *rest, int wal_fd,
                                      lj_error *err);
/* Removes the file, if any. lj_ahead_run does not run any more. */
void lj_ahead_drop(lj_db *db);

#endif
