/*
 * memory_storage.h - a replica in memory for tests, with faults: objects that vanish, break off or are listed shuffled.
 *
 * Not thread-safe for changes; reads from many threads are fine as long as nothing changes (the fault counters are atomic).
 */
#ifndef LJ_MEMORY_STORAGE_H
#define LJ_MEMORY_STORAGE_H

#include "test/unit/unit.h"

#include <errno.h>

#include "vfs/base/buf.h"
#include "vfs/base/str.h"
#include "vfs/codec/lz4.h"
#include "vfs/replica/name.h"
#include "vfs/storage/storage.h"

typedef struct {
    char *key;
    uint8_t *data;
    size_t len;
    int64_t created_ns;
    bool hidden; /* not listed and not there */
    bool gone;   /* listed but not there */
} memory_object;

typedef struct {
    memory_object *objects;
    size_t count;
    unsigned shuffle; /* != 0: the seed of the order of a listing */
    /* every get breaks off after this many bytes, with a transient error; 0 = never */
    size_t break_after;
    int failing_gets; /* the next so many gets fail at once, transiently */
    int late_gets;    /* the next so many gets do not see the object yet */
    int gets;
    int lists;
    void (*on_list)(void *replica); /* called before a listing */
    lj_storage *storage;
} memory_replica;

static memory_object *memory_find(memory_replica *m, const char *key)
{
    for (size_t i = 0; i < m->count; i++)
        if (!m->objects[i].hidden && strcmp(m->objects[i].key, key) == 0)
            return &m->objects[i];
    return NULL;
}

/* Keys are put in ascending order in the big tests: a binary search is tried first. */
static memory_object *memory_find_fast(memory_replica *m, const char *key)
{
    size_t low = 0;
    size_t high = m->count;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        int order = strcmp(m->objects[mid].key, key);
        if (order == 0 && !m->objects[mid].hidden)
            return &m->objects[mid];
        if (order == 0)
            break;
        if (order < 0)
            low = mid + 1;
        else
            high = mid;
    }
    return memory_find(m, key);
}

static lj_code memory_get(void *self, const char *key, uint64_t offset, int64_t length,
                          lj_sink *sink, lj_error *err)
{
    memory_replica *m = self;
    __atomic_fetch_add(&m->gets, 1, __ATOMIC_RELAXED);
    if (__atomic_load_n(&m->failing_gets, __ATOMIC_RELAXED) > 0 &&
        __atomic_fetch_sub(&m->failing_gets, 1, __ATOMIC_RELAXED) > 0) {
        lj_error_set(err, LJ_UNAVAILABLE, "503");
        (void)lj_error_retryable(err, true);
        return LJ_UNAVAILABLE;
    }
    const memory_object *object = memory_find_fast(m, key);
    if (m->late_gets > 0 && m->late_gets-- > 0)
        object = NULL;
    if (object == NULL || object->hidden || object->gone)
        return lj_error_set(err, LJ_NOTFOUND, "no such object");
    if (offset >= object->len)
        return LJ_OK;
    size_t left = object->len - (size_t)offset;
    if (length >= 0)
        left = LJ_MIN(left, (size_t)length);
    if (m->break_after != 0 && left > m->break_after) {
        LJ_TRY(sink->write(sink->ctx, object->data + offset, m->break_after, err));
        lj_error_set(err, LJ_UNAVAILABLE, "connection reset");
        (void)lj_error_retryable(err, true);
        return LJ_UNAVAILABLE;
    }
    return sink->write(sink->ctx, object->data + offset, left, err);
}

static lj_code memory_list(void *self, const char *prefix, const char *after, lj_storage_list_fn fn,
                           void *ctx, lj_error *err)
{
    memory_replica *m = self;
    m->lists++;
    if (m->on_list != NULL)
        m->on_list(m);
    size_t *order = malloc((m->count + 1) * sizeof(*order));
    assert_non_null(order);
    for (size_t i = 0; i < m->count; i++)
        order[i] = i;
    unsigned seed = m->shuffle;
    for (size_t i = m->count; m->shuffle != 0 && i > 1; i--) {
        size_t j = (size_t)rand_r(&seed) % i;
        size_t kept = order[i - 1];
        order[i - 1] = order[j];
        order[j] = kept;
    }
    lj_code code = LJ_OK;
    for (size_t i = 0; i < m->count && code == LJ_OK; i++) {
        const memory_object *object = &m->objects[order[i]];
        lj_storage_entry entry = {
            .key = object->key, .size_bytes = object->len, .created_ns = object->created_ns};
        if (!object->hidden && lj_str_starts(object->key, prefix) &&
            (after == NULL || strcmp(object->key, after) > 0))
            code = fn(ctx, &entry, err);
    }
    free(order);
    return code;
}

static lj_code memory_put(void *self, const char *key, lj_source *source,
                          const lj_storage_put_options *options, lj_error *err)
{
    (void)self, (void)key, (void)source, (void)options;
    return lj_error_set(err, LJ_UNSUPPORTED, "read-only");
}

static lj_code memory_head(void *self, const char *key, lj_storage_entry *ret_entry, lj_error *err)
{
    (void)self, (void)key, (void)ret_entry;
    return lj_error_set(err, LJ_UNSUPPORTED, "not needed");
}

static lj_code memory_delete(void *self, const char *const *keys, size_t count,
                             lj_storage_delete_fn fn, void *ctx, lj_error *err)
{
    (void)self, (void)keys, (void)count, (void)fn, (void)ctx;
    return lj_error_set(err, LJ_UNSUPPORTED, "read-only");
}

static void memory_close(void *self)
{
    (void)self;
}

/* With the features a real store may have. */
static inline void memory_open_with(memory_replica *m, lj_storage_ops *ops, unsigned features)
{
    *ops = (lj_storage_ops){
        .name = "memory",
        .features = features,
        .put = memory_put,
        .get = memory_get,
        .head = memory_head,
        .list = memory_list,
        .delete_many = memory_delete,
        .close = memory_close,
    };
    lj_error err = LJ_ERROR_INIT;
    *m = (memory_replica){0};
    assert_ok(lj_storage_wrap(ops, m, "memory://test", &m->storage, &err), &err);
}

static inline void memory_open(memory_replica *m)
{
    static lj_storage_ops ops;
    memory_open_with(m, &ops, 0);
}

static inline void memory_free(memory_replica *m)
{
    lj_storage_close(m->storage);
    for (size_t i = 0; i < m->count; i++) {
        free(m->objects[i].key);
        free(m->objects[i].data);
    }
    free(m->objects);
    *m = (memory_replica){0};
}

/* Adds an object as it is. */
static void memory_put_raw(memory_replica *m, const char *key, const void *data, size_t len,
                           int64_t created_ns)
{
    if ((m->count & (m->count - 1)) == 0) {
        m->objects = realloc(m->objects, (m->count == 0 ? 1 : m->count * 2) * sizeof(*m->objects));
        assert_non_null(m->objects);
    }
    uint8_t *copy = malloc(len + 1);
    assert_non_null(copy);
    if (len > 0)
        memcpy(copy, data, len);
    m->objects[m->count++] =
        (memory_object){.key = lj_str_dup(key), .data = copy, .len = len, .created_ns = created_ns};
}

/* Adds an object compressed. */
static inline void memory_put_lz4(memory_replica *m, const char *key, const void *data, size_t len,
                                  int64_t created_ns)
{
    lj_error err = LJ_ERROR_INIT;
    lj_memory_source state;
    lj_source plain = lj_source_memory(&state, data, len);
    lj_lz4_encoder *encoder = NULL;
    lj_source packed;
    lj_buf out = LJ_BUF_INIT((size_t)1 << 30);
    lj_sink sink = lj_sink_buf(&out);
    uint64_t n = 0;
    assert_ok(lj_lz4_encoder_new(&plain, &encoder, &packed, &err), &err);
    assert_ok(lj_stream_copy(&packed, &sink, &n, &err), &err);
    lj_lz4_encoder_free(encoder);
    memory_put_raw(m, key, out.data, out.len, created_ns);
    lj_buf_free(&out);
}

#endif
