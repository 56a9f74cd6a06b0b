/*
 * position.c - see position.h.
 */
#include "vfs/capture/position.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vfs/base/buf.h"
#include "vfs/base/io.h"
#include "vfs/base/str.h"

#define POSITION_FILE_MAX 8192u
#define POSITION_HEAD     "litejoin-position 1\n"

static uint32_t text_check(const char *text, size_t len)
{
    lj_wal_cksum sum = {0, 0};
    for (size_t i = 0; i < len; i++) {
        sum.s1 += (uint8_t)text[i] + sum.s2;
        sum.s2 += sum.s1 * 31u + 7u;
    }
    return sum.s1 ^ sum.s2;
}

static void render(const lj_saved_position *p, lj_buf *buf, lj_error *err, lj_code *code)
{
#define LINE(...)                                                                                  \
    do {                                                                                           \
        if (*code == LJ_OK)                                                                        \
            *code = lj_buf_printf(buf, err, __VA_ARGS__);                                          \
    } while (0)
    LINE("%s", POSITION_HEAD);
    LINE("at %s %" PRIu32 " %" PRIu64 "\n", p->at.generation, p->at.index, p->at.offset);
    if (p->prev_end != 0)
        LINE("previous %" PRIu64 "\n", p->prev_end);
    LINE("life %" PRIu32 " %" PRIu32 " %" PRIu32 " %" PRIu32 " %" PRIu32 " %d\n", p->salt.salt1,
         p->salt.salt2, p->sum.s1, p->sum.s2, p->page_size, p->big_endian ? 1 : 0);
    if (p->has_base)
        LINE("base %" PRIu32 " %" PRIu32 " %" PRIu64 "\n", p->base_salt.salt1, p->base_salt.salt2,
             p->base_frames);
    if (p->mark_end != 0)
        LINE("mark %" PRIu64 "\n", p->mark_end);
    if (p->has_identity)
        LINE("identity %" PRIu64 " %" PRIu64 " %" PRId64 " %" PRId64 "\n", p->identity.inode,
             p->identity.size_bytes, p->identity.mtime_ns, p->identity.ctime_ns);
    LINE("object %" PRId64 "\n", p->last_object_ns);
    if (p->snapshot_ns != 0)
        LINE("snapshot %" PRId64 " %" PRIu32 " %" PRIu64 "\n", p->snapshot_ns, p->snapshot_at.index,
             p->snapshot_at.offset);
    for (uint32_t i = 0; i < p->lineage_count; i++)
        LINE("owned %s %" PRIu32 " %" PRIu64 "\n", p->lineage[i].generation, p->lineage[i].index,
             p->lineage[i].offset);
    LINE("home %" PRIu64 " %" PRId64 "\n", p->home.inode, p->home.born_ns);
    LINE("check %" PRIu32 "\n", text_check(lj_buf_text(buf), buf->len));
#undef LINE
}

lj_code lj_saved_position_store(const char *path, const lj_saved_position *position, bool durable,
                                lj_error *err)
{
    LJ_CLEANUP(lj_buf_free) lj_buf buf = LJ_BUF_INIT(POSITION_FILE_MAX);
    lj_code code = LJ_OK;
    render(position, &buf, err, &code);
    if (code != LJ_OK)
        return code;
    return lj_io_swap_file(path, buf.data, buf.len, 0600, durable, err);
}

/* Splits off the next line of a NUL-terminated text in place. NULL at the end. */
static char *next_line(char **cursor)
{
    char *line = *cursor;
    char *end = strchr(line, '\n');
    if (end == NULL)
        return NULL;
    *end = 0;
    *cursor = end + 1;
    return line;
}

static bool parse_line(const char *line, lj_saved_position *p)
{
    int flag = 0;
    char generation[LJ_GENERATION_MAX] = "";
    if (sscanf(line, "at %16s %" SCNu32 " %" SCNu64, generation, &p->at.index, &p->at.offset) ==
        3) {
        memcpy(p->at.generation, generation, sizeof(generation));
        return lj_generation_ok(generation) && p->at.index <= LJ_INDEX_MAX;
    }
    if (sscanf(line, "previous %" SCNu64, &p->prev_end) == 1)
        return true;
    if (sscanf(line, "life %" SCNu32 " %" SCNu32 " %" SCNu32 " %" SCNu32 " %" SCNu32 " %d",
               &p->salt.salt1, &p->salt.salt2, &p->sum.s1, &p->sum.s2, &p->page_size, &flag) == 6) {
        p->big_endian = flag != 0;
        return p->page_size == 0 || lj_wal_page_size_ok(p->page_size);
    }
    if (sscanf(line, "base %" SCNu32 " %" SCNu32 " %" SCNu64, &p->base_salt.salt1,
               &p->base_salt.salt2, &p->base_frames) == 3)
        return p->has_base = true;
    if (sscanf(line, "identity %" SCNu64 " %" SCNu64 " %" SCNd64 " %" SCNd64, &p->identity.inode,
               &p->identity.size_bytes, &p->identity.mtime_ns, &p->identity.ctime_ns) == 4)
        return p->has_identity = true;
    if (sscanf(line, "object %" SCNd64, &p->last_object_ns) == 1)
        return true;
    if (sscanf(line, "snapshot %" SCNd64 " %" SCNu32 " %" SCNu64, &p->snapshot_ns,
               &p->snapshot_at.index, &p->snapshot_at.offset) == 3)
        return true;
    lj_position owned = {.generation = ""};
    if (sscanf(line, "owned %16s %" SCNu32 " %" SCNu64, owned.generation, &owned.index,
               &owned.offset) == 3 &&
        lj_generation_ok(owned.generation) && p->lineage_count < LJ_LINEAGE_MAX) {
        p->lineage[p->lineage_count++] = owned;
        return true;
    }
    if (sscanf(line, "mark %" SCNu64, &p->mark_end) == 1)
        return p->mark_end != 0;
    if (sscanf(line, "home %" SCNu64 " %" SCNd64, &p->home.inode, &p->home.born_ns) == 2)
        return true;
    return false;
}

static bool parse_text(char *text, lj_saved_position *p)
{
    if (!lj_str_starts(text, POSITION_HEAD))
        return false;
    char *check = strstr(text, "\ncheck ");
    uint64_t stated = 0;
    size_t len = strlen(text);
    if (check == NULL || text[len - 1] != '\n')
        return false;
    size_t covered = (size_t)(check + 1 - text);
    text[len - 1] = 0;
    if (!lj_str_u64(check + 7, &stated) || stated != text_check(text, covered))
        return false;
    text[covered] = 0;
    char *cursor = text + strlen(POSITION_HEAD);
    for (char *line = next_line(&cursor); line != NULL; line = next_line(&cursor)) {
        if (!parse_line(line, p))
            return false;
    }
    memcpy(p->snapshot_at.generation, p->at.generation, sizeof(p->at.generation));
    return p->at.generation[0] != 0;
}

lj_code lj_saved_position_load(const char *path, lj_saved_position *ret_position, lj_error *err)
{
    LJ_CLEANUP(lj_freep) char *text = NULL;
    size_t len = 0;
    LJ_TRY(lj_io_read_file(path, POSITION_FILE_MAX, &text, &len, err));
    lj_saved_position p = {.at = {.generation = ""}};
    if (strlen(text) != len || len == 0 || !parse_text(text, &p))
        return lj_error_set(err, LJ_CORRUPT, "%s does not verify", path);
    *ret_position = p;
    return LJ_OK;
}

static uint32_t find_owned(const lj_saved_position *position, const char *generation)
{
    uint32_t i = 0;
    while (i < position->lineage_count && strcmp(position->lineage[i].generation, generation) != 0)
        i++;
    return i;
}

static void take_out(lj_saved_position *position, uint32_t i)
{
    position->lineage_count--;
    memmove(&position->lineage[i], &position->lineage[i + 1],
            (position->lineage_count - i) * sizeof(position->lineage[0]));
}

const lj_position *lj_saved_position_owned(const lj_saved_position *position,
                                           const char *generation)
{
    uint32_t i = find_owned(position, generation);
    return i < position->lineage_count ? &position->lineage[i] : NULL;
}

void lj_saved_position_own(lj_saved_position *position, const char *generation)
{
    if (lj_saved_position_owned(position, generation) != NULL)
        return;
    if (position->lineage_count == LJ_LINEAGE_MAX)
        take_out(position, 0);
    lj_position *entry = &position->lineage[position->lineage_count++];
    *entry = (lj_position){.index = 0};
    snprintf(entry->generation, sizeof(entry->generation), "%s", generation);
}

void lj_saved_position_disown(lj_saved_position *position, const char *generation)
{
    uint32_t i = find_owned(position, generation);
    if (i < position->lineage_count)
        take_out(position, i);
}

void lj_saved_position_leave(lj_saved_position *lineage_of, const lj_saved_position *left)
{
    uint32_t i = find_owned(lineage_of, left->at.generation);
    if (i == lineage_of->lineage_count)
        return;
    lineage_of->lineage[i] = left->at;
    if (left->mark_end != 0) {
        /* the end mark may or may not be there, and another writer's segment would have its name: what has either is left alone */
        lineage_of->lineage[i].index--;
        lineage_of->lineage[i].offset = left->mark_end;
    }
}
