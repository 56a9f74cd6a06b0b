/*
 * s3.h - the driver for Amazon S3 and the many stores that speak its protocol.
 *
 *     s3://BUCKET[/PREFIX][?region=..&endpoint=..&force-path-style=..&skip-verify=..&profile=..&storage-class=..&sse=..
 *                          &sse-kms-key-id=..&conditional=..&list-page-size=..]
 *
 * and, never in a URL: access-key-id, secret-access-key, session-token, sse-customer-key. BUCKET may be one of the host forms of
 * providers (target.c). Credentials and region as vfs/storage/auth/aws.h says; the endpoint also from
 * AWS_ENDPOINT_URL_S3 and AWS_ENDPOINT_URL unless AWS_IGNORE_CONFIGURED_ENDPOINT_URLS is true, CA certificates from
 * AWS_CA_BUNDLE.
 *
 *     sse               AES256, aws:kms or aws:kms:dsse
 *     sse-customer-key  base64 of 32 bytes (SSE-C); only over https, or to a loopback address. Also from
 *                       LITEJOIN_S3_SSE_CUSTOMER_KEY, for the embedded way, whose URL must not have secrets
 *     conditional       on: the store refuses to overwrite (If-None-Match); off: it cannot, so it is asked before; auto: found
 *                       out, see absent.c
 *     list-page-size    keys per page of a listing, 1 to 1000
 *
 * created_ns of an object is its LastModified.
 *
 * Layer: storage. Thread-safety: as storage.h.
 */
#ifndef LJ_S3_H
#define LJ_S3_H

#include "vfs/storage/storage.h"

#define LJ_S3_CUSTOMER_KEY_VARIABLE "LITEJOIN_S3_SSE_CUSTOMER_KEY"

/* lj_storage_open for s3:// URLs. Makes no request. */
LJ_WARN_UNUSED lj_code lj_s3_open(const char *url, const lj_storage_options *options,
                                  lj_storage **ret_storage, lj_error *err);

#endif
