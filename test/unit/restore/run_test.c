/*
 * run_test.c - replicas made frame by frame, restored and compared byte by byte; then the same replicas damaged in every
 * way, where the answer must be an error that leaves no file, with a hint that leads to a state that was committed.
 */
#include "test/unit/restore/world.h"

#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vfs/base/clock.h"
#include "vfs/base/io.h"
#include "vfs/restore/restore.h"

static char folder[64];
static char out_path[96];

static int make_folder(void **state)
{
    (void)state;
    snprintf(folder, sizeof(folder), "/tmp/lj_run_test.XXXXXX");
    if (mkdtemp(folder) == NULL)
        return -1;
    snprintf(out_path, sizeof(out_path), "%s/out.db", folder);
    return 0;
}

static void clear_folder(void)
{
    DIR *dir = opendir(folder);
    assert_non_null(dir);
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        char path[400];
        snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name);
        if (entry->d_name[0] != '.')
            unlink(path);
    }
    closedir(dir);
}

static int remove_folder(void **state)
{
    (void)state;
    clear_folder();
    return rmdir(folder);
}

static size_t folder_entries(void)
{
    size_t n = 0;
    DIR *dir = opendir(folder);
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;)
        n += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
    closedir(dir);
    return n;
}

static lj_code restore_with(memory_replica *m, const lj_restore_options *options,
                            lj_restore_result *result, lj_error *err)
{
    lj_restore_plan *plan = NULL;
    LJ_TRY(lj_restore_plan_make(m->storage, options, &plan, err));
    lj_code code = lj_restore_run(m->storage, plan, out_path, options, result, err);
    lj_restore_plan_free(plan);
    return code;
}

static void assert_output(const uint8_t *bytes, size_t len)
{
    char *data = NULL;
    size_t n = 0;
    lj_error err = LJ_ERROR_INIT;
    assert_ok(lj_io_read_file(out_path, (size_t)1 << 30, &data, &n, &err), &err);
    assert_int_equal(n, len);
    assert_memory_equal(data, bytes, len);
    free(data);
    assert_int_equal(folder_entries(), 1);
    assert_int_equal(unlink(out_path), 0);
}

static void assert_restores(memory_replica *m, const lj_restore_options *options,
                            const world_state *state)
{
    lj_restore_result result = {.segments = 0};
    lj_error err = LJ_ERROR_INIT;
    assert_ok(restore_with(m, options, &result, &err), &err);
    assert_int_equal(result.db_bytes, state->len);
    assert_output(state->bytes, state->len);
}

/* Fails with `code`, and leaves nothing. */
static void assert_fails(memory_replica *m, const lj_restore_options *options, lj_code code,
                         lj_error *err)
{
    lj_restore_result result = {.segments = 4711};
    lj_code got = restore_with(m, options, &result, err);
    if (got != code)
        fail_msg("%s instead of %s: %s", lj_code_text(got), lj_code_text(code), err->message);
    assert_int_equal(result.segments, 4711);
    assert_int_equal(folder_entries(), 0);
}

static const uint32_t growth[] = {9, 12, 12, 20, 5, 7, 30, 30, 11, 6, 6, 25};

/*
 * Snapshot at index 1, three indexes of four transactions, a segment for each, object times 1000, 1001, ...: state i was
 * reached at 1000 + i.
 */
static void make_history(world *w, memory_replica *m, uint32_t page_size, bool big_endian)
{
    memory_open(m);
    world_open(w, page_size, big_endian, 8);
    world_put_snapshot(m, 1, &w->states[0], 1000);
    for (uint32_t index = 1; index <= 3; index++) {
        world_begin_index(w, index);
        uint64_t from = 0;
        for (unsigned k = 0; k < 4; k++) {
            world_transaction(w, growth[(index - 1) * 4 + k]);
            world_put_segment(m, w, from, w->wal_len, 1000 + (int64_t)w->state_count - 1);
            from = w->wal_len;
        }
    }
}

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
    assert_int_equal(reports, 1);
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
        cmocka_unit_test(unaligned_cuts),
        cmocka_unit_test(every_object_damaged),
        cmocka_unit_test(bad_frames),
        cmocka_unit_test(partial_transactions),
        cmocka_unit_test(stale_tails),
        cmocka_unit_test(empty_things),
        cmocka_unit_test(page_size_must_agree),
        cmocka_unit_test(transfers_that_break),
        cmocka_unit_test(objects_that_vanish),
        cmocka_unit_test(output_is_never_overwritten),
        cmocka_unit_test(modes_and_parents),
        cmocka_unit_test(progress_and_cancel),
        cmocka_unit_test(large_segments),
        cmocka_unit_test(hundred_thousand_segments),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
