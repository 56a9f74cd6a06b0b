/*
 * internal.h - what the parts of the GCS driver share. Not for other folders, except their tests.
 *
 * Layer: storage. Thread-safety: lj_gcs is constant after it was made, but for `seen_ns`.
 */
#ifndef LJ_GCS_INTERNAL_H
#define LJ_GCS_INTERNAL_H

#include <stdatomic.h>

#include "vfs/storage/auth/google.h"
#include "vfs/storage/http/http.h"
#include "vfs/storage/storage.h"

#define LJ_GCS_NAME_MAX         1024u /* bytes of an object's name, a limit of GCS */
#define LJ_GCS_BUCKET_MAX       222u
#define LJ_GCS_PAGE_MAX         1000u
#define LJ_GCS_PAGE_BODY_MAX    ((size_t)16 * 1024 * 1024) /* one page of a listing */
#define LJ_GCS_OBJECT_BODY_MAX  ((size_t)256 * 1024)       /* an object's metadata */
#define LJ_GCS_PAGE_TOKEN_MAX   8192u
#define LJ_GCS_SESSION_URI_MAX  8192u
#define LJ_GCS_OBJECT_BYTES_MAX (INT64_C(5) << 40) /* a limit of GCS */

typedef struct {
    lj_http *http;
    lj_google_provider *google; /* NULL: no credentials are sent (emulator) */
    char *base;                 /* "https://storage.googleapis.com", without a trailing slash */
    char *bucket;
    char *prefix;       /* without slashes at its ends; "" for none */
    char *user_project; /* may be NULL */
    unsigned page_size;
    int64_t io_timeout_ns; /* 0: default */
    const bool *cancel;
    _Atomic int64_t seen_ns; /* monotonic: when the bucket last answered; 0: never */
} lj_gcs;

/* ---- names and URLs (gcs.c) ---- */

/* Can a bucket have this name? */
bool lj_gcs_bucket_ok(const char *bucket);
/* The base URL that an endpoint or STORAGE_EMULATOR_HOST means, allocated. LJ_INVALID. */
LJ_WARN_UNUSED lj_code lj_gcs_base(const char *endpoint, bool emulator, char **ret_base,
                                   lj_error *err);
/* The object's name of a key, allocated. LJ_INVALID when it is too long for GCS, or not UTF-8. */
LJ_WARN_UNUSED lj_code lj_gcs_name(const lj_gcs *gcs, const char *key, char **ret_name,
                                   lj_error *err);

#define LJ_GCS_URL_INIT LJ_BUF_INIT(64u * 1024u)
/* BASE/storage/v1/b/BUCKET/o[/NAME], or BASE/upload/storage/..., and `userProject` when there is one. */
LJ_WARN_UNUSED lj_code lj_gcs_url(const lj_gcs *gcs, bool upload, const char *name, lj_buf *out,
                                  lj_error *err);
/* Adds "name=value" to the query, encoded. */
LJ_WARN_UNUSED lj_code lj_gcs_param(lj_buf *url, const char *name, const char *value,
                                    lj_error *err);

/* ---- answers (json.c): pure, fuzzed ---- */

typedef struct {
    uint64_t size_bytes;
    int64_t created_ns;
    uint64_t generation; /* 0: not told */
    bool has_crc32c;
    uint32_t crc32c;
} lj_gcs_object;

/*
 * An object's metadata. LJ_CORRUPT, retryable: it is no JSON, has no size, or a field is malformed. The time is
 * demanded with `with_time` only.
 */
LJ_WARN_UNUSED lj_code lj_gcs_object_parse(const char *text, size_t len, bool with_time,
                                           lj_gcs_object *ret_object, lj_error *err);

typedef lj_code (*lj_gcs_item_fn)(void *ctx, const char *name, const lj_gcs_object *object,
                                  lj_error *err);
/*
 * A page of a listing: `fn` for each object in it. *ret_token: the token of the next page, allocated, NULL at the end.
 * LJ_CORRUPT as above, and for an object that does not say that it is a listing; else what `fn` returned.
 */
LJ_WARN_UNUSED lj_code lj_gcs_page_parse(const char *text, size_t len, lj_gcs_item_fn fn, void *ctx,
                                         char **ret_token, lj_error *err);

/* What a refusal says; "" where it does not. Control characters are made spaces. */
typedef struct {
    char reason[48];
    char message[200];
} lj_gcs_refusal;
void lj_gcs_refusal_parse(const char *text, size_t len, lj_gcs_refusal *ret_refusal);

/* "bytes=0-N" of a 308: N + 1. false when malformed. */
bool lj_gcs_persisted(const char *range, uint64_t *ret_bytes);

/* ---- requests (request.c) ---- */

/*
 * Performs a request with the bearer token, once more with a fresh one when the answer is 401. At most 4 headers. LJ_OK
 * whatever the status is.
 */
LJ_WARN_UNUSED lj_code lj_gcs_send(lj_gcs *gcs, const lj_http_request *request,
                                   lj_http_response *response, lj_error *err);
/* The error of an answer outside 200..299. 404 means the bucket: callers look at an object's 404 before. */
lj_code lj_gcs_refused(lj_gcs *gcs, const lj_http_response *response, const char *what,
                       lj_error *err);
/* An object's 404: LJ_NOTFOUND when the bucket is there; else why not, or why that cannot be told. */
lj_code lj_gcs_absent(lj_gcs *gcs, const lj_http_response *response, lj_error *err);
/* Notes that the bucket has answered. */
void lj_gcs_seen(lj_gcs *gcs);

/* ---- members of lj_storage_ops that have files of their own ---- */

LJ_WARN_UNUSED lj_code lj_gcs_put(void *self, const char *key, lj_source *source,
                                  const lj_storage_put_options *options, lj_error *err);
LJ_WARN_UNUSED lj_code lj_gcs_get(void *self, const char *key, uint64_t offset, int64_t length,
                                  lj_sink *sink, lj_error *err);
LJ_WARN_UNUSED lj_code lj_gcs_head(void *self, const char *key, lj_storage_entry *ret_entry,
                                   lj_error *err);
LJ_WARN_UNUSED lj_code lj_gcs_list(void *self, const char *prefix, const char *after,
                                   lj_storage_list_fn fn, void *ctx, lj_error *err);
LJ_WARN_UNUSED lj_code lj_gcs_delete_many(void *self, const char *const *keys, size_t count,
                                          lj_storage_delete_fn fn, void *ctx, lj_error *err);

/* What put.c and resumable.c share. */
typedef struct {
    lj_gcs *gcs;
    const char *name;
    bool if_absent;
} lj_gcs_upload;

/* The URL that begins an upload of this type. */
LJ_WARN_UNUSED lj_code lj_gcs_upload_url(const lj_gcs_upload *upload, const char *type, lj_buf *out,
                                         lj_error *err);
/* Base64 of the sum as GCS writes it, allocated. */
char *lj_gcs_crc32c_text(uint32_t crc32c);
/* The refusal of an upload: 412 is LJ_EXISTS only when that was asked for. */
lj_code lj_gcs_upload_refused(const lj_gcs_upload *upload, const lj_http_response *response,
                              lj_error *err);
/* Compares what the store says it has with what was sent; an object that differs is deleted. */
LJ_WARN_UNUSED lj_code lj_gcs_upload_check(const lj_gcs_upload *upload,
                                           const lj_http_response *response, uint64_t size,
                                           uint32_t crc32c, lj_error *err);
/*
 * Deletes the object that an upload just made: exactly that generation, whatever is there under the name by
 * now. `answer`: the store's to the upload. false: it may be there still.
 */
bool lj_gcs_upload_discard(const lj_gcs_upload *upload, const lj_http_response *answer);
/* Sends `head` (LJ_PARTS_SMALL_MAX + 1 bytes) and the rest of `source`. `head` is used as the buffer. */
LJ_WARN_UNUSED lj_code lj_gcs_resumable(const lj_gcs_upload *upload, lj_source *source,
                                        lj_buf *head, lj_error *err);

/* CRC32C (Castagnoli), the sum GCS keeps of every object. Starts with 0; goes on with what it returned. */
uint32_t lj_gcs_crc32c(uint32_t crc, const void *data, size_t len);

#endif
