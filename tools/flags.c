/*
 * flags.c - see flags.h.
 *
 * Layer: tools. Thread-safety: one thread.
 */
#include "tools/flags.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vfs/base/clock.h"
#include "vfs/base/str.h"
#include "vfs/replica/name.h"

static const flag_def *find_flag(const flag_def *defs, size_t count, const char *name, size_t len)
{
    for (size_t i = 0; i < count; i++)
        if (strlen(defs[i].name) == len && strncmp(defs[i].name, name, len) == 0)
            return &defs[i];
    return NULL;
}

/* The spellings Go's strconv.ParseBool takes. */
static bool parse_bool(const char *text, bool *ret)
{
    static const char *const yes[] = {"1", "t", "T", "true", "TRUE", "True"};
    static const char *const no[] = {"0", "f", "F", "false", "FALSE", "False"};
    for (size_t i = 0; i < LJ_ARRAY_LEN(yes); i++) {
        if (strcmp(text, yes[i]) == 0 || strcmp(text, no[i]) == 0) {
            *ret = strcmp(text, yes[i]) == 0;
            return true;
        }
    }
    return false;
}

static lj_code set_index(const flag_def *def, const char *text, lj_error *err)
{
    flag_index *index = def->value;
    char *end = NULL;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 16);
    bool digits = text[0] != 0 && strspn(text, "0123456789abcdefABCDEF") == strlen(text);
    if (!digits || errno != 0 || value > LJ_INDEX_MAX) {
        lj_error_set(err, LJ_INVALID,
                     "invalid value \"%s\" for flag -%s: invalid hexadecimal format", text,
                     def->name);
        return lj_error_hint(err, "a WAL index is up to 8 hex digits, at most 7fffffff");
    }
    /* the highest index there can be means no limit */
    *index = (flag_index){.given = value != LJ_INDEX_MAX, .value = (uint32_t)value};
    return LJ_OK;
}

static lj_code set_time(int64_t *time_ns, const char *text, lj_error *err)
{
    int64_t value = 0;
    if (text[0] == 0) {
        *time_ns = 0;
        return LJ_OK;
    }
    if (lj_clock_parse(text, &value, NULL) != LJ_OK) {
        lj_error_set(err, LJ_INVALID,
                     "invalid -timestamp, must specify in ISO 8601 format (e.g. "
                     "2000-01-01T00:00:00Z)");
        return lj_error_hint(err,
                             "\"%s\" is not a date, a T, a time and Z or an offset like "
                             "+02:00",
                             text);
    }
    *time_ns = value == 0 ? 1 : value; /* 0 stands for "no time given" */
    return LJ_OK;
}

static lj_code set_number(const flag_def *def, const char *text, lj_error *err)
{
    char *end = NULL;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (text[0] == 0 || *end != 0 || errno != 0)
        return lj_error_set(err, LJ_INVALID, "invalid value \"%s\" for flag -%s: parse error", text,
                            def->name);
    *(int64_t *)def->value = value;
    return LJ_OK;
}

static lj_code set_flag(const flag_def *def, const char *text, lj_error *err)
{
    switch (def->kind) {
    case FLAG_SWITCH:
        if (!parse_bool(text, def->value))
            return lj_error_set(err, LJ_INVALID,
                                "invalid boolean value \"%s\" for -%s: parse error", text,
                                def->name);
        return LJ_OK;
    case FLAG_TEXT:
        *(const char **)def->value = text[0] != 0 ? text : NULL;
        return LJ_OK;
    case FLAG_NUMBER:
        return set_number(def, text, err);
    case FLAG_INDEX:
        return set_index(def, text, err);
    case FLAG_TIME:
        return set_time(def->value, text, err);
    }
    return lj_error_set(err, LJ_INTERNAL, "flag -%s has no kind", def->name);
}

lj_code flags_read(const flag_def *defs, size_t count, char **argv, int argc, int *ret_used,
                   bool *ret_help, lj_error *err)
{
    int i = 0;
    while (i < argc) {
        const char *arg = argv[i];
        if (arg[0] != '-' || arg[1] == 0)
            break;
        i++;
        if (strcmp(arg, "--") == 0)
            break;
        const char *name = arg + (arg[1] == '-' ? 2 : 1);
        size_t len = strcspn(name, "=");
        if (len == 0 || name[0] == '-')
            return lj_error_set(err, LJ_INVALID, "bad flag syntax: %s", arg);
        const flag_def *def = find_flag(defs, count, name, len);
        if (def == NULL) {
            if (strcmp(name, "h") == 0 || strcmp(name, "help") == 0) {
                *ret_help = true;
                return LJ_OK;
            }
            return lj_error_set(err, LJ_INVALID, "flag provided but not defined: -%.*s", (int)len,
                                name);
        }
        const char *value = name[len] == '=' ? name + len + 1 : NULL;
        if (value == NULL && def->kind == FLAG_SWITCH)
            value = "true";
        if (value == NULL) {
            if (i == argc)
                return lj_error_set(err, LJ_INVALID, "flag needs an argument: -%s", def->name);
            value = argv[i++];
        }
        LJ_TRY(set_flag(def, value, err));
    }
    *ret_used = i;
    return LJ_OK;
}
