/* saved_test.c - pages come back as they were saved, from the memory, from the file behind it, and while one becomes the other. */
#include "test/unit/capture/kit.h"

#include "vfs/base/io.h"
#include "vfs/capture/saved.h"

#define PAGE 65536u
#define ROOM (LJ_SAVED_MEMORY_BYTES / PAGE) /* 128 pages */

typedef struct {
    kit_dir dir;
    pthread_mutex_t mutex;
    lj_saved saved;
    uint8_t page[PAGE];
} fixture;

static void begin(fixture *f, uint64_t most_bytes)
{
    lj_error err = LJ_ERROR_INIT;
    kit_dir_make(&f->dir);
    assert_ok(lj_io_mkdirs(f->dir.state_dir, 0700, &err), &err);
    pthread_mutex_init(&f->mutex, NULL);
    f->saved = (lj_saved)LJ_SAVED_INIT;
    assert_ok(lj_saved_open(&f->saved, f->dir.state_dir, most_bytes, &err), &err);
    f->saved.page_size = PAGE;
}

static void end(fixture *f)
{
    lj_saved_free(&f->saved);
    pthread_mutex_destroy(&f->mutex);
    kit_dir_remove(&f->dir);
}

static void add(fixture *f, uint32_t pgno)
{
    lj_error err = LJ_ERROR_INIT;
    memset(f->page, (int)(pgno % 251), PAGE);
    memcpy(f->page, &pgno, sizeof(pgno));
    assert_ok(lj_saved_add(&f->saved, pgno, f->page, &err), &err);
}

static void flush(fixture *f)
{
    lj_error err = LJ_ERROR_INIT;
    assert_ok(lj_saved_flush(&f->saved, &f->mutex, &err), &err);
}

static void expect(fixture *f, uint32_t first, uint32_t last)
{
    lj_error err = LJ_ERROR_INIT;
    for (uint32_t pgno = first; pgno <= last; pgno++) {
        bool found = false;
        uint32_t got = 0;
        assert_ok(lj_saved_read(&f->saved, pgno, f->page, &found, &err), &err);
        assert_true(found && lj_saved_has(&f->saved, pgno));
        memcpy(&got, f->page, sizeof(got));
        assert_int_equal(got, pgno);
        assert_int_equal(f->page[PAGE - 1], pgno % 251);
    }
}

static void in_memory_and_in_the_file(void **state)
{
    (void)state;
    fixture f;
    bool found = true;
    begin(&f, UINT64_MAX);
    add(&f, 1); /* before there is memory */
    lj_saved_prepare(&f.saved, &f.mutex);
    for (uint32_t pgno = 2; pgno <= 1 + ROOM + 10; pgno++) /* the last ten find no room */
        add(&f, pgno);
    assert_int_equal(f.saved.used, ROOM);
    expect(&f, 1, 1 + ROOM + 10);
    flush(&f);
    assert_int_equal(f.saved.used, 0);
    expect(&f, 1, 1 + ROOM + 10);
    for (uint32_t pgno = 1001; pgno <= 1020; pgno++)
        add(&f, pgno);
    expect(&f, 1, 1 + ROOM + 10);
    expect(&f, 1001, 1020);
    flush(&f);
    flush(&f); /* nothing to do */
    expect(&f, 1, 1 + ROOM + 10);
    expect(&f, 1001, 1020);
    lj_error err = LJ_ERROR_INIT;
    assert_ok(lj_saved_read(&f.saved, 999, f.page, &found, &err), &err);
    assert_false(found || lj_saved_has(&f.saved, 999));
    end(&f);
}

static void never_more_than_allowed(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    fixture f;
    begin(&f, UINT64_C(3) * PAGE);
    lj_saved_prepare(&f.saved, &f.mutex);
    for (uint32_t pgno = 1; pgno <= 3; pgno++)
        add(&f, pgno);
    assert_int_equal(lj_saved_add(&f.saved, 4, f.page, &err), LJ_NOSPACE);
    assert_non_null(strstr(err.message, "max_spool_size"));
    end(&f);
}

static void *add_many(void *ctx)
{
    fixture *f = ctx;
    uint8_t *page = malloc(PAGE);
    for (uint32_t pgno = 1; pgno <= 3000; pgno++) {
        lj_error err = LJ_ERROR_INIT;
        memset(page, (int)(pgno % 251), PAGE);
        memcpy(page, &pgno, sizeof(pgno));
        pthread_mutex_lock(&f->mutex);
        assert_ok(lj_saved_add(&f->saved, pgno, page, &err), &err);
        pthread_mutex_unlock(&f->mutex);
    }
    free(page);
    return NULL;
}

/* Flushed all the time, while another thread adds more than fits: at each moment everything that was added is there. */
static void flushed_while_more_come(void **state)
{
    (void)state;
    fixture f;
    pthread_t thread;
    begin(&f, UINT64_MAX);
    lj_saved_prepare(&f.saved, &f.mutex);
    assert_int_equal(pthread_create(&thread, NULL, add_many, &f), 0);
    for (uint32_t seen = 0; seen < 3000;) {
        flush(&f);
        pthread_mutex_lock(&f.mutex);
        seen = (uint32_t)f.saved.pages.count;
        expect(&f, seen > 150 ? seen - 150 : 1, seen);
        pthread_mutex_unlock(&f.mutex);
    }
    pthread_join(thread, NULL);
    flush(&f);
    expect(&f, 1, 3000);
    end(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(in_memory_and_in_the_file),
        cmocka_unit_test(never_more_than_allowed),
        cmocka_unit_test(flushed_while_more_come),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
