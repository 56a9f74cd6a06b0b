/*
 * token_test.c - a credential is shared by its key, fetched by one thread, refreshed before it expires, and kept when that
 * fails.
 */
#include "test/unit/unit.h"

#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vfs/base/cancel.h"
#include "vfs/base/clock.h"
#include "vfs/base/log.h"
#include "vfs/storage/auth/token.h"

#define MS LJ_NS_PER_MS

/* What the fake credential service does; one at a time. */
static struct {
    pthread_mutex_t mutex;
    unsigned fetches;
    unsigned freed;
    int64_t life_ns; /* of a credential; 0: for ever */
    int64_t takes_ns;
    lj_code fails; /* LJ_OK: it does not */
} fake = {.mutex = PTHREAD_MUTEX_INITIALIZER};

static unsigned warnings;

/* ---- kit ---- */

static void count_warning(void *ctx, lj_log_level level, const char *line)
{
    (void)ctx, (void)line;
    if (level == LJ_LOG_WARN)
        __atomic_add_fetch(&warnings, 1, __ATOMIC_RELAXED);
}

static int setup(void **state)
{
    (void)state;
    fake.fetches = 0;
    fake.freed = 0;
    fake.life_ns = 0;
    fake.takes_ns = 0;
    fake.fails = LJ_OK;
    warnings = 0;
    lj_log_install(count_warning, NULL, LJ_LOG_DEBUG);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    lj_log_install(NULL, NULL, LJ_LOG_ERROR);
    return 0;
}

static void set_fails(lj_code code)
{
    pthread_mutex_lock(&fake.mutex);
    fake.fails = code;
    pthread_mutex_unlock(&fake.mutex);
}

static void set_life(int64_t life_ns)
{
    pthread_mutex_lock(&fake.mutex);
    fake.life_ns = life_ns;
    pthread_mutex_unlock(&fake.mutex);
}

static void set_takes(int64_t takes_ns)
{
    pthread_mutex_lock(&fake.mutex);
    fake.takes_ns = takes_ns;
    pthread_mutex_unlock(&fake.mutex);
}

static unsigned fetches(void)
{
    pthread_mutex_lock(&fake.mutex);
    unsigned n = fake.fetches;
    pthread_mutex_unlock(&fake.mutex);
    return n;
}

static lj_code fetch(void *ctx, lj_token *ret_token, lj_error *err)
{
    (void)ctx;
    pthread_mutex_lock(&fake.mutex);
    unsigned number = ++fake.fetches;
    lj_code fails = fake.fails;
    int64_t life_ns = fake.life_ns;
    int64_t end_ns = lj_clock_mono_ns() + fake.takes_ns;
    pthread_mutex_unlock(&fake.mutex);
    while (lj_clock_mono_ns() < end_ns) {
        if (lj_cancel_requested(NULL))
            return lj_error_set(err, LJ_CANCELLED, "cancelled");
        lj_clock_sleep_ns(5 * MS);
    }
    if (fails != LJ_OK) {
        lj_error_set(err, fails, "refused %u", number);
        return lj_error_retryable(err, true);
    }
    char text[32];
    snprintf(text, sizeof(text), "token %u", number);
    ret_token->expires_ns = life_ns != 0 ? lj_clock_wall_ns() + life_ns : 0;
    return lj_secret_set(&ret_token->values[0], text, err);
}

static void free_ctx(void *ctx)
{
    (void)ctx;
    pthread_mutex_lock(&fake.mutex);
    fake.freed++;
    pthread_mutex_unlock(&fake.mutex);
}

static const lj_token_ops ops = {.fetch = fetch, .free = free_ctx};

static lj_token_source *open_source(const char *key, const lj_token_ops *with)
{
    lj_error err = LJ_ERROR_INIT;
    lj_token_source *source = NULL;
    assert_ok(lj_token_source_open(key, with, NULL, &source, &err), &err);
    return source;
}

static void expect_token(lj_token_source *source, const char *want)
{
    lj_error err = LJ_ERROR_INIT;
    lj_token token = LJ_TOKEN_INIT;
    assert_ok(lj_token_get(source, &token, &err), &err);
    assert_string_equal(lj_secret_text(&token.values[0]), want);
    lj_token_free(&token);
}

/* ---- tests ---- */

static void test_sources_are_shared_by_their_key(void **state)
{
    (void)state;
    lj_token_source *one = open_source("a", &ops);
    lj_token_source *same = open_source("a", &ops);
    lj_token_source *other = open_source("b", &ops);
    assert_ptr_equal(one, same);
    assert_ptr_not_equal(one, other);
    assert_int_equal(fake.freed, 1); /* the second one's ctx was not needed */
    expect_token(one, "token 1");
    expect_token(same, "token 1");
    expect_token(other, "token 2");
    lj_token_source_close(one);
    assert_int_equal(fake.freed, 1);
    expect_token(same, "token 1");
    lj_token_source_close(same);
    assert_int_equal(fake.freed, 2);
    one = open_source("a", &ops); /* nothing was kept of it */
    expect_token(one, "token 3");
    lj_token_source_close(one);
    lj_token_source_close(other);
    lj_token_source_close(NULL);
}

static void test_one_that_never_expires_is_fetched_once(void **state)
{
    (void)state;
    lj_token_source *source = open_source("a", &ops);
    for (int i = 0; i < 100; i++)
        expect_token(source, "token 1");
    assert_int_equal(fetches(), 1);
    lj_token_source_close(source);
}

/* A quarter of its life before the end, and in between nobody gets one that has expired. */
static void test_refresh_comes_before_the_end(void **state)
{
    (void)state;
    fake.life_ns = 800 * MS;
    lj_token_source *source = open_source("a", &ops);
    int64_t start_ns = lj_clock_mono_ns();
    expect_token(source, "token 1");
    set_life(3600 * LJ_NS_PER_S); /* the next one stays */
    lj_clock_sleep_ns(300 * MS);
    if (lj_clock_mono_ns() - start_ns < 550 * MS)
        expect_token(source, "token 1");
    lj_error err = LJ_ERROR_INIT;
    while (fetches() == 1 && lj_clock_mono_ns() - start_ns < 60 * LJ_NS_PER_S) {
        lj_token token = LJ_TOKEN_INIT;
        int64_t asked_ns = lj_clock_wall_ns();
        assert_ok(lj_token_get(source, &token, &err), &err);
        assert_true(token.expires_ns > asked_ns);
        lj_token_free(&token);
        lj_clock_sleep_ns(5 * MS);
    }
    assert_true(lj_clock_mono_ns() - start_ns >= 590 * MS);
    expect_token(source, "token 2");
    lj_token_source_close(source);
}

static void test_a_refresh_that_fails_leaves_the_old_one_until_it_expires(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    lj_token token = LJ_TOKEN_INIT;
    fake.life_ns = 6000 * MS;
    lj_token_source *source = open_source("a", &ops);
    expect_token(source, "token 1");
    int64_t end_ns = lj_clock_mono_ns() + fake.life_ns;
    set_fails(LJ_UNAVAILABLE);
    lj_clock_sleep_ns(4550 * MS); /* 1.5 s are left at 4.5, for a machine that is late */
    for (int i = 0; i < 20; i++)
        expect_token(source, "token 1");
    assert_int_equal(fetches(), 2); /* tried once, and not again at every call */
    assert_int_equal(warnings, 1);
    lj_clock_sleep_ns(LJ_MAX(end_ns + 50 * MS - lj_clock_mono_ns(), INT64_C(0)));
    assert_int_equal(lj_token_get(source, &token, &err), LJ_UNAVAILABLE);
    assert_string_equal(err.message, "refused 3");
    set_fails(LJ_OK);
    expect_token(source, "token 4");
    lj_token_source_close(source);
}

static void test_one_that_the_store_refused_is_fetched_anew(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    lj_token first = LJ_TOKEN_INIT;
    lj_token second = LJ_TOKEN_INIT;
    lj_token_source *source = open_source("a", &ops);
    assert_ok(lj_token_get(source, &first, &err), &err);
    lj_token_expired(source, &first);
    assert_ok(lj_token_get(source, &second, &err), &err);
    assert_string_equal(lj_secret_text(&second.values[0]), "token 2");
    assert_int_not_equal(first.serial, second.serial);
    lj_token_expired(source, &first); /* late: there is a newer one */
    expect_token(source, "token 2");
    lj_token_expired(source, &second);
    set_fails(LJ_DENIED);
    lj_token third = LJ_TOKEN_INIT;
    assert_int_equal(lj_token_get(source, &third, &err), LJ_DENIED); /* and does not come back */
    set_fails(LJ_OK);
    expect_token(source, "token 4");
    lj_token_free(&first);
    lj_token_free(&second);
    lj_token_source_close(source);
}

static void test_a_missing_credential_is_not_a_missing_object(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    lj_token token = LJ_TOKEN_INIT;
    lj_token_source *source = open_source("a", &ops);
    static const lj_code codes[] = {LJ_NOTFOUND, LJ_EXISTS};
    for (size_t i = 0; i < LJ_ARRAY_LEN(codes); i++) {
        set_fails(codes[i]);
        assert_int_equal(lj_token_get(source, &token, &err), LJ_DENIED);
        assert_int_equal(err.code, LJ_DENIED);
    }
    lj_token_source_close(source);
}

/* ---- threads ---- */

typedef struct {
    lj_token_source *source;
    const bool *cancel;
    lj_code code;
    lj_error err;
    int64_t took_ns;
    unsigned rounds;
    bool gap;
} worker;

static void *get_once(void *ctx)
{
    worker *w = ctx;
    lj_token token = LJ_TOKEN_INIT;
    int64_t start_ns = lj_clock_mono_ns();
    w->code = lj_token_get_until(w->source, w->cancel, &token, &w->err);
    w->took_ns = lj_clock_mono_ns() - start_ns;
    lj_token_free(&token);
    return NULL;
}

static void *get_many(void *ctx)
{
    worker *w = ctx;
    for (unsigned i = 0; i < w->rounds && w->code == LJ_OK; i++) {
        lj_token token = LJ_TOKEN_INIT;
        int64_t asked_ns = lj_clock_wall_ns();
        w->code = lj_token_get(w->source, &token, &w->err);
        w->gap = w->gap || (w->code == LJ_OK && token.expires_ns <= asked_ns);
        if (w->code == LJ_OK && i % 50 == 49)
            lj_token_expired(w->source, &token);
        lj_token_free(&token);
        lj_clock_sleep_ns(MS);
    }
    return NULL;
}

#define WORKERS 8

static void run_all(worker *workers, void *(*fn)(void *))
{
    pthread_t threads[WORKERS];
    for (size_t i = 0; i < WORKERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, fn, &workers[i]), 0);
    for (size_t i = 0; i < WORKERS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
}

static void test_many_threads_fetch_once(void **state)
{
    (void)state;
    fake.takes_ns = 100 * MS;
    worker workers[WORKERS];
    for (size_t i = 0; i < WORKERS; i++)
        workers[i] = (worker){.source = open_source("a", &ops)};
    run_all(workers, get_once);
    for (size_t i = 0; i < WORKERS; i++) {
        assert_ok(workers[i].code, &workers[i].err);
        lj_token_source_close(workers[i].source);
    }
    assert_int_equal(fetches(), 1);
    assert_int_equal(fake.freed, WORKERS);
}

/* While one thread refreshes, the others go on with the old one, and nobody sees one that has expired. */
static void test_many_threads_over_many_refreshes(void **state)
{
    (void)state;
    fake.life_ns = 1000 * MS;
    fake.takes_ns = 10 * MS;
    worker workers[WORKERS];
    for (size_t i = 0; i < WORKERS; i++)
        workers[i] = (worker){.source = open_source("a", &ops), .rounds = 300};
    run_all(workers, get_many);
    for (size_t i = 0; i < WORKERS; i++) {
        assert_ok(workers[i].code, &workers[i].err);
        assert_false(workers[i].gap);
        lj_token_source_close(workers[i].source);
    }
    assert_true(fetches() > 1);
}

/* They would stand in line otherwise, and the last would wait for all of them. */
static void test_who_waits_shares_the_failure(void **state)
{
    (void)state;
    fake.takes_ns = LJ_NS_PER_S;
    fake.fails = LJ_UNAVAILABLE;
    worker workers[WORKERS];
    for (size_t i = 0; i < WORKERS; i++)
        workers[i] = (worker){.source = open_source("a", &ops)};
    run_all(workers, get_once);
    for (size_t i = 0; i < WORKERS; i++) {
        assert_int_equal(workers[i].code, LJ_UNAVAILABLE);
        assert_int_equal(workers[i].err.code, LJ_UNAVAILABLE);
        assert_true(workers[i].err.retryable);
        lj_token_source_close(workers[i].source);
    }
    assert_in_range(fetches(), 1, 3); /* one, unless a thread came late */
}

/* One that only waits is cancelled, and then the one that fetches: the third gets its credential. */
static void test_cancelling(void **state)
{
    (void)state;
    static bool first_off;
    static bool second_off;
    fake.takes_ns = 60 * LJ_NS_PER_S;
    lj_token_source *source = open_source("a", &ops);
    worker workers[3] = {{.source = source, .cancel = &first_off},
                         {.source = source, .cancel = &second_off},
                         {.source = source}};
    pthread_t threads[3];
    __atomic_store_n(&first_off, false, __ATOMIC_RELAXED);
    __atomic_store_n(&second_off, false, __ATOMIC_RELAXED);
    assert_int_equal(pthread_create(&threads[0], NULL, get_once, &workers[0]), 0);
    while (fetches() == 0)
        lj_clock_sleep_ns(MS);
    set_takes(10 * MS); /* whoever fetches next */
    assert_int_equal(pthread_create(&threads[1], NULL, get_once, &workers[1]), 0);
    assert_int_equal(pthread_create(&threads[2], NULL, get_once, &workers[2]), 0);
    lj_clock_sleep_ns(200 * MS);
    __atomic_store_n(&second_off, true, __ATOMIC_RELAXED);
    assert_int_equal(pthread_join(threads[1], NULL), 0);
    __atomic_store_n(&first_off, true, __ATOMIC_RELAXED);
    assert_int_equal(pthread_join(threads[0], NULL), 0);
    assert_int_equal(pthread_join(threads[2], NULL), 0);
    assert_int_equal(workers[0].code, LJ_CANCELLED);
    assert_int_equal(workers[1].code, LJ_CANCELLED);
    assert_in_range(workers[0].took_ns, 0, 20 * LJ_NS_PER_S); /* of a minute */
    assert_in_range(workers[1].took_ns, 0, 20 * LJ_NS_PER_S);
    assert_ok(workers[2].code, &workers[2].err);
    assert_true(fetches() >= 2);
    lj_token_source_close(source);
}

/* A child begins with none of its parent's sources, and without anybody's lock. */
static void test_fork(void **state)
{
    (void)state;
    lj_token_source *source = open_source("a", &ops);
    expect_token(source, "token 1");
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        lj_error err = LJ_ERROR_INIT;
        lj_token_source *own = NULL;
        lj_token token = LJ_TOKEN_INIT;
        bool good = lj_token_source_open("a", &ops, NULL, &own, &err) == LJ_OK && own != source &&
                    lj_token_get(own, &token, &err) == LJ_OK &&
                    strcmp(lj_secret_text(&token.values[0]), "token 2") == 0;
        _exit(good ? 0 : 1);
    }
    int status = -1;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    expect_token(source, "token 1");
    lj_token_source_close(source);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_sources_are_shared_by_their_key),
        TEST(test_one_that_never_expires_is_fetched_once),
        TEST(test_refresh_comes_before_the_end),
        TEST(test_a_refresh_that_fails_leaves_the_old_one_until_it_expires),
        TEST(test_one_that_the_store_refused_is_fetched_anew),
        TEST(test_a_missing_credential_is_not_a_missing_object),
        TEST(test_many_threads_fetch_once),
        TEST(test_many_threads_over_many_refreshes),
        TEST(test_who_waits_shares_the_failure),
        TEST(test_cancelling),
        TEST(test_fork),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
