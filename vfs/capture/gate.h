/*
 * gate.h - what gate.c and ahead.c both have to know. What the gate does for others is in database.h.
 *
 * Layer: capture. Thread-safety: the caller holds lj_db.mutex.
 */
#ifndef LJ_GATE_H
#define LJ_GATE_H

#include "vfs/capture/database.h"

/*
 * What of the current life would have to be in the spool before the WAL may restart, and could be: it can be shipped from there, and
 * there is room. false: nothing, or it could not. Whatever it is, *ret_rest is set.
 */
bool lj_db_rest_locked(const lj_db *db, lj_spool_entry *ret_rest);

#endif
