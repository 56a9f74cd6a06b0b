/*
 * snapshot.c - see snapshot.h.
 *
 * Layer: restore. Thread-safety: one owner.
 */
#include "vfs/restore/snapshot.h"

#include <fcntl.h>
#include <inttypes.h>
#include <string.h>

#include "vfs/base/io.h"
#include "vfs/wal/wal.h"

/*
 * At most this in one write: it stays in the cache of a core on its way, and Linux takes page cache for it in pieces that are easy
 * to find. A write of 1 MiB asks for pieces as large, which took three times as long as all the rest of a restore.
 */
#define WRITE_BYTES  ((size_t)64 * 1024)
#define BEHIND_BYTES ((uint64_t)16 * 1024 * 1024)

lj_code lj_snapshot_header(const uint8_t *header, size_t len, uint32_t *ret_page_size,
                           lj_error *err)
{
    static const char magic[16] = "SQLite format 3";
    *ret_page_size = 0;
    if (len < LJ_SNAPSHOT_HEADER_BYTES)
        return lj_error_set(err, LJ_CORRUPT, "%zu bytes are too few for an SQLite database", len);
    if (memcmp(header, magic, sizeof(magic)) != 0)
        return LJ_OK;
    /* two bytes; 1 stands for 65536, which does not fit */
    uint32_t page_size = lj_get_be16(header + 16);
    if (page_size == 1)
        page_size = LJ_WAL_PAGE_MAX;
    if (!lj_wal_page_size_ok(page_size))
        return lj_error_set(err, LJ_CORRUPT, "the database header has page size %" PRIu32,
                            page_size);
    *ret_page_size = page_size;
    return LJ_OK;
}

/* Lets the disk begin, so that the fsync at the end of a restore does not wait for all of it. Only a hint. */
static void write_behind(lj_snapshot_writer *writer, uint64_t end)
{
#ifdef SYNC_FILE_RANGE_WRITE
    if (end - writer->begun < BEHIND_BYTES)
        return;
    (void)sync_file_range(writer->fd, (off_t)writer->begun, (off_t)(end - writer->begun),
                          SYNC_FILE_RANGE_WRITE);
#endif
    writer->begun = end;
}

static lj_code snapshot_write(void *ctx, const void *data, size_t len, lj_error *err)
{
    lj_snapshot_writer *writer = ctx;
    if (writer->bytes < LJ_SNAPSHOT_HEADER_BYTES) {
        size_t n = LJ_MIN(len, LJ_SNAPSHOT_HEADER_BYTES - (size_t)writer->bytes);
        memcpy(writer->header + writer->bytes, data, n);
    }
    for (size_t at = 0; at < len; at += WRITE_BYTES)
        LJ_TRY(lj_io_pwrite(writer->fd, (const uint8_t *)data + at, LJ_MIN(WRITE_BYTES, len - at),
                            writer->bytes + at, err));
    write_behind(writer, writer->bytes + len);
    __atomic_store_n(&writer->bytes, writer->bytes + len, __ATOMIC_RELEASE);
    return LJ_OK;
}

lj_sink lj_snapshot_writer_start(lj_snapshot_writer *writer, int fd)
{
    *writer = (lj_snapshot_writer){.fd = fd};
    return (lj_sink){.ctx = writer, .write = snapshot_write};
}

lj_code lj_snapshot_writer_finish(lj_snapshot_writer *writer, lj_error *err)
{
    if (writer->bytes == 0)
        return LJ_OK;
    uint32_t page_size = 0;
    size_t len = (size_t)LJ_MIN(writer->bytes, (uint64_t)LJ_SNAPSHOT_HEADER_BYTES);
    LJ_TRY(lj_snapshot_header(writer->header, len, &page_size, err));
    if (page_size == 0 && writer->bytes % LJ_WAL_PAGE_MIN != 0)
        return lj_error_set(err, LJ_CORRUPT,
                            "neither an SQLite database nor an encrypted one: %" PRIu64
                            " bytes that begin with %02x %02x %02x %02x",
                            writer->bytes, writer->header[0], writer->header[1], writer->header[2],
                            writer->header[3]);
    if (page_size != 0 && writer->bytes % page_size != 0)
        return lj_error_set(err, LJ_CORRUPT,
                            "%" PRIu64 " bytes are not a whole number of pages of %" PRIu32
                            " bytes",
                            writer->bytes, page_size);
    writer->page_size = page_size;
    return LJ_OK;
}
