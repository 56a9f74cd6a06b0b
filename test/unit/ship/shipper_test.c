/* shipper_test.c - the shipping task with its scheduler: what a failure in between must not lose. */
#include "test/unit/ship/ship_kit.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "vfs/base/clock.h"
#include "vfs/base/io.h"
#include "vfs/base/str.h"
#include "vfs/capture/session.h"

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

/* ------------------------------------------------------------------ threads that cannot be started */

static atomic_int threads_left = 1000;

int __real_pthread_create(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
int __wrap_pthread_create(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*run)(void *),
                          void *arg)
{
    if (atomic_fetch_sub(&threads_left, 1) <= 0)
        return EAGAIN;
    return __real_pthread_create(thread, attr, run, arg);
}

static uint64_t runs_of(ship_kit *kit)
{
    pthread_mutex_lock(&kit->db->mutex);
    uint64_t runs = kit->db->runs;
    pthread_mutex_unlock(&kit->db->mutex);
    return runs;
}

/*
 * No thread at the open: the next commit tries again. One then, for the segments: it looks again for one for the snapshot. Comes
 * first, because threads that were started stay.
 */
static void threads_that_cannot_be_started_at_the_open(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    ship_kit kit;
    ship_kit_begin_live(&kit, LJ_NS_PER_MS);
    kit_wal_commits(&kit.wal, 1, 3, 1);
    kit_wal_publish(&kit.wal, kit.db, 3);
    kit.freeze = (lj_freeze){.salt = kit.wal.header.salt,
                             .frames = 1,
                             .page_size = KIT_PAGE,
                             .db_pages = 3,
                             .backfilled = true};
    atomic_store(&threads_left, 0);
    lj_db_ready(kit.db, NULL, NULL);
    assert_int_equal(runs_of(&kit), 0);
    pthread_mutex_lock(&kit.db->mutex);
    kit.db->deaf =
        false; /* the bell's thread was not started either: without it somebody would look four times a second */
    pthread_mutex_unlock(&kit.db->mutex);
    atomic_store(&threads_left, 1);
    kit_wal_commits(&kit.wal, 1, 3, 1);
    kit_wal_publish(&kit.wal, kit.db, 3);
    int64_t end_ns = lj_clock_mono_ns() + 20 * LJ_NS_PER_S;
    while (runs_of(&kit) < 2 && lj_clock_mono_ns() < end_ns) /* it tries once a second */
        lj_clock_sleep_ns(LJ_NS_PER_MS);
    assert_true(runs_of(&kit) >= 2);
    lj_db_status status;
    lj_db_get_status(kit.db, &status);
    assert_int_equal(status.snapshots, 0);
    atomic_store(&threads_left, 1000);
    wait_for_status(&kit, "", "replicating"); /* without a commit */
    assert_ok(lj_db_wait(kit.db, 20 * LJ_NS_PER_S, false, &err), &err);
    ship_kit_end(&kit);
}

/* ------------------------------------------------------------------ failures in between */

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
    lj_db_status status;
    lj_db_get_status(kit.db, &status);
    assert_int_equal(status.snapshots, 1);
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

/* A new generation is due and its snapshot fails: the replica has not caught up, and each COMMIT would wait in vain again. */
static void degraded_until_the_new_generation_is_there(void **state)
{
    (void)state;
    ship_kit kit;
    ship_kit_begin_live(&kit, LJ_NS_PER_MS);
    kit.freeze = (lj_freeze){.page_size = KIT_PAGE, .db_pages = 3};
    lj_db_ready(kit.db, NULL, NULL);
    wait_for_status(&kit, "", "replicating");
    ship_kit_fail_on(&kit, "PUT");
    lj_db_enter(kit.db);
    kit.db->pending.degraded = true;
    lj_db_leave(kit.db);
    lj_db_break(kit.db, "as a test says");
    wait_for_status(&kit, "the store is away", "");
    uint64_t runs = runs_of(&kit);
    lj_shipper_wake(kit.db, 0);
    while (runs_of(&kit) == runs)
        lj_clock_sleep_ns(LJ_NS_PER_MS);
    lj_shipper_wake(kit.db, 0); /* which waits for the end of that one */
    while (runs_of(&kit) < runs + 2)
        lj_clock_sleep_ns(LJ_NS_PER_MS);
    assert_true(lj_db_degraded(kit.db));
    ship_kit_fail_on(&kit, "");
    wait_for_status(&kit, "", "replicating");
    assert_false(lj_db_degraded(kit.db));
    ship_kit_end(&kit);
}

static unsigned puts_of(ship_kit *kit, const char *folder);

/* A snapshot is due and the store is away: who waits for the shipping task is the snapshot task alone, and that is no hurry. */
static void a_snapshot_that_is_due_does_not_press_a_failing_store(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    ship_kit kit;
    ship_kit_begin_live(&kit, LJ_NS_PER_MS);
    kit.freeze = (lj_freeze){.page_size = KIT_PAGE, .db_pages = 3};
    lj_db_ready(kit.db, NULL, NULL);
    wait_for_status(&kit, "", "replicating"); /* the snapshot is of an empty WAL */
    kit_wal_commits(&kit.wal, 1, 3, 1);
    kit_wal_publish(&kit.wal, kit.db, 3);
    assert_ok(lj_db_wait(kit.db, 20 * LJ_NS_PER_S, false, &err), &err);
    ship_kit_fail_on(&kit, "wal/");
    pthread_mutex_lock(&kit.db->mutex);
    kit.db->options.snapshot_interval_ns = LJ_NS_PER_MS;
    pthread_mutex_unlock(&kit.db->mutex);
    (void)ship_kit_log(&kit);
    kit_wal_commits(&kit.wal, 1, 3, 2);
    kit_wal_publish(&kit.wal, kit.db, 3);
    unsigned puts = 0;
    for (int i = 0; i < 40 || (puts < 2 && i < 600); i++) {
        lj_clock_sleep_ns(LJ_NS_PER_S / 10);
        puts += puts_of(&kit, "wal/");
    }
    assert_true(puts >= 2);
    assert_true(puts <= 15);
    /* somebody who waits for a snapshot is another matter */
    unsigned waited_for = 0;
    for (int i = 0; i < 10 && waited_for <= 15; i++) {
        assert_int_equal(lj_db_wait_snapshot(kit.db, 4 * LJ_NS_PER_S, &err), LJ_TIMEOUT);
        waited_for += puts_of(&kit, "wal/");
    }
    assert_true(waited_for > 15);
    ship_kit_end(&kit);
}

/* What has the name now has a position file of its own. */
static void the_position_of_a_moved_file_is_not_written(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    ship_kit kit;
    ship_kit_begin(&kit);
    ship_kit_replicating(&kit, 4);
    kit.db->moved = true;
    kit.s->sync_ns = 1;
    lj_ship_sync_position(kit.s);
    lj_saved_position saved;
    assert_int_equal(lj_saved_position_load(kit.db->position_path, &saved, &err), LJ_NOTFOUND);
    ship_kit_end(&kit);
}

/* Five hundred databases opened together do not take their snapshots together: each has its own part of the interval. */
static void snapshots_of_many_databases_are_spread(void **state)
{
    (void)state;
    ship_kit kit;
    ship_kit_begin(&kit);
    ship_kit_replicating(&kit, 4);
    kit_wal_commits(&kit.wal, 3, 3, 1);
    kit_wal_publish(&kit.wal, kit.db, 3);
    const int64_t interval_ns = 3600 * LJ_NS_PER_S;
    char *own_path = kit.db->path;
    unsigned in_part[4] = {0};
    pthread_mutex_lock(&kit.db->mutex);
    kit.db->options.snapshot_interval_ns = interval_ns;
    kit.db->saved.snapshot_ns = lj_clock_wall_ns();
    int64_t start_ns = lj_clock_mono_ns();
    for (unsigned i = 0; i < 400; i++) {
        char path[64];
        snprintf(path, sizeof(path), "/data/shard_%u.db", i);
        kit.db->path = path;
        int64_t after_ns = lj_snapshot_due_locked(kit.s) - start_ns;
        assert_true(after_ns >= interval_ns / 8 * 7 - LJ_NS_PER_S);
        assert_true(after_ns <= interval_ns + 10 * LJ_NS_PER_S);
        int64_t part = (after_ns - interval_ns / 8 * 7) / (interval_ns / 8 / 4);
        in_part[LJ_MIN(LJ_MAX(part, INT64_C(0)), INT64_C(3))]++;
        assert_true(llabs(lj_snapshot_due_locked(kit.s) - start_ns - after_ns) < LJ_NS_PER_S * 5);
    }
    kit.db->path = own_path;
    pthread_mutex_unlock(&kit.db->mutex);
    for (unsigned i = 0; i < 4; i++)
        assert_true(in_part[i] > 60 && in_part[i] < 140);
    ship_kit_end(&kit);
}

/* ------------------------------------------------------------------ a life of more than 4 GiB */

/* So many frames end behind the largest offset of the layout. */
#define LONG_LIFE (LJ_OFFSET_MAX / lj_wal_frame_bytes(KIT_PAGE) + 10)

static unsigned puts_of(ship_kit *kit, const char *folder)
{
    unsigned found = 0;
    for (const char *at = ship_kit_log(kit); (at = strstr(at, "PUT ")) != NULL; at++) {
        const char *end = strchr(at, '\n');
        found += memmem(at, (size_t)(end - at), folder, strlen(folder)) != NULL ? 1 : 0;
    }
    return found;
}

static lj_chain chain_of(ship_kit *kit)
{
    pthread_mutex_lock(&kit->db->mutex);
    lj_chain chain = kit->db->chain;
    pthread_mutex_unlock(&kit->db->mutex);
    return chain;
}

static void commit_up_to(ship_kit *kit, uint64_t frames)
{
    lj_db_publish(kit->db, kit->wal.header.salt, frames, KIT_PAGE, 3);
}

static void wait_for_snapshots(ship_kit *kit, uint64_t wanted)
{
    lj_db_status status = {.snapshots = 0};
    int64_t end_ns = lj_clock_mono_ns() + 20 * LJ_NS_PER_S;
    do {
        lj_clock_sleep_ns(LJ_NS_PER_MS);
        lj_db_get_status(kit->db, &status);
    } while ((status.snapshots < wanted || strcmp(status.text, "replicating") != 0) &&
             lj_clock_mono_ns() < end_ns);
    assert_int_equal(status.snapshots, wanted);
    assert_string_equal(status.text, "replicating");
}

/*
 * Behind 4 GiB there are no names for segments. Each further commit of that life needs a snapshot; they rest in between, nobody
 * reads the WAL again, and the next life follows at once.
 */
static void a_life_past_the_layout(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    ship_kit kit;
    ship_kit_begin_live(&kit, LJ_NS_PER_MS);
    ship_kit_freeze_at(&kit, LONG_LIFE);
    commit_up_to(&kit, LONG_LIFE);
    lj_db_ready(kit.db, NULL, NULL);
    wait_for_snapshots(&kit, 1);
    lj_chain first = chain_of(&kit);
    assert_true(first.active && first.unused);
    assert_int_equal(puts_of(&kit, "snapshots/"), 1);

    /* one rests for an hour, as one that took minutes would */
    pthread_mutex_lock(&kit.db->mutex);
    assert_int_equal(kit.s->rest_life, kit.db->life.number);
    kit.s->rest_until_ns = lj_clock_mono_ns() + 3600 * LJ_NS_PER_S;
    pthread_mutex_unlock(&kit.db->mutex);
    for (uint64_t i = 1; i <= 50; i++) {
        ship_kit_freeze_at(&kit, LONG_LIFE + i);
        commit_up_to(&kit, LONG_LIFE + i);
        lj_clock_sleep_ns(LJ_NS_PER_MS);
    }
    wait_for_status(&kit, "4 GiB", "starting");
    assert_int_equal(lj_db_gate(kit.db, false),
                     LJ_GATE_ALLOW); /* nothing is protected: nothing is copied */
    lj_db_seal(kit.db, false);
    pthread_mutex_lock(&kit.db->mutex);
    uint64_t spooled = kit.db->spool_bytes;
    pthread_mutex_unlock(&kit.db->mutex);
    assert_int_equal(spooled, 0);
    const char *log = ship_kit_log(&kit);
    assert_null(strstr(log, "PUT")); /* no snapshot, no segment */

    /* who waits for the replica gets a snapshot at once */
    assert_ok(lj_db_wait(kit.db, 20 * LJ_NS_PER_S, false, &err), &err);
    wait_for_snapshots(&kit, 2);
    lj_chain second = chain_of(&kit);
    assert_string_not_equal(second.generation, first.generation);

    /* the WAL restarts: the life that follows is shipped, in the same generation */
    lj_db_seal(kit.db, false);
    kit_wal_begin(&kit.wal, kit.dir.wal_path, KIT_PAGE, 2);
    kit_wal_commits(&kit.wal, 2, 3, 5);
    kit_wal_publish(&kit.wal, kit.db, 3);
    assert_ok(lj_db_wait(kit.db, 20 * LJ_NS_PER_S, false, &err), &err);
    wait_for_snapshots(&kit, 2);
    assert_int_equal(puts_of(&kit, "wal/"), 1);
    ship_kit_end(&kit);
}

/* The next life need not wait for the rest of the one before it. */
static void the_life_behind_one_past_the_layout(void **state)
{
    (void)state;
    ship_kit kit;
    ship_kit_begin_live(&kit, LJ_NS_PER_MS);
    ship_kit_freeze_at(&kit, LONG_LIFE);
    commit_up_to(&kit, LONG_LIFE);
    lj_db_ready(kit.db, NULL, NULL);
    wait_for_snapshots(&kit, 1);
    pthread_mutex_lock(&kit.db->mutex);
    kit.s->rest_until_ns = lj_clock_mono_ns() + 3600 * LJ_NS_PER_S;
    pthread_mutex_unlock(&kit.db->mutex);
    commit_up_to(&kit, LONG_LIFE + 1);
    wait_for_status(&kit, "4 GiB", "starting");
    lj_db_seal(kit.db, false);
    kit_wal_begin(&kit.wal, kit.dir.wal_path, KIT_PAGE, 77);
    kit_wal_commits(&kit.wal, 2, 3, 5);
    ship_kit_freeze_at(&kit, 2);
    kit_wal_publish(&kit.wal, kit.db, 3);
    wait_for_snapshots(&kit, 2);
    ship_kit_end(&kit);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_that_cannot_be_started_at_the_open),
        cmocka_unit_test(a_generation_begins_when_its_position_can_be_written),
        cmocka_unit_test(a_generation_nobody_heard_of_is_removed),
        cmocka_unit_test(degraded_until_the_new_generation_is_there),
        cmocka_unit_test(a_snapshot_that_is_due_does_not_press_a_failing_store),
        cmocka_unit_test(the_position_of_a_moved_file_is_not_written),
        cmocka_unit_test(snapshots_of_many_databases_are_spread),
        cmocka_unit_test(a_life_past_the_layout),
        cmocka_unit_test(the_life_behind_one_past_the_layout),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
