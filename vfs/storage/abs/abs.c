/*
 * abs.c - see abs.h: opening a replica in Azure Blob storage.
 *
 * Layer: storage. Thread-safety: as storage.h.
 */
#include "vfs/storage/abs/abs.h"

#include <stdlib.h>

#include "vfs/base/str.h"
#include "vfs/storage/abs/internal.h"
#include "vfs/storage/url.h"

char *lj_abs_blob(const lj_abs *abs, const char *key)
{
    return lj_url_join(abs->target.prefix, key);
}

static void abs_close(void *self)
{
    lj_abs *abs = self;
    lj_http_free(abs->http);
    lj_abs_target_free(&abs->target);
    free(abs);
}

static const lj_storage_ops abs_ops = {
    .name = "abs",
    .features = LJ_STORAGE_IF_ABSENT | LJ_STORAGE_REMOTE,
    .put = lj_abs_put,
    .get = lj_abs_get,
    .head = lj_abs_head,
    .list = lj_abs_list,
    .delete_many = lj_abs_delete_many,
    .close = abs_close,
};

static lj_code read_page_size(const lj_settings *settings, uint32_t *ret_size, lj_error *err)
{
    uint64_t size = LJ_ABS_LIST_PAGE_MAX;
    const char *text = lj_settings_get(settings, "list-page-size");
    if (text != NULL && (!lj_str_u64(text, &size) || size == 0 || size > LJ_ABS_LIST_PAGE_MAX)) {
        lj_error_set(err, LJ_INVALID, "list-page-size is not a number that Azure takes");
        return lj_error_hint(err, "allowed: 1 to %u", LJ_ABS_LIST_PAGE_MAX);
    }
    *ret_size = (uint32_t)size;
    return LJ_OK;
}

static lj_code set_up(lj_abs *abs, const lj_settings *settings, const lj_storage_options *options,
                      lj_error *err)
{
    lj_http_options http = {.stall_timeout_ns = options->io_timeout_ns, .cancel = options->cancel};
    LJ_TRY(lj_settings_bool(settings, "skip-verify", false, &http.skip_verify, err));
    LJ_TRY(read_page_size(settings, &abs->list_page, err));
    abs->cancel = options->cancel;
    return lj_http_new(&http, &abs->http, err);
}

lj_code lj_abs_open(const char *url, const lj_storage_options *options, lj_storage **ret_storage,
                    lj_error *err)
{
    lj_settings settings;
    lj_abs *abs = calloc(1, sizeof(*abs));
    if (abs == NULL)
        return lj_error_nomem(err);
    lj_code code = lj_abs_target_make(url, options, &settings, &abs->target, err);
    if (code != LJ_OK) {
        free(abs);
        return code;
    }
    code = set_up(abs, &settings, options, err);
    lj_settings_free(&settings);
    if (code == LJ_OK)
        code = lj_storage_wrap(&abs_ops, abs, abs->target.display_url, ret_storage, err);
    if (code != LJ_OK)
        abs_close(abs);
    return code;
}
