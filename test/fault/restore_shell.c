/*
 * restore_shell.c - many restores in one process, driven line by line by test_damage.py:
 *
 *     restore_shell
 *
 * A command is a line of fields with tabs between: URL, OUTPUT, then any of generation=GEN, snapshot=HEX, index=HEX,
 * timestamp=NS. Each gets one line of JSON: {"code":"ok","position":"GEN/INDEX:OFFSET","snapshot":N} or {"code":..., "message":...,
 * "hint":...}. It goes the way of `litejoin-replica restore`: a plan, then its run.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vfs/base/str.h"
#include "vfs/restore/restore.h"

#define FIELDS_MAX 8
#define QUOTED_MAX 4096

static void print_text(const char *name, const char *text)
{
    char quoted[QUOTED_MAX];
    lj_str_json(quoted, sizeof(quoted), text);
    printf(",\"%s\":%s", name, quoted);
}

static const char *value_of(const char *field, const char *name)
{
    size_t len = strlen(name);
    return strncmp(field, name, len) == 0 && field[len] == '=' ? field + len + 1 : NULL;
}

static void take_option(lj_restore_options *options, const char *field)
{
    const char *value = NULL;
    if ((value = value_of(field, "generation")) != NULL)
        options->generation = value;
    if ((value = value_of(field, "timestamp")) != NULL)
        options->timestamp_ns = strtoll(value, NULL, 10);
    if ((value = value_of(field, "index")) != NULL) {
        options->has_index = true;
        options->index = (uint32_t)strtoul(value, NULL, 16);
    }
    if ((value = value_of(field, "snapshot")) != NULL) {
        options->has_snapshot = true;
        options->snapshot_index = (uint32_t)strtoul(value, NULL, 16);
    }
}

static lj_code restore(char **fields, size_t count, lj_restore_result *ret_result, lj_error *err)
{
    lj_restore_options options = {.parallelism = 2};
    lj_storage *storage = NULL;
    lj_restore_plan *plan = NULL;
    if (count < 2)
        return lj_error_set(err, LJ_INTERNAL, "usage");
    for (size_t i = 2; i < count; i++)
        take_option(&options, fields[i]);
    LJ_TRY(lj_storage_open(fields[0], NULL, &storage, err));
    lj_code code = lj_restore_plan_make(storage, &options, &plan, err);
    if (code == LJ_OK)
        code = lj_restore_run(storage, plan, fields[1], &options, ret_result, err);
    lj_restore_plan_free(plan);
    lj_storage_close(storage);
    return code;
}

static void answer(lj_code code, const lj_restore_result *result, const lj_error *err)
{
    printf("{\"code\":\"%s\"", lj_code_text(code));
    if (code == LJ_OK) {
        char at[LJ_POSITION_TEXT_MAX];
        lj_position_format(&result->position, at);
        print_text("position", at);
        printf(",\"snapshot\":%" PRIu32, result->snapshot_index);
    } else {
        print_text("message", err->message);
        print_text("hint", err->hint);
    }
    printf("}\n");
    fflush(stdout);
}

int main(void)
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
        lj_error err = LJ_ERROR_INIT;
        lj_restore_result result = {.segments = 0};
        answer(restore(fields, count, &result, &err), &result, &err);
    }
    free(line);
    return 0;
}
