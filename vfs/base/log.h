/*
 * log.h - one line of log, handed to whoever the program named.
 *
 * The library writes nothing to stdout or stderr by itself: lines go to the sink (the shim installs
 * sqlite3_log and, if asked, a file or the host's callback; the CLI installs stderr).
 *
 * Layer: base. Thread-safety: any thread; the sink must be too. No lock is held while the sink runs.
 */
#ifndef LJ_LOG_H
#define LJ_LOG_H

#include "vfs/base/error.h"

typedef enum { LJ_LOG_ERROR = 0, LJ_LOG_WARN = 1, LJ_LOG_INFO = 2, LJ_LOG_DEBUG = 3 } lj_log_level;

typedef void (*lj_log_sink)(void *ctx, lj_log_level level, const char *line);

/* Installs the sink (NULL: drop everything) and the most detailed level that reaches it. */
void lj_log_install(lj_log_sink sink, void *ctx, lj_log_level level);
void lj_log_set_level(lj_log_level level);
bool lj_log_enabled(lj_log_level level);
void lj_log(lj_log_level level, const char *fmt, ...) LJ_PRINTF(2, 3);
/* Logs "<what>: <message> (<hint>)". */
void lj_log_error(lj_log_level level, const char *what, const lj_error *err);
const char *lj_log_level_name(lj_log_level level);

#endif
