/*
 * thread.c - see thread.h.
 */
#include "vfs/base/thread.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "vfs/base/clock.h"

#define WAY_NICE     10 /* a tenth of the weight of a thread with the usual priority */
#define WAY_SLICE_NS (LJ_NS_PER_MS / 10)

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

/*
 * How long a thread that has got a processor keeps it when another one wakes up. Linux (6.12 and later) lets a thread that waited have 3 ms
 * before it looks at anybody's nice value again: a commit would wait for that.
 */
static void shorten_slice(int nice_value)
{
#ifdef SYS_sched_setattr
    struct {
        uint32_t size, policy;
        uint64_t flags;
        int32_t nice;
        uint32_t priority;
        uint64_t runtime, deadline, period;
    } attr = {
        .size = sizeof(attr), .policy = SCHED_OTHER, .nice = nice_value, .runtime = WAY_SLICE_NS};
    (void)syscall(SYS_sched_setattr, 0, &attr, 0u);
#endif
}

void lj_thread_give_way(void)
{
    /* on Linux the nice value is a thread's own, inherited from the host's thread that started it */
    id_t self = (id_t)syscall(SYS_gettid);
    errno = 0;
    int inherited = getpriority(PRIO_PROCESS, self);
    if (errno == 0) {
        int nice_value = LJ_MIN(inherited + WAY_NICE, 19);
        (void)setpriority(PRIO_PROCESS, self, nice_value);
        shorten_slice(nice_value);
    }
}
