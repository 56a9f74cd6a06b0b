/*
 * answer.c - see http.h: headers, times and statuses of an answer.
 *
 * Layer: storage. Thread-safety: pure.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "vfs/base/clock.h"
#include "vfs/base/str.h"
#include "vfs/storage/http/http.h"

#define RETRY_AFTER_MAX_NS (3600 * LJ_NS_PER_S)
#define YEAR_MAX           2261 /* the last whole one that fits into int64_t nanoseconds */

static const char *const months[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                     "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
static const char *const days[] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};

bool lj_http_header(const lj_http_response *response, const char *name, char *out, size_t size)
{
    size_t name_len = strlen(name);
    for (const char *line = lj_buf_text(&response->headers); *line != 0;) {
        size_t len = strcspn(line, "\n");
        if (len > name_len && strncmp(line, name, name_len) == 0 && line[name_len] == ':') {
            const char *value = line + name_len + 1;
            value += strspn(value, " \t");
            size_t value_len = (size_t)(line + len - value);
            if (value > line + len || value_len >= size)
                return false;
            memcpy(out, value, value_len);
            out[value_len] = 0;
            return true;
        }
        line += len + (line[len] == '\n');
    }
    return false;
}

/* Only the one form that is sent today; parsing and formatting are inverse, so there is one check for all mistakes. */
bool lj_http_date(const char *text, int64_t *ret_wall_ns)
{
    struct tm tm = {.tm_isdst = 0};
    char month[4] = "";
    char again[32];
    if (sscanf(text, "%*3c, %2d %3s %4d %2d:%2d:%2d GMT", &tm.tm_mday, month, &tm.tm_year,
               &tm.tm_hour, &tm.tm_min, &tm.tm_sec) != 6)
        return false;
    tm.tm_year -= 1900;
    while (tm.tm_mon < 12 && strcmp(months[tm.tm_mon], month) != 0)
        tm.tm_mon++;
    if (tm.tm_mon == 12 || tm.tm_year < 70 || tm.tm_year > YEAR_MAX - 1900)
        return false;
    time_t seconds = timegm(&tm);
    if (seconds < 0)
        return false;
    int64_t wall_ns = (int64_t)seconds * LJ_NS_PER_S;
    lj_http_date_format(wall_ns, again);
    if (strcmp(again, text) != 0)
        return false;
    *ret_wall_ns = wall_ns;
    return true;
}

void lj_http_date_format(int64_t wall_ns, char out[32])
{
    time_t seconds = (time_t)(wall_ns / LJ_NS_PER_S);
    struct tm tm;
    gmtime_r(&seconds, &tm);
    (void)snprintf(out, 32, "%s, %02d %s %04d %02d:%02d:%02d GMT", days[tm.tm_wday], tm.tm_mday,
                   months[tm.tm_mon], (tm.tm_year + 1900) % 10000, tm.tm_hour, tm.tm_min,
                   tm.tm_sec);
}

int64_t lj_http_retry_after_ns(const lj_http_response *response)
{
    char text[64];
    uint64_t seconds = 0;
    int64_t at_ns = 0;
    if (!lj_http_header(response, "retry-after", text, sizeof(text)))
        return 0;
    if (lj_str_u64(text, &seconds))
        return (int64_t)LJ_MIN(seconds, (uint64_t)(RETRY_AFTER_MAX_NS / LJ_NS_PER_S)) * LJ_NS_PER_S;
    if (!lj_http_date(text, &at_ns))
        return 0;
    return LJ_MIN(LJ_MAX(at_ns - lj_clock_wall_ns(), INT64_C(0)), RETRY_AFTER_MAX_NS);
}

static lj_code code_of(int status, bool *ret_retryable)
{
    *ret_retryable = true;
    switch (status) {
    case 401:
    case 403:
    case 407:
        return LJ_DENIED;
    case 404:
        *ret_retryable = false;
        return LJ_NOTFOUND;
    case 408:
        return LJ_TIMEOUT;
    case 412:
        *ret_retryable = false;
        return LJ_EXISTS;
    case 429:
        return LJ_UNAVAILABLE;
    case 507:
        return LJ_NOSPACE;
    default:
        break;
    }
    if (status >= 400 && status < 500) {
        *ret_retryable = false;
        return LJ_INVALID;
    }
    return LJ_UNAVAILABLE;
}

/* Drivers that know better replace it. */
static const char *hint_of(int status)
{
    if (status == 429 || status == 503)
        return "the server asks for fewer requests; what waits is sent later";
    if (status >= 500 && status != 501 && status != 507)
        return "nothing to do unless it lasts; then ask who runs the server";
    return "";
}

/* What a server says goes into messages and logs: one line, no control characters. */
static void make_printable(char *text)
{
    for (; *text != 0; text++)
        if ((unsigned char)*text < 0x20 || *text == 0x7f)
            *text = ' ';
}

lj_code lj_http_status_error(const lj_http_response *response, const char *what, const char *detail,
                             lj_error *err)
{
    bool retryable = false;
    lj_code code = code_of(response->status, &retryable);
    bool has_detail = detail != NULL && detail[0] != 0;
    lj_error_set(err, code, "%s: HTTP %d%s%s", what, response->status, has_detail ? ": " : "",
                 has_detail ? detail : "");
    if (err != NULL) {
        make_printable(err->message);
        (void)lj_error_hint(err, "%s", hint_of(response->status));
        err->http_status = response->status;
        err->retry_after_ns = lj_http_retry_after_ns(response);
    }
    (void)lj_error_retryable(err, retryable);
    return code; /* also without an lj_error */
}
