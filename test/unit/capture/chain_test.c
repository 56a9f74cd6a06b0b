/* chain_test.c - file identities. The page that holds the chain is in shared_test.c. */
#include "test/unit/capture/kit.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

static void identity(void **state)
{
    const kit_dir *kit = *state;
    lj_identity one;
    lj_identity two;
    assert_false(lj_identity_of(kit->db_path, &one));
    kit_db_file(kit->db_path, 512, 3, 1);
    assert_true(lj_identity_of(kit->db_path, &one));
    assert_int_equal(one.size_bytes, 3 * 512);
    assert_true(lj_identity_of(kit->db_path, &two));
    assert_true(lj_identity_eq(&one, &two));
    usleep(20 * 1000);
    kit_flip(kit->db_path, 100, 1);
    assert_true(lj_identity_of(kit->db_path, &two));
    assert_false(lj_identity_eq(&one, &two));
    /* the time set back does not hide the change */
    struct timespec times[2] = {
        {.tv_sec = one.mtime_ns / LJ_NS_PER_S, .tv_nsec = one.mtime_ns % LJ_NS_PER_S},
        {.tv_sec = one.mtime_ns / LJ_NS_PER_S, .tv_nsec = one.mtime_ns % LJ_NS_PER_S}};
    assert_int_equal(utimensat(AT_FDCWD, kit->db_path, times, 0), 0);
    assert_true(lj_identity_of(kit->db_path, &two));
    assert_int_equal(two.mtime_ns, one.mtime_ns);
    assert_false(lj_identity_eq(&one, &two));
}

#define ONE(fn) cmocka_unit_test_setup_teardown(fn, kit_dir_setup, kit_dir_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {ONE(identity)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
