/*
 * framemap.h - which page of a frozen database is where in its WAL.
 *
 * Every frame up to M has to be verified, which takes a second per GiB. A frozen database keeps checkpoints waiting, so as much as
 * possible is done before (lj_framemap_ahead), and the rest when it is frozen (lj_framemap_finish). What was done before is still
 * right then: nobody writes into committed frames of a WAL, so the same salts mean the same frames, and the running checksum at M is
 * compared with the wal-index's in any case. Whatever does not fit is done anew.
 *
 * Layer: capture. Thread-safety: none of its own.
 */
#ifndef LJ_FRAMEMAP_H
#define LJ_FRAMEMAP_H

#include "vfs/capture/image.h"
#include "vfs/capture/walfile.h"
#include "vfs/wal/pagemap.h"

typedef struct {
    lj_walfile file;    /* the WAL that was read */
    lj_wal_chain chain; /* how far it was verified and mapped; frames == 0: not begun */
    lj_pagemap frames;  /* page -> its newest frame so far */
    bool refused;       /* a WAL with this salt did not verify as far as it should */
    lj_wal_salt refused_salt;
} lj_framemap;

#define LJ_FRAMEMAP_INIT                                                                           \
    {                                                                                              \
        .file = LJ_WALFILE_INIT                                                                    \
    }

void lj_framemap_free(lj_framemap *map);
/* Bytes that lj_framemap_ahead could still spare the frozen database. */
uint64_t lj_framemap_missing(const lj_framemap *map, const lj_freeze *freeze);
/* Verifies and maps frames up to freeze->frames, with nothing held: the WAL may even be restarted meanwhile. */
void lj_framemap_ahead(lj_framemap *map, const char *wal_path, const lj_freeze *freeze);
/*
 * Maps each page to its newest frame up to freeze->frames, verified to the last byte. A WAL that does not verify although the
 * wal-index vouches for it (SQLite before 3.50.2) is mapped as readers see it, and freeze->broken is set. Without a frame that is
 * needed nothing is mapped, and no file open. Errors: LJ_BUSY when the WAL was restarted meanwhile, LJ_CORRUPT, and those of
 * reading. One pass over what is missing.
 */
LJ_WARN_UNUSED lj_code lj_framemap_finish(lj_framemap *map, const char *wal_path, lj_freeze *freeze,
                                          lj_error *err);

#endif
