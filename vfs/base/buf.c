/*
 * buf.c - see buf.h.
 */
#include "vfs/base/buf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void lj_buf_free(lj_buf *buf)
{
    free(buf->data);
    buf->data = NULL;
    buf->len = 0;
    buf->cap = 0;
}

void lj_buf_clear(lj_buf *buf)
{
    buf->len = 0;
    if (buf->data != NULL)
        buf->data[0] = 0;
}

lj_code lj_buf_reserve(lj_buf *buf, size_t extra, lj_error *err)
{
    if (extra > buf->max || buf->len > buf->max - extra)
        return lj_error_set(err, LJ_INVALID, "more than the maximum of %zu bytes", buf->max);
    size_t need = buf->len + extra + 1;
    if (need <= buf->cap)
        return LJ_OK;
    size_t cap = buf->cap == 0 ? 64 : buf->cap;
    while (cap < need)
        cap = cap > SIZE_MAX / 2 ? need : cap * 2;
    cap = LJ_MIN(cap, buf->max + 1);
    uint8_t *grown = realloc(buf->data, cap);
    if (grown == NULL)
        return lj_error_nomem(err);
    buf->data = grown;
    buf->cap = cap;
    buf->data[buf->len] = 0;
    return LJ_OK;
}

lj_code lj_buf_append(lj_buf *buf, const void *data, size_t len, lj_error *err)
{
    LJ_TRY(lj_buf_reserve(buf, len, err));
    if (len > 0)
        memcpy(buf->data + buf->len, data, len);
    buf->len += len;
    buf->data[buf->len] = 0;
    return LJ_OK;
}

lj_code lj_buf_printf(lj_buf *buf, lj_error *err, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int need = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (need < 0)
        return lj_error_set(err, LJ_INTERNAL, "formatting failed");
    LJ_TRY(lj_buf_reserve(buf, (size_t)need, err));
    va_start(ap, fmt);
    vsnprintf((char *)buf->data + buf->len, (size_t)need + 1, fmt, ap);
    va_end(ap);
    buf->len += (size_t)need;
    return LJ_OK;
}

const char *lj_buf_text(const lj_buf *buf)
{
    return buf->data == NULL ? "" : (const char *)buf->data;
}
