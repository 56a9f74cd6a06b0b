/*
 * fuzz_awsprofile.c - ~/.aws/config and ~/.aws/credentials: any bytes give a profile whose values are within their limit, or an
 * error that says where.
 */
#include "test/fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "vfs/storage/auth/aws_profile.h"

static void check_profile(const lj_aws_profile *profile)
{
    for (int i = 0; i < LJ_AWS_FIELD_COUNT; i++) {
        const lj_secret *value = &profile->values[i];
        FUZZ_CHECK(value->len <= LJ_AWS_VALUE_MAX);
        FUZZ_CHECK(!lj_secret_is_set(value) || profile->found);
        FUZZ_CHECK(!lj_secret_is_set(value) || strlen(value->bytes) == value->len);
    }
}

static void parse(lj_aws_file_kind kind, const char *name, const char *text, size_t size,
                  lj_aws_profile *ret_profile)
{
    lj_error err = LJ_ERROR_INIT;
    lj_code code = lj_aws_profile_parse("f", kind, text, size, name, ret_profile, &err);
    FUZZ_CHECK(code == err.code);
    if (code != LJ_OK) {
        FUZZ_CHECK(code == LJ_INVALID && strncmp(err.message, "f:", 2) == 0);
        FUZZ_CHECK(!ret_profile->found);
    }
    check_profile(ret_profile);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const names[] = {"default", "a"};
    const char *text = size > 0 ? (const char *)data : "";
    for (size_t i = 0; i < LJ_ARRAY_LEN(names); i++) {
        lj_error err = LJ_ERROR_INIT;
        lj_aws_profile profile = {.found = false};
        lj_aws_profile credentials = {.found = false};
        parse(LJ_AWS_CONFIG_FILE, names[i], text, size, &profile);
        parse(LJ_AWS_CREDENTIALS_FILE, names[i], text, size, &credentials);
        FUZZ_CHECK(lj_aws_profile_merge(&profile, &credentials, &err) == LJ_OK);
        check_profile(&profile);
        lj_aws_profile_free(&profile);
        lj_aws_profile_free(&credentials);
    }
    return 0;
}
