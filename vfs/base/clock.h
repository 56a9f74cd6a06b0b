/*
 * clock.h - the only source of time, and its text forms.
 *
 * Layer: base. Thread-safety: pure. Wall time is int64_t nanoseconds UTC since 1970; monotonic time is
 * int64_t nanoseconds since an arbitrary start.
 */
#ifndef LJ_CLOCK_H
#define LJ_CLOCK_H

#include "vfs/base/error.h"

int64_t lj_clock_wall_ns(void);
int64_t lj_clock_mono_ns(void);
void lj_clock_sleep_ns(int64_t ns);

#define LJ_CLOCK_TEXT_MAX 40
/* "2026-01-02T03:04:05Z" (RFC 3339, UTC, whole seconds). */
void lj_clock_format(int64_t wall_ns, char out[LJ_CLOCK_TEXT_MAX]);
/* The same with nine digits of fraction. */
void lj_clock_format_ns(int64_t wall_ns, char out[LJ_CLOCK_TEXT_MAX]);
/*
 * Parses RFC 3339: date, 'T' or 't' or a space, time, optional fraction (1..9 digits used), 'Z' or an
 * offset like +02:00. Errors: LJ_INVALID with the accepted form in the hint.
 */
LJ_WARN_UNUSED lj_code lj_clock_parse(const char *text, int64_t *ret_wall_ns, lj_error *err);
/*
 * Parses a duration in Go's form: a sequence of decimal numbers with a unit ("ns", "us", "ms", "s", "m",
 * "h"), e.g. "1h30m", "500ms", "1.5s"; "0" alone is zero. Not negative. Errors: LJ_INVALID.
 */
LJ_WARN_UNUSED lj_code lj_clock_parse_duration(const char *text, int64_t *ret_ns, lj_error *err);
/* The same form back, e.g. "1h30m0s", "500ms". */
void lj_clock_format_duration(int64_t ns, char out[LJ_CLOCK_TEXT_MAX]);

#endif
