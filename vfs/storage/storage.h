/*
 * storage.h - the object-store interface every replica kind implements, and the checked calls above it.
 *
 * An object is a key and bytes. A key is relative, at most LJ_STORAGE_KEY_MAX bytes, '/'-separated without a leading or
 * trailing slash, has no empty, "." or ".." parts and no control characters; bytes from 0x80 on are taken as they
 * are. Objects appear whole or not at all. A driver is one folder under vfs/storage/ and fills one lj_storage_ops. The
 * callers use the lj_storage_* functions, which check arguments, count, and add "<url>: <key>" to errors.
 * No function retries: the one level of retries is the shipper's (vfs/ship) and the restorer's (vfs/restore).
 *
 * Layer: storage. Thread-safety: one lj_storage may be used by several threads at once; a driver sees to it.
 * Times are int64_t ns UTC. Errors: LJ_NOTFOUND, LJ_EXISTS, LJ_DENIED, LJ_NOSPACE, LJ_UNAVAILABLE, LJ_TIMEOUT,
 * LJ_IO, LJ_CANCELLED, as error.h says; `retryable` is set by the driver. An answer that cannot be understood is
 * LJ_UNAVAILABLE and retryable: what a replica holds is judged above, from its bytes.
 */
#ifndef LJ_STORAGE_H
#define LJ_STORAGE_H

#include "vfs/base/stream.h"

#define LJ_STORAGE_KEY_MAX 1024u

typedef struct lj_storage lj_storage;

typedef struct {
    const char *key;     /* valid during the callback only */
    uint64_t size_bytes; /* as stored */
    int64_t
        created_ns; /* the time Litestream v0.3.13 would use: file and sftp mtime, object time elsewhere */
} lj_storage_entry;

typedef enum {
    LJ_STORAGE_IF_ABSENT = 1u << 0,   /* put can refuse to overwrite, atomically */
    LJ_STORAGE_SET_TIME = 1u << 1,    /* put can set created_ns */
    LJ_STORAGE_SORTED_LIST = 1u << 2, /* list comes in byte order of the key */
    LJ_STORAGE_REMOTE =
        1u
        << 3, /* behind a network: gets side by side are faster than one, and what was listed may not be there for a moment */
} lj_storage_feature;

typedef struct {
    bool if_absent;     /* LJ_EXISTS instead of overwriting */
    int64_t created_ns; /* the object's time, 0 = now; ignored without LJ_STORAGE_SET_TIME */
} lj_storage_put_options;

/*
 * list callback. Return LJ_OK to go on; any other code ends the listing and is returned by lj_storage_list with
 * whatever *err the callback wrote.
 */
typedef lj_code (*lj_storage_list_fn)(void *ctx, const lj_storage_entry *entry, lj_error *err);

/* delete_many callback: called once per key with its own result; *err is NULL on success. */
typedef void (*lj_storage_delete_fn)(void *ctx, const char *key, const lj_error *err);

/*
 * What a driver implements. `self` is the driver's object. The contracts are those of lj_storage_* below, and the
 * callers' mistakes are caught before: keys and prefixes are well-formed, `options`, `source`, `sink` and `fn` are
 * never NULL, offset + length does not overflow, count is not 0, ret_entry->key is filled in above. A driver's list
 * may give entries that are not asked for (they are dropped above), and its errors need not name the URL and the key.
 */
typedef struct {
    const char *name; /* "file", "s3", ... */
    unsigned features;
    lj_code (*put)(void *self, const char *key, lj_source *source,
                   const lj_storage_put_options *options, lj_error *err);
    lj_code (*get)(void *self, const char *key, uint64_t offset, int64_t length, lj_sink *sink,
                   lj_error *err);
    lj_code (*head)(void *self, const char *key, lj_storage_entry *ret_entry, lj_error *err);
    lj_code (*list)(void *self, const char *prefix, const char *after, lj_storage_list_fn fn,
                    void *ctx, lj_error *err);
    lj_code (*delete_many)(void *self, const char *const *keys, size_t count,
                           lj_storage_delete_fn fn, void *ctx, lj_error *err);
    void (*close)(void *self);
    /* may be NULL: false */
    bool (*overwrites_late)(void *self);
} lj_storage_ops;

/* One setting of a replica by its name in litestream.yml ("region", "secret-access-key"). */
typedef struct {
    const char *name;
    const char *value; /* may be a secret; NULL counts as not given */
} lj_storage_setting;

/* Options every driver takes. A field that is 0 or NULL means the default. */
typedef struct {
    int64_t io_timeout_ns;              /* deadline of one request without progress; default 30 s */
    const lj_storage_setting *settings; /* beat the URL's query; copied */
    size_t setting_count;
    /* polled with __atomic_load_n: once true, calls that wait for a network end with LJ_CANCELLED within 0.2 s.
     * Outlives the storage. */
    const bool *cancel;
} lj_storage_options;

/*
 * To be called before pthread_atfork by whoever opens or closes storages while holding a mutex that his own handlers take:
 * those set last are called first before a fork, so that the mutexes come in the order in which threads take them (his,
 * then ours). Without it, a fork while another thread opens a storage can wait for ever. It is lj_http_prepare for atexit
 * handlers, too.
 */
void lj_storage_prepare(void);

/*
 * Opens the store that `url` names: "file:///abs/dir" (also "file://dir/x" == "/dir/x": v0.3.13 glues the host on),
 * later s3://, gcs://, gs://, abs://, sftp://. No request is made. Errors: LJ_INVALID for a malformed URL or an
 * unknown scheme (the hint lists the known ones). *ret_storage is freed with lj_storage_close.
 */
LJ_WARN_UNUSED lj_code lj_storage_open(const char *url, const lj_storage_options *options,
                                       lj_storage **ret_storage, lj_error *err);
/*
 * For drivers and tests: wraps a driver object, which is closed with the storage; on failure it stays the caller's.
 * `display_url` is what errors show; it goes through lj_storage_redact first.
 */
LJ_WARN_UNUSED lj_code lj_storage_wrap(const lj_storage_ops *ops, void *self,
                                       const char *display_url, lj_storage **ret_storage,
                                       lj_error *err);
void lj_storage_close(lj_storage *storage);

/*
 * Is this one of the environment variables that drivers read secrets from which no URL may have? They are LITEJOIN_ and the
 * store and the setting, so that whoever reads the other LITEJOIN_ variables must leave them alone.
 */
bool lj_storage_is_variable(const char *name);

/* A copy of `url` with "***" for the password of its userinfo, for messages (free()). NULL when out of memory. */
char *lj_storage_redact(const char *url);

/* The URL without secrets, for messages. Owned by the storage. */
const char *lj_storage_url(const lj_storage *storage);
/* The driver's name: "file", "s3", ... */
const char *lj_storage_type(const lj_storage *storage);
unsigned lj_storage_features(const lj_storage *storage);
/*
 * True when a put with if_absent that was given up and reaches the store late may overwrite what has been created there
 * meanwhile: the store does not keep the condition itself (S3 without If-None-Match), or nobody knows yet that it does.
 */
bool lj_storage_overwrites_late(const lj_storage *storage);

typedef enum {
    LJ_STORAGE_OP_PUT,
    LJ_STORAGE_OP_GET,
    LJ_STORAGE_OP_HEAD,
    LJ_STORAGE_OP_LIST,
    LJ_STORAGE_OP_DELETE,
    LJ_STORAGE_OP_COUNT
} lj_storage_op;

typedef struct {
    uint64_t calls[LJ_STORAGE_OP_COUNT];
    /* calls the store failed; not LJ_NOTFOUND and LJ_EXISTS, not failures of the caller's source, sink or callback */
    uint64_t errors[LJ_STORAGE_OP_COUNT];
    uint64_t put_bytes; /* of puts that succeeded */
    uint64_t get_bytes; /* handed to sinks */
} lj_storage_counters;

/* What was done since the storage was opened. Each number is exact, together they are no snapshot. */
void lj_storage_counters_get(lj_storage *storage, lj_storage_counters *ret_counters);

/*
 * Creates the object from the whole source. Atomic: a reader sees nothing or all of it, also after a crash (file: fsync
 * of the file and of its folder before it is visible under its name). With if_absent and the key present: LJ_EXISTS,
 * and the present object is untouched; where an HTTP status says so it is looked for. A failure of the source itself ends
 * the put with the source's error and leaves no object; so does a source that gives more or fewer bytes than its `size` says
 * (LJ_IO, retryable). The source is read from where it stands; for another try the caller rewinds it. `options` may be NULL.
 * Of a failure that is LJ_UNAVAILABLE, LJ_TIMEOUT, LJ_CANCELLED or LJ_NOMEM, and has no http_status from 400 to 499, nobody knows
 * whether the object is there, or comes yet; after any other it is not.
 */
LJ_WARN_UNUSED lj_code lj_storage_put(lj_storage *storage, const char *key, lj_source *source,
                                      const lj_storage_put_options *options, lj_error *err);
/*
 * Sends bytes offset..offset+length-1 to the sink (length -1: to the end). Fewer bytes than asked for because the
 * object ends is not an error (none at all when offset is at or behind the end); fewer because the transfer broke is
 * (LJ_UNAVAILABLE, retryable; go on at offset + bytes received).
 */
LJ_WARN_UNUSED lj_code lj_storage_get(lj_storage *storage, const char *key, uint64_t offset,
                                      int64_t length, lj_sink *sink, lj_error *err);
/* Size and time of one object; ret_entry->key is the caller's `key`. */
LJ_WARN_UNUSED lj_code lj_storage_head(lj_storage *storage, const char *key,
                                       lj_storage_entry *ret_entry, lj_error *err);
/*
 * Calls fn for every object whose key starts with `prefix` (a plain string prefix, not a folder) and is greater than
 * `after` (NULL: all), in byte order where LJ_STORAGE_SORTED_LIST is set, else in any order. An absent prefix is
 * an empty list, and no failure is LJ_NOTFOUND. Never shows unfinished puts, nor objects of others whose name is not a
 * key as above.
 */
LJ_WARN_UNUSED lj_code lj_storage_list(lj_storage *storage, const char *prefix, const char *after,
                                       lj_storage_list_fn fn, void *ctx, lj_error *err);
/*
 * Deletes in the given order, one after another where the store can (the order matters to readers that list
 * meanwhile). Such a store stops at the first failure and tells LJ_CANCELLED for the keys behind it, so that what is
 * left is always what an interrupted deletion in that order leaves. A key that is not there counts as deleted. Returns
 * LJ_OK when every key is gone, else the first error; fn (may be NULL) is told about each key, on the calling thread.
 */
LJ_WARN_UNUSED lj_code lj_storage_delete_many(lj_storage *storage, const char *const *keys,
                                              size_t count, lj_storage_delete_fn fn, void *ctx,
                                              lj_error *err);

#endif
