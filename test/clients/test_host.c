/*
 * test_host.c - a C host that links the static library and the system's SQLite.
 *
 *     test_host SCENARIO FOLDER
 *
 * test_host.py runs each scenario in a process of its own, in an empty folder or one that an earlier scenario left.
 * A scenario uses FOLDER/data/shard_0.db and FOLDER/replica. Exit status 0, or 1 with one line on stdout that says what
 * was wrong. Nothing is linked or included besides what the header promises.
 */
#include <pthread.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <litejoin_vfs.h>
#include <sqlite3.h>

#define ROWS 500

static char db_path[512];
static char replica_path[512];
static char replica_url[600];

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

#define CHECK(cond, ...)                                                                           \
    do {                                                                                           \
        if (!(cond))                                                                               \
            fail(__VA_ARGS__);                                                                     \
    } while (0)

static void register_with(const litejoin_config *config)
{
    int rc = litejoin_vfs_register(config);
    CHECK(rc == SQLITE_OK, "litejoin_vfs_register: %d", rc);
}

/* The registration most scenarios use. */
static void register_replica(const char *sync_interval)
{
    litejoin_config config = {
        .size = sizeof(config), .replica_url = replica_url, .sync_interval = sync_interval};
    register_with(&config);
}

static sqlite3 *open_db(const char *name, const char *vfs)
{
    sqlite3 *db = NULL;
    int rc = sqlite3_open_v2(name, &db,
                             SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI, vfs);
    CHECK(rc == SQLITE_OK, "open %s: %s", name, sqlite3_errmsg(db));
    sqlite3_busy_timeout(db, 20000);
    return db;
}

static void run(sqlite3 *db, const char *sql)
{
    char *message = NULL;
    int rc = sqlite3_exec(db, sql, NULL, NULL, &message);
    CHECK(rc == SQLITE_OK, "%s: %s", sql, message);
}

static sqlite3_int64 number(sqlite3 *db, const char *sql)
{
    sqlite3_stmt *stmt = NULL;
    CHECK(sqlite3_prepare_v2(db, sql, -1, &stmt, NULL) == SQLITE_OK, "%s: %s", sql,
          sqlite3_errmsg(db));
    CHECK(sqlite3_step(stmt) == SQLITE_ROW, "%s: %s", sql, sqlite3_errmsg(db));
    sqlite3_int64 value = sqlite3_column_int64(stmt, 0);
    sqlite3_finalize(stmt);
    return value;
}

static void fill(sqlite3 *db)
{
    run(db, "PRAGMA journal_mode=WAL;"
            "CREATE TABLE t(id INTEGER PRIMARY KEY, x TEXT);"
            "CREATE INDEX t_x ON t(x);");
    run(db, "BEGIN");
    for (int i = 0; i < ROWS; i++) {
        char sql[80];
        snprintf(sql, sizeof(sql), "INSERT INTO t VALUES(%d, 'row %d')", i, i * 7);
        run(db, sql);
    }
    run(db, "COMMIT");
}

static void check_rows(sqlite3 *db, sqlite3_int64 want)
{
    sqlite3_int64 n = number(db, "SELECT count(*) FROM t");
    CHECK(n == want, "%lld rows, want %lld", (long long)n, (long long)want);
    CHECK(number(db, "SELECT count(*) FROM pragma_integrity_check WHERE integrity_check = 'ok'") ==
              1,
          "integrity_check");
}

static void close_db(sqlite3 *db)
{
    CHECK(sqlite3_close(db) == SQLITE_OK, "close: %s", sqlite3_errmsg(db));
}

static litejoin_status status_of(sqlite3 *db)
{
    litejoin_status status = {.size = sizeof(status)};
    int rc = litejoin_get_status(db, NULL, &status);
    CHECK(rc == SQLITE_OK, "litejoin_get_status: %d", rc);
    return status;
}

/* --- scenarios ----------------------------------------------------------------------------------------------------- */

static void write_rows(void)
{
    register_replica("1h"); /* so that the close has something to ship */
    sqlite3 *db = open_db(db_path, "litejoin");
    fill(db);
    close_db(db);
}

static void read_rows(void)
{
    register_replica("1s");
    sqlite3 *db = open_db(db_path, "litejoin");
    check_rows(db, ROWS);
    close_db(db);
}

static void sync_and_status(void)
{
    register_replica("1h");
    sqlite3 *db = open_db(db_path, "litejoin");
    fill(db);
    /* the first snapshot may hold it all, then the replica's position is still the beginning of the WAL */
    CHECK(litejoin_sync(db, NULL, 10000) == SQLITE_OK, "first litejoin_sync");
    run(db, "INSERT INTO t VALUES(10000, 'unshipped')");
    CHECK(litejoin_sync(db, NULL, 10000) == SQLITE_OK, "litejoin_sync");
    litejoin_status s = status_of(db);
    CHECK(s.replicating == 1, "replicating is %d, state %s", s.replicating, s.state);
    CHECK(strspn(s.generation, "0123456789abcdef") == 16, "generation is '%s'", s.generation);
    CHECK(s.local_index == s.replica_index && s.local_offset == s.replica_offset,
          "local %u:%llu, replica %u:%llu", s.local_index, (unsigned long long)s.local_offset,
          s.replica_index, (unsigned long long)s.replica_offset);
    CHECK(s.local_offset > 32, "offset is %llu", (unsigned long long)s.local_offset);
    CHECK(s.lag_frames == 0 && s.lag_ms == 0, "lag is %llu frames, %lld ms",
          (unsigned long long)s.lag_frames, (long long)s.lag_ms);
    CHECK(s.segments > 0 && s.shipped_bytes > 0, "nothing counted as shipped");
    CHECK(s.last_error[0] == 0, "last_error is '%s'", s.last_error);
    CHECK(litejoin_sync(db, "main", 0) == SQLITE_OK, "litejoin_sync with nothing to do");
    /* a commit that is not shipped yet shows as lag, and its position is further */
    run(db, "INSERT INTO t VALUES(10001, 'behind')");
    litejoin_status later = status_of(db);
    CHECK(later.local_offset > s.local_offset || later.local_index > s.local_index,
          "position stands still");
    CHECK(strcmp(later.generation, s.generation) == 0, "generation changed");
    close_db(db);
}

static void snapshots(void)
{
    register_replica("100ms");
    sqlite3 *db = open_db(db_path, "litejoin");
    fill(db);
    CHECK(litejoin_sync(db, NULL, 10000) == SQLITE_OK, "litejoin_sync");
    litejoin_status before = status_of(db);
    /* also without a restart of the WAL in between: the life goes on under the next index */
    run(db, "INSERT INTO t VALUES(9999, 'x')");
    CHECK(litejoin_snapshot(db, NULL, 10000) == SQLITE_OK, "litejoin_snapshot within a WAL");
    CHECK(status_of(db).snapshots == before.snapshots + 1, "%llu snapshots, before %llu",
          (unsigned long long)status_of(db).snapshots, (unsigned long long)before.snapshots);
    CHECK(litejoin_snapshot(db, NULL, 10000) == SQLITE_OK, "litejoin_snapshot with nothing new");
    CHECK(status_of(db).snapshots == before.snapshots + 1, "a snapshot although nothing changed");
    before = status_of(db);
    run(db, "PRAGMA wal_checkpoint(TRUNCATE)");
    run(db, "INSERT INTO t VALUES(10000, 'x')");
    CHECK(litejoin_snapshot(db, NULL, 10000) == SQLITE_OK, "litejoin_snapshot");
    litejoin_status after = status_of(db);
    CHECK(after.snapshots > before.snapshots, "%llu snapshots, before %llu",
          (unsigned long long)after.snapshots, (unsigned long long)before.snapshots);
    CHECK(after.last_snapshot_ns > 0 && after.last_snapshot_ns >= before.last_snapshot_ns,
          "last_snapshot_ns");
    CHECK(strcmp(after.generation, before.generation) == 0, "generation changed");
    close_db(db);
}

static void not_ours(void)
{
    register_replica("1s");
    sqlite3 *db = open_db(":memory:", NULL);
    litejoin_status s = {.size = sizeof(s)};
    CHECK(litejoin_get_status(db, NULL, &s) == SQLITE_NOTFOUND, "status of :memory:");
    CHECK(litejoin_sync(db, NULL, 100) == SQLITE_NOTFOUND, "sync of :memory:");
    CHECK(litejoin_snapshot(db, NULL, 100) == SQLITE_NOTFOUND, "snapshot of :memory:");
    CHECK(litejoin_get_status(db, "nosuch", &s) == SQLITE_NOTFOUND,
          "status of a schema that is not there");
    char sql[700];
    snprintf(sql, sizeof(sql),
             "ATTACH 'file:%s?vfs=litejoin' AS side; PRAGMA side.journal_mode=WAL; CREATE TABLE "
             "side.t(x)",
             db_path);
    run(db, sql);
    CHECK(litejoin_sync(db, "side", 10000) == SQLITE_OK, "sync of an attached database");
    CHECK(litejoin_get_status(db, "side", &s) == SQLITE_OK && s.replicating == 1,
          "status of an attached database");
    close_db(db);
}

static void bad_config(void)
{
    static const struct {
        litejoin_config config;
        const char *words[3];
        int rc;
    } rows[] = {
        {{.sync_interval = "fast"}, {"sync_interval", "fast", "1ms to 24h"}, SQLITE_MISUSE},
        {{.retention = "-1h"}, {"retention", "-1h", "0 to 87600h"}, SQLITE_MISUSE},
        {{.mode = "both"}, {"mode", "both", "sidecar, embedded"}, SQLITE_MISUSE},
        {{.max_wal_size = "big"}, {"max_wal_size", "big", "1024GiB"}, SQLITE_MISUSE},
        {{.upload_workers = "1000"}, {"upload_workers", "1000", "1 to 64"}, SQLITE_MISUSE},
        {{.replica_url = "/backup"}, {"replica_url", "/backup", "file:///path"}, SQLITE_MISUSE},
        {{.log_level = "loud"}, {"log_level", "loud", "error, warn, info, debug"}, SQLITE_MISUSE},
        {{.base_vfs = "nosuch"}, {"base_vfs", "nosuch", ""}, SQLITE_MISUSE},
        {{.auto_wal = "perhaps"}, {"auto_wal", "perhaps", "true, false"}, SQLITE_MISUSE},
        {{.fsync_before_ship = "often"},
         {"fsync_before_ship", "often", "true, false"},
         SQLITE_MISUSE},
        {{.durability = "full"}, {"durability", "full", "local, remote, ack"}, SQLITE_MISUSE},
        {{.remote_timeout = "0"}, {"remote_timeout", "0", "1ms to 1h"}, SQLITE_MISUSE},
        {{.remote_on_failure = "retry"}, {"remote_on_failure", "retry", "degrade"}, SQLITE_MISUSE},
        {{.config_file = "/nonexistent/litejoin.yaml"},
         {"/nonexistent/litejoin.yaml", "LITEJOIN_CONFIG", ""},
         SQLITE_ERROR},
        {{.enabled = "true", .mode = "embedded"}, {"enabled", "replica_url", ""}, SQLITE_MISUSE},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        litejoin_config config = rows[i].config;
        config.size = sizeof(config);
        int rc = litejoin_vfs_register(&config);
        CHECK(rc == rows[i].rc, "bad config %zu: register gave %d", i, rc);
        for (int w = 0; w < 3; w++)
            CHECK(strstr(litejoin_last_error(), rows[i].words[w]) != NULL,
                  "bad config %zu: no '%s'", i, rows[i].words[w]);
    }
    CHECK(sqlite3_vfs_find("litejoin") == NULL, "a bad config registered the VFS");
    register_replica("1s");
    CHECK(litejoin_last_error()[0] == 0, "the last error stayed");
    sqlite3 *db = open_db(db_path, "litejoin");
    fill(db);
    close_db(db);
}

static pthread_mutex_t log_lock = PTHREAD_MUTEX_INITIALIZER; /* guards log_lines */
static int log_lines;

static void on_log(void *ctx, int level, const char *line)
{
    if (ctx != &log_lines || level < LITEJOIN_LOG_ERROR || level > LITEJOIN_LOG_DEBUG ||
        line == NULL)
        fail("bad arguments of the log callback");
    pthread_mutex_lock(&log_lock);
    log_lines++;
    pthread_mutex_unlock(&log_lock);
}

static void log_callback(void)
{
    litejoin_config config = {.size = sizeof(config),
                              .replica_url = replica_url,
                              .log_level = "debug",
                              .log = on_log,
                              .log_ctx = &log_lines};
    register_with(&config);
    sqlite3 *db = open_db(db_path, "litejoin");
    fill(db);
    CHECK(litejoin_sync(db, NULL, 10000) == SQLITE_OK, "litejoin_sync");
    close_db(db);
    pthread_mutex_lock(&log_lock);
    CHECK(log_lines > 0, "not one log line");
    pthread_mutex_unlock(&log_lock);
}

static void make_default(void)
{
    litejoin_config config = {
        .size = sizeof(config), .make_default = 1, .replica_url = replica_url};
    register_with(&config);
    CHECK(strcmp(sqlite3_vfs_find(NULL)->zName, "litejoin") == 0, "default VFS is %s",
          sqlite3_vfs_find(NULL)->zName);
    sqlite3 *db = open_db(db_path, NULL);
    fill(db);
    CHECK(litejoin_sync(db, NULL, 10000) == SQLITE_OK, "litejoin_sync");
    close_db(db);
}

static void not_the_default(void)
{
    register_replica("1s");
    CHECK(strcmp(sqlite3_vfs_find(NULL)->zName, "litejoin") != 0, "it made itself the default VFS");
    sqlite3 *db = open_db(db_path, NULL);
    fill(db);
    close_db(db);
    CHECK(access(replica_path, F_OK) != 0 || rmdir(replica_path) == 0,
          "a plain database was replicated");
}

static void registers_again(void)
{
    litejoin_config off = {.size = sizeof(off), .enabled = "false", .replica_url = replica_url};
    register_with(NULL);
    register_with(&off);
    sqlite3 *db = open_db(db_path, "litejoin");
    fill(db);
    litejoin_status s = status_of(db);
    CHECK(s.replicating == 0 && strcmp(s.state, "off") == 0, "enabled=false: state is %s", s.state);
    CHECK(litejoin_sync(db, NULL, 1000) == SQLITE_NOTFOUND,
          "litejoin_sync of a database that is not replicated");
    register_replica("100ms"); /* for databases opened from now on */
    CHECK(status_of(db).replicating == 0, "an open database changed");
    close_db(db);
    db = open_db(db_path, "litejoin");
    check_rows(db, ROWS);
    CHECK(litejoin_sync(db, NULL, 10000) == SQLITE_OK,
          "litejoin_sync after the second registration");
    CHECK(status_of(db).replicating == 1, "the second registration did not count");
    close_db(db);
}

/* The runner has LITEJOIN_REPLICA_URL name FOLDER/replica; the struct and a URI name other places. */
static void precedence(void)
{
    litejoin_config config = {.size = sizeof(config), .replica_url = "file:///nonexistent/api"};
    register_with(&config);
    sqlite3 *db = open_db(db_path, "litejoin");
    fill(db);
    CHECK(litejoin_sync(db, NULL, 10000) == SQLITE_OK,
          "litejoin_sync to where the environment says");
    close_db(db);
    char uri[1400];
    snprintf(uri, sizeof(uri), "file:%s?vfs=litejoin&replica_name=other&replica_url=%s-uri",
             db_path, replica_url);
    db = open_db(uri, NULL);
    run(db, "INSERT INTO t VALUES(10000, 'x')");
    CHECK(litejoin_sync(db, NULL, 10000) == SQLITE_OK, "litejoin_sync to where the URI says");
    close_db(db);
    char folder[1000];
    struct stat st;
    snprintf(folder, sizeof(folder), "%s/shard_0", replica_path);
    CHECK(stat(folder, &st) == 0, "no %s", folder);
    snprintf(folder, sizeof(folder), "%s-uri/other", replica_path);
    CHECK(stat(folder, &st) == 0, "no %s", folder);
}

/* A struct of an older header is shorter; a newer library reads only what is there. */
static void short_struct(void)
{
    litejoin_config config = {.size = offsetof(litejoin_config, sync_interval),
                              .replica_url = replica_url,
                              .sync_interval = "this is beyond the end"};
    register_with(&config);
    sqlite3 *db = open_db(db_path, "litejoin");
    fill(db);
    struct {
        litejoin_status status;
        char canary[16];
    } s;
    memset(&s, 0x5a, sizeof(s));
    s.status.size = offsetof(litejoin_status, generation);
    CHECK(litejoin_get_status(db, NULL, &s.status) == SQLITE_OK, "litejoin_get_status");
    CHECK(s.status.generation[0] == 0x5a && s.status.last_error[0] == 0x5a,
          "wrote beyond the given size");
    close_db(db);
}

/* The replica's place is a file: nothing can be shipped, and the application does not notice. */
static void broken_replica(void)
{
    FILE *file = fopen(replica_path, "w");
    CHECK(file != NULL && fclose(file) == 0, "cannot write %s", replica_path);
    litejoin_config config = {.size = sizeof(config),
                              .replica_url = replica_url,
                              .sync_interval = "50ms",
                              .restore_on_boot = "false",
                              .shutdown_timeout = "200ms"};
    register_with(&config);
    sqlite3 *db = open_db(db_path, "litejoin");
    fill(db);
    int rc = litejoin_sync(db, NULL, 500);
    CHECK(rc == SQLITE_BUSY || rc == SQLITE_IOERR, "litejoin_sync gave %d", rc);
    CHECK(litejoin_last_error()[0] != 0, "no last error");
    litejoin_status s = status_of(db);
    CHECK(s.last_error[0] != 0 && s.lag_frames > 0, "status: state '%s', error '%s', lag %llu",
          s.state, s.last_error, (unsigned long long)s.lag_frames);
    run(db, "INSERT INTO t VALUES(10000, 'goes on')");
    CHECK(unlink(replica_path) == 0, "cannot remove %s", replica_path);
    CHECK(litejoin_sync(db, NULL, 20000) == SQLITE_OK, "litejoin_sync after the repair");
    CHECK(status_of(db).last_error[0] == 0, "the error stayed");
    close_db(db);
}

static void *write_in_thread(void *arg)
{
    int base = *(int *)arg;
    sqlite3 *db = open_db(db_path, "litejoin");
    for (int i = 0; i < 100; i++) {
        char sql[80];
        snprintf(sql, sizeof(sql), "INSERT INTO t VALUES(%d, 'thread')", base + i);
        run(db, sql);
        if (i % 25 == 0)
            CHECK(litejoin_sync(db, NULL, 20000) == SQLITE_OK, "litejoin_sync in a thread");
        status_of(db);
    }
    close_db(db);
    return NULL;
}

static void threads(void)
{
    register_replica("50ms");
    sqlite3 *db = open_db(db_path, "litejoin");
    fill(db);
    pthread_t ids[4];
    int bases[4];
    for (int i = 0; i < 4; i++) {
        bases[i] = 10000 * (i + 1);
        CHECK(pthread_create(&ids[i], NULL, write_in_thread, &bases[i]) == 0, "pthread_create");
    }
    for (int i = 0; i < 4; i++)
        pthread_join(ids[i], NULL);
    check_rows(db, ROWS + 400);
    close_db(db);
}

static void extra_init(void)
{
    CHECK(litejoin_extra_init(NULL) == SQLITE_OK, "litejoin_extra_init");
    CHECK(sqlite3_vfs_find("litejoin") != NULL, "not registered");
    sqlite3 *db = open_db(db_path, "litejoin");
    fill(db);
    CHECK(litejoin_sync(db, NULL, 10000) == SQLITE_OK, "litejoin_sync");
    close_db(db);
}

static const struct {
    const char *name;
    void (*run)(void);
} scenarios[] = {
    {"write_rows", write_rows},
    {"read_rows", read_rows},
    {"sync_and_status", sync_and_status},
    {"snapshots", snapshots},
    {"not_ours", not_ours},
    {"bad_config", bad_config},
    {"log_callback", log_callback},
    {"make_default", make_default},
    {"not_the_default", not_the_default},
    {"registers_again", registers_again},
    {"precedence", precedence},
    {"short_struct", short_struct},
    {"broken_replica", broken_replica},
    {"threads", threads},
    {"extra_init", extra_init},
};

int main(int argc, char **argv)
{
    if (argc != 3)
        fail("usage: test_host SCENARIO FOLDER");
    snprintf(db_path, sizeof(db_path), "%s/data/shard_0.db", argv[2]);
    snprintf(replica_path, sizeof(replica_path), "%s/replica", argv[2]);
    snprintf(replica_url, sizeof(replica_url), "file://%s", replica_path);
    for (size_t i = 0; i < sizeof(scenarios) / sizeof(scenarios[0]); i++) {
        if (strcmp(scenarios[i].name, argv[1]) == 0) {
            scenarios[i].run();
            return 0;
        }
    }
    fail("no scenario %s", argv[1]);
}
