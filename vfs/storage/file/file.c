/*
 * file.c - see file.h: opening, reading, and the names of files.
 *
 * Layer: storage. Thread-safety: as storage.h. Invariants: an existing object's file is never written to, so a reader
 * that has it open sees it whole even when it is replaced or deleted meanwhile.
 */
#include "vfs/storage/file/file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vfs/base/io.h"
#include "vfs/base/str.h"
#include "vfs/storage/file/internal.h"
#include "vfs/storage/url.h"

/* ---- names ---- */

lj_code lj_file_root(const char *rest, char **ret_root, lj_error *err)
{
    for (const char *c = rest; *c != 0; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            return lj_error_set(err, LJ_INVALID, "the file:// URL has a control character");
    /* without a first folder there is nothing the URL could be absolute with: it is relative to where we are */
    bool relative = *rest == 0 || *rest == '?' || *rest == '#';
    char here[PATH_MAX] = "";
    if (relative && getcwd(here, sizeof(here)) == NULL)
        return lj_error_errno(err, errno, "cannot tell the current folder for a file:// URL");
    char *root = lj_str_printf("%s/%s", here, rest);
    if (root == NULL)
        return lj_error_nomem(err);
    lj_url_clean_path(root);
    if (root[0] == 0)
        memcpy(root, "/", 2); /* there was a '/' at least */
    *ret_root = root;
    return LJ_OK;
}

char *lj_file_path(const lj_file *file, const char *key)
{
    return lj_str_printf("%s/%s", strcmp(file->root, "/") == 0 ? "" : file->root, key);
}

lj_code lj_file_check_root(const lj_file *file, lj_error *err)
{
    struct stat st;
    if (stat(file->root, &st) != 0) {
        if (errno == ENOENT)
            return LJ_OK;
        if (errno != ENOTDIR)
            return lj_error_errno(err, errno, "cannot look at the replica folder %s", file->root);
        lj_error_set(err, LJ_INVALID, "a part of the replica folder's path %s is a file",
                     file->root);
    } else if (S_ISDIR(st.st_mode)) {
        return LJ_OK;
    } else {
        lj_error_set(err, LJ_INVALID, "the replica folder %s is a file", file->root);
    }
    (void)lj_error_hint(err, "name a folder in the file:// URL, or move that file away");
    return LJ_INVALID;
}

lj_code lj_file_leads_nowhere(const char *path, lj_error *err)
{
    lj_error_set(err, LJ_UNAVAILABLE, "%s is a link to something that is not there", path);
    (void)lj_error_hint(err, "mount what it leads to, or remove the link");
    return lj_error_retryable(err, true);
}

lj_code lj_file_check_absent(const lj_file *file, const char *path, lj_error *err)
{
    LJ_TRY(lj_file_check_root(file, err));
    LJ_CLEANUP(lj_freep) char *part = lj_str_dup(path);
    if (part == NULL)
        return lj_error_nomem(err);
    /* upwards to what is there */
    for (;;) {
        struct stat st;
        size_t len = strlen(part);
        while (len > 1 && part[len - 1] == '/')
            part[--len] = 0;
        if (lstat(part, &st) == 0)
            return S_ISLNK(st.st_mode) && stat(part, &st) != 0 && errno == ENOENT
                       ? lj_file_leads_nowhere(part, err)
                       : LJ_OK;
        if (!lj_str_cut_part(part))
            return LJ_OK;
    }
}

/* ---- get, head ---- */

static lj_code no_object(const lj_file *file, const char *path, lj_error *err)
{
    LJ_TRY(lj_file_check_absent(file, path, err));
    return lj_error_set(err, LJ_NOTFOUND, "there is no such object");
}

static lj_code read_range(int fd, uint64_t offset, int64_t length, lj_sink *sink, lj_error *err)
{
    uint64_t left = length < 0 ? UINT64_MAX : (uint64_t)length;
    LJ_CLEANUP(lj_freep) uint8_t *chunk = malloc(LJ_FILE_CHUNK_BYTES);
    if (chunk == NULL)
        return lj_error_nomem(err);
    while (left > 0) {
        size_t want = (size_t)LJ_MIN(left, (uint64_t)LJ_FILE_CHUNK_BYTES);
        size_t n = 0;
        LJ_TRY(lj_io_pread(fd, chunk, want, offset, &n, err));
        if (n > 0)
            LJ_TRY(sink->write(sink->ctx, chunk, n, err));
        if (n < want)
            break;
        offset += n;
        left -= n;
    }
    return LJ_OK;
}

static lj_code file_get(void *self, const char *key, uint64_t offset, int64_t length, lj_sink *sink,
                        lj_error *err)
{
    lj_file *file = self;
    LJ_CLEANUP(lj_freep) char *path = lj_file_path(file, key);
    if (path == NULL)
        return lj_error_nomem(err);
    /* O_NONBLOCK: a foreign pipe under that name must not hang us */
    LJ_CLEANUP(lj_closep) int fd = -1;
    lj_error why = LJ_ERROR_INIT;
    if (lj_io_open(path, O_RDONLY | O_NONBLOCK, 0, &fd, &why) != LJ_OK) {
        if (why.sys_errno == ENOENT || why.sys_errno == ENOTDIR)
            return no_object(file, path, err);
        if (err != NULL)
            *err = why;
        return why.code;
    }
    struct stat st;
    if (fstat(fd, &st) != 0)
        return lj_error_errno(err, errno, "cannot stat %s", path);
    if (!S_ISREG(st.st_mode) || lj_file_is_temp(lj_str_basename(path)))
        return no_object(file, path, err);
    return read_range(fd, offset, length, sink, err);
}

static lj_code file_head(void *self, const char *key, lj_storage_entry *ret_entry, lj_error *err)
{
    lj_file *file = self;
    LJ_CLEANUP(lj_freep) char *path = lj_file_path(file, key);
    if (path == NULL)
        return lj_error_nomem(err);
    struct stat st;
    if (stat(path, &st) != 0) {
        if (errno == ENOENT || errno == ENOTDIR)
            return no_object(file, path, err);
        return lj_error_errno(err, errno, "cannot stat %s", path);
    }
    if (!S_ISREG(st.st_mode) || lj_file_is_temp(lj_str_basename(path)))
        return no_object(file, path, err);
    ret_entry->size_bytes = (uint64_t)st.st_size;
    ret_entry->created_ns = (int64_t)st.st_mtim.tv_sec * LJ_NS_PER_S + st.st_mtim.tv_nsec;
    return LJ_OK;
}

/* ---- opening ---- */

static void file_close(void *self)
{
    lj_file *file = self;
    pthread_mutex_destroy(&file->mutex);
    free(file->root);
    free(file);
}

static const lj_storage_ops file_ops = {
    .name = "file",
    .features = LJ_STORAGE_IF_ABSENT | LJ_STORAGE_SET_TIME | LJ_STORAGE_SORTED_LIST,
    .put = lj_file_put,
    .get = file_get,
    .head = file_head,
    .list = lj_file_list,
    .delete_many = lj_file_delete_many,
    .close = file_close,
};

lj_code lj_file_open(const char *url, const lj_storage_options *options, lj_storage **ret_storage,
                     lj_error *err)
{
    (void)options;
    if (strncasecmp(url, "file://", 7) != 0)
        return lj_error_set(err, LJ_INVALID, "not a file:// URL");
    LJ_CLEANUP(lj_freep) char *root = NULL;
    LJ_TRY(lj_file_root(url + 7, &root, err));
    LJ_CLEANUP(lj_freep) char *display = lj_str_printf("file://%s", root);
    lj_file *file = calloc(1, sizeof(*file));
    if (display == NULL || file == NULL || pthread_mutex_init(&file->mutex, NULL) != 0) {
        free(file);
        return lj_error_nomem(err);
    }
    file->root = root;
    root = NULL;
    lj_code code = lj_storage_wrap(&file_ops, file, display, ret_storage, err);
    if (code != LJ_OK)
        file_close(file);
    return code;
}
