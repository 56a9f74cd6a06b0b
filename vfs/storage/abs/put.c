/*
 * put.c - the Azure Blob driver's put: one request for a small object, blocks and their list for a large one.
 *
 * Block ids are 64 bytes: 16 random ones of this upload, so that two uploads of the same name never mix, then the number of
 * the block, then zeros. All blocks of a blob, also those that another program left behind, must have ids of one
 * length: this is the length of those that Litestream v0.3.13 and Azure's SDKs for Go use.
 *
 * The list is asked for again like a block: nobody should have to send the blocks of an hour again because the store was busy at
 * the last request, or its answer got lost. One that was carried out says so the second time: the blob exists, or it is
 * the same once more ("Latest" also finds blocks that are in the blob by now).
 *
 * Layer: storage. Thread-safety: as storage.h.
 */
#include <stdlib.h>
#include <string.h>

#include "vfs/base/io.h"
#include "vfs/base/retry.h"
#include "vfs/base/str.h"
#include "vfs/storage/abs/internal.h"
#include "vfs/storage/auth/crypto.h"
#include "vfs/storage/parts.h"

#define BLOCK_ID_BYTES  64u
#define UPLOAD_ID_BYTES 16u
#define BLOCK_LIST_MAX  ((size_t)8 * 1024 * 1024) /* 50,000 ids of 88 characters, in XML */

typedef struct {
    lj_abs *abs;
    const char *blob;
    uint8_t id[UPLOAD_ID_BYTES];
} upload;

/* base64, allocated; NULL when out of memory. */
static char *block_id(const upload *u, uint32_t number)
{
    uint8_t id[BLOCK_ID_BYTES] = {0};
    memcpy(id, u->id, UPLOAD_ID_BYTES);
    lj_put_be32(id + UPLOAD_ID_BYTES, number);
    return lj_base64(id, sizeof(id));
}

static lj_code put_blob(lj_abs *abs, const char *blob, const lj_buf *content, bool if_absent,
                        lj_error *err)
{
    LJ_CLEANUP(lj_http_response_free) lj_http_response response = LJ_HTTP_RESPONSE_INIT;
    lj_abs_request request = {
        .method = "PUT",
        .blob = blob,
        .headers = {"x-ms-blob-type: BlockBlob", "Content-Type: application/octet-stream"},
        .header_count = 2,
        .body = lj_buf_text(content),
        .body_len = content->len,
        .with_md5 = true,
        .success = 201,
        .if_absent = if_absent,
    };
    return lj_abs_perform(abs, &request, &response, err);
}

static lj_code send_block(void *ctx, uint32_t number, const uint8_t *data, size_t len,
                          lj_error *err)
{
    const upload *u = ctx;
    LJ_CLEANUP(lj_freep) char *id = block_id(u, number);
    if (id == NULL)
        return lj_error_nomem(err);
    LJ_CLEANUP(lj_http_response_free) lj_http_response response = LJ_HTTP_RESPONSE_INIT;
    lj_abs_request request = {
        .method = "PUT",
        .blob = u->blob,
        .query = {{"comp", "block"}, {"blockid", id}},
        .query_count = 2,
        .headers = {"Content-Type: application/octet-stream"},
        .header_count = 1,
        .body = data,
        .body_len = len,
        .with_md5 = true,
        .success = 201,
    };
    return lj_abs_perform(u->abs, &request, &response, err);
}

static lj_code make_list(const upload *u, uint32_t count, lj_buf *xml, lj_error *err)
{
    LJ_TRY(lj_buf_printf(xml, err, "<?xml version=\"1.0\" encoding=\"utf-8\"?><BlockList>"));
    for (uint32_t number = 1; number <= count; number++) {
        LJ_CLEANUP(lj_freep) char *id = block_id(u, number);
        if (id == NULL)
            return lj_error_nomem(err);
        LJ_TRY(lj_buf_printf(xml, err, "<Latest>%s</Latest>", id));
    }
    return lj_buf_printf(xml, err, "</BlockList>");
}

static lj_code commit_once(const upload *u, const lj_buf *xml, bool if_absent, lj_error *err)
{
    LJ_CLEANUP(lj_http_response_free) lj_http_response response = LJ_HTTP_RESPONSE_INIT;
    lj_abs_request request = {
        .method = "PUT",
        .blob = u->blob,
        .query = {{"comp", "blocklist"}},
        .query_count = 1,
        .headers = {"Content-Type: application/xml",
                    "x-ms-blob-content-type: application/octet-stream"},
        .header_count = 2,
        .body = xml->data,
        .body_len = xml->len,
        .with_md5 = true,
        .success = 201,
        .if_absent = if_absent,
    };
    return lj_abs_perform(u->abs, &request, &response, err);
}

/* No answer, or one that says "later"; a refusal (InvalidBlockList: the blocks are gone) stays one. */
static bool may_pass(const lj_error *err)
{
    int status = err->http_status;
    return lj_retry_may_pass(err) &&
           (status < 400 || status >= 500 || status == 408 || status == 429);
}

/* *ret_unclear: one that was not answered may have been carried out, whatever was answered to the last. */
static lj_code commit(const upload *u, uint32_t count, bool if_absent, bool *ret_unclear,
                      lj_error *err)
{
    LJ_CLEANUP(lj_buf_free) lj_buf xml = LJ_BUF_INIT(BLOCK_LIST_MAX);
    LJ_TRY(make_list(u, count, &xml, err));
    for (unsigned attempt = 0;; attempt++) {
        lj_code code = commit_once(u, &xml, if_absent, err);
        if (code != LJ_OK && !lj_error_is_refusal(err))
            *ret_unclear = true;
        if (code == LJ_OK || !may_pass(err) || attempt + 1 >= LJ_PARTS_ATTEMPTS)
            return code;
        if (!lj_parts_pause(u->abs->cancel, attempt, err->retry_after_ns))
            return lj_error_set(err, LJ_CANCELLED, "the upload was cancelled");
    }
}

/* Before gigabytes are sent for nothing; the condition of the last request is what decides. */
static lj_code check_absent(lj_abs *abs, const char *key, lj_error *err)
{
    lj_storage_entry entry = {.key = key};
    lj_error why = LJ_ERROR_INIT;
    lj_code code = lj_abs_head(abs, key, &entry, &why);
    if (code == LJ_NOTFOUND)
        return LJ_OK;
    if (code == LJ_OK)
        return lj_error_set(err, LJ_EXISTS, "the object exists already");
    if (err != NULL)
        *err = why;
    return code;
}

static lj_code put_blocks(lj_abs *abs, const char *key, const char *blob, lj_source *source,
                          lj_buf *head, bool if_absent, lj_error *err)
{
    upload u = {.abs = abs, .blob = blob};
    lj_parts_job job = {
        .ctx = &u, .parts_max = LJ_ABS_BLOCKS_MAX, .cancel = abs->cancel, .send = send_block};
    uint32_t count = 0;
    bool unclear = false;
    lj_error why = LJ_ERROR_INIT;
    if (if_absent)
        LJ_TRY(check_absent(abs, key, err));
    lj_io_random(u.id, sizeof(u.id));
    LJ_TRY(lj_parts_send(source, head, &job, &count, err));
    lj_code code = commit(&u, count, if_absent, &unclear, &why);
    if (code == LJ_OK)
        return LJ_OK;
    /* blocks are gone when another upload of this name was finished: then its object is there */
    if (if_absent && why.http_status == 400)
        LJ_TRY(check_absent(abs, key, err));
    if (unclear)
        code = lj_parts_unclear(&why);
    if (err != NULL)
        *err = why;
    return code;
}

lj_code lj_abs_put(void *self, const char *key, lj_source *source,
                   const lj_storage_put_options *options, lj_error *err)
{
    lj_abs *abs = self;
    bool whole = false;
    LJ_CLEANUP(lj_freep) char *blob = lj_abs_blob(abs, key);
    if (blob == NULL)
        return lj_error_nomem(err);
    LJ_CLEANUP(lj_buf_free) lj_buf head = LJ_BUF_INIT(LJ_PARTS_SMALL_MAX + 1);
    LJ_TRY(lj_parts_head(source, &head, &whole, err));
    if (whole)
        return put_blob(abs, blob, &head, options->if_absent, err);
    return put_blocks(abs, key, blob, source, &head, options->if_absent, err);
}
