/*
 * help.c - the option table as text.
 *
 * Layer: config. Thread-safety: pure.
 */
#include "vfs/config/config.h"

lj_code lj_config_render_table(lj_buf *out, lj_error *err)
{
    LJ_TRY(lj_buf_printf(out, err, "| option | type | default | allowed | set | |\n"));
    LJ_TRY(lj_buf_printf(out, err, "|---|---|---|---|---|---|\n"));
    const lj_config_option_info *info;
    for (size_t i = 0; (info = lj_config_option_at(i)) != NULL; i++) {
        LJ_TRY(lj_buf_printf(out, err, "| `%s` | %s | %s | %s | %s | %s |\n", info->name,
                             info->type, info->default_text, info->allowed, info->where,
                             info->help));
    }
    return LJ_OK;
}
