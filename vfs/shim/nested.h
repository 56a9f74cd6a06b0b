/*
 * nested.h - a connection of our own to a database the application has open, on the base VFS.
 *
 * Some things only SQLite itself may do to a database: recover a hot journal, switch the journal mode. They are
 * done as any other program would do them, by a connection of the host's own SQLite. It is on the base VFS, the one that also
 * knows the application's handles: so the process's POSIX locks are kept, and nothing here meets the shim again. It waits for
 * nobody (busy timeout 0), and its close never runs a checkpoint and never deletes a WAL.
 *
 * Layer: shim. Thread-safety: a connection belongs to its maker.
 */
#ifndef LJ_NESTED_H
#define LJ_NESTED_H

#include "vfs/shim/handle.h"

/* Opens the database read-write; it must exist. `psow0`: as if opened with psow=0. A result of SQLite; *ret_db is NULL then. */
int lj_nested_open(const lj_open *open, bool psow0, sqlite3 **ret_db);
/* Runs one statement and copies the first column of its first row ("" without one). A result of SQLite. */
int lj_nested_ask(sqlite3 *db, const char *sql, char *out, size_t size);

#endif
