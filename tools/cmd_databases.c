/*
 * cmd_databases.c - `databases`: what the configuration file names.
 *
 * Layer: tools.
 */
#include "tools/cli.h"
#include "tools/table.h"
#include "vfs/base/buf.h"

static lj_code add_row(table *t, const litestream_db *db, lj_error *err)
{
    lj_buf names = LJ_BUF_INIT(1024 * 1024);
    lj_code code = LJ_OK;
    for (size_t i = 0; i < db->replica_count && code == LJ_OK; i++)
        code = lj_buf_printf(&names, err, "%s%s", i > 0 ? "," : "", db->replicas[i].name);
    const char *cells[] = {db->path, lj_buf_text(&names)};
    table_row(t, cells);
    lj_buf_free(&names);
    return code;
}

static int run(int argc, char **argv)
{
    static const column columns[] = {{"path", COLUMN_TEXT, false},
                                     {"replicas", COLUMN_LIST, false}};
    list_flags flags = {.distinct = cli_wants_exit_codes(argc, argv)};
    flag_def defs[] = {
        {"config", FLAG_TEXT, &flags.target.config_path},
        {"no-expand-env", FLAG_SWITCH, &flags.target.no_expand_env},
        {"json", FLAG_SWITCH, &flags.json},
        {"exit-codes", FLAG_SWITCH, &flags.distinct},
    };
    lj_error err = LJ_ERROR_INIT;
    bool help = false;
    int used = 0;
    lj_code code = flags_read(defs, LJ_ARRAY_LEN(defs), argv, argc, &used, &help, &err);
    if (code == LJ_OK && help)
        return cli_help(&cmd_databases);
    if (code == LJ_OK && argc > used) {
        code = lj_error_set(&err, LJ_INVALID, "too many arguments");
        lj_error_hint(&err, "\"%s\" is one too many: databases takes only flags", argv[used]);
    }
    litestream_config *config = NULL;
    if (code == LJ_OK)
        code = target_load_config(&flags.target, &config, &err);
    table t;
    table_init(&t, columns, LJ_ARRAY_LEN(columns));
    for (size_t i = 0; code == LJ_OK && i < config->db_count; i++)
        code = add_row(&t, &config->dbs[i], &err);
    if (code == LJ_OK)
        code = table_print(&t, stdout, flags.json, &err);
    table_free(&t);
    litestream_config_free(config);
    return code == LJ_OK ? 0 : cli_fail(&err, flags.distinct);
}

const command cmd_databases = {
    .name = "databases",
    .summary = "list the databases of the configuration file",
    .help = "Lists the databases of the configuration file and the names of their replicas.\n"
            "\n"
            "Usage: %s databases [flags]\n"
            "\n"
            "  -config PATH     the file (default: $LITESTREAM_CONFIG, else /etc/litestream.yml)\n"
            "  -no-expand-env   leave $NAME and ${NAME} in the file as they are\n"
            "  -json            print JSON\n"
            "  -exit-codes      fail with 10 + the number of the cause instead of 1\n",
    .run = run,
};
