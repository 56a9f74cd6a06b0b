/*
 * store_fork.c - a host program that forks while it has a store open:
 *
 *     store_fork URL
 *
 * The parent puts "parent", forks a child that puts "child" and reads "parent" through the store it inherited, waits for it,
 * and puts "parent-again" over its own connection. Status 0 when all of that works.
 */
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vfs/base/buf.h"
#include "vfs/base/log.h"
#include "vfs/storage/storage.h"

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

int main(int argc, char **argv)
{
    lj_error err = LJ_ERROR_INIT;
    lj_storage *storage = NULL;
    lj_log_install(to_stdout, NULL, LJ_LOG_INFO);
    if (argc != 2 || lj_storage_open(argv[1], NULL, &storage, &err) != LJ_OK)
        return failed("open", &err);
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
    int rc = put(storage, "parent-again");
    lj_storage_close(storage);
    return rc;
}
