/*
 * aws_process.c - credential_process: a program of the operator's that prints credentials.
 *
 * This runs inside somebody else's process: no fork (posix_spawn does not run the host's atfork handlers), no signal handler,
 * and nothing of the host's terminal. The program gets default signals, an empty standard input, and none of the host's
 * descriptors where libc can do that. A host that ignores SIGCHLD or reaps every child takes the exit status away from us;
 * then the output alone counts.
 *
 * Layer: storage. Source: AWS SDKs and Tools reference, "Process credential provider".
 */
#include "vfs/storage/auth/aws_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vfs/base/cancel.h"
#include "vfs/base/clock.h"

#define OUTPUT_MAX     ((size_t)64 * 1024)
#define DEADLINE_NS    (60 * LJ_NS_PER_S)
#define KILLED_WAIT_NS (1 * LJ_NS_PER_S)
#define POLL_MS        100
#define REAP_POLL_NS   (5 * LJ_NS_PER_MS)
#define CHILD_STDIN    0
#define CHILD_OUTPUT   1
#define CHILD_ERRORS   2
#define FIRST_FREE_FD  3

typedef struct {
    const lj_aws_source *source;
    pid_t pid; /* and its process group */
    int fd;    /* its output; -1: closed */
    int64_t deadline_ns;
    int64_t end_ns;
    char *output; /* OUTPUT_MAX + 1 bytes */
    size_t len;
    lj_error *err;
} child;

/* ---- starting ---- */

static lj_code failed(lj_error *err, int number, const char *what)
{
    lj_error_errno(err, number, "cannot run a credential_process: %s", what);
    return lj_error_retryable(err, true);
}

/* A pipe whose ends are not among 0, 1, 2, which a host may have closed. */
static lj_code make_pipe(int ret_fds[2], lj_error *err)
{
    int fds[2] = {-1, -1};
    if (pipe2(fds, O_CLOEXEC) != 0)
        return failed(err, errno, "pipe");
    int number = 0;
    for (int i = 0; i < 2; i++) {
        if (fds[i] >= FIRST_FREE_FD)
            continue;
        int moved = fcntl(fds[i], F_DUPFD_CLOEXEC, FIRST_FREE_FD);
        number = moved < 0 && number == 0 ? errno : number;
        close(fds[i]);
        fds[i] = moved;
    }
    if (number != 0) {
        lj_closep(&fds[0]);
        lj_closep(&fds[1]);
        return failed(err, number, "dup");
    }
    ret_fds[0] = fds[0];
    ret_fds[1] = fds[1];
    return LJ_OK;
}

static int prepare(posix_spawn_file_actions_t *actions, posix_spawnattr_t *attr, int output)
{
    sigset_t all;
    sigset_t empty;
    sigfillset(&all);
    sigemptyset(&empty);
    int flags = POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETPGROUP;
    int number = posix_spawn_file_actions_addopen(actions, CHILD_STDIN, "/dev/null", O_RDONLY, 0);
    if (number == 0)
        number = posix_spawn_file_actions_adddup2(actions, output, CHILD_OUTPUT);
    if (number == 0)
        number = posix_spawn_file_actions_addopen(actions, CHILD_ERRORS, "/dev/null", O_WRONLY, 0);
#if defined(__GLIBC__) && __GLIBC_PREREQ(2, 34)
    if (number == 0)
        number = posix_spawn_file_actions_addclosefrom_np(actions, FIRST_FREE_FD);
#endif
    if (number == 0)
        number = posix_spawnattr_setsigdefault(attr, &all);
    if (number == 0)
        number = posix_spawnattr_setsigmask(attr, &empty);
    if (number == 0)
        number =
            posix_spawnattr_setpgroup(attr, 0); /* of its own, so that all of it can be ended */
    if (number == 0)
        number = posix_spawnattr_setflags(attr, (short)flags);
    return number;
}

static int spawn(const char *command, int output, pid_t *ret_pid)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attr;
    int number = posix_spawn_file_actions_init(&actions);
    if (number != 0)
        return number;
    number = posix_spawnattr_init(&attr);
    if (number == 0) {
        char *const argv[] = {(char *)(uintptr_t) "sh", (char *)(uintptr_t) "-c",
                              (char *)(uintptr_t)command, NULL};
        number = prepare(&actions, &attr, output);
        if (number == 0)
            number = posix_spawn(ret_pid, "/bin/sh", &actions, &attr, argv, environ);
        posix_spawnattr_destroy(&attr);
    }
    posix_spawn_file_actions_destroy(&actions);
    return number;
}

static lj_code start(child *c)
{
    int fds[2] = {-1, -1};
    LJ_TRY(make_pipe(fds, c->err));
    int number = spawn(c->source->command, fds[1], &c->pid);
    close(fds[1]);
    if (number != 0) {
        close(fds[0]);
        return failed(c->err, number, "/bin/sh");
    }
    c->fd = fds[0];
    return LJ_OK;
}

/* ---- its output and its end ---- */

static lj_code out_of_time(const child *c)
{
    char limit[LJ_CLOCK_TEXT_MAX];
    lj_clock_format_duration(c->deadline_ns, limit);
    lj_error_set(c->err, LJ_TIMEOUT,
                 "AWS credentials of %.200s: credential_process did not end within %s",
                 c->source->origin, limit);
    lj_error_hint(c->err, "it was ended; it must not wait for somebody to type");
    return lj_error_retryable(c->err, true);
}

static lj_code check_time(const child *c)
{
    if (lj_cancel_requested(NULL))
        return lj_error_set(c->err, LJ_CANCELLED, "cancelled");
    return lj_clock_mono_ns() >= c->end_ns ? out_of_time(c) : LJ_OK;
}

static lj_code read_output(child *c)
{
    for (;;) {
        LJ_TRY(check_time(c));
        struct pollfd wait = {.fd = c->fd, .events = POLLIN};
        int ready = poll(&wait, 1, POLL_MS);
        if (ready == 0 || (ready < 0 && errno == EINTR))
            continue;
        ssize_t n = ready < 0 ? -1 : read(c->fd, c->output + c->len, OUTPUT_MAX + 1 - c->len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return failed(c->err, errno, "read");
        if (n == 0)
            return LJ_OK;
        c->len += (size_t)n;
        if (c->len > OUTPUT_MAX) {
            lj_error_set(c->err, LJ_CORRUPT,
                         "AWS credentials of %.200s: credential_process printed more than 64 KiB",
                         c->source->origin);
            return lj_error_retryable(c->err, true);
        }
    }
}

/* *ret_reaped: the child is gone. *ret_known: and this is its status. */
static void try_reap(const child *c, bool *ret_reaped, bool *ret_known, int *ret_status)
{
    pid_t got = 0;
    do {
        got = waitpid(c->pid, ret_status, WNOHANG);
    } while (got < 0 && errno == EINTR);
    *ret_reaped = got != 0; /* an error is ECHILD: the host took it, or never wanted to know */
    *ret_known = got == c->pid;
}

static lj_code wait_for_end(child *c, bool *ret_reaped)
{
    bool known = false;
    int status = 0;
    for (;;) {
        try_reap(c, ret_reaped, &known, &status);
        if (*ret_reaped)
            break;
        LJ_TRY(check_time(c));
        lj_clock_sleep_ns(REAP_POLL_NS);
    }
    if (!known || (WIFEXITED(status) && WEXITSTATUS(status) == 0))
        return LJ_OK;
    lj_error_set(c->err, LJ_DENIED,
                 "AWS credentials of %.200s: credential_process ended with %s %d",
                 c->source->origin, WIFEXITED(status) ? "status" : "signal",
                 WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
    lj_error_hint(c->err, "run the profile's command by hand as the same user: it says why");
    return lj_error_retryable(c->err, true);
}

/* Its output is open, or it can still be waited for: the process group is its own and not somebody else's by now. */
static void end(const child *c)
{
    bool reaped = false;
    bool known = false;
    int status = 0;
    killpg(c->pid, SIGKILL);
    int64_t until_ns = lj_clock_mono_ns() + KILLED_WAIT_NS;
    for (;;) {
        try_reap(c, &reaped, &known, &status);
        if (reaped || lj_clock_mono_ns() >= until_ns)
            return;
        lj_clock_sleep_ns(REAP_POLL_NS);
    }
}

static lj_code run(child *c, lj_token *ret_token)
{
    LJ_TRY(start(c));
    bool reaped = false;
    lj_code code = read_output(c);
    if (code == LJ_OK)
        code = wait_for_end(c, &reaped);
    if (!reaped)
        end(c);
    close(c->fd);
    if (code != LJ_OK)
        return code;
    c->output[c->len] = 0;
    code = lj_aws_json_token(c->source->origin, LJ_AWS_JSON_PROCESS, c->output, c->len, 0,
                             ret_token, c->err);
    if (code == LJ_CORRUPT)
        lj_error_hint(c->err,
                      "credential_process has to print {\"Version\": 1, \"AccessKeyId\": ...} "
                      "and nothing else");
    return code;
}

lj_code lj_aws_process_fetch(const lj_aws_source *source, lj_token *ret_token, lj_error *err)
{
    child c = {.source = source, .fd = -1, .err = err};
    c.deadline_ns = source->process_deadline_ns > 0 ? source->process_deadline_ns : DEADLINE_NS;
    c.end_ns = lj_clock_mono_ns() + c.deadline_ns;
    c.output = malloc(OUTPUT_MAX + 2);
    if (c.output == NULL)
        return lj_error_nomem(err);
    lj_code code = run(&c, ret_token);
    lj_wipe(c.output, c.len);
    free(c.output);
    return code;
}
