/* answer_test.c - headers, times and statuses of answers. */
#include "test/unit/unit.h"

#include "vfs/base/clock.h"
#include "vfs/storage/http/http.h"

static lj_http_response with_headers(const char *headers)
{
    lj_http_response response = LJ_HTTP_RESPONSE_INIT;
    lj_error err = LJ_ERROR_INIT;
    assert_ok(lj_buf_append(&response.headers, headers, strlen(headers), &err), &err);
    return response;
}

static void headers(void **state)
{
    (void)state;
    lj_http_response r =
        with_headers("etag: \"a\"\nx-empty:\nx-a-long: 12345\nx-a:\t b c\netag: 2\n");
    char value[6] = "";
    assert_true(lj_http_header(&r, "etag", value, sizeof(value)));
    assert_string_equal(value, "\"a\"");
    assert_true(lj_http_header(&r, "x-empty", value, sizeof(value)));
    assert_string_equal(value, "");
    assert_true(lj_http_header(&r, "x-a", value, sizeof(value)));
    assert_string_equal(value, "b c");
    assert_true(lj_http_header(&r, "x-a-long", value, 6));
    assert_string_equal(value, "12345");
    assert_false(lj_http_header(&r, "x-a-long", value, 5)); /* too small */
    assert_false(lj_http_header(&r, "x", value, sizeof(value)));
    assert_false(lj_http_header(&r, "a-long", value, sizeof(value)));
    lj_http_response_free(&r);
    lj_http_response none = LJ_HTTP_RESPONSE_INIT;
    assert_false(lj_http_header(&none, "etag", value, sizeof(value)));
    lj_http_response_free(&none);
}

static void dates(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t seconds;
    } good[] = {{"Sun, 06 Nov 1994 08:49:37 GMT", 784111777},
                {"Thu, 01 Jan 1970 00:00:00 GMT", 0},
                {"Thu, 29 Feb 2024 23:59:59 GMT", 1709251199},
                {"Tue, 31 Dec 2261 23:59:59 GMT", INT64_C(9214646399)}};
    char text[32];
    int64_t ns = -1;
    for (size_t i = 0; i < LJ_ARRAY_LEN(good); i++) {
        if (!lj_http_date(good[i].text, &ns))
            fail_msg("%s", good[i].text);
        assert_int_equal(ns, good[i].seconds * LJ_NS_PER_S);
        lj_http_date_format(ns, text);
        assert_string_equal(text, good[i].text);
        lj_http_date_format(ns + LJ_NS_PER_S - 1, text);
        assert_string_equal(text, good[i].text);
    }
    static const char *const bad[] = {"",
                                      "Sun",
                                      "Mon, 06 Nov 1994 08:49:37 GMT",
                                      "Sun, 06 Nov 1994 08:49:37 GMTX",
                                      "Sun, 06 Nov 1994 08:49:37 UTC",
                                      "Sun, 06 Nov 1994 08:49:37",
                                      "Sun, 6 Nov 1994 08:49:37 GMT",
                                      "Sun, 06 nov 1994 08:49:37 GMT",
                                      "Sun, 06 Nox 1994 08:49:37 GMT",
                                      "Thu, 30 Feb 2024 00:00:00 GMT",
                                      "Sun, 06 Nov 1994 24:00:00 GMT",
                                      "Sun, 06 Nov 1994 08:60:00 GMT",
                                      "Sun, 06 Nov 1994 08:-1:00 GMT",
                                      "Wed, 31 Dec 1969 23:59:59 GMT",
                                      "Wed, 01 Jan 2262 00:00:00 GMT",
                                      "Sunday, 06-Nov-94 08:49:37 GMT",
                                      "Sun Nov  6 08:49:37 1994"};
    for (size_t i = 0; i < LJ_ARRAY_LEN(bad); i++) {
        ns = -1;
        if (lj_http_date(bad[i], &ns))
            fail_msg("%s", bad[i]);
        assert_int_equal(ns, -1);
    }
}

static void retry_after(void **state)
{
    (void)state;
    static const struct {
        const char *headers;
        int64_t ns;
    } cases[] = {{"", 0},
                 {"retry-after: 0\n", 0},
                 {"retry-after: 7\n", 7 * LJ_NS_PER_S},
                 {"retry-after: 3601\n", 3600 * LJ_NS_PER_S},
                 {"retry-after: 18446744073709551615\n", 3600 * LJ_NS_PER_S},
                 {"retry-after: 18446744073709551616\n", 0},
                 {"retry-after: -1\n", 0},
                 {"retry-after: soon\n", 0},
                 {"retry-after: Sun, 06 Nov 1994 08:49:37 GMT\n", 0},
                 {"retry-after: Tue, 31 Dec 2261 23:59:59 GMT\n", 3600 * LJ_NS_PER_S}};
    for (size_t i = 0; i < LJ_ARRAY_LEN(cases); i++) {
        lj_http_response r = with_headers(cases[i].headers);
        assert_int_equal(lj_http_retry_after_ns(&r), cases[i].ns);
        lj_http_response_free(&r);
    }
    char date[32];
    char header[64];
    lj_http_date_format(lj_clock_wall_ns() + 60 * LJ_NS_PER_S, date);
    snprintf(header, sizeof(header), "retry-after: %s\n", date);
    lj_http_response r = with_headers(header);
    assert_in_range(lj_http_retry_after_ns(&r), 50 * LJ_NS_PER_S, 60 * LJ_NS_PER_S);
    lj_http_response_free(&r);
}

static void statuses(void **state)
{
    (void)state;
    static const struct {
        int status;
        lj_code code;
        bool retryable;
    } cases[] = {
        {301, LJ_UNAVAILABLE, true}, {400, LJ_INVALID, false},    {401, LJ_DENIED, true},
        {403, LJ_DENIED, true},      {404, LJ_NOTFOUND, false},   {405, LJ_INVALID, false},
        {407, LJ_DENIED, true},      {408, LJ_TIMEOUT, true},     {409, LJ_INVALID, false},
        {412, LJ_EXISTS, false},     {416, LJ_INVALID, false},    {429, LJ_UNAVAILABLE, true},
        {499, LJ_INVALID, false},    {500, LJ_UNAVAILABLE, true}, {501, LJ_UNAVAILABLE, true},
        {503, LJ_UNAVAILABLE, true}, {507, LJ_NOSPACE, true}};
    for (size_t i = 0; i < LJ_ARRAY_LEN(cases); i++) {
        lj_http_response r = with_headers("retry-after: 2\n");
        lj_error err = LJ_ERROR_INIT;
        r.status = cases[i].status;
        assert_int_equal(lj_http_status_error(&r, "put", NULL, &err), cases[i].code);
        assert_int_equal(err.code, cases[i].code);
        assert_int_equal(err.retryable, cases[i].retryable);
        assert_int_equal(err.http_status, cases[i].status);
        assert_int_equal(err.retry_after_ns, 2 * LJ_NS_PER_S);
        char expected[32];
        snprintf(expected, sizeof(expected), "put: HTTP %d", cases[i].status);
        assert_string_equal(err.message, expected);
        assert_int_equal(lj_http_status_error(&r, "put", NULL, NULL), cases[i].code);
        lj_http_response_free(&r);
    }
}

static void details_are_one_line(void **state)
{
    (void)state;
    lj_http_response r = LJ_HTTP_RESPONSE_INIT;
    lj_error err = LJ_ERROR_INIT;
    r.status = 503;
    lj_http_status_error(&r, "get", "SlowDown: a\nb\x1b[31m\x7f\xc3\xa4", &err);
    assert_string_equal(err.message, "get: HTTP 503: SlowDown: a b [31m \xc3\xa4");
    lj_http_status_error(&r, "get", "", &err);
    assert_string_equal(err.message, "get: HTTP 503");
    lj_http_response_free(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(headers),
        cmocka_unit_test(dates),
        cmocka_unit_test(retry_after),
        cmocka_unit_test(statuses),
        cmocka_unit_test(details_are_one_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
