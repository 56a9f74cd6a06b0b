/* bytes.c - see bytes.h. */
#include "test/unit/unit.h"

#include "test/unit/storage/bytes.h"
#include "vfs/base/str.h"

static uint8_t byte_at(uint64_t seed, uint64_t pos)
{
    return (uint8_t)(seed * 131 + pos + (pos >> 8) * 7 + (pos >> 16) * 3);
}

static lj_code source_read(void *ctx, void *out, size_t max, size_t *ret_n, lj_error *err)
{
    bytes_source *state = ctx;
    size_t n = (size_t)LJ_MIN((uint64_t)max, state->len - state->pos);
    if (state->pos + n > state->fail_at)
        return lj_error_set(err, LJ_BUSY, "the source broke");
    for (size_t i = 0; i < n; i++)
        ((uint8_t *)out)[i] = byte_at(state->seed, state->pos + i);
    state->pos += n;
    *ret_n = n;
    return LJ_OK;
}

static lj_code source_rewind(void *ctx, lj_error *err)
{
    (void)err;
    ((bytes_source *)ctx)->pos = 0;
    return LJ_OK;
}

lj_source bytes_source_new(bytes_source *state, uint64_t seed, uint64_t len)
{
    *state = (bytes_source){.seed = seed, .len = len, .pos = 0, .fail_at = UINT64_MAX};
    return (lj_source){
        .ctx = state, .read = source_read, .rewind = source_rewind, .size = (int64_t)len};
}

static lj_code sink_write(void *ctx, const void *data, size_t len, lj_error *err)
{
    bytes_sink *state = ctx;
    if (state->got + len > state->fail_at)
        return lj_error_set(err, LJ_BUSY, "the sink broke");
    for (size_t i = 0; i < len; i++)
        if (((const uint8_t *)data)[i] != byte_at(state->seed, state->pos + i))
            state->differs = true;
    state->pos += len;
    state->got += len;
    return LJ_OK;
}

lj_sink bytes_sink_new(bytes_sink *state, uint64_t seed, uint64_t pos)
{
    *state = (bytes_sink){.seed = seed, .pos = pos, .fail_at = UINT64_MAX};
    return (lj_sink){.ctx = state, .write = sink_write};
}

lj_code bytes_put(lj_storage *storage, const char *key, uint64_t seed, uint64_t len, bool if_absent,
                  lj_error *err)
{
    bytes_source state;
    lj_source source = bytes_source_new(&state, seed, len);
    lj_storage_put_options options = {.if_absent = if_absent};
    return lj_storage_put(storage, key, &source, &options, err);
}

void bytes_expect(lj_storage *storage, const char *key, uint64_t seed, uint64_t len)
{
    lj_error err = LJ_ERROR_INIT;
    bytes_sink state;
    lj_sink sink = bytes_sink_new(&state, seed, 0);
    assert_ok(lj_storage_get(storage, key, 0, -1, &sink, &err), &err);
    assert_int_equal(state.got, len);
    assert_false(state.differs);
}

lj_code key_list_add(void *ctx, const lj_storage_entry *entry, lj_error *err)
{
    key_list *list = ctx;
    if (list->stop_after != 0 && list->count == list->stop_after)
        return lj_error_set(err, LJ_CANCELLED, "enough");
    if (list->count == list->cap) {
        list->cap = list->cap * 2 + 16;
        list->keys = realloc(list->keys, list->cap * sizeof(*list->keys));
        list->sizes = realloc(list->sizes, list->cap * sizeof(*list->sizes));
        if (list->keys == NULL || list->sizes == NULL)
            abort();
    }
    list->keys[list->count] = lj_str_dup(entry->key);
    list->sizes[list->count++] = entry->size_bytes;
    return LJ_OK;
}

void key_list_read(lj_storage *storage, const char *prefix, const char *after, key_list *ret_list)
{
    lj_error err = LJ_ERROR_INIT;
    *ret_list = (key_list){.keys = NULL};
    assert_ok(lj_storage_list(storage, prefix, after, key_list_add, ret_list, &err), &err);
    if ((lj_storage_features(storage) & LJ_STORAGE_SORTED_LIST) != 0)
        for (size_t i = 1; i < ret_list->count; i++)
            assert_true(strcmp(ret_list->keys[i - 1], ret_list->keys[i]) < 0);
}

bool key_list_has(const key_list *list, const char *key)
{
    for (size_t i = 0; i < list->count; i++)
        if (strcmp(list->keys[i], key) == 0)
            return true;
    return false;
}

void key_list_free(key_list *list)
{
    for (size_t i = 0; i < list->count; i++)
        free(list->keys[i]);
    free(list->keys);
    free(list->sizes);
    *list = (key_list){.keys = NULL};
}

void delete_below(lj_storage *storage, const char *prefix)
{
    lj_error err = LJ_ERROR_INIT;
    key_list list;
    key_list_read(storage, prefix, NULL, &list);
    assert_ok(lj_storage_delete_many(storage, (const char *const *)list.keys, list.count, NULL,
                                     NULL, &err),
              &err);
    key_list_free(&list);
}
