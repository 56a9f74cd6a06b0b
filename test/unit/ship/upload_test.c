/* upload_test.c - a segment as an object, and what happens when one is already there. */
#include "test/unit/ship/ship_kit.h"

#include <fcntl.h>
#include <unistd.h>

#include "vfs/base/clock.h"

#define KEY(offset_hex) "generations/" KIT_GEN "/wal/00000004_" offset_hex ".wal.lz4"

typedef struct {
    ship_kit kit;
    int fd;
} fixture;

static void begin(fixture *f, unsigned frames)
{
    ship_kit_begin(&f->kit);
    ship_kit_replicating(&f->kit, 4);
    kit_wal_commits(&f->kit.wal, frames, 3, 1);
    f->fd = open(f->kit.dir.wal_path, O_RDONLY | O_CLOEXEC);
    assert_true(f->fd >= 0);
}

static void end(fixture *f)
{
    close(f->fd);
    ship_kit_end(&f->kit);
}

static uint64_t off(uint64_t frames)
{
    return lj_wal_frame_offset(KIT_PAGE, frames + 1);
}

static lj_code upload(fixture *f, uint64_t to, lj_error *err)
{
    return lj_upload_segment(f->kit.s, f->fd, &f->kit.wal.header, to, 0, err);
}

static void expect_object(fixture *f, const char *key, uint64_t from, uint64_t to)
{
    size_t len = 0;
    LJ_CLEANUP(lj_freep) uint8_t *got = ship_kit_get(&f->kit, key, &len);
    LJ_CLEANUP(lj_freep) uint8_t *want = ship_kit_wal_bytes(&f->kit, from, to);
    assert_int_equal(len, to - from);
    assert_memory_equal(got, want, len);
}

static void one_behind_the_other(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    fixture f;
    begin(&f, 6);
    const lj_saved_position *saved = &f.kit.s->saved;
    assert_ok(upload(&f, off(2), &err), &err);
    assert_int_equal(saved->at.offset, off(2));
    assert_true(f.kit.s->unsaved);
    int64_t first_ns = saved->last_object_ns;
    assert_ok(upload(&f, off(6), &err), &err);
    assert_int_equal(saved->at.offset, off(6));
    assert_true(lj_wal_cksum_eq(saved->sum, f.kit.wal.sum));
    assert_true(lj_wal_salt_eq(saved->salt, kit_salt(1)));
    assert_true(saved->last_object_ns > first_ns); /* times never stand still or go back */
    assert_int_equal(f.kit.db->segments, 2);
    expect_object(&f, KEY("00000000"), 0, off(2));
    expect_object(&f, KEY("00000850"), off(2), off(6));
    end(&f);
}

static void already_there_and_equal(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    fixture f;
    begin(&f, 6);
    f.kit.put_then_fail = true; /* stored, but the answer is lost */
    ship_kit_fail_on(&f.kit, "PUT");
    assert_int_equal(upload(&f, off(6), &err), LJ_UNAVAILABLE);
    assert_int_equal(f.kit.s->saved.at.offset, 0);
    assert_true(ship_kit_has(&f.kit, KEY("00000000")));
    ship_kit_fail_on(&f.kit, "");
    assert_ok(upload(&f, off(6), &err), &err);
    assert_int_equal(f.kit.s->saved.at.offset, off(6));
    assert_true(lj_wal_cksum_eq(f.kit.s->saved.sum, f.kit.wal.sum));
    end(&f);
}

/* The object of the lost answer was made by a clock that was set back since: what follows it is not older all the same. */
static void already_there_and_from_a_clock_ahead(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    fixture f;
    lj_storage_entry entry;
    begin(&f, 6);
    int64_t ahead_ns = lj_clock_wall_ns() + 3600 * LJ_NS_PER_S;
    f.kit.put_then_fail = true;
    ship_kit_fail_on(&f.kit, "PUT");
    assert_int_equal(lj_upload_segment(f.kit.s, f.fd, &f.kit.wal.header, off(2), ahead_ns, &err),
                     LJ_UNAVAILABLE);
    ship_kit_fail_on(&f.kit, "");
    assert_ok(upload(&f, off(2), &err), &err);
    assert_int_equal(f.kit.s->saved.last_object_ns, ahead_ns);
    assert_ok(upload(&f, off(6), &err), &err);
    assert_ok(lj_storage_head(f.kit.files, KEY("00000850"), &entry, &err), &err);
    assert_true(entry.created_ns == ahead_ns + 1);
    end(&f);
}

/* The request may still reach the store, after the one that replaces it: both must say the same. */
static void without_an_answer_the_same_is_sent_again(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    fixture f;
    begin(&f, 6);
    ship_kit_fail_on(&f.kit, "PUT");
    assert_int_equal(upload(&f, off(2), &err), LJ_UNAVAILABLE);
    assert_int_equal(upload(&f, off(4), &err), LJ_UNAVAILABLE);
    ship_kit_fail_on(&f.kit, "");
    assert_ok(upload(&f, off(6), &err), &err);
    assert_int_equal(f.kit.s->saved.at.offset, off(2));
    expect_object(&f, KEY("00000000"), 0, off(2));
    assert_ok(upload(&f, off(6), &err), &err);
    expect_object(&f, KEY("00000850"), off(2), off(6));
    assert_true(lj_wal_cksum_eq(f.kit.s->saved.sum, f.kit.wal.sum));
    end(&f);
}

static void outcomes(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    static const struct {
        lj_code code;
        int status;
        bool unknown;
    } rows[] = {
        {LJ_UNAVAILABLE, 0, true},   {LJ_TIMEOUT, 0, true},       {LJ_CANCELLED, 0, true},
        {LJ_UNAVAILABLE, 500, true}, {LJ_UNAVAILABLE, 503, true}, {LJ_UNAVAILABLE, 429, false},
        {LJ_TIMEOUT, 408, false},    {LJ_DENIED, 403, false},     {LJ_INVALID, 404, false},
        {LJ_NOSPACE, 507, false},    {LJ_EXISTS, 0, true},        {LJ_CORRUPT, 0, false},
        {LJ_IO, 0, false},           {LJ_NOMEM, 0, true}};
    for (size_t i = 0; i < LJ_ARRAY_LEN(rows); i++) {
        lj_error_set(&err, rows[i].code, "x");
        err.http_status = rows[i].status;
        assert_int_equal(lj_ship_outcome_unknown(&err), rows[i].unknown);
    }
}

/* The lost answer was of a shorter segment: it is taken as it is, and the next one goes on behind it. */
static void already_there_and_shorter(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    fixture f;
    begin(&f, 6);
    LJ_CLEANUP(lj_freep) uint8_t *raw = ship_kit_wal_bytes(&f.kit, 0, off(2));
    ship_kit_put(&f.kit, KEY("00000000"), raw, off(2), 0);
    assert_ok(upload(&f, off(6), &err), &err);
    assert_int_equal(f.kit.s->saved.at.offset, off(2));
    expect_object(&f, KEY("00000000"), 0, off(2));
    assert_ok(upload(&f, off(6), &err), &err);
    expect_object(&f, KEY("00000850"), off(2), off(6));
    assert_true(lj_wal_cksum_eq(f.kit.s->saved.sum, f.kit.wal.sum));
    end(&f);
}

static void expect_conflict(fixture *f)
{
    lj_error err = LJ_ERROR_INIT;
    assert_int_equal(upload(f, off(4), &err), LJ_CONFLICT);
    assert_non_null(strstr(err.message, "another writer")); /* and both positions */
    assert_non_null(strstr(err.message,
                           "it has " KIT_GEN "/00000004:0, the local database is at " KIT_GEN
                           "/00000004:0"));
    assert_int_equal(f->kit.s->saved.at.offset, 0);
    assert_null(
        lj_saved_position_owned(&f->kit.s->saved, KIT_GEN)); /* nothing of it is ours to delete */
    lj_saved_position on_disk;
    assert_ok(lj_saved_position_load(f->kit.db->position_path, &on_disk, &err), &err);
    assert_null(lj_saved_position_owned(&on_disk, KIT_GEN));
}

static void already_there_and_different(void **state)
{
    (void)state;
    fixture f;
    begin(&f, 6);
    LJ_CLEANUP(lj_freep) uint8_t *raw = ship_kit_wal_bytes(&f.kit, 0, off(6));
    const size_t lengths[] = {off(6), off(4) + 1, off(3) + 100, 32,
                              1}; /* longer, or cut within a frame */
    for (size_t i = 0; i < LJ_ARRAY_LEN(lengths); i++) {
        ship_kit_put(&f.kit, KEY("00000000"), raw, lengths[i], 0);
        expect_conflict(&f);
    }
    raw[off(1) + 40] ^= 1; /* the same length, one bit */
    ship_kit_put(&f.kit, KEY("00000000"), raw, off(4), 0);
    expect_conflict(&f);
    raw[off(1) + 40] ^= 1;
    end(&f);
}

static void already_there_and_damaged(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    fixture f;
    begin(&f, 6);
    lj_memory_source memory;
    lj_source garbage = lj_source_memory(&memory, "this is not lz4 at all", 22);
    assert_ok(lj_storage_put(f.kit.files, KEY("00000000"), &garbage, NULL, &err), &err);
    expect_conflict(&f);
    lj_source nothing = lj_source_memory(&memory, "", 0);
    assert_ok(lj_storage_put(f.kit.files, KEY("00000000"), &nothing, NULL, &err), &err);
    expect_conflict(&f);
    end(&f);
}

/* Ends within a transaction of two frames: not something we ever wrote. */
static void already_there_without_a_commit(void **state)
{
    (void)state;
    fixture f;
    begin(&f, 0);
    kit_wal_commits(&f.kit.wal, 1, 3, 1);
    kit_wal_frame(&f.kit.wal, 2, 0, 2);
    kit_wal_frame(&f.kit.wal, 3, 3, 2);
    kit_wal_commits(&f.kit.wal, 1, 3, 5);
    LJ_CLEANUP(lj_freep) uint8_t *raw = ship_kit_wal_bytes(&f.kit, 0, off(2));
    ship_kit_put(&f.kit, KEY("00000000"), raw, off(2), 0);
    expect_conflict(&f);
    end(&f);
}

static void restart_wal(ship_kit *kit, const char *line)
{
    kit_wal other;
    if (strncmp(line, "GET", 3) == 0)
        kit_wal_begin(&other, kit->dir.wal_path, KIT_PAGE, 77);
}

/* The WAL restarts while the object that is there is compared with it: that says nothing about the object. */
static void restart_during_the_comparison(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    fixture f;
    begin(&f, 6);
    LJ_CLEANUP(lj_freep) uint8_t *raw = ship_kit_wal_bytes(&f.kit, 0, off(6));
    ship_kit_put(&f.kit, KEY("00000000"), raw, off(6), 0);
    f.kit.before = restart_wal;
    assert_int_equal(upload(&f, off(6), &err), LJ_CORRUPT);
    assert_int_equal(f.kit.s->saved.at.offset, 0);
    end(&f);
}

static void nothing_invalid_is_stored(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    fixture f;
    begin(&f, 6);
    kit_flip(f.kit.dir.wal_path, off(4) + 100, 1);
    assert_int_equal(upload(&f, off(6), &err), LJ_CORRUPT);
    assert_false(ship_kit_has(&f.kit, KEY("00000000")));
    assert_ok(upload(&f, off(4), &err), &err);
    end(&f);
}

static void offset_beyond_the_layout(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    fixture f;
    begin(&f, 1);
    f.kit.s->saved.at.offset = LJ_OFFSET_MAX + 1;
    assert_int_equal(upload(&f, LJ_OFFSET_MAX + 2000, &err), LJ_CONFLICT);
    end(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_behind_the_other),
        cmocka_unit_test(already_there_and_equal),
        cmocka_unit_test(already_there_and_from_a_clock_ahead),
        cmocka_unit_test(without_an_answer_the_same_is_sent_again),
        cmocka_unit_test(outcomes),
        cmocka_unit_test(already_there_and_shorter),
        cmocka_unit_test(already_there_and_different),
        cmocka_unit_test(already_there_and_damaged),
        cmocka_unit_test(already_there_without_a_commit),
        cmocka_unit_test(restart_during_the_comparison),
        cmocka_unit_test(nothing_invalid_is_stored),
        cmocka_unit_test(offset_beyond_the_layout),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
