/*
 * put.c - one object in one request; what is larger than LJ_PARTS_SMALL_MAX is multipart.c's.
 *
 * The store checks what it received: the signature covers the SHA-256 of the content, and Content-MD5 is sent for stores that do
 * not look at that.
 *
 * Layer: storage. Thread-safety: as storage.h.
 */
#include <stdlib.h>
#include <string.h>

#include "vfs/storage/auth/crypto.h"
#include "vfs/storage/parts.h"
#include "vfs/storage/s3/internal.h"
#include "vfs/storage/s3/xml.h"

/* The largest object that is put twice to find out whether the store keeps conditions. */
#define TRIAL_MAX ((size_t)1024 * 1024)

const char *lj_s3_content_md5(const void *data, size_t len, char out[LJ_S3_MD5_BASE64])
{
    uint8_t digest[LJ_MD5_BYTES];
    if (lj_md5(len > 0 ? data : "", len, digest, NULL) != LJ_OK)
        return NULL;
    LJ_CLEANUP(lj_freep) char *text = lj_base64(digest, sizeof(digest));
    if (text == NULL || strlen(text) + 1 != LJ_S3_MD5_BASE64)
        return NULL;
    memcpy(out, text, LJ_S3_MD5_BASE64);
    return out;
}

void lj_s3_add_object_headers(const lj_s3 *s3, lj_s3_request *request)
{
    lj_s3_add_header(request, "x-amz-storage-class", s3->storage_class);
    lj_s3_add_header(request, "x-amz-server-side-encryption", s3->sse);
    lj_s3_add_header(request, "x-amz-server-side-encryption-aws-kms-key-id", s3->sse_kms_key_id);
}

static lj_code put_once(lj_s3 *s3, const char *key, const lj_buf *content, bool conditional,
                        lj_http_response *response, char code[LJ_S3_CODE_MAX], lj_error *err)
{
    char md5[LJ_S3_MD5_BASE64];
    lj_s3_request request = {.method = "PUT",
                             .key = key,
                             .customer_key = true,
                             .body = content->data,
                             .body_len = content->len};
    lj_s3_add_header(&request, "content-md5", lj_s3_content_md5(content->data, content->len, md5));
    lj_s3_add_header(&request, "if-none-match", conditional ? "*" : NULL);
    lj_s3_add_object_headers(s3, &request);
    LJ_TRY(lj_s3_call(s3, &request, response, code, err));
    char etag[LJ_S3_ETAG_MAX];
    if (lj_http_header(response, "etag", etag, sizeof(etag)))
        return LJ_OK;
    /* a proxy's sign-in page says 200 too */
    lj_error_set(err, LJ_UNAVAILABLE, "PUT: the answer has no ETag, so it is not from an S3 store");
    (void)lj_error_hint(err, LJ_S3_HINT_BETWEEN);
    return lj_error_retryable(err, true);
}

static lj_code put_absent(lj_s3 *s3, const char *key, const lj_buf *content,
                          lj_http_response *response, lj_error *err)
{
    char store_code[LJ_S3_CODE_MAX];
    lj_s3_claim claim;
    lj_s3_condition condition = LJ_S3_CONDITION_KEPT;
    LJ_TRY(lj_s3_absent_begin(s3, key, false, &claim, &condition, err));
    bool conditional = condition != LJ_S3_CONDITION_NONE;
    lj_code code = put_once(s3, key, content, conditional, response, store_code, err);
    if (code != LJ_OK && conditional) {
        if (lj_s3_absent_refused(s3, key, store_code, err))
            code = put_once(s3, key, content, false, response, store_code, err);
        else
            code = err->code;
    } else if (code == LJ_OK && condition == LJ_S3_CONDITION_UNKNOWN && content->len <= TRIAL_MAX) {
        lj_code trial = put_once(s3, key, content, true, response, store_code, NULL);
        if (trial == LJ_OK || response->status >= 400)
            lj_s3_absent_learn(s3, response->status);
    }
    lj_s3_absent_end(s3, &claim);
    return code;
}

lj_code lj_s3_put(void *self, const char *key, lj_source *source,
                  const lj_storage_put_options *options, lj_error *err)
{
    lj_s3 *s3 = self;
    LJ_CLEANUP(lj_buf_free) lj_buf head = LJ_BUF_INIT(LJ_PARTS_SMALL_MAX + 1);
    LJ_CLEANUP(lj_http_response_free) lj_http_response response = LJ_HTTP_RESPONSE_INIT;
    lj_error local = LJ_ERROR_INIT;
    lj_error *error = err != NULL ? err : &local;
    char store_code[LJ_S3_CODE_MAX];
    bool whole = false;
    LJ_TRY(lj_parts_head(source, &head, &whole, error));
    if (!whole)
        return lj_s3_put_parts(s3, key, source, &head, options->if_absent, error);
    if (options->if_absent)
        return put_absent(s3, key, &head, &response, error);
    return put_once(s3, key, &head, false, &response, store_code, error);
}
