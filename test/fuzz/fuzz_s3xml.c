/*
 * fuzz_s3xml.c - answers of an S3 store: any bytes give a listing, results of a deletion or an error document, or are refused; and
 * a page that was read once gives the same keys again.
 */
#include "test/fuzz/fuzz.h"

#include <string.h>

#include "vfs/storage/s3/internal.h"
#include "vfs/storage/s3/listing.h"
#include "vfs/storage/s3/xml.h"

typedef struct {
    size_t keys;
    size_t bytes;
} tally;

static lj_code count_key(void *ctx, const lj_s3_listed *listed, lj_error *err)
{
    tally *t = ctx;
    (void)err;
    t->keys++;
    t->bytes += strlen(listed->key);
    FUZZ_CHECK(strlen(listed->key) <= LJ_S3_XML_TEXT_MAX);
    FUZZ_CHECK(listed->has_size || listed->size_bytes == 0);
    FUZZ_CHECK(listed->has_time || listed->created_ns == 0);
    return LJ_OK;
}

static lj_code count_result(void *ctx, const char *key, const char *code, const char *message,
                            lj_error *err)
{
    (void)err;
    (*(size_t *)ctx)++;
    FUZZ_CHECK(key != NULL && message != NULL &&
               (code == NULL || strlen(code) <= LJ_S3_XML_TEXT_MAX));
    return LJ_OK;
}

static void read_listing(const char *xml, size_t size)
{
    lj_error err = LJ_ERROR_INIT;
    static lj_s3_page page;
    memset(&page, 0x5a, sizeof(page));
    lj_code code = lj_s3_page_read(xml, size, &page, &err);
    if (code != LJ_OK) {
        FUZZ_CHECK(code == LJ_CORRUPT && err.retryable && err.message[0] != 0);
        FUZZ_CHECK(page.token[0] == 0x5a); /* untouched */
        return;
    }
    FUZZ_CHECK(memchr(page.token, 0, sizeof(page.token)) != NULL);
    FUZZ_CHECK(memchr(page.marker, 0, sizeof(page.marker)) != NULL);
    tally first = {.keys = 0};
    tally second = {.keys = 0};
    code = lj_s3_page_keys(xml, size, &page, count_key, &first, &err);
    FUZZ_CHECK(code == LJ_OK || code == LJ_CORRUPT);
    FUZZ_CHECK(lj_s3_page_keys(xml, size, &page, count_key, &second, &err) == code);
    FUZZ_CHECK(first.keys == second.keys && first.bytes == second.bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *xml = size > 0 ? (const char *)data : "";
    lj_error err = LJ_ERROR_INIT;
    lj_s3_answer answer;
    size_t results = 0;
    read_listing(xml, size);
    lj_code code = lj_s3_deleted_read(xml, size, count_result, &results, &err);
    FUZZ_CHECK(code == LJ_OK || code == LJ_CORRUPT);
    lj_s3_answer_read(xml, size, &answer);
    FUZZ_CHECK(strlen(answer.code) < sizeof(answer.code));
    for (const char *c = answer.message; *c != 0; c++)
        FUZZ_CHECK((unsigned char)*c >= 0x20 && *c != 0x7f);
    FUZZ_CHECK(answer.region[0] == 0 || lj_s3_region_valid(answer.region));
    return 0;
}
