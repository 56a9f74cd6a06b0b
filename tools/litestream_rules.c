/*
 * litestream_rules.c - see litestream_rules.h and the path, environment and URL functions of litestream_config.h.
 *
 * Layer: tools. Thread-safety: one thread (getenv).
 */
#include "tools/litestream_rules.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/target.h"
#include "vfs/base/buf.h"
#include "vfs/base/log.h"
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

char *litestream_absolute_path(const char *path)
{
    char *absolute = NULL;
    const char *home = getenv("HOME");
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
    return replica->name != NULL ? LJ_OK : replace(&replica->name, lj_str_dup(replica->type), err);
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

/* "TYPE://BUCKET/PATH" with the path encoded, because a URL's is decoded. */
static lj_code bucket_url(const litestream_replica *replica, const char *path, char **ret_url,
                          lj_error *err)
{
    lj_buf encoded = LJ_BUF_INIT(TEXT_MAX);
    lj_code code = lj_url_encode(&encoded, path, true, err);
    if (code == LJ_OK)
        *ret_url =
            lj_str_printf("%s://%s/%s", replica->type,
                          replica->bucket != NULL ? replica->bucket : "", lj_buf_text(&encoded));
    lj_buf_free(&encoded);
    return code;
}

lj_code litestream_replica_url(const litestream_replica *replica, char **ret_url, lj_error *err)
{
    const char *path = replica->path != NULL ? replica->path : "";
    char *url = NULL;
    if (replica->url != NULL)
        url = lj_str_dup(replica->url);
    else if (strcmp(replica->type, "file") == 0)
        url = lj_str_printf("file://%s", path);
    else if (strcmp(replica->type, "sftp") == 0)
        url = lj_str_printf("sftp://%s%s%s/%s", replica->user != NULL ? replica->user : "",
                            replica->user != NULL ? "@" : "",
                            replica->host != NULL ? replica->host : "",
                            path[0] == '/' ? path + 1 : path);
    else
        LJ_TRY(bucket_url(replica, path, &url, err));
    if (url == NULL)
        return lj_error_nomem(err);
    *ret_url = url;
    return LJ_OK;
}

lj_code litestream_replica_settings(const litestream_replica *replica,
                                    lj_storage_setting ret_settings[LITESTREAM_SETTINGS_MAX],
                                    size_t *ret_count, lj_error *err)
{
    const char *path_style = replica->force_path_style ? "true" : "false";
    const char *skip_verify = replica->skip_verify ? "true" : NULL;
    /* `path` is taken as it is: v0.3.13 keeps a leading '/', which a URL loses */
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
