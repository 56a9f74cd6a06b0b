/*
 * powercut_journal.c - see powercut.h.
 *
 * The lock between processes is a flock of the journal, which each process has opened for itself: a call and its record are one
 * step for all of them, so there is one order. It ends with the process that holds it. A process that is killed between its call and its record
 * would leave a journal that misses a change: so tests kill by powercut_kill(), which holds the lock meanwhile.
 */
#define _GNU_SOURCE
#include "powercut.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include "../lib/interpose.h"

#define MAPS_MAX 64

/* Little-endian machines only; disk.py unpacks it as "<IIQQQqqqII". */
struct record {
    uint32_t kind;
    uint32_t data_bytes; /* behind the names */
    uint64_t inode;      /* of the file concerned */
    uint64_t folder, folder2;
    int64_t offset; /* or the length */
    int64_t mtime_ns, ctime_ns;
    uint32_t name_bytes, name2_bytes;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int journal = -1;
static const char *root;

static struct map {
    const void *at;
    uint8_t *known; /* the content that was recorded last */
    size_t bytes;
    ino_t inode;
} maps[MAPS_MAX];

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("LJ_CUT_JOURNAL");
    root = getenv("LJ_CUT_ROOT");
    if (path != NULL && root != NULL)
        journal = NEXT(int, open64, const char *, int,
                       ...)(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

bool pc_recording(void)
{
    return journal >= 0;
}

bool pc_is_journal(int fd)
{
    return fd >= 0 && fd == journal;
}

bool pc_below(const char *path)
{
    size_t len = root != NULL ? strlen(root) : 0;
    if (journal < 0 || path == NULL || strncmp(path, root, len) != 0 ||
        (path[len] != '/' && path[len] != 0))
        return false;
    size_t size = strlen(path);
    return size < 4 || strcmp(path + size - 4, "-shm") != 0;
}

static void append(const struct record *record, const char *name, const char *name2,
                   const void *data)
{
    struct iovec parts[4] = {{(void *)(uintptr_t)record, sizeof *record},
                             {(void *)(uintptr_t)name, record->name_bytes},
                             {(void *)(uintptr_t)name2, record->name2_bytes},
                             {(void *)(uintptr_t)data, record->data_bytes}};
    size_t want = sizeof *record + record->name_bytes + record->name2_bytes + record->data_bytes;
    if (writev(journal, parts, 4) != (ssize_t)want)
        abort(); /* a journal with a hole would prove anything */
}

static void record_maps(void)
{
    for (int i = 0; i < MAPS_MAX; i++) {
        struct map *map = &maps[i];
        if (map->at == NULL || memcmp(map->at, map->known, map->bytes) == 0)
            continue;
        memcpy(map->known, map->at, map->bytes);
        struct record record = {
            .kind = PC_MAPPED, .data_bytes = (uint32_t)map->bytes, .inode = map->inode};
        append(&record, NULL, NULL, map->known);
    }
}

void pc_enter(void)
{
    int saved = errno;
    pthread_mutex_lock(&lock);
    while (flock(journal, LOCK_EX) != 0)
        if (errno != EINTR)
            abort();
    record_maps();
    errno = saved;
}

void pc_leave(void)
{
    int saved = errno;
    flock(journal, LOCK_UN);
    pthread_mutex_unlock(&lock);
    errno = saved;
}

bool pc_look(const char *path, int fd, struct stat64 *st)
{
    int saved = errno;
    int rc = path != NULL ? NEXT(int, lstat64, const char *, struct stat64 *)(path, st)
                          : NEXT(int, fstat64, int, struct stat64 *)(fd, st);
    errno = saved;
    return rc == 0;
}

void pc_note_fd(enum pc_kind kind, int fd, int64_t offset, const void *data, size_t size)
{
    struct stat64 st;
    if (!pc_look(NULL, fd, &st))
        return;
    struct record record = {.kind = kind,
                            .data_bytes = (uint32_t)size,
                            .inode = st.st_ino,
                            .offset = offset,
                            .mtime_ns = pc_ns_of(&st.st_mtim),
                            .ctime_ns = pc_ns_of(&st.st_ctim)};
    append(&record, NULL, NULL, data);
}

/* The folder's inode and the last part of a path; false when there is no such folder. */
static bool split(const char *path, uint64_t *ret_folder, const char **ret_name)
{
    char parent[4096];
    const char *slash = strrchr(path, '/');
    if (slash == NULL || slash == path || (size_t)(slash - path) >= sizeof parent)
        return false;
    memcpy(parent, path, (size_t)(slash - path));
    parent[slash - path] = 0;
    struct stat64 st;
    if (NEXT(int, stat64, const char *, struct stat64 *)(parent, &st) != 0)
        return false;
    *ret_folder = st.st_ino;
    *ret_name = slash + 1;
    return true;
}

void pc_note_names(enum pc_kind kind, const char *from, const char *to, const char *alive)
{
    struct record record = {.kind = kind};
    struct stat64 st;
    const char *name = NULL, *name2 = NULL;
    if (!split(from, &record.folder, &name) || (to != NULL && !split(to, &record.folder2, &name2)))
        abort();
    if (alive != NULL && pc_look(alive, -1, &st)) {
        record.inode = st.st_ino;
        record.mtime_ns = pc_ns_of(&st.st_mtim);
        record.ctime_ns = pc_ns_of(&st.st_ctim);
    }
    record.name_bytes = (uint32_t)strlen(name);
    record.name2_bytes = name2 != NULL ? (uint32_t)strlen(name2) : 0;
    append(&record, name, name2, NULL);
}

static void append_mark(const char *text)
{
    struct record record = {.kind = PC_MARK, .data_bytes = (uint32_t)strlen(text)};
    append(&record, NULL, NULL, text);
}

/* For the test: a line of text at its place among the changes. */
void powercut_mark(const char *text);
void powercut_mark(const char *text)
{
    if (journal < 0)
        return;
    pc_enter();
    append_mark(text);
    pc_leave();
}

/* For the test: kill -9 of a child, between two records of it; the mark is the place. It is still to be waited for. */
void powercut_kill(int pid, const char *mark);
void powercut_kill(int pid, const char *mark)
{
    siginfo_t info;
    if (journal < 0)
        abort();
    pc_enter();
    if (kill(pid, SIGKILL) != 0)
        abort();
    while (waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT) != 0)
        if (errno != EINTR)
            abort();
    append_mark(mark);
    pc_leave();
}

/* ------------------------------------------------------------------ mappings */

/* Another process may have changed the page since it was recorded last, and be dead: so what is there now is recorded too. */
void pc_map(void *at, size_t bytes, ino_t inode)
{
    for (int i = 0; i < MAPS_MAX; i++) {
        if (maps[i].at != NULL)
            continue;
        uint8_t *known = calloc(1, bytes);
        if (known == NULL)
            abort();
        maps[i] = (struct map){.at = at, .known = known, .bytes = bytes, .inode = inode};
        record_maps();
        return;
    }
    abort();
}

bool pc_is_mapped(const void *at)
{
    bool ours = false;
    for (int i = 0; i < MAPS_MAX; i++)
        ours = ours || maps[i].at == at;
    return ours && at != NULL;
}

void pc_unmap(const void *at)
{
    for (int i = 0; i < MAPS_MAX; i++) {
        if (maps[i].at == at) {
            free(maps[i].known);
            maps[i] = (struct map){.at = NULL};
        }
    }
}
