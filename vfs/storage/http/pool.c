/*
 * pool.c - see pool.h.
 *
 * Layer: storage. Thread-safety: `pool.mutex` (rank: leaf) guards the list; no libcurl call that does I/O runs under it.
 */
#include "vfs/storage/http/pool.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vfs/base/clock.h"

#define IDLE_MAX    16u
#define IDLE_FOR_NS (60 * LJ_NS_PER_S)

static struct {
    pthread_mutex_t mutex;
    lj_connection *idle; /* the one given back last comes first */
    unsigned count;
    CURLcode init;
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
    pool.count = 0;
    pthread_mutex_unlock(&pool.mutex);
}

static void init_once(void)
{
    pool.init = curl_global_init(CURL_GLOBAL_DEFAULT);
    pthread_atfork(before_fork, in_parent, in_child);
}

/* ---- connections ---- */

static void close_connection(lj_connection *c)
{
    if (c == NULL)
        return;
    curl_easy_cleanup(c->easy);
    curl_multi_cleanup(c->multi);
    free(c);
}

static void close_all(lj_connection *c)
{
    while (c != NULL) {
        lj_connection *next = c->next;
        close_connection(c);
        c = next;
    }
}

static lj_connection *new_connection(void)
{
    lj_connection *c = calloc(1, sizeof(*c));
    if (c == NULL)
        return NULL;
    c->easy = curl_easy_init();
    c->multi = curl_multi_init();
    if (c->easy != NULL && c->multi != NULL)
        return c;
    close_connection(c);
    return NULL;
}

lj_code lj_pool_take(const char *origin, lj_connection **ret_connection, lj_error *err)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, init_once);
    if (pool.init != CURLE_OK)
        return lj_error_set(err, LJ_INTERNAL, "libcurl cannot be used: %s",
                            curl_easy_strerror(pool.init));
    pthread_mutex_lock(&pool.mutex);
    lj_connection **link = &pool.idle;
    while (*link != NULL && strcmp((*link)->origin, origin) != 0)
        link = &(*link)->next;
    lj_connection *c = *link;
    if (c != NULL) {
        *link = c->next;
        pool.count--;
    }
    pthread_mutex_unlock(&pool.mutex);
    if (c == NULL)
        c = new_connection();
    if (c == NULL)
        return lj_error_nomem(err);
    c->next = NULL;
    curl_easy_reset(c->easy);
    strncpy(c->origin, origin, sizeof(c->origin) - 1);
    *ret_connection = c;
    return LJ_OK;
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
    pool.count = kept;
    return surplus;
}

void lj_pool_give(lj_connection *connection, bool reusable)
{
    if (!reusable) {
        close_connection(connection);
        return;
    }
    connection->idle_since_ns = lj_clock_mono_ns();
    pthread_mutex_lock(&pool.mutex);
    connection->next = pool.idle;
    pool.idle = connection;
    lj_connection *surplus = take_surplus(connection->idle_since_ns);
    pthread_mutex_unlock(&pool.mutex);
    close_all(surplus);
}
