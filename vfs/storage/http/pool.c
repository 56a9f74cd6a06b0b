/*
 * pool.c - see pool.h.
 *
 * Layer: storage. Thread-safety: `pool.mutex` (rank: leaf) guards the list; no libcurl call that does I/O runs under it.
 */
#include "vfs/storage/http/pool.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "vfs/base/clock.h"
#include "vfs/storage/http/guard.h"

#define IDLE_MAX    16u
#define IDLE_FOR_NS (60 * LJ_NS_PER_S)

static struct {
    pthread_mutex_t mutex;
    lj_connection *idle; /* the one given back last comes first */
    unsigned users;
} pool = {.mutex = PTHREAD_MUTEX_INITIALIZER};

/* ---- fork: the child starts with nothing, and with a mutex that nobody holds ---- */

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
    pool.idle = NULL;
    pthread_mutex_unlock(&pool.mutex);
}

static void init_once(void)
{
    pthread_atfork(before_fork, in_parent, in_child);
}

void lj_pool_prepare(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, init_once);
}

/* ---- connections ---- */

static void close_all(lj_connection *c)
{
    lj_guard guard;
    if (c == NULL)
        return;
    lj_guard_begin(&guard);
    while (c != NULL) {
        lj_connection *next = c->next;
        curl_easy_cleanup(c->easy);
        curl_multi_cleanup(c->multi);
        free(c);
        c = next;
    }
    lj_guard_end(&guard);
}

static lj_connection *new_connection(void)
{
    lj_connection *c = calloc(1, sizeof(*c));
    if (c == NULL)
        return NULL;
    c->easy = curl_easy_init();
    c->multi = curl_multi_init();
    /* one socket each: what cannot be used again makes room for what replaces it */
    if (c->easy != NULL && c->multi != NULL &&
        curl_multi_setopt(c->multi, CURLMOPT_MAXCONNECTS, 1L) == CURLM_OK)
        return c;
    close_all(c);
    return NULL;
}

lj_code lj_pool_open(lj_error *err)
{
    lj_pool_prepare();
    CURLcode code = lj_guard_init();
    if (code != CURLE_OK)
        return lj_error_set(err, LJ_INTERNAL, "libcurl cannot be used: %s",
                            curl_easy_strerror(code));
    pthread_mutex_lock(&pool.mutex);
    pool.users++;
    pthread_mutex_unlock(&pool.mutex);
    return LJ_OK;
}

void lj_pool_close(void)
{
    lj_connection *left = NULL;
    pthread_mutex_lock(&pool.mutex);
    if (--pool.users == 0) {
        left = pool.idle;
        pool.idle = NULL;
    }
    pthread_mutex_unlock(&pool.mutex);
    close_all(left);
}

/* Takes what is too old or too much out of the list; under the mutex. */
static lj_connection *take_surplus(int64_t now_ns)
{
    lj_connection *surplus = NULL;
    unsigned kept = 0;
    for (lj_connection **link = &pool.idle; *link != NULL;) {
        lj_connection *c = *link;
        if (kept < IDLE_MAX && now_ns - c->idle_since_ns < IDLE_FOR_NS) {
            kept++;
            link = &c->next;
            continue;
        }
        *link = c->next;
        c->next = surplus;
        surplus = c;
    }
    return surplus;
}

lj_code lj_pool_take(const char *origin, lj_connection **ret_connection, lj_error *err)
{
    pthread_mutex_lock(&pool.mutex);
    lj_connection *surplus = take_surplus(lj_clock_mono_ns());
    lj_connection **link = &pool.idle;
    while (*link != NULL && strcmp((*link)->origin, origin) != 0)
        link = &(*link)->next;
    lj_connection *c = *link;
    if (c != NULL)
        *link = c->next;
    pthread_mutex_unlock(&pool.mutex);
    close_all(surplus);
    if (c == NULL)
        c = new_connection();
    if (c == NULL)
        return lj_error_nomem(err);
    c->next = NULL;
    strncpy(c->origin, origin, sizeof(c->origin) - 1);
    *ret_connection = c;
    return LJ_OK;
}

void lj_pool_give(lj_connection *connection, bool reusable)
{
    if (!reusable) {
        connection->next = NULL;
        close_all(connection);
        return;
    }
    curl_easy_reset(
        connection->easy); /* an idle handle keeps no URL and points to nobody's memory */
    connection->idle_since_ns = lj_clock_mono_ns();
    pthread_mutex_lock(&pool.mutex);
    connection->next = pool.idle;
    pool.idle = connection;
    lj_connection *surplus = take_surplus(connection->idle_since_ns);
    pthread_mutex_unlock(&pool.mutex);
    close_all(surplus);
}
