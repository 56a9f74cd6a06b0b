/*
 * s3_http.h - one connection of s3_server: reads requests, sends answers. Content-Length on both sides, no chunks.
 *
 * Thread-safety: a connection belongs to its thread.
 */
#ifndef LJ_BENCH_S3_HTTP_H
#define LJ_BENCH_S3_HTTP_H

#include "test/bench/s3_store.h"
#include "vfs/base/buf.h"

#define HEAD_MAX       65536u
#define NAME_MAX_BYTES 1400u /* "bucket/key", and a key has 1,024 bytes at most */
#define QUERY_MAX      4096u

typedef struct {
    int fd;
    char head[HEAD_MAX]; /* what was received: a head, and maybe the beginning of its body */
    size_t have;
    size_t used;     /* bytes of `head` that the present request has taken */
    uint64_t unread; /* bytes of its body still to come */
    bool awaits_continue;
    uint64_t bytes_in;
    uint64_t bytes_out;
} connection;

typedef struct {
    char method[16];
    char bucket[256];
    char key[NAME_MAX_BYTES];  /* decoded, "" for the bucket itself */
    char name[NAME_MAX_BYTES]; /* "bucket/key" */
    char query[QUERY_MAX];     /* as it came */
    uint64_t length;
    bool if_absent; /* If-None-Match: * */
    bool has_range;
    int64_t range_first; /* -1: the last range_last bytes */
    int64_t range_last;  /* -1: to the end */
    bool close;
} request;

/* false: the connection is to be closed (*ret_status: after answering so; 0: without a word). */
bool http_read_request(connection *c, request *r, int *ret_status);
/* The value of a query parameter, decoded; false when it is not there. An empty value counts as there. */
bool http_query(const request *r, const char *name, char *out, size_t size);

/* Reads the body into `out`; false: broken off, or too large. */
bool http_read_text(connection *c, lj_buf *out);
bool http_read_blob(connection *c, blob *b);
/* Reads and forgets what is left of the body. */
bool http_skip_body(connection *c);

typedef struct {
    int status;
    char headers[1024]; /* "Name: value\r\n" each */
    const void *body;
    uint64_t length; /* Content-Length: of `body`, or of what follows */
    bool no_body;    /* HEAD */
} answer;

bool http_send(connection *c, const answer *a);
/* Bytes first..first+length-1 of the object, behind http_send. */
bool http_send_object(connection *c, const object *o, uint64_t first, uint64_t length);

#endif
