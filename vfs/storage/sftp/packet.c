/*
 * packet.c - see packet.h.
 *
 * Layer: storage.
 */
#include "vfs/storage/sftp/packet.h"

#include <string.h>

/* ---- reading ---- */

lj_fx_reader lj_fx_reader_new(const void *data, size_t len)
{
    return (lj_fx_reader){.data = data, .left = len, .bad = false};
}

/* The next `len` bytes, NULL when there are fewer. */
static const uint8_t *take(lj_fx_reader *reader, size_t len)
{
    if (reader->bad || reader->left < len) {
        reader->bad = true;
        return NULL;
    }
    const uint8_t *at = reader->data;
    reader->data += len;
    reader->left -= len;
    return at;
}

uint8_t lj_fx_read_u8(lj_fx_reader *reader)
{
    const uint8_t *at = take(reader, 1);
    return at != NULL ? at[0] : 0;
}

uint32_t lj_fx_read_u32(lj_fx_reader *reader)
{
    const uint8_t *at = take(reader, 4);
    return at != NULL ? lj_get_be32(at) : 0;
}

uint64_t lj_fx_read_u64(lj_fx_reader *reader)
{
    const uint8_t *at = take(reader, 8);
    return at != NULL ? ((uint64_t)lj_get_be32(at) << 32) | lj_get_be32(at + 4) : 0;
}

const uint8_t *lj_fx_read_string(lj_fx_reader *reader, size_t *ret_len)
{
    static const uint8_t nothing[1] = {0};
    uint32_t len = lj_fx_read_u32(reader);
    const uint8_t *at = take(reader, len);
    *ret_len = at != NULL ? len : 0;
    return at != NULL ? at : nothing;
}

void lj_fx_read_attrs(lj_fx_reader *reader, lj_fx_attrs *ret_attrs)
{
    lj_fx_attrs attrs = {.flags = lj_fx_read_u32(reader)};
    if ((attrs.flags & LJ_FXA_SIZE) != 0)
        attrs.size = lj_fx_read_u64(reader);
    if ((attrs.flags & LJ_FXA_UIDGID) != 0)
        (void)take(reader, 8);
    if ((attrs.flags & LJ_FXA_PERMISSIONS) != 0)
        attrs.permissions = lj_fx_read_u32(reader);
    if ((attrs.flags & LJ_FXA_TIMES) != 0) {
        attrs.atime = lj_fx_read_u32(reader);
        attrs.mtime = lj_fx_read_u32(reader);
    }
    if ((attrs.flags & LJ_FXA_EXTENDED) != 0) {
        uint32_t pairs = lj_fx_read_u32(reader);
        for (uint32_t i = 0; i < pairs && !reader->bad; i++) {
            size_t ignored = 0;
            (void)lj_fx_read_string(reader, &ignored);
            (void)lj_fx_read_string(reader, &ignored);
        }
    }
    if (reader->bad)
        attrs = (lj_fx_attrs){.flags = 0};
    *ret_attrs = attrs;
}

/* ---- building ---- */

static void append(lj_fx_writer *writer, const void *data, size_t len)
{
    if (!writer->failed && len > 0)
        writer->failed = lj_buf_append(writer->buf, data, len, NULL) != LJ_OK;
}

void lj_fx_u32(lj_fx_writer *writer, uint32_t value)
{
    uint8_t bytes[4];
    lj_put_be32(bytes, value);
    append(writer, bytes, sizeof(bytes));
}

lj_fx_writer lj_fx_begin(lj_buf *buf, uint8_t type, uint32_t id)
{
    lj_fx_writer writer = {.buf = buf, .start = buf->len, .failed = false};
    lj_fx_u32(&writer, 0);
    append(&writer, &type, 1);
    lj_fx_u32(&writer, id);
    return writer;
}

void lj_fx_u64(lj_fx_writer *writer, uint64_t value)
{
    lj_fx_u32(writer, (uint32_t)(value >> 32));
    lj_fx_u32(writer, (uint32_t)value);
}

void lj_fx_string(lj_fx_writer *writer, const void *data, size_t len)
{
    lj_fx_u32(writer, (uint32_t)len);
    append(writer, data, len);
}

void lj_fx_text(lj_fx_writer *writer, const char *text)
{
    lj_fx_string(writer, text, strlen(text));
}

void lj_fx_attrs_write(lj_fx_writer *writer, const lj_fx_attrs *attrs)
{
    uint32_t flags = attrs->flags & (LJ_FXA_SIZE | LJ_FXA_PERMISSIONS | LJ_FXA_TIMES);
    lj_fx_u32(writer, flags);
    if ((flags & LJ_FXA_SIZE) != 0)
        lj_fx_u64(writer, attrs->size);
    if ((flags & LJ_FXA_PERMISSIONS) != 0)
        lj_fx_u32(writer, attrs->permissions);
    if ((flags & LJ_FXA_TIMES) != 0) {
        lj_fx_u32(writer, attrs->atime);
        lj_fx_u32(writer, attrs->mtime);
    }
}

lj_code lj_fx_end(lj_fx_writer *writer, lj_error *err)
{
    if (writer->failed) {
        writer->buf->len = writer->start;
        return lj_error_nomem(err);
    }
    lj_put_be32(writer->buf->data + writer->start,
                (uint32_t)(writer->buf->len - writer->start - 4));
    return LJ_OK;
}
