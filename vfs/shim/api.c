/*
 * api.c - the functions of include/litejoin_vfs.h.
 *
 * Layer: shim. A connection's database is found with a file-control of our own, so it also works with another shim on top.
 */
#include "litejoin_vfs.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vfs/base/log.h"
#include "vfs/capture/moved.h"
#include "vfs/shim/handle.h"

extern char **environ;

static lj_code set_all(lj_config *config, const litejoin_config *given, lj_error *err)
{
    const struct {
        const char *key;
        const char *value;
    } rows[] = {
        {"enabled", given->enabled},
        {"mode", given->mode},
        {"replica_url", given->replica_url},
        {"sync_interval", given->sync_interval},
        {"restore_on_boot", given->restore_on_boot},
        {"snapshot_interval", given->snapshot_interval},
        {"retention", given->retention},
        {"max_wal_size", given->max_wal_size},
        {"max_spool_size", given->max_spool_size},
        {"shutdown_timeout", given->shutdown_timeout},
        {"io_timeout", given->io_timeout},
        {"upload_workers", given->upload_workers},
        {"log_level", given->log_level},
        {"log_file", given->log_file},
        {"base_vfs", given->base_vfs},
        {"fsync_before_ship", given->fsync_before_ship},
        {"auto_wal", given->auto_wal},
        {"guard", given->guard},
        {"durability", given->durability},
        {"remote_timeout", given->remote_timeout},
        {"remote_on_failure", given->remote_on_failure},
    };
    for (size_t i = 0; i < LJ_ARRAY_LEN(rows); i++) {
        if (rows[i].value != NULL)
            LJ_TRY(lj_config_set(config, LJ_ORIGIN_API, rows[i].key, rows[i].value, err));
    }
    return LJ_OK;
}

/* The extension is loaded for each connection of some programs: of one file it is said once. */
static void warn_without_block(const char *file)
{
    static _Atomic uint64_t told;
    uint64_t hash = lj_hash_text(file);
    if (atomic_exchange(&told, hash) != hash)
        lj_log(LJ_LOG_WARN,
               "the configuration file %s has no block 'replication:', so nothing in it counts "
               "here: add the block with enabled: true, mode: embedded and replica_url: URL in it",
               file);
}

static lj_code register_with(lj_config *config, const litejoin_config *given, lj_error *err)
{
    bool has_block = true;
    const char *file = given != NULL ? given->config_file : NULL;
    if (file == NULL)
        file = getenv(LJ_CONFIG_ENV_FILE);
    if (file != NULL && file[0] != 0)
        LJ_TRY(lj_config_load_yaml(config, file, &has_block, err));
    if (given != NULL)
        LJ_TRY(set_all(config, given, err));
    LJ_TRY(lj_config_load_env(config, environ, err));
    if (given != NULL && given->make_default)
        config->default_vfs = true;
    LJ_TRY(lj_config_finish(config, err));
    LJ_TRY(lj_log_sink_install(config, given != NULL ? given->log : NULL,
                               given != NULL ? given->log_ctx : NULL, err));
    if (!has_block)
        warn_without_block(file);
    return lj_vfs_setup(config, given != NULL && given->make_default, err);
}

LITEJOIN_API int litejoin_vfs_register(const litejoin_config *given)
{
    lj_error err = LJ_ERROR_INIT;
    lj_config config;
    lj_last_error_clear();
    litejoin_config full;
    if (given != NULL && (given->size < sizeof(given->size) || given->size > sizeof(*given))) {
        lj_error_set(&err, LJ_INVALID, "litejoin_config.size is %u; allowed: up to %zu",
                     (unsigned)given->size, sizeof(*given));
        lj_error_hint(&err,
                      "set it to sizeof(litejoin_config); a newer header needs a newer library");
        lj_last_error_set(&err);
        return SQLITE_MISUSE;
    }
    if (given != NULL) {
        /* a host built with an older header gives a shorter struct */
        memset(&full, 0, sizeof(full));
        memcpy(&full, given, given->size);
        given = &full;
    }
    lj_config_init(&config);
    lj_code code = register_with(&config, given, &err);
    lj_config_clear(&config);
    if (code == LJ_OK)
        return SQLITE_OK;
    lj_last_error_set(&err);
    return code == LJ_INVALID ? SQLITE_MISUSE : code == LJ_NOMEM ? SQLITE_NOMEM : SQLITE_ERROR;
}

LITEJOIN_API const char *litejoin_last_error(void)
{
    return lj_last_error_text();
}

static void set_not_found(const char *schema, const char *what)
{
    lj_error err = LJ_ERROR_INIT;
    lj_error_set(&err, LJ_NOTFOUND, "schema '%s' is not %s the litejoin VFS",
                 schema != NULL ? schema : "main", what);
    lj_last_error_set(&err);
}

/* The file of ours behind a schema; NULL when it was opened through another VFS. */
static lj_file *find_file(sqlite3 *db, const char *schema)
{
    lj_file *file = NULL;
    lj_last_error_clear();
    if (sqlite3_file_control(db, schema, LJ_FCNTL_FILE, &file) == SQLITE_OK && file != NULL &&
        file->magic == LJ_FILE_MAGIC)
        return file;
    set_not_found(schema, "opened through");
    return NULL;
}

/* The replicated database behind a schema, with what was committed in it until now; NULL when there is none. */
static lj_db *find_db(sqlite3 *db, const char *schema)
{
    lj_file *file = find_file(db, schema);
    if (file == NULL)
        return NULL;
    if (!lj_open_alive(file->open)) {
        set_not_found(schema, "replicated by");
        return NULL;
    }
    sqlite3_mutex *mutex = sqlite3_db_mutex(db);
    sqlite3_mutex_enter(mutex);
    lj_event_look(file);
    sqlite3_mutex_leave(mutex);
    return file->open->db;
}

static int wait_result(lj_code code, const lj_error *err)
{
    if (code == LJ_OK)
        return SQLITE_OK;
    lj_last_error_set(err);
    return code == LJ_TIMEOUT ? SQLITE_BUSY : SQLITE_IOERR;
}

static int64_t timeout_of(const lj_db *db, int timeout_ms)
{
    return timeout_ms > 0 ? timeout_ms * LJ_NS_PER_MS : db->options.shutdown_timeout_ns;
}

LITEJOIN_API int litejoin_sync(sqlite3 *db, const char *schema, int timeout_ms)
{
    lj_error err = LJ_ERROR_INIT;
    lj_db *replicated = find_db(db, schema);
    if (replicated == NULL)
        return SQLITE_NOTFOUND;
    return wait_result(lj_db_wait(replicated, timeout_of(replicated, timeout_ms), false, &err),
                       &err);
}

LITEJOIN_API int litejoin_snapshot(sqlite3 *db, const char *schema, int timeout_ms)
{
    lj_error err = LJ_ERROR_INIT;
    lj_db *replicated = find_db(db, schema);
    if (replicated == NULL)
        return SQLITE_NOTFOUND;
    return wait_result(lj_db_wait_snapshot(replicated, timeout_of(replicated, timeout_ms), &err),
                       &err);
}

LITEJOIN_API int litejoin_wait(sqlite3 *db, const char *schema, const char *position,
                               int timeout_ms)
{
    lj_error err = LJ_ERROR_INIT;
    const lj_file *file = find_file(db, schema);
    if (file == NULL)
        return SQLITE_NOTFOUND;
    if (!lj_open_alive(file->open)) {
        set_not_found(schema, "replicated by");
        return SQLITE_NOTFOUND;
    }
    lj_position at;
    lj_code code = lj_durable_position(position != NULL ? position : "", &at, &err);
    if (code != LJ_OK) {
        lj_last_error_set(&err);
        return SQLITE_MISUSE;
    }
    int64_t timeout_ns = timeout_ms > 0 ? timeout_ms * LJ_NS_PER_MS : file->remote_timeout_ns;
    return wait_result(lj_db_wait_position(file->open->db, &at, timeout_ns, &err), &err);
}

static void fill_status(lj_db *db, litejoin_status *status)
{
    lj_db_status s;
    (void)lj_db_in_place(db); /* the state says if it is not */
    lj_db_get_status(db, &s);
    *status = (litejoin_status){.replicating = s.replicating,
                                .local_index = s.local_index,
                                .local_offset = s.local_offset,
                                .replica_index = s.replica_index,
                                .replica_offset = s.replica_offset,
                                .lag_ms = s.lag_ms,
                                .lag_frames = s.lag_frames,
                                .spool_bytes = s.spool_bytes,
                                .segments = s.segments,
                                .snapshots = s.snapshots,
                                .shipped_bytes = s.shipped_bytes,
                                .last_snapshot_ns = s.last_snapshot_ns,
                                .degraded = s.degraded,
                                .failed_commits = s.failed_commits};
    snprintf(status->state, sizeof(status->state), "%.*s", (int)sizeof(status->state) - 1, s.text);
    snprintf(status->generation, sizeof(status->generation), "%s", s.generation);
    snprintf(status->last_error, sizeof(status->last_error), "%.*s", LITEJOIN_TEXT_MAX - 1,
             s.last_error);
    snprintf(status->last_break, sizeof(status->last_break), "%s", s.last_break);
}

LITEJOIN_API int litejoin_get_status(sqlite3 *db, const char *schema, litejoin_status *status)
{
    if (status == NULL || status->size < sizeof(status->size) || status->size > sizeof(*status))
        return SQLITE_MISUSE;
    const lj_file *file = find_file(db, schema);
    if (file == NULL)
        return SQLITE_NOTFOUND;
    litejoin_status full = {.state = "off"};
    if (lj_open_alive(file->open))
        fill_status(file->open->db, &full);
    full.size = status->size;
    memcpy(status, &full, full.size);
    return SQLITE_OK;
}

LITEJOIN_API int litejoin_extra_init(const char *unused)
{
    (void)unused;
    return litejoin_vfs_register(NULL);
}
