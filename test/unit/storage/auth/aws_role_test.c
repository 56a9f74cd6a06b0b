/*
 * aws_role_test.c - profiles that lean on others: roles in a row, where they begin, rows that lead nowhere.
 */
#include "test/unit/storage/auth/aws_kit.h"

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_roles_in_a_row),
        TEST(test_a_role_by_the_keys_of_its_own_profile),
        TEST(test_where_a_role_gets_its_first_credentials),
        TEST(test_profiles_that_lead_nowhere),
        TEST(test_a_row_of_roles_has_an_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
