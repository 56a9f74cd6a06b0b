/*
 * lag.c - writes to one database or to many at a fixed pace and measures when the replica has each commit.
 *
 * One thread commits one-row transactions, the databases in turn, evenly spread over time; it does not wait for a commit that
 * was late. Right after a commit it notes the time and the database's local position (litejoin_get_status). A second thread
 * asks every database that has commits on their way for the position the replica has acknowledged, every --poll-ms. The lag
 * of a commit is the time from its COMMIT's return to the first answer with a position at or behind its own, so it is
 * at most one poll too long, and never too short. Acknowledged means: the store has answered, and the position file says so.
 *
 * Prints "ready" when every database has its first snapshot and has shipped all, "done" when the last commit is made, then
 * one JSON object. CPU is that of the process from "ready" to "done" without the polling thread; memory and sockets are those
 * at the end. Without --ext the same commits are made and nothing is polled.
 */
#include <dlfcn.h>
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "litejoin_vfs.h"

#define ROW_BYTES  440
#define PATIENCE_S 120

typedef struct {
    uint64_t at_ns;
    uint64_t offset;
    uint32_t index;
    uint32_t lag_us; /* the watcher's */
} mark;

typedef struct {
    sqlite3 *writer, *watcher;
    sqlite3_stmt *insert;
    mark *marks;
    size_t max;
    _Atomic size_t made;
    size_t seen; /* the watcher's */
    char generation[17];
} database;

static struct {
    const char *ext, *folder, *query;
    unsigned databases;
    double rate, seconds, poll_ms;
} options = {.query = "vfs=unix", .databases = 1, .rate = 1000, .seconds = 10, .poll_ms = 1};

static database *databases;
static int (*get_status)(sqlite3 *, const char *, litejoin_status *);
static atomic_bool writing, over;
static uint64_t watcher_cpu_ns; /* at "done" */
static pthread_t watcher_thread;

static void die(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    exit(1);
}

static uint64_t clock_of(clockid_t id)
{
    struct timespec ts;
    clock_gettime(id, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static uint64_t now_ns(void)
{
    return clock_of(CLOCK_MONOTONIC);
}

static void sleep_until(uint64_t at)
{
    struct timespec ts = {.tv_sec = (time_t)(at / 1000000000u),
                          .tv_nsec = (long)(at % 1000000000u)};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL) == EINTR) {
    }
}

/* ---- databases ---- */

static void run(sqlite3 *db, const char *sql)
{
    if (sqlite3_exec(db, sql, NULL, NULL, NULL) != SQLITE_OK)
        die("%s: %s", sql, sqlite3_errmsg(db));
}

static sqlite3 *open_one(const char *uri)
{
    sqlite3 *db = NULL;
    if (sqlite3_open_v2(uri, &db,
                        SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI |
                            SQLITE_OPEN_FULLMUTEX,
                        NULL) != SQLITE_OK)
        die("%s: %s", uri, sqlite3_errmsg(db));
    sqlite3_busy_timeout(db, 10000);
    run(db, "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;");
    return db;
}

static void load_extension(void)
{
    sqlite3 *db = NULL;
    char *text = NULL;
    if (options.ext == NULL)
        return;
    if (sqlite3_open(":memory:", &db) != SQLITE_OK)
        die("cannot open a database to load the extension");
    sqlite3_db_config(db, SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 1, NULL);
    if (sqlite3_load_extension(db, options.ext, NULL, &text) != SQLITE_OK)
        die("%s: %s", options.ext, text);
    sqlite3_close(db);
    void *library = dlopen(options.ext, RTLD_NOW | RTLD_NOLOAD);
    void *function = library != NULL ? dlsym(library, "litejoin_get_status") : NULL;
    if (function == NULL)
        die("%s has no litejoin_get_status", options.ext);
    memcpy(&get_status, &function, sizeof(function));
}

static void commit(database *d)
{
    static uint8_t row[ROW_BYTES];
    for (size_t i = 0; i < sizeof(row) / 2; i += 4) { /* half noise, half constant */
        uint32_t noise = (uint32_t)random();
        memcpy(row + i, &noise, 4);
    }
    sqlite3_bind_blob(d->insert, 1, row, sizeof(row), SQLITE_STATIC);
    if (sqlite3_step(d->insert) != SQLITE_DONE)
        die("commit: %s", sqlite3_errmsg(d->writer));
    sqlite3_reset(d->insert);
}

static void status_of(sqlite3 *db, litejoin_status *status)
{
    memset(status, 0, sizeof(*status));
    status->size = sizeof(*status);
    if (get_status(db, NULL, status) != SQLITE_OK)
        die("no status");
}

static bool reached(const litejoin_status *s, uint32_t index, uint64_t offset)
{
    return s->replica_index > index || (s->replica_index == index && s->replica_offset >= offset);
}

static void open_all(void)
{
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    databases = calloc(options.databases, sizeof(*databases));
    for (unsigned i = 0; i < options.databases; i++) {
        database *d = &databases[i];
        char *uri = sqlite3_mprintf("file:%s/db_%04u.db?%s", options.folder, i, options.query);
        d->writer = open_one(uri);
        d->watcher = open_one(uri);
        sqlite3_free(uri);
        run(d->writer, "CREATE TABLE IF NOT EXISTS event(id INTEGER PRIMARY KEY, body BLOB)");
        if (sqlite3_prepare_v2(d->writer, "INSERT INTO event(body) VALUES(?)", -1, &d->insert,
                               NULL) != SQLITE_OK)
            die("%s", sqlite3_errmsg(d->writer));
        d->max = (size_t)(options.rate * options.seconds) + 16;
        d->marks = calloc(d->max, sizeof(*d->marks));
        commit(d);
    }
}

static void wait_until_shipped(void)
{
    uint64_t end = now_ns() + PATIENCE_S * UINT64_C(1000000000);
    litejoin_status s = {0};
    for (unsigned i = 0; get_status != NULL && i < options.databases; i++) {
        database *d = &databases[i];
        for (;;) {
            status_of(d->watcher, &s);
            /* the position of what the first snapshot contains is not told: lag_frames is */
            if (s.generation[0] != 0 && s.lag_frames == 0 && strcmp(s.state, "replicating") == 0)
                break;
            if (now_ns() > end)
                die("database %u is not replicated: %s; %s", i, s.state, s.last_error);
            sleep_until(now_ns() + 5000000);
        }
        memcpy(d->generation, s.generation, sizeof(d->generation));
    }
}

/* ---- the watcher ---- */

/* Takes note of what has arrived; false: everything of this database has. */
static bool look_at(database *d)
{
    size_t made = atomic_load(&d->made);
    litejoin_status s;
    if (d->seen == made)
        return false;
    status_of(d->watcher, &s);
    if (strcmp(s.generation, d->generation) != 0)
        die("a new generation began: %s", s.last_error);
    uint64_t now = now_ns();
    while (d->seen < made && reached(&s, d->marks[d->seen].index, d->marks[d->seen].offset)) {
        mark *m = &d->marks[d->seen++];
        m->lag_us = now > m->at_ns ? (uint32_t)((now - m->at_ns) / 1000) : 0;
    }
    return d->seen < made;
}

static void *watch(void *ctx)
{
    (void)ctx;
    uint64_t next = now_ns();
    bool open = true;
    while (open || atomic_load(&writing)) {
        open = false;
        for (unsigned i = 0; i < options.databases; i++)
            open |= look_at(&databases[i]);
        next += (uint64_t)(options.poll_ms * 1e6);
        if (next < now_ns())
            next = now_ns();
        sleep_until(next);
    }
    atomic_store(&over, true);
    return NULL;
}

static uint64_t cpu_of_watcher(void)
{
    clockid_t id;
    return get_status != NULL && pthread_getcpuclockid(watcher_thread, &id) == 0 ? clock_of(id) : 0;
}

/* ---- the writer ---- */

static void write_all(void)
{
    uint64_t start = now_ns();
    size_t count = (size_t)(options.rate * options.seconds);
    double gap = 1e9 / (options.rate * options.databases);
    for (size_t i = 0; i < count * options.databases; i++) {
        database *d = &databases[i % options.databases];
        litejoin_status s;
        uint64_t due = start + (uint64_t)((double)i * gap);
        if (due > now_ns())
            sleep_until(due);
        commit(d);
        if (get_status == NULL)
            continue;
        size_t n = atomic_load(&d->made);
        d->marks[n].at_ns = now_ns();
        status_of(d->writer, &s);
        d->marks[n].index = s.local_index;
        d->marks[n].offset = s.local_offset;
        atomic_store(&d->made, n + 1);
    }
}

/* ---- results ---- */

static long proc_kib(const char *field)
{
    char line[256];
    long kib = 0;
    FILE *file = fopen("/proc/self/status", "r");
    while (file != NULL && fgets(line, sizeof(line), file) != NULL)
        if (strncmp(line, field, strlen(field)) == 0)
            kib = strtol(line + strlen(field) + 1, NULL, 10);
    if (file != NULL)
        fclose(file);
    return kib;
}

static unsigned open_sockets(void)
{
    unsigned count = 0;
    for (int fd = 0; fd < 20000; fd++) {
        char path[64], name[64] = "";
        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        ssize_t n = readlink(path, name, sizeof(name) - 1);
        count += n > 0 && strncmp(name, "socket:", 7) == 0;
    }
    return count;
}

static int compare(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static void print_lags(void)
{
    size_t count = 0;
    for (unsigned i = 0; i < options.databases; i++)
        count += databases[i].seen;
    uint32_t *all = malloc((count + 1) * sizeof(*all));
    count = 0;
    for (unsigned i = 0; i < options.databases; i++)
        for (size_t k = 0; k < databases[i].seen; k++)
            all[count++] = databases[i].marks[k].lag_us;
    if (count == 0)
        return;
    qsort(all, count, sizeof(*all), compare);
    printf("\"lag_p50_ms\": %.1f, \"lag_p99_ms\": %.1f, \"lag_max_ms\": %.1f, ",
           all[count / 2] / 1e3, all[count * 99 / 100] / 1e3, all[count - 1] / 1e3);
    free(all);
}

static void measure(void)
{
    atomic_store(&writing, true);
    if (get_status != NULL && pthread_create(&watcher_thread, NULL, watch, NULL) != 0)
        die("no thread");
    printf("ready\n");
    fflush(stdout);
    uint64_t start = now_ns();
    uint64_t cpu = clock_of(CLOCK_PROCESS_CPUTIME_ID);
    write_all();
    watcher_cpu_ns = cpu_of_watcher();
    cpu = clock_of(CLOCK_PROCESS_CPUTIME_ID) - cpu - watcher_cpu_ns;
    double seconds = (double)(now_ns() - start) / 1e9;
    unsigned sockets = open_sockets();
    long rss = proc_kib("VmRSS"), peak = proc_kib("VmHWM"), threads = proc_kib("Threads");
    printf("done\n");
    fflush(stdout);
    atomic_store(&writing, false);
    uint64_t end = now_ns() + PATIENCE_S * UINT64_C(1000000000);
    while (get_status != NULL && !atomic_load(&over) && now_ns() < end)
        sleep_until(now_ns() + 10000000);
    if (get_status != NULL && !atomic_load(&over))
        die("the replica did not get everything");
    if (get_status != NULL)
        pthread_join(watcher_thread, NULL);
    printf("{\"seconds\": %.2f, \"commits\": %.0f, ", seconds,
           options.rate * options.seconds * options.databases);
    print_lags();
    printf("\"cpu_s\": %.3f, \"watcher_cpu_s\": %.3f, \"rss_kib\": %ld, \"peak_kib\": %ld, "
           "\"sockets\": %u, \"threads\": %ld}\n",
           (double)cpu / 1e9, (double)watcher_cpu_ns / 1e9, rss, peak, sockets, threads);
}

static double number(const char *text)
{
    char *end = NULL;
    double value = strtod(text, &end);
    if (*text == 0 || *end != 0 || value <= 0)
        die("not a number above 0: %s", text);
    return value;
}

int main(int argc, char **argv)
{
    for (int i = 1; i + 1 < argc; i += 2) {
        const char *flag = argv[i], *value = argv[i + 1];
        if (strcmp(flag, "--ext") == 0)
            options.ext = value;
        else if (strcmp(flag, "--folder") == 0)
            options.folder = value;
        else if (strcmp(flag, "--query") == 0)
            options.query = value;
        else if (strcmp(flag, "--databases") == 0)
            options.databases = (unsigned)number(value);
        else if (strcmp(flag, "--rate") == 0)
            options.rate = number(value);
        else if (strcmp(flag, "--seconds") == 0)
            options.seconds = number(value);
        else if (strcmp(flag, "--poll-ms") == 0)
            options.poll_ms = number(value);
        else
            die("unknown flag %s", flag);
    }
    if (options.folder == NULL || argc % 2 == 0)
        die("usage: lag --folder DIR [--ext SO --query URI-PARAMETERS] [--databases N] [--rate R] "
            "[--seconds S] [--poll-ms M]");
    load_extension();
    open_all();
    wait_until_shipped();
    measure();
    for (unsigned i = 0; i < options.databases; i++) {
        sqlite3_finalize(databases[i].insert);
        sqlite3_close(databases[i].watcher);
        sqlite3_close(databases[i].writer);
        free(databases[i].marks);
    }
    free(databases);
    return 0;
}
