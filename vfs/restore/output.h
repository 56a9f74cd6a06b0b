/*
 * output.h - the files of one restore: the database under a temporary name, and the unlinked file for the raw WAL.
 *
 * Everything lives in the folder of the output, so that the last step is a rename inside one file system. lj_output_close
 * removes whatever was not published. The database's descriptor is closed before the file gets its real name: closing a
 * descriptor of a database that this process has open would drop its POSIX locks.
 *
 * Layer: restore (internal). Thread-safety: one owner.
 */
#ifndef LJ_OUTPUT_H
#define LJ_OUTPUT_H

#include "vfs/restore/restore.h"

typedef struct {
    const char *path; /* the caller's */
    char *dir;
    char *temp;
    int db_fd;  /* the database being written */
    int wal_fd; /* raw WAL, unlinked; -1 until lj_output_open_wal */
    int dir_fd; /* holds the folder's lock (temp.h); -1: restore on open */
    bool remove_stale;
    bool overwrite_empty;
    uint64_t
        inode; /* of the database, from lj_output_publish on: as it was before it had its name */
    int64_t mtime_ns;
} lj_output;

#define LJ_OUTPUT_INIT                                                                             \
    {                                                                                              \
        .path = NULL, .dir = NULL, .temp = NULL, .db_fd = -1, .wal_fd = -1, .dir_fd = -1           \
    }

/* LJ_EXISTS when the path is taken, or by files that SQLite would take for its WAL or journal. Creates nothing. */
LJ_WARN_UNUSED lj_code lj_output_check(const char *path, const lj_restore_options *options,
                                       lj_error *err);
/* Makes the parents and the temporary file. `output` starts as LJ_OUTPUT_INIT and needs lj_output_close afterwards. */
LJ_WARN_UNUSED lj_code lj_output_open(lj_output *output, const char *path,
                                      const lj_restore_options *options, lj_error *err);
LJ_WARN_UNUSED lj_code lj_output_open_wal(lj_output *output, lj_error *err);
/* fsync, stale files away, rename without overwriting, fsync of the folder. LJ_EXISTS, and nothing is touched: somebody has the name now. */
LJ_WARN_UNUSED lj_code lj_output_publish(lj_output *output, lj_error *err);
/* For LJ_CLEANUP. */
void lj_output_close(lj_output *output);

#endif
