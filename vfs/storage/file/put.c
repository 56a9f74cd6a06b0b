/*
 * put.c - the file driver's put: hidden file, fsync, final name, fsync of the folder.
 *
 * Layer: storage. Thread-safety: any number of puts at once, of this and other processes.
 * Invariants: nothing is ever written under a final name; a failed put leaves neither object nor temporary file (a
 * killed process may leave the latter, which the next put into that folder by another driver object sweeps away).
 * A temporary file is flocked while it is being written; one that nobody holds belongs to nobody.
 */
#include "vfs/storage/file/internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vfs/base/clock.h"
#include "vfs/base/io.h"
#include "vfs/base/str.h"

#define FOLDER_MODE 0700
#define FILE_MODE   0600
#define STALE_NS    (INT64_C(24) * 3600 * LJ_NS_PER_S)
/* how often a put makes its folder again that a deletion removes under it */
#define FOLDER_TRIES 100
/* so little that an fsync of somebody else is hardly longer for it: measured, 512 KiB are too much */
#define PIECE_BYTES (UINT64_C(256) << 10)
#define NO_PIECES   UINT64_MAX

/* ---- temporary names ---- */

#define TEMP_SUFFIX         ".tmp"
#define TEMP_DIGITS         16u
#define TEMP_TAIL           (1u + TEMP_DIGITS + sizeof(TEMP_SUFFIX) - 1) /* ".<digits>.tmp" */
#define FILE_NAME_BYTES_MAX 255u

bool lj_file_is_temp(const char *name)
{
    size_t len = strlen(name);
    if (name[0] != '.' || len < 1 + TEMP_TAIL)
        return false;
    const char *tail = name + len - TEMP_TAIL;
    uint64_t ignored = 0;
    return tail[0] == '.' && lj_str_hex(tail + 1, TEMP_DIGITS, &ignored) &&
           strcmp(tail + 1 + TEMP_DIGITS, TEMP_SUFFIX) == 0;
}

char *lj_file_temp_name(const char *name)
{
    uint64_t random = 0;
    lj_io_random(&random, sizeof(random));
    return lj_str_printf(".%.*s.%016llx" TEMP_SUFFIX, (int)(FILE_NAME_BYTES_MAX - 1 - TEMP_TAIL),
                         name, (unsigned long long)random);
}

/*
 * Removes a temporary file that nobody is writing: its lock is free, or, where files cannot be locked, a day has passed.
 * The lock is held until the name is gone, so that a put that is just claiming the file notices.
 */
static void remove_abandoned(int dir_fd, const char *name, const struct stat *st, int64_t now_ns)
{
    LJ_CLEANUP(lj_closep) int fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return;
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        /* ctime, because a put sets mtime to the object's time just before it gives it its name */
        int64_t touched = (int64_t)st->st_ctim.tv_sec * LJ_NS_PER_S;
        if (errno == EWOULDBLOCK || now_ns - touched <= STALE_NS)
            return;
    }
    (void)unlinkat(dir_fd, name, 0);
}

void lj_file_sweep(const char *folder, int64_t now_ns)
{
    DIR *dir = opendir(folder);
    if (dir == NULL)
        return;
    for (struct dirent *entry = readdir(dir); entry != NULL; entry = readdir(dir)) {
        struct stat st;
        if (!lj_file_is_temp(entry->d_name) ||
            fstatat(dirfd(dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0 ||
            !S_ISREG(st.st_mode))
            continue;
        remove_abandoned(dirfd(dir), entry->d_name, &st, now_ns);
    }
    closedir(dir);
}

/* Sweeps a folder when this driver puts into it for the first time. */
static void sweep_once(lj_file *file, const char *folder)
{
    uint64_t hash = UINT64_C(14695981039346656037); /* FNV-1a */
    for (const char *c = folder; *c != 0; c++)
        hash = (hash ^ (uint8_t)*c) * UINT64_C(1099511628211);
    pthread_mutex_lock(&file->mutex);
    bool known = false;
    for (size_t i = 0; i < LJ_MIN(file->swept_count, (size_t)LJ_FILE_SWEPT_MAX); i++)
        known = known || file->swept[i] == hash;
    if (!known)
        file->swept[file->swept_count++ % LJ_FILE_SWEPT_MAX] = hash;
    pthread_mutex_unlock(&file->mutex);
    if (!known)
        lj_file_sweep(folder, lj_clock_wall_ns());
}

/* A temporary file that is removed unless it got its name. */
typedef struct {
    char *path; /* NULL: there is no such file (any more) */
    int fd;
} temp_file;

static void temp_discard(temp_file *temp)
{
    if (temp->path != NULL)
        (void)unlink(temp->path);
    free(temp->path);
    lj_closep(&temp->fd);
}

/* The parent of a new file is a file itself: the root, or another object. */
static lj_code not_a_folder(const lj_file *file, const char *folder, lj_error *err)
{
    LJ_TRY(lj_file_check_root(file, err));
    return lj_error_set(err, LJ_INVALID, "cannot use %s as a folder: a part of that path is a file",
                        folder);
}

/* Locks a new temporary file. false: a sweep took it for abandoned in the moment before. */
static bool claim(int fd)
{
    struct stat st;
    if (flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)
        return false;
    return fstat(fd, &st) != 0 || st.st_nlink > 0;
}

static lj_code temp_create(const lj_file *file, const char *folder, const char *name,
                           temp_file *temp, lj_error *err)
{
    lj_error why = LJ_ERROR_INIT;
    for (int i = 0; i < FOLDER_TRIES; i++) {
        LJ_CLEANUP(lj_freep) char *temp_name = lj_file_temp_name(name);
        LJ_CLEANUP(lj_freep)
        char *path = temp_name != NULL ? lj_str_printf("%s/%s", folder, temp_name) : NULL;
        if (path == NULL)
            return lj_error_nomem(err);
        if (lj_io_open(path, O_WRONLY | O_CREAT | O_EXCL, FILE_MODE, &temp->fd, &why) == LJ_OK) {
            if (!claim(temp->fd)) {
                (void)unlink(path);
                lj_closep(&temp->fd);
                continue;
            }
            temp->path = path;
            path = NULL;
            return LJ_OK;
        }
        if (why.sys_errno == ENOENT && lj_io_mkdirs(folder, FOLDER_MODE, &why) == LJ_OK)
            continue;
        /* ENOENT from mkdirs: a deletion took a parent away meanwhile; EEXIST: the name is taken */
        if (why.sys_errno != ENOENT && why.sys_errno != EEXIST)
            break;
    }
    if (why.sys_errno == ENOTDIR)
        return not_a_folder(file, folder, err);
    if (why.sys_errno == ENOENT)
        LJ_TRY(lj_file_check_absent(file, folder, err));
    if (err != NULL)
        *err = why;
    return why.code;
}

/* ---- content ---- */

/*
 * What is written of a large object goes to the disk piece by piece, and not all at once in its fsync: a commit of the application
 * that syncs meanwhile, on the same disk, would wait for all of it. The fsync at the end is the one that makes it durable. But a
 * write that failed is told once: where the wait for a piece tells it, that fsync does not any more.
 */
static lj_code write_out(int fd, uint64_t end, uint64_t *written_out, lj_error *err)
{
#ifdef __linux__
    if (*written_out == NO_PIECES || end - *written_out < PIECE_BYTES)
        return LJ_OK;
    off_t start = (off_t)*written_out;
    off_t before = start - (off_t)PIECE_BYTES;
    if (start > 0 &&
        sync_file_range(fd, before, (off_t)PIECE_BYTES, SYNC_FILE_RANGE_WAIT_BEFORE) != 0)
        return lj_error_errno(err, errno, "cannot write %" PRIu64 " bytes to the disk", end);
    /* not every system lets us; what fails here is told by the wait, or by the fsync */
    bool begun = sync_file_range(fd, start, (off_t)end - start, SYNC_FILE_RANGE_WRITE) == 0;
    *written_out = begun || start > 0 ? end : NO_PIECES;
#else
    (void)fd;
    (void)end;
    (void)written_out;
    (void)err;
#endif
    return LJ_OK;
}

static lj_code write_content(const temp_file *temp, lj_source *source, int64_t created_ns,
                             lj_error *err)
{
    LJ_CLEANUP(lj_freep) uint8_t *chunk = malloc(LJ_FILE_CHUNK_BYTES);
    if (chunk == NULL)
        return lj_error_nomem(err);
    uint64_t end = 0;
    uint64_t written_out = 0;
    for (;;) {
        size_t n = 0;
        LJ_TRY(source->read(source->ctx, chunk, LJ_FILE_CHUNK_BYTES, &n, err));
        if (n == 0)
            break;
        lj_code code = lj_io_write(temp->fd, chunk, n, err);
        if (code != LJ_OK) {
            (void)lj_error_context(err, "%s", temp->path);
            return code;
        }
        end += n;
        code = write_out(temp->fd, end, &written_out, err);
        if (code != LJ_OK) {
            (void)lj_error_context(err, "%s", temp->path);
            return code;
        }
    }
    if (created_ns != 0) {
        int64_t seconds = created_ns / LJ_NS_PER_S - (created_ns % LJ_NS_PER_S < 0);
        struct timespec time = {.tv_sec = (time_t)seconds,
                                .tv_nsec = (long)(created_ns - seconds * LJ_NS_PER_S)};
        const struct timespec times[2] = {time, time};
        if (futimens(temp->fd, times) != 0)
            return lj_error_errno(err, errno, "cannot set the time of %s", temp->path);
    }
    lj_code code = lj_io_fsync(temp->fd, err);
    if (code != LJ_OK)
        (void)lj_error_context(err, "%s", temp->path);
    return code;
}

/* ---- the final name ---- */

static int lock_and_rename(const char *folder, const char *from, const char *to)
{
    LJ_CLEANUP(lj_closep) int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    int rc;
    do {
        rc = flock(fd, LOCK_EX);
    } while (rc != 0 && errno == EINTR);
    if (rc != 0)
        return -1;
    struct stat st;
    if (lstat(to, &st) == 0) {
        errno = EEXIST;
        return -1;
    }
    return errno == ENOENT ? rename(from, to) : -1;
}

static lj_code already_there(lj_error *err)
{
    return lj_error_set(err, LJ_EXISTS, "the object is already there");
}

lj_code lj_file_publish_new(const char *temp, const char *path, const char *folder, lj_file_way way,
                            lj_error *err)
{
    bool cannot = way == LJ_FILE_BY_LOCK;
    int rc = cannot ? -1 : lj_io_take_name(temp, path, way == LJ_FILE_BY_LINK, &cannot);
    if (cannot)
        rc = lock_and_rename(folder, temp, path);
    if (rc == 0)
        return LJ_OK;
    if (errno == EEXIST)
        return already_there(err);
    return lj_error_errno(err, errno, "cannot give %s its name", path);
}

/* Makes the new name durable. When that fails nobody knows whether it is: a name that was free is freed again. */
static lj_code sync_folder(const char *folder, const char *path, bool was_free, lj_error *err)
{
    lj_code code = lj_io_fsync_dir(folder, err);
    if (code == LJ_OK || !was_free || unlink(path) == 0)
        return code;
    if (err != NULL) /* it is not a failure that says that there is no object */
        err->code = LJ_UNAVAILABLE;
    (void)lj_error_retryable(err, true);
    return LJ_UNAVAILABLE;
}

/* Spares the upload when the answer is known; the real decision is the one of lj_file_publish_new. */
static lj_code check_absent(const char *path, lj_error *err)
{
    struct stat st;
    return lstat(path, &st) == 0 ? already_there(err) : LJ_OK;
}

static lj_code put_into(lj_file *file, const char *path, const char *folder, lj_source *source,
                        const lj_storage_put_options *options, lj_error *err)
{
    LJ_CLEANUP(temp_discard) temp_file temp = {.path = NULL, .fd = -1};
    if (options->if_absent)
        LJ_TRY(check_absent(path, err));
    LJ_TRY(temp_create(file, folder, lj_str_basename(path), &temp, err));
    sweep_once(file, folder);
    LJ_TRY(write_content(&temp, source, options->created_ns, err));
    if (options->if_absent)
        LJ_TRY(lj_file_publish_new(temp.path, path, folder, LJ_FILE_BY_RENAME, err));
    else if (rename(temp.path, path) != 0)
        return lj_error_errno(err, errno, "cannot rename %s to %s", temp.path, path);
    free(temp.path);
    temp.path = NULL;
    return sync_folder(folder, path, options->if_absent, err);
}

lj_code lj_file_put(void *self, const char *key, lj_source *source,
                    const lj_storage_put_options *options, lj_error *err)
{
    lj_file *file = self;
    LJ_CLEANUP(lj_freep) char *path = lj_file_path(file, key);
    LJ_CLEANUP(lj_freep) char *folder = path != NULL ? lj_str_dirname(path) : NULL;
    if (folder == NULL)
        return lj_error_nomem(err);
    if (lj_file_is_temp(lj_str_basename(path)))
        return lj_error_set(err, LJ_INVALID, "names of this form are kept for unfinished uploads");
    lj_code code = put_into(file, path, folder, source, options, err);
    /* who gave it its name may have been killed before the name was durable, and it is relied on from now on */
    lj_error why = LJ_ERROR_INIT;
    if (code == LJ_EXISTS && lj_io_fsync_dir(folder, &why) != LJ_OK) {
        code = why.code;
        if (err != NULL)
            *err = why;
    }
    return code;
}
