/* parts_test.c - parts in order, with their sizes, side by side; failures, retries, cancelling, and memory. */
#include "test/unit/unit.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vfs/base/clock.h"
#include "vfs/base/retry.h"
#include "vfs/storage/parts.h"

#define SMALL LJ_PARTS_SMALL_MAX

/* Every byte of the object says where it is. The tests with many parts only look at the ends of a part. */
static uint8_t byte_at(uint64_t pos)
{
    return (uint8_t)(pos ^ (pos >> 8) ^ (pos >> 16) ^ (pos >> 24));
}

typedef struct {
    uint64_t len;
    uint64_t pos;
    uint64_t fail_at; /* 0: never */
    bool sparse;      /* fills in the ends of a read only */
    bool *cancel_at_half;
} content;

static lj_code read_content(void *ctx, void *out, size_t max, size_t *ret_n, lj_error *err)
{
    content *c = ctx;
    uint8_t *to = out;
    size_t n = (size_t)LJ_MIN((uint64_t)max, c->len - c->pos);
    if (c->fail_at > 0 && c->pos >= c->fail_at)
        return lj_error_set(err, LJ_CORRUPT, "the source is broken");
    if (c->cancel_at_half != NULL && c->pos >= c->len / 2)
        __atomic_store_n(c->cancel_at_half, true, __ATOMIC_RELAXED);
    for (size_t i = 0; i < n; i += c->sparse && i + 1 < n ? n - 1 : 1)
        to[i] = byte_at(c->pos + i);
    c->pos += n;
    *ret_n = n;
    return LJ_OK;
}

static lj_code no_rewind(void *ctx, lj_error *err)
{
    (void)ctx;
    return lj_error_set(err, LJ_UNSUPPORTED, "a part is never read twice");
}

/* What the store has. */
typedef struct {
    pthread_mutex_t mutex;
    uint64_t sizes[10001]; /* by number; 0: not there */
    uint32_t sent;
    unsigned running;
    unsigned most_running;
    unsigned calls;
    unsigned sleep_ms;
    /* fails part `fail_number`, `fail_times` times, with this */
    uint32_t fail_number;
    unsigned fail_times;
    lj_code fail_code;
    bool fail_retryable;
    int64_t retry_after_ns;
    unsigned slow_retries; /* part 1 answers 503 for ever when not 0 */
} store;

static lj_code send_part(void *ctx, uint32_t number, const uint8_t *data, size_t len, lj_error *err)
{
    store *s = ctx;
    uint64_t start = 0;
    pthread_mutex_lock(&s->mutex);
    s->calls++;
    s->running++;
    s->most_running = LJ_MAX(s->most_running, s->running);
    for (uint32_t i = 1; i < number; i++)
        start += SMALL * (1 + (uint64_t)(i - 1) / 1000);
    bool fails = number == s->fail_number && s->fail_times > 0;
    s->fail_times -= fails;
    bool right = data[0] == byte_at(start) && data[len - 1] == byte_at(start + len - 1);
    pthread_mutex_unlock(&s->mutex);
    if (s->sleep_ms > 0)
        lj_clock_sleep_ns(s->sleep_ms * LJ_NS_PER_MS);
    pthread_mutex_lock(&s->mutex);
    s->running--;
    lj_code code = LJ_OK;
    if (!right) {
        code = lj_error_set(err, LJ_INTERNAL, "part %u has wrong bytes", number);
    } else if (fails || (s->slow_retries > 0 && number == 1)) {
        code = lj_error_set(err, fails ? s->fail_code : LJ_UNAVAILABLE, "part %u fails", number);
        lj_error_retryable(err, fails ? s->fail_retryable : true);
        err->retry_after_ns = s->retry_after_ns;
    } else {
        assert_int_equal(s->sizes[number], 0);
        s->sizes[number] = len;
        s->sent++;
    }
    pthread_mutex_unlock(&s->mutex);
    return code;
}

static store *new_store(void)
{
    store *s = calloc(1, sizeof(*s));
    assert_non_null(s);
    pthread_mutex_init(&s->mutex, NULL);
    return s;
}

static void free_store(store *s)
{
    pthread_mutex_destroy(&s->mutex);
    free(s);
}

/* The whole way of a driver: the head, and the parts when that was not all. */
static lj_code upload(content *c, store *s, uint32_t parts_max, const bool *cancel,
                      uint32_t *ret_count, lj_error *err)
{
    lj_source source = {.ctx = c, .read = read_content, .rewind = no_rewind, .size = -1};
    lj_buf head = LJ_BUF_INIT(SMALL + 1);
    bool whole = false;
    lj_parts_job job = {.ctx = s, .parts_max = parts_max, .cancel = cancel, .send = send_part};
    lj_code code = lj_parts_head(&source, &head, &whole, err);
    if (code == LJ_OK) {
        assert_int_equal(whole, c->len <= SMALL);
        assert_int_equal(head.len, LJ_MIN(c->len, SMALL + 1));
        code = whole ? LJ_OK : lj_parts_send(&source, &head, &job, ret_count, err);
    }
    lj_buf_free(&head);
    return code;
}

static void small_ones_are_whole(void **state)
{
    (void)state;
    const uint64_t sizes[] = {0, 1, 65536, SMALL - 1, SMALL};
    for (size_t i = 0; i < LJ_ARRAY_LEN(sizes); i++) {
        store *s = new_store();
        content c = {.len = sizes[i], .sparse = true};
        lj_error err = LJ_ERROR_INIT;
        uint32_t count = 77;
        assert_ok(upload(&c, s, 10000, NULL, &count, &err), &err);
        assert_int_equal(s->calls, 0);
        assert_int_equal(count, 77);
        free_store(s);
    }
}

static void sizes_of_parts(void **state)
{
    (void)state;
    const uint64_t sizes[] = {SMALL + 1, 2 * SMALL - 1, 2 * SMALL, 2 * SMALL + 1,
                              7 * SMALL + 12345};
    for (size_t i = 0; i < LJ_ARRAY_LEN(sizes); i++) {
        store *s = new_store();
        content c = {.len = sizes[i]};
        lj_error err = LJ_ERROR_INIT;
        uint32_t count = 0;
        assert_ok(upload(&c, s, 10000, NULL, &count, &err), &err);
        assert_int_equal(count, (sizes[i] + SMALL - 1) / SMALL);
        assert_int_equal(s->sent, count);
        for (uint32_t n = 1; n < count; n++)
            assert_int_equal(s->sizes[n], SMALL);
        assert_int_equal(s->sizes[count], sizes[i] - (count - 1) * SMALL);
        free_store(s);
    }
}

static void parts_grow(void **state)
{
    (void)state;
    store *s = new_store();
    content c = {.len = 1000 * SMALL + 3 * SMALL, .sparse = true};
    lj_error err = LJ_ERROR_INIT;
    uint32_t count = 0;
    assert_ok(upload(&c, s, 10000, NULL, &count, &err), &err);
    assert_int_equal(count, 1002);
    assert_int_equal(s->sizes[1000], SMALL);
    assert_int_equal(s->sizes[1001], 2 * SMALL);
    assert_int_equal(s->sizes[1002], SMALL);
    free_store(s);
}

static void side_by_side_within_the_budget(void **state)
{
    (void)state;
    store *s = new_store();
    s->sleep_ms = 30;
    content c = {.len = 12 * SMALL, .sparse = true};
    lj_error err = LJ_ERROR_INIT;
    uint32_t count = 0;
    assert_ok(upload(&c, s, 10000, NULL, &count, &err), &err);
    assert_int_equal(count, 12);
    assert_in_range(s->most_running, 2, LJ_PARTS_SENDERS);
    free_store(s);
}

typedef struct {
    store *store;
    content content;
    uint32_t count;
    lj_code code;
    lj_error err;
} uploader;

static void *run_upload(void *ctx)
{
    uploader *u = ctx;
    u->code = upload(&u->content, u->store, 10000, NULL, &u->count, &u->err);
    return NULL;
}

/* Two take all buffers of the process, the others send by themselves. */
static void many_uploads_at_once(void **state)
{
    (void)state;
    enum { UPLOADS = 6 };
    uploader uploaders[UPLOADS];
    pthread_t threads[UPLOADS];
    for (unsigned i = 0; i < UPLOADS; i++) {
        uploaders[i] =
            (uploader){.store = new_store(), .content = {.len = 5 * SMALL + i, .sparse = true}};
        uploaders[i].store->sleep_ms = 50;
        assert_int_equal(pthread_create(&threads[i], NULL, run_upload, &uploaders[i]), 0);
    }
    unsigned alone = 0;
    for (unsigned i = 0; i < UPLOADS; i++) {
        pthread_join(threads[i], NULL);
        assert_ok(uploaders[i].code, &uploaders[i].err);
        assert_int_equal(uploaders[i].count, i == 0 ? 5 : 6);
        alone += uploaders[i].store->most_running == 1;
        free_store(uploaders[i].store);
    }
    assert_true(alone >= UPLOADS - LJ_PARTS_BUFFERS / 2);
}

static void a_part_is_sent_again(void **state)
{
    (void)state;
    const lj_code codes[] = {LJ_UNAVAILABLE, LJ_TIMEOUT, LJ_IO};
    for (size_t i = 0; i < LJ_ARRAY_LEN(codes); i++) {
        store *s = new_store();
        s->fail_number = 2;
        s->fail_times = 2;
        s->fail_code = codes[i];
        s->fail_retryable = true;
        content c = {.len = 4 * SMALL, .sparse = true};
        lj_error err = LJ_ERROR_INIT;
        uint32_t count = 0;
        assert_ok(upload(&c, s, 10000, NULL, &count, &err), &err);
        assert_int_equal(count, 4);
        assert_int_equal(s->calls, 6);
        free_store(s);
    }
}

static void the_server_says_when(void **state)
{
    (void)state;
    store *s = new_store();
    s->fail_number = 1;
    s->fail_times = 1;
    s->fail_code = LJ_UNAVAILABLE;
    s->fail_retryable = true;
    s->retry_after_ns = LJ_NS_PER_S;
    content c = {.len = 2 * SMALL, .sparse = true};
    lj_error err = LJ_ERROR_INIT;
    uint32_t count = 0;
    int64_t start_ns = lj_clock_mono_ns();
    assert_ok(upload(&c, s, 10000, NULL, &count, &err), &err);
    assert_true(lj_clock_mono_ns() - start_ns >= LJ_NS_PER_S);
    free_store(s);
}

static void a_part_that_fails_ends_it(void **state)
{
    (void)state;
    for (uint32_t number = 1; number <= 4; number++) {
        store *s = new_store();
        s->fail_number = number;
        s->fail_times = 100;
        s->fail_code = LJ_DENIED;
        s->fail_retryable = true; /* for the shipper, not for a part */
        content c = {.len = 200 * SMALL, .sparse = true};
        lj_error err = LJ_ERROR_INIT;
        uint32_t count = 77;
        assert_int_equal(upload(&c, s, 10000, NULL, &count, &err), LJ_DENIED);
        assert_int_equal(count, 77);
        char expected[32];
        snprintf(expected, sizeof(expected), "part %u fails", number);
        assert_string_equal(err.message, expected);
        assert_int_equal(s->fail_times, 99);
        assert_int_equal(s->running, 0);
        assert_true(s->calls < 20);
        free_store(s);
    }
}

/* A part that waits for its next try gives up when another one fails for good, and hides nothing. */
static void the_first_failure_is_told(void **state)
{
    (void)state;
    store *s = new_store();
    s->slow_retries = 1;
    s->retry_after_ns = 30 * LJ_NS_PER_S;
    s->fail_number = 3;
    s->fail_times = 1;
    s->fail_code = LJ_DENIED;
    s->sleep_ms = 20;
    content c = {.len = 20 * SMALL, .sparse = true};
    lj_error err = LJ_ERROR_INIT;
    uint32_t count = 0;
    int64_t start_ns = lj_clock_mono_ns();
    assert_int_equal(upload(&c, s, 10000, NULL, &count, &err), LJ_DENIED);
    assert_string_equal(err.message, "part 3 fails");
    assert_true(lj_clock_mono_ns() - start_ns < 10 * LJ_NS_PER_S);
    free_store(s);
}

static void the_source_fails(void **state)
{
    (void)state;
    store *s = new_store();
    s->slow_retries = 1;
    s->retry_after_ns = 30 * LJ_NS_PER_S;
    content c = {.len = 20 * SMALL, .fail_at = 2 * SMALL + 5, .sparse = true};
    lj_error err = LJ_ERROR_INIT;
    uint32_t count = 0;
    int64_t start_ns = lj_clock_mono_ns();
    assert_int_equal(upload(&c, s, 10000, NULL, &count, &err), LJ_CORRUPT);
    assert_string_equal(err.message, "the source is broken");
    assert_true(lj_clock_mono_ns() - start_ns < 10 * LJ_NS_PER_S);
    assert_int_equal(s->running, 0);
    free_store(s);
}

static void too_many_parts(void **state)
{
    (void)state;
    store *s = new_store();
    content c = {.len = 5 * SMALL, .sparse = true};
    lj_error err = LJ_ERROR_INIT;
    uint32_t count = 0;
    assert_int_equal(upload(&c, s, 4, NULL, &count, &err), LJ_INVALID);
    assert_non_null(strstr(err.message, "more than 4 parts"));
    assert_int_equal(s->sizes[5], 0);
    free_store(s);
    s = new_store();
    c = (content){.len = 4 * SMALL, .sparse = true};
    assert_ok(upload(&c, s, 4, NULL, &count, &err), &err);
    assert_int_equal(count, 4);
    free_store(s);
}

static void cancelled(void **state)
{
    (void)state;
    bool flag = false;
    store *s = new_store();
    content c = {.len = 40 * SMALL, .sparse = true, .cancel_at_half = &flag};
    lj_error err = LJ_ERROR_INIT;
    uint32_t count = 0;
    assert_int_equal(upload(&c, s, 10000, &flag, &count, &err), LJ_CANCELLED);
    assert_true(s->sent < 30);
    free_store(s);
    /* while a part waits for its next try */
    s = new_store();
    s->slow_retries = 1;
    s->retry_after_ns = 30 * LJ_NS_PER_S;
    flag = false;
    c = (content){.len = 3 * SMALL, .sparse = true, .cancel_at_half = &flag};
    int64_t start_ns = lj_clock_mono_ns();
    assert_int_equal(upload(&c, s, 10000, &flag, &count, &err), LJ_CANCELLED);
    assert_true(lj_clock_mono_ns() - start_ns < 5 * LJ_NS_PER_S);
    free_store(s);
}

static void pauses(void **state)
{
    (void)state;
    bool flag = false;
    int64_t start_ns = lj_clock_mono_ns();
    assert_true(lj_parts_pause(&flag, 0, 300 * LJ_NS_PER_MS));
    assert_in_range((lj_clock_mono_ns() - start_ns) / LJ_NS_PER_MS, 300, 5000);
    start_ns = lj_clock_mono_ns();
    assert_true(lj_parts_pause(NULL, 0, 0));
    assert_in_range((lj_clock_mono_ns() - start_ns) / LJ_NS_PER_MS, 0, 5000);
    flag = true;
    start_ns = lj_clock_mono_ns();
    assert_false(lj_parts_pause(&flag, 60, 50 * LJ_NS_PER_S));
    assert_true(lj_clock_mono_ns() - start_ns < 10 * LJ_NS_PER_S);
    lj_error err = LJ_ERROR_INIT;
    lj_error_set(&err, LJ_UNAVAILABLE, "x");
    assert_false(lj_retry_may_pass(&err));
    lj_error_retryable(&err, true);
    assert_true(lj_retry_may_pass(&err));
    lj_error_set(&err, LJ_DENIED, "x");
    lj_error_retryable(&err, true);
    assert_false(lj_retry_may_pass(&err));
}

/* The budget of a child is its own, whatever the parent was sending. */
static void fork_gives_the_budget_back(void **state)
{
    (void)state;
#ifdef __SANITIZE_THREAD__
    print_message("skipped: ThreadSanitizer lets no child of a process with threads start one\n");
    skip();
#endif
    uploader uploaders[2];
    pthread_t threads[2];
    for (unsigned i = 0; i < 2; i++) {
        uploaders[i] =
            (uploader){.store = new_store(), .content = {.len = 8 * SMALL, .sparse = true}};
        uploaders[i].store->sleep_ms = 100;
        assert_int_equal(pthread_create(&threads[i], NULL, run_upload, &uploaders[i]), 0);
    }
    lj_clock_sleep_ns(60 * LJ_NS_PER_MS);
    pid_t pid = fork();
    if (pid == 0) {
        uploader mine = {.store = new_store(), .content = {.len = 6 * SMALL, .sparse = true}};
        mine.store->sleep_ms = 50;
        run_upload(&mine);
        _exit(mine.code == LJ_OK && mine.store->most_running > 1 ? 0 : 3);
    }
    int status = -1;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    for (unsigned i = 0; i < 2; i++) {
        pthread_join(threads[i], NULL);
        assert_ok(uploaders[i].code, &uploaders[i].err);
        free_store(uploaders[i].store);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(small_ones_are_whole),
        cmocka_unit_test(sizes_of_parts),
        cmocka_unit_test(parts_grow),
        cmocka_unit_test(side_by_side_within_the_budget),
        cmocka_unit_test(many_uploads_at_once),
        cmocka_unit_test(a_part_is_sent_again),
        cmocka_unit_test(the_server_says_when),
        cmocka_unit_test(a_part_that_fails_ends_it),
        cmocka_unit_test(the_first_failure_is_told),
        cmocka_unit_test(the_source_fails),
        cmocka_unit_test(too_many_parts),
        cmocka_unit_test(cancelled),
        cmocka_unit_test(pauses),
        cmocka_unit_test(fork_gives_the_budget_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
