/*
 * fuzz_answer.c - what a server says about its answer: headers, dates and Retry-After, and its words in our errors. A date that is
 * taken is written the same way again.
 */
#include "test/fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "vfs/base/clock.h"
#include "vfs/storage/http/http.h"

#define RETRY_AFTER_MAX_NS (3600 * LJ_NS_PER_S)

static void check_date(const char *text)
{
    int64_t ns = -1;
    if (!lj_http_date(text, &ns)) {
        FUZZ_CHECK(ns == -1);
        return;
    }
    char again[32];
    FUZZ_CHECK(ns >= 0 && ns % LJ_NS_PER_S == 0);
    lj_http_date_format(ns, again);
    FUZZ_CHECK(strcmp(again, text) == 0);
}

static void check_headers(lj_http_response *response)
{
    static const char *const names[] = {"etag", "retry-after", "x", "", "content-length"};
    char value[24];
    for (size_t i = 0; i < LJ_ARRAY_LEN(names); i++) {
        memset(value, 'z', sizeof(value));
        if (lj_http_header(response, names[i], value, sizeof(value)))
            FUZZ_CHECK(memchr(value, 0, sizeof(value)) != NULL && strchr(value, '\n') == NULL);
        else
            FUZZ_CHECK(value[0] == 'z');
    }
    int64_t wait_ns = lj_http_retry_after_ns(response);
    FUZZ_CHECK(wait_ns >= 0 && wait_ns <= RETRY_AFTER_MAX_NS);
}

static void check_error(lj_http_response *response, const char *detail)
{
    lj_error err = LJ_ERROR_INIT;
    for (response->status = 300; response->status < 600; response->status += 7) {
        lj_code code = lj_http_status_error(response, "GET host", detail, &err);
        FUZZ_CHECK(code != LJ_OK && err.code == code && err.http_status == response->status);
        for (const char *c = err.message; *c != 0; c++)
            FUZZ_CHECK((unsigned char)*c >= 0x20 && *c != 0x7f);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    lj_http_response response = LJ_HTTP_RESPONSE_INIT;
    char *text = malloc(size + 1);
    if (text == NULL)
        return 0;
    if (size > 0)
        memcpy(text, data, size);
    text[size] = 0;
    check_date(text);
    if (lj_buf_append(&response.headers, text, strlen(text), NULL) == LJ_OK) {
        check_headers(&response);
        check_error(&response, text);
    }
    lj_http_response_free(&response);
    free(text);
    return 0;
}
