/*
 * walfile.h - the uploader's own, read-only view of a -wal file.
 *
 * A second descriptor on the -wal is harmless (SQLite holds no lock there), unlike one on the database or the -shm.
 *
 * Layer: capture. Thread-safety: one owner.
 */
#ifndef LJ_WALFILE_H
#define LJ_WALFILE_H

#include "vfs/wal/wal.h"

/* A committed end of the WAL, or one that is going to be. */
typedef struct {
    lj_wal_salt salt;
    uint64_t frames;
    uint32_t page_size;
    uint32_t db_pages;
} lj_wal_end;

typedef struct {
    int fd; /* -1 = closed */
    uint64_t inode;
    bool has_header;
    lj_wal_header header; /* as read by the last refresh */
} lj_walfile;

#define LJ_WALFILE_INIT                                                                            \
    {                                                                                              \
        .fd = -1                                                                                   \
    }

void lj_walfile_close(lj_walfile *file);
/*
 * Opens the file, or opens it again when another one has its name, and reads the header. LJ_NOTFOUND when it is not there or
 * has no header yet; LJ_CORRUPT for a header that does not verify (a writer may be at it: try again).
 */
LJ_WARN_UNUSED lj_code lj_walfile_refresh(lj_walfile *file, const char *path, lj_error *err);

/* Called for each verified frame: its number (from 1) and the frame header. Return LJ_OK to go on. */
typedef lj_code (*lj_walfile_fn)(void *ctx, uint64_t number, const lj_wal_frame *frame,
                                 lj_error *err);
/*
 * Walks from where `chain` stands through at most `limit` frames in total, verifying each, until one does not verify or the
 * file ends; that is not an error: *ret_verdict says why it stopped (LJ_WAL_FRAME_OK: the limit or the end of file).
 */
LJ_WARN_UNUSED lj_code lj_walfile_walk(int fd, lj_wal_chain *chain, uint64_t limit,
                                       lj_walfile_fn fn, void *ctx, lj_wal_verdict *ret_verdict,
                                       lj_error *err);
/*
 * What SQLite's recovery of the file at `path` is going to find committed, from its bytes alone: only right while nobody writes. No
 * file, or none with a header: no frame. Errors: it cannot be read now.
 */
LJ_WARN_UNUSED lj_code lj_walfile_end(const char *path, lj_wal_end *ret_end, lj_error *err);
/* Reads the running checksum and salts stored in frame `number`. */
LJ_WARN_UNUSED lj_code lj_walfile_frame(int fd, uint32_t page_size, uint64_t number,
                                        lj_wal_frame *ret_frame, lj_error *err);

#endif
