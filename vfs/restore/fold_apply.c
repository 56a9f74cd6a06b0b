/*
 * fold_apply.c - writes the last version of every page from the temporary file into the database file.
 *
 * Pages go out in ascending order through one buffer, so that neighbours become one write; frames that are neighbours
 * in the temporary file too (bulk inserts) are read with one call.
 *
 * Layer: restore. Thread-safety: one thread at a time.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "vfs/base/clock.h"
#include "vfs/base/io.h"
#include "vfs/restore/fold_internal.h"

#define BUFFER_BYTES (1024u * 1024u)
#define READ_AT_ONCE 256u /* frames; two I/O vectors each */

typedef struct {
    const lj_fold *fold;
    int db_fd;
    uint8_t *buffer;
    size_t pages;        /* in the buffer */
    uint32_t first_pgno; /* of the buffer */
} writer;

static lj_code flush(writer *w, lj_error *err)
{
    if (w->pages == 0)
        return LJ_OK;
    if (w->fold->setup.cancel != NULL && __atomic_load_n(w->fold->setup.cancel, __ATOMIC_RELAXED))
        return lj_error_set(err, LJ_CANCELLED, "the restore was cancelled");
    uint64_t page_size = w->fold->page_size;
    lj_code code = lj_io_pwrite(w->db_fd, w->buffer, (size_t)(w->pages * page_size),
                                (w->first_pgno - 1) * page_size, err);
    w->pages = 0;
    return code;
}

/* Reads the pages of `count` neighbouring frames into the buffer, without their frame headers. */
static lj_code read_frames(writer *w, uint32_t frame, size_t count, lj_error *err)
{
    size_t page_size = w->fold->page_size;
    size_t frame_bytes = lj_wal_frame_bytes(w->fold->page_size);
    uint8_t *out = w->buffer + w->pages * page_size;
    uint64_t offset = (uint64_t)frame * frame_bytes + LJ_WAL_FRAME_HEADER_BYTES;
    uint8_t junk[LJ_WAL_FRAME_HEADER_BYTES];
    struct iovec vectors[2 * READ_AT_ONCE];
    int used = 0;
    for (size_t i = 0; i < count; i++) {
        if (i > 0)
            vectors[used++] = (struct iovec){.iov_base = junk, .iov_len = sizeof(junk)};
        vectors[used++] = (struct iovec){.iov_base = out + i * page_size, .iov_len = page_size};
    }
    size_t want = count * frame_bytes - LJ_WAL_FRAME_HEADER_BYTES;
    ssize_t n = preadv(w->fold->setup.temp_fd, vectors, used, (off_t)offset);
    w->pages += count;
    if (n == (ssize_t)want)
        return LJ_OK;
    /* interrupted or short: page by page, with the helper that knows how to go on */
    for (size_t i = 0; i < count; i++) {
        size_t got = 0;
        LJ_TRY(lj_io_pread(w->fold->setup.temp_fd, out + i * page_size, page_size,
                           offset + i * frame_bytes, &got, err));
        if (got != page_size)
            return lj_error_set(err, LJ_IO, "the temporary file for the WAL became shorter");
    }
    return LJ_OK;
}

static lj_code write_pages(writer *w, const uint64_t *entries, size_t count, lj_error *err)
{
    size_t buffer_pages = BUFFER_BYTES / w->fold->page_size;
    for (size_t i = 0; i < count;) {
        uint32_t pgno = lj_foldmap_pgno(entries[i]);
        if (pgno > w->fold->db_pages)
            break; /* ascending: all the others are above too */
        if (w->pages == buffer_pages || (w->pages > 0 && pgno != w->first_pgno + w->pages))
            LJ_TRY(flush(w, err));
        if (w->pages == 0)
            w->first_pgno = pgno;
        size_t run = 1;
        size_t most = LJ_MIN(LJ_MIN(buffer_pages - w->pages, READ_AT_ONCE), count - i);
        /* an entry that is the previous one with page and frame counted up by one */
        while (run < most && entries[i + run] == entries[i] + run * ((UINT64_C(1) << 32) | 1) &&
               lj_foldmap_pgno(entries[i + run]) <= w->fold->db_pages)
            run++;
        LJ_TRY(read_frames(w, lj_foldmap_frame(entries[i]), run, err));
        i += run;
    }
    return flush(w, err);
}

static lj_code truncate_to(int fd, uint64_t bytes, lj_error *err)
{
    if (ftruncate(fd, (off_t)bytes) != 0)
        return lj_error_errno(err, errno, "cannot set the size of the restored database");
    return LJ_OK;
}

bool lj_fold_wants_apply(const lj_fold *fold, uint64_t limit_bytes)
{
    return fold->pending_count == 0 && fold->map.count > 0 &&
           (uint64_t)fold->frames * lj_wal_frame_bytes(fold->page_size) >= limit_bytes;
}

/* Entries from fold->written on whose pages end at or below byte `limit`, and inside what no index cut off. */
static size_t entries_below(const lj_fold *fold, uint64_t limit)
{
    uint64_t last = LJ_MIN(limit / fold->page_size, (uint64_t)fold->floor_pages);
    size_t low = fold->written;
    size_t high = fold->map.count;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (lj_foldmap_pgno(fold->sorted[mid]) <= last)
            low = mid + 1;
        else
            high = mid;
    }
    return low - fold->written;
}

lj_code lj_fold_follow(lj_fold *fold, int db_fd, const uint64_t *snapshot_bytes, const bool *stop,
                       lj_error *err)
{
    if (fold->db_pages == 0 || fold->map.count == 0)
        return LJ_OK;
    writer w = {.fold = fold, .db_fd = db_fd, .buffer = malloc(BUFFER_BYTES)};
    if (w.buffer == NULL)
        return lj_error_nomem(err);
    lj_foldmap_sort(&fold->map, &fold->sorted);
    lj_code code = LJ_OK;
    while (code == LJ_OK && fold->written < fold->map.count &&
           !__atomic_load_n(stop, __ATOMIC_ACQUIRE)) {
        size_t count = entries_below(fold, __atomic_load_n(snapshot_bytes, __ATOMIC_ACQUIRE));
        if (count == 0) {
            lj_clock_sleep_ns(LJ_NS_PER_MS);
            continue;
        }
        code = write_pages(&w, fold->sorted + fold->written, count, err);
        fold->written += count;
    }
    free(w.buffer);
    return code;
}

lj_code lj_fold_apply(lj_fold *fold, int db_fd, lj_error *err)
{
    if (fold->db_pages == 0)
        return LJ_OK;
    uint64_t page_size = fold->page_size;
    struct stat st;
    if (fstat(db_fd, &st) != 0)
        return lj_error_errno(err, errno, "cannot stat the restored database");
    if (fold->floor_pages != UINT32_MAX && (uint64_t)st.st_size > fold->floor_pages * page_size)
        LJ_TRY(truncate_to(db_fd, fold->floor_pages * page_size, err));
    writer w = {.fold = fold, .db_fd = db_fd, .buffer = malloc(BUFFER_BYTES)};
    if (w.buffer == NULL)
        return lj_error_nomem(err);
    if (fold->sorted == NULL)
        lj_foldmap_sort(&fold->map, &fold->sorted);
    lj_code code = LJ_OK;
    if (fold->written < fold->map.count)
        code = write_pages(&w, fold->sorted + fold->written, fold->map.count - fold->written, err);
    free(w.buffer);
    lj_foldmap_clear(&fold->map);
    fold->sorted = NULL;
    fold->written = 0;
    fold->frames = 0;
    fold->floor_pages = UINT32_MAX;
    if (code == LJ_OK)
        code = truncate_to(fold->setup.temp_fd, 0, err);
    return code == LJ_OK ? truncate_to(db_fd, fold->db_pages * page_size, err) : code;
}
