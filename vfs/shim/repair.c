/*
 * repair.c - makes whole what SQLite before 3.50.2 leaves broken: frames of a commit without salts and checksums.
 *
 * When a page that was spilled is written again in the same transaction, SQLite overwrites its frame, from then on writes frame
 * headers with salts and checksums of zero, and computes them all before the commit. After a ROLLBACK TO it may begin
 * that computation behind the end, or in the middle. Live readers do not notice, because they go by the wal-index. But a crash
 * loses that transaction and every later one of this WAL, and what a checkpoint had already copied is then mixed with older
 * pages: so no checkpoint, short of one that restarts the WAL at once, would make it better.
 *
 * So what SQLite forgot is done here, when its writer gives the write lock back: nobody else can write, the frames are
 * final, and what they should say follows from the WAL itself. The wal-index gets the running checksum that the next
 * writer has to go on from, in the order in which SQLite writes it: second copy, barrier, first copy. By then the wal-index has shown the
 * commit for a moment: who looks meanwhile, a reader or a thread of ours, does not see it (lj_walindex_read_whole), or else it would be
 * shipped, or snapshotted, before its frames verify.
 *
 * Not done, and then the database is replicated by snapshots until the WAL restarts (vfs/ship/snapshot.c): under exclusive locking,
 * where the writer goes on from its own copy of the wal-index; and where nothing shows that checksums hold at this
 * layer at all (an encryption between SQLite and this VFS may compute them over something else).
 *
 * Layer: shim. Runs in application threads, under the WAL write lock. Cost: nothing, but for a transaction with such headers,
 * whose frames are read once. Source: "WAL-mode File Format", sections 1.1 and 2.1; SQLite's release notes of 3.50.2.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "vfs/base/log.h"
#include "vfs/shim/handle.h"
#include "vfs/shim/walindex.h"

typedef struct {
    lj_file *wal;
    lj_wal_chain chain;
    uint8_t *frame; /* header and page */
} walk;

static bool read_frame(walk *w, uint64_t number)
{
    uint32_t page_size = w->chain.header.page_size;
    return lj_read_lower(w->wal, w->frame, lj_wal_frame_bytes(page_size),
                         lj_wal_frame_offset(page_size, number));
}

static bool without_sums(const uint8_t *frame_header)
{
    static const uint8_t zeros[16];
    return memcmp(frame_header + 8, zeros, sizeof(zeros)) == 0;
}

void lj_repair_note_write(lj_file *wal, const void *data, int len, sqlite3_int64 off)
{
    if (len == (int)LJ_WAL_FRAME_HEADER_BYTES && off >= (sqlite3_int64)LJ_WAL_HEADER_BYTES &&
        without_sums(data) && !wal->unsummed) {
        wal->unsummed = true;
        (void)atomic_fetch_add(&wal->open->unsummed, 1);
    }
}

void lj_repair_forget(lj_file *wal)
{
    if (!wal->unsummed)
        return;
    wal->unsummed = false;
    (void)atomic_fetch_add(&wal->open->repairs, 1);
    (void)atomic_fetch_sub(&wal->open->unsummed, 1);
}

/* Something of this WAL, or of one before it, was shipped: only what verifies is. */
static bool sums_were_good_before(lj_db *db)
{
    pthread_mutex_lock(&db->mutex);
    bool good = db->segments > 0 || db->pos.index > 0 || db->pos.offset > 0;
    pthread_mutex_unlock(&db->mutex);
    return good;
}

/* Behind `start`, the last frame before the transaction, which has to verify. */
static bool begin(walk *w, uint64_t start)
{
    if (start == 0)
        return true;
    lj_wal_header header = w->chain.header;
    lj_wal_frame last;
    if (start > 1) {
        if (!read_frame(w, start - 1))
            return false;
        lj_wal_frame_parse(w->frame, &last);
        lj_wal_chain_resume(&w->chain, &header, start - 1, last.cksum);
    }
    return read_frame(w, start) && lj_wal_chain_next(&w->chain, w->frame, &last) == LJ_WAL_FRAME_OK;
}

/* Writes the headers of frames first..last anew. */
static bool rewrite(walk *w, uint64_t first, uint64_t last, lj_wal_cksum *sum)
{
    const sqlite3_io_methods *m = w->wal->lower->pMethods;
    const lj_wal_header *header = &w->chain.header;
    for (uint64_t number = first; number <= last; number++) {
        uint8_t out[LJ_WAL_FRAME_HEADER_BYTES];
        lj_wal_frame frame;
        if (!read_frame(w, number))
            return false;
        lj_wal_frame_parse(w->frame, &frame);
        lj_wal_frame_write(header, sum, frame.pgno, frame.db_pages,
                           w->frame + LJ_WAL_FRAME_HEADER_BYTES, out);
        uint64_t at = lj_wal_frame_offset(header->page_size, number);
        if (m->xWrite(w->wal->lower, out, sizeof(out), (sqlite3_int64)at) != SQLITE_OK)
            return false;
    }
    return m->xSync(w->wal->lower, SQLITE_SYNC_NORMAL) == SQLITE_OK;
}

/* The committed end is a commit, as the wal-index says it. */
static bool ends_in_commit(walk *w, const lj_walindex *index)
{
    lj_wal_frame frame;
    if (!read_frame(w, index->frames))
        return false;
    lj_wal_frame_parse(w->frame, &frame);
    return frame.db_pages != 0 && frame.db_pages == index->db_pages;
}

static void repair(lj_file *file, walk *w, const lj_walindex *index, uint64_t start)
{
    lj_db *db = file->open->db;
    lj_wal_frame frame;
    if (!ends_in_commit(w, index) || !begin(w, start))
        return;
    uint64_t number = start + 1;
    while (number <= index->frames) {
        if (!read_frame(w, number))
            return;
        if (lj_wal_chain_next(&w->chain, w->frame, &frame) != LJ_WAL_FRAME_OK)
            break;
        number++;
    }
    if (number > index->frames || !without_sums(w->frame))
        return; /* whole; or broken in a way that is not this one */
    if (number == 1 && !sums_were_good_before(db))
        return; /* no frame has shown yet that checksums hold at this layer */
    lj_wal_cksum sum = w->chain.sum;
    bool done = rewrite(w, number, index->frames, &sum);
    if (done)
        lj_walindex_set_sum(file->lower, file->index, sum);
    /* an application that does it once does it often */
    bool first = !__atomic_exchange_n(&file->open->repair_told, true, __ATOMIC_RELAXED);
    lj_log(first || !done ? LJ_LOG_WARN : LJ_LOG_DEBUG,
           "%s: SQLite %s wrote %" PRIu64 " frames whose checksums do not hold, %s (a crash would "
           "have lost this commit and all behind it; fixed in SQLite 3.50.2: upgrade)",
           db->path, sqlite3_libversion(), index->frames - number + 1,
           done ? "they were repaired" : "and they could not be repaired");
}

void lj_repair_begin(lj_file *file)
{
    if (file->index != NULL)
        lj_walindex_peek(file->index, &file->begin_salt, &file->begin_frames);
}

static void repair_commit(lj_file *file)
{
    lj_walindex index;
    uint8_t raw[LJ_WAL_HEADER_BYTES];
    lj_wal_header header;
    lj_error err = LJ_ERROR_INIT;
    if (file->index == NULL || !lj_walindex_read(file->index, &index))
        return;
    bool same_life = lj_wal_salt_eq(index.salt, file->begin_salt);
    uint64_t start = same_life ? file->begin_frames : 0;
    if (index.frames <= start)
        return; /* rolled back */
    if (!lj_read_lower(file->partner, raw, sizeof(raw), 0) ||
        lj_wal_header_parse(raw, &header, &err) != LJ_OK ||
        !lj_wal_salt_eq(header.salt, index.salt) || header.page_size != index.page_size)
        return;
    walk w = {.wal = file->partner, .frame = malloc(lj_wal_frame_bytes(header.page_size))};
    if (w.frame == NULL)
        return;
    lj_wal_chain_start(&w.chain, &header);
    repair(file, &w, &index, start);
    free(w.frame);
}

void lj_repair_commit(lj_file *file)
{
    repair_commit(file);
    lj_repair_forget(file->partner);
}
