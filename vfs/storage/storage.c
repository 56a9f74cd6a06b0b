/*
 * storage.c - see storage.h: what stands once above all drivers.
 *
 * Layer: storage. Thread-safety: a lj_storage is constant after it was made, but for its counters, which are atomic.
 * Invariants: no driver sees a malformed key, and no caller sees an object under a malformed key; the display URL has
 * no password; an error of a driver carries the URL and the key, one of the caller's list callback is left alone.
 */
#include "vfs/storage/storage.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "vfs/base/str.h"
#include "vfs/storage/abs/abs.h"
#include "vfs/storage/auth/token.h"
#include "vfs/storage/file/file.h"
#include "vfs/storage/gcs/gcs.h"
#include "vfs/storage/http/http.h"
#include "vfs/storage/s3/s3.h"
#include "vfs/storage/sftp/sftp.h"

/* The replica kinds this build knows. */
static const struct {
    const char *scheme;
    lj_code (*open)(const char *url, const lj_storage_options *options, lj_storage **ret_storage,
                    lj_error *err);
} schemes[] = {
    {"abs", lj_abs_open}, {"file", lj_file_open}, {"gcs", lj_gcs_open},
    {"gs", lj_gcs_open},  {"s3", lj_s3_open},     {"sftp", lj_sftp_open},
};

static const char *const variables[] = {LJ_SFTP_PASSWORD_VARIABLE, LJ_SFTP_PASSPHRASE_VARIABLE,
                                        LJ_S3_CUSTOMER_KEY_VARIABLE};

struct lj_storage {
    const lj_storage_ops *ops;
    void *self;
    char *url;
    _Atomic uint64_t calls[LJ_STORAGE_OP_COUNT];
    _Atomic uint64_t errors[LJ_STORAGE_OP_COUNT];
    _Atomic uint64_t put_bytes;
    _Atomic uint64_t get_bytes;
};

static void count(_Atomic uint64_t *counter, uint64_t n)
{
    atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

/* ---- opening ---- */

/* Length of the scheme when `url` starts with letters, digits or '_' and "://"; else 0. */
static size_t scheme_length(const char *url)
{
    size_t n = strspn(url, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_");
    return n > 0 && n <= 32 && strncmp(url + n, "://", 3) == 0 ? n : 0;
}

static lj_code unknown_scheme(const char *scheme, size_t len, lj_error *err)
{
    char known[128] = "";
    size_t used = 0;
    for (size_t i = 0; i < LJ_ARRAY_LEN(schemes) && used < sizeof(known); i++)
        used += (size_t)snprintf(known + used, sizeof(known) - used, "%s%s://", i > 0 ? ", " : "",
                                 schemes[i].scheme);
    /* the URL itself may hold a password and is not shown */
    if (len == 0)
        lj_error_set(err, LJ_INVALID, "the replica URL does not start with a scheme");
    else
        lj_error_set(err, LJ_INVALID, "unknown scheme \"%.*s\" in the replica URL", (int)len,
                     scheme);
    (void)lj_error_hint(err, "a replica URL starts with one of: %s", known);
    return LJ_INVALID;
}

void lj_storage_prepare(void)
{
    lj_http_prepare();
    lj_token_prepare();
    lj_sftp_prepare();
}

lj_code lj_storage_open(const char *url, const lj_storage_options *options,
                        lj_storage **ret_storage, lj_error *err)
{
    static const lj_storage_options defaults = {.io_timeout_ns = 0};
    size_t len = scheme_length(url);
    for (size_t i = 0; len > 0 && i < LJ_ARRAY_LEN(schemes); i++)
        if (strlen(schemes[i].scheme) == len && strncasecmp(url, schemes[i].scheme, len) == 0)
            return schemes[i].open(url, options != NULL ? options : &defaults, ret_storage, err);
    return unknown_scheme(url, len, err);
}

bool lj_storage_is_variable(const char *name)
{
    for (size_t i = 0; i < LJ_ARRAY_LEN(variables); i++)
        if (strcmp(variables[i], name) == 0)
            return true;
    return false;
}

/*
 * Where the password ends: at the last '@' of the authority. A password with a raw '/' or '?' would cut the authority
 * short; when what follows the ':' cannot be a port, the last '@' of the whole URL is taken: rather too much than too
 * little.
 */
static const char *password_end(const char *password)
{
    size_t authority = strcspn(password, "/?#");
    const char *end = NULL;
    for (size_t i = 0; i < authority; i++)
        if (password[i] == '@')
            end = password + i;
    if (end == NULL && strspn(password, "0123456789") < authority)
        end = strrchr(password, '@');
    return end;
}

char *lj_storage_redact(const char *url)
{
    size_t scheme = scheme_length(url);
    if (scheme == 0)
        return lj_str_dup(url);
    const char *user = url + scheme + 3;
    size_t user_len = strcspn(user, ":/?#");
    const char *end = user[user_len] == ':' ? password_end(user + user_len + 1) : NULL;
    if (end == NULL)
        return lj_str_dup(url);
    return lj_str_printf("%.*s:***%s", (int)(user + user_len - url), url, end);
}

lj_code lj_storage_wrap(const lj_storage_ops *ops, void *self, const char *display_url,
                        lj_storage **ret_storage, lj_error *err)
{
    lj_storage *storage = calloc(1, sizeof(*storage));
    char *url = lj_storage_redact(display_url);
    if (storage == NULL || url == NULL) {
        free(storage);
        free(url);
        return lj_error_nomem(err);
    }
    storage->ops = ops;
    storage->self = self;
    storage->url = url;
    *ret_storage = storage;
    return LJ_OK;
}

void lj_storage_close(lj_storage *storage)
{
    if (storage == NULL)
        return;
    storage->ops->close(storage->self);
    free(storage->url);
    free(storage);
}

const char *lj_storage_url(const lj_storage *storage)
{
    return storage->url;
}

const char *lj_storage_type(const lj_storage *storage)
{
    return storage->ops->name;
}

unsigned lj_storage_features(const lj_storage *storage)
{
    return storage->ops->features;
}

bool lj_storage_overwrites_late(const lj_storage *storage)
{
    return storage->ops->overwrites_late != NULL && storage->ops->overwrites_late(storage->self);
}

void lj_storage_counters_get(lj_storage *storage, lj_storage_counters *ret_counters)
{
    for (size_t i = 0; i < LJ_STORAGE_OP_COUNT; i++) {
        ret_counters->calls[i] = atomic_load_explicit(&storage->calls[i], memory_order_relaxed);
        ret_counters->errors[i] = atomic_load_explicit(&storage->errors[i], memory_order_relaxed);
    }
    ret_counters->put_bytes = atomic_load_explicit(&storage->put_bytes, memory_order_relaxed);
    ret_counters->get_bytes = atomic_load_explicit(&storage->get_bytes, memory_order_relaxed);
}

/* ---- checks ---- */

/* What is wrong with a key, NULL if nothing. A prefix may be "" and may end in a slash or in the middle of a part. */
static const char *key_fault(const char *key, bool is_prefix)
{
    size_t len = strnlen(key, LJ_STORAGE_KEY_MAX + 1);
    if (len > LJ_STORAGE_KEY_MAX)
        return "is too long";
    if (len == 0)
        return is_prefix ? NULL : "is empty";
    for (size_t i = 0; i < len; i++)
        if ((unsigned char)key[i] < 0x20 || key[i] == 0x7f)
            return "has a control character";
    for (const char *part = key;;) {
        size_t n = strcspn(part, "/");
        bool last = part[n] == 0;
        bool unfinished = last && is_prefix;
        if (((n == 1 && part[0] == '.') || (n == 2 && strncmp(part, "..", 2) == 0)) && !unfinished)
            return "has a \".\" or \"..\" part";
        if (n == 0 && !unfinished)
            return part == key ? "starts with a slash" : "has an empty part";
        if (last)
            return NULL;
        part += n + 1;
    }
}

static lj_code check_key(const lj_storage *storage, const char *key, bool is_prefix, lj_error *err)
{
    const char *fault = key_fault(key, is_prefix);
    if (fault == NULL)
        return LJ_OK;
    char shown[64];
    size_t n = 0;
    for (; n + 1 < sizeof(shown) && key[n] != 0; n++)
        shown[n] = (char)((unsigned char)key[n] < 0x20 || key[n] == 0x7f ? '?' : key[n]);
    shown[n] = 0;
    return lj_error_set(
        err, LJ_INVALID, "%s: the %s \"%s\" %s (at most %u bytes of names between slashes)",
        storage->url, is_prefix ? "prefix" : "key", shown, fault, LJ_STORAGE_KEY_MAX);
}

/*
 * A store's own answer is never LJ_CORRUPT or LJ_CONFLICT: those are verdicts on the replica's content, for which the shipper
 * gives a generation up.
 */
static lj_code no_verdict(lj_code code, lj_error *err)
{
    if (code != LJ_CORRUPT && code != LJ_CONFLICT)
        return code;
    if (err != NULL)
        err->code = LJ_UNAVAILABLE;
    (void)lj_error_retryable(err, true);
    return LJ_UNAVAILABLE;
}

/* Counts a call that ended, and adds where it failed. `ours`: the failure was not the store's. */
static lj_code finish(lj_storage *storage, lj_storage_op op, lj_code code, bool ours,
                      const char *key, lj_error *err)
{
    count(&storage->calls[op], 1);
    if (code == LJ_OK)
        return LJ_OK;
    if (!ours)
        code = no_verdict(code, err);
    if (!ours && code != LJ_NOTFOUND && code != LJ_EXISTS)
        count(&storage->errors[op], 1);
    (void)lj_error_context(err, "%s: %s", storage->url, key);
    return code;
}

/* ---- put ---- */

typedef struct {
    lj_source *inner;
    uint64_t bytes;
    bool failed;
} put_source;

static lj_code put_read(void *ctx, void *out, size_t max, size_t *ret_n, lj_error *err)
{
    put_source *state = ctx;
    size_t n = 0;
    lj_code code = state->inner->read(state->inner->ctx, out, max, &n, err);
    state->bytes += n;
    int64_t size = state->inner->size;
    if (code == LJ_OK && size >= 0 &&
        (state->bytes > (uint64_t)size || (n == 0 && max > 0 && state->bytes < (uint64_t)size))) {
        code = lj_error_set(
            err, LJ_IO, "the content changed while it was read: %" PRIu64 " bytes%s of %" PRId64,
            state->bytes, n > 0 ? " so far" : "", size);
        (void)lj_error_retryable(err, true);
    }
    if (code != LJ_OK) {
        state->failed = true;
        return code;
    }
    *ret_n = n;
    return LJ_OK;
}

static lj_code put_rewind(void *ctx, lj_error *err)
{
    put_source *state = ctx;
    state->bytes = 0;
    return state->inner->rewind(state->inner->ctx, err);
}

/*
 * A first snapshot counts as put when its name is taken, for nobody else has that name. So what an HTTP status says is there is
 * looked for: something between that answers 412 on its own would let a generation begin without one. (Without a status
 * the driver has looked.)
 */
static lj_code confirm_exists(lj_storage *storage, const char *key, lj_error *err)
{
    if (err->http_status == 0)
        return LJ_EXISTS;
    lj_storage_entry entry = {.key = key, .size_bytes = 0, .created_ns = 0};
    lj_error why = LJ_ERROR_INIT;
    lj_code code = storage->ops->head(storage->self, key, &entry, &why);
    if (code == LJ_OK || code == LJ_DENIED) /* who may not look has to believe it */
        return LJ_EXISTS;
    if (code == LJ_NOTFOUND) {
        code = lj_error_set(&why, LJ_UNAVAILABLE,
                            "the answer was that the object is there already, but it is not");
        (void)lj_error_hint(&why, "something between answers in the store's place: a proxy");
        (void)lj_error_retryable(&why, true);
    }
    *err = why;
    return code;
}

lj_code lj_storage_put(lj_storage *storage, const char *key, lj_source *source,
                       const lj_storage_put_options *options, lj_error *err)
{
    static const lj_storage_put_options defaults = {.if_absent = false, .created_ns = 0};
    LJ_TRY(check_key(storage, key, false, err));
    if (options == NULL)
        options = &defaults;
    if (options->if_absent && (storage->ops->features & LJ_STORAGE_IF_ABSENT) == 0)
        return lj_error_set(err, LJ_UNSUPPORTED, "%s: this store cannot refuse to overwrite",
                            storage->url);
    put_source state = {.inner = source, .bytes = 0, .failed = false};
    lj_source counted = {
        .ctx = &state, .read = put_read, .rewind = put_rewind, .size = source->size};
    lj_error local = LJ_ERROR_INIT;
    lj_error *error = err != NULL ? err : &local;
    lj_code code = storage->ops->put(storage->self, key, &counted, options, error);
    if (code == LJ_OK)
        count(&storage->put_bytes, state.bytes);
    if (code == LJ_EXISTS && !state.failed)
        code = confirm_exists(storage, key, error);
    return finish(storage, LJ_STORAGE_OP_PUT, code, state.failed, key, error);
}

/* ---- get, head ---- */

typedef struct {
    lj_sink *inner;
    uint64_t bytes;
    uint64_t max;
    bool failed;
} get_sink;

static lj_code get_write(void *ctx, const void *data, size_t len, lj_error *err)
{
    get_sink *state = ctx;
    if (len > state->max - state->bytes)
        return lj_error_set(err, LJ_IO, "the store sent more than the %" PRIu64 " bytes asked for",
                            state->max);
    lj_code code = state->inner->write(state->inner->ctx, data, len, err);
    if (code == LJ_OK)
        state->bytes += len;
    else
        state->failed = true;
    return code;
}

lj_code lj_storage_get(lj_storage *storage, const char *key, uint64_t offset, int64_t length,
                       lj_sink *sink, lj_error *err)
{
    LJ_TRY(check_key(storage, key, false, err));
    if (length < -1 || offset > INT64_MAX ||
        (length > 0 && offset > (uint64_t)(INT64_MAX - length)))
        return lj_error_set(err, LJ_INVALID,
                            "%s: %s: no such range: %" PRId64 " bytes from %" PRIu64, storage->url,
                            key, length, offset);
    get_sink state = {.inner = sink,
                      .bytes = 0,
                      .max = length < 0 ? UINT64_MAX : (uint64_t)length,
                      .failed = false};
    lj_sink counted = {.ctx = &state, .write = get_write};
    lj_code code = storage->ops->get(storage->self, key, offset, length, &counted, err);
    count(&storage->get_bytes, state.bytes);
    return finish(storage, LJ_STORAGE_OP_GET, code, state.failed, key, err);
}

lj_code lj_storage_head(lj_storage *storage, const char *key, lj_storage_entry *ret_entry,
                        lj_error *err)
{
    LJ_TRY(check_key(storage, key, false, err));
    lj_storage_entry entry = {.key = key, .size_bytes = 0, .created_ns = 0};
    lj_code code = storage->ops->head(storage->self, key, &entry, err);
    if (code == LJ_OK) {
        entry.key = key;
        *ret_entry = entry;
    }
    return finish(storage, LJ_STORAGE_OP_HEAD, code, false, key, err);
}

/* ---- list ---- */

typedef struct {
    const char *prefix;
    const char *after;
    lj_storage_list_fn fn;
    void *ctx;
    bool stopped;
} list_guard;

static lj_code list_entry(void *ctx, const lj_storage_entry *entry, lj_error *err)
{
    list_guard *guard = ctx;
    if (!lj_str_starts(entry->key, guard->prefix) || key_fault(entry->key, false) != NULL ||
        (guard->after != NULL && strcmp(entry->key, guard->after) <= 0))
        return LJ_OK;
    lj_code code = guard->fn(guard->ctx, entry, err);
    guard->stopped = code != LJ_OK;
    return code;
}

/*
 * A listing that failed is never LJ_NOTFOUND: to callers that means a replica without anything, and an open would begin with an
 * empty database. (An endpoint with the bucket in its host makes S3 look for an object of the bucket's name.)
 */
static lj_code no_emptiness(lj_code code, lj_error *err)
{
    if (code != LJ_NOTFOUND)
        return code;
    if (err != NULL)
        err->code = LJ_UNAVAILABLE;
    (void)lj_error_retryable(err, true);
    return LJ_UNAVAILABLE;
}

lj_code lj_storage_list(lj_storage *storage, const char *prefix, const char *after,
                        lj_storage_list_fn fn, void *ctx, lj_error *err)
{
    LJ_TRY(check_key(storage, prefix, true, err));
    list_guard guard = {.prefix = prefix, .after = after, .fn = fn, .ctx = ctx, .stopped = false};
    lj_code code = storage->ops->list(storage->self, prefix, after, list_entry, &guard, err);
    if (guard.stopped) {
        count(&storage->calls[LJ_STORAGE_OP_LIST], 1);
        return code;
    }
    code = no_emptiness(code, err);
    return finish(storage, LJ_STORAGE_OP_LIST, code, false, prefix, err);
}

/* ---- delete ---- */

typedef struct {
    lj_storage *storage;
    lj_storage_delete_fn fn;
    void *ctx;
    lj_error first; /* the first key that failed */
} delete_guard;

static void delete_result(void *ctx, const char *key, const lj_error *err)
{
    delete_guard *guard = ctx;
    if (err == NULL) {
        if (guard->fn != NULL)
            guard->fn(guard->ctx, key, NULL);
        return;
    }
    lj_error shown = *err;
    (void)no_verdict(shown.code, &shown);
    (void)lj_error_context(&shown, "%s: %s", guard->storage->url, key);
    if (guard->first.code == LJ_OK)
        guard->first = shown;
    if (guard->fn != NULL)
        guard->fn(guard->ctx, key, &shown);
}

lj_code lj_storage_delete_many(lj_storage *storage, const char *const *keys, size_t n_keys,
                               lj_storage_delete_fn fn, void *ctx, lj_error *err)
{
    for (size_t i = 0; i < n_keys; i++)
        LJ_TRY(check_key(storage, keys[i], false, err));
    if (n_keys == 0)
        return LJ_OK;
    delete_guard guard = {.storage = storage, .fn = fn, .ctx = ctx, .first = LJ_ERROR_INIT};
    lj_error whole = LJ_ERROR_INIT;
    lj_code code =
        storage->ops->delete_many(storage->self, keys, n_keys, delete_result, &guard, &whole);
    count(&storage->calls[LJ_STORAGE_OP_DELETE], 1);
    if (code == LJ_OK && guard.first.code == LJ_OK)
        return LJ_OK;
    count(&storage->errors[LJ_STORAGE_OP_DELETE], 1);
    if (guard.first.code == LJ_OK) {
        (void)no_verdict(code, &whole);
        (void)lj_error_context(&whole, "%s", storage->url);
        guard.first = whole;
    }
    if (err != NULL)
        *err = guard.first;
    return guard.first.code;
}
