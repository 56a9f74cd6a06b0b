/*
 * http_process_test.c - vfs/storage/http inside a process with threads, signals, forks and an OpenSSL of its own; TLS and
 * proxies.
 */
#include "test/unit/unit.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "test/unit/storage/http/client.h"
#include "test/unit/storage/http/server.h"
#include "vfs/base/clock.h"
#include "vfs/base/str.h"

#define OK_EMPTY "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
#define THREADS  8u
#define EACH     40u

static const char *own_path;

/* A PUT whose answer must be its body. */
static lj_code echo(lj_http *http, const char *url, const void *body, size_t len, lj_error *err)
{
    lj_http_response response = LJ_HTTP_RESPONSE_INIT;
    lj_http_request request = LJ_HTTP_REQUEST("PUT", url);
    request.body = body;
    request.body_len = len;
    lj_code code = lj_http_perform(http, &request, &response, err);
    if (code == LJ_OK && (response.status != 200 || response.body.len != len ||
                          (len > 0 && memcmp(response.body.data, body, len) != 0)))
        code = lj_error_set(err, LJ_CORRUPT, "not the same body");
    lj_http_response_free(&response);
    return code;
}

static lj_http *client_with_ca(const char *ca_file, bool skip_verify)
{
    lj_error err = LJ_ERROR_INIT;
    lj_http *http = NULL;
    lj_http_options options = {.ca_file = ca_file, .skip_verify = skip_verify};
    assert_ok(lj_http_new(&options, &http, &err), &err);
    return http;
}

/* ---- threads ---- */

typedef struct {
    lj_http *http;
    const char *url;
    unsigned number;
    lj_code code;
    lj_error err;
} worker;

static void *work(void *ctx)
{
    worker *w = ctx;
    size_t len = 20000 + w->number;
    char *body = malloc(len);
    memset(body, 'a' + (int)w->number, len);
    for (unsigned i = 0; i < EACH && w->code == LJ_OK; i++)
        w->code = echo(w->http, w->url, body, len - i, &w->err);
    free(body);
    return NULL;
}

static void run_threads(lj_http *http, http_server *server)
{
    worker workers[THREADS];
    pthread_t threads[THREADS];
    const char *url = server_url(server, "/");
    for (unsigned i = 0; i < THREADS; i++) {
        workers[i] = (worker){.http = http, .url = url, .number = i};
        assert_int_equal(pthread_create(&threads[i], NULL, work, &workers[i]), 0);
    }
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    for (unsigned i = 0; i < THREADS; i++)
        assert_ok(workers[i].code, &workers[i].err);
    assert_in_range(server_accepted(server), 1, THREADS);
}

static void threads_share_the_pool(void **state)
{
    (void)state;
    http_server *server = server_start_echo(1);
    lj_http *http = client_with_ca(NULL, false);
    run_threads(http, server);
    lj_http_free(http);
    server_stop(server);
}

static void idle_connections_are_closed_with_the_last_user(void **state)
{
    (void)state;
    http_server *server = server_start_echo(0);
    lj_error err = LJ_ERROR_INIT;
    lj_http *one = client_with_ca(NULL, false);
    lj_http *two = client_with_ca(NULL, false);
    unsigned before = count_sockets();
    assert_ok(echo(one, server_url(server, "/"), "x", 1, &err), &err);
    assert_true(count_sockets() > before);
    lj_http_free(one);
    assert_true(count_sockets() > before);
    lj_http_free(two);
    server_stop(server);
    assert_true(count_sockets() < before); /* the listener is gone too */
}

/* ---- fork and exec ---- */

static void child_of_fork(lj_http *http, const char *url, unsigned sockets_before)
{
    lj_error err = LJ_ERROR_INIT;
    if (count_sockets() != sockets_before - 1) /* the idle one is closed */
        _exit(2);
    if (echo(http, url, "child", 5, &err) != LJ_OK)
        _exit(3);
    _exit(0);
}

static void fork_in_between(void **state)
{
    (void)state;
    http_server *server = server_start_echo(0);
    lj_error err = LJ_ERROR_INIT;
    lj_http *http = client_with_ca(NULL, false);
    const char *url = server_url(server, "/");
    assert_ok(echo(http, url, "one", 3, &err), &err);
    assert_int_equal(server_accepted(server), 1);
    unsigned sockets = count_sockets();
    pid_t pid = fork();
    if (pid == 0)
        child_of_fork(http, url, sockets);
    int status = -1;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    assert_int_equal(server_accepted(server), 2);
    assert_ok(echo(http, url, "two", 3, &err), &err); /* the parent's is as good as before */
    assert_int_equal(server_accepted(server), 2);
    lj_http_free(http);
    server_stop(server);
}

static bool is_connection(int fd)
{
    int domain = 0;
    socklen_t len = sizeof(domain);
    return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) == 0 && domain == AF_INET;
}

/* Where the host has closed its standard streams, what it prints goes to no store. */
static void no_connection_is_a_standard_stream(void **state)
{
    (void)state;
    http_server *server = server_start_echo(0);
    const char *url = server_url(server, "/");
    pid_t pid = fork();
    if (pid == 0) {
        lj_error err = LJ_ERROR_INIT;
        lj_http *http = NULL;
        lj_http_options options = {.ca_file = NULL};
        for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
            close(fd);
        if (lj_http_new(&options, &http, &err) != LJ_OK || echo(http, url, "x", 1, &err) != LJ_OK)
            _exit(3);
        for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
            if (is_connection(fd))
                _exit(2);
        _exit(0);
    }
    int status = -1;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    server_stop(server);
}

static void forks_while_threads_are_at_it(void **state)
{
    (void)state;
    http_server *server = server_start_echo(1);
    lj_http *http = client_with_ca(NULL, false);
    const char *url = server_url(server, "/");
    worker w = {.http = http, .url = url};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, work, &w), 0);
    for (int i = 0; i < 5; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            lj_error err = LJ_ERROR_INIT;
            _exit(echo(http, url, "child", 5, &err) == LJ_OK ? 0 : 3);
        }
        int status = -1;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
    }
    pthread_join(thread, NULL);
    assert_ok(w.code, &w.err);
    lj_http_free(http);
    server_stop(server);
}

static void sockets_are_closed_on_exec(void **state)
{
    (void)state;
    http_server *server = server_start_echo(0);
    lj_error err = LJ_ERROR_INIT;
    lj_http *http = client_with_ca(NULL, false);
    assert_ok(echo(http, server_url(server, "/"), "x", 1, &err), &err);
    unsigned internet = 0;
    for (int fd = 0; fd < 256; fd++) {
        int domain = 0;
        int listening = 0;
        socklen_t len = sizeof(domain);
        if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) != 0 || domain != AF_INET ||
            getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &len) != 0 || listening)
            continue;
        struct sockaddr_in peer = {.sin_family = AF_INET};
        len = sizeof(peer);
        if (getpeername(fd, (struct sockaddr *)&peer, &len) == 0 &&
            ntohs(peer.sin_port) == server_port(server)) {
            internet++;
            assert_true((fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
        }
    }
    assert_int_equal(internet, 1);
    lj_http_free(http);
    server_stop(server);
}

/* ---- signals and OpenSSL's queue ---- */

static void no_sigpipe_reaches_the_host(void **state)
{
    (void)state;
    const server_step steps[] = {ACCEPT, READ, SEND(OK_EMPTY)};
    http_server *server = server_start(steps);
    lj_error err = LJ_ERROR_INIT;
    lj_http *http = client_new(NULL);
    lj_http_response response = LJ_HTTP_RESPONSE_INIT;
    test_source content = {.len = 100, .raise_sigpipe = true}; /* as a write within libcurl does */
    lj_source source = test_source_new(&content);
    lj_http_request request = LJ_HTTP_REQUEST("PUT", server_url(server, "/"));
    request.source = &source;
    request.body_len = content.len;
    struct sigaction before;
    sigset_t mask;
    sigset_t mask_after;
    sigset_t pending;
    sigaction(SIGPIPE, &(struct sigaction){.sa_handler = SIG_DFL}, &before);
    pthread_sigmask(SIG_BLOCK, NULL, &mask);
    assert_int_equal(sigismember(&mask, SIGPIPE), 0);
    assert_ok(lj_http_perform(http, &request, &response, &err), &err); /* else we are gone */
    pthread_sigmask(SIG_BLOCK, NULL, &mask_after);
    for (int n = 1; n < SIGRTMIN; n++)
        assert_int_equal(sigismember(&mask_after, n), sigismember(&mask, n));
    sigpending(&pending);
    assert_int_equal(sigismember(&pending, SIGPIPE), 0);
    sigaction(SIGPIPE, &before, NULL);
    lj_http_response_free(&response);
    lj_http_free(http);
    server_stop(server);
}

static void openssl_queue_is_left_alone(void **state)
{
    (void)state;
    http_server *server = server_start_echo_tls();
    lj_error err = LJ_ERROR_INIT;
    lj_http *stranger = client_with_ca(NULL, false);
    ERR_clear_error();
    assert_int_equal(echo(stranger, server_url(server, "/"), "x", 1, &err), LJ_DENIED);
    assert_int_equal(ERR_peek_error(), 0);
    lj_http_free(stranger);
    server_stop(server);
}

/* ---- TLS ---- */

static void certificates_are_checked(void **state)
{
    (void)state;
    http_server *server = server_start_echo_tls();
    const char *url = server_url(server, "/?sig=hidden");
    lj_error err = LJ_ERROR_INIT;
    lj_http *stranger = client_with_ca(NULL, false);
    assert_int_equal(echo(stranger, url, "x", 1, &err), LJ_DENIED);
    assert_true(err.retryable);
    assert_non_null(strstr(err.hint, "SSL_CERT_FILE"));
    assert_null(strstr(err.message, "hidden"));
    lj_http *careless = client_with_ca(NULL, true);
    assert_ok(echo(careless, url, "x", 1, &err), &err);
    /* the careless one's connection to the same place is idle now, and is not the stranger's to use */
    assert_int_equal(echo(stranger, url, "x", 1, &err), LJ_DENIED);
    lj_http *friend = client_with_ca(server_ca_file(server), false);
    assert_ok(echo(friend, url, "x", 1, &err), &err);
    setenv("SSL_CERT_FILE", server_ca_file(server), 1);
    lj_http *by_environment = client_with_ca(NULL, false);
    unsetenv("SSL_CERT_FILE");
    assert_ok(echo(by_environment, url, "x", 1, &err), &err);
    lj_http *lost = client_with_ca("/nonexistent/ca.pem", false);
    assert_int_equal(echo(lost, url, "x", 1, &err), LJ_DENIED);
    lj_http *all[] = {stranger, careless, friend, by_environment, lost};
    for (size_t i = 0; i < LJ_ARRAY_LEN(all); i++)
        lj_http_free(all[i]);
    server_stop(server);
}

static void threads_with_tls(void **state)
{
    (void)state;
    http_server *server = server_start_echo_tls();
    lj_http *http = client_with_ca(server_ca_file(server), false);
    run_threads(http, server);
    lj_http_free(http);
    server_stop(server);
}

static void small_stacks_are_enough(void **state)
{
    (void)state;
    http_server *server = server_start_echo_tls();
    lj_http *http = client_with_ca(server_ca_file(server), false);
    worker w = {.http = http, .url = server_url(server, "/")};
    pthread_attr_t attr;
    pthread_t thread;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, (size_t)512 * 1024); /* as those of the workers */
    assert_int_equal(pthread_create(&thread, &attr, work, &w), 0);
    pthread_join(thread, NULL);
    pthread_attr_destroy(&attr);
    assert_ok(w.code, &w.err);
    lj_http_free(http);
    server_stop(server);
}

/* ---- the end of the process ---- */

static void *work_for_ever(void *ctx)
{
    worker *w = ctx;
    while (echo(w->http, w->url, "exit", 4, &w->err) == LJ_OK)
        ;
    for (;;)
        lj_clock_sleep_ns(LJ_NS_PER_S); /* cancelled; nobody waits for us */
    return NULL;
}

static worker exiting;

/* What the shim does when the host ends: still needs the network. */
static void last_request(void)
{
    lj_error err = LJ_ERROR_INIT;
    if (echo(exiting.http, exiting.url, "last", 4, &err) != LJ_OK) {
        fprintf(stderr, "the last request: %s\n", err.message);
        _exit(4);
    }
}

/* The program in the program: threads are in the middle of TLS when main returns. Before that either we or the host used
 * OpenSSL first. */
static int exit_while_busy(const char *who, const char *url, const char *ca_file)
{
    static worker workers[4];
    pthread_t thread;
    if (strcmp(who, "host") == 0)
        OPENSSL_init_ssl(0, NULL);
    lj_http_prepare();
    atexit(last_request);
    if (strcmp(who, "late") == 0)
        OPENSSL_init_ssl(0, NULL);
    lj_http *http = client_with_ca(ca_file, false);
    exiting = (worker){.http = http, .url = url};
    for (unsigned i = 0; i < LJ_ARRAY_LEN(workers); i++) {
        workers[i] = (worker){.http = http, .url = url, .number = i};
        if (pthread_create(&thread, NULL, work_for_ever, &workers[i]) != 0)
            return 5;
    }
    lj_clock_sleep_ns(60 * LJ_NS_PER_MS);
    return 0;
}

static void exit_within_requests(void **state)
{
    (void)state;
    static const char *const who[] = {"we", "host", "late"};
    http_server *server = server_start_echo_tls();
    const char *url = server_url(server, "/");
    for (unsigned i = 0; i < 9; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            execl(own_path, own_path, "exit", who[i % 3], url, server_ca_file(server), NULL);
            _exit(6);
        }
        int status = -1;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        if (status != 0)
            fail_msg("OpenSSL first used by %s: status %x", who[i % 3], status);
    }
    server_stop(server);
}

/* ---- proxies ---- */

static void expect_asked(const char *variable, const char *value, bool asked)
{
    const server_step as_proxy[] = {ACCEPT, READ, SEND(OK_EMPTY)};
    http_server *proxy = server_start(as_proxy);
    char url[64];
    snprintf(url, sizeof(url), "http://u:p@127.0.0.1:%u", server_port(proxy));
    setenv(variable, url, 1);
    setenv("NO_PROXY", value, 1);
    lj_http *http = client_new(NULL);
    unsetenv(variable); /* read once */
    unsetenv("NO_PROXY");
    http_server *origin = server_start_echo(0);
    lj_http_response response = LJ_HTTP_RESPONSE_INIT;
    lj_error err = LJ_ERROR_INIT;
    lj_http_request request = LJ_HTTP_REQUEST("GET", server_url(origin, "/x"));
    request.no_proxy = strcmp(value, "none") == 0;
    assert_ok(lj_http_perform(http, &request, &response, &err), &err);
    assert_int_equal(server_accepted(proxy), asked);
    if (asked) {
        assert_true(lj_str_starts(server_received(proxy), "GET http://127.0.0.1:"));
        assert_non_null(strstr(server_received(proxy), "Proxy-Authorization: Basic "));
    }
    lj_http_response_free(&response);
    lj_http_free(http);
    server_stop(origin);
    server_abandon(proxy);
}

static void proxies_of_the_environment(void **state)
{
    (void)state;
    expect_asked("http_proxy", "", true);
    expect_asked("HTTP_PROXY", "other.test,10.0.0.0/8", true);
    expect_asked("all_proxy", "", true);
    expect_asked("https_proxy", "", false);
    expect_asked("http_proxy", "127.0.0.1", false);
    expect_asked("http_proxy", "127.0.0.0/8", false);
    expect_asked("http_proxy", "none", false);
    setenv("REQUEST_METHOD", "GET",
           1); /* a CGI program: HTTP_PROXY is its client's "Proxy:" header */
    expect_asked("HTTP_PROXY", "", false);
    expect_asked("http_proxy", "", true);
    unsetenv("REQUEST_METHOD");
}

static void proxy_passwords_are_not_shown(void **state)
{
    (void)state;
    static const char *const proxies[] = {
        "gopher://user:passw0rd@127.0.0.1:1", "http://user:passw0rd@:x",
        "http://user:passw0rd@127.0.0.1:1", "http://user:passw0rd@unknown.test:1"};
    for (size_t i = 0; i < LJ_ARRAY_LEN(proxies); i++) {
        setenv("http_proxy", proxies[i], 1);
        lj_http *http = client_new(NULL);
        unsetenv("http_proxy");
        lj_error err = LJ_ERROR_INIT;
        assert_int_equal(echo(http, "http://127.0.0.1:1/", "x", 1, &err), LJ_UNAVAILABLE);
        assert_true(err.retryable);
        assert_null(strstr(err.message, "passw0rd"));
        lj_http_free(http);
    }
}

/* The proxy's own answer to CONNECT is not the store's. */
static void proxy_that_refuses_a_tunnel(void **state)
{
    (void)state;
    const server_step steps[] = {
        ACCEPT, READ, SEND("HTTP/1.1 407 Who\r\nX-Proxy: 1\r\nContent-Length: 0\r\n\r\n")};
    http_server *proxy = server_start(steps);
    setenv("https_proxy", server_url(proxy, "/"), 1);
    lj_http *http = client_new(NULL);
    unsetenv("https_proxy");
    lj_error err = LJ_ERROR_INIT;
    lj_http_response response = LJ_HTTP_RESPONSE_INIT;
    lj_http_request request = LJ_HTTP_REQUEST("GET", "https://store.test/k?sig=hidden");
    assert_int_equal(lj_http_perform(http, &request, &response, &err), LJ_UNAVAILABLE);
    assert_int_equal(response.status, 0);
    assert_int_equal(response.headers.len, 0);
    assert_false(response.maybe_sent);
    assert_null(strstr(err.message, "hidden"));
    assert_true(lj_str_starts(server_received(proxy), "CONNECT store.test:443 HTTP/1.1\r\n"));
    lj_http_response_free(&response);
    lj_http_free(http);
    server_stop(proxy);
}

int main(int argc, char **argv)
{
    own_path = "/proc/self/exe";
    if (argc == 5 && strcmp(argv[1], "exit") == 0)
        return exit_while_busy(argv[2], argv[3], argv[4]);
    static const char *const variables[] = {"http_proxy",     "HTTP_PROXY",    "https_proxy",
                                            "HTTPS_PROXY",    "all_proxy",     "ALL_PROXY",
                                            "no_proxy",       "NO_PROXY",      "REQUEST_METHOD",
                                            "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR"};
    for (size_t i = 0; i < LJ_ARRAY_LEN(variables); i++)
        unsetenv(variables[i]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_share_the_pool),
        cmocka_unit_test(idle_connections_are_closed_with_the_last_user),
        cmocka_unit_test(fork_in_between),
        cmocka_unit_test(no_connection_is_a_standard_stream),
        cmocka_unit_test(forks_while_threads_are_at_it),
        cmocka_unit_test(sockets_are_closed_on_exec),
        cmocka_unit_test(no_sigpipe_reaches_the_host),
        cmocka_unit_test(openssl_queue_is_left_alone),
        cmocka_unit_test(certificates_are_checked),
        cmocka_unit_test(threads_with_tls),
        cmocka_unit_test(small_stacks_are_enough),
        cmocka_unit_test(exit_within_requests),
        cmocka_unit_test(proxies_of_the_environment),
        cmocka_unit_test(proxy_passwords_are_not_shown),
        cmocka_unit_test(proxy_that_refuses_a_tunnel),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
