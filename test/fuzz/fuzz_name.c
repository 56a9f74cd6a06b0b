/*
 * fuzz_name.c - replica object names: whatever a folder or bucket holds, a key is either foreign or says exactly one
 * position, and only the writer's own spelling of it (or the long offsets the reader also takes).
 */
#include "test/fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "vfs/replica/name.h"

/* The writer's name for the same position. */
static void write_again(const lj_name *name, char out[LJ_NAME_MAX])
{
    if (name->kind == LJ_NAME_SNAPSHOT)
        lj_name_snapshot(name->position.generation, name->position.index, out);
    else
        lj_name_wal(&name->position, out);
}

static void check_known(const char *key, const lj_name *name)
{
    char again[LJ_NAME_MAX];
    char prefix[LJ_NAME_MAX];
    FUZZ_CHECK(name->kind == LJ_NAME_SNAPSHOT || name->kind == LJ_NAME_WAL);
    FUZZ_CHECK(lj_generation_ok(name->position.generation));
    FUZZ_CHECK(name->position.index <= LJ_INDEX_MAX);
    FUZZ_CHECK(name->kind == LJ_NAME_WAL || name->position.offset == 0);
    lj_name_generation_prefix(name->position.generation, prefix);
    FUZZ_CHECK(strncmp(key, prefix, strlen(prefix)) == 0);

    write_again(name, again);
    lj_name back;
    lj_name_parse(again, &back);
    FUZZ_CHECK(back.kind == name->kind);
    FUZZ_CHECK(lj_position_compare(&back.position, &name->position) == 0);
    FUZZ_CHECK(strcmp(back.position.generation, name->position.generation) == 0);
    /* a shorter spelling than the writer's would be a second name of the same object */
    FUZZ_CHECK(strlen(again) <= strlen(key));
    if (strlen(again) == strlen(key))
        FUZZ_CHECK(strcmp(again, key) == 0);
    char text[LJ_POSITION_TEXT_MAX];
    lj_position_format(&name->position, text);
    FUZZ_CHECK(strlen(text) > 16 && strncmp(text, name->position.generation, 16) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *key = malloc(size + 1);
    if (key == NULL)
        return 0;
    if (size > 0)
        memcpy(key, data, size);
    key[size] = 0;
    lj_name name;
    lj_name_parse(key, &name);
    if (name.kind != LJ_NAME_FOREIGN)
        check_known(key, &name);
    (void)lj_generation_ok(key);
    free(key);
    return 0;
}
