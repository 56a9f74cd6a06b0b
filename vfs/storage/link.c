/*
 * link.c - see link.h.
 *
 * Layer: storage.
 */
#include "vfs/storage/link.h"

#include <string.h>

#include "vfs/base/str.h"

#define GENERATION_DIGITS 16u

/* What stands behind `part` in *at, which is moved there. */
static bool skip(const char **at, const char *part)
{
    if (!lj_str_starts(*at, part))
        return false;
    *at += strlen(part);
    return true;
}

bool lj_link_is_followed(const char *key)
{
    uint64_t ignored = 0;
    if (!skip(&key, "generations/"))
        return false;
    if (*key == 0)
        return true;
    if (strlen(key) <= GENERATION_DIGITS || !lj_str_hex(key, GENERATION_DIGITS, &ignored))
        return false;
    key += GENERATION_DIGITS;
    if (strcmp(key, "/") == 0)
        return true;
    if (!skip(&key, "/snapshots/") && !skip(&key, "/wal/"))
        return false;
    return *key == 0 || (strchr(key, '/') == NULL && lj_str_ends(key, ".lz4"));
}
