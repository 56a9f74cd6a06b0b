/*
 * aws.h - AWS credentials and region, found the way the AWS SDKs find them.
 *
 * Order: key pair in the settings; the profile, when the settings name one; environment (AWS_ACCESS_KEY_ID,
 * AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN; each of the first two also by its older AWS name, else as
 * LITESTREAM_ACCESS_KEY_ID, LITESTREAM_SECRET_ACCESS_KEY); web identity from the environment; the profile in the shared
 * config and credentials files (keys, credential_process, web identity, role with source_profile or credential_source);
 * ECS and EKS container endpoint; EC2 instance metadata (IMDSv2). The first that is configured decides: when it fails,
 * that is the error, and no later one is tried in silence. Half a key pair is an error, not "not configured".
 *
 * What is decided is decided when the provider is made; the files behind it (keys in a profile, token files) are read again at
 * each fetch. Files that are not there, or in the home folder and not to be read, are empty.
 *
 * Errors of a fetch: LJ_DENIED (refused, expired, nothing configured), LJ_UNAVAILABLE, LJ_TIMEOUT, LJ_CORRUPT (an answer that
 * is none), LJ_CANCELLED, LJ_INVALID (of the settings and files). All but the last are retryable: rights, files and services
 * come back without a restart.
 *
 * Layer: storage. Thread-safety: any thread. The environment is read once, when the provider is made.
 */
#ifndef LJ_AWS_H
#define LJ_AWS_H

#include "vfs/storage/auth/token.h"
#include "vfs/storage/http/http.h"

typedef struct lj_aws_provider lj_aws_provider;

/* NULL: not given. Texts are copied. */
typedef struct {
    const char *access_key_id;
    const char *secret_access_key;
    const char *session_token;
    const char *profile; /* else AWS_PROFILE, AWS_DEFAULT_PROFILE, "default" */
    const char *region;  /* for STS; else as lj_aws_provider_region */
    int64_t
        io_timeout_ns; /* for STS; 0: 30 s. The services beside us have 4.5 s, a credential_process 60 s */
} lj_aws_options;

/* Values of a lj_token from lj_aws_provider_token's source. */
enum { LJ_AWS_KEY_ID = 0, LJ_AWS_SECRET_KEY = 1, LJ_AWS_SESSION_TOKEN = 2 };

/*
 * Makes no request and runs no program. Errors: LJ_INVALID for half a key pair, a malformed config file, a profile that
 * somebody named and that is not there, or that leads nowhere; LJ_UNSUPPORTED for one that wants a person (SSO, MFA).
 */
LJ_WARN_UNUSED lj_code lj_aws_provider_new(const lj_aws_options *options,
                                           lj_aws_provider **ret_provider, lj_error *err);
void lj_aws_provider_free(lj_aws_provider *provider);
/*
 * The credentials: lj_token_get_until (a credential_process may take a minute), lj_token_expired. Owned by the provider;
 * providers with the same setup share it.
 */
lj_token_source *lj_aws_provider_token(lj_aws_provider *provider);
/* options.region, AWS_REGION, AWS_DEFAULT_REGION, the profile's region; NULL when none says. */
const char *lj_aws_provider_region(const lj_aws_provider *provider);

#endif
