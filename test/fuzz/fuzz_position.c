/*
 * fuzz_position.c - the position file. One that is taken, written and read again says the same.
 *
 * The first byte chooses. Even: the rest is the file. Odd: the rest are lines, the checksum is added, because random bytes never get
 * past one.
 */
#include "test/fuzz/fuzz.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vfs/capture/position.h"

static char folder[] = "/tmp/fuzz_position_XXXXXX";
static char path[64];

static void clean_up(void)
{
    unlink(path);
    rmdir(folder);
}

static void prepare(void)
{
    if (path[0] != 0)
        return;
    if (mkdtemp(folder) == NULL)
        abort();
    snprintf(path, sizeof(path), "%s/position", folder);
    atexit(clean_up);
}

/* As position.c counts it. */
static uint32_t sum_of(const uint8_t *text, size_t len)
{
    uint32_t s1 = 0;
    uint32_t s2 = 0;
    for (size_t i = 0; i < len; i++) {
        s1 += text[i] + s2;
        s2 += s1 * 31u + 7u;
    }
    return s1 ^ s2;
}

static void write_file(const uint8_t *data, size_t size, bool sealed)
{
    FILE *file = fopen(path, "wb");
    if (file == NULL)
        abort();
    if (size > 0)
        fwrite(data, 1, size, file);
    if (sealed)
        fprintf(file, "check %u\n", sum_of(data, size));
    fclose(file);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    prepare();
    write_file(data + 1, size - 1, (data[0] & 1) != 0);
    lj_error err = LJ_ERROR_INIT;
    lj_saved_position first;
    memset(&first, 0, sizeof(first));
    if (lj_saved_position_load(path, &first, &err) != LJ_OK) {
        FUZZ_CHECK(first.at.generation[0] == 0 && err.message[0] != 0);
        return 0;
    }
    FUZZ_CHECK(lj_generation_ok(first.at.generation) && first.at.index <= LJ_INDEX_MAX);
    FUZZ_CHECK(first.lineage_count <= LJ_LINEAGE_MAX);
    lj_saved_position second;
    FUZZ_CHECK(lj_saved_position_store(path, &first, true, &err) == LJ_OK);
    FUZZ_CHECK(lj_saved_position_load(path, &second, &err) == LJ_OK);
    FUZZ_CHECK(lj_position_compare(&first.at, &second.at) == 0 &&
               strcmp(first.at.generation, second.at.generation) == 0);
    FUZZ_CHECK(first.prev_end == second.prev_end && first.page_size == second.page_size);
    FUZZ_CHECK(lj_wal_salt_eq(first.salt, second.salt) && lj_wal_cksum_eq(first.sum, second.sum));
    FUZZ_CHECK(first.has_base == second.has_base && first.base_frames == second.base_frames);
    FUZZ_CHECK(first.has_identity == second.has_identity &&
               (!first.has_identity || lj_identity_eq(&first.identity, &second.identity)));
    FUZZ_CHECK(first.last_object_ns == second.last_object_ns &&
               first.snapshot_ns == second.snapshot_ns);
    FUZZ_CHECK(first.lineage_count == second.lineage_count);
    return 0;
}
