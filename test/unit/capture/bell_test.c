/*
 * bell_test.c - who rings hears whether somebody listens, and is never hurt by it: SIGPIPE of a thread of the application stays
 * what it was.
 */
#include "test/unit/unit.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "vfs/base/clock.h"
#include "vfs/capture/bell.h"

static char folder[32];
static char path[48];
static atomic_int rung;
static atomic_int pipe_signals;

static int make_folder(void **state)
{
    (void)state;
    snprintf(folder, sizeof(folder), "/tmp/lj-bell-XXXXXX");
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/bell", folder);
    atomic_store(&rung, 0);
    atomic_store(&pipe_signals, 0);
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(folder);
}

static void hear(void *ctx, bool gone)
{
    (void)ctx;
    if (!gone)
        atomic_fetch_add(&rung, 1);
}

static void ignore(void *ctx, bool gone)
{
    (void)ctx;
    (void)gone;
}

static void count_signal(int number)
{
    (void)number;
    atomic_fetch_add(&pipe_signals, 1);
}

static bool is_pending(void)
{
    sigset_t set;
    sigpending(&set);
    return sigismember(&set, SIGPIPE) != 0;
}

static bool is_blocked(void)
{
    sigset_t set;
    pthread_sigmask(SIG_SETMASK, NULL, &set);
    return sigismember(&set, SIGPIPE) != 0;
}

static void a_ring_is_heard(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    lj_bell *listener = NULL;
    lj_bell *bell = NULL;
    assert_ok(lj_bell_listen(path, hear, NULL, &listener, &err), &err);
    assert_ok(lj_bell_reach(path, ignore, NULL, &bell, &err), &err);
    assert_true(lj_bell_ring_quietly(bell));
    assert_false(is_blocked());
    int64_t deadline_ns = lj_clock_mono_ns() + 30 * LJ_NS_PER_S;
    while (atomic_load(&rung) == 0) {
        assert_true(lj_clock_mono_ns() < deadline_ns);
        lj_clock_sleep_ns(LJ_NS_PER_MS);
    }
    lj_bell_close(bell);
    lj_bell_close(listener);
}

/* The listener has ended, and the kernel's word of it was not heard yet. */
static void nobody_listens_and_no_signal_comes(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    struct sigaction count = {.sa_handler = count_signal};
    struct sigaction before;
    sigset_t set;
    lj_bell *listener = NULL;
    lj_bell *bell = NULL;
    sigemptyset(&set);
    sigaddset(&set, SIGPIPE);
    assert_int_equal(sigaction(SIGPIPE, &count, &before), 0);
    assert_ok(lj_bell_listen(path, hear, NULL, &listener, &err), &err);
    assert_ok(lj_bell_reach(path, ignore, NULL, &bell, &err), &err);
    lj_bell_close(listener);
    assert_false(lj_bell_ring_quietly(bell));
    assert_false(is_blocked());
    assert_false(is_pending());
    assert_int_equal(atomic_load(&pipe_signals), 0);

    /* one that the application has, and has not taken yet, is still its own */
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    raise(SIGPIPE);
    assert_false(lj_bell_ring_quietly(bell));
    assert_true(is_blocked() && is_pending());
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    assert_int_equal(atomic_load(&pipe_signals), 1);
    lj_bell_close(bell);
    sigaction(SIGPIPE, &before, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_ring_is_heard, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(nobody_listens_and_no_signal_comes, make_folder,
                                        remove_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
