/*
 * thread.c - see thread.h.
 */
#include "vfs/base/thread.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#define WAY_NICE 10 /* a tenth of the weight of a thread with the usual priority */

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

void lj_thread_give_way(void)
{
    /* on Linux the nice value is a thread's own; a thread that has a higher one keeps it */
    id_t self = (id_t)syscall(SYS_gettid);
    if (getpriority(PRIO_PROCESS, self) < WAY_NICE)
        (void)setpriority(PRIO_PROCESS, self, WAY_NICE);
}
