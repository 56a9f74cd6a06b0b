/*
 * setting.c - see setting.h.
 *
 * Layer: storage.
 */
#include "vfs/storage/setting.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "vfs/base/str.h"

#define NAME_SHOWN_MAX 64

/* The same name but for case, '-' and '_'. */
static bool same_name(const char *a, const char *b)
{
    for (;;) {
        while (*a == '-' || *a == '_')
            a++;
        while (*b == '-' || *b == '_')
            b++;
        if (tolower((unsigned char)*a) != tolower((unsigned char)*b))
            return false;
        if (*a == 0)
            return true;
        a++;
        b++;
    }
}

static lj_code unknown_name(const lj_settings *settings, const char *name, lj_error *err)
{
    char known[LJ_ERROR_HINT_MAX] = "";
    size_t used = 0;
    for (size_t i = 0; i < settings->count && used < sizeof(known); i++)
        if (!settings->specs[i].secret)
            used += (size_t)snprintf(known + used, sizeof(known) - used, "%s%s",
                                     used > 0 ? ", " : "", settings->specs[i].name);
    lj_error_set(err, LJ_INVALID, "\"%.*s\" is not a setting of this kind of replica",
                 NAME_SHOWN_MAX, name);
    if (settings->count == 0)
        return lj_error_hint(err, "it takes none");
    return lj_error_hint(err, "allowed: %s", known);
}

static lj_code find(const lj_settings *settings, const char *name, size_t *ret_i, lj_error *err)
{
    for (size_t i = 0; i < settings->count; i++) {
        if (same_name(settings->specs[i].name, name)) {
            *ret_i = i;
            return LJ_OK;
        }
    }
    return unknown_name(settings, name, err);
}

/* No control character gets through: these values end up in request lines, headers and messages. */
static bool decode(char *text)
{
    if (!lj_url_decode(text, true))
        return false;
    for (; *text != 0; text++)
        if ((unsigned char)*text < 0x20 || *text == 0x7f)
            return false;
    return true;
}

/* One "name=value" of the query, decoded in place. */
static lj_code take_from_url(lj_settings *settings, char *pair, lj_error *err)
{
    char *value = strchr(pair, '=');
    if (value == NULL) /* not shown: it may be the second half of a value with an '&' in it */
        return lj_error_set(err, LJ_INVALID,
                            "a part of the query of the replica URL is not NAME=VALUE");
    *value++ = 0;
    if (!decode(pair) || !decode(value))
        return lj_error_set(err, LJ_INVALID, "the query of the replica URL is not well encoded");
    size_t i = 0;
    LJ_TRY(find(settings, pair, &i, err));
    if (settings->specs[i].secret) {
        lj_error_set(err, LJ_INVALID, "the replica URL has a secret in it: \"%s\"",
                     settings->specs[i].name);
        return lj_error_hint(err, "secrets never go into a URL: give them in the environment, in "
                                  "litestream.yml or in a file");
    }
    if (settings->from_url[i])
        return lj_error_set(err, LJ_INVALID, "\"%s\" stands twice in the replica URL",
                            settings->specs[i].name);
    settings->from_url[i] = true;
    return lj_secret_set(&settings->values[i], value, err);
}

static lj_code take_query(lj_settings *settings, const char *query, lj_error *err)
{
    LJ_CLEANUP(lj_wipe_freep) char *copy = lj_str_dup(query);
    if (copy == NULL)
        return lj_error_nomem(err);
    char *rest = copy;
    for (char *pair; (pair = strsep(&rest, "&")) != NULL;)
        if (*pair != 0)
            LJ_TRY(take_from_url(settings, pair, err));
    return LJ_OK;
}

static lj_code take_options(lj_settings *settings, const lj_storage_options *options, lj_error *err)
{
    for (size_t i = 0; i < options->setting_count; i++) {
        const lj_storage_setting *setting = &options->settings[i];
        size_t at = 0;
        if (setting->value == NULL || setting->value[0] == 0)
            continue;
        LJ_TRY(find(settings, setting->name, &at, err));
        LJ_TRY(lj_secret_set(&settings->values[at], setting->value, err));
        settings->from_url[at] = false;
    }
    return LJ_OK;
}

lj_code lj_settings_make(lj_settings *settings, const lj_setting_spec *specs, size_t count,
                         const char *query, const lj_storage_options *options, lj_error *err)
{
    *settings = (lj_settings){.specs = specs, .count = 0};
    if (count > LJ_SETTINGS_MAX)
        return lj_error_set(err, LJ_INTERNAL, "more than %u settings", LJ_SETTINGS_MAX);
    settings->count = count;
    lj_code code = query != NULL ? take_query(settings, query, err) : LJ_OK;
    if (code == LJ_OK)
        code = take_options(settings, options, err);
    if (code != LJ_OK)
        lj_settings_free(settings);
    return code;
}

void lj_settings_free(lj_settings *settings)
{
    for (size_t i = 0; i < settings->count; i++)
        lj_secret_free(&settings->values[i]);
    settings->count = 0;
}

const char *lj_settings_get(const lj_settings *settings, const char *name)
{
    for (size_t i = 0; i < settings->count; i++)
        if (strcmp(settings->specs[i].name, name) == 0)
            return lj_secret_is_set(&settings->values[i]) ? lj_secret_text(&settings->values[i])
                                                          : NULL;
    return NULL;
}

char *lj_settings_prefix(const lj_settings *settings, const lj_url *url)
{
    const char *path = lj_settings_get(settings, "path");
    if (path == NULL)
        return lj_str_dup(lj_url_prefix(url));
    char *prefix = lj_str_printf("/%s", path);
    if (prefix == NULL)
        return NULL;
    lj_url_clean_path(prefix);
    if (path[0] != '/' && prefix[0] == '/')
        memmove(prefix, prefix + 1, strlen(prefix));
    return prefix;
}

lj_code lj_settings_bool(const lj_settings *settings, const char *name, bool fallback,
                         bool *ret_value, lj_error *err)
{
    static const struct {
        const char *word;
        bool value;
    } words[] = {{"true", true},   {"yes", true}, {"on", true},   {"1", true},
                 {"false", false}, {"no", false}, {"off", false}, {"0", false}};
    const char *text = lj_settings_get(settings, name);
    if (text == NULL) {
        *ret_value = fallback;
        return LJ_OK;
    }
    for (size_t i = 0; i < LJ_ARRAY_LEN(words); i++) {
        if (strcasecmp(text, words[i].word) == 0) {
            *ret_value = words[i].value;
            return LJ_OK;
        }
    }
    lj_error_set(err, LJ_INVALID, "\"%s\" is \"%.*s\"", name, NAME_SHOWN_MAX, text);
    return lj_error_hint(err, "allowed: true or false");
}
