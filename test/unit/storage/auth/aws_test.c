/*
 * aws_test.c - which credentials are taken: settings, environment and shared files in the order of the SDKs, half pairs,
 * profiles that lean on others.
 *
 * Nothing here asks a server (test/storage/test_aws_credentials.py does). Every test begins with an environment without any
 * name of AWS in it, and a home folder of its own.
 */
#include "test/unit/unit.h"

#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vfs/base/str.h"
#include "vfs/storage/auth/aws.h"
#include "vfs/storage/auth/aws_internal.h"

static char home[64];

/* ---- kit ---- */

static void path_in_home(char *out, size_t size, const char *name)
{
    snprintf(out, size, "%s/.aws/%s", home, name);
}

static void write_file(const char *name, const char *text)
{
    char path[128];
    path_in_home(path, sizeof(path), name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static bool is_ours(const char *entry)
{
    return lj_str_starts(entry, "AWS_") || lj_str_starts(entry, "LITESTREAM_");
}

static void clean_environment(void)
{
    for (size_t i = 0; environ[i] != NULL;) {
        char name[128];
        snprintf(name, sizeof(name), "%.*s", (int)strcspn(environ[i], "="), environ[i]);
        if (is_ours(environ[i]))
            assert_int_equal(unsetenv(name), 0);
        else
            i++;
    }
}

static int setup(void **state)
{
    (void)state;
    clean_environment();
    snprintf(home, sizeof(home), "/tmp/lj-aws-XXXXXX");
    assert_non_null(mkdtemp(home));
    char path[128];
    path_in_home(path, sizeof(path), "");
    assert_int_equal(mkdir(path, 0700), 0);
    return setenv("HOME", home, 1);
}

static int teardown(void **state)
{
    (void)state;
    char path[512];
    path_in_home(path, sizeof(path), "");
    DIR *dir = opendir(path);
    for (struct dirent *entry; dir != NULL && (entry = readdir(dir)) != NULL;) {
        char file[1024];
        snprintf(file, sizeof(file), "%s%s", path, entry->d_name);
        if (entry->d_type != DT_DIR)
            unlink(file);
    }
    if (dir != NULL)
        closedir(dir);
    rmdir(path);
    return rmdir(home);
}

static void env(const char *name, const char *value)
{
    assert_int_equal(setenv(name, value, 1), 0);
}

static lj_code refuse(const lj_aws_options *options, lj_error *err)
{
    lj_aws_provider *provider = NULL;
    lj_code code = lj_aws_provider_new(options, &provider, err);
    assert_null(provider);
    assert_int_equal(code, err->code);
    return code;
}

/* The credentials that come out without a request; NULL for `session`: none. */
static void expect_keys(const lj_aws_options *options, const char *id, const char *secret,
                        const char *session)
{
    lj_error err = LJ_ERROR_INIT;
    lj_aws_provider *provider = NULL;
    assert_ok(lj_aws_provider_new(options, &provider, &err), &err);
    lj_token token = LJ_TOKEN_INIT;
    assert_ok(lj_token_get(lj_aws_provider_token(provider), &token, &err), &err);
    assert_string_equal(lj_secret_text(&token.values[LJ_AWS_KEY_ID]), id);
    assert_string_equal(lj_secret_text(&token.values[LJ_AWS_SECRET_KEY]), secret);
    assert_string_equal(lj_secret_text(&token.values[LJ_AWS_SESSION_TOKEN]),
                        session != NULL ? session : "");
    lj_token_free(&token);
    lj_aws_provider_free(provider);
}

/* What is decided; freed by lj_aws_source_free. */
static lj_aws_source *decide(const lj_aws_options *options)
{
    lj_error err = LJ_ERROR_INIT;
    lj_aws_source *source = calloc(1, sizeof(*source));
    char *region = NULL;
    assert_non_null(source);
    assert_ok(lj_aws_chain_decide(options, source, &region, &err), &err);
    free(region);
    return source;
}

static const lj_aws_options none = {.profile = NULL};

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

/* ---- roles ---- */

static void expect_role(const lj_aws_role *role, const char *arn, const char *session,
                        const char *external, uint64_t duration_s)
{
    assert_string_equal(role->arn, arn);
    assert_true(lj_str_eq(role->session_name, session));
    assert_true(lj_str_eq(role->external_id, external));
    assert_int_equal(role->duration_s, duration_s);
}

static void test_roles_in_a_row(void **state)
{
    (void)state;
    write_file("config", "[default]\nrole_arn = arn:c\nsource_profile = b\nexternal_id = e\n"
                         "role_session_name = s\nduration_seconds = 900\n"
                         "[profile b]\nrole_arn = arn:b\nsource_profile = a\n");
    write_file("credentials", "[a]\naws_access_key_id = A\naws_secret_access_key = a\n");
    lj_aws_source *source = decide(&none);
    assert_int_equal(source->kind, LJ_AWS_FILES);
    assert_string_equal(source->profile, "a");
    assert_int_equal(source->role_count, 2);
    expect_role(&source->roles[0], "arn:b", NULL, NULL, 0);
    expect_role(&source->roles[1], "arn:c", "s", "e", 900);
    lj_aws_source_free(source);
}

static void test_a_role_by_the_keys_of_its_own_profile(void **state)
{
    (void)state;
    write_file("config", "[default]\nrole_arn = arn:r\nsource_profile = default\n");
    write_file("credentials", "[default]\naws_access_key_id = A\naws_secret_access_key = a\n");
    lj_aws_source *source = decide(&none);
    assert_int_equal(source->kind, LJ_AWS_FILES);
    assert_int_equal(source->role_count, 1);
    expect_role(&source->roles[0], "arn:r", NULL, NULL, 0);
    lj_aws_source_free(source);
}

static void test_where_a_role_gets_its_first_credentials(void **state)
{
    (void)state;
    write_file("config",
               "[default]\nrole_arn = arn:r\ncredential_source = Environment\n"
               "[profile ec2]\nrole_arn = arn:r\ncredential_source = Ec2InstanceMetadata\n"
               "[profile ecs]\nrole_arn = arn:r\ncredential_source = EcsContainer\n"
               "[profile web]\nrole_arn = arn:w\nweb_identity_token_file = /t\n"
               "[profile after]\nrole_arn = arn:r\nsource_profile = web\n"
               "[profile process]\ncredential_process = tool\nregion = eu-north-1\n");
    lj_aws_options profile = {.profile = "default"};
    env("AWS_ACCESS_KEY_ID", "ENVID");
    env("AWS_SECRET_ACCESS_KEY", "envsecret");
    lj_aws_source *source = decide(&profile);
    assert_int_equal(source->kind, LJ_AWS_STATIC);
    assert_int_equal(source->role_count, 1);
    lj_aws_source_free(source);
    profile.profile = "ec2";
    source = decide(&profile);
    assert_int_equal(source->kind, LJ_AWS_IMDS);
    assert_false(source->nothing_configured);
    assert_int_equal(source->role_count, 1);
    lj_aws_source_free(source);
    env("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/x");
    profile.profile = "ecs";
    source = decide(&profile);
    assert_int_equal(source->kind, LJ_AWS_CONTAINER);
    assert_string_equal(source->url, "http://169.254.170.2/v2/x");
    lj_aws_source_free(source);
    profile.profile = "after";
    source = decide(&profile);
    assert_int_equal(source->kind, LJ_AWS_WEB_IDENTITY);
    assert_string_equal(source->token_file, "/t");
    expect_role(&source->web_role, "arn:w", NULL, NULL, 0);
    assert_int_equal(source->role_count, 1);
    lj_aws_source_free(source);
    profile.profile = "process";
    source = decide(&profile);
    assert_int_equal(source->kind, LJ_AWS_PROCESS);
    assert_string_equal(source->command, "tool");
    assert_string_equal(source->region, "eu-north-1");
    lj_aws_source_free(source);
}

static void test_profiles_that_lead_nowhere(void **state)
{
    (void)state;
    const struct {
        const char *config;
        lj_code code;
        const char *message;
    } cases[] = {
        {"[default]\nrole_arn = r\nsource_profile = b\n[profile b]\nrole_arn = r\nsource_profile = "
         "default\n",
         LJ_INVALID,
         "AWS profile default: its source_profile leads back to it, and it has no keys"},
        {"[default]\nrole_arn = r\nsource_profile = b\n[profile b]\nregion = eu\n", LJ_INVALID,
         "AWS profile b: is a source_profile, but has no credentials"},
        {"[default]\nsource_profile = b\n", LJ_INVALID,
         "AWS profile default: source_profile without role_arn"},
        {"[default]\nrole_arn = r\nsource_profile = b\ncredential_source = Environment\n",
         LJ_INVALID,
         "AWS profile default: only one of source_profile, credential_source, credential_process "
         "and web_identity_token_file can be there"},
        {"[default]\nrole_arn = r\ncredential_source = Env\n", LJ_INVALID,
         "AWS profile default: credential_source is none of Environment, Ec2InstanceMetadata and "
         "EcsContainer"},
        {"[default]\nrole_arn = r\ncredential_source = EcsContainer\n", LJ_INVALID,
         "AWS profile default: credential_source is EcsContainer, but neither "
         "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI nor AWS_CONTAINER_CREDENTIALS_FULL_URI is set"},
        {"[default]\nrole_arn = r\ncredential_source = Environment\n", LJ_INVALID,
         "AWS profile default: credential_source is Environment, but AWS_ACCESS_KEY_ID is not set"},
        {"[default]\nrole_arn = r\naws_access_key_id = A\naws_secret_access_key = a\n"
         "duration_seconds = 60\n",
         LJ_INVALID, "AWS profile default: duration_seconds is not a number from 900 to 43200"},
        {"[default]\nrole_arn = r\naws_access_key_id = A\naws_secret_access_key = a\n"
         "mfa_serial = m\n",
         LJ_UNSUPPORTED, "AWS profile default: mfa_serial wants a person to type"},
        {"[default]\nsso_session = s\nsso_account_id = 1\n[sso-session s]\nsso_start_url = u\n",
         LJ_UNSUPPORTED, "AWS profile default: a login by browser (SSO) is not supported"},
    };
    for (size_t i = 0; i < LJ_ARRAY_LEN(cases); i++) {
        lj_error err = LJ_ERROR_INIT;
        write_file("config", cases[i].config);
        assert_int_equal(refuse(&none, &err), cases[i].code);
        assert_string_equal(err.message, cases[i].message);
    }
    lj_error err = LJ_ERROR_INIT;
    (void)refuse(&none, &err);
    assert_non_null(strstr(err.hint, "aws configure export-credentials --profile default"));
}

static void test_a_row_of_roles_has_an_end(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    char text[2048] = "[default]\nrole_arn = r\nsource_profile = p1\n";
    for (int i = 1; i <= 9; i++) {
        size_t len = strlen(text);
        snprintf(text + len, sizeof(text) - len,
                 "[profile p%d]\nrole_arn = r\nsource_profile = p%d\n", i, i + 1);
    }
    write_file("config", text);
    assert_int_equal(refuse(&none, &err), LJ_INVALID);
    assert_string_equal(err.message, "AWS profile default: more than 8 roles in a row");
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

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

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
        TEST(test_roles_in_a_row),
        TEST(test_a_role_by_the_keys_of_its_own_profile),
        TEST(test_where_a_role_gets_its_first_credentials),
        TEST(test_profiles_that_lead_nowhere),
        TEST(test_a_row_of_roles_has_an_end),
        TEST(test_container_and_instance),
        TEST(test_a_container_uri_may_not_lead_away),
        TEST(test_region),
        TEST(test_web_identity_needs_its_role),
        TEST(test_the_same_setup_is_one_source),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
