/*
 * oom_test.c - every allocation of the config layer fails once: the answer is LJ_NOMEM, the config is as before, and
 * nothing leaks (under AddressSanitizer).
 *
 * Linked with --wrap, so that only this program's own objects see the failures, not libyaml's.
 */
#include "test/unit/unit.h"

#include "test/unit/config/config_kit.h"

static long countdown = -1; /* the allocation that fails when it comes to 0; negative: none */

static bool fails_now(void)
{
    return countdown >= 0 && countdown-- == 0;
}

void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_malloc(size_t size)
{
    return fails_now() ? NULL : __real_malloc(size);
}

void *__real_realloc(void *old, size_t size);
void *__wrap_realloc(void *old, size_t size);
void *__wrap_realloc(void *old, size_t size)
{
    return fails_now() ? NULL : __real_realloc(old, size);
}

static const char yaml[] = "other: [1, 2]\n"
                           "replication:\n"
                           "  enabled: true\n"
                           "  mode: embedded\n"
                           "  replica_url: file:///backup\n"
                           "  log_file: /var/log/litejoin.log\n";

static lj_code by_yaml(lj_config *config, lj_error *err)
{
    return lj_config_parse_yaml(config, "litejoin.yaml", yaml, sizeof(yaml) - 1, err);
}

static lj_code by_env(lj_config *config, lj_error *err)
{
    static const char *const block[] = {"LITEJOIN_REPLICA_URL=file:///r", "LITEJOIN_BASE_VFS=unix",
                                        NULL};
    return kit_load_env(config, block, err);
}

static lj_code by_uri(lj_config *config, lj_error *err)
{
    kit_uri uri = {{"replica_url", "file:///r", "replica_name", "n", "retention", "1h", NULL}};
    return kit_load_uri(config, &uri, err);
}

static lj_code by_set(lj_config *config, lj_error *err)
{
    return lj_config_set(config, LJ_ORIGIN_API, "log_file", "/tmp/other", err);
}

static lj_code by_copy(lj_config *config, lj_error *err)
{
    lj_config copy;
    LJ_TRY(lj_config_copy(config, &copy, err));
    lj_config_clear(&copy);
    return LJ_OK;
}

static lj_code by_replica_url(lj_config *config, lj_error *err)
{
    char *url = NULL;
    LJ_TRY(lj_config_replica_url(config, "/data/shard_0.db", &url, err));
    free(url);
    return LJ_OK;
}

static lj_code by_table(lj_config *config, lj_error *err)
{
    (void)config;
    LJ_CLEANUP(lj_buf_free) lj_buf table = LJ_BUF_INIT(65536);
    return lj_config_render_table(&table, err);
}

typedef lj_code (*load_way)(lj_config *config, lj_error *err);

static void every_allocation_may_fail(void **state)
{
    (void)state;
    static const load_way ways[] = {by_yaml, by_env,         by_uri,  by_set,
                                    by_copy, by_replica_url, by_table};
    for (size_t w = 0; w < LJ_ARRAY_LEN(ways); w++) {
        lj_code code = LJ_NOMEM;
        for (long n = 0; code != LJ_OK; n++) {
            assert_true(n < 1000);
            lj_error err = LJ_ERROR_INIT;
            lj_config config;
            lj_config_init(&config);
            assert_ok(lj_config_set(&config, LJ_ORIGIN_API, "replica_url", "file:///before", &err),
                      &err);
            lj_config before = config;
            countdown = n;
            code = ways[w](&config, &err);
            countdown = -1;
            if (code != LJ_OK) {
                assert_int_equal(code, LJ_NOMEM);
                assert_memory_equal(&config, &before, sizeof(config));
                assert_string_equal(config.replica_url, "file:///before");
            } else {
                assert_true(n > 0); /* it does allocate */
            }
            lj_config_clear(&config);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_allocation_may_fail)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
