/*
 * restorer.h - runs a restore into a folder of its own and compares; shared by run_test.c and damage_test.c.
 */
#ifndef LJ_RESTORER_H
#define LJ_RESTORER_H

#include "test/unit/restore/world.h"

#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vfs/base/clock.h"
#include "vfs/base/io.h"
#include "vfs/restore/restore.h"

static char folder[64];
static char out_path[96];

static inline int make_folder(void **state)
{
    (void)state;
    snprintf(folder, sizeof(folder), "/tmp/lj_run_test.XXXXXX");
    if (mkdtemp(folder) == NULL)
        return -1;
    snprintf(out_path, sizeof(out_path), "%s/out.db", folder);
    return 0;
}

static inline void clear_folder(void)
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

static inline int remove_folder(void **state)
{
    (void)state;
    clear_folder();
    return rmdir(folder);
}

static inline size_t folder_entries(void)
{
    size_t n = 0;
    DIR *dir = opendir(folder);
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;)
        n += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
    closedir(dir);
    return n;
}

static inline lj_code restore_with(memory_replica *m, const lj_restore_options *options,
                                   lj_restore_result *result, lj_error *err)
{
    lj_restore_plan *plan = NULL;
    LJ_TRY(lj_restore_plan_make(m->storage, options, &plan, err));
    lj_code code = lj_restore_run(m->storage, plan, out_path, options, result, err);
    lj_restore_plan_free(plan);
    return code;
}

static inline void assert_output(const uint8_t *bytes, size_t len)
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

static inline void assert_restores(memory_replica *m, const lj_restore_options *options,
                                   const world_state *state)
{
    lj_restore_result result = {.segments = 0};
    lj_error err = LJ_ERROR_INIT;
    assert_ok(restore_with(m, options, &result, &err), &err);
    assert_int_equal(result.db_bytes, state->len);
    assert_output(state->bytes, state->len);
}

/* Fails with `code`, and leaves nothing. */
static inline void assert_fails(memory_replica *m, const lj_restore_options *options, lj_code code,
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
static inline void make_history(world *w, memory_replica *m, uint32_t page_size, bool big_endian)
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

#endif
