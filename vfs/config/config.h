/*
 * config.h - every option of the product, from one table, read from four places.
 *
 * Precedence, highest first: URI parameters of the database name, LITEJOIN_* environment, litejoin.yaml (the file
 * that LITEJOIN_CONFIG names) or the C API's struct, defaults. Whatever is not understood is an error that names
 * the key, the value and what is allowed; nothing is accepted and ignored.
 *
 * Layer: config. Thread-safety: a config is immutable once made and belongs to its maker.
 */
#ifndef LJ_CONFIG_H
#define LJ_CONFIG_H

#include "vfs/base/buf.h"
#include "vfs/base/error.h"
#include "vfs/base/log.h"

#define LJ_CONFIG_OPTION_MAX 32u      /* more than the table has */
#define LJ_CONFIG_FILE_MAX   4194304u /* bytes of a litejoin.yaml */
#define LJ_CONFIG_ENV_PREFIX "LITEJOIN_"
#define LJ_CONFIG_ENV_FILE   "LITEJOIN_CONFIG" /* names the litejoin.yaml; no option of its own */

typedef enum { LJ_MODE_SIDECAR, LJ_MODE_EMBEDDED } lj_mode;

/* When COMMIT returns. */
typedef enum {
    LJ_DURABILITY_LOCAL,  /* as without replication */
    LJ_DURABILITY_REMOTE, /* the replica has the transaction; else it fails and there is none */
    LJ_DURABILITY_ACK, /* it is committed and the replica has it; else it fails and is committed all the same */
} lj_durability;

typedef enum { LJ_ON_FAILURE_ERROR, LJ_ON_FAILURE_DEGRADE } lj_on_failure;

/* Where a value came from; higher wins. */
typedef enum {
    LJ_ORIGIN_DEFAULT,
    LJ_ORIGIN_FILE, /* litejoin.yaml */
    LJ_ORIGIN_API,  /* the C API's struct */
    LJ_ORIGIN_ENV,
    LJ_ORIGIN_URI,
} lj_origin;

typedef struct {
    bool enabled; /* default false; true by itself when replica_url comes from API, ENV or URI */
    lj_mode mode; /* default sidecar; embedded when replica_url comes from API, ENV or URI */
    char *replica_url;        /* base URL; NULL = none */
    char *replica_name;       /* last part of the replica's URL; NULL = file name without ".db" */
    int64_t sync_interval_ns; /* 1s */
    bool restore_on_boot;     /* true */
    int64_t snapshot_interval_ns;  /* 1h, 0 = none after the first */
    int64_t retention_ns;          /* 72h, 0 = keep everything */
    uint64_t max_wal_size_bytes;   /* 0: below it a WAL restart waits for the shipper */
    uint64_t max_spool_size_bytes; /* 4GiB */
    int64_t shutdown_timeout_ns;   /* 10s */
    int64_t io_timeout_ns;         /* 30s */
    unsigned upload_workers;       /* 16, 1..64: threads of the process, the first opener decides */
    lj_log_level log_level;        /* info */
    char *log_file;                /* NULL = sqlite3_log only */
    char *base_vfs;                /* NULL = the default VFS at registration */
    bool default_vfs;              /* only from LITEJOIN_DEFAULT_VFS: register as the default VFS */
    bool fsync_before_ship;        /* false */
    bool auto_wal;                 /* false */
    bool guard;                    /* false */
    lj_durability durability;      /* local */
    int64_t remote_timeout_ns;     /* 5s: of durability remote and ack */
    lj_on_failure remote_on_failure; /* error */
    lj_origin replica_url_origin;
    uint8_t
        origins[LJ_CONFIG_OPTION_MAX]; /* lj_origin of each option, in table order; config/ only */
} lj_config;

/* Looks a key up; NULL when it is not set. E.g. getenv, or sqlite3_uri_parameter on a file name. */
typedef const char *(*lj_config_lookup)(void *ctx, const char *key);
/* The i-th key (0-based) that is set, NULL past the last: for finding unknown ones. */
typedef const char *(*lj_config_key_at)(void *ctx, int i);

void lj_config_init(lj_config *config); /* all defaults */
void lj_config_clear(lj_config *config);
LJ_WARN_UNUSED lj_code lj_config_copy(const lj_config *from, lj_config *ret_to, lj_error *err);

/*
 * Sets one option by its name ("sync_interval") from text, as coming from `origin`; a lower origin never overwrites
 * a higher one, whatever the order of the calls. The value is checked even when it does not win. `value` NULL leaves
 * the option as it is. Errors: LJ_INVALID with key, value and what is allowed; also for an option that may not come
 * from there (info.where).
 */
LJ_WARN_UNUSED lj_code lj_config_set(lj_config *config, lj_origin origin, const char *key,
                                     const char *value, lj_error *err);
/*
 * Reads the `replication:` block of a litejoin.yaml (at most LJ_CONFIG_FILE_MAX bytes); the other top-level keys are
 * left alone. The block may be missing (*ret_block is false) or empty, but not be there twice. Errors: LJ_INVALID with
 * "file:line: replication.key"; what lj_io_read_file gives. The config is untouched on failure, as with the other
 * loaders.
 */
LJ_WARN_UNUSED lj_code lj_config_load_yaml(lj_config *config, const char *path, bool *ret_block,
                                           lj_error *err);
/* The same from `len` bytes of text; errors show `path` as the file's name. */
LJ_WARN_UNUSED lj_code lj_config_parse_yaml(lj_config *config, const char *path, const char *text,
                                            size_t len, lj_error *err);
/*
 * Reads LITEJOIN_<OPTION> for every option. An unknown LITEJOIN_* variable is an error too. A variable that is empty
 * counts as not set. LITEJOIN_CONFIG is known and not followed: the caller loads that file (lj_config_load_yaml).
 */
LJ_WARN_UNUSED lj_code lj_config_load_env(lj_config *config, char *const *environ_block,
                                          lj_error *err);
/*
 * Reads URI parameters: an option's name, with or without the prefix "litejoin_"; `mode` only with it, because "mode"
 * is SQLite's own (mode=ro). Names that start with "replica_", or with "litejoin" in any case, and are no option, names that are
 * an option's but for a letter or two, options that may not come from a URI, and an option given twice are errors; any other unknown name
 * belongs to SQLite.
 */
LJ_WARN_UNUSED lj_code lj_config_load_uri(lj_config *config, lj_config_lookup lookup,
                                          lj_config_key_at key_at, void *ctx, lj_error *err);
/*
 * Cross-field checks and the defaults that depend on where replica_url came from. To be called last; again after more
 * was loaded into a copy. When replica_url comes from API, ENV or URI: `mode` is embedded unless it was set anywhere, and
 * `enabled` is true unless one of these three set it.
 */
LJ_WARN_UNUSED lj_code lj_config_finish(lj_config *config, lj_error *err);

/* True when databases opened through the shim are to be replicated by it. */
bool lj_config_embedded(const lj_config *config);
/*
 * "<replica_url>/<replica_name or file name without .db>", allocated. `db_path` may be relative. A query of the URL
 * stays behind the name. '?', '#' and '%' of a file name are percent-encoded. Errors: LJ_INVALID when there is no
 * replica_url, or when the name would be empty, "." or "..", or has a control character or more than 255 bytes.
 */
LJ_WARN_UNUSED lj_code lj_config_replica_url(const lj_config *config, const char *db_path,
                                             char **ret_url, lj_error *err);

/* For help texts and the README's table (checked by a test): one row per option. */
typedef struct {
    const char *name;
    const char *type; /* "bool", "duration", "size", "string", "one of ...", "number" */
    const char *default_text;
    const char *allowed;
    const char *where; /* "anywhere", "URI only", ... */
    const char *help;
} lj_config_option_info;
/* NULL past the last. */
const lj_config_option_info *lj_config_option_at(size_t i);
/* Appends the README's table of options: Markdown, a heading row and one row per option. */
LJ_WARN_UNUSED lj_code lj_config_render_table(lj_buf *out, lj_error *err);

#endif
