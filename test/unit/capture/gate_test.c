/* gate_test.c - when the WAL may restart, what a seal leaves, and how the next life continues. */
#include "test/unit/capture/kit.h"

#include <pthread.h>
#include <unistd.h>

#include "vfs/base/io.h"
#include "vfs/capture/spool.h"
#include "vfs/capture/walfile.h"

#define PAGE 4096u
#define GEN  "00000000000000aa"

/* A database that replicates generation GEN, with `frames` committed of which `safe` are shipped. */
typedef struct {
    kit_dir dir;
    lj_db *db;
    kit_wal wal;
} fixture;

static void begin(fixture *f, unsigned frames, unsigned safe)
{
    kit_dir_make(&f->dir);
    kit_db_file(f->dir.db_path, PAGE, 3, 0);
    lj_db *db = f->db = kit_db_replicating(&f->dir, NULL, GEN);
    kit_wal_begin(&f->wal, f->dir.wal_path, PAGE, 1);
    if (frames > 0) {
        kit_wal_commits(&f->wal, frames, 3, 1);
        kit_wal_publish(&f->wal, db, 3);
    }
    if (safe > 0) {
        lj_position next = db->pos;
        next.offset = lj_wal_frame_offset(PAGE, safe + 1);
        lj_db_shipped(db, &next, db->life.number, safe);
    }
}

static void end(fixture *f)
{
    lj_db_free(f->db);
    kit_dir_remove(&f->dir);
}

static lj_spool_entry only_entry(const fixture *f)
{
    lj_error err = LJ_ERROR_INIT;
    lj_spool_entry e;
    assert_ok(lj_spool_first(f->dir.spool_dir, GEN, 0, false, &e, &err), &err);
    return e;
}

/* max_wal_size is 64 KiB: 10 frames of 4 KiB are below half of it + some, 14 above half, 20 above all of it */
static void decision_table(void **state)
{
    (void)state;
    static const struct {
        const char *what;
        unsigned frames, safe;
        bool checkpoint, freezing, inactive;
        lj_gate gate;
        bool hurry;
    } rows[] = {
        {"writer, all safe", 4, 4, false, false, false, LJ_GATE_ALLOW, false},
        {"writer, unsafe", 4, 3, false, false, false, LJ_GATE_VETO, false},
        {"writer, nothing safe", 4, 0, false, false, false, LJ_GATE_VETO, false},
        {"writer, unsafe, past half", 14, 3, false, false, false, LJ_GATE_VETO, true},
        {"writer, unsafe, past the limit", 20, 3, false, false, false, LJ_GATE_ALLOW, false},
        {"writer, all safe, past the limit", 20, 20, false, false, false, LJ_GATE_ALLOW, false},
        {"writer, no chain", 4, 0, false, false, true, LJ_GATE_ALLOW, false},
        {"writer, freezing, all safe", 4, 4, false, true, false, LJ_GATE_VETO, false},
        {"writer, freezing, no chain", 4, 0, false, true, true, LJ_GATE_VETO, false},
        {"writer, freezing, past the limit", 20, 3, false, true, false, LJ_GATE_ALLOW, false},
        {"checkpoint, all safe", 4, 4, true, false, false, LJ_GATE_ALLOW, false},
        {"checkpoint, unsafe", 4, 0, true, false, false, LJ_GATE_ALLOW, false},
        {"checkpoint, unsafe, past half", 14, 0, true, false, false, LJ_GATE_ALLOW, false},
        {"checkpoint, freezing", 4, 0, true, true, false, LJ_GATE_ALLOW, false},
        {"writer, nothing committed", 0, 0, false, false, false, LJ_GATE_ALLOW, false},
        {"writer, nothing committed, freezing", 0, 0, false, true, false, LJ_GATE_VETO, false},
    };
    for (size_t i = 0; i < LJ_ARRAY_LEN(rows); i++) {
        fixture f;
        begin(&f, rows[i].frames, rows[i].safe);
        f.db->freezing = rows[i].freezing;
        if (rows[i].inactive)
            f.db->chain.active = false;
        atomic_store(&kit_wakes, 0);
        if (lj_db_gate(f.db, rows[i].checkpoint) != rows[i].gate)
            fail_msg("%s", rows[i].what);
        if (lj_db_gate(f.db, rows[i].checkpoint) != rows[i].gate)
            fail_msg("%s, asked again", rows[i].what);
        if (atomic_load(&kit_wakes) != (rows[i].hurry ? 1 : 0))
            fail_msg("%s: %d wake-ups", rows[i].what, atomic_load(&kit_wakes));
        end(&f);
    }
}

static void seal_of_what_is_safe(void **state)
{
    (void)state;
    fixture f;
    begin(&f, 4, 4);
    lj_db_seal(f.db, false);
    assert_true(f.db->chain.sealed);
    assert_int_equal(f.db->chain.sealed_frames, 4);
    assert_int_equal(f.db->spool_bytes, 0);
    assert_false(kit_exists(f.dir.spool_dir));
    lj_session stored;
    assert_true(lj_shared_load(f.db->shared, &stored));
    assert_true(stored.chain.sealed && stored.chain.sealed_frames == 4);
    end(&f);
}

static void seal_spools_the_rest(void **state)
{
    (void)state;
    for (int going = 0; going < 2; going++) {
        fixture f;
        begin(&f, 6, 2);
        f.db->want_wake = true;
        lj_db_seal(f.db, going);
        assert_true(f.db->chain.active && f.db->chain.sealed);
        lj_spool_entry e = only_entry(&f);
        assert_int_equal(e.start.index, 0);
        assert_int_equal(e.start.offset, lj_wal_frame_offset(PAGE, 3));
        assert_int_equal(e.end, kit_wal_end(&f.wal));
        assert_int_equal(f.db->spool_bytes, e.end - e.start.offset);
        assert_int_equal(atomic_load(&kit_wakes), 1);
        lj_db_seal(f.db, going); /* the header write behind the lock: nothing more to do */
        assert_int_equal(f.db->spool_bytes, e.end - e.start.offset);
        assert_int_equal(lj_db_gate(f.db, false), LJ_GATE_ALLOW);
        end(&f);
    }
}

/* The shipper is still at an earlier index: all of this life has to be spooled. */
static void seal_behind(void **state)
{
    (void)state;
    fixture f;
    begin(&f, 3, 0);
    f.db->chain.index = 7;
    f.db->pos.index = 5;
    f.db->pos.offset = 999999;
    lj_db_seal(f.db, false);
    lj_spool_entry e = only_entry(&f);
    assert_int_equal(e.start.index, 7);
    assert_int_equal(e.start.offset, 0);
    end(&f);
}

static void seal_without_room(void **state)
{
    (void)state;
    fixture f;
    begin(&f, 6, 2);
    f.db->options.max_spool_size_bytes = 4 * (PAGE + 24) - 1;
    lj_db_seal(f.db, false);
    assert_false(f.db->chain.active);
    assert_true(f.db->broken);
    assert_non_null(strstr(f.db->broken_reason, "max_spool_size"));
    assert_int_equal(f.db->spool_bytes, 0);
    assert_int_equal(atomic_load(&kit_wakes), 1);
    assert_int_equal(lj_db_gate(f.db, false), LJ_GATE_ALLOW); /* nothing is protected any more */
    end(&f);
    begin(&f, 6, 2);
    f.db->options.max_spool_size_bytes = 4 * (PAGE + 24);
    lj_db_seal(f.db, false);
    assert_true(f.db->chain.active && f.db->chain.sealed);
    end(&f);
}

static void seal_that_cannot_write(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    fixture f;
    begin(&f, 6, 2);
    assert_ok(lj_io_replace_file(f.dir.spool_dir, "x", 1, 0600, false, &err), &err);
    lj_db_seal(f.db, true);
    assert_true(f.db->broken && !f.db->chain.active);
    lj_session stored;
    assert_true(lj_shared_load(f.db->shared, &stored));
    assert_false(stored.chain.active); /* also after a kill: no continuation */
    end(&f);
}

static void next_life_continues_a_sealed_one(void **state)
{
    (void)state;
    fixture f;
    begin(&f, 6, 2);
    lj_db_seal(f.db, false);
    uint64_t end_of_first = kit_wal_end(&f.wal);
    kit_wal_begin(&f.wal, f.dir.wal_path, PAGE, 2);
    kit_wal_commits(&f.wal, 1, 3, 9);
    kit_wal_publish(&f.wal, f.db, 3);
    assert_true(f.db->chain.active && !f.db->broken);
    assert_int_equal(f.db->chain.index, 1);
    assert_int_equal(f.db->chain.prev_end, end_of_first);
    assert_true(lj_wal_salt_eq(f.db->chain.salt, kit_salt(2)));
    assert_false(f.db->chain.sealed);
    assert_int_equal(f.db->safe_frames, 0);
    assert_int_equal(lj_db_gate(f.db, false), LJ_GATE_VETO);
    end(&f);
}

static void restart_without_a_seal_breaks(void **state)
{
    (void)state;
    fixture f;
    begin(&f, 4, 4); /* all shipped, but nobody asked: frames may have been written behind them */
    kit_wal_begin(&f.wal, f.dir.wal_path, PAGE, 2);
    kit_wal_commits(&f.wal, 1, 3, 9);
    kit_wal_publish(&f.wal, f.db, 3);
    assert_true(f.db->broken && !f.db->chain.active);
    assert_int_equal(atomic_load(&kit_wakes), 1);
    end(&f);
}

/* A RESTART checkpoint sealed, but a reader was in the way and the writer appended: the seal is undone. */
static void appending_behind_a_seal(void **state)
{
    (void)state;
    fixture f;
    begin(&f, 4, 4);
    lj_db_seal(f.db, false);
    kit_wal_commits(&f.wal, 2, 3, 20);
    kit_wal_publish(&f.wal, f.db, 3);
    assert_false(f.db->chain.sealed);
    assert_int_equal(lj_db_gate(f.db, false), LJ_GATE_VETO);
    lj_db_seal(f.db, false);
    lj_spool_entry e = only_entry(&f);
    assert_int_equal(e.start.offset, lj_wal_frame_offset(PAGE, 5));
    assert_int_equal(f.db->chain.sealed_frames, 6);
    end(&f);
}

static void unused_life_hands_its_index_on(void **state)
{
    (void)state;
    fixture f;
    begin(&f, 4, 4);
    f.db->chain.unused = true; /* all four are in the first snapshot */
    f.db->chain.base_frames = 4;
    lj_db_seal(f.db, false);
    kit_wal_begin(&f.wal, f.dir.wal_path, PAGE, 2);
    kit_wal_commits(&f.wal, 1, 3, 9);
    kit_wal_publish(&f.wal, f.db, 3);
    assert_int_equal(f.db->chain.index, 0);
    assert_false(f.db->chain.unused);
    assert_int_equal(f.db->chain.base_frames, 0);
    end(&f);
}

static void emptied_only_behind_a_seal(void **state)
{
    (void)state;
    fixture f;
    lj_identity now;
    begin(&f, 4, 4);
    lj_db_wal_emptied(f.db);
    assert_false(f.db->chain.emptied);
    lj_db_seal(f.db, true);
    lj_db_wal_emptied(f.db);
    assert_true(f.db->chain.emptied);
    assert_true(lj_identity_of(f.dir.db_path, &now));
    assert_true(lj_identity_eq(&f.db->chain.identity, &now));
    end(&f);
}

/* The generation was given up: nothing is protected, and nothing may be left behind. */
static void seal_of_a_generation_given_up(void **state)
{
    (void)state;
    fixture f;
    begin(&f, 4, 2);
    f.db->chain.active = true;
    lj_db_break(f.db, "test");
    lj_db_seal(f.db, false);
    assert_int_equal(f.db->spool_bytes, 0);
    assert_false(kit_exists(f.dir.spool_dir));
    end(&f);
}

static void break_while_freezing(void **state)
{
    (void)state;
    fixture f;
    begin(&f, 4, 4);
    f.db->chain.active = false;
    f.db->freezing = true;
    lj_db_break(f.db, "the database was written outside of WAL mode");
    assert_true(f.db->disturbed);
    f.db->disturbed = false;
    lj_db_seal(f.db, false);
    assert_true(f.db->disturbed);
    end(&f);
}

/* ------------------------------------------------------------------ several connections */

typedef struct {
    fixture f;
    atomic_uint_fast64_t index; /* plays the wal-index */
    atomic_bool stop;
    atomic_bool went_back;
} connections;

static bool look(void *ctx, lj_wal_end *ret_end)
{
    connections *c = ctx;
    *ret_end = (lj_wal_end){
        .salt = kit_salt(1), .frames = atomic_load(&c->index), .page_size = PAGE, .db_pages = 3};
    return true;
}

static void *writer(void *arg)
{
    connections *c = arg;
    for (int i = 0; i < 20000; i++) {
        atomic_fetch_add(&c->index, 1);
        (void)lj_db_publish_seen(c->f.db, look, c, NULL);
    }
    atomic_store(&c->stop, true);
    return NULL;
}

static void *reader(void *arg)
{
    connections *c = arg;
    uint64_t last = 0;
    while (!atomic_load(&c->stop)) {
        (void)lj_db_publish_seen(c->f.db, look, c, NULL);
        pthread_mutex_lock(&c->f.db->mutex);
        uint64_t now = c->f.db->life.frames;
        pthread_mutex_unlock(&c->f.db->mutex);
        if (now < last)
            atomic_store(&c->went_back, true);
        last = now;
    }
    return NULL;
}

static void an_older_look_takes_nothing_back(void **state)
{
    (void)state;
    connections c = {.index = 1};
    begin(&c.f, 1, 0);
    pthread_t threads[4];
    assert_int_equal(pthread_create(&threads[0], NULL, writer, &c), 0);
    for (int i = 1; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, reader, &c), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    assert_false(atomic_load(&c.went_back));
    assert_int_equal(c.f.db->life.frames, 20001);
    end(&c.f);
}

/* Of a WAL that does not verify a generation is a snapshot alone. What is written beside the WAL is not in it. */
static void break_of_a_snapshot_alone(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    fixture f;
    begin(&f, 3, 3);
    f.db->chain.active = false;
    f.db->snapshots_only = true;
    assert_ok(lj_db_wait(f.db, 0, false, &err), &err);
    atomic_store(&kit_wakes, 0);
    lj_db_break(f.db, "the database was written outside of WAL mode");
    assert_true(f.db->broken && !f.db->established);
    assert_int_equal(atomic_load(&kit_wakes), 1);
    lj_db_break(f.db, "again");
    assert_string_equal(f.db->broken_reason, "the database was written outside of WAL mode");
    assert_int_equal(atomic_load(&kit_wakes), 1);
    assert_int_equal(lj_db_wait(f.db, 0, false, &err), LJ_TIMEOUT);
    end(&f);
}

static bool look_at_end(void *ctx, lj_wal_end *ret_end)
{
    *ret_end = *(const lj_wal_end *)ctx;
    return true;
}

/*
 * The WAL is empty, and the life that the chain has was not sealed: another program emptied it. Who looks without a lock may see
 * one of ours in the middle of a restart.
 */
static void emptied_by_another_program(void **state)
{
    (void)state;
    for (int sealed = 0; sealed < 2; sealed++) {
        fixture f;
        begin(&f, 4, 4);
        lj_wal_end end_of_wal = {.salt = kit_salt(2), .page_size = PAGE};
        if (sealed)
            lj_db_seal(f.db, false);
        assert_true(lj_db_publish_seen(f.db, look_at_end, &end_of_wal, NULL));
        assert_true(f.db->chain.active);
        atomic_store(&kit_wakes, 0);
        assert_true(lj_db_publish_settled(f.db, look_at_end, &end_of_wal, NULL));
        assert_int_equal(f.db->chain.active, sealed);
        assert_int_equal(f.db->broken, !sealed);
        assert_int_equal(atomic_load(&kit_wakes), sealed ? 0 : 1);
        if (!sealed)
            assert_non_null(strstr(f.db->last_break, "emptied the WAL"));
        end(&f);
    }
}

/* The WAL was linked to be deleted, and stayed: what was spooled is not what is written over it. */
static void a_wal_that_was_not_deleted(void **state)
{
    (void)state;
    for (int killed = 0; killed < 2; killed++) {
        fixture f;
        lj_error err = LJ_ERROR_INIT;
        begin(&f, 6, 2);
        lj_wal_salt salt = f.wal.header.salt;
        lj_db_seal(f.db, true);
        if (!killed)
            lj_db_wal_stays(f.db);
        else
            lj_db_seal(f.db, false); /* by whoever comes next */
        kit_wal_begin(&f.wal, f.dir.wal_path, PAGE, 2);
        kit_wal_commits(&f.wal, 6, 3, 9);
        lj_spool_entry e = only_entry(&f);
        LJ_CLEANUP(lj_closep) int fd = -1;
        assert_ok(lj_spool_open(f.dir.spool_dir, &e, &fd, &err), &err);
        lj_wal_frame frame;
        assert_ok(lj_walfile_frame(fd, PAGE, 6, &frame, &err), &err);
        assert_true(lj_wal_salt_eq(frame.salt, salt));
        assert_true(f.db->chain.active);
        end(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(emptied_by_another_program),
        cmocka_unit_test(a_wal_that_was_not_deleted),
        cmocka_unit_test(decision_table),
        cmocka_unit_test(seal_of_what_is_safe),
        cmocka_unit_test(seal_spools_the_rest),
        cmocka_unit_test(seal_behind),
        cmocka_unit_test(seal_without_room),
        cmocka_unit_test(seal_that_cannot_write),
        cmocka_unit_test(next_life_continues_a_sealed_one),
        cmocka_unit_test(restart_without_a_seal_breaks),
        cmocka_unit_test(appending_behind_a_seal),
        cmocka_unit_test(unused_life_hands_its_index_on),
        cmocka_unit_test(emptied_only_behind_a_seal),
        cmocka_unit_test(seal_of_a_generation_given_up),
        cmocka_unit_test(break_while_freezing),
        cmocka_unit_test(break_of_a_snapshot_alone),
        cmocka_unit_test(an_older_look_takes_nothing_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
