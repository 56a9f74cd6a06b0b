/* storage_test.c - what stands above the drivers, on a driver that is told what to answer. */
#include "test/unit/unit.h"

#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vfs/base/buf.h"
#include "vfs/base/clock.h"
#include "vfs/base/str.h"
#include "vfs/storage/storage.h"

/* Answers every call with `code`; lists `listed`; sends `sent` bytes to a sink. */
typedef struct {
    lj_code code;
    int http_status; /* of what fails */
    bool head_differs;
    lj_code head_code; /* of head, then */
    const char *const *listed;
    size_t sent;
    size_t calls;
    bool closed;
} fake;

static lj_code answer(fake *self, lj_error *err)
{
    self->calls++;
    if (self->code == LJ_OK)
        return LJ_OK;
    lj_error_set(err, self->code, "as told");
    if (err != NULL)
        err->http_status = self->http_status;
    return self->code;
}

static lj_code fake_put(void *ctx, const char *key, lj_source *source,
                        const lj_storage_put_options *options, lj_error *err)
{
    (void)key;
    assert_non_null(options);
    LJ_CLEANUP(lj_buf_free) lj_buf buf = LJ_BUF_INIT(1000);
    lj_sink sink = lj_sink_buf(&buf);
    LJ_TRY(lj_stream_copy(source, &sink, NULL, err));
    return answer(ctx, err);
}

static lj_code fake_get(void *ctx, const char *key, uint64_t offset, int64_t length, lj_sink *sink,
                        lj_error *err)
{
    (void)key;
    (void)offset;
    (void)length;
    fake *self = ctx;
    static const char bytes[100];
    if (self->sent > 0)
        LJ_TRY(sink->write(sink->ctx, bytes, self->sent, err));
    return answer(self, err);
}

static lj_code fake_head(void *ctx, const char *key, lj_storage_entry *ret_entry, lj_error *err)
{
    (void)key;
    fake *self = ctx;
    ret_entry->size_bytes = 5;
    if (!self->head_differs)
        return answer(ctx, err);
    return self->head_code == LJ_OK ? LJ_OK : lj_error_set(err, self->head_code, "as told");
}

static lj_code fake_list(void *ctx, const char *prefix, const char *after, lj_storage_list_fn fn,
                         void *fn_ctx, lj_error *err)
{
    (void)prefix;
    (void)after;
    fake *self = ctx;
    for (const char *const *key = self->listed; key != NULL && *key != NULL; key++) {
        lj_storage_entry entry = {.key = *key};
        LJ_TRY(fn(fn_ctx, &entry, err));
    }
    return answer(self, err);
}

static lj_code fake_delete(void *ctx, const char *const *keys, size_t count,
                           lj_storage_delete_fn fn, void *fn_ctx, lj_error *err)
{
    fake *self = ctx;
    lj_error why = LJ_ERROR_INIT;
    lj_error_set(&why, LJ_DENIED, "not this one");
    for (size_t i = 0; i < count; i++)
        fn(fn_ctx, keys[i], lj_str_ends(keys[i], "bad") ? &why : NULL);
    return answer(self, err);
}

static void fake_close(void *ctx)
{
    ((fake *)ctx)->closed = true;
}

static const lj_storage_ops fake_ops = {.name = "fake",
                                        .features = 0,
                                        .put = fake_put,
                                        .get = fake_get,
                                        .head = fake_head,
                                        .list = fake_list,
                                        .delete_many = fake_delete,
                                        .close = fake_close};

static lj_storage *wrap(fake *self)
{
    lj_error err = LJ_ERROR_INIT;
    lj_storage *storage = NULL;
    assert_ok(lj_storage_wrap(&fake_ops, self, "fake://me:secret@host/p", &storage, &err), &err);
    return storage;
}

static lj_code put_absent(fake *driver, lj_error *err)
{
    lj_storage_ops ops = fake_ops;
    ops.features = LJ_STORAGE_IF_ABSENT;
    lj_storage *storage = NULL;
    lj_memory_source state;
    lj_source source = lj_source_memory(&state, "abc", 3);
    const lj_storage_put_options options = {.if_absent = true};
    assert_ok(lj_storage_wrap(&ops, driver, "fake://p", &storage, err), err);
    lj_code got = lj_storage_put(storage, "k", &source, &options, err);
    if (got != LJ_OK)
        assert_int_equal(err->code, got);
    lj_storage_close(storage);
    return got;
}

/* Who has a name of his own believes that an object there is his: so it must be there. */
static void what_a_status_says_exists_is_looked_for(void **state)
{
    (void)state;
    const struct {
        int http_status;
        lj_code put;
        lj_code head;
        lj_code want;
    } rows[] = {{200, LJ_OK, LJ_NOTFOUND, LJ_OK},
                {412, LJ_EXISTS, LJ_OK, LJ_EXISTS},
                {412, LJ_EXISTS, LJ_NOTFOUND, LJ_UNAVAILABLE},
                {409, LJ_EXISTS, LJ_DENIED, LJ_EXISTS},
                {412, LJ_EXISTS, LJ_TIMEOUT, LJ_TIMEOUT},
                {412, LJ_EXISTS, LJ_CANCELLED, LJ_CANCELLED},
                {0, LJ_EXISTS, LJ_NOTFOUND, LJ_EXISTS}};
    for (size_t i = 0; i < LJ_ARRAY_LEN(rows); i++) {
        lj_error err = LJ_ERROR_INIT;
        fake driver = {.code = rows[i].put,
                       .http_status = rows[i].http_status,
                       .head_differs = true,
                       .head_code = rows[i].head};
        lj_code got = put_absent(&driver, &err);
        if (got != rows[i].want)
            fail_msg("row %zu: %s", i, lj_code_text(got));
        assert_int_equal(err.retryable, rows[i].want == LJ_UNAVAILABLE);
    }
}

static void passwords_are_not_shown(void **state)
{
    (void)state;
    static const struct {
        const char *url;
        const char *shown;
    } rows[] = {{"s3://bucket/a@b:c", "s3://bucket/a@b:c"},
                {"sftp://me:secret@host/x", "sftp://me:***@host/x"},
                {"sftp://me:secret@host:22/x", "sftp://me:***@host:22/x"},
                {"sftp://me@host:22/x@y", "sftp://me@host:22/x@y"},
                {"sftp://host:22/x@y", "sftp://host:22/x@y"},
                {"sftp://me:se@cret@host/x@y", "sftp://me:***@host/x@y"},
                {"sftp://me:se/cret@host/x", "sftp://me:***@host/x"},
                {"sftp://me:se?cr#et@host", "sftp://me:***@host"},
                {"sftp://:secret@host", "sftp://:***@host"},
                {"sftp://me:@host", "sftp://me:***@host"},
                {"abs://account:key==@c/p", "abs://account:***@c/p"},
                {"file:///a:b@c", "file:///a:b@c"},
                {"/plain/path", "/plain/path"},
                {"", ""}};
    for (size_t i = 0; i < LJ_ARRAY_LEN(rows); i++) {
        LJ_CLEANUP(lj_freep) char *shown = lj_storage_redact(rows[i].url);
        assert_string_equal(shown, rows[i].shown);
    }
}

static void unknown_schemes(void **state)
{
    (void)state;
    static const char *const urls[] = {
        "",           "/tmp/x",     "tmp",     "file:/tmp/x", "://x", "ftp://me:secret@host/x",
        "fil-e:///x", "files:///x", "fil:///x"};
    for (size_t i = 0; i < LJ_ARRAY_LEN(urls); i++) {
        lj_error err = LJ_ERROR_INIT;
        lj_storage *storage = NULL;
        assert_int_equal(lj_storage_open(urls[i], NULL, &storage, &err), LJ_INVALID);
        assert_null(storage);
        assert_non_null(strstr(err.hint, "file://"));
        assert_null(strstr(err.message, "secret"));
    }
    lj_error err = LJ_ERROR_INIT;
    lj_storage *storage = NULL;
    assert_int_equal(lj_storage_open("ftp://host/x", NULL, &storage, &err), LJ_INVALID);
    assert_non_null(strstr(err.message, "\"ftp\""));
}

static void errors_name_url_and_key(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    fake self = {.code = LJ_UNAVAILABLE};
    lj_storage *storage = wrap(&self);
    lj_storage_entry entry = {.size_bytes = 1};
    assert_int_equal(lj_storage_head(storage, "a/b", &entry, &err), LJ_UNAVAILABLE);
    assert_string_equal(err.message, "fake://me:***@host/p: a/b: as told");
    assert_int_equal(entry.size_bytes, 1);
    assert_int_equal(lj_storage_head(storage, "a/b", &entry, NULL), LJ_UNAVAILABLE);
    assert_int_equal(lj_storage_head(storage, "../b", &entry, &err), LJ_INVALID);
    assert_non_null(strstr(err.message, "\"../b\""));
    char key[LJ_STORAGE_KEY_MAX + 2];
    memset(key, 'k', sizeof(key));
    key[LJ_STORAGE_KEY_MAX + 1] = 0;
    assert_int_equal(lj_storage_head(storage, key, &entry, &err), LJ_INVALID);
    self.code = LJ_OK;
    key[LJ_STORAGE_KEY_MAX] = 0;
    assert_ok(lj_storage_head(storage, key, &entry, &err), &err);
    assert_ptr_equal(entry.key, key);
    lj_storage_put_options options = {.if_absent = true};
    lj_memory_source memory;
    lj_source source = lj_source_memory(&memory, "abc", 3);
    assert_int_equal(lj_storage_put(storage, "a", &source, &options, &err), LJ_UNSUPPORTED);
    lj_storage_close(storage);
    assert_true(self.closed);
}

static lj_code join(void *ctx, const lj_storage_entry *entry, lj_error *err)
{
    return lj_buf_printf(ctx, err, "%s ", entry->key);
}

static void listings_are_filtered(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    static const char *const listed[] = {"a/1", "a//2", "a/3/", "/a/4", "a/5",
                                         "b/6", "a/\n", "a/7",  NULL};
    fake self = {.listed = listed};
    lj_storage *storage = wrap(&self);
    static const struct {
        const char *prefix;
        const char *after;
        const char *joined;
    } rows[] = {{"", NULL, "a/1 a/5 b/6 a/7 "},
                {"a/", NULL, "a/1 a/5 a/7 "},
                {"a/", "a/1", "a/5 a/7 "},
                {"a/", "a/6", "a/7 "},
                {"b", "a/6", "b/6 "}};
    for (size_t i = 0; i < LJ_ARRAY_LEN(rows); i++) {
        LJ_CLEANUP(lj_buf_free) lj_buf buf = LJ_BUF_INIT(1000);
        assert_ok(lj_storage_list(storage, rows[i].prefix, rows[i].after, join, &buf, &err), &err);
        assert_string_equal(lj_buf_text(&buf), rows[i].joined);
    }
    static const char *const bad[] = {"/", "a//", "../", "a/../b", "a\n"};
    for (size_t i = 0; i < LJ_ARRAY_LEN(bad); i++)
        assert_int_equal(lj_storage_list(storage, bad[i], NULL, join, NULL, &err), LJ_INVALID);
    lj_storage_close(storage);
}

static void count_failures(void *ctx, const char *key, const lj_error *err)
{
    (void)key;
    if (err != NULL) {
        ++*(size_t *)ctx;
        assert_string_equal(err->message, "fake://me:***@host/p: a/bad: not this one");
    }
}

static void deletions_give_the_first_error(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    fake self = {.code = LJ_OK};
    lj_storage *storage = wrap(&self);
    static const char *const keys[] = {"a/good", "a/bad", "a/other"};
    size_t failures = 0;
    /* also when the driver itself says that all went well */
    assert_int_equal(lj_storage_delete_many(storage, keys, 3, count_failures, &failures, &err),
                     LJ_DENIED);
    assert_int_equal(failures, 1);
    assert_non_null(strstr(err.message, "a/bad"));
    assert_int_equal(lj_storage_delete_many(storage, keys, 3, NULL, NULL, NULL), LJ_DENIED);
    assert_ok(lj_storage_delete_many(storage, keys, 1, NULL, NULL, &err), &err);
    self.code = LJ_TIMEOUT;
    assert_int_equal(lj_storage_delete_many(storage, keys, 1, NULL, NULL, &err), LJ_TIMEOUT);
    assert_string_equal(err.message, "fake://me:***@host/p: as told");
    lj_storage_close(storage);
}

static lj_code refuse(void *ctx, const void *data, size_t len, lj_error *err)
{
    (void)ctx;
    (void)data;
    (void)len;
    return lj_error_set(err, LJ_NOSPACE, "no room");
}

static void calls_are_counted(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    fake self = {.sent = 10};
    lj_storage *storage = wrap(&self);
    LJ_CLEANUP(lj_buf_free) lj_buf buf = LJ_BUF_INIT(1000);
    lj_sink sink = lj_sink_buf(&buf);
    lj_sink refusing = {.ctx = NULL, .write = refuse};
    lj_memory_source memory;
    lj_source source = lj_source_memory(&memory, "abc", 3);
    lj_storage_entry entry;
    assert_ok(lj_storage_put(storage, "a", &source, NULL, &err), &err);
    assert_ok(lj_storage_get(storage, "a", 0, -1, &sink, &err), &err);
    assert_int_equal(lj_storage_get(storage, "a", 0, -1, &refusing, &err), LJ_NOSPACE);
    assert_non_null(strstr(err.message, "a: no room"));
    assert_int_equal(lj_storage_get(storage, "a", 0, 9, &sink, &err),
                     LJ_IO); /* it sends too much */
    self.code = LJ_NOTFOUND;
    assert_int_equal(lj_storage_head(storage, "a", &entry, &err), LJ_NOTFOUND);
    self.code = LJ_TIMEOUT;
    assert_int_equal(lj_storage_head(storage, "a", &entry, &err), LJ_TIMEOUT);
    assert_int_equal(lj_storage_list(storage, "", NULL, join, &buf, &err), LJ_TIMEOUT);
    self.code = LJ_NOTFOUND; /* would be a replica without anything */
    assert_int_equal(lj_storage_list(storage, "", NULL, join, &buf, &err), LJ_UNAVAILABLE);
    assert_int_equal(err.code, LJ_UNAVAILABLE);
    assert_true(err.retryable);
    lj_storage_counters counters;
    lj_storage_counters_get(storage, &counters);
    assert_int_equal(counters.calls[LJ_STORAGE_OP_PUT], 1);
    assert_int_equal(counters.put_bytes, 3);
    assert_int_equal(counters.calls[LJ_STORAGE_OP_GET], 3);
    assert_int_equal(counters.errors[LJ_STORAGE_OP_GET], 1);
    assert_int_equal(counters.get_bytes, 10);
    assert_int_equal(counters.calls[LJ_STORAGE_OP_HEAD], 2);
    assert_int_equal(counters.errors[LJ_STORAGE_OP_HEAD], 1);
    assert_int_equal(counters.errors[LJ_STORAGE_OP_LIST], 2);
    assert_int_equal(counters.calls[LJ_STORAGE_OP_DELETE], 0);
    lj_storage_close(storage);
}

/* ---- forks while another thread opens a storage under a mutex that is taken before a fork ---- */

static pthread_mutex_t outer = PTHREAD_MUTEX_INITIALIZER;
static bool opener_ends;

static void lock_outer(void)
{
    pthread_mutex_lock(&outer);
}

static void unlock_outer(void)
{
    pthread_mutex_unlock(&outer);
}

static void *open_and_close(void *ctx)
{
    static const char *const urls[] = {"sftp://u@h/a", "gcs://bucket/a"};
    for (size_t i = 0; !__atomic_load_n(&opener_ends, __ATOMIC_RELAXED); i++) {
        lj_storage *storage = NULL;
        pthread_mutex_lock(&outer);
        if (lj_storage_open(urls[i % 2], NULL, &storage, NULL) == LJ_OK)
            lj_storage_close(storage);
        else
            *(bool *)ctx = true;
        pthread_mutex_unlock(&outer);
        lj_clock_sleep_ns(
            20000); /* or who forks might never get the mutex: it is nobody's in turn */
    }
    return NULL;
}

static void forks_do_not_wait_for_ever(void **state)
{
    (void)state;
    pthread_t thread;
    bool failed = false;
    assert_int_equal(setenv("STORAGE_EMULATOR_HOST", "127.0.0.1:9", 1), 0);
    lj_storage_prepare();
    assert_int_equal(pthread_atfork(lock_outer, unlock_outer, unlock_outer), 0);
    alarm(300); /* a deadlock would be for ever */
    assert_int_equal(pthread_create(&thread, NULL, open_and_close, &failed), 0);
    for (int i = 0; i < 300; i++) {
        int status = -1;
        pid_t child = fork();
        if (child == 0)
            _exit(0);
        assert_true(child > 0);
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_int_equal(status, 0);
    }
    __atomic_store_n(&opener_ends, true, __ATOMIC_RELAXED);
    assert_int_equal(pthread_join(thread, NULL), 0);
    alarm(0);
    assert_false(failed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_a_status_says_exists_is_looked_for),
        cmocka_unit_test(passwords_are_not_shown),
        cmocka_unit_test(unknown_schemes),
        cmocka_unit_test(errors_name_url_and_key),
        cmocka_unit_test(listings_are_filtered),
        cmocka_unit_test(deletions_give_the_first_error),
        cmocka_unit_test(calls_are_counted),
        cmocka_unit_test(forks_do_not_wait_for_ever),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
