/*
 * stream.c - see stream.h.
 */
#include "vfs/base/stream.h"

#include <string.h>

#include "vfs/base/buf.h"

static lj_code memory_read(void *ctx, void *out, size_t max, size_t *ret_n, lj_error *err)
{
    (void)err;
    lj_memory_source *state = ctx;
    size_t n = LJ_MIN(max, state->len - state->pos);
    if (n > 0)
        memcpy(out, state->data + state->pos, n);
    state->pos += n;
    *ret_n = n;
    return LJ_OK;
}

static lj_code memory_rewind(void *ctx, lj_error *err)
{
    (void)err;
    ((lj_memory_source *)ctx)->pos = 0;
    return LJ_OK;
}

lj_source lj_source_memory(lj_memory_source *state, const void *data, size_t len)
{
    *state = (lj_memory_source){.data = data, .len = len, .pos = 0};
    return (lj_source){
        .ctx = state, .read = memory_read, .rewind = memory_rewind, .size = (int64_t)len};
}

static lj_code buf_write(void *ctx, const void *data, size_t len, lj_error *err)
{
    return lj_buf_append(ctx, data, len, err);
}

lj_sink lj_sink_buf(void *buf)
{
    return (lj_sink){.ctx = buf, .write = buf_write};
}

static lj_code nowhere_write(void *ctx, const void *data, size_t len, lj_error *err)
{
    (void)ctx, (void)data, (void)len, (void)err;
    return LJ_OK;
}

lj_sink lj_sink_nowhere(void)
{
    return (lj_sink){.write = nowhere_write};
}

lj_code lj_stream_copy(lj_source *source, lj_sink *sink, uint64_t *ret_bytes, lj_error *err)
{
    uint8_t chunk[65536];
    uint64_t total = 0;
    for (;;) {
        size_t n = 0;
        LJ_TRY(source->read(source->ctx, chunk, sizeof(chunk), &n, err));
        if (n == 0)
            break;
        LJ_TRY(sink->write(sink->ctx, chunk, n, err));
        total += n;
    }
    if (ret_bytes != NULL)
        *ret_bytes = total;
    return LJ_OK;
}
