/* url_test.c - the parts of a replica URL, clean paths, and percent-encoding. */
#include "test/unit/unit.h"

#include "vfs/base/str.h"
#include "vfs/storage/url.h"

static void expect_parts(const char *text, const char *scheme, const char *user,
                         const char *password, const char *host, uint16_t port, const char *path,
                         const char *query)
{
    lj_url url;
    lj_error err = LJ_ERROR_INIT;
    assert_ok(lj_url_parse(text, &url, &err), &err);
    assert_string_equal(url.scheme, scheme);
    if (!lj_str_eq(url.user, user))
        fail_msg("%s: user %s", text, url.user != NULL ? url.user : "NULL");
    assert_string_equal(lj_secret_text(&url.password), password);
    assert_string_equal(url.host, host);
    assert_int_equal(url.port, port);
    assert_string_equal(url.path, path);
    if (!lj_str_eq(url.query, query))
        fail_msg("%s: query %s", text, url.query != NULL ? url.query : "NULL");
    lj_url_free(&url);
    lj_url_free(&url);
}

static void parts_of_urls(void **state)
{
    (void)state;
    expect_parts("s3://bucket/a/b", "s3", NULL, "", "bucket", 0, "/a/b", NULL);
    expect_parts("S3://bucket", "s3", NULL, "", "bucket", 0, "", NULL);
    expect_parts("s3://bucket/", "s3", NULL, "", "bucket", 0, "", NULL);
    expect_parts("s3://b.host:9000//a/./c/../b%20c/?x=%41&y", "s3", NULL, "", "b.host", 9000,
                 "/a/b c", "x=%41&y");
    expect_parts("s3://b?", "s3", NULL, "", "b", 0, "", "");
    expect_parts("abs://account@container/x", "abs", "account", "", "container", 0, "/x", NULL);
    expect_parts("sftp://u%40x:p%2Fw%3a@h:22/~/d", "sftp", "u@x", "p/w:", "h", 22, "/~/d", NULL);
    expect_parts("sftp://u:@h/", "sftp", "u", "", "h", 0, "", NULL);
    expect_parts("sftp://u:p@w@h/x@y", "sftp", "u", "p@w", "h", 0, "/x@y", NULL);
    expect_parts("sftp://@h", "sftp", "", "", "h", 0, "", NULL);
    expect_parts("sftp://u@[::1]:2222/d", "sftp", "u", "", "::1", 2222, "/d", NULL);
    expect_parts("sftp://[fe80::1%25eth0]/d", "sftp", NULL, "", "fe80::1%eth0", 0, "/d", NULL);
    expect_parts("gs://b:/x", "gs", NULL, "", "b", 0, "/x", NULL);
    expect_parts("gs:///x", "gs", NULL, "", "", 0, "/x", NULL);
    expect_parts("gs://b/../../x", "gs", NULL, "", "b", 0, "/x", NULL);
    expect_parts("gs://b/\xc3\xa4+%2b", "gs", NULL, "", "b", 0, "/\xc3\xa4++", NULL);
}

static void urls_that_are_none(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "bucket",
        "://b",
        "s3:/b",
        "s3-x://b",
        "s3://b:0/",
        "s3://b:65536/",
        "s3://b:http/",
        "s3://b:1:2/",
        "s3://u:hidden@b:x/",
        "s3://[::1",
        "s3://[::1]x/",
        "s3://::1/",
        "s3://b/hidden#x",
        "s3://b/%",
        "s3://b/%4",
        "s3://b/%zz",
        "s3://b/%00",
        "s3://b/%0a",
        "s3://b/\n",
        "s3://b\x7f/",
        "s3://b%2fhidden/",
        "s3://b%3Fhidden/",
        "s3://b%40hidden/",
        "s3://a b/",
        "s3://u%00:hidden@b/",
        "s3://u:hidden%1f@b/",
    };
    for (size_t i = 0; i < LJ_ARRAY_LEN(bad); i++) {
        lj_url url = {.port = 7};
        lj_error err = LJ_ERROR_INIT;
        if (lj_url_parse(bad[i], &url, &err) != LJ_INVALID)
            fail_msg("\"%s\" was taken", bad[i]);
        assert_int_equal(url.port, 7);
        assert_non_null(strstr(err.message, "replica URL"));
        assert_null(strstr(err.message, "hidden"));
    }
}

static void expect_clean(const char *path, const char *expected)
{
    /* exactly as long as it is, so that a byte too many is seen */
    char *copy = lj_str_dup(path);
    lj_url_clean_path(copy);
    assert_string_equal(copy, expected);
    free(copy);
}

static void clean_paths(void **state)
{
    (void)state;
    expect_clean("", "");
    expect_clean("/", "");
    expect_clean("///", "");
    expect_clean("/.", "");
    expect_clean("/..", "");
    expect_clean("/a/..", "");
    expect_clean("/../a", "/a");
    expect_clean("/a//b/", "/a/b");
    expect_clean("/a/./b/../../c", "/c");
    expect_clean("/...", "/...");
    expect_clean("/..a/.b", "/..a/.b");
    expect_clean("a", "a");
    expect_clean("a/b/", "a/b");
    expect_clean("./a", "a");
    expect_clean("../a", "a");
    expect_clean("a/../b", "b");
    expect_clean("a/..", "");
    expect_clean(".", "");
}

static void prefixes_and_joins(void **state)
{
    (void)state;
    lj_url url;
    lj_error err = LJ_ERROR_INIT;
    assert_ok(lj_url_parse("s3://b/p/q/", &url, &err), &err);
    assert_string_equal(lj_url_prefix(&url), "p/q");
    char *key = lj_url_join(lj_url_prefix(&url), "k/1");
    assert_string_equal(key, "p/q/k/1");
    free(key);
    lj_url_free(&url);
    assert_ok(lj_url_parse("s3://b", &url, &err), &err);
    assert_string_equal(lj_url_prefix(&url), "");
    key = lj_url_join(lj_url_prefix(&url), "k/1");
    assert_string_equal(key, "k/1");
    free(key);
    lj_url_free(&url);
}

static void encoding(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    lj_buf out = LJ_BUF_INIT(4096);
    char all[256];
    for (int i = 1; i < 256; i++)
        all[i - 1] = (char)i;
    all[255] = 0;
    assert_ok(lj_url_encode(&out, all, false, &err), &err);
    for (size_t i = 0; i < out.len; i++)
        assert_non_null(strchr(
            "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~%", out.data[i]));
    assert_int_equal(out.len, 66 + 3 * (255 - 66));
    assert_true(lj_url_decode((char *)out.data, false));
    assert_string_equal(lj_buf_text(&out), all);
    lj_buf_clear(&out);
    assert_ok(lj_url_encode(&out, "a/b+c ~\xc3\xa4", true, &err), &err);
    assert_string_equal(lj_buf_text(&out), "a/b%2Bc%20~%C3%A4");
    lj_buf_free(&out);
    lj_buf small = LJ_BUF_INIT(5);
    assert_int_equal(lj_url_encode(&small, "  ", true, &err), LJ_INVALID);
    lj_buf_free(&small);
    char form[] = "a+b%2B%C3%a4";
    assert_true(lj_url_decode(form, true));
    assert_string_equal(form, "a b+\xc3\xa4");
    char plain[] = "a+b";
    assert_true(lj_url_decode(plain, false));
    assert_string_equal(plain, "a+b");
    char *const malformed[] = {(char[]){"%"}, (char[]){"a%2"}, (char[]){"%g0"}, (char[]){"%00"}};
    for (size_t i = 0; i < LJ_ARRAY_LEN(malformed); i++)
        assert_false(lj_url_decode(malformed[i], false));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parts_of_urls), cmocka_unit_test(urls_that_are_none),
        cmocka_unit_test(clean_paths),   cmocka_unit_test(prefixes_and_joins),
        cmocka_unit_test(encoding),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
