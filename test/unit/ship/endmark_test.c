/* endmark_test.c - the object that ends an index: what it is, and what is made of one that is there already. */
#include "test/unit/ship/ship_kit.h"

#include <fcntl.h>
#include <unistd.h>

#define SNAPSHOT           "generations/" KIT_GEN "/snapshots/00000000.snapshot.lz4"
#define WAL(index, offset) "generations/" KIT_GEN "/wal/" index "_" offset ".wal.lz4"
#define MARK               WAL("00000004", "00000850") /* behind two frames */
#define NEXT               WAL("00000005", "00000000")

typedef struct {
    ship_kit kit;
    int fd;
} fixture;

static uint64_t off(uint64_t frames)
{
    return lj_wal_frame_offset(KIT_PAGE, frames + 1);
}

/* Index 4 is shipped up to its end, two frames; the WAL begins anew with three frames. */
static void begin(fixture *f)
{
    lj_error err = LJ_ERROR_INIT;
    ship_kit_begin(&f->kit);
    ship_kit_replicating(&f->kit, 4);
    ship_kit_put(&f->kit, SNAPSHOT, "x", 1, 1);
    kit_wal_commits(&f->kit.wal, 2, 3, 1);
    f->fd = open(f->kit.dir.wal_path, O_RDONLY | O_CLOEXEC);
    assert_true(f->fd >= 0);
    assert_ok(lj_upload_segment(f->kit.s, f->fd, &f->kit.wal.header, off(2), 0, &err), &err);
    lj_saved_position *saved = &f->kit.s->saved;
    saved->mark_end = saved->at.offset;
    saved->at.index++;
    saved->at.offset = 0;
    assert_ok(lj_ship_save(f->kit.s, &err), &err);
    kit_wal_begin(&f->kit.wal, f->kit.dir.wal_path, KIT_PAGE, 2);
    kit_wal_commits(&f->kit.wal, 3, 3, 7);
    /* as the shim would have published it */
    lj_db *db = f->kit.db;
    pthread_mutex_lock(&db->mutex);
    db->life = (lj_life){.known = true,
                         .number = 2,
                         .salt = f->kit.wal.header.salt,
                         .frames = 3,
                         .page_size = KIT_PAGE};
    db->chain.has_life = true;
    db->chain.salt = db->life.salt;
    db->chain.index = saved->at.index;
    pthread_mutex_unlock(&db->mutex);
    (void)ship_kit_log(&f->kit);
}

static void end(fixture *f)
{
    close(f->fd);
    ship_kit_end(&f->kit);
}

static lj_code upload(fixture *f, lj_error *err)
{
    return lj_upload_segment(f->kit.s, f->fd, &f->kit.wal.header, off(3), 0, err);
}

static void expect_left(fixture *f, const char *theirs)
{
    lj_error err = LJ_ERROR_INIT;
    assert_int_equal(upload(f, &err), LJ_CONFLICT);
    assert_non_null(strstr(err.message, theirs));
    assert_non_null(strstr(err.message, "the local database is at " KIT_GEN));
    assert_false(ship_kit_has(&f->kit, NEXT));
    assert_null(lj_saved_position_owned(&f->kit.s->saved, KIT_GEN));
}

static void it_comes_before_the_next_index(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    fixture f;
    begin(&f);
    assert_ok(upload(&f, &err), &err);
    assert_string_equal(ship_kit_log(&f.kit), "PUT " MARK "\nPUT " NEXT "\n");
    size_t len = 1;
    LJ_CLEANUP(lj_freep) uint8_t *content = ship_kit_get(&f.kit, MARK, &len);
    assert_int_equal(len, 0);
    assert_int_equal(f.kit.s->saved.mark_end, 0);
    assert_int_equal(f.kit.s->saved.at.offset, off(3));
    assert_int_equal(f.kit.db->segments, 2); /* it is none */
    end(&f);
}

/* A store that fails between the two: nothing of the next index before the mark, and never two of them. */
static void a_failure_in_between(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    fixture f;
    begin(&f);
    ship_kit_fail_on(&f.kit, "PUT " MARK);
    assert_int_equal(upload(&f, &err), LJ_UNAVAILABLE);
    assert_false(ship_kit_has(&f.kit, NEXT));
    f.kit.put_then_fail = true; /* stored, but the answer is lost */
    assert_int_equal(upload(&f, &err), LJ_UNAVAILABLE);
    assert_true(ship_kit_has(&f.kit, MARK));
    assert_int_equal(f.kit.s->saved.mark_end, off(2));
    ship_kit_fail_on(&f.kit, "");
    assert_ok(upload(&f, &err), &err);
    assert_true(ship_kit_has(&f.kit, NEXT));
    end(&f);
}

static void the_position_file_remembers_it(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    fixture f;
    lj_saved_position saved;
    begin(&f);
    assert_ok(lj_saved_position_load(f.kit.db->position_path, &saved, &err), &err);
    assert_int_equal(saved.mark_end, off(2));
    assert_ok(upload(&f, &err), &err);
    assert_ok(lj_ship_save(f.kit.s, &err), &err);
    assert_ok(lj_saved_position_load(f.kit.db->position_path, &saved, &err), &err);
    assert_int_equal(saved.mark_end, 0);
    end(&f);
}

/* The other one appended to the index that we want to end: a clone whose WAL went on. */
static void another_writer_went_on_with_the_index(void **state)
{
    (void)state;
    fixture f;
    begin(&f);
    ship_kit_put(&f.kit, MARK, "what it wrote", 13, 0);
    expect_left(&f, "it has " KIT_GEN "/00000004:2128");
    end(&f);
}

/* The other one ended it as well, and was faster with the next index. */
static void another_writer_is_a_step_ahead(void **state)
{
    (void)state;
    fixture f;
    begin(&f);
    ship_kit_put(&f.kit, MARK, "", 0, 0);
    ship_kit_put(&f.kit, NEXT, "what it wrote", 13, 0);
    lj_error err = LJ_ERROR_INIT;
    assert_int_equal(upload(&f, &err), LJ_CONFLICT);
    assert_non_null(strstr(err.message,
                           "it has " KIT_GEN "/00000005:0, the local database is at " KIT_GEN
                           "/00000005:0"));
    end(&f);
}

static void another_writer_is_far_ahead(void **state)
{
    (void)state;
    fixture f;
    begin(&f);
    ship_kit_put(&f.kit, MARK, "", 0, 0);
    ship_kit_put(&f.kit, WAL("00000009", "00001000"), "x", 1, 0);
    expect_left(&f, "it has " KIT_GEN "/00000009:4096");
    assert_null(strstr(ship_kit_log(&f.kit), "PUT " NEXT));
    end(&f);
}

/* We would append, but the index was ended by a writer that restarted its WAL. */
static void a_mark_where_we_have_frames(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    fixture f;
    begin(&f);
    assert_ok(upload(&f, &err), &err);
    ship_kit_put(&f.kit, WAL("00000005", "00000c68"), "", 0, 0);
    kit_wal_commits(&f.kit.wal, 1, 3, 9);
    assert_int_equal(lj_upload_segment(f.kit.s, f.fd, &f.kit.wal.header, off(4), 0, &err),
                     LJ_CONFLICT);
    assert_non_null(strstr(err.message, "it has " KIT_GEN "/00000005:3176"));
    end(&f);
}

/* The last segment of an index may end past the last offset that has a name: nobody can append there either. */
static void an_index_that_ends_past_4_gib(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    fixture f;
    begin(&f);
    f.kit.s->saved.mark_end = LJ_OFFSET_MAX + 1;
    assert_ok(upload(&f, &err), &err);
    assert_string_equal(ship_kit_log(&f.kit), "PUT " NEXT "\n");
    assert_int_equal(f.kit.s->saved.mark_end, 0);
    end(&f);
}

/* As if the last word from the replica was an hour ago. */
static void rest(fixture *f)
{
    lj_resume_agreed(f->kit.s);
    f->kit.s->agreed_mono_ns -= 3600 * LJ_NS_PER_S;
    (void)ship_kit_log(&f->kit);
}

/*
 * The other one is ahead, and its retention deleted the mark that we would have met: after a rest nothing is put into the
 * middle of what it has.
 */
static void what_was_deleted_while_we_rested(void **state)
{
    (void)state;
    fixture f;
    begin(&f);
    rest(&f);
    ship_kit_put(&f.kit, WAL("00000009", "00000000"), "x", 1, 0);
    expect_left(&f, "it has " KIT_GEN "/00000009:0");
    assert_string_equal(ship_kit_log(&f.kit), "");
    end(&f);
}

/* The same, but the other one is just one step ahead: the mark is missing in front of our own place. */
static void the_next_index_without_the_mark_before_it(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    fixture f;
    begin(&f);
    rest(&f);
    ship_kit_put(&f.kit, NEXT, "x", 1, 0);
    assert_int_equal(upload(&f, &err), LJ_CONFLICT);
    assert_string_equal(ship_kit_log(&f.kit), "");
    end(&f);
}

static void a_generation_that_was_deleted_while_we_rested(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    fixture f;
    begin(&f);
    rest(&f);
    const char *key = SNAPSHOT;
    assert_ok(lj_storage_delete_many(f.kit.files, &key, 1, NULL, NULL, &err), &err);
    expect_left(&f, "the replica no longer has generation " KIT_GEN);
    end(&f);
}

/* The clock that stands still while a machine sleeps is not the only one that is asked; and a fresh answer holds. */
static void when_the_replica_is_asked_again(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    fixture f;
    begin(&f);
    lj_shipper *s = f.kit.s;
    const char *key = SNAPSHOT;
    assert_ok(lj_storage_delete_many(f.kit.files, &key, 1, NULL, NULL, &err), &err);
    lj_resume_agreed(s);
    assert_ok(lj_resume_after_rest(s, &err), &err);
    s->agreed_wall_ns -= 3600 * LJ_NS_PER_S;
    assert_int_equal(lj_resume_after_rest(s, &err), LJ_CONFLICT);
    lj_resume_agreed(s);
    s->agreed_wall_ns += 3600 * LJ_NS_PER_S; /* set back */
    assert_int_equal(lj_resume_after_rest(s, &err), LJ_CONFLICT);
    end(&f);
}

static void an_answer_that_was_not_heard_after_a_rest(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    fixture f;
    begin(&f);
    f.kit.put_then_fail = true;
    ship_kit_fail_on(&f.kit, "PUT " NEXT);
    assert_int_equal(upload(&f, &err), LJ_UNAVAILABLE); /* mark and segment are there */
    f.kit.s->saved.mark_end = off(2);                   /* as the position file says after a kill */
    rest(&f);
    ship_kit_fail_on(&f.kit, "");
    assert_ok(upload(&f, &err), &err);
    assert_int_equal(f.kit.s->saved.at.offset, off(3));
    assert_non_null(lj_saved_position_owned(&f.kit.s->saved, KIT_GEN));
    end(&f);
}

/* ------------------------------------------------------------------ what the store has lost */

static void lose(fixture *f, const char *key)
{
    lj_error err = LJ_ERROR_INIT;
    assert_true(ship_kit_has(&f->kit, key));
    assert_ok(lj_storage_delete_many(f->kit.files, &key, 1, NULL, NULL, &err), &err);
    (void)ship_kit_log(&f->kit);
}

/* Nobody else is in the generation: it stays ours, and retention will delete it. */
static void expect_lost(fixture *f, lj_code code, const lj_error *err)
{
    assert_int_equal(code, LJ_CONFLICT);
    assert_non_null(strstr(err->message, "the replica has lost the end"));
    assert_null(strstr(ship_kit_log(&f->kit), "PUT"));
    assert_non_null(lj_saved_position_owned(&f->kit.s->saved, KIT_GEN));
}

/* A store that lost its last seconds was away for a while: nothing is put behind the hole, neither a mark nor a segment. */
static void lost_while_we_rested(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    fixture f;
    begin(&f);
    rest(&f);
    lose(&f, WAL("00000004", "00000000"));
    expect_lost(&f, upload(&f, &err), &err);
    end(&f);

    begin(&f);
    assert_ok(upload(&f, &err), &err);
    rest(&f);
    assert_ok(lj_resume_after_rest(f.kit.s, &err), &err);
    rest(&f);
    lose(&f, NEXT);
    kit_wal_commits(&f.kit.wal, 1, 3, 9);
    lj_code code = lj_upload_segment(f.kit.s, f.fd, &f.kit.wal.header, off(4), 0, &err);
    expect_lost(&f, code, &err);
    end(&f);
}

/* Three segments of index 5 are there; it ends behind five frames. */
static void begin_three_segments(fixture *f)
{
    lj_error err = LJ_ERROR_INIT;
    begin(f);
    assert_ok(upload(f, &err), &err);
    for (uint64_t frames = 4; frames <= 5; frames++) {
        kit_wal_commits(&f->kit.wal, 1, 3, 9);
        assert_ok(lj_upload_segment(f->kit.s, f->fd, &f->kit.wal.header, off(frames), 0, &err),
                  &err);
    }
    (void)ship_kit_log(&f->kit);
}

#define SECOND WAL("00000005", "00000c68") /* behind three frames */
#define THIRD  WAL("00000005", "00001080")

/* Of a moment ago: some stores list what was put last a little later. */
static void expect_not_listed_yet(fixture *f)
{
    lj_error err = LJ_ERROR_INIT;
    assert_int_equal(lj_resume_open(f->kit.s, &err), LJ_UNAVAILABLE);
    assert_true(err.retryable);
    f->kit.s->missing_since_ns -= 3600 * LJ_NS_PER_S;
}

static void lost_before_an_open(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    fixture f;
    begin_three_segments(&f);
    assert_ok(lj_resume_open(f.kit.s, &err), &err);
    lose(&f, THIRD);
    expect_not_listed_yet(&f);
    expect_lost(&f, lj_resume_open(f.kit.s, &err), &err);
    lose(&f, SECOND);
    lose(&f, NEXT);
    expect_lost(&f, lj_resume_open(f.kit.s, &err), &err);
    end(&f);

    begin(&f); /* at the begin of an index, and the end of the one before it is gone */
    assert_ok(lj_resume_open(f.kit.s, &err), &err);
    lose(&f, WAL("00000004", "00000000"));
    expect_not_listed_yet(&f);
    expect_lost(&f, lj_resume_open(f.kit.s, &err), &err);
    end(&f);
}

/* Other programs' segments do not say how long they are. */
static void what_does_not_say_is_not_lost(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    fixture f;
    begin_three_segments(&f);
    lose(&f, THIRD);
    lose(&f, SECOND);
    ship_kit_put(&f.kit, SECOND, "x", 1, 0);
    assert_ok(lj_resume_open(f.kit.s, &err), &err);
    end(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_comes_before_the_next_index),
        cmocka_unit_test(a_failure_in_between),
        cmocka_unit_test(the_position_file_remembers_it),
        cmocka_unit_test(another_writer_went_on_with_the_index),
        cmocka_unit_test(another_writer_is_a_step_ahead),
        cmocka_unit_test(another_writer_is_far_ahead),
        cmocka_unit_test(a_mark_where_we_have_frames),
        cmocka_unit_test(an_index_that_ends_past_4_gib),
        cmocka_unit_test(what_was_deleted_while_we_rested),
        cmocka_unit_test(the_next_index_without_the_mark_before_it),
        cmocka_unit_test(a_generation_that_was_deleted_while_we_rested),
        cmocka_unit_test(when_the_replica_is_asked_again),
        cmocka_unit_test(an_answer_that_was_not_heard_after_a_rest),
        cmocka_unit_test(lost_while_we_rested),
        cmocka_unit_test(lost_before_an_open),
        cmocka_unit_test(what_does_not_say_is_not_lost),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
