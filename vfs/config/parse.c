/*
 * parse.c - texts to values, and checks of texts; see options.h.
 *
 * Layer: config. Thread-safety: pure.
 */
#include "vfs/config/options.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

#include "vfs/base/str.h"

bool lj_option_parse_bool(const char *text, bool *ret)
{
    static const char *const words[][2] = {
        {"false", "true"}, {"no", "yes"}, {"off", "on"}, {"0", "1"}};
    for (size_t i = 0; i < LJ_ARRAY_LEN(words); i++) {
        for (int value = 0; value < 2; value++) {
            if (strcasecmp(text, words[i][value]) == 0) {
                *ret = value != 0;
                return true;
            }
        }
    }
    return false;
}

bool lj_option_parse_size(const char *text, uint64_t *ret_bytes)
{
    static const struct {
        const char *name;
        uint64_t bytes;
    } units[] = {
        {"", 1},
        {"K", 1024},
        {"M", 1024 * 1024},
        {"G", 1024 * 1024 * 1024},
        {"KiB", 1024},
        {"MiB", 1024 * 1024},
        {"GiB", 1024 * 1024 * 1024},
        {"KB", 1000},
        {"MB", 1000 * 1000},
        {"GB", 1000 * 1000 * 1000},
    };
    char digits[24];
    size_t len = strspn(text, "0123456789");
    if (len == 0 || len >= sizeof(digits))
        return false;
    memcpy(digits, text, len);
    digits[len] = 0;
    uint64_t number = 0;
    if (!lj_str_u64(digits, &number))
        return false;
    const char *unit = text + len;
    if (unit[0] == ' ' && unit[1] != 0)
        unit++;
    for (size_t i = 0; i < LJ_ARRAY_LEN(units); i++) {
        if (strcasecmp(unit, units[i].name) == 0) {
            if (number > UINT64_MAX / units[i].bytes)
                return false;
            *ret_bytes = number * units[i].bytes;
            return true;
        }
    }
    return false;
}

const char *lj_option_check_text(const char *value, const char **ret_hint)
{
    if (value[0] == 0) {
        *ret_hint = "leave the option out to get its default";
        return "is empty";
    }
    for (const char *p = value; *p != 0; p++) {
        if (iscntrl((unsigned char)*p))
            return "has a control character";
    }
    return NULL;
}

const char *lj_option_check_name(const char *value, const char **ret_hint)
{
    const char *reason = lj_option_check_text(value, ret_hint);
    if (reason != NULL)
        return reason;
    if (strcmp(value, ".") == 0 || strcmp(value, "..") == 0)
        return "is no name";
    if (strpbrk(value, "/?#") != NULL)
        return "has a '/', '?' or '#'";
    if (strlen(value) > 255)
        return "is longer than 255 bytes";
    return NULL;
}

bool lj_option_is_secret(const char *key, size_t len)
{
    static const char *const parts[] = {
        "secret",     "password",  "passwd",      "passphrase",      "token",
        "credential", "signature", "accesskey",   "apikey",          "privatekey",
        "accountkey", "identity",  "customerkey", "connectionstring"};
    static const char *const whole[] = {"sig", "key", "pass", "pwd", "auth", "authorization"};
    char folded[64];
    size_t n = 0;
    for (size_t i = 0; i < len && n + 1 < sizeof(folded); i++) {
        if (isalnum((unsigned char)key[i]))
            folded[n++] = (char)tolower((unsigned char)key[i]);
    }
    folded[n] = 0;
    for (size_t i = 0; i < LJ_ARRAY_LEN(parts); i++) {
        if (strstr(folded, parts[i]) != NULL)
            return true;
    }
    for (size_t i = 0; i < LJ_ARRAY_LEN(whole); i++) {
        if (strcmp(folded, whole[i]) == 0)
            return true;
    }
    return false;
}
