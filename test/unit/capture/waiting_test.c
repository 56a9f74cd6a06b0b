/* waiting_test.c - waits end when what they wait for cannot come any more, at whatever moment that shows. */
#include "test/unit/capture/kit.h"

#include <sys/stat.h>
#include <unistd.h>

#include "vfs/base/error.h"
#include "vfs/capture/moved.h"

#define FOR_EVER (3600 * LJ_NS_PER_S) /* who waits for that is ended by the alarm */
#define ALARM_S  60

typedef struct {
    kit_dir dir;
    lj_db *db;
} fixture;

static void begin(fixture *f, lj_db_wake_fn wake)
{
    memset(f, 0, sizeof(*f));
    kit_dir_make(&f->dir);
    kit_db_file(f->dir.db_path, 1024, 3, 0);
    f->db = kit_db(&f->dir, NULL);
    struct stat st;
    assert_int_equal(stat(f->dir.db_path, &st), 0);
    f->db->inode = (uint64_t)st.st_ino;
    f->db->wake = wake;
    f->db->state = LJ_DB_STARTING;
    alarm(ALARM_S);
}

static void end(fixture *f)
{
    alarm(0);
    lj_db_free(f->db);
    kit_dir_remove(&f->dir);
}

/* The ship task has run before the waiting thread gets any further. */
static void finds_it_gone(lj_db *db, int64_t due_ns)
{
    (void)due_ns;
    assert_int_equal(unlink(db->path), 0);
    assert_false(lj_db_in_place(db));
}

static void fails_at_once(lj_db *db, int64_t due_ns)
{
    (void)due_ns;
    lj_error err = LJ_ERROR_INIT;
    lj_error_set(&err, LJ_DENIED, "no right to write");
    lj_db_attempt(db, &err);
}

static void replication_ends_while_it_is_hurried(void **state)
{
    (void)state;
    for (int snapshot = 0; snapshot < 2; snapshot++) {
        fixture f;
        lj_error err = LJ_ERROR_INIT;
        begin(&f, finds_it_gone);
        assert_int_equal(snapshot != 0 ? lj_db_wait_snapshot(f.db, FOR_EVER, &err)
                                       : lj_db_wait(f.db, FOR_EVER, false, &err),
                         LJ_UNSUPPORTED);
        assert_non_null(strstr(err.message, "moved, replaced or deleted"));
        end(&f);
    }
}

static void the_first_failure_comes_while_it_is_hurried(void **state)
{
    (void)state;
    fixture f;
    lj_error err = LJ_ERROR_INIT;
    begin(&f, fails_at_once);
    assert_int_equal(lj_db_wait(f.db, FOR_EVER, true, &err), LJ_UNAVAILABLE);
    assert_non_null(strstr(err.message, "no right to write"));
    end(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(replication_ends_while_it_is_hurried),
        cmocka_unit_test(the_first_failure_comes_while_it_is_hurried),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
