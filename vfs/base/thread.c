/*
 * thread.c - see thread.h.
 */
#include "vfs/base/thread.h"

#include <signal.h>

unsigned lj_threads_start(pthread_t *threads, unsigned wanted, size_t stack_bytes,
                          void *(*run)(void *ctx), void *ctx)
{
    pthread_attr_t attr;
    sigset_t all;
    sigset_t old;
    if (wanted == 0 || pthread_attr_init(&attr) != 0)
        return 0;
    pthread_attr_setstacksize(&attr, stack_bytes);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    unsigned started = 0;
    while (started < wanted && pthread_create(&threads[started], &attr, run, ctx) == 0)
        started++;
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attr);
    return started;
}
