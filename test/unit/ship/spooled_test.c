/* spooled_test.c - from the spool to the replica: what is missing or cannot be read there, and whose files go with a generation. */
#include "test/unit/ship/ship_kit.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "vfs/base/clock.h"
#include "vfs/base/io.h"

#define WAL_OF_5 "generations/" KIT_GEN "/wal/00000005_00000000.wal.lz4"

static bool no_removals;

/* In the place of libc's. */
int unlink(const char *name)
{
    if (no_removals && strstr(name, "/spool/") != NULL) {
        errno = EPERM;
        return -1;
    }
    return (int)syscall(SYS_unlinkat, AT_FDCWD, name, 0);
}

static void run(ship_kit *kit)
{
    (void)kit->s->ship_task.run(&kit->s->ship_task);
}

/* Ships what there is. */
static void ship(ship_kit *kit)
{
    for (int i = 0; i < 3; i++)
        run(kit);
}

static void it_goes_in_order(void **state)
{
    (void)state;
    ship_kit kit;
    ship_kit_begin_spooled(&kit, 2);
    assert_int_equal(ship_kit_spooled(&kit, KIT_GEN, false), 2);
    ship(&kit);
    assert_false(kit.db->broken);
    assert_int_equal(kit.s->saved.at.index, 6);
    assert_int_equal(ship_kit_spooled(&kit, "", false), 0);
    assert_int_equal(kit.db->spool_bytes, 0);
    assert_true(ship_kit_has(&kit, WAL_OF_5));
    ship_kit_end(&kit);
}

/* It is shipped once, and the reason is told, until it can go. */
static void a_file_that_cannot_be_removed(void **state)
{
    (void)state;
    ship_kit kit;
    ship_kit_begin_spooled(&kit, 2);
    uint64_t before = kit.db->segments;
    no_removals = true;
    ship(&kit);
    no_removals = false;
    assert_int_equal(kit.s->saved.at.index, 4);
    assert_true(kit.s->failures > 0);
    assert_non_null(strstr(kit.db->ship_error.message, "cannot remove what is shipped"));
    assert_int_equal(kit.db->segments, before + 1);
    ship(&kit);
    assert_false(kit.db->broken);
    assert_int_equal(kit.s->saved.at.index, 6);
    assert_int_equal(ship_kit_spooled(&kit, "", false), 0);
    assert_int_equal(kit.db->spool_bytes, 0);
    ship_kit_end(&kit);
}

/* A power cut took its name, or somebody removed it: what follows must not be put behind the hole. */
static void a_file_between_two_others_is_gone(void **state)
{
    (void)state;
    ship_kit kit;
    ship_kit_begin_spooled(&kit, 2);
    assert_int_equal(ship_kit_spooled(&kit, "-00000004-", true), 1);
    ship(&kit);
    assert_true(kit.db->broken);
    assert_non_null(strstr(kit.db->broken_reason, "of index 4 are gone"));
    assert_false(ship_kit_has(&kit, WAL_OF_5));
    ship_kit_end(&kit);
}

static void the_last_file_is_gone(void **state)
{
    (void)state;
    ship_kit kit;
    ship_kit_begin_spooled(&kit, 2);
    assert_int_equal(ship_kit_spooled(&kit, "-00000005-", true), 1);
    ship(&kit);
    assert_true(kit.db->broken);
    assert_false(ship_kit_has(&kit, "generations/" KIT_GEN "/wal/00000006_00000000.wal.lz4"));
    ship_kit_end(&kit);
}

static void run_without_descriptors(ship_kit *kit)
{
    struct rlimit old;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
    struct rlimit few = {.rlim_cur = 3, .rlim_max = old.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
    run(kit);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
}

/* The process is out of descriptors for a moment: a spool that cannot be read is not an empty one. */
static void out_of_descriptors_for_a_moment(void **state)
{
    (void)state;
    lj_restore_result result;
    for (unsigned lives = 1; lives <= 2; lives++) {
        ship_kit kit;
        ship_kit_begin_spooled(&kit, lives);
        uint64_t bytes = kit.db->spool_bytes;
        run_without_descriptors(&kit);
        assert_int_equal(kit.s->saved.at.index, 4);
        assert_int_equal(kit.db->spool_bytes, bytes);
        assert_false(kit.db->broken);
        ship_kit_next_life(&kit, 2 + lives); /* and the application goes on meanwhile */
        ship(&kit);
        assert_false(kit.db->broken);
        ship_kit_restore(&kit, &result);
        assert_int_equal(result.position.index, 5 + lives);
        assert_int_equal(ship_kit_spooled(&kit, "", false), 0);
        ship_kit_end(&kit);
    }
}

/* A killed process left a file that nobody counted: taking it off the sum must not hide what was counted. */
static void a_file_that_was_not_counted(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    ship_kit kit;
    for (unsigned lives = 1; lives <= 2; lives++) {
        ship_kit_begin_spooled(&kit, lives);
        char left[300];
        snprintf(left, sizeof(left), "%s/" KIT_GEN "-00000004-000000000000-%012" PRIx64 ".wal",
                 kit.dir.spool_dir, kit.s->saved.at.offset);
        assert_ok(lj_io_replace_file(left, "x", 1, 0600, false, &err), &err);
        ship(&kit);
        assert_false(kit.db->broken);
        assert_int_equal(kit.s->saved.at.index, 4 + lives);
        assert_int_equal(ship_kit_spooled(&kit, "", false), 0);
        assert_int_equal(kit.db->spool_bytes, 0);
        ship_kit_end(&kit);
    }
}

/* The life is over, and the next one has not begun. */
static void a_file_that_was_not_counted_of_the_last_life(void **state)
{
    (void)state;
    ship_kit kit;
    ship_kit_begin_spooled(&kit, 0);
    lj_db_seal(kit.db, false);
    lj_db_wal_emptied(kit.db);
    assert_int_equal(truncate(kit.dir.wal_path, 0), 0);
    kit.db->spool_bytes = 0;
    ship(&kit);
    assert_false(kit.db->broken);
    assert_int_equal(kit.s->saved.at.offset, lj_wal_frame_offset(KIT_PAGE, 3));
    assert_int_equal(ship_kit_spooled(&kit, "", false), 0);
    ship_kit_end(&kit);
}

/* The next generation may be spooling by the time the files of the one before it go. */
static void a_generation_that_is_given_up_takes_its_own_files(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    ship_kit kit;
    ship_kit_begin_spooled(&kit, 2);
    char next[300];
    snprintf(next, sizeof(next), "%s/00000000000000bb-00000000-000000000000-000000000438.wal",
             kit.dir.spool_dir);
    assert_ok(lj_io_replace_file(next, "x", 1, 0600, false, &err), &err);
    lj_db_break(kit.db, "as a test says");
    run(&kit);
    assert_true(kit.s->want_generation);
    assert_int_equal(ship_kit_spooled(&kit, KIT_GEN, false), 0);
    assert_int_equal(ship_kit_spooled(&kit, "00000000000000bb", false), 1);
    assert_int_equal(kit.db->spool_bytes, 0);
    ship_kit_end(&kit);
}

static uint32_t next_salt = 2;

/* While the first snapshot is on its way the application commits and its WAL is restarted. */
static void goes_on(ship_kit *kit, const char *line)
{
    if (strstr(line, "PUT") == NULL)
        return;
    kit_wal_commits(&kit->wal, 40, 3, 1);
    kit_wal_publish(&kit->wal, kit->db, 3);
    lj_db_seal(kit->db, false);
    lj_db_wal_emptied(kit->db);
    kit_wal_begin(&kit->wal, kit->dir.wal_path, KIT_PAGE, next_salt++);
    lj_db_wal_header(kit->db, kit->wal.header.salt);
}

/* Each attempt has a name of its own: what was spooled for one is of no use to the next. */
static void first_snapshots_that_fail_leave_nothing(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    ship_kit kit;
    ship_kit_begin(&kit);
    kit.db->options.max_spool_size_bytes = 64 * 1024;
    kit.db->attached = true;
    kit.db->broken = true;
    kit.before = goes_on;
    ship_kit_fail_on(&kit, "PUT");
    for (int i = 0; i < 5; i++) {
        kit.freeze = (lj_freeze){.page_size = KIT_PAGE, .db_pages = 3, .backfilled = true};
        assert_int_equal(lj_snapshot_first(kit.s, &err), LJ_UNAVAILABLE);
        assert_int_equal(ship_kit_spooled(&kit, "", false), 0);
        assert_int_equal(kit.db->spool_bytes, 0);
    }
    ship_kit_end(&kit);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_goes_in_order),
        cmocka_unit_test(a_file_that_cannot_be_removed),
        cmocka_unit_test(a_file_between_two_others_is_gone),
        cmocka_unit_test(the_last_file_is_gone),
        cmocka_unit_test(out_of_descriptors_for_a_moment),
        cmocka_unit_test(a_file_that_was_not_counted),
        cmocka_unit_test(a_file_that_was_not_counted_of_the_last_life),
        cmocka_unit_test(a_generation_that_is_given_up_takes_its_own_files),
        cmocka_unit_test(first_snapshots_that_fail_leave_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
