/*
 * busy.c - random schedules of eight connections without a busy timeout, and the result of each step.
 *
 *   busy EXTENSION|- FOLDER FIRST_SEED COUNT ROWS AUTOCHECKPOINT URI_OPTIONS
 *
 * "-" is stock SQLite. A schedule is a function of its seed alone: which connection does what, whatever came of the steps before.
 * One thread runs it, so that with stock SQLite the results are a function of the seed, too. Each database begins with ROWS
 * rows of 1,000 bytes. Prints a line per step: seed, step, connection, what was done, result. test_busy.py compares the lines
 * of two runs.
 */
#include <sqlite3.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CONNECTIONS 8
#define STEPS       120

typedef struct {
    sqlite3 *db;
    sqlite3_stmt *reader; /* a SELECT that was begun and not finished: it holds a read mark */
} connection;

static struct {
    const char *extension, *folder, *options;
    int rows, autocheckpoint;
    char uri[1024];
} host;
static connection connections[CONNECTIONS];
static uint64_t random_state;

static void die(const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    fputs("busy: ", stderr);
    vfprintf(stderr, fmt, args);
    fputc('\n', stderr);
    va_end(args);
    exit(1);
}

/* splitmix64 */
static uint64_t random_next(void)
{
    uint64_t z = random_state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static unsigned below(unsigned limit)
{
    return (unsigned)(random_next() % limit);
}

static int open_connection(connection *c)
{
    int rc = sqlite3_open_v2(host.uri, &c->db,
                             SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI, NULL);
    if (rc != SQLITE_OK)
        die("%s: %s", host.uri, sqlite3_errmsg(c->db));
    sqlite3_extended_result_codes(c->db, 1);
    sqlite3_busy_timeout(c->db, 0);
    sqlite3_wal_autocheckpoint(c->db, host.autocheckpoint);
    return sqlite3_exec(c->db, "PRAGMA synchronous=OFF", NULL, NULL, NULL);
}

static int close_connection(connection *c)
{
    sqlite3_finalize(c->reader);
    c->reader = NULL;
    int rc = sqlite3_close(c->db);
    c->db = NULL;
    return rc;
}

static int execute(connection *c, const char *sql)
{
    return sqlite3_exec(c->db, sql, NULL, NULL, NULL);
}

/* The first column of the only row into `ret_text`; the result code. */
static int first_column(connection *c, const char *sql, char *ret_text, size_t size)
{
    sqlite3_stmt *stmt = NULL;
    int rc = sqlite3_prepare_v2(c->db, sql, -1, &stmt, NULL);
    if (rc == SQLITE_OK)
        rc = sqlite3_step(stmt);
    if (rc == SQLITE_ROW) {
        const char *text = (const char *)sqlite3_column_text(stmt, 0);
        snprintf(ret_text, size, "=%s", text != NULL ? text : "NULL");
        rc = SQLITE_OK;
    }
    int last = sqlite3_finalize(stmt);
    return rc != SQLITE_OK ? rc : last;
}

/* Begins to read and stops at the first row, or ends what was begun. */
static int toggle_reader(connection *c)
{
    if (c->reader != NULL) {
        sqlite3_finalize(c->reader);
        c->reader = NULL;
        return SQLITE_OK;
    }
    int rc = sqlite3_prepare_v2(c->db, "SELECT id FROM t", -1, &c->reader, NULL);
    if (rc == SQLITE_OK)
        rc = sqlite3_step(c->reader);
    return rc;
}

static const struct {
    unsigned weight;
    const char *name, *sql; /* sql NULL: done in step() */
} actions[] = {
    {14, "begin immediate", "BEGIN IMMEDIATE"},
    {8, "begin", "BEGIN"},
    {3, "begin exclusive", "BEGIN EXCLUSIVE"},
    {22, "insert", "INSERT INTO t(body) VALUES(zeroblob(900))"},
    {10, "update", "UPDATE t SET body = zeroblob(1000) WHERE id % 7 = 3 AND id < 200"},
    {3, "delete", "DELETE FROM t WHERE id > 60 AND id % 11 = 5"},
    {14, "select", "SELECT sum(length(body)) FROM t WHERE id < 100"},
    {26, "commit", "COMMIT"},
    {5, "rollback", "ROLLBACK"},
    {10, "reader", NULL},
    {4, "checkpoint passive", NULL},
    {4, "checkpoint full", NULL},
    {4, "checkpoint restart", NULL},
    {5, "checkpoint truncate", NULL},
    {3, "reopen", NULL},
    {1, "journal delete", NULL},
    {1, "journal wal", NULL},
    {1, "vacuum", "VACUUM"},
    {1, "exclusive", "PRAGMA locking_mode=EXCLUSIVE"},
    {4, "normal", "PRAGMA locking_mode=NORMAL"},
};

#define ACTIONS (sizeof(actions) / sizeof(actions[0]))

static unsigned choose_action(void)
{
    unsigned total = 0;
    for (unsigned i = 0; i < ACTIONS; i++)
        total += actions[i].weight;
    unsigned at = below(total);
    for (unsigned i = 0; i < ACTIONS; i++) {
        if (at < actions[i].weight)
            return i;
        at -= actions[i].weight;
    }
    return 0;
}

static int special(connection *c, const char *name, char *ret_text, size_t size)
{
    char sql[64];
    if (strcmp(name, "reader") == 0)
        return toggle_reader(c);
    if (strcmp(name, "reopen") == 0) {
        int rc = close_connection(c);
        return rc != SQLITE_OK ? rc : open_connection(c);
    }
    if (strncmp(name, "journal ", 8) == 0)
        snprintf(sql, sizeof(sql), "PRAGMA journal_mode=%s", name + 8);
    else
        snprintf(sql, sizeof(sql), "PRAGMA wal_checkpoint(%s)", name + 11);
    return first_column(c, sql, ret_text, size);
}

static void schedule(uint64_t seed)
{
    char text[64];
    char path[512];
    snprintf(path, sizeof(path), "%s/data/s%05llu.db", host.folder, (unsigned long long)seed);
    bool plain = strcmp(host.extension, "-") == 0;
    snprintf(host.uri, sizeof(host.uri), "file:%s?vfs=%s%s%s", path, plain ? "unix" : "litejoin",
             plain ? "" : "&", plain ? "" : host.options);
    random_state = seed;
    for (int i = 0; i < CONNECTIONS; i++) {
        open_connection(&connections[i]);
        if (i == 0) {
            char *sql = sqlite3_mprintf(
                "PRAGMA journal_mode=WAL; CREATE TABLE t(id INTEGER PRIMARY KEY, body BLOB);"
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d) "
                "INSERT INTO t SELECT i, randomblob(1000) FROM n",
                host.rows);
            if (execute(&connections[0], sql) != SQLITE_OK)
                die("%s: %s", path, sqlite3_errmsg(connections[0].db));
            sqlite3_free(sql);
        }
    }
    for (int i = 0; i < STEPS; i++) {
        unsigned which = below(CONNECTIONS);
        unsigned action = choose_action();
        connection *c = &connections[which];
        text[0] = 0;
        usleep(below(4) == 0 ? 2000 : 0); /* uploads and snapshots go on meanwhile */
        int rc = actions[action].sql != NULL ? execute(c, actions[action].sql)
                                             : special(c, actions[action].name, text, sizeof(text));
        printf("%llu %d %u %s: %d%s\n", (unsigned long long)seed, i, which, actions[action].name,
               rc, text);
    }
    for (int i = 0; i < CONNECTIONS; i++)
        close_connection(&connections[i]);
    printf("%llu end\n", (unsigned long long)seed);
    unlink(path);
}

static void load_extension(void)
{
    sqlite3 *db = NULL;
    char *text = NULL;
    if (sqlite3_open(":memory:", &db) != SQLITE_OK)
        die("cannot open a database in memory");
    sqlite3_db_config(db, SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 1, NULL);
    if (sqlite3_load_extension(db, host.extension, NULL, &text) != SQLITE_OK)
        die("%s: %s", host.extension, text);
    sqlite3_close(db);
}

int main(int argc, char **argv)
{
    if (argc != 8)
        die("usage: busy EXTENSION|- FOLDER FIRST_SEED COUNT ROWS AUTOCHECKPOINT URI_OPTIONS");
    host.extension = argv[1];
    host.folder = argv[2];
    uint64_t first = strtoull(argv[3], NULL, 10);
    uint64_t count = strtoull(argv[4], NULL, 10);
    host.rows = (int)strtol(argv[5], NULL, 10);
    host.autocheckpoint = (int)strtol(argv[6], NULL, 10);
    host.options = argv[7];
    if (strcmp(host.extension, "-") != 0)
        load_extension();
    for (uint64_t seed = first; seed < first + count; seed++)
        schedule(seed);
    return 0;
}
