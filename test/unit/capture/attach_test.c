/*
 * attach_test.c - rows of attach.h's table: no position, and frames of the life that was shipped or that the snapshot began with.
 * What continues, and next to it what must not.
 */
#include "test/unit/capture/attach_kit.h"

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
    assert_true(kit_spool_holds(f.dir.spool_dir, &f.saved.at));
    lj_position next = f.saved.at;
    next.index = 5;
    next.offset = 0;
    assert_false(kit_spool_holds(f.dir.spool_dir, &next));
    assert_int_equal(f.db->spool_bytes, kit_wal_end(&f.wal) - f.saved.at.offset);
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
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
