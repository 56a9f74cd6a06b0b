/*
 * flags.h - command-line flags as Go's flag package reads them, so that a Litestream v0.3.13 command line works unchanged:
 * -name value, -name=value, --name; a switch is -name or -name=true; the first argument that is no flag, or "--", ends
 * the flags. A text or a time that is empty is one that is not given, as in v0.3.13: a script may have a variable there.
 *
 * Layer: tools. Thread-safety: one thread.
 */
#ifndef LJ_TOOLS_FLAGS_H
#define LJ_TOOLS_FLAGS_H

#include "vfs/base/error.h"

typedef enum { FLAG_SWITCH, FLAG_TEXT, FLAG_NUMBER, FLAG_INDEX, FLAG_TIME } flag_kind;

typedef struct {
    const char *name;
    flag_kind kind;
    void *value; /* bool, const char * (never ""), int64_t, flag_index, int64_t (ns); by kind */
} flag_def;

/* A WAL index in hex. */
typedef struct {
    bool given;
    uint32_t value;
} flag_index;

/*
 * Reads the flags of argv[0..argc). *ret_used is the number of arguments taken. *ret_help is set (and reading stops) at
 * -h or -help. Errors: LJ_INVALID in the words of v0.3.13.
 */
LJ_WARN_UNUSED lj_code flags_read(const flag_def *defs, size_t count, char **argv, int argc,
                                  int *ret_used, bool *ret_help, lj_error *err);

#endif
