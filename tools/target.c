/*
 * target.c - see target.h.
 *
 * Layer: tools. Thread-safety: one thread.
 */
#include "tools/target.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "vfs/base/log.h"
#include "vfs/base/secret.h"
#include "vfs/base/str.h"
#include "vfs/config/options.h"

bool target_is_url(const char *text)
{
    size_t n = 0;
    while (isalnum((unsigned char)text[n]) || text[n] == '_')
        n++;
    return n > 0 && strncmp(text + n, "://", 3) == 0;
}

static void set_log_level(const litestream_config *config)
{
    static const struct {
        const char *name;
        lj_log_level level;
    } levels[] = {{"debug", LJ_LOG_DEBUG},
                  {"warn", LJ_LOG_WARN},
                  {"warning", LJ_LOG_WARN},
                  {"error", LJ_LOG_ERROR}};
    for (size_t i = 0; config->log_level != NULL && i < LJ_ARRAY_LEN(levels); i++)
        if (strcasecmp(config->log_level, levels[i].name) == 0)
            lj_log_set_level(levels[i].level);
}

lj_code target_load_config(const target_flags *flags, litestream_config **ret_config, lj_error *err)
{
    LJ_TRY(litestream_config_load(litestream_config_path(flags->config_path), !flags->no_expand_env,
                                  ret_config, err));
    set_log_level(*ret_config);
    return LJ_OK;
}

/* An argument can be read by everybody on the machine: no secrets in it. (What is odd in a file:// URL is its driver's matter.) */
static lj_code check_url(const char *url, lj_error *err)
{
    const char *hint = NULL;
    const char *reason = strncasecmp(url, "file:", 5) == 0 ? NULL : lj_option_check_url(url, &hint);
    if (reason == NULL)
        return LJ_OK;
    lj_error_set(err, LJ_INVALID, "the replica URL %s", reason);
    return hint != NULL ? lj_error_hint(err, "%s", hint) : LJ_INVALID;
}

static lj_code open_url(target *t, const char *url, const target_flags *flags, lj_error *err)
{
    if (flags->config_path != NULL)
        return lj_error_set(err, LJ_INVALID, "cannot specify a replica URL and the -config flag");
    LJ_TRY(check_url(url, err));
    t->replicas = calloc(1, sizeof(*t->replicas));
    if (t->replicas == NULL)
        return lj_error_nomem(err);
    lj_storage_options options = {.cancel = flags->cancel};
    LJ_TRY(lj_storage_open(url, &options, &t->replicas[0].storage, err));
    t->replicas[0].name = lj_storage_type(t->replicas[0].storage);
    t->count = 1;
    return LJ_OK;
}

static lj_code open_replica(const litestream_replica *replica, const target_flags *flags,
                            lj_storage **ret_storage, lj_error *err)
{
    lj_storage_setting settings[LITESTREAM_SETTINGS_MAX];
    lj_storage_options options = {.settings = settings, .cancel = flags->cancel};
    LJ_CLEANUP(lj_wipe_freep) char *url = NULL; /* a password may be in it */
    lj_code code = litestream_replica_url(replica, &url, err);
    if (code == LJ_OK)
        code = litestream_replica_settings(replica, settings, &options.setting_count, err);
    if (code == LJ_OK)
        code = lj_storage_open(url, &options, ret_storage, err);
    return code == LJ_OK ? LJ_OK : lj_error_context(err, "replica \"%s\"", replica->name);
}

/* A folder is no database: whoever names one means the replica in it. */
static lj_code hint_of_folder(const char *path, lj_error *err)
{
    struct stat st;
    LJ_CLEANUP(lj_freep) char *folder = litestream_absolute_path(path);
    if (folder != NULL && stat(folder, &st) == 0 && S_ISDIR(st.st_mode))
        lj_error_hint(err, "%s is a folder; a replica in it is named file://%s", path, folder);
    return err->code;
}

static lj_code find_db(target *t, const char *path, const target_flags *flags, lj_error *err)
{
    if (target_load_config(flags, &t->config, err) != LJ_OK)
        return err->code == LJ_NOTFOUND ? hint_of_folder(path, err) : err->code;
    t->db = litestream_config_find(t->config, path);
    if (t->db != NULL)
        return LJ_OK;
    lj_error_set(err, LJ_INVALID, "database not found in config: %s", path);
    lj_error_hint(err, "%s lists other databases; the databases command shows them",
                  litestream_config_path(flags->config_path));
    return hint_of_folder(path, err);
}

static lj_code open_db(target *t, const char *path, const target_flags *flags, lj_error *err)
{
    LJ_TRY(find_db(t, path, flags, err));
    t->replicas = calloc(t->db->replica_count + 1, sizeof(*t->replicas));
    if (t->replicas == NULL)
        return lj_error_nomem(err);
    size_t wanted = 0;
    for (size_t i = 0; i < t->db->replica_count; i++) {
        const litestream_replica *replica = &t->db->replicas[i];
        lj_error why = LJ_ERROR_INIT;
        if (flags->replica != NULL && strcmp(flags->replica, replica->name) != 0)
            continue;
        wanted++;
        if (open_replica(replica, flags, &t->replicas[t->count].storage, &why) == LJ_OK) {
            t->replicas[t->count++].name = replica->name;
            continue;
        }
        if (t->left_out.code == LJ_OK)
            t->left_out = why;
        if (flags->replica == NULL && t->db->replica_count > 1)
            lj_log_error(LJ_LOG_WARN, "replica left out", &why);
    }
    if (wanted == 0 && flags->replica != NULL)
        return lj_error_set(err, LJ_INVALID, "replica \"%s\" not found for database \"%s\"",
                            flags->replica, t->db->path);
    if (wanted == 0)
        return lj_error_set(err, LJ_INVALID, "database has no replicas in config: %s", t->db->path);
    if (t->count > 0)
        return LJ_OK;
    *err = t->left_out;
    return err->code;
}

lj_code target_open(target *t, const char *text, const target_flags *flags, lj_error *err)
{
    *t = (target){0};
    return target_is_url(text) ? open_url(t, text, flags, err) : open_db(t, text, flags, err);
}

void target_close(target *t)
{
    for (size_t i = 0; i < t->count; i++)
        lj_storage_close(t->replicas[i].storage);
    free(t->replicas);
    litestream_config_free(t->config);
    *t = (target){0};
}
