/* server.c - see server.h. */
#include "test/unit/storage/http/server.h"

#include "test/unit/unit.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "test/unit/storage/http/certificate.h"
#include "vfs/base/buf.h"
#include "vfs/base/clock.h"

#define POLL_MS      10
#define HEAD_MAX     65536u
#define RECEIVED_MAX ((size_t)64 * 1024 * 1024)
#define ECHO_MAX     ((size_t)1024 * 1024)
#define WORKERS_MAX  64

typedef struct {
    http_server *server;
    int fd;
    SSL *ssl; /* NULL without TLS */
} peer;

struct http_server {
    int listener;
    unsigned port;
    const server_step *steps; /* NULL: echo */
    size_t count;
    unsigned delay_ms;
    unsigned bytes_per_pause; /* 0: read as fast as possible, and echo */
    unsigned pause_ms;
    certificate *certificate; /* NULL: no TLS */
    char url[512];
    pthread_t thread;
    pthread_t workers[WORKERS_MAX];
    unsigned worker_count;
    atomic_bool stop;
    atomic_uint accepted;
    atomic_size_t done;
    pthread_mutex_t mutex; /* guards `received` */
    lj_buf received;
};

/* ---- bytes ---- */

static void sleep_ms(const http_server *s, unsigned ms)
{
    int64_t end_ns = lj_clock_mono_ns() + ms * LJ_NS_PER_MS;
    while (!atomic_load(&s->stop) && lj_clock_mono_ns() < end_ns)
        lj_clock_sleep_ns(LJ_MIN(end_ns - lj_clock_mono_ns(), POLL_MS * LJ_NS_PER_MS));
}

static bool wait_readable(const http_server *s, int fd)
{
    while (!atomic_load(&s->stop)) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        if (poll(&p, 1, POLL_MS) > 0)
            return true;
    }
    return false;
}

/* -1: the other side has gone, or the server is being stopped. */
static ssize_t get_bytes(peer *p, void *data, size_t max)
{
    if ((p->ssl == NULL || SSL_pending(p->ssl) == 0) && !wait_readable(p->server, p->fd))
        return -1;
    ssize_t n = p->ssl != NULL ? SSL_read(p->ssl, data, (int)max) : recv(p->fd, data, max, 0);
    return n > 0 ? n : -1;
}

static bool put_bytes(peer *p, const char *data, size_t len)
{
    while (len > 0) {
        ssize_t n = p->ssl != NULL ? SSL_write(p->ssl, data, (int)len)
                                   : send(p->fd, data, len, MSG_NOSIGNAL);
        if (n <= 0)
            return false;
        data += n;
        len -= (size_t)n;
    }
    return true;
}

static void note(http_server *s, const void *data, size_t len)
{
    pthread_mutex_lock(&s->mutex);
    (void)!lj_buf_append(&s->received, data, len, NULL);
    pthread_mutex_unlock(&s->mutex);
}

/* Byte by byte, so that nothing behind the head is taken from the socket. */
static bool get_head(peer *p, char *head)
{
    size_t len = 0;
    while (len + 1 < HEAD_MAX) {
        if (get_bytes(p, head + len, 1) != 1)
            return false;
        head[++len] = 0;
        if (len >= 4 && memcmp(head + len - 4, "\r\n\r\n", 4) == 0) {
            note(p->server, head, len);
            return true;
        }
    }
    return false;
}

static size_t content_length(const char *head)
{
    const char *at = strcasestr(head, "\r\nContent-Length:");
    return at != NULL ? strtoul(at + 17, NULL, 10) : 0;
}

/* Reads a request; its body into `body`, unless that is NULL. */
static bool get_request(peer *p, lj_buf *body)
{
    char *head = malloc(HEAD_MAX);
    bool good = head != NULL && get_head(p, head);
    size_t left = good ? content_length(head) : 0;
    char data[16384];
    unsigned slow = p->server->bytes_per_pause;
    size_t until_pause = slow;
    while (good && left > 0) {
        ssize_t n = get_bytes(p, data, LJ_MIN(left, sizeof(data)));
        good = n > 0;
        left -= good ? (size_t)n : 0;
        if (good && slow > 0 && (size_t)n >= until_pause) {
            until_pause = slow + (size_t)n;
            sleep_ms(p->server, p->server->pause_ms);
        }
        until_pause -= slow > 0 && good ? (size_t)n : 0;
        if (good && slow > 0)
            continue;
        if (good && body != NULL)
            good = lj_buf_append(body, data, (size_t)n, NULL) == LJ_OK;
        else if (good)
            note(p->server, data, (size_t)n);
    }
    free(head);
    return good;
}

/* ---- connections ---- */

static void close_peer(peer *p)
{
    if (p->ssl != NULL) {
        SSL_shutdown(p->ssl);
        SSL_free(p->ssl);
    }
    if (p->fd >= 0)
        close(p->fd);
    p->ssl = NULL;
    p->fd = -1;
}

static bool accept_peer(http_server *s, peer *p)
{
    p->server = s;
    p->ssl = NULL;
    p->fd = -1;
    if (!wait_readable(s, s->listener))
        return false;
    p->fd = accept(s->listener, NULL, NULL);
    if (p->fd < 0)
        return false;
    setsockopt(p->fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    atomic_fetch_add(&s->accepted, 1);
    if (s->certificate == NULL)
        return true;
    p->ssl = SSL_new(certificate_context(s->certificate));
    return p->ssl != NULL && SSL_set_fd(p->ssl, p->fd) == 1 && SSL_accept(p->ssl) == 1;
}

/* ---- a script ---- */

static bool trickle(peer *p, const server_step *step)
{
    for (const char *c = step->text; *c != 0; c++) {
        sleep_ms(p->server, step->n);
        if (!put_bytes(p, c, 1))
            return false;
    }
    return true;
}

static bool fill(peer *p, unsigned n)
{
    char data[4096];
    memset(data, 'x', sizeof(data));
    for (; n > 0; n -= LJ_MIN(n, (unsigned)sizeof(data)))
        if (!put_bytes(p, data, LJ_MIN(n, sizeof(data))))
            return false;
    return true;
}

static void hold(peer *p, unsigned ms)
{
    int64_t end_ns = lj_clock_mono_ns() + ms * LJ_NS_PER_MS;
    while (!atomic_load(&p->server->stop) && lj_clock_mono_ns() < end_ns) {
        struct pollfd poll_fd = {.fd = p->fd, .events = POLLRDHUP};
        if (poll(&poll_fd, 1, POLL_MS) > 0)
            return;
    }
}

/* Failures to send are the client's hanging up, which some tests are about. */
static bool run_step(peer *p, const server_step *step)
{
    char *head = NULL;
    bool good = true;
    switch (step->kind) {
    case STEP_ACCEPT:
        close_peer(p);
        return accept_peer(p->server, p);
    case STEP_READ:
        return get_request(p, NULL);
    case STEP_READ_HEAD:
        head = malloc(HEAD_MAX);
        good = head != NULL && get_head(p, head);
        free(head);
        return good;
    case STEP_SEND:
        (void)put_bytes(p, step->text, strlen(step->text));
        return true;
    case STEP_FILL:
        (void)fill(p, step->n);
        return true;
    case STEP_SLEEP:
        sleep_ms(p->server, step->n);
        return true;
    case STEP_TRICKLE:
        (void)trickle(p, step);
        return true;
    case STEP_HOLD:
        hold(p, step->n);
        return true;
    case STEP_RESET:
        setsockopt(p->fd, SOL_SOCKET, SO_LINGER, &(struct linger){.l_onoff = 1, .l_linger = 0},
                   sizeof(struct linger));
        close_peer(p);
        return true;
    case STEP_CLOSE:
        close_peer(p);
        return true;
    }
    return false;
}

/* SSL_write to a client that has gone raises SIGPIPE. */
static void block_sigpipe(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
}

static void *run_script(void *ctx)
{
    http_server *s = ctx;
    block_sigpipe();
    peer p = {.server = s, .fd = -1};
    for (size_t i = 0; i < s->count && run_step(&p, &s->steps[i]); i++)
        atomic_store(&s->done, i + 1);
    while (!atomic_load(&s->stop))
        sleep_ms(s, POLL_MS);
    close_peer(&p);
    return NULL;
}

/* ---- echo ---- */

static void *serve_echo(void *ctx)
{
    peer p = *(peer *)ctx;
    free(ctx);
    lj_buf body = LJ_BUF_INIT(ECHO_MAX);
    char head[128];
    while (get_request(&p, &body)) {
        sleep_ms(p.server, p.server->delay_ms);
        int n = snprintf(head, sizeof(head), "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n",
                         body.len);
        if (!put_bytes(&p, head, (size_t)n) || !put_bytes(&p, lj_buf_text(&body), body.len))
            break;
        lj_buf_clear(&body);
    }
    lj_buf_free(&body);
    close_peer(&p);
    return NULL;
}

static void *run_echo(void *ctx)
{
    http_server *s = ctx;
    block_sigpipe();
    while (!atomic_load(&s->stop)) {
        peer *p = calloc(1, sizeof(*p));
        if (p == NULL)
            break;
        if (!accept_peer(s, p) || s->worker_count >= WORKERS_MAX ||
            pthread_create(&s->workers[s->worker_count], NULL, serve_echo, p) != 0) {
            close_peer(p);
            free(p);
            continue;
        }
        s->worker_count++;
    }
    return NULL;
}

/* ---- life ---- */

static http_server *start(const server_step *steps, size_t count, certificate *tls,
                          unsigned delay_ms)
{
    http_server *s = calloc(1, sizeof(*s));
    assert_non_null(s);
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t len = sizeof(address);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    s->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(s->listener >= 0);
    assert_int_equal(bind(s->listener, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(s->listener, 64), 0);
    assert_int_equal(getsockname(s->listener, (struct sockaddr *)&address, &len), 0);
    s->port = ntohs(address.sin_port);
    s->steps = steps;
    s->count = count;
    s->certificate = tls;
    s->delay_ms = delay_ms;
    s->received.max = RECEIVED_MAX;
    pthread_mutex_init(&s->mutex, NULL);
    assert_int_equal(pthread_create(&s->thread, NULL, steps != NULL ? run_script : run_echo, s), 0);
    return s;
}

http_server *server_start_steps(const server_step *steps, size_t count)
{
    return start(steps, count, NULL, 0);
}

http_server *server_start_echo(unsigned delay_ms)
{
    return start(NULL, 0, NULL, delay_ms);
}

http_server *server_start_slow_reader(unsigned bytes_per_pause, unsigned pause_ms)
{
    http_server *s = start(NULL, 0, NULL, 0);
    s->bytes_per_pause = bytes_per_pause;
    s->pause_ms = pause_ms;
    int size = 65536; /* of the connections to come */
    assert_int_equal(setsockopt(s->listener, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size)), 0);
    return s;
}

http_server *server_start_echo_tls(void)
{
    return start(NULL, 0, certificate_new(), 0);
}

const char *server_ca_file(const http_server *server)
{
    return certificate_ca_file(server->certificate);
}

unsigned server_port(const http_server *server)
{
    return server->port;
}

const char *server_url(http_server *server, const char *path)
{
    (void)snprintf(server->url, sizeof(server->url), "%s://127.0.0.1:%u%s",
                   server->certificate != NULL ? "https" : "http", server->port, path);
    return server->url;
}

unsigned server_accepted(const http_server *server)
{
    return atomic_load(&server->accepted);
}

const char *server_received(http_server *server)
{
    pthread_mutex_lock(&server->mutex);
    const char *text = lj_buf_text(&server->received);
    pthread_mutex_unlock(&server->mutex);
    return text;
}

void server_abandon(http_server *server)
{
    atomic_store(&server->stop, true);
    pthread_join(server->thread, NULL);
    for (unsigned i = 0; i < server->worker_count; i++)
        pthread_join(server->workers[i], NULL);
    close(server->listener);
    certificate_free(server->certificate);
    lj_buf_free(&server->received);
    pthread_mutex_destroy(&server->mutex);
    free(server);
}

void server_stop(http_server *server)
{
    int64_t end_ns = lj_clock_mono_ns() + 5 * LJ_NS_PER_S;
    while (atomic_load(&server->done) < server->count && lj_clock_mono_ns() < end_ns)
        lj_clock_sleep_ns(LJ_NS_PER_MS);
    size_t done = atomic_load(&server->done);
    size_t count = server->count;
    server_abandon(server);
    assert_int_equal(done, count);
}
