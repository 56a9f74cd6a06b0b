/* attach_test.c - every row of attach.h's table: what continues, and next to it what must not. */
#include "test/unit/capture/kit.h"

#include <unistd.h>

#include "vfs/base/io.h"
#include "vfs/capture/attach.h"
#include "vfs/capture/spool.h"

#define PAGE 1024u
#define GEN  "00000000000000aa"

/* A database that was replicated up to somewhere, as the next process finds it. */
typedef struct {
    kit_dir dir;
    kit_wal wal;
    lj_saved_position saved; /* to be stored */
    lj_chain record;         /* of the shared page, to be stored if has_record */
    bool has_position, has_record;
    lj_db *db;
} fixture;

static void begin(fixture *f, unsigned frames)
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

static void end(fixture *f)
{
    lj_db_free(f->db);
    kit_dir_remove(&f->dir);
}

/* The position behind frame n of the WAL. */
static void shipped(fixture *f, uint64_t n)
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
static bool attach(fixture *f)
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

static void expect_refused(fixture *f, const char *reason)
{
    if (attach(f))
        fail_msg("continued, expected '%s'", reason);
    if (strstr(f->db->broken_reason, reason) == NULL)
        fail_msg("refused with '%s', expected '%s'", f->db->broken_reason, reason);
}

/* ------------------------------------------------------------------ no position, or a bad one */

static void first_time(void **state)
{
    (void)state;
    fixture f;
    begin(&f, 5);
    f.has_position = false;
    expect_refused(&f, "nothing was replicated from here before");
    end(&f);
    begin(&f, 5);
    shipped(&f, 3);
    assert_true(attach(&f));
    kit_flip(f.dir.position_path, 30, 1);
    f.has_position = false;
    expect_refused(&f, "does not verify");
    end(&f);
}

static void touched_outside_of_wal_mode(void **state)
{
    (void)state;
    fixture f;
    begin(&f, 5);
    shipped(&f, 3);
    assert_true(attach(&f));
    lj_db_break(f.db, "the database was written outside of WAL mode");
    assert_true(f.db->touched);
    lj_saved_position got;
    lj_attach(f.db, &got);
    assert_false(f.db->chain.active);
    assert_string_equal(got.at.generation, GEN); /* the lineage is kept for retention */
    end(&f);
}

/* A copy of a state folder goes on where it can, but has made nothing that it may delete. */
static void a_copied_state_folder_owns_nothing(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    fixture f;
    begin(&f, 5);
    shipped(&f, 3);
    char lock[128];
    snprintf(lock, sizeof(lock), "%s/lock", f.dir.state_dir);
    assert_ok(lj_io_replace_file(lock, "", 0, 0600, false, &err), &err);
    lj_saved_position got;
    assert_true(attach(&f)); /* written before there was a home: taken as it is */
    lj_attach(f.db, &got);
    assert_int_equal(got.lineage_count, 1);
    assert_true(got.home.inode != 0);
    f.saved.home = got.home;
    assert_true(attach(&f));
    lj_attach(f.db, &got);
    assert_int_equal(got.lineage_count, 1);
    for (int i = 0; i < 2; i++) {
        f.saved.home = lj_home_of(lock);
        if (i == 0)
            f.saved.home.inode++;
        else
            f.saved.home.born_ns++;
        assert_true(attach(&f));
        lj_attach(f.db, &got);
        assert_int_equal(got.lineage_count, 0);
    }
    end(&f);
}

/* ------------------------------------------------------------------ frames of the life that was shipped */

static void same_life(void **state)
{
    (void)state;
    fixture f;
    begin(&f, 5);
    for (uint64_t n = 1; n <= 5; n++) {
        shipped(&f, n);
        assert_true(attach(&f));
        assert_int_equal(f.db->chain.index, 4);
        assert_int_equal(f.db->safe_frames, n);
        assert_int_equal(f.db->shipped_frames, n);
        assert_true(f.db->chain.has_life && !f.db->chain.sealed);
    }
    end(&f);
}

static void same_life_but_shorter(void **state)
{
    (void)state;
    fixture f;
    begin(&f, 5);
    shipped(&f, 5);
    f.wal.frames = 4; /* a power cut took the last transaction */
    expect_refused(&f, "the replica is ahead");
    end(&f);
}

static void same_salts_other_frames(void **state)
{
    (void)state;
    fixture f;
    begin(&f, 5);
    shipped(&f, 3);
    f.saved.sum.s1++;
    expect_refused(&f, "not the one that was shipped");
    f.saved.sum.s1--;
    f.saved.page_size = 2 * PAGE;
    expect_refused(&f, ""); /* another offset, another page size */
    end(&f);
    /* rewritten behind the power cut, with the same salts */
    begin(&f, 5);
    shipped(&f, 3);
    kit_wal_begin(&f.wal, f.dir.wal_path, PAGE, 10);
    kit_wal_commits(&f.wal, 6, 3, 100);
    expect_refused(&f, "not the one that was shipped");
    end(&f);
}

static void salts_of_somebody_else(void **state)
{
    (void)state;
    fixture f;
    begin(&f, 5);
    shipped(&f, 3);
    kit_wal_begin(&f.wal, f.dir.wal_path, PAGE, 11);
    kit_wal_commits(&f.wal, 5, 3, 1);
    expect_refused(&f, "begun by somebody else");
    f.has_record = true; /* and the shared page does not know them either */
    f.record.has_life = true;
    f.record.salt = kit_salt(10);
    expect_refused(&f, "begun by somebody else");
    end(&f);
}

/* ------------------------------------------------------------------ the life of the first snapshot */

static void from_the_base(void **state)
{
    (void)state;
    fixture f;
    begin(&f, 5);
    f.saved.has_base = true;
    f.saved.base_salt = kit_salt(10);
    f.saved.base_frames = 5;
    assert_true(attach(&f));
    assert_true(f.db->chain.unused);
    assert_int_equal(f.db->safe_frames, 5);
    f.saved.base_frames = 3;
    assert_true(attach(&f));
    assert_false(f.db->chain.unused);
    assert_int_equal(f.db->chain.base_frames, 3);
    assert_int_equal(f.db->safe_frames, 3);
    f.saved.base_frames = 6;
    expect_refused(&f, "the replica is ahead");
    end(&f);
}

/* Another process committed between the decision and its end: the life is not unused any more. */
static void base_with_late_commits(void **state)
{
    (void)state;
    fixture f;
    begin(&f, 5);
    f.saved.has_base = true;
    f.saved.base_salt = kit_salt(10);
    f.saved.base_frames = 5;
    assert_true(attach(&f));
    kit_wal_commits(&f.wal, 1, 3, 9);
    kit_wal_publish(&f.wal, f.db, 3);
    assert_false(f.db->chain.unused);
    end(&f);
}

/*
 * A power cut took the end of the base, and before the next generation was in the replica as much was committed anew, under the same
 * salts. The snapshot has what was lost: its pages do not go with these frames.
 */
static void other_frames_in_place_of_the_base(void **state)
{
    (void)state;
    fixture f;
    begin(&f, 5);
    shipped(&f, 3); /* the checksum behind frame 3 */
    f.saved.at.offset = 0;
    f.saved.has_base = true;
    f.saved.base_salt = kit_salt(10);
    f.saved.base_frames = 3;
    assert_true(attach(&f));
    assert_int_equal(f.db->chain.base_frames, 3);
    kit_wal_begin(&f.wal, f.dir.wal_path, PAGE, 10);
    kit_wal_commits(&f.wal, 2, 3, 1);
    expect_refused(&f, "the replica is ahead");
    kit_wal_commits(&f.wal, 3, 3, 100);
    expect_refused(&f, "not the one that the snapshot has 3 frames of");
    end(&f);
}

/*
 * Killed at a rollover: the page and a file of the spool are of index 5, the position still of index 4, in the same life. It goes on
 * as index 4, and what the next life will be called must not find the old file.
 */
static void a_rollover_that_was_not_written_down(void **state)
{
    (void)state;
    fixture f;
    begin(&f, 5);
    shipped(&f, 3);
    f.has_record = true;
    f.record.index = 5;
    f.record.has_life = true;
    f.record.salt = kit_salt(10);
    f.record.base_frames = 3;
    f.record.prev_end = f.saved.at.offset;
    f.record.sealed = true;
    f.record.sealed_frames = 5;
    lj_error err = LJ_ERROR_INIT;
    for (uint32_t index = 4; index <= 5; index++) {
        LJ_CLEANUP(lj_closep) int fd = -1;
        lj_spool_entry e = {.start = {.generation = GEN, .index = index},
                            .end = kit_wal_end(&f.wal)};
        e.start.offset = index == 4 ? f.saved.at.offset : 0;
        assert_ok(lj_io_open(f.wal.path, 0, 0, &fd, &err), &err);
        assert_ok(lj_spool_copy(f.dir.spool_dir, &e, fd, &err), &err);
    }
    assert_true(attach(&f));
    assert_int_equal(f.db->chain.index, 4);
    assert_true(lj_spool_holds(f.dir.spool_dir, &f.saved.at));
    lj_position next = f.saved.at;
    next.index = 5;
    next.offset = 0;
    assert_false(lj_spool_holds(f.dir.spool_dir, &next));
    assert_int_equal(f.db->spool_bytes, kit_wal_end(&f.wal) - f.saved.at.offset);
    end(&f);
}

/* ------------------------------------------------------------------ a later life */

static void add_spool_behind(const fixture *f, uint32_t index, uint64_t start, uint64_t end_off,
                             uint64_t prev_end)
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

static void add_spool(const fixture *f, uint32_t index, uint64_t start, uint64_t end_off)
{
    add_spool_behind(f, index, start, end_off, 0);
}

static uint64_t off(uint64_t frames)
{
    return lj_wal_frame_offset(PAGE, frames + 1);
}

/* The position is in index 4, whose life is over; the page has a life of a later index, before which `prev_end` was the last end. */
static void begin_later_life(fixture *f, uint32_t index, uint64_t prev_end)
{
    begin(f, 5);
    f->saved.at.offset = off(8);
    f->saved.salt = kit_salt(9);
    f->has_record = true;
    f->record.index = index;
    f->record.has_life = true;
    f->record.salt = kit_salt(10);
    f->record.prev_end = prev_end;
}

static void later_life(void **state)
{
    (void)state;
    fixture f;
    begin_later_life(&f, 5, off(8));
    assert_true(attach(&f));
    assert_int_equal(f.db->chain.index, 5);
    assert_int_equal(f.db->chain.prev_end, off(8));
    assert_int_equal(f.db->safe_frames, 0);
    assert_int_equal(f.db->shipped_life, 0);

    f.record.prev_end = off(9); /* a frame of index 4 is nowhere */
    expect_refused(&f, "index 4");
    add_spool(&f, 4, off(8), off(9)); /* now it is in the spool */
    assert_true(attach(&f));
    assert_int_equal(f.db->spool_bytes, off(9) - off(8));

    f.record.index = 6; /* index 5 would have to be in the spool, too */
    expect_refused(&f, "gone from the spool");
    add_spool(&f, 5, 0, off(3));
    assert_true(attach(&f));
    assert_int_equal(f.db->chain.index, 6);

    f.record.index = 3;
    expect_refused(&f, "ahead of the shared page");
    end(&f);
}

/* The spool has index 5, but the file with the end of index 4 is gone. */
static void later_life_behind_a_hole_in_the_spool(void **state)
{
    (void)state;
    fixture f;
    begin_later_life(&f, 6, off(3));
    add_spool_behind(&f, 5, 0, off(3), off(9));
    expect_refused(&f, "index 4");
    add_spool(&f, 4, off(8), off(9));
    assert_true(attach(&f));
    assert_int_equal(f.db->chain.index, 6);
    end(&f);
}

static void later_life_of_another_generation(void **state)
{
    (void)state;
    fixture f;
    begin_later_life(&f, 5, off(8));
    snprintf(f.record.generation, sizeof(f.record.generation), "%s", "00000000000000ff");
    expect_refused(&f, "begun by somebody else");
    snprintf(f.record.generation, sizeof(f.record.generation), "%s", GEN);
    f.record.active = false; /* it was given up */
    expect_refused(&f, "begun by somebody else");
    end(&f);
}

/* The index had not begun when the position was written. */
static void first_frames_of_the_index(void **state)
{
    (void)state;
    fixture f;
    begin(&f, 5);
    f.has_record = true;
    f.record.has_life = true;
    f.record.salt = kit_salt(10);
    assert_true(attach(&f));
    assert_int_equal(f.db->chain.index, 4);
    assert_int_equal(f.db->safe_frames, 0);
    f.saved.at.offset = off(2); /* but something of it was shipped, with other salts */
    f.saved.salt = kit_salt(9);
    expect_refused(&f, "not the one that was shipped");
    end(&f);
}

/* ------------------------------------------------------------------ no frames */

static void sealed_and_emptied(fixture *f, uint64_t frames)
{
    f->has_record = true;
    f->record.has_life = true;
    f->record.sealed = true;
    f->record.sealed_frames = frames;
    f->record.emptied = true;
    assert_true(lj_identity_of(f->dir.db_path, &f->record.identity));
}

static void clean_close(void **state)
{
    (void)state;
    fixture f;
    begin(&f, 0);
    f.saved.at.offset = off(8);
    sealed_and_emptied(&f, 8);
    assert_true(attach(&f));
    assert_int_equal(f.db->chain.index, 5);
    assert_int_equal(f.db->chain.prev_end, off(8));
    assert_false(f.db->chain.has_life);
    assert_true(f.db->chain.emptied && f.db->chain.sealed);
    /* and once more, without a commit in between */
    f.has_record = false;
    assert_true(attach(&f));
    assert_int_equal(f.db->chain.index, 5);
    end(&f);
}

static void clean_close_with_a_spool(void **state)
{
    (void)state;
    fixture f;
    begin(&f, 0);
    f.saved.at.offset = off(5);
    sealed_and_emptied(&f, 8);
    expect_refused(&f, "index 4");
    f.has_record = true;
    add_spool(&f, 4, off(5), off(8));
    assert_true(attach(&f));
    assert_int_equal(f.db->chain.index, 5);
    assert_int_equal(f.db->spool_bytes, off(8) - off(5));
    end(&f);
}

static void wal_lost_without_a_seal(void **state)
{
    (void)state;
    fixture f;
    begin(&f, 0);
    f.saved.at.offset = off(8);
    sealed_and_emptied(&f, 8);
    f.record.emptied = false;
    expect_refused(&f, "changed while nobody replicated it");
    f.record.emptied = true;
    f.record.sealed = false;
    expect_refused(&f, "changed while nobody replicated it");
    f.has_record = false;
    expect_refused(&f, "changed while nobody replicated it");
    end(&f);
}

static void database_written_meanwhile(void **state)
{
    (void)state;
    fixture f;
    begin(&f, 0);
    f.saved.at.offset = off(8);
    sealed_and_emptied(&f, 8);
    usleep(20 * 1000);
    kit_flip(f.dir.db_path, 2000, 1);
    expect_refused(&f, "changed while nobody replicated it");
    unlink(f.dir.db_path);
    expect_refused(&f, "the database file is new");
    end(&f);
}

static void as_restored(void **state)
{
    (void)state;
    fixture f;
    begin(&f, 0);
    f.saved.has_identity = lj_identity_of(f.dir.db_path, &f.saved.identity);
    assert_true(attach(&f));
    assert_int_equal(f.db->chain.index, 4);
    /* of the database that was lost: what was replicated before is of no use, what comes next is in the way */
    add_spool(&f, 3, off(2), off(3));
    assert_true(attach(&f));
    add_spool(&f, 5, 0, off(3));
    expect_refused(&f, "of a database that was lost");
    lj_spool_drop(f.dir.spool_dir, GEN);
    usleep(20 * 1000);
    kit_flip(f.dir.db_path, 2000, 1);
    expect_refused(&f, "changed while nobody replicated it");
    end(&f);
}

/* Opened first and read later: what counts is the file at that moment. */
static void changed_between_open_and_attach(void **state)
{
    (void)state;
    fixture f;
    lj_saved_position got;
    begin(&f, 0);
    f.saved.has_identity = lj_identity_of(f.dir.db_path, &f.saved.identity);
    assert_true(attach(&f));
    usleep(20 * 1000);
    kit_flip(f.dir.db_path, 2000, 1);
    lj_attach(f.db, &got);
    assert_false(f.db->chain.active);
    /* and the other way round: another process had it meanwhile, and said what it looks like now */
    lj_error err = LJ_ERROR_INIT;
    f.saved.has_identity = lj_identity_of(f.dir.db_path, &f.saved.identity);
    assert_ok(lj_saved_position_store(f.dir.position_path, &f.saved, true, &err), &err);
    lj_attach(f.db, &got);
    assert_true(f.db->chain.active);
    end(&f);
}

static void unused_life_that_was_closed(void **state)
{
    (void)state;
    fixture f;
    begin(&f, 0);
    f.saved.has_base = true;
    f.saved.base_salt = kit_salt(10);
    f.saved.base_frames = 5;
    sealed_and_emptied(&f, 5);
    f.record.unused = true;
    assert_true(attach(&f));
    assert_int_equal(f.db->chain.index, 4); /* the next life takes the index over */
    f.saved.at.offset = off(2);             /* shipped without a base: cannot be */
    expect_refused(&f, "ahead of the shared page");
    end(&f);
}

#define ONE(fn) cmocka_unit_test(fn)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ONE(first_time),
        ONE(touched_outside_of_wal_mode),
        ONE(a_copied_state_folder_owns_nothing),
        ONE(same_life),
        ONE(same_life_but_shorter),
        ONE(same_salts_other_frames),
        ONE(salts_of_somebody_else),
        ONE(from_the_base),
        ONE(base_with_late_commits),
        ONE(other_frames_in_place_of_the_base),
        ONE(a_rollover_that_was_not_written_down),
        ONE(later_life),
        ONE(later_life_behind_a_hole_in_the_spool),
        ONE(later_life_of_another_generation),
        ONE(first_frames_of_the_index),
        ONE(clean_close),
        ONE(clean_close_with_a_spool),
        ONE(wal_lost_without_a_seal),
        ONE(database_written_meanwhile),
        ONE(as_restored),
        ONE(changed_between_open_and_attach),
        ONE(unused_life_that_was_closed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
