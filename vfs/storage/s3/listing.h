/*
 * listing.h - one page of a bucket's listing: the answer to ListObjectsV2 or ListObjects.
 *
 * Read twice: first what the page says of itself (only at its end may stand whether its keys are encoded), and that it is
 * whole, then its keys.
 *
 * Layer: storage. Thread-safety: pure.
 */
#ifndef LJ_S3_LISTING_H
#define LJ_S3_LISTING_H

#include "vfs/base/error.h"

#define LJ_S3_TOKEN_MAX 4096u

typedef struct {
    bool truncated;               /* there are more pages */
    bool encoded;                 /* keys are percent-encoded */
    char token[LJ_S3_TOKEN_MAX];  /* for the next page of ListObjectsV2; "" when none */
    char marker[LJ_S3_TOKEN_MAX]; /* for the next page of ListObjects, decoded; "" when none */
} lj_s3_page;

typedef struct {
    const char *key; /* decoded, whole */
    bool has_size;
    bool has_time;
    uint64_t size_bytes;
    int64_t created_ns;
} lj_s3_listed;

typedef lj_code (*lj_s3_listed_fn)(void *ctx, const lj_s3_listed *listed, lj_error *err);

/* Errors: LJ_CORRUPT (retryable) when it is no such page. */
LJ_WARN_UNUSED lj_code lj_s3_page_read(const char *xml, size_t len, lj_s3_page *ret_page,
                                       lj_error *err);
/* Calls fn for every key of a page that lj_s3_page_read has read, but for those whose encoding is malformed. */
LJ_WARN_UNUSED lj_code lj_s3_page_keys(const char *xml, size_t len, const lj_s3_page *page,
                                       lj_s3_listed_fn fn, void *ctx, lj_error *err);

/* One key's result in the answer to DeleteObjects; `code` is NULL when it is deleted. */
typedef lj_code (*lj_s3_deleted_fn)(void *ctx, const char *key, const char *code,
                                    const char *message, lj_error *err);
LJ_WARN_UNUSED lj_code lj_s3_deleted_read(const char *xml, size_t len, lj_s3_deleted_fn fn,
                                          void *ctx, lj_error *err);

#endif
