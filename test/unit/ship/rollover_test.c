/* rollover_test.c - when the life of the WAL may go on under the next index, and what is on disk by then. */
#include "test/unit/ship/ship_kit.h"

#include <fcntl.h>
#include <unistd.h>

/* Index 4 with three frames, of which `shipped` are in the replica; nobody has taken note of that yet. */
static void begin_unsaved(ship_kit *kit, unsigned shipped)
{
    lj_error err = LJ_ERROR_INIT;
    ship_kit_begin(kit);
    ship_kit_replicating(kit, 4);
    kit->s->saved.snapshot_at.index = 4; /* the index has its snapshot */
    kit->db->saved.snapshot_at.index = 4;
    kit_wal_commits(&kit->wal, 3, 3, 1);
    kit_wal_publish(&kit->wal, kit->db, 3);
    int fd = open(kit->dir.wal_path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    uint64_t to = lj_wal_frame_offset(KIT_PAGE, shipped + 1);
    assert_ok(lj_upload_segment(kit->s, fd, &kit->wal.header, to, 0, &err), &err);
    close(fd);
}

static void begin(ship_kit *kit, unsigned shipped)
{
    lj_error err = LJ_ERROR_INIT;
    begin_unsaved(kit, shipped);
    assert_ok(lj_ship_save(kit->s, &err), &err);
    lj_db_shipped(kit->db, &kit->s->saved.at, kit->db->life.number, shipped);
}

static void roll(ship_kit *kit)
{
    lj_error err = LJ_ERROR_INIT;
    kit->s->rollover_wanted = true;
    assert_ok(lj_rollover(kit->s, &err), &err);
    assert_false(kit->s->rollover_wanted);
}

static uint32_t index_on_disk(ship_kit *kit)
{
    lj_error err = LJ_ERROR_INIT;
    lj_saved_position saved;
    assert_ok(lj_saved_position_load(kit->db->position_path, &saved, &err), &err);
    return saved.at.index;
}

static void the_position_file_knows_the_next_index(void **state)
{
    (void)state;
    ship_kit kit;
    begin(&kit, 3);
    assert_int_equal(index_on_disk(&kit), 4);
    roll(&kit);
    assert_int_equal(kit.db->chain.index, 5);
    assert_true(kit.db->chain.unused); /* all of it is in the replica */
    assert_int_equal(kit.db->saved.at.index, 5);
    assert_int_equal(index_on_disk(&kit), 5);
    ship_kit_end(&kit);
}

static void frames_behind_the_base_make_the_index_used(void **state)
{
    (void)state;
    ship_kit kit;
    begin(&kit, 2);
    roll(&kit);
    assert_int_equal(kit.db->chain.index, 5);
    assert_int_equal(kit.db->chain.base_frames, 2);
    assert_false(kit.db->chain.unused);
    ship_kit_end(&kit);
}

/* The gate copies a range of index 4 and lets the WAL go: a new index would have lost its begin. */
static void not_while_frames_are_being_spooled(void **state)
{
    (void)state;
    ship_kit kit;
    begin(&kit, 2);
    kit.db->spooling = true;
    roll(&kit);
    assert_int_equal(kit.db->chain.index, 4);
    assert_int_equal(index_on_disk(&kit), 4);
    kit.db->spooling = false;
    lj_db_seal(kit.db, false);
    assert_false(kit.db->spooling);
    assert_true(kit.db->spool_bytes > 0);
    roll(&kit);
    assert_int_equal(kit.db->chain.index, 4);
    ship_kit_end(&kit);
}

/* Who asks before a snapshot wants to know whether the replica is still ours, also where the index needs no other. */
static void not_when_the_index_has_no_snapshot_yet(void **state)
{
    (void)state;
    ship_kit kit;
    begin(&kit, 3);
    kit.s->saved.snapshot_at.index = 3;
    kit.db->saved.snapshot_at.index = 3;
    roll(&kit);
    assert_int_equal(kit.db->chain.index, 4);
    assert_int_equal(index_on_disk(&kit), 4);
    ship_kit_end(&kit);
}

/* The position file could not be written behind the upload: a snapshot that waits for these frames would wait in vain. */
static void what_was_shipped_before_is_told(void **state)
{
    (void)state;
    ship_kit kit;
    begin_unsaved(&kit, 3);
    assert_true(kit.s->unsaved);
    assert_int_equal(kit.db->shipped_frames, 0);
    roll(&kit);
    assert_int_equal(kit.db->chain.index, 5);
    assert_int_equal(kit.db->shipped_life, kit.db->life.number);
    assert_int_equal(kit.db->shipped_frames, 3);
    assert_int_equal(index_on_disk(&kit), 5);
    ship_kit_end(&kit);
}

static uint64_t segments(ship_kit *kit)
{
    (void)kit->s->ship_task.run(&kit->s->ship_task);
    return kit->db->segments;
}

/* Who takes over may have looked before the last frames came: the index is not begun with less than its snapshot has. */
static void the_next_index_begins_with_its_base(void **state)
{
    (void)state;
    ship_kit kit;
    begin(&kit, 3);
    kit.s->resumed = true;
    kit.db->options.sync_interval_ns = 0;
    roll(&kit);
    uint64_t before = segments(&kit);
    kit.db->chain.unused = false;
    lj_db_publish(kit.db, kit.wal.header.salt, 2, KIT_PAGE, 3);
    assert_int_equal(segments(&kit), before);
    assert_false(kit.db->broken);
    kit_wal_commits(&kit.wal, 1, 3, 9);
    kit_wal_publish(&kit.wal, kit.db, 3);
    assert_int_equal(segments(&kit), before + 1);
    assert_int_equal(kit.s->saved.at.index, 5);
    assert_int_equal(kit.s->saved.at.offset, lj_wal_frame_offset(KIT_PAGE, 5));
    ship_kit_end(&kit);
}

/* A segment is in the replica, and the answer was lost, when the index is to end: it is ours, and goes first. */
static void not_while_a_segment_has_no_answer(void **state)
{
    (void)state;
    ship_kit kit;
    begin(&kit, 2);
    kit.s->resumed = true;
    kit.db->options.sync_interval_ns = 0;
    kit.s->rollover_wanted = true;
    kit.put_then_fail = true;
    ship_kit_fail_on(&kit, "PUT");
    (void)kit.s->ship_task.run(&kit.s->ship_task);
    assert_int_equal(kit.s->failures, 1);
    assert_true(kit.s->rollover_wanted);
    assert_int_equal(index_on_disk(&kit), 4);
    ship_kit_fail_on(&kit, "");
    (void)kit.s->ship_task.run(&kit.s->ship_task);
    assert_false(kit.db->broken);
    assert_false(kit.s->rollover_wanted);
    assert_int_equal(index_on_disk(&kit), 5);
    assert_int_equal(kit.db->chain.base_frames, 3);
    ship_kit_end(&kit);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_position_file_knows_the_next_index),
        cmocka_unit_test(frames_behind_the_base_make_the_index_used),
        cmocka_unit_test(not_while_frames_are_being_spooled),
        cmocka_unit_test(not_when_the_index_has_no_snapshot_yet),
        cmocka_unit_test(what_was_shipped_before_is_told),
        cmocka_unit_test(the_next_index_begins_with_its_base),
        cmocka_unit_test(not_while_a_segment_has_no_answer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
