/*
 * cli.h - what main.c and the commands share.
 *
 * A command takes the arguments behind its name and returns the exit code. Results go to stdout, everything else to
 * stderr. Bad usage names what is wrong and where the help is.
 *
 * Layer: tools. Thread-safety: one thread; the log sink may be called by any.
 */
#ifndef LJ_TOOLS_CLI_H
#define LJ_TOOLS_CLI_H

#include <stdio.h>

#include "tools/exit_code.h"
#include "tools/flags.h"
#include "tools/target.h"
#include "vfs/replica/inventory.h"

typedef struct {
    const char *name;
    const char *summary; /* one line of the overview */
    const char *help;    /* the whole help text; %s is the program's name */
    int (*run)(int argc, char **argv);
} command;

extern const command cmd_databases;
extern const command cmd_generations;
extern const command cmd_restore;
extern const command cmd_snapshots;
extern const command cmd_version;
extern const command cmd_wal;

/* The name the program was started under: "litejoin-replica", or "litestream". */
const char *cli_program(void);
/* Prints the command's help to stdout; returns what v0.3.13 returns. */
int cli_help(const command *c);
/* Prints an error and its hint to stderr; returns the exit code for it. */
int cli_fail(const lj_error *err, bool distinct);
/* Whether -exit-codes is among the arguments: for failures that come before it is read. */
bool cli_wants_exit_codes(int argc, char **argv);

/* Flags and one positional argument that all listings share. */
typedef struct {
    target_flags target;
    const char *generation;
    bool json;
    bool distinct; /* -exit-codes */
} list_flags;

/*
 * Reads the flags of a listing and opens its target. Returns true when there is something to list; false when the
 * command is over with *ret_exit.
 */
bool cli_list_open(const command *c, int argc, char **argv, bool with_generation, list_flags *flags,
                   target *t, int *ret_exit);

/* Called for each generation of each replica, ordered by replica as configured and by name. */
typedef void (*cli_generation_fn)(void *ctx, const target_replica *replica,
                                  const lj_generation_info *generation);
/*
 * Lists every replica. One that cannot be listed is logged; as in v0.3.13 the listing goes on without it, and the exit
 * code stays 0 unless -exit-codes was given. Returns the first such error's code.
 */
lj_code cli_each_generation(const target *t, const char *generation, cli_generation_fn fn,
                            void *ctx);

#endif
