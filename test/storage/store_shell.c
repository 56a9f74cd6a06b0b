/*
 * store_shell.c - one opened store, driven line by line by the scripts here:
 *
 *     store_shell URL [NAME=VALUE]...
 *
 * NAME=VALUE are settings as in litestream.yml. A command is a line of fields with tabs between; each gets one line of JSON:
 *
 *     put KEY FILE            the file's content        absent KEY FILE    the same, if there is no such object
 *     get KEY FILE [OFFSET LENGTH]    into the file     head KEY           size and time
 *     list PREFIX [AFTER]     names and sizes           delete KEY...      in this order
 *     counters                                    late    whether a put that was given up may overwrite
 *
 * {"code":"ok",...} or {"code":..., "message":..., "hint":..., "retryable":..., "retry_after_ms":..., "http_status":...}. A log
 * line goes to stderr. LJ_SHELL_TIMEOUT_MS is lj_storage_options.io_timeout_ns.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vfs/base/buf.h"
#include "vfs/base/io.h"
#include "vfs/base/log.h"
#include "vfs/base/str.h"
#include "vfs/storage/storage.h"

#define SETTINGS_MAX 16
#define FIELDS_MAX   64
#define NAME_MAX_    (8 * 1024)

static void to_stderr(void *ctx, lj_log_level level, const char *line)
{
    (void)ctx;
    fprintf(stderr, "log: %s: %s\n", lj_log_level_name(level), line);
}

static void print_text(const char *name, const char *text)
{
    char quoted[NAME_MAX_];
    lj_str_json(quoted, sizeof(quoted), text);
    printf(",\"%s\":%s", name, quoted);
}

/* ---- streams over files ---- */

static lj_code file_read(void *ctx, void *out, size_t max, size_t *ret_n, lj_error *err)
{
    return lj_io_read(*(int *)ctx, out, max, ret_n, err);
}

static lj_code file_rewind(void *ctx, lj_error *err)
{
    return lseek(*(int *)ctx, 0, SEEK_SET) == 0 ? LJ_OK : lj_error_set(err, LJ_IO, "lseek");
}

static lj_code file_write(void *ctx, const void *data, size_t len, lj_error *err)
{
    return lj_io_write(*(int *)ctx, data, len, err);
}

/* ---- commands ---- */

static lj_code put(lj_storage *storage, char **fields, size_t count, lj_error *err)
{
    LJ_CLEANUP(lj_closep) int fd = -1;
    struct stat st;
    if (count < 3)
        return lj_error_set(err, LJ_INTERNAL, "usage");
    LJ_TRY(lj_io_open(fields[2], O_RDONLY, 0, &fd, err));
    if (fstat(fd, &st) != 0)
        return lj_error_set(err, LJ_IO, "fstat");
    lj_source source = {
        .ctx = &fd, .read = file_read, .rewind = file_rewind, .size = (int64_t)st.st_size};
    lj_storage_put_options options = {.if_absent = strcmp(fields[0], "absent") == 0};
    return lj_storage_put(storage, fields[1], &source, &options, err);
}

static lj_code get(lj_storage *storage, char **fields, size_t count, lj_error *err)
{
    LJ_CLEANUP(lj_closep) int fd = -1;
    if (count < 3)
        return lj_error_set(err, LJ_INTERNAL, "usage");
    LJ_TRY(lj_io_open(fields[2], O_WRONLY | O_CREAT | O_TRUNC, 0600, &fd, err));
    lj_sink sink = {.ctx = &fd, .write = file_write};
    uint64_t offset = count > 3 ? strtoull(fields[3], NULL, 10) : 0;
    int64_t length = count > 4 ? strtoll(fields[4], NULL, 10) : -1;
    return lj_storage_get(storage, fields[1], offset, length, &sink, err);
}

static lj_code head(lj_storage *storage, const char *key, lj_buf *more, lj_error *err)
{
    lj_storage_entry entry;
    LJ_TRY(lj_storage_head(storage, key, &entry, err));
    return lj_buf_printf(more, err, ",\"size\":%" PRIu64 ",\"created_ns\":%" PRId64,
                         entry.size_bytes, entry.created_ns);
}

static lj_code add_entry(void *ctx, const lj_storage_entry *entry, lj_error *err)
{
    lj_buf *more = ctx;
    char quoted[NAME_MAX_];
    lj_str_json(quoted, sizeof(quoted), entry->key);
    return lj_buf_printf(more, err, "%s[%s,%" PRIu64 "]",
                         lj_str_ends(lj_buf_text(more), "]") ? "," : "", quoted, entry->size_bytes);
}

static lj_code list(lj_storage *storage, char **fields, size_t count, lj_buf *more, lj_error *err)
{
    LJ_TRY(lj_buf_printf(more, err, ",\"objects\":["));
    LJ_TRY(lj_storage_list(storage, count > 1 ? fields[1] : "", count > 2 ? fields[2] : NULL,
                           add_entry, more, err));
    return lj_buf_append(more, "]", 1, err);
}

static void add_deleted(void *ctx, const char *key, const lj_error *err)
{
    (void)key;
    lj_buf *more = ctx;
    if (lj_buf_printf(more, NULL, "%s\"%s\"", lj_str_ends(lj_buf_text(more), "\"") ? "," : "",
                      lj_code_text(err != NULL ? err->code : LJ_OK)) != LJ_OK)
        fprintf(stderr, "out of memory\n");
}

static void counters(lj_storage *storage, lj_buf *more)
{
    static const char *const names[] = {"put", "get", "head", "list", "delete"};
    lj_storage_counters now;
    lj_storage_counters_get(storage, &now);
    for (size_t i = 0; i < LJ_ARRAY_LEN(names); i++)
        if (lj_buf_printf(more, NULL, ",\"%s\":[%" PRIu64 ",%" PRIu64 "]", names[i], now.calls[i],
                          now.errors[i]) != LJ_OK)
            fprintf(stderr, "out of memory\n");
}

static lj_code run(lj_storage *storage, char **fields, size_t count, lj_buf *more, lj_error *err)
{
    if (strcmp(fields[0], "put") == 0 || strcmp(fields[0], "absent") == 0)
        return put(storage, fields, count, err);
    if (strcmp(fields[0], "get") == 0)
        return get(storage, fields, count, err);
    if (strcmp(fields[0], "head") == 0 && count > 1)
        return head(storage, fields[1], more, err);
    if (strcmp(fields[0], "list") == 0)
        return list(storage, fields, count, more, err);
    if (strcmp(fields[0], "delete") == 0) {
        LJ_TRY(lj_buf_printf(more, err, ",\"each\":["));
        lj_code code = lj_storage_delete_many(storage, (const char *const *)(fields + 1), count - 1,
                                              add_deleted, more, err);
        return lj_buf_append(more, "]", 1, NULL) == LJ_OK ? code : LJ_NOMEM;
    }
    if (strcmp(fields[0], "counters") == 0) {
        counters(storage, more);
        return LJ_OK;
    }
    if (strcmp(fields[0], "late") == 0)
        return lj_buf_printf(more, err, ",\"late\":%s",
                             lj_storage_overwrites_late(storage) ? "true" : "false");
    return lj_error_set(err, LJ_INTERNAL, "no such command: %s", fields[0]);
}

static void answer(lj_code code, const lj_buf *more, const lj_error *err)
{
    bool whole = code == LJ_OK || lj_str_starts(lj_buf_text(more), ",\"each\"");
    printf("{\"code\":\"%s\"%s", lj_code_text(code), whole ? lj_buf_text(more) : "");
    if (code != LJ_OK) {
        print_text("message", err->message);
        print_text("hint", err->hint);
        printf(",\"retryable\":%s,\"retry_after_ms\":%" PRId64 ",\"http_status\":%d",
               err->retryable ? "true" : "false", err->retry_after_ns / LJ_NS_PER_MS,
               err->http_status);
    }
    printf("}\n");
    fflush(stdout);
}

static void serve(lj_storage *storage)
{
    char *line = NULL;
    size_t size = 0;
    while (getline(&line, &size, stdin) > 0) {
        char *fields[FIELDS_MAX] = {NULL};
        size_t count = 0;
        char *rest = line;
        line[strcspn(line, "\n")] = 0;
        while (rest != NULL && count < FIELDS_MAX)
            fields[count++] = strsep(&rest, "\t");
        LJ_CLEANUP(lj_buf_free) lj_buf more = LJ_BUF_INIT(64u << 20);
        lj_error err = LJ_ERROR_INIT;
        lj_code code = run(storage, fields, count, &more, &err);
        answer(code, &more, &err);
    }
    free(line);
}

int main(int argc, char **argv)
{
    lj_storage_setting settings[SETTINGS_MAX];
    lj_storage_options options = {.settings = settings};
    uint64_t timeout_ms = 0;
    const char *timeout = getenv("LJ_SHELL_TIMEOUT_MS");
    if (timeout != NULL && lj_str_u64(timeout, &timeout_ms))
        options.io_timeout_ns = (int64_t)timeout_ms * LJ_NS_PER_MS;
    for (int i = 2; i < argc && options.setting_count < SETTINGS_MAX; i++) {
        char *value = strchr(argv[i], '=');
        if (value == NULL)
            break;
        *value = 0;
        settings[options.setting_count++] = (lj_storage_setting){argv[i], value + 1};
    }
    if (argc < 2 || options.setting_count + 2 != (size_t)argc) {
        fprintf(stderr, "usage: store_shell URL [NAME=VALUE]...\n");
        return 2;
    }
    lj_log_install(to_stderr, NULL, LJ_LOG_DEBUG);
    lj_error err = LJ_ERROR_INIT;
    lj_storage *storage = NULL;
    lj_buf nothing = LJ_BUF_INIT(1);
    lj_code code = lj_storage_open(argv[1], &options, &storage, &err);
    answer(code, &nothing, &err);
    if (code != LJ_OK)
        return 1;
    serve(storage);
    lj_storage_close(storage);
    return 0;
}
