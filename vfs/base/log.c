/*
 * log.c - see log.h. The sink and its context are one atomic pointer to an immutable pair, so that a line
 * never sees one without the other. Old pairs stay allocated (chained), because a thread may still be inside one:
 * a program installs a handful in its life.
 */
#include "vfs/base/log.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct log_target {
    lj_log_sink sink;
    void *ctx;
    struct log_target *previous;
} log_target;

static _Atomic(log_target *) current_target;
static atomic_int current_level = LJ_LOG_INFO;

void lj_log_install(lj_log_sink sink, void *ctx, lj_log_level level)
{
    log_target *target = malloc(sizeof(*target));
    if (target == NULL)
        return;
    *target = (log_target){.sink = sink, .ctx = ctx, .previous = atomic_load(&current_target)};
    atomic_store(&current_target, target);
    atomic_store(&current_level, (int)level);
}

void lj_log_set_level(lj_log_level level)
{
    atomic_store(&current_level, (int)level);
}

bool lj_log_enabled(lj_log_level level)
{
    log_target *target = atomic_load(&current_target);
    return target != NULL && target->sink != NULL && (int)level <= atomic_load(&current_level);
}

void lj_log(lj_log_level level, const char *fmt, ...)
{
    if (!lj_log_enabled(level))
        return;
    char line[1200];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(line, sizeof(line), fmt, ap);
    va_end(ap);
    log_target *target = atomic_load(&current_target);
    target->sink(target->ctx, level, line);
}

void lj_log_error(lj_log_level level, const char *what, const lj_error *err)
{
    char text[LJ_ERROR_TEXT_MAX];
    lj_error_format(err, text, sizeof(text));
    lj_log(level, "%s: %s", what, text);
}

const char *lj_log_level_name(lj_log_level level)
{
    static const char *const names[] = {"error", "warn", "info", "debug"};
    return (unsigned)level < LJ_ARRAY_LEN(names) ? names[level] : "unknown";
}
