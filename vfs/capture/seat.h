/*
 * seat.h - the file `.NAME-litejoin/lock` and what is locked on it: who uploads, who is there, who changes the shared page.
 *
 *   the whole file, flock      the uploader, as long as it lives
 *   byte 0, exclusive          whoever changes the shared page, for the time of some memory accesses
 *   byte 1, exclusive          a process that has the database for itself and decides how to go on (attach.h)
 *   byte 1, shared             every process that takes part, as long as it has the database open
 *   byte 2, exclusive          the process whose transaction is pending (pending.h), as long as it is
 *
 * The bytes are locked by open file descriptions (F_OFD_SETLK): unlike POSIX locks they are not lost when another descriptor
 * of the file is closed, and a child of fork does not take them along once it closed its copy. The kernel frees all of
 * them when a process dies, and keeps them while one is stopped. SQLite never opens this file.
 *
 * Layer: capture. Thread-safety: one descriptor per database and process; its owner (lj_db) keeps threads apart.
 */
#ifndef LJ_SEAT_H
#define LJ_SEAT_H

#include "vfs/base/error.h"

/* Opens the file, creating it. The caller owns *ret_fd: lj_seat_leave. */
LJ_WARN_UNUSED lj_code lj_seat_open(const char *path, int *ret_fd, lj_error *err);
/* Unlocks everything, the uploader's lock first, and closes. -1 is nothing. */
void lj_seat_leave(int fd);

/* Tries to become the uploader. */
bool lj_seat_lead(int fd);
/* Tries to get byte 1 exclusively: nobody else takes part, and nobody can until lj_seat_join. */
bool lj_seat_alone(int fd);
/* Tries to get byte 1 shared, in place of an exclusive lock if there is one. false: somebody is alone. */
bool lj_seat_join(int fd);
/* Gives byte 1 back. */
void lj_seat_part(int fd);
/* Another process takes part. */
bool lj_seat_company(int fd);

/* Byte 2: takes it or gives it back; and whether another process has it. */
void lj_seat_pends(int fd, bool pends);
bool lj_seat_other_pends(int fd);

/*
 * Byte 0. Whoever holds it only reads and writes memory, so a wait is short unless that process was stopped at that
 * moment: hence the limit. false = not within timeout_ns (0: one try).
 */
bool lj_seat_lock_page(int fd, int64_t timeout_ns);
void lj_seat_unlock_page(int fd);

#endif
