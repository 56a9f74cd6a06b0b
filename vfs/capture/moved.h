/*
 * moved.h - is the database still the file that has its name?
 *
 * Handles follow an inode, but the WAL, the state folder, a snapshot's reader and the next open go by name. When a file is renamed,
 * deleted or replaced while it is open, the two part, and nothing that is found under the name may be taken for the database
 * any more. Replication of the open handles then ends for good: the state says so, the election lock and the shared page are
 * given back, and whoever opens the file that has the name now begins a generation of its own.
 *
 * Layer: capture. Thread-safety: any thread, under no lock of rank 1 or higher. Cost: one stat(2).
 */
#ifndef LJ_MOVED_H
#define LJ_MOVED_H

#include "vfs/capture/database.h"

/* false: it is not, and replication has ended. What cannot be told (an I/O error) counts as in its place. */
bool lj_db_in_place(lj_db *db);
/* What the database file looks like; false when it is not in its place. */
bool lj_db_identity(lj_db *db, lj_identity *ret_identity);

#endif
