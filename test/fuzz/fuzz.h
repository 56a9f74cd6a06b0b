/*
 * fuzz.h - what every fuzz target agrees on.
 *
 * A target is one file fuzz_<name>.c with a LLVMFuzzerTestOneInput() that feeds the bytes to one pure parser and checks
 * what must hold for any input. It is linked to libFuzzer (meson option `fuzz`), or to replay.c, which runs the
 * corpus and a fixed set of variations of it as ordinary tests.
 */
#ifndef LJ_FUZZ_H
#define LJ_FUZZ_H

#include <stddef.h>
#include <stdint.h>

/* Always returns 0, as libFuzzer asks. `data` may be NULL when size is 0. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Ends the program after saying what did not hold, and for replay.c on which input. */
_Noreturn void fuzz_fail(const char *file, int line, const char *what);

#define FUZZ_CHECK(condition)                                                                      \
    do {                                                                                           \
        if (!(condition))                                                                          \
            fuzz_fail(__FILE__, __LINE__, #condition);                                             \
    } while (0)

#endif
