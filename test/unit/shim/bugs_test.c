/*
 * bugs_test.c - which versions of SQLite have the WAL-reset bug.
 */
#include "test/unit/unit.h"

#include "vfs/base/log.h"
#include "vfs/shim/bugs.h"

static void wal_reset_by_version(void **state)
{
    (void)state;
    static const struct {
        int version;
        bool has_it;
    } rows[] = {
        {3006023, false}, {3007000, true},  {3040000, true},  {3040001, true},  {3043002, true},
        {3044000, true},  {3044005, true},  {3044006, false}, {3044009, false}, {3045000, true},
        {3046001, true},  {3049002, true},  {3050000, true},  {3050006, true},  {3050007, false},
        {3050012, false}, {3051000, true},  {3051002, true},  {3051003, false}, {3052000, false},
        {3053000, false}, {3053004, false}, {4000000, false},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (lj_bugs_wal_reset(rows[i].version) != rows[i].has_it)
            fail_msg("version %d", rows[i].version);
    }
}

static int lines;

static void count_line(void *ctx, lj_log_level level, const char *line)
{
    (void)ctx;
    assert_int_equal(level, LJ_LOG_WARN);
    assert_non_null(strstr(line, "3.40.1"));
    assert_non_null(strstr(line, "3.51.3"));
    lines++;
}

static void told_once(void **state)
{
    (void)state;
    lj_log_install(count_line, NULL, LJ_LOG_INFO);
    lj_bugs_warn_once(3051003, "3.51.3");
    assert_int_equal(lines, 0);
    for (int i = 0; i < 3; i++)
        lj_bugs_warn_once(3040001, "3.40.1");
    assert_int_equal(lines, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wal_reset_by_version),
        cmocka_unit_test(told_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
