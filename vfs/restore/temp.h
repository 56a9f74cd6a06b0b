/*
 * temp.h - the temporary file of a restore, and those that killed restores have left.
 *
 * NAME.tmp-restore-HEX, 16 digits, beside NAME. Who makes one holds a lock that others can ask for, so that a file which nobody
 * is writing can be told from one that somebody is:
 *
 *     restore on open   the restore lock of NAME (.NAME-litejoin/restore-lock), exclusively
 *     any other         its folder, shared
 *
 * These are flocks: they end with the process. Not of the file itself: to ask for that one would have to open and close it, and
 * with its new name it may be a database of this process by then, whose POSIX locks would go.
 *
 * Layer: restore (internal, but for the path of the lock: restore.h). Thread-safety: pure functions over paths.
 */
#ifndef LJ_TEMP_H
#define LJ_TEMP_H

#include "vfs/restore/restore.h"

/*
 * Removes what killed restores of `path` have left beside it, when both locks show that none is running; `locked` says that the
 * caller holds the restore lock. Takes nothing but regular files whose names are exactly of the above form. A file that cannot be
 * removed is logged, and never in the way of a restore.
 */
void lj_temp_sweep(const char *path, bool locked);
/*
 * A descriptor that holds the folder's lock; -1 when there is none to have, as on a file system without locks, where nobody is
 * able to sweep either.
 */
int lj_temp_lock_folder(const char *dir);
/* A new empty file, and its name (free()). */
LJ_WARN_UNUSED lj_code lj_temp_create(const char *path, mode_t mode, int *ret_fd, char **ret_name,
                                      lj_error *err);

#endif
