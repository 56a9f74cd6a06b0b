/* target_test.c - which container, prefix, endpoint and account a URL, its settings and the environment mean. */
#include "test/unit/unit.h"

#include "test/unit/storage/auth/azure_env.h"
#include "vfs/base/str.h"
#include "vfs/storage/abs/internal.h"

#define KEY "c2VjcmV0LWtleS1ieXRlcw=="
#define SAS "sv=2023-11-03&sr=c&sp=rcwdl&se=2030-01-01T00%3A00%3A00Z&sig=s3cr3tS1gnature%3D"

#define SETTINGS_MAX 4

typedef struct {
    const char *url;
    lj_storage_setting settings[SETTINGS_MAX];
    const char *env[5]; /* NAME, value, ... */
    const char *container;
    const char *prefix;
    const char *endpoint;
    const char *display;
    lj_azure_kind kind;
} good_row;

static void set_env(const char *const *env)
{
    azure_env_clear();
    for (size_t i = 0; env[i] != NULL; i += 2)
        setenv(env[i], env[i + 1], 1);
}

static lj_storage_options options_of(const lj_storage_setting *settings)
{
    lj_storage_options options = {.settings = settings};
    while (options.setting_count < SETTINGS_MAX && settings[options.setting_count].name != NULL)
        options.setting_count++;
    return options;
}

static const good_row good[] = {
    {"abs://acct@box/pre/fix",
     {{"account-key", KEY}},
     {NULL},
     "box",
     "pre/fix",
     "https://acct.blob.core.windows.net",
     "abs://acct@box/pre/fix",
     LJ_AZURE_KEY},
    {"ABS://box",
     {{"account-name", "acct"}, {"account_key", KEY}},
     {NULL},
     "box",
     "",
     "https://acct.blob.core.windows.net",
     "abs://acct@box",
     LJ_AZURE_KEY},
    {"abs://box/a%20b//./c/../d/?account-name=acct",
     {{"accountKey", KEY}},
     {NULL},
     "box",
     "a b/d",
     "https://acct.blob.core.windows.net",
     "abs://acct@box/a b/d",
     LJ_AZURE_KEY},
    {"abs://acct@box",
     {{"account-key", KEY}, {"account-name", "acct"}},
     {NULL},
     "box",
     "",
     "https://acct.blob.core.windows.net",
     "abs://acct@box",
     LJ_AZURE_KEY},
    {"abs://box/x",
     {{NULL, NULL}},
     {"AZURE_STORAGE_ACCOUNT", "acct", "AZURE_STORAGE_KEY", KEY, NULL},
     "box",
     "x",
     "https://acct.blob.core.windows.net",
     "abs://acct@box/x",
     LJ_AZURE_KEY},
    {"abs://box/x",
     {{"connection-string", "DefaultEndpointsProtocol=https;AccountName=acct;AccountKey=" KEY
                            ";EndpointSuffix=core.usgovcloudapi.net"}},
     {NULL},
     "box",
     "x",
     "https://acct.blob.core.usgovcloudapi.net",
     "abs://acct@box/x",
     LJ_AZURE_KEY},
    {"abs://box/x",
     {{"connection-string",
       "BlobEndpoint=https://acct.blob.core.windows.net/;SharedAccessSignature=" SAS}},
     {NULL},
     "box",
     "x",
     "https://acct.blob.core.windows.net",
     "abs://acct@box/x",
     LJ_AZURE_SAS},
    {"abs://box/x",
     {{"connection-string", "UseDevelopmentStorage=true"}},
     {NULL},
     "box",
     "x",
     "http://127.0.0.1:10000/devstoreaccount1",
     "abs://devstoreaccount1@box/x",
     LJ_AZURE_KEY},
    {"abs://box/x?endpoint=http://127.0.0.1:10000/acct/",
     {{"account-key", KEY}},
     {NULL},
     "box",
     "x",
     "http://127.0.0.1:10000/acct",
     "abs://acct@box/x",
     LJ_AZURE_KEY},
    {"abs://box",
     {{"sas-token", "?" SAS}, {"endpoint", "https://store.example:8443/a/b"}},
     {NULL},
     "box",
     "",
     "https://store.example:8443/a/b",
     "abs://box",
     LJ_AZURE_SAS},
    {"abs://box?endpoint=https://other.blob.core.windows.net",
     {{"connection-string", "AccountName=acct;AccountKey=" KEY ";BlobEndpoint=https://x.example"}},
     {NULL},
     "box",
     "",
     "https://other.blob.core.windows.net",
     "abs://acct@box",
     LJ_AZURE_KEY},
    {"abs://acct@$root/x",
     {{"account-key", KEY}},
     {NULL},
     "$root",
     "x",
     "https://acct.blob.core.windows.net",
     "abs://acct@$root/x",
     LJ_AZURE_KEY},
    {"abs://acct@box",
     {{NULL, NULL}},
     {NULL},
     "box",
     "",
     "https://acct.blob.core.windows.net",
     "abs://acct@box",
     LJ_AZURE_BEARER},
    {"abs://acct@box?endpoint=http://localhost:1",
     {{NULL, NULL}},
     {NULL},
     "box",
     "",
     "http://localhost:1",
     "abs://acct@box",
     LJ_AZURE_BEARER},
};

static void good_targets(void **state)
{
    (void)state;
    for (size_t i = 0; i < LJ_ARRAY_LEN(good); i++) {
        const good_row *row = &good[i];
        lj_error err = LJ_ERROR_INIT;
        lj_settings settings;
        lj_abs_target target;
        set_env(row->env);
        lj_storage_options options = options_of(row->settings);
        assert_ok(lj_abs_target_make(row->url, &options, &settings, &target, &err), &err);
        assert_string_equal(target.container, row->container);
        assert_string_equal(target.prefix, row->prefix);
        assert_string_equal(target.endpoint, row->endpoint);
        assert_string_equal(target.display_url, row->display);
        assert_int_equal(lj_azure_provider_kind(target.provider), row->kind);
        const char *path = strchr(strstr(row->endpoint, "://") + 3, '/');
        assert_string_equal(target.endpoint + target.path_at, path != NULL ? path : "");
        lj_settings_free(&settings);
        lj_abs_target_free(&target);
    }
}

typedef struct {
    const char *url;
    lj_storage_setting settings[SETTINGS_MAX];
    const char *env[5];
    lj_code code;
    const char *says; /* in the message */
} bad_row;

static const bad_row bad[] = {
    {"abs://", {{NULL, NULL}}, {NULL}, LJ_INVALID, "names no container"},
    {"abs:///x", {{NULL, NULL}}, {NULL}, LJ_INVALID, "names no container"},
    {"abs://acct@Box", {{NULL, NULL}}, {NULL}, LJ_INVALID, "a name that none can have"},
    {"abs://acct@bo", {{NULL, NULL}}, {NULL}, LJ_INVALID, "a name that none can have"},
    {"abs://acct@a--b", {{NULL, NULL}}, {NULL}, LJ_INVALID, "a name that none can have"},
    {"abs://acct:s3cr3t@box", {{NULL, NULL}}, {NULL}, LJ_INVALID, "has a password"},
    {"abs://acct@box:80/x", {{NULL, NULL}}, {NULL}, LJ_INVALID, "has a port"},
    {"abs://box", {{NULL, NULL}}, {NULL}, LJ_INVALID, "account is not named"},
    {"abs://box", {{"account-key", KEY}}, {NULL}, LJ_INVALID, "no name of the account"},
    {"abs://a.b@box", {{"account-key", KEY}}, {NULL}, LJ_INVALID, "a character"},
    {"abs://acct@box?account-key=s3cr3t", {{NULL, NULL}}, {NULL}, LJ_INVALID, "has a secret"},
    {"abs://acct@box?sas-token=s3cr3t", {{NULL, NULL}}, {NULL}, LJ_INVALID, "has a secret"},
    {"abs://acct@box?region=x", {{NULL, NULL}}, {NULL}, LJ_INVALID, "not a setting"},
    {"abs://acct@box", {{"account-name", "b"}}, {NULL}, LJ_INVALID, "names another storage"},
    {"abs://acct@box", {{"account-key", "s3cr3t!"}}, {NULL}, LJ_INVALID, "is not base64"},
    {"abs://acct@box", {{"sas-token", "s3cr3t"}}, {NULL}, LJ_INVALID, "is none"},
    {"abs://acct@box", {{"sas-token", "sig=s3cr3t#x"}}, {NULL}, LJ_INVALID, "is none"},
    {"abs://acct@box",
     {{"connection-string", "AccountName=b;AccountKey=" KEY}},
     {NULL},
     LJ_INVALID,
     "is for the storage account \"b\""},
    {"abs://acct@box", {{"connection-string", "s3cr3t"}}, {NULL}, LJ_INVALID, "without '='"},
    {"abs://box?endpoint=store.example", {{"sas-token", SAS}}, {NULL}, LJ_INVALID, "begin with"},
    {"abs://box?endpoint=https://", {{"sas-token", SAS}}, {NULL}, LJ_INVALID, "names no host"},
    {"abs://box",
     {{"endpoint", "https://a/?s3cr3t"}, {"sas-token", SAS}},
     {NULL},
     LJ_INVALID,
     "a character"},
    {"abs://box",
     {{"endpoint", "https://u:s3cr3t@a/"}, {"sas-token", SAS}},
     {NULL},
     LJ_INVALID,
     "a character"},
    {"abs://acct@box?endpoint=http://store.example",
     {{NULL, NULL}},
     {NULL},
     LJ_INVALID,
     "bearer token cannot go over http"},
    {"abs://acct@box",
     {{NULL, NULL}},
     {"AZURE_CLIENT_CERTIFICATE_PATH", "/x.pem", "AZURE_CLIENT_ID", "c", NULL},
     LJ_UNSUPPORTED,
     "certificate"},
};

static void bad_targets(void **state)
{
    (void)state;
    for (size_t i = 0; i < LJ_ARRAY_LEN(bad); i++) {
        lj_error err = LJ_ERROR_INIT;
        lj_storage *storage = NULL;
        set_env(bad[i].env);
        lj_storage_options options = options_of(bad[i].settings);
        lj_code code = lj_storage_open(bad[i].url, &options, &storage, &err);
        if (code != bad[i].code || strstr(err.message, bad[i].says) == NULL)
            fail_msg("%s: %s: %s", bad[i].url, lj_code_text(code), err.message);
        assert_null(storage);
        assert_null(strstr(err.message, "s3cr3t"));
        assert_null(strstr(err.hint, "s3cr3t"));
        assert_true(strlen(err.hint) > 0);
    }
}

static void page_size_and_flags(void **state)
{
    (void)state;
    azure_env_clear();
    static const struct {
        const char *query;
        lj_code code;
    } rows[] = {{"list-page-size=1", LJ_OK},         {"list-page-size=5000", LJ_OK},
                {"list-page-size=0", LJ_INVALID},    {"list-page-size=5001", LJ_INVALID},
                {"list-page-size=many", LJ_INVALID}, {"skip-verify=yes", LJ_OK},
                {"skip-verify=perhaps", LJ_INVALID}};
    for (size_t i = 0; i < LJ_ARRAY_LEN(rows); i++) {
        lj_error err = LJ_ERROR_INIT;
        lj_storage *storage = NULL;
        LJ_CLEANUP(lj_freep) char *url = lj_str_printf("abs://acct@box?%s", rows[i].query);
        assert_int_equal(lj_storage_open(url, NULL, &storage, &err), rows[i].code);
        if (rows[i].code == LJ_OK) {
            assert_string_equal(lj_storage_url(storage), "abs://acct@box");
            assert_string_equal(lj_storage_type(storage), "abs");
            assert_int_equal(lj_storage_features(storage),
                             LJ_STORAGE_IF_ABSENT | LJ_STORAGE_REMOTE);
        }
        lj_storage_close(storage);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_targets),
        cmocka_unit_test(bad_targets),
        cmocka_unit_test(page_size_and_flags),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
