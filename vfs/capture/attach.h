/*
 * attach.h - at open: does the local database continue what the replica has, or is a new generation due?
 *
 * Decided from local files alone (position file, shared page, WAL, spool, identity of the database file), in the thread
 * that reads the database first, while the others wait, so that nothing can be overwritten before the decision. Whatever
 * cannot be proven to be a continuation is a new generation; its reason names both positions.
 *
 *   WAL has committed frames
 *     same salts as shipped, same checksum at the shipped offset, not shorter     -> continue there
 *     same salts as the snapshot's base, same checksum at its end, not shorter    -> continue at (index, 0)
 *     salts the shared page knows as a later index of this generation, and the
 *     spool (or the position) reaches its begin without a gap                     -> continue
 *   WAL is empty or gone
 *     the database file is as it was when the last life was sealed and emptied,
 *     or as it was restored                                                       -> continue with the next index
 *   anything else                                                                 -> new generation
 *
 * Layer: capture. Thread-safety: called once per open, before the shipper runs.
 */
#ifndef LJ_ATTACH_H
#define LJ_ATTACH_H

#include "vfs/capture/database.h"

/*
 * Sets chain, pos, safe_frames, spool_bytes and broken of the database and *ret_saved (the position to go on from;
 * with a new generation only its lineage and times count).
 */
void lj_attach(lj_db *db, lj_saved_position *ret_saved);

/* What is left of a database whose file is gone. */
typedef struct {
    bool any;                          /* the replica may lack some of it: the chain says what */
    uint64_t out_bytes;                /* left out, at most ... */
    char reason[LJ_ERROR_MESSAGE_MAX]; /* ... and why; "" = nothing is */
} lj_left;

/*
 * For a database whose file is gone, before `generation` is restored in its place: what its spool has that continues the position, and
 * what its WAL has behind that, where that is proven as at any open. The chain then ends there. Sets chain, life, pos, saved and
 * spool_bytes; no file changes, but that entries of the spool go which are in the WAL under another index (as in lj_attach). The
 * object takes no part in the session, and nobody else knows it. What cannot be read is an error, not absent.
 */
LJ_WARN_UNUSED lj_code lj_attach_left(lj_db *db, const char *generation, lj_left *ret_left,
                                      lj_error *err);
/* `at` is the end of that. */
bool lj_attach_left_over(lj_db *db, const lj_position *at);
/* How much of that is behind `at`, at most. */
uint64_t lj_attach_left_bytes(lj_db *db, const lj_position *at);

/*
 * db->last_break becomes `reason`, with what the replica has and where the local database stands, unless it says so itself. The
 * chain is still the one that is given up. Caller holds the mutex.
 */
void lj_attach_tell_break_locked(lj_db *db, const char *reason);

#endif
