/*
 * bar.c - see bar.h.
 *
 * Layer: tools.
 */
#include "tools/bar.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vfs/base/clock.h"

#define CELLS 24u

void bar_init(bar *b, FILE *out)
{
    const char *term = getenv("TERM");
    bool terminal = isatty(fileno(out)) && (term == NULL || strcmp(term, "dumb") != 0);
    *b = (bar){.out = terminal ? out : NULL, .start_ns = lj_clock_mono_ns()};
}

static void format_bytes(double bytes, char out[16])
{
    static const char *const units[] = {"B", "KB", "MB", "GB", "TB"};
    size_t unit = 0;
    while (bytes >= 1000 && unit + 1 < LJ_ARRAY_LEN(units)) {
        bytes /= 1000;
        unit++;
    }
    snprintf(out, 16, unit == 0 ? "%.0f %s" : "%.1f %s", bytes, units[unit]);
}

void bar_show(void *ctx, const lj_restore_progress *progress)
{
    bar *b = ctx;
    if (b->out == NULL)
        return;
    double seconds = (double)(lj_clock_mono_ns() - b->start_ns) / (double)LJ_NS_PER_S;
    uint64_t total = LJ_MAX(progress->bytes_total, UINT64_C(1));
    uint64_t done = LJ_MIN(progress->bytes_done, total);
    double rate = seconds > 0 ? (double)done / seconds : 0;
    unsigned filled = (unsigned)(done * CELLS / total);
    char cells[CELLS + 1];
    memset(cells, ' ', CELLS);
    memset(cells, '#', filled);
    cells[CELLS] = 0;
    char done_text[16];
    char total_text[16];
    char rate_text[16];
    char eta[32] = "--:--";
    format_bytes((double)done, done_text);
    format_bytes((double)progress->bytes_total, total_text);
    format_bytes(rate, rate_text);
    if (rate > 0) {
        uint64_t left = (uint64_t)((double)(total - done) / rate + 0.5);
        snprintf(eta, sizeof(eta), "%02" PRIu64 ":%02" PRIu64, left / 60, left % 60);
    }
    fprintf(b->out, "\r%-8s [%s] %3u%%  %s / %s  %s/s  ETA %s\033[K", progress->phase, cells,
            (unsigned)(done * 100 / total), done_text, total_text, rate_text, eta);
    fflush(b->out);
    b->shown = true;
}

void bar_end(bar *b)
{
    if (b->out != NULL && b->shown)
        fputs("\r\033[K", b->out);
    b->shown = false;
}
