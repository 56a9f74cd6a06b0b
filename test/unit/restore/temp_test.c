/*
 * temp_test.c - what killed restores leave goes with the next one of the same output, and nothing else does: not what somebody
 * is restoring, not a file with a similar name.
 */
#include "test/unit/restore/restorer.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "vfs/base/str.h"
#include "vfs/restore/output.h"

static void touch(const char *name)
{
    char path[400];
    snprintf(path, sizeof(path), "%s/%s", folder, name);
    int fd = open(path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    close(fd);
}

static bool is_there(const char *name)
{
    char path[400];
    struct stat st;
    snprintf(path, sizeof(path), "%s/%s", folder, name);
    return lstat(path, &st) == 0;
}

static size_t temps(void)
{
    size_t n = 0;
    DIR *dir = opendir(folder);
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;)
        n += strncmp(entry->d_name, "out.db.tmp-restore-", 19) == 0;
    closedir(dir);
    return n;
}

/* The restore lock of out_path, as boot.c takes it. */
static int take_restore_lock(void)
{
    lj_error err = LJ_ERROR_INIT;
    LJ_CLEANUP(lj_freep) char *lock = lj_restore_lock_path(out_path);
    LJ_CLEANUP(lj_freep) char *state = lj_str_dirname(lock);
    assert_ok(lj_io_mkdirs(state, 0700, &err), &err);
    int fd = open(lock, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(flock(fd, LOCK_EX), 0);
    return fd;
}

static void remove_restore_lock(void)
{
    LJ_CLEANUP(lj_freep) char *lock = lj_restore_lock_path(out_path);
    LJ_CLEANUP(lj_freep) char *state = lj_str_dirname(lock);
    assert_int_equal(unlink(lock), 0);
    assert_int_equal(rmdir(state), 0);
}

/* A process in the middle of a restore of out_path, `locked` or not; it is there when this returns. */
static pid_t start_restoring(bool locked)
{
    int ready[2];
    assert_int_equal(pipe(ready), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* a test that fails leaves nobody waiting */
        lj_output output = LJ_OUTPUT_INIT;
        lj_restore_options options = {.locked = locked, .overwrite_empty = true};
        if (locked)
            (void)take_restore_lock();
        if (lj_output_open(&output, out_path, &options, NULL) != LJ_OK ||
            write(output.db_fd, "half", 4) != 4 || write(ready[1], "!", 1) != 1)
            _exit(1);
        for (;;)
            pause();
    }
    char byte;
    close(ready[1]);
    assert_int_equal(read(ready[0], &byte, 1), 1);
    close(ready[0]);
    return pid;
}

static void kill_it(pid_t pid)
{
    int status;
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status));
}

/* One good restore; then the output goes again. */
static void restore_one(bool locked)
{
    world w;
    memory_replica m;
    make_history(&w, &m, 512, false);
    lj_restore_options options = {.locked = locked};
    lj_restore_result result;
    lj_error err = LJ_ERROR_INIT;
    assert_ok(restore_with(&m, &options, &result, &err), &err);
    assert_int_equal(unlink(out_path), 0);
    memory_free(&m);
    world_close(&w);
}

static void a_killed_one_is_swept(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++) {
        bool killed_locked = i % 2 == 0;
        bool next_locked = i < 2;
        kill_it(start_restoring(killed_locked));
        kill_it(start_restoring(killed_locked)); /* had nothing to leave, but its own */
        assert_int_equal(temps(), 1);
        int fd = next_locked ? take_restore_lock() : -1;
        restore_one(next_locked);
        assert_int_equal(temps(), 0);
        lj_closep(&fd);
        if (killed_locked || next_locked)
            remove_restore_lock();
        assert_int_equal(folder_entries(), 0);
    }
}

static void a_running_one_is_left(void **state)
{
    (void)state;
    /* by hand, beside a restore by hand or on open */
    for (int i = 0; i < 2; i++) {
        pid_t pid = start_restoring(false);
        int fd = i == 0 ? take_restore_lock() : -1;
        restore_one(i == 0);
        assert_int_equal(temps(), 1);
        kill_it(pid);
        restore_one(i == 0);
        assert_int_equal(temps(), 0);
        lj_closep(&fd);
        if (i == 0)
            remove_restore_lock();
    }
    /* on open, beside one by hand; another on open waits for the lock */
    pid_t pid = start_restoring(true);
    restore_one(false);
    assert_int_equal(temps(), 1);
    kill_it(pid);
    restore_one(false);
    assert_int_equal(temps(), 0);
    remove_restore_lock();
}

static void similar_names_are_left(void **state)
{
    (void)state;
    static const char *const similar[] = {
        "out.db.tmp-restore-",
        "out.db.tmp-restore-0123456789abcde",
        "out.db.tmp-restore-0123456789abcdef0",
        "out.db.tmp-restore-0123456789ABCDEF",
        "out.db.tmp-restore-0123456789abcdeg",
        "out.db.tmp-restore-0123456789abcdef.bak",
        "out.db.tmp-restore-fedcba9876543210-wal", /* of no restore that is there */
        "out.db.tmp-restore",
        "out.db.tmp",
        "my-out.db.tmp-restore-0123456789abcdef",
        "out.db2.tmp-restore-0123456789abcdef",
        "other.db.tmp-restore-0123456789abcdef",
    };
    for (size_t i = 0; i < LJ_ARRAY_LEN(similar); i++)
        touch(similar[i]);
    char path[400];
    snprintf(path, sizeof(path), "%s/out.db.tmp-restore-00000000000000d1", folder);
    assert_int_equal(mkdir(path, 0700), 0);
    snprintf(path, sizeof(path), "%s/out.db.tmp-restore-00000000000000d2", folder);
    assert_int_equal(symlink("other.db.tmp-restore-0123456789abcdef", path), 0);
    touch("out.db.tmp-restore-0123456789abcdef");
    touch("out.db.tmp-restore-0123456789abcdef-wal");
    restore_one(false);
    assert_false(is_there("out.db.tmp-restore-0123456789abcdef"));
    assert_false(is_there("out.db.tmp-restore-0123456789abcdef-wal"));
    assert_int_equal(folder_entries(), LJ_ARRAY_LEN(similar) + 2);
    snprintf(path, sizeof(path), "%s/out.db.tmp-restore-00000000000000d1", folder);
    assert_int_equal(rmdir(path), 0);
    clear_folder();
}

/* No character of a name means anything but itself. */
static void names_are_no_patterns(void **state)
{
    (void)state;
    static const char *const names[] = {"*.db", "[o]u?.db", "a\\*{b,c}.db", "%s%n.db", "-rf .db"};
    for (size_t i = 0; i < LJ_ARRAY_LEN(names); i++) {
        char before[sizeof(out_path)], own[100];
        memcpy(before, out_path, sizeof(before));
        snprintf(out_path, sizeof(out_path), "%s/%s", folder, names[i]);
        snprintf(own, sizeof(own), "%s.tmp-restore-0123456789abcdef", names[i]);
        touch(own);
        touch("out.db.tmp-restore-0123456789abcdef");
        touch("ab.db.tmp-restore-0123456789abcdef");
        restore_one(false);
        assert_false(is_there(own));
        assert_int_equal(folder_entries(), 2);
        memcpy(out_path, before, sizeof(out_path));
        clear_folder();
    }
}

/* More than one sweep takes go with the following ones. */
static void many_are_swept(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 150; i++) {
        char name[60];
        snprintf(name, sizeof(name), "out.db.tmp-restore-%016x", i);
        touch(name);
    }
    for (int i = 0; i < 3; i++)
        restore_one(false);
    assert_int_equal(folder_entries(), 0);
}

/* Where the process has closed its standard streams, what is printed goes into none of a restore's files. */
static void no_file_is_a_standard_stream(void **state)
{
    (void)state;
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        lj_output output = LJ_OUTPUT_INIT;
        lj_restore_options options = {.locked = false};
        for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
            close(fd);
        bool made = lj_output_open(&output, out_path, &options, NULL) == LJ_OK &&
                    lj_output_open_wal(&output, NULL) == LJ_OK;
        bool above = output.db_fd > STDERR_FILENO && output.wal_fd > STDERR_FILENO &&
                     output.dir_fd > STDERR_FILENO;
        lj_output_close(&output);
        _exit(!made ? 1 : above ? 0 : 2);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_killed_one_is_swept),  cmocka_unit_test(a_running_one_is_left),
        cmocka_unit_test(similar_names_are_left), cmocka_unit_test(names_are_no_patterns),
        cmocka_unit_test(many_are_swept),         cmocka_unit_test(no_file_is_a_standard_stream),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
