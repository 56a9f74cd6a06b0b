/*
 * sftp_probe.c - what a host program may do while it has a store open:
 *
 *     sftp_probe fork|cancel|nested URL
 *
 * fork: the parent puts "parent", forks a child that puts "child" and reads "parent" through the store it inherited, waits for
 * it, and puts "parent-again" over its own connection. cancel: a put is cancelled in its middle, and ends at once. nested: a
 * list's callback looks at each object it is shown. Status 0 when that works.
 */
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vfs/base/buf.h"
#include "vfs/base/clock.h"
#include "vfs/base/log.h"
#include "vfs/storage/storage.h"

#define CANCEL_AT ((uint64_t)3 * 1024 * 1024)

static bool cancelled;
static int64_t cancelled_ns;

static void to_stdout(void *ctx, lj_log_level level, const char *line)
{
    (void)ctx;
    printf("log: %s: %s\n", lj_log_level_name(level), line);
}

static int failed(const char *what, const lj_error *err)
{
    printf("%s: %s (%s)\n", what, err->message, err->hint);
    fflush(stdout);
    return 1;
}

static int put(lj_storage *storage, const char *key)
{
    lj_error err = LJ_ERROR_INIT;
    lj_memory_source memory;
    lj_source source = lj_source_memory(&memory, key, strlen(key));
    return lj_storage_put(storage, key, &source, NULL, &err) == LJ_OK ? 0 : failed(key, &err);
}

/* ---- fork ---- */

static int in_child(lj_storage *storage)
{
    lj_error err = LJ_ERROR_INIT;
    LJ_CLEANUP(lj_buf_free) lj_buf got = LJ_BUF_INIT(100);
    lj_sink sink = lj_sink_buf(&got);
    if (put(storage, "child") != 0)
        return 1;
    if (lj_storage_get(storage, "parent", 0, -1, &sink, &err) != LJ_OK)
        return failed("get", &err);
    if (strcmp(lj_buf_text(&got), "parent") != 0)
        return 1;
    lj_storage_close(storage);
    return 0;
}

static int do_fork(lj_storage *storage)
{
    if (put(storage, "parent") != 0)
        return 1;
    pid_t child = fork();
    if (child == 0)
        _exit(in_child(storage));
    int status = -1;
    if (child < 0 || waitpid(child, &status, 0) != child || status != 0) {
        printf("the child ended with status %d\n", status);
        return 1;
    }
    return put(storage, "parent-again");
}

/* ---- cancel ---- */

/* An endless source, which cancels the call that reads it. */
static lj_code read_and_cancel(void *ctx, void *out, size_t max, size_t *ret_n, lj_error *err)
{
    (void)err;
    uint64_t *bytes = ctx;
    memset(out, 'x', max);
    *bytes += max;
    *ret_n = max;
    if (*bytes >= CANCEL_AT && !__atomic_exchange_n(&cancelled, true, __ATOMIC_ACQ_REL))
        cancelled_ns = lj_clock_mono_ns();
    return LJ_OK;
}

static lj_code no_rewind(void *ctx, lj_error *err)
{
    (void)ctx;
    return lj_error_set(err, LJ_INTERNAL, "not needed");
}

static int do_cancel(lj_storage *storage)
{
    lj_error err = LJ_ERROR_INIT;
    uint64_t bytes = 0;
    lj_source source = {.ctx = &bytes, .read = read_and_cancel, .rewind = no_rewind, .size = -1};
    if (put(storage, "before") != 0)
        return 1;
    lj_code code = lj_storage_put(storage, "w/endless", &source, NULL, &err);
    double took = (double)(lj_clock_mono_ns() - cancelled_ns) / (double)LJ_NS_PER_S;
    printf("%s after %.3f s: %s\n", lj_code_text(code), took, err.message);
    return code == LJ_CANCELLED && took < 2 ? 0 : 1;
}

/* ---- nested ---- */

static lj_code look_at(void *ctx, const lj_storage_entry *entry, lj_error *err)
{
    lj_storage_entry same;
    LJ_TRY(lj_storage_head(ctx, entry->key, &same, err));
    return same.size_bytes == entry->size_bytes ? LJ_OK : lj_error_set(err, LJ_IO, "another size");
}

static int do_nested(lj_storage *storage)
{
    lj_error err = LJ_ERROR_INIT;
    static const char *const keys[] = {"a", "b/bb", "b/c/ccc"};
    for (size_t i = 0; i < LJ_ARRAY_LEN(keys); i++)
        if (put(storage, keys[i]) != 0)
            return 1;
    if (lj_storage_list(storage, "", NULL, look_at, storage, &err) != LJ_OK)
        return failed("list", &err);
    return 0;
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        int (*run)(lj_storage *storage);
    } probes[] = {{"fork", do_fork}, {"cancel", do_cancel}, {"nested", do_nested}};
    lj_error err = LJ_ERROR_INIT;
    lj_storage *storage = NULL;
    const lj_storage_options options = {.cancel = &cancelled};
    lj_log_install(to_stdout, NULL, LJ_LOG_INFO);
    if (argc != 3 || lj_storage_open(argv[2], &options, &storage, &err) != LJ_OK)
        return failed("open", &err);
    int rc = 2;
    for (size_t i = 0; i < LJ_ARRAY_LEN(probes); i++)
        if (strcmp(argv[1], probes[i].name) == 0)
            rc = probes[i].run(storage);
    lj_storage_close(storage);
    return rc;
}
