/*
 * litestream_config.h - litestream.yml, the configuration file of Litestream v0.3.13.
 *
 * Every key of v0.3.13 is read and checked, whether this tool acts on it or not, so that a file written for it works
 * unchanged. v0.3.13 ignores unknown keys in silence; here each is a warning in the log.
 *
 * Layer: tools. Thread-safety: a config is immutable once loaded and belongs to its maker.
 * Source: replica-format section 6.
 */
#ifndef LJ_TOOLS_LITESTREAM_CONFIG_H
#define LJ_TOOLS_LITESTREAM_CONFIG_H

#include "vfs/base/error.h"
#include "vfs/storage/storage.h"

#define LITESTREAM_CONFIG_BYTES_MAX (16u * 1024u * 1024u)

/* A list of texts. */
typedef struct {
    char **items;
    size_t count;
} litestream_texts;

/* Settings of a store that v0.3.13 does not know ("storage-class", "host-key"), as name and value. */
typedef struct {
    litestream_texts names;
    litestream_texts values;
} litestream_settings;

/* Texts are NULL when the key is absent; durations are ns. */
typedef struct {
    char *type; /* "file", "s3", "gcs", "abs", "sftp"; set after loading */
    char *name; /* set after loading: default is the type */
    char *path;
    char *url;
    int64_t retention_ns;                /* 24h */
    int64_t retention_check_interval_ns; /* 1h */
    int64_t sync_interval_ns;            /* 1s */
    int64_t snapshot_interval_ns;        /* 0 = never */
    int64_t validation_interval_ns;      /* 0 = never */
    char *access_key_id;
    char *secret_access_key;
    char *region;
    char *bucket;
    char *endpoint;
    bool has_force_path_style;
    bool force_path_style;
    bool skip_verify;
    char *account_name;
    char *account_key;
    char *host;
    char *user;
    char *password;
    char *key_path;
    litestream_settings settings;
    litestream_texts age_identities;
    litestream_texts age_recipients;
} litestream_replica;

typedef struct {
    char *path; /* absolute after loading */
    char *meta_path;
    int64_t monitor_interval_ns;    /* 1s */
    int64_t checkpoint_interval_ns; /* 1m */
    int64_t min_checkpoint_pages;   /* 1000 */
    int64_t max_checkpoint_pages;   /* 10000 */
    litestream_replica *replicas;
    size_t replica_count;
} litestream_db;

typedef struct {
    char *addr;
    char *exec;
    char *access_key_id;
    char *secret_access_key;
    char *log_level; /* "debug", "info", "warn", "warning" or "error"; NULL = info */
    char *log_type;
    bool log_stderr;
    litestream_db *dbs;
    size_t db_count;
} litestream_config;

/*
 * The file that counts: `path` (the -config flag), else LITESTREAM_CONFIG, else /etc/litestream.yml. Never NULL.
 */
const char *litestream_config_path(const char *path);

/*
 * Loads `path`. With expand_env, $NAME and ${NAME} are replaced in the whole text before it is parsed (an undefined
 * variable by nothing). *ret_config is freed with litestream_config_free. Errors: LJ_NOTFOUND "config file not found";
 * LJ_INVALID with the line for what cannot be read or breaks a rule.
 */
LJ_WARN_UNUSED lj_code litestream_config_load(const char *path, bool expand_env,
                                              litestream_config **ret_config, lj_error *err);
/* The same from text; `name` is for messages. */
LJ_WARN_UNUSED lj_code litestream_config_parse(const char *text, const char *name,
                                               litestream_config **ret_config, lj_error *err);
void litestream_config_free(litestream_config *config);

/* The database with this path (relative paths and ~/ are resolved first); NULL when there is none. */
const litestream_db *litestream_config_find(const litestream_config *config, const char *db_path);

/*
 * The replica's URL for lj_storage_open, allocated: its `url`, or one made from type, bucket, host, user and the path of a
 * folder. The only secret in it is a password that its `url` has. Errors: LJ_INVALID for what is missing, in v0.3.13's words.
 */
LJ_WARN_UNUSED lj_code litestream_replica_url(const litestream_replica *replica, char **ret_url,
                                              lj_error *err);

#define LITESTREAM_SETTINGS_MAX 32u

/*
 * What the replica's storage is to be opened with, beside the URL: secrets, region, endpoint, ... Points into `replica`.
 * Keys of v0.3.13 that another type of replica takes are left out, as there. Errors: LJ_INVALID for too many.
 */
LJ_WARN_UNUSED lj_code litestream_replica_settings(
    const litestream_replica *replica, lj_storage_setting ret_settings[LITESTREAM_SETTINGS_MAX],
    size_t *ret_count, lj_error *err);

/* Go's os.Expand with the process's environment, allocated. NULL when out of memory. */
char *litestream_expand_env(const char *text);

/* "~/" becomes the home folder; the rest is made absolute and cleaned ("//", ".", ".."). NULL when out of memory. */
char *litestream_absolute_path(const char *path);

#endif
