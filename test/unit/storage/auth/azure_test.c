/* azure_test.c - connection strings, the choice among credentials, and the answers of token endpoints. */
#include "test/unit/unit.h"

#include "test/unit/storage/auth/azure_env.h"
#include "vfs/base/str.h"
#include "vfs/storage/auth/azure.h"
#include "vfs/storage/auth/azure_internal.h"
#include "vfs/storage/auth/azure_token.h"

#define KEY_A "a2V5IG9mIHNldHRpbmc=" /* "key of setting" */
#define KEY_B "a2V5IG9mIGVudg=="     /* "key of env" */
#define SAS   "sp=r&sig=s3cr3t"

/* ---- connection strings ---- */

static void good_connections(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *account;
        const char *endpoint;
        const char *key;
        const char *sas;
    } rows[] = {
        {"DefaultEndpointsProtocol=https;AccountName=acct;AccountKey=" KEY_A
         ";EndpointSuffix=core.windows.net",
         "acct", "https://acct.blob.core.windows.net", KEY_A, ""},
        {" accountname=acct; ACCOUNTKEY=" KEY_A " ;\n", "acct", NULL, KEY_A, ""},
        {"DefaultEndpointsProtocol=http;AccountName=acct", "acct",
         "http://acct.blob.core.windows.net", "", ""},
        {"AccountName=acct;EndpointSuffix=core.chinacloudapi.cn", "acct",
         "https://acct.blob.core.chinacloudapi.cn", "", ""},
        {"BlobEndpoint=https://acct.blob.core.windows.net/;QueueEndpoint=https://q/;"
         "FileEndpoint=;SharedAccessSignature=sv=1&sig=x%3D",
         "acct", "https://acct.blob.core.windows.net", "", "sv=1&sig=x%3D"},
        {"BlobEndpoint=http://127.0.0.1:10000/dev/;AccountKey=" KEY_A, "dev",
         "http://127.0.0.1:10000/dev", KEY_A, ""},
        {"BlobEndpoint=https://cdn.example/x;AccountName=acct", "acct", "https://cdn.example/x", "",
         ""},
        {"BlobEndpoint=https://cdn.example/x", NULL, "https://cdn.example/x", "", ""},
        {"UseDevelopmentStorage=true;DevelopmentStorageProxyUri=http://host/", "devstoreaccount1",
         "http://host:10000/devstoreaccount1",
         "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/"
         "K1SZFPTOtr/KBHBeksoGMGw==",
         ""},
    };
    for (size_t i = 0; i < LJ_ARRAY_LEN(rows); i++) {
        lj_error err = LJ_ERROR_INIT;
        lj_azure_connection c = {.account = NULL};
        assert_ok(lj_azure_connection_parse(rows[i].text, &c, &err), &err);
        assert_true(lj_str_eq(c.account, rows[i].account));
        assert_true(lj_str_eq(c.endpoint, rows[i].endpoint));
        assert_string_equal(lj_secret_text(&c.key), rows[i].key);
        assert_string_equal(lj_secret_text(&c.sas), rows[i].sas);
        lj_azure_connection_free(&c);
    }
}

static void bad_connections(void **state)
{
    (void)state;
    static const char *const rows[] = {
        "",
        ";",
        "s3cr3t",
        "AccountName=a;s3cr3t",
        "AccountName=a;AccountName=s3cr3t",
        "AccountName=a;AcountKey=s3cr3t",
        "AccountKey=s3cr3t",
        "DefaultEndpointsProtocol=ftp;AccountName=s3cr3t",
        "UseDevelopmentStorage=false",
        "DevelopmentStorageProxyUri=http://s3cr3t",
    };
    for (size_t i = 0; i < LJ_ARRAY_LEN(rows); i++) {
        lj_error err = LJ_ERROR_INIT;
        lj_azure_connection c = {.account = NULL};
        assert_int_equal(lj_azure_connection_parse(rows[i], &c, &err), LJ_INVALID);
        assert_null(c.account);
        assert_null(strstr(err.message, "s3cr3t"));
        assert_null(strstr(err.hint, "s3cr3t"));
    }
}

static void endpoints(void **state)
{
    (void)state;
    static const struct {
        const char *url;
        const char *account;
        bool exposed;
    } rows[] = {{"https://acct.blob.core.windows.net", "acct", false},
                {"http://acct.blob.core.windows.net/", "acct", true},
                {"https://acct.dfs.core.windows.net", NULL, false},
                {"https://blob.core.windows.net", NULL, false},
                {"http://127.0.0.1:10000/dev", "dev", false},
                {"http://127.0.0.1:10000/", NULL, false},
                {"http://[::1]:10000/dev/x", "dev", false},
                {"http://LOCALHOST/dev", "dev", false},
                {"http://10.0.0.1/dev", "dev", true},
                {"http://127.0.0.1.evil.example/dev", NULL, true},
                {"http://localhost.evil.example/dev", NULL, true},
                {"HTTP://host", NULL, true},
                {"nonsense", NULL, false}};
    for (size_t i = 0; i < LJ_ARRAY_LEN(rows); i++) {
        LJ_CLEANUP(lj_freep) char *account = lj_azure_account_of_endpoint(rows[i].url);
        assert_true(lj_str_eq(account, rows[i].account));
        assert_int_equal(lj_azure_is_exposed(rows[i].url), rows[i].exposed);
    }
}

/* ---- the choice ---- */

typedef struct {
    lj_azure_options options;
    const char *env[9]; /* NAME, value, ... */
    const char *account;
    const char *origin;
    const char *secret;
} choice_row;

/* with KEY_A and KEY_B */
#define SETTING_STRING "AccountName=acct;AccountKey=a2V5IG9mIHNldHRpbmc="
#define ENV_STRING     "AccountName=acct;AccountKey=a2V5IG9mIGVudg=="
#define OTHER_STRING                                                                               \
    "AccountName=other;AccountKey=a2V5IG9mIGVudg==;BlobEndpoint=https://other.blob.example"

static const choice_row choices[] = {
    {{.account_name = "acct",
      .account_key = KEY_A,
      .sas_token = SAS,
      .connection_string = ENV_STRING},
     {NULL},
     "acct",
     "account-key",
     "key of setting"},
    {{.connection_string = SETTING_STRING, .sas_token = SAS},
     {"AZURE_STORAGE_KEY", KEY_B, "AZURE_STORAGE_ACCOUNT", "envacct", NULL},
     "acct",
     "connection-string",
     "key of setting"},
    {{.account_name = "acct", .sas_token = SAS},
     {"AZURE_STORAGE_KEY", KEY_B, NULL},
     "acct",
     "sas-token",
     SAS},
    {{.account_name = "acct"},
     {"AZURE_STORAGE_KEY", KEY_B, "LITESTREAM_AZURE_ACCOUNT_KEY", KEY_A,
      "AZURE_STORAGE_CONNECTION_STRING", ENV_STRING, NULL},
     "acct",
     "AZURE_STORAGE_KEY",
     "key of env"},
    {{.account_name = "acct"},
     {"LITESTREAM_AZURE_ACCOUNT_KEY", KEY_A, "AZURE_STORAGE_CONNECTION_STRING", ENV_STRING, NULL},
     "acct",
     "LITESTREAM_AZURE_ACCOUNT_KEY",
     "key of setting"},
    {{.account_name = NULL},
     {"AZURE_STORAGE_CONNECTION_STRING", ENV_STRING, "AZURE_STORAGE_SAS_TOKEN", SAS, NULL},
     "acct",
     "AZURE_STORAGE_CONNECTION_STRING",
     "key of env"},
    {{.account_name = "acct"},
     {"AZURE_STORAGE_CONNECTION_STRING", OTHER_STRING, "AZURE_STORAGE_SAS_TOKEN", SAS, NULL},
     "acct",
     "AZURE_STORAGE_SAS_TOKEN",
     SAS},
    {{.account_name = "acct"},
     {"AZURE_STORAGE_ACCOUNT", "other", "AZURE_STORAGE_KEY", KEY_B, "AZURE_STORAGE_SAS_TOKEN", SAS,
      NULL},
     "acct",
     "a managed identity (metadata service)",
     ""},
    {{.endpoint = "https://acct.blob.core.windows.net"},
     {"AZURE_TENANT_ID", "t", "AZURE_CLIENT_ID", "c", "AZURE_CLIENT_SECRET", "s", NULL},
     "acct",
     "a client secret (AZURE_CLIENT_SECRET)",
     ""},
    {{.account_name = "acct"},
     {"AZURE_TENANT_ID", "t", "AZURE_CLIENT_ID", "c", "AZURE_FEDERATED_TOKEN_FILE", "/f",
      "AZURE_CLIENT_CERTIFICATE_PATH", "/c"},
     "acct",
     "a workload identity (AZURE_FEDERATED_TOKEN_FILE)",
     ""},
    {{.account_name = "acct"},
     {"IDENTITY_ENDPOINT", "http://127.0.0.1:1/msi", "IDENTITY_HEADER", "h", NULL},
     "acct",
     "a managed identity (IDENTITY_ENDPOINT)",
     ""},
};

static void set_env(const char *const *env)
{
    azure_env_clear();
    for (size_t i = 0; i < 8 && env[i] != NULL; i += 2)
        setenv(env[i], env[i + 1], 1);
}

static void the_choice(void **state)
{
    (void)state;
    for (size_t i = 0; i < LJ_ARRAY_LEN(choices); i++) {
        lj_error err = LJ_ERROR_INIT;
        lj_azure_provider *provider = NULL;
        set_env(choices[i].env);
        assert_ok(lj_azure_provider_new(&choices[i].options, &provider, &err), &err);
        assert_string_equal(lj_azure_provider_origin(provider), choices[i].origin);
        assert_true(lj_str_eq(lj_azure_provider_account(provider), choices[i].account));
        assert_string_equal(lj_secret_text(lj_azure_provider_secret(provider)), choices[i].secret);
        assert_int_equal(lj_azure_provider_kind(provider) == LJ_AZURE_BEARER,
                         lj_azure_provider_token(provider) != NULL);
        assert_null(lj_azure_provider_endpoint(provider)); /* also not that of the other account */
        lj_azure_provider_free(provider);
    }
}

static void half_configured(void **state)
{
    (void)state;
    static const struct {
        const char *env[9];
        lj_code code;
        const char *says;
    } rows[] = {
        {{"AZURE_CLIENT_SECRET", "s3cr3t", NULL}, LJ_INVALID, "AZURE_TENANT_ID is not"},
        {{"AZURE_CLIENT_SECRET", "s3cr3t", "AZURE_TENANT_ID", "t", NULL},
         LJ_INVALID,
         "AZURE_CLIENT_ID is not"},
        {{"AZURE_FEDERATED_TOKEN_FILE", "/f", "AZURE_TENANT_ID", "t", NULL},
         LJ_INVALID,
         "AZURE_CLIENT_ID is not"},
        {{"AZURE_CLIENT_SECRET", "s", "AZURE_TENANT_ID", "t/../x", "AZURE_CLIENT_ID", "c", NULL},
         LJ_INVALID,
         "AZURE_TENANT_ID is no id"},
        {{"AZURE_CLIENT_SECRET", "s", "AZURE_TENANT_ID", "t", "AZURE_CLIENT_ID", "c",
          "AZURE_AUTHORITY_HOST", "http://login.example"},
         LJ_INVALID,
         "no https:// URL"},
        {{"AZURE_CLIENT_SECRET", "s", "AZURE_TENANT_ID", "t", "AZURE_CLIENT_ID", "c",
          "AZURE_AUTHORITY_HOST", "login.example"},
         LJ_INVALID,
         "no https:// URL"},
        {{"AZURE_CLIENT_CERTIFICATE_PATH", "/c", "AZURE_TENANT_ID", "t", "AZURE_CLIENT_ID", "c",
          NULL},
         LJ_UNSUPPORTED,
         "certificate"},
        {{"IDENTITY_ENDPOINT", "http://h", NULL}, LJ_UNSUPPORTED, "Azure Arc"},
        {{"IDENTITY_ENDPOINT", "http://h", "IDENTITY_HEADER", "s3cr3t",
          "IDENTITY_SERVER_THUMBPRINT", "t", NULL},
         LJ_UNSUPPORTED,
         "Service Fabric"},
        {{"MSI_ENDPOINT", "http://h", NULL}, LJ_UNSUPPORTED, "Cloud Shell"},
        {{"AZURE_STORAGE_KEY", "s3cr3t!", NULL}, LJ_INVALID, "(AZURE_STORAGE_KEY) is not base64"},
        {{"AZURE_STORAGE_CONNECTION_STRING", "s3cr3t", NULL},
         LJ_INVALID,
         "AZURE_STORAGE_CONNECTION_STRING: "},
    };
    for (size_t i = 0; i < LJ_ARRAY_LEN(rows); i++) {
        lj_error err = LJ_ERROR_INIT;
        lj_azure_provider *provider = NULL;
        lj_azure_options options = {.account_name = "acct"};
        set_env(rows[i].env);
        lj_code code = lj_azure_provider_new(&options, &provider, &err);
        if (code != rows[i].code || strstr(err.message, rows[i].says) == NULL)
            fail_msg("row %zu: %s: %s", i, lj_code_text(code), err.message);
        assert_null(provider);
        assert_true(strlen(err.hint) > 0 || strstr(err.message, "no id") != NULL);
        assert_null(strstr(err.message, "s3cr3t"));
        assert_null(strstr(err.hint, "s3cr3t"));
    }
}

/* All replicas of the process that need the same identity ask once; another identity is another source. */
static void sources_are_shared(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    lj_azure_provider *providers[3] = {NULL};
    lj_azure_options options = {.account_name = "acct"};
    for (size_t i = 0; i < LJ_ARRAY_LEN(providers); i++) {
        const char *const env[] = {
            "AZURE_TENANT_ID",     "t", "AZURE_CLIENT_ID", "c", "AZURE_CLIENT_SECRET",
            i < 2 ? "one" : "two", NULL};
        set_env(env);
        assert_ok(lj_azure_provider_new(&options, &providers[i], &err), &err);
    }
    assert_ptr_equal(lj_azure_provider_token(providers[0]), lj_azure_provider_token(providers[1]));
    assert_ptr_not_equal(lj_azure_provider_token(providers[0]),
                         lj_azure_provider_token(providers[2]));
    for (size_t i = 0; i < LJ_ARRAY_LEN(providers); i++)
        lj_azure_provider_free(providers[i]);
}

/* A missing token file must not look like a missing object. */
static void a_missing_token_file_is_no_missing_object(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    lj_azure_provider *provider = NULL;
    lj_azure_options options = {.account_name = "acct"};
    const char *const env[] = {"AZURE_TENANT_ID",
                               "t",
                               "AZURE_CLIENT_ID",
                               "c",
                               "AZURE_FEDERATED_TOKEN_FILE",
                               "/nonexistent/token",
                               "AZURE_AUTHORITY_HOST",
                               "http://127.0.0.1:1"};
    set_env(env);
    assert_ok(lj_azure_provider_new(&options, &provider, &err), &err);
    lj_token token = LJ_TOKEN_INIT;
    assert_int_equal(lj_token_get(lj_azure_provider_token(provider), &token, &err), LJ_DENIED);
    assert_true(err.retryable);
    assert_non_null(strstr(err.message, "/nonexistent/token"));
    assert_non_null(strstr(err.message, "workload identity"));
    lj_azure_provider_free(provider);
}

/* ---- answers ---- */

#define NOW_S  INT64_C(1700000000)
#define NOW_NS (NOW_S * LJ_NS_PER_S)

static void tokens(void **state)
{
    (void)state;
    static const struct {
        const char *body;
        int64_t expires_s; /* 0: refused */
    } rows[] = {
        {"{\"access_token\":\"tok\",\"expires_in\":3599,\"token_type\":\"Bearer\"}", NOW_S + 3599},
        {"{\"access_token\":\"tok\",\"expires_in\":\"60\",\"expires_on\":\"1700000100\"}",
         NOW_S + 100},
        {"{\"access_token\":\"tok\",\"expires_on\":1700000200}", NOW_S + 200},
        {"{\"access_token\":\"tok\",\"expires_on\":\"11/05/2026 1:02:03 PM +00:00\","
         "\"expires_in\":\"10\"}",
         NOW_S + 10},
        {"{\"access_token\":\"tok\",\"expires_in\":9223372036854775807}", INT64_C(9000000000)},
        {"{\"access_token\":\"tok\"}", 0},
        {"{\"access_token\":\"tok\",\"expires_in\":-1}", 0},
        {"{\"access_token\":\"tok\",\"expires_in\":true}", 0},
        {"{\"access_token\":\"\",\"expires_in\":1}", 0},
        {"{\"access_token\":7,\"expires_in\":1}", 0},
        {"{\"access_token\":\"to\\nk\",\"expires_in\":1}", 0},
        {"{\"expires_in\":1}", 0},
        {"[]", 0},
        {"<html>", 0},
        {"", 0},
    };
    for (size_t i = 0; i < LJ_ARRAY_LEN(rows); i++) {
        lj_error err = LJ_ERROR_INIT;
        lj_token token = LJ_TOKEN_INIT;
        lj_code code =
            lj_azure_token_parse(rows[i].body, strlen(rows[i].body), NOW_NS, &token, &err);
        if (rows[i].expires_s == 0) {
            assert_int_equal(code, LJ_UNAVAILABLE);
            assert_true(err.retryable);
            assert_false(lj_secret_is_set(&token.values[0]));
            continue;
        }
        assert_ok(code, &err);
        assert_string_equal(lj_secret_text(&token.values[0]), "tok");
        assert_int_equal(token.expires_ns, rows[i].expires_s * LJ_NS_PER_S);
        lj_token_free(&token);
    }
}

static void refusals(void **state)
{
    (void)state;
    static const struct {
        int status;
        const char *body;
        bool managed;
        lj_code code;
        const char *message;
        const char *hint;
    } rows[] = {
        {401,
         "{\"error\":\"invalid_client\",\"error_description\":\"AADSTS7000215: Invalid client "
         "secret provided.\\r\\nTrace ID: 1\"}",
         false, LJ_DENIED,
         "refused: HTTP 401: invalid_client: AADSTS7000215: Invalid client secret provided.",
         "AZURE_CLIENT_SECRET is wrong"},
        {400, "{\"error\":\"unauthorized_client\",\"error_description\":\"AADSTS700016: x\"}",
         false, LJ_DENIED, "AADSTS700016", "there is no application"},
        {400, "{\"error\":\"invalid_client\",\"error_description\":\"AADSTS700024: x\"}", false,
         LJ_DENIED, "AADSTS700024", "clock"},
        {400, "{\"error\":\"invalid_request\",\"error_description\":\"AADSTS90002: x\"}", false,
         LJ_DENIED, "AADSTS90002", "there is no tenant"},
        {404, "", false, LJ_DENIED, "HTTP 404", "AZURE_TENANT_ID"},
        {400, "{\"error\":\"invalid_request\",\"error_description\":\"Identity not found\"}", true,
         LJ_DENIED, "Identity not found", "assign a managed identity"},
        {404, "", true, LJ_UNAVAILABLE, "HTTP 404", ""},
        {410, "", true, LJ_UNAVAILABLE, "HTTP 410", ""},
        {429, "<html>", true, LJ_UNAVAILABLE, "HTTP 429", ""},
        {503, "", false, LJ_UNAVAILABLE, "HTTP 503", ""},
        {408, "", false, LJ_TIMEOUT, "HTTP 408", ""},
        {412, "", false, LJ_DENIED, "HTTP 412", "AZURE_TENANT_ID"},
    };
    for (size_t i = 0; i < LJ_ARRAY_LEN(rows); i++) {
        lj_error err = LJ_ERROR_INIT;
        LJ_CLEANUP(lj_http_response_free) lj_http_response response = LJ_HTTP_RESPONSE_INIT;
        response.status = rows[i].status;
        assert_ok(lj_buf_append(&response.body, rows[i].body, strlen(rows[i].body), &err), &err);
        assert_int_equal(lj_azure_token_refused(&response, rows[i].managed, &err), rows[i].code);
        assert_int_equal(err.code, rows[i].code);
        assert_true(err.retryable);
        assert_non_null(strstr(err.message, rows[i].message));
        assert_null(strstr(err.message, "Trace ID"));
        assert_non_null(strstr(err.hint, rows[i].hint));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_connections),
        cmocka_unit_test(bad_connections),
        cmocka_unit_test(endpoints),
        cmocka_unit_test(the_choice),
        cmocka_unit_test(half_configured),
        cmocka_unit_test(sources_are_shared),
        cmocka_unit_test(a_missing_token_file_is_no_missing_object),
        cmocka_unit_test(tokens),
        cmocka_unit_test(refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
