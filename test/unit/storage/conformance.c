/* conformance.c - see conformance.h. */
#include "test/unit/unit.h"

#include <pthread.h>

#include "test/unit/storage/bytes.h"
#include "test/unit/storage/conformance.h"
#include "vfs/base/clock.h"
#include "vfs/base/str.h"

#define BASE    "conformance/"
#define THREADS 8u
#define KIB     ((uint64_t)1024)

static lj_storage *storage_of(void **state)
{
    return ((const conformance_setup *)*state)->storage;
}

static void empty_store(void **state)
{
    lj_storage *storage = storage_of(state);
    lj_error err = LJ_ERROR_INIT;
    static const char *const prefixes[] = {BASE, BASE "no/such/folder/", BASE "no",
                                           "conformance/x"};
    for (size_t i = 0; i < LJ_ARRAY_LEN(prefixes); i++) {
        key_list list;
        key_list_read(storage, prefixes[i], NULL, &list);
        assert_int_equal(list.count, 0);
        key_list_free(&list);
    }
    bytes_sink got;
    lj_sink sink = bytes_sink_new(&got, 0, 0);
    assert_int_equal(lj_storage_get(storage, BASE "none", 0, -1, &sink, &err), LJ_NOTFOUND);
    assert_false(err.retryable);
    assert_non_null(strstr(err.message, lj_storage_url(storage)));
    assert_non_null(strstr(err.message, BASE "none"));
    lj_storage_entry entry = {.size_bytes = 7};
    assert_int_equal(lj_storage_head(storage, BASE "none", &entry, &err), LJ_NOTFOUND);
    assert_int_equal(entry.size_bytes, 7);
}

static void put_head_get(void **state)
{
    lj_storage *storage = storage_of(state);
    lj_error err = LJ_ERROR_INIT;
    const uint64_t sizes[] = {0, 1, 4096, 64 * KIB, 128 * KIB, 128 * KIB + 1, 700 * KIB + 13};
    for (size_t i = 0; i < LJ_ARRAY_LEN(sizes); i++) {
        int64_t before = lj_clock_wall_ns();
        assert_ok(bytes_put(storage, BASE "put/object", i, sizes[i], false, &err), &err);
        lj_storage_entry entry = {.key = NULL};
        assert_ok(lj_storage_head(storage, BASE "put/object", &entry, &err), &err);
        assert_string_equal(entry.key, BASE "put/object");
        assert_int_equal(entry.size_bytes, sizes[i]);
        /* the server's clock may be another one, and may count whole seconds */
        assert_true(entry.created_ns > before - 600 * LJ_NS_PER_S);
        assert_true(entry.created_ns < lj_clock_wall_ns() + 600 * LJ_NS_PER_S);
        bytes_expect(storage, BASE "put/object", i, sizes[i]);
    }
    delete_below(storage, BASE "put/");
}

static void put_if_absent(void **state)
{
    lj_storage *storage = storage_of(state);
    lj_error err = LJ_ERROR_INIT;
    if ((lj_storage_features(storage) & LJ_STORAGE_IF_ABSENT) == 0) {
        assert_int_equal(bytes_put(storage, BASE "absent/a", 1, 10, true, &err), LJ_UNSUPPORTED);
        return;
    }
    assert_ok(bytes_put(storage, BASE "absent/a", 1, 1000, true, &err), &err);
    assert_int_equal(bytes_put(storage, BASE "absent/a", 2, 500, true, &err), LJ_EXISTS);
    assert_false(err.retryable);
    bytes_expect(storage, BASE "absent/a", 1, 1000);
    assert_ok(bytes_put(storage, BASE "absent/a", 3, 400, false, &err), &err);
    bytes_expect(storage, BASE "absent/a", 3, 400);
    delete_below(storage, BASE "absent/");
    assert_ok(bytes_put(storage, BASE "absent/a", 4, 0, true, &err), &err);
    assert_int_equal(bytes_put(storage, BASE "absent/a", 5, 1, true, &err), LJ_EXISTS);
    delete_below(storage, BASE "absent/");
}

static void put_sets_the_time(void **state)
{
    lj_storage *storage = storage_of(state);
    lj_error err = LJ_ERROR_INIT;
    if ((lj_storage_features(storage) & LJ_STORAGE_SET_TIME) == 0)
        return;
    const int64_t times[] = {INT64_C(1600000000123456789), INT64_C(1000000000), 1};
    for (size_t i = 0; i < LJ_ARRAY_LEN(times); i++) {
        lj_storage_put_options options = {.created_ns = times[i]};
        bytes_source content;
        lj_source source = bytes_source_new(&content, 1, 10);
        assert_ok(lj_storage_put(storage, BASE "time/a", &source, &options, &err), &err);
        lj_storage_entry entry;
        assert_ok(lj_storage_head(storage, BASE "time/a", &entry, &err), &err);
        assert_true(llabs(entry.created_ns - times[i]) < LJ_NS_PER_S);
    }
    delete_below(storage, BASE "time/");
}

typedef struct {
    lj_storage *storage;
    uint64_t number;
    lj_code code;
    lj_error err;
    bool wrong;
} worker;

static void run_workers(lj_storage *storage, worker *workers, void *(*work)(void *))
{
    pthread_t threads[THREADS];
    for (size_t i = 0; i < THREADS; i++) {
        workers[i] = (worker){.storage = storage, .number = i};
        assert_int_equal(pthread_create(&threads[i], NULL, work, &workers[i]), 0);
    }
    for (size_t i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
}

static void *race_put(void *ctx)
{
    worker *me = ctx;
    me->code =
        bytes_put(me->storage, BASE "race/a", me->number, 200 * KIB + me->number, true, &me->err);
    return NULL;
}

static void exactly_one_if_absent_wins(void **state)
{
    lj_storage *storage = storage_of(state);
    if ((lj_storage_features(storage) & LJ_STORAGE_IF_ABSENT) == 0)
        return;
    for (int round = 0; round < 5; round++) {
        worker workers[THREADS];
        run_workers(storage, workers, race_put);
        size_t winner = THREADS;
        for (size_t i = 0; i < THREADS; i++) {
            if (workers[i].code == LJ_EXISTS)
                continue;
            assert_ok(workers[i].code, &workers[i].err);
            assert_int_equal(winner, THREADS);
            winner = i;
        }
        assert_true(winner < THREADS);
        bytes_expect(storage, BASE "race/a", winner, 200 * KIB + winner);
        key_list list;
        key_list_read(storage, BASE "race/", NULL, &list);
        assert_int_equal(list.count, 1);
        key_list_free(&list);
        delete_below(storage, BASE "race/");
    }
}

static void ranged_get(void **state)
{
    lj_storage *storage = storage_of(state);
    lj_error err = LJ_ERROR_INIT;
    const uint64_t len = 300 * KIB + 7;
    assert_ok(bytes_put(storage, BASE "range/a", 9, len, false, &err), &err);
    const struct {
        uint64_t offset;
        int64_t length;
        uint64_t got;
    } rows[] = {{0, -1, len},
                {0, 0, 0},
                {0, 1, 1},
                {1, 1, 1},
                {100, 5000, 5000},
                {len - 1, -1, 1},
                {len - 1, 1, 1},
                {len - 1, 100, 1},
                {len, -1, 0},
                {len, 10, 0},
                {len + 1, -1, 0},
                {len + 1000, 1, 0},
                {128 * KIB, -1, len - 128 * KIB},
                {7, (int64_t)(len - 7), len - 7}};
    for (size_t i = 0; i < LJ_ARRAY_LEN(rows); i++) {
        bytes_sink got;
        lj_sink sink = bytes_sink_new(&got, 9, rows[i].offset);
        assert_ok(
            lj_storage_get(storage, BASE "range/a", rows[i].offset, rows[i].length, &sink, &err),
            &err);
        assert_int_equal(got.got, rows[i].got);
        assert_false(got.differs);
    }
    bytes_sink got;
    lj_sink sink = bytes_sink_new(&got, 9, 0);
    assert_int_equal(lj_storage_get(storage, BASE "range/none", 0, 0, &sink, &err), LJ_NOTFOUND);
    assert_int_equal(lj_storage_get(storage, BASE "range/a", 0, -2, &sink, &err), LJ_INVALID);
    assert_int_equal(lj_storage_get(storage, BASE "range/a", UINT64_MAX, 1, &sink, &err),
                     LJ_INVALID);
    assert_int_equal(got.got, 0);
    delete_below(storage, BASE "range/");
}

static void many_name(size_t i, char *out, size_t size)
{
    snprintf(out, size, BASE "many/%s/%08zx_%08zx.wal.lz4", i % 2 == 0 ? "one" : "two", i / 7,
             i % 7 * 4120);
}

typedef struct {
    worker worker;
    size_t count;
} many_worker;

/* Each thread puts every eighth of the keys. */
static void *put_share(void *ctx)
{
    many_worker *me = ctx;
    char key[100];
    for (size_t i = me->worker.number; i < me->count && me->worker.code == LJ_OK; i += THREADS) {
        many_name(i, key, sizeof(key));
        me->worker.code = bytes_put(me->worker.storage, key, i, i % 50, false, &me->worker.err);
    }
    return NULL;
}

static void long_listing(void **state)
{
    const conformance_setup *setup = *state;
    pthread_t threads[THREADS];
    many_worker workers[THREADS];
    for (size_t i = 0; i < THREADS; i++) {
        workers[i] = (many_worker){.worker = {.storage = setup->storage, .number = i},
                                   .count = setup->many_keys};
        assert_int_equal(pthread_create(&threads[i], NULL, put_share, &workers[i]), 0);
    }
    for (size_t i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    for (size_t i = 0; i < THREADS; i++)
        assert_ok(workers[i].worker.code, &workers[i].worker.err);

    key_list list;
    key_list_read(setup->storage, BASE "many/", NULL, &list);
    assert_int_equal(list.count, setup->many_keys);
    uint64_t bytes = 0;
    uint64_t expected = 0;
    for (size_t i = 0; i < list.count; i++) {
        bytes += list.sizes[i];
        expected += i % 50;
    }
    assert_int_equal(bytes, expected);

    /* `after` gives exactly the greater ones */
    const size_t at[] = {0, 1, list.count / 2 - 1, list.count / 2, list.count - 2, list.count - 1};
    for (size_t i = 0; i < LJ_ARRAY_LEN(at); i++) {
        size_t greater = 0;
        for (size_t k = 0; k < list.count; k++)
            greater += strcmp(list.keys[k], list.keys[at[i]]) > 0;
        key_list rest;
        key_list_read(setup->storage, BASE "many/", list.keys[at[i]], &rest);
        assert_int_equal(rest.count, greater);
        key_list_free(&rest);
    }
    /* a prefix is not a folder */
    key_list part;
    key_list_read(setup->storage, BASE "many/tw", NULL, &part);
    assert_int_equal(part.count, setup->many_keys / 2);
    key_list_free(&part);
    key_list_read(setup->storage, BASE "many/two/00000001", BASE "many/two/00000001_00001", &part);
    for (size_t i = 0; i < part.count; i++)
        assert_true(lj_str_starts(part.keys[i], BASE "many/two/00000001_"));
    assert_true(part.count > 0 && part.count < 7);
    key_list_free(&part);
    key_list_read(setup->storage, BASE "many/", BASE "many0", &part);
    assert_int_equal(part.count, 0);
    key_list_free(&part);
    key_list_free(&list);
    delete_below(setup->storage, BASE "many/");
}

static void callback_ends_a_listing(void **state)
{
    lj_storage *storage = storage_of(state);
    lj_error err = LJ_ERROR_INIT;
    static const char *const keys[] = {BASE "stop/a", BASE "stop/b/c", BASE "stop/d"};
    for (size_t i = 0; i < LJ_ARRAY_LEN(keys); i++)
        assert_ok(bytes_put(storage, keys[i], i, 3, false, &err), &err);
    key_list list = {.stop_after = 2};
    assert_int_equal(lj_storage_list(storage, BASE "stop/", NULL, key_list_add, &list, &err),
                     LJ_CANCELLED);
    assert_string_equal(err.message, "enough");
    assert_int_equal(list.count, 2);
    key_list_free(&list);
    delete_below(storage, BASE "stop/");
}

static void odd_names(void **state)
{
    lj_storage *storage = storage_of(state);
    lj_error err = LJ_ERROR_INIT;
    char longest[201] = BASE "odd/";
    memset(longest + strlen(longest), 'n', sizeof(longest) - 1 - strlen(longest));
    const char *const keys[] = {BASE "odd/a b",
                                BASE "odd/a+b",
                                BASE "odd/a%20b",
                                BASE "odd/a&b=c?d#e",
                                BASE "odd/a-b",
                                BASE "odd/a/x",
                                BASE "odd/a.b",
                                BASE "odd/a0",
                                BASE "odd/...",
                                BASE "odd/.hidden",
                                BASE "odd/x.tmp",
                                BASE "odd/.x.tmp",
                                BASE "odd/\xC3\xA9t\xC3\xA9",
                                BASE "odd/~'\"<>;:@,$!*()",
                                longest};
    for (size_t i = 0; i < LJ_ARRAY_LEN(keys); i++)
        assert_ok(bytes_put(storage, keys[i], i, 100 + i, true, &err), &err);
    key_list list;
    key_list_read(storage, BASE "odd/", NULL, &list);
    assert_int_equal(list.count, LJ_ARRAY_LEN(keys));
    for (size_t i = 0; i < LJ_ARRAY_LEN(keys); i++) {
        if (!key_list_has(&list, keys[i]))
            fail_msg("not listed: %s", keys[i]);
        bytes_expect(storage, keys[i], i, 100 + i);
    }
    key_list_free(&list);
    static const char *const bad[] = {"",      "/a",     "a/",   "a//b", ".",    "..",
                                      "a/./b", "a/../b", "a/..", "a\nb", "a\x7f"};
    for (size_t i = 0; i < LJ_ARRAY_LEN(bad); i++) {
        assert_int_equal(bytes_put(storage, bad[i], 1, 1, false, &err), LJ_INVALID);
        lj_storage_entry entry;
        assert_int_equal(lj_storage_head(storage, bad[i], &entry, &err), LJ_INVALID);
    }
    delete_below(storage, BASE "odd/");
}

typedef struct {
    size_t calls;
    size_t failures;
} delete_count;

static void count_deleted(void *ctx, const char *key, const lj_error *err)
{
    delete_count *count = ctx;
    assert_true(lj_str_starts(key, BASE "delete/"));
    count->calls++;
    count->failures += err != NULL;
}

static void delete_many(void **state)
{
    lj_storage *storage = storage_of(state);
    lj_error err = LJ_ERROR_INIT;
    static const char *const put[] = {BASE "delete/a", BASE "delete/b", BASE "delete/c/d",
                                      BASE "delete/keep"};
    for (size_t i = 0; i < LJ_ARRAY_LEN(put); i++)
        assert_ok(bytes_put(storage, put[i], i, 10, false, &err), &err);
    static const char *const gone[] = {BASE "delete/c/d", BASE "delete/missing",
                                       BASE "delete/b",   BASE "delete/no/such/folder",
                                       BASE "delete/a",   BASE "delete/b"};
    delete_count count = {.calls = 0};
    assert_ok(
        lj_storage_delete_many(storage, gone, LJ_ARRAY_LEN(gone), count_deleted, &count, &err),
        &err);
    assert_int_equal(count.calls, LJ_ARRAY_LEN(gone));
    assert_int_equal(count.failures, 0);
    key_list list;
    key_list_read(storage, BASE "delete/", NULL, &list);
    assert_int_equal(list.count, 1);
    assert_string_equal(list.keys[0], BASE "delete/keep");
    key_list_free(&list);
    assert_ok(lj_storage_delete_many(storage, put, LJ_ARRAY_LEN(put), NULL, NULL, &err), &err);
    assert_ok(lj_storage_delete_many(storage, put, LJ_ARRAY_LEN(put), NULL, NULL, &err), &err);
    assert_ok(lj_storage_delete_many(storage, put, 0, NULL, NULL, &err), &err);
    static const char *const bad[] = {BASE "delete/x", "../etc/passwd"};
    assert_int_equal(lj_storage_delete_many(storage, bad, 2, NULL, NULL, &err), LJ_INVALID);
}

static void failing_source_leaves_nothing(void **state)
{
    lj_storage *storage = storage_of(state);
    lj_error err = LJ_ERROR_INIT;
    const uint64_t fail_at[] = {0, 1000, 200 * KIB, 299 * KIB};
    for (size_t i = 0; i < LJ_ARRAY_LEN(fail_at); i++) {
        bytes_source content;
        lj_source source = bytes_source_new(&content, 4, 300 * KIB);
        content.fail_at = fail_at[i];
        assert_int_equal(lj_storage_put(storage, BASE "broken/a", &source, NULL, &err), LJ_BUSY);
        assert_non_null(strstr(err.message, "the source broke"));
        lj_storage_entry entry;
        assert_int_equal(lj_storage_head(storage, BASE "broken/a", &entry, &err), LJ_NOTFOUND);
    }
    /* nor does it harm what is there; and the rewound source succeeds */
    assert_ok(bytes_put(storage, BASE "broken/a", 5, 100, false, &err), &err);
    bytes_source content;
    lj_source source = bytes_source_new(&content, 4, 300 * KIB);
    content.fail_at = 1000;
    assert_int_equal(lj_storage_put(storage, BASE "broken/a", &source, NULL, &err), LJ_BUSY);
    bytes_expect(storage, BASE "broken/a", 5, 100);
    content.fail_at = UINT64_MAX;
    assert_ok(source.rewind(source.ctx, &err), &err);
    assert_ok(lj_storage_put(storage, BASE "broken/a", &source, NULL, &err), &err);
    bytes_expect(storage, BASE "broken/a", 4, 300 * KIB);
    /* a source that is shorter or longer than it says */
    for (int64_t wrong = -1; wrong <= 1; wrong += 2) {
        source = bytes_source_new(&content, 6, 5000);
        source.size = 5000 + wrong;
        assert_int_equal(lj_storage_put(storage, BASE "broken/b", &source, NULL, &err), LJ_IO);
        assert_true(err.retryable);
    }
    key_list list;
    key_list_read(storage, BASE "broken/", NULL, &list);
    assert_int_equal(list.count, 1);
    key_list_free(&list);
    delete_below(storage, BASE "broken/");
}

static void sink_failure_is_passed_on(void **state)
{
    lj_storage *storage = storage_of(state);
    lj_error err = LJ_ERROR_INIT;
    assert_ok(bytes_put(storage, BASE "sink/a", 5, 500 * KIB, false, &err), &err);
    bytes_sink got;
    lj_sink sink = bytes_sink_new(&got, 5, 0);
    got.fail_at = 300 * KIB;
    assert_int_equal(lj_storage_get(storage, BASE "sink/a", 0, -1, &sink, &err), LJ_BUSY);
    assert_non_null(strstr(err.message, "the sink broke"));
    assert_false(got.differs);
    assert_true(got.got <= 300 * KIB);
    bytes_expect(storage, BASE "sink/a", 5, 500 * KIB); /* the storage goes on working */
    delete_below(storage, BASE "sink/");
}

/* A source that does not tell its size, and is too large to be kept. */
static void large_object(void **state)
{
    const conformance_setup *setup = *state;
    lj_error err = LJ_ERROR_INIT;
    for (int known = 0; known < 2; known++) {
        bytes_source content;
        lj_source source = bytes_source_new(&content, 8, setup->large_bytes);
        if (known == 0)
            source.size = -1;
        assert_ok(lj_storage_put(setup->storage, BASE "large/a", &source, NULL, &err), &err);
        lj_storage_entry entry;
        assert_ok(lj_storage_head(setup->storage, BASE "large/a", &entry, &err), &err);
        assert_int_equal(entry.size_bytes, setup->large_bytes);
    }
    bytes_expect(setup->storage, BASE "large/a", 8, setup->large_bytes);
    delete_below(setup->storage, BASE "large/");
}

static lj_code count_entry(void *ctx, const lj_storage_entry *entry, lj_error *err)
{
    (void)err;
    *(size_t *)ctx += lj_str_starts(entry->key, BASE "crowd/");
    return LJ_OK;
}

/* Puts, reads, lists and deletes its own objects while the others do the same. */
static void *mixed_work(void *ctx)
{
    worker *me = ctx;
    char key[64];
    snprintf(key, sizeof(key), BASE "crowd/%u/object", (unsigned)me->number / 2);
    snprintf(key + strlen(key), sizeof(key) - strlen(key), "%u", (unsigned)me->number);
    for (uint64_t i = 0; i < 12 && me->code == LJ_OK; i++) {
        uint64_t len = i * 9000 + me->number;
        bytes_sink got;
        lj_sink sink = bytes_sink_new(&got, i, 0);
        size_t listed = 0;
        const char *const keys[] = {key};
        me->code = bytes_put(me->storage, key, i, len, false, &me->err);
        if (me->code == LJ_OK)
            me->code = lj_storage_get(me->storage, key, 0, -1, &sink, &me->err);
        me->wrong = me->wrong || got.differs || got.got != len;
        if (me->code == LJ_OK)
            me->code =
                lj_storage_list(me->storage, BASE "crowd/", NULL, count_entry, &listed, &me->err);
        me->wrong = me->wrong || listed == 0;
        if (me->code == LJ_OK)
            me->code = lj_storage_delete_many(me->storage, keys, 1, NULL, NULL, &me->err);
    }
    return NULL;
}

static void concurrent_use(void **state)
{
    lj_storage *storage = storage_of(state);
    worker workers[THREADS];
    run_workers(storage, workers, mixed_work);
    for (size_t i = 0; i < THREADS; i++) {
        assert_ok(workers[i].code, &workers[i].err);
        assert_false(workers[i].wrong);
    }
    key_list list;
    key_list_read(storage, BASE, NULL, &list);
    assert_int_equal(list.count, 0);
    key_list_free(&list);
}

int conformance_run(const conformance_setup *setup)
{
    struct CMUnitTest tests[] = {
        cmocka_unit_test(empty_store),
        cmocka_unit_test(put_head_get),
        cmocka_unit_test(put_if_absent),
        cmocka_unit_test(put_sets_the_time),
        cmocka_unit_test(exactly_one_if_absent_wins),
        cmocka_unit_test(ranged_get),
        cmocka_unit_test(long_listing),
        cmocka_unit_test(callback_ends_a_listing),
        cmocka_unit_test(odd_names),
        cmocka_unit_test(delete_many),
        cmocka_unit_test(failing_source_leaves_nothing),
        cmocka_unit_test(sink_failure_is_passed_on),
        cmocka_unit_test(large_object),
        cmocka_unit_test(concurrent_use),
    };
    for (size_t i = 0; i < LJ_ARRAY_LEN(tests); i++)
        tests[i].initial_state = (void *)(uintptr_t)setup;
    return cmocka_run_group_tests_name(lj_storage_type(setup->storage), tests, NULL, NULL);
}
