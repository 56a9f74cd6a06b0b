/*
 * aws_process_test.c - credential_process: what it prints, how it ends, and that the host's process does not notice.
 */
#include "test/unit/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vfs/base/cancel.h"
#include "vfs/base/clock.h"
#include "vfs/base/str.h"
#include "vfs/storage/auth/aws_internal.h"

#define GOOD "{\"Version\": 1, \"AccessKeyId\": \"ID\", \"SecretAccessKey\": \"topsecret\""

/* ---- kit ---- */

static lj_code run(const char *command, const bool *cancel, lj_token *token, lj_error *err)
{
    lj_aws_source source = {.kind = LJ_AWS_PROCESS, .process_deadline_ns = 2 * LJ_NS_PER_S};
    source.origin = lj_str_dup("profile x");
    source.command = lj_str_dup(command);
    assert_non_null(source.origin);
    assert_non_null(source.command);
    *err = (lj_error)LJ_ERROR_INIT;
    *token = (lj_token)LJ_TOKEN_INIT;
    const bool *outer = lj_cancel_swap(cancel);
    lj_code code = lj_aws_process_fetch(&source, token, err);
    lj_cancel_swap(outer);
    free(source.origin);
    free(source.command);
    if (code != LJ_OK) {
        assert_int_equal(err->code, code);
        assert_null(strstr(err->message, "topsecret"));
        assert_null(strstr(err->hint, "topsecret"));
    }
    return code;
}

static void expect_good(const char *command, const char *session)
{
    lj_error err;
    lj_token token;
    assert_ok(run(command, NULL, &token, &err), &err);
    assert_string_equal(lj_secret_text(&token.values[LJ_AWS_KEY_ID]), "ID");
    assert_string_equal(lj_secret_text(&token.values[LJ_AWS_SECRET_KEY]), "topsecret");
    assert_string_equal(lj_secret_text(&token.values[LJ_AWS_SESSION_TOKEN]), session);
    lj_token_free(&token);
}

static void expect_error(const char *command, lj_code code, const char *message)
{
    lj_error err;
    lj_token token;
    assert_int_equal(run(command, NULL, &token, &err), code);
    assert_string_equal(err.message, message);
    assert_true(err.retryable);
}

/* No child of this process is left. */
static void expect_no_child(void)
{
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
}

/* ---- tests ---- */

static void test_output(void **state)
{
    (void)state;
    expect_good("echo '" GOOD "}'", "");
    expect_good(
        "echo '" GOOD ", \"SessionToken\": \"t\", \"Expiration\": \"2120-01-01T00:00:00Z\"}'", "t");
    expect_good("sleep 0.05; printf '" GOOD "'; sleep 0.05; echo '}'; echo noise >&2", "");
    expect_no_child();
}

static void test_output_that_is_none(void **state)
{
    (void)state;
    const char *not_json = "AWS credentials of profile x: the answer is not JSON";
    expect_error("true", LJ_CORRUPT, not_json);
    expect_error("echo topsecret", LJ_CORRUPT, not_json);
    expect_error("echo '[1]'", LJ_CORRUPT, not_json);
    expect_error("echo '" GOOD "'", LJ_CORRUPT, not_json);
    expect_error("echo '" GOOD "}{}'", LJ_CORRUPT, not_json);
    expect_error("echo '{\"AccessKeyId\": \"ID\", \"SecretAccessKey\": \"topsecret\"}'", LJ_CORRUPT,
                 "AWS credentials of profile x: Version is not 1");
    expect_error("echo '{\"Version\": 1, \"AccessKeyId\": \"ID\"}'", LJ_CORRUPT,
                 "AWS credentials of profile x: no secret key");
    expect_error("echo '{\"Version\": 1, \"SecretAccessKey\": \"topsecret\"}'", LJ_CORRUPT,
                 "AWS credentials of profile x: no key id");
    expect_error("echo '" GOOD ", \"Expiration\": \"tomorrow\"}'", LJ_CORRUPT,
                 "AWS credentials of profile x: malformed Expiration");
    expect_error("echo '" GOOD ", \"Expiration\": \"2020-01-01T00:00:00Z\"}'", LJ_DENIED,
                 "AWS credentials of profile x: expired at 2020-01-01T00:00:00Z");
    expect_error("head -c 65537 /dev/zero", LJ_CORRUPT,
                 "AWS credentials of profile x: credential_process printed more than 64 KiB");
    expect_no_child();
}

static void test_failures(void **state)
{
    (void)state;
    expect_error("echo '" GOOD "}'; exit 7", LJ_DENIED,
                 "AWS credentials of profile x: credential_process ended with status 7");
    expect_error("/nowhere/tool", LJ_DENIED,
                 "AWS credentials of profile x: credential_process ended with status 127");
    expect_error("kill -TERM $$", LJ_DENIED,
                 "AWS credentials of profile x: credential_process ended with signal 15");
    expect_no_child();
}

/* With its output open, with it closed, and with a child of its own that holds it. */
static void test_one_that_does_not_end_is_ended(void **state)
{
    (void)state;
    static const char *const commands[] = {"sleep 100", "exec >&-; sleep 100", "sleep 100 & wait",
                                           "trap '' TERM INT; while :; do sleep 100; done"};
    for (size_t i = 0; i < LJ_ARRAY_LEN(commands); i++) {
        int64_t start_ns = lj_clock_mono_ns();
        expect_error(commands[i], LJ_TIMEOUT,
                     "AWS credentials of profile x: credential_process did not end within 2s");
        assert_in_range(lj_clock_mono_ns() - start_ns, 2 * LJ_NS_PER_S, 20 * LJ_NS_PER_S);
        expect_no_child();
    }
}

static bool cancelled;

static void *cancel_soon(void *ctx)
{
    (void)ctx;
    lj_clock_sleep_ns(300 * LJ_NS_PER_MS);
    __atomic_store_n(&cancelled, true, __ATOMIC_RELAXED);
    return NULL;
}

static void test_waiting_can_be_cancelled(void **state)
{
    (void)state;
    static const char *const commands[] = {"sleep 100", "exec >&-; sleep 100"};
    for (size_t i = 0; i < LJ_ARRAY_LEN(commands); i++) {
        lj_error err;
        lj_token token;
        pthread_t thread;
        __atomic_store_n(&cancelled, false, __ATOMIC_RELAXED);
        assert_int_equal(pthread_create(&thread, NULL, cancel_soon, NULL), 0);
        int64_t start_ns = lj_clock_mono_ns();
        assert_int_equal(run(commands[i], &cancelled, &token, &err), LJ_CANCELLED);
        assert_in_range(lj_clock_mono_ns() - start_ns, 0, 20 * LJ_NS_PER_S);
        assert_int_equal(pthread_join(thread, NULL), 0);
        expect_no_child();
    }
}

static void ignore_signal(int number)
{
    (void)number;
}

/* The child sees none of it: a handler, an ignored signal, a blocked one, descriptors, standard input. (What libc keeps for
 * itself, from 32 on, is its own affair.) */
static void test_the_child_starts_with_a_clean_table(void **state)
{
    (void)state;
    int fd = open("/dev/null", O_RDONLY); /* without O_CLOEXEC, as a host may have it */
    assert_true(fd >= 0);
    sigset_t blocked;
    sigset_t before;
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGUSR2);
    assert_int_equal(pthread_sigmask(SIG_BLOCK, &blocked, &before), 0);
    void (*pipe_before)(int) = signal(SIGPIPE, SIG_IGN);
    void (*term_before)(int) = signal(SIGTERM, ignore_signal);
    char command[512];
    snprintf(command, sizeof(command),
             "grep -q '^SigBlk:.0*$' /proc/self/status && "
             "grep -q '^SigIgn:.*[08]0000000$' /proc/self/status && "
             "[ ! -e /proc/$$/fd/%d ] && ! read line && echo '" GOOD "}'",
             fd);
    expect_good(command, "");
    signal(SIGPIPE, pipe_before);
    signal(SIGTERM, term_before);
    assert_int_equal(pthread_sigmask(SIG_SETMASK, &before, NULL), 0);
    close(fd);
}

/* A host that ignores SIGCHLD takes the exit status away. */
static void test_a_host_that_does_not_want_to_know_of_children(void **state)
{
    (void)state;
    void (*before)(int) = signal(SIGCHLD, SIG_IGN);
    expect_good("echo '" GOOD "}'", "");
    expect_good("echo '" GOOD "}'; exit 7", ""); /* the output alone counts */
    expect_error("echo oops; exit 7", LJ_CORRUPT,
                 "AWS credentials of profile x: the answer is not JSON");
    expect_error("sleep 100", LJ_TIMEOUT,
                 "AWS credentials of profile x: credential_process did not end within 2s");
    signal(SIGCHLD, before);
}

static void reap_all(int number)
{
    (void)number;
    int kept = errno;
    while (waitpid(-1, NULL, WNOHANG) > 0)
        ;
    errno = kept;
}

static void test_a_host_that_reaps_every_child(void **state)
{
    (void)state;
    struct sigaction action = {.sa_handler = reap_all, .sa_flags = SA_RESTART};
    struct sigaction before;
    assert_int_equal(sigaction(SIGCHLD, &action, &before), 0);
    for (int i = 0; i < 20; i++)
        expect_good("echo '" GOOD "}'", "");
    assert_int_equal(sigaction(SIGCHLD, &before, NULL), 0);
}

/* Then pipes and the child's own descriptors come out of the same low numbers. */
static void test_a_host_without_standard_streams(void **state)
{
    (void)state;
    int kept[3];
    for (int fd = 0; fd < 3; fd++) {
        kept[fd] = fcntl(fd, F_DUPFD_CLOEXEC, 10);
        assert_true(kept[fd] >= 0);
    }
    lj_error err;
    lj_token token;
    for (int fd = 0; fd < 3; fd++)
        close(fd);
    lj_code code = run("echo '" GOOD "}'", NULL, &token, &err);
    for (int fd = 0; fd < 3; fd++) {
        dup2(kept[fd], fd);
        close(kept[fd]);
    }
    assert_ok(code, &err);
    lj_token_free(&token);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_output),
        cmocka_unit_test(test_output_that_is_none),
        cmocka_unit_test(test_failures),
        cmocka_unit_test(test_one_that_does_not_end_is_ended),
        cmocka_unit_test(test_waiting_can_be_cancelled),
        cmocka_unit_test(test_the_child_starts_with_a_clean_table),
        cmocka_unit_test(test_a_host_that_does_not_want_to_know_of_children),
        cmocka_unit_test(test_a_host_that_reaps_every_child),
        cmocka_unit_test(test_a_host_without_standard_streams),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
