/*
 * fuzz_awsanswer.c - what credential services answer, JSON and XML: any bytes give credentials that can stand in a header and have
 * not expired, or an error that may pass.
 */
#include "test/fuzz/fuzz.h"

#include "vfs/storage/auth/aws_internal.h"

static void check_token(const lj_token *token)
{
    FUZZ_CHECK(token->values[LJ_AWS_KEY_ID].len > 0 && token->values[LJ_AWS_SECRET_KEY].len > 0);
    for (size_t i = 0; i < LJ_TOKEN_VALUES; i++) {
        for (const char *c = lj_secret_text(&token->values[i]); *c != 0; c++)
            FUZZ_CHECK(*c > ' ' && *c <= '~');
    }
}

static void read_json(lj_aws_json_form form, const char *text, size_t size)
{
    lj_error err = LJ_ERROR_INIT;
    lj_token token = LJ_TOKEN_INIT;
    lj_code code = lj_aws_json_token("x", form, text, size, 0, &token, &err);
    FUZZ_CHECK(code == err.code);
    if (code == LJ_OK)
        check_token(&token);
    else
        FUZZ_CHECK((code == LJ_CORRUPT || code == LJ_DENIED) && err.retryable);
    lj_token_free(&token);
}

static void read_xml(const char *text, size_t size)
{
    lj_error err = LJ_ERROR_INIT;
    lj_aws_sts_answer answer = {.key_id = LJ_SECRET_NONE};
    lj_code code = lj_aws_sts_read(text, size, &answer, &err);
    FUZZ_CHECK(code == err.code);
    if (code != LJ_OK) {
        FUZZ_CHECK(code == LJ_CORRUPT && err.retryable);
        FUZZ_CHECK(!lj_secret_is_set(&answer.key_id) && !lj_secret_is_set(&answer.message));
    }
    lj_aws_sts_answer_free(&answer);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = size > 0 ? (const char *)data : "";
    read_json(LJ_AWS_JSON_PROCESS, text, size);
    read_json(LJ_AWS_JSON_CONTAINER, text, size);
    read_json(LJ_AWS_JSON_IMDS, text, size);
    read_xml(text, size);
    return 0;
}
