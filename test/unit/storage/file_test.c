/* file_test.c - the conformance suite on a folder, and what only file:// has. */
#include "test/unit/unit.h"

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "test/unit/storage/bytes.h"
#include "test/unit/storage/conformance.h"
#include "vfs/base/clock.h"
#include "vfs/base/io.h"
#include "vfs/base/str.h"
#include "vfs/storage/file/internal.h"

#define KIB    ((uint64_t)1024)
#define NOBODY 65534

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

/* A new folder with a replica root "r" in it that does not exist yet. */
typedef struct {
    char folder[40];
    char root[64];
    lj_storage *storage;
} fixture;

static int set_up(void **state)
{
    lj_error err = LJ_ERROR_INIT;
    fixture *f = calloc(1, sizeof(*f));
    assert_non_null(f);
    snprintf(f->folder, sizeof(f->folder), "/tmp/file_test.XXXXXX");
    assert_non_null(mkdtemp(f->folder));
    snprintf(f->root, sizeof(f->root), "%s/r", f->folder);
    LJ_CLEANUP(lj_freep) char *url = lj_str_printf("file://%s", f->root);
    assert_ok(lj_storage_open(url, NULL, &f->storage, &err), &err);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    fixture *f = *state;
    lj_storage_close(f->storage);
    LJ_CLEANUP(lj_freep)
    char *command = lj_str_printf("chmod -R u+rwx '%s' && rm -rf '%s'", f->folder, f->folder);
    int rc = system(command);
    free(f);
    return rc;
}

/* The path of `name` in the fixture's folder; valid until the next call but three. */
static const char *in(const fixture *f, const char *name)
{
    static char ring[4][512];
    static unsigned next;
    char *out = ring[next++ % 4];
    snprintf(out, sizeof(ring[0]), "%s/%s", f->folder, name);
    return out;
}

static void write_file(const char *path)
{
    lj_error err = LJ_ERROR_INIT;
    assert_ok(lj_io_replace_file(path, "x", 1, 0644, false, &err), &err);
}

/* Number of entries of a folder, hidden ones too. */
static size_t entries(const char *folder)
{
    LJ_CLEANUP(lj_freep) char *command = lj_str_printf("ls -A '%s' | wc -l", folder);
    FILE *pipe = popen(command, "r");
    unsigned long n = 0;
    assert_int_equal(fscanf(pipe, "%lu", &n), 1);
    pclose(pipe);
    return n;
}

/* Acts as a user without rights, if this is root. False (with a reason) when that cannot be. */
static bool become_nobody(void)
{
    if (geteuid() == 0 && seteuid(NOBODY) != 0) {
        print_message("skipped: cannot become another user: %s\n", strerror(errno));
        return false;
    }
    return true;
}

static void become_myself(void)
{
    assert_int_equal(seteuid(getuid()), 0);
}

static void conformance(void **state)
{
    fixture *f = *state;
    conformance_setup setup = {
        .storage = f->storage, .many_keys = 2500, .large_bytes = 64 * KIB * KIB};
    assert_int_equal(conformance_run(&setup), 0);
    assert_int_equal(entries(f->root), 0); /* no folder, no temporary file left */
}

static void modes_and_layout(void **state)
{
    fixture *f = *state;
    lj_error err = LJ_ERROR_INIT;
    struct stat st;
    assert_int_equal(stat(f->root, &st), -1);
    assert_ok(bytes_put(f->storage, "generations/0123456789abcdef/wal/a", 1, 5, true, &err), &err);
    assert_int_equal(stat(in(f, "r/generations/0123456789abcdef/wal/a"), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(st.st_size, 5);
    assert_int_equal(stat(in(f, "r/generations/0123456789abcdef"), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0700);
    assert_int_equal(stat(f->root, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0700);
    /* the last deletion takes the folders with it, but not the root */
    const char *const key = "generations/0123456789abcdef/wal/a";
    assert_ok(lj_storage_delete_many(f->storage, &key, 1, NULL, NULL, &err), &err);
    assert_int_equal(entries(f->root), 0);
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
    assert_int_equal(entries(f->root), 1);
}

typedef struct {
    const fixture *f;
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
        spy->seen = entries(in(spy->f, "r/a")) == 2;
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
    fixture *f = *state;
    lj_error err = LJ_ERROR_INIT;
    assert_ok(bytes_put(f->storage, "a/present", 1, 5, true, &err), &err);
    spying_source spy = {.f = f};
    lj_source source = {.ctx = &spy, .read = spy_read, .size = -1};
    assert_ok(lj_storage_put(f->storage, "a/new", &source, NULL, &err), &err);
    assert_true(spy.seen);
    assert_int_equal(entries(in(f, "r/a")), 2);

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
    write_file(in(f, "r/a/.x.0123456789abcdef.tmp"));
    LJ_CLEANUP(lj_closep) int held = open(in(f, "r/a/.x.0123456789abcdef.tmp"), O_RDONLY);
    assert_int_equal(flock(held, LOCK_EX), 0);
    lj_storage_entry entry;
    const char *const key = "a/.x.0123456789abcdef.tmp";
    assert_int_equal(bytes_put(f->storage, key, 1, 1, false, &err), LJ_INVALID);
    assert_int_equal(lj_storage_head(f->storage, key, &entry, &err), LJ_NOTFOUND);
    assert_ok(lj_storage_delete_many(f->storage, &key, 1, NULL, NULL, &err), &err);
    assert_int_equal(entries(in(f, "r/a")), 3);
}

static void stale_temporary_files_go(void **state)
{
    fixture *f = *state;
    lj_error err = LJ_ERROR_INIT;
    assert_ok(bytes_put(f->storage, "a/object", 1, 5, true, &err), &err);
    write_file(in(f, "r/a/.x.0123456789abcdef.tmp"));
    write_file(in(f, "r/a/00000001.snapshot.lz4.tmp")); /* another program's */
    /* an old modification time alone says nothing: puts set it */
    const struct timespec old[2] = {{.tv_sec = 1000}, {.tv_sec = 1000}};
    assert_int_equal(utimensat(AT_FDCWD, in(f, "r/a/.x.0123456789abcdef.tmp"), old, 0), 0);
    int64_t now = lj_clock_wall_ns();
    /* somebody is writing it */
    LJ_CLEANUP(lj_closep) int held = open(in(f, "r/a/.x.0123456789abcdef.tmp"), O_RDONLY);
    assert_int_equal(flock(held, LOCK_EX), 0);
    lj_file_sweep(in(f, "r/a"), now + 25 * 3600 * LJ_NS_PER_S);
    assert_int_equal(entries(in(f, "r/a")), 3);
    lj_closep(&held);
    lj_file_sweep(in(f, "r/a"), now);
    assert_int_equal(entries(in(f, "r/a")), 2);
    lj_file_sweep(in(f, "r/none"), now);
}

/* The ways to take a free name for file systems without the usual one. */
static void every_way_to_publish(void **state)
{
    fixture *f = *state;
    lj_error err = LJ_ERROR_INIT;
    const lj_file_way ways[] = {LJ_FILE_BY_RENAME, LJ_FILE_BY_LINK, LJ_FILE_BY_LOCK};
    for (size_t i = 0; i < LJ_ARRAY_LEN(ways); i++) {
        write_file(in(f, "temp"));
        assert_ok(lj_file_publish_new(in(f, "temp"), in(f, "final"), f->folder, ways[i], &err),
                  &err);
        assert_int_equal(entries(f->folder), 1);
        write_file(in(f, "temp"));
        assert_int_equal(
            lj_file_publish_new(in(f, "temp"), in(f, "final"), f->folder, ways[i], &err),
            LJ_EXISTS);
        assert_int_equal(entries(f->folder), 2);
        assert_int_equal(
            lj_file_publish_new(in(f, "temp"), in(f, "no/final"), in(f, "no"), ways[i], &err),
            LJ_NOTFOUND);
        unlink(in(f, "final"));
        unlink(in(f, "temp"));
    }
    /* a link whose answer was lost is ours */
    write_file(in(f, "temp"));
    assert_int_equal(link(in(f, "temp"), in(f, "final")), 0);
    assert_ok(lj_file_publish_new(in(f, "temp"), in(f, "final"), f->folder, LJ_FILE_BY_LINK, &err),
              &err);
    assert_int_equal(entries(f->folder), 1);
}

static void root_that_is_a_file(void **state)
{
    fixture *f = *state;
    lj_error err = LJ_ERROR_INIT;
    lj_storage_entry entry;
    const char *const key = "generations/a";
    for (int below = 0; below < 2; below++) {
        lj_storage *storage = NULL;
        write_file(in(f, "plain"));
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
    assert_int_equal(entries(f->root), 2);
}

static void without_permission(void **state)
{
    fixture *f = *state;
    lj_error err = LJ_ERROR_INIT;
    assert_ok(bytes_put(f->storage, "g/a/1", 1, 5, true, &err), &err);
    assert_ok(bytes_put(f->storage, "g/b/1", 1, 5, true, &err), &err);
    assert_int_equal(chmod(f->folder, 0755), 0);
    assert_int_equal(chmod(f->root, 0755), 0);
    if (!become_nobody())
        skip();
    if (getuid() != 0)
        assert_int_equal(chmod(in(f, "r/g"), 0), 0);
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
    become_myself();

    /* readable but not writable: what is there stays, and a deletion ends at the first failure */
    assert_int_equal(chmod(in(f, "r/g"), 0755), 0);
    assert_int_equal(chmod(in(f, "r/g/a"), 0555), 0);
    assert_int_equal(chmod(in(f, "r/g/b"), 0777), 0);
    assert_true(become_nobody());
    assert_int_equal(bytes_put(f->storage, "g/a/2", 1, 5, false, &err), LJ_DENIED);
    assert_int_equal(bytes_put(f->storage, "g/a/deeper/2", 1, 5, false, &err), LJ_DENIED);
    static const char *const keys[] = {"g/a/1", "g/b/1"};
    assert_int_equal(lj_storage_delete_many(f->storage, keys, 2, NULL, NULL, &err), LJ_DENIED);
    assert_non_null(strstr(err.message, "g/a/1"));
    become_myself();
    key_list_read(f->storage, "", NULL, &list);
    assert_int_equal(list.count, 2);
    key_list_free(&list);
}

static void unreadable_root(void **state)
{
    fixture *f = *state;
    lj_error err = LJ_ERROR_INIT;
    assert_ok(bytes_put(f->storage, "a", 1, 5, true, &err), &err);
    assert_int_equal(chmod(f->folder, 0755), 0);
    assert_int_equal(chmod(f->root, geteuid() == 0 ? 0700 : 0), 0);
    if (!become_nobody())
        skip();
    key_list list = {.keys = NULL};
    assert_int_equal(lj_storage_list(f->storage, "", NULL, key_list_add, &list, &err), LJ_DENIED);
    assert_int_equal(lj_storage_list(f->storage, "x/", NULL, key_list_add, &list, &err), LJ_DENIED);
    become_myself();
}

/* A full disk, by a limit of the process: the write fails in the middle. */
static void write_that_fails(void **state)
{
    fixture *f = *state;
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
    assert_int_equal(entries(in(f, "r/a")), 0);
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
    size_t left = entries(folder);
    lj_storage_close(storage);
    return left == 2 ? CHILD_OK : CHILD_FAILED;
}

static void full_disk(void **state)
{
    fixture *f = *state;
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
    fixture *f = *state;
    lj_error err = LJ_ERROR_INIT;
    assert_ok(bytes_put(f->storage, "g/a", 1, 5, true, &err), &err);
    assert_ok(bytes_put(f->storage, "g/sub/b", 1, 5, true, &err), &err);
    assert_int_equal(symlink("..", in(f, "r/g/loop")), 0);
    assert_int_equal(symlink("/", in(f, "r/g/world")), 0);
    assert_int_equal(symlink("a", in(f, "r/g/alias")), 0);
    assert_int_equal(symlink("nowhere", in(f, "r/g/dangling")), 0);
    assert_int_equal(mkfifo(in(f, "r/g/pipe"), 0600), 0);
    write_file(in(f, "r/g/line\nbreak"));
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
    assert_int_equal(symlink("g", in(f, "r/generations")), 0);
    key_list_read(f->storage, "generations/", NULL, &list);
    assert_int_equal(list.count, 2);
    assert_string_equal(list.keys[0], "generations/a");
    key_list_free(&list);
}

#define GENERATION "generations/0123456789abcdef/"
#define SNAPSHOT   GENERATION "snapshots/00000000.snapshot.lz4"
#define SEGMENT    GENERATION "wal/00000000_00000000.wal.lz4"

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
    fixture *f = *state;
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
        assert_int_equal(rename(away, in(f, "unmounted")), 0);
        expect_nowhere(f->storage, i / 2 == 1 ? SEGMENT : SNAPSHOT);
        assert_int_equal(rename(in(f, "unmounted"), away), 0);
        if (i % 2 == 0) {
            assert_int_equal(unlink(path), 0);
            assert_int_equal(rename(away, path), 0);
        }
    }
    hide_kinds = false;
    /* a link to itself cannot be looked behind; one that others left there is nobody's */
    key_list list = {.keys = NULL};
    assert_int_equal(symlink("nowhere", in(f, "r/generations/nowhere")), 0);
    key_list_read(f->storage, "generations/", NULL, &list);
    assert_int_equal(list.count, 2);
    key_list_free(&list);
    assert_int_equal(symlink("fedcba9876543210", in(f, "r/generations/fedcba9876543210")), 0);
    assert_int_equal(lj_storage_list(f->storage, "generations/", NULL, key_list_add, &list, &err),
                     LJ_IO);
    key_list_free(&list);
}

static void a_root_that_leads_nowhere(void **state)
{
    fixture *f = *state;
    lj_error err = LJ_ERROR_INIT;
    assert_int_equal(symlink("not-mounted", in(f, "mnt")), 0);
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
    fixture *f = *state;
    lj_error err = LJ_ERROR_INIT;
    assert_ok(bytes_put(f->storage, SNAPSHOT, 1, 5, true, &err), &err);
    assert_int_equal(chmod(f->folder, 0755), 0);
    assert_int_equal(chmod(f->root, 0755), 0);
    assert_int_equal(chmod(in(f, "r/generations"), 0444), 0);
    if (!become_nobody())
        skip();
    hide_kinds = true;
    key_list list = {.keys = NULL};
    lj_code code = lj_storage_list(f->storage, "generations/", NULL, key_list_add, &list, &err);
    hide_kinds = false;
    become_myself();
    key_list_free(&list);
    assert_int_equal(code, LJ_DENIED);
}

/* Who was killed between giving a name and syncing the folder leaves an object that a power cut may still take. */
static void a_name_that_is_taken_is_durable(void **state)
{
    fixture *f = *state;
    lj_error err = LJ_ERROR_INIT;
    struct stat st;
    assert_ok(bytes_put(f->storage, SEGMENT, 1, 5, true, &err), &err);
    assert_int_equal(stat(in(f, "r/" GENERATION "wal"), &st), 0);
    assert_true(synced == st.st_ino);
    synced = 0;
    assert_int_equal(bytes_put(f->storage, SEGMENT, 1, 5, true, &err), LJ_EXISTS);
    assert_true(synced == st.st_ino);
}

/* The begin of an index is the last to go, in a power cut as well: Litestream restores nothing from a generation that lacks it. */
static void an_index_goes_before_its_begin(void **state)
{
    fixture *f = *state;
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
    fixture *f = *state;
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
    fixture *f = *state;
    lj_error err = LJ_ERROR_INIT;
    wait_errno = EIO;
    assert_int_equal(bytes_put(f->storage, "g/broken", 1, KIB * KIB, true, &err), LJ_IO);
    wait_errno = ENOSPC;
    assert_int_equal(bytes_put(f->storage, "g/broken", 1, KIB * KIB, true, &err), LJ_NOSPACE);
    assert_true(err.retryable);
    assert_non_null(strstr(err.message, "g/.broken"));
    assert_int_equal(entries(in(f, "r/g")), 0);
    /* a system without it, or one that forbids it */
    wait_errno = EPERM;
    write_errno = EPERM;
    assert_ok(bytes_put(f->storage, "g/whole", 1, KIB * KIB, true, &err), &err);
    wait_errno = 0;
    write_errno = 0;
    bytes_expect(f->storage, "g/whole", 1, KIB * KIB);
}

#define COMING_BEFORE 3000u
#define COMING_AFTER  20000u

static void come(const fixture *f, unsigned number)
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
    fixture *f = *state;
    pthread_t thread;
    assert_int_equal(mkdir(in(f, "r"), 0700), 0);
    assert_int_equal(mkdir(in(f, "r/wal"), 0700), 0);
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
    fixture *f = *state;
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
    assert_int_equal(entries(f->root), 0);
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        CASE(conformance),
        CASE(modes_and_layout),
        CASE(unfinished_puts_are_invisible),
        CASE(stale_temporary_files_go),
        CASE(every_way_to_publish),
        CASE(root_that_is_a_file),
        CASE(without_permission),
        CASE(unreadable_root),
        CASE(write_that_fails),
        CASE(full_disk),
        CASE(foreign_things),
        CASE(links_of_the_layout),
        CASE(a_root_that_leads_nowhere),
        CASE(names_that_cannot_be_looked_at),
        CASE(a_name_that_is_taken_is_durable),
        CASE(a_name_that_cannot_be_synced),
        CASE(an_index_goes_before_its_begin),
        CASE(a_piece_that_cannot_be_written),
        CASE(what_comes_meanwhile_leaves_no_hole),
        CASE(folders_vanish_under_puts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
