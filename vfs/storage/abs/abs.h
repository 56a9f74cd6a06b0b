/*
 * abs.h - replicas in Azure Blob storage: abs://container/prefix, abs://account@container/prefix.
 *
 * Settings: account-name, account-key, sas-token, connection-string, endpoint, skip-verify, list-page-size (1 to 5000, for
 * tests). Where account and credentials come from: vfs/storage/auth/azure.h. The endpoint is the setting's, else the
 * connection string's, else https://ACCOUNT.blob.core.windows.net; emulators have the account as first part of its path.
 *
 * Objects are block blobs, as Litestream v0.3.13 writes them. The driver has if_absent, cannot set times, and does not
 * promise a sorted listing: a flat account's is, one with a hierarchical namespace has an order of its own. Such an account's
 * folders are no objects. Conditions other than the blob's absence (leases, archive tier, immutability, a container
 * that is missing) are errors that say so, never an absent object or an empty replica.
 *
 * A large object is sent as blocks and appears when the list of them is committed. An upload that is given up leaves
 * uncommitted blocks, which no listing shows and which Azure removes after a week, or when the same blob is written.
 *
 * Layer: storage. Thread-safety: as storage.h.
 */
#ifndef LJ_ABS_H
#define LJ_ABS_H

#include "vfs/storage/storage.h"

/* As lj_storage_open; LJ_UNSUPPORTED for a way of authentication that is not known. */
LJ_WARN_UNUSED lj_code lj_abs_open(const char *url, const lj_storage_options *options,
                                   lj_storage **ret_storage, lj_error *err);

#endif
