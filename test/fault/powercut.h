/*
 * powercut.h - the journal of powercut.c: who writes a record holds it, from before the call to behind its record.
 *
 * Layer: test. Thread-safety: everything between pc_enter and pc_leave, but where it says otherwise.
 */
#ifndef LJ_POWERCUT_H
#define LJ_POWERCUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

#define PC_NS_PER_S INT64_C(1000000000)

enum pc_kind {
    PC_CREATE = 1,
    PC_WRITE,
    PC_LENGTH,
    PC_SYNC,
    PC_RENAME,
    PC_EXCHANGE,
    PC_LINK,
    PC_UNLINK,
    PC_MKDIR,
    PC_RMDIR,
    PC_TIMES,
    PC_MAPPED,
    PC_MARK
};

/* Whether anything is recorded. At any time. */
bool pc_recording(void);
/* Whether changes of `path` are recorded. At any time. */
bool pc_below(const char *path);
bool pc_is_journal(int fd);

/*
 * The journal is ours, and nobody else's in any process, until pc_leave; what was changed in mappings before is recorded. errno
 * stays as it is.
 */
void pc_enter(void);
void pc_leave(void);

/* What stat says, without powercut_identity()'s answers: of `path`, or of `fd` when that is NULL. At any time. */
bool pc_look(const char *path, int fd, struct stat64 *ret_st);
/* One change of an open file. */
void pc_note_fd(enum pc_kind kind, int fd, int64_t offset, const void *data, size_t size);
/* A change of names. `to` may be NULL. The file's own state is what it is under `alive` (NULL: it has no name any more). */
void pc_note_names(enum pc_kind kind, const char *from, const char *to, const char *alive);

/* A writable shared mapping of a file that is recorded begins. */
void pc_map(void *at, size_t bytes, ino_t inode);
/* Whether there is one. At any time. */
bool pc_is_mapped(const void *at);
void pc_unmap(const void *at);

static inline int64_t pc_ns_of(const struct timespec *t)
{
    return (int64_t)t->tv_sec * PC_NS_PER_S + t->tv_nsec;
}

#endif
