/* retry_test.c - what passes by itself, and pauses: bounded, at least what the server asks for, cancelled at once. */
#include "test/unit/unit.h"

#include "vfs/base/clock.h"
#include "vfs/base/retry.h"

static void what_may_pass(void **state)
{
    (void)state;
    const struct {
        lj_code code;
        bool retryable;
        bool want;
    } rows[] = {
        {LJ_UNAVAILABLE, true, true}, {LJ_TIMEOUT, true, true},   {LJ_IO, true, true},
        {LJ_DENIED, true, false},     {LJ_NOSPACE, true, false},  {LJ_CORRUPT, false, false},
        {LJ_IO, false, false},        {LJ_NOTFOUND, true, false}, {LJ_CANCELLED, true, false}};
    for (size_t i = 0; i < LJ_ARRAY_LEN(rows); i++) {
        lj_error err = {.code = rows[i].code, .retryable = rows[i].retryable};
        assert_int_equal(lj_retry_may_pass(&err), rows[i].want);
    }
}

static int64_t pause_of(unsigned attempt, int64_t longest_ns, int64_t retry_after_ns)
{
    int64_t start_ns = lj_clock_mono_ns();
    assert_true(lj_retry_pause(attempt, LJ_NS_PER_MS, longest_ns, retry_after_ns, NULL, NULL));
    return lj_clock_mono_ns() - start_ns;
}

static void pauses(void **state)
{
    (void)state;
    for (unsigned attempt = 0; attempt < 100; attempt += 9)
        assert_true(pause_of(attempt, 5 * LJ_NS_PER_MS, 0) < 2 * LJ_NS_PER_S);
    assert_true(pause_of(0, LJ_NS_PER_MS, 60 * LJ_NS_PER_MS) >= 60 * LJ_NS_PER_MS);
}

static void a_flag_ends_it(void **state)
{
    (void)state;
    bool set = true;
    bool clear = false;
    int64_t start_ns = lj_clock_mono_ns();
    assert_false(lj_retry_pause(0, LJ_NS_PER_S, LJ_NS_PER_S, 30 * LJ_NS_PER_S, &set, NULL));
    assert_false(lj_retry_pause(0, LJ_NS_PER_S, LJ_NS_PER_S, 30 * LJ_NS_PER_S, &clear, &set));
    assert_true(lj_clock_mono_ns() - start_ns < 10 * LJ_NS_PER_S);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_may_pass),
        cmocka_unit_test(pauses),
        cmocka_unit_test(a_flag_ends_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
