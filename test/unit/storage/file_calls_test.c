/* file_calls_test.c - a folder with links in it, one whose system calls fail or say less than they could, and what is synced when. */
#include "test/unit/unit.h"

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "test/unit/storage/bytes.h"
#include "test/unit/storage/conformance.h"
#include "test/unit/storage/file_kit.h"
#include "vfs/base/str.h"

#define KIB ((uint64_t)1024)

/* ---- in the place of libc's ---- */

static bool hide_kinds;      /* a file system that does not say what its names are */
static _Atomic ino_t synced; /* the folder that was synced last */
static bool no_folder_syncs;
static atomic_uint folder_syncs;
static int wait_errno; /* of a wait for a piece of a file that is written out; 0: none fails */
static int write_errno;
static bool no_unlinks;

struct dirent *readdir(DIR *dirp)
{
    static struct dirent *(*real)(DIR *);
    if (real == NULL) /* with 64-bit offsets it is another function */
        *(void **)&real = dlsym(RTLD_NEXT, "readdir64");
    if (real == NULL)
        *(void **)&real = dlsym(RTLD_NEXT, "readdir");
    struct dirent *entry = real(dirp);
    if (entry != NULL && hide_kinds)
        entry->d_type = DT_UNKNOWN;
    return entry;
}

int fsync(int fd)
{
    struct stat st;
    bool folder = fstat(fd, &st) == 0 && S_ISDIR(st.st_mode);
    if (folder && no_folder_syncs) {
        errno = EIO;
        return -1;
    }
    if (folder)
        synced = st.st_ino;
    folder_syncs += folder ? 1 : 0;
    return (int)syscall(SYS_fsync, fd);
}

int sync_file_range(int fd, off_t offset, off_t count, unsigned flags)
{
    errno = (flags & SYNC_FILE_RANGE_WRITE) != 0 ? write_errno : wait_errno;
    return errno == 0 ? (int)syscall(SYS_sync_file_range, fd, offset, count, flags) : -1;
}

int unlink(const char *name)
{
    if (no_unlinks) {
        errno = EROFS;
        return -1;
    }
    return unlinkat(AT_FDCWD, name, 0);
}

static void expect_nowhere(lj_storage *storage, const char *key)
{
    lj_error err = LJ_ERROR_INIT;
    key_list list = {.keys = NULL};
    assert_int_equal(lj_storage_list(storage, "generations/", NULL, key_list_add, &list, &err),
                     LJ_UNAVAILABLE);
    assert_true(err.retryable);
    assert_non_null(strstr(err.message, "is a link"));
    assert_non_null(strstr(err.hint, "mount"));
    key_list_free(&list);
    lj_storage_entry entry;
    assert_int_equal(lj_storage_head(storage, key, &entry, &err), LJ_UNAVAILABLE);
    bytes_sink got;
    lj_sink sink = bytes_sink_new(&got, 1, 0);
    assert_int_equal(lj_storage_get(storage, key, 0, -1, &sink, &err), LJ_UNAVAILABLE);
}

/* Somebody moved a part of the replica elsewhere and left a link: it is no replica without a backup. */
static void links_of_the_layout(void **state)
{
    file_fixture *f = *state;
    lj_error err = LJ_ERROR_INIT;
    assert_ok(bytes_put(f->storage, SNAPSHOT, 1, 5, true, &err), &err);
    assert_ok(bytes_put(f->storage, SEGMENT, 2, 5, true, &err), &err);
    static const char *const moved[] = {GENERATION "snapshots", SEGMENT,
                                        "generations/0123456789abcdef", "generations"};
    for (size_t i = 0; i < 2 * LJ_ARRAY_LEN(moved); i++) {
        char path[512];
        char away[512];
        key_list list;
        hide_kinds = i % 2 == 1;
        snprintf(path, sizeof(path), "%s/%s", f->root, moved[i / 2]);
        snprintf(away, sizeof(away), "%s/away%zu", f->folder, i);
        assert_int_equal(rename(path, away), 0);
        assert_int_equal(symlink(away, path), 0);
        key_list_read(f->storage, "generations/", NULL, &list);
        assert_int_equal(list.count, 2);
        assert_string_equal(list.keys[0], SNAPSHOT);
        assert_string_equal(list.keys[1], SEGMENT);
        key_list_free(&list);
        key_list_read(f->storage, GENERATION "wal/", NULL, &list);
        assert_int_equal(list.count, 1);
        key_list_free(&list);
        bytes_expect(f->storage, SNAPSHOT, 1, 5);
        /* what it leads to is not mounted */
        assert_int_equal(rename(away, file_in(f, "unmounted")), 0);
        expect_nowhere(f->storage, i / 2 == 1 ? SEGMENT : SNAPSHOT);
        assert_int_equal(rename(file_in(f, "unmounted"), away), 0);
        if (i % 2 == 0) {
            assert_int_equal(unlink(path), 0);
            assert_int_equal(rename(away, path), 0);
        }
    }
    hide_kinds = false;
    /* a link to itself cannot be looked behind; one that others left there is nobody's */
    key_list list = {.keys = NULL};
    assert_int_equal(symlink("nowhere", file_in(f, "r/generations/nowhere")), 0);
    key_list_read(f->storage, "generations/", NULL, &list);
    assert_int_equal(list.count, 2);
    key_list_free(&list);
    assert_int_equal(symlink("fedcba9876543210", file_in(f, "r/generations/fedcba9876543210")), 0);
    assert_int_equal(lj_storage_list(f->storage, "generations/", NULL, key_list_add, &list, &err),
                     LJ_IO);
    key_list_free(&list);
}

static void a_root_that_leads_nowhere(void **state)
{
    file_fixture *f = *state;
    lj_error err = LJ_ERROR_INIT;
    assert_int_equal(symlink("not-mounted", file_in(f, "mnt")), 0);
    for (int below = 0; below < 2; below++) {
        lj_storage *storage = NULL;
        LJ_CLEANUP(lj_freep)
        char *url = lj_str_printf("file://%s/mnt%s", f->folder, below == 1 ? "/sub/root" : "");
        assert_ok(lj_storage_open(url, NULL, &storage, &err), &err);
        expect_nowhere(storage, SNAPSHOT);
        assert_int_equal(bytes_put(storage, SNAPSHOT, 1, 5, true, &err), LJ_UNAVAILABLE);
        assert_non_null(strstr(err.message, "is a link"));
        lj_storage_close(storage);
    }
}

/* A folder of which only the names can be read, where they do not say what they are. */
static void names_that_cannot_be_looked_at(void **state)
{
    file_fixture *f = *state;
    lj_error err = LJ_ERROR_INIT;
    assert_ok(bytes_put(f->storage, SNAPSHOT, 1, 5, true, &err), &err);
    assert_int_equal(chmod(f->folder, 0755), 0);
    assert_int_equal(chmod(f->root, 0755), 0);
    assert_int_equal(chmod(file_in(f, "r/generations"), 0444), 0);
    if (!file_become_nobody())
        skip();
    hide_kinds = true;
    key_list list = {.keys = NULL};
    lj_code code = lj_storage_list(f->storage, "generations/", NULL, key_list_add, &list, &err);
    hide_kinds = false;
    file_become_myself();
    key_list_free(&list);
    assert_int_equal(code, LJ_DENIED);
}

/* Who was killed between giving a name and syncing the folder leaves an object that a power cut may still take. */
static void a_name_that_is_taken_is_durable(void **state)
{
    file_fixture *f = *state;
    lj_error err = LJ_ERROR_INIT;
    struct stat st;
    assert_ok(bytes_put(f->storage, SEGMENT, 1, 5, true, &err), &err);
    assert_int_equal(stat(file_in(f, "r/" GENERATION "wal"), &st), 0);
    assert_true(synced == st.st_ino);
    synced = 0;
    assert_int_equal(bytes_put(f->storage, SEGMENT, 1, 5, true, &err), LJ_EXISTS);
    assert_true(synced == st.st_ino);
}

/* The begin of an index is the last to go, in a power cut as well: Litestream restores nothing from a generation that lacks it. */
static void an_index_goes_before_its_begin(void **state)
{
    file_fixture *f = *state;
    lj_error err = LJ_ERROR_INIT;
    static const char *const keys[] = {"g/wal/1_2", "g/wal/1_1", "g/wal/1_0",
                                       "g/wal/2_0", "g/wal/3_1", "g/wal/3_0"};
    for (size_t i = 0; i < LJ_ARRAY_LEN(keys); i++)
        assert_ok(bytes_put(f->storage, keys[i], 1, 5, true, &err), &err);
    folder_syncs = 0;
    assert_ok(lj_storage_delete_many(f->storage, keys, LJ_ARRAY_LEN(keys), NULL, NULL, &err), &err);
    assert_int_equal(folder_syncs, 3); /* before each of two begins, and at the end */
}

/* An object whose name cannot be made durable is none; and when it cannot be removed either nobody says that it is none. */
static void a_name_that_cannot_be_synced(void **state)
{
    file_fixture *f = *state;
    lj_error err = LJ_ERROR_INIT;
    lj_storage_entry entry;
    assert_ok(bytes_put(f->storage, "g/before", 1, 5, true, &err), &err);
    no_folder_syncs = true;
    lj_code gone = bytes_put(f->storage, "g/gone", 1, 5, true, &err);
    no_unlinks = true;
    lj_code stays = bytes_put(f->storage, "g/stays", 1, 5, true, &err);
    no_folder_syncs = false;
    no_unlinks = false;
    assert_int_equal(gone, LJ_IO);
    assert_int_equal(lj_storage_head(f->storage, "g/gone", &entry, &err), LJ_NOTFOUND);
    assert_int_equal(stays, LJ_UNAVAILABLE);
    assert_ok(lj_storage_head(f->storage, "g/stays", &entry, &err), &err);
}

/* A failure that the wait for a piece is told of is told to nobody else: the fsync at the end succeeds. */
static void a_piece_that_cannot_be_written(void **state)
{
    file_fixture *f = *state;
    lj_error err = LJ_ERROR_INIT;
    wait_errno = EIO;
    assert_int_equal(bytes_put(f->storage, "g/broken", 1, KIB * KIB, true, &err), LJ_IO);
    wait_errno = ENOSPC;
    assert_int_equal(bytes_put(f->storage, "g/broken", 1, KIB * KIB, true, &err), LJ_NOSPACE);
    assert_true(err.retryable);
    assert_non_null(strstr(err.message, "g/.broken"));
    assert_int_equal(file_entries(file_in(f, "r/g")), 0);
    /* a system without it, or one that forbids it */
    wait_errno = EPERM;
    write_errno = EPERM;
    assert_ok(bytes_put(f->storage, "g/whole", 1, KIB * KIB, true, &err), &err);
    wait_errno = 0;
    write_errno = 0;
    bytes_expect(f->storage, "g/whole", 1, KIB * KIB);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FILE_CASE(links_of_the_layout),
        FILE_CASE(a_root_that_leads_nowhere),
        FILE_CASE(names_that_cannot_be_looked_at),
        FILE_CASE(a_name_that_is_taken_is_durable),
        FILE_CASE(a_name_that_cannot_be_synced),
        FILE_CASE(an_index_goes_before_its_begin),
        FILE_CASE(a_piece_that_cannot_be_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
