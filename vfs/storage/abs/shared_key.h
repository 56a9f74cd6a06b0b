/*
 * shared_key.h - the "Shared Key" authorization of Azure Storage (version 2015-02-21 and later).
 *
 * Layer: storage. Thread-safety: pure. Source: "Authorize with Shared Key", Azure Storage REST API. The emulator has the
 * account as first part of the path, which makes it stand twice in the canonicalized resource: nothing special here.
 */
#ifndef LJ_SHARED_KEY_H
#define LJ_SHARED_KEY_H

#include "vfs/base/buf.h"
#include "vfs/base/secret.h"

typedef struct {
    const char *name; /* lower case */
    const char *value;
} lj_abs_pair;

#define LJ_SHARED_KEY_HEADERS_MAX 16u
#define LJ_SHARED_KEY_QUERY_MAX   8u

typedef struct {
    const char *method;
    const char *account;
    const char *path;         /* of the URL, as it is sent (encoded), with its leading '/' */
    const lj_abs_pair *query; /* values decoded, no name twice; at most LJ_SHARED_KEY_QUERY_MAX */
    size_t query_count;
    const char *const
        *headers;            /* "Name: value", ends with NULL; at most LJ_SHARED_KEY_HEADERS_MAX */
    uint64_t content_length; /* Content-Length is not looked for among the headers */
} lj_shared_key_request;

/* Appends the string to sign. Errors: LJ_INVALID above the limits, LJ_NOMEM. */
LJ_WARN_UNUSED lj_code lj_shared_key_string(const lj_shared_key_request *request, lj_buf *out,
                                            lj_error *err);
/* The value of the Authorization header, "SharedKey ACCOUNT:SIGNATURE"; `key` is the decoded account key. */
LJ_WARN_UNUSED lj_code lj_shared_key_sign(const lj_shared_key_request *request,
                                          const lj_secret *key, lj_secret *ret_value,
                                          lj_error *err);

#endif
