/*
 * test_stack.c - VFS above and below, and SQLite shut down and initialized again.
 *
 *     test_stack SCENARIO FOLDER
 *
 * As test_host.c: a C host that links the static library and the system's SQLite. FOLDER/data/shard_0.db goes to
 * FOLDER/replica. Exit status 0, or 1 with one line on stdout that says what was wrong.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <litejoin_vfs.h>
#include <sqlite3.h>

#define ROWS            200
#define FIRST_READ_LOCK 3

static char db_path[512];
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

static void register_over(const char *base_vfs, int make_default)
{
    litejoin_config config = {.size = sizeof(config),
                              .make_default = make_default,
                              .replica_url = replica_url,
                              .sync_interval = "50ms",
                              .base_vfs = base_vfs};
    int rc = litejoin_vfs_register(&config);
    CHECK(rc == SQLITE_OK, "litejoin_vfs_register over %s: %d", base_vfs, rc);
}

static sqlite3 *open_db(const char *vfs)
{
    sqlite3 *db = NULL;
    int rc = sqlite3_open_v2(db_path, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, vfs);
    CHECK(rc == SQLITE_OK, "open through %s: %s", vfs, sqlite3_errmsg(db));
    sqlite3_busy_timeout(db, 20000);
    return db;
}

static void run(sqlite3 *db, const char *sql)
{
    char *message = NULL;
    int rc = sqlite3_exec(db, sql, NULL, NULL, &message);
    CHECK(rc == SQLITE_OK, "%s: %s", sql, message);
}

static void text(sqlite3 *db, const char *sql, char *out, size_t size)
{
    sqlite3_stmt *stmt = NULL;
    CHECK(sqlite3_prepare_v2(db, sql, -1, &stmt, NULL) == SQLITE_OK, "%s: %s", sql,
          sqlite3_errmsg(db));
    CHECK(sqlite3_step(stmt) == SQLITE_ROW, "%s: %s", sql, sqlite3_errmsg(db));
    snprintf(out, size, "%s", (const char *)sqlite3_column_text(stmt, 0));
    sqlite3_finalize(stmt);
}

static void write_rows(sqlite3 *db, int from, int count)
{
    run(db, "CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, x TEXT)");
    for (int i = from; i < from + count; i++) {
        char sql[80];
        snprintf(sql, sizeof(sql), "INSERT INTO t VALUES(%d, 'row %d')", i, i);
        run(db, sql);
    }
}

static void check_rows(sqlite3 *db, int want)
{
    char got[40];
    text(db, "SELECT count(*) FROM t", got, sizeof(got));
    CHECK(strtol(got, NULL, 10) == want, "%s rows, want %d", got, want);
    text(db, "PRAGMA integrity_check", got, sizeof(got));
    CHECK(strcmp(got, "ok") == 0, "integrity_check: %s", got);
}

static void enter_wal(sqlite3 *db)
{
    char mode[20];
    text(db, "PRAGMA journal_mode=WAL", mode, sizeof(mode));
    CHECK(strcmp(mode, "wal") == 0, "journal_mode is %s", mode);
}

static void sync_all(sqlite3 *db)
{
    CHECK(litejoin_sync(db, NULL, 20000) == SQLITE_OK, "litejoin_sync");
    litejoin_status s = {.size = sizeof(s)};
    CHECK(litejoin_get_status(db, NULL, &s) == SQLITE_OK && s.replicating == 1 && s.lag_frames == 0,
          "status: %s, %llu frames behind", s.state, (unsigned long long)s.lag_frames);
}

static void close_db(sqlite3 *db)
{
    CHECK(sqlite3_close(db) == SQLITE_OK, "close: %s", sqlite3_errmsg(db));
}

/* Writes, ships, reads back through the same stack; ROWS rows in the end. */
static void use_database(const char *vfs, int exclusive)
{
    sqlite3 *db = open_db(vfs);
    if (exclusive)
        run(db, "PRAGMA locking_mode=EXCLUSIVE");
    enter_wal(db);
    write_rows(db, 0, ROWS / 2);
    sync_all(db);
    run(db, "PRAGMA wal_checkpoint(TRUNCATE)");
    write_rows(db, ROWS / 2, ROWS / 2);
    CHECK(litejoin_snapshot(db, NULL, 20000) == SQLITE_OK, "litejoin_snapshot");
    check_rows(db, ROWS);
    close_db(db);
}

/* ------------------------------------------------------------------ a shim that only passes, above or below */

typedef struct {
    sqlite3_file base;
    sqlite3_file *lower;
} pass_file;

static int opens;
static sqlite3_vfs pass_vfs;
/* As if somebody's lock had not gone in time: the next xLock to this level, the next exclusive xShmLock of so many read locks. */
static int refuse_level, refuse_reads, refused;

#define LOWER(f) (((pass_file *)(f))->lower)

static int pass_close(sqlite3_file *f)
{
    return LOWER(f)->pMethods->xClose(LOWER(f));
}
static int pass_read(sqlite3_file *f, void *out, int n, sqlite3_int64 off)
{
    return LOWER(f)->pMethods->xRead(LOWER(f), out, n, off);
}
static int pass_write(sqlite3_file *f, const void *data, int n, sqlite3_int64 off)
{
    return LOWER(f)->pMethods->xWrite(LOWER(f), data, n, off);
}
static int pass_truncate(sqlite3_file *f, sqlite3_int64 size)
{
    return LOWER(f)->pMethods->xTruncate(LOWER(f), size);
}
static int pass_sync(sqlite3_file *f, int flags)
{
    return LOWER(f)->pMethods->xSync(LOWER(f), flags);
}
static int pass_size(sqlite3_file *f, sqlite3_int64 *size)
{
    return LOWER(f)->pMethods->xFileSize(LOWER(f), size);
}
static int pass_lock(sqlite3_file *f, int level)
{
    if (refuse_level != 0 && level == refuse_level) {
        refuse_level = 0;
        refused++;
        return SQLITE_BUSY_TIMEOUT;
    }
    return LOWER(f)->pMethods->xLock(LOWER(f), level);
}
static int pass_unlock(sqlite3_file *f, int level)
{
    return LOWER(f)->pMethods->xUnlock(LOWER(f), level);
}
static int pass_reserved(sqlite3_file *f, int *out)
{
    return LOWER(f)->pMethods->xCheckReservedLock(LOWER(f), out);
}
static int pass_control(sqlite3_file *f, int op, void *arg)
{
    return LOWER(f)->pMethods->xFileControl(LOWER(f), op, arg);
}
static int pass_sector(sqlite3_file *f)
{
    return LOWER(f)->pMethods->xSectorSize(LOWER(f));
}
static int pass_characteristics(sqlite3_file *f)
{
    return LOWER(f)->pMethods->xDeviceCharacteristics(LOWER(f));
}
static int pass_shm_map(sqlite3_file *f, int region, int size, int extend, void volatile **map)
{
    return LOWER(f)->pMethods->xShmMap(LOWER(f), region, size, extend, map);
}
static int pass_shm_lock(sqlite3_file *f, int ofst, int n, int flags)
{
    if (refuse_reads != 0 && n == refuse_reads && ofst >= FIRST_READ_LOCK &&
        flags == (SQLITE_SHM_LOCK | SQLITE_SHM_EXCLUSIVE)) {
        refuse_reads = 0;
        refused++;
        return SQLITE_BUSY_TIMEOUT;
    }
    return LOWER(f)->pMethods->xShmLock(LOWER(f), ofst, n, flags);
}
static void pass_shm_barrier(sqlite3_file *f)
{
    LOWER(f)->pMethods->xShmBarrier(LOWER(f));
}
static int pass_shm_unmap(sqlite3_file *f, int flag)
{
    return LOWER(f)->pMethods->xShmUnmap(LOWER(f), flag);
}

/* Version 2: neither mmap nor anything newer. */
static const sqlite3_io_methods pass_methods = {
    2,
    pass_close,
    pass_read,
    pass_write,
    pass_truncate,
    pass_sync,
    pass_size,
    pass_lock,
    pass_unlock,
    pass_reserved,
    pass_control,
    pass_sector,
    pass_characteristics,
    pass_shm_map,
    pass_shm_lock,
    pass_shm_barrier,
    pass_shm_unmap,
    NULL,
    NULL,
};

static int pass_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *f, int flags, int *out)
{
    sqlite3_vfs *root = vfs->pAppData;
    pass_file *file = (pass_file *)f;
    file->lower = (sqlite3_file *)&file[1];
    file->base.pMethods = NULL;
    int rc = root->xOpen(root, name, file->lower, flags, out);
    if (file->lower->pMethods != NULL)
        file->base.pMethods = &pass_methods;
    if ((flags & SQLITE_OPEN_MAIN_DB) != 0)
        opens++;
    return rc;
}
static int pass_delete(sqlite3_vfs *vfs, const char *name, int sync_dir)
{
    sqlite3_vfs *root = vfs->pAppData;
    return root->xDelete(root, name, sync_dir);
}
static int pass_access(sqlite3_vfs *vfs, const char *name, int flags, int *out)
{
    sqlite3_vfs *root = vfs->pAppData;
    return root->xAccess(root, name, flags, out);
}
static int pass_full(sqlite3_vfs *vfs, const char *name, int n, char *out)
{
    sqlite3_vfs *root = vfs->pAppData;
    return root->xFullPathname(root, name, n, out);
}

/* Registers "pass" on top of the VFS `below`. */
static void register_pass(const char *below, int make_default)
{
    sqlite3_vfs *root = sqlite3_vfs_find(below);
    CHECK(root != NULL, "no VFS %s", below);
    pass_vfs = *root;
    pass_vfs.iVersion = 2;
    pass_vfs.pNext = NULL;
    pass_vfs.zName = "pass";
    pass_vfs.pAppData = root;
    pass_vfs.szOsFile = (int)sizeof(pass_file) + root->szOsFile;
    pass_vfs.xOpen = pass_open;
    pass_vfs.xDelete = pass_delete;
    pass_vfs.xAccess = pass_access;
    pass_vfs.xFullPathname = pass_full;
    CHECK(sqlite3_vfs_register(&pass_vfs, make_default) == SQLITE_OK, "sqlite3_vfs_register");
}

/* ------------------------------------------------------------------ scenarios */

static void over_unix(void)
{
    register_over("unix", 0);
    use_database("litejoin", 0);
}

static void over_unix_excl(void)
{
    register_over("unix-excl", 0);
    use_database("litejoin", 0);
}

/* Neither has shared memory: WAL mode only under exclusive locking. */
static void over_unix_dotfile(void)
{
    register_over("unix-dotfile", 0);
    use_database("litejoin", 1);
}

static void over_unix_none(void)
{
    register_over("unix-none", 0);
    sqlite3 *db = open_db("litejoin");
    char mode[20];
    text(db, "PRAGMA journal_mode=WAL", mode, sizeof(mode));
    CHECK(strcmp(mode, "delete") == 0, "WAL without shared memory: %s", mode);
    close_db(db);
    use_database("litejoin", 1);
}

static void over_a_shim(void)
{
    register_pass(NULL, 1); /* the default at the time of the registration */
    register_over(NULL, 0);
    use_database("litejoin", 0);
    CHECK(opens > 1, "the shim below saw %d opens", opens);
}

static void under_a_shim(void)
{
    register_over(NULL, 0);
    register_pass("litejoin", 1); /* a later default, on top of us: we must not end up below it */
    use_database(NULL, 0);
    CHECK(opens == 1, "the shim above saw %d opens", opens);
    char name[100];
    sqlite3 *db = open_db(NULL);
    char *vfs = NULL;
    CHECK(sqlite3_file_control(db, NULL, SQLITE_FCNTL_VFSNAME, &vfs) == SQLITE_OK, "vfsname");
    snprintf(name, sizeof(name), "%s", vfs);
    sqlite3_free(vfs);
    CHECK(strncmp(name, "litejoin/", 9) == 0, "VFS stack: %s", name);
    write_rows(db, ROWS, 10);
    run(db, "DELETE FROM t WHERE id >= 200");
    close_db(db);
}

/* The VFS list survives sqlite3_shutdown, the default does not; what is registered again is the default again. */
static void shut_down_and_back(void)
{
    register_over(NULL, 1);
    for (int turn = 0; turn < 3; turn++) {
        sqlite3 *db = open_db("litejoin");
        enter_wal(db);
        write_rows(db, turn * 50, 50);
        sync_all(db);
        close_db(db);
        CHECK(sqlite3_shutdown() == SQLITE_OK, "sqlite3_shutdown");
        CHECK(sqlite3_initialize() == SQLITE_OK, "sqlite3_initialize");
        CHECK(sqlite3_vfs_find("litejoin") != NULL, "the VFS went with the shutdown");
        if (turn == 1)
            register_over(NULL, 1);
        CHECK((strcmp(sqlite3_vfs_find(NULL)->zName, "litejoin") == 0) == (turn == 1),
              "default VFS in turn %d: %s", turn, sqlite3_vfs_find(NULL)->zName);
    }
    CHECK(litejoin_extra_init(NULL) == SQLITE_OK, "litejoin_extra_init");
    register_over(NULL, 0);
    sqlite3 *db = open_db("litejoin");
    write_rows(db, 150, 50);
    check_rows(db, ROWS);
    close_db(db);
}

/* A host that registers at every occasion; the base VFS of the first registration stays. */
static void registers_twice(void)
{
    for (int i = 0; i < 5; i++)
        register_over(NULL, i == 3);
    CHECK(strcmp(sqlite3_vfs_find(NULL)->zName, "litejoin") != 0 ||
              sqlite3_vfs_find(NULL) == sqlite3_vfs_find("litejoin"),
          "two VFS of the name");
    sqlite3 *one = open_db("litejoin");
    enter_wal(one);
    write_rows(one, 0, ROWS / 2);
    register_over("unix", 0);
    sqlite3 *two = open_db("litejoin");
    write_rows(two, ROWS / 2, ROWS / 2);
    check_rows(one, ROWS);
    close_db(one);
    sync_all(two);
    close_db(two);
}

/* As each connection of a program does that loads the extension: by the environment's configuration. */
static void register_by_environment(const char *want)
{
    CHECK(litejoin_extra_init(NULL) == SQLITE_OK, "litejoin_extra_init");
    CHECK(strcmp(sqlite3_vfs_find(NULL)->zName, want) == 0, "the default VFS is %s, not %s",
          sqlite3_vfs_find(NULL)->zName, want);
}

/* Who registers again does not move the VFS in SQLite's list, unless he says make_default. */
static void keeps_its_place(void)
{
    register_over(NULL, 1);
    register_over(NULL, 0);
    register_by_environment("litejoin");
    setenv("LITEJOIN_REPLICA_URL", replica_url, 1);
    setenv("LITEJOIN_DEFAULT_VFS", "1", 1);
    register_by_environment("litejoin");
    register_pass("litejoin", 1);
    register_by_environment("pass");
    use_database(NULL, 0);
    CHECK(opens > 0, "the shim above saw no open");
    register_over(NULL, 1);
    CHECK(strcmp(sqlite3_vfs_find(NULL)->zName, "litejoin") == 0, "make_default was asked for");
}

static void checkpoint(sqlite3 *db)
{
    char busy[20];
    text(db, "PRAGMA wal_checkpoint(TRUNCATE)", busy, sizeof(busy));
    CHECK(strcmp(busy, "0") == 0, "wal_checkpoint: busy is %s", busy);
}

/* An SQLite that waits for locks in the kernel has a code of its own for what did not come: our locks give way all the same. */
static void locks_waited_for_in_vain(void)
{
    char wal_path[600];
    register_pass(NULL, 1);
    register_over(NULL, 0);
    sqlite3 *db = open_db("litejoin");
    enter_wal(db);
    write_rows(db, 0, ROWS / 2);
    sync_all(db);
    refuse_reads = 1; /* a reader's mark in the way of the checkpoint */
    checkpoint(db);
    CHECK(refused == 1, "%d locks were refused, want 1", refused);
    write_rows(db, ROWS / 2, ROWS / 4);
    sync_all(db);
    refuse_reads = 4; /* a reader in the way of the restart */
    checkpoint(db);
    CHECK(refused == 2, "%d locks were refused, want 2", refused);
    write_rows(db, ROWS / 2 + ROWS / 4, ROWS / 4);
    check_rows(db, ROWS);
    refuse_level = SQLITE_LOCK_EXCLUSIVE; /* in the way of the last close */
    close_db(db);
    CHECK(refused == 3, "%d locks were refused, want 3", refused);
    snprintf(wal_path, sizeof(wal_path), "%s-wal", db_path);
    CHECK(access(wal_path, F_OK) != 0, "the last close has left the WAL");
}

static const struct {
    const char *name;
    void (*run)(void);
} scenarios[] = {
    {"over_unix", over_unix},
    {"over_unix_excl", over_unix_excl},
    {"over_unix_dotfile", over_unix_dotfile},
    {"over_unix_none", over_unix_none},
    {"over_a_shim", over_a_shim},
    {"under_a_shim", under_a_shim},
    {"shut_down_and_back", shut_down_and_back},
    {"registers_twice", registers_twice},
    {"keeps_its_place", keeps_its_place},
    {"locks_waited_for_in_vain", locks_waited_for_in_vain},
};

int main(int argc, char **argv)
{
    if (argc != 3)
        fail("usage: test_stack SCENARIO FOLDER");
    snprintf(db_path, sizeof(db_path), "%s/data/shard_0.db", argv[2]);
    snprintf(replica_url, sizeof(replica_url), "file://%s/replica", argv[2]);
    for (size_t i = 0; i < sizeof(scenarios) / sizeof(scenarios[0]); i++) {
        if (strcmp(scenarios[i].name, argv[1]) == 0) {
            scenarios[i].run();
            return 0;
        }
    }
    fail("no scenario %s", argv[1]);
}
