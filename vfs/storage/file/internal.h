/*
 * internal.h - what the parts of the file driver share. Not for other folders, except their tests.
 *
 * Layer: storage. Thread-safety: lj_file is constant but for `swept`, which `mutex` guards (rank: leaf; nothing
 * is called while it is held).
 */
#ifndef LJ_FILE_INTERNAL_H
#define LJ_FILE_INTERNAL_H

#include <pthread.h>
#include "vfs/storage/storage.h"

#define LJ_FILE_SWEPT_MAX 64u

typedef struct {
    char *root; /* absolute, clean */
    pthread_mutex_t mutex;
    /* hashes of the folders whose stale temporary files were looked for; a ring, so an old one may come again */
    uint64_t swept[LJ_FILE_SWEPT_MAX];
    size_t swept_count;
} lj_file;

/* Bytes per read or write of an object. */
#define LJ_FILE_CHUNK_BYTES ((size_t)128 * 1024)

/* The folder that a URL names, as file.h says; allocated. `rest` is what follows "file://". */
LJ_WARN_UNUSED lj_code lj_file_root(const char *rest, char **ret_root, lj_error *err);
/* ROOT/<key>, allocated; NULL when out of memory. */
char *lj_file_path(const lj_file *file, const char *key);
/* After ENOTDIR: the error when the root itself is no folder, LJ_OK when it is one or is missing. */
LJ_WARN_UNUSED lj_code lj_file_check_root(const lj_file *file, lj_error *err);
/*
 * After ENOENT or ENOTDIR for `path`: the same, and LJ_UNAVAILABLE when a link on the way to it leads nowhere. Behind one whose
 * target is not mounted there may be a replica.
 */
LJ_WARN_UNUSED lj_code lj_file_check_absent(const lj_file *file, const char *path, lj_error *err);
/* The error for such a link. */
lj_code lj_file_leads_nowhere(const char *path, lj_error *err);

/* True for the names that puts in progress have. */
bool lj_file_is_temp(const char *name);
/* The name of a new temporary file beside `name`, allocated. */
char *lj_file_temp_name(const char *name);
/* Removes temporary files in `folder` that were last touched more than a day before `now_ns`. Best effort. */
void lj_file_sweep(const char *folder, int64_t now_ns);

/* How a file gets a name that must be free; the next one is for file systems that do not have the one before. */
typedef enum {
    LJ_FILE_BY_RENAME, /* renameat2(RENAME_NOREPLACE) */
    LJ_FILE_BY_LINK,   /* link, then unlink of the temporary name */
    LJ_FILE_BY_LOCK, /* test and rename under a flock of the folder: atomic among processes of this machine */
} lj_file_way;
/*
 * Gives `temp` (in `folder`) the name `path` if that is free, beginning with `way`. On LJ_OK the
 * temporary name is gone. LJ_EXISTS: the name is taken, both files are untouched.
 */
LJ_WARN_UNUSED lj_code lj_file_publish_new(const char *temp, const char *path, const char *folder,
                                           lj_file_way way, lj_error *err);

/* The members of lj_storage_ops that have files of their own. */
LJ_WARN_UNUSED lj_code lj_file_put(void *self, const char *key, lj_source *source,
                                   const lj_storage_put_options *options, lj_error *err);
LJ_WARN_UNUSED lj_code lj_file_list(void *self, const char *prefix, const char *after,
                                    lj_storage_list_fn fn, void *ctx, lj_error *err);
LJ_WARN_UNUSED lj_code lj_file_delete_many(void *self, const char *const *keys, size_t count,
                                           lj_storage_delete_fn fn, void *ctx, lj_error *err);

#endif
