/*
 * http.c - see http.h: one request through one connection of the pool.
 *
 * The transfer is driven by our own loop (curl_multi), so that it can be cancelled at any time and so that a stall is
 * measured without the time spent in the caller's source and sink.
 *
 * Layer: storage. Thread-safety: a lj_http is constant after it was made.
 */
#include "vfs/storage/http/http.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "vfs/base/cancel.h"
#include "vfs/base/clock.h"
#include "vfs/base/secret.h"
#include "vfs/base/str.h"
#include "vfs/storage/http/pool.h"

#define CONNECT_TIMEOUT_NS  (10 * LJ_NS_PER_S)
#define STALL_TIMEOUT_NS    (30 * LJ_NS_PER_S)
#define SLOWEST_BYTES_PER_S 16384
#define STALLS_IN_TOTAL     10
#define POLL_MS             100
#define BODY_MAX            ((size_t)1024 * 1024)
#define HEADERS_MAX         ((size_t)256 * 1024)
#define BUFFER_BYTES        ((long)128 * 1024)
#define URL_HOST_MAX        256

struct lj_http {
    int64_t connect_timeout_ns;
    int64_t stall_timeout_ns;
    bool skip_verify;
    const bool *cancel;
    char *ca_file;
    char *ca_path;
    char *http_proxy; /* for http:// URLs: HTTP_PROXY in upper case, which libcurl does not read */
};

/* One request under way. */
typedef struct {
    lj_http *http;
    const lj_http_request *request;
    lj_http_response *response;
    lj_error *err;
    uint64_t sent;       /* bytes of the body handed to libcurl */
    int64_t progress_ns; /* when the last byte moved */
    curl_off_t moved;    /* bytes moved then, both ways */
    lj_code code;        /* why a callback ended the transfer; its error is in *err */
    bool too_large;
    bool stalled;
    bool cancelled;
    char where[URL_HOST_MAX + 16]; /* "GET host:port" */
    char curl_message[CURL_ERROR_SIZE];
} transfer;

/* ---- making ---- */

static lj_code copy_text(char **ret, const char *text, lj_error *err)
{
    if (text == NULL || text[0] == 0)
        return LJ_OK;
    *ret = lj_str_dup(text);
    return *ret == NULL ? lj_error_nomem(err) : LJ_OK;
}

static const char *first_set(const char *const *names)
{
    for (; *names != NULL; names++) {
        const char *value = getenv(*names);
        if (value != NULL && value[0] != 0)
            return value;
    }
    return NULL;
}

static lj_code read_environment(lj_http *http, const char *ca_file, lj_error *err)
{
    static const char *const ca_files[] = {"CURL_CA_BUNDLE", "SSL_CERT_FILE", NULL};
    LJ_TRY(copy_text(&http->ca_file, ca_file != NULL ? ca_file : first_set(ca_files), err));
    LJ_TRY(copy_text(&http->ca_path, getenv("SSL_CERT_DIR"), err));
    /* libcurl does not read HTTP_PROXY in upper case, because a CGI program gets it from its client */
    if (getenv("REQUEST_METHOD") == NULL && getenv("http_proxy") == NULL)
        LJ_TRY(copy_text(&http->http_proxy, getenv("HTTP_PROXY"), err));
    return LJ_OK;
}

lj_code lj_http_new(const lj_http_options *options, lj_http **ret_http, lj_error *err)
{
    lj_http *http = calloc(1, sizeof(*http));
    if (http == NULL)
        return lj_error_nomem(err);
    http->stall_timeout_ns =
        options->stall_timeout_ns > 0 ? options->stall_timeout_ns : STALL_TIMEOUT_NS;
    http->connect_timeout_ns =
        LJ_MIN(options->connect_timeout_ns > 0 ? options->connect_timeout_ns : CONNECT_TIMEOUT_NS,
               http->stall_timeout_ns);
    http->skip_verify = options->skip_verify;
    http->cancel = options->cancel;
    lj_code code = read_environment(http, options->ca_file, err);
    if (code != LJ_OK) {
        lj_http_free(http);
        return code;
    }
    *ret_http = http;
    return LJ_OK;
}

void lj_http_free(lj_http *http)
{
    if (http == NULL)
        return;
    free(http->ca_file);
    free(http->ca_path);
    lj_wipe_freep(&http->http_proxy); /* may have a password */
    free(http);
}

void lj_http_response_free(lj_http_response *response)
{
    lj_wipe(response->body.data, response->body.len); /* credential services answer with secrets */
    lj_buf_free(&response->headers);
    lj_buf_free(&response->body);
}

/* ---- what libcurl calls ---- */

static bool is_cancelled(const transfer *t)
{
    return lj_cancel_requested(t->http->cancel);
}

static size_t on_read(char *out, size_t size, size_t count, void *ctx)
{
    transfer *t = ctx;
    const lj_http_request *r = t->request;
    size_t max = (size_t)LJ_MIN((uint64_t)(size * count), r->body_len - t->sent);
    size_t n = 0;
    if (max == 0)
        return 0;
    if (r->source == NULL) {
        memcpy(out, (const char *)r->body + t->sent, max);
        n = max;
    } else {
        lj_code code = r->source->read(r->source->ctx, out, max, &n, t->err);
        t->progress_ns = lj_clock_mono_ns();
        if (code == LJ_OK && n == 0) {
            code = lj_error_set(t->err, LJ_IO,
                                "the source ended after %" PRIu64 " of %" PRIu64 " bytes", t->sent,
                                r->body_len);
            lj_error_retryable(t->err, true);
        }
        if (code != LJ_OK) {
            t->code = code;
            t->response->source_failed = true;
            return CURL_READFUNC_ABORT;
        }
    }
    t->sent += n;
    return n;
}

/* libcurl begins the body again: a kept connection turned out to be closed, or a proxy wants to be asked first. */
static int on_seek(void *ctx, curl_off_t offset, int origin)
{
    transfer *t = ctx;
    if (origin != SEEK_SET || offset < 0)
        return CURL_SEEKFUNC_CANTSEEK;
    if (t->request->source == NULL) {
        t->sent = (uint64_t)offset;
        return CURL_SEEKFUNC_OK;
    }
    if (offset != 0 || t->request->source->rewind(t->request->source->ctx, NULL) != LJ_OK)
        return CURL_SEEKFUNC_FAIL;
    t->sent = 0;
    return CURL_SEEKFUNC_OK;
}

static long status_of(const transfer *t)
{
    return t->response->status;
}

static bool goes_to_sink(const transfer *t)
{
    return t->request->sink != NULL && status_of(t) >= 200 && status_of(t) < 300;
}

static size_t on_write(char *data, size_t size, size_t count, void *ctx)
{
    transfer *t = ctx;
    size_t len = size * count;
    lj_http_response *response = t->response;
    if (goes_to_sink(t)) {
        lj_code code = t->request->sink->write(t->request->sink->ctx, data, len, t->err);
        t->progress_ns = lj_clock_mono_ns();
        if (code != LJ_OK) {
            t->code = code;
            response->sink_failed = true;
            return 0;
        }
        response->sunk += len;
        return len;
    }
    size_t room = response->body.max - response->body.len;
    if (len > room && status_of(t) < 400) {
        t->too_large = true;
        return 0;
    }
    lj_code code = lj_buf_append(&response->body, data, LJ_MIN(len, room), t->err);
    if (code != LJ_OK) {
        t->code = code;
        return 0;
    }
    return len;
}

/* "HTTP/1.1 200 OK" begins an answer (also behind a 100 or a proxy's), everything else is a header. */
static size_t on_header(char *data, size_t size, size_t count, void *ctx)
{
    transfer *t = ctx;
    size_t len = size * count;
    lj_buf *headers = &t->response->headers;
    if (len > 5 && strncasecmp(data, "HTTP/", 5) == 0) {
        const char *space = memchr(data, ' ', len);
        t->response->status = space != NULL ? atoi(space + 1) : 0;
        lj_buf_clear(headers);
        return len;
    }
    size_t kept = len;
    while (kept > 0 && isspace((unsigned char)data[kept - 1]))
        kept--;
    if (memchr(data, ':', kept) == NULL || headers->len + kept + 1 > headers->max)
        return len;
    size_t start = headers->len;
    if (lj_buf_append(headers, data, kept, NULL) != LJ_OK ||
        lj_buf_append(headers, "\n", 1, NULL) != LJ_OK)
        return len;
    for (size_t i = start; headers->data[i] != ':'; i++)
        headers->data[i] = (uint8_t)tolower(headers->data[i]);
    return len;
}

static int on_progress(void *ctx, curl_off_t down_total, curl_off_t down, curl_off_t up_total,
                       curl_off_t up)
{
    (void)down_total, (void)up_total;
    transfer *t = ctx;
    if (down + up != t->moved) {
        t->moved = down + up;
        t->progress_ns = lj_clock_mono_ns();
    }
    return 0;
}

/* ---- one transfer ---- */

/* "scheme://host:port" of a URL, and "host:port" for messages. A userinfo, path or query never gets there. */
static void split_origin(const char *url, char *origin, size_t origin_size, const char **ret_host)
{
    const char *host = strstr(url, "://");
    host = host != NULL ? host + 3 : url;
    size_t len = strcspn(host, "/?#");
    for (size_t i = 0; i < len; i++)
        if (host[i] == '@') {
            host += i + 1;
            len -= i + 1;
            i = 0;
        }
    bool tls = strncasecmp(url, "https:", 6) == 0;
    size_t scheme = tls ? 8 : 7;
    len = LJ_MIN(len, origin_size - scheme - 1);
    memcpy(origin, tls ? "https://" : "http://", scheme);
    memcpy(origin + scheme, host, len);
    origin[scheme + len] = 0;
    *ret_host = origin + scheme;
}

/* Every setopt result is collected: an option this libcurl does not know must not be ignored. */
#define SET(option, value)                                                                         \
    do {                                                                                           \
        CURLcode set_code_ = curl_easy_setopt(easy, option, value);                                \
        if (set_code_ != CURLE_OK && code == CURLE_OK)                                             \
            code = set_code_;                                                                      \
    } while (0)

static CURLcode set_body(CURL *easy, transfer *t)
{
    CURLcode code = CURLE_OK;
    const lj_http_request *r = t->request;
    bool body = r->source != NULL || r->body_len > 0 || strcmp(r->method, "PUT") == 0 ||
                strcmp(r->method, "POST") == 0;
    if (body) {
        SET(CURLOPT_UPLOAD, 1L);
        SET(CURLOPT_INFILESIZE_LARGE, (curl_off_t)r->body_len);
        SET(CURLOPT_READFUNCTION, on_read);
        SET(CURLOPT_READDATA, t);
        SET(CURLOPT_SEEKFUNCTION, on_seek);
        SET(CURLOPT_SEEKDATA, t);
    } else if (strcmp(r->method, "HEAD") == 0) {
        SET(CURLOPT_NOBODY, 1L);
    }
    SET(CURLOPT_CUSTOMREQUEST, strcmp(r->method, "HEAD") == 0 ? NULL : r->method);
    return code;
}

static CURLcode set_security(CURL *easy, const transfer *t)
{
    CURLcode code = CURLE_OK;
    const lj_http *http = t->http;
    bool tls = strncasecmp(t->request->url, "https:", 6) == 0;
    SET(CURLOPT_PROTOCOLS_STR, "http,https");
    SET(CURLOPT_FOLLOWLOCATION, 0L);
    SET(CURLOPT_SSL_VERIFYPEER, http->skip_verify ? 0L : 1L);
    SET(CURLOPT_SSL_VERIFYHOST, http->skip_verify ? 0L : 2L);
    if (http->ca_file != NULL)
        SET(CURLOPT_CAINFO, http->ca_file);
    if (http->ca_path != NULL)
        SET(CURLOPT_CAPATH, http->ca_path);
    if (t->request->no_proxy)
        SET(CURLOPT_NOPROXY, "*");
    else if (http->http_proxy != NULL && !tls)
        SET(CURLOPT_PROXY, http->http_proxy);
    return code;
}

static int64_t total_timeout_ns(const transfer *t)
{
    const lj_http_request *r = t->request;
    if (r->total_timeout_ns > 0)
        return r->total_timeout_ns;
    uint64_t bytes = r->body_len + (r->expected_bytes > 0 ? (uint64_t)r->expected_bytes : 0);
    bytes = LJ_MIN(bytes, UINT64_C(1) << 50);
    return STALLS_IN_TOTAL * t->http->stall_timeout_ns +
           (int64_t)(bytes / SLOWEST_BYTES_PER_S) * LJ_NS_PER_S;
}

static long ms_of(int64_t ns)
{
    int64_t ms = ns / LJ_NS_PER_MS;
    return (long)LJ_MAX(LJ_MIN(ms, (int64_t)INT32_MAX), INT64_C(1));
}

static CURLcode set_all(CURL *easy, transfer *t, struct curl_slist *headers)
{
    CURLcode code = set_body(easy, t);
    CURLcode security = set_security(easy, t);
    code = code != CURLE_OK ? code : security;
    int64_t connect_ns = t->request->connect_timeout_ns > 0 ? t->request->connect_timeout_ns
                                                            : t->http->connect_timeout_ns;
    SET(CURLOPT_NOSIGNAL, 1L);
    SET(CURLOPT_URL, t->request->url);
    SET(CURLOPT_HTTPHEADER, headers);
    SET(CURLOPT_USERAGENT, "litejoin-vfs/" LITEJOIN_VERSION);
    SET(CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_2TLS);
    SET(CURLOPT_BUFFERSIZE, BUFFER_BYTES);
    SET(CURLOPT_UPLOAD_BUFFERSIZE, BUFFER_BYTES);
    SET(CURLOPT_TCP_NODELAY, 1L);
    SET(CURLOPT_TCP_KEEPALIVE, 1L);
    SET(CURLOPT_CONNECTTIMEOUT_MS, ms_of(connect_ns));
    SET(CURLOPT_ERRORBUFFER, t->curl_message);
    SET(CURLOPT_WRITEFUNCTION, on_write);
    SET(CURLOPT_WRITEDATA, t);
    SET(CURLOPT_HEADERFUNCTION, on_header);
    SET(CURLOPT_HEADERDATA, t);
    SET(CURLOPT_NOPROGRESS, 0L);
    SET(CURLOPT_XFERINFOFUNCTION, on_progress);
    SET(CURLOPT_XFERINFODATA, t);
    return code;
}

/* Runs the transfer to its end, or to one of our own limits. *ret_done: libcurl came to an end by itself. */
static CURLcode drive(lj_connection *c, transfer *t, bool *ret_done)
{
    int64_t end_ns = lj_clock_mono_ns() + total_timeout_ns(t);
    int running = 1;
    *ret_done = false;
    t->progress_ns = lj_clock_mono_ns();
    while (running > 0) {
        if (curl_multi_perform(c->multi, &running) != CURLM_OK)
            return CURLE_FAILED_INIT;
        if (running == 0)
            break;
        int64_t now_ns = lj_clock_mono_ns();
        t->cancelled = is_cancelled(t);
        t->stalled = now_ns - t->progress_ns >= t->http->stall_timeout_ns || now_ns >= end_ns;
        if (t->cancelled || t->stalled)
            return CURLE_ABORTED_BY_CALLBACK;
        int64_t left_ns =
            LJ_MIN(t->progress_ns + t->http->stall_timeout_ns - now_ns, end_ns - now_ns);
        curl_multi_poll(c->multi, NULL, 0, (int)LJ_MIN(ms_of(left_ns), (long)POLL_MS), NULL);
    }
    int left = 0;
    for (CURLMsg *message; (message = curl_multi_info_read(c->multi, &left)) != NULL;) {
        if (message->msg == CURLMSG_DONE) {
            *ret_done = true;
            return message->data.result;
        }
    }
    return CURLE_FAILED_INIT;
}

/* ---- errors ---- */

static lj_code unavailable(transfer *t, lj_code code, const char *what, const char *hint)
{
    lj_error_set(t->err, code, "%s: %s", t->where, what);
    if (hint != NULL)
        lj_error_hint(t->err, "%s", hint);
    return lj_error_retryable(t->err, true);
}

static const char *curl_text(const transfer *t, CURLcode code)
{
    return t->curl_message[0] != 0 ? t->curl_message : curl_easy_strerror(code);
}

static lj_code timed_out(transfer *t)
{
    char limit[LJ_CLOCK_TEXT_MAX];
    lj_clock_format_duration(t->http->stall_timeout_ns, limit);
    lj_error_set(t->err, LJ_TIMEOUT, "%s: no answer (nothing moved for %s)", t->where, limit);
    lj_error_hint(t->err, "the server or the network between is stuck; io_timeout sets the limit");
    return lj_error_retryable(t->err, true);
}

static lj_code too_large(transfer *t)
{
    lj_error_set(t->err, LJ_UNAVAILABLE, "%s: the answer is larger than %zu bytes", t->where,
                 t->response->body.max);
    return lj_error_retryable(t->err, true);
}

static lj_code transport_error(transfer *t, CURLcode code)
{
    if (t->code != LJ_OK)
        return t->code; /* the source's or the sink's own error is in *err */
    if (t->cancelled)
        return lj_error_set(t->err, LJ_CANCELLED, "%s: cancelled", t->where);
    if (t->too_large)
        return too_large(t);
    if (t->stalled)
        return timed_out(t);
    switch (code) {
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
        return unavailable(t, LJ_UNAVAILABLE, curl_text(t, code),
                           "check the host name in the replica's URL or endpoint, and the DNS");
    case CURLE_COULDNT_CONNECT:
        return unavailable(t, LJ_UNAVAILABLE, curl_text(t, code),
                           "check that the server runs and that nothing between blocks the port");
    case CURLE_OPERATION_TIMEDOUT:
        return unavailable(t, LJ_TIMEOUT, curl_text(t, code),
                           "check the network between; the connection could not be made in time");
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
        return unavailable(
            t, LJ_DENIED, curl_text(t, code),
            "name the file with the right CA certificates in SSL_CERT_FILE (S3 also: "
            "AWS_CA_BUNDLE)");
    case CURLE_OUT_OF_MEMORY:
        return lj_error_nomem(t->err);
    case CURLE_URL_MALFORMAT:
    case CURLE_UNSUPPORTED_PROTOCOL:
        return lj_error_set(t->err, LJ_INVALID, "%s: %s", t->where, curl_text(t, code));
    case CURLE_PARTIAL_FILE:
        return unavailable(t, LJ_UNAVAILABLE, "the answer ended before all its bytes had come",
                           NULL);
    case CURLE_GOT_NOTHING:
        return unavailable(t, LJ_UNAVAILABLE, "the connection was closed without an answer", NULL);
    default:
        return unavailable(t, LJ_UNAVAILABLE, curl_text(t, code), NULL);
    }
}

/* ---- performing ---- */

static lj_code make_headers(const lj_http_request *request, struct curl_slist **ret, lj_error *err)
{
    struct curl_slist *list = NULL;
    static const char *const ours[] = {"Expect:", "Accept:", NULL}; /* without a value: not sent */
    const char *const *sets[] = {ours, request->headers};
    for (size_t set = 0; set < LJ_ARRAY_LEN(sets); set++) {
        for (const char *const *header = sets[set]; header != NULL && *header != NULL; header++) {
            struct curl_slist *longer = curl_slist_append(list, *header);
            if (longer == NULL) {
                curl_slist_free_all(list);
                return lj_error_nomem(err);
            }
            list = longer;
        }
    }
    *ret = list;
    return LJ_OK;
}

static void wipe_headers(struct curl_slist *list)
{
    for (struct curl_slist *item = list; item != NULL; item = item->next)
        lj_wipe(item->data, strlen(item->data));
    curl_slist_free_all(list);
}

static void reset_response(lj_http_response *response, size_t body_max)
{
    lj_wipe(response->body.data, response->body.len);
    lj_buf_clear(&response->headers);
    lj_buf_clear(&response->body);
    response->headers.max = HEADERS_MAX;
    response->body.max = body_max > 0 ? body_max : BODY_MAX;
    response->status = 0;
    response->sunk = 0;
    response->sink_failed = false;
    response->source_failed = false;
    response->maybe_sent = false;
}

static lj_code run(lj_connection *c, transfer *t, struct curl_slist *headers)
{
    CURLcode code = set_all(c->easy, t, headers);
    if (code != CURLE_OK) {
        lj_pool_give(c, false);
        return lj_error_set(t->err, LJ_INTERNAL, "%s: libcurl: %s", t->where,
                            curl_easy_strerror(code));
    }
    bool done = false;
    if (curl_multi_add_handle(c->multi, c->easy) != CURLM_OK)
        code = CURLE_FAILED_INIT;
    else
        code = drive(c, t, &done);
    /* all of the body was handed on, and with it the headers before it */
    t->response->maybe_sent = t->sent == t->request->body_len && code != CURLE_COULDNT_CONNECT &&
                              code != CURLE_COULDNT_RESOLVE_HOST;
    lj_code result = code == CURLE_OK ? LJ_OK : transport_error(t, code);
    curl_multi_remove_handle(c->multi, c->easy);
    lj_pool_give(c, done && code == CURLE_OK);
    return result;
}

lj_code lj_http_perform(lj_http *http, const lj_http_request *request, lj_http_response *response,
                        lj_error *err)
{
    lj_error local = LJ_ERROR_INIT;
    transfer t = {.http = http, .request = request, .response = response};
    t.err = err != NULL ? err : &local;
    reset_response(response, request->body_max);
    if (is_cancelled(&t))
        return lj_error_set(t.err, LJ_CANCELLED, "cancelled");
    char origin[LJ_HTTP_ORIGIN_MAX];
    const char *host = NULL;
    split_origin(request->url, origin, sizeof(origin), &host);
    (void)snprintf(t.where, sizeof(t.where), "%s %.*s", request->method, URL_HOST_MAX, host);
    struct curl_slist *headers = NULL;
    LJ_TRY(make_headers(request, &headers, t.err));
    lj_connection *c = NULL;
    lj_code code = lj_pool_take(origin, &c, t.err);
    if (code == LJ_OK)
        code = run(c, &t, headers);
    wipe_headers(headers);
    return code;
}
