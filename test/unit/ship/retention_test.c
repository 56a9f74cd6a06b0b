/* retention_test.c - what is deleted is ours: not what another writer has put, in this generation or in one that we left. */
#include "test/unit/ship/ship_kit.h"

#include "vfs/base/clock.h"
#include "vfs/base/str.h"

#define OLD     "00000000000000bb" /* a generation this database has left at index 1, offset 1080 */
#define OLD_END 1080u

/* An hour is kept (ship_kit.c): everything here is older, but what has the time 0. */
static int64_t ago(int hours)
{
    return lj_clock_wall_ns() - hours * 3600 * LJ_NS_PER_S;
}

static const char *snapshot_key(const char *generation, uint32_t index)
{
    static char key[LJ_NAME_MAX];
    lj_name_snapshot(generation, index, key);
    return key;
}

static const char *wal_key(const char *generation, uint32_t index, uint64_t offset)
{
    static char key[LJ_NAME_MAX];
    lj_position at = {.index = index, .offset = offset};
    snprintf(at.generation, sizeof(at.generation), "%s", generation);
    lj_name_wal(&at, key);
    return key;
}

/* We are at index 4 of KIT_GEN behind its first segment, and have left OLD. */
static void own_both(ship_kit *kit)
{
    lj_saved_position *saved = &kit->db->saved;
    saved->at.offset = 1080;
    saved->lineage_count = 0;
    lj_saved_position left = {.at = {.generation = OLD, .index = 1, .offset = OLD_END}};
    lj_saved_position_own(saved, OLD);
    lj_saved_position_leave(saved, &left);
    lj_saved_position_own(saved, KIT_GEN);
    kit->s->saved = *saved;
}

/*
 * KIT_GEN: snapshots of index 2 (superfluous) and 3 (the base), WAL of 2 to 4, we are at index 4 behind its first segment. OLD:
 * index 0 and 1.
 */
static void begin(ship_kit *kit)
{
    ship_kit_begin(kit);
    ship_kit_replicating(kit, 4);
    for (uint32_t index = 2; index <= 4; index++) {
        if (index < 4)
            ship_kit_put(kit, snapshot_key(KIT_GEN, index), "s", 1, ago(9 - (int)index));
        ship_kit_put(kit, wal_key(KIT_GEN, index, 0), "w", 1, ago(8 - (int)index));
    }
    ship_kit_put(kit, snapshot_key(OLD, 0), "s", 1, ago(20));
    ship_kit_put(kit, wal_key(OLD, 0, 0), "w", 1, ago(19));
    ship_kit_put(kit, wal_key(OLD, 1, 0), "w", 1, ago(18));
    own_both(kit);
}

static void enforce(ship_kit *kit)
{
    lj_error err = LJ_ERROR_INIT;
    assert_ok(lj_retention_enforce(kit->s, &err), &err);
}

static void what_is_ours_goes(void **state)
{
    (void)state;
    ship_kit kit;
    begin(&kit);
    enforce(&kit);
    assert_false(ship_kit_has(&kit, snapshot_key(KIT_GEN, 2)));
    assert_false(ship_kit_has(&kit, wal_key(KIT_GEN, 2, 0)));
    assert_true(ship_kit_has(&kit, snapshot_key(KIT_GEN, 3)));
    assert_false(ship_kit_has(&kit, snapshot_key(OLD, 0)));
    assert_false(ship_kit_has(&kit, wal_key(OLD, 1, 0)));
    assert_true(kit.db->chain.active);
    ship_kit_end(&kit);
}

/* A segment of ours that was put while the replica was being listed is no other writer. */
static void an_object_at_our_own_end(void **state)
{
    (void)state;
    ship_kit kit;
    begin(&kit);
    ship_kit_put(&kit, wal_key(KIT_GEN, 4, 1080), "w", 1, 0);
    enforce(&kit);
    assert_false(ship_kit_has(&kit, snapshot_key(KIT_GEN, 2)));
    assert_true(kit.db->chain.active);
    ship_kit_end(&kit);
}

/* Somebody goes on in the current generation: nothing is deleted, in any generation, and we leave. */
static void another_writer_in_this_generation(void **state)
{
    (void)state;
    const uint64_t theirs[][2] = {{4, 2128}, {5, 0}, {9, 0}};
    for (size_t i = 0; i < LJ_ARRAY_LEN(theirs); i++) {
        ship_kit kit;
        begin(&kit);
        ship_kit_put(&kit, wal_key(KIT_GEN, (uint32_t)theirs[i][0], theirs[i][1]), "w", 1, 0);
        enforce(&kit);
        assert_null(strstr(ship_kit_log(&kit), "DEL"));
        assert_false(kit.db->chain.active);
        assert_non_null(strstr(kit.db->last_break, "the replica is ahead: it has " KIT_GEN));
        assert_null(lj_saved_position_owned(&kit.db->saved, KIT_GEN));
        ship_kit_end(&kit);
    }
}

/* The shipping task writes its own copy of the position: what another task has disowned stays disowned. */
static void disowned_is_written_down(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    ship_kit kit;
    begin(&kit);
    ship_kit_put(&kit, wal_key(KIT_GEN, 9, 0), "w", 1, 0);
    enforce(&kit);
    kit.s->unsaved = true;
    assert_ok(lj_ship_save(kit.s, &err), &err);
    lj_saved_position saved;
    assert_ok(lj_saved_position_load(kit.db->position_path, &saved, &err), &err);
    assert_null(lj_saved_position_owned(&saved, KIT_GEN));
    assert_non_null(lj_saved_position_owned(&saved, OLD));
    ship_kit_end(&kit);
}

static void another_writer_in_a_former_generation(void **state)
{
    (void)state;
    const struct {
        uint32_t index;
        uint64_t offset; /* UINT64_MAX: a snapshot */
    } theirs[] = {{1, OLD_END}, {1, 5000}, {2, 0}, {2, UINT64_MAX}};
    for (size_t i = 0; i < LJ_ARRAY_LEN(theirs); i++) {
        ship_kit kit;
        begin(&kit);
        const char *key = theirs[i].offset == UINT64_MAX
                              ? snapshot_key(OLD, theirs[i].index)
                              : wal_key(OLD, theirs[i].index, theirs[i].offset);
        ship_kit_put(&kit, key, "w", 1, ago(10));
        enforce(&kit);
        assert_null(strstr(ship_kit_log(&kit), "DEL generations/" OLD));
        assert_false(ship_kit_has(&kit, snapshot_key(KIT_GEN, 2)));
        ship_kit_end(&kit);
    }
}

/*
 * The store says the time, and this machine's clock is days ahead of it: everything looks older than the window, and is not. The
 * newest object is of now.
 */
static void a_clock_that_is_ahead_of_the_stores(void **state)
{
    (void)state;
    ship_kit kit;
    const int64_t now_ns = ago(100);
    const int64_t minute_ns = 60 * LJ_NS_PER_S;
    ship_kit_begin(&kit);
    ship_kit_replicating(&kit, 4);
    ship_kit_put(&kit, snapshot_key(KIT_GEN, 1), "s", 1, now_ns - 90 * minute_ns);
    ship_kit_put(&kit, wal_key(KIT_GEN, 1, 0), "w", 1, now_ns - 80 * minute_ns);
    ship_kit_put(&kit, snapshot_key(KIT_GEN, 2), "s", 1, now_ns - 70 * minute_ns);
    ship_kit_put(&kit, wal_key(KIT_GEN, 2, 0), "w", 1, now_ns - 50 * minute_ns);
    ship_kit_put(&kit, snapshot_key(KIT_GEN, 3), "s", 1, now_ns - 40 * minute_ns);
    ship_kit_put(&kit, wal_key(KIT_GEN, 3, 0), "w", 1, now_ns - 30 * minute_ns);
    ship_kit_put(&kit, wal_key(KIT_GEN, 4, 0), "w", 1, now_ns);
    ship_kit_put(&kit, snapshot_key(OLD, 0), "s", 1, now_ns - 50 * minute_ns);
    own_both(&kit);
    enforce(&kit);
    assert_true(ship_kit_has(&kit, snapshot_key(KIT_GEN, 2)));
    assert_true(ship_kit_has(&kit, wal_key(KIT_GEN, 2, 0)));
    assert_true(ship_kit_has(&kit, snapshot_key(OLD, 0)));
    assert_false(ship_kit_has(&kit, snapshot_key(KIT_GEN, 1))); /* the window is as long as ever */
    ship_kit_end(&kit);
}

/* Restored from another host's replica and nothing written since: its writer may be alive. */
static void nothing_was_put_into_this_generation_by_us(void **state)
{
    (void)state;
    ship_kit kit;
    begin(&kit);
    lj_saved_position_disown(&kit.db->saved, KIT_GEN);
    enforce(&kit);
    assert_null(strstr(ship_kit_log(&kit), "DEL"));
    assert_true(kit.db->chain.active);
    ship_kit_end(&kit);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_ours_goes),
        cmocka_unit_test(an_object_at_our_own_end),
        cmocka_unit_test(another_writer_in_this_generation),
        cmocka_unit_test(disowned_is_written_down),
        cmocka_unit_test(another_writer_in_a_former_generation),
        cmocka_unit_test(a_clock_that_is_ahead_of_the_stores),
        cmocka_unit_test(nothing_was_put_into_this_generation_by_us),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
