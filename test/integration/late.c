/*
 * late.c - LD_PRELOAD library that keeps a thread where it is for a while, so that another one meets it there.
 *
 * LJ_LATE names where; LJ_LATE_DIR is a folder, in which the file "held" says that a thread is there.
 *   lock    a thread other than the main one locked one of the extension's own mutexes (those of the whole process), the first time:
 *           it keeps it for half a second
 *   unlock  any thread gave one of them back, each time: it stays for two milliseconds
 *   flock   a thread other than the main one got a lock by flock, the first time: until the file "go" is there, or for a minute
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "../lib/interpose.h"

#define HALF_A_SECOND_US 500000
#define TWO_MS_US        2000
#define MINUTE_MS        60000

static atomic_bool was_held;

static bool wanted(const char *kind)
{
    const char *named = getenv("LJ_LATE");
    return named != NULL && strcmp(named, kind) == 0;
}

static bool first_of_a_thread(void)
{
    return gettid() != getpid() && !atomic_exchange(&was_held, true);
}

static bool is_the_extensions(const void *mutex)
{
    Dl_info info;
    return dladdr(mutex, &info) != 0 && info.dli_fname != NULL &&
           strstr(info.dli_fname, "litejoin_vfs") != NULL;
}

static void in_folder(char *path, size_t size, const char *name)
{
    const char *folder = getenv("LJ_LATE_DIR");
    snprintf(path, size, "%s/%s", folder != NULL ? folder : ".", name);
}

static void tell(void)
{
    char path[4096];
    in_folder(path, sizeof path, "held");
    close(open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
}

int pthread_mutex_lock(pthread_mutex_t *mutex)
{
    static int (*next)(pthread_mutex_t *);
    if (next == NULL)
        next = NEXT(int, pthread_mutex_lock, pthread_mutex_t *);
    int rc = next(mutex);
    if (wanted("lock") && is_the_extensions(mutex) && first_of_a_thread()) {
        tell();
        usleep(HALF_A_SECOND_US);
    }
    return rc;
}

int pthread_mutex_unlock(pthread_mutex_t *mutex)
{
    static int (*next)(pthread_mutex_t *);
    if (next == NULL)
        next = NEXT(int, pthread_mutex_unlock, pthread_mutex_t *);
    int rc = next(mutex);
    if (wanted("unlock") && is_the_extensions(mutex))
        usleep(TWO_MS_US);
    return rc;
}

int flock(int fd, int operation)
{
    int rc = NEXT(int, flock, int, int)(fd, operation);
    if (rc != 0 || (operation & LOCK_UN) != 0 || !wanted("flock") || !first_of_a_thread())
        return rc;
    char path[4096];
    in_folder(path, sizeof path, "go");
    tell();
    for (int ms = 0; ms < MINUTE_MS && access(path, F_OK) != 0; ms++)
        usleep(1000);
    return rc;
}
