/* chain_test.c - the shared page: what a kill in the middle of a store leaves, and file identities. */
#include "test/unit/capture/kit.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#define SLOT_BYTES_MAX 512u

static void path_of(const kit_dir *kit, char out[128])
{
    snprintf(out, 128, "%s/shared", kit->state_dir);
}

static lj_chain chain_number(uint32_t n)
{
    lj_chain chain;
    memset(&chain, 0, sizeof(chain));
    chain.active = true;
    strcpy(chain.generation, "0123456789abcdef");
    chain.index = n;
    chain.has_life = true;
    chain.salt = kit_salt(n);
    chain.sealed_frames = n * 3u;
    return chain;
}

static void empty_page(void **state)
{
    lj_error err = LJ_ERROR_INIT;
    char path[128];
    path_of(*state, path);
    lj_shared *shared = NULL;
    lj_chain chain = chain_number(9);
    assert_ok(lj_shared_open(path, &shared, &err), &err);
    assert_false(lj_shared_load(shared, &chain));
    assert_int_equal(chain.index, 9);
    lj_shared_close(shared);
    lj_shared_close(NULL);
}

static void newest_store_wins(void **state)
{
    lj_error err = LJ_ERROR_INIT;
    char path[128];
    path_of(*state, path);
    lj_chain got;
    for (uint32_t n = 1; n <= 7; n++) {
        lj_shared *shared = NULL; /* opened anew each time, as after a kill */
        assert_ok(lj_shared_open(path, &shared, &err), &err);
        lj_chain chain = chain_number(n);
        lj_shared_store(shared, &chain);
        assert_true(lj_shared_load(shared, &got));
        assert_int_equal(got.index, n);
        lj_shared_close(shared);
    }
    lj_shared *shared = NULL;
    assert_ok(lj_shared_open(path, &shared, &err), &err);
    assert_true(lj_shared_load(shared, &got));
    lj_chain last = chain_number(7);
    assert_string_equal(got.generation, last.generation);
    assert_true(lj_wal_salt_eq(got.salt, last.salt));
    assert_int_equal(got.sealed_frames, 21);
    lj_shared_close(shared);
}

/* Whichever byte of the newest slot a killed process did not get to, the one before is what is read. */
static void torn_store_leaves_the_one_before(void **state)
{
    lj_error err = LJ_ERROR_INIT;
    char path[128];
    path_of(*state, path);
    lj_shared *shared = NULL;
    assert_ok(lj_shared_open(path, &shared, &err), &err);
    lj_chain older = chain_number(1);
    lj_chain newer = chain_number(2);
    lj_shared_store(shared, &older);
    lj_shared_store(shared, &newer);
    lj_shared_close(shared);

    unsigned older_read = 0;
    for (uint64_t off = 0; off < 2 * SLOT_BYTES_MAX; off++) {
        kit_flip(path, off, 0x40);
        lj_chain got = chain_number(99);
        assert_ok(lj_shared_open(path, &shared, &err), &err);
        assert_true(lj_shared_load(shared, &got));
        assert_true(got.index == 1 || got.index == 2);
        older_read += got.index == 1;
        lj_shared_close(shared);
        kit_flip(path, off, 0x40);
    }
    assert_true(older_read > 64); /* every byte of the newest slot is covered by its checksum */
}

static void both_slots_torn(void **state)
{
    lj_error err = LJ_ERROR_INIT;
    char path[128];
    path_of(*state, path);
    lj_shared *shared = NULL;
    assert_ok(lj_shared_open(path, &shared, &err), &err);
    lj_chain chain = chain_number(1);
    lj_shared_store(shared, &chain);
    lj_shared_store(shared, &chain);
    lj_shared_close(shared);
    uint8_t zero[4096] = {0};
    int fd = open(path, O_RDWR | O_CLOEXEC);
    assert_int_equal(pwrite(fd, zero, 100, 16), 100);
    for (unsigned off = 100; off < 1024; off += 8)
        assert_int_equal(pwrite(fd, "torn", 4, off), 4);
    close(fd);
    assert_ok(lj_shared_open(path, &shared, &err), &err);
    assert_false(lj_shared_load(shared, &chain));
    lj_chain again = chain_number(5); /* and it can be written again */
    lj_shared_store(shared, &again);
    assert_true(lj_shared_load(shared, &chain));
    assert_int_equal(chain.index, 5);
    lj_shared_close(shared);
}

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

static void page_that_cannot_be_made(void **state)
{
    const kit_dir *kit = *state;
    lj_error err = LJ_ERROR_INIT;
    lj_shared *shared = NULL;
    assert_int_not_equal(lj_shared_open(kit->state_dir, &shared, &err), LJ_OK);
    assert_null(shared);
    assert_true(strstr(err.message, kit->state_dir) != NULL);
}

#define ONE(fn) cmocka_unit_test_setup_teardown(fn, kit_dir_setup, kit_dir_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ONE(empty_page),      ONE(newest_store_wins), ONE(torn_store_leaves_the_one_before),
        ONE(both_slots_torn), ONE(identity),          ONE(page_that_cannot_be_made),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
