/*
 * delete.c - the Azure Blob driver's delete_many: one request after another, so that the order holds.
 *
 * Layer: storage. Thread-safety: as storage.h.
 */
#include <stdlib.h>

#include "vfs/base/str.h"
#include "vfs/storage/abs/internal.h"

static lj_code delete_one(lj_abs *abs, const char *key, lj_error *err)
{
    LJ_CLEANUP(lj_freep) char *blob = lj_abs_blob(abs, key);
    if (blob == NULL)
        return lj_error_nomem(err);
    LJ_CLEANUP(lj_http_response_free) lj_http_response response = LJ_HTTP_RESPONSE_INIT;
    /* snapshots of the blob that a backup of the account made would keep it for ever */
    lj_abs_request request = {.method = "DELETE",
                              .blob = blob,
                              .headers = {"x-ms-delete-snapshots: include"},
                              .header_count = 1,
                              .success = 202};
    lj_code code = lj_abs_perform(abs, &request, &response, err);
    return code == LJ_NOTFOUND ? LJ_OK : code;
}

lj_code lj_abs_delete_many(void *self, const char *const *keys, size_t count,
                           lj_storage_delete_fn fn, void *ctx, lj_error *err)
{
    lj_abs *abs = self;
    lj_error why = LJ_ERROR_INIT;
    lj_code code = LJ_OK;
    size_t i = 0;
    for (; i < count && code == LJ_OK; i++) {
        code = delete_one(abs, keys[i], &why);
        fn(ctx, keys[i], code == LJ_OK ? NULL : &why);
    }
    lj_error rest = LJ_ERROR_INIT;
    lj_error_set(&rest, LJ_CANCELLED, "not deleted, because an earlier one in order was not");
    (void)lj_error_retryable(&rest, true);
    for (; i < count; i++)
        fn(ctx, keys[i], &rest);
    if (code != LJ_OK && err != NULL)
        *err = why;
    return code;
}
