/* salvage_test.c - what a database that is gone had not shipped: what of it gets to the replica, and what is left out. */
#include "test/unit/ship/ship_kit.h"

#include <fcntl.h>
#include <unistd.h>

#include "vfs/base/io.h"
#include "vfs/base/str.h"
#include "vfs/capture/seat.h"
#include "vfs/capture/spool.h"
#include "vfs/ship/salvage.h"

#define WAL       "generations/" KIT_GEN "/wal/"
#define WAL_OF_5  WAL "00000005_00000000.wal.lz4"
#define WAL_OF_6  WAL "00000006_00000000.wal.lz4"
#define OTHER_GEN "00000000000000bb"

/* The file is gone, and its WAL unless it is kept. */
static void lose(ship_kit *kit, bool keep_wal)
{
    assert_int_equal(unlink(kit->dir.db_path), 0);
    if (!keep_wal)
        assert_int_equal(unlink(kit->dir.wal_path), 0);
}

static lj_code salvage(ship_kit *kit, const char *generation, lj_salvage_result *ret_result,
                       lj_error *err)
{
    lj_db_options options = kit_db_options();
    return lj_salvage(kit->s->storage, kit->dir.db_path, &options, generation, ret_result, err);
}

static void salvage_ok(ship_kit *kit, lj_salvage_result *ret_result)
{
    lj_error err = LJ_ERROR_INIT;
    assert_ok(salvage(kit, KIT_GEN, ret_result, &err), &err);
}

/* Nothing of the spool fits, for that reason; nothing was put, and it is still there. */
static void nothing_fits(ship_kit *kit, const char *generation, const char *why)
{
    lj_salvage_result result;
    lj_error err = LJ_ERROR_INIT;
    unsigned files = ship_kit_spooled(kit, "", false);
    (void)ship_kit_log(kit);
    assert_ok(salvage(kit, generation, &result, &err), &err);
    assert_null(strstr(ship_kit_log(kit), "PUT"));
    assert_non_null(strstr(result.left.reason, why));
    assert_true(result.left.out_bytes > 0);
    assert_int_equal(ship_kit_spooled(kit, "", false), files);
}

static lj_saved_position position(const ship_kit *kit)
{
    lj_saved_position saved;
    lj_error err = LJ_ERROR_INIT;
    assert_ok(lj_saved_position_load(kit->dir.position_path, &saved, &err), &err);
    return saved;
}

static void all_of_the_spool(void **state)
{
    (void)state;
    ship_kit kit;
    lj_salvage_result result;
    lj_restore_result restored;
    ship_kit_begin_spooled(&kit, 2);
    lose(&kit, false);
    salvage_ok(&kit, &result);
    assert_true(result.tried);
    assert_string_equal(result.left.reason, "");
    assert_int_equal(ship_kit_spooled(&kit, "", false), 0);
    assert_true(ship_kit_has(&kit, WAL_OF_5));
    ship_kit_restore(&kit, &restored);
    assert_int_equal(restored.position.index, 5);
    assert_true(restored.at_end);
    lj_saved_position saved = position(&kit);
    assert_non_null(lj_saved_position_owned(&saved, KIT_GEN));
    /* and once more there is nothing to do */
    (void)ship_kit_log(&kit);
    salvage_ok(&kit, &result);
    assert_false(result.tried);
    assert_string_equal(ship_kit_log(&kit), "");
    ship_kit_end(&kit);
}

/* A life that was copied ahead in part (capture/ahead.h); killed between the two, only the first is there. */
static void an_index_in_two_files(void **state)
{
    (void)state;
    for (int whole = 0; whole <= 1; whole++) {
        ship_kit kit;
        lj_salvage_result result;
        lj_restore_result restored;
        lj_error err = LJ_ERROR_INIT;
        ship_kit_begin_spooled(&kit, 2);
        kit_wal_commits(&kit.wal, 4, 3, 70);
        uint64_t middle = lj_wal_frame_offset(KIT_PAGE, 3);
        lj_spool_entry first = {.start = {.generation = KIT_GEN, .index = 6},
                                .end = middle,
                                .prev_end = kit.db->chain.prev_end};
        lj_spool_entry second = {.start = {.generation = KIT_GEN, .index = 6, .offset = middle},
                                 .end = kit_wal_end(&kit.wal)};
        LJ_CLEANUP(lj_closep) int fd = -1;
        assert_ok(lj_io_open(kit.dir.wal_path, O_RDONLY, 0, &fd, &err), &err);
        assert_ok(lj_spool_copy(kit.dir.spool_dir, &first, fd, &err), &err);
        if (whole)
            assert_ok(lj_spool_copy(kit.dir.spool_dir, &second, fd, &err), &err);
        lose(&kit, false);
        salvage_ok(&kit, &result);
        assert_string_equal(result.left.reason, "");
        assert_int_equal(ship_kit_spooled(&kit, "", false), 0);
        ship_kit_restore(&kit, &restored);
        assert_int_equal(restored.position.index, 6);
        assert_int_equal(restored.position.offset, whole ? second.end : middle);
        ship_kit_end(&kit);
    }
}

/* The shared page knows which index the WAL is. */
static void the_wal_behind_the_spool(void **state)
{
    (void)state;
    ship_kit kit;
    lj_salvage_result result;
    lj_restore_result restored;
    for (int known = 0; known <= 1; known++) {
        lj_error err = LJ_ERROR_INIT;
        lj_shared *shared = NULL;
        ship_kit_begin_spooled(&kit, 2);
        lj_session session;
        memset(&session, 0, sizeof(session));
        session.chain = kit.db->chain;
        LJ_CLEANUP(lj_freep) char *path = lj_str_printf("%s/shared", kit.dir.state_dir);
        assert_ok(lj_shared_open(path, &shared, &err), &err);
        if (known)
            lj_shared_store(shared, &session);
        lj_shared_close(shared);
        lose(&kit, true);
        salvage_ok(&kit, &result);
        assert_int_equal(ship_kit_spooled(&kit, "", false), 0);
        assert_int_equal(ship_kit_has(&kit, WAL_OF_6), known);
        assert_int_equal(result.left.reason[0] == 0, known);
        assert_true(known || strstr(result.left.reason, "begun by somebody else") != NULL);
        ship_kit_restore(&kit, &restored);
        assert_int_equal(restored.position.index, 5 + known);
        ship_kit_end(&kit);
    }
}

/* No spool: the life that was being shipped. */
static void the_rest_of_the_shipped_life(void **state)
{
    (void)state;
    ship_kit kit;
    lj_salvage_result result;
    lj_restore_result restored;
    ship_kit_begin_spooled(&kit, 0);
    kit_wal_frame(&kit.wal, 1, 0, 51); /* a transaction that did not end */
    lose(&kit, true);
    salvage_ok(&kit, &result);
    assert_true(result.tried);
    assert_string_equal(result.left.reason, "");
    ship_kit_restore(&kit, &restored);
    assert_int_equal(restored.position.offset, lj_wal_frame_offset(KIT_PAGE, 3));
    ship_kit_end(&kit);
}

/* Somebody has the lost file open, and may be writing its WAL: only what is in the spool cannot change any more. */
static void not_the_wal_of_somebody_else(void **state)
{
    (void)state;
    ship_kit kit;
    lj_salvage_result result;
    lj_error err = LJ_ERROR_INIT;
    int seat = -1;
    ship_kit_begin_spooled(&kit, 0);
    LJ_CLEANUP(lj_freep) char *path = lj_str_printf("%s/lock", kit.dir.state_dir);
    assert_ok(lj_seat_open(path, &seat, &err), &err);
    assert_true(lj_seat_join(seat));
    lose(&kit, true);
    salvage_ok(&kit, &result);
    assert_false(result.tried);
    assert_non_null(strstr(result.left.reason, "open"));
    lj_seat_leave(seat);
    salvage_ok(&kit, &result);
    assert_true(result.tried);
    assert_string_equal(result.left.reason, "");
    ship_kit_end(&kit);
}

static void the_store_goes_away(void **state)
{
    (void)state;
    ship_kit kit;
    lj_salvage_result result;
    lj_restore_result restored;
    for (int stored = 0; stored <= 1; stored++) {
        lj_error err = LJ_ERROR_INIT;
        ship_kit_begin_spooled(&kit, 2);
        lose(&kit, false);
        kit.put_then_fail = stored;
        ship_kit_fail_on(&kit, "PUT " WAL_OF_5);
        assert_int_equal(salvage(&kit, KIT_GEN, &result, &err), LJ_UNAVAILABLE);
        assert_non_null(strstr(err.message, kit.dir.state_dir));
        assert_int_equal(ship_kit_spooled(&kit, "-00000005-", false), 1);
        assert_int_equal(position(&kit).at.index, 5);
        ship_kit_fail_on(&kit, "");
        kit.put_then_fail = false;
        salvage_ok(&kit, &result);
        assert_string_equal(result.left.reason, "");
        ship_kit_restore(&kit, &restored);
        assert_int_equal(restored.position.index, 5);
        ship_kit_end(&kit);
    }
}

static void a_file_is_missing(void **state)
{
    (void)state;
    ship_kit kit;
    ship_kit_begin_spooled(&kit, 2);
    assert_int_equal(ship_kit_spooled(&kit, "-00000004-", true), 1);
    lose(&kit, false);
    nothing_fits(&kit, KIT_GEN, "of index 4 are gone");
    ship_kit_end(&kit);
}

/* What is in front of it is whole, and gets there. */
static void a_file_is_torn(void **state)
{
    (void)state;
    ship_kit kit;
    lj_salvage_result result;
    lj_restore_result restored;
    lj_spool_entry last;
    lj_error err = LJ_ERROR_INIT;
    ship_kit_begin_spooled(&kit, 2);
    assert_ok(lj_spool_last(kit.dir.spool_dir, KIT_GEN, &last, &err), &err);
    assert_int_equal(last.start.index, 5);
    LJ_CLEANUP(lj_freep)
    char *path = lj_str_printf("%s/" KIT_GEN "-00000005-%012x-%012x-%012x.wal", kit.dir.spool_dir,
                               0, (unsigned)last.end, (unsigned)last.prev_end);
    kit_flip(path, last.end - 5, 1);
    lose(&kit, false);
    salvage_ok(&kit, &result);
    assert_non_null(strstr(result.left.reason, "not valid"));
    assert_false(ship_kit_has(&kit, WAL_OF_5));
    ship_kit_restore(&kit, &restored);
    assert_int_equal(restored.position.index, 4);
    assert_int_equal(restored.position.offset, lj_wal_frame_offset(KIT_PAGE, 3));
    ship_kit_end(&kit);
}

/* Exactly where we would go on, and behind it. */
static void another_writer_went_on(void **state)
{
    (void)state;
    ship_kit kit;
    for (int turn = 0; turn < 2; turn++) {
        char key[LJ_NAME_MAX];
        lj_salvage_result result;
        ship_kit_begin_spooled(&kit, 2);
        lj_position at = position(&kit).at;
        lj_name_wal(&at, key);
        ship_kit_put(&kit, turn == 0 ? key : WAL_OF_5, "of another", 10, 0);
        lose(&kit, false);
        salvage_ok(&kit, &result);
        assert_non_null(
            strstr(result.left.reason, turn == 0 ? "another writer" : "the replica is ahead"));
        assert_int_equal(ship_kit_spooled(&kit, "", false), 2);
        assert_int_equal(position(&kit).lineage_count, 0);
        assert_int_equal(position(&kit).at.index, 4);
        ship_kit_end(&kit);
    }
}

/* An object behind a hole would make the whole generation useless. */
static void the_replica_lacks_what_was_shipped(void **state)
{
    (void)state;
    ship_kit kit;
    lj_error err = LJ_ERROR_INIT;
    const char *key = WAL "00000004_00000000.wal.lz4";
    ship_kit_begin_spooled(&kit, 2);
    assert_ok(lj_storage_delete_many(kit.files, &key, 1, NULL, NULL, &err), &err);
    lose(&kit, false);
    nothing_fits(&kit, KIT_GEN, "has lost the end");
    ship_kit_end(&kit);
}

static void not_without_its_position(void **state)
{
    (void)state;
    ship_kit kit;
    ship_kit_begin_spooled(&kit, 2);
    lose(&kit, false);
    nothing_fits(&kit, OTHER_GEN, "of generation " KIT_GEN);
    kit_flip(kit.dir.position_path, 30, 1);
    nothing_fits(&kit, KIT_GEN, "no position file");
    assert_int_equal(unlink(kit.dir.position_path), 0);
    nothing_fits(&kit, KIT_GEN, "no position file");
    ship_kit_end(&kit);
}

/* Between the position file and the removal of the file in the spool, and between the next index and its end mark. */
static void killed_in_between(void **state)
{
    (void)state;
    ship_kit kit;
    lj_salvage_result result;
    lj_restore_result restored;
    lj_error err = LJ_ERROR_INIT;
    ship_kit_begin_spooled(&kit, 2);
    lose(&kit, false);
    LJ_CLEANUP(lj_freep)
    char *save = lj_str_printf("cp -a '%s' '%s/saved'", kit.dir.spool_dir, kit.dir.dir);
    LJ_CLEANUP(lj_freep)
    char *back = lj_str_printf("cp -a '%s/saved/.' '%s'", kit.dir.dir, kit.dir.spool_dir);
    assert_int_equal(system(save), 0);
    ship_kit_fail_on(&kit, "PUT " WAL_OF_5);
    assert_int_equal(salvage(&kit, KIT_GEN, &result, &err), LJ_UNAVAILABLE);
    ship_kit_fail_on(&kit, "");
    lj_saved_position saved = position(&kit);
    assert_int_equal(saved.at.index, 5);
    saved.mark_end = saved.prev_end; /* it is there already */
    assert_ok(lj_saved_position_store(kit.dir.position_path, &saved, true, &err), &err);
    assert_int_equal(system(back), 0);
    salvage_ok(&kit, &result);
    assert_string_equal(result.left.reason, "");
    assert_int_equal(system(back), 0);
    salvage_ok(&kit, &result);
    assert_string_equal(result.left.reason, "");
    ship_kit_restore(&kit, &restored);
    assert_int_equal(restored.position.index, 5);
    ship_kit_end(&kit);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_of_the_spool),
        cmocka_unit_test(an_index_in_two_files),
        cmocka_unit_test(the_wal_behind_the_spool),
        cmocka_unit_test(the_rest_of_the_shipped_life),
        cmocka_unit_test(not_the_wal_of_somebody_else),
        cmocka_unit_test(the_store_goes_away),
        cmocka_unit_test(a_file_is_missing),
        cmocka_unit_test(a_file_is_torn),
        cmocka_unit_test(another_writer_went_on),
        cmocka_unit_test(the_replica_lacks_what_was_shipped),
        cmocka_unit_test(not_without_its_position),
        cmocka_unit_test(killed_in_between),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
