/*
 * kit.h - what the tests of vfs/capture and vfs/ship share: a temporary folder with a database in it, and WALs that are
 * written frame by frame, as SQLite would write them.
 */
#ifndef LJ_TEST_KIT_H
#define LJ_TEST_KIT_H

#include "test/unit/unit.h"

#include "vfs/capture/database.h"

/* A folder that is removed at the end. The paths are those of a database "a.db" in it. */
typedef struct {
    char dir[48];
    char db_path[64];
    char wal_path[72];
    char state_dir[80];
    char spool_dir[88];
    char position_path[96];
} kit_dir;

void kit_dir_make(kit_dir *kit);
void kit_dir_remove(const kit_dir *kit);
/* setup and teardown of a test whose state is a kit_dir */
int kit_dir_setup(void **state);
int kit_dir_teardown(void **state);

/* A WAL in the making. */
typedef struct {
    char path[200];
    lj_wal_header header;
    lj_wal_cksum sum;
    uint64_t frames;
} kit_wal;

/* Writes a header into `path`, creating it; what stands behind the header stays, as at a restart. */
void kit_wal_begin(kit_wal *wal, const char *path, uint32_t page_size, uint32_t salt);
/* Appends a frame; db_pages != 0 ends a transaction. The page's content is kit_page(pgno, version). */
void kit_wal_frame(kit_wal *wal, uint32_t pgno, uint32_t db_pages, unsigned version);
/* Appends `count` transactions of one frame each: pages 1.. of a database of `db_pages` pages. */
void kit_wal_commits(kit_wal *wal, unsigned count, uint32_t db_pages, unsigned version);
/* Offset behind the last frame. */
uint64_t kit_wal_end(const kit_wal *wal);
/* Publishes its end to the database. */
void kit_wal_publish(const kit_wal *wal, lj_db *db, uint32_t db_pages);

/* Content of one page; page 1 begins like a database file. */
void kit_page(uint8_t *out, uint32_t page_size, uint32_t pgno, unsigned version);
/* Makes a database file of that many pages, each of that version. */
void kit_db_file(const char *path, uint32_t page_size, uint32_t pages, unsigned version);
/* Flips bits of one byte of a file. */
void kit_flip(const char *path, uint64_t off, uint8_t bits);
bool kit_exists(const char *path);
/* lj_spool_holds of a folder that can be read. */
bool kit_spool_holds(const char *dir, const lj_position *at);

/* A database object whose wake-ups are only counted. */
lj_db *kit_db(const kit_dir *kit, const lj_db_options *options);
extern atomic_int kit_wakes;
/* One that replicates that generation, from its begin, and has a shared page of its own. */
lj_db *kit_db_replicating(const kit_dir *kit, const lj_db_options *options, const char *generation);
/* max_wal_size 64 KiB, max_spool_size 1 MiB, times that never come. */
lj_db_options kit_db_options(void);

/* A salt as kit_wal_begin makes it. */
lj_wal_salt kit_salt(uint32_t salt);

#endif
