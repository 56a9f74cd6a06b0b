/*
 * framemap.c - see framemap.h.
 */
#include "vfs/capture/framemap.h"

#include <inttypes.h>

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

/* Goes on where the map ends. */
static lj_code map_verified(lj_framemap *map, lj_freeze *f, lj_error *err)
{
    lj_wal_chain *chain = &map->chain;
    lj_wal_verdict verdict = LJ_WAL_FRAME_OK;
    LJ_TRY(
        lj_walfile_walk(map->file.fd, chain, f->frames, note_frame, &map->frames, &verdict, err));
    if (chain->frames < f->frames) {
        lj_error_set(err, LJ_CORRUPT, "frame %" PRIu64 " of the WAL is not valid: %s",
                     chain->frames + 1, lj_wal_verdict_text(verdict));
        return lj_error_hint(err, "SQLite before 3.50.2 writes such frames, and loses them in a "
                                  "crash: run PRAGMA wal_checkpoint(TRUNCATE), and upgrade SQLite");
    }
    if (f->has_cksum && !lj_wal_cksum_eq(chain->sum, f->cksum))
        return lj_error_set(err, LJ_CORRUPT, "the WAL does not match its index at frame %" PRIu64,
                            f->frames);
    if (chain->committed != f->frames)
        return lj_error_set(err, LJ_CORRUPT,
                            "frame %" PRIu64 " of the WAL does not end a transaction", f->frames);
    f->cksum = chain->sum; /* without a wal-index nobody knew it */
    f->has_cksum = true;
    return LJ_OK;
}

void lj_framemap_free(lj_framemap *map)
{
    lj_walfile_close(&map->file);
    lj_pagemap_free(&map->frames);
    *map = (lj_framemap)LJ_FRAMEMAP_INIT;
}

/* Nothing was mapped, of the WAL that has the name now. */
static lj_code start_over(lj_framemap *map, const char *wal_path, const lj_freeze *f, lj_error *err)
{
    lj_framemap_free(map);
    LJ_TRY(lj_walfile_refresh(&map->file, wal_path, err));
    if (!lj_wal_salt_eq(map->file.header.salt, f->salt))
        return lj_error_set(err, LJ_BUSY, "the WAL was restarted meanwhile");
    lj_wal_chain_start(&map->chain, &map->file.header);
    return LJ_OK;
}

/* What was mapped is of the frozen WAL, and not more than was frozen. */
static bool fits(const lj_framemap *map, const lj_freeze *f)
{
    return map->chain.frames > 0 && map->chain.frames <= f->frames &&
           map->chain.header.page_size == f->page_size &&
           lj_wal_salt_eq(map->chain.header.salt, f->salt);
}

/* And the file is still the one that was read. */
static bool goes_on(lj_framemap *map, const char *wal_path, const lj_freeze *f)
{
    lj_error ignored = LJ_ERROR_INIT;
    uint64_t inode = map->file.inode;
    return fits(map, f) && lj_walfile_refresh(&map->file, wal_path, &ignored) == LJ_OK &&
           map->file.inode == inode &&
           lj_wal_salt_eq(map->file.header.salt, map->chain.header.salt) &&
           lj_wal_cksum_eq(map->file.header.cksum, map->chain.header.cksum);
}

uint64_t lj_framemap_missing(const lj_framemap *map, const lj_freeze *f)
{
    if (f->frames == 0 || f->backfilled ||
        (map->refused && lj_wal_salt_eq(map->refused_salt, f->salt)))
        return 0;
    return (f->frames - (fits(map, f) ? map->chain.frames : 0)) * lj_wal_frame_bytes(f->page_size);
}

void lj_framemap_ahead(lj_framemap *map, const char *wal_path, const lj_freeze *f)
{
    lj_error ignored = LJ_ERROR_INIT;
    lj_wal_verdict verdict = LJ_WAL_FRAME_OK;
    if ((goes_on(map, wal_path, f) || start_over(map, wal_path, f, &ignored) == LJ_OK) &&
        lj_walfile_walk(map->file.fd, &map->chain, f->frames, note_frame, &map->frames, &verdict,
                        &ignored) == LJ_OK &&
        map->chain.frames == f->frames && map->chain.committed == f->frames)
        return;
    lj_framemap_free(map);
    map->refused = true;
    map->refused_salt = f->salt;
}

lj_code lj_framemap_finish(lj_framemap *map, const char *wal_path, lj_freeze *f, lj_error *err)
{
    if (f->frames == 0 || f->backfilled) {
        lj_framemap_free(map);
        return LJ_OK;
    }
    lj_error ignored = LJ_ERROR_INIT;
    if (goes_on(map, wal_path, f) && map_verified(map, f, &ignored) == LJ_OK)
        return LJ_OK;
    LJ_TRY(start_over(map, wal_path, f, err));
    lj_code code = map_verified(map, f, err);
    if (code == LJ_CORRUPT && f->has_cksum)
        code = map_unverified(f, &map->frames, map->file.fd, err);
    return code;
}
