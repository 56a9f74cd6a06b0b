/* error_test.c - what the store's refusals become: code, retryable, and a hint that fits the credentials. */
#include "test/unit/unit.h"

#include "test/unit/storage/auth/azure_env.h"
#include "vfs/base/str.h"
#include "vfs/storage/abs/internal.h"

#define KEY     "c2VjcmV0LWtleS1ieXRlcw=="
#define SAS_END "&se=2020-01-01T00%3A00%3A00Z&sig=s3cr3tS1gnature%3D"

static void make_abs(lj_abs *abs, const char *name, const char *value)
{
    lj_error err = LJ_ERROR_INIT;
    lj_settings settings;
    lj_storage_setting setting = {name, value};
    lj_storage_options options = {.settings = &setting, .setting_count = 1};
    azure_env_clear();
    *abs = (lj_abs){.list_page = 1};
    assert_ok(lj_abs_target_make("abs://acct@box/p", &options, &settings, &abs->target, &err),
              &err);
    lj_settings_free(&settings);
}

static lj_http_response answer(int status, const char *code, const char *body)
{
    lj_error err = LJ_ERROR_INIT;
    lj_http_response response = LJ_HTTP_RESPONSE_INIT;
    response.status = status;
    if (code[0] != 0)
        assert_ok(lj_buf_printf(&response.headers, &err, "x-ms-error-code: %s\n", code), &err);
    assert_ok(lj_buf_printf(&response.headers, &err, "retry-after: 7\n"), &err);
    assert_ok(lj_buf_append(&response.body, body, strlen(body), &err), &err);
    return response;
}

static const struct {
    int status;
    const char *code;
    bool if_absent;
    lj_code means;
    bool retryable;
    const char *hint;
} rows[] = {
    {404, "BlobNotFound", false, LJ_NOTFOUND, false, ""},
    {404, "ContainerNotFound", false, LJ_INVALID, true, "create the container"},
    {404, "ContainerNotFound", true, LJ_INVALID, true, "create the container"},
    {404, "ResourceNotFound", false, LJ_INVALID, true, "check the account"},
    {404, "", false, LJ_UNAVAILABLE, true, "check the endpoint"},
    {404, "SomethingNew", false, LJ_UNAVAILABLE, true, "check the endpoint"},
    {409, "BlobAlreadyExists", true, LJ_EXISTS, false, ""},
    {409, "BlobAlreadyExists", false, LJ_UNAVAILABLE, true, ""},
    {412, "ConditionNotMet", true, LJ_EXISTS, false, ""},
    {412, "", true, LJ_EXISTS, false, ""},
    {412, "", false, LJ_UNAVAILABLE, true, ""},
    {412, "LeaseIdMissing", true, LJ_DENIED, true, "break the lease"},
    {403, "UnauthorizedBlobOverwrite", true, LJ_EXISTS, false, ""},
    {403, "UnauthorizedBlobOverwrite", false, LJ_DENIED, true, "Data Contributor"},
    {409, "ContainerBeingDeleted", true, LJ_UNAVAILABLE, true, "being deleted"},
    {409, "BlobImmutableDueToPolicy", false, LJ_DENIED, true, "immutability"},
    {409, "InvalidBlobType", false, LJ_INVALID, false, "another type"},
    {409, "SomethingNew", true, LJ_UNAVAILABLE, true, ""},
    {403, "AuthenticationFailed", false, LJ_DENIED, true, "its key (account-key)"},
    {401, "InvalidAuthenticationInfo", false, LJ_DENIED, true, "its key (account-key)"},
    {403, "AuthorizationPermissionMismatch", false, LJ_DENIED, true, "Data Contributor"},
    {403, "AuthorizationFailure", false, LJ_DENIED, true, "firewall"},
    {403, "AccountIsDisabled", false, LJ_DENIED, true, "subscription"},
    {403, "KeyBasedAuthenticationNotPermitted", false, LJ_DENIED, true, "managed identity"},
    {503, "ServerBusy", false, LJ_UNAVAILABLE, true, "rate of requests"},
    {500, "OperationTimedOut", false, LJ_TIMEOUT, true, "unless it lasts"},
    {500, "InternalError", false, LJ_UNAVAILABLE, true, "unless it lasts"},
    {429, "", false, LJ_UNAVAILABLE, true, "fewer requests"},
    {400, "InvalidBlobOrBlock", false, LJ_INVALID, true, "unfinished upload"},
    {400, "InvalidBlockList", false, LJ_UNAVAILABLE, true, "another upload"},
    {400, "Md5Mismatch", false, LJ_UNAVAILABLE, true, "damaged"},
    {400, "InvalidHeaderValue", false, LJ_INVALID, false, ""},
    {301, "", false, LJ_UNAVAILABLE, true, ""},
};

static void meanings(void **state)
{
    (void)state;
    lj_abs abs;
    make_abs(&abs, "account-key", KEY);
    for (size_t i = 0; i < LJ_ARRAY_LEN(rows); i++) {
        lj_error err = LJ_ERROR_INIT;
        lj_http_response response = answer(rows[i].status, rows[i].code, "");
        lj_abs_request request = {.method = "PUT", .if_absent = rows[i].if_absent};
        lj_code code = lj_abs_error(&abs, &request, &response, &err);
        if (code != rows[i].means || err.code != code || err.retryable != rows[i].retryable)
            fail_msg("%d %s: %s, %d", rows[i].status, rows[i].code, lj_code_text(err.code),
                     err.retryable);
        if (strstr(err.hint, rows[i].hint) == NULL || (rows[i].hint[0] == 0 && err.hint[0] != 0))
            fail_msg("%d %s: hint: %s", rows[i].status, rows[i].code, err.hint);
        assert_int_equal(err.http_status, rows[i].status);
        assert_int_equal(err.retry_after_ns, 7 * LJ_NS_PER_S);
        assert_non_null(strstr(err.message, rows[i].code));
        assert_int_equal(lj_abs_error(&abs, &request, &response, NULL), rows[i].means);
        lj_http_response_free(&response);
    }
    lj_abs_target_free(&abs.target);
}

static void the_body_says_what_the_header_does_not(void **state)
{
    (void)state;
    lj_abs abs;
    lj_error err = LJ_ERROR_INIT;
    make_abs(&abs, "account-key", KEY);
    lj_http_response response =
        answer(404, "", "<Error><Code>BlobNotFound</Code><Message>Gone.\nTime:1</Message></Error>");
    lj_abs_request request = {.method = "GET"};
    assert_int_equal(lj_abs_error(&abs, &request, &response, &err), LJ_NOTFOUND);
    assert_string_equal(err.message, "GET: HTTP 404: BlobNotFound: Gone.");
    lj_http_response_free(&response);
    lj_abs_target_free(&abs.target);
}

static void a_sas_token_that_is_over_is_told(void **state)
{
    (void)state;
    lj_abs abs;
    lj_error err = LJ_ERROR_INIT;
    lj_abs_request request = {.method = "GET"};
    lj_http_response response = answer(403, "AuthenticationFailed", "");
    make_abs(&abs, "sas-token", "sp=rcwdl" SAS_END);
    assert_int_equal(lj_abs_error(&abs, &request, &response, &err), LJ_DENIED);
    assert_non_null(strstr(err.hint, "ended at 2020-01-01T00:00:00Z"));
    lj_abs_target_free(&abs.target);
    make_abs(&abs, "sas-token", "se=2999-01-01&sp=rcwdl&sig=s3cr3tS1gnature%3D");
    assert_int_equal(lj_abs_error(&abs, &request, &response, &err), LJ_DENIED);
    assert_non_null(strstr(err.hint, "whether it has ended, was revoked"));
    lj_abs_target_free(&abs.target);
    lj_http_response_free(&response);
}

static void a_signature_is_never_repeated(void **state)
{
    (void)state;
    static const char *const texts[] = {"sig: s3cr3tS1gnature= is wrong", "sig=abc",
                                        "?sp=rcwdl" SAS_END, "xx s3cr3tS1 yy"};
    lj_abs abs;
    make_abs(&abs, "sas-token", "sp=rcwdl" SAS_END);
    for (size_t i = 0; i < LJ_ARRAY_LEN(texts); i++) {
        lj_error err = LJ_ERROR_INIT;
        LJ_CLEANUP(lj_freep)
        char *escaped = lj_str_printf("<Error><Code>AuthenticationFailed</Code>"
                                      "<Message><![CDATA[%s]]></Message></Error>",
                                      texts[i]);
        lj_http_response response = answer(403, "", escaped);
        lj_abs_request request = {.method = "GET"};
        assert_int_equal(lj_abs_error(&abs, &request, &response, &err), LJ_DENIED);
        assert_string_equal(err.message, "GET: HTTP 403: AuthenticationFailed");
        assert_null(strstr(err.hint, "s3cr3t"));
        lj_http_response_free(&response);
    }
    lj_abs_target_free(&abs.target);
}

static void a_firewall_and_what_emulators_mean(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        const char *value;
        const char *hint;
    } hints[] = {{"account-key", KEY, "on an emulator, check the credentials (account-key)"},
                 {"sas-token", "sp=r" SAS_END, "ended at 2020"},
                 {"sas-token", "sp=r&sig=s3cr3tS1gnature", "another container"}};
    for (size_t i = 0; i < LJ_ARRAY_LEN(hints); i++) {
        lj_abs abs;
        lj_error err = LJ_ERROR_INIT;
        make_abs(&abs, hints[i].name, hints[i].value);
        lj_http_response response = answer(403, "AuthorizationFailure", "");
        lj_abs_request request = {.method = "GET"};
        assert_int_equal(lj_abs_error(&abs, &request, &response, &err), LJ_DENIED);
        assert_non_null(strstr(err.hint, hints[i].hint));
        lj_http_response_free(&response);
        lj_abs_target_free(&abs.target);
    }
}

static void a_permission_hint_fits_the_credentials(void **state)
{
    (void)state;
    lj_abs abs;
    lj_error err = LJ_ERROR_INIT;
    make_abs(&abs, "sas-token", "sp=r&sig=s3cr3tS1gnature");
    lj_http_response response = answer(403, "AuthorizationPermissionMismatch", "");
    lj_abs_request request = {.method = "PUT"};
    assert_int_equal(lj_abs_error(&abs, &request, &response, &err), LJ_DENIED);
    assert_non_null(strstr(err.hint, "sp=rcwdl"));
    lj_http_response_free(&response);
    lj_abs_target_free(&abs.target);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(meanings),
        cmocka_unit_test(the_body_says_what_the_header_does_not),
        cmocka_unit_test(a_sas_token_that_is_over_is_told),
        cmocka_unit_test(a_signature_is_never_repeated),
        cmocka_unit_test(a_firewall_and_what_emulators_mean),
        cmocka_unit_test(a_permission_hint_fits_the_credentials),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
