/* absent_test.c - whether a put that was given up may overwrite when it arrives late: what is known of the store's condition. */
#include "test/unit/unit.h"

#include "test/unit/storage/http/server.h"
#include "vfs/base/clock.h"
#include "vfs/base/str.h"
#include "vfs/storage/storage.h"

#define ABSENT "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
#define STORED "HTTP/1.1 200 OK\r\nETag: \"e\"\r\nContent-Length: 0\r\n\r\n"
#define EXISTS "HTTP/1.1 412 Precondition Failed\r\nContent-Length: 0\r\n\r\n"

static lj_storage *open_s3(const char *url)
{
    const lj_storage_setting keys[] = {{"access-key-id", "AKIAEXAMPLE"},
                                       {"secret-access-key", "EXAMPLE"}};
    const lj_storage_options options = {
        .io_timeout_ns = 300 * LJ_NS_PER_MS, .settings = keys, .setting_count = LJ_ARRAY_LEN(keys)};
    lj_error err = LJ_ERROR_INIT;
    lj_storage *storage = NULL;
    assert_ok(lj_storage_open(url, &options, &storage, &err), &err);
    return storage;
}

static lj_code put_absent(lj_storage *storage)
{
    lj_error err = LJ_ERROR_INIT;
    lj_memory_source state;
    lj_source source = lj_source_memory(&state, "content", 7);
    const lj_storage_put_options options = {.if_absent = true};
    return lj_storage_put(storage, "k", &source, &options, &err);
}

/* One put to a store that nothing is known of, and what is known then. */
static void expect_after_put(const server_step *steps, size_t count, lj_code code, bool late)
{
    http_server *server = server_start_steps(steps, count);
    LJ_CLEANUP(lj_freep)
    char *url = lj_str_printf("s3://b/p?endpoint=http://127.0.0.1:%u", server_port(server));
    lj_storage *storage = open_s3(url);
    assert_int_equal(put_absent(storage), code);
    assert_int_equal(lj_storage_overwrites_late(storage), late);
    lj_storage_close(storage);
    server_stop(server);
}

static void what_the_settings_say(void **state)
{
    (void)state;
    const struct {
        const char *url;
        bool late;
    } rows[] = {{"s3://b/p", false},
                {"s3://b/p?conditional=off", true},
                {"s3://b/p?endpoint=http://127.0.0.1:1&conditional=on", false},
                {"s3://b/p?endpoint=http://127.0.0.1:1", true}};
    for (size_t i = 0; i < LJ_ARRAY_LEN(rows); i++) {
        lj_storage *storage = open_s3(rows[i].url);
        if (lj_storage_overwrites_late(storage) != rows[i].late)
            fail_msg("%s", rows[i].url);
        lj_storage_close(storage);
    }
}

static void a_store_that_keeps_the_condition(void **state)
{
    (void)state;
    static const server_step steps[] = {ACCEPT,       READ, SEND(ABSENT), READ,
                                        SEND(STORED), READ, SEND(EXISTS)};
    expect_after_put(steps, LJ_ARRAY_LEN(steps), LJ_OK, false);
}

static void a_store_that_ignores_it(void **state)
{
    (void)state;
    static const server_step steps[] = {ACCEPT,       READ, SEND(ABSENT), READ,
                                        SEND(STORED), READ, SEND(STORED)};
    expect_after_put(steps, LJ_ARRAY_LEN(steps), LJ_OK, true);
}

/* The very first put is given up: it may be at a store of either kind. */
static void nothing_is_known_yet(void **state)
{
    (void)state;
    static const server_step steps[] = {ACCEPT, READ, SEND(ABSENT), READ, HOLD(5000)};
    expect_after_put(steps, LJ_ARRAY_LEN(steps), LJ_TIMEOUT, true);
}

int main(void)
{
    /* what the machine has must not count */
    static const char *const names[] = {"AWS_REGION",       "AWS_DEFAULT_REGION",  "AWS_PROFILE",
                                        "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "http_proxy",
                                        "HTTP_PROXY",       "all_proxy",           "ALL_PROXY"};
    for (size_t i = 0; i < LJ_ARRAY_LEN(names); i++)
        unsetenv(names[i]);
    setenv("HOME", "/nonexistent", 1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_the_settings_say),
        cmocka_unit_test(a_store_that_keeps_the_condition),
        cmocka_unit_test(a_store_that_ignores_it),
        cmocka_unit_test(nothing_is_known_yet),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
