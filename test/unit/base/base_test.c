/* base_test.c - clock, strings, buffers, errors, files. */
#include "test/unit/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "vfs/base/buf.h"
#include "vfs/base/clock.h"
#include "vfs/base/io.h"
#include "vfs/base/str.h"
#include "vfs/base/stream.h"

static void time_round_trip(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    static const struct {
        const char *in;
        const char *out;
    } rows[] = {
        {"1970-01-01T00:00:00Z", "1970-01-01T00:00:00.000000000Z"},
        {"2026-02-28T23:59:59.5+01:00", "2026-02-28T22:59:59.500000000Z"},
        {"2024-02-29t00:00:00.123456789z", "2024-02-29T00:00:00.123456789Z"},
        {"1999-12-31 23:59:59Z", "1999-12-31T23:59:59.000000000Z"},
    };
    for (size_t i = 0; i < LJ_ARRAY_LEN(rows); i++) {
        int64_t ns = 0;
        char text[LJ_CLOCK_TEXT_MAX];
        assert_ok(lj_clock_parse(rows[i].in, &ns, &err), &err);
        lj_clock_format_ns(ns, text);
        assert_string_equal(text, rows[i].out);
    }
    static const char *const bad[] = {"",
                                      "2026-02-29T00:00:00Z",
                                      "2026-01-01",
                                      "2026-01-01T24:00:00Z",
                                      "2026-01-01T00:00:00",
                                      "2026-01-01T00:00:00Zx",
                                      "now"};
    for (size_t i = 0; i < LJ_ARRAY_LEN(bad); i++) {
        int64_t ns = 7;
        assert_int_equal(lj_clock_parse(bad[i], &ns, &err), LJ_INVALID);
        assert_int_equal(ns, 7);
        assert_true(err.hint[0] != 0);
    }
}

static void durations(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    static const struct {
        const char *in;
        int64_t ns;
    } rows[] = {{"1h30m", 5400 * LJ_NS_PER_S},
                {"500ms", 500 * LJ_NS_PER_MS},
                {"0", 0},
                {"1.5s", 1500 * LJ_NS_PER_MS},
                {"10us", 10000},
                {"72h", 259200 * LJ_NS_PER_S}};
    for (size_t i = 0; i < LJ_ARRAY_LEN(rows); i++) {
        int64_t ns = -1;
        assert_ok(lj_clock_parse_duration(rows[i].in, &ns, &err), &err);
        assert_int_equal(ns, rows[i].ns);
    }
    static const char *const bad[] = {"", "1", "1x", "-1s", "s", "1s ", "9999999999h", "1..5s"};
    for (size_t i = 0; i < LJ_ARRAY_LEN(bad); i++) {
        int64_t ns = 7;
        assert_int_equal(lj_clock_parse_duration(bad[i], &ns, &err), LJ_INVALID);
    }
    char text[LJ_CLOCK_TEXT_MAX];
    lj_clock_format_duration(5400 * LJ_NS_PER_S, text);
    assert_string_equal(text, "1h30m0s");
    lj_clock_format_duration(250 * LJ_NS_PER_MS, text);
    assert_string_equal(text, "250ms");
    /* exact and never "60s": what is printed reads back as the same duration */
    static const struct {
        int64_t ns;
        const char *text;
    } exact[] = {{INT64_C(59999999900), "59.9999999s"},
                 {INT64_C(3599999999999), "59m59.999999999s"},
                 {999999999, "999.999999ms"},
                 {INT64_C(3600000000001), "1h0m0.000000001s"},
                 {999999, "999999ns"},
                 {0, "0s"}};
    for (size_t i = 0; i < LJ_ARRAY_LEN(exact); i++) {
        lj_clock_format_duration(exact[i].ns, text);
        assert_string_equal(text, exact[i].text);
        int64_t back = -1;
        assert_ok(lj_clock_parse_duration(text, &back, &err), &err);
        assert_int_equal(back, exact[i].ns);
    }
}

static void times_at_the_ends(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    int64_t ns = 7;
    assert_ok(lj_clock_parse("1677-09-21T00:12:45Z", &ns, &err), &err);
    char text[LJ_CLOCK_TEXT_MAX];
    lj_clock_format_ns(ns, text);
    assert_string_equal(text, "1677-09-21T00:12:45.000000000Z");
    ns = 7;
    static const char *const bad[] = {"1677-09-21T00:12:43Z", "2262-04-11T23:47:16Z",
                                      "0000-01-01T00:00:00Z", "9999-12-31T23:59:59Z"};
    for (size_t i = 0; i < LJ_ARRAY_LEN(bad); i++)
        assert_int_equal(lj_clock_parse(bad[i], &ns, &err), LJ_INVALID);
    assert_int_equal(ns, 7);
}

static void hex_is_strict(void **state)
{
    (void)state;
    uint64_t v = 5;
    assert_true(lj_str_hex("00ff", 4, &v));
    assert_int_equal(v, 255);
    assert_false(lj_str_hex("00FF", 4, &v));
    assert_false(lj_str_hex("00f", 4, &v));
    assert_false(lj_str_hex("0x1", 3, &v));
    assert_int_equal(v, 255);
}

static void json_text(void **state)
{
    (void)state;
    char out[64];
    lj_str_json(out, sizeof(out), "a\"b\\c\n\x01");
    assert_string_equal(out, "\"a\\\"b\\\\c\\n\\u0001\"");
    char tiny[6];
    lj_str_json(tiny, sizeof(tiny), "abc\"d");
    assert_string_equal(tiny, "\"abc\"");
}

static void buffers_have_a_maximum(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    LJ_CLEANUP(lj_buf_free) lj_buf buf = LJ_BUF_INIT(10);
    assert_ok(lj_buf_append(&buf, "12345", 5, &err), &err);
    assert_int_equal(lj_buf_append(&buf, "678901", 6, &err), LJ_INVALID);
    assert_string_equal(lj_buf_text(&buf), "12345");
    assert_ok(lj_buf_printf(&buf, &err, "%s", "67890"), &err);
    assert_string_equal(lj_buf_text(&buf), "1234567890");
}

static void errors_keep_the_root(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    assert_int_equal(lj_error_errno(&err, ENOSPC, "cannot write %s", "x"), LJ_NOSPACE);
    assert_true(err.retryable);
    lj_error_context(&err, "segment 1");
    assert_string_equal(err.message, "segment 1: cannot write x: No space left on device");
    assert_true(strstr(err.hint, "free space") != NULL);
    char long_text[2000];
    memset(long_text, 'a', sizeof(long_text) - 1);
    long_text[sizeof(long_text) - 1] = 0;
    lj_error_context(&err, "%s", long_text);
    assert_int_equal(strlen(err.message), LJ_ERROR_MESSAGE_MAX - 1);
}

static void files_are_replaced_whole(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    char dir[] = "/tmp/lj_base_XXXXXX";
    assert_non_null(mkdtemp(dir));
    LJ_CLEANUP(lj_freep) char *sub = lj_str_printf("%s/a/b", dir);
    LJ_CLEANUP(lj_freep) char *path = lj_str_printf("%s/f", sub);
    assert_ok(lj_io_mkdirs(sub, 0700, &err), &err);
    assert_ok(lj_io_replace_file(path, "one", 3, 0600, true, &err), &err);
    assert_ok(lj_io_replace_file(path, "two2", 4, 0600, false, &err), &err);
    LJ_CLEANUP(lj_freep) char *data = NULL;
    size_t len = 0;
    assert_ok(lj_io_read_file(path, 100, &data, &len, &err), &err);
    assert_string_equal(data, "two2");
    LJ_CLEANUP(lj_freep) char *none = NULL;
    assert_int_equal(lj_io_read_file(path, 3, &none, &len, &err), LJ_INVALID);
    assert_int_equal(lj_io_mkdirs(path, 0700, &err), LJ_NOTFOUND);
    LJ_CLEANUP(lj_freep) char *cleanup = lj_str_printf("rm -r %s", dir);
    assert_int_equal(system(cleanup), 0);
}

/* What has no size before its end: -config <(decrypt litestream.yml). */
static void pipes_are_read_to_their_end(void **state)
{
    (void)state;
    char content[20000];
    for (size_t i = 0; i < sizeof(content); i++)
        content[i] = (char)('a' + i % 26);
    static const size_t sizes[] = {0, 1, 4095, 4096, 4097, 8192, sizeof(content)};
    for (size_t i = 0; i < LJ_ARRAY_LEN(sizes); i++) {
        for (size_t less = 0; less <= LJ_MIN(sizes[i], (size_t)1); less++) {
            int ends[2];
            assert_int_equal(pipe(ends), 0);
            assert_int_equal(write(ends[1], content, sizes[i]), sizes[i]);
            close(ends[1]);
            lj_error err = LJ_ERROR_INIT;
            LJ_CLEANUP(lj_freep) char *path = lj_str_printf("/dev/fd/%d", ends[0]);
            LJ_CLEANUP(lj_freep) char *data = NULL;
            size_t len = 1;
            lj_code code = lj_io_read_file(path, sizes[i] - less, &data, &len, &err);
            close(ends[0]);
            if (less == 1) {
                assert_int_equal(code, LJ_INVALID);
                assert_null(data);
                continue;
            }
            assert_ok(code, &err);
            assert_int_equal(len, sizes[i]);
            assert_memory_equal(data, content, len);
            assert_int_equal(data[len], 0);
        }
    }
}

static void assert_content(const char *path, const char *expected)
{
    lj_error err = LJ_ERROR_INIT;
    LJ_CLEANUP(lj_freep) char *data = NULL;
    size_t len = 0;
    assert_ok(lj_io_read_file(path, 100, &data, &len, &err), &err);
    assert_string_equal(data, expected);
}

/* A host may have closed them, and print all the same. */
static void no_file_takes_the_place_of_stdio(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    int saved = dup(STDIN_FILENO);
    assert_true(saved > STDERR_FILENO);
    close(STDIN_FILENO);
    int fd = -1;
    lj_code code = lj_io_open("/dev/null", O_RDONLY, 0, &fd, &err);
    bool closed = fcntl(STDIN_FILENO, F_GETFD) < 0;
    dup2(saved, STDIN_FILENO);
    close(saved);
    assert_ok(code, &err);
    assert_true(closed);
    assert_true(fd > STDERR_FILENO);
    assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
    close(fd);
}

static void files_are_swapped_whole(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    char dir[] = "/tmp/lj_base_XXXXXX";
    assert_non_null(mkdtemp(dir));
    LJ_CLEANUP(lj_freep) char *path = lj_str_printf("%s/f", dir);
    LJ_CLEANUP(lj_freep) char *temp = lj_str_printf("%s.tmp", path);
    static const char *const texts[] = {"one", "a longer text", "", "four"};
    struct stat st[2];
    for (size_t i = 0; i < LJ_ARRAY_LEN(texts); i++) {
        assert_ok(lj_io_swap_file(path, texts[i], strlen(texts[i]), 0600, true, &err), &err);
        assert_content(path, texts[i]);
        if (i > 0)
            assert_content(temp, texts[i - 1]);
    }
    /* the same two files all the time */
    assert_int_equal(stat(path, &st[0]), 0);
    assert_ok(lj_io_swap_file(path, "five", 4, 0600, true, &err), &err);
    assert_int_equal(stat(temp, &st[1]), 0);
    assert_int_equal(st[0].st_ino, st[1].st_ino);
    /* what cannot be written leaves the file as it is, and nothing of another's is written through a link */
    assert_int_equal(unlink(temp), 0);
    assert_int_equal(symlink("f", temp), 0);
    assert_int_not_equal(lj_io_swap_file(path, "no", 2, 0600, true, &err), LJ_OK);
    assert_content(path, "five");
    LJ_CLEANUP(lj_freep) char *cleanup = lj_str_printf("rm -r %s", dir);
    assert_int_equal(system(cleanup), 0);
}

/* By both ways: a free name is taken, one that somebody has is not, and a link whose answer was lost is the one that is there. */
static void names_are_taken_once(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    char dir[] = "/tmp/lj_base_XXXXXX";
    assert_non_null(mkdtemp(dir));
    LJ_CLEANUP(lj_freep) char *from = lj_str_printf("%s/from", dir);
    LJ_CLEANUP(lj_freep) char *to = lj_str_printf("%s/to", dir);
    LJ_CLEANUP(lj_freep) char *nowhere = lj_str_printf("%s/no/folder", dir);
    for (int by_link = 0; by_link < 2; by_link++) {
        bool cannot = true;
        assert_ok(lj_io_replace_file(from, "one", 3, 0600, false, &err), &err);
        assert_int_equal(lj_io_take_name(from, to, by_link, &cannot), 0);
        assert_content(to, "one");
        assert_int_not_equal(access(from, F_OK), 0);
        assert_ok(lj_io_replace_file(from, "two", 3, 0600, false, &err), &err);
        assert_int_equal(lj_io_take_name(from, to, by_link, &cannot), -1);
        assert_int_equal(errno, EEXIST);
        assert_false(cannot);
        assert_content(to, "one");
        assert_content(from, "two");
        assert_int_equal(lj_io_take_name(from, nowhere, by_link, &cannot), -1);
        assert_int_equal(errno, ENOENT);
        assert_false(cannot);
        assert_int_equal(unlink(to), 0);
    }
    bool cannot = true;
    assert_int_equal(link(from, to), 0);
    assert_int_equal(lj_io_take_name(from, to, true, &cannot), 0);
    assert_content(to, "two");
    assert_int_not_equal(access(from, F_OK), 0);
    LJ_CLEANUP(lj_freep) char *cleanup = lj_str_printf("rm -r %s", dir);
    assert_int_equal(system(cleanup), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(time_round_trip),
        cmocka_unit_test(durations),
        cmocka_unit_test(hex_is_strict),
        cmocka_unit_test(json_text),
        cmocka_unit_test(buffers_have_a_maximum),
        cmocka_unit_test(errors_keep_the_root),
        cmocka_unit_test(files_are_replaced_whole),
        cmocka_unit_test(no_file_takes_the_place_of_stdio),
        cmocka_unit_test(pipes_are_read_to_their_end),
        cmocka_unit_test(files_are_swapped_whole),
        cmocka_unit_test(names_are_taken_once),
        cmocka_unit_test(times_at_the_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
