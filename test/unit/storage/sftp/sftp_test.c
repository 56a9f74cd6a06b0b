/* sftp_test.c - sftp:// URLs and settings, names of unfinished puts, and servers that do not answer. */
#include "test/unit/unit.h"

#include <netinet/in.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#include "vfs/base/cancel.h"
#include "vfs/base/clock.h"
#include "vfs/base/str.h"
#include "vfs/storage/sftp/internal.h"
#include "vfs/storage/sftp/sftp.h"
#include "vfs/storage/storage.h"

#define PIN "SHA256:sEeCeQQ+0j7sYm9s0bkeI/jqsch86c3uaIx+/M3v9f0"

static void urls(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    const struct {
        const char *url;
        const char *shown;
    } rows[] = {
        {"sftp://u@h/a/b", "sftp://u@h/a/b"},
        {"SFTP://u@h:22/a//b/../c/", "sftp://u@h/a/c"},
        {"sftp://u:secret@h:2222/a", "sftp://u@h:2222/a"},
        {"sftp://u@h", "sftp://u@h"},
        {"sftp://u@h/", "sftp://u@h/"},
        {"sftp://u@h?max-connections=2", "sftp://u@h"},
        {"sftp://u%40x:p%3Aw@h/a%20b", "sftp://u@x@h/a b"},
        {"sftp://u@[::1]:22/x", "sftp://u@[::1]/x"},
        {"sftp://u@h/a?host-key=" PIN, "sftp://u@h/a"},
        {"sftp://u@h/a?strict-host-key=no&known-hosts-path=/k&key_path=/id", "sftp://u@h/a"}};
    for (size_t i = 0; i < LJ_ARRAY_LEN(rows); i++) {
        lj_storage *storage = NULL;
        assert_ok(lj_storage_open(rows[i].url, NULL, &storage, &err), &err);
        assert_string_equal(lj_storage_url(storage), rows[i].shown);
        assert_string_equal(lj_storage_type(storage), "sftp");
        assert_int_equal(lj_storage_features(storage),
                         LJ_STORAGE_IF_ABSENT | LJ_STORAGE_SET_TIME | LJ_STORAGE_REMOTE);
        lj_storage_close(storage);
    }
}

static void what_is_refused(void **state)
{
    (void)state;
    const struct {
        const char *url;
        const char *says;
    } rows[] = {{"sftp://h/a", "no user"},
                {"sftp://@h/a", "no user"},
                {"sftp://u@/a", "no host"},
                {"sftp:///a", "no host"},
                {"sftp://u@h/a?password=x", "secret"},
                {"sftp://u@h/a?key-passphrase=x", "secret"},
                {"sftp://u@h/a?host-key=abc", "host-key"},
                {"sftp://u@h/a?max-connections=0", "max-connections"},
                {"sftp://u@h/a?max-connections=65", "max-connections"},
                {"sftp://u@h/a?strict-host-key=maybe", "strict-host-key"},
                {"sftp://u@h/a?strict-host-key=false&host-key=" PIN, "strict-host-key"},
                {"sftp://u@h/a?bucket=b", "bucket"},
                {"sftp://u@h/a%0Ab", ""}};
    for (size_t i = 0; i < LJ_ARRAY_LEN(rows); i++) {
        lj_error err = LJ_ERROR_INIT;
        lj_storage *storage = NULL;
        assert_int_equal(lj_storage_open(rows[i].url, NULL, &storage, &err), LJ_INVALID);
        assert_null(storage);
        if (strstr(err.message, rows[i].says) == NULL)
            fail_msg("%s: %s", rows[i].url, err.message);
    }
}

static void settings_beat_the_url(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    lj_storage *storage = NULL;
    const lj_storage_setting good[] = {
        {"Max_Connections", "4"}, {"password", "p"}, {"key-path", NULL}};
    const lj_storage_options options = {.settings = good, .setting_count = LJ_ARRAY_LEN(good)};
    assert_ok(lj_storage_open("sftp://u@h/a?max-connections=99", &options, &storage, &err), &err);
    lj_storage_close(storage);
    const struct {
        const char *path;
        const char *shown;
    } rows[] = {{"/b//c/", "sftp://u@h/b/c"},
                {"/", "sftp://u@h/"},
                {"//", "sftp://u@h/"},
                {"b/c/", "sftp://u@h/~/b/c"},
                {"./b", "sftp://u@h/~/b"},
                {".", "sftp://u@h"},
                {"../b/", "sftp://u@h/~/../b"},
                {"/b/../c", "sftp://u@h/c"},
                {"100%?#", "sftp://u@h/~/100%?#"}};
    for (size_t i = 0; i < LJ_ARRAY_LEN(rows); i++) {
        const lj_storage_setting path = {"path", rows[i].path};
        const lj_storage_options with_path = {.settings = &path, .setting_count = 1};
        assert_ok(lj_storage_open("sftp://u@h/a", &with_path, &storage, &err), &err);
        assert_string_equal(lj_storage_url(storage), rows[i].shown);
        lj_storage_close(storage);
    }
    const lj_storage_setting bad[] = {{"user", "p"}};
    const lj_storage_options with_bad = {.settings = bad, .setting_count = 1};
    assert_int_equal(lj_storage_open("sftp://u@h/a", &with_bad, &storage, &err), LJ_INVALID);
    assert_non_null(strstr(err.hint, "key-path"));
    assert_null(strstr(err.hint, "password"));
}

/* The store may have done what it was asked: such an answer is no refusal. */
static void answers_that_make_no_sense(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    lj_sftp_session session = {.broken = false};
    assert_int_equal(lj_sftp_nonsense(&session, "answers out of order", &err), LJ_UNAVAILABLE);
    assert_true(err.retryable);
    assert_true(session.broken);
}

static void names_of_unfinished_puts(void **state)
{
    (void)state;
    assert_true(lj_sftp_is_temp(".x.0123456789abcdef.part"));
    static const char *const others[] = {"x.0123456789abcdef.part",  "..0123456789abcdef.part0",
                                         ".0123456789abcdef.part",   ".x.0123456789abcdeF.part",
                                         ".x.0123456789abcdef.tmp",  ".x.part",
                                         "00000000_00000000.wal.lz4"};
    for (size_t i = 0; i < LJ_ARRAY_LEN(others); i++)
        assert_false(lj_sftp_is_temp(others[i]));
    char longest[LJ_SFTP_NAME_MAX + 1];
    memset(longest, 'n', sizeof(longest) - 1);
    longest[sizeof(longest) - 1] = 0;
    LJ_CLEANUP(lj_freep) char *a = lj_sftp_temp_name(longest);
    LJ_CLEANUP(lj_freep) char *b = lj_sftp_temp_name(longest);
    assert_true(lj_sftp_is_temp(a));
    assert_int_equal(strlen(a), LJ_SFTP_NAME_MAX);
    assert_string_not_equal(a, b);
}

static void paths(void **state)
{
    (void)state;
    const struct {
        const char *root;
        const char *key;
        const char *path;
    } rows[] = {{"/a", "k/x", "/a/k/x"}, {"/a", "", "/a"},   {"/", "k", "/k"},
                {"/", "", "/"},          {"", "k/x", "k/x"}, {"", "", "."}};
    for (size_t i = 0; i < LJ_ARRAY_LEN(rows); i++) {
        char root[8];
        snprintf(root, sizeof(root), "%s", rows[i].root);
        const lj_sftp sftp = {.root = root};
        LJ_CLEANUP(lj_freep) char *path = lj_sftp_path(&sftp, rows[i].key);
        assert_string_equal(path, rows[i].path);
    }
}

/* A socket of 127.0.0.1 that connections can be made to, but that nobody serves. */
static int silent_server(uint16_t *ret_port)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t len = sizeof(address);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(fd, 5), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &len), 0);
    *ret_port = ntohs(address.sin_port);
    return fd;
}

#define FILLERS 8

/* Who connects from here on hears nothing: there is no room for it, and the kernel lets it try again. */
static void fill_queue(int fd, uint16_t port, int taken[FILLERS])
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(listen(fd, 0), 0);
    for (size_t i = 0; i < FILLERS; i++) {
        taken[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        (void)connect(taken[i], (struct sockaddr *)&address, sizeof(address));
    }
}

static lj_storage *open_at(uint16_t port, const lj_storage_options *options)
{
    lj_error err = LJ_ERROR_INIT;
    lj_storage *storage = NULL;
    LJ_CLEANUP(lj_freep) char *url = lj_str_printf("sftp://u@127.0.0.1:%u/x", port);
    assert_ok(lj_storage_open(url, options, &storage, &err), &err);
    return storage;
}

static void a_silent_server_is_a_timeout(void **state)
{
    (void)state;
    uint16_t port = 0;
    LJ_CLEANUP(lj_closep) int fd = silent_server(&port);
    const lj_storage_options options = {.io_timeout_ns = 300 * LJ_NS_PER_MS};
    lj_storage *storage = open_at(port, &options);
    lj_storage_entry entry;
    lj_error err = LJ_ERROR_INIT;
    int64_t start = lj_clock_mono_ns();
    assert_int_equal(lj_storage_head(storage, "k", &entry, &err), LJ_TIMEOUT);
    int64_t took = lj_clock_mono_ns() - start;
    assert_true(err.retryable);
    assert_non_null(strstr(err.message, "did not answer for 0.3 s"));
    assert_true(took >= 300 * LJ_NS_PER_MS && took < 5 * LJ_NS_PER_S);
    lj_storage_close(storage);
}

static void nobody_there(void **state)
{
    (void)state;
    uint16_t port = 0;
    int fd = silent_server(&port);
    close(fd);
    lj_storage *storage = open_at(port, NULL);
    lj_storage_entry entry;
    lj_error err = LJ_ERROR_INIT;
    assert_int_equal(lj_storage_head(storage, "k", &entry, &err), LJ_UNAVAILABLE);
    assert_true(err.retryable);
    assert_non_null(strstr(err.message, "cannot connect to 127.0.0.1"));
    lj_storage_close(storage);
    assert_ok(lj_storage_open("sftp://u@no-such-host.invalid/x", NULL, &storage, &err), &err);
    assert_int_equal(lj_storage_head(storage, "k", &entry, &err), LJ_UNAVAILABLE);
    assert_true(err.retryable);
    assert_non_null(strstr(err.message, "cannot resolve the host name no-such-host.invalid"));
    lj_storage_close(storage);
}

typedef struct {
    lj_storage *storage;
    const bool *given_up; /* the thread's own flag */
    lj_code code;
    int64_t ended_ns;
} waiter;

static void *wait_for_it(void *ctx)
{
    waiter *me = ctx;
    lj_storage_entry entry;
    lj_error err = LJ_ERROR_INIT;
    lj_cancel_swap(me->given_up);
    me->code = lj_storage_head(me->storage, "k", &entry, &err);
    me->ended_ns = lj_clock_mono_ns();
    return NULL;
}

/* Both those that wait for the server and those that wait for a connection. */
static void cancelling_ends_the_waiting(void **state)
{
    (void)state;
    uint16_t port = 0;
    bool cancel = false;
    LJ_CLEANUP(lj_closep) int fd = silent_server(&port);
    const lj_storage_setting one[] = {{"max-connections", "1"}};
    const lj_storage_options options = {.settings = one, .setting_count = 1, .cancel = &cancel};
    lj_storage *storage = open_at(port, &options);
    waiter waiters[3];
    pthread_t threads[3];
    for (size_t i = 0; i < LJ_ARRAY_LEN(waiters); i++) {
        waiters[i] = (waiter){.storage = storage};
        assert_int_equal(pthread_create(&threads[i], NULL, wait_for_it, &waiters[i]), 0);
    }
    lj_clock_sleep_ns(200 * LJ_NS_PER_MS);
    int64_t cancelled_ns = lj_clock_mono_ns();
    __atomic_store_n(&cancel, true, __ATOMIC_RELEASE);
    for (size_t i = 0; i < LJ_ARRAY_LEN(waiters); i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(waiters[i].code, LJ_CANCELLED);
        /* 0.2 s, and patience with a busy machine */
        assert_true(waiters[i].ended_ns - cancelled_ns < 2 * LJ_NS_PER_S);
    }
    lj_storage_close(storage);
}

/* The same for a request that is given up by its thread, in all that it waits for: the network, the server, a connection. */
static void a_request_that_is_given_up(void **state)
{
    (void)state;
    for (unsigned full = 0; full < 2; full++) {
        uint16_t port = 0;
        bool given_up = false;
        int taken[FILLERS];
        LJ_CLEANUP(lj_closep) int fd = silent_server(&port);
        if (full)
            fill_queue(fd, port, taken);
        const lj_storage_setting one[] = {{"max-connections", "1"}};
        const lj_storage_options options = {.settings = one, .setting_count = 1};
        lj_storage *storage = open_at(port, &options);
        waiter waiters[2];
        pthread_t threads[2];
        for (size_t i = 0; i < LJ_ARRAY_LEN(waiters); i++) {
            waiters[i] = (waiter){.storage = storage, .given_up = &given_up};
            assert_int_equal(pthread_create(&threads[i], NULL, wait_for_it, &waiters[i]), 0);
        }
        lj_clock_sleep_ns(200 * LJ_NS_PER_MS);
        int64_t given_up_ns = lj_clock_mono_ns();
        __atomic_store_n(&given_up, true, __ATOMIC_RELEASE);
        for (size_t i = 0; i < LJ_ARRAY_LEN(waiters); i++) {
            pthread_join(threads[i], NULL);
            assert_int_equal(waiters[i].code, LJ_CANCELLED);
            assert_true(waiters[i].ended_ns - given_up_ns < 10 * LJ_NS_PER_S);
        }
        for (size_t i = 0; full && i < FILLERS; i++)
            close(taken[i]);
        lj_storage_close(storage);
    }
}

/* Something that answers, but not as an SSH server. */
static void *say_hello(void *ctx)
{
    int fd = accept(*(int *)ctx, NULL, NULL);
    static const char text[] = "220 mail.example.org ESMTP\r\n";
    assert_int_equal(send(fd, text, sizeof(text) - 1, MSG_NOSIGNAL), sizeof(text) - 1);
    close(fd);
    return NULL;
}

static void another_protocol(void **state)
{
    (void)state;
    uint16_t port = 0;
    LJ_CLEANUP(lj_closep) int fd = silent_server(&port);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, say_hello, &fd), 0);
    lj_storage *storage = open_at(port, NULL);
    lj_storage_entry entry;
    lj_error err = LJ_ERROR_INIT;
    assert_int_equal(lj_storage_head(storage, "k", &entry, &err), LJ_UNAVAILABLE);
    assert_non_null(strstr(err.message, "SSH handshake"));
    assert_true(err.retryable);
    pthread_join(thread, NULL);
    lj_storage_close(storage);
}

int main(void)
{
    /* what the machine has must not count */
    unsetenv("SSH_AUTH_SOCK");
    unsetenv(LJ_SFTP_PASSWORD_VARIABLE);
    setenv("HOME", "/nonexistent", 1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(urls),
        cmocka_unit_test(what_is_refused),
        cmocka_unit_test(settings_beat_the_url),
        cmocka_unit_test(answers_that_make_no_sense),
        cmocka_unit_test(names_of_unfinished_puts),
        cmocka_unit_test(paths),
        cmocka_unit_test(a_silent_server_is_a_timeout),
        cmocka_unit_test(nobody_there),
        cmocka_unit_test(cancelling_ends_the_waiting),
        cmocka_unit_test(a_request_that_is_given_up),
        cmocka_unit_test(another_protocol),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
