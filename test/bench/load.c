/*
 * load.c - load generator of the benchmark: commits through stock SQLite and measures each one.
 *
 * Modes:
 *   insert  one-row transactions (about --row-bytes each, one index), flat out or at --rate per second, for --seconds;
 *           prints commit latencies, throughput, memory and CPU of this process as one JSON object
 *   fill    inserts in large transactions until the database has --mb MB, then checkpoints
 *   update  random updates in transactions of 200 rows until --mb MB have been written to the WAL
 *
 * With --snapshots another connection asks for one snapshot after the other while `insert` runs.
 *
 * A second thread sleeps all the while. A process with one thread alone saves locks in libc and in the kernel, 7% of a commit, and
 * programs that keep state in SQLite shards are not such: without it a VFS with a thread of its own would be measured by that.
 *
 * The database is opened by --uri, after loading --ext if given, so that the same program runs on SQLite's own VFS and
 * through the shim. Latencies go into a histogram of fixed size (0.1% wide buckets), so that measuring costs no memory.
 */
#include <inttypes.h>
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

#define SUB_BITS  10u /* 1024 buckets per power of two */
#define SUB_COUNT (1u << SUB_BITS)
#define POWERS    30u
#define ROW_MAX   65536

typedef struct {
    const char *mode, *uri, *ext, *synchronous;
    double seconds, rate, mb;
    int row_bytes;
    int autocheckpoint;
    bool sync_at_end; /* PRAGMA litejoin_sync before the close */
    bool snapshots;   /* all the while */
} options;

typedef struct {
    uint64_t buckets[POWERS * SUB_COUNT];
    uint64_t count, max_ns;
} histogram;

static histogram commits;

static void die(const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    fputs("load: ", stderr);
    vfprintf(stderr, fmt, args);
    fputc('\n', stderr);
    va_end(args);
    exit(1);
}

static uint64_t now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* Values below 1024 ns have a bucket each; above, 1024 buckets per power of two. */
static size_t bucket_of(uint64_t ns)
{
    if (ns < SUB_COUNT)
        return (size_t)ns;
    unsigned power = 63u - (unsigned)__builtin_clzll(ns) - SUB_BITS;
    size_t at = (size_t)(power + 1) * SUB_COUNT + (size_t)((ns >> power) - SUB_COUNT);
    size_t last = sizeof(commits.buckets) / sizeof(commits.buckets[0]) - 1;
    return at < last ? at : last;
}

static uint64_t bucket_value(size_t at)
{
    if (at < SUB_COUNT)
        return at;
    unsigned power = (unsigned)(at / SUB_COUNT) - 1;
    return ((uint64_t)(at % SUB_COUNT) + SUB_COUNT) << power;
}

static void histogram_add(histogram *h, uint64_t ns)
{
    h->buckets[bucket_of(ns)]++;
    h->count++;
    if (ns > h->max_ns)
        h->max_ns = ns;
}

static uint64_t histogram_quantile(const histogram *h, double q)
{
    uint64_t want = (uint64_t)(q * (double)h->count);
    uint64_t seen = 0;
    for (size_t i = 0; i < sizeof(h->buckets) / sizeof(h->buckets[0]); i++) {
        seen += h->buckets[i];
        if (seen > want)
            return bucket_value(i);
    }
    return h->max_ns;
}

/* xorshift64*: the same rows in every run. */
static uint64_t random_state = 0x9E3779B97F4A7C15u;

static uint64_t random_next(void)
{
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return random_state * 0x2545F4914F6CDD1Du;
}

/* A row that compresses like real ones: about half of it digits and words, the other half noise. */
static void make_row(char *out, int bytes)
{
    static const char *const words[] = {"customer", "order",  "status", "shipped",
                                        "pending",  "amount", "total"};
    int at = 0;
    while (at < bytes / 2) {
        int n = snprintf(out + at, (size_t)(bytes - at), "%s=%" PRIu64 ";",
                         words[random_next() % 7], random_next() % 1000000);
        at += n < bytes - at ? n : bytes - at;
    }
    while (at < bytes) {
        uint64_t noise = random_next();
        int n = bytes - at < 8 ? bytes - at : 8;
        memcpy(out + at, &noise, (size_t)n);
        at += n;
    }
}

static void run(sqlite3 *db, const char *sql)
{
    char *text = NULL;
    if (sqlite3_exec(db, sql, NULL, NULL, &text) != SQLITE_OK)
        die("%s: %s", sql, text);
}

static sqlite3_stmt *prepare(sqlite3 *db, const char *sql)
{
    sqlite3_stmt *stmt = NULL;
    if (sqlite3_prepare_v3(db, sql, -1, SQLITE_PREPARE_PERSISTENT, &stmt, NULL) != SQLITE_OK)
        die("%s: %s", sql, sqlite3_errmsg(db));
    return stmt;
}

static void step_done(sqlite3 *db, sqlite3_stmt *stmt)
{
    if (sqlite3_step(stmt) != SQLITE_DONE)
        die("%s: %s", sqlite3_sql(stmt), sqlite3_errmsg(db));
    sqlite3_reset(stmt);
}

static sqlite3 *open_database(const options *o)
{
    sqlite3 *db = NULL;
    if (o->ext) {
        char *text = NULL;
        if (sqlite3_open(":memory:", &db) != SQLITE_OK)
            die("cannot open a database to load the extension");
        sqlite3_db_config(db, SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 1, NULL);
        if (sqlite3_load_extension(db, o->ext, NULL, &text) != SQLITE_OK)
            die("%s: %s", o->ext, text);
        sqlite3_close(db);
    }
    if (sqlite3_open_v2(o->uri, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI,
                        NULL) != SQLITE_OK)
        die("%s: %s", o->uri, sqlite3_errmsg(db));
    sqlite3_busy_timeout(db, 10000);
    char *sql = sqlite3_mprintf(
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=%s; PRAGMA wal_autocheckpoint=%d;"
        "CREATE TABLE IF NOT EXISTS event(id INTEGER PRIMARY KEY, key TEXT, at INTEGER, body BLOB);"
        "CREATE INDEX IF NOT EXISTS event_key ON event(key);",
        o->synchronous, o->autocheckpoint);
    run(db, sql);
    sqlite3_free(sql);
    return db;
}

static void bind_row(sqlite3_stmt *insert, char *row, const options *o)
{
    char key[32];
    snprintf(key, sizeof key, "k%016" PRIx64, random_next());
    make_row(row, o->row_bytes);
    sqlite3_bind_text(insert, 1, key, -1, SQLITE_TRANSIENT);
    sqlite3_bind_int64(insert, 2, (sqlite3_int64)(random_next() >> 20));
    sqlite3_bind_blob(insert, 3, row, o->row_bytes, SQLITE_STATIC);
}

/* A field of /proc/self/status in KiB. */
static long proc_kib(const char *field)
{
    char line[256];
    long kib = 0;
    FILE *file = fopen("/proc/self/status", "r");
    if (!file)
        return 0;
    while (fgets(line, sizeof line, file))
        if (!strncmp(line, field, strlen(field)))
            kib = strtol(line + strlen(field) + 1, NULL, 10);
    fclose(file);
    return kib;
}

static double cpu_seconds(void)
{
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return (double)used.ru_utime.tv_sec + (double)used.ru_stime.tv_sec +
           ((double)used.ru_utime.tv_usec + (double)used.ru_stime.tv_usec) / 1e6;
}

static void wait_until(uint64_t at)
{
    struct timespec ts = {.tv_sec = (time_t)(at / 1000000000u),
                          .tv_nsec = (long)(at % 1000000000u)};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL) != 0) {
    }
}

static bool snapshots_end; /* atomic */
static int snapshots_done; /* atomic */

/* One snapshot after the other. */
static void *take_snapshots(void *arg)
{
    const options *o = arg;
    sqlite3 *db = NULL;
    if (sqlite3_open_v2(o->uri, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_URI, NULL) != SQLITE_OK)
        die("%s: %s", o->uri, sqlite3_errmsg(db));
    while (!__atomic_load_n(&snapshots_end, __ATOMIC_RELAXED)) {
        if (sqlite3_exec(db, "PRAGMA litejoin_snapshot='300s'", NULL, NULL, NULL) != SQLITE_OK)
            fprintf(stderr, "load: snapshot: %s\n", sqlite3_errmsg(db));
        __atomic_fetch_add(&snapshots_done, 1, __ATOMIC_RELAXED);
    }
    sqlite3_close(db);
    return NULL;
}

static void mode_insert(sqlite3 *db, const options *o)
{
    static char row[ROW_MAX];
    pthread_t snapshots;
    if (o->snapshots && pthread_create(&snapshots, NULL, take_snapshots, (void *)o) != 0)
        die("no thread");
    sqlite3_stmt *insert = prepare(db, "INSERT INTO event(key, at, body) VALUES(?, ?, ?)");
    for (int i = 0; i < 50; i++) { /* caches warm, WAL open, shim's threads started */
        bind_row(insert, row, o);
        step_done(db, insert);
    }
    double cpu = cpu_seconds();
    uint64_t start = now_ns();
    uint64_t end = start + (uint64_t)(o->seconds * 1e9);
    uint64_t gap = o->rate > 0 ? (uint64_t)(1e9 / o->rate) : 0;
    uint64_t next = start;
    uint64_t before = start;
    while (before < end) {
        bind_row(insert, row, o);
        if (gap) {
            next += gap;
            if (next > now_ns())
                wait_until(next);
        }
        before = now_ns();
        step_done(db, insert);
        uint64_t after = now_ns();
        histogram_add(&commits, after - before);
        before = after;
    }
    double seconds = (double)(now_ns() - start) / 1e9;
    int taken = __atomic_load_n(&snapshots_done, __ATOMIC_RELAXED);
    __atomic_store_n(&snapshots_end, true, __ATOMIC_RELAXED);
    cpu = cpu_seconds() - cpu;
    long rss = proc_kib("VmRSS"), peak = proc_kib("VmHWM"), anon = proc_kib("RssAnon");
    sqlite3_finalize(insert);
    printf("{\"commits\": %" PRIu64
           ", \"seconds\": %.3f, \"per_second\": %.1f, \"p50_us\": %.3f, \"p99_us\": %.3f, "
           "\"p999_us\": %.3f, \"max_us\": %.1f, \"rss_kib\": %ld, \"peak_kib\": %ld, "
           "\"anon_kib\": %ld, "
           "\"snapshots\": %d, \"cpu_s\": %.3f}\n",
           commits.count, seconds, (double)commits.count / seconds,
           (double)histogram_quantile(&commits, 0.5) / 1e3,
           (double)histogram_quantile(&commits, 0.99) / 1e3,
           (double)histogram_quantile(&commits, 0.999) / 1e3, (double)commits.max_ns / 1e3, rss,
           peak, anon, taken, cpu);
    if (o->snapshots)
        pthread_join(snapshots, NULL);
}

static double database_mb(sqlite3 *db)
{
    sqlite3_stmt *stmt =
        prepare(db, "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()");
    sqlite3_step(stmt);
    double mb = (double)sqlite3_column_int64(stmt, 0) / 1e6;
    sqlite3_finalize(stmt);
    return mb;
}

static void mode_fill(sqlite3 *db, const options *o)
{
    static char row[ROW_MAX];
    sqlite3_stmt *insert = prepare(db, "INSERT INTO event(key, at, body) VALUES(?, ?, ?)");
    run(db, "PRAGMA cache_size=-200000");
    while (database_mb(db) < o->mb) {
        run(db, "BEGIN");
        for (int i = 0; i < 5000; i++) {
            bind_row(insert, row, o);
            step_done(db, insert);
        }
        run(db, "COMMIT");
    }
    sqlite3_finalize(insert);
    run(db, "PRAGMA wal_checkpoint(TRUNCATE)");
}

static void mode_update(sqlite3 *db, const options *o)
{
    static char row[ROW_MAX];
    sqlite3_stmt *last = prepare(db, "SELECT max(id) FROM event");
    sqlite3_step(last);
    uint64_t rows = (uint64_t)sqlite3_column_int64(last, 0);
    sqlite3_finalize(last);
    sqlite3_stmt *update = prepare(db, "UPDATE event SET body = ? WHERE id = ?");
    double written = 0;
    while (written < o->mb * 1e6 && rows) {
        run(db, "BEGIN");
        for (int i = 0; i < 200; i++) {
            make_row(row, o->row_bytes);
            sqlite3_bind_blob(update, 1, row, o->row_bytes, SQLITE_STATIC);
            sqlite3_bind_int64(update, 2, (sqlite3_int64)(random_next() % rows) + 1);
            step_done(db, update);
        }
        run(db, "COMMIT");
        int pages = 0, high = 0;
        sqlite3_db_status(db, SQLITE_DBSTATUS_CACHE_WRITE, &pages, &high, 1);
        written += pages * (4096.0 + 24);
    }
    sqlite3_finalize(update);
    printf("{\"wal_mb\": %.1f}\n", written / 1e6);
}

static double number(const char *text)
{
    char *end = NULL;
    double value = strtod(text, &end);
    if (!*text || *end)
        die("not a number: %s", text);
    return value;
}

static options parse(int argc, char **argv)
{
    options o = {.mode = "insert",
                 .synchronous = "NORMAL",
                 .seconds = 5,
                 .row_bytes = 440,
                 .autocheckpoint = 1000};
    for (int i = 1; i < argc; i++) {
        const char *flag = argv[i];
        if (!strcmp(flag, "--sync-at-end")) {
            o.sync_at_end = true;
            continue;
        }
        if (!strcmp(flag, "--snapshots")) {
            o.snapshots = true;
            continue;
        }
        if (i + 1 >= argc)
            die("%s needs a value", flag);
        const char *value = argv[++i];
        if (!strcmp(flag, "--mode"))
            o.mode = value;
        else if (!strcmp(flag, "--uri"))
            o.uri = value;
        else if (!strcmp(flag, "--ext"))
            o.ext = value;
        else if (!strcmp(flag, "--synchronous"))
            o.synchronous = value;
        else if (!strcmp(flag, "--seconds"))
            o.seconds = number(value);
        else if (!strcmp(flag, "--rate"))
            o.rate = number(value);
        else if (!strcmp(flag, "--mb"))
            o.mb = number(value);
        else if (!strcmp(flag, "--row-bytes"))
            o.row_bytes = (int)number(value);
        else if (!strcmp(flag, "--autocheckpoint"))
            o.autocheckpoint = (int)number(value);
        else
            die("unknown flag %s", flag);
    }
    if (!o.uri)
        die("--uri is missing");
    if (o.row_bytes < 16 || o.row_bytes > ROW_MAX)
        die("--row-bytes must be 16 to %d", ROW_MAX);
    return o;
}

static void *sleep_for_ever(void *ctx)
{
    (void)ctx;
    for (;;)
        sleep(3600);
    return NULL;
}

int main(int argc, char **argv)
{
    options o = parse(argc, argv);
    pthread_t sleeper;
    if (pthread_create(&sleeper, NULL, sleep_for_ever, NULL) != 0)
        die("cannot start a thread");
    sqlite3 *db = open_database(&o);
    if (!strcmp(o.mode, "insert"))
        mode_insert(db, &o);
    else if (!strcmp(o.mode, "fill"))
        mode_fill(db, &o);
    else if (!strcmp(o.mode, "update"))
        mode_update(db, &o);
    else
        die("unknown mode %s", o.mode);
    if (o.sync_at_end)
        run(db, "PRAGMA litejoin_sync='300s'");
    if (sqlite3_close(db) != SQLITE_OK)
        die("close failed");
    return 0;
}
