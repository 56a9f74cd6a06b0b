/*
 * fuzz_gcsjson.c - what GCS and Google's token services answer, and credentials files: any bytes give a result within its limits,
 * or an error of the promised kind. The first byte of an input says which parser gets the rest.
 */
#include "test/fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "vfs/base/str.h"
#include "vfs/storage/auth/google_internal.h"
#include "vfs/storage/gcs/internal.h"

static lj_code on_item(void *ctx, const char *name, const lj_gcs_object *object, lj_error *err)
{
    FUZZ_CHECK(name != NULL && object->size_bytes <= INT64_MAX);
    size_t *left = ctx;
    return --*left == 0 ? lj_error_set(err, LJ_BUSY, "enough") : LJ_OK;
}

static void fuzz_page(const char *text, size_t len)
{
    lj_error err = LJ_ERROR_INIT;
    char *token = NULL;
    size_t left = 3;
    lj_code code = lj_gcs_page_parse(text, len, on_item, &left, &token, &err);
    FUZZ_CHECK(code == LJ_OK || code == LJ_CORRUPT || (code == LJ_BUSY && left == 0));
    FUZZ_CHECK(token == NULL ||
               (code == LJ_OK && token[0] != 0 && strlen(token) <= LJ_GCS_PAGE_TOKEN_MAX));
    free(token);
}

static void fuzz_object(const char *text, size_t len)
{
    lj_error err = LJ_ERROR_INIT;
    lj_gcs_object object = {.size_bytes = UINT64_MAX};
    lj_code code = lj_gcs_object_parse(text, len, true, &object, &err);
    FUZZ_CHECK((code == LJ_OK && object.size_bytes <= INT64_MAX) ||
               (code == LJ_CORRUPT && err.retryable && object.size_bytes == UINT64_MAX));
}

static void fuzz_refusal(const char *text, size_t len)
{
    char shown[240];
    lj_gcs_refusal refusal;
    lj_gcs_refusal_parse(text, len, &refusal);
    FUZZ_CHECK(strlen(refusal.reason) < sizeof(refusal.reason));
    FUZZ_CHECK(strlen(refusal.message) < sizeof(refusal.message));
    for (const char *c = refusal.message; *c != 0; c++)
        FUZZ_CHECK((unsigned char)*c >= 0x20);
    lj_google_refusal_text(text, len, shown, sizeof(shown));
    FUZZ_CHECK(strlen(shown) < sizeof(shown));
}

static void fuzz_token(const char *text, size_t len)
{
    lj_error err = LJ_ERROR_INIT;
    lj_token token = LJ_TOKEN_INIT;
    lj_code code = lj_google_answer_parse(text, len, LJ_NS_PER_S, &token, &err);
    FUZZ_CHECK(code == LJ_OK || (code == LJ_CORRUPT && err.retryable));
    const char *bearer = lj_secret_text(&token.values[LJ_GOOGLE_BEARER]);
    FUZZ_CHECK((code == LJ_OK) == (bearer[0] != 0));
    FUZZ_CHECK(strpbrk(bearer, " \r\n\t") == NULL);
    lj_token_free(&token);
}

static void fuzz_file(const char *text, size_t len)
{
    lj_error err = LJ_ERROR_INIT;
    lj_google_file file;
    lj_code code = lj_google_file_parse(text, len, &file, &err);
    FUZZ_CHECK(code == LJ_OK ||
               ((code == LJ_INVALID || code == LJ_UNSUPPORTED) && err.hint[0] != 0));
    if (code != LJ_OK)
        return;
    FUZZ_CHECK(!lj_secret_is_set(&file.token_url) ||
               lj_google_url_ok(lj_secret_text(&file.token_url)));
    lj_google_file_free(&file);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static void (*const parsers[])(const char *, size_t) = {fuzz_page, fuzz_object, fuzz_refusal,
                                                            fuzz_token, fuzz_file};
    if (size == 0)
        return 0;
    /* '0' to '4' in the corpus */
    parsers[(uint8_t)(data[0] - '0') % LJ_ARRAY_LEN(parsers)]((const char *)data + 1, size - 1);
    return 0;
}
