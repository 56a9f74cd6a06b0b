/*
 * log_sink.c - where log lines go: sqlite3_log always; a file and the host's callback when they were named.
 *
 * Layer: shim. Thread-safety: sinks are immutable once installed and never freed (a line may be on its way through one), so one
 * is used again where nothing changed: programs load the extension for each of their connections. A file is opened O_APPEND and
 * written with one write() per line.
 */
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
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

static _Atomic(sink_targets *) newest;

/* The file has that name; or there is none. */
static bool is_open_as(int fd, const char *path)
{
    struct stat opened;
    struct stat named;
    if (fd < 0 || path == NULL)
        return fd < 0 && path == NULL;
    return fstat(fd, &opened) == 0 && stat(path, &named) == 0 && lj_same_file(&opened, &named);
}

lj_code lj_log_sink_install(const lj_config *config, lj_host_log host, void *host_ctx,
                            lj_error *err)
{
    const sink_targets *now = atomic_load(&newest);
    if (now != NULL && now->host == host && now->host_ctx == host_ctx &&
        is_open_as(now->fd, config->log_file)) {
        lj_log_set_level(config->log_level);
        return LJ_OK;
    }
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
    atomic_store(&newest, targets);
    return LJ_OK;
}
