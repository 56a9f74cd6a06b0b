/*
 * io.h - whole reads and writes, folders, and files that appear atomically and survive a power cut.
 *
 * Layer: base. Thread-safety: pure functions over file descriptors and paths. EINTR is handled here and
 * nowhere else. Every descriptor is opened O_CLOEXEC. None of these may ever be used on a database file or
 * its -shm from inside an application process (closing it would drop the process's POSIX locks).
 */
#ifndef LJ_IO_H
#define LJ_IO_H

#include <dirent.h>
#include <sys/stat.h>

#include "vfs/base/error.h"

/* For LJ_CLEANUP(lj_closedirp). */
static inline void lj_closedirp(DIR **dir)
{
    if (*dir != NULL)
        closedir(*dir);
}

/*
 * `fd`, or in its place a descriptor above those of the standard streams, with O_CLOEXEC. -1 as it is, and with errno when there is
 * none.
 */
int lj_io_above_stdio(int fd);

/* Two names, or a name and a descriptor, of one file. */
static inline bool lj_same_file(const struct stat *one, const struct stat *two)
{
    return one->st_dev == two->st_dev && one->st_ino == two->st_ino;
}

/* open(2) with O_CLOEXEC, never 0 to 2; on success *ret_fd is owned by the caller. `path` is named in the error. */
LJ_WARN_UNUSED lj_code lj_io_open(const char *path, int flags, mode_t mode, int *ret_fd,
                                  lj_error *err);
/* Opens DIR/NAME.tmp anew for reading and writing and takes its name away: it is gone with its descriptor. */
LJ_WARN_UNUSED lj_code lj_io_open_unlinked(const char *dir, const char *name, int *ret_fd,
                                           lj_error *err);
/* Reads up to len bytes at `off`; *ret_n is short only at end of file. */
LJ_WARN_UNUSED lj_code lj_io_pread(int fd, void *data, size_t len, uint64_t off, size_t *ret_n,
                                   lj_error *err);
/* Reads up to len bytes at the descriptor's position; short only at end of file. */
LJ_WARN_UNUSED lj_code lj_io_read(int fd, void *data, size_t len, size_t *ret_n, lj_error *err);
LJ_WARN_UNUSED lj_code lj_io_write(int fd, const void *data, size_t len, lj_error *err);
LJ_WARN_UNUSED lj_code lj_io_pwrite(int fd, const void *data, size_t len, uint64_t off,
                                    lj_error *err);
LJ_WARN_UNUSED lj_code lj_io_fsync(int fd, lj_error *err);
/* fsync of a folder, so that a rename, link or unlink in it is durable. */
LJ_WARN_UNUSED lj_code lj_io_fsync_dir(const char *dir, lj_error *err);
/* mkdir -p. Existing folders keep their mode. New ones are fsynced into their parents. */
LJ_WARN_UNUSED lj_code lj_io_mkdirs(const char *dir, mode_t mode, lj_error *err);
/* Whole file, or what a pipe gives to its end, into a new NUL-terminated buffer (free()); LJ_INVALID above max_bytes. */
LJ_WARN_UNUSED lj_code lj_io_read_file(const char *path, size_t max_bytes, char **ret_data,
                                       size_t *ret_len, lj_error *err);
/*
 * Replaces `path` by `data`: writes PATH.tmp beside it, fsync if `durable`, rename, fsync of the folder if
 * `durable`. After a crash the file holds the old or the new content, never a mixture.
 */
LJ_WARN_UNUSED lj_code lj_io_replace_file(const char *path, const void *data, size_t len,
                                          mode_t mode, bool durable, lj_error *err);
/*
 * The same for a file that is replaced again and again: PATH.tmp stays and has the content before, because the two
 * change names. A new file each time is work for the file system: two thirds of all CPU of 500 databases that ship once a
 * second.
 */
LJ_WARN_UNUSED lj_code lj_io_swap_file(const char *path, const void *data, size_t len, mode_t mode,
                                       bool durable, lj_error *err);
/*
 * Gives `from` the name `to` if nobody has it: EEXIST in errno, and -1, if somebody has. By renameat2, else (or at once, with
 * `by_link`) by link and unlink. *ret_cannot: this file system has neither, and the caller needs a way of its own.
 */
int lj_io_take_name(const char *from, const char *to, bool by_link, bool *ret_cannot);
/* Random bytes from the kernel. */
void lj_io_random(void *out, size_t len);

#endif
