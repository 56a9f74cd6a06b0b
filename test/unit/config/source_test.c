/* source_test.c - environment, URI parameters, the API's keys, and URLs: what is refused, and with which words. */
#include "test/unit/unit.h"

#include "test/unit/config/config_kit.h"

#define ENV_NAMES                                                                                  \
    "enabled, mode, replica_url, sync_interval, restore_on_boot, snapshot_interval, retention, "   \
    "max_wal_size, max_spool_size, shutdown_timeout, io_timeout, upload_workers, "                 \
    "fsync_before_ship, auto_wal, guard, durability, remote_timeout, remote_on_failure, "          \
    "log_level, log_file, base_vfs, default_vfs"
#define URI_NAMES                                                                                  \
    "enabled, litejoin_mode, replica_url, replica_name, sync_interval, restore_on_boot, "          \
    "snapshot_interval, retention, max_wal_size, max_spool_size, shutdown_timeout, io_timeout, "   \
    "upload_workers, fsync_before_ship, auto_wal, guard, durability, remote_timeout, "             \
    "remote_on_failure"

static void environment(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    lj_config config;
    lj_config_init(&config);
    const char *const block[] = {
        "PATH=/bin", "LITEJOINX=1", "LITEJOIN_CONFIG=/nonexistent",
        "LITEJOIN_REPLICA_URL=file:///r", "LITEJOIN_REPLICA_URL=file:///second",
        "LITEJOIN_RETENTION=", "LITEJOIN_DEFAULT_VFS=1", "LITEJOIN_LOG_FILE=/tmp/a=b",
        /* of the stores */
        "LITEJOIN_SFTP_PASSWORD=hunter2", "LITEJOIN_SFTP_KEY_PASSPHRASE=hunter2",
        "LITEJOIN_S3_SSE_CUSTOMER_KEY=hunter2", NULL};
    assert_ok(kit_load_env(&config, block, &err), &err);
    assert_string_equal(config.replica_url, "file:///r");
    assert_string_equal(config.log_file, "/tmp/a=b");
    assert_true(config.default_vfs);
    assert_int_equal(config.retention_ns, 72 * 3600 * LJ_NS_PER_S);
    assert_ok(kit_load_env(&config, NULL, &err), &err);
    lj_config_clear(&config);
}

static void environment_errors(void **state)
{
    (void)state;
    static const struct {
        const char *entry;
        const char *message;
        const char *hint;
    } rows[] = {
        {"LITEJOIN_REPLICAURL=file:///r",
         "LITEJOIN_REPLICAURL = \"file:///r\" is not an option; allowed: " ENV_NAMES,
         "did you mean LITEJOIN_REPLICA_URL?"},
        {"LITEJOIN_REPLICA_TOKEN=s3cret",
         "LITEJOIN_REPLICA_TOKEN = \"***\" is not an option; allowed: " ENV_NAMES,
         "the names are LITEJOIN_CONFIG and LITEJOIN_ with an option in capitals"},
        {"LITEJOIN_SFTP_PASSWORDS=s3cret",
         "LITEJOIN_SFTP_PASSWORDS = \"***\" is not an option; allowed: " ENV_NAMES,
         "the names are LITEJOIN_CONFIG and LITEJOIN_ with an option in capitals"},
        {"LITEJOIN_mode=embedded",
         "LITEJOIN_mode = \"embedded\" is not an option; allowed: " ENV_NAMES,
         "did you mean LITEJOIN_MODE?"},
        {"LITEJOIN_=1", "LITEJOIN_ = \"1\" is not an option; allowed: " ENV_NAMES,
         "the names are LITEJOIN_CONFIG and LITEJOIN_ with an option in capitals"},
        {"LITEJOIN_REPLICA_NAME=x",
         "LITEJOIN_REPLICA_NAME = \"x\" cannot be set here; allowed: URI only",
         "replica_name: Last part of the replica's URL, for this database."},
        {"LITEJOIN_SYNC_INTERVAL=fast",
         "LITEJOIN_SYNC_INTERVAL = \"fast\" is not a duration; allowed: 1ms to 24h",
         "write it like 500ms, 1s, 1h30m"},
        {"LITEJOIN_REPLICA_URL=s3://AKIA:hunter2/x+y@bucket",
         "LITEJOIN_REPLICA_URL = \"s3://***\" has a ':' in its host that no port follows; allowed: "
         "a "
         "URL with a scheme and without secrets, e.g. file:///path",
         "secrets never go into a URL: give them in the environment or in a file"},
    };
    for (size_t i = 0; i < LJ_ARRAY_LEN(rows); i++) {
        lj_error err = LJ_ERROR_INIT;
        lj_config config;
        lj_config fresh;
        lj_config_init(&config);
        lj_config_init(&fresh);
        const char *const block[] = {"LITEJOIN_ENABLED=true", rows[i].entry, NULL};
        assert_int_equal(kit_load_env(&config, block, &err), LJ_INVALID);
        assert_string_equal(err.message, rows[i].message);
        assert_string_equal(err.hint, rows[i].hint);
        assert_memory_equal(&config, &fresh, sizeof(config));
        lj_config_clear(&config);
    }
}

static void uri_parameters(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    lj_config config;
    lj_config_init(&config);
    kit_uri uri = {{"vfs", "litejoin", "mode", "rwc", "litejoin_sync_interval", "2s", "replica_url",
                    "file:///r", "sync_interval_typo", "x", NULL}};
    /* of SQLite, of its drivers, of others */
    static const char *const foreign[] = {
        "cache",        "psow",          "nolock",       "immutable", "modeof",      "modes",
        "_timeout",     "_busy_timeout", "busy_timeout", "timeout",   "synchronous", "_sync",
        "journal_mode", "hexkey",        "key",          "cipher",    "8_3_names",   "name",
        "loc",          "_loc",          "auto_vacuum",  "workers",   "url",         ""};
    for (size_t i = 0; i < LJ_ARRAY_LEN(foreign); i++) {
        kit_uri other = {{foreign[i], "x", NULL}};
        assert_ok(kit_load_uri(&config, &other, &err), &err);
    }
    assert_ok(kit_load_uri(&config, &uri, &err), &err);
    assert_int_equal(config.sync_interval_ns, 2 * LJ_NS_PER_S);
    assert_string_equal(config.replica_url, "file:///r");
    assert_ok(lj_config_finish(&config, &err), &err);
    assert_true(lj_config_embedded(&config));
    kit_uri none = {{NULL}};
    assert_ok(kit_load_uri(&config, &none, &err), &err);
    lj_config_clear(&config);
}

static void uri_errors(void **state)
{
    (void)state;
    static const struct {
        kit_uri uri;
        const char *message;
        const char *hint;
    } rows[] = {
        {{{"replica_ulr", "file:///r", NULL}},
         "URI parameter: replica_ulr = \"file:///r\" is not an option; allowed: " URI_NAMES,
         "did you mean replica_url?"},
        {{{"durabilty", "remote", NULL}},
         "URI parameter: durabilty = \"remote\" is not an option; allowed: " URI_NAMES,
         "did you mean durability?"},
        {{{"Sync-Interval", "2s", NULL}},
         "URI parameter: Sync-Interval = \"2s\" is not an option; allowed: " URI_NAMES,
         "did you mean sync_interval?"},
        {{{"remote_on_failiure", "error", NULL}},
         "URI parameter: remote_on_failiure = \"error\" is not an option; allowed: " URI_NAMES,
         "did you mean remote_on_failure?"},
        {{{"litejoin_retentoin", "1h", NULL}},
         "URI parameter: litejoin_retentoin = \"1h\" is not an option; allowed: " URI_NAMES,
         "did you mean retention?"},
        {{{"LITEJOIN_DURABILITY", "remote", NULL}},
         "URI parameter: LITEJOIN_DURABILITY = \"remote\" is not an option; allowed: " URI_NAMES,
         "did you mean durability?"},
        {{{"litejoin-sync-interval", "2s", NULL}},
         "URI parameter: litejoin-sync-interval = \"2s\" is not an option; allowed: " URI_NAMES,
         "did you mean sync_interval?"},
        {{{"LiteJoin", "on", NULL}},
         "URI parameter: LiteJoin = \"on\" is not an option; allowed: " URI_NAMES,
         ""},
        {{{"replica_secret_key", "hunter2", NULL}},
         "URI parameter: replica_secret_key = \"***\" is not an option; allowed: " URI_NAMES,
         ""},
        {{{"litejoin_", "", NULL}},
         "URI parameter: litejoin_ = \"\" is not an option; allowed: " URI_NAMES,
         ""},
        {{{"base_vfs", "unix", NULL}},
         "URI parameter: base_vfs = \"unix\" cannot be set here; allowed: not in a URI",
         "base_vfs: The VFS underneath; fixed by the first registration."},
        {{{"default_vfs", "1", NULL}},
         "URI parameter: default_vfs = \"1\" cannot be set here; allowed: environment, C API",
         "default_vfs: Be the default VFS of the process, for hosts that cannot name one."},
        {{{"retention", "1h", "litejoin_retention", "2h", NULL}},
         "URI parameter: litejoin_retention is given twice; allowed: once",
         "retention and litejoin_retention are the same option"},
        {{{"litejoin_mode", "rwc", NULL}},
         "URI parameter: litejoin_mode = \"rwc\" is none of them; allowed: sidecar, embedded",
         ""},
        {{{"replica_url", "", NULL}},
         "URI parameter: replica_url = \"\" is empty; allowed: a URL with a scheme and without "
         "secrets, "
         "e.g. file:///path",
         "leave the option out to get its default"},
        {{{"replica_name", "a/b", NULL}},
         "URI parameter: replica_name = \"a/b\" has a '/', '?' or '#'; allowed: one path part, "
         "without / "
         "? #",
         ""},
    };
    for (size_t i = 0; i < LJ_ARRAY_LEN(rows); i++) {
        lj_error err = LJ_ERROR_INIT;
        lj_config config;
        lj_config fresh;
        lj_config_init(&config);
        lj_config_init(&fresh);
        kit_uri uri = rows[i].uri;
        assert_int_equal(kit_load_uri(&config, &uri, &err), LJ_INVALID);
        assert_string_equal(err.message, rows[i].message);
        assert_string_equal(err.hint, rows[i].hint);
        assert_memory_equal(&config, &fresh, sizeof(config));
        lj_config_clear(&config);
    }
}

static void api_errors(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    lj_config config;
    lj_config_init(&config);
    assert_int_equal(lj_config_set(&config, LJ_ORIGIN_API, "log_levle", "info", &err), LJ_INVALID);
    assert_string_equal(err.message, "log_levle = \"info\" is not an option; allowed: " ENV_NAMES);
    assert_string_equal(err.hint, "did you mean log_level?");
    char long_value[3000];
    memset(long_value, 'x', sizeof(long_value) - 1);
    long_value[sizeof(long_value) - 1] = 0;
    assert_int_equal(lj_config_set(&config, LJ_ORIGIN_API, long_value, long_value, &err),
                     LJ_INVALID);
    assert_int_equal(lj_config_set(&config, LJ_ORIGIN_API, "mode", "a\nb\x1b", &err), LJ_INVALID);
    assert_string_equal(err.message, "mode = \"a?b?\" is none of them; allowed: sidecar, embedded");
    assert_int_equal(lj_config_set(&config, LJ_ORIGIN_API, "mode", long_value, NULL), LJ_INVALID);
    lj_config_clear(&config);
}

/* reason NULL: accepted */
static const struct {
    const char *url;
    const char *reason;
} url_rows[] = {
    {"file:///r", NULL},
    {"file:///", NULL},
    {"FILE:///r", NULL},
    {"file://dir/x", NULL},
    {"file:///with space/a:b@c", NULL},
    {"s3://bucket", NULL},
    {"s3://bucket.localhost:9000/a/b", NULL},
    {"s3://bucket/a?region=eu-west-1&endpoint=http://host:9000", NULL},
    {"s3://bucket/a:b@c", NULL},
    {"sftp://user@host:22/home/x@y", NULL},
    {"sftp://[::1]:22/x", NULL},
    {"sftp://u@[::1]/x", NULL},
    {"abs://account@container/x", NULL},
    {"", "is empty"},
    {"/r", "has no scheme"},
    {"r", "has no scheme"},
    {"file:/r", "has no scheme"},
    {"://r", "has no scheme"},
    {"3s://r", "has no scheme"},
    {"s 3://r", "has no scheme"},
    {"file://", "has no path"},
    {"file://.x/y", NULL},
    {"file:///r/~/x", NULL},
    {"file://~/x", "has a path that is not whole"},
    {"file://~user/x", "has a path that is not whole"},
    {"file:///~/x", "has a path that is not whole"},
    {"file://./x", "has a path that is not whole"},
    {"file://../x", "has a path that is not whole"},
    {"file://.", "has a path that is not whole"},
    {"s3:///x", "has nothing behind its scheme"},
    {"s3://", "has nothing behind its scheme"},
    {"file:///r?x=1", "has a '?', which a file URL has no use for"},
    {"s3://b/x#y", "has a '#'"},
    {"s3://b/\x01", "has a control character"},
    {"s3://id:secret@bucket/x", "has a password in it"},
    {"sftp://user:@host/x", "has a password in it"},
    {"s3://id:se/cret@bucket/x", "has a ':' in its host that no port follows"},
    {"sftp://[::1/x", "has a '[' without ']' in its host"},
    {"sftp://[::1]22/x", "has text behind the ']' of its host"},
    {"s3://b/x?secret_access_key=1", "has a query key that looks like a secret"},
    {"s3://b/x?a=1&X-Amz-Signature=2", "has a query key that looks like a secret"},
    {"abs://c/x?sv=2021&sig=abc", "has a query key that looks like a secret"},
    {"gcs://c/x?access-token=abc", "has a query key that looks like a secret"},
    {"s3://b/x?key", "has a query key that looks like a secret"},
    {"s3://b/x?sse-customer-key=abc", "has a query key that looks like a secret"},
    {"s3://b/x?sseCustomerKey=abc", "has a query key that looks like a secret"},
    {"abs://c/x?connection-string=abc", "has a query key that looks like a secret"},
    {"abs://c/x?sas_token=abc", "has a query key that looks like a secret"},
    {"s3://b/x?sse_kms_key_id=alias", NULL},
};

static void urls(void **state)
{
    (void)state;
    for (size_t i = 0; i < LJ_ARRAY_LEN(url_rows); i++) {
        lj_error err = LJ_ERROR_INIT;
        lj_config config;
        lj_config_init(&config);
        lj_code code = lj_config_set(&config, LJ_ORIGIN_API, "replica_url", url_rows[i].url, &err);
        if (url_rows[i].reason == NULL) {
            assert_ok(code, &err);
            assert_string_equal(config.replica_url, url_rows[i].url);
        } else {
            assert_int_equal(code, LJ_INVALID);
            if (strstr(err.message, url_rows[i].reason) == NULL)
                fail_msg("%s: %s", url_rows[i].url, err.message);
            assert_null(strstr(err.message, "secret@"));
            assert_null(strstr(err.message, "cret@"));
            assert_null(strstr(err.message, "abc"));
        }
        lj_config_clear(&config);
    }
    char url[4000] = "s3://b/";
    memset(url + 7, 'x', sizeof(url) - 8);
    lj_error err = LJ_ERROR_INIT;
    lj_config config;
    lj_config_init(&config);
    assert_int_equal(lj_config_set(&config, LJ_ORIGIN_API, "replica_url", url, &err), LJ_INVALID);
    lj_config_clear(&config);
}

static void replica_urls(void **state)
{
    (void)state;
    /* want NULL: refused */
    static const struct {
        const char *base;
        const char *name;
        const char *path;
        const char *want;
    } rows[] = {
        {"file:///r", NULL, "/data/shard_0.db", "file:///r/shard_0"},
        {"file:///r", NULL, "dlq.db", "file:///r/dlq"},
        {"file:///r///", NULL, "a/b/dlq.db", "file:///r/dlq"},
        {"file:///", NULL, "/x.db", "file:///x"},
        {"file:///r", NULL, "/data/app.sqlite", "file:///r/app.sqlite"},
        {"file:///r", NULL, "/data/a.db.db", "file:///r/a.db"},
        {"file:///r", NULL, "/data/a b.db", "file:///r/a b"},
        {"file:///r", "main", "/data/a.db", "file:///r/main"},
        {"s3://bucket", NULL, "/data/a.db", "s3://bucket/a"},
        {"s3://bucket/", NULL, "/data/a.db", "s3://bucket/a"},
        {"s3://bucket/p/?region=x", NULL, "/data/a.db", "s3://bucket/p/a?region=x"},
        {"file:///r", NULL, "/data/.db", NULL},
        {"file:///r", NULL, "/data/", NULL},
        {"file:///r", NULL, "", NULL},
        {"file:///r", NULL, "/data/..", NULL},
        {"file:///r", NULL, "/data/a?b.db", "file:///r/a%3Fb"},
        {"file:///r", NULL, "/data/a%3Fb.db", "file:///r/a%253Fb"},
        {"s3://bucket/p?region=x", NULL, "/data/a#b?c", "s3://bucket/p/a%23b%3Fc?region=x"},
        {NULL, NULL, "/data/a.db", NULL},
    };
    for (size_t i = 0; i < LJ_ARRAY_LEN(rows); i++) {
        lj_error err = LJ_ERROR_INIT;
        lj_config config;
        lj_config_init(&config);
        assert_ok(lj_config_set(&config, LJ_ORIGIN_URI, "replica_url", rows[i].base, &err), &err);
        assert_ok(lj_config_set(&config, LJ_ORIGIN_URI, "replica_name", rows[i].name, &err), &err);
        char untouched[] = "untouched";
        char *url = untouched;
        lj_code code = lj_config_replica_url(&config, rows[i].path, &url, &err);
        if (rows[i].want != NULL) {
            assert_ok(code, &err);
            assert_string_equal(url, rows[i].want);
            free(url);
        } else {
            assert_int_equal(code, LJ_INVALID);
            assert_ptr_equal(url, untouched);
            assert_true(err.hint[0] != 0);
        }
        lj_config_clear(&config);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(environment),    cmocka_unit_test(environment_errors),
        cmocka_unit_test(uri_parameters), cmocka_unit_test(uri_errors),
        cmocka_unit_test(api_errors),     cmocka_unit_test(urls),
        cmocka_unit_test(replica_urls),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
