/*
 * bell.c - see bell.h.
 *
 * What epoll gives back is the number of a bell's place and how often that place was used before: a bell that was closed between the
 * event and its handling is not found.
 */
#include "vfs/capture/bell.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vfs/base/io.h"
#include "vfs/base/thread.h"

#define STACK_BYTES (256u * 1024u)

struct lj_bell {
    int fd;
    bool listens;
    lj_bell_fn fn;
    void *ctx;
    uint32_t place;
};

typedef struct {
    lj_bell *bell; /* NULL: free */
    uint32_t uses;
} bell_place;

static struct {
    pthread_mutex_t mutex;
    pthread_cond_t idle; /* the callback returned */
    int epoll_fd;        /* -1 until the first bell */
    bell_place *places;
    uint32_t count;
    const lj_bell *called; /* whose callback runs */
} bells = {.mutex = PTHREAD_MUTEX_INITIALIZER, .idle = PTHREAD_COND_INITIALIZER, .epoll_fd = -1};

/* ------------------------------------------------------------------ the thread */

static void drain(int fd)
{
    char bytes[512];
    while (read(fd, bytes, sizeof(bytes)) == (ssize_t)sizeof(bytes)) {
    }
}

static void handle_locked(const struct epoll_event *event)
{
    uint32_t place = (uint32_t)(event->data.u64 >> 32);
    lj_bell *bell = place < bells.count ? bells.places[place].bell : NULL;
    if (bell == NULL || bells.places[place].uses != (uint32_t)event->data.u64)
        return;
    bool gone = (event->events & (EPOLLERR | EPOLLHUP)) != 0;
    if (gone)
        epoll_ctl(bells.epoll_fd, EPOLL_CTL_DEL, bell->fd, NULL); /* told once */
    else
        drain(bell->fd);
    bells.called = bell;
    lj_bell_fn fn = bell->fn;
    void *ctx = bell->ctx;
    pthread_mutex_unlock(&bells.mutex);
    fn(ctx, gone);
    pthread_mutex_lock(&bells.mutex);
    bells.called = NULL;
    pthread_cond_broadcast(&bells.idle);
}

static void *watch(void *arg)
{
    int epoll_fd = *(const int *)arg;
    free(arg);
    for (;;) {
        struct epoll_event event;
        int n = epoll_wait(epoll_fd, &event, 1, -1);
        if (n < 0 && errno != EINTR)
            return NULL;
        if (n < 1)
            continue;
        pthread_mutex_lock(&bells.mutex);
        handle_locked(&event);
        pthread_mutex_unlock(&bells.mutex);
    }
}

static lj_code start_locked(lj_error *err)
{
    if (bells.epoll_fd >= 0)
        return LJ_OK;
    int fd = epoll_create1(EPOLL_CLOEXEC);
    if (fd < 0)
        return lj_error_errno(err, errno, "epoll_create1");
    int *arg = malloc(sizeof(*arg));
    pthread_t thread;
    if (arg != NULL)
        *arg = fd;
    if (arg == NULL || lj_threads_start(&thread, 1, STACK_BYTES, watch, arg) != 1) {
        free(arg);
        close(fd);
        return lj_error_nomem(err);
    }
    pthread_detach(thread);
    bells.epoll_fd = fd;
    return LJ_OK;
}

/* ------------------------------------------------------------------ bells */

static lj_code take_place_locked(lj_bell *bell, lj_error *err)
{
    uint32_t place = 0;
    while (place < bells.count && bells.places[place].bell != NULL)
        place++;
    if (place == bells.count) {
        uint32_t count = bells.count == 0 ? 16 : bells.count * 2;
        bell_place *places = realloc(bells.places, count * sizeof(*places));
        if (places == NULL)
            return lj_error_nomem(err);
        memset(places + bells.count, 0, (count - bells.count) * sizeof(*places));
        bells.places = places;
        bells.count = count;
    }
    bell->place = place;
    bells.places[place].bell = bell;
    bells.places[place].uses++;
    return LJ_OK;
}

static lj_code watch_locked(lj_bell *bell, lj_error *err)
{
    LJ_TRY(start_locked(err));
    LJ_TRY(take_place_locked(bell, err));
    struct epoll_event event = {
        .events = bell->listens ? EPOLLIN : 0, /* errors are told in any case */
        .data.u64 = (uint64_t)bell->place << 32 | bells.places[bell->place].uses};
    if (epoll_ctl(bells.epoll_fd, EPOLL_CTL_ADD, bell->fd, &event) != 0) {
        bells.places[bell->place].bell = NULL;
        return lj_error_errno(err, errno, "epoll_ctl");
    }
    return LJ_OK;
}

/* Owns fd, also when it fails. */
static lj_code add_locked(int fd, bool listens, lj_bell_fn fn, void *ctx, lj_bell **ret_bell,
                          lj_error *err)
{
    lj_bell *bell = calloc(1, sizeof(*bell));
    if (bell == NULL) {
        close(fd);
        return lj_error_nomem(err);
    }
    *bell = (lj_bell){.fd = fd, .listens = listens, .fn = fn, .ctx = ctx};
    lj_code code = watch_locked(bell, err);
    if (code != LJ_OK) {
        close(fd);
        free(bell);
        return code;
    }
    *ret_bell = bell;
    return LJ_OK;
}

static bool is_fifo(int fd)
{
    struct stat st;
    return fstat(fd, &st) == 0 && S_ISFIFO(st.st_mode);
}

static lj_code listen_locked(const char *path, lj_bell_fn fn, void *ctx, lj_bell **ret_bell,
                             lj_error *err)
{
    int fd = -1;
    LJ_TRY(lj_io_open(path, O_RDWR | O_NONBLOCK, 0, &fd, err));
    if (is_fifo(fd))
        return add_locked(fd, true, fn, ctx, ret_bell, err);
    close(fd);
    return lj_error_set(err, LJ_IO, "%s is no FIFO", path);
}

lj_code lj_bell_listen(const char *path, lj_bell_fn fn, void *ctx, lj_bell **ret_bell,
                       lj_error *err)
{
    struct stat st;
    if (lstat(path, &st) == 0 && !S_ISFIFO(st.st_mode))
        unlink(path);
    if (mkfifo(path, 0600) != 0 && errno != EEXIST)
        return lj_error_errno(err, errno, "cannot make the FIFO %s", path);
    pthread_mutex_lock(&bells.mutex); /* no fork between open and the list */
    lj_code code = listen_locked(path, fn, ctx, ret_bell, err);
    pthread_mutex_unlock(&bells.mutex);
    return code;
}

static lj_code reach_locked(const char *path, lj_bell_fn fn, void *ctx, lj_bell **ret_bell,
                            lj_error *err)
{
    int fd = open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return lj_error_set(err, LJ_NOTFOUND, "nobody listens at %s", path);
    if (is_fifo(fd))
        return add_locked(fd, false, fn, ctx, ret_bell, err);
    close(fd);
    return lj_error_set(err, LJ_NOTFOUND, "%s is no FIFO", path);
}

lj_code lj_bell_reach(const char *path, lj_bell_fn fn, void *ctx, lj_bell **ret_bell, lj_error *err)
{
    pthread_mutex_lock(&bells.mutex);
    lj_code code = reach_locked(path, fn, ctx, ret_bell, err);
    pthread_mutex_unlock(&bells.mutex);
    return code;
}

bool lj_bell_ring(const lj_bell *bell)
{
    ssize_t n;
    do
        n = write(bell->fd, "", 1);
    while (n < 0 && errno == EINTR);
    return n == 1 || errno == EAGAIN; /* full of what was not heard yet */
}

bool lj_bell_ring_quietly(const lj_bell *bell)
{
    sigset_t pipe_signal;
    sigset_t old;
    sigset_t waiting;
    sigemptyset(&pipe_signal);
    sigaddset(&pipe_signal, SIGPIPE);
    sigpending(&waiting);
    pthread_sigmask(SIG_BLOCK, &pipe_signal, &old);
    bool heard = lj_bell_ring(bell);
    if (!heard && !sigismember(&waiting, SIGPIPE)) {
        const struct timespec at_once = {0, 0};
        while (sigtimedwait(&pipe_signal, NULL, &at_once) < 0 && errno == EINTR) {
        }
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return heard;
}

static void hush_locked(lj_bell *bell)
{
    while (bells.called == bell)
        pthread_cond_wait(&bells.idle, &bells.mutex);
    epoll_ctl(bells.epoll_fd, EPOLL_CTL_DEL, bell->fd, NULL);
    bells.places[bell->place].uses++; /* what epoll may still report is not for it */
}

void lj_bell_hush(lj_bell *bell)
{
    if (bell == NULL)
        return;
    pthread_mutex_lock(&bells.mutex);
    hush_locked(bell);
    pthread_mutex_unlock(&bells.mutex);
}

void lj_bell_close(lj_bell *bell)
{
    if (bell == NULL)
        return;
    pthread_mutex_lock(&bells.mutex);
    hush_locked(bell);
    bells.places[bell->place].bell = NULL;
    close(bell->fd);
    pthread_mutex_unlock(&bells.mutex);
    free(bell);
}

/* ------------------------------------------------------------------ fork */

void lj_bell_before_fork(void)
{
    pthread_mutex_lock(&bells.mutex);
}

void lj_bell_in_parent(void)
{
    pthread_mutex_unlock(&bells.mutex);
}

void lj_bell_in_child(void)
{
    pthread_mutex_init(&bells.mutex, NULL);
    pthread_cond_init(&bells.idle, NULL);
    for (uint32_t i = 0; i < bells.count; i++) {
        if (bells.places[i].bell != NULL)
            close(bells.places[i].bell->fd); /* else the parent would never be missed */
        bells.places[i].bell = NULL;
    }
    if (bells.epoll_fd >= 0)
        close(bells.epoll_fd);
    bells.epoll_fd = -1;
    bells.called = NULL;
}
