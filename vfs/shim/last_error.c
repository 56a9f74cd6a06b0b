/*
 * last_error.c - why the last open or call of this thread failed; SQLite itself can only say "unable to open database file".
 *
 * Layer: shim. Thread-safety: one buffer per thread.
 */
#include "vfs/shim/handle.h"

static _Thread_local char last_error[LJ_ERROR_TEXT_MAX];

void lj_last_error_set(const lj_error *err)
{
    lj_error_format(err, last_error, sizeof(last_error));
}

void lj_last_error_clear(void)
{
    last_error[0] = 0;
}

const char *lj_last_error_text(void)
{
    return last_error;
}
