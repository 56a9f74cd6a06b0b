/*
 * conformance_main.c - runs the conformance suite (test/unit/storage/conformance.h) on any replica URL:
 *
 *     storage_conformance URL [NAME=VALUE]...
 *
 * NAME=VALUE are settings as in litestream.yml. LJ_CONFORMANCE_KEYS and LJ_CONFORMANCE_BYTES say how many objects the long
 * listing has (2,500) and how large the large object is (64 MiB). The scripts in test/storage start the servers.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "test/unit/storage/conformance.h"
#include "vfs/base/log.h"
#include "vfs/base/str.h"

#define SETTINGS_MAX 16

static void to_stderr(void *ctx, lj_log_level level, const char *line)
{
    (void)ctx;
    fprintf(stderr, "# log: %s: %s\n", lj_log_level_name(level), line);
}

static uint64_t number_of(const char *variable, uint64_t otherwise)
{
    uint64_t n = 0;
    const char *text = getenv(variable);
    return text != NULL && lj_str_u64(text, &n) ? n : otherwise;
}

int main(int argc, char **argv)
{
    lj_storage_setting settings[SETTINGS_MAX];
    lj_storage_options options = {.settings = settings};
    for (int i = 2; i < argc && options.setting_count < SETTINGS_MAX; i++) {
        char *value = strchr(argv[i], '=');
        if (value == NULL)
            break;
        *value = 0;
        settings[options.setting_count++] = (lj_storage_setting){argv[i], value + 1};
    }
    if (argc < 2 || options.setting_count + 2 != (size_t)argc) {
        fprintf(stderr, "usage: storage_conformance URL [NAME=VALUE]...\n");
        return 2;
    }
    lj_log_install(to_stderr, NULL, LJ_LOG_INFO);
    lj_error err = LJ_ERROR_INIT;
    conformance_setup setup = {.many_keys = (size_t)number_of("LJ_CONFORMANCE_KEYS", 2500),
                               .large_bytes = number_of("LJ_CONFORMANCE_BYTES", 64u << 20)};
    if (lj_storage_open(argv[1], &options, &setup.storage, &err) != LJ_OK) {
        fprintf(stderr, "%s (%s)\n", err.message, err.hint);
        return 1;
    }
    int failed = conformance_run(&setup);
    lj_storage_close(setup.storage);
    return failed == 0 ? 0 : 1;
}
