/* xml_test.c - pages of listings and errors, as Azure and others write them. */
#include "test/unit/unit.h"

#include "vfs/base/str.h"
#include "vfs/storage/abs/xml.h"

#define BEGIN                                                                                      \
    "\xEF\xBB\xBF<?xml version=\"1.0\" encoding=\"utf-8\"?><EnumerationResults "                   \
    "ServiceEndpoint=\"https://a.blob.core.windows.net/\" ContainerName=\"c\"><Prefix>p/</Prefix>" \
    "<MaxResults>2</MaxResults><Blobs>"
#define END                    "</Blobs><NextMarker /></EnumerationResults>"
#define CREATED                "<Creation-Time>Sun, 06 Nov 1994 08:49:37 GMT</Creation-Time>"
#define MODIFIED               "<Last-Modified>Mon, 07 Nov 1994 08:49:37 GMT</Last-Modified>"
#define SIZE                   "<Content-Length>42</Content-Length>"
#define NAME                   "<Name>p/a</Name>"
#define BLOB(name, properties) "<Blob>" name "<Properties>" properties "</Properties></Blob>"

#define CREATED_NS  (INT64_C(784111777) * LJ_NS_PER_S)
#define MODIFIED_NS (CREATED_NS + 86400 * LJ_NS_PER_S)

/* In pieces of `step` bytes, as they may come from a socket. */
static lj_code parse(const char *text, size_t step, lj_abs_page *page, lj_error *err)
{
    lj_abs_list_parser *parser = NULL;
    assert_ok(lj_abs_list_parser_new(page, &parser, err), err);
    lj_sink sink = lj_abs_list_parser_sink(parser);
    lj_code code = LJ_OK;
    for (size_t at = 0, len = strlen(text); at < len && code == LJ_OK; at += step)
        code = sink.write(sink.ctx, text + at, LJ_MIN(step, len - at), err);
    if (code == LJ_OK)
        code = lj_abs_list_parser_finish(parser, err);
    lj_abs_list_parser_free(parser);
    return code;
}

static void a_page(void **state)
{
    (void)state;
    static const char text[] = BEGIN
        "<Blob><Name>p/a &amp; b</Name><Snapshot></Snapshot><Properties>" CREATED MODIFIED
        "<Etag>0x8D</Etag>" SIZE "<Content-Type>application/octet-stream</Content-Type>"
        "<BlobType>BlockBlob</BlobType></Properties><Metadata><Name>x</Name></Metadata></Blob>"
        "<BlobPrefix><Name>p/not/a/blob/</Name></BlobPrefix>" BLOB(
            "<Name Encoded=\"true\">p%2F%EF%BF%BE</Name>", MODIFIED SIZE)
            BLOB("<Name>p/dir</Name>", CREATED "<ResourceType>directory</ResourceType>")
                BLOB("<Name>p/100%</Name>", CREATED "<Content-Length>0</Content-Length>")
                    BLOB("<Name>p/old</Name><Snapshot>2024-01-01T00:00:00.0000000Z</Snapshot>",
                         CREATED SIZE) "</Blobs><NextMarker>2!76!MDAw&lt;</NextMarker>"
                                       "</EnumerationResults>";
    for (size_t step = 1; step < 200; step += 33) {
        lj_error err = LJ_ERROR_INIT;
        LJ_CLEANUP(lj_abs_page_free) lj_abs_page page = LJ_ABS_PAGE_INIT;
        assert_ok(parse(text, step, &page, &err), &err);
        assert_int_equal(lj_abs_page_count(&page), 3);
        const char *name = NULL;
        const lj_abs_entry *entry = lj_abs_page_entry(&page, 0, &name);
        assert_string_equal(name, "p/a & b");
        assert_int_equal(entry->size_bytes, 42);
        assert_int_equal(entry->created_ns, CREATED_NS);
        entry = lj_abs_page_entry(&page, 1, &name);
        assert_string_equal(name, "p/\xEF\xBF\xBE");
        assert_int_equal(entry->created_ns, MODIFIED_NS);
        entry = lj_abs_page_entry(&page, 2, &name);
        assert_string_equal(name, "p/100%");
        assert_int_equal(entry->size_bytes, 0);
        assert_string_equal(lj_buf_text(&page.marker), "2!76!MDAw<");
    }
}

static void empty_pages(void **state)
{
    (void)state;
    static const char *const texts[] = {
        BEGIN END, "<EnumerationResults/>", "<EnumerationResults><Blobs/></EnumerationResults>",
        "<EnumerationResults><Blobs/><NextMarker></NextMarker><Other><Blobs><Blob/></Blobs></Other>"
        "</EnumerationResults>"};
    for (size_t i = 0; i < LJ_ARRAY_LEN(texts); i++) {
        lj_error err = LJ_ERROR_INIT;
        LJ_CLEANUP(lj_abs_page_free) lj_abs_page page = LJ_ABS_PAGE_INIT;
        assert_ok(parse(texts[i], 7, &page, &err), &err);
        assert_int_equal(lj_abs_page_count(&page), 0);
        assert_string_equal(lj_buf_text(&page.marker), "");
    }
}

/* Never an empty list instead of an error, and never a blob of which something is made up. */
static void bad_pages(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *says;
    } rows[] = {
        {"", "is damaged"},
        {"x", "is damaged"},
        {"{\"a\": 1}", "is damaged"},
        {BEGIN, "is damaged"},
        {BEGIN "</Blobs>", "is damaged"},
        {BEGIN END "<x/>", "is damaged"},
        {BEGIN "<Blob></Blobs>", "is damaged"},
        {"<html><body>no</body></html>", "not that of a listing"},
        {"<Error><Code>x</Code></Error>", "not that of a listing"},
        {"<!DOCTYPE EnumerationResults [<!ENTITY x \"y\">]><EnumerationResults/>", "document type"},
        {BEGIN BLOB("", CREATED SIZE) END, "without a name"},
        {BEGIN BLOB("<Name/>", CREATED SIZE) END, "without a name"},
        {BEGIN BLOB(NAME, CREATED) END, "without a Content-Length"},
        {BEGIN BLOB(NAME, CREATED "<Content-Length/>") END, "without a Content-Length"},
        {BEGIN BLOB(NAME, CREATED "<Content-Length>-1</Content-Length>") END, "no number"},
        {BEGIN BLOB(NAME, CREATED "<Content-Length>99999999999999999999</Content-Length>") END,
         "no number"},
        {BEGIN BLOB(NAME, SIZE) END, "without a Creation-Time"},
        {BEGIN BLOB(NAME, SIZE "<Creation-Time>yesterday</Creation-Time>") END, "a time that is"},
        {BEGIN "<Blob>" NAME "</Blob>" END, "without a Content-Length"},
        {BEGIN BLOB("<Name Encoded=\"true\">p/%G0</Name>", CREATED SIZE) END, "not well encoded"},
        {BEGIN BLOB("<Name Encoded=\"true\">p/%00</Name>", CREATED SIZE) END, "not well encoded"},
        {BEGIN BLOB("<Name>p/<b/>x</Name>", CREATED SIZE) END, "where a text belongs"},
        {"<EnumerationResults><a><a><a><a><a><a><a><a><a><a><a><a><a><a><a><a><a>", "too deeply"},
    };
    for (size_t i = 0; i < LJ_ARRAY_LEN(rows); i++) {
        for (size_t step = 1; step < 2000; step += 1001) {
            lj_error err = LJ_ERROR_INIT;
            LJ_CLEANUP(lj_abs_page_free) lj_abs_page page = LJ_ABS_PAGE_INIT;
            lj_code code = parse(rows[i].text, step, &page, &err);
            if (code != LJ_CORRUPT || strstr(err.message, rows[i].says) == NULL)
                fail_msg("%s: %s: %s", rows[i].text, lj_code_text(code), err.message);
            assert_true(err.retryable);
        }
    }
}

static void too_long_a_name(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    LJ_CLEANUP(lj_freep) char *name = malloc(LJ_ABS_XML_TEXT_MAX + 2);
    assert_non_null(name);
    memset(name, 'n', LJ_ABS_XML_TEXT_MAX + 1);
    name[LJ_ABS_XML_TEXT_MAX + 1] = 0;
    LJ_CLEANUP(lj_abs_page_free) lj_abs_page page = LJ_ABS_PAGE_INIT;
    LJ_CLEANUP(lj_freep)
    char *text = lj_str_printf(BEGIN "<Blob><Name>%s</Name></Blob>" END, name);
    assert_int_equal(parse(text, 4096, &page, &err), LJ_CORRUPT);
    assert_non_null(strstr(err.message, "too long"));
}

static void a_parser_that_failed_goes_on_failing(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    lj_abs_list_parser *parser = NULL;
    LJ_CLEANUP(lj_abs_page_free) lj_abs_page page = LJ_ABS_PAGE_INIT;
    assert_ok(lj_abs_list_parser_new(&page, &parser, &err), &err);
    lj_sink sink = lj_abs_list_parser_sink(parser);
    assert_int_equal(sink.write(sink.ctx, "<x>", 3, &err), LJ_CORRUPT);
    assert_int_equal(sink.write(sink.ctx, "</x>", 4, &err), LJ_CORRUPT);
    assert_int_equal(lj_abs_list_parser_finish(parser, &err), LJ_CORRUPT);
    lj_abs_list_parser_free(parser);
}

static void errors(void **state)
{
    (void)state;
    static const struct {
        const char *body;
        const char *code;
        const char *message;
    } rows[] = {
        {"\xEF\xBB\xBF<?xml version=\"1.0\" encoding=\"utf-8\"?><Error><Code>BlobNotFound</Code>"
         "<Message>The blob is not there.\nRequestId:1\nTime:2</Message></Error>",
         "BlobNotFound", "The blob is not there."},
        {"<Error><Message>a\tb&#13;c</Message><Code>X</Code><Detail><Code>Y</Code></Detail></"
         "Error>",
         "X", "a b c"},
        {"<Error><Code>X</Code><Message>half", "X", "half"},
        {"<Error><Code/></Error>", "", ""},
        {"<html><Code>X</Code></html>", "", ""},
        {"<!DOCTYPE x [<!ENTITY e \"f\">]><Error><Code>&e;</Code></Error>", "", ""},
        {"not XML", "", ""},
        {"", "", ""},
    };
    for (size_t i = 0; i < LJ_ARRAY_LEN(rows); i++) {
        char code[LJ_ABS_CODE_MAX];
        char message[LJ_ABS_MESSAGE_MAX];
        lj_abs_parse_error(rows[i].body, strlen(rows[i].body), code, message);
        assert_string_equal(code, rows[i].code);
        assert_string_equal(message, rows[i].message);
    }
    char code[LJ_ABS_CODE_MAX];
    char message[LJ_ABS_MESSAGE_MAX];
    LJ_CLEANUP(lj_freep) char *much = lj_str_printf("<Error><Code>%0500d</Code></Error>", 7);
    lj_abs_parse_error(much, strlen(much), code, message);
    assert_int_equal(strlen(code), LJ_ABS_CODE_MAX - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_page),
        cmocka_unit_test(empty_pages),
        cmocka_unit_test(bad_pages),
        cmocka_unit_test(too_long_a_name),
        cmocka_unit_test(a_parser_that_failed_goes_on_failing),
        cmocka_unit_test(errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
