/*
 * uri.c - parameters of a database's URI.
 *
 * Layer: config. Thread-safety: pure over the two callbacks.
 */
#include "vfs/config/config.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "vfs/base/str.h"
#include "vfs/config/options.h"

#define URI_PREFIX "litejoin_"
#define OUR_NAME   "litejoin"

/*
 * LITEJOIN_DURABILITY, litejoin-durability and litejoin.durability are nobody else's: where the option's name would begin, else NULL.
 */
static const char *behind_our_name(const char *key)
{
    if (strncasecmp(key, OUR_NAME, strlen(OUR_NAME)) != 0)
        return NULL;
    const char *rest = key + strlen(OUR_NAME);
    return *rest != 0 && strchr("_-.", *rest) != NULL ? rest + 1 : rest;
}

/* durabilty=remote is not somebody else's parameter. (What looks like "mode" is: that option has its prefix.) */
static bool is_misspelt(const char *key)
{
    const char *name = lj_option_misspelt(key, LJ_ORIGIN_URI);
    return name != NULL && !lj_option_find(name, NULL)->uri_prefix_only;
}

static lj_code take(lj_config *config, const char *key, const char *value, bool *seen,
                    lj_error *err)
{
    bool prefixed = lj_str_starts(key, URI_PREFIX);
    const char *name = prefixed ? key + strlen(URI_PREFIX) : key;
    size_t index = 0;
    const lj_option *option = lj_option_find(name, &index);
    if (option != NULL && option->uri_prefix_only && !prefixed)
        return LJ_OK;
    if (option == NULL) {
        const char *rest = behind_our_name(key);
        if (rest == NULL && !lj_str_starts(key, "replica_") && !is_misspelt(key))
            return LJ_OK;
        return lj_option_unknown(LJ_ORIGIN_URI, key, rest != NULL ? rest : name, value, err);
    }
    if (seen[index]) {
        lj_error_set(err, LJ_INVALID, "%.80s is given twice; allowed: once", key);
        return lj_error_hint(err, "%s and litejoin_%s are the same option", name, name);
    }
    seen[index] = true;
    return lj_option_set(config, LJ_ORIGIN_URI, option, key, value, err);
}

lj_code lj_config_load_uri(lj_config *config, lj_config_lookup lookup, lj_config_key_at key_at,
                           void *ctx, lj_error *err)
{
    LJ_CLEANUP(lj_config_clear) lj_config work;
    memset(&work, 0, sizeof(work));
    LJ_TRY(lj_config_copy(config, &work, err));
    bool seen[LJ_CONFIG_OPTION_MAX] = {false};
    const char *key;
    for (int i = 0; (key = key_at(ctx, i)) != NULL; i++) {
        const char *value = lookup(ctx, key);
        if (take(&work, key, value == NULL ? "" : value, seen, err) != LJ_OK) {
            lj_error_context(err, "URI parameter");
            return err == NULL ? LJ_INVALID : err->code;
        }
    }
    lj_config done = work;
    work = *config;
    *config = done;
    return LJ_OK;
}
