/*
 * fuzz_spool.c - names in the spool folder: a file is an entry of exactly one place, or somebody else's and left alone.
 */
#include "test/fuzz/fuzz.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vfs/capture/spool.h"

#define NAME_BYTES_MAX 200u

static char folder[] = "/tmp/fuzz_spool_XXXXXX";
static bool prepared;

static void clean_up(void)
{
    rmdir(folder);
}

static void prepare(void)
{
    if (prepared)
        return;
    if (mkdtemp(folder) == NULL)
        abort();
    prepared = true;
    atexit(clean_up);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char name[NAME_BYTES_MAX + 1] = "";
    char path[NAME_BYTES_MAX + 64];
    char generation[LJ_GENERATION_MAX] = "";
    prepare();
    for (size_t i = 0; i < size && i < NAME_BYTES_MAX && data[i] != 0 && data[i] != '/'; i++)
        name[i] = (char)data[i];
    if (name[0] == 0 || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return 0;
    snprintf(path, sizeof(path), "%s/%s", folder, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return 0; /* not a name for this file system */
    close(fd);
    snprintf(generation, sizeof(generation), "%.16s", name);
    lj_error err = LJ_ERROR_INIT;
    lj_spool_entry entry;
    lj_code code = lj_spool_first(folder, generation, 0, false, &entry, &err);
    uint64_t bytes = lj_spool_bytes(folder, generation);
    if (code == LJ_OK) {
        FUZZ_CHECK(strcmp(entry.start.generation, generation) == 0);
        FUZZ_CHECK(entry.start.index <= LJ_INDEX_MAX && entry.end > entry.start.offset);
        FUZZ_CHECK(bytes == entry.end - entry.start.offset);
        bool holds = false;
        FUZZ_CHECK(lj_spool_holds(folder, &entry.start, &holds, &err) == LJ_OK && holds);
        uint64_t prev_end = 0;
        code = lj_spool_prev_end(folder, generation, entry.start.index, &prev_end, &err);
        FUZZ_CHECK(code == (entry.start.offset == 0 ? LJ_OK : LJ_NOTFOUND));
        FUZZ_CHECK(code != LJ_OK || prev_end == entry.prev_end);
        lj_spool_remove(folder, &entry);
        FUZZ_CHECK(access(path, F_OK) != 0);
        FUZZ_CHECK(lj_spool_first(folder, generation, 0, false, &entry, &err) == LJ_NOTFOUND);
    } else {
        FUZZ_CHECK(code == LJ_NOTFOUND && bytes == 0);
    }
    unlink(path);
    return 0;
}
