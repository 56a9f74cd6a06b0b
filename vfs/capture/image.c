/*
 * image.c - see image.h.
 */
#include "vfs/capture/image.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vfs/base/io.h"
#include "vfs/base/str.h"
#include "vfs/capture/walfile.h"
#include "vfs/wal/pagemap.h"

#define CHUNK_BYTES (256u * 1024u)

struct lj_image {
    lj_image_guard *guard;
    pthread_mutex_t
        file_mutex; /* the calls of dbfile once it is frozen; inside of guard->mutex or alone */
    lj_dbfile dbfile;
    lj_freeze freeze;
    const atomic_bool *cancel;
    int wal_fd;           /* own descriptor, -1 when no frame is needed */
    bool wal_gone;        /* restarted: every frame up to M is in the database file */
    bool gone_seen;       /* the reader knew that when it read the database file last */
    lj_pagemap frames;    /* page -> frame number <= M */
    int saved_fd;         /* unlinked file of saved pages */
    lj_pagemap saved;     /* page -> slot in saved_fd */
    bool has_known;       /* the mark was given back, and since then ... */
    lj_image_place known; /* ... nobody but this process should have gone on from here */
    lj_error failure;     /* saving failed: the image is lost */
    uint32_t next;        /* first page not yet read */
    uint8_t *chunk;       /* what was read and not handed out yet */
    size_t chunk_len, chunk_pos;
    uint8_t *memory; /* the whole image, when it is small; NULL otherwise */
    size_t memory_pos;
};

static lj_code open_unlinked(const char *dir, int *ret_fd, lj_error *err)
{
    LJ_CLEANUP(lj_freep) char *path = lj_str_printf("%s/saved-pages.tmp", dir);
    if (path == NULL)
        return lj_error_nomem(err);
    LJ_TRY(lj_io_open(path, O_RDWR | O_CREAT | O_TRUNC, 0600, ret_fd, err));
    unlink(path);
    return LJ_OK;
}

static lj_code note_frame(void *ctx, uint64_t number, const lj_wal_frame *frame, lj_error *err)
{
    lj_image *image = ctx;
    return lj_pagemap_set(&image->frames, frame->pgno, number, err);
}

/* Frame headers as they stand; the wal-index vouches for them. */
static lj_code map_unverified(lj_image *image, int fd, lj_error *err)
{
    const lj_freeze *f = &image->freeze;
    lj_pagemap_free(&image->frames);
    for (uint64_t number = 1; number <= f->frames; number++) {
        lj_wal_frame frame;
        LJ_TRY(lj_walfile_frame(fd, f->page_size, number, &frame, err));
        if (frame.pgno == 0)
            return lj_error_set(err, LJ_CORRUPT, "frame %" PRIu64 " of the WAL names page 0",
                                number);
        LJ_TRY(note_frame(image, number, &frame, err));
    }
    image->freeze.broken = true;
    return LJ_OK;
}

static lj_code map_verified(lj_image *image, const lj_walfile *file, lj_error *err)
{
    const lj_freeze *f = &image->freeze;
    lj_wal_chain chain;
    lj_wal_verdict verdict = LJ_WAL_FRAME_OK;
    lj_wal_chain_start(&chain, &file->header);
    LJ_TRY(lj_walfile_walk(file->fd, &chain, f->frames, note_frame, image, &verdict, err));
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

/* Which page is where in the WAL, verified to the last byte of frame M. */
static lj_code map_frames(lj_image *image, const char *wal_path, lj_error *err)
{
    const lj_freeze *f = &image->freeze;
    if (f->frames == 0 || f->backfilled)
        return LJ_OK;
    LJ_CLEANUP(lj_walfile_close) lj_walfile file = LJ_WALFILE_INIT;
    LJ_TRY(lj_walfile_refresh(&file, wal_path, err));
    if (!lj_wal_salt_eq(file.header.salt, f->salt))
        return lj_error_set(err, LJ_BUSY, "the WAL was restarted meanwhile");
    lj_code code = map_verified(image, &file, err);
    if (code == LJ_CORRUPT && f->has_cksum)
        code = map_unverified(image, file.fd, err);
    if (code != LJ_OK)
        return code;
    image->wal_fd = file.fd;
    file.fd = -1;
    return LJ_OK;
}

/*
 * Without a frame in the WAL nobody tells how large a page is but the file's own header, and that of an encrypted database is
 * ciphertext. Then nothing hangs on it (no frame has to be found): any size will do that divides the file.
 */
static uint32_t page_size_of(const uint8_t head[18], uint64_t bytes)
{
    uint32_t page_size = lj_get_be16(head + 16);
    if (memcmp(head, "SQLite format 3", 16) == 0)
        return page_size == 1 ? LJ_WAL_PAGE_MAX : page_size;
    page_size = LJ_WAL_PAGE_MAX;
    while (page_size >= LJ_WAL_PAGE_MIN && bytes % page_size != 0)
        page_size /= 2;
    return page_size; /* too small: neither an SQLite database nor an encrypted one */
}

static lj_code measure(lj_image *image, lj_error *err)
{
    if (image->freeze.db_pages != 0 && image->freeze.page_size != 0)
        return LJ_OK;
    uint8_t head[18];
    uint64_t bytes = 0;
    LJ_TRY(image->dbfile.read(image->dbfile.ctx, 0, head, sizeof(head), err));
    LJ_TRY(image->dbfile.size(image->dbfile.ctx, &bytes, err));
    uint32_t page_size = page_size_of(head, bytes);
    if (!lj_wal_page_size_ok(page_size) || bytes < page_size)
        return lj_error_set(err, LJ_CORRUPT, "the file is not an SQLite database");
    image->freeze.page_size = page_size;
    image->freeze.db_pages = (uint32_t)(bytes / page_size);
    return LJ_OK;
}

static lj_code begin_guarded(lj_image *image, const char *wal_path, const char *state_dir,
                             lj_error *err)
{
    LJ_TRY(open_unlinked(state_dir, &image->saved_fd, err));
    /* from here on a checkpoint waits for guard.mutex: nothing beyond M slips in between freezing and copying */
    atomic_store(&image->guard->copying, true);
    LJ_TRY(image->dbfile.freeze(image->dbfile.ctx, &image->freeze, err));
    atomic_store(&image->guard->copying, !image->freeze.held);
    LJ_TRY(measure(image, err));
    return map_frames(image, wal_path, err);
}

/* The content of one page at M, when it does not stand in the database file. *ret_done = it was read here. */
static lj_code read_elsewhere(lj_image *image, uint32_t pgno, uint8_t *out, bool *ret_done,
                              lj_error *err)
{
    uint32_t page_size = image->freeze.page_size;
    uint64_t value = 0;
    size_t n = 0;
    *ret_done = true;
    if (lj_pagemap_get(&image->saved, pgno, &value)) {
        LJ_TRY(lj_io_pread(image->saved_fd, out, page_size, value * page_size, &n, err));
    } else if (!image->wal_gone && lj_pagemap_get(&image->frames, pgno, &value)) {
        uint64_t at = lj_wal_frame_offset(page_size, value) + LJ_WAL_FRAME_HEADER_BYTES;
        LJ_TRY(lj_io_pread(image->wal_fd, out, page_size, at, &n, err));
    } else {
        *ret_done = false;
        return LJ_OK;
    }
    if (n != page_size)
        return lj_error_set(err, LJ_IO, "page %" PRIu32 " is cut short", pgno);
    return LJ_OK;
}

/* The next pages as they stand in the database file, CHUNK_BYTES at most. Without the guard: some may be newer than M. */
static lj_code read_file(lj_image *image, uint8_t *to, uint32_t *ret_pages, lj_error *err)
{
    uint32_t page_size = image->freeze.page_size;
    uint32_t left = image->freeze.db_pages - (image->next - 1);
    uint32_t pages = LJ_MIN(CHUNK_BYTES / page_size, left);
    pthread_mutex_lock(&image->file_mutex);
    lj_code code = image->dbfile.read(image->dbfile.ctx, (uint64_t)(image->next - 1) * page_size,
                                      to, (size_t)pages * page_size, err);
    pthread_mutex_unlock(&image->file_mutex);
    *ret_pages = pages;
    return code;
}

static bool place_eq(const lj_image_place *a, const lj_image_place *b)
{
    return lj_wal_salt_eq(a->salt, b->salt) && a->attempted == b->attempted;
}

/* Somebody whose writes nobody saved. */
static void give_up_if_moved(lj_image *image, const lj_image_place *now)
{
    if (!image->has_known || place_eq(&image->known, now) || image->failure.code != LJ_OK)
        return;
    lj_error_set(&image->failure, LJ_BUSY,
                 "the snapshot was given up: another process wrote a checkpoint meanwhile");
    lj_error_retryable(&image->failure, true);
}

/* The last pages were read; is all of it still of one commit? */
static void check_end(lj_image *image)
{
    lj_image_place now;
    if (image->has_known && atomic_load(&image->guard->inside) == 0 &&
        image->dbfile.place != NULL && image->dbfile.place(image->dbfile.ctx, &now))
        give_up_if_moved(image, &now);
}

/*
 * What read_file read, as of M: whatever was overwritten meanwhile was saved before, and is found here. Under the guard, and
 * quickly done: an application's checkpoint must not wait for the disk, nor for this thread's turn to read from it.
 */
static lj_code correct_pages(lj_image *image, uint8_t *to, uint32_t pages, lj_error *err)
{
    uint32_t page_size = image->freeze.page_size;
    if (image->failure.code != LJ_OK) {
        *err = image->failure;
        return err->code;
    }
    /* the frames that these pages were to be taken from are gone, and came into the file perhaps behind our reading */
    if (image->wal_gone && !image->gone_seen)
        LJ_TRY(read_file(image, to, &pages, err));
    image->gone_seen = image->wal_gone;
    for (uint32_t i = 0; i < pages; i++) {
        bool done = false;
        LJ_TRY(read_elsewhere(image, image->next + i, to + (size_t)i * page_size, &done, err));
    }
    image->next += pages;
    if (image->next > image->freeze.db_pages)
        check_end(image);
    if (image->failure.code != LJ_OK)
        *err = image->failure;
    return image->failure.code;
}

/* Reads all of a small image and gives the locks back. */
static lj_code copy_to_memory(lj_image *image, lj_error *err)
{
    size_t bytes = (size_t)lj_image_bytes(image);
    uint8_t *memory = malloc(LJ_MAX(bytes, (size_t)1));
    if (memory == NULL)
        return lj_error_nomem(err);
    lj_code code = LJ_OK;
    uint32_t pages = 0;
    for (size_t at = 0; at < bytes && code == LJ_OK;
         at += (size_t)pages * image->freeze.page_size) {
        code = read_file(image, memory + at, &pages, err);
        if (code == LJ_OK)
            code = correct_pages(image, memory + at, pages, err);
    }
    if (code != LJ_OK) {
        free(memory);
        return code;
    }
    image->memory = memory;
    if (image->freeze.held)
        image->dbfile.release(image->dbfile.ctx);
    image->freeze.held = false;
    atomic_store(&image->guard->copying, false);
    return LJ_OK;
}

lj_code lj_image_begin(lj_image_guard *guard, const lj_dbfile *dbfile, const char *wal_path,
                       const char *state_dir, const atomic_bool *cancel, lj_image **ret_image,
                       lj_error *err)
{
    lj_image *image = calloc(1, sizeof(*image));
    uint8_t *chunk = malloc(CHUNK_BYTES);
    if (image == NULL || chunk == NULL) {
        free(image);
        free(chunk);
        return lj_error_nomem(err);
    }
    image->guard = guard;
    pthread_mutex_init(&image->file_mutex, NULL);
    image->dbfile = *dbfile;
    image->cancel = cancel;
    image->wal_fd = -1;
    image->saved_fd = -1;
    image->next = 1;
    image->chunk = chunk;
    pthread_mutex_lock(&guard->mutex);
    guard->image = image;
    atomic_store(&guard->active, true);
    lj_code code = begin_guarded(image, wal_path, state_dir, err);
    if (code == LJ_OK && lj_image_bytes(image) <= guard->memory_bytes)
        code = copy_to_memory(image, err);
    pthread_mutex_unlock(&guard->mutex);
    if (code != LJ_OK) {
        lj_image_end(image);
        return code;
    }
    *ret_image = image;
    return LJ_OK;
}

const lj_freeze *lj_image_freeze(const lj_image *image)
{
    return &image->freeze;
}

uint64_t lj_image_bytes(const lj_image *image)
{
    return (uint64_t)image->freeze.db_pages * image->freeze.page_size;
}

void lj_image_end(lj_image *image)
{
    if (image == NULL)
        return;
    lj_image_guard *guard = image->guard;
    pthread_mutex_lock(&guard->mutex);
    atomic_store(&guard->copying, false);
    atomic_store(&guard->active, false);
    guard->image = NULL;
    if (image->freeze.held) {
        image->freeze.held = false;
        image->dbfile.release(image->dbfile.ctx);
    }
    image->dbfile.close(image->dbfile.ctx);
    pthread_mutex_unlock(&guard->mutex);
    lj_closep(&image->wal_fd);
    lj_closep(&image->saved_fd);
    lj_pagemap_free(&image->frames);
    lj_pagemap_free(&image->saved);
    pthread_mutex_destroy(&image->file_mutex);
    free(image->chunk);
    free(image->memory);
    free(image);
}

static lj_code memory_read(lj_image *image, void *out, size_t max, size_t *ret_n)
{
    size_t n = LJ_MIN(max, (size_t)lj_image_bytes(image) - image->memory_pos);
    memcpy(out, image->memory + image->memory_pos, n);
    image->memory_pos += n;
    *ret_n = n;
    return LJ_OK;
}

static lj_code image_read(void *ctx, void *out, size_t max, size_t *ret_n, lj_error *err)
{
    lj_image *image = ctx;
    if (image->memory != NULL)
        return memory_read(image, out, max, ret_n);
    if (image->chunk_pos == image->chunk_len && image->next <= image->freeze.db_pages) {
        if (atomic_load(image->cancel))
            return lj_error_set(err, LJ_CANCELLED, "the database is being closed");
        /* straight to the reader, where there is room for it */
        bool direct = max >= CHUNK_BYTES;
        uint8_t *to = direct ? out : image->chunk;
        uint32_t pages = 0;
        LJ_TRY(read_file(image, to, &pages, err));
        pthread_mutex_lock(&image->guard->mutex);
        lj_code code = correct_pages(image, to, pages, err);
        pthread_mutex_unlock(&image->guard->mutex);
        size_t n = (size_t)pages * image->freeze.page_size;
        if (direct || code != LJ_OK) {
            *ret_n = n;
            return code;
        }
        image->chunk_len = n;
        image->chunk_pos = 0;
    }
    size_t n = LJ_MIN(max, image->chunk_len - image->chunk_pos);
    memcpy(out, image->chunk + image->chunk_pos, n);
    image->chunk_pos += n;
    *ret_n = n;
    return LJ_OK;
}

/* Pages that were handed out are not saved any more, so an image can be read again only while its mark is held. */
static lj_code image_rewind(void *ctx, lj_error *err)
{
    lj_image *image = ctx;
    if (image->memory != NULL) {
        image->memory_pos = 0;
        return LJ_OK;
    }
    pthread_mutex_lock(&image->guard->mutex);
    bool fresh = image->next == 1 || image->freeze.held;
    if (fresh) {
        image->next = 1;
        image->chunk_len = 0;
        image->chunk_pos = 0;
    }
    pthread_mutex_unlock(&image->guard->mutex);
    if (!fresh) {
        lj_error_set(err, LJ_BUSY, "the frozen image cannot be read a second time");
        return lj_error_retryable(err, true);
    }
    return LJ_OK;
}

lj_source lj_image_source(lj_image *image)
{
    return (lj_source){.ctx = image,
                       .read = image_read,
                       .rewind = image_rewind,
                       .size = (int64_t)lj_image_bytes(image)};
}

/* ------------------------------------------------------------------ application threads */

static lj_code save_page(lj_image *image, uint32_t pgno, uint8_t *page,
                         const lj_image_reader *reader, lj_error *err)
{
    uint32_t page_size = image->freeze.page_size;
    uint64_t slot = image->saved.count;
    bool done = false;
    if ((slot + 1) * page_size > image->guard->saved_bytes)
        return lj_error_set(
            err, LJ_NOSPACE,
            "the snapshot was given up: pages that changed meanwhile take more than "
            "max_spool_size (%" PRIu64 " bytes)",
            image->guard->saved_bytes);
    LJ_TRY(read_elsewhere(image, pgno, page, &done, err));
    if (!done)
        LJ_TRY(reader->read(reader->ctx, (uint64_t)(pgno - 1) * page_size, page, page_size, err));
    LJ_TRY(lj_io_pwrite(image->saved_fd, page, page_size, slot * page_size, err));
    return lj_pagemap_set(&image->saved, pgno, slot, err);
}

static void save_range(lj_image *image, uint64_t off, uint64_t len, const lj_image_reader *reader)
{
    uint32_t page_size = image->freeze.page_size;
    if (image->failure.code != LJ_OK || page_size == 0)
        return;
    uint64_t first = LJ_MAX(off / page_size + 1, (uint64_t)image->next);
    uint64_t last =
        LJ_MIN((off + len + page_size - 1) / page_size, (uint64_t)image->freeze.db_pages);
    if (first > last)
        return;
    LJ_CLEANUP(lj_freep) uint8_t *page = malloc(page_size);
    lj_code code = page == NULL ? lj_error_nomem(&image->failure) : LJ_OK;
    for (uint64_t pgno = first; pgno <= last && code == LJ_OK; pgno++) {
        uint64_t ignored = 0;
        if (!lj_pagemap_get(&image->saved, (uint32_t)pgno, &ignored))
            code = save_page(image, (uint32_t)pgno, page, reader, &image->failure);
    }
}

void lj_image_before_write(lj_image_guard *guard, uint64_t off, uint64_t len,
                           const lj_image_reader *reader)
{
    if (!atomic_load_explicit(&guard->copying, memory_order_acquire) || len == 0)
        return;
    pthread_mutex_lock(&guard->mutex);
    if (guard->image != NULL)
        save_range(guard->image, off, len, reader);
    pthread_mutex_unlock(&guard->mutex);
}

bool lj_image_convert(lj_image_guard *guard, const lj_image_place *now)
{
    if (!atomic_load(&guard->active))
        return false;
    bool was_held = false;
    pthread_mutex_lock(&guard->mutex);
    lj_image *image = guard->image;
    if (image != NULL && image->freeze.held) {
        was_held = true;
        atomic_store(&guard->copying, true);
        image->freeze.held = false;
        image->has_known = now != NULL;
        if (now != NULL)
            image->known = *now;
        pthread_mutex_lock(&image->file_mutex);
        image->dbfile.release(image->dbfile.ctx);
        pthread_mutex_unlock(&image->file_mutex);
    }
    pthread_mutex_unlock(&guard->mutex);
    return was_held;
}

void lj_image_wal_restarts(lj_image_guard *guard)
{
    if (!atomic_load(&guard->active))
        return;
    pthread_mutex_lock(&guard->mutex);
    if (guard->image != NULL)
        guard->image->wal_gone = true;
    pthread_mutex_unlock(&guard->mutex);
}

void lj_image_enter(lj_image_guard *guard, const lj_image_place *now, bool restart)
{
    bool alone = atomic_fetch_add(&guard->inside, 1) == 0;
    if (restart)
        atomic_fetch_add(&guard->restarting, 1);
    if (!alone || !atomic_load(&guard->active))
        return; /* another one of ours is at it, and tells when it leaves */
    pthread_mutex_lock(&guard->mutex);
    if (guard->image != NULL)
        give_up_if_moved(guard->image, now);
    pthread_mutex_unlock(&guard->mutex);
}

/* Who restarts the WAL knows all; who checkpoints, only how far: the WAL may be restarted by another process meanwhile. */
static void note_place(lj_image *image, const lj_image_place *now, bool restart)
{
    if (!image->has_known)
        return;
    if (restart)
        image->known = *now;
    else if (lj_wal_salt_eq(image->known.salt, now->salt))
        image->known.attempted = now->attempted;
    else if (atomic_load(&image->guard->restarting) == 0)
        give_up_if_moved(image, now);
}

void lj_image_leave(lj_image_guard *guard, const lj_image_place *now, bool restart)
{
    if (atomic_load(&guard->active)) {
        pthread_mutex_lock(&guard->mutex);
        if (guard->image != NULL)
            note_place(guard->image, now, restart);
        pthread_mutex_unlock(&guard->mutex);
    }
    if (restart)
        atomic_fetch_sub(&guard->restarting, 1);
    atomic_fetch_sub(&guard->inside, 1);
}
