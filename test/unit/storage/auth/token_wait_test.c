/* token_wait_test.c - who waits for a credential that another thread fetches: cancelled, failing together, and after a fork. */
#include "test/unit/unit.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vfs/base/cancel.h"
#include "vfs/base/clock.h"
#include "vfs/storage/auth/token.h"

#define WAITERS 6u

typedef struct {
    atomic_uint calls;
    atomic_bool hold; /* takes until this is false */
    atomic_bool fails;
} service;

/* Ends early when whoever asks is cancelled, as every lj_http request does. */
static lj_code fetch(void *ctx, lj_token *ret_token, lj_error *err)
{
    service *s = ctx;
    unsigned n = atomic_fetch_add(&s->calls, 1) + 1;
    while (atomic_load(&s->hold)) {
        if (lj_cancel_requested(NULL))
            return lj_error_set(err, LJ_CANCELLED, "cancelled");
        lj_clock_sleep_ns(LJ_NS_PER_MS);
    }
    if (atomic_load(&s->fails)) {
        lj_error_set(err, LJ_UNAVAILABLE, "attempt %u failed", n);
        return lj_error_retryable(err, true);
    }
    return lj_secret_set(&ret_token->values[0], "token", err);
}

static void forget(void *ctx)
{
    (void)ctx; /* the test's */
}

static const lj_token_ops ops = {.fetch = fetch, .free = forget};

typedef struct {
    lj_token_source *source;
    const bool *cancel;
    const bool *given_up; /* the thread's own flag */
    lj_code code;
    lj_error err;
    atomic_bool begun;
    _Atomic int64_t end_ns; /* 0: not yet */
} getter;

static void *get(void *ctx)
{
    getter *g = ctx;
    atomic_store(&g->begun, true);
    lj_token token = LJ_TOKEN_INIT;
    lj_cancel_swap(g->given_up);
    g->code = lj_token_get_until(g->source, g->cancel, &token, &g->err);
    g->end_ns = lj_clock_mono_ns();
    if (g->code == LJ_OK && strcmp(lj_secret_text(&token.values[0]), "token") != 0)
        g->code = LJ_INTERNAL;
    lj_token_free(&token);
    return NULL;
}

static lj_token_source *open_source(const char *key, service *s)
{
    lj_error err = LJ_ERROR_INIT;
    lj_token_source *source = NULL;
    assert_ok(lj_token_source_open(key, &ops, s, &source, &err), &err);
    return source;
}

static void start(pthread_t *thread, getter *g)
{
    assert_int_equal(pthread_create(thread, NULL, get, g), 0);
}

static void wait_for_calls(service *s, unsigned calls)
{
    for (unsigned ms = 0; atomic_load(&s->calls) < calls && ms < 60000; ms++)
        lj_clock_sleep_ns(LJ_NS_PER_MS);
    assert_int_equal(atomic_load(&s->calls), calls);
}

/* It has called, and some time went by: now it waits for who fetches. */
static void wait_for_waiter(getter *g)
{
    for (unsigned ms = 0; !atomic_load(&g->begun) && ms < 60000; ms++)
        lj_clock_sleep_ns(LJ_NS_PER_MS);
    lj_clock_sleep_ns(100 * LJ_NS_PER_MS);
}

/* Who is cancelled does not wait for the fetch, which lasts as long as the test wants. 0.2 s, and patience with a busy machine. */
static void expect_soon(int64_t since_ns, int64_t end_ns)
{
    assert_in_range((end_ns - since_ns) / LJ_NS_PER_MS, 0, 2000);
}

static void a_failure_is_shared(void **state)
{
    (void)state;
    service s = {.hold = true, .fails = true};
    lj_token_source *source = open_source("shared", &s);
    getter getters[WAITERS];
    pthread_t threads[WAITERS];
    for (unsigned i = 0; i < WAITERS; i++) {
        getters[i] = (getter){.source = source};
        start(&threads[i], &getters[i]);
    }
    wait_for_calls(&s, 1);
    for (unsigned i = 0; i < WAITERS; i++)
        wait_for_waiter(&getters[i]);
    atomic_store(&s.hold, false);
    for (unsigned i = 0; i < WAITERS; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(getters[i].code, LJ_UNAVAILABLE);
        assert_true(getters[i].err.retryable);
        assert_string_equal(getters[i].err.message, "attempt 1 failed");
    }
    assert_int_equal(atomic_load(&s.calls), 1);
    getter later = {.source = source}; /* who comes later tries anew */
    get(&later);
    assert_string_equal(later.err.message, "attempt 2 failed");
    lj_token_source_close(source);
}

static void a_waiter_is_cancelled(void **state)
{
    (void)state;
    service s = {.hold = true};
    lj_token_source *source = open_source("waiter", &s);
    bool flag = false;
    getter getters[] = {{.source = source}, {.source = source, .cancel = &flag}};
    pthread_t threads[2];
    start(&threads[0], &getters[0]);
    wait_for_calls(&s, 1);
    start(&threads[1], &getters[1]);
    wait_for_waiter(&getters[1]);
    int64_t set_ns = lj_clock_mono_ns();
    __atomic_store_n(&flag, true, __ATOMIC_RELAXED);
    pthread_join(threads[1], NULL);
    assert_int_equal(getters[1].code, LJ_CANCELLED);
    expect_soon(set_ns, getters[1].end_ns);
    atomic_store(&s.hold, false);
    pthread_join(threads[0], NULL);
    assert_ok(getters[0].code, &getters[0].err);
    assert_int_equal(atomic_load(&s.calls), 1);
    lj_token_source_close(source);
}

/* The one that fetches is cancelled: that is nobody else's failure, the next one fetches. */
static void the_fetcher_is_cancelled(void **state)
{
    (void)state;
    service s = {.hold = true};
    lj_token_source *source = open_source("fetcher", &s);
    bool flag = false;
    getter getters[] = {{.source = source, .cancel = &flag}, {.source = source}};
    pthread_t threads[2];
    start(&threads[0], &getters[0]);
    wait_for_calls(&s, 1);
    start(&threads[1], &getters[1]);
    wait_for_waiter(&getters[1]);
    int64_t set_ns = lj_clock_mono_ns();
    __atomic_store_n(&flag, true, __ATOMIC_RELAXED);
    pthread_join(threads[0], NULL);
    assert_int_equal(getters[0].code, LJ_CANCELLED);
    expect_soon(set_ns, getters[0].end_ns);
    atomic_store(&s.hold, false);
    pthread_join(threads[1], NULL);
    assert_ok(getters[1].code, &getters[1].err);
    assert_int_equal(atomic_load(&s.calls), 2);
    lj_token_source_close(source);
}

/* The request that a credential is fetched for is given up, though its store goes on: for who fetches, and for who waits. */
static void the_request_is_given_up(void **state)
{
    (void)state;
    service s = {.hold = true};
    lj_token_source *source = open_source("given up", &s);
    bool close = false;
    bool flags[2] = {false, false};
    getter getters[2];
    pthread_t threads[2];
    for (unsigned i = 0; i < 2; i++) {
        getters[i] = (getter){.source = source, .cancel = &close, .given_up = &flags[i]};
        start(&threads[i], &getters[i]);
        wait_for_calls(&s, 1);
        wait_for_waiter(&getters[i]);
    }
    for (unsigned i = 2; i-- > 0;) {
        int64_t set_ns = lj_clock_mono_ns();
        __atomic_store_n(&flags[i], true, __ATOMIC_RELAXED);
        for (unsigned ms = 0; atomic_load(&getters[i].end_ns) == 0 && ms < 3000; ms++)
            lj_clock_sleep_ns(LJ_NS_PER_MS);
        atomic_store(&s.hold, atomic_load(&getters[i].end_ns) != 0); /* a failure ends, too */
        pthread_join(threads[i], NULL);
        assert_int_equal(getters[i].code, LJ_CANCELLED);
        expect_soon(set_ns, getters[i].end_ns);
    }
    getter later = {.source = source, .cancel = &close}; /* that was the request's affair */
    atomic_store(&s.hold, false);
    get(&later);
    assert_ok(later.code, &later.err);
    lj_token_source_close(source);
}

/* The child has no thread that fetches: it does not wait for it. */
static void fork_while_fetching(void **state)
{
    (void)state;
    service s = {.hold = true};
    lj_token_source *source = open_source("fork", &s);
    getter g = {.source = source};
    pthread_t thread;
    start(&thread, &g);
    wait_for_calls(&s, 1);
    pid_t pid = fork();
    if (pid == 0) {
        alarm(60);
        atomic_store(&s.hold, false);
        getter mine = {.source = source};
        get(&mine);
        lj_token_source_close(source);
        _exit(mine.code == LJ_OK ? 0 : 3);
    }
    int status = -1;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    atomic_store(&s.hold, false);
    pthread_join(thread, NULL);
    assert_ok(g.code, &g.err);
    lj_token_source_close(source);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_failure_is_shared),      cmocka_unit_test(a_waiter_is_cancelled),
        cmocka_unit_test(the_fetcher_is_cancelled), cmocka_unit_test(the_request_is_given_up),
        cmocka_unit_test(fork_while_fetching),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
