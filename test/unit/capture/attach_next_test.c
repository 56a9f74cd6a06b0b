/*
 * attach_next_test.c - the other rows of attach.h's table: a later life than the one that was shipped, and a WAL without frames. What
 * continues, and next to it what must not.
 */
#include "test/unit/capture/attach_kit.h"

/* ------------------------------------------------------------------ a later life */

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
