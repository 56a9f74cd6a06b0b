/*
 * attach_kit.h - a database that was replicated up to somewhere, as the next process finds it, for the tests of attach.h's table.
 */
#ifndef ATTACH_KIT_H
#define ATTACH_KIT_H

#include "test/unit/capture/kit.h"

#include <unistd.h>

#include "vfs/base/io.h"
#include "vfs/capture/attach.h"
#include "vfs/capture/spool.h"

#define PAGE 1024u
#define GEN  "00000000000000aa"

typedef struct {
    kit_dir dir;
    kit_wal wal;
    lj_saved_position saved; /* to be stored */
    lj_chain record;         /* of the shared page, to be stored if has_record */
    bool has_position, has_record;
    lj_db *db;
} fixture;

static inline void begin(fixture *f, unsigned frames)
{
    memset(f, 0, sizeof(*f));
    kit_dir_make(&f->dir);
    kit_db_file(f->dir.db_path, PAGE, 3, 0);
    if (frames > 0) {
        kit_wal_begin(&f->wal, f->dir.wal_path, PAGE, 10);
        kit_wal_commits(&f->wal, frames, 3, 1);
    }
    f->has_position = true;
    snprintf(f->saved.at.generation, sizeof(f->saved.at.generation), "%s", GEN);
    f->saved.at.index = 4;
    f->saved.page_size = PAGE;
    lj_saved_position_own(&f->saved, GEN);
    f->record.active = true;
    snprintf(f->record.generation, sizeof(f->record.generation), "%s", GEN);
    f->record.index = 4;
}

static inline void end(fixture *f)
{
    lj_db_free(f->db);
    kit_dir_remove(&f->dir);
}

/* The position behind frame n of the WAL. */
static inline void shipped(fixture *f, uint64_t n)
{
    lj_error err = LJ_ERROR_INIT;
    LJ_CLEANUP(lj_closep) int fd = -1;
    uint8_t raw[LJ_WAL_FRAME_HEADER_BYTES];
    size_t got = 0;
    lj_wal_frame frame;
    assert_ok(lj_io_open(f->wal.path, 0, 0, &fd, &err), &err);
    assert_ok(lj_io_pread(fd, raw, sizeof(raw), lj_wal_frame_offset(PAGE, n), &got, &err), &err);
    lj_wal_frame_parse(raw, &frame);
    f->saved.at.offset = lj_wal_frame_offset(PAGE, n + 1);
    f->saved.salt = f->wal.header.salt;
    f->saved.sum = frame.cksum;
}

/* Opens the database; true = the generation goes on. */
static inline bool attach(fixture *f)
{
    lj_error err = LJ_ERROR_INIT;
    lj_saved_position got;
    char path[128];
    snprintf(path, sizeof(path), "%s/shared", f->dir.state_dir);
    if (f->has_position)
        assert_ok(lj_saved_position_store(f->dir.position_path, &f->saved, true, &err), &err);
    lj_db_free(f->db);
    f->db = kit_db(&f->dir, NULL);
    assert_ok(lj_shared_open(path, &f->db->shared, &err), &err);
    if (f->has_record)
        lj_shared_store(f->db->shared, &(lj_session){.chain = f->record});
    f->db->has_opened_identity = lj_identity_of(f->dir.db_path, &f->db->opened_identity);
    if (f->wal.frames > 0)
        kit_wal_publish(&f->wal, f->db, 3);
    lj_attach(f->db, &got);
    if (!f->db->chain.active) {
        assert_true(f->db->broken);
        assert_true(f->db->broken_reason[0] != 0);
        return false;
    }
    assert_string_equal(f->db->chain.generation, GEN);
    assert_int_equal(lj_position_compare(&f->db->pos, &f->saved.at), 0);
    return true;
}

static inline void expect_refused(fixture *f, const char *reason)
{
    if (attach(f))
        fail_msg("continued, expected '%s'", reason);
    if (strstr(f->db->broken_reason, reason) == NULL)
        fail_msg("refused with '%s', expected '%s'", f->db->broken_reason, reason);
}

static inline void add_spool_behind(const fixture *f, uint32_t index, uint64_t start,
                                    uint64_t end_off, uint64_t prev_end)
{
    lj_error err = LJ_ERROR_INIT;
    char path[200];
    kit_wal wal;
    snprintf(path, sizeof(path), "%s/old-life", f->dir.dir);
    unlink(path);
    kit_wal_begin(&wal, path, PAGE, 99);
    while (kit_wal_end(&wal) < end_off)
        kit_wal_commits(&wal, 1, 3, 1);
    LJ_CLEANUP(lj_closep) int fd = -1;
    assert_ok(lj_io_open(path, 0, 0, &fd, &err), &err);
    lj_spool_entry e = {.start = {.generation = GEN, .index = index, .offset = start},
                        .end = end_off,
                        .prev_end = prev_end};
    assert_ok(lj_spool_copy(f->dir.spool_dir, &e, fd, &err), &err);
}

static inline void add_spool(const fixture *f, uint32_t index, uint64_t start, uint64_t end_off)
{
    add_spool_behind(f, index, start, end_off, 0);
}

static inline uint64_t off(uint64_t frames)
{
    return lj_wal_frame_offset(PAGE, frames + 1);
}

#endif
