/*
 * s3_store.c - see s3_store.h. A skip list under one mutex; bodies are counted references outside of it.
 */
#include "test/bench/s3_store.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vfs/base/clock.h"
#include "vfs/base/str.h"

#define LEVELS 20

typedef struct node {
    char *name;
    object *value;
    struct node
        *next[LEVELS]; /* the upper ones are unused in most; a node is small against an object */
} node;

static struct {
    pthread_mutex_t mutex;
    node head;
    uint64_t random;
    uint64_t objects;
    uint64_t bytes;
    const char *folder;
} store = {.mutex = PTHREAD_MUTEX_INITIALIZER, .random = 88172645463325252u};

static _Atomic uint64_t last_id;

void store_init(const char *folder)
{
    store.folder = folder;
}

uint64_t store_next_id(void)
{
    return atomic_fetch_add(&last_id, 1) + 1;
}

body_kind store_body_kind(void)
{
    return store.folder != NULL ? BODY_FILE : BODY_MEMORY;
}

/* ---- bodies ---- */

blob *blob_new(body_kind kind, uint64_t size)
{
    blob *b = calloc(1, sizeof(*b));
    if (b == NULL)
        return NULL;
    *b = (blob){.references = 1, .kind = kind, .size = size, .fd = -1};
    if (kind == BODY_MEMORY)
        b->data = malloc(size + 1);
    if (kind == BODY_FILE)
        b->fd = open(store.folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if ((kind == BODY_MEMORY && b->data == NULL) || (kind == BODY_FILE && b->fd < 0)) {
        free(b);
        return NULL;
    }
    return b;
}

void blob_drop(blob *b)
{
    if (b == NULL || __atomic_sub_fetch(&b->references, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    if (b->fd >= 0)
        close(b->fd);
    free(b->data);
    free(b);
}

object *object_new(blob **blobs, size_t count)
{
    object *o = calloc(1, sizeof(*o) + count * sizeof(blob *));
    if (o == NULL) {
        for (size_t i = 0; i < count; i++)
            blob_drop(blobs[i]);
        return NULL;
    }
    o->references = 1;
    o->created_ns = lj_clock_wall_ns();
    o->blob_count = count;
    for (size_t i = 0; i < count; i++) {
        o->blobs[i] = blobs[i];
        o->size += blobs[i]->size;
    }
    (void)snprintf(o->etag, sizeof(o->etag), "%032llx", (unsigned long long)store_next_id());
    return o;
}

void object_drop(object *o)
{
    if (o == NULL || __atomic_sub_fetch(&o->references, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    for (size_t i = 0; i < o->blob_count; i++)
        blob_drop(o->blobs[i]);
    free(o);
}

/* ---- names; under the mutex ---- */

/* The last node before `name` on each level. */
static node *find(const char *name, node **before)
{
    node *at = &store.head;
    for (int level = LEVELS - 1; level >= 0; level--) {
        while (at->next[level] != NULL && strcmp(at->next[level]->name, name) < 0)
            at = at->next[level];
        before[level] = at;
    }
    return at->next[0];
}

static int random_level(void)
{
    store.random ^= store.random << 13;
    store.random ^= store.random >> 7;
    store.random ^= store.random << 17;
    int level = 1;
    for (uint64_t bits = store.random; (bits & 3) == 0 && level < LEVELS; bits >>= 2)
        level++;
    return level;
}

static bool insert(const char *name, object *o, node **before)
{
    node *fresh = calloc(1, sizeof(*fresh));
    char *copy = lj_str_dup(name);
    if (fresh == NULL || copy == NULL) {
        free(fresh);
        free(copy);
        return false;
    }
    fresh->name = copy;
    fresh->value = o;
    int levels = random_level();
    for (int level = 0; level < levels; level++) {
        fresh->next[level] = before[level]->next[level];
        before[level]->next[level] = fresh;
    }
    store.objects++;
    return true;
}

/* ---- calls ---- */

store_result store_put(const char *name, object *o, bool if_absent)
{
    node *before[LEVELS];
    object *old = NULL;
    store_result result = STORE_OK;
    pthread_mutex_lock(&store.mutex);
    node *at = find(name, before);
    bool present = at != NULL && strcmp(at->name, name) == 0;
    if (present && if_absent) {
        result = STORE_EXISTS;
    } else if (present) {
        old = at->value;
        at->value = o;
        store.bytes -= old->size;
        store.bytes += o->size;
    } else if (insert(name, o, before)) {
        store.bytes += o->size;
    } else {
        result = STORE_NOMEM;
    }
    pthread_mutex_unlock(&store.mutex);
    object_drop(result == STORE_OK ? old : o);
    return result;
}

object *store_get(const char *name)
{
    node *before[LEVELS];
    object *found = NULL;
    pthread_mutex_lock(&store.mutex);
    node *at = find(name, before);
    if (at != NULL && strcmp(at->name, name) == 0) {
        found = at->value;
        __atomic_add_fetch(&found->references, 1, __ATOMIC_RELAXED);
    }
    pthread_mutex_unlock(&store.mutex);
    return found;
}

bool store_delete(const char *name)
{
    node *before[LEVELS];
    pthread_mutex_lock(&store.mutex);
    node *at = find(name, before);
    bool present = at != NULL && strcmp(at->name, name) == 0;
    if (present) {
        for (int level = 0; level < LEVELS && before[level]->next[level] == at; level++)
            before[level]->next[level] = at->next[level];
        store.objects--;
        store.bytes -= at->value->size;
    }
    pthread_mutex_unlock(&store.mutex);
    if (!present)
        return false;
    object_drop(at->value);
    free(at->name);
    free(at);
    return true;
}

void store_walk(const char *from, store_visit fn, void *ctx)
{
    node *before[LEVELS];
    pthread_mutex_lock(&store.mutex);
    node *at = find(from, before);
    while (at != NULL) {
        const char *seek = NULL;
        if (!fn(ctx, at->name, at->value, &seek))
            break;
        at = seek != NULL ? find(seek, before) : at->next[0];
    }
    pthread_mutex_unlock(&store.mutex);
}

void store_numbers(uint64_t *ret_objects, uint64_t *ret_bytes)
{
    pthread_mutex_lock(&store.mutex);
    *ret_objects = store.objects;
    *ret_bytes = store.bytes;
    pthread_mutex_unlock(&store.mutex);
}
