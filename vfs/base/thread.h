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

#endif
