/*
 * buf.h - a growable byte buffer with a mandatory maximum.
 *
 * Layer: base. Thread-safety: one owner. Memory: lj_buf_free() or LJ_CLEANUP(lj_buf_free).
 * The data is always followed by a NUL byte that is not counted, so text can be read as a C string.
 */
#ifndef LJ_BUF_H
#define LJ_BUF_H

#include "vfs/base/error.h"

typedef struct {
    uint8_t *data; /* NULL while nothing was added */
    size_t len;
    size_t cap;
    size_t max; /* appends beyond this fail with LJ_INVALID */
} lj_buf;

#define LJ_BUF_INIT(max_bytes)                                                                     \
    {                                                                                              \
        .data = NULL, .len = 0, .cap = 0, .max = (max_bytes)                                       \
    }

void lj_buf_free(lj_buf *buf);
/* Forgets the content, keeps the memory. */
void lj_buf_clear(lj_buf *buf);
/* Makes room for `extra` more bytes behind len. */
LJ_WARN_UNUSED lj_code lj_buf_reserve(lj_buf *buf, size_t extra, lj_error *err);
LJ_WARN_UNUSED lj_code lj_buf_append(lj_buf *buf, const void *data, size_t len, lj_error *err);
LJ_WARN_UNUSED lj_code lj_buf_printf(lj_buf *buf, lj_error *err, const char *fmt, ...)
    LJ_PRINTF(3, 4);
/* The content as text, "" when empty. Valid until the next change. */
const char *lj_buf_text(const lj_buf *buf);

#endif
