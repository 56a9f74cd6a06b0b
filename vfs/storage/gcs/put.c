/*
 * put.c - see internal.h: an upload as one request, and what uploads of both kinds share.
 *
 * The one request is a multipart/related body: metadata with the sum, which the store checks before the object appears, and
 * the bytes.
 *
 * Layer: storage. Thread-safety: as storage.h.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vfs/base/io.h"
#include "vfs/base/str.h"
#include "vfs/storage/auth/crypto.h"
#include "vfs/storage/gcs/internal.h"
#include "vfs/storage/parts.h"

#define BOUNDARY_RANDOM 16u

/* ---- shared with resumable.c ---- */

lj_code lj_gcs_upload_url(const lj_gcs_upload *upload, const char *type, lj_buf *out, lj_error *err)
{
    LJ_TRY(lj_gcs_url(upload->gcs, true, NULL, out, err));
    LJ_TRY(lj_gcs_param(out, "uploadType", type, err));
    LJ_TRY(lj_gcs_param(out, "name", upload->name, err));
    LJ_TRY(lj_gcs_param(out, "fields", "size,crc32c,generation", err));
    return upload->if_absent ? lj_gcs_param(out, "ifGenerationMatch", "0", err) : LJ_OK;
}

char *lj_gcs_crc32c_text(uint32_t crc32c)
{
    uint8_t bytes[4];
    lj_put_be32(bytes, crc32c);
    return lj_base64(bytes, sizeof(bytes));
}

lj_code lj_gcs_upload_refused(const lj_gcs_upload *upload, const lj_http_response *response,
                              lj_error *err)
{
    if (response->status == 412 && upload->if_absent) {
        lj_error_set(err, LJ_EXISTS, "there is an object of this name already");
        if (err != NULL)
            err->http_status = response->status;
        return LJ_EXISTS;
    }
    return lj_gcs_refused(upload->gcs, response, "uploading an object", err);
}

bool lj_gcs_upload_discard(const lj_gcs_upload *upload, const lj_http_response *answer)
{
    char text[24];
    lj_gcs_object object;
    LJ_CLEANUP(lj_buf_free) lj_buf url = LJ_GCS_URL_INIT;
    LJ_CLEANUP(lj_http_response_free) lj_http_response response = LJ_HTTP_RESPONSE_INIT;
    if (lj_gcs_object_parse(lj_buf_text(&answer->body), answer->body.len, false, &object, NULL) !=
            LJ_OK ||
        object.generation == 0)
        return false;
    (void)snprintf(text, sizeof(text), "%" PRIu64, object.generation);
    if (lj_gcs_url(upload->gcs, false, upload->name, &url, NULL) != LJ_OK ||
        lj_gcs_param(&url, "ifGenerationMatch", text, NULL) != LJ_OK)
        return false;
    lj_http_request request = LJ_HTTP_REQUEST("DELETE", lj_buf_text(&url));
    return lj_gcs_send(upload->gcs, &request, &response, NULL) == LJ_OK &&
           (response.status / 100 == 2 || response.status == 404 || response.status == 412);
}

lj_code lj_gcs_upload_check(const lj_gcs_upload *upload, const lj_http_response *response,
                            uint64_t size, uint32_t crc32c, lj_error *err)
{
    lj_gcs_object object;
    lj_gcs_seen(upload->gcs);
    LJ_TRY(
        lj_gcs_object_parse(lj_buf_text(&response->body), response->body.len, false, &object, err));
    if (object.size_bytes == size && (!object.has_crc32c || object.crc32c == crc32c))
        return LJ_OK;
    bool gone = lj_gcs_upload_discard(upload, response);
    lj_error_set(err, gone ? LJ_IO : LJ_UNAVAILABLE,
                 "the store has other bytes than were sent: %" PRIu64 " of %" PRIu64
                 " bytes, another CRC32C",
                 object.size_bytes, size);
    (void)lj_error_hint(err, "something between damages uploads; it is tried again");
    return lj_error_retryable(err, true);
}

/* ---- one request ---- */

typedef struct {
    struct {
        const void *data;
        size_t len;
    } pieces[3];
    size_t at;  /* piece */
    size_t pos; /* byte in it */
} body;

static lj_code body_read(void *ctx, void *out, size_t max, size_t *ret_n, lj_error *err)
{
    (void)err;
    body *b = ctx;
    while (b->at < LJ_ARRAY_LEN(b->pieces) && b->pos == b->pieces[b->at].len) {
        b->at++;
        b->pos = 0;
    }
    if (b->at == LJ_ARRAY_LEN(b->pieces)) {
        *ret_n = 0;
        return LJ_OK;
    }
    size_t n = LJ_MIN(max, b->pieces[b->at].len - b->pos);
    memcpy(out, (const char *)b->pieces[b->at].data + b->pos, n);
    b->pos += n;
    *ret_n = n;
    return LJ_OK;
}

static lj_code body_rewind(void *ctx, lj_error *err)
{
    (void)err;
    body *b = ctx;
    b->at = 0;
    b->pos = 0;
    return LJ_OK;
}

/* The parts around the bytes. The boundary is random, so that it is not in them. */
static lj_code frame_body(uint32_t crc32c, char **ret_type, char **ret_begin, char **ret_end,
                          lj_error *err)
{
    uint8_t random[BOUNDARY_RANDOM];
    char boundary[2 * BOUNDARY_RANDOM + 1];
    lj_io_random(random, sizeof(random));
    lj_hex(random, sizeof(random), boundary);
    LJ_CLEANUP(lj_freep) char *sum = lj_gcs_crc32c_text(crc32c);
    if (sum == NULL)
        return lj_error_nomem(err);
    *ret_type = lj_str_printf("Content-Type: multipart/related; boundary=%s", boundary);
    *ret_begin =
        lj_str_printf("--%s\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n"
                      "{\"contentType\":\"application/octet-stream\",\"crc32c\":\"%s\"}\r\n"
                      "--%s\r\nContent-Type: application/octet-stream\r\n\r\n",
                      boundary, sum, boundary);
    *ret_end = lj_str_printf("\r\n--%s--\r\n", boundary);
    return *ret_type == NULL || *ret_begin == NULL || *ret_end == NULL ? lj_error_nomem(err)
                                                                       : LJ_OK;
}

static lj_code put_whole(const lj_gcs_upload *upload, const lj_buf *bytes, lj_error *err)
{
    LJ_CLEANUP(lj_freep) char *type = NULL;
    LJ_CLEANUP(lj_freep) char *begin = NULL;
    LJ_CLEANUP(lj_freep) char *end = NULL;
    LJ_CLEANUP(lj_buf_free) lj_buf url = LJ_GCS_URL_INIT;
    LJ_CLEANUP(lj_http_response_free) lj_http_response response = LJ_HTTP_RESPONSE_INIT;
    uint32_t crc32c = lj_gcs_crc32c(0, bytes->data, bytes->len);
    LJ_TRY(lj_gcs_upload_url(upload, "multipart", &url, err));
    LJ_TRY(frame_body(crc32c, &type, &begin, &end, err));
    const char *const headers[] = {type, NULL};
    body state = {
        .pieces = {{begin, strlen(begin)}, {lj_buf_text(bytes), bytes->len}, {end, strlen(end)}}};
    lj_source source = {.ctx = &state, .read = body_read, .rewind = body_rewind, .size = -1};
    lj_http_request request = LJ_HTTP_REQUEST("POST", lj_buf_text(&url));
    request.headers = headers;
    request.source = &source;
    request.body_len = strlen(begin) + bytes->len + strlen(end);
    request.body_max = LJ_GCS_OBJECT_BODY_MAX;
    LJ_TRY(lj_gcs_send(upload->gcs, &request, &response, err));
    if (response.status / 100 != 2)
        return lj_gcs_upload_refused(upload, &response, err);
    return lj_gcs_upload_check(upload, &response, bytes->len, crc32c, err);
}

/*
 * Google looks at the condition when all is there, and begins every upload: so before gigabytes are sent for nothing. Who may
 * not look leaves it to the condition.
 */
static lj_code check_absent(lj_gcs *gcs, const char *key, lj_error *err)
{
    lj_storage_entry entry = {.key = key};
    lj_error why = LJ_ERROR_INIT;
    lj_code code = lj_gcs_head(gcs, key, &entry, &why);
    if (code == LJ_NOTFOUND || code == LJ_DENIED)
        return LJ_OK;
    if (code == LJ_OK)
        return lj_error_set(err, LJ_EXISTS, "there is an object of this name already");
    if (err != NULL)
        *err = why;
    return code;
}

lj_code lj_gcs_put(void *self, const char *key, lj_source *source,
                   const lj_storage_put_options *options, lj_error *err)
{
    lj_gcs *gcs = self;
    LJ_CLEANUP(lj_freep) char *name = NULL;
    LJ_CLEANUP(lj_buf_free) lj_buf head = LJ_BUF_INIT(LJ_PARTS_SMALL_MAX + 1);
    bool whole = false;
    LJ_TRY(lj_gcs_name(gcs, key, &name, err));
    LJ_TRY(lj_parts_head(source, &head, &whole, err));
    lj_gcs_upload upload = {.gcs = gcs, .name = name, .if_absent = options->if_absent};
    if (!whole && options->if_absent)
        LJ_TRY(check_absent(gcs, key, err));
    return whole ? put_whole(&upload, &head, err) : lj_gcs_resumable(&upload, source, &head, err);
}
