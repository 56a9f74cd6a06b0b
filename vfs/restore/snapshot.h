/*
 * snapshot.h - takes a decompressed snapshot as a stream, checks that it is an SQLite database, and writes it out.
 *
 * Layer: restore (internal). Thread-safety: one owner. Source: SQLite file format section 1.3 "The Database Header".
 */
#ifndef LJ_SNAPSHOT_H
#define LJ_SNAPSHOT_H

#include "vfs/base/stream.h"

#define LJ_SNAPSHOT_HEADER_BYTES 100u

typedef struct {
    int fd;
    uint8_t header[LJ_SNAPSHOT_HEADER_BYTES];
    uint64_t bytes;     /* written so far; other threads may read it atomically */
    uint64_t begun;     /* up to here the kernel was told to write to the disk */
    uint32_t page_size; /* set by finish; 0 for a snapshot of 0 bytes, and for ciphertext */
} lj_snapshot_writer;

/* The sink is valid as long as the writer. `fd` is an empty file, the caller's. */
lj_sink lj_snapshot_writer_start(lj_snapshot_writer *writer, int fd);
/*
 * Behind the last byte. LJ_CORRUPT when it was not a whole number of pages of an SQLite database, or, of what begins like no
 * SQLite database, of the smallest pages there are (an encrypted one); 0 bytes are fine.
 */
LJ_WARN_UNUSED lj_code lj_snapshot_writer_finish(lj_snapshot_writer *writer, lj_error *err);

/*
 * Checks the first bytes of a database (fewer than 100 are an error) and reads the page size. Without SQLite's own first bytes
 * it is one whose pages an encryption above the VFS has made unreadable: OK with *ret_page_size = 0, nothing there can
 * be checked. LJ_CORRUPT otherwise.
 */
LJ_WARN_UNUSED lj_code lj_snapshot_header(const uint8_t *header, size_t len,
                                          uint32_t *ret_page_size, lj_error *err);

#endif
