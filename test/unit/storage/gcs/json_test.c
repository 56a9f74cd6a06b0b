/* json_test.c - what GCS answers: objects, pages of a listing, refusals, offsets of an upload; and the CRC32C in them. */
#include "test/unit/unit.h"

#include "vfs/base/str.h"
#include "vfs/storage/gcs/internal.h"

static void objects(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool with_time;
        uint64_t size; /* UINT64_MAX: refused */
        int64_t created_ns;
    } rows[] = {
        {"{\"size\":\"12\",\"timeCreated\":\"2026-01-02T03:04:05.678Z\"}", true, 12,
         INT64_C(1767323045678000000)},
        {"{\"size\":\"0\",\"timeCreated\":\"1970-01-01T00:00:01Z\",\"more\":[{}]}", true, 0,
         INT64_C(1000000000)},
        {"{\"size\":7}", false, 7, 0},
        {"{\"size\":\"9223372036854775807\"}", false, INT64_MAX, 0},
        {"{\"size\":\"7\"}", true, UINT64_MAX, 0},
        {"{\"size\":\"7\",\"timeCreated\":\"yesterday\"}", true, UINT64_MAX, 0},
        {"{\"size\":\"7\",\"timeCreated\":5}", true, UINT64_MAX, 0},
        {"{\"timeCreated\":\"2026-01-02T03:04:05Z\"}", true, UINT64_MAX, 0},
        {"{\"size\":\"-1\"}", false, UINT64_MAX, 0},
        {"{\"size\":-1}", false, UINT64_MAX, 0},
        {"{\"size\":\"9223372036854775808\"}", false, UINT64_MAX, 0},
        {"{\"size\":null}", false, UINT64_MAX, 0},
        {"{\"size\":\"1\",\"crc32c\":\"AAA=\"}", false, UINT64_MAX, 0},
        {"{\"size\":\"1\",\"crc32c\":\"no base64\"}", false, UINT64_MAX, 0},
        {"[]", false, UINT64_MAX, 0},
        {"{\"size\":\"1\"", false, UINT64_MAX, 0},
        {"", false, UINT64_MAX, 0},
        {"<html>", false, UINT64_MAX, 0},
    };
    for (size_t i = 0; i < LJ_ARRAY_LEN(rows); i++) {
        lj_error err = LJ_ERROR_INIT;
        lj_gcs_object object = {.size_bytes = 4711};
        lj_code code = lj_gcs_object_parse(rows[i].text, strlen(rows[i].text), rows[i].with_time,
                                           &object, &err);
        if (rows[i].size == UINT64_MAX) {
            assert_int_equal(code, LJ_CORRUPT);
            assert_true(err.retryable);
            assert_int_equal(object.size_bytes, 4711);
            continue;
        }
        assert_ok(code, &err);
        assert_int_equal(object.size_bytes, rows[i].size);
        assert_int_equal(object.created_ns, rows[i].created_ns);
        assert_false(object.has_crc32c);
    }
    lj_error err = LJ_ERROR_INIT;
    static const char text[] =
        "{\"size\":\"9\",\"crc32c\":\"4waSgw==\",\"generation\":\"1700000000000001\"}";
    lj_gcs_object object;
    assert_ok(lj_gcs_object_parse(text, strlen(text), false, &object, &err), &err);
    assert_true(object.has_crc32c);
    assert_int_equal(object.crc32c, 0xe3069283);
    assert_true(object.generation == UINT64_C(1700000000000001));
}

typedef struct {
    char names[256];
    uint64_t bytes;
    size_t stop_at;
    size_t count;
} page;

static lj_code add_item(void *ctx, const char *name, const lj_gcs_object *object, lj_error *err)
{
    page *p = ctx;
    if (++p->count == p->stop_at)
        return lj_error_set(err, LJ_BUSY, "enough");
    size_t used = strlen(p->names);
    snprintf(p->names + used, sizeof(p->names) - used, "%s|", name);
    p->bytes += object->size_bytes;
    return LJ_OK;
}

#define ITEM(name, size)                                                                           \
    "{\"name\":\"" name "\",\"size\":\"" size "\",\"timeCreated\":\"2026-01-02T03:04:05Z\"}"

static void pages(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *names; /* NULL: refused */
        const char *token;
    } rows[] = {
        {"{\"kind\":\"storage#objects\"}", "", NULL},
        {"{}", NULL, NULL}, /* so says many a service that is none of Google's */
        {"{\"kind\":\"storage#buckets\"}", NULL, NULL},
        {"{\"message\":\"ok\"}", NULL, NULL},
        {"{\"items\":[]}", "", NULL},
        {"{\"items\":null}", "", NULL},
        {"{\"items\":[],\"nextPageToken\":\"t=\"}", "", "t="},
        {"{\"items\":[],\"nextPageToken\":\"\"}", "", NULL},
        {"{\"nextPageToken\":\"a/b+\",\"items\":[" ITEM("a", "1") "," ITEM("b/\\u00e9 \\\"",
                                                                           "2") "]}",
         "a|b/\xC3\xA9 \"|", "a/b+"},
        {"{\"items\":{}}", NULL, NULL},
        {"{\"items\":[1]}", NULL, NULL},
        {"{\"items\":[null]}", NULL, NULL},
        {"{\"items\":[{\"size\":\"1\",\"timeCreated\":\"2026-01-02T03:04:05Z\"}]}", NULL, NULL},
        {"{\"items\":[{\"name\":\"a\",\"timeCreated\":\"2026-01-02T03:04:05Z\"}]}", NULL, NULL},
        {"{\"items\":[{\"name\":\"a\",\"size\":\"1\"}]}", NULL, NULL},
        {"{\"items\":[" ITEM("a\\u0000b", "1") "]}", NULL, NULL},
        {"{\"nextPageToken\":5}", NULL, NULL},
        {"[" ITEM("a", "1") "]", NULL, NULL},
        {"", NULL, NULL},
    };
    for (size_t i = 0; i < LJ_ARRAY_LEN(rows); i++) {
        lj_error err = LJ_ERROR_INIT;
        page got = {.names = ""};
        LJ_CLEANUP(lj_freep) char *token = NULL;
        lj_code code =
            lj_gcs_page_parse(rows[i].text, strlen(rows[i].text), add_item, &got, &token, &err);
        if (rows[i].names == NULL) {
            assert_int_equal(code, LJ_CORRUPT);
            assert_true(err.retryable);
            assert_null(token);
            continue;
        }
        assert_ok(code, &err);
        assert_string_equal(got.names, rows[i].names);
        assert_true(lj_str_eq(token, rows[i].token));
    }
    /* the callback's own error comes through */
    lj_error err = LJ_ERROR_INIT;
    static const char two[] =
        "{\"items\":[" ITEM("a", "1") "," ITEM("b", "1") "],\"nextPageToken\":\"n\"}";
    page got = {.names = "", .stop_at = 2};
    char *token = NULL;
    assert_int_equal(lj_gcs_page_parse(two, strlen(two), add_item, &got, &token, &err), LJ_BUSY);
    assert_string_equal(err.message, "enough");
    assert_string_equal(got.names, "a|");
    assert_null(token);
}

static void token_too_long(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    LJ_CLEANUP(lj_buf_free) lj_buf text = LJ_BUF_INIT(1u << 20);
    assert_ok(lj_buf_printf(&text, &err, "{\"nextPageToken\":\"%0*d\"}",
                            (int)LJ_GCS_PAGE_TOKEN_MAX + 1, 0),
              &err);
    page got = {.names = ""};
    char *token = NULL;
    assert_int_equal(lj_gcs_page_parse(lj_buf_text(&text), text.len, add_item, &got, &token, &err),
                     LJ_CORRUPT);
    assert_null(token);
}

static void refusals(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *reason;
        const char *message;
    } rows[] = {
        {"{\"error\":{\"code\":403,\"message\":\"no\\nrights\",\"errors\":[{\"domain\":\"global\","
         "\"reason\":\"forbidden\",\"message\":\"x\"}]}}",
         "forbidden", "no rights"},
        {"{\"error\":{\"errors\":[{\"reason\":\"backendError\"}]}}", "backendError", ""},
        {"{\"error\":{\"message\":\"Not Found\"}}", "", "Not Found"},
        {"{\"error\":{\"message\":5,\"errors\":[5]}}", "", ""},
        {"{\"error\":\"text\"}", "", ""},
        {"{\"error\":{\"errors\":{}}}", "", ""},
        {"No such object: b/o\n", "", "No such object: b/o"},
        {"<html>no</html>", "", ""},
        {"{}", "", ""},
        {"", "", ""},
    };
    for (size_t i = 0; i < LJ_ARRAY_LEN(rows); i++) {
        lj_gcs_refusal refusal;
        lj_gcs_refusal_parse(rows[i].text, strlen(rows[i].text), &refusal);
        assert_string_equal(refusal.reason, rows[i].reason);
        assert_string_equal(refusal.message, rows[i].message);
    }
    /* a long text is cut, and not within a character */
    char text[600];
    lj_gcs_refusal refusal;
    for (size_t i = 0; i < sizeof(text); i += 2)
        memcpy(text + i, "\xC3\xA9", 2);
    lj_gcs_refusal_parse(text, sizeof(text), &refusal);
    size_t len = strlen(refusal.message);
    assert_true(len < sizeof(refusal.message));
    assert_true(len == 0 || (unsigned char)refusal.message[len - 1] < 0x80 ||
                (unsigned char)refusal.message[len - 1] == 0xA9);
}

static void persisted(void **state)
{
    (void)state;
    uint64_t bytes = 0;
    assert_true(lj_gcs_persisted("bytes=0-0", &bytes));
    assert_int_equal(bytes, 1);
    assert_true(lj_gcs_persisted("bytes=0-8388607", &bytes));
    assert_int_equal(bytes, 8388608);
    static const char *const bad[] = {"",
                                      "bytes=0-",
                                      "bytes=1-5",
                                      "bytes 0-5",
                                      "bytes=0--1",
                                      "bytes=0-5 ",
                                      "bytes=0-5/9",
                                      "bytes=0-9223372036854775807",
                                      "bytes=0-18446744073709551615"};
    for (size_t i = 0; i < LJ_ARRAY_LEN(bad); i++)
        assert_false(lj_gcs_persisted(bad[i], &bytes));
    assert_int_equal(bytes, 8388608);
}

/* Vectors of RFC 3720, appendix B.4, and the usual check value. */
static void crc32c(void **state)
{
    (void)state;
    uint8_t bytes[32] = {0};
    assert_int_equal(lj_gcs_crc32c(0, bytes, 0), 0);
    assert_int_equal(lj_gcs_crc32c(0, bytes, sizeof(bytes)), 0x8a9136aa);
    memset(bytes, 0xff, sizeof(bytes));
    assert_int_equal(lj_gcs_crc32c(0, bytes, sizeof(bytes)), 0x62a8ab43);
    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)i;
    assert_int_equal(lj_gcs_crc32c(0, bytes, sizeof(bytes)), 0x46dd794e);
    assert_int_equal(lj_gcs_crc32c(0, "123456789", 9), 0xe3069283);
    for (size_t cut = 0; cut <= sizeof(bytes); cut++) {
        uint32_t first = lj_gcs_crc32c(0, bytes, cut);
        assert_int_equal(lj_gcs_crc32c(first, bytes + cut, sizeof(bytes) - cut), 0x46dd794e);
    }
    LJ_CLEANUP(lj_freep) char *text = lj_gcs_crc32c_text(0xe3069283);
    assert_string_equal(text, "4waSgw==");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(objects),  cmocka_unit_test(pages),     cmocka_unit_test(token_too_long),
        cmocka_unit_test(refusals), cmocka_unit_test(persisted), cmocka_unit_test(crc32c),
    };
    return cmocka_run_group_tests_name("gcs json", tests, NULL, NULL);
}
