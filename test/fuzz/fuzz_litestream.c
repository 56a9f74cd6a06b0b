/*
 * fuzz_litestream.c - litestream.yml: any bytes give a config or an error that says where, and of what a config names a URL
 * and settings can be made, or an error says what is missing.
 */
#include "test/fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "tools/litestream_config.h"
#include "vfs/base/secret.h"

static void use_replica(const litestream_replica *replica)
{
    lj_error err = LJ_ERROR_INIT;
    lj_storage_setting settings[LITESTREAM_SETTINGS_MAX];
    size_t count = 0;
    char *url = NULL;
    FUZZ_CHECK(replica->type != NULL && replica->name != NULL);
    if (litestream_replica_url(replica, &url, &err) == LJ_OK)
        FUZZ_CHECK(strncmp(strchr(url, ':'), "://", 3) == 0);
    else
        FUZZ_CHECK(err.code == LJ_INVALID && err.message[0] != 0);
    lj_wipe_freep(&url);
    if (litestream_replica_settings(replica, settings, &count, &err) != LJ_OK)
        return;
    FUZZ_CHECK(count <= LITESTREAM_SETTINGS_MAX);
    for (size_t i = 0; i < count; i++)
        FUZZ_CHECK(settings[i].name[0] != 0 && strlen(settings[i].value) < SIZE_MAX);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    lj_error err = LJ_ERROR_INIT;
    litestream_config *config = NULL;
    char *text = malloc(size + 1);
    if (text == NULL)
        return 0;
    if (size > 0)
        memcpy(text, data, size);
    text[size] = 0;
    char *expanded = litestream_expand_env(text);
    FUZZ_CHECK(expanded != NULL);
    if (litestream_config_parse(expanded, "l.yml", &config, &err) == LJ_OK) {
        for (size_t i = 0; i < config->db_count; i++) {
            FUZZ_CHECK(litestream_config_find(config, config->dbs[i].path) != NULL);
            for (size_t j = 0; j < config->dbs[i].replica_count; j++)
                use_replica(&config->dbs[i].replicas[j]);
        }
        litestream_config_free(config);
    } else {
        FUZZ_CHECK(err.code == LJ_INVALID && strncmp(err.message, "l.yml: ", 7) == 0);
    }
    free(expanded);
    free(text);
    return 0;
}
