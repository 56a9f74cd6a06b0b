/* http_test.c - requests, answers, bodies and failures of vfs/storage/http against servers that follow a script. */
#include "test/unit/unit.h"

#include <errno.h>

#include "test/unit/storage/http/client.h"
#include "test/unit/storage/http/server.h"
#include "vfs/base/clock.h"

#define OK_EMPTY "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"

typedef struct {
    lj_http *http;
    lj_http_response response;
    lj_error err;
} fixture;

static int setup(void **state)
{
    fixture *f = calloc(1, sizeof(*f));
    f->http = client_new(NULL);
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

/* A request without a body, and what became of it. */
static lj_code simple(fixture *f, http_server *server, const char *method)
{
    lj_http_request request = LJ_HTTP_REQUEST(method, server_url(server, "/a/b?c=d%20e"));
    return perform(f, &request);
}

static void expect_failure(fixture *f, lj_code got, lj_code code, bool retryable)
{
    if (got != code)
        fail_msg("%s instead of %s: %s", lj_code_text(got), lj_code_text(code), f->err.message);
    assert_int_equal(f->err.code, code);
    assert_int_equal(f->err.retryable, retryable);
    assert_true(strlen(f->err.message) > 0);
}

/* ---- answers ---- */

static void request_and_answer(void **state)
{
    fixture *f = *state;
    const server_step steps[] = {
        ACCEPT, READ,
        SEND("HTTP/1.1 203 Other\r\nContent-Length: 5\r\nETag:  \"X\" \r\nx-empty:\r\n\r\nhello")};
    http_server *server = server_start(steps);
    const char *headers[] = {"X-One: 1", "Content-Type: text/plain", NULL};
    lj_http_request request = LJ_HTTP_REQUEST("GET", server_url(server, "/a/../b?c=d%20e"));
    request.headers = headers;
    assert_ok(perform(f, &request), &f->err);
    assert_int_equal(f->response.status, 203);
    assert_string_equal(lj_buf_text(&f->response.body), "hello");
    char value[16] = "";
    assert_true(lj_http_header(&f->response, "etag", value, sizeof(value)));
    assert_string_equal(value, "\"X\"");
    assert_true(lj_http_header(&f->response, "x-empty", value, sizeof(value)));
    assert_string_equal(value, "");
    assert_false(lj_http_header(&f->response, "x-none", value, sizeof(value)));
    char expected[256];
    snprintf(expected, sizeof(expected),
             "GET /a/../b?c=d%%20e HTTP/1.1\r\nHost: 127.0.0.1:%u\r\n"
             "User-Agent: litejoin-vfs/" LITEJOIN_VERSION
             "\r\nX-One: 1\r\nContent-Type: text/plain\r\n\r\n",
             server_port(server));
    assert_string_equal(server_received(server), expected);
    server_stop(server);
}

static void sink_takes_good_answers_only(void **state)
{
    fixture *f = *state;
    const server_step steps[] = {
        ACCEPT,
        READ,
        SEND("HTTP/1.1 206 P\r\nContent-Length: 300000\r\n\r\n"),
        FILL(300000),
        READ,
        SEND("HTTP/1.1 404 No\r\nContent-Length: 4\r\n\r\ngone"),
        READ,
        SEND("HTTP/1.1 302 To\r\nLocation: /x\r\nContent-Length: 2\r\n\r\nto")};
    http_server *server = server_start(steps);
    counting_sink counter = {.bytes = 0};
    lj_sink sink = counting_sink_new(&counter);
    lj_http_request request = LJ_HTTP_REQUEST("GET", server_url(server, "/"));
    request.sink = &sink;
    assert_ok(perform(f, &request), &f->err);
    assert_int_equal(f->response.status, 206);
    assert_int_equal(f->response.sunk, 300000);
    assert_int_equal(counter.bytes, 300000);
    assert_int_equal(f->response.body.len, 0);
    assert_ok(perform(f, &request), &f->err);
    assert_int_equal(f->response.status, 404);
    assert_int_equal(f->response.sunk, 0);
    assert_string_equal(lj_buf_text(&f->response.body), "gone");
    assert_ok(perform(f, &request), &f->err); /* not followed */
    assert_int_equal(f->response.status, 302);
    assert_string_equal(lj_buf_text(&f->response.body), "to");
    assert_int_equal(counter.bytes, 300000);
    assert_int_equal(server_accepted(server), 1);
    server_stop(server);
}

static void other_framings(void **state)
{
    fixture *f = *state;
    const server_step steps[] = {
        ACCEPT,
        READ,
        SEND("HTTP/1.1 100 Continue\r\nX-A: early\r\n\r\nHTTP/1.1 103 Hints\r\nX-A: hint\r\n\r\n"
             "HTTP/1.1 200 OK\r\nX-A: late\r\nTransfer-Encoding: chunked\r\n\r\n"
             "3\r\nabc\r\n2\r\nde\r\n0\r\nX-A: trailer\r\n\r\n"),
        READ,
        SEND("HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"), /* to a HEAD */
        READ,
        SEND("HTTP/1.1 204 None\r\n\r\n"),
        READ,
        SEND("HTTP/1.0 200 OK\r\n\r\nuntil the end"),
        CLOSE};
    http_server *server = server_start(steps);
    char value[16] = "";
    assert_ok(simple(f, server, "GET"), &f->err);
    assert_int_equal(f->response.status, 200);
    assert_string_equal(lj_buf_text(&f->response.body), "abcde");
    assert_true(lj_http_header(&f->response, "x-a", value, sizeof(value)));
    assert_string_equal(value, "late");
    assert_ok(simple(f, server, "HEAD"), &f->err);
    assert_int_equal(f->response.body.len, 0);
    assert_true(lj_http_header(&f->response, "content-length", value, sizeof(value)));
    assert_string_equal(value, "99");
    assert_ok(simple(f, server, "DELETE"), &f->err);
    assert_int_equal(f->response.status, 204);
    assert_ok(simple(f, server, "GET"), &f->err);
    assert_string_equal(lj_buf_text(&f->response.body), "until the end");
    assert_int_equal(server_accepted(server), 1);
    assert_non_null(strstr(server_received(server), "HEAD /a/b?c=d%20e HTTP/1.1\r\n"));
    assert_null(strstr(server_received(server), "Content-Length"));
    server_stop(server);
}

static void broken_answers(void **state)
{
    fixture *f = *state;
    static const char *const broken[] = {
        "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n0123456789",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n0123456789",
        "HTTP/1.1 200 OK\r\nContent-Len",
        "this is not HTTP at all, but text\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n0123456789",
        "",
    };
    for (size_t i = 0; i < LJ_ARRAY_LEN(broken); i++) {
        const server_step steps[] = {ACCEPT, READ, SEND(broken[i]), CLOSE};
        http_server *server = server_start(steps);
        counting_sink counter = {.bytes = 0};
        lj_sink sink = counting_sink_new(&counter);
        lj_http_request request = LJ_HTTP_REQUEST("GET", server_url(server, "/?sig=hidden"));
        request.sink = &sink;
        expect_failure(f, perform(f, &request), LJ_UNAVAILABLE, true);
        assert_true(f->response.maybe_sent);
        assert_false(f->response.sink_failed);
        assert_int_equal(f->response.sunk, i < 2 ? 10 : 0);
        assert_int_equal(counter.bytes, f->response.sunk);
        assert_non_null(strstr(f->err.message, "GET 127.0.0.1:"));
        assert_null(strstr(f->err.message, "hidden"));
        server_stop(server);
    }
}

static void headers_without_end(void **state)
{
    fixture *f = *state;
    const server_step one_line[] = {ACCEPT, READ, SEND("HTTP/1.1 200 OK\r\nX-Long: "),
                                    FILL(4u << 20), CLOSE};
    http_server *server = server_start(one_line);
    expect_failure(f, simple(f, server, "GET"), LJ_UNAVAILABLE, true);
    assert_true(f->response.headers.len <= f->response.headers.max);
    server_stop(server);
}

static void limits_of_the_body(void **state)
{
    fixture *f = *state;
    const server_step steps[] = {
        ACCEPT,     READ,      SEND("HTTP/1.1 500 Bad\r\nContent-Length: 5000\r\n\r\n"),
        FILL(5000), READ,      SEND("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"),
        FILL(1000), READ,      SEND("HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n"),
        FILL(1001), HOLD(5000)};
    http_server *server = server_start(steps);
    lj_http_request request = LJ_HTTP_REQUEST("GET", server_url(server, "/"));
    request.body_max = 1000;
    assert_ok(perform(f, &request), &f->err);
    assert_int_equal(f->response.status, 500);
    assert_int_equal(f->response.body.len, 1000);
    assert_ok(perform(f, &request), &f->err);
    assert_int_equal(f->response.body.len, 1000);
    expect_failure(f, perform(f, &request), LJ_UNAVAILABLE, true);
    server_stop(server);
}

/* ---- request bodies ---- */

static void bodies_have_a_length(void **state)
{
    fixture *f = *state;
    static const char *const methods[] = {"PUT", "POST"};
    for (size_t i = 0; i < LJ_ARRAY_LEN(methods); i++) {
        const server_step steps[] = {ACCEPT,         READ, SEND(OK_EMPTY), READ,
                                     SEND(OK_EMPTY), READ, SEND(OK_EMPTY)};
        http_server *server = server_start(steps);
        lj_http_request request = LJ_HTTP_REQUEST(methods[i], server_url(server, "/k"));
        assert_ok(perform(f, &request), &f->err);
        assert_non_null(strstr(server_received(server), "\r\nContent-Length: 0\r\n"));
        request.body = "<small/>";
        request.body_len = 8;
        assert_ok(perform(f, &request), &f->err);
        assert_non_null(strstr(server_received(server), "\r\nContent-Length: 8\r\n"));
        assert_non_null(strstr(server_received(server), "\r\n\r\n<small/>"));
        test_source content = {.len = (3u << 20) + 1, .piece = 5000};
        lj_source source = test_source_new(&content);
        request.source = &source;
        request.body_len = content.len;
        assert_ok(perform(f, &request), &f->err);
        assert_non_null(strstr(server_received(server), "\r\nContent-Length: 3145729\r\n"));
        assert_null(strcasestr(server_received(server), "Transfer-Encoding"));
        assert_null(strcasestr(server_received(server), "Expect:"));
        assert_null(strcasestr(server_received(server), "Content-Type"));
        assert_int_equal(server_accepted(server), 1);
        server_stop(server);
    }
}

static void delete_with_a_body(void **state)
{
    fixture *f = *state;
    const server_step steps[] = {ACCEPT, READ, SEND(OK_EMPTY)};
    http_server *server = server_start(steps);
    lj_http_request request = LJ_HTTP_REQUEST("DELETE", server_url(server, "/k"));
    request.body = "xyz";
    request.body_len = 3;
    assert_ok(perform(f, &request), &f->err);
    assert_non_null(strstr(server_received(server), "DELETE /k HTTP/1.1\r\n"));
    assert_non_null(strstr(server_received(server), "Content-Length: 3\r\n\r\nxyz"));
    server_stop(server);
}

static void early_refusal(void **state)
{
    fixture *f = *state;
    const server_step steps[] = {
        ACCEPT, READ_HEAD,
        SEND("HTTP/1.1 403 No\r\nConnection: close\r\nContent-Length: 3\r\n\r\nwhy"), HOLD(100)};
    http_server *server = server_start(steps);
    test_source content = {.len = 64u << 20};
    lj_source source = test_source_new(&content);
    lj_http_request request = LJ_HTTP_REQUEST("PUT", server_url(server, "/k"));
    request.source = &source;
    request.body_len = content.len;
    assert_ok(perform(f, &request), &f->err);
    assert_int_equal(f->response.status, 403);
    assert_string_equal(lj_buf_text(&f->response.body), "why");
    assert_true(content.pos < content.len);
    server_stop(server);
}

static void source_and_sink_fail(void **state)
{
    fixture *f = *state;
    const server_step steps[] = {
        ACCEPT,     READ_HEAD, HOLD(5000),
        ACCEPT,     READ_HEAD, HOLD(5000),
        ACCEPT,     READ,      SEND("HTTP/1.1 200 OK\r\nContent-Length: 90000\r\n\r\n"),
        FILL(90000)};
    http_server *server = server_start(steps);
    test_source content = {.len = 100000, .piece = 1000, .fail_at = 50000};
    lj_source source = test_source_new(&content);
    lj_http_request request = LJ_HTTP_REQUEST("PUT", server_url(server, "/k"));
    request.source = &source;
    request.body_len = content.len;
    expect_failure(f, perform(f, &request), LJ_CORRUPT, false);
    assert_string_equal(f->err.message, "the source is broken");
    assert_true(f->response.source_failed);
    assert_false(f->response.maybe_sent);
    content = (test_source){.len = 99999};
    expect_failure(f, perform(f, &request), LJ_IO, true);
    assert_true(f->response.source_failed);
    assert_non_null(strstr(f->err.message, "99999 of 100000"));
    counting_sink counter = {.fail_at = 40000};
    lj_sink sink = counting_sink_new(&counter);
    lj_http_request get = LJ_HTTP_REQUEST("GET", server_url(server, "/k"));
    get.sink = &sink;
    expect_failure(f, perform(f, &get), LJ_NOSPACE, false);
    assert_string_equal(f->err.message, "the sink is full");
    assert_true(f->response.sink_failed);
    assert_int_equal(f->response.sunk, counter.bytes);
    server_stop(server);
}

/* ---- connections that break ---- */

static void resets(void **state)
{
    fixture *f = *state;
    const server_step steps[] = {ACCEPT, RESET, ACCEPT, READ, RESET};
    http_server *server = server_start(steps);
    lj_http_request request = LJ_HTTP_REQUEST("PUT", server_url(server, "/k"));
    test_source content = {.len = 64u << 20};
    lj_source source = test_source_new(&content);
    request.source = &source;
    request.body_len = content.len;
    expect_failure(f, perform(f, &request), LJ_UNAVAILABLE, true);
    assert_false(f->response.maybe_sent);
    request.source = NULL;
    request.body = "abc";
    request.body_len = 3;
    expect_failure(f, perform(f, &request), LJ_UNAVAILABLE, true);
    assert_true(f->response.maybe_sent);
    assert_int_equal(f->response.status, 0);
    server_stop(server);
}

static void nobody_there(void **state)
{
    fixture *f = *state;
    const server_step steps[] = {ACCEPT};
    http_server *server = server_start(steps);
    char url[128];
    snprintf(url, sizeof(url), "http://user:passw0rd@127.0.0.1:%u/p?sig=hidden",
             server_port(server));
    server_abandon(server);
    lj_http_request request = LJ_HTTP_REQUEST("PUT", url);
    expect_failure(f, perform(f, &request), LJ_UNAVAILABLE, true);
    assert_false(f->response.maybe_sent);
    assert_int_equal(f->err.sys_errno, ECONNREFUSED);
    assert_non_null(strstr(f->err.message, "Connection refused"));
    assert_null(strstr(f->err.message, "hidden"));
    assert_null(strstr(f->err.message, "passw0rd"));
    assert_null(strstr(f->err.message, "user"));
    assert_non_null(strstr(f->err.message, "PUT 127.0.0.1:"));
    lj_http_request sixth = LJ_HTTP_REQUEST("GET", "http://u@[::1]:1/x");
    expect_failure(f, perform(f, &sixth), LJ_UNAVAILABLE, true);
    assert_non_null(strstr(f->err.message, "GET [::1]:1: "));
}

static void urls_that_are_none(void **state)
{
    fixture *f = *state;
    static const char *const urls[] = {"ftp://h/x?sig=hidden", "h/x?sig=hidden", "",
                                       "http://?sig=hidden", "http://h:99999/?sig=hidden"};
    for (size_t i = 0; i < LJ_ARRAY_LEN(urls); i++) {
        lj_http_request request = LJ_HTTP_REQUEST("GET", urls[i]);
        expect_failure(f, perform(f, &request), LJ_INVALID, false);
        assert_null(strstr(f->err.message, "hidden"));
        assert_false(f->response.maybe_sent);
    }
}

static void unknown_host(void **state)
{
    fixture *f = *state;
    lj_http_request request = LJ_HTTP_REQUEST("GET", "http://unknown.test/?sig=hidden");
    expect_failure(f, perform(f, &request), LJ_UNAVAILABLE, true);
    assert_non_null(strstr(f->err.message, "unknown.test"));
    assert_true(strlen(f->err.hint) > 0);
    assert_null(strstr(f->err.message, "hidden"));
    assert_false(f->response.maybe_sent);
}

/* ---- kept connections ---- */

static void kept_connection_is_used(void **state)
{
    fixture *f = *state;
    http_server *server = server_start_echo(0);
    for (int i = 0; i < 20; i++) {
        lj_http_request request = LJ_HTTP_REQUEST("PUT", server_url(server, "/"));
        request.body = "again";
        request.body_len = 5;
        assert_ok(perform(f, &request), &f->err);
        assert_string_equal(lj_buf_text(&f->response.body), "again");
    }
    assert_int_equal(server_accepted(server), 1);
    server_stop(server);
}

/* Closed while idle: noticed before the request is sent. Closed on the request: GET again, PUT only when unread. */
static void kept_connection_was_closed(void **state)
{
    fixture *f = *state;
    const server_step idle[] = {ACCEPT, READ, SEND(OK_EMPTY), CLOSE, ACCEPT, READ, SEND(OK_EMPTY)};
    http_server *server = server_start(idle);
    assert_ok(simple(f, server, "PUT"), &f->err);
    lj_clock_sleep_ns(50 * LJ_NS_PER_MS);
    assert_ok(simple(f, server, "PUT"), &f->err);
    assert_int_equal(server_accepted(server), 2);
    server_stop(server);

    const server_step on_get[] = {ACCEPT, READ,   SEND(OK_EMPTY), READ,
                                  CLOSE,  ACCEPT, READ,           SEND(OK_EMPTY)};
    server = server_start(on_get);
    assert_ok(simple(f, server, "GET"), &f->err);
    assert_ok(simple(f, server, "GET"), &f->err);
    assert_int_equal(server_accepted(server), 2);
    server_stop(server);
}

static void kept_connection_breaks_on_a_put(void **state)
{
    fixture *f = *state;
    const server_step steps[] = {ACCEPT, READ, SEND(OK_EMPTY), READ, CLOSE, ACCEPT};
    http_server *server = server_start(steps);
    lj_http_request request = LJ_HTTP_REQUEST("PUT", server_url(server, "/k"));
    test_source content = {.len = 10};
    lj_source source = test_source_new(&content);
    request.source = &source;
    request.body_len = content.len;
    assert_ok(perform(f, &request), &f->err);
    content.pos = 0;
    expect_failure(f, perform(f, &request), LJ_UNAVAILABLE, true);
    assert_true(f->response.maybe_sent);
    const char *second = strstr(server_received(server), "PUT");
    second = strstr(second + 1, "PUT");
    assert_non_null(second);
    assert_null(strstr(second + 1, "PUT")); /* and not sent a third time */
    server_stop(server);
}

/* The server goes before the body was handed on: the request cannot have been carried out, and begins anew. */
static void kept_connection_breaks_within_a_put(void **state)
{
    fixture *f = *state;
    const server_step steps[] = {ACCEPT, READ,   SEND(OK_EMPTY), READ_HEAD,
                                 RESET,  ACCEPT, READ,           SEND(OK_EMPTY)};
    http_server *server = server_start(steps);
    lj_http_request request = LJ_HTTP_REQUEST("PUT", server_url(server, "/k"));
    assert_ok(perform(f, &request), &f->err);
    test_source content = {.len = 30u << 20};
    lj_source source = test_source_new(&content);
    request.source = &source;
    request.body_len = content.len;
    lj_code code = perform(f, &request);
    if (code == LJ_OK) {
        assert_true(content.rewinds <= 1); /* none when nothing of it was read */
        assert_int_equal(content.pos, content.len);
        server_stop(server);
        return;
    }
    /* libcurl saw the failure when it sent, not when it received, and then repeats nothing */
    expect_failure(f, code, LJ_UNAVAILABLE, true);
    assert_false(f->response.maybe_sent);
    server_abandon(server);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(request_and_answer),
        TEST(sink_takes_good_answers_only),
        TEST(other_framings),
        TEST(broken_answers),
        TEST(headers_without_end),
        TEST(limits_of_the_body),
        TEST(bodies_have_a_length),
        TEST(delete_with_a_body),
        TEST(early_refusal),
        TEST(source_and_sink_fail),
        TEST(resets),
        TEST(nobody_there),
        TEST(urls_that_are_none),
        TEST(unknown_host),
        TEST(kept_connection_is_used),
        TEST(kept_connection_was_closed),
        TEST(kept_connection_breaks_on_a_put),
        TEST(kept_connection_breaks_within_a_put),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
