/*
 * bar.h - a progress bar with rate and remaining time on a terminal; nothing anywhere else.
 *
 * Layer: tools. Thread-safety: bar_show may be called by any thread, one at a time (as lj_restore_progress_fn is).
 */
#ifndef LJ_TOOLS_BAR_H
#define LJ_TOOLS_BAR_H

#include <stdio.h>

#include "vfs/restore/restore.h"

typedef struct {
    FILE *out; /* NULL: silent */
    int64_t start_ns;
    bool shown;
} bar;

/* Silent unless `out` is a terminal. */
void bar_init(bar *b, FILE *out);
/* An lj_restore_progress_fn; ctx is the bar. */
void bar_show(void *ctx, const lj_restore_progress *progress);
/* Clears the line, so that the next message starts at its beginning. */
void bar_end(bar *b);

#endif
