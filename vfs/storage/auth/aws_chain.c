/*
 * aws_chain.c - where AWS credentials come from: the order of the SDKs over settings, environment and shared files.
 *
 * Makes no request. Follows the default chain of the SDK for Go v2, but says LJ_INVALID where that goes on in silence with
 * half a key pair.
 *
 * Layer: storage. Thread-safety: reads the environment; nobody may change it meanwhile.
 */
#include "vfs/storage/auth/aws_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "vfs/base/log.h"
#include "vfs/base/str.h"

#define ECS_ENDPOINT      "http://169.254.170.2"
#define IMDS_ENDPOINT     "http://169.254.169.254"
#define IMDS_ENDPOINT_IP6 "http://[fd00:ec2::254]"

const char *lj_aws_env(const char *name)
{
    const char *value = getenv(name);
    return value != NULL && value[0] != 0 ? value : NULL;
}

static const char *first_env(const char *const *names)
{
    for (; *names != NULL; names++) {
        if (lj_aws_env(*names) != NULL)
            return lj_aws_env(*names);
    }
    return NULL;
}

static bool env_true(const char *name)
{
    const char *value = lj_aws_env(name);
    return value != NULL && strcasecmp(value, "true") == 0;
}

lj_code lj_aws_copy(char **ret, const char *text, lj_error *err)
{
    if (text == NULL)
        return LJ_OK;
    char *fresh = lj_str_dup(text);
    if (fresh == NULL)
        return lj_error_nomem(err);
    free(*ret);
    *ret = fresh;
    return LJ_OK;
}

/* ---- key pairs from settings and environment ---- */

lj_code lj_aws_half_pair(const char *where, const char *missing, lj_error *err)
{
    lj_error_set(err, LJ_INVALID, "AWS credentials: half a key pair in %s", where);
    return lj_error_hint(err, "give %s too, or neither", missing);
}

static lj_code take_pair(lj_aws_source *source, const char *origin, const char *key_id,
                         const char *secret, const char *session, lj_error *err)
{
    lj_token token = LJ_TOKEN_INIT;
    LJ_TRY(lj_aws_token_make(origin, key_id, secret, session, 0, &token, err));
    memcpy(source->values, token.values, sizeof(source->values)); /* moved */
    source->kind = LJ_AWS_STATIC;
    return lj_aws_copy(&source->origin, origin, err);
}

static lj_code try_settings(const lj_aws_options *options, lj_aws_source *source, bool *ret_decided,
                            lj_error *err)
{
    bool id = options->access_key_id != NULL && options->access_key_id[0] != 0;
    bool secret = options->secret_access_key != NULL && options->secret_access_key[0] != 0;
    if (!id && !secret)
        return LJ_OK;
    if (!id || !secret)
        return lj_aws_half_pair("the settings", id ? "secret-access-key" : "access-key-id", err);
    *ret_decided = true;
    return take_pair(source, "the settings", options->access_key_id, options->secret_access_key,
                     options->session_token, err);
}

lj_code lj_aws_take_environment(lj_aws_source *source, bool *ret_found, lj_error *err)
{
    static const char *const ids[] = {"AWS_ACCESS_KEY_ID", "AWS_ACCESS_KEY", NULL};
    static const char *const secrets[] = {"AWS_SECRET_ACCESS_KEY", "AWS_SECRET_KEY", NULL};
    const char *id = first_env(ids);
    const char *secret = first_env(secrets);
    const char *own_id = lj_aws_env("LITESTREAM_ACCESS_KEY_ID");
    const char *own_secret = lj_aws_env("LITESTREAM_SECRET_ACCESS_KEY");
    /* v0.3.13 fills in each name by itself; but an id of one pair with the secret of another is never meant */
    bool mixed = (id == NULL) != (secret == NULL) && own_id != NULL && own_secret != NULL;
    if (!mixed) {
        id = id != NULL ? id : own_id;
        secret = secret != NULL ? secret : own_secret;
    }
    if (id == NULL && secret == NULL)
        return LJ_OK;
    if (id == NULL || secret == NULL)
        return lj_aws_half_pair("the environment",
                                id != NULL ? "AWS_SECRET_ACCESS_KEY" : "AWS_ACCESS_KEY_ID", err);
    *ret_found = true;
    return take_pair(source, "the environment", id, secret, lj_aws_env("AWS_SESSION_TOKEN"), err);
}
/* ---- container and instance ---- */

lj_code lj_aws_take_container(lj_aws_source *source, bool *ret_found, lj_error *err)
{
    const char *full = lj_aws_env("AWS_CONTAINER_CREDENTIALS_FULL_URI");
    const char *relative = lj_aws_env("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
    if (full == NULL && relative == NULL)
        return LJ_OK;
    *ret_found = true;
    source->kind = LJ_AWS_CONTAINER;
    LJ_TRY(lj_aws_copy(&source->origin, "the container's credential service", err));
    LJ_TRY(lj_aws_copy(&source->token_file, lj_aws_env("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"),
                       err));
    LJ_TRY(lj_secret_set(&source->authorization, lj_aws_env("AWS_CONTAINER_AUTHORIZATION_TOKEN"),
                         err));
    if (relative == NULL)
        return lj_aws_copy(&source->url, full, err);
    source->url = lj_str_printf(ECS_ENDPOINT "%s%s", relative[0] == '/' ? "" : "/", relative);
    return source->url == NULL ? lj_error_nomem(err) : LJ_OK;
}

lj_code lj_aws_take_imds(lj_aws_source *source, lj_error *err)
{
    const char *mode = lj_aws_env("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE");
    const char *endpoint = lj_aws_env("AWS_EC2_METADATA_SERVICE_ENDPOINT");
    if (mode != NULL && strcasecmp(mode, "IPv4") != 0 && strcasecmp(mode, "IPv6") != 0) {
        lj_error_set(err, LJ_INVALID, "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE is not known");
        return lj_error_hint(err, "it is IPv4 or IPv6");
    }
    if (endpoint == NULL)
        endpoint =
            mode != NULL && strcasecmp(mode, "IPv6") == 0 ? IMDS_ENDPOINT_IP6 : IMDS_ENDPOINT;
    source->kind = LJ_AWS_IMDS;
    source->imds_disabled = env_true("AWS_EC2_METADATA_DISABLED");
    source->imds_v1_disabled = env_true("AWS_EC2_METADATA_V1_DISABLED");
    LJ_TRY(lj_aws_copy(&source->origin, "the EC2 instance metadata service", err));
    return lj_aws_copy(&source->url, endpoint, err);
}
/* ---- all of it ---- */

static lj_code try_web_identity(lj_aws_source *source, bool *ret_decided, lj_error *err)
{
    const char *file = lj_aws_env("AWS_WEB_IDENTITY_TOKEN_FILE");
    if (file == NULL)
        return LJ_OK;
    if (lj_aws_env("AWS_ROLE_ARN") == NULL) {
        lj_error_set(err, LJ_INVALID, "AWS_WEB_IDENTITY_TOKEN_FILE is set without AWS_ROLE_ARN");
        return lj_error_hint(err, "set AWS_ROLE_ARN to the role to assume with the token");
    }
    *ret_decided = true;
    source->kind = LJ_AWS_WEB_IDENTITY;
    LJ_TRY(lj_aws_copy(&source->origin, "the web identity of the environment", err));
    LJ_TRY(lj_aws_copy(&source->token_file, file, err));
    LJ_TRY(lj_aws_copy(&source->web_role.arn, lj_aws_env("AWS_ROLE_ARN"), err));
    return lj_aws_copy(&source->web_role.session_name, lj_aws_env("AWS_ROLE_SESSION_NAME"), err);
}

static lj_code check_region(const char *region, lj_error *err)
{
    if (region == NULL ||
        (strlen(region) <= 63 && region[strspn(region, "abcdefghijklmnopqrstuvwxyz"
                                                       "0123456789-")] == 0))
        return LJ_OK;
    lj_error_set(err, LJ_INVALID, "AWS region: not a region's name");
    return lj_error_hint(err, "a region has small letters, digits and '-', like eu-central-1");
}

/* `optional`: nothing but the region is wanted of the files, so that their trouble is only worth a line in the log. */
static lj_code find_region(const lj_aws_options *options, const lj_aws_files *files,
                           const char *profile_name, bool optional, char **ret_region,
                           lj_error *err)
{
    static const char *const names[] = {"AWS_REGION", "AWS_DEFAULT_REGION", NULL};
    const char *region =
        options->region != NULL && options->region[0] != 0 ? options->region : first_env(names);
    lj_aws_profile profile = {.found = false};
    if (region == NULL) {
        lj_error error = LJ_ERROR_INIT;
        lj_code code = lj_aws_files_read(files, profile_name, &profile, &error);
        if (code != LJ_OK && optional) {
            lj_log_error(LJ_LOG_WARN, "no AWS region is taken from the shared files", &error);
        } else if (code != LJ_OK) {
            if (err != NULL)
                *err = error;
            return code;
        }
        region = lj_aws_profile_get(&profile, LJ_AWS_FIELD_REGION);
    }
    lj_code code = check_region(region, err);
    if (code == LJ_OK)
        code = lj_aws_copy(ret_region, region, err);
    lj_aws_profile_free(&profile);
    return code;
}

static lj_code make_http(lj_aws_source *source, lj_error *err)
{
    lj_http_options http = {.ca_file = source->ca_file};
    if (source->kind == LJ_AWS_CONTAINER || source->kind == LJ_AWS_IMDS)
        LJ_TRY(lj_http_new(&http, &source->near_http, err));
    http.stall_timeout_ns = source->io_timeout_ns;
    bool roles = source->role_count > 0 || source->kind == LJ_AWS_WEB_IDENTITY;
    return roles ? lj_http_new(&http, &source->sts_http, err) : LJ_OK;
}

static lj_code fill_common(const lj_aws_options *options, const char *region, lj_aws_source *source,
                           lj_error *err)
{
    const char *sts = lj_aws_env("AWS_ENDPOINT_URL_STS");
    sts = sts != NULL ? sts : lj_aws_env("AWS_ENDPOINT_URL");
    source->io_timeout_ns = options->io_timeout_ns;
    LJ_TRY(lj_aws_copy(&source->region, region, err));
    LJ_TRY(lj_aws_copy(&source->ca_file, lj_aws_env("AWS_CA_BUNDLE"), err));
    if (!env_true("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS"))
        LJ_TRY(lj_aws_copy(&source->sts_endpoint, sts, err));
    return make_http(source, err);
}

static lj_code decide(const lj_aws_options *options, const lj_aws_files *files,
                      lj_aws_source *source, char **ret_region, lj_error *err)
{
    static const char *const profiles[] = {"AWS_PROFILE", "AWS_DEFAULT_PROFILE", NULL};
    bool asked = options->profile != NULL && options->profile[0] != 0;
    const char *profile = asked ? options->profile : first_env(profiles);
    bool named = profile != NULL;
    profile = named ? profile : "default";
    bool decided = false;
    LJ_TRY(try_settings(options, source, &decided, err));
    if (!decided && !asked) /* a profile that the settings name beats the environment */
        LJ_TRY(lj_aws_take_environment(source, &decided, err));
    if (!decided && !asked)
        LJ_TRY(try_web_identity(source, &decided, err));
    bool static_keys = decided && source->kind == LJ_AWS_STATIC;
    if (!decided)
        LJ_TRY(lj_aws_take_profile(profile, named, files, source, err));
    LJ_TRY(find_region(options, files, profile, static_keys, ret_region, err));
    return fill_common(options, *ret_region, source, err);
}

lj_code lj_aws_chain_decide(const lj_aws_options *options, lj_aws_source *source, char **ret_region,
                            lj_error *err)
{
    lj_aws_files files = {.config_path = NULL};
    LJ_TRY(lj_aws_files_find(&files, err));
    char *region = NULL;
    lj_code code = decide(options, &files, source, &region, err);
    lj_aws_files_free(&files);
    if (code != LJ_OK) {
        free(region);
        return code;
    }
    *ret_region = region;
    return LJ_OK;
}
