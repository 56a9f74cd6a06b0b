/*
 * pool.c - the connections of the process: how many there may be, and those that are idle.
 *
 * Layer: storage. Thread-safety: `pool.mutex` (rank: leaf) guards all targets, their counts and lists; nothing that
 * talks to a server runs under it. Survives fork: a child begins without connections; it closes its copies of the idle
 * descriptors, and nothing is sent over them.
 */
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "vfs/base/cancel.h"
#include "vfs/base/clock.h"
#include "vfs/base/log.h"
#include "vfs/storage/http/guard.h"
#include "vfs/storage/sftp/internal.h"
#include "vfs/storage/sftp/sftp.h"

#define IDLE_MAX    4u
#define IDLE_FOR_NS (60 * LJ_NS_PER_S)
#define WAIT_NS     (10 * LJ_NS_PER_MS)

static struct {
    pthread_mutex_t mutex;
    lj_sftp_target *targets;
} pool = {.mutex = PTHREAD_MUTEX_INITIALIZER};

/*
 * Connections that this thread has. A list's callback that uses the storage gets one more than max-connections: waiting for
 * one while having one could be for ever.
 */
static _Thread_local unsigned held;

/* ---- fork ---- */

static void before_fork(void)
{
    pthread_mutex_lock(&pool.mutex);
}

static void in_parent(void)
{
    pthread_mutex_unlock(&pool.mutex);
}

static void in_child(void)
{
    for (lj_sftp_target *t = pool.targets; t != NULL; t = t->next) {
        for (; t->idle != NULL; t->idle = t->idle->next)
            lj_sftp_session_abandon(t->idle);
        t->open = 0;
    }
    pthread_mutex_unlock(&pool.mutex);
}

static void init_once(void)
{
    pthread_atfork(before_fork, in_parent, in_child);
}

void lj_sftp_prepare(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, init_once);
}

/* ---- targets ---- */

static void identity_add(lj_buf *text, const char *value, size_t len, bool *failed)
{
    uint8_t length[4];
    lj_put_be32(length, (uint32_t)len);
    *failed = *failed || lj_buf_append(text, length, sizeof(length), NULL) != LJ_OK ||
              lj_buf_append(text, value, len, NULL) != LJ_OK;
}

/* Two storages share connections when everything that decides about a login is the same. */
static lj_code identify(const lj_sftp_config *c, uint8_t out[LJ_SHA256_BYTES], lj_error *err)
{
    const char *texts[] = {
        c->user, c->host, c->key_path, c->agent_path, c->home, c->known_hosts_path, c->host_key};
    lj_buf all = LJ_BUF_INIT((size_t)1024 * 1024);
    bool failed = false;
    for (size_t i = 0; i < LJ_ARRAY_LEN(texts); i++)
        identity_add(&all, texts[i] != NULL ? texts[i] : "",
                     texts[i] != NULL ? strlen(texts[i]) : 0, &failed);
    identity_add(&all, lj_secret_text(&c->password), c->password.len, &failed);
    identity_add(&all, lj_secret_text(&c->key_passphrase), c->key_passphrase.len, &failed);
    const int64_t numbers[] = {c->port, c->any_host_key, (int64_t)c->max_connections, c->stall_ns};
    identity_add(&all, (const char *)numbers, sizeof(numbers), &failed);
    lj_code code = failed ? lj_error_nomem(err) : lj_sha256(all.data, all.len, out, err);
    if (all.data != NULL)
        lj_wipe(all.data, all.cap);
    lj_buf_free(&all);
    return code;
}

lj_code lj_sftp_target_get(const lj_sftp_config *config, lj_sftp_target **ret_target, lj_error *err)
{
    lj_sftp_prepare();
    uint8_t identity[LJ_SHA256_BYTES];
    LJ_TRY(identify(config, identity, err));
    lj_sftp_target *fresh = calloc(1, sizeof(*fresh));
    if (fresh == NULL)
        return lj_error_nomem(err);
    memcpy(fresh->identity, identity, sizeof(identity));
    pthread_mutex_lock(&pool.mutex);
    lj_sftp_target *target = pool.targets;
    while (target != NULL && memcmp(target->identity, identity, sizeof(identity)) != 0)
        target = target->next;
    if (target == NULL) {
        target = fresh;
        fresh = NULL;
        target->next = pool.targets;
        pool.targets = target;
    }
    target->refs++;
    pthread_mutex_unlock(&pool.mutex);
    free(fresh);
    *ret_target = target;
    return LJ_OK;
}

static void free_all(lj_sftp_session *s)
{
    while (s != NULL) {
        lj_sftp_session *next = s->next;
        lj_sftp_session_free(s);
        s = next;
    }
}

void lj_sftp_target_free(lj_sftp_target *target)
{
    if (target == NULL)
        return;
    lj_sftp_session *idle = NULL;
    pthread_mutex_lock(&pool.mutex);
    bool last = --target->refs == 0;
    if (last) {
        lj_sftp_target **link = &pool.targets;
        while (*link != target)
            link = &(*link)->next;
        *link = target->next;
        idle = target->idle;
    }
    pthread_mutex_unlock(&pool.mutex);
    free_all(idle);
    if (last)
        free(target);
}

/* ---- connections ---- */

/* Takes out what is too old, or beyond IDLE_MAX, of all targets; under the mutex. */
static lj_sftp_session *take_surplus(int64_t now_ns)
{
    lj_sftp_session *surplus = NULL;
    for (lj_sftp_target *t = pool.targets; t != NULL; t = t->next) {
        unsigned kept = 0;
        for (lj_sftp_session **link = &t->idle; *link != NULL;) {
            lj_sftp_session *s = *link;
            if (kept < IDLE_MAX && now_ns - s->idle_since_ns < IDLE_FOR_NS) {
                kept++;
                link = &s->next;
                continue;
            }
            *link = s->next;
            s->next = surplus;
            surplus = s;
            t->open--;
        }
    }
    return surplus;
}

/* Whether nothing has happened to an idle connection; answers that nobody waited for are no harm. */
static bool still_good(lj_sftp_session *s)
{
    struct pollfd pfd = {.fd = s->fd, .events = POLLIN | POLLRDHUP};
    if (poll(&pfd, 1, 0) < 0 || (pfd.revents & (POLLRDHUP | POLLHUP | POLLERR | POLLNVAL)) != 0)
        return false;
    if (pfd.revents != 0)
        lj_sftp_flush(s);
    return !s->broken;
}

/* An idle connection, or room for a new one (*ret_may_connect). */
static lj_sftp_session *try_take(lj_sftp *sftp, bool *ret_may_connect)
{
    lj_sftp_target *t = sftp->target;
    pthread_mutex_lock(&pool.mutex);
    lj_sftp_session *surplus = take_surplus(lj_clock_mono_ns());
    lj_sftp_session *s = t->idle;
    *ret_may_connect = false;
    if (s != NULL) {
        t->idle = s->next;
    } else if (t->open < sftp->config.max_connections || held > 0) {
        t->open++;
        *ret_may_connect = true;
    }
    pthread_mutex_unlock(&pool.mutex);
    free_all(surplus);
    return s;
}

static void one_less(lj_sftp_target *target)
{
    pthread_mutex_lock(&pool.mutex);
    target->open--;
    pthread_mutex_unlock(&pool.mutex);
}

/* Every operation that has a connection comes to its end, so this does too. */
static lj_code wait_for_room(const lj_sftp *sftp, int64_t since_ns, lj_error *err)
{
    if (lj_cancel_requested(sftp->cancel) || lj_guard_stopping())
        return lj_error_set(err, LJ_CANCELLED, "cancelled");
    if (lj_clock_mono_ns() - since_ns >= sftp->config.stall_ns &&
        !__atomic_exchange_n(&sftp->target->warned_busy, true, __ATOMIC_RELAXED))
        lj_log(
            LJ_LOG_WARN,
            "sftp: all %u connections to %s are in use for long: others wait; max-connections can "
            "be raised",
            sftp->config.max_connections, sftp->config.host);
    lj_clock_sleep_ns(WAIT_NS);
    return LJ_OK;
}

static lj_code take_or_connect(lj_sftp *sftp, lj_sftp_session **ret_session, lj_error *err)
{
    int64_t since_ns = lj_clock_mono_ns();
    for (;;) {
        bool may_connect = false;
        lj_sftp_session *s = try_take(sftp, &may_connect);
        if (s != NULL && still_good(s)) {
            lj_sftp_begin(s, sftp->cancel);
            *ret_session = s;
            return LJ_OK;
        }
        if (s != NULL) {
            lj_sftp_session_free(s);
            one_less(sftp->target);
        } else if (may_connect) {
            lj_code code = lj_sftp_connect(sftp, ret_session, err);
            if (code != LJ_OK)
                one_less(sftp->target);
            return code;
        } else {
            LJ_TRY(wait_for_room(sftp, since_ns, err));
        }
    }
}

lj_code lj_sftp_take(lj_sftp *sftp, lj_sftp_session **ret_session, lj_error *err)
{
    /* libssh2 uses OpenSSL too, which exit() takes apart while workers may be in the middle of an object */
    (void)lj_guard_init();
    if (!lj_guard_enter())
        return lj_error_set(err, LJ_CANCELLED, "the process ends");
    lj_code code = take_or_connect(sftp, ret_session, err);
    if (code == LJ_OK)
        held++;
    else
        lj_guard_leave();
    return code;
}

void lj_sftp_give(lj_sftp *sftp, lj_sftp_session *s)
{
    lj_sftp_flush(s);
    /* where there is no room in the buffers for it, what is left to be sent goes with the next request */
    bool keep = !s->broken;
    held--;
    s->cancel = NULL;
    s->idle_since_ns = lj_clock_mono_ns();
    pthread_mutex_lock(&pool.mutex);
    if (keep) {
        s->next = sftp->target->idle;
        sftp->target->idle = s;
    } else {
        sftp->target->open--;
    }
    lj_sftp_session *surplus = take_surplus(s->idle_since_ns);
    pthread_mutex_unlock(&pool.mutex);
    if (!keep)
        lj_sftp_session_free(s);
    free_all(surplus);
    lj_guard_leave();
}
