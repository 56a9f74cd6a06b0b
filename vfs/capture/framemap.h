/*
 * framemap.h - which page of a frozen database is where in its WAL.
 *
 * Layer: capture. Thread-safety: none of its own.
 */
#ifndef LJ_FRAMEMAP_H
#define LJ_FRAMEMAP_H

#include "vfs/capture/image.h"
#include "vfs/wal/pagemap.h"

/*
 * Maps each page to its newest frame up to freeze->frames, verified to the last byte. A WAL that does not verify although the
 * wal-index vouches for it (SQLite before 3.50.2) is mapped as readers see it, and freeze->broken is set. *ret_wal_fd: a
 * descriptor of that WAL, the caller's; untouched when no frame is needed. Errors: LJ_BUSY when the WAL was restarted
 * meanwhile, LJ_CORRUPT, and those of reading. One pass over the WAL.
 */
LJ_WARN_UNUSED lj_code lj_framemap_read(const char *wal_path, lj_freeze *freeze, lj_pagemap *frames,
                                        int *ret_wal_fd, lj_error *err);

#endif
