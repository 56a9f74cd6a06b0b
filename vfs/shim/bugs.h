/*
 * bugs.h - bugs of the host's SQLite that an operator should know of.
 *
 * Layer: shim. Thread-safety: pure, but for lj_bugs_warn_once.
 */
#ifndef LJ_BUGS_H
#define LJ_BUGS_H

#include <stdbool.h>

/*
 * The WAL-reset bug, 3.7.0 to 3.51.2: a checkpoint and a writer of two connections at the same instant can lose committed
 * pages. Fixed in 3.51.3, and in 3.44.6 and 3.50.7. `version`: as from sqlite3_libversion_number(). Source: SQLite's release notes.
 */
bool lj_bugs_wal_reset(int version);
/* One line in the log per process, if the host's SQLite has it. */
void lj_bugs_warn_once(int version, const char *version_text);

#endif
