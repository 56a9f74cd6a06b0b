/*
 * list.c - the file driver's list: a walk below the folder part of the prefix, in byte order of the keys.
 *
 * Layer: storage. Thread-safety: as storage.h; the callback runs without any lock.
 * Invariants: within a folder, sorting names with a '/' behind those of folders makes the keys of the whole walk come
 * in byte order. No links are followed but those of link.h, so the walk ends. What cannot be read, or not even looked at, is an
 * error, never an empty list. One descriptor is open per level, and the names of one folder per level are in memory (about 35
 * bytes each).
 */
#include "vfs/storage/file/internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vfs/base/buf.h"
#include "vfs/base/io.h"
#include "vfs/base/str.h"
#include "vfs/storage/link.h"

#define NAMES_BYTES_MAX ((size_t)512 * 1024 * 1024)
/* So few names come with one system call, under a lock of the kernel, also where a C library asks for 2 KiB at once. */
#define ONE_READING 6u

typedef struct {
    const lj_file *file;
    const char *prefix;
    const char *after;
    lj_storage_list_fn fn;
    void *ctx;
    char key[LJ_STORAGE_KEY_MAX +
             1]; /* of the folder or object at hand; a folder's ends in '/' ("" for the root) */
} walk_state;

/* Puts `name` behind the folder's key. False when that is no key of ours any more. */
static bool set_key(walk_state *walk, size_t folder_len, const char *name)
{
    size_t len = strlen(name);
    if (len > LJ_STORAGE_KEY_MAX - folder_len)
        return false;
    memcpy(walk->key + folder_len, name, len + 1);
    return true;
}

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

typedef enum { KIND_OTHER, KIND_FILE, KIND_FOLDER } entry_kind;

static entry_kind kind_in(const struct stat *st)
{
    return S_ISREG(st->st_mode) ? KIND_FILE : S_ISDIR(st->st_mode) ? KIND_FOLDER : KIND_OTHER;
}

static lj_code cannot_look(const walk_state *walk, const char *name, lj_error *err)
{
    return lj_error_errno(err, errno, "cannot look at %s in the replica folder %s", name,
                          walk->file->root);
}

/* What a link leads to, where it is one that is followed and asked for. Changes walk->key. */
static lj_code kind_of_link(walk_state *walk, int dir_fd, size_t folder_len, const char *name,
                            entry_kind *ret_kind, lj_error *err)
{
    char as_folder[NAME_MAX + 2];
    struct stat st;
    (void)snprintf(as_folder, sizeof(as_folder), "%s/", name);
    bool file =
        set_key(walk, folder_len, name) && lj_link_is_followed(walk->key) && wanted(walk, false);
    bool folder = set_key(walk, folder_len, as_folder) && lj_link_is_followed(walk->key) &&
                  wanted(walk, true);
    if (!file && !folder)
        return LJ_OK;
    if (fstatat(dir_fd, name, &st, 0) == 0) {
        entry_kind kind = kind_in(&st);
        if ((file && kind == KIND_FILE) || (folder && kind == KIND_FOLDER))
            *ret_kind = kind;
        return LJ_OK;
    }
    if (errno != ENOENT)
        return cannot_look(walk, name, err);
    if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) != 0)
        return LJ_OK; /* it went away since */
    (void)set_key(walk, folder_len, name);
    LJ_CLEANUP(lj_freep) char *path = lj_file_path(walk->file, walk->key);
    return path != NULL ? lj_file_leads_nowhere(path, err) : lj_error_nomem(err);
}

static lj_code kind_of(walk_state *walk, int dir_fd, size_t folder_len, const struct dirent *entry,
                       entry_kind *ret_kind, lj_error *err)
{
    const char *name = entry->d_name;
    struct stat st;
    bool link = entry->d_type == DT_LNK;
    *ret_kind = entry->d_type == DT_REG   ? KIND_FILE
                : entry->d_type == DT_DIR ? KIND_FOLDER
                                          : KIND_OTHER;
    if (entry->d_type == DT_UNKNOWN) {
        if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) != 0)
            return errno == ENOENT ? LJ_OK : cannot_look(walk, name, err);
        link = S_ISLNK(st.st_mode);
        *ret_kind = kind_in(&st);
    }
    return link ? kind_of_link(walk, dir_fd, folder_len, name, ret_kind, err) : LJ_OK;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The names of a folder. */
typedef struct {
    lj_buf text;         /* each with a NUL; those of folders have a '/' in front of it */
    const char **sorted; /* into the text; sort_names() */
    size_t count;
} name_list;

static void free_names(name_list *names)
{
    lj_buf_free(&names->text);
    free(names->sorted);
}

static lj_code sort_names(name_list *names, lj_error *err)
{
    free(names->sorted);
    names->sorted = calloc(names->count + 1, sizeof(*names->sorted));
    if (names->sorted == NULL)
        return lj_error_nomem(err);
    const char *name = (const char *)names->text.data;
    for (size_t i = 0; i < names->count; i++, name += strlen(name) + 1)
        names->sorted[i] = name;
    if (names->count > 0)
        qsort(names->sorted, names->count, sizeof(*names->sorted), compare_names);
    return LJ_OK;
}

/* `known` is sorted, and not empty. */
static bool is_news(const name_list *known, const char *name)
{
    return strcmp(name, known->sorted[known->count - 1]) < 0 &&
           bsearch(&name, known->sorted, known->count, sizeof(*known->sorted), compare_names) ==
               NULL;
}

/* Appends the names that are asked for; with `known` those that it should have had. */
static lj_code read_names(walk_state *walk, DIR *dir, size_t folder_len, const name_list *known,
                          name_list *names, lj_error *err)
{
    for (;;) {
        errno = 0;
        const struct dirent *entry = readdir(dir);
        if (entry == NULL && errno != 0)
            return lj_error_errno(err, errno, "cannot read folder %s of %s", walk->key,
                                  walk->file->root);
        if (entry == NULL)
            break;
        const char *name = entry->d_name;
        if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
            continue;
        entry_kind kind = KIND_OTHER;
        LJ_TRY(kind_of(walk, dirfd(dir), folder_len, entry, &kind, err));
        if (kind == KIND_OTHER || (kind == KIND_FILE && lj_file_is_temp(name)))
            continue;
        bool is_folder = kind == KIND_FOLDER;
        char shown[NAME_MAX + 2];
        size_t len = strnlen(name, NAME_MAX);
        memcpy(shown, name, len);
        if (is_folder)
            shown[len++] = '/';
        shown[len] = 0;
        if ((known != NULL && !is_news(known, shown)) || !set_key(walk, folder_len, shown) ||
            !wanted(walk, is_folder))
            continue;
        LJ_TRY(lj_buf_append(&names->text, shown, len + 1, err));
        names->count++;
    }
    walk->key[folder_len] = 0;
    return LJ_OK;
}

/*
 * A large folder is not read at one moment: of two names that are added meanwhile the second may be seen and the first not, which a
 * restore would take for a hole. So it is read twice. What was there before the last name of the first reading was, and sorts before
 * that one as the objects of a replica do, is found by the second.
 */
static lj_code read_again(walk_state *walk, DIR *dir, size_t folder_len, name_list *names,
                          lj_error *err)
{
    if (names->count < ONE_READING)
        return LJ_OK;
    rewinddir(dir);
    LJ_CLEANUP(free_names) name_list missed = {.text = LJ_BUF_INIT(NAMES_BYTES_MAX)};
    LJ_TRY(read_names(walk, dir, folder_len, names, &missed, err));
    if (missed.count == 0)
        return LJ_OK;
    LJ_TRY(lj_buf_append(&names->text, missed.text.data, missed.text.len, err));
    names->count += missed.count;
    return sort_names(names, err);
}

static lj_code walk_folder(walk_state *walk, int fd, size_t folder_len, lj_error *err);

static lj_code walk_child(walk_state *walk, int parent_fd, const char *name, lj_error *err)
{
    size_t len = strlen(walk->key);
    LJ_CLEANUP(lj_freep) char *plain = lj_str_dup(name);
    if (plain == NULL)
        return lj_error_nomem(err);
    plain[strlen(plain) - 1] = 0; /* O_NOFOLLOW has no effect with a '/' behind */
    int follow = lj_link_is_followed(walk->key) ? 0 : O_NOFOLLOW;
    int fd = openat(parent_fd, plain, O_RDONLY | O_DIRECTORY | O_CLOEXEC | follow);
    if (fd >= 0)
        return walk_folder(walk, fd, len, err);
    /* it went away, or turned into something else, since it was listed */
    if (errno == ENOENT || errno == ENOTDIR || errno == ELOOP)
        return LJ_OK;
    return lj_error_errno(err, errno, "cannot open folder %s of %s", walk->key, walk->file->root);
}

static lj_code show_file(walk_state *walk, int dir_fd, const char *name, lj_error *err)
{
    struct stat st;
    int follow = lj_link_is_followed(walk->key) ? 0 : AT_SYMLINK_NOFOLLOW;
    if (fstatat(dir_fd, name, &st, follow) != 0) {
        if (errno == ENOENT)
            return LJ_OK;
        return lj_error_errno(err, errno, "cannot stat %s of %s", walk->key, walk->file->root);
    }
    if (!S_ISREG(st.st_mode))
        return LJ_OK;
    lj_storage_entry entry = {.key = walk->key,
                              .size_bytes = (uint64_t)st.st_size,
                              .created_ns =
                                  (int64_t)st.st_mtim.tv_sec * LJ_NS_PER_S + st.st_mtim.tv_nsec};
    return walk->fn(walk->ctx, &entry, err);
}

/* Walks the folder whose key is the first folder_len bytes of walk->key. Takes `fd`. */
static lj_code walk_folder(walk_state *walk, int fd, size_t folder_len, lj_error *err)
{
    LJ_CLEANUP(lj_closedirp) DIR *dir = fdopendir(fd);
    if (dir == NULL) {
        lj_code code = lj_error_errno(err, errno, "cannot read folder %s", walk->file->root);
        close(fd);
        return code;
    }
    LJ_CLEANUP(free_names) name_list names = {.text = LJ_BUF_INIT(NAMES_BYTES_MAX)};
    LJ_TRY(read_names(walk, dir, folder_len, NULL, &names, err));
    LJ_TRY(sort_names(&names, err));
    LJ_TRY(read_again(walk, dir, folder_len, &names, err));
    for (size_t i = 0; i < names.count; i++) {
        (void)set_key(walk, folder_len, names.sorted[i]); /* fits: it did before */
        if (lj_str_ends(names.sorted[i], "/"))
            LJ_TRY(walk_child(walk, dirfd(dir), names.sorted[i], err));
        else
            LJ_TRY(show_file(walk, dirfd(dir), names.sorted[i], err));
    }
    walk->key[folder_len] = 0;
    return LJ_OK;
}

lj_code lj_file_list(void *self, const char *prefix, const char *after, lj_storage_list_fn fn,
                     void *ctx, lj_error *err)
{
    lj_file *file = self;
    walk_state walk = {.file = file, .prefix = prefix, .after = after, .fn = fn, .ctx = ctx};
    const char *slash = strrchr(prefix, '/');
    size_t len = slash != NULL ? (size_t)(slash + 1 - prefix) : 0;
    memcpy(walk.key, prefix, len);
    walk.key[len] = 0;
    LJ_CLEANUP(lj_freep) char *path = lj_file_path(file, walk.key);
    if (path == NULL)
        return lj_error_nomem(err);
    lj_error why = LJ_ERROR_INIT;
    int fd = -1;
    if (lj_io_open(path, O_RDONLY | O_DIRECTORY, 0, &fd, &why) == LJ_OK)
        return walk_folder(&walk, fd, len, err);
    /* nothing there, or an object where the prefix has a folder: no such keys */
    if (why.sys_errno == ENOENT || why.sys_errno == ENOTDIR)
        return lj_file_check_absent(file, path, err);
    if (err != NULL)
        *err = why;
    return why.code;
}
