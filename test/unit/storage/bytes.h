/* bytes.h - streams for storage tests: content of any length that is computed, not kept. */
#ifndef LJ_TEST_BYTES_H
#define LJ_TEST_BYTES_H

#include "vfs/storage/storage.h"

/* Content number `seed`, `len` bytes. */
typedef struct {
    uint64_t seed;
    uint64_t len;
    uint64_t pos;
    uint64_t fail_at; /* reading beyond this gives LJ_BUSY "the source broke"; UINT64_MAX: never */
} bytes_source;
lj_source bytes_source_new(bytes_source *state, uint64_t seed, uint64_t len);

/* Compares what arrives with content number `seed` from `pos` on. */
typedef struct {
    uint64_t seed;
    uint64_t pos;
    uint64_t got;
    bool differs;
    uint64_t
        fail_at; /* the write that would go beyond this many bytes gives LJ_BUSY "the sink broke" */
} bytes_sink;
lj_sink bytes_sink_new(bytes_sink *state, uint64_t seed, uint64_t pos);

/* Puts `len` bytes of content `seed`. */
LJ_WARN_UNUSED lj_code bytes_put(lj_storage *storage, const char *key, uint64_t seed, uint64_t len,
                                 bool if_absent, lj_error *err);
/* Fails the test unless the object is `len` bytes of content `seed`. */
void bytes_expect(lj_storage *storage, const char *key, uint64_t seed, uint64_t len);

/* The keys of a listing, in the order given. */
typedef struct {
    char **keys;
    uint64_t *sizes;
    size_t count;
    size_t cap;
    size_t
        stop_after; /* the callback refuses the entry behind this many with LJ_CANCELLED; 0: never */
} key_list;
void key_list_read(lj_storage *storage, const char *prefix, const char *after, key_list *ret_list);
lj_code key_list_add(void *ctx, const lj_storage_entry *entry, lj_error *err);
bool key_list_has(const key_list *list, const char *key);
void key_list_free(key_list *list);
/* Deletes everything below `prefix`. */
void delete_below(lj_storage *storage, const char *prefix);

#endif
