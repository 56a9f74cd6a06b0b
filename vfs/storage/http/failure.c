/*
 * failure.c - see transfer.h: what a transfer that failed means to the operator.
 *
 * Layer: storage.
 */
#include <string.h>

#include "vfs/base/clock.h"
#include "vfs/storage/http/transfer.h"

static lj_code transient(lj_transfer *t, lj_code code, const char *what, const char *hint)
{
    lj_error_set(t->err, code, "%s: %s", t->where, what);
    if (hint != NULL)
        lj_error_hint(t->err, "%s", hint);
    return lj_error_retryable(t->err, true);
}

/* libcurl's own words, unless there may be a URL in them: it shows that of a proxy with its password. */
static const char *curl_text(const lj_transfer *t, CURLcode code)
{
    const char *text = t->curl_message;
    bool shown = text[0] != 0 && strpbrk(text, "?@") == NULL && strstr(text, "://") == NULL;
    return shown ? text : curl_easy_strerror(code);
}

static lj_code timed_out(lj_transfer *t)
{
    char limit[LJ_CLOCK_TEXT_MAX];
    bool stalled = t->end == LJ_END_STALLED;
    lj_clock_format_duration(stalled ? t->http->stall_timeout_ns : lj_transfer_limit_ns(t), limit);
    lj_error_set(t->err, LJ_TIMEOUT, "%s: %s %s%s", t->where,
                 stalled ? "no answer (nothing moved for" : "the transfer took longer than", limit,
                 stalled ? ")" : "");
    lj_error_hint(t->err, "the server or the network between is stuck; io_timeout sets the limit");
    return lj_error_retryable(t->err, true);
}

/* The transfers that we ended. */
static lj_code ended(lj_transfer *t)
{
    switch (t->end) {
    case LJ_END_CANCELLED:
        return lj_error_set(t->err, LJ_CANCELLED, "%s: cancelled", t->where);
    case LJ_END_TOO_LARGE:
        lj_error_set(t->err, LJ_UNAVAILABLE, "%s: the answer is larger than %zu bytes", t->where,
                     t->response->body.max);
        return lj_error_retryable(t->err, true);
    case LJ_END_STALLED:
    case LJ_END_TOO_LONG:
        return timed_out(t);
    case LJ_END_REPEATED:
        return transient(t, LJ_UNAVAILABLE, "the connection was closed without an answer", NULL);
    case LJ_END_CALLBACK: /* the source's, the sink's or the buffer's own error is in *err */
    case LJ_END_NONE:
        break;
    }
    return t->code;
}

static lj_code refused(lj_transfer *t, CURLcode code)
{
    if (t->sys_errno == 0)
        lj_error_set(t->err, LJ_UNAVAILABLE, "%s: %s", t->where, curl_text(t, code));
    else
        lj_error_errno(t->err, t->sys_errno, "%s: %s", t->where, curl_text(t, code));
    t->err->code = LJ_UNAVAILABLE;
    lj_error_hint(t->err, "check that the server runs and that nothing between blocks the port");
    return lj_error_retryable(t->err, true);
}

lj_code lj_transfer_error(lj_transfer *t, CURLcode code)
{
    if (t->end != LJ_END_NONE)
        return ended(t);
    switch (code) {
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
        return transient(t, LJ_UNAVAILABLE, curl_text(t, code),
                         "check the host name in the replica's URL or endpoint, the proxy in the "
                         "environment, and the DNS");
    case CURLE_COULDNT_CONNECT:
        return refused(t, code);
    case CURLE_OPERATION_TIMEDOUT:
        return transient(t, LJ_TIMEOUT, curl_text(t, code),
                         "check the network between; the connection could not be made in time");
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
        return transient(t, LJ_DENIED, curl_text(t, code),
                         "name the file with the right CA certificates in SSL_CERT_FILE (S3 also: "
                         "AWS_CA_BUNDLE)");
    case CURLE_OUT_OF_MEMORY:
        if (t->response->status == 0)
            return lj_error_nomem(t->err);
        return transient(t, LJ_UNAVAILABLE, "the headers of the answer are too large", NULL);
    case CURLE_URL_MALFORMAT:
        return lj_error_set(t->err, LJ_INVALID, "%s: %s", t->where, curl_text(t, code));
    case CURLE_UNSUPPORTED_PROTOCOL: /* the scheme was looked at before */
        return transient(t, LJ_UNAVAILABLE, "what answers there does not speak HTTP", NULL);
    case CURLE_PARTIAL_FILE:
        return transient(t, LJ_UNAVAILABLE, "the answer ended before all its bytes had come", NULL);
    case CURLE_GOT_NOTHING:
        return transient(t, LJ_UNAVAILABLE, "the connection was closed without an answer", NULL);
    default:
        return transient(t, LJ_UNAVAILABLE, curl_text(t, code), NULL);
    }
}
