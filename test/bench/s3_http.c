/*
 * s3_http.c - see s3_http.h.
 */
#include "test/bench/s3_http.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "vfs/storage/url.h"

#define PIECE_BYTES   ((size_t)1024 * 1024)
#define COPY_BYTES    ((size_t)256 * 1024)
#define NOWHERE_BYTES ((size_t)64 * 1024) /* stays in the cache */

/* ---- sockets ---- */

static ssize_t receive(connection *c, void *out, size_t max)
{
    ssize_t n;
    do
        n = recv(c->fd, out, max, 0);
    while (n < 0 && errno == EINTR);
    if (n > 0)
        c->bytes_in += (uint64_t)n;
    return n;
}

static bool send_all(connection *c, const void *data, size_t len, int flags)
{
    const char *at = data;
    while (len > 0) {
        ssize_t n = send(c->fd, at, len, MSG_NOSIGNAL | flags);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        at += n;
        len -= (size_t)n;
        c->bytes_out += (uint64_t)n;
    }
    return true;
}

/* ---- the head of a request ---- */

static char *find_end(connection *c)
{
    return memmem(c->head, c->have, "\r\n\r\n", 4);
}

static bool read_head(connection *c, size_t *ret_len, int *ret_status)
{
    char *end;
    memmove(c->head, c->head + c->used, c->have - c->used);
    c->have -= c->used;
    c->used = 0;
    while ((end = find_end(c)) == NULL) {
        if (c->have == HEAD_MAX) {
            *ret_status = 431;
            return false;
        }
        ssize_t n = receive(c, c->head + c->have, HEAD_MAX - c->have);
        if (n <= 0)
            return false;
        c->have += (size_t)n;
    }
    *end = 0;
    *ret_len = (size_t)(end - c->head) + 4;
    return true;
}

static bool parse_range(const char *value, request *r)
{
    long long first = -1;
    long long last = -1;
    if (sscanf(value, "bytes=-%lld", &last) == 1 && last >= 0)
        first = -1;
    else if (sscanf(value, "bytes=%lld-%lld", &first, &last) < 1 || first < 0)
        return false;
    r->range_first = first;
    r->range_last = last;
    return true;
}

/* 0, or the status of a refusal. */
static int parse_header(connection *c, request *r, char *line)
{
    char *value = strchr(line, ':');
    if (value == NULL)
        return 400;
    *value++ = 0;
    value += strspn(value, " \t");
    if (strcasecmp(line, "Content-Length") == 0)
        r->length = strtoull(value, NULL, 10);
    else if (strcasecmp(line, "Range") == 0)
        r->has_range = parse_range(value, r);
    else if (strcasecmp(line, "If-None-Match") == 0)
        r->if_absent = strcmp(value, "*") == 0;
    else if (strcasecmp(line, "Connection") == 0)
        r->close = strcasecmp(value, "close") == 0;
    else if (strcasecmp(line, "Expect") == 0)
        c->awaits_continue = strcasecmp(value, "100-continue") == 0;
    bool streams =
        strcasecmp(line, "Transfer-Encoding") == 0 ||
        (strcasecmp(line, "x-amz-content-sha256") == 0 && strncmp(value, "STREAMING", 9) == 0);
    return streams ? 501 : 0;
}

/* "PUT /bucket/key?query HTTP/1.1" */
static int parse_target(request *r, char *line)
{
    char *target = strchr(line, ' ');
    char *end = target != NULL ? strrchr(line, ' ') : NULL;
    if (target == NULL || end == target || target[1] != '/')
        return 400;
    *target = 0;
    *end = 0;
    target += 2;
    char *query = strchr(target, '?');
    if (query != NULL)
        *query++ = 0;
    char *key = strchr(target, '/');
    size_t bucket = key != NULL ? (size_t)(key - target) : strlen(target);
    if (strlen(line) >= sizeof(r->method) || bucket >= sizeof(r->bucket) ||
        strlen(target) >= sizeof(r->name) || (query != NULL && strlen(query) >= sizeof(r->query)) ||
        !lj_url_decode(target, false))
        return 400;
    (void)snprintf(r->method, sizeof(r->method), "%s", line);
    (void)snprintf(r->name, sizeof(r->name), "%s", target);
    memcpy(r->bucket, target, bucket);
    if (key != NULL)
        (void)snprintf(r->key, sizeof(r->key), "%s", target + bucket + 1);
    if (query != NULL)
        (void)snprintf(r->query, sizeof(r->query), "%s", query);
    return 0;
}

bool http_read_request(connection *c, request *r, int *ret_status)
{
    size_t len = 0;
    memset(r, 0, sizeof(*r));
    *ret_status = 0;
    c->awaits_continue = false;
    if (!read_head(c, &len, ret_status))
        return false;
    char *rest = c->head;
    char *line = strsep(&rest, "\n");
    int status = parse_target(r, line);
    while (status == 0 && (line = strsep(&rest, "\n")) != NULL) {
        line[strcspn(line, "\r")] = 0;
        status = parse_header(c, r, line);
    }
    c->used = len;
    c->unread = r->length;
    *ret_status = status;
    return status == 0;
}

bool http_query(const request *r, const char *name, char *out, size_t size)
{
    size_t name_len = strlen(name);
    for (const char *at = r->query; *at != 0; at += *at == '&') {
        size_t len = strcspn(at, "&");
        bool same = len >= name_len && memcmp(at, name, name_len) == 0 &&
                    (len == name_len || at[name_len] == '=');
        if (same) {
            size_t start = len > name_len ? name_len + 1 : len;
            if (len - start >= size)
                return false;
            memcpy(out, at + start, len - start);
            out[len - start] = 0;
            return lj_url_decode(out, true);
        }
        at += len;
    }
    return false;
}

/* ---- the body of a request ---- */

static bool let_it_come(connection *c)
{
    static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";
    bool wait = c->awaits_continue;
    c->awaits_continue = false;
    return !wait || send_all(c, go_on, sizeof(go_on) - 1, 0);
}

/* Up to `max` bytes of the body: 0 at its end, -1 when it broke off. `out` NULL: forgets them. */
static ssize_t read_body(connection *c, void *out, size_t max)
{
    char nowhere[NOWHERE_BYTES];
    size_t want = (size_t)LJ_MIN((uint64_t)max, c->unread);
    if (want == 0)
        return 0;
    if (!let_it_come(c))
        return -1;
    ssize_t n = (ssize_t)LJ_MIN(c->have - c->used, want);
    if (n > 0) {
        if (out != NULL)
            memcpy(out, c->head + c->used, (size_t)n);
        c->used += (size_t)n;
    } else if (out != NULL) {
        n = receive(c, out, want);
    } else {
        n = receive(c, nowhere, LJ_MIN(want, sizeof(nowhere)));
    }
    if (n <= 0)
        return -1;
    c->unread -= (uint64_t)n;
    return n;
}

bool http_read_text(connection *c, lj_buf *out)
{
    while (c->unread > 0) {
        if (lj_buf_reserve(out, (size_t)LJ_MIN(c->unread, (uint64_t)COPY_BYTES), NULL) != LJ_OK)
            return false;
        ssize_t n = read_body(c, out->data + out->len, COPY_BYTES);
        if (n <= 0)
            return false;
        out->len += (size_t)n;
        out->data[out->len] = 0;
    }
    return true;
}

static bool write_all(int fd, const char *data, size_t len, uint64_t at)
{
    while (len > 0) {
        ssize_t n = pwrite(fd, data, len, (off_t)at);
        if (n <= 0)
            return false;
        data += n;
        len -= (size_t)n;
        at += (uint64_t)n;
    }
    return true;
}

bool http_read_blob(connection *c, blob *b)
{
    char data[COPY_BYTES];
    uint64_t at = 0;
    while (at < b->size) {
        bool memory = b->kind == BODY_MEMORY;
        void *to = memory ? (void *)(b->data + at) : b->kind == BODY_FILE ? data : NULL;
        ssize_t n = read_body(c, to, memory ? PIECE_BYTES : COPY_BYTES);
        if (n <= 0 || (b->kind == BODY_FILE && !write_all(b->fd, data, (size_t)n, at)))
            return false;
        at += (uint64_t)n;
    }
    return true;
}

bool http_skip_body(connection *c)
{
    if (c->awaits_continue) {
        c->unread = 0; /* it does not come */
        return true;
    }
    while (c->unread > 0)
        if (read_body(c, NULL, SIZE_MAX) <= 0)
            return false;
    return true;
}

/* ---- answers ---- */

static const char *reason(int status)
{
    switch (status) {
    case 200:
        return "OK";
    case 204:
        return "No Content";
    case 206:
        return "Partial Content";
    case 404:
        return "Not Found";
    case 412:
        return "Precondition Failed";
    case 416:
        return "Range Not Satisfiable";
    case 503:
        return "Service Unavailable";
    default:
        return status < 500 ? "Refused" : "Error";
    }
}

bool http_send(connection *c, const answer *a)
{
    char head[2048];
    int n = snprintf(head, sizeof(head),
                     "HTTP/1.1 %d %s\r\nServer: s3_server\r\nx-amz-request-id: %llx\r\n"
                     "Content-Length: %llu\r\n%s\r\n",
                     a->status, reason(a->status), (unsigned long long)store_next_id(),
                     (unsigned long long)a->length, a->headers);
    if (n < 0 || (size_t)n >= sizeof(head))
        return false;
    bool follows = !a->no_body && a->length > 0;
    return send_all(c, head, (size_t)n, follows ? MSG_MORE : 0) &&
           (!follows || a->body == NULL || send_all(c, a->body, (size_t)a->length, 0));
}

static bool send_file(connection *c, int fd, uint64_t first, uint64_t length)
{
    off_t at = (off_t)first;
    while (length > 0) {
        ssize_t n = sendfile(c->fd, fd, &at, (size_t)LJ_MIN(length, (uint64_t)INT32_MAX));
        if (n <= 0)
            return false;
        length -= (uint64_t)n;
        c->bytes_out += (uint64_t)n;
    }
    return true;
}

bool http_send_object(connection *c, const object *o, uint64_t first, uint64_t length)
{
    uint64_t start = 0; /* of the blob */
    for (size_t i = 0; i < o->blob_count && length > 0; i++) {
        const blob *b = o->blobs[i];
        if (first < start + b->size) {
            uint64_t skip = first - start;
            uint64_t n = LJ_MIN(b->size - skip, length);
            bool sent = b->kind == BODY_MEMORY ? send_all(c, b->data + skip, (size_t)n, 0)
                                               : send_file(c, b->fd, skip, n);
            if (!sent)
                return false;
            first += n;
            length -= n;
        }
        start += b->size;
    }
    return length == 0;
}
