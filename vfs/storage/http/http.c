/*
 * http.c - see http.h: the options of a lj_http, and a request from its headers to its end.
 *
 * Layer: storage. Thread-safety: a lj_http is constant after it was made.
 */
#include "vfs/storage/http/http.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "vfs/base/cancel.h"
#include "vfs/base/secret.h"
#include "vfs/base/str.h"
#include "vfs/storage/http/guard.h"
#include "vfs/storage/http/transfer.h"

#define CONNECT_TIMEOUT_NS (10 * LJ_NS_PER_S)
#define STALL_TIMEOUT_NS   (30 * LJ_NS_PER_S)
#define BODY_MAX           ((size_t)1024 * 1024)
#define HEADERS_MAX        ((size_t)256 * 1024)

/* ---- making ---- */

void lj_http_prepare(void)
{
    lj_guard_prepare();
    lj_pool_prepare();
}

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

/* libcurl's names. A CGI program gets HTTP_PROXY from its client: there the upper case name is not taken. */
static lj_code read_proxies(lj_http *http, lj_error *err)
{
    static const char *const plain[] = {"http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", NULL};
    static const char *const cgi[] = {"http_proxy", "all_proxy", "ALL_PROXY", NULL};
    static const char *const tls[] = {"https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", NULL};
    static const char *const none[] = {"no_proxy", "NO_PROXY", NULL};
    bool in_cgi = getenv("REQUEST_METHOD") != NULL;
    LJ_TRY(copy_text(&http->http_proxy, first_set(in_cgi ? cgi : plain), err));
    LJ_TRY(copy_text(&http->https_proxy, first_set(tls), err));
    return copy_text(&http->no_proxy, first_set(none), err);
}

static lj_code read_environment(lj_http *http, const char *ca_file, lj_error *err)
{
    static const char *const ca_files[] = {"CURL_CA_BUNDLE", "SSL_CERT_FILE", NULL};
    bool given = ca_file != NULL && ca_file[0] != 0; /* then no other file or folder is trusted */
    LJ_TRY(copy_text(&http->ca_file, given ? ca_file : first_set(ca_files), err));
    LJ_TRY(copy_text(&http->ca_path, given ? NULL : getenv("SSL_CERT_DIR"), err));
    return read_proxies(http, err);
}

lj_code lj_http_new(const lj_http_options *options, lj_http **ret_http, lj_error *err)
{
    LJ_TRY(lj_pool_open(err));
    lj_http *http = calloc(1, sizeof(*http));
    if (http == NULL) {
        lj_pool_close();
        return lj_error_nomem(err);
    }
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
    lj_wipe_freep(&http->http_proxy);
    lj_wipe_freep(&http->https_proxy);
    free(http->no_proxy);
    free(http);
    lj_pool_close();
}

void lj_http_response_free(lj_http_response *response)
{
    lj_wipe(response->body.data, response->body.len); /* credential services answer with secrets */
    lj_buf_free(&response->headers);
    lj_buf_free(&response->body);
}

/* ---- performing ---- */

/* "scheme://host:port" of a URL, and "host:port" for messages. A userinfo, path or query never gets there. */
static void split_origin(const char *url, char *origin, size_t origin_size, const char **ret_host)
{
    const char *host = strstr(url, "://");
    host = host != NULL ? host + 3 : url;
    const char *end = host + strcspn(host, "/?#");
    for (const char *c = host; c < end; c++)
        if (*c == '@')
            host = c + 1;
    size_t len = (size_t)(end - host);
    bool tls = strncasecmp(url, "https:", 6) == 0;
    size_t scheme = tls ? 8 : 7;
    len = LJ_MIN(len, origin_size - scheme - 1);
    memcpy(origin, tls ? "https://" : "http://", scheme);
    memcpy(origin + scheme, host, len);
    origin[scheme + len] = 0;
    *ret_host = origin + scheme;
}

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

static lj_code run(lj_connection *c, lj_transfer *t, struct curl_slist *headers)
{
    lj_guard guard;
    bool done = false;
    CURLcode code = lj_transfer_set(t, c, headers);
    if (code != CURLE_OK) {
        lj_pool_give(c, false);
        return lj_error_set(t->err, LJ_INTERNAL, "%s: libcurl: %s", t->where,
                            curl_easy_strerror(code));
    }
    t->handed_on = t->request->body_len == 0;
    if (curl_multi_add_handle(c->multi, c->easy) != CURLM_OK)
        code = CURLE_FAILED_INIT;
    else
        code = lj_transfer_run(t, c, &done);
    long sys_errno = 0;
    if (code == CURLE_COULDNT_CONNECT &&
        curl_easy_getinfo(c->easy, CURLINFO_OS_ERRNO, &sys_errno) == CURLE_OK)
        t->sys_errno = (int)sys_errno;
    t->response->maybe_sent = t->attempts > 0 && t->handed_on;
    lj_code result = code == CURLE_OK ? LJ_OK : lj_transfer_error(t, code);
    lj_guard_begin(&guard);
    curl_multi_remove_handle(c->multi, c->easy);
    lj_guard_end(&guard);
    lj_pool_give(c, done && code == CURLE_OK);
    return result;
}

static lj_code perform(lj_transfer *t)
{
    char origin[LJ_HTTP_ORIGIN_MAX];
    const char *host = NULL;
    const lj_http_request *request = t->request;
    if (strncasecmp(request->url, "http://", 7) != 0 &&
        strncasecmp(request->url, "https://", 8) != 0)
        return lj_error_set(t->err, LJ_INVALID, "%s: the URL is not one of HTTP", request->method);
    split_origin(request->url, origin, sizeof(origin), &host);
    (void)snprintf(t->where, sizeof(t->where), "%s %.*s", request->method, LJ_HTTP_HOST_MAX, host);
    struct curl_slist *headers = NULL;
    LJ_TRY(make_headers(request, &headers, t->err));
    lj_connection *c = NULL;
    lj_code code = lj_pool_take(origin, &c, t->err);
    if (code == LJ_OK)
        code = run(c, t, headers);
    wipe_headers(headers);
    return code;
}

lj_code lj_http_perform(lj_http *http, const lj_http_request *request, lj_http_response *response,
                        lj_error *err)
{
    lj_error local = LJ_ERROR_INIT;
    lj_transfer t = {.http = http, .request = request, .response = response};
    t.err = err != NULL ? err : &local;
    reset_response(response, request->body_max);
    if (lj_cancel_requested(http->cancel) || !lj_guard_enter())
        return lj_error_set(t.err, LJ_CANCELLED, "cancelled");
    lj_code code = perform(&t);
    if (response->status >= 300)
        lj_http_mask_sent(request, &response->body);
    lj_guard_leave();
    return code;
}
