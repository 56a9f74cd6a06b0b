/* spool_test.c - copies and links, the order they are found in, foreign and unfinished files. */
#include "test/unit/capture/kit.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vfs/base/io.h"
#include "vfs/capture/spool.h"
#include "vfs/capture/walfile.h"

#define PAGE  1024u
#define GEN   "00000000000000aa"
#define OTHER "00000000000000bb"

static lj_spool_entry entry_of(const char *generation, uint32_t index, uint64_t start, uint64_t end)
{
    lj_spool_entry e = {.start = {.index = index, .offset = start}, .end = end};
    snprintf(e.start.generation, sizeof(e.start.generation), "%s", generation);
    return e;
}

static int open_wal(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    return fd;
}

static void copy(const kit_dir *kit, const lj_spool_entry *entry)
{
    lj_error err = LJ_ERROR_INIT;
    LJ_CLEANUP(lj_closep) int fd = open_wal(kit->wal_path);
    assert_ok(lj_spool_copy(kit->spool_dir, entry, fd, &err), &err);
}

static unsigned files_in(const char *dir)
{
    char command[256];
    unsigned n = 0;
    snprintf(command, sizeof(command), "ls -A '%s' | wc -l", dir);
    FILE *pipe = popen(command, "r");
    assert_int_equal(fscanf(pipe, "%u", &n), 1);
    pclose(pipe);
    return n;
}

/* The entry holds the header and start..end of the WAL at their own offsets. */
static void expect_range(const kit_dir *kit, const lj_spool_entry *entry, const kit_wal *wal)
{
    lj_error err = LJ_ERROR_INIT;
    LJ_CLEANUP(lj_closep) int spooled = -1;
    assert_ok(lj_spool_open(kit->spool_dir, entry, &spooled, &err), &err);
    LJ_CLEANUP(lj_closep) int live = open_wal(wal->path);
    LJ_CLEANUP(lj_freep) uint8_t *a = calloc(1, entry->end);
    LJ_CLEANUP(lj_freep) uint8_t *b = calloc(1, entry->end);
    size_t n = 0;
    assert_ok(lj_io_pread(spooled, a, entry->end, 0, &n, &err), &err);
    assert_int_equal(n, entry->end);
    assert_ok(lj_io_pread(live, b, entry->end, 0, &n, &err), &err);
    assert_memory_equal(a, b, LJ_WAL_HEADER_BYTES);
    assert_memory_equal(a + entry->start.offset, b + entry->start.offset,
                        entry->end - entry->start.offset);
}

static void copies_ranges(void **state)
{
    const kit_dir *kit = *state;
    kit_wal wal;
    kit_wal_begin(&wal, kit->wal_path, PAGE, 1);
    kit_wal_commits(&wal, 400, 5, 1); /* more than one chunk of the copy */
    lj_spool_entry whole = entry_of(GEN, 3, 0, kit_wal_end(&wal));
    lj_spool_entry tail = entry_of(GEN, 3, lj_wal_frame_offset(PAGE, 100), kit_wal_end(&wal));
    copy(kit, &whole);
    expect_range(kit, &whole, &wal);
    copy(kit, &tail);
    expect_range(kit, &tail, &wal);
    assert_int_equal(files_in(kit->spool_dir), 2);
    assert_int_equal(lj_spool_bytes(kit->spool_dir, GEN),
                     whole.end + (tail.end - tail.start.offset));
    /* twice is once */
    copy(kit, &tail);
    assert_int_equal(files_in(kit->spool_dir), 2);
    lj_spool_remove(kit->spool_dir, &whole);
    lj_spool_remove(kit->spool_dir, &whole);
    assert_int_equal(files_in(kit->spool_dir), 1);
}

static void short_wal_leaves_nothing(void **state)
{
    const kit_dir *kit = *state;
    lj_error err = LJ_ERROR_INIT;
    kit_wal wal;
    kit_wal_begin(&wal, kit->wal_path, PAGE, 1);
    kit_wal_commits(&wal, 2, 5, 1);
    lj_spool_entry e = entry_of(GEN, 0, 0, kit_wal_end(&wal) + 1);
    LJ_CLEANUP(lj_closep) int fd = open_wal(kit->wal_path);
    assert_int_equal(lj_spool_copy(kit->spool_dir, &e, fd, &err), LJ_CORRUPT);
    assert_int_equal(files_in(kit->spool_dir), 0);
}

static void folder_that_cannot_be_made(void **state)
{
    const kit_dir *kit = *state;
    lj_error err = LJ_ERROR_INIT;
    kit_wal wal;
    kit_wal_begin(&wal, kit->wal_path, PAGE, 1);
    kit_wal_commits(&wal, 1, 1, 1);
    assert_ok(lj_io_replace_file(kit->spool_dir, "x", 1, 0600, false, &err), &err);
    lj_spool_entry e = entry_of(GEN, 0, 0, kit_wal_end(&wal));
    LJ_CLEANUP(lj_closep) int fd = open_wal(kit->wal_path);
    assert_int_not_equal(lj_spool_copy(kit->spool_dir, &e, fd, &err), LJ_OK);
    assert_int_not_equal(lj_spool_link(kit->spool_dir, &e, kit->wal_path, fd, &err), LJ_OK);
    assert_int_equal(lj_spool_bytes(kit->spool_dir, GEN), 0);
}

static void link_keeps_what_is_deleted(void **state)
{
    const kit_dir *kit = *state;
    lj_error err = LJ_ERROR_INIT;
    kit_wal wal;
    kit_wal_begin(&wal, kit->wal_path, PAGE, 1);
    kit_wal_commits(&wal, 3, 5, 1);
    lj_spool_entry e = entry_of(GEN, 1, 0, kit_wal_end(&wal));
    {
        LJ_CLEANUP(lj_closep) int fd = open_wal(kit->wal_path);
        assert_ok(lj_spool_link(kit->spool_dir, &e, kit->wal_path, fd, &err), &err);
        struct stat a;
        assert_int_equal(fstat(fd, &a), 0);
        assert_int_equal(a.st_nlink, 2);
        /* a second time the name is taken: it is copied over */
        assert_ok(lj_spool_link(kit->spool_dir, &e, kit->wal_path, fd, &err), &err);
    }
    unlink(kit->wal_path);
    LJ_CLEANUP(lj_closep) int fd = -1;
    assert_ok(lj_spool_open(kit->spool_dir, &e, &fd, &err), &err);
    lj_wal_chain chain;
    lj_wal_verdict verdict;
    lj_wal_chain_start(&chain, &wal.header);
    assert_ok(lj_walfile_walk(fd, &chain, UINT64_MAX, NULL, NULL, &verdict, &err), &err);
    assert_int_equal(chain.committed, 3);
}

static void found_in_order(void **state)
{
    const kit_dir *kit = *state;
    lj_error err = LJ_ERROR_INIT;
    kit_wal wal;
    kit_wal_begin(&wal, kit->wal_path, PAGE, 1);
    kit_wal_commits(&wal, 4, 5, 1);
    const uint64_t off[] = {0, lj_wal_frame_offset(PAGE, 2), lj_wal_frame_offset(PAGE, 3)};
    const lj_spool_entry made[] = {
        entry_of(GEN, 0x10, off[1], kit_wal_end(&wal)), entry_of(GEN, 2, off[2], kit_wal_end(&wal)),
        entry_of(GEN, 0x10, off[0], off[1]), entry_of(GEN, 9, off[0], kit_wal_end(&wal)),
        entry_of(OTHER, 0, 0, kit_wal_end(&wal))};
    for (size_t i = 0; i < LJ_ARRAY_LEN(made); i++)
        copy(kit, &made[i]);
    const size_t order[] = {1, 3, 2, 0};
    for (size_t i = 0; i < LJ_ARRAY_LEN(order); i++) {
        lj_spool_entry e;
        assert_ok(lj_spool_first(kit->spool_dir, GEN, 0, false, &e, &err), &err);
        assert_int_equal(lj_position_compare(&e.start, &made[order[i]].start), 0);
        assert_int_equal(e.end, made[order[i]].end);
        assert_string_equal(e.start.generation, GEN);
        assert_ok(lj_spool_first(kit->spool_dir, GEN, 0x10, false, &e, &err), &err);
        assert_int_equal(e.start.index, 0x10);
        assert_int_equal(lj_spool_first(kit->spool_dir, GEN, 0x11, false, &e, &err), LJ_NOTFOUND);
        lj_spool_remove(kit->spool_dir, &made[order[i]]);
    }
    assert_int_equal(lj_spool_bytes(kit->spool_dir, GEN), 0);
    assert_true(lj_spool_bytes(kit->spool_dir, OTHER) > 0);
}

static void holds(void **state)
{
    const kit_dir *kit = *state;
    kit_wal wal;
    kit_wal_begin(&wal, kit->wal_path, PAGE, 1);
    kit_wal_commits(&wal, 4, 5, 1);
    lj_spool_entry e = entry_of(GEN, 5, lj_wal_frame_offset(PAGE, 2), lj_wal_frame_offset(PAGE, 4));
    copy(kit, &e);
    lj_position at = e.start;
    assert_true(kit_spool_holds(kit->spool_dir, &at));
    at.offset = e.end - 1;
    assert_true(kit_spool_holds(kit->spool_dir, &at));
    at.offset = e.end;
    assert_false(kit_spool_holds(kit->spool_dir, &at));
    at.offset = 0;
    assert_false(kit_spool_holds(kit->spool_dir, &at));
    at = e.start;
    at.index = 6;
    assert_false(kit_spool_holds(kit->spool_dir, &at));
    at = e.start;
    snprintf(at.generation, sizeof(at.generation), "%s", OTHER);
    assert_false(kit_spool_holds(kit->spool_dir, &at));
}

static void touch(const kit_dir *kit, const char *name)
{
    lj_error err = LJ_ERROR_INIT;
    char path[300];
    snprintf(path, sizeof(path), "%s/%s", kit->spool_dir, name);
    assert_ok(lj_io_replace_file(path, "x", 1, 0600, false, &err), &err);
}

static void other_files(void **state)
{
    const kit_dir *kit = *state;
    lj_error err = LJ_ERROR_INIT;
    lj_spool_entry e;
    assert_int_equal(lj_spool_first(kit->spool_dir, GEN, 0, true, &e, &err), LJ_NOTFOUND);
    assert_int_equal(mkdir(kit->spool_dir, 0700), 0);
    touch(kit, "notes.txt");                                                /* not ours: stays */
    touch(kit, GEN "-00000001-000000000000-00000000041g.wal");              /* not a name of ours */
    touch(kit, GEN "-80000000-000000000000-000000000418.wal");              /* no such index */
    touch(kit, GEN "-00000001-000000000000-000000000418-000000000000.wal"); /* no such end */
    touch(kit, GEN "-00000001-000000000000-000000000418.wal.tmp");          /* in the making */
    touch(kit, OTHER "-00000001-000000000000-000000000418.wal"); /* of another generation */
    touch(kit, OTHER "-00000001-000000000000-000000000838.wal.tmp");
    assert_int_equal(lj_spool_first(kit->spool_dir, GEN, 0, false, &e, &err), LJ_NOTFOUND);
    assert_int_equal(files_in(kit->spool_dir), 7);
    assert_int_equal(lj_spool_first(kit->spool_dir, GEN, 0, true, &e, &err), LJ_NOTFOUND);
    assert_int_equal(files_in(kit->spool_dir), 5);
}

/* Of a generation that was given up; another one may be spooling by then. */
static void one_generation_is_dropped(void **state)
{
    const kit_dir *kit = *state;
    assert_int_equal(mkdir(kit->spool_dir, 0700), 0);
    touch(kit, "notes.txt");
    touch(kit, GEN "-00000001-000000000000-000000000418.wal");
    touch(kit, GEN "-00000002-000000000000-000000000418-000000000418.wal");
    touch(kit, OTHER "-00000000-000000000000-000000000418.wal");
    touch(kit, OTHER "-00000001-000000000000-000000000838.wal.tmp");
    lj_spool_drop(kit->spool_dir, GEN);
    assert_int_equal(files_in(kit->spool_dir), 3);
    lj_spool_drop(kit->spool_dir, "");
    assert_int_equal(files_in(kit->spool_dir), 3);
    assert_int_equal(lj_spool_bytes(kit->spool_dir, OTHER), 0x418);
}

/* An entry with the begin of an index says where the one before it ended. */
static void the_end_before_is_known(void **state)
{
    const kit_dir *kit = *state;
    lj_error err = LJ_ERROR_INIT;
    kit_wal wal;
    uint64_t end = 1;
    kit_wal_begin(&wal, kit->wal_path, PAGE, 7);
    kit_wal_commits(&wal, 2, 3, 1);
    lj_spool_entry e = entry_of(GEN, 5, 0, kit_wal_end(&wal));
    e.prev_end = 0x418;
    copy(kit, &e);
    lj_spool_entry found;
    assert_ok(lj_spool_first(kit->spool_dir, GEN, 4, false, &found, &err), &err);
    assert_int_equal(found.start.index, 5);
    assert_int_equal(found.end, e.end);
    assert_int_equal(found.prev_end, 0x418);
    expect_range(kit, &found, &wal);
    assert_ok(lj_spool_prev_end(kit->spool_dir, GEN, 5, &end, &err), &err);
    assert_int_equal(end, 0x418);
    assert_int_equal(lj_spool_prev_end(kit->spool_dir, GEN, 4, &end, &err), LJ_NOTFOUND);
    assert_int_equal(lj_spool_prev_end(kit->spool_dir, OTHER, 5, &end, &err), LJ_NOTFOUND);

    lj_spool_entry silent = entry_of(GEN, 6, 0, kit_wal_end(&wal));
    copy(kit, &silent);
    assert_ok(lj_spool_prev_end(kit->spool_dir, GEN, 6, &end, &err), &err);
    assert_int_equal(end, 0);
    lj_spool_entry later = entry_of(GEN, 7, 0x418, kit_wal_end(&wal)); /* not the begin */
    copy(kit, &later);
    assert_int_equal(lj_spool_prev_end(kit->spool_dir, GEN, 7, &end, &err), LJ_NOTFOUND);

    lj_spool_remove(kit->spool_dir, &found);
    assert_int_equal(lj_spool_prev_end(kit->spool_dir, GEN, 5, &end, &err), LJ_NOTFOUND);
}

static void a_folder_that_cannot_be_read_is_not_empty(void **state)
{
    const kit_dir *kit = *state;
    lj_error err = LJ_ERROR_INIT;
    lj_spool_entry e;
    uint64_t end = 0;
    assert_int_equal(mkdir(kit->spool_dir, 0700), 0);
    struct rlimit old;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
    struct rlimit none = {.rlim_cur = 3, .rlim_max = old.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    lj_code first = lj_spool_first(kit->spool_dir, GEN, 0, false, &e, &err);
    lj_code before = lj_spool_prev_end(kit->spool_dir, GEN, 1, &end, &err);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
    assert_true(first != LJ_OK && first != LJ_NOTFOUND);
    assert_true(before != LJ_OK && before != LJ_NOTFOUND);
}

/* A process that was killed in the middle of a copy leaves it; one that is at it now keeps it. */
static void unfinished_copies_are_swept(void **state)
{
    const kit_dir *kit = *state;
    char path[300];
    assert_int_equal(mkdir(kit->spool_dir, 0700), 0);
    lj_spool_sweep(kit->dir); /* no spool: nothing happens */
    touch(kit, GEN "-00000001-000000000000-000000000418.wal.tmp");
    touch(kit, GEN "-00000002-000000000000-000000000418.wal.tmp");
    touch(kit, GEN "-00000003-000000000000-000000000418.wal");
    struct timespec times[2] = {{.tv_sec = time(NULL) - 3600}, {.tv_sec = time(NULL) - 3600}};
    snprintf(path, sizeof(path), "%s/" GEN "-00000001-000000000000-000000000418.wal.tmp",
             kit->spool_dir);
    assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
    snprintf(path, sizeof(path), "%s/" GEN "-00000003-000000000000-000000000418.wal",
             kit->spool_dir);
    assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
    lj_spool_sweep(kit->spool_dir);
    assert_int_equal(files_in(kit->spool_dir), 2);
    assert_true(kit_exists(path));
}

#define ONE(fn) cmocka_unit_test_setup_teardown(fn, kit_dir_setup, kit_dir_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ONE(copies_ranges),
        ONE(short_wal_leaves_nothing),
        ONE(folder_that_cannot_be_made),
        ONE(link_keeps_what_is_deleted),
        ONE(found_in_order),
        ONE(holds),
        ONE(other_files),
        ONE(one_generation_is_dropped),
        ONE(the_end_before_is_known),
        ONE(a_folder_that_cannot_be_read_is_not_empty),
        ONE(unfinished_copies_are_swept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
