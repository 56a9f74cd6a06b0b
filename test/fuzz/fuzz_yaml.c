/*
 * fuzz_yaml.c - litejoin.yaml: any bytes give a config or an error that says where, and a config that is refused is
 * the one it was before.
 */
#include "test/fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "vfs/config/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    lj_error err = LJ_ERROR_INIT;
    lj_config config;
    lj_config fresh;
    lj_config_init(&config);
    lj_config_init(&fresh);
    lj_code code =
        lj_config_parse_yaml(&config, "f.yaml", size > 0 ? (const char *)data : "", size, &err);
    if (code != LJ_OK) {
        FUZZ_CHECK(code == LJ_INVALID);
        FUZZ_CHECK(strncmp(err.message, "f.yaml:", 7) == 0);
        /* NOLINTNEXTLINE(bugprone-suspicious-memory-comparison): untouched means byte for byte */
        FUZZ_CHECK(memcmp(&config, &fresh, sizeof(config)) == 0);
    } else {
        FUZZ_CHECK(config.replica_url == NULL || config.replica_url_origin == LJ_ORIGIN_FILE);
        FUZZ_CHECK(config.replica_name == NULL && !config.default_vfs);
        code = lj_config_finish(&config, &err);
        FUZZ_CHECK(code == LJ_OK || code == LJ_INVALID);
        FUZZ_CHECK(!lj_config_embedded(&config) || config.replica_url != NULL);
    }
    lj_config_clear(&config);
    return 0;
}
