/* kit.c - see kit.h. */
#include "test/unit/capture/kit.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vfs/base/io.h"
#include "vfs/base/str.h"
#include "vfs/capture/spool.h"

atomic_int kit_wakes;

void kit_dir_make(kit_dir *kit)
{
    snprintf(kit->dir, sizeof(kit->dir), "%s", "/tmp/lj_unit.XXXXXX");
    assert_non_null(mkdtemp(kit->dir));
    snprintf(kit->db_path, sizeof(kit->db_path), "%s/a.db", kit->dir);
    snprintf(kit->wal_path, sizeof(kit->wal_path), "%s-wal", kit->db_path);
    snprintf(kit->state_dir, sizeof(kit->state_dir), "%s/.a.db-litejoin", kit->dir);
    snprintf(kit->spool_dir, sizeof(kit->spool_dir), "%s/spool", kit->state_dir);
    snprintf(kit->position_path, sizeof(kit->position_path), "%s/position", kit->state_dir);
    assert_int_equal(mkdir(kit->state_dir, 0700), 0);
}

void kit_dir_remove(const kit_dir *kit)
{
    LJ_CLEANUP(lj_freep) char *command = lj_str_printf("rm -rf '%s'", kit->dir);
    assert_int_equal(system(command), 0);
}

int kit_dir_setup(void **state)
{
    kit_dir *kit = calloc(1, sizeof(*kit));
    kit_dir_make(kit);
    *state = kit;
    return 0;
}

int kit_dir_teardown(void **state)
{
    kit_dir_remove(*state);
    free(*state);
    return 0;
}

static void write_at(const char *path, const void *data, size_t len, uint64_t off)
{
    lj_error err = LJ_ERROR_INIT;
    LJ_CLEANUP(lj_closep) int fd = -1;
    assert_ok(lj_io_open(path, O_WRONLY | O_CREAT, 0600, &fd, &err), &err);
    assert_ok(lj_io_pwrite(fd, data, len, off, &err), &err);
}

lj_wal_salt kit_salt(uint32_t salt)
{
    return (lj_wal_salt){.salt1 = salt, .salt2 = salt * 2654435761u};
}

void kit_wal_begin(kit_wal *wal, const char *path, uint32_t page_size, uint32_t salt)
{
    uint8_t raw[LJ_WAL_HEADER_BYTES];
    *wal =
        (kit_wal){.header = {.page_size = page_size, .checkpoint = salt, .salt = kit_salt(salt)}};
    snprintf(wal->path, sizeof(wal->path), "%s", path);
    lj_wal_header_write(&wal->header, raw);
    wal->sum = wal->header.cksum;
    write_at(path, raw, sizeof(raw), 0);
}

void kit_wal_frame(kit_wal *wal, uint32_t pgno, uint32_t db_pages, unsigned version)
{
    uint32_t page_size = wal->header.page_size;
    LJ_CLEANUP(lj_freep) uint8_t *frame = malloc(lj_wal_frame_bytes(page_size));
    assert_non_null(frame);
    kit_page(frame + LJ_WAL_FRAME_HEADER_BYTES, page_size, pgno, version);
    lj_wal_frame_write(&wal->header, &wal->sum, pgno, db_pages, frame + LJ_WAL_FRAME_HEADER_BYTES,
                       frame);
    wal->frames++;
    write_at(wal->path, frame, lj_wal_frame_bytes(page_size),
             lj_wal_frame_offset(page_size, wal->frames));
}

void kit_wal_commits(kit_wal *wal, unsigned count, uint32_t db_pages, unsigned version)
{
    for (unsigned i = 0; i < count; i++)
        kit_wal_frame(wal, i % db_pages + 1, db_pages, version + i);
}

uint64_t kit_wal_end(const kit_wal *wal)
{
    return lj_wal_frame_offset(wal->header.page_size, wal->frames + 1);
}

void kit_wal_publish(const kit_wal *wal, lj_db *db, uint32_t db_pages)
{
    lj_db_publish(db, wal->header.salt, wal->frames, wal->header.page_size, db_pages);
}

void kit_page(uint8_t *out, uint32_t page_size, uint32_t pgno, unsigned version)
{
    for (uint32_t i = 0; i < page_size; i++)
        out[i] = (uint8_t)(pgno * 131 + version * 17 + i * 7);
    if (pgno == 1) {
        memcpy(out, "SQLite format 3", 16);
        out[16] = (uint8_t)(page_size >> 8);
        out[17] = (uint8_t)(page_size >> 16);
    }
}

void kit_db_file(const char *path, uint32_t page_size, uint32_t pages, unsigned version)
{
    LJ_CLEANUP(lj_freep) uint8_t *page = malloc(page_size);
    assert_non_null(page);
    for (uint32_t pgno = 1; pgno <= pages; pgno++) {
        kit_page(page, page_size, pgno, version);
        write_at(path, page, page_size, (uint64_t)(pgno - 1) * page_size);
    }
}

void kit_flip(const char *path, uint64_t off, uint8_t bits)
{
    lj_error err = LJ_ERROR_INIT;
    LJ_CLEANUP(lj_closep) int fd = -1;
    uint8_t byte = 0;
    size_t n = 0;
    assert_ok(lj_io_open(path, O_RDWR, 0, &fd, &err), &err);
    assert_ok(lj_io_pread(fd, &byte, 1, off, &n, &err), &err);
    assert_int_equal(n, 1);
    byte ^= bits;
    assert_ok(lj_io_pwrite(fd, &byte, 1, off, &err), &err);
}

bool kit_spool_holds(const char *dir, const lj_position *at)
{
    lj_error err = LJ_ERROR_INIT;
    bool answer = false;
    assert_ok(lj_spool_holds(dir, at, &answer, &err), &err);
    return answer;
}

bool kit_exists(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0;
}

static void count_wake(lj_db *db, int64_t due_ns)
{
    (void)db;
    (void)due_ns;
    atomic_fetch_add(&kit_wakes, 1);
}

lj_db_options kit_db_options(void)
{
    return (lj_db_options){.sync_interval_ns = LJ_NS_PER_S,
                           .shutdown_timeout_ns = LJ_NS_PER_S,
                           .io_timeout_ns = LJ_NS_PER_S,
                           .max_wal_size_bytes = 64 * 1024,
                           .max_spool_size_bytes = 1024 * 1024};
}

lj_db *kit_db(const kit_dir *kit, const lj_db_options *options)
{
    lj_error err = LJ_ERROR_INIT;
    lj_db *db = NULL;
    lj_db_options usual = kit_db_options();
    atomic_store(&kit_wakes, 0);
    assert_ok(lj_db_new(kit->db_path, "file:///replica", options != NULL ? options : &usual,
                        count_wake, &db, &err),
              &err);
    return db;
}

lj_db *kit_db_replicating(const kit_dir *kit, const lj_db_options *options, const char *generation)
{
    lj_error err = LJ_ERROR_INIT;
    lj_db *db = kit_db(kit, options);
    char path[128];
    snprintf(path, sizeof(path), "%s/shared", kit->state_dir);
    assert_ok(lj_shared_open(path, &db->shared, &err), &err);
    db->chain.active = true;
    snprintf(db->chain.generation, sizeof(db->chain.generation), "%s", generation);
    snprintf(db->pos.generation, sizeof(db->pos.generation), "%s", generation);
    db->established = true;
    db->attached = true;
    db->state = LJ_DB_REPLICATING;
    return db;
}
