/*
 * io.c - see io.h.
 */
#include "vfs/base/io.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "vfs/base/clock.h"
#include "vfs/base/str.h"

#define STDIO_LAST 2

/*
 * Where the host has closed its standard output or error, a file would get their number, and what the host or a library of its prints
 * would go into it. SQLite keeps away from them likewise.
 */
int lj_io_above_stdio(int fd)
{
    if (fd < 0 || fd > STDIO_LAST)
        return fd;
    int above = fcntl(fd, F_DUPFD_CLOEXEC, STDIO_LAST + 1);
    int saved = errno;
    close(fd);
    errno = saved;
    return above;
}

lj_code lj_io_open(const char *path, int flags, mode_t mode, int *ret_fd, lj_error *err)
{
    int fd;
    do {
        fd = lj_io_above_stdio(open(path, flags | O_CLOEXEC, mode));
    } while (fd < 0 && errno == EINTR);
    if (fd < 0)
        return lj_error_errno(err, errno, "cannot open %s", path);
    *ret_fd = fd;
    return LJ_OK;
}

lj_code lj_io_open_unlinked(const char *dir, const char *name, int *ret_fd, lj_error *err)
{
    LJ_CLEANUP(lj_freep) char *path = lj_str_printf("%s/%s.tmp", dir, name);
    if (path == NULL)
        return lj_error_nomem(err);
    LJ_TRY(lj_io_open(path, O_RDWR | O_CREAT | O_TRUNC, 0600, ret_fd, err));
    unlink(path);
    return LJ_OK;
}

lj_code lj_io_pread(int fd, void *data, size_t len, uint64_t off, size_t *ret_n, lj_error *err)
{
    size_t done = 0;
    while (done < len) {
        ssize_t n = pread(fd, (char *)data + done, len - done, (off_t)(off + done));
        if (n < 0) {
            if (errno == EINTR)
                continue;
            return lj_error_errno(err, errno, "cannot read %zu bytes at offset %llu", len,
                                  (unsigned long long)off);
        }
        if (n == 0)
            break;
        done += (size_t)n;
    }
    *ret_n = done;
    return LJ_OK;
}

lj_code lj_io_read(int fd, void *data, size_t len, size_t *ret_n, lj_error *err)
{
    size_t done = 0;
    while (done < len) {
        ssize_t n = read(fd, (char *)data + done, len - done);
        if (n < 0) {
            if (errno == EINTR)
                continue;
            return lj_error_errno(err, errno, "cannot read %zu bytes", len);
        }
        if (n == 0)
            break;
        done += (size_t)n;
    }
    *ret_n = done;
    return LJ_OK;
}

lj_code lj_io_write(int fd, const void *data, size_t len, lj_error *err)
{
    size_t done = 0;
    while (done < len) {
        ssize_t n = write(fd, (const char *)data + done, len - done);
        if (n < 0) {
            if (errno == EINTR)
                continue;
            return lj_error_errno(err, errno, "cannot write %zu bytes", len);
        }
        done += (size_t)n;
    }
    return LJ_OK;
}

lj_code lj_io_pwrite(int fd, const void *data, size_t len, uint64_t off, lj_error *err)
{
    size_t done = 0;
    while (done < len) {
        ssize_t n = pwrite(fd, (const char *)data + done, len - done, (off_t)(off + done));
        if (n < 0) {
            if (errno == EINTR)
                continue;
            return lj_error_errno(err, errno, "cannot write %zu bytes at offset %llu", len,
                                  (unsigned long long)off);
        }
        done += (size_t)n;
    }
    return LJ_OK;
}

lj_code lj_io_fsync(int fd, lj_error *err)
{
    int rc;
    do {
        rc = fsync(fd);
    } while (rc != 0 && errno == EINTR);
    if (rc != 0)
        return lj_error_errno(err, errno, "fsync failed");
    return LJ_OK;
}

lj_code lj_io_fsync_dir(const char *dir, lj_error *err)
{
    LJ_CLEANUP(lj_closep) int fd = -1;
    LJ_TRY(lj_io_open(dir, O_RDONLY | O_DIRECTORY, 0, &fd, err));
    /* some network file systems cannot fsync a folder; there is nothing better to do there */
    if (fsync(fd) != 0 && errno != EINVAL && errno != ENOTSUP)
        return lj_error_errno(err, errno, "cannot fsync folder %s", dir);
    return LJ_OK;
}

static lj_code fsync_parent(const char *dir, lj_error *err)
{
    LJ_CLEANUP(lj_freep) char *parent = lj_str_dirname(dir);
    if (parent == NULL)
        return lj_error_nomem(err);
    return lj_io_fsync_dir(parent, err);
}

lj_code lj_io_mkdirs(const char *dir, mode_t mode, lj_error *err)
{
    struct stat st;
    if (stat(dir, &st) == 0) {
        if (S_ISDIR(st.st_mode))
            return LJ_OK;
        return lj_error_errno(err, ENOTDIR, "cannot use %s as a folder", dir);
    }
    if (errno != ENOENT)
        return lj_error_errno(err, errno, "cannot create folder %s", dir);
    if (strchr(dir, '/') != NULL) {
        LJ_CLEANUP(lj_freep) char *parent = lj_str_dirname(dir);
        if (parent == NULL)
            return lj_error_nomem(err);
        LJ_TRY(lj_io_mkdirs(parent, mode, err));
    }
    if (mkdir(dir, mode) != 0 && errno != EEXIST)
        return lj_error_errno(err, errno, "cannot create folder %s", dir);
    return fsync_parent(dir, err);
}

/* Whatever comes from a pipe or device: its size is known at its end only. */
static lj_code read_to_end(int fd, const char *path, size_t max_bytes, char **ret_data,
                           size_t *ret_len, lj_error *err)
{
    LJ_CLEANUP(lj_freep) char *data = NULL;
    size_t capacity = 0;
    size_t n = 0;
    do {
        capacity = LJ_MIN(LJ_MAX(2 * capacity, (size_t)4096), max_bytes + 1);
        char *more = realloc(data, capacity + 1);
        if (more == NULL)
            return lj_error_nomem(err);
        data = more;
        size_t got = 0;
        if (lj_io_read(fd, data + n, capacity - n, &got, err) != LJ_OK)
            return lj_error_context(err, "%s", path);
        n += got;
        if (n > max_bytes)
            return lj_error_set(err, LJ_INVALID, "%s is larger than the allowed %zu bytes", path,
                                max_bytes);
    } while (n == capacity);
    data[n] = 0;
    *ret_data = data;
    *ret_len = n;
    data = NULL;
    return LJ_OK;
}

lj_code lj_io_read_file(const char *path, size_t max_bytes, char **ret_data, size_t *ret_len,
                        lj_error *err)
{
    LJ_CLEANUP(lj_closep) int fd = -1;
    LJ_TRY(lj_io_open(path, O_RDONLY, 0, &fd, err));
    struct stat st;
    if (fstat(fd, &st) != 0)
        return lj_error_errno(err, errno, "cannot stat %s", path);
    if (S_ISDIR(st.st_mode))
        return lj_error_errno(err, EISDIR, "cannot read %s", path);
    if (!S_ISREG(st.st_mode))
        return read_to_end(fd, path, max_bytes, ret_data, ret_len, err);
    if (st.st_size < 0 || (uint64_t)st.st_size > max_bytes)
        return lj_error_set(err, LJ_INVALID, "%s is larger than the allowed %zu bytes", path,
                            max_bytes);
    size_t size = (size_t)st.st_size;
    LJ_CLEANUP(lj_freep) char *data = malloc(size + 1);
    if (data == NULL)
        return lj_error_nomem(err);
    size_t n = 0;
    if (lj_io_read(fd, data, size, &n, err) != LJ_OK)
        return lj_error_context(err, "%s", path);
    data[n] = 0;
    *ret_data = data;
    *ret_len = n;
    data = NULL;
    return LJ_OK;
}

static lj_code write_temp(const char *temp, const void *data, size_t len, mode_t mode, bool durable,
                          lj_error *err)
{
    LJ_CLEANUP(lj_closep) int fd = -1;
    LJ_TRY(lj_io_open(temp, O_WRONLY | O_CREAT | O_TRUNC, mode, &fd, err));
    LJ_TRY(lj_io_write(fd, data, len, err));
    if (durable)
        LJ_TRY(lj_io_fsync(fd, err));
    return LJ_OK;
}

lj_code lj_io_replace_file(const char *path, const void *data, size_t len, mode_t mode,
                           bool durable, lj_error *err)
{
    LJ_CLEANUP(lj_freep) char *temp = lj_str_printf("%s.tmp", path);
    if (temp == NULL)
        return lj_error_nomem(err);
    lj_code code = write_temp(temp, data, len, mode, durable, err);
    if (code == LJ_OK && rename(temp, path) != 0)
        code = lj_error_errno(err, errno, "cannot rename %s to %s", temp, path);
    if (code != LJ_OK) {
        unlink(temp);
        return code;
    }
    return durable ? fsync_parent(path, err) : LJ_OK;
}

static lj_code write_over(const char *temp, const void *data, size_t len, mode_t mode, bool durable,
                          lj_error *err)
{
    LJ_CLEANUP(lj_closep) int fd = -1;
    struct stat st;
    LJ_TRY(lj_io_open(temp, O_WRONLY | O_CREAT | O_NOFOLLOW, mode, &fd, err));
    LJ_TRY(lj_io_pwrite(fd, data, len, 0, err));
    if (fstat(fd, &st) != 0 || (st.st_size != (off_t)len && ftruncate(fd, (off_t)len) != 0))
        return lj_error_errno(err, errno, "cannot set the length of %s", temp);
    return durable ? lj_io_fsync(fd, err) : LJ_OK;
}

/* Without the file there is nothing to change names with, and not every file system can. */
static int exchange(const char *temp, const char *path)
{
    if (renameat2(AT_FDCWD, temp, AT_FDCWD, path, RENAME_EXCHANGE) == 0)
        return 0;
    if (errno != ENOENT && errno != EINVAL && errno != ENOSYS)
        return -1;
    return rename(temp, path);
}

lj_code lj_io_swap_file(const char *path, const void *data, size_t len, mode_t mode, bool durable,
                        lj_error *err)
{
    LJ_CLEANUP(lj_freep) char *temp = lj_str_printf("%s.tmp", path);
    if (temp == NULL)
        return lj_error_nomem(err);
    lj_code code = write_over(temp, data, len, mode, durable, err);
    if (code == LJ_OK && exchange(temp, path) != 0)
        code = lj_error_errno(err, errno, "cannot rename %s to %s", temp, path);
    if (code != LJ_OK) {
        unlink(temp);
        return code;
    }
    return durable ? fsync_parent(path, err) : LJ_OK;
}

/* Over NFS a repeated request finds its own link. */
static bool is_linked(const char *from, const char *to)
{
    struct stat one;
    struct stat two;
    return lstat(from, &one) == 0 && lstat(to, &two) == 0 && lj_same_file(&one, &two);
}

int lj_io_take_name(const char *from, const char *to, bool by_link, bool *ret_cannot)
{
    *ret_cannot = false;
    if (!by_link) {
        int rc = renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE);
        if (rc == 0 || (errno != EINVAL && errno != ENOSYS && errno != ENOTSUP))
            return rc;
    }
    int why = link(from, to) == 0 ? 0 : errno;
    if (why == 0 || (why == EEXIST && is_linked(from, to))) {
        (void)unlink(from);
        return 0;
    }
    *ret_cannot = why == EPERM || why == ENOSYS || why == ENOTSUP || why == EMLINK;
    errno = why;
    return -1;
}

void lj_io_random(void *out, size_t len)
{
    size_t done = 0;
    while (done < len) {
        ssize_t n = getrandom((char *)out + done, len - done, 0);
        if (n > 0) {
            done += (size_t)n;
        } else if (errno != EINTR) {
            /* kernel without getrandom: time and addresses are all that is left */
            uint64_t mix = (uint64_t)lj_clock_wall_ns() ^ (uint64_t)(uintptr_t)out;
            for (; done < len;
                 done++, mix = mix * UINT64_C(6364136223846793005) + 1442695040888963407u)
                ((uint8_t *)out)[done] = (uint8_t)(mix >> 56);
        }
    }
}
