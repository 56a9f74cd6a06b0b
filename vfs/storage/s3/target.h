/*
 * target.h - which bucket, on which server, addressed how: a replica URL, its settings and the environment put together.
 *
 * Layer: storage. Thread-safety: pure; a target is constant. Source: replica-format sections 1.2 and 1.3 for the host forms of
 * v0.3.13; the providers' documentation for the others.
 */
#ifndef LJ_S3_TARGET_H
#define LJ_S3_TARGET_H

#include "vfs/storage/setting.h"
#include "vfs/storage/url.h"

#define LJ_S3_REGION_MAX 64u

/* What a s3:// replica takes; LJ_S3_SETTING_COUNT of them. */
extern const lj_setting_spec lj_s3_settings[];
#define LJ_S3_SETTING_COUNT 15u

/* What the environment says; NULL or "": nothing. */
typedef struct {
    const char *endpoint; /* AWS_ENDPOINT_URL_S3, else AWS_ENDPOINT_URL */
    const char *region;   /* as lj_aws_provider_region */
} lj_s3_environment;

typedef struct {
    char *bucket;
    char *prefix; /* of all keys, without slashes at its ends; "" for none */
    bool tls;
    char *host;   /* "host" or "host:port" of the endpoint, lower case; NULL: Amazon's, by region */
    char *base;   /* path of the endpoint, "" or "/..." without a slash at its end; encoded */
    char *region; /* where to begin; never empty */
    bool path_style;
    bool tigris;      /* wants a header for consistent reads */
    bool equal_parts; /* refuses uploads whose parts differ in size */
} lj_s3_target;

/*
 * Errors: LJ_INVALID for what cannot be a bucket, an endpoint or a region, LJ_UNSUPPORTED for directory buckets. On success
 * freed with lj_s3_target_free.
 */
LJ_WARN_UNUSED lj_code lj_s3_target_make(const lj_url *url, const lj_settings *settings,
                                         const lj_s3_environment *environment,
                                         lj_s3_target *ret_target, lj_error *err);
void lj_s3_target_free(lj_s3_target *target);

/* Whether the text can be the name of a region ("eu-central-1", "auto", "fsn1"). */
bool lj_s3_region_valid(const char *region);
/* Appends the host that requests for the bucket go to, while its region is `region`. */
LJ_WARN_UNUSED lj_code lj_s3_target_host(const lj_s3_target *target, const char *region,
                                         lj_buf *out, lj_error *err);
/* Appends the encoded path of a key without its prefix, or of the bucket (NULL). */
LJ_WARN_UNUSED lj_code lj_s3_target_path(const lj_s3_target *target, const char *key, lj_buf *out,
                                         lj_error *err);
/* "localhost", "*.localhost", 127.0.0.0/8, "::1"; with or without a port. */
bool lj_s3_is_loopback(const char *host);

#endif
