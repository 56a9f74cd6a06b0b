/*
 * log_sink.c - where log lines go: sqlite3_log always; a file and the host's callback when they were named.
 *
 * Layer: shim. Thread-safety: sinks are immutable once installed and never freed (a line may be on its way through one); a
 * file is opened O_APPEND and written with one write() per line.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vfs/base/clock.h"
#include "vfs/base/io.h"
#include "vfs/shim/handle.h"

typedef struct {
    int fd; /* -1 = no file */
    lj_host_log host;
    void *host_ctx;
} sink_targets;

static int sqlite_code(lj_log_level level)
{
    return level == LJ_LOG_ERROR  ? SQLITE_ERROR
           : level == LJ_LOG_WARN ? SQLITE_WARNING
                                  : SQLITE_NOTICE;
}

static void write_line(int fd, lj_log_level level, const char *line)
{
    char text[1400];
    char now[LJ_CLOCK_TEXT_MAX];
    lj_clock_format_ns(lj_clock_wall_ns(), now);
    int n = snprintf(text, sizeof(text), "%s %-5s %s\n", now, lj_log_level_name(level), line);
    if (n > 0 && write(fd, text, LJ_MIN((size_t)n, sizeof(text) - 1)) < 0)
        return; /* a full disk must not disturb the application; sqlite3_log had the line */
}

static void sink(void *ctx, lj_log_level level, const char *line)
{
    const sink_targets *targets = ctx;
    sqlite3_log(sqlite_code(level), "litejoin: %s", line);
    if (targets->fd >= 0)
        write_line(targets->fd, level, line);
    if (targets->host != NULL)
        targets->host(targets->host_ctx, (int)level, line);
}

lj_code lj_log_sink_install(const lj_config *config, lj_host_log host, void *host_ctx,
                            lj_error *err)
{
    int fd = -1;
    if (config->log_file != NULL &&
        lj_io_open(config->log_file, O_WRONLY | O_CREAT | O_APPEND, 0600, &fd, err) != LJ_OK)
        return lj_error_context(err, "log_file");
    sink_targets *targets = malloc(sizeof(*targets));
    if (targets == NULL) {
        lj_closep(&fd);
        return lj_error_nomem(err);
    }
    *targets = (sink_targets){.fd = fd, .host = host, .host_ctx = host_ctx};
    lj_log_install(sink, targets, config->log_level);
    return LJ_OK;
}
