/*
 * claim.h - which database of this process has which replica.
 *
 * Two databases with one replica would write generations side by side without meeting each other, and whichever file is lost would come
 * back as the one that was written last. So a replica belongs to the database that names it first: from before it is looked at for
 * something to restore until nothing more can be written to it. Another one that names it meanwhile is not restored from it and does
 * not write to it.
 *
 * The same database: one path, one file (links), or one name in one folder (a folder that is mounted twice). A database whose file is not
 * under its name any more is in nobody's way: it is not replicated (capture/moved.h).
 *
 * Layer: shim. Thread-safety: a claim belongs to one open, then to its lj_open. Forked children have none of their parent's.
 */
#ifndef LJ_CLAIM_H
#define LJ_CLAIM_H

#include <sys/stat.h>

#include "vfs/base/table.h"
#include "vfs/config/config.h"

typedef struct {
    uint64_t device, inode; /* inode 0: there is none, or it is not known */
} lj_file_id;

typedef struct {
    lj_link
        by_url;  /* guarded by the mutex in claim.c, as `file` is while the claim is in its table */
    char *url;   /* of the replica, as it was given */
    char *path;  /* of the database */
    char *rival; /* path of the database that has the replica; NULL: this one has it */
    lj_file_id file, folder;
    unsigned epoch; /* of the process: another number after a fork */
} lj_claim;

/* Claims the replica that the config names for this path. LJ_OK also when another database has it (`rival`). */
LJ_WARN_UNUSED lj_code lj_claim_new(const char *path, const lj_config *config, lj_claim **ret_claim,
                                    lj_error *err);
/* NULL is fine. */
void lj_claim_free(lj_claim *claim);
/* For LJ_CLEANUP. */
void lj_claim_freep(lj_claim **claim);
/* The file is there by now. */
void lj_claim_settle(lj_claim *claim, const struct stat *st);
/* LJ_CONFLICT: why a database whose claim has a rival is not replicated to `url`; and why it is not restored from there. */
lj_code lj_claim_not_replicated(const lj_claim *claim, const char *url, lj_error *err);
lj_code lj_claim_not_restored(const lj_claim *claim, const char *url, lj_error *err);
/* In a forked child. */
void lj_claim_in_child(void);

#endif
