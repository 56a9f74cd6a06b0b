/*
 * powercut_identity.c - gives rebuilt files the identity they had: powercut_identity() makes stat() of one file answer with the
 * inode and times that file had before the cut, until it is changed.
 */
#define _GNU_SOURCE
#include "powercut.h"

#include <stdlib.h>

#include "../lib/interpose.h"

#define IDENTITIES_MAX 64

static struct identity {
    ino_t now;        /* what the file has got by being rebuilt */
    int64_t ctime_ns; /* until this changes ... */
    ino_t inode;      /* ... it is what it was */
    int64_t mtime_before_ns, ctime_before_ns;
} identities[IDENTITIES_MAX];
static unsigned identity_count;

/* Not while others call stat. count 0: forget all of them. */
void powercut_identity(const char *path, uint64_t inode, int64_t mtime_ns, int64_t ctime_ns);
void powercut_identity(const char *path, uint64_t inode, int64_t mtime_ns, int64_t ctime_ns)
{
    struct stat64 st;
    if (path == NULL) {
        identity_count = 0;
        return;
    }
    if (identity_count == IDENTITIES_MAX || !pc_look(path, -1, &st))
        abort();
    identities[identity_count++] =
        (struct identity){st.st_ino, pc_ns_of(&st.st_ctim), inode, mtime_ns, ctime_ns};
}

static void set_time(struct timespec *t, int64_t ns)
{
    t->tv_sec = (time_t)(ns / PC_NS_PER_S);
    t->tv_nsec = (long)(ns % PC_NS_PER_S);
}

static int as_before(int rc, struct stat64 *st)
{
    for (unsigned i = 0; rc == 0 && i < identity_count; i++) {
        const struct identity *known = &identities[i];
        if (known->now != st->st_ino)
            continue;
        st->st_ino = known->inode;
        if (pc_ns_of(&st->st_ctim) == known->ctime_ns) {
            set_time(&st->st_mtim, known->mtime_before_ns);
            set_time(&st->st_ctim, known->ctime_before_ns);
        }
        break;
    }
    return rc;
}

/* On 64-bit Linux both structs are one. */
_Static_assert(sizeof(struct stat) == sizeof(struct stat64), "stat is stat64");

#define STAT(name, type)                                                                           \
    int name(const char *path, type *st)                                                           \
    {                                                                                              \
        return as_before(NEXT(int, name, const char *, type *)(path, st), (struct stat64 *)st);    \
    }
STAT(stat, struct stat)
STAT(stat64, struct stat64)
STAT(lstat, struct stat)
STAT(lstat64, struct stat64)

#define FSTAT(name, type)                                                                          \
    int name(int fd, type *st)                                                                     \
    {                                                                                              \
        return as_before(NEXT(int, name, int, type *)(fd, st), (struct stat64 *)st);               \
    }
FSTAT(fstat, struct stat)
FSTAT(fstat64, struct stat64)
