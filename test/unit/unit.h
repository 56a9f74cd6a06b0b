/* unit.h - what every cmocka test of this project includes, in the order cmocka wants it. */
#ifndef LJ_UNIT_H
#define LJ_UNIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "vfs/base/error.h"

/* Asserts that a call gave LJ_OK, printing its message when it did not. */
#define assert_ok(expr, err)                                                                       \
    do {                                                                                           \
        lj_code unit_code_ = (expr);                                                               \
        if (unit_code_ != LJ_OK)                                                                   \
            fail_msg("%s: %s: %s", #expr, lj_code_text(unit_code_), (err)->message);               \
    } while (0)

#endif
