/*
 * hold.c - LD_PRELOAD library that holds one call of a process for as long as a test wants to look at what others can do meanwhile.
 *
 * Only a thread other than the main one is held, once: behind the first call of the kind that LJ_HOLD names, on a file below
 * LJ_HOLD_DIR, it makes the file LJ_HOLD_DIR/held and goes on when LJ_HOLD_DIR/go is there (after a minute in any case).
 *   recover  a lock on the RECOVER byte of a -shm was granted, shared or not
 *   verify   more than a page was read of a -wal, as only our own verification does
 *   snapshot more than a page was read of a database, as only a snapshot does
 *   head     the header of a database was read
 *   named    a database got its name, and there was none before (a restore)
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../lib/interpose.h"

#define RECOVER_BYTE     (120 + 2)
#define MORE_THAN_A_PAGE 65600
#define HEAD             100
#define MINUTE_MS        60000

static atomic_bool was_held;

static bool is_of(int fd, const char *end)
{
    const char *folder = getenv("LJ_HOLD_DIR");
    char path[INTERPOSE_PATH_MAX];
    if (folder == NULL || !interpose_path_of(fd, path) || strlen(path) < strlen(end))
        return false;
    return strncmp(path, folder, strlen(folder)) == 0 &&
           strcmp(path + strlen(path) - strlen(end), end) == 0;
}

static bool wanted(const char *kind)
{
    const char *named = getenv("LJ_HOLD");
    return named != NULL && strcmp(named, kind) == 0 && gettid() != getpid() &&
           !atomic_load(&was_held);
}

static void hold(void)
{
    char path[4096];
    if (atomic_exchange(&was_held, true))
        return;
    snprintf(path, sizeof path, "%s/held", getenv("LJ_HOLD_DIR"));
    close(open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
    snprintf(path, sizeof path, "%s/go", getenv("LJ_HOLD_DIR"));
    for (int ms = 0; ms < MINUTE_MS && access(path, F_OK) != 0; ms++)
        usleep(1000);
}

static void locked(int fd, int command, const struct flock *lock)
{
    if (command == F_SETLK && lock->l_type != F_UNLCK && lock->l_start <= RECOVER_BYTE &&
        lock->l_start + lock->l_len > RECOVER_BYTE && wanted("recover") && is_of(fd, "-shm"))
        hold();
}

int fcntl(int fd, int command, ...)
{
    va_list list;
    va_start(list, command);
    void *argument = va_arg(list, void *);
    va_end(list);
    int rc = NEXT(int, fcntl, int, int, ...)(fd, command, argument);
    if (rc == 0)
        locked(fd, command, argument);
    return rc;
}

int fcntl64(int fd, int command, ...)
{
    va_list list;
    va_start(list, command);
    void *argument = va_arg(list, void *);
    va_end(list);
    int rc = NEXT(int, fcntl64, int, int, ...)(fd, command, argument);
    if (rc == 0)
        locked(fd, command, argument);
    return rc;
}

static void was_read(int fd, size_t size)
{
    if (size > MORE_THAN_A_PAGE && wanted("verify") && is_of(fd, "-wal"))
        hold();
    if (size > MORE_THAN_A_PAGE && wanted("snapshot") && is_of(fd, ".db"))
        hold();
    if (size == HEAD && wanted("head") && is_of(fd, ".db"))
        hold();
}

ssize_t read(int fd, void *data, size_t size)
{
    ssize_t n = NEXT(ssize_t, read, int, void *, size_t)(fd, data, size);
    was_read(fd, size);
    return n;
}

ssize_t pread(int fd, void *data, size_t size, off_t at)
{
    ssize_t n = NEXT(ssize_t, pread, int, void *, size_t, off_t)(fd, data, size, at);
    was_read(fd, size);
    return n;
}

ssize_t pread64(int fd, void *data, size_t size, off64_t at)
{
    ssize_t n = NEXT(ssize_t, pread64, int, void *, size_t, off64_t)(fd, data, size, at);
    was_read(fd, size);
    return n;
}

int renameat2(int from_folder, const char *from, int to_folder, const char *to, unsigned flags)
{
    const char *folder = getenv("LJ_HOLD_DIR");
    size_t len = strlen(to);
    int rc = NEXT(int, renameat2, int, const char *, int, const char *,
                  unsigned)(from_folder, from, to_folder, to, flags);
    if (rc == 0 && wanted("named") && folder != NULL && strncmp(to, folder, strlen(folder)) == 0 &&
        len > 3 && strcmp(to + len - 3, ".db") == 0)
        hold();
    return rc;
}
