/* lz4_test.c - the writer's profile, everything the reader is to accept or name, damage, and the lz4 tool. */
#include "test/unit/unit.h"

#include <lz4frame.h>
#include <unistd.h>

#include "vfs/base/buf.h"
#include "vfs/base/io.h"
#include "vfs/base/str.h"
#include "vfs/codec/lz4.h"

#define KIB      ((size_t)1024)
#define MIB      (1024 * KIB)
#define TEST_MAX (64 * MIB)

/* Half of it rows of text, half noise, the same for the same seed. */
static uint8_t *make_content(size_t len, uint64_t seed)
{
    uint8_t *data = malloc(len + 1);
    assert_non_null(data);
    uint64_t x = seed * 2654435761u + 88172645463325252u;
    for (size_t i = 0; i < len; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        bool noise = (i >> 12) % 2 == 1;
        data[i] = (uint8_t)(noise ? x >> 32 : (uint64_t) "row of a table; "[(i + (x & 1)) % 16]);
    }
    return data;
}

/* Compresses with the encoder, reading `piece` bytes at a time. `known`: the source tells its size. */
static void compress(const void *data, size_t len, bool known, size_t piece, lj_buf *out)
{
    lj_error err = LJ_ERROR_INIT;
    lj_memory_source memory;
    lj_source plain = lj_source_memory(&memory, data, len);
    if (!known)
        plain.size = -1;
    lj_lz4_encoder *encoder = NULL;
    lj_source packed;
    size_t before = out->len;
    assert_ok(lj_lz4_encoder_new(&plain, &encoder, &packed, &err), &err);
    assert_int_equal(packed.size, -1);
    for (;;) {
        size_t n = 0;
        assert_ok(lj_buf_reserve(out, piece, &err), &err);
        assert_ok(packed.read(packed.ctx, out->data + out->len, piece, &n, &err), &err);
        if (n == 0)
            break;
        out->len += n;
    }
    assert_int_equal(lj_lz4_encoder_bytes_in(encoder), len);
    assert_int_equal(lj_lz4_encoder_bytes_out(encoder), out->len - before);
    lj_lz4_encoder_free(encoder);
}

typedef struct {
    lj_code code;
    bool trailing;
    lj_error err;
} outcome;

/* Decompresses, writing `piece` bytes at a time. */
static outcome expand(const void *data, size_t len, size_t piece, lj_buf *out)
{
    outcome got = {.code = LJ_OK};
    lj_sink plain = lj_sink_buf(out);
    lj_lz4_decoder *decoder = NULL;
    lj_sink packed;
    assert_ok(lj_lz4_decoder_new(&plain, &decoder, &packed, &got.err), &got.err);
    for (size_t at = 0; at < len && got.code == LJ_OK; at += piece)
        got.code =
            packed.write(packed.ctx, (const uint8_t *)data + at, LJ_MIN(piece, len - at), &got.err);
    if (got.code == LJ_OK) {
        got.code = lj_lz4_decoder_finish(decoder, &got.err);
        assert_int_equal(lj_lz4_decoder_bytes_out(decoder), out->len);
    } else {
        lj_error ignored = LJ_ERROR_INIT;
        assert_int_equal(lj_lz4_decoder_finish(decoder, &ignored), LJ_CORRUPT);
    }
    got.trailing = lj_lz4_decoder_trailing(decoder);
    lj_lz4_decoder_free(decoder);
    return got;
}

/* Expands in several piece sizes and compares. */
static void expect_content(const void *packed, size_t packed_len, const void *data, size_t len,
                           bool trailing)
{
    const size_t pieces[] = {SIZE_MAX / 2, 65536, 16384 + 1, 7, 1};
    for (size_t i = 0; i < LJ_ARRAY_LEN(pieces); i++) {
        if (pieces[i] < 1000 && packed_len > 64 * KIB)
            continue; /* only slow */
        LJ_CLEANUP(lj_buf_free) lj_buf out = LJ_BUF_INIT(TEST_MAX);
        outcome got = expand(packed, packed_len, pieces[i], &out);
        assert_ok(got.code, &got.err);
        assert_int_equal(got.trailing, trailing);
        assert_int_equal(out.len, len);
        if (len > 0)
            assert_memory_equal(out.data, data, len);
    }
}

static void expect_failure(const void *packed, size_t len, lj_code code, const char *part)
{
    const size_t pieces[] = {SIZE_MAX / 2, 1};
    for (size_t i = 0; i < LJ_ARRAY_LEN(pieces); i++) {
        LJ_CLEANUP(lj_buf_free) lj_buf out = LJ_BUF_INIT(TEST_MAX);
        outcome got = expand(packed, len, pieces[i], &out);
        assert_int_equal(got.code, code);
        if (strstr(got.err.message, part) == NULL)
            fail_msg("\"%s\" is not in \"%s\"", part, got.err.message);
    }
}

static void round_trips(void **state)
{
    (void)state;
    const size_t sizes[] = {
        0,       1,   100,     64 * KIB - 1, 64 * KIB, 64 * KIB + 1, 256 * KIB, 256 * KIB + 1,
        MIB - 1, MIB, MIB + 1, 4 * MIB,      8 * MIB,  9 * MIB + 123};
    for (size_t i = 0; i < LJ_ARRAY_LEN(sizes); i++) {
        LJ_CLEANUP(lj_freep) uint8_t *data = make_content(sizes[i], i + 1);
        for (int known = 0; known < 2; known++) {
            LJ_CLEANUP(lj_buf_free) lj_buf packed = LJ_BUF_INIT(TEST_MAX);
            compress(data, sizes[i], known == 1, known == 1 ? 65536 : 1000, &packed);
            expect_content(packed.data, packed.len, data, sizes[i], false);
        }
    }
}

/* 04 22 4D 18, FLG 64, BD by size, its checksum: the profile that both Litestreams read. */
static void written_header(void **state)
{
    (void)state;
    static const struct {
        size_t len;
        bool known;
        uint8_t block;
    } rows[] = {{0, true, 0x40},         {64 * KIB, true, 0x40},      {64 * KIB + 1, true, 0x50},
                {256 * KIB, true, 0x50}, {256 * KIB + 1, true, 0x60}, {3 * MIB, true, 0x60},
                {5, false, 0x60}};
    for (size_t i = 0; i < LJ_ARRAY_LEN(rows); i++) {
        LJ_CLEANUP(lj_freep) uint8_t *data = make_content(rows[i].len, i);
        LJ_CLEANUP(lj_buf_free) lj_buf packed = LJ_BUF_INIT(TEST_MAX);
        compress(data, rows[i].len, rows[i].known, 4096, &packed);
        const uint8_t head[] = {0x04, 0x22, 0x4D, 0x18, 0x64, rows[i].block};
        assert_memory_equal(packed.data, head, sizeof(head));
        assert_true(packed.len <= rows[i].len + 7 + 8 + 4 * (rows[i].len / (64 * KIB) + 1));
    }
}

static lj_code broken_read(void *ctx, void *out, size_t max, size_t *ret_n, lj_error *err)
{
    int *calls = ctx;
    if (++*calls == 3)
        return lj_error_set(err, LJ_BUSY, "the disk is tired");
    memset(out, 'x', max);
    *ret_n = *calls > 10 ? 0 : max;
    return LJ_OK;
}

static lj_code broken_rewind(void *ctx, lj_error *err)
{
    (void)err;
    *(int *)ctx = 5; /* beyond the failing call */
    return LJ_OK;
}

static void source_fails_and_is_rewound(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    int calls = 0;
    lj_source plain = {.ctx = &calls, .read = broken_read, .rewind = broken_rewind, .size = -1};
    lj_lz4_encoder *encoder = NULL;
    lj_source packed;
    assert_ok(lj_lz4_encoder_new(&plain, &encoder, &packed, &err), &err);
    LJ_CLEANUP(lj_buf_free) lj_buf out = LJ_BUF_INIT(TEST_MAX);
    lj_sink sink = lj_sink_buf(&out);
    uint64_t n = 0;
    assert_int_equal(lj_stream_copy(&packed, &sink, &n, &err), LJ_BUSY);
    assert_string_equal(err.message, "the disk is tired");
    assert_int_equal(lj_stream_copy(&packed, &sink, &n, &err), LJ_INTERNAL);
    for (int i = 0; i < 2; i++) {
        lj_buf_clear(&out);
        assert_ok(packed.rewind(packed.ctx, &err), &err);
        assert_int_equal(lj_lz4_encoder_bytes_in(encoder), 0);
        assert_ok(lj_stream_copy(&packed, &sink, &n, &err), &err);
        LJ_CLEANUP(lj_buf_free) lj_buf plain_out = LJ_BUF_INIT(TEST_MAX);
        outcome got = expand(out.data, out.len, 65536, &plain_out);
        assert_ok(got.code, &got.err);
        assert_int_equal(plain_out.len, 5 * MIB);
    }
    lj_lz4_encoder_free(encoder);
}

/* A frame made by liblz4's one-call function. */
static void make_frame(const void *data, size_t len, const LZ4F_preferences_t *prefs, lj_buf *out)
{
    lj_error err = LJ_ERROR_INIT;
    size_t cap = LZ4F_compressFrameBound(len, prefs);
    assert_ok(lj_buf_reserve(out, cap, &err), &err);
    size_t n = LZ4F_compressFrame(out->data + out->len, cap, data, len, prefs);
    assert_false(LZ4F_isError(n));
    out->len += n;
}

static void reads_every_kind_of_frame(void **state)
{
    (void)state;
    size_t len = 9 * MIB + 17;
    LJ_CLEANUP(lj_freep) uint8_t *data = make_content(len, 77);
    for (int block = 4; block <= 7; block++)
        for (int flags = 0; flags < 32; flags++) {
            LZ4F_preferences_t prefs = LZ4F_INIT_PREFERENCES;
            size_t used = flags == 16 && block == 7 ? len : 300 * KIB + 1;
            prefs.frameInfo.blockSizeID = (LZ4F_blockSizeID_t)block;
            prefs.frameInfo.blockMode = (flags & 1) != 0 ? LZ4F_blockLinked : LZ4F_blockIndependent;
            prefs.frameInfo.contentChecksumFlag = (LZ4F_contentChecksum_t)((flags & 2) != 0);
            prefs.frameInfo.blockChecksumFlag = (LZ4F_blockChecksum_t)((flags & 4) != 0);
            prefs.frameInfo.contentSize = (flags & 8) != 0 ? used : 0;
            prefs.compressionLevel = (flags & 16) != 0 && block < 7 ? 9 : 0;
            LJ_CLEANUP(lj_buf_free) lj_buf packed = LJ_BUF_INIT(TEST_MAX);
            make_frame(data, used, &prefs, &packed);
            expect_content(packed.data, packed.len, data, used, false);
        }
}

#define HEAD      "\x04\x22\x4D\x18\x64\x70\xB9"
#define EMPTY_SUM "\x05\x5D\xCC\x02"

static void reads_odd_but_good_objects(void **state)
{
    (void)state;
    static const char empty[] = HEAD "\0\0\0\0" EMPTY_SUM;
    static const char stored_nothing[] = HEAD "\0\0\0\x80\0\0\0\0" EMPTY_SUM;
    static const char skipped[] =
        "\x5F\x2A\x4D\x18\x03\0\0\0abc\x50\x2A\x4D\x18\0\0\0\0" HEAD "\0\0\0\0" EMPTY_SUM;
    expect_content(empty, sizeof(empty) - 1, "", 0, false);
    expect_content(stored_nothing, sizeof(stored_nothing) - 1, "", 0, false);
    expect_content(skipped, sizeof(skipped) - 1, "", 0, false);
    expect_content(empty, sizeof(empty), "", 0, true); /* the NUL behind */

    /* two frames: the second is not read, as in v0.3.13, but the caller can tell */
    LJ_CLEANUP(lj_buf_free) lj_buf two = LJ_BUF_INIT(TEST_MAX);
    compress("first", 5, true, 100, &two);
    size_t one = two.len;
    compress("second", 6, true, 100, &two);
    expect_content(two.data, two.len, "first", 5, true);
    expect_content(two.data, one, "first", 5, false);
}

static void names_what_it_cannot_read(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t len;
        lj_code code;
        const char *part;
    } rows[] = {
        {"", 0, LJ_CORRUPT, "empty"},
        {"\x04\x22\x4D", 3, LJ_CORRUPT, "truncated"},
        {"age-encryption.org/v1\n-> X25519", 31, LJ_UNSUPPORTED, "age"},
        {"age-", 4, LJ_CORRUPT, "truncated"},
        {"age-encryptiom.org/v1\n", 22, LJ_CORRUPT, "not an LZ4 frame"},
        {"\x02\x21\x4C\x18\0\0\0\0", 8, LJ_UNSUPPORTED, "legacy"},
        {"SQLite format 3", 16, LJ_CORRUPT, "53 51 4c 69"},
        {"<?xml version", 13, LJ_CORRUPT, "not an LZ4 frame"},
        {"\x50\x2A\x4D\x18\x09\0\0\0abc", 11, LJ_CORRUPT, "truncated"},
        {"\x50\x2A\x4D\x18\x03\0\0\0abc", 11, LJ_CORRUPT, "truncated"},
        {"\x04\x22\x4D\x18\x64\x70\xBA\0\0\0\0" EMPTY_SUM, 15, LJ_CORRUPT, "headerChecksum"},
        {HEAD "\0\0\0\0\x05\x5D\xCC\x03", 15, LJ_CORRUPT, "content checksum"},
        {HEAD "\xFF\xFF\xFF\x7F", 11, LJ_CORRUPT, "damaged"},
        {"\x04\x22\x4D\x18\xA4\x70\xB9\0\0\0\0\0\0", 12, LJ_CORRUPT, "damaged"}, /* version 2 */
    };
    for (size_t i = 0; i < LJ_ARRAY_LEN(rows); i++)
        expect_failure(rows[i].bytes, rows[i].len, rows[i].code, rows[i].part);

    LZ4F_preferences_t prefs = LZ4F_INIT_PREFERENCES;
    prefs.frameInfo.dictID = 42;
    LJ_CLEANUP(lj_buf_free) lj_buf with_dictionary = LJ_BUF_INIT(TEST_MAX);
    make_frame("abc", 3, &prefs, &with_dictionary);
    expect_failure(with_dictionary.data, with_dictionary.len, LJ_UNSUPPORTED, "dictionary 42");

    outcome got;
    LJ_CLEANUP(lj_buf_free) lj_buf out = LJ_BUF_INIT(100);
    got = expand("age-encryption.org/v1\n", 22, 5, &out);
    assert_non_null(strstr(got.err.hint, "identity"));
}

/* A frame cut anywhere is noticed, also one without a content checksum that is cut between its two blocks. */
static void truncation_is_noticed_everywhere(void **state)
{
    (void)state;
    LJ_CLEANUP(lj_freep) uint8_t *data = make_content(66 * KIB, 5);
    LZ4F_preferences_t bare = LZ4F_INIT_PREFERENCES;
    bare.frameInfo.blockSizeID = LZ4F_max64KB;
    LJ_CLEANUP(lj_buf_free) lj_buf ours = LJ_BUF_INIT(TEST_MAX);
    LJ_CLEANUP(lj_buf_free) lj_buf without = LJ_BUF_INIT(TEST_MAX);
    compress(data, 6000, true, 4096, &ours);
    make_frame(data, 66 * KIB, &bare, &without);
    for (size_t cut = 0; cut < ours.len; cut++)
        expect_failure(ours.data, cut, LJ_CORRUPT, cut == 0 ? "empty" : "truncated");
    for (size_t cut = 1; cut < without.len; cut += without.len - cut < 3000 ? 1 : 61) {
        LJ_CLEANUP(lj_buf_free) lj_buf out = LJ_BUF_INIT(TEST_MAX);
        assert_int_equal(expand(without.data, cut, SIZE_MAX / 2, &out).code, LJ_CORRUPT);
    }
}

static void no_flipped_bit_gives_other_content(void **state)
{
    (void)state;
    LJ_CLEANUP(lj_freep) uint8_t *data = make_content(5000, 9);
    LJ_CLEANUP(lj_buf_free) lj_buf packed = LJ_BUF_INIT(TEST_MAX);
    compress(data, 5000, true, 4096, &packed);
    size_t harmless = 0;
    for (size_t bit = 0; bit < packed.len * 8; bit++) {
        packed.data[bit / 8] ^= (uint8_t)(1u << (bit % 8));
        LJ_CLEANUP(lj_buf_free) lj_buf out = LJ_BUF_INIT(TEST_MAX);
        outcome got = expand(packed.data, packed.len, SIZE_MAX / 2, &out);
        if (got.code == LJ_OK) {
            /* a match that now points at another copy of the same bytes */
            assert_int_equal(out.len, 5000);
            assert_memory_equal(out.data, data, 5000);
            harmless++;
        } else {
            assert_true(got.err.message[0] != 0);
        }
        packed.data[bit / 8] ^= (uint8_t)(1u << (bit % 8));
    }
    assert_true(harmless < packed.len * 8 / 100);
}

static void sink_failure_is_passed_on(void **state)
{
    (void)state;
    LJ_CLEANUP(lj_freep) uint8_t *data = make_content(3 * MIB, 3);
    LJ_CLEANUP(lj_buf_free) lj_buf packed = LJ_BUF_INIT(TEST_MAX);
    compress(data, 3 * MIB, false, 65536, &packed);
    LJ_CLEANUP(lj_buf_free) lj_buf small = LJ_BUF_INIT(2 * MIB);
    assert_int_equal(expand(packed.data, packed.len, 65536, &small).code, LJ_INVALID);
}

static void run(const char *format, const char *a, const char *b)
{
    LJ_CLEANUP(lj_freep) char *command = lj_str_printf(format, a, b);
    assert_non_null(command);
    assert_int_equal(system(command), 0);
}

/* Both ways with the tool, in a folder of its own. */
static void works_with_the_lz4_tool(void **state)
{
    (void)state;
    if (system("command -v lz4 >/dev/null 2>&1") != 0) {
        print_message("skipped: there is no lz4 command here\n");
        skip();
    }
    lj_error err = LJ_ERROR_INIT;
    char folder[] = "/tmp/lz4_test.XXXXXX";
    assert_non_null(mkdtemp(folder));
    LJ_CLEANUP(lj_freep) char *plain = lj_str_printf("%s/plain", folder);
    LJ_CLEANUP(lj_freep) char *packed = lj_str_printf("%s/packed.lz4", folder);
    size_t len = 5 * MIB + 3;
    LJ_CLEANUP(lj_freep) uint8_t *data = make_content(len, 11);

    LJ_CLEANUP(lj_buf_free) lj_buf ours = LJ_BUF_INIT(TEST_MAX);
    compress(data, len, false, 65536, &ours);
    assert_ok(lj_io_replace_file(packed, ours.data, ours.len, 0600, false, &err), &err);
    run("lz4 -tq '%s'%s", packed, "");
    run("lz4 -dcq '%s' > '%s'", packed, plain);
    char *read = NULL;
    size_t n = 0;
    assert_ok(lj_io_read_file(plain, TEST_MAX, &read, &n, &err), &err);
    assert_int_equal(n, len);
    assert_memory_equal(read, data, len);
    free(read);

    static const char *const ways[] = {"-1 -B4 -BI", "-1 -B7", "-9 -B5 -BD", "-1 --no-frame-crc",
                                       "-1 -BX --content-size"};
    for (size_t i = 0; i < LJ_ARRAY_LEN(ways); i++) {
        LJ_CLEANUP(lj_freep)
        char *command = lj_str_printf("lz4 -qfz %s '%s' '%s'", ways[i], plain, packed);
        assert_int_equal(system(command), 0);
        assert_ok(lj_io_read_file(packed, TEST_MAX, &read, &n, &err), &err);
        expect_content(read, n, data, len, false);
        free(read);
    }
    unlink(plain);
    unlink(packed);
    rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trips),
        cmocka_unit_test(written_header),
        cmocka_unit_test(source_fails_and_is_rewound),
        cmocka_unit_test(reads_every_kind_of_frame),
        cmocka_unit_test(reads_odd_but_good_objects),
        cmocka_unit_test(names_what_it_cannot_read),
        cmocka_unit_test(truncation_is_noticed_everywhere),
        cmocka_unit_test(no_flipped_bit_gives_other_content),
        cmocka_unit_test(sink_failure_is_passed_on),
        cmocka_unit_test(works_with_the_lz4_tool),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
