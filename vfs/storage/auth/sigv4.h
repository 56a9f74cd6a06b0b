/*
 * sigv4.h - AWS Signature Version 4 for requests with the signature in their Authorization header.
 *
 * Signs what it is given and nothing else: the caller decides on headers, time and region, and sends exactly these.
 *
 * Layer: storage. Thread-safety: pure. Source: AWS "Signature Calculations for the Authorization Header" (S3 API reference);
 * as S3 wants it, the path is encoded once.
 */
#ifndef LJ_SIGV4_H
#define LJ_SIGV4_H

#include "vfs/base/buf.h"

#define LJ_SIGV4_DATE_SIZE 17u /* "20130524T000000Z" and the NUL */

typedef struct {
    const char *name; /* lower case */
    const char *value;
} lj_sigv4_header;

typedef struct {
    const char *method;
    const char *path;  /* encoded, from its first '/' */
    const char *query; /* "name=value&..." encoded and sorted by name; "" for none */
    const lj_sigv4_header
        *headers; /* sorted by name; all are signed; `host` and `x-amz-date` among them */
    size_t header_count;
    const char *payload_sha256; /* hex */
    const char *date;           /* as lj_sigv4_date; that of the header */
    const char *region;
    const char *service; /* "s3" */
} lj_sigv4_request;

/* A wall time as the signature wants it. */
void lj_sigv4_date(int64_t wall_ns, char out[LJ_SIGV4_DATE_SIZE]);
/*
 * Appends the canonical request. It may hold secrets (a session token, a customer's key): `out` gets its room at once, so
 * that wiping it leaves no copy.
 */
LJ_WARN_UNUSED lj_code lj_sigv4_canonical(const lj_sigv4_request *request, lj_buf *out,
                                          lj_error *err);
/* Appends the value of the Authorization header. LJ_INVALID when the key id could not stand in a header. */
LJ_WARN_UNUSED lj_code lj_sigv4_authorization(const lj_sigv4_request *request, const char *key_id,
                                              const char *secret_key, lj_buf *out, lj_error *err);

#endif
