/*
 * retry.h - is a failure worth another attempt within seconds, and how long to wait before it.
 *
 * Exponential backoff with full jitter, never less than what the server asked for, and always cancellable. Who retries at all
 * is decided elsewhere, once per kind of work: vfs/ship for objects, vfs/restore for reads, vfs/storage/parts.h for parts.
 *
 * Layer: base. Thread-safety: pure.
 */
#ifndef LJ_RETRY_H
#define LJ_RETRY_H

#include "vfs/base/error.h"

/* Transient failures of a store or a network pass; missing rights and a full disk do not within seconds. */
bool lj_retry_may_pass(const lj_error *err);

/*
 * Waits before attempt `attempt` + 1 (from 0): a random time up to first_ns doubled `attempt` times, at most longest_ns, but
 * at least retry_after_ns (at most a minute of it). false: one of the flags (may be NULL; polled atomically) was set meanwhile.
 */
bool lj_retry_pause(unsigned attempt, int64_t first_ns, int64_t longest_ns, int64_t retry_after_ns,
                    const bool *cancel, const bool *abort);

#endif
