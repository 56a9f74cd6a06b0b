/*
 * clock.c - see clock.h. The civil-date arithmetic is the usual days-from-civil formula over 400-year eras.
 */
#include "vfs/base/clock.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

int64_t lj_clock_wall_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    return (int64_t)ts.tv_sec * LJ_NS_PER_S + ts.tv_nsec;
}

int64_t lj_clock_mono_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * LJ_NS_PER_S + ts.tv_nsec;
}

void lj_clock_sleep_ns(int64_t ns)
{
    if (ns <= 0)
        return;
    struct timespec ts = {.tv_sec = (time_t)(ns / LJ_NS_PER_S),
                          .tv_nsec = (long)(ns % LJ_NS_PER_S)};
    while (nanosleep(&ts, &ts) != 0 && errno == EINTR) {
    }
}

/* Floor division, so that times before 1970 print right too. */
static int64_t split_seconds(int64_t wall_ns, long *ret_ns)
{
    int64_t s = wall_ns / LJ_NS_PER_S;
    int64_t ns = wall_ns % LJ_NS_PER_S;
    if (ns < 0) {
        ns += LJ_NS_PER_S;
        s--;
    }
    *ret_ns = (long)ns;
    return s;
}

static void format_parts(int64_t wall_ns, bool fraction, char out[LJ_CLOCK_TEXT_MAX])
{
    long ns = 0;
    time_t seconds = (time_t)split_seconds(wall_ns, &ns);
    struct tm tm;
    memset(&tm, 0, sizeof(tm));
    gmtime_r(&seconds, &tm);
    size_t n = strftime(out, LJ_CLOCK_TEXT_MAX, "%Y-%m-%dT%H:%M:%S", &tm);
    if (fraction)
        snprintf(out + n, LJ_CLOCK_TEXT_MAX - n, ".%09ldZ", ns);
    else
        snprintf(out + n, LJ_CLOCK_TEXT_MAX - n, "Z");
}

void lj_clock_format(int64_t wall_ns, char out[LJ_CLOCK_TEXT_MAX])
{
    format_parts(wall_ns, false, out);
}

void lj_clock_format_ns(int64_t wall_ns, char out[LJ_CLOCK_TEXT_MAX])
{
    format_parts(wall_ns, true, out);
}

/* Reads exactly n digits; false when one is missing. */
static bool take_digits(const char **p, int n, int *ret)
{
    int value = 0;
    for (int i = 0; i < n; i++) {
        if (!isdigit((unsigned char)(*p)[i]))
            return false;
        value = value * 10 + ((*p)[i] - '0');
    }
    *p += n;
    *ret = value;
    return true;
}

static bool take_char(const char **p, const char *allowed)
{
    if (**p == 0 || strchr(allowed, **p) == NULL)
        return false;
    (*p)++;
    return true;
}

/* Whole seconds that fit into 64 bits of nanoseconds: the years 1677 to 2262. */
#define SECONDS_MAX (INT64_MAX / LJ_NS_PER_S)

static int64_t days_from_civil(int64_t y, int m, int d)
{
    y -= m <= 2;
    int64_t era = (y >= 0 ? y : y - 399) / 400;
    int64_t yoe = y - era * 400;
    int64_t doy = (153 * (m + (m > 2 ? -3 : 9)) + 2) / 5 + d - 1;
    int64_t doe = yoe * 365 + yoe / 4 - yoe / 100 + doy;
    return era * 146097 + doe - 719468;
}

static bool days_in_month_ok(int y, int m, int d)
{
    static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    if (m < 1 || m > 12)
        return false;
    bool leap = (y % 4 == 0 && y % 100 != 0) || y % 400 == 0;
    int last = days[m - 1] + (m == 2 && leap ? 1 : 0);
    return d >= 1 && d <= last;
}

static bool parse_fraction(const char **p, long *ret_ns)
{
    *ret_ns = 0;
    if (**p != '.')
        return true;
    (*p)++;
    if (!isdigit((unsigned char)**p))
        return false;
    long scale = 100000000;
    for (; isdigit((unsigned char)**p); (*p)++) {
        *ret_ns += (**p - '0') * scale;
        scale /= 10;
    }
    return true;
}

static bool parse_zone(const char **p, int *ret_offset_s)
{
    *ret_offset_s = 0;
    if (take_char(p, "Zz"))
        return true;
    int sign = **p == '-' ? -1 : 1;
    int hours = 0;
    int minutes = 0;
    if (!take_char(p, "+-") || !take_digits(p, 2, &hours) || !take_char(p, ":") ||
        !take_digits(p, 2, &minutes) || hours > 23 || minutes > 59)
        return false;
    *ret_offset_s = sign * (hours * 3600 + minutes * 60);
    return true;
}

static bool parse_time(const char *p, int64_t *ret)
{
    int y = 0, mo = 0, d = 0, h = 0, mi = 0, s = 0, offset = 0;
    long ns = 0;
    bool ok = take_digits(&p, 4, &y) && take_char(&p, "-") && take_digits(&p, 2, &mo) &&
              take_char(&p, "-") && take_digits(&p, 2, &d) && take_char(&p, "Tt ") &&
              take_digits(&p, 2, &h) && take_char(&p, ":") && take_digits(&p, 2, &mi) &&
              take_char(&p, ":") && take_digits(&p, 2, &s) && parse_fraction(&p, &ns) &&
              parse_zone(&p, &offset) && *p == 0;
    if (!ok || !days_in_month_ok(y, mo, d) || h > 23 || mi > 59 || s > 60)
        return false;
    int64_t seconds = days_from_civil(y, mo, d) * 86400 + h * 3600 + mi * 60 + s - offset;
    if (seconds <= -SECONDS_MAX || seconds >= SECONDS_MAX)
        return false;
    *ret = seconds * LJ_NS_PER_S + ns;
    return true;
}

lj_code lj_clock_parse(const char *text, int64_t *ret_wall_ns, lj_error *err)
{
    if (!parse_time(text, ret_wall_ns)) {
        lj_error_set(err, LJ_INVALID, "'%s' is not a time", text);
        return lj_error_hint(err, "write it as RFC 3339, e.g. 2026-01-02T15:04:05Z");
    }
    return LJ_OK;
}

static const struct {
    const char *name;
    int64_t ns;
} duration_units[] = {
    {"ns", 1},
    {"us", 1000},
    {"ms", LJ_NS_PER_MS},
    {"s", LJ_NS_PER_S},
    {"m", 60 * LJ_NS_PER_S},
    {"h", 3600 * LJ_NS_PER_S},
};

/* One "<number><unit>" at *p; returns nanoseconds or -1. */
static double take_duration_part(const char **p)
{
    double value = 0;
    double scale = 1;
    bool digits = false;
    for (; isdigit((unsigned char)**p); (*p)++, digits = true)
        value = value * 10 + (**p - '0');
    if (**p == '.') {
        (*p)++;
        for (; isdigit((unsigned char)**p); (*p)++, digits = true) {
            scale /= 10;
            value += (**p - '0') * scale;
        }
    }
    if (!digits)
        return -1;
    size_t unit_len = strcspn(*p, "0123456789.");
    for (size_t i = 0; i < LJ_ARRAY_LEN(duration_units); i++) {
        if (strlen(duration_units[i].name) == unit_len &&
            memcmp(duration_units[i].name, *p, unit_len) == 0) {
            *p += unit_len;
            return value * (double)duration_units[i].ns;
        }
    }
    return -1;
}

lj_code lj_clock_parse_duration(const char *text, int64_t *ret_ns, lj_error *err)
{
    const char *p = text;
    double total = 0;
    bool ok = *p != 0;
    if (strcmp(text, "0") == 0)
        p++;
    while (ok && *p != 0) {
        double part = take_duration_part(&p);
        ok = part >= 0;
        total += part;
    }
    if (!ok || total > 9.0e18) {
        lj_error_set(err, LJ_INVALID, "'%s' is not a duration", text);
        return lj_error_hint(err, "write it like 500ms, 1s, 1h30m");
    }
    *ret_ns = (int64_t)(total + 0.5);
    return LJ_OK;
}

/* Appends "<whole>.<fraction><unit>" to out, the fraction (so many digits) without its trailing zeros. */
static void append_decimal(char out[LJ_CLOCK_TEXT_MAX], int64_t whole, int64_t fraction, int digits,
                           const char *unit)
{
    for (; digits > 0 && fraction % 10 == 0; digits--)
        fraction /= 10;
    size_t n = strlen(out);
    if (digits == 0)
        snprintf(out + n, LJ_CLOCK_TEXT_MAX - n, "%lld%s", (long long)whole, unit);
    else
        snprintf(out + n, LJ_CLOCK_TEXT_MAX - n, "%lld.%0*lld%s", (long long)whole, digits,
                 (long long)fraction, unit);
}

void lj_clock_format_duration(int64_t ns, char out[LJ_CLOCK_TEXT_MAX])
{
    out[0] = 0;
    int64_t s = ns / LJ_NS_PER_S;
    if (ns == 0)
        append_decimal(out, 0, 0, 0, "s");
    else if (ns < LJ_NS_PER_MS)
        append_decimal(out, ns, 0, 0, "ns");
    else if (s == 0)
        append_decimal(out, ns / LJ_NS_PER_MS, ns % LJ_NS_PER_MS, 6, "ms");
    else {
        if (s >= 3600)
            append_decimal(out, s / 3600, 0, 0, "h");
        if (s >= 60)
            append_decimal(out, s / 60 % 60, 0, 0, "m");
        append_decimal(out, s % 60, ns % LJ_NS_PER_S, 9, "s");
    }
}
