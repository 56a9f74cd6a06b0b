/*
 * guard.c - see guard.h.
 *
 * Layer: storage. Thread-safety: `table.mutex` (rank: leaf) guards the list of sockets.
 */
#include "vfs/storage/http/guard.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#ifdef __linux__
#include <linux/sockios.h>
#endif

#include "vfs/base/clock.h"
#include "vfs/base/io.h"
#include "vfs/storage/http/http.h"

#define SOCKETS_MAX  256u
#define STOP_WAIT_NS LJ_NS_PER_S
#define STOP_POLL_NS (5 * LJ_NS_PER_MS)

/* ---- signals and errors ---- */

static bool pipe_is_pending(void)
{
    sigset_t pending;
    return sigpending(&pending) == 0 && sigismember(&pending, SIGPIPE) == 1;
}

void lj_guard_begin(lj_guard *guard)
{
    /* a crash must reach the host's handler at once */
    static const int synchronous[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP, SIGSYS};
    sigset_t set;
    guard->sys_errno = errno;
    guard->pipe_pending = pipe_is_pending();
    sigfillset(&set);
    for (size_t i = 0; i < LJ_ARRAY_LEN(synchronous); i++)
        sigdelset(&set, synchronous[i]);
    pthread_sigmask(SIG_BLOCK, &set, &guard->mask);
    ERR_set_mark();
}

void lj_guard_end(const lj_guard *guard)
{
    ERR_pop_to_mark();
    if (!guard->pipe_pending && pipe_is_pending()) {
        sigset_t pipe;
        sigemptyset(&pipe);
        sigaddset(&pipe, SIGPIPE);
        sigtimedwait(&pipe, NULL, &(struct timespec){.tv_sec = 0, .tv_nsec = 0});
    }
    pthread_sigmask(SIG_SETMASK, &guard->mask, NULL);
    errno = guard->sys_errno;
}

/* ---- sockets ---- */

/* An entry is taken out before its socket is closed. The inode tells in a child of fork whether a number is still ours. */
static struct {
    pthread_mutex_t mutex;
    struct {
        int fd; /* -1: free */
        ino_t inode;
    } sockets[SOCKETS_MAX];
    unsigned used; /* entries behind it are free */
} table = {.mutex = PTHREAD_MUTEX_INITIALIZER};

static void remember(int fd)
{
    struct stat st;
    if (fstat(fd, &st) != 0)
        return;
    pthread_mutex_lock(&table.mutex);
    unsigned i = 0;
    while (i < table.used && table.sockets[i].fd >= 0)
        i++;
    if (i < SOCKETS_MAX) {
        table.sockets[i].fd = fd;
        table.sockets[i].inode = st.st_ino;
        table.used = LJ_MAX(table.used, i + 1);
    }
    pthread_mutex_unlock(&table.mutex);
}

static void forget(int fd)
{
    pthread_mutex_lock(&table.mutex);
    for (unsigned i = 0; i < table.used; i++)
        if (table.sockets[i].fd == fd)
            table.sockets[i].fd = -1;
    pthread_mutex_unlock(&table.mutex);
}

static curl_socket_t open_socket(void *ctx, curlsocktype purpose, struct curl_sockaddr *address)
{
    lj_sockets *sockets = ctx;
    (void)purpose;
    int fd = lj_io_above_stdio(
        socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol));
    if (fd < 0)
        return CURL_SOCKET_BAD;
    remember(fd);
    if (sockets->count < LJ_SOCKETS_MAX)
        sockets->fds[sockets->count++] = fd;
    return fd;
}

static int close_socket(void *ctx, curl_socket_t fd)
{
    lj_sockets *sockets = ctx;
    for (unsigned i = 0; i < sockets->count; i++)
        if (sockets->fds[i] == fd)
            sockets->fds[i] = sockets->fds[--sockets->count];
    forget(fd);
    return close(fd);
}

CURLcode lj_guard_sockets(CURL *easy, lj_sockets *sockets)
{
    CURLcode codes[] = {curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, open_socket),
                        curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, sockets),
                        curl_easy_setopt(easy, CURLOPT_CLOSESOCKETFUNCTION, close_socket),
                        curl_easy_setopt(easy, CURLOPT_CLOSESOCKETDATA, sockets)};
    for (size_t i = 0; i < LJ_ARRAY_LEN(codes); i++)
        if (codes[i] != CURLE_OK)
            return codes[i];
    return CURLE_OK;
}

int lj_guard_queued(const lj_sockets *sockets)
{
    int all = sockets->count > 0 ? 0 : -1;
#ifdef SIOCOUTQ
    for (unsigned i = 0; i < sockets->count; i++) {
        int queued = 0;
        if (ioctl(sockets->fds[i], SIOCOUTQ, &queued) != 0)
            return -1;
        all += queued;
    }
#else
    all = -1;
#endif
    return all;
}

/* ---- the end of the process ---- */

static _Atomic bool stopping;
static _Atomic unsigned under_way;

bool lj_guard_stopping(void)
{
    return atomic_load(&stopping);
}

bool lj_guard_enter(void)
{
    atomic_fetch_add(&under_way, 1);
    if (!atomic_load(&stopping))
        return true;
    atomic_fetch_sub(&under_way, 1);
    return false;
}

void lj_guard_leave(void)
{
    atomic_fetch_sub(&under_way, 1);
}

/* OpenSSL takes itself apart: calls this first, and goes on when nobody uses it any more. */
static void stop(void)
{
    atomic_store(&stopping, true);
    int64_t end_ns = lj_clock_mono_ns() + STOP_WAIT_NS;
    while (atomic_load(&under_way) > 0 && lj_clock_mono_ns() < end_ns)
        lj_clock_sleep_ns(STOP_POLL_NS);
}

/* ---- fork ---- */

static void before_fork(void)
{
    pthread_mutex_lock(&table.mutex);
}

static void in_parent(void)
{
    pthread_mutex_unlock(&table.mutex);
}

/* Without a word on the connection, which is the parent's. What libcurl holds of it in the child is never touched. */
static void in_child(void)
{
    for (unsigned i = 0; i < table.used; i++) {
        struct stat st;
        if (table.sockets[i].fd >= 0 && fstat(table.sockets[i].fd, &st) == 0 &&
            S_ISSOCK(st.st_mode) && st.st_ino == table.sockets[i].inode)
            close(table.sockets[i].fd);
    }
    table.used = 0;
    atomic_store(&under_way, 0);
    pthread_mutex_unlock(&table.mutex);
}

static void watch_forks(void)
{
    pthread_atfork(before_fork, in_parent, in_child);
}

void lj_guard_prepare(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, watch_forks);
    /*
     * Who initialises OpenSSL first decides whether it takes itself apart in an atexit handler. When that is us: it does
     * not, for our threads may still use it then. When it was the host: its handler runs after all that are set from now on.
     */
    OPENSSL_init_crypto(OPENSSL_INIT_NO_ATEXIT, NULL);
}

static CURLcode initialised;

static void init_once(void)
{
    lj_guard_prepare();
    initialised = curl_global_init(CURL_GLOBAL_DEFAULT);
    OPENSSL_atexit(stop);
}

CURLcode lj_guard_init(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, init_once);
    return initialised;
}
