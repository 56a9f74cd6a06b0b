/*
 * host.c - a C program whose database survives its disk.
 *
 *     cc host.c -o host $(pkg-config --cflags --libs litejoin)
 *     ./host data/shard_0.db file:///backup/state      # run it, delete data/, run it again
 *
 * The database is replicated to file:///backup/state/shard_0/ as it is written, and restored from there when it
 * is gone. Any other store will do, s3://BUCKET/state for one. Everything else is SQLite as usual.
 */
#include <stdio.h>

#include <litejoin_vfs.h>
#include <sqlite3.h>

static void on_log(void *ctx, int level, const char *line)
{
    (void)ctx;
    fprintf(stderr, "litejoin %d: %s\n", level, line);
}

static int fail(sqlite3 *db, const char *what)
{
    fprintf(stderr, "%s: %s; %s\n", what, db != NULL ? sqlite3_errmsg(db) : "",
            litejoin_last_error());
    sqlite3_close(db);
    return 1;
}

static int print_count(void *ctx, int columns, char **values, char **names)
{
    (void)ctx;
    (void)columns;
    (void)names;
    printf("visits: %s\n", values[0]);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: host DATABASE REPLICA_URL\n");
        return 2;
    }
    /* once per process, before the first open */
    litejoin_config config = {
        .size = sizeof(config),
        .replica_url = argv[2],
        .sync_interval = "500ms",
        .log_level = "warn",
        .log = on_log,
    };
    if (litejoin_vfs_register(&config) != SQLITE_OK)
        return fail(NULL, "cannot register the VFS");

    sqlite3 *db = NULL;
    if (sqlite3_open_v2(argv[1], &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, "litejoin") !=
        SQLITE_OK)
        return fail(db, "cannot open the database");
    if (sqlite3_exec(db,
                     "PRAGMA journal_mode=WAL;"
                     "CREATE TABLE IF NOT EXISTS visit(at TEXT);"
                     "INSERT INTO visit VALUES(datetime('now'));",
                     NULL, NULL, NULL) != SQLITE_OK ||
        sqlite3_exec(db, "SELECT count(*) FROM visit", print_count, NULL, NULL) != SQLITE_OK)
        return fail(db, "cannot write");

    /* Not needed for normal work: ships at once and waits, at most 5 s here. */
    if (litejoin_sync(db, NULL, 5000) != SQLITE_OK)
        return fail(db, "the replica is not up to date");

    litejoin_status status = {.size = sizeof(status)};
    if (litejoin_get_status(db, NULL, &status) == SQLITE_OK)
        printf("%s, generation %s, %llu frames behind\n", status.state, status.generation,
               (unsigned long long)status.lag_frames);

    /* closing the last connection ships what is left, at most for the option shutdown_timeout */
    return sqlite3_close(db) == SQLITE_OK ? 0 : 1;
}
