/*
 * http.h - one HTTP request and its answer, by libcurl: the transport of every driver and credential source.
 *
 * Connections are kept alive in one pool per process, shared by all databases: a request takes an idle connection to
 * its origin, or makes one. No redirect is followed, no cookie kept, no answer decoded. Every request has a connect, a stall
 * and a total deadline and ends within 200 ms of being cancelled, by lj_http_options.cancel or the thread's flag (cancel.h).
 * Time spent in the caller's source and sink counts for no deadline. Nothing is retried here, but for what cannot have been
 * carried out or does no harm twice: when a kept connection turns out to be closed, libcurl sends a request again whose
 * body was not handed on whole, and a GET, HEAD or DELETE. Then the source is rewound.
 *
 * The host's process: no SIGPIPE, no thread that takes its signals, no error left in the thread's OpenSSL queue, sockets are
 * closed on exec.
 *
 * Layer: storage. Thread-safety: a lj_http is used by any number of threads; a request and its response by one.
 * Survives fork: the child leaves the parent's connections alone and begins with an empty pool.
 */
#ifndef LJ_HTTP_H
#define LJ_HTTP_H

#include "vfs/base/buf.h"
#include "vfs/base/stream.h"

typedef struct lj_http lj_http;

/* 0, false or NULL: the default. Texts are copied. */
typedef struct {
    int64_t connect_timeout_ns; /* 10 s, but not more than stall_timeout_ns */
    int64_t
        stall_timeout_ns; /* no byte in either direction for this long: 30 s. Sent bytes move until they are
                                   acknowledged */
    bool skip_verify;    /* accept any certificate (litestream.yml's skip-verify) */
    const char *ca_file; /* instead of the environment's and the system's */
    const bool *cancel;  /* polled with __atomic_load_n; may be NULL; outlives the lj_http */
} lj_http_options;

/*
 * Reads the environment once: proxies as curl does (http_proxy, https_proxy, all_proxy, no_proxy) and their upper case
 * forms as the SDKs do; certificates from ca_file, else from CURL_CA_BUNDLE or else SSL_CERT_FILE, and SSL_CERT_DIR, else
 * the system's. Makes no request. Freed with lj_http_free; the last one closes the idle connections.
 */
LJ_WARN_UNUSED lj_code lj_http_new(const lj_http_options *options, lj_http **ret_http,
                                   lj_error *err);
void lj_http_free(lj_http *http);

typedef struct {
    const char *method;         /* "GET", "PUT", ... */
    const char *url;            /* absolute and encoded; http or https. Its query is never shown */
    const char *const *headers; /* "Name: value", ends with NULL; may be NULL. Never shown */
    /* the body: `body_len` bytes at `body`, or `source` with exactly `body_len` bytes, or none at all */
    const void *body;
    lj_source *source;
    uint64_t body_len;
    /*
     * An answer 200..299 goes here; NULL: into response->body like every other answer. When the sink is called the
     * response has its status and headers: a sink that asked for a range looks for 206 first.
     */
    lj_sink *sink;
    size_t
        body_max; /* limit of response->body; 0: 1 MiB. An error answer beyond it is cut, any other is an error */
    int64_t
        expected_bytes; /* about how much the answer brings, for the total deadline; -1 or 0: small */
    int64_t
        total_timeout_ns; /* 0: 10 x the stall timeout, and time for all bytes of both bodies at 16 KiB/s */
    int64_t connect_timeout_ns; /* 0: as the options say (metadata services: 1 s) */
    bool no_proxy;              /* link-local metadata services */
} lj_http_request;

#define LJ_HTTP_REQUEST(method_, url_)                                                             \
    {                                                                                              \
        .method = (method_), .url = (url_), .headers = NULL                                        \
    }

typedef struct {
    int status;
    lj_buf headers; /* "name: value\n" each, names in lower case */
    lj_buf
        body; /* what did not go to the sink; NUL-terminated. Secrets that a refusal repeats are masked */
    uint64_t sunk;      /* bytes the sink has taken, also when the transfer failed */
    bool sink_failed;   /* the error is the sink's own */
    bool source_failed; /* the error is the source's own */
    bool
        maybe_sent; /* on failure: the whole request may have reached the server, and been carried out */
} lj_http_response;

#define LJ_HTTP_RESPONSE_INIT                                                                      \
    {                                                                                              \
        .status = 0, .headers = LJ_BUF_INIT(256u * 1024u), .body = LJ_BUF_INIT(1024u * 1024u)      \
    }

/* For LJ_CLEANUP too. A response may be used again for the next request. */
void lj_http_response_free(lj_http_response *response);

/*
 * LJ_OK when an answer came in whole, whatever its status. Errors, named after "METHOD host": LJ_UNAVAILABLE (cannot
 * resolve, connect, broken off, shorter than its Content-Length; retryable), LJ_TIMEOUT (retryable), LJ_DENIED (certificate
 * not trusted; retryable, a hint says where CA files are named), LJ_CANCELLED, LJ_INVALID, and the source's and the
 * sink's own. Bodies of statuses outside 200..299 never go to the sink.
 */
LJ_WARN_UNUSED lj_code lj_http_perform(lj_http *http, const lj_http_request *request,
                                       lj_http_response *response, lj_error *err);

/*
 * To be called before an atexit handler is set that still needs the network: OpenSSL does not take itself apart before that
 * one has run. When it does, every request ends with LJ_CANCELLED.
 */
void lj_http_prepare(void);

/* The first header of this name (lower case), into `out`; false when absent or longer than `size`. */
bool lj_http_header(const lj_http_response *response, const char *name, char *out, size_t size);
/* A time in the form of RFC 9110 ("Sun, 06 Nov 1994 08:49:37 GMT"); false when it is none. */
bool lj_http_date(const char *text, int64_t *ret_wall_ns);
/* The other way, for requests. `out` has at least 32 bytes. */
void lj_http_date_format(int64_t wall_ns, char out[32]);
/* Retry-After: seconds or a date; 0 when absent. At most one hour. */
int64_t lj_http_retry_after_ns(const lj_http_response *response);

/*
 * Turns an answer outside 200..299 into an error: code, http_status, retryable and retry_after_ns from the status
 * (404 LJ_NOTFOUND; 401, 403, 407 LJ_DENIED and retryable, because rights come back; 408 LJ_TIMEOUT; 429 and 5xx
 * LJ_UNAVAILABLE; 412 LJ_EXISTS; 507 LJ_NOSPACE; other 4xx LJ_INVALID; else LJ_UNAVAILABLE). The message is
 * "<what>: HTTP <status>", with ": <detail>" when there is one (the store's own code and message; control characters in it
 * become spaces). A driver corrects
 * what its store means differently.
 */
lj_code lj_http_status_error(const lj_http_response *response, const char *what, const char *detail,
                             lj_error *err);

#endif
