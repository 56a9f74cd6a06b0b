/*
 * list.c - what the listings share (cli.h): their flags, and the walk over replicas and generations.
 *
 * Layer: tools. Thread-safety: one thread.
 */
#include <stdlib.h>
#include <string.h>

#include "tools/cli.h"
#include "vfs/base/log.h"

bool cli_list_open(const command *c, int argc, char **argv, bool with_generation, list_flags *flags,
                   target *t, int *ret_exit)
{
    *flags = (list_flags){.distinct = cli_wants_exit_codes(argc, argv)};
    flag_def defs[] = {
        {"config", FLAG_TEXT, &flags->target.config_path},
        {"no-expand-env", FLAG_SWITCH, &flags->target.no_expand_env},
        {"replica", FLAG_TEXT, &flags->target.replica},
        {"json", FLAG_SWITCH, &flags->json},
        {"exit-codes", FLAG_SWITCH, &flags->distinct},
        {"generation", FLAG_TEXT, &flags->generation}, /* last: not every listing has it */
    };
    lj_error err = LJ_ERROR_INIT;
    int used = 0;
    bool help = false;
    *t = (target){0};
    lj_code code = flags_read(defs, LJ_ARRAY_LEN(defs) - (with_generation ? 0 : 1), argv, argc,
                              &used, &help, &err);
    if (code == LJ_OK && help) {
        *ret_exit = cli_help(c);
        return false;
    }
    if (code == LJ_OK && (argc == used || argv[used][0] == 0)) {
        code = lj_error_set(&err, LJ_INVALID, "database path or replica URL required");
        lj_error_hint(&err, "%s %s -h shows the usage", cli_program(), c->name);
    } else if (code == LJ_OK && argc > used + 1) {
        code = lj_error_set(&err, LJ_INVALID, "too many arguments");
        lj_error_hint(&err, "\"%s\" is one too many; flags go before the path or URL",
                      argv[used + 1]);
    }
    if (code == LJ_OK)
        code = target_open(t, argv[used], &flags->target, &err);
    if (code == LJ_OK)
        return true;
    target_close(t);
    *ret_exit = cli_fail(&err, flags->distinct);
    return false;
}

static int by_name(const void *a, const void *b)
{
    const lj_generation_info *ga = a;
    const lj_generation_info *gb = b;
    return strcmp(ga->generation, gb->generation);
}

static lj_code each_in_replica(const target_replica *replica, const char *generation,
                               cli_generation_fn fn, void *ctx, lj_error *err)
{
    lj_inventory *inventory = NULL;
    LJ_TRY(lj_inventory_read(replica->storage, generation, &inventory, err));
    lj_generation_info *sorted = calloc(inventory->generation_count + 1, sizeof(*sorted));
    if (sorted == NULL) {
        lj_inventory_free(inventory);
        return lj_error_nomem(err);
    }
    for (size_t i = 0; i < inventory->generation_count; i++)
        sorted[i] = inventory->generations[i];
    qsort(sorted, inventory->generation_count, sizeof(*sorted), by_name);
    for (size_t i = 0; i < inventory->generation_count; i++)
        fn(ctx, replica, &sorted[i]);
    free(sorted);
    lj_inventory_free(inventory);
    return LJ_OK;
}

lj_code cli_each_generation(const target *t, const char *generation, cli_generation_fn fn,
                            void *ctx)
{
    lj_code first = t->left_out.code;
    for (size_t i = 0; i < t->count; i++) {
        lj_error err = LJ_ERROR_INIT;
        lj_code code = each_in_replica(&t->replicas[i], generation, fn, ctx, &err);
        if (code == LJ_OK)
            continue;
        lj_log_error(LJ_LOG_ERROR, t->replicas[i].name, &err);
        first = first == LJ_OK ? code : first;
    }
    return first;
}
