/*
 * fasttime.c - LD_PRELOAD library that lets a process's clocks run faster, from a moment on that a test chooses.
 *
 * Environment: LJ_FASTTIME = a file of struct schedule (native order), which the test writes at any time (fasttime.py). The
 * test says from when on which speed counts, not the process when it first looks: a process that is really idle looks at no
 * clock, and time must pass for it all the same. Wall and monotonic time run on together and never go back. Sleeps and waits
 * on condition variables end when their time is over on the fast clock; waits for the network (poll) take the time they take.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_S INT64_C(1000000000)
#define SLICE_NS (20 * INT64_C(1000000))

/* Written by one process, read by another without a lock: `changes` is odd during a change, and another one after it. */
struct schedule {
    uint64_t changes;
    int64_t since_ns; /* CLOCK_MONOTONIC, real: from here on ... */
    int64_t ahead_ns; /* ... the fast clocks, so far ahead by then, ... */
    double speed;     /* ... pass so many seconds per real second */
};

static const volatile struct schedule *schedule;

static int64_t real_ns(clockid_t clock)
{
    struct timespec t;
    syscall(SYS_clock_gettime, clock, &t); /* not our own clock_gettime */
    return (int64_t)t.tv_sec * NS_PER_S + t.tv_nsec;
}

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("LJ_FASTTIME");
    int fd = path != NULL ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0)
        return;
    void *map = mmap(NULL, sizeof(struct schedule), PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    if (map != MAP_FAILED)
        schedule = map;
}

static int64_t scheduled(void)
{
    for (;;) {
        uint64_t changes = __atomic_load_n(&schedule->changes, __ATOMIC_ACQUIRE);
        int64_t since_ns = schedule->since_ns;
        int64_t ahead_ns = schedule->ahead_ns;
        double speed = schedule->speed;
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
        if (changes % 2 == 0 && changes == __atomic_load_n(&schedule->changes, __ATOMIC_RELAXED))
            return ahead_ns +
                   (int64_t)((double)(real_ns(CLOCK_MONOTONIC) - since_ns) * (speed - 1.0));
    }
}

/*
 * How much later it is than the real clocks say. Never less than before: who looks between the moment of a change and its
 * being written is ahead of the schedule.
 */
static int64_t ahead(void)
{
    static int64_t highest_ns;
    if (schedule == NULL)
        return 0;
    int64_t result_ns = scheduled();
    int64_t seen_ns = __atomic_load_n(&highest_ns, __ATOMIC_RELAXED);
    while (result_ns > seen_ns) {
        if (__atomic_compare_exchange_n(&highest_ns, &seen_ns, result_ns, true, __ATOMIC_RELAXED,
                                        __ATOMIC_RELAXED))
            return result_ns;
    }
    return seen_ns;
}

static bool runs_fast(clockid_t clock)
{
    return clock == CLOCK_REALTIME || clock == CLOCK_MONOTONIC || clock == CLOCK_BOOTTIME ||
           clock == CLOCK_REALTIME_COARSE || clock == CLOCK_MONOTONIC_COARSE;
}

int clock_gettime(clockid_t clock, struct timespec *t)
{
    if (!runs_fast(clock))
        return (int)syscall(SYS_clock_gettime, clock, t);
    int64_t ns = real_ns(clock) + ahead();
    t->tv_sec = (time_t)(ns / NS_PER_S);
    t->tv_nsec = (long)(ns % NS_PER_S);
    return 0;
}

int gettimeofday(struct timeval *restrict t, void *restrict zone)
{
    (void)zone;
    int64_t ns = real_ns(CLOCK_REALTIME) + ahead();
    t->tv_sec = (time_t)(ns / NS_PER_S);
    t->tv_usec = (suseconds_t)(ns % NS_PER_S / 1000);
    return 0;
}

time_t time(time_t *ret)
{
    time_t t = (time_t)((real_ns(CLOCK_REALTIME) + ahead()) / NS_PER_S);
    if (ret != NULL)
        *ret = t;
    return t;
}

static int64_t fast_monotonic_ns(void)
{
    return real_ns(CLOCK_MONOTONIC) + ahead();
}

static void sleep_until(int64_t fast_ns)
{
    while (fast_monotonic_ns() < fast_ns) {
        struct timespec slice = {0, 1000000};
        syscall(SYS_nanosleep, &slice, NULL);
    }
}

int nanosleep(const struct timespec *want, struct timespec *left)
{
    sleep_until(fast_monotonic_ns() + (int64_t)want->tv_sec * NS_PER_S + want->tv_nsec);
    if (left != NULL)
        *left = (struct timespec){0, 0};
    return 0;
}

int usleep(useconds_t us)
{
    sleep_until(fast_monotonic_ns() + (int64_t)us * 1000);
    return 0;
}

int clock_nanosleep(clockid_t clock, int flags, const struct timespec *want, struct timespec *left)
{
    int64_t ns = (int64_t)want->tv_sec * NS_PER_S + want->tv_nsec;
    if ((flags & TIMER_ABSTIME) != 0)
        ns -= real_ns(clock) + ahead();
    sleep_until(fast_monotonic_ns() + ns);
    if (left != NULL)
        *left = (struct timespec){0, 0};
    return 0;
}

typedef int (*timedwait_fn)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);

/*
 * Whether the condition uses the wall clock is not visible here: a time of this century is one. In slices, because the
 * speed may change meanwhile.
 */
int pthread_cond_timedwait(pthread_cond_t *restrict cond, pthread_mutex_t *restrict lock,
                           const struct timespec *restrict until)
{
    timedwait_fn next = (timedwait_fn)dlvsym(RTLD_NEXT, "pthread_cond_timedwait", "GLIBC_2.3.2");
    if (next == NULL)
        next = (timedwait_fn)dlsym(RTLD_NEXT, "pthread_cond_timedwait");
    clockid_t clock = until->tv_sec > 1000000000 ? CLOCK_REALTIME : CLOCK_MONOTONIC;
    int64_t until_ns = (int64_t)until->tv_sec * NS_PER_S + until->tv_nsec;
    for (;;) {
        int64_t now_ns = real_ns(clock);
        int64_t left_ns = until_ns - (now_ns + ahead());
        if (left_ns <= 0)
            left_ns = 0;
        int64_t end_ns = now_ns + (left_ns < SLICE_NS ? left_ns : SLICE_NS);
        struct timespec end = {(time_t)(end_ns / NS_PER_S), (long)(end_ns % NS_PER_S)};
        int rc = next(cond, lock, &end);
        if (rc != ETIMEDOUT || real_ns(clock) + ahead() >= until_ns)
            return rc;
    }
}
