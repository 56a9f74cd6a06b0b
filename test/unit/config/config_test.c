/* config_test.c - every option from every origin, precedence, error texts, YAML, URLs, the help table. */
#include "test/unit/unit.h"

#include <unistd.h>

#include "test/unit/config/config_kit.h"
#include "vfs/base/io.h"
#include "vfs/base/str.h"

/* One good value per option that is not its default. */
static const struct {
    const char *name;
    const char *value;
    const char *shown; /* kit_show of it */
} good[] = {
    {"enabled", "yes", "true"},
    {"mode", "embedded", "embedded"},
    {"replica_url", "s3://bucket/base", "s3://bucket/base"},
    {"replica_name", "main", "main"},
    {"sync_interval", "1h30m", "5400000000000"},
    {"restore_on_boot", "off", "false"},
    {"snapshot_interval", "0", "0"},
    {"retention", "24h", "86400000000000"},
    {"max_wal_size", "256MiB", "268435456"},
    {"max_spool_size", "0", "0"},
    {"shutdown_timeout", "1.5s", "1500000000"},
    {"io_timeout", "500ms", "500000000"},
    {"upload_workers", "64", "64"},
    {"fsync_before_ship", "1", "true"},
    {"auto_wal", "on", "true"},
    {"guard", "on", "true"},
    {"durability", "remote", "remote"},
    {"remote_timeout", "500ms", "500000000"},
    {"remote_on_failure", "degrade", "degrade"},
    {"log_level", "debug", "debug"},
    {"log_file", "/var/log/litejoin.log", "/var/log/litejoin.log"},
    {"base_vfs", "unix-excl", "unix-excl"},
    {"default_vfs", "on", "true"},
};

static const lj_origin origins[] = {LJ_ORIGIN_FILE, LJ_ORIGIN_API, LJ_ORIGIN_ENV, LJ_ORIGIN_URI};

/* Who may set what, written down a second time on purpose. */
static bool may_set(const char *name, lj_origin origin)
{
    if (strcmp(name, "replica_name") == 0)
        return origin == LJ_ORIGIN_URI;
    if (strcmp(name, "default_vfs") == 0)
        return origin == LJ_ORIGIN_API || origin == LJ_ORIGIN_ENV;
    if (strcmp(name, "log_level") == 0 || strcmp(name, "log_file") == 0 ||
        strcmp(name, "base_vfs") == 0)
        return origin != LJ_ORIGIN_URI;
    return true;
}

static void defaults(void **state)
{
    (void)state;
    static const char *const want[] = {"enabled=false",
                                       "mode=sidecar",
                                       "replica_url=(null)",
                                       "replica_name=(null)",
                                       "sync_interval=1000000000",
                                       "restore_on_boot=true",
                                       "snapshot_interval=3600000000000",
                                       "retention=259200000000000",
                                       "max_wal_size=0",
                                       "max_spool_size=4294967296",
                                       "shutdown_timeout=10000000000",
                                       "io_timeout=30000000000",
                                       "upload_workers=16",
                                       "fsync_before_ship=false",
                                       "auto_wal=false",
                                       "guard=false",
                                       "durability=local",
                                       "remote_timeout=5000000000",
                                       "remote_on_failure=error",
                                       "log_level=info",
                                       "log_file=(null)",
                                       "base_vfs=(null)",
                                       "default_vfs=false"};
    lj_config config;
    lj_config_init(&config);
    for (size_t i = 0; i < LJ_ARRAY_LEN(want); i++) {
        const lj_config_option_info *info = lj_config_option_at(i);
        assert_non_null(info);
        char shown[KIT_SHOW_MAX];
        kit_show(&config, info->name, shown);
        char line[KIT_SHOW_MAX + 64];
        snprintf(line, sizeof(line), "%s=%s", info->name, shown);
        assert_string_equal(line, want[i]);
    }
    assert_null(lj_config_option_at(LJ_ARRAY_LEN(want)));
    lj_config_clear(&config);
}

static void every_option_from_every_origin(void **state)
{
    (void)state;
    for (size_t i = 0; i < LJ_ARRAY_LEN(good); i++) {
        for (size_t o = 0; o < LJ_ARRAY_LEN(origins); o++) {
            lj_error err = LJ_ERROR_INIT;
            lj_config config;
            lj_config_init(&config);
            char shown[KIT_SHOW_MAX];
            lj_code code = kit_load(&config, origins[o], good[i].name, good[i].value, &err);
            kit_show(&config, good[i].name, shown);
            if (may_set(good[i].name, origins[o])) {
                assert_ok(code, &err);
                assert_string_equal(shown, good[i].shown);
            } else {
                assert_int_equal(code, LJ_INVALID);
                assert_non_null(strstr(err.message, "cannot be set here; allowed: "));
                assert_string_not_equal(shown, good[i].shown);
            }
            lj_config_clear(&config);
        }
    }
    assert_null(lj_config_option_at(LJ_ARRAY_LEN(good)));
}

/* Every pair of origins in both orders: the higher one wins. */
static void precedence(void **state)
{
    (void)state;
    static const char *const texts[] = {"1s", "2s", "3s", "4s", "5s"};
    static const char *const urls[] = {"s3://a/0", "s3://a/1", "s3://a/2", "s3://a/3", "s3://a/4"};
    for (size_t a = 0; a < LJ_ARRAY_LEN(origins); a++) {
        for (size_t b = 0; b < LJ_ARRAY_LEN(origins); b++) {
            lj_error err = LJ_ERROR_INIT;
            lj_config config;
            lj_config_init(&config);
            lj_origin first = origins[a];
            lj_origin second = origins[b];
            lj_origin winner = second >= first ? second : first;
            assert_ok(kit_load(&config, first, "sync_interval", texts[first], &err), &err);
            assert_ok(kit_load(&config, second, "sync_interval", texts[second], &err), &err);
            assert_ok(kit_load(&config, first, "replica_url", urls[first], &err), &err);
            assert_ok(kit_load(&config, second, "replica_url", urls[second], &err), &err);
            assert_int_equal(config.sync_interval_ns, (int64_t)(winner + 1) * LJ_NS_PER_S);
            assert_string_equal(config.replica_url, urls[winner]);
            assert_int_equal(config.replica_url_origin, winner);
            /* a bad value is an error also where it would not have won */
            assert_int_equal(kit_load(&config, LJ_ORIGIN_FILE, "sync_interval", "x", &err),
                             LJ_INVALID);
            lj_config_clear(&config);
        }
    }
}

/* What enabled and mode become, by where they and replica_url come from. */
static void enabled_and_mode(void **state)
{
    (void)state;
    const lj_origin none = LJ_ORIGIN_DEFAULT;
    const struct {
        lj_origin url;
        lj_origin enabled_from;
        const char *enabled;
        lj_origin mode_from;
        const char *mode;
        bool want_enabled;
        lj_mode want_mode;
        bool want_embedded;
    } rows[] = {
        {none, none, "", none, "", false, LJ_MODE_SIDECAR, false},
        {LJ_ORIGIN_FILE, none, "", none, "", false, LJ_MODE_SIDECAR, false},
        {LJ_ORIGIN_FILE, LJ_ORIGIN_FILE, "true", none, "", true, LJ_MODE_SIDECAR, false},
        {LJ_ORIGIN_FILE, LJ_ORIGIN_FILE, "true", LJ_ORIGIN_FILE, "embedded", true, LJ_MODE_EMBEDDED,
         true},
        {LJ_ORIGIN_FILE, LJ_ORIGIN_FILE, "true", LJ_ORIGIN_URI, "embedded", true, LJ_MODE_EMBEDDED,
         true},
        {LJ_ORIGIN_API, none, "", none, "", true, LJ_MODE_EMBEDDED, true},
        {LJ_ORIGIN_ENV, none, "", none, "", true, LJ_MODE_EMBEDDED, true},
        {LJ_ORIGIN_URI, none, "", none, "", true, LJ_MODE_EMBEDDED, true},
        {LJ_ORIGIN_API, LJ_ORIGIN_FILE, "false", none, "", true, LJ_MODE_EMBEDDED, true},
        {LJ_ORIGIN_API, LJ_ORIGIN_API, "false", none, "", false, LJ_MODE_EMBEDDED, false},
        {LJ_ORIGIN_API, LJ_ORIGIN_ENV, "false", none, "", false, LJ_MODE_EMBEDDED, false},
        {LJ_ORIGIN_ENV, LJ_ORIGIN_FILE, "false", none, "", true, LJ_MODE_EMBEDDED, true},
        {LJ_ORIGIN_ENV, LJ_ORIGIN_API, "false", none, "", false, LJ_MODE_EMBEDDED, false},
        {LJ_ORIGIN_ENV, LJ_ORIGIN_ENV, "false", none, "", false, LJ_MODE_EMBEDDED, false},
        {LJ_ORIGIN_ENV, LJ_ORIGIN_URI, "false", none, "", false, LJ_MODE_EMBEDDED, false},
        {LJ_ORIGIN_URI, LJ_ORIGIN_FILE, "false", none, "", true, LJ_MODE_EMBEDDED, true},
        {LJ_ORIGIN_URI, LJ_ORIGIN_API, "false", none, "", false, LJ_MODE_EMBEDDED, false},
        {LJ_ORIGIN_URI, LJ_ORIGIN_ENV, "false", none, "", false, LJ_MODE_EMBEDDED, false},
        {LJ_ORIGIN_URI, LJ_ORIGIN_URI, "false", none, "", false, LJ_MODE_EMBEDDED, false},
        {LJ_ORIGIN_FILE, LJ_ORIGIN_FILE, "false", LJ_ORIGIN_FILE, "embedded", false,
         LJ_MODE_EMBEDDED, false},
        {LJ_ORIGIN_URI, none, "", LJ_ORIGIN_FILE, "sidecar", true, LJ_MODE_SIDECAR, false},
        {LJ_ORIGIN_URI, none, "", LJ_ORIGIN_URI, "sidecar", true, LJ_MODE_SIDECAR, false},
        {LJ_ORIGIN_FILE, LJ_ORIGIN_FILE, "true", LJ_ORIGIN_ENV, "sidecar", true, LJ_MODE_SIDECAR,
         false},
    };
    for (size_t i = 0; i < LJ_ARRAY_LEN(rows); i++) {
        lj_error err = LJ_ERROR_INIT;
        lj_config config;
        lj_config_init(&config);
        if (rows[i].url != none)
            assert_ok(kit_load(&config, rows[i].url, "replica_url", "file:///r", &err), &err);
        if (rows[i].enabled_from != none)
            assert_ok(kit_load(&config, rows[i].enabled_from, "enabled", rows[i].enabled, &err),
                      &err);
        if (rows[i].mode_from != none)
            assert_ok(kit_load(&config, rows[i].mode_from, "mode", rows[i].mode, &err), &err);
        for (int twice = 0; twice < 2; twice++) { /* finishing a second time changes nothing */
            assert_ok(lj_config_finish(&config, &err), &err);
            if (config.enabled != rows[i].want_enabled || config.mode != rows[i].want_mode ||
                lj_config_embedded(&config) != rows[i].want_embedded)
                fail_msg("row %zu: enabled %d mode %d", i, config.enabled, (int)config.mode);
        }
        lj_config_clear(&config);
    }
}

/* Of two that say something of it the higher one decides, whichever replica_url it is about. */
static void enabled_twice(void **state)
{
    (void)state;
    static const lj_origin places[] = {LJ_ORIGIN_API, LJ_ORIGIN_ENV, LJ_ORIGIN_URI};
    for (size_t url = 0; url < LJ_ARRAY_LEN(places); url++) {
        for (size_t low = 0; low < LJ_ARRAY_LEN(places); low++) {
            for (size_t high = low + 1; high < LJ_ARRAY_LEN(places); high++) {
                for (int wanted = 0; wanted < 2; wanted++) {
                    lj_error err = LJ_ERROR_INIT;
                    lj_config config;
                    lj_config_init(&config);
                    assert_ok(kit_load(&config, places[url], "replica_url", "file:///r", &err),
                              &err);
                    assert_ok(kit_load(&config, places[low], "enabled",
                                       wanted != 0 ? "false" : "true", &err),
                              &err);
                    assert_ok(kit_load(&config, places[high], "enabled",
                                       wanted != 0 ? "true" : "false", &err),
                              &err);
                    assert_ok(lj_config_finish(&config, &err), &err);
                    assert_int_equal(lj_config_embedded(&config), wanted != 0);
                    lj_config_clear(&config);
                }
            }
        }
    }
}

/* The environment is finished when the extension is loaded; the URI comes with each open. */
static void disabled_for_the_process(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    lj_config defaults;
    lj_config config;
    lj_config_init(&defaults);
    static const char *const block[] = {"LITEJOIN_ENABLED=false", "LITEJOIN_REPLICA_URL=file:///r",
                                        NULL};
    assert_ok(kit_load_env(&defaults, block, &err), &err);
    assert_ok(lj_config_finish(&defaults, &err), &err);
    for (int says = 0; says < 2; says++) {
        kit_uri uri = {{"replica_url", "file:///u", says == 0 ? NULL : "enabled", "true", NULL}};
        assert_ok(lj_config_copy(&defaults, &config, &err), &err);
        assert_ok(kit_load_uri(&config, &uri, &err), &err);
        assert_ok(lj_config_finish(&config, &err), &err);
        assert_int_equal(lj_config_embedded(&config), says != 0);
        lj_config_clear(&config);
    }
    lj_config_clear(&defaults);
}

static void finish_needs_a_url(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    lj_config config;
    lj_config_init(&config);
    assert_ok(lj_config_set(&config, LJ_ORIGIN_API, "enabled", "true", &err), &err);
    assert_ok(lj_config_finish(&config, &err), &err); /* sidecar: the other process knows where */
    assert_ok(lj_config_set(&config, LJ_ORIGIN_API, "mode", "embedded", &err), &err);
    assert_int_equal(lj_config_finish(&config, &err), LJ_INVALID);
    assert_string_equal(err.message,
                        "enabled = \"true\" with mode = \"embedded\" needs a replica_url");
    assert_string_equal(err.hint, "set replica_url, e.g. file:///path, or mode to sidecar");
    lj_config_clear(&config);
}

static void copies_are_independent(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    lj_config config;
    lj_config copy;
    lj_config_init(&config);
    assert_ok(lj_config_set(&config, LJ_ORIGIN_ENV, "replica_url", "file:///r", &err), &err);
    assert_ok(lj_config_copy(&config, &copy, &err), &err);
    lj_config_clear(&config);
    assert_null(config.replica_url);
    assert_string_equal(copy.replica_url, "file:///r");
    /* the copy still knows that the environment said so */
    assert_ok(lj_config_set(&copy, LJ_ORIGIN_API, "replica_url", "file:///other", &err), &err);
    assert_string_equal(copy.replica_url, "file:///r");
    assert_ok(lj_config_set(&copy, LJ_ORIGIN_ENV, "replica_url", NULL, &err), &err);
    assert_string_equal(copy.replica_url, "file:///r");
    lj_config_clear(&copy);
}

static void values(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        const char *value;
        const char *shown;
    } rows[] = {
        {"enabled", "TRUE", "true"},
        {"enabled", "On", "true"},
        {"enabled", "0", "false"},
        {"enabled", "No", "false"},
        {"max_wal_size", "4096", "4096"},
        {"max_wal_size", "0", "0"},
        {"max_wal_size", "4KB", "4000"},
        {"max_wal_size", "5KB", "5000"},
        {"max_wal_size", "5K", "5120"},
        {"max_wal_size", "5kib", "5120"},
        {"max_wal_size", "2MB", "2000000"},
        {"max_wal_size", "2M", "2097152"},
        {"max_wal_size", "2 MiB", "2097152"},
        {"max_wal_size", "3GB", "3000000000"},
        {"max_wal_size", "3G", "3221225472"},
        {"max_wal_size", "1024GiB", "1099511627776"},
        {"max_wal_size", "1025GiB", NULL},
        {"max_wal_size", "4TiB", NULL},
        {"max_wal_size", "-1", NULL},
        {"max_wal_size", "5K ", NULL},
        {"max_wal_size", "5  K", NULL},
        {"max_wal_size", "", NULL},
        {"max_wal_size", "5 ", NULL},
        {"max_wal_size", "K", NULL},
        {"max_wal_size", "1.5GiB", NULL},
        {"max_wal_size", "18446744073709551615", NULL},
        {"max_wal_size", "18446744073709551616", NULL},
        {"max_wal_size", "18446744073709551615G", NULL},
        {"max_wal_size", "99999999999999999999999999", NULL},
        {"upload_workers", "1", "1"},
        {"upload_workers", "0", NULL},
        {"upload_workers", "65", NULL},
        {"upload_workers", "4294967297", NULL},
        {"upload_workers", "4.0", NULL},
        {"sync_interval", "1ms", "1000000"},
        {"sync_interval", "0", NULL},
        {"sync_interval", "24h", "86400000000000"},
        {"sync_interval", "25h", NULL},
        {"sync_interval", "1", NULL},
        {"sync_interval", "", NULL},
        {"shutdown_timeout", "0", "0"},
        {"shutdown_timeout", "61m", NULL},
        {"io_timeout", "9ms", NULL},
        {"mode", "Embedded", NULL},
        {"log_level", "warning", NULL},
        {"log_file", "", NULL},
        {"log_file", "a\nb", NULL},
    };
    for (size_t i = 0; i < LJ_ARRAY_LEN(rows); i++) {
        lj_error err = LJ_ERROR_INIT;
        lj_config config;
        lj_config_init(&config);
        char before[KIT_SHOW_MAX];
        char after[KIT_SHOW_MAX];
        kit_show(&config, rows[i].name, before);
        lj_code code = lj_config_set(&config, LJ_ORIGIN_API, rows[i].name, rows[i].value, &err);
        kit_show(&config, rows[i].name, after);
        if ((code == LJ_OK) != (rows[i].shown != NULL))
            fail_msg("%s = %s: %s", rows[i].name, rows[i].value, err.message);
        assert_string_equal(after, rows[i].shown != NULL ? rows[i].shown : before);
        if (rows[i].shown == NULL) {
            assert_non_null(strstr(err.message, rows[i].name));
            assert_non_null(strstr(err.message, "; allowed: "));
        }
        lj_config_clear(&config);
    }
}

/* The words in `allowed` are the numbers in the table: the limits themselves are accepted, what is beyond them is not. */
static void ranges_are_what_the_help_says(void **state)
{
    (void)state;
    const lj_config_option_info *info;
    for (size_t i = 0; (info = lj_config_option_at(i)) != NULL; i++) {
        char low[32];
        char high[32];
        if (sscanf(info->allowed, "%31s to %31s", low, high) != 2)
            continue;
        lj_error err = LJ_ERROR_INIT;
        lj_config config;
        lj_config_init(&config);
        assert_ok(lj_config_set(&config, LJ_ORIGIN_API, info->name, low, &err), &err);
        assert_ok(lj_config_set(&config, LJ_ORIGIN_API, info->name, high, &err), &err);
        char beyond[64];
        unsigned long number = strtoul(high, NULL, 10);
        snprintf(beyond, sizeof(beyond), "%lu%s", number + 1, high + strspn(high, "0123456789"));
        assert_int_equal(lj_config_set(&config, LJ_ORIGIN_API, info->name, beyond, &err),
                         LJ_INVALID);
        assert_non_null(strstr(err.message, info->allowed));
        assert_non_null(strstr(err.message, "is out of range"));
        lj_config_clear(&config);
    }
}

#include "test/unit/config/help_golden.h"

static void help_table(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    LJ_CLEANUP(lj_buf_free) lj_buf table = LJ_BUF_INIT(65536);
    assert_ok(lj_config_render_table(&table, &err), &err);
    assert_string_equal(lj_buf_text(&table), help_golden);
}

/* README.md from "## Options" on, to be freed; NULL, and why, when it cannot be had. */
static char *readme_section(const char **ret_why)
{
    const char *root = getenv("LJ_SOURCE_ROOT");
    *ret_why = "LJ_SOURCE_ROOT does not name the source folder";
    if (root == NULL)
        return NULL;
    lj_error err = LJ_ERROR_INIT;
    LJ_CLEANUP(lj_freep) char *path = lj_str_printf("%s/README.md", root);
    LJ_CLEANUP(lj_freep) char *readme = NULL;
    size_t len = 0;
    assert_ok(lj_io_read_file(path, 1 << 20, &readme, &len, &err), &err);
    const char *section = strstr(readme, "\n## Options\n");
    *ret_why = "README.md has no heading '## Options' yet";
    return lj_str_dup(section);
}

/* README.md, below "## Options", has every row of the table. */
static void readme_has_the_table(void **state)
{
    (void)state;
    const char *why = NULL;
    char *section = readme_section(&why); /* no cleanup attribute: skip() jumps over it */
    if (section == NULL) {
        print_message("skipped: %s\n", why);
        skip();
    }
    lj_error err = LJ_ERROR_INIT;
    LJ_CLEANUP(lj_buf_free) lj_buf table = LJ_BUF_INIT(65536);
    assert_ok(lj_config_render_table(&table, &err), &err);
    char *rest = NULL;
    for (char *row = strtok_r((char *)table.data, "\n", &rest); row != NULL;
         row = strtok_r(NULL, "\n", &rest)) {
        if (strstr(section, row) == NULL)
            fail_msg("README.md, \"## Options\", has no such row:\n%s", row);
    }
    free(section);
}

/* `config_config_test --table` prints the table for the README (and, line by line, for help_golden.h). */
static int print_table(void)
{
    lj_error err = LJ_ERROR_INIT;
    LJ_CLEANUP(lj_buf_free) lj_buf table = LJ_BUF_INIT(65536);
    if (lj_config_render_table(&table, &err) != LJ_OK)
        return 1;
    fputs(lj_buf_text(&table), stdout);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "--table") == 0)
        return print_table();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults),
        cmocka_unit_test(every_option_from_every_origin),
        cmocka_unit_test(precedence),
        cmocka_unit_test(enabled_and_mode),
        cmocka_unit_test(enabled_twice),
        cmocka_unit_test(disabled_for_the_process),
        cmocka_unit_test(finish_needs_a_url),
        cmocka_unit_test(copies_are_independent),
        cmocka_unit_test(values),
        cmocka_unit_test(ranges_are_what_the_help_says),
        cmocka_unit_test(help_table),
        cmocka_unit_test(readme_has_the_table),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
