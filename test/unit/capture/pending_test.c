/* pending_test.c - a transaction that waits: what the shipper is shown of it, and who decides what becomes of it. */
#include "test/unit/capture/kit.h"

#include <pthread.h>

#include "vfs/base/cancel.h"

#define PAGE 4096u
#define GEN  "00000000000000aa"

typedef struct {
    kit_dir dir;
    lj_db *db;
    kit_wal wal;
} fixture;

/* `frames` are committed and shipped. */
static void begin(fixture *f, unsigned frames)
{
    kit_dir_make(&f->dir);
    kit_db_file(f->dir.db_path, PAGE, 3, 0);
    f->db = kit_db(&f->dir, NULL);
    lj_db *db = f->db;
    db->chain.active = true;
    snprintf(db->chain.generation, sizeof(db->chain.generation), "%s", GEN);
    snprintf(db->pos.generation, sizeof(db->pos.generation), "%s", GEN);
    db->established = true;
    db->attached = true;
    db->state = LJ_DB_REPLICATING;
    kit_wal_begin(&f->wal, f->dir.wal_path, PAGE, 1);
    kit_wal_commits(&f->wal, frames, 3, 1);
    kit_wal_publish(&f->wal, db, 3);
    lj_position next = db->pos;
    next.offset = kit_wal_end(&f->wal);
    lj_db_shipped(db, &next, db->life.number, frames);
}

static void end(fixture *f)
{
    lj_db_free(f->db);
    kit_dir_remove(&f->dir);
}

static lj_wal_end behind(const fixture *f, uint64_t more)
{
    return (lj_wal_end){.salt = f->wal.header.salt,
                        .frames = f->wal.frames + more,
                        .page_size = PAGE,
                        .db_pages = 3};
}

static uint64_t view(fixture *f, lj_chain *chain, lj_life *life)
{
    lj_error err = LJ_ERROR_INIT;
    uint64_t number = 0;
    *chain = f->db->chain;
    *life = f->db->life;
    assert_ok(lj_db_pending_view_locked(f->db, chain, life, &number, &err), &err);
    return number;
}

static void acknowledged_and_published(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    fixture f;
    begin(&f, 2);
    lj_chain chain;
    lj_life life;
    assert_int_equal(view(&f, &chain, &life), 0);
    lj_wal_end at = behind(&f, 3);
    uint64_t n = lj_db_pending_offer(f.db, &at);
    assert_int_equal(view(&f, &chain, &life), n);
    assert_int_equal(life.frames, 5);
    assert_int_equal(f.db->life.frames, 2); /* not published */
    assert_true(lj_db_pending_begin(f.db, n));
    assert_true(lj_db_pending_end(f.db, n, true, false));
    lj_position next = f.db->pos;
    next.offset = lj_wal_frame_offset(PAGE, 6);
    lj_db_shipped(f.db, &next, life.number, 5);
    lj_db_pending_ack(f.db, n);
    assert_ok(lj_db_pending_wait(f.db, n, 0, false, &err), &err);
    assert_false(lj_db_pending_is_over(f.db, n));
    lj_db_publish(f.db, at.salt, at.frames, PAGE, 3);
    assert_true(lj_db_pending_is_over(f.db, n));
    assert_int_equal(f.db->safe_frames, 5);
    assert_int_equal(lj_ring_oldest_ns(&f.db->ring), 0); /* nothing waits to be shipped */
    assert_int_equal(f.db->pending_failed, 0);
    end(&f);
}

/* The first transaction of a new life is shown as it will be: the next index. */
static void of_a_new_life(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    fixture f;
    begin(&f, 2);
    lj_chain chain;
    lj_life life;
    lj_wal_end at = {.salt = kit_salt(2), .frames = 1, .page_size = PAGE, .db_pages = 3};
    uint64_t n = lj_db_pending_offer(f.db, &at);
    uint64_t number = 0;
    chain = f.db->chain;
    life = f.db->life;
    /* not sealed: somebody else began the WAL anew */
    f.db->chain.has_life = chain.has_life = true;
    assert_int_equal(lj_db_pending_view_locked(f.db, &chain, &life, &number, &err), LJ_CONFLICT);
    lj_db_seal(f.db, false);
    assert_int_equal(view(&f, &chain, &life), n);
    assert_int_equal(chain.index, f.db->chain.index + 1);
    assert_int_equal(chain.prev_end, lj_wal_frame_offset(PAGE, 3));
    assert_int_equal(life.number, f.db->life.number + 1);
    assert_int_equal(life.frames, 1);
    assert_true(lj_db_pending_begin(f.db, n));
    assert_true(lj_db_pending_end(f.db, n, true, false));
    lj_position next = {
        .generation = GEN, .index = chain.index, .offset = lj_wal_frame_offset(PAGE, 2)};
    lj_db_shipped(f.db, &next, life.number, 1);
    lj_db_publish(f.db, at.salt, at.frames, PAGE, 3);
    assert_int_equal(f.db->chain.index, chain.index);
    assert_int_equal(f.db->safe_frames, 1); /* known before the life began here */
    end(&f);
}

static void withdrawn(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    fixture f;
    begin(&f, 2);
    lj_chain chain;
    lj_life life;
    lj_wal_end at = behind(&f, 1);
    uint64_t n = lj_db_pending_offer(f.db, &at);
    assert_int_equal(lj_db_pending_wait(f.db, n, LJ_NS_PER_MS, false, &err), LJ_TIMEOUT);
    assert_int_equal(view(&f, &chain, &life), 0);
    assert_false(lj_db_pending_begin(f.db, n));
    assert_false(lj_db_pending_take_revoked(f.db)); /* nothing was sent */
    assert_int_equal(f.db->pending_failed, 1);
    /* one without an answer */
    n = lj_db_pending_offer(f.db, &at);
    assert_true(lj_db_pending_begin(f.db, n));
    assert_true(lj_db_pending_end(f.db, n, false, true));
    /* and then one that was refused: the first may be there all the same */
    assert_true(lj_db_pending_begin(f.db, n));
    assert_true(lj_db_pending_end(f.db, n, false, false));
    assert_int_equal(lj_db_pending_wait(f.db, n, LJ_NS_PER_MS, false, &err), LJ_TIMEOUT);
    uint64_t next = lj_db_pending_offer(f.db, &at);
    assert_false(lj_db_pending_begin(f.db, next)); /* before that was taken note of */
    assert_true(lj_db_pending_take_revoked(f.db));
    assert_false(lj_db_pending_take_revoked(f.db));
    assert_true(lj_db_pending_begin(f.db, next));
    end(&f);
}

typedef struct {
    fixture f;
    uint64_t number;
    bool stored;
    bool good;
} attempt;

/* As the shipping task: an attempt that hangs until it is cancelled. */
static void *hang(void *ctx)
{
    attempt *a = ctx;
    while (!lj_flag_is_set(&a->f.db->pending_cancel))
        sched_yield();
    a->good = lj_db_pending_end(a->f.db, a->number, a->stored, !a->stored);
    return NULL;
}

/* The time is up while it is on its way: cancelled, and its end decides. */
static void cancelled_on_its_way(void **state)
{
    (void)state;
    for (int stored = 0; stored < 2; stored++) {
        lj_error err = LJ_ERROR_INIT;
        attempt a = {.stored = stored != 0};
        begin(&a.f, 2);
        lj_wal_end at = behind(&a.f, 1);
        (void)lj_db_pending_cancel(a.f.db);
        a.number = lj_db_pending_offer(a.f.db, &at);
        assert_true(lj_db_pending_begin(a.f.db, a.number));
        pthread_t thread;
        assert_int_equal(pthread_create(&thread, NULL, hang, &a), 0);
        lj_code code = lj_db_pending_wait(a.f.db, a.number, LJ_NS_PER_MS, false, &err);
        pthread_join(thread, NULL);
        assert_int_equal(code, stored != 0 ? LJ_OK : LJ_TIMEOUT);
        assert_true(a.good); /* it ended before the decision */
        assert_int_equal(lj_db_pending_take_revoked(a.f.db), stored == 0);
        end(&a.f);
    }
}

/* It did not end in time, and then it succeeds: too late. */
static void stored_too_late(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    fixture f;
    begin(&f, 2);
    lj_wal_end at = behind(&f, 1);
    uint64_t n = lj_db_pending_offer(f.db, &at);
    assert_true(lj_db_pending_begin(f.db, n));
    assert_int_equal(lj_db_pending_wait(f.db, n, 0, false, &err), LJ_TIMEOUT);
    assert_false(lj_db_pending_take_revoked(f.db)); /* still on its way */
    assert_false(lj_db_pending_end(f.db, n, true, false));
    assert_true(lj_db_pending_take_revoked(f.db));
    end(&f);
}

static void undone(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    fixture f;
    begin(&f, 2);
    lj_wal_end at = behind(&f, 1);
    uint64_t n = lj_db_pending_offer(f.db, &at);
    assert_true(lj_db_pending_begin(f.db, n));
    assert_true(lj_db_pending_end(f.db, n, true, false));
    lj_db_pending_ack(f.db, n);
    assert_ok(lj_db_pending_wait(f.db, n, 0, false, &err), &err);
    lj_db_pending_undo(f.db, n);
    assert_true(f.db->broken);
    assert_non_null(strstr(f.db->broken_reason, "the replica is ahead"));
    assert_true(lj_db_pending_is_over(f.db, n));
    end(&f);
}

static void who_cannot_ship_says_so(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    fixture f;
    begin(&f, 2);
    lj_wal_end at = behind(&f, 1);
    f.db->state = LJ_DB_STOPPED;
    snprintf(f.db->reason, sizeof(f.db->reason), "another process replicates it to elsewhere");
    uint64_t n = lj_db_pending_offer(f.db, &at);
    assert_int_equal(lj_db_pending_wait(f.db, n, 3600 * LJ_NS_PER_S, false, &err), LJ_UNSUPPORTED);
    assert_non_null(strstr(err.message, "another process replicates"));
    f.db->state = LJ_DB_STARTING;
    f.db->established = false;
    n = lj_db_pending_offer(f.db, &at);
    assert_int_equal(lj_db_pending_wait(f.db, n, LJ_NS_PER_MS, false, &err), LJ_TIMEOUT);
    assert_non_null(strstr(err.message, "first snapshot"));
    end(&f);
}

static void failures_before_it_do_not_count(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    lj_error denied = LJ_ERROR_INIT;
    lj_error_set(&denied, LJ_DENIED, "no right");
    fixture f;
    begin(&f, 2);
    lj_wal_end at = behind(&f, 1);
    f.db->runs = 7;
    uint64_t n = lj_db_pending_offer(f.db, &at);
    lj_db_attempt(f.db, &denied); /* of run 7 */
    assert_int_equal(lj_db_pending_wait(f.db, n, LJ_NS_PER_MS, false, &err), LJ_TIMEOUT);
    n = lj_db_pending_offer(f.db, &at);
    f.db->runs = 8;
    lj_db_attempt(f.db, &denied);
    assert_int_equal(lj_db_pending_wait(f.db, n, 3600 * LJ_NS_PER_S, false, &err), LJ_UNAVAILABLE);
    assert_non_null(strstr(err.message, "no right"));
    end(&f);
}

static void degrading(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    fixture f;
    begin(&f, 2);
    lj_wal_end at = behind(&f, 1);
    uint64_t n = lj_db_pending_offer(f.db, &at);
    assert_int_equal(lj_db_pending_wait(f.db, n, LJ_NS_PER_MS, true, &err), LJ_TIMEOUT);
    assert_true(lj_db_degraded(f.db));
    lj_db_status status;
    lj_db_get_status(f.db, &status);
    assert_string_equal(status.text, "degraded");
    lj_db_caught_up(f.db); /* it is not even published */
    assert_true(lj_db_degraded(f.db));
    lj_db_publish(f.db, at.salt, at.frames, PAGE, 3);
    assert_true(lj_db_pending_is_over(f.db, n));
    lj_db_caught_up(f.db);
    assert_false(lj_db_degraded(f.db));
    end(&f);
}

/* Left, and then the store took it before it was published: published, or not after all. */
static void stored_when_nobody_waits_any_more(void **state)
{
    (void)state;
    for (int published = 0; published < 2; published++) {
        lj_error err = LJ_ERROR_INIT;
        fixture f;
        begin(&f, 2);
        lj_wal_end at = behind(&f, 1);
        uint64_t n = lj_db_pending_offer(f.db, &at);
        assert_true(lj_db_pending_begin(f.db, n));
        assert_int_equal(lj_db_pending_wait(f.db, n, 0, true, &err), LJ_TIMEOUT);
        assert_true(lj_db_pending_end(f.db, n, true, false)); /* the position goes behind it */
        lj_db_pending_ack(f.db, n);
        lj_db_caught_up(f.db);
        assert_true(lj_db_degraded(f.db));
        assert_false(lj_db_pending_is_over(f.db, n));
        int wakes = atomic_load(&kit_wakes);
        if (published) {
            lj_db_publish(f.db, at.salt, at.frames, PAGE, 3);
            assert_true(atomic_load(&kit_wakes) > wakes); /* somebody says that it has caught up */
        } else {
            lj_db_pending_undo(f.db, n);
        }
        assert_true(lj_db_pending_is_over(f.db, n));
        assert_int_equal(f.db->broken, !published);
        lj_db_caught_up(f.db);
        assert_false(lj_db_degraded(f.db));
        end(&f);
    }
}

/* durability=ack: the shipping task may have gone to sleep a moment before. */
static void degrading_behind_the_lock(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    lj_error_set(&err, LJ_TIMEOUT, "the replica does not have every commit yet");
    fixture f;
    begin(&f, 2);
    int wakes = atomic_load(&kit_wakes);
    lj_db_wait_failed(f.db, true, &err);
    assert_true(lj_db_degraded(f.db));
    assert_true(atomic_load(&kit_wakes) > wakes);
    lj_db_caught_up(f.db);
    assert_false(lj_db_degraded(f.db));
    end(&f);
}

static void positions(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    fixture f;
    begin(&f, 2);
    lj_position at = f.db->pos;
    char text[LJ_POSITION_TEXT_MAX];
    lj_position parsed;
    lj_position_format(&at, text);
    assert_true(lj_position_parse(text, &parsed));
    assert_int_equal(lj_position_compare(&at, &parsed), 0);
    assert_string_equal(parsed.generation, GEN);
    static const char *const bad[] = {"",
                                      "-",
                                      GEN,
                                      GEN "/00000001",
                                      GEN "/00000001:",
                                      GEN "/1:2",
                                      GEN "/00000001:2x",
                                      "x" GEN "/00000001:2",
                                      GEN "/ffffffff:2"};
    for (size_t i = 0; i < LJ_ARRAY_LEN(bad); i++)
        assert_false(lj_position_parse(bad[i], &parsed));
    assert_ok(lj_db_wait_position(f.db, &at, 0, &err), &err);
    at.offset++;
    assert_int_equal(lj_db_wait_position(f.db, &at, LJ_NS_PER_MS, &err), LJ_TIMEOUT);
    /* an index that begins with what the replica has of this life: what the status calls the local position is reached */
    f.db->chain.index++;
    f.db->chain.base_frames = 2;
    f.db->chain.unused = true;
    f.db->pos.index++;
    f.db->pos.offset = 0;
    at =
        (lj_position){.generation = GEN, .index = f.db->chain.index, .offset = kit_wal_end(&f.wal)};
    assert_ok(lj_db_wait_position(f.db, &at, 0, &err), &err);
    at.offset++;
    assert_int_equal(lj_db_wait_position(f.db, &at, LJ_NS_PER_MS, &err), LJ_TIMEOUT);
    snprintf(at.generation, sizeof(at.generation), "00000000000000bb");
    assert_int_equal(lj_db_wait_position(f.db, &at, 3600 * LJ_NS_PER_S, &err), LJ_CONFLICT);
    end(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(acknowledged_and_published),
        cmocka_unit_test(of_a_new_life),
        cmocka_unit_test(withdrawn),
        cmocka_unit_test(cancelled_on_its_way),
        cmocka_unit_test(stored_too_late),
        cmocka_unit_test(undone),
        cmocka_unit_test(who_cannot_ship_says_so),
        cmocka_unit_test(failures_before_it_do_not_count),
        cmocka_unit_test(degrading),
        cmocka_unit_test(stored_when_nobody_waits_any_more),
        cmocka_unit_test(degrading_behind_the_lock),
        cmocka_unit_test(positions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
