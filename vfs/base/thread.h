/*
 * thread.h - threads of ours in someone else's process.
 *
 * Layer: base. Thread-safety: pure.
 */
#ifndef LJ_THREAD_H
#define LJ_THREAD_H

#include <pthread.h>

#include "vfs/base/base.h"

/*
 * Starts up to `wanted` joinable threads that run `run(ctx)`, each with this stack and with all signals blocked, which are the
 * host's. Returns how many there are, the first of `threads`: fewer, or none, where the system has no more to give.
 */
unsigned lj_threads_start(pthread_t *threads, unsigned wanted, size_t stack_bytes,
                          void *(*run)(void *ctx), void *ctx);

/*
 * The calling thread gives way to those of the host: on a machine whose processors are all busy, a snapshot that is compressed
 * must not cost a commit its turn. Threads that it starts do the same. There is no way back without privileges, so only for
 * threads of ours that are never waited for while a lock of the host is held.
 */
void lj_thread_give_way(void);

#endif
