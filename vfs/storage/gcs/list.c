/*
 * list.c - see internal.h: listings, page by page.
 *
 * Layer: storage. Thread-safety: as storage.h.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vfs/base/str.h"
#include "vfs/storage/gcs/internal.h"

typedef struct {
    lj_storage_list_fn fn;
    void *ctx;
    const char *root; /* "PREFIX/" or "" */
} listing;

static lj_code on_item(void *ctx, const char *name, const lj_gcs_object *object, lj_error *err)
{
    const listing *l = ctx;
    if (!lj_str_starts(name, l->root))
        return LJ_OK;
    lj_storage_entry entry = {.key = name + strlen(l->root),
                              .size_bytes = object->size_bytes,
                              .created_ns = object->created_ns};
    return l->fn(l->ctx, &entry, err);
}

/* The URL of the first page; the others have a token more. */
static lj_code first_url(const lj_gcs *gcs, const char *root, const char *prefix, const char *after,
                         lj_buf *url, lj_error *err)
{
    LJ_CLEANUP(lj_freep) char *full = lj_str_printf("%s%s", root, prefix);
    LJ_CLEANUP(lj_freep)
    char *start = after != NULL ? lj_str_printf("%s%s", root, after) : lj_str_dup("");
    char size[16];
    (void)snprintf(size, sizeof(size), "%u", gcs->page_size);
    if (full == NULL || start == NULL)
        return lj_error_nomem(err);
    LJ_TRY(lj_gcs_url(gcs, false, NULL, url, err));
    LJ_TRY(lj_gcs_param(url, "fields", "kind,nextPageToken,items(name,size,timeCreated)", err));
    LJ_TRY(lj_gcs_param(url, "maxResults", size, err));
    if (full[0] != 0)
        LJ_TRY(lj_gcs_param(url, "prefix", full, err));
    /* inclusive, while `after` is not: the key itself is dropped above */
    return start[0] != 0 ? lj_gcs_param(url, "startOffset", start, err) : LJ_OK;
}

static lj_code one_page(lj_gcs *gcs, const lj_buf *base_url, const char *token, listing *l,
                        lj_http_response *response, char **ret_next, lj_error *err)
{
    LJ_CLEANUP(lj_buf_free) lj_buf url = LJ_GCS_URL_INIT;
    LJ_TRY(lj_buf_append(&url, base_url->data, base_url->len, err));
    if (token != NULL)
        LJ_TRY(lj_gcs_param(&url, "pageToken", token, err));
    lj_http_request request = LJ_HTTP_REQUEST("GET", lj_buf_text(&url));
    request.body_max = LJ_GCS_PAGE_BODY_MAX;
    LJ_TRY(lj_gcs_send(gcs, &request, response, err));
    if (response->status / 100 != 2)
        return lj_gcs_refused(gcs, response, "listing the bucket", err);
    lj_gcs_seen(gcs);
    return lj_gcs_page_parse(lj_buf_text(&response->body), response->body.len, on_item, l, ret_next,
                             err);
}

lj_code lj_gcs_list(void *self, const char *prefix, const char *after, lj_storage_list_fn fn,
                    void *ctx, lj_error *err)
{
    lj_gcs *gcs = self;
    LJ_CLEANUP(lj_freep)
    char *root = lj_str_printf("%s%s", gcs->prefix, gcs->prefix[0] != 0 ? "/" : "");
    LJ_CLEANUP(lj_buf_free) lj_buf url = LJ_GCS_URL_INIT;
    LJ_CLEANUP(lj_http_response_free) lj_http_response response = LJ_HTTP_RESPONSE_INIT;
    LJ_CLEANUP(lj_freep) char *token = NULL;
    if (root == NULL)
        return lj_error_nomem(err);
    listing l = {.fn = fn, .ctx = ctx, .root = root};
    LJ_TRY(first_url(gcs, root, prefix, after, &url, err));
    do {
        char *next = NULL;
        LJ_TRY(one_page(gcs, &url, token, &l, &response, &next, err));
        bool stuck = token != NULL && next != NULL && strcmp(token, next) == 0;
        free(token);
        token = next;
        if (stuck) {
            lj_error_set(err, LJ_CORRUPT, "the store's listing does not come to an end");
            return lj_error_retryable(err, true);
        }
    } while (token != NULL);
    return LJ_OK;
}
