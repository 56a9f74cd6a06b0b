/*
 * gcs.h - the driver for Google Cloud Storage, by its JSON API.
 *
 * URL: gcs://BUCKET/PREFIX, as Litestream v0.3.13 has it, or gs://BUCKET/PREFIX. Key K is the object PREFIX/K. The bucket must
 * exist; it is not created. An object's time is its timeCreated.
 *
 * Settings, in the URL's query or in litestream.yml:
 *     endpoint          instead of https://storage.googleapis.com. With http:// only on this machine, because every request
 *                       carries a token
 *     credentials-path  the JSON file with the credentials; else what auth/google.h says
 *     user-project      the project that pays for the requests (buckets where the requester pays)
 *     list-page-size    objects per page of a listing, 1 to 1,000
 *     skip-verify       accept any certificate
 * STORAGE_EMULATOR_HOST (host:port, or a URL) stands in for an endpoint that is not given; no credentials are sent there.
 *
 * An upload up to LJ_PARTS_SMALL_MAX is one request. A larger one is a resumable session of parts of that size, sent one
 * after another from one buffer; a part that breaks goes on at the offset the store names. The CRC32C of what was sent goes
 * with every upload, and is compared with what the store says it has. Objects get the type application/octet-stream and no
 * Content-Encoding, so that nothing is ever re-coded on the way.
 *
 * GCS answers a read of an object in an absent bucket like that of an absent object. So before an object is said to be absent
 * (get, head, delete), a listing of one object shows that the bucket is there, unless it answered seconds before.
 *
 * Layer: storage. Thread-safety: as storage.h. Features: LJ_STORAGE_IF_ABSENT. Lists are sorted by GCS, but emulators do
 * not promise it.
 * Source: cloud.google.com/storage/docs/json_api, .../performing-resumable-uploads, .../transcoding.
 */
#ifndef LJ_GCS_H
#define LJ_GCS_H

#include "vfs/storage/storage.h"

/* As lj_storage_open, for gcs:// and gs://. */
LJ_WARN_UNUSED lj_code lj_gcs_open(const char *url, const lj_storage_options *options,
                                   lj_storage **ret_storage, lj_error *err);

#endif
