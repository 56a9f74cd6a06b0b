/*
 * fuzz_time.c - times and durations as an operator types them: what is accepted prints in a form that is accepted
 * again and means the same.
 */
#include "test/fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "vfs/base/clock.h"

/* Up to here the parser, which sums in doubles, is exact to the nanosecond (about 52 days). */
#define EXACT_DURATION_NS (INT64_C(1) << 52)

static void check_time(const char *text)
{
    lj_error err = LJ_ERROR_INIT;
    int64_t ns = -1;
    if (lj_clock_parse(text, &ns, &err) != LJ_OK) {
        FUZZ_CHECK(ns == -1 && err.code == LJ_INVALID && err.hint[0] != 0);
        return;
    }
    char exact[LJ_CLOCK_TEXT_MAX];
    char seconds[LJ_CLOCK_TEXT_MAX];
    lj_clock_format_ns(ns, exact);
    int64_t back = -1;
    FUZZ_CHECK(lj_clock_parse(exact, &back, &err) == LJ_OK && back == ns);
    lj_clock_format(ns, seconds);
    FUZZ_CHECK(lj_clock_parse(seconds, &back, &err) == LJ_OK);
    FUZZ_CHECK(back <= ns && ns - back < LJ_NS_PER_S);
}

static void check_duration(const char *text)
{
    lj_error err = LJ_ERROR_INIT;
    int64_t ns = -1;
    if (lj_clock_parse_duration(text, &ns, &err) != LJ_OK) {
        FUZZ_CHECK(ns == -1 && err.code == LJ_INVALID && err.hint[0] != 0);
        return;
    }
    FUZZ_CHECK(ns >= 0);
    char again[LJ_CLOCK_TEXT_MAX];
    lj_clock_format_duration(ns, again);
    int64_t back = -1;
    FUZZ_CHECK(lj_clock_parse_duration(again, &back, &err) == LJ_OK);
    FUZZ_CHECK(ns > EXACT_DURATION_NS || back == ns);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1);
    if (text == NULL)
        return 0;
    if (size > 0)
        memcpy(text, data, size);
    text[size] = 0;
    check_time(text);
    check_duration(text);
    free(text);
    return 0;
}
