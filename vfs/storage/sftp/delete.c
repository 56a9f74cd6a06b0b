/*
 * delete.c - the SFTP driver's delete_many: in order, each one answered before the next is asked for, and without empty
 * folders left.
 *
 * Layer: storage. Thread-safety: as storage.h. A folder is removed with RMDIR only, which fails as soon as somebody's
 * unfinished put is in it; a put whose folder goes before that makes it again.
 */
#include <stdlib.h>
#include <string.h>

#include "vfs/base/str.h"
#include "vfs/storage/sftp/internal.h"

typedef struct {
    lj_sftp *sftp;
    lj_sftp_session *s;
    bool root_checked;
} deleting;

static lj_code delete_one(deleting *d, const char *path, lj_error *err)
{
    uint32_t status = 0;
    if (lj_sftp_is_temp(lj_str_basename(path)))
        return LJ_OK; /* not an object, so it is not there */
    LJ_TRY(lj_sftp_do_path(d->s, LJ_FXP_REMOVE, path, &status, err));
    if (status == LJ_FX_OK)
        return LJ_OK;
    if (status == LJ_FX_NO_SUCH_FILE) {
        if (!d->root_checked)
            LJ_TRY(lj_sftp_check_root(d->sftp, d->s, err));
        d->root_checked = true;
        return LJ_OK;
    }
    /* it may be a folder, which is no object */
    lj_fx_attrs attrs;
    uint32_t look = 0;
    LJ_TRY(lj_sftp_do_stat(d->s, LJ_FXP_LSTAT, path, &attrs, &look, err));
    if (look == LJ_FX_NO_SUCH_FILE || (look == LJ_FX_OK && lj_sftp_is_folder(&attrs)))
        return LJ_OK;
    return lj_sftp_status_error(status, "cannot delete", path, err);
}

/* Removes `folder` and its parents below the root as far as they are empty. Best effort. Changes `folder`. */
static void prune(deleting *d, char *folder)
{
    const char *root = d->sftp->root;
    size_t root_len = strcmp(root, "/") == 0 ? 0 : strlen(root);
    bool relative = root_len == 0 && root[0] == 0;
    lj_sftp_stale_delete(d->sftp, d->s); /* what dead processes left must not keep it for ever */
    while (!d->s->broken && strlen(folder) > root_len + (relative ? 0 : 1) &&
           strcmp(folder, ".") != 0) {
        uint32_t status = 0;
        if (lj_sftp_do_path(d->s, LJ_FXP_RMDIR, folder, &status, NULL) != LJ_OK ||
            (status != LJ_FX_OK && status != LJ_FX_NO_SUCH_FILE))
            return;
        char *slash = strrchr(folder, '/');
        if (slash == NULL)
            return;
        *slash = 0;
    }
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

static lj_code delete_all(deleting *d, const char *const *keys, size_t count,
                          lj_storage_delete_fn fn, void *ctx, lj_error *err)
{
    LJ_CLEANUP(lj_freep) char *folder = NULL;
    lj_error why = LJ_ERROR_INIT;
    lj_code code = LJ_OK;
    size_t i = 0;
    for (; i < count && code == LJ_OK; i++) {
        LJ_CLEANUP(lj_freep) char *path = lj_sftp_path(d->sftp, keys[i]);
        LJ_CLEANUP(lj_freep) char *parent = path != NULL ? lj_str_dirname(path) : NULL;
        if (parent == NULL)
            code = lj_error_nomem(&why);
        else if (folder == NULL || strcmp(folder, parent) != 0) {
            if (folder != NULL)
                prune(d, folder);
            free(folder);
            folder = parent;
            parent = NULL;
        }
        if (code == LJ_OK && path != NULL)
            code = delete_one(d, path, &why);
        fn(ctx, keys[i], code == LJ_OK ? NULL : &why);
    }
    refuse_rest(keys, i, count, fn, ctx);
    if (folder != NULL)
        prune(d, folder);
    if (code != LJ_OK && err != NULL)
        *err = why;
    return code;
}

lj_code lj_sftp_delete_many(void *self, const char *const *keys, size_t count,
                            lj_storage_delete_fn fn, void *ctx, lj_error *err)
{
    deleting d = {.sftp = self};
    LJ_TRY(lj_sftp_take(d.sftp, &d.s, err));
    lj_code code = delete_all(&d, keys, count, fn, ctx, err);
    lj_sftp_give(d.sftp, d.s);
    return code;
}
