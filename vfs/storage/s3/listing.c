/*
 * listing.c - see listing.h.
 *
 * Layer: storage.
 */
#include "vfs/storage/s3/listing.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "vfs/base/clock.h"
#include "vfs/base/str.h"
#include "vfs/storage/s3/xml.h"
#include "vfs/storage/url.h"

static lj_code corrupt(lj_error *err, const char *what)
{
    lj_error_set(err, LJ_CORRUPT, "the store's listing %s", what);
    (void)lj_error_hint(err, LJ_S3_HINT_BETWEEN);
    return lj_error_retryable(err, true);
}

/* ---- the page itself ---- */

static lj_code copy_token(char out[LJ_S3_TOKEN_MAX], const char *text, lj_error *err)
{
    size_t len = strlen(text);
    if (len >= LJ_S3_TOKEN_MAX)
        return corrupt(err, "has a continuation that is too long");
    memcpy(out, text, len + 1);
    return LJ_OK;
}

static lj_code on_page(void *ctx, const char *path, const char *text, lj_error *err)
{
    lj_s3_page *page = ctx;
    if (strcmp(path, "IsTruncated") == 0)
        page->truncated = strcasecmp(text, "true") == 0 || strcmp(text, "1") == 0;
    else if (strcmp(path, "EncodingType") == 0)
        page->encoded = strcmp(text, "url") == 0;
    else if (strcmp(path, "NextContinuationToken") == 0)
        return copy_token(page->token, text, err);
    else if (strcmp(path, "NextMarker") == 0)
        return copy_token(page->marker, text, err);
    return LJ_OK;
}

lj_code lj_s3_page_read(const char *xml, size_t len, lj_s3_page *ret_page, lj_error *err)
{
    static const lj_s3_page nothing;
    char root[LJ_S3_XML_NAME_MAX];
    LJ_CLEANUP(lj_freep) lj_s3_page *page = malloc(sizeof(*page));
    if (page == NULL)
        return lj_error_nomem(err);
    *page = nothing;
    LJ_TRY(lj_s3_xml_read(xml, len, on_page, page, root, err));
    if (strcmp(root, "ListBucketResult") != 0)
        return corrupt(err, "is no listing of a bucket");
    if (page->encoded && !lj_url_decode(page->marker, true))
        return corrupt(err, "has a marker that is not well encoded");
    *ret_page = *page;
    return LJ_OK;
}

/* ---- its keys ---- */

typedef struct {
    const lj_s3_page *page;
    lj_s3_listed_fn fn;
    void *ctx;
    char *key; /* owned; NULL: none yet */
    lj_s3_listed listed;
} key_reader;

static lj_code end_of_key(key_reader *r, lj_error *err)
{
    static const lj_s3_listed nothing;
    lj_code code = LJ_OK;
    if (r->key != NULL && (!r->page->encoded || lj_url_decode(r->key, true))) {
        r->listed.key = r->key;
        code = r->fn(r->ctx, &r->listed, err);
    }
    free(r->key);
    r->key = NULL;
    r->listed = nothing;
    return code;
}

static lj_code on_key(void *ctx, const char *path, const char *text, lj_error *err)
{
    key_reader *r = ctx;
    if (strcmp(path, "Contents/Key") == 0) {
        free(r->key);
        r->key = lj_str_dup(text);
        return r->key == NULL ? lj_error_nomem(err) : LJ_OK;
    }
    if (strcmp(path, "Contents/Size") == 0) {
        r->listed.has_size = lj_str_u64(text, &r->listed.size_bytes);
        return r->listed.has_size ? LJ_OK : corrupt(err, "has a size that is no number");
    }
    if (strcmp(path, "Contents/LastModified") == 0) {
        r->listed.has_time = lj_clock_parse(text, &r->listed.created_ns, NULL) == LJ_OK;
        return r->listed.has_time ? LJ_OK : corrupt(err, "has a time that is none");
    }
    return strcmp(path, "Contents") == 0 ? end_of_key(r, err) : LJ_OK;
}

lj_code lj_s3_page_keys(const char *xml, size_t len, const lj_s3_page *page, lj_s3_listed_fn fn,
                        void *ctx, lj_error *err)
{
    char root[LJ_S3_XML_NAME_MAX];
    key_reader r = {.page = page, .fn = fn, .ctx = ctx, .key = NULL};
    lj_code code = lj_s3_xml_read(xml, len, on_key, &r, root, err);
    free(r.key);
    return code;
}

/* ---- the answer to DeleteObjects ---- */

typedef struct {
    lj_s3_deleted_fn fn;
    void *ctx;
    char *key;
    char *code;
    char *message;
} deleted_reader;

static lj_code take(char **field, const char *text, lj_error *err)
{
    free(*field);
    *field = lj_str_dup(text);
    return *field == NULL ? lj_error_nomem(err) : LJ_OK;
}

static void deleted_reset(deleted_reader *r)
{
    free(r->key);
    free(r->code);
    free(r->message);
    r->key = r->code = r->message = NULL;
}

static lj_code on_deleted(void *ctx, const char *path, const char *text, lj_error *err)
{
    deleted_reader *r = ctx;
    bool refused = strcmp(path, "Error") == 0;
    if (strcmp(path, "Deleted/Key") == 0 || strcmp(path, "Error/Key") == 0)
        return take(&r->key, text, err);
    if (strcmp(path, "Error/Code") == 0)
        return take(&r->code, text, err);
    if (strcmp(path, "Error/Message") == 0)
        return take(&r->message, text, err);
    if (!refused && strcmp(path, "Deleted") != 0)
        return LJ_OK;
    lj_code code = LJ_OK;
    if (r->key != NULL)
        code = r->fn(r->ctx, r->key,
                     !refused          ? NULL
                     : r->code != NULL ? r->code
                                       : "InternalError",
                     r->message != NULL ? r->message : "", err);
    deleted_reset(r);
    return code;
}

lj_code lj_s3_deleted_read(const char *xml, size_t len, lj_s3_deleted_fn fn, void *ctx,
                           lj_error *err)
{
    char root[LJ_S3_XML_NAME_MAX];
    deleted_reader r = {.fn = fn, .ctx = ctx};
    lj_code code = lj_s3_xml_read(xml, len, on_deleted, &r, root, err);
    deleted_reset(&r);
    if (code == LJ_OK && strcmp(root, "DeleteResult") != 0)
        return corrupt(err, "of deleted keys is none");
    return code;
}
