/* http_limit_test.c - deadlines and cancelling of vfs/storage/http: what counts as progress, and how soon a request ends. */
#include "test/unit/unit.h"

#include <dlfcn.h>
#include <netdb.h>
#include <pthread.h>

#include "test/unit/storage/http/client.h"
#include "test/unit/storage/http/server.h"
#include "vfs/base/cancel.h"
#include "vfs/base/clock.h"

#define OK_EMPTY "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
/* How late a machine with more to do may be. */
#define SLACK_MS 1500u

/* A resolver that hangs, in front of libc's: libcurl finds this one first. */
#define SLOW_HOST    "slow.test"
#define RESOLVING_MS 1200u

typedef int (*getaddrinfo_fn)(const char *, const char *, const struct addrinfo *,
                              struct addrinfo **);

int getaddrinfo(const char *restrict name, const char *restrict service,
                const struct addrinfo *restrict req, struct addrinfo **restrict pai)
{
    if (name != NULL && strcmp(name, SLOW_HOST) == 0) {
        lj_clock_sleep_ns(RESOLVING_MS * LJ_NS_PER_MS);
        return EAI_AGAIN;
    }
    getaddrinfo_fn real = NULL;
    *(void **)&real = dlsym(RTLD_NEXT, "getaddrinfo");
    return real(name, service, req, pai);
}

typedef struct {
    lj_http *http;
    bool cancel;
    lj_http_response response;
    lj_error err;
} fixture;

static int setup(void **state)
{
    fixture *f = calloc(1, sizeof(*f));
    f->http = client_new(&f->cancel);
    f->response = (lj_http_response)LJ_HTTP_RESPONSE_INIT;
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    fixture *f = *state;
    lj_http_response_free(&f->response);
    lj_http_free(f->http);
    free(f);
    return 0;
}

static lj_code perform(fixture *f, const lj_http_request *request)
{
    lj_error_clear(&f->err);
    return lj_http_perform(f->http, request, &f->response, &f->err);
}

/* Performs the request, which must end with LJ_TIMEOUT after `ms`. */
static void expect_timeout(fixture *f, const lj_http_request *request, unsigned ms,
                           const char *words)
{
    int64_t start_ns = lj_clock_mono_ns();
    lj_code code = perform(f, request);
    unsigned took_ms = elapsed_ms(start_ns);
    if (code != LJ_TIMEOUT)
        fail_msg("%s: %s", lj_code_text(code), f->err.message);
    assert_true(f->err.retryable);
    assert_non_null(strstr(f->err.message, words));
    assert_in_range(took_ms, ms - 5,
                    ms + SLACK_MS); /* libcurl counts in milliseconds, from its own begin */
}

/* ---- stalls ---- */

static void stall_before_the_answer(void **state)
{
    fixture *f = *state;
    const server_step steps[] = {ACCEPT, READ, HOLD(5000)};
    http_server *server = server_start(steps);
    lj_http_request request = LJ_HTTP_REQUEST("POST", server_url(server, "/"));
    expect_timeout(f, &request, STALL_MS, "nothing moved for 300ms");
    assert_true(f->response.maybe_sent);
    server_stop(server);
}

static void stall_within_the_answer(void **state)
{
    fixture *f = *state;
    const server_step steps[] = {
        ACCEPT, READ, SEND("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n123"), HOLD(5000)};
    http_server *server = server_start(steps);
    counting_sink counter = {.bytes = 0};
    lj_sink sink = counting_sink_new(&counter);
    lj_http_request request = LJ_HTTP_REQUEST("GET", server_url(server, "/"));
    request.sink = &sink;
    expect_timeout(f, &request, STALL_MS, "nothing moved for 300ms");
    assert_int_equal(f->response.sunk, 3);
    server_stop(server);
}

static void stall_within_the_request(void **state)
{
    fixture *f = *state;
    const server_step steps[] = {ACCEPT, READ_HEAD, HOLD(2000)};
    http_server *server = server_start(steps);
    test_source content = {.len = 64u << 20};
    lj_source source = test_source_new(&content);
    lj_http_request request = LJ_HTTP_REQUEST("PUT", server_url(server, "/"));
    request.source = &source;
    request.body_len = content.len;
    expect_timeout(f, &request, STALL_MS, "nothing moved for 300ms");
    assert_false(f->response.maybe_sent);
    server_stop(server);
}

static void slow_headers_are_progress(void **state)
{
    fixture *f = *state;
    const server_step steps[] = {ACCEPT,     READ,
                                 SLEEP(200), SEND("HTTP/1.1 102 Processing\r\n\r\n"),
                                 SLEEP(200), SEND("HTTP/1.1 200 OK\r\n"),
                                 SLEEP(200), SEND("X-A: 1\r\n"),
                                 SLEEP(200), SEND("X-B: 2\r\n"),
                                 SLEEP(200), SEND("Content-Length: 0\r\n\r\n")};
    http_server *server = server_start(steps);
    int64_t start_ns = lj_clock_mono_ns();
    lj_http_request request = LJ_HTTP_REQUEST("GET", server_url(server, "/"));
    assert_ok(perform(f, &request), &f->err);
    assert_true(elapsed_ms(start_ns) >= 1000);
    server_stop(server);
}

static void slow_bodies_are_progress(void **state)
{
    fixture *f = *state;
    const server_step steps[] = {ACCEPT, READ, SEND("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n"),
                                 TRICKLE("abcdef", 150)};
    http_server *server = server_start(steps);
    lj_http_request request = LJ_HTTP_REQUEST("GET", server_url(server, "/"));
    assert_ok(perform(f, &request), &f->err);
    assert_string_equal(lj_buf_text(&f->response.body), "abcdef");
    server_stop(server);
}

static void slow_source_and_sink_are_no_stall(void **state)
{
    fixture *f = *state;
    const server_step steps[] = {ACCEPT, READ,
                                 SEND("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab")};
    http_server *server = server_start(steps);
    test_source content = {.len = 2, .piece = 1, .sleep_ms = 2 * STALL_MS};
    lj_source source = test_source_new(&content);
    counting_sink counter = {.sleep_ms = 2 * STALL_MS};
    lj_sink sink = counting_sink_new(&counter);
    lj_http_request request = LJ_HTTP_REQUEST("POST", server_url(server, "/"));
    request.source = &source;
    request.body_len = content.len;
    request.sink = &sink;
    request.total_timeout_ns = STALL_MS * LJ_NS_PER_MS; /* nor does it count here */
    assert_ok(perform(f, &request), &f->err);
    assert_int_equal(counter.bytes, 2);
    server_stop(server);
}

/* The client has long handed on all bytes when the server still takes them one by one from the kernels' queues. */
static void slow_server_that_takes_the_body(void **state)
{
    fixture *f = *state;
    http_server *server = server_start_slow_reader(150 * 1024, 100);
    test_source content = {.len = 3u << 20};
    lj_source source = test_source_new(&content);
    lj_http_request request = LJ_HTTP_REQUEST("PUT", server_url(server, "/"));
    request.source = &source;
    request.body_len = content.len;
    int64_t start_ns = lj_clock_mono_ns();
    assert_ok(perform(f, &request), &f->err);
    assert_true(elapsed_ms(start_ns) > 4 * STALL_MS);
    server_stop(server);
}

/* ---- the total ---- */

static void total_is_a_limit(void **state)
{
    fixture *f = *state;
    const server_step steps[] = {
        ACCEPT, READ, SEND("HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n"),
        TRICKLE("abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz", 50)};
    http_server *server = server_start(steps);
    lj_http_request request = LJ_HTTP_REQUEST("GET", server_url(server, "/"));
    request.total_timeout_ns = 600 * LJ_NS_PER_MS;
    expect_timeout(f, &request, 600, "took longer than 600ms");
    server_stop(server);
}

static void total_is_ten_stalls_without_a_limit(void **state)
{
    fixture *f = *state;
    char text[256];
    memset(text, 'a', sizeof(text) - 1);
    text[sizeof(text) - 1] = 0;
    const server_step steps[] = {
        ACCEPT, READ, SEND("HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n"), TRICKLE(text, 20)};
    /* a server that does not get its turn for a whole stall, on a busy machine, is tried again */
    bool in_time = false;
    for (int i = 0; i < 5 && !in_time; i++) {
        http_server *server = server_start(steps);
        lj_http_request request = LJ_HTTP_REQUEST("GET", server_url(server, "/"));
        assert_int_equal(perform(f, &request), LJ_TIMEOUT);
        assert_true(f->err.retryable);
        in_time = strstr(f->err.message, "took longer than 3s") != NULL;
        server_stop(server);
    }
    assert_true(in_time);
}

/* An answer that says it is large gets time for that, though nobody expected it: 100 KiB are six seconds more. */
static void total_grows_with_the_answer(void **state)
{
    fixture *f = *state;
    char text[256];
    memset(text, 'a', sizeof(text) - 1);
    text[sizeof(text) - 1] = 0;
    const server_step steps[] = {ACCEPT, READ,
                                 SEND("HTTP/1.1 200 OK\r\nContent-Length: 102400\r\n\r\n"),
                                 TRICKLE(text, 14), FILL(102400 - 255)};
    http_server *server = server_start(steps);
    lj_http_request request = LJ_HTTP_REQUEST("GET", server_url(server, "/"));
    int64_t start_ns = lj_clock_mono_ns();
    assert_ok(perform(f, &request), &f->err);
    assert_true(elapsed_ms(start_ns) > 10 * STALL_MS);
    assert_int_equal(f->response.body.len, 102400);
    server_stop(server);
}

/* ---- cancelling ---- */

typedef struct {
    bool *flag;
    int64_t set_ns;
} canceller;

static void *cancel_soon(void *ctx)
{
    canceller *c = ctx;
    lj_clock_sleep_ns(150 * LJ_NS_PER_MS);
    c->set_ns = lj_clock_mono_ns();
    __atomic_store_n(c->flag, true, __ATOMIC_RELAXED);
    return NULL;
}

static void expect_cancelled(fixture *f, const lj_http_request *request, bool *flag)
{
    pthread_t thread;
    canceller c = {.flag = flag};
    *flag = false;
    assert_int_equal(pthread_create(&thread, NULL, cancel_soon, &c), 0);
    lj_code code = perform(f, request);
    int64_t end_ns = lj_clock_mono_ns();
    pthread_join(thread, NULL);
    if (code != LJ_CANCELLED)
        fail_msg("%s: %s", lj_code_text(code), f->err.message);
    assert_in_range((end_ns - c.set_ns) / LJ_NS_PER_MS, 0, 200 + SLACK_MS); /* of two seconds */
    assert_int_equal(perform(f, request), LJ_CANCELLED);                    /* at once */
    assert_true(elapsed_ms(end_ns) < SLACK_MS);
    *flag = false;
}

static void cancelled_while_it_waits(void **state)
{
    fixture *f = *state;
    const server_step steps[] = {ACCEPT, READ, HOLD(2000), ACCEPT, READ, HOLD(2000)};
    http_server *server = server_start(steps);
    lj_http_request request = LJ_HTTP_REQUEST("GET", server_url(server, "/"));
    expect_cancelled(f, &request, &f->cancel);
    bool flag = false;
    const bool *before = lj_cancel_swap(&flag);
    assert_null(before);
    expect_cancelled(f, &request, &flag);
    assert_ptr_equal(lj_cancel_swap(before), &flag);
    server_stop(server);
}

/* getaddrinfo cannot be ended: libcurl's thread goes on alone. */
static void hanging_resolver(void **state)
{
    fixture *f = *state;
    lj_http_request request = LJ_HTTP_REQUEST("GET", "http://" SLOW_HOST "/");
    expect_cancelled(f, &request, &f->cancel);
    request.connect_timeout_ns = 200 * LJ_NS_PER_MS;
    expect_timeout(f, &request, 200, SLOW_HOST);
    assert_false(f->response.maybe_sent);
    lj_clock_sleep_ns(RESOLVING_MS * LJ_NS_PER_MS); /* its threads end before leaks are counted */
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(stall_before_the_answer),
        TEST(stall_within_the_answer),
        TEST(stall_within_the_request),
        TEST(slow_headers_are_progress),
        TEST(slow_bodies_are_progress),
        TEST(slow_source_and_sink_are_no_stall),
        TEST(slow_server_that_takes_the_body),
        TEST(total_is_a_limit),
        TEST(total_is_ten_stalls_without_a_limit),
        TEST(total_grows_with_the_answer),
        TEST(cancelled_while_it_waits),
        TEST(hanging_resolver),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
