/*
 * token.h - a credential that is fetched, kept, and fetched again before it expires.
 *
 * All replicas of a process that need the same credential (same key) share one source, so that 500 databases ask the
 * metadata service once. A source is refreshed when a quarter of its life, at most five minutes, is left. While that fails
 * the old credential serves until it expires, and the refresh is tried again after ten seconds. An answer of the store that
 * the credential has expired (lj_token_expired) makes the next get fetch a new one.
 *
 * Layer: storage. Thread-safety: any thread. One thread fetches at a time; the others use the present credential, or wait
 * where there is none, and share the fetcher's success or failure. Survives fork: the child begins without sources, and
 * those it inherited go on working for their holders.
 */
#ifndef LJ_TOKEN_H
#define LJ_TOKEN_H

#include "vfs/base/secret.h"

#define LJ_TOKEN_VALUES 3u

/* What the values are is the source's to say: one bearer token, or AWS's key id, secret key and session token. */
typedef struct {
    lj_secret values[LJ_TOKEN_VALUES];
    int64_t expires_ns; /* wall time; 0: never */
    uint64_t serial;    /* set by lj_token_get: which fetch it came from */
} lj_token;

#define LJ_TOKEN_INIT                                                                              \
    {                                                                                              \
        .expires_ns = 0                                                                            \
    }

void lj_token_free(lj_token *token);

typedef struct lj_token_source lj_token_source;

typedef struct {
    /*
     * Fills *ret_token (LJ_TOKEN_INIT before). Called by one thread at a time, without a lock held that others want. Its
     * lj_http requests end when the getter is cancelled; whatever else waits asks lj_cancel_requested(NULL) (cancel.h).
     */
    lj_code (*fetch)(void *ctx, lj_token *ret_token, lj_error *err);
    void (*free)(void *ctx);
} lj_token_ops;

/* Sets the handlers of fork; see lj_storage_prepare. */
void lj_token_prepare(void);

/*
 * The source with this key; a new one around `ctx` when there is none. `key` must say everything that decides what is fetched
 * (a secret among it as its SHA-256). Takes over `ctx` in every case, also on failure. Makes no request.
 */
LJ_WARN_UNUSED lj_code lj_token_source_open(const char *key, const lj_token_ops *ops, void *ctx,
                                            lj_token_source **ret_source, lj_error *err);
void lj_token_source_close(lj_token_source *source);

/*
 * A copy of a credential that is valid now. Freed with lj_token_free. Errors: those of `fetch`, but never LJ_NOTFOUND or
 * LJ_EXISTS (LJ_DENIED instead), which would say something about the object that is asked for.
 */
LJ_WARN_UNUSED lj_code lj_token_get(lj_token_source *source, lj_token *ret_token, lj_error *err);
/*
 * The same for a driver with lj_storage_options.cancel: LJ_CANCELLED soon after it, or the thread's flag (cancel.h), is true,
 * also while others fetch.
 */
LJ_WARN_UNUSED lj_code lj_token_get_until(lj_token_source *source, const bool *cancel,
                                          lj_token *ret_token, lj_error *err);
/* The store refused this credential as expired. Nothing happens when a newer one is there already. */
void lj_token_expired(lj_token_source *source, const lj_token *used);

#endif
