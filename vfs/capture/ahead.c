/*
 * ahead.c - see ahead.h.
 */
#include "vfs/capture/ahead.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "vfs/base/aside.h"
#include "vfs/base/io.h"
#include "vfs/base/str.h"
#include "vfs/capture/database.h"
#include "vfs/capture/gate.h"
#include "vfs/capture/session.h"

/* less is copied in the time that it takes to wake a thread */
#define LEAST_BYTES (UINT64_C(128) << 10)
/* where SQLite checkpoints by itself */
#define SQLITE_FRAMES UINT64_C(1000)
/* so many turns for a life of the usual length */
#define STEPS 8u
/* one that a reader made longer is no measure for the next */
#define LONGEST_BYTES (UINT64_C(32) << 20)
/* of one copy: a WAL that is longer is not about to restart, and this is disk that nobody asked for */
#define MOST_BYTES (UINT64_C(64) << 20)
/* that must be left on the disk: the application needs it more */
#define LEAVE_BYTES (UINT64_C(256) << 20)
#define CHUNK_BYTES (128u << 10)
/* as much is copied in vain at most because the WAL restarts meanwhile; or a transaction, where that is larger */
#define STEP_BYTES (UINT64_C(256) << 10)

/* ------------------------------------------------------------------ what is to be copied */

/* What is there is a begin of that, or of more. */
static bool serves_locked(const lj_db *db, const lj_spool_entry *rest)
{
    const lj_ahead *a = &db->ahead;
    return a->there && lj_wal_salt_eq(a->salt, db->life.salt) &&
           a->start.index == rest->start.index &&
           strcmp(a->start.generation, rest->start.generation) == 0 &&
           a->start.offset <= rest->start.offset && rest->start.offset <= a->end &&
           a->end <= rest->end;
}

/* Whether a restart would find at least so many bytes of it to copy. */
static bool is_due_locked(const lj_db *db, const lj_spool_entry *rest, uint64_t least_bytes)
{
    if (db->closing || rest->end < db->options.max_wal_size_bytes ||
        rest->end - rest->start.offset > MOST_BYTES)
        return false;
    uint64_t from = serves_locked(db, rest) ? db->ahead.end : rest->start.offset;
    return rest->end - from >= least_bytes;
}

/* When the life that has just begun is to be copied: it may get as long as the one before. */
static void expect_locked(lj_ahead *a, const lj_life *life, const lj_life *before)
{
    uint64_t usual = lj_wal_frame_offset(life->page_size, SQLITE_FRAMES + 1);
    uint64_t length =
        before->known ? lj_wal_frame_offset(before->page_size, before->frames + 1) : usual;
    length = LJ_MIN(length, LONGEST_BYTES);
    a->step_bytes = LJ_MAX(length / STEPS, LEAST_BYTES);
    a->due_end = a->expected ? a->step_bytes : length / 2 + a->step_bytes;
}

bool lj_ahead_published_locked(lj_db *db, const lj_life *before)
{
    lj_ahead *a = &db->ahead;
    const lj_life *life = &db->life;
    if (!before->known || !lj_wal_salt_eq(before->salt, life->salt))
        expect_locked(a, life, before);
    uint64_t end = lj_wal_frame_offset(life->page_size, life->frames + 1);
    if (end < a->due_end)
        return false;
    a->due_end = end + a->step_bytes;
    lj_spool_entry rest;
    return a->wake != NULL && !a->busy && lj_db_rest_locked(db, &rest) &&
           is_due_locked(db, &rest, LEAST_BYTES);
}

/* ------------------------------------------------------------------ copying */

typedef struct {
    int wal_fd, fd;
    char *path;
    lj_ahead ahead; /* as it was when this step began */
    bool fresh;     /* the file is to be made */
    uint32_t page_size;
    uint64_t to; /* the committed end of the WAL */
} copy;

static void copy_close(copy *c)
{
    lj_closep(&c->wal_fd);
    lj_closep(&c->fd);
    free(c->path);
}

static void remove_file(const lj_db *db, const lj_ahead *ahead)
{
    LJ_CLEANUP(lj_freep) char *path = lj_str_printf("%s/%s", db->spool_dir, ahead->name);
    if (path != NULL)
        unlink(path);
}

static void begin_file_locked(lj_db *db, const lj_spool_entry *rest)
{
    lj_ahead *a = &db->ahead;
    uint64_t random = 0;
    lj_io_random(&random, sizeof(random));
    a->there = true;
    a->taken = false;
    a->start = rest->start;
    a->end = rest->start.offset;
    a->salt = db->life.salt;
    snprintf(a->name, sizeof(a->name), "%s-%08" PRIx32 "-%016" PRIx64 ".wal.tmp",
             rest->start.generation, rest->start.index, random);
}

/* What the next step copies, and into which file. false: nothing is left. */
static bool plan(lj_db *db, copy *c, uint64_t least_bytes)
{
    lj_spool_entry rest;
    pthread_mutex_lock(&db->mutex);
    lj_ahead old = db->ahead;
    bool any = lj_db_rest_locked(db, &rest);
    bool due = any && is_due_locked(db, &rest, least_bytes);
    bool of_use = any && serves_locked(db, &rest);
    c->fresh = due && !of_use;
    if (c->fresh)
        begin_file_locked(db, &rest);
    else if (!of_use)
        db->ahead.there = false;
    db->ahead.busy = due;
    c->ahead = db->ahead;
    c->page_size = db->life.page_size;
    c->to = rest.end;
    pthread_mutex_unlock(&db->mutex);
    if (old.there && !of_use)
        remove_file(db, &old);
    return due;
}

static lj_code open_files(const lj_db *db, copy *c, lj_error *err)
{
    if (c->wal_fd < 0)
        LJ_TRY(lj_io_open(db->wal_path, O_RDONLY, 0, &c->wal_fd, err));
    if (c->fd >= 0 && !c->fresh)
        return LJ_OK;
    lj_closep(&c->fd);
    c->fd = -1;
    free(c->path);
    c->path = lj_str_printf("%s/%s", db->spool_dir, c->ahead.name);
    if (c->path == NULL)
        return lj_error_nomem(err);
    if (!c->fresh)
        return lj_io_open(c->path, O_WRONLY, 0, &c->fd, err);
    LJ_TRY(lj_io_mkdirs(db->spool_dir, 0700, err));
    return lj_io_open(c->path, O_WRONLY | O_CREAT | O_EXCL, 0600, &c->fd, err);
}

static lj_code check_room(const copy *c, lj_error *err)
{
    struct statvfs fs;
    if (fstatvfs(c->fd, &fs) != 0)
        return lj_error_errno(err, errno, "cannot ask for the room on the disk");
    uint64_t room = (uint64_t)fs.f_bavail * fs.f_frsize;
    if (room < LEAVE_BYTES + (c->to - c->ahead.end))
        return lj_error_set(err, LJ_NOSPACE, "little room on the disk");
    return LJ_OK;
}

static lj_code copy_header(const copy *c, lj_error *err)
{
    uint8_t raw[LJ_WAL_HEADER_BYTES];
    lj_wal_header header;
    size_t n = 0;
    LJ_TRY(lj_io_pread(c->wal_fd, raw, sizeof(raw), 0, &n, err));
    if (n != sizeof(raw))
        return lj_error_set(err, LJ_NOTFOUND, "the WAL has no header");
    LJ_TRY(lj_wal_header_parse(raw, &header, err));
    if (!lj_wal_salt_eq(header.salt, c->ahead.salt))
        return lj_error_set(err, LJ_CONFLICT, "the WAL was restarted");
    return lj_io_pwrite(c->fd, raw, sizeof(raw), 0, err);
}

/* Of `bytes` of whole frames at `at`: the end of the last transaction among them, or what *end was. */
static lj_code find_end(const copy *c, const uint8_t *frames, uint64_t at, size_t bytes,
                        uint64_t *end, lj_error *err)
{
    uint32_t frame_bytes = lj_wal_frame_bytes(c->page_size);
    for (size_t i = 0; i < bytes; i += frame_bytes) {
        lj_wal_frame frame;
        lj_wal_frame_parse(frames + i, &frame);
        if (!lj_wal_salt_eq(frame.salt, c->ahead.salt))
            return lj_error_set(err, LJ_CONFLICT, "the WAL was restarted");
        if (frame.db_pages != 0)
            *end = at + i + frame_bytes;
    }
    return LJ_OK;
}

/* Copies a step, or more where no transaction ends in it. *ret_end: up to there it is whole transactions. */
static lj_code copy_step(const copy *c, uint64_t *ret_end, lj_error *err)
{
    uint32_t frame_bytes = lj_wal_frame_bytes(c->page_size);
    size_t chunk_bytes = LJ_MAX(CHUNK_BYTES / frame_bytes, 1u) * frame_bytes;
    LJ_CLEANUP(lj_freep) uint8_t *chunk = malloc(chunk_bytes);
    if (chunk == NULL)
        return lj_error_nomem(err);
    /* where nothing of the index was shipped the range begins with the header */
    uint64_t from = LJ_MAX(c->ahead.end, (uint64_t)LJ_WAL_HEADER_BYTES);
    uint64_t end = c->ahead.end;
    if (c->fresh)
        LJ_TRY(copy_header(c, err));
    for (uint64_t at = from; at < c->to && (end <= from || at < from + STEP_BYTES);) {
        size_t want = (size_t)LJ_MIN((uint64_t)chunk_bytes, c->to - at);
        size_t n = 0;
        lj_aside();
        LJ_TRY(lj_io_pread(c->wal_fd, chunk, want, at, &n, err));
        if (n != want)
            return lj_error_set(err, LJ_CONFLICT, "the WAL was cut");
        LJ_TRY(find_end(c, chunk, at, n, &end, err));
        LJ_TRY(lj_io_pwrite(c->fd, chunk, n, at, err));
        at += n;
    }
    *ret_end = end;
    return LJ_OK;
}

/* Says how far the file is complete. false: somebody took it, or it is given up. */
static bool advance(lj_db *db, const copy *c, lj_code code, uint64_t end)
{
    pthread_mutex_lock(&db->mutex);
    lj_ahead *a = &db->ahead;
    a->busy = false;
    bool ours = a->there && strcmp(a->name, c->ahead.name) == 0;
    bool on = ours && code == LJ_OK && end > a->end;
    bool taken = a->taken;
    if (on)
        a->end = end;
    else if (ours)
        a->there = false;
    if (code != LJ_OK && code != LJ_CONFLICT)
        a->due_end = UINT64_MAX; /* in this life it is not tried again */
    pthread_mutex_unlock(&db->mutex);
    /* one that was of no use when the WAL restarted may have been made only now */
    if (!on && !taken)
        remove_file(db, &c->ahead);
    return on;
}

bool lj_ahead_run(lj_db *db)
{
    LJ_CLEANUP(copy_close) copy c = {.wal_fd = -1, .fd = -1};
    bool stood_aside = lj_aside_swap(true);
    for (uint64_t least_bytes = lj_db_company(db) ? UINT64_MAX : LEAST_BYTES;
         plan(db, &c, least_bytes); least_bytes = 1) {
        /* nothing is lost by a failure: who restarts the WAL copies, and has the error if it is one of his, too */
        lj_error err = LJ_ERROR_INIT;
        uint64_t end = 0;
        lj_code code = open_files(db, &c, &err);
        if (code == LJ_OK)
            code = check_room(&c, &err);
        if (code == LJ_OK)
            code = copy_step(&c, &end, &err);
        if (!advance(db, &c, code, end))
            break;
    }
    lj_aside_swap(stood_aside);
    pthread_mutex_lock(&db->mutex);
    bool there = db->ahead.there;
    pthread_mutex_unlock(&db->mutex);
    return there;
}

/* ------------------------------------------------------------------ taking it */

static lj_code spool_copied(const lj_db *db, const lj_ahead *a, const lj_spool_entry *rest,
                            int wal_fd, lj_error *err)
{
    if (!a->busy)
        return lj_spool_adopt(db->spool_dir, a->name, a->end, rest, wal_fd, err);
    lj_spool_entry first = *rest;
    lj_spool_entry second = *rest;
    first.end = a->end;
    second.start.offset = a->end;
    second.prev_end = 0;
    LJ_TRY(lj_spool_adopt(db->spool_dir, a->name, a->end, &first, wal_fd, err));
    if (second.start.offset == second.end)
        return LJ_OK;
    lj_code code = lj_spool_copy(db->spool_dir, &second, wal_fd, err);
    if (code != LJ_OK)
        lj_spool_remove(db->spool_dir, &first);
    return code;
}

lj_code lj_ahead_spool(lj_db *db, const lj_spool_entry *rest, int wal_fd, lj_error *err)
{
    pthread_mutex_lock(&db->mutex);
    lj_ahead a = db->ahead;
    bool serves = serves_locked(db, rest) && a.end > rest->start.offset;
    db->ahead.there = false;
    db->ahead.taken = serves;
    pthread_mutex_unlock(&db->mutex);
    lj_error ignored = LJ_ERROR_INIT;
    if (serves && spool_copied(db, &a, rest, wal_fd, &ignored) == LJ_OK)
        return LJ_OK;
    if (a.there)
        remove_file(db, &a);
    return lj_spool_copy(db->spool_dir, rest, wal_fd, err);
}

void lj_ahead_drop(lj_db *db)
{
    pthread_mutex_lock(&db->mutex);
    lj_ahead a = db->ahead;
    db->ahead.there = false;
    pthread_mutex_unlock(&db->mutex);
    if (a.there)
        remove_file(db, &a);
}
