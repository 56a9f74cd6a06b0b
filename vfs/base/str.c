/*
 * str.c - see str.h.
 */
#include "vfs/base/str.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

char *lj_str_printf(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int need = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (need < 0)
        return NULL;
    char *text = malloc((size_t)need + 1);
    if (text == NULL)
        return NULL;
    va_start(ap, fmt);
    vsnprintf(text, (size_t)need + 1, fmt, ap);
    va_end(ap);
    return text;
}

char *lj_str_dup(const char *text)
{
    if (text == NULL)
        return NULL;
    size_t size = strlen(text) + 1;
    char *copy = malloc(size);
    if (copy != NULL)
        memcpy(copy, text, size);
    return copy;
}

bool lj_str_starts(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

bool lj_str_ends(const char *text, const char *suffix)
{
    size_t len = strlen(text);
    size_t suffix_len = strlen(suffix);
    return len >= suffix_len && memcmp(text + len - suffix_len, suffix, suffix_len) == 0;
}

bool lj_str_eq(const char *a, const char *b)
{
    if (a == NULL || b == NULL)
        return a == b;
    return strcmp(a, b) == 0;
}

bool lj_str_hex(const char *text, size_t digits, uint64_t *ret_value)
{
    uint64_t value = 0;
    if (digits == 0 || digits > 16)
        return false;
    for (size_t i = 0; i < digits; i++) {
        char c = text[i];
        unsigned digit;
        if (c >= '0' && c <= '9')
            digit = (unsigned)(c - '0');
        else if (c >= 'a' && c <= 'f')
            digit = (unsigned)(c - 'a' + 10);
        else
            return false;
        value = value << 4 | digit;
    }
    *ret_value = value;
    return true;
}

bool lj_str_u64(const char *text, uint64_t *ret_value)
{
    if (text[0] == 0)
        return false;
    uint64_t value = 0;
    for (; *text != 0; text++) {
        if (*text < '0' || *text > '9')
            return false;
        uint64_t digit = (uint64_t)(*text - '0');
        if (value > (UINT64_MAX - digit) / 10)
            return false;
        value = value * 10 + digit;
    }
    *ret_value = value;
    return true;
}

const char *lj_str_basename(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash == NULL ? path : slash + 1;
}

char *lj_str_dirname(const char *path)
{
    const char *slash = strrchr(path, '/');
    if (slash == NULL)
        return lj_str_dup(".");
    if (slash == path)
        return lj_str_dup("/");
    return lj_str_printf("%.*s", (int)(slash - path), path);
}

bool lj_str_cut_part(char *path)
{
    char *slash = strrchr(path, '/');
    if (slash == NULL || slash == path)
        return false;
    *slash = 0;
    return true;
}

char *lj_str_state_dir(const char *db_path)
{
    LJ_CLEANUP(lj_freep) char *dir = lj_str_dirname(db_path);
    return dir == NULL ? NULL : lj_str_printf("%s/.%s-litejoin", dir, lj_str_basename(db_path));
}

size_t lj_str_json(char *out, size_t out_size, const char *text)
{
    size_t n = 0;
    if (out_size < 3) {
        if (out_size > 0)
            out[0] = 0;
        return 0;
    }
    out[n++] = '"';
    for (; *text != 0; text++) {
        unsigned char c = (unsigned char)*text;
        char piece[8];
        if (c == '"' || c == '\\')
            snprintf(piece, sizeof(piece), "\\%c", c);
        else if (c == '\n')
            snprintf(piece, sizeof(piece), "\\n");
        else if (c < 0x20 || c == 0x7f)
            snprintf(piece, sizeof(piece), "\\u%04x", c);
        else
            snprintf(piece, sizeof(piece), "%c", c);
        size_t len = strlen(piece);
        if (n + len + 2 > out_size)
            break;
        memcpy(out + n, piece, len);
        n += len;
    }
    out[n++] = '"';
    out[n] = 0;
    return n;
}
