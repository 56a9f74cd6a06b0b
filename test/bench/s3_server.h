/*
 * s3_server.h - what the parts of s3_server share: its options, its counters, and the calls that answer requests.
 */
#ifndef LJ_BENCH_S3_SERVER_H
#define LJ_BENCH_S3_SERVER_H

#include <stdatomic.h>

#include "test/bench/s3_http.h"

/* X(name): the kinds of requests that are counted. */
#define REQUEST_KINDS(X)                                                                           \
    X(put)                                                                                         \
    X(create_upload)                                                                               \
    X(upload_part)                                                                                 \
    X(complete_upload)                                                                             \
    X(abort_upload)                                                                                \
    X(get)                                                                                         \
    X(head)                                                                                        \
    X(list)                                                                                        \
    X(delete)                                                                                      \
    X(delete_objects)                                                                              \
    X(other)

typedef enum {
#define X(name) KIND_##name,
    REQUEST_KINDS(X)
#undef X
        KIND_COUNT
} request_kind;

typedef struct {
    const char *discard_prefix; /* bodies of keys that begin with it are not kept; NULL: none */
    atomic_uint delay_ms;
    atomic_uint fail_count; /* so many requests to come are answered with fail_status */
    atomic_uint fail_status;
    atomic_ullong requests[KIND_COUNT];
    atomic_ullong failures; /* answers from 400 on, but for 404 and 412 */
    atomic_ullong bytes_in;
    atomic_ullong bytes_out;
    atomic_ullong accepted;
    atomic_ullong open;
} server_state;

extern server_state server;

/* Sleeps as --delay-ms says; called by every operation once, after the body and before the answer. */
void server_delay(void);

bool send_error(connection *c, const request *r, int status, const char *code);
bool send_xml(connection *c, const request *r, const lj_buf *xml);

/* Each answers the request; false: the connection is to be closed. */
bool answer_object(connection *c, const request *r);  /* s3_object.c: with a key */
bool answer_upload(connection *c, const request *r);  /* s3_upload.c: with ?uploads or ?uploadId */
bool answer_bucket(connection *c, const request *r);  /* s3_bucket.c: without a key */
bool answer_control(connection *c, const request *r); /* s3_server.c: /_stats, /_control */

/* Text for XML, or percent-encoded when `encoded`. */
bool append_text(lj_buf *xml, const char *text, bool encoded);
/* Reads the request's body into a new blob of the kind that its key asks for; NULL: answered, *ret_go_on as above. */
blob *read_into_blob(connection *c, const request *r, bool *ret_go_on);
uint64_t uploads_open(void);

#endif
