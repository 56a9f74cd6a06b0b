/*
 * config.c - setting, copying and finishing a config; see config.h.
 *
 * Layer: config. Thread-safety: as config.h. Invariant: origins[i] is the origin of the value the i-th option has;
 * a text option is NULL exactly when it is not set.
 */
#include "vfs/config/config.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vfs/base/clock.h"
#include "vfs/base/str.h"
#include "vfs/config/options.h"

/* A parsed value, not yet in its config. */
typedef union {
    bool flag;
    int64_t ns;
    uint64_t bytes;
    unsigned number;
    char *text;
} option_value;

static void *field_of(lj_config *config, const lj_option *option)
{
    return (char *)config + option->offset;
}

/* Takes value->text over. */
static void store(lj_config *config, const lj_option *option, const option_value *value)
{
    void *field = field_of(config, option);
    switch (option->type) {
    case LJ_OPTION_BOOL:
        memcpy(field, &value->flag, sizeof(value->flag));
        break;
    case LJ_OPTION_DURATION:
        memcpy(field, &value->ns, sizeof(value->ns));
        break;
    case LJ_OPTION_SIZE:
        memcpy(field, &value->bytes, sizeof(value->bytes));
        break;
    case LJ_OPTION_NUMBER:
    case LJ_OPTION_CHOICE:
        memcpy(field, &value->number, sizeof(value->number));
        break;
    case LJ_OPTION_TEXT:
        lj_freep(field);
        memcpy(field, &value->text, sizeof(value->text));
        break;
    }
}

static const char *parse_choice(const lj_option *option, const char *text, unsigned *ret)
{
    for (unsigned i = 0; option->choices[i] != NULL; i++) {
        if (strcmp(option->choices[i], text) == 0) {
            *ret = i;
            return NULL;
        }
    }
    return "is none of them";
}

/* Text to value; why not, or NULL. Only LJ_OPTION_TEXT leaves the value alone (the caller copies the text). */
static const char *parse(const lj_option *option, const char *text, option_value *value,
                         const char **ret_hint)
{
    uint64_t number = 0;
    switch (option->type) {
    case LJ_OPTION_BOOL:
        return lj_option_parse_bool(text, &value->flag) ? NULL : "is not a bool";
    case LJ_OPTION_CHOICE:
        return parse_choice(option, text, &value->number);
    case LJ_OPTION_TEXT:
        return option->check(text, ret_hint);
    case LJ_OPTION_DURATION: {
        lj_error ignored = LJ_ERROR_INIT;
        *ret_hint = "write it like 500ms, 1s, 1h30m";
        if (lj_clock_parse_duration(text, &value->ns, &ignored) != LJ_OK)
            return "is not a duration";
        number = (uint64_t)value->ns;
        break;
    }
    case LJ_OPTION_SIZE:
        *ret_hint = "write it like 512KiB, 64MiB, 1GiB, or as a number of bytes";
        if (!lj_option_parse_size(text, &number))
            return "is not a size";
        value->bytes = number;
        break;
    case LJ_OPTION_NUMBER:
        if (!lj_str_u64(text, &number))
            return "is not a number";
        value->number = (unsigned)LJ_MIN(number, UINT32_MAX);
        break;
    }
    return number < option->min || number > option->max ? "is out of range" : NULL;
}

void lj_option_show_value(const char *key, const char *value, char out[LJ_OPTION_SHOWN_MAX])
{
    /* a URL with anything that could carry a password or a signature is shown as its scheme only */
    bool is_url = strstr(key, "replica_url") != NULL || strstr(key, "REPLICA_URL") != NULL ||
                  strstr(value, "://") != NULL;
    const char *scheme_end = strstr(value, "://");
    const char *rest = scheme_end == NULL ? value : scheme_end + 3;
    if (lj_option_is_secret(key, strlen(key)) ||
        (is_url && !lj_str_starts(value, "file://") && strpbrk(rest, "@?:") != NULL)) {
        size_t shown = is_url && scheme_end != NULL ? LJ_MIN((size_t)(rest - value), 20u) : 0;
        snprintf(out, LJ_OPTION_SHOWN_MAX, "%.*s***", (int)shown, value);
    } else {
        bool cut = strlen(value) >= LJ_OPTION_SHOWN_MAX;
        snprintf(out, LJ_OPTION_SHOWN_MAX, "%.*s%s", (int)LJ_OPTION_SHOWN_MAX - 4, value,
                 cut ? "..." : "");
    }
    for (char *p = out; *p != 0; p++) {
        if (iscntrl((unsigned char)*p))
            *p = '?';
    }
}

lj_code lj_option_set(lj_config *config, lj_origin origin, const lj_option *option,
                      const char *shown_key, const char *value, lj_error *err)
{
    size_t index = (size_t)(option - lj_option_at(0));
    option_value parsed = {.bytes = 0};
    const char *hint = NULL;
    char shown[LJ_OPTION_SHOWN_MAX];
    lj_option_show_value(shown_key, value, shown);
    if ((option->origins & LJ_FROM(origin)) == 0) {
        lj_error_set(err, LJ_INVALID, "%.80s = \"%s\" cannot be set here; allowed: %s", shown_key,
                     shown, option->info.where);
        return lj_error_hint(err, "%s: %s", option->info.name, option->info.help);
    }
    const char *reason = parse(option, value, &parsed, &hint);
    if (reason != NULL) {
        lj_error_set(err, LJ_INVALID, "%.80s = \"%s\" %s; allowed: %s", shown_key, shown, reason,
                     option->info.allowed);
        return hint == NULL ? LJ_INVALID : lj_error_hint(err, "%s", hint);
    }
    if (origin < config->origins[index])
        return LJ_OK;
    if (option->type == LJ_OPTION_TEXT) {
        parsed.text = lj_str_dup(value);
        if (parsed.text == NULL)
            return lj_error_nomem(err);
    }
    store(config, option, &parsed);
    config->origins[index] = (uint8_t)origin;
    if (option->offset == offsetof(lj_config, replica_url))
        config->replica_url_origin = origin;
    return LJ_OK;
}

lj_code lj_option_unknown(lj_origin origin, const char *shown_key, const char *name,
                          const char *value, lj_error *err)
{
    char names[LJ_ERROR_MESSAGE_MAX] = "";
    size_t len = 0;
    const lj_option *option;
    for (size_t i = 0; (option = lj_option_at(i)) != NULL; i++) {
        if ((option->origins & LJ_FROM(origin)) == 0 || len >= sizeof(names))
            continue;
        const char *prefix = origin == LJ_ORIGIN_URI && option->uri_prefix_only ? "litejoin_" : "";
        int n = snprintf(names + len, sizeof(names) - len, "%s%s%s", len == 0 ? "" : ", ", prefix,
                         option->info.name);
        len += n > 0 ? (size_t)n : 0;
    }
    char shown[LJ_OPTION_SHOWN_MAX];
    lj_option_show_value(shown_key, value, shown);
    char shown_name[LJ_OPTION_SHOWN_MAX];
    lj_option_show_value("", shown_key, shown_name);
    lj_error_set(err, LJ_INVALID, "%s = \"%s\" is not an option; allowed: %s", shown_name, shown,
                 names);
    const char *near = lj_option_nearest(name, origin);
    return near == NULL ? LJ_INVALID : lj_error_hint(err, "did you mean %s?", near);
}

lj_code lj_config_set(lj_config *config, lj_origin origin, const char *key, const char *value,
                      lj_error *err)
{
    const lj_option *option = lj_option_find(key, NULL);
    if (option == NULL)
        return lj_option_unknown(origin, key, key, value == NULL ? "" : value, err);
    if (value == NULL)
        return LJ_OK;
    return lj_option_set(config, origin, option, key, value, err);
}

void lj_config_init(lj_config *config)
{
    memset(config, 0, sizeof(*config));
    const lj_option *option;
    for (size_t i = 0; (option = lj_option_at(i)) != NULL; i++) {
        option_value value = {.bytes = 0};
        const char *hint = NULL;
        if (option->type != LJ_OPTION_TEXT &&
            parse(option, option->info.default_text, &value, &hint) == NULL)
            store(config, option, &value);
    }
}

void lj_config_clear(lj_config *config)
{
    const lj_option *option;
    for (size_t i = 0; (option = lj_option_at(i)) != NULL; i++) {
        if (option->type == LJ_OPTION_TEXT)
            lj_freep(field_of(config, option));
    }
    memset(config, 0, sizeof(*config));
}

lj_code lj_config_copy(const lj_config *from, lj_config *ret_to, lj_error *err)
{
    lj_config copy = *from;
    bool failed = false;
    const lj_option *option;
    for (size_t i = 0; (option = lj_option_at(i)) != NULL; i++) {
        if (option->type != LJ_OPTION_TEXT)
            continue;
        char *text = NULL;
        memcpy(&text, field_of(&copy, option), sizeof(text));
        char *own = lj_str_dup(text);
        failed = failed || (text != NULL && own == NULL);
        memcpy(field_of(&copy, option), &own, sizeof(own));
    }
    if (failed) {
        lj_config_clear(&copy);
        return lj_error_nomem(err);
    }
    *ret_to = copy;
    return LJ_OK;
}

static lj_origin origin_of(const lj_config *config, const char *name)
{
    size_t i = 0;
    return lj_option_find(name, &i) == NULL ? LJ_ORIGIN_DEFAULT : (lj_origin)config->origins[i];
}

lj_code lj_config_finish(lj_config *config, lj_error *err)
{
    if (config->replica_url != NULL && config->replica_url_origin >= LJ_ORIGIN_API) {
        /* what a file says of it is for the file's own replica_url; whoever says false elsewhere wants it off */
        if (origin_of(config, "enabled") <= LJ_ORIGIN_FILE)
            config->enabled = true;
        if (origin_of(config, "mode") == LJ_ORIGIN_DEFAULT)
            config->mode = LJ_MODE_EMBEDDED;
    }
    if (config->enabled && config->mode == LJ_MODE_EMBEDDED && config->replica_url == NULL) {
        lj_error_set(err, LJ_INVALID,
                     "enabled = \"true\" with mode = \"embedded\" needs a replica_url");
        return lj_error_hint(err, "set replica_url, e.g. file:///path, or mode to sidecar");
    }
    return LJ_OK;
}

bool lj_config_embedded(const lj_config *config)
{
    return config->enabled && config->mode == LJ_MODE_EMBEDDED && config->replica_url != NULL;
}
