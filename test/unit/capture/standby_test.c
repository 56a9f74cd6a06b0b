/*
 * standby_test.c - a COMMIT of one process waits for the replica, and another process uploads: who is told what, and what becomes
 * of it when one of them is stopped or ends.
 */
#include "test/unit/capture/session_kit.h"

#include "vfs/base/clock.h"
#include "vfs/capture/session.h"

/* Writes a transaction of one frame and offers it from `b`. */
static uint64_t offer(fixture *f, lj_wal_end *ret_end)
{
    kit_wal_commits(&f->wal, 1, 3, 9);
    *ret_end = (lj_wal_end){f->wal.header.salt, f->wal.frames, PAGE, 3};
    return lj_db_pending_offer(f->b, ret_end);
}

/* What the shipping task of `db` is shown (ship_step). */
static uint64_t shown(lj_db *db, lj_chain *chain, lj_life *life)
{
    lj_error err = LJ_ERROR_INIT;
    uint64_t number = 0;
    lj_db_look_around(db);
    *chain = db->chain;
    *life = db->life;
    life->known = life->known && chain->has_life && lj_wal_salt_eq(life->salt, chain->salt);
    life->number = db->session_life;
    assert_ok(lj_db_pending_view_locked(db, chain, life, &number, &err), &err);
    return number;
}

static void begin_sending(lj_db *db, uint64_t number)
{
    lj_chain chain;
    lj_life life;
    assert_int_equal(shown(db, &chain, &life), number);
    assert_true(lj_db_pending_begin(db, number));
}

static lj_pending_state state_of(lj_db *db)
{
    lj_db_enter(db);
    lj_pending_state state = db->pending.state;
    lj_db_leave(db);
    return state;
}

static void a_commit_of_the_standby_is_acknowledged(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    fixture f;
    lj_wal_end at;
    lj_chain chain;
    lj_life life;
    begin(&f, 5, 3);
    uint64_t n = offer(&f, &at);
    assert_int_equal(shown(f.a, &chain, &life), n);
    assert_int_equal(life.frames, 6);
    begin_sending(f.a, n);
    assert_true(lj_db_pending_end(f.a, n, true, false));
    lj_position next = f.a->pos;
    next.offset = kit_wal_end(&f.wal);
    lj_db_shipped(f.a, &next, life.number, 6);
    lj_db_pending_ack(f.a, n);
    assert_ok(lj_db_pending_wait(f.b, n, 3600 * LJ_NS_PER_S, false, &err), &err);
    assert_false(lj_db_pending_is_over(f.b, n));
    assert_int_equal(lj_db_gate(f.b, false),
                     LJ_GATE_ALLOW); /* not published: 5 frames are to be safe */
    kit_wal_publish(&f.wal, f.b, 3);
    assert_true(lj_db_pending_is_over(f.b, n));
    assert_int_equal(state_of(f.a), LJ_PENDING_NONE);
    assert_int_equal(f.a->safe_frames, 6);
    /* one that is refused for good, with the uploader's words */
    lj_error denied = LJ_ERROR_INIT;
    lj_error_set(&denied, LJ_DENIED, "no right");
    n = offer(&f, &at);
    lj_db_look_around(f.a);
    lj_db_attempt(f.a, &denied); /* it began before */
    assert_int_equal(lj_db_pending_wait(f.b, n, LJ_NS_PER_MS, false, &err), LJ_TIMEOUT);
    n = lj_db_pending_offer(f.b, &at);
    lj_db_look_around(f.a);
    f.a->runs++;
    lj_db_attempt(f.a, &denied);
    assert_int_equal(lj_db_pending_wait(f.b, n, 3600 * LJ_NS_PER_S, false, &err), LJ_UNAVAILABLE);
    assert_non_null(strstr(err.message, "no right"));
    assert_int_equal(f.b->pending_failed, 2);
    assert_int_equal(f.a->pending_failed, 0);
    end(&f);
}

typedef struct {
    lj_db *db;
    uint64_t number;
    bool stored, good;
} sending;

/* The uploader's request hangs until its bell's thread has seen that it is given up. */
static void *hang(void *ctx)
{
    sending *s = ctx;
    while (!__atomic_load_n(&s->db->pending_cancel, __ATOMIC_RELAXED))
        lj_db_look_around(s->db);
    s->good = lj_db_pending_end(s->db, s->number, s->stored, !s->stored);
    return NULL;
}

static void the_standby_withdraws(void **state)
{
    (void)state;
    for (int stored = 0; stored < 2; stored++) {
        lj_error err = LJ_ERROR_INIT;
        fixture f;
        lj_wal_end at;
        begin(&f, 5, 3);
        sending s = {.db = f.a, .stored = stored != 0, .number = offer(&f, &at)};
        begin_sending(f.a, s.number);
        pthread_t thread;
        assert_int_equal(pthread_create(&thread, NULL, hang, &s), 0);
        lj_code code = lj_db_pending_wait(f.b, s.number, LJ_NS_PER_MS, false, &err);
        pthread_join(thread, NULL);
        assert_int_equal(code, stored != 0 ? LJ_OK : LJ_TIMEOUT);
        assert_true(s.good);
        assert_int_equal(lj_db_pending_take_revoked(f.a), stored == 0);
        end(&f);
    }
}

/* The uploader is stopped with a request on its way, or before it: what it does when it goes on changes nothing any more. */
static void a_stopped_uploader_is_too_late(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    fixture f;
    lj_wal_end at;
    begin(&f, 5, 3);
    uint64_t n = offer(&f, &at);
    begin_sending(f.a, n);
    assert_int_equal(lj_db_pending_wait(f.b, n, 0, false, &err), LJ_TIMEOUT);
    assert_false(lj_db_pending_take_revoked(f.a)); /* still on its way */
    assert_false(lj_db_pending_end(f.a, n, true, false));
    assert_true(lj_db_pending_take_revoked(f.a));
    n = lj_db_pending_offer(f.b, &at);
    lj_db_look_around(f.a);
    assert_int_equal(lj_db_pending_wait(f.b, n, 0, false, &err), LJ_TIMEOUT);
    assert_false(lj_db_pending_begin(f.a, n));
    assert_true(f.a->chain.active && !f.a->broken);
    end(&f);
}

static bool look_of(void *ctx)
{
    fixture *f = ctx;
    lj_db_publish(f->a, f->wal.header.salt, 5, PAGE, 3);
    return true;
}

/* The standby is killed: the uploader notices, or the next writer does. What was stored by then breaks the chain. */
static void the_standby_dies_while_it_waits(void **state)
{
    (void)state;
    for (int i = 0; i < 6; i++) {
        fixture f;
        lj_wal_end at;
        begin(&f, 5, 3);
        uint64_t n = offer(&f, &at);
        bool sent = i % 3 > 0;
        bool stored = i % 3 == 2;
        if (sent) {
            begin_sending(f.a, n);
            assert_true(lj_db_pending_end(f.a, n, stored, true));
        }
        lj_db_look_around(f.a);
        assert_int_equal(state_of(f.a), stored ? LJ_PENDING_STORED : LJ_PENDING_OFFERED);
        lj_db_quiet(f.b);
        lj_db_free(f.b);
        if (i < 3)
            lj_db_look_around(f.a);
        else
            lj_db_pending_next_writer(f.a, look_of, &f);
        assert_int_equal(state_of(f.a), LJ_PENDING_NONE);
        assert_int_equal(f.a->broken, stored);
        assert_int_equal(lj_db_pending_take_revoked(f.a), sent && !stored);
        f.b = process(&f, NULL);
        end(&f);
    }
}

/* As a worker does, in which SIGPIPE is blocked: it comes after the bell's thread has heard of the end. */
static void wait_until_gone(lj_db *db)
{
    int64_t deadline_ns = lj_clock_mono_ns() + 30 * LJ_NS_PER_S;
    bool gone = false;
    while (!gone) {
        assert_true(lj_clock_mono_ns() < deadline_ns);
        lj_clock_sleep_ns(LJ_NS_PER_MS);
        pthread_mutex_lock(&db->mutex);
        gone = db->bell_gone;
        pthread_mutex_unlock(&db->mutex);
    }
}

/* The uploader is killed: who waits takes over and goes on; but what nobody can recognise any more is not withdrawn silently. */
static void the_uploader_dies_while_the_standby_waits(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        lj_error err = LJ_ERROR_INIT;
        fixture f;
        lj_wal_end at;
        begin(&f, 5, 3);
        assert_int_equal(lj_db_standby(f.b), LJ_DB_ASLEEP);
        uint64_t n = offer(&f, &at);
        if (i > 0)
            begin_sending(f.a, n);
        lj_db_quiet(f.a);
        lj_db_free(f.a);
        f.a = NULL;
        wait_until_gone(f.b);
        assert_int_equal(lj_db_standby(f.b), LJ_DB_LEADS);
        assert_false(f.b->pending.sending);
        if (i == 1) {
            begin_sending(f.b, n);
            assert_true(lj_db_pending_end(f.b, n, true, false));
            lj_db_pending_ack(f.b, n);
        }
        assert_int_equal(lj_db_pending_wait(f.b, n, 0, false, &err), i == 1 ? LJ_OK : LJ_TIMEOUT);
        assert_int_equal(f.b->broken, i == 2);
        assert_int_equal(f.b->chain.active, i != 2);
        end(&f);
    }
}

/* ... between the store's answer and the position file: the COMMIT does not wait for its time to be up. */
static void the_uploader_dies_behind_the_stores_answer(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    fixture f;
    lj_wal_end at;
    begin(&f, 5, 3);
    assert_int_equal(lj_db_standby(f.b), LJ_DB_ASLEEP);
    uint64_t n = offer(&f, &at);
    begin_sending(f.a, n);
    assert_true(lj_db_pending_end(f.a, n, true, false));
    lj_db_quiet(f.a);
    lj_db_free(f.a);
    f.a = NULL;
    wait_until_gone(f.b);
    assert_int_equal(lj_db_standby(f.b), LJ_DB_LEADS);
    assert_int_equal(state_of(f.b), LJ_PENDING_ACKED);
    assert_ok(lj_db_pending_wait(f.b, n, 3600 * LJ_NS_PER_S, false, &err), &err);
    kit_wal_publish(&f.wal, f.b, 3);
    assert_true(lj_db_pending_is_over(f.b, n));
    assert_true(f.b->chain.active && !f.b->broken);
    end(&f);
}

/* It restarts the WAL behind commits that the uploader has not seen, and the new life's first transaction waits, or its second. */
static void a_life_of_the_standby_that_nobody_has_seen(void **state)
{
    (void)state;
    for (int second = 0; second < 2; second++) {
        fixture f;
        lj_wal_end at;
        lj_chain chain;
        lj_life life;
        begin(&f, 5, 3);
        kit_wal_commits(&f.wal, 2, 3, 9);
        kit_wal_publish(&f.wal, f.b, 3);
        lj_db_seal(f.b, false);
        uint64_t end_of_first = kit_wal_end(&f.wal);
        kit_wal_begin(&f.wal, f.dir.wal_path, PAGE, 2);
        if (second) {
            kit_wal_commits(&f.wal, 1, 3, 9);
            kit_wal_publish(&f.wal, f.b, 3);
        }
        uint64_t n = offer(&f, &at);
        assert_int_equal(shown(f.a, &chain, &life), n);
        assert_int_equal(chain.index, 1);
        assert_int_equal(chain.prev_end, end_of_first);
        assert_int_equal(life.number, f.b->life.number + (second ? 0 : 1));
        assert_int_equal(life.frames, second ? 2 : 1);
        lj_db_pending_undo(f.b, n);
        end(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_commit_of_the_standby_is_acknowledged),
        cmocka_unit_test(the_standby_withdraws),
        cmocka_unit_test(a_stopped_uploader_is_too_late),
        cmocka_unit_test(the_standby_dies_while_it_waits),
        cmocka_unit_test(the_uploader_dies_while_the_standby_waits),
        cmocka_unit_test(the_uploader_dies_behind_the_stores_answer),
        cmocka_unit_test(a_life_of_the_standby_that_nobody_has_seen),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
