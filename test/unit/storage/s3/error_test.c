/* error_test.c - what error answers turn into: code, retryable or not, and a hint where an operator can do something. */
#include "test/unit/unit.h"

#include "vfs/base/str.h"
#include "vfs/storage/s3/internal.h"

#define ERROR_OF(code)                                                                             \
    "<?xml version=\"1.0\"?>\n<Error><Code>" code "</Code><Message>no luck</Message></Error>"

static lj_code judge(int status, const char *body, lj_error *err)
{
    LJ_CLEANUP(lj_http_response_free) lj_http_response response = LJ_HTTP_RESPONSE_INIT;
    lj_s3_answer answer;
    response.status = status;
    lj_s3_answer_read(body, strlen(body), &answer);
    return lj_s3_answer_error(&response, &answer, "GET store", err);
}

static void meanings(void **state)
{
    (void)state;
    static const struct {
        int status;
        const char *body;
        lj_code code;
        bool retryable;
        const char *hint; /* a word of it; NULL: none */
    } rows[] = {
        {404, ERROR_OF("NoSuchKey"), LJ_NOTFOUND, false, NULL},
        {404, ERROR_OF("NoSuchBucket"), LJ_INVALID, true, "create the bucket"},
        {404, ERROR_OF("NotFound"), LJ_NOTFOUND, false, NULL},
        {404, ERROR_OF("NoSuchTenant"), LJ_INVALID, true, "endpoint"},
        {404, ERROR_OF("NoSuchUpload"), LJ_UNAVAILABLE, true, "lifecycle"},
        {404, "", LJ_INVALID, true, "endpoint"},
        {404, "<html><body>Not Found</body></html>", LJ_INVALID, true, "endpoint"},
        {405, "", LJ_INVALID, true, "endpoint"},
        {301, ERROR_OF("PermanentRedirect"), LJ_INVALID, true, "region"},
        {307, ERROR_OF("TemporaryRedirect"), LJ_UNAVAILABLE, true, "region"},
        {302, "", LJ_INVALID, true, "endpoint"},
        {400, ERROR_OF("AuthorizationHeaderMalformed"), LJ_INVALID, true, "region"},
        {400, ERROR_OF("InvalidBucketName"), LJ_INVALID, false, "bucket"},
        {400, ERROR_OF("ExpiredToken"), LJ_DENIED, true, "renew"},
        {400, ERROR_OF("ExpiredTokenException"), LJ_DENIED, true, "renew"},
        {400, ERROR_OF("InvalidToken"), LJ_DENIED, true, "session token"},
        {400, ERROR_OF("RequestTimeout"), LJ_TIMEOUT, true, NULL},
        {400, ERROR_OF("BadDigest"), LJ_UNAVAILABLE, true, "bytes"},
        {400, ERROR_OF("XAmzContentSHA256Mismatch"), LJ_UNAVAILABLE, true, "bytes"},
        {400, ERROR_OF("IncompleteBody"), LJ_UNAVAILABLE, true, NULL},
        {400, ERROR_OF("EntityTooLarge"), LJ_INVALID, false, "limits"},
        {400, ERROR_OF("EntityTooSmall"), LJ_INVALID, false, "parts"},
        {400, ERROR_OF("InvalidStorageClass"), LJ_INVALID, false, "storage-class"},
        {400, ERROR_OF("KMS.DisabledException"), LJ_DENIED, true, "KMS"},
        {400, ERROR_OF("SomethingNew"), LJ_INVALID, false, NULL},
        {403, ERROR_OF("AccessDenied"), LJ_DENIED, true, "s3:ListBucket"},
        {403, ERROR_OF("InvalidAccessKeyId"), LJ_DENIED, true, "AWS_ACCESS_KEY_ID"},
        {403, ERROR_OF("SignatureDoesNotMatch"), LJ_DENIED, true, "secret access key"},
        {403, ERROR_OF("RequestTimeTooSkewed"), LJ_DENIED, true, "clock"},
        {403, ERROR_OF("InvalidObjectState"), LJ_DENIED, true, "archive"},
        {403, ERROR_OF("QuotaExceeded"), LJ_NOSPACE, true, "quota"},
        {403, "", LJ_DENIED, true, "s3:ListBucket"},
        {409, ERROR_OF("ConditionalRequestConflict"), LJ_UNAVAILABLE, true, "same object"},
        {409, ERROR_OF("OperationAborted"), LJ_UNAVAILABLE, true, NULL},
        {412, ERROR_OF("PreconditionFailed"), LJ_EXISTS, false, NULL},
        {412, "", LJ_EXISTS, false, NULL},
        {500, ERROR_OF("InternalError"), LJ_UNAVAILABLE, true, "nothing to do"},
        {501, ERROR_OF("NotImplemented"), LJ_UNSUPPORTED, false, "conditional"},
        {502, "<html>bad gateway</html>", LJ_UNAVAILABLE, true, "unless it lasts"},
        {503, ERROR_OF("SlowDown"), LJ_UNAVAILABLE, true, "fewer"},
        {503, ERROR_OF("SlowDownWrite"), LJ_UNAVAILABLE, true, "fewer"},
        {429, ERROR_OF("TooManyRequestsException"), LJ_UNAVAILABLE, true, "fewer"},
        {507, ERROR_OF("XMinioStorageFull"), LJ_NOSPACE, true, "full"},
    };
    for (size_t i = 0; i < LJ_ARRAY_LEN(rows); i++) {
        lj_error err = LJ_ERROR_INIT;
        lj_code code = judge(rows[i].status, rows[i].body, &err);
        bool hint_good =
            rows[i].hint == NULL ? err.hint[0] == 0 : strstr(err.hint, rows[i].hint) != NULL;
        if (code != rows[i].code || err.code != code || err.retryable != rows[i].retryable ||
            !hint_good || err.http_status != rows[i].status ||
            strncmp(err.message, "GET store: HTTP ", 16) != 0)
            fail_msg("row %zu: %s, retryable %d: %s (%s)", i, lj_code_text(code), err.retryable,
                     err.message, err.hint);
    }
}

static void answers(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    static const char redirect[] =
        "<Error "
        "xmlns=\"x\"><Code>PermanentRedirect</Code><Message>go\nelsewhere</Message><Bucket>b</"
        "Bucket>"
        "<Endpoint>b.s3.eu-west-1.amazonaws.com</Endpoint><Region>eu-west-1</Region></Error>";
    lj_s3_answer answer;
    lj_s3_answer_read(redirect, strlen(redirect), &answer);
    assert_string_equal(answer.code, "PermanentRedirect");
    assert_string_equal(answer.region, "eu-west-1");
    assert_string_equal(answer.endpoint, "b.s3.eu-west-1.amazonaws.com");
    assert_int_equal(judge(301, redirect, &err), LJ_INVALID);
    assert_string_equal(err.message, "GET store: HTTP 301: PermanentRedirect: go elsewhere "
                                     "(b.s3.eu-west-1.amazonaws.com)");
    static const char *const nothing[] = {"",
                                          "<html/>",
                                          "<Error>",
                                          "<Error><Code>X</Code>",
                                          "<ListBucketResult><Code>X</Code></ListBucketResult>",
                                          "<!DOCTYPE x><Error><Code>X</Code></Error>"};
    for (size_t i = 0; i < LJ_ARRAY_LEN(nothing); i++) {
        lj_s3_answer_read(nothing[i], strlen(nothing[i]), &answer);
        assert_string_equal(answer.code, "");
    }
    /* a region that could not stand in a host name is none */
    static const char evil[] = "<Error><Code>X</Code><Region>evil.com/</Region></Error>";
    lj_s3_answer_read(evil, strlen(evil), &answer);
    assert_string_equal(answer.region, "");
}

static void long_texts_are_cut(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    LJ_CLEANUP(lj_buf_free) lj_buf body = LJ_BUF_INIT(1 << 16);
    assert_ok(lj_buf_printf(&body, &err, "<Error><Code>C</Code><Message>a"), &err);
    for (size_t i = 0; i < 3000; i++)
        assert_ok(lj_buf_printf(&body, &err, "\xC3\xA9"), &err);
    assert_ok(lj_buf_printf(&body, &err, "</Message></Error>"), &err);
    lj_s3_answer answer;
    lj_s3_answer_read(lj_buf_text(&body), body.len, &answer);
    size_t len = strlen(answer.message);
    assert_true(len > 100 && len < sizeof(answer.message));
    assert_int_equal(len % 2, 1); /* whole characters behind the 'a' */
}

static void keys_of_a_bulk_deletion(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    assert_int_equal(lj_s3_code_error("AccessDenied", "Access\x01 Denied", "DELETE", &err),
                     LJ_DENIED);
    assert_string_equal(err.message, "DELETE: AccessDenied: Access  Denied");
    assert_true(err.retryable);
    assert_int_equal(lj_s3_code_error("Unheard", "", "DELETE", &err), LJ_UNAVAILABLE);
    assert_string_equal(err.message, "DELETE: Unheard");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(meanings),
        cmocka_unit_test(answers),
        cmocka_unit_test(long_texts_are_cut),
        cmocka_unit_test(keys_of_a_bulk_deletion),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
