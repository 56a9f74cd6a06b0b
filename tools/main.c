/*
 * main.c - litejoin-replica: finds the command and runs it. Also answers to the name "litestream".
 *
 * Layer: tools (the only place with exit codes and stderr). SIGPIPE is ignored, so that a reader that goes away
 * (`| head`) shows up as EPIPE where it is written.
 */
#include <ctype.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "tools/cli.h"
#include "vfs/base/log.h"
#include "vfs/base/str.h"
#include "vfs/config/options.h"

static const command *const commands[] = {
    &cmd_databases, &cmd_generations, &cmd_restore, &cmd_snapshots, &cmd_version, &cmd_wal,
};

static const char *program = "litejoin-replica";

const char *cli_program(void)
{
    return program;
}

static void log_line(void *ctx, lj_log_level level, const char *line)
{
    (void)ctx;
    if (level == LJ_LOG_INFO)
        fprintf(stderr, "%s\n", line);
    else
        fprintf(stderr, "%s: %s\n", level == LJ_LOG_WARN ? "warning" : lj_log_level_name(level),
                line);
}

int cli_help(const command *c)
{
    /* the only conversion in a help text is the program's name */
    const char *rest = c->help;
    for (const char *mark; (mark = strstr(rest, "%s")) != NULL; rest = mark + 2)
        printf("%.*s%s", (int)(mark - rest), rest, program);
    fputs(rest, stdout);
    return 1; /* as v0.3.13 */
}

int cli_fail(const lj_error *err, bool distinct)
{
    fprintf(stderr, "%s: %s\n", program, err->message);
    if (err->hint[0] != 0)
        fprintf(stderr, "hint: %s\n", err->hint);
    return exit_code(err->code, distinct);
}

static int overview(void)
{
    printf("%s restores and inspects replicas of SQLite databases in the Litestream v0.3 layout.\n"
           "\n"
           "Usage: %s COMMAND [flags] [arguments]\n"
           "\n",
           program, program);
    for (size_t i = 0; i < LJ_ARRAY_LEN(commands); i++)
        printf("  %-12s %s\n", commands[i]->name, commands[i]->summary);
    printf(
        "\n"
        "%s COMMAND -h shows the flags of a command. Flags, columns and the configuration file "
        "are\n"
        "those of Litestream v0.3.13. Commands return 0, or 1 when they fail; with -exit-codes a\n"
        "failure returns 10 + the number of its cause:\n"
        "\n",
        program);
    static const struct {
        lj_code code;
    } codes[] = {
#define X(name, number, text) {LJ_##name},
        LJ_CODE_MAP(X)
#undef X
    };
    for (size_t i = 1; i < LJ_ARRAY_LEN(codes); i++)
        printf("  %2d  %s\n", exit_code(codes[i].code, true), lj_code_text(codes[i].code));
    return 1; /* as v0.3.13 */
}

/*
 * Every user of the machine can read arguments: no URL with a secret, wherever it stands. Said here once, because what is
 * wrong with an argument is most often said by repeating it.
 */
static lj_code check_arguments(int argc, char **argv, lj_error *err)
{
    for (int i = 1; i < argc; i++) {
        const char *url = strstr(argv[i], "://");
        while (url != NULL && url > argv[i] && (isalnum((unsigned char)url[-1]) || url[-1] == '_'))
            url--;
        const char *hint = NULL;
        const char *reason = url != NULL ? lj_option_url_secret(url, &hint) : NULL;
        if (reason == NULL)
            continue;
        lj_error_set(err, LJ_INVALID, "the replica URL %s", reason);
        return lj_error_hint(err, "%s", hint);
    }
    return LJ_OK;
}

bool cli_wants_exit_codes(int argc, char **argv)
{
    for (int i = 0; i < argc; i++)
        if (strcmp(argv[i], "-exit-codes") == 0 || strcmp(argv[i], "--exit-codes") == 0)
            return true;
    return false;
}

int main(int argc, char **argv)
{
    signal(SIGPIPE, SIG_IGN);
    lj_log_install(log_line, NULL, LJ_LOG_INFO);
    if (argc > 0 && strcmp(lj_str_basename(argv[0]), "litestream") == 0)
        program = "litestream";
    lj_error err = LJ_ERROR_INIT;
    if (check_arguments(argc, argv, &err) != LJ_OK)
        return cli_fail(&err, cli_wants_exit_codes(argc, argv));
    if (argc < 2 || argv[1][0] == '-' || strcmp(argv[1], "help") == 0) {
        for (size_t i = 0; argc > 2 && i < LJ_ARRAY_LEN(commands); i++)
            if (strcmp(argv[1], "help") == 0 && strcmp(commands[i]->name, argv[2]) == 0)
                return cli_help(commands[i]);
        return overview();
    }
    for (size_t i = 0; i < LJ_ARRAY_LEN(commands); i++)
        if (strcmp(commands[i]->name, argv[1]) == 0)
            return commands[i]->run(argc - 2, argv + 2);
    lj_error_set(&err, LJ_INVALID, "%s: unknown command", argv[1]);
    if (strcmp(argv[1], "replicate") == 0)
        lj_error_hint(&err,
                      "this program restores and lists; litejoin_vfs.so replicates, inside the "
                      "program that writes, or Litestream's own replicate beside it");
    else
        lj_error_hint(&err, "%s help lists the commands", program);
    return cli_fail(&err, cli_wants_exit_codes(argc, argv));
}
