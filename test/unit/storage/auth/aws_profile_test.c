/*
 * aws_profile_test.c - what is read out of the text of ~/.aws/config and ~/.aws/credentials.
 */
#include "test/unit/unit.h"

#include "vfs/base/str.h"
#include "vfs/storage/auth/aws_profile.h"

/* ---- kit ---- */

static void parse(lj_aws_file_kind kind, const char *text, const char *name, lj_aws_profile *out)
{
    lj_error err = LJ_ERROR_INIT;
    *out = (lj_aws_profile){.found = false};
    assert_ok(lj_aws_profile_parse("f", kind, text, strlen(text), name, out, &err), &err);
}

static void expect(const lj_aws_profile *profile, lj_aws_field field, const char *want)
{
    const char *got = lj_aws_profile_get(profile, field);
    if (want == NULL)
        assert_null(got);
    else if (got == NULL)
        fail_msg("%s: nothing, want %s", lj_aws_field_key(field), want);
    else
        assert_string_equal(got, want);
}

static void expect_text(lj_aws_file_kind kind, const char *text, const char *name,
                        lj_aws_field field, const char *want)
{
    lj_aws_profile profile;
    parse(kind, text, name, &profile);
    assert_true(profile.found);
    expect(&profile, field, want);
    lj_aws_profile_free(&profile);
}

static void expect_absent(lj_aws_file_kind kind, const char *text, const char *name)
{
    lj_aws_profile profile;
    parse(kind, text, name, &profile);
    assert_false(profile.found);
    lj_aws_profile_free(&profile);
}

static void expect_malformed(const char *text, size_t len, const char *message)
{
    lj_error err = LJ_ERROR_INIT;
    lj_aws_profile profile = {.found = false};
    assert_int_equal(
        lj_aws_profile_parse("f", LJ_AWS_CREDENTIALS_FILE, text, len, "default", &profile, &err),
        LJ_INVALID);
    assert_string_equal(err.message, message);
    assert_false(profile.found);
    for (size_t i = 0; i < LJ_AWS_FIELD_COUNT; i++)
        assert_false(lj_secret_is_set(&profile.values[i]));
}

#define CONFIG      LJ_AWS_CONFIG_FILE
#define CREDENTIALS LJ_AWS_CREDENTIALS_FILE
#define REGION      LJ_AWS_FIELD_REGION

/* ---- tests ---- */

static void test_sections(void **state)
{
    (void)state;
    const char *text = "[default]\nregion = one\n[profile a]\nregion = two\n[b]\nregion = three\n"
                       "[ profile \t c ]  # said\nregion = four\n[profile \"d e\"]\nregion = five\n"
                       "[sso-session a]\nregion = six\n[profiles]\nregion = seven\n";
    expect_text(CONFIG, text, "default", REGION, "one");
    expect_text(CONFIG, text, "a", REGION, "two");
    expect_absent(CONFIG, text, "b"); /* needs the word in this file */
    expect_text(CONFIG, text, "c", REGION, "four");
    expect_text(CONFIG, text, "d e", REGION, "five");
    expect_absent(CONFIG, text, "A");
    expect_absent(CONFIG, text, "s");
    expect_text(CREDENTIALS, text, "b", REGION, "three");
    expect_absent(CREDENTIALS, text, "a"); /* must not have it in this one */
    expect_absent(CREDENTIALS, "", "default");
    /* [profile default] beats [default], wherever they stand */
    expect_text(CONFIG, "[profile default]\nregion = x\n[default]\nregion = y\n", "default", REGION,
                "x");
    expect_text(CONFIG, "[default]\nregion = y\n[profile default]\noutput = json\n", "default",
                REGION, NULL);
}

static void test_a_section_that_is_there_twice_is_one(void **state)
{
    (void)state;
    const char *text = "[x]\naws_access_key_id = A\nregion = one\n[y]\nregion = two\n[x]\n"
                       "region = three\naws_secret_access_key = S\n";
    expect_text(CREDENTIALS, text, "x", LJ_AWS_FIELD_ACCESS_KEY_ID, "A");
    expect_text(CREDENTIALS, text, "x", LJ_AWS_FIELD_SECRET_ACCESS_KEY, "S");
    expect_text(CREDENTIALS, text, "x", REGION, "three");
}

static void test_lines(void **state)
{
    (void)state;
    const struct {
        const char *line;
        const char *want;
    } lines[] = {
        {"region=eu", "eu"},
        {"region   =   eu  \t\r", "eu"},
        {"Region = eu", "eu"},
        {"region: eu", "eu"},
        {"region = a=b:c", "a=b:c"},
        {"region = eu # said", "eu"},
        {"region = eu\t;said", "eu"},
        {"region = a#b;c", "a#b;c"},
        {"region = # all of it", NULL},
        {"region = \"eu\"", "eu"},
        {"region = 'eu'", "eu"},
        {"region = \"eu", "\"eu"},
        {"region = \"\"", "\"\""},
        {"# region = eu", NULL},
        {"; region = eu", NULL},
        {"  # region = eu", NULL},
        {"region =", NULL},
        {"   region = eu", "eu"}, /* the first line of a section may stand anywhere */
        {"region = one\nregion = two", "two"},
        {"region = one\nregion =", NULL},
        {"regions = eu", NULL},
    };
    for (size_t i = 0; i < LJ_ARRAY_LEN(lines); i++) {
        char text[128];
        snprintf(text, sizeof(text), "[default]\n%s\n", lines[i].line);
        expect_text(CREDENTIALS, text, "default", REGION, lines[i].want);
        snprintf(text, sizeof(text), "\xef\xbb\xbf[default]\r\n\r\n%s", lines[i].line);
        expect_text(CONFIG, text, "default", REGION, lines[i].want);
    }
}

static void test_indented_lines(void **state)
{
    (void)state;
    const char *text = "[default]\ncredential_process = one \\\n  two\n\tthree=3 # kept\n\n"
                       "s3 =\n  region = nested\n  addressing_style = path\nregion = eu\n"
                       "output = json\n  region = of the output\n";
    expect_text(CONFIG, text, "default", LJ_AWS_FIELD_CREDENTIAL_PROCESS,
                "one \\\ntwo\nthree=3 # kept");
    expect_text(CONFIG, text, "default", REGION, "eu");
}

static void test_quotes_of_a_command_are_the_shells(void **state)
{
    (void)state;
    expect_text(CONFIG, "[default]\ncredential_process = \"/opt/my tool\"\n", "default",
                LJ_AWS_FIELD_CREDENTIAL_PROCESS, "\"/opt/my tool\"");
}

static void test_what_is_before_the_first_section_is_ignored(void **state)
{
    (void)state;
    expect_text(CONFIG, "region = one\n[default]\noutput = json\n", "default", REGION, NULL);
}

static void test_malformed_text(void **state)
{
    (void)state;
    const struct {
        const char *text;
        const char *message;
    } texts[] = {
        {"[default\nregion = eu\n", "f:1: a section without ']'"},
        {"[a]\n\n[]\n", "f:3: a section without a name"},
        {"[a]\n[b] c\n", "f:2: text behind a section's ']'"},
        {"[a]\nSECRETKEYWITHOUTNAME\n", "f:2: neither a section nor name = value"},
        {"[a]\n = value\n", "f:2: a value without a name"},
    };
    for (size_t i = 0; i < LJ_ARRAY_LEN(texts); i++)
        expect_malformed(texts[i].text, strlen(texts[i].text), texts[i].message);
    expect_malformed("[a]\0", 4, "f: not a text file");
}

static void test_values_have_a_limit(void **state)
{
    (void)state;
    size_t size = LJ_AWS_VALUE_MAX + 64;
    char *text = malloc(size);
    assert_non_null(text);
    int n = snprintf(text, size, "[default]\nregion=");
    memset(text + n, 'x', LJ_AWS_VALUE_MAX + 1);
    expect_malformed(text, (size_t)n + LJ_AWS_VALUE_MAX + 1, "f:2: a value of more than 16 KiB");
    lj_error err = LJ_ERROR_INIT;
    lj_aws_profile profile = {.found = false};
    assert_ok(lj_aws_profile_parse("f", CREDENTIALS, text, (size_t)n + LJ_AWS_VALUE_MAX, "default",
                                   &profile, &err),
              &err);
    assert_int_equal(strlen(lj_aws_profile_get(&profile, REGION)), LJ_AWS_VALUE_MAX);
    lj_aws_profile_free(&profile);
    /* the same in pieces */
    memcpy(text + n + LJ_AWS_VALUE_MAX, "\n x", 3);
    expect_malformed(text, (size_t)n + LJ_AWS_VALUE_MAX + 3, "f:3: a value of more than 16 KiB");
    free(text);
}

static void test_merging(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    lj_aws_profile profile;
    lj_aws_profile credentials;
    parse(CONFIG,
          "[default]\nregion = eu\naws_access_key_id = C\naws_secret_access_key = cs\n"
          "aws_session_token = ct\nrole_arn = r\n",
          "default", &profile);
    parse(CREDENTIALS, "[default]\naws_access_key_id = K\naws_secret_access_key = ks\n", "default",
          &credentials);
    assert_ok(lj_aws_profile_merge(&profile, &credentials, &err), &err);
    expect(&profile, LJ_AWS_FIELD_ACCESS_KEY_ID, "K");
    expect(&profile, LJ_AWS_FIELD_SECRET_ACCESS_KEY, "ks");
    expect(&profile, LJ_AWS_FIELD_SESSION_TOKEN, NULL); /* it belonged to the other pair */
    expect(&profile, REGION, "eu");
    expect(&profile, LJ_AWS_FIELD_ROLE_ARN, "r");
    lj_aws_profile_free(&credentials);
    lj_aws_profile_free(&profile);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sections),
        cmocka_unit_test(test_a_section_that_is_there_twice_is_one),
        cmocka_unit_test(test_lines),
        cmocka_unit_test(test_indented_lines),
        cmocka_unit_test(test_quotes_of_a_command_are_the_shells),
        cmocka_unit_test(test_what_is_before_the_first_section_is_ignored),
        cmocka_unit_test(test_malformed_text),
        cmocka_unit_test(test_values_have_a_limit),
        cmocka_unit_test(test_merging),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
