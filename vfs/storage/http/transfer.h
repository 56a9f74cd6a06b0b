/*
 * transfer.h - one request under way (internal to http/): made by http.c, run by transfer.c, explained by failure.c.
 *
 * Layer: storage. Thread-safety: one thread.
 */
#ifndef LJ_HTTP_TRANSFER_H
#define LJ_HTTP_TRANSFER_H

#include "vfs/storage/http/http.h"
#include "vfs/storage/http/pool.h"

#define LJ_HTTP_HOST_MAX 256

struct lj_http {
    int64_t connect_timeout_ns;
    int64_t stall_timeout_ns;
    bool skip_verify;
    const bool *cancel;
    char *ca_file;
    char *ca_path;
    /* by the scheme of the URL; NULL: none. May have a password in them */
    char *http_proxy;
    char *https_proxy;
    char *no_proxy;
};

/* Why we ended a transfer that libcurl would have gone on with. */
typedef enum {
    LJ_END_NONE,
    LJ_END_CALLBACK, /* the source, the sink, or memory: `code`, and the error in *err */
    LJ_END_CANCELLED,
    LJ_END_STALLED,
    LJ_END_TOO_LONG,
    LJ_END_TOO_LARGE, /* the body of the answer */
    LJ_END_REPEATED,  /* libcurl was about to send a request again that may have been carried out */
} lj_http_end;

typedef struct {
    lj_http *http;
    const lj_http_request *request;
    lj_http_response *response;
    lj_error *err;
    lj_http_end end;
    lj_code code;
    uint64_t sent;    /* bytes of the body handed to libcurl, of this attempt */
    bool handed_on;   /* all of the body was, in some attempt */
    bool has_headers; /* those of the answer came in to their end */
    unsigned attempts;
    int64_t start_ns;
    int64_t outside_ns;  /* time spent in the source and the sink */
    int64_t progress_ns; /* when the last byte moved */
    uint64_t up;         /* bytes of bodies that moved */
    uint64_t down;
    uint64_t announced; /* Content-Length of the answer */
    int queued;         /* bytes in the kernel's send queue when last looked at; -1: not yet */
    int sys_errno;
    char where[LJ_HTTP_HOST_MAX + 16]; /* "GET host:port" */
    char curl_message[CURL_ERROR_SIZE];
} lj_transfer;

/* Sets every option for the transfer on a connection that has none. */
CURLcode lj_transfer_set(lj_transfer *t, lj_connection *c, struct curl_slist *headers);
/* Runs it to its end, or to one of our own limits (t->end). *ret_done: libcurl came to an end by itself. */
CURLcode lj_transfer_run(lj_transfer *t, lj_connection *c, bool *ret_done);
/* Writes *t->err for a transfer that did not give CURLE_OK. Never shows a URL, a header or a proxy's password. */
lj_code lj_transfer_error(lj_transfer *t, CURLcode code);
/* Overwrites in the body of a refusal what the request had of secrets (mask.c). */
void lj_http_mask_sent(const lj_http_request *request, lj_buf *body);
/* The limit of t's whole time, without what was spent in the source and sink. */
int64_t lj_transfer_limit_ns(const lj_transfer *t);

#endif
