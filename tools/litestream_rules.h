/*
 * litestream_rules.h - what holds between the keys of a litestream.yml, and its defaults.
 *
 * Layer: tools (internal to litestream_*.c).
 */
#ifndef LJ_TOOLS_LITESTREAM_RULES_H
#define LJ_TOOLS_LITESTREAM_RULES_H

#include "tools/litestream_config.h"

/* Checks and completes a config that was read: types, names, absolute paths, keys handed down. LJ_INVALID. */
LJ_WARN_UNUSED lj_code litestream_rules_apply(litestream_config *config, const char *name,
                                              lj_error *err);

#endif
