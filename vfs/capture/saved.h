/*
 * saved.h - old contents of pages, kept while a snapshot still needs them and a checkpoint overwrites them (image.h).
 *
 * Saving is done in the application's checkpoint, so it must be quick: a copy into memory that is there already. The snapshot's thread
 * writes from there into an unlinked file, between the chunks that it reads; only when the memory is full does a checkpoint write
 * into the file itself.
 *
 * Layer: capture. Thread-safety: every call under the guard's mutex, but lj_saved_flush, which takes it. Memory: LJ_SAVED_MEMORY_BYTES
 * while a snapshot lasts, 11 to 22 bytes per page saved. Disk: one page size per page saved, up to `most_bytes`.
 */
#ifndef LJ_SAVED_H
#define LJ_SAVED_H

#include <pthread.h>

#include "vfs/wal/pagemap.h"

/* twice what SQLite checkpoints by itself (1,000 pages of 4 KiB) */
#define LJ_SAVED_MEMORY_BYTES (8u * 1024u * 1024u)

typedef struct {
    lj_pagemap pages;   /* page -> place: in the order of saving, page_size bytes each */
    int fd;             /* the file; -1 = not open */
    uint32_t page_size; /* set by the owner before the first page */
    uint8_t *memory;    /* places first .. first + used - 1, or NULL */
    size_t room;        /* places it has */
    uint64_t first;     /* every place before it is in the file ... */
    size_t used;        /* ... and so are those behind first + used */
    size_t in_file;     /* of `used`: the first so many are in the file, too */
    uint64_t most_bytes;
} lj_saved;

#define LJ_SAVED_INIT                                                                              \
    {                                                                                              \
        .pages = LJ_PAGEMAP_INIT, .fd = -1                                                         \
    }

LJ_WARN_UNUSED lj_code lj_saved_open(lj_saved *saved, const char *dir, uint64_t most_bytes,
                                     lj_error *err);
/* In the snapshot's thread, without `mutex`: gets the memory. Before, and where there is none, every page goes into the file at once. */
void lj_saved_prepare(lj_saved *saved, pthread_mutex_t *mutex);
bool lj_saved_has(const lj_saved *saved, uint32_t pgno);
/* A page that is not there yet. LJ_NOSPACE: most_bytes are saved. */
LJ_WARN_UNUSED lj_code lj_saved_add(lj_saved *saved, uint32_t pgno, const void *page,
                                    lj_error *err);
/* *ret_found = false: it was not saved, `out` is left alone. */
LJ_WARN_UNUSED lj_code lj_saved_read(const lj_saved *saved, uint32_t pgno, void *out,
                                     bool *ret_found, lj_error *err);
/* In the snapshot's thread, without `mutex`: makes room in the memory. One at a time. */
LJ_WARN_UNUSED lj_code lj_saved_flush(lj_saved *saved, pthread_mutex_t *mutex, lj_error *err);
void lj_saved_free(lj_saved *saved);

#endif
