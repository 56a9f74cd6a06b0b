/*
 * aws_kit.h - for the tests of AWS credentials: an environment without any name of AWS in it, a home folder of its own, and what is
 * decided there. Nothing asks a server.
 */
#ifndef AWS_KIT_H
#define AWS_KIT_H

#include "test/unit/unit.h"

#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vfs/base/str.h"
#include "vfs/storage/auth/aws.h"
#include "vfs/storage/auth/aws_internal.h"

static char home[64];

static inline void path_in_home(char *out, size_t size, const char *name)
{
    snprintf(out, size, "%s/.aws/%s", home, name);
}

static inline void write_file(const char *name, const char *text)
{
    char path[128];
    path_in_home(path, sizeof(path), name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static inline bool is_ours(const char *entry)
{
    return lj_str_starts(entry, "AWS_") || lj_str_starts(entry, "LITESTREAM_");
}

static inline void clean_environment(void)
{
    for (size_t i = 0; environ[i] != NULL;) {
        char name[128];
        snprintf(name, sizeof(name), "%.*s", (int)strcspn(environ[i], "="), environ[i]);
        if (is_ours(environ[i]))
            assert_int_equal(unsetenv(name), 0);
        else
            i++;
    }
}

static inline int setup(void **state)
{
    (void)state;
    clean_environment();
    snprintf(home, sizeof(home), "/tmp/lj-aws-XXXXXX");
    assert_non_null(mkdtemp(home));
    char path[128];
    path_in_home(path, sizeof(path), "");
    assert_int_equal(mkdir(path, 0700), 0);
    return setenv("HOME", home, 1);
}

static inline int teardown(void **state)
{
    (void)state;
    char path[512];
    path_in_home(path, sizeof(path), "");
    DIR *dir = opendir(path);
    for (struct dirent *entry; dir != NULL && (entry = readdir(dir)) != NULL;) {
        char file[1024];
        snprintf(file, sizeof(file), "%s%s", path, entry->d_name);
        if (entry->d_type != DT_DIR)
            unlink(file);
    }
    if (dir != NULL)
        closedir(dir);
    rmdir(path);
    return rmdir(home);
}

static inline void env(const char *name, const char *value)
{
    assert_int_equal(setenv(name, value, 1), 0);
}

static inline lj_code refuse(const lj_aws_options *options, lj_error *err)
{
    lj_aws_provider *provider = NULL;
    lj_code code = lj_aws_provider_new(options, &provider, err);
    assert_null(provider);
    assert_int_equal(code, err->code);
    return code;
}

/* The credentials that come out without a request; NULL for `session`: none. */
static inline void expect_keys(const lj_aws_options *options, const char *id, const char *secret,
                               const char *session)
{
    lj_error err = LJ_ERROR_INIT;
    lj_aws_provider *provider = NULL;
    assert_ok(lj_aws_provider_new(options, &provider, &err), &err);
    lj_token token = LJ_TOKEN_INIT;
    assert_ok(lj_token_get(lj_aws_provider_token(provider), &token, &err), &err);
    assert_string_equal(lj_secret_text(&token.values[LJ_AWS_KEY_ID]), id);
    assert_string_equal(lj_secret_text(&token.values[LJ_AWS_SECRET_KEY]), secret);
    assert_string_equal(lj_secret_text(&token.values[LJ_AWS_SESSION_TOKEN]),
                        session != NULL ? session : "");
    lj_token_free(&token);
    lj_aws_provider_free(provider);
}

/* What is decided; freed by lj_aws_source_free. */
static inline lj_aws_source *decide(const lj_aws_options *options)
{
    lj_error err = LJ_ERROR_INIT;
    lj_aws_source *source = calloc(1, sizeof(*source));
    char *region = NULL;
    assert_non_null(source);
    assert_ok(lj_aws_chain_decide(options, source, &region, &err), &err);
    free(region);
    return source;
}

static const lj_aws_options none = {.profile = NULL};

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

#endif
