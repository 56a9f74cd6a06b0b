/*
 * sigv4_test.c - the request signer: the examples of the S3 API reference ("examplebucket"), and values that an independent
 * implementation gives for the shapes our requests have.
 */
#include "test/unit/unit.h"

#include "vfs/base/clock.h"
#include "vfs/storage/auth/crypto.h"
#include "vfs/storage/auth/sigv4.h"

#define KEY_ID     "AKIAIOSFODNN7EXAMPLE"
#define SECRET_KEY "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
#define DATE       "20130524T000000Z"
#define HOST       "examplebucket.s3.amazonaws.com"
#define NOTHING    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
#define WELCOME    "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072"

static void expect(const lj_sigv4_request *request, const char *secret_key, const char *wanted)
{
    lj_error err = LJ_ERROR_INIT;
    LJ_CLEANUP(lj_buf_free) lj_buf out = LJ_BUF_INIT(4096);
    assert_ok(lj_sigv4_authorization(request, KEY_ID, secret_key, &out, &err), &err);
    assert_string_equal(lj_buf_text(&out), wanted);
}

static void published_examples(void **state)
{
    (void)state;
    static const lj_sigv4_header get[] = {{"host", HOST},
                                          {"range", "bytes=0-9"},
                                          {"x-amz-content-sha256", NOTHING},
                                          {"x-amz-date", DATE}};
    static const lj_sigv4_header put[] = {{"date", "Fri, 24 May 2013 00:00:00 GMT"},
                                          {"host", HOST},
                                          {"x-amz-content-sha256", WELCOME},
                                          {"x-amz-date", DATE},
                                          {"x-amz-storage-class", "REDUCED_REDUNDANCY"}};
    static const lj_sigv4_header list[] = {
        {"host", HOST}, {"x-amz-content-sha256", NOTHING}, {"x-amz-date", DATE}};
    const lj_sigv4_request base = {.method = "GET",
                                   .path = "/",
                                   .query = "",
                                   .headers = list,
                                   .header_count = LJ_ARRAY_LEN(list),
                                   .payload_sha256 = NOTHING,
                                   .date = DATE,
                                   .region = "us-east-1",
                                   .service = "s3"};
#define SCOPE "AWS4-HMAC-SHA256 Credential=" KEY_ID "/20130524/us-east-1/s3/aws4_request,"
    lj_sigv4_request request = base;
    request.path = "/test.txt";
    request.headers = get;
    request.header_count = LJ_ARRAY_LEN(get);
    expect(&request, SECRET_KEY,
           SCOPE "SignedHeaders=host;range;x-amz-content-sha256;x-amz-date,"
                 "Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41");
    request = base;
    request.method = "PUT";
    request.path = "/test%24file.text";
    request.headers = put;
    request.header_count = LJ_ARRAY_LEN(put);
    request.payload_sha256 = WELCOME;
    expect(&request, SECRET_KEY,
           SCOPE "SignedHeaders=date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class,"
                 "Signature=98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd");
    request = base;
    request.query = "lifecycle=";
    expect(&request, SECRET_KEY,
           SCOPE "SignedHeaders=host;x-amz-content-sha256;x-amz-date,"
                 "Signature=fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543");
    request.query = "max-keys=2&prefix=J";
    expect(&request, SECRET_KEY,
           SCOPE "SignedHeaders=host;x-amz-content-sha256;x-amz-date,"
                 "Signature=34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7");
}

static void shapes_of_ours(void **state)
{
    (void)state;
    static const lj_sigv4_header part[] = {
        {"content-md5", "1B2M2Y8AsgTpgAmY7PhCfg=="},
        {"host", "127.0.0.1:9000"},
        {"if-none-match", "*"},
        {"x-amz-content-sha256", NOTHING},
        {"x-amz-date", "20261126T235959Z"},
        {"x-amz-security-token", "FwoGZXIvYXdzEXAMPLE//token=="}};
    const lj_sigv4_request request = {.method = "PUT",
                                      .path = "/bucket/a%20b/%C3%A9%2B%27%28%29",
                                      .query = "partNumber=3&uploadId=x%2By%3D",
                                      .headers = part,
                                      .header_count = LJ_ARRAY_LEN(part),
                                      .payload_sha256 = NOTHING,
                                      .date = "20261126T235959Z",
                                      .region = "eu-central-1",
                                      .service = "s3"};
    expect(&request, "s3cr3t/+key",
           "AWS4-HMAC-SHA256 Credential=" KEY_ID "/20261126/eu-central-1/s3/aws4_request,"
           "SignedHeaders=content-md5;host;if-none-match;x-amz-content-sha256;x-amz-date;"
           "x-amz-security-token,"
           "Signature=ba961135246446c57c7ebce7224acfcabf57397f9540196301b98ed04165c78d");
    static const lj_sigv4_header blanks[] = {
        {"host", "h"}, {"my-header", "  a   b\t c "}, {"x-amz-date", "20150830T123600Z"}};
    const lj_sigv4_request other = {.method = "GET",
                                    .path = "/",
                                    .query = "",
                                    .headers = blanks,
                                    .header_count = LJ_ARRAY_LEN(blanks),
                                    .payload_sha256 = NOTHING,
                                    .date = "20150830T123600Z",
                                    .region = "us-east-1",
                                    .service = "service"};
    expect(&other, SECRET_KEY,
           "AWS4-HMAC-SHA256 Credential=" KEY_ID "/20150830/us-east-1/service/aws4_request,"
           "SignedHeaders=host;my-header;x-amz-date,"
           "Signature=eeab4e5ff66206cd0ede99b3b3a59a5a67558202720591296ac088ca49817733");
}

static void dates(void **state)
{
    (void)state;
    char out[LJ_SIGV4_DATE_SIZE];
    lj_sigv4_date(INT64_C(1369353600) * LJ_NS_PER_S + 999999999, out);
    assert_string_equal(out, DATE);
    lj_sigv4_date(0, out);
    assert_string_equal(out, "19700101T000000Z");
}

static void bad_key_ids_and_secrets(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    static const lj_sigv4_header headers[] = {{"host", "h"}, {"x-amz-date", DATE}};
    const lj_sigv4_request request = {.method = "GET",
                                      .path = "/",
                                      .query = "",
                                      .headers = headers,
                                      .header_count = LJ_ARRAY_LEN(headers),
                                      .payload_sha256 = NOTHING,
                                      .date = DATE,
                                      .region = "us-east-1",
                                      .service = "s3"};
    static const char *const bad[] = {"AK\r\nX-Evil: 1", "AK IA",  "AK/IA",
                                      "AK,IA",           "AK\x7f", "\xC3\xA9"};
    for (size_t i = 0; i < LJ_ARRAY_LEN(bad); i++) {
        LJ_CLEANUP(lj_buf_free) lj_buf out = LJ_BUF_INIT(4096);
        assert_int_equal(lj_sigv4_authorization(&request, bad[i], SECRET_KEY, &out, &err),
                         LJ_INVALID);
        assert_int_equal(out.len, 0);
        assert_null(strstr(err.message, bad[i]));
    }
    char longest[2000];
    memset(longest, 'k', sizeof(longest) - 1);
    longest[sizeof(longest) - 1] = 0;
    LJ_CLEANUP(lj_buf_free) lj_buf out = LJ_BUF_INIT(4096);
    assert_int_equal(lj_sigv4_authorization(&request, KEY_ID, longest, &out, &err), LJ_INVALID);
    assert_null(strstr(err.message, "kkkk"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(published_examples),
        cmocka_unit_test(shapes_of_ours),
        cmocka_unit_test(dates),
        cmocka_unit_test(bad_key_ids_and_secrets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
