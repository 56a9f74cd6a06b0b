/* snapshot_test.c - what a snapshot belongs to, its time, and what failed attempts leave. */
#include "test/unit/ship/ship_kit.h"

#include <fcntl.h>
#include <unistd.h>

#include "vfs/base/clock.h"
#include "vfs/base/io.h"
#include "vfs/base/str.h"
#include "vfs/capture/session.h"
#include "vfs/restore/restore.h"

#define LONG_NS (20 * LJ_NS_PER_S)
#define HOUR_NS (3600 * LJ_NS_PER_S)

static void run(ship_kit *kit)
{
    (void)kit->s->ship_task.run(&kit->s->ship_task);
}

/* In this thread, and not beside the task that the shipping task wakes when it is answered. */
static lj_code take_periodic(ship_kit *kit, lj_error *err)
{
    lj_task_stop(&kit->s->snapshot_task);
    return lj_snapshot_periodic(kit->s, err);
}

/* A first snapshot is due, of an empty WAL. */
static void begin_without_a_generation(ship_kit *kit)
{
    ship_kit_begin(kit);
    kit->db->attached = true;
    kit->db->broken = true;
    ship_kit_freeze_at(kit, 0);
}

/* The database's three pages in version `version`, as a snapshot. */
static void put_pages(ship_kit *kit, const char *key, unsigned version, int64_t created_ns)
{
    uint8_t pages[3 * KIT_PAGE];
    for (uint32_t i = 1; i <= 3; i++)
        kit_page(pages + (i - 1) * KIT_PAGE, KIT_PAGE, i, version);
    ship_kit_put(kit, key, pages, sizeof(pages), created_ns);
}

/* ------------------------------------------------------------------ an empty WAL */

static void next_life(ship_kit *kit, uint32_t salt, uint32_t pgno, unsigned version)
{
    lj_db_seal(kit->db, false);
    lj_db_wal_emptied(kit->db);
    kit_wal_begin(&kit->wal, kit->dir.wal_path, KIT_PAGE, salt);
    lj_db_wal_header(kit->db, kit->wal.header.salt);
    kit_wal_frame(&kit->wal, pgno, 3, version);
    kit_wal_publish(&kit->wal, kit->db, 3);
    lj_error err = LJ_ERROR_INIT;
    lj_shipper_wake(kit->db, 0); /* not run() here: it may be at work behind the rollover */
    assert_ok(lj_db_wait(kit->db, LONG_NS, false, &err), &err);
}

static void two_lives(ship_kit *kit)
{
    next_life(kit, 2, 2, 50);
    next_life(kit, 3, 1, 60);
}

/* Two lives come behind the freeze: a snapshot with the index of the second would hide what the first one wrote. */
static void of_an_empty_wal_it_belongs_to_one_life(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    ship_kit kit;
    ship_kit_begin(&kit);
    kit.guard.memory_bytes = 1 << 20;
    kit.db->options.sync_interval_ns = 0;
    ship_kit_replicating(&kit, 4);
    kit.s->resumed = true;
    kit_wal_frame(&kit.wal, 3, 3, 0);
    kit_wal_publish(&kit.wal, kit.db, 3);
    run(&kit);
    assert_int_equal(kit.s->saved.at.index, 4);
    lj_db_seal(kit.db, false);
    lj_db_wal_emptied(kit.db);
    ship_kit_freeze_at(&kit, 0);
    kit.during_freeze = two_lives;
    assert_int_equal(take_periodic(&kit, &err), LJ_BUSY);
    assert_true(err.retryable);
    assert_null(strstr(ship_kit_log(&kit), "/snapshots/"));
    ship_kit_end(&kit);
}

static void write_the_file(ship_kit *kit)
{
    kit->during_freeze = NULL;
    kit_db_file(kit->dir.db_path, KIT_PAGE, 4, 9);
}

/* By another program, and then only the file could tell of a life that this one begins and ends before ours. */
static void of_an_empty_wal_while_the_file_is_written(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    ship_kit kit;
    begin_without_a_generation(&kit);
    kit.during_freeze = write_the_file;
    assert_int_equal(lj_snapshot_first(kit.s, &err), LJ_BUSY);
    assert_true(err.retryable);
    assert_false(kit.db->chain.active);
    assert_ok(lj_snapshot_first(kit.s, &err), &err);
    assert_true(kit.db->chain.active && kit.db->chain.emptied);
    ship_kit_end(&kit);
}

/* ------------------------------------------------------------------ a generation follows another */

static void copy_generation(ship_kit *kit, char out[LJ_GENERATION_MAX])
{
    pthread_mutex_lock(&kit->db->mutex);
    memcpy(out, kit->db->chain.generation, LJ_GENERATION_MAX);
    pthread_mutex_unlock(&kit->db->mutex);
}

static bool replicates(ship_kit *kit, const char *not_this)
{
    lj_db_status status;
    lj_db_get_status(kit->db, &status);
    return strcmp(status.text, "replicating") == 0 && status.generation[0] != 0 &&
           strcmp(status.generation, not_this) != 0;
}

static void wait_until_it_replicates(ship_kit *kit, const char *not_this)
{
    int64_t end_ns = lj_clock_mono_ns() + LONG_NS;
    while (!replicates(kit, not_this) && lj_clock_mono_ns() < end_ns)
        lj_clock_sleep_ns(LJ_NS_PER_MS);
    assert_true(replicates(kit, not_this));
}

/* Five frames were acknowledged, three of them taken back: two, and another third, are not in the next generation by that. */
static void what_was_shipped_is_forgotten_with_its_generation(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    ship_kit kit;
    ship_kit_begin_live(&kit, LJ_NS_PER_MS);
    ship_kit_freeze_at(&kit, 0);
    lj_db_ready(kit.db, NULL, NULL);
    wait_until_it_replicates(&kit, "");
    kit_wal_commits(&kit.wal, 2, 3, 1);
    kit_wal_publish(&kit.wal, kit.db, 3);
    assert_ok(lj_db_wait(kit.db, LONG_NS, false, &err), &err);

    kit_wal before = kit.wal;
    kit_wal_frame(&kit.wal, 1, 0, 20);
    kit_wal_frame(&kit.wal, 2, 0, 20);
    kit_wal_frame(&kit.wal, 3, 3, 20);
    lj_wal_end end = {
        .salt = kit.wal.header.salt, .frames = 5, .page_size = KIT_PAGE, .db_pages = 3};
    uint64_t n = lj_db_pending_offer(kit.db, &end);
    assert_ok(lj_db_pending_wait(kit.db, n, LONG_NS, false, &err), &err);
    char first[LJ_GENERATION_MAX];
    copy_generation(&kit, first);
    ship_kit_freeze_at(&kit, 2);
    kit.wal = before;
    lj_db_pending_undo(kit.db, n);
    wait_until_it_replicates(&kit, first);

    kit_wal_frame(&kit.wal, 1, 3, 90); /* of a connection that does not wait */
    kit_wal_publish(&kit.wal, kit.db, 3);
    assert_ok(lj_db_wait(kit.db, LONG_NS, false, &err), &err);
    lj_position at = {.index = 0};
    char key[LJ_NAME_MAX];
    copy_generation(&kit, at.generation);
    lj_name_wal(&at, key);
    assert_true(ship_kit_has(&kit, key));
    ship_kit_end(&kit);
}

/* ------------------------------------------------------------------ behind a rest */

/* Index 4 with all that was committed in the replica, but there another writer has gone on and trimmed meanwhile. */
static void begin_rested(ship_kit *kit, uint32_t newest_snapshot)
{
    lj_error err = LJ_ERROR_INIT;
    ship_kit_begin(kit);
    kit->db->options.sync_interval_ns = 0;
    kit->db->options.retention_ns = 24 * HOUR_NS;
    ship_kit_replicating(kit, 4);
    kit->s->resumed = true;
    kit_wal_commits(&kit->wal, 3, 3, 1);
    kit_wal_publish(&kit->wal, kit->db, 3);
    run(kit);
    assert_int_equal(kit->s->saved.at.offset, lj_wal_frame_offset(KIT_PAGE, 4));
    kit->db->saved.snapshot_at.index = newest_snapshot;
    kit->s->saved.snapshot_at.index = newest_snapshot;
    const char *ours[] = {"generations/" KIT_GEN "/wal/00000004_00000000.wal.lz4"};
    assert_ok(lj_storage_delete_many(kit->files, ours, 1, NULL, NULL, &err), &err);
    put_pages(kit, "generations/" KIT_GEN "/snapshots/00000060.snapshot.lz4", 9, 0);
    kit->s->agreed_mono_ns -= 48 * HOUR_NS;
    kit->s->agreed_wall_ns -= 48 * HOUR_NS;
    (void)ship_kit_log(kit);
    kit->freeze_code = LJ_IO; /* what would follow is not of interest */
}

static void expect_nothing_put(ship_kit *kit)
{
    lj_error err = LJ_ERROR_INIT;
    assert_true(take_periodic(kit, &err) != LJ_OK);
    pthread_mutex_lock(&kit->db->mutex);
    bool broken = kit->db->broken;
    pthread_mutex_unlock(&kit->db->mutex);
    assert_true(broken);
    assert_null(strstr(ship_kit_log(kit), "PUT generations/" KIT_GEN));
    ship_kit_end(kit);
}

/* Nothing is to be shipped, and a snapshot is due. */
static void behind_a_rest_the_store_is_asked(void **state)
{
    (void)state;
    ship_kit kit;
    begin_rested(&kit, 4);
    expect_nothing_put(&kit);
}

static void behind_a_rest_the_store_is_asked_without_a_rollover(void **state)
{
    (void)state;
    ship_kit kit;
    begin_rested(&kit, 3);
    expect_nothing_put(&kit);
}

/* ------------------------------------------------------------------ times */

/* The replica was written by a machine whose clock is ahead, and there is no position file here. */
static void times_are_behind_those_that_are_there(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    ship_kit kit;
    ship_kit_begin_live(&kit, LJ_NS_PER_MS);
    int64_t ahead_ns = lj_clock_wall_ns() + HOUR_NS;
    put_pages(&kit, "generations/" KIT_GEN "/snapshots/00000000.snapshot.lz4", 0, ahead_ns);
    ship_kit_freeze_at(&kit, 0);
    lj_db_ready(kit.db, NULL, NULL);
    kit_wal_commits(&kit.wal, 2, 3, 1);
    kit_wal_publish(&kit.wal, kit.db, 3);
    assert_ok(lj_db_wait(kit.db, LONG_NS, false, &err), &err);
    lj_restore_options options = {.parallelism = 1};
    lj_restore_plan *plan = NULL;
    lj_restore_result result;
    assert_ok(lj_restore_plan_make(kit.files, &options, &plan, &err), &err);
    lj_restore_plan_describe(plan, &result);
    lj_restore_plan_free(plan);
    char generation[LJ_GENERATION_MAX];
    copy_generation(&kit, generation);
    assert_string_equal(result.position.generation, generation);
    pthread_mutex_lock(&kit.db->mutex);
    int64_t taken_ns = kit.db->saved.snapshot_ns;
    pthread_mutex_unlock(&kit.db->mutex);
    assert_true(taken_ns > ahead_ns);
    ship_kit_end(&kit);
}

/* What cannot be listed is not known to be older. */
static void without_a_listing_none_is_taken(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    ship_kit kit;
    begin_without_a_generation(&kit);
    ship_kit_fail_on(&kit, "LIST");
    assert_int_equal(lj_snapshot_first(kit.s, &err), LJ_UNAVAILABLE);
    assert_true(err.retryable);
    assert_null(strstr(ship_kit_log(&kit), "PUT"));
    assert_false(kit.db->chain.active);
    kit.s->times_known = true; /* of a listing before: then it is not asked for again */
    assert_ok(lj_snapshot_first(kit.s, &err), &err);
    ship_kit_end(&kit);
}

/* The clock was set back behind a periodic snapshot: a restore takes the generation with the newest object, so what follows is newer. */
static void the_next_generation_is_behind_a_periodic_snapshot(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    ship_kit kit;
    ship_kit_begin(&kit);
    ship_kit_replicating(&kit, 4);
    kit.s->resumed = true;
    int64_t ahead_ns = lj_clock_wall_ns() + HOUR_NS;
    kit.s->snapshot_noted = true;
    kit.s->noted_ns = ahead_ns;
    kit.s->noted_at = kit.s->saved.at;
    run(&kit);
    ship_kit_freeze_at(&kit, 0);
    assert_ok(lj_snapshot_first(kit.s, &err), &err);
    assert_true(kit.s->fresh.saved.snapshot_ns > ahead_ns);
    ship_kit_end(&kit);
}

/* Or the process was killed before it had written that down. */
static void an_open_goes_by_the_times_that_are_there(void **state)
{
    (void)state;
    ship_kit kit;
    ship_kit_begin(&kit);
    ship_kit_replicating(&kit, 4);
    kit.db->options.sync_interval_ns = 0;
    int64_t ahead_ns = lj_clock_wall_ns() + HOUR_NS;
    put_pages(&kit, "generations/" KIT_GEN "/snapshots/00000004.snapshot.lz4", 0, ahead_ns);
    kit.s->saved.snapshot_at.index = 3;
    kit.s->saved.snapshot_at.offset = 5000;
    run(&kit);
    assert_true(kit.s->resumed);
    run(&kit);
    assert_true(kit.db->saved.last_object_ns >= ahead_ns);
    assert_int_equal(kit.db->saved.snapshot_at.index, 4);
    assert_int_equal(kit.db->saved.snapshot_at.offset, 0); /* that was of the one before */
    ship_kit_end(&kit);
}

/* A new generation is due at an open, or because of another writer: the position file does not know all that is there. */
static void what_is_there_is_newer_than_the_position_file(void **state)
{
    (void)state;
    for (int open = 0; open < 2; open++) {
        lj_error err = LJ_ERROR_INIT;
        ship_kit kit;
        begin_without_a_generation(&kit);
        int64_t ahead_ns = lj_clock_wall_ns() + HOUR_NS;
        put_pages(&kit, "generations/" KIT_GEN "/snapshots/00000004.snapshot.lz4", 0, ahead_ns);
        kit.s->newest_object_ns = 1000;
        if (!open) {
            kit.s->times_known = true;
            lj_ship_disown(kit.s, KIT_GEN);
        }
        assert_ok(lj_snapshot_first(kit.s, &err), &err);
        assert_true(kit.s->fresh.saved.snapshot_ns > ahead_ns);
        ship_kit_end(&kit);
    }
}

/* The clock was set back behind a segment that has no answer: it may be there. */
static void the_next_generation_is_behind_a_segment_without_an_answer(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    ship_kit kit;
    ship_kit_begin(&kit);
    ship_kit_replicating(&kit, 4);
    kit.s->times_known = true;
    kit_wal_commits(&kit.wal, 2, 3, 1);
    int fd = open(kit.dir.wal_path, O_RDONLY | O_CLOEXEC);
    int64_t ahead_ns = lj_clock_wall_ns() + HOUR_NS;
    kit.put_then_fail = true;
    ship_kit_fail_on(&kit, "PUT");
    assert_int_equal(
        lj_upload_segment(kit.s, fd, &kit.wal.header, kit_wal_end(&kit.wal), ahead_ns, &err),
        LJ_UNAVAILABLE);
    ship_kit_fail_on(&kit, "");
    ship_kit_freeze_at(&kit, 0);
    assert_ok(lj_snapshot_first(kit.s, &err), &err);
    assert_true(kit.s->fresh.saved.snapshot_ns > ahead_ns);
    close(fd);
    ship_kit_end(&kit);
}

static void the_timer_goes_on_when_the_clock_was_set_back(void **state)
{
    (void)state;
    ship_kit kit;
    ship_kit_begin(&kit);
    ship_kit_replicating(&kit, 4);
    kit_wal_commits(&kit.wal, 3, 3, 1);
    kit_wal_publish(&kit.wal, kit.db, 3);
    pthread_mutex_lock(&kit.db->mutex);
    kit.db->options.snapshot_interval_ns = HOUR_NS;
    kit.db->saved.snapshot_ns = lj_clock_wall_ns() + 1000 * HOUR_NS;
    int64_t due_ns = lj_snapshot_due_locked(kit.s);
    assert_true(due_ns <= lj_clock_mono_ns() + HOUR_NS);
    assert_int_equal(lj_snapshot_due_locked(kit.s), due_ns); /* it comes nearer */
    kit.s->snapshot_timer_ns -= HOUR_NS;
    assert_true(lj_snapshot_due_locked(kit.s) <= lj_clock_mono_ns());
    kit.db->saved.snapshot_ns = lj_clock_wall_ns() - 2 * HOUR_NS; /* the clock that goes on */
    kit.s->snapshot_timer_ns = lj_clock_mono_ns();
    assert_true(lj_snapshot_due_locked(kit.s) <= lj_clock_mono_ns());
    pthread_mutex_unlock(&kit.db->mutex);
    ship_kit_end(&kit);
}

/* ------------------------------------------------------------------ attempts whose answer was lost */

static char stray[LJ_NAME_MAX];

static void note_key(ship_kit *kit, const char *line)
{
    (void)kit;
    if (strncmp(line, "PUT ", 4) == 0 && stray[0] == 0)
        snprintf(stray, sizeof(stray), "%s", line + 4);
}

/* The request arrives when the store was already asked for it: by then it is the newest generation. */
static void one_that_arrives_late_is_looked_for_again(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    ship_kit kit;
    begin_without_a_generation(&kit);
    stray[0] = 0;
    kit.before = note_key;
    ship_kit_fail_on(&kit, "PUT");
    assert_int_equal(lj_snapshot_first(kit.s, &err), LJ_UNAVAILABLE);
    assert_int_equal(kit.s->stray_count, 1);
    ship_kit_fail_on(&kit, "");
    assert_ok(lj_snapshot_first(kit.s, &err), &err);
    int64_t due_ns = lj_snapshot_drop_strays(kit.s);
    assert_true(due_ns > lj_clock_mono_ns());
    put_pages(&kit, stray, 0, 0);
    assert_int_equal(lj_snapshot_drop_strays(kit.s), due_ns); /* not before its time */
    assert_true(ship_kit_has(&kit, stray));
    kit.s->stray_look_ns = lj_clock_mono_ns();
    due_ns = lj_snapshot_drop_strays(kit.s);
    assert_false(ship_kit_has(&kit, stray));
    unsigned looks = 0;
    while (due_ns != LJ_TASK_IDLE && looks++ < 100) {
        kit.s->stray_look_ns = lj_clock_mono_ns();
        due_ns = lj_snapshot_drop_strays(kit.s);
    }
    assert_in_range(looks, 1, 10); /* and it ends */
    assert_int_equal(kit.s->stray_count, 0);
    ship_kit_end(&kit);
}

/* The clock was set back behind it: as long as it is there it must not be the newest. */
static void the_next_one_is_newer(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    lj_storage_entry entry;
    ship_kit kit;
    begin_without_a_generation(&kit);
    stray[0] = 0;
    kit.before = note_key;
    kit.put_then_fail = true;
    kit.s->times_known = true;
    kit.s->newest_object_ns = lj_clock_wall_ns() + HOUR_NS;
    ship_kit_fail_on(&kit, "PUT");
    assert_int_equal(lj_snapshot_first(kit.s, &err), LJ_UNAVAILABLE);
    ship_kit_fail_on(&kit, "");
    assert_ok(lj_storage_head(kit.files, stray, &entry, &err), &err);
    assert_ok(lj_snapshot_first(kit.s, &err), &err);
    assert_true(kit.s->fresh.saved.snapshot_ns > entry.created_ns);
    ship_kit_end(&kit);
}

/* A request of ours was carried out and repeated below us. */
static bool put_before;
static void already_there(ship_kit *kit, const char *line)
{
    if (strncmp(line, "PUT ", 4) != 0 || put_before)
        return;
    put_before = true;
    put_pages(kit, line + 4, 0, 0);
}

static void the_first_one_may_find_itself(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    ship_kit kit;
    begin_without_a_generation(&kit);
    put_before = false;
    kit.before = already_there;
    assert_ok(lj_snapshot_first(kit.s, &err), &err);
    assert_true(put_before);
    assert_true(kit.s->fresh.pending);
    assert_true(kit.db->chain.active);
    ship_kit_end(&kit);
}

/* ------------------------------------------------------------------ asked for */

static atomic_bool asked;
static void commit_and_ask(ship_kit *kit, const char *line)
{
    if (strstr(line, "/snapshots/") == NULL || asked)
        return;
    asked = true;
    kit_wal_commits(&kit->wal, 2, 3, 1);
    kit_wal_publish(&kit->wal, kit->db, 3);
    ship_kit_freeze_at(kit, 2);
    lj_db_enter(kit->db);
    kit->db->snapshot_requests++;
    lj_db_leave(kit->db);
}

static bool is_answered(ship_kit *kit)
{
    pthread_mutex_lock(&kit->db->mutex);
    bool answered = kit->db->snapshot_requests > 0 && !lj_db_snapshot_asked_locked(kit->db);
    pthread_mutex_unlock(&kit->db->mutex);
    return answered;
}

/* Somebody commits and asks for a snapshot while a generation's first one is on its way, which has not got that commit. */
static void asked_for_behind_the_freeze_of_the_first_one(void **state)
{
    (void)state;
    ship_kit kit;
    ship_kit_begin_live(&kit, LJ_NS_PER_MS);
    asked = false;
    kit.before = commit_and_ask;
    ship_kit_freeze_at(&kit, 0);
    lj_db_ready(kit.db, NULL, NULL);
    int64_t end_ns = lj_clock_mono_ns() + LONG_NS;
    while (!is_answered(&kit) && lj_clock_mono_ns() < end_ns)
        lj_clock_sleep_ns(LJ_NS_PER_MS);
    assert_true(is_answered(&kit));
    pthread_mutex_lock(&kit.db->mutex);
    uint64_t taken = kit.db->snapshots;
    pthread_mutex_unlock(&kit.db->mutex);
    assert_int_equal(taken, 2);
    ship_kit_end(&kit);
}

/* What the snapshot has of the WAL can be told from what somebody may write in its place. */
static void the_position_says_what_the_base_is(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    ship_kit kit;
    begin_without_a_generation(&kit);
    kit_wal_commits(&kit.wal, 2, 3, 1);
    kit_wal_publish(&kit.wal, kit.db, 3);
    ship_kit_freeze_at(&kit, 2);
    kit.freeze.cksum = kit.wal.sum;
    kit.freeze.has_cksum = true;
    assert_ok(lj_snapshot_first(kit.s, &err), &err);
    const lj_saved_position *saved = &kit.s->fresh.saved;
    assert_true(saved->has_base && lj_wal_salt_eq(saved->salt, saved->base_salt));
    assert_true(lj_wal_cksum_eq(saved->sum, kit.wal.sum));
    ship_kit_end(&kit);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(of_an_empty_wal_it_belongs_to_one_life),
        cmocka_unit_test(of_an_empty_wal_while_the_file_is_written),
        cmocka_unit_test(what_was_shipped_is_forgotten_with_its_generation),
        cmocka_unit_test(behind_a_rest_the_store_is_asked),
        cmocka_unit_test(behind_a_rest_the_store_is_asked_without_a_rollover),
        cmocka_unit_test(times_are_behind_those_that_are_there),
        cmocka_unit_test(without_a_listing_none_is_taken),
        cmocka_unit_test(the_next_generation_is_behind_a_periodic_snapshot),
        cmocka_unit_test(an_open_goes_by_the_times_that_are_there),
        cmocka_unit_test(what_is_there_is_newer_than_the_position_file),
        cmocka_unit_test(the_next_generation_is_behind_a_segment_without_an_answer),
        cmocka_unit_test(the_timer_goes_on_when_the_clock_was_set_back),
        cmocka_unit_test(one_that_arrives_late_is_looked_for_again),
        cmocka_unit_test(the_next_one_is_newer),
        cmocka_unit_test(the_first_one_may_find_itself),
        cmocka_unit_test(asked_for_behind_the_freeze_of_the_first_one),
        cmocka_unit_test(the_position_says_what_the_base_is),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
