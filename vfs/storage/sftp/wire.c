/*
 * wire.c - SFTP packets over an SSH channel: sending and receiving at the same time, waiting, statuses.
 *
 * Layer: storage. Thread-safety: a session has one owner.
 * Invariants: the time spent in poll(2) without a byte moving is bounded, and so is the whole of it; the caller's source
 * and sink cost none of it. A libssh2 call whose packet is sent in part is the next one to be made, as libssh2 demands. An
 * answer is either to a request of this operation, or to one of an earlier operation that did not wait for it.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "vfs/base/cancel.h"
#include "vfs/base/clock.h"
#include "vfs/storage/http/guard.h"
#include "vfs/storage/sftp/internal.h"

#define GRACE_NS       (100 * LJ_NS_PER_MS)
#define GRACE_POLL_MS  10
#define POLL_MS        100
#define PACKET_MAX     (256u * 1024u)
#define READ_BYTES     ((size_t)128 * 1024)
#define DATA_BYTES     32768u /* that much every server takes in one packet */
#define EXTENSIONS_MAX 64

/* ---- waiting ---- */

static lj_code check_cancel(lj_sftp_session *s, lj_error *err)
{
    if (!lj_cancel_requested(s->cancel) && !lj_guard_stopping())
        return LJ_OK;
    s->broken = true;
    s->cancelled = true;
    return lj_error_set(err, LJ_CANCELLED, "cancelled");
}

lj_code lj_sftp_wait_fd(lj_sftp_session *s, int fd, short events, lj_error *err)
{
    struct pollfd pfd = {.fd = fd, .events = events};
    int64_t before = lj_clock_mono_ns();
    bool grace = s->grace_end_ns != 0;
    if (grace && before >= s->grace_end_ns) {
        s->broken = true;
        return lj_error_set(err, LJ_CANCELLED, "cancelled");
    }
    int rc = poll(&pfd, 1, grace ? GRACE_POLL_MS : POLL_MS);
    if (rc < 0 && errno != EINTR)
        return lj_error_errno(err, errno, "cannot wait for the server");
    int64_t waited = lj_clock_mono_ns() - before;
    s->stalled_ns += waited;
    s->budget_ns -= waited;
    LJ_TRY(check_cancel(s, err));
    if (s->budget_ns > 0 && (rc > 0 || s->stalled_ns < s->stall_ns))
        return LJ_OK;
    s->broken = true;
    double seconds = (double)s->stall_ns / (double)LJ_NS_PER_S;
    if (s->stalled_ns >= s->stall_ns)
        lj_error_set(err, LJ_TIMEOUT, "the server did not answer for %g s", seconds);
    else
        lj_error_set(err, LJ_TIMEOUT, "the server was too slow: it was waited for %g s in all",
                     seconds * LJ_SFTP_STALLS_IN_ALL);
    return lj_error_retryable(err, true);
}

lj_code lj_sftp_wait(lj_sftp_session *s, lj_error *err)
{
    int directions = libssh2_session_block_directions(s->ssh);
    short events = 0;
    if ((directions & LIBSSH2_SESSION_BLOCK_OUTBOUND) != 0)
        events |= POLLOUT;
    if ((directions & LIBSSH2_SESSION_BLOCK_INBOUND) != 0 || events == 0)
        events |= POLLIN;
    return lj_sftp_wait_fd(s, s->fd, events, err);
}

lj_code lj_sftp_ssh_error(lj_sftp_session *s, int rc, const char *what, lj_error *err)
{
    char *text = NULL;
    s->broken = true;
    (void)libssh2_session_last_error(s->ssh, &text, NULL, 0);
    if (rc == LIBSSH2_ERROR_ALLOC)
        return lj_error_nomem(err);
    if (rc == LIBSSH2_ERROR_SOCKET_DISCONNECT || rc == LIBSSH2_ERROR_SOCKET_RECV ||
        rc == LIBSSH2_ERROR_SOCKET_SEND || rc == 0)
        lj_error_set(err, LJ_UNAVAILABLE, "%s: the connection broke off", what);
    else
        lj_error_set(err, LJ_UNAVAILABLE, "%s: %s (libssh2 error %d)", what,
                     text != NULL && text[0] != 0 ? text : "the connection failed", rc);
    return lj_error_retryable(err, true);
}

lj_code lj_sftp_nonsense(lj_sftp_session *s, const char *what, lj_error *err)
{
    s->broken = true;
    lj_error_set(err, LJ_UNAVAILABLE, "the server's SFTP answer makes no sense: %s", what);
    return lj_error_retryable(err, true);
}

/* ---- bytes ---- */

static lj_code send_some(lj_sftp_session *s, bool *ret_moved, lj_error *err)
{
    while (s->out_done < s->out.len) {
        ssize_t n = libssh2_channel_write(s->channel, (const char *)s->out.data + s->out_done,
                                          s->out.len - s->out_done);
        s->write_in_part = n == LIBSSH2_ERROR_EAGAIN && (libssh2_session_block_directions(s->ssh) &
                                                         LIBSSH2_SESSION_BLOCK_OUTBOUND) != 0;
        if (n == LIBSSH2_ERROR_EAGAIN || n == 0) {
            s->out.len -= s->out_done;
            memmove(s->out.data, s->out.data + s->out_done, s->out.len);
            s->out_done = 0;
            return LJ_OK;
        }
        if (n < 0)
            return lj_sftp_ssh_error(s, (int)n, "cannot send", err);
        s->out_done += (size_t)n;
        *ret_moved = true;
    }
    lj_buf_clear(&s->out);
    s->out_done = 0;
    return LJ_OK;
}

static lj_code receive_some(lj_sftp_session *s, bool *ret_moved, lj_error *err)
{
    if (s->in_done > 0) {
        s->in.len -= s->in_done;
        memmove(s->in.data, s->in.data + s->in_done, s->in.len);
        s->in_done = 0;
    }
    LJ_TRY(lj_buf_reserve(&s->in, READ_BYTES, err));
    ssize_t n = libssh2_channel_read(s->channel, (char *)s->in.data + s->in.len, READ_BYTES);
    s->read_in_part = n == LIBSSH2_ERROR_EAGAIN && (libssh2_session_block_directions(s->ssh) &
                                                    LIBSSH2_SESSION_BLOCK_OUTBOUND) != 0;
    if (n > 0) {
        s->in.len += (size_t)n;
        *ret_moved = true;
    } else if (n < 0 && n != LIBSSH2_ERROR_EAGAIN) {
        return lj_sftp_ssh_error(s, (int)n, "cannot receive", err);
    } else if (n == 0 && libssh2_channel_eof(s->channel) != 0) {
        s->broken = true;
        lj_error_set(err, LJ_UNAVAILABLE, "the server ended the SFTP session");
        return lj_error_retryable(err, true);
    }
    return LJ_OK;
}

/* Moves what can be moved without waiting. */
static lj_code step(lj_sftp_session *s, bool *ret_moved, lj_error *err)
{
    if (!s->read_in_part)
        LJ_TRY(send_some(s, ret_moved, err));
    if (!s->write_in_part)
        LJ_TRY(receive_some(s, ret_moved, err));
    return LJ_OK;
}

void lj_sftp_flush(lj_sftp_session *s)
{
    bool moved = false;
    if (!s->broken)
        (void)step(s, &moved, NULL);
}

/* ---- requests and answers ---- */

void lj_sftp_begin(lj_sftp_session *s, const bool *cancel)
{
    s->cancel = cancel;
    s->stalled_ns = 0;
    s->budget_ns = LJ_SFTP_STALLS_IN_ALL * s->stall_ns;
    lj_sftp_forget(s);
}

bool lj_sftp_grace_begin(lj_sftp_session *s)
{
    if (!s->cancelled || s->channel == NULL)
        return false;
    s->broken = false;
    s->cancel = NULL;
    s->grace_end_ns = lj_clock_mono_ns() + GRACE_NS;
    return true;
}

void lj_sftp_grace_end(lj_sftp_session *s)
{
    s->broken = true;
}

void lj_sftp_forget(lj_sftp_session *s)
{
    s->first_id = s->next_id;
}

lj_fx_writer lj_sftp_request(lj_sftp_session *s, uint8_t type, uint32_t *ret_id)
{
    *ret_id = s->next_id++;
    return lj_fx_begin(&s->out, type, *ret_id);
}

/* Cuts the next whole packet out of what was received. */
static lj_code next_packet(lj_sftp_session *s, lj_sftp_answer *answer, bool *ret_there,
                           lj_error *err)
{
    size_t left = s->in.len - s->in_done;
    *ret_there = false;
    if (left < 4)
        return LJ_OK;
    const uint8_t *packet = s->in.data + s->in_done;
    uint32_t len = lj_get_be32(packet);
    if (len < 5 || len > PACKET_MAX) {
        lj_sftp_nonsense(s, "a packet of impossible length", err);
        return lj_error_hint(err, "a login script (.bashrc) on the server that prints something "
                                  "does that");
    }
    if (left < 4 + (size_t)len)
        return LJ_OK;
    lj_fx_reader reader = lj_fx_reader_new(packet + 4, len);
    answer->type = lj_fx_read_u8(&reader);
    answer->id = lj_fx_read_u32(&reader);
    answer->body = reader;
    s->in_done += 4 + (size_t)len;
    *ret_there = true;
    return LJ_OK;
}

lj_code lj_sftp_receive(lj_sftp_session *s, bool wait, lj_sftp_answer *ret_answer, bool *ret_there,
                        lj_error *err)
{
    /* also where the server is so fast that there is nothing to wait for */
    LJ_TRY(check_cancel(s, err));
    for (;;) {
        LJ_TRY(next_packet(s, ret_answer, ret_there, err));
        if (*ret_there) {
            /* modulo 2^32, as the numbers go around */
            if (ret_answer->id - s->first_id < s->next_id - s->first_id)
                return LJ_OK;
            if ((int32_t)(ret_answer->id - s->first_id) >= 0)
                return lj_sftp_nonsense(s, "it answers what was not asked", err);
            continue;
        }
        bool moved = false;
        LJ_TRY(step(s, &moved, err));
        if (moved)
            continue;
        if (!wait)
            return LJ_OK;
        short events = s->write_in_part || s->read_in_part ? POLLOUT : POLLIN;
        LJ_TRY(lj_sftp_wait_fd(s, s->fd, events, err));
    }
}

lj_code lj_sftp_receive_id(lj_sftp_session *s, uint32_t id, lj_sftp_answer *ret_answer,
                           lj_error *err)
{
    bool there = false;
    LJ_TRY(lj_sftp_receive(s, true, ret_answer, &there, err));
    return ret_answer->id == id ? LJ_OK : lj_sftp_nonsense(s, "answers out of order", err);
}

/* ---- what answers mean ---- */

lj_code lj_sftp_status(lj_sftp_session *s, lj_sftp_answer *answer, uint32_t *ret_status,
                       lj_error *err)
{
    uint32_t status = lj_fx_read_u32(&answer->body);
    if (answer->type != LJ_FXP_STATUS || answer->body.bad)
        return lj_sftp_nonsense(s, "it is no status", err);
    *ret_status = status == LJ_FX_NO_SUCH_PATH ? LJ_FX_NO_SUCH_FILE : status;
    return LJ_OK;
}

lj_code lj_sftp_status_error(uint32_t status, const char *what, const char *path, lj_error *err)
{
    static const struct {
        uint32_t status;
        lj_code code;
        bool retryable;
        const char *text;
    } rows[] = {{LJ_FX_NO_SUCH_FILE, LJ_NOTFOUND, true, "no such file or folder"},
                {LJ_FX_PERMISSION_DENIED, LJ_DENIED, true, "permission denied"},
                {LJ_FX_WRITE_PROTECT, LJ_DENIED, true, "the file system is read-only"},
                {LJ_FX_NO_SPACE, LJ_NOSPACE, true, "no space left on the server"},
                {LJ_FX_QUOTA_EXCEEDED, LJ_NOSPACE, true, "the quota on the server is used up"},
                {LJ_FX_OP_UNSUPPORTED, LJ_UNSUPPORTED, false, "the server cannot do that"}};
    for (size_t i = 0; i < LJ_ARRAY_LEN(rows); i++) {
        if (rows[i].status != status)
            continue;
        lj_error_set(err, rows[i].code, "%s %s: %s", what, path, rows[i].text);
        return lj_error_retryable(err, rows[i].retryable);
    }
    lj_error_set(err, LJ_IO, "%s %s: the server says only that it failed (SFTP status %u)", what,
                 path, status);
    (void)lj_error_retryable(err, true);
    return lj_error_hint(err, "SFTP has one answer for a full disk, a quota and much else: look at "
                              "the server's disk and log");
}

lj_code lj_sftp_handle_of(lj_sftp_session *s, lj_sftp_answer *answer, lj_sftp_handle *ret_handle,
                          uint32_t *ret_status, lj_error *err)
{
    ret_handle->len = 0;
    if (answer->type != LJ_FXP_HANDLE) {
        LJ_TRY(lj_sftp_status(s, answer, ret_status, err));
        return *ret_status != LJ_FX_OK ? LJ_OK : lj_sftp_nonsense(s, "it has no handle", err);
    }
    size_t len = 0;
    const uint8_t *bytes = lj_fx_read_string(&answer->body, &len);
    if (answer->body.bad || len == 0 || len > LJ_SFTP_HANDLE_MAX)
        return lj_sftp_nonsense(s, "a handle of impossible length", err);
    memcpy(ret_handle->bytes, bytes, len);
    ret_handle->len = len;
    *ret_status = LJ_FX_OK;
    return LJ_OK;
}

lj_code lj_sftp_attrs_of(lj_sftp_session *s, lj_sftp_answer *answer, lj_fx_attrs *ret_attrs,
                         uint32_t *ret_status, lj_error *err)
{
    if (answer->type != LJ_FXP_ATTRS) {
        LJ_TRY(lj_sftp_status(s, answer, ret_status, err));
        return *ret_status != LJ_FX_OK ? LJ_OK : lj_sftp_nonsense(s, "it has no attributes", err);
    }
    lj_fx_read_attrs(&answer->body, ret_attrs);
    if (answer->body.bad)
        return lj_sftp_nonsense(s, "attributes that are cut off", err);
    *ret_status = LJ_FX_OK;
    return LJ_OK;
}

/* ---- requests ---- */

lj_code lj_sftp_ask_path(lj_sftp_session *s, uint8_t type, const char *path, uint32_t *ret_id,
                         lj_error *err)
{
    lj_fx_writer w = lj_sftp_request(s, type, ret_id);
    lj_fx_text(&w, path);
    return lj_fx_end(&w, err);
}

lj_code lj_sftp_ask_handle(lj_sftp_session *s, uint8_t type, const lj_sftp_handle *handle,
                           uint32_t *ret_id, lj_error *err)
{
    lj_fx_writer w = lj_sftp_request(s, type, ret_id);
    lj_fx_string(&w, handle->bytes, handle->len);
    return lj_fx_end(&w, err);
}

lj_code lj_sftp_ask_open(lj_sftp_session *s, const char *path, uint32_t flags, uint32_t *ret_id,
                         lj_error *err)
{
    lj_fx_attrs attrs = {.flags = (flags & LJ_FXF_CREAT) != 0 ? LJ_FXA_PERMISSIONS : 0,
                         .permissions = 0600};
    lj_fx_writer w = lj_sftp_request(s, LJ_FXP_OPEN, ret_id);
    lj_fx_text(&w, path);
    lj_fx_u32(&w, flags);
    lj_fx_attrs_write(&w, &attrs);
    return lj_fx_end(&w, err);
}

lj_code lj_sftp_do_path(lj_sftp_session *s, uint8_t type, const char *path, uint32_t *ret_status,
                        lj_error *err)
{
    uint32_t id = 0;
    lj_sftp_answer answer;
    LJ_TRY(lj_sftp_ask_path(s, type, path, &id, err));
    LJ_TRY(lj_sftp_receive_id(s, id, &answer, err));
    return lj_sftp_status(s, &answer, ret_status, err);
}

lj_code lj_sftp_do_stat(lj_sftp_session *s, uint8_t type, const char *path, lj_fx_attrs *ret_attrs,
                        uint32_t *ret_status, lj_error *err)
{
    uint32_t id = 0;
    lj_sftp_answer answer;
    LJ_TRY(lj_sftp_ask_path(s, type, path, &id, err));
    LJ_TRY(lj_sftp_receive_id(s, id, &answer, err));
    return lj_sftp_attrs_of(s, &answer, ret_attrs, ret_status, err);
}

/* ---- the first packets ---- */

static void note_extension(lj_sftp_session *s, const uint8_t *name, size_t len)
{
    static const struct {
        const char *name;
        unsigned bit;
    } known[] = {{"posix-rename@openssh.com", LJ_SFTP_POSIX_RENAME},
                 {"hardlink@openssh.com", LJ_SFTP_HARDLINK},
                 {"fsync@openssh.com", LJ_SFTP_FSYNC},
                 {"statvfs@openssh.com", LJ_SFTP_STATVFS},
                 {"limits@openssh.com", LJ_SFTP_LIMITS}};
    for (size_t i = 0; i < LJ_ARRAY_LEN(known); i++)
        if (strlen(known[i].name) == len && memcmp(known[i].name, name, len) == 0)
            s->extensions |= known[i].bit;
}

/* OpenSSH says how large requests may be; what does not fit is an answer we can do without. */
static lj_code ask_limits(lj_sftp_session *s, lj_error *err)
{
    uint32_t id = 0;
    lj_sftp_answer answer;
    lj_fx_writer w = lj_sftp_request(s, LJ_FXP_EXTENDED, &id);
    lj_fx_text(&w, "limits@openssh.com");
    LJ_TRY(lj_fx_end(&w, err));
    LJ_TRY(lj_sftp_receive_id(s, id, &answer, err));
    (void)lj_fx_read_u64(&answer.body); /* packet */
    uint64_t read_max = lj_fx_read_u64(&answer.body);
    uint64_t write_max = lj_fx_read_u64(&answer.body);
    if (answer.type != LJ_FXP_EXTENDED_REPLY || answer.body.bad)
        return LJ_OK;
    if (read_max > s->max_read)
        s->max_read = (uint32_t)LJ_MIN(read_max, (uint64_t)PACKET_MAX / 2);
    if (write_max > s->max_write)
        s->max_write = (uint32_t)LJ_MIN(write_max, (uint64_t)PACKET_MAX / 2);
    return LJ_OK;
}

lj_code lj_sftp_hello(lj_sftp_session *s, lj_error *err)
{
    s->max_read = DATA_BYTES;
    s->max_write = DATA_BYTES;
    /* INIT has our version in the place of an id, and VERSION the server's */
    s->first_id = 0;
    s->next_id = LJ_FX_VERSION + 1;
    lj_fx_writer w = lj_fx_begin(&s->out, LJ_FXP_INIT, LJ_FX_VERSION);
    LJ_TRY(lj_fx_end(&w, err));
    lj_sftp_answer answer;
    bool there = false;
    LJ_TRY(lj_sftp_receive(s, true, &answer, &there, err));
    if (answer.type != LJ_FXP_VERSION)
        return lj_sftp_nonsense(s, "it does not begin with a version", err);
    if (answer.id != LJ_FX_VERSION) {
        s->broken = true;
        return lj_error_set(err, LJ_UNSUPPORTED, "the server speaks SFTP version %u only, not %d",
                            answer.id, LJ_FX_VERSION);
    }
    for (int i = 0; i < EXTENSIONS_MAX && answer.body.left > 0; i++) {
        size_t len = 0;
        size_t ignored = 0;
        const uint8_t *name = lj_fx_read_string(&answer.body, &len);
        (void)lj_fx_read_string(&answer.body, &ignored);
        if (answer.body.bad)
            return lj_sftp_nonsense(s, "its list of extensions is cut off", err);
        note_extension(s, name, len);
    }
    lj_sftp_begin(s, s->cancel);
    return (s->extensions & LJ_SFTP_LIMITS) != 0 ? ask_limits(s, err) : LJ_OK;
}
