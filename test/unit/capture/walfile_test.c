/* walfile_test.c - the uploader's view of a WAL: restarts, replaced files, torn headers, walks. */
#include "test/unit/capture/kit.h"

#include <unistd.h>

#include "vfs/capture/walfile.h"

#define PAGE 512u

static void refresh_follows_the_name(void **state)
{
    const kit_dir *kit = *state;
    lj_error err = LJ_ERROR_INIT;
    LJ_CLEANUP(lj_walfile_close) lj_walfile file = LJ_WALFILE_INIT;
    assert_int_equal(lj_walfile_refresh(&file, kit->wal_path, &err), LJ_NOTFOUND);
    assert_int_equal(file.fd, -1);
    kit_wal wal;
    kit_wal_begin(&wal, kit->wal_path, PAGE, 1);
    assert_ok(lj_walfile_refresh(&file, kit->wal_path, &err), &err);
    assert_true(lj_wal_salt_eq(file.header.salt, kit_salt(1)));
    int fd = file.fd;
    kit_wal_begin(&wal, kit->wal_path, PAGE, 2); /* restarted in place */
    assert_ok(lj_walfile_refresh(&file, kit->wal_path, &err), &err);
    assert_true(lj_wal_salt_eq(file.header.salt, kit_salt(2)));
    assert_int_equal(file.fd, fd);
    char moved[128];
    snprintf(moved, sizeof(moved), "%s.moved", kit->wal_path);
    assert_int_equal(rename(kit->wal_path, moved), 0);
    kit_wal_begin(&wal, kit->wal_path, PAGE, 3); /* deleted and made again */
    assert_ok(lj_walfile_refresh(&file, kit->wal_path, &err), &err);
    assert_true(lj_wal_salt_eq(file.header.salt, kit_salt(3)));
    kit_flip(kit->wal_path, 20, 1); /* a writer is at it */
    assert_int_equal(lj_walfile_refresh(&file, kit->wal_path, &err), LJ_CORRUPT);
    assert_false(file.has_header);
    assert_int_equal(truncate(kit->wal_path, 31), 0);
    assert_int_equal(lj_walfile_refresh(&file, kit->wal_path, &err), LJ_NOTFOUND);
    unlink(kit->wal_path);
    assert_int_equal(lj_walfile_refresh(&file, kit->wal_path, &err), LJ_NOTFOUND);
    assert_int_equal(file.fd, -1);
}

typedef struct {
    uint64_t calls;
    uint64_t last;
    uint64_t stop_at;
} visits;

static lj_code visit(void *ctx, uint64_t number, const lj_wal_frame *frame, lj_error *err)
{
    visits *v = ctx;
    assert_int_equal(number, v->last + 1);
    assert_int_equal(frame->pgno, (number - 1) % 7 + 1);
    v->last = number;
    v->calls++;
    if (number == v->stop_at)
        return lj_error_set(err, LJ_BUSY, "enough");
    return LJ_OK;
}

static void walks(void **state)
{
    const kit_dir *kit = *state;
    lj_error err = LJ_ERROR_INIT;
    kit_wal wal;
    kit_wal_begin(&wal, kit->wal_path, PAGE, 1);
    kit_wal_commits(&wal, 1200, 7, 1); /* more than one read */
    kit_wal_frame(&wal, 1200 % 7 + 1, 0, 3);
    LJ_CLEANUP(lj_walfile_close) lj_walfile file = LJ_WALFILE_INIT;
    assert_ok(lj_walfile_refresh(&file, kit->wal_path, &err), &err);
    lj_wal_chain chain;
    lj_wal_verdict verdict;

    visits v = {.calls = 0};
    lj_wal_chain_start(&chain, &file.header);
    assert_ok(lj_walfile_walk(file.fd, &chain, UINT64_MAX, visit, &v, &verdict, &err), &err);
    assert_int_equal(verdict, LJ_WAL_FRAME_OK);
    assert_int_equal(v.calls, 1201);
    assert_int_equal(chain.committed, 1200); /* the last frame ends nothing */
    assert_true(lj_wal_cksum_eq(chain.sum, wal.sum));

    v = (visits){.calls = 0};
    lj_wal_chain_start(&chain, &file.header);
    assert_ok(lj_walfile_walk(file.fd, &chain, 900, visit, &v, &verdict, &err), &err);
    assert_int_equal(chain.frames, 900);
    assert_ok(lj_walfile_walk(file.fd, &chain, 1000, visit, &v, &verdict, &err), &err);
    assert_int_equal(v.calls, 1000); /* went on where it stood */

    v = (visits){.stop_at = 5};
    lj_wal_chain_start(&chain, &file.header);
    assert_int_equal(lj_walfile_walk(file.fd, &chain, UINT64_MAX, visit, &v, &verdict, &err),
                     LJ_BUSY);
    assert_int_equal(v.calls, 5);
}

static void walks_to_damage(void **state)
{
    const kit_dir *kit = *state;
    lj_error err = LJ_ERROR_INIT;
    kit_wal wal;
    kit_wal_begin(&wal, kit->wal_path, PAGE, 1);
    kit_wal_commits(&wal, 20, 7, 1);
    kit_wal_begin(&wal, kit->wal_path, PAGE, 2);
    kit_wal_commits(&wal, 10, 7, 1); /* frames 11..20 are of the former life */
    LJ_CLEANUP(lj_walfile_close) lj_walfile file = LJ_WALFILE_INIT;
    assert_ok(lj_walfile_refresh(&file, kit->wal_path, &err), &err);
    lj_wal_chain chain;
    lj_wal_verdict verdict;
    lj_wal_chain_start(&chain, &file.header);
    assert_ok(lj_walfile_walk(file.fd, &chain, UINT64_MAX, NULL, NULL, &verdict, &err), &err);
    assert_int_equal(verdict, LJ_WAL_FRAME_SALT);
    assert_int_equal(chain.committed, 10);

    kit_flip(kit->wal_path, lj_wal_frame_offset(PAGE, 7) + 100, 4);
    lj_wal_chain_start(&chain, &file.header);
    assert_ok(lj_walfile_walk(file.fd, &chain, UINT64_MAX, NULL, NULL, &verdict, &err), &err);
    assert_int_equal(verdict, LJ_WAL_FRAME_CHECKSUM);
    assert_int_equal(chain.frames, 6);

    assert_int_equal(truncate(kit->wal_path, (off_t)lj_wal_frame_offset(PAGE, 4) + 30), 0);
    lj_wal_chain_start(&chain, &file.header);
    assert_ok(lj_walfile_walk(file.fd, &chain, UINT64_MAX, NULL, NULL, &verdict, &err), &err);
    assert_int_equal(verdict, LJ_WAL_FRAME_OK); /* the file ends in the middle of frame 4 */
    assert_int_equal(chain.frames, 3);
}

static void one_frame(void **state)
{
    const kit_dir *kit = *state;
    lj_error err = LJ_ERROR_INIT;
    kit_wal wal;
    kit_wal_begin(&wal, kit->wal_path, PAGE, 1);
    kit_wal_commits(&wal, 3, 7, 1);
    LJ_CLEANUP(lj_walfile_close) lj_walfile file = LJ_WALFILE_INIT;
    assert_ok(lj_walfile_refresh(&file, kit->wal_path, &err), &err);
    lj_wal_frame frame;
    assert_ok(lj_walfile_frame(file.fd, PAGE, 3, &frame, &err), &err);
    assert_int_equal(frame.pgno, 3);
    assert_int_equal(frame.db_pages, 7);
    assert_true(lj_wal_cksum_eq(frame.cksum, wal.sum));
    assert_int_equal(lj_walfile_frame(file.fd, PAGE, 4, &frame, &err), LJ_CORRUPT);
}

#define ONE(fn) cmocka_unit_test_setup_teardown(fn, kit_dir_setup, kit_dir_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ONE(refresh_follows_the_name),
        ONE(walks),
        ONE(walks_to_damage),
        ONE(one_frame),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
