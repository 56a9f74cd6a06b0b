/* image_test.c - what an image gives while a checkpoint writes the file under it, in any order, and the limit of what it saves. */
#include "test/unit/capture/kit.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "vfs/base/io.h"
#include "vfs/capture/image.h"

#define PAGE  512u
#define PAGES 4000u /* several chunks */

/* A database in memory that freezes as the test says. */
typedef struct {
    kit_dir dir;
    lj_image_guard guard;
    uint8_t *file; /* PAGES pages; each byte of a page is its version */
    lj_freeze freeze;
    int released;
    uint32_t reading;                   /* page of the read that is going on */
    void (*during_read)(void *fixture); /* called in the middle of a read, may be NULL */
    atomic_bool cancel;
    lj_image_place place;
    /* of those with a WAL */
    int freezes;
    int what;     /* happens in front of the second freeze, see below */
    uint8_t *wal; /* its bytes */
    lj_wal_cksum sum;
    lj_wal_header header;
} fixture;

static void before_second_freeze(fixture *f);

static lj_code fake_freeze(void *ctx, lj_freeze *ret_freeze, lj_error *err)
{
    fixture *f = ctx;
    (void)err;
    if (f->freezes++ == 1 && f->wal != NULL)
        before_second_freeze(f);
    *ret_freeze = f->freeze;
    return LJ_OK;
}

static void fake_release(void *ctx)
{
    ((fixture *)ctx)->released++;
}

static lj_code plain_read(void *ctx, uint64_t off, void *out, size_t len, lj_error *err)
{
    (void)err;
    memcpy(out, ((fixture *)ctx)->file + off, len);
    return LJ_OK;
}

static lj_code fake_read(void *ctx, uint64_t off, void *out, size_t len, lj_error *err)
{
    fixture *f = ctx;
    f->reading = (uint32_t)(off / PAGE) + 1;
    lj_code code = plain_read(ctx, off, out, len / 2, err);
    if (f->during_read != NULL)
        f->during_read(f);
    return code != LJ_OK
               ? code
               : plain_read(ctx, off + len / 2, (uint8_t *)out + len / 2, len - len / 2, err);
}

static lj_code fake_size(void *ctx, uint64_t *ret_bytes, lj_error *err)
{
    (void)ctx;
    (void)err;
    *ret_bytes = (uint64_t)PAGES * PAGE;
    return LJ_OK;
}

static bool fake_place(void *ctx, lj_image_place *ret_place)
{
    *ret_place = ((fixture *)ctx)->place;
    return true;
}

static void fake_close(void *ctx)
{
    (void)ctx;
}

static const lj_dbfile *dbfile_of(fixture *f)
{
    static lj_dbfile file;
    file = (lj_dbfile){.ctx = f,
                       .freeze = fake_freeze,
                       .release = fake_release,
                       .read = fake_read,
                       .size = fake_size,
                       .place = fake_place,
                       .close = fake_close};
    return &file;
}

static void begin(fixture *f, bool held)
{
    memset(f, 0, sizeof(*f));
    kit_dir_make(&f->dir);
    pthread_mutex_init(&f->guard.mutex, NULL);
    f->guard.saved_bytes = UINT64_MAX;
    f->file = malloc((size_t)PAGES * PAGE);
    memset(f->file, 1, (size_t)PAGES * PAGE);
    f->freeze = (lj_freeze){.page_size = PAGE, .db_pages = PAGES, .backfilled = true, .held = held};
}

static void end(fixture *f)
{
    pthread_mutex_destroy(&f->guard.mutex);
    free(f->file);
    kit_dir_remove(&f->dir);
}

static lj_image *image_of(fixture *f)
{
    lj_error err = LJ_ERROR_INIT;
    lj_image *image = NULL;
    assert_ok(lj_io_mkdirs(f->dir.state_dir, 0700, &err), &err);
    assert_ok(lj_image_begin(&f->guard, dbfile_of(f), f->dir.wal_path, f->dir.state_dir, &f->cancel,
                             &image, &err),
              &err);
    return image;
}

/* What a checkpoint does with one page. */
static void overwrite(fixture *f, uint32_t pgno, int version)
{
    lj_image_reader reader = {.ctx = f, .read = plain_read};
    lj_image_before_write(&f->guard, (uint64_t)(pgno - 1) * PAGE, PAGE, &reader);
    memset(f->file + (size_t)(pgno - 1) * PAGE, version, PAGE);
}

/* Reads the whole image; every byte must be 1. */
static lj_code read_all(lj_image *image, lj_error *err)
{
    lj_source source = lj_image_source(image);
    uint8_t *data = malloc((size_t)PAGES * PAGE);
    size_t len = 0;
    size_t n = 1;
    lj_code code = LJ_OK;
    while (code == LJ_OK && n > 0) {
        code = source.read(source.ctx, data + len, (size_t)PAGES * PAGE - len, &n, err);
        len += code == LJ_OK ? n : 0;
    }
    if (code == LJ_OK)
        assert_int_equal(len, (size_t)PAGES * PAGE);
    for (size_t i = 0; i < len; i++)
        if (data[i] != 1)
            fail_msg("byte %zu (page %zu) is of version %d", i, i / PAGE + 1, data[i]);
    free(data);
    return code;
}

static void *checkpoint_around(void *ctx)
{
    fixture *f = ctx;
    for (uint32_t pgno = f->reading > 50 ? f->reading - 50 : 1;
         pgno < f->reading + 700 && pgno <= PAGES; pgno += 3)
        overwrite(f, pgno, 2);
    return NULL;
}

/* Pages behind the reader, under it and in front of it, by another thread. */
static void write_around(void *ctx)
{
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, checkpoint_around, ctx), 0);
    pthread_join(thread, NULL);
}

static void a_checkpoint_around_the_reader(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    fixture f;
    begin(&f, false);
    f.during_read = write_around;
    lj_image *image = image_of(&f);
    assert_ok(read_all(image, &err), &err);
    lj_image_end(image);
    overwrite(&f, 1, 3); /* nobody needs it any more */
    end(&f);
}

static void give_back_and_write(void *ctx)
{
    fixture *f = ctx;
    if (f->reading >= 1000)
        f->during_read = write_around;
}

/* The mark is given back between two reads: from then on the image saves. */
static void the_mark_is_given_back(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    fixture f;
    begin(&f, true);
    lj_image *image = image_of(&f);
    lj_source source = lj_image_source(image);
    uint8_t first[PAGE];
    size_t n = 0;
    assert_ok(source.read(source.ctx, first, sizeof(first), &n, &err), &err);
    assert_true(lj_image_convert(&f.guard, NULL));
    assert_int_equal(f.released, 1);
    assert_false(lj_image_convert(&f.guard, NULL));
    overwrite(&f, 3000, 2);
    f.during_read = give_back_and_write;
    uint8_t page[PAGE];
    for (uint32_t pgno = 2; pgno <= PAGES; pgno++) {
        assert_ok(source.read(source.ctx, page, sizeof(page), &n, &err), &err);
        assert_int_equal(n, PAGE);
        assert_int_equal(page[0], 1);
        assert_int_equal(page[PAGE - 1], 1);
    }
    lj_image_end(image);
    assert_int_equal(f.released, 1);
    end(&f);
}

/* What connections of this process checkpoint is saved; what another process does there is not, and is noticed. */
static void checkpoints_of_another_process(void **state)
{
    (void)state;
    enum { NOBODY, BEHIND_ONE_OF_OURS, AT_THE_END, RESTARTED, CASES };
    for (int foreign = NOBODY; foreign < CASES; foreign++) {
        lj_error err = LJ_ERROR_INIT;
        fixture f;
        begin(&f, true);
        f.place = (lj_image_place){.salt = {1, 2}, .attempted = 10};
        lj_image *image = image_of(&f);
        lj_image_enter(&f.guard, &f.place, false);
        assert_true(lj_image_convert(&f.guard, &f.place));
        overwrite(&f, 3000, 2);
        f.place.attempted = 20;
        lj_image_leave(&f.guard, &f.place, false);
        if (foreign == BEHIND_ONE_OF_OURS)
            f.place.attempted = 21;
        lj_image_enter(&f.guard, &f.place, false);
        f.place.attempted = 30;
        lj_image_leave(&f.guard, &f.place, false);
        if (foreign == AT_THE_END)
            f.place.attempted = 31;
        if (foreign == RESTARTED)
            f.place.salt.salt1++;
        assert_int_equal(read_all(image, &err), foreign == NOBODY ? LJ_OK : LJ_BUSY);
        assert_true(foreign == NOBODY || strstr(err.message, "another process") != NULL);
        lj_image_end(image);
        end(&f);
    }
}

/* Several connections of this process at once: one checkpoints, another restarts the WAL behind it, before the first is done. */
static void several_of_ours_at_once(void **state)
{
    (void)state;
    for (int foreign = 0; foreign < 2; foreign++) {
        lj_error err = LJ_ERROR_INIT;
        fixture f;
        begin(&f, true);
        f.place = (lj_image_place){.salt = {1, 2}, .attempted = 10};
        lj_image *image = image_of(&f);
        lj_image_enter(&f.guard, &f.place, false);
        assert_true(lj_image_convert(&f.guard, &f.place));
        f.place.attempted = 20;
        if (foreign == 0)
            lj_image_enter(&f.guard, &f.place, true);
        f.place = (lj_image_place){.salt = {2, 7}, .attempted = 0};
        if (foreign == 0)
            lj_image_leave(&f.guard, &f.place, true);
        lj_image_leave(&f.guard, &f.place, false); /* sees another WAL than it found */
        assert_int_equal(read_all(image, &err), foreign == 0 ? LJ_OK : LJ_BUSY);
        assert_int_equal(atomic_load(&f.guard.inside), 0);
        assert_int_equal(atomic_load(&f.guard.restarting), 0);
        lj_image_end(image);
        end(&f);
    }
}

/* It began under an exclusive lock of this process, so nobody else could write. When that lock goes, others can, and nothing would tell. */
static void the_exclusive_lock_goes(void **state)
{
    (void)state;
    enum { HELD, CONVERTED, ALONE, CASES };
    for (int how = HELD; how < CASES; how++) {
        lj_error err = LJ_ERROR_INIT;
        fixture f;
        begin(&f, how != ALONE);
        f.place = (lj_image_place){.salt = {1, 2}, .attempted = 10};
        lj_image_unlocked(&f.guard); /* no image: nothing happens */
        lj_image *image = image_of(&f);
        if (how == CONVERTED)
            assert_true(lj_image_convert(&f.guard, &f.place));
        lj_image_unlocked(&f.guard);
        assert_int_equal(read_all(image, &err), how == ALONE ? LJ_BUSY : LJ_OK);
        lj_image_unlocked(&f.guard); /* read whole: it is what it is */
        lj_image_end(image);
        end(&f);
    }
}

/* Ten pages may be saved: with the eleventh the snapshot is lost, and nothing else. */
static void saved_pages_have_a_limit(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    fixture f;
    begin(&f, false);
    f.guard.saved_bytes = UINT64_C(10) * PAGE;
    lj_image *image = image_of(&f);
    for (uint32_t pgno = 1001; pgno <= 1010; pgno++) {
        overwrite(&f, pgno, 2);
        overwrite(&f, pgno, 3); /* a second time costs nothing */
    }
    assert_ok(read_all(image, &err), &err);
    lj_image_end(image);
    memset(f.file, 1, (size_t)PAGES * PAGE);
    image = image_of(&f);
    for (uint32_t pgno = 1001; pgno <= 1011; pgno++)
        overwrite(&f, pgno, 2);
    assert_int_equal(f.file[1010 * PAGE], 2); /* the application's write took place */
    assert_int_equal(read_all(image, &err), LJ_NOSPACE);
    assert_non_null(strstr(err.message, "max_spool_size"));
    lj_image_end(image);
    end(&f);
}

/* ------------------------------------------------------------------ a WAL that is verified before it is frozen */

#define WAL_FRAMES 4000u /* 2 MiB; each page of the database once, then the first ones again */
#define WAL_MORE   10u

enum { NOTHING, COMMITTED, RESTARTED_SINCE, REWRITTEN, TORN, FEWER, WAL_CASES };

/* Frame `number` with a page of `version`; `commit`: it ends a transaction. */
static void put_frame(fixture *f, uint64_t number, int version, bool commit)
{
    uint8_t *to = f->wal + lj_wal_frame_offset(PAGE, number);
    memset(to + LJ_WAL_FRAME_HEADER_BYTES, version, PAGE);
    lj_wal_frame_write(&f->header, &f->sum, (uint32_t)((number - 1) % PAGES) + 1,
                       commit ? PAGES : 0, to + LJ_WAL_FRAME_HEADER_BYTES, to);
}

/* Frames first..last as one transaction. */
static void put_frames(fixture *f, uint64_t first, uint64_t last, int version)
{
    for (uint64_t number = first; number <= last; number++)
        put_frame(f, number, version, number == last);
    f->freeze.frames = last;
    f->freeze.cksum = f->sum;
}

static void put_header(fixture *f, uint32_t salt)
{
    f->header = (lj_wal_header){.page_size = PAGE, .salt = {salt, 2}};
    lj_wal_header_write(&f->header, f->wal);
    f->sum = f->header.cksum;
    f->freeze.salt = f->header.salt;
}

static void store_wal(const fixture *f)
{
    lj_error err = LJ_ERROR_INIT;
    LJ_CLEANUP(lj_closep) int fd = -1;
    uint64_t len = lj_wal_frame_offset(PAGE, WAL_FRAMES + WAL_MORE + 1);
    assert_ok(lj_io_open(f->dir.wal_path, O_RDWR | O_CREAT, 0600, &fd, &err), &err);
    assert_ok(lj_io_pwrite(fd, f->wal, len, 0, &err), &err);
}

/* The newest version of each page at the second freeze is 1; what was there before is 9, but where nothing happens. */
static void before_second_freeze(fixture *f)
{
    assert_int_equal(pthread_mutex_trylock(&f->guard.mutex), EBUSY); /* frozen under the guard */
    switch (f->what) {
    case COMMITTED:
        put_frames(f, WAL_FRAMES + 1, WAL_FRAMES + WAL_MORE, 1);
        break;
    case RESTARTED_SINCE: /* all of the life before is in the file */
        put_header(f, 7);
        put_frames(f, 1, WAL_MORE, 1);
        memset(f->file, 1, (size_t)PAGES * PAGE);
        memset(f->file, 9, WAL_MORE * PAGE);
        break;
    case REWRITTEN: /* the same salts, as if what was read had never been committed */
        put_header(f, 1);
        put_frames(f, 1, WAL_FRAMES, 1);
        break;
    case FEWER:
        put_header(f, 1);
        put_frames(f, 1, WAL_MORE, 1);
        memset(f->file, 1, (size_t)PAGES * PAGE);
        break;
    default:
        break;
    }
    store_wal(f);
}

/* Whatever happens between verifying and freezing, the image is what was frozen. */
static void a_wal_is_verified_ahead(void **state)
{
    (void)state;
    for (int what = NOTHING; what < WAL_CASES; what++) {
        lj_error err = LJ_ERROR_INIT;
        fixture f;
        begin(&f, true);
        f.what = what;
        f.wal = calloc(1, lj_wal_frame_offset(PAGE, WAL_FRAMES + WAL_MORE + 1));
        f.freeze.backfilled = false;
        f.freeze.has_cksum = true;
        memset(f.file, 9, (size_t)PAGES * PAGE);
        put_header(&f, 1);
        bool right = what == NOTHING || what == COMMITTED || what == TORN;
        put_frames(&f, 1, WAL_FRAMES, right ? 1 : 9);
        if (what == COMMITTED) { /* the first pages are written again behind it */
            put_header(&f, 1);
            for (uint64_t number = 1; number <= WAL_FRAMES; number++)
                put_frame(&f, number, number <= WAL_MORE ? 9 : 1, number == WAL_FRAMES);
            f.freeze.cksum = f.sum;
        }
        if (what == TORN) /* the wal-index vouches for a frame that does not verify */
            f.wal[lj_wal_frame_offset(PAGE, 3000) + 20] ^= 1;
        store_wal(&f);
        lj_image *image = image_of(&f);
        assert_int_equal(lj_image_freeze(image)->broken, what == TORN);
        assert_int_equal(f.freezes, 2);
        assert_int_equal(f.released, 1);
        assert_ok(read_all(image, &err), &err);
        lj_image_end(image);
        assert_int_equal(f.released, 2);
        free(f.wal);
        end(&f);
    }
}

/* With few frames, or none that is needed, it is frozen once. */
static void little_is_verified_frozen(void **state)
{
    (void)state;
    for (int backfilled = 0; backfilled < 2; backfilled++) {
        lj_error err = LJ_ERROR_INIT;
        fixture f;
        begin(&f, true);
        f.wal = calloc(1, lj_wal_frame_offset(PAGE, WAL_FRAMES + WAL_MORE + 1));
        f.freeze.backfilled = backfilled != 0;
        put_header(&f, 1);
        put_frames(&f, 1, backfilled ? WAL_FRAMES : WAL_MORE, backfilled ? 9 : 1);
        store_wal(&f);
        lj_image *image = image_of(&f);
        assert_int_equal(f.freezes, 1);
        assert_ok(read_all(image, &err), &err);
        lj_image_end(image);
        free(f.wal);
        end(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_checkpoint_around_the_reader),
        cmocka_unit_test(the_mark_is_given_back),
        cmocka_unit_test(checkpoints_of_another_process),
        cmocka_unit_test(several_of_ours_at_once),
        cmocka_unit_test(the_exclusive_lock_goes),
        cmocka_unit_test(saved_pages_have_a_limit),
        cmocka_unit_test(a_wal_is_verified_ahead),
        cmocka_unit_test(little_is_verified_frozen),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
