/*
 * internal.h - what the parts of the Azure Blob driver share. Not for other folders, except their tests.
 *
 * Layer: storage. Thread-safety: a lj_abs is constant but for clock_offset_ns, which is atomic.
 */
#ifndef LJ_ABS_INTERNAL_H
#define LJ_ABS_INTERNAL_H

#include <stdatomic.h>

#include "vfs/storage/abs/shared_key.h"
#include "vfs/storage/abs/xml.h"
#include "vfs/storage/auth/azure.h"
#include "vfs/storage/http/http.h"
#include "vfs/storage/setting.h"
#include "vfs/storage/storage.h"

/* The newest that stores and emulators of the last years all know; has everything that is used here. */
#define LJ_ABS_VERSION       "2023-11-03"
#define LJ_ABS_LIST_PAGE_MAX 5000u
#define LJ_ABS_BLOCKS_MAX    50000u

/* ---- the target (target.c) ---- */

typedef struct {
    char *container;
    char *prefix;      /* of all keys, without slashes at its ends; "" for none */
    char *endpoint;    /* "https://host[:port][/path]", without a '/' at the end */
    size_t path_at;    /* where the endpoint's path begins: the end when there is none */
    char *display_url; /* "abs://account@container/prefix" */
    lj_azure_provider *provider;
} lj_abs_target;

/*
 * What a URL and settings come to. Reads the environment, makes no request. Errors: LJ_INVALID, LJ_UNSUPPORTED. On
 * success freed with lj_abs_target_free.
 */
LJ_WARN_UNUSED lj_code lj_abs_target_make(const char *url, const lj_storage_options *options,
                                          lj_settings *ret_settings, lj_abs_target *ret_target,
                                          lj_error *err);
void lj_abs_target_free(lj_abs_target *target);

/* ---- the driver (abs.c) ---- */

typedef struct {
    lj_abs_target target;
    lj_http *http;
    const bool *cancel;
    uint32_t list_page;              /* entries asked for per page of a listing */
    _Atomic int64_t clock_offset_ns; /* the store's clock less ours, as far as it matters */
} lj_abs;

/* The name of the blob of a key, allocated; NULL when out of memory. */
char *lj_abs_blob(const lj_abs *abs, const char *key);

/* ---- requests (request.c) ---- */

#define LJ_ABS_REQUEST_HEADERS_MAX 6u

typedef struct {
    const char *method;
    const char *blob; /* NULL: the container */
    lj_abs_pair query[LJ_SHARED_KEY_QUERY_MAX];
    size_t query_count;
    const char
        *headers[LJ_ABS_REQUEST_HEADERS_MAX]; /* "Name: value"; besides those every request has */
    size_t header_count;
    const void *body;
    size_t body_len;
    bool with_md5;  /* of the body, so that the store checks it */
    bool if_absent; /* "If-None-Match: *" */
    int success; /* the one status that says it is done; 0: any 200..299. A proxy's page has 200 too */
    lj_sink *sink;
    int64_t expected_bytes;
} lj_abs_request;

/*
 * Sends the request with its credentials, once more with a fresh token when it has expired, or with the right time when
 * this machine's clock is off. LJ_OK: an answer 200..299, and `success` where that is set. Else the error, as error.c gives
 * it.
 */
LJ_WARN_UNUSED lj_code lj_abs_perform(lj_abs *abs, const lj_abs_request *request,
                                      lj_http_response *response, lj_error *err);

/* ---- errors (error.c) ---- */

/* The store's own code: of the header x-ms-error-code, else of the body. "" when the answer has none. */
void lj_abs_error_code(const lj_http_response *response, char code[LJ_ABS_CODE_MAX]);
/*
 * The error of an answer outside 200..299. LJ_NOTFOUND only for a blob that is not there, LJ_EXISTS only for one that is
 * while the request had `if_absent`.
 */
lj_code lj_abs_error(const lj_abs *abs, const lj_abs_request *request,
                     const lj_http_response *response, lj_error *err);

/* ---- the members of lj_storage_ops that have files of their own ---- */

LJ_WARN_UNUSED lj_code lj_abs_put(void *self, const char *key, lj_source *source,
                                  const lj_storage_put_options *options, lj_error *err);
LJ_WARN_UNUSED lj_code lj_abs_get(void *self, const char *key, uint64_t offset, int64_t length,
                                  lj_sink *sink, lj_error *err);
LJ_WARN_UNUSED lj_code lj_abs_head(void *self, const char *key, lj_storage_entry *ret_entry,
                                   lj_error *err);
LJ_WARN_UNUSED lj_code lj_abs_list(void *self, const char *prefix, const char *after,
                                   lj_storage_list_fn fn, void *ctx, lj_error *err);
LJ_WARN_UNUSED lj_code lj_abs_delete_many(void *self, const char *const *keys, size_t count,
                                          lj_storage_delete_fn fn, void *ctx, lj_error *err);

#endif
