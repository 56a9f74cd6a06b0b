/*
 * aws_test.c - which credentials are taken: settings, environment and shared files in the order of the SDKs, half pairs, which
 * profile, where else they may come from. (test/storage/test_aws_credentials.py asks servers.)
 */
#include "test/unit/storage/auth/aws_kit.h"

/* ---- the order ---- */

static void test_each_place_beats_the_ones_behind_it(void **state)
{
    (void)state;
    lj_aws_options given = {.access_key_id = "SETID", .secret_access_key = "setsecret"};
    write_file("credentials",
               "[default]\naws_access_key_id = FILEID\n"
               "aws_secret_access_key = filesecret\naws_session_token = filetoken\n");
    expect_keys(&none, "FILEID", "filesecret", "filetoken");
    env("AWS_WEB_IDENTITY_TOKEN_FILE", "/nowhere/token");
    env("AWS_ROLE_ARN", "arn:aws:iam::1:role/r");
    lj_aws_source *source = decide(&none);
    assert_int_equal(source->kind, LJ_AWS_WEB_IDENTITY);
    assert_string_equal(source->token_file, "/nowhere/token");
    lj_aws_source_free(source);
    env("LITESTREAM_ACCESS_KEY_ID", "OWNID");
    env("LITESTREAM_SECRET_ACCESS_KEY", "ownsecret");
    expect_keys(&none, "OWNID", "ownsecret", NULL);
    env("AWS_ACCESS_KEY_ID", "ENVID");
    env("AWS_SECRET_ACCESS_KEY", "envsecret");
    env("AWS_SESSION_TOKEN", "envtoken");
    expect_keys(&none, "ENVID", "envsecret", "envtoken");
    expect_keys(&given, "SETID", "setsecret",
                NULL); /* the environment's session token is not theirs */
    given.session_token = "settoken";
    expect_keys(&given, "SETID", "setsecret", "settoken");
}

static void test_the_session_token_of_the_environment_goes_with_v03_names_too(void **state)
{
    (void)state;
    env("LITESTREAM_ACCESS_KEY_ID", "OWNID");
    env("LITESTREAM_SECRET_ACCESS_KEY", "ownsecret");
    env("AWS_SESSION_TOKEN", "t");
    expect_keys(&none, "OWNID", "ownsecret", "t");
    env("AWS_SESSION_TOKEN", "");
    env("AWS_ACCESS_KEY", "OLDID"); /* names of the oldest SDKs */
    env("AWS_SECRET_KEY", "oldsecret");
    expect_keys(&none, "OLDID", "oldsecret", NULL);
}

static void test_halves_of_one_pair_may_have_both_kinds_of_names(void **state)
{
    (void)state;
    env("AWS_ACCESS_KEY_ID", "ID");
    env("LITESTREAM_SECRET_ACCESS_KEY", "secret");
    expect_keys(&none, "ID", "secret", NULL);
}

static void expect_half(const lj_aws_options *options, const char *where, const char *missing)
{
    lj_error err = LJ_ERROR_INIT;
    assert_int_equal(refuse(options, &err), LJ_INVALID);
    char message[128];
    char hint[128];
    snprintf(message, sizeof(message), "AWS credentials: half a key pair in %s", where);
    snprintf(hint, sizeof(hint), "give %s too, or neither", missing);
    assert_string_equal(err.message, message);
    assert_string_equal(err.hint, hint);
    assert_false(err.retryable);
}

static void test_half_a_pair_is_an_error_that_names_the_other_half(void **state)
{
    (void)state;
    lj_aws_options id = {.access_key_id = "ID"};
    lj_aws_options secret = {.secret_access_key = "verysecret"};
    expect_half(&id, "the settings", "secret-access-key");
    expect_half(&secret, "the settings", "access-key-id");
    write_file("credentials", "[default]\naws_access_key_id = FILEID\n");
    expect_half(&none, "profile default", "aws_secret_access_key");
    write_file("credentials", "[default]\naws_secret_access_key = filesecret\n");
    expect_half(&none, "profile default", "aws_access_key_id");
    env("AWS_SECRET_ACCESS_KEY", "envsecret");
    expect_half(&none, "the environment", "AWS_ACCESS_KEY_ID");
    env("LITESTREAM_ACCESS_KEY_ID", "OWNID");
    env("LITESTREAM_SECRET_ACCESS_KEY", "ownsecret");
    expect_half(&none, "the environment",
                "AWS_ACCESS_KEY_ID"); /* never one pair's id with the other's secret */
    assert_int_equal(unsetenv("AWS_SECRET_ACCESS_KEY"), 0);
    env("AWS_ACCESS_KEY_ID", "ENVID");
    expect_half(&none, "the environment", "AWS_SECRET_ACCESS_KEY");
}

static void test_a_key_that_no_header_can_have_is_refused_and_not_shown(void **state)
{
    (void)state;
    static const char *const bad[] = {"sec ret", "secret\n", "\tsecret", "sec\x7fret", "s\xc3\xa9"};
    for (size_t i = 0; i < LJ_ARRAY_LEN(bad); i++) {
        lj_error err = LJ_ERROR_INIT;
        env("AWS_ACCESS_KEY_ID", "ID");
        env("AWS_SECRET_ACCESS_KEY", bad[i]);
        assert_int_equal(refuse(&none, &err), LJ_INVALID);
        assert_string_equal(err.message,
                            "AWS credentials of the environment: malformed secret key");
        assert_null(strstr(err.hint, "ret"));
    }
}

/* ---- profiles ---- */

static void test_which_profile(void **state)
{
    (void)state;
    write_file("credentials", "[default]\naws_access_key_id = D\naws_secret_access_key = d\n"
                              "[one]\naws_access_key_id = O\naws_secret_access_key = o\n"
                              "[two]\naws_access_key_id = T\naws_secret_access_key = t\n");
    env("AWS_DEFAULT_PROFILE", "one");
    expect_keys(&none, "O", "o", NULL);
    env("AWS_PROFILE", "two");
    expect_keys(&none, "T", "t", NULL);
    lj_aws_options given = {.profile = "default"};
    expect_keys(&given, "D", "d", NULL);
    /* a profile that the environment names gives way to keys in the environment, one that the settings name does not */
    env("AWS_ACCESS_KEY_ID", "ENVID");
    env("AWS_SECRET_ACCESS_KEY", "envsecret");
    expect_keys(&none, "ENVID", "envsecret", NULL);
    expect_keys(&given, "D", "d", NULL);
}

static void test_a_profile_that_somebody_named_must_be_there(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    write_file("config", "[nobody]\nregion = eu-central-1\n");
    env("AWS_PROFILE", "nobody");
    assert_int_equal(refuse(&none, &err), LJ_INVALID);
    assert_non_null(strstr(err.message, "AWS profile nobody is in neither of the files"));
    assert_non_null(strstr(err.hint, "[profile nobody]"));
    assert_int_equal(unsetenv("AWS_PROFILE"), 0);
    lj_aws_source_free(decide(&none)); /* nobody named it: then it need not */
}

static void test_keys_in_the_files_are_read_again_when_the_store_refuses_them(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    lj_aws_provider *provider = NULL;
    lj_token first = LJ_TOKEN_INIT;
    lj_token second = LJ_TOKEN_INIT;
    write_file("credentials", "[default]\naws_access_key_id = OLD\naws_secret_access_key = o\n");
    assert_ok(lj_aws_provider_new(&none, &provider, &err), &err);
    lj_token_source *source = lj_aws_provider_token(provider);
    assert_ok(lj_token_get(source, &first, &err), &err);
    write_file("credentials", "[default]\naws_access_key_id = NEW\naws_secret_access_key = n\n");
    assert_ok(lj_token_get(source, &second, &err), &err);
    assert_string_equal(lj_secret_text(&second.values[LJ_AWS_KEY_ID]), "OLD");
    lj_token_free(&second);
    lj_token_expired(source, &first);
    assert_ok(lj_token_get(source, &second, &err), &err);
    assert_string_equal(lj_secret_text(&second.values[LJ_AWS_KEY_ID]), "NEW");
    lj_token_free(&first);
    lj_token_free(&second);
    lj_aws_provider_free(provider);
}

static void test_expired_keys_in_the_files_are_an_error_that_says_so(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    lj_aws_provider *provider = NULL;
    lj_token token = LJ_TOKEN_INIT;
    write_file("credentials", "[default]\naws_access_key_id = OLD\naws_secret_access_key = o\n"
                              "aws_expiration = 2020-01-02T03:04:05Z\n");
    assert_ok(lj_aws_provider_new(&none, &provider, &err), &err);
    assert_int_equal(lj_token_get(lj_aws_provider_token(provider), &token, &err), LJ_DENIED);
    assert_string_equal(err.message,
                        "AWS credentials of profile default: expired at 2020-01-02T03:04:05Z");
    assert_true(err.retryable);
    write_file("credentials", "[default]\naws_access_key_id = NEW\naws_secret_access_key = n\n"
                              "x_security_token_expires = 2120-01-02T03:04:05+02:00\n");
    assert_ok(lj_token_get(lj_aws_provider_token(provider), &token, &err), &err);
    assert_true(token.expires_ns > INT64_C(4733524800) * LJ_NS_PER_S);
    lj_token_free(&token);
    lj_aws_provider_free(provider);
}

static void test_files_elsewhere(void **state)
{
    (void)state;
    char path[128];
    write_file("credentials", "[default]\naws_access_key_id = HOME\naws_secret_access_key = h\n");
    write_file("mine", "[default]\naws_access_key_id = MINE\naws_secret_access_key = m\n");
    path_in_home(path, sizeof(path), "mine");
    env("AWS_SHARED_CREDENTIALS_FILE", path);
    expect_keys(&none, "MINE", "m", NULL);
    env("AWS_CONFIG_FILE", path); /* [default] may be there, too */
    env("AWS_SHARED_CREDENTIALS_FILE", "/nowhere/at/all");
    expect_keys(&none, "MINE", "m", NULL);
}

static void test_a_malformed_file_is_an_error_but_not_when_only_the_region_is_wanted(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    write_file("config", "[default]\nsome words\n");
    assert_int_equal(refuse(&none, &err), LJ_INVALID);
    assert_non_null(strstr(err.message, "/.aws/config:2: neither a section nor name = value"));
    env("AWS_ACCESS_KEY_ID", "ENVID");
    env("AWS_SECRET_ACCESS_KEY", "envsecret");
    expect_keys(&none, "ENVID", "envsecret", NULL);
}

static void test_a_file_that_is_too_large(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    char *text = malloc(LJ_AWS_FILE_MAX + 2);
    assert_non_null(text);
    memset(text, '#', LJ_AWS_FILE_MAX + 1);
    text[LJ_AWS_FILE_MAX + 1] = 0;
    write_file("config", text);
    free(text);
    assert_int_equal(refuse(&none, &err), LJ_INVALID);
    assert_non_null(strstr(err.message, "larger than"));
}

/* ---- container, instance, region ---- */

static void test_container_and_instance(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    lj_aws_source *source = decide(&none);
    assert_int_equal(source->kind, LJ_AWS_IMDS);
    assert_true(source->nothing_configured);
    assert_string_equal(source->url, "http://169.254.169.254");
    lj_aws_source_free(source);
    env("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE", "ipv6");
    source = decide(&none);
    assert_string_equal(source->url, "http://[fd00:ec2::254]");
    lj_aws_source_free(source);
    env("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://localhost:1338");
    env("AWS_EC2_METADATA_DISABLED", "TRUE");
    source = decide(&none);
    assert_string_equal(source->url, "http://localhost:1338");
    assert_true(source->imds_disabled);
    lj_aws_source_free(source);
    env("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE", "ipv5");
    assert_int_equal(refuse(&none, &err), LJ_INVALID);
    env("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://169.254.170.23/v1/credentials");
    env("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "/run/token");
    env("AWS_CONTAINER_AUTHORIZATION_TOKEN", "t");
    source = decide(&none);
    assert_int_equal(source->kind, LJ_AWS_CONTAINER);
    assert_string_equal(source->url, "http://169.254.170.23/v1/credentials");
    assert_string_equal(source->token_file, "/run/token");
    lj_aws_source_free(source);
    env("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", ".evil.example/x"); /* stays a path */
    source = decide(&none);
    assert_string_equal(source->url, "http://169.254.170.2/.evil.example/x");
    lj_aws_source_free(source);
}

static void test_a_container_uri_may_not_lead_away(void **state)
{
    (void)state;
    static const char *const bad[] = {"http://example.com/x",
                                      "http://169.254.169.254/x",
                                      "http://10.0.0.1/x",
                                      "ftp://localhost/x",
                                      "http://[fd00:ec2::24]/x",
                                      "http://localhost.example.com/x",
                                      "http://2130706433/x",
                                      "/x",
                                      "http:///x"};
    for (size_t i = 0; i < LJ_ARRAY_LEN(bad); i++) {
        lj_error err = LJ_ERROR_INIT;
        lj_aws_provider *provider = NULL;
        lj_token token = LJ_TOKEN_INIT;
        env("AWS_CONTAINER_CREDENTIALS_FULL_URI", bad[i]);
        assert_ok(lj_aws_provider_new(&none, &provider, &err), &err);
        assert_int_equal(lj_token_get(lj_aws_provider_token(provider), &token, &err), LJ_INVALID);
        assert_non_null(strstr(err.message, "AWS_CONTAINER_CREDENTIALS_FULL_URI"));
        lj_aws_provider_free(provider);
    }
}

static void expect_region(const lj_aws_options *options, const char *want)
{
    lj_error err = LJ_ERROR_INIT;
    lj_aws_provider *provider = NULL;
    assert_ok(lj_aws_provider_new(options, &provider, &err), &err);
    assert_true(lj_str_eq(lj_aws_provider_region(provider), want));
    lj_aws_provider_free(provider);
}

static void test_region(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    lj_aws_options given = {.region = "set-1"};
    expect_region(&none, NULL);
    write_file("config", "[default]\nregion = file-1\n[profile p]\nregion = p-1\n");
    expect_region(&none, "file-1");
    env("AWS_PROFILE", "p");
    expect_region(&none, "p-1");
    env("AWS_DEFAULT_REGION", "old-1");
    expect_region(&none, "old-1");
    env("AWS_REGION", "env-1");
    expect_region(&none, "env-1");
    expect_region(&given, "set-1");
    given.region = "evil.example/x";
    assert_int_equal(refuse(&given, &err), LJ_INVALID);
}

static void test_web_identity_needs_its_role(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    env("AWS_WEB_IDENTITY_TOKEN_FILE", "/t");
    assert_int_equal(refuse(&none, &err), LJ_INVALID);
    assert_non_null(strstr(err.hint, "AWS_ROLE_ARN"));
}

/* ---- sharing ---- */

static void test_the_same_setup_is_one_source(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    lj_aws_provider *providers[4] = {NULL};
    lj_aws_options options[4] = {
        {.access_key_id = "ID", .secret_access_key = "s"},
        {.access_key_id = "ID", .secret_access_key = "s"},
        {.access_key_id = "ID", .secret_access_key = "other"},
        {.access_key_id = "ID", .secret_access_key = "s", .session_token = "t"},
    };
    for (size_t i = 0; i < 4; i++)
        assert_ok(lj_aws_provider_new(&options[i], &providers[i], &err), &err);
    assert_ptr_equal(lj_aws_provider_token(providers[0]), lj_aws_provider_token(providers[1]));
    assert_ptr_not_equal(lj_aws_provider_token(providers[0]), lj_aws_provider_token(providers[2]));
    assert_ptr_not_equal(lj_aws_provider_token(providers[0]), lj_aws_provider_token(providers[3]));
    for (size_t i = 0; i < 4; i++)
        lj_aws_provider_free(providers[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_each_place_beats_the_ones_behind_it),
        TEST(test_the_session_token_of_the_environment_goes_with_v03_names_too),
        TEST(test_halves_of_one_pair_may_have_both_kinds_of_names),
        TEST(test_half_a_pair_is_an_error_that_names_the_other_half),
        TEST(test_a_key_that_no_header_can_have_is_refused_and_not_shown),
        TEST(test_which_profile),
        TEST(test_a_profile_that_somebody_named_must_be_there),
        TEST(test_keys_in_the_files_are_read_again_when_the_store_refuses_them),
        TEST(test_expired_keys_in_the_files_are_an_error_that_says_so),
        TEST(test_files_elsewhere),
        TEST(test_a_malformed_file_is_an_error_but_not_when_only_the_region_is_wanted),
        TEST(test_a_file_that_is_too_large),
        TEST(test_container_and_instance),
        TEST(test_a_container_uri_may_not_lead_away),
        TEST(test_region),
        TEST(test_web_identity_needs_its_role),
        TEST(test_the_same_setup_is_one_source),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
