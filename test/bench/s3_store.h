/*
 * s3_store.h - the objects of s3_server: ordered by name, bodies in memory, in files, or thrown away.
 *
 * Thread-safety: any thread. An object that was looked up stays whole while its reference is held, whatever happens to its
 * name meanwhile.
 */
#ifndef LJ_BENCH_S3_STORE_H
#define LJ_BENCH_S3_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ETAG_BYTES 40

typedef enum { BODY_MEMORY, BODY_FILE, BODY_DISCARDED } body_kind;

/* One run of bytes: a whole object, or a part of one. */
typedef struct blob {
    unsigned references; /* atomic */
    body_kind kind;
    uint64_t size;
    uint8_t *data; /* BODY_MEMORY */
    int fd;        /* BODY_FILE; the file has no name */
} blob;

typedef struct object {
    unsigned references; /* atomic */
    uint64_t size;
    int64_t created_ns;
    char etag[ETAG_BYTES]; /* without quotes */
    size_t blob_count;
    blob *blobs[]; /* owned */
} object;

/* Bodies go to files in `folder` (NULL: memory). */
void store_init(const char *folder);
/* An id that nothing else has. */
uint64_t store_next_id(void);

/* NULL: no memory, or no room in the folder (errno). */
blob *blob_new(body_kind kind, uint64_t size);
void blob_drop(blob *b);
body_kind store_body_kind(void);

/* Takes over the blobs, also when it fails (NULL). */
object *object_new(blob **blobs, size_t count);
void object_drop(object *o);

typedef enum { STORE_OK, STORE_EXISTS, STORE_NOMEM } store_result;

/* Names are "bucket/key". Takes over `o`. */
store_result store_put(const char *name, object *o, bool if_absent);
/* A reference, or NULL. */
object *store_get(const char *name);
bool store_delete(const char *name);

/*
 * Calls fn for each name from `from` on, in byte order, under the store's lock; it returns false to stop, or sets *seek to go on at
 * the first name that is not less than that.
 */
typedef bool (*store_visit)(void *ctx, const char *name, const object *o, const char **seek);
void store_walk(const char *from, store_visit fn, void *ctx);

void store_numbers(uint64_t *ret_objects, uint64_t *ret_bytes);

#endif
