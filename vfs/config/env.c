/*
 * env.c - LITEJOIN_* variables.
 *
 * Layer: config. Thread-safety: reads the block it is given; nobody may change it meanwhile.
 */
#include "vfs/config/config.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "vfs/base/str.h"
#include "vfs/config/options.h"

#define ENV_NAME_MAX 80u

/* Not options: secrets that a storage driver reads by itself (vfs/storage/sftp), when it needs them. */
static const char *const of_drivers[] = {"LITEJOIN_SFTP_PASSWORD", "LITEJOIN_SFTP_KEY_PASSPHRASE"};

static bool is_of_driver(const char *name)
{
    for (size_t i = 0; i < LJ_ARRAY_LEN(of_drivers); i++)
        if (strcmp(of_drivers[i], name) == 0)
            return true;
    return false;
}

/* One "LITEJOIN_NAME=value". `seen` has one flag per option: of a name that is there twice the first counts, as in getenv. */
static lj_code take(lj_config *config, const char *entry, bool *seen, lj_error *err)
{
    const char *equals = strchr(entry, '=');
    if (equals == NULL || equals[1] == 0)
        return LJ_OK;
    char shown[ENV_NAME_MAX];
    char name[ENV_NAME_MAX];
    snprintf(shown, sizeof(shown), "%.*s", (int)LJ_MIN((size_t)(equals - entry), sizeof(shown) - 1),
             entry);
    if (strcmp(shown, LJ_CONFIG_ENV_FILE) == 0 || is_of_driver(shown))
        return LJ_OK;
    const char *suffix = shown + strlen(LJ_CONFIG_ENV_PREFIX);
    bool upper = true;
    size_t n = 0;
    for (; suffix[n] != 0; n++) {
        upper = upper && !islower((unsigned char)suffix[n]);
        name[n] = (char)tolower((unsigned char)suffix[n]);
    }
    name[n] = 0;
    size_t index = 0;
    const lj_option *option = lj_option_find(name, &index);
    if (option == NULL || !upper) {
        lj_code code = lj_option_unknown(LJ_ORIGIN_ENV, shown, name, equals + 1, err);
        const char *near = lj_option_nearest(name, LJ_ORIGIN_ENV);
        char text[ENV_NAME_MAX] = "CONFIG";
        for (n = 0; near != NULL && n <= strlen(near); n++)
            text[n] = (char)toupper((unsigned char)near[n]);
        if (near != NULL)
            return lj_error_hint(err, "did you mean LITEJOIN_%s?", text);
        lj_error_hint(err,
                      "the names are LITEJOIN_CONFIG and LITEJOIN_ with an option in capitals");
        return code;
    }
    if (seen[index])
        return LJ_OK;
    seen[index] = true;
    return lj_option_set(config, LJ_ORIGIN_ENV, option, shown, equals + 1, err);
}

lj_code lj_config_load_env(lj_config *config, char *const *environ_block, lj_error *err)
{
    LJ_CLEANUP(lj_config_clear) lj_config work;
    memset(&work, 0, sizeof(work));
    LJ_TRY(lj_config_copy(config, &work, err));
    bool seen[LJ_CONFIG_OPTION_MAX] = {false};
    for (size_t i = 0; environ_block != NULL && environ_block[i] != NULL; i++) {
        if (lj_str_starts(environ_block[i], LJ_CONFIG_ENV_PREFIX))
            LJ_TRY(take(&work, environ_block[i], seen, err));
    }
    lj_config done = work;
    work = *config;
    *config = done;
    return LJ_OK;
}
