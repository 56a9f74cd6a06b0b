/*
 * fuzz_absxml.c - answers of Azure Blob storage: any bytes give a page or LJ_CORRUPT, the same one however they are cut into
 * pieces, and what a page holds is well-formed; any error answer gives a short line of text.
 */
#include "test/fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "vfs/storage/abs/xml.h"

static lj_code parse(const uint8_t *data, size_t size, size_t step, lj_abs_page *page)
{
    lj_error err = LJ_ERROR_INIT;
    lj_abs_list_parser *parser = NULL;
    lj_code code = lj_abs_list_parser_new(page, &parser, &err);
    FUZZ_CHECK(code == LJ_OK);
    lj_sink sink = lj_abs_list_parser_sink(parser);
    for (size_t at = 0; at < size && code == LJ_OK; at += step)
        code = sink.write(sink.ctx, data + at, LJ_MIN(step, size - at), &err);
    if (code == LJ_OK)
        code = lj_abs_list_parser_finish(parser, &err);
    FUZZ_CHECK(code == LJ_OK || (code == LJ_CORRUPT && err.code == code && err.retryable));
    lj_abs_list_parser_free(parser);
    return code;
}

static void check_page(const lj_abs_page *page)
{
    size_t bytes = 0;
    for (size_t i = 0; i < lj_abs_page_count(page); i++) {
        const char *name = NULL;
        const lj_abs_entry *entry = lj_abs_page_entry(page, i, &name);
        FUZZ_CHECK(entry->name_at == bytes && name[0] != 0 && entry->created_ns > 0);
        bytes += strlen(name) + 1;
    }
    FUZZ_CHECK(bytes == page->names.len);
}

static void check_line(const char *text, size_t size)
{
    FUZZ_CHECK(strnlen(text, size) < size);
    for (; *text != 0; text++)
        FUZZ_CHECK((unsigned char)*text >= 0x20);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    lj_abs_page whole = LJ_ABS_PAGE_INIT;
    lj_abs_page pieces = LJ_ABS_PAGE_INIT;
    lj_code code = parse(data, size, size + 1, &whole);
    FUZZ_CHECK(parse(data, size, 3, &pieces) == code);
    if (code == LJ_OK) {
        check_page(&whole);
        FUZZ_CHECK(whole.names.len == pieces.names.len);
        FUZZ_CHECK(whole.entries.len == pieces.entries.len);
        FUZZ_CHECK(strcmp(lj_buf_text(&whole.marker), lj_buf_text(&pieces.marker)) == 0);
    }
    lj_abs_page_free(&whole);
    lj_abs_page_free(&pieces);

    char error_code[LJ_ABS_CODE_MAX];
    char message[LJ_ABS_MESSAGE_MAX];
    lj_abs_parse_error(size > 0 ? (const char *)data : "", size, error_code, message);
    check_line(error_code, sizeof(error_code));
    check_line(message, sizeof(message));
    return 0;
}
