/* gcs_test.c - the GCS driver without a server: its URL and settings, the URLs of requests, what refusals mean. */
#include "test/unit/unit.h"

#include "vfs/base/clock.h"
#include "vfs/base/str.h"
#include "vfs/storage/gcs/gcs.h"
#include "vfs/storage/gcs/internal.h"

/* No credentials of the machine's owner, and no emulator, whatever the environment of the test is. */
static int plain_environment(void **state)
{
    (void)state;
    unsetenv("STORAGE_EMULATOR_HOST");
    unsetenv("GOOGLE_APPLICATION_CREDENTIALS");
    return setenv("CLOUDSDK_CONFIG", "/nonexistent", 1);
}

static void url_forms(void **state)
{
    (void)state;
    static const struct {
        const char *url;
        const char *shown; /* NULL: refused */
    } rows[] = {{"gcs://bucket/a/b", "gcs://bucket/a/b"},
                {"gs://bucket/a", "gs://bucket/a"},
                {"GS://bucket", "gs://bucket"},
                {"gcs://bucket/", "gcs://bucket"},
                {"gcs://my_bucket.example.com//a//./b/../c/", "gcs://my_bucket.example.com/a/c"},
                {"gcs://bucket/a%20b", "gcs://bucket/a b"},
                {"gcs://bucket/a?skip-verify=true&list_page_size=7", "gcs://bucket/a"},
                {"gcs://bucket/a?endpoint=https://gcs.example.com:443", "gcs://bucket/a"},
                {"gcs://bucket/a?endpoint=http://127.0.0.1:4443/", "gcs://bucket/a"},
                {"gcs://", NULL},
                {"gcs:///a", NULL},
                {"gcs://Bucket/a", NULL},
                {"gcs://ab/a", NULL},
                {"gcs://.ab/a", NULL},
                {"gcs://bucket:443/a", NULL},
                {"gcs://user@bucket/a", NULL},
                {"gcs://user:pw@bucket/a", NULL},
                {"gcs://buck%2Fet/a", NULL},
                {"gcs://bucket/a?region=x", NULL},
                {"gcs://bucket/a?list-page-size=0", NULL},
                {"gcs://bucket/a?list-page-size=1001", NULL},
                {"gcs://bucket/a?list-page-size=x", NULL},
                {"gcs://bucket/a?skip-verify=perhaps", NULL},
                {"gcs://bucket/a?endpoint=http://gcs.example.com", NULL},
                {"gcs://bucket/a?endpoint=http://127.0.0.1.example.com", NULL},
                {"gcs://bucket/a?endpoint=http://me@127.0.0.1", NULL}};
    for (size_t i = 0; i < LJ_ARRAY_LEN(rows); i++) {
        lj_error err = LJ_ERROR_INIT;
        lj_storage *storage = NULL;
        lj_code code = lj_storage_open(rows[i].url, NULL, &storage, &err);
        if (rows[i].shown == NULL) {
            if (code != LJ_INVALID)
                fail_msg("%s: %s", rows[i].url, lj_code_text(code));
            assert_null(strstr(err.message, "pw"));
            continue;
        }
        assert_ok(code, &err);
        assert_string_equal(lj_storage_url(storage), rows[i].shown);
        assert_string_equal(lj_storage_type(storage), "gcs");
        assert_int_equal(lj_storage_features(storage), LJ_STORAGE_IF_ABSENT | LJ_STORAGE_REMOTE);
        lj_storage_close(storage);
    }
}

static void endpoints(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool emulator;
        const char *base; /* NULL: refused */
    } rows[] = {{"127.0.0.1:4443", true, "http://127.0.0.1:4443"},
                {"http://fake-gcs:4443/", true, "http://fake-gcs:4443"},
                {"https://fake-gcs/base/", true, "https://fake-gcs/base"},
                {"localhost", true, "http://localhost"},
                {"storage.example.com", false, "https://storage.example.com"},
                {"https://storage.example.com/", false, "https://storage.example.com"},
                {"http://localhost:1", false, "http://localhost:1"},
                {"http://[::1]:1", false, "http://[::1]:1"},
                {"http://10.0.0.1", false, NULL},
                {"http://localhost.example.com", false, NULL},
                {"", true, NULL},
                {"http://", true, NULL},
                {"/", true, NULL},
                {"ftp://host", true, NULL},
                {"host?x", true, NULL},
                {"a b", true, NULL},
                {"user@host", false, NULL}};
    for (size_t i = 0; i < LJ_ARRAY_LEN(rows); i++) {
        lj_error err = LJ_ERROR_INIT;
        LJ_CLEANUP(lj_freep) char *base = NULL;
        lj_code code = lj_gcs_base(rows[i].text, rows[i].emulator, &base, &err);
        if (rows[i].base == NULL) {
            assert_int_equal(code, LJ_INVALID);
            assert_null(base);
            assert_true(err.hint[0] != 0);
            continue;
        }
        assert_ok(code, &err);
        assert_string_equal(base, rows[i].base);
    }
}

static void request_urls(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    char base[] = "https://h";
    char bucket[] = "bkt";
    char prefix[] = "pre/fix";
    char user_project[] = "my project";
    lj_gcs gcs = {.base = base, .bucket = bucket, .prefix = prefix};
    LJ_CLEANUP(lj_buf_free) lj_buf url = LJ_GCS_URL_INIT;
    LJ_CLEANUP(lj_freep) char *name = NULL;
    assert_ok(lj_gcs_name(&gcs, "a/b c#\xC3\xA9%2F?&+~", &name, &err), &err);
    assert_ok(lj_gcs_url(&gcs, false, name, &url, &err), &err);
    assert_string_equal(lj_buf_text(&url), "https://h/storage/v1/b/bkt/o/"
                                           "pre%2Ffix%2Fa%2Fb%20c%23%C3%A9%252F%3F%26%2B~");
    assert_ok(lj_gcs_param(&url, "alt", "media", &err), &err);
    assert_ok(lj_gcs_param(&url, "x", "a&b=c/d", &err), &err);
    assert_true(lj_str_ends(lj_buf_text(&url), "~?alt=media&x=a%26b%3Dc%2Fd"));
    gcs.user_project = user_project;
    assert_ok(lj_gcs_url(&gcs, true, NULL, &url, &err), &err);
    assert_string_equal(lj_buf_text(&url),
                        "https://h/upload/storage/v1/b/bkt/o?userProject=my%20project");
    lj_gcs_upload upload = {.gcs = &gcs, .name = "n/m", .if_absent = true};
    gcs.user_project = NULL;
    assert_ok(lj_gcs_upload_url(&upload, "resumable", &url, &err), &err);
    assert_string_equal(lj_buf_text(&url),
                        "https://h/upload/storage/v1/b/bkt/o?uploadType=resumable&name=n%2Fm"
                        "&fields=size%2Ccrc32c%2Cgeneration&ifGenerationMatch=0");
}

static void names(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    char prefix[] = "p";
    char none[] = "";
    lj_gcs gcs = {.prefix = none};
    char *name = NULL;
    assert_ok(lj_gcs_name(&gcs, "k", &name, &err), &err);
    assert_string_equal(name, "k");
    free(name);
    char longest[LJ_GCS_NAME_MAX + 1];
    memset(longest, 'n', LJ_GCS_NAME_MAX);
    longest[LJ_GCS_NAME_MAX] = 0;
    assert_ok(lj_gcs_name(&gcs, longest, &name, &err), &err);
    free(name);
    gcs.prefix = prefix;
    assert_int_equal(lj_gcs_name(&gcs, longest, &name, &err), LJ_INVALID);
    static const char *const bad[] = {
        "\xff", "a\xC3", "\xC3(", "\xE2\x82", "\xC0\x80", "\xF5\x80\x80\x80", "\x80"};
    for (size_t i = 0; i < LJ_ARRAY_LEN(bad); i++)
        assert_int_equal(lj_gcs_name(&gcs, bad[i], &name, &err), LJ_INVALID);
    assert_ok(lj_gcs_name(&gcs, "\xE2\x82\xAC\xF0\x9F\x98\x80", &name, &err), &err);
    free(name);
}

static void answer(lj_http_response *response, int status, const char *body)
{
    lj_error err = LJ_ERROR_INIT;
    lj_buf_clear(&response->body);
    response->status = status;
    assert_ok(lj_buf_append(&response->body, body, strlen(body), &err), &err);
}

#define REFUSAL(reason, message)                                                                   \
    "{\"error\":{\"message\":\"" message "\",\"errors\":[{\"reason\":\"" reason "\"}]}}"

static void meaning_of_refusals(void **state)
{
    (void)state;
    static const struct {
        int status;
        const char *body;
        lj_code code;
        bool retryable;
        const char *hint; /* part of it; NULL: none at all */
    } rows[] = {
        {400,
         REFUSAL("invalid", "Provided CRC32C \\\"a\\\" doesn't match calculated CRC32C \\\"b\\\""),
         LJ_IO, true, NULL},
        {400, REFUSAL("userProjectMissing", "requester pays"), LJ_INVALID, false, "user-project"},
        {400, REFUSAL("invalid", "Invalid argument"), LJ_INVALID, false, NULL},
        {401, REFUSAL("authError", "Invalid Credentials"), LJ_DENIED, true, "fresh"},
        {403, REFUSAL("forbidden", "no rights"), LJ_DENIED, true, "roles/storage.objectUser"},
        {403, REFUSAL("insufficientPermissions", "scope"), LJ_DENIED, true, "objectUser"},
        {403, REFUSAL("rateLimitExceeded", "slow"), LJ_UNAVAILABLE, true, "quota"},
        {403, REFUSAL("userRateLimitExceeded", "slow"), LJ_UNAVAILABLE, true, "quota"},
        {403, REFUSAL("quotaExceeded", "slow"), LJ_UNAVAILABLE, true, "quota"},
        {403, REFUSAL("retentionPolicyNotMet", "held"), LJ_DENIED, true, "retention policy"},
        {404, REFUSAL("notFound", "Not Found"), LJ_INVALID, true, "create it"},
        {404, "", LJ_INVALID, true, "create it"},
        {408, "", LJ_TIMEOUT, true, NULL},
        {409, REFUSAL("conflict", "concurrent"), LJ_UNAVAILABLE, true, NULL},
        {412, REFUSAL("conditionNotMet", "no"), LJ_EXISTS, false, NULL},
        {429, REFUSAL("rateLimitExceeded", "slow"), LJ_UNAVAILABLE, true, "fewer requests"},
        {500, "<html>", LJ_UNAVAILABLE, true, "unless it lasts"},
        {503, "", LJ_UNAVAILABLE, true, "fewer requests"},
    };
    char bucket[] = "bkt";
    lj_gcs gcs = {.bucket = bucket};
    LJ_CLEANUP(lj_http_response_free) lj_http_response response = LJ_HTTP_RESPONSE_INIT;
    for (size_t i = 0; i < LJ_ARRAY_LEN(rows); i++) {
        lj_error err = LJ_ERROR_INIT;
        answer(&response, rows[i].status, rows[i].body);
        lj_code code = lj_gcs_refused(&gcs, &response, "testing", &err);
        if (code != rows[i].code)
            fail_msg("%d %s: %s", rows[i].status, rows[i].body, lj_code_text(code));
        assert_int_equal(err.code, code);
        assert_int_equal(err.http_status, rows[i].status);
        assert_int_equal(err.retryable, rows[i].retryable);
        if (rows[i].hint == NULL)
            assert_string_equal(err.hint, "");
        else
            assert_non_null(strstr(err.hint, rows[i].hint));
    }
    lj_error err = LJ_ERROR_INIT;
    assert_ok(lj_buf_append(&response.headers, "retry-after: 7\n", 15, &err), &err);
    answer(&response, 429, REFUSAL("rateLimitExceeded", "slow down"));
    assert_int_equal(lj_gcs_refused(&gcs, &response, "testing", &err), LJ_UNAVAILABLE);
    assert_int_equal(err.retry_after_ns, 7 * LJ_NS_PER_S);
    assert_string_equal(err.message, "testing: HTTP 429: slow down (rateLimitExceeded)");
    /* without anybody who wants the error */
    answer(&response, 403, REFUSAL("quotaExceeded", "slow"));
    assert_int_equal(lj_gcs_refused(&gcs, &response, "testing", NULL), LJ_UNAVAILABLE);
}

static void absent_object_or_bucket(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    char bucket[] = "bkt";
    lj_gcs gcs = {.bucket = bucket};
    LJ_CLEANUP(lj_http_response_free) lj_http_response response = LJ_HTTP_RESPONSE_INIT;
    lj_gcs_seen(&gcs);
    answer(&response, 404, "No such object: bkt/o");
    assert_int_equal(lj_gcs_absent(&gcs, &response, &err), LJ_NOTFOUND);
    assert_int_equal(err.http_status, 404);
    /* said in so many words, it needs no looking */
    answer(&response, 404, REFUSAL("notFound", "The specified bucket does not exist."));
    assert_int_equal(lj_gcs_absent(&gcs, &response, &err), LJ_INVALID);
    assert_non_null(strstr(err.message, "\"bkt\" does not exist"));
    assert_true(err.retryable);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(url_forms),           cmocka_unit_test(endpoints),
        cmocka_unit_test(request_urls),        cmocka_unit_test(names),
        cmocka_unit_test(meaning_of_refusals), cmocka_unit_test(absent_object_or_bucket),
    };
    return cmocka_run_group_tests_name("gcs", tests, plain_environment, NULL);
}
