/*
 * output.c - see output.h.
 *
 * Layer: restore. Thread-safety: one owner.
 */
#include "vfs/restore/output.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "vfs/base/io.h"
#include "vfs/base/log.h"
#include "vfs/base/str.h"
#include "vfs/restore/temp.h"

static const char *const companions[] = {"-wal", "-shm", "-journal"};

static lj_code check_companions(const char *path, lj_error *err)
{
    for (size_t i = 0; i < LJ_ARRAY_LEN(companions); i++) {
        LJ_CLEANUP(lj_freep) char *name = lj_str_printf("%s%s", path, companions[i]);
        struct stat st;
        if (name == NULL)
            return lj_error_nomem(err);
        if (lstat(name, &st) != 0)
            continue;
        lj_error_set(err, LJ_EXISTS,
                     "cannot restore, %s exists: SQLite would apply it to the restored database",
                     name);
        return lj_error_hint(err, "it is left over from a database that is gone; move it away or "
                                  "remove it, then restore again");
    }
    return LJ_OK;
}

/* Nothing was ever written into it: a file that may be replaced. */
static bool is_empty_file(const struct stat *st)
{
    return S_ISREG(st->st_mode) && st->st_size == 0;
}

static lj_code taken(const char *path, lj_error *err)
{
    return lj_error_set(err, LJ_EXISTS, "cannot restore, output path already exists: %s", path);
}

lj_code lj_output_check(const char *path, const lj_restore_options *options, lj_error *err)
{
    struct stat st;
    if (path == NULL || path[0] == 0)
        return lj_error_set(err, LJ_INVALID, "output path required");
    if (lstat(path, &st) == 0) {
        if (!options->overwrite_empty || !is_empty_file(&st)) {
            taken(path, err);
            return lj_error_hint(err, "a restore never overwrites; name another file with -o, or "
                                      "move this one away");
        }
    } else if (errno != ENOENT) {
        return lj_error_errno(err, errno, "cannot look at %s", path);
    }
    return options->remove_stale_wal ? LJ_OK : check_companions(path, err);
}

lj_code lj_output_open(lj_output *output, const char *path, const lj_restore_options *options,
                       lj_error *err)
{
    LJ_TRY(lj_output_check(path, options, err));
    output->path = path;
    output->remove_stale = options->remove_stale_wal;
    output->overwrite_empty = options->overwrite_empty;
    output->dir = lj_str_dirname(path);
    if (output->dir == NULL)
        return lj_error_nomem(err);
    LJ_TRY(lj_io_mkdirs(output->dir, 0700, err));
    lj_temp_sweep(path, options->locked);
    if (!options->locked)
        output->dir_fd = lj_temp_lock_folder(output->dir);
    mode_t mode = options->mode != 0 ? options->mode : 0600;
    LJ_TRY(lj_temp_create(path, mode, &output->db_fd, &output->temp, err));
    if (options->mode != 0 && fchmod(output->db_fd, options->mode) != 0)
        return lj_error_errno(err, errno, "cannot set the mode of %s", output->temp);
    return LJ_OK;
}

lj_code lj_output_open_wal(lj_output *output, lj_error *err)
{
    if (lj_io_open(output->dir, O_TMPFILE | O_RDWR, 0600, &output->wal_fd, NULL) == LJ_OK)
        return LJ_OK;
    LJ_CLEANUP(lj_freep) char *name = lj_str_printf("%s-wal", output->temp);
    if (name == NULL)
        return lj_error_nomem(err);
    LJ_TRY(lj_io_open(name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, 0600, &output->wal_fd, err));
    if (unlink(name) != 0)
        return lj_error_errno(err, errno, "cannot unlink %s", name);
    return LJ_OK;
}

/*
 * Durably, before the restored file has its name: a power cut must not leave a WAL of the lost database beside it, and not every
 * file system keeps two changes of names in order.
 */
static lj_code remove_companions(const char *path, const char *dir, lj_error *err)
{
    bool removed = false;
    for (size_t i = 0; i < LJ_ARRAY_LEN(companions); i++) {
        LJ_CLEANUP(lj_freep) char *name = lj_str_printf("%s%s", path, companions[i]);
        if (name == NULL)
            return lj_error_nomem(err);
        if (unlink(name) == 0)
            removed = true;
        else if (errno != ENOENT)
            return lj_error_errno(err, errno, "cannot remove the stale %s", name);
    }
    return removed ? lj_io_fsync_dir(dir, err) : LJ_OK;
}

/* Who created a database under this name while it was being restored keeps it, and the files beside it are that one's. */
static lj_code still_free(const lj_output *output, lj_error *err)
{
    struct stat st;
    if (lstat(output->path, &st) != 0 || (output->overwrite_empty && is_empty_file(&st)))
        return LJ_OK;
    return taken(output->path, err);
}

/* Without a descriptor, whose closing would drop locks: somebody in this process may open the empty file at once. */
static int rename_over_own(const char *from, const char *to)
{
    if (mknod(to, S_IFREG | 0600, 0) != 0)
        return -1;
    if (rename(from, to) == 0)
        return 0;
    int why = errno;
    unlink(to);
    errno = why;
    return -1;
}

static int take_free_name(const char *from, const char *to)
{
    bool cannot = false;
    int rc = lj_io_take_name(from, to, false, &cannot);
    return cannot ? rename_over_own(from, to) : rc;
}

/* Gives the file its name; whoever created that name meanwhile keeps it. */
static lj_code rename_new(const lj_output *output, lj_error *err)
{
    struct stat st;
    bool replace = output->overwrite_empty && lstat(output->path, &st) == 0 && is_empty_file(&st);
    int rc =
        replace ? rename(output->temp, output->path) : take_free_name(output->temp, output->path);
    if (rc == 0)
        return LJ_OK;
    if (errno == EEXIST)
        return taken(output->path, err);
    return lj_error_errno(err, errno, "cannot rename %s to %s", output->temp, output->path);
}

lj_code lj_output_publish(lj_output *output, lj_error *err)
{
    struct stat st;
    if (lj_io_fsync(output->db_fd, err) != LJ_OK)
        return lj_error_context(err, "%s", output->temp);
    if (fstat(output->db_fd, &st) != 0)
        return lj_error_errno(err, errno, "cannot stat %s", output->temp);
    output->inode = st.st_ino;
    output->mtime_ns = (int64_t)st.st_mtim.tv_sec * LJ_NS_PER_S + st.st_mtim.tv_nsec;
    lj_closep(&output->db_fd);
    LJ_TRY(still_free(output, err));
    LJ_TRY(output->remove_stale ? remove_companions(output->path, output->dir, err)
                                : check_companions(output->path, err));
    LJ_TRY(rename_new(output, err));
    free(output->temp);
    output->temp = NULL;
    lj_code code = lj_io_fsync_dir(output->dir, err);
    if (code == LJ_OK)
        return LJ_OK;
    if (!output->remove_stale) {
        unlink(output->path);
        return code;
    }
    /*
     * On open somebody else may have found the file already. What it holds is on the disk; if a power cut takes the name away, it
     * is restored once more.
     */
    lj_log_error(LJ_LOG_WARN, output->path, err);
    lj_error_clear(err);
    return LJ_OK;
}

void lj_output_close(lj_output *output)
{
    lj_closep(&output->db_fd);
    lj_closep(&output->wal_fd);
    if (output->temp != NULL)
        unlink(output->temp);
    lj_closep(&output->dir_fd);
    free(output->temp);
    free(output->dir);
    output->temp = NULL;
    output->dir = NULL;
}
