/*
 * error.c - see error.h. Formatting into fixed buffers; a message that does not fit is cut, never lost.
 */
#include "vfs/base/error.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void lj_freep(void *ptr_to_ptr)
{
    void **p = ptr_to_ptr;
    free(*p);
    *p = NULL;
}

void lj_closep(int *fd)
{
    if (*fd >= 0) {
        int saved = errno;
        close(*fd);
        errno = saved;
        *fd = -1;
    }
}

const char *lj_code_text(lj_code code)
{
    switch (code) {
#define X(name, number, text)                                                                      \
    case LJ_##name:                                                                                \
        return text;
        LJ_CODE_MAP(X)
#undef X
    }
    return "unknown error";
}

static void error_start(lj_error *err, lj_code code)
{
    err->code = code;
    err->sys_errno = 0;
    err->http_status = 0;
    err->retryable = false;
    err->retry_after_ns = 0;
    err->message[0] = 0;
    err->hint[0] = 0;
}

lj_code lj_error_set(lj_error *err, lj_code code, const char *fmt, ...)
{
    if (err == NULL)
        return code;
    error_start(err, code);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(err->message, sizeof(err->message), fmt, ap);
    va_end(ap);
    return code;
}

static lj_code code_from_errno(int sys_errno)
{
    switch (sys_errno) {
    case ENOSPC:
    case EDQUOT:
        return LJ_NOSPACE;
    case ENOENT:
    case ENOTDIR:
        return LJ_NOTFOUND;
    case EACCES:
    case EPERM:
    case EROFS:
        return LJ_DENIED;
    case EEXIST:
        return LJ_EXISTS;
    case ENOMEM:
        return LJ_NOMEM;
    default:
        return LJ_IO;
    }
}

static const char *hint_from_errno(int sys_errno)
{
    switch (sys_errno) {
    case ENOSPC:
        return "free space on that file system; nothing was lost, the work is retried";
    case EDQUOT:
        return "raise the disk quota of this user; nothing was lost, the work is retried";
    case EACCES:
    case EPERM:
        return "give the user that runs this process read and write permission there";
    case EROFS:
        return "the file system is mounted read-only; mount it writable or name another place";
    case EMFILE:
    case ENFILE:
        return "raise the limit of open files (ulimit -n)";
    default:
        return "";
    }
}

lj_code lj_error_errno(lj_error *err, int sys_errno, const char *fmt, ...)
{
    lj_code code = code_from_errno(sys_errno);
    if (err == NULL)
        return code;
    error_start(err, code);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(err->message, sizeof(err->message), fmt, ap);
    va_end(ap);
    size_t used = strlen(err->message);
    char text[128] = "";
    /* the GNU form: returns the text, which may or may not be in the buffer */
    const char *shown = strerror_r(sys_errno, text, sizeof(text));
    snprintf(err->message + used, sizeof(err->message) - used, ": %s", shown);
    err->sys_errno = sys_errno;
    err->retryable = code == LJ_IO || code == LJ_NOSPACE || code == LJ_DENIED;
    snprintf(err->hint, sizeof(err->hint), "%s", hint_from_errno(sys_errno));
    return code;
}

lj_code lj_error_hint(lj_error *err, const char *fmt, ...)
{
    if (err == NULL)
        return LJ_INTERNAL;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(err->hint, sizeof(err->hint), fmt, ap);
    va_end(ap);
    return err->code;
}

lj_code lj_error_context(lj_error *err, const char *fmt, ...)
{
    if (err == NULL)
        return LJ_INTERNAL;
    char old[LJ_ERROR_MESSAGE_MAX];
    memcpy(old, err->message, sizeof(old));
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(err->message, sizeof(err->message), fmt, ap);
    va_end(ap);
    size_t used = strlen(err->message);
    snprintf(err->message + used, sizeof(err->message) - used, ": %s", old);
    return err->code;
}

lj_code lj_error_retryable(lj_error *err, bool retryable)
{
    if (err == NULL)
        return LJ_INTERNAL;
    err->retryable = retryable;
    return err->code;
}

lj_code lj_error_nomem(lj_error *err)
{
    lj_error_set(err, LJ_NOMEM, "out of memory");
    if (err != NULL)
        err->retryable = true;
    return LJ_NOMEM;
}

void lj_error_clear(lj_error *err)
{
    if (err != NULL)
        error_start(err, LJ_OK);
}

void lj_error_format(const lj_error *err, char *out, size_t out_size)
{
    if (err->hint[0] != 0)
        snprintf(out, out_size, "%s (%s)", err->message, err->hint);
    else
        snprintf(out, out_size, "%s", err->message);
}
