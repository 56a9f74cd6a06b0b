/*
 * shipper.h - keeps one database's replica up to date: what the rest of the program sees of it.
 *
 * Two tasks per database run in the scheduler's workers: one ships segments (strictly in order, at most one tick per
 * sync_interval, the first commit after idle at once), the other takes snapshots and enforces retention, so that a long
 * snapshot never holds up the segments.
 *
 * Layer: ship. Thread-safety: lj_shipper_new/free from the owner of the database; the rest happens in workers.
 */
#ifndef LJ_SHIPPER_H
#define LJ_SHIPPER_H

#include "vfs/capture/database.h"
#include "vfs/capture/image.h"
#include "vfs/storage/storage.h"

typedef struct lj_shipper lj_shipper;

/*
 * Takes over `storage`. `db`, `guard` and what `dbfile` points to must outlive the shipper. db->shipper is set. The wake
 * function to give to lj_db_new is lj_shipper_wake.
 */
LJ_WARN_UNUSED lj_code lj_shipper_new(lj_db *db, lj_storage *storage, lj_image_guard *guard,
                                      const lj_dbfile *dbfile, lj_shipper **ret_shipper,
                                      lj_error *err);
/* Ends a running snapshot, waits for a running tick (bounded by the store's own deadlines), frees. */
void lj_shipper_free(lj_shipper *shipper);
/* Ends a running snapshot soon: the database's last handle is being closed. */
void lj_shipper_cancel_snapshot(lj_shipper *shipper);
void lj_shipper_wake(lj_db *db, int64_t due_ns);

#endif
