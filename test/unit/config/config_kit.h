/*
 * config_kit.h - what the config tests share: setting one option through any origin, showing one as text.
 *
 * Header-only, because each test is one program of one file.
 */
#ifndef LJ_TEST_CONFIG_KIT_H
#define LJ_TEST_CONFIG_KIT_H

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vfs/config/config.h"

#define KIT_SHOW_MAX 2200u

/* Parameters of a URI: "key", "value", ..., NULL. */
typedef struct {
    const char *pairs[12];
} kit_uri;

static inline const char *kit_uri_key(void *ctx, int i)
{
    kit_uri *uri = ctx;
    return i < 6 ? uri->pairs[2 * i] : NULL;
}

static inline const char *kit_uri_lookup(void *ctx, const char *key)
{
    kit_uri *uri = ctx;
    for (int i = 0; i < 12 && uri->pairs[i] != NULL; i += 2) {
        if (strcmp(uri->pairs[i], key) == 0)
            return uri->pairs[i + 1];
    }
    return NULL;
}

static inline lj_code kit_load_uri(lj_config *config, kit_uri *uri, lj_error *err)
{
    return lj_config_load_uri(config, kit_uri_lookup, kit_uri_key, uri, err);
}

/* Loads `len` bytes of YAML through a file. */
static inline lj_code kit_load_yaml_bytes(lj_config *config, const void *text, size_t len,
                                          lj_error *err)
{
    char path[] = "/tmp/lj-config-XXXXXX";
    int fd = mkstemp(path);
    if (fd < 0 || write(fd, text, len) != (ssize_t)len)
        abort();
    close(fd);
    bool has_block = false;
    lj_code code = lj_config_load_yaml(config, path, &has_block, err);
    unlink(path);
    return code;
}

static inline lj_code kit_load_yaml(lj_config *config, const char *text, lj_error *err)
{
    return kit_load_yaml_bytes(config, text, strlen(text), err);
}

/* Sets one option the way its user would from that origin. */
static inline lj_code kit_load(lj_config *config, lj_origin origin, const char *name,
                               const char *value, lj_error *err)
{
    char text[1024];
    if (origin == LJ_ORIGIN_FILE) {
        snprintf(text, sizeof(text), "replication:\n  %s: \"%s\"\n", name, value);
        return kit_load_yaml(config, text, err);
    }
    if (origin == LJ_ORIGIN_ENV) {
        snprintf(text, sizeof(text), "LITEJOIN_%s=%s", name, value);
        for (char *p = text; *p != '='; p++)
            *p = (char)toupper((unsigned char)*p);
        char home[] = "HOME=/";
        char *const block[] = {home, text, NULL};
        return lj_config_load_env(config, block, err);
    }
    if (origin == LJ_ORIGIN_URI) {
        snprintf(text, sizeof(text), "litejoin_%s", name);
        kit_uri uri = {{"vfs", "litejoin", text, value, NULL}};
        return kit_load_uri(config, &uri, err);
    }
    return lj_config_set(config, origin, name, value, err);
}

/* lj_config_load_env takes what `environ` is: pointers to characters that are not const. */
static inline lj_code kit_load_env(lj_config *config, const char *const *block, lj_error *err)
{
    return lj_config_load_env(config, (char *const *)(uintptr_t)block, err);
}

/* The value an option has, as text. */
static inline void kit_show(const lj_config *c, const char *name, char out[KIT_SHOW_MAX])
{
    const struct {
        const char *name;
        const char *text;
        long long number;
    } rows[] = {
        {"enabled", c->enabled ? "true" : "false", 0},
        {"mode", c->mode == LJ_MODE_EMBEDDED ? "embedded" : "sidecar", 0},
        {"replica_url", c->replica_url != NULL ? c->replica_url : "(null)", 0},
        {"replica_name", c->replica_name != NULL ? c->replica_name : "(null)", 0},
        {"sync_interval", NULL, c->sync_interval_ns},
        {"restore_on_boot", c->restore_on_boot ? "true" : "false", 0},
        {"snapshot_interval", NULL, c->snapshot_interval_ns},
        {"retention", NULL, c->retention_ns},
        {"max_wal_size", NULL, (long long)c->max_wal_size_bytes},
        {"max_spool_size", NULL, (long long)c->max_spool_size_bytes},
        {"shutdown_timeout", NULL, c->shutdown_timeout_ns},
        {"io_timeout", NULL, c->io_timeout_ns},
        {"upload_workers", NULL, c->upload_workers},
        {"fsync_before_ship", c->fsync_before_ship ? "true" : "false", 0},
        {"auto_wal", c->auto_wal ? "true" : "false", 0},
        {"guard", c->guard ? "true" : "false", 0},
        {"durability",
         c->durability == LJ_DURABILITY_REMOTE ? "remote"
         : c->durability == LJ_DURABILITY_ACK  ? "ack"
                                               : "local",
         0},
        {"remote_timeout", NULL, c->remote_timeout_ns},
        {"remote_on_failure", c->remote_on_failure == LJ_ON_FAILURE_DEGRADE ? "degrade" : "error",
         0},
        {"log_level", lj_log_level_name(c->log_level), 0},
        {"log_file", c->log_file != NULL ? c->log_file : "(null)", 0},
        {"base_vfs", c->base_vfs != NULL ? c->base_vfs : "(null)", 0},
        {"default_vfs", c->default_vfs ? "true" : "false", 0},
    };
    snprintf(out, KIT_SHOW_MAX, "no such option: %s", name);
    for (size_t i = 0; i < LJ_ARRAY_LEN(rows); i++) {
        if (strcmp(rows[i].name, name) != 0)
            continue;
        if (rows[i].text != NULL)
            snprintf(out, KIT_SHOW_MAX, "%s", rows[i].text);
        else
            snprintf(out, KIT_SHOW_MAX, "%lld", rows[i].number);
    }
}

#endif
