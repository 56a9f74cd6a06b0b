/*
 * bell.h - how processes with one database wake the one that uploads, and learn that it is gone: a FIFO, `.NAME-litejoin/bell`.
 *
 * The uploader listens: it holds both ends of the FIFO, so that it never sees an end of file. The others hold the writing
 * end; a byte means "look at the shared page and at the WAL". When the last listener goes, however it goes, the kernel says
 * so to every holder of the writing end at once. Nobody polls.
 *
 * One thread per process waits for all its bells, started with the first of them, with all signals blocked.
 *
 * Layer: capture. Thread-safety: every function, from any thread, but one bell is closed once. The mutex is a leaf; the callback
 * runs under no lock. A descriptor per bell.
 */
#ifndef LJ_BELL_H
#define LJ_BELL_H

#include "vfs/base/error.h"

typedef struct lj_bell lj_bell;

/* In the thread of the bells: somebody rang, or (for who reached it) nobody listens any more, told once. Never closes the bell. */
typedef void (*lj_bell_fn)(void *ctx, bool gone);

/* Makes the FIFO if there is none and listens. What a former listener was told and did not hear is heard now. */
LJ_WARN_UNUSED lj_code lj_bell_listen(const char *path, lj_bell_fn fn, void *ctx,
                                      lj_bell **ret_bell, lj_error *err);
/* LJ_NOTFOUND: nobody listens. */
LJ_WARN_UNUSED lj_code lj_bell_reach(const char *path, lj_bell_fn fn, void *ctx, lj_bell **ret_bell,
                                     lj_error *err);
/*
 * Rings; a bell that is ringing already stays so. Only in threads that block SIGPIPE (ours do): without a listener the write
 * raises it. false = nobody listens.
 */
bool lj_bell_ring(const lj_bell *bell);
/* The same in a thread of the application, which may not have SIGPIPE blocked: none comes of it, and none of its own is lost. */
bool lj_bell_ring_quietly(const lj_bell *bell);
/* Waits until the callback does not run, and never runs it again; the others do not notice. NULL is nothing. */
void lj_bell_hush(lj_bell *bell);
/* The same, and is gone. */
void lj_bell_close(lj_bell *bell);

/* Around a fork: the child has no bells and no thread, and its copies of the descriptors are closed. */
void lj_bell_before_fork(void);
void lj_bell_in_parent(void);
void lj_bell_in_child(void);

#endif
