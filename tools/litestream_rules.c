/*
 * litestream_rules.c - see litestream_rules.h and the path, environment and URL functions of litestream_config.h.
 *
 * Layer: tools. Thread-safety: one thread (getenv).
 */
#include "tools/litestream_rules.h"

#include <ctype.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/target.h"
#include "vfs/base/buf.h"
#include "vfs/base/log.h"
#include "vfs/base/secret.h"
#include "vfs/base/str.h"
#include "vfs/config/options.h"
#include "vfs/storage/url.h"

#define TEXT_MAX ((size_t)64 * 1024 * 1024)

const char *litestream_config_path(const char *path)
{
    if (path != NULL && path[0] != 0)
        return path;
    const char *named = getenv("LITESTREAM_CONFIG");
    return named != NULL && named[0] != 0 ? named : "/etc/litestream.yml";
}

/* ---- environment ---- */

/* Length of the variable name at `text` (behind the '$'); *ret_skip is how much of the text belongs to the reference. */
static size_t variable_name(const char *text, const char **ret_name, size_t *ret_skip)
{
    if (text[0] == '{') {
        size_t len = strcspn(text + 1, "}");
        *ret_name = text + 1;
        if (text[1 + len] == 0) { /* not closed: the brace is swallowed, as Go does */
            *ret_skip = 1;
            return 0;
        }
        *ret_skip = len + 2;
        return len;
    }
    *ret_name = text;
    size_t len = 0;
    if (text[0] != 0 && strchr("*#$@!?-0123456789", text[0]) != NULL)
        len = 1;
    else
        while (isalnum((unsigned char)text[len]) || text[len] == '_')
            len++;
    *ret_skip = len;
    return len;
}

char *litestream_expand_env(const char *text)
{
    lj_buf out = LJ_BUF_INIT(TEXT_MAX);
    lj_code code = lj_buf_append(&out, "", 0, NULL);
    while (code == LJ_OK && *text != 0) {
        size_t plain = strcspn(text, "$");
        code = lj_buf_append(&out, text, plain, NULL);
        text += plain;
        if (*text == 0 || code != LJ_OK)
            break;
        const char *name = NULL;
        size_t skip = 0;
        size_t len = variable_name(text + 1, &name, &skip);
        if (skip == 0) { /* a lone '$' stays */
            code = lj_buf_append(&out, "$", 1, NULL);
        } else if (len > 0) {
            LJ_CLEANUP(lj_freep) char *key = strndup(name, len);
            const char *value = key != NULL ? getenv(key) : NULL;
            if (value != NULL)
                code = lj_buf_append(&out, value, strlen(value), NULL);
        }
        text += 1 + skip;
    }
    char *result = code == LJ_OK ? lj_str_dup(lj_buf_text(&out)) : NULL;
    lj_buf_free(&out);
    return result;
}

/* ---- paths ---- */

/* HOME, else what the user database says (a service may have no HOME); NULL: neither. */
static const char *home_folder(void)
{
    const char *home = getenv("HOME");
    if (home != NULL && home[0] != 0)
        return home;
    const struct passwd *entry = getpwuid(geteuid());
    return entry != NULL && entry->pw_dir[0] != 0 ? entry->pw_dir : NULL;
}

char *litestream_absolute_path(const char *path)
{
    char *absolute = NULL;
    const char *home = path[0] == '~' ? home_folder() : NULL;
    if (path[0] == '/') {
        absolute = lj_str_dup(path);
    } else if (path[0] == '~' && (path[1] == '/' || path[1] == 0) && home != NULL) {
        absolute = lj_str_printf("%s%s", home, path + 1);
    } else {
        LJ_CLEANUP(lj_freep) char *cwd = getcwd(NULL, 0);
        absolute = cwd != NULL ? lj_str_printf("%s/%s", cwd, path) : NULL;
    }
    if (absolute != NULL && absolute[0] == '/')
        lj_url_clean_path(absolute);
    if (absolute != NULL && absolute[0] == 0)
        memcpy(absolute, "/", 2); /* it was one slash at least */
    return absolute;
}

/* ---- rules ---- */

static lj_code replace(char **field, char *text, lj_error *err)
{
    if (text == NULL)
        return lj_error_nomem(err);
    free(*field);
    *field = text;
    return LJ_OK;
}

static bool known_type(const char *type)
{
    static const char *const types[] = {"file", "s3", "gcs", "abs", "sftp"};
    for (size_t i = 0; i < LJ_ARRAY_LEN(types); i++)
        if (strcmp(types[i], type) == 0)
            return true;
    return false;
}

static lj_code decide_type(litestream_replica *replica, const char *name, lj_error *err)
{
    if (replica->url != NULL && target_is_url(replica->url)) {
        bool gs = strncasecmp(replica->url, "gs:", 3) == 0; /* what v0.5 calls gcs */
        char *scheme = gs ? lj_str_dup("gcs") : strndup(replica->url, strcspn(replica->url, ":"));
        for (char *c = scheme; c != NULL && *c != 0; c++)
            *c = (char)tolower((unsigned char)*c);
        LJ_TRY(replace(&replica->type, scheme, err));
    } else if (replica->type == NULL) {
        LJ_TRY(replace(&replica->type, lj_str_dup("file"), err));
    }
    if (known_type(replica->type))
        return LJ_OK;
    lj_error_set(err, LJ_INVALID, "%s: unknown replica type in config: \"%s\"", name,
                 replica->type);
    return lj_error_hint(err, "file, s3, gcs, abs or sftp");
}

static lj_code exclusive(const litestream_replica *replica, const char *name, const char *key,
                         const char *value, lj_error *err)
{
    if (replica->url == NULL || value == NULL)
        return LJ_OK;
    return lj_error_set(err, LJ_INVALID, "%s: cannot specify url & %s for %s replica", name, key,
                        replica->type);
}

/* v0.3.13 says nothing of keys that another type of replica takes. They are what is left when `type` was forgotten. */
static void warn_of_other_types(const litestream_replica *replica, const char *name)
{
    const struct {
        const char *key;
        const char *types; /* that take it */
        bool given;
    } keys[] = {
        {"bucket", "s3 gcs abs", replica->bucket != NULL},
        {"access-key-id", "s3", replica->access_key_id != NULL},
        {"secret-access-key", "s3", replica->secret_access_key != NULL},
        {"region", "s3", replica->region != NULL},
        {"endpoint", "s3 abs", replica->endpoint != NULL},
        {"force-path-style", "s3", replica->has_force_path_style},
        {"skip-verify", "s3 gcs abs", replica->skip_verify},
        {"account-name", "abs", replica->account_name != NULL},
        {"account-key", "abs", replica->account_key != NULL},
        {"host", "sftp", replica->host != NULL},
        {"user", "sftp", replica->user != NULL},
        {"password", "sftp", replica->password != NULL},
        {"key-path", "sftp", replica->key_path != NULL},
    };
    for (size_t i = 0; i < LJ_ARRAY_LEN(keys); i++)
        if (keys[i].given && strstr(keys[i].types, replica->type) == NULL)
            lj_log(LJ_LOG_WARN, "%s: \"%s\" does nothing for replica \"%s\" of type %s", name,
                   keys[i].key, replica->name, replica->type);
}

static lj_code check_replica(litestream_replica *replica, const char *name, lj_error *err)
{
    char shown[LJ_OPTION_SHOWN_MAX]; /* it may be a URL with a password */
    lj_option_show_value("replica_url", replica->url != NULL ? replica->url : "", shown);
    if (replica->url != NULL && !target_is_url(replica->url))
        return lj_error_set(err, LJ_INVALID, "%s: replica url scheme required: %s", name, shown);
    lj_option_show_value("replica_url", replica->path != NULL ? replica->path : "", shown);
    LJ_TRY(decide_type(replica, name, err));
    LJ_TRY(exclusive(replica, name, "path", replica->path, err));
    if (strcmp(replica->type, "sftp") == 0)
        LJ_TRY(exclusive(replica, name, "host", replica->host, err));
    else if (strcmp(replica->type, "file") != 0)
        LJ_TRY(exclusive(replica, name, "bucket", replica->bucket, err));
    if (replica->path != NULL && target_is_url(replica->path))
        return lj_error_set(err, LJ_INVALID,
                            "%s: replica path cannot be a url, please use the 'url' field "
                            "instead: %s",
                            name, shown);
    if (replica->url == NULL && replica->path == NULL && strcmp(replica->type, "file") == 0)
        return lj_error_set(err, LJ_INVALID, "%s: a file replica needs a path or a url", name);
    if (replica->path != NULL && strcmp(replica->type, "file") == 0)
        LJ_TRY(replace(&replica->path, litestream_absolute_path(replica->path), err));
    if (replica->name == NULL)
        LJ_TRY(replace(&replica->name, lj_str_dup(replica->type), err));
    warn_of_other_types(replica, name);
    return LJ_OK;
}

static lj_code inherit(char **field, const char *from, lj_error *err)
{
    return *field != NULL || from == NULL ? LJ_OK : replace(field, lj_str_dup(from), err);
}

static lj_code check_db(const litestream_config *config, litestream_db *db, const char *name,
                        lj_error *err)
{
    if (db->path == NULL || db->path[0] == 0)
        return lj_error_set(err, LJ_INVALID, "%s: a database without a path", name);
    LJ_TRY(replace(&db->path, litestream_absolute_path(db->path), err));
    if (db->min_checkpoint_pages <= 0)
        return lj_error_set(err, LJ_INVALID, "%s: %s: min-checkpoint-page-count must be above 0",
                            name, db->path);
    for (size_t i = 0; i < db->replica_count; i++) {
        litestream_replica *replica = &db->replicas[i];
        LJ_TRY(check_replica(replica, name, err));
        LJ_TRY(inherit(&replica->access_key_id, config->access_key_id, err));
        LJ_TRY(inherit(&replica->secret_access_key, config->secret_access_key, err));
        for (size_t j = 0; j < i; j++)
            if (strcmp(db->replicas[j].name, replica->name) == 0)
                return lj_error_set(err, LJ_INVALID, "%s: %s: duplicate replica name: \"%s\"", name,
                                    db->path, replica->name);
    }
    return LJ_OK;
}

lj_code litestream_rules_apply(litestream_config *config, const char *name, lj_error *err)
{
    static const char *const levels[] = {"debug", "info", "warn", "warning", "error"};
    for (size_t i = 0; i < config->db_count; i++)
        LJ_TRY(check_db(config, &config->dbs[i], name, err));
    if (config->log_level == NULL)
        return LJ_OK;
    for (size_t i = 0; i < LJ_ARRAY_LEN(levels); i++)
        if (strcasecmp(levels[i], config->log_level) == 0)
            return LJ_OK;
    lj_error_set(err, LJ_INVALID, "%s: unknown logging level: \"%s\"", name, config->log_level);
    return lj_error_hint(err, "debug, info, warn, warning or error");
}

/* ---- look-ups ---- */

const litestream_db *litestream_config_find(const litestream_config *config, const char *db_path)
{
    LJ_CLEANUP(lj_freep) char *absolute = litestream_absolute_path(db_path);
    for (size_t i = 0; absolute != NULL && i < config->db_count; i++)
        if (strcmp(config->dbs[i].path, absolute) == 0)
            return &config->dbs[i];
    return NULL;
}

/* What v0.3.13 wants of a replica without a URL. */
static lj_code check_parts(const litestream_replica *replica, lj_error *err)
{
    bool sftp = strcmp(replica->type, "sftp") == 0;
    const char *missing = sftp && replica->host == NULL      ? "host"
                          : sftp && replica->user == NULL    ? "user"
                          : !sftp && replica->bucket == NULL ? "bucket"
                                                             : NULL;
    if (missing != NULL)
        return lj_error_set(err, LJ_INVALID, "%s required for %s replica", missing, replica->type);
    if (!sftp && strpbrk(replica->bucket, "/?#@: ") != NULL) {
        lj_error_set(err, LJ_INVALID, "the bucket has a character that no bucket has in its name");
        return lj_error_hint(err, "\"bucket\" is the name alone: a URL stands in \"url\", what is "
                                  "behind the name in \"path\"");
    }
    if (sftp && strpbrk(replica->host, "/?#@ ") != NULL)
        return lj_error_set(err, LJ_INVALID, "the host has a character that none has in its name");
    return LJ_OK;
}

/* `url` up to its user, the user, and the rest (with a password it has): as in v0.3.13 the key wins over the URL. */
static lj_code with_user(const char *url, const char *user, char **ret_url, lj_error *err)
{
    const char *authority = strstr(url, "://") + 3;
    size_t len = strcspn(authority, "/?#");
    const char *rest = authority;
    const char *password = authority;
    for (const char *c = authority; c < authority + len; c++)
        if (*c == '@')
            rest = c + 1;
    while (password < rest && *password != ':')
        password++;
    lj_buf encoded = LJ_BUF_INIT(TEXT_MAX);
    lj_code code = lj_url_encode(&encoded, user, false, err);
    if (code == LJ_OK)
        *ret_url = lj_str_printf("%.*s%s%s%s", (int)(authority - url), url, lj_buf_text(&encoded),
                                 password < rest ? "" : "@", password < rest ? password : rest);
    lj_buf_free(&encoded);
    return code;
}

/* The path is no part of it but for file: the others take it as a setting, as it is. */
lj_code litestream_replica_url(const litestream_replica *replica, char **ret_url, lj_error *err)
{
    bool sftp = strcmp(replica->type, "sftp") == 0;
    LJ_CLEANUP(lj_wipe_freep) char *url = NULL;
    if (replica->url != NULL) {
        url = lj_str_dup(replica->url);
    } else if (strcmp(replica->type, "file") == 0) {
        url = lj_str_printf("file://%s", replica->path);
    } else {
        LJ_TRY(check_parts(replica, err));
        url = lj_str_printf("%s://%s", replica->type, sftp ? replica->host : replica->bucket);
    }
    if (url != NULL && sftp && replica->user != NULL) {
        char *full = NULL;
        LJ_TRY(with_user(url, replica->user, &full, err));
        lj_wipe_freep(&url);
        url = full;
    }
    if (url == NULL)
        return lj_error_nomem(err);
    *ret_url = url;
    url = NULL;
    return LJ_OK;
}

lj_code litestream_replica_settings(const litestream_replica *replica,
                                    lj_storage_setting ret_settings[LITESTREAM_SETTINGS_MAX],
                                    size_t *ret_count, lj_error *err)
{
    const char *path_style = replica->force_path_style ? "true" : "false";
    const char *skip_verify = replica->skip_verify ? "true" : NULL;
    /* `path` is taken as it is: v0.3.13 keeps a leading '/', which a URL loses, and by SFTP a path without one is relative to
     * the login folder, which a URL cannot say */
    const struct {
        const char *type;
        lj_storage_setting setting;
    } known[] = {
        {"s3", {"access-key-id", replica->access_key_id}},
        {"s3", {"secret-access-key", replica->secret_access_key}},
        {"s3", {"region", replica->region}},
        {"s3", {"endpoint", replica->endpoint}},
        {"s3", {"force-path-style", replica->has_force_path_style ? path_style : NULL}},
        {"s3", {"skip-verify", skip_verify}},
        {"s3", {"path", replica->path}},
        {"gcs", {"path", replica->path}},
        {"gcs", {"skip-verify", skip_verify}},
        {"abs", {"account-name", replica->account_name}},
        {"abs", {"account-key", replica->account_key}},
        {"abs", {"endpoint", replica->endpoint}},
        {"abs", {"skip-verify", skip_verify}},
        {"abs", {"path", replica->path}},
        {"sftp", {"path", replica->path}},
        {"sftp", {"password", replica->password}},
        {"sftp", {"key-path", replica->key_path}},
    };
    size_t count = 0;
    for (size_t i = 0; i < LJ_ARRAY_LEN(known); i++)
        if (strcmp(known[i].type, replica->type) == 0 && known[i].setting.value != NULL)
            ret_settings[count++] = known[i].setting;
    for (size_t i = 0; i < replica->settings.values.count; i++) {
        if (count == LITESTREAM_SETTINGS_MAX)
            return lj_error_set(err, LJ_INVALID, "replica \"%s\" has too many settings",
                                replica->name);
        ret_settings[count++] = (lj_storage_setting){replica->settings.names.items[i],
                                                     replica->settings.values.items[i]};
    }
    *ret_count = count;
    return LJ_OK;
}
