/*
 * pool.h - the idle connections of the process (internal to http/).
 *
 * A connection is a curl easy handle with a multi handle of its own, which keeps one socket. Whoever takes one owns it
 * until it is given back; so two threads never share a libcurl object (libcurl cannot share connections between threads).
 *
 * Layer: storage. Thread-safety: any thread. Survives fork: a child gets an empty pool, the parent's handles stay the
 * parent's (they are not closed in the child, which would send a TLS close on the parent's socket).
 */
#ifndef LJ_HTTP_POOL_H
#define LJ_HTTP_POOL_H

#include <curl/curl.h>

#include "vfs/base/error.h"
#include "vfs/storage/http/guard.h"

#define LJ_HTTP_ORIGIN_MAX 320

typedef struct lj_connection {
    CURL *easy;
    CURLM *multi;
    lj_sockets sockets;
    char origin[LJ_HTTP_ORIGIN_MAX]; /* what it was last used for */
    int64_t idle_since_ns;
    struct lj_connection *next;
} lj_connection;

/* Sets the pool's handlers of fork; see lj_storage_prepare. */
void lj_pool_prepare(void);

/* Counts the users of the pool. When the last one lets go, all idle connections are closed. */
LJ_WARN_UNUSED lj_code lj_pool_open(lj_error *err);
void lj_pool_close(void);

/* One that was last used for `origin`, else a new one; without any option set. */
LJ_WARN_UNUSED lj_code lj_pool_take(const char *origin, lj_connection **ret_connection,
                                    lj_error *err);
/*
 * Gives it back; every option is forgotten. Not `reusable`: closed. So are, at every take and give, those that were idle for
 * more than a minute.
 */
void lj_pool_give(lj_connection *connection, bool reusable);

#endif
