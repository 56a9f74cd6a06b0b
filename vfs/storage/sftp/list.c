/*
 * list.c - the SFTP driver's list: a walk below the folder part of the prefix, entry by entry as they come.
 *
 * Layer: storage. Thread-safety: as storage.h; the callback runs without any lock.
 * Invariants: a folder that cannot be read is an error, never an empty list; a listing ends only when every answer of
 * the folder came. Links to folders are not followed but for those of link.h, so the walk ends. In memory are the names of
 * the folders that are still to be walked, and of the links of one folder.
 *
 * A large folder is not read at one moment: of two names that are added meanwhile the second may be seen and the first not, which a
 * restore would take for a hole, or not even see. So it is read twice. The first reading only tells the last name; what was there
 * before that one was, and sorts before it as the objects of a replica do, is found by the second, and nothing behind it is shown.
 */
#include <stdlib.h>
#include <string.h>

#include "vfs/base/clock.h"
#include "vfs/base/str.h"
#include "vfs/storage/link.h"
#include "vfs/storage/sftp/internal.h"

#define AHEAD           8u /* READDIRs on the way; a server answers each with about 100 names */
#define NAMES_BYTES_MAX ((size_t)64 * 1024 * 1024)
#define STALE_S         (INT64_C(24) * 3600)
/* So few names come with one system call of the server, also where its C library asks for 2 KiB at once. */
#define ONE_READING 6u

typedef struct {
    lj_sftp *sftp;
    lj_sftp_session *s;
    const char *prefix;
    const char *after;
    lj_storage_list_fn fn;
    void *ctx;
    int64_t now_s;
    lj_buf folders; /* keys of folders to be walked, each with a NUL */
    lj_buf unsure;  /* keys that need a STAT: links, and what came without attributes */
    char key[LJ_STORAGE_KEY_MAX +
             1]; /* of the entry at hand; its first folder_len bytes are the folder's */
    size_t folder_len;
    /* the first reading of the folder: */
    bool looking;
    size_t count;
    struct {
        char name[LJ_STORAGE_KEY_MAX];
        size_t len;
        lj_fx_attrs attrs;
    } few[ONE_READING];
    char last[LJ_STORAGE_KEY_MAX]; /* the greatest name */
    size_t last_len;
} walk_state;

/* Whether walk->key, or something below it when it is a folder, is asked for. */
static bool wanted(const walk_state *walk, bool is_folder)
{
    const char *key = walk->key;
    if (!lj_str_starts(key, walk->prefix) && !(is_folder && lj_str_starts(walk->prefix, key)))
        return false;
    if (walk->after == NULL)
        return true;
    /* a folder is passed over when even the greatest key in it comes before `after` */
    return is_folder ? strncmp(key, walk->after, strlen(key)) >= 0 : strcmp(key, walk->after) > 0;
}

/* Puts the name behind the folder's key. False when that is no key of ours. */
static bool set_name(walk_state *walk, const uint8_t *name, size_t len, bool is_folder)
{
    size_t extra = is_folder ? 1 : 0;
    if (len == 0 || len + extra > LJ_STORAGE_KEY_MAX - walk->folder_len ||
        memchr(name, 0, len) != NULL || memchr(name, '/', len) != NULL)
        return false;
    char *at = walk->key + walk->folder_len;
    memcpy(at, name, len);
    if (is_folder)
        at[len] = '/';
    at[len + extra] = 0;
    return true;
}

static lj_code show(walk_state *walk, const lj_fx_attrs *attrs, lj_error *err)
{
    const lj_storage_entry entry = {.key = walk->key,
                                    .size_bytes = attrs->size,
                                    .created_ns = (int64_t)attrs->mtime * LJ_NS_PER_S};
    return walk->fn(walk->ctx, &entry, err);
}

static void note_temp(const walk_state *walk, const lj_fx_attrs *attrs)
{
    int64_t touched = LJ_MAX(attrs->mtime, attrs->atime);
    if ((attrs->flags & LJ_FXA_TIMES) == 0 || walk->now_s - touched <= STALE_S)
        return;
    LJ_CLEANUP(lj_freep) char *path = lj_sftp_path(walk->sftp, walk->key);
    if (path != NULL)
        lj_sftp_stale_add(walk->sftp, path);
}

static lj_code take_entry(walk_state *walk, const uint8_t *name, size_t len,
                          const lj_fx_attrs *attrs, lj_error *err)
{
    if ((len == 1 && name[0] == '.') || (len == 2 && name[0] == '.' && name[1] == '.'))
        return LJ_OK;
    bool folder = lj_sftp_is_folder(attrs);
    if (!set_name(walk, name, len, folder))
        return LJ_OK;
    if (!folder && lj_sftp_is_temp(walk->key + walk->folder_len)) {
        note_temp(walk, attrs);
        return LJ_OK;
    }
    bool unsure = lj_sftp_is_link(attrs) || !lj_sftp_has_kind(attrs);
    if (!wanted(walk, folder || unsure))
        return LJ_OK;
    const uint32_t needed = LJ_FXA_PERMISSIONS | LJ_FXA_SIZE | LJ_FXA_TIMES;
    if (folder)
        return lj_buf_append(&walk->folders, walk->key, strlen(walk->key) + 1, err);
    if (lj_sftp_is_file(attrs) && (attrs->flags & needed) == needed)
        return show(walk, attrs, err);
    if (unsure || (attrs->flags & needed) != needed)
        return lj_buf_append(&walk->unsure, walk->key, strlen(walk->key) + 1, err);
    return LJ_OK;
}

static int compare_names(const void *a, size_t a_len, const void *b, size_t b_len)
{
    int order = memcmp(a, b, LJ_MIN(a_len, b_len));
    return order != 0 ? order : (a_len > b_len) - (a_len < b_len);
}

/* Of the first reading; a longer name is no part of a key. */
static void note_entry(walk_state *walk, const uint8_t *name, size_t len, const lj_fx_attrs *attrs)
{
    if (len > sizeof(walk->last))
        return;
    if (walk->count < ONE_READING) {
        memcpy(walk->few[walk->count].name, name, len);
        walk->few[walk->count].len = len;
        walk->few[walk->count].attrs = *attrs;
    }
    walk->count++;
    if (compare_names(name, len, walk->last, walk->last_len) > 0) {
        memcpy(walk->last, name, len);
        walk->last_len = len;
    }
}

static lj_code take_names(walk_state *walk, lj_sftp_answer *answer, lj_error *err)
{
    uint32_t count = lj_fx_read_u32(&answer->body);
    for (uint32_t i = 0; i < count; i++) {
        size_t len = 0;
        size_t ignored = 0;
        lj_fx_attrs attrs;
        const uint8_t *name = lj_fx_read_string(&answer->body, &len);
        (void)lj_fx_read_string(&answer->body, &ignored);
        lj_fx_read_attrs(&answer->body, &attrs);
        if (answer->body.bad)
            return lj_sftp_nonsense(walk->s, "a listing that is cut off", err);
        if (walk->looking)
            note_entry(walk, name, len, &attrs);
        else if (compare_names(name, len, walk->last, walk->last_len) <= 0)
            LJ_TRY(take_entry(walk, name, len, &attrs, err));
    }
    return LJ_OK;
}

static lj_code read_folder(walk_state *walk, const lj_sftp_handle *handle, const char *path,
                           lj_error *err)
{
    unsigned pending = 0;
    bool ended = false;
    while (!ended || pending > 0) {
        uint32_t id = 0;
        for (; !ended && pending < AHEAD; pending++)
            LJ_TRY(lj_sftp_ask_handle(walk->s, LJ_FXP_READDIR, handle, &id, err));
        lj_sftp_answer answer;
        bool there = false;
        LJ_TRY(lj_sftp_receive(walk->s, true, &answer, &there, err));
        pending--;
        if (answer.type == LJ_FXP_NAME) {
            LJ_TRY(take_names(walk, &answer, err));
            continue;
        }
        uint32_t status = 0;
        LJ_TRY(lj_sftp_status(walk->s, &answer, &status, err));
        if (status != LJ_FX_EOF)
            return lj_sftp_status_error(status, "cannot read folder", path, err);
        ended = true;
    }
    return LJ_OK;
}

/* There is nothing at walk->key any more, or nothing behind it. */
static lj_code look_at_absent(walk_state *walk, const char *path, bool wanted_link, lj_error *err)
{
    lj_fx_attrs own;
    uint32_t status = 0;
    if (!wanted_link)
        return LJ_OK;
    LJ_TRY(lj_sftp_do_stat(walk->s, LJ_FXP_LSTAT, path, &own, &status, err));
    return status == LJ_FX_OK ? lj_sftp_leads_nowhere(path, err) : LJ_OK;
}

/* A folder, or a link to one: walk->key has a '/' at its end already. */
static lj_code take_folder(walk_state *walk, const char *path, bool wanted_link, lj_error *err)
{
    lj_fx_attrs own;
    uint32_t status = LJ_FX_OK;
    if (!wanted_link) {
        LJ_TRY(lj_sftp_do_stat(walk->s, LJ_FXP_LSTAT, path, &own, &status, err));
        if (status != LJ_FX_OK || !lj_sftp_is_folder(&own))
            return LJ_OK;
    }
    return lj_buf_append(&walk->folders, walk->key, strlen(walk->key) + 1, err);
}

static lj_code look_at(walk_state *walk, const char *key, lj_error *err)
{
    LJ_CLEANUP(lj_freep) char *path = lj_sftp_path(walk->sftp, key);
    if (path == NULL)
        return lj_error_nomem(err);
    lj_fx_attrs attrs;
    uint32_t status = 0;
    size_t len = strlen(key);
    LJ_TRY(lj_sftp_do_stat(walk->s, LJ_FXP_STAT, path, &attrs, &status, err));
    memcpy(walk->key, key, len + 1);
    if (status == LJ_FX_OK && !lj_sftp_has_kind(&attrs))
        return lj_sftp_no_kind(path, err);
    if (status == LJ_FX_OK && lj_sftp_is_file(&attrs))
        return show(walk, &attrs, err);
    if (len == LJ_STORAGE_KEY_MAX)
        return LJ_OK; /* a folder would have no room for keys */
    bool file = lj_link_is_followed(walk->key);
    memcpy(walk->key + len, "/", 2);
    bool folder = lj_link_is_followed(walk->key);
    if (status == LJ_FX_OK)
        return lj_sftp_is_folder(&attrs) ? take_folder(walk, path, folder, err) : LJ_OK;
    if (status == LJ_FX_NO_SUCH_FILE)
        return look_at_absent(walk, path, file || folder, err);
    return lj_sftp_status_error(status, "cannot look at", path, err);
}

/* Looks behind links, and at what came without attributes. */
static lj_code look_at_unsure(walk_state *walk, lj_error *err)
{
    for (size_t at = 0; at < walk->unsure.len;) {
        const char *key = (const char *)walk->unsure.data + at;
        at += strlen(key) + 1;
        LJ_TRY(look_at(walk, key, err));
    }
    lj_buf_clear(&walk->unsure);
    return LJ_OK;
}

/* One reading of the folder, which need not be there with `is_start`. */
static lj_code read_once(walk_state *walk, const char *path, bool is_start, lj_error *err)
{
    lj_sftp_session *s = walk->s;
    uint32_t id = 0;
    uint32_t status = 0;
    lj_sftp_answer answer;
    lj_sftp_handle handle;
    LJ_TRY(lj_sftp_ask_path(s, LJ_FXP_OPENDIR, path, &id, err));
    LJ_TRY(lj_sftp_receive_id(s, id, &answer, err));
    LJ_TRY(lj_sftp_handle_of(s, &answer, &handle, &status, err));
    /* nothing there, or an object where the prefix has a folder: no such keys */
    if (status == LJ_FX_NO_SUCH_FILE) {
        if (is_start)
            LJ_TRY(lj_sftp_check_root(walk->sftp, s, err));
        return is_start ? lj_sftp_check_links(s, path, err) : LJ_OK;
    }
    if (status != LJ_FX_OK)
        return lj_sftp_status_error(status, "cannot open folder", path, err);
    lj_code code = read_folder(walk, &handle, path, err);
    lj_sftp_forget(s);
    /* nobody waits for the answer */
    if (!s->broken && lj_sftp_ask_handle(s, LJ_FXP_CLOSE, &handle, &id, NULL) != LJ_OK)
        s->broken = true;
    lj_sftp_forget(s);
    return code;
}

/* Walks the folder whose key is in walk->key. */
static lj_code walk_folder(walk_state *walk, bool is_start, lj_error *err)
{
    walk->folder_len = strlen(walk->key);
    LJ_CLEANUP(lj_freep) char *path = lj_sftp_path(walk->sftp, walk->key);
    if (path == NULL)
        return lj_error_nomem(err);
    size_t len = strlen(path);
    if (len > 1 && path[len - 1] == '/')
        path[len - 1] = 0;
    walk->count = 0;
    walk->last_len = 0;
    walk->looking = true;
    LJ_TRY(read_once(walk, path, is_start, err));
    walk->looking = false;
    for (size_t i = 0; i < walk->count && walk->count <= ONE_READING; i++)
        LJ_TRY(take_entry(walk, (const uint8_t *)walk->few[i].name, walk->few[i].len,
                          &walk->few[i].attrs, err));
    if (walk->count > ONE_READING)
        LJ_TRY(read_once(walk, path, false, err));
    return look_at_unsure(walk, err);
}

/*
 * Takes the first in byte order out of walk->folders: who sees a snapshot that came meanwhile is to see the segments that came
 * before it as well.
 */
static void next_folder(walk_state *walk)
{
    lj_buf *folders = &walk->folders;
    char *first = (char *)folders->data;
    const char *end = first + folders->len;
    for (char *at = first; at < end; at += strlen(at) + 1)
        if (strcmp(at, first) < 0)
            first = at;
    size_t size = strlen(first) + 1;
    memcpy(walk->key, first, size);
    memmove(first, first + size, (size_t)(end - first) - size);
    folders->len -= size;
}

static lj_code walk_all(walk_state *walk, lj_error *err)
{
    LJ_TRY(walk_folder(walk, true, err));
    while (walk->folders.len > 0) {
        next_folder(walk);
        LJ_TRY(walk_folder(walk, false, err));
    }
    return LJ_OK;
}

lj_code lj_sftp_list(void *self, const char *prefix, const char *after, lj_storage_list_fn fn,
                     void *ctx, lj_error *err)
{
    lj_sftp *sftp = self;
    walk_state walk = {.sftp = sftp,
                       .prefix = prefix,
                       .after = after,
                       .fn = fn,
                       .ctx = ctx,
                       .now_s = lj_clock_wall_ns() / LJ_NS_PER_S,
                       .folders = LJ_BUF_INIT(NAMES_BYTES_MAX),
                       .unsure = LJ_BUF_INIT(NAMES_BYTES_MAX)};
    const char *slash = strrchr(prefix, '/');
    size_t len = slash != NULL ? (size_t)(slash + 1 - prefix) : 0;
    memcpy(walk.key, prefix, len);
    walk.key[len] = 0;
    LJ_TRY(lj_sftp_take(sftp, &walk.s, err));
    lj_code code = walk_all(&walk, err);
    lj_sftp_give(sftp, walk.s);
    lj_buf_free(&walk.folders);
    lj_buf_free(&walk.unsure);
    return code;
}
