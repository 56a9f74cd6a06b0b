/*
 * multipart.c - an object that is larger than one request: begin an upload, send its parts, complete it.
 *
 * The object appears with the completion, whole or not at all; If-None-Match stands on that request. An upload that fails
 * before is taken back, also when the storage is cancelled, with a short request of its own: its parts cost money until they are
 * removed.
 *
 * The completion is asked for again when its answer does not come: the store may work for minutes on many parts, and the
 * parts of an hour must not be sent again for that. Then an upload that is unknown, and an object that is there, are one.
 * From there on the upload is not taken back any more, whatever comes of it: it may be complete, or about to be, and there are
 * stores where that takes the parts from the object (Ceph 17 when both come at once, SeaweedFS until September 2026): it is listed
 * then, and cannot be read. If it came to nothing its parts stay.
 *
 * Parts do not carry Content-MD5: MD5 takes longer than all else together that is done to a byte on its way, and the signature
 * covers a SHA-256 of each part. It is sent where nothing but the store could notice a changed byte (plain HTTP over a network,
 * and not every store looks at the signed hash), and from the moment a store asks for it, as buckets with object lock do.
 *
 * Layer: storage. Thread-safety: as storage.h; `upload.mutex` (rank: leaf) guards the tags of the parts.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vfs/base/cancel.h"
#include "vfs/base/clock.h"
#include "vfs/base/log.h"
#include "vfs/base/str.h"
#include "vfs/storage/parts.h"
#include "vfs/storage/s3/internal.h"
#include "vfs/storage/s3/xml.h"

#define PARTS_MAX          10000u
#define UPLOAD_ID_MAX      2048u
#define COMPLETE_BODY_MAX  ((size_t)8 * 1024 * 1024)
#define COMPLETE_ATTEMPTS  4u
#define COMPLETE_TOTAL_NS  (900 * LJ_NS_PER_S)
#define ABORT_TOTAL_NS     (10 * LJ_NS_PER_S)
#define ABORT_CANCELLED_NS (500 * LJ_NS_PER_MS) /* a close is waiting */
#define PAUSE_ASKED_MAX_NS (60 * LJ_NS_PER_S)
#define PAUSE_STEP_NS      (50 * LJ_NS_PER_MS)

typedef struct {
    lj_s3 *s3;
    const char *key;
    char *id; /* encoded for a query */
    pthread_mutex_t mutex;
    char **tags; /* tags[number - 1]: of a part that was sent */
    uint32_t tag_cap;
    uint64_t bytes;
    bool maybe_complete; /* a completion may have been carried out, or be on its way */
} upload;

static void upload_free(upload *u)
{
    for (uint32_t i = 0; i < u->tag_cap; i++)
        free(u->tags[i]);
    free(u->tags);
    free(u->id);
    pthread_mutex_destroy(&u->mutex);
}

/* ---- beginning ---- */

static lj_code on_begin(void *ctx, const char *path, const char *text, lj_error *err)
{
    upload *u = ctx;
    if (strcmp(path, "UploadId") != 0 || text[0] == 0)
        return LJ_OK;
    LJ_CLEANUP(lj_buf_free) lj_buf id = LJ_BUF_INIT(UPLOAD_ID_MAX);
    LJ_TRY(lj_url_encode(&id, text, false, err));
    free(u->id);
    u->id = lj_str_dup(lj_buf_text(&id));
    return u->id == NULL ? lj_error_nomem(err) : LJ_OK;
}

static lj_code begin(upload *u, lj_error *err)
{
    LJ_CLEANUP(lj_http_response_free) lj_http_response response = LJ_HTTP_RESPONSE_INIT;
    char root[LJ_S3_XML_NAME_MAX];
    lj_s3_request request = {
        .method = "POST", .key = u->key, .query = "uploads=", .customer_key = true};
    lj_s3_add_object_headers(u->s3, &request);
    LJ_TRY(lj_s3_call(u->s3, &request, &response, NULL, err));
    LJ_TRY(lj_s3_xml_read(lj_buf_text(&response.body), response.body.len, on_begin, u, root, err));
    if (u->id != NULL)
        return LJ_OK;
    lj_error_set(err, LJ_CORRUPT, "the store began a large upload without naming it");
    return lj_error_retryable(err, true);
}

/* ---- parts ---- */

static lj_code keep_tag(upload *u, uint32_t number, const char *tag, size_t len, lj_error *err)
{
    char *copy = lj_str_dup(tag);
    pthread_mutex_lock(&u->mutex);
    if (copy != NULL && number > u->tag_cap) {
        uint32_t cap = LJ_MAX(LJ_MAX(number, 2 * u->tag_cap), 16u);
        char **tags = realloc(u->tags, cap * sizeof(*tags));
        if (tags != NULL) {
            memset(tags + u->tag_cap, 0, (cap - u->tag_cap) * sizeof(*tags));
            u->tags = tags;
            u->tag_cap = cap;
        }
    }
    bool kept = copy != NULL && number <= u->tag_cap;
    if (kept) {
        free(u->tags[number - 1]);
        u->tags[number - 1] = copy;
        u->bytes += len;
    }
    pthread_mutex_unlock(&u->mutex);
    if (!kept)
        free(copy);
    return kept ? LJ_OK : lj_error_nomem(err);
}

static lj_code put_part(upload *u, const char *query, const uint8_t *data, size_t len,
                        bool with_md5, lj_http_response *response, char store_code[LJ_S3_CODE_MAX],
                        lj_error *err)
{
    char md5[LJ_S3_MD5_BASE64];
    lj_s3_request request = {.method = "PUT",
                             .key = u->key,
                             .query = query,
                             .customer_key = true,
                             .body = data,
                             .body_len = len};
    lj_s3_add_header(&request, "content-md5", with_md5 ? lj_s3_content_md5(data, len, md5) : NULL);
    return lj_s3_call(u->s3, &request, response, store_code, err);
}

/* "Content-MD5 OR x-amz-checksum- HTTP header is required for Put Part requests with Object Lock parameters" */
static bool asks_for_md5(const lj_error *err)
{
    return err->http_status == 400 && strcasestr(err->message, "content-md5") != NULL;
}

static lj_code send(void *ctx, uint32_t number, const uint8_t *data, size_t len, lj_error *err)
{
    upload *u = ctx;
    LJ_CLEANUP(lj_http_response_free) lj_http_response response = LJ_HTTP_RESPONSE_INIT;
    LJ_CLEANUP(lj_freep)
    char *query = lj_str_printf("partNumber=%" PRIu32 "&uploadId=%s", number, u->id);
    if (query == NULL)
        return lj_error_nomem(err);
    char tag[LJ_S3_ETAG_MAX];
    char store_code[LJ_S3_CODE_MAX];
    bool with_md5 = atomic_load(&u->s3->part_md5);
    lj_code code = put_part(u, query, data, len, with_md5, &response, store_code, err);
    if (code != LJ_OK && !with_md5 && asks_for_md5(err)) {
        atomic_store(&u->s3->part_md5, true);
        code = put_part(u, query, data, len, true, &response, store_code, err);
    }
    if (code != LJ_OK)
        return code;
    if (lj_http_header(&response, "etag", tag, sizeof(tag)) && tag[0] != 0)
        return keep_tag(u, number, tag, len, err);
    lj_error_set(err, LJ_UNAVAILABLE, "the store took part %" PRIu32 " without giving its ETag",
                 number);
    return lj_error_retryable(err, true);
}

/* ---- completing ---- */

static lj_code list_parts(const upload *u, uint32_t count, lj_buf *out, lj_error *err)
{
    LJ_TRY(lj_buf_printf(
        out, err, "<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">"));
    for (uint32_t i = 0; i < count; i++) {
        if (i >= u->tag_cap || u->tags[i] == NULL)
            return lj_error_set(err, LJ_INTERNAL, "part %" PRIu32 " of the upload has no ETag",
                                i + 1);
        LJ_TRY(lj_buf_printf(out, err, "<Part><PartNumber>%" PRIu32 "</PartNumber><ETag>", i + 1));
        LJ_TRY(lj_s3_xml_escape(out, u->tags[i], err));
        LJ_TRY(lj_buf_printf(out, err, "</ETag></Part>"));
    }
    return lj_buf_printf(out, err, "</CompleteMultipartUpload>");
}

static lj_code ignore(void *ctx, const char *path, const char *text, lj_error *err)
{
    (void)ctx, (void)path, (void)text, (void)err;
    return LJ_OK;
}

/* Nothing is known of the upload any more, or what the answer says is no answer: the object itself tells. */
static lj_code judge_by_object(upload *u, bool if_absent, const lj_error *why, lj_error *err)
{
    bool exists = false;
    uint64_t size = 0;
    LJ_TRY(lj_s3_exists(u->s3, u->key, &exists, &size, err));
    if (exists && size == u->bytes && !if_absent)
        return LJ_OK;
    /* ours most likely, but that is for the caller to compare */
    if (exists && if_absent)
        return lj_error_set(err, LJ_EXISTS, "the object is there already");
    *err = *why;
    return why->code;
}

/* What the store refuses was not done; no answer, and an error of the server's, do not say. */
static bool may_be_done(const lj_http_response *response, const char *store_code,
                        const lj_error *err)
{
    int status = err->http_status == response->status ? response->status : 0;
    if (status == 0) /* no answer, or not all of it */
        return response->maybe_sent;
    return status >= 500 && status != 501 && (status != 503 || store_code[0] == 0);
}

/* One request. A 200 may carry an error: the store began to answer before it was through. */
static lj_code complete_once(upload *u, const lj_buf *body, bool conditional,
                             char store_code[LJ_S3_CODE_MAX], bool *ret_unclear, lj_error *err)
{
    LJ_CLEANUP(lj_http_response_free) lj_http_response response = LJ_HTTP_RESPONSE_INIT;
    LJ_CLEANUP(lj_freep) char *query = lj_str_printf("uploadId=%s", u->id);
    if (query == NULL)
        return lj_error_nomem(err);
    lj_s3_request request = {.method = "POST",
                             .key = u->key,
                             .query = query,
                             .body = body->data,
                             .body_len = body->len,
                             .total_timeout_ns = COMPLETE_TOTAL_NS};
    lj_s3_add_header(&request, "content-type", "application/xml");
    lj_s3_add_header(&request, "if-none-match", conditional ? "*" : NULL);
    *ret_unclear = false;
    lj_code code = lj_s3_call(u->s3, &request, &response, store_code, err);
    if (code != LJ_OK) {
        *ret_unclear = strcmp(store_code, "NoSuchUpload") == 0;
        u->maybe_complete |= may_be_done(&response, store_code, err);
        return code;
    }
    const char *text = lj_buf_text(&response.body);
    char root[LJ_S3_XML_NAME_MAX];
    code = lj_s3_xml_read(text, response.body.len, ignore, NULL, root, err);
    if (code == LJ_OK && strcmp(root, "CompleteMultipartUploadResult") == 0)
        return LJ_OK;
    lj_s3_answer answer;
    lj_s3_answer_read(text, response.body.len, &answer);
    if (answer.code[0] != 0) {
        memcpy(store_code, answer.code, sizeof(answer.code));
        code = lj_s3_code_error(answer.code, answer.message, "completing the upload", err);
        u->maybe_complete |= code == LJ_UNAVAILABLE || code == LJ_TIMEOUT;
        return code;
    }
    *ret_unclear = true;
    u->maybe_complete = true;
    lj_error_set(err, LJ_UNAVAILABLE, "the store did not say whether the upload is complete");
    return lj_error_retryable(err, true);
}

static void pause_before(const lj_s3 *s3, unsigned attempt, int64_t retry_after_ns)
{
    int64_t asked_ns = LJ_MIN(retry_after_ns, PAUSE_ASKED_MAX_NS);
    int64_t end_ns = lj_clock_mono_ns() + LJ_MAX((LJ_NS_PER_S << attempt) / 2, asked_ns);
    while (!lj_s3_cancelled(s3) && lj_clock_mono_ns() < end_ns)
        lj_clock_sleep_ns(PAUSE_STEP_NS);
}

static lj_code complete(upload *u, uint32_t count, bool if_absent, lj_s3_condition condition,
                        lj_error *err)
{
    LJ_CLEANUP(lj_buf_free) lj_buf body = LJ_BUF_INIT(COMPLETE_BODY_MAX);
    LJ_TRY(list_parts(u, count, &body, err));
    bool conditional = if_absent && condition != LJ_S3_CONDITION_NONE;
    for (unsigned attempt = 0;; attempt++) {
        char store_code[LJ_S3_CODE_MAX] = "";
        bool unclear = false;
        lj_code code = complete_once(u, &body, conditional, store_code, &unclear, err);
        if (code == LJ_OK)
            return LJ_OK;
        if (unclear) {
            lj_error why = *err;
            return judge_by_object(u, if_absent, &why, err);
        }
        if (conditional && lj_s3_absent_refused(u->s3, u->key, store_code, err)) {
            conditional = false;
            continue;
        }
        bool passing = err->code == LJ_UNAVAILABLE || err->code == LJ_TIMEOUT;
        /* a conflict with another writer ends an upload: it cannot be completed any more */
        if (!passing || attempt + 1 >= COMPLETE_ATTEMPTS || lj_s3_cancelled(u->s3) ||
            strcmp(store_code, "ConditionalRequestConflict") == 0)
            return err->code;
        pause_before(u->s3, attempt, err->retry_after_ns);
    }
}

static lj_code take_back_once(const upload *u, bool last, char store_code[LJ_S3_CODE_MAX],
                              lj_error *err)
{
    LJ_CLEANUP(lj_http_response_free) lj_http_response response = LJ_HTTP_RESPONSE_INIT;
    LJ_CLEANUP(lj_freep) char *query = lj_str_printf("uploadId=%s", u->id);
    if (query == NULL)
        return lj_error_nomem(err);
    lj_s3_request request = {.method = "DELETE",
                             .key = u->key,
                             .query = query,
                             .last = last,
                             .total_timeout_ns = last ? ABORT_CANCELLED_NS : ABORT_TOTAL_NS};
    return lj_s3_call(u->s3, &request, &response, store_code, err);
}

/* A close that comes while the store hangs waits for the short request only. */
static void take_back(const upload *u)
{
    char store_code[LJ_S3_CODE_MAX] = "";
    lj_error why = LJ_ERROR_INIT;
    bool cancelled = lj_s3_cancelled(u->s3);
    const bool *flag = lj_cancel_swap(NULL); /* that is for what is taken back here */
    lj_code code = take_back_once(u, cancelled, store_code, &why);
    if (code == LJ_CANCELLED)
        code = take_back_once(u, true, store_code, &why);
    lj_cancel_swap(flag);
    if (code != LJ_OK && strcmp(store_code, "NoSuchUpload") != 0)
        lj_log_error(
            LJ_LOG_WARN,
            "s3: an unfinished upload could not be removed; a lifecycle rule for incomplete "
            "multipart uploads removes such",
            &why);
}

static lj_code run(upload *u, lj_source *source, lj_buf *head, bool if_absent,
                   lj_s3_condition condition, lj_error *err)
{
    lj_parts_job job = {.ctx = u,
                        .parts_max = PARTS_MAX,
                        .equal = u->s3->target.equal_parts,
                        .cancel = u->s3->cancel,
                        .send = send};
    uint32_t count = 0;
    LJ_TRY(begin(u, err));
    lj_code code = lj_parts_send(source, head, &job, &count, err);
    if (code == LJ_OK)
        code = complete(u, count, if_absent, condition, err);
    if (code != LJ_OK && !u->maybe_complete)
        take_back(u);
    else if (code != LJ_OK && code != LJ_EXISTS) {
        lj_log_error(LJ_LOG_WARN,
                     "s3: whether an upload is complete is not known, so it is not taken back; a "
                     "lifecycle rule for incomplete multipart uploads removes it if it is not",
                     err);
        code = lj_parts_unclear(err);
    }
    return code;
}

lj_code lj_s3_put_parts(lj_s3 *s3, const char *key, lj_source *source, lj_buf *head, bool if_absent,
                        lj_error *err)
{
    lj_s3_claim claim = {.key = NULL};
    lj_s3_condition condition = LJ_S3_CONDITION_NONE;
    if (if_absent)
        LJ_TRY(lj_s3_absent_begin(s3, key, true, &claim, &condition, err));
    upload u = {.s3 = s3, .key = key};
    pthread_mutex_init(&u.mutex, NULL);
    lj_code code = run(&u, source, head, if_absent, condition, err);
    upload_free(&u);
    lj_s3_absent_end(s3, &claim);
    return code;
}
