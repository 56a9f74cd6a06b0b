/*
 * aws_internal.h - what the files of the AWS credential chain share: where credentials come from, and the ways to fetch.
 *
 * Layer: storage. Thread-safety: a lj_aws_source is constant after it was made; the fetching functions are called by one
 * thread at a time per source. `err` is never NULL in what is declared here.
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
    int64_t process_deadline_ns;       /* PROCESS; 0: 60 s */
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
    /* made with the source, NULL where nothing is asked: a fetch reads no environment, which the host may be changing */
    lj_http *sts_http;
    lj_http *near_http; /* CONTAINER, IMDS */
} lj_aws_source;

void lj_aws_source_free(lj_aws_source *source);

/*
 * Decides where credentials come from (aws.h says in which order) and reads all that decides it: settings, environment,
 * shared files. *source is zeroed before; on failure the caller frees it. *ret_region is allocated, NULL when none says.
 */
LJ_WARN_UNUSED lj_code lj_aws_chain_decide(const lj_aws_options *options, lj_aws_source *source,
                                           char **ret_region, lj_error *err);

/* Pieces of that decision. *ret_found is left alone when there is nothing of the kind. */
LJ_WARN_UNUSED lj_code lj_aws_take_environment(lj_aws_source *source, bool *ret_found,
                                               lj_error *err);
LJ_WARN_UNUSED lj_code lj_aws_take_container(lj_aws_source *source, bool *ret_found, lj_error *err);
LJ_WARN_UNUSED lj_code lj_aws_take_imds(lj_aws_source *source, lj_error *err);
/* named: somebody asked for this profile, then it must be there. */
LJ_WARN_UNUSED lj_code lj_aws_take_profile(const char *name, bool named, const lj_aws_files *files,
                                           lj_aws_source *source, lj_error *err);
/* The error for half a key pair in `where`. */
lj_code lj_aws_half_pair(const char *where, const char *missing, lj_error *err);
/* Replaces *ret by a copy of a text; leaves it alone for NULL. */
LJ_WARN_UNUSED lj_code lj_aws_copy(char **ret, const char *text, lj_error *err);

/* The value of an environment variable, NULL when it is not set or empty. */
const char *lj_aws_env(const char *name);

/*
 * Fills a token after a look at the texts (`what` says whose): a missing half, a blank or a line break is LJ_INVALID, an
 * expiry in the past LJ_DENIED (retryable). `session` may be NULL; expires_ns 0: never.
 */
LJ_WARN_UNUSED lj_code lj_aws_token_make(const char *what, const char *key_id, const char *secret,
                                         const char *session, int64_t expires_ns,
                                         lj_token *ret_token, lj_error *err);

typedef enum { LJ_AWS_JSON_PROCESS, LJ_AWS_JSON_CONTAINER, LJ_AWS_JSON_IMDS } lj_aws_json_form;

/*
 * Credentials out of JSON (aws_json.c). `skew_ns` is taken off the expiry. Errors: LJ_CORRUPT (retryable) for anything else than the
 * form says, LJ_DENIED (retryable) for a refusal in place of credentials and for expired ones.
 */
LJ_WARN_UNUSED lj_code lj_aws_json_token(const char *what, lj_aws_json_form form, const char *text,
                                         size_t len, int64_t skew_ns, lj_token *ret_token,
                                         lj_error *err);
/* lj_http_status_error with the code and message of a JSON answer. */
lj_code lj_aws_json_refusal(const char *what, const lj_http_response *response, lj_error *err);

/* How far a service's clock is ahead of ours, by its Date; 0 when it does not say, or less than a minute. */
int64_t lj_aws_clock_skew_ns(const lj_http_response *response);
/* A file with one token that others write anew from time to time; blanks at its end are not of it. Errors: retryable. */
LJ_WARN_UNUSED lj_code lj_aws_read_token_file(const char *what, const char *path, size_t max,
                                              lj_secret *ret_token, lj_error *err);

/*
 * The ways to fetch. All end with LJ_CANCELLED within 0.2 s of being cancelled (base/cancel.h). What only somebody's deed can
 * change is an error too, but most are retryable, because that deed can happen without a restart.
 */
LJ_WARN_UNUSED lj_code lj_aws_process_fetch(const lj_aws_source *source, lj_token *ret_token,
                                            lj_error *err);
LJ_WARN_UNUSED lj_code lj_aws_container_fetch(const lj_aws_source *source, lj_token *ret_token,
                                              lj_error *err);
LJ_WARN_UNUSED lj_code lj_aws_imds_fetch(const lj_aws_source *source, lj_token *ret_token,
                                         lj_error *err);
/* AssumeRoleWithWebIdentity. The token's file is read at each call, because it is written anew before the token expires. */
LJ_WARN_UNUSED lj_code lj_aws_sts_web_identity(const lj_aws_source *source, lj_token *ret_token,
                                               lj_error *err);
/* AssumeRole, signed with the credentials `with`. */
LJ_WARN_UNUSED lj_code lj_aws_sts_assume_role(const lj_aws_source *source, const lj_aws_role *role,
                                              const lj_token *with, lj_token *ret_token,
                                              lj_error *err);

/* What an answer of STS says, found by the names of its elements; not set: not there. */
typedef struct {
    lj_secret key_id;
    lj_secret secret_key;
    lj_secret session_token;
    lj_secret expiration;
    lj_secret code; /* of an error */
    lj_secret message;
} lj_aws_sts_answer;

/* LJ_CORRUPT (retryable) when it is no XML, is nested too deeply, or has a text that is too long. Pure. */
LJ_WARN_UNUSED lj_code lj_aws_sts_read(const char *text, size_t len, lj_aws_sts_answer *ret_answer,
                                       lj_error *err);
void lj_aws_sts_answer_free(lj_aws_sts_answer *answer);

#endif
