/*
 * fuzz_option.c - "name=value" of every option: what is accepted is accepted again from another origin, what is refused
 * leaves nothing behind, and a replica URL that is accepted gives one that is accepted for the database too.
 */
#include "test/fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "vfs/config/config.h"

static void check_url(const lj_config *config, const char *path)
{
    lj_error err = LJ_ERROR_INIT;
    char *url = NULL;
    if (config->replica_url == NULL || lj_config_replica_url(config, path, &url, &err) != LJ_OK)
        return;
    lj_config again;
    lj_config_init(&again);
    size_t most = 2048; /* the limit of a base URL, which a full one may pass */
    FUZZ_CHECK(strlen(url) > most ||
               lj_config_set(&again, LJ_ORIGIN_API, "replica_url", url, &err) == LJ_OK);
    lj_config_clear(&again);
    free(url);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1);
    if (text == NULL)
        return 0;
    if (size > 0)
        memcpy(text, data, size);
    text[size] = 0;
    char *value = strchr(text, '=');
    if (value != NULL) {
        *value++ = 0;
        lj_error err = LJ_ERROR_INIT;
        lj_config config;
        lj_config fresh;
        lj_config_init(&config);
        lj_config_init(&fresh);
        if (lj_config_set(&config, LJ_ORIGIN_URI, text, value, &err) == LJ_OK) {
            FUZZ_CHECK(lj_config_set(&config, LJ_ORIGIN_URI, text, value, &err) == LJ_OK);
            check_url(&config, "/data/shard_0.db");
        } else {
            FUZZ_CHECK(err.code == LJ_INVALID && strstr(err.message, "; allowed: ") != NULL);
            /* NOLINTNEXTLINE(bugprone-suspicious-memory-comparison): untouched means byte for byte */
            FUZZ_CHECK(memcmp(&config, &fresh, sizeof(config)) == 0);
        }
        lj_config_clear(&config);
    }
    free(text);
    return 0;
}
