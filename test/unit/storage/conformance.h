/*
 * conformance.h - what every storage driver must do, run against an opened storage.
 *
 * The suite works below the key "conformance/" and deletes what it made. It runs one test after another; some use
 * several threads on the one storage.
 */
#ifndef LJ_TEST_CONFORMANCE_H
#define LJ_TEST_CONFORMANCE_H

#include "vfs/storage/storage.h"

typedef struct {
    lj_storage *storage;
    size_t many_keys;     /* objects in the long listing: 2,500, to be more than two pages of S3 */
    uint64_t large_bytes; /* the large object: 64 MiB */
} conformance_setup;

/* Number of tests that failed. */
int conformance_run(const conformance_setup *setup);

#endif
