/* shipper_test.c - the shipping task with its scheduler: what a failure in between must not lose. */
#include "test/unit/ship/ship_kit.h"

#include <unistd.h>

#include "vfs/base/clock.h"
#include "vfs/base/io.h"
#include "vfs/base/str.h"

static bool status_has(ship_kit *kit, const char *error, const char *state)
{
    lj_db_status status;
    lj_db_get_status(kit->db, &status);
    return strstr(status.last_error, error) != NULL && strstr(status.text, state) != NULL;
}

static void wait_for_status(ship_kit *kit, const char *error, const char *state)
{
    int64_t end_ns = lj_clock_mono_ns() + 20 * LJ_NS_PER_S;
    while (!status_has(kit, error, state) && lj_clock_mono_ns() < end_ns)
        lj_clock_sleep_ns(LJ_NS_PER_MS);
    assert_true(status_has(kit, error, state));
}

/* The snapshot is in the replica, but the disk has no room for the position file: the generation begins when it has. */
static void a_generation_begins_when_its_position_can_be_written(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    ship_kit kit;
    ship_kit_begin_live(&kit, LJ_NS_PER_MS);
    kit.freeze = (lj_freeze){.page_size = KIT_PAGE, .db_pages = 3};
    LJ_CLEANUP(lj_freep) char *in_the_way = lj_str_printf("%s.tmp", kit.db->position_path);
    assert_ok(lj_io_mkdirs(in_the_way, 0700, &err), &err);
    lj_db_ready(kit.db, NULL, NULL);
    wait_for_status(&kit, "position file", "retrying");
    assert_int_equal(rmdir(in_the_way), 0);
    wait_for_status(&kit, "", "replicating");
    kit_wal_commits(&kit.wal, 2, 3, 1);
    kit_wal_publish(&kit.wal, kit.db, 3);
    assert_ok(lj_db_wait(kit.db, 20 * LJ_NS_PER_S, false, &err), &err);
    lj_saved_position saved;
    assert_ok(lj_saved_position_load(kit.db->position_path, &saved, &err), &err);
    assert_int_equal(saved.at.offset, lj_wal_frame_offset(KIT_PAGE, 3));
    assert_int_equal(kit.db->snapshots, 1);
    ship_kit_end(&kit);
}

/* The first snapshot was stored, but nobody heard of it: another generation begins, and that one goes. */
static void a_generation_nobody_heard_of_is_removed(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    ship_kit kit;
    ship_kit_begin_live(&kit, LJ_NS_PER_MS);
    kit.freeze = (lj_freeze){.page_size = KIT_PAGE, .db_pages = 3};
    kit.put_then_fail = true;
    ship_kit_fail_on(&kit, "PUT");
    lj_db_ready(kit.db, NULL, NULL);
    wait_for_status(&kit, "the store is away", "retrying");
    ship_kit_fail_on(&kit, "");
    wait_for_status(&kit, "", "replicating");
    kit_wal_commits(&kit.wal, 2, 3, 1);
    kit_wal_publish(&kit.wal, kit.db, 2);
    assert_ok(lj_db_wait(kit.db, 20 * LJ_NS_PER_S, false, &err), &err);
    lj_saved_position saved;
    assert_ok(lj_saved_position_load(kit.db->position_path, &saved, &err), &err);
    assert_true(saved.lineage_count >= 2); /* retention would find it too */
    assert_string_equal(saved.lineage[saved.lineage_count - 1].generation, saved.at.generation);
    char key[LJ_NAME_MAX];
    int64_t end_ns = lj_clock_mono_ns() + 20 * LJ_NS_PER_S;
    lj_name_snapshot(saved.lineage[0].generation, 0, key);
    while (ship_kit_has(&kit, key) && lj_clock_mono_ns() < end_ns)
        lj_clock_sleep_ns(LJ_NS_PER_MS);
    assert_false(ship_kit_has(&kit, key));
    lj_name_snapshot(saved.at.generation, 0, key);
    assert_true(ship_kit_has(&kit, key));
    ship_kit_end(&kit);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_generation_begins_when_its_position_can_be_written),
        cmocka_unit_test(a_generation_nobody_heard_of_is_removed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
