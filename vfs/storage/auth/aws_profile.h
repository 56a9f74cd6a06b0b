/*
 * aws_profile.h - the shared files of the AWS tools, ~/.aws/config and ~/.aws/credentials: one profile out of their text.
 *
 * The form is what the SDKs agree on: [default], [profile NAME] (config) and [NAME] (credentials); "key = value"; lines that
 * begin with '#' or ';', and what follows a blank and one of them in a value, are comments; an indented line goes on with the
 * value above it, or is a nested setting (ignored) when that value is empty. Names of keys have no case, names of profiles
 * do. A section that is there twice counts as one; of a key that is there twice the last counts. Other sections are
 * ignored, but the whole text must be well-formed.
 *
 * Layer: storage. Thread-safety: pure. Source: SDK reference "Shared config and credentials files", SDK for Go v2.
 */
#ifndef LJ_AWS_PROFILE_H
#define LJ_AWS_PROFILE_H

#include "vfs/base/secret.h"

#define LJ_AWS_FILE_MAX  ((size_t)1024 * 1024)
#define LJ_AWS_VALUE_MAX ((size_t)16 * 1024)

/* X(name, key) */
#define LJ_AWS_FIELD_MAP(X)                                                                        \
    X(ACCESS_KEY_ID, "aws_access_key_id")                                                          \
    X(SECRET_ACCESS_KEY, "aws_secret_access_key")                                                  \
    X(SESSION_TOKEN, "aws_session_token")                                                          \
    X(EXPIRATION, "aws_expiration")              /* written by tools that log in; no SDK has it */ \
    X(TOKEN_EXPIRES, "x_security_token_expires") /* the same, by other tools */                    \
    X(REGION, "region")                                                                            \
    X(ROLE_ARN, "role_arn")                                                                        \
    X(ROLE_SESSION_NAME, "role_session_name")                                                      \
    X(EXTERNAL_ID, "external_id")                                                                  \
    X(DURATION_SECONDS, "duration_seconds")                                                        \
    X(MFA_SERIAL, "mfa_serial")                                                                    \
    X(SOURCE_PROFILE, "source_profile")                                                            \
    X(CREDENTIAL_SOURCE, "credential_source")                                                      \
    X(CREDENTIAL_PROCESS, "credential_process")                                                    \
    X(WEB_IDENTITY_TOKEN_FILE, "web_identity_token_file")                                          \
    X(SSO_SESSION, "sso_session")                                                                  \
    X(SSO_ACCOUNT_ID, "sso_account_id")                                                            \
    X(SSO_START_URL, "sso_start_url")                                                              \
    X(LOGIN_SESSION, "login_session")

typedef enum {
#define X(name, key) LJ_AWS_FIELD_##name,
    LJ_AWS_FIELD_MAP(X)
#undef X
        LJ_AWS_FIELD_COUNT
} lj_aws_field;

/* Zeroed: empty. Freed with lj_aws_profile_free. */
typedef struct {
    bool found;
    lj_secret values[LJ_AWS_FIELD_COUNT];
} lj_aws_profile;

typedef enum { LJ_AWS_CONFIG_FILE, LJ_AWS_CREDENTIALS_FILE } lj_aws_file_kind;

/*
 * Reads profile `name` out of `len` bytes at `text` (followed by a NUL) into *ret_profile, which is empty; `found` tells whether
 * there is one. Errors: LJ_INVALID "<path>:<line>: ..." that does not show the line's value.
 */
LJ_WARN_UNUSED lj_code lj_aws_profile_parse(const char *path, lj_aws_file_kind kind,
                                            const char *text, size_t len, const char *name,
                                            lj_aws_profile *ret_profile, lj_error *err);
/* Puts what the credentials file says over what the config file says. A key pair goes with its own session token only. */
LJ_WARN_UNUSED lj_code lj_aws_profile_merge(lj_aws_profile *profile,
                                            const lj_aws_profile *credentials, lj_error *err);
/* The value; NULL when it is not there or empty. */
const char *lj_aws_profile_get(const lj_aws_profile *profile, lj_aws_field field);
const char *lj_aws_field_key(lj_aws_field field);
void lj_aws_profile_free(lj_aws_profile *profile);

/* Both files, as the environment or the home folder says. A file that is not there is empty. */
typedef struct {
    char *config_path;      /* AWS_CONFIG_FILE, else ~/.aws/config; NULL: no home folder */
    char *credentials_path; /* AWS_SHARED_CREDENTIALS_FILE, else ~/.aws/credentials */
    bool config_named;      /* by the variable: then it is an error if it may not be read */
    bool credentials_named;
} lj_aws_files;

LJ_WARN_UNUSED lj_code lj_aws_files_find(lj_aws_files *ret_files, lj_error *err);
void lj_aws_files_free(lj_aws_files *files);
/* Profile `name` out of both, as they are now. Errors: those of lj_aws_profile_parse, LJ_DENIED, LJ_IO. */
LJ_WARN_UNUSED lj_code lj_aws_files_read(const lj_aws_files *files, const char *name,
                                         lj_aws_profile *ret_profile, lj_error *err);

#endif
