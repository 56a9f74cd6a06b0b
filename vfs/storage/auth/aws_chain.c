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
#define ROLE_SECONDS_MIN  900u
#define ROLE_SECONDS_MAX  43200u

/* What the chain of profiles is walked with. */
typedef struct {
    lj_aws_source *source;
    const lj_aws_files *files;
    const char *first; /* the profile it begins at */
    bool named;        /* somebody named it: then it must be there */
    char *seen[LJ_AWS_ROLES_MAX + 1];
    size_t seen_count;
    lj_error *err;
} walk;

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

/* A copy of a text that may be NULL. */
static lj_code copy(char **ret, const char *text, lj_error *err)
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

static lj_code half_pair(const char *where, const char *missing, lj_error *err)
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
    return copy(&source->origin, origin, err);
}

static lj_code try_settings(const lj_aws_options *options, lj_aws_source *source, bool *ret_decided,
                            lj_error *err)
{
    bool id = options->access_key_id != NULL && options->access_key_id[0] != 0;
    bool secret = options->secret_access_key != NULL && options->secret_access_key[0] != 0;
    if (!id && !secret)
        return LJ_OK;
    if (!id || !secret)
        return half_pair("the settings", id ? "secret-access-key" : "access-key-id", err);
    *ret_decided = true;
    return take_pair(source, "the settings", options->access_key_id, options->secret_access_key,
                     options->session_token, err);
}

/* *ret_found is false when there is no pair at all. */
static lj_code try_environment(lj_aws_source *source, bool *ret_found, lj_error *err)
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
        return half_pair("the environment",
                         id != NULL ? "AWS_SECRET_ACCESS_KEY" : "AWS_ACCESS_KEY_ID", err);
    *ret_found = true;
    return take_pair(source, "the environment", id, secret, lj_aws_env("AWS_SESSION_TOKEN"), err);
}

/* ---- roles ---- */

static lj_code too_many_roles(walk *w)
{
    return lj_error_set(w->err, LJ_INVALID, "AWS profile %.100s: more than %u roles in a row",
                        w->first, LJ_AWS_ROLES_MAX);
}

static lj_code fill_role(const lj_aws_profile *profile, const char *name, lj_aws_role *role,
                         lj_error *err)
{
    const char *duration = lj_aws_profile_get(profile, LJ_AWS_FIELD_DURATION_SECONDS);
    if (lj_aws_profile_get(profile, LJ_AWS_FIELD_MFA_SERIAL) != NULL) {
        lj_error_set(err, LJ_UNSUPPORTED, "AWS profile %.100s: mfa_serial wants a person to type",
                     name);
        return lj_error_hint(err, "use a credential_process, or a role without MFA");
    }
    if (duration != NULL &&
        (!lj_str_u64(duration, &role->duration_s) || role->duration_s < ROLE_SECONDS_MIN ||
         role->duration_s > ROLE_SECONDS_MAX))
        return lj_error_set(err, LJ_INVALID,
                            "AWS profile %.100s: duration_seconds is not a number from %u to %u",
                            name, ROLE_SECONDS_MIN, ROLE_SECONDS_MAX);
    LJ_TRY(copy(&role->arn, lj_aws_profile_get(profile, LJ_AWS_FIELD_ROLE_ARN), err));
    LJ_TRY(copy(&role->session_name, lj_aws_profile_get(profile, LJ_AWS_FIELD_ROLE_SESSION_NAME),
                err));
    return copy(&role->external_id, lj_aws_profile_get(profile, LJ_AWS_FIELD_EXTERNAL_ID), err);
}

/* The walk goes from the last role to the first one. */
static lj_code push_role(walk *w, const lj_aws_profile *profile, const char *name)
{
    lj_aws_source *source = w->source;
    if (source->role_count == LJ_AWS_ROLES_MAX)
        return too_many_roles(w);
    return fill_role(profile, name, &source->roles[source->role_count++], w->err);
}

static void reverse_roles(lj_aws_source *source)
{
    for (size_t i = 0, j = source->role_count; i + 1 < j; i++) {
        lj_aws_role role = source->roles[i];
        source->roles[i] = source->roles[--j];
        source->roles[j] = role;
    }
}

/* ---- container and instance ---- */

static lj_code take_container(lj_aws_source *source, bool *ret_found, lj_error *err)
{
    const char *full = lj_aws_env("AWS_CONTAINER_CREDENTIALS_FULL_URI");
    const char *relative = lj_aws_env("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
    if (full == NULL && relative == NULL)
        return LJ_OK;
    *ret_found = true;
    source->kind = LJ_AWS_CONTAINER;
    LJ_TRY(copy(&source->origin, "the container's credential service", err));
    LJ_TRY(copy(&source->token_file, lj_aws_env("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"), err));
    LJ_TRY(lj_secret_set(&source->authorization, lj_aws_env("AWS_CONTAINER_AUTHORIZATION_TOKEN"),
                         err));
    if (relative == NULL)
        return copy(&source->url, full, err);
    source->url = lj_str_printf(ECS_ENDPOINT "%s%s", relative[0] == '/' ? "" : "/", relative);
    return source->url == NULL ? lj_error_nomem(err) : LJ_OK;
}

static lj_code take_imds(lj_aws_source *source, lj_error *err)
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
    LJ_TRY(copy(&source->origin, "the EC2 instance metadata service", err));
    return copy(&source->url, endpoint, err);
}

/* ---- profiles ---- */

static bool has(const lj_aws_profile *profile, lj_aws_field field)
{
    return lj_aws_profile_get(profile, field) != NULL;
}

static bool has_keys(const lj_aws_profile *profile)
{
    return has(profile, LJ_AWS_FIELD_ACCESS_KEY_ID) && has(profile, LJ_AWS_FIELD_SECRET_ACCESS_KEY);
}

static bool has_sso(const lj_aws_profile *profile)
{
    return has(profile, LJ_AWS_FIELD_SSO_SESSION) || has(profile, LJ_AWS_FIELD_SSO_START_URL) ||
           has(profile, LJ_AWS_FIELD_SSO_ACCOUNT_ID) || has(profile, LJ_AWS_FIELD_LOGIN_SESSION);
}

static lj_code invalid(walk *w, const char *name, const char *what)
{
    return lj_error_set(w->err, LJ_INVALID, "AWS profile %.100s: %s", name, what);
}

static lj_code check_profile(walk *w, const lj_aws_profile *profile, const char *name, bool again)
{
    if (has(profile, LJ_AWS_FIELD_ACCESS_KEY_ID) != has(profile, LJ_AWS_FIELD_SECRET_ACCESS_KEY)) {
        char where[128];
        snprintf(where, sizeof(where), "profile %.100s", name);
        return half_pair(where,
                         has(profile, LJ_AWS_FIELD_ACCESS_KEY_ID) ? "aws_secret_access_key"
                                                                  : "aws_access_key_id",
                         w->err);
    }
    static const lj_aws_field types[] = {
        LJ_AWS_FIELD_SOURCE_PROFILE, LJ_AWS_FIELD_CREDENTIAL_SOURCE,
        LJ_AWS_FIELD_WEB_IDENTITY_TOKEN_FILE, LJ_AWS_FIELD_CREDENTIAL_PROCESS};
    size_t count = 0;
    for (size_t i = 0; i < LJ_ARRAY_LEN(types); i++) {
        if (!has(profile, types[i]))
            continue;
        count++;
        if (types[i] != LJ_AWS_FIELD_CREDENTIAL_PROCESS && !again &&
            !has(profile, LJ_AWS_FIELD_ROLE_ARN)) {
            lj_error_set(w->err, LJ_INVALID, "AWS profile %.100s: %s without role_arn", name,
                         lj_aws_field_key(types[i]));
            return LJ_INVALID;
        }
    }
    bool keys_decide = w->seen_count > 0 && has_keys(profile);
    if (count > 1 && !keys_decide && !again)
        return invalid(w, name,
                       "only one of source_profile, credential_source, credential_process and "
                       "web_identity_token_file can be there");
    return LJ_OK;
}

static lj_code take_credential_source(walk *w, const lj_aws_profile *profile, const char *name)
{
    const char *which = lj_aws_profile_get(profile, LJ_AWS_FIELD_CREDENTIAL_SOURCE);
    bool found = false;
    if (strcmp(which, "Ec2InstanceMetadata") == 0)
        return take_imds(w->source, w->err);
    if (strcmp(which, "Environment") == 0) {
        LJ_TRY(try_environment(w->source, &found, w->err));
        return found
                   ? LJ_OK
                   : invalid(w, name,
                             "credential_source is Environment, but AWS_ACCESS_KEY_ID is not set");
    }
    if (strcmp(which, "EcsContainer") != 0)
        return invalid(w, name,
                       "credential_source is none of Environment, Ec2InstanceMetadata and "
                       "EcsContainer");
    LJ_TRY(take_container(w->source, &found, w->err));
    return found ? LJ_OK
                 : invalid(w, name,
                           "credential_source is EcsContainer, but neither "
                           "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI nor "
                           "AWS_CONTAINER_CREDENTIALS_FULL_URI is set");
}

static lj_code take_files(walk *w, const char *name)
{
    lj_aws_source *source = w->source;
    source->kind = LJ_AWS_FILES;
    LJ_TRY(copy(&source->profile, name, w->err));
    source->files.config_named = w->files->config_named;
    source->files.credentials_named = w->files->credentials_named;
    LJ_TRY(copy(&source->files.config_path, w->files->config_path, w->err));
    return copy(&source->files.credentials_path, w->files->credentials_path, w->err);
}

/* The credentials at the end of the row. *ret_role: role_arn is still to be assumed with them. */
static lj_code take_base(walk *w, const lj_aws_profile *profile, const char *name, bool *ret_role)
{
    lj_aws_source *source = w->source;
    bool found = false;
    source->origin = lj_str_printf("profile %s", name);
    if (source->origin == NULL)
        return lj_error_nomem(w->err);
    if (has_keys(profile))
        return take_files(w, name);
    if (has(profile, LJ_AWS_FIELD_CREDENTIAL_SOURCE))
        return take_credential_source(w, profile, name);
    if (has(profile, LJ_AWS_FIELD_WEB_IDENTITY_TOKEN_FILE)) {
        *ret_role = false;
        source->kind = LJ_AWS_WEB_IDENTITY;
        LJ_TRY(copy(&source->token_file,
                    lj_aws_profile_get(profile, LJ_AWS_FIELD_WEB_IDENTITY_TOKEN_FILE), w->err));
        return fill_role(profile, name, &source->web_role, w->err);
    }
    if (has_sso(profile)) {
        lj_error_set(w->err, LJ_UNSUPPORTED,
                     "AWS profile %.100s: a login by browser (SSO) is not supported", name);
        return lj_error_hint(w->err,
                             "use another profile with: credential_process = aws configure "
                             "export-credentials --profile %.60s",
                             name);
    }
    if (has(profile, LJ_AWS_FIELD_CREDENTIAL_PROCESS)) {
        source->kind = LJ_AWS_PROCESS;
        return copy(&source->command, lj_aws_profile_get(profile, LJ_AWS_FIELD_CREDENTIAL_PROCESS),
                    w->err);
    }
    if (w->seen_count > 0)
        return invalid(w, name, "is a source_profile, but has no credentials");
    LJ_TRY(take_container(source, &found, w->err));
    if (found)
        return LJ_OK;
    source->nothing_configured = true;
    return take_imds(source, w->err);
}

static bool was_seen(const walk *w, const char *name)
{
    for (size_t i = 0; i < w->seen_count; i++) {
        if (strcmp(w->seen[i], name) == 0)
            return true;
    }
    return false;
}

/* One profile of the row; *next is the one it takes its credentials from, NULL at the end. */
static lj_code walk_profile(walk *w, const lj_aws_profile *profile, const char *name, char **next)
{
    bool again = was_seen(w, name);
    LJ_TRY(check_profile(w, profile, name, again));
    bool role = !again && has(profile, LJ_AWS_FIELD_ROLE_ARN);
    bool keys_decide = w->seen_count > 0 && has_keys(profile);
    if (again && !has_keys(profile))
        return invalid(w, name, "its source_profile leads back to it, and it has no keys");
    if (!again && !keys_decide && has(profile, LJ_AWS_FIELD_SOURCE_PROFILE)) {
        LJ_TRY(copy(next, lj_aws_profile_get(profile, LJ_AWS_FIELD_SOURCE_PROFILE), w->err));
        return push_role(w, profile, name);
    }
    LJ_TRY(take_base(w, profile, name, &role));
    return role ? push_role(w, profile, name) : LJ_OK;
}

static lj_code missing_profile(walk *w, const char *name)
{
    lj_error_set(w->err, LJ_INVALID,
                 "AWS profile %.100s is in neither of the files %.120s and %.120s", name,
                 w->files->config_path != NULL ? w->files->config_path : "(no home)",
                 w->files->credentials_path != NULL ? w->files->credentials_path : "(no home)");
    return lj_error_hint(w->err,
                         "in the config file it is [profile %.60s], in the credentials file "
                         "[%.60s]; AWS_PROFILE names the one to use",
                         name, name);
}

static lj_code walk_all(walk *w)
{
    LJ_CLEANUP(lj_freep) char *name = lj_str_dup(w->first);
    if (name == NULL)
        return lj_error_nomem(w->err);
    while (name != NULL) {
        lj_aws_profile profile = {.found = false};
        LJ_CLEANUP(lj_freep) char *next = NULL;
        LJ_TRY(lj_aws_files_read(w->files, name, &profile, w->err));
        lj_code code = LJ_OK;
        if (!profile.found && (w->named || w->seen_count > 0))
            code = missing_profile(w, name);
        if (code == LJ_OK)
            code = walk_profile(w, &profile, name, &next);
        lj_aws_profile_free(&profile);
        if (code != LJ_OK)
            return code;
        if (next != NULL && w->seen_count == LJ_ARRAY_LEN(w->seen))
            return too_many_roles(w);
        if (next != NULL)
            w->seen[w->seen_count++] = name;
        else
            free(name);
        name = next;
        next = NULL;
    }
    reverse_roles(w->source);
    return LJ_OK;
}

static lj_code try_profile(const char *name, bool named, const lj_aws_files *files,
                           lj_aws_source *source, lj_error *err)
{
    walk w = {.source = source, .files = files, .first = name, .named = named, .err = err};
    lj_code code = walk_all(&w);
    for (size_t i = 0; i < w.seen_count; i++)
        free(w.seen[i]);
    return code;
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
    LJ_TRY(copy(&source->origin, "the web identity of the environment", err));
    LJ_TRY(copy(&source->token_file, file, err));
    LJ_TRY(copy(&source->web_role.arn, lj_aws_env("AWS_ROLE_ARN"), err));
    return copy(&source->web_role.session_name, lj_aws_env("AWS_ROLE_SESSION_NAME"), err);
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
        code = copy(ret_region, region, err);
    lj_aws_profile_free(&profile);
    return code;
}

static lj_code fill_common(const lj_aws_options *options, const char *region, lj_aws_source *source,
                           lj_error *err)
{
    const char *sts = lj_aws_env("AWS_ENDPOINT_URL_STS");
    sts = sts != NULL ? sts : lj_aws_env("AWS_ENDPOINT_URL");
    source->io_timeout_ns = options->io_timeout_ns;
    LJ_TRY(copy(&source->region, region, err));
    LJ_TRY(copy(&source->ca_file, lj_aws_env("AWS_CA_BUNDLE"), err));
    if (env_true("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS"))
        return LJ_OK;
    return copy(&source->sts_endpoint, sts, err);
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
        LJ_TRY(try_environment(source, &decided, err));
    if (!decided && !asked)
        LJ_TRY(try_web_identity(source, &decided, err));
    bool static_keys = decided && source->kind == LJ_AWS_STATIC;
    if (!decided)
        LJ_TRY(try_profile(profile, named, files, source, err));
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
