/*
 * aws_metadata.h - requests to the small HTTP services beside a program that hand out credentials: the instance metadata
 * service, ECS's and EKS's agents.
 *
 * They are near: a connection comes within a second or not at all. One that does not answer is tried three times, and
 * everything ends 4.5 s after the beginning.
 *
 * Layer: storage. Thread-safety: one thread per lj_aws_metadata.
 */
#ifndef LJ_AWS_METADATA_H
#define LJ_AWS_METADATA_H

#include "vfs/storage/auth/aws_internal.h"

typedef struct {
    lj_http *http;      /* the source's */
    int64_t end_ns;     /* monotonic */
    int64_t request_ns; /* one request takes at most so long */
    bool no_proxy;
} lj_aws_metadata;

/* From here on the time counts. */
lj_aws_metadata lj_aws_metadata_begin(const lj_aws_source *source, int64_t request_ns);

/*
 * `headers` as in lj_http_request. LJ_OK for any answer but 429 and 5xx, which are tried again as no answer is. Errors:
 * those of lj_http_perform and lj_http_status_error.
 */
LJ_WARN_UNUSED lj_code lj_aws_metadata_ask(lj_aws_metadata *metadata, const char *method,
                                           const char *url, const char *const *headers,
                                           lj_http_response *response, lj_error *err);

#endif
