/*
 * error.h - how a fallible function says what went wrong.
 *
 * A fallible function returns lj_code (LJ_OK is 0) and fills an lj_error. The place that detects the
 * failure writes the message (what, where, which limit) and, when it can, a hint: a sentence that
 * tells the operator what to do. Layers above put context in front and keep the root.
 * Outputs of a function that failed are untouched.
 *
 * Layer: base. Thread-safety: an lj_error belongs to one thread. No allocation.
 */
#ifndef LJ_ERROR_H
#define LJ_ERROR_H

#include <stdarg.h>
#include "vfs/base/base.h"

/* X(name, number, text). Numbers are stable: the CLI prints and returns them (tools/exit_code.h). */
#define LJ_CODE_MAP(X)                                                                             \
    X(OK, 0, "ok")                                                                                 \
    X(NOMEM, 1, "out of memory")                                                                   \
    X(INVALID, 2, "invalid argument or configuration")                                             \
    X(IO, 3, "input/output error")                                                                 \
    X(NOSPACE, 4, "no space left")                                                                 \
    X(NOTFOUND, 5, "not found")                                                                    \
    X(EXISTS, 6, "already exists")                                                                 \
    X(CORRUPT, 7, "corrupt or truncated data")                                                     \
    X(GAP, 8, "a part of the replica is missing")                                                  \
    X(DENIED, 9, "permission denied")                                                              \
    X(UNAVAILABLE, 10, "service unavailable")                                                      \
    X(TIMEOUT, 11, "timed out")                                                                    \
    X(CONFLICT, 12, "another writer got there first")                                              \
    X(BUSY, 13, "busy")                                                                            \
    X(CANCELLED, 14, "cancelled")                                                                  \
    X(UNSUPPORTED, 15, "not supported")                                                            \
    X(INTERNAL, 16, "internal error")

typedef enum {
#define X(name, number, text) LJ_##name = number,
    LJ_CODE_MAP(X)
#undef X
} lj_code;

#define LJ_ERROR_MESSAGE_MAX 512
#define LJ_ERROR_HINT_MAX    256
#define LJ_ERROR_TEXT_MAX    (LJ_ERROR_MESSAGE_MAX + LJ_ERROR_HINT_MAX + 8) /* "message (hint)" */

typedef struct {
    lj_code code;
    int sys_errno;          /* errno of the failing call, 0 if none */
    int http_status;        /* HTTP status of the failing answer, 0 if none */
    bool retryable;         /* the same call may succeed later without anybody changing anything */
    int64_t retry_after_ns; /* the server asked to wait this long; 0 if it did not say */
    char message[LJ_ERROR_MESSAGE_MAX];
    char hint[LJ_ERROR_HINT_MAX];
} lj_error;

#define LJ_ERROR_INIT                                                                              \
    {                                                                                              \
        .code = LJ_OK                                                                              \
    }

/* Text of a code, never NULL. */
const char *lj_code_text(lj_code code);

/* Starts an error: sets code and message, clears every other field. `err` may be NULL. Returns code. */
lj_code lj_error_set(lj_error *err, lj_code code, const char *fmt, ...) LJ_PRINTF(3, 4);

/*
 * Starts an error from an errno value: the code is chosen from it (ENOSPC/EDQUOT -> NOSPACE, ENOENT ->
 * NOTFOUND, EACCES/EPERM/EROFS -> DENIED, EEXIST -> EXISTS, ENOMEM -> NOMEM, else IO), the message gets
 * ": <strerror>" behind it, and a hint for the common ones. IO, NOSPACE and DENIED are retryable.
 */
lj_code lj_error_errno(lj_error *err, int sys_errno, const char *fmt, ...) LJ_PRINTF(3, 4);

/* Sets the hint of an error that was set before. Returns its code. */
lj_code lj_error_hint(lj_error *err, const char *fmt, ...) LJ_PRINTF(2, 3);

/* Puts "<context>: " in front of the message; a message that gets too long loses its tail. Returns its code. */
lj_code lj_error_context(lj_error *err, const char *fmt, ...) LJ_PRINTF(2, 3);

/* Marks the error retryable or not. Returns its code. */
lj_code lj_error_retryable(lj_error *err, bool retryable);

/* A server has answered that it did not do it (HTTP 4xx). Anything else may have been done without our knowing. */
static inline bool lj_error_is_refusal(const lj_error *err)
{
    return err->http_status >= 400 && err->http_status < 500;
}

/* The usual short ways. */
lj_code lj_error_nomem(lj_error *err);
void lj_error_clear(lj_error *err);

/* Writes "message (hint)" or "message" into `out`. Always terminated. */
void lj_error_format(const lj_error *err, char *out, size_t out_size);

/* return-if-failed */
#define LJ_TRY(expr)                                                                               \
    do {                                                                                           \
        lj_code lj_try_code_ = (expr);                                                             \
        if (lj_try_code_ != LJ_OK)                                                                 \
            return lj_try_code_;                                                                   \
    } while (0)

#endif
