/* listing_test.c - the XML of listings and of bulk deletions, as Amazon and other stores write it and as none should. */
#include "test/unit/unit.h"

#include "vfs/base/buf.h"
#include "vfs/base/clock.h"
#include "vfs/base/str.h"
#include "vfs/storage/s3/listing.h"
#include "vfs/storage/s3/xml.h"

#define NS   " xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\""
#define HEAD "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
#define ENTRY                                                                                      \
    "<Contents><Key>a</Key><LastModified>2026-01-02T03:04:05.678Z</LastModified>"                  \
    "<ETag>&quot;x&quot;</ETag><Size>7</Size><StorageClass>STANDARD</StorageClass></Contents>"

/* "key size time;" of each entry, '-' for what is not there. */
static lj_code append_entry(void *ctx, const lj_s3_listed *listed, lj_error *err)
{
    char size[32] = "-";
    char time[LJ_CLOCK_TEXT_MAX] = "-";
    if (listed->has_size)
        snprintf(size, sizeof(size), "%llu", (unsigned long long)listed->size_bytes);
    if (listed->has_time)
        lj_clock_format_ns(listed->created_ns, time);
    return lj_buf_printf(ctx, err, "%s %s %s;", listed->key, size, time);
}

static lj_code read_all(const char *xml, lj_s3_page *page, lj_buf *out, lj_error *err)
{
    LJ_TRY(lj_s3_page_read(xml, strlen(xml), page, err));
    return lj_s3_page_keys(xml, strlen(xml), page, append_entry, out, err);
}

static void pages(void **state)
{
    (void)state;
    static const struct {
        const char *xml;
        const char *entries;
        bool truncated;
        const char *token;
        const char *marker;
    } rows[] = {
        {HEAD "<ListBucketResult" NS "><Name>b</Name><Prefix>p</Prefix><KeyCount>1</KeyCount>"
              "<MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated>" ENTRY "</ListBucketResult>",
         "a 7 2026-01-02T03:04:05.678000000Z;", false, "", ""},
        {HEAD "<ListBucketResult" NS "><IsTruncated>true</IsTruncated>"
              "<NextContinuationToken>1ueGcx+/= t</NextContinuationToken>" ENTRY
              "</ListBucketResult>",
         "a 7 2026-01-02T03:04:05.678000000Z;", true, "1ueGcx+/= t", ""},
        /* what is encoded may be said behind the keys; a plus is a blank */
        {"<ListBucketResult><Contents><Key>a%2Fb+c%2Bd%25%C3%A9</Key></Contents>"
         "<NextMarker>x%2Fy</NextMarker><IsTruncated>true</IsTruncated>"
         "<EncodingType>url</EncodingType></ListBucketResult>",
         "a/b c+d%\xC3\xA9 - -;", true, "", "x/y"},
        {"<ListBucketResult><Contents><Key>a%2Fb+c</Key></Contents></ListBucketResult>",
         "a%2Fb+c - -;", false, "", ""},
        /* markup within keys, white space around elements, prefixes of namespaces, elements nobody knows */
        {"  \n\t <s:ListBucketResult xmlns:s=\"urn:x\">\n <s:Contents>\n  "
         "<s:Key>a&amp;&lt;b&gt;</s:Key>\n"
         "  <s:Size>1</s:Size>\n </s:Contents>\n</s:ListBucketResult>\n",
         "a&<b> 1 -;", false, "", ""},
        {"<ListBucketResult><Contents><Owner><ID>1</ID><DisplayName>Key</DisplayName></Owner>"
         "<Key><![CDATA[<k>]]></Key><Size>0</Size><New><Key>no</Key></New></Contents>"
         "<CommonPrefixes><Prefix>z/</Prefix></CommonPrefixes></ListBucketResult>",
         "<k> 0 -;", false, "", ""},
        /* nothing of one entry goes to the next; an entry without a key is none */
        {"<ListBucketResult><Contents><Key>a</Key><Size>5</Size></Contents><Contents><Size>6</Size>"
         "</Contents><Contents><Key>b</Key></Contents></ListBucketResult>",
         "a 5 -;b - -;", false, "", ""},
        /* encoded keys that are none are passed over, and so is one with a NUL */
        {"<ListBucketResult><EncodingType>url</EncodingType><Contents><Key>a%2</Key></Contents>"
         "<Contents><Key>a%00b</Key></Contents><Contents><Key>c</Key></Contents></"
         "ListBucketResult>",
         "c - -;", false, "", ""},
        {"<ListBucketResult/>", "", false, "", ""},
        {"<ListBucketResult><Contents><Key></Key></Contents></ListBucketResult>", " - -;", false,
         "", ""},
    };
    for (size_t i = 0; i < LJ_ARRAY_LEN(rows); i++) {
        lj_error err = LJ_ERROR_INIT;
        lj_s3_page page;
        LJ_CLEANUP(lj_buf_free) lj_buf out = LJ_BUF_INIT(4096);
        if (read_all(rows[i].xml, &page, &out, &err) != LJ_OK)
            fail_msg("row %zu: %s", i, err.message);
        assert_string_equal(lj_buf_text(&out), rows[i].entries);
        assert_int_equal(page.truncated, rows[i].truncated);
        assert_string_equal(page.token, rows[i].token);
        assert_string_equal(page.marker, rows[i].marker);
    }
}

static void bad_pages(void **state)
{
    (void)state;
    static const char *const rows[] = {
        "",
        "   ",
        "{\"error\":1}",
        "<html><body>sign in</body></html>",
        "<ListBucketResult>",
        "<ListBucketResult><Contents><Key>a</Key></Contents>",
        "<ListBucketResult></ListBucketResult><x/>",
        "<Error><Code>NoSuchBucket</Code></Error>",
        "<!DOCTYPE r [<!ENTITY e \"x\">]><ListBucketResult><Contents><Key>&e;</Key></Contents>"
        "</ListBucketResult>",
        "<ListBucketResult><a><b><c><d><e><f><g><h/></g></f></e></d></c></b></a></"
        "ListBucketResult>",
        "<ListBucketResult><aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa/>"
        "</ListBucketResult>",
        "<ListBucketResult><Contents><Key>a</Key><Size>-1</Size></Contents></ListBucketResult>",
        "<ListBucketResult><Contents><Key>a</Key><Size>1e3</Size></Contents></ListBucketResult>",
        "<ListBucketResult><Contents><Key>a</Key><LastModified>now</LastModified></Contents>"
        "</ListBucketResult>",
        "<ListBucketResult><EncodingType>url</EncodingType><NextMarker>%zz</NextMarker>"
        "</ListBucketResult>",
    };
    for (size_t i = 0; i < LJ_ARRAY_LEN(rows); i++) {
        lj_error err = LJ_ERROR_INIT;
        lj_s3_page page;
        LJ_CLEANUP(lj_buf_free) lj_buf out = LJ_BUF_INIT(4096);
        if (read_all(rows[i], &page, &out, &err) != LJ_CORRUPT || !err.retryable ||
            err.message[0] == 0)
            fail_msg("row %zu: %s", i, lj_code_text(err.code));
    }
}

static void too_long(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    lj_s3_page page;
    LJ_CLEANUP(lj_buf_free) lj_buf xml = LJ_BUF_INIT(1 << 20);
    LJ_CLEANUP(lj_buf_free) lj_buf out = LJ_BUF_INIT(1 << 20);
    assert_ok(lj_buf_printf(&xml, &err, "<ListBucketResult><NextContinuationToken>"), &err);
    for (size_t i = 0; i < LJ_S3_TOKEN_MAX; i++)
        assert_ok(lj_buf_append(&xml, "t", 1, &err), &err);
    assert_ok(lj_buf_printf(&xml, &err, "</NextContinuationToken></ListBucketResult>"), &err);
    assert_int_equal(read_all(lj_buf_text(&xml), &page, &out, &err), LJ_CORRUPT);
    lj_buf_clear(&xml);
    assert_ok(lj_buf_printf(&xml, &err, "<ListBucketResult><Contents><Key>"), &err);
    for (size_t i = 0; i <= LJ_S3_XML_TEXT_MAX; i++)
        assert_ok(lj_buf_append(&xml, "k", 1, &err), &err);
    assert_ok(lj_buf_printf(&xml, &err, "</Key></Contents></ListBucketResult>"), &err);
    assert_int_equal(read_all(lj_buf_text(&xml), &page, &out, &err), LJ_CORRUPT);
}

static lj_code stop_at_b(void *ctx, const lj_s3_listed *listed, lj_error *err)
{
    (*(int *)ctx)++;
    return strcmp(listed->key, "b") == 0 ? lj_error_set(err, LJ_CANCELLED, "enough") : LJ_OK;
}

static void callback_ends_it(void **state)
{
    (void)state;
    static const char xml[] =
        "<ListBucketResult><Contents><Key>a</Key></Contents><Contents><Key>b</Key>"
        "</Contents><Contents><Key>c</Key></Contents></ListBucketResult>";
    lj_error err = LJ_ERROR_INIT;
    lj_s3_page page;
    int seen = 0;
    assert_ok(lj_s3_page_read(xml, strlen(xml), &page, &err), &err);
    assert_int_equal(lj_s3_page_keys(xml, strlen(xml), &page, stop_at_b, &seen, &err),
                     LJ_CANCELLED);
    assert_string_equal(err.message, "enough");
    assert_int_equal(seen, 2);
}

static lj_code append_result(void *ctx, const char *key, const char *code, const char *message,
                             lj_error *err)
{
    return lj_buf_printf(ctx, err, "%s %s %s;", key, code != NULL ? code : "gone", message);
}

static void deleted(void **state)
{
    (void)state;
    static const struct {
        const char *xml;
        lj_code code;
        const char *results;
    } rows[] = {
        {HEAD
         "<DeleteResult" NS "><Deleted><Key>a</Key></Deleted><Error><Key>b&amp;c</Key>"
         "<Code>AccessDenied</Code><Message>Access Denied</Message></Error><Deleted><Key>d</Key>"
         "<VersionId>1</VersionId><DeleteMarker>true</DeleteMarker></Deleted></DeleteResult>",
         LJ_OK, "a gone ;b&c AccessDenied Access Denied;d gone ;"},
        {"<DeleteResult><Error><Key>a</Key></Error><Deleted/><Error><Code>x</Code></Error>"
         "<Deleted><Key>b</Key></Deleted></DeleteResult>",
         LJ_OK, "a InternalError ;b gone ;"},
        {"<DeleteResult/>", LJ_OK, ""},
        {"<ListBucketResult/>", LJ_CORRUPT, NULL},
        {"<DeleteResult><Deleted>", LJ_CORRUPT, NULL},
        {"", LJ_CORRUPT, NULL},
    };
    for (size_t i = 0; i < LJ_ARRAY_LEN(rows); i++) {
        lj_error err = LJ_ERROR_INIT;
        LJ_CLEANUP(lj_buf_free) lj_buf out = LJ_BUF_INIT(4096);
        lj_code code =
            lj_s3_deleted_read(rows[i].xml, strlen(rows[i].xml), append_result, &out, &err);
        if (code != rows[i].code)
            fail_msg("row %zu: %s", i, err.message);
        if (rows[i].results != NULL)
            assert_string_equal(lj_buf_text(&out), rows[i].results);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pages),    cmocka_unit_test(bad_pages),
        cmocka_unit_test(too_long), cmocka_unit_test(callback_ends_it),
        cmocka_unit_test(deleted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
