/*
 * transfer.c - see transfer.h: what libcurl is told, what it calls, and the loop around it.
 *
 * The transfer is driven by our own loop (curl_multi), so that it can be cancelled at any time and so that a stall is
 * measured without the time spent in the caller's source and sink.
 *
 * HTTP/2 where a TLS server offers it. Every connection carries one request at a time all the same: a request belongs to one
 * thread, and libcurl's connections cannot be shared between threads.
 *
 * Layer: storage.
 */
#include "vfs/storage/http/transfer.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "vfs/base/aside.h"
#include "vfs/base/cancel.h"
#include "vfs/base/clock.h"
#include "vfs/storage/http/guard.h"

#define SLOWEST_BYTES_PER_S 16384
#define STALLS_IN_TOTAL     10
#define POLL_MS             100
#define BUFFER_BYTES        ((long)128 * 1024)
#define IDLE_MAX_S          60L

/* ---- what libcurl calls ---- */

/* The source or the sink is done, and its time is nobody's stall. */
static void came_back(lj_transfer *t, int64_t since_ns)
{
    t->progress_ns = lj_clock_mono_ns();
    t->outside_ns += t->progress_ns - since_ns;
    t->queued = -1;
}

static void end_by(lj_transfer *t, lj_http_end end, lj_code code)
{
    t->end = end;
    t->code = code;
}

static lj_code read_source(lj_transfer *t, char *out, size_t max, size_t *ret_n)
{
    const lj_http_request *r = t->request;
    int64_t since_ns = lj_clock_mono_ns();
    lj_code code = r->source->read(r->source->ctx, out, max, ret_n, t->err);
    came_back(t, since_ns);
    if (code == LJ_OK && *ret_n == 0) {
        code =
            lj_error_set(t->err, LJ_IO, "the source ended after %" PRIu64 " of %" PRIu64 " bytes",
                         t->sent, r->body_len);
        lj_error_retryable(t->err, true);
    }
    return code;
}

static size_t on_read(char *out, size_t size, size_t count, void *ctx)
{
    lj_transfer *t = ctx;
    const lj_http_request *r = t->request;
    size_t max = (size_t)LJ_MIN((uint64_t)(size * count), r->body_len - t->sent);
    size_t n = max;
    if (max == 0)
        return 0;
    lj_aside();
    if (r->source == NULL) {
        memcpy(out, (const char *)r->body + t->sent, max);
    } else {
        n = 0;
        lj_code code = read_source(t, out, max, &n);
        if (code != LJ_OK) {
            end_by(t, LJ_END_CALLBACK, code);
            t->response->source_failed = true;
            return CURL_READFUNC_ABORT;
        }
    }
    t->sent += n;
    t->handed_on |= t->sent == r->body_len;
    return n;
}

/* libcurl begins the body again: a kept connection turned out to be closed, or a proxy wants to be asked first. */
static int on_seek(void *ctx, curl_off_t offset, int origin)
{
    lj_transfer *t = ctx;
    if (origin != SEEK_SET || offset < 0 || (uint64_t)offset > t->request->body_len)
        return CURL_SEEKFUNC_CANTSEEK;
    lj_source *source = t->request->source;
    if (source != NULL) {
        lj_code code = offset == 0 ? source->rewind(source->ctx, t->err) : LJ_UNSUPPORTED;
        if (offset == 0 && code != LJ_OK) {
            end_by(t, LJ_END_CALLBACK, code);
            t->response->source_failed = true;
        }
        if (code != LJ_OK)
            return CURL_SEEKFUNC_FAIL;
    }
    t->sent = (uint64_t)offset;
    return CURL_SEEKFUNC_OK;
}

static bool is_safe(const char *method)
{
    return strcmp(method, "GET") == 0 || strcmp(method, "HEAD") == 0 ||
           strcmp(method, "DELETE") == 0;
}

/*
 * The connection is there and the request is about to be sent. libcurl comes here again when a kept connection broke before a
 * byte of the answer: the server may have closed it unread, or died with the work done, which only the caller can find out.
 */
static int on_request(void *ctx, char *to_ip, char *from_ip, int to_port, int from_port)
{
    (void)to_ip, (void)from_ip, (void)to_port, (void)from_port;
    lj_transfer *t = ctx;
    if (++t->attempts > 1 && t->handed_on && !is_safe(t->request->method)) {
        end_by(t, LJ_END_REPEATED, LJ_UNAVAILABLE);
        return CURL_PREREQFUNC_ABORT;
    }
    t->progress_ns = lj_clock_mono_ns();
    t->queued = -1;
    return CURL_PREREQFUNC_OK;
}

static bool goes_to_sink(const lj_transfer *t)
{
    return t->request->sink != NULL && t->response->status >= 200 && t->response->status < 300;
}

static size_t to_sink(lj_transfer *t, const char *data, size_t len)
{
    int64_t since_ns = lj_clock_mono_ns();
    lj_code code = t->request->sink->write(t->request->sink->ctx, data, len, t->err);
    came_back(t, since_ns);
    if (code != LJ_OK) {
        end_by(t, LJ_END_CALLBACK, code);
        t->response->sink_failed = true;
        return 0;
    }
    t->response->sunk += len;
    return len;
}

static size_t on_write(char *data, size_t size, size_t count, void *ctx)
{
    lj_transfer *t = ctx;
    size_t len = size * count;
    lj_http_response *response = t->response;
    if (goes_to_sink(t))
        return to_sink(t, data, len);
    size_t room = response->body.max - response->body.len;
    if (len > room && response->status < 400) {
        end_by(t, LJ_END_TOO_LARGE, LJ_UNAVAILABLE);
        return 0;
    }
    lj_code code = lj_buf_append(&response->body, data, LJ_MIN(len, room), t->err);
    if (code != LJ_OK) {
        end_by(t, LJ_END_CALLBACK, code);
        return 0;
    }
    return len;
}

/* The number in "HTTP/1.1 200 OK"; 0 when there is none. */
static int status_in(const char *line, size_t len)
{
    const char *space = memchr(line, ' ', len);
    int status = 0;
    if (space == NULL)
        return 0;
    for (const char *c = space + 1; c < line + len && c <= space + 3 && isdigit((unsigned char)*c);
         c++)
        status = 10 * status + (*c - '0');
    return status;
}

/* "HTTP/1.1 200 OK" begins an answer (also behind a 100), everything else is a header. */
static size_t on_header(char *data, size_t size, size_t count, void *ctx)
{
    lj_transfer *t = ctx;
    size_t len = size * count;
    lj_buf *headers = &t->response->headers;
    t->progress_ns = lj_clock_mono_ns();
    if (len > 5 && strncasecmp(data, "HTTP/", 5) == 0) {
        t->response->status = status_in(data, len);
        lj_buf_clear(headers);
        t->has_headers = false;
        return len;
    }
    size_t kept = len;
    while (kept > 0 && isspace((unsigned char)data[kept - 1]))
        kept--;
    t->has_headers |= kept == 0 && t->response->status >= 200;
    const char *colon = kept > 0 ? memchr(data, ':', kept) : NULL;
    if (colon == NULL || headers->len + kept + 1 > headers->max)
        return len;
    size_t start = headers->len;
    if (lj_buf_reserve(headers, kept + 1, NULL) != LJ_OK ||
        lj_buf_append(headers, data, kept, NULL) != LJ_OK ||
        lj_buf_append(headers, "\n", 1, NULL) != LJ_OK)
        return len;
    for (size_t i = start; i < start + (size_t)(colon - data); i++)
        headers->data[i] = (uint8_t)tolower(headers->data[i]);
    return len;
}

static int on_progress(void *ctx, curl_off_t down_total, curl_off_t down, curl_off_t up_total,
                       curl_off_t up)
{
    (void)up_total;
    lj_transfer *t = ctx;
    t->announced = down_total > 0 ? (uint64_t)down_total : 0;
    if ((uint64_t)down != t->down || (uint64_t)up != t->up) {
        t->down = (uint64_t)down;
        t->up = (uint64_t)up;
        t->progress_ns = lj_clock_mono_ns();
        t->queued = -1;
    }
    return 0;
}

/* ---- options ---- */

/* Every setopt result is collected: an option this libcurl does not know must not be ignored. */
#define SET(option, value)                                                                         \
    do {                                                                                           \
        CURLcode set_code_ = curl_easy_setopt(easy, option, value);                                \
        if (set_code_ != CURLE_OK && code == CURLE_OK)                                             \
            code = set_code_;                                                                      \
    } while (0)

static CURLcode set_body(CURL *easy, lj_transfer *t)
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

static CURLcode set_security(CURL *easy, const lj_transfer *t)
{
    CURLcode code = CURLE_OK;
    const lj_http *http = t->http;
    SET(CURLOPT_PROTOCOLS_STR, "http,https");
    SET(CURLOPT_FOLLOWLOCATION, 0L);
    SET(CURLOPT_SSL_VERIFYPEER, http->skip_verify ? 0L : 1L);
    SET(CURLOPT_SSL_VERIFYHOST, http->skip_verify ? 0L : 2L);
    if (http->ca_file != NULL || http->ca_path != NULL) { /* instead of the system's */
        SET(CURLOPT_CAINFO, http->ca_file);
        SET(CURLOPT_CAPATH, http->ca_path);
        SET(CURLOPT_PROXY_CAINFO, http->ca_file);
        SET(CURLOPT_PROXY_CAPATH, http->ca_path);
    }
    /* both always set, so that libcurl reads no environment while the host's threads may be changing it */
    bool tls = strncasecmp(t->request->url, "https:", 6) == 0;
    const char *proxy = tls ? http->https_proxy : http->http_proxy;
    SET(CURLOPT_PROXY, proxy != NULL && !t->request->no_proxy ? proxy : "");
    SET(CURLOPT_NOPROXY, http->no_proxy != NULL ? http->no_proxy : "");
    SET(CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
    return code;
}

static long ms_of(int64_t ns)
{
    int64_t ms = (ns + LJ_NS_PER_MS - 1) / LJ_NS_PER_MS;
    return (long)LJ_MAX(LJ_MIN(ms, (int64_t)INT32_MAX), INT64_C(1));
}

static CURLcode set_callbacks(CURL *easy, lj_transfer *t)
{
    CURLcode code = CURLE_OK;
    SET(CURLOPT_ERRORBUFFER, t->curl_message);
    SET(CURLOPT_PREREQFUNCTION, on_request);
    SET(CURLOPT_PREREQDATA, t);
    SET(CURLOPT_WRITEFUNCTION, on_write);
    SET(CURLOPT_WRITEDATA, t);
    SET(CURLOPT_HEADERFUNCTION, on_header);
    SET(CURLOPT_HEADERDATA, t);
    SET(CURLOPT_NOPROGRESS, 0L);
    SET(CURLOPT_XFERINFOFUNCTION, on_progress);
    SET(CURLOPT_XFERINFODATA, t);
    return code;
}

static CURLcode first_error(CURLcode a, CURLcode b)
{
    return a != CURLE_OK ? a : b;
}

CURLcode lj_transfer_set(lj_transfer *t, lj_connection *c, struct curl_slist *headers)
{
    CURL *easy = c->easy;
    CURLcode code = lj_guard_sockets(easy, &c->sockets);
    code = first_error(code, set_body(easy, t));
    code = first_error(code, set_security(easy, t));
    code = first_error(code, set_callbacks(easy, t));
    int64_t connect_ns = t->request->connect_timeout_ns > 0 ? t->request->connect_timeout_ns
                                                            : t->http->connect_timeout_ns;
    SET(CURLOPT_NOSIGNAL, 1L);
    SET(CURLOPT_QUICK_EXIT, 1L); /* who gives up does not wait for a resolver that hangs */
    SET(CURLOPT_URL, t->request->url);
    SET(CURLOPT_PATH_AS_IS, 1L);
    SET(CURLOPT_HTTPHEADER, headers);
    SET(CURLOPT_USERAGENT, "litejoin-vfs/" LITEJOIN_VERSION);
    SET(CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_2TLS);
    SET(CURLOPT_BUFFERSIZE, BUFFER_BYTES);
    SET(CURLOPT_UPLOAD_BUFFERSIZE, BUFFER_BYTES);
    SET(CURLOPT_TCP_NODELAY, 1L);
    SET(CURLOPT_TCP_KEEPALIVE, 1L);
    SET(CURLOPT_MAXAGE_CONN, IDLE_MAX_S);
    SET(CURLOPT_CONNECTTIMEOUT_MS, ms_of(connect_ns));
    return code;
}

/* ---- the loop ---- */

/*
 * With no limit given: ten stalls, and time for all bytes of both bodies at a slow modem's pace. As much as moved counts where
 * the size was not known before.
 */
int64_t lj_transfer_limit_ns(const lj_transfer *t)
{
    const lj_http_request *r = t->request;
    if (r->total_timeout_ns > 0)
        return r->total_timeout_ns;
    uint64_t expected = r->expected_bytes > 0 ? (uint64_t)r->expected_bytes : 0;
    uint64_t down = LJ_MAX(LJ_MAX(expected, t->announced), t->down);
    uint64_t bytes = LJ_MIN(r->body_len, UINT64_C(1) << 50) + LJ_MIN(down, UINT64_C(1) << 50);
    return STALLS_IN_TOTAL * t->http->stall_timeout_ns +
           (int64_t)(bytes / SLOWEST_BYTES_PER_S) * LJ_NS_PER_S;
}

/* A slow line empties the kernel's send queue (megabytes) long after libcurl gave it the last byte: that is progress too. */
static void watch_queue(lj_transfer *t, const lj_connection *c)
{
    if (t->request->body_len == 0)
        return;
    int queued = lj_guard_queued(&c->sockets);
    if (queued < t->queued)
        t->progress_ns = lj_clock_mono_ns();
    t->queued = queued;
}

/* True when a limit of ours was reached; else for how long to wait at most. */
static bool at_an_end(lj_transfer *t, int *ret_wait_ms)
{
    int64_t now_ns = lj_clock_mono_ns();
    int64_t stall_ns = t->progress_ns + t->http->stall_timeout_ns - now_ns;
    int64_t total_ns = t->start_ns + t->outside_ns + lj_transfer_limit_ns(t) - now_ns;
    if (lj_cancel_requested(t->http->cancel) || lj_guard_stopping())
        end_by(t, LJ_END_CANCELLED, LJ_CANCELLED);
    else if (stall_ns <= 0)
        end_by(t, LJ_END_STALLED, LJ_TIMEOUT);
    else if (total_ns <= 0)
        end_by(t, LJ_END_TOO_LONG, LJ_TIMEOUT);
    *ret_wait_ms = (int)LJ_MIN(ms_of(LJ_MIN(stall_ns, total_ns)), (long)POLL_MS);
    return t->end != LJ_END_NONE;
}

CURLcode lj_transfer_run(lj_transfer *t, lj_connection *c, bool *ret_done)
{
    int running = 1;
    t->start_ns = lj_clock_mono_ns();
    t->progress_ns = t->start_ns;
    t->queued = -1;
    *ret_done = false;
    for (;;) {
        lj_guard guard;
        lj_guard_begin(&guard);
        CURLMcode code = curl_multi_perform(c->multi, &running);
        lj_guard_end(&guard);
        if (code != CURLM_OK)
            return CURLE_FAILED_INIT;
        if (running == 0)
            break;
        int wait_ms = 0;
        watch_queue(t, c);
        if (at_an_end(t, &wait_ms))
            return CURLE_ABORTED_BY_CALLBACK;
        curl_multi_poll(c->multi, NULL, 0, wait_ms, NULL);
    }
    int left = 0;
    for (CURLMsg *message; (message = curl_multi_info_read(c->multi, &left)) != NULL;) {
        if (message->msg == CURLMSG_DONE) {
            CURLcode result = message->data.result;
            *ret_done = true;
            /* to libcurl that is an answer */
            return result == CURLE_OK && !t->has_headers ? CURLE_PARTIAL_FILE : result;
        }
    }
    return CURLE_FAILED_INIT;
}
