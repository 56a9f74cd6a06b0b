/*
 * storm.c - everything at once, for the sanitizers: threads that open, write, checkpoint, sync, snapshot, ask and close the same few
 * databases, with snapshots and retention all the time.
 *
 *     storm SECONDS FOLDER REPLICA_URL SEED
 *
 * At the end each database is lost and restored by an open, and has every row that was committed. Exit status 0, or 1 with a
 * line that says what was wrong. test_sanitizers.py runs it in the builds of the unit tests.
 */
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <litejoin_vfs.h>
#include <sqlite3.h>

#define DATABASES 3
#define THREADS   8

static struct {
    const char *folder;
    time_t end;
    unsigned seed;
    atomic_long rows[DATABASES];
    atomic_long done[8];
} storm;

static void __attribute__((format(printf, 1, 2), noreturn)) fail(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    printf(" (last error: %s)\n", litejoin_last_error());
    fflush(stdout);
    _exit(1);
}

static void path_of(int number, const char *tail, char out[512])
{
    snprintf(out, 512, "%s/data/db_%d.db%s", storm.folder, number, tail);
}

static sqlite3 *open_database(int number)
{
    char path[512];
    sqlite3 *db = NULL;
    path_of(number, "", path);
    if (sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX,
                        "litejoin") != SQLITE_OK)
        fail("open %s: %s", path, sqlite3_errmsg(db));
    sqlite3_busy_timeout(db, 60000);
    /* of two that switch a new database to WAL at once SQLite refuses one without asking the busy handler */
    int rc = SQLITE_BUSY;
    for (int i = 0; i < 1000 && rc == SQLITE_BUSY; i++) {
        if (i > 0)
            sqlite3_sleep(10);
        rc = sqlite3_exec(db,
                          "PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF; PRAGMA cache_size=20;"
                          "CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, body BLOB)",
                          NULL, NULL, NULL);
    }
    if (rc != SQLITE_OK)
        fail("prepare %s: %s", path, sqlite3_errmsg(db));
    return db;
}

static void close_database(sqlite3 *db)
{
    if (sqlite3_close(db) != SQLITE_OK)
        fail("close: %s", sqlite3_errmsg(db));
}

/* Waits for a lock are the application's own and may be over; nothing else may fail. */
static bool execute(sqlite3 *db, const char *sql)
{
    int rc = sqlite3_exec(db, sql, NULL, NULL, NULL);
    if (rc != SQLITE_OK && (rc & 0xff) != SQLITE_BUSY && (rc & 0xff) != SQLITE_LOCKED)
        fail("%s: %d %s", sql, rc, sqlite3_errmsg(db));
    return rc == SQLITE_OK;
}

static void write_some(sqlite3 *db, int number, unsigned rows)
{
    char sql[256];
    snprintf(sql, sizeof(sql),
             "BEGIN IMMEDIATE; INSERT INTO t(body) WITH RECURSIVE c(x) AS (VALUES(1) UNION ALL "
             "SELECT x + 1 FROM c WHERE x < %u) SELECT randomblob(300) FROM c; COMMIT",
             rows);
    if (execute(db, sql))
        atomic_fetch_add(&storm.rows[number], (long)rows);
    else if (!sqlite3_get_autocommit(db))
        (void)execute(db, "ROLLBACK");
}

static void act(sqlite3 *db, int number, unsigned *random)
{
    static const char *const checkpoints[] = {
        "PRAGMA wal_checkpoint(PASSIVE)", "PRAGMA wal_checkpoint(FULL)",
        "PRAGMA wal_checkpoint(RESTART)", "PRAGMA wal_checkpoint(TRUNCATE)"};
    litejoin_status status = {.size = sizeof(status)};
    int what = (int)((unsigned)rand_r(random) % 16);
    if (what < 8) {
        write_some(db, number, 1 + (unsigned)rand_r(random) % 40);
    } else if (what < 11) {
        (void)execute(db, checkpoints[(unsigned)rand_r(random) % 4]);
    } else if (what == 11) {
        (void)litejoin_sync(db, NULL, 20);
    } else if (what == 12) {
        (void)litejoin_snapshot(db, NULL, 40);
    } else if (what == 13) {
        if (litejoin_get_status(db, NULL, &status) != SQLITE_OK)
            fail("status");
    } else if (what == 14) {
        (void)execute(db, "PRAGMA litejoin_status; SELECT count(*) FROM t");
    } else {
        (void)execute(db, "BEGIN; SELECT sum(length(body)) FROM t; COMMIT");
    }
    atomic_fetch_add(&storm.done[what / 2], 1);
}

static void *work(void *ctx)
{
    int self = (int)(intptr_t)ctx;
    unsigned random = storm.seed * 100 + (unsigned)self;
    while (time(NULL) < storm.end) {
        int number = (int)((unsigned)rand_r(&random) % DATABASES);
        sqlite3 *db = open_database(number);
        /* some connections are short, so that a database is closed by its last one now and then */
        int acts = self % 3 == 0 ? 2 : 1 + (int)((unsigned)rand_r(&random) % 60);
        while (acts-- > 0 && time(NULL) < storm.end)
            act(db, number, &random);
        close_database(db);
    }
    return NULL;
}

static long count_rows(sqlite3 *db)
{
    sqlite3_stmt *statement = NULL;
    if (sqlite3_prepare_v2(db, "SELECT count(*) FROM t", -1, &statement, NULL) != SQLITE_OK ||
        sqlite3_step(statement) != SQLITE_ROW)
        fail("count: %s", sqlite3_errmsg(db));
    long count = (long)sqlite3_column_int64(statement, 0);
    sqlite3_finalize(statement);
    return count;
}

/* What is left to ship is shipped; then the disk is lost, and what an open restores is all there was. */
static void lose_and_restore(int number)
{
    char from[512];
    char to[512];
    sqlite3 *db = open_database(number);
    if (litejoin_sync(db, NULL, 120000) != SQLITE_OK)
        fail("db_%d: the last sync", number);
    close_database(db);
    path_of(number, "", from);
    path_of(number, ".lost", to);
    if (rename(from, to) != 0)
        fail("rename %s: %s", from, strerror(errno));
    db = open_database(number);
    long count = count_rows(db);
    close_database(db);
    if (count != atomic_load(&storm.rows[number]))
        fail("db_%d: %ld rows were committed, %ld restored", number,
             atomic_load(&storm.rows[number]), count);
}

int main(int argc, char **argv)
{
    char data[512];
    pthread_t threads[THREADS];
    if (argc != 5)
        return 2;
    storm.folder = argv[2];
    storm.seed = (unsigned)strtoul(argv[4], NULL, 10);
    storm.end = time(NULL) + (time_t)strtol(argv[1], NULL, 10);
    snprintf(data, sizeof(data), "%s/data", storm.folder);
    mkdir(data, 0700);
    litejoin_config config = {.size = sizeof(config),
                              .replica_url = argv[3],
                              .sync_interval = "1ms",
                              .snapshot_interval = "200ms",
                              .retention = "300ms",
                              .shutdown_timeout = "100ms",
                              .upload_workers = "6"};
    if (litejoin_vfs_register(&config) != SQLITE_OK)
        fail("register");
    for (intptr_t i = 0; i < THREADS; i++)
        if (pthread_create(&threads[i], NULL, work, (void *)i) != 0)
            fail("a thread");
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    for (int number = 0; number < DATABASES; number++)
        lose_and_restore(number);
    printf("rows %ld %ld %ld, acts", atomic_load(&storm.rows[0]), atomic_load(&storm.rows[1]),
           atomic_load(&storm.rows[2]));
    for (int i = 0; i < 8; i++)
        printf(" %ld", atomic_load(&storm.done[i]));
    printf("\n");
    return 0;
}
