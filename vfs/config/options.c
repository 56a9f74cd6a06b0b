/*
 * options.c - the one table of options, and finding a row in it.
 *
 * Everything that knows options is derived from here: URI, environment and file readers, defaults, error texts, help,
 * and the README's table (a test compares them). A new option is one field in lj_config and one row here.
 *
 * Layer: config. Thread-safety: constant data.
 */
#include "vfs/config/options.h"

#include <string.h>

#include "vfs/base/str.h"

static const char *const mode_names[] = {
    [LJ_MODE_SIDECAR] = "sidecar",
    [LJ_MODE_EMBEDDED] = "embedded",
    NULL,
};
static const char *const durability_names[] = {
    [LJ_DURABILITY_LOCAL] = "local",
    [LJ_DURABILITY_REMOTE] = "remote",
    [LJ_DURABILITY_ACK] = "ack",
    NULL,
};
static const char *const failure_names[] = {
    [LJ_ON_FAILURE_ERROR] = "error",
    [LJ_ON_FAILURE_DEGRADE] = "degrade",
    NULL,
};
static const char *const level_names[] = {
    [LJ_LOG_ERROR] = "error",
    [LJ_LOG_WARN] = "warn",
    [LJ_LOG_INFO] = "info",
    [LJ_LOG_DEBUG] = "debug",
    NULL,
};

#define KIB         UINT64_C(1024)
#define GIB         (KIB * KIB * KIB)
#define NS_PER_MS   ((uint64_t)LJ_NS_PER_MS)
#define NS_PER_HOUR ((uint64_t)LJ_NS_PER_S * 3600)
#define TEN_YEARS   (NS_PER_HOUR * 87600)

#define FROM_ALL                                                                                   \
    (LJ_FROM(LJ_ORIGIN_DEFAULT) | LJ_FROM(LJ_ORIGIN_FILE) | LJ_FROM(LJ_ORIGIN_API) |               \
     LJ_FROM(LJ_ORIGIN_ENV) | LJ_FROM(LJ_ORIGIN_URI))
#define FROM_PROCESS (FROM_ALL & ~LJ_FROM(LJ_ORIGIN_URI))
#define FROM_CODE    (LJ_FROM(LJ_ORIGIN_API) | LJ_FROM(LJ_ORIGIN_ENV))

#define ANYWHERE    "anywhere"
#define PROCESS     "not in a URI"
#define BOOL_VALUES "true, false, yes, no, on, off, 1, 0"

static const lj_option options[] = {
    {.info = {"enabled", "bool", "false", BOOL_VALUES, ANYWHERE,
              "Replicate. On by itself when `replica_url` comes from a URI, the environment or the "
              "C API."},
     .type = LJ_OPTION_BOOL,
     .offset = offsetof(lj_config, enabled),
     .origins = FROM_ALL},
    {.info = {"mode", "one of sidecar, embedded", "sidecar", "sidecar, embedded", ANYWHERE,
              "`embedded`: this VFS replicates. `sidecar`: it only passes through and another "
              "process replicates. "
              "Default `embedded` when `replica_url` comes from a URI, the environment or the C "
              "API. In a URI: "
              "`litejoin_mode`."},
     .type = LJ_OPTION_CHOICE,
     .offset = offsetof(lj_config, mode),
     .choices = mode_names,
     .origins = FROM_ALL,
     .uri_prefix_only = true},
    {.info = {"replica_url", "string", "none",
              "a URL with a scheme and without secrets, e.g. file:///path", ANYWHERE,
              "Base URL. A database's replica is `<replica_url>/<file name without .db>/`."},
     .type = LJ_OPTION_TEXT,
     .offset = offsetof(lj_config, replica_url),
     .check = lj_option_check_url,
     .origins = FROM_ALL},
    {.info = {"replica_name", "string", "file name without .db", "one path part, without / ? #",
              "URI only", "Last part of the replica's URL, for this database."},
     .type = LJ_OPTION_TEXT,
     .offset = offsetof(lj_config, replica_name),
     .check = lj_option_check_name,
     .origins = LJ_FROM(LJ_ORIGIN_URI)},
    {.info = {"sync_interval", "duration", "1s", "1ms to 24h", ANYWHERE,
              "At most one segment per database in this time. The first commit after idle ships at "
              "once."},
     .type = LJ_OPTION_DURATION,
     .offset = offsetof(lj_config, sync_interval_ns),
     .min = NS_PER_MS,
     .max = NS_PER_HOUR * 24,
     .origins = FROM_ALL},
    {.info = {"restore_on_boot", "bool", "true", BOOL_VALUES, ANYWHERE,
              "Restore a database that is missing or empty when it is opened."},
     .type = LJ_OPTION_BOOL,
     .offset = offsetof(lj_config, restore_on_boot),
     .origins = FROM_ALL},
    {.info = {"snapshot_interval", "duration", "1h", "0 to 87600h", ANYWHERE,
              "Time between snapshots, when something changed; up to an eighth less, by database. "
              "0: none after the first."},
     .type = LJ_OPTION_DURATION,
     .offset = offsetof(lj_config, snapshot_interval_ns),
     .max = TEN_YEARS,
     .origins = FROM_ALL},
    {.info = {"retention", "duration", "72h", "0 to 87600h", ANYWHERE,
              "How far back a restore can go. 0: everything is kept."},
     .type = LJ_OPTION_DURATION,
     .offset = offsetof(lj_config, retention_ns),
     .max = TEN_YEARS,
     .origins = FROM_ALL},
    {.info = {"max_wal_size", "size", "0", "0 to 1024GiB", ANYWHERE,
              "Below it the WAL does not restart while frames are unshipped; past it those move to "
              "the spool."},
     .type = LJ_OPTION_SIZE,
     .offset = offsetof(lj_config, max_wal_size_bytes),
     .max = GIB * 1024,
     .origins = FROM_ALL},
    {.info =
         {"max_spool_size", "size", "4GiB", "0 to 1024GiB", ANYWHERE,
          "Limit of the spool per database; past it a new generation is started. Also of what a "
          "snapshot saves on disk."},
     .type = LJ_OPTION_SIZE,
     .offset = offsetof(lj_config, max_spool_size_bytes),
     .max = GIB * 1024,
     .origins = FROM_ALL},
    {.info = {"shutdown_timeout", "duration", "10s", "0 to 1h", ANYWHERE,
              "How long closing the last connection may wait for the replica."},
     .type = LJ_OPTION_DURATION,
     .offset = offsetof(lj_config, shutdown_timeout_ns),
     .max = NS_PER_HOUR,
     .origins = FROM_ALL},
    {.info = {"io_timeout", "duration", "30s", "10ms to 1h", ANYWHERE,
              "How long one request to the replica may make no progress."},
     .type = LJ_OPTION_DURATION,
     .offset = offsetof(lj_config, io_timeout_ns),
     .min = NS_PER_MS * 10,
     .max = NS_PER_HOUR,
     .origins = FROM_ALL},
    {.info = {"upload_workers", "number", "16", "1 to 64", ANYWHERE,
              "Threads that upload, per process; the first database opened decides."},
     .type = LJ_OPTION_NUMBER,
     .offset = offsetof(lj_config, upload_workers),
     .min = 1,
     .max = 64,
     .origins = FROM_ALL},
    {.info = {"fsync_before_ship", "bool", "false", BOOL_VALUES, ANYWHERE,
              "Sync the WAL before shipping it, so that the replica is never ahead of the disk "
              "after a power loss."},
     .type = LJ_OPTION_BOOL,
     .offset = offsetof(lj_config, fsync_before_ship),
     .origins = FROM_ALL},
    {.info = {"auto_wal", "bool", "false", BOOL_VALUES, ANYWHERE,
              "Switch a database that is not in WAL mode to it, when it is opened or behind its "
              "first transaction."},
     .type = LJ_OPTION_BOOL,
     .offset = offsetof(lj_config, auto_wal),
     .origins = FROM_ALL},
    {.info = {"guard", "bool", "false", BOOL_VALUES, ANYWHERE,
              "Hold a read lock, so that a process without this VFS cannot restart the WAL before "
              "it is shipped."},
     .type = LJ_OPTION_BOOL,
     .offset = offsetof(lj_config, guard),
     .origins = FROM_ALL},
    {.info = {"durability", "one of local, remote, ack", "local", "local, remote, ack", ANYWHERE,
              "When COMMIT returns. `remote`: the replica has the transaction, or it fails. `ack`: "
              "the same, but it is committed locally first."},
     .type = LJ_OPTION_CHOICE,
     .offset = offsetof(lj_config, durability),
     .choices = durability_names,
     .origins = FROM_ALL},
    {.info = {"remote_timeout", "duration", "5s", "1ms to 1h", ANYWHERE,
              "How long a COMMIT waits for the replica."},
     .type = LJ_OPTION_DURATION,
     .offset = offsetof(lj_config, remote_timeout_ns),
     .min = NS_PER_MS,
     .max = NS_PER_HOUR,
     .origins = FROM_ALL},
    {.info =
         {"remote_on_failure", "one of error, degrade", "error", "error, degrade", ANYWHERE,
          "What becomes of a COMMIT that waited in vain. `degrade`: it succeeds, and later ones do "
          "not wait until the replica has caught up."},
     .type = LJ_OPTION_CHOICE,
     .offset = offsetof(lj_config, remote_on_failure),
     .choices = failure_names,
     .origins = FROM_ALL},
    {.info = {"log_level", "one of error, warn, info, debug", "info", "error, warn, info, debug",
              PROCESS, "The most detailed lines that are logged."},
     .type = LJ_OPTION_CHOICE,
     .offset = offsetof(lj_config, log_level),
     .choices = level_names,
     .origins = FROM_PROCESS},
    {.info = {"log_file", "string", "none", "a path", PROCESS,
              "File that log lines are appended to, besides `sqlite3_log`."},
     .type = LJ_OPTION_TEXT,
     .offset = offsetof(lj_config, log_file),
     .check = lj_option_check_text,
     .origins = FROM_PROCESS},
    {.info = {"base_vfs", "string", "the default VFS", "the name of a registered VFS", PROCESS,
              "The VFS underneath; fixed by the first registration."},
     .type = LJ_OPTION_TEXT,
     .offset = offsetof(lj_config, base_vfs),
     .check = lj_option_check_text,
     .origins = FROM_PROCESS},
    {.info = {"default_vfs", "bool", "false", BOOL_VALUES, "environment, C API",
              "Be the default VFS of the process, for hosts that cannot name one."},
     .type = LJ_OPTION_BOOL,
     .offset = offsetof(lj_config, default_vfs),
     .origins = FROM_CODE},
};

_Static_assert(LJ_ARRAY_LEN(options) <= LJ_CONFIG_OPTION_MAX, "raise LJ_CONFIG_OPTION_MAX");
_Static_assert(sizeof(lj_durability) == sizeof(unsigned), "choices are stored as unsigned");
_Static_assert(sizeof(lj_on_failure) == sizeof(unsigned), "choices are stored as unsigned");
_Static_assert(sizeof(lj_mode) == sizeof(unsigned), "choices are stored as unsigned");
_Static_assert(sizeof(lj_log_level) == sizeof(unsigned), "choices are stored as unsigned");

const lj_option *lj_option_at(size_t i)
{
    return i < LJ_ARRAY_LEN(options) ? &options[i] : NULL;
}

const lj_config_option_info *lj_config_option_at(size_t i)
{
    return i < LJ_ARRAY_LEN(options) ? &options[i].info : NULL;
}

const lj_option *lj_option_find(const char *name, size_t *ret_index)
{
    for (size_t i = 0; i < LJ_ARRAY_LEN(options); i++) {
        if (strcmp(options[i].info.name, name) == 0) {
            if (ret_index != NULL)
                *ret_index = i;
            return &options[i];
        }
    }
    return NULL;
}

#define NEAR_MAX 32u /* longer names are near to nothing */

/* Insertions, deletions and replacements from a to b; both shorter than NEAR_MAX. */
static size_t edit_distance(const char *a, const char *b)
{
    size_t row[NEAR_MAX + 1];
    size_t b_len = strlen(b);
    for (size_t j = 0; j <= b_len; j++)
        row[j] = j;
    for (size_t i = 1; a[i - 1] != 0; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= b_len; j++) {
            size_t replace = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            row[j] = LJ_MIN(replace, LJ_MIN(row[j], row[j - 1]) + 1);
        }
    }
    return row[b_len];
}

/* The name with the fewest letters wrong, when these are at most `most`. */
static const char *nearest(const char *name, lj_origin origin, size_t most)
{
    char folded[NEAR_MAX];
    size_t len = strlen(name);
    if (len >= NEAR_MAX)
        return NULL;
    for (size_t i = 0; i <= len; i++) {
        char c = name[i];
        if (c == '-' || c == '.')
            c = '_';
        folded[i] = (char)(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
    }
    const char *best = NULL;
    size_t best_distance = most + 1;
    for (size_t i = 0; i < LJ_ARRAY_LEN(options); i++) {
        if ((options[i].origins & LJ_FROM(origin)) == 0)
            continue;
        size_t distance = edit_distance(folded, options[i].info.name);
        if (distance < best_distance) {
            best = options[i].info.name;
            best_distance = distance;
        }
    }
    return best;
}

const char *lj_option_nearest(const char *name, lj_origin origin)
{
    /* a third of the letters wrong is still a typo, more is another word */
    return nearest(name, origin, strlen(name) / 3);
}

const char *lj_option_misspelt(const char *name, lj_origin origin)
{
    return nearest(name, origin, strlen(name) < 10 ? 1 : 2);
}
