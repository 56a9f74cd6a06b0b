/*
 * salvage.h - what a database that is gone had not shipped yet is shipped before its replica is restored.
 *
 * The file is lost, but its state folder is not: the spool has frames that left the WAL while the store was away, and the WAL itself
 * may lie there too. They were committed, so they belong to what is restored.
 *
 * Layer: ship. Thread-safety: the caller holds the restore lock of that database, so that one process does it at a time.
 */
#ifndef LJ_SALVAGE_H
#define LJ_SALVAGE_H

#include "vfs/capture/attach.h"
#include "vfs/storage/storage.h"

typedef struct {
    bool tried;   /* objects may have been put: a listing from before is old */
    lj_left left; /* what is left out, and why; it is still there */
} lj_salvage_result;

/*
 * Ships what spool and WAL of the database at `path` have behind the end of `generation`, in the order and with the names that its
 * shipper would have used, moving the position file along. What does not continue the replica exactly where that ends is left out.
 * LJ_OK also when there is nothing. An error: the replica, or what is left here, could not be read or written just now. Nothing is
 * lost then, and the next call goes on.
 */
LJ_WARN_UNUSED lj_code lj_salvage(lj_storage *storage, const char *path,
                                  const lj_db_options *options, const char *generation,
                                  lj_salvage_result *ret_result, lj_error *err);

#endif
