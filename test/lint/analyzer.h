/*
 * analyzer.h - tells clang's analyzer what the functions of vfs/base/error.h return; included by lint.py in front of
 * every file, and by nothing else.
 *
 * They return the code they were given, never LJ_OK, but are compiled elsewhere, so the analyzer would follow paths on
 * which a function that failed says it succeeded, and report what it left unset.
 */
#ifndef LJ_LINT_ANALYZER_H
#define LJ_LINT_ANALYZER_H

#include "vfs/base/error.h"

#define lj_error_set(err, code, ...) (lj_error_set(err, code, __VA_ARGS__), (code))
#define lj_error_nomem(err)          (lj_error_nomem(err), LJ_NOMEM)

static inline lj_code lj_lint_failed(lj_code code)
{
    return code != LJ_OK ? code : LJ_INTERNAL;
}

#define lj_error_errno(err, sys_errno, ...)                                                        \
    lj_lint_failed(lj_error_errno(err, sys_errno, __VA_ARGS__))
#define lj_error_hint(err, ...)    lj_lint_failed(lj_error_hint(err, __VA_ARGS__))
#define lj_error_context(err, ...) lj_lint_failed(lj_error_context(err, __VA_ARGS__))

#endif
