/*
 * failsys.c - LD_PRELOAD library that makes the N-th system call of a kind, or the N-th allocation, fail.
 *
 * A call counts when it comes from a loaded object whose name contains `caller`, from the thread that was named (0: any), and,
 * unless the kind has no file, concerns a file below one of the folders or files in `paths` (absolute, with ':' between).
 * From the N-th on `count` calls fail (0: all) with `error`; error 0 is a short count, for reads and writes.
 *
 *     fs_arm(kind, at, count, error, caller, paths, thread)     fs_disarm()     fs_calls()     fs_hits()     fs_last()
 *
 * from within (ctypes), or by the environment from the start: LJ_FAIL="KIND AT COUNT ERROR CALLER PATHS".
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define EXPORT    __attribute__((visibility("default")))
#define CALLER    __builtin_return_address(0)
#define RANGE_MAX 16

static struct {
    atomic_bool armed;
    char kind[32];
    char paths[2048];
    char caller[64];
    long at, count, thread;
    int error;
    struct {
        uintptr_t begin, end;
    } ranges[RANGE_MAX];
    int range_count;
    atomic_long calls, hits;
    char last[1024]; /* what failed last */
} fault;

/* ---- what is asked for ---- */

static int add_ranges(struct dl_phdr_info *info, size_t size, void *ctx)
{
    (void)size;
    (void)ctx;
    char self[1024] = "";
    const char *name = info->dlpi_name;
    if (name == NULL || name[0] == 0) { /* the program */
        ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
        name = n > 0 ? self : "";
    }
    if (strstr(name, fault.caller) == NULL)
        return 0;
    for (int i = 0; i < info->dlpi_phnum && fault.range_count < RANGE_MAX; i++) {
        const ElfW(Phdr) *ph = &info->dlpi_phdr[i];
        if (ph->p_type == PT_LOAD && (ph->p_flags & PF_X) != 0) {
            uintptr_t begin = info->dlpi_addr + ph->p_vaddr;
            fault.ranges[fault.range_count].begin = begin;
            fault.ranges[fault.range_count++].end = begin + ph->p_memsz;
        }
    }
    return 0;
}

EXPORT void fs_disarm(void)
{
    atomic_store(&fault.armed, false);
}

EXPORT void fs_arm(const char *kind, long at, long count, int error, const char *caller,
                   const char *paths, long thread)
{
    fs_disarm();
    snprintf(fault.kind, sizeof(fault.kind), "%s", kind);
    snprintf(fault.paths, sizeof(fault.paths), "%s", paths);
    snprintf(fault.caller, sizeof(fault.caller), "%s", caller);
    fault.at = at;
    fault.count = count;
    fault.error = error;
    fault.thread = thread;
    fault.range_count = 0;
    fault.last[0] = 0;
    dl_iterate_phdr(add_ranges, NULL);
    atomic_store(&fault.calls, 0);
    atomic_store(&fault.hits, 0);
    atomic_store(&fault.armed, true);
}

EXPORT long fs_calls(void)
{
    return atomic_load(&fault.calls);
}

EXPORT long fs_hits(void)
{
    return atomic_load(&fault.hits);
}

EXPORT const char *fs_last(void)
{
    return fault.last;
}

__attribute__((constructor)) static void from_environment(void)
{
    const char *text = getenv("LJ_FAIL");
    char kind[32], caller[64], paths[2048] = "";
    long at, count;
    int error;
    if (text != NULL &&
        sscanf(text, "%31s %ld %ld %d %63s %2047s", kind, &at, &count, &error, caller, paths) >= 5)
        fs_arm(kind, at, count, error, caller, paths, 0);
}

/* How many calls failed, for whoever started the process. */
__attribute__((destructor)) static void report(void)
{
    const char *path = getenv("LJ_FAIL_REPORT");
    FILE *file = path != NULL ? fopen(path, "w") : NULL;
    if (file != NULL) {
        fprintf(file, "%ld %ld %s\n", fs_calls(), fs_hits(), fault.last);
        fclose(file);
    }
}

/* ---- is it this call ---- */

static bool below(const char *path)
{
    for (const char *at = fault.paths; *at != 0;) {
        size_t len = strcspn(at, ":");
        if (strncmp(path, at, len) == 0 &&
            (path[len] == 0 || path[len] == '/' || at[len - 1] == '/'))
            return true;
        at += len + (at[len] == ':' ? 1 : 0);
    }
    return false;
}

static const char *path_of(int fd, char out[4096])
{
    char link[64];
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, out, 4095);
    if (n <= 0)
        return NULL;
    out[n] = 0;
    return out;
}

static bool hit(const char *kind, const void *caller, const char *path, int fd, bool has_file)
{
    if (!atomic_load(&fault.armed) || strcmp(kind, fault.kind) != 0)
        return false;
    bool ours = false;
    for (int i = 0; i < fault.range_count; i++)
        ours |=
            (uintptr_t)caller >= fault.ranges[i].begin && (uintptr_t)caller < fault.ranges[i].end;
    if (!ours || (fault.thread != 0 && syscall(SYS_gettid) != fault.thread))
        return false;
    char buffer[4096], joined[8192];
    if (has_file && path == NULL) {
        path = path_of(fd, buffer);
    } else if (has_file && path[0] != '/' && fd >= 0) {
        const char *folder = path_of(fd, buffer);
        snprintf(joined, sizeof(joined), "%s/%s", folder != NULL ? folder : "", path);
        path = joined;
    }
    if (has_file && (path == NULL || !below(path)))
        return false;
    long n = atomic_fetch_add(&fault.calls, 1) + 1;
    if (n < fault.at || (fault.count != 0 && n >= fault.at + fault.count))
        return false;
    atomic_fetch_add(&fault.hits, 1);
    snprintf(fault.last, sizeof(fault.last), "%s %.900s", kind, path != NULL ? path : "");
    errno = fault.error;
    return true;
}

#define NEXT(type, name, ...)                                                                      \
    static type (*next)(__VA_ARGS__);                                                              \
    if (next == NULL)                                                                              \
    *(void **)&next = dlsym(RTLD_NEXT, name)

/* ---- files by name ---- */

#define OPEN(name)                                                                                 \
    EXPORT int name(const char *path, int flags, ...)                                              \
    {                                                                                              \
        NEXT(int, #name, const char *, int, ...);                                                  \
        va_list ap;                                                                                \
        va_start(ap, flags);                                                                       \
        mode_t mode = (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(ap, mode_t) : 0;               \
        va_end(ap);                                                                                \
        return hit("open", CALLER, path, -1, true) ? -1 : next(path, flags, mode);                 \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                                                               \
    EXPORT int name(int folder, const char *path, int flags, ...)                                  \
    {                                                                                              \
        NEXT(int, #name, int, const char *, int, ...);                                             \
        va_list ap;                                                                                \
        va_start(ap, flags);                                                                       \
        mode_t mode = (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(ap, mode_t) : 0;               \
        va_end(ap);                                                                                \
        return hit("open", CALLER, path, folder, true) ? -1 : next(folder, path, flags, mode);     \
    }
OPENAT(openat)
OPENAT(openat64)

#define BY_PATH(kind, name, parameters, path, ...)                                                 \
    EXPORT int name parameters                                                                     \
    {                                                                                              \
        static int(*next) parameters;                                                              \
        if (next == NULL)                                                                          \
            *(void **)&next = dlsym(RTLD_NEXT, #name);                                             \
        return hit(kind, CALLER, path, -1, true) ? -1 : next(__VA_ARGS__);                         \
    }
#define AT_PATH(kind, name, parameters, folder, path, ...)                                         \
    EXPORT int name parameters                                                                     \
    {                                                                                              \
        static int(*next) parameters;                                                              \
        if (next == NULL)                                                                          \
            *(void **)&next = dlsym(RTLD_NEXT, #name);                                             \
        return hit(kind, CALLER, path, folder, true) ? -1 : next(__VA_ARGS__);                     \
    }
#define BY_FD(kind, name, parameters, fd, ...)                                                     \
    EXPORT int name parameters                                                                     \
    {                                                                                              \
        static int(*next) parameters;                                                              \
        if (next == NULL)                                                                          \
            *(void **)&next = dlsym(RTLD_NEXT, #name);                                             \
        return hit(kind, CALLER, NULL, fd, true) ? -1 : next(__VA_ARGS__);                         \
    }

BY_PATH("rename", rename, (const char *from, const char *to), to, from, to)
AT_PATH("rename", renameat, (int a, const char *from, int b, const char *to), b, to, a, from, b, to)
AT_PATH("rename", renameat2, (int a, const char *from, int b, const char *to, unsigned flags), b,
        to, a, from, b, to, flags)
BY_PATH("link", link, (const char *from, const char *to), to, from, to)
AT_PATH("link", linkat, (int a, const char *from, int b, const char *to, int flags), b, to, a, from,
        b, to, flags)
BY_PATH("unlink", unlink, (const char *path), path, path)
AT_PATH("unlink", unlinkat, (int folder, const char *path, int flags), folder, path, folder, path,
        flags)
BY_PATH("mkdir", mkdir, (const char *path, mode_t mode), path, path, mode)
AT_PATH("mkdir", mkdirat, (int folder, const char *path, mode_t mode), folder, path, folder, path,
        mode)
BY_PATH("stat", stat, (const char *path, struct stat *st), path, path, st)
BY_PATH("stat", stat64, (const char *path, struct stat64 *st), path, path, st)
BY_PATH("stat", lstat, (const char *path, struct stat *st), path, path, st)
BY_PATH("stat", lstat64, (const char *path, struct stat64 *st), path, path, st)
AT_PATH("stat", fstatat, (int folder, const char *path, struct stat *st, int flags), folder, path,
        folder, path, st, flags)
AT_PATH("stat", fstatat64, (int folder, const char *path, struct stat64 *st, int flags), folder,
        path, folder, path, st, flags)
BY_FD("stat", fstat, (int fd, struct stat *st), fd, fd, st)
BY_FD("stat", fstat64, (int fd, struct stat64 *st), fd, fd, st)
BY_PATH("statvfs", statvfs, (const char *path, struct statvfs *st), path, path, st)
BY_PATH("utime", utimensat, (int folder, const char *path, const struct timespec t[2], int flags),
        path, folder, path, t, flags)
BY_FD("utime", futimens, (int fd, const struct timespec t[2]), fd, fd, t)
BY_FD("fsync", fsync, (int fd), fd, fd)
BY_FD("fsync", fdatasync, (int fd), fd, fd)
BY_FD("truncate", ftruncate, (int fd, off_t len), fd, fd, len)
BY_FD("truncate", ftruncate64, (int fd, off64_t len), fd, fd, len)
BY_FD("flock", flock, (int fd, int operation), fd, fd, operation)

/* Returns the error instead of setting errno. */
EXPORT int posix_fallocate(int fd, off_t offset, off_t len)
{
    NEXT(int, "posix_fallocate", int, off_t, off_t);
    return hit("truncate", CALLER, NULL, fd, true) ? fault.error : next(fd, offset, len);
}

EXPORT int posix_fallocate64(int fd, off64_t offset, off64_t len)
{
    NEXT(int, "posix_fallocate64", int, off64_t, off64_t);
    return hit("truncate", CALLER, NULL, fd, true) ? fault.error : next(fd, offset, len);
}

/* ---- contents ---- */

#define TRANSFER(kind, name, parameters, arguments, shorter)                                       \
    EXPORT ssize_t name parameters                                                                 \
    {                                                                                              \
        static ssize_t(*next) parameters;                                                          \
        if (next == NULL)                                                                          \
            *(void **)&next = dlsym(RTLD_NEXT, #name);                                             \
        if (!hit(kind, CALLER, NULL, fd, true))                                                    \
            return next arguments;                                                                 \
        if (fault.error != 0)                                                                      \
            return -1;                                                                             \
        if (len > 1)                                                                               \
            len /= 2;                                                                              \
        return next arguments;                                                                     \
    }
TRANSFER("read", read, (int fd, void *data, size_t len), (fd, data, len), )
TRANSFER("read", pread, (int fd, void *data, size_t len, off_t off), (fd, data, len, off), )
TRANSFER("read", pread64, (int fd, void *data, size_t len, off64_t off), (fd, data, len, off), )
TRANSFER("write", write, (int fd, const void *data, size_t len), (fd, data, len), )
TRANSFER("write", pwrite, (int fd, const void *data, size_t len, off_t off), (fd, data, len, off), )
TRANSFER("write", pwrite64, (int fd, const void *data, size_t len, off64_t off),
         (fd, data, len, off), )
TRANSFER("read", preadv64, (int fd, const struct iovec *parts, int len, off64_t off),
         (fd, parts, len, off), )
TRANSFER("send", send, (int fd, const void *data, size_t len, int flags), (fd, data, len, flags), )
TRANSFER("recv", recv, (int fd, void *data, size_t len, int flags), (fd, data, len, flags), )

#define MMAP(name, offset)                                                                         \
    EXPORT void *name(void *at, size_t len, int protection, int flags, int fd, offset off)         \
    {                                                                                              \
        NEXT(void *, #name, void *, size_t, int, int, int, offset);                                \
        if (fd >= 0 && hit("mmap", CALLER, NULL, fd, true))                                        \
            return MAP_FAILED;                                                                     \
        return next(at, len, protection, flags, fd, off);                                          \
    }
MMAP(mmap, off_t)
MMAP(mmap64, off64_t)

EXPORT DIR *opendir(const char *path)
{
    NEXT(DIR *, "opendir", const char *);
    return hit("opendir", CALLER, path, -1, true) ? NULL : next(path);
}

EXPORT DIR *fdopendir(int fd)
{
    NEXT(DIR *, "fdopendir", int);
    return hit("opendir", CALLER, NULL, fd, true) ? NULL : next(fd);
}

EXPORT struct dirent *readdir(DIR *dir)
{
    NEXT(struct dirent *, "readdir", DIR *);
    return hit("readdir", CALLER, NULL, dirfd(dir), true) ? NULL : next(dir);
}

EXPORT struct dirent64 *readdir64(DIR *dir)
{
    NEXT(struct dirent64 *, "readdir64", DIR *);
    return hit("readdir", CALLER, NULL, dirfd(dir), true) ? NULL : next(dir);
}

/* Locks of SQLite, and F_DUPFD; other commands do not fail. */
#define FCNTL(name)                                                                                \
    EXPORT int name(int fd, int command, ...)                                                      \
    {                                                                                              \
        NEXT(int, #name, int, int, void *);                                                        \
        va_list ap;                                                                                \
        va_start(ap, command);                                                                     \
        void *argument = va_arg(ap, void *);                                                       \
        va_end(ap);                                                                                \
        bool lock = command == F_SETLK || command == F_SETLKW || command == F_GETLK;               \
        if ((lock && hit("lock", CALLER, NULL, fd, true)) ||                                       \
            (command == F_DUPFD_CLOEXEC && hit("dup", CALLER, NULL, fd, true)))                    \
            return -1;                                                                             \
        return next(fd, command, argument);                                                        \
    }
FCNTL(fcntl)
FCNTL(fcntl64)

/* ---- without a file ---- */

EXPORT int pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*start)(void *),
                          void *ctx)
{
    NEXT(int, "pthread_create", pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    return hit("thread", CALLER, NULL, -1, false) ? fault.error : next(thread, attr, start, ctx);
}

EXPORT ssize_t getrandom(void *data, size_t len, unsigned flags)
{
    NEXT(ssize_t, "getrandom", void *, size_t, unsigned);
    return hit("random", CALLER, NULL, -1, false) ? -1 : next(data, len, flags);
}

/* glibc has renameat2, but who wants older ones goes this way. */
EXPORT long syscall(long number, ...)
{
    NEXT(long, "syscall", long, ...);
    long a[6];
    va_list ap;
    va_start(ap, number);
    for (int i = 0; i < 6; i++)
        a[i] = va_arg(ap, long);
    va_end(ap);
    if (number == SYS_renameat2 && hit("rename", CALLER, (const char *)a[3], (int)a[2], true))
        return -1;
    return next(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

/* ---- memory ---- */

/*
 * What the watched object has allocated and nobody has freed: for leaks. fs_watch(caller) begins; fs_live() counts. A full table loses
 * entries, so that a leak may go unseen, never the other way round.
 */
#define LIVE_SLOTS 65536u

static struct {
    atomic_flag busy;
    struct {
        uintptr_t begin, end;
    } ranges[RANGE_MAX];
    int range_count;
    atomic_bool on;
    const char *name;
    void *slots[LIVE_SLOTS];
    long count;
} live = {.busy = ATOMIC_FLAG_INIT};

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *ptr, size_t size);
extern void __libc_free(void *ptr);

static int add_watched(struct dl_phdr_info *info, size_t size, void *ctx)
{
    (void)size;
    (void)ctx;
    if (info->dlpi_name == NULL || strstr(info->dlpi_name, live.name) == NULL)
        return 0;
    for (int i = 0; i < info->dlpi_phnum && live.range_count < RANGE_MAX; i++) {
        const ElfW(Phdr) *ph = &info->dlpi_phdr[i];
        if (ph->p_type == PT_LOAD && (ph->p_flags & PF_X) != 0) {
            live.ranges[live.range_count].begin = info->dlpi_addr + ph->p_vaddr;
            live.ranges[live.range_count].end = live.ranges[live.range_count].begin + ph->p_memsz;
            live.range_count++;
        }
    }
    return 0;
}

EXPORT void fs_watch(const char *caller)
{
    live.name = caller;
    dl_iterate_phdr(add_watched, NULL);
    atomic_store(&live.on, true);
}

EXPORT long fs_live(void)
{
    return live.count;
}

static size_t slot_of(const void *ptr)
{
    return ((uintptr_t)ptr >> 4) * 2654435761u % LIVE_SLOTS;
}

static void *note_alloc(void *ptr, const void *caller)
{
    bool ours = false;
    if (ptr == NULL || !atomic_load_explicit(&live.on, memory_order_relaxed))
        return ptr;
    for (int i = 0; i < live.range_count; i++)
        ours |= (uintptr_t)caller >= live.ranges[i].begin && (uintptr_t)caller < live.ranges[i].end;
    if (!ours)
        return ptr;
    while (atomic_flag_test_and_set_explicit(&live.busy, memory_order_acquire))
        ;
    for (size_t i = 0, at = slot_of(ptr); i < 64; i++, at = (at + 1) % LIVE_SLOTS) {
        if (live.slots[at] == NULL) {
            live.slots[at] = ptr;
            live.count++;
            break;
        }
    }
    atomic_flag_clear_explicit(&live.busy, memory_order_release);
    return ptr;
}

static void note_free(const void *ptr)
{
    if (ptr == NULL || !atomic_load_explicit(&live.on, memory_order_relaxed))
        return;
    while (atomic_flag_test_and_set_explicit(&live.busy, memory_order_acquire))
        ;
    for (size_t i = 0, at = slot_of(ptr); i < 64; i++, at = (at + 1) % LIVE_SLOTS) {
        if (live.slots[at] == ptr) {
            live.slots[at] = NULL;
            live.count--;
            break;
        }
    }
    atomic_flag_clear_explicit(&live.busy, memory_order_release);
}

EXPORT void *malloc(size_t size)
{
    return hit("malloc", CALLER, NULL, -1, false) ? NULL : note_alloc(__libc_malloc(size), CALLER);
}

EXPORT void *calloc(size_t count, size_t size)
{
    return hit("malloc", CALLER, NULL, -1, false) ? NULL
                                                  : note_alloc(__libc_calloc(count, size), CALLER);
}

EXPORT void *realloc(void *ptr, size_t size)
{
    if (hit("malloc", CALLER, NULL, -1, false))
        return NULL;
    note_free(ptr);
    return note_alloc(__libc_realloc(ptr, size), CALLER);
}

EXPORT void free(void *ptr)
{
    note_free(ptr);
    __libc_free(ptr);
}

EXPORT char *strdup(const char *text)
{
    size_t size = strlen(text) + 1;
    char *copy =
        hit("malloc", CALLER, NULL, -1, false) ? NULL : note_alloc(__libc_malloc(size), CALLER);
    return copy != NULL ? memcpy(copy, text, size) : NULL;
}
