/* mask_test.c - what a refusal repeats of the request's secrets. */
#include "test/unit/unit.h"

#include <string.h>

#include "vfs/base/buf.h"
#include "vfs/storage/http/transfer.h"

static void expect(const lj_http_request *request, const char *body, const char *want)
{
    LJ_CLEANUP(lj_buf_free) lj_buf buf = LJ_BUF_INIT(4096);
    assert_int_equal(lj_buf_append(&buf, body, strlen(body), NULL), LJ_OK);
    lj_http_mask_sent(request, &buf);
    assert_string_equal(lj_buf_text(&buf), want);
}

static void headers(void **state)
{
    (void)state;
    static const char *const lines[] = {
        "Host: store", "Authorization: Bearer abcdefgh.ijkl",
        "x-amz-security-token: t0ken/t0ken+=", "x-amz-date: 20260102T030405Z", NULL};
    lj_http_request request = LJ_HTTP_REQUEST("GET", "http://store/key");
    request.headers = lines;
    expect(&request, "no abcdefgh.ijkl, no <t0ken/t0ken+=>, and again abcdefgh.ijkl",
           "no *************, no <*************>, and again *************");
    expect(&request, "Authorization: Bearer abcdefgh.ijkl", "Authorization: ********************");
    expect(&request, "20260102T030405Z of store", "20260102T030405Z of store");
    expect(&request, "", "");
    request.headers = NULL;
    expect(&request, "abcdefgh.ijkl", "abcdefgh.ijkl");
}

static void fields(void **state)
{
    (void)state;
    static const char *const form[] = {"Content-Type: application/x-www-form-urlencoded", NULL};
    static const char *const other[] = {"Content-Type: application/octet-stream", NULL};
    static const char body[] =
        "grant_type=refresh_token&client_secret=a%2Fb%2Bcdef&refresh_token=1%2F%2Fxyz123&x";
    lj_http_request request =
        LJ_HTTP_REQUEST("POST", "https://store/key?sv=2023-11-03&sig=QUJD%2Fxyz%3D");
    request.body = body;
    request.body_len = strlen(body);
    request.headers = form;
    expect(&request, "a/b+cdef a%2Fb%2Bcdef 1//xyz123 refresh_token",
           "******** ************ ********* refresh_token");
    expect(&request, "sig=QUJD/xyz= or sig=QUJD%2Fxyz%3D of 2023-11-03",
           "sig=********* or sig=************* of 2023-11-03");
    request.headers = other;
    expect(&request, "a/b+cdef", "a/b+cdef");
}

/* What is short is text like any other. */
static void short_values(void **state)
{
    (void)state;
    static const char *const lines[] = {"authorization: no", "authorization:", "authorization", "",
                                        NULL};
    lj_http_request request = LJ_HTTP_REQUEST("GET", "http://store/?sig=&sig&=&&sig=x");
    request.headers = lines;
    expect(&request, "no x authorization", "no x authorization");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(headers),
        cmocka_unit_test(fields),
        cmocka_unit_test(short_values),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
