/*
 * cmd_version.c - `version`.
 *
 * Layer: tools.
 */
#include "tools/cli.h"

static int run(int argc, char **argv)
{
    lj_error err = LJ_ERROR_INIT;
    bool json = false;
    bool help = false;
    int used = 0;
    flag_def defs[] = {{"json", FLAG_SWITCH, &json}};
    if (flags_read(defs, LJ_ARRAY_LEN(defs), argv, argc, &used, &help, &err) != LJ_OK)
        return cli_fail(&err, false);
    if (help)
        return cli_help(&cmd_version);
    if (json)
        printf("{\"version\":\"%s\"}\n", LITEJOIN_VERSION);
    else
        printf("litejoin-replica %s\n", LITEJOIN_VERSION);
    return 0;
}

const command cmd_version = {
    .name = "version",
    .summary = "print the version",
    .help = "Prints the version.\n"
            "\n"
            "Usage: %s version [-json]\n",
    .run = run,
};
