/*
 * framemap.c - see framemap.h.
 */
#include "vfs/capture/framemap.h"

#include <inttypes.h>

#include "vfs/capture/walfile.h"

static lj_code note_frame(void *ctx, uint64_t number, const lj_wal_frame *frame, lj_error *err)
{
    return lj_pagemap_set(ctx, frame->pgno, number, err);
}

/* Frame headers as they stand; the wal-index vouches for them. */
static lj_code map_unverified(lj_freeze *f, lj_pagemap *frames, int fd, lj_error *err)
{
    lj_pagemap_free(frames);
    for (uint64_t number = 1; number <= f->frames; number++) {
        lj_wal_frame frame;
        LJ_TRY(lj_walfile_frame(fd, f->page_size, number, &frame, err));
        if (frame.pgno == 0)
            return lj_error_set(err, LJ_CORRUPT, "frame %" PRIu64 " of the WAL names page 0",
                                number);
        LJ_TRY(note_frame(frames, number, &frame, err));
    }
    f->broken = true;
    return LJ_OK;
}

static lj_code map_verified(const lj_freeze *f, lj_pagemap *frames, const lj_walfile *file,
                            lj_error *err)
{
    lj_wal_chain chain;
    lj_wal_verdict verdict = LJ_WAL_FRAME_OK;
    lj_wal_chain_start(&chain, &file->header);
    LJ_TRY(lj_walfile_walk(file->fd, &chain, f->frames, note_frame, frames, &verdict, err));
    if (chain.frames < f->frames) {
        lj_error_set(err, LJ_CORRUPT, "frame %" PRIu64 " of the WAL is not valid: %s",
                     chain.frames + 1, lj_wal_verdict_text(verdict));
        return lj_error_hint(err, "SQLite before 3.50.2 writes such frames, and loses them in a "
                                  "crash: run PRAGMA wal_checkpoint(TRUNCATE), and upgrade SQLite");
    }
    if (f->has_cksum && !lj_wal_cksum_eq(chain.sum, f->cksum))
        return lj_error_set(err, LJ_CORRUPT, "the WAL does not match its index at frame %" PRIu64,
                            f->frames);
    if (chain.committed != f->frames)
        return lj_error_set(err, LJ_CORRUPT,
                            "frame %" PRIu64 " of the WAL does not end a transaction", f->frames);
    return LJ_OK;
}

lj_code lj_framemap_read(const char *wal_path, lj_freeze *f, lj_pagemap *frames, int *ret_wal_fd,
                         lj_error *err)
{
    if (f->frames == 0 || f->backfilled)
        return LJ_OK;
    LJ_CLEANUP(lj_walfile_close) lj_walfile file = LJ_WALFILE_INIT;
    LJ_TRY(lj_walfile_refresh(&file, wal_path, err));
    if (!lj_wal_salt_eq(file.header.salt, f->salt))
        return lj_error_set(err, LJ_BUSY, "the WAL was restarted meanwhile");
    lj_code code = map_verified(f, frames, &file, err);
    if (code == LJ_CORRUPT && f->has_cksum)
        code = map_unverified(f, frames, file.fd, err);
    if (code != LJ_OK)
        return code;
    *ret_wal_fd = file.fd;
    file.fd = -1;
    return LJ_OK;
}
