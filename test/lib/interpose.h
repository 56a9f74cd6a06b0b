/*
 * interpose.h - what the LD_PRELOAD libraries of the tests share: the call below one that they replace, and the path of what a call
 * is about.
 *
 * _GNU_SOURCE has to be defined before the first include.
 */
#ifndef LJ_INTERPOSE_H
#define LJ_INTERPOSE_H

#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

/* The next definition of `name`, ready to be called: NEXT(int, close, int)(fd). */
#define NEXT(type, name, ...) ((type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name))

#define INTERPOSE_PATH_MAX 8192

/* The absolute path of what is open under `fd`. */
static inline bool interpose_path_of(int fd, char path[INTERPOSE_PATH_MAX])
{
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, path, INTERPOSE_PATH_MAX / 2);
    if (size <= 0)
        return false;
    path[size] = 0;
    return true;
}

/* `path`, or what it means below the folder that is open under `folder`. NULL when that cannot be told. */
static inline const char *interpose_path_at(int folder, const char *path,
                                            char full[INTERPOSE_PATH_MAX])
{
    if (path[0] == '/' || folder == AT_FDCWD)
        return path;
    if (!interpose_path_of(folder, full))
        return NULL;
    size_t len = strlen(full);
    int size = snprintf(full + len, INTERPOSE_PATH_MAX - len, "/%s", path);
    return size > 0 && (size_t)size < INTERPOSE_PATH_MAX - len ? full : NULL;
}

/* The arguments of a function that is declared like syscall(). */
#define INTERPOSE_SYSCALL_ARGS(number, a)                                                          \
    long a[6];                                                                                     \
    va_list list_of_##a;                                                                           \
    va_start(list_of_##a, number);                                                                 \
    for (int i_of_##a = 0; i_of_##a < 6; i_of_##a++)                                               \
        a[i_of_##a] = va_arg(list_of_##a, long);                                                   \
    va_end(list_of_##a)

#endif
