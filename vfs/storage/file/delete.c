/*
 * delete.c - the file driver's delete_many: in order, durable folder by folder (and index by index), and without empty folders left.
 *
 * Layer: storage. Thread-safety: as storage.h. A folder is removed with rmdir only, which fails as soon as somebody's
 * unfinished put is in it; a put whose folder goes before that makes it again.
 */
#include "vfs/storage/file/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vfs/base/clock.h"
#include "vfs/base/io.h"
#include "vfs/base/str.h"
#include "vfs/storage/order.h"

static lj_code delete_one(const lj_file *file, const char *path, bool *ret_deleted, lj_error *err)
{
    if (lj_file_is_temp(lj_str_basename(path)))
        return LJ_OK; /* not an object, so it is not there */
    if (unlink(path) == 0) {
        *ret_deleted = true;
        return LJ_OK;
    }
    int why = errno;
    struct stat st;
    if (why == ENOENT || why == EISDIR ||
        (why == EPERM && lstat(path, &st) == 0 && S_ISDIR(st.st_mode)))
        return LJ_OK;
    if (why == ENOTDIR)
        return lj_file_check_root(file, err);
    return lj_error_errno(err, why, "cannot delete %s", path);
}

/* Removes `folder` and its parents below the root as far as they are empty. Best effort. Changes `folder`. */
static void prune(const lj_file *file, char *folder)
{
    size_t root_len = strcmp(file->root, "/") == 0 ? 0 : strlen(file->root);
    while (strlen(folder) > root_len + 1) {
        if (rmdir(folder) != 0 && errno != ENOENT) {
            if (errno != ENOTEMPTY && errno != EEXIST)
                return;
            lj_file_sweep(
                folder,
                lj_clock_wall_ns()); /* what a dead process left must not keep it for ever */
            if (rmdir(folder) != 0)
                return;
        }
        *strrchr(folder, '/') = 0;
    }
}

static lj_code sync_deletions(const char *folder, bool deleted, lj_error *err)
{
    lj_error why = LJ_ERROR_INIT;
    if (!deleted || lj_io_fsync_dir(folder, &why) == LJ_OK || why.sys_errno == ENOENT)
        return LJ_OK;
    if (err != NULL)
        *err = why;
    return why.code;
}

/* Called when the deletions in `folder` are through. */
static lj_code leave_folder(const lj_file *file, char *folder, bool deleted, lj_error *err)
{
    /* before the next folder's deletions, so that a power cut does not turn their order around */
    LJ_TRY(sync_deletions(folder, deleted, err));
    prune(file, folder);
    return LJ_OK;
}

static void refuse_rest(const char *const *keys, size_t from, size_t count, lj_storage_delete_fn fn,
                        void *ctx)
{
    lj_error err = LJ_ERROR_INIT;
    lj_error_set(&err, LJ_CANCELLED, "not deleted, because an earlier one in order was not");
    (void)lj_error_retryable(&err, true);
    for (size_t i = from; i < count; i++)
        fn(ctx, keys[i], &err);
}

lj_code lj_file_delete_many(void *self, const char *const *keys, size_t count,
                            lj_storage_delete_fn fn, void *ctx, lj_error *err)
{
    lj_file *file = self;
    LJ_CLEANUP(lj_freep) char *folder = NULL;
    bool deleted = false;
    lj_error why = LJ_ERROR_INIT;
    lj_code code = LJ_OK;
    size_t i = 0;
    for (; i < count && code == LJ_OK; i++) {
        LJ_CLEANUP(lj_freep) char *path = lj_file_path(file, keys[i]);
        LJ_CLEANUP(lj_freep) char *parent = path != NULL ? lj_str_dirname(path) : NULL;
        bool other = parent == NULL || folder == NULL || strcmp(folder, parent) != 0;
        if (parent == NULL)
            code = lj_error_nomem(&why);
        else if (folder != NULL && other)
            code = leave_folder(file, folder, deleted, &why);
        if (code == LJ_OK && other) {
            free(folder);
            folder = parent;
            parent = NULL;
            deleted = false;
        }
        if (code == LJ_OK && lj_order_ends_a_fall(keys, i, count))
            code = sync_deletions(folder, deleted, &why);
        if (code == LJ_OK && path != NULL)
            code = delete_one(file, path, &deleted, &why);
        fn(ctx, keys[i], code == LJ_OK ? NULL : &why);
    }
    refuse_rest(keys, i, count, fn, ctx);
    if (folder != NULL) {
        lj_error last = LJ_ERROR_INIT;
        lj_code last_code = leave_folder(file, folder, deleted, &last);
        if (code == LJ_OK) {
            code = last_code;
            why = last;
        }
    }
    if (code != LJ_OK && err != NULL)
        *err = why;
    return code;
}
