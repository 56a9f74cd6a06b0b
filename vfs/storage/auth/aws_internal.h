/*
 * aws_internal.h - what the files of the AWS credential chain share: where credentials come from, and the ways to fetch.
 *
 * Layer: storage. Thread-safety: a lj_aws_source is constant after it was made; the fetching functions are called by one
 * thread at a time per source.
 */
#ifndef LJ_AWS_INTERNAL_H
#define LJ_AWS_INTERNAL_H

#include "vfs/storage/auth/aws.h"
#include "vfs/storage/auth/aws_profile.h"

#define LJ_AWS_ROLES_MAX 8u

typedef enum {
    LJ_AWS_STATIC,       /* a key pair from the settings or the environment */
    LJ_AWS_FILES,        /* a key pair in the shared files, read again at each fetch */
    LJ_AWS_PROCESS,      /* credential_process */
    LJ_AWS_WEB_IDENTITY, /* AssumeRoleWithWebIdentity at STS, by a token in a file */
    LJ_AWS_CONTAINER,    /* ECS and EKS */
    LJ_AWS_IMDS,         /* EC2 instance metadata */
} lj_aws_kind;

/* A role that is assumed with the credentials before it. */
typedef struct {
    char *arn;
    char *session_name;  /* NULL: one is made */
    char *external_id;   /* NULL: none */
    uint64_t duration_s; /* 0: as STS has it, one hour */
} lj_aws_role;

/* The ctx of the lj_token_source. Texts are owned, NULL when not given. */
typedef struct {
    lj_aws_kind kind;
    char *origin;                      /* for messages: "the environment", "profile x" */
    lj_secret values[LJ_TOKEN_VALUES]; /* STATIC */
    lj_aws_files files;                /* FILES */
    char *profile;                     /* FILES: the one that has the keys */
    char *command;                     /* PROCESS */
    lj_aws_role web_role;              /* WEB_IDENTITY */
    char *token_file;                  /* WEB_IDENTITY; CONTAINER: the authorization */
    char *url;                         /* CONTAINER: of the credentials; IMDS: of the service */
    lj_secret authorization;           /* CONTAINER */
    bool imds_disabled;
    bool imds_v1_disabled;
    bool nothing_configured;             /* IMDS: tried because nothing else was there */
    lj_aws_role roles[LJ_AWS_ROLES_MAX]; /* assumed one after another, roles[0] first */
    size_t role_count;
    char *region;       /* for STS */
    char *sts_endpoint; /* AWS_ENDPOINT_URL_STS; else that of the region */
    char *ca_file;      /* AWS_CA_BUNDLE */
    int64_t io_timeout_ns;
} lj_aws_source;

void lj_aws_source_free(lj_aws_source *source);

/*
 * Decides where credentials come from (aws.h says in which order) and reads all that decides it: settings, environment,
 * shared files. *source is zeroed before; on failure the caller frees it. *ret_region is allocated, NULL when none says.
 */
LJ_WARN_UNUSED lj_code lj_aws_chain_decide(const lj_aws_options *options, lj_aws_source *source,
                                           char **ret_region, lj_error *err);

/* The value of an environment variable, NULL when it is not set or empty. */
const char *lj_aws_env(const char *name);

/*
 * Fills a token after a look at the texts (`what` says whose): a missing half, a blank or a line break is LJ_INVALID, an
 * expiry in the past LJ_DENIED (retryable). `session` may be NULL; expires_ns 0: never.
 */
LJ_WARN_UNUSED lj_code lj_aws_token_make(const char *what, const char *key_id, const char *secret,
                                         const char *session, int64_t expires_ns,
                                         lj_token *ret_token, lj_error *err);

#endif
