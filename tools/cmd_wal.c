/*
 * cmd_wal.c - `wal`: the WAL segments of a replica.
 *
 * Layer: tools.
 */
#include <inttypes.h>

#include "tools/cli.h"
#include "tools/table.h"
#include "vfs/base/clock.h"

static void add_rows(void *ctx, const target_replica *replica, const lj_generation_info *generation)
{
    for (size_t i = 0; i < generation->segment_count; i++) {
        const lj_segment_info *segment = &generation->segments[i];
        char index[16];
        char offset[24];
        char size[24];
        char created[LJ_CLOCK_TEXT_MAX];
        snprintf(index, sizeof(index), "%" PRIu32, segment->index);
        snprintf(offset, sizeof(offset), "%" PRIu64, segment->offset);
        snprintf(size, sizeof(size), "%" PRIu64, segment->size_bytes);
        lj_clock_format(segment->created_ns, created);
        const char *cells[] = {replica->name, generation->generation, index, offset, size, created};
        table_row(ctx, cells);
    }
}

static int run(int argc, char **argv)
{
    static const column columns[] = {
        {"replica", COLUMN_TEXT, false}, {"generation", COLUMN_TEXT, false},
        {"index", COLUMN_NUMBER, false}, {"offset", COLUMN_NUMBER, false},
        {"size", COLUMN_NUMBER, false},  {"created", COLUMN_TEXT, false},
    };
    list_flags flags;
    target replicas;
    int exit_status = 0;
    if (!cli_list_open(&cmd_wal, argc, argv, true, &flags, &replicas, &exit_status))
        return exit_status;
    table t;
    lj_error err = LJ_ERROR_INIT;
    table_init(&t, columns, LJ_ARRAY_LEN(columns));
    lj_code listed = cli_each_generation(&replicas, flags.generation, add_rows, &t);
    lj_code printed = table_print(&t, stdout, flags.json, &err);
    table_free(&t);
    target_close(&replicas);
    if (printed != LJ_OK)
        return cli_fail(&err, flags.distinct);
    return flags.distinct ? exit_code(listed, true) : 0;
}

const command cmd_wal = {
    .name = "wal",
    .summary = "list the WAL segments of a replica",
    .help = "Lists the WAL segments of a database's replicas, or of the replica at a URL.\n"
            "\n"
            "Usage: %s wal [flags] DB_PATH|REPLICA_URL\n"
            "\n"
            "  -config PATH      the file DB_PATH is in (default: $LITESTREAM_CONFIG, else\n"
            "                    /etc/litestream.yml)\n"
            "  -no-expand-env    leave $NAME and ${NAME} in the file as they are\n"
            "  -replica NAME     only this replica\n"
            "  -generation NAME  only this generation\n"
            "  -json             print JSON\n"
            "  -exit-codes       fail with 10 + the number of the cause instead of 1\n"
            "\n"
            "index and offset are decimal here; the flags of restore take the index in hex.\n"
            "size is compressed.\n",
    .run = run,
};
