/*
 * delete.c - deletes many keys, in an order that readers in between can live with.
 *
 * One DELETE per key keeps any order, and takes a round trip per key: an hour for the segments of a busy day. DeleteObjects
 * takes 1,000 keys, and promises no order among them. So keys go by it in batches, batch after batch in the given order, and
 * the first batch with a failure is the last. Within a batch, as long as the store works on it, a reader may see any of
 * its keys gone, which is weaker than the order asked for. One thing is kept all the same: where the keys go down (the
 * segments of a WAL index, the last one first), the lowest of such a run, which is the begin of what the others continue,
 * is never in a batch with them but in the one after it.
 *
 * Stores that refuse DeleteObjects get one DELETE per key from then on, and so do keys that XML cannot carry.
 *
 * Layer: storage. Thread-safety: as storage.h.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vfs/base/log.h"
#include "vfs/base/str.h"
#include "vfs/storage/order.h"
#include "vfs/storage/s3/internal.h"
#include "vfs/storage/s3/listing.h"
#include "vfs/storage/s3/xml.h"

#define BATCH_MAX  1000u
#define BODY_MAX   ((size_t)8 * 1024 * 1024)
#define ANSWER_MAX ((size_t)8 * 1024 * 1024)

typedef struct {
    lj_s3 *s3;
    lj_storage_delete_fn fn;
    void *ctx;
} job;

/* ---- one key ---- */

static lj_code delete_one(const job *j, const char *key, lj_error *err)
{
    LJ_CLEANUP(lj_http_response_free) lj_http_response response = LJ_HTTP_RESPONSE_INIT;
    lj_s3_request request = {.method = "DELETE", .key = key};
    lj_error why = LJ_ERROR_INIT;
    lj_code code = lj_s3_call(j->s3, &request, &response, NULL, &why);
    if (code == LJ_NOTFOUND)
        code = LJ_OK;
    j->fn(j->ctx, key, code == LJ_OK ? NULL : &why);
    if (code != LJ_OK)
        *err = why;
    return code;
}

/* ---- a batch ---- */

typedef struct {
    lj_s3 *s3;
    const char *const *keys;
    size_t count;
    bool told[BATCH_MAX];
    lj_error first; /* the first key that failed */
    const job *job;
} batch;

static bool fits_xml(const char *key)
{
    for (; *key != 0; key++)
        if ((unsigned char)*key >= 0x80)
            return false;
    return true;
}

/* How many keys from keys[0] on go into one request: 1 means by a DELETE of its own. */
static size_t batch_length(const char *const *keys, size_t count)
{
    size_t n = 0;
    while (n < count && n < BATCH_MAX && fits_xml(keys[n]) && !lj_order_ends_a_fall(keys, n, count))
        n++;
    return LJ_MAX(n, (size_t)1);
}

static lj_code make_body(const batch *b, lj_buf *out, lj_error *err)
{
    LJ_TRY(lj_buf_printf(out, err,
                         "<Delete xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">"
                         "<Quiet>false</Quiet>"));
    const char *prefix = b->s3->target.prefix;
    for (size_t i = 0; i < b->count; i++) {
        LJ_TRY(lj_buf_printf(out, err, "<Object><Key>"));
        LJ_TRY(lj_s3_xml_escape(out, prefix, err));
        LJ_TRY(lj_s3_xml_escape(out, prefix[0] != 0 ? "/" : "", err));
        LJ_TRY(lj_s3_xml_escape(out, b->keys[i], err));
        LJ_TRY(lj_buf_printf(out, err, "</Key></Object>"));
    }
    return lj_buf_printf(out, err, "</Delete>");
}

static lj_code no_result(void *ctx, const char *key, const char *code, const char *message,
                         lj_error *err)
{
    (void)ctx, (void)key, (void)code, (void)message, (void)err;
    return LJ_OK;
}

static void tell(batch *b, size_t i, const lj_error *why)
{
    if (b->told[i])
        return;
    b->told[i] = true;
    b->job->fn(b->job->ctx, b->keys[i], why);
    if (why != NULL && b->first.code == LJ_OK)
        b->first = *why;
}

static lj_code on_result(void *ctx, const char *key, const char *code, const char *message,
                         lj_error *err)
{
    (void)err;
    batch *b = ctx;
    size_t len = strlen(b->s3->target.prefix);
    if (len > 0 && (strncmp(key, b->s3->target.prefix, len) != 0 || key[len++] != '/'))
        return LJ_OK;
    lj_error why = LJ_ERROR_INIT;
    if (code != NULL && strcmp(code, "NoSuchKey") != 0)
        (void)lj_s3_code_error(code, message, "DELETE", &why);
    for (size_t i = 0; i < b->count; i++) /* a key may be given twice */
        if (strcmp(b->keys[i], key + len) == 0)
            tell(b, i, why.code != LJ_OK ? &why : NULL);
    return LJ_OK;
}

static void tell_all(batch *b, const lj_error *why)
{
    for (size_t i = 0; i < b->count; i++)
        tell(b, i, why);
}

static lj_code send_batch(batch *b, lj_http_response *response, lj_error *err)
{
    LJ_CLEANUP(lj_buf_free) lj_buf body = LJ_BUF_INIT(BODY_MAX);
    char md5[LJ_S3_MD5_BASE64];
    LJ_TRY(make_body(b, &body, err));
    lj_s3_request request = {.method = "POST",
                             .query = "delete=",
                             .body = body.data,
                             .body_len = body.len,
                             .body_max = ANSWER_MAX};
    lj_s3_add_header(&request, "content-md5", lj_s3_content_md5(body.data, body.len, md5));
    lj_s3_add_header(&request, "content-type", "application/xml");
    LJ_TRY(lj_s3_call(b->s3, &request, response, NULL, err));
    /* all of it first, so that no key is told twice */
    return lj_s3_deleted_read(lj_buf_text(&response->body), response->body.len, no_result, NULL,
                              err);
}

/* The request as a whole was refused: that is not the keys' fault, but may be the store's way to say it has no DeleteObjects. */
static bool does_not_know_batches(int status, lj_code code)
{
    return status == 501 || status == 405 ||
           (status == 400 && (code == LJ_INVALID || code == LJ_UNSUPPORTED));
}

/* *ret_refused: nothing was deleted and nothing told, because the store does not take batches. */
static lj_code delete_batch(batch *b, bool *ret_refused, lj_error *err)
{
    LJ_CLEANUP(lj_http_response_free) lj_http_response response = LJ_HTTP_RESPONSE_INIT;
    lj_error why = LJ_ERROR_INIT;
    lj_code code = send_batch(b, &response, &why);
    *ret_refused = code != LJ_OK && does_not_know_batches(response.status, code);
    if (*ret_refused) {
        *err = why;
        return code;
    }
    if (code == LJ_OK)
        code =
            lj_s3_deleted_read(lj_buf_text(&response.body), response.body.len, on_result, b, &why);
    if (code == LJ_OK) { /* of what is not told now */
        (void)lj_error_set(&why, LJ_UNAVAILABLE, "DELETE: the store does not say whether it did");
        (void)lj_error_retryable(&why, true);
    }
    tell_all(b, &why);
    if (b->first.code != LJ_OK)
        *err = b->first;
    return b->first.code;
}

/* ---- all ---- */

static void refuse_rest(const job *j, const char *const *keys, size_t count)
{
    lj_error err = LJ_ERROR_INIT;
    (void)lj_error_set(&err, LJ_CANCELLED, "not deleted, because an earlier one in order was not");
    (void)lj_error_retryable(&err, true);
    for (size_t i = 0; i < count; i++)
        j->fn(j->ctx, keys[i], &err);
}

lj_code lj_s3_delete_many(void *self, const char *const *keys, size_t count,
                          lj_storage_delete_fn fn, void *ctx, lj_error *err)
{
    lj_s3 *s3 = self;
    job j = {.s3 = s3, .fn = fn, .ctx = ctx};
    LJ_CLEANUP(lj_freep) batch *b = calloc(1, sizeof(*b));
    lj_error why = LJ_ERROR_INIT;
    lj_code code = LJ_OK;
    size_t done = 0;
    if (b == NULL)
        return lj_error_nomem(err);
    while (done < count && code == LJ_OK) {
        bool refused = false;
        size_t n = atomic_load(&s3->single_deletes) ? 1 : batch_length(keys + done, count - done);
        *b = (batch){.s3 = s3, .job = &j, .keys = keys + done, .count = n};
        code = n == 1 ? delete_one(&j, keys[done], &why) : delete_batch(b, &refused, &why);
        if (refused) {
            if (!atomic_exchange(&s3->single_deletes, true))
                lj_log_error(LJ_LOG_INFO, "s3: the store does not take many deletions at once",
                             &why);
            code = LJ_OK;
            n = 0;
        }
        done += n;
    }
    refuse_rest(&j, keys + done, count - done);
    if (code != LJ_OK && err != NULL)
        *err = why;
    return code;
}
