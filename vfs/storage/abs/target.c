/*
 * target.c - what a replica's URL, its settings and the environment come to: container, prefix, endpoint, credentials.
 *
 * Layer: storage. Thread-safety: pure, but for reading the environment.
 */
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "vfs/base/str.h"
#include "vfs/storage/abs/internal.h"
#include "vfs/storage/auth/azure_internal.h"
#include "vfs/storage/url.h"

#define ENDPOINT_SUFFIX "blob.core.windows.net"

static const lj_setting_spec specs[] = {
    {"account-name", false}, {"endpoint", false},
    {"skip-verify", false},  {"list-page-size", false},
    {"path", false},         {"account-key", true},
    {"sas-token", true},     {"connection-string", true},
};

/* ---- the URL ---- */

static lj_code check_container(const char *name, lj_error *err)
{
    size_t len = strlen(name);
    bool special = strcmp(name, "$root") == 0 || strcmp(name, "$web") == 0;
    bool plain = len >= 3 && len <= 63 && name[0] != '-' && name[len - 1] != '-' &&
                 strstr(name, "--") == NULL &&
                 name[strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-")] == 0;
    if (special || plain)
        return LJ_OK;
    lj_error_set(err, LJ_INVALID,
                 len == 0 ? "the abs:// URL names no container"
                          : "the container in the abs:// URL has a name that none "
                            "can have");
    return lj_error_hint(err,
                         "abs://CONTAINER/PREFIX, and a container's name is 3 to 63 lower-case "
                         "letters, digits and single hyphens");
}

static lj_code check_url(const lj_url *url, lj_error *err)
{
    if (strcmp(url->scheme, "abs") != 0)
        return lj_error_set(err, LJ_INVALID, "not an abs:// URL");
    if (lj_secret_is_set(&url->password)) {
        lj_error_set(err, LJ_INVALID, "the abs:// URL has a password in it");
        return lj_error_hint(err, "secrets never go into a URL: give the account key in the "
                                  "environment (AZURE_STORAGE_KEY) or as account-key");
    }
    if (url->port != 0) {
        lj_error_set(err, LJ_INVALID, "the abs:// URL has a port");
        return lj_error_hint(err, "behind abs:// stands a container; name a server with "
                                  "endpoint=http://HOST:PORT/ACCOUNT");
    }
    return check_container(url->host, err);
}

/* ---- the endpoint ---- */

static lj_code bad_endpoint(lj_error *err, const char *what)
{
    lj_error_set(err, LJ_INVALID, "the endpoint %s", what);
    return lj_error_hint(err, "it looks like https://ACCOUNT.blob.core.windows.net, or "
                              "http://127.0.0.1:10000/ACCOUNT for an emulator");
}

static lj_code set_endpoint(lj_abs_target *target, const char *text, lj_error *err)
{
    size_t scheme = strncasecmp(text, "https://", 8) == 0  ? 8
                    : strncasecmp(text, "http://", 7) == 0 ? 7
                                                           : 0;
    if (scheme == 0)
        return bad_endpoint(err, "does not begin with https:// or http://");
    for (const char *c = text; *c != 0; c++)
        if ((unsigned char)*c <= 0x20 || *c == 0x7f || strchr("?#@\\\"<>", *c) != NULL)
            return bad_endpoint(err, "has a character that it cannot have");
    if (text[scheme] == 0 || text[scheme] == '/')
        return bad_endpoint(err, "names no host");
    target->endpoint = lj_str_dup(text);
    if (target->endpoint == NULL)
        return lj_error_nomem(err);
    size_t len = strlen(text);
    while (target->endpoint[len - 1] == '/')
        target->endpoint[--len] = 0;
    target->path_at = scheme + strcspn(target->endpoint + scheme, "/");
    return LJ_OK;
}

static lj_code choose_endpoint(lj_abs_target *target, const char *setting, lj_error *err)
{
    const char *account = lj_azure_provider_account(target->provider);
    const char *connection = lj_azure_provider_endpoint(target->provider);
    if (setting != NULL || connection != NULL)
        return set_endpoint(target, setting != NULL ? setting : connection, err);
    if (account == NULL) {
        lj_error_set(err, LJ_INVALID, "the storage account is not named");
        return lj_error_hint(err, "write abs://ACCOUNT@container/prefix, or set account-name or "
                                  "AZURE_STORAGE_ACCOUNT");
    }
    LJ_CLEANUP(lj_freep) char *text = lj_str_printf("https://%s." ENDPOINT_SUFFIX, account);
    return text != NULL ? set_endpoint(target, text, err) : lj_error_nomem(err);
}

/* ---- all of it ---- */

static lj_code make_provider(const lj_url *url, const lj_settings *settings, int64_t io_timeout_ns,
                             lj_abs_target *target, lj_error *err)
{
    const char *user = url->user != NULL && url->user[0] != 0 ? url->user : NULL;
    const char *name = lj_settings_get(settings, "account-name");
    if (user != NULL && name != NULL && strcmp(user, name) != 0) {
        lj_error_set(err, LJ_INVALID,
                     "the abs:// URL names another storage account than account-name");
        return lj_error_hint(err, "name the same account in both, or leave one of them out");
    }
    lj_azure_options options = {
        .account_name = user != NULL ? user : name,
        .account_key = lj_settings_get(settings, "account-key"),
        .sas_token = lj_settings_get(settings, "sas-token"),
        .connection_string = lj_settings_get(settings, "connection-string"),
        .endpoint = lj_settings_get(settings, "endpoint"),
        .io_timeout_ns = io_timeout_ns,
    };
    return lj_azure_provider_new(&options, &target->provider, err);
}

static lj_code make_display_url(lj_abs_target *target, lj_error *err)
{
    const char *account = lj_azure_provider_account(target->provider);
    target->display_url = lj_str_printf("abs://%s%s%s%s%s", account != NULL ? account : "",
                                        account != NULL ? "@" : "", target->container,
                                        target->prefix[0] != 0 ? "/" : "", target->prefix);
    return target->display_url == NULL ? lj_error_nomem(err) : LJ_OK;
}

static lj_code fill(lj_abs_target *target, const lj_url *url, const lj_settings *settings,
                    int64_t io_timeout_ns, lj_error *err)
{
    target->container = lj_str_dup(url->host);
    target->prefix = lj_settings_prefix(settings, url);
    if (target->container == NULL || target->prefix == NULL)
        return lj_error_nomem(err);
    LJ_TRY(make_provider(url, settings, io_timeout_ns, target, err));
    LJ_TRY(choose_endpoint(target, lj_settings_get(settings, "endpoint"), err));
    if (lj_azure_provider_kind(target->provider) == LJ_AZURE_BEARER &&
        lj_azure_is_exposed(target->endpoint)) {
        lj_error_set(err, LJ_INVALID, "a bearer token cannot go over http:// to another machine");
        return lj_error_hint(err, "use an https:// endpoint, or an account key");
    }
    return make_display_url(target, err);
}

lj_code lj_abs_target_make(const char *text, const lj_storage_options *options,
                           lj_settings *ret_settings, lj_abs_target *ret_target, lj_error *err)
{
    LJ_CLEANUP(lj_url_free) lj_url url = {.scheme = NULL};
    LJ_TRY(lj_url_parse(text, &url, err));
    LJ_TRY(check_url(&url, err));
    lj_settings settings;
    LJ_TRY(lj_settings_make(&settings, specs, LJ_ARRAY_LEN(specs), url.query, options, err));
    lj_abs_target target = {.container = NULL};
    lj_code code = fill(&target, &url, &settings, options->io_timeout_ns, err);
    if (code != LJ_OK) {
        lj_settings_free(&settings);
        lj_abs_target_free(&target);
        return code;
    }
    *ret_settings = settings;
    *ret_target = target;
    return LJ_OK;
}

void lj_abs_target_free(lj_abs_target *target)
{
    free(target->container);
    free(target->prefix);
    free(target->endpoint);
    free(target->display_url);
    lj_azure_provider_free(target->provider);
    *target = (lj_abs_target){.container = NULL};
}
