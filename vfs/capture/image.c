/*
 * image.c - see image.h.
 */
#include "vfs/capture/image.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "vfs/base/aside.h"
#include "vfs/base/clock.h"
#include "vfs/base/io.h"
#include "vfs/base/str.h"
#include "vfs/capture/framemap.h"
#include "vfs/capture/saved.h"

#define CHUNK_BYTES (256u * 1024u)
#define YIELD_TRIES 40
/* so much of the WAL is verified while it is frozen; what is more before, as often as the writers keep up with it */
#define AHEAD_BYTES (512u * 1024u)
#define AHEAD_TRIES 8

struct lj_image {
    lj_image_guard *guard;
    pthread_mutex_t
        file_mutex; /* the calls of dbfile once it is frozen; inside of guard->mutex or alone */
    lj_dbfile dbfile;
    lj_freeze freeze;
    const atomic_bool *cancel;
    bool wal_gone;        /* restarted: every frame up to M is in the database file */
    bool gone_seen;       /* the reader knew that when it read the database file last */
    lj_framemap map;      /* page -> frame number <= M; empty when no frame is needed */
    lj_saved saved;       /* pages as they were, which a checkpoint has overwritten */
    bool has_known;       /* the mark was given back, and since then ... */
    lj_image_place known; /* ... nobody but this process should have gone on from here */
    lj_error failure;     /* saving failed: the image is lost */
    uint32_t next;        /* first page not yet read */
    uint8_t *chunk;       /* what was read and not handed out yet */
    size_t chunk_len, chunk_pos;
    uint8_t *memory;   /* the whole image, when it is small; NULL otherwise */
    int copy_fd;       /* the whole image in an unlinked file, -1 = none */
    uint64_t copy_pos; /* in memory or copy_fd */
    bool stays;        /* does not give way: it is being copied */
};

/*
 * Without a frame in the WAL the file's own header tells how large a page is; that of an encrypted database is ciphertext. Then it is
 * what the wal-index remembers (`known`); with a WAL that never had a frame nothing hangs on it, and any size will do
 * that divides the file.
 */
static uint32_t page_size_of(const uint8_t head[18], uint64_t bytes, uint32_t known)
{
    uint32_t page_size = lj_get_be16(head + 16);
    if (memcmp(head, "SQLite format 3", 16) == 0)
        return page_size == 1 ? LJ_WAL_PAGE_MAX : page_size;
    if (lj_wal_page_size_ok(known) && bytes % known == 0)
        return known;
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
    uint32_t page_size = page_size_of(head, bytes, image->freeze.page_size);
    if (!lj_wal_page_size_ok(page_size) || bytes < page_size)
        return lj_error_set(err, LJ_CORRUPT, "the file is not an SQLite database");
    image->freeze.page_size = page_size;
    image->freeze.db_pages = (uint32_t)(bytes / page_size);
    return LJ_OK;
}

static void tell_holds(const lj_image *image)
{
    const lj_image_guard *guard = image->guard;
    lj_image_hold hold = !image->freeze.held ? LJ_IMAGE_FREE
                         : image->stays      ? LJ_IMAGE_STAYS
                                             : LJ_IMAGE_HOLDS;
    if (guard->holds != NULL)
        guard->holds(guard->ctx, hold);
}

static void give_mark_back(lj_image *image)
{
    if (!image->freeze.held)
        return;
    image->freeze.held = false;
    pthread_mutex_lock(&image->file_mutex);
    image->dbfile.release(image->dbfile.ctx);
    pthread_mutex_unlock(&image->file_mutex);
    tell_holds(image);
}

static bool read_whole(const lj_image *image)
{
    return image->next > image->freeze.db_pages && image->freeze.db_pages != 0;
}

static void lose(lj_image *image)
{
    if (read_whole(image) || image->failure.code != LJ_OK)
        return;
    lj_error_set(&image->failure, LJ_BUSY, "snapshot: another process needed the database");
    lj_error_retryable(&image->failure, true);
}

/* Another process asked for the mark while a chunk was being read. */
static void heed_locked(lj_image *image)
{
    if (image->stays || !atomic_load(&image->guard->wanted))
        return;
    atomic_store(&image->guard->wanted, false);
    if (image->freeze.held) {
        lose(image);
        give_mark_back(image);
    }
}

static lj_code freeze_guarded(lj_image *image, lj_error *err)
{
    image->wal_gone = false;
    /* from here on a checkpoint waits for guard.mutex: nothing beyond M slips in between freezing and copying */
    atomic_store(&image->guard->copying, true);
    LJ_TRY(image->dbfile.freeze(image->dbfile.ctx, &image->freeze, err));
    atomic_store(&image->guard->copying, !image->freeze.held);
    tell_holds(image);
    LJ_TRY(measure(image, err));
    image->saved.page_size = image->freeze.page_size;
    return LJ_OK;
}

/* What is missing is verified with nothing frozen: an application's thread that comes finds an image with nothing to save. */
static lj_code verify_ahead(lj_image *image, const char *wal_path, lj_error *err)
{
    lj_image_guard *guard = image->guard;
    give_mark_back(image);
    image->dbfile.close(image->dbfile.ctx);
    const lj_freeze then = image->freeze;
    image->freeze = (lj_freeze){.frames = 0};
    atomic_store(&guard->copying, false);
    pthread_mutex_unlock(&guard->mutex);
    lj_framemap_ahead(&image->map, wal_path, &then);
    pthread_mutex_lock(&guard->mutex);
    if (atomic_load(image->cancel))
        return lj_error_set(err, LJ_CANCELLED, "the database is being closed");
    return LJ_OK;
}

static lj_code begin_guarded(lj_image *image, const char *wal_path, lj_error *err)
{
    LJ_TRY(freeze_guarded(image, err));
    for (int i = 0; i < AHEAD_TRIES; i++) {
        if (lj_framemap_missing(&image->map, &image->freeze) <= AHEAD_BYTES)
            break;
        LJ_TRY(verify_ahead(image, wal_path, err));
        LJ_TRY(freeze_guarded(image, err));
    }
    return lj_framemap_finish(&image->map, wal_path, &image->freeze, err);
}

/* The content of one page at M, when it does not stand in the database file. *ret_done = it was read here. */
static lj_code read_elsewhere(lj_image *image, uint32_t pgno, uint8_t *out, bool *ret_done,
                              lj_error *err)
{
    uint32_t page_size = image->freeze.page_size;
    uint64_t frame = 0;
    size_t n = 0;
    LJ_TRY(lj_saved_read(&image->saved, pgno, out, ret_done, err));
    if (*ret_done || image->wal_gone || !lj_pagemap_get(&image->map.frames, pgno, &frame))
        return LJ_OK;
    uint64_t at = lj_wal_frame_offset(page_size, frame) + LJ_WAL_FRAME_HEADER_BYTES;
    LJ_TRY(lj_io_pread(image->map.file.fd, out, page_size, at, &n, err));
    *ret_done = true;
    return n == page_size ? LJ_OK : lj_error_set(err, LJ_IO, "page %" PRIu32 " is cut short", pgno);
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
    give_mark_back(image);
    atomic_store(&image->guard->copying, false);
    return LJ_OK;
}

/* One chunk of the image. */
static lj_code read_chunk(lj_image *image, uint8_t *to, size_t *ret_len, lj_error *err)
{
    uint32_t pages = 0;
    if (!image->stays)
        lj_aside();
    LJ_TRY(lj_saved_flush(&image->saved, &image->guard->mutex, err));
    LJ_TRY(read_file(image, to, &pages, err));
    pthread_mutex_lock(&image->guard->mutex);
    lj_code code = correct_pages(image, to, pages, err);
    *ret_len = (size_t)pages * image->freeze.page_size;
    heed_locked(image);
    pthread_mutex_unlock(&image->guard->mutex);
    return code;
}

/* Copies all of it to a file, and gives the locks back. Between chunks others may have the mutex, but not the mark. */
static lj_code copy_to_file(lj_image *image, const char *state_dir, lj_error *err)
{
    uint64_t bytes = lj_image_bytes(image);
    LJ_TRY(lj_io_open_unlinked(state_dir, "image", &image->copy_fd, err));
    size_t n = 0;
    for (uint64_t at = 0; at < bytes; at += n) {
        if (atomic_load(image->cancel))
            return lj_error_set(err, LJ_CANCELLED, "the database is being closed");
        LJ_TRY(read_chunk(image, image->chunk, &n, err));
        LJ_TRY(lj_io_pwrite(image->copy_fd, image->chunk, n, at, err));
    }
    pthread_mutex_lock(&image->guard->mutex);
    give_mark_back(image);
    atomic_store(&image->guard->copying, false);
    pthread_mutex_unlock(&image->guard->mutex);
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
    image->map = (lj_framemap)LJ_FRAMEMAP_INIT;
    image->saved = (lj_saved)LJ_SAVED_INIT;
    image->copy_fd = -1;
    image->stays = guard->copy_first;
    image->next = 1;
    image->chunk = chunk;
    lj_code code = lj_saved_open(&image->saved, state_dir, guard->saved_bytes, err);
    pthread_mutex_lock(&guard->mutex);
    guard->image = image;
    atomic_store(&guard->active, true);
    atomic_store(&guard->wanted, false);
    if (code == LJ_OK)
        code = begin_guarded(image, wal_path, err);
    bool small = code == LJ_OK && lj_image_bytes(image) <= guard->memory_bytes;
    if (small)
        code = copy_to_memory(image, err);
    heed_locked(image);
    pthread_mutex_unlock(&guard->mutex);
    if (code == LJ_OK && !small && image->stays && image->freeze.held)
        code = copy_to_file(image, state_dir, err);
    else if (code == LJ_OK && !small)
        lj_saved_prepare(&image->saved, &guard->mutex);
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
    give_mark_back(image);
    image->dbfile.close(image->dbfile.ctx);
    pthread_mutex_unlock(&guard->mutex);
    lj_closep(&image->copy_fd);
    lj_framemap_free(&image->map);
    lj_saved_free(&image->saved);
    pthread_mutex_destroy(&image->file_mutex);
    free(image->chunk);
    free(image->memory);
    free(image);
}

/* From the copy in memory or in a file. */
static lj_code copy_read(lj_image *image, void *out, size_t max, size_t *ret_n, lj_error *err)
{
    size_t n = (size_t)LJ_MIN((uint64_t)max, lj_image_bytes(image) - image->copy_pos);
    if (image->memory != NULL)
        memcpy(out, image->memory + image->copy_pos, n);
    else if (n > 0)
        LJ_TRY(lj_io_pread(image->copy_fd, out, n, image->copy_pos, &n, err));
    image->copy_pos += n;
    *ret_n = n;
    return LJ_OK;
}

static lj_code image_read(void *ctx, void *out, size_t max, size_t *ret_n, lj_error *err)
{
    lj_image *image = ctx;
    if (image->memory != NULL || image->copy_fd >= 0)
        return copy_read(image, out, max, ret_n, err);
    if (image->chunk_pos == image->chunk_len && image->next <= image->freeze.db_pages) {
        if (atomic_load(image->cancel))
            return lj_error_set(err, LJ_CANCELLED, "the database is being closed");
        /* straight to the reader, where there is room for it */
        bool direct = max >= CHUNK_BYTES;
        size_t n = 0;
        lj_code code = read_chunk(image, direct ? out : image->chunk, &n, err);
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
    if (image->memory != NULL || image->copy_fd >= 0) {
        image->copy_pos = 0;
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
    bool done = false;
    LJ_TRY(read_elsewhere(image, pgno, page, &done, err));
    if (!done)
        LJ_TRY(reader->read(reader->ctx, (uint64_t)(pgno - 1) * page_size, page, page_size, err));
    return lj_saved_add(&image->saved, pgno, page, err);
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
        if (!lj_saved_has(&image->saved, (uint32_t)pgno))
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
    if (image != NULL && image->freeze.held && !image->stays) {
        was_held = true;
        atomic_store(&guard->copying, true);
        image->has_known = now != NULL;
        if (now != NULL)
            image->known = *now;
        give_mark_back(image);
    }
    pthread_mutex_unlock(&guard->mutex);
    return was_held;
}

void lj_image_yield(lj_image_guard *guard)
{
    if (!atomic_load(&guard->active))
        return;
    atomic_store(&guard->wanted, true);
    /* whoever has the mutex for long is reading a chunk, and heeds at its end */
    for (int tries = 0; tries < YIELD_TRIES; tries++) {
        if (pthread_mutex_trylock(&guard->mutex) == 0) {
            if (guard->image != NULL)
                heed_locked(guard->image);
            pthread_mutex_unlock(&guard->mutex);
            return;
        }
        lj_clock_sleep_ns(LJ_NS_PER_MS / 4);
    }
}

void lj_image_unlocked(lj_image_guard *guard)
{
    if (!atomic_load(&guard->active))
        return;
    pthread_mutex_lock(&guard->mutex);
    lj_image *image = guard->image;
    if (image != NULL && image->freeze.db_pages != 0 && !image->freeze.held && !image->has_known)
        lose(image);
    pthread_mutex_unlock(&guard->mutex);
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
    else
        lj_aside_begin();
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
    else
        lj_aside_end();
    atomic_fetch_sub(&guard->inside, 1);
}
