/*
 * aws_files.c - where the shared files of the AWS tools are, and what a profile says in both of them (aws_profile.h).
 *
 * Layer: storage. Thread-safety: reads the environment in lj_aws_files_find only.
 */
#include "vfs/storage/auth/aws_profile.h"

#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vfs/base/io.h"
#include "vfs/base/str.h"

#define PASSWD_BYTES 16384

/* HOME, else what the user database says; NULL: none. Allocated. */
static lj_code find_home(char **ret_home, lj_error *err)
{
    const char *home = getenv("HOME");
    char *bytes = NULL;
    struct passwd entry;
    struct passwd *found = NULL;
    if (home == NULL || home[0] == 0) {
        bytes = malloc(PASSWD_BYTES);
        if (bytes == NULL)
            return lj_error_nomem(err);
        if (getpwuid_r(geteuid(), &entry, bytes, PASSWD_BYTES, &found) != 0)
            found = NULL;
        home = found != NULL ? found->pw_dir : NULL;
    }
    char *copy = lj_str_dup(home);
    bool nomem = home != NULL && copy == NULL;
    free(bytes);
    if (nomem)
        return lj_error_nomem(err);
    *ret_home = copy;
    return LJ_OK;
}

static bool is_set(const char *variable)
{
    const char *value = getenv(variable);
    return value != NULL && value[0] != 0;
}

static lj_code find_path(const char *variable, const char *home, const char *name, char **ret_path,
                         lj_error *err)
{
    if (!is_set(variable) && home == NULL)
        return LJ_OK;
    char *path =
        is_set(variable) ? lj_str_dup(getenv(variable)) : lj_str_printf("%s/.aws/%s", home, name);
    if (path == NULL)
        return lj_error_nomem(err);
    *ret_path = path;
    return LJ_OK;
}

lj_code lj_aws_files_find(lj_aws_files *ret_files, lj_error *err)
{
    LJ_CLEANUP(lj_freep) char *home = NULL;
    LJ_TRY(find_home(&home, err));
    lj_aws_files files = {.config_named = is_set("AWS_CONFIG_FILE"),
                          .credentials_named = is_set("AWS_SHARED_CREDENTIALS_FILE")};
    lj_code code = find_path("AWS_CONFIG_FILE", home, "config", &files.config_path, err);
    if (code == LJ_OK)
        code = find_path("AWS_SHARED_CREDENTIALS_FILE", home, "credentials",
                         &files.credentials_path, err);
    if (code != LJ_OK) {
        lj_aws_files_free(&files);
        return code;
    }
    *ret_files = files;
    return LJ_OK;
}

void lj_aws_files_free(lj_aws_files *files)
{
    free(files->config_path);
    free(files->credentials_path);
    *files = (lj_aws_files){.config_path = NULL};
}

static lj_code read_one(const char *path, bool named, lj_aws_file_kind kind, const char *name,
                        lj_aws_profile *ret_profile, lj_error *err)
{
    if (path == NULL)
        return LJ_OK;
    char *text = NULL;
    size_t len = 0;
    lj_error error = LJ_ERROR_INIT;
    lj_code code = lj_io_read_file(path, LJ_AWS_FILE_MAX, &text, &len, &error);
    /* a service that runs under a foreign HOME must not fail on it */
    if (code == LJ_NOTFOUND || (code == LJ_DENIED && !named))
        return LJ_OK;
    if (code == LJ_OK)
        code = lj_aws_profile_parse(path, kind, text, len, name, ret_profile, &error);
    if (text != NULL)
        lj_wipe(text, len);
    free(text);
    if (code != LJ_OK && err != NULL)
        *err = error;
    return code;
}

lj_code lj_aws_files_read(const lj_aws_files *files, const char *name, lj_aws_profile *ret_profile,
                          lj_error *err)
{
    lj_aws_profile profile = {.found = false};
    lj_aws_profile credentials = {.found = false};
    lj_code code =
        read_one(files->config_path, files->config_named, LJ_AWS_CONFIG_FILE, name, &profile, err);
    if (code == LJ_OK)
        code = read_one(files->credentials_path, files->credentials_named, LJ_AWS_CREDENTIALS_FILE,
                        name, &credentials, err);
    if (code == LJ_OK)
        code = lj_aws_profile_merge(&profile, &credentials, err);
    lj_aws_profile_free(&credentials);
    if (code != LJ_OK) {
        lj_aws_profile_free(&profile);
        return code;
    }
    *ret_profile = profile;
    return LJ_OK;
}
