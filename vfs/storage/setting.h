/*
 * setting.h - what a replica's URL and litestream.yml may say about a store: region, endpoint, key-path, ...
 *
 * Each driver has one table of the settings it takes. A value comes from the caller (litestream.yml; may be a secret), else
 * from the query part of the URL (never a secret), as v0.3.13 lets the file win over the URL. Names are those of
 * litestream.yml; case, '-' and '_' do not matter, so that v0.5's forcePathStyle is force-path-style. A name that
 * is not in the table is an error that lists the table: nothing is ignored.
 *
 * Layer: storage. Thread-safety: constant after lj_settings_make.
 */
#ifndef LJ_SETTING_H
#define LJ_SETTING_H

#include "vfs/base/secret.h"
#include "vfs/storage/storage.h"
#include "vfs/storage/url.h"

#define LJ_SETTINGS_MAX 32u

typedef struct {
    const char *name;
    bool secret; /* refused in a URL, with a hint */
} lj_setting_spec;

typedef struct {
    const lj_setting_spec *specs;
    size_t count;
    lj_secret values[LJ_SETTINGS_MAX];
    bool from_url[LJ_SETTINGS_MAX];
} lj_settings;

/*
 * `query` is the URL's part behind '?' (may be NULL), percent-encoded; `options` the caller's. Errors: LJ_INVALID that
 * names the setting and what is allowed, never its value when it may be a secret. Freed with lj_settings_free.
 */
LJ_WARN_UNUSED lj_code lj_settings_make(lj_settings *settings, const lj_setting_spec *specs,
                                        size_t count, const char *query,
                                        const lj_storage_options *options, lj_error *err);
void lj_settings_free(lj_settings *settings);

/* The value, NULL when it was not given (or is empty). `name` is one of the table. */
const char *lj_settings_get(const lj_settings *settings, const char *name);
/*
 * What stands before every key of an object store: the setting "path" as litestream.yml has it, where a leading '/' belongs
 * to the keys, else the URL's path without its leading '/'. Without a '/' at the end; allocated, NULL when out of memory.
 */
char *lj_settings_prefix(const lj_settings *settings, const lj_url *url);
/* "true", "yes", "on", "1" and their opposites; `fallback` when not given. LJ_INVALID for anything else. */
LJ_WARN_UNUSED lj_code lj_settings_bool(const lj_settings *settings, const char *name,
                                        bool fallback, bool *ret_value, lj_error *err);

#endif
