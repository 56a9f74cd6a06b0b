/*
 * dial.c - from a host's name to a connected socket, with a deadline, and ending when cancelled.
 *
 * getaddrinfo(3) can block for a long time and cannot be interrupted: it runs in a thread of its own, which is left
 * to itself when nobody waits for it any more (the library is never unloaded).
 *
 * Layer: storage. Thread-safety: any thread.
 */
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "vfs/base/cancel.h"
#include "vfs/base/clock.h"
#include "vfs/base/io.h"
#include "vfs/base/str.h"
#include "vfs/storage/http/guard.h"
#include "vfs/storage/sftp/internal.h"

#define CONNECT_NS    (10 * LJ_NS_PER_S)
#define SLICE_NS      (50 * LJ_NS_PER_MS)
#define TRY_MIN_NS    (2 * LJ_NS_PER_S)
#define ADDRESSES_MAX 16

typedef struct {
    const lj_sftp_config *config;
    const bool *cancel;
    int64_t end_ns;
} dial_state;

/* ---- names ---- */

typedef struct {
    pthread_mutex_t mutex; /* guards what follows; rank: leaf */
    pthread_cond_t done_cond;
    bool done;
    bool left; /* nobody waits any more */
    int rc;
    struct addrinfo *found;
    char *host;
    char port[8];
} resolving;

static void resolving_free(resolving *r)
{
    if (r->found != NULL)
        freeaddrinfo(r->found);
    free(r->host);
    pthread_cond_destroy(&r->done_cond);
    pthread_mutex_destroy(&r->mutex);
    free(r);
}

static void *resolve(void *ctx)
{
    resolving *r = ctx;
    const struct addrinfo hints = {.ai_family = AF_UNSPEC,
                                   .ai_socktype = SOCK_STREAM,
                                   .ai_flags = AI_ADDRCONFIG | AI_NUMERICSERV};
    struct addrinfo *found = NULL;
    int rc = getaddrinfo(r->host, r->port, &hints, &found);
    pthread_mutex_lock(&r->mutex);
    r->rc = rc;
    r->found = found;
    r->done = true;
    bool left = r->left;
    pthread_cond_signal(&r->done_cond);
    pthread_mutex_unlock(&r->mutex);
    if (left)
        resolving_free(r);
    return NULL;
}

static resolving *resolving_new(const lj_sftp_config *config)
{
    resolving *r = calloc(1, sizeof(*r));
    char *host = lj_str_dup(config->host);
    pthread_condattr_t attr;
    if (r == NULL || host == NULL || pthread_condattr_init(&attr) != 0) {
        free(r);
        free(host);
        return NULL;
    }
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_mutex_init(&r->mutex, NULL);
    (void)pthread_cond_init(&r->done_cond, &attr);
    pthread_condattr_destroy(&attr);
    r->host = host;
    snprintf(r->port, sizeof(r->port), "%u", config->port);
    return r;
}

/* Starts the thread, with all signals blocked: handlers are the host program's. */
static bool start(resolving *r)
{
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    if (pthread_sigmask(SIG_SETMASK, &all, &before) != 0)
        return false;
    pthread_t thread;
    bool started = pthread_create(&thread, NULL, resolve, r) == 0;
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (started)
        (void)pthread_detach(thread);
    return started;
}

/* Cancelled by its store, by its thread (cancel.h), or by the end of the process; or out of time. */
static lj_code check_end(const dial_state *dial, const char *doing, lj_error *err)
{
    if (lj_cancel_requested(dial->cancel) || lj_guard_stopping())
        return lj_error_set(err, LJ_CANCELLED, "cancelled");
    if (lj_clock_mono_ns() < dial->end_ns)
        return LJ_OK;
    lj_error_set(err, LJ_TIMEOUT, "%s %s took too long", doing, dial->config->host);
    return lj_error_retryable(err, true);
}

/* Waits for the thread. On failure the thread frees `r`, on LJ_OK the caller does. */
static lj_code wait_resolved(const dial_state *dial, resolving *r, lj_error *err)
{
    lj_code code = LJ_OK;
    pthread_mutex_lock(&r->mutex);
    while (!r->done && code == LJ_OK) {
        int64_t until = lj_clock_mono_ns() + SLICE_NS;
        const struct timespec at = {.tv_sec = (time_t)(until / LJ_NS_PER_S),
                                    .tv_nsec = (long)(until % LJ_NS_PER_S)};
        (void)pthread_cond_timedwait(&r->done_cond, &r->mutex, &at);
        if (!r->done)
            code = check_end(dial, "resolving the name", err);
    }
    r->left = code != LJ_OK;
    pthread_mutex_unlock(&r->mutex);
    return code;
}

static lj_code cannot_resolve(const dial_state *dial, int rc, lj_error *err)
{
    lj_error_set(err, LJ_UNAVAILABLE, "cannot resolve the host name %s: %s", dial->config->host,
                 gai_strerror(rc));
    (void)lj_error_hint(err, "check the host in the sftp:// URL, and DNS");
    return lj_error_retryable(err, true);
}

/* ---- sockets ---- */

static lj_code wait_connected(const dial_state *dial, int fd, int64_t until_ns, int *ret_errno,
                              lj_error *err)
{
    for (;;) {
        struct pollfd pfd = {.fd = fd, .events = POLLOUT};
        int rc = poll(&pfd, 1, (int)(SLICE_NS / LJ_NS_PER_MS));
        if (rc > 0) {
            socklen_t len = sizeof(*ret_errno);
            if (getsockopt(fd, SOL_SOCKET, SO_ERROR, ret_errno, &len) != 0)
                *ret_errno = errno;
            return LJ_OK;
        }
        LJ_TRY(check_end(dial, "connecting to", err));
        if (lj_clock_mono_ns() >= until_ns) {
            *ret_errno = ETIMEDOUT;
            return LJ_OK;
        }
    }
}

/* LJ_OK with *ret_fd -1 and *ret_errno: try the next address. */
static lj_code try_address(const dial_state *dial, const struct addrinfo *address, int64_t until_ns,
                           int *ret_fd, int *ret_errno, lj_error *err)
{
    int fd = lj_io_above_stdio(socket(
        address->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, address->ai_protocol));
    if (fd < 0) {
        *ret_errno = errno;
        return LJ_OK;
    }
    int on = 1;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
    lj_code code = LJ_OK;
    *ret_errno = 0;
    if (connect(fd, address->ai_addr, address->ai_addrlen) != 0) {
        *ret_errno = errno;
        if (errno == EINPROGRESS || errno == EINTR)
            code = wait_connected(dial, fd, until_ns, ret_errno, err);
    }
    if (code == LJ_OK && *ret_errno == 0)
        *ret_fd = fd;
    else
        close(fd);
    return code;
}

static lj_code try_all(const dial_state *dial, const struct addrinfo *found, int *ret_fd,
                       lj_error *err)
{
    int64_t left = 0;
    for (const struct addrinfo *a = found; a != NULL && left < ADDRESSES_MAX; a = a->ai_next)
        left++;
    int why = EADDRNOTAVAIL;
    int fd = -1;
    for (const struct addrinfo *a = found; left > 0; a = a->ai_next, left--) {
        /* an address that does not answer must leave time for the others */
        int64_t now = lj_clock_mono_ns();
        int64_t share = LJ_MAX((dial->end_ns - now) / left, TRY_MIN_NS);
        LJ_TRY(try_address(dial, a, now + share, &fd, &why, err));
        if (fd >= 0) {
            *ret_fd = fd;
            return LJ_OK;
        }
    }
    lj_error_errno(err, why, "cannot connect to %s, port %u", dial->config->host,
                   dial->config->port);
    if (err != NULL)
        err->code = why == ETIMEDOUT ? LJ_TIMEOUT : LJ_UNAVAILABLE;
    (void)lj_error_hint(err,
                        "check host and port in the sftp:// URL, that the SSH server runs, and "
                        "firewalls");
    (void)lj_error_retryable(err, true);
    return why == ETIMEDOUT ? LJ_TIMEOUT : LJ_UNAVAILABLE;
}

lj_code lj_sftp_dial(const lj_sftp_config *config, const bool *cancel, int *ret_fd, lj_error *err)
{
    dial_state dial = {.config = config,
                       .cancel = cancel,
                       .end_ns = lj_clock_mono_ns() + LJ_MIN(CONNECT_NS, config->stall_ns)};
    resolving *r = resolving_new(config);
    if (r == NULL)
        return lj_error_nomem(err);
    if (start(r))
        LJ_TRY(wait_resolved(&dial, r, err));
    else
        (void)resolve(r); /* no thread to be had: then without a deadline */
    lj_code code =
        r->rc != 0 ? cannot_resolve(&dial, r->rc, err) : try_all(&dial, r->found, ret_fd, err);
    resolving_free(r);
    return code;
}
