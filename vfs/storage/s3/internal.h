/*
 * internal.h - what the parts of the S3 driver share. Not for other folders, except their tests.
 *
 * Layer: storage. Thread-safety: a lj_s3 is constant but for what `mutex` guards (rank: leaf; nothing is called while it is
 * held) and the atomic fields.
 */
#ifndef LJ_S3_INTERNAL_H
#define LJ_S3_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "vfs/storage/auth/aws.h"
#include "vfs/storage/http/http.h"
#include "vfs/storage/auth/sigv4.h"
#include "vfs/storage/s3/target.h"
#include "vfs/storage/storage.h"

#define LJ_S3_CODE_MAX    64u
#define LJ_S3_MESSAGE_MAX 200u
#define LJ_S3_ETAG_MAX    256u

/* Whether the store refuses to overwrite when asked to; see absent.c. */
typedef enum {
    LJ_S3_CONDITION_UNKNOWN, /* not found out yet */
    LJ_S3_CONDITION_KEPT,    /* yes */
    LJ_S3_CONDITION_NONE,    /* no: the key is looked for before the put */
} lj_s3_condition;

/* A key that a put of this storage is about to create; see absent.c. */
typedef struct lj_s3_claim {
    const char *key;
    struct lj_s3_claim *next;
} lj_s3_claim;

typedef struct {
    lj_s3_target target;
    lj_http *http;
    lj_http *last_http; /* not ended by `cancel`: for taking back what was begun */
    lj_aws_provider *aws;
    const bool *cancel; /* may be NULL */
    unsigned page_size;
    /* headers of new objects, NULL: not sent */
    char *storage_class;
    char *sse;
    char *sse_kms_key_id;
    /* SSE-C: base64 of the key and of its MD5; not set: none */
    lj_secret customer_key;
    char *customer_key_md5;
    bool condition_fixed; /* "conditional" is on or off */

    _Atomic int condition;       /* lj_s3_condition */
    _Atomic bool single_deletes; /* the store does not take many keys at once */
    _Atomic bool old_list;       /* the store does not know ListObjectsV2 */
    _Atomic bool part_md5;       /* parts carry Content-MD5 too; see multipart.c */
    _Atomic int64_t skew_ns;     /* the store's clock minus ours, as far as it matters */

    pthread_mutex_t mutex; /* guards what follows */
    pthread_cond_t unclaimed;
    char region[LJ_S3_REGION_MAX];
    lj_s3_claim *claims;
} lj_s3;

/* ---- request.c ---- */

#define LJ_S3_HEADERS_MAX 12u

/* One request. Its body is in memory, so that it can be repeated. */
typedef struct {
    const char *method;
    const char *key;   /* NULL: the bucket */
    const char *query; /* encoded, sorted by name, every name with a '='; NULL: none */
    lj_sigv4_header headers[LJ_S3_HEADERS_MAX]; /* besides those every request has; any order */
    size_t header_count;
    bool customer_key; /* of an object that SSE-C is for */
    const void *body;
    size_t body_len;
    lj_sink *sink; /* as lj_http_request */
    size_t body_max;
    int64_t expected_bytes;
    int64_t total_timeout_ns;
    bool last; /* goes out though the storage is cancelled */
} lj_s3_request;

/* Adds a header unless its value is NULL; both texts must live as long as the request. */
void lj_s3_add_header(lj_s3_request *request, const char *name, const char *value);
/*
 * Signs and sends. LJ_OK: an answer came, of whatever status. Repeats the request at most once for each of these answers:
 * another region, a clock that is off, a credential that is not valid any more (when there is another).
 */
LJ_WARN_UNUSED lj_code lj_s3_perform(lj_s3 *s3, const lj_s3_request *request,
                                     lj_http_response *response, lj_error *err);
/* The same, and an answer outside 200..299 is an error. `ret_code` (may be NULL) gets the store's code, "" when none. */
LJ_WARN_UNUSED lj_code lj_s3_call(lj_s3 *s3, const lj_s3_request *request,
                                  lj_http_response *response, char ret_code[LJ_S3_CODE_MAX],
                                  lj_error *err);
bool lj_s3_cancelled(const lj_s3 *s3);

/* ---- error.c ---- */

/* What an error answer says; "" for what it does not say. */
typedef struct {
    char code[LJ_S3_CODE_MAX];
    char message[LJ_S3_MESSAGE_MAX];
    char region[LJ_S3_REGION_MAX];
    char endpoint[LJ_S3_MESSAGE_MAX];
} lj_s3_answer;

/* Reads an error document; anything else gives an empty answer. */
void lj_s3_answer_read(const char *body, size_t len, lj_s3_answer *ret_answer);
/* The error that an answer stands for; `what` begins its message. */
lj_code lj_s3_answer_error(const lj_http_response *response, const lj_s3_answer *answer,
                           const char *what, lj_error *err);
/* The same for one key of a DeleteObjects answer. */
lj_code lj_s3_code_error(const char *code, const char *message, const char *what, lj_error *err);

/* ---- absent.c ---- */

/*
 * Begins a put that must not overwrite. *ret_condition says what the final request has to ask for: the caller sends
 * If-None-Match unless it is NONE. LJ_EXISTS when the key is there. When LJ_OK, lj_s3_absent_end ends it.
 * look: always look for the key before (a large upload must not be sent in vain).
 */
LJ_WARN_UNUSED lj_code lj_s3_absent_begin(lj_s3 *s3, const char *key, bool look, lj_s3_claim *claim,
                                          lj_s3_condition *ret_condition, lj_error *err);
void lj_s3_absent_end(lj_s3 *s3, lj_s3_claim *claim);
/*
 * The store answered a request with If-None-Match with this error: does it mean that it does not know the header? Then
 * (conditional=auto) the storage goes on without, the key was looked for, and the caller repeats its request without the
 * header; else false, with *err as it was or LJ_EXISTS.
 */
bool lj_s3_absent_refused(lj_s3 *s3, const char *key, const char *code, lj_error *err);
/* The answer to a put that was repeated with If-None-Match, to see whether the store keeps the condition. */
void lj_s3_absent_learn(lj_s3 *s3, int status);

/* ---- the operations ---- */

lj_code lj_s3_put(void *self, const char *key, lj_source *source,
                  const lj_storage_put_options *options, lj_error *err);
/* The headers that every new object gets. */
void lj_s3_add_object_headers(const lj_s3 *s3, lj_s3_request *request);
/* Content-MD5 of the body into `out`; NULL where this OpenSSL has no MD5 (the signature covers the content all the same). */
#define LJ_S3_MD5_BASE64 25u
const char *lj_s3_content_md5(const void *data, size_t len, char out[LJ_S3_MD5_BASE64]);
/* The part of put for what is larger than one request; `head` is the beginning of it. */
LJ_WARN_UNUSED lj_code lj_s3_put_parts(lj_s3 *s3, const char *key, lj_source *source, lj_buf *head,
                                       bool if_absent, lj_error *err);
lj_code lj_s3_get(void *self, const char *key, uint64_t offset, int64_t length, lj_sink *sink,
                  lj_error *err);
lj_code lj_s3_head(void *self, const char *key, lj_storage_entry *ret_entry, lj_error *err);
/* Whether the key is there; as far as it can be told without reading what a 404 is about. */
LJ_WARN_UNUSED lj_code lj_s3_exists(lj_s3 *s3, const char *key, bool *ret_exists,
                                    uint64_t *ret_size, lj_error *err);
lj_code lj_s3_list(void *self, const char *prefix, const char *after, lj_storage_list_fn fn,
                   void *ctx, lj_error *err);
lj_code lj_s3_delete_many(void *self, const char *const *keys, size_t count,
                          lj_storage_delete_fn fn, void *ctx, lj_error *err);

#endif
