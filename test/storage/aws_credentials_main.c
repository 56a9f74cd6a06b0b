/*
 * aws_credentials_main.c - asks for AWS credentials at intervals and says which it got, one line of JSON each, never a secret:
 *
 *     aws_credentials [NAME=NUMBER]... [profile=TEXT] [region=TEXT] [access-key-id=TEXT] [secret-access-key=TEXT]
 *
 *     {"thread": 0, "ms": 12, "took": 3, "key": "ASIA...", "left": 1990}     left: milliseconds to its expiry, -1: never
 *     {"thread": 0, "ms": 12, "took": 3, "error": 9, "retryable": true, "http": 403, "message": "...", "hint": "..."}
 *
 * Numbers: rounds (1), interval (ms, 0), threads (1; each with a provider of its own), refuse (1: every credential is reported
 * as expired), cancel (ms after which all is cancelled), timeout (ms, io_timeout). later=NAME=TEXT comes into the environment
 * once the provider is made. Log lines go to stderr.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vfs/base/clock.h"
#include "vfs/base/log.h"
#include "vfs/base/str.h"
#include "vfs/storage/auth/aws.h"

#define THREADS_MAX 64u
#define TEXT_MAX    2048

static lj_aws_options options;
static uint64_t rounds = 1;
static uint64_t interval_ms;
static uint64_t thread_count = 1;
static uint64_t refuse;
static uint64_t cancel_ms;
static uint64_t timeout_ms;
static const char *later;
static bool cancelled;
static int64_t start_ns;

static int64_t ms_since(int64_t ns)
{
    return (lj_clock_mono_ns() - ns) / LJ_NS_PER_MS;
}

static void say_error(size_t thread, int64_t took_ms, const lj_error *err)
{
    char message[TEXT_MAX];
    char hint[TEXT_MAX];
    lj_str_json(message, sizeof(message), err->message);
    lj_str_json(hint, sizeof(hint), err->hint);
    printf("{\"thread\": %zu, \"ms\": %lld, \"took\": %lld, \"error\": %d, \"retryable\": %s, "
           "\"http\": %d, "
           "\"message\": %s, \"hint\": %s}\n",
           thread, (long long)ms_since(start_ns), (long long)took_ms, err->code,
           err->retryable ? "true" : "false", err->http_status, message, hint);
}

static void say_token(size_t thread, int64_t took_ms, const lj_token *token)
{
    int64_t left_ms =
        token->expires_ns == 0 ? -1 : (token->expires_ns - lj_clock_wall_ns()) / LJ_NS_PER_MS;
    char key[TEXT_MAX];
    lj_str_json(key, sizeof(key), lj_secret_text(&token->values[LJ_AWS_KEY_ID]));
    printf("{\"thread\": %zu, \"ms\": %lld, \"took\": %lld, \"key\": %s, \"left\": %lld}\n", thread,
           (long long)ms_since(start_ns), (long long)took_ms, key, (long long)left_ms);
}

static void ask(size_t thread, lj_token_source *source)
{
    lj_error err = LJ_ERROR_INIT;
    lj_token token = LJ_TOKEN_INIT;
    int64_t begin_ns = lj_clock_mono_ns();
    lj_code code = lj_token_get_until(source, &cancelled, &token, &err);
    int64_t took_ms = ms_since(begin_ns);
    if (code != LJ_OK) {
        say_error(thread, took_ms, &err);
        return;
    }
    say_token(thread, took_ms, &token);
    if (refuse != 0)
        lj_token_expired(source, &token);
    lj_token_free(&token);
}

static void *run(void *ctx)
{
    size_t thread = (size_t)(uintptr_t)ctx;
    lj_error err = LJ_ERROR_INIT;
    lj_aws_provider *provider = NULL;
    if (lj_aws_provider_new(&options, &provider, &err) != LJ_OK) {
        say_error(thread, 0, &err);
        return NULL;
    }
    if (later != NULL)
        putenv((char *)(uintptr_t)later);
    for (uint64_t i = 0; i < rounds; i++) {
        if (i > 0)
            lj_clock_sleep_ns((int64_t)interval_ms * LJ_NS_PER_MS);
        ask(thread, lj_aws_provider_token(provider));
        fflush(stdout);
    }
    lj_aws_provider_free(provider);
    return NULL;
}

static void *cancel_later(void *ctx)
{
    (void)ctx;
    lj_clock_sleep_ns((int64_t)cancel_ms * LJ_NS_PER_MS);
    __atomic_store_n(&cancelled, true, __ATOMIC_RELAXED);
    return NULL;
}

static void to_stderr(void *ctx, lj_log_level level, const char *line)
{
    (void)ctx;
    fprintf(stderr, "%s: %s\n", lj_log_level_name(level), line);
}

static bool take(const char *name, const char *value)
{
    const struct {
        const char *name;
        uint64_t *number;
        const char **text;
    } arguments[] = {
        {"rounds", &rounds, NULL},
        {"interval", &interval_ms, NULL},
        {"threads", &thread_count, NULL},
        {"refuse", &refuse, NULL},
        {"cancel", &cancel_ms, NULL},
        {"timeout", &timeout_ms, NULL},
        {"later", NULL, &later},
        {"profile", NULL, &options.profile},
        {"region", NULL, &options.region},
        {"access-key-id", NULL, &options.access_key_id},
        {"secret-access-key", NULL, &options.secret_access_key},
    };
    for (size_t i = 0; i < LJ_ARRAY_LEN(arguments); i++) {
        if (strcmp(name, arguments[i].name) != 0)
            continue;
        if (arguments[i].number != NULL)
            return lj_str_u64(value, arguments[i].number);
        *arguments[i].text = value;
        return true;
    }
    return false;
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        char *value = strchr(argv[i], '=');
        if (value != NULL)
            *value++ = 0;
        if (value == NULL || !take(argv[i], value) || thread_count > THREADS_MAX) {
            fprintf(stderr, "usage: aws_credentials [NAME=VALUE]...\n");
            return 2;
        }
    }
    options.io_timeout_ns = (int64_t)timeout_ms * LJ_NS_PER_MS;
    lj_log_install(to_stderr, NULL, LJ_LOG_DEBUG);
    start_ns = lj_clock_mono_ns();
    pthread_t threads[THREADS_MAX];
    pthread_t canceller;
    bool cancels = cancel_ms > 0 && pthread_create(&canceller, NULL, cancel_later, NULL) == 0;
    for (size_t i = 0; i < thread_count; i++) {
        if (pthread_create(&threads[i], NULL, run, (void *)(uintptr_t)i) != 0)
            return 1;
    }
    for (size_t i = 0; i < thread_count; i++)
        pthread_join(threads[i], NULL);
    if (cancels)
        pthread_join(canceller, NULL);
    return 0;
}
