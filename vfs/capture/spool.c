/*
 * spool.c - see spool.h.
 */
#include "vfs/capture/spool.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vfs/base/clock.h"
#include "vfs/base/io.h"
#include "vfs/base/str.h"
#include "vfs/wal/wal.h"

#define COPY_CHUNK (256u * 1024u)
/* nobody pauses so long in the middle of a copy */
#define UNFINISHED_S 60

static char *entry_path(const char *dir, const lj_spool_entry *e)
{
    char prev[20] = "";
    if (e->prev_end != 0)
        snprintf(prev, sizeof(prev), "-%012" PRIx64, e->prev_end);
    return lj_str_printf("%s/%s-%08" PRIx32 "-%012" PRIx64 "-%012" PRIx64 "%s.wal", dir,
                         e->start.generation, e->start.index, e->start.offset, e->end, prev);
}

/* What follows the range: nothing, or the end of the index before. */
static bool parse_prev_end(const char *rest, lj_spool_entry *e)
{
    if (strcmp(rest, ".wal") == 0)
        return true;
    return strlen(rest) == 1 + 12 + 4 && rest[0] == '-' && lj_str_hex(rest + 1, 12, &e->prev_end) &&
           e->prev_end != 0 && strcmp(rest + 13, ".wal") == 0;
}

static bool parse_entry(const char *name, lj_spool_entry *ret_entry)
{
    uint64_t ignored = 0;
    uint64_t index = 0;
    lj_spool_entry e = {.end = 0};
    if (strlen(name) < 16 + 1 + 8 + 1 + 12 + 1 + 12 + 4 || !lj_str_hex(name, 16, &ignored) ||
        name[16] != '-' || !lj_str_hex(name + 17, 8, &index) || name[25] != '-' ||
        !lj_str_hex(name + 26, 12, &e.start.offset) || name[38] != '-' ||
        !lj_str_hex(name + 39, 12, &e.end) || !parse_prev_end(name + 51, &e) ||
        index > LJ_INDEX_MAX || e.end <= e.start.offset)
        return false;
    memcpy(e.start.generation, name, 16);
    e.start.index = (uint32_t)index;
    *ret_entry = e;
    return true;
}

static lj_code copy_range(int from, int to, uint64_t start, uint64_t end, lj_error *err)
{
    LJ_CLEANUP(lj_freep) uint8_t *chunk = malloc(COPY_CHUNK);
    if (chunk == NULL)
        return lj_error_nomem(err);
    for (uint64_t at = start; at < end;) {
        size_t want = (size_t)LJ_MIN((uint64_t)COPY_CHUNK, end - at);
        size_t n = 0;
        LJ_TRY(lj_io_pread(from, chunk, want, at, &n, err));
        if (n != want)
            return lj_error_set(err, LJ_CORRUPT, "the WAL ends at %" PRIu64 ", before %" PRIu64,
                                at + n, end);
        LJ_TRY(lj_io_pwrite(to, chunk, n, at, err));
        at += n;
    }
    return LJ_OK;
}

static lj_code write_image(const char *temp, const lj_spool_entry *entry, int wal_fd, lj_error *err)
{
    LJ_CLEANUP(lj_closep) int fd = -1;
    LJ_TRY(lj_io_open(temp, O_WRONLY | O_CREAT | O_TRUNC, 0600, &fd, err));
    if (entry->start.offset >= LJ_WAL_HEADER_BYTES)
        LJ_TRY(copy_range(wal_fd, fd, 0, LJ_WAL_HEADER_BYTES, err));
    return copy_range(wal_fd, fd, entry->start.offset, entry->end, err);
}

lj_code lj_spool_copy(const char *dir, const lj_spool_entry *entry, int wal_fd, lj_error *err)
{
    LJ_TRY(lj_io_mkdirs(dir, 0700, err));
    LJ_CLEANUP(lj_freep) char *path = entry_path(dir, entry);
    LJ_CLEANUP(lj_freep) char *temp = path == NULL ? NULL : lj_str_printf("%s.tmp", path);
    if (temp == NULL)
        return lj_error_nomem(err);
    lj_code code = write_image(temp, entry, wal_fd, err);
    if (code == LJ_OK && rename(temp, path) != 0)
        code = lj_error_errno(err, errno, "cannot rename %s", temp);
    if (code != LJ_OK) {
        unlink(temp);
        return lj_error_context(err, "spool");
    }
    return LJ_OK;
}

lj_code lj_spool_adopt(const char *dir, const char *temp, uint64_t have,
                       const lj_spool_entry *entry, int wal_fd, lj_error *err)
{
    LJ_CLEANUP(lj_freep) char *path = entry_path(dir, entry);
    LJ_CLEANUP(lj_freep) char *from = lj_str_printf("%s/%s", dir, temp);
    if (path == NULL || from == NULL)
        return lj_error_nomem(err);
    if (have < entry->end) {
        LJ_CLEANUP(lj_closep) int fd = -1;
        LJ_TRY(lj_io_open(from, O_WRONLY, 0, &fd, err));
        LJ_TRY(copy_range(wal_fd, fd, have, entry->end, err));
    }
    if (rename(from, path) != 0)
        return lj_error_errno(err, errno, "cannot rename %s", from);
    return LJ_OK;
}

lj_code lj_spool_link(const char *dir, const lj_spool_entry *entry, const char *wal_path,
                      int wal_fd, lj_error *err)
{
    LJ_TRY(lj_io_mkdirs(dir, 0700, err));
    LJ_CLEANUP(lj_freep) char *path = entry_path(dir, entry);
    if (path == NULL)
        return lj_error_nomem(err);
    if (link(wal_path, path) == 0)
        return LJ_OK;
    return lj_spool_copy(dir, entry, wal_fd, err);
}

/* Calls for every complete entry in the folder; a missing folder has none. */
typedef void (*visit_fn)(void *ctx, const char *name, const lj_spool_entry *entry);

static lj_code visit(const char *dir, visit_fn fn, void *ctx, lj_error *err)
{
    DIR *handle = opendir(dir);
    if (handle == NULL)
        return errno == ENOENT ? LJ_OK : lj_error_errno(err, errno, "cannot read folder %s", dir);
    for (;;) {
        errno = 0;
        struct dirent *d = readdir(handle);
        if (d == NULL)
            break;
        lj_spool_entry entry;
        bool known = parse_entry(d->d_name, &entry);
        if (known || lj_str_ends(d->d_name, ".wal.tmp"))
            fn(ctx, d->d_name, known ? &entry : NULL);
    }
    int failed = errno;
    closedir(handle);
    return failed == 0 ? LJ_OK : lj_error_errno(err, failed, "cannot read folder %s", dir);
}

typedef struct {
    const char *dir;
    const char *generation;
    uint32_t index;
    bool clean;
    bool found;
    lj_spool_entry best;
    uint64_t bytes;
    uint64_t offset;
} search;

static void remove_name(const char *dir, const char *name)
{
    LJ_CLEANUP(lj_freep) char *path = lj_str_printf("%s/%s", dir, name);
    if (path != NULL)
        unlink(path);
}

static void visit_first(void *ctx, const char *name, const lj_spool_entry *entry)
{
    search *s = ctx;
    if (!lj_str_starts(name, s->generation)) {
        if (s->clean)
            remove_name(s->dir, name);
        return;
    }
    /* a .tmp of this generation may be in the making right now */
    if (entry == NULL || entry->start.index < s->index)
        return;
    if (!s->found || lj_position_compare(&entry->start, &s->best.start) < 0) {
        s->best = *entry;
        s->found = true;
    }
}

lj_code lj_spool_first(const char *dir, const char *generation, uint32_t index, bool clean,
                       lj_spool_entry *ret_entry, lj_error *err)
{
    search s = {.dir = dir, .generation = generation, .index = index, .clean = clean};
    LJ_TRY(visit(dir, visit_first, &s, err));
    if (!s.found)
        return lj_error_set(err, LJ_NOTFOUND, "the spool is empty");
    *ret_entry = s.best;
    return LJ_OK;
}

static bool is_of(const search *s, const lj_spool_entry *entry)
{
    return entry != NULL &&
           (s->generation == NULL || strcmp(entry->start.generation, s->generation) == 0);
}

static void visit_last(void *ctx, const char *name, const lj_spool_entry *entry)
{
    (void)name;
    search *s = ctx;
    if (!is_of(s, entry))
        return;
    const lj_spool_entry *best = &s->best;
    if (!s->found || entry->start.index > best->start.index ||
        (entry->start.index == best->start.index && entry->end > best->end)) {
        s->best = *entry;
        s->found = true;
    }
}

lj_code lj_spool_last(const char *dir, const char *generation, lj_spool_entry *ret_entry,
                      lj_error *err)
{
    search s = {.generation = generation};
    LJ_TRY(visit(dir, visit_last, &s, err));
    if (!s.found)
        return lj_error_set(err, LJ_NOTFOUND, "the spool is empty");
    *ret_entry = s.best;
    return LJ_OK;
}

lj_code lj_spool_open(const char *dir, const lj_spool_entry *entry, int *ret_fd, lj_error *err)
{
    LJ_CLEANUP(lj_freep) char *path = entry_path(dir, entry);
    if (path == NULL)
        return lj_error_nomem(err);
    return lj_io_open(path, O_RDONLY, 0, ret_fd, err);
}

int lj_spool_remove(const char *dir, const lj_spool_entry *entry)
{
    LJ_CLEANUP(lj_freep) char *path = entry_path(dir, entry);
    if (path == NULL)
        return ENOMEM;
    return unlink(path) == 0 || errno == ENOENT ? 0 : errno;
}

static void visit_bytes(void *ctx, const char *name, const lj_spool_entry *entry)
{
    (void)name;
    search *s = ctx;
    if (is_of(s, entry))
        s->bytes += entry->end - entry->start.offset;
}

/* Seconds since it was written last; what cannot be told is as if it was just now. */
static int64_t age_s(const char *dir, const char *name)
{
    LJ_CLEANUP(lj_freep) char *path = lj_str_printf("%s/%s", dir, name);
    struct stat st;
    if (path == NULL || stat(path, &st) != 0)
        return 0;
    return lj_clock_wall_ns() / LJ_NS_PER_S - (int64_t)st.st_mtim.tv_sec;
}

static void visit_unfinished(void *ctx, const char *name, const lj_spool_entry *entry)
{
    const search *s = ctx;
    if (entry == NULL && age_s(s->dir, name) > UNFINISHED_S)
        remove_name(s->dir, name);
}

void lj_spool_sweep(const char *dir)
{
    search s = {.dir = dir};
    (void)!visit(dir, visit_unfinished, &s, NULL);
}

static void visit_drop(void *ctx, const char *name, const lj_spool_entry *entry)
{
    const search *s = ctx;
    if (is_of(s, entry))
        remove_name(s->dir, name);
}

void lj_spool_drop(const char *dir, const char *generation)
{
    search s = {.dir = dir, .generation = generation};
    (void)!visit(dir, visit_drop, &s, NULL);
}

static void visit_drop_from(void *ctx, const char *name, const lj_spool_entry *entry)
{
    const search *s = ctx;
    if (entry != NULL && entry->start.index >= s->index)
        visit_drop(ctx, name, entry);
}

void lj_spool_drop_from(const char *dir, const char *generation, uint32_t index)
{
    search s = {.dir = dir, .generation = generation, .index = index};
    (void)!visit(dir, visit_drop_from, &s, NULL);
}

typedef struct {
    const char *dir;
    const lj_spool_entry *range;
} range_search;

static void visit_range(void *ctx, const char *name, const lj_spool_entry *entry)
{
    const range_search *s = ctx;
    if (entry != NULL && entry->start.index == s->range->start.index &&
        strcmp(entry->start.generation, s->range->start.generation) == 0 &&
        entry->start.offset >= s->range->start.offset && entry->end <= s->range->end)
        remove_name(s->dir, name);
}

void lj_spool_remove_range(const char *dir, const lj_spool_entry *entry)
{
    range_search s = {.dir = dir, .range = entry};
    (void)!visit(dir, visit_range, &s, NULL);
}

typedef struct {
    const char *dir;
    struct stat wal;
    int wal_fd; /* -1: the links go; else each becomes a copy of what it stands for */
    lj_code code;
    lj_error *err;
} link_search;

static void visit_link(void *ctx, const char *name, const lj_spool_entry *entry)
{
    link_search *s = ctx;
    struct stat st;
    LJ_CLEANUP(lj_freep) char *path = lj_str_printf("%s/%s", s->dir, name);
    if (entry == NULL || path == NULL || stat(path, &st) != 0 || !lj_same_file(&st, &s->wal))
        return;
    if (s->wal_fd < 0)
        unlink(path);
    else if (s->code == LJ_OK)
        s->code = lj_spool_copy(s->dir, entry, s->wal_fd, s->err);
}

void lj_spool_drop_links(const char *dir, const char *wal_path)
{
    link_search s = {.dir = dir, .wal_fd = -1};
    if (stat(wal_path, &s.wal) == 0 && s.wal.st_nlink > 1)
        (void)!visit(dir, visit_link, &s, NULL);
}

lj_code lj_spool_copy_links(const char *dir, const char *wal_path, lj_error *err)
{
    LJ_CLEANUP(lj_closep) int fd = -1;
    link_search s = {.dir = dir, .err = err};
    if (stat(wal_path, &s.wal) != 0 || s.wal.st_nlink < 2)
        return LJ_OK;
    LJ_TRY(lj_io_open(wal_path, O_RDONLY, 0, &fd, err));
    s.wal_fd = fd;
    LJ_TRY(visit(dir, visit_link, &s, err));
    return s.code;
}

uint64_t lj_spool_bytes(const char *dir, const char *generation)
{
    search s = {.generation = generation};
    (void)!visit(dir, visit_bytes, &s, NULL);
    return s.bytes;
}

static void visit_prev_end(void *ctx, const char *name, const lj_spool_entry *entry)
{
    (void)name;
    search *s = ctx;
    if (!is_of(s, entry) || entry->start.index != s->index || entry->start.offset != 0)
        return;
    s->found = true;
    s->bytes = LJ_MAX(s->bytes, entry->prev_end);
}

lj_code lj_spool_prev_end(const char *dir, const char *generation, uint32_t index,
                          uint64_t *ret_prev_end, lj_error *err)
{
    search s = {.generation = generation, .index = index};
    LJ_TRY(visit(dir, visit_prev_end, &s, err));
    *ret_prev_end = s.bytes;
    return s.found ? LJ_OK : lj_error_set(err, LJ_NOTFOUND, "the spool has no such index");
}

static void visit_holds(void *ctx, const char *name, const lj_spool_entry *entry)
{
    (void)name;
    search *s = ctx;
    if (is_of(s, entry) && entry->start.index == s->index && entry->start.offset <= s->offset &&
        s->offset < entry->end)
        s->found = true;
}

lj_code lj_spool_holds(const char *dir, const lj_position *at, bool *ret_answer, lj_error *err)
{
    search s = {.generation = at->generation, .index = at->index, .offset = at->offset};
    LJ_TRY(visit(dir, visit_holds, &s, err));
    *ret_answer = s.found;
    return LJ_OK;
}
