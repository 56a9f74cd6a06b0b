/*
 * options.h - the option table's rows, for the files of config/ only.
 *
 * Layer: config. Thread-safety: the table is constant.
 */
#ifndef LJ_CONFIG_OPTIONS_H
#define LJ_CONFIG_OPTIONS_H

#include "vfs/config/config.h"

typedef enum {
    LJ_OPTION_BOOL,     /* bool */
    LJ_OPTION_DURATION, /* int64_t, ns */
    LJ_OPTION_SIZE,     /* uint64_t, bytes */
    LJ_OPTION_NUMBER,   /* unsigned */
    LJ_OPTION_CHOICE,   /* unsigned or an enum of its size: index into `choices` */
    LJ_OPTION_TEXT,     /* char *, NULL = the default */
} lj_option_type;

/* Bits of lj_option.origins. */
#define LJ_FROM(origin) (1u << (origin))

/* Why a text is no good for its option, a constant; NULL when it is fine. May set *ret_hint to a constant. */
typedef const char *(*lj_option_check)(const char *value, const char **ret_hint);

typedef struct {
    lj_config_option_info info;
    lj_option_type type;
    size_t offset; /* in lj_config */
    uint64_t min;  /* of DURATION (ns), SIZE (bytes), NUMBER; info.allowed says the same in words */
    uint64_t max;
    const char *const *choices; /* of CHOICE, NULL at the end */
    lj_option_check check;      /* of TEXT */
    unsigned origins;           /* LJ_FROM bits of who may set it */
    bool uri_prefix_only;       /* as a URI parameter only with "litejoin_" in front */
} lj_option;

/* NULL past the last. */
const lj_option *lj_option_at(size_t i);
/* By exact name; NULL when there is none. *ret_index (may be NULL) is its place in the table. */
const lj_option *lj_option_find(const char *name, size_t *ret_index);
/* The name nearest to `name` that `origin` may set; NULL when none is near. */
const char *lj_option_nearest(const char *name, lj_origin origin);
/* The same, but only one that `name` can hardly have been meant for anything else than: a letter or two are wrong, or case. */
const char *lj_option_misspelt(const char *name, lj_origin origin);

/*
 * lj_config_set for an option already found, with the name that errors show ("LITEJOIN_MODE",
 * "replication.mode").
 */
LJ_WARN_UNUSED lj_code lj_option_set(lj_config *config, lj_origin origin, const lj_option *option,
                                     const char *shown_key, const char *value, lj_error *err);
/* Sets the error for a name that is no option: the name, its value, what is allowed, the nearest. */
lj_code lj_option_unknown(lj_origin origin, const char *shown_key, const char *name,
                          const char *value, lj_error *err);

#define LJ_OPTION_SHOWN_MAX 80u
/* A value as errors show it: short, printable, without what may be a secret. `key` tells what it is. */
void lj_option_show_value(const char *key, const char *value, char out[LJ_OPTION_SHOWN_MAX]);

/*
 * Texts to values; false when the text is no such thing (*ret untouched). Bools: true, yes, on, 1, false, no, off, 0 in
 * any case. Sizes: digits, an optional space, and nothing (bytes), KiB, MiB, GiB, K, M, G (1024) or KB, MB, GB
 * (1000) in any case.
 */
bool lj_option_parse_bool(const char *text, bool *ret);
bool lj_option_parse_size(const char *text, uint64_t *ret_bytes);

/* lj_option_check of replica_url, replica_name and of any other text (printable, not empty). */
const char *lj_option_check_url(const char *value, const char **ret_hint);
/* The same, but NULL unless the reason is that there is a secret in the URL. */
const char *lj_option_url_secret(const char *value, const char **ret_hint);
const char *lj_option_check_name(const char *value, const char **ret_hint);
const char *lj_option_check_text(const char *value, const char **ret_hint);
/* True when a key's name says that its value is a secret ("token", "X-Amz-Signature", "secret_access_key"). */
bool lj_option_is_secret(const char *key, size_t len);

#endif
