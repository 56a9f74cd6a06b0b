/*
 * exit_code.h - what the process returns.
 *
 * Litestream v0.3.13 returns 0 or 1, and scripts rely on it: so does this tool. With `-exit-codes` a failed command returns
 * 10 + the number of its lj_code instead (vfs/base/error.h), so that a script can tell the causes apart.
 *
 * Layer: tools.
 */
#ifndef LJ_TOOLS_EXIT_CODE_H
#define LJ_TOOLS_EXIT_CODE_H

#include "vfs/base/error.h"

#define EXIT_CODE_BASE 10

static inline int exit_code(lj_code code, bool distinct)
{
    if (code == LJ_OK)
        return 0;
    return distinct ? EXIT_CODE_BASE + (int)code : 1;
}

#endif
