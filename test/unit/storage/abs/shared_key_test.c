/*
 * shared_key_test.c - Shared Key signatures. The expected values were computed by a Python script of ten lines over hmac and
 * hashlib, from the description of the service alone; the key is the emulator's, which is published.
 */
#include "test/unit/unit.h"

#include "vfs/storage/abs/shared_key.h"
#include "vfs/storage/auth/crypto.h"

#define KEY                                                                                        \
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
#define DATE    "x-ms-date: Fri, 26 Jun 2015 23:39:12 GMT"
#define VERSION "x-ms-version: 2023-11-03"

static void check(const lj_shared_key_request *request, const char *text, const char *value)
{
    lj_error err = LJ_ERROR_INIT;
    LJ_CLEANUP(lj_buf_free) lj_buf got = LJ_BUF_INIT(4096);
    assert_ok(lj_shared_key_string(request, &got, &err), &err);
    assert_string_equal(lj_buf_text(&got), text);
    LJ_CLEANUP(lj_secret_free) lj_secret key = LJ_SECRET_NONE;
    LJ_CLEANUP(lj_secret_free) lj_secret signature = LJ_SECRET_NONE;
    assert_ok(lj_base64_decode(KEY, &key, &err), &err);
    assert_ok(lj_shared_key_sign(request, &key, &signature, &err), &err);
    assert_string_equal(lj_secret_text(&signature), value);
}

static void a_listing(void **state)
{
    (void)state;
    const char *const headers[] = {DATE, VERSION, NULL};
    const lj_abs_pair query[] = {
        {"restype", "container"}, {"comp", "list"}, {"prefix", "a b/c&d"}, {"maxresults", "5000"}};
    lj_shared_key_request request = {.method = "GET",
                                     .account = "myaccount",
                                     .path = "/mycontainer",
                                     .query = query,
                                     .query_count = 4,
                                     .headers = headers};
    check(&request,
          "GET\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:Fri, 26 Jun 2015 23:39:12 GMT\n"
          "x-ms-version:2023-11-03\n/myaccount/mycontainer\ncomp:list\nmaxresults:5000\n"
          "prefix:a b/c&d\nrestype:container",
          "SharedKey myaccount:TU60wUa7WqsSTacjnC0BIOYiyGJoc0FKnWEqIx8WrWU=");
}

static void an_upload(void **state)
{
    (void)state;
    const char *const headers[] = {DATE,
                                   VERSION,
                                   "X-MS-Blob-Type:   BlockBlob",
                                   "content-type: application/octet-stream",
                                   "If-None-Match: *",
                                   "Content-MD5: XrY7u+Ae7tCTyyK7j1rNww==",
                                   NULL};
    lj_shared_key_request request = {.method = "PUT",
                                     .account = "myaccount",
                                     .path = "/mycontainer/a%20b/c",
                                     .headers = headers,
                                     .content_length = 11};
    check(&request,
          "PUT\n\n\n11\nXrY7u+Ae7tCTyyK7j1rNww==\napplication/octet-stream\n\n\n\n*\n\n\n"
          "x-ms-blob-type:BlockBlob\nx-ms-date:Fri, 26 Jun 2015 23:39:12 GMT\n"
          "x-ms-version:2023-11-03\n/myaccount/mycontainer/a%20b/c",
          "SharedKey myaccount:S4kjPKjeSSSkpe18V1py/QGBjRQLPMFArN2MmMw1g6Y=");
}

/* The emulator has the account in the path: it stands twice. */
static void a_range_of_the_emulator(void **state)
{
    (void)state;
    const char *const headers[] = {DATE, VERSION, "x-ms-range: bytes=10-19", NULL};
    lj_shared_key_request request = {.method = "GET",
                                     .account = "devstoreaccount1",
                                     .path = "/devstoreaccount1/c/blob",
                                     .headers = headers};
    check(&request,
          "GET\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:Fri, 26 Jun 2015 23:39:12 GMT\n"
          "x-ms-range:bytes=10-19\nx-ms-version:2023-11-03\n"
          "/devstoreaccount1/devstoreaccount1/c/blob",
          "SharedKey devstoreaccount1:aiJiFR6CUjQmdQW9d5HwBTPYdliCkSgwsYHxd5HWzOY=");
}

static void a_deletion(void **state)
{
    (void)state;
    const char *const headers[] = {VERSION, "x-ms-delete-snapshots: include", DATE, NULL};
    lj_shared_key_request request = {.method = "DELETE",
                                     .account = "myaccount",
                                     .path = "/mycontainer/%C3%A9",
                                     .headers = headers};
    check(&request,
          "DELETE\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:Fri, 26 Jun 2015 23:39:12 GMT\n"
          "x-ms-delete-snapshots:include\nx-ms-version:2023-11-03\n/myaccount/mycontainer/%C3%A9",
          "SharedKey myaccount:01M/CJxNXVmaXeQoM/MS62udJ6+3sejPTdxZRvevyKk=");
}

/* "x-ms-a" sorts before "x-ms-a-b", although ':' is greater than '-'. */
static void names_sort_without_their_colon(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    const char *const headers[] = {"x-ms-a-b: 2", "x-ms-b: 3", "x-ms-a: 1", NULL};
    lj_shared_key_request request = {
        .method = "GET", .account = "a", .path = "/", .headers = headers};
    LJ_CLEANUP(lj_buf_free) lj_buf got = LJ_BUF_INIT(4096);
    assert_ok(lj_shared_key_string(&request, &got, &err), &err);
    assert_string_equal(lj_buf_text(&got),
                        "GET\n\n\n\n\n\n\n\n\n\n\n\nx-ms-a:1\nx-ms-a-b:2\nx-ms-b:3\n/a/");
}

static void limits(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    const char *headers[LJ_SHARED_KEY_HEADERS_MAX + 2];
    for (size_t i = 0; i < LJ_SHARED_KEY_HEADERS_MAX + 1; i++)
        headers[i] = "x-ms-a: b";
    headers[LJ_SHARED_KEY_HEADERS_MAX + 1] = NULL;
    lj_shared_key_request request = {
        .method = "GET", .account = "a", .path = "/", .headers = headers};
    LJ_CLEANUP(lj_buf_free) lj_buf got = LJ_BUF_INIT(4096);
    assert_int_equal(lj_shared_key_string(&request, &got, &err), LJ_INVALID);
    lj_abs_pair query[LJ_SHARED_KEY_QUERY_MAX + 1];
    for (size_t i = 0; i < LJ_ARRAY_LEN(query); i++)
        query[i] = (lj_abs_pair){"a", "b"};
    headers[1] = NULL;
    request.query = query;
    request.query_count = LJ_ARRAY_LEN(query);
    assert_int_equal(lj_shared_key_string(&request, &got, &err), LJ_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_listing),
        cmocka_unit_test(an_upload),
        cmocka_unit_test(a_range_of_the_emulator),
        cmocka_unit_test(a_deletion),
        cmocka_unit_test(names_sort_without_their_colon),
        cmocka_unit_test(limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
