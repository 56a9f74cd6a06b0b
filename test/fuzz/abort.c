/*
 * abort.c - how a broken check ends a target under libFuzzer: abort(), so that the input is kept as a crash.
 */
#include "test/fuzz/fuzz.h"

#include <stdio.h>
#include <stdlib.h>

_Noreturn void fuzz_fail(const char *file, int line, const char *what)
{
    fprintf(stderr, "%s:%d: does not hold: %s\n", file, line, what);
    abort();
}
