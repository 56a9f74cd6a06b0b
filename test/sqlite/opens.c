/*
 * opens.c - what SQLite's own test programs are linked with beside liblitejoin.a: it makes litejoin the default VFS and counts
 * what is opened through it, so that nobody takes a run on plain unix for one of ours.
 *
 * testfixture calls suite_extra_init at the end of each sqlite3_initialize (SQLITE_EXTRA_INIT). mptester has no such place:
 * there SUITE_AT_START registers before main, which also keeps its sqlite3_config(SQLITE_CONFIG_SINGLETHREAD) from having
 * an effect (it configures a library that is in use already).
 *
 * At the exit one line "DATABASES WALS" is appended to the file $SUITE_OPENS.
 */
#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int litejoin_extra_init(const char *unused);
int suite_extra_init(const char *unused);

static int (*lower_open)(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags,
                         int *ret_flags);
static unsigned databases;
static unsigned wals;

static int counting_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags,
                         int *ret_flags)
{
    if (name != NULL && (flags & SQLITE_OPEN_MAIN_DB) != 0)
        __atomic_fetch_add(&databases, 1, __ATOMIC_RELAXED);
    if (name != NULL && (flags & SQLITE_OPEN_WAL) != 0)
        __atomic_fetch_add(&wals, 1, __ATOMIC_RELAXED);
    return lower_open(vfs, name, file, flags, ret_flags);
}

static void tell(void)
{
    const char *path = getenv("SUITE_OPENS");
    char line[64];
    int len = snprintf(line, sizeof(line), "%u %u\n", databases, wals);
    int fd = path != NULL ? open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644) : -1;
    if (fd >= 0 && write(fd, line, (size_t)len) != len)
        perror(path);
    if (fd >= 0)
        close(fd);
}

int suite_extra_init(const char *unused)
{
    int rc = litejoin_extra_init(unused);
    if (rc != SQLITE_OK || lower_open != NULL)
        return rc;
    sqlite3_vfs *vfs = sqlite3_vfs_find("litejoin");
    if (vfs == NULL || vfs != sqlite3_vfs_find(NULL))
        return SQLITE_ERROR;
    lower_open = vfs->xOpen;
    vfs->xOpen = counting_open;
    return atexit(tell) == 0 ? SQLITE_OK : SQLITE_ERROR;
}

#ifdef SUITE_AT_START
__attribute__((constructor)) static void at_start(void)
{
    if (suite_extra_init(NULL) != SQLITE_OK) {
        fprintf(stderr, "litejoin could not be made the default VFS\n");
        exit(1);
    }
}
#endif
