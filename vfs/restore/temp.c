/*
 * temp.c - see temp.h.
 *
 * Layer: restore. Thread-safety: no shared state.
 */
#include "vfs/restore/temp.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "vfs/base/clock.h"
#include "vfs/base/io.h"
#include "vfs/base/log.h"
#include "vfs/base/str.h"

#define MARK       ".tmp-restore-"
#define HEX_DIGITS 16u
#define FOUND_MAX  64u
/* Sweepers hold a lock for microseconds; who holds it longer is restoring. */
#define TRIES   20
#define WAIT_NS (2 * LJ_NS_PER_MS)

typedef struct {
    char hex[FOUND_MAX][HEX_DIGITS + 1];
    size_t count;
} found;

char *lj_restore_lock_path(const char *output)
{
    LJ_CLEANUP(lj_freep) char *dir = lj_str_state_dir(output);
    return dir == NULL ? NULL : lj_str_printf("%s/restore-lock", dir);
}

static bool is_temp_of(const char *name, const char *base)
{
    size_t len = strlen(base);
    if (strncmp(name, base, len) != 0 || strncmp(name + len, MARK, strlen(MARK)) != 0)
        return false;
    const char *digits = name + len + strlen(MARK);
    return strlen(digits) == HEX_DIGITS && strspn(digits, "0123456789abcdef") == HEX_DIGITS;
}

static bool try_lock(int fd, int kind)
{
    for (int i = 0; i < TRIES; i++) {
        if (flock(fd, kind | LOCK_NB) == 0)
            return true;
        if (errno != EWOULDBLOCK && errno != EINTR)
            return false;
        lj_clock_sleep_ns(WAIT_NS);
    }
    return false;
}

static void remove_one(const char *path_of_db, const char *hex)
{
    LJ_CLEANUP(lj_freep) char *path = lj_str_printf("%s" MARK "%s", path_of_db, hex);
    LJ_CLEANUP(lj_freep) char *wal = lj_str_printf("%s" MARK "%s-wal", path_of_db, hex);
    struct stat st;
    if (path == NULL || wal == NULL || lstat(path, &st) != 0 || !S_ISREG(st.st_mode))
        return;
    /* made and unlinked at once where there is no O_TMPFILE: output.c */
    if (lstat(wal, &st) == 0 && S_ISREG(st.st_mode))
        unlink(wal);
    if (unlink(path) == 0)
        lj_log(LJ_LOG_INFO, "%s: removed, a restore that was killed had left it", path);
    else if (errno != ENOENT)
        lj_log(LJ_LOG_WARN, "cannot remove %s, which a killed restore has left: %s", path,
               strerror(errno));
}

/* What is there. The rest, if there are more, is for the next restore. */
static void find(DIR *handle, const char *base, found *f)
{
    f->count = 0;
    for (struct dirent *entry; f->count < FOUND_MAX && (entry = readdir(handle)) != NULL;)
        if (is_temp_of(entry->d_name, base))
            memcpy(f->hex[f->count++], entry->d_name + strlen(base) + strlen(MARK), HEX_DIGITS + 1);
}

/*
 * Whether nobody who was found at work on `path` is a restore on open that goes on. Without the file nobody has ever had the lock.
 */
static bool no_restore_on_open(const char *path, int *ret_fd)
{
    LJ_CLEANUP(lj_freep) char *lock = lj_restore_lock_path(path);
    if (lock == NULL)
        return false;
    lj_error why = LJ_ERROR_INIT;
    if (lj_io_open(lock, O_RDWR | O_NOFOLLOW, 0, ret_fd, &why) != LJ_OK)
        return why.sys_errno == ENOENT;
    return try_lock(*ret_fd, LOCK_EX);
}

void lj_temp_sweep(const char *path, bool locked)
{
    LJ_CLEANUP(lj_freep) char *dir = lj_str_dirname(path);
    LJ_CLEANUP(lj_closedirp) DIR *handle = dir == NULL ? NULL : opendir(dir);
    if (handle == NULL)
        return;
    found f;
    find(handle, lj_str_basename(path), &f); /* before the locks: what appears later is in use */
    LJ_CLEANUP(lj_closep) int lock_fd = -1;
    if (f.count == 0 || !try_lock(dirfd(handle), LOCK_EX) ||
        (!locked && !no_restore_on_open(path, &lock_fd)))
        return;
    for (size_t i = 0; i < f.count; i++)
        remove_one(path, f.hex[i]);
}

int lj_temp_lock_folder(const char *dir)
{
    int fd = -1;
    if (lj_io_open(dir, O_RDONLY | O_DIRECTORY, 0, &fd, NULL) == LJ_OK && !try_lock(fd, LOCK_SH))
        lj_closep(&fd);
    return fd;
}

lj_code lj_temp_create(const char *path, mode_t mode, int *ret_fd, char **ret_name, lj_error *err)
{
    uint64_t random = 0;
    lj_io_random(&random, sizeof(random));
    LJ_CLEANUP(lj_freep) char *name = lj_str_printf("%s" MARK "%016" PRIx64, path, random);
    if (name == NULL)
        return lj_error_nomem(err);
    LJ_TRY(lj_io_open(name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, mode, ret_fd, err));
    *ret_name = name;
    name = NULL;
    return LJ_OK;
}
