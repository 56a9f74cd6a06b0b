/* takeback_test.c - objects of transactions whose COMMIT failed: what is sent, repeated, deleted, and when a generation is given up. */
#include "test/unit/ship/ship_kit.h"

#include <fcntl.h>
#include <unistd.h>

#define KEY(offset_hex) "generations/" KIT_GEN "/wal/00000004_" offset_hex ".wal.lz4"
#define AT_TWO          KEY("00000850") /* behind two frames */

typedef struct {
    ship_kit kit;
    int fd;
    uint64_t number;
} fixture;

static uint64_t off(uint64_t frames)
{
    return lj_wal_frame_offset(KIT_PAGE, frames + 1);
}

/* An attempt to send the third frame: requests that have `fail_on` in their line fail, a put all the same does its work if `stored`. */
static void attempt(fixture *f, const char *fail_on, bool stored)
{
    lj_error err = LJ_ERROR_INIT;
    lj_shipper *s = f->kit.s;
    f->kit.put_then_fail = stored;
    ship_kit_fail_on(&f->kit, fail_on);
    s->pending = f->number;
    assert_int_equal(lj_upload_segment(s, f->fd, &f->kit.wal.header, off(3), 0, &err),
                     f->kit.fail_code != LJ_OK ? f->kit.fail_code : LJ_UNAVAILABLE);
    s->pending = 0;
    ship_kit_fail_on(&f->kit, "");
    f->kit.put_then_fail = false;
    assert_int_equal(s->saved.at.offset, off(2));
}

static void withdraw(fixture *f)
{
    lj_error err = LJ_ERROR_INIT;
    assert_int_equal(lj_db_pending_wait(f->kit.db, f->number, 0, false, &err), LJ_TIMEOUT);
    (void)ship_kit_log(&f->kit);
}

/* Two frames are shipped, a third is in the WAL and pending. */
static void offer(fixture *f)
{
    lj_error err = LJ_ERROR_INIT;
    ship_kit_begin(&f->kit);
    ship_kit_replicating(&f->kit, 4);
    lj_shipper *s = f->kit.s;
    kit_wal_commits(&f->kit.wal, 2, 3, 1);
    kit_wal_publish(&f->kit.wal, f->kit.db, 3);
    f->fd = open(f->kit.dir.wal_path, O_RDONLY | O_CLOEXEC);
    assert_true(f->fd >= 0);
    assert_ok(lj_upload_segment(s, f->fd, &f->kit.wal.header, off(2), 0, &err), &err);
    kit_wal_commits(&f->kit.wal, 1, 3, 2);
    lj_wal_end at = {
        .salt = f->kit.wal.header.salt, .frames = 3, .page_size = KIT_PAGE, .db_pages = 3};
    f->number = lj_db_pending_offer(f->kit.db, &at);
}

/* The store takes it, or not, and does not answer; it is withdrawn. */
static void begin(fixture *f, bool stored)
{
    offer(f);
    attempt(f, "PUT", stored);
    assert_int_equal(ship_kit_has(&f->kit, AT_TWO), stored);
    withdraw(f);
}

static void end(fixture *f)
{
    close(f->fd);
    ship_kit_end(&f->kit);
}

/* The WAL's third frame is another transaction now; with db_pages 0 it does not end there. */
static void replace_third(fixture *f, uint32_t db_pages)
{
    lj_wal_frame frame;
    kit_wal again = f->kit.wal;
    uint8_t head[LJ_WAL_FRAME_HEADER_BYTES];
    assert_int_equal(pread(f->fd, head, sizeof(head), (off_t)off(1)), sizeof(head));
    lj_wal_frame_parse(head, &frame);
    again.frames = 2;
    again.sum = frame.cksum;
    kit_wal_frame(&again, 1, db_pages, 9);
    f->kit.wal = again;
}

/* As lj_takeback_work takes note, when it is not time to look. */
static void note_without_a_look(fixture *f)
{
    lj_shipper *s = f->kit.s;
    assert_true(lj_db_pending_take_revoked(f->kit.db));
    assert_true(s->attempt.whole);
    s->revoked[0] = s->attempt;
    s->revoked[0].look_ns = INT64_MAX;
    s->revoked_count = 1;
    s->unknown_at.generation[0] = 0;
}

static void it_goes_at_once(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    fixture f;
    begin(&f, true);
    assert_ok(lj_takeback_work(f.kit.s, &err), &err);
    assert_string_equal(ship_kit_log(&f.kit), "GET " AT_TWO "\nDEL " AT_TWO "\n");
    assert_false(ship_kit_has(&f.kit, AT_TWO));
    assert_true(lj_takeback_due(f.kit.s) != LJ_TASK_IDLE); /* it may arrive once more */
    end(&f);
}

/*
 * The first attempt was stored without an answer, the second one got to nothing: it could not even begin, or found the object and could
 * not read it. What the first one sent is to be taken back all the same.
 */
static void an_attempt_that_got_to_nothing_behind_one_that_was_stored(void **state)
{
    (void)state;
    static const char *const ways[] = {"PUT", "GET"};
    for (size_t i = 0; i < LJ_ARRAY_LEN(ways); i++) {
        lj_error err = LJ_ERROR_INIT;
        fixture f;
        offer(&f);
        attempt(&f, "PUT", true);
        attempt(&f, ways[i], false);
        assert_true(ship_kit_has(&f.kit, AT_TWO));
        withdraw(&f);
        assert_ok(lj_takeback_work(f.kit.s, &err), &err);
        assert_false(ship_kit_has(&f.kit, AT_TWO));
        end(&f);
    }
}

/* The store has answered, and there was no memory to read that. */
static void out_of_memory_behind_it(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    fixture f;
    offer(&f);
    f.kit.fail_code = LJ_NOMEM;
    attempt(&f, "PUT", true);
    withdraw(&f);
    assert_ok(lj_takeback_work(f.kit.s, &err), &err);
    assert_false(ship_kit_has(&f.kit, AT_TWO));
    end(&f);
}

/* Not there yet: the next transaction takes its place, and its bytes are not those that had no answer. */
static void the_next_one_takes_its_place(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    fixture f;
    begin(&f, false);
    lj_shipper *s = f.kit.s;
    /* a store that failed before it read anything has nothing */
    assert_false(s->attempt.whole);
    replace_third(&f, 3);
    assert_ok(lj_takeback_work(s, &err), &err);
    assert_int_equal(lj_takeback_due(s), LJ_TASK_IDLE);
    assert_ok(lj_upload_segment(s, f.fd, &f.kit.wal.header, off(3), 0, &err), &err);
    size_t len = 0;
    LJ_CLEANUP(lj_freep) uint8_t *got = ship_kit_get(&f.kit, AT_TWO, &len);
    LJ_CLEANUP(lj_freep) uint8_t *want = ship_kit_wal_bytes(&f.kit, off(2), off(3));
    assert_int_equal(len, off(3) - off(2));
    assert_memory_equal(got, want, len);
    end(&f);
}

/* It arrived behind the last look: found in the way of the next transaction, deleted, and replaced. */
static void it_is_in_the_way_of_the_next(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    fixture f;
    begin(&f, true);
    lj_shipper *s = f.kit.s;
    note_without_a_look(&f);
    size_t len = 0;
    LJ_CLEANUP(lj_freep) uint8_t *sent = ship_kit_get(&f.kit, AT_TWO, &len);
    replace_third(&f, 3);
    assert_ok(lj_upload_segment(s, f.fd, &f.kit.wal.header, off(3), 0, &err), &err);
    LJ_CLEANUP(lj_freep) uint8_t *got = ship_kit_get(&f.kit, AT_TWO, &len);
    LJ_CLEANUP(lj_freep) uint8_t *want = ship_kit_wal_bytes(&f.kit, off(2), off(3));
    assert_int_equal(len, off(3) - off(2));
    assert_memory_equal(got, want, len);
    assert_memory_not_equal(got, sent, len);
    end(&f);
}

/* Withdrawn when the step that meets its object had begun already: it is no other writer's. */
static void it_is_in_the_way_before_it_was_noted(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    fixture f;
    begin(&f, true);
    lj_shipper *s = f.kit.s;
    s->unknown_at.generation[0] = 0;
    replace_third(&f, 3);
    assert_ok(lj_upload_segment(s, f.fd, &f.kit.wal.header, off(3), 0, &err), &err);
    assert_int_equal(s->saved.at.offset, off(3));
    assert_ok(lj_takeback_work(s, &err), &err);
    assert_int_equal(lj_takeback_due(s), LJ_TASK_IDLE);
    assert_true(ship_kit_has(&f.kit, AT_TWO));
    end(&f);
}

/* ... and the next transaction, a longer one, waits by then: not the end of the other's object is sent of it, which ends in its middle. */
static void a_longer_one_waits_before_it_was_noted(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    fixture f;
    begin(&f, true);
    lj_shipper *s = f.kit.s;
    replace_third(&f, 0);
    kit_wal_frame(&f.kit.wal, 2, 3, 9);
    lj_wal_end at = {
        .salt = f.kit.wal.header.salt, .frames = 4, .page_size = KIT_PAGE, .db_pages = 3};
    s->pending = lj_db_pending_offer(f.kit.db, &at);
    assert_ok(lj_upload_segment(s, f.fd, &f.kit.wal.header, off(4), 0, &err), &err);
    assert_int_equal(s->saved.at.offset, off(4));
    assert_ok(lj_db_pending_wait(f.kit.db, s->pending, 0, false, &err), &err);
    end(&f);
}

/* An object that is not exactly what was sent is nobody's to delete. */
static void another_writers_object_stays(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    fixture f;
    begin(&f, true);
    const char *keys[] = {AT_TWO};
    assert_ok(lj_storage_delete_many(f.kit.files, keys, 1, NULL, NULL, &err), &err);
    ship_kit_put(&f.kit, AT_TWO, "another", 7, 0);
    replace_third(&f, 3);
    assert_ok(lj_takeback_work(f.kit.s, &err), &err);
    assert_true(ship_kit_has(&f.kit, AT_TWO));
    assert_int_equal(lj_upload_segment(f.kit.s, f.fd, &f.kit.wal.header, off(3), 0, &err),
                     LJ_CONFLICT);
    assert_true(ship_kit_has(&f.kit, AT_TWO));
    end(&f);
}

static void a_store_that_fails_is_asked_again(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    fixture f;
    begin(&f, true);
    ship_kit_fail_on(&f.kit, "GET");
    assert_int_equal(lj_takeback_work(f.kit.s, &err), LJ_UNAVAILABLE);
    assert_true(ship_kit_has(&f.kit, AT_TWO));
    ship_kit_fail_on(&f.kit, "");
    assert_ok(lj_takeback_work(f.kit.s, &err), &err);
    assert_false(ship_kit_has(&f.kit, AT_TWO));
    end(&f);
}

/* Whether it was done or not: it may be done once more, when an acknowledged transaction is there. */
static void a_deletion_without_an_answer(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    fixture f;
    begin(&f, true);
    ship_kit_fail_on(&f.kit, "DEL");
    assert_int_equal(lj_takeback_work(f.kit.s, &err), LJ_CONFLICT);
    assert_non_null(strstr(err.message, "may still be carried out"));
    end(&f);
}

/* The WAL ends there: the mark that says so takes the place. */
static void in_the_way_of_the_end_mark(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    fixture f;
    begin(&f, true);
    lj_shipper *s = f.kit.s;
    note_without_a_look(&f);
    s->saved.mark_end = s->saved.at.offset;
    s->saved.at.index++;
    s->saved.at.offset = 0;
    assert_ok(lj_end_mark(s, &err), &err);
    size_t len = 1;
    LJ_CLEANUP(lj_freep) uint8_t *mark = ship_kit_get(&f.kit, AT_TWO, &len);
    assert_int_equal(len, 0);
    assert_ok(lj_takeback_work(s, &err), &err);
    assert_int_equal(lj_takeback_due(s), LJ_TASK_IDLE); /* nothing of ours can come there */
    end(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_goes_at_once),
        cmocka_unit_test(an_attempt_that_got_to_nothing_behind_one_that_was_stored),
        cmocka_unit_test(out_of_memory_behind_it),
        cmocka_unit_test(the_next_one_takes_its_place),
        cmocka_unit_test(it_is_in_the_way_of_the_next),
        cmocka_unit_test(it_is_in_the_way_before_it_was_noted),
        cmocka_unit_test(a_longer_one_waits_before_it_was_noted),
        cmocka_unit_test(another_writers_object_stays),
        cmocka_unit_test(a_store_that_fails_is_asked_again),
        cmocka_unit_test(a_deletion_without_an_answer),
        cmocka_unit_test(in_the_way_of_the_end_mark),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
