/*
 * target.h - what a command works on: the replicas of a database in litestream.yml, or the one a URL names.
 *
 * Layer: tools. Thread-safety: one thread.
 */
#ifndef LJ_TOOLS_TARGET_H
#define LJ_TOOLS_TARGET_H

#include "tools/litestream_config.h"
#include "vfs/storage/storage.h"

typedef struct {
    const char *name; /* in the config; of a URL its type */
    lj_storage *storage;
} target_replica;

typedef struct {
    litestream_config *config; /* NULL for a URL */
    const litestream_db *db;   /* NULL for a URL */
    target_replica *replicas;
    size_t count;
    lj_error
        left_out; /* why the first replica could not be opened that is missing there; LJ_OK: none is */
} target;

/* What the flags say. */
typedef struct {
    const char *config_path; /* -config, NULL = not given */
    bool no_expand_env;
    const char *replica; /* -replica, NULL = all */
    const bool *cancel;  /* ends what waits for a network, see lj_storage_options; may be NULL */
} target_flags;

/* True for what v0.3.13 takes for a replica URL: word characters and "://". */
bool target_is_url(const char *text);

/*
 * Resolves `text` (a database path or a replica URL). Nothing is requested from a replica yet. A replica that cannot be
 * opened is an error when there is no other, else a warning in the log, and left_out: what it holds nobody has seen. To be
 * closed with target_close in any case.
 */
LJ_WARN_UNUSED lj_code target_open(target *t, const char *text, const target_flags *flags,
                                   lj_error *err);
void target_close(target *t);

/* Loads the config that counts, and sets the log level it names. */
LJ_WARN_UNUSED lj_code target_load_config(const target_flags *flags, litestream_config **ret_config,
                                          lj_error *err);

#endif
