/*
 * fold_test.c - the page fold on its own: folded away between indexes or in the middle of one, behind a snapshot that is
 * still being written, with a database that shrinks and grows again, the result is always the same.
 */
#include "test/unit/restore/world.h"

#include <pthread.h>
#include <unistd.h>

#include "vfs/base/clock.h"
#include "vfs/base/io.h"
#include "vfs/restore/fold.h"
#include "vfs/restore/foldmap.h"

static int temp_file(void)
{
    char path[] = "/tmp/lj_fold_test.XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    unlink(path);
    return fd;
}

typedef struct {
    world w;
    int db_fd;
    int temp_fd;
    lj_fold *fold;
    lj_error err;
} rig;

static void rig_open(rig *r)
{
    world_open(&r->w, 1024, false, 10);
    r->err = (lj_error)LJ_ERROR_INIT;
    r->db_fd = temp_file();
    r->temp_fd = temp_file();
    lj_fold_setup setup = {.generation = WORLD_GENERATION, .temp_fd = r->temp_fd};
    assert_ok(lj_fold_new(&setup, &r->fold, &r->err), &r->err);
}

static void rig_write_snapshot(rig *r)
{
    assert_ok(lj_io_pwrite(r->db_fd, r->w.states[0].bytes, r->w.states[0].len, 0, &r->err),
              &r->err);
}

static void rig_close(rig *r)
{
    lj_fold_free(r->fold);
    close(r->db_fd);
    close(r->temp_fd);
    world_close(&r->w);
}

static void assert_database(rig *r)
{
    const world_state *last = &r->w.states[r->w.state_count - 1];
    uint8_t *got = malloc(last->len + 1);
    size_t n = 0;
    assert_ok(lj_io_pread(r->db_fd, got, last->len + 1, 0, &n, &r->err), &r->err);
    assert_int_equal(n, last->len);
    assert_memory_equal(got, last->bytes, last->len);
    free(got);
}

/* Sends what the world wrote since `from`. */
static void feed(rig *r, uint64_t from)
{
    assert_ok(lj_fold_begin(r->fold, r->w.index, from, &r->err), &r->err);
    assert_ok(lj_fold_data(r->fold, r->w.wal + from, r->w.wal_len - from, &r->err), &r->err);
}

static const uint32_t sizes[] = {12, 30, 6, 9, 40, 40, 7, 33};

static void folded_away_in_between(void **state)
{
    (void)state;
    for (unsigned when = 0; when < 256; when += 5) { /* a bit for each transaction */
        rig r;
        rig_open(&r);
        rig_write_snapshot(&r);
        for (unsigned i = 0; i < LJ_ARRAY_LEN(sizes); i++) {
            uint64_t from = r.w.wal_len;
            if (i % 3 == 0) {
                world_begin_index(&r.w, i / 3);
                from = 0;
            }
            world_transaction(&r.w, sizes[i]);
            feed(&r, from);
            assert_true(lj_fold_wants_apply(r.fold, 1));
            assert_false(lj_fold_wants_apply(r.fold, UINT64_C(1) << 30));
            if ((when >> i) & 1) {
                assert_ok(lj_fold_apply(r.fold, r.db_fd, &r.err), &r.err);
                assert_false(lj_fold_wants_apply(r.fold, 1));
                assert_database(&r);
            }
        }
        assert_ok(lj_fold_finish(r.fold, &r.err), &r.err);
        assert_ok(lj_fold_apply(r.fold, r.db_fd, &r.err), &r.err);
        assert_database(&r);
        rig_close(&r);
    }
}

/* Not in the middle of a transaction: its frames are still needed. */
static void never_inside_a_transaction(void **state)
{
    (void)state;
    rig r;
    rig_open(&r);
    rig_write_snapshot(&r);
    world_begin_index(&r.w, 0);
    world_transaction(&r.w, 12);
    uint64_t whole = r.w.wal_len;
    world_transaction(&r.w, 13);
    uint64_t cut = r.w.wal_len - 1048;
    assert_ok(lj_fold_begin(r.fold, 0, 0, &r.err), &r.err);
    assert_ok(lj_fold_data(r.fold, r.w.wal, (size_t)cut, &r.err), &r.err);
    assert_true(cut > whole);
    assert_false(lj_fold_wants_apply(r.fold, 1));
    assert_ok(lj_fold_data(r.fold, r.w.wal + cut, (size_t)(r.w.wal_len - cut), &r.err), &r.err);
    assert_true(lj_fold_wants_apply(r.fold, 1));
    assert_ok(lj_fold_finish(r.fold, &r.err), &r.err);
    assert_ok(lj_fold_apply(r.fold, r.db_fd, &r.err), &r.err);
    assert_database(&r);
    rig_close(&r);
}

typedef struct {
    rig *rig;
    uint64_t bytes;
    bool over;
    size_t last; /* the snapshot ends here */
} slow_snapshot;

static void *write_slowly(void *ctx)
{
    slow_snapshot *s = ctx;
    lj_error err = LJ_ERROR_INIT;
    for (size_t at = 0; at < s->last; at += 700) {
        size_t n = LJ_MIN((size_t)700, s->last - at);
        if (lj_io_pwrite(s->rig->db_fd, s->rig->w.states[0].bytes + at, n, at, &err) != LJ_OK)
            break;
        __atomic_store_n(&s->bytes, at + n, __ATOMIC_RELEASE);
        lj_clock_sleep_ns(LJ_NS_PER_MS / 2);
    }
    __atomic_store_n(&s->over, true, __ATOMIC_RELEASE);
    return NULL;
}

static void follows_a_slow_snapshot(void **state)
{
    (void)state;
    for (unsigned last_size = 4; last_size < 40; last_size += 7) {
        rig r;
        rig_open(&r);
        for (unsigned index = 0; index < 3; index++) {
            world_begin_index(&r.w, index);
            world_transaction(&r.w, index == 1 ? 5 : 20);
            world_transaction(&r.w, index == 2 ? last_size : 15);
            feed(&r, 0);
        }
        assert_ok(lj_fold_finish(r.fold, &r.err), &r.err);
        slow_snapshot s = {.rig = &r, .last = r.w.states[0].len};
        pthread_t thread;
        assert_int_equal(pthread_create(&thread, NULL, write_slowly, &s), 0);
        assert_ok(lj_fold_follow(r.fold, r.db_fd, &s.bytes, &s.over, &r.err), &r.err);
        pthread_join(thread, NULL);
        assert_ok(lj_fold_apply(r.fold, r.db_fd, &r.err), &r.err);
        assert_database(&r);
        rig_close(&r);
    }
}

static void page_map(void **state)
{
    (void)state;
    enum { PAGES = 20000 };
    lj_foldmap map = {0};
    lj_error err = LJ_ERROR_INIT;
    for (uint32_t round = 0; round < 3; round++)
        for (uint32_t i = 0; i < PAGES; i++)
            assert_ok(lj_foldmap_put(&map, 1 + i * 7919 % PAGES, round * PAGES + i, &err), &err);
    assert_int_equal(map.count, PAGES);
    assert_int_equal(map.max_pgno, PAGES);
    assert_ok(lj_foldmap_truncate(&map, 1234, &err), &err);
    assert_int_equal(map.count, 1234);
    const uint64_t *entries = NULL;
    lj_foldmap_sort(&map, &entries);
    for (uint32_t i = 0; i < 1234; i++) {
        assert_int_equal(lj_foldmap_pgno(entries[i]), i + 1);
        uint32_t k = lj_foldmap_frame(entries[i]);
        assert_true(k >= 2 * PAGES); /* the last put counts */
        assert_int_equal(1 + (uint64_t)(k - 2 * PAGES) * 7919 % PAGES, i + 1);
    }
    lj_foldmap_clear(&map);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(folded_away_in_between),
        cmocka_unit_test(never_inside_a_transaction),
        cmocka_unit_test(follows_a_slow_snapshot),
        cmocka_unit_test(page_map),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
