/* file_kit.h - what the tests of the driver for folders share: a folder of their own, and the names of a replica's layout. */
#ifndef LJ_TEST_FILE_KIT_H
#define LJ_TEST_FILE_KIT_H

#include "test/unit/unit.h"

#include "vfs/storage/storage.h"

#define GENERATION "generations/0123456789abcdef/"
#define SNAPSHOT   GENERATION "snapshots/00000000.snapshot.lz4"
#define SEGMENT    GENERATION "wal/00000000_00000000.wal.lz4"

/* A new folder with a replica root "r" in it that does not exist yet. */
typedef struct {
    char folder[40];
    char root[64];
    lj_storage *storage;
} file_fixture;

int file_set_up(void **state);
int file_tear_down(void **state);
#define FILE_CASE(name) cmocka_unit_test_setup_teardown(name, file_set_up, file_tear_down)

/* The path of `name` in the fixture's folder; valid until the next call but three. */
const char *file_in(const file_fixture *f, const char *name);
void file_write(const char *path);
/* Number of entries of a folder, hidden ones too. */
size_t file_entries(const char *folder);
/* Acts as a user without rights, if this is root. False (with a reason) when that cannot be. */
bool file_become_nobody(void);
void file_become_myself(void);

#endif
