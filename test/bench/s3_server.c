/*
 * s3_server.c - a small and fast S3 server for benchmarks and fault tests: path style, any bucket, no signature is checked.
 *
 *     s3_server [--port N] [--delay-ms N] [--folder DIR] [--discard PREFIX]
 *
 * Prints "listening on PORT" when it is ready, and serves until it is killed. Bodies are in memory, with --folder in files
 * without a name there; those of keys that begin with PREFIX (of the key, without the bucket) are counted and thrown away, and
 * cannot be read. --delay-ms is added to every request, others go on meanwhile. ETags are numbers, not hashes.
 *
 *     GET  /_stats                        counters as JSON
 *     POST /_control?delay_ms=N           another delay
 *     POST /_control?fail=N&status=503    the next N requests are answered so, after their body was read and forgotten
 *
 * One thread per connection.
 */
#include "test/bench/s3_server.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "vfs/base/clock.h"
#include "vfs/base/str.h"

#define STACK_BYTES ((size_t)1024 * 1024)
#define BACKLOG     1024

server_state server;

void server_delay(void)
{
    unsigned ms = atomic_load(&server.delay_ms);
    if (ms > 0)
        lj_clock_sleep_ns(ms * LJ_NS_PER_MS);
}

/* ---- answers ---- */

bool send_error(connection *c, const request *r, int status, const char *code)
{
    char xml[512];
    int n = snprintf(xml, sizeof(xml),
                     "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>%s</Code>"
                     "<Message>s3_server says so</Message></Error>",
                     code);
    answer a = {.status = status,
                .headers = "Content-Type: application/xml\r\n",
                .body = xml,
                .length = (uint64_t)n,
                .no_body = strcmp(r->method, "HEAD") == 0};
    if (status != 404 && status != 412)
        atomic_fetch_add(&server.failures, 1);
    return http_skip_body(c) && http_send(c, &a);
}

bool send_xml(connection *c, const request *r, const lj_buf *xml)
{
    answer a = {.status = 200,
                .headers = "Content-Type: application/xml\r\n",
                .body = lj_buf_text(xml),
                .length = xml->len,
                .no_body = strcmp(r->method, "HEAD") == 0};
    return http_send(c, &a);
}

static bool send_stats(connection *c, const request *r)
{
    static const char *const names[] = {
#define X(name) #name,
        REQUEST_KINDS(X)
#undef X
    };
    uint64_t objects = 0;
    uint64_t bytes = 0;
    char requests[1024] = "";
    char json[2048];
    size_t used = 0;
    for (size_t i = 0; i < KIND_COUNT; i++)
        used += (size_t)snprintf(requests + used, sizeof(requests) - used, "%s\"%s\": %llu",
                                 i > 0 ? ", " : "", names[i],
                                 (unsigned long long)atomic_load(&server.requests[i]));
    store_numbers(&objects, &bytes);
    int n =
        snprintf(json, sizeof(json),
                 "{\"requests\": {%s}, \"failures\": %llu, \"connections\": {\"open\": %llu, "
                 "\"accepted\": %llu}, \"bytes_in\": %llu, \"bytes_out\": %llu, \"objects\": %llu, "
                 "\"object_bytes\": %llu, \"uploads_open\": %llu}\n",
                 requests, (unsigned long long)atomic_load(&server.failures),
                 (unsigned long long)atomic_load(&server.open),
                 (unsigned long long)atomic_load(&server.accepted),
                 (unsigned long long)atomic_load(&server.bytes_in),
                 (unsigned long long)atomic_load(&server.bytes_out), (unsigned long long)objects,
                 (unsigned long long)bytes, (unsigned long long)uploads_open());
    answer a = {.status = 200,
                .headers = "Content-Type: application/json\r\n",
                .body = json,
                .length = (uint64_t)n,
                .no_body = strcmp(r->method, "HEAD") == 0};
    return http_send(c, &a);
}

static bool set_number(const request *r, const char *name, atomic_uint *to)
{
    char text[16];
    uint64_t n = 0;
    if (!http_query(r, name, text, sizeof(text)))
        return true;
    if (!lj_str_u64(text, &n) || n > UINT32_MAX)
        return false;
    atomic_store(to, (unsigned)n);
    return true;
}

bool answer_control(connection *c, const request *r)
{
    if (!http_skip_body(c))
        return false;
    if (strcmp(r->bucket, "_stats") == 0)
        return send_stats(c, r);
    if (strcmp(r->bucket, "_control") != 0 || strcmp(r->method, "POST") != 0 ||
        !set_number(r, "delay_ms", &server.delay_ms) ||
        !set_number(r, "status", &server.fail_status) || !set_number(r, "fail", &server.fail_count))
        return send_error(c, r, 400, "InvalidArgument");
    return send_stats(c, r);
}

/* ---- connections ---- */

/* Takes one of the failures that were ordered. */
static bool is_to_fail(void)
{
    unsigned left = atomic_load(&server.fail_count);
    while (left > 0)
        if (atomic_compare_exchange_weak(&server.fail_count, &left, left - 1))
            return true;
    return false;
}

static bool answer_request(connection *c, const request *r)
{
    char text[QUERY_MAX];
    if (r->bucket[0] == '_')
        return answer_control(c, r);
    if (is_to_fail()) {
        server_delay();
        return send_error(c, r, (int)atomic_load(&server.fail_status), "SlowDown");
    }
    if (r->key[0] == 0)
        return answer_bucket(c, r);
    if (http_query(r, "uploads", text, sizeof(text)) ||
        http_query(r, "uploadId", text, sizeof(text)))
        return answer_upload(c, r);
    return answer_object(c, r);
}

static void *serve(void *ctx)
{
    connection *c = ctx;
    request r;
    int status = 0;
    bool go_on = true;
    while (go_on && http_read_request(c, &r, &status)) {
        go_on = answer_request(c, &r) && !r.close;
        atomic_fetch_add(&server.bytes_in, c->bytes_in);
        atomic_fetch_add(&server.bytes_out, c->bytes_out);
        c->bytes_in = 0;
        c->bytes_out = 0;
    }
    if (status != 0) {
        c->unread = 0;
        (void)send_error(c, &r, status, "InvalidRequest");
    }
    shutdown(c->fd, SHUT_WR);
    close(c->fd);
    free(c);
    atomic_fetch_sub(&server.open, 1);
    return NULL;
}

static void take_connection(int fd, const pthread_attr_t *attr)
{
    pthread_t thread;
    connection *c = malloc(sizeof(*c));
    if (c == NULL) {
        close(fd);
        return;
    }
    c->fd = fd;
    c->have = 0;
    c->used = 0;
    c->unread = 0;
    c->bytes_in = 0;
    c->bytes_out = 0;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    atomic_fetch_add(&server.accepted, 1);
    atomic_fetch_add(&server.open, 1);
    if (pthread_create(&thread, attr, serve, c) != 0) {
        atomic_fetch_sub(&server.open, 1);
        close(fd);
        free(c);
    }
}

static int listen_on(unsigned port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    socklen_t len = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int));
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) != 0 ||
        listen(fd, BACKLOG) != 0 || getsockname(fd, (struct sockaddr *)&address, &len) != 0) {
        perror("s3_server: cannot listen");
        return -1;
    }
    printf("listening on %u\n", ntohs(address.sin_port));
    fflush(stdout);
    return fd;
}

static int usage(void)
{
    fprintf(stderr,
            "usage: s3_server [--port N] [--delay-ms N] [--folder DIR] [--discard PREFIX]\n");
    return 2;
}

int main(int argc, char **argv)
{
    uint64_t port = 0;
    uint64_t delay_ms = 0;
    const char *folder = NULL;
    for (int i = 1; i < argc; i += 2) {
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (value == NULL)
            return usage();
        if (strcmp(argv[i], "--folder") == 0)
            folder = value;
        else if (strcmp(argv[i], "--discard") == 0)
            server.discard_prefix = value;
        else if ((strcmp(argv[i], "--port") != 0 || !lj_str_u64(value, &port)) &&
                 (strcmp(argv[i], "--delay-ms") != 0 || !lj_str_u64(value, &delay_ms)))
            return usage();
    }
    store_init(folder);
    atomic_store(&server.delay_ms, (unsigned)delay_ms);
    atomic_store(&server.fail_status, 503);
    signal(SIGPIPE, SIG_IGN); /* sendfile has no MSG_NOSIGNAL */
    int listener = listen_on((unsigned)port);
    if (listener < 0)
        return 1;
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attr, STACK_BYTES);
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        if (fd >= 0)
            take_connection(fd, &attr);
    }
}
