/*
 * cmd_restore.c - `restore`: a database from a replica, in full, at a time or at a WAL index.
 *
 * Layer: tools. SIGINT and SIGTERM end the restore cleanly: no temporary file stays behind.
 */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "tools/bar.h"
#include "tools/cli.h"
#include "tools/table.h"
#include "vfs/base/clock.h"
#include "vfs/base/log.h"
#include "vfs/restore/restore.h"

typedef struct {
    target_flags target;
    const char *output;
    const char *generation;
    flag_index index;
    flag_index snapshot;
    int64_t timestamp_ns;
    int64_t parallelism;
    bool if_db_not_exists;
    bool if_replica_exists;
    bool dry_run;
    bool json;
    bool distinct;
    bool verbose;
} restore_flags;

/* The plan of one replica. */
typedef struct {
    const target_replica *replica;
    lj_restore_plan *plan; /* owned */
    lj_restore_result about;
} candidate;

static bool cancelled;

static void cancel_restore(int signal_number)
{
    (void)signal_number;
    __atomic_store_n(&cancelled, true, __ATOMIC_RELAXED);
}

static void catch_signals(void)
{
    struct sigaction action = {.sa_handler = cancel_restore, .sa_flags = SA_RESTART | SA_RESETHAND};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

static lj_code read_flags(restore_flags *flags, int argc, char **argv, const char **ret_what,
                          bool *ret_help, lj_error *err)
{
    flag_def defs[] = {
        {"o", FLAG_TEXT, &flags->output},
        {"replica", FLAG_TEXT, &flags->target.replica},
        {"generation", FLAG_TEXT, &flags->generation},
        {"index", FLAG_INDEX, &flags->index},
        {"snapshot", FLAG_INDEX, &flags->snapshot},
        {"timestamp", FLAG_TIME, &flags->timestamp_ns},
        {"parallelism", FLAG_NUMBER, &flags->parallelism},
        {"if-db-not-exists", FLAG_SWITCH, &flags->if_db_not_exists},
        {"if-replica-exists", FLAG_SWITCH, &flags->if_replica_exists},
        {"config", FLAG_TEXT, &flags->target.config_path},
        {"no-expand-env", FLAG_SWITCH, &flags->target.no_expand_env},
        {"dry-run", FLAG_SWITCH, &flags->dry_run},
        {"json", FLAG_SWITCH, &flags->json},
        {"exit-codes", FLAG_SWITCH, &flags->distinct},
        {"v", FLAG_SWITCH, &flags->verbose},
    };
    int used = 0;
    LJ_TRY(flags_read(defs, LJ_ARRAY_LEN(defs), argv, argc, &used, ret_help, err));
    if (*ret_help)
        return LJ_OK;
    if (argc == used || argv[used][0] == 0) {
        lj_error_set(err, LJ_INVALID, "database path or replica URL required");
        return lj_error_hint(err, "%s restore -h shows the usage", cli_program());
    }
    if (argc > used + 1) {
        lj_error_set(err, LJ_INVALID, "too many arguments");
        return lj_error_hint(err, "\"%s\" is one too many; flags go before the path or URL",
                             argv[used + 1]);
    }
    *ret_what = argv[used];
    return LJ_OK;
}

static lj_code open_target(const restore_flags *flags, const char *what, target *t, lj_error *err)
{
    LJ_TRY(target_open(t, what, &flags->target, err));
    if (flags->output == NULL && t->db == NULL && !flags->dry_run) {
        lj_error_set(err, LJ_INVALID, "output path required");
        return lj_error_hint(err, "say with -o PATH where the database is to be written");
    }
    return LJ_OK;
}

static lj_restore_options make_options(const restore_flags *flags, bar *b)
{
    int64_t parallelism = LJ_MIN(LJ_MAX(flags->parallelism, INT64_C(1)), INT64_C(256));
    return (lj_restore_options){
        .generation = flags->generation,
        .timestamp_ns = flags->timestamp_ns,
        .has_index = flags->index.given,
        .index = flags->index.value,
        .has_snapshot = flags->snapshot.given,
        .snapshot_index = flags->snapshot.value,
        .parallelism = (unsigned)parallelism,
        .progress = bar_show,
        .progress_ctx = b,
        .cancel = &cancelled,
    };
}

/*
 * The replica with the newest answer. Replicas that have none are left out, with a warning when that is not just for want
 * of data; if none is left, the error is that of the first which failed for another reason, else that nothing was found.
 * LJ_NOTFOUND only when every replica was seen.
 */
static lj_code choose(const target *t, const lj_restore_options *options, candidate *ret_best,
                      lj_error *err)
{
    candidate best = {0};
    lj_error worst = LJ_ERROR_INIT;
    for (size_t i = 0; i < t->count; i++) {
        candidate next = {.replica = &t->replicas[i]};
        lj_error error = LJ_ERROR_INIT;
        if (lj_restore_plan_make(next.replica->storage, options, &next.plan, &error) != LJ_OK) {
            if (error.code != LJ_NOTFOUND && t->count > 1)
                lj_log_error(LJ_LOG_WARN, next.replica->name, &error);
            if (error.code == LJ_NOTFOUND)
                (void)lj_error_context(&error, "%s", lj_storage_url(next.replica->storage));
            if (worst.code == LJ_OK || (worst.code == LJ_NOTFOUND && error.code != LJ_NOTFOUND))
                worst = error;
            continue;
        }
        lj_restore_plan_describe(next.plan, &next.about);
        if (best.plan == NULL || next.about.time_ns > best.about.time_ns) {
            lj_restore_plan_free(best.plan);
            best = next;
        } else {
            lj_restore_plan_free(next.plan);
        }
    }
    if (best.plan == NULL) {
        bool blind = worst.code == LJ_NOTFOUND && t->left_out.code != LJ_OK;
        *err = blind ? t->left_out : worst;
        if (err->code == LJ_NOTFOUND && blind) /* a file of its credentials, say */
            err->code = LJ_INVALID;
        return err->code;
    }
    *ret_best = best;
    return LJ_OK;
}

/* One object about a plan or a result: the table of a dry run, or JSON. */
static lj_code print_result(const candidate *c, const lj_restore_result *result, const char *output,
                            bool done, bool json, lj_error *err)
{
    static const column planned[] = {
        {"replica", COLUMN_TEXT, false},    {"generation", COLUMN_TEXT, false},
        {"snapshot", COLUMN_NUMBER, false}, {"index", COLUMN_NUMBER, false},
        {"segments", COLUMN_NUMBER, false}, {"size", COLUMN_NUMBER, false},
        {"time", COLUMN_TEXT, false},       {"newest", COLUMN_BOOL, true},
        {"output", COLUMN_TEXT, true},      {"db_size", COLUMN_NUMBER, true},
    };
    char snapshot[16];
    char index[16];
    char segments[24];
    char size[24];
    char db_size[24];
    char time[LJ_CLOCK_TEXT_MAX];
    snprintf(snapshot, sizeof(snapshot), "%" PRIu32, result->snapshot_index);
    snprintf(index, sizeof(index), "%" PRIu32, result->position.index);
    snprintf(segments, sizeof(segments), "%" PRIu64, result->segments);
    snprintf(size, sizeof(size), "%" PRIu64, result->fetch_bytes);
    snprintf(db_size, sizeof(db_size), "%" PRIu64, result->db_bytes);
    lj_clock_format_ns(result->time_ns, time);
    const char *cells[] = {
        c->replica->name,
        result->position.generation,
        snapshot,
        index,
        segments,
        size,
        time,
        result->at_end ? "true" : "false",
        output,
        done ? db_size : NULL,
    };
    table t;
    table_init(&t, planned, LJ_ARRAY_LEN(planned));
    table_row(&t, cells);
    lj_code code = json ? table_print_object(&t, stdout, err) : table_print(&t, stdout, false, err);
    table_free(&t);
    return code;
}

static void report_done(const char *output, const lj_restore_result *result, int64_t took_ns)
{
    char time[LJ_CLOCK_TEXT_MAX];
    char took[LJ_CLOCK_TEXT_MAX];
    char wal[64] = "no WAL";
    lj_clock_format(result->time_ns, time);
    lj_clock_format_duration(took_ns - took_ns % LJ_NS_PER_MS, took);
    if (result->has_wal)
        snprintf(wal, sizeof(wal), "WAL to %08" PRIx32 ":%" PRIu64 " (%" PRIu64 " segments)",
                 result->position.index, result->position.offset, result->segments);
    fprintf(stderr,
            "restored %s: %" PRIu64 " bytes, state of %s, generation %s, snapshot %08" PRIx32
            ", %s, in %s\n",
            output, result->db_bytes, time, result->position.generation, result->snapshot_index,
            wal, took);
}

static lj_code restore_to(const restore_flags *flags, const target *t, const char *output,
                          lj_error *err)
{
    bar progress;
    bar_init(&progress, stderr);
    lj_restore_options options = make_options(flags, &progress);
    candidate best = {.replica = NULL};
    lj_code code = choose(t, &options, &best, err);
    if (code == LJ_NOTFOUND && flags->if_replica_exists) {
        fprintf(stderr, "no matching backups found\n");
        return LJ_OK;
    }
    LJ_TRY(code);
    lj_restore_result result = best.about;
    if (flags->dry_run) {
        code = print_result(&best, &result, output, false, flags->json, err);
    } else {
        int64_t start = lj_clock_mono_ns();
        code = lj_restore_run(best.replica->storage, best.plan, output, &options, &result, err);
        bar_end(&progress);
        if (code == LJ_OK)
            report_done(output, &result, lj_clock_mono_ns() - start);
        if (code == LJ_OK && flags->json)
            code = print_result(&best, &result, output, true, true, err);
    }
    lj_restore_plan_free(best.plan);
    return code;
}

/* As v0.3.13 does, anything but "there is no such file" counts as existing. */
static bool exists(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 || (errno != ENOENT && errno != ENOTDIR);
}

static int run(int argc, char **argv)
{
    restore_flags flags = {.parallelism = 8,
                           .target.cancel = &cancelled,
                           .distinct = cli_wants_exit_codes(argc, argv)};
    lj_error err = LJ_ERROR_INIT;
    const char *what = NULL;
    bool help = false;
    lj_code code = read_flags(&flags, argc, argv, &what, &help, &err);
    if (help)
        return cli_help(&cmd_restore);
    target t = {0};
    if (code == LJ_OK)
        code = open_target(&flags, what, &t, &err);
    if (code == LJ_OK) {
        if (flags.verbose)
            lj_log_set_level(LJ_LOG_DEBUG);
        const char *output = flags.output != NULL || t.db == NULL ? flags.output : t.db->path;
        if (flags.if_db_not_exists && output != NULL && exists(output)) {
            fprintf(stderr, "database already exists, skipping\n");
        } else {
            catch_signals();
            code = restore_to(&flags, &t, output, &err);
        }
    }
    target_close(&t);
    return code == LJ_OK ? 0 : cli_fail(&err, flags.distinct);
}

const command cmd_restore = {
    .name = "restore",
    .summary = "write a database from a replica",
    .help =
        "Writes a database from its replica. Everything read is verified; the file appears under "
        "its\n"
        "name only when it is complete, and an existing file is never overwritten.\n"
        "\n"
        "Usage: %s restore [flags] DB_PATH\n"
        "       %s restore -o PATH [flags] REPLICA_URL\n"
        "\n"
        "  -o PATH              where to write (default with DB_PATH: there)\n"
        "  -timestamp TIME      the state at this time, e.g. 2026-01-02T03:04:05Z\n"
        "  -index HEX           replay up to and including this WAL index\n"
        "  -generation NAME     from this generation (default: the one with the newest data)\n"
        "  -snapshot HEX        start from the snapshot of this index, not from the best one\n"
        "  -replica NAME        from this replica of the file (default: the one with the newest "
        "data)\n"
        "  -parallelism N       objects fetched at once (default 8)\n"
        "  -if-db-not-exists    succeed without doing anything when the database exists\n"
        "  -if-replica-exists   succeed without doing anything when there is no backup\n"
        "  -config PATH         the file DB_PATH is in (default: $LITESTREAM_CONFIG, else\n"
        "                       /etc/litestream.yml)\n"
        "  -no-expand-env       leave $NAME and ${NAME} in the file as they are\n"
        "  -dry-run             only print what would be restored (index and snapshot decimal)\n"
        "  -json                print the result (or the dry run) as JSON\n"
        "  -exit-codes          fail with 10 + the number of the cause instead of 1\n"
        "  -v                   log more\n",
    .run = run,
};
