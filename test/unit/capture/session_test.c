/*
 * session_test.c - several lj_db objects on one database, as several processes have them: who leads, what they agree on, the gate of
 * one that follows, the bell, and taking over. Their ship tasks are played by the tests; threads run as in a process of each.
 */
#include "test/unit/capture/session_kit.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vfs/base/clock.h"
#include "vfs/base/io.h"
#include "vfs/capture/bell.h"
#include "vfs/capture/seat.h"
#include "vfs/capture/session.h"
#include "vfs/capture/spool.h"

static void the_second_stands_by(void **state)
{
    (void)state;
    fixture f;
    begin(&f, 5, 3);
    assert_int_equal(f.a->state, LJ_DB_REPLICATING);
    assert_int_equal(f.b->state, LJ_DB_STANDBY);
    assert_true(f.b->attached && f.b->established && f.b->chain.active);
    assert_int_equal(f.b->life.number, f.a->life.number);
    lj_db_status ours;
    lj_db_status theirs;
    lj_db_get_status(f.a, &theirs);
    lj_db_get_status(f.b, &ours);
    assert_string_equal(ours.text, "standby");
    assert_string_equal(ours.generation, GEN);
    assert_int_equal(ours.replica_offset, theirs.replica_offset);
    assert_int_equal(ours.lag_frames, 2);
    assert_int_equal(ours.uploader, getpid());
    end(&f);
}

static void both_gates_go_by_the_same_position(void **state)
{
    (void)state;
    fixture f;
    begin(&f, 5, 3);
    assert_int_equal(lj_db_gate(f.a, false), LJ_GATE_VETO);
    assert_int_equal(lj_db_gate(f.b, false), LJ_GATE_VETO);
    lj_position next = f.a->pos;
    next.offset = kit_wal_end(&f.wal);
    lj_db_shipped(f.a, &next, f.a->life.number, 5);
    assert_int_equal(lj_db_gate(f.b, false), LJ_GATE_ALLOW);
    kit_wal_commits(&f.wal, 1, 3, 9);
    kit_wal_publish(&f.wal, f.b, 3); /* not seen by the uploader yet */
    assert_int_equal(lj_db_gate(f.b, false), LJ_GATE_VETO);
    end(&f);
}

/* A life that a standby ends and begins is the chain's next index, in whatever order the others see it. */
static void a_life_of_a_standby_continues_the_chain(void **state)
{
    (void)state;
    for (int order = 0; order < 2; order++) {
        fixture f;
        begin(&f, 5, 3);
        lj_db_seal(f.b, false);
        lj_spool_entry entry;
        lj_error err = LJ_ERROR_INIT;
        assert_ok(lj_spool_first(f.dir.spool_dir, GEN, 0, false, &entry, &err), &err);
        assert_int_equal(entry.start.offset, lj_wal_frame_offset(PAGE, 4));
        uint64_t end_of_first = kit_wal_end(&f.wal);
        kit_wal_begin(&f.wal, f.dir.wal_path, PAGE, 2);
        kit_wal_commits(&f.wal, 2, 3, 9);
        kit_wal_publish(&f.wal, order == 0 ? f.b : f.a, 3);
        kit_wal_publish(&f.wal, order == 0 ? f.a : f.b, 3);
        for (int i = 0; i < 2; i++) {
            lj_db *db = i == 0 ? f.a : f.b;
            lj_db_enter(db);
            lj_db_leave(db);
            assert_true(db->chain.active && !db->broken);
            assert_int_equal(db->chain.index, 1);
            assert_int_equal(db->chain.prev_end, end_of_first);
            assert_int_equal(db->life.number, f.a->life.number);
            assert_int_equal(db->spool_bytes, entry.end - entry.start.offset);
        }
        end(&f);
    }
}

/* Somebody who does not take part restarted the WAL: all of them give the generation up. */
static void a_foreign_restart_breaks_it_for_all(void **state)
{
    (void)state;
    fixture f;
    begin(&f, 5, 3);
    kit_wal_begin(&f.wal, f.dir.wal_path, PAGE, 2);
    kit_wal_commits(&f.wal, 2, 3, 9);
    kit_wal_publish(&f.wal, f.b, 3);
    assert_true(f.b->broken && !f.b->chain.active);
    lj_db_look_around(f.a);
    assert_true(f.a->broken && !f.a->chain.active);
    assert_true(strstr(f.a->broken_reason, "without this VFS") != NULL);
    end(&f);
}

static void the_spool_is_everybodys(void **state)
{
    (void)state;
    fixture f;
    begin(&f, 5, 0);
    f.b->options.max_spool_size_bytes = lj_wal_frame_offset(PAGE, 6);
    lj_db_seal(f.a, false);
    kit_wal_begin(&f.wal, f.dir.wal_path, PAGE, 2);
    kit_wal_commits(&f.wal, 1, 3, 9);
    kit_wal_publish(&f.wal, f.b, 3);
    lj_db_seal(f.b, false); /* what the other one spooled leaves no room */
    assert_true(f.b->broken);
    lj_db_look_around(f.a);
    assert_true(f.a->broken);
    end(&f);
}

/* While a first snapshot is being frozen nobody restarts the WAL; one who must, says so. */
static void freezing_is_everybodys(void **state)
{
    (void)state;
    fixture f;
    begin(&f, 5, 5);
    assert_int_equal(lj_db_gate(f.b, false), LJ_GATE_ALLOW);
    lj_db_enter(f.a);
    f.a->freezing = true;
    lj_db_leave(f.a);
    assert_int_equal(lj_db_gate(f.b, false), LJ_GATE_VETO);
    lj_db_seal(f.b, false);
    lj_db_enter(f.a);
    assert_true(f.a->disturbed);
    lj_db_leave(f.a);
    end(&f);
}

static void another_replica_is_refused(void **state)
{
    (void)state;
    fixture f;
    begin(&f, 5, 3);
    lj_db *c = NULL;
    lj_error err = LJ_ERROR_INIT;
    lj_db_options options = kit_db_options();
    assert_ok(lj_db_new(f.dir.db_path, "file:///elsewhere", &options, f.a->wake, &c, &err), &err);
    lj_db_ready(c, NULL, NULL);
    kit_wal_publish(&f.wal, c, 3);
    assert_int_equal(c->state, LJ_DB_STOPPED);
    assert_true(strstr(c->ship_error.message, "elsewhere") != NULL);
    assert_int_not_equal(lj_db_wait(c, 0, false, &err), LJ_OK);
    assert_int_equal(lj_db_gate(c, false), LJ_GATE_VETO); /* does no harm */
    lj_db_get_status(f.a, &(lj_db_status){.replicating = false});
    assert_int_equal(f.a->ship_error.code, LJ_OK);
    lj_db_quiet(f.a);
    lj_db_free(f.a);
    f.a = NULL;
    assert_true(lj_db_standby(c) > 0); /* does not take over, and nobody listens */
    assert_int_equal(lj_db_standby(f.b), LJ_DB_LEADS);
    lj_db_quiet(c);
    lj_db_free(c);
    end(&f);
}

/* ------------------------------------------------------------------ bell and succession */

static void wait_until(atomic_int *counter, int least)
{
    int64_t deadline_ns = lj_clock_mono_ns() + 30 * LJ_NS_PER_S;
    while (atomic_load(counter) < least) {
        assert_true(lj_clock_mono_ns() < deadline_ns);
        lj_clock_sleep_ns(LJ_NS_PER_MS);
    }
}

/* The thread of its bell has heard something. */
static void wait_until_rung(lj_db *db)
{
    int64_t deadline_ns = lj_clock_mono_ns() + 30 * LJ_NS_PER_S;
    for (bool waits = true; waits;) {
        assert_true(lj_clock_mono_ns() < deadline_ns);
        lj_clock_sleep_ns(LJ_NS_PER_MS);
        pthread_mutex_lock(&db->mutex);
        waits = db->want_wake;
        pthread_mutex_unlock(&db->mutex);
    }
}

static void sleep_until_rung(lj_db *db)
{
    pthread_mutex_lock(&db->mutex);
    db->want_wake = true;
    pthread_mutex_unlock(&db->mutex);
    lj_db_sleeping(db, true);
    atomic_store(&kit_wakes, 0);
}

/* In the thread that commits: nothing else of its process is needed, which may end at once. */
static void a_commit_rings_only_a_sleeper(void **state)
{
    (void)state;
    fixture f;
    begin(&f, 5, 3);
    atomic_store(&kit_wakes, 0);
    assert_int_equal(lj_db_standby(f.b), LJ_DB_ASLEEP);
    wait_until(&kit_wakes, 1); /* it rings when it comes */
    sleep_until_rung(f.a);
    kit_wal_commits(&f.wal, 1, 3, 9);
    kit_wal_publish(&f.wal, f.b, 3);
    wait_until_rung(f.a);
    wait_until(&kit_wakes, 1);
    assert_int_equal(atomic_load(&kit_wakes), 1); /* the uploader's, and none of its own */
    assert_int_equal(lj_shared_get(f.a->shared, LJ_WORD_SLEEPING), 0);
    kit_wal_commits(&f.wal, 1, 3, 10);
    kit_wal_publish(&f.wal, f.b, 3);
    assert_int_equal(atomic_load(&kit_wakes), 1);
    end(&f);
}

/* Where nobody hears it the standby's own task has to see to it. */
static void a_commit_that_nobody_hears(void **state)
{
    (void)state;
    fixture f;
    begin(&f, 5, 3);
    sleep_until_rung(f.a); /* the standby has not reached the bell yet */
    kit_wal_commits(&f.wal, 1, 3, 9);
    kit_wal_publish(&f.wal, f.b, 3);
    assert_int_equal(atomic_load(&kit_wakes), 1);
    assert_int_equal(lj_shared_get(f.a->shared, LJ_WORD_SLEEPING), 1);
    assert_int_equal(lj_db_standby(f.b), LJ_DB_ASLEEP);
    wait_until_rung(f.a);
    end(&f);
}

static void taking_over_goes_on_where_the_file_says(void **state)
{
    (void)state;
    fixture f;
    begin(&f, 5, 3);
    assert_int_equal(lj_db_standby(f.b), LJ_DB_ASLEEP);
    atomic_store(&kit_wakes, 0);
    lj_db_quiet(f.a);
    lj_db_free(f.a);
    f.a = NULL;
    wait_until(&kit_wakes, 1); /* the kernel says that it is gone */
    assert_int_equal(lj_db_standby(f.b), LJ_DB_LEADS);
    assert_true(f.b->chain.active && f.b->established && !f.b->broken);
    assert_int_equal(f.b->pos.offset, lj_wal_frame_offset(PAGE, 4));
    assert_int_equal(f.b->safe_frames, 3);
    f.a = process(&f, NULL);
    assert_int_equal(f.a->state, LJ_DB_STANDBY);
    end(&f);
}

static void taking_over_without_a_position_begins_anew(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    const char *positions[] = {NULL, "another", "older"};
    for (size_t i = 0; i < LJ_ARRAY_LEN(positions); i++) {
        fixture f;
        begin(&f, 5, 3);
        lj_saved_position saved = {.at = {.generation = GEN}, .page_size = PAGE};
        if (i == 0)
            assert_int_equal(unlink(f.dir.position_path), 0);
        if (i == 1)
            memcpy(saved.at.generation, "00000000000000bb", LJ_GENERATION_MAX);
        if (i > 0)
            assert_ok(lj_saved_position_store(f.dir.position_path, &saved, true, &err), &err);
        lj_db_quiet(f.a);
        lj_db_free(f.a);
        f.a = NULL;
        assert_int_equal(lj_db_standby(f.b), LJ_DB_LEADS);
        assert_true(f.b->broken && !f.b->chain.active);
        end(&f);
    }
}

/* The uploader was killed at a rollover: the page has the next index, the position file the end of the one before. */
static void taking_over_in_the_middle_of_a_rollover(void **state)
{
    (void)state;
    for (int missing = 0; missing < 2; missing++) {
        fixture f;
        begin(&f, 5, 5);
        lj_position at = f.a->pos;
        lj_db_enter(f.a);
        f.a->chain.prev_end = at.offset + (missing ? lj_wal_frame_bytes(PAGE) : 0);
        f.a->chain.index++;
        f.a->chain.base_frames = 5;
        f.a->chain.unused = true;
        f.a->pos.index++;
        f.a->pos.offset = 0;
        lj_db_leave(f.a);
        lj_db_quiet(f.a);
        lj_db_free(f.a);
        f.a = NULL;
        assert_int_equal(lj_db_standby(f.b), LJ_DB_LEADS);
        assert_int_equal(f.b->chain.active, !missing);
        if (!missing) {
            assert_int_equal(lj_position_compare(&f.b->pos, &at), 0);
            assert_int_equal(f.b->chain.index, 1);
            assert_int_equal(lj_db_gate(f.b, false), LJ_GATE_ALLOW); /* all of it is shipped */
        }
        end(&f);
    }
}

/* What was shipped is in the position file as a shipper writes it; then both processes end, and so many commits were not shipped. */
static void all_end(fixture *f, unsigned unshipped, bool link)
{
    lj_error err = LJ_ERROR_INIT;
    lj_saved_position saved = {
        .at = f->a->pos, .page_size = PAGE, .salt = f->wal.header.salt, .sum = f->wal.sum};
    assert_ok(lj_saved_position_store(f->dir.position_path, &saved, true, &err), &err);
    lj_db_quiet(f->b);
    lj_db_free(f->b);
    kit_wal_commits(&f->wal, unshipped, 3, 9);
    kit_wal_publish(&f->wal, f->a, 3);
    if (link)
        lj_db_seal(f->a, true);
    lj_db_quiet(f->a);
    lj_db_free(f->a);
    f->a = NULL;
}

typedef struct {
    kit_dir *dir;
    lj_db *other;
} impatient;

/* While one decides another one gives up waiting for it, and goes on beside it. */
static bool give_up_waiting(void *ctx)
{
    impatient *i = ctx;
    i->other = kit_db(i->dir, NULL);
    i->other->ready_failures = 1; /* does not wait */
    lj_db_ready(i->other, NULL, NULL);
    return true;
}

static void what_is_decided_too_late_does_not_count(void **state)
{
    (void)state;
    for (int late = 0; late < 2; late++) {
        fixture f;
        begin(&f, 5, 5);
        all_end(&f, 2, false);
        impatient i = {.dir = &f.dir};
        f.b = kit_db(&f.dir, NULL);
        kit_wal_publish(&f.wal, f.b, 3);
        lj_db_ready(f.b, late ? give_up_waiting : NULL, &i);
        lj_db_look_around(f.b);
        assert_int_equal(f.b->chain.active, !late);
        assert_int_equal(f.b->broken, late);
        if (late) {
            assert_int_equal(i.other->state, LJ_DB_STOPPED);
            lj_db_free(i.other);
        }
        end(&f);
    }
}

/* Killed between the link of a WAL and its deletion: what the spool has is the WAL, and would be written over with it. */
static void a_link_of_a_wal_that_is_still_there(void **state)
{
    (void)state;
    lj_spool_entry entry;
    lj_error err = LJ_ERROR_INIT;
    fixture f;
    begin(&f, 5, 5);
    all_end(&f, 2, true);
    assert_ok(lj_spool_first(f.dir.spool_dir, GEN, 0, false, &entry, &err), &err);
    f.b = kit_db(&f.dir, NULL);
    kit_wal_publish(&f.wal, f.b, 3);
    lj_db_ready(f.b, NULL, NULL);
    assert_true(f.b->chain.active && !f.b->chain.sealed);
    assert_int_equal(f.b->safe_frames, 5);
    assert_int_equal(f.b->spool_bytes, 0);
    assert_int_equal(lj_spool_first(f.dir.spool_dir, GEN, 0, false, &entry, &err), LJ_NOTFOUND);
    lj_db_seal(f.b, false); /* and a restart makes a copy */
    assert_ok(lj_spool_first(f.dir.spool_dir, GEN, 0, false, &entry, &err), &err);
    end(&f);
}

/* A process that was stopped with the page's lock: nobody waits for long, and the generation ends for all. */
static void stuck_page(void **state)
{
    (void)state;
    fixture f;
    begin(&f, 5, 3);
    char path[128];
    int fd = -1;
    lj_error err = LJ_ERROR_INIT;
    snprintf(path, sizeof(path), "%s/lock", f.dir.state_dir);
    assert_ok(lj_seat_open(path, &fd, &err), &err);
    assert_true(lj_seat_lock_page(fd, 0));
    kit_wal_begin(&f.wal, f.dir.wal_path, PAGE, 2);
    kit_wal_commits(&f.wal, 1, 3, 9);
    kit_wal_publish(&f.wal, f.b, 3);
    assert_true(f.b->broken && !f.b->chain.active);
    int64_t start_ns = lj_clock_mono_ns();
    lj_db_seal(f.b, false); /* only the first one waits */
    assert_int_equal(lj_db_gate(f.b, false), LJ_GATE_ALLOW);
    assert_true(lj_clock_mono_ns() - start_ns < LJ_PAGE_WAIT_NS);
    lj_seat_leave(fd);
    lj_db_look_around(f.a);
    assert_true(f.a->broken && !f.a->chain.active);
    assert_true(strstr(f.a->broken_reason, "stopped") != NULL);
    lj_db_look_around(f.b);
    assert_true(f.b->broken && f.b->shared != NULL);
    end(&f);
}

/* ------------------------------------------------------------------ all at once */

#define ROUNDS 300

typedef struct {
    lj_db *db;
    fixture *f;
    pthread_mutex_t *wal_lock; /* SQLite's */
    atomic_uint *salt;
    atomic_uint *frames;
    unsigned seed;
} writer_thread;

/* Commits, and now and then seals and restarts, as one process among several. The WAL's end is what `salt` and `frames` say. */
static void *write_many(void *ctx)
{
    writer_thread *w = ctx;
    for (unsigned i = 0; i < ROUNDS; i++) {
        pthread_mutex_lock(w->wal_lock);
        lj_db_publish(w->db, kit_salt(atomic_load(w->salt)), atomic_load(w->frames), PAGE, 3);
        if (rand_r(&w->seed) % 5 == 0) {
            lj_db_seal(w->db, false);
            atomic_fetch_add(w->salt, 1);
            atomic_store(w->frames, 0);
        }
        atomic_fetch_add(w->frames, 1);
        lj_db_publish(w->db, kit_salt(atomic_load(w->salt)), atomic_load(w->frames), PAGE, 3);
        pthread_mutex_unlock(w->wal_lock);
    }
    return NULL;
}

/* The uploader acknowledges what there is, again and again. */
static void *ship_many(void *ctx)
{
    writer_thread *w = ctx;
    for (unsigned i = 0; i < ROUNDS; i++) {
        lj_db_look_around(w->db);
        pthread_mutex_lock(&w->db->mutex);
        lj_position next = {.index = w->db->chain.index,
                            .offset = lj_wal_frame_offset(PAGE, w->db->life.frames + 1)};
        memcpy(next.generation, GEN, sizeof(GEN));
        uint64_t life = w->db->life.number;
        uint64_t frames = w->db->life.frames;
        pthread_mutex_unlock(&w->db->mutex);
        lj_db_shipped(w->db, &next, life, frames);
        lj_db_status status;
        lj_db_get_status(w->db, &status);
    }
    return NULL;
}

static void many_at_once(void **state)
{
    (void)state;
    fixture f;
    begin(&f, 1, 1);
    f.a->options.max_spool_size_bytes = UINT64_C(1) << 40;
    f.b->options.max_spool_size_bytes = UINT64_C(1) << 40;
    lj_db *c = process(&f, &f.a->options);
    kit_wal_commits(&f.wal, ROUNDS * 3, 3,
                    2); /* so that there is something to spool at any offset */
    pthread_mutex_t wal_lock = PTHREAD_MUTEX_INITIALIZER;
    atomic_uint salt = 1;
    atomic_uint frames = 1;
    lj_db *dbs[] = {f.a, f.b, c, f.a};
    writer_thread threads[4];
    pthread_t ids[4];
    for (unsigned i = 0; i < 4; i++) {
        threads[i] = (writer_thread){dbs[i], &f, &wal_lock, &salt, &frames, i + 1};
        assert_int_equal(pthread_create(&ids[i], NULL, i < 3 ? write_many : ship_many, &threads[i]),
                         0);
    }
    for (unsigned i = 0; i < 4; i++)
        pthread_join(ids[i], NULL);
    for (unsigned i = 0; i < 3; i++) {
        lj_db_look_around(dbs[i]);
        assert_true(dbs[i]->chain.active && !dbs[i]->broken);
        assert_int_equal(dbs[i]->chain.index, atomic_load(&salt) - 1);
        assert_int_equal(dbs[i]->session_life, f.a->session_life);
    }
    lj_db_quiet(c);
    lj_db_free(c);
    end(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_second_stands_by),
        cmocka_unit_test(both_gates_go_by_the_same_position),
        cmocka_unit_test(a_life_of_a_standby_continues_the_chain),
        cmocka_unit_test(a_foreign_restart_breaks_it_for_all),
        cmocka_unit_test(the_spool_is_everybodys),
        cmocka_unit_test(freezing_is_everybodys),
        cmocka_unit_test(another_replica_is_refused),
        cmocka_unit_test(a_commit_rings_only_a_sleeper),
        cmocka_unit_test(a_commit_that_nobody_hears),
        cmocka_unit_test(taking_over_goes_on_where_the_file_says),
        cmocka_unit_test(taking_over_without_a_position_begins_anew),
        cmocka_unit_test(taking_over_in_the_middle_of_a_rollover),
        cmocka_unit_test(what_is_decided_too_late_does_not_count),
        cmocka_unit_test(a_link_of_a_wal_that_is_still_there),
        cmocka_unit_test(stuck_page),
        cmocka_unit_test(many_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
