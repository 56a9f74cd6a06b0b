/* setting_test.c - which settings a replica takes, from where, and what it says about those it does not take. */
#include "test/unit/unit.h"

#include "vfs/storage/setting.h"

static const lj_setting_spec specs[] = {{"region", false},
                                        {"force-path-style", false},
                                        {"secret-access-key", true},
                                        {"endpoint", false}};

static lj_code make(lj_settings *settings, const char *query, const lj_storage_setting *given,
                    size_t count, lj_error *err)
{
    lj_storage_options options = {.settings = given, .setting_count = count};
    return lj_settings_make(settings, specs, LJ_ARRAY_LEN(specs), query, &options, err);
}

static void expect_refused(const char *query, const char *words)
{
    lj_settings settings;
    lj_error err = LJ_ERROR_INIT;
    assert_int_equal(make(&settings, query, NULL, 0, &err), LJ_INVALID);
    if (strstr(err.message, words) == NULL)
        fail_msg("%s", err.message);
    assert_null(strstr(err.message, "hidden"));
    assert_null(strstr(err.hint, "hidden"));
    assert_false(err.retryable);
    assert_int_equal(settings.count, 0);
}

static void from_the_url(void **state)
{
    (void)state;
    lj_settings settings;
    lj_error err = LJ_ERROR_INIT;
    assert_ok(make(&settings, "region=eu%2Dx&&forcePathStyle=TRUE&endpoint=a+b%2B", NULL, 0, &err),
              &err);
    assert_string_equal(lj_settings_get(&settings, "region"), "eu-x");
    assert_string_equal(lj_settings_get(&settings, "endpoint"), "a b+");
    assert_null(lj_settings_get(&settings, "secret-access-key"));
    bool style = false;
    assert_ok(lj_settings_bool(&settings, "force-path-style", false, &style, &err), &err);
    assert_true(style);
    assert_true(settings.from_url[0]);
    lj_settings_free(&settings);
    assert_ok(make(&settings, NULL, NULL, 0, &err), &err);
    assert_null(lj_settings_get(&settings, "region"));
    lj_settings_free(&settings);
    assert_ok(make(&settings, "region=", NULL, 0, &err), &err);
    assert_null(lj_settings_get(&settings, "region"));
    lj_settings_free(&settings);
}

static void the_caller_wins(void **state)
{
    (void)state;
    lj_settings settings;
    lj_error err = LJ_ERROR_INIT;
    const lj_storage_setting given[] = {{"Region", "caller"},
                                        {"secret_access_key", "hidden"},
                                        {"endpoint", NULL},
                                        {"force-path-style", ""},
                                        {"unknown", NULL}};
    assert_ok(make(&settings, "region=url&endpoint=url", given, LJ_ARRAY_LEN(given), &err), &err);
    assert_string_equal(lj_settings_get(&settings, "region"), "caller");
    assert_string_equal(lj_settings_get(&settings, "secret-access-key"), "hidden");
    assert_string_equal(lj_settings_get(&settings, "endpoint"), "url");
    assert_false(settings.from_url[0]);
    assert_true(settings.from_url[3]);
    lj_settings_free(&settings);
    const lj_storage_setting wrong[] = {{"regio", "hidden"}};
    assert_int_equal(make(&settings, NULL, wrong, 1, &err), LJ_INVALID);
    assert_non_null(strstr(err.message, "\"regio\""));
    assert_string_equal(err.hint, "allowed: region, force-path-style, endpoint");
    assert_null(strstr(err.message, "hidden"));
}

static void refused_in_the_url(void **state)
{
    (void)state;
    expect_refused("secret-access-key=hidden", "secret");
    expect_refused("SecretAccessKey=hidden", "secret");
    expect_refused("region=a&sig=hidden", "\"sig\"");
    expect_refused("region=a&hidden", "NAME=VALUE");
    expect_refused("region=a&region=b", "twice");
    expect_refused("region=a&Region=hidden", "twice");
    expect_refused("region=%zz", "encoded");
    expect_refused("region=%00", "encoded");
    expect_refused("region=a%0d%0ahidden", "encoded");
    expect_refused("reg%0Aion=a", "encoded");
    expect_refused("=hidden", "\"\"");
}

static void booleans(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool value;
    } good[] = {{"true", true},   {"Yes", true}, {"ON", true},   {"1", true},
                {"false", false}, {"no", false}, {"oFF", false}, {"0", false}};
    lj_settings settings;
    lj_error err = LJ_ERROR_INIT;
    bool value = false;
    for (size_t i = 0; i < LJ_ARRAY_LEN(good); i++) {
        const lj_storage_setting given[] = {{"region", good[i].text}};
        assert_ok(make(&settings, NULL, given, 1, &err), &err);
        assert_ok(lj_settings_bool(&settings, "region", !good[i].value, &value, &err), &err);
        assert_int_equal(value, good[i].value);
        assert_ok(lj_settings_bool(&settings, "endpoint", true, &value, &err), &err);
        assert_true(value);
        lj_settings_free(&settings);
    }
    const lj_storage_setting maybe[] = {{"region", "maybe"}};
    assert_ok(make(&settings, NULL, maybe, 1, &err), &err);
    assert_int_equal(lj_settings_bool(&settings, "region", true, &value, &err), LJ_INVALID);
    assert_non_null(strstr(err.message, "region"));
    assert_non_null(strstr(err.message, "maybe"));
    lj_settings_free(&settings);
}

static void too_many(void **state)
{
    (void)state;
    lj_setting_spec many[LJ_SETTINGS_MAX + 1];
    for (size_t i = 0; i < LJ_ARRAY_LEN(many); i++)
        many[i] = (lj_setting_spec){"name", false};
    lj_settings settings;
    lj_error err = LJ_ERROR_INIT;
    lj_storage_options options = {.setting_count = 0};
    assert_int_equal(lj_settings_make(&settings, many, LJ_ARRAY_LEN(many), NULL, &options, &err),
                     LJ_INTERNAL);
    assert_ok(lj_settings_make(&settings, many, LJ_SETTINGS_MAX, NULL, &options, &err), &err);
    lj_settings_free(&settings);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(from_the_url),       cmocka_unit_test(the_caller_wins),
        cmocka_unit_test(refused_in_the_url), cmocka_unit_test(booleans),
        cmocka_unit_test(too_many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
