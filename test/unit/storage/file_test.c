/* file_test.c - the conformance suite on a folder, and what only file:// has. */
#include "test/unit/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "test/unit/storage/bytes.h"
#include "test/unit/storage/conformance.h"
#include "test/unit/storage/file_kit.h"
#include "vfs/base/clock.h"
#include "vfs/base/io.h"
#include "vfs/base/str.h"
#include "vfs/storage/file/internal.h"

#define KIB ((uint64_t)1024)

static void conformance(void **state)
{
    file_fixture *f = *state;
    conformance_setup setup = {
        .storage = f->storage, .many_keys = 2500, .large_bytes = 64 * KIB * KIB};
    assert_int_equal(conformance_run(&setup), 0);
    assert_int_equal(file_entries(f->root), 0); /* no folder, no temporary file left */
}

static void modes_and_layout(void **state)
{
    file_fixture *f = *state;
    lj_error err = LJ_ERROR_INIT;
    struct stat st;
    assert_int_equal(stat(f->root, &st), -1);
    assert_ok(bytes_put(f->storage, "generations/0123456789abcdef/wal/a", 1, 5, true, &err), &err);
    assert_int_equal(stat(file_in(f, "r/generations/0123456789abcdef/wal/a"), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(st.st_size, 5);
    assert_int_equal(stat(file_in(f, "r/generations/0123456789abcdef"), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0700);
    assert_int_equal(stat(f->root, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0700);
    /* the last deletion takes the folders with it, but not the root */
    const char *const key = "generations/0123456789abcdef/wal/a";
    assert_ok(lj_storage_delete_many(f->storage, &key, 1, NULL, NULL, &err), &err);
    assert_int_equal(file_entries(f->root), 0);
    /* a name too long for a temporary name made from it, and one too long for a file */
    char name[300];
    memset(name, 'x', sizeof(name));
    name[255] = 0;
    assert_ok(bytes_put(f->storage, name, 1, 5, true, &err), &err);
    bytes_expect(f->storage, name, 1, 5);
    name[255] = 'x';
    name[256] = 0;
    assert_int_equal(bytes_put(f->storage, name, 1, 5, true, &err), LJ_IO);
    assert_int_equal(err.sys_errno, ENAMETOOLONG);
    assert_int_equal(file_entries(f->root), 1);
}

typedef struct {
    const file_fixture *f;
    bool seen;
    bool done;
} spying_source;

/* Looks at the store in the middle of a put. */
static lj_code spy_read(void *ctx, void *out, size_t max, size_t *ret_n, lj_error *err)
{
    spying_source *spy = ctx;
    (void)err;
    if (spy->done) {
        key_list list;
        key_list_read(spy->f->storage, "", NULL, &list);
        assert_int_equal(list.count, 1);
        key_list_free(&list);
        spy->seen = file_entries(file_in(spy->f, "r/a")) == 2;
        *ret_n = 0;
        return LJ_OK;
    }
    spy->done = true;
    memset(out, 1, max);
    *ret_n = max;
    return LJ_OK;
}

static void unfinished_puts_are_invisible(void **state)
{
    file_fixture *f = *state;
    lj_error err = LJ_ERROR_INIT;
    assert_ok(bytes_put(f->storage, "a/present", 1, 5, true, &err), &err);
    spying_source spy = {.f = f};
    lj_source source = {.ctx = &spy, .read = spy_read, .size = -1};
    assert_ok(lj_storage_put(f->storage, "a/new", &source, NULL, &err), &err);
    assert_true(spy.seen);
    assert_int_equal(file_entries(file_in(f, "r/a")), 2);

    static const struct {
        const char *name;
        bool temp;
    } rows[] = {{".x.0123456789abcdef.tmp", true},     {"..0123456789abcdef.tmp", true},
                {".0123456789abcdef.tmp", false},      {"x.0123456789abcdef.tmp", false},
                {".x.0123456789abcdeF.tmp", false},    {".x.0123456789abcdef.tm", false},
                {".x.0123456789abcde.tmp", false},     {".", false},
                {".00000001.snapshot.lz4.tmp", false}, {"00000001.snapshot.lz4", false}};
    for (size_t i = 0; i < LJ_ARRAY_LEN(rows); i++)
        assert_int_equal(lj_file_is_temp(rows[i].name), rows[i].temp);
    LJ_CLEANUP(lj_freep) char *made = lj_file_temp_name("00000001.snapshot.lz4");
    assert_true(lj_file_is_temp(made));
    /* such a name is no key */
    file_write(file_in(f, "r/a/.x.0123456789abcdef.tmp"));
    LJ_CLEANUP(lj_closep) int held = open(file_in(f, "r/a/.x.0123456789abcdef.tmp"), O_RDONLY);
    assert_int_equal(flock(held, LOCK_EX), 0);
    lj_storage_entry entry;
    const char *const key = "a/.x.0123456789abcdef.tmp";
    assert_int_equal(bytes_put(f->storage, key, 1, 1, false, &err), LJ_INVALID);
    assert_int_equal(lj_storage_head(f->storage, key, &entry, &err), LJ_NOTFOUND);
    assert_ok(lj_storage_delete_many(f->storage, &key, 1, NULL, NULL, &err), &err);
    assert_int_equal(file_entries(file_in(f, "r/a")), 3);
}

static void stale_temporary_files_go(void **state)
{
    file_fixture *f = *state;
    lj_error err = LJ_ERROR_INIT;
    assert_ok(bytes_put(f->storage, "a/object", 1, 5, true, &err), &err);
    file_write(file_in(f, "r/a/.x.0123456789abcdef.tmp"));
    file_write(file_in(f, "r/a/00000001.snapshot.lz4.tmp")); /* another program's */
    /* an old modification time alone says nothing: puts set it */
    const struct timespec old[2] = {{.tv_sec = 1000}, {.tv_sec = 1000}};
    assert_int_equal(utimensat(AT_FDCWD, file_in(f, "r/a/.x.0123456789abcdef.tmp"), old, 0), 0);
    int64_t now = lj_clock_wall_ns();
    /* somebody is writing it */
    LJ_CLEANUP(lj_closep) int held = open(file_in(f, "r/a/.x.0123456789abcdef.tmp"), O_RDONLY);
    assert_int_equal(flock(held, LOCK_EX), 0);
    lj_file_sweep(file_in(f, "r/a"), now + 25 * 3600 * LJ_NS_PER_S);
    assert_int_equal(file_entries(file_in(f, "r/a")), 3);
    lj_closep(&held);
    lj_file_sweep(file_in(f, "r/a"), now);
    assert_int_equal(file_entries(file_in(f, "r/a")), 2);
    lj_file_sweep(file_in(f, "r/none"), now);
}

/* The ways to take a free name for file systems without the usual one. */
static void every_way_to_publish(void **state)
{
    file_fixture *f = *state;
    lj_error err = LJ_ERROR_INIT;
    const lj_file_way ways[] = {LJ_FILE_BY_RENAME, LJ_FILE_BY_LINK, LJ_FILE_BY_LOCK};
    for (size_t i = 0; i < LJ_ARRAY_LEN(ways); i++) {
        file_write(file_in(f, "temp"));
        assert_ok(
            lj_file_publish_new(file_in(f, "temp"), file_in(f, "final"), f->folder, ways[i], &err),
            &err);
        assert_int_equal(file_entries(f->folder), 1);
        file_write(file_in(f, "temp"));
        assert_int_equal(
            lj_file_publish_new(file_in(f, "temp"), file_in(f, "final"), f->folder, ways[i], &err),
            LJ_EXISTS);
        assert_int_equal(file_entries(f->folder), 2);
        assert_int_equal(lj_file_publish_new(file_in(f, "temp"), file_in(f, "no/final"),
                                             file_in(f, "no"), ways[i], &err),
                         LJ_NOTFOUND);
        unlink(file_in(f, "final"));
        unlink(file_in(f, "temp"));
    }
    /* a link whose answer was lost is ours */
    file_write(file_in(f, "temp"));
    assert_int_equal(link(file_in(f, "temp"), file_in(f, "final")), 0);
    assert_ok(lj_file_publish_new(file_in(f, "temp"), file_in(f, "final"), f->folder,
                                  LJ_FILE_BY_LINK, &err),
              &err);
    assert_int_equal(file_entries(f->folder), 1);
}

static void root_that_is_a_file(void **state)
{
    file_fixture *f = *state;
    lj_error err = LJ_ERROR_INIT;
    lj_storage_entry entry;
    const char *const key = "generations/a";
    for (int below = 0; below < 2; below++) {
        lj_storage *storage = NULL;
        file_write(file_in(f, "plain"));
        LJ_CLEANUP(lj_freep)
        char *url = lj_str_printf("file://%s/plain%s", f->folder, below == 1 ? "/sub/root" : "");
        assert_ok(lj_storage_open(url, NULL, &storage, &err), &err);
        key_list list = {.keys = NULL};
        assert_int_equal(lj_storage_list(storage, "", NULL, key_list_add, &list, &err), LJ_INVALID);
        assert_non_null(strstr(err.message, "is a file"));
        assert_true(err.hint[0] != 0);
        assert_int_equal(lj_storage_list(storage, "generations/", NULL, key_list_add, &list, &err),
                         LJ_INVALID);
        assert_int_equal(bytes_put(storage, key, 1, 1, true, &err), LJ_INVALID);
        assert_true(err.hint[0] != 0);
        assert_int_equal(lj_storage_head(storage, key, &entry, &err), LJ_INVALID);
        assert_int_equal(lj_storage_delete_many(storage, &key, 1, NULL, NULL, &err), LJ_INVALID);
        lj_storage_close(storage);
    }
    /* an object where a key has a folder */
    assert_ok(bytes_put(f->storage, "a", 1, 1, true, &err), &err);
    assert_int_equal(bytes_put(f->storage, "a/b/c", 1, 1, true, &err), LJ_INVALID);
    assert_int_equal(lj_storage_head(f->storage, "a/b", &entry, &err), LJ_NOTFOUND);
    key_list list;
    key_list_read(f->storage, "a/b/", NULL, &list);
    assert_int_equal(list.count, 0);
    /* and the other way round */
    assert_ok(bytes_put(f->storage, "d/e", 1, 1, true, &err), &err);
    assert_int_equal(bytes_put(f->storage, "d", 1, 1, true, &err), LJ_EXISTS);
    assert_int_not_equal(bytes_put(f->storage, "d", 1, 1, false, &err), LJ_OK);
    assert_int_equal(lj_storage_head(f->storage, "d", &entry, &err), LJ_NOTFOUND);
    assert_int_equal(file_entries(f->root), 2);
}

static void without_permission(void **state)
{
    file_fixture *f = *state;
    lj_error err = LJ_ERROR_INIT;
    assert_ok(bytes_put(f->storage, "g/a/1", 1, 5, true, &err), &err);
    assert_ok(bytes_put(f->storage, "g/b/1", 1, 5, true, &err), &err);
    assert_int_equal(chmod(f->folder, 0755), 0);
    assert_int_equal(chmod(f->root, 0755), 0);
    if (!file_become_nobody())
        skip();
    if (getuid() != 0)
        assert_int_equal(chmod(file_in(f, "r/g"), 0), 0);
    /* an unreadable folder is never an empty list */
    key_list list = {.keys = NULL};
    lj_storage_entry entry;
    assert_int_equal(lj_storage_list(f->storage, "", NULL, key_list_add, &list, &err), LJ_DENIED);
    assert_int_equal(lj_storage_list(f->storage, "g/a/", NULL, key_list_add, &list, &err),
                     LJ_DENIED);
    assert_int_equal(list.count, 0);
    assert_int_equal(lj_storage_head(f->storage, "g/a/1", &entry, &err), LJ_DENIED);
    assert_int_equal(bytes_put(f->storage, "g/new", 1, 5, true, &err), LJ_DENIED);
    assert_true(err.hint[0] != 0);
    file_become_myself();

    /* readable but not writable: what is there stays, and a deletion ends at the first failure */
    assert_int_equal(chmod(file_in(f, "r/g"), 0755), 0);
    assert_int_equal(chmod(file_in(f, "r/g/a"), 0555), 0);
    assert_int_equal(chmod(file_in(f, "r/g/b"), 0777), 0);
    assert_true(file_become_nobody());
    assert_int_equal(bytes_put(f->storage, "g/a/2", 1, 5, false, &err), LJ_DENIED);
    assert_int_equal(bytes_put(f->storage, "g/a/deeper/2", 1, 5, false, &err), LJ_DENIED);
    static const char *const keys[] = {"g/a/1", "g/b/1"};
    assert_int_equal(lj_storage_delete_many(f->storage, keys, 2, NULL, NULL, &err), LJ_DENIED);
    assert_non_null(strstr(err.message, "g/a/1"));
    file_become_myself();
    key_list_read(f->storage, "", NULL, &list);
    assert_int_equal(list.count, 2);
    key_list_free(&list);
}

static void unreadable_root(void **state)
{
    file_fixture *f = *state;
    lj_error err = LJ_ERROR_INIT;
    assert_ok(bytes_put(f->storage, "a", 1, 5, true, &err), &err);
    assert_int_equal(chmod(f->folder, 0755), 0);
    assert_int_equal(chmod(f->root, geteuid() == 0 ? 0700 : 0), 0);
    if (!file_become_nobody())
        skip();
    key_list list = {.keys = NULL};
    assert_int_equal(lj_storage_list(f->storage, "", NULL, key_list_add, &list, &err), LJ_DENIED);
    assert_int_equal(lj_storage_list(f->storage, "x/", NULL, key_list_add, &list, &err), LJ_DENIED);
    file_become_myself();
}

/* A full disk, by a limit of the process: the write fails in the middle. */
static void write_that_fails(void **state)
{
    file_fixture *f = *state;
    lj_error err = LJ_ERROR_INIT;
    struct rlimit before;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    struct rlimit small = {.rlim_cur = 100 * KIB, .rlim_max = before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    lj_code code = bytes_put(f->storage, "a/b", 1, 500 * KIB, true, &err);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    signal(SIGXFSZ, handler);
    assert_int_equal(code, LJ_IO);
    assert_int_equal(err.sys_errno, EFBIG);
    assert_non_null(strstr(err.message, f->root));
    assert_int_equal(file_entries(file_in(f, "r/a")), 0);
}

enum { CHILD_OK = 0, CHILD_FAILED = 1, CHILD_CANNOT = 77 };

static bool write_map(const char *path, const char *text)
{
    LJ_CLEANUP(lj_closep) int fd = open(path, O_WRONLY | O_CLOEXEC);
    return fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
}

/* A mount namespace of our own; without root's rights inside a user namespace where we keep our number. */
static bool own_mounts(void)
{
    char uid[40];
    char gid[40];
    snprintf(uid, sizeof(uid), "%u %u 1", (unsigned)geteuid(), (unsigned)geteuid());
    snprintf(gid, sizeof(gid), "%u %u 1", (unsigned)getegid(), (unsigned)getegid());
    if (geteuid() == 0)
        return unshare(CLONE_NEWNS) == 0;
    return unshare(CLONE_NEWNS | CLONE_NEWUSER) == 0 && write_map("/proc/self/uid_map", uid) &&
           write_map("/proc/self/setgroups", "deny") && write_map("/proc/self/gid_map", gid);
}

/* In a process of its own: mounts 1 MiB and fills it. */
static int fill_a_disk(const char *where)
{
    lj_error err = LJ_ERROR_INIT;
    if (!own_mounts() || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("tmpfs", where, "tmpfs", 0, "size=1m") != 0)
        return CHILD_CANNOT;
    LJ_CLEANUP(lj_freep) char *url = lj_str_printf("file://%s/r", where);
    lj_storage *storage = NULL;
    if (lj_storage_open(url, NULL, &storage, &err) != LJ_OK ||
        bytes_put(storage, "g/small", 1, 100 * KIB, true, &err) != LJ_OK ||
        bytes_put(storage, "g/large", 1, 5 * KIB * KIB, true, &err) != LJ_NOSPACE ||
        !err.retryable || err.hint[0] == 0 || strstr(err.message, where) == NULL ||
        bytes_put(storage, "g/fits", 1, 700 * KIB, true, &err) != LJ_OK)
        return CHILD_FAILED;
    LJ_CLEANUP(lj_freep) char *folder = lj_str_printf("%s/r/g", where);
    size_t left = file_entries(folder);
    lj_storage_close(storage);
    return left == 2 ? CHILD_OK : CHILD_FAILED;
}

static void full_disk(void **state)
{
    file_fixture *f = *state;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0)
        _exit(fill_a_disk(f->folder));
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == CHILD_CANNOT) {
        print_message("skipped: mounting a small tmpfs is not permitted here\n");
        skip();
    }
    assert_int_equal(WEXITSTATUS(status), CHILD_OK);
}

/* Links, pipes and foreign names in the tree. */
static void foreign_things(void **state)
{
    file_fixture *f = *state;
    lj_error err = LJ_ERROR_INIT;
    assert_ok(bytes_put(f->storage, "g/a", 1, 5, true, &err), &err);
    assert_ok(bytes_put(f->storage, "g/sub/b", 1, 5, true, &err), &err);
    assert_int_equal(symlink("..", file_in(f, "r/g/loop")), 0);
    assert_int_equal(symlink("/", file_in(f, "r/g/world")), 0);
    assert_int_equal(symlink("a", file_in(f, "r/g/alias")), 0);
    assert_int_equal(symlink("nowhere", file_in(f, "r/g/dangling")), 0);
    assert_int_equal(mkfifo(file_in(f, "r/g/pipe"), 0600), 0);
    file_write(file_in(f, "r/g/line\nbreak"));
    key_list list;
    key_list_read(f->storage, "", NULL, &list);
    assert_int_equal(list.count, 2);
    key_list_free(&list);
    bytes_sink got;
    lj_sink sink = bytes_sink_new(&got, 1, 0);
    assert_int_equal(lj_storage_get(f->storage, "g/pipe", 0, -1, &sink, &err), LJ_NOTFOUND);
    assert_int_equal(lj_storage_get(f->storage, "g/sub", 0, -1, &sink, &err), LJ_NOTFOUND);
    const char *const folder = "g/sub"; /* a folder is no object: not there, not removed */
    assert_ok(lj_storage_delete_many(f->storage, &folder, 1, NULL, NULL, &err), &err);
    bytes_expect(f->storage, "g/sub/b", 1, 5);
    /* the folder of the prefix may be a link, and so may the root */
    assert_int_equal(symlink("g", file_in(f, "r/generations")), 0);
    key_list_read(f->storage, "generations/", NULL, &list);
    assert_int_equal(list.count, 2);
    assert_string_equal(list.keys[0], "generations/a");
    key_list_free(&list);
}

#define COMING_BEFORE 3000u
#define COMING_AFTER  20000u

static void come(const file_fixture *f, unsigned number)
{
    char path[512];
    snprintf(path, sizeof(path), "%s/r/wal/%08x", f->folder, number);
    int fd = open(path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    close(fd);
}

static void *come_one_by_one(void *ctx)
{
    for (unsigned i = 0; i < COMING_AFTER; i++)
        come(ctx, COMING_BEFORE + i);
    return NULL;
}

/* Names that are added in order while a large folder is listed: a listing may lack the last ones, and none before one that it has. */
static void what_comes_meanwhile_leaves_no_hole(void **state)
{
    file_fixture *f = *state;
    pthread_t thread;
    assert_int_equal(mkdir(file_in(f, "r"), 0700), 0);
    assert_int_equal(mkdir(file_in(f, "r/wal"), 0700), 0);
    for (unsigned i = 0; i < COMING_BEFORE; i++)
        come(f, i);
    assert_int_equal(pthread_create(&thread, NULL, come_one_by_one, f), 0);
    size_t count = 0;
    while (count < COMING_BEFORE + COMING_AFTER) {
        key_list list;
        key_list_read(f->storage, "wal/", NULL, &list);
        count = list.count;
        for (size_t i = 0; i < count; i++) {
            char name[32];
            snprintf(name, sizeof(name), "wal/%08zx", i);
            assert_string_equal(list.keys[i], name);
        }
        key_list_free(&list);
    }
    pthread_join(thread, NULL);
}

typedef struct {
    lj_storage *storage;
    unsigned number;
    lj_code code;
    lj_error err;
} churner;

/* Puts and deletes in a folder that the others empty, and so remove, all the time. */
static void *churn(void *ctx)
{
    churner *me = ctx;
    char key[64];
    snprintf(key, sizeof(key), "g/x/wal/%u", me->number);
    const char *const keys[] = {key};
    for (unsigned i = 0; i < 40 && me->code == LJ_OK; i++) {
        me->code = bytes_put(me->storage, key, i, 100, true, &me->err);
        if (me->code == LJ_OK)
            me->code = lj_storage_delete_many(me->storage, keys, 1, NULL, NULL, &me->err);
    }
    return NULL;
}

static void folders_vanish_under_puts(void **state)
{
    file_fixture *f = *state;
    pthread_t threads[4];
    churner churners[4];
    for (unsigned i = 0; i < 4; i++) {
        churners[i] = (churner){.storage = f->storage, .number = i};
        assert_int_equal(pthread_create(&threads[i], NULL, churn, &churners[i]), 0);
    }
    for (unsigned i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    for (unsigned i = 0; i < 4; i++)
        assert_ok(churners[i].code, &churners[i].err);
    assert_int_equal(file_entries(f->root), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FILE_CASE(conformance),
        FILE_CASE(modes_and_layout),
        FILE_CASE(unfinished_puts_are_invisible),
        FILE_CASE(stale_temporary_files_go),
        FILE_CASE(every_way_to_publish),
        FILE_CASE(root_that_is_a_file),
        FILE_CASE(without_permission),
        FILE_CASE(unreadable_root),
        FILE_CASE(write_that_fails),
        FILE_CASE(full_disk),
        FILE_CASE(foreign_things),
        FILE_CASE(what_comes_meanwhile_leaves_no_hole),
        FILE_CASE(folders_vanish_under_puts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
