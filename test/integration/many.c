/*
 * many.c - one process with many databases: opens them in parallel, writes each, is idle, writes again, closes.
 *
 *   many EXTENSION|- FOLDER COUNT THREADS IDLE_SECONDS URI_OPTIONS [FIRST]
 *
 * "-" is stock SQLite. The databases are FOLDER/data/dNNNNN.db. Prints one JSON object with what each phase took and what the
 * process had at its end; test_many.py compares the two. With FIRST each thread opens, writes and closes one database after the
 * other instead, and there are two phases: the first so many, and the rest.
 */
#include <dirent.h>
#include <pthread.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define THREADS_MAX 64
#define SQL_MAX     256

typedef struct {
    const char *extension, *folder, *options;
    int count, threads, first;
    double idle_seconds;
} setup;

static setup host;
static sqlite3 **databases;
static double *commit_seconds;
static int next_one; /* atomic */
static int last_one; /* behind the last of a phase */

static void die(const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    fputs("many: ", stderr);
    vfprintf(stderr, fmt, args);
    fputc('\n', stderr);
    va_end(args);
    exit(1);
}

static double now(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static double cpu_seconds(void)
{
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return (double)used.ru_utime.tv_sec + (double)used.ru_stime.tv_sec +
           ((double)used.ru_utime.tv_usec + (double)used.ru_stime.tv_usec) / 1e6;
}

static long status_number(const char *field)
{
    char line[256];
    long number = 0;
    FILE *file = fopen("/proc/self/status", "r");
    if (file == NULL)
        die("no /proc");
    while (fgets(line, sizeof(line), file) != NULL)
        if (strncmp(line, field, strlen(field)) == 0 && line[strlen(field)] == ':')
            number = strtol(line + strlen(field) + 1, NULL, 10);
    fclose(file);
    return number;
}

static long open_files(void)
{
    long found = 0;
    DIR *folder = opendir("/proc/self/fd");
    if (folder == NULL)
        die("no /proc/self/fd");
    for (struct dirent *d = readdir(folder); d != NULL; d = readdir(folder))
        found += d->d_name[0] != '.' ? 1 : 0;
    closedir(folder);
    return found - 1; /* the folder's own */
}

static void execute(sqlite3 *db, int i, const char *sql)
{
    char *text = NULL;
    if (sqlite3_exec(db, sql, NULL, NULL, &text) != SQLITE_OK)
        die("database %d: %s: %s", i, sql, text);
}

/* ------------------------------------------------------------------ what is done with each database */

static void open_one(int i)
{
    char uri[1024];
    bool plain = strcmp(host.extension, "-") == 0;
    snprintf(uri, sizeof(uri), "file:%s/data/d%05d.db?vfs=%s%s%s", host.folder, i,
             plain ? "unix" : "litejoin", plain ? "" : "&", plain ? "" : host.options);
    if (sqlite3_open_v2(uri, &databases[i],
                        SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI |
                            SQLITE_OPEN_NOMUTEX,
                        NULL) != SQLITE_OK)
        die("%s: %s", uri, sqlite3_errmsg(databases[i]));
    sqlite3_busy_timeout(databases[i], 60000);
    execute(databases[i], i,
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;"
            "CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, body TEXT)");
}

static void write_one(int i)
{
    char sql[SQL_MAX];
    snprintf(sql, sizeof(sql), "INSERT INTO t(body) VALUES('row of database %d')", i);
    double start = now();
    execute(databases[i], i, sql);
    commit_seconds[i] = now() - start;
}

static void sync_one(int i)
{
    execute(databases[i], i, "PRAGMA litejoin_sync='300s'");
}

static void close_one(int i)
{
    if (sqlite3_close(databases[i]) != SQLITE_OK)
        die("database %d: close: %s", i, sqlite3_errmsg(databases[i]));
}

static void visit_one(int i)
{
    open_one(i);
    write_one(i);
    close_one(i);
}

/* ------------------------------------------------------------------ phases */

static void *worker(void *arg)
{
    void (*step)(int) = *(void (**)(int))arg;
    for (;;) {
        int i = __atomic_fetch_add(&next_one, 1, __ATOMIC_RELAXED);
        if (i >= last_one)
            return NULL;
        step(i);
    }
}

/* Does `step` with databases `from` to `until`, in all threads; prints how long it took and what the process has then. */
static void phase_of(const char *name, void (*step)(int), int from, int until)
{
    pthread_t threads[THREADS_MAX];
    double start = now();
    double cpu = cpu_seconds();
    next_one = from;
    last_one = until;
    for (int i = 0; i < host.threads; i++)
        if (pthread_create(&threads[i], NULL, worker, &step) != 0)
            die("no thread");
    for (int i = 0; i < host.threads; i++)
        pthread_join(threads[i], NULL);
    printf("\"%s\": {\"seconds\": %.4f, \"cpu\": %.4f, \"rss_kib\": %ld, \"anon_kib\": %ld, "
           "\"file_kib\": %ld, \"shmem_kib\": %ld, \"files\": %ld, \"threads\": %ld},\n",
           name, now() - start, cpu_seconds() - cpu, status_number("VmRSS"),
           status_number("RssAnon"), status_number("RssFile"), status_number("RssShmem"),
           open_files(), status_number("Threads"));
    fflush(stdout);
}

static void phase(const char *name, void (*step)(int))
{
    phase_of(name, step, 0, host.count);
}

static void idle(int i)
{
    if (i > 0)
        return;
    struct timespec ts = {.tv_sec = (time_t)host.idle_seconds,
                          .tv_nsec = (long)((host.idle_seconds - (long)host.idle_seconds) * 1e9)};
    nanosleep(&ts, NULL);
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

static void print_commits(void)
{
    qsort(commit_seconds, (size_t)host.count, sizeof(*commit_seconds), ascending);
    printf("\"p50_us\": %.1f, \"p99_us\": %.1f, \"max_us\": %.1f}\n",
           commit_seconds[host.count / 2] * 1e6, commit_seconds[(long)host.count * 99 / 100] * 1e6,
           commit_seconds[host.count - 1] * 1e6);
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

/* A database that is open needs four descriptors of SQLite's own. */
static void allow_files(void)
{
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    rlim_t want = (rlim_t)host.count * 6 + 200;
    if (limit.rlim_cur < want) {
        limit.rlim_cur = want;
        if (limit.rlim_max < want)
            limit.rlim_max = want;
        if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
            die("cannot have %lu open files", (unsigned long)want);
    }
}

static void all_at_once(bool replicated)
{
    phase("open", open_one);
    phase("write", write_one);
    if (replicated)
        phase("ship", sync_one);
    phase("idle", idle);
    phase("again", write_one);
    if (replicated)
        phase("ship_again", sync_one);
    phase("close", close_one);
}

int main(int argc, char **argv)
{
    if (argc != 7 && argc != 8)
        die("usage: many EXTENSION|- FOLDER COUNT THREADS IDLE_SECONDS URI_OPTIONS [FIRST]");
    host = (setup){.extension = argv[1],
                   .folder = argv[2],
                   .count = (int)strtol(argv[3], NULL, 10),
                   .threads = (int)strtol(argv[4], NULL, 10),
                   .idle_seconds = strtod(argv[5], NULL),
                   .options = argv[6],
                   .first = argc == 8 ? (int)strtol(argv[7], NULL, 10) : 0};
    if (host.count < 1 || host.threads < 1 || host.threads > THREADS_MAX ||
        host.first >= host.count)
        die("bad numbers");
    bool plain = strcmp(host.extension, "-") == 0;
    if (host.first == 0)
        allow_files();
    if (!plain)
        load_extension();
    databases = calloc((size_t)host.count, sizeof(sqlite3 *));
    commit_seconds = calloc((size_t)host.count, sizeof(double));
    if (databases == NULL || commit_seconds == NULL)
        die("no memory");
    printf("{");
    if (host.first > 0) {
        phase_of("first", visit_one, 0, host.first);
        phase_of("rest", visit_one, host.first, host.count);
    } else {
        all_at_once(!plain);
    }
    print_commits();
    return 0;
}
