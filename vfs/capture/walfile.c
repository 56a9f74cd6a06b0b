/*
 * walfile.c - see walfile.h.
 */
#include "vfs/capture/walfile.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vfs/base/io.h"

#define WALK_BYTES (256u * 1024u)

void lj_walfile_close(lj_walfile *file)
{
    if (file->fd >= 0)
        close(file->fd);
    *file = (lj_walfile)LJ_WALFILE_INIT;
}

lj_code lj_walfile_refresh(lj_walfile *file, const char *path, lj_error *err)
{
    struct stat st;
    file->has_header = false;
    if (stat(path, &st) != 0) {
        int saved = errno;
        lj_walfile_close(file);
        return lj_error_errno(err, saved, "cannot stat %s", path);
    }
    if (file->fd < 0 || file->inode != (uint64_t)st.st_ino) {
        lj_walfile_close(file);
        LJ_TRY(lj_io_open(path, O_RDONLY, 0, &file->fd, err));
        file->inode = (uint64_t)st.st_ino;
    }
    uint8_t raw[LJ_WAL_HEADER_BYTES];
    size_t n = 0;
    LJ_TRY(lj_io_pread(file->fd, raw, sizeof(raw), 0, &n, err));
    if (n < sizeof(raw))
        return lj_error_set(err, LJ_NOTFOUND, "%s has no header yet", path);
    LJ_TRY(lj_wal_header_parse(raw, &file->header, err));
    file->has_header = true;
    return LJ_OK;
}

static size_t frames_per_read(uint32_t frame_bytes)
{
    return LJ_MAX((size_t)1, (size_t)(WALK_BYTES / frame_bytes));
}

lj_code lj_walfile_walk(int fd, lj_wal_chain *chain, uint64_t limit, lj_walfile_fn fn, void *ctx,
                        lj_wal_verdict *ret_verdict, lj_error *err)
{
    uint32_t page_size = chain->header.page_size;
    size_t frame_bytes = lj_wal_frame_bytes(page_size);
    size_t batch = frames_per_read((uint32_t)frame_bytes);
    LJ_CLEANUP(lj_freep) uint8_t *buffer = malloc(batch * frame_bytes);
    if (buffer == NULL)
        return lj_error_nomem(err);
    *ret_verdict = LJ_WAL_FRAME_OK;
    while (chain->frames < limit) {
        size_t want = (size_t)LJ_MIN((uint64_t)batch, limit - chain->frames);
        size_t n = 0;
        LJ_TRY(lj_io_pread(fd, buffer, want * frame_bytes,
                           lj_wal_frame_offset(page_size, chain->frames + 1), &n, err));
        size_t whole = n / frame_bytes;
        for (size_t i = 0; i < whole; i++) {
            lj_wal_frame frame;
            *ret_verdict = lj_wal_chain_next(chain, buffer + i * frame_bytes, &frame);
            if (*ret_verdict != LJ_WAL_FRAME_OK)
                return LJ_OK;
            if (fn != NULL)
                LJ_TRY(fn(ctx, chain->frames, &frame, err));
        }
        if (whole < want)
            break;
    }
    return LJ_OK;
}

lj_code lj_walfile_end(const char *path, lj_wal_end *ret_end, lj_error *err)
{
    LJ_CLEANUP(lj_walfile_close) lj_walfile file = LJ_WALFILE_INIT;
    lj_wal_chain chain;
    lj_wal_verdict verdict = LJ_WAL_FRAME_OK;
    *ret_end = (lj_wal_end){.frames = 0};
    lj_code code = lj_walfile_refresh(&file, path, err);
    if (code == LJ_NOTFOUND || code == LJ_CORRUPT)
        return LJ_OK;
    if (code != LJ_OK)
        return code;
    lj_wal_chain_start(&chain, &file.header);
    LJ_TRY(lj_walfile_walk(file.fd, &chain, UINT64_MAX, NULL, NULL, &verdict, err));
    *ret_end = (lj_wal_end){.salt = file.header.salt,
                            .frames = chain.committed,
                            .page_size = file.header.page_size,
                            .db_pages = chain.db_pages};
    return LJ_OK;
}

lj_code lj_walfile_frame(int fd, uint32_t page_size, uint64_t number, lj_wal_frame *ret_frame,
                         lj_error *err)
{
    uint8_t raw[LJ_WAL_FRAME_HEADER_BYTES];
    size_t n = 0;
    LJ_TRY(lj_io_pread(fd, raw, sizeof(raw), lj_wal_frame_offset(page_size, number), &n, err));
    if (n < sizeof(raw))
        return lj_error_set(err, LJ_CORRUPT, "the WAL ends before frame %" PRIu64, number);
    lj_wal_frame_parse(raw, ret_frame);
    return LJ_OK;
}
