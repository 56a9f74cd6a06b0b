/* segment_test.c - a range of the WAL as bytes: exact, again after a rewind, and refused when anything is wrong. */
#include "test/unit/capture/kit.h"

#include <fcntl.h>
#include <unistd.h>

#include "vfs/base/io.h"
#include "vfs/ship/segment.h"

typedef struct {
    kit_dir dir;
    kit_wal wal;
    int fd;
} fixture;

static void begin(fixture *f, uint32_t page_size)
{
    kit_dir_make(&f->dir);
    kit_wal_begin(&f->wal, f->dir.wal_path, page_size, 5);
    f->fd = open(f->dir.wal_path, O_RDONLY | O_CLOEXEC);
    assert_true(f->fd >= 0);
}

static void end(fixture *f)
{
    close(f->fd);
    kit_dir_remove(&f->dir);
}

static uint64_t off(const fixture *f, uint64_t frames)
{
    return lj_wal_frame_offset(f->wal.header.page_size, frames + 1);
}

/* Reads the segment to its end, in pieces of `piece` bytes. */
static lj_code drain(lj_source *source, uint8_t *out, size_t piece, uint64_t *ret_n, lj_error *err)
{
    size_t n = 1;
    *ret_n = 0;
    while (n > 0) {
        LJ_TRY(source->read(source->ctx, out + *ret_n, piece, &n, err));
        *ret_n += n;
    }
    return LJ_OK;
}

static void expect(const fixture *f, uint64_t from, uint64_t to, lj_wal_cksum sum)
{
    lj_error err = LJ_ERROR_INIT;
    lj_segment segment;
    LJ_CLEANUP(lj_freep) uint8_t *want = malloc(to - from);
    LJ_CLEANUP(lj_freep) uint8_t *got = malloc(to - from + 70000);
    size_t n = 0;
    assert_ok(lj_io_pread(f->fd, want, to - from, from, &n, &err), &err);
    assert_ok(lj_segment_init(&segment, f->fd, &f->wal.header, from, to, sum, &err), &err);
    lj_source source = lj_segment_source(&segment);
    assert_int_equal(source.size, to - from);
    const size_t pieces[] = {1000, 7, 65536};
    for (size_t i = 0; i < LJ_ARRAY_LEN(pieces); i++) {
        uint64_t total = 0;
        assert_ok(drain(&source, got, pieces[i], &total, &err), &err);
        assert_int_equal(total, to - from);
        assert_memory_equal(got, want, to - from);
        assert_ok(source.rewind(source.ctx, &err), &err);
    }
    lj_segment_free(&segment);
}

static lj_code code_of(const fixture *f, uint64_t from, uint64_t to, lj_wal_cksum sum)
{
    lj_error err = LJ_ERROR_INIT;
    lj_segment segment;
    LJ_CLEANUP(lj_freep) uint8_t *out = malloc(to + 70000);
    uint64_t n = 0;
    assert_ok(lj_segment_init(&segment, f->fd, &f->wal.header, from, to, sum, &err), &err);
    lj_source source = lj_segment_source(&segment);
    lj_code code = drain(&source, out, 4096, &n, &err);
    lj_segment_free(&segment);
    return code;
}

static void whole_ranges(void **state)
{
    (void)state;
    const uint32_t sizes[] = {512, 4096, 65536};
    for (size_t i = 0; i < LJ_ARRAY_LEN(sizes); i++) {
        fixture f;
        begin(&f, sizes[i]);
        kit_wal_commits(&f.wal, 5, 9, 1);
        lj_wal_cksum middle = f.wal.sum;
        kit_wal_frame(&f.wal, 1, 0, 7);
        kit_wal_frame(&f.wal, 2, 0, 7);
        kit_wal_frame(&f.wal, 3, 9, 7);
        kit_wal_commits(&f.wal, sizes[i] == 512 ? 600 : 2, 9, 20);
        expect(&f, 0, off(&f, 5), f.wal.header.cksum);
        expect(&f, 0, kit_wal_end(&f.wal), f.wal.header.cksum);
        expect(&f, off(&f, 5), off(&f, 8), middle);
        expect(&f, off(&f, 5), kit_wal_end(&f.wal), middle);
        end(&f);
    }
}

static void end_that_is_no_commit(void **state)
{
    (void)state;
    fixture f;
    begin(&f, 1024);
    kit_wal_commits(&f.wal, 2, 9, 1);
    kit_wal_frame(&f.wal, 1, 0, 7);
    kit_wal_frame(&f.wal, 2, 9, 7);
    assert_int_equal(code_of(&f, 0, off(&f, 3), f.wal.header.cksum), LJ_CORRUPT);
    assert_int_equal(code_of(&f, 0, off(&f, 4), f.wal.header.cksum), LJ_OK);
    end(&f);
}

static void broken_chain(void **state)
{
    (void)state;
    fixture f;
    begin(&f, 1024);
    kit_wal_commits(&f.wal, 6, 9, 1);
    lj_wal_cksum wrong = f.wal.header.cksum;
    wrong.s2++;
    assert_int_equal(code_of(&f, 0, off(&f, 6), wrong), LJ_CORRUPT);
    assert_int_equal(code_of(&f, off(&f, 2), off(&f, 6), f.wal.header.cksum), LJ_CORRUPT);
    const uint64_t places[] = {0,  8,  12,
                               20, 24, 24 + 1023}; /* page number, salts, checksum, page */
    for (size_t i = 0; i < LJ_ARRAY_LEN(places); i++) {
        uint64_t at = off(&f, 3) + places[i];
        kit_flip(f.dir.wal_path, at, 0x20);
        assert_int_equal(code_of(&f, 0, off(&f, 3), f.wal.header.cksum), LJ_OK);
        assert_int_equal(code_of(&f, 0, off(&f, 6), f.wal.header.cksum), LJ_CORRUPT);
        kit_flip(f.dir.wal_path, at, 0x20);
    }
    assert_int_equal(code_of(&f, 0, off(&f, 6), f.wal.header.cksum), LJ_OK);
    end(&f);
}

static void changed_header(void **state)
{
    (void)state;
    fixture f;
    begin(&f, 1024);
    kit_wal_commits(&f.wal, 6, 9, 1);
    kit_wal old = f.wal;
    kit_wal restarted;
    kit_wal_begin(&restarted, f.dir.wal_path, 1024, 6);
    assert_int_equal(code_of(&f, 0, off(&f, 6), old.header.cksum), LJ_CORRUPT);
    kit_flip(f.dir.wal_path, 0, 0xff);
    assert_int_equal(code_of(&f, 0, off(&f, 6), old.header.cksum), LJ_CORRUPT);
    end(&f);
}

static void file_that_ends_early(void **state)
{
    (void)state;
    fixture f;
    begin(&f, 1024);
    kit_wal_commits(&f.wal, 6, 9, 1);
    uint64_t to = kit_wal_end(&f.wal);
    assert_int_equal(truncate(f.dir.wal_path, (off_t)to - 1), 0);
    assert_int_equal(code_of(&f, 0, to, f.wal.header.cksum), LJ_CORRUPT);
    assert_int_equal(code_of(&f, 0, off(&f, 5), f.wal.header.cksum), LJ_OK);
    assert_int_equal(truncate(f.dir.wal_path, 20), 0);
    assert_int_equal(code_of(&f, 0, to, f.wal.header.cksum), LJ_CORRUPT);
    end(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_ranges),         cmocka_unit_test(end_that_is_no_commit),
        cmocka_unit_test(broken_chain),         cmocka_unit_test(changed_header),
        cmocka_unit_test(file_that_ends_early),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
