/*
 * fuzz_fold.c - the WAL of a replica, as a restore takes it: segments of several indexes.
 *
 * The first byte chooses. Even: pieces as they come, each behind a head of 4 bytes (index, two of the offset, length). Odd: a recipe
 * for indexes of good frames, cut into segments, of which one byte may be changed. Undamaged they give the database of the
 * last commit, however they are cut; whatever comes, the result has the size that the last commit says, or there is an error.
 */
#include "test/fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vfs/restore/fold.h"

#define PAGE_BYTES   512u
#define RECIPE_BYTES 8u
#define FRAMES_MAX   5u

static int memory_file(void)
{
    int fd = memfd_create("fuzz_fold", 0);
    if (fd < 0)
        abort();
    return fd;
}

static lj_code pass(lj_fold *fold, uint32_t index, uint64_t offset, const uint8_t *data, size_t len,
                    size_t piece)
{
    lj_error err = LJ_ERROR_INIT;
    lj_code code = lj_fold_begin(fold, index, offset, &err);
    for (size_t at = 0; at < len && code == LJ_OK; at += piece)
        code = lj_fold_data(fold, data + at, LJ_MIN(piece, len - at), &err);
    FUZZ_CHECK(code == LJ_OK || err.message[0] != 0);
    FUZZ_CHECK(code != LJ_INTERNAL && code != LJ_NOTFOUND);
    return code;
}

static lj_code end(lj_fold *fold)
{
    lj_error err = LJ_ERROR_INIT;
    lj_fold_state state;
    struct stat st;
    LJ_TRY(lj_fold_finish(fold, &err));
    int fd = memory_file();
    lj_code code = lj_fold_apply(fold, fd, &err);
    lj_fold_get_state(fold, &state);
    if (code == LJ_OK && fstat(fd, &st) == 0)
        FUZZ_CHECK((uint64_t)st.st_size == (uint64_t)state.db_pages * state.page_size);
    close(fd);
    return code;
}

static void raw(const uint8_t *data, size_t size, lj_fold *fold)
{
    lj_code code = LJ_OK;
    while (size > 4 && code == LJ_OK) {
        size_t len = LJ_MIN((size_t)data[3] * 8, size - 4);
        uint64_t offset = data[1] | ((uint64_t)data[2] << 8);
        code = pass(fold, data[0] % 4, offset, data + 4, len, len + 1);
        data += 4 + len;
        size -= 4 + len;
    }
    if (code == LJ_OK)
        (void)!end(fold);
}

/* One index of good frames; the last of them commits. Returns its length. */
static size_t make_index(const uint8_t *recipe, uint32_t number, uint8_t *wal)
{
    uint32_t frames = 1 + recipe[1] % FRAMES_MAX;
    lj_wal_header header = {.big_endian = (recipe[2] & 1) != 0,
                            .page_size = PAGE_BYTES,
                            .checkpoint = number,
                            .salt = {.salt1 = 1000 + number, .salt2 = recipe[3]}};
    lj_wal_header_write(&header, wal);
    lj_wal_cksum sum = header.cksum;
    for (uint32_t i = 0; i < frames; i++) {
        uint8_t *frame = wal + lj_wal_frame_offset(PAGE_BYTES, i + 1);
        memset(frame + LJ_WAL_FRAME_HEADER_BYTES, (int)(recipe[4] + i + number), PAGE_BYTES);
        uint32_t pgno = 1 + (recipe[3] + i) % 4;
        bool commits = i + 1 == frames || (recipe[2] >> (i + 1) & 1) != 0;
        lj_wal_frame_write(&header, &sum, pgno, commits ? 4 : 0, frame + LJ_WAL_FRAME_HEADER_BYTES,
                           frame);
    }
    return (size_t)lj_wal_frame_offset(PAGE_BYTES, frames + 1);
}

static void from_recipe(const uint8_t *recipe, lj_fold *fold)
{
    uint8_t wal[LJ_WAL_HEADER_BYTES + FRAMES_MAX * (LJ_WAL_FRAME_HEADER_BYTES + PAGE_BYTES)];
    uint32_t indexes = 1 + recipe[0] % 3;
    bool damaged = recipe[7] != 0;
    lj_code code = LJ_OK;
    for (uint32_t number = 0; number < indexes && code == LJ_OK; number++) {
        size_t len = make_index(recipe, number, wal);
        if (damaged && number == recipe[5] % indexes)
            wal[(recipe[6] * 37u) % len] ^= recipe[7];
        size_t cut = (recipe[5] * 11u) % len;
        code = pass(fold, number, 0, wal, cut, 1 + recipe[6] % 200);
        if (code == LJ_OK)
            code = pass(fold, number, cut, wal + cut, len - cut, len);
    }
    if (code == LJ_OK)
        code = end(fold);
    FUZZ_CHECK(damaged || code == LJ_OK);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    lj_error err = LJ_ERROR_INIT;
    lj_fold *fold = NULL;
    if (size == 0)
        return 0;
    lj_fold_setup setup = {.generation = "0123456789abcdef", .temp_fd = memory_file()};
    if (lj_fold_new(&setup, &fold, &err) == LJ_OK) {
        if ((data[0] & 1) == 0)
            raw(data + 1, size - 1, fold);
        else if (size > RECIPE_BYTES)
            from_recipe(data + 1, fold);
    }
    lj_fold_free(fold);
    close(setup.temp_fd);
    return 0;
}
