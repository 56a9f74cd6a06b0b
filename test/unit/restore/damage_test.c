/*
 * damage_test.c - replicas damaged in every way. The answer must be an error that names the object and leaves no file, with
 * a hint that leads to a state that was committed; or the same data, where SQLite's recovery would give it too.
 */
#include "test/unit/restore/restorer.h"

/* What the flags of a hint give, compared with the states that were committed. */
static void assert_hint_restores(memory_replica *m, const world *w, const char *hint)
{
    char generation[LJ_GENERATION_MAX] = "";
    lj_restore_options options = {.generation = generation};
    const char *at = strstr(hint, "-generation ");
    if (at == NULL) {
        assert_non_null(strstr(hint, "nothing before it"));
        return;
    }
    memcpy(generation, at + strlen("-generation "), 16);
    lj_error err = LJ_ERROR_INIT;
    if ((at = strstr(hint, "-index ")) != NULL) {
        options.has_index = true;
        options.index = (uint32_t)strtoul(at + 7, NULL, 16);
    }
    if ((at = strstr(hint, "-timestamp ")) != NULL)
        assert_ok(lj_clock_parse(at + strlen("-timestamp "), &options.timestamp_ns, &err), &err);
    lj_restore_result result = {.segments = 0};
    assert_ok(restore_with(m, &options, &result, &err), &err);
    for (size_t i = 0; i < w->state_count; i++) {
        if (w->states[i].index == result.position.index &&
            w->states[i].offset == result.position.offset && result.has_wal) {
            assert_output(w->states[i].bytes, w->states[i].len);
            return;
        }
    }
    assert_false(result.has_wal);
    assert_output(w->states[0].bytes, w->states[0].len);
}

/* Each object in turn missing, cut short at many places, and with single bits turned. */
static void every_object_damaged(void **state)
{
    (void)state;
    world w;
    memory_replica m;
    make_history(&w, &m, 512, false);
    lj_restore_options options = {.parallelism = 3};
    for (size_t i = 0; i < m.count; i++) {
        memory_object *object = &m.objects[i];
        lj_error err = LJ_ERROR_INIT;
        object->hidden = true;
        if (i == 0) {
            assert_fails(&m, &options, LJ_GAP, &err); /* WAL without a snapshot */
        } else if (i == m.count - 1) {
            assert_restores(&m, &options, &w.states[11]);
        } else if (i % 4 !=
                   0) { /* i % 4 == 0: whole transactions at an index's end, which nothing tells */
            assert_fails(&m, &options, LJ_GAP, &err);
            assert_hint_restores(&m, &w, err.hint);
        }
        object->hidden = false;

        size_t len = object->len;
        for (size_t cut = 0; cut < len; cut += 1 + len / 23) {
            object->len = cut;
            assert_fails(&m, &options, LJ_CORRUPT, &err);
            assert_non_null(strstr(err.message, object->key));
            assert_int_equal(err.code, LJ_CORRUPT);
        }
        object->len = len;
        if (i > 0)
            assert_hint_restores(&m, &w, err.hint);

        for (size_t k = 0; k < 40 && len > 0; k++) {
            size_t at = k < 8 || len < 40 ? k % len : k * len / 40;
            object->data[at] ^= (uint8_t)(1u << (k % 8));
            lj_restore_result result = {.segments = 0};
            lj_code code = restore_with(&m, &options, &result, &err);
            if (code == LJ_OK)
                fail_msg("%s: bit %zu of byte %zu went unnoticed", object->key, k % 8, at);
            assert_true(code == LJ_CORRUPT || code == LJ_UNSUPPORTED || code == LJ_GAP);
            assert_int_equal(folder_entries(), 0);
            object->data[at] ^= (uint8_t)(1u << (k % 8));
        }
    }
    assert_restores(&m, &options, &w.states[12]);
    memory_free(&m);
    world_close(&w);
}

/* Damage below the compression: frames that are whole LZ4 objects but wrong. */
static void bad_frames(void **state)
{
    (void)state;
    /* offsets into the second frame of the first index, and the verdict */
    static const struct {
        const char *what;
        size_t at;
        const char *expected;
    } cases[] = {
        {"page", 32 + 536 + 24 + 100, "checksum does not continue"},
        {"checksum", 32 + 536 + 16, "checksum does not continue"},
        {"salt 1", 32 + 536 + 8, "salts are of another WAL"},
        {"salt 2", 32 + 536 + 12, "salts are of another WAL"},
        {"magic", 0, "magic"},
        {"version", 4, "version"},
        {"page size in the header", 10, "WAL"},
        {"header checksum", 24, "header checksum"},
    };
    for (size_t i = 0; i < LJ_ARRAY_LEN(cases); i++) {
        world w;
        memory_replica m;
        memory_open(&m);
        world_open(&w, 512, false, 8);
        world_put_snapshot(&m, 0, &w.states[0], 1000);
        world_begin_index(&w, 0);
        world_transaction(&w, 12);
        world_transaction(&w, 12);
        w.wal[cases[i].at] ^= 0x80;
        world_put_segment(&m, &w, 0, w.wal_len, 1001);
        lj_restore_options options = {0};
        lj_error err = LJ_ERROR_INIT;
        assert_fails(&m, &options, LJ_CORRUPT, &err);
        if (strstr(err.message, cases[i].expected) == NULL)
            fail_msg("%s: %s", cases[i].what, err.message);
        assert_non_null(strstr(err.hint, "-timestamp 1970-01-01T00:00:00.000001000Z"));
        memory_free(&m);
        world_close(&w);
    }
}

/* A transaction without its end: fine at the very end, an error when another index follows. */
static void partial_transactions(void **state)
{
    (void)state;
    world w;
    memory_replica m;
    memory_open(&m);
    world_open(&w, 512, false, 8);
    world_put_snapshot(&m, 0, &w.states[0], 1000);
    world_begin_index(&w, 0);
    world_transaction(&w, 12);
    uint64_t whole = w.wal_len;
    world_put_segment(&m, &w, 0, whole, 1001);
    world_transaction(&w, 20);
    world_put_segment(&m, &w, whole, w.wal_len - 536 - 7, 1002);
    lj_restore_options options = {0};
    lj_restore_result result = {.segments = 0};
    lj_error err = LJ_ERROR_INIT;
    assert_ok(restore_with(&m, &options, &result, &err), &err);
    assert_false(result.at_end);
    assert_output(w.states[1].bytes, w.states[1].len);

    world_begin_index(&w, 1);
    world_transaction(&w, 20);
    world_put_segment(&m, &w, 0, w.wal_len, 1003);
    assert_fails(&m, &options, LJ_CORRUPT, &err);
    assert_non_null(strstr(err.message, "ends inside a transaction"));
    options.has_index = true; /* what the hint says */
    assert_restores(&m, &options, &w.states[1]);
    memory_free(&m);
    world_close(&w);
}

/* A WAL restarted in place: the frames of its last life behind the new ones are its end, other frames are not. */
static void stale_tails(void **state)
{
    (void)state;
    for (int kind = 0; kind < 3; kind++) {
        world w;
        memory_replica m;
        memory_open(&m);
        world_open(&w, 512, false, 8);
        world_put_snapshot(&m, 4, &w.states[0], 1000);
        world_begin_index(&w, kind == 1 ? 900 : 3); /* salts count up by one */
        world_transaction(&w, 30);
        size_t old_len = w.wal_len;
        uint8_t *old = malloc(old_len);
        memcpy(old, w.wal, old_len);
        if (kind == 1)
            lj_put_be32(old + 32 + 536 * 5 + 8,
                        5000); /* salts from the future are of another WAL */
        w.pages = 8;
        memcpy(w.db, w.states[0].bytes, w.states[0].len);
        world_begin_index(&w, 4);
        world_transaction(&w, 9);
        size_t new_len = w.wal_len;
        memcpy(w.wal + new_len, old + new_len, old_len - new_len);
        if (kind == 2) /* the stale part is followed by a frame of this life again */
            memcpy(w.wal + old_len - 536 + 8, w.wal + 16, 8);
        w.wal_len = old_len;
        world_put_segment(&m, &w, 0, old_len, 1001);
        free(old);
        lj_restore_options options = {0};
        lj_error err = LJ_ERROR_INIT;
        if (kind == 0) {
            assert_restores(&m, &options, &w.states[2]);
            world_begin_index(&w, 5);
            world_transaction(&w, 15);
            world_put_segment(&m, &w, 0, w.wal_len, 1002);
            assert_restores(&m, &options, &w.states[3]);
        } else {
            assert_fails(&m, &options, LJ_CORRUPT, &err);
        }
        memory_free(&m);
        world_close(&w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_object_damaged),
        cmocka_unit_test(bad_frames),
        cmocka_unit_test(partial_transactions),
        cmocka_unit_test(stale_tails),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
