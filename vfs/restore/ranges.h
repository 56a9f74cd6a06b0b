/*
 * ranges.h - one large object, fetched in ranges side by side and handed on in order.
 *
 * One connection to an object store is slower than the network behind it, and a new request costs a round trip. Each range
 * has the retries of fetch.h. Memory: LJ_RANGES_WORKERS x 2 x LJ_RANGE_BYTES.
 *
 * Layer: restore (internal). Thread-safety: as fetch.h. The sink is called by one thread at a time, not always the same.
 */
#ifndef LJ_RANGES_H
#define LJ_RANGES_H

#include "vfs/restore/fetch.h"

#define LJ_RANGE_BYTES    ((size_t)4 * 1024 * 1024)
#define LJ_RANGES_WORKERS 4u

/* Is it worth it: a store behind a network (LJ_STORAGE_REMOTE), and more than two ranges. */
bool lj_ranges_wanted(const lj_storage *storage, uint64_t size_bytes);

/*
 * Sends the object's `size_bytes` bytes to `sink`. Errors: those of lj_fetch_bytes, of the range that comes first; the
 * sink's own; LJ_UNAVAILABLE when the object is shorter than the listing said.
 */
LJ_WARN_UNUSED lj_code lj_ranges_get(const lj_fetch *fetch, const char *key, uint64_t size_bytes,
                                     lj_sink *sink, lj_error *err);

#endif
