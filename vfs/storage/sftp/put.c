/*
 * put.c - the SFTP driver's put: hidden file, fsync, final name, fsync of the folder.
 *
 * Three exchanges, each with all its requests on the way at once: open; write, set the time, fsync, close; name.
 *
 * Layer: storage. Thread-safety: any number of puts at once, of this and other processes.
 * Invariants: nothing is ever written under a final name, and a file gets its final name only after every write of it was
 * answered with success. A put that fails leaves neither object nor hidden file; where the connection is lost the next put or
 * deletion removes the file.
 */
#include <stdlib.h>
#include <string.h>

#include "vfs/base/clock.h"
#include "vfs/base/log.h"
#include "vfs/base/str.h"
#include "vfs/storage/sftp/internal.h"

#define WINDOW_BYTES  ((size_t)4 * 1024 * 1024)    /* written and not answered yet */
#define BACKLOG_BYTES ((size_t)128 * 1024)         /* not even sent yet */
#define SYNC_BYTES    ((uint64_t)64 * 1024 * 1024) /* so that no fsync takes as long as a stall */
#define FOLDER_TRIES                                                                               \
    100 /* how often a put makes its folder again that a deletion removes under it */
#define LOOK_AT_TRY 3
#define PARENTS_MAX (LJ_STORAGE_KEY_MAX / 2)
#define FULL_BYTES  ((uint64_t)1024 * 1024)

typedef struct {
    lj_sftp *sftp;
    lj_sftp_session *s;
    const char *path;
    char *folder;
    char *temp;                   /* path of the hidden file */
    bool temp_there;              /* it may exist */
    lj_sftp_handle file;          /* open while it has a length */
    lj_sftp_handle folder_handle; /* for its fsync; none where the server cannot */
    uint64_t offset;
    size_t pending;   /* requests of the second exchange that were not answered yet */
    uint32_t time_id; /* of the FSETSTAT; 0: none */
} putting;

static void putting_free(putting *p)
{
    free(p->folder);
    free(p->temp);
}

/* ---- opening ---- */

/* Asks for all parents at once; those that exist fail, which does no harm. *ret_status: of the innermost. */
static lj_code make_folders(putting *p, uint32_t *ret_status, lj_error *err)
{
    LJ_CLEANUP(lj_freep) char *path = lj_str_dup(p->folder);
    if (path == NULL)
        return lj_error_nomem(err);
    const lj_fx_attrs attrs = {.flags = LJ_FXA_PERMISSIONS, .permissions = 0700};
    uint32_t ids[PARENTS_MAX];
    size_t count = 0;
    *ret_status = LJ_FX_OK;
    for (char *at = path; at != NULL && count < PARENTS_MAX;) {
        char *slash = strchr(at + 1, '/');
        if (slash != NULL)
            *slash = 0;
        lj_fx_writer w = lj_sftp_request(p->s, LJ_FXP_MKDIR, &ids[count++]);
        lj_fx_text(&w, path);
        lj_fx_attrs_write(&w, &attrs);
        LJ_TRY(lj_fx_end(&w, err));
        if (slash != NULL)
            *slash = '/';
        at = slash;
    }
    for (size_t i = 0; i < count; i++) {
        lj_sftp_answer answer;
        LJ_TRY(lj_sftp_receive_id(p->s, ids[i], &answer, err));
        LJ_TRY(lj_sftp_status(p->s, &answer, ret_status, err));
    }
    return LJ_OK;
}

static lj_code already_there(lj_error *err)
{
    return lj_error_set(err, LJ_EXISTS, "the object is already there");
}

/* The first exchange. *ret_status: of opening the hidden file. */
static lj_code open_once(putting *p, bool if_absent, uint32_t *ret_status, lj_error *err)
{
    uint32_t ids[3] = {0, 0, 0};
    uint32_t status = LJ_FX_NO_SUCH_FILE;
    lj_sftp_answer answer;
    bool sync = (p->s->extensions & LJ_SFTP_FSYNC) != 0;
    if (if_absent)
        LJ_TRY(lj_sftp_ask_path(p->s, LJ_FXP_LSTAT, p->path, &ids[0], err));
    LJ_TRY(
        lj_sftp_ask_open(p->s, p->temp, LJ_FXF_WRITE | LJ_FXF_CREAT | LJ_FXF_EXCL, &ids[1], err));
    if (sync)
        LJ_TRY(lj_sftp_ask_open(p->s, p->folder, LJ_FXF_READ, &ids[2], err));
    p->temp_there = true;
    if (if_absent) {
        lj_fx_attrs attrs;
        LJ_TRY(lj_sftp_receive_id(p->s, ids[0], &answer, err));
        LJ_TRY(lj_sftp_attrs_of(p->s, &answer, &attrs, &status, err));
    }
    LJ_TRY(lj_sftp_receive_id(p->s, ids[1], &answer, err));
    LJ_TRY(lj_sftp_handle_of(p->s, &answer, &p->file, ret_status, err));
    p->temp_there = *ret_status == LJ_FX_OK;
    if (sync) {
        uint32_t ignored = 0;
        LJ_TRY(lj_sftp_receive_id(p->s, ids[2], &answer, err));
        LJ_TRY(lj_sftp_handle_of(p->s, &answer, &p->folder_handle, &ignored, err));
    }
    return if_absent && status == LJ_FX_OK ? already_there(err) : LJ_OK;
}

/* Whether the server's disk is full; it does not say so by itself. */
static bool disk_is_full(const putting *p)
{
    uint32_t id = 0;
    lj_sftp_answer answer;
    if (p->s->broken || (p->s->extensions & LJ_SFTP_STATVFS) == 0)
        return false;
    lj_sftp_forget(p->s);
    lj_fx_writer w = lj_sftp_request(p->s, LJ_FXP_EXTENDED, &id);
    lj_fx_text(&w, "statvfs@openssh.com");
    lj_fx_text(&w, p->folder);
    if (lj_fx_end(&w, NULL) != LJ_OK || lj_sftp_receive_id(p->s, id, &answer, NULL) != LJ_OK)
        return false;
    uint64_t numbers[8]; /* bsize, frsize, blocks, bfree, bavail, files, ffree, favail */
    for (size_t i = 0; i < LJ_ARRAY_LEN(numbers); i++)
        numbers[i] = lj_fx_read_u64(&answer.body);
    if (answer.type != LJ_FXP_EXTENDED_REPLY || answer.body.bad || numbers[1] == 0)
        return false;
    bool no_inodes = numbers[5] > 0 && numbers[7] == 0;
    return numbers[4] < FULL_BYTES / numbers[1] || no_inodes;
}

static lj_code failed(const putting *p, uint32_t status, const char *what, const char *path,
                      lj_error *err)
{
    if (status != LJ_FX_FAILURE || !disk_is_full(p))
        return lj_sftp_status_error(status, what, path, err);
    lj_error_set(err, LJ_NOSPACE, "%s %s: the disk of the server is full", what, path);
    return lj_error_retryable(err, true);
}

static lj_code open_temp(putting *p, bool if_absent, lj_error *err)
{
    const char *name = lj_str_basename(p->path);
    uint32_t status = LJ_FX_OK;
    uint32_t folder_status = LJ_FX_OK;
    for (int i = 0; i < FOLDER_TRIES; i++) {
        LJ_CLEANUP(lj_freep) char *temp_name = lj_sftp_temp_name(name);
        free(p->temp);
        p->temp = NULL;
        if (temp_name != NULL)
            p->temp = strcmp(p->folder, "/") == 0 ? lj_str_printf("/%s", temp_name)
                                                  : lj_str_printf("%s/%s", p->folder, temp_name);
        if (p->temp == NULL)
            return lj_error_nomem(err);
        LJ_TRY(open_once(p, if_absent, &status, err));
        if (status == LJ_FX_OK)
            return LJ_OK;
        if (status != LJ_FX_NO_SUCH_FILE)
            return failed(p, status, "cannot create", p->temp, err);
        if (i == LOOK_AT_TRY) {
            LJ_TRY(lj_sftp_check_folder(p->s, p->folder, err));
            LJ_TRY(lj_sftp_check_links(p->s, p->folder, err));
            if (folder_status == LJ_FX_PERMISSION_DENIED)
                break;
        }
        LJ_TRY(make_folders(p, &folder_status, err));
    }
    if (folder_status == LJ_FX_OK || folder_status == LJ_FX_NO_SUCH_FILE) {
        lj_error_set(err, LJ_IO, "cannot create %s: its folder goes away again and again", p->temp);
        return lj_error_retryable(err, true);
    }
    return failed(p, folder_status, "cannot create folder", p->folder, err);
}

/* ---- content ---- */

/* One answer of the second exchange. */
static lj_code take_answer(putting *p, lj_sftp_answer *answer, lj_error *err)
{
    uint32_t status = 0;
    LJ_TRY(lj_sftp_status(p->s, answer, &status, err));
    p->pending--;
    if (status == LJ_FX_OK)
        return LJ_OK;
    if (answer->id != p->time_id)
        return failed(p, status, "cannot write", p->temp, err);
    if (!__atomic_exchange_n(&p->sftp->target->warned_times, true, __ATOMIC_RELAXED))
        lj_log(
            LJ_LOG_WARN,
            "sftp: %s does not let times of files be set (SFTP status %u): objects have the time "
            "of writing, and a restore to a point in time goes by that",
            p->sftp->config.host, status);
    return LJ_OK;
}

static lj_code take_answers(putting *p, bool wait, lj_error *err)
{
    for (;;) {
        lj_sftp_answer answer;
        bool there = false;
        LJ_TRY(lj_sftp_receive(p->s, wait, &answer, &there, err));
        if (!there)
            return LJ_OK;
        LJ_TRY(take_answer(p, &answer, err));
        wait = false;
    }
}

/* Reads from the source into a WRITE at the end of `out`. *ret_n 0: nothing left, and no request was made. */
static lj_code ask_write(putting *p, lj_source *source, size_t *ret_n, lj_error *err)
{
    lj_sftp_session *s = p->s;
    uint32_t id = 0;
    size_t chunk = s->max_write;
    size_t n = 0;
    lj_fx_writer w = lj_sftp_request(s, LJ_FXP_WRITE, &id);
    lj_fx_string(&w, p->file.bytes, p->file.len);
    lj_fx_u64(&w, p->offset);
    lj_fx_u32(&w, 0);
    lj_code code = w.failed ? lj_error_nomem(err) : lj_buf_reserve(&s->out, chunk, err);
    while (code == LJ_OK && n < chunk) {
        size_t got = 0;
        code = source->read(source->ctx, s->out.data + s->out.len + n, chunk - n, &got, err);
        n += got;
        if (code == LJ_OK && got == 0)
            break;
    }
    if (code != LJ_OK || n == 0) {
        s->out.len = w.start;
        s->next_id--;
        *ret_n = 0;
        return code;
    }
    lj_put_be32(s->out.data + s->out.len - 4, (uint32_t)n);
    s->out.len += n;
    p->offset += n;
    p->pending++;
    *ret_n = n;
    return lj_fx_end(&w, err);
}

static lj_code ask_sync(putting *p, const lj_sftp_handle *handle, uint32_t *ret_id, lj_error *err)
{
    lj_fx_writer w = lj_sftp_request(p->s, LJ_FXP_EXTENDED, ret_id);
    lj_fx_text(&w, "fsync@openssh.com");
    lj_fx_string(&w, handle->bytes, handle->len);
    return lj_fx_end(&w, err);
}

static lj_code ask_time(putting *p, int64_t created_ns, lj_error *err)
{
    int64_t seconds = created_ns / LJ_NS_PER_S - (created_ns % LJ_NS_PER_S < 0);
    int64_t now = lj_clock_wall_ns() / LJ_NS_PER_S;
    /* the time of access stays young, so that the file is not taken for an old one that nobody finished */
    const lj_fx_attrs attrs = {.flags = LJ_FXA_TIMES,
                               .atime = (uint32_t)LJ_MAX(LJ_MIN(now, (int64_t)UINT32_MAX), 0),
                               .mtime = (uint32_t)LJ_MAX(LJ_MIN(seconds, (int64_t)UINT32_MAX), 0)};
    lj_fx_writer w = lj_sftp_request(p->s, LJ_FXP_FSETSTAT, &p->time_id);
    lj_fx_string(&w, p->file.bytes, p->file.len);
    lj_fx_attrs_write(&w, &attrs);
    p->pending++;
    return lj_fx_end(&w, err);
}

/* The second exchange. */
static lj_code write_content(putting *p, lj_source *source, int64_t created_ns, lj_error *err)
{
    lj_sftp_session *s = p->s;
    bool sync = (s->extensions & LJ_SFTP_FSYNC) != 0;
    uint32_t id = 0;
    uint64_t synced = 0;
    for (;;) {
        size_t n = 0;
        LJ_TRY(ask_write(p, source, &n, err));
        if (n == 0)
            break;
        if (sync && p->offset - synced >= SYNC_BYTES) {
            LJ_TRY(ask_sync(p, &p->file, &id, err));
            p->pending++;
            synced = p->offset;
        }
        LJ_TRY(take_answers(p, false, err));
        while (s->out.len - s->out_done > BACKLOG_BYTES ||
               p->pending * (size_t)s->max_write > WINDOW_BYTES)
            LJ_TRY(take_answers(p, true, err));
    }
    if (created_ns != 0)
        LJ_TRY(ask_time(p, created_ns, err));
    if (sync) {
        LJ_TRY(ask_sync(p, &p->file, &id, err));
        p->pending++;
    }
    LJ_TRY(lj_sftp_ask_handle(s, LJ_FXP_CLOSE, &p->file, &id, err));
    p->file.len = 0;
    p->pending++;
    while (p->pending > 0)
        LJ_TRY(take_answers(p, true, err));
    return LJ_OK;
}

/* ---- the final name ---- */

static lj_code ask_two(putting *p, uint8_t type, const char *extension, uint32_t *ret_id,
                       lj_error *err)
{
    lj_fx_writer w = lj_sftp_request(p->s, type, ret_id);
    if (extension != NULL)
        lj_fx_text(&w, extension);
    lj_fx_text(&w, p->temp);
    lj_fx_text(&w, p->path);
    return lj_fx_end(&w, err);
}

/*
 * The third exchange: gives the name, removes the other one when `remove`, fsyncs the folder. An fsync of a folder that
 * the server cannot do is no failure.
 */
static lj_code give_name(putting *p, uint8_t type, const char *extension, bool remove,
                         uint32_t *ret_status, lj_error *err)
{
    uint32_t ids[3] = {0, 0, 0};
    bool sync = p->folder_handle.len > 0;
    LJ_TRY(ask_two(p, type, extension, &ids[0], err));
    if (remove)
        LJ_TRY(lj_sftp_ask_path(p->s, LJ_FXP_REMOVE, p->temp, &ids[1], err));
    if (sync)
        LJ_TRY(ask_sync(p, &p->folder_handle, &ids[2], err));
    for (size_t i = 0; i < LJ_ARRAY_LEN(ids); i++) {
        lj_sftp_answer answer;
        uint32_t status = 0;
        if (i > 0 && ids[i] == 0)
            continue;
        LJ_TRY(lj_sftp_receive_id(p->s, ids[i], &answer, err));
        LJ_TRY(lj_sftp_status(p->s, &answer, &status, err));
        if (i == 0)
            *ret_status = status;
    }
    p->temp_there = !remove && *ret_status != LJ_FX_OK;
    return LJ_OK;
}

/* After a failure that may mean that the name is taken. */
static lj_code is_taken(putting *p, bool *ret_taken, lj_error *err)
{
    lj_fx_attrs attrs;
    uint32_t status = 0;
    LJ_TRY(lj_sftp_do_stat(p->s, LJ_FXP_LSTAT, p->path, &attrs, &status, err));
    *ret_taken = status == LJ_FX_OK;
    return LJ_OK;
}

static lj_code publish_new(putting *p, lj_error *err)
{
    bool *no_links = &p->sftp->target->no_hard_links;
    bool link =
        (p->s->extensions & LJ_SFTP_HARDLINK) != 0 && !__atomic_load_n(no_links, __ATOMIC_RELAXED);
    uint32_t status = 0;
    if (link)
        LJ_TRY(give_name(p, LJ_FXP_EXTENDED, "hardlink@openssh.com", true, &status, err));
    else
        LJ_TRY(give_name(p, LJ_FXP_RENAME, NULL, false, &status, err));
    if (status == LJ_FX_OK && link)
        __atomic_store_n(&p->sftp->target->hard_links, true, __ATOMIC_RELAXED);
    if (status == LJ_FX_OK)
        return LJ_OK;
    bool taken = status == LJ_FX_FILE_ALREADY_EXISTS;
    if (!taken)
        LJ_TRY(is_taken(p, &taken, err));
    if (taken)
        return already_there(err);
    /* a file system without hard links: the next try does without */
    if (link)
        __atomic_store_n(no_links, true, __ATOMIC_RELAXED);
    return failed(p, status, link ? "cannot link" : "cannot rename", p->temp, err);
}

static lj_code publish_over(putting *p, lj_error *err)
{
    uint32_t status = 0;
    if ((p->s->extensions & LJ_SFTP_POSIX_RENAME) != 0) {
        LJ_TRY(give_name(p, LJ_FXP_EXTENDED, "posix-rename@openssh.com", false, &status, err));
    } else {
        LJ_TRY(give_name(p, LJ_FXP_RENAME, NULL, false, &status, err));
        bool taken = false;
        if (status != LJ_FX_OK)
            LJ_TRY(is_taken(p, &taken, err));
        if (taken) {
            /* not atomic: for a moment there is no object. Nothing better is to be had */
            uint32_t ignored = 0;
            LJ_TRY(lj_sftp_do_path(p->s, LJ_FXP_REMOVE, p->path, &ignored, err));
            LJ_TRY(give_name(p, LJ_FXP_RENAME, NULL, false, &status, err));
        }
    }
    return status == LJ_FX_OK ? LJ_OK : failed(p, status, "cannot rename", p->temp, err);
}

/* ---- all of it ---- */

/* Leaves nothing behind, as far as the connection still works. */
static void clean_up(putting *p)
{
    uint32_t ids[3];
    lj_sftp_session *s = p->s;
    lj_code code = LJ_OK;
    bool grace = lj_sftp_grace_begin(s);
    if (s->broken) {
        if (p->temp_there)
            lj_sftp_stale_add(p->sftp, p->temp);
        return;
    }
    lj_sftp_forget(s);
    if (p->folder_handle.len > 0) /* nobody waits for the answer */
        code = lj_sftp_ask_handle(s, LJ_FXP_CLOSE, &p->folder_handle, &ids[0], NULL);
    if (p->file.len > 0 && code == LJ_OK)
        code = lj_sftp_ask_handle(s, LJ_FXP_CLOSE, &p->file, &ids[1], NULL);
    lj_sftp_forget(s);
    if (p->temp_there && code == LJ_OK)
        code = lj_sftp_do_path(s, LJ_FXP_REMOVE, p->temp, &ids[2], NULL);
    if (code != LJ_OK) {
        s->broken = true;
        if (p->temp_there)
            lj_sftp_stale_add(p->sftp, p->temp);
    }
    if (grace)
        lj_sftp_grace_end(s);
}

static lj_code put_by(putting *p, lj_source *source, const lj_storage_put_options *options,
                      lj_error *err)
{
    lj_sftp_stale_delete(p->sftp, p->s);
    LJ_TRY(open_temp(p, options->if_absent, err));
    LJ_TRY(write_content(p, source, options->created_ns, err));
    return options->if_absent ? publish_new(p, err) : publish_over(p, err);
}

lj_code lj_sftp_put(void *self, const char *key, lj_source *source,
                    const lj_storage_put_options *options, lj_error *err)
{
    lj_sftp *sftp = self;
    LJ_CLEANUP(lj_freep) char *path = lj_sftp_path(sftp, key);
    LJ_CLEANUP(putting_free) putting p = {.sftp = sftp, .path = path};
    p.folder = path != NULL ? lj_str_dirname(path) : NULL;
    if (p.folder == NULL)
        return lj_error_nomem(err);
    if (lj_sftp_is_temp(lj_str_basename(path)))
        return lj_error_set(err, LJ_INVALID, "names of this form are kept for unfinished uploads");
    LJ_TRY(lj_sftp_take(sftp, &p.s, err));
    lj_code code = put_by(&p, source, options, err);
    clean_up(&p);
    lj_sftp_give(sftp, p.s);
    return code;
}
