/*
 * aws_walk.c - the row of profiles that lean on each other by source_profile, down to the one with credentials.
 *
 * As the SDK for Go v2 has it: keys beat everything else in a profile that is the source of another; one that is met a
 * second time counts with its keys only, so that a profile can assume its role with its own keys.
 *
 * Layer: storage.
 */
#include "vfs/storage/auth/aws_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vfs/base/str.h"

#define ROLE_SECONDS_MIN 900u
#define ROLE_SECONDS_MAX 43200u

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
    LJ_TRY(lj_aws_copy(&role->arn, lj_aws_profile_get(profile, LJ_AWS_FIELD_ROLE_ARN), err));
    LJ_TRY(lj_aws_copy(&role->session_name,
                       lj_aws_profile_get(profile, LJ_AWS_FIELD_ROLE_SESSION_NAME), err));
    return lj_aws_copy(&role->external_id, lj_aws_profile_get(profile, LJ_AWS_FIELD_EXTERNAL_ID),
                       err);
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
        return lj_aws_half_pair(where,
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
        return lj_aws_take_imds(w->source, w->err);
    if (strcmp(which, "Environment") == 0) {
        LJ_TRY(lj_aws_take_environment(w->source, &found, w->err));
        return found
                   ? LJ_OK
                   : invalid(w, name,
                             "credential_source is Environment, but AWS_ACCESS_KEY_ID is not set");
    }
    if (strcmp(which, "EcsContainer") != 0)
        return invalid(w, name,
                       "credential_source is none of Environment, Ec2InstanceMetadata and "
                       "EcsContainer");
    LJ_TRY(lj_aws_take_container(w->source, &found, w->err));
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
    LJ_TRY(lj_aws_copy(&source->profile, name, w->err));
    source->files.config_named = w->files->config_named;
    source->files.credentials_named = w->files->credentials_named;
    LJ_TRY(lj_aws_copy(&source->files.config_path, w->files->config_path, w->err));
    return lj_aws_copy(&source->files.credentials_path, w->files->credentials_path, w->err);
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
        LJ_TRY(lj_aws_copy(&source->token_file,
                           lj_aws_profile_get(profile, LJ_AWS_FIELD_WEB_IDENTITY_TOKEN_FILE),
                           w->err));
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
        return lj_aws_copy(&source->command,
                           lj_aws_profile_get(profile, LJ_AWS_FIELD_CREDENTIAL_PROCESS), w->err);
    }
    if (w->seen_count > 0)
        return invalid(w, name, "is a source_profile, but has no credentials");
    LJ_TRY(lj_aws_take_container(source, &found, w->err));
    if (found)
        return LJ_OK;
    source->nothing_configured = true;
    return lj_aws_take_imds(source, w->err);
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
        LJ_TRY(lj_aws_copy(next, lj_aws_profile_get(profile, LJ_AWS_FIELD_SOURCE_PROFILE), w->err));
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

lj_code lj_aws_take_profile(const char *name, bool named, const lj_aws_files *files,
                            lj_aws_source *source, lj_error *err)
{
    walk w = {.source = source, .files = files, .first = name, .named = named, .err = err};
    lj_code code = walk_all(&w);
    for (size_t i = 0; i < w.seen_count; i++)
        free(w.seen[i]);
    return code;
}
