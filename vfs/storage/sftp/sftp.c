/*
 * sftp.c - see sftp.h: opening, names, and what the operations share.
 *
 * Layer: storage. Thread-safety: as storage.h; a lj_sftp is constant but for what its mutex guards.
 */
#include "vfs/storage/sftp/sftp.h"

#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vfs/base/io.h"
#include "vfs/base/str.h"
#include "vfs/storage/setting.h"
#include "vfs/storage/sftp/internal.h"
#include "vfs/storage/url.h"

#define STALL_NS        (30 * LJ_NS_PER_S)
#define CONNECTIONS     8u
#define CONNECTIONS_MAX 64u
#define PASSWD_BYTES    4096

static const lj_setting_spec specs[] = {
    {"password", true},          {"key-path", false}, {"key-passphrase", true},
    {"known-hosts-path", false}, {"host-key", false}, {"strict-host-key", false},
    {"max-connections", false},  {"path", false},
};

/* ---- names ---- */

#define TEMP_SUFFIX ".part"
#define TEMP_DIGITS 16u
#define TEMP_TAIL   (1u + TEMP_DIGITS + sizeof(TEMP_SUFFIX) - 1) /* ".<digits>.part" */

/*
 * Not the file driver's form: when a folder is also used by that, its sweep would take our files for abandoned, as
 * nobody on the server holds a lock on them.
 */
bool lj_sftp_is_temp(const char *name)
{
    size_t len = strlen(name);
    if (name[0] != '.' || len < 1 + TEMP_TAIL)
        return false;
    const char *tail = name + len - TEMP_TAIL;
    uint64_t ignored = 0;
    return tail[0] == '.' && lj_str_hex(tail + 1, TEMP_DIGITS, &ignored) &&
           strcmp(tail + 1 + TEMP_DIGITS, TEMP_SUFFIX) == 0;
}

char *lj_sftp_temp_name(const char *name)
{
    uint64_t random = 0;
    lj_io_random(&random, sizeof(random));
    return lj_str_printf(".%.*s.%016llx" TEMP_SUFFIX, (int)(LJ_SFTP_NAME_MAX - 1 - TEMP_TAIL), name,
                         (unsigned long long)random);
}

char *lj_sftp_path(const lj_sftp *sftp, const char *key)
{
    if (key[0] == 0)
        return lj_str_dup(sftp->root[0] != 0 ? sftp->root : ".");
    if (sftp->root[0] == 0)
        return lj_str_dup(key);
    return lj_str_printf("%s/%s", strcmp(sftp->root, "/") == 0 ? "" : sftp->root, key);
}

bool lj_sftp_is_file(const lj_fx_attrs *attrs)
{
    return (attrs->flags & LJ_FXA_PERMISSIONS) != 0 && (attrs->permissions & 0170000u) == 0100000u;
}

bool lj_sftp_is_folder(const lj_fx_attrs *attrs)
{
    return (attrs->flags & LJ_FXA_PERMISSIONS) != 0 && (attrs->permissions & 0170000u) == 0040000u;
}

bool lj_sftp_is_link(const lj_fx_attrs *attrs)
{
    return (attrs->flags & LJ_FXA_PERMISSIONS) != 0 && (attrs->permissions & 0170000u) == 0120000u;
}

bool lj_sftp_has_kind(const lj_fx_attrs *attrs)
{
    return (attrs->flags & LJ_FXA_PERMISSIONS) != 0 && (attrs->permissions & 0170000u) != 0;
}

lj_code lj_sftp_no_kind(const char *path, lj_error *err)
{
    lj_error_set(err, LJ_UNSUPPORTED, "the server does not say whether %s is a file or a folder",
                 path);
    return lj_error_hint(err, "a replica cannot be found on such a server: use another one");
}

/* ---- folders that are none, links that lead nowhere ---- */

lj_code lj_sftp_check_folder(lj_sftp_session *s, const char *path, lj_error *err)
{
    LJ_CLEANUP(lj_freep) char *part = lj_str_dup(path);
    if (part == NULL)
        return lj_error_nomem(err);
    /* upwards to what is there: that must be a folder */
    for (;;) {
        lj_fx_attrs attrs;
        uint32_t status = 0;
        LJ_TRY(lj_sftp_do_stat(s, LJ_FXP_STAT, part, &attrs, &status, err));
        if (status == LJ_FX_OK && lj_sftp_is_file(&attrs)) {
            lj_error_set(err, LJ_INVALID, "%s cannot be a folder: %s is a file", path, part);
            return lj_error_hint(err, "name a folder in the sftp:// URL, or move that file away");
        }
        if (status == LJ_FX_OK)
            return LJ_OK;
        if (status != LJ_FX_NO_SUCH_FILE)
            return lj_sftp_status_error(status, "cannot look at", part, err);
        if (!lj_str_cut_part(part))
            return LJ_OK;
    }
}

lj_code lj_sftp_check_root(const lj_sftp *sftp, lj_sftp_session *s, lj_error *err)
{
    LJ_CLEANUP(lj_freep) char *path = lj_sftp_path(sftp, "");
    return path != NULL ? lj_sftp_check_folder(s, path, err) : lj_error_nomem(err);
}

lj_code lj_sftp_leads_nowhere(const char *path, lj_error *err)
{
    lj_error_set(err, LJ_UNAVAILABLE, "%s is a link to something that is not there", path);
    (void)lj_error_hint(err, "mount what it leads to on the server, or remove the link");
    return lj_error_retryable(err, true);
}

lj_code lj_sftp_check_links(lj_sftp_session *s, const char *path, lj_error *err)
{
    LJ_CLEANUP(lj_freep) char *part = lj_str_dup(path);
    if (part == NULL)
        return lj_error_nomem(err);
    lj_fx_attrs attrs;
    uint32_t status = 0;
    /* upwards to what is there */
    do {
        LJ_TRY(lj_sftp_do_stat(s, LJ_FXP_LSTAT, part, &attrs, &status, err));
    } while (status == LJ_FX_NO_SUCH_FILE && lj_str_cut_part(part));
    if (status != LJ_FX_OK || !lj_sftp_is_link(&attrs))
        return LJ_OK;
    LJ_TRY(lj_sftp_do_stat(s, LJ_FXP_STAT, part, &attrs, &status, err));
    return status == LJ_FX_NO_SUCH_FILE ? lj_sftp_leads_nowhere(part, err) : LJ_OK;
}

/* ---- unfinished puts ---- */

void lj_sftp_stale_add(lj_sftp *sftp, const char *path)
{
    pthread_mutex_lock(&sftp->mutex);
    bool known = false;
    for (size_t i = 0; i < sftp->stale_count; i++)
        known = known || strcmp(sftp->stale[i], path) == 0;
    if (!known && sftp->stale_count < LJ_ARRAY_LEN(sftp->stale)) {
        char *copy = lj_str_dup(path);
        if (copy != NULL)
            sftp->stale[sftp->stale_count++] = copy;
    }
    pthread_mutex_unlock(&sftp->mutex);
}

void lj_sftp_stale_delete(lj_sftp *sftp, lj_sftp_session *s)
{
    char *paths[LJ_ARRAY_LEN(sftp->stale)];
    pthread_mutex_lock(&sftp->mutex);
    size_t count = sftp->stale_count;
    memcpy(paths, sftp->stale, sizeof(paths));
    sftp->stale_count = 0;
    pthread_mutex_unlock(&sftp->mutex);
    for (size_t i = 0; i < count; i++) {
        uint32_t status = 0;
        if (!s->broken && lj_sftp_do_path(s, LJ_FXP_REMOVE, paths[i], &status, NULL) != LJ_OK)
            s->broken = true;
        if (s->broken)
            lj_sftp_stale_add(sftp, paths[i]);
        free(paths[i]);
    }
}

/* ---- opening ---- */

static void config_free(lj_sftp_config *config)
{
    free(config->user);
    free(config->host);
    lj_secret_free(&config->password);
    free(config->key_path);
    lj_secret_free(&config->key_passphrase);
    free(config->agent_path);
    free(config->home);
    free(config->known_hosts_path);
    free(config->host_key);
}

static void sftp_close(void *self)
{
    lj_sftp *sftp = self;
    lj_sftp_target_free(sftp->target);
    config_free(&sftp->config);
    for (size_t i = 0; i < sftp->stale_count; i++)
        free(sftp->stale[i]);
    pthread_mutex_destroy(&sftp->mutex);
    free(sftp->root);
    free(sftp);
}

static void sftp_closep(lj_sftp **sftp)
{
    if (*sftp != NULL)
        sftp_close(*sftp);
}

static const char *variable(const char *name)
{
    const char *value = getenv(name);
    return value != NULL && value[0] != 0 ? value : NULL;
}

static char *home_folder(void)
{
    const char *home = variable("HOME");
    if (home != NULL)
        return lj_str_dup(home);
    struct passwd entry;
    struct passwd *found = NULL;
    char buffer[PASSWD_BYTES];
    if (getpwuid_r(geteuid(), &entry, buffer, sizeof(buffer), &found) != 0 || found == NULL)
        return NULL;
    return lj_str_dup(found->pw_dir);
}

/* A path from the settings into *ret_path, with "~/" expanded; stays NULL when not given. */
static lj_code take_path(const lj_sftp_config *config, const lj_settings *settings,
                         const char *name, char **ret_path, lj_error *err)
{
    const char *path = lj_settings_get(settings, name);
    if (path == NULL)
        return LJ_OK;
    bool at_home = lj_str_starts(path, "~/");
    if (at_home && config->home == NULL)
        return lj_error_set(err, LJ_INVALID, "%s is in the home folder, which is not known (HOME)",
                            name);
    *ret_path = at_home ? lj_str_printf("%s%s", config->home, path + 1) : lj_str_dup(path);
    return *ret_path != NULL ? LJ_OK : lj_error_nomem(err);
}

/* The first of these that is there. */
static lj_code take_secret(lj_secret *secret, const char *first, const char *second,
                           const char *third, lj_error *err)
{
    const char *value = first != NULL ? first : second != NULL ? second : third;
    return value != NULL ? lj_secret_set(secret, value, err) : LJ_OK;
}

static lj_code take_connections(lj_sftp_config *config, const lj_settings *settings, lj_error *err)
{
    const char *text = lj_settings_get(settings, "max-connections");
    uint64_t n = CONNECTIONS;
    if (text != NULL && (!lj_str_u64(text, &n) || n < 1 || n > CONNECTIONS_MAX))
        return lj_error_set(err, LJ_INVALID, "max-connections is a number from 1 to %u",
                            CONNECTIONS_MAX);
    config->max_connections = (unsigned)n;
    return LJ_OK;
}

static lj_code take_host_key(lj_sftp_config *config, const lj_settings *settings, lj_error *err)
{
    const char *pin = lj_settings_get(settings, "host-key");
    bool strict = true;
    LJ_TRY(lj_settings_bool(settings, "strict-host-key", true, &strict, err));
    config->any_host_key = !strict;
    if (pin == NULL)
        return LJ_OK;
    if (!strict)
        return lj_error_set(err, LJ_INVALID,
                            "host-key names a key, and strict-host-key: false accepts any");
    config->host_key = lj_str_dup(pin);
    if (config->host_key == NULL)
        return lj_error_nomem(err);
    /* a '+' in a URL's query is a space, which no fingerprint has */
    for (char *c = config->host_key; lj_str_starts(pin, "SHA256:") && *c != 0; c++)
        if (*c == ' ')
            *c = '+';
    return lj_hostkey_pin_check(config->host_key, err);
}

static lj_code configure(lj_sftp_config *config, const lj_url *url, const lj_settings *settings,
                         lj_error *err)
{
    const char *agent = variable("SSH_AUTH_SOCK");
    config->user = lj_str_dup(url->user);
    config->host = lj_str_dup(url->host);
    config->agent_path = lj_str_dup(agent);
    if (config->user == NULL || config->host == NULL || (agent != NULL && !config->agent_path))
        return lj_error_nomem(err);
    config->port = url->port != 0 ? url->port : 22;
    config->home = home_folder();
    LJ_TRY(take_path(config, settings, "key-path", &config->key_path, err));
    LJ_TRY(take_path(config, settings, "known-hosts-path", &config->known_hosts_path, err));
    LJ_TRY(take_secret(&config->password, lj_settings_get(settings, "password"),
                       lj_secret_is_set(&url->password) ? lj_secret_text(&url->password) : NULL,
                       variable(LJ_SFTP_PASSWORD_VARIABLE), err));
    LJ_TRY(take_secret(&config->key_passphrase, lj_settings_get(settings, "key-passphrase"),
                       variable(LJ_SFTP_PASSPHRASE_VARIABLE), NULL, err));
    LJ_TRY(take_host_key(config, settings, err));
    return take_connections(config, settings, err);
}

static lj_code check_url(const lj_url *url, lj_error *err)
{
    if (strcmp(url->scheme, "sftp") != 0)
        return lj_error_set(err, LJ_INVALID, "not an sftp:// URL");
    const char *missing = url->host[0] == 0                        ? "host"
                          : url->user == NULL || url->user[0] == 0 ? "user"
                                                                   : NULL;
    if (missing == NULL)
        return LJ_OK;
    lj_error_set(err, LJ_INVALID, "the sftp:// URL has no %s", missing);
    return lj_error_hint(err, "its form is sftp://user@host[:port]/path");
}

/* "sftp://u@h/" is the server's root, "sftp://u@h" the login folder; the cleaned path is "" for both. */
static bool has_slash(const char *url)
{
    const char *authority = strstr(url, "://");
    return authority != NULL && authority[3 + strcspn(authority + 3, "/?#")] == '/';
}

static char *root_of(const char *url, const lj_url *parts)
{
    return lj_str_dup(parts->path[0] == 0 && has_slash(url) ? "/" : parts->path);
}

/* A path without a '/' in front begins in the login folder. Where ".." leads from there only the server knows. */
static void clean_root(char *root)
{
    bool absolute = root[0] == '/';
    if (absolute || strstr(root, "..") == NULL)
        lj_url_clean_path(root);
    for (size_t len = strlen(root); len > 1 && root[len - 1] == '/'; len--)
        root[len - 1] = 0;
    if (absolute && root[0] == 0)
        memcpy(root, "/", 2); /* it was one slash at least */
}

/*
 * A rename that was asked for before the connection broke may be done when the server has time for it, and there are servers that
 * replace what has the name. Of one that has not made a hard link for us yet nobody knows how it gives names.
 */
static bool sftp_overwrites_late(void *self)
{
    const lj_sftp_target *target = ((lj_sftp *)self)->target;
    return !__atomic_load_n(&target->hard_links, __ATOMIC_RELAXED) ||
           __atomic_load_n(&target->no_hard_links, __ATOMIC_RELAXED);
}

static const lj_storage_ops sftp_ops = {
    .name = "sftp",
    .features = LJ_STORAGE_IF_ABSENT | LJ_STORAGE_SET_TIME | LJ_STORAGE_REMOTE,
    .put = lj_sftp_put,
    .get = lj_sftp_get,
    .head = lj_sftp_head,
    .list = lj_sftp_list,
    .delete_many = lj_sftp_delete_many,
    .close = sftp_close,
    .overwrites_late = sftp_overwrites_late,
};

static lj_code sftp_new(const char *url, const lj_url *parts, const lj_settings *settings,
                        const lj_storage_options *options, lj_sftp **ret_sftp, lj_error *err)
{
    lj_sftp *sftp = calloc(1, sizeof(*sftp));
    if (sftp == NULL || pthread_mutex_init(&sftp->mutex, NULL) != 0) {
        free(sftp);
        return lj_error_nomem(err);
    }
    *ret_sftp = sftp;
    sftp->cancel = options->cancel;
    sftp->config.stall_ns = options->io_timeout_ns > 0 ? options->io_timeout_ns : STALL_NS;
    const char *path = lj_settings_get(settings, "path");
    sftp->root = path != NULL ? lj_str_dup(path) : root_of(url, parts);
    if (sftp->root == NULL)
        return lj_error_nomem(err);
    if (path != NULL)
        clean_root(sftp->root);
    LJ_TRY(configure(&sftp->config, parts, settings, err));
    return lj_sftp_target_get(&sftp->config, &sftp->target, err);
}

/* The URL for messages: without password and query. */
static char *display_url(const lj_sftp *sftp)
{
    const lj_sftp_config *c = &sftp->config;
    bool v6 = strchr(c->host, ':') != NULL;
    char port[8] = "";
    if (c->port != 22)
        snprintf(port, sizeof(port), ":%u", c->port);
    bool relative = sftp->root[0] != 0 && sftp->root[0] != '/';
    return lj_str_printf("sftp://%s@%s%s%s%s%s%s", c->user, v6 ? "[" : "", c->host, v6 ? "]" : "",
                         port, relative ? "/~/" : "", sftp->root);
}

lj_code lj_sftp_open(const char *url, const lj_storage_options *options, lj_storage **ret_storage,
                     lj_error *err)
{
    LJ_CLEANUP(lj_url_free) lj_url parts = {.scheme = NULL};
    LJ_TRY(lj_url_parse(url, &parts, err));
    LJ_TRY(check_url(&parts, err));
    LJ_CLEANUP(lj_settings_free) lj_settings settings = {.count = 0};
    LJ_TRY(lj_settings_make(&settings, specs, LJ_ARRAY_LEN(specs), parts.query, options, err));
    LJ_CLEANUP(sftp_closep) lj_sftp *sftp = NULL;
    LJ_TRY(sftp_new(url, &parts, &settings, options, &sftp, err));
    LJ_CLEANUP(lj_freep) char *display = display_url(sftp);
    if (display == NULL)
        return lj_error_nomem(err);
    LJ_TRY(lj_storage_wrap(&sftp_ops, sftp, display, ret_storage, err));
    sftp = NULL;
    return LJ_OK;
}
