/*
 * run_test.c - replicas made frame by frame, restored and compared byte by byte: every page size, byte order, cut and
 * target; transfers that break, objects that vanish, and everything about the output file.
 */
#include "test/unit/restore/restorer.h"

#include "vfs/restore/output.h"

static void every_page_size_and_target(void **state)
{
    (void)state;
    for (uint32_t page_size = 512; page_size <= 65536; page_size *= 2) {
        for (int big_endian = 0; big_endian <= 1; big_endian++) {
            world w;
            memory_replica m;
            make_history(&w, &m, page_size, big_endian != 0);
            m.shuffle = page_size + 1;
            lj_restore_options options = {.parallelism = 1 + page_size / 512 % 9};
            assert_restores(&m, &options, &w.states[12]);
            for (size_t i = 0; i < w.state_count && page_size <= 4096; i++) {
                options.timestamp_ns = 1000 + (int64_t)i;
                assert_restores(&m, &options, &w.states[i]);
            }
            options.timestamp_ns = 0;
            options.has_index = true;
            for (options.index = 1; options.index <= 4; options.index++)
                assert_restores(&m, &options, &w.states[LJ_MIN(options.index, 3u) * 4]);
            memory_free(&m);
            world_close(&w);
        }
    }
}

static void result_says_where(void **state)
{
    (void)state;
    world w;
    memory_replica m;
    make_history(&w, &m, 1024, false);
    lj_restore_options options = {.timestamp_ns = 1006};
    lj_restore_result result = {.segments = 0};
    lj_error err = LJ_ERROR_INIT;
    assert_ok(restore_with(&m, &options, &result, &err), &err);
    assert_string_equal(result.position.generation, WORLD_GENERATION);
    assert_int_equal(result.position.index, 2);
    assert_int_equal(result.position.offset, w.states[6].offset);
    assert_int_equal(result.snapshot_index, 1);
    assert_int_equal(result.page_size, 1024);
    assert_int_equal(result.segments, 6);
    assert_int_equal(result.wal_bytes, w.states[4].offset + w.states[6].offset);
    assert_int_equal(result.time_ns, 1006);
    assert_true(result.has_wal);
    assert_false(result.at_end);
    assert_output(w.states[6].bytes, w.states[6].len);
    options.timestamp_ns = 0;
    assert_ok(restore_with(&m, &options, &result, &err), &err);
    assert_true(result.at_end);
    assert_output(w.states[12].bytes, w.states[12].len);
    memory_free(&m);
    world_close(&w);
}

/* Nothing of its index is there yet, and nobody can tell whether all of the index before it is. */
static void behind_a_snapshot_of_litestream(void **state)
{
    (void)state;
    world w;
    memory_replica m;
    make_history(&w, &m, 512, false);
    lj_restore_options options = {0};
    lj_restore_result result;
    lj_error err = LJ_ERROR_INIT;
    for (size_t i = 1; i < m.count; i++)
        m.objects[i].hidden = true;
    assert_ok(restore_with(&m, &options, &result, &err), &err);
    assert_true(result.at_end); /* a generation that has just begun */
    assert_output(w.states[0].bytes, w.states[0].len);
    for (size_t i = 1; i < m.count; i++)
        m.objects[i].hidden = false;
    world_put_snapshot(&m, 4, &w.states[12], 1013);
    assert_ok(restore_with(&m, &options, &result, &err), &err);
    assert_false(result.at_end);
    assert_output(w.states[12].bytes, w.states[12].len);
    options.has_snapshot = true;
    options.snapshot_index = 1;
    world_begin_index(&w, 4);
    world_put_segment(&m, &w, 0, w.wal_len, 1014);
    assert_ok(restore_with(&m, &options, &result, &err), &err);
    assert_true(result.at_end);
    assert_output(w.states[12].bytes, w.states[12].len);
    memory_free(&m);
    world_close(&w);
}

/* One index cut anywhere, also inside the header and with empty segments between. */
static void unaligned_cuts(void **state)
{
    (void)state;
    for (unsigned seed = 1; seed <= 40; seed++) {
        world w;
        memory_replica m;
        memory_open(&m);
        world_open(&w, 512, seed % 2 == 0, 8);
        w.seed = seed;
        world_put_snapshot(&m, 0, &w.states[0], 1000);
        world_begin_index(&w, 0);
        for (unsigned k = 0; k < 6; k++)
            world_transaction(&w, growth[k]);
        uint64_t from = 0;
        while (from < w.wal_len) {
            uint64_t to = from + 1 + world_random(&w, seed * 40);
            to = LJ_MIN(to, w.wal_len);
            world_put_segment(&m, &w, from, to, 1001);
            from = to;
        }
        world_put_segment(&m, &w, from, from, 1002); /* valid LZ4, no bytes */
        lj_restore_options options = {.parallelism = seed % 5 + 1};
        assert_restores(&m, &options, &w.states[6]);
        memory_free(&m);
        world_close(&w);
    }
}

static void empty_things(void **state)
{
    (void)state;
    world w;
    memory_replica m;
    memory_open(&m);
    world_open(&w, 4096, false, 3);
    lj_restore_options options = {0};
    world_state nothing = {.bytes = w.states[0].bytes, .len = 0};
    world_put_snapshot(&m, 0, &nothing, 1000);
    assert_restores(&m, &options, &nothing); /* as v0.3.13 */
    w.pages = 0;
    world_begin_index(&w, 0);
    world_put_segment(&m, &w, 0, 0, 1001); /* no bytes ... */
    assert_restores(&m, &options, &nothing);
    memory_replica header_only;
    memory_open(&header_only);
    world_put_snapshot(&header_only, 0, &w.states[0], 1000);
    world_put_segment(&header_only, &w, 0, 32, 1001); /* ... only a header */
    assert_restores(&header_only, &options, &w.states[0]);
    memory_free(&header_only);
    world_transaction(&w, 4); /* writes every page */
    m.objects[1].hidden = true;
    world_put_segment(&m, &w, 0, w.wal_len, 1001);
    assert_restores(&m, &options, &w.states[1]);

    lj_error err = LJ_ERROR_INIT;
    char key[LJ_NAME_MAX];
    lj_name_snapshot(WORLD_GENERATION, 9, key);
    memory_put_lz4(&m, key, "no database at all", 18, 2000);
    assert_fails(&m, &options, LJ_CORRUPT, &err);
    assert_non_null(strstr(err.hint, "-snapshot") != NULL ? err.hint : strstr(err.hint, "-index"));
    m.objects[m.count - 1].hidden = true;
    lj_name_snapshot(WORLD_GENERATION, 10, key);
    memory_put_lz4(&m, key, w.states[0].bytes, w.states[0].len - 5, 2001);
    assert_fails(&m, &options, LJ_CORRUPT, &err);
    assert_non_null(strstr(err.message, "whole number of pages"));
    memory_free(&m);
    world_close(&w);
}

/* What an encryption above the VFS wrote has no header to go by: only the WAL tells the page size. */
static void ciphertext_comes_back_as_it_is(void **state)
{
    (void)state;
    for (uint32_t page_size = 512; page_size <= 65536; page_size *= 8) {
        world w;
        memory_replica m;
        memory_open(&m);
        world_open_as(&w, page_size, false, 5, true);
        lj_restore_options options = {0};
        world_put_snapshot(&m, 0, &w.states[0], 1000);
        assert_restores(&m, &options, &w.states[0]);
        world_begin_index(&w, 0);
        world_transaction(&w, 9);
        world_transaction(&w, 3);
        world_put_segment(&m, &w, 0, w.wal_len, 1001);
        assert_restores(&m, &options, &w.states[2]);

        /* a snapshot that is no whole number of the WAL's pages, or of any pages */
        lj_error err = LJ_ERROR_INIT;
        for (size_t less = 512; less >= 1 && page_size > 512; less = less == 512 ? 1 : 0) {
            char key[LJ_NAME_MAX];
            m.objects[0].hidden = true;
            lj_name_snapshot(WORLD_GENERATION, 0, key);
            memory_put_lz4(&m, key, w.states[0].bytes, w.states[0].len - less, 1000);
            assert_fails(&m, &options, LJ_CORRUPT, &err);
            m.objects[m.count - 1].hidden = true;
        }
        memory_free(&m);
        world_close(&w);
    }
}

static void page_size_must_agree(void **state)
{
    (void)state;
    world small;
    world large;
    memory_replica m;
    memory_open(&m);
    world_open(&small, 512, false, 8);
    world_open(&large, 1024, false, 8);
    world_put_snapshot(&m, 0, &small.states[0], 1000);
    world_begin_index(&large, 0);
    world_transaction(&large, 9);
    world_put_segment(&m, &large, 0, large.wal_len, 1001);
    lj_restore_options options = {0};
    lj_error err = LJ_ERROR_INIT;
    assert_fails(&m, &options, LJ_CORRUPT, &err);
    memory_free(&m);
    world_close(&small);
    world_close(&large);
}

static void transfers_that_break(void **state)
{
    (void)state;
    world w;
    memory_replica m;
    make_history(&w, &m, 4096, false);
    lj_restore_options options = {0};
    m.break_after = 3000; /* resumes at the byte it has, as often as there is progress */
    m.failing_gets = 3;
    assert_restores(&m, &options, &w.states[12]);
    m.break_after = 0;
    m.failing_gets = 1 << 20; /* down for good */
    m.gets = 0;
    lj_error err = LJ_ERROR_INIT;
    assert_fails(&m, &options, LJ_UNAVAILABLE, &err);
    assert_true(m.gets < 200);
    memory_free(&m);
    world_close(&w);
}

/* Retention runs between the plan and the fetch: the newer snapshot of a second listing is used. */
static void appear(void *replica)
{
    memory_replica *m = replica;
    if (m->lists < 2)
        return;
    for (size_t i = 0; i < m->count; i++) {
        if (m->objects[i].gone)
            m->objects[i].hidden = true;
        else
            m->objects[i].hidden = false;
    }
}

static void objects_that_vanish(void **state)
{
    (void)state;
    world w;
    memory_replica m;
    make_history(&w, &m, 512, false);
    lj_restore_options options = {0};
    lj_error err = LJ_ERROR_INIT;
    m.objects[2].gone = true; /* listed, never there */
    assert_fails(&m, &options, LJ_GAP, &err);
    assert_non_null(strstr(err.message, "was listed but is gone"));
    world_put_snapshot(&m, 3, &w.states[8], 1008);
    for (size_t i = 0; i < 9; i++)
        m.objects[i].gone = true;
    m.objects[m.count - 1].hidden = true;
    m.on_list = appear;
    m.lists = 0;
    assert_restores(&m, &options, &w.states[12]);
    memory_free(&m);
    world_close(&w);
}

/* An object came while the listing was read, and was missed, and the one behind it was not: the next listing has both. */
static void holes_of_one_listing(void **state)
{
    (void)state;
    world w;
    memory_replica m;
    make_history(&w, &m, 512, false);
    lj_restore_options options = {.parallelism = 3};
    m.on_list = appear;
    for (size_t i = 0; i + 1 < m.count; i++) {
        if (i != 0 && i % 4 == 0)
            continue; /* the end of an index: without labels nothing tells */
        m.objects[i].hidden = true;
        m.lists = 0;
        assert_restores(&m, &options, &w.states[12]);
        assert_int_equal(m.lists, 2);
    }
    memory_free(&m);
    world_close(&w);
}

/* The old generation went behind the next one's first snapshot, and the listing has neither: the next listing has the new one. */
static void nothing_in_one_listing(void **state)
{
    (void)state;
    world w;
    memory_replica m;
    make_history(&w, &m, 512, false);
    lj_restore_options options = {0};
    for (size_t i = 0; i < m.count; i++)
        m.objects[i].hidden = true;
    m.on_list = appear;
    assert_restores(&m, &options, &w.states[12]);
    assert_int_equal(m.lists, 2);
    memory_free(&m);
    world_close(&w);
}

/* A backup that cannot be read is no empty replica; a folder that only looks like one is. */
static void a_replica_of_v05_is_not_empty(void **state)
{
    (void)state;
    static const char *const keys[] = {"ltx/1/0000000000000001-0000000000000003.ltx",
                                       "0009/0000000000000001-0000000000000003.ltx"};
    lj_restore_options options = {0};
    lj_error err = LJ_ERROR_INIT;
    for (size_t i = 0; i < LJ_ARRAY_LEN(keys); i++) {
        memory_replica m;
        memory_open(&m);
        memory_put_raw(&m, "0001/lock.json", "{}", 2, 1000);
        memory_put_raw(&m, "app/ltx/1/0000000000000001-0000000000000003.ltx", "LTX1", 4, 1000);
        assert_fails(&m, &options, LJ_NOTFOUND, &err);
        memory_put_raw(&m, keys[i], "LTX1", 4, 1000);
        assert_fails(&m, &options, LJ_UNSUPPORTED, &err);
        assert_non_null(strstr(err.message, "v0.5"));
        assert_non_null(strstr(err.message, keys[i]));
        world w;
        world_open(&w, 512, false, 3);
        world_put_snapshot(&m, 0, &w.states[0], 1000);
        assert_restores(&m, &options, &w.states[0]); /* both may be there */
        world_close(&w);
        memory_free(&m);
    }
}

static void write_text(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static void output_is_never_overwritten(void **state)
{
    (void)state;
    world w;
    memory_replica m;
    make_history(&w, &m, 512, false);
    lj_restore_options options = {0};
    lj_restore_result result = {.segments = 0};
    lj_error err = LJ_ERROR_INIT;
    write_text(out_path, "mine");
    assert_int_equal(restore_with(&m, &options, &result, &err), LJ_EXISTS);
    options.overwrite_empty = true;
    assert_int_equal(restore_with(&m, &options, &result, &err), LJ_EXISTS);
    write_text(out_path, "");
    assert_restores(&m, &options, &w.states[12]);
    options.overwrite_empty = false;

    static const char *const ends[] = {"-wal", "-shm", "-journal"};
    for (size_t i = 0; i < LJ_ARRAY_LEN(ends); i++) {
        char stale[120];
        snprintf(stale, sizeof(stale), "%s%s", out_path, ends[i]);
        write_text(stale, "old");
        options.remove_stale_wal = false;
        assert_int_equal(restore_with(&m, &options, &result, &err), LJ_EXISTS);
        assert_int_equal(folder_entries(), 1);
        assert_non_null(strstr(err.message, ends[i]));
        options.remove_stale_wal = true;
        assert_restores(&m, &options, &w.states[12]);
    }
    memory_free(&m);
    world_close(&w);
}

/* Another program made a database of this name while it was being restored: that one, and the files beside it, stay. */
static void a_database_that_appears_meanwhile_is_left(void **state)
{
    (void)state;
    static const char *const ends[] = {"", "-wal", "-shm"};
    const lj_restore_options options = {.remove_stale_wal = true, .overwrite_empty = true};
    LJ_CLEANUP(lj_output_close) lj_output output = LJ_OUTPUT_INIT;
    lj_error err = LJ_ERROR_INIT;
    assert_ok(lj_output_open(&output, out_path, &options, &err), &err);
    for (size_t i = 0; i < LJ_ARRAY_LEN(ends); i++) {
        char name[120];
        snprintf(name, sizeof(name), "%s%s", out_path, ends[i]);
        write_text(name, "theirs");
    }
    assert_int_equal(lj_output_publish(&output, &err), LJ_EXISTS);
    for (size_t i = 0; i < LJ_ARRAY_LEN(ends); i++) {
        char name[120];
        snprintf(name, sizeof(name), "%s%s", out_path, ends[i]);
        assert_int_equal(unlink(name), 0);
    }
}

static void modes_and_parents(void **state)
{
    (void)state;
    world w;
    memory_replica m;
    make_history(&w, &m, 512, false);
    char kept[96];
    memcpy(kept, out_path, sizeof(kept));
    struct stat st;
    lj_restore_options options = {.mode = 0640};
    lj_restore_result result = {.segments = 0};
    lj_error err = LJ_ERROR_INIT;
    snprintf(out_path, sizeof(out_path), "%s/a/b/out.db", folder);
    assert_ok(restore_with(&m, &options, &result, &err), &err);
    assert_int_equal(stat(out_path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0640);
    unlink(out_path);
    options.mode = 0;
    assert_ok(restore_with(&m, &options, &result, &err), &err);
    assert_int_equal(stat(out_path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    unlink(out_path);
    *strrchr(out_path, '/') = 0;
    rmdir(out_path);
    *strrchr(out_path, '/') = 0;
    rmdir(out_path);
    memcpy(out_path, kept, sizeof(kept));
    memory_free(&m);
    world_close(&w);
}

static bool stop_now;

static void stop_at_first(void *ctx, const lj_restore_progress *progress)
{
    (void)progress;
    *(int *)ctx += 1;
    __atomic_store_n(&stop_now, true, __ATOMIC_RELAXED);
}

static void count_reports(void *ctx, const lj_restore_progress *progress)
{
    *(lj_restore_progress *)ctx = *progress;
}

static void progress_and_cancel(void **state)
{
    (void)state;
    world w;
    memory_replica m;
    make_history(&w, &m, 4096, false);
    lj_restore_progress last = {0};
    lj_restore_options options = {.progress = count_reports, .progress_ctx = &last};
    assert_restores(&m, &options, &w.states[12]);
    assert_int_equal(last.objects_done, 13);
    assert_int_equal(last.objects_total, 13);
    assert_int_equal(last.bytes_done, last.bytes_total);
    assert_string_equal(last.phase, "write");
    int reports = 0;
    stop_now = false;
    options = (lj_restore_options){
        .progress = stop_at_first, .progress_ctx = &reports, .cancel = &stop_now};
    lj_error err = LJ_ERROR_INIT;
    assert_fails(&m, &options, LJ_CANCELLED, &err);
    assert_true(reports >=
                1); /* the next is due 0.2 s later, if another thread is still at it then */
    memory_free(&m);
    world_close(&w);
}

/* A segment larger than a slot is streamed; several of them wait for each other. */
static void large_segments(void **state)
{
    (void)state;
    for (unsigned parallelism = 1; parallelism <= 6; parallelism++) {
        world w;
        memory_replica m;
        memory_open(&m);
        world_open(&w, 65536, false, 8);
        world_put_snapshot(&m, 0, &w.states[0], 1000);
        for (uint32_t index = 0; index < 4; index++) {
            world_begin_index(&w, index);
            world_transaction(&w, 8 + (index + 1) * 14);
            world_transaction(&w, 8);
            world_put_segment(&m, &w, 0, w.states[w.state_count - 2].offset, 1001 + index);
            world_put_segment(&m, &w, w.states[w.state_count - 2].offset, w.wal_len, 1001 + index);
        }
        lj_restore_options options = {.parallelism = parallelism};
        assert_restores(&m, &options, &w.states[w.state_count - 1]);
        memory_free(&m);
        world_close(&w);
    }
}

/* A12: very many tiny segments. */
static void hundred_thousand_segments(void **state)
{
    (void)state;
    enum { SEGMENTS = 100000, PAGES = 32 };
    world w;
    memory_replica m;
    memory_open(&m);
    world_open(&w, 512, false, PAGES);
    world_put_snapshot(&m, 0, &w.states[0], 1000);
    world_begin_index(&w, 0);
    char key[LJ_NAME_MAX];
    lj_position at = {.generation = WORLD_GENERATION};
    uint64_t offset = 0;
    for (uint32_t i = 0; i < SEGMENTS; i++) {
        uint32_t pgno = 2 + i % (PAGES - 1);
        uint8_t *page = w.db + (size_t)(pgno - 1) * 512;
        lj_put_be32(page, i);
        if (i > 0)
            w.wal_len = 0;
        world_frame(&w, pgno, PAGES);
        at.offset = offset;
        lj_name_wal(&at, key);
        memory_put_lz4(&m, key, w.wal, w.wal_len, 1001 + i);
        offset += w.wal_len;
    }
    world_remember(&w);
    lj_restore_options options = {0};
    int64_t start = lj_clock_mono_ns();
    assert_restores(&m, &options, &w.states[1]);
    print_message("100,000 segments: %.2f s\n",
                  (double)(lj_clock_mono_ns() - start) / (double)LJ_NS_PER_S);
    memory_free(&m);
    world_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_page_size_and_target),
        cmocka_unit_test(result_says_where),
        cmocka_unit_test(behind_a_snapshot_of_litestream),
        cmocka_unit_test(unaligned_cuts),
        cmocka_unit_test(empty_things),
        cmocka_unit_test(ciphertext_comes_back_as_it_is),
        cmocka_unit_test(page_size_must_agree),
        cmocka_unit_test(transfers_that_break),
        cmocka_unit_test(objects_that_vanish),
        cmocka_unit_test(holes_of_one_listing),
        cmocka_unit_test(nothing_in_one_listing),
        cmocka_unit_test(a_replica_of_v05_is_not_empty),
        cmocka_unit_test(output_is_never_overwritten),
        cmocka_unit_test(a_database_that_appears_meanwhile_is_left),
        cmocka_unit_test(modes_and_parents),
        cmocka_unit_test(progress_and_cancel),
        cmocka_unit_test(large_segments),
        cmocka_unit_test(hundred_thousand_segments),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
