/* ahead_test.c - what is copied for the spool before the WAL restarts, and what a restart takes of it. */
#include "test/unit/capture/kit.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "vfs/base/io.h"
#include "vfs/capture/spool.h"

#define PAGE   4096u
#define GEN    "00000000000000aa"
#define FRAMES 60u /* of transactions of one frame each: far more than what is worth a thread */

typedef struct {
    kit_dir dir;
    lj_db *db;
    kit_wal wal;
} fixture;

static int wakes;

static void count(lj_db *db)
{
    (void)db;
    wakes++;
}

static void begin(fixture *f)
{
    lj_db_options options = kit_db_options();
    options.max_wal_size_bytes = 0;
    kit_dir_make(&f->dir);
    kit_db_file(f->dir.db_path, PAGE, 3, 0);
    f->db = kit_db_replicating(&f->dir, &options, GEN);
    f->db->ahead.wake = count;
    wakes = 0;
    kit_wal_begin(&f->wal, f->dir.wal_path, PAGE, 1);
}

static void end(fixture *f)
{
    lj_ahead_drop(f->db);
    lj_db_free(f->db);
    kit_dir_remove(&f->dir);
}

static void commit(fixture *f, unsigned count_of)
{
    kit_wal_commits(&f->wal, count_of, 3, 1);
    kit_wal_publish(&f->wal, f->db, 3);
}

static void ship(fixture *f, unsigned frames)
{
    lj_position next = f->db->pos;
    next.offset = lj_wal_frame_offset(PAGE, frames + 1);
    lj_db_shipped(f->db, &next, f->db->life.number, frames);
}

/* Names in the spool's folder; `unnamed`: those that are no entry. */
static unsigned names(const fixture *f, bool unnamed)
{
    unsigned n = 0;
    DIR *dir = opendir(f->dir.spool_dir);
    for (struct dirent *d = dir != NULL ? readdir(dir) : NULL; d != NULL; d = readdir(dir))
        n += d->d_name[0] != '.' && (strstr(d->d_name, ".tmp") != NULL) == unnamed;
    if (dir != NULL)
        closedir(dir);
    return n;
}

/* The entry of an index has these frames of the WAL, byte for byte, and is the next one from `offset` on. */
static lj_spool_entry check_entry(const fixture *f, uint32_t index, unsigned from, unsigned to)
{
    lj_error err = LJ_ERROR_INIT;
    lj_spool_entry e;
    assert_ok(lj_spool_first(f->dir.spool_dir, GEN, index, false, &e, &err), &err);
    assert_int_equal(e.start.index, index);
    uint64_t start = from == 0 ? 0 : lj_wal_frame_offset(PAGE, from + 1);
    assert_int_equal(e.start.offset, start);
    assert_int_equal(e.end, lj_wal_frame_offset(PAGE, to + 1));
    size_t bytes = (size_t)e.end;
    uint8_t *ours = calloc(1, bytes);
    uint8_t *wals = calloc(1, bytes);
    size_t n = 0;
    LJ_CLEANUP(lj_closep) int fd = -1;
    LJ_CLEANUP(lj_closep) int wal_fd = -1;
    assert_true(ours != NULL && wals != NULL);
    assert_ok(lj_spool_open(f->dir.spool_dir, &e, &fd, &err), &err);
    assert_ok(lj_io_open(f->dir.wal_path, 0, 0, &wal_fd, &err), &err);
    assert_ok(lj_io_pread(fd, ours, bytes, 0, &n, &err), &err);
    assert_int_equal(n, bytes);
    assert_ok(lj_io_pread(wal_fd, wals, bytes, 0, &n, &err), &err);
    assert_memory_equal(ours, wals, LJ_WAL_HEADER_BYTES);
    assert_memory_equal(ours + e.start.offset, wals + e.start.offset, bytes - e.start.offset);
    free(ours);
    free(wals);
    return e;
}

static void taken_whole(void **state)
{
    (void)state;
    fixture f;
    begin(&f);
    commit(&f, FRAMES);
    assert_true(lj_ahead_run(f.db));
    assert_int_equal(names(&f, true), 1);
    assert_int_equal(names(&f, false), 0);
    assert_int_equal(f.db->spool_bytes, 0);
    lj_db_seal(f.db, false);
    assert_true(f.db->chain.sealed && f.db->chain.active);
    assert_int_equal(names(&f, true), 0);
    assert_int_equal(names(&f, false), 1);
    lj_spool_entry e = check_entry(&f, 0, 0, FRAMES);
    assert_int_equal(f.db->spool_bytes, e.end);
    assert_false(lj_ahead_run(f.db));
    end(&f);
}

/* Killed: the next one that is alone finds the file, and knows it for what it is. */
static void what_a_killed_process_left_is_swept(void **state)
{
    (void)state;
    fixture f;
    begin(&f);
    commit(&f, FRAMES);
    assert_true(lj_ahead_run(f.db));
    char path[200];
    snprintf(path, sizeof(path), "%s/%s", f.dir.spool_dir, f.db->ahead.name);
    struct timespec times[2] = {{.tv_sec = time(NULL) - 3600}, {.tv_sec = time(NULL) - 3600}};
    assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
    lj_spool_sweep(f.dir.spool_dir);
    assert_int_equal(names(&f, true), 0);
    end(&f);
}

static void what_came_since_is_added(void **state)
{
    (void)state;
    fixture f;
    begin(&f);
    commit(&f, FRAMES);
    ship(&f, 5);
    assert_true(lj_ahead_run(f.db));
    commit(&f, 3);
    ship(&f, 7); /* a part of what was copied is in the replica by now */
    lj_db_seal(f.db, false);
    assert_int_equal(names(&f, false), 1);
    check_entry(&f, 0, 7, FRAMES + 3);
    end(&f);
}

/* In steps: what a later one adds belongs to the same file. */
static void grown_with_the_wal(void **state)
{
    (void)state;
    fixture f;
    begin(&f);
    commit(&f, FRAMES);
    assert_true(lj_ahead_run(f.db));
    uint64_t before = f.db->ahead.end;
    commit(&f, FRAMES);
    assert_true(lj_ahead_run(f.db));
    assert_true(f.db->ahead.end > before);
    assert_int_equal(f.db->ahead.end, kit_wal_end(&f.wal));
    assert_int_equal(names(&f, true), 1);
    lj_db_seal(f.db, false);
    check_entry(&f, 0, 0, 2 * FRAMES);
    end(&f);
}

static void taken_while_it_is_being_made(void **state)
{
    (void)state;
    fixture f;
    begin(&f);
    commit(&f, FRAMES);
    assert_true(lj_ahead_run(f.db));
    f.db->ahead.busy = true;
    commit(&f, 4);
    lj_db_seal(f.db, false);
    assert_true(f.db->chain.sealed && f.db->chain.active);
    assert_int_equal(names(&f, true), 0);
    assert_int_equal(names(&f, false), 2);
    assert_int_equal(f.db->spool_bytes, kit_wal_end(&f.wal));
    lj_spool_entry first = check_entry(&f, 0, 0, FRAMES);
    lj_spool_remove(f.dir.spool_dir, &first);
    check_entry(&f, 0, FRAMES, FRAMES + 4);
    end(&f);
}

static void of_another_life_it_is_of_no_use(void **state)
{
    (void)state;
    fixture f;
    begin(&f);
    commit(&f, FRAMES);
    assert_true(lj_ahead_run(f.db));
    ship(&f, FRAMES);
    lj_db_seal(f.db, false); /* all of it is shipped: nothing to spool */
    assert_int_equal(names(&f, false), 0);
    kit_wal_begin(&f.wal, f.dir.wal_path, PAGE, 2);
    commit(&f, FRAMES + 9);
    assert_int_equal(f.db->chain.index, 1);
    assert_true(f.db->chain.active);
    lj_db_seal(f.db, false);
    assert_int_equal(names(&f, true), 0);
    check_entry(&f, 1, 0, FRAMES + 9);
    end(&f);
}

/* Another process restarts it, and we have not looked since. */
static void restarted_under_it(void **state)
{
    (void)state;
    fixture f;
    begin(&f);
    commit(&f, FRAMES);
    kit_wal other;
    kit_wal_begin(&other, f.dir.wal_path, PAGE, 2);
    assert_false(lj_ahead_run(f.db)); /* another header */
    assert_int_equal(names(&f, true), 0);
    kit_wal_begin(&f.wal, f.dir.wal_path, PAGE, 1);
    kit_wal_commits(&other, FRAMES / 2, 3, 7);
    assert_false(lj_ahead_run(f.db)); /* frames of another life behind a header of ours */
    assert_int_equal(names(&f, true), 0);
    assert_int_equal(truncate(f.dir.wal_path, 5000), 0);
    assert_false(lj_ahead_run(f.db));
    assert_int_equal(names(&f, true), 0);
    end(&f);
}

static void what_is_shipped_goes(void **state)
{
    (void)state;
    fixture f;
    begin(&f);
    commit(&f, FRAMES);
    assert_true(lj_ahead_run(f.db));
    assert_true(lj_ahead_run(f.db));
    ship(&f, FRAMES);
    assert_false(lj_ahead_run(f.db));
    assert_int_equal(names(&f, true), 0);
    end(&f);
}

static void swept_away_it_is_copied_again(void **state)
{
    (void)state;
    fixture f;
    begin(&f);
    commit(&f, FRAMES);
    assert_true(lj_ahead_run(f.db));
    char path[256];
    snprintf(path, sizeof(path), "%s/%s", f.dir.spool_dir, f.db->ahead.name);
    assert_int_equal(unlink(path), 0);
    commit(&f, 1);
    lj_db_seal(f.db, false);
    assert_true(f.db->chain.sealed && f.db->chain.active);
    check_entry(&f, 0, 0, FRAMES + 1);
    end(&f);
}

/* What is copied ends with a transaction, also a large one. */
static void ends_with_a_transaction(void **state)
{
    (void)state;
    fixture f;
    begin(&f);
    commit(&f, 2);
    for (unsigned i = 0; i < 200; i++)
        kit_wal_frame(&f.wal, 1 + i % 3, i == 199 ? 3 : 0, 2);
    kit_wal_publish(&f.wal, f.db, 3);
    uint64_t committed = kit_wal_end(&f.wal);
    kit_wal_frame(&f.wal, 1, 0, 3); /* of one that has not ended */
    assert_true(lj_ahead_run(f.db));
    assert_int_equal(f.db->ahead.end, committed);
    lj_db_seal(f.db, false);
    check_entry(&f, 0, 0, 202);
    end(&f);
}

static void no_room_or_nothing_to_protect(void **state)
{
    (void)state;
    fixture f;
    begin(&f);
    commit(&f, FRAMES);
    f.db->options.max_spool_size_bytes = 1000;
    assert_false(lj_ahead_run(f.db));
    f.db->options.max_spool_size_bytes = UINT64_C(1) << 30;
    f.db->options.max_wal_size_bytes = UINT64_C(1) << 30; /* a restart is refused before that */
    assert_false(lj_ahead_run(f.db));
    f.db->options.max_wal_size_bytes = 0;
    f.db->chain.active = false;
    assert_false(lj_ahead_run(f.db));
    assert_int_equal(names(&f, true), 0);
    f.db->chain.active = true;
    assert_true(lj_ahead_run(f.db));
    lj_db_break(f.db, "for the test");
    assert_false(lj_ahead_run(f.db));
    assert_int_equal(names(&f, true), 0);
    end(&f);
}

/* What fails once is not tried again and again. */
static void a_failure_is_for_the_whole_life(void **state)
{
    (void)state;
    fixture f;
    begin(&f);
    f.db->ahead.expected = true;
    f.db->options.max_spool_size_bytes = UINT64_C(1) << 30;
    kit_db_file(f.dir.spool_dir, PAGE, 1, 0); /* a file in the place of the folder */
    commit(&f, FRAMES);
    assert_false(lj_ahead_run(f.db));
    wakes = 0;
    for (int i = 0; i < 20; i++)
        commit(&f, FRAMES);
    assert_int_equal(wakes, 0);
    assert_int_equal(unlink(f.dir.spool_dir), 0);
    lj_db_seal(f.db, false);
    check_entry(&f, 0, 0, 21 * FRAMES);
    kit_wal_begin(&f.wal, f.dir.wal_path, PAGE, 2);
    for (int i = 0; i < 20; i++)
        commit(&f, FRAMES);
    assert_true(wakes > 0);
    assert_true(lj_ahead_run(f.db));
    end(&f);
}

static void a_very_long_one_is_left(void **state)
{
    (void)state;
    fixture f;
    begin(&f);
    f.db->options.max_spool_size_bytes = UINT64_C(1) << 30;
    commit(&f, FRAMES);
    assert_true(lj_ahead_run(f.db));
    uint64_t copied = f.db->ahead.end;
    commit(&f, 17000); /* 66 MiB */
    assert_true(lj_ahead_run(f.db));
    assert_int_equal(f.db->ahead.end, copied);
    lj_db_seal(f.db, false);
    assert_int_equal(names(&f, false), 1);
    check_entry(&f, 0, 0, FRAMES + 17000);
    end(&f);
}

/* Commits one frame at a time until somebody is to be woken; the number of frames then. */
static unsigned woken_at(fixture *f, unsigned most)
{
    for (unsigned i = 1; i <= most; i++) {
        commit(f, 1);
        if (wakes > 0)
            return (unsigned)f->wal.frames;
    }
    return 0;
}

static void when_it_begins(void **state)
{
    (void)state;
    fixture f;
    begin(&f);
    f.db->options.max_spool_size_bytes = UINT64_C(1) << 30;
    /* nothing is known: behind half of what SQLite makes of a WAL, and then now and then */
    unsigned first = woken_at(&f, 1000);
    assert_true(first > 500 && first < 800);
    wakes = 0;
    unsigned second = woken_at(&f, 1000);
    assert_true(second > first + 32 && second < first + 300);
    /* the next one is expected to have to be copied as well: from the begin */
    lj_db_seal(f.db, false);
    kit_wal_begin(&f.wal, f.dir.wal_path, PAGE, 2);
    wakes = 0;
    first = woken_at(&f, 1000);
    assert_true(first > 30 && first < 200);
    /* and one behind a life that was shipped in time is not */
    f.db->pos.index = 1;
    ship(&f, (unsigned)f.wal.frames);
    lj_db_seal(f.db, false);
    kit_wal_begin(&f.wal, f.dir.wal_path, PAGE, 3);
    commit(&f, 1);
    assert_false(f.db->ahead.expected);
    /* a life of little is not worth it */
    wakes = 0;
    assert_int_equal(woken_at(&f, 30), 0);
    end(&f);
}

typedef struct {
    fixture *f;
    atomic_bool stop;
} runner;

static void *run_all_the_time(void *ctx)
{
    runner *r = ctx;
    while (!atomic_load(&r->stop))
        (void)lj_ahead_run(r->f->db);
    return NULL;
}

/* The files of an index together have all of it. */
static void check_life(const fixture *f, uint32_t index)
{
    lj_error err = LJ_ERROR_INIT;
    unsigned at = 0;
    while (at < f->wal.frames) {
        lj_spool_entry e;
        assert_ok(lj_spool_first(f->dir.spool_dir, GEN, index, false, &e, &err), &err);
        unsigned to = (unsigned)lj_wal_frames_below(PAGE, e.end);
        check_entry(f, index, at, to);
        lj_spool_remove(f->dir.spool_dir, &e);
        at = to;
    }
    assert_int_equal(at, f->wal.frames);
}

static void beside_a_thread_that_copies(void **state)
{
    (void)state;
    fixture f;
    begin(&f);
    f.db->options.max_spool_size_bytes = UINT64_C(1) << 30;
    runner r = {.f = &f};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, run_all_the_time, &r), 0);
    for (uint32_t life = 0; life < 40; life++) {
        for (unsigned i = 0; i < 20; i++)
            commit(&f, 1 + (life * 7 + i) % 13);
        lj_db_seal(f.db, false);
        assert_true(f.db->chain.sealed && f.db->chain.active);
        check_life(&f, life);
        kit_wal_begin(&f.wal, f.dir.wal_path, PAGE, life + 2);
    }
    atomic_store(&r.stop, true);
    pthread_join(thread, NULL);
    lj_ahead_drop(f.db);
    assert_int_equal(names(&f, true), 0);
    assert_int_equal(names(&f, false), 0);
    end(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(taken_whole),
        cmocka_unit_test(what_a_killed_process_left_is_swept),
        cmocka_unit_test(what_came_since_is_added),
        cmocka_unit_test(grown_with_the_wal),
        cmocka_unit_test(taken_while_it_is_being_made),
        cmocka_unit_test(of_another_life_it_is_of_no_use),
        cmocka_unit_test(restarted_under_it),
        cmocka_unit_test(what_is_shipped_goes),
        cmocka_unit_test(swept_away_it_is_copied_again),
        cmocka_unit_test(ends_with_a_transaction),
        cmocka_unit_test(no_room_or_nothing_to_protect),
        cmocka_unit_test(a_failure_is_for_the_whole_life),
        cmocka_unit_test(a_very_long_one_is_left),
        cmocka_unit_test(when_it_begins),
        cmocka_unit_test(beside_a_thread_that_copies),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
