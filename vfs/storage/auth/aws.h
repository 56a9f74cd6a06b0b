/*
 * aws.h - AWS credentials and region, found the way the AWS SDKs find them.
 *
 * Order: given in litestream.yml; environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN; the key pair also
 * as LITESTREAM_ACCESS_KEY_ID and LITESTREAM_SECRET_ACCESS_KEY when the AWS names are not set); web identity from the
 * environment; shared config and credentials files with the profile (static keys, credential_process, web identity, role
 * with source_profile); ECS and EKS container endpoint; EC2 instance metadata (IMDSv2). The first that is configured
 * decides: when it fails, that is the error, and no later one is tried in silence.
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
    int64_t io_timeout_ns;
} lj_aws_options;

/* Values of a lj_token from lj_aws_provider_token's source. */
enum { LJ_AWS_KEY_ID = 0, LJ_AWS_SECRET_KEY = 1, LJ_AWS_SESSION_TOKEN = 2 };

/* Makes no request and runs no program. Errors: LJ_INVALID for half a key pair or a malformed config file. */
LJ_WARN_UNUSED lj_code lj_aws_provider_new(const lj_aws_options *options,
                                           lj_aws_provider **ret_provider, lj_error *err);
void lj_aws_provider_free(lj_aws_provider *provider);
/* The credentials: lj_token_get, lj_token_expired. Owned by the provider. */
lj_token_source *lj_aws_provider_token(lj_aws_provider *provider);
/* options.region, AWS_REGION, AWS_DEFAULT_REGION, the profile's region; NULL when none says. */
const char *lj_aws_provider_region(const lj_aws_provider *provider);

#endif
