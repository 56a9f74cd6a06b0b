/*
 * name.c - see name.h.
 */
#include "vfs/replica/name.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "vfs/base/io.h"
#include "vfs/base/str.h"

#define GENERATIONS "generations/"
#define SNAPSHOTS   "/snapshots/"
#define WAL         "/wal/"
#define LTX         "ltx/"

void lj_position_format(const lj_position *position, char out[LJ_POSITION_TEXT_MAX])
{
    if (position->generation[0] == 0)
        snprintf(out, LJ_POSITION_TEXT_MAX, "-");
    else
        snprintf(out, LJ_POSITION_TEXT_MAX, "%s/%08" PRIx32 ":%" PRIu64, position->generation,
                 position->index, position->offset);
}

bool lj_position_parse(const char *text, lj_position *ret_position)
{
    lj_position at = {.generation = ""};
    uint64_t generation = 0;
    uint64_t index = 0;
    if (!lj_str_hex(text, 16, &generation) || text[16] != '/' ||
        !lj_str_hex(text + 17, 8, &index) || text[25] != ':' || index > LJ_INDEX_MAX ||
        !lj_str_u64(text + 26, &at.offset))
        return false;
    memcpy(at.generation, text, LJ_GENERATION_MAX - 1);
    at.index = (uint32_t)index;
    *ret_position = at;
    return true;
}

int lj_position_compare(const lj_position *a, const lj_position *b)
{
    if (a->index != b->index)
        return a->index < b->index ? -1 : 1;
    if (a->offset != b->offset)
        return a->offset < b->offset ? -1 : 1;
    return 0;
}

bool lj_position_eq(const lj_position *a, const lj_position *b)
{
    return strcmp(a->generation, b->generation) == 0 && lj_position_compare(a, b) == 0;
}

bool lj_generation_ok(const char *text)
{
    uint64_t ignored = 0;
    return lj_str_hex(text, 16, &ignored) && text[16] == 0;
}

void lj_generation_new(char out[LJ_GENERATION_MAX])
{
    uint8_t bytes[8];
    lj_io_random(bytes, sizeof(bytes));
    for (size_t i = 0; i < sizeof(bytes); i++)
        snprintf(out + 2 * i, 3, "%02x", bytes[i]);
}

/* "<8 hex>.snapshot.lz4" */
static bool parse_snapshot(const char *text, lj_position *position)
{
    uint64_t index = 0;
    if (!lj_str_hex(text, 8, &index) || index > LJ_INDEX_MAX ||
        strcmp(text + 8, ".snapshot.lz4") != 0)
        return false;
    position->index = (uint32_t)index;
    return true;
}

/* "<8 hex>_<8 to 16 hex>.wal.lz4" */
static bool parse_wal(const char *text, lj_position *position)
{
    uint64_t index = 0;
    uint64_t offset = 0;
    if (!lj_str_hex(text, 8, &index) || index > LJ_INDEX_MAX || text[8] != '_')
        return false;
    size_t digits = strspn(text + 9, "0123456789abcdef");
    if (digits < 8 || !lj_str_hex(text + 9, digits, &offset) ||
        strcmp(text + 9 + digits, ".wal.lz4") != 0)
        return false;
    position->index = (uint32_t)index;
    position->offset = offset;
    return true;
}

void lj_name_parse(const char *key, lj_name *ret_name)
{
    *ret_name = (lj_name){.kind = LJ_NAME_FOREIGN};
    if (!lj_str_starts(key, GENERATIONS))
        return;
    const char *generation = key + strlen(GENERATIONS);
    uint64_t ignored = 0;
    if (!lj_str_hex(generation, 16, &ignored))
        return;
    lj_name name = {.kind = LJ_NAME_FOREIGN};
    memcpy(name.position.generation, generation, 16);
    const char *rest = generation + 16;
    if (lj_str_starts(rest, SNAPSHOTS) && parse_snapshot(rest + strlen(SNAPSHOTS), &name.position))
        name.kind = LJ_NAME_SNAPSHOT;
    else if (lj_str_starts(rest, WAL) && parse_wal(rest + strlen(WAL), &name.position))
        name.kind = LJ_NAME_WAL;
    else
        return;
    *ret_name = name;
}

bool lj_name_is_ltx(const char *key)
{
    uint64_t ignored = 0;
    size_t level = 4;
    if (lj_str_starts(key, LTX)) {
        key += strlen(LTX);
        level = strspn(key, "0123456789");
    }
    if (level == 0 || !lj_str_hex(key, level, &ignored) || key[level] != '/')
        return false;
    const char *name = key + level + 1;
    return lj_str_hex(name, 16, &ignored) && name[16] == '-' &&
           lj_str_hex(name + 17, 16, &ignored) && strcmp(name + 33, ".ltx") == 0;
}

void lj_name_snapshot(const char *generation, uint32_t index, char out[LJ_NAME_MAX])
{
    snprintf(out, LJ_NAME_MAX, GENERATIONS "%s" SNAPSHOTS "%08" PRIx32 ".snapshot.lz4", generation,
             index);
}

void lj_name_wal(const lj_position *position, char out[LJ_NAME_MAX])
{
    snprintf(out, LJ_NAME_MAX, GENERATIONS "%s" WAL "%08" PRIx32 "_%08" PRIx64 ".wal.lz4",
             position->generation, position->index, position->offset);
}

void lj_name_generation_prefix(const char *generation, char out[LJ_NAME_MAX])
{
    snprintf(out, LJ_NAME_MAX, GENERATIONS "%s/", generation);
}
