/*
 * cmd_generations.c - `generations`: what a replica holds, by generation, and how far it is behind.
 *
 * Layer: tools.
 */
#include <inttypes.h>
#include <sys/stat.h>

#include "tools/cli.h"
#include "tools/table.h"
#include "vfs/base/clock.h"
#include "vfs/base/str.h"

typedef struct {
    table table;
    int64_t now_ns; /* what the lag counts from */
} listing;

static int64_t mtime_ns(const char *path)
{
    struct stat st;
    if (path == NULL || stat(path, &st) != 0)
        return 0;
    return (int64_t)st.st_mtim.tv_sec * LJ_NS_PER_S + st.st_mtim.tv_nsec;
}

/* With a database: the time of its last change (file or WAL); else, or when it is gone, now. */
static int64_t reference_time(const litestream_db *db)
{
    int64_t newest = 0;
    if (db != NULL) {
        LJ_CLEANUP(lj_freep) char *wal = lj_str_printf("%s-wal", db->path);
        newest = LJ_MAX(mtime_ns(db->path), mtime_ns(wal));
    }
    return newest != 0 ? newest : lj_clock_wall_ns();
}

/* Fewer digits for longer times, in Go's form, as v0.3.13 shows it. */
static void format_lag(int64_t lag_ns, char out[LJ_CLOCK_TEXT_MAX + 1])
{
    int64_t size = lag_ns < 0 ? -lag_ns : lag_ns;
    int64_t unit = 1;
    if (size > 10 * LJ_NS_PER_S)
        unit = LJ_NS_PER_S;
    else if (size > LJ_NS_PER_S)
        unit = LJ_NS_PER_S / 10;
    else if (size > LJ_NS_PER_MS)
        unit = LJ_NS_PER_MS;
    else if (size > 1000)
        unit = 1000;
    char text[LJ_CLOCK_TEXT_MAX];
    lj_clock_format_duration(size - size % unit, text);
    snprintf(out, LJ_CLOCK_TEXT_MAX + 1, "%s%s", lag_ns < 0 ? "-" : "", text);
}

static void add_row(void *ctx, const target_replica *replica, const lj_generation_info *generation)
{
    listing *l = ctx;
    char lag[LJ_CLOCK_TEXT_MAX + 1];
    char lag_ms[24];
    char start[LJ_CLOCK_TEXT_MAX];
    char end[LJ_CLOCK_TEXT_MAX];
    char snapshots[24];
    char segments[24];
    format_lag(l->now_ns - generation->updated_ns, lag);
    snprintf(lag_ms, sizeof(lag_ms), "%" PRId64,
             (l->now_ns - generation->updated_ns) / LJ_NS_PER_MS);
    lj_clock_format(generation->created_ns, start);
    lj_clock_format(generation->updated_ns, end);
    snprintf(snapshots, sizeof(snapshots), "%zu", generation->snapshot_count);
    snprintf(segments, sizeof(segments), "%zu", generation->segment_count);
    const char *cells[] = {
        replica->name, generation->generation, lag, start, end, lag_ms, snapshots, segments};
    table_row(&l->table, cells);
}

static int run(int argc, char **argv)
{
    static const column columns[] = {
        {"name", COLUMN_TEXT, false},       {"generation", COLUMN_TEXT, false},
        {"lag", COLUMN_TEXT, false},        {"start", COLUMN_TEXT, false},
        {"end", COLUMN_TEXT, false},        {"lag_ms", COLUMN_NUMBER, true},
        {"snapshots", COLUMN_NUMBER, true}, {"segments", COLUMN_NUMBER, true},
    };
    list_flags flags;
    target replicas;
    int exit_status = 0;
    if (!cli_list_open(&cmd_generations, argc, argv, false, &flags, &replicas, &exit_status))
        return exit_status;
    listing l = {.now_ns = reference_time(replicas.db)};
    lj_error err = LJ_ERROR_INIT;
    table_init(&l.table, columns, LJ_ARRAY_LEN(columns));
    lj_code listed = cli_each_generation(&replicas, NULL, add_row, &l);
    lj_code printed = table_print(&l.table, stdout, flags.json, &err);
    table_free(&l.table);
    target_close(&replicas);
    if (printed != LJ_OK)
        return cli_fail(&err, flags.distinct);
    return flags.distinct ? exit_code(listed, true) : 0;
}

const command cmd_generations = {
    .name = "generations",
    .summary = "list the generations of a replica",
    .help =
        "Lists the generations of a database's replicas, or of the replica at a URL: from when to\n"
        "when they reach, and how far the newest object is behind the database (with a URL:\n"
        "behind now).\n"
        "\n"
        "Usage: %s generations [flags] DB_PATH|REPLICA_URL\n"
        "\n"
        "  -config PATH     the file DB_PATH is in (default: $LITESTREAM_CONFIG, else\n"
        "                   /etc/litestream.yml)\n"
        "  -no-expand-env   leave $NAME and ${NAME} in the file as they are\n"
        "  -replica NAME    only this replica\n"
        "  -json            print JSON\n"
        "  -exit-codes      fail with 10 + the number of the cause instead of 1\n",
    .run = run,
};
